//! What the workflows between a production and its guests begin with: an event that is on sale.

use super::six::Place;
use usher_clients::{Client, text};

/// A project with its production in Berlin and the event of it, on sale, and a production that was cancelled and has no event.
pub fn on_sale(place: &Place) -> String {
    format!(
        "INSERT INTO atlvs.projects (organization_id, id, code, name) VALUES ('{0}', '{1}', '{2}', 'Night');
         INSERT INTO compvss.productions (organization_id, id, project_ref, name, status, timezone, starts_at, ends_at, capacity, projected_attendance)
         VALUES ('{0}', '{3}', '{1}', 'Night', 'planning', 'Europe/Berlin', '2031-08-01 12:00Z', '2031-08-01 22:00Z', 500, 100),
                ('{0}', '{4}', NULL, 'Rained off', 'cancelled', 'Europe/Berlin', NULL, NULL, NULL, NULL);
         INSERT INTO gvteway.events (organization_id, id, production_ref, slug, title, status, timezone, starts_at, ends_at, capacity)
         VALUES ('{0}', '{5}', '{3}', '{6}', 'Night', 'on_sale', 'Europe/Berlin', '2031-08-01 12:00Z', '2031-08-01 22:00Z', 500);",
        place.organization,
        place.id("project"),
        place.unique("P"),
        place.id("production"),
        place.id("idle"),
        place.id("event"),
        place.unique("night")
    )
}

/// An item in the schedule of the production.
pub fn item(place: &Place, name: &str, kind: &str, public: bool, starts_at: &str, ends_at: &str) -> String {
    format!(
        "INSERT INTO compvss.schedule_items (organization_id, id, production_id, kind, title, artist, stage, starts_at, ends_at, public)
         VALUES ('{}', '{}', '{}', '{kind}', '{name}', '{name}', 'Main', {starts_at}, {ends_at}, {public});",
        place.organization,
        place.id(name),
        place.id("production"),
    )
}

/// Changes a row by the name that the test gave it.
pub fn set(place: &Place, table: &str, name: &str, what: &str) -> String {
    format!("UPDATE {table} SET {what} WHERE organization_id = '{}' AND id = '{}';", place.organization, place.id(name))
}

/// The announcements about something, in order.
pub fn announced(here: &mut Client, source: &str) -> String {
    text(
        here,
        &format!(
            "SELECT COALESCE(string_agg(concat_ws('|', a.kind, a.severity, a.message, e.title), E'\\n' ORDER BY a.revision), '')
               FROM gvteway.announcements AS a JOIN gvteway.events AS e ON e.organization_id = a.organization_id AND e.id = a.event_id
              WHERE a.source_ref = '{source}'"
        ),
    )
}

/// The lanes in which jobs of a flow ran for a row.
pub fn lanes(here: &mut Client, place: &Place, flow: &str, name: &str) -> String {
    text(
        here,
        &format!(
            "SELECT COALESCE(string_agg(DISTINCT priority, ','), '') FROM usher.sync_jobs
              WHERE flow = 'live_events.{flow}' AND organization_id = '{}' AND status = 'synced' AND payload::text LIKE '%{}%'",
            place.organization,
            place.id(name)
        ),
    )
}

/// How many links of a kind lead from a row to that row.
pub fn linked(here: &mut Client, place: &Place, kind: &str, left: &str, right: &str) -> String {
    text(
        here,
        &format!(
            "SELECT count(*)::text FROM usher.links WHERE organization_id = '{}' AND kind = '{kind}' AND left_id = '{left}' AND right_id = ({right})::text AND status = 'synced'",
            place.organization
        ),
    )
}
