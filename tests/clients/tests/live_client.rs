//! What an application's client calls of the pack live_events: by an admin, a member, a stranger, and with wrong arguments; the page's examples.

use usher_clients::postgrest::Rest;
use usher_clients::{Client, Database, Uuid, Value, json, number, page, refused, role, run, settled, text, value, wait};

const LONG: std::time::Duration = wait::LONG;

/// The pack, organizations north and south, and people of both as database roles.
fn house(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    run(
        here,
        "SELECT usher.install_pack('live_events'); SELECT usher.create_organization('north', 'North', 'Europe/Berlin'), usher.create_organization('south')",
    );
    for (person, slug, right) in [("admin", "north", "admin"), ("member", "north", "member"), ("stranger", "south", "admin")] {
        role(here, &format!("clients_lc_{person}"), "LOGIN");
        run(
            here,
            &format!(
                "GRANT usher_member TO clients_lc_{person}; SELECT usher.grant_membership('{slug}', 'role:clients_lc_{person}', '{right}')"
            ),
        );
    }
    (database, client)
}

fn people(database: &Database) -> [Client; 3] {
    ["admin", "member", "stranger"].map(|person| database.connect_as(&format!("clients_lc_{person}")))
}

/// Everything that the pack's tables and the queue hold, in short: what a refused call must not change.
fn everything(here: &mut Client) -> String {
    settled(here, LONG);
    text(
        here,
        "SELECT md5(string_agg(x::text, '|' ORDER BY x::text)) FROM (
             SELECT to_jsonb(t) AS x FROM atlvs.deals AS t UNION ALL SELECT to_jsonb(t) FROM atlvs.projects AS t UNION ALL SELECT to_jsonb(t) FROM compvss.productions AS t
             UNION ALL SELECT to_jsonb(t) FROM gvteway.events AS t UNION ALL SELECT to_jsonb(t) FROM atlvs.asset_reservations AS t
             UNION ALL SELECT to_jsonb(j) FROM usher.sync_jobs AS j) AS rows",
    )
}

#[track_caller]
fn refusals(client: &mut Client, calls: &[(&str, &str)]) {
    for (sql, code) in calls {
        let error = refused(client, sql);
        assert!(error.code().code() == *code && error.hint().is_some(), "{sql}: {error:?}");
    }
}

/// The stages, a line each.
fn stages(client: &mut Client, deal: Uuid) -> String {
    text(
        client,
        &format!(
            "SELECT string_agg(concat_ws(' ', stage, status, ref IS NOT NULL, detail), ', ' ORDER BY step) FROM live_events.advance_lifecycle('north', '{deal}')"
        ),
    )
}

#[test]
fn a_deal_goes_all_the_way_by_one_call() {
    let (database, mut client) = house("usher_test_live_client");
    let here = &mut client;
    let [mut admin, mut member, mut stranger] = people(&database);
    let north: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]);
    let deal: Uuid = value(
        &mut admin,
        "INSERT INTO atlvs.deals (organization_id, title, status, value, event_date, expected_attendance) VALUES ($1, 'Night', 'inquiry', 900, '2026-08-01', 100) RETURNING id",
        &[&north],
    );
    let before = everything(here);
    let call = format!("SELECT * FROM live_events.advance_lifecycle('north', '{deal}')");
    refusals(&mut member, &[(&call, "42501")]);
    refusals(
        &mut stranger,
        &[(&call, "42501"), (&format!("SELECT * FROM live_events.advance_lifecycle('south', '{deal}')"), "42704")],
    );
    refusals(
        &mut admin,
        &[
            ("SELECT * FROM live_events.advance_lifecycle('nowhere', gen_random_uuid())", "42501"),
            ("SELECT * FROM live_events.advance_lifecycle('north', gen_random_uuid())", "42704"),
            ("SELECT * FROM live_events.advance_lifecycle('north', NULL)", "42704"),
        ],
    );
    assert_eq!(everything(here), before, "what is refused changes nothing");

    // Won, with its project, in the call itself; the rest a moment later.
    let first = stages(&mut admin, deal);
    assert!(first.starts_with("deal synced t won now, was inquiry, project synced t, production "), "{first}");
    settled(here, LONG);
    let whole = "deal synced t, project synced t, production synced t planning, event synced t draft, revenue pending f";
    assert_eq!(stages(&mut admin, deal), whole);
    assert_eq!(stages(&mut admin, deal), whole);
    settled(here, LONG);
    let counts = "SELECT concat_ws(',', (SELECT count(*) FROM atlvs.projects), (SELECT count(*) FROM compvss.productions), (SELECT count(*) FROM gvteway.events))";
    assert_eq!(text(here, counts), "1,1,1", "however often it is called");
    let project: Uuid = value(here, "SELECT id FROM atlvs.projects", &[]);
    let slug = text(here, "SELECT slug FROM gvteway.events");
    run(
        &mut admin,
        &format!(
            "SELECT usher.ingest_ticket_revenue('north', (SELECT code FROM atlvs.projects), '{slug}', 2, 90.50, 'EUR', payload => '{{\"reference\": \"S-1\"}}')"
        ),
    );
    assert_eq!(stages(&mut admin, deal), whole.replace("revenue pending f", "revenue synced f 2 tickets, 90.50 EUR"));

    // How far it is, as every member sees it and nobody else.
    settled(here, LONG);
    let status = format!("SELECT live_events.integration_status('north', '{project}')");
    let seen: Value = value(&mut member, &status, &[]);
    assert_eq!(
        (&seen["status"], &seen["deal"]["status"], &seen["event"]["slug"], &seen["open_jobs"]),
        (&json!("synced"), &json!("won"), &json!(slug), &json!([]))
    );
    assert_eq!(
        seen["links"]
            .as_array()
            .map(|links| links.iter().map(|link| format!("{} {}", link["kind"], link["status"])).collect::<Vec<_>>().join(","))
            .unwrap_or_default(),
        "\"deal\" \"synced\",\"project\" \"synced\",\"event\" \"synced\""
    );
    assert_eq!((&seen["ticket_revenue"][0]["tickets"], &seen["ticket_revenue"][0]["currency"]), (&json!(2), &json!("EUR")));
    refusals(
        &mut stranger,
        &[(&status, "42501"), (&status.replace("'north'", "'south'"), "42704"), (&status.replace("'north'", "NULL"), "22023")],
    );
    refusals(&mut member, &[("SELECT live_events.integration_status('north', NULL)", "42704")]);

    // What has failed is said, and tried again with the next call.
    let lost: Uuid = value(
        &mut admin,
        "INSERT INTO atlvs.deals (organization_id, title, status) VALUES ($1, 'Lost', 'lost') RETURNING id",
        &[&north],
    );
    refusals(&mut admin, &[(&format!("SELECT * FROM live_events.advance_lifecycle('north', '{lost}')"), "55000")]);
    run(here, "ALTER TABLE compvss.productions ADD CONSTRAINT kept_back CHECK (name <> 'Ball')");
    run(
        here,
        "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}') FROM usher.flows WHERE name = 'live_events.create_production_from_project'",
    );
    let ball: Uuid = value(
        &mut admin,
        "INSERT INTO atlvs.deals (organization_id, title, status, value, event_date) VALUES ($1, 'Ball', 'proposal', 900, '2026-09-01') RETURNING id",
        &[&north],
    );
    stages(&mut admin, ball);
    settled(here, LONG);
    let status =
        format!("SELECT live_events.integration_status('north', (SELECT id FROM atlvs.projects WHERE deal_id = '{ball}'))");
    let seen: Value = value(&mut member, &status, &[]);
    assert_eq!(
        (&seen["status"], &seen["production"], &seen["open_jobs"][0]["status"]),
        (&json!("failed"), &Value::Null, &json!("dead")),
        "{seen}"
    );
    run(here, "ALTER TABLE compvss.productions DROP CONSTRAINT kept_back");
    let again = stages(&mut admin, ball);
    assert!(again.contains("production pending f") && again.contains("kept_back"), "{again}");
    settled(here, LONG);
    assert_eq!(stages(&mut admin, ball), whole);

    // A job, followed by its id.
    let job: Uuid = value(
        &mut admin,
        "SELECT id FROM usher.project_to_event('north', $1, '{\"doors_at\": \"2026-08-01T16:00:00Z\"}')",
        &[&project],
    );
    settled(here, LONG);
    let follow = format!("SELECT live_events.sync_job_status('{job}')");
    let stands: Value = value(&mut member, &follow, &[]);
    assert_eq!(
        (&stands["status"], &stands["ended"], &stands["flow"], &stands["attempts"]),
        (&json!("synced"), &json!(true), &json!("live_events.describe_event"), &json!(1))
    );
    refusals(&mut stranger, &[(&follow, "42501")]);
    refusals(
        &mut member,
        &[
            ("SELECT live_events.sync_job_status(NULL)", "42501"),
            ("SELECT live_events.sync_job_status(gen_random_uuid())", "42501"),
        ],
    );
}

#[test]
fn assets_are_found_free_across_all_projects() {
    let (database, mut client) = house("usher_test_live_assets");
    let here = &mut client;
    let [mut admin, mut member, mut stranger] = people(&database);
    run(
        &mut admin,
        "INSERT INTO atlvs.assets (organization_id, tag, name, category, state)
         SELECT o.id, a.tag, a.name, a.category, a.state FROM usher.organizations AS o,
                (VALUES ('V-1', 'Van', 'van', 'available'), ('V-2', 'Van', 'van', 'available'), ('V-3', 'Old van', 'van', 'retired'), ('C-1', 'Crane', 'crane', 'maintenance')) AS a (tag, name, category, state);
         INSERT INTO atlvs.projects (organization_id, id, code, name) SELECT id, '00000000-0000-0000-0000-000000000001', 'P-1', 'Night' FROM usher.organizations;
         INSERT INTO compvss.productions (organization_id, id, project_ref, name) SELECT id, '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000001', 'Night' FROM usher.organizations;
         INSERT INTO compvss.asset_requests (organization_id, production_id, category, period)
         SELECT id, '00000000-0000-0000-0000-000000000002', 'van', '[2026-08-01 08:00Z, 2026-08-02 08:00Z)' FROM usher.organizations",
    );
    settled(here, LONG);
    let free = |from: &str, to: &str, more: &str| {
        format!(
            "SELECT string_agg(concat_ws('|', tag, available, reason, conflicts #>> '{{0,project_code}}', conflicts #>> '{{0,production}}', conflicts #>> '{{0,status}}', alternatives #>> '{{0,tag}}', jsonb_array_length(alternatives)), ', ' ORDER BY tag)
               FROM live_events.asset_availability('north', {from}, {to}{more})"
        )
    };
    let (during, after) =
        (free("'2026-08-01 12:00Z'", "'2026-08-01 13:00Z'", ""), free("'2026-08-02 08:00Z'", "'2026-08-02 09:00Z'", ", 'van'"));
    assert_eq!(
        text(&mut member, &during),
        "C-1|f|in maintenance|0, V-1|f|reserved at that time|P-1|Night|held|V-2|1, V-2|t|0, V-3|f|retired|V-2|1"
    );
    assert_eq!(text(&mut member, &after), "V-1|t|0, V-2|t|0, V-3|f|retired|V-1|2", "it comes back when its time is over");
    let one = free("'2026-08-01 12:00Z'", "'2026-08-01 13:00Z'", ", asset => (SELECT id FROM atlvs.assets WHERE tag = 'V-1')");
    assert_eq!(text(&mut member, &one), "V-1|f|reserved at that time|P-1|Night|held|V-2|1");
    refusals(&mut stranger, &[(&during, "42501"), (&during.replace("'north'", "'nowhere'"), "42501")]);
    assert_eq!(text(&mut stranger, &during.replace("'north'", "'south'")), "", "an organization without assets");
    refusals(
        &mut member,
        &[
            (&free("'2026-08-01 13:00Z'", "'2026-08-01 12:00Z'", ""), "22023"),
            (&free("NULL", "'2026-08-01 12:00Z'", ""), "22023"),
            (&free("'2026-08-01 12:00Z'", "'2026-08-01 13:00Z'", ", asset => gen_random_uuid()"), "42704"),
        ],
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
}

/// Over PostgREST, as a signed-in person; nobody else may call any of it, and no function is PUBLIC's.
#[test]
fn signed_in_people_call_it_and_nobody_else() {
    let (database, mut client) = house("usher_test_live_rest");
    let here = &mut client;
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "authenticated", "NOLOGIN");
    role(here, "anon", "NOLOGIN");
    run(
        here,
        "GRANT usher_member TO authenticated; GRANT authenticated, anon TO authenticator; SELECT usher.grant_membership('north', 'ann', 'admin')",
    );
    run(
        here,
        "INSERT INTO atlvs.deals (organization_id, id, title, status, value, event_date) SELECT id, '00000000-0000-0000-0000-00000000000d', 'Night', 'proposal', 1, '2026-08-01' FROM usher.organizations WHERE slug = 'north'",
    );
    let mut ann = Rest::signed_in(&database, "live_events", "ann");
    let deal = json!({"organization": "north", "deal": "00000000-0000-0000-0000-00000000000d"});
    let stage = ann.rpc("advance_lifecycle", &deal).ok();
    assert_eq!((&stage["stage"], &stage["status"]), (&json!("deal"), &json!("synced")));
    let claims = ann.rpc("claims", &json!({"person": null})).ok();
    assert!(claims.to_string().contains("\"role\":\"admin\""), "{claims}");
    settled(here, LONG);
    let mut guest = Rest::signed_in(&database, "live_events", "a-guest");
    assert_eq!(guest.rpc("advance_lifecycle", &deal).refused(), "42501");
    assert!(
        guest.rpc("claims", &json!({"person": null})).ok().to_string().contains("\"organizations\":[]"),
        "a guest belongs nowhere"
    );
    let mut anon = Rest::anonymous(&database, "live_events");
    assert_eq!(anon.rpc("claims", &json!({"person": null})).refused(), "42501");
    let open = "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc AS p
                 WHERE p.pronamespace IN ('atlvs'::regnamespace, 'compvss'::regnamespace, 'gvteway'::regnamespace, 'live_events'::regnamespace)
                   AND (has_function_privilege('public', p.oid, 'EXECUTE') OR p.prosecdef OR obj_description(p.oid, 'pg_proc') IS NULL OR p.prosqlbody IS NULL AND NOT COALESCE(p.proconfig @> '{\"search_path=pg_catalog, pg_temp\"}', false))";
    assert_eq!(
        text(here, open),
        "",
        "no function of the pack is PUBLIC's, has rights of its own, is without a comment or looks names up elsewhere"
    );
}

/// The pack's page: its examples run, in their order.
#[test]
fn the_page_runs() {
    let (_database, mut client) = house("usher_test_live_page");
    let here = &mut client;
    run(here, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')");
    let blocks = page::blocks("packs/live_events_client.md");
    assert!(!blocks.is_empty());
    for block in blocks {
        settled(here, LONG);
        run(here, &block.sql);
    }
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
    assert_eq!(number(here, "SELECT count(*) FROM gvteway.events"), 1);
}
