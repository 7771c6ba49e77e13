//! Rules with a worker: docs/consistency.md as it stands there, looks in parts while others write, across a restart and beside rows that
//! cannot be evaluated or are locked, times of grace, escalations, and that two organizations never meet.

use usher_clients::keyfile::KeyFile;
use usher_clients::{Client, Database, number, page, refused, run, server, text, wait};

fn yard(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(
        &mut client,
        "SET client_min_messages = warning;
         CREATE TABLE public.items (organization_id uuid NOT NULL, id bigint NOT NULL, amount integer NOT NULL DEFAULT 1, PRIMARY KEY (organization_id, id));
         SELECT usher.create_organization('north'), usher.create_organization('south')",
    );
    (database, client)
}

/// A rule of items, with more.
fn rule(client: &mut Client, name: &str, which: &str, more: &str) {
    run(
        client,
        &format!(
            "SELECT usher.create_rule('{name}', '{{\"query\": \"SELECT organization_id, id, amount FROM public.items WHERE {which}\", \"key\": [\"id\"],
              \"wrong\": \"''item '' || id || '' is bad''\"{more}}}')"
        ),
    );
}

fn fill(client: &mut Client, rows: i32) {
    run(
        client,
        &format!(
            "INSERT INTO public.items (organization_id, id) SELECT o.id, n FROM usher.organizations o CROSS JOIN generate_series(1, {rows}) AS n WHERE o.slug IN ('north', 'south')"
        ),
    );
}

fn checked(client: &mut Client, name: &str) {
    wait::until_true(client, &format!("SELECT last_checked_at IS NOT NULL FROM usher.rules WHERE name = '{name}'"));
}

const OPEN: &str = "SELECT count(*) FROM usher.violations WHERE status = 'open'";

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_rules_page");
    let mut client = database.connect();
    let here = &mut client;
    let blocks = page::blocks("consistency.md");
    run(here, &blocks[0].sql);
    assert_eq!(
        text(here, "SELECT concat_ws(' ', key, severity, status, wrong) FROM usher.violations"),
        "{\"order_id\": 1} critical open order 1 has no invoice"
    );
    run(here, &blocks[1].sql);
    assert_eq!(text(here, "SELECT status FROM usher.violations"), "gone");
    assert_eq!(blocks.len(), 6, "the other four are tried by the test of repairs");
}

#[test]
fn a_large_table_is_looked_at_in_parts_while_others_write() {
    let (database, mut client) = yard("usher_test_rules_parts");
    let here = &mut client;
    // 50,000 rows of two organizations.
    fill(here, 25_000);
    run(here, "UPDATE public.items SET amount = -1 WHERE id % 1000 = 7; ANALYZE public.items");
    rule(here, "positive", "amount < 0", ", \"every\": \"1s\"");
    assert!(text(here, "SELECT usher.explain_rule('positive')").contains("in parts, by organization_id, id of public.items"));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let database = &database;
            scope.spawn(move || {
                let mut mine = database.connect();
                for turn in 0..60 {
                    // Bad and mended again, and a row that stays bad at the end.
                    let id = 100 + writer * 10_000 + turn * 13;
                    run(&mut mine, &format!("UPDATE public.items SET amount = -2 WHERE id = {id}"));
                    run(
                        &mut mine,
                        &format!("UPDATE public.items SET amount = {} WHERE id = {id}", if turn % 10 == 0 { -3 } else { 1 }),
                    );
                }
            });
        }
        checked(here, "positive");
    });
    let differing = "SELECT count(*) FROM (SELECT organization_id, id FROM public.items WHERE amount < 0) AS i
           FULL JOIN (SELECT organization_id, (key ->> 'id')::bigint AS id FROM usher.violations WHERE status = 'open') AS v USING (organization_id, id)
          WHERE i.id IS NULL OR v.id IS NULL";
    wait::until_true(here, &format!("SELECT ({differing}) = 0"));
    assert_eq!(number(here, "SELECT count(*) FROM public.items WHERE amount < 0"), number(here, OPEN));
    // Of how many rows, each organization by itself.
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', o.slug, c.rows), ', ' ORDER BY o.slug) FROM usher.consistency c JOIN usher.organizations o ON o.id = c.organization_id"
        ),
        "north 25000, south 25000"
    );
    // All is mended: gone, and 100 %.
    run(here, "UPDATE public.items SET amount = 1 WHERE amount < 0");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 0"));
    assert_eq!(text(here, "SELECT string_agg(DISTINCT percent::text, ' ') FROM usher.consistency"), "100.0000");
}

/// A look whose parts take long: 6,000 rows, each of which waits a moment.
fn slow(client: &mut Client) {
    fill(client, 3_000);
    run(
        client,
        "CREATE FUNCTION public.slowly(amount integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.0005); RETURN amount < 0; END $$;
         UPDATE public.items SET amount = -1 WHERE id % 1000 = 7; ANALYZE public.items",
    );
    rule(client, "slowly", "public.slowly(amount)", ", \"every\": \"1 day\"");
    wait::until_true(client, "SELECT sweep_position IS NOT NULL FROM usher.rules WHERE name = 'slowly'");
}

#[test]
fn a_look_goes_on_where_it_was_when_its_worker_is_killed() {
    let (database, mut client) = yard("usher_test_rules_restart");
    slow(&mut client);
    let began = text(&mut client, "SELECT sweep_began_at::text FROM usher.rules");
    let worker = server::worker_of(&mut client, "normal").expect("a worker has the normal lane");
    let mut witness = database.connect();
    let mut client = server::kill_and_recover(&database, &mut witness, worker);
    let here = &mut client;
    // The same look: begun then, and finished.
    assert_eq!(
        text(here, "SELECT COALESCE(sweep_began_at::text, 'finished') FROM usher.rules").replace("finished", &began),
        began
    );
    wait::until_true_for(here, wait::LONG * 4, "SELECT last_checked_at IS NOT NULL FROM usher.rules WHERE name = 'slowly'");
    assert_eq!(number(here, OPEN), 6);
    assert_eq!(number(here, "SELECT max(seen)::bigint FROM usher.violations"), 1, "nothing was looked at twice");
}

#[test]
fn a_row_that_cannot_be_evaluated_does_not_hide_the_others() {
    let (_database, mut client) = yard("usher_test_rules_poison");
    let here = &mut client;
    fill(here, 4_000);
    run(
        here,
        "UPDATE public.items SET amount = -1 WHERE id IN (10, 3990); UPDATE public.items SET amount = 0 WHERE id = 2000 AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'north')",
    );
    rule(here, "divides", "100 / amount < 0", ", \"every\": \"1s\"");
    wait::until_true(here, "SELECT last_checked_at IS NOT NULL AND last_error IS NOT NULL FROM usher.rules");
    assert_eq!(number(here, OPEN), 4);
    let error = text(here, "SELECT last_error FROM usher.rules");
    assert!(
        error.contains("1 keys could not be evaluated") && error.contains("2000") && error.contains("division by zero"),
        "{error}"
    );
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.doctor() WHERE \"check\" = 'rules' AND finding ~ 'does not see everything'"),
        1
    );
    // A violation of that key stays as it was; mended, nothing is left to say.
    run(here, "UPDATE public.items SET amount = -1 WHERE id = 2000");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 6"));
    run(here, "UPDATE public.items SET amount = 0 WHERE id = 2000; UPDATE public.items SET amount = 1 WHERE id = 10");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 4 AND last_error IS NOT NULL FROM usher.rules"));
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE status = 'open' AND key ->> 'id' = '2000'"), 2);
    run(here, "UPDATE public.items SET amount = 1");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 0 AND last_error IS NULL FROM usher.rules"));
}

#[test]
fn a_lock_keeps_one_rule_and_no_other() {
    let (database, mut client) = yard("usher_test_rules_locked");
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.others (id bigint PRIMARY KEY, fine boolean NOT NULL); INSERT INTO public.others VALUES (1, false)",
    );
    fill(here, 10);
    let mut other = database.connect();
    run(here, "UPDATE public.items SET amount = -1 WHERE id = 3");
    rule(here, "locked", "amount < 0", ", \"every\": \"1s\"");
    checked(here, "locked");
    run(&mut other, "BEGIN; LOCK TABLE public.items IN ACCESS EXCLUSIVE MODE");
    let before = text(here, "SELECT last_checked_at::text FROM usher.rules WHERE name = 'locked'");
    run(
        here,
        "SELECT usher.create_rule('free', '{\"query\": \"SELECT id FROM public.others WHERE NOT fine\", \"key\": [\"id\"], \"wrong\": \"''not fine''\", \"every\": \"1s\"}')",
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.violations WHERE rule = 'free' AND status = 'open'");
    run(here, "UPDATE public.others SET fine = true");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.violations WHERE rule = 'free' AND status = 'gone'");
    assert_eq!(
        text(here, "SELECT concat_ws(' ', state, last_checked_at) FROM usher.rules WHERE name = 'locked'"),
        format!("active {before}")
    );
    run(&mut other, "UPDATE public.items SET amount = 1; COMMIT");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 0"));
}

#[test]
fn grace_and_escalation_come_at_their_time() {
    let (_database, mut client) = yard("usher_test_rules_time");
    let here = &mut client;
    fill(here, 3);
    rule(
        here,
        "patient",
        "amount < 0",
        ", \"every\": \"1 day\", \"grace\": \"5s\", \"escalate\": {\"after\": \"500ms\", \"notify\": \"items stay bad\"}",
    );
    rule(here, "loud", "amount < -5", ", \"every\": \"never\", \"escalate\": {\"after\": \"500ms\", \"emit\": \"items.bad\"}");
    checked(here, "patient");
    run(here, "UPDATE public.items SET amount = -1 WHERE id < 3; SELECT * FROM usher.check_rule('patient')");
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE status = 'pending'"), 4);
    // One is mended in time.
    run(here, "UPDATE public.items SET amount = 1 WHERE id = 2");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 2 AND count(*) = 2 FROM usher.violations WHERE status = 'gone'"));
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.notices WHERE kind = 'violation open'");
    assert_eq!(
        text(
            here,
            "SELECT string_agg(DISTINCT concat_ws(' ', subject, body ->> 'wrong', failures), ';') FROM usher.notices WHERE kind = 'violation open'"
        ),
        "items stay bad item 1 is bad 1"
    );
    run(
        here,
        "UPDATE public.items SET amount = -9 WHERE id = 3 AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'south'); SELECT * FROM usher.check_rule('loud')",
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.events WHERE type = 'items.bad'");
    assert_eq!(
        text(
            here,
            "SELECT concat_ws(' ', o.slug, e.data ->> 'wrong', e.data -> 'row' ->> 'amount') FROM usher.events e JOIN usher.organizations o ON o.id = e.organization_id WHERE type = 'items.bad'"
        ),
        "south item 3 is bad -9"
    );
    // Waived in time, nobody is told.
    run(
        here,
        "SELECT usher.waive_violation(id, 'meant so') FROM usher.violations WHERE rule = 'loud'; SELECT * FROM usher.check_rule('loud')",
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE rule = 'loud' AND status = 'waived'"), 1);
}

#[test]
fn while_all_is_well_a_rule_rests_until_its_tables_change() {
    let (_database, mut client) = yard("usher_test_rules_rest");
    let here = &mut client;
    fill(here, 10);
    rule(here, "resting", "amount < 0", ", \"every\": \"1s\"");
    checked(here, "resting");
    // Looked at ever more rarely: the pauses grow.
    wait::until_true(here, "SELECT wait >= interval '4 s' FROM usher.rules");
    run(here, "UPDATE public.items SET amount = -1 WHERE id = 1");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 2"));
    assert_eq!(text(here, "SELECT wait::text FROM usher.rules"), "00:00:01");
}

#[test]
fn a_key_that_is_no_key_of_a_table_is_looked_at_as_a_whole() {
    let (_database, mut client) = yard("usher_test_rules_whole");
    let here = &mut client;
    fill(here, 100);
    run(
        here,
        "SELECT usher.create_rule('sums', '{\"query\": \"SELECT organization_id, amount, count(*) AS n FROM public.items GROUP BY organization_id, amount HAVING count(*) < 3\", \"key\": [\"amount\"],
            \"wrong\": \"''amount '' || amount || '' is rare''\", \"every\": \"1s\"}')",
    );
    assert!(text(here, "SELECT usher.explain_rule('sums')").contains("looked at at once"));
    checked(here, "sums");
    run(here, "UPDATE public.items SET amount = 5 WHERE id = 1");
    wait::until_true(here, &format!("SELECT ({OPEN}) = 2"));
    run(
        here,
        "UPDATE public.items SET amount = 1 WHERE organization_id = (SELECT id FROM usher.organizations WHERE slug = 'south')",
    );
    wait::until_true(here, &format!("SELECT ({OPEN}) = 1"));
    assert_eq!(
        text(
            here,
            "SELECT o.slug FROM usher.violations v JOIN usher.organizations o ON o.id = v.organization_id WHERE status = 'open'"
        ),
        "north"
    );
}

#[test]
fn what_names_a_person_is_masked_in_violations() {
    let (_database, mut client) = yard("usher_test_rules_erased");
    let here = &mut client;
    // A receipt of an erasure is signed.
    let _keys = KeyFile::new(here, "usher_test_rules_erased");
    run(
        here,
        "CREATE TABLE public.guests (organization_id uuid NOT NULL, id integer NOT NULL, email text, phone text, tidy boolean NOT NULL DEFAULT false, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.letters (organization_id uuid NOT NULL, id integer NOT NULL, recipient text, PRIMARY KEY (organization_id, id));
         SELECT usher.create_rule('guests', '{\"query\": \"SELECT organization_id, id, email FROM public.guests\", \"key\": [\"email\"], \"wrong\": \"email || '' is a guest''\", \"every\": \"never\",
             \"repair\": {\"statement\": \"UPDATE public.guests AS g SET id = bad.email::integer FROM bad WHERE g.organization_id = bad.organization_id AND g.id = bad.id\"}}'),
                usher.create_rule('tidy', '{\"query\": \"SELECT organization_id, id FROM public.guests WHERE NOT tidy\", \"key\": [\"id\"], \"wrong\": \"''untidy''\", \"every\": \"never\",
             \"repair\": {\"statement\": \"UPDATE public.guests AS g SET tidy = true FROM bad WHERE g.organization_id = bad.organization_id AND g.id = bad.id\"}}'),
                usher.create_rule('letters', '{\"query\": \"SELECT organization_id, id FROM public.letters WHERE id < 3\", \"key\": [\"id\"], \"wrong\": \"''old''\", \"every\": \"never\",
             \"repair\": {\"statement\": \"DELETE FROM public.letters AS l USING bad WHERE l.organization_id = bad.organization_id AND l.id = bad.id\"}}');
         INSERT INTO public.guests SELECT o.id, n, CASE WHEN n = 1 THEN 'ann@erase.example' ELSE 'bob@keep.example' END, CASE WHEN n = 1 THEN '+49 171 1' ELSE '+49 171 2' END
           FROM usher.organizations AS o, generate_series(1, 2) AS n WHERE o.slug = 'north';
         INSERT INTO public.letters SELECT o.id, 1, 'ann@erase.example' FROM usher.organizations AS o WHERE o.slug = 'north';
         INSERT INTO public.letters SELECT o.id, 2, 'ann@erase.example' FROM usher.organizations AS o WHERE o.slug = 'south';
         SELECT usher.define_subject('guest', 'public.guests');
         SELECT usher.declare_personal('public.guests', '{\"email\": {\"identifies\": true, \"purpose\": \"stays\"}, \"phone\": {\"purpose\": \"calls\"}}')",
    );
    run(
        here,
        "SELECT * FROM usher.check_rule('guests'); SELECT * FROM usher.check_rule('tidy'); SELECT * FROM usher.check_rule('letters')",
    );
    // Repairs keep rows as they were, and a failed one says of which value.
    assert_eq!(number(here, "SELECT count(*) FROM usher.repair_rule('guests') WHERE outcome = 'failed'"), 2);
    assert_eq!(number(here, "SELECT count(*) FROM usher.repair_rule('tidy') WHERE outcome = 'repaired'"), 2);
    assert_eq!(number(here, "SELECT count(*) FROM usher.repair_rule('letters') WHERE outcome = 'repaired'"), 2);
    run(here, "SELECT usher.waive_violation(id, 'says ann@erase.example') FROM usher.violations WHERE wrong ~ 'ann@'");
    let named = "SELECT count(*) FROM usher.violations AS v WHERE concat_ws(' ', v.key, v.\"row\", v.wrong, v.waived_because, v.last_error) ~ 'ann@'";
    assert_eq!(number(here, named), 1);
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE last_error ~ 'ann@'"), 1);
    let kept = "SELECT string_agg(concat_ws(' ', r.rule, o.slug, r.changes::text ~ 'ann@', r.changes::text ~ '171 1', r.cannot_undo), '; ' ORDER BY r.rule, o.slug)
        FROM usher.repairs AS r JOIN usher.organizations AS o ON o.id = r.organization_id";
    assert_eq!(text(here, kept), "letters north t f; letters south t f; tidy north t t");
    run(here, "SELECT usher.erase_subject('north', 'guest', '1', 'asked to')");
    assert_eq!(number(here, named), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE wrong = 'bob@keep.example is a guest'"), 1);
    // What a repair has changed neither names nor brings back whom nobody knows any more. Elsewhere it is another's.
    assert_eq!(
        text(here, kept),
        "letters north f f a person was erased from its changes; letters south t f; tidy north f f a person was erased from its changes"
    );
    for rule in ["letters", "tidy"] {
        let undone = format!(
            "SELECT usher.undo_repair(r.id) FROM usher.repairs AS r JOIN usher.organizations AS o ON o.id = r.organization_id WHERE r.rule = '{rule}' AND o.slug = 'north'"
        );
        let refused = refused(here, &undone);
        assert_eq!(
            (refused.code().code(), refused.message()),
            ("55000", "the repair cannot be undone: a person was erased from its changes")
        );
    }
    assert_eq!(
        text(here, "SELECT r.changes -> 1 -> 'after' ->> 'phone' FROM usher.repairs AS r WHERE r.rule = 'tidy'"),
        "+49 171 2"
    );
}

#[test]
fn what_ended_long_ago_goes_as_other_history_does() {
    let (_database, mut client) = yard("usher_test_rules_prune");
    let here = &mut client;
    fill(here, 2);
    rule(
        here,
        "items",
        "amount < 0",
        ", \"every\": \"never\", \"repair\": {\"statement\": \"UPDATE public.items AS i SET amount = 1 FROM bad WHERE i.organization_id = bad.organization_id AND i.id = bad.id\"}",
    );
    run(
        here,
        "UPDATE public.items SET amount = -1; SELECT * FROM usher.check_rule('items'); SELECT * FROM usher.repair_rule('items')",
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.repairs"), 2);
    run(
        here,
        "UPDATE usher.repairs SET repaired_at = now() - interval '400 days' WHERE organization_id = (SELECT id FROM usher.organizations WHERE slug = 'north');
         UPDATE usher.violations SET ended_at = now() - interval '400 days' WHERE organization_id = (SELECT id FROM usher.organizations WHERE slug = 'north')",
    );
    // A worker sees to it once a minute.
    wait::until_true_for(here, wait::LONG * 4, "SELECT count(*) = 2 FROM usher.violations WHERE status = 'repaired'");
    wait::until_true_for(here, wait::LONG * 4, "SELECT count(*) = 1 FROM usher.repairs");
    assert_eq!(
        text(here, "SELECT o.slug FROM usher.repairs AS r JOIN usher.organizations AS o ON o.id = r.organization_id"),
        "south"
    );
}
