//! Events again, for one flow that listens: also those from before it was made, or that it did not hear.

use crate::error::{Result, UsherError};
use crate::flow::definition::When;
use crate::flow::event_type::Pattern;
use crate::flow::store::{self as flows, Flow};
use crate::pg::guc::Nest;
use crate::pg::{spi, xact};
use crate::queue::work::Item;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

/// The pattern by which a flow listens, and one that chooses among what it means.
fn patterns(flow: &Flow, chosen: Option<&str>) -> Result<(Pattern, Option<Pattern>)> {
    let When::Event(pattern) = &flow.definition.when else {
        return Err(UsherError::invalid(format!("flow \"{}\" does not listen to events", flow.name))
            .hint("usher.replay() runs its finished jobs again, usher.backfill() has it act on the rows that are there."));
    };
    let chosen = chosen.map(|text| Pattern::parse(text).map_err(flows::refused)).transpose()?;
    Ok((pattern.clone(), chosen))
}

/// How many events of a time there are to go through, of whatever type. Runs with the owner's rights.
pub fn count(flow: &Flow, chosen: Option<&str>, first: TimestampWithTimeZone, last: TimestampWithTimeZone) -> Result<i64> {
    patterns(flow, chosen)?;
    Ok(spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.events AS e WHERE e.emitted_at >= $1 AND e.emitted_at < $2",
        &[spi::arg(first), spi::arg(last)],
    )?
    .unwrap_or(0))
}

/// The next events behind a position, and jobs of those that the flow means. `$1`-`$2` time, `$3` position, `$4` how many are looked at, `$5`-`$6`
/// expressions, `$7` flow, `$8` version, `$9` lane, `$10` the work that causes them. They wait, due at once, as other jobs that are run again do.
const AGAIN: &str = "
WITH e AS MATERIALIZED (
    SELECT e.organization_id, e.id, e.type, e.data, e.emitted_at, e.emitted_by, e.hop
      FROM usher.events AS e
     WHERE e.emitted_at >= $1 AND e.emitted_at < $2 AND (e.organization_id, e.id) > (($3::text[])[1]::uuid, ($3::text[])[2]::uuid)
     ORDER BY e.organization_id, e.id LIMIT $4),
j AS (
    INSERT INTO usher.queue_waiting (seq, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, new, waiting_for, due_at)
    SELECT pg_catalog.nextval('usher.queue_seq'), usher.uuid_v7(), e.organization_id, pg_catalog.now(), $10, $7, $8, $9, e.hop, 'R',
           pg_catalog.jsonb_build_object('id', e.id, 'type', e.type, 'data', e.data, 'emitted_at', e.emitted_at, 'emitted_by', e.emitted_by),
           'run_at', pg_catalog.now()
      FROM e
     WHERE '.' || e.type ~ $5 AND ($6::text IS NULL OR '.' || e.type ~ $6)
       AND NOT EXISTS (SELECT FROM usher.flow_switches AS s WHERE s.flow_id = $7 AND s.organization_id = e.organization_id)
     ORDER BY e.organization_id, e.id RETURNING 1)
SELECT (SELECT pg_catalog.count(*)::integer FROM e), (SELECT pg_catalog.count(*)::integer FROM j),
       (SELECT ARRAY[e.organization_id::text, e.id::text] FROM e ORDER BY e.organization_id DESC, e.id DESC LIMIT 1)";

/// One slice.
pub struct Slice {
    pub looked_at: i32,
    pub jobs: i32,
    /// None: that was the end.
    pub position: Option<Vec<String>>,
}

/// Makes the jobs of the next events. Runs with the owner's rights.
pub fn slice(client: &mut SpiClient<'_>, item: &Item, flow: &Flow, lane: i16) -> Result<Slice> {
    let _index = Nest::open().index_scans();
    let (own, chosen) = patterns(flow, item.condition.as_deref())?;
    let nothing = "00000000-0000-0000-0000-000000000000".to_owned();
    let after = item.position.clone().unwrap_or_else(|| vec![nothing.clone(), nothing]);
    let arguments = [
        spi::arg(item.first_at),
        spi::arg(item.last_at),
        spi::arg(after),
        spi::arg(i64::from(item.slice)),
        spi::arg(own.expression()),
        spi::arg(chosen.map(|pattern| pattern.expression())),
        spi::arg(flow.id),
        spi::arg(flow.version),
        spi::arg(lane),
        spi::arg(item.id),
    ];
    let table = spi::query(client, AGAIN, &arguments)?.first();
    let (looked_at, jobs) = (table.get::<i32>(1)?.unwrap_or(0), table.get::<i32>(2)?.unwrap_or(0));
    if jobs > 0 {
        xact::note_due_changed();
    }
    Ok(Slice { looked_at, jobs, position: table.get::<Vec<String>>(3)?.filter(|_| looked_at >= item.slice) })
}
