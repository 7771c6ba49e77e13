//! Fuzz target of overlap rules as people write them.

use super::definition::{Definition, Period};
use crate::fuzz::{fuzz_target, seeds, values};
use serde_json::{Value, json};

/// The rule in the words that it was made of.
fn written(rule: &Definition) -> Value {
    let period = match &rule.period {
        Period::Range(column) => json!(column),
        Period::Between(from, to) => json!([from, to]),
    };
    let mut all = json!({"table": rule.table, "resource": rule.resource, "period": period, "severity": rule.severity, "refuse": rule.refuse,
                         "sweep": rule.sweep.map_or(json!(false), |seconds| json!(format!("{seconds} s")))});
    if let Some(condition) = &rule.condition {
        all["where"] = json!(condition);
    }
    if let Some(seconds) = rule.escalate_after {
        all["escalate_after"] = json!(seconds);
    }
    if let Some(free) = &rule.alternatives {
        all["alternatives"] = json!({"table": free.table, "key": free.key, "same": free.same, "most": free.most});
        if let Some(condition) = &free.condition {
            all["alternatives"]["where"] = json!(condition);
        }
    }
    all
}

fuzz_target!(overlap, |bytes: &[u8]| {
    for value in values(seeds("overlap"), bytes) {
        match Definition::parse(&value) {
            Ok(rule) => {
                assert!(!rule.table.trim().is_empty() && !rule.resource.is_empty());
                assert!([rule.sweep, rule.escalate_after].into_iter().flatten().all(|seconds| seconds >= 1));
                assert_eq!(Definition::parse(&written(&rule)).unwrap(), rule);
                let mut more = value.clone();
                more["no such key"] = json!(1);
                assert!(Definition::parse(&more).is_err());
            }
            Err(refusal) => assert!(!refusal.message.is_empty() && !refusal.hint.is_empty(), "{refusal:?}"),
        }
    }
});
