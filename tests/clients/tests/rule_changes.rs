//! Rules that are changed, switched, dropped, broken and mended while others look, and who reads why one could not be asked.

use usher_clients::{Client, Database, SqlState, number, refused, run, text, wait};

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
