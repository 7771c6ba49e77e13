//! What is counted and carried from one system to the other: stock, guests, bookings, ratings, worth.

use super::{done, event, nothing_failed, order, pack};
use std::thread;
use usher_clients::{Client, Uuid, number, run, text, value, wait};

#[test]
fn stock_and_store_agree_whoever_sells_and_counts() {
    let (database, mut client, acme) = pack("usher_test_stock");
    let here = &mut client;
    let night = event(here, acme, "night");
    run(
        here,
        &format!(
            "INSERT INTO atlvs.inventory_items (organization_id, sku, name, on_hand, reorder_at) VALUES ('{acme}', 'shirt', 'Shirt', 100, 10), ('{acme}', 'cup', 'Cup', 2, 0);
             INSERT INTO gvteway.merch_products (organization_id, sku, title) VALUES ('{acme}', 'shirt', 'Shirt'), ('{acme}', 'cup', 'Cup')"
        ),
    );
    nothing_failed(here);
    assert_eq!(
        text(here, "SELECT string_agg(sku || stock, ',' ORDER BY sku) FROM gvteway.merch_products"),
        "cup2,shirt100",
        "the store's count holds"
    );
    let sell = |here: &mut Client, number: &str, sku: &str, qty: i32| -> Uuid {
        let sql = "WITH o AS (INSERT INTO gvteway.orders (organization_id, event_id, number) VALUES ($1, $2, $3) RETURNING organization_id, id),
                        i AS (INSERT INTO gvteway.order_items (organization_id, order_id, kind, sku, qty, unit_price) SELECT o.organization_id, o.id, 'merch', $4, $5, 0 FROM o)
                   SELECT id FROM o";
        value(here, sql, &[&acme, &night, &number, &sku, &qty])
    };
    let orders: Vec<Uuid> = (0..40).map(|n| sell(here, &format!("S-{n}"), "shirt", 2)).collect();
    let sessions: Vec<_> = orders
        .chunks(10)
        .map(|part| {
            let (mut client, part) = (database.connect(), part.to_vec());
            thread::spawn(move || {
                for id in part {
                    client.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&id]).expect("paid");
                    client
                        .execute("UPDATE atlvs.inventory_items SET on_hand = on_hand + 1 WHERE sku = 'shirt'", &[])
                        .expect("counted");
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    nothing_failed(here);
    let both = "SELECT concat_ws(',', p.stock, i.on_hand) FROM gvteway.merch_products p JOIN atlvs.inventory_items i USING (organization_id, sku) WHERE sku = ";
    assert_eq!(text(here, &format!("{both} 'shirt'")), "60,60", "100 - 40 * 2 + 40");
    // Given back, once, also when everything runs again.
    here.execute("UPDATE gvteway.orders SET status = 'refunded' WHERE id = ANY ($1)", &[&orders[..5].to_vec()])
        .expect("refunded");
    nothing_failed(here);
    for flow in ["take_sold_stock", "return_refunded_stock"] {
        run(here, &format!("SELECT usher.replay('live_events.{flow}', now() - interval '1 hour', now())"));
    }
    nothing_failed(here);
    wait::until_true(
        here,
        "SELECT count(*) = 90 FROM usher.sync_jobs WHERE flow IN ('live_events.take_sold_stock', 'live_events.return_refunded_stock') AND status = 'synced'",
    );
    assert_eq!(text(here, &format!("{both} 'shirt'")), "70,70");
    // Low, lower, and full again.
    let alert =
        "SELECT concat_ws('|', severity, status, title) FROM atlvs.alerts WHERE kind = 'inventory' AND title LIKE 'Shirt%'";
    run(here, "UPDATE atlvs.inventory_items SET on_hand = 10 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "medium|open|Shirt (shirt) is low: 10 left, to be ordered again at 10");
    run(here, "UPDATE gvteway.merch_products SET stock = 0 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "high|open|Shirt (shirt) is out of stock");
    run(here, "UPDATE atlvs.inventory_items SET on_hand = 50 WHERE sku = 'shirt'");
    nothing_failed(here);
    assert_eq!(text(here, alert), "high|resolved|Shirt (shirt) is out of stock");
    // More is sold than there is: the store cannot hold less than nothing, somebody is told, and the next delivery makes it good.
    let id = sell(here, "many", "cup", 5);
    here.execute("UPDATE gvteway.orders SET status = 'paid' WHERE id = $1", &[&id]).expect("paid");
    done(here);
    assert_eq!(text(here, &format!("{both} 'cup'")), "-3,2");
    assert_eq!(text(here, "SELECT string_agg(kind || ' ' || state, ',') FROM usher.conflicts"), "validation_failure open");
    run(here, "UPDATE atlvs.inventory_items SET on_hand = on_hand + 10 WHERE sku = 'cup'");
    done(here);
    assert_eq!(text(here, &format!("{both} 'cup'")), "7,7");
    assert_eq!(text(here, "SELECT string_agg(kind || ' ' || state, ',') FROM usher.conflicts"), "validation_failure gone");
}

#[test]
fn what_a_guest_says_later_holds_and_withdrawn_consent_always() {
    let (_database, mut client, acme) = pack("usher_test_guests");
    let here = &mut client;
    let contact: Uuid = value(
        here,
        "INSERT INTO atlvs.contacts (organization_id, email, first_name, phone, marketing_consent) VALUES ($1, 'ada@example.org', 'Ada', '1', true) RETURNING id",
        &[&acme],
    );
    nothing_failed(here);
    let guest = "SELECT concat_ws('|', email, name, phone, marketing_opt_in) FROM gvteway.guests WHERE contact_ref IS NOT NULL";
    let change = |here: &mut Client, table: &str, what: &str| {
        run(here, &format!("UPDATE {table} SET {what} WHERE organization_id = '{acme}'"));
        nothing_failed(here);
    };
    assert_eq!(text(here, guest), "ada@example.org|Ada|1|t");
    // The guest's own phone is later than the contact's new name, which comes along with an old phone.
    change(here, "gvteway.guests", "phone = '2'");
    change(here, "atlvs.contacts", "first_name = 'Ada L.'");
    assert_eq!(text(here, guest), "ada@example.org|Ada L.|2|t");
    // The contact's next phone is later still.
    change(here, "atlvs.contacts", "phone = '3'");
    assert_eq!(text(here, guest), "ada@example.org|Ada L.|3|t");
    // Another address is the same guest, and a second guest with the old one stays alone.
    change(here, "atlvs.contacts", "email = 'ada@example.com'");
    run(
        here,
        &format!("INSERT INTO gvteway.guests (organization_id, email, name) VALUES ('{acme}', 'ada@example.org', 'Another')"),
    );
    change(here, "atlvs.contacts", "company = 'Engines'");
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|t");
    assert_eq!(number(here, "SELECT count(*) FROM gvteway.guests"), 2);
    run(here, "DELETE FROM gvteway.guests WHERE name = 'Another'");
    // Withdrawn in the CRM, although the guest gives it at the same time.
    run(
        here,
        "BEGIN; UPDATE atlvs.contacts SET marketing_consent = false; UPDATE gvteway.guests SET marketing_opt_in = false; UPDATE gvteway.guests SET marketing_opt_in = true; COMMIT",
    );
    nothing_failed(here);
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|f");
    // Nobody but the guest gives back what the guest has withdrawn.
    change(here, "gvteway.guests", "marketing_opt_in = true");
    change(here, "atlvs.contacts", "marketing_consent = true");
    change(here, "gvteway.guests", "marketing_opt_in = false");
    assert_eq!(text(here, "SELECT marketing_consent::text FROM atlvs.contacts"), "false", "withdrawn here, withdrawn there");
    change(here, "atlvs.contacts", "marketing_consent = true");
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|3|f");
    // All of it again: nothing is older than what the guest has said.
    change(here, "gvteway.guests", "phone = '4'");
    run(here, "SELECT usher.backfill('live_events.carry_contact_to_guest')");
    wait::until_true(here, "SELECT state = 'done' FROM usher.progress");
    nothing_failed(here);
    assert_eq!(text(here, guest), "ada@example.com|Ada L.|4|f");
    // An erased guest stays erased.
    change(here, "gvteway.guests", "name = NULL, phone = NULL, email = 'erased', crm_profile = '{}', erased_at = now()");
    change(here, "atlvs.contacts", "phone = '5'");
    assert_eq!(text(here, "SELECT concat_ws('|', email, name, phone, crm_profile) FROM gvteway.guests"), "erased|{}");
    assert_eq!(number(here, &format!("SELECT count(*) FROM usher.links WHERE kind = 'guest' AND left_id = '{contact}'")), 1);
}

#[test]
fn bookings_of_one_deal_make_one_event_and_cancel_it_with_the_last() {
    let (_database, mut client, acme) = pack("usher_test_bookings");
    let here = &mut client;
    run(
        here,
        &format!(
            "WITH d AS (INSERT INTO atlvs.deals (organization_id, title, kind, status, value, event_date) VALUES ('{acme}', 'Double Bill', 'artist', 'proposal', 1, '2026-09-05') RETURNING id),
                  a AS (INSERT INTO atlvs.artists (organization_id, name) VALUES ('{acme}', 'One'), ('{acme}', 'Two') RETURNING id)
             INSERT INTO atlvs.artist_bookings (organization_id, artist_id, deal_id, event_on) SELECT '{acme}', a.id, d.id, '2026-09-05' FROM d, a"
        ),
    );
    run(here, "UPDATE atlvs.artist_bookings SET status = 'confirmed'");
    nothing_failed(here);
    let events = "SELECT string_agg(title || ' ' || status, ',') FROM gvteway.events";
    assert_eq!(text(here, events), "Double Bill draft");
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.links WHERE kind = 'event' AND status = 'synced'"),
        2,
        "both bookings know it"
    );
    for (number, status) in [(1, "draft"), (2, "cancelled")] {
        run(
            here,
            "UPDATE atlvs.artist_bookings SET status = 'cancelled' WHERE id = (SELECT id FROM atlvs.artist_bookings WHERE status = 'confirmed' ORDER BY id LIMIT 1)",
        );
        nothing_failed(here);
        assert_eq!(text(here, events), format!("Double Bill {status}"), "{number} of two are cancelled");
    }
    run(
        here,
        "UPDATE atlvs.artist_bookings SET status = 'confirmed' WHERE id = (SELECT min(id::text)::uuid FROM atlvs.artist_bookings)",
    );
    nothing_failed(here);
    assert_eq!(text(here, events), "Double Bill draft");
}

#[test]
fn a_rating_follows_its_reviews() {
    let (_database, mut client, acme) = pack("usher_test_ratings");
    let here = &mut client;
    let night = event(here, acme, "night");
    run(here, &format!("INSERT INTO atlvs.vendors (organization_id, name) VALUES ('{acme}', 'A'), ('{acme}', 'B')"));
    run(
        here,
        &format!(
            "INSERT INTO gvteway.reviews (organization_id, event_id, rating, vendor_ref, status, note)
             SELECT '{acme}', '{night}', r.rating, v.id, 'published', r.rating::text FROM atlvs.vendors v, (VALUES (5), (4), (2)) AS r (rating) WHERE v.name = 'A'"
        ),
    );
    let ratings = "SELECT string_agg(concat_ws(' ', name, rating, rating_n), ', ' ORDER BY name) FROM atlvs.vendors";
    for (sql, wanted) in [
        ("SELECT 1", "A 3.67 3, B 0"),
        ("UPDATE gvteway.reviews SET rating = 1 WHERE note = '2'", "A 3.33 3, B 0"),
        (
            "UPDATE gvteway.reviews SET vendor_ref = (SELECT id FROM atlvs.vendors WHERE name = 'B') WHERE note = '4'",
            "A 3.00 2, B 4.00 1",
        ),
        ("UPDATE gvteway.reviews SET status = 'flagged' WHERE note = '2'", "A 5.00 1, B 4.00 1"),
        ("DELETE FROM gvteway.reviews WHERE note = '5'", "A 0, B 4.00 1"),
    ] {
        run(here, sql);
        nothing_failed(here);
        assert_eq!(text(here, ratings), wanted, "{sql}");
    }
}

#[test]
fn worth_campaigns_and_staff_are_counted_anew() {
    let (_database, mut client, acme) = pack("usher_test_worth");
    let here = &mut client;
    let night = event(here, acme, "night");
    let contact: Uuid =
        value(here, "INSERT INTO atlvs.contacts (organization_id, email) VALUES ($1, 'bob@example.org') RETURNING id", &[&acme]);
    nothing_failed(here);
    run(
        here,
        &format!(
            "INSERT INTO gvteway.campaigns (organization_id, name, event_id, currency, budget) VALUES ('{acme}', 'A', '{night}', 'EUR', 100), ('{acme}', 'B', '{night}', 'EUR', 100)"
        ),
    );
    for (number, price, currency) in [("1", "10.50", "EUR"), ("2", "20", "EUR"), ("3", "1000", "JPY")] {
        let id = order(here, acme, night, number, price, currency);
        here.execute(
            "UPDATE gvteway.orders SET status = 'paid', guest_ref = (SELECT id FROM gvteway.guests), campaign_id = (SELECT id FROM gvteway.campaigns WHERE name = 'A') WHERE id = $1",
            &[&id],
        )
        .expect("paid");
    }
    run(
        here,
        &format!(
            "INSERT INTO atlvs.deals (organization_id, title, contact_id, status, value, currency, event_date) VALUES ('{acme}', 'Gala', '{contact}', 'won', 5000, 'EUR', '2026-09-09');
             INSERT INTO gvteway.memberships (organization_id, guest_id, tier, price, currency, starts_on) SELECT '{acme}', id, 'gold', 40, 'EUR', '2026-01-01' FROM gvteway.guests"
        ),
    );
    nothing_failed(here);
    let worth = "SELECT concat_ws('|', g.lifetime_spend, g.currency, c.lifetime_value, c.currency) FROM gvteway.guests g, atlvs.contacts c";
    assert_eq!(text(here, worth), "70.50|EUR|5070.50|EUR", "yen are not added to euros");
    let campaigns =
        "SELECT string_agg(concat_ws(' ', name, attributed_orders, attributed_revenue), ', ' ORDER BY name) FROM atlvs.campaigns";
    assert_eq!(text(here, campaigns), "A 3 30.50, B 0 0");
    // Taken back, moved, lost, ended.
    run(
        here,
        "UPDATE gvteway.orders SET status = 'refunded' WHERE number = '1';
         UPDATE gvteway.orders SET campaign_id = (SELECT id FROM gvteway.campaigns WHERE name = 'B') WHERE number = '2';
         UPDATE atlvs.deals SET status = 'lost';
         DELETE FROM gvteway.memberships",
    );
    nothing_failed(here);
    assert_eq!(text(here, "SELECT concat_ws('|', lifetime_spend, currency) FROM gvteway.guests"), "20|EUR");
    assert_eq!(text(here, "SELECT concat_ws('|', lifetime_value, currency) FROM atlvs.contacts"), "20.00|EUR");
    assert_eq!(text(here, campaigns), "A 1 0, B 1 20");
    // What somebody has bent is right again after the night.
    run(
        here,
        "UPDATE gvteway.guests SET lifetime_spend = 7; UPDATE atlvs.contacts SET lifetime_value = 7; UPDATE atlvs.campaigns SET attributed_orders = 7",
    );
    done(here);
    run(
        here,
        "SELECT usher.alter_flow(name, jsonb_set(definition, '{when,schedule}', '\"every 1 seconds\"')) FROM usher.flows
          WHERE name IN ('live_events.count_all_lifetime_values', 'live_events.attribute_all_campaigns')",
    );
    wait::until_true(
        here,
        "SELECT g.lifetime_spend = 20 AND c.lifetime_value = 20 AND (SELECT bool_and(attributed_orders = 1) FROM atlvs.campaigns) FROM gvteway.guests g, atlvs.contacts c",
    );
    run(
        here,
        "SELECT usher.disable_flow(name) FROM usher.flows WHERE name IN ('live_events.count_all_lifetime_values', 'live_events.attribute_all_campaigns')",
    );
    // Staff follow the ratio of the organization.
    run(
        here,
        &format!("INSERT INTO compvss.productions (organization_id, name, projected_attendance) VALUES ('{acme}', 'Hall', 101)"),
    );
    nothing_failed(here);
    let staff = "SELECT staffing_target FROM compvss.productions WHERE name = 'Hall'";
    assert_eq!(value::<i32>(here, staff, &[]), 3, "one for fifty, rounded up");
    run(here, &format!("INSERT INTO atlvs.settings (organization_id, staffing_ratio) VALUES ('{acme}', 0.1)"));
    nothing_failed(here);
    assert_eq!(value::<i32>(here, staff, &[]), 11);
}
