//! Long work: backfill and replay go through everything once, whoever is killed, and never undo what is newer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use usher_clients::{Client, Database, Uuid, Value, flow, json, number, refused, role, run, server, settled, text, value, wait};

const MINUTES: Duration = Duration::from_secs(180);

/// `public.items` with `rows` rows, which were there before any flow.
fn items(name: &str, rows: i64) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_backfill", "NOLOGIN");
    run(
        &mut client,
        &format!(
            "CREATE TABLE public.items (kind text, id bigint, v integer NOT NULL DEFAULT 0, note text DEFAULT 'n', PRIMARY KEY (kind, id));
             CREATE TABLE public.entries (id bigint NOT NULL, v integer);
             CREATE TABLE public.copies (kind text, id bigint, v integer NOT NULL, PRIMARY KEY (kind, id));
             CREATE TABLE public.copy_log (n bigserial PRIMARY KEY, id bigint, v integer);
             CREATE FUNCTION public.note_copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN INSERT INTO public.copy_log (id, v) VALUES (NEW.id, NEW.v); RETURN NULL; END $$;
             CREATE TRIGGER note_copy AFTER INSERT OR UPDATE ON public.copies FOR EACH ROW EXECUTE FUNCTION public.note_copy();
             GRANT SELECT, INSERT, UPDATE ON public.entries, public.copies TO clients_backfill;
             INSERT INTO public.items (kind, id) SELECT 'k' || g % 3, g FROM generate_series(1, {rows}) AS g;
             ANALYZE public.items"
        ),
    );
    (database, client)
}

fn append(client: &mut Client, condition: &str) {
    flow(
        client,
        "enter",
        &json!({"run_as": "clients_backfill", "when": {"change": "public.items", "on": ["insert"]}, "if": condition,
                "then": {"insert": "public.entries"}, "set": {"id": "new.id", "v": "new.v"}}),
    );
}

fn copy(client: &mut Client, more: &Value) {
    let mut definition = json!({
        "run_as": "clients_backfill", "when": {"change": "public.items"},
        "then": {"upsert": "public.copies", "key": ["kind", "id"]}, "set": {"kind": "new.kind", "id": "new.id", "v": "new.v"}
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| definition[key] = value.clone());
    flow(client, "copy", &definition);
}

#[track_caller]
fn done(client: &mut Client, id: Uuid) {
    wait::until_true_for(client, MINUTES, &format!("SELECT state = 'done' FROM usher.progress WHERE id = '{id}'"));
}

#[test]
fn killed_in_the_middle_no_slice_is_done_twice_or_left_out() {
    let (database, mut client) = items("clients_backfill_kill", 30_000);
    append(&mut client, "new.id > 0");
    let id: Uuid = value(&mut client, "SELECT usher.backfill('enter', slice => 100)", &[]);
    let mut inside = 0;
    for round in 1..=6 {
        wait::until_true_for(
            &mut client,
            MINUTES,
            &format!("SELECT done >= {} OR state = 'done' FROM usher.progress WHERE id = '{id}'", round * 2_000),
        );
        inside += number(&mut client, &format!("SELECT count(*) FROM usher.progress WHERE id = '{id}' AND state = 'running'"));
        let pid = server::worker_of(&mut client, "normal").expect("a worker");
        client =
            if round == 4 { server::kill_postmaster(&database) } else { server::kill_and_recover(&database, &mut client, pid) };
    }
    assert!(inside >= 3, "only {inside} kills met an unfinished backfill");
    done(&mut client, id);
    settled(&mut client, MINUTES);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.entries"), 30_000);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) FROM public.entries"), 30_000);
    let progress = text(&mut client, "SELECT concat_ws(' ', total, total_is, done, jobs, failed) FROM usher.progress");
    assert_eq!(progress, "30000 exact 30000 30000 0");
}

/// Rows are changed all the time while a backfill goes through them. No copy may ever go back.
fn live(name: &str, more: &Value) {
    let (database, mut client) = items(name, 3_000);
    copy(&mut client, more);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let (mut writer, stop) = (database.connect(), stop.clone());
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (a, b) = ((round * 37 + n * 11) % 3_000 + 1, (round * 53 + n * 7) % 3_000 + 1);
                    let began = std::time::Instant::now();
                    // Two rows in any order: somebody who waits for one holds the other.
                    let sql = format!(
                        "BEGIN; UPDATE public.items SET v = v + 1 WHERE id = {a}; UPDATE public.items SET v = v + 1 WHERE id = {b}; COMMIT"
                    );
                    // Two writers may meet in a deadlock of their own; that is between them.
                    if writer.batch_execute(&sql).is_err() {
                        run(&mut writer, "ROLLBACK");
                    } else {
                        longest = longest.max(began.elapsed());
                    }
                }
                longest
            })
        })
        .collect();
    for _ in 0..3 {
        let id: Uuid = value(&mut client, "SELECT usher.backfill('copy', slice => 200)", &[]);
        done(&mut client, id);
    }
    stop.store(true, Ordering::SeqCst);
    let longest = writers.into_iter().map(|writer| writer.join().unwrap()).max().unwrap();
    settled(&mut client, MINUTES);
    let different =
        "SELECT count(*) FROM public.items FULL JOIN public.copies USING (kind, id) WHERE items.v IS DISTINCT FROM copies.v";
    assert_eq!(number(&mut client, different), 0);
    let back =
        "SELECT count(*) FROM (SELECT v < lag(v) OVER (PARTITION BY id ORDER BY n) AS back FROM public.copy_log) AS l WHERE back";
    assert_eq!(number(&mut client, back), 0, "a copy went back to an older value");
    println!("longest transaction of a writer: {longest:?}");
    assert!(longest < Duration::from_secs(5), "a writer waited {longest:?}");
}

#[test]
fn newer_changes_are_never_overwritten() {
    live("clients_backfill_live", &json!({}));
    live("clients_backfill_live", &json!({"priority": "critical"}));
    live("clients_backfill_live", &json!({"mode": "transactional"}));
}

#[test]
fn a_locked_row_holds_up_the_backfill_and_nobody_else() {
    let (database, mut client) = items("clients_backfill_locked", 2_000);
    copy(&mut client, &json!({}));
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; UPDATE public.items SET v = 7 WHERE id = 900");
    let id: Uuid = value(&mut client, "SELECT usher.backfill('copy', slice => 500)", &[]);
    // It says why, makes smaller steps, and all that come before the row are done.
    wait::until_true_for(
        &mut client,
        MINUTES,
        &format!("SELECT message LIKE '%lock timeout%' FROM usher.progress WHERE id = '{id}'"),
    );
    run(&mut client, "SET statement_timeout = '5s'; UPDATE public.items SET v = 5 WHERE id <> 900");
    wait::until_true_for(&mut client, MINUTES, "SELECT count(*) >= 1999 FROM public.copies WHERE v = 5");
    assert_eq!(text(&mut client, &format!("SELECT state FROM usher.progress WHERE id = '{id}'")), "running");
    run(&mut holder, "COMMIT");
    done(&mut client, id);
    settled(&mut client, MINUTES);
    assert_eq!(number(&mut client, "SELECT v::bigint FROM public.copies WHERE id = 900"), 7);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.copies"), 2_000);
}

#[test]
fn it_is_paused_resumed_cancelled_and_waits_for_its_flow() {
    let (_database, mut client) = items("clients_backfill_steer", 50_000);
    append(&mut client, "new.id > 0");
    let steer =
        |client: &mut Client, what: &str, id: Uuid| value::<String>(client, &format!("SELECT usher.{what}_work($1)"), &[&id]);
    let state = |client: &mut Client, id: Uuid| text(client, &format!("SELECT state FROM usher.progress WHERE id = '{id}'"));
    let id: Uuid = value(&mut client, "SELECT usher.backfill('enter', slice => 50)", &[]);
    assert_eq!(refused(&mut client, "SELECT usher.backfill('enter')").code().code(), "55000");
    wait::until_true(&mut client, &format!("SELECT done >= 500 FROM usher.progress WHERE id = '{id}'"));
    steer(&mut client, "pause", id);
    settled(&mut client, MINUTES);
    let entries = number(&mut client, "SELECT count(*) FROM public.entries");
    assert!((500..50_000).contains(&entries), "{entries}");
    // Live traffic goes on, the backfill does not.
    run(&mut client, "INSERT INTO public.items (kind, id) VALUES ('z', 60000)");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.entries WHERE id = 60000");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.entries"), entries + 1);
    assert_eq!(refused(&mut client, &format!("SELECT usher.pause_work('{id}')")).code().code(), "55000");
    steer(&mut client, "resume", id);
    wait::until_true(&mut client, &format!("SELECT count(*) > {entries} + 1 FROM public.entries"));
    // The flow is off: so is the backfill.
    run(&mut client, "SELECT usher.disable_flow('enter')");
    flow(
        &mut client,
        "witness",
        &json!({"when": {"schedule": "every 1 second"}, "then": {"insert": "public.entries"}, "set": {"id": "-1"}}),
    );
    // A slice that was being made when the flow went off is still finished. The worker that makes slices runs the witness.
    wait::until_true(&mut client, "SELECT count(*) >= 2 FROM public.entries WHERE id = -1");
    let made = number(&mut client, &format!("SELECT jobs FROM usher.progress WHERE id = '{id}'"));
    wait::until_true(&mut client, "SELECT count(*) >= 4 FROM public.entries WHERE id = -1");
    assert_eq!(number(&mut client, &format!("SELECT jobs FROM usher.progress WHERE id = '{id}'")), made);
    assert_eq!(state(&mut client, id), "running");
    run(&mut client, "SELECT usher.drop_flow('witness'); SELECT usher.enable_flow('enter')");
    wait::until_true(&mut client, &format!("SELECT jobs > {made} FROM usher.progress WHERE id = '{id}'"));
    steer(&mut client, "cancel", id);
    assert_eq!(state(&mut client, id), "cancelled");
    settled(&mut client, MINUTES);
    let (jobs, entries) = (
        number(&mut client, &format!("SELECT jobs FROM usher.progress WHERE id = '{id}'")),
        number(&mut client, "SELECT count(*) FROM public.entries WHERE id BETWEEN 1 AND 50000"),
    );
    assert_eq!(jobs, entries);
    assert!(jobs < 50_000);
    // A dropped flow takes its work along.
    let id: Uuid = value(&mut client, "SELECT usher.backfill('enter', slice => 1)", &[]);
    run(&mut client, "SELECT usher.drop_flow('enter')");
    wait::until_true(&mut client, &format!("SELECT state = 'cancelled' FROM usher.progress WHERE id = '{id}'"));
}

#[test]
fn finished_jobs_run_again_in_their_order_once() {
    let (database, mut client) = items("clients_replay", 0);
    copy(&mut client, &json!({}));
    run(&mut client, "INSERT INTO public.items (kind, id) SELECT 'k', g FROM generate_series(1, 3000) AS g");
    // One transaction for each change, so that all have their place in time.
    for _ in 0..3 {
        run(&mut client, "UPDATE public.items SET v = v + 1");
    }
    settled(&mut client, MINUTES);
    let began = text(&mut client, "SELECT (now() - interval '1 hour')::text");
    // As before: each copy goes from 0 to 3 once more.
    run(&mut client, "TRUNCATE public.copies, public.copy_log");
    let id: Uuid = value(&mut client, "SELECT usher.replay('copy', $1::text::timestamptz)", &[&began]);
    let mut met = 0;
    for round in 1..=3 {
        wait::until_true_for(
            &mut client,
            MINUTES,
            &format!("SELECT done >= {} OR state = 'done' FROM usher.progress WHERE id = '{id}'", round * 2_000),
        );
        met += number(&mut client, "SELECT count(*) FROM usher.progress WHERE state = 'running'");
        let pid = server::worker_of(&mut client, "low").expect("a worker");
        client = server::kill_and_recover(&database, &mut client, pid);
    }
    assert!(met >= 1, "no kill met an unfinished replay");
    done(&mut client, id);
    settled(&mut client, MINUTES);
    assert_eq!(
        text(&mut client, "SELECT concat_ws(' ', total, total_is, done, jobs, failed) FROM usher.progress"),
        "12000 exact 12000 12000 0"
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.copies WHERE v = 3"), 3_000);
    let wrong = "SELECT count(*) FROM (SELECT id, string_agg(v::text, ',' ORDER BY n) AS all FROM public.copy_log GROUP BY id) AS l WHERE l.all <> '0,1,2,3'";
    assert_eq!(number(&mut client, wrong), 0, "changes came out of their order, or not once");
    // Each new job is caused by the old one.
    let caused = "WITH j AS (SELECT organization_id, id, cause, new FROM usher.job_history UNION ALL SELECT organization_id, id, cause, new FROM usher.done_jobs)
                  SELECT count(*) FROM j AS n JOIN j AS o ON o.organization_id = n.organization_id AND o.id = n.cause AND o.new = n.new";
    assert_eq!(number(&mut client, caused), 12_000);
}

#[test]
fn emergencies_do_not_wait_for_a_backfill() {
    let (_database, mut client) = items("clients_backfill_lanes", 200_000);
    append(&mut client, "new.id > 0");
    flow(
        &mut client,
        "urgent",
        &json!({"run_as": "clients_backfill", "priority": "emergency", "from": "a", "to": "b", "when": {"request": "go"},
                "then": {"insert": "public.entries"}, "set": {"id": "-1"}}),
    );
    let id: Uuid = value(&mut client, "SELECT usher.backfill('enter')", &[]);
    wait::until_true(&mut client, &format!("SELECT done > 0 FROM usher.progress WHERE id = '{id}'"));
    for n in 1..=20 {
        let job = usher_clients::enqueue(&mut client, "default", "a", "b", &json!({"action": "go", "n": n}));
        assert_eq!(value::<String>(&mut client, "SELECT status FROM usher.wait_for($1, '2 s')", &[&job]), "synced");
    }
    // The backlog of the backfill is a slice at most.
    assert!(number(&mut client, "SELECT count(*) FROM usher.ready_jobs") <= 2_000);
    run(&mut client, &format!("SELECT usher.cancel_work(id) FROM usher.progress WHERE id = '{id}' AND state = 'running'"));
}
