//! What can be seen from outside: metrics, who pins the horizon, how much work there is, what a worker is at.

use std::collections::BTreeMap;
use std::time::Duration;
use usher_clients::{Client, Database, connect, flow, json, number, refused, role, run, settled, text, wait};

const LONG: Duration = Duration::from_secs(60);

fn mirror(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_watched", "NOLOGIN");
    run(
        &mut client,
        "CREATE TABLE public.a (id integer PRIMARY KEY);
         CREATE TABLE public.b (id integer NOT NULL CHECK (id > 0));
         CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.id = 13 THEN PERFORM pg_catalog.pg_sleep(60); END IF; RETURN NEW; END $$;
         CREATE TRIGGER take_time BEFORE INSERT ON public.b FOR EACH ROW EXECUTE FUNCTION public.take_time();
         GRANT INSERT ON public.b TO clients_watched",
    );
    flow(
        &mut client,
        "mirror",
        &json!({
            "from": "left", "to": "right", "when": {"change": "public.a", "on": ["insert"]}, "retry": {"delays": []},
            "then": {"insert": "public.b"}, "set": {"id": "new.id"}, "run_as": "clients_watched"
        }),
    );
    (database, client)
}

/// A sample's name with its labels, in the order in which they stand there.
type Sample = (String, Vec<(String, String)>);

/// Reads the exposition format and panics at whatever it does not allow: HELP, then TYPE, then the family's samples and
/// nothing else; every family once; names of counters end in _total; labels escaped; no sample twice.
fn parse(text: &str) -> BTreeMap<Sample, f64> {
    assert!(text.ends_with('\n'), "the last line ends too");
    let named = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .enumerate()
                .all(|(at, c)| c == '_' || c == ':' || c.is_ascii_alphabetic() || at > 0 && c.is_ascii_digit())
    };
    let mut samples = BTreeMap::new();
    let mut seen: Vec<String> = Vec::new();
    let (mut help, mut family) = (String::new(), (String::new(), String::new()));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a help text");
            assert!(named(name) && !words.is_empty(), "{line}");
            assert!(!seen.iter().any(|known| known == name), "{name} comes twice");
            seen.push(name.to_owned());
            help = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, help, "TYPE follows the HELP of the same family");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = (name.to_owned(), kind.to_owned());
        } else {
            let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("neither labels nor value: {line}"));
            let name = &line[..end];
            assert_eq!(name, family.0, "a sample stands under its family");
            let mut rest = &line[end..];
            let mut labels = Vec::new();
            if rest.starts_with('{') {
                rest = &rest[1..];
                loop {
                    let (label, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("a label: {line}"));
                    assert!(named(label) && !label.contains(':'), "{line}");
                    let mut text = String::new();
                    let mut characters = value.char_indices();
                    let close = loop {
                        match characters.next().unwrap_or_else(|| panic!("an open quote: {line}")) {
                            (at, '"') => break at,
                            (_, '\\') => match characters.next().map(|(_, c)| c) {
                                Some('n') => text.push('\n'),
                                Some(c @ ('\\' | '"')) => text.push(c),
                                other => panic!("escape {other:?}: {line}"),
                            },
                            (_, c) => text.push(c),
                        }
                    };
                    labels.push((label.to_owned(), text));
                    rest = &value[close + 1..];
                    match rest.as_bytes()[0] {
                        b',' => rest = &rest[1..],
                        b'}' => break,
                        other => panic!("{other} after a label: {line}"),
                    }
                }
                rest = &rest[1..];
            }
            let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("a space before the value: {line}"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
            assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
    }
    samples
}

fn scrape(client: &mut Client) -> (String, BTreeMap<Sample, f64>) {
    let said = text(client, "SELECT usher.metrics()");
    let samples = parse(&said);
    (said, samples)
}

fn value(samples: &BTreeMap<Sample, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    *samples.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn metrics_are_as_prometheus_wants_them_and_count_what_happened() {
    let (database, mut client) = mirror("usher_test_metrics");
    let normal = [("lane", "normal")];
    let (first, before) = scrape(&mut client);
    assert_eq!(value(&before, "usher_worker_up", &normal), 1.0);
    assert_eq!(value(&before, "usher_worker_up", &[("lane", "emergency")]), 1.0);
    assert_eq!(value(&before, "usher_home", &[]), 1.0);
    // 30 that are done, 2 that fail for good.
    run(&mut client, "INSERT INTO public.a SELECT n FROM generate_series(-1, 31) AS n WHERE n NOT IN (13)");
    settled(&mut client, LONG);
    wait::until(LONG, "the batch is counted", || {
        value(&scrape(&mut client).1, "usher_jobs_done_total", &normal) - value(&before, "usher_jobs_done_total", &normal) == 30.0
    });
    let (second, after) = scrape(&mut client);
    let grown = |name: &str| value(&after, name, &normal) - value(&before, name, &normal);
    assert_eq!(grown("usher_jobs_dead_total"), 2.0);
    assert_eq!(grown("usher_job_failures_total"), 2.0);
    assert!(grown("usher_batches_total") >= 1.0);
    assert!(grown("usher_busy_seconds_total") > 0.0);
    assert!(value(&after, "usher_jobs_last_minute", &normal) >= 30.0);
    assert_eq!(value(&after, "usher_flow_dead_letters", &[("flow", "mirror")]), 2.0);
    assert_eq!(value(&after, "usher_flows", &[("state", "on")]), 1.0);
    assert!(value(&after, "usher_history_bytes", &[]) > 0.0);
    // The order of names does not change from one time to the next.
    let names = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect::<Vec<_>>();
    let known = names(&first);
    assert!(names(&second).iter().filter(|name| known.contains(name)).eq(known.iter()));

    // Depth and age of what is there but not done, and of what waits.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
    run(&mut client, "INSERT INTO public.a SELECT generate_series(101, 107)");
    wait::until(LONG, "the oldest is a second old", || {
        let samples = scrape(&mut client).1;
        assert_eq!(value(&samples, "usher_jobs_ready", &normal), 7.0);
        assert_eq!(value(&samples, "usher_flow_jobs_ready", &[("flow", "mirror")]), 7.0);
        value(&samples, "usher_oldest_ready_seconds", &normal) > 1.0
    });
    run(&mut client, "SELECT usher.disable_flow('mirror')");
    run(&mut holder, "COMMIT");
    wait::until(LONG, "they wait for their flow", || {
        scrape(&mut client).1.get(&("usher_jobs_waiting".to_owned(), vec![("reason".to_owned(), "flow disabled".to_owned())]))
            == Some(&7.0)
    });
    assert_eq!(value(&scrape(&mut client).1, "usher_flows", &[("state", "off")]), 1.0);

    // Flows beyond the first hundred share a line: a monitor is not flooded.
    run(
        &mut client,
        "DO $$ BEGIN FOR n IN 1..130 LOOP
            PERFORM usher.create_flow('many.f' || n, jsonb_build_object('from', 'left', 'to', 'right', 'when', jsonb_build_object('request', 'r' || n),
                'then', '{\"insert\": \"public.b\"}'::jsonb, 'set', '{\"id\": \"1\"}'::jsonb, 'run_as', 'clients_watched'));
         END LOOP; END $$",
    );
    let samples = scrape(&mut client).1;
    assert_eq!(samples.keys().filter(|(name, _)| name == "usher_flow_jobs_waiting").count(), 101);
    assert_eq!(value(&samples, "usher_flow_jobs_waiting", &[("flow", "mirror")]), 7.0, "those with jobs come first");

    // Not for everybody.
    role(&mut client, "clients_reader", "LOGIN");
    role(&mut client, "clients_nobody", "LOGIN");
    run(&mut client, "GRANT usher_reader TO clients_reader; GRANT usher_member TO clients_nobody");
    let mut reader = database.connect_as("clients_reader");
    assert!(!scrape(&mut reader).1.is_empty());
    let mut nobody = database.connect_as("clients_nobody");
    assert_eq!(refused(&mut nobody, "SELECT usher.metrics()").code().code(), "42501");
    assert_eq!(refused(&mut nobody, "SELECT * FROM usher.horizon()").code().code(), "42501");
}

#[test]
fn whoever_pins_the_horizon_is_named() {
    let (database, mut client) = mirror("usher_test_horizon");
    // Slots are the server's: an earlier run that failed may have left it.
    run(&mut client, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'usher_horizon'");
    // A worker that looks at something at that moment pins it too, and is rightly named.
    let rows = "SELECT coalesce(string_agg(kind, ',' ORDER BY kind), '') FROM usher.horizon() WHERE kind <> 'session' OR name LIKE '%usher-clients%'";
    assert_eq!(text(&mut client, rows), "");
    let mut old = database.connect();
    run(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'secret' FROM public.a");
    let mut prepared = database.connect();
    run(&mut prepared, "BEGIN; INSERT INTO public.a VALUES (1); PREPARE TRANSACTION 'usher_horizon'");
    run(&mut client, "SELECT pg_create_physical_replication_slot('usher_horizon', true)");
    for id in 2..12 {
        run(&mut client, &format!("INSERT INTO public.a VALUES ({id})"));
    }
    wait::until_true(&mut client, "SELECT count(*) = 10 FROM public.b");
    assert_eq!(text(&mut client, rows), "prepared transaction,session");
    let pid = text(&mut old, "SELECT pg_backend_pid()::text");
    assert_eq!(
        text(
            &mut client,
            &format!(
                "SELECT concat_ws(' ', pid, query, age_transactions >= 10, age > interval '0') FROM usher.horizon() WHERE kind = 'session' AND pid = {pid}"
            )
        ),
        format!("{pid} SELECT pg_backend_pid()::text t t")
    );
    assert_eq!(text(&mut client, "SELECT name FROM usher.horizon() WHERE kind = 'prepared transaction'"), "usher_horizon");
    let samples = scrape(&mut client).1;
    assert!(value(&samples, "usher_horizon_age_transactions", &[]) >= 10.0);
    assert!(value(&samples, "usher_horizon_age_seconds", &[]) > 0.0);

    // A reader sees who, not what: that is for those who may read statistics.
    role(&mut client, "clients_reader", "LOGIN");
    run(&mut client, "GRANT usher_reader TO clients_reader");
    let mut reader = database.connect_as("clients_reader");
    assert_eq!(
        text(
            &mut reader,
            &format!("SELECT concat_ws(' ', pid, query IS NULL) FROM usher.horizon() WHERE kind = 'session' AND pid = {pid}")
        ),
        format!("{pid} t")
    );
    run(&mut client, "GRANT pg_read_all_stats TO clients_reader");
    assert_eq!(
        text(
            &mut reader,
            &format!("SELECT (query IS NOT NULL)::text FROM usher.horizon() WHERE kind = 'session' AND pid = {pid}")
        ),
        "true"
    );
    run(&mut client, "REVOKE pg_read_all_stats FROM clients_reader");

    run(&mut old, "COMMIT");
    run(&mut client, "ROLLBACK PREPARED 'usher_horizon'");
    run(&mut client, "SELECT pg_drop_replication_slot('usher_horizon')");
    assert_eq!(text(&mut client, rows), "");
}

#[test]
fn the_overview_counts_by_lane_flow_and_organization_and_shows_members_their_own() {
    let (database, mut client) = mirror("usher_test_overview");
    for name in ["clients_of_one", "clients_of_two"] {
        role(&mut client, name, "LOGIN");
        run(&mut client, &format!("GRANT usher_member TO {name}"));
    }
    run(
        &mut client,
        "SELECT usher.create_organization('one', 'One'), usher.create_organization('two', 'Two');
         SELECT usher.grant_membership('one', 'role:clients_of_one', 'member'), usher.grant_membership('two', 'role:clients_of_two', 'member')",
    );
    flow(
        &mut client,
        "ask",
        &json!({
            "from": "left", "to": "right", "when": {"request": "ask"}, "retry": {"delays": [3600]},
            "then": {"insert": "public.b"}, "set": {"id": "(job.payload->>'id')::integer"}, "run_as": "clients_watched"
        }),
    );
    let ask = |client: &mut Client, organization: &str, id: i32, priority: &str| {
        let sql = format!(
            "SELECT usher.enqueue_sync_job('{organization}', 'left', 'right', '{{\"action\": \"ask\", \"id\": {id}}}', priority => '{priority}')"
        );
        run(client, &sql);
    };
    // Done, failed for good, to be tried again, and ready.
    for _ in 0..10 {
        ask(&mut client, "one", 1, "high");
    }
    ask(&mut client, "one", -1, "high");
    wait::until_true(&mut client, "SELECT count(*) = 10 FROM public.b");
    wait::until_true(&mut client, "SELECT count(*) = 1 FROM usher.queue_waiting WHERE waiting_for = 'retry'");
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT usher.hold_lane('low')");
    for _ in 0..3 {
        ask(&mut client, "two", 1, "low");
    }
    let lines = "SELECT string_agg(concat_ws(' ', lane, flow, organization, ready, in_flight, oldest IS NOT NULL, waiting, waiting_for, dead, rate_per_minute), '; ' ORDER BY lane) FROM usher.queue";
    let (one, two) = ("high ask one 0 0 f 1 {\"retry\": 1} 0 2", "low ask two 3 0 t 0 0 0");
    assert_eq!(text(&mut client, lines), format!("{one}; {two}"));
    let mut member = database.connect_as("clients_of_one");
    assert_eq!(text(&mut member, lines), one);
    let mut member = database.connect_as("clients_of_two");
    assert_eq!(text(&mut member, lines), two);

    // What a worker has in hand, and what it is at.
    run(&mut client, "INSERT INTO public.a VALUES (13), (14)");
    wait::until_true(&mut client, "SELECT sum(in_flight) = 2 FROM usher.queue WHERE flow = 'mirror'");
    let at = "SELECT query || ' ' || application_name FROM pg_stat_activity
               WHERE datname = current_database() AND backend_type = 'usher worker' AND state = 'active'";
    assert_eq!(text(&mut client, at), "working: lane normal, flow mirror, 2 jobs pg_usher");
    run(&mut holder, "COMMIT");
    let mut admin = connect("postgres", None);
    run(&mut admin, "DROP DATABASE IF EXISTS usher_test_overview WITH (FORCE)");
    assert_eq!(number(&mut admin, "SELECT count(*) FROM pg_database WHERE datname = 'usher_test_overview'"), 0);
}
