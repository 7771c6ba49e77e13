//! Looks at touched keys while others write: what is found is what is there, whoever commits when; a killed worker, a TRUNCATE, transactions that are
//! older than the rule, and rules that time alone makes untrue.

use usher_clients::{Client, Database, number, run, server, text, wait};

fn shop(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(
        &mut client,
        "SET client_min_messages = warning;
         CREATE TABLE public.items (organization_id uuid NOT NULL, id integer NOT NULL, amount integer NOT NULL, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.bills (organization_id uuid NOT NULL, item integer NOT NULL, amount integer NOT NULL, PRIMARY KEY (organization_id, item));
         SELECT usher.create_organization('north'), usher.create_organization('south');
         INSERT INTO public.items SELECT o.id, n, 5 FROM usher.organizations o CROSS JOIN generate_series(1, 100) AS n WHERE o.slug IN ('north', 'south');
         INSERT INTO public.bills SELECT organization_id, id, amount FROM public.items; ANALYZE",
    );
    (database, client)
}

/// Items that are not billed as they should be, looked at every second and, as a whole, once a day.
fn rule(client: &mut Client, name: &str, more: &str) {
    run(
        client,
        &format!(
            "SELECT usher.create_rule('{name}', '{{\"query\": \"SELECT i.organization_id, i.id AS item, i.amount, b.amount AS billed FROM public.items i LEFT JOIN public.bills b ON b.organization_id = i.organization_id AND b.item = i.id WHERE b.amount IS DISTINCT FROM i.amount\",
               \"key\": [\"item\"], \"wrong\": \"''item '' || item\", \"touches\": {{\"public.items\": {{\"item\": \"row.id\"}}, \"public.bills\": {{\"item\": \"row.item\"}}}}, \"every\": \"1s\", \"full\": \"1 day\"{more}}}')"
        ),
    );
}

/// From now on it is enough to look at what is touched.
fn keyed(client: &mut Client, name: &str) {
    wait::until_true(client, &format!("SELECT keyed_now FROM usher.rules WHERE name = '{name}'"));
}

fn last_full(client: &mut Client, name: &str) -> String {
    text(client, &format!("SELECT last_checked_at::text FROM usher.rules WHERE name = '{name}'"))
}

/// What is bad and no open violation, and the other way round: another query than the rule's.
fn differing(name: &str) -> String {
    format!(
        "SELECT count(*) FROM (
            SELECT organization_id, id AS item FROM public.items EXCEPT SELECT b.organization_id, b.item FROM public.bills b JOIN public.items i ON i.organization_id = b.organization_id AND i.id = b.item AND i.amount = b.amount) AS bad
           FULL JOIN (SELECT organization_id, (key ->> 'item')::integer AS item FROM usher.violations WHERE rule = '{name}' AND status = 'open') AS v USING (organization_id, item)
          WHERE bad.item IS NULL OR v.item IS NULL"
    )
}

/// All that was touched has been looked at.
fn quiet(client: &mut Client) {
    wait::until_true(client, "SELECT NOT EXISTS (SELECT FROM usher.rule_checks)");
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// One of the things that writers do; those that commit together lock rows in one order.
fn write(random: &mut Random) -> String {
    let organization = ["north", "south"][random.below(2) as usize];
    let of = format!("(SELECT id FROM usher.organizations WHERE slug = '{organization}')");
    let (item, amount) = (random.below(100) + 1, 4 + random.below(3));
    let (low, high) = (item.min(90), item.min(90) + random.below(10));
    match random.below(9) {
        0 => format!("UPDATE public.items SET amount = {amount} WHERE organization_id = {of} AND id = {item}"),
        1 => format!("UPDATE public.bills SET amount = {amount} WHERE organization_id = {of} AND item = {item}"),
        2 => format!("DELETE FROM public.bills WHERE organization_id = {of} AND item = {item}"),
        3 => format!("DELETE FROM public.items WHERE organization_id = {of} AND id = {item}"),
        4 => format!(
            "INSERT INTO public.items VALUES ({of}, {item}, {amount}) ON CONFLICT (organization_id, id) DO UPDATE SET amount = excluded.amount"
        ),
        5 => format!(
            "BEGIN; SAVEPOINT a; DELETE FROM public.bills WHERE organization_id = {of} AND item = {item}; ROLLBACK TO a;
             UPDATE public.bills SET amount = {amount} WHERE organization_id = {of} AND item = {item}; COMMIT"
        ),
        6 => format!(
            "BEGIN; UPDATE public.items SET amount = {amount} WHERE organization_id = {of} AND id = {item}; SELECT pg_sleep(0.02); ROLLBACK"
        ),
        // Open while others look.
        7 => format!(
            "BEGIN; UPDATE public.items SET amount = {amount} WHERE organization_id = {of} AND id = {item}; SELECT pg_sleep(0.05); COMMIT"
        ),
        _ => format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO public.bills SELECT organization_id, id, amount FROM public.items WHERE organization_id = {of} AND id BETWEEN {low} AND {high}
               ON CONFLICT (organization_id, item) DO NOTHING; COMMIT"
        ),
    }
}

#[test]
fn what_is_found_of_what_was_touched_is_what_is_there() {
    let (database, mut client) = shop("usher_test_keyed_random");
    let here = &mut client;
    rule(here, "billed", "");
    // The same after each commit, and one with a time of grace, beside it.
    rule(here, "at_once", ", \"run\": [\"after_sync\"]");
    rule(here, "patient", ", \"grace\": \"300 ms\"");
    for name in ["billed", "at_once", "patient"] {
        keyed(here, name);
    }
    let before = ["billed", "at_once", "patient"].map(|name| last_full(here, name));
    let mut bad = 0;
    for seed in 0..20_u64 {
        std::thread::scope(|scope| {
            for writer in 0..3_u64 {
                let database = &database;
                scope.spawn(move || {
                    let mut mine = database.connect();
                    let mut random = Random(seed * 1_000 + writer);
                    for _ in 0..25 {
                        // Two that want the same rows may end one of them: it has written nothing then.
                        if let Err(error) = mine.batch_execute(&write(&mut random)) {
                            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                            assert!(["40001", "40P01"].contains(&code.as_str()), "seed {seed}: {error:?}");
                            run(&mut mine, "ROLLBACK");
                        }
                    }
                });
            }
        });
        for name in ["billed", "at_once", "patient"] {
            wait::until_true(here, &format!("SELECT ({}) = 0 /* seed {seed} */", differing(name)));
        }
        quiet(here);
        assert_eq!(number(here, &differing("billed")), 0, "seed {seed}");
        bad += number(here, "SELECT count(*) FROM usher.violations WHERE rule = 'billed' AND status = 'open'");
    }
    assert!(bad > 100, "the test itself: {bad}");
    // All by looks at keys.
    assert_eq!(["billed", "at_once", "patient"].map(|name| last_full(here, name)), before);
    assert_eq!(number(here, "SELECT count(*) FROM usher.rules WHERE NOT keyed_now OR last_error IS NOT NULL"), 0);
}

#[test]
fn what_was_touched_outlives_a_killed_worker() {
    let (database, mut client) = shop("usher_test_keyed_killed");
    rule(&mut client, "billed", "");
    keyed(&mut client, "billed");
    let before = last_full(&mut client, "billed");
    // Nobody looks before the worker is killed, or it is killed while it does.
    run(&mut client, "UPDATE usher.rules SET keys_at = now() + interval '1 h'");
    run(&mut client, "UPDATE public.items SET amount = 6 WHERE id <= 10; UPDATE public.bills SET amount = 6 WHERE item <= 4");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.rule_checks"), 2, "one for each organization");
    run(&mut client, "UPDATE usher.rules SET keys_at = now()");
    let worker = server::worker_of(&mut client, "normal").expect("a worker has the normal lane");
    let mut witness = database.connect();
    let mut client = server::kill_and_recover(&database, &mut witness, worker);
    let here = &mut client;
    wait::until_true(here, &format!("SELECT ({}) = 0", differing("billed")));
    quiet(here);
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE status = 'open'"), 12);
    assert_eq!(last_full(here, "billed"), before, "by its keys");
}

#[test]
fn a_truncated_table_is_looked_at_as_a_whole() {
    let (_database, mut client) = shop("usher_test_keyed_truncate");
    let here = &mut client;
    rule(here, "billed", "");
    keyed(here, "billed");
    let before = last_full(here, "billed");
    run(here, "TRUNCATE public.bills");
    wait::until_true(here, "SELECT count(*) = 200 FROM usher.violations WHERE status = 'open'");
    assert_ne!(last_full(here, "billed"), before);
    keyed(here, "billed");
    // And as somebody who is not asked fills it again.
    run(
        here,
        "SET usher.capture = off; INSERT INTO public.bills SELECT organization_id, id, amount FROM public.items; RESET usher.capture",
    );
    wait::until_true(here, "SELECT count(*) = 200 FROM usher.violations WHERE status = 'gone'");
    keyed(here, "billed");
}

#[test]
fn who_began_before_the_rule_is_waited_for() {
    let (database, mut client) = shop("usher_test_keyed_before");
    let here = &mut client;
    // Its triggers are those of the next, too, which therefore waits for nobody.
    rule(here, "first", "");
    keyed(here, "first");
    let (mut writer, mut reader) = (database.connect(), database.connect());
    run(&mut writer, "BEGIN; UPDATE public.items SET amount = 6 WHERE id = 7");
    // It reads what was there before, also what rules there are.
    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.items");
    rule(here, "second", "");
    wait::until_true(here, "SELECT last_checked_at IS NOT NULL FROM usher.rules WHERE name = 'second'");
    run(&mut writer, "COMMIT");
    wait::until_true(here, &format!("SELECT ({}) = 0", differing("second")));
    assert_eq!(number(here, "SELECT count(*) FROM usher.rules WHERE name = 'second' AND keyed_now"), 0, "one is left");
    assert!(text(here, "SELECT usher.explain_rule('second')").contains("for now everything every 1 s: transactions"));
    run(&mut reader, "UPDATE public.items SET amount = 6 WHERE id = 8; COMMIT");
    wait::until_true(here, &format!("SELECT ({}) = 0", differing("second")));
    // What rests while nothing changes is looked at as a whole when something does.
    run(here, "UPDATE public.items SET amount = 5 WHERE id = 7");
    keyed(here, "second");
    let before = last_full(here, "second");
    // What is prepared is touched when it commits.
    run(&mut writer, "BEGIN; UPDATE public.items SET amount = 6 WHERE id = 9; PREPARE TRANSACTION 'usher_keyed'");
    run(here, "UPDATE public.items SET amount = 6 WHERE id = 10");
    wait::until_true(
        here,
        "SELECT count(*) = 2 FROM usher.violations WHERE rule = 'second' AND status = 'open' AND key ->> 'item' = '10'",
    );
    run(&mut writer, "COMMIT PREPARED 'usher_keyed'");
    wait::until_true(here, &format!("SELECT ({}) = 0", differing("second")));
    assert_eq!(last_full(here, "second"), before);
}

#[test]
fn what_time_alone_makes_untrue_is_found() {
    let (_database, mut client) = shop("usher_test_keyed_time");
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.tasks (id integer PRIMARY KEY, due_at timestamptz NOT NULL); INSERT INTO public.tasks VALUES (1, now() - interval '1 h'), (2, now() + interval '4 s');
         SELECT usher.create_rule('late', '{\"query\": \"SELECT id, due_at FROM public.tasks WHERE due_at < now()\", \"key\": [\"id\"], \"wrong\": \"''late''\", \"touches\": {\"public.tasks\": {\"id\": \"row.id\"}}, \"every\": \"1s\"}')",
    );
    assert!(text(here, "SELECT usher.explain_rule('late')").contains("not only what was touched: its query calls now()"));
    // Something is bad, so that it does not rest; the other becomes so by itself.
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.violations WHERE rule = 'late' AND status = 'open'");
    assert_eq!(number(here, "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^usher_touched'"), 0, "nobody pays for it");
}

/// A key of which a part is NULL is a key, too: nobody looks at all of them for a day.
#[test]
fn a_key_without_a_value_is_found() {
    let (_database, mut client) = shop("usher_test_keyed_null");
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.orders (id integer PRIMARY KEY, customer integer, name text); INSERT INTO public.orders VALUES (1, 7, 'a'), (2, NULL, 'a');
         SELECT usher.create_rule(r.name, format('{\"query\": \"SELECT customer, count(*) AS n FROM public.orders GROUP BY customer HAVING count(*) > 1\", \"key\": [\"customer\"], \"wrong\": \"n || '' orders''\",
                \"touches\": {\"public.orders\": {\"customer\": \"%s\"}}, \"every\": \"1s\", \"full\": \"1 day\"}', r.text)::jsonb)
           FROM (VALUES ('read', 'row.customer'), ('said', 'row.customer + 0')) AS r (name, text)",
    );
    for name in ["read", "said"] {
        keyed(here, name);
    }
    let before = ["read", "said"].map(|name| last_full(here, name));
    let standing = |status: &str| {
        format!("SELECT count(*) = 2 FROM usher.violations WHERE key = '{{\"customer\": null}}' AND status = '{status}'")
    };
    run(here, "INSERT INTO public.orders VALUES (3, NULL, 'b')");
    wait::until_true(here, &standing("open"));
    run(here, "UPDATE public.orders SET customer = 8 WHERE id = 3");
    wait::until_true(here, &standing("gone"));
    assert_eq!(["read", "said"].map(|name| last_full(here, name)), before);
}

/// What depends on other rows is looked at as a whole, however deep that is said.
#[test]
fn what_depends_on_other_rows_is_looked_at_as_a_whole() {
    let (_database, mut client) = shop("usher_test_keyed_others");
    let here = &mut client;
    for (n, query) in [
        "SELECT organization_id, id AS item FROM (SELECT organization_id, id, row_number() OVER (PARTITION BY amount ORDER BY id) AS n FROM public.items) AS x WHERE n > 1",
        "SELECT organization_id, id AS item FROM (SELECT DISTINCT ON (amount) organization_id, id, amount FROM public.items ORDER BY amount, id) AS x WHERE amount < 0",
        "SELECT organization_id, id AS item FROM public.items WHERE amount > (SELECT amount FROM public.items ORDER BY id LIMIT 1)",
    ]
    .into_iter()
    .enumerate()
    {
        run(
            here,
            &format!(
                "SELECT usher.create_rule('rule_{n}', '{{\"query\": \"{query}\", \"key\": [\"item\"], \"wrong\": \"''bad''\", \"touches\": {{\"public.items\": {{\"item\": \"row.id\"}}}}, \"every\": \"1s\", \"full\": \"1 day\"}}')"
            ),
        );
        let said = text(here, &format!("SELECT usher.explain_rule('rule_{n}')"));
        assert!(said.contains("not only what was touched: its query has a LIMIT, OFFSET, DISTINCT ON or window"), "{said}");
    }
}

/// Nobody says of a partition that is dropped whose it was, nor of a table that begins to inherit.
#[test]
fn what_goes_with_a_partition_is_found() {
    let (_database, mut client) = shop("usher_test_keyed_parts");
    let here = &mut client;
    run(
        here,
        "DROP TABLE public.bills; CREATE TABLE public.bills (organization_id uuid NOT NULL, item integer NOT NULL, amount integer NOT NULL, PRIMARY KEY (organization_id, item)) PARTITION BY RANGE (item);
         CREATE TABLE public.bills_low PARTITION OF public.bills FOR VALUES FROM (1) TO (51);
         CREATE TABLE public.bills_high PARTITION OF public.bills FOR VALUES FROM (51) TO (1000) PARTITION BY RANGE (item);
         CREATE TABLE public.bills_highest PARTITION OF public.bills_high FOR VALUES FROM (51) TO (1000);
         INSERT INTO public.bills SELECT organization_id, id, amount FROM public.items",
    );
    rule(here, "billed", "");
    keyed(here, "billed");
    run(here, "DROP TABLE public.bills_low");
    wait::until_true(here, "SELECT count(*) = 100 FROM usher.violations WHERE status = 'open'");
    keyed(here, "billed");
    run(
        here,
        "CREATE TABLE public.more (LIKE public.bills_high); INSERT INTO public.more SELECT * FROM public.bills_highest;
         DROP TABLE public.bills_highest; ALTER TABLE public.bills_high ATTACH PARTITION public.more FOR VALUES FROM (51) TO (1000);
         UPDATE public.more SET amount = 4",
    );
    wait::until_true(here, "SELECT count(*) = 200 FROM usher.violations WHERE status = 'open'");
    keyed(here, "billed");
    run(here, "CREATE TABLE public.more_items () INHERITS (public.items)");
    wait::until_true(here, "SELECT NOT keyed_now FROM usher.rules");
    assert!(text(here, "SELECT usher.explain_rule('billed')").contains("has tables that inherit from it"));
}
