//! What a definition says about emitting an event. Pure.

use super::definition::{Definition, Then};
use super::event_type;
use super::fields::{Parsed, known_keys, refuse, text};
use serde_json::{Map, Value};

/// `{"emit": type}`: a constant, so that who listens can be told before anything happens.
pub fn then(object: &Map<String, Value>, event_type: &Value) -> Parsed<Then> {
    known_keys(object, &["emit"], "\"then\"")?;
    let event_type = text(event_type, "\"emit\"")?;
    event_type::check_type(&event_type)?;
    if event_type::is_reserved(&event_type) {
        return refuse(
            format!("\"{event_type}\" is a type of pg_usher's own events"),
            "Begin the type with whose it is, such as orders.paid.",
        );
    }
    Ok(Then::Emit { event_type })
}

/// Parts that have nothing to do where no row is written.
pub fn agrees(definition: &Definition) -> Parsed<()> {
    if definition.emits().is_some() && definition.link.is_some() {
        return refuse("\"link\" needs a row that is written, and an event is none", "Leave it out.");
    }
    Ok(())
}

impl Definition {
    /// The type of the event that it emits.
    pub fn emits(&self) -> Option<&str> {
        match &self.then {
            Then::Emit { event_type } => Some(event_type),
            _ => None,
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn flow(change: Value) -> Parsed<Definition> {
        let mut flow = json!({"when": {"change": "a.b"}, "then": {"emit": "orders.paid"}});
        for (key, value) in change.as_object().unwrap() {
            flow[key] = value.clone();
        }
        Definition::parse(&flow)
    }

    #[test]
    fn a_flow_of_any_kind_may_emit() {
        assert_eq!(flow(json!({"set": {"id": "new.id"}})).unwrap().emits(), Some("orders.paid"));
        for change in [
            json!({}),
            json!({"mode": "transactional"}),
            json!({"mode": "batch", "batch": {"size": 10, "window": "1s"}}),
            json!({"when": {"event": "a.*"}, "mode": "async"}),
            json!({"when": {"schedule": "0 6 * * *"}}),
            json!({"when": {"request": "pay"}, "from": "a", "to": "b"}),
        ] {
            assert!(flow(change.clone()).is_ok(), "{change}: {:?}", flow(change.clone()));
        }
    }

    #[test]
    fn what_is_no_type_or_writes_no_row_is_refused() {
        for then in [
            json!({"emit": "orders.*"}),
            json!({"emit": "Orders"}),
            json!({"emit": ""}),
            json!({"emit": 7}),
            json!({"emit": "usher.broadcast.unacknowledged"}),
            json!({"emit": "a.b", "key": ["x"]}),
        ] {
            assert!(flow(json!({ "then": then })).is_err(), "{then}");
        }
        for change in [
            json!({"link": {"kind": "a", "left": "new.id", "right": "id"}}),
            json!({"set_once": {"a": "1"}}),
            json!({"set": {"organization_id": "new.organization_id"}}),
            json!({"coalesce": true}),
        ] {
            assert!(flow(change.clone()).is_err(), "{change}");
        }
    }
}
