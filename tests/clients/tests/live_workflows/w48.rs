//! W48: what is called or described by words is found by them, whichever of the three systems has it.

use super::show::set;
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W48",
    targets: &["live_events.search_documents"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.artists (organization_id, id, name) VALUES ('{}', '{}', '{}')",
            place.organization,
            place.id("artist"),
            place.unique("Alto")
        )
    },
    act: |place| {
        format!(
            "INSERT INTO atlvs.deals (organization_id, id, title, venue_name, event_date) VALUES ('{}', '{}', '{}', 'Tempodrom', '2031-08-01')",
            place.organization,
            place.id("deal"),
            place.unique("Sommernacht")
        )
    },
    check,
    // Nothing that it is found by.
    not_met: |place| set(place, "atlvs.artists", "artist", "agent_contact_id = NULL, updated_at = now()"),
    // Called otherwise for a moment.
    repeat: |place| {
        let title = place.unique("Sommernacht");
        set(place, "atlvs.deals", "deal", "value = 5, title = 'Winter'")
            + &set(place, "atlvs.deals", "deal", &format!("title = '{title}'"))
            + &set(place, "atlvs.deals", "deal", "value = 6")
    },
    bad: Bad {
        before: |place| {
            format!("ALTER TABLE live_events.search_documents ADD CONSTRAINT refused CHECK (title <> '{}')", place.unique("Sommernacht"))
        },
        act: |place| (WORKFLOW.act)(place),
        flow: "live_events.search_deal",
        error: "refused",
        repair: |_| "ALTER TABLE live_events.search_documents DROP CONSTRAINT refused".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn check(here: &mut Client, place: &Place) {
    let documents = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', kind, system, title, body), E'\\n') FROM live_events.search_documents WHERE organization_id = '{}' AND source_id = '{}'",
            place.organization,
            place.id("deal")
        ),
    );
    let title = place.unique("Sommernacht");
    assert_eq!(documents, format!("deal|atlvs|{title}|Tempodrom 2031-08-01"));
    // By all its words, one of them not written out.
    let found = format!("SELECT string_agg(id::text, ' ') FROM live_events.search('{}', '{title} tempo')", place.slug);
    assert_eq!(text(here, &found), place.id("deal").to_string());
}

