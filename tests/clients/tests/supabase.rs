//! docs/supabase.md: its statements, run as it says, and what people see then, asked for as PostgREST asks.

use usher_clients::page;
use usher_clients::postgrest::Rest;
use usher_clients::{Client, Database, Value, json, number, role, run, text, wait};

const OWNER: &str = "11111111-0000-4000-8000-000000000001";
const VIEWER: &str = "11111111-0000-4000-8000-000000000002";
const STRANGER: &str = "11111111-0000-4000-8000-000000000003";

/// The statements of the page with the role that runs them: the last one that was named in the text before.
fn blocks() -> Vec<(String, String)> {
    let mut role = String::new();
    let named = |before: &str| {
        let line = before.lines().rev().find_map(|line| line.split("As `").nth(1))?;
        let set = line.split("SET ROLE ").nth(1).map(|set| set.trim_end_matches(['`', ':']).to_owned());
        Some(set.unwrap_or_else(|| line.split('`').next().unwrap_or_default().to_owned()))
    };
    let blocks = page::blocks("supabase.md").into_iter();
    blocks
        .map(|block| {
            role = named(&block.before).unwrap_or_else(|| role.clone());
            (role.clone(), block.sql)
        })
        .collect()
}

/// Roles as Supabase makes them, in a database of its own.
fn project(name: &str) -> (Database, Client) {
    let database = Database::create_empty(name);
    let mut client = database.connect();
    let here = &mut client;
    role(here, "supabase_admin", "SUPERUSER");
    role(here, "authenticator", "LOGIN NOINHERIT");
    for name in ["anon", "authenticated", "service_role", "clients_supabase_postgres"] {
        role(here, name, "NOLOGIN");
    }
    role(here, "clients_supabase_postgres", "LOGIN CREATEROLE");
    run(here, "GRANT anon, authenticated, service_role TO authenticator");
    // What an earlier run has left on the server.
    for name in ["hub_owner", "shop_shipping"] {
        run(
            here,
            &format!(
                "DO $$ BEGIN IF to_regrole('{name}') IS NOT NULL THEN DROP OWNED BY {name}; DROP ROLE {name}; END IF; END $$"
            ),
        );
    }
    run(
        here,
        &format!(
            "GRANT ALL ON DATABASE {name} TO clients_supabase_postgres; GRANT ALL ON SCHEMA public TO clients_supabase_postgres; GRANT USAGE ON SCHEMA public TO authenticated"
        ),
    );
    (database, client)
}

#[test]
fn the_page_runs_from_an_empty_project_to_a_call_in_the_browser() {
    let (database, mut client) = project("usher_test_supabase");
    let here = &mut client;
    let blocks = blocks();
    assert_eq!(blocks.len(), 7, "{blocks:#?}");
    for (role, sql) in &blocks {
        // On a scratch cluster "postgres" is a superuser, on Supabase it is none.
        let (role, sql) = match role.as_str() {
            "postgres" => ("clients_supabase_postgres", sql.clone()),
            "supabase_admin" => {
                ("supabase_admin", sql.replace("TO postgres;", "TO clients_supabase_postgres WITH ADMIN OPTION;"))
            }
            other => (other, sql.clone()),
        };
        assert!(["clients_supabase_postgres", "supabase_admin", "hub_owner"].contains(&role), "{role}");
        run(here, &format!("SET ROLE {role}"));
        run(here, &sql);
        run(here, "RESET ROLE");
    }
    database.await_workers();
    assert_eq!(number(here, "SELECT count(*) FROM pg_roles WHERE rolname = 'hub_owner' AND rolsuper"), 0);

    // People sign up: by the application's own tables.
    run(
        here,
        &format!(
            "INSERT INTO public.teams (handle, title, timezone) VALUES ('acme', 'Acme', 'Europe/Berlin'), ('other', 'Other', NULL);
             INSERT INTO public.team_members (team_id, user_id, role) SELECT id, '{OWNER}', 'owner' FROM public.teams WHERE handle = 'acme';
             INSERT INTO public.team_members (team_id, user_id, role) SELECT id, '{VIEWER}', 'viewer' FROM public.teams WHERE handle = 'acme';
             INSERT INTO public.team_members (team_id, user_id, role) SELECT id, '{STRANGER}', 'owner' FROM public.teams WHERE handle = 'other'"
        ),
    );
    let team = text(here, "SELECT id::text FROM public.teams WHERE handle = 'acme'");

    // An order is paid, and is shipped.
    let mut shop = Rest::signed_in(&database, "public", OWNER);
    shop.insert("orders", &json!({"organization_id": team, "customer": "Anna", "total": 48, "status": "paid"})).ok();
    wait::until_true(here, "SELECT count(*) = 1 FROM public.shipments WHERE address = 'Anna'");
    let ask = |client: &mut Rest| {
        let payload = json!({"action": "repack", "order": 1});
        client.rpc(
            "enqueue_sync_job",
            &json!({"organization": "acme", "source_system": "shop", "target_system": "shipping", "payload": payload}),
        )
    };
    let mut owner = Rest::signed_in(&database, "usher", OWNER);
    let job = ask(&mut owner).ok()["id"].as_str().unwrap_or_default().to_owned();
    let status = |client: &mut Rest| client.get("sync_jobs", &[("id", &job)], "").ok();
    wait::until(wait::LONG, "the job has run", || status(&mut owner)[0]["status"] == json!("synced"));

    // A viewer sees it and may not ask; a stranger sees nothing and is told nothing.
    let mut viewer = Rest::signed_in(&database, "usher", VIEWER);
    assert_eq!(status(&mut viewer).as_array().map(Vec::len), Some(1));
    let refused = ask(&mut viewer);
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("42501")));
    let mut stranger = Rest::signed_in(&database, "usher", STRANGER);
    assert_eq!(status(&mut stranger), json!([]));
    let foreign = ask(&mut stranger);
    let unknown = stranger.rpc(
        "enqueue_sync_job",
        &json!({"organization": "nowhere", "source_system": "shop", "target_system": "shipping", "payload": {"action": "repack"}}),
    );
    let said = |body: &Value, name: &str| body["message"].as_str().unwrap_or_default().replace(name, "…");
    assert_eq!((foreign.status, said(&foreign.body, "acme")), (unknown.status, said(&unknown.body, "nowhere")));
    assert_eq!(Rest::signed_in(&database, "public", STRANGER).get("orders", &[], "").ok(), json!([]));
    // Without a token, and with roles and organizations written into a token: nothing.
    assert_eq!(ask(&mut Rest::anonymous(&database, "usher")).status, 401);
    let forged = json!({"role": "authenticated", "sub": STRANGER, "organization_id": team, "app_metadata": {"role": "legend", "organizations": [team]}});
    let mut forger = Rest::with_claims(&database, "usher", forged);
    assert_eq!(status(&mut forger), json!([]));

    // Who leaves has no right in the next statement.
    run(here, &format!("UPDATE public.team_members SET left_at = now() WHERE user_id = '{OWNER}'"));
    assert_eq!(ask(&mut owner).status, 403);
    assert_eq!(status(&mut owner), json!([]));
    run(here, &format!("UPDATE public.team_members SET left_at = NULL WHERE user_id = '{OWNER}'"));

    // Sixty a minute, and one was used.
    let mut last = ask(&mut owner);
    for _ in 0..70 {
        if last.status != 200 {
            break;
        }
        last = ask(&mut owner);
    }
    assert_eq!(last.status, 429, "{}", last.body);
    assert_eq!(last.body["headers"]["Retry-After"], json!("1"));
}
