//! How often clients may call: exactly, whoever asks and over however many connections, and nobody uses up what is others'.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use usher_clients::postgrest::Rest;
use usher_clients::{Client, Database, json, number, refused, role, run, text};

fn installation(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    for name in ["clients_north", "clients_south"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    run(
        here,
        "SELECT usher.create_organization('north'), usher.create_organization('south');
         SELECT usher.grant_membership('north', 'role:clients_north', 'admin'), usher.grant_membership('south', 'role:clients_south', 'admin');
         CREATE FUNCTION public.report(organization text) RETURNS text LANGUAGE plpgsql AS
             $$BEGIN PERFORM usher.check_rate('public.report', (SELECT id FROM usher.organizations WHERE slug = organization)); RETURN 'done'; END$$",
    );
    (database, client)
}

#[test]
fn exactly_so_many_pass_over_eight_connections() {
    let (database, mut client) = installation("usher_test_rates");
    run(&mut client, "SELECT usher.limit_rpc('1 per day', 'public.report', burst => 1000)");
    let (passed, refusals) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (database, passed, refusals) = (database.clone(), passed.clone(), refusals.clone());
            thread::spawn(move || {
                let mut client = database.connect_as("clients_north");
                for _ in 0..400 {
                    match client.query_one("SELECT public.report('north')", &[]) {
                        Ok(_) => passed.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("PT429"));
                            refusals.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("a caller ends"));
    assert_eq!((passed.load(Ordering::SeqCst), refusals.load(Ordering::SeqCst)), (1000, 2200));

    // Inside one statement just so, and the other organization has its own.
    let mut south = database.connect_as("clients_south");
    assert_eq!(number(&mut south, "SELECT count(public.report('south')) FROM generate_series(1, 1000)"), 1000);
    assert_eq!(refused(&mut south, "SELECT public.report('south')").code().code(), "PT429");
    // A refused call does not count, one that was rolled back does.
    run(&mut client, "SELECT usher.limit_rpc('1 per day', 'public.other', burst => 2)");
    for _ in 0..2 {
        run(&mut south, "BEGIN; SELECT usher.check_rate('public.other'); ROLLBACK");
    }
    let error = refused(&mut south, "SELECT usher.check_rate('public.other')");
    assert_eq!(error.code().code(), "PT429");
    assert!(error.detail().is_some_and(|detail| detail.contains("86400 s") || detail.contains("8639")), "{:?}", error.detail());
}

#[test]
fn nobody_uses_up_what_is_of_others() {
    let (database, mut client) = installation("usher_test_shares");
    run(&mut client, "SELECT usher.limit_rpc('2 per day')");
    let (mut north, mut south) = (database.connect_as("clients_north"), database.connect_as("clients_south"));
    // For an organization that is not one's own nothing is counted.
    let foreign = "SELECT usher.check_rate('x', id) FROM unnest(ARRAY[(SELECT gen_random_uuid())]) AS id";
    assert_eq!(refused(&mut north, foreign).code().code(), "42501");
    let id = text(&mut client, "SELECT id::text FROM usher.organizations WHERE slug = 'south'");
    for _ in 0..5 {
        assert_eq!(refused(&mut north, &format!("SELECT usher.check_rate('x', '{id}')")).code().code(), "42501");
    }
    run(&mut south, &format!("SELECT usher.check_rate('x', '{id}')"));
    run(&mut south, &format!("SELECT usher.check_rate('y', '{id}')"));
    assert_eq!(
        refused(&mut south, &format!("SELECT usher.check_rate('z', '{id}')")).code().code(),
        "PT429",
        "all functions together"
    );
    assert_eq!(text(&mut south, "SELECT organization || ' ' || calls_left FROM usher.rpc_limits"), "south 0");
    assert_eq!(text(&mut north, "SELECT organization || ' ' || calls_left FROM usher.rpc_limits"), "north 2");
    // Where none is named, each person is counted alone.
    run(&mut north, "SELECT usher.check_rate('x'); SELECT usher.check_rate('x')");
    assert_eq!(refused(&mut north, "SELECT usher.check_rate('x')").code().code(), "PT429");
    run(&mut south, "SELECT usher.check_rate('x')");
    // pg_usher's own functions keep to it; operators and flows do not need to.
    let enqueue = "SELECT usher.enqueue_sync_job('south', 'a', 'b', '{\"action\": \"none\"}')";
    assert_eq!(refused(&mut south, enqueue).code().code(), "PT429");
    assert_eq!(refused(&mut client, enqueue).code().code(), "22023", "an operator is told what is wrong with it");
    // Ended at once, in sessions that are open.
    run(&mut client, "SELECT usher.unlimit_rpc(id) FROM usher.rpc_rules");
    assert_eq!(refused(&mut south, enqueue).code().code(), "22023");
}

#[test]
fn a_client_of_postgrest_is_told_when_to_come_back() {
    let (database, mut client) = installation("usher_test_429");
    let here = &mut client;
    role(here, "authenticator", "LOGIN NOINHERIT");
    role(here, "authenticated", "NOLOGIN");
    run(
        here,
        "GRANT authenticated TO authenticator; GRANT usher_member TO authenticated; GRANT USAGE ON SCHEMA public TO authenticated;
         SELECT usher.grant_membership('north', 'anna', 'admin');
         SELECT usher.limit_rpc('30 per minute', 'public.report', role => 'authenticated', burst => 2)",
    );
    let mut anna = Rest::signed_in(&database, "public", "anna");
    for _ in 0..2 {
        assert!(anna.rpc("report", &json!({"organization": "north"})).ok().to_string().contains("done"));
    }
    let answer = anna.rpc("report", &json!({"organization": "north"}));
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_eq!(answer.body["code"], json!("PT429"));
    assert_eq!(answer.body["headers"]["Retry-After"], json!("2"), "{}", answer.body);
    // A role that is not limited.
    let mut north = database.connect_as("clients_north");
    assert_eq!(number(&mut north, "SELECT count(public.report('north')) FROM generate_series(1, 10)"), 10);
}
