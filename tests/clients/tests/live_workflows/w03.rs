//! W3: a request holds the asset that it names, or a free one, or is denied; one asset is never given to two.

use super::six::{Bad, Place, Workflow};
use super::site;
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W3",
    targets: &["atlvs.asset_reservations", "atlvs.assets"],
    prepare: |place| format!("{} {} {}", site::project(place), truck(place, 1), truck(place, 2)),
    act: |place| ask(place, "requested"),
    check,
    not_met: |place| ask(place, "denied"),
    repeat: |place| {
        format!(
            "UPDATE compvss.asset_requests SET status = 'allocated', reason = 'said twice' WHERE organization_id = '{}' AND id = '{}'",
            place.organization,
            place.id("request")
        )
    },
    bad: Bad {
        before: |place| format!("DELETE FROM atlvs.assets WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("truck 1")),
        act: |place| ask(place, "requested"),
        flow: "live_events.allocate_requested_asset",
        error: "does not exist",
        repair: |place| truck(place, 1),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn truck(place: &Place, n: u32) -> String {
    format!(
        "INSERT INTO atlvs.assets (organization_id, id, tag, name, category) VALUES ('{}', '{}', '{}', 'Truck {n}', '{}');",
        place.organization,
        place.id(&format!("truck {n}")),
        place.unique(&format!("T{n}")),
        place.unique("truck")
    )
}

fn ask(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO compvss.asset_requests (organization_id, id, production_id, category, asset_ref, period, status)
         VALUES ('{}', '{}', '{}', '{}', '{}', '[2026-12-01 08:00Z, 2026-12-03 20:00Z)', '{status}')",
        place.organization,
        place.id("request"),
        place.id("production"),
        place.unique("truck"),
        place.id("truck 1")
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', r.status, r.asset_ref = a.id, r.alternatives, x.status, x.period = r.period, x.production_ref = r.production_id, a.state), ',')
               FROM compvss.asset_requests AS r
               JOIN atlvs.asset_reservations AS x ON x.organization_id = r.organization_id AND x.request_ref = r.id
               JOIN atlvs.assets AS a ON a.organization_id = x.organization_id AND a.id = x.asset_id
              WHERE r.organization_id = '{}' AND a.id = '{}'",
            place.organization,
            place.id("truck 1")
        ),
    );
    assert_eq!(found, "allocated|t|[]|held|t|t|reserved");
    assert_eq!(text(here, &site::links(place, "asset", "truck 1")), "1 synced atlvs compvss");
}
