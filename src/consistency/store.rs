//! Rules as they are kept. Runs with the owner's rights.

use super::definition::Definition;
use super::fit::{self, Fitted};
use crate::error::{Result, UsherError};
use crate::flow::store::refused;
use crate::pg::guc::Nest;
use crate::pg::{locks, spi, subxact};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiTupleTable;

/// A rule by its name; what it says is read when it is needed.
#[derive(Debug, Clone)]
pub struct Rule {
    pub id: i32,
    pub name: String,
    pub run_as: Oid,
    pub enabled: bool,
    pub broken: bool,
    json: serde_json::Value,
}

impl Rule {
    pub fn definition(&self) -> Result<Definition> {
        Definition::parse(&self.json).map_err(refused).map_err(|error| self.told(error))
    }

    /// The rule on the database as it is now, or why it does not fit any more.
    pub fn fit(&self, installed: Installed) -> Result<Fitted> {
        fit::fit(installed, self.definition()?, self.run_as).map_err(|error| self.told(error))
    }

    fn told(&self, mut error: UsherError) -> UsherError {
        error.message = format!("rule \"{}\": {}", self.name, error.message);
        error
    }
}

/// Rules that `which`, a condition on `l`, means.
pub fn rules(which: &str, arguments: spi::Args<'_>) -> Result<Vec<Rule>> {
    spi::read_all(&select(which), arguments, read)
}

fn select(which: &str) -> String {
    format!(
        "SELECT l.id, l.name, l.run_as::oid, l.enabled, l.state = 'broken', l.definition FROM usher.rules AS l WHERE {which} ORDER BY l.id"
    )
}

fn read(row: &SpiTupleTable<'_>) -> Result<Rule> {
    Ok(Rule {
        id: row.get::<i32>(1)?.unwrap_or_default(),
        name: row.get::<String>(2)?.unwrap_or_default(),
        run_as: row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
        enabled: row.get::<bool>(4)? == Some(true),
        broken: row.get::<bool>(5)? == Some(true),
        json: row.get::<JsonB>(6)?.map(|json| json.0).unwrap_or_default(),
    })
}

/// A rule as it is once nobody else looks for it or changes it, until the end of the transaction; None: it was dropped meanwhile.
pub fn held(rule: &Rule) -> Result<Option<Rule>> {
    locks::look_for_rule(rule.id, true);
    // Whoever had it may have changed it: with a snapshot that is newer than the wait.
    Ok(spi::all(&select("l.id = $1"), &[spi::arg(rule.id)], read)?.into_iter().next())
}

/// The same, where there must be one.
pub fn hold(rule: &Rule) -> Result<Rule> {
    held(rule)?.ok_or_else(|| gone(&rule.name))
}

pub fn by_id(id: i32) -> Result<Option<Rule>> {
    Ok(rules("l.id = $1", &[spi::arg(id)])?.into_iter().next())
}

pub fn by_name(name: &str) -> Result<Rule> {
    rules("l.name = $1", &[spi::arg(name)])?.into_iter().next().ok_or_else(|| gone(name))
}

fn gone(name: &str) -> UsherError {
    let known = spi::read_all("SELECT l.name FROM usher.rules AS l", &[], |row| Ok(row.get::<String>(1)?.unwrap_or_default()));
    let known = known.unwrap_or_default();
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = crate::error::did_you_mean(name, &names);
    UsherError::not_found(format!("there is no rule \"{name}\""))
        .hint(format!("{near}SELECT name FROM usher.rules; shows those that there are."))
}

/// Writes down what a rule stands on.
pub fn stands_on(rule: i32, fitted: &Fitted) -> Result<()> {
    let relation = pgrx::pg_sys::RelationRelationId;
    let mut needs: Vec<(Oid, Oid, bool)> = fitted.needs.iter().map(|(class, object)| (*class, *object, false)).collect();
    for touch in &fitted.touches {
        needs.retain(|(class, object, _)| (*class, *object) != (relation, touch.table.oid));
        needs.push((relation, touch.table.oid, true));
    }
    spi::run(
        "WITH wanted AS (SELECT * FROM ROWS FROM (pg_catalog.unnest($2::oid[]), pg_catalog.unnest($3::oid[]), pg_catalog.unnest($4::boolean[])) AS u (class, object, watched)),
              gone AS (DELETE FROM usher.rule_dependencies AS d WHERE d.rule_id = $1
                          AND NOT EXISTS (SELECT FROM wanted AS w WHERE w.class = d.class AND w.object = d.object))
         INSERT INTO usher.rule_dependencies AS d (rule_id, class, object, watched) SELECT $1, w.class, w.object, w.watched FROM wanted AS w
         ON CONFLICT ON CONSTRAINT rule_dependencies_pkey DO UPDATE SET watched = EXCLUDED.watched WHERE d.watched <> EXCLUDED.watched",
        &[
            spi::arg(rule),
            spi::arg(needs.iter().map(|(class, ..)| *class).collect::<Vec<_>>()),
            spi::arg(needs.iter().map(|(_, object, _)| *object).collect::<Vec<_>>()),
            spi::arg(needs.iter().map(|(.., watched)| *watched).collect::<Vec<_>>()),
        ],
    )?;
    let definition = &fitted.definition;
    let keyed = fitted.whole.is_none();
    // At once anyway, if it is looked at after each commit.
    let every = definition.every.filter(|_| keyed && !definition.after_sync);
    spi::run(
        "UPDATE usher.rules AS l
            SET keyed = n.keyed, keys_every = n.every, keyed_now = l.keyed_now AND n.keyed, whole_because = CASE WHEN n.keyed THEN l.whole_because END,
                watch = CASE WHEN n.keyed THEN l.watch END, watched_from = CASE WHEN n.keyed THEN l.watched_from END,
                check_at = CASE WHEN l.keyed_now AND NOT n.keyed THEN pg_catalog.clock_timestamp() ELSE l.check_at END
           FROM (SELECT $2::boolean AS keyed, $3::bigint * '1 millisecond'::interval AS every) AS n
          WHERE l.id = $1 AND (l.keyed, l.keys_every) IS DISTINCT FROM (n.keyed, n.every)",
        &[spi::arg(rule), spi::arg(keyed), spi::arg(every)],
    )?;
    Ok(())
}

/// SQL for whether everything that a rule `l` is about is looked at once when it begins to be asked, though not by the clock: what it is asked about from then on
/// is what is touched.
pub const ASKED_ABOUT_KEYS: &str = "COALESCE(l.definition -> 'run' ?| '{transaction,after_sync}'::text[], false)";

/// Writes down how a rule does: None, it works, and everything is looked at, because nothing was while it did not. True when that is
/// another answer than before.
pub fn mark(rule: &Rule, reason: Option<&str>) -> Result<bool> {
    let changed = spi::one::<bool>(
        &format!(
            "UPDATE usher.rules AS l
                SET state = CASE WHEN $2 IS NULL THEN 'active' ELSE 'broken' END, reason = $2, sweep_began_at = NULL, sweep_position = NULL,
                    keyed_now = false, watch = NULL, watched_from = NULL,
                    check_at = CASE WHEN $2 IS NULL AND (l.check_at IS NOT NULL OR {ASKED_ABOUT_KEYS}) THEN pg_catalog.clock_timestamp() ELSE l.check_at END
              WHERE l.id = $1 AND l.reason IS DISTINCT FROM $2 RETURNING true"
        ),
        &[spi::arg(rule.id), spi::arg(reason)],
    )?;
    if changed == Some(true) {
        // Nobody begins a look before every session has been told.
        locks::look_for_rule(rule.id, false);
        super::attach::marked(rule.id)?;
    }
    Ok(changed == Some(true))
}

/// Milliseconds that whoever looks waits for somebody else.
pub const PATIENCE: i64 = 100;

/// Tries a rule's fit; any failure is an answer.
pub fn fitted(rule: &Rule, installed: Installed) -> std::result::Result<Fitted, subxact::Failure> {
    subxact::attempt(|| {
        let _nest = Nest::open().lock_timeout(PATIENCE);
        rule.fit(installed)
    })
}
