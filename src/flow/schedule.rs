//! When a schedule is due: five fields of cron in a time zone, or a plain interval. Pure: a time is a whole second since
//! 1970 UTC, and what a zone's clock says comes from whoever asks.
//!
//! The rules of zones are PostgreSQL's own, so that a schedule, `AT TIME ZONE` and every view agree; a crate for cron would
//! bring a second set of them along. A local time that does not exist is due at the first moment after the gap, one that
//! comes twice is due the first time only.

use crate::error::did_you_mean;
use serde_json::{Map, Value};

/// How far a zone's clock is ahead of UTC.
pub trait Zone {
    /// Seconds, at a second since 1970 UTC.
    fn offset(&self, at: i64) -> i64;
}

/// What happens with times at which nothing could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Nothing, unless the newest is less than [`LATE`] old.
    Skip,
    /// One run, for the newest of them.
    Once,
    /// A run for each of them, the newest [`MOST`].
    All,
}

/// Seconds until a time counts as missed: a restart or a long batch makes nobody lose a run.
pub const LATE: i64 = 60;
/// Times that are made up for at once; older ones are left out.
pub const MOST: usize = 1_000;

const MISSED: [&str; 3] = ["skip", "once", "all"];
const DAY: i64 = 86_400;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub text: String,
    /// None: that of each organization.
    pub timezone: Option<String>,
    pub missed: Missed,
    timing: Timing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Timing {
    Fields(Fields),
    /// Seconds, counted from 1970 UTC: the same times after every restart.
    Every(i64),
}

/// Sets of numbers, a bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week are both restricted: either is enough.
    either_day: bool,
}

/// Message and hint.
type Parsed<T> = Result<T, (String, String)>;

fn refuse<T>(message: impl Into<String>, hint: impl Into<String>) -> Parsed<T> {
    Err((message.into(), hint.into()))
}

const FORM: &str = "Write five fields, minute hour day month weekday: \"0 2 * * mon-fri\" or \"*/15 * * * *\"; @hourly, @daily, \
                    @weekly, @monthly, @yearly; or \"every 15 minutes\".";

impl Schedule {
    pub fn parse(object: &Map<String, Value>) -> Parsed<Self> {
        let text = |key: &str| match object.get(key).map(|value| value.as_str().map(str::trim)) {
            None => Ok(None),
            Some(Some(text)) if !text.is_empty() => Ok(Some(text.to_owned())),
            Some(_) => refuse(format!("\"{key}\" in \"when\" must be text that is not empty"), "Write it in quotes."),
        };
        let missed = match text("missed")?.as_deref() {
            None | Some("once") => Missed::Once,
            Some("skip") => Missed::Skip,
            Some("all") => Missed::All,
            Some(other) => {
                let near = did_you_mean(other, &MISSED);
                return refuse(
                    format!("missed \"{other}\" is unknown"),
                    format!("{near}Use skip (nothing), once (one run now) or all (each one)."),
                );
            }
        };
        let Some(schedule) = text("schedule")? else { return refuse("\"schedule\" is missing", FORM) };
        let timing = timing(&schedule)?;
        Ok(Self { text: schedule, timezone: text("timezone")?, missed, timing })
    }

    /// The zones do not matter to it.
    pub fn is_interval(&self) -> bool {
        matches!(self.timing, Timing::Every(_))
    }

    /// The first time after `at`; None when there is none in the next years.
    pub fn next_after(&self, zone: &dyn Zone, at: i64) -> Option<i64> {
        let fields = match &self.timing {
            Timing::Every(seconds) => return Some((at.div_euclid(*seconds) + 1) * seconds),
            Timing::Fields(fields) => fields,
        };
        // From one local minute to the next the moment never goes back, so the search goes forward only.
        let mut minute = (at + zone.offset(at)).div_euclid(60);
        loop {
            minute = fields.next(minute)?;
            let moment = moment(zone, minute * 60);
            if moment > at {
                return Some(moment);
            }
            minute += 1;
        }
    }

    /// The times for which something runs now, in order, when all up to `after` are dealt with.
    pub fn due(&self, zone: &dyn Zone, after: i64, now: i64) -> Vec<i64> {
        match self.missed {
            Missed::Skip => self.newest(zone, after.max(now - LATE - 1), now, 1),
            Missed::Once => self.newest(zone, after, now, 1),
            Missed::All => self.newest(zone, after, now, MOST),
        }
    }

    /// The last `most` times in `after..=now`, without counting through years of minutes.
    fn newest(&self, zone: &dyn Zone, after: i64, now: i64, most: usize) -> Vec<i64> {
        for back in [3_600, DAY, 32 * DAY, 366 * DAY, i64::MAX] {
            let start = after.max(now.saturating_sub(back));
            let mut found = Vec::new();
            let mut at = start;
            while let Some(next) = self.next_after(zone, at).filter(|next| *next <= now) {
                found.push(next);
                at = next;
            }
            if found.len() >= most || start == after {
                return found.split_off(found.len().saturating_sub(most));
            }
        }
        Vec::new()
    }
}

/// The moment at which a zone's clock shows `local` for the first time, or leaps over it.
fn moment(zone: &dyn Zone, local: i64) -> i64 {
    let (before, after) = (zone.offset(local - DAY), zone.offset(local + DAY));
    let shown = |offset: i64| Some(local - offset).filter(|at| zone.offset(*at) == offset);
    if let Some(at) = shown(before).into_iter().chain(shown(after)).min() {
        return at;
    }
    // In a gap: the clock changes somewhere between these two.
    let (mut early, mut late) = (local - before.max(after), local - before.min(after));
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if zone.offset(middle) == after {
            late = middle;
        } else {
            early = middle;
        }
    }
    late
}

/// Year, month and day of a day since 1970.
fn date(day: i64) -> (i64, u32, u32) {
    // Years that begin in March, in eras of 400 of them.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

fn has(set: u64, number: u32) -> bool {
    set & (1 << number) != 0
}

impl Fields {
    fn on(&self, day: i64) -> bool {
        let (_, month, of_month) = date(day);
        // 1970 began on a Thursday.
        let (date, weekday) = (has(self.days, of_month), has(self.weekdays, (day + 4).rem_euclid(7) as u32));
        has(self.months, month) && if self.either_day { date || weekday } else { date && weekday }
    }

    /// The first local minute, counted from 1970, that is not before `minute`.
    fn next(&self, minute: i64) -> Option<i64> {
        let mut from = minute.rem_euclid(1_440) as u32;
        // "0 0 29 2 */7" is a 29th of February that is a Sunday: around 2100 those are forty years apart.
        for day in minute.div_euclid(1_440)..minute.div_euclid(1_440) + 41 * 366 {
            if self.on(day) {
                let fits = |of_day: &u32| has(self.hours, of_day / 60) && has(self.minutes, of_day % 60);
                if let Some(found) = (from..1_440).find(fits) {
                    return Some(day * 1_440 + i64::from(found));
                }
            }
            from = 0;
        }
        None
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Kind {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind { name: "minute", low: 0, high: 59, names: &[] },
    Kind { name: "hour", low: 0, high: 23, names: &[] },
    Kind { name: "day of the month", low: 1, high: 31, names: &[] },
    Kind { name: "month", low: 1, high: 12, names: &MONTHS },
    // 7 is Sunday too.
    Kind { name: "weekday", low: 0, high: 7, names: &WEEKDAYS },
];

fn number(text: &str, kind: &Kind) -> Parsed<u32> {
    let lower = text.to_ascii_lowercase();
    if let Some(index) = kind.names.iter().position(|name| *name == lower) {
        return Ok(kind.low + index as u32);
    }
    match lower.parse::<u32>() {
        Ok(number) if !lower.starts_with('+') && (kind.low..=kind.high).contains(&number) => Ok(number),
        _ => {
            let names = if kind.names.is_empty() { String::new() } else { format!(" or a name ({})", kind.names.join(", ")) };
            refuse(
                format!("\"{text}\" is not a {}", kind.name),
                format!("Use a number from {} to {}{names}.", kind.low, kind.high),
            )
        }
    }
}

fn field(text: &str, kind: &Kind) -> Parsed<u64> {
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (kind.low, kind.high.min(if kind.name == "weekday" { 6 } else { kind.high })),
            (_, Some((first, last))) => (number(first, kind)?, number(last, kind)?),
            // "5/15" goes on to the end.
            _ => (number(range, kind)?, if step.is_some() { kind.high } else { number(range, kind)? }),
        };
        // "fri-sun": Sunday is the last day there.
        let last = if kind.name == "weekday" && last == 0 && first > 0 { 7 } else { last };
        if first > last {
            return refuse(
                format!("\"{range}\" in the {} goes backwards", kind.name),
                format!("Write two ranges, such as {first}-{},{}-{last}.", kind.high, kind.low),
            );
        }
        let step = match step.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step)) if (1..=60).contains(&step) => step,
            Some(_) => {
                return refuse(format!("the step of \"{part}\" is not a number from 1 to 60"), "Write it like */15.");
            }
        };
        for n in (first..=last).step_by(step) {
            set |= 1 << if kind.name == "weekday" { n % 7 } else { n };
        }
    }
    Ok(set)
}

fn timing(text: &str) -> Parsed<Timing> {
    let lower = text.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("every ") {
        return every(rest.trim()).map(Timing::Every);
    }
    let text = match lower.as_str() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other if other.starts_with('@') => {
            let known = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];
            let near = did_you_mean(other, &known);
            return refuse(format!("schedule \"{text}\" is unknown"), near + FORM);
        }
        _ => text,
    };
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        return refuse(format!("schedule \"{text}\" has {} fields, not five", parts.len()), FORM);
    };
    let fields = Fields {
        minutes: field(minute, &KINDS[0])?,
        hours: field(hour, &KINDS[1])?,
        days: field(day, &KINDS[2])?,
        months: field(month, &KINDS[3])?,
        weekdays: field(weekday, &KINDS[4])?,
        either_day: !day.starts_with('*') && !weekday.starts_with('*'),
    };
    if fields.next(0).is_none() {
        return refuse(format!("schedule \"{text}\" never comes"), "No such month has that day.");
    }
    Ok(Timing::Fields(fields))
}

/// Seconds of "15 minutes", "1 hour", "90s".
fn every(text: &str) -> Parsed<i64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = match text[digits..].trim() {
        "s" | "sec" | "second" | "seconds" => Some(1),
        "m" | "min" | "minute" | "minutes" => Some(60),
        "h" | "hour" | "hours" => Some(3_600),
        "d" | "day" | "days" => Some(DAY),
        "week" | "weeks" => Some(7 * DAY),
        _ => None,
    };
    let count = if digits == 0 { Some(1) } else { text[..digits].parse::<i64>().ok() };
    match unit.zip(count).and_then(|(unit, count)| count.checked_mul(unit)) {
        Some(seconds) if (1..=366 * DAY).contains(&seconds) => Ok(seconds),
        _ => refuse(
            format!("\"every {text}\" is not an interval"),
            "Write it like \"every 15 minutes\": seconds, minutes, hours, days or weeks, from 1 second to 366 days.",
        ),
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod unit;
