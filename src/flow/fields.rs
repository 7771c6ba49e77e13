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
    let remedy = "Write it like \"2s\" or \"500ms\", between 1ms and 10min.";
    let parsed = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
            let unit = text.trim()[digits.len()..].trim();
            let factor = match unit {
                "ms" | "" => Some(1),
                "s" => Some(1_000),
                "min" => Some(60_000),
                _ => None,
            };
            factor.and_then(|factor| digits.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)))
        }
        _ => None,
    };
    match parsed {
        Some(milliseconds @ 1..=600_000) => Ok(milliseconds),
        _ => refuse(format!("{at} is not a duration"), remedy),
    }
}
