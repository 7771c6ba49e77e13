//! W33: tickets that let somebody in are counted by gate and five minutes, each once.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W33",
    targets: &["compvss.access_counts", "compvss.counted_scans"],
    prepare: |place| {
        format!(
            "{0} INSERT INTO gvteway.orders (organization_id, id, event_id, number, subtotal, total) VALUES ('{1}', '{2}', '{3}', '{4}', 40, 40);
             INSERT INTO gvteway.order_items (organization_id, id, order_id, kind, qty, unit_price) VALUES ('{1}', '{5}', '{2}', 'ticket', 4, 10);
             INSERT INTO gvteway.tickets (organization_id, id, item_id, code)
             VALUES ('{1}', '{6}', '{5}', '{4}-1'), ('{1}', '{7}', '{5}', '{4}-2'), ('{1}', '{8}', '{5}', '{4}-3'), ('{1}', '{9}', '{5}', '{4}-4')",
            on_sale(place),
            place.organization,
            place.id("order"),
            place.id("event"),
            place.unique("O"),
            place.id("tickets"),
            place.id("ticket 1"),
            place.id("ticket 2"),
            place.id("ticket 3"),
            place.id("ticket 4")
        )
    },
    act: |place| {
        scan(place, 1, "North", "ok", "2024-08-01 18:00:00Z")
            + &scan(place, 2, "North", "ok", "2024-08-01 18:04:59Z")
            + &scan(place, 3, "North", "ok", "2024-08-01 18:05:00Z")
            + &scan(place, 4, "South", "duplicate", "2024-08-01 18:01:00Z")
    },
    check,
    not_met: |place| scan(place, 1, "North", "duplicate", "2024-08-01 18:00:00Z"),
    // Looked at again; taken back and let in after all; nothing counts twice.
    repeat: |place| {
        set(place, "gvteway.ticket_scans", "scan 1", "updated_at = now()")
            + &set(place, "gvteway.ticket_scans", "scan 2", "result = 'refused'")
            + &set(place, "gvteway.ticket_scans", "scan 2", "result = 'ok'")
    },
    bad: Bad {
        before: nothing,
        act: |place| scan(place, 1, "North", "ok", "2099-08-01 18:00:00Z"),
        flow: "live_events.count_scans",
        error: "the scanner's clock is not ahead",
        repair: |place| {
            set(place, "gvteway.ticket_scans", "scan 1", "scanned_at = '2024-08-01 18:00:00Z'")
                + &scan(place, 2, "North", "ok", "2024-08-01 18:04:59Z")
                + &scan(place, 3, "North", "ok", "2024-08-01 18:05:00Z")
        },
        changes: None,
    },
};

fn scan(place: &Place, number: u32, gate: &str, result: &str, at: &str) -> String {
    format!(
        "INSERT INTO gvteway.ticket_scans (organization_id, id, ticket_id, gate, result, scanned_at) VALUES ('{}', '{}', '{}', '{gate}', '{result}', '{at}');",
        place.organization,
        place.id(&format!("scan {number}")),
        place.id(&format!("ticket {number}"))
    )
}

fn check(here: &mut Client, place: &Place) {
    let counted = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws(' ', gate, bucket_at AT TIME ZONE 'UTC', scanned), ', ' ORDER BY gate, bucket_at)
               FROM compvss.access_counts WHERE organization_id = '{}' AND production_id = '{}'",
            place.organization,
            place.id("production")
        ),
    );
    assert_eq!(counted, "North 2024-08-01 18:00:00 2, North 2024-08-01 18:05:00 1");
}

fn counts(here: &mut Client, place: &Place) -> String {
    let sql = "SELECT COALESCE(string_agg(concat_ws(' ', gate, scanned), ', ' ORDER BY gate, bucket_at), '') FROM compvss.access_counts";
    text(here, &format!("{sql} WHERE organization_id = '{}' AND production_id = '{}'", place.organization, place.id("production")))
}

#[test]
fn w33_a_scan_that_is_deleted_counts_no_more() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    run(&mut stage.owner, &(WORKFLOW.act)(place));
    stage.settle();
    run(&mut stage.owner, &format!("DELETE FROM gvteway.ticket_scans WHERE id IN ('{}', '{}')", place.id("scan 1"), place.id("scan 4")));
    stage.settle();
    assert_eq!(counts(&mut stage.owner, place), "North 1, North 1");
    assert_eq!(stage.dead(place), []);
}

#[test]
fn w33_counts_are_taken_in_one_order() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    run(&mut stage.owner, &(scan(place, 1, "North", "ok", "2024-08-01 18:00:00Z") + &scan(place, 2, "South", "ok", "2024-08-01 18:00:00Z")));
    stage.settle();
    // A scan moves from one gate to another: whoever waits for the first count has not yet taken the second.
    let locked = |gate: &str| format!("SELECT FROM compvss.access_counts WHERE production_id = '{}' AND gate = '{gate}'", place.id("production"));
    let mut holder = stage.another();
    run(&mut holder, &format!("BEGIN; {} FOR UPDATE", locked("North")));
    run(&mut stage.owner, &set(place, "gvteway.ticket_scans", "scan 1", "gate = 'South'"));
    stage.somebody_waits();
    run(&mut holder, &format!("{} FOR UPDATE NOWAIT; COMMIT", locked("South")));
    stage.settle();
    assert_eq!(counts(&mut stage.owner, place), "North 0, South 2");
}
