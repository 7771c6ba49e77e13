//! W35: what is sold of an article says what will be needed, and whether to order more.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow, alone};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W35",
    targets: &["compvss.merch_forecasts"],
    prepare: |place| {
        format!(
            "{} INSERT INTO gvteway.merch_products (organization_id, id, sku, title, price, stock) VALUES ('{}', '{}', '{}', 'Shirt', 25, 20);",
            on_sale(place),
            place.organization,
            place.id("shirt"),
            place.unique("SHIRT")
        )
    },
    act: |place| ordered(place, "merch", &format!("'{}'", place.unique("SHIRT"))),
    check,
    not_met: |place| ordered(place, "parking", "NULL"),
    repeat: |place| set(place, "gvteway.orders", "order", "status = 'paid', updated_at = now()"),
    bad: Bad {
        before: |place| {
            format!(
                "ALTER TABLE compvss.merch_forecasts ADD CONSTRAINT kept_back CHECK (production_id <> '{}' OR sold = 0) NOT VALID",
                place.id("production")
            )
        },
        act: |place| ordered(place, "merch", &format!("'{}'", place.unique("SHIRT"))),
        flow: "live_events.forecast_merch_from_orders",
        error: "kept_back",
        repair: |_| "ALTER TABLE compvss.merch_forecasts DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

/// Ten tickets and four of something else, paid.
fn ordered(place: &Place, kind: &str, sku: &str) -> String {
    format!(
        "INSERT INTO gvteway.orders (organization_id, id, event_id, number, subtotal, total) VALUES ('{0}', '{1}', '{2}', '{3}', 200, 200);
         INSERT INTO gvteway.order_items (organization_id, id, order_id, kind, sku, qty, unit_price)
         VALUES ('{0}', '{4}', '{1}', 'ticket', NULL, 10, 10), ('{0}', '{5}', '{1}', '{kind}', {sku}, 4, 25); {6}",
        place.organization,
        place.id("order"),
        place.id("event"),
        place.unique("O"),
        place.id("tickets"),
        place.id("shirts"),
        set(place, "gvteway.orders", "order", "status = 'paid'")
    )
}

fn check(here: &mut Client, place: &Place) {
    let forecast = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', f.sku, f.sold, f.projected, f.stock IN (20, 16), f.reorder), E'\\n')
               FROM compvss.merch_forecasts AS f
              WHERE f.organization_id = '{}' AND f.production_id = '{}'",
            place.organization,
            place.id("production")
        ),
    );
    // Four for ten guests, a hundred are expected: forty, of which four are sold, and at most twenty are left.
    assert_eq!(forecast, format!("{}|4|40|t|t", place.unique("SHIRT")));
}

#[test]
fn w35_lines_that_come_behind_the_payment_are_waited_for() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let act = (WORKFLOW.act)(place);
    let lines = act.split(';').nth(1).expect("the lines").to_owned();
    run(&mut stage.owner, &act.replace(&lines, "SELECT 1"));
    stage.settle();
    let told = |dead: &(String, String)| dead.0 == WORKFLOW.bad.flow && dead.1.contains("the order has all its lines");
    let dead = stage.dead(place);
    assert!(dead.iter().any(told), "{dead:?}");
    run(&mut stage.owner, &lines);
    run(&mut stage.owner, "SELECT usher.retry_dead_letters('north', '{}')");
    stage.settle();
    check(&mut stage.owner, place);
}
