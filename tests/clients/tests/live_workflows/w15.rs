//! W15: a contact meets its guest by e-mail, is linked to it, and writes what the guest has not changed later.

use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W15",
    targets: &["gvteway.guests"],
    prepare: |place| {
        format!(
            "INSERT INTO gvteway.guests (organization_id, id, email, name) VALUES ('{}', '{}', 'Own.{}@example.org', 'Own Name')",
            place.organization,
            place.id("guest"),
            place.unique("x")
        )
    },
    // The CRM's change is older than the guest's own name, which therefore stays.
    act: |place| contact(place, &format!("'own.{}@EXAMPLE.org'", place.unique("x"))),
    check,
    not_met: |place| contact(place, "NULL"),
    repeat: |place| {
        format!(
            "UPDATE atlvs.contacts SET phone = phone, email = email WHERE organization_id = '{0}' AND id = '{1}';
             UPDATE atlvs.contacts SET satisfaction_n = 1, satisfaction_avg = 9 WHERE organization_id = '{0}' AND id = '{1}'",
            place.organization,
            place.id("contact")
        )
    },
    bad: Bad {
        // Somebody else's guest has the address.
        before: |place| {
            format!("UPDATE gvteway.guests SET contact_ref = '{}' WHERE id = '{}'", place.id("stranger"), place.id("guest"))
        },
        act: |place| contact(place, &format!("'own.{}@EXAMPLE.org'", place.unique("x"))),
        flow: "live_events.carry_contact_to_guest",
        error: "guests_email_key",
        repair: |place| format!("UPDATE gvteway.guests SET contact_ref = NULL WHERE id = '{}'", place.id("guest")),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn contact(place: &Place, email: &str) -> String {
    format!(
        "INSERT INTO atlvs.contacts (organization_id, id, email, first_name, last_name, phone, marketing_consent, updated_at)
         VALUES ('{}', '{}', {email}, 'Crm', 'Name', '+49 30 1', true, '2026-01-01')",
        place.organization,
        place.id("contact")
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', g.name, g.phone, g.marketing_opt_in, g.email = 'own.{}@EXAMPLE.org' OR g.email LIKE 'Own.%', l.status, l.left_system, l.right_system), E'\\n')
               FROM gvteway.guests AS g
               JOIN usher.links AS l ON l.organization_id = g.organization_id AND l.kind = 'guest' AND l.left_id = g.contact_ref::text AND l.right_id = g.id::text
              WHERE g.organization_id = '{}' AND g.contact_ref = '{}' AND g.id = '{}'",
            place.unique("x"),
            place.organization,
            place.id("contact"),
            place.id("guest")
        ),
    );
    assert_eq!(found, "Own Name|+49 30 1|t|t|synced|atlvs|gvteway");
}
