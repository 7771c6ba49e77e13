//! Schema changes under rules: those that do not fit any more, and those that fit again.

use super::keyed;
use super::store::{self, Rule};
use crate::error::Result;
use crate::pg::{spi, xact};
use crate::setup::Installed;
use pgrx::pg_sys::Oid;

/// There is something to look after. Runs with the owner's rights.
pub fn any() -> Result<bool> {
    Ok(spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.rules)", &[])? == Some(true))
}

/// What has become of a rule.
pub struct Finding {
    pub rule: String,
    /// Why it is broken; None: it works again.
    pub reason: Option<String>,
}

/// Rules that stand on one of the objects, and those that are broken: whatever has changed may be what they wait for. None: all of
/// them. Runs with the owner's rights.
pub fn touched(changed: Option<(&[Oid], &[Oid])>) -> Result<Vec<Rule>> {
    match changed {
        None => store::rules("true", &[]),
        Some((classes, objects)) => store::rules(
            "l.state = 'broken' OR l.id IN (SELECT d.rule_id FROM usher.rule_dependencies AS d
                                             JOIN ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) AS t (class, object) ON d.object = t.object AND d.class = t.class)",
            &[spi::arg(classes.to_vec()), spi::arg(objects.to_vec())],
        ),
    }
}

impl Finding {
    pub fn line(&self) -> String {
        match &self.reason {
            Some(reason) => format!("rule \"{}\" is broken: {reason}", self.rule),
            None => format!("rule \"{}\" fits the database again", self.rule),
        }
    }
}

/// Rules that are broken, and those about which nothing is written down (after a restore): rights and roles change without an event.
pub fn unsettled() -> Result<Vec<Rule>> {
    store::rules(
        "l.state = 'broken' OR NOT EXISTS (SELECT FROM usher.rule_dependencies AS d JOIN pg_catalog.pg_class AS c ON d.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.object WHERE d.rule_id = l.id)",
        &[],
    )
}

/// The same after a change of what they stand on: whoever has written meanwhile may not have noted what that concerns.
pub fn look_again_after(installed: Installed, rules: &[Rule]) -> Result<Vec<Finding>> {
    keyed::anew(&rules.iter().map(|rule| rule.id).collect::<Vec<_>>())?;
    look_again(installed, rules)
}

pub use super::keyed::look_around;

/// Puts rules on the database as it is now. Runs with the owner's rights.
pub fn look_again(installed: Installed, rules: &[Rule]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for rule in rules {
        let reason = match store::fitted(rule, installed) {
            Ok(fitted) => {
                store::stands_on(rule.id, &fitted)?;
                None
            }
            Err(failure) if failure.tells_about_the_rule() => Some(failure.line()),
            // Somebody holds a lock, or the like: that says nothing about the rule.
            Err(_) => continue,
        };
        if store::mark(rule, reason.as_deref())? && (reason.is_none() || !rule.broken) {
            findings.push(Finding { rule: rule.name.clone(), reason });
        }
    }
    if findings.iter().any(|found| found.reason.is_none()) {
        xact::note_overlaps();
    }
    Ok(findings)
}
