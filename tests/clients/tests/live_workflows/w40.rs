//! W40: what was bought is allocated (W3), deployed, and shown to guests where it is, until it comes back.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W40",
    targets: &["gvteway.event_info"],
    prepare: on_sale,
    act: |place| format!("{} {}", buy(place, true), deploy(place)),
    check,
    not_met: |place| format!("{} {}", buy(place, false), deploy(place)),
    repeat: |place| {
        format!(
            "{} {} {}",
            set(place, "compvss.asset_requests", "request", "reason = 'said twice'"),
            set(place, "atlvs.assets", "wheel", "price = 9000"),
            set(place, "gvteway.events", "event", "capacity = 501")
        )
    },
    bad: Bad {
        before: |place| format!("ALTER TABLE gvteway.event_info ADD CONSTRAINT kept_back CHECK (source_ref <> 'asset:{}')", place.id("wheel")),
        act: |place| format!("{} {}", buy(place, true), deploy(place)),
        flow: "live_events.show_deployed_asset",
        error: "kept_back",
        repair: |_| "ALTER TABLE gvteway.event_info DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn buy(place: &Place, visible: bool) -> String {
    format!(
        "INSERT INTO atlvs.assets (organization_id, id, tag, name, category, price, bought_on, guest_visible) VALUES ('{}', '{}', '{}', 'Big wheel', '{}', 8000, '2031-01-02', {visible});",
        place.organization,
        place.id("wheel"),
        place.unique("W"),
        place.unique("ride")
    )
}

/// W3 answers in the transaction that asks.
fn deploy(place: &Place) -> String {
    format!(
        "INSERT INTO compvss.asset_requests (organization_id, id, production_id, category, period)
         VALUES ('{}', '{}', '{}', '{}', '[2031-08-01 08:00Z, 2031-08-02 08:00Z)'); {}",
        place.organization,
        place.id("request"),
        place.id("production"),
        place.unique("ride"),
        set(place, "compvss.asset_requests", "request", "status = 'deployed'")
    )
}

fn check(here: &mut Client, place: &Place) {
    let shown = format!(
        "SELECT COALESCE(string_agg(concat_ws('|', i.kind, i.title, i.body ->> 'category' = '{}', (i.body ->> 'until')::timestamptz = '2031-08-02 08:00Z', i.event_id = '{}'), ','), 'nothing')
           FROM gvteway.event_info AS i WHERE i.organization_id = '{}' AND i.source_ref = 'asset:{}'",
        place.unique("ride"),
        place.id("event"),
        place.organization,
        place.id("wheel")
    );
    let state = format!(
        "SELECT concat_ws('|', a.state, r.asset_ref = a.id, r.status, x.status) FROM atlvs.assets AS a
           JOIN compvss.asset_requests AS r ON r.organization_id = a.organization_id AND r.id = '{}'
           JOIN atlvs.asset_reservations AS x ON x.organization_id = a.organization_id AND x.request_ref = r.id
          WHERE a.organization_id = '{}' AND a.id = '{}'",
        place.id("request"),
        place.organization,
        place.id("wheel")
    );
    let mut then = |what: String, becomes: &str, stands: &str| {
        run(here, &what);
        settled(here, wait::LONG);
        assert_eq!((text(here, &shown), text(here, &state)), (becomes.to_owned(), stands.to_owned()), "{what}");
    };
    let (deployed, whole) = ("deployed|t|deployed|confirmed", "experience|Big wheel|t|t|t");
    then(nothing(place), whole, deployed);
    then(set(place, "atlvs.assets", "wheel", "name = 'Giant wheel'"), "experience|Giant wheel|t|t|t", deployed);
    then(set(place, "atlvs.assets", "wheel", "name = 'Big wheel', guest_visible = false"), "nothing", deployed);
    then(set(place, "atlvs.assets", "wheel", "guest_visible = true"), whole, deployed);
    // Damaged it is not shown, repaired it is again (W11).
    then(
        format!(
            "INSERT INTO compvss.damage_reports (organization_id, asset_ref, production_id) VALUES ('{}', '{}', '{}')",
            place.organization,
            place.id("wheel"),
            place.id("production")
        ),
        "nothing",
        "maintenance|t|deployed|confirmed",
    );
    then(
        format!("UPDATE atlvs.maintenance_orders SET status = 'done' WHERE organization_id = '{}' AND asset_id = '{}'", place.organization, place.id("wheel")),
        whole,
        deployed,
    );
    // An event that is there only now.
    then(set(place, "gvteway.events", "event", "production_ref = NULL"), whole, deployed);
    then(format!("DELETE FROM gvteway.event_info WHERE source_ref = 'asset:{}'", place.id("wheel")), "nothing", deployed);
    then(set(place, "gvteway.events", "event", &format!("production_ref = '{}'", place.id("production"))), whole, deployed);
    then(set(place, "compvss.asset_requests", "request", "status = 'returned'"), "nothing", "available|t|returned|released");
}
