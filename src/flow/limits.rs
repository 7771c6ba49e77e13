//! What a definition, or a system, says about how much may go through: rates and jobs in flight. Pure.

use super::definition::{Definition, Mode};
use super::fields::{Parsed, Refusal, known_keys, refuse, text};
use crate::error::did_you_mean;
use serde_json::{Map, Value};

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Per {
    /// All jobs of the flow, or all jobs for the system.
    All,
    /// The jobs of each organization by themselves.
    Organization,
    /// The jobs of each organization that have the same value of an expression.
    Key(String),
}

/// So many at once, then one in each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds for one job, rounded up: never more than was asked for.
    pub interval: i64,
    pub burst: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Rate(Rate),
    /// So many in flight.
    Concurrency(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub per: Per,
    pub bound: Bound,
    /// As it was written, for people.
    pub text: String,
}

const MOST_LIMITS: usize = 8;
const MOST_BURST: i64 = 1_000_000;
const MOST_IN_FLIGHT: i64 = 100_000;
const SECOND: f64 = 1e9;
const YEAR: f64 = 366.0 * 86_400.0 * SECOND;

fn rate_remedy() -> &'static str {
    "Write it like \"100 per minute\" or \"5 per 10 seconds\", with second, minute, hour or day."
}

/// Nanoseconds between two jobs of `"100 per minute"`.
fn interval(text: &str) -> Parsed<i64> {
    let wrong = |why: &str| refuse(format!("the rate \"{text}\" {why}"), rate_remedy());
    let words: Vec<&str> = text.split_whitespace().collect();
    let (jobs, span, unit) = match words.as_slice() {
        [jobs, "per", unit] => (*jobs, "1", *unit),
        [jobs, "per", span, unit] => (*jobs, *span, *unit),
        _ => return wrong("is not understood"),
    };
    let seconds = match unit.strip_suffix('s').filter(|unit| !unit.is_empty()).unwrap_or(unit) {
        "second" | "sec" | "s" => 1.0,
        "minute" | "min" => 60.0,
        "hour" | "h" => 3_600.0,
        "day" | "d" => 86_400.0,
        _ => return wrong(&format!("has the unit \"{unit}\", which is unknown")),
    };
    let Ok(jobs) = jobs.parse::<i64>() else { return wrong("begins with no whole number") };
    if jobs <= 0 {
        return wrong("lets nothing through");
    }
    let Some(span) = span.parse::<f64>().ok().filter(|span| span.is_finite() && *span > 0.0) else {
        return wrong("has no positive time");
    };
    let whole = span * seconds * SECOND;
    if jobs > 1_000_000_000 || !(1e6..=YEAR).contains(&whole) {
        return wrong("is out of range: at most 1000000000 jobs in a millisecond to a year");
    }
    Ok((whole as i64 + jobs - 1) / jobs)
}

fn whole_number(value: &Value, most: i64, name: &str) -> Parsed<i64> {
    match value.as_i64() {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        _ => refuse(format!("\"{name}\" is no whole number from 1 to {most}"), format!("Write \"{name}\": 10, without quotes.")),
    }
}

/// How often something may be called: without a burst, as many at once as the rate has calls.
pub fn calls(text: &str, burst: Option<i64>) -> Parsed<Rate> {
    let interval = interval(text)?;
    let all = text.split_whitespace().next().and_then(|calls| calls.parse::<i64>().ok()).unwrap_or(1);
    let burst = burst.unwrap_or(all.min(MOST_BURST));
    if !(1..=MOST_BURST).contains(&burst) || interval as f64 * burst as f64 > 10.0 * YEAR {
        return refuse(
            format!("a burst of {burst} is out of range"),
            format!("Give a number from 1 to {MOST_BURST}, of at most ten years of its rate."),
        );
    }
    Ok(Rate { interval, burst })
}

fn bound(object: &Map<String, Value>) -> Parsed<(Bound, String)> {
    match (object.get("rate"), object.get("concurrency")) {
        (Some(rate), None) => {
            let rate = text(rate, "\"rate\"")?;
            let interval = interval(&rate)?;
            let burst = object.get("burst").map(|value| whole_number(value, MOST_BURST, "burst")).transpose()?.unwrap_or(1);
            if interval as f64 * burst as f64 > 10.0 * YEAR {
                return refuse("\"burst\" is more than ten years of its rate", "Give a smaller \"burst\", or a higher rate.");
            }
            let text = if burst > 1 { format!("{rate}, burst {burst}") } else { rate };
            Ok((Bound::Rate(Rate { interval, burst }), text))
        }
        (None, Some(most)) => {
            if object.contains_key("burst") {
                return refuse("\"burst\" belongs to a rate", "Leave it out: \"concurrency\" says how many may be in flight.");
            }
            let most = whole_number(most, MOST_IN_FLIGHT, "concurrency")?;
            Ok((Bound::Concurrency(most as i32), format!("{most} in flight")))
        }
        (None, None) => refuse(
            "a limit says neither \"rate\" nor \"concurrency\"",
            "Add \"rate\": \"100 per minute\", or \"concurrency\": 3.",
        ),
        (Some(_), Some(_)) => refuse("a limit says both \"rate\" and \"concurrency\"", "Make two limits of it."),
    }
}

/// `per`: what such a limit may be for, as an example.
fn list<'a>(value: &'a Value, per: &str) -> Parsed<Vec<&'a Map<String, Value>>> {
    let remedy = format!("Write it as [{{\"per\": \"{per}\", \"rate\": \"100 per minute\", \"burst\": 10}}].");
    let Some(items) = value.as_array().filter(|items| (1..=MOST_LIMITS).contains(&items.len())) else {
        return refuse(format!("\"limits\" must be a list of 1 to {MOST_LIMITS} limits"), remedy);
    };
    items.iter().map(|item| item.as_object().map_or_else(|| refuse("a limit must be an object", remedy.as_str()), Ok)).collect()
}

fn per<'a>(object: &'a Map<String, Value>, known: &[&str]) -> Parsed<&'a str> {
    let remedy = format!("Use one of: {}.", known.join(", "));
    match object.get("per").map(Value::as_str) {
        Some(Some(per)) if known.contains(&per) => Ok(per),
        Some(Some(per)) => refuse(format!("a limit per \"{per}\" is unknown"), did_you_mean(per, known) + &remedy),
        Some(None) => refuse("\"per\" is no text", remedy),
        None => refuse("a limit lacks \"per\"", remedy),
    }
}

/// `"limits"` of a flow.
pub fn of_flow(value: Option<&Value>) -> Parsed<Vec<Limit>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut limits = Vec::new();
    for object in list(value, "flow")? {
        known_keys(object, &["per", "key", "rate", "burst", "concurrency"], "a limit")?;
        if let Some(shared @ ("system" | "connection")) = object.get("per").and_then(Value::as_str) {
            return refuse(
                format!("a limit per \"{shared}\" is not one flow's"),
                "It counts the jobs of all flows: give it with usher.limit_system(system, limits). For this flow alone use flow, organization or key.",
            );
        }
        let per = match (per(object, &["flow", "organization", "key"])?, object.get("key")) {
            ("key", Some(key)) => Per::Key(text(key, "\"key\" of a limit")?),
            ("key", None) => {
                return refuse("a limit per key lacks \"key\"", "Give an expression, such as \"key\": \"new.account_id\".");
            }
            (_, Some(_)) => return refuse("\"key\" belongs to a limit per key", "Leave it out, or write \"per\": \"key\"."),
            ("organization", None) => Per::Organization,
            _ => Per::All,
        };
        let (bound, text) = bound(object)?;
        limits.push(Limit { per, bound, text });
    }
    Ok(limits)
}

/// The limits of a system: for all of its jobs, or for those of each organization.
pub fn of_system(value: &Value) -> Parsed<Vec<Limit>> {
    let mut limits = Vec::new();
    for object in list(value, "system")? {
        known_keys(object, &["per", "rate", "burst", "concurrency"], "a limit")?;
        let per = match per(object, &["system", "connection"])? {
            "connection" => Per::Organization,
            _ => Per::All,
        };
        let (bound, text) = bound(object)?;
        limits.push(Limit { per, bound, text });
    }
    Ok(limits)
}

/// What the definition alone tells.
pub fn agrees(definition: &Definition) -> Result<(), Refusal> {
    if definition.limits.is_empty() {
        return Ok(());
    }
    if definition.mode == Mode::Transactional {
        return refuse(
            "a flow with \"limits\" cannot be transactional",
            "What happens in the writer's transaction cannot wait; use \"mode\": \"realtime\" or \"async\".",
        );
    }
    if definition.mode == Mode::Batch {
        return refuse(
            "a flow with \"limits\" cannot gather",
            "A limit says when each job runs, a batch that all run together; leave out \"limits\", or use \"mode\": \"async\".",
        );
    }
    let in_flight = definition.limits.iter().any(|limit| matches!(limit.bound, Bound::Concurrency(_)));
    if in_flight && !definition.is_external() {
        return refuse(
            "\"concurrency\" is for jobs that are in flight outside of the database",
            "This flow's jobs are done many at a time in one transaction; use \"rate\", or a call with \"effect\": \"external\".",
        );
    }
    Ok(())
}

impl Definition {
    /// The expressions of its limits per key, by the number of the limit.
    pub fn limit_keys(&self) -> impl Iterator<Item = (usize, &str)> {
        self.limits.iter().enumerate().filter_map(|(number, limit)| match &limit.per {
            Per::Key(text) => Some((number, text.as_str())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    #[test]
    fn rates_are_read() {
        for (text, nanoseconds) in [
            ("1 per second", 1_000_000_000),
            ("100 per minute", 600_000_000),
            ("7 per minute", 8_571_428_572),
            ("5 per 10 seconds", 2_000_000_000),
            ("1000 per s", 1_000_000),
            ("2 per 0.5 hours", 900_000_000_000),
            ("1 per day", 86_400_000_000_000),
        ] {
            assert_eq!(interval(text).unwrap(), nanoseconds, "{text}");
        }
        for text in [
            "",
            "100",
            "100 minute",
            "0 per minute",
            "-1 per minute",
            "1 per 0 minutes",
            "1 per fortnight",
            "1.5 per s",
            "x per s",
            "1 per NaN s",
        ] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    fn flow(limits: Value) -> Parsed<Definition> {
        Definition::parse(&json!({"when": {"change": "a.b"}, "then": {"insert": "c.d"}, "set": {"x": "new.x"}, "limits": limits}))
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        assert_eq!(flow(json!([{"per": "flow", "rate": "5 per second", "burst": 3}])).unwrap().limits.len(), 1);
        for (limits, remedy) in [
            (json!({}), "Write it as"),
            (json!([]), "Write it as"),
            (json!([5]), "Write it as"),
            (json!([{"rate": "1 per s"}]), "flow, organization, key"),
            (json!([{"per": "flwo", "rate": "1 per s"}]), "Did you mean \"flow\""),
            (json!([{"per": "system", "rate": "1 per s"}]), "limit_system"),
            (json!([{"per": "connection", "rate": "1 per s"}]), "limit_system"),
            (json!([{"per": "key", "rate": "1 per s"}]), "new.account_id"),
            (json!([{"per": "flow", "key": "new.x", "rate": "1 per s"}]), "\"per\": \"key\""),
            (json!([{"per": "flow"}]), "concurrency"),
            (json!([{"per": "flow", "rate": "1 per s", "concurrency": 1}]), "two limits"),
            (json!([{"per": "flow", "rate": "0 per s"}]), "100 per minute"),
            (json!([{"per": "flow", "rate": "often"}]), "100 per minute"),
            (json!([{"per": "flow", "rate": "1 per s", "burst": 0}]), "without quotes"),
            (json!([{"per": "flow", "rate": "1 per day", "burst": 1_000_000}]), "smaller"),
            (json!([{"per": "flow", "rate": "1 per s", "brust": 2}]), "Did you mean \"burst\""),
            (json!([{"per": "flow", "concurrency": 2}]), "\"rate\""),
        ] {
            let refusal = flow(limits.clone()).unwrap_err();
            assert!(refusal.hint.contains(remedy), "{limits}: {refusal:?}");
        }
        let call = json!({"when": {"change": "a.b"}, "then": {"call": "c.d", "effect": "external"}, "limits": [{"per": "flow", "concurrency": 2}]});
        assert_eq!(Definition::parse(&call).unwrap().limits[0].bound, Bound::Concurrency(2));
        let mut writer = json!({"when": {"change": "a.b"}, "then": {"insert": "c.d"}, "set": {"x": "new.x"}, "limits": [{"per": "flow", "rate": "1 per s"}]});
        writer["mode"] = json!("transactional");
        assert!(Definition::parse(&writer).unwrap_err().hint.contains("realtime"));
    }

    proptest::proptest! {
        #[test]
        fn a_rate_never_lets_more_through_than_it_says(jobs in 1i64..1_000_000, seconds in 1i64..100_000) {
            let interval = interval(&format!("{jobs} per {seconds} s")).unwrap();
            proptest::prop_assert!(interval >= 1 && interval * jobs >= seconds * 1_000_000_000);
        }
    }
}
