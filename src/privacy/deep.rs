//! JSON that is nested deeper than it can be read with bounded recursion. Pure.
//!
//! jsonb takes some thousand levels, whatever reads it here a hundred. Anybody may write such a value; it must neither keep a
//! person from being erased nor exhaust the stack. So what lies deeper is cut out, as text.

use crate::error::UsherError;
use serde_json::Value;
use std::collections::HashSet;

/// serde_json reads 127 levels.
const DEEPEST: usize = 100;

/// A text whose deep parts have been replaced by strings that are in it nowhere else.
pub struct Cut<'a> {
    pub value: Value,
    token: String,
    parts: Vec<&'a str>,
}

/// The value; what is deeper than can be read, as its text.
pub fn read(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|_| cut(text).map(|cut| restored(cut.value, &cut.token, &cut.parts)))
}

/// What PostgreSQL has made is read; this would be our fault.
pub fn unreadable(error: serde_json::Error) -> UsherError {
    UsherError::internal(format!("JSON of the database cannot be read: {error}"))
}

fn restored(value: Value, token: &str, parts: &[&str]) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, restored(value, token, parts))).collect(),
        Value::Array(list) => list.into_iter().map(|value| restored(value, token, parts)).collect(),
        Value::String(text) => match number(&text, token).and_then(|n| parts.get(n)) {
            Some(part) => Value::from(*part),
            None => Value::from(text),
        },
        other => other,
    }
}

fn number(text: &str, token: &str) -> Option<usize> {
    text.strip_prefix(token)?.parse().ok()
}

const TOKEN: &str = "usher_deep_";

/// What the text has nowhere. Found in one go: whoever writes the text may have put many of them into it. With no end of a word
/// inside, so that no name of a person is a part of it.
fn unused(text: &str) -> String {
    let used: HashSet<u64> = text
        .match_indices(TOKEN)
        .filter_map(|(at, token)| {
            let behind = &text[at + token.len()..];
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            behind[..digits].parse().ok()
        })
        .collect();
    let free = (0..).find(|n| !used.contains(n)).unwrap_or_default();
    format!("{TOKEN}{free}_")
}

pub fn cut(text: &str) -> serde_json::Result<Cut<'_>> {
    let token = unused(text);
    let (mut out, mut parts) = (String::new(), Vec::new());
    let (mut depth, mut from, mut begin) = (0_usize, 0, 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'[' | b'{' => {
                depth += 1;
                if depth == DEEPEST + 1 {
                    begin = at;
                }
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == DEEPEST {
                    out.push_str(&text[from..begin]);
                    out.push_str(&format!("\"{token}{}\"", parts.len()));
                    parts.push(&text[begin..=at]);
                    from = at + 1;
                }
            }
            _ => (),
        }
    }
    out.push_str(&text[from..]);
    Ok(Cut { value: serde_json::from_str(&out)?, token, parts })
}

impl Cut<'_> {
    /// `value` as text, with the deep parts in their places again, or what `instead` has for them.
    pub fn join(&self, value: &Value, instead: impl Fn(&str) -> Option<String>) -> String {
        let text = value.to_string();
        let opening = format!("\"{}", self.token);
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&opening) {
            let behind = &rest[at + opening.len()..];
            let end = behind.find('"').unwrap_or(behind.len());
            let part = behind[..end].parse::<usize>().ok().and_then(|n| self.parts.get(n));
            out.push_str(&rest[..at]);
            match part {
                Some(part) => out.push_str(&instead(part).unwrap_or_else(|| (*part).to_owned())),
                None => out.push_str(&rest[at..at + opening.len() + (end + 1).min(behind.len())]),
            }
            rest = behind.get(end + 1..).unwrap_or_default();
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod unit {
    use super::{cut, read};
    use serde_json::{Value, json};

    fn nested(levels: usize, inside: &str) -> String {
        format!("{}{inside}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn what_is_deep_is_read_as_text() {
        for (levels, inside) in [(99, "1"), (5_000, "{\"a]\\\"\": \"}\"}"), (20_000, "")] {
            let text = format!("{{\"a\": {}, \"b\": \"[[\"}}", nested(levels, inside));
            let value = read(&text).expect("it is read");
            assert_eq!(value["b"], "[[");
            let mut at = &value["a"];
            while let Value::Array(list) = at {
                at = &list[0];
            }
            assert_eq!(at.as_str().is_some_and(|deep| deep.starts_with('[')), levels > 99, "{levels}");
        }
    }

    #[test]
    fn parts_come_back_or_what_stands_for_them() {
        let text = format!("[{}, \"usher_deep_0_0\", {}]", nested(300, "\"x\""), nested(300, "\"y\""));
        let found = cut(&text).expect("JSON");
        assert_eq!(found.parts.len(), 2);
        assert_eq!(found.join(&found.value, |_| None), text.replace(", ", ","));
        let masked = found.join(&found.value, |part| part.contains('x').then(|| "\"masked\"".to_owned()));
        assert!(masked.contains("\"masked\"") && masked.contains("\"y\"") && !masked.contains("\"x\""), "{masked}");
        assert!(read("[1").is_err() && read(&"[".repeat(5_000)).is_err());
    }

    /// Looked for one by one, this took hours.
    #[test]
    fn a_text_full_of_what_stands_for_parts_is_cut_in_one_go() {
        let many: String = (0..200_000).map(|n| format!("usher_deep_{n}_ ")).collect();
        let text = format!("[\"{many}\",{}]", nested(300, "1"));
        let found = cut(&text).expect("JSON");
        assert_eq!(found.token, "usher_deep_200000_");
        assert_eq!(found.join(&found.value, |_| None), text);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_flat_stays(text in "\\PC{0,40}", n: i64) {
            let value = json!({"a": text, "list": [n, {"usher_deep_0_": "usher_deep_0_0"}]});
            proptest::prop_assert_eq!(read(&value.to_string()).expect("JSON"), value.clone());
            let text = value.to_string();
            let found = cut(&text).expect("JSON");
            proptest::prop_assert_eq!(found.join(&found.value, |_| None), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:a\\\\1 ]{0,60}", levels in 0_usize..300) {
            let _ = read(&format!("{}{text}", "[".repeat(levels)));
            let _ = read(&nested(levels, &text));
        }
    }
}
