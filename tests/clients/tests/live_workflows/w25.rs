//! W25: a production gets its event, the draft that the booking of its deal has made; lineup and times come from its public sets.

use super::show::{item, linked, on_sale, set};
use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, run, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W25",
    targets: &["gvteway.events"],
    prepare: |place| {
        format!(
            "INSERT INTO atlvs.deals (organization_id, id, title, status, value, event_date, venue_name)
             VALUES ('{0}', '{1}', 'Night', 'proposal', 1000, '2031-08-01', 'Tempodrom');
             INSERT INTO atlvs.projects (organization_id, id, code, name) VALUES ('{0}', '{2}', '{3}', 'Night');
             UPDATE atlvs.projects SET deal_id = '{1}' WHERE id = '{2}';
             INSERT INTO gvteway.events (organization_id, id, deal_ref, booking_ref, slug, title, status, lineup, venue_name)
             VALUES ('{0}', '{4}', '{1}', '{5}', '{6}', 'Booked', 'draft', '[\"Booked\"]', 'Somewhere')",
            place.organization,
            place.id("deal"),
            place.id("project"),
            place.unique("P"),
            place.id("draft"),
            place.id("booking"),
            place.unique("booked")
        )
    },
    act: |place| produced(place, "Europe/Berlin"),
    check,
    not_met: |place| {
        format!(
            "INSERT INTO compvss.productions (organization_id, id, project_ref, name, status) VALUES ('{}', '{}', '{}', 'Night', 'cancelled')",
            place.organization,
            place.id("production"),
            place.id("project")
        )
    },
    // Asked for once more, by hand, and a set that stays where it is.
    repeat: |place| {
        format!(
            "SELECT usher.enqueue_sync_job('{}', 'compvss', 'gvteway', '{{\"action\": \"create_event\", \"production_id\": \"{}\"}}'); {}",
            place.slug,
            place.id("production"),
            set(place, "compvss.schedule_items", "Alto", "stage = 'Tent'")
        )
    },
    bad: Bad {
        before: nothing,
        act: |place| produced(place, "Mars/Olympus"),
        flow: "live_events.create_event",
        error: "the zone of the venue is known",
        repair: |place| set(place, "compvss.productions", "production", "timezone = 'Europe/Berlin'"),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn produced(place: &Place, zone: &str) -> String {
    format!(
        "INSERT INTO compvss.productions (organization_id, id, project_ref, name, status, venue_name, timezone, starts_at, ends_at, capacity)
         VALUES ('{}', '{}', '{}', 'Night', 'planning', 'Tempodrom', '{zone}', '2031-08-01 10:00Z', '2031-08-02 10:00Z', 700); {} {} {} {} {}",
        place.organization,
        place.id("production"),
        place.id("project"),
        item(place, "Doors", "doors", true, "'2031-08-01 16:00Z'", "NULL"),
        item(place, "Basso", "set", true, "'2031-08-01 19:00Z'", "'2031-08-01 21:00Z'"),
        item(place, "Alto", "set", true, "'2031-08-01 17:30Z'", "'2031-08-01 18:30Z'"),
        item(place, "Secret", "set", false, "'2031-08-01 22:00Z'", "'2031-08-01 23:00Z'"),
        item(place, "Truck", "load_in", true, "'2031-08-01 06:00Z'", "'2031-08-01 08:00Z'"),
    )
}

fn check(here: &mut Client, place: &Place) {
    let found = text(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', id = '{1}', slug = '{2}', title, status, venue_name, timezone, capacity, lineup,
                                         doors_at AT TIME ZONE timezone, starts_at AT TIME ZONE timezone, ends_at AT TIME ZONE timezone), E'\\n')
               FROM gvteway.events WHERE organization_id = '{0}' AND (production_ref = '{3}' OR deal_ref = '{4}')",
            place.organization,
            place.id("draft"),
            place.unique("booked"),
            place.id("production"),
            place.id("deal")
        ),
    );
    assert_eq!(
        found,
        "t|t|Night|draft|Tempodrom|Europe/Berlin|700|[\"Alto\", \"Basso\"]|2031-08-01 18:00:00|2031-08-01 19:30:00|2031-08-01 23:00:00"
    );
    assert_eq!(linked(here, place, "event", &place.id("project").to_string(), &format!("'{}'", place.id("draft"))), "1");
}

#[test]
fn w25_the_event_of_a_cancelled_production_is_cancelled_if_guests_see_it() {
    let (mut stage, place) = alone(on_sale);
    let place = &place;
    let mut becomes = |event: &str, sql: &str| {
        run(&mut stage.owner, &set(place, "compvss.productions", "production", "status = 'planning'"));
        stage.settle();
        run(&mut stage.owner, &set(place, "gvteway.events", "event", &format!("status = '{event}'")));
        run(&mut stage.owner, sql);
        stage.settle();
        text(&mut stage.owner, &format!("SELECT status FROM gvteway.events WHERE id = '{}'", place.id("event")))
    };
    let cancel = set(place, "compvss.productions", "production", "status = 'cancelled'");
    for status in ["published", "on_sale", "live", "delayed"] {
        assert_eq!(becomes(status, &cancel), "cancelled", "{status}");
    }
    for status in ["draft", "ended"] {
        assert_eq!(becomes(status, &cancel), status);
    }
    assert_eq!(becomes("on_sale", &set(place, "compvss.productions", "production", "status = 'advancing'")), "on_sale");
    // By way of its project (W9), too.
    assert_eq!(becomes("on_sale", &set(place, "atlvs.projects", "project", "phase = 'cancelled'")), "cancelled");
    // Whoever looks late looks at what is so by then.
    assert_eq!(
        becomes("on_sale", &format!("SELECT gvteway.cancel_event('{}', '{}')", place.organization, place.id("production"))),
        "on_sale"
    );
}
