//! Two organizations that never meet: as database roles, as claims, through flows, and for everybody else.

use usher_clients::keyfile::KeyFile;
use usher_clients::{
    Client, Database, SqlState, Uuid, enqueue, flow, json, number, refused, role, run, settled, text, value, wait,
};

/// Organizations north and south. Each has a member and an admin as database roles (`clients_north`,
/// `clients_north_admin`, …) and as users of a web client (`user-north`, …), jobs in every state, links and rows.
fn two_organizations(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    for name in ["clients_north", "clients_north_admin", "clients_south", "clients_south_admin", "clients_nobody"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "clients_web", "NOLOGIN");
    run(here, "GRANT usher_member TO clients_web; GRANT clients_web TO authenticator");
    role(here, "clients_tenants", "NOLOGIN");
    run(
        here,
        "CREATE TABLE public.things (organization_id uuid NOT NULL, id integer, name text, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.copies (organization_id uuid NOT NULL, id integer, name text CHECK (name <> 'bad'), PRIMARY KEY (organization_id, id));
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.things, public.copies TO clients_tenants",
    );
    flow(
        here,
        "copy",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_tenants", "retry": {"delays": []},
            "when": {"change": "public.things", "on": ["insert", "update"]},
            "then": {"upsert": "public.copies", "key": ["id"]}, "set": {"id": "new.id", "name": "new.name"},
            "link": {"kind": "thing", "left": "new.id", "right": "id"}
        }),
    );
    flow(
        here,
        "ask",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_tenants", "retry": {"delays": []},
            "when": {"request": "ask"}, "join": {"thing": {"table": "public.things", "on": "thing.id = (job.payload ->> 'id')::integer"}},
            "then": {"upsert": "public.copies", "key": ["id"]}, "set": {"id": "1000 + thing.id", "name": "thing.name"},
            "check": {"the thing exists": "id IS NOT NULL"}
        }),
    );
    for organization in ["north", "south"] {
        let id: Uuid = value(here, "SELECT usher.create_organization($1)", &[&organization]);
        run(
            here,
            &format!(
                "SELECT usher.grant_membership('{organization}', 'role:clients_{organization}'),
                    usher.grant_membership('{organization}', 'role:clients_{organization}_admin', 'admin'),
                    usher.grant_membership('{organization}', 'user-{organization}'),
                    usher.grant_membership('{organization}', 'admin-{organization}', 'admin')"
            ),
        );
        // Done, dead and waiting jobs, links: something to find in every table.
        run(
            here,
            &format!(
                "INSERT INTO public.things VALUES ('{id}', 1, '{organization} one'), ('{id}', 2, 'bad'), ('{id}', 3, '{organization} three')"
            ),
        );
        run(
            here,
            &format!(
                "SELECT usher.enqueue_sync_job('{organization}', 'left', 'right', '{{\"action\": \"ask\", \"id\": 3}}', run_at => now() + interval '1 day', unique_key => 'secret-{organization}')"
            ),
        );
    }
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.dead_letters");
    wait::until_true(here, "SELECT count(*) = 4 FROM public.copies");
    (database, client)
}

/// Every relation of the schema with an organization in it, partitions included.
const RELATIONS: &str = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                            AND (c.relname = 'organizations' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'organization_id'))";

/// What this session sees of its own organization and of others, in all relations it may read.
fn seen(reader: &mut Client, admin: &mut Client, organization: &str) -> (i64, i64) {
    let (mut own, mut foreign) = (0, 0);
    let names = admin.query(RELATIONS, &[]).expect("relations can be listed");
    let id: Uuid = value(admin, "SELECT id FROM usher.organizations WHERE slug = $1", &[&organization]);
    for row in names {
        let name: String = row.get(0);
        let column = if name.ends_with("organizations") { "id" } else { "organization_id" };
        let count =
            format!("SELECT count(*) FILTER (WHERE {column} = '{id}'), count(*) FILTER (WHERE {column} <> '{id}') FROM {name}");
        match reader.query_one(&count, &[]) {
            Ok(row) => {
                own += row.get::<_, i64>(0);
                foreign += row.get::<_, i64>(1);
            }
            // Not granted at all: nothing seen.
            Err(error) => assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{name}: {}", wait::describe(&error)),
        }
    }
    (own, foreign)
}

#[test]
fn members_as_database_roles_see_their_own_and_nothing_else() {
    let (database, mut client) = two_organizations("usher_test_roles");
    for (organization, other) in [("north", "south"), ("south", "north")] {
        let mut member = database.connect_as(&format!("clients_{organization}"));
        let (own, foreign) = seen(&mut member, &mut client, organization);
        assert!(own >= 10, "a member sees the jobs, links and members of {organization}, not just {own} rows");
        assert_eq!(foreign, 0, "rows of {other}");
        let payloads = text(&mut member, "SELECT string_agg(payload::text, ' ') FROM usher.sync_jobs");
        assert!(payloads.contains(organization) && !payloads.contains(other), "{payloads}");
        // Numbers and errors in status() are those of one's own organization.
        let status =
            text(&mut member, "SELECT string_agg(concat_ws(' ', section, item, value, note), E'\\n') FROM usher.status()");
        assert!(status.contains("1 dead") && !status.contains("2 dead"), "{status}");
    }
    let mut nobody = database.connect_as("clients_nobody");
    assert_eq!(seen(&mut nobody, &mut client, "north"), (0, 0), "a member of nothing sees nothing");
}

#[test]
fn nobody_writes_into_the_tables_or_into_another_organization() {
    let (database, mut client) = two_organizations("usher_test_writes");
    let here = &mut client;
    let foreign_job: Uuid = value(
        here,
        "SELECT j.id FROM usher.sync_jobs j JOIN usher.organizations o ON o.id = j.organization_id WHERE o.slug = 'south' AND status = 'dead'",
        &[],
    );
    let before = text(here, "SELECT md5(string_agg(j::text, ',' ORDER BY id)) FROM usher.sync_jobs j");
    for name in ["clients_north", "clients_north_admin"] {
        let mut member = database.connect_as(name);
        // Not a single table of the schema can be written by hand.
        let tables = here.query("SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p')", &[]).expect("tables");
        for table in tables.iter().map(|row| row.get::<_, String>(0)) {
            for sql in
                [format!("INSERT INTO {table} DEFAULT VALUES"), format!("DELETE FROM {table}"), format!("TRUNCATE {table}")]
            {
                assert_eq!(refused(&mut member, &sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{name}: {sql}");
            }
        }
        // Another organization and one that does not exist are refused with the same words.
        let ask = |organization: &str| {
            format!("SELECT usher.enqueue_sync_job('{organization}', 'left', 'right', '{{\"action\": \"ask\", \"id\": 1}}')")
        };
        let (foreign, unknown) = (refused(&mut member, &ask("south")), refused(&mut member, &ask("nowhere")));
        assert_eq!(foreign.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
        assert_eq!(foreign.message().replace("south", ""), unknown.message().replace("nowhere", ""));
        assert_eq!(foreign.code(), unknown.code());
        // Nor can its jobs be touched, or their existence be found out.
        for function in ["retry_sync_job", "cancel_sync_job", "wait_for"] {
            let (foreign, unknown) = (
                refused(&mut member, &format!("SELECT usher.{function}('{foreign_job}')")),
                refused(&mut member, &format!("SELECT usher.{function}('{}')", Uuid::max())),
            );
            assert_eq!(foreign.code(), unknown.code(), "{function}");
            assert_eq!(
                foreign.message().replace(&foreign_job.to_string(), ""),
                unknown.message().replace(&Uuid::max().to_string(), "")
            );
        }
        // What belongs to operators stays with them.
        for sql in [
            "SELECT usher.create_flow('mine', '{}')",
            "SELECT usher.drop_flow('copy')",
            "SELECT usher.process_jobs()",
            "SELECT usher.setup()",
            "SELECT usher.create_organization('mine')",
            "SELECT usher.detach_all()",
            "SELECT usher.install_pack('live_events')",
            "SELECT usher.grant_membership('south', 'role:clients_north')",
            "SELECT usher.grant_membership('north', 'x', 'legend')",
        ] {
            assert_eq!(refused(&mut member, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{name}: {sql}");
        }
    }
    assert_eq!(
        text(here, "SELECT md5(string_agg(j::text, ',' ORDER BY id)) FROM usher.sync_jobs j"),
        before,
        "nothing has changed"
    );
}

#[test]
fn members_read_and_admins_act() {
    let (database, mut client) = two_organizations("usher_test_rights");
    let mut member = database.connect_as("clients_north");
    let mut admin = database.connect_as("clients_north_admin");
    let ask = "SELECT usher.enqueue_sync_job('north', 'left', 'right', '{\"action\": \"ask\", \"id\": 1}')";
    assert_eq!(refused(&mut member, ask).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    let dead: Uuid = value(&mut member, "SELECT id FROM usher.sync_jobs WHERE status = 'dead'", &[]);
    assert_eq!(refused(&mut member, &format!("SELECT usher.retry_sync_job('{dead}')")).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(
        refused(&mut member, "SELECT usher.grant_membership('north', 'role:clients_nobody')").code(),
        &SqlState::INSUFFICIENT_PRIVILEGE
    );
    assert_eq!(value::<String>(&mut member, "SELECT status FROM usher.wait_for($1)", &[&dead]), "dead", "members may look");

    let job = enqueue(&mut admin, "north", "left", "right", &json!({"action": "ask", "id": 1}));
    assert_eq!(value::<String>(&mut admin, "SELECT status FROM usher.wait_for($1)", &[&job]), "synced");
    assert_eq!(
        text(&mut client, "SELECT string_agg(name, ',') FROM public.copies WHERE id = 1001"),
        "north one",
        "the join stays within the organization"
    );
    run(&mut admin, &format!("SELECT usher.retry_sync_job('{dead}', '{{\"name\": \"good\"}}')"));
    assert_eq!(value::<String>(&mut admin, "SELECT status FROM usher.wait_for($1)", &[&dead]), "synced");
    run(&mut admin, "SELECT usher.grant_membership('north', 'role:clients_nobody')");
    let mut nobody = database.connect_as("clients_nobody");
    assert!(seen(&mut nobody, &mut client, "north").0 > 0, "a new member sees at once");
    run(&mut admin, "SELECT usher.revoke_membership('north', 'role:clients_nobody')");
    assert_eq!(seen(&mut nobody, &mut client, "north"), (0, 0), "and no longer");
}

/// As a gateway such as PostgREST does it: one login, then per request the role and the claims.
fn as_user(gateway: &mut Client, sub: &str) {
    run(gateway, &format!("SET ROLE clients_web; SET request.jwt.claims = '{{\"sub\": \"{sub}\", \"role\": \"clients_web\"}}'"));
}

#[test]
fn claims_choose_the_user_of_a_trusted_gateway_only() {
    let (database, mut client) = two_organizations("usher_test_claims");
    let mut gateway = database.connect_as("authenticator");
    for organization in ["north", "south", "north"] {
        as_user(&mut gateway, &format!("user-{organization}"));
        assert_eq!(text(&mut gateway, "SELECT usher.actor()"), format!("user-{organization}"));
        let (own, foreign) = seen(&mut gateway, &mut client, organization);
        assert!(own >= 10 && foreign == 0, "{organization}: {own} own, {foreign} foreign");
    }
    let ask = "SELECT usher.enqueue_sync_job('north', 'left', 'right', '{\"action\": \"ask\", \"id\": 1}')";
    as_user(&mut gateway, "user-north");
    assert_eq!(refused(&mut gateway, ask).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "a member may not enqueue");
    as_user(&mut gateway, "admin-south");
    assert_eq!(refused(&mut gateway, ask).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "another organization's admin neither");
    as_user(&mut gateway, "admin-north");
    run(&mut gateway, ask);

    // A token cannot pass for a database role; without a token there is nobody.
    for claims in [r#"{"sub": "role:clients_north"}"#, r#"{"sub": ""}"#, "{}", "not json", ""] {
        run(&mut gateway, &format!("SET request.jwt.claims = '{claims}'"));
        assert_eq!(seen(&mut gateway, &mut client, "north"), (0, 0), "claims {claims}");
    }
    // An ordinary login may say what it likes.
    let mut member = database.connect_as("clients_south");
    run(&mut member, "SET request.jwt.claims = '{\"sub\": \"admin-north\"}'");
    assert_eq!(text(&mut member, "SELECT usher.actor()"), "role:clients_south");
    let (own, foreign) = seen(&mut member, &mut client, "south");
    assert!(own >= 10 && foreign == 0);
    assert_eq!(refused(&mut member, ask).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    for sql in ["SET usher.claims_roles = 'clients_south'", "SET usher.user_id = 'admin-north'"] {
        assert_eq!(refused(&mut member, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}

#[test]
fn an_ordinary_writer_needs_rights_on_its_own_table_only() {
    let (database, mut client) = two_organizations("usher_test_writer");
    let here = &mut client;
    role(here, "clients_app", "LOGIN");
    run(here, "GRANT INSERT ON public.things TO clients_app");
    for mode in ["realtime", "transactional", "async"] {
        run(
            here,
            &format!(
                "SELECT usher.alter_flow('copy', definition || '{{\"mode\": \"{mode}\"}}') FROM usher.flows WHERE name = 'copy'"
            ),
        );
        let mut app = database.connect_as("clients_app");
        for forbidden in
            ["SELECT * FROM public.copies", "SELECT * FROM usher.jobs", "SELECT usher.status()", "SELECT * FROM public.things"]
        {
            assert_eq!(refused(&mut app, forbidden).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{forbidden}");
        }
        let north: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]);
        // Whatever its session says about names, paths and formats.
        run(
            &mut app,
            "SET search_path = pg_temp; SET DateStyle = 'German'; CREATE TEMPORARY TABLE copies (LIKE pg_catalog.pg_class)",
        );
        run(&mut app, &format!("INSERT INTO public.things VALUES ('{north}', {}, 'from the app')", 50 + mode.len()));
        run(&mut app, &format!("INSERT INTO public.things VALUES ('{north}', {}, 'bad')", 80 + mode.len()));
        wait::until_true(
            here,
            &format!("SELECT EXISTS (SELECT FROM public.copies WHERE id = {} AND name = 'from the app')", 50 + mode.len()),
        );
        wait::until_true(
            here,
            &format!("SELECT EXISTS (SELECT FROM usher.dead_letters WHERE new ->> 'id' = '{}')", 80 + mode.len()),
        );
    }
    // The copies carry the organization of their source, also when a row names none that exists.
    run(here, &format!("INSERT INTO public.things VALUES ('{}', 99, 'homeless')", Uuid::max()));
    wait::until_true(here, "SELECT EXISTS (SELECT FROM usher.dead_letters WHERE error_message ~ 'no organization')");
    assert_eq!(number(here, "SELECT count(*) FROM public.copies WHERE id = 99"), 0);
    run(here, "DELETE FROM usher.queue_waiting");
    settled(here, wait::LONG);
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM public.copies c JOIN public.things t USING (id) WHERE c.organization_id <> t.organization_id AND t.id > 3"
        ),
        0
    );
}

#[test]
fn what_a_legend_does_elsewhere_is_entered() {
    let (database, mut client) = two_organizations("usher_test_legend");
    let _keys = KeyFile::new(&mut client, "legend");
    let here = &mut client;
    role(here, "clients_legend", "LOGIN");
    run(
        here,
        "GRANT usher_member TO clients_legend;
         SELECT usher.grant_membership('north', 'role:clients_legend', 'admin'), usher.grant_membership('east', 'role:clients_legend', 'legend')
           FROM usher.create_organization('east');
         SELECT usher.create_system('outside', 'external');
         SELECT usher.enqueue_sync_job(o, 'left', 'outside') FROM unnest('{south,south,south,north,north}'::text[]) AS o;
         SELECT usher.enqueue_sync_job(o, 'left', 'right', '{\"action\": \"ask\", \"id\": 3}', run_at => now() + interval '1 day')
           FROM unnest('{south,north}'::text[]) AS o;
         INSERT INTO usher.notices (id, organization_id, kind, severity, subject, first_at, last_at)
         SELECT usher.uuid_v7(), o.id, 'flow failing', 'warning', 'nothing', now(), now() FROM usher.organizations AS o WHERE o.slug IN ('south', 'north');
         INSERT INTO usher.conflicts (organization_id, id, kind, severity, subject, left_table, left_key, message)
         SELECT o.id, usher.uuid_v7(), 'timing_conflict', 'info', 'a van', 'public.vans', '{\"id\": 1}', 'twice' FROM usher.organizations AS o WHERE o.slug IN ('south', 'north');
         CREATE TABLE public.guests (organization_id uuid NOT NULL, id int, name text, PRIMARY KEY (organization_id, id));
         INSERT INTO public.guests SELECT id, 1, 'Ann' FROM usher.organizations WHERE slug IN ('south', 'north');
         GRANT SELECT ON public.guests TO clients_tenants;
         SELECT usher.create_rule('named', '{\"query\": \"SELECT organization_id, id FROM public.guests WHERE name IS NULL\", \"key\": [\"id\"], \"wrong\": \"''nameless''\", \"every\": \"never\", \"run_as\": \"clients_tenants\"}');
         INSERT INTO usher.violations (organization_id, id, rule_id, rule, key, \"row\", wrong, severity, status)
         SELECT o.id, usher.uuid_v7(), 0, 'older', '{\"id\": 1}', '{\"id\": 1}', 'wrong', 'info', 'open' FROM usher.organizations AS o WHERE o.slug IN ('south', 'north');
         SELECT usher.create_system('outside', 'external');
         SELECT usher.define_subject('guest', 'public.guests');
         CREATE FUNCTION public.resolve(uuid, text, text) RETURNS uuid LANGUAGE sql AS 'SELECT pg_catalog.gen_random_uuid()';
         CREATE FUNCTION public.book(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer,
             gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz) RETURNS uuid LANGUAGE sql AS
             $$SELECT (usher.enqueue_sync_job(organization_id::text, 'left', 'right', '{\"action\": \"ask\", \"id\": 3}')).id$$;
         GRANT usher_member TO clients_tenants;
         SELECT usher.create_flow('ride', '{\"run_as\": \"clients_tenants\", \"from\": \"left\", \"to\": \"right\", \"when\": {\"request\": \"ride\"},
             \"then\": {\"steps\": [{\"step\": \"go\", \"wait\": {\"signal\": \"go\"}}, {\"step\": \"nap\", \"sleep\": \"1 day\"}]}}');
         CREATE TABLE public.ours (organization_id uuid NOT NULL, id int, name text, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.theirs (LIKE public.ours INCLUDING ALL);
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.ours, public.theirs TO clients_tenants;
         INSERT INTO public.ours SELECT id, 1, 'Ann' FROM usher.organizations WHERE slug IN ('south', 'north');
         SELECT usher.create_flow('both', '{\"run_as\": \"clients_tenants\", \"when\": {\"change\": \"public.ours\"}, \"link\": {\"kind\": \"both\", \"left\": \"new.id\", \"right\": \"id\"},
             \"then\": {\"merge\": \"public.theirs\", \"match\": [\"id\"], \"fields\": [\"name\"], \"new_left\": {\"id\": \"new.id\"}, \"new_right\": {\"id\": \"new.id\"}}}');
         INSERT INTO usher.links (organization_id, id, kind, left_id, right_id, flow, base, paired)
         SELECT id, usher.uuid_v7(), 'both', '9', '9', 'both', '{}', true FROM usher.organizations WHERE slug IN ('south', 'north');
         SELECT usher.bind_ticket_revenue('public.resolve', 'public.book', run_as => 'clients_tenants')",
    );
    // What is locked cannot be migrated: it goes on until it is cancelled.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT FROM public.ours FOR UPDATE");
    let mut legend = database.connect_as("clients_legend");
    // Each in the organization of which the person is an admin, and in the other, which must be entered.
    let by_name = [
        ("enqueue_sync_job", "SELECT usher.enqueue_sync_job($1, 'left', 'right', '{\"action\": \"ask\", \"id\": 3}')"),
        (
            "enqueue_sync_jobs",
            "SELECT usher.enqueue_sync_jobs($1, 'left', 'right', ARRAY['{\"action\": \"ask\", \"id\": 3}'::jsonb])",
        ),
        ("emit_event", "SELECT usher.emit_event($1, 'things.counted')"),
        ("notify", "SELECT usher.notify($1, '{admins}', 'something')"),
        ("broadcast_event", "SELECT usher.broadcast_event($1, 'things.burn')"),
        ("create_subscription", "SELECT usher.create_subscription('outside', '{\"events\": \"things.*\"}', $1)"),
        ("drop_subscription", "SELECT usher.drop_subscription('outside', $1)"),
        ("start_workflow", "SELECT usher.start_workflow($1, 'ride')"),
        ("create_batch", "SELECT usher.create_batch($1, 'night')"),
        ("cancel_sync_jobs", "SELECT usher.cancel_sync_jobs($1, '{\"error\": \"none\"}')"),
        ("retry_dead_letters", "SELECT usher.retry_dead_letters($1, '{}')"),
        ("pause_jobs", "SELECT usher.pause_jobs(organization => $1)"),
        ("resume_jobs", "SELECT usher.resume_jobs(organization => $1)"),
        ("switch_flow", "SELECT usher.switch_flow('copy', $1, false)"),
        ("check_rule", "SELECT usher.check_rule('named', $1)"),
        ("check_rules", "SELECT usher.check_rules($1)"),
        ("reconcile", "SELECT usher.reconcile('both', $1)"),
        ("set_secret", "SELECT usher.set_secret($1, 'token', 'value')"),
        ("delete_secret", "SELECT usher.delete_secret($1, 'token')"),
        ("ingest_ticket_revenue", "SELECT usher.ingest_ticket_revenue($1, 'P-1', 'E-1', 1, 10)"),
        (
            "ingest_ticket_revenue_batch",
            r#"SELECT usher.ingest_ticket_revenue_batch($1, '[{"project_code": "P-1", "ticket_count": 1, "gross_amount": 10, "idempotency_key": "one of many"}]')"#,
        ),
        ("export_subject", "SELECT usher.export_subject($1, 'guest', '1')"),
        ("plan_erasure", "SELECT * FROM usher.plan_erasure($1, 'guest', '1')"),
        ("hold_subject", "SELECT usher.hold_subject($1, 'guest', '1', 'a law suit')"),
        (
            "release_hold",
            "SELECT usher.release_hold($1, id) FROM usher.legal_holds WHERE organization_id = (SELECT id FROM usher.organizations WHERE slug = $1)",
        ),
        ("erase_subject", "SELECT usher.erase_subject($1, 'guest', '1', 'asked to')"),
        (
            "erasure_receipt",
            "SELECT usher.erasure_receipt($1, id) FROM usher.erasures WHERE organization_id = (SELECT id FROM usher.organizations WHERE slug = $1)",
        ),
    ];
    // What names a job, batch or notice.
    let by_id = [
        ("seal_batch", "SELECT usher.seal_batch(id) FROM usher.batches WHERE organization_id = $1"),
        (
            "reprioritise",
            "SELECT usher.reprioritise(id, 'low') FROM usher.sync_jobs WHERE organization_id = $1 AND run_at > now() LIMIT 1",
        ),
        (
            "cancel_sync_job",
            "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE organization_id = $1 AND run_at > now() LIMIT 1",
        ),
        (
            "retry_sync_job",
            "SELECT usher.retry_sync_job(id) FROM usher.sync_jobs WHERE organization_id = $1 AND status = 'cancelled' LIMIT 1",
        ),
        (
            "reverse_ticket_revenue",
            "SELECT usher.reverse_ticket_revenue(id, 'sold twice') FROM usher.ticket_revenue_ingestions WHERE organization_id = $1 AND reverses IS NULL LIMIT 1",
        ),
        ("resolve_conflict", "SELECT usher.resolve_conflict(id, 'accept') FROM usher.conflicts WHERE organization_id = $1"),
        ("waive_violation", "SELECT usher.waive_violation(id, 'meant so') FROM usher.violations WHERE organization_id = $1"),
        ("reopen_violation", "SELECT usher.reopen_violation(id) FROM usher.violations WHERE organization_id = $1"),
        (
            "signal_workflow",
            "SELECT usher.signal_workflow(id, 'go') FROM usher.workflow_runs WHERE organization_id = $1 AND state = 'running'",
        ),
        (
            "cancel_workflow",
            "SELECT usher.cancel_workflow(id) FROM usher.workflow_runs WHERE organization_id = $1 AND state IN ('running', 'undoing')",
        ),
        ("retry_workflow", "SELECT usher.retry_workflow(id) FROM usher.workflow_runs WHERE organization_id = $1"),
        (
            "explain_merge",
            "SELECT count(e) FROM usher.links AS l, usher.explain_merge(l.id) AS e WHERE l.organization_id = $1 AND l.left_id = '9'",
        ),
        ("show_plan", "SELECT count(s) FROM usher.migrations AS m, usher.show_plan(m.id) AS s WHERE m.organization_id = $1"),
        ("apply_migration", "SELECT usher.apply_migration(id) FROM usher.migrations WHERE organization_id = $1"),
        ("pause_migration", "SELECT usher.pause_migration(id) FROM usher.migrations WHERE organization_id = $1"),
        ("resume_migration", "SELECT usher.resume_migration(id) FROM usher.migrations WHERE organization_id = $1"),
        ("cancel_migration", "SELECT usher.cancel_migration(id) FROM usher.migrations WHERE organization_id = $1"),
        ("read_notice", "SELECT usher.read_notice(id) FROM usher.notices WHERE organization_id = $1 LIMIT 1"),
    ];
    let mut called: Vec<String> = Vec::new();
    for slug in ["north", "south"] {
        for (function, sql) in by_name {
            legend
                .query(&sql.replace("$1", &format!("'{slug}'")), &[])
                .unwrap_or_else(|error| panic!("{function} in {slug}: {error:?}"));
            called.extend((slug == "south").then(|| format!("{function} south")));
        }
        let id: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = $1", &[&slug]);
        for (function, sql) in by_id {
            let rows = legend.query(sql, &[&id]).unwrap_or_else(|error| panic!("{function} in {slug}: {error:?}"));
            assert_eq!(rows.len(), 1, "{function} in {slug}");
            called.extend((slug == "south").then(|| format!("{function} south")));
        }
    }
    wait::until_true(here, "SELECT NOT EXISTS (SELECT FROM usher.pauses)");
    // A worker outside: entered is whose jobs it was handed, and how it answered for them.
    let jobs = legend.query("SELECT job, lease, organization_id FROM usher.claim_jobs('outside', 10)", &[]).expect("jobs");
    assert_eq!(jobs.len(), 5);
    called.push("claim_jobs south".to_owned());
    let south: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'south'", &[]);
    let answers = [
        ("extend_lease", "SELECT usher.extend_lease($1, $2, '1 minute')"),
        ("finish_job", "SELECT usher.finish_job($1, $2)"),
        ("fail_job", "SELECT usher.fail_job($1, $2, 'it broke')"),
    ];
    let (theirs, own): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| job.get::<_, Uuid>(2) == south);
    for ((function, sql), job) in answers.iter().zip(&theirs) {
        legend.query(*sql, &[&job.get::<_, Uuid>(0), &job.get::<_, Uuid>(1)]).expect(function);
        called.push(format!("{function} south"));
    }
    // Said twice, it is answered twice.
    legend.query(answers[1].1, &[&theirs[1].get::<_, Uuid>(0), &theirs[1].get::<_, Uuid>(1)]).expect("the same answer");
    called.push("finish_job south".to_owned());
    for ((_, sql), job) in answers.iter().zip(&own) {
        legend.query(*sql, &[&job.get::<_, Uuid>(0), &job.get::<_, Uuid>(1)]).expect("an answer");
    }
    // Those who belong there are not entered, nor is what was refused.
    run(
        &mut database.connect_as("clients_south_admin"),
        "SELECT usher.enqueue_sync_job('south', 'left', 'right', '{\"action\": \"ask\", \"id\": 3}')",
    );
    assert_eq!(refused(&mut legend, "SELECT usher.cancel_sync_job(gen_random_uuid())").code(), &SqlState::UNDEFINED_OBJECT);
    let entered: Vec<String> = here
        .query(
            "SELECT concat_ws(' ', l.object, COALESCE(o.slug, 'nowhere')), l.actor FROM usher.audit_log l
               LEFT JOIN usher.organizations o ON o.id = l.organization_id WHERE l.action = 'usher.legend.called' ORDER BY l.position",
            &[],
        )
        .expect("entries")
        .iter()
        .map(|row| {
            assert_eq!(row.get::<_, &str>(1), "role:clients_legend");
            row.get(0)
        })
        .collect();
    assert_eq!(entered, called);
}

/// Rights are remembered from statement to statement, and forgotten the moment they are others.
#[test]
fn a_membership_that_is_taken_ends_in_the_middle_of_a_transaction() {
    let (database, mut client) = two_organizations("usher_test_taken");
    let here = &mut client;
    let mut member = database.connect_as("clients_north");
    let count = "SELECT count(*) FROM usher.links";
    run(&mut member, "BEGIN");
    assert!(number(&mut member, count) > 0);
    run(here, "SELECT usher.revoke_membership('north', 'role:clients_north')");
    assert_eq!(number(&mut member, count), 0, "in the same transaction");
    run(here, "SELECT usher.grant_membership('north', 'role:clients_north')");
    assert!(number(&mut member, count) > 0);
    // As replication writes it, and by hand.
    run(
        here,
        "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM usher.memberships WHERE user_id = 'role:clients_north'; COMMIT",
    );
    assert_eq!(number(&mut member, count), 0);
    run(&mut member, "COMMIT");
    // One that was rolled back is not remembered.
    run(here, "BEGIN; SELECT usher.grant_membership('north', 'role:clients_north'); ROLLBACK");
    assert_eq!(number(&mut member, count), 0);
    // A transaction with one snapshot sees what it saw, and does not hand it on to the next.
    run(&mut member, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(number(&mut member, count), 0);
    run(here, "SELECT usher.grant_membership('north', 'role:clients_north')");
    assert_eq!(number(&mut member, count), 0);
    run(&mut member, "COMMIT");
    assert!(number(&mut member, count) > 0);
}

/// Between the look at an adopted table and its reading its owner puts a view in its place, whose function would run with the
/// rights of pg_usher's owner.
#[test]
fn a_view_in_the_place_of_an_adopted_table_is_not_read() {
    let (database, mut client) = two_organizations("usher_test_swapped");
    let here = &mut client;
    role(here, "clients_team_owner", "LOGIN");
    run(
        here,
        "CREATE SCHEMA app AUTHORIZATION clients_team_owner;
         SET ROLE clients_team_owner;
         CREATE TABLE app.people (organization_id uuid, user_id text, role text);
         CREATE INDEX ON app.people (user_id);
         CREATE TABLE app.ran (as_whom text); GRANT INSERT ON app.ran TO PUBLIC; GRANT USAGE ON SCHEMA app TO PUBLIC;
         CREATE FUNCTION app.evil() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO app.ran VALUES (current_user); RETURN true; END';
         GRANT SELECT ON app.people TO PUBLIC;
         RESET ROLE;
         SELECT usher.adopt_memberships('app.people')",
    );
    let mut member = database.connect_as("clients_north");
    let count = "SELECT count(*) FROM usher.links";
    assert!(number(&mut member, count) > 0);
    let mut owner = database.connect_as("clients_team_owner");
    for swap in [
        "ALTER TABLE app.people RENAME TO people_; CREATE VIEW app.people AS SELECT * FROM app.people_ WHERE app.evil(); GRANT SELECT ON app.people TO PUBLIC",
        // Back again, and with a policy.
        "DROP VIEW app.people; ALTER TABLE app.people_ RENAME TO people; ALTER TABLE app.people ENABLE ROW LEVEL SECURITY; ALTER TABLE app.people FORCE ROW LEVEL SECURITY;
         CREATE POLICY evil ON app.people USING (app.evil())",
    ] {
        run(&mut owner, "BEGIN");
        run(&mut owner, swap);
        let asking = {
            let database = database.clone();
            std::thread::spawn(move || {
                let mut member = database.connect_as("clients_north");
                number(&mut member, "SELECT count(*) FROM usher.links")
            })
        };
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'clients_north' AND wait_event_type = 'Lock'",
        );
        run(&mut owner, "COMMIT");
        assert!(asking.join().expect("the member is answered") > 0, "what usher.memberships says stays");
        assert!(number(&mut member, count) > 0);
        assert_eq!(number(here, "SELECT count(*) FROM app.ran WHERE as_whom <> 'clients_team_owner'"), 0, "{swap}");
    }
    run(here, "SELECT usher.release_memberships(); DROP OWNED BY clients_team_owner CASCADE");
}
