//! What a definition says about calls, and about how long an effect may take. Pure.

use super::definition::{Definition, Mode, Then};
use super::fields::{Parsed, known_keys, refuse, text};
use serde_json::{Map, Value};
use std::time::Duration;

/// Milliseconds that a call may take whose work leaves the database, if its flow says nothing else.
const EXTERNAL_LIMIT: i64 = 60_000;
/// An hour.
const LONGEST: f64 = 3_600.0;

/// `{"call": function, "effect": …, "keep_result": …, "per": …}`.
pub fn then(object: &Map<String, Value>, function: &Value) -> Parsed<Then> {
    known_keys(object, &["call", "effect", "keep_result", "per"], "\"then\"")?;
    let external = match object.get("effect").map(|effect| text(effect, "\"effect\"")).transpose()?.as_deref() {
        None | Some("sql") => false,
        Some("external") => true,
        Some(other) => return refuse(format!("effect \"{other}\" is unknown"), "Use \"sql\" or \"external\"."),
    };
    let keep_result = match object.get("keep_result") {
        None => false,
        Some(Value::Bool(keep)) => *keep,
        Some(_) => return refuse("\"keep_result\" is neither true nor false", "Write \"keep_result\": true, without quotes."),
    };
    let per_batch = match object.get("per").map(|per| text(per, "\"per\"")).transpose()?.as_deref() {
        None | Some("job") => false,
        Some("batch") => true,
        Some(other) => return refuse(format!("per \"{other}\" is unknown"), "Use \"job\" or \"batch\"."),
    };
    Ok(Then::Call { function: text(function, "\"call\"")?, external, keep_result, per_batch })
}

/// Milliseconds of `"500ms"`, `"30s"`, `"2min"` or a plain number of seconds.
pub fn timeout(value: &Value) -> Parsed<i64> {
    let seconds = super::fields::seconds(value, 1.0);
    match seconds {
        Some(seconds) if (0.001..=LONGEST).contains(&seconds) => Ok((seconds * 1_000.0).round() as i64),
        _ => refuse(
            "\"timeout\" is not a duration",
            "Write seconds, such as 30, or a text such as \"500ms\" or \"2min\", between 1ms and 1h.",
        ),
    }
}

/// A call that leaves the database cannot be undone, so it fits nowhere where something might be.
pub fn agrees(definition: &Definition) -> Parsed<()> {
    if !definition.is_external() {
        return Ok(());
    }
    if definition.mode == Mode::Transactional {
        return refuse(
            "a call with \"effect\": \"external\" cannot be transactional",
            "What leaves the database does not wait for the writer's COMMIT; use \"mode\": \"realtime\".",
        );
    }
    if definition.shadow {
        return refuse(
            "a call with \"effect\": \"external\" cannot be in shadow",
            "A flow in shadow is undone, and what has left the database cannot be; usher.preview_flow() shows the call.",
        );
    }
    Ok(())
}

impl Definition {
    /// Its work leaves the database: one job at a time, under a lease, outside of any batch.
    pub fn is_external(&self) -> bool {
        matches!(self.then, Then::Call { external: true, .. })
    }

    pub fn keeps_result(&self) -> bool {
        matches!(self.then, Then::Call { keep_result: true, .. } | Then::Steps(_) | Then::Collect(_))
    }

    /// How long its effect may take.
    pub fn limit(&self) -> Option<Duration> {
        let milliseconds = self.timeout.or(self.is_external().then_some(EXTERNAL_LIMIT))?;
        Some(Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)))
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn flow(change: Value) -> Parsed<Definition> {
        let mut flow = json!({"when": {"change": "a.b"}, "then": {"call": "a.f", "effect": "external"}});
        for (key, value) in change.as_object().unwrap() {
            flow[key] = value.clone();
        }
        Definition::parse(&flow)
    }

    #[test]
    fn an_external_call_has_a_limit_of_its_own() {
        let plain = flow(json!({})).unwrap();
        assert!(plain.is_external() && !plain.keeps_result());
        assert_eq!(plain.limit(), Some(Duration::from_secs(60)));
        assert_eq!(flow(json!({"timeout": 2})).unwrap().limit(), Some(Duration::from_secs(2)));
        assert_eq!(flow(json!({"then": {"call": "a.f"}})).unwrap().limit(), None);
        assert!(flow(json!({"then": {"call": "a.f", "keep_result": true}})).unwrap().keeps_result());
    }

    #[test]
    fn what_cannot_be_undone_is_neither_transactional_nor_in_shadow() {
        for change in [json!({"mode": "transactional"}), json!({"shadow": true})] {
            assert!(flow(change).unwrap_err().message.contains("external"));
        }
        for then in [json!({"call": "a.f", "effect": "outside"}), json!({"call": "a.f", "keep_result": "yes"})] {
            assert!(flow(json!({ "then": then })).is_err());
        }
    }

    #[test]
    fn a_timeout_is_seconds_or_has_its_unit() {
        for (value, milliseconds) in
            [(json!(2), 2_000), (json!(0.25), 250), (json!("500ms"), 500), (json!("30 s"), 30_000), (json!("1h"), 3_600_000)]
        {
            assert_eq!(timeout(&value).unwrap(), milliseconds, "{value}");
        }
        for value in
            [json!(0), json!(-1), json!("soon"), json!("2h"), json!(""), json!(null), json!(3601), json!("NaN"), json!("inf")]
        {
            assert!(timeout(&value).is_err(), "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_timeout_never_panics_and_stays_in_range(text in "\\PC{0,12}") {
            if let Ok(milliseconds) = timeout(&json!(text)) {
                proptest::prop_assert!((1..=3_600_000).contains(&milliseconds));
            }
        }
    }
}
