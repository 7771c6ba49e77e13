//! What the workflows about money have in common: an order that somebody pays, and a journal as one line.

use super::six::Place;
use usher_clients::{Client, text};

/// A pending order of an event of its own, with two tickets, a piece of merchandise and a parking place: 95.20 + 3.00 fees + 18.66 tax.
pub fn order(place: &Place) -> String {
    let event = place.id("event").to_string();
    format!(
        "INSERT INTO gvteway.events (organization_id, id, slug, title) VALUES ('{}', '{event}', '{}', 'Night'); {}",
        place.organization,
        place.unique("night"),
        order_of(place, &event)
    )
}

/// The same order of an event that is there.
pub fn order_of(place: &Place, event: &str) -> String {
    format!(
        "INSERT INTO gvteway.merch_products (organization_id, id, sku, title, stock) VALUES ('{0}', '{2}', '{3}', 'Shirt', 100);
         INSERT INTO gvteway.orders (organization_id, id, event_id, number, subtotal, fees, tax, total, currency, jurisdiction)
         VALUES ('{0}', '{4}', '{1}', '{5}', 95.20, 3.00, 18.66, 116.86, 'EUR', 'Berlin');
         INSERT INTO gvteway.order_items (organization_id, id, order_id, kind, sku, qty, unit_price)
         VALUES ('{0}', '{6}', '{4}', 'ticket', NULL, 2, 30.10), ('{0}', '{7}', '{4}', 'merch', '{3}', 1, 25), ('{0}', '{8}', '{4}', 'parking', NULL, 1, 10)",
        place.organization,
        event,
        place.id("product"),
        place.unique("shirt"),
        place.id("order"),
        place.unique("S"),
        place.id("tickets"),
        place.id("shirts"),
        place.id("parking"),
    )
}

/// Sets something of the order.
pub fn set_order(place: &Place, what: &str) -> String {
    format!("UPDATE gvteway.orders SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("order"))
}

/// All journals of a source as lines: day, currency, whether it balances, and its entries.
pub fn journals(here: &mut Client, place: &Place, system: &str, reference: &str) -> String {
    text(
        here,
        &format!(
            "SELECT COALESCE(string_agg(concat_ws(' ', j.entry_on, j.currency,
                        (SELECT string_agg(a.code || CASE WHEN e.debit > 0 THEN ' D ' || e.debit ELSE ' C ' || e.credit END, ', ' ORDER BY a.code)
                           FROM atlvs.ledger_entries AS e JOIN atlvs.ledger_accounts AS a ON a.organization_id = e.organization_id AND a.id = e.account_id
                          WHERE e.organization_id = j.organization_id AND e.journal_id = j.id)), E'\\n' ORDER BY j.entry_on, j.id), 'none')
               FROM atlvs.journals AS j WHERE j.organization_id = '{}' AND j.source_system = '{system}' AND j.source_ref IN ({reference})",
            place.organization
        ),
    )
}
