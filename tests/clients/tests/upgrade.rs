//! An installation of a released version becomes one of the present version: nothing of it is lost, writers are not
//! disturbed at any step on the way, and in the end the catalog is that of a new installation.

use usher_clients::released::{As, Scripts, catalog, difference, load, make_home};
use usher_clients::{Client, Database, json, number, refused, run, settled, text, value, wait};

const UPDATE: &str = "ALTER EXTENSION pg_usher UPDATE";
/// What the update script alone is responsible for.
const OF_THE_EXTENSION: [&str; 7] =
    ["member ", "extension ", "function ", "schema ", "event trigger ", "comment on function ", "comment on type "];
const OPEN_JOBS: &str = "SELECT string_agg(line, '; ' ORDER BY line) FROM (
    SELECT concat_ws(' ', coalesce(flow, target_system), status, waiting_for, count(*)) AS line FROM usher.sync_jobs
     WHERE status NOT IN ('synced', 'cancelled') GROUP BY flow, target_system, status, waiting_for) AS l";
/// The fixture's jobs that no worker may run: dead, held back by their flow, for outside, for the far future.
const RESTING: &str = "archive_order pending flow broken 1; invoice_from_order dead 1; mailer pending external worker 1; \
    reissue_invoice pending run_at 1; write_letter pending flow disabled 1";

fn new_installation(name: &str) -> (Vec<String>, Vec<String>) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(&mut client, "SELECT usher.install_pack('live_events')");
    (catalog(&mut client), flows_of_pack(&mut client))
}

fn flows_of_pack(client: &mut Client) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', name, definition, enabled, state, run_as) FROM usher.flows WHERE pack = 'live_events' ORDER BY name";
    client.query(sql, &[]).expect("flows can be read").iter().map(|row| row.get(0)).collect()
}

fn of_the_extension(lines: &[String]) -> Vec<String> {
    let theirs = |line: &&String| {
        OF_THE_EXTENSION.iter().any(|kind| line.starts_with(kind))
            && !["atlvs", "compvss", "gvteway"].iter().any(|s| line.contains(s))
    };
    lines.iter().filter(theirs).cloned().collect()
}

/// A program writes, a client asks: as they did before somebody came with a new version. `id` is a new number.
#[track_caller]
fn writers_go_on(client: &mut Client, id: i32) {
    let acme = "(SELECT id FROM usher.organizations WHERE slug = 'acme')";
    run(
        client,
        &format!(
            "INSERT INTO public.orders VALUES ({acme}, {id}, 'Writer', {id});
             UPDATE public.orders SET status = 'paid' WHERE id = {id};
             INSERT INTO atlvs.deals (organization_id, title, status, value, event_date) VALUES ({acme}, 'Deal {id}', 'proposal', 1, '2027-01-01');
             UPDATE atlvs.deals SET status = 'won' WHERE title = 'Deal {id}';
             SELECT usher.enqueue_sync_job('acme', 'shop', 'books', '{{\"action\": \"reissue_invoice\", \"order_id\": {id}}}', unique_key => 'asked-{id}');
             SELECT * FROM usher.status()"
        ),
    );
    let at_once = format!(
        "SELECT concat_ws(' ', (SELECT count(*) FROM books.order_log WHERE order_id = {id}), (SELECT count(*) FROM atlvs.projects WHERE name = 'Deal {id}'))"
    );
    assert_eq!(text(client, &at_once), "2 1", "transactional flows write at once\n{}", wait::jobs(client));
}

/// What the worker does with [`writers_go_on`].
#[track_caller]
fn workers_go_on(client: &mut Client, id: i32) {
    wait::until_true(
        client,
        &format!(
            "SELECT EXISTS (SELECT FROM books.invoices WHERE order_id = {id}) AND EXISTS (SELECT FROM books.reissues WHERE order_id = {id})
                AND EXISTS (SELECT FROM gvteway.events WHERE title = 'Deal {id}')"
        ),
    );
}

/// The fixture's own jobs have ended as they should; then what rested is told to go on, and ends too.
#[track_caller]
fn every_job_ends(client: &mut Client) {
    wait::until_true(client, &format!("SELECT ({OPEN_JOBS}) = '{RESTING}'"));
    assert_eq!(
        text(
            client,
            "SELECT string_agg(concat_ws(' ', slug, order_id, amount), ', ' ORDER BY slug, order_id) FROM books.charges JOIN usher.organizations o ON o.id = organization_id"
        ),
        "acme 4 5001.00, bolt 4 10.00, bolt 5 68.00",
        "the last change of a row counts"
    );
    assert_eq!(
        text(
            client,
            "SELECT string_agg(order_id || note, ' ' ORDER BY order_id) FROM books.reissues WHERE order_id < 100 AND note <> 'forgotten'"
        ),
        "1first 20first 30first 31second 32second 33second",
        "a job runs the version it was asked of"
    );
    // Two were there, the third deal was won shortly before the dump.
    assert_eq!(
        text(client, "SELECT string_agg(title, ', ' ORDER BY title) FROM gvteway.events WHERE title NOT LIKE 'Deal%'"),
        "Harbour Days, Summer Night, Winter Ball"
    );

    run(
        client,
        "SELECT usher.enable_flow('write_letter');
         ALTER TABLE books.archive RENAME COLUMN last_status TO status;
         SELECT usher.alter_flow(name, definition) FROM usher.flows WHERE name = 'archive_order';
         SELECT usher.retry_sync_job(id, '{\"total\": 7}') FROM usher.dead_letters;
         SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE waiting_for IN ('run_at', 'external worker')",
    );
    settled(client, wait::LONG);
    assert_eq!(number(client, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(client));
    assert_eq!(
        text(
            client,
            "SELECT string_agg(concat_ws(' ', slug, order_id, amount), ', ' ORDER BY slug, order_id) FROM books.invoices JOIN usher.organizations o ON o.id = organization_id WHERE order_id < 100"
        ),
        "acme 1 120.00, acme 3 7.00, acme 5 55.00, bolt 1 5.00"
    );
    assert_eq!(text(client, "SELECT string_agg(customer, ' ') FROM books.letters"), "Grace");
    assert_eq!(text(client, "SELECT string_agg(order_id || status, ' ') FROM books.archive"), "3paid");
    // Every invoice has its link, made by either version.
    assert_eq!(
        number(
            client,
            "SELECT count(*) FROM books.invoices i WHERE (SELECT count(*) FROM usher.links l WHERE l.organization_id = i.organization_id AND l.kind = 'order' AND l.left_id = i.order_id::text AND l.right_id = i.id::text AND l.status = 'synced') <> 1"
        ),
        0
    );
}

/// History, keys, people and numbers of the old version are known to the new one.
#[track_caller]
fn nothing_is_forgotten(client: &mut Client) {
    assert_eq!(
        text(
            client,
            "SELECT string_agg(concat_ws(' ', o.slug, m.user_id, m.role), ', ' ORDER BY o.slug, m.user_id) FROM usher.memberships m JOIN usher.organizations o ON o.id = m.organization_id"
        ),
        "acme ann admin, acme bob member, acme role:upgrade_books admin, bolt carl admin, default lea legend"
    );
    assert_eq!(
        number(client, "SELECT count(*) FROM usher.sync_jobs WHERE flow = 'forgotten' AND status = 'synced'"),
        3,
        "jobs of a dropped flow"
    );
    assert_eq!(number(client, "SELECT count(DISTINCT version) FROM usher.flow_versions WHERE name = 'reissue_invoice'"), 2);
    let ask = |client: &mut Client, key: &str| {
        let sql = "SELECT status FROM usher.enqueue_sync_job('acme', 'shop', 'books', '{\"action\": \"reissue_invoice\", \"order_id\": 99}', run_at => '2999-01-01Z', unique_key => $1)";
        value::<String>(client, sql, &[&key])
    };
    assert_eq!(ask(client, "reissue-1"), "synced", "a key that was taken is taken");
    assert_eq!(ask(client, "reissue-22"), "pending", "the key of a cancelled job is free");
    run(
        client,
        "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE waiting_for = 'run_at' AND payload ->> 'order_id' = '99'",
    );
    // A number that was given is not given again: flows of either version keep apart, and so do positions.
    usher_clients::flow(
        client,
        "made_later",
        &json!({"from": "shop", "to": "later", "run_as": "upgrade_books", "when": {"request": "later"}, "then": {"insert": "books.letters"},
                "set": {"order_id": "1", "customer": "'x'"}}),
    );
    assert_eq!(
        number(
            client,
            "SELECT count(*) FROM usher.flow_versions v JOIN usher.flows f ON f.id = v.flow_id WHERE f.name = 'made_later'"
        ),
        1
    );
}

#[test]
fn an_installation_of_0_1_0_is_upgraded_in_place() {
    let (fresh, fresh_flows) = new_installation("usher_test_upgrade_fresh");
    let scripts = Scripts::add();
    let database = load(&scripts, "0.1.0", "usher_test_upgrade_home", As::Home);
    let mut client = database.connect();
    let here = &mut client;
    // A waiting try succeeds from now on.
    run(here, "UPDATE books.limits SET most = 10000");

    // The new library with the old version's functions and tables: after the restart, before anything was said.
    assert_eq!(text(here, "SELECT extversion FROM pg_extension WHERE extname = 'pg_usher'"), "0.1.0");
    writers_go_on(here, 101);

    run(here, UPDATE);
    let version = text(here, "SELECT usher.version()");
    assert_eq!(text(here, "SELECT extversion FROM pg_extension WHERE extname = 'pg_usher'"), version);
    let wrong = difference(&of_the_extension(&fresh), &of_the_extension(&catalog(here)));
    assert!(wrong.is_empty(), "run scripts/upgrade_script.sh 0.1.0; after ALTER EXTENSION … UPDATE alone:\n{wrong}");
    // The new functions with the old tables. A session that was there before is no exception.
    writers_go_on(here, 102);
    let mut other = database.connect();
    writers_go_on(&mut other, 103);

    run(here, "SELECT usher.setup(); SELECT usher.install_pack('live_events')");
    let wrong = difference(&fresh, &catalog(here));
    assert!(wrong.is_empty(), "after setup(), - is missing and + should not be there:\n{wrong}");
    assert_eq!(difference(&fresh_flows, &flows_of_pack(here)), "", "the pack's flows");
    let events = "SELECT count(*) FROM usher.links l JOIN atlvs.projects p ON p.organization_id = l.organization_id AND p.id::text = l.left_id WHERE l.kind = 'event'";
    let all = number(here, "SELECT count(*) FROM usher.links WHERE kind = 'event'");
    assert!(
        all > 0 && number(here, events) == all,
        "links of events that 0.1.0 made have the project on their left, as new ones have"
    );
    writers_go_on(here, 104);
    writers_go_on(&mut other, 105);
    // What was asked since the restart has waited for the tables.
    (101..=105).for_each(|id| workers_go_on(here, id));
    every_job_ends(here);
    nothing_is_forgotten(here);
    run(here, "SELECT usher.setup()");
    assert_eq!(difference(&fresh, &catalog(here)), "", "a second setup() changes nothing");
}

#[test]
fn a_copy_of_0_1_0_holds_its_jobs_until_somebody_says_so() {
    let scripts = Scripts::add();
    let database = load(&scripts, "0.1.0", "usher_test_upgrade_copy", As::Copy);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "UPDATE books.limits SET most = 10000");
    let before = text(here, OPEN_JOBS);
    assert!(
        before.contains("charge_order failed retry 1") && before.contains("charge_order pending 3"),
        "the test itself: {before}"
    );
    // Each step on the way gives a worker reason enough to look; process_jobs() does what a worker does, and now. Whether it
    // refuses or finds nothing to do is its own matter.
    for step in ["SELECT 1", UPDATE, "SELECT usher.setup()"] {
        run(here, step);
        let _ = here.batch_execute("SELECT usher.process_jobs()");
        assert_eq!(text(here, OPEN_JOBS), before, "after {step}");
    }
    make_home(here);
    database.await_workers();
    every_job_ends(here);
    nothing_is_forgotten(here);
}

#[test]
fn an_old_version_is_not_left_behind() {
    drop(Scripts::add());
    let database = Database::create_empty("usher_test_upgrade_none");
    let mut client = database.connect();
    let error = refused(&mut client, "CREATE EXTENSION pg_usher VERSION '0.1.0'");
    assert!(error.message().contains("no installation script nor update path"), "{error}");
}
