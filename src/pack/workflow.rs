//! The file of a workflow: which flows and overlap rules it is made of.

use super::Pack;
use crate::error::{Result, UsherError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    /// Its number in the list of workflows, such as W3.
    pub workflow: String,
    pub title: String,
    #[serde(default)]
    pub flows: BTreeMap<String, Value>,
    #[serde(default)]
    pub overlap_rules: BTreeMap<String, Value>,
}

/// The parts of all workflows of a pack.
pub fn all(pack: &Pack) -> Result<Vec<Parts>> {
    let read = |text: &str| -> Result<Parts> {
        serde_json::from_str(text)
            .map_err(|error| UsherError::internal(format!("a workflow of pack {} is malformed: {error}", pack.name)))
    };
    pack.workflows.iter().map(|workflow| read(workflow.definition)).collect()
}

#[cfg(test)]
mod unit {
    use super::super::PACKS;
    use super::all;
    use std::collections::HashSet;

    #[test]
    fn every_part_is_the_packs_and_stands_in_one_file() {
        for pack in PACKS {
            let (prefix, mut names, mut numbers) = (format!("{}.", pack.name), HashSet::new(), HashSet::new());
            for parts in all(pack).unwrap() {
                assert!(
                    !parts.flows.is_empty() || !parts.overlap_rules.is_empty(),
                    "{}: {} is empty",
                    parts.workflow,
                    parts.title
                );
                assert!(numbers.insert(parts.workflow.clone()), "{} has two files", parts.workflow);
                for name in parts.flows.keys().chain(parts.overlap_rules.keys()) {
                    assert!(name.starts_with(&prefix) && names.insert(name.clone()), "{name}");
                }
                for (name, flow) in &parts.flows {
                    let said = flow["description"].as_str().unwrap_or_default();
                    assert!(
                        !said.is_empty() && flow.get("run_as").is_none(),
                        "{name} says what it does, and runs as the pack's role"
                    );
                }
            }
        }
    }
}
