//! What a caller asks of a job beyond its payload: the typed form of the options, without any look at the database. Pure.

use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::retry::Retry;
use serde_json::{Map, Value};

/// How long a unique key belongs to its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// As long as the job is remembered.
    History,
    /// Until the job has ended.
    Pending,
    /// For an interval from now.
    Period(String),
    Ever,
}

impl Hold {
    /// The word in `usher.job_keys`, and the interval of a period.
    pub fn stored(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::History => ("history", None),
            Self::Pending => ("pending", None),
            Self::Period(interval) => ("period", Some(interval)),
            Self::Ever => ("ever", None),
        }
    }
}

/// When a job that has not started is dead: texts that PostgreSQL reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    In(String),
    At(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// As given, and found good.
    pub retry: Option<Value>,
    pub expiry: Option<Expiry>,
    pub unique: Option<(String, Hold)>,
    pub after: Vec<uuid::Uuid>,
    /// Also when a job before it fails.
    pub run_anyway: bool,
    pub batch: Option<uuid::Uuid>,
}

const KEYS: [&str; 7] = ["retry", "expires_in", "expires_at", "unique", "after", "on_failure", "batch"];
/// More than this many predecessors of one job are better put into a batch.
const MOST_AFTER: usize = 1_000;

/// Refuses keys that are not known, with the nearest one that is.
pub fn known_keys(object: &Map<String, Value>, known: &[&str], at: &str) -> Result<()> {
    let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let near = did_you_mean(unknown, known);
    Err(UsherError::invalid(format!("\"{unknown}\" in {at} is not known"))
        .hint(format!("{near}Known keys: {}.", known.join(", "))))
}

pub fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| UsherError::invalid(format!("{at} is not a JSON object")).hint("Write {\"key\": value, …}."))
}

pub fn text(value: &Value, at: &str) -> Result<String> {
    value
        .as_str()
        .filter(|text| !text.trim().is_empty())
        .map(str::to_owned)
        .ok_or_else(|| UsherError::invalid(format!("{at} is not a text")).hint("Write it in double quotes; it may not be empty."))
}

pub fn id(value: &Value, at: &str) -> Result<uuid::Uuid> {
    value.as_str().and_then(|text| uuid::Uuid::parse_str(text).ok()).ok_or_else(|| {
        UsherError::invalid(format!("{at} is not an id")).hint("Give the uuid that the function which made it has returned.")
    })
}

/// A list of ids, each once.
pub fn ids(value: &Value, at: &str) -> Result<Vec<uuid::Uuid>> {
    let list = value
        .as_array()
        .ok_or_else(|| UsherError::invalid(format!("{at} is not a list")).hint("Write a list of ids: [\"…\", \"…\"]."))?;
    let mut found = list.iter().map(|value| id(value, &format!("an entry of {at}"))).collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Reads a retry rule as a flow's definition does.
fn retry(value: &Value) -> Result<Retry> {
    let object = object(value, "\"retry\"")?;
    known_keys(object, &["delays", "jitter"], "\"retry\"")?;
    Retry::parse(object).map_err(|message| {
        UsherError::invalid(message)
            .hint("Write \"retry\": {\"delays\": [1, 2, 4], \"jitter\": 0.2}: seconds before each further try.")
    })
}

/// The retry rule of a job that was found good when it was made.
pub fn stored_retry(value: &Value) -> Option<Retry> {
    retry(value).ok()
}

fn unique(value: &Value) -> Result<(String, Hold)> {
    let object = object(value, "\"unique\"")?;
    known_keys(object, &["key", "for"], "\"unique\"")?;
    let key = match object.get("key") {
        Some(key) => text(key, "\"key\" of \"unique\"")?,
        None => {
            return Err(
                UsherError::invalid("\"unique\" lacks \"key\"").hint("Write \"unique\": {\"key\": \"…\", \"for\": \"pending\"}.")
            );
        }
    };
    let hold = match object.get("for").map(|hold| text(hold, "\"for\" of \"unique\"")).transpose()?.as_deref() {
        None => Hold::History,
        Some("pending") => Hold::Pending,
        Some("ever") => Hold::Ever,
        Some(period) if period.starts_with(|c: char| c.is_ascii_digit()) || period.starts_with('P') => {
            Hold::Period(period.to_owned())
        }
        Some(other) => {
            return Err(UsherError::invalid(format!("\"{other}\" does not tell how long a key is kept"))
                .hint("Use \"pending\" (until the job has ended), an interval such as \"1 hour\", or \"ever\"."));
        }
    };
    Ok((key, hold))
}

impl Options {
    pub fn parse(value: &Value) -> Result<Self> {
        let top = object(value, "options")?;
        known_keys(top, &KEYS, "options")?;
        let expiry = match (top.get("expires_in"), top.get("expires_at")) {
            (None, None) => None,
            (Some(span), None) => Some(Expiry::In(text(span, "\"expires_in\"")?)),
            (None, Some(time)) => Some(Expiry::At(text(time, "\"expires_at\"")?)),
            _ => {
                return Err(UsherError::invalid("\"expires_in\" and \"expires_at\" are both given").hint("Keep one of them."));
            }
        };
        let after = top.get("after").map(|list| ids(list, "\"after\"")).transpose()?.unwrap_or_default();
        if after.len() > MOST_AFTER {
            return Err(UsherError::invalid(format!("\"after\" names {} jobs", after.len()))
                .hint(format!("Name at most {MOST_AFTER}; for more, put them into a batch whose completion is this job.")));
        }
        let run_anyway = match top.get("on_failure").map(|word| text(word, "\"on_failure\"")).transpose()?.as_deref() {
            None | Some("die") => false,
            Some("run") => true,
            Some(other) => {
                return Err(UsherError::invalid(format!("on_failure \"{other}\" is unknown"))
                    .hint("Use \"run\" (also when a job before it fails) or \"die\", which is the rule."));
            }
        };
        if top.contains_key("on_failure") && !top.contains_key("after") {
            return Err(UsherError::invalid("\"on_failure\" is given without \"after\"")
                .hint("It says what happens when a job of \"after\" fails; leave it out."));
        }
        if let Some(value) = top.get("retry") {
            retry(value)?;
        }
        Ok(Self {
            retry: top.get("retry").cloned(),
            expiry,
            unique: top.get("unique").map(unique).transpose()?,
            after,
            run_anyway,
            batch: top.get("batch").map(|value| id(value, "\"batch\"")).transpose()?,
        })
    }
}

#[cfg(test)]
mod unit {
    use super::{Expiry, Hold, Options};
    use serde_json::json;

    #[test]
    fn everything_is_read() {
        let one = "01a1fb76-2821-75bc-b4c5-d7f9014a5709";
        let options = Options::parse(&json!({
            "retry": {"delays": [1, 2.5], "jitter": 0.1}, "expires_in": "1 hour", "unique": {"key": "k", "for": "2 days"},
            "after": [one, one], "on_failure": "run", "batch": one
        }))
        .unwrap();
        assert_eq!(options.expiry, Some(Expiry::In("1 hour".to_owned())));
        assert_eq!(options.unique, Some(("k".to_owned(), Hold::Period("2 days".to_owned()))));
        assert_eq!(options.after.len(), 1);
        assert!(options.run_anyway && options.batch.is_some() && options.retry.is_some());
        assert_eq!(Options::parse(&json!({})).unwrap(), Options::default());
        let hold = |word: &str| Options::parse(&json!({"unique": {"key": "k", "for": word}})).unwrap().unique.unwrap().1;
        assert_eq!((hold("pending"), hold("ever")), (Hold::Pending, Hold::Ever));
    }

    #[test]
    fn nonsense_is_refused_with_a_remedy() {
        for (bad, remedy) in [
            (json!([]), "Write {\"key\": value, …}."),
            (json!({"expire_in": "1 h"}), "Did you mean \"expires_in\"?"),
            (json!({"retry": {"delay": []}}), "Did you mean \"delays\"?"),
            (json!({"retry": {"delays": [-1]}}), "seconds before each further try"),
            (json!({"unique": {"for": "ever"}}), "\"key\""),
            (json!({"unique": {"key": "k", "for": "always"}}), "\"ever\""),
            (json!({"unique": {"key": "k", "fro": "ever"}}), "Did you mean \"for\"?"),
            (json!({"after": "x"}), "a list of ids"),
            (json!({"after": ["x"]}), "the uuid"),
            (json!({"on_failure": "run"}), "leave it out"),
            (json!({"after": [], "on_failure": "go"}), "\"run\""),
            (json!({"batch": 7}), "the uuid"),
            (json!({"expires_in": "1 h", "expires_at": "tomorrow"}), "Keep one"),
            (json!({"expires_in": 5}), "double quotes"),
        ] {
            let error = Options::parse(&bad).unwrap_err();
            assert!(error.hint.as_deref().unwrap_or_default().contains(remedy), "{bad}: {error:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn an_unknown_key_is_never_taken(key in "[a-z_]{1,12}") {
            let known = super::KEYS.contains(&key.as_str());
            proptest::prop_assume!(!known);
            let refused = Options::parse(&json!({key: "x"})).is_err();
            proptest::prop_assert!(refused);
        }
    }
}
