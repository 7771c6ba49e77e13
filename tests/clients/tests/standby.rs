//! A hot standby does nothing; promoted, it does what was pending, once.

use std::time::{Duration, Instant};
use usher_clients::{Database, SqlState, connect_to, flow, json, number, role, run, server::Standby, text, wait};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_promoted_standby_does_pending_jobs_once() {
    let database = Database::create("usher_test_standby");
    let mut client = database.connect();
    role(&mut client, "clients_standby", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (id integer PRIMARY KEY);
         CREATE TABLE public.b (id integer NOT NULL, by integer NOT NULL DEFAULT pg_backend_pid());
         GRANT INSERT ON public.b TO clients_standby",
    );
    flow(
        &mut client,
        "mirror",
        &json!({
            "from": "left", "to": "right", "when": {"change": "public.a", "on": ["insert"]},
            "then": {"insert": "public.b"}, "set": {"id": "new.id"}, "run_as": "clients_standby"
        }),
    );
    run(&mut client, "INSERT INTO public.a SELECT generate_series(1, 20)");
    wait::until_true(&mut client, "SELECT count(*) = 20 FROM public.b");

    let standby = Standby::start();
    let mut there = connect_to(standby.home(), &database.name);
    assert_eq!(text(&mut there, "SELECT pg_is_in_recovery()::text"), "true");
    // Pending on both: the primary's worker is kept from them.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(&mut client, "INSERT INTO public.a SELECT generate_series(21, 500)");
    // What replays a new partition may end a reader that stands in its way (40P01): whoever reads a standby asks again.
    let pending = "SELECT count(*) FROM usher.sync_jobs WHERE status = 'pending'";
    wait::until(LONG, "the standby shows 480 pending jobs", || match there.query_one(pending, &[]) {
        Ok(row) => row.get::<_, i64>(0) == 480,
        Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => false,
        Err(error) => panic!("{}", wait::describe(&error)),
    });

    // Nothing of ours runs there, and nothing is written into its log.
    let before = standby.log();
    let marker = Instant::now();
    wait::until(LONG, "three seconds have passed", || marker.elapsed() > Duration::from_secs(3));
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'usher%'";
    assert_eq!(number(&mut there, ours), 0);
    assert_eq!(standby.log()[before.len()..].lines().filter(|line| line.contains("usher")).count(), 0);
    assert_eq!(
        text(&mut there, "SELECT finding FROM usher.doctor() WHERE \"check\" = 'workers'"),
        "none on a standby; they start when it is promoted"
    );
    assert!(text(&mut there, "SELECT usher.metrics()").contains("usher_jobs_ready{lane=\"normal\"} 480\n"));

    run(&mut there, "SELECT pg_promote()");
    wait::until_true(&mut there, "SELECT count(*) = 500 FROM public.b");
    assert_eq!(number(&mut there, "SELECT count(DISTINCT id) FROM public.b"), 500, "each once");
    assert_eq!(number(&mut there, "SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced'"), 500);
    // From here on as any other.
    run(&mut there, "INSERT INTO public.a SELECT generate_series(501, 520)");
    wait::until_true(&mut there, "SELECT count(*) = 520 FROM public.b");
    assert_eq!(number(&mut client, "SELECT count(*) FROM public.b"), 20, "the old primary was kept from it");
    run(&mut holder, "ROLLBACK");
}
