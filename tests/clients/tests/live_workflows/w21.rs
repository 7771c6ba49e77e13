//! W21: a vendor's rating is the mean of its published reviews.

use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W21",
    targets: &["atlvs.vendors"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.vendors (organization_id, id, name) VALUES ('{0}', '{1}', 'Caterer');
             INSERT INTO gvteway.events (organization_id, id, slug, title) VALUES ('{0}', '{2}', '{3}', 'Night');
             INSERT INTO gvteway.reviews (organization_id, id, event_id, rating, vendor_ref, status)
             VALUES ('{0}', '{4}', '{2}', 5, '{1}', 'published'), ('{0}', '{5}', '{2}', 5, '{1}', 'published'), ('{0}', '{6}', '{2}', 1, '{1}', 'pending')",
            place.organization,
            place.id("vendor"),
            place.id("event"),
            place.unique("night"),
            place.id("first"),
            place.id("second"),
            place.id("third")
        )
    },
    act: |place| set(place, "status = 'published'"),
    check,
    not_met: |place| set(place, "note = 'cold', status = 'hidden'"),
    repeat: |place| format!("{}; {}", set(place, "note = 'cold'"), set(place, "status = 'published'")),
    bad: Bad {
        before: nothing,
        act: |place| set(place, &format!("status = 'published', vendor_ref = '{}'", place.id("nobody"))),
        flow: "live_events.rate_reviewed_vendor",
        error: "the vendor exists",
        repair: |place| set(place, &format!("vendor_ref = '{}'", place.id("vendor"))),
        changes: None,
    },
};

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE gvteway.reviews SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("third"))
}

fn check(here: &mut Client, place: &Place) {
    let found = text(here, &format!("SELECT concat_ws('|', rating, rating_n) FROM atlvs.vendors WHERE id = '{}'", place.id("vendor")));
    assert_eq!(found, "3.67|3");
}

#[test]
fn w21_of_two_who_count_at_once_the_later_count_stays() {
    let (mut stage, place) = alone(WORKFLOW.prepare);
    let place = &place;
    let vendor = place.id("vendor");
    let mut other = stage.another();
    run(&mut other, &format!("BEGIN; SELECT FROM atlvs.vendors WHERE id = '{vendor}' FOR UPDATE"));
    run(&mut stage.owner, &set(place, "status = 'published'"));
    stage.somebody_waits();
    // Meanwhile another review comes, and is counted by whoever holds the vendor.
    run(
        &mut stage.owner,
        &format!(
            "SET session_replication_role = replica;
             INSERT INTO gvteway.reviews (organization_id, event_id, rating, vendor_ref, status) VALUES ('{}', '{}', 5, '{vendor}', 'published');
             SET session_replication_role = DEFAULT",
            place.organization,
            place.id("event")
        ),
    );
    run(&mut other, &format!("UPDATE atlvs.vendors SET rating = 4, rating_n = 4 WHERE id = '{vendor}'; COMMIT"));
    stage.settle();
    assert_eq!(text(&mut stage.owner, &format!("SELECT concat_ws('|', rating, rating_n) FROM atlvs.vendors WHERE id = '{vendor}'")), "4.00|4");
    assert_eq!(stage.dead(place), []);
}
