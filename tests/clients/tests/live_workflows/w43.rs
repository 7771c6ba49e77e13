//! W43: what is sold, reversals taken off, is the production's count, and its staff follow.

use super::money::{order, set_order};
use super::six::{Bad, Place, Workflow, alone};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W43",
    targets: &["compvss.productions"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.projects (organization_id, id, code, name) VALUES ('{organization}', '{project}', '{code}', 'Night');
             INSERT INTO compvss.productions (organization_id, id, project_ref, name, capacity, projected_attendance) VALUES ('{organization}', '{production}', '{project}', 'Night', 200, 120);
             {order}; UPDATE gvteway.events SET production_ref = '{production}' WHERE id = '{event}';
             UPDATE gvteway.order_items SET qty = 151, unit_price = 0.20 WHERE id = '{tickets}';
             UPDATE gvteway.orders SET subtotal = 65.20, total = 86.86 WHERE id = '{order_id}';
             INSERT INTO gvteway.orders (organization_id, id, event_id, number) VALUES ('{organization}', '{back}', '{event}', '{number}');
             INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price) VALUES ('{organization}', '{back}', 'ticket', 40, 0)",
            organization = place.organization,
            project = place.id("project"),
            code = place.unique("P"),
            production = place.id("production"),
            order = order(place),
            event = place.id("event"),
            tickets = place.id("tickets"),
            order_id = place.id("order"),
            back = place.id("back"),
            number = place.unique("back"),
        )
    },
    // Another order is paid and given back.
    act: |place| {
        let back = |status: &str| format!("UPDATE gvteway.orders SET status = '{status}' WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("back"));
        format!("{}; {}; {}", back("paid"), set_order(place, "status = 'paid'"), back("refunded"))
    },
    check,
    not_met: |place| set_order(place, "status = 'cancelled'"),
    repeat: |place| set_order(place, "status = 'paid', metadata = '{\"seen\": true}'"),
    bad: Bad {
        before: |place| {
            format!(
                "ALTER TABLE compvss.productions ADD CONSTRAINT kept_back CHECK (id <> '{}' OR tickets_sold = 0) NOT VALID",
                place.id("production")
            )
        },
        act: |place| set_order(place, "status = 'paid'"),
        flow: "live_events.update_production_from_revenue",
        error: "kept_back",
        repair: |_| "ALTER TABLE compvss.productions DROP CONSTRAINT kept_back".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!("SELECT concat_ws('|', tickets_sold, sell_through, projected_attendance, staffing_target) FROM compvss.productions WHERE id = '{}'", place.id("production")),
    );
    // 151 are more than the 120 that were expected; one for fifty of them, rounded up.
    assert_eq!(found, "151|0.7550|120|4");
}

#[test]
fn w43_of_two_who_count_at_once_the_later_count_stays() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let production = place.id("production");
    let sell = |tickets: u32| {
        format!("SELECT FROM usher.ingest_ticket_revenue('{}', '{}', NULL, {tickets}, 10.00, 'EUR', idempotency_key => '{}')", place.slug, place.unique("P"), place.unique(&tickets.to_string()))
    };
    let sold = format!("SELECT tickets_sold::text FROM compvss.productions WHERE id = '{production}'");
    let mut other = stage.another();
    run(&mut other, &format!("BEGIN; SELECT FROM compvss.productions WHERE id = '{production}' FOR UPDATE"));
    run(&mut stage.owner, &sell(2));
    stage.somebody_waits();
    // Meanwhile more is sold, and counted by whoever holds the production.
    let unheard = |sql: &str| format!("SET session_replication_role = replica; {sql}; SET session_replication_role = DEFAULT");
    run(&mut stage.owner, &unheard(&sell(3)));
    run(&mut other, &format!("UPDATE compvss.productions SET tickets_sold = 5 WHERE id = '{production}'; COMMIT"));
    stage.settle();
    assert_eq!(text(&mut stage.owner, &sold), "5");
    assert_eq!(stage.dead(place), []);
    // What somebody else has written is put right too.
    run(&mut stage.owner, &unheard(&format!("UPDATE compvss.productions SET tickets_sold = 7 WHERE id = '{production}'")));
    run(
        &mut stage.owner,
        &format!(
            "SELECT compvss.count_tickets(jsonb_build_array(jsonb_build_object('organization', '{}', 'project_id', '{}')))",
            place.organization,
            place.id("project")
        ),
    );
    assert_eq!(text(&mut stage.owner, &sold), "5");
}
