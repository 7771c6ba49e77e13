//! Eve is an admin of organization north, has a login, a schema of her own and every trick of SQL. She tries to read, change or
//! stall organization south, and to become an operator or the owner. Each attempt is a test.

use std::time::Duration;
use usher_clients::postgrest::Rest;
use usher_clients::{Client, Database, SqlState, Uuid, enqueue, flow, json, number, refused, role, run, text, value, wait};

/// North and south with rows, jobs, links, secrets and history; Eve's connection is the last.
fn house(name: &str) -> (Database, Client, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    for name in ["clients_eve", "clients_south"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "authenticated", "NOLOGIN");
    role(here, "clients_worker", "NOLOGIN");
    run(
        here,
        "GRANT usher_member TO authenticated; GRANT authenticated TO authenticator;
         CREATE TABLE public.things (organization_id uuid NOT NULL, id integer, name text, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.copies (organization_id uuid NOT NULL, id integer, name text, PRIMARY KEY (organization_id, id));
         ALTER TABLE public.things ENABLE ROW LEVEL SECURITY;
         CREATE POLICY members ON public.things TO usher_member USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]));
         CREATE POLICY worker ON public.things TO clients_worker USING (true);
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.things TO usher_member; GRANT SELECT ON public.things TO clients_worker;
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.copies TO clients_worker",
    );
    flow(
        here,
        "copy",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_worker", "retry": {"delays": []},
            "when": {"change": "public.things", "on": ["insert", "update"]},
            "then": {"upsert": "public.copies", "key": ["id"]}, "set": {"id": "new.id", "name": "new.name"},
            "link": {"kind": "thing", "left": "new.id", "right": "id"}
        }),
    );
    flow(
        here,
        "ask",
        &json!({
            "from": "left", "to": "right", "run_as": "clients_worker", "retry": {"delays": []}, "when": {"request": "ask"},
            "then": {"upsert": "public.copies", "key": ["id"]}, "set": {"id": "(job.payload ->> 'id')::integer", "name": "job.payload ->> 'name'"}
        }),
    );
    for (organization, login) in [("north", "clients_eve"), ("south", "clients_south")] {
        let id: Uuid = value(here, "SELECT usher.create_organization($1)", &[&organization]);
        run(
            here,
            &format!(
                "SELECT usher.grant_membership('{organization}', 'role:{login}', 'admin'), usher.grant_membership('{organization}', 'user-{organization}', 'admin');
                 INSERT INTO public.things VALUES ('{id}', 1, 'of {organization}'), ('{id}', 2, 'also of {organization}')"
            ),
        );
        // One that waits, one that is dead.
        run(
            here,
            &format!(
                "SELECT usher.enqueue_sync_job('{organization}', 'left', 'right', '{{\"action\": \"ask\", \"id\": 9, \"name\": \"later of {organization}\"}}', run_at => now() + interval '1 day', unique_key => 'once');
                 SELECT usher.enqueue_sync_job('{organization}', 'left', 'right', '{{\"action\": \"ask\", \"id\": \"none\", \"name\": \"dead of {organization}\"}}')"
            ),
        );
    }
    run(here, "CREATE SCHEMA eve AUTHORIZATION clients_eve");
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.dead_letters");
    wait::until_true(here, "SELECT count(*) = 4 FROM public.copies");
    let eve = database.connect_as("clients_eve");
    (database, client, eve)
}

/// What south has, as one text: nothing of it may change.
fn south(client: &mut Client) -> String {
    text(
        client,
        "WITH o AS (SELECT id FROM usher.organizations WHERE slug = 'south')
         SELECT concat_ws(E'\\n',
            (SELECT string_agg(t::text, ';' ORDER BY t::text) FROM public.things t, o WHERE t.organization_id = o.id),
            (SELECT string_agg(t::text, ';' ORDER BY t::text) FROM public.copies t, o WHERE t.organization_id = o.id),
            (SELECT string_agg(t::text, ';' ORDER BY t::text) FROM usher.links t, o WHERE t.organization_id = o.id),
            (SELECT string_agg(concat_ws(' ', t.id, t.status, t.payload), ';' ORDER BY t.id) FROM usher.sync_jobs t, o WHERE t.organization_id = o.id),
            (SELECT string_agg(t::text, ';' ORDER BY t::text) FROM usher.memberships t, o WHERE t.organization_id = o.id))",
    )
}

#[track_caller]
fn denied(eve: &mut Client, attempts: &[&str]) {
    for sql in attempts {
        let error = refused(eve, sql);
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}: {}", error.message());
        run(eve, "ROLLBACK; RESET ALL; RESET ROLE");
    }
}

#[test]
fn she_becomes_nobody_else() {
    let (_database, mut client, mut eve) = house("usher_test_eve_roles");
    let before = south(&mut client);
    denied(
        &mut eve,
        &[
            "SET ROLE usher_operator",
            "SET ROLE usher_reader",
            "SET ROLE clients_worker",
            "SET ROLE clients_south",
            "SET SESSION AUTHORIZATION postgres",
            "SELECT set_config('role', 'usher_operator', false)",
            "GRANT usher_operator TO clients_eve",
            "ALTER ROLE clients_eve SUPERUSER",
            "SET usher.user_id = 'user-south'",
            "SELECT set_config('usher.user_id', 'user-south', true)",
            "SELECT usher.grant_membership('south', 'role:clients_eve', 'admin')",
            "SELECT usher.grant_membership('north', 'role:clients_eve', 'legend')",
            "INSERT INTO usher.memberships SELECT id, 'role:clients_eve', 'admin' FROM usher.organizations",
            "UPDATE usher.memberships SET role = 'legend'",
            "SELECT usher.setup()",
            "SELECT usher.remove('remove all data')",
            "SELECT usher.detach_all()",
            "SELECT usher.create_flow('mine', '{\"from\": \"left\", \"to\": \"right\"}')",
            "SELECT usher.adopt_memberships('public.things')",
            "ALTER TABLE usher.jobs OWNER TO clients_eve",
            "REASSIGN OWNED BY postgres TO clients_eve",
            "ALTER EXTENSION pg_usher UPDATE",
            "ALTER FUNCTION usher.actor() OWNER TO clients_eve",
            "CREATE FUNCTION usher.actor() RETURNS text LANGUAGE sql AS 'SELECT 1'",
            "ALTER SYSTEM SET usher.claims_roles = 'clients_eve'",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION usher.follow_ddl()",
        ],
    );
    // Claims in a session of her own mean nothing.
    run(&mut eve, "SELECT set_config('request.jwt.claims', '{\"sub\": \"user-south\", \"role\": \"service_role\"}', false)");
    assert_eq!(text(&mut eve, "SELECT usher.actor()"), "role:clients_eve");
    assert_eq!(south(&mut client), before);
}

#[test]
fn her_own_names_in_front_change_nothing() {
    let (_database, mut client, mut eve) = house("usher_test_eve_names");
    let before = south(&mut client);
    run(
        &mut eve,
        "CREATE TABLE eve.ran (as_whom text, what text); GRANT INSERT ON eve.ran TO PUBLIC; GRANT USAGE ON SCHEMA eve TO PUBLIC;
         CREATE FUNCTION eve.yes(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO eve.ran VALUES (current_user, ''=''); RETURN true; END';
         CREATE OPERATOR eve.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = eve.yes);
         CREATE FUNCTION eve.yes(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO eve.ran VALUES (current_user, ''text =''); RETURN true; END';
         CREATE OPERATOR eve.= (LEFTARG = text, RIGHTARG = text, FUNCTION = eve.yes);
         CREATE FUNCTION eve.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN INSERT INTO eve.ran VALUES (current_user, ''now''); RETURN clock_timestamp(); END';
         CREATE FUNCTION eve.count(anyelement) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN INSERT INTO eve.ran VALUES (current_user, ''count''); RETURN 0; END';
         CREATE FUNCTION eve.member_organizations() RETURNS uuid[] LANGUAGE sql AS 'SELECT ARRAY[]::uuid[]';
         CREATE FUNCTION eve.lower(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO eve.ran VALUES (current_user, ''lower''); RETURN $1; END';
         CREATE TEMP TABLE organizations (id uuid, slug text); CREATE TEMP TABLE memberships (organization_id uuid, user_id text, role text);
         CREATE TEMP TABLE sync_jobs (id uuid); CREATE TEMP TABLE pg_class (oid oid); CREATE TEMP TABLE jobs (seq bigint);
         INSERT INTO memberships VALUES ('00000000-0000-0000-0000-000000000000', 'role:clients_eve', 'legend');
         SET search_path = eve, pg_temp, usher, pg_catalog",
    );
    for sql in [
        "SELECT usher.enqueue_sync_job('north', 'left', 'right', '{\"action\": \"ask\", \"id\": 5, \"name\": \"x\"}')",
        "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE status = 'pending'::text LIMIT 1",
        "SELECT usher.retry_dead_letters('north', '{}')",
        "SELECT usher.cancel_sync_jobs('north', '{\"flow\": \"ask\"}')",
        "SELECT usher.create_batch('north', 'mine')",
        "SELECT * FROM usher.status()",
        "SELECT * FROM usher.queue",
        "SELECT * FROM usher.limits",
        "UPDATE public.things SET name = 'new'",
        "SELECT usher.grant_membership('north', 'somebody')",
    ] {
        let _ = eve.batch_execute(sql);
        run(&mut eve, "ROLLBACK");
    }
    let foreign = "SELECT pg_catalog.count(*) FROM usher.sync_jobs WHERE organization_id OPERATOR(pg_catalog.<>) (SELECT id FROM usher.organizations WHERE slug OPERATOR(pg_catalog.=) 'north')";
    assert_eq!(number(&mut eve, foreign), 0);
    // Hers may run as herself, where she calls them.
    assert_eq!(number(&mut client, "SELECT count(*) FROM eve.ran WHERE as_whom <> 'clients_eve'"), 0);
    assert_eq!(south(&mut client), before);
}

#[test]
fn what_she_asks_shows_nothing_of_south() {
    let (_database, mut client, mut eve) = house("usher_test_eve_reads");
    let id = text(&mut client, "SELECT id::text FROM usher.organizations WHERE slug = 'south'");
    run(
        &mut eve,
        "CREATE TABLE eve.seen (what text);
         CREATE FUNCTION eve.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS 'BEGIN INSERT INTO eve.seen VALUES ($1::text); RETURN true; END'",
    );
    let readable: Vec<String> = eve
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname IN ('usher', 'public') AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege(c.oid, 'SELECT')",
            &[],
        )
        .expect("what she may read")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(readable.len() > 15, "{readable:?}");
    for name in &readable {
        // A function in the way of a policy or a view, as cheap as can be.
        run(&mut eve, &format!("SELECT count(*) FROM {name} AS t WHERE eve.leak(t)"));
        // An error that only a foreign row would raise.
        run(
            &mut eve,
            &format!(
                "SELECT count(*) FROM {name} AS t WHERE 1 / (CASE WHEN t::text LIKE '%of south%' OR t::text LIKE '%{id}%' THEN 0 ELSE 1 END) = 1"
            ),
        );
    }
    let seen = format!("SELECT count(*) FROM eve.seen WHERE what LIKE '%south%' OR what LIKE '%{id}%'");
    assert_eq!(
        number(&mut eve, &seen),
        0,
        "{}",
        text(&mut eve, "SELECT string_agg(what, E'\\n') FROM eve.seen WHERE what LIKE '%south%'")
    );
    assert!(number(&mut eve, "SELECT count(*) FROM eve.seen") > 10, "the test itself: something is seen");
    // Statistics, partitions and toast of what has row level security.
    assert_eq!(
        number(
            &mut eve,
            "SELECT count(*) FROM pg_stats WHERE schemaname = 'usher' AND tablename NOT IN ('systems', 'flow_versions')"
        ),
        0
    );
    let partitions = "SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'usher'::regnamespace AND c.relispartition AND has_table_privilege(c.oid, 'SELECT')";
    assert_eq!(number(&mut eve, partitions), 0);
    // Whether something exists is not told: of foreign and unknown things alike.
    let foreign = text(&mut client, &format!("SELECT id::text FROM usher.sync_jobs WHERE organization_id = '{id}' LIMIT 1"));
    for ask in [
        "SELECT usher.cancel_sync_job('{}')",
        "SELECT usher.retry_sync_job('{}')",
        "SELECT usher.wait_for('{}', '0 s')",
        "SELECT usher.reprioritise('{}', 'low')",
        "SELECT usher.job_result('{}')",
        "SELECT usher.finish_job('{}', '{}')",
    ] {
        let answer = |eve: &mut Client, job: &str| match eve.query_opt(&ask.replace("{}", job), &[]) {
            Ok(row) => format!("{:?}", row.map(|row| row.len())),
            Err(error) => error
                .as_db_error()
                .map(|said| format!("{} {}", said.code().code(), said.message().replace(job, "…")))
                .unwrap_or_default(),
        };
        let unknown = answer(&mut eve, "00000000-0000-4000-8000-000000000000");
        assert_eq!(answer(&mut eve, &foreign), unknown, "{ask}");
    }
    for ask in [
        "SELECT usher.enqueue_sync_job('{}', 'left', 'right', '{\"action\": \"ask\"}')",
        "SELECT usher.create_batch('{}', 'mine')",
        "SELECT usher.cancel_sync_jobs('{}', '{\"flow\": \"ask\"}')",
        "SELECT usher.retry_dead_letters('{}', '{\"flow\": \"ask\"}')",
        "SELECT usher.grant_membership('{}', 'me')",
        "SELECT usher.pause_jobs(organization => '{}')",
        "SELECT usher.set_secret('{}', 'a', 'b')",
        "SELECT usher.secret('{}', 'a')",
    ] {
        let said = |eve: &mut Client, name: &str| {
            let error = refused(eve, &ask.replace("'{}'", &format!("'{name}'")));
            format!("{} {}", error.code().code(), error.message().replace(name, "…"))
        };
        assert_eq!(said(&mut eve, "south"), said(&mut eve, "nowhere"), "{ask}");
        assert!(said(&mut eve, "south").starts_with("42501"), "{ask}");
    }
    // A key that south has used is free in north.
    let job = enqueue(&mut eve, "north", "left", "right", &json!({"action": "ask", "id": 8, "name": "mine"}));
    assert_eq!(value::<i64>(&mut eve, "SELECT count(*) FROM usher.sync_jobs WHERE id = $1", &[&job]), 1);
}

#[test]
fn she_plants_nothing_in_the_queue_and_holds_nobody_up() {
    let (database, mut client, mut eve) = house("usher_test_eve_queue");
    let before = south(&mut client);
    run(
        &mut eve,
        "CREATE FUNCTION eve.planted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; GRANT USAGE ON SCHEMA eve TO PUBLIC",
    );
    denied(
        &mut eve,
        &[
            "CREATE TRIGGER planted BEFORE INSERT ON usher.jobs FOR EACH ROW EXECUTE FUNCTION eve.planted()",
            "CREATE TRIGGER planted BEFORE INSERT ON usher.queue_waiting FOR EACH ROW EXECUTE FUNCTION eve.planted()",
            "CREATE TRIGGER planted BEFORE INSERT ON public.copies FOR EACH ROW EXECUTE FUNCTION eve.planted()",
            "CREATE RULE planted AS ON INSERT TO usher.jobs DO INSTEAD NOTHING",
            "CREATE POLICY planted ON usher.jobs USING (true)",
            "CREATE INDEX planted ON usher.jobs (seq)",
            "CREATE STATISTICS eve.planted ON lane, seq FROM usher.jobs",
            "INSERT INTO usher.jobs DEFAULT VALUES",
            "DELETE FROM usher.queue_waiting",
            "UPDATE usher.job_floors SET floor = 9223372036854775807",
            "UPDATE usher.links SET status = 'failed'",
            "SELECT FROM usher.links FOR UPDATE",
            "BEGIN; LOCK TABLE usher.jobs IN EXCLUSIVE MODE",
            "BEGIN; LOCK TABLE usher.queue_waiting IN ROW EXCLUSIVE MODE",
            "TRUNCATE usher.audit_log",
            "SELECT nextval('usher.queue_seq')",
            "SELECT usher.hold_lane('normal')",
            "SELECT usher.take_seq(3::smallint)",
            "SELECT usher.limit_queue(1, 'refuse')",
            "SELECT usher.pause_jobs(flow => 'copy')",
            "SELECT usher.limit_rpc('1 per day')",
            "ALTER TABLE public.things DISABLE TRIGGER ALL",
            "SET session_replication_role = replica",
            "SET usher.capture = off",
        ],
    );
    let worker = number(
        &mut client,
        "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database() LIMIT 1",
    );
    denied(&mut eve, &[&format!("SELECT pg_terminate_backend({worker})"), &format!("SELECT pg_cancel_backend({worker})")]);
    // Into another organization, by its table and by the names of its rows.
    let id = text(&mut client, "SELECT id::text FROM usher.organizations WHERE slug = 'south'");
    denied(&mut eve, &[&format!("INSERT INTO public.things VALUES ('{id}', 7, 'planted')")]);
    assert_eq!(
        eve.execute("UPDATE public.things SET name = 'planted' WHERE name LIKE '%south%'", &[]).expect("an update of nothing"),
        0
    );
    denied(&mut eve, &[&format!("UPDATE public.things SET organization_id = '{id}'")]);

    // JSON that is crafted: refused clearly, or taken for what it is.
    let deep = format!("{{\"action\": \"ask\", \"id\": {}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let wide = format!("{{\"action\": \"ask\", \"id\": 6, \"name\": \"{}\"}}", "x".repeat(20_000_000));
    for payload in [
        deep.as_str(),
        &wide,
        "{\"action\": \"ask\", \"id\": 1e400}",
        "{\"action\": \"ask\", \"name\": \"\\u0000\"}",
        "{\"action\": \"ask\", \"id\": \"1; DROP TABLE usher.jobs\"}",
        "{\"action\": \"ask'; SELECT 1; --\"}",
        "{\"action\": [1]}",
        "[]",
        "null",
        "\"ask\"",
    ] {
        let _ = eve.batch_execute(&format!(
            "SELECT usher.enqueue_sync_job('north', 'left', 'right', '{}')",
            payload.replace('\'', "''")
        ));
    }
    assert!(
        eve.batch_execute("SELECT usher.enqueue_sync_job('north', 'left', 'right', convert_from('\\xc328', 'UTF8')::jsonb)")
            .is_err()
    );
    for name in [
        "'; DROP TABLE usher.jobs; --",
        "north' OR '1'='1",
        "\u{202e}htron",
        "NORTH",
        " ",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let error = refused(
            &mut eve,
            &format!("SELECT usher.enqueue_sync_job('{}', 'left', 'right', '{{\"action\": \"ask\"}}')", name.replace('\'', "''")),
        );
        assert!(matches!(error.code().code(), "42501" | "22023"), "{name}: {}", error.message());
    }

    // While her transaction holds what it may hold, and a hundred thousand of her jobs wait, a job of south runs. Everything is ready before
    // they are made: the worker has begun with them at once.
    let mut open = database.connect_as("clients_eve");
    run(
        &mut open,
        "BEGIN; SELECT count(*) FROM usher.sync_jobs; LOCK TABLE usher.jobs IN ACCESS SHARE MODE; SELECT pg_advisory_lock(n) FROM generate_series(1, 100) AS n; INSERT INTO public.things SELECT id, 77, 'open' FROM usher.organizations",
    );
    let mut southern = database.connect_as("clients_south");
    let many = "SELECT usher.enqueue_sync_jobs('north', 'left', 'right', array_agg(jsonb_build_object('action', 'ask', 'id', n, 'name', 'many'))) FROM generate_series(1, 100000) AS n";
    let _ = eve.query_one(many, &[]).expect("she may ask for many");
    let job = enqueue(&mut southern, "south", "left", "right", &json!({"action": "ask", "id": 1, "name": "of south"}));
    let ended = "SELECT status FROM usher.wait_for($1, '30 s')";
    assert_eq!(value::<String>(&mut southern, ended, &[&job]), "synced");
    let waiting =
        number(&mut client, "SELECT count(*) FROM usher.sync_jobs WHERE flow = 'ask' AND status = 'pending' AND run_at IS NULL");
    assert!(waiting > 0, "the test itself: it was not done because hers were");
    run(&mut open, "ROLLBACK");
    run(&mut eve, "SELECT usher.cancel_sync_jobs('north', '{\"flow\": \"ask\"}')");
    wait::until(Duration::from_secs(60), "what is under way has ended", || {
        number(
            &mut client,
            "SELECT count(*) FROM usher.sync_jobs WHERE flow = 'ask' AND status IN ('pending', 'in_progress') AND run_at IS NULL",
        ) == 0
    });
    run(&mut client, &format!("DELETE FROM usher.job_history WHERE id = '{job}'"));
    let after = south(&mut client);
    assert_eq!(without(&after, &job.to_string()), before);
}

/// The picture without one job.
fn without(picture: &str, job: &str) -> String {
    let lines = picture.lines().map(|line| line.split(';').filter(|part| !part.starts_with(job)).collect::<Vec<_>>().join(";"));
    lines.collect::<Vec<_>>().join("\n")
}

/// One connection of a gateway serves one person after another: nothing stays of the one before.
#[test]
fn the_next_person_of_a_connection_gets_nothing_of_the_last() {
    let (database, mut client, _eve) = house("usher_test_eve_pool");
    run(&mut client, "GRANT USAGE ON SCHEMA public TO authenticated; GRANT SELECT ON public.things TO authenticated");
    let mut gateway = database.connect_as("authenticator");
    let links = gateway.prepare("SELECT count(*) FROM usher.links").err();
    assert!(links.is_some(), "the gateway itself may read nothing");
    let mut counts = Vec::new();
    for sub in ["user-north", "user-south", "nobody", "user-north"] {
        run(
            &mut gateway,
            &format!(
                "BEGIN; SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{{\"sub\": \"{sub}\"}}', true)"
            ),
        );
        // The same text each time: plans and what is remembered of people must not be handed on.
        let seen = text(&mut gateway, "SELECT string_agg(DISTINCT name, ', ' ORDER BY name) FROM public.things");
        counts.push((sub, seen, number(&mut gateway, "SELECT count(*) FROM usher.links")));
        run(&mut gateway, "COMMIT");
    }
    let of = |name: &str| format!("also of {name}, of {name}");
    assert_eq!(
        counts,
        vec![
            ("user-north", of("north"), 2),
            ("user-south", of("south"), 2),
            ("nobody", String::new(), 0),
            ("user-north", of("north"), 2)
        ]
    );
    // Through requests as PostgREST makes them, likewise.
    let mut north = Rest::signed_in(&database, "public", "user-north");
    assert_eq!(north.get("things", &[("name", "of south")], "").ok(), json!([]));
    assert_eq!(north.insert("things", &json!({"organization_id": text(&mut client, "SELECT id::text FROM usher.organizations WHERE slug = 'south'"), "id": 5, "name": "x"})).refused(), "42501");
}
