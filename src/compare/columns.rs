//! What of two tables is compared with what, as people say it. Pure.

use crate::error::{Result, UsherError};
use serde_json::Value as Json;

/// Pairs of column names, left and right: `["a", "b"]` or `{"left": "right"}`.
pub fn parse(given: &Json) -> Result<Vec<(String, String)>> {
    let wrong = || {
        UsherError::invalid("columns is neither a list of names nor an object of names")
            .hint("Write '[\"name\", \"price\"]' for columns of the same name on both sides, or '{\"name\": \"title\"}' for left and right.")
    };
    let named = |name: &Json| name.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let pairs: Option<Vec<(String, String)>> = match given {
        Json::Array(names) => names.iter().map(|name| named(name).map(|name| (name.clone(), name))).collect(),
        Json::Object(pairs) => pairs.iter().map(|(left, right)| named(right).map(|right| (left.clone(), right))).collect(),
        _ => None,
    };
    let pairs = pairs.ok_or_else(wrong)?;
    for (n, (left, _)) in pairs.iter().enumerate() {
        if pairs[..n].iter().any(|(known, _)| known == left) {
            return Err(
                UsherError::invalid(format!("column \"{left}\" is named twice in columns")).hint("Name each column once.")
            );
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod unit {
    use super::parse;
    use serde_json::json;

    #[test]
    fn columns_are_a_list_or_pairs() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(parse(&json!(["a", "b"])).unwrap(), [pair("a", "a"), pair("b", "b")]);
        assert_eq!(parse(&json!({"a": "b"})).unwrap(), [pair("a", "b")]);
        assert_eq!(parse(&json!([])).unwrap(), []);
        for wrong in [json!("a"), json!(7), json!(null), json!([1]), json!({"a": null}), json!([""]), json!(["a", "a"])] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
