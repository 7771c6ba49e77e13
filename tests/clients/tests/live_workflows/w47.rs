//! W47: whatever one of the three systems has to tell somebody reaches one inbox, once.

use super::show::set;
use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, Database, number, role, run, settled, text, value, wait};

/// What W47 writes.
const TOLD: &str = "(SELECT organization_id, recipient, kind, severity, title, key, read_at FROM usher.notifications WHERE kind NOT IN ($$schedule$$, $$flow_failing$$))";

pub const WORKFLOW: Workflow = Workflow {
    number: "W47",
    targets: &[TOLD],
    prepare: |place| {
        format!(
            "{} {} INSERT INTO compvss.crew_assignments (organization_id, id, production_id, crew_id, period, status) VALUES ('{}', '{}', '{}', '{}', '[2026-12-01 08:00Z, 2026-12-01 18:00Z)', 'confirmed')",
            site::project(place),
            site::worker(place),
            place.organization,
            place.id("assignment"),
            place.id("production"),
            place.id("crew")
        )
    },
    act: |place| format!("{} {}", sign_in(place), incident(place, "open")),
    check,
    not_met: |place| format!("{} {}", sign_in(place), incident(place, "resolved")),
    repeat: |place| {
        format!(
            "{} {}",
            set(place, "compvss.incidents", "incident", "public_message = 'Stay calm'"),
            set(place, "compvss.incidents", "incident", "severity = 'medium', status = 'in_progress'")
        )
    },
    bad: Bad {
        before: |place| {
            format!("ALTER TABLE usher.notifications ADD CONSTRAINT kept_back CHECK (body ->> 'incident_id' <> '{}')", place.id("incident"))
        },
        act: |place| format!("{} {}", sign_in(place), incident(place, "open")),
        flow: "live_events.tell_staff_of_incident",
        error: "kept_back",
        repair: |_| "ALTER TABLE usher.notifications DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

/// The rigger signs in, from now on: an admin has linked the user.
fn sign_in(place: &Place) -> String {
    format!(
        "UPDATE live_events.identities AS i SET user_id = '{}' FROM live_events.platform_accounts AS a
          WHERE i.organization_id = '{1}' AND a.organization_id = '{1}' AND a.identity_id = i.id AND a.kind = 'crew_member' AND a.ref = '{2}';",
        place.unique("rigger"),
        place.organization,
        place.id("crew")
    )
}

fn incident(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO compvss.incidents (organization_id, id, production_id, kind, severity, status) VALUES ('{}', '{}', '{}', 'medical', 'high', '{status}');",
        place.organization,
        place.id("incident"),
        place.id("production")
    )
}

/// What the rigger has been told, and how many have been told the same.
fn told(place: &Place) -> String {
    format!(
        "SELECT COALESCE(string_agg(concat_ws('|', n.kind, n.severity, n.title, (SELECT count(*) FROM usher.notifications AS o WHERE o.organization_id = n.organization_id AND o.key = n.key)),
                                    E'\\n' ORDER BY n.created_at, n.kind), '')
           FROM usher.notifications AS n WHERE n.organization_id = '{}' AND n.recipient = '{}'",
        place.organization,
        place.unique("rigger")
    )
}

fn check(here: &mut Client, place: &Place) {
    // The rigger and the admin.
    let mut expected = "incident|warning|Medical|2".to_owned();
    assert_eq!(text(here, &told(place)), expected);
    let mut then = |here: &mut Client, what: &str, told_of: &str| {
        run(here, what);
        settled(here, wait::LONG);
        if !told_of.is_empty() {
            expected = format!("{expected}\n{told_of}");
        }
        assert_eq!(text(here, &told(place)), expected, "{what}");
    };
    then(here, &set(place, "compvss.incidents", "incident", "severity = 'critical', public_message = 'Stay calm'"), "incident|critical|Medical: Stay calm|2");
    then(here, &set(place, "compvss.incidents", "incident", "status = 'resolved', severity = 'low'"), "incident|info|Over: Medical: Stay calm|2");
    // Weather, also without an event whose guests are told.
    let weather = |level: &str| {
        format!(
            "INSERT INTO compvss.alerts (organization_id, id, production_id, kind, level, headline) VALUES ('{}', '{}', '{}', 'weather', '{level}', 'Storm')
             ON CONFLICT ON CONSTRAINT alerts_pkey DO UPDATE SET level = excluded.level",
            place.organization,
            place.id("storm"),
            place.id("production")
        )
    };
    then(here, &weather("advisory"), "");
    then(here, &weather("watch"), "weather|warning|Weather watch: Storm|2");
    then(here, &weather("emergency"), "weather|critical|Weather emergency: Storm|2");
    then(here, &set(place, "compvss.alerts", "storm", "status = 'resolved'"), "weather|info|Over: Storm|2");
    // A risk on site is an alert of the office (W8): told once, not twice.
    then(
        here,
        &format!(
            "INSERT INTO compvss.alerts (organization_id, id, production_id, kind, level, headline) VALUES ('{}', '{}', '{}', 'risk', 'high', 'Load on the roof')",
            place.organization,
            place.id("risk"),
            place.id("production")
        ),
        "alert|warning|Load on the roof|2",
    );
    then(here, &set(place, "compvss.alerts", "risk", "headline = 'Load on the roof, stage left'"), "");
    // Of low stock W17 tells, and only the admins.
    then(
        here,
        &format!(
            "INSERT INTO atlvs.inventory_items (organization_id, id, sku, name, on_hand, reorder_at) VALUES ('{}', '{}', '{}', 'Shirt', 0, 5)",
            place.organization,
            place.id("shirts"),
            place.unique("shirt")
        ),
        "",
    );
    let admins = format!("SELECT string_agg(kind, ',' ORDER BY kind) FROM usher.notifications WHERE organization_id = '{}' AND title LIKE 'Shirt ({})%'", place.organization, place.unique("shirt"));
    assert_eq!(text(here, &admins), "low_stock");
    // Who is not on the job any more is not told.
    then(here, &set(place, "compvss.crew_assignments", "assignment", "status = 'cancelled'"), "");
    then(here, &set(place, "compvss.incidents", "incident", "status = 'open'"), "");
}

/// What the hub itself has to say to admins, here of two bookings that nobody has moved, is read in the same place.
#[test]
fn a_conflict_that_stays_open_reaches_the_inbox() {
    let database = Database::create("usher_test_w47");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_w47", "LOGIN");
    run(
        here,
        "GRANT usher_member TO clients_w47; SELECT usher.install_pack('live_events'); SELECT usher.create_organization('south');
         SELECT usher.grant_membership('south', 'somebody', 'admin')",
    );
    let organization = value(here, "SELECT usher.create_organization('north')", &[]);
    run(here, "SELECT usher.grant_membership('north', 'role:clients_w47', 'admin'), usher.grant_membership('north', 'a-member')");
    let place = &Place { slug: "north", organization, case: 1 };
    run(
        here,
        &format!(
            "{0} INSERT INTO atlvs.assets (organization_id, id, tag, name, category) VALUES ('{1}', '{2}', 'V-1', 'Van', 'van');
             INSERT INTO atlvs.asset_reservations (organization_id, asset_id, production_ref, period)
             VALUES ('{1}', '{2}', '{3}', '[2026-12-01 08:00Z, 2026-12-01 12:00Z)'), ('{1}', '{2}', '{3}', '[2026-12-01 11:00Z, 2026-12-01 14:00Z)')",
            site::project(place),
            place.organization,
            place.id("van"),
            place.id("production")
        ),
    );
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.conflicts WHERE state = 'open'"), 1);
    // The quarter of an hour is over.
    run(here, "UPDATE usher.conflicts SET escalate_at = now(); SELECT usher.check_overlaps()");
    wait::until_true(here, "SELECT count(*) = 1 FROM usher.notices WHERE kind = 'conflict open'");
    settled(here, wait::LONG);
    assert_eq!(
        text(here, "SELECT string_agg(concat_ws('|', n.recipient, n.kind, n.severity, n.title = h.subject, n.body ->> 'notice_id' = h.id::text), ',') FROM usher.notifications AS n, usher.notices AS h"),
        "role:clients_w47|conflict_open|critical|t|t"
    );
    let mut admin = database.connect_as("clients_w47");
    assert_eq!(number(&mut admin, "SELECT usher.read_notifications()"), 1);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
}
