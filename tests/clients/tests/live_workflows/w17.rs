//! W17: what is sold leaves the stock and the store, by what was sold, and a store that runs low says so.

use super::money::{order, set_order};
use super::show::lanes;
use super::six::{Bad, Place, Workflow, alone};
use std::thread;
use usher_clients::{Client, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W17",
    targets: &["gvteway.merch_products", "gvteway.stock_moves", "atlvs.inventory_items", "atlvs.alerts"],
    // The product says 100 before it is known to the store: the store's count holds.
    prepare: |place| {
        format!(
            "{}; INSERT INTO atlvs.inventory_items (organization_id, id, sku, name, on_hand, reorder_at) VALUES ('{}', '{}', '{}', 'Shirt', 10, 9)",
            order(place),
            place.organization,
            place.id("item"),
            place.unique("shirt")
        )
    },
    // The store is counted up at the same time: both amounts are in it.
    act: |place| {
        format!(
            "{}; UPDATE gvteway.merch_products SET stock = stock - 2 WHERE organization_id = '{}' AND id = '{}'",
            set_order(place, "status = 'paid'"),
            place.organization,
            place.id("product")
        )
    },
    check,
    not_met: |place| set_order(place, "status = 'cancelled'"),
    repeat: |place| set_order(place, "status = 'paid', metadata = '{\"seen\": true}'"),
    bad: Bad {
        before: |place| format!("UPDATE gvteway.order_items SET sku = 'nobody''s' WHERE id = '{}'", place.id("shirts")),
        act: |place| set_order(place, "status = 'paid'"),
        flow: "live_events.take_sold_stock",
        error: "no product has the sku nobody's",
        repair: |place| {
            format!(
                "UPDATE gvteway.order_items SET sku = '{}' WHERE id = '{}'; UPDATE gvteway.merch_products SET stock = stock - 2 WHERE id = '{}'",
                place.unique("shirt"),
                place.id("shirts"),
                place.id("product")
            )
        },
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT concat_ws('|', p.stock, i.on_hand, (SELECT string_agg(m.delta::text, ',') FROM gvteway.stock_moves AS m WHERE m.product_id = p.id),
                              a.kind, a.severity, a.status, replace(a.title, i.sku, 'SKU'),
                              (SELECT count(*) FROM usher.links AS l WHERE l.kind = 'stock' AND l.left_id = i.id::text AND l.right_id = p.id::text))
               FROM gvteway.merch_products AS p
               JOIN atlvs.inventory_items AS i ON i.organization_id = p.organization_id AND i.sku = p.sku
               LEFT JOIN atlvs.alerts AS a ON a.organization_id = i.organization_id AND a.source_ref = i.id
              WHERE p.organization_id = '{}' AND p.id = '{}'",
            place.organization,
            place.id("product")
        ),
    );
    assert_eq!(found, "7|7|-1|inventory|medium|open|Shirt (SKU) is low: 7 left, to be ordered again at 9|1");
    let told = format!(
        "SELECT string_agg(concat_ws(' ', recipient, kind, severity), ', ') FROM usher.notifications WHERE organization_id = '{}' AND title LIKE '%{}%'",
        place.organization,
        place.unique("shirt")
    );
    assert_eq!(text(here, &told), "role:clients_live_member low_stock warning");
    // One process does all of it: two would wait for each other's products crosswise.
    assert_eq!(lanes(here, place, "take_sold_stock", "order"), "critical");
    assert_eq!(lanes(here, place, "keep_stock_in_step", "item"), "critical");
}

#[test]
fn w17_lines_that_come_behind_the_payment_are_waited_for() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let here = &mut stage.owner;
    let (tickets, shirts) = (place.id("tickets"), place.id("shirts"));
    run(
        here,
        &format!(
            "CREATE TEMP TABLE late AS SELECT * FROM gvteway.order_items WHERE id IN ('{tickets}', '{shirts}'); DELETE FROM gvteway.order_items WHERE id IN ('{tickets}', '{shirts}'); {}",
            set_order(place, "status = 'paid'")
        ),
    );
    settled(here, wait::LONG);
    let moved = format!("SELECT count(*)::text || ' ' || min(p.stock) FROM gvteway.merch_products AS p LEFT JOIN gvteway.stock_moves AS m ON m.product_id = p.id WHERE p.id = '{}' AND m.id IS NOT NULL", place.id("product"));
    assert_eq!(text(here, &format!("SELECT count(*)::text FROM gvteway.stock_moves WHERE product_id = '{}'", place.id("product"))), "0");
    let told = |dead: &(String, String)| dead.0 == WORKFLOW.bad.flow && dead.1.contains("the order has all its lines");
    let dead = stage.dead(place);
    assert!(dead.iter().any(told), "{dead:?}");
    let here = &mut stage.owner;
    run(here, "INSERT INTO gvteway.order_items SELECT * FROM late; DROP TABLE late");
    run(here, &format!("SELECT usher.retry_dead_letters('north', '{{\"flow\": \"{}\"}}')", WORKFLOW.bad.flow));
    settled(here, wait::LONG);
    assert_eq!(text(here, &moved), "1 9");
}

#[test]
fn w17_two_orders_of_the_same_products_do_not_wait_crosswise() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let low = "00000000-0000-0000-0000-0000000000a1";
    run(
        &mut stage.owner,
        &format!(
            "INSERT INTO gvteway.merch_products (organization_id, id, sku, title, stock) VALUES ('{0}', '{low}', '{1}', 'Cup', 5);
             INSERT INTO gvteway.order_items (organization_id, order_id, kind, sku, qty, unit_price) VALUES ('{0}', '{2}', 'merch', '{1}', 1, 0)",
            place.organization,
            place.unique("cup"),
            place.id("order")
        ),
    );
    stage.settle();
    // Who waits for the first product has not yet taken the second.
    let mut holder = stage.another();
    run(&mut holder, &format!("BEGIN; SELECT FROM gvteway.merch_products WHERE id = '{low}' FOR UPDATE"));
    let mut mover = stage.another();
    let sql = format!("SELECT gvteway.move_stock('{}', '{}', false)", place.organization, place.id("order"));
    let moving = thread::spawn(move || run(&mut mover, &sql));
    stage.somebody_waits();
    run(&mut holder, &format!("SELECT FROM gvteway.merch_products WHERE id = '{}' FOR UPDATE NOWAIT; COMMIT", place.id("product")));
    moving.join().expect("the move has panicked");
}
