//! The parts of a definition's JSON: each read as what it must be, or refused with the remedy. Pure: no pgrx.

use crate::error::did_you_mean;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Why a definition was refused: what, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
    /// The model knows it, this version does not run it.
    pub unsupported: bool,
}

pub type Parsed<T> = Result<T, Refusal>;

pub fn refuse<T>(message: impl Into<String>, hint: impl Into<String>) -> Parsed<T> {
    Err(Refusal { message: message.into(), hint: hint.into(), unsupported: false })
}

pub fn known_keys(object: &Map<String, Value>, known: &[&str], at: &str) -> Parsed<()> {
    for key in object.keys() {
        if !known.contains(&key.as_str()) {
            let near = did_you_mean(key, known);
            return refuse(format!("unknown key \"{key}\" in {at}"), format!("{near}Known here: {}.", known.join(", ")));
        }
    }
    Ok(())
}

pub fn object<'a>(value: &'a Value, at: &str) -> Parsed<&'a Map<String, Value>> {
    value.as_object().map_or_else(|| refuse(format!("{at} must be an object"), "Write it as { … }."), Ok)
}

pub fn text(value: &Value, at: &str) -> Parsed<String> {
    match value.as_str().map(str::trim) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => refuse(format!("{at} must be text that is not empty"), "Write it in quotes."),
    }
}

pub fn texts(value: &Value, at: &str) -> Parsed<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(|item| text(item, at)).collect(),
        Value::String(_) => Ok(vec![text(value, at)?]),
        _ => refuse(format!("{at} must be a list of names"), "Write it as [\"a\", \"b\"]."),
    }
}

/// Expressions by name. A JSON number or boolean is the SQL constant of the same look.
pub fn expressions(value: Option<&Value>, at: &str) -> Parsed<BTreeMap<String, String>> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    object(value, at)?
        .iter()
        .map(|(name, value)| {
            let expression = match value {
                Value::Number(number) => number.to_string(),
                Value::Bool(yes) => yes.to_string(),
                other => text(other, &format!("\"{name}\" in {at}"))?,
            };
            Ok((name.clone(), expression))
        })
        .collect()
}

pub fn one_of<'a>(object: &'a Map<String, Value>, known: &[&'static str], at: &str) -> Parsed<(&'static str, &'a Value)> {
    let mut found = known.iter().filter_map(|kind| object.get(*kind).map(|value| (*kind, value)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let given = object.keys().next().map_or("", String::as_str);
            let near = did_you_mean(given, known);
            refuse(format!("{at} names none of its kinds"), format!("{near}Known kinds: {}.", known.join(", ")))
        }
        _ => refuse(format!("{at} names more than one kind"), format!("Choose one of: {}.", known.join(", "))),
    }
}

pub fn yes_or_no(top: &Map<String, Value>, key: &str) -> Parsed<bool> {
    match top.get(key) {
        None => Ok(false),
        Some(Value::Bool(yes)) => Ok(*yes),
        Some(_) => refuse(format!("\"{key}\" is neither true nor false"), format!("Write \"{key}\": true, without quotes.")),
    }
}

/// Milliseconds of `"2s"`, `"500ms"`, `"1min"` or a plain number of milliseconds.
pub fn duration(value: &Value, at: &str) -> Parsed<i64> {
    match seconds(value, 0.001).map(|seconds| (seconds * 1_000.0).round() as i64) {
        Some(milliseconds @ 1..=600_000) => Ok(milliseconds),
        _ => refuse(format!("{at} is not a duration"), "Write it like \"2s\" or \"500ms\", between 1ms and 10min."),
    }
}

/// How many seconds a number with a unit is, such as "90 s" or "3 days". `bare`: what a number without one counts for.
pub fn seconds(value: &Value, bare: f64) -> Option<f64> {
    let text = match value {
        Value::Number(number) => return number.as_f64().map(|number| number * bare),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor = match text[digits.len()..].trim() {
        "" => bare,
        "ms" => 0.001,
        "s" | "second" | "seconds" => 1.0,
        "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "week" | "weeks" => 604_800.0,
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}
