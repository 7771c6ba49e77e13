//! W39: a deal that is to be published when it is won is followed to its first sale; what fails before it is published is undone.

use super::money;
use super::six::{Bad, Place, Workflow, alone};
use usher_clients::{Client, refused, run, settled, text, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W39",
    targets: &["gvteway.events"],
    // It was won and opened again before anybody wanted it published: project, production and event are there.
    prepare: |place| format!("{}; {}", deal(place, "won", false), set(place, "status = 'proposal', publish_when_won = true")),
    act: |place| set(place, "status = 'won'"),
    check,
    not_met: |place| set(place, "status = 'qualified'"),
    // Won once more it is followed once more; its event is published already.
    repeat: |place| format!("{}; {}", set(place, "status = 'lost'"), set(place, "status = 'won'")),
    bad: Bad {
        // Nobody can come to an event without a venue.
        before: |place| {
            format!(
                "UPDATE compvss.productions AS q SET venue_name = NULL FROM atlvs.projects AS p WHERE p.id = q.project_ref AND p.deal_id = '{0}';
                 UPDATE gvteway.events AS e SET venue_name = NULL FROM compvss.productions AS q, atlvs.projects AS p
                  WHERE q.id = e.production_ref AND p.id = q.project_ref AND p.deal_id = '{0}'",
                place.id("deal")
            )
        },
        act: |place| set(place, "status = 'won'"),
        flow: "live_events.run_event_lifecycle:publish",
        error: "it has no venue",
        repair: undone_and_repaired,
        changes: None,
    },
};

/// A deal that nobody has touched yet.
fn fresh(place: &Place) -> String {
    deal(place, "inquiry", true)
}

fn deal(place: &Place, status: &str, publish: bool) -> String {
    format!(
        "INSERT INTO atlvs.deals (organization_id, id, title, value, currency, event_date, venue_name, venue_timezone, expected_attendance, status, publish_when_won)
         VALUES ('{}', '{}', 'Gala {}', 9000, 'EUR', '2031-06-01', 'Hall 1', 'Europe/Berlin', 500, '{status}', {publish})",
        place.organization,
        place.id("deal"),
        place.case
    )
}

fn set(place: &Place, what: &str) -> String {
    format!("UPDATE atlvs.deals SET {what} WHERE organization_id = '{}' AND id = '{}'", place.organization, place.id("deal"))
}

/// Deal, production, event and run of the case.
fn stands(place: &Place) -> String {
    format!(
        "SELECT concat_ws('|', d.status, q.status, e.status, e.venue_name,
                          (SELECT concat_ws(' ', r.state, (SELECT string_agg(s.step, ',') FROM usher.workflow_steps AS s WHERE s.run_id = r.id AND s.state = 'waiting'))
                             FROM usher.workflow_runs AS r WHERE r.input ->> 'deal_id' = d.id::text ORDER BY r.started_at DESC LIMIT 1))
           FROM atlvs.deals AS d JOIN atlvs.projects AS p ON p.deal_id = d.id JOIN compvss.productions AS q ON q.project_ref = p.id
           LEFT JOIN gvteway.events AS e ON e.production_ref = q.id
          WHERE d.organization_id = '{}' AND d.id = '{}'",
        place.organization,
        place.id("deal")
    )
}

fn check(here: &mut Client, place: &Place) {
    assert_eq!(text(here, &stands(place)), "won|planning|published|Hall 1|running sell");
}

/// The production is cancelled and the deal open again, its event still a draft; then the production has a venue, and the deal is won again.
fn undone_and_repaired(place: &Place) -> String {
    format!(
        "DO $do$ BEGIN ASSERT ({stands}) = 'proposal|cancelled|draft|undone', ({stands}); END $do$;
         UPDATE compvss.productions AS q SET venue_name = 'Hall 1', status = 'planning' FROM atlvs.projects AS p WHERE p.id = q.project_ref AND p.deal_id = '{deal}';
         UPDATE atlvs.deals SET status = 'won' WHERE id = '{deal}'",
        stands = stands(place),
        deal = place.id("deal")
    )
}

#[test]
fn w39_ends_with_the_first_sale_and_nothing_behind_publishing_unpublishes() {
    let (mut stage, place) = alone(fresh);
    let here = &mut stage.owner;
    run(here, &(WORKFLOW.act)(&place));
    settled(here, wait::LONG);
    check(here, &place);
    let event = format!("SELECT e.id::text FROM gvteway.events AS e WHERE e.organization_id = '{}' AND e.title = 'Gala {}'", place.organization, place.case);
    let event = text(here, &event);
    run(here, &money::order_of(&place, &event));
    run(here, &format!("UPDATE gvteway.orders SET status = 'paid' WHERE id = '{}'", place.id("order")));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(&place)), "won|planning|published|Hall 1|done");

    // Given up behind the pivot, another one stays published.
    let [_, other] = stage.rows(fresh);
    let here = &mut stage.owner;
    run(here, &(WORKFLOW.act)(&other));
    settled(here, wait::LONG);
    run(here, &format!("SELECT usher.cancel_workflow(id, 'no more', undo => false) FROM usher.workflow_runs WHERE input ->> 'deal_id' = '{}'", other.id("deal")));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(&other)), "won|planning|published|Hall 1|closed");
}

#[test]
fn w39_given_up_before_it_is_published_is_undone() {
    let (mut stage, place) = alone(fresh);
    let here = &mut stage.owner;
    // No event comes: the run waits for it.
    run(here, "SELECT usher.disable_flow('live_events.create_event')");
    run(here, &(WORKFLOW.act)(&place));
    let waits = format!("SELECT ({}) = 'won|planning|running list'", stands(&place));
    wait::until_true(here, &waits);
    run(here, &format!("SELECT usher.cancel_workflow(id, 'the client has withdrawn') FROM usher.workflow_runs WHERE input ->> 'deal_id' = '{}'", place.id("deal")));
    wait::until_true(here, &format!("SELECT ({}) = 'proposal|cancelled|undone'", stands(&place)));
    run(here, "SELECT usher.enable_flow('live_events.create_event')");
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(&place)), "proposal|cancelled|cancelled|Hall 1|undone", "the event that comes late is cancelled too");
}

#[test]
fn w39_a_deal_that_does_not_say_so_is_not_published() {
    let (mut stage, place) = alone(fresh);
    let here = &mut stage.owner;
    run(here, &set(&place, "publish_when_won = false"));
    run(here, &(WORKFLOW.act)(&place));
    settled(here, wait::LONG);
    assert_eq!(text(here, &stands(&place)), "won|planning|draft|Hall 1");
    // Begun by hand it goes the same way.
    let start = format!(
        "SELECT usher.start_workflow('{}', 'live_events.run_event_lifecycle', '{{\"deal_id\": \"{}\"}}')",
        place.slug,
        place.id("deal")
    );
    run(here, &start);
    settled(here, wait::LONG);
    check(here, &place);
    let runs = format!("SELECT string_agg(state || COALESCE(': ' || error_message, ''), ', ' ORDER BY started_at) FROM usher.workflow_runs WHERE input ->> 'deal_id' = '{}'", place.id("deal"));
    assert_eq!(text(here, &runs), "running", "one run for the deal, also when it says so from now on");
    // Nobody follows it a second time.
    run(here, &start);
    settled(here, wait::LONG);
    let found = text(here, &runs);
    assert!(found.starts_with("running, undone: ") && found.contains("is followed already"), "{found}");
}

/// The production of the deal, and its event.
fn made(here: &mut Client, place: &Place) -> [String; 2] {
    let sql = format!(
        "FROM gvteway.events AS e JOIN compvss.productions AS q ON q.id = e.production_ref JOIN atlvs.projects AS p ON p.id = q.project_ref WHERE p.deal_id = '{}'",
        place.id("deal")
    );
    ["q", "e"].map(|row| text(here, &format!("SELECT {row}.id::text {sql}")))
}

#[test]
fn w39_a_deal_that_is_not_won_any_more_is_not_published() {
    let (mut stage, place) = alone(|place| deal(place, "won", false));
    let here = &mut stage.owner;
    let (organization, [production, event]) = (place.organization, made(here, &place));
    run(here, &set(&place, "status = 'lost'"));
    let hold = refused(here, &format!("SELECT compvss.hold_production('{organization}', '{}')", place.id("deal")));
    assert!(hold.message().contains("is not won any more"), "{hold:?}");
    let publish = format!("SELECT gvteway.publish_event('{organization}', '{production}')::text");
    let refusal = refused(here, &publish);
    assert!(refusal.message().contains("its deal is not won any more"), "{refusal:?}");
    // Where somebody was there first nothing is asked any more.
    run(here, &format!("UPDATE gvteway.events SET status = 'on_sale', venue_name = NULL WHERE id = '{event}'"));
    assert_eq!(text(here, &publish), event);
    stage.settle();
}

#[test]
fn w39_what_guests_see_is_not_taken_back() {
    let (mut stage, place) = alone(|place| deal(place, "won", false));
    let here = &mut stage.owner;
    let (organization, [production, event]) = (place.organization, made(here, &place));
    let mut undone = |event_status: &str| {
        run(
            here,
            &format!(
                "BEGIN; UPDATE gvteway.events SET status = '{event_status}' WHERE id = '{event}';
                 SELECT atlvs.reopen_deal('{organization}', '{}'), compvss.release_production('{organization}', '{production}')",
                place.id("deal")
            ),
        );
        let found = text(here, &format!("SELECT d.status || ' ' || q.status FROM atlvs.deals AS d, compvss.productions AS q WHERE d.id = '{}' AND q.id = '{production}'", place.id("deal")));
        run(here, "ROLLBACK");
        found
    };
    assert_eq!(undone("on_sale"), "won planning");
    assert_eq!(undone("draft"), "proposal cancelled");
}
