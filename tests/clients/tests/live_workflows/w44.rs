//! W44: a poor review is an incident of the production; when that is resolved, the vendor's rating is counted anew. What fails is undone.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, Database, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W44",
    targets: &["compvss.incidents"],
    prepare: |place| {
        format!(
            "{} INSERT INTO atlvs.vendors (organization_id, id, name) VALUES ('{1}', '{2}', 'Caterer');
             INSERT INTO gvteway.reviews (organization_id, id, event_id, rating, vendor_ref, note) VALUES ('{1}', '{3}', '{4}', 1, '{2}', 'cold')",
            on_sale(place),
            place.organization,
            place.id("vendor"),
            place.id("review"),
            place.id("event")
        )
    },
    act: |place| set(place, "gvteway.reviews", "review", "status = 'published'"),
    check,
    not_met: |place| set(place, "gvteway.reviews", "review", "status = 'published', rating = 3"),
    repeat: |place| {
        format!(
            "{} {}",
            set(place, "gvteway.reviews", "review", "status = 'hidden'"),
            set(place, "gvteway.reviews", "review", "status = 'published', note = 'still cold'")
        )
    },
    bad: Bad {
        before: |place| set(place, "gvteway.events", "event", &format!("production_ref = '{}'", place.id("nothing"))),
        act: |place| set(place, "gvteway.reviews", "review", "status = 'published'"),
        flow: "live_events.answer_poor_review:open",
        error: "has no production",
        repair: |place| {
            format!(
                "DO $do$ BEGIN ASSERT (SELECT r.state = 'undone' FROM usher.workflow_runs AS r WHERE r.input ->> 'review_id' = '{0}'), 'the run is undone'; END $do$;
                 {1} SELECT usher.retry_workflow(r.id) FROM usher.workflow_runs AS r WHERE r.input ->> 'review_id' = '{0}'",
                place.id("review"),
                set(place, "gvteway.events", "event", &format!("production_ref = '{}'", place.id("production")))
            )
        },
        changes: None,
    },
};

fn incident(place: &Place) -> String {
    format!(
        "SELECT string_agg(concat_ws('|', i.kind, i.severity, i.guest_impact, i.status, i.vendor_ref = '{}', i.production_id = '{}'), ',' ORDER BY i.created_at)
           FROM compvss.incidents AS i WHERE i.organization_id = '{}' AND i.source_ref LIKE 'review:{}%'",
        place.id("vendor"),
        place.id("production"),
        place.organization,
        place.id("review")
    )
}

fn loops(place: &Place) -> String {
    format!("SELECT string_agg(DISTINCT r.state, ',') FROM usher.workflow_runs AS r WHERE r.input ->> 'review_id' = '{}'", place.id("review"))
}

fn check(here: &mut Client, place: &Place) {
    assert_eq!(text(here, &incident(place)), "feedback|high|f|open|t|t");
    assert_eq!(text(here, &loops(place)), "running");
    let told = format!("SELECT count(*)::text FROM gvteway.announcements WHERE organization_id = '{}' AND event_id = '{}'", place.organization, place.id("event"));
    assert_eq!(text(here, &told), "0", "guests are not told");
    // Whatever the rating has become meanwhile, it is counted anew.
    let rating = format!("SELECT concat_ws('|', rating, rating_n) FROM atlvs.vendors WHERE id = '{}'", place.id("vendor"));
    assert_eq!(text(here, &rating), "1.00|1", "by W21");
    run(here, &set(place, "atlvs.vendors", "vendor", "rating = 5, rating_n = 9"));
    for status in ["in_progress", "resolved"] {
        run(here, &format!("UPDATE compvss.incidents SET status = '{status}' WHERE organization_id = '{}' AND source_ref = 'review:{}'", place.organization, place.id("review")));
        settled(here, wait::LONG);
        let (state, rated) = if status == "resolved" { ("done", "1.00|1") } else { ("running", "5.00|9") };
        assert_eq!((text(here, &loops(place)), text(here, &rating)), (state.to_owned(), rated.to_owned()), "{status}");
    }
    assert_eq!(text(here, &told), "0");
}

/// The step behind the wait fails for good: the incident is cancelled. Begun anew, another is opened, and all goes well.
#[test]
fn a_rating_that_fails_undoes_the_incident() {
    let database = Database::create("usher_test_w44");
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    let organization = usher_clients::value(here, "SELECT usher.create_organization('north')", &[]);
    let place = &Place { slug: "north", organization, case: 1 };
    // Flagged reviews are not counted by W21; nobody knows the vendor.
    run(
        here,
        &format!(
            "{} INSERT INTO gvteway.reviews (organization_id, id, event_id, rating, vendor_ref, status) VALUES ('{}', '{}', '{}', 4, '{}', 'flagged')",
            on_sale(place),
            place.organization,
            place.id("review"),
            place.id("event"),
            place.id("vendor")
        ),
    );
    settled(here, wait::LONG);
    assert_eq!(text(here, &incident(place)), "feedback|medium|f|open|t|t");
    let resolve = "UPDATE compvss.incidents SET status = 'resolved' WHERE status = 'open'";
    run(here, resolve);
    settled(here, wait::LONG);
    assert_eq!((text(here, &loops(place)), text(here, &incident(place))), ("undone".to_owned(), "feedback|medium|f|cancelled|t|t".to_owned()));
    let line = "SELECT string_agg(concat_ws(' ', t.step, t.what), ', ' ORDER BY t.at) FROM usher.workflow_runs AS r, usher.workflow_timeline(r.id) AS t WHERE t.step IN ('open', 'rate') AND t.what ~ 'fail|undone'";
    let line = text(here, line);
    assert!(line.contains("rate") && line.contains("open"), "{line}");

    run(
        here,
        &format!(
            "INSERT INTO atlvs.vendors (organization_id, id, name) VALUES ('{}', '{}', 'Caterer'); SELECT usher.retry_workflow(id) FROM usher.workflow_runs",
            place.organization,
            place.id("vendor")
        ),
    );
    settled(here, wait::LONG);
    assert_eq!((text(here, &loops(place)), text(here, &incident(place))), ("running".to_owned(), "feedback|medium|f|cancelled|t|t,feedback|medium|f|open|t|t".to_owned()));
    run(here, resolve);
    settled(here, wait::LONG);
    assert_eq!((text(here, &loops(place)), text(here, &incident(place))), ("done".to_owned(), "feedback|medium|f|cancelled|t|t,feedback|medium|f|resolved|t|t".to_owned()));
}
