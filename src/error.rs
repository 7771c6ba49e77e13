//! The one error type of the crate.
//!
//! Every refusal says what, why and what to do about it, under a SQLSTATE that fits. PostgreSQL's error style applies:
//! a message begins in lower case and ends without a full stop, the remedy is a HINT. This is also the one place that
//! removes secrets from a text before anyone may read it.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgSqlErrorCode;
use std::fmt;

pub type Result<T> = std::result::Result<T, UsherError>;

/// What went wrong, why, and what to do about it.
#[derive(Debug, Clone)]
pub struct UsherError {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl UsherError {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: mask(&message.into()), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(mask(&detail.into()));
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An argument that is missing, of the wrong form or out of range.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// An argument that is NULL or empty.
    pub fn missing(what: &str) -> Self {
        Self::invalid(format!("{what} is missing")).hint(format!("Give {what}; it may not be NULL or empty."))
    }

    /// A text that must be there, of an argument that may be NULL.
    pub fn given(value: Option<String>, what: &str) -> Result<String> {
        value.filter(|text| !text.trim().is_empty()).ok_or_else(|| Self::missing(what))
    }

    /// A thing that was named and does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
    }

    /// Refused for want of a right; says the same whether the thing exists or not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
    }

    /// The thing exists but is not in the state that the call needs.
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    }

    /// A flow definition that cannot work.
    pub fn definition(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INVALID_OBJECT_DEFINITION, message)
    }

    /// A kind that the model knows and this version does not run.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
    }

    /// Whatever needs the tables, before they exist.
    pub fn not_set_up() -> Self {
        Self::state("pg_usher is not set up in this database")
            .detail("The tables of the extension do not exist yet.")
            .hint("Run SELECT usher.setup(); as the role that shall own them.")
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message)
    }
}

impl fmt::Display for UsherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<UsherError> for ErrorReport {
    fn from(error: UsherError) -> Self {
        let mut report = ErrorReport::new(error.code, error.message, "pg_usher");
        if let Some(detail) = error.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

impl From<pgrx::spi::SpiError> for UsherError {
    fn from(error: pgrx::spi::SpiError) -> Self {
        Self::internal(format!("a statement of the extension could not be run: {error}"))
    }
}

/// Words after which a value is treated as a secret when they stand as `word=value` or `"word": "value"`.
const SECRET_WORDS: [&str; 7] = ["password", "passwd", "secret", "token", "api_key", "apikey", "authorization"];

/// Words before a credential: `Authorization: Bearer …`.
const SCHEMES: [&str; 4] = ["bearer", "basic", "digest", "token"];

/// Replaces what follows a secret's name by `***`. Error texts quote input, and input may carry credentials.
pub fn mask(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if !SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(end) = name_end(lower.as_bytes(), at) {
        out.push_str(&text[at..end]);
        at = end;
        // The value follows `=` or `:`; a word in ordinary prose ("the token expired") is left alone.
        let rest = &text[at..];
        let lead = rest.len() - rest.trim_start_matches(['"', '\'', ' ', '\\']).len();
        // `=>` and `:=` name arguments.
        if let Some(sign) = ["=>", ":=", "=", ":"].into_iter().find(|sign| rest[lead..].starts_with(sign)) {
            let from = lead + sign.len();
            let (start, length) = value(&rest[from..]);
            out.push_str(&rest[..from + start]);
            out.push_str("***");
            at += from + start + length;
        }
    }
    out.push_str(&text[at..]);
    out
}

/// The end of the next secret's name. One way through the text for all names: a search for each of them, again and again, takes
/// a time that grows with the square of the text, minutes for a megabyte.
fn name_end(lower: &[u8], from: usize) -> Option<usize> {
    let name = |at: usize| SECRET_WORDS.iter().find(|word| lower[at..].starts_with(word.as_bytes())).map(|word| at + word.len());
    (from..lower.len()).find_map(name)
}

/// Where a value begins in what follows its sign, and its length. One in quotes goes to the quote that ends it.
fn value(rest: &str) -> (usize, usize) {
    let open = rest.trim_start_matches([' ', '\\']);
    let start = rest.len() - open.len();
    let word = |text: &str| text.find(['"', '\'', ',', '}', ' ', ')', '\n']).unwrap_or(text.len());
    // What is glued to it belongs to it: masked once more, the text stays as it is.
    let list = |from: usize| from + bracketed(&open[from..]);
    if open.starts_with(['[', '{']) {
        return (start, list(0) + word(&open[list(0)..]));
    }
    let Some(quote) = open.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let length = word(open);
        // ARRAY['a'], and E'a' as text is also written.
        if let Some(bracket) = open[..length].find(['[', '{']) {
            return (start, list(bracket) + word(&open[list(bracket)..]));
        }
        let prefix = open[..length].to_ascii_lowercase();
        if open[length..].starts_with('\'') && matches!(prefix.as_str(), "e" | "n" | "b" | "x" | "u&") {
            let (inner, long) = value(&open[length..]);
            return (start + length + inner, long);
        }
        let scheme = SCHEMES.iter().any(|scheme| open[..length].eq_ignore_ascii_case(scheme));
        let behind = open.len() - open[length..].trim_start_matches(' ').len();
        return (start, if scheme { behind + word(&open[behind..]) } else { length });
    };
    let inner = open.trim_start_matches(quote);
    let quotes = open.len() - inner.len();
    if quotes > 1 && (inner.is_empty() || inner.starts_with([',', '}', ']', ')', ' ', '\n'])) {
        return (start + 1, 0);
    }
    // Doubled quotes, or `\"`, are those of a text in a text: the next one like it ends the value.
    let nested = quotes > 1 || rest[..start].ends_with('\\');
    let mut escaped = false;
    let end = inner.find(|c| {
        let ends = c == quote && (nested || !escaped);
        escaped = c == '\\' && !escaped;
        ends
    });
    (start + quotes, end.unwrap_or(inner.len()))
}

/// The length of a list or object, as far as the bracket that closes it; to the end where none does.
fn bracketed(open: &str) -> usize {
    /// What a text stands in; JSON in a text has its quotes behind backslashes.
    #[derive(PartialEq)]
    enum In {
        Nothing,
        Single,
        Double,
        Escaped,
    }
    let bytes = open.as_bytes();
    let (mut depth, mut within, mut at) = (0_usize, In::Nothing, 0);
    while at < bytes.len() {
        let next = bytes.get(at + 1);
        match (&within, bytes[at]) {
            (In::Nothing, b'\\') if next == Some(&b'"') => (within, at) = (In::Escaped, at + 1),
            (In::Escaped, b'\\') if next == Some(&b'"') => (within, at) = (In::Nothing, at + 1),
            // \\\" is a quote of a text in a text.
            (In::Escaped, b'\\') if next == Some(&b'\\') => at += if bytes[at + 2..].starts_with(b"\\\"") { 3 } else { 1 },
            (In::Double, b'\\') => at += 1,
            (In::Nothing, b'\'') => within = In::Single,
            (In::Nothing, b'"') => within = In::Double,
            (In::Single, b'\'') | (In::Double, b'"') => within = In::Nothing,
            (In::Nothing, b'[' | b'{') => depth += 1,
            (In::Nothing, b']' | b'}') => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => (),
        }
        at += 1;
    }
    open.len()
}

/// True for names such as `api_key` or `reset_token`: what stands under them is never shown.
pub fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// Number of single-letter edits between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// The word of `known` that is nearest to `given`, if about half of it is the same.
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let (word, edits) = known.iter().map(|word| (*word, distance(given, word))).min_by_key(|(_, edits)| *edits)?;
    (edits * 2 <= given.chars().count().max(word.chars().count()) + 1).then_some(word)
}

/// `Did you mean "…"? ` for the beginning of a hint; nothing, when no word is near.
pub fn did_you_mean(given: &str, known: &[&str]) -> String {
    nearest(given, known).map(|near| format!("Did you mean \"{near}\"? ")).unwrap_or_default()
}

#[cfg(test)]
mod unit {
    use super::{did_you_mean, mask};
    use crate::fuzz::{Choices, fuzz_target, text};
    use proptest::prelude::*;

    #[test]
    fn a_value_behind_a_secret_word_is_masked() {
        assert_eq!(mask("api_key=abc123 refused"), "api_key=*** refused");
        assert_eq!(mask(r#"{"password": "hunter2", "a": 1}"#), r#"{"password": "***", "a": 1}"#);
        assert_eq!(mask("Authorization: Bearer-xyz"), "Authorization: ***");
    }

    #[test]
    fn a_value_is_masked_to_its_end() {
        for (given, masked) in [
            (r#"{"password": "correct horse", "a": 1}"#, r#"{"password": "***", "a": 1}"#),
            (r#"{"password": "a\" b", "a": 1}"#, r#"{"password": "***", "a": 1}"#),
            (r#"{"password": "", "a": 1}"#, r#"{"password": "***", "a": 1}"#),
            (r#""{\"secret\": \"a b\"}""#, r#""{\"secret\": \"***"}""#),
            (r#""{""secret"": ""a b""}""#, r#""{""secret"": ""***""}""#),
            ("Authorization: Bearer abc.def and more", "Authorization: *** and more"),
            ("password = 'a b' c", "password = '***' c"),
            ("f(secret => 'a b', n => 1)", "f(secret => '***', n => 1)"),
            ("token := 'a'", "token := '***'"),
            (r#"{"token": ["a", {"b": "]"}], "n": 1}"#, r#"{"token": ***, "n": 1}"#),
            ("f(secret => ARRAY['hunter2','b'], 1)", "f(secret => ***, 1)"),
            ("password=ab[cd]e f", "password=*** f"),
            ("token => E'a b'", "token => E'***'"),
            ("token: ['a]', 'b'] c", "token: *** c"),
            (r#"\"token\": [\"a]\", \"b\"] c"#, r#"\"token\": *** c"#),
            (r#"{"secret": {"a": 1"#, r#"{"secret": ***"#),
        ] {
            assert_eq!(mask(given), masked);
        }
    }

    /// Searched for again and again, this took minutes.
    #[test]
    fn a_long_text_is_masked_in_one_go() {
        let long = "token ".repeat(200_000);
        assert_eq!(mask(&long), long);
    }

    #[test]
    fn only_a_word_that_is_near_is_suggested() {
        let flows = ["invoice_from_order", "key", "once"];
        assert_eq!(did_you_mean("invoice_form_order", &flows), "Did you mean \"invoice_from_order\"? ");
        assert_eq!(did_you_mean("kye", &flows), "Did you mean \"key\"? ");
        assert_eq!((did_you_mean("never", &flows), did_you_mean("x", &[])), (String::new(), String::new()));
    }

    #[test]
    fn prose_is_left_alone() {
        assert_eq!(mask("the token has expired"), "the token has expired");
        assert_eq!(mask("no such table"), "no such table");
    }

    proptest! {
        #[test]
        fn no_marker_survives(marker in "[a-zA-Z0-9]{12,24}", word in 0usize..7, lead in "[ a-z]{0,10}") {
            let text = format!("{lead}{}={marker} and more", super::SECRET_WORDS[word]);
            prop_assert!(!mask(&text).contains(&marker));
        }
    }

    fuzz_target!(fuzz_mask, |bytes: &[u8]| {
        let given = text(bytes);
        let masked = mask(&given);
        // No more is said than was, and what is hidden already stays so.
        assert!(masked.len() <= given.len() + 3 * given.len().div_ceil(5) && mask(&masked) == masked, "{masked}");
        let short: String = given.chars().take(2_000).collect();
        let near = did_you_mean(&short, &super::SECRET_WORDS);
        assert!(near.is_empty() || super::SECRET_WORDS.iter().any(|word| near.contains(word)));
        // Whatever stands around it, as long as that names no value itself.
        let around: String = short.chars().filter(|c| !matches!(c, '=' | ':' | '"' | '\'' | '\\')).collect();
        let mut choices = Choices::of(bytes);
        let word = super::SECRET_WORDS[choices.below(super::SECRET_WORDS.len())];
        let (value, phrase) = ("hUnTeR2xYz", "first hUnTeR2xYz last");
        for told in [
            format!("{around} {word}={value} {around}"),
            format!("{around}{{\"{word}\": \"{phrase}\"}}{around}"),
            format!("{around} '{word}' : '{phrase}' {around}"),
            format!("{{\"{around}\": 1, \"{word}\":\"\\\" {phrase}\"}}"),
            format!("\"{around}{{\\\"{word}\\\": \\\"{phrase}\\\"}}\""),
            format!("{around} Authorization: Bearer {value} {around}"),
        ] {
            assert!(!mask(&told).contains("hUnTeR2"), "{told} became {}", mask(&told));
        }
    });
}
