//! The pack live_events from outside: the deal's way to the guests, and that the engine knows nothing of it.

use std::thread;
use usher_clients::postgres::GenericClient;
use usher_clients::{
    Client, Database, SqlState, Uuid, enqueue, flow, json, number, refused, role, run, settled, text, value, wait,
};

const LONG: std::time::Duration = wait::LONG;

fn pack(name: &str) -> (Database, Client, Uuid) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(&mut client, "SELECT usher.install_pack('live_events')");
    let acme = value(&mut client, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &[]);
    (database, client, acme)
}

/// A deal in state `proposal`.
fn offer(client: &mut Client, organization: Uuid, title: &str, worth: f64) -> Uuid {
    let sql = "INSERT INTO atlvs.deals (organization_id, title, status, value, event_date, venue_name, venue_timezone, expected_attendance, won_at)
               VALUES ($1, $2, 'proposal', $3::float8, '2026-08-01', 'Tempodrom', 'Europe/Berlin', 3000, '2026-02-03') RETURNING id";
    value(client, sql, &[&organization, &title, &worth])
}

fn win(client: &mut impl GenericClient, deal: Uuid) {
    assert_eq!(client.execute("UPDATE atlvs.deals SET status = 'won' WHERE id = $1", &[&deal]).expect("a deal can be won"), 1);
}

/// A won deal's production, once it is there.
fn production_of(client: &mut Client, deal: Uuid) -> Uuid {
    let sql = "SELECT p.id FROM compvss.productions p JOIN atlvs.projects r ON r.id = p.project_ref WHERE r.deal_id = $1";
    wait::poll(LONG, || client.query_opt(sql, &[&deal]).expect("productions can be read").map(|row| row.get(0)))
        .unwrap_or_else(|| panic!("the production of the deal is there\n{}", wait::jobs(client)))
}

#[test]
fn w1_a_won_deal_becomes_project_production_and_event_once() {
    let (database, mut client, acme) = pack("usher_test_w1");
    let here = &mut client;
    assert!(
        text(here, "SELECT usher.install_pack('live_events')").contains("0 flows made, 0 changed"),
        "installing again is harmless"
    );
    let deal = offer(here, acme, "Summer Night", 48000.0);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 0, "an offer is no project");

    let mut other = database.connect();
    let mut transaction = here.transaction().expect("BEGIN");
    win(&mut transaction, deal);
    let project =
        transaction.query_one("SELECT code, name, budget_total::text, phase FROM atlvs.projects WHERE deal_id = $1", &[&deal]);
    let project = project.expect("the project is there before the COMMIT");
    let columns: Vec<String> = (0..4).map(|n| project.get(n)).collect();
    assert_eq!(columns, ["P-2026-00001", "Summer Night", "48000.00", "intake"]);
    assert_eq!(number(&mut other, "SELECT count(*) FROM atlvs.projects"), 0, "nobody else sees it");
    transaction.commit().expect("COMMIT");

    wait::until_true(here, "SELECT count(*) = 1 FROM gvteway.events");
    settled(here, LONG);
    let event = "SELECT concat_ws('|', e.title, e.status, e.venue_name, e.capacity, e.starts_at AT TIME ZONE e.timezone, e.production_ref = p.id)
                   FROM gvteway.events e, compvss.productions p";
    assert_eq!(text(here, event), "Summer Night|draft|Tempodrom|3000|2026-08-01 00:00:00|t");
    assert_eq!(
        text(here, "SELECT string_agg(kind || ' ' || status, ',' ORDER BY created_at, kind) FROM usher.links"),
        "deal synced,project synced,event synced"
    );
    assert_eq!(
        text(here, "SELECT string_agg(new_status, ',' ORDER BY changed_at) FROM atlvs.deal_status_changes"),
        "proposal,won"
    );

    // Winning it again, also from several sessions at once.
    for status in ["proposal", "won", "lost", "won"] {
        here.execute("UPDATE atlvs.deals SET status = $1 WHERE id = $2", &[&status, &deal]).expect("the status can change");
    }
    let sessions: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.connect();
            thread::spawn(move || {
                for status in ["inquiry", "won"] {
                    client
                        .execute("UPDATE atlvs.deals SET status = $1 WHERE id = $2", &[&status, &deal])
                        .expect("the status can change");
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    settled(here, LONG);
    let counts = "SELECT concat_ws(',', (SELECT count(*) FROM atlvs.projects), (SELECT count(*) FROM compvss.productions), (SELECT count(*) FROM gvteway.events))";
    assert_eq!(text(here, counts), "1,1,1");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);

    // Many at once, each with a code of its own and without gaps.
    for n in 1..=20 {
        offer(here, acme, &format!("Tour {n}"), 100.0);
    }
    run(here, "UPDATE atlvs.deals SET status = 'won' WHERE title LIKE 'Tour%'");
    settled(here, LONG);
    assert_eq!(text(here, counts), "21,21,21");
    assert_eq!(text(here, "SELECT max(code) FROM atlvs.projects"), "P-2026-00021");
}

#[test]
fn w1_a_deal_that_is_not_fit_stays_won_without_a_project() {
    let (_database, mut client, acme) = pack("usher_test_unfit");
    let here = &mut client;
    let deal = offer(here, acme, "Winter Ball", -1.0);
    win(here, deal);
    assert_eq!(text(here, "SELECT status FROM atlvs.deals"), "won");
    wait::until_true(
        here,
        "SELECT count(*) = 1 FROM usher.sync_jobs WHERE status = 'dead' AND attempts = 4 AND error_message ~ 'value of at least 0'",
    );
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 0);
    // The pack's page says that a win that fails takes no code.
    let good = offer(here, acme, "Summer Night", 1.0);
    win(here, good);
    let code: String = value(here, "SELECT code FROM atlvs.projects WHERE deal_id = $1", &[&good]);
    let job: Uuid = value(here, "SELECT id FROM usher.dead_letters", &[]);
    run(here, "UPDATE atlvs.deals SET value = 1 WHERE title = 'Winter Ball'");
    assert_eq!(
        value::<String>(here, "WITH r AS (SELECT usher.retry_sync_job($1, '{\"value\": 1}')) SELECT 'again' FROM r", &[&job]),
        "again"
    );
    production_of(here, deal);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
    assert_eq!(code, "P-2026-00001", "a win that fails takes no code");
}

#[test]
fn w9_phase_and_status_follow_each_other() {
    let (_database, mut client, acme) = pack("usher_test_w9");
    let here = &mut client;
    // It would close the project of a wrapped production.
    run(here, "SELECT usher.disable_flow('live_events.close_finances')");
    let deal = offer(here, acme, "Summer Night", 48000.0);
    win(here, deal);
    let production = production_of(here, deal);
    let map = [
        ("advancing", "preproduction"),
        ("load_in", "in_production"),
        ("show", "in_production"),
        ("load_out", "post"),
        ("wrapped", "post"),
        ("planning", "intake"),
        ("cancelled", "cancelled"),
        ("planning", "intake"),
    ];
    for (status, phase) in map {
        here.execute("UPDATE compvss.productions SET status = $1 WHERE id = $2", &[&status, &production]).expect("a status");
        settled(here, LONG);
        assert_eq!(text(here, "SELECT phase FROM atlvs.projects"), phase, "the phase for {status}");
    }
    // The other way goes only the cancellation, and it comes to rest.
    run(here, "UPDATE atlvs.projects SET phase = 'post'");
    settled(here, LONG);
    assert_eq!(text(here, "SELECT status FROM compvss.productions"), "planning");
    run(here, "UPDATE atlvs.projects SET phase = 'cancelled'");
    settled(here, LONG);
    assert_eq!(
        text(here, "SELECT p.status || ',' || r.phase FROM compvss.productions p, atlvs.projects r"),
        "cancelled,cancelled"
    );
    // Reopening the production reopens the project, not the other way round.
    run(here, "UPDATE atlvs.projects SET phase = 'intake'");
    settled(here, LONG);
    assert_eq!(text(here, "SELECT status FROM compvss.productions"), "cancelled");
    run(here, "UPDATE compvss.productions SET status = 'advancing'");
    settled(here, LONG);
    assert_eq!(text(here, "SELECT phase FROM atlvs.projects"), "preproduction");
    // Closed is closed.
    run(here, "UPDATE atlvs.projects SET phase = 'closed'; UPDATE compvss.productions SET status = 'show'");
    settled(here, LONG);
    assert_eq!(text(here, "SELECT phase FROM atlvs.projects"), "closed");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
}

#[test]
fn w25_by_rpc_and_by_itself_make_one_event() {
    let (_database, mut client, acme) = pack("usher_test_w25");
    let here = &mut client;
    let make = "INSERT INTO compvss.productions (organization_id, name, status, timezone, metadata)
                VALUES ($1, $2, $3, 'Europe/Berlin', '{\"lineup\": [\"A\", \"B\"], \"secret\": 1}') RETURNING id";
    let ask = |here: &mut Client, production: &str| {
        let payload = json!({"action": "create_event", "production_id": production});
        let job = enqueue(here, "acme", "compvss", "gvteway", &payload);
        value::<String>(here, "SELECT status || coalesce(': ' || error_message, '') FROM usher.wait_for($1, '30 s')", &[&job])
    };
    // By itself, and by hand as well, before it, with it and after it.
    let production: Uuid = value(here, make, &[&acme, &"Open Air", &"planning"]);
    assert_eq!(ask(here, &production.to_string()), "synced");
    assert_eq!(ask(here, &production.to_string()), "synced");
    settled(here, LONG);
    assert_eq!(
        text(here, "SELECT string_agg(title || status || lineup::text || (slug LIKE 'open-air-%'), ',') FROM gvteway.events"),
        "Open Airdraft[\"A\", \"B\"]true"
    );

    // A cancelled one does not ask by itself.
    let cancelled: Uuid = value(here, make, &[&acme, &"Rained Off", &"cancelled"]);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM gvteway.events"), 1);
    assert_eq!(ask(here, &cancelled.to_string()), "synced");
    assert_eq!(text(here, "SELECT status FROM gvteway.events WHERE title = 'Rained Off'"), "cancelled");

    // Unknown, or of another organization: the same answer.
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    let foreign: Uuid = value(here, make, &[&other, &"Foreign", &"planning"]);
    settled(here, LONG);
    run(
        here,
        "SELECT usher.alter_flow('live_events.create_event', definition || '{\"retry\": {\"delays\": []}}') FROM usher.flows WHERE name = 'live_events.create_event'",
    );
    let (unknown, foreign) = (ask(here, &Uuid::nil().to_string()), ask(here, &foreign.to_string()));
    assert!(unknown.starts_with("dead") && unknown.contains("the production exists"), "{unknown}");
    assert_eq!(unknown, foreign);

    // What the production owns is carried along; what the event owns stays.
    run(here, "UPDATE gvteway.events SET status = 'published'");
    here.execute(
        "UPDATE compvss.productions SET name = 'Open Air II', capacity = 500, metadata = '{\"lineup\": [\"C\"]}' WHERE id = $1",
        &[&production],
    )
    .expect("a change");
    settled(here, LONG);
    let event = "SELECT title || capacity || lineup::text || status || (slug LIKE 'open-air-%') FROM gvteway.events WHERE production_ref = $1";
    assert_eq!(value::<String>(here, event, &[&production]), "Open Air II500[\"C\"]publishedtrue");
}

#[test]
fn a_deleted_flow_stops() {
    let (_database, mut client, acme) = pack("usher_test_stop");
    let here = &mut client;
    run(here, "DELETE FROM usher.flows WHERE name = 'live_events.create_production_from_project'");
    let deal = offer(here, acme, "Half Way", 1.0);
    win(here, deal);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 1);
    assert_eq!(number(here, "SELECT count(*) FROM compvss.productions"), 0);
    run(here, "DELETE FROM usher.flows WHERE name = 'live_events.create_project_from_won_deal'");
    let deal = offer(here, acme, "No Way", 1.0);
    win(here, deal);
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 1);
    // The pack brings back what is missing.
    assert!(text(here, "SELECT usher.install_pack('live_events')").contains("2 flows made"));
    let deal = offer(here, acme, "All The Way", 1.0);
    win(here, deal);
    production_of(here, deal);
}

#[test]
fn the_flow_of_a_stranger_behaves_like_the_packs_own() {
    let (database, mut client, acme) = pack("usher_test_stranger");
    let here = &mut client;
    role(here, "clients_stranger", "LOGIN");
    run(here, "GRANT usher_operator TO clients_stranger; GRANT CREATE ON SCHEMA public TO clients_stranger");
    // Made by an operator who was never heard of before, on a table of the pack, into a table of his own.
    let mut stranger = database.connect_as("clients_stranger");
    run(
        &mut stranger,
        "CREATE TABLE public.notices (organization_id uuid, deal_id uuid, words text CONSTRAINT not_shouted CHECK (words <> upper(words)), PRIMARY KEY (organization_id, deal_id))",
    );
    for (mode, status) in [("transactional", "qualified"), ("realtime", "lost")] {
        flow(
            &mut stranger,
            &format!("notice_{status}"),
            &json!({
                "from": "atlvs", "to": "notices", "mode": mode, "retry": {"delays": []},
                "when": {"change": "atlvs.deals", "on": ["update"]}, "if": format!("new.status = '{status}' AND old.status IS DISTINCT FROM '{status}'"),
                "then": {"upsert": "public.notices", "key": ["deal_id"]}, "set": {"deal_id": "new.id", "words": "new.title"},
                "link": {"kind": "notice", "left": "new.id", "right": "deal_id"}
            }),
        );
    }
    let deal = offer(here, acme, "Summer Night", 1.0);
    let mut transaction = here.transaction().expect("BEGIN");
    transaction.execute("UPDATE atlvs.deals SET status = 'qualified' WHERE id = $1", &[&deal]).expect("a status");
    let words: String =
        transaction.query_one("SELECT words FROM public.notices", &[]).expect("the notice is there before the COMMIT").get(0);
    assert_eq!(words, "Summer Night");
    transaction.rollback().expect("ROLLBACK");
    assert_eq!(number(here, "SELECT count(*) FROM public.notices"), 0, "and goes with the transaction");

    here.execute("UPDATE atlvs.deals SET status = 'lost' WHERE id = $1", &[&deal]).expect("a status");
    wait::until_true(here, "SELECT count(*) = 1 FROM public.notices");
    assert_eq!(number(here, "SELECT count(*) FROM usher.links WHERE kind = 'notice' AND status = 'synced'"), 1);
    // An error is a dead letter like any other.
    offer(here, acme, "LOUD", 1.0);
    for status in ["lost", "qualified"] {
        here.execute("UPDATE atlvs.deals SET status = $1 WHERE title = 'LOUD'", &[&status]).expect("a status");
    }
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.dead_letters WHERE error_message ~ 'not_shouted'");
    assert_eq!(text(here, "SELECT status FROM atlvs.deals WHERE title = 'LOUD'"), "qualified");
    // And the pack's own flows go on beside it.
    win(here, deal);
    production_of(here, deal);
    run(&mut stranger, "SELECT usher.drop_flow('notice_lost'), usher.drop_flow('notice_qualified')");
}

#[test]
fn members_read_the_packs_tables_and_admins_write_them() {
    let (database, mut client, acme) = pack("usher_test_pack_rights");
    let here = &mut client;
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    offer(here, acme, "Ours", 1.0);
    offer(here, other, "Theirs", 1.0);
    for name in ["clients_reads", "clients_writes"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    run(
        here,
        "SELECT usher.grant_membership('acme', 'role:clients_reads'), usher.grant_membership('acme', 'role:clients_writes', 'admin')",
    );
    let mut member = database.connect_as("clients_reads");
    assert_eq!(text(&mut member, "SELECT string_agg(title, ',') FROM atlvs.deals"), "Ours");
    // Row level security refuses an INSERT and passes over rows of an UPDATE.
    assert_eq!(member.execute("UPDATE atlvs.deals SET status = 'won'", &[]).unwrap_or(0), 0, "a member changes nothing");
    let mut admin = database.connect_as("clients_writes");
    assert_eq!(
        admin.execute("UPDATE atlvs.deals SET status = 'won'", &[]).expect("an admin writes"),
        1,
        "an admin changes the own organization's deal only"
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM gvteway.events");
    assert_eq!(text(&mut member, "SELECT string_agg(title, ',') FROM gvteway.events"), "Ours");
    let foreign = format!("INSERT INTO atlvs.deals (organization_id, title) VALUES ('{other}', 'Sneaked in')");
    assert_eq!(refused(&mut admin, &foreign).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    // Refused outright or passed over by row level security: the counter and the trail stay as the flows have written them.
    for sql in [
        "DELETE FROM atlvs.project_codes",
        "UPDATE atlvs.project_codes SET last_number = 0",
        "DELETE FROM atlvs.deal_status_changes",
    ] {
        assert_eq!(admin.execute(sql, &[]).unwrap_or(0), 0, "only flows write this: {sql}");
    }
}

#[test]
fn the_pack_outlives_the_extension() {
    let (database, mut client, acme) = pack("usher_test_pack_drop");
    let here = &mut client;
    let deal = offer(here, acme, "Before", 1.0);
    win(here, deal);
    production_of(here, deal);
    settled(here, LONG);
    // Policies of the pack's tables use functions of the extension, hence CASCADE.
    run(here, "SELECT usher.detach_all(); DROP EXTENSION pg_usher CASCADE");
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.deals"), 1);
    run(here, "CREATE EXTENSION pg_usher; SELECT usher.setup()");
    database.await_workers();
    run(here, "SELECT usher.install_pack('live_events')");
    let deal = offer(here, acme, "After", 1.0);
    win(here, deal);
    production_of(here, deal);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 2);
}
