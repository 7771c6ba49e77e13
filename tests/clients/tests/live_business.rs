//! What is special of the workflows between business and production, beside the six cases of each (`live_workflows`): both sides at once, races, decisions
//! of people, waiting.

use std::sync::{Arc, Barrier};
use std::thread;
use usher_clients::{Client, Database, SqlState, number, refused, run, settled, text, wait};

/// The pack in a database of its own, and an organization.
fn pack(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(
        &mut client,
        "SELECT usher.install_pack('live_events'); SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')",
    );
    (database, client)
}

/// A project.
fn budget(name: &str) -> (Database, Client) {
    let (database, mut client) = pack(name);
    run(
        &mut client,
        "INSERT INTO atlvs.projects (organization_id, code, name, phase, currency) SELECT id, 'P', 'Gig', 'in_production', 'EUR' FROM usher.organizations WHERE slug = 'acme'",
    );
    (database, client)
}

const BOTH: &str = "SELECT string_agg(concat_ws('|', b.category, b.planned, c.planned, b.actual, c.actual, b.notes, c.notes = b.notes), ' ' ORDER BY b.category)
                      FROM atlvs.budget_lines AS b FULL JOIN compvss.cost_lines AS c ON c.project_ref = b.project_id AND c.category = b.category";

#[test]
fn w2_both_sides_meet_whoever_begins_and_each_keeps_its_own() {
    let (_database, mut client) = budget("usher_test_w02");
    let here = &mut client;
    // The budget is there before the production; a category more begins on site.
    run(
        here,
        "INSERT INTO atlvs.budget_lines (organization_id, project_id, category, planned, notes) SELECT organization_id, id, 'stage', 1000, 'one' FROM atlvs.projects",
    );
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM compvss.cost_lines"), 0, "nobody to meet");
    run(
        here,
        "INSERT INTO compvss.productions (organization_id, project_ref, name) SELECT organization_id, id, 'Gig' FROM atlvs.projects",
    );
    settled(here, wait::LONG);
    run(
        here,
        "INSERT INTO compvss.cost_lines (organization_id, production_id, category, planned, actual, notes) SELECT organization_id, id, 'light', 5, 6, 'dark' FROM compvss.productions",
    );
    settled(here, wait::LONG);
    assert_eq!(text(here, BOTH), "light|5.00|5.00|6.00|6.00|dark|t stage|1000.00|1000.00|0.00|0.00|one|t");
    assert_eq!(text(here, "SELECT string_agg(status, ',') FROM usher.links WHERE kind = 'budget_line'"), "synced,synced");

    // Both sides at once: each its own field, and the notes are in both, line by line.
    run(
        here,
        "BEGIN; UPDATE atlvs.budget_lines SET planned = 1100, notes = E'one\\ntwo' WHERE category = 'stage';
         UPDATE compvss.cost_lines SET actual = 300, notes = E'zero\\none' WHERE category = 'stage'; COMMIT",
    );
    settled(here, wait::LONG);
    assert_eq!(text(here, &format!("{BOTH} WHERE b.category = 'stage'")), "stage|1100.00|1100.00|300.00|300.00|one\ntwo\nzero|t");
    run(here, "UPDATE compvss.cost_lines SET notes = E'two\\nzero' WHERE category = 'stage'");
    settled(here, wait::LONG);
    assert_eq!(text(here, &format!("{BOTH} WHERE b.category = 'stage'")), "stage|1100.00|1100.00|300.00|300.00|two\nzero|t");
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.alerts"), 0, "what the flows write is nobody's trespass");

    // What is not one's own goes back, and somebody is told.
    run(
        here,
        "UPDATE compvss.cost_lines SET planned = 1 WHERE category = 'stage'; UPDATE atlvs.budget_lines SET actual = 2 WHERE category = 'light'",
    );
    settled(here, wait::LONG);
    assert_eq!(text(here, BOTH), "light|5.00|5.00|6.00|6.00|dark|t stage|1100.00|1100.00|300.00|300.00|two\nzero|t");
    assert_eq!(
        text(here, "SELECT string_agg(kind || ' ' || status || ' ' || title, E'\\n' ORDER BY title) FROM atlvs.alerts"),
        "budget_conflict open The plan of \"stage\" was changed on site from 1100.00 to 1.00; it is the budget's and was put back\n\
         budget_conflict open What \"light\" has cost was changed in the budget from 6.00 to 2.00; it is the production's and was put back"
    );
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
    assert_eq!(number(here, "SELECT count(*) FROM usher.conflicts WHERE state = 'open'"), 0);
}

/// Trucks T1 to T4 of one organization.
fn yard(name: &str) -> (Database, Client) {
    let (database, mut client) = pack(name);
    run(
        &mut client,
        "INSERT INTO atlvs.assets (organization_id, tag, name, category) SELECT id, 'T' || n, 'Truck', 'truck' FROM usher.organizations, generate_series(1, 4) AS n WHERE slug = 'acme';
         INSERT INTO compvss.productions (organization_id, name) SELECT id, 'Gig' FROM usher.organizations WHERE slug = 'acme'",
    );
    (database, client)
}

/// A request for one truck, or for any, within a day of December.
fn request(tag: Option<&str>, from: u32, to: u32) -> String {
    let asset = tag.map_or("NULL::uuid".to_owned(), |tag| format!("(SELECT id FROM atlvs.assets WHERE tag = '{tag}')"));
    format!(
        "INSERT INTO compvss.asset_requests (organization_id, production_id, category, asset_ref, period)
         SELECT organization_id, id, 'truck', {asset}, '[2026-12-{from:02}, 2026-12-{to:02})' FROM compvss.productions"
    )
}

#[test]
fn w3_of_many_at_once_each_gets_another_asset_at_every_isolation_level() {
    let (database, mut client) = yard("usher_test_w03_race");
    let here = &mut client;
    let together = Arc::new(Barrier::new(6));
    let sessions: Vec<_> =
        ["READ COMMITTED", "REPEATABLE READ", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"]
            .into_iter()
            .map(|level| {
                let (mut client, together) = (database.connect(), together.clone());
                thread::spawn(move || {
                    let mut transaction = client.transaction().expect("BEGIN");
                    transaction
                        .batch_execute(&format!(
                            "SET TRANSACTION ISOLATION LEVEL {level}; SELECT count(*) FROM atlvs.asset_reservations"
                        ))
                        .expect("a snapshot");
                    together.wait();
                    transaction.batch_execute(&request(None, 1, 3)).expect("a request is taken");
                    transaction.commit().expect("COMMIT");
                })
            })
            .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    settled(here, wait::LONG);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(status || ' ' || n || ' ' || assets, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n, count(DISTINCT asset_ref) AS assets FROM compvss.asset_requests GROUP BY status) AS s"
        ),
        "allocated 4 4, denied 2 0"
    );
    assert_eq!(
        text(here, "SELECT count(*) || ' ' || count(DISTINCT asset_id) FROM atlvs.asset_reservations WHERE status = 'held'"),
        "4 4"
    );
    assert_eq!(
        text(here, "SELECT string_agg(DISTINCT reason, ',') FROM compvss.asset_requests WHERE status = 'denied'"),
        "no asset of category \"truck\" is free"
    );
}

#[test]
fn w3_who_is_denied_is_told_what_is_free_and_what_comes_back_is_free_again() {
    let (_database, mut client) = yard("usher_test_w03");
    let here = &mut client;
    run(here, "UPDATE atlvs.assets SET state = 'maintenance' WHERE tag = 'T2'");
    run(here, &request(Some("T1"), 1, 3));
    run(here, &request(Some("T1"), 2, 4));
    run(here, &request(Some("T1"), 3, 4));
    run(here, &request(Some("T2"), 1, 3));
    let answers = "SELECT string_agg(concat_ws('|', r.status, a.tag, r.reason, (SELECT string_agg(f ->> 'tag', '+') FROM jsonb_array_elements(r.alternatives) AS f)), ', ' ORDER BY r.created_at)
                     FROM compvss.asset_requests AS r LEFT JOIN atlvs.assets AS a ON a.id = r.asset_ref";
    assert_eq!(
        text(here, answers),
        "allocated|T1, denied|T1|T1 is reserved at that time|T3+T4, allocated|T1, denied|T2|T2 is in maintenance|T3+T4",
        "in the transactions of those who ask"
    );
    // Confirmed ones cannot overlap, whoever writes them.
    run(
        here,
        "UPDATE compvss.asset_requests SET status = 'deployed' WHERE status = 'allocated' AND period @> '2026-12-01 12:00Z'::timestamptz",
    );
    settled(here, wait::LONG);
    let state = "SELECT a.state || ' ' || (SELECT string_agg(x.status, '+' ORDER BY x.period) FROM atlvs.asset_reservations AS x WHERE x.asset_id = a.id) FROM atlvs.assets AS a WHERE tag = 'T1'";
    assert_eq!(text(here, state), "deployed confirmed+held");
    let twice = "INSERT INTO atlvs.asset_reservations (organization_id, asset_id, production_ref, period, status) SELECT organization_id, asset_id, production_ref, period, 'confirmed' FROM atlvs.asset_reservations WHERE status = 'confirmed'";
    assert_eq!(refused(here, twice).code(), &SqlState::EXCLUSION_VIOLATION);

    run(
        here,
        "UPDATE compvss.asset_requests SET status = 'returned' WHERE status = 'deployed'; DELETE FROM compvss.asset_requests WHERE status = 'allocated'",
    );
    settled(here, wait::LONG);
    assert_eq!(text(here, state), "available released+released");
    // Who was denied may ask again.
    run(
        here,
        "UPDATE compvss.asset_requests SET status = 'requested' WHERE status = 'denied' AND asset_ref = (SELECT id FROM atlvs.assets WHERE tag = 'T1')",
    );
    assert_eq!(
        text(here, "SELECT string_agg(status, ',' ORDER BY created_at) FROM compvss.asset_requests"),
        "returned,allocated,denied"
    );
}

#[test]
fn w7_an_invoice_above_its_order_is_a_conflict_until_somebody_decides() {
    let (_database, mut client) = pack("usher_test_w07");
    let here = &mut client;
    run(
        here,
        "INSERT INTO atlvs.projects (organization_id, code, name, currency) SELECT id, 'P', 'Gig', 'EUR' FROM usher.organizations WHERE slug = 'acme';
         INSERT INTO compvss.productions (organization_id, project_ref, name) SELECT organization_id, id, 'Gig' FROM atlvs.projects;
         INSERT INTO atlvs.vendors (organization_id, name) SELECT organization_id, 'PA Ltd' FROM atlvs.projects;
         INSERT INTO atlvs.purchase_orders (organization_id, vendor_id, project_id, number, total, currency) SELECT organization_id, v.id, p.id, 'PO', 1000, 'EUR' FROM atlvs.projects AS p JOIN atlvs.vendors AS v USING (organization_id)",
    );
    let came = |here: &mut Client, number: &str, amount: u32| {
        run(
            here,
            &format!(
                "INSERT INTO compvss.vendor_invoices (organization_id, production_id, vendor_ref, po_number, number, amount, currency)
                 SELECT organization_id, p.id, v.id, 'PO', '{number}', {amount}, 'EUR' FROM compvss.productions AS p JOIN atlvs.vendors AS v USING (organization_id)"
            ),
        );
        settled(here, wait::LONG);
    };
    let stands = "SELECT string_agg(concat_ws('|', i.number, c.amount, i.amount, i.match_status, a.amount), ', ' ORDER BY i.number)
                    FROM atlvs.vendor_invoices AS i JOIN compvss.vendor_invoices AS c ON c.id = i.source_ref LEFT JOIN atlvs.ap_items AS a ON a.source_ref = i.source_ref";
    let open = "SELECT string_agg(concat_ws('|', kind, ours ->> 'amount', theirs ->> 'amount'), ', ') FROM usher.conflicts WHERE state = 'open'";
    // Parts of the order, until they are too much together.
    came(here, "1", 600);
    came(here, "2", 500);
    assert_eq!(text(here, stands), "1|600.00|600.00|matched|600.00, 2|500.00|400.00|over");
    assert_eq!(text(here, open), "data_mismatch|500.00|400.00");
    assert_eq!(text(here, "SELECT invoiced || ' ' || status FROM atlvs.purchase_orders"), "600.00 open");
    // Somebody accepts what was invoiced; it is written to both sides, and paid.
    run(here, "SELECT usher.resolve_conflict(id, 'left', note => 'more lamps') FROM usher.conflicts WHERE state = 'open'");
    settled(here, wait::LONG);
    assert_eq!(text(here, stands), "1|600.00|600.00|matched|600.00, 2|500.00|500.00|accepted|500.00");
    assert_eq!(text(here, "SELECT invoiced || ' ' || status FROM atlvs.purchase_orders"), "1100.00 invoiced");
    // The order is used up: of the next one, 50 are granted.
    came(here, "3", 70);
    assert_eq!(text(here, open), "data_mismatch|70.00|0.00");
    run(
        here,
        "SELECT usher.resolve_conflict(id, 'values', decided_values => '{\"amount\": 50}') FROM usher.conflicts WHERE state = 'open'",
    );
    settled(here, wait::LONG);
    assert_eq!(
        text(here, stands),
        "1|600.00|600.00|matched|600.00, 2|500.00|500.00|accepted|500.00, 3|50.00|50.00|accepted|50.00"
    );
    assert_eq!(
        text(
            here,
            "SELECT count(*) FILTER (WHERE state = 'open') || ' ' || count(*) FILTER (WHERE state = 'resolved') FROM usher.conflicts"
        ),
        "0 2"
    );
    // What is paid is not changed behind anybody's back.
    let error = refused(here, "UPDATE atlvs.vendor_invoices SET amount = 1 WHERE number = '1'");
    assert!(error.message().contains("stands in accounts payable"), "{error}");
}

/// A production in the works with an expense that nobody has looked at.
fn undecided(name: &str) -> (Database, Client) {
    let (database, mut client) = pack(name);
    run(
        &mut client,
        "INSERT INTO atlvs.projects (organization_id, code, name, phase, budget_total, currency) SELECT id, 'P', 'Gig', 'in_production', 500, 'EUR' FROM usher.organizations WHERE slug = 'acme';
         INSERT INTO compvss.productions (organization_id, project_ref, name, status) SELECT organization_id, id, 'Gig', 'show' FROM atlvs.projects;
         INSERT INTO atlvs.budget_lines (organization_id, project_id, category, planned) SELECT organization_id, id, 'stage', 100 FROM atlvs.projects;
         INSERT INTO compvss.expenses (organization_id, production_id, category, amount, currency, status) SELECT organization_id, id, 'stage', 50, 'EUR', 'submitted' FROM compvss.productions",
    );
    settled(&mut client, wait::LONG);
    (database, client)
}

const CLOSEOUT: &str = "SELECT concat_ws('|', (SELECT string_agg(state, ',' ORDER BY started_at) FROM usher.workflow_runs), phase, (SELECT bool_or(frozen) FROM atlvs.budget_lines), (SELECT count(*) FROM atlvs.invoices)) FROM atlvs.projects";

#[test]
fn w12_what_is_open_is_waited_for_and_then_it_is_closed_for_good() {
    let (_database, mut client) = undecided("usher_test_w12");
    let here = &mut client;
    run(here, "UPDATE compvss.productions SET status = 'wrapped'");
    quiet(here);
    assert_eq!(text(here, CLOSEOUT), "running|post|t|0");
    // While it waits the plan is frozen, what was spent is not; wrapped once more does not begin it once more.
    let error = refused(here, "UPDATE atlvs.budget_lines SET planned = 99");
    assert!(error.message().contains("is being closed"), "{error}");
    run(here, "UPDATE compvss.productions SET status = 'load_out'; UPDATE compvss.productions SET status = 'wrapped'");
    quiet(here);
    assert_eq!(text(here, CLOSEOUT), "running,done|post|t|0");
    run(here, "UPDATE compvss.expenses SET status = 'approved'");
    wait::until_true(here, "SELECT count(*) = 2 FROM usher.workflow_runs WHERE state = 'done'");
    settled(here, wait::LONG);
    assert_eq!(text(here, CLOSEOUT), "done,done|closed|t|1");
    assert_eq!(text(here, "SELECT actual::text FROM atlvs.budget_lines"), "50.00");

    // What comes too late is a dead letter that says so, and nothing moves.
    run(
        here,
        "INSERT INTO compvss.expenses (organization_id, production_id, category, amount, currency, status) SELECT organization_id, id, 'stage', 7, 'EUR', 'approved' FROM compvss.productions",
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.dead_letters WHERE error_message ~ 'project \"P\" is closed'");
    settled(here, wait::LONG);
    assert_eq!(text(here, "SELECT actual::text FROM atlvs.budget_lines"), "50.00");
}

#[test]
fn w12_what_is_not_settled_in_time_is_undone() {
    let (_database, mut client) = undecided("usher_test_w12_late");
    let here = &mut client;
    run(
        here,
        "SELECT usher.alter_flow(name, jsonb_set(definition, '{then,steps,1,deadline}', '\"1 s\"')) FROM usher.flows WHERE name = 'live_events.close_finances';
         UPDATE compvss.productions SET status = 'wrapped'",
    );
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.workflow_runs WHERE state = 'undone'");
    settled(here, wait::LONG);
    assert_eq!(text(here, CLOSEOUT), "undone|post|f|0");
    // Decided after all, and begun anew.
    run(here, "UPDATE compvss.expenses SET status = 'rejected'");
    settled(here, wait::LONG);
    run(here, "SELECT usher.retry_workflow(id) FROM usher.workflow_runs");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.workflow_runs WHERE state = 'done'");
    assert_eq!(text(here, CLOSEOUT), "done|closed|t|1");
}

/// All jobs have ended but that of the clock, which looks when a step has waited too long.
fn quiet(here: &mut Client) {
    wait::until_true(
        here,
        "SELECT NOT EXISTS (SELECT FROM usher.sync_jobs WHERE status NOT IN ('synced', 'dead', 'cancelled') AND flow NOT LIKE '%::clock')
            AND EXISTS (SELECT FROM usher.workflow_steps WHERE step = 'settle' AND state = 'waiting')",
    );
}
