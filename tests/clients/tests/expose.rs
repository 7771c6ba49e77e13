//! A client that knows nothing but the seeds' names, through PostgREST's way of asking.

use usher_clients::postgrest::{Answer, Rest};
use usher_clients::server::copy_database;
use usher_clients::{Client, Database, SqlState, Uuid, Value, json, number, refused, role, run, settled, text, value, wait};

const LONG: std::time::Duration = wait::LONG;

/// Organizations north and south, each with an admin and a member by their tokens; the pack; the names in `public`.
fn house(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "authenticated", "NOLOGIN");
    role(here, "anon", "NOLOGIN");
    run(here, "GRANT usher_member TO authenticated; GRANT authenticated, anon TO authenticator");
    run(here, "SELECT usher.install_pack('live_events'); SELECT usher.expose_api()");
    for organization in ["north", "south"] {
        value::<Uuid>(here, "SELECT usher.create_organization($1)", &[&organization]);
        for right in ["admin", "member"] {
            run(here, &format!("SELECT usher.grant_membership('{organization}', '{right}-{organization}', '{right}')"));
        }
    }
    (database, client)
}

fn id_of(client: &mut Client, organization: &str) -> Uuid {
    value(client, "SELECT id FROM usher.organizations WHERE slug = $1", &[&organization])
}

fn rows(answer: Answer) -> Vec<Value> {
    answer.ok().as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn one(answer: Answer) -> Value {
    let rows = rows(answer);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].clone()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[test]
fn a_deal_goes_all_the_way_under_the_seeds_names() {
    let (database, mut client) = house("usher_test_expose");
    let north = id_of(&mut client, "north").to_string();
    let mut admin = Rest::signed_in(&database, "public", "admin-north");
    let mut sales = Rest::signed_in(&database, "atlvs", "admin-north");

    // A deal that is not won is refused; won, it has its project.
    let offer = json!({"organization_id": north, "title": "Summer Night", "status": "proposal", "value": 48000, "event_date": "2026-08-01",
                       "venue_name": "Tempodrom", "venue_timezone": "Europe/Berlin", "expected_attendance": 3000});
    let deal = word(&one(sales.insert("deals", &offer))["id"]).to_owned();
    let ask = json!({"p_deal_id": deal, "p_org_slug": "north"});
    let early = admin.rpc("rpc_deal_to_project", &ask);
    assert!(early.status == 400 && word(&early.body["hint"]).contains("won"), "{early:?}");
    one(sales.update("deals", &[("id", &deal)], &json!({"status": "won"})));
    let link = one(admin.get("integration_deal_links", &[("organization_id", &north), ("deal_id", &deal)], ""));
    assert_eq!(link["status"], "synced");
    let project = word(&link["project_id"]).to_owned();
    // One object, the same each time.
    for _ in 0..2 {
        assert_eq!(admin.rpc("rpc_deal_to_project", &ask).ok(), link);
    }

    // The event: asked for as soon as the production is there, its job followed to the end.
    let event = json!({"p_project_id": project, "p_org_slug": "north", "p_event_data": {"doors_at": "2026-08-01T16:00:00Z", "metadata": {"hall": 2}}});
    let job = wait::poll(LONG, || {
        let answer = admin.rpc("rpc_project_to_event", &event);
        let not_yet = answer.status == 400 && word(&answer.body["message"]).contains("no production yet");
        (!not_yet).then_some(answer)
    });
    let job = job.unwrap_or_else(|| panic!("there is no production\n{}", wait::jobs(&mut client))).ok();
    assert_eq!(
        (word(&job["source_system"]), word(&job["target_system"]), word(&job["status"])),
        ("compvss", "gvteway", "pending")
    );
    let id = word(&job["id"]).to_owned();
    let status = |admin: &mut Rest| word(&one(admin.get("integration_sync_jobs", &[("id", &id)], ""))["status"]).to_owned();
    wait::until(LONG, "the job is synced", || status(&mut admin) == "synced");
    let mut guests = Rest::signed_in(&database, "gvteway", "member-north");
    let seen = one(guests.get("events", &[], ""));
    assert_eq!((word(&seen["title"]), &seen["metadata"]), ("Summer Night", &json!({"hall": 2})));
    assert_eq!(text(&mut client, "SELECT doors_at AT TIME ZONE 'UTC' || '' FROM gvteway.events"), "2026-08-01 16:00:00");
    let linked = one(admin.get("integration_event_links", &[("project_id", &project)], ""));
    assert_eq!(linked["gvteway_event_id"], seen["id"]);
    assert_eq!(one(admin.get("integration_project_links", &[("project_id", &project)], ""))["status"], "synced");

    // A job of one's own choosing, by the old RPC.
    let asked = json!({"p_org_slug": "north", "p_source_system": "compvss", "p_target_system": "gvteway",
                       "p_payload": {"action": "create_event", "production_id": seen["production_ref"]}});
    assert_eq!(admin.rpc("rpc_enqueue_sync_job", &asked).ok()["organization_id"], json!(north));

    // Revenue, twice the same sale.
    let code = text(&mut client, "SELECT code FROM atlvs.projects");
    let sale = json!({"p_org_slug": "north", "p_project_code": code, "p_event_code": seen["slug"], "p_ticket_count": 2,
                      "p_gross_amount": 90.50, "p_currency": "EUR", "p_payload": {"reference": "S-1"}});
    let first = admin.rpc("rpc_ingest_ticket_revenue", &sale).ok();
    assert_eq!(
        (&first["project_id"], &first["ticket_count"], word(&first["ingestion_source"])),
        (&json!(project), &json!(2), "gvteway")
    );
    assert_eq!(admin.rpc("rpc_ingest_ticket_revenue", &sale).ok(), first, "the same sale again is the same row");
    assert_eq!(one(admin.get("ticket_revenue_ingestions", &[("organization_id", &north)], "")), first);
    assert_eq!(first.as_object().map(|row| row.len()), Some(10));
    assert_eq!(number(&mut client, "SELECT count(*) FROM atlvs.journals"), 1, "booked once");

    // An asset, linked by hand.
    let assets = json!([{"organization_id": north, "asset_id": "A-1", "compvss_asset_id": "C-1", "gvteway_inventory_id": "G-1"},
                        {"organization_id": north, "asset_id": "A-2", "compvss_asset_id": null, "gvteway_inventory_id": "G-2"}]);
    assert_eq!(rows(admin.insert("integration_asset_links", &assets)).len(), 2);
    assert_eq!(admin.insert("integration_asset_links", &assets).refused(), "23505");
    let alone = one(admin.insert("integration_asset_links", &json!({"asset_id": "A-3"})));
    assert_eq!((&alone["organization_id"], word(&alone["status"])), (&json!(north), "pending"));
    let changed = one(admin.update(
        "integration_asset_links",
        &[("asset_id", "A-1")],
        &json!({"status": "synced", "metadata": {"rack": 7}}),
    ));
    assert!(changed["last_synced_at"].is_string() && changed["metadata"]["rack"] == 7, "{changed}");
    assert_eq!(
        one(admin.get("integration_asset_links", &[("asset_id", "A-1")], "")),
        changed,
        "what is returned is what is there"
    );
    assert_eq!(admin.update("integration_asset_links", &[("asset_id", "A-1")], &json!({"status": "dead"})).refused(), "23514");
    one(admin.delete("integration_asset_links", &[("asset_id", "A-3")]));

    // The log says who: people by their ids, flows by their names.
    settled(&mut client, LONG);
    let log = rows(admin.get("audit_log", &[("organization_id", &north)], "created_at"));
    let by = |actor: &str, action: &str| log.iter().filter(|row| row["actor"] == actor && row["action"] == action).count();
    assert_eq!(by("admin-north", "usher.links.created"), 3);
    assert_eq!(by("admin-north", "usher.links.updated"), 1);
    assert_eq!(by("admin-north", "usher.links.deleted"), 1);
    assert_eq!(by("flow live_events.describe_event", "sync.synced"), 1);
    assert_eq!(by("flow live_events.create_project_from_won_deal", "sync.synced"), 1);
    assert!(log.iter().all(|row| row["organization_id"] == north && row["correlation_id"].is_string()));
}

#[test]
fn members_read_and_strangers_see_nothing() {
    let (database, mut client) = house("usher_test_expose_rights");
    let here = &mut client;
    let (north, south) = (id_of(here, "north"), id_of(here, "south"));
    for (organization, id) in [("north", north), ("south", south)] {
        let mut admin = Rest::signed_in(&database, "public", &format!("admin-{organization}"));
        one(admin.insert("integration_asset_links", &json!({"asset_id": format!("A-{organization}")})));
        run(
            here,
            &format!(
                "INSERT INTO atlvs.deals (organization_id, title, status, value, event_date) VALUES ('{id}', '{organization}', 'won', 1, '2026-08-01')"
            ),
        );
        let code: String = value(here, "SELECT code FROM atlvs.projects WHERE organization_id = $1", &[&id]);
        let sale = json!({"p_org_slug": organization, "p_project_code": code, "p_event_code": "door", "p_ticket_count": 1, "p_gross_amount": 10});
        admin.rpc("rpc_ingest_ticket_revenue", &sale).ok();
    }
    settled(here, LONG);
    let views = [
        "integration_deal_links",
        "integration_project_links",
        "integration_event_links",
        "integration_asset_links",
        "integration_sync_jobs",
        "ticket_revenue_ingestions",
        "audit_log",
    ];
    let mut member = Rest::signed_in(&database, "public", "member-north");
    let mut stranger = Rest::signed_in(&database, "public", "stranger");
    let mut nobody = Rest::anonymous(&database, "public");
    for view in views {
        let seen = rows(member.get(view, &[], ""));
        assert!(!seen.is_empty() && seen.iter().all(|row| row["organization_id"] == north.to_string()), "{view}: {seen:?}");
        assert_eq!(rows(member.get(view, &[("organization_id", &south.to_string())], "")), Vec::<Value>::new(), "{view}");
        assert_eq!(rows(stranger.get(view, &[], "")), Vec::<Value>::new(), "{view}");
        assert_eq!(nobody.get(view, &[], "").status, 401, "{view}");
    }

    // Who may only read, and who may nothing: every way of writing, in the own organization and in the other.
    let deal: Uuid = value(here, "SELECT id FROM atlvs.deals WHERE organization_id = $1", &[&north]);
    let project: Uuid = value(here, "SELECT id FROM atlvs.projects WHERE organization_id = $1", &[&north]);
    let calls = |organization: &str| {
        [
            (
                "rpc_enqueue_sync_job",
                json!({"p_org_slug": organization, "p_source_system": "a", "p_target_system": "b", "p_payload": {}}),
            ),
            (
                "rpc_ingest_ticket_revenue",
                json!({"p_org_slug": organization, "p_project_code": null, "p_event_code": "x", "p_ticket_count": 1, "p_gross_amount": 1}),
            ),
            ("rpc_deal_to_project", json!({"p_deal_id": deal.to_string(), "p_org_slug": organization})),
            (
                "rpc_project_to_event",
                json!({"p_project_id": project.to_string(), "p_org_slug": organization, "p_event_data": {}}),
            ),
        ]
    };
    let before = text(here, "SELECT md5(string_agg(l::text, ',' ORDER BY id)) FROM usher.links l");
    let mut admin_south = Rest::signed_in(&database, "public", "admin-south");
    for (name, client, organization) in
        [("member", &mut member, "north"), ("stranger", &mut stranger, "north"), ("admin of another", &mut admin_south, "north")]
    {
        for (function, body) in calls(organization) {
            let answer = client.rpc(function, &body);
            assert_eq!((answer.status, answer.clone().refused().as_str()), (403, "42501"), "{name} {function}");
        }
        let link = json!({"organization_id": north.to_string(), "asset_id": "smuggled"});
        assert_eq!(client.insert("integration_asset_links", &link).refused(), "42501", "{name}");
        for changed in [
            client.update("integration_asset_links", &[("asset_id", "A-north")], &json!({"status": "failed"})),
            client.delete("integration_asset_links", &[("asset_id", "A-north")]),
        ] {
            // Who sees the row is told; who does not sees no row.
            if name == "member" {
                assert_eq!(changed.refused(), "42501");
            } else {
                assert_eq!(rows(changed), Vec::<Value>::new(), "{name}");
            }
        }
        for view in ["audit_log", "integration_sync_jobs", "ticket_revenue_ingestions"] {
            assert!(client.delete(view, &[("organization_id", &north.to_string())]).status >= 400, "{name} {view}");
        }
    }
    assert_eq!(text(here, "SELECT md5(string_agg(l::text, ',' ORDER BY id)) FROM usher.links l"), before, "nothing was written");
    // An unknown organization and one that is not one's own: the same answer.
    let [unknown, foreign] = ["nowhere", "north"].map(|organization| {
        let (function, body) = &calls(organization)[0];
        admin_south.rpc(function, body).body["message"].to_string().replace(organization, "it")
    });
    assert_eq!(unknown, foreign);
    // One cannot give a link away, not even to an organization that one manages as well.
    run(here, "SELECT usher.grant_membership('south', 'admin-north', 'admin')");
    let mut both = Rest::signed_in(&database, "public", "admin-north");
    let moved =
        both.update("integration_asset_links", &[("asset_id", "A-north")], &json!({"organization_id": south.to_string()}));
    assert_eq!(moved.refused(), "22023");
    assert_eq!(both.insert("integration_asset_links", &json!({"asset_id": "whose"})).refused(), "23502");
    for (function, body) in calls("north") {
        assert!(matches!(nobody.rpc(function, &body).status, 401 | 404), "{function}");
    }
}

#[test]
fn a_person_acts_under_the_own_name_whatever_the_session_says() {
    let (database, mut client) = house("usher_test_expose_names");
    // Claims that somebody sets in a session of his own mean nothing, for rights as for the log.
    role(&mut client, "clients_liar", "LOGIN");
    run(&mut client, "GRANT usher_member TO clients_liar; SELECT usher.grant_membership('south', 'role:clients_liar', 'admin')");
    let mut liar = database.connect_as("clients_liar");
    run(&mut liar, "SET request.jwt.claims = '{\"sub\": \"admin-north\"}'");
    run(&mut liar, "INSERT INTO public.integration_asset_links (asset_id) VALUES ('mine')");
    assert_eq!(
        text(&mut client, "SELECT actor || ' ' || role FROM usher.audit_log WHERE new ->> 'left_id' = 'mine'"),
        "role:clients_liar clients_liar"
    );
    assert_eq!(
        text(
            &mut client,
            "SELECT o.slug FROM usher.links l JOIN usher.organizations o ON o.id = l.organization_id WHERE left_id = 'mine'"
        ),
        "south"
    );
    // The worker's doing is the flow's, and so is what the flow's writing starts elsewhere.
    run(
        &mut client,
        "SELECT usher.audit_table('gvteway.events', '{title,status}'), usher.audit_table('atlvs.projects', '{code,phase}')",
    );
    let mut admin = Rest::signed_in(&database, "atlvs", "admin-north");
    let north = id_of(&mut client, "north").to_string();
    let deals: Vec<Value> = (0..20)
        .map(|n| json!({"organization_id": north, "title": format!("Tour {n}"), "status": "won", "value": 1, "event_date": "2026-08-01"}))
        .collect();
    assert_eq!(rows(admin.insert("deals", &json!(deals))).len(), 20);
    settled(&mut client, LONG);
    let doers = "SELECT string_agg(DISTINCT concat_ws(' ', action, actor, role, flow), '; ' ORDER BY concat_ws(' ', action, actor, role, flow))
                   FROM usher.audit_log WHERE action IN ('gvteway.events.created', 'atlvs.projects.created')";
    assert_eq!(
        text(&mut client, doers),
        "atlvs.projects.created admin-north usher_live_events live_events.create_project_from_won_deal; \
         gvteway.events.created flow live_events.create_event usher_live_events live_events.create_event"
    );
    // However many jobs one statement did, each entry belongs to its own.
    let exact = "SELECT count(*) FROM usher.audit_log l JOIN usher.sync_jobs j ON j.id = l.correlation_id
                   JOIN gvteway.events e ON e.id::text = l.object AND e.production_ref::text = j.payload ->> 'production_id'
                  WHERE l.action = 'gvteway.events.created'";
    assert_eq!(number(&mut client, exact), 20);
    let exact = "SELECT count(*) FROM usher.audit_log l JOIN usher.sync_jobs j ON j.id = l.correlation_id
                   JOIN atlvs.projects p ON p.id::text = l.object AND p.deal_id::text = j.payload -> 'new' ->> 'id'
                  WHERE l.action = 'atlvs.projects.created'";
    assert_eq!(number(&mut client, exact), 20);
}

/// 100,000 rows of ten organizations in each of the tables behind the views.
fn fill(client: &mut Client) {
    run(
        client,
        "INSERT INTO usher.organizations (id, slug, name) SELECT usher.uuid_v7(), 'many-' || n, 'x' FROM generate_series(1, 8) AS n;
         CREATE TEMPORARY TABLE o AS SELECT id, row_number() OVER () - 1 AS n FROM usher.organizations WHERE slug <> 'default';
         INSERT INTO usher.audit_log (id, organization_id, recorded_at, actor, role, action, object, correlation_id)
             SELECT usher.uuid_v7(), o.id, now() - g * interval '1 s', 'x', 'x', 'x.y.updated', g::text, usher.uuid_v7() FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         INSERT INTO usher.job_history (organization_id, id, created_at, finished_at, attempts, lane, hop, op, new)
             SELECT o.id, usher.uuid_v7(), now(), now() - (g % 3) * interval '1 day', 1, 3, 0, 'R', '{}' FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         INSERT INTO usher.jobs (organization_id, id, seq, created_at, flow_id, flow_version, lane, hop, op, new)
             SELECT o.id, usher.uuid_v7(), nextval('usher.queue_seq'), now(), 0, 1, 3, 0, 'R', '{}' FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         UPDATE usher.job_floors SET floor = (SELECT last_value FROM usher.queue_seq);
         INSERT INTO usher.dead_letters (organization_id, id, seq, created_at, lane, hop, op, attempts, error_message)
             SELECT o.id, usher.uuid_v7(), g, now(), 3, 0, 'R', 1, 'x' FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         INSERT INTO usher.links (organization_id, id, kind, left_id, right_id)
             SELECT o.id, usher.uuid_v7(), (ARRAY['deal', 'project', 'event', 'asset'])[1 + (g / 10) % 4], 'L' || g, 'R' || g FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         INSERT INTO usher.ticket_revenue_ingestions (organization_id, id, ticket_count, gross_amount, currency, ingestion_source)
             SELECT o.id, usher.uuid_v7(), 1, 1, 'EUR', 'x' FROM generate_series(1, 100000) AS g JOIN o ON o.n = g % 10;
         ANALYZE usher.organizations, usher.audit_log, usher.job_history, usher.jobs, usher.dead_letters, usher.links, usher.ticket_revenue_ingestions",
    );
}

#[test]
fn queries_by_organization_use_indexes() {
    let (database, mut client) = house("usher_test_expose_plans");
    fill(&mut client);
    let north = id_of(&mut client, "north");
    let mut web = database.connect_as("authenticator");
    run(&mut web, "SET ROLE authenticated; SET request.jwt.claims = '{\"sub\": \"member-north\"}'");
    let by_organization = format!("organization_id = '{north}'");
    for (view, filter) in [
        ("integration_deal_links", "deal_id = 'L4004'"),
        ("integration_project_links", "project_id = 'L5005'"),
        ("integration_event_links", "project_id = 'L6006'"),
        ("integration_asset_links", "asset_id = 'L7007'"),
        ("integration_asset_links", by_organization.as_str()),
        ("integration_sync_jobs", by_organization.as_str()),
        ("ticket_revenue_ingestions", by_organization.as_str()),
        ("audit_log", by_organization.as_str()),
    ] {
        let plan = |web: &mut Client, sql: &str| -> String {
            let lines = web.query(&format!("EXPLAIN (COSTS OFF) {sql}"), &[]).expect("a plan");
            lines.iter().map(|line| line.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
        };
        let shown = plan(&mut web, &format!("SELECT * FROM public.{view} WHERE {filter}"));
        // The days to come are empty; nobody minds that they are looked through.
        for line in shown.lines().filter_map(|line| line.split_once("Seq Scan on ")) {
            let table = line.1.split_whitespace().next().unwrap_or_default();
            let size = number(&mut client, &format!("SELECT pg_relation_size('usher.{table}')"));
            // As large as there are flows, not as there is work.
            assert!(size < 100_000 || table == "flow_versions", "{view} where {filter} reads all of {table}:\n{shown}");
        }
    }
    // The question that a dashboard asks first.
    let newest = format!(
        "SELECT count(*) FROM (SELECT * FROM public.audit_log WHERE organization_id = '{north}' ORDER BY created_at DESC LIMIT 50) AS x"
    );
    let started = std::time::Instant::now();
    assert_eq!(number(&mut web, &newest), 50);
    let took = started.elapsed();
    assert!(took.as_millis() < 1_000, "the newest 50 of 30,000 entries took {took:?}");
    println!("the newest 50 of 30,000 entries: {took:?}");
}

#[test]
fn a_dump_carries_the_names_the_log_and_what_is_audited() {
    let (database, mut client) = house("usher_test_expose_dump");
    run(
        &mut client,
        "CREATE TABLE public.prices (sku text PRIMARY KEY, price numeric); SELECT usher.audit_table('public.prices')",
    );
    run(&mut client, "INSERT INTO public.prices VALUES ('a', 1)");
    let mut admin = Rest::signed_in(&database, "public", "admin-north");
    one(admin.insert("integration_asset_links", &json!({"asset_id": "A-1"})));
    settled(&mut client, LONG);
    let entries = "SELECT md5(string_agg(l::text, ',' ORDER BY id)) FROM usher.audit_log l";
    let before = text(&mut client, entries);

    let copy = Database::create_empty("usher_test_expose_copy");
    copy_database(&database.name, &copy.name);
    let mut client = copy.connect();
    let here = &mut client;
    assert_eq!(text(here, entries), before);
    // The names work as they are, for the same people.
    let mut admin = Rest::signed_in(&copy, "public", "admin-north");
    one(admin.update("integration_asset_links", &[("asset_id", "A-1")], &json!({"status": "synced"})));
    let mut member = Rest::signed_in(&copy, "public", "member-south");
    assert_eq!(rows(member.get("integration_asset_links", &[], "")), Vec::<Value>::new());
    run(here, "UPDATE public.prices SET price = 2");
    assert_eq!(text(here, "SELECT new ->> 'price' FROM usher.audit_log WHERE action = 'public.prices.updated'"), "2");
    assert_eq!(refused(here, "DELETE FROM usher.audit_log").code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    // And setup() finds nothing to mend.
    run(here, "SELECT usher.setup()");
    assert!(text(here, "SELECT usher.expose_api()").contains("already"));
    assert_eq!(number(here, "SELECT usher.attach_all()::bigint"), 0);
}
