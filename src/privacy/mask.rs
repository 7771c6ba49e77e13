//! Taking a person out of JSON. Pure.

use super::deep;
use serde_json::Value;

/// What is shorter names nobody: "12" is also a quantity.
pub const SHORTEST: usize = 4;
/// An identifier that is shorter is only masked where it is the whole text: "Anna" is in "Annabel".
const SHORTEST_INSIDE: usize = 5;
/// Numbers name somebody when they are as long as a telephone's.
const SHORTEST_NUMBER: usize = 6;

/// What is to be masked, and what stands there instead.
pub struct Mask<'a> {
    /// Fields that are personal whatever they hold.
    pub fields: &'a [String],
    /// Texts that name the person wherever they stand.
    pub identifiers: &'a [String],
    pub pseudonym: &'a str,
}

impl Mask<'_> {
    /// JSON as text, without the person. Of what is nested too deeply to be looked through, a part that has anything of the
    /// person in it goes as a whole.
    pub fn apply_to(&self, text: &str) -> serde_json::Result<String> {
        if let Ok(value) = serde_json::from_str(text) {
            return Ok(self.apply(value).to_string());
        }
        let cut = deep::cut(text)?;
        let masked = self.apply(cut.value.clone());
        Ok(cut.join(&masked, |part| self.is_in(part).then(|| Value::from(self.pseudonym).to_string())))
    }

    /// In the text of JSON, as PostgreSQL writes it.
    fn is_in(&self, part: &str) -> bool {
        let written = |text: &String| Value::from(text.as_str()).to_string();
        self.fields.iter().any(|field| part.contains(&format!("{}:", written(field))))
            || self.identifiers.iter().any(|known| part.contains(written(known).trim_matches('"')))
    }

    pub fn apply(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| {
                    let masked = if self.fields.contains(&name) { self.hidden(value) } else { self.apply(value) };
                    // Names of fields are the application's, whoever is called like one.
                    (name, masked)
                })
                .collect(),
            Value::Array(list) => list.into_iter().map(|value| self.apply(value)).collect(),
            Value::String(text) => Value::from(self.text(&text).unwrap_or(text)),
            Value::Number(ref number) if self.is_number(&number.to_string()) => Value::from(self.pseudonym),
            other => other,
        }
    }

    fn is_number(&self, digits: &str) -> bool {
        digits.len() >= SHORTEST_NUMBER && self.identifiers.iter().any(|known| known == digits)
    }

    /// A text keeps its kind, so that what reads it later finds a text.
    fn hidden(&self, value: Value) -> Value {
        match value {
            Value::String(_) => Value::from(self.pseudonym),
            _ => Value::Null,
        }
    }

    /// The text without the person; None when the person is not in it.
    fn text(&self, text: &str) -> Option<String> {
        if self.identifiers.iter().any(|known| known == text) {
            return Some(self.pseudonym.to_owned());
        }
        // The longest first: one may be a part of another.
        let mut inside: Vec<&String> = self.identifiers.iter().filter(|known| known.chars().count() >= SHORTEST_INSIDE).collect();
        inside.sort_by_key(|known| std::cmp::Reverse(known.len()));
        let mut masked = None;
        for known in inside {
            masked = without(masked.as_deref().unwrap_or(text), known, self.pseudonym).or(masked);
        }
        masked
    }
}

/// The text with every whole occurrence replaced: joann@example.org is not ann@example.org. None: there is none.
fn without(text: &str, known: &str, pseudonym: &str) -> Option<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest, mut before, mut found) = (String::new(), text, None::<char>, false);
    while let Some(at) = rest.find(known) {
        let (head, tail) = (&rest[..at], &rest[at + known.len()..]);
        let begins = head.chars().next_back().or(before).is_none_or(|c| !word(c)) || !known.starts_with(word);
        let ends = tail.chars().next().is_none_or(|c| !word(c)) || !known.ends_with(word);
        out.push_str(head);
        if begins && ends {
            out.push_str(pseudonym);
            (before, rest, found) = (pseudonym.chars().next_back(), tail, true);
        } else {
            // One character further: it may begin inside of this one.
            let step = known.chars().next().map_or(1, char::len_utf8);
            out.push_str(&known[..step]);
            (before, rest) = (known.chars().next(), &rest[at + step..]);
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

#[cfg(test)]
mod unit {
    use super::Mask;
    use serde_json::{Value, json};

    fn masked(value: Value) -> Value {
        let (fields, identifiers) = (
            ["name".to_owned(), "born".to_owned()],
            ["ann@example.org".to_owned(), "Anna".to_owned(), "471147".to_owned(), "4711".to_owned()],
        );
        Mask { fields: &fields, identifiers: &identifiers, pseudonym: "erased-1" }.apply(value)
    }

    #[test]
    fn personal_fields_and_identifiers_go_and_the_rest_stays() {
        assert_eq!(
            masked(
                json!({"id": 1.50, "name": "Ann Lee", "born": 1980, "to": ["ann@example.org", "bob@example.org"], "ann@example.org": true,
                          "note": "ask ann@example.org twice", "nick": "Anna", "city": "Annaberg", "other": "joann@example.org ann@example.organ", "deep": {"name": {"first": "Ann"}}, "no": 471147, "quantity": 4711})
            ),
            json!({"id": 1.50, "name": "erased-1", "born": null, "to": ["erased-1", "bob@example.org"], "ann@example.org": true,
                   "note": "ask erased-1 twice", "nick": "erased-1", "city": "Annaberg", "other": "joann@example.org ann@example.organ", "deep": {"name": null}, "no": "erased-1", "quantity": 4711})
        );
    }

    #[test]
    fn what_is_nested_too_deeply_goes_as_a_whole_if_the_person_is_in_it() {
        let deep = |inside: &str| format!("{}{inside}{}", "[".repeat(3_000), "]".repeat(3_000));
        let mask = |fields: &[&str], text: &str| {
            let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
            let identifiers = ["ann \\ \"lee\"".to_owned(), "ann@example.org".to_owned()];
            Mask { fields: &fields, identifiers: &identifiers, pseudonym: "erased-1" }.apply_to(text).expect("JSON")
        };
        let text = format!("{{\"a\":\"ann@example.org\",\"b\":{}}}", deep("{\"name\": 1}"));
        assert_eq!(mask(&[], &text), text.replace("ann@example.org", "erased-1"));
        assert!(!mask(&["name"], &text).contains("name"));
        for inside in ["\"to ann@example.org\"", "\"ann \\\\ \\\"lee\\\"\""] {
            let masked = mask(&[], &deep(inside));
            assert!(masked.contains("\"erased-1\"") && !masked.contains("ann"), "{masked}");
        }
        assert!(Mask { fields: &[], identifiers: &[], pseudonym: "" }.apply_to("[1").is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_of_an_identifier_stays(before in "[a-z ]{0,8}", after in "[a-z ]{0,8}", twice: bool) {
            let text = format!("{before} ann@example.org,{after}{}", if twice { " ann@example.org" } else { "" });
            let masked = masked(json!({"a": [text]})).to_string();
            proptest::prop_assert!(!masked.contains("example.org"), "{}", masked);
        }

        #[test]
        fn masking_twice_changes_nothing_more(text in "\\PC{0,30}") {
            let once = masked(json!({"a": text, "name": "x"}));
            proptest::prop_assert_eq!(masked(once.clone()), once);
        }
    }
}
