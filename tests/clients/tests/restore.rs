//! Copies of a database: what waits survives `pg_dump | psql`, `pg_restore`, a template copy and `pg_upgrade`, and nothing
//! runs there until somebody has said what the copy is.

use std::process::Command;
use usher_clients::server::copy_database;
use usher_clients::{Client, Database, connect_to, enqueue, flow, json, number, refused, role, run, server, settled, text, wait};

fn program(name: &str) -> Command {
    let folder = std::env::var("USHER_PGBIN").expect("USHER_PGBIN is set by scripts/cluster.sh env");
    Command::new(format!("{folder}/{name}"))
}

fn prepare(client: &mut Client) {
    role(client, "clients_restore", "NOLOGIN");
    run(
        client,
        "CREATE TABLE public.a (id integer PRIMARY KEY, v integer NOT NULL);
         CREATE TABLE public.b (id integer PRIMARY KEY, v integer NOT NULL CHECK (v >= 0));
         CREATE FUNCTION public.tell(id integer) RETURNS void LANGUAGE sql AS '';
         CREATE TABLE public.calls (id integer, made_in text NOT NULL DEFAULT current_database());
         GRANT SELECT, INSERT, UPDATE ON public.b, public.calls TO clients_restore",
    );
    flow(
        client,
        "copy",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_restore", "retry": {"delays": []},
            "when": {"change": "public.a", "on": ["insert", "update"]},
            "then": {"upsert": "public.b", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
        }),
    );
    flow(
        client,
        "call",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_restore", "when": {"request": "call"},
            "then": {"insert": "public.calls"}, "set": {"id": "(job.payload ->> 'id')::integer"}
        }),
    );
}

const SUMMARY: &str =
    "SELECT string_agg(concat_ws(' ', flow, status, payload), '; ' ORDER BY created_at, id) FROM usher.sync_jobs";

/// Everything is there as it was, nothing runs: no worker, no batch by hand, and it says why.
#[track_caller]
fn held(client: &mut Client, before: &str) {
    let sure = refused(client, "SELECT usher.process_jobs()");
    assert_eq!(sure.code().code(), "55000", "{sure}");
    assert!(sure.hint().is_some_and(|hint| hint.contains("usher.resume('moved')")), "{sure}");
    assert_eq!(text(client, SUMMARY), before, "jobs as they were");
    assert_eq!(text(client, "SELECT value FROM usher.status() WHERE section = 'worker'"), "waits for resume()");
}

#[test]
fn a_dump_carries_flows_history_and_pending_work() {
    let database = Database::create("usher_test_dump");
    let mut client = database.connect();
    let here = &mut client;
    prepare(here);
    run(here, "SELECT usher.create_organization('acme'); SELECT usher.grant_membership('acme', 'role:clients_restore', 'admin')");
    run(here, "INSERT INTO public.a VALUES (1, 1), (2, -2)");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.dead_letters");
    settled(here, wait::LONG);
    // Work that has not run: ready jobs, because the worker is held, and one for later.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(here, "UPDATE public.a SET v = 10 WHERE id = 1; INSERT INTO public.a VALUES (3, 3)");
    enqueue(here, "acme", "left", "right", &json!({"action": "call", "id": 1}));
    run(
        here,
        "SELECT usher.enqueue_sync_job('acme', 'left', 'right', '{\"action\": \"call\", \"id\": 2}', run_at => now() + interval '1 s', unique_key => 'two')",
    );
    let before = text(here, SUMMARY);
    run(
        here,
        r#"CREATE TABLE public.kept (id integer PRIMARY KEY, v integer NOT NULL); GRANT SELECT ON public.kept TO clients_restore;
           SELECT usher.create_rule('kept', '{"query": "SELECT id FROM public.kept WHERE v < 0", "key": ["id"], "wrong": "''below''", "run": ["transaction"],
                                              "touches": {"public.kept": {"id": "row.id"}}, "run_as": "clients_restore"}')"#,
    );

    let copy = Database::create_empty("usher_test_restored");
    copy_database(&database.name, &copy.name);
    let mut client = copy.connect();
    let there = &mut client;
    held(there, &before);
    // setup() makes the tables fit; it does not say whose work this is.
    assert!(text(there, "SELECT usher.setup()").contains("jobs are held"));
    held(there, &before);
    assert!(text(there, "SELECT usher.resume('moved')").contains("4 jobs go on"), "{}", wait::jobs(there));
    // The gate of a rule is there at once, not when a worker comes to look.
    assert_eq!(refused(there, "INSERT INTO public.kept VALUES (1, -1)").code().code(), "23514");
    copy.await_workers();
    settled(there, wait::LONG);
    assert!(before.contains("pending") && before.contains("dead") && before.contains("synced"), "the test itself: {before}");
    assert_eq!(
        text(there, "SELECT string_agg(b::text, ' ' ORDER BY id) FROM public.b b"),
        "(1,10) (3,3)",
        "pending changes were applied, done ones not again\n{}",
        wait::jobs(there)
    );
    assert_eq!(
        text(there, "SELECT string_agg(c::text, ' ' ORDER BY id) FROM public.calls c"),
        "(1,usher_test_restored) (2,usher_test_restored)"
    );
    assert_eq!(number(there, "SELECT count(*) FROM usher.dead_letters"), 1);
    assert_eq!(number(there, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'"), 5);
    assert_eq!(number(there, "SELECT count(*) FROM usher.memberships WHERE user_id = 'role:clients_restore'"), 1);
    // Rules that were made for tables are there, and new changes are captured.
    let open = "SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity";
    assert_eq!(number(there, open), 0, "row level security on every table");
    run(there, "INSERT INTO public.a VALUES (4, 4)");
    wait::until_true(there, "SELECT EXISTS (SELECT FROM public.b WHERE id = 4)");
    // The key that was taken is still taken.
    run(
        there,
        "SELECT usher.enqueue_sync_job('acme', 'left', 'right', '{\"action\": \"call\", \"id\": 2}', unique_key => 'two')",
    );
    settled(there, wait::LONG);
    assert_eq!(number(there, "SELECT count(*) FROM public.calls"), 2);
}

/// Ready and delayed work inside the database, and work for a party outside.
fn with_pending_work(database: &Database) -> (Client, Client) {
    let mut client = database.connect();
    prepare(&mut client);
    run(&mut client, "SELECT usher.create_system('away', 'external')");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(&mut client, "INSERT INTO public.a VALUES (1, 1), (2, 2)");
    enqueue(&mut client, "default", "left", "away", &json!({"tell": "them"}));
    (client, holder)
}

#[test]
fn a_copy_beside_its_original_leaves_the_outside_to_it() {
    let database = Database::create("usher_test_original");
    let (mut client, holder) = with_pending_work(&database);
    let here = &mut client;
    // Calls that leave the database are the original's as well: ready, and for later.
    flow(
        here,
        "tell",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_restore", "when": {"request": "tell"},
            "then": {"call": "public.tell", "effect": "external"}, "set": {"id": "(job.payload ->> 'id')::integer"}
        }),
    );
    enqueue(here, "default", "left", "right", &json!({"action": "tell", "id": 1}));
    run(
        here,
        "SELECT usher.enqueue_sync_job('default', 'left', 'right', '{\"action\": \"tell\", \"id\": 2}', run_at => now() + interval '1 day', unique_key => 'told')",
    );
    let file = format!("{}/usher_test.dump", std::env::temp_dir().display());
    let dumped = program("pg_dump").args(["-Fc", "-f", &file, &database.name]).status().expect("pg_dump runs");
    assert!(dumped.success());
    let copy = Database::create_empty("usher_test_copied");
    let restored =
        program("pg_restore").args(["--exit-on-error", "-j", "2", "-d", &copy.name, &file]).output().expect("pg_restore runs");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let _ = std::fs::remove_file(&file);
    let mut client = copy.connect();
    let there = &mut client;
    let before = text(here, SUMMARY);
    held(there, &before);
    // Two words, and only by those who run the installation.
    assert_eq!(refused(there, "SELECT usher.resume('whatever')").code().code(), "22023");
    assert_eq!(refused(there, "SELECT usher.resume(NULL)").code().code(), "22023");
    role(there, "clients_restore_member", "NOLOGIN");
    run(there, "GRANT usher_member TO clients_restore_member; SET ROLE clients_restore_member");
    assert_eq!(refused(there, "SELECT usher.resume('moved')").code().code(), "42501");
    run(there, "RESET ROLE");
    let said = text(there, "SELECT usher.resume('copy')");
    assert!(said.contains("2 jobs go on, 3 for workers outside are cancelled"), "{said}");
    copy.await_workers();
    settled(there, wait::LONG);
    assert_eq!(number(there, "SELECT count(*) FROM public.b"), 2, "what stays inside the database is done in the copy too");
    assert_eq!(
        text(there, "SELECT status || ': ' || error_message FROM usher.sync_jobs WHERE target_system = 'away'"),
        "cancelled: this database is a copy: the original does it"
    );
    assert_eq!(number(there, "SELECT count(*) FROM usher.sync_jobs WHERE flow = 'tell' AND status = 'cancelled'"), 2);
    assert_eq!(number(there, "SELECT count(*) FROM usher.job_keys"), 0, "the keys are free here");
    assert!(text(there, "SELECT usher.resume('moved')").starts_with("nothing is held"), "said once is enough");
    // What flows stand on is known under its numbers here: a change is seen by its statement.
    run(there, "ALTER TABLE public.b RENAME v TO w");
    assert_eq!(text(there, "SELECT state FROM usher.flows WHERE name = 'copy'"), "broken");
    run(there, "ALTER TABLE public.b RENAME w TO v");
    assert_eq!(text(there, "SELECT state FROM usher.flows WHERE name = 'copy'"), "ok");
    // The original has lost nothing by it. (Its workers went when the copy took its place in usher.databases.)
    drop(holder);
    wait::until_true(here, "SELECT usher.process_jobs() >= 0 AND (SELECT count(*) = 2 FROM public.b)");
    assert_eq!(text(here, "SELECT waiting_for FROM usher.sync_jobs WHERE target_system = 'away'"), "external worker");
    // A clone of the files has the same marks: there the switch holds what leaves the database.
    run(here, &format!("ALTER DATABASE {} SET usher.outbound = off", database.name));
    let mut clone = database.connect();
    assert_eq!(text(&mut clone, "SELECT waiting_for FROM usher.sync_jobs WHERE target_system = 'away'"), "outbound is off");
    assert_eq!(text(&mut clone, "SELECT value FROM usher.status() WHERE section = 'outbound'"), "held");
}

#[test]
fn a_template_copy_waits_to_be_told() {
    let database = Database::create("usher_test_template");
    let (client, holder) = with_pending_work(&database);
    drop((client, holder));
    let mut admin = usher_clients::connect("postgres", None);
    let copy = Database::create_empty("usher_test_template_copy");
    // Workers of the template are sessions in it; create_empty has just taken it out of usher.databases.
    run(&mut admin, &format!("DROP DATABASE {} WITH (FORCE)", copy.name));
    wait::until(wait::LONG, "the template has no sessions", || {
        admin.batch_execute(&format!("CREATE DATABASE {} TEMPLATE {}", copy.name, database.name)).is_ok()
    });
    let mut client = copy.connect();
    let before = text(&mut client, SUMMARY);
    held(&mut client, &before);
    run(&mut client, "SELECT usher.resume('moved')");
    copy.await_workers();
    wait::until_true(&mut client, "SELECT count(*) = 2 FROM public.b");
    assert_eq!(text(&mut client, "SELECT waiting_for FROM usher.sync_jobs WHERE target_system = 'away'"), "external worker");
}

/// A scratch cluster of its own, beside the common one; gone at the end.
struct Cluster(String);

impl Cluster {
    fn new(name: &str) -> Self {
        let cluster = Self(format!("{}-{name}", std::env::var("PGHOST").expect("PGHOST is set by scripts/cluster.sh env")));
        cluster.act(&["destroy"], None);
        cluster
    }

    #[track_caller]
    fn act(&self, arguments: &[&str], pg_config: Option<&str>) {
        server::cluster_in(&self.0, arguments, pg_config);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::panic::catch_unwind(|| self.act(&["destroy"], None));
    }
}

/// The majors from which this one can be upgraded: itself, and an older one with the extension beside it.
fn upgrades() -> Vec<String> {
    let new = std::env::var("USHER_PGBIN").expect("USHER_PGBIN is set by scripts/cluster.sh env");
    let older = std::env::var("USHER_OLD_PGBIN").ok().filter(|bin| !bin.is_empty() && *bin != new);
    std::iter::once(new).chain(older).collect()
}

/// A column option that the old server has written by itself and the new one does not know.
fn foreign_option(old: &mut Client) -> Option<String> {
    let option = text(
        old,
        "SELECT min(split_part(o, '=', 1)) FROM pg_attribute a CROSS JOIN unnest(a.attoptions) AS o WHERE a.attrelid = 'public.a'::regclass",
    );
    let mut new = usher_clients::connect("postgres", None);
    let tried = format!(
        "BEGIN; CREATE TABLE public.option_tried (v integer); ALTER TABLE public.option_tried ALTER COLUMN v SET ({option} = 1); ROLLBACK"
    );
    (!option.is_empty() && new.batch_execute(&tried).is_err()).then_some(option)
}

#[test]
fn pg_upgrade_carries_everything_and_holds_it() {
    for (n, old_bin) in upgrades().into_iter().enumerate() {
        let old = Cluster::new(&format!("o{n}"));
        let new = Cluster::new(&format!("n{n}"));
        let config = format!("{old_bin}/pg_config");
        old.act(&["start"], Some(&config));
        let mut client = connect_to(&old.0, "postgres");
        let here = &mut client;
        run(here, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
        prepare(here);
        run(here, "SELECT usher.install_pack('live_events')");
        run(here, "INSERT INTO public.a VALUES (1, 1)");
        wait::until_true(here, "SELECT count(*) = 1 FROM public.b");
        let mut holder = connect_to(&old.0, "postgres");
        run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
        run(here, "INSERT INTO public.a VALUES (2, 2); UPDATE public.a SET v = 5 WHERE id = 1");
        let before = text(here, SUMMARY);
        assert!(before.contains("pending") && before.contains("synced"), "the test itself: {before}");
        if let Some(option) = foreign_option(here) {
            // Some minor versions write column options of their own, which older minors of the next major do not read: then
            // no table of any application can be upgraded between these two.
            println!(
                "from {old_bin}: these two versions cannot be upgraded into each other, because of the column option {option}"
            );
            continue;
        }
        drop(holder);
        drop(client);
        // The session's end has let the lane go; stopped at once, the worker has not come to the jobs, or has done them.
        old.act(&["stop"], Some(&config));
        new.act(&["upgrade", &old.0, &old_bin], None);
        new.act(&["start"], None);
        let mut client = connect_to(&new.0, "postgres");
        let there = &mut client;
        let waiting = text(there, SUMMARY);
        held(there, &waiting);
        run(there, "SELECT usher.resume('moved')");
        wait::until_true(
            there,
            "SELECT coalesce((SELECT v FROM public.b WHERE id = 1), 0) = 5 AND EXISTS (SELECT FROM public.b WHERE id = 2)",
        );
        // The catalog's numbers may be others: a change is still seen by its statement, and captured by its trigger.
        run(there, "ALTER TABLE public.a RENAME v TO w");
        assert_eq!(text(there, "SELECT state FROM usher.flows WHERE name = 'copy'"), "broken");
        run(there, "ALTER TABLE public.a RENAME w TO v; INSERT INTO public.a VALUES (3, 3)");
        wait::until_true(there, "SELECT EXISTS (SELECT FROM public.b WHERE id = 3)");
        assert_eq!(number(there, "SELECT count(*) FROM usher.flows WHERE pack = 'live_events' AND state = 'broken'"), 0);
        drop(client);
    }
}
