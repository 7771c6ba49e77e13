//! W17: what is sold leaves the stock and the store, by what was sold, and a store that runs low says so.

use super::money::{order, set_order};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

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
}
