//! Which jobs a caller means, as a value. Pure.

use super::options::{ids, known_keys, object, text};
use crate::error::{Result, UsherError};
use serde_json::{Map, Value};

/// What a call looks among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Jobs that have not ended, and dead ones if asked for.
    Open,
    DeadLetters,
}

const COMMON: [&str; 9] = ["jobs", "flow", "source", "target", "priority", "error", "payload", "created_after", "created_before"];
const TIMES: [&str; 4] = ["created_after", "created_before", "died_after", "died_before"];

/// A filter that was found good: its fields have the names and types that the statements expect.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub fields: Value,
    /// Texts to be read as times.
    pub times: Vec<(String, String)>,
    /// `pending`, `failed` or `dead`.
    pub status: Option<String>,
}

impl Filter {
    pub fn parse(value: &Value, among: Among) -> Result<Self> {
        let top = object(value, "filter")?;
        let more: &[&str] = match among {
            Among::Open => &["status"],
            Among::DeadLetters => &["sqlstate", "died_after", "died_before"],
        };
        let known: Vec<&str> = COMMON.iter().chain(more).copied().collect();
        known_keys(top, &known, "filter")?;
        let mut fields = Map::new();
        let mut times = Vec::new();
        let mut status = None;
        for (key, value) in top {
            let at = format!("\"{key}\" of filter");
            match key.as_str() {
                "jobs" => {
                    let ids: Vec<Value> = ids(value, &at)?.iter().map(|id| Value::from(id.to_string())).collect();
                    fields.insert(key.clone(), Value::from(ids));
                }
                "payload" => {
                    object(value, &at)?;
                    fields.insert(key.clone(), value.clone());
                }
                "priority" => {
                    let name = text(value, &at)?;
                    let lane = crate::flow::definition::lane(&name).ok_or_else(|| {
                        UsherError::invalid(format!("priority \"{name}\" is unknown"))
                            .hint(format!("Use one of: {}.", crate::flow::definition::LANES.join(", ")))
                    })?;
                    fields.insert("lane".to_owned(), Value::from(lane));
                }
                "status" => {
                    let word = text(value, &at)?;
                    if !["pending", "failed", "dead"].contains(&word.as_str()) {
                        return Err(UsherError::invalid(format!("status \"{word}\" is not one of jobs that can be cancelled"))
                            .hint("Use pending, failed or dead; without it, pending and failed jobs are meant."));
                    }
                    status = Some(word);
                }
                key if TIMES.contains(&key) => times.push((key.to_owned(), text(value, &at)?)),
                _ => {
                    fields.insert(key.clone(), Value::from(text(value, &at)?));
                }
            }
        }
        Ok(Self { fields: Value::Object(fields), times, status })
    }
}

#[cfg(test)]
mod unit {
    use super::{Among, Filter};
    use serde_json::json;

    #[test]
    fn fields_get_the_form_that_statements_expect() {
        let filter = Filter::parse(
            &json!({"flow": "f", "priority": "medium", "payload": {"a": 1}, "died_after": "2026-01-01", "error": "%lock%"}),
            Among::DeadLetters,
        )
        .unwrap();
        assert_eq!(filter.fields, json!({"flow": "f", "lane": 3, "payload": {"a": 1}, "error": "%lock%"}));
        assert_eq!(filter.times, [("died_after".to_owned(), "2026-01-01".to_owned())]);
        assert_eq!(Filter::parse(&json!({"status": "dead"}), Among::Open).unwrap().status.as_deref(), Some("dead"));
    }

    #[test]
    fn a_filter_that_would_mean_other_jobs_than_meant_is_refused() {
        for (bad, among, remedy) in [
            (json!({"flwo": "f"}), Among::Open, "Did you mean \"flow\"?"),
            (json!({"sqlstate": "23514"}), Among::Open, "Known keys"),
            (json!({"status": "dead"}), Among::DeadLetters, "Known keys"),
            (json!({"status": "synced"}), Among::Open, "pending"),
            (json!({"jobs": ["x"]}), Among::Open, "the uuid"),
            (json!({"payload": 7}), Among::Open, "key"),
            (json!({"priority": "urgent"}), Among::Open, "emergency"),
            (json!({"flow": ""}), Among::Open, "empty"),
            (json!(null), Among::Open, "key"),
        ] {
            let error = Filter::parse(&bad, among).unwrap_err();
            assert!(error.hint.as_deref().unwrap_or_default().contains(remedy), "{bad}: {error:?}");
        }
    }
}
