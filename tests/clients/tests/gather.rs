//! Flows in mode batch while workers run: exactly so many, the window, organizations, crashes, the job that takes the server down.

use std::thread;
use std::time::Duration;
use usher_clients::wait::{until, until_true, until_true_for};
use usher_clients::{Client, Database, Value, flow, json, number, role, run, server, settled, text, try_connect, value};

const LONG: Duration = Duration::from_secs(120);

/// `public.statements` gets a row for each statement that writes to `public.done`, with how many rows it wrote.
fn database(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_gather", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.rows (id integer PRIMARY KEY, organization_id uuid, version integer NOT NULL DEFAULT 1);
         CREATE TABLE public.done (seq bigint GENERATED ALWAYS AS IDENTITY, id integer NOT NULL, version integer, organization_id uuid);
         CREATE TABLE public.statements (seq bigint GENERATED ALWAYS AS IDENTITY, jobs integer NOT NULL, organizations integer);
         CREATE FUNCTION public.count() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             INSERT INTO public.statements (jobs, organizations) SELECT count(*), count(DISTINCT organization_id) FROM fresh;
             RETURN NULL;
         END $$;
         CREATE TRIGGER count AFTER INSERT ON public.done REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION public.count();
         GRANT ALL ON public.done TO clients_gather;
         CREATE TABLE public.calls (seq bigint GENERATED ALWAYS AS IDENTITY, jobs jsonb);
         GRANT INSERT ON public.calls TO clients_gather;
         CREATE FUNCTION public.take(jobs jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.calls (jobs) VALUES (jobs)';
         SELECT usher.create_organization('acme'), usher.create_organization('beta');
         CREATE FUNCTION public.org(slug text) RETURNS uuid LANGUAGE sql AS 'SELECT id FROM usher.organizations o WHERE o.slug = org.slug'",
    );
    (database, client)
}

fn rows(client: &mut Client, size: i32, window: &str, then: &Value) {
    let mut definition = json!({"when": {"change": "public.rows"}, "then": then, "mode": "batch", "batch": {"size": size, "window": window},
                                "set": {"id": "new.id", "version": "new.version"}, "run_as": "clients_gather", "retry": {"delays": [0.05, 0.05]}});
    if then.get("call").is_none() {
        definition["set"]["version"] = json!("new.version");
    }
    flow(client, "rows", &definition);
}

const GATHERED: &str = "FROM usher.queue_waiting WHERE waiting_for = 'batch window'";

/// Rows come one by one from several writers, of two organizations: a batch runs when it has its number, and not before.
#[test]
fn exactly_so_many() {
    let (database, mut client) = database("usher_gather_size");
    rows(&mut client, 50, "1 day", &json!({"insert": "public.done"}));
    let writers: Vec<_> = (0..7)
        .map(|writer| {
            let mut session = database.connect();
            thread::spawn(move || {
                for n in 0..7 {
                    let id = writer * 100 + n;
                    run(
                        &mut session,
                        &format!(
                            "INSERT INTO public.rows VALUES ({id}, public.org('acme')), ({}, public.org('beta'))",
                            1000 + id
                        ),
                    );
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("no writer gets an error"));
    until_true(&mut client, &format!("SELECT count(*) = 98 {GATHERED}"));
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 0, "49 of each are not enough");
    run(&mut client, "INSERT INTO public.rows VALUES (5000, public.org('beta'))");
    until_true(&mut client, "SELECT count(*) = 50 FROM public.done");
    assert_eq!(text(&mut client, "SELECT string_agg(jobs || ' of ' || organizations, ', ') FROM public.statements"), "50 of 1");
    assert_eq!(number(&mut client, &format!("SELECT count(*) {GATHERED}")), 49, "acme's wait on");
    // A larger backlog runs as several.
    run(&mut client, "INSERT INTO public.rows SELECT n, public.org('acme') FROM generate_series(6000, 6170) AS n");
    until_true(&mut client, "SELECT count(*) = 250 FROM public.done");
    assert_eq!(text(&mut client, "SELECT string_agg(jobs::text, ', ') FROM public.statements"), "50, 50, 50, 50, 50");
    assert_eq!(number(&mut client, &format!("SELECT count(*) {GATHERED}")), 20);
}

/// Nobody comes any more: what is there runs when the oldest is a window old, and not before.
#[test]
fn the_window_closes() {
    let (_database, mut client) = database("usher_gather_window");
    rows(&mut client, 1000, "1500 ms", &json!({"insert": "public.done"}));
    run(&mut client, "INSERT INTO public.rows VALUES (1, public.org('acme'))");
    until_true(&mut client, &format!("SELECT count(*) = 1 {GATHERED}"));
    run(&mut client, "INSERT INTO public.rows VALUES (2, public.org('acme')), (3, public.org('acme'))");
    until_true(&mut client, "SELECT count(*) = 3 FROM public.done");
    assert_eq!(text(&mut client, "SELECT string_agg(jobs::text, ', ') FROM public.statements"), "3");
    let waited: bool = value(
        &mut client,
        "SELECT min(finished_at - created_at) FILTER (WHERE new->>'id' = '1') >= interval '1500 ms' FROM usher.job_history",
        &[],
    );
    assert!(waited, "the first has waited for the whole window");
}

/// One call for a batch, with the jobs in their order; a row's later change comes in a call of its own.
#[test]
fn one_call_for_a_batch() {
    let (_database, mut client) = database("usher_gather_call");
    rows(&mut client, 6, "1 day", &json!({"call": "public.take", "per": "batch"}));
    run(&mut client, "INSERT INTO public.rows SELECT n, public.org('acme') FROM generate_series(1, 5) AS n");
    run(&mut client, "UPDATE public.rows SET version = 2 WHERE id = 3");
    until_true(&mut client, "SELECT count(*) = 2 FROM public.calls");
    let calls: Value = value(&mut client, "SELECT jsonb_agg(jobs ORDER BY seq) FROM public.calls", &[]);
    let one = |id: i32, version: i32| json!({"id": id, "version": version});
    assert_eq!(calls, json!([[one(1, 1), one(2, 1), one(3, 1), one(4, 1), one(5, 1)], [one(3, 2)]]));
}

/// Workers are killed again and again while jobs gather and run: each is done once, of each row the changes in their order.
#[test]
fn a_crash_in_between_loses_and_doubles_nothing() {
    let (database, mut client) = database("usher_gather_crash");
    rows(&mut client, 20, "1 s", &json!({"insert": "public.done"}));
    run(
        &mut client,
        "INSERT INTO public.rows SELECT n, public.org(CASE n % 2 WHEN 0 THEN 'acme' ELSE 'beta' END) FROM generate_series(1, 130) AS n",
    );
    for version in 2..=6 {
        let workers = server::workers(&mut client);
        client = server::kill_and_recover(&database, &mut client, workers[version % workers.len()]);
        run(&mut client, &format!("UPDATE public.rows SET version = {version}"));
    }
    settled(&mut client, LONG);
    let wrong = "SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY id ORDER BY seq) AS place FROM public.done) AS d WHERE version <> place";
    assert_eq!(number(&mut client, wrong), 0, "lost, doubled or out of order");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 130 * 6);
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.statements WHERE jobs > 20 OR organizations > 1"), 0);
}

/// A job of a gathered batch takes the server down: after a few crashes it is a dead letter, and the others are done once.
#[test]
fn the_job_that_takes_the_server_down_is_found() {
    let (database, mut client) = database("usher_gather_poison");
    run(
        &mut client,
        "CREATE FUNCTION public.kill() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             IF NEW.id = 13 THEN COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; kill -9 $PPID'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER kill BEFORE INSERT ON public.done FOR EACH ROW EXECUTE FUNCTION public.kill()",
    );
    // Full, so that it runs long before its window is over.
    rows(&mut client, 30, "1 day", &json!({"insert": "public.done"}));
    let _ = client.batch_execute("INSERT INTO public.rows SELECT n, public.org('acme') FROM generate_series(1, 30) AS n");
    until(LONG, "the job that ends the process is a dead letter", || {
        let Ok(mut client) = try_connect(&database.name, None) else { return false };
        client.query_one("SELECT count(*) FROM usher.dead_letters", &[]).is_ok_and(|row| row.get::<_, i64>(0) == 1)
    });
    let mut client = database.reconnect();
    settled(&mut client, LONG);
    assert_eq!(text(&mut client, "SELECT new ->> 'id' || ' ' || sqlstate FROM usher.dead_letters"), "13 57P02");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.done"), 29);
    assert_eq!(number(&mut client, "SELECT count(DISTINCT id) FROM public.done"), 29);
    until_true_for(&mut client, LONG, "SELECT NOT bool_or(careful) FROM usher.worker_marks");
}

/// A session that runs jobs beside the workers takes no batch apart, and what it has put to gather is found.
#[test]
fn sessions_and_workers_gather_together() {
    let (database, mut client) = database("usher_gather_sessions");
    rows(&mut client, 10, "1 day", &json!({"insert": "public.done"}));
    let mut other = database.connect();
    for n in 0..20 {
        run(&mut client, &format!("INSERT INTO public.rows VALUES ({n}, public.org('acme'))"));
        run(&mut other, "SELECT usher.process_jobs()");
    }
    until_true(&mut client, "SELECT count(*) = 20 FROM public.done");
    assert_eq!(text(&mut client, "SELECT string_agg(jobs::text, ', ') FROM public.statements"), "10, 10");
}

/// A job that somebody had locked when its batch ran is of the next one.
#[test]
fn a_locked_job_is_not_forgotten() {
    let (database, mut client) = database("usher_gather_locked");
    rows(&mut client, 2, "1 day", &json!({"insert": "public.done"}));
    run(&mut client, "INSERT INTO public.rows VALUES (1, public.org('acme'))");
    until_true(&mut client, &format!("SELECT count(*) = 1 {GATHERED}"));
    let mut holder = database.connect();
    run(&mut holder, &format!("BEGIN; SELECT {GATHERED} FOR UPDATE"));
    run(&mut client, "INSERT INTO public.rows SELECT n, public.org('acme') FROM generate_series(2, 3) AS n");
    until_true(&mut client, "SELECT array_agg(id ORDER BY seq) = '{2,3}' FROM public.done");
    run(&mut holder, "ROLLBACK");
    run(&mut client, "INSERT INTO public.rows VALUES (4, public.org('acme'))");
    // Long before everything is looked at anew.
    until_true_for(&mut client, Duration::from_secs(20), "SELECT array_agg(id ORDER BY seq) = '{2,3,1,4}' FROM public.done");
}
