//! What must hold of a pack's rows: its rules, made when it is installed, brought in line when it is installed anew, dropped with it.

use super::Pack;
use super::adopt::parse::Bind;
use crate::consistency;
use crate::error::{Result, UsherError};
use crate::setup::Installed;
use serde_json::Value;
use std::collections::BTreeMap;

/// What has become of a pack's rules.
#[derive(Default)]
pub struct Done {
    pub made: usize,
    pub changed: usize,
    /// Rules that cannot be, each with why.
    pub left_out: Vec<(String, String)>,
}

/// The rules of a pack by their whole names: those of its manifest, and those that have files.
fn all(pack: &Pack, manifest: &Value) -> Result<BTreeMap<String, Value>> {
    let whole = |name: &str| format!("{}.{name}", pack.name);
    let said = manifest["rules"].as_object().into_iter().flatten();
    let mut rules: BTreeMap<String, Value> = said.map(|(name, rule)| (whole(name), rule.clone())).collect();
    for (name, text) in pack.rules {
        let rule = serde_json::from_str(text)
            .map_err(|error| UsherError::internal(format!("rule {name} of pack {} is malformed: {error}", pack.name)))?;
        rules.insert(whole(name), rule);
    }
    Ok(rules)
}

/// The table of the pack that a rule is about and that is the application's now, or not there. A query is the pack's own text, and is not put
/// into other words.
fn elsewhere<'a>(rule: &Value, bind: &'a Bind) -> Option<&'a str> {
    let text = format!("{} {}", rule["query"].as_str().unwrap_or_default(), rule["touches"]);
    let names = |table: &str| {
        text.match_indices(table).any(|(at, _)| {
            let part = |c: char| c.is_alphanumeric() || c == '_';
            !text[..at].chars().next_back().is_some_and(part) && !text[at + table.len()..].chars().next().is_some_and(part)
        })
    };
    bind.tables.keys().map(String::as_str).find(|table| names(table))
}

/// Makes, changes and drops rules until they are those of the pack.
pub fn bring_in_line(installed: Installed, pack: &Pack, manifest: &Value, role: &str, bind: &Bind) -> Result<Done> {
    let mut done = Done::default();
    if !installed.up_to_date {
        return Ok(done);
    }
    let mut wanted = all(pack, manifest)?;
    wanted.retain(|name, rule| match elsewhere(rule, bind) {
        None => true,
        Some(table) => {
            done.left_out.push((
                name.clone(),
                format!("it is about {table}, which is bound: write a rule of your own over the application's table"),
            ));
            false
        }
    });
    for name in consistency::rules_of(installed, pack.name)? {
        if !wanted.contains_key(&name) {
            consistency::drop_rule(installed, &name)?;
        }
    }
    for (name, mut rule) in wanted {
        rule["run_as"] = Value::String(role.to_owned());
        match consistency::rule_definition(installed, &name)? {
            None => {
                consistency::create_rule(installed, &name, Some(pack.name), rule)?;
                done.made += 1;
            }
            Some(existing) if existing != rule => {
                consistency::alter_rule(installed, &name, rule)?;
                done.changed += 1;
            }
            Some(_) => {}
        }
    }
    Ok(done)
}

/// Drops the rules of a pack.
pub fn remove(installed: Installed, pack: &Pack) -> Result<()> {
    consistency::rules_of(installed, pack.name)?.iter().try_for_each(|name| consistency::drop_rule(installed, name).map(|_| ()))
}

#[cfg(test)]
mod unit {
    use super::super::PACKS;
    use super::all;

    #[test]
    fn every_rule_says_what_it_is_and_runs_as_the_packs_role() {
        for pack in PACKS {
            let manifest = serde_json::from_str(pack.manifest).unwrap();
            for (name, rule) in all(pack, &manifest).unwrap() {
                let said = rule["description"].as_str().unwrap_or_default();
                assert!(!said.is_empty() && rule.get("run_as").is_none(), "{name}");
                assert!(crate::consistency::is_well_formed(&rule), "{name}");
            }
        }
    }
}
