//! Fuzz targets of privacy: taking a person out of whatever JSON, declarations, and receipts as people bring them.

use super::mask::Mask;
use super::receipt::{public_key, verify};
use super::store::Erase;
use crate::fuzz::{fuzz_target, refused_well, seeds, text, values};
use serde_json::{Value, json};

const PERSON: &str = "ann@example.org";

fn masked(value: Value) {
    let (fields, identifiers) = (["name".to_owned()], [PERSON.to_owned(), "490170123".to_owned()]);
    let mask = Mask { fields: &fields, identifiers: &identifiers, pseudonym: "erased-0" };
    let once = mask.apply(value);
    assert!(!names_her(&texts(&once)), "{once}");
    assert_eq!(mask.apply(once.clone()), once, "a second time changes nothing more");
}

/// She is named: not as a part of somebody else's address.
fn names_her(text: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(PERSON).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + PERSON.len()..]);
        !before.ends_with(word) && !after.starts_with(word)
    })
}

/// Every text of it, without what JSON puts before signs. Names of fields stay as they are.
fn texts(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields.values().map(texts).collect(),
        Value::Array(list) => list.iter().map(texts).collect::<Vec<_>>().join("\n"),
        Value::String(text) => format!("{text}\n"),
        _ => String::new(),
    }
}

fuzz_target!(mask_person, |bytes: &[u8]| {
    let given = text(bytes);
    masked(json!({"a": given, "name": given, "list": [format!("{given}{PERSON}")], format!("{PERSON}{given}"): 1}));
    if let Ok(value) = serde_json::from_str::<Value>(&given) {
        masked(value);
        // As deep as jsonb may be.
        let deep = format!("{}[{given}, \"{PERSON}\"]{}", "[".repeat(300), "]".repeat(300));
        let masked =
            Mask { fields: &[], identifiers: &[PERSON.to_owned()], pseudonym: "erased-0" }.apply_to(&deep).expect("JSON");
        assert!(!masked.contains(PERSON), "{masked}");
    }
    for value in values(seeds("mask_person"), bytes) {
        masked(value);
    }
});

fuzz_target!(erase, |bytes: &[u8]| {
    let given = text(bytes);
    let also = serde_json::from_str::<Value>(&given).ok();
    for value in [Some(json!({"value": given})), also].into_iter().flatten() {
        if let Some(erase) = Erase::read(&value) {
            assert_eq!(Erase::read(&erase.stored()), Some(erase));
        }
    }
});

fuzz_target!(receipt, |bytes: &[u8]| {
    let given = text(bytes);
    let key = "63858ca4a4f18f9361d7b1e8479161a69d1cfbfe88bdeaae469fb6f1d9de4b86";
    let hex: String = bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    let forged = json!({"signed": given, "public_key": key, "signature": format!("{hex:0<128}")});
    let also = serde_json::from_str::<Value>(&given).ok();
    for value in [Some(forged), also].into_iter().flatten().chain(values(seeds("receipt"), bytes)) {
        match verify(&value, &[public_key(key).expect("a key")]) {
            Ok(genuine) => assert!(!genuine, "nobody has signed {value}"),
            Err(error) => refused_well(&error),
        }
    }
    if let Err(error) = public_key(&given) {
        refused_well(&error);
    }
});
