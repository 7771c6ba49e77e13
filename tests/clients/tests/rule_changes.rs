//! Rules that are changed, switched, dropped, broken and mended while others look, and who reads why one could not be asked.

use usher_clients::{Client, Database, SqlState, number, refused, role, run, text, wait};

fn yard(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(
        &mut client,
        "SET client_min_messages = error;
         CREATE TABLE public.items (organization_id uuid NOT NULL, id bigint NOT NULL, amount text NOT NULL DEFAULT '1', PRIMARY KEY (organization_id, id));
         SELECT usher.create_organization('north'), usher.create_organization('south');
         INSERT INTO public.items (organization_id, id) SELECT o.id, n FROM usher.organizations AS o CROSS JOIN generate_series(1, 3) AS n WHERE o.slug IN ('north', 'south')",
    );
    (database, client)
}

/// A rule of items, with more.
fn rule(name: &str, more: &str) -> String {
    format!(
        "SELECT usher.create_rule('{name}', '{{\"query\": \"SELECT organization_id, id, amount FROM public.items WHERE amount = ''bad''\", \"key\": [\"id\"],
          \"wrong\": \"''item '' || id || '' is bad''\"{more}}}')"
    )
}

const TOUCHES: &str = ", \"touches\": {\"public.items\": {\"id\": \"row.id\"}}";
const STANDING: &str = "SELECT count(*) FROM usher.violations WHERE status IN ('pending', 'open', 'waived')";

/// Does something in a session of its own, which has to wait for the first one's transaction, or is done at once.
fn beside(database: &Database, client: &mut Client, sql: &str) {
    let mut other = database.connect();
    let mut witness = database.connect();
    let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
    let waiting = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
    std::thread::scope(|scope| {
        let work = scope.spawn(move || run(&mut other, sql));
        wait::until(wait::LONG, "it waits or is done", || {
            work.is_finished() || usher_clients::value::<bool>(&mut witness, &waiting, &[])
        });
        run(client, "COMMIT");
        work.join().expect("it ends");
    });
}

#[test]
fn what_a_look_finds_beside_a_change_is_not_left_behind() {
    let (database, mut client) = yard("usher_test_rule_beside");
    for (name, change) in [
        ("dropped", "SELECT usher.drop_rule('dropped')"),
        // Another key: what the other look has written is of no rule any more.
        (
            "altered",
            "SELECT usher.alter_rule('altered', definition || '{\"key\": [\"id\", \"amount\"]}') FROM usher.rules WHERE name = 'altered'",
        ),
    ] {
        run(&mut client, &format!("UPDATE public.items SET amount = '1'; {}", rule(name, ", \"every\": \"never\"")));
        run(
            &mut client,
            &format!("BEGIN; UPDATE public.items SET amount = 'bad' WHERE id = 2; SELECT * FROM usher.check_rule('{name}')"),
        );
        assert_eq!(number(&mut client, STANDING), 2, "{name}");
        beside(&database, &mut client, change);
        assert_eq!(number(&mut client, STANDING), 0, "{name}");
    }
}

#[test]
fn a_look_that_waited_asks_for_what_the_rule_says_now() {
    let (database, mut client) = yard("usher_test_rule_now");
    run(&mut client, &format!("UPDATE public.items SET amount = 'bad' WHERE id = 1; {}", rule("now", ", \"every\": \"never\"")));
    run(
        &mut client,
        "BEGIN; SELECT usher.alter_rule('now', definition || '{\"wrong\": \"''changed''\", \"key\": [\"id\", \"amount\"]}') FROM usher.rules",
    );
    beside(&database, &mut client, "SELECT * FROM usher.check_rule('now')");
    assert_eq!(
        text(&mut client, "SELECT string_agg(DISTINCT concat_ws(' ', key, wrong), '; ') FROM usher.violations"),
        "{\"id\": 1, \"amount\": \"bad\"} changed"
    );
    run(&mut client, "BEGIN; SELECT usher.drop_rule('now')");
    let mut other = database.connect();
    std::thread::scope(|scope| {
        let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
        let look = scope.spawn(move || refused(&mut other, "SELECT * FROM usher.check_rule('now')"));
        let mut witness = database.connect();
        wait::until_true(&mut witness, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"));
        run(&mut client, "COMMIT");
        assert_eq!(look.join().expect("it ends").code(), &SqlState::UNDEFINED_OBJECT);
    });
    assert_eq!(number(&mut client, STANDING), 0);
}

/// A rule that is asked only about what is touched looks at everything once whenever it begins to be asked.
#[test]
fn what_became_bad_while_a_rule_was_not_asked_is_found() {
    let (_database, mut client) = yard("usher_test_rule_once");
    let here = &mut client;
    for run_of in ["transaction", "after_sync"] {
        run(here, "UPDATE public.items SET amount = '1'");
        let bad = |id: i32| format!("UPDATE public.items SET amount = 'bad' WHERE id = {id}");
        let found = |here: &mut Client, open: i64| {
            wait::until_true(here, &format!("SELECT ({STANDING} AND rule = '{run_of}') = {open}"));
            // Once, not by the clock.
            wait::until_true(here, "SELECT bool_and(check_at IS NULL) FROM usher.rules");
        };
        run(here, &bad(1));
        run(here, &rule(run_of, &format!("{TOUCHES}, \"run\": [\"{run_of}\"]")));
        found(here, 2);
        run(here, &format!("SELECT usher.disable_rule('{run_of}')"));
        run(here, &bad(2));
        run(here, &format!("SELECT usher.enable_rule('{run_of}')"));
        found(here, 4);
        // Broken, it stops nobody; mended, it finds what has happened meanwhile.
        run(here, "ALTER TABLE public.items RENAME COLUMN amount TO price");
        assert_eq!(text(here, &format!("SELECT state FROM usher.rules WHERE name = '{run_of}'")), "broken");
        run(here, "UPDATE public.items SET price = 'bad' WHERE id = 3");
        run(here, "ALTER TABLE public.items RENAME COLUMN price TO amount");
        found(here, 6);
        run(
            here,
            &format!(
                "SELECT usher.alter_rule('{run_of}', definition || '{{\"query\": \"SELECT organization_id, id, amount FROM public.items\"}}') FROM usher.rules WHERE name = '{run_of}'"
            ),
        );
        wait::until_true(
            here,
            &format!(
                "SELECT bool_and(last_found = 6 AND last_checked_at > updated_at AND check_at IS NULL) FROM usher.rules WHERE name = '{run_of}'"
            ),
        );
        run(here, &format!("SELECT usher.drop_rule('{run_of}')"));
    }
    // On demand is on demand.
    run(here, &rule("asked", ", \"every\": \"never\""));
    run(here, "SELECT usher.disable_rule('asked'); SELECT usher.enable_rule('asked')");
    assert_eq!(number(here, "SELECT count(*) FROM usher.rules WHERE check_at IS NOT NULL"), 0);
}

/// An admin has an organization looked at, and the query is asked about all: what it stumbles over may be another's.
#[test]
fn why_a_rule_could_not_be_asked_is_for_operators() {
    let (database, mut client) = yard("usher_test_rule_secret");
    role(&mut client, "clients_rule_admin", "LOGIN");
    run(
        &mut client,
        "GRANT usher_member TO clients_rule_admin; SELECT usher.grant_membership('north', 'role:clients_rule_admin', 'admin');
         SELECT usher.create_rule('numbers', '{\"query\": \"WITH n AS MATERIALIZED (SELECT organization_id, id, amount::integer AS amount FROM public.items) SELECT * FROM n WHERE amount < 0\", \"key\": [\"id\"], \"wrong\": \"''negative''\", \"every\": \"never\"}');
         UPDATE public.items SET amount = 'secret-of-south' WHERE id = 2 AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'south')",
    );
    let mut admin = database.connect_as("clients_rule_admin");
    let told = refused(&mut admin, "SELECT * FROM usher.check_rule('numbers', 'north')");
    assert!(!format!("{told:?}").contains("secret") && !format!("{told:?}").contains("amount::integer"), "{told:?}");
    assert_eq!((told.code().code(), told.message()), ("55000", "rule \"numbers\" could not be evaluated"));
    assert_eq!(
        text(&mut admin, "SELECT concat_ws(' | ', rule, new, error) FROM usher.check_rules('north')"),
        "numbers | rule \"numbers\" could not be evaluated (55000)"
    );
    // Who runs the installation reads it.
    let error = text(&mut client, "SELECT last_error FROM usher.rules");
    assert!(error.contains("secret-of-south"), "{error}");
    let told = refused(&mut client, "SELECT * FROM usher.check_rule('numbers', 'north')");
    assert!(told.message().contains("secret-of-south"), "{told:?}");
    assert!(text(&mut client, "SELECT error FROM usher.check_rules()").contains("secret-of-south"));
    // What concerns the caller is told as it is.
    let snapshot =
        refused(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM usher.check_rule('numbers', 'north')");
    assert!(snapshot.message().contains("one snapshot"), "{snapshot:?}");
    run(&mut admin, "ROLLBACK");
    assert_eq!(refused(&mut admin, "SELECT * FROM usher.check_rule('none', 'north')").code(), &SqlState::UNDEFINED_OBJECT);
    run(&mut client, "UPDATE public.items SET amount = '-1' WHERE amount ~ 'secret'");
    assert_eq!(text(&mut admin, "SELECT concat_ws(' ', new, still, gone) FROM usher.check_rule('numbers', 'north')"), "0 0 0");
}

#[test]
fn a_rule_stands_on_all_that_it_names() {
    let (_database, mut client) = yard("usher_test_rule_needs");
    let here = &mut client;
    run(
        here,
        "CREATE FUNCTION public.said(id bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'item ' || id $$;
         CREATE FUNCTION public.keyed(id bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT id $$;
         CREATE TABLE public.notes (organization_id uuid NOT NULL, item bigint)",
    );
    run(
        here,
        "SELECT usher.create_rule('needs', '{\"query\": \"SELECT organization_id, id FROM public.items WHERE amount = ''bad''\", \"key\": [\"id\"], \"wrong\": \"public.said(id)\",
            \"touches\": {\"public.items\": {\"id\": \"row.id\"}, \"public.notes\": {\"id\": \"public.keyed(row.item)\"}}, \"run\": [\"after_sync\"], \"every\": \"never\"}')",
    );
    assert_eq!(
        text(
            here,
            "SELECT string_agg(pg_describe_object(class, object, 0), ', ' ORDER BY pg_describe_object(class, object, 0)) FROM usher.rule_dependencies WHERE class = 'pg_proc'::regclass"
        ),
        "function keyed(bigint), function said(bigint)"
    );
    // It reads what it read: what is merely touched is not looked at.
    let explained = text(here, "SELECT usher.explain_rule('needs')");
    assert!(
        explained.contains("reads:    public.items, watched") && explained.contains("public.notes, by what the query calls"),
        "{explained}"
    );
    for function in ["said(bigint)", "keyed(bigint)"] {
        run(here, &format!("ALTER FUNCTION public.{function} RENAME TO away"));
        assert_eq!(text(here, "SELECT state FROM usher.rules"), "broken", "{function}");
        let name = function.split('(').next().unwrap_or_default();
        run(here, &format!("ALTER FUNCTION public.away(bigint) RENAME TO {name}"));
        assert_eq!(text(here, "SELECT state FROM usher.rules"), "active", "{function}");
    }
}

/// Who waives a violation, or changes a rule, and does not commit for long.
#[test]
fn who_stands_in_one_rules_way_keeps_no_other() {
    let (database, mut client) = yard("usher_test_rule_aside");
    let here = &mut client;
    run(here, "UPDATE public.items SET amount = 'bad' WHERE id = 2");
    for (name, more, hold) in [
        ("graced", ", \"every\": \"1s\", \"grace\": \"1s\"", "SELECT FROM usher.violations WHERE rule = 'graced' FOR UPDATE"),
        (
            "altered",
            ", \"every\": \"1s\"",
            "SELECT usher.alter_rule('altered', definition || '{\"severity\": \"info\"}') FROM usher.rules WHERE name = 'altered'",
        ),
    ] {
        let found = |status: &str, rule: &str| {
            format!("SELECT count(*) = 2 FROM usher.violations WHERE rule = '{rule}' AND status IN ({status})")
        };
        run(here, &rule(name, more));
        wait::until_true(here, &found("'pending', 'open'", name));
        let mut other = database.connect();
        run(&mut other, &format!("SET client_min_messages = error; BEGIN; {hold}"));
        let free = format!("free_{name}");
        run(here, &rule(&free, ", \"every\": \"1s\""));
        wait::until_true(here, &found("'open'", &free));
        // Again and again, for as long as that takes.
        run(here, "UPDATE public.items SET amount = '1' WHERE id = 2");
        wait::until_true(here, &format!("SELECT count(*) = 2 FROM usher.violations WHERE rule = '{free}' AND status = 'gone'"));
        run(here, "UPDATE public.items SET amount = 'bad' WHERE id = 2");
        wait::until_true(here, &found("'open'", &free));
        run(&mut other, "COMMIT");
        wait::until_true(here, &found("'open'", name));
        run(here, &format!("SELECT usher.drop_rule('{name}'), usher.drop_rule('{free}')"));
    }
}

/// A rule that nobody looks at by the clock, and of which more was touched than anybody has noted.
#[test]
fn a_row_that_cannot_be_evaluated_does_not_keep_what_was_touched() {
    let (_database, mut client) = yard("usher_test_rule_poison");
    let here = &mut client;
    run(
        here,
        "SELECT usher.create_rule('divides', '{\"query\": \"SELECT organization_id, id FROM public.items WHERE 100 / amount::integer < 0\", \"key\": [\"id\"],
              \"wrong\": \"''item '' || id || '' is bad''\", \"every\": \"never\", \"run\": [\"after_sync\"], \"touches\": {\"public.items\": {\"id\": \"row.id\"}}}')",
    );
    wait::until_true(here, "SELECT last_checked_at IS NOT NULL FROM usher.rules");
    run(
        here,
        "CREATE TEMP TABLE kept AS TABLE public.items;
         BEGIN; TRUNCATE public.items; INSERT INTO public.items SELECT organization_id, id, CASE id WHEN 1 THEN '0' WHEN 3 THEN '-1' ELSE '1' END FROM kept; COMMIT",
    );
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.violations WHERE status = 'open' AND key ->> 'id' = '3'");
    wait::until_true(here, "SELECT last_error ~ '2 keys could not be evaluated.*division by zero' FROM usher.rules");
    assert_eq!(number(here, "SELECT count(*) FROM usher.rule_checks"), 0);
}
