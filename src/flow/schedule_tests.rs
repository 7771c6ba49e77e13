//! Schedules against a model that looks at every minute of a year.

use super::{MOST, Missed, Schedule, Zone, date};
use proptest::prelude::*;
use serde_json::json;

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// Offsets from moments on, the first from the beginning.
struct Rules(Vec<(i64, i64)>);

impl Zone for Rules {
    fn offset(&self, at: i64) -> i64 {
        self.0.iter().rev().find(|(from, _)| *from <= at).map_or(self.0[0].1, |(_, offset)| *offset)
    }
}

/// The changes of 2026, as the zones' authorities have set them.
fn zone(which: usize) -> Rules {
    let utc = |month: u32, day: u32, seconds: i64| {
        (20_454..20_454 + 365).find(|d| date(*d) == (2026, month, day)).unwrap() * DAY + seconds
    };
    match which {
        // Europe/Berlin: 29 March and 25 October, 01:00 UTC.
        0 => Rules(vec![(i64::MIN, HOUR), (utc(3, 29, HOUR), 2 * HOUR), (utc(10, 25, HOUR), HOUR)]),
        // America/New_York: 8 March and 1 November, 02:00 local time.
        1 => Rules(vec![(i64::MIN, -5 * HOUR), (utc(3, 8, 7 * HOUR), -4 * HOUR), (utc(11, 1, 6 * HOUR), -5 * HOUR)]),
        // Australia/Lord_Howe: half an hour, back on 5 April, forward on 4 October, 02:00 local time.
        _ => Rules(vec![
            (i64::MIN, 11 * HOUR),
            (utc(4, 4, 15 * HOUR), 10 * HOUR + HOUR / 2),
            (utc(10, 3, 15 * HOUR + HOUR / 2), 11 * HOUR),
        ]),
    }
}

fn schedule(text: &str, missed: &str) -> Schedule {
    Schedule::parse(json!({"schedule": text, "missed": missed}).as_object().unwrap()).unwrap()
}

fn refusal(text: &str) -> String {
    Schedule::parse(json!({"schedule": text}).as_object().unwrap()).unwrap_err().0
}

/// 2026-01-01 and 2027-01-01, UTC.
const YEAR: (i64, i64) = (20_454 * DAY, 20_819 * DAY);

/// Every moment of the year, found minute by minute without any of the functions under test but the date.
fn model(zone: &Rules, fits: impl Fn(i64) -> bool) -> Vec<i64> {
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    let mut before = YEAR.0 - DAY;
    for at in (YEAR.0 - DAY + MINUTE..YEAR.1).step_by(60) {
        let (was, local) = (before + zone.offset(before), at + zone.offset(at));
        // All minutes that the clock shows or leaps over on its way here; back again it shows known ones.
        let mut due = false;
        for minute in (was + MINUTE..=local).step_by(60) {
            due |= seen.insert(minute) && fits(minute);
        }
        if due && at >= YEAR.0 {
            found.push(at);
        }
        before = at;
    }
    found
}

fn all(zone: &Rules, schedule: &Schedule) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = YEAR.0 - 1;
    while let Some(next) = schedule.next_after(zone, at).filter(|next| *next < YEAR.1) {
        found.push(next);
        at = next;
    }
    found
}

#[test]
fn a_day_that_is_rare_comes() {
    let utc = Rules(vec![(i64::MIN, 0)]);
    // From 2033: the next 29th of February that is a Sunday, and the next 9th.
    for (text, year, day) in [("0 0 29 2 */7", 2060, 29), ("0 0 9 2 */7", 2042, 9)] {
        let next = schedule(text, "once").next_after(&utc, 1_988_150_400).unwrap();
        assert_eq!(date(next / DAY), (year, 2, day), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_year_in_three_zones(which in 0usize..3, minute in 0i64..60, hour in 0i64..5, every_hour: bool, weekday in proptest::option::of(0i64..7)) {
        let zone = zone(which);
        let hours = if every_hour { "*".to_owned() } else { hour.to_string() };
        let days = weekday.map_or("*".to_owned(), |day| day.to_string());
        let schedule = schedule(&format!("{minute} {hours} * * {days}"), "all");
        let expected = model(&zone, |local| {
            let of_day = local.rem_euclid(DAY);
            of_day % HOUR / MINUTE == minute
                && (every_hour || of_day / HOUR == hour)
                && weekday.is_none_or(|day| (local.div_euclid(DAY) + 4).rem_euclid(7) == day)
        });
        prop_assert_eq!(all(&zone, &schedule), expected);
    }

    #[test]
    fn every_minute_of_a_change(which in 0usize..3, step in 1i64..60) {
        let zone = zone(which);
        let schedule = schedule(&format!("*/{step} * * * *"), "all");
        let expected = model(&zone, |local| local.rem_euclid(HOUR) / MINUTE % step == 0);
        prop_assert_eq!(all(&zone, &schedule), expected);
    }

    #[test]
    fn what_is_due_is_what_lies_between(which in 0usize..3, start in 0i64..300, days in 0i64..60, missed in 0usize..3) {
        let zone = zone(which);
        let names = ["skip", "once", "all"];
        let schedule = schedule("17 */3 * * *", names[missed]);
        let (after, now) = (YEAR.0 + start * DAY + 5, YEAR.0 + (start + days) * DAY + 11);
        let between: Vec<i64> = all(&zone, &schedule).into_iter().filter(|at| *at > after && *at <= now).collect();
        let due = schedule.due(&zone, after, now);
        match schedule.missed {
            Missed::All => prop_assert_eq!(due, between[between.len().saturating_sub(MOST)..].to_vec()),
            Missed::Once => prop_assert_eq!(due, between.last().copied().into_iter().collect::<Vec<_>>()),
            Missed::Skip => {
                let fresh = between.last().copied().filter(|at| *at >= now - super::LATE);
                prop_assert_eq!(due, fresh.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn intervals_do_not_drift(seconds in 1i64..100_000, at in 0i64..4_000_000_000) {
        let schedule = schedule(&format!("every {seconds} seconds"), "once");
        let next = schedule.next_after(&zone(0), at).unwrap();
        prop_assert!(next > at && next - at <= seconds && next % seconds == 0);
    }
}

#[test]
fn a_night_that_is_an_hour_short() {
    let berlin = zone(0);
    let gap = 20_541 * DAY + HOUR;
    assert_eq!(date(20_541), (2026, 3, 29));
    // 02:30 does not exist: once, at 03:00; four quarters of the lost hour and 03:00 itself are one run.
    for text in ["30 2 * * *", "*/15 2-3 29 3 *"] {
        assert_eq!(schedule(text, "all").next_after(&berlin, gap - 1), Some(gap), "{text}");
    }
    assert_eq!(schedule("*/15 2-3 29 3 *", "all").next_after(&berlin, gap), Some(gap + 15 * MINUTE));
}

#[test]
fn fields_have_names_steps_and_lists() {
    let utc = Rules(vec![(i64::MIN, 0)]);
    let first = |text: &str| schedule(text, "once").next_after(&utc, YEAR.0).map(|at| (date(at / DAY), at % DAY / MINUTE));
    assert_eq!(first("30 6 * feb mon"), Some(((2026, 2, 2), 390)));
    assert_eq!(first("0 12 * * fri-sun"), Some(((2026, 1, 2), 720)));
    assert_eq!(first("5/20 0 1 * *"), Some(((2026, 1, 1), 5)));
    assert_eq!(first("0 0 13,14 * *"), Some(((2026, 1, 13), 0)));
    // Both restricted: either is enough.
    assert_eq!(first("0 0 13 * sun"), Some(((2026, 1, 4), 0)));
    assert_eq!(first("0 0 * * 7"), Some(((2026, 1, 4), 0)));
    assert_eq!(first("0 0 29 2 *"), Some(((2028, 2, 29), 0)));
    assert_eq!(first("@monthly"), Some(((2026, 2, 1), 0)));
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(refusal("* * * *"), "schedule \"* * * *\" has 4 fields, not five");
    assert_eq!(refusal("60 * * * *"), "\"60\" is not a minute");
    assert_eq!(refusal("0 0 * * moon"), "\"moon\" is not a weekday");
    assert_eq!(refusal("0 22-4 * * *"), "\"22-4\" in the hour goes backwards");
    assert_eq!(refusal("*/0 * * * *"), "the step of \"*/0\" is not a number from 1 to 60");
    assert_eq!(refusal("0 0 30 feb *"), "schedule \"0 0 30 feb *\" never comes");
    assert_eq!(refusal("@dayly"), "schedule \"@dayly\" is unknown");
    assert_eq!(refusal("every now and then"), "\"every now and then\" is not an interval");
}
