//! `usher.setup()` on a database where others are at work: what it need not lock it does not, and what it locks it locks first.

use std::thread;
use usher_clients::{Client, Database, number, run, text, wait};

/// It ends also where a test does not.
const SETUP: &str = "SET statement_timeout = '60s'; SELECT usher.setup()";

fn triggers(here: &mut Client) -> String {
    text(
        here,
        "SELECT string_agg(t.tgrelid::regclass || ' ' || t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid), E'\\n' ORDER BY t.tgrelid, t.tgname)
           FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = 'usher'::regnamespace AND NOT t.tgisinternal",
    )
}

#[test]
fn where_all_is_as_it_should_be_no_writer_is_waited_for() {
    let database = Database::create("usher_test_setup_again");
    let here = &mut database.connect();
    let mut writer = database.connect();
    let before = triggers(here);
    // As after a write to each of them.
    run(
        &mut writer,
        "BEGIN; DO $$ BEGIN EXECUTE (SELECT 'LOCK TABLE ' || string_agg(c.oid::regclass::text, ', ') || ' IN ROW EXCLUSIVE MODE'
           FROM pg_class AS c WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p')); END $$",
    );
    run(here, "SET lock_timeout = '5s'; SELECT usher.setup()");
    run(&mut writer, "COMMIT");
    assert_eq!(triggers(here), before);
    // What somebody has bent is put right.
    run(
        here,
        "DROP TRIGGER usher_audit_update ON usher.links; ALTER TABLE usher.flows DISABLE TRIGGER usher_flows_changed;
         ALTER TABLE usher.memberships ENABLE TRIGGER usher_memberships_changed;
         DO $$ BEGIN EXECUTE (SELECT format('DROP TRIGGER audit_log_stays ON %s', max(inhrelid)::regclass) FROM pg_inherits WHERE inhparent = 'usher.audit_log'::regclass); END $$",
    );
    assert_ne!(triggers(here), before);
    run(here, "SELECT usher.setup()");
    assert_eq!(triggers(here), before);
}

/// ANALYZE holds its table while it waits for whoever has granted something on it. A setup() that has granted, and asks for the table then,
/// and it would wait for each other.
#[test]
fn analyze_and_setup_do_not_wait_for_each_other() {
    let database = Database::create("usher_test_setup_analyze");
    let here = &mut database.connect();
    // There is something to do at both tables.
    run(
        here,
        "DROP TRIGGER usher_memberships_changed ON usher.memberships; DROP TRIGGER update_integration_sync_timestamp ON usher.links",
    );
    let (mut writer, mut owner, mut analyst) = (database.connect(), database.connect(), database.connect());
    run(&mut writer, "BEGIN; LOCK TABLE usher.memberships IN ROW EXCLUSIVE MODE");
    thread::scope(|scope| {
        let setup = scope.spawn(move || owner.batch_execute(SETUP));
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM pg_locks WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = 'usher.memberships'::regclass AND NOT granted",
        );
        let analyze = scope.spawn(move || {
            analyst.batch_execute("SET application_name = 'setup_analyzes'")?;
            analyst.batch_execute("ANALYZE usher.links")?;
            analyst.batch_execute("SET application_name = 'setup_analyzed'").map(|()| analyst)
        });
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'setup_analyzed' OR application_name = 'setup_analyzes' AND wait_event_type = 'Lock'",
        );
        run(&mut writer, "COMMIT");
        setup.join().unwrap().expect("setup() goes through");
        drop(analyze.join().unwrap().expect("so does ANALYZE"));
    });
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM pg_trigger WHERE tgname IN ('usher_memberships_changed', 'update_integration_sync_timestamp')"
        ),
        2
    );
}

/// Who waits for a view that somebody reads does not keep others from it.
#[test]
fn readers_do_not_queue_up_behind_setup() {
    let database = Database::create("usher_test_setup_readers");
    let here = &mut database.connect();
    let (mut reader, mut owner) = (database.connect(), database.connect());
    run(&mut reader, "BEGIN; SELECT count(*) FROM usher.sync_jobs");
    thread::scope(|scope| {
        let setup = scope.spawn(move || owner.batch_execute(SETUP));
        wait::until_true(
            here,
            "SELECT count(*) = 1 FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = 'usher'::regnamespace AND c.relkind = 'v'
              WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND NOT l.granted",
        );
        // The reader goes on with views that come before and after that one.
        run(&mut reader, "SET lock_timeout = '3s'; SELECT count(*) FROM usher.ready_jobs; SELECT count(*) FROM usher.progress");
        run(here, "SET lock_timeout = '3s'; SELECT count(*) FROM usher.sync_jobs");
        run(&mut reader, "COMMIT");
        setup.join().unwrap().expect("setup() goes through");
    });
}
