//! W11: a damage is a maintenance order; the asset is out of service and its next reservations are flagged until it is done.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W11",
    targets: &["atlvs.maintenance_orders", "atlvs.assets", "atlvs.asset_reservations"],
    prepare: |place| format!("{} {}", site::project(place), crane(place)),
    act: |place| damage(place),
    check,
    not_met: |place| {
        format!(
            "INSERT INTO compvss.incidents (organization_id, production_id, kind, severity) VALUES ('{}', '{}', 'technical', 'high')",
            place.organization,
            place.id("production")
        )
    },
    repeat: |place| {
        format!(
            "UPDATE compvss.damage_reports SET note = 'seen twice', severity = 'critical' WHERE organization_id = '{0}' AND id = '{1}'; {2} ON CONFLICT DO NOTHING",
            place.organization,
            place.id("damage"),
            damage(place)
        )
    },
    bad: Bad {
        before: |place| {
            format!(
                "DELETE FROM atlvs.asset_reservations WHERE organization_id = '{0}' AND asset_id = '{1}'; DELETE FROM atlvs.assets WHERE organization_id = '{0}' AND id = '{1}'",
                place.organization,
                place.id("crane")
            )
        },
        act: |place| damage(place),
        flow: "live_events.order_maintenance",
        error: "the asset exists",
        repair: crane,
        changes: Some(|_| "{}".to_owned()),
    },
};

/// A crane with reservations in two days, in two weeks, and in two days by somebody who does not need it any more.
fn crane(place: &Place) -> String {
    format!(
        "INSERT INTO atlvs.assets (organization_id, id, tag, name, category) VALUES ('{0}', '{1}', '{2}', 'Crane', 'crane');
         INSERT INTO atlvs.asset_reservations (organization_id, asset_id, production_ref, status, period)
         SELECT '{0}', '{1}', '{3}', d.status, tstzrange(now() + d.days * interval '1 day', now() + d.days * interval '1 day' + interval '5 hours')
           FROM (VALUES (2, 'held'), (14, 'confirmed'), (2, 'released')) AS d (days, status)",
        place.organization,
        place.id("crane"),
        place.unique("C"),
        place.id("production")
    )
}

fn damage(place: &Place) -> String {
    format!(
        "INSERT INTO compvss.damage_reports (organization_id, id, asset_ref, production_id, severity, note) VALUES ('{}', '{}', '{}', '{}', 'high', 'a rope')",
        place.organization,
        place.id("damage"),
        place.id("crane"),
        place.id("production")
    )
}

fn stands(place: &Place) -> String {
    format!(
        "SELECT string_agg(concat_ws('|', m.severity, m.due_on = atlvs.local_day(m.organization_id, m.created_at) + 3, m.status, a.state,
                    (SELECT string_agg(COALESCE(x.flagged = 'in maintenance until ' || m.due_on, false)::text, '+' ORDER BY x.period, x.status) FROM atlvs.asset_reservations AS x
                      WHERE x.organization_id = a.organization_id AND x.asset_id = a.id)), ',')
           FROM atlvs.maintenance_orders AS m JOIN atlvs.assets AS a ON a.organization_id = m.organization_id AND a.id = m.asset_id
          WHERE m.organization_id = '{}' AND m.damage_ref = '{}'",
        place.organization,
        place.id("damage")
    )
}

fn check(here: &mut Client, place: &Place) {
    assert_eq!(text(here, &stands(place)), "high|t|open|maintenance|true+false+false");
    assert_eq!(text(here, &site::links(place, "damage", "damage")), "1 synced compvss atlvs");
    let set = |status: &str| {
        format!("UPDATE atlvs.maintenance_orders SET status = '{status}' WHERE organization_id = '{}' AND damage_ref = '{}'", place.organization, place.id("damage"))
    };
    run(here, &set("done"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(place)), "high|t|done|reserved|false+false+false");
    run(here, &set("open"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(place)), "high|t|open|maintenance|true+false+false");
}
