//! Several databases: what an administrator does to one of them while workers are connected to it.

use std::time::{Duration, Instant};
use usher_clients::{Client, Database, connect, flow, json, number, refused, reload, role, run, server, settled, text, wait};

const LONG: Duration = Duration::from_secs(60);
/// The server itself waits five seconds for others to leave a database.
const SOON: Duration = Duration::from_secs(4);

fn mirror(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    furnish(&mut client);
    (database, client)
}

fn furnish(client: &mut Client) {
    role(client, "clients_databases", "NOLOGIN");
    run(
        client,
        "CREATE TABLE public.a (id integer PRIMARY KEY);
         CREATE TABLE public.b (id integer NOT NULL);
         CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.id = 13 THEN PERFORM pg_catalog.pg_sleep(30); END IF; RETURN NEW; END $$;
         CREATE TRIGGER take_time BEFORE INSERT ON public.b FOR EACH ROW EXECUTE FUNCTION public.take_time();
         GRANT INSERT ON public.b TO clients_databases",
    );
    flow(
        client,
        "mirror",
        &json!({
            "from": "left", "to": "right", "when": {"change": "public.a", "on": ["insert"]},
            "then": {"insert": "public.b"}, "set": {"id": "new.id"}, "run_as": "clients_databases"
        }),
    );
}

fn workers_in(admin: &mut Client, database: &str) -> i64 {
    number(
        admin,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = '{database}'"),
    )
}

fn listed(admin: &mut Client, list: &str) {
    run(admin, &format!("ALTER SYSTEM SET usher.databases = '{list}'"));
    reload(admin);
}

#[test]
fn a_plain_drop_database_works_while_workers_are_there() {
    let (_, mut client) = mirror("usher_test_dropdb");
    let mut admin = connect("postgres", None);
    run(&mut client, "INSERT INTO public.a VALUES (13)");
    wait::until_true(
        &mut admin,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'usher_test_dropdb' AND wait_event = 'PgSleep')",
    );
    // A person's session is respected, and the workers come back when the command has failed.
    let error = refused(&mut admin, "DROP DATABASE usher_test_dropdb");
    assert!(error.message().contains("is being accessed by other users"), "{}", error.message());
    assert_eq!(error.code().code(), "55006", "the error is the server's own");
    assert_eq!(error.detail(), Some("There is 1 other session using the database."));
    wait::until(LONG, "both workers are back", || workers_in(&mut admin, "usher_test_dropdb") == 2);
    drop(client);
    wait::until(LONG, "the session has gone", || {
        number(
            &mut admin,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'usher_test_dropdb' AND backend_type = 'client backend'",
        ) == 0
    });
    let begin = Instant::now();
    run(&mut admin, "DROP DATABASE usher_test_dropdb");
    assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());

    // Under the same name again: another database, which gets workers at once.
    run(&mut admin, "CREATE DATABASE usher_test_dropdb TEMPLATE template0");
    let mut client = connect("usher_test_dropdb", None);
    run(&mut client, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
    wait::until(LONG, "the new one has workers", || workers_in(&mut admin, "usher_test_dropdb") == 2);
    // FORCE: survived without a storm of processes that find no database.
    let before = std::fs::read_to_string(std::env::var("USHER_LOG").expect("USHER_LOG")).unwrap_or_default().len();
    run(&mut admin, "DROP DATABASE usher_test_dropdb WITH (FORCE)");
    let marker = Instant::now();
    wait::until(LONG, "three seconds have passed", || marker.elapsed() > Duration::from_secs(3));
    let log = std::fs::read_to_string(std::env::var("USHER_LOG").expect("USHER_LOG")).unwrap_or_default();
    let complaints = log[before..].lines().filter(|line| line.contains("does not exist")).count();
    assert!(complaints <= 1, "{complaints} processes looked for a database that is gone:\n{}", &log[before..]);
}

#[test]
fn somebody_who_may_not_drop_it_does_not_stop_its_workers() {
    let (_, mut client) = mirror("usher_test_dropdb2");
    role(&mut client, "clients_visitor", "LOGIN CREATEDB");
    let before = server::workers(&mut client);
    let mut visitor = connect("postgres", Some("clients_visitor"));
    for command in [
        "DROP DATABASE usher_test_dropdb2",
        "ALTER DATABASE usher_test_dropdb2 RENAME TO mine",
        "CREATE DATABASE mine TEMPLATE usher_test_dropdb2",
        "ALTER DATABASE usher_test_dropdb2 SET TABLESPACE pg_default",
    ] {
        assert_eq!(refused(&mut visitor, command).code().code(), "42501", "{command}");
    }
    assert_eq!(server::workers(&mut client), before);
}

#[test]
fn a_renamed_database_has_workers_under_the_names_of_the_list() {
    let (_, client) = mirror("usher_test_rename");
    drop(client);
    let mut admin = connect("postgres", None);
    run(&mut admin, "DROP DATABASE IF EXISTS usher_test_renamed WITH (FORCE)");
    wait::until(LONG, "it can be renamed", || {
        admin.batch_execute("ALTER DATABASE usher_test_rename RENAME TO usher_test_renamed").is_ok()
    });
    assert_eq!(workers_in(&mut admin, "usher_test_renamed"), 0, "the list has the old name only");
    listed(&mut admin, "postgres,usher_test_renamed");
    wait::until(LONG, "the new name is in the list", || workers_in(&mut admin, "usher_test_renamed") == 2);
    let mut client = connect("usher_test_renamed", None);
    run(&mut client, "INSERT INTO public.a VALUES (1)");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.b");
    settled(&mut client, LONG);
    drop(client);
    // Both names in the list: it goes from one to the other.
    listed(&mut admin, "postgres,usher_test_renamed,usher_test_rename");
    wait::until(LONG, "it can be renamed back", || {
        admin.batch_execute("ALTER DATABASE usher_test_renamed RENAME TO usher_test_rename").is_ok()
    });
    wait::until(LONG, "the workers follow", || workers_in(&mut admin, "usher_test_rename") == 2);
    run(&mut admin, "DROP DATABASE usher_test_rename");
}

#[test]
fn a_database_with_workers_is_a_template() {
    let (_, mut client) = mirror("usher_test_template");
    let mut admin = connect("postgres", None);
    run(&mut admin, "DROP DATABASE IF EXISTS usher_test_copied WITH (FORCE)");
    run(&mut client, "INSERT INTO public.a VALUES (1), (13)");
    wait::until_true(
        &mut client,
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')",
    );
    drop(client);
    wait::until(LONG, "it can be copied", || {
        admin.batch_execute("CREATE DATABASE usher_test_copied TEMPLATE usher_test_template").is_ok()
    });
    wait::until(LONG, "the original's workers are back", || workers_in(&mut admin, "usher_test_template") == 2);
    // The copy has the jobs, and holds them until somebody says what it is.
    listed(&mut admin, "postgres,usher_test_template,usher_test_copied");
    let mut copy = connect("usher_test_copied", None);
    assert_eq!(number(&mut copy, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'pending'"), 2);
    run(&mut copy, "ALTER TABLE public.b DISABLE TRIGGER take_time; SELECT usher.resume('copy')");
    wait::until_true(&mut copy, "SELECT count(*) = 2 FROM public.b");
    settled(&mut copy, LONG);
    drop(copy);
    run(&mut admin, "DROP DATABASE usher_test_template");
    run(&mut admin, "DROP DATABASE usher_test_copied WITH (FORCE)");
}

#[test]
fn a_star_finds_the_databases_that_have_the_extension_and_leaves_the_others_alone() {
    let (first, mut client) = mirror("usher_test_star");
    let mut admin = connect("postgres", None);
    // A star means all: those of other tests would take the slots.
    let others = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN ('postgres', 'usher_test_star')";
    for row in admin.query(others, &[]).expect("databases") {
        run(&mut admin, &format!("DROP DATABASE {} WITH (FORCE)", row.get::<_, String>(0)));
    }
    run(&mut admin, "CREATE DATABASE usher_test_star2 TEMPLATE template0");
    listed(&mut admin, "*");
    wait::until(LONG, "the one with the extension has workers", || workers_in(&mut admin, &first.name) == 2);
    run(&mut client, "INSERT INTO public.a VALUES (1)");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.b");

    // Made later, and set up later still.
    run(&mut admin, "CREATE DATABASE usher_test_star3 TEMPLATE template0");
    let mut third = connect("usher_test_star3", None);
    run(&mut third, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
    wait::until(Duration::from_secs(20), "setup() brings the workers", || workers_in(&mut admin, "usher_test_star3") == 2);
    assert_eq!(workers_in(&mut admin, "usher_test_star2"), 0);
    // Somebody who looks connects, and that is counted: the one without the extension is not looked at again.
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'usher_test_star2'";
    // Autovacuum may come by once.
    let (mut before, mut marker) = (number(&mut admin, commits), Instant::now());
    wait::until(2 * LONG, "five seconds in which nobody looks into the database without the extension", || {
        let now = number(&mut admin, commits);
        if now != before {
            (before, marker) = (now, Instant::now());
        }
        marker.elapsed() > Duration::from_secs(5)
    });
    // An extension that is dropped and comes back.
    run(&mut third, "SELECT usher.detach_all(); DROP EXTENSION pg_usher");
    wait::until(2 * LONG, "its workers end", || workers_in(&mut admin, "usher_test_star3") == 0);
    run(&mut third, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
    wait::until(LONG, "and come back", || workers_in(&mut admin, "usher_test_star3") == 2);
    drop(third);
    listed(&mut admin, "postgres");
    wait::until(LONG, "a shorter list", || workers_in(&mut admin, "usher_test_star3") == 0);
    run(&mut admin, "DROP DATABASE usher_test_star2");
    run(&mut admin, "DROP DATABASE usher_test_star3");
}

#[test]
fn without_a_free_process_it_says_so_once_and_starts_when_there_is_one() {
    let (database, mut client) = mirror("usher_test_slots");
    run(&mut client, "ALTER SYSTEM SET max_worker_processes = 3");
    let few = FewProcesses(&database);
    server::cluster(&["restart"]);
    let mut admin = connect("postgres", None);
    let path = std::env::var("USHER_LOG").expect("USHER_LOG");
    let complaints = || {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        // The launcher may be faster than the server's own "ready to accept connections".
        let start = log.rfind("starting PostgreSQL").unwrap_or(0);
        log[start..].matches("no worker process is left").count()
    };
    // The launcher, the logical replication launcher and one more: the rest of those that are wanted find no place.
    wait::until(LONG, "it says that no process is left", || complaints() > 0);
    let marker = Instant::now();
    wait::until(LONG, "it has tried a few times more", || marker.elapsed() > Duration::from_secs(12));
    assert_eq!(complaints(), 1, "one line, not one for each attempt");
    // The one that has its place makes room: both databases wanted two.
    listed(&mut admin, &database.name);
    run(&mut admin, "ALTER SYSTEM SET usher.workers = 1");
    reload(&mut admin);
    wait::until(LONG, "the place is taken by the one that waited", || workers_in(&mut admin, &database.name) == 1);
    let mut client = database.connect();
    run(&mut client, "INSERT INTO public.a VALUES (1)");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.b");
    run(&mut admin, "ALTER SYSTEM RESET usher.workers");
    drop((client, admin));
    drop(few);
    database.await_workers();
}

/// Gives the server its processes back, also when the test has failed: the next ones need them.
struct FewProcesses<'a>(&'a Database);

impl Drop for FewProcesses<'_> {
    fn drop(&mut self) {
        if let Ok(mut admin) = self.0.try_connect() {
            let _ = admin.batch_execute("ALTER SYSTEM RESET max_worker_processes");
        }
        server::cluster(&["restart"]);
    }
}

#[test]
fn idle_workers_do_nothing_but_the_safety_tick() {
    let (database, mut client) = mirror("usher_test_idle");
    run(&mut client, "INSERT INTO public.a VALUES (1)");
    settled(&mut client, LONG);
    let workers = server::workers(&mut client);
    // Switches from one process to another: how often the kernel has woken it.
    let wakes = |pid: &i32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let counted = status
            .lines()
            .filter_map(|line| line.split_once("_ctxt_switches:"))
            .map(|(_, n)| n.trim().parse::<u64>().unwrap_or(0));
        counted.sum()
    };
    // Right after a tick, so that the next one is far.
    let quiet = |client: &mut Client| {
        text(client, "SELECT string_agg(xact_start::text, ',') FROM pg_stat_activity WHERE backend_type = 'usher worker'")
    };
    wait::until(LONG, "nobody is at work", || quiet(&mut client).is_empty());
    drop(client);
    let before: Vec<u64> = workers.iter().map(wakes).collect();
    let marker = Instant::now();
    wait::until(LONG, "twenty seconds have passed", || marker.elapsed() > Duration::from_secs(20));
    let woken: Vec<u64> = workers.iter().zip(&before).map(|(pid, before)| wakes(pid) - before).collect();
    // A tick that falls into the time is one transaction or a few, which is a handful of switches, not one each second.
    assert!(woken.iter().all(|count| *count < 20 * 5), "workers were woken {woken:?} times in twenty seconds of nothing to do");
    assert!(woken.iter().any(|count| *count <= 5), "a worker outside its tick is not woken at all: {woken:?}");
    drop(database);
}
