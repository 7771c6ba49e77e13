//! W42: an order that names its campaign counts for it, and what campaigns bring projects the attendance.

use super::money::{order, set_order};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W42",
    targets: &["atlvs.campaigns", "compvss.productions"],
    prepare: |place| {
        format!(
            "INSERT INTO compvss.productions (organization_id, id, name, capacity) VALUES ('{organization}', '{production}', 'Night', 500);
             {order}; UPDATE gvteway.events SET production_ref = '{production}' WHERE id = '{event}';
             INSERT INTO gvteway.campaigns (organization_id, id, event_id, name, budget, currency) VALUES ('{organization}', '{campaign}', '{event}', 'Spring', 1000, 'EUR');
             INSERT INTO gvteway.campaign_spend (organization_id, campaign_id, spent_on, amount, currency, source_ref)
             VALUES ('{organization}', '{campaign}', '2026-03-04', 40, 'EUR', '{invoice}');
             UPDATE gvteway.orders SET campaign_id = '{campaign}' WHERE id = '{order_id}'",
            organization = place.organization,
            production = place.id("production"),
            order = order(place),
            event = place.id("event"),
            campaign = place.id("campaign"),
            invoice = place.unique("inv"),
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
                "ALTER TABLE atlvs.campaigns ADD CONSTRAINT kept_back CHECK (campaign_ref <> '{}' OR attributed_orders = 0) NOT VALID",
                place.id("campaign")
            )
        },
        act: |place| set_order(place, "status = 'paid'"),
        flow: "live_events.attribute_order_to_campaign",
        error: "kept_back",
        repair: |_| "ALTER TABLE atlvs.campaigns DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    // Two tickets for 40 of 1000: the other 960 bring 48 more. The production has no project, so that no sale is counted for it.
    let found = text(
        here,
        &format!(
            "SELECT concat_ws('|', c.attributed_orders, c.attributed_revenue, c.spend, c.currency, p.projected_attendance, p.tickets_sold)
               FROM atlvs.campaigns AS c, compvss.productions AS p WHERE c.organization_id = '{}' AND c.campaign_ref = '{}' AND p.id = '{}'",
            place.organization,
            place.id("campaign"),
            place.id("production")
        ),
    );
    assert_eq!(found, "1|116.86|40|EUR|48|0");
}
