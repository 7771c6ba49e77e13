//! How long the audit log is kept: days are dropped whole, and the chain still says what there was.

use usher_clients::{Database, SqlState, number, refused, reload, run, text, wait};

#[test]
fn a_day_that_was_kept_long_enough_goes_and_its_anchor_stays() {
    let database = Database::create("usher_test_retention");
    let mut client = database.connect();
    let here = &mut client;
    // Entries of two old days, one of them of yesterday's last year, and of today.
    run(
        here,
        "CREATE TABLE usher.audit_log_20200101 PARTITION OF usher.audit_log FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00');
         CREATE TABLE usher.audit_log_20200102 PARTITION OF usher.audit_log FOR VALUES FROM ('2020-01-02 00:00+00') TO ('2020-01-03 00:00+00');
         INSERT INTO usher.audit_log (id, recorded_at, actor, role, action, object, correlation_id)
         SELECT usher.uuid_v7(), timestamptz '2020-01-01 12:00+00' + (n % 2) * interval '1 day', 'me', 'me', 'done', n, usher.uuid_v7() FROM generate_series(1, 2500) AS n",
    );
    wait::until_true(
        here,
        "SELECT count(*) > 0 FROM (SELECT usher.seal_audit_log()) AS s, usher.verify_audit_log() AS v WHERE v.unsealed = 0 AND v.intact",
    );
    let (block, hash) =
        (number(here, "SELECT block FROM usher.audit_anchor()"), text(here, "SELECT hash FROM usher.audit_anchor()"));
    let there = "SELECT count(*) FROM usher.audit_log WHERE recorded_at < '2021-01-01'";
    assert_eq!(number(here, there), 2500);

    // Nothing goes while nothing says so; then one day at a time, as a worker does it once a minute. That may come first.
    let retire = "SELECT usher.retire_audit_log()";
    assert_eq!(refused(here, retire).code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    run(here, "ALTER SYSTEM SET usher.audit_days = 365");
    reload(here);
    wait::until_true(here, "SELECT current_setting('usher.audit_days') = '365'");
    wait::until(wait::LONG, "both days are dropped", || {
        run(here, retire);
        number(here, there) == 0
    });
    run(here, "ALTER SYSTEM RESET usher.audit_days");
    reload(here);
    assert_eq!(
        text(here, "SELECT string_agg(day || ' ' || kind, ', ' ORDER BY day) FROM usher.audit_blocks WHERE kind = 'retired'"),
        "2020-01-01 retired, 2020-01-02 retired"
    );
    let entered = "SELECT string_agg(object || ' ' || (new ->> 'entries'), ', ' ORDER BY object) FROM usher.audit_log WHERE action = 'usher.audit_log.retired'";
    assert_eq!(text(here, entered), "20200101 1250, 20200102 1250");
    // What was known before still fits, and what follows hangs on it.
    let verify = format!("SELECT concat_ws(' ', intact, message) FROM usher.verify_audit_log({block}, '{hash}')");
    assert!(text(here, &verify).starts_with("t "), "{}", text(here, &verify));
    // A block of a day that is gone is an anchor for what follows: it cannot be changed either.
    run(here, "SET session_replication_role = replica; BEGIN; UPDATE usher.audit_blocks SET root = sha256('x') WHERE number = 1");
    assert!(text(here, &verify).starts_with("f block 1 does not follow"), "{}", text(here, &verify));
    run(here, "ROLLBACK");
    // Nor can a day be slipped away without saying so.
    run(here, "BEGIN; DELETE FROM usher.audit_blocks WHERE kind = 'retired'");
    assert!(text(here, &verify).starts_with("f "), "{}", text(here, &verify));
    run(here, "ROLLBACK");
}
