//! What a sale must be like before anything is written. Pure.

use super::money::{self, Currency};
use crate::error::{Result, UsherError};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes of a code, a key or a reference: an index holds them.
const LONGEST: usize = 1_000;
const LONGEST_SOURCE: usize = 200;

/// The arguments of a call, unchecked.
pub struct Given {
    pub project_code: Option<String>,
    pub event_code: Option<String>,
    pub ticket_count: Option<i32>,
    /// As PostgreSQL writes a numeric.
    pub gross_amount: Option<String>,
    pub currency: Option<String>,
    pub source: Option<String>,
    pub payload: Option<Value>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug)]
pub struct Sale {
    pub project_code: Option<String>,
    pub event_code: Option<String>,
    pub ticket_count: i32,
    pub gross_amount: String,
    pub currency: Currency,
    pub source: String,
    pub payload: Value,
    pub idempotency_key: Option<String>,
    /// What the source calls the sale: `payload.reference`.
    pub reference: Option<String>,
}

/// What tells one sale from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once<'a> {
    Key(&'a str),
    /// A reference counts within its source: two sources number their sales each by itself.
    Reference(&'a str),
    /// Nothing does: every call is a sale of its own.
    Never,
}

impl Sale {
    pub fn check(given: Given) -> Result<Self> {
        let project_code =
            code(given.project_code, "project_code", "such as P-2026-00001, or NULL for an event without a project")?;
        let event_code = code(given.event_code, "event_code", "or NULL for revenue of the project as a whole")?;
        if project_code.is_none() && event_code.is_none() {
            return Err(UsherError::invalid("neither project_code nor event_code is given")
                .hint("Give the project, the event, or both: revenue belongs to something."));
        }
        let ticket_count = given.ticket_count.ok_or_else(|| UsherError::missing("ticket_count"))?;
        if ticket_count < 0 {
            return Err(UsherError::invalid(format!("ticket_count {ticket_count} is negative"))
                .hint("A sale is taken back with usher.reverse_ticket_revenue(ingestion, reason)."));
        }
        let currency = money::currency(&given.currency.ok_or_else(|| UsherError::missing("the currency"))?)?;
        let gross_amount = money::amount(&given.gross_amount.ok_or_else(|| UsherError::missing("gross_amount"))?, &currency)?;
        let source = given.source.filter(|text| !text.trim().is_empty()).ok_or_else(|| UsherError::missing("the source"))?;
        short(&source, "the source", LONGEST_SOURCE)?;
        let payload = given.payload.unwrap_or_else(|| Value::Object(Default::default()));
        if !payload.is_object() {
            return Err(UsherError::invalid("the payload is not a JSON object")
                .hint("Give an object such as {\"reference\": \"S-1001\"}, or leave it out."));
        }
        let idempotency_key = given.idempotency_key;
        if let Some(key) = &idempotency_key {
            if key.is_empty() {
                return Err(UsherError::invalid("idempotency_key is empty").hint("Give 1 to 1000 bytes, or NULL."));
            }
            short(key, "idempotency_key", LONGEST)?;
        }
        let reference = reference(&payload)?;
        Ok(Self { project_code, event_code, ticket_count, gross_amount, currency, source, payload, idempotency_key, reference })
    }

    pub fn once(&self) -> Once<'_> {
        match (&self.idempotency_key, &self.reference) {
            (Some(key), _) => Once::Key(key),
            (None, Some(reference)) => Once::Reference(reference),
            (None, None) => Once::Never,
        }
    }

    /// The same for equal sales of an organization, in every process.
    pub fn fingerprint(&self, organization: &[u8; 16]) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self { project_code, event_code, ticket_count, gross_amount, currency, source, .. } = self;
        (organization, project_code, event_code, ticket_count, gross_amount, &currency.code, source).hash(&mut hasher);
        hasher.finish()
    }
}

fn short(text: &str, what: &str, most: usize) -> Result<()> {
    if text.len() <= most {
        return Ok(());
    }
    Err(UsherError::invalid(format!("{what} has {} bytes", text.len())).hint(format!("At most {most} are taken.")))
}

fn code(given: Option<String>, what: &str, which: &str) -> Result<Option<String>> {
    if let Some(code) = &given {
        if code.trim().is_empty() {
            return Err(UsherError::invalid(format!("{what} is empty")).hint(format!("Give a code, {which}.")));
        }
        short(code, what, LONGEST)?;
    }
    Ok(given)
}

/// A text or a number; an empty one is none.
fn reference(payload: &Value) -> Result<Option<String>> {
    let found = match payload.get("reference") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => {
            return Err(UsherError::invalid("payload.reference is neither a text nor a number")
                .hint("Give what the source calls the sale, such as {\"reference\": \"S-1001\"}, or leave it out."));
        }
    };
    short(&found, "payload.reference", LONGEST)?;
    Ok((!found.trim().is_empty()).then_some(found))
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn given() -> Given {
        Given {
            project_code: Some("P-1".into()),
            event_code: Some("E-1".into()),
            ticket_count: Some(2),
            gross_amount: Some("100".into()),
            currency: Some("usd".into()),
            source: Some("gvteway".into()),
            payload: Some(json!({})),
            idempotency_key: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Given)) -> UsherError {
        let mut given = given();
        change(&mut given);
        let error = Sale::check(given).unwrap_err();
        assert!(error.hint.is_some(), "{error}");
        error
    }

    #[test]
    fn a_sale_is_normalised() {
        let sale = Sale::check(given()).unwrap();
        assert_eq!((sale.gross_amount.as_str(), sale.currency.code.as_str()), ("100.00", "USD"));
        assert_eq!(sale.once(), Once::Never);
    }

    #[test]
    fn the_key_comes_before_the_reference() {
        let with = |key: Option<&str>, payload: Value| {
            let sale = Sale::check(Given { idempotency_key: key.map(str::to_owned), payload: Some(payload), ..given() }).unwrap();
            format!("{:?}", sale.once())
        };
        assert_eq!(with(Some("k"), json!({"reference": "r"})), "Key(\"k\")");
        assert_eq!(with(None, json!({"reference": "r"})), "Reference(\"r\")");
        assert_eq!(with(None, json!({"reference": 1001})), "Reference(\"1001\")");
        assert_eq!(with(None, json!({"reference": " "})), "Never");
        assert_eq!(with(None, json!({"reference": null})), "Never");
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused_with_its_remedy() {
        refused(|g| g.ticket_count = None);
        refused(|g| g.ticket_count = Some(-1));
        refused(|g| g.gross_amount = None);
        refused(|g| g.gross_amount = Some("NaN".into()));
        refused(|g| g.currency = None);
        refused(|g| g.currency = Some("ZZZ".into()));
        refused(|g| g.source = Some(" ".into()));
        refused(|g| g.source = Some("x".repeat(201)));
        refused(|g| g.project_code = Some(String::new()));
        refused(|g| g.event_code = Some(" ".into()));
        refused(|g| g.payload = Some(json!([1])));
        refused(|g| g.payload = Some(json!({"reference": {"a": 1}})));
        refused(|g| g.payload = Some(json!({"reference": "x".repeat(1001)})));
        refused(|g| g.idempotency_key = Some(String::new()));
        refused(|g| g.idempotency_key = Some("x".repeat(1001)));
        let neither = refused(|g| (g.project_code, g.event_code) = (None, None));
        assert!(neither.message.contains("neither"));
    }

    proptest::proptest! {
        /// Equal sales share their fingerprint; text never runs over from one field into the next.
        #[test]
        fn fields_do_not_run_together(a in "[A-C]{1,3}", b in "[A-C]{1,3}", c in "[A-C]{1,3}", d in "[A-C]{1,3}") {
            let of = |project: &str, event: &str| {
                Sale::check(Given { project_code: Some(project.into()), event_code: Some(event.into()), ..given() }).unwrap().fingerprint(&[0; 16])
            };
            proptest::prop_assert_eq!(of(&a, &b) == of(&c, &d), a == c && b == d);
        }
    }
}
