//! Repairs of rules from outside: beside people who mend the same rows, two at once, killed in the middle, many rows, by themselves with
//! pauses, and through flows that a worker runs.

use std::time::{Duration, Instant};
use usher_clients::{Client, Database, number, page, refused, run, server, text, wait};

const RULE: &str = r#""query": "SELECT o.organization_id, o.id AS order_id, o.total FROM public.orders AS o WHERE NOT EXISTS (SELECT FROM public.invoices AS i WHERE i.organization_id = o.organization_id AND i.order_id = o.id)",
    "key": ["order_id"], "wrong": "'order ' || order_id || ' has no invoice'", "every": "never", "run_as": "usher_test_keeper""#;
const INSERT: &str =
    "INSERT INTO public.invoices (organization_id, order_id, amount) SELECT organization_id, order_id, total FROM bad";

/// Orders without invoices, of two organizations, and the rule that finds them.
fn shop(name: &str, orders: i32, repair: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "DO $$ BEGIN CREATE ROLE usher_test_keeper NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             CREATE TABLE public.orders (organization_id uuid NOT NULL, id integer NOT NULL, total numeric NOT NULL, PRIMARY KEY (organization_id, id));
             CREATE TABLE public.invoices (organization_id uuid NOT NULL, order_id integer NOT NULL, amount numeric NOT NULL, PRIMARY KEY (organization_id, order_id));
             GRANT ALL ON public.orders, public.invoices TO usher_test_keeper;
             SELECT usher.create_organization('other');
             INSERT INTO public.orders SELECT o.id, n, n FROM usher.organizations AS o, generate_series(1, {orders}) AS n;
             SELECT usher.create_rule('billed', $${{{RULE}, \"repair\": {repair}}}$$);
             SELECT usher.check_rule('billed')"
        ),
    );
    (database, client)
}

fn statement(more: &str) -> String {
    format!("{{\"statement\": \"{INSERT}\"{more}}}")
}

const OUTCOMES: &str = "SELECT string_agg(concat_ws(' ', r.outcome, r.n), ', ' ORDER BY r.outcome)
    FROM (SELECT outcome, count(*) AS n FROM usher.repair_rule('billed') GROUP BY outcome) AS r";
const OPEN: &str = "SELECT count(*) FROM usher.violations WHERE status = 'open'";

/// Waits until the session waits for a lock.
fn waits(client: &mut Client, pid: i64) {
    wait::until_true(client, &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"));
}

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_repair_page");
    let mut client = database.connect();
    let here = &mut client;
    let blocks: Vec<_> =
        page::blocks("consistency.md").into_iter().skip_while(|block| !block.before.contains("## Repair")).take(4).collect();
    run(here, &blocks[0].sql);
    assert_eq!(number(here, OPEN), 3);
    run(here, &blocks[1].sql);
    assert_eq!(number(here, "SELECT count(*) FROM public.invoices"), 3);
    run(here, &blocks[2].sql);
    assert_eq!(text(here, "SELECT string_agg(amount::text, ',' ORDER BY order_id) FROM public.invoices"), "10,20,30,40");
    run(here, &blocks[3].sql);
    assert_eq!(text(here, "SELECT string_agg(amount::text, ',' ORDER BY order_id) FROM public.invoices"), "10,20,30");
    assert_eq!(text(here, "SELECT string_agg(key ->> 'order_id', ',') FROM usher.violations WHERE status = 'open'"), "4");
}

#[test]
fn somebody_who_mends_the_same_row_is_not_run_over() {
    let (database, mut client) = shop("usher_test_repair_race", 3, &statement(""));
    for (ending, outcomes, amounts) in [
        // The row is mended by a person: the repair finds that out and leaves it.
        ("COMMIT", "not bad any more 1, repaired 5", "1,1,2,2,3,777"),
        ("ROLLBACK", "repaired 6", "1,1,2,2,3,3"),
    ] {
        run(&mut client, "TRUNCATE public.invoices; SELECT usher.check_rule('billed')");
        let mut other = database.connect();
        run(&mut client, "BEGIN; INSERT INTO public.invoices SELECT id, 3, 777 FROM usher.organizations WHERE slug = 'default'");
        let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
        let mut witness = database.connect();
        let said = std::thread::scope(|scope| {
            let repair = scope.spawn(|| text(&mut other, OUTCOMES));
            waits(&mut witness, pid);
            run(&mut client, ending);
            repair.join().expect("the repair ends")
        });
        assert_eq!(said, outcomes, "{ending}");
        assert_eq!(
            text(&mut client, "SELECT string_agg(amount::text, ',' ORDER BY amount) FROM public.invoices"),
            amounts,
            "{ending}"
        );
        assert_eq!(number(&mut client, OPEN), 0, "{ending}");
    }
}

#[test]
fn a_row_that_somebody_is_changing_is_repaired_as_it_becomes() {
    let (database, mut client) = shop("usher_test_repair_stale", 1, &statement(""));
    let mut other = database.connect();
    let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
    run(&mut client, "BEGIN; UPDATE public.orders SET total = total + 100");
    let mut witness = database.connect();
    let said = std::thread::scope(|scope| {
        let repair = scope.spawn(|| text(&mut other, OUTCOMES));
        waits(&mut witness, pid);
        run(&mut client, "COMMIT");
        repair.join().expect("the repair ends")
    });
    assert_eq!(said, "repaired 2");
    assert_eq!(text(&mut client, "SELECT string_agg(amount::text, ',') FROM public.invoices"), "101,101");
}

/// The repair waits for who is just mending it, and then has nothing to do: that is no repair.
#[test]
fn a_repair_that_has_changed_nothing_is_none() {
    let keep = statement("").replace(INSERT, &format!("{INSERT} ON CONFLICT DO NOTHING"));
    let (database, mut client) = shop("usher_test_repair_nothing", 2, &keep);
    let mut other = database.connect();
    let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
    run(&mut client, "BEGIN; INSERT INTO public.invoices SELECT organization_id, id, 777 FROM public.orders");
    let mut witness = database.connect();
    let said = std::thread::scope(|scope| {
        let repair = scope.spawn(|| text(&mut other, OUTCOMES));
        waits(&mut witness, pid);
        run(&mut client, "COMMIT");
        repair.join().expect("the repair ends")
    });
    assert_eq!(said, "not bad any more 4");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.repairs"), 0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.violations WHERE status = 'gone' AND repairs = 0"), 4);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.invoices WHERE amount = 777"), 4);
}

#[test]
fn two_repairs_at_once_do_it_once() {
    let (database, mut client) = shop("usher_test_repair_two", 500, &statement(""));
    let repaired: i64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut mine = database.connect();
                scope.spawn(move || {
                    number(&mut mine, "SELECT count(*) FROM usher.repair_rule('billed') WHERE outcome = 'repaired'")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a repair ends")).sum()
    });
    assert_eq!(repaired, 1_000);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.invoices"), 1_000);
    assert_eq!(number(&mut client, "SELECT sum(cardinality(violations))::bigint FROM usher.repairs"), 1_000);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.repairs"), 2, "one for each organization");
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.violations WHERE status = 'repaired' AND repairs = 1"), 1_000);
}

#[test]
fn killed_in_the_middle_it_is_done_once_or_not_at_all() {
    let (database, mut client) = shop("usher_test_repair_kill", 20, &statement(""));
    // The last row of the statement waits.
    run(
        &mut client,
        "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.order_id = 20 THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW; END $$;
         CREATE TRIGGER stop BEFORE INSERT ON public.invoices FOR EACH ROW EXECUTE FUNCTION public.stop();
         SELECT pg_advisory_lock(1)",
    );
    let mut other = database.connect();
    let pid = number(&mut other, "SELECT pg_backend_pid()::bigint");
    let victim = std::thread::spawn(move || other.query(OUTCOMES, &[]).is_err());
    let mut witness = database.connect();
    waits(&mut witness, pid);
    let mut here = server::kill_and_recover(&database, &mut witness, i32::try_from(pid).expect("a pid"));
    assert!(victim.join().expect("the victim's thread ends"), "the repair was killed");
    let here = &mut here;
    assert_eq!(number(here, "SELECT count(*) FROM public.invoices"), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.repairs"), 0);
    assert_eq!(number(here, OPEN), 40);
    assert_eq!(text(here, OUTCOMES), "repaired 40");
    assert_eq!(text(here, &format!("SELECT COALESCE(({OUTCOMES}), 'nothing')")), "nothing");
    assert_eq!(number(here, "SELECT count(*) FROM public.invoices"), 40);
    assert_eq!(number(here, "SELECT sum(jsonb_array_length(changes))::bigint FROM usher.repairs"), 40);
}

#[test]
fn many_rows_are_repaired_by_one_statement_for_ten_thousand_and_put_back() {
    let (_database, mut client) = shop("usher_test_repair_many", 12_000, &statement(""));
    let here = &mut client;
    run(
        here,
        "CREATE TABLE public.statements (rows bigint);
         CREATE FUNCTION public.count_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.statements SELECT count(*) FROM new; RETURN NULL; END $$;
         CREATE TRIGGER count_it AFTER INSERT ON public.invoices REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION public.count_it()",
    );
    let began = Instant::now();
    assert_eq!(
        text(
            here,
            "SELECT string_agg(r.n::text, ',' ORDER BY r.n) FROM (SELECT count(*) AS n FROM usher.repair_rule('billed', organization => 'other') WHERE outcome = 'repaired' GROUP BY repair) AS r"
        ),
        "2000,10000"
    );
    let took = began.elapsed();
    println!("12,000 violations were repaired in {took:?}");
    assert_eq!(text(here, "SELECT string_agg(rows::text, ',') FROM public.statements"), "10000,2000");
    // What one statement has done is one repair, so none grows beyond what a value can hold.
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', cardinality(violations), jsonb_array_length(changes), cannot_undo), ',' ORDER BY repaired_at) FROM usher.repairs"
        ),
        "10000 10000,2000 2000"
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM public.invoices AS i JOIN usher.organizations AS o ON o.id = i.organization_id WHERE o.slug = 'default'"
        ),
        0
    );
    assert_eq!(
        text(
            here,
            "SELECT string_agg(usher.undo_repair(r.id), '; ') FROM (SELECT id FROM usher.repairs ORDER BY repaired_at DESC) AS r"
        ),
        "2000 rows are as they were before the repair of rule \"billed\"; 2000 violations are back; 10000 rows are as they were before the repair of rule \"billed\"; 10000 violations are back"
    );
    assert_eq!(number(here, "SELECT count(*) FROM public.invoices"), 0);
    assert_eq!(number(here, OPEN), 24_000);
}

/// What nobody notes nobody can look at: whose rows a repair has changed is known only where the changes are.
#[test]
fn a_repair_that_could_reach_others_unseen_is_refused() {
    let (_database, mut client) = shop("usher_test_repair_unseen", 1, &statement(""));
    let here = &mut client;
    let others = "{\"statement\": \"UPDATE public.orders AS o SET total = 777 FROM bad WHERE o.id = bad.order_id\"}";
    run(
        here,
        &format!("SELECT usher.alter_rule('billed', $${{{RULE}, \"repair\": {others}}}$$); SELECT usher.check_rule('billed')"),
    );
    let outcomes = "SELECT string_agg(DISTINCT concat_ws(': ', outcome, left(error, 62)), '; ') FROM usher.repair_rule('billed')";
    assert_eq!(text(here, outcomes), "failed: the repair would change a row of public.orders that belongs to");
    let refusal = |here: &mut Client| {
        let refusal = refused(here, "SELECT * FROM usher.repair_rule('billed')");
        assert_eq!(refusal.code().code(), "55000");
        assert_eq!(
            refusal.message(),
            "rule \"billed\": changes of public.orders are not noted, so its repair might change rows of other organizations"
        );
        assert!(refusal.hint().is_some_and(|hint| hint.contains("usher.alter_rule()")), "{refusal:?}");
        assert_eq!(text(here, "SELECT DISTINCT total::text FROM public.orders"), "1");
    };
    // Asleep, gone, and of a table that inherits.
    run(here, "ALTER TABLE public.orders DISABLE TRIGGER usher_repairs");
    refusal(here);
    run(here, "DROP TRIGGER usher_repairs ON public.orders");
    refusal(here);
    assert_eq!(number(here, "SELECT count(*) FROM usher.plan_repair('billed')"), 2, "it is shown all the same");
    run(
        here,
        "SELECT usher.alter_rule('billed', definition) FROM usher.rules WHERE name = 'billed'; SELECT usher.check_rule('billed')",
    );
    assert_eq!(text(here, outcomes), "failed: the repair would change a row of public.orders that belongs to");
    run(here, "CREATE TABLE public.old_orders () INHERITS (public.orders)");
    refusal(here);
    run(here, "SELECT usher.alter_rule('billed', definition) FROM usher.rules WHERE name = 'billed'");
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM pg_trigger WHERE tgname = 'usher_repairs' AND tgrelid = 'public.old_orders'::regclass"
        ),
        1
    );
    assert_eq!(text(here, outcomes), "failed: the repair would change a row of public.orders that belongs to");
    // By itself it does nothing either, and says why.
    run(
        here,
        &format!(
            "BEGIN; SELECT usher.alter_rule('billed', $${{{RULE}, \"repair\": {}}}$$); DROP TRIGGER usher_repairs ON public.orders;
             UPDATE usher.violations SET repairs = 0, tried_at = NULL, gave_up_at = NULL; COMMIT",
            others.replace('}', ", \"auto\": true}")
        ),
    );
    let error = text(here, "SELECT error FROM usher.repair_due()");
    assert!(error.contains("are not noted"), "{error}");
    assert_eq!(text(here, "SELECT DISTINCT total::text FROM public.orders"), "1");
}

#[test]
fn an_undo_that_was_not_noted_says_so() {
    let (_database, mut client) = shop("usher_test_repair_undo_unnoted", 1, &statement(""));
    let here = &mut client;
    assert_eq!(text(here, OUTCOMES), "repaired 2");
    run(here, "DROP TRIGGER usher_repairs ON public.invoices");
    run(here, "SELECT usher.undo_repair(id) FROM usher.repairs WHERE kind = 'statement'");
    assert_eq!(number(here, "SELECT count(*) FROM public.invoices"), 0);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(DISTINCT concat_ws(' ', changes, cannot_undo), '; ') FROM usher.repairs WHERE kind = 'undo'"
        ),
        "[] its changes of public.invoices were not noted"
    );
    let redo = refused(here, "SELECT usher.undo_repair(id) FROM usher.repairs WHERE kind = 'undo'");
    assert_eq!(redo.code().code(), "55000");
}

/// Two rules whose repairs undo each other come to rest, and people are told.
#[test]
fn repairs_that_undo_each_other_end() {
    let database = Database::create("usher_test_repair_pingpong");
    let mut client = database.connect();
    let here = &mut client;
    let lamp = |name: &str, which: &str, then: &str| {
        format!(
            "SELECT usher.create_rule('{name}', $${{\"query\": \"SELECT id FROM public.lamps WHERE {which}\", \"key\": [\"id\"], \"wrong\": \"'it is {name}'\", \"every\": \"never\",
                 \"repair\": {{\"statement\": \"UPDATE public.lamps AS l SET lit = {then} FROM bad WHERE l.id = bad.id\", \"auto\": true, \"most\": 2}}}}$$);"
        )
    };
    run(
        here,
        &format!(
            "CREATE TABLE public.lamps (id integer PRIMARY KEY, lit boolean NOT NULL); INSERT INTO public.lamps VALUES (1, true); {}{}",
            lamp("lit", "lit", "false"),
            lamp("dark", "NOT lit", "true")
        ),
    );
    let repairs = "SELECT count(*) FROM usher.repairs";
    let given_up = "SELECT count(*) FROM usher.violations WHERE manual";
    wait::until(Duration::from_secs(60), "one of the rules gives up", || {
        run(
            here,
            "SELECT * FROM usher.check_rule('lit'); SELECT * FROM usher.check_rule('dark'); SELECT * FROM usher.repair_due()",
        );
        number(here, given_up) > 0 || number(here, repairs) > 20
    });
    assert_eq!(number(here, given_up), 1, "{} repairs", number(here, repairs));
    let made = number(here, repairs);
    assert_eq!(made, 4, "each as often as it may");
    assert_eq!(number(here, "SELECT count(*) FROM usher.events WHERE type = 'usher.violation.repair_failed'"), 1);
    assert_eq!(
        text(here, "SELECT concat_ws(' ', rule, repairs, last_error) FROM usher.violations WHERE manual"),
        "lit 2 it was repaired and is bad again"
    );
    run(here, "SELECT * FROM usher.check_rule('lit'); SELECT * FROM usher.check_rule('dark'); SELECT * FROM usher.repair_due()");
    assert_eq!(number(here, repairs), made);
    // Long after its repair it is another matter.
    run(
        here,
        "SELECT usher.disable_rule('dark'); UPDATE public.lamps SET lit = false; SELECT * FROM usher.check_rule('lit');
         UPDATE usher.violations SET tried_at = tried_at - interval '2 hours', repaired_at = repaired_at - interval '2 hours', gave_up_at = gave_up_at - interval '2 hours';
         UPDATE public.lamps SET lit = true; SELECT * FROM usher.check_rule('lit')",
    );
    wait::until(Duration::from_secs(20), "it is repaired", || {
        run(here, "SELECT * FROM usher.repair_due()");
        text(here, "SELECT concat_ws(' ', status, repairs, manual) FROM usher.violations WHERE rule = 'lit'") == "repaired 1 f"
    });
}

#[test]
fn one_bad_row_among_many_does_not_keep_the_others() {
    let (_database, mut client) = shop("usher_test_repair_poison", 1_000, &statement(""));
    let here = &mut client;
    run(here, "ALTER TABLE public.invoices ADD CHECK (order_id NOT IN (77, 640)) NOT VALID");
    assert_eq!(text(here, OUTCOMES), "failed 4, repaired 1996");
    assert_eq!(
        text(
            here,
            "SELECT string_agg(DISTINCT concat_ws(' ', repairs, manual, left(last_error, 60)), '; ') FROM usher.violations WHERE status = 'open'"
        ),
        "1 f new row for relation \"invoices\" violates check constraint \"i"
    );
}

#[test]
fn by_itself_it_pauses_between_attempts_and_gives_up() {
    let (_database, mut client) = shop("usher_test_repair_auto", 1, &statement(", \"auto\": true, \"most\": 3"));
    let here = &mut client;
    run(here, "ALTER TABLE public.invoices ADD CHECK (amount < 0)");
    let due = "SELECT COALESCE(sum(failed), 0)::bigint FROM usher.repair_due()";
    let first = number(here, due);
    // The next one comes a second later at the earliest. (A worker may have made the first.)
    assert!(first <= 2, "{first}");
    let mut attempts = Vec::new();
    wait::until(Duration::from_secs(60), "the rule gives up", || {
        number(here, due);
        attempts.push(text(here, "SELECT string_agg(DISTINCT repairs::text, ',') FROM usher.violations"));
        number(here, "SELECT count(*) FROM usher.violations WHERE manual") == 2
    });
    attempts.dedup();
    assert!(attempts.last().is_some_and(|last| last == "3"), "{attempts:?}");
    // One second, and two: nobody hammers.
    assert!(number(here, "SELECT EXTRACT(epoch FROM min(tried_at) - min(first_seen_at))::bigint FROM usher.violations") >= 3);
    assert_eq!(number(here, due), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.events WHERE type = 'usher.violation.repair_failed'"), 2);
    assert_eq!(number(here, OPEN), 2);
    // A person may try again, and it helps.
    run(here, "ALTER TABLE public.invoices DROP CONSTRAINT invoices_amount_check");
    assert_eq!(text(here, OUTCOMES), "repaired 2");
    assert_eq!(number(here, "SELECT count(*) FROM usher.violations WHERE manual"), 0);
}

/// It is ended after ten seconds, and that was an attempt: otherwise it would be tried for ever, and nobody told.
#[test]
fn by_itself_a_repair_that_takes_too_long_gives_up() {
    let slow = |auto: &str| format!("{{\"statement\": \"{INSERT} WHERE pg_sleep(600) IS NOT NULL\"{auto}}}");
    let (_database, mut client) = shop("usher_test_repair_slow", 1, &slow(""));
    let here = &mut client;
    run(
        here,
        "DELETE FROM public.orders WHERE organization_id <> (SELECT id FROM usher.organizations WHERE slug = 'other'); SELECT usher.check_rule('billed')",
    );
    assert_eq!(number(here, OPEN), 1);
    run(
        here,
        &format!(
            "SELECT usher.alter_rule('billed', definition || '{{\"repair\": {}}}') FROM usher.rules",
            slow(", \"auto\": true, \"most\": 1")
        ),
    );
    wait::until_true(
        here,
        "SELECT count(*) = 1 FROM usher.violations WHERE manual AND status = 'open' AND repairs = 1 AND last_error ~ 'longer than the 10 s'",
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.events WHERE type = 'usher.violation.repair_failed'");
}

#[test]
fn a_flow_is_asked_for_the_row_and_a_worker_runs_it() {
    let (_database, mut client) = shop("usher_test_repair_flow", 2, &statement(""));
    let here = &mut client;
    run(
        here,
        "SELECT usher.create_flow('bill', '{\"from\": \"shop\", \"to\": \"books\", \"run_as\": \"usher_test_keeper\", \"when\": {\"request\": \"bill\"},
            \"then\": {\"insert\": \"public.invoices\", \"key\": [\"order_id\"], \"on_conflict\": \"keep\"},
            \"set\": {\"order_id\": \"(job.payload ->> ''order_id'')::integer\", \"amount\": \"(job.payload ->> ''total'')::numeric\"}}');
         SELECT usher.create_flow('copy', '{\"from\": \"shop\", \"to\": \"books\", \"run_as\": \"usher_test_keeper\", \"when\": {\"change\": \"public.orders\", \"on\": [\"insert\"]},
            \"then\": {\"insert\": \"public.invoices\", \"key\": [\"order_id\"], \"on_conflict\": \"keep\"}, \"set\": {\"order_id\": \"new.id\", \"amount\": \"new.total\"}}')",
    );
    for (flow, more) in [("bill", ""), ("copy", ", \"touches\": {\"public.orders\": {\"order_id\": \"row.id\"}}, \"run\": []")] {
        run(here, "DELETE FROM public.invoices");
        run(
            here,
            &format!(
                "SELECT usher.alter_rule('billed', $${{{RULE}, \"repair\": {{\"flow\": \"{flow}\"}}{more}}}$$); SELECT usher.check_rule('billed')"
            ),
        );
        assert_eq!(number(here, OPEN), 4, "{flow}");
        // Of one organization alone.
        assert_eq!(
            number(here, "SELECT count(*) FROM usher.repair_rule('billed', organization => 'other') WHERE outcome = 'asked'"),
            2,
            "{flow}"
        );
        wait::until_true(
            here,
            "SELECT count(*) >= 2 FROM public.invoices AS i JOIN usher.organizations AS o ON o.id = i.organization_id WHERE o.slug = 'other'",
        );
        run(here, "SELECT usher.check_rule('billed')");
        assert_eq!(
            number(
                here,
                "SELECT count(*) FROM usher.violations AS v JOIN usher.organizations AS o ON o.id = v.organization_id WHERE o.slug = 'other' AND v.status = 'gone'"
            ),
            2,
            "{flow}"
        );
        let why = text(here, "SELECT cannot_undo FROM usher.repairs ORDER BY repaired_at DESC LIMIT 1");
        assert_eq!(why, "what the flow does is done by its jobs", "{flow}");
    }
}
