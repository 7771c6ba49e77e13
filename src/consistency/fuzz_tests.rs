//! Fuzz target of rules as people write them.

use super::definition::{Definition, Mend, Tell};
use crate::fuzz::{fuzz_target, seeds, values};
use serde_json::{Value, json};

/// The rule in the words that it was made of.
fn written(rule: &Definition) -> Value {
    let time = |milliseconds: i64| json!(format!("{milliseconds} ms"));
    let mut run = Vec::new();
    run.extend(rule.in_transaction.then_some("transaction"));
    run.extend(rule.after_sync.then_some("after_sync"));
    let mut all = json!({"query": rule.query, "key": rule.key, "wrong": rule.wrong, "severity": rule.severity, "run": run, "tolerance": rule.tolerance,
                         "every": rule.every.map_or(json!("never"), time)});
    if !rule.touches.is_empty() {
        all["touches"] = json!(rule.touches);
    }
    if let (Some(full), false) = (rule.full, rule.touches.is_empty()) {
        all["full"] = time(full);
    }
    if rule.grace > 0 {
        all["grace"] = time(rule.grace);
    }
    for (key, said) in [("organization", &rule.organization), ("run_as", &rule.run_as), ("description", &rule.description)] {
        if let Some(said) = said {
            all[key] = json!(said);
        }
    }
    if let Some(repair) = &rule.repair {
        let (kind, said) = match &repair.mend {
            Mend::Statement(said) => ("statement", said),
            Mend::Call(said) => ("call", said),
            Mend::Flow(said) => ("flow", said),
        };
        all["repair"] = json!({kind: said, "auto": repair.auto, "most": repair.most});
    }
    if let Some(escalate) = &rule.escalate {
        let (kind, said) = match &escalate.tell {
            Tell::Emit(said) => ("emit", said),
            Tell::Notify(said) => ("notify", said),
        };
        all["escalate"] = json!({kind: said, "after": time(escalate.after)});
    }
    all
}

fuzz_target!(rule, |bytes: &[u8]| {
    for value in values(seeds("rule"), bytes) {
        match Definition::parse(&value) {
            Ok(rule) => {
                assert!(!rule.query.trim().is_empty() && !rule.query.ends_with(';') && !rule.key.is_empty());
                assert!(rule.grace >= 0 && rule.every.is_none_or(|every| every >= 1_000));
                assert!(!(rule.in_transaction || rule.after_sync) || !rule.touches.is_empty());
                assert_eq!(Definition::parse(&written(&rule)).unwrap(), rule);
                let mut more = value.clone();
                more["no such key"] = json!(1);
                assert!(Definition::parse(&more).is_err());
            }
            Err(refusal) => assert!(!refusal.message.is_empty() && !refusal.hint.is_empty(), "{refusal:?}"),
        }
    }
});
