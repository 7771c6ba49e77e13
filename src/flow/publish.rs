//! What a definition says about messages to clients that are connected. Pure.

use super::definition::{Definition, Mode, OnError, Then};
use super::fields::{Parsed, known_keys, refuse, text};
use serde_json::{Map, Value};

/// Bytes of an organization's id and of the sign that follows it: what every topic begins with.
const PREFIX: usize = 37;
/// PostgreSQL's own: a channel's name is an identifier.
const CHANNEL: usize = 63;
/// Bytes of a whole topic of Realtime.
pub const TOPIC: usize = 255;
/// PostgreSQL's own: a notification is less than 8000 bytes.
pub const NOTIFICATION: usize = 7_999;
/// What a tenant of Realtime may send unless its settings or its plan say less.
pub const MESSAGE: usize = 3_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// `realtime.send` of Supabase Realtime, always private.
    Realtime,
    /// `pg_notify`: everybody who may connect can hear it.
    Notify,
}

impl Via {
    pub fn word(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Notify => "notify",
        }
    }
}

/// A message on the organization's own topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// What follows the organization's id.
    pub topic: String,
    /// What the message says has happened; by itself it is the change or the event's type.
    pub event: Option<String>,
    pub via: Via,
    /// The field of "set" that is the topic's last part.
    pub by: Option<String>,
}

impl Publish {
    /// Bytes that a topic may have in all.
    pub fn most_of_topic(&self) -> usize {
        if self.via == Via::Notify { CHANNEL } else { TOPIC }
    }

    /// Bytes that a message may have.
    pub fn most_of_message(&self) -> usize {
        if self.via == Via::Notify { NOTIFICATION } else { MESSAGE }
    }
}

/// `{"publish": topic, "event": …, "via": …, "by": …}`.
pub fn then(object: &Map<String, Value>, topic: &Value) -> Parsed<Then> {
    known_keys(object, &["publish", "event", "via", "by"], "\"then\"")?;
    let optional = |key: &str| object.get(key).map(|value| text(value, &format!("\"{key}\""))).transpose();
    let via = match optional("via")?.as_deref() {
        None | Some("realtime") => Via::Realtime,
        Some("notify") => Via::Notify,
        Some(other) => return refuse(format!("via \"{other}\" is unknown"), "Use \"realtime\" or \"notify\"."),
    };
    let publish = Publish { topic: text(topic, "\"publish\"")?, event: optional("event")?, via, by: optional("by")? };
    if !publish.topic.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/-".contains(c)) {
        return refuse(
            format!("\"{}\" cannot be a topic", publish.topic),
            "Use letters, digits and \"_\", \".\", \":\", \"/\", \"-\", such as orders or orders:paid; \"by\" adds a field's value.",
        );
    }
    let most = publish.most_of_topic() - PREFIX;
    if publish.topic.len() > most {
        let why = if via == Via::Notify { ", because a channel of NOTIFY has 63" } else { "" };
        return refuse(
            format!("the topic \"{}\" has {} bytes", publish.topic, publish.topic.len()),
            format!("By {} it may have {most} behind the organization's id{why}.", via.word()),
        );
    }
    if publish.event.as_ref().is_some_and(|event| event.len() > 100 || event.chars().any(char::is_control)) {
        return refuse("\"event\" is no name", "Use up to 100 bytes without line breaks, such as INSERT or order.paid.");
    }
    Ok(Then::Publish(publish))
}

/// What fits together, and what may be heard by whom.
pub fn agrees(definition: &Definition) -> Parsed<()> {
    let Some(publish) = definition.publishes() else { return Ok(()) };
    if definition.link.is_some() {
        return refuse("\"link\" needs a row that is written, and a message is none", "Leave it out.");
    }
    if let Some(by) = publish.by.as_ref().filter(|by| !definition.set.contains_key(*by) && publish.via != Via::Notify) {
        return refuse(
            format!("\"by\" names \"{by}\", which has no value"),
            format!("Add it to \"set\": \"{by}\": \"new.…\"; its value is the last part of the topic."),
        );
    }
    if definition.set.is_empty() && !definition.check.is_empty() {
        return refuse("\"check\" looks at the fields of \"set\", and there are none", "Use \"if\".");
    }
    if publish.via == Via::Realtime {
        return Ok(());
    }
    if !definition.set.is_empty() || publish.by.is_some() {
        return refuse(
            "by \"notify\" no field of \"set\" is sent",
            "Everybody who may connect to the database can hear it. Leave \"set\" and \"by\" out: the message names the row, and who hears it reads that with rights of its own; or publish by Realtime.",
        );
    }
    if definition.mode == Mode::Transactional && definition.on_error != OnError::Abort {
        return refuse(
            "a message by \"notify\" in the writer's transaction may fail its COMMIT",
            "PREPARE TRANSACTION is refused after it, and COMMIT when the server's queue of notifications is full. Use \"mode\": \"realtime\", or \"on_error\": \"abort\" if that may be.",
        );
    }
    Ok(())
}

impl Definition {
    /// The message that it sends to clients.
    pub fn publishes(&self) -> Option<&Publish> {
        match &self.then {
            Then::Publish(publish) => Some(publish),
            _ => None,
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn flow(change: Value) -> Parsed<Definition> {
        let mut flow = json!({"when": {"change": "a.b"}, "then": {"publish": "orders"}});
        for (key, value) in change.as_object().unwrap() {
            flow[key] = value.clone();
        }
        Definition::parse(&flow)
    }

    #[test]
    fn a_flow_of_any_kind_may_publish() {
        let plain = flow(json!({})).unwrap();
        let publish = plain.publishes().unwrap();
        assert_eq!(*publish, Publish { topic: "orders".to_owned(), event: None, via: Via::Realtime, by: None });
        for change in [
            json!({"mode": "transactional", "set": {"id": "new.id"}}),
            json!({"mode": "batch", "batch": {"size": 10, "window": "1s"}}),
            json!({"when": {"event": "a.*"}, "mode": "async"}),
            json!({"when": {"schedule": "0 6 * * *"}}),
            json!({"when": {"request": "pay"}, "from": "a", "to": "b"}),
            json!({"shadow": true}),
            json!({"set": {"id": "new.id"}, "check": {"positive": "id > 0"}}),
            json!({"then": {"publish": "Room:a/b-1", "event": "Paid!", "via": "realtime", "by": "id"}, "set": {"id": "new.id"}}),
            json!({"then": {"publish": "orders", "via": "notify"}, "mode": "async"}),
            json!({"then": {"publish": "orders", "via": "notify"}, "mode": "transactional", "on_error": "abort"}),
        ] {
            assert!(flow(change.clone()).is_ok(), "{change}: {:?}", flow(change.clone()));
        }
    }

    #[test]
    fn what_cannot_be_heard_as_it_says_is_refused() {
        for then in [
            json!({"publish": ""}),
            json!({"publish": 7}),
            json!({"publish": "two words"}),
            json!({"publish": "a'b"}),
            json!({"publish": "münzen"}),
            json!({"publish": "o", "via": "pg_notify"}),
            json!({"publish": "o", "via": null}),
            json!({"publish": "o", "event": ""}),
            json!({"publish": "o", "event": "a\nb"}),
            json!({"publish": "o", "event": "x".repeat(101)}),
            json!({"publish": "o", "by": "id"}),
            json!({"publish": "o", "by": ["id"]}),
            json!({"publish": "o", "private": false}),
            json!({"publish": "o", "emit": "a.b"}),
            json!({"publish": "o", "via": "notify", "by": "id"}),
        ] {
            assert!(flow(json!({ "then": then })).is_err(), "{then}");
        }
        let notify = json!({"publish": "o", "via": "notify"});
        for change in [
            json!({"link": {"kind": "a", "left": "new.id", "right": "id"}}),
            json!({"set_once": {"a": "1"}}),
            json!({"coalesce": true}),
            json!({"check": {"positive": "true"}}),
            json!({"then": notify.clone(), "set": {"id": "new.id"}}),
            json!({"then": notify, "mode": "transactional"}),
        ] {
            assert!(flow(change.clone()).is_err(), "{change}");
        }
    }

    #[test]
    fn a_topic_fits_where_it_is_sent() {
        for (via, most) in [("notify", 26), ("realtime", 218)] {
            let topic = |bytes: usize| flow(json!({"then": {"publish": "t".repeat(bytes), "via": via}}));
            assert!(topic(most).is_ok(), "{via}");
            let refusal = topic(most + 1).unwrap_err();
            assert!(refusal.hint.contains(&format!("may have {most} ")), "{refusal:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_topic_is_longer_than_its_channel(topic in "\\PC{0,80}", event in "\\PC{0,120}", notify: bool) {
            let via = if notify { "notify" } else { "realtime" };
            if let Ok(flow) = flow(json!({"then": {"publish": topic, "event": event, "via": via}})) {
                let publish = flow.publishes().unwrap();
                proptest::prop_assert!(PREFIX + publish.topic.len() <= publish.most_of_topic());
                proptest::prop_assert!(!publish.topic.contains('\''));
            }
        }
    }
}
