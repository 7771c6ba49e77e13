//! What somebody may decide about a conflict of a pair. Pure.

use super::super::fields::{Parsed, refuse};
use crate::error::did_you_mean;
use serde_json::{Map, Value};

/// Which decision somebody has taken about a conflict of a pair.
#[derive(Debug, Clone, PartialEq)]
pub enum Decided {
    Left,
    Right,
    /// By field, in terms of the left side.
    Values(Map<String, Value>),
}

impl Decided {
    /// `left`, `right` (also `source` and `target`) or `values`.
    pub fn parse(decision: &str, values: Option<&Value>) -> Parsed<Self> {
        let remedy = "Use left or right (that side's values hold), or values with decided_values => {\"field\": value}.";
        let decided = match decision {
            "left" | "source" => Self::Left,
            "right" | "target" => Self::Right,
            "values" => match values.and_then(Value::as_object) {
                Some(object) if !object.is_empty() => return Ok(Self::Values(object.clone())),
                _ => return refuse("the decision \"values\" needs decided_values", remedy),
            },
            other => {
                return refuse(
                    format!("\"{other}\" does not decide a conflict of a pair"),
                    format!("{}{remedy}", did_you_mean(other, &["left", "right", "values"])),
                );
            }
        };
        match values {
            None => Ok(decided),
            Some(_) => refuse(format!("decided_values do not go with the decision \"{decision}\""), remedy),
        }
    }
}
