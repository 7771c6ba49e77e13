//! What differs between two definitions, line by line, for people and for review tools. Pure.
//!
//! A line is `path: old -> new`. Objects are gone into, lists are compared whole: in a definition their order means
//! something (the columns of a key) or they are short.

use serde_json::{Map, Value};

const NONE: &str = "(none)";

/// The lines in the order of the paths; none when the values are equal.
pub fn lines(old: &Value, new: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare("", Some(old), Some(new), &mut out);
    out
}

/// The lines of something that was not there before.
pub fn of_new(new: &Value) -> Vec<String> {
    lines(&Value::Object(Map::new()), new)
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (object(old), object(new)) {
        // Both are objects, or one of them is and the other side is not there: field by field.
        (Some(left), Some(right)) if old.is_some() && new.is_some() || !left.is_empty() || !right.is_empty() => {
            let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                compare(&join(path, name), left.get(name), right.get(name), out);
            }
        }
        _ => out.push(format!("{}: {} -> {}", if path.is_empty() { "definition" } else { path }, show(old), show(new))),
    }
}

/// An object's fields; what is not there has none.
fn object(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value {
        None => Some(Map::new()),
        Some(Value::Object(fields)) => Some(fields.clone()),
        Some(_) => None,
    }
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| NONE.to_owned(), Value::to_string)
}

/// `set.amount`; a name that is more than a word stands in quotes.
fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let name = if plain { name.to_owned() } else { Value::from(name).to_string() };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn each_change_is_one_line_with_its_path() {
        let old = json!({"if": "new.a", "set": {"id": "new.id", "amount": "new.total"}, "when": {"change": "public.a", "on": ["insert"]}});
        let new = json!({"if": "new.a", "set": {"id": "new.id", "amount": "new.net", "vat": "new.vat"}, "when": {"change": "public.a", "on": ["insert", "update"]}});
        assert_eq!(
            lines(&old, &new),
            [
                r#"set.amount: "new.total" -> "new.net""#,
                r#"set.vat: (none) -> "new.vat""#,
                r#"when.on: ["insert"] -> ["insert","update"]"#,
            ]
        );
    }

    #[test]
    fn what_comes_or_goes_whole_is_shown_field_by_field() {
        let link = json!({"link": {"kind": "order", "left": "new.id"}});
        assert_eq!(lines(&json!({}), &link), [r#"link.kind: (none) -> "order""#, r#"link.left: (none) -> "new.id""#]);
        assert_eq!(lines(&link, &json!({})), [r#"link.kind: "order" -> (none)"#, r#"link.left: "new.id" -> (none)"#]);
        assert_eq!(of_new(&json!({"set": {}})), ["set: (none) -> {}"]);
    }

    #[test]
    fn names_that_are_no_words_and_kinds_that_change() {
        assert_eq!(
            lines(&json!({"check": {"amount >= 0.1": "x"}}), &json!({"check": {"amount >= 0.1": "y"}})),
            [r#"check."amount >= 0.1": "x" -> "y""#]
        );
        assert_eq!(lines(&json!({"then": {"a": 1}}), &json!({"then": [1]})), [r#"then: {"a":1} -> [1]"#]);
        assert_eq!(lines(&json!(1), &json!(2)), ["definition: 1 -> 2"]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            (0..3i32).prop_map(|n| json!(n)),
            "[a-b. ]{0,2}".prop_map(|s| json!(s))
        ];
        leaf.prop_recursive(3, 20, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c.]{0,2}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn there_are_lines_exactly_when_something_differs(a in value(), b in value()) {
            prop_assert_eq!(lines(&a, &b).is_empty(), a == b);
            prop_assert!(lines(&a, &a).is_empty());
        }

        #[test]
        fn the_way_back_has_the_same_paths(a in value(), b in value()) {
            let turned: Vec<String> = lines(&a, &b);
            let back: Vec<String> = lines(&b, &a);
            prop_assert_eq!(turned.len(), back.len());
            let mut distinct = turned.clone();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), turned.len());
        }
    }
}
