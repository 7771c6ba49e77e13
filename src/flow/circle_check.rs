//! What is said about a flow that is new beside the others: that it goes in a circle, or that it listens to silence.

use super::circle::{self, Place, Step};
use super::definition::{Definition, When};
use super::family::OF;
use super::store;
use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const CODE: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_WARNING;

fn warn(warning: UsherError) {
    ErrorReport::from(warning).report(PgLogLevel::WARNING);
}

/// Enabled flows each of whose jobs starts another one if anything does: they emit, or add a row that no key could make the same as one that
/// is there, or a merge makes one; and they begin with an event, or with a new row.
const STEPS: &str = "
SELECT f.name, f.definition ? 'if' OR f.definition ? 'check' OR f.definition -> 'then' ? 'match', v.compiled ->> 'source', f.definition -> 'when' ->> 'event', v.compiled ->> 'target', f.definition -> 'then' ->> 'emit',
       CASE WHEN f.definition -> 'then' ? 'merge' THEN pg_catalog.split_part(f.name, ':', 1) END
  FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
 WHERE f.enabled AND f.definition -> 'shadow' IS DISTINCT FROM 'true'
   AND (f.definition -> 'then' ? 'emit' OR f.definition -> 'then' ? 'insert' AND NOT f.definition -> 'then' ? 'key'
        OR f.definition -> 'then' ? 'merge' AND COALESCE(f.definition -> 'then' ->> 'creates', 'both') IN ('both', CASE WHEN f.definition -> 'then' ? 'side' THEN 'left' ELSE 'right' END))
   AND (f.definition -> 'when' ? 'event' OR f.definition -> 'when' ? 'change' AND COALESCE(f.definition #> '{when,on}' ? 'insert', true))";

fn steps(which: &str, arguments: spi::Args<'_>) -> Result<Vec<Step>> {
    spi::read_all(&format!("{STEPS} AND {which} ORDER BY f.name"), arguments, |row| {
        let (source, target) = store::ends(row, 3)?;
        Ok(Step {
            name: row.get::<String>(1)?.unwrap_or_default(),
            source,
            target,
            may_end: row.get::<bool>(2)?.unwrap_or(false),
            pair: row.get::<String>(7)?,
        })
    })
}

/// True when some flow may go on from this one: found by an index, so that the many flows that lead nowhere cost each other nothing.
fn leads_on(step: &Step) -> Result<bool> {
    let found = match &step.target {
        Place::Table(table) => spi::read::<bool>(
            &format!(
                "SELECT true FROM ({STEPS} AND v.compiled ->> 'source' IS NOT NULL AND v.compiled ->> 'source' = $1) AS s LIMIT 1"
            ),
            &[spi::arg(table.as_str())],
        )?,
        Place::Type(_) => {
            spi::read::<bool>(&format!("SELECT true FROM ({STEPS} AND f.definition -> 'when' ? 'event') AS s LIMIT 1"), &[])?
        }
        _ => None,
    };
    Ok(found == Some(true))
}

/// Refuses a flow that closes a circle which nothing ends, and warns of one that an `"if"` may end. The flow is there already. Runs with the owner's
/// rights.
pub fn new(name: &str) -> Result<()> {
    let own = steps(OF, &[spi::arg(name)])?;
    if !own.iter().map(leads_on).collect::<Result<Vec<_>>>()?.contains(&true) {
        return Ok(());
    }
    let steps = steps("true", &[])?;
    let Some(found) = own.iter().find_map(|step| circle::through(&steps, &step.name)) else { return Ok(()) };
    let way = found.names.join(" -> ");
    if !found.certain {
        let hint = "See that an \"if\" or a check on this way ends it; else each chain ends after 8 hops, in the dead letters.";
        warn(UsherError::new(CODE, format!("flow \"{name}\" may start itself again: {way}")).hint(hint));
        return Ok(());
    }
    Err(UsherError::definition(format!("flow \"{name}\" would start itself again, without an end: {way}"))
        .detail("Each event, or new row, would cause the next; every chain would end in the dead letters, after 8 hops.")
        .hint("Let it emit another type or listen to fewer, or give one of these flows an \"if\" that ends the chain."))
}

/// Types that flows emit, and those of the last week's events: from each type the next one is found by the index.
const TYPES: &str = "
WITH RECURSIVE seen AS (
    (SELECT e.organization_id, e.type FROM usher.events e WHERE e.emitted_at > pg_catalog.now() - interval '7 days' ORDER BY 1, 2 LIMIT 1)
    UNION ALL
    SELECT n.* FROM seen CROSS JOIN LATERAL (
        SELECT e.organization_id, e.type FROM usher.events e
         WHERE (e.organization_id, e.type) > (seen.organization_id, seen.type) AND e.emitted_at > pg_catalog.now() - interval '7 days'
         ORDER BY 1, 2 LIMIT 1) AS n)
SELECT DISTINCT t.type
  FROM (SELECT s.type FROM (SELECT seen.type FROM seen LIMIT 1000) AS s
        UNION ALL SELECT f.definition -> 'then' ->> 'emit' FROM usher.flows f WHERE f.definition -> 'then' ? 'emit') AS t
 ORDER BY 1";

/// Warns of a flow that listens to what nobody emits: a type that is misspelt is silent otherwise. Runs with the owner's rights.
pub fn warn_of_silence(installed: Installed, definition: &Definition) -> Result<()> {
    let When::Event(pattern) = &definition.when else { return Ok(()) };
    if !installed.up_to_date || pattern.text == "**" || pattern.text.starts_with("usher.") {
        return Ok(());
    }
    let types = spi::read_all(TYPES, &[], |row| Ok(row.get::<String>(1)?.unwrap_or_default()))?;
    if types.iter().any(|event_type| pattern.means(event_type)) {
        return Ok(());
    }
    let known: Vec<&str> = types.iter().map(String::as_str).collect();
    let near = did_you_mean(&pattern.text, &known);
    let hint = format!("{near}That is right if a program will emit it with usher.emit_event(), or a flow that is made later.");
    let text = &pattern.text;
    warn(
        UsherError::new(CODE, format!("nothing emits an event that \"{text}\" means: no flow, and nobody in the last 7 days"))
            .hint(hint),
    );
    Ok(())
}
