//! When the jobs of a flow run: its mode, and of mode `batch`, in which jobs gather until there are enough of them or the first has
//! waited long enough, the rest. Pure.

use super::definition::{Definition, Mode, Then};
use super::fields::{Parsed, known_keys, object, refuse, seconds};
use crate::error::did_you_mean;
use serde_json::{Map, Value};

/// Jobs of one batch.
const MOST: i64 = 10_000;
const DAY: f64 = 86_400.0;

/// When the jobs of a flow that were gathered for an organization run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gather {
    /// As soon as there are so many; no batch is larger.
    pub size: i32,
    /// When the oldest is so many seconds old.
    pub window: f64,
}

const REMEDY: &str =
    "Write \"batch\": {\"size\": 500, \"window\": \"5 s\"}: a batch runs when 500 jobs are there, or the first is 5 seconds old.";

/// `"mode"`.
pub fn mode(word: Option<&str>) -> Parsed<Mode> {
    match word {
        None | Some("realtime") => Ok(Mode::Realtime),
        Some("transactional") => Ok(Mode::Transactional),
        Some("async") => Ok(Mode::Async),
        Some("batch") => Ok(Mode::Batch),
        Some(other) => {
            let near = did_you_mean(other, &["transactional", "realtime", "async", "batch"]);
            refuse(format!("mode \"{other}\" is unknown"), format!("{near}Use transactional, realtime, async or batch."))
        }
    }
}

/// `"batch"` of a definition whose mode is known.
pub fn parse(top: &Map<String, Value>, mode: Mode) -> Parsed<Option<Gather>> {
    match (top.get("batch"), mode) {
        (None, Mode::Batch) => refuse("\"mode\": \"batch\" lacks \"batch\"", REMEDY),
        (None, _) => Ok(None),
        (Some(value), Mode::Batch) => gather(value).map(Some),
        (Some(_), _) => refuse("\"batch\" belongs to \"mode\": \"batch\"", "Add \"mode\": \"batch\", or leave out \"batch\"."),
    }
}

fn gather(value: &Value) -> Parsed<Gather> {
    let object = object(value, "\"batch\"")?;
    known_keys(object, &["size", "window"], "\"batch\"")?;
    let size = match object.get("size").map(Value::as_i64) {
        None => return refuse("\"batch\" lacks \"size\"", REMEDY),
        Some(Some(size @ 1..=MOST)) => i32::try_from(size).unwrap_or(1),
        Some(_) => {
            return refuse("\"size\" in \"batch\" is not a number of jobs", format!("Give a whole number from 1 to {MOST}."));
        }
    };
    let window = match object.get("window").map(|window| seconds(window, 1.0)) {
        None => return refuse("\"batch\" lacks \"window\"", REMEDY),
        Some(Some(window)) if (1.0..=DAY).contains(&window) => window,
        Some(_) => {
            return refuse(
                "\"window\" in \"batch\" is not a time between a second and a day",
                "Write seconds, such as 30, or a text such as \"5 s\", \"2 min\" or \"1 h\".",
            );
        }
    };
    Ok(Gather { size, window })
}

/// What fits together with calls.
pub fn agrees(definition: &Definition) -> Parsed<()> {
    let Then::Call { external, keep_result, per_batch, .. } = &definition.then else { return Ok(()) };
    if definition.mode == Mode::Batch && *external {
        return refuse(
            "a call with \"effect\": \"external\" cannot gather",
            "What leaves the database is called once for each job, under its lease; use \"mode\": \"async\", or let the function write to a table.",
        );
    }
    if *per_batch && definition.mode == Mode::Transactional {
        return refuse(
            "\"per\": \"batch\" does not go with \"mode\": \"transactional\"",
            "Such a flow has no batches; leave out \"per\", or use another mode.",
        );
    }
    if *per_batch && *external {
        return refuse(
            "\"per\": \"batch\" does not go with \"effect\": \"external\"",
            "What leaves the database is called once for each job, under its lease; leave out \"per\".",
        );
    }
    if *per_batch && *keep_result {
        return refuse("\"keep_result\" belongs to calls for single jobs", "Leave out \"keep_result\" or \"per\".");
    }
    Ok(())
}

impl Definition {
    /// Its function is called once for a whole batch.
    pub fn calls_per_batch(&self) -> bool {
        matches!(self.then, Then::Call { per_batch: true, .. })
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn flow(change: Value) -> Parsed<Definition> {
        let mut flow =
            json!({"when": {"change": "a.b"}, "then": {"call": "a.f"}, "mode": "batch", "batch": {"size": 500, "window": "5 s"}});
        for (key, value) in change.as_object().unwrap() {
            flow[key] = value.clone();
        }
        Definition::parse(&flow)
    }

    #[test]
    fn a_batch_has_a_size_and_a_window() {
        let plain = flow(json!({})).unwrap();
        assert_eq!((plain.batch, plain.lane), (Some(Gather { size: 500, window: 5.0 }), 4));
        for (window, wanted) in
            [(json!(1), 1.0), (json!("2 min"), 120.0), (json!("1h"), 3600.0), (json!("1 d"), DAY), (json!("1500ms"), 1.5)]
        {
            assert_eq!(flow(json!({"batch": {"size": 1, "window": window}})).unwrap().batch.unwrap().window, wanted);
        }
        for batch in [
            json!({"size": 0, "window": 5}),
            json!({"size": 10_001, "window": 5}),
            json!({"size": 1.5, "window": 5}),
            json!({"size": "5", "window": 5}),
            json!({"size": 5, "window": 0.5}),
            json!({"size": 5, "window": "25 h"}),
            json!({"size": 5, "window": "soon"}),
            json!({"size": 5, "window": null}),
            json!({"size": 5}),
            json!({"window": 5}),
            json!({"size": 5, "window": 5, "wait": 1}),
            json!(5),
        ] {
            assert!(!flow(json!({ "batch": batch })).unwrap_err().hint.is_empty(), "{batch}");
        }
    }

    #[test]
    fn it_goes_with_its_mode_and_with_calls_that_can_be_undone() {
        assert!(flow(json!({"mode": "async"})).unwrap_err().message.contains("belongs to"));
        assert!(Definition::parse(&json!({"when": {"change": "a.b"}, "then": {"call": "a.f"}, "mode": "batch"})).is_err());
        assert!(flow(json!({"then": {"call": "a.f", "effect": "external"}})).unwrap_err().message.contains("external"));
        assert!(flow(json!({"then": {"call": "a.f", "per": "batch"}})).unwrap().calls_per_batch());
        assert!(flow(json!({"then": {"call": "a.f", "per": "row"}})).is_err());
        assert!(flow(json!({"then": {"call": "a.f", "per": "batch", "keep_result": true}})).is_err());
        // Whatever a worker has at hand is a batch, too.
        assert!(
            Definition::parse(&json!({"when": {"change": "a.b"}, "then": {"call": "a.f", "per": "batch"}}))
                .unwrap()
                .calls_per_batch()
        );
        assert!(
            Definition::parse(
                &json!({"when": {"change": "a.b"}, "then": {"call": "a.f", "per": "batch"}, "mode": "transactional"})
            )
            .is_err()
        );
        assert!(
            Definition::parse(&json!({"when": {"change": "a.b"}, "then": {"call": "a.f", "per": "batch", "effect": "external"}}))
                .is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn a_window_never_panics_and_stays_in_range(text in "\\PC{0,12}", size in proptest::num::i64::ANY) {
            if let Ok(Some(gather)) = flow(json!({"batch": {"size": size, "window": text}})).map(|flow| flow.batch) {
                proptest::prop_assert!((1.0..=DAY).contains(&gather.window) && (1..=10_000).contains(&gather.size));
            }
        }
    }
}
