//! The commit gate with several connections: what two break only together, many who write at once, what is prepared, and a batch of a
//! worker with one bad row.

use std::time::Duration;
use usher_clients::{Client, Database, SqlState, number, refused, role, run, settled, text, wait};

fn bank(name: &str, run_as: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, run_as, "NOLOGIN");
    run(
        &mut client,
        &format!(
            "CREATE TABLE public.accounts (id integer PRIMARY KEY, owner integer NOT NULL, balance integer NOT NULL);
             CREATE INDEX ON public.accounts (owner);
             GRANT SELECT, INSERT, UPDATE ON public.accounts TO {run_as};
             SELECT usher.create_rule('owner_balance', '{{
                 \"query\": \"SELECT owner, sum(balance) AS sum FROM public.accounts GROUP BY owner HAVING sum(balance) < 0\",
                 \"key\": [\"owner\"], \"wrong\": \"''the sum is '' || sum\", \"touches\": {{\"public.accounts\": {{\"owner\": \"row.owner\"}}}},
                 \"run\": [\"transaction\"], \"run_as\": \"{run_as}\"}}')"
        ),
    );
    (database, client)
}

const BROKEN: &str = "SELECT count(*) FROM (SELECT FROM public.accounts GROUP BY owner HAVING sum(balance) < 0) AS x";

/// SQLSTATE of a statement that fails; empty when it does not.
fn outcome(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => String::new(),
        Err(error) => error.code().map(|code| code.code().to_owned()).unwrap_or_else(|| panic!("{error}")),
    }
}

#[test]
fn two_that_break_it_only_together_do_not_both_commit() {
    let (database, mut first) = bank("usher_test_gate_skew", "clients_gate_skew");
    let mut second = database.connect();
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for swapped in [false, true] {
            run(&mut first, "TRUNCATE public.accounts; INSERT INTO public.accounts VALUES (1, 7, 5), (2, 7, 5)");
            for (client, id) in [(&mut first, 1), (&mut second, 2)] {
                run(
                    client,
                    &format!("BEGIN ISOLATION LEVEL {level}; UPDATE public.accounts SET balance = balance - 8 WHERE id = {id}"),
                );
            }
            let (one, other) = if swapped { (&mut second, &mut first) } else { (&mut first, &mut second) };
            assert_eq!(outcome(one, "COMMIT"), "", "{level}");
            let refused = outcome(other, "COMMIT");
            // SERIALIZABLE may be ended by PostgreSQL itself.
            let expected: &[&str] = if level == "READ COMMITTED" { &["23514"] } else { &["40001"] };
            assert!(expected.contains(&refused.as_str()), "{level}: {refused}");
            assert_eq!(number(one, BROKEN), 0);
        }
    }
    // At the same moment: the second waits for the first, which is prepared and still open.
    run(&mut first, "TRUNCATE public.accounts; INSERT INTO public.accounts VALUES (1, 7, 5), (2, 7, 5)");
    run(&mut second, "BEGIN; UPDATE public.accounts SET balance = -3 WHERE id = 2");
    if text(&mut first, "SHOW max_prepared_transactions") == "0" {
        println!("this server takes no prepared transactions");
        run(&mut second, "ROLLBACK");
        return;
    }
    run(&mut first, "BEGIN; UPDATE public.accounts SET balance = -3 WHERE id = 1; PREPARE TRANSACTION 'usher_gate'");
    run(&mut second, "SET lock_timeout = '200ms'");
    assert_eq!(outcome(&mut second, "COMMIT"), "55P03");
    run(&mut first, "COMMIT PREPARED 'usher_gate'");
    assert_eq!(
        outcome(&mut second, "BEGIN; UPDATE public.accounts SET balance = -3 WHERE id = 2; PREPARE TRANSACTION 'usher_gate_2'"),
        "23514"
    );
    assert_eq!(number(&mut first, BROKEN), 0);
}

/// Definitions are for those who run the installation; whoever writes learns that there is a repair, and whom to ask for it.
#[test]
fn who_is_refused_does_not_read_the_repair() {
    let (database, mut client) = bank("usher_test_gate_hint", "clients_gate_hint");
    role(&mut client, "clients_gate_writer", "LOGIN");
    run(&mut client, "GRANT SELECT, INSERT ON public.accounts TO clients_gate_writer");
    let mut writer = database.connect_as("clients_gate_writer");
    let write = "INSERT INTO public.accounts VALUES (1, 7, -5)";
    assert_eq!(refused(&mut writer, write).hint(), Some("Correct that in the same transaction, before COMMIT."));
    run(
        &mut client,
        "GRANT UPDATE ON public.accounts TO clients_gate_hint;
         SELECT usher.alter_rule('owner_balance', definition || '{\"repair\": {\"statement\": \"UPDATE public.accounts AS a SET balance = 4711 FROM bad WHERE a.owner = bad.owner\"}}') FROM usher.rules",
    );
    let refusal = refused(&mut writer, write);
    assert_eq!(refusal.code(), &SqlState::CHECK_VIOLATION);
    assert_eq!(
        refusal.hint(),
        Some(
            "Correct that in the same transaction, before COMMIT. The rule has a repair, which those who run pg_usher may ask for."
        )
    );
    assert!(!format!("{refusal:?}").contains("4711"), "{refusal:?}");
}

/// Keys that are equal, and written in two ways, share their lock.
#[test]
fn equal_is_what_the_collation_says() {
    let database = Database::create("usher_test_gate_equal");
    let (mut first, mut second, mut third) = (database.connect(), database.connect(), database.connect());
    run(
        &mut first,
        "CREATE COLLATION public.whichever (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE public.purses (id integer PRIMARY KEY, owner text COLLATE public.whichever NOT NULL, balance integer NOT NULL);
         CREATE INDEX ON public.purses (owner);
         SELECT usher.create_rule('purses', '{
             \"query\": \"SELECT owner, sum(balance) AS sum FROM public.purses GROUP BY owner HAVING sum(balance) < 0\",
             \"key\": [\"owner\"], \"wrong\": \"''the sum is '' || sum\", \"touches\": {\"public.purses\": {\"owner\": \"row.owner\"}}, \"run\": [\"transaction\"]}');
         INSERT INTO public.purses VALUES (1, 'ann', 5), (2, 'ANN', 5), (3, 'ben', 5)",
    );
    assert_eq!(outcome(&mut first, "UPDATE public.purses SET balance = -6 WHERE id = 2"), "23514");
    run(&mut first, "BEGIN; UPDATE public.purses SET balance = -3 WHERE id = 1");
    run(&mut second, "BEGIN; UPDATE public.purses SET balance = -3 WHERE id = 2");
    run(&mut first, "PREPARE TRANSACTION 'usher_gate_equal'");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| outcome(&mut second, "COMMIT"));
        wait::until_true(
            &mut third,
            "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
                             WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted)",
        );
        run(&mut first, "COMMIT PREPARED 'usher_gate_equal'");
        assert_eq!(waiting.join().expect("a writer ends"), "23514");
    });
    assert_eq!(number(&mut first, "SELECT sum(balance) FROM public.purses WHERE owner = 'Ann'"), 2);
}

/// A session that knows the rules of a table learns of whatever happens to them, and goes on knowing them when other tables change.
#[test]
fn each_session_learns_of_other_rules() {
    let (database, mut client) = bank("usher_test_gate_learns", "clients_gate_learns");
    let mut writer = database.connect();
    let (here, there) = (&mut client, &mut writer);
    run(
        here,
        "CREATE TABLE public.parts (kind integer NOT NULL, amount integer NOT NULL) PARTITION BY LIST (kind);
         CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES IN (1);
         GRANT SELECT ON public.parts TO clients_gate_learns",
    );
    let rule = |name: &str, wrong: &str| {
        format!(
            "'{name}', '{{\"query\": \"SELECT kind FROM public.parts WHERE {wrong} GROUP BY kind\", \"key\": [\"kind\"], \"wrong\": \"''{name}''\",
                \"touches\": {{\"public.parts\": {{\"kind\": \"row.kind\"}}}}, \"run\": [\"transaction\"], \"run_as\": \"clients_gate_learns\"}}'"
        )
    };
    let unrelated = "CREATE TEMP TABLE unrelated (id integer); DROP TABLE unrelated";
    let write = |amount: i32| format!("INSERT INTO public.parts_1 VALUES (1, {amount})");
    run(here, &format!("SELECT usher.create_rule({})", rule("below", "amount < 0")));
    assert_eq!(outcome(there, &write(-1)), "23514");
    assert_eq!(outcome(there, &write(100)), "");
    run(here, &format!("SELECT usher.create_rule({})", rule("above", "amount > 100")));
    assert_eq!(outcome(there, &write(101)), "23514");
    run(here, unrelated);
    assert_eq!(outcome(there, &write(101)), "23514");
    run(here, "SELECT usher.disable_rule('below')");
    assert_eq!(outcome(there, &write(-1)), "");
    run(here, unrelated);
    run(here, "DELETE FROM public.parts WHERE amount < 0; SELECT usher.enable_rule('below')");
    assert_eq!(outcome(there, &write(-1)), "23514");
    run(here, &format!("SELECT usher.alter_rule({})", rule("below", "amount < -5")));
    assert_eq!(outcome(there, &write(-1)), "");
    assert_eq!(outcome(there, &write(-6)), "23514");
    run(here, "SELECT usher.disable_rule('below'), usher.disable_rule('above')");
    assert_eq!(outcome(there, &write(200)), "");
    run(here, "DELETE FROM public.parts WHERE amount > 100; SELECT usher.enable_rule('above')");
    run(here, unrelated);
    assert_eq!(outcome(there, &write(200)), "23514");
}

/// A rule moves to another table while a session knows it, and the column of its key becomes wider than that session's plans expect.
#[test]
fn each_session_learns_that_a_rule_has_moved_and_its_key_grown() {
    let (database, mut client) = bank("usher_test_gate_moves", "clients_gate_moves");
    let mut writer = database.connect();
    let (here, there) = (&mut client, &mut writer);
    run(
        here,
        "CREATE TABLE public.one (id integer NOT NULL, amount integer NOT NULL); CREATE TABLE public.other (id integer NOT NULL, amount integer NOT NULL);
         GRANT SELECT ON public.one, public.other TO clients_gate_moves",
    );
    let rule = |name: &str, table: &str| {
        format!(
            "'{name}', '{{\"query\": \"SELECT id FROM public.{table} WHERE amount < 0\", \"key\": [\"id\"], \"wrong\": \"''{name}''\",
                \"touches\": {{\"public.{table}\": {{\"id\": \"row.id\"}}}}, \"run\": [\"transaction\"], \"run_as\": \"clients_gate_moves\"}}'"
        )
    };
    run(here, &format!("SELECT usher.create_rule({}), usher.create_rule({})", rule("stays", "one"), rule("moves", "one")));
    assert_eq!(outcome(there, "INSERT INTO public.one VALUES (1, 1)"), "");
    assert_eq!(outcome(there, "INSERT INTO public.other VALUES (1, -1)"), "");
    run(here, &format!("DELETE FROM public.other; SELECT usher.alter_rule({})", rule("moves", "other")));
    assert_eq!(outcome(there, "INSERT INTO public.other VALUES (1, -1)"), "23514");
    let refusal = refused(there, "INSERT INTO public.one VALUES (2, -1)");
    assert!(refusal.message().contains("\"stays\""), "{refusal:?}");
    // Of five thousand million the lower half is another number.
    run(here, "ALTER TABLE public.one ALTER id TYPE bigint");
    assert_eq!(outcome(there, "INSERT INTO public.one VALUES (5000000000, 1)"), "");
    assert_eq!(outcome(there, "UPDATE public.one SET amount = -1 WHERE id = 5000000000"), "23514");
    run(here, "ALTER TABLE public.one ALTER id TYPE text");
    assert_eq!(outcome(there, "UPDATE public.one SET amount = -1 WHERE id = '5000000000'"), "23514");
}

#[test]
fn eight_who_write_at_random_never_break_it() {
    let (database, mut client) = bank("usher_test_gate_storm", "clients_gate_storm");
    run(&mut client, "INSERT INTO public.accounts SELECT n, n % 5, 20 FROM generate_series(1, 40) AS n");
    let (mut done, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8_u32)
            .map(|writer| {
                let database = &database;
                scope.spawn(move || {
                    let mut mine = database.connect();
                    let (mut done, mut refused, mut random) = (0, 0, writer + 1);
                    let mut next = |most: u32| {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (random >> 8) % most
                    };
                    for _ in 0..60 {
                        // In one order, so that they do not lock each other's rows out.
                        let (mut from, mut to) = (next(40) + 1, next(40) + 1);
                        if from > to {
                            (from, to) = (to, from);
                        }
                        let amount = i64::from(next(120)) - 60;
                        let sql = format!(
                            "BEGIN; UPDATE public.accounts SET balance = balance - {amount} WHERE id = {from};
                             UPDATE public.accounts SET balance = balance + {amount} WHERE id = {to}; COMMIT"
                        );
                        match outcome(&mut mine, &sql).as_str() {
                            "" => done += 1,
                            "23514" => {
                                refused += 1;
                                run(&mut mine, "ROLLBACK");
                            }
                            other => panic!("{other}"),
                        }
                    }
                    (done, refused)
                })
            })
            .collect();
        for writer in writers {
            let (some, others) = writer.join().expect("a writer ends");
            done += some;
            refused += others;
        }
    });
    assert_eq!(number(&mut client, BROKEN), 0);
    assert_eq!(number(&mut client, "SELECT sum(balance) FROM public.accounts"), 800);
    assert!(done > 50 && refused > 20, "{done} {refused}");
}

#[test]
fn of_a_batch_only_the_bad_row_fails() {
    let (_database, mut client) = bank("usher_test_gate_batch", "clients_gate_batch");
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.orders (id integer PRIMARY KEY, owner integer, amount integer);
         GRANT SELECT ON public.orders TO clients_gate_batch;
         SELECT usher.create_flow('book', '{\"when\": {\"change\": \"public.orders\", \"on\": [\"insert\"]}, \"then\": {\"insert\": \"public.accounts\"},
             \"set\": {\"id\": \"new.id\", \"owner\": \"new.owner\", \"balance\": \"new.amount\"}, \"retry\": {\"delays\": []}, \"run_as\": \"clients_gate_batch\"}');
         INSERT INTO public.orders SELECT n, n, CASE WHEN n = 33 THEN -1 ELSE 1 END FROM generate_series(1, 100) AS n",
    );
    settled(here, Duration::from_secs(60));
    assert_eq!(number(here, "SELECT count(*) FROM public.accounts"), 99);
    assert_eq!(
        text(here, "SELECT string_agg(error_message, '; ') FROM usher.dead_letters"),
        "rule \"owner_balance\" does not hold for {\"owner\": 33}: the sum is -1 (23514)"
    );
    // It fits once its owner has something.
    run(here, "INSERT INTO public.accounts VALUES (1000, 33, 5)");
    run(here, "SELECT usher.retry_sync_job(id) FROM usher.dead_letters");
    wait::until_true(here, "SELECT count(*) = 101 FROM public.accounts");
}

/// What a rule calls runs with the rights of its role, and would leave what it defers for the COMMIT of whoever writes: so it writes nothing.
#[test]
fn what_a_rule_asks_writes_nothing() {
    let (_database, mut client) = bank("usher_test_gate_reads", "clients_gate_reads");
    run(
        &mut client,
        "CREATE TABLE public.peeked (owner integer);
         CREATE FUNCTION public.peek(owner integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.peeked VALUES (owner); RETURN owner; END';
         CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''as %'', current_user; END';
         CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON public.peeked DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.evil();
         GRANT INSERT ON public.peeked TO clients_gate_reads",
    );
    for (rule, query, owner) in [
        ("peeks_in_touches", "SELECT owner FROM public.accounts WHERE balance < -100", "public.peek(row.owner)"),
        ("peeks_in_query", "SELECT owner FROM public.accounts WHERE public.peek(owner) < -100", "row.owner"),
    ] {
        run(
            &mut client,
            &format!(
                "SELECT usher.create_rule('{rule}', '{{\"query\": \"{query}\", \"key\": [\"owner\"], \"wrong\": \"''x''\", \"every\": \"never\",
                     \"touches\": {{\"public.accounts\": {{\"owner\": \"{owner}\"}}}}, \"run\": [\"transaction\"], \"run_as\": \"clients_gate_reads\"}}')"
            ),
        );
        run(&mut client, "INSERT INTO public.accounts SELECT count(*) + 1, 7, 1 FROM public.accounts");
        let check = outcome(&mut client, &format!("SELECT usher.check_rule('{rule}')"));
        assert_eq!(check, if rule == "peeks_in_query" { "25006" } else { "" });
        run(&mut client, &format!("SELECT usher.drop_rule('{rule}')"));
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.accounts"), 2, "a rule that cannot be asked stops nobody");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.peeked"), 0);
}
