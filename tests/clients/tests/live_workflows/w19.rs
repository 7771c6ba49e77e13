//! W19: what a guest has paid is the guest's spend and the contact's worth.

use super::money::{order, set_order};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W19",
    targets: &["gvteway.guests", "atlvs.contacts"],
    // The contact's guest has its id; the membership is paid before.
    prepare: |place| {
        format!(
            "{order}; INSERT INTO gvteway.guests (organization_id, id, contact_ref, email) VALUES ('{organization}', '{guest}', '{contact}', '{name}@example.org');
             INSERT INTO atlvs.contacts (organization_id, id, last_name, email) VALUES ('{organization}', '{contact}', 'Guest', '{name}@example.org');
             INSERT INTO gvteway.memberships (organization_id, guest_id, tier, price, currency, starts_on) VALUES ('{organization}', '{guest}', 'gold', 50, 'EUR', '2026-01-01');
             UPDATE gvteway.orders SET guest_ref = '{guest}' WHERE id = '{order_id}'",
            order = order(place),
            organization = place.organization,
            guest = place.id("guest"),
            contact = place.id("contact"),
            name = place.unique("guest"),
            order_id = place.id("order"),
        )
    },
    act: |place| set_order(place, "status = 'paid'"),
    check,
    not_met: |place| set_order(place, "status = 'cancelled'"),
    repeat: |place| set_order(place, "status = 'paid', metadata = '{\"seen\": true}'"),
    bad: Bad {
        before: |place| {
            format!(
                "ALTER TABLE gvteway.guests ADD CONSTRAINT kept_back CHECK (id <> '{}' OR lifetime_spend <= 50) NOT VALID",
                place.id("guest")
            )
        },
        act: |place| set_order(place, "status = 'paid'"),
        flow: "live_events.count_order_for_guest",
        error: "kept_back",
        repair: |_| "ALTER TABLE gvteway.guests DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT concat_ws('|', g.lifetime_spend, g.currency, c.lifetime_value, c.currency)
               FROM gvteway.guests AS g JOIN atlvs.contacts AS c ON c.organization_id = g.organization_id AND c.id = g.contact_ref
              WHERE g.organization_id = '{}' AND g.id = '{}'",
            place.organization,
            place.id("guest")
        ),
    );
    assert_eq!(found, "166.86|EUR|166.86|EUR");
}
