//! What definitions are accepted and refused.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn invoice() -> Value {
    json!({
        "when": {"change": "public.orders", "on": ["insert", "update"]},
        "then": {"insert": "books.invoices", "key": ["order_id"], "on_conflict": "keep"},
        "set": {"order_id": "new.id", "amount": "new.total"}
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut definition = invoice();
    definition[path] = value;
    definition
}

#[test]
fn the_example_is_understood() {
    let definition = Definition::parse(&invoice()).unwrap();
    assert_eq!((definition.mode, definition.lane, definition.lock_timeout), (Mode::Realtime, 3, 2_000));
    assert_eq!(definition.then.key(), ["order_id"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let refusal = Definition::parse(&with("priorty", json!("high"))).unwrap_err();
    assert!(refusal.message.contains("priorty") && refusal.hint.contains("\"priority\""), "{refusal:?}");
}

#[test]
fn kinds_that_are_not_there_yet_say_so() {
    for (path, value) in [("then", json!({"send": "x"})), ("when", json!({"webhook": "x"})), ("then", json!({"notify": "x"}))] {
        assert!(Definition::parse(&with(path, value.clone())).unwrap_err().unsupported, "{value}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (path, value) in [
        ("on_error", json!("abort")),
        ("set_once", json!({"created": "now()"})),
        ("set", json!({"amount": "1"})),
        ("set", json!({"order_id": "new.id", "organization_id": "new.x"})),
        ("when", json!({"request": "pay"})),
        ("when", json!({"change": "public.orders", "on": []})),
        ("lock_timeout", json!("soon")),
        ("priority", json!("urgent")),
        ("shadow", json!("yes")),
        ("shadow", json!(1)),
        ("shadow", json!(null)),
    ] {
        assert!(Definition::parse(&with(path, value.clone())).is_err(), "{path}: {value}");
    }
}

#[test]
fn an_async_flow_takes_the_low_lane_unless_told() {
    assert_eq!(Definition::parse(&with("mode", json!("async"))).unwrap().lane, 4);
    let mut told = with("mode", json!("async"));
    told["priority"] = json!("medium");
    assert_eq!(Definition::parse(&told).unwrap().lane, 3);
}

#[test]
fn a_flow_in_shadow_never_works_in_the_writer() {
    let mut definition = with("mode", json!("transactional"));
    assert!(Definition::parse(&definition).unwrap().in_writer());
    definition["shadow"] = json!(true);
    assert!(!Definition::parse(&definition).unwrap().in_writer());
    definition["shadow"] = json!(false);
    assert!(Definition::parse(&definition).unwrap().in_writer());
    assert!(!Definition::parse(&with("shadow", json!(true))).unwrap().in_writer());
}

proptest! {
    #[test]
    fn no_definition_makes_it_panic(key in "[a-z_]{1,12}", text in "\\PC{0,20}", number in any::<i64>()) {
        for value in [json!(text), json!(number), json!([text]), json!({ key.as_str(): text }), json!(null)] {
            for path in ["when", "then", "set", "check", "link", "retry", "join", "mode", key.as_str()] {
                let _ = Definition::parse(&with(path, value.clone()));
            }
        }
    }
}
