//! Changes of one row reach their target in the order they took effect, whoever makes them and however nested.

use std::thread;
use usher_clients::chaos::Chance;
use usher_clients::{Client, Database, flow, json, number, reload, role, run, settled, text, wait};

/// `public.b` keeps what `public.a` says; `public.b_log` keeps every value that `public.b` has had, in its order.
fn copy(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_order", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE TABLE public.b (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE TABLE public.b_log (n bigserial PRIMARY KEY, id integer, v integer);
         CREATE FUNCTION public.note_b() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO public.b_log (id, v) VALUES (NEW.id, NEW.v); RETURN NULL; END $$;
         CREATE TRIGGER note_b AFTER INSERT OR UPDATE ON public.b FOR EACH ROW EXECUTE FUNCTION public.note_b();
         GRANT SELECT, INSERT, UPDATE ON public.b TO clients_order",
    );
    (database, client)
}

fn copy_in(client: &mut Client, mode: &str, more: bool) {
    let mut definition = json!({
        "from": "left", "to": "right", "mode": mode, "run_as": "clients_order",
        "when": {"change": "public.a", "on": ["insert", "update"]},
        "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
    });
    if more {
        // A trigger of its own name for the flow: the statement then has two capture triggers.
        definition["trigger_name"] = json!("copy_a_to_b");
    }
    flow(client, "copy", &definition);
}

const BACKWARDS: &str =
    "SELECT count(*) FROM (SELECT v < lag(v) OVER (PARTITION BY id ORDER BY n) AS back FROM public.b_log) AS l WHERE back";
const DIFFERENT: &str = "SELECT count(*) FROM public.a FULL JOIN public.b USING (id) WHERE a.v IS DISTINCT FROM b.v";

/// The application's own triggers change the same row again: for each row, and for each statement with names that sort
/// before and after those of capture.
const AGAIN: [(&str, &str); 3] = [
    (
        "for each row",
        "CREATE TRIGGER again AFTER INSERT OR UPDATE ON public.a FOR EACH ROW WHEN (NEW.v % 10 < 4) EXECUTE FUNCTION public.again()",
    ),
    (
        "statement, first by name",
        "CREATE TRIGGER \"0_again\" AFTER INSERT OR UPDATE ON public.a FOR EACH STATEMENT EXECUTE FUNCTION public.again()",
    ),
    (
        "statement, last by name",
        "CREATE TRIGGER zzz_again AFTER INSERT OR UPDATE ON public.a FOR EACH STATEMENT EXECUTE FUNCTION public.again()",
    ),
];

fn nested(mode: &str) {
    for own_trigger in [false, true] {
        for (kind, trigger) in AGAIN {
            let (_database, mut client) = copy("usher_test_order");
            let here = &mut client;
            copy_in(here, mode, own_trigger);
            // Each change makes one more until v ends in 4; all of them are changes of one row in one statement.
            run(
                here,
                &format!(
                    "CREATE FUNCTION public.again() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF TG_LEVEL = 'ROW' THEN
                         UPDATE public.a SET v = v + 1 WHERE id = NEW.id;
                     ELSIF EXISTS (SELECT FROM public.a WHERE v % 10 < 4) THEN
                         UPDATE public.a SET v = v + 1 WHERE v % 10 < 4;
                     END IF;
                     RETURN NULL;
                 END $$; {trigger}"
                ),
            );
            let case = format!("{mode}, trigger {kind}, trigger_name {own_trigger}");
            run(here, "INSERT INTO public.a SELECT n, 10 FROM generate_series(1, 5) n");
            run(here, "UPDATE public.a SET v = 20");
            run(here, "BEGIN; UPDATE public.a SET v = 30 WHERE id < 3; UPDATE public.a SET v = 40 WHERE id = 2; COMMIT");
            run(here, "INSERT INTO public.a VALUES (3, 50), (6, 61) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v");
            settled(here, wait::LONG);
            assert_eq!(
                text(here, "SELECT string_agg(v::text, ',' ORDER BY id) FROM public.a"),
                "34,44,54,24,24,64",
                "{case}: the test itself"
            );
            assert_eq!(number(here, DIFFERENT), 0, "{case}: the target has what the source has\n{}", wait::jobs(here));
            assert_eq!(number(here, BACKWARDS), 0, "{case}: the target never went back\n{}", wait::jobs(here));
            assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{case}");
            if mode != "transactional" {
                // In the writer's transaction only the last of a nest need be applied; later, every change is a job.
                let values = text(here, "SELECT string_agg(v::text, ',' ORDER BY n) FROM public.b_log WHERE id = 1");
                assert_eq!(values, "10,11,12,13,14,20,21,22,23,24,30,31,32,33,34", "{case}");
            }
        }
    }
}

#[test]
fn nested_triggers_keep_the_order_in_realtime() {
    nested("realtime");
}

#[test]
fn nested_triggers_keep_the_order_in_the_writers_transaction() {
    nested("transactional");
}

#[test]
fn nested_triggers_keep_the_order_in_async() {
    nested("async");
}

#[test]
fn eight_writers_of_the_same_rows_keep_the_order() {
    const WRITERS: u64 = 8;
    const ROUNDS: i32 = 150;
    for mode in ["realtime", "transactional", "async"] {
        let (database, mut client) = copy("usher_test_writers");
        let here = &mut client;
        // Small batches: the changes of a row must also stay in order from one batch to the next.
        run(here, "ALTER SYSTEM SET usher.batch_size = 50");
        reload(here);
        copy_in(here, mode, false);
        run(here, "INSERT INTO public.a SELECT n, 0 FROM generate_series(1, 4) n");
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut client = database.connect();
                thread::spawn(move || {
                    let mut chance = Chance::new(writer + 1);
                    for _ in 0..ROUNDS {
                        let (first, second) = (chance.below(4) + 1, chance.below(4) + 1);
                        let change = |id: u64| format!("UPDATE public.a SET v = v + 1 WHERE id = {id};");
                        // One statement, one transaction of several (in the order of ids: no deadlocks), or undone.
                        let sql = match chance.below(4) {
                            0 | 1 => change(first),
                            2 => format!("BEGIN; {} {} COMMIT", change(first.min(second)), change(first.max(second))),
                            _ => format!(
                                "BEGIN; {} SAVEPOINT s; {} ROLLBACK TO s; COMMIT",
                                change(first.min(second)),
                                change(first.max(second))
                            ),
                        };
                        run(&mut client, &sql);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a writer has panicked");
        }
        settled(here, wait::LONG);
        let total = number(here, "SELECT sum(v)::bigint FROM public.a");
        assert!(total >= i64::from(ROUNDS) * WRITERS as i64, "the test itself: {total} changes");
        assert_eq!(number(here, DIFFERENT), 0, "{mode}: the target has what the source has\n{}", wait::jobs(here));
        assert_eq!(number(here, BACKWARDS), 0, "{mode}: the target never went back");
        // Each change was its own job and its own write: none left out, none twice.
        let written = number(here, "SELECT count(*) FROM (SELECT DISTINCT id, v FROM public.b_log) AS l");
        assert_eq!(written, total + 4, "{mode}");
        assert_eq!(number(here, "SELECT count(*) FROM public.b_log"), total + 4, "{mode}");
    }
}

/// Who holds this lock holds the worker of the normal lane (src/worker/batch.rs), so that jobs gather for one batch.
const HOLD: &str = "BEGIN; SELECT usher.hold_lane('normal')";
const RELEASE: &str = "ROLLBACK";

#[test]
fn changes_by_people_and_by_flows_keep_the_order() {
    let (database, mut client) = copy("usher_test_hops");
    let here = &mut client;
    copy_in(here, "realtime", false);
    // Another flow writes public.a as well: its changes are one hop further than those of people.
    run(
        here,
        "CREATE TABLE public.s (id integer PRIMARY KEY, v integer NOT NULL); GRANT SELECT, INSERT, UPDATE ON public.a TO clients_order",
    );
    flow(
        here,
        "feed",
        &json!({
            "from": "feed", "to": "left", "mode": "transactional", "run_as": "clients_order",
            "when": {"change": "public.s", "on": ["insert", "update"]},
            "then": {"upsert": "public.a", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
        }),
    );
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, "INSERT INTO public.s VALUES (1, 10)");
    run(here, "UPDATE public.a SET v = 11 WHERE id = 1");
    run(here, "UPDATE public.s SET v = 12 WHERE id = 1");
    run(here, "UPDATE public.a SET v = 13 WHERE id = 1");
    run(&mut holder, RELEASE);
    settled(here, wait::LONG);
    assert_eq!(text(here, "SELECT string_agg(v::text, ',' ORDER BY n) FROM public.b_log"), "10,11,12,13", "one batch");
}

#[test]
fn deleting_and_inserting_again_keeps_the_order() {
    let (database, mut client) = copy("usher_test_deletes");
    let here = &mut client;
    copy_in(here, "realtime", false);
    run(here, "GRANT DELETE ON public.b TO clients_order");
    // Two flows, because what they do differs; one row and one target all the same.
    flow(
        here,
        "remove",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_order",
            "when": {"change": "public.a", "on": ["delete"]},
            "then": {"delete": "public.b", "key": ["id"]}, "set": {"id": "old.id"}
        }),
    );
    let mut holder = database.connect();
    run(here, "INSERT INTO public.a VALUES (1, 1), (2, 1)");
    settled(here, wait::LONG);
    // Apart from each other it works.
    run(here, "DELETE FROM public.a WHERE id = 2");
    settled(here, wait::LONG);
    assert_eq!(number(here, DIFFERENT), 0);
    run(here, "INSERT INTO public.a VALUES (2, 2)");
    settled(here, wait::LONG);
    assert_eq!(number(here, DIFFERENT), 0);
    run(&mut holder, HOLD);
    run(here, "DELETE FROM public.a WHERE id = 1; INSERT INTO public.a VALUES (1, 2)");
    run(here, "INSERT INTO public.a VALUES (3, 1); DELETE FROM public.a WHERE id = 3");
    run(&mut holder, RELEASE);
    settled(here, wait::LONG);
    let both = text(
        here,
        "SELECT concat_ws(' | ', (SELECT string_agg(a::text, ' ' ORDER BY id) FROM public.a), (SELECT string_agg(b::text, ' ' ORDER BY id) FROM public.b))",
    );
    assert_eq!(both, "(1,2) (2,2) | (1,2) (2,2)", "in one batch the target follows as well");
}

#[test]
fn a_delete_does_not_overtake_a_retry() {
    let (_database, mut client) = copy("usher_test_overtake");
    let here = &mut client;
    run(here, "GRANT DELETE ON public.b TO clients_order; ALTER TABLE public.b ADD CONSTRAINT not_negative CHECK (v >= 0)");
    for (name, on, then, set) in [
        (
            "copy",
            json!(["insert", "update"]),
            json!({"upsert": "public.b", "key": ["id"]}),
            json!({"id": "new.id", "v": "new.v"}),
        ),
        ("remove", json!(["delete"]), json!({"delete": "public.b", "key": ["id"]}), json!({"id": "old.id"})),
    ] {
        flow(
            here,
            name,
            &json!({
                "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_order", "retry": {"delays": [600], "jitter": 0},
                "when": {"change": "public.a", "on": on}, "then": then, "set": set
            }),
        );
    }
    run(here, "INSERT INTO public.a VALUES (1, -1)");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.sync_jobs WHERE status = 'failed'");
    run(here, "DELETE FROM public.a WHERE id = 1");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.sync_jobs WHERE waiting_for = 'earlier change'");
    // Now the first change can be applied, by hand instead of in ten minutes; the deletion belongs after it.
    run(here, "ALTER TABLE public.b DROP CONSTRAINT not_negative");
    run(here, "SELECT usher.retry_sync_job(id) FROM usher.sync_jobs WHERE status = 'failed'");
    settled(here, wait::LONG);
    assert_eq!(number(here, DIFFERENT), 0, "the deleted row is not in the target\n{}", wait::jobs(here));
    assert_eq!(number(here, "SELECT count(*) FROM public.b_log WHERE id = 1"), 1, "it was there before it was deleted");
}

#[test]
fn what_the_writer_could_not_apply_keeps_its_place() {
    let (database, mut client) = copy("usher_test_fallback");
    let here = &mut client;
    run(here, "ALTER TABLE public.b ADD CONSTRAINT not_negative CHECK (v >= 0)");
    flow(
        here,
        "copy",
        &json!({
            "from": "left", "to": "right", "mode": "transactional", "run_as": "clients_order", "retry": {"delays": [0.5], "jitter": 0},
            "when": {"change": "public.a", "on": ["insert", "update"]},
            "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
        }),
    );
    // The first change fails in the writer's transaction and becomes a job; the later ones must not overtake it. The
    // worker is held meanwhile: the job is there for as long as it takes to look.
    let mut holder = database.connect();
    run(&mut holder, HOLD);
    run(here, "INSERT INTO public.a VALUES (1, -1)");
    run(here, "INSERT INTO public.a VALUES (2, 1)");
    run(here, "UPDATE public.a SET v = 5 WHERE id = 1");
    assert_eq!(text(here, "SELECT string_agg(id::text, ',') FROM public.b"), "2", "row 1 waits, row 2 was applied at once");
    run(here, "BEGIN; UPDATE public.a SET v = 6 WHERE id = 1; UPDATE public.a SET v = 2 WHERE id = 2; COMMIT");
    assert_eq!(text(here, "SELECT string_agg(v::text, ',') FROM public.b WHERE id = 2"), "2");
    run(&mut holder, RELEASE);
    settled(here, wait::LONG);
    assert_eq!(text(here, "SELECT string_agg(v::text, ',' ORDER BY n) FROM public.b_log WHERE id = 1"), "5,6");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 1);
    // And once nothing waits any more, it is at once again.
    run(here, "BEGIN; UPDATE public.a SET v = 7 WHERE id = 1");
    assert_eq!(text(here, "SELECT v::text FROM public.b WHERE id = 1"), "7");
    run(here, "COMMIT");

    // A transaction of many statements gets only so many subtransactions; the rest come after it, in order.
    let many: String = (8..=107).map(|v| format!("UPDATE public.a SET v = {v} WHERE id = 1;")).collect();
    run(here, &format!("BEGIN; {many} COMMIT"));
    run(here, "UPDATE public.a SET v = 108 WHERE id = 1");
    settled(here, wait::LONG);
    assert_eq!(number(here, DIFFERENT), 0, "{}", wait::jobs(here));
    assert_eq!(number(here, BACKWARDS), 0);
    assert_eq!(
        number(here, "SELECT count(DISTINCT v) FROM public.b_log WHERE id = 1"),
        104,
        "every value from 5 to 108 was there once"
    );
}
