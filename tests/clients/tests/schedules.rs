//! Flows that a clock starts: one job for each organization and time, whatever happens meanwhile.

use usher_clients::{Client, Database, flow, json, number, role, run, server, text, value, wait};

/// `public.ticks` has a row for every run; it takes doubles.
fn clock(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_clock", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.ticks (organization_id uuid NOT NULL, at timestamptz NOT NULL, flow text);
         GRANT INSERT ON public.ticks TO clients_clock;
         SELECT usher.create_organization('berlin', 'Berlin', 'Europe/Berlin'), usher.create_organization('york', 'York', 'America/New_York');
         -- They were there long before everything that is caught up with.
         UPDATE usher.organizations SET created_at = created_at - interval '1 year'",
    );
    (database, client)
}

fn tick(client: &mut Client, name: &str, when: &usher_clients::Value) {
    flow(
        client,
        name,
        &json!({"run_as": "clients_clock", "when": when, "then": {"insert": "public.ticks"},
                "set": {"at": "job.scheduled_at", "flow": format!("'{name}'")}}),
    );
}

/// As after a time without workers: nothing was looked at since then. The flow is off meanwhile, as no job may be made.
fn away(client: &mut Client, name: &str, since: &str) {
    run(client, &format!("SELECT usher.disable_flow('{name}')"));
    run(
        client,
        &format!(
            "UPDATE usher.flow_schedules s SET handled_until = {since}, next_at = {since} FROM usher.flows f WHERE f.id = s.flow_id AND f.name = '{name}'"
        ),
    );
    run(client, &format!("SELECT usher.enable_flow('{name}')"));
}

const DOUBLES: &str =
    "SELECT count(*) FROM (SELECT FROM public.ticks GROUP BY organization_id, flow, at HAVING count(*) > 1) AS d";

#[test]
fn kills_and_rivals_neither_lose_nor_double_a_run() {
    let (database, mut client) = clock("clients_schedule_kill");
    tick(&mut client, "tick", &json!({"schedule": "every 1 second", "missed": "all"}));
    // The flow woke the worker: the safety tick is a minute away.
    wait::until_true(&mut client, "SELECT count(*) >= 3 FROM public.ticks");
    for round in 0..6 {
        // The process that looks at schedules, and the other one.
        let workers = server::workers(&mut client);
        let pid = if round % 3 == 2 { workers[0] } else { server::worker_of(&mut client, "normal").expect("a worker") };
        client = server::kill_and_recover(&database, &mut client, pid);
        // Operators who do the workers' work at the same time.
        let rivals: Vec<_> = (0..2)
            .map(|_| {
                let mut rival = database.connect();
                std::thread::spawn(move || (0..20).for_each(|_| run(&mut rival, "SELECT usher.process_jobs()")))
            })
            .collect();
        rivals.into_iter().for_each(|rival| rival.join().unwrap());
        let before = number(&mut client, "SELECT count(DISTINCT at) FROM public.ticks");
        wait::until_true(&mut client, &format!("SELECT count(DISTINCT at) > {before} FROM public.ticks"));
    }
    client = server::kill_postmaster(&database);
    let before = number(&mut client, "SELECT count(DISTINCT at) FROM public.ticks");
    wait::until_true(&mut client, &format!("SELECT count(DISTINCT at) > {before} FROM public.ticks"));
    run(&mut client, "SELECT usher.disable_flow('tick')");
    usher_clients::settled(&mut client, wait::LONG);
    assert_eq!(number(&mut client, DOUBLES), 0);
    // Every second between the first and the last, and three organizations in each.
    let gaps = "SELECT count(*) FROM (SELECT generate_series(min(at), max(at), interval '1 second') AS at FROM public.ticks) AS s
                 WHERE (SELECT count(*) FROM public.ticks t WHERE t.at = s.at) <> 3";
    assert_eq!(number(&mut client, gaps), 0, "some second lacks a run, or has too many");
}

#[test]
fn what_was_missed_runs_as_the_flow_says() {
    let (_database, mut client) = clock("clients_schedule_missed");
    // 20 minutes past an hour that is not near: no run comes by itself while the test runs.
    let minute = text(&mut client, "SELECT extract(minute FROM now() + interval '20 minutes')::text");
    for missed in ["skip", "once", "all"] {
        tick(&mut client, missed, &json!({"schedule": format!("{minute} * * * *"), "timezone": "UTC", "missed": missed}));
    }
    tick(&mut client, "many", &json!({"schedule": "every 1 minute", "missed": "all"}));
    wait::until_true(&mut client, "SELECT count(*) = 4 FROM usher.flow_schedules WHERE next_at IS NOT NULL");
    for name in ["skip", "once", "all", "many"] {
        away(&mut client, name, "now() - interval '1 day'");
    }
    let count = |client: &mut Client, name: &str| {
        number(client, &format!("SELECT count(DISTINCT at) FROM public.ticks WHERE flow = '{name}'"))
    };
    wait::until_true(&mut client, "SELECT count(*) = 24 * 3 FROM public.ticks WHERE flow = 'all'");
    wait::until_true(&mut client, "SELECT count(*) = 3 FROM public.ticks WHERE flow = 'once'");
    // A thousand times at most, the newest; one more may have come meanwhile.
    wait::until_true(&mut client, "SELECT count(DISTINCT at) >= 1000 FROM public.ticks WHERE flow = 'many'");
    assert!(count(&mut client, "many") <= 1002);
    assert!(value::<bool>(
        &mut client,
        "SELECT min(at) > now() - interval '17 hours' FROM public.ticks WHERE flow = 'many'",
        &[]
    ));
    assert_eq!(count(&mut client, "skip"), 0);
    let newest =
        "SELECT (SELECT min(at) FROM public.ticks WHERE flow = 'once') = (SELECT max(at) FROM public.ticks WHERE flow = 'all')";
    assert!(value::<bool>(&mut client, newest, &[]));
    // A worker that was gone for a moment only has missed nothing.
    let name = "soon";
    tick(&mut client, name, &json!({"schedule": "every 5 seconds", "missed": "skip"}));
    wait::until_true(&mut client, "SELECT count(DISTINCT at) >= 2 FROM public.ticks WHERE flow = 'soon'");
    assert_eq!(number(&mut client, DOUBLES), 0);
}

#[test]
fn a_clock_that_jumps_repeats_nothing_and_stops_nothing() {
    let (_database, mut client) = clock("clients_schedule_jump");
    tick(&mut client, "tick", &json!({"schedule": "every 1 second", "missed": "all"}));
    wait::until_true(&mut client, "SELECT count(DISTINCT at) >= 4 FROM public.ticks");
    // The clock goes back: times that had their run come again.
    away(&mut client, "tick", "now() - interval '4 seconds'");
    let before = number(&mut client, "SELECT count(DISTINCT at) FROM public.ticks");
    wait::until_true(&mut client, &format!("SELECT count(DISTINCT at) >= {before} + 2 FROM public.ticks"));
    // It was ahead by a day, and is right again.
    away(&mut client, "tick", "now() + interval '1 day'");
    let before = number(&mut client, "SELECT count(DISTINCT at) FROM public.ticks");
    wait::until_true(&mut client, &format!("SELECT count(DISTINCT at) >= {before} + 2 FROM public.ticks"));
    assert_eq!(number(&mut client, DOUBLES), 0);
}

#[test]
fn off_broken_or_in_a_copy_nothing_runs() {
    let (database, mut client) = clock("clients_schedule_off");
    tick(&mut client, "tick", &json!({"schedule": "every 1 second", "missed": "skip"}));
    tick(&mut client, "other", &json!({"schedule": "every 1 second", "missed": "skip"}));
    let go_on = |client: &mut Client, flow: &str| {
        let before = number(client, &format!("SELECT count(*) FROM public.ticks WHERE flow = '{flow}'"));
        wait::until_true(client, &format!("SELECT count(*) >= {before} + 6 FROM public.ticks WHERE flow = '{flow}'"));
    };
    go_on(&mut client, "tick");
    // Off: the other one shows that time passes.
    run(&mut client, "SELECT usher.disable_flow('tick')");
    usher_clients::wait::until_true(&mut client, "SELECT next_run IS NULL FROM usher.schedules WHERE flow = 'tick'");
    go_on(&mut client, "other");
    let off = number(
        &mut client,
        "SELECT count(*) FROM usher.schedule_runs r JOIN usher.flows f ON f.id = r.flow_id WHERE f.name = 'tick'",
    );
    go_on(&mut client, "other");
    let runs = "SELECT count(*) FROM usher.schedule_runs r JOIN usher.flows f ON f.id = r.flow_id WHERE f.name = 'tick'";
    assert_eq!(number(&mut client, runs), off);
    assert_eq!(number(&mut client, "SELECT count(*) FROM usher.queue_waiting"), 0, "no backlog");
    run(&mut client, "SELECT usher.enable_flow('tick')");
    go_on(&mut client, "tick");
    // Broken: the table lost a column that only this flow writes.
    run(
        &mut client,
        "CREATE TABLE public.gone (organization_id uuid, at timestamptz, n integer); GRANT INSERT ON public.gone TO clients_clock",
    );
    flow(
        &mut client,
        "tick",
        &json!({"run_as": "clients_clock", "when": {"schedule": "every 1 second", "missed": "skip"},
                "then": {"insert": "public.gone"}, "set": {"at": "job.scheduled_at"}}),
    );
    wait::until_true(&mut client, "SELECT count(*) >= 3 FROM public.gone");
    run(&mut client, "ALTER TABLE public.gone DROP COLUMN at");
    wait::until_true(&mut client, "SELECT state = 'broken' FROM usher.schedules WHERE flow = 'tick'");
    go_on(&mut client, "other");
    let broken = number(&mut client, runs);
    go_on(&mut client, "other");
    assert_eq!(number(&mut client, runs), broken);
    // A copy: its tables say that they are at home elsewhere. The worker ends, nothing is made, also by hand.
    run(&mut client, "UPDATE usher.installation SET database = 1; UPDATE usher.flows SET updated_at = now()");
    wait::until(wait::LONG, "the worker has ended", || server::worker_of(&mut client, "normal").is_none());
    let all = number(&mut client, "SELECT count(*) FROM usher.schedule_runs");
    let mut fresh = database.connect();
    assert_eq!(usher_clients::refused(&mut fresh, "SELECT usher.process_jobs()").code().code(), "55000");
    wait::until_true(&mut fresh, "SELECT max(scheduled_at) < now() - interval '3 seconds' FROM usher.schedule_runs");
    assert_eq!(number(&mut fresh, "SELECT count(*) FROM usher.schedule_runs"), all);
    run(&mut fresh, "SELECT usher.resume('moved')");
    database.await_workers();
    go_on(&mut fresh, "other");
}

#[test]
fn each_organization_has_its_own_midnight() {
    let (_database, mut client) = clock("clients_schedule_zones");
    let wanted = "SELECT count(*) FROM usher.schedules s
                   WHERE flow = 'midnight' AND (next_run AT TIME ZONE timezone)::time = '00:00' AND next_run > now() AND next_run <= now() + interval '25 hours'";
    tick(&mut client, "midnight", &json!({"schedule": "@daily"}));
    wait::until_true(&mut client, &format!("SELECT ({wanted}) = 3"));
    // A new organization brings its zone, before the next safety tick.
    run(&mut client, "SELECT usher.create_organization('howe', 'Lord Howe', 'Australia/Lord_Howe')");
    wait::until_true(&mut client, &format!("SELECT ({wanted}) = 4"));
    // Time passes for one zone alone: only its organizations have a run.
    run(&mut client, "SELECT usher.disable_flow('midnight')");
    run(
        &mut client,
        "UPDATE usher.flow_schedules SET handled_until = now() - interval '1 day', next_at = now() - interval '1 day' WHERE timezone = 'Europe/Berlin'",
    );
    run(&mut client, "SELECT usher.enable_flow('midnight')");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM public.ticks");
    let whose = "SELECT o.slug || ' ' || (t.at AT TIME ZONE 'Europe/Berlin')::time FROM public.ticks t JOIN usher.organizations o ON o.id = t.organization_id";
    assert_eq!(text(&mut client, whose), "berlin 00:00:00");
    assert_eq!(text(&mut client, "SELECT last_status FROM usher.schedules WHERE timezone = 'Europe/Berlin'"), "synced");
    // For one organization alone.
    flow(
        &mut client,
        "york",
        &json!({"run_as": "clients_clock", "when": {"schedule": "every 1 second"}, "organization": "'york'",
                "then": {"insert": "public.ticks"}, "set": {"at": "job.scheduled_at", "flow": "'york'"}}),
    );
    wait::until_true(&mut client, "SELECT count(*) >= 2 FROM public.ticks WHERE flow = 'york'");
    let others = "SELECT count(*) FROM public.ticks t JOIN usher.organizations o ON o.id = t.organization_id WHERE t.flow = 'york' AND o.slug <> 'york'";
    assert_eq!(number(&mut client, others), 0);
}

#[test]
fn an_organization_that_switched_it_off_has_no_runs() {
    let (_database, mut client) = clock("clients_schedule_switch");
    let here = &mut client;
    tick(here, "tick", &json!({"schedule": "every 1 second", "missed": "skip"}));
    let runs = |slug: &str, since: &str| {
        format!(
            "SELECT count(*) FROM public.ticks t JOIN usher.organizations o ON o.id = t.organization_id
              WHERE o.slug = '{slug}' AND t.at > COALESCE({since}, '-infinity')"
        )
    };
    let some = |slug: &str, since: &str, least: i32| format!("SELECT ({}) >= {least}", runs(slug, since));
    wait::until_true(here, &some("berlin", "NULL::timestamptz", 1));
    run(here, "SELECT usher.switch_flow('tick', 'berlin', false)");
    // What was made at that moment may still run.
    let off = "(SELECT switched_off_at + interval '1 second' FROM usher.flow_switches)";
    wait::until_true(here, &some("york", off, 3));
    assert_eq!(number(here, &runs("berlin", off)), 0);
    run(here, "SELECT usher.switch_flow('tick', 'berlin', true)");
    let on = "(SELECT max(e.recorded_at) FROM usher.audit_log e WHERE e.action = 'usher.flows.switched_on')";
    wait::until_true(here, &some("berlin", on, 1));
}

/// The zones of the server itself, against its own arithmetic: every minute of a year whose clock shows the schedule's time.
#[test]
fn a_year_of_the_servers_own_zones() {
    let (_database, mut client) = clock("clients_schedule_year");
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns"] {
        for (schedule, minute, hour) in [("30 2 * * *", 30, Some(2)), ("15 1 * * *", 15, Some(1)), ("45 * * * *", 45, None)] {
            // A time that the clock shows twice counts the first time; one that it leaps over, at the leap.
            let sql = format!(
                "WITH minutes AS (
                     SELECT m, m AT TIME ZONE '{zone}' AS local, (m - interval '1 minute') AT TIME ZONE '{zone}' AS before
                       FROM generate_series('2025-12-31 00:00+00'::timestamptz, '2026-12-31 23:59+00', interval '1 minute') AS m),
                 shown AS (
                     SELECT min(m) AS at
                       FROM minutes CROSS JOIN LATERAL generate_series(LEAST(before + interval '1 minute', local), local, interval '1 minute') AS l
                      WHERE extract(minute FROM l) = {minute} AND ({hour} < 0 OR extract(hour FROM l) = {hour}) GROUP BY l),
                 expected AS (SELECT DISTINCT at FROM shown WHERE at >= '2026-01-02 00:00+00' AND at < '2026-12-01 00:00+00'),
                 got AS (SELECT at FROM generate_series(0, 11) AS n, LATERAL usher.next_runs('{schedule}', '{zone}',
                                '2026-01-01 23:59:59+00'::timestamptz + n * interval '31 days', 1000) AS at
                          WHERE at < '2026-01-01 23:59:59+00'::timestamptz + (n + 1) * interval '31 days' AND at < '2026-12-01 00:00+00')
                 SELECT (SELECT count(*) FROM (TABLE expected EXCEPT TABLE got) AS a) + (SELECT count(*) FROM (TABLE got EXCEPT TABLE expected) AS b)
                        + CASE WHEN (SELECT count(*) FROM got) > 300 THEN 0 ELSE 1000 END",
                hour = hour.unwrap_or(-1)
            );
            assert_eq!(number(&mut client, &sql), 0, "{schedule} in {zone}");
        }
    }
}
