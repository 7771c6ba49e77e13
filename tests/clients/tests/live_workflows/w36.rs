//! W36: weather from a watch on is announced; an emergency goes through the lane of emergencies.

use super::show::{announced, lanes, on_sale, set};
use super::six::{Bad, Place, Workflow, nothing};
use usher_clients::Client;

pub const WORKFLOW: Workflow = Workflow {
    number: "W36",
    targets: &["gvteway.announcements"],
    prepare: on_sale,
    act: |place| seen(place, "watch", "Thunderstorms") + &raised(place),
    check,
    not_met: |place| seen(place, "advisory", "Wind"),
    repeat: |place| set(place, "compvss.alerts", "alert", "level = 'emergency', status = 'acknowledged'"),
    bad: Bad {
        before: nothing,
        act: |place| seen(place, "watch", " "),
        flow: "live_events.announce_weather",
        error: "the alert has a headline",
        repair: |place| set(place, "compvss.alerts", "alert", "headline = 'Thunderstorms'") + &raised(place),
        changes: None,
    },
};

fn seen(place: &Place, level: &str, headline: &str) -> String {
    format!(
        "INSERT INTO compvss.alerts (organization_id, id, production_id, kind, level, headline, valid)
         VALUES ('{}', '{}', '{}', 'weather', '{level}', '{headline}', '[2031-08-01 16:00Z,2031-08-01 18:00Z)');",
        place.organization,
        place.id("alert"),
        place.id("production")
    )
}

fn raised(place: &Place) -> String {
    set(place, "compvss.alerts", "alert", "level = 'emergency'")
}

fn check(here: &mut Client, place: &Place) {
    let told = announced(here, &format!("alert:{}", place.id("alert")));
    assert_eq!(
        told,
        "weather|warning|Weather watch: Thunderstorms, from 1 August, 18:00, until 1 August, 20:00|Night\n\
         weather|emergency|Weather emergency: Thunderstorms, from 1 August, 18:00, until 1 August, 20:00|Night"
    );
    assert_eq!(lanes(here, place, "announce_weather_emergency", "alert"), "emergency");
    assert_eq!(lanes(here, place, "announce_weather", "alert"), "high");
}
