//! Rules as they are kept. Runs with the owner's rights.

use super::definition::Definition;
use super::fit::{self, Fitted};
use crate::error::{Result, UsherError};
use crate::flow::store::refused;
use crate::pg::guc::Nest;
use crate::pg::{catalog, locks, spi, subxact, xact};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;

/// A rule by its name; what it says is read when it is needed.
#[derive(Debug, Clone)]
pub struct Rule {
    pub id: i32,
    pub name: String,
    pub relation: Oid,
    json: serde_json::Value,
}

impl Rule {
    pub fn definition(&self) -> Result<Definition> {
        Definition::parse(&self.json).map_err(refused).map_err(|error| self.told(error))
    }

    /// The rule on its tables as they are now, or why it does not fit them any more. Until the (sub)transaction ends they stay so:
    /// what was looked at is what the statement meets.
    pub fn fit(&self, installed: Installed) -> Result<Fitted> {
        locks::keep(self.relation);
        let mut kept = None;
        loop {
            let fitted = fit::fit(installed, self.definition()?, Some(self.relation)).map_err(|error| self.told(error))?;
            let other = fitted.free.as_ref().map(|free| free.table.oid);
            if other == kept || other == Some(self.relation) {
                return Ok(fitted);
            }
            // Known by its name: looked at again now that nobody changes it any more.
            other.into_iter().for_each(locks::keep);
            kept = other;
        }
    }

    fn told(&self, mut error: UsherError) -> UsherError {
        error.message = format!("overlap rule \"{}\": {}", self.name, error.message);
        error
    }
}

/// Rules that `which`, a condition on `l`, means.
pub fn rules(which: &str, arguments: spi::Args<'_>) -> Result<Vec<Rule>> {
    spi::read_all(
        &format!("SELECT l.id, l.name, l.relation::oid, l.definition FROM usher.overlap_rules AS l WHERE {which} ORDER BY l.id"),
        arguments,
        |row| {
            Ok(Rule {
                id: row.get::<i32>(1)?.unwrap_or_default(),
                name: row.get::<String>(2)?.unwrap_or_default(),
                relation: row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
                json: row.get::<JsonB>(4)?.map(|json| json.0).unwrap_or_default(),
            })
        },
    )
}

pub fn by_id(id: i32) -> Result<Option<Rule>> {
    Ok(rules("l.id = $1", &[spi::arg(id)])?.into_iter().next())
}

pub fn by_name(name: &str) -> Result<Rule> {
    rules("l.name = $1", &[spi::arg(name)])?.into_iter().next().ok_or_else(|| {
        let known = spi::read_all("SELECT l.name FROM usher.overlap_rules AS l", &[], |row| {
            Ok(row.get::<String>(1)?.unwrap_or_default())
        });
        let known = known.unwrap_or_default();
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let near = crate::error::did_you_mean(name, &names);
        UsherError::not_found(format!("there is no overlap rule \"{name}\""))
            .hint(format!("{near}SELECT name FROM usher.overlap_rules; shows those that there are."))
    })
}

/// Writes down how a rule does: None, it works. What was written while it did not is found by looking at everything, and sessions that
/// have given it up work out anew what its triggers do.
pub fn mark(rule: &Rule, reason: Option<&str>) -> Result<()> {
    let changed = spi::one::<bool>(
        "UPDATE usher.overlap_rules AS l
            SET state = CASE WHEN $2 IS NULL THEN 'active' ELSE 'broken' END, reason = $2,
                sweep_at = CASE WHEN $2 IS NULL THEN pg_catalog.clock_timestamp() ELSE l.sweep_at END
          WHERE l.id = $1 AND l.reason IS DISTINCT FROM $2 RETURNING true",
        &[spi::arg(rule.id), spi::arg(reason)],
    )?;
    if changed == Some(true) && reason.is_none() {
        catalog::invalidate(rule.relation);
        xact::note_overlaps();
    }
    Ok(())
}

/// Milliseconds that a writer, or whoever looks, waits for somebody else.
pub const PATIENCE: i64 = 100;

/// Tries a rule's fit; any failure is an answer.
pub fn fitted(rule: &Rule, installed: Installed) -> std::result::Result<Fitted, subxact::Failure> {
    subxact::attempt(|| {
        let _nest = Nest::open().lock_timeout(PATIENCE);
        rule.fit(installed)
    })
}
