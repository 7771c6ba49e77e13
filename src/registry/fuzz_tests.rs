//! Fuzz targets of names: the person whom claims name, tables as people write them, systems.

use super::identity::claims_subject;
use super::systems::check_name;
use super::tables::split;
use crate::fuzz::{Choices, fuzz_target, refused_well, seeds, text, values};
use serde_json::Value;

fn subject(text: &str) {
    let subject = claims_subject(text);
    if let Some(subject) = &subject {
        assert!(!subject.starts_with("role:"), "a token passes for a database role");
        // PostgreSQL's texts end there: the rest would be hidden from everybody who reads who it was.
        assert!(!subject.contains('\0'), "{subject:?}");
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let named = value.get("sub").and_then(Value::as_str);
        assert!(subject.is_none() || subject.as_deref() == named);
    }
}

fuzz_target!(claims, |bytes: &[u8]| {
    subject(&text(bytes));
    for value in values(seeds("claims"), bytes) {
        subject(&value.to_string());
    }
});

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fuzz_target!(table_name, |bytes: &[u8]| {
    let given = text(bytes);
    if let Some((schema, name)) = split(&given) {
        assert!(!schema.is_empty() && !name.is_empty());
        assert_eq!(split(&format!("{}.{}", quoted(&schema), quoted(&name))), Some((schema, name)), "{given}");
    }
    let mut choices = Choices::of(bytes);
    let (schema, name) = (choices.text(), choices.text());
    let whole = split(&format!("{}.{}", quoted(&schema), quoted(&name)));
    assert_eq!(whole, (!schema.is_empty() && !name.is_empty()).then_some((schema, name)));
    // As PostgreSQL folds it, and no further.
    let plain: String = given.chars().filter(|c| !matches!(c, '"' | '.')).collect();
    assert_eq!(
        split(&format!("a.{plain}")).map(|(_, name)| name),
        Some(plain.to_ascii_lowercase()).filter(|name| !name.is_empty())
    );
});

fuzz_target!(names, |bytes: &[u8]| {
    let given = text(bytes);
    match check_name(&given) {
        Ok(()) => assert!((1..=63).contains(&given.len()) && given.bytes().all(|byte| byte.is_ascii_graphic())),
        Err(error) => refused_well(&error),
    }
});
