//! W32: incidents that guests notice are announced, and their end too; what a review has said is not.

use super::show::{announced, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::Client;

pub const WORKFLOW: Workflow = Workflow {
    number: "W32",
    targets: &["gvteway.announcements"],
    prepare: on_sale,
    act: |place| opened(place, "technical", "'Gate two is closed'") + &set(place, "compvss.incidents", "incident", "status = 'resolved'"),
    check,
    not_met: |place| opened(place, "feedback", "'The beer was warm'") + &set(place, "compvss.incidents", "incident", "status = 'resolved'"),
    repeat: |place| set(place, "compvss.incidents", "incident", "status = 'resolved', kind = 'fire drill', updated_at = now()"),
    bad: Bad {
        before: nothing,
        act: |place| opened(place, "technical", "' '"),
        flow: "live_events.announce_incident",
        error: "there is a message for the guests",
        repair: |place| {
            set(place, "compvss.incidents", "incident", "public_message = 'Gate two is closed'")
                + &set(place, "compvss.incidents", "incident", "status = 'resolved'")
        },
        changes: None,
    },
};

fn opened(place: &Place, kind: &str, message: &str) -> String {
    format!(
        "INSERT INTO compvss.incidents (organization_id, id, production_id, kind, severity, guest_impact, public_message)
         VALUES ('{}', '{}', '{}', '{kind}', 'high', true, {message});",
        place.organization,
        place.id("incident"),
        place.id("production")
    )
}

fn check(here: &mut Client, place: &Place) {
    let told = announced(here, &format!("incident:{}", place.id("incident")));
    assert_eq!(told, "incident|warning|Gate two is closed|Night\nincident|info|All clear. This is over: Gate two is closed|Night");
}
