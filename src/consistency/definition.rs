//! What a rule is made of, as its author wrote it. Pure: no pgrx.

use crate::error::did_you_mean;
use crate::flow::fields::{self, Parsed, known_keys, object, one_of, refuse, text, texts, yes_or_no};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
const RUNS: [&str; 2] = ["transaction", "after_sync"];
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// Milliseconds between two looks at everything, if nothing is said and those between are at touched keys.
const SELDOM: i64 = 10 * MINUTE;
/// The longest time that a rule may name.
const LONGEST: i64 = 3_660 * 86_400 * SECOND;

/// What mends bad rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A statement over the relation `bad`.
    Statement(String),
    /// A function that takes the bad row as jsonb.
    Call(String),
    /// A flow that is asked for the row.
    Flow(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    pub mend: Mend,
    /// Without being asked.
    pub auto: bool,
    /// Attempts for one violation.
    pub most: i32,
}

/// Who hears of a violation that stays open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// An event of this type.
    Emit(String),
    /// A notice with these words.
    Notify(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalate {
    /// Milliseconds.
    pub after: i64,
    pub tell: Tell,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub query: String,
    pub key: Vec<String>,
    pub organization: Option<String>,
    /// An SQL expression.
    pub wrong: String,
    pub severity: &'static str,
    /// By table: SQL expressions over `row` for the columns of the key.
    pub touches: BTreeMap<String, BTreeMap<String, String>>,
    /// Nobody commits what is bad.
    pub in_transaction: bool,
    /// What has changed is looked at after the commit.
    pub after_sync: bool,
    /// Milliseconds between two looks. None: only when somebody asks.
    pub every: Option<i64>,
    /// Milliseconds after which everything is looked at, where the looks between are at touched keys alone. None: as `every`.
    pub full: Option<i64>,
    /// Milliseconds that a row must have been bad.
    pub grace: i64,
    /// So many bad rows of an organization are none.
    pub tolerance: i64,
    pub repair: Option<Repair>,
    pub escalate: Option<Escalate>,
    pub run_as: Option<String>,
    pub description: Option<String>,
}

const KEYS: [&str; 15] = [
    "query",
    "key",
    "organization",
    "wrong",
    "severity",
    "touches",
    "run",
    "every",
    "full",
    "grace",
    "tolerance",
    "repair",
    "escalate",
    "run_as",
    "description",
];

impl Definition {
    pub fn parse(value: &Value) -> Parsed<Self> {
        let top = object(value, "a rule")?;
        known_keys(top, &KEYS, "a rule")?;
        let (in_transaction, after_sync) = runs(top)?;
        let touches = touches(top)?;
        if (in_transaction || after_sync) && touches.is_empty() {
            let run = if in_transaction { "transaction" } else { "after_sync" };
            return refuse(
                format!("\"run\": [\"{run}\"] needs \"touches\""),
                "Say which keys a changed row concerns: \"touches\": {\"public.orders\": {\"order_id\": \"row.id\"}}.",
            );
        }
        let grace = match top.get("grace") {
            None => 0,
            Some(value) => duration(value, "\"grace\"")?,
        };
        if in_transaction && grace > 0 {
            return refuse(
                "\"grace\" does not go with \"run\": [\"transaction\"]",
                "Who commits a bad row is refused at once: leave one of them out.",
            );
        }
        let every = every(top)?;
        let tolerance = tolerance(top)?;
        if in_transaction && tolerance > 0 {
            return refuse(
                "\"tolerance\" does not go with \"run\": [\"transaction\"]",
                "Who commits a bad row is refused, however few there are: leave one of them out.",
            );
        }
        Ok(Self {
            query: query(top)?,
            key: names(top)?,
            organization: optional(top, "organization")?,
            wrong: needed(
                top,
                "wrong",
                "Say in SQL what is wrong with a row: \"wrong\": \"'order ' || order_id || ' has no invoice'\".",
            )?,
            severity: severity(top)?,
            touches,
            in_transaction,
            after_sync,
            full: full(top, every)?,
            every,
            grace,
            tolerance,
            repair: top.get("repair").map(repair).transpose()?,
            escalate: top.get("escalate").map(escalate).transpose()?,
            run_as: optional(top, "run_as")?,
            description: optional(top, "description")?,
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

/// Without the semicolon that people end statements with.
fn query(top: &Map<String, Value>) -> Parsed<String> {
    let hint = "Write one SELECT: each row is a bad row, no row means that all is well.";
    let query = needed(top, "query", hint)?;
    match query.trim_end_matches([';', ' ', '\n', '\t', '\r']) {
        "" => refuse("\"query\" is empty", hint),
        query => Ok(query.to_owned()),
    }
}

fn names(top: &Map<String, Value>) -> Parsed<Vec<String>> {
    let hint = "Name the columns of the query that say which row is bad: \"key\": [\"order_id\"].";
    let Some(value) = top.get("key") else { return refuse("\"key\" is missing", hint) };
    let names = texts(value, "\"key\"")?;
    if names.is_empty() {
        return refuse("\"key\" is an empty list", hint);
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return refuse(format!("\"key\" names {} twice", twice.1), "Name each column once.");
    }
    Ok(names)
}

fn known(given: &str, words: &[&'static str], what: &str) -> Parsed<&'static str> {
    match words.iter().find(|known| **known == given) {
        Some(known) => Ok(known),
        None => {
            let near = did_you_mean(given, words);
            refuse(format!("{what} \"{given}\" is unknown"), format!("{near}Use one of: {}.", words.join(", ")))
        }
    }
}

fn severity(top: &Map<String, Value>) -> Parsed<&'static str> {
    match optional(top, "severity")? {
        None => Ok("warning"),
        Some(given) => known(&given, &SEVERITIES, "severity"),
    }
}

fn runs(top: &Map<String, Value>) -> Parsed<(bool, bool)> {
    let given = top.get("run").map(|value| texts(value, "\"run\"")).transpose()?.unwrap_or_default();
    let runs = given.iter().map(|run| known(run, &RUNS, "\"run\"")).collect::<Parsed<Vec<_>>>()?;
    Ok((runs.contains(&"transaction"), runs.contains(&"after_sync")))
}

fn touches(top: &Map<String, Value>) -> Parsed<BTreeMap<String, BTreeMap<String, String>>> {
    let Some(value) = top.get("touches") else { return Ok(BTreeMap::new()) };
    let all = object(value, "\"touches\"")?;
    if all.is_empty() {
        return refuse("\"touches\" is empty", "Name a table: \"touches\": {\"public.orders\": {\"order_id\": \"row.id\"}}.");
    }
    all.iter()
        .map(|(table, value)| {
            let at = format!("\"{table}\" in \"touches\"");
            let keys = fields::expressions(Some(value), &at)?;
            if keys.is_empty() {
                return refuse(format!("{at} names no key"), "Say which key a row of it concerns: {\"order_id\": \"row.id\"}.");
            }
            Ok((table.clone(), keys))
        })
        .collect()
}

fn every(top: &Map<String, Value>) -> Parsed<Option<i64>> {
    match top.get("every") {
        None if top.contains_key("run") => Ok(None),
        None => Ok(Some(MINUTE)),
        Some(Value::String(never)) if never == "never" => Ok(None),
        Some(value) => match duration(value, "\"every\"")? {
            short if short < SECOND => {
                refuse("\"every\" is shorter than a second", "For what must be seen at once use \"run\": [\"after_sync\"].")
            }
            every => Ok(Some(every)),
        },
    }
}

/// As often everything is looked at although the looks between find what was touched: what nobody has noticed is found then.
fn full(top: &Map<String, Value>, every: Option<i64>) -> Parsed<Option<i64>> {
    let Some(value) = top.get("full") else { return Ok(every.map(|every| every.max(SELDOM))) };
    let Some(every) = every else {
        return refuse("\"full\" needs \"every\"", "Say how often what was touched is looked at: \"every\": \"60s\".");
    };
    if !top.contains_key("touches") {
        return refuse(
            "\"full\" needs \"touches\"",
            "Where nobody knows which keys a changed row concerns, everything is looked at every \"every\".",
        );
    }
    if value.as_str() == Some("never") {
        return refuse(
            "\"full\" is \"never\"",
            "Some changes are not noticed, such as those of sessions with usher.capture = off: name a time, such as \"1 day\".",
        );
    }
    match duration(value, "\"full\"")? {
        short if short < every => {
            refuse("\"full\" is shorter than \"every\"", "It says how often everything is looked at: the same, or longer.")
        }
        full => Ok(Some(full)),
    }
}

fn tolerance(top: &Map<String, Value>) -> Parsed<i64> {
    match top.get("tolerance") {
        None => Ok(0),
        Some(value) => match value.as_i64() {
            Some(rows @ 0..=1_000_000_000) => Ok(rows),
            _ => refuse(
                "\"tolerance\" is not a number of rows",
                "Write how many bad rows of an organization are none: \"tolerance\": 5.",
            ),
        },
    }
}

fn repair(value: &Value) -> Parsed<Repair> {
    let at = "\"repair\"";
    let inner = object(value, at)?;
    known_keys(inner, &["statement", "call", "flow", "auto", "most"], at)?;
    let (kind, value) = one_of(inner, &["statement", "call", "flow"], at)?;
    let given = text(value, &format!("\"{kind}\" in {at}"))?;
    let most = match inner.get("most") {
        None => 3,
        Some(value) => match value.as_i64() {
            Some(most @ 1..=100) => most as i32,
            _ => return refuse(format!("\"most\" in {at} is not a number from 1 to 100"), "Leave it out for 3."),
        },
    };
    Ok(Repair {
        mend: match kind {
            "statement" => Mend::Statement(given.trim_end_matches([';', ' ', '\n', '\t', '\r']).to_owned()),
            "call" => Mend::Call(given),
            _ => Mend::Flow(given),
        },
        auto: yes_or_no(inner, "auto")?,
        most,
    })
}

fn escalate(value: &Value) -> Parsed<Escalate> {
    let at = "\"escalate\"";
    let inner = object(value, at)?;
    known_keys(inner, &["after", "emit", "notify"], at)?;
    let Some(after) = inner.get("after") else {
        return refuse(format!("\"after\" in {at} is missing"), "Say how long it may stay open: \"after\": \"5m\".");
    };
    let after = duration(after, &format!("\"after\" in {at}"))?;
    let (kind, value) = one_of(inner, &["emit", "notify"], at)?;
    let given = text(value, &format!("\"{kind}\" in {at}"))?;
    Ok(Escalate { after, tell: if kind == "emit" { Tell::Emit(given) } else { Tell::Notify(given) } })
}

/// Milliseconds of `"60s"`, `"5m"`, `"2 h"`, `"1 day"` or a plain number of seconds.
fn duration(value: &Value, at: &str) -> Parsed<i64> {
    // Minutes as people shorten them beside "60s"; elsewhere they are "min".
    let minutes =
        value.as_str().and_then(|text| text.trim().strip_suffix('m')).and_then(|digits| digits.trim().parse::<f64>().ok());
    let seconds = minutes.map(|minutes| minutes * 60.0).or_else(|| fields::seconds(value, 1.0));
    match seconds.map(|seconds| (seconds * 1_000.0).round()) {
        Some(milliseconds) if (1.0..=LONGEST as f64).contains(&milliseconds) => Ok(milliseconds as i64),
        _ => refuse(format!("{at} is not a time"), "Write it like \"60s\", \"5m\", \"2 h\" or \"1 day\", up to ten years."),
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod unit;
