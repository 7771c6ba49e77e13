//! What an overlap rule is made of, as its author wrote it. Pure: no pgrx.

use crate::flow::fields::{self, Parsed, known_keys, object, refuse, text, texts, yes_or_no};
use serde_json::{Map, Value};

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const DAY: i64 = 86_400;
/// The longest time that a rule may name.
const LONGEST: i64 = 3_660 * DAY;

/// What holds the time of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Period {
    /// One column of a range type.
    Range(String),
    /// From the first column on, up to the second and without it.
    Between(String, String),
}

/// Where a free resource is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternatives {
    pub table: String,
    pub key: String,
    /// Columns in which it must be like the one that is taken.
    pub same: Vec<String>,
    pub condition: Option<String>,
    pub most: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub table: String,
    pub resource: Vec<String>,
    pub period: Period,
    pub condition: Option<String>,
    pub severity: &'static str,
    /// Whoever writes an overlap is stopped.
    pub refuse: bool,
    pub alternatives: Option<Alternatives>,
    /// Seconds.
    pub escalate_after: Option<i64>,
    /// Seconds between two looks at all rows. None: only when somebody asks.
    pub sweep: Option<i64>,
}

const KEYS: [&str; 9] = ["table", "resource", "period", "where", "severity", "refuse", "alternatives", "escalate_after", "sweep"];

impl Definition {
    pub fn parse(value: &Value) -> Parsed<Self> {
        let top = object(value, "an overlap rule")?;
        known_keys(top, &KEYS, "an overlap rule")?;
        let refuse_writers = yes_or_no(top, "refuse")?;
        Ok(Self {
            table: needed(top, "table", "Name it with its schema: \"table\": \"public.bookings\".")?,
            resource: names(top, "resource", "Name the columns that say what is taken: \"resource\": [\"asset_id\"].")?,
            period: period(top)?,
            condition: optional(top, "where")?,
            severity: severity(top)?,
            refuse: refuse_writers,
            alternatives: top.get("alternatives").map(alternatives).transpose()?,
            escalate_after: top.get("escalate_after").map(|value| duration(value, "\"escalate_after\"")).transpose()?,
            sweep: match top.get("sweep") {
                None => Some(DAY),
                Some(Value::Bool(false)) => None,
                Some(value) => Some(duration(value, "\"sweep\"")?),
            },
        })
    }
}

fn needed(top: &Map<String, Value>, key: &str, hint: &str) -> Parsed<String> {
    match top.get(key) {
        Some(value) => text(value, &format!("\"{key}\"")),
        None => refuse(format!("\"{key}\" is missing"), hint),
    }
}

fn optional(top: &Map<String, Value>, key: &str) -> Parsed<Option<String>> {
    top.get(key).map(|value| text(value, &format!("\"{key}\""))).transpose()
}

fn names(top: &Map<String, Value>, key: &str, hint: &str) -> Parsed<Vec<String>> {
    let Some(value) = top.get(key) else { return refuse(format!("\"{key}\" is missing"), hint) };
    let names = texts(value, &format!("\"{key}\""))?;
    if names.is_empty() {
        return refuse(format!("\"{key}\" is an empty list"), hint);
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return refuse(format!("\"{key}\" names {} twice", twice.1), "Name each column once.");
    }
    Ok(names)
}

fn period(top: &Map<String, Value>) -> Parsed<Period> {
    let hint = "Name a range column, \"period\": \"during\", or two columns, \"period\": [\"starts_at\", \"ends_at\"].";
    let mut names = names(top, "period", hint)?.into_iter();
    match (names.next(), names.next(), names.next()) {
        (Some(range), None, _) => Ok(Period::Range(range)),
        (Some(from), Some(to), None) => Ok(Period::Between(from, to)),
        _ => refuse("\"period\" names more than two columns", hint),
    }
}

fn severity(top: &Map<String, Value>) -> Parsed<&'static str> {
    let Some(given) = optional(top, "severity")? else { return Ok("warning") };
    match SEVERITIES.iter().find(|known| **known == given) {
        Some(known) => Ok(known),
        None => {
            let near = crate::error::did_you_mean(&given, &SEVERITIES);
            refuse(format!("severity \"{given}\" is unknown"), format!("{near}Use one of: {}.", SEVERITIES.join(", ")))
        }
    }
}

fn alternatives(value: &Value) -> Parsed<Alternatives> {
    let at = "\"alternatives\"";
    let inner = object(value, at)?;
    known_keys(inner, &["table", "key", "same", "where", "most"], at)?;
    let example = "Write it like {\"table\": \"public.assets\", \"key\": \"id\", \"same\": [\"category\"]}.";
    let part = |key: &str| match inner.get(key) {
        Some(value) => text(value, &format!("\"{key}\" in {at}")),
        None => refuse(format!("\"{key}\" in {at} is missing"), example),
    };
    let most = match inner.get("most") {
        None => 5,
        Some(value) => match value.as_i64() {
            Some(most @ 1..=100) => most,
            _ => return refuse(format!("\"most\" in {at} is not a number from 1 to 100"), "Leave it out for 5."),
        },
    };
    Ok(Alternatives {
        table: part("table")?,
        key: part("key")?,
        same: inner.get("same").map(|value| texts(value, &format!("\"same\" in {at}"))).transpose()?.unwrap_or_default(),
        condition: inner.get("where").map(|value| text(value, &format!("\"where\" in {at}"))).transpose()?,
        most,
    })
}

/// Seconds of `"30 min"`, `"2 h"`, `"1 day"` or a plain number of them.
fn duration(value: &Value, at: &str) -> Parsed<i64> {
    let seconds = fields::seconds(value, 1.0).map(|seconds| seconds.round() as i64);
    match seconds {
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(seconds),
        _ => refuse(format!("{at} is not a time"), "Write it like \"30 min\", \"2 h\" or \"1 day\", up to ten years."),
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn rule(changed: &Value) -> Parsed<Definition> {
        let mut definition = json!({"table": "public.bookings", "resource": ["asset_id"], "period": ["starts_at", "ends_at"]});
        for (key, value) in changed.as_object().unwrap() {
            definition[key] = value.clone();
        }
        Definition::parse(&definition)
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let plain = rule(&json!({})).unwrap();
        assert_eq!((plain.severity, plain.refuse, plain.sweep, plain.escalate_after), ("warning", false, Some(DAY), None));
        assert_eq!(plain.period, Period::Between("starts_at".into(), "ends_at".into()));
        assert_eq!(rule(&json!({"sweep": false})).unwrap().sweep, None);
        assert_eq!(rule(&json!({"period": "during"})).unwrap().period, Period::Range("during".into()));
        let free = rule(&json!({"alternatives": {"table": "public.assets", "key": "id"}})).unwrap().alternatives.unwrap();
        assert_eq!((free.most, free.same.len()), (5, 0));
    }

    #[test]
    fn times_are_read_with_their_units() {
        for (given, seconds) in [("30 min", 1_800), ("2h", 7_200), ("1 day", DAY), ("90 s", 90), ("3 days", 3 * DAY), ("60", 60)]
        {
            assert_eq!(rule(&json!({"escalate_after": given})).unwrap().escalate_after, Some(seconds), "{given}");
        }
        for bad in [
            json!("soon"),
            json!("0 h"),
            json!("-1 h"),
            json!(0),
            json!(true),
            json!("9999999999999 days"),
            json!("5000 days"),
            json!("é"),
        ] {
            assert!(rule(&json!({"escalate_after": bad})).unwrap_err().message.contains("is not a time"), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        for (changed, message, hint) in [
            (json!({"resorce": ["a"]}), "unknown key \"resorce\" in an overlap rule", "Did you mean \"resource\"?"),
            (json!({"severity": "criticl"}), "severity \"criticl\" is unknown", "Did you mean \"critical\"?"),
            (json!({"resource": []}), "\"resource\" is an empty list", "\"resource\": [\"asset_id\"]"),
            (json!({"resource": ["a", "a"]}), "\"resource\" names a twice", "once"),
            (json!({"period": ["a", "b", "c"]}), "\"period\" names more than two columns", "range column"),
            (json!({"refuse": "yes"}), "\"refuse\" is neither true nor false", "without quotes"),
            (json!({"sweep": true}), "\"sweep\" is not a time", "30 min"),
            (json!({"alternatives": {"tabel": "x"}}), "unknown key \"tabel\" in \"alternatives\"", "Did you mean \"table\"?"),
            (json!({"alternatives": {"table": "x.y"}}), "\"key\" in \"alternatives\" is missing", "\"key\": \"id\""),
            (json!({"alternatives": {"table": "x.y", "key": "id", "most": 0}}), "\"most\" in \"alternatives\" is not", "for 5"),
            (json!({"where": ""}), "\"where\" must be text that is not empty", "quotes"),
        ] {
            let refusal = rule(&changed).unwrap_err();
            assert!(refusal.message.contains(message) && refusal.hint.contains(hint), "{refusal:?}");
        }
        assert!(Definition::parse(&json!([])).unwrap_err().message.contains("must be an object"));
        assert!(Definition::parse(&json!({})).unwrap_err().message.contains("\"table\" is missing"));
    }
}
