//! One slice of a plan: the merge goes over its rows, and the items are marked in the same transaction.

use crate::conflict;
use crate::error::{Result, UsherError};
use crate::flow::apply::{self, Batch, Causes, Place, Run, Stop};
use crate::flow::cause::Cause;
use crate::flow::merge::compare;
use crate::flow::merge::definition::BACK;
use crate::flow::store::{self as flows, Flow};
use crate::flow::{manage, switches};
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::subxact::Failure;
use crate::pg::{catalog, role, subxact};
use crate::queue::pauses;
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// What a look has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No migration is running.
    Nothing,
    /// Its flow is off, broken or paused.
    Waits,
    /// So many items were seen to.
    Did(i32),
    /// Rows were locked, or something else that passes.
    Later,
}

/// A row that others have locked is tried so often.
const ATTEMPTS: i32 = 20;

/// Those that may go on, in lanes that the caller serves. `$1` lanes. The one that has waited longest first.
const NEXT: &str = "
    SELECT m.id, m.flow_id, m.version, f.version, f.name
      FROM usher.migrations AS m JOIN usher.flows AS f ON f.id = m.flow_id
     WHERE m.state = 'running' AND f.enabled AND f.state = 'ok'
       AND NOT EXISTS (SELECT FROM usher.flows AS p WHERE p.name = f.name || ':back' AND NOT (p.enabled AND p.state = 'ok'))
       AND CASE COALESCE(f.definition ->> 'priority', CASE WHEN f.definition ->> 'mode' IN ('async', 'batch') THEN 'low' ELSE 'normal' END)
           WHEN 'emergency' THEN 0 WHEN 'critical' THEN 1 WHEN 'high' THEN 2 WHEN 'low' THEN 4 ELSE 3 END = ANY ($1::smallint[])
     ORDER BY m.updated_at";

/// It is held by one worker at a time, and while nobody changes it. `$1` migration.
const HOLD: &str =
    "SELECT m.slice, m.position FROM usher.migrations AS m WHERE m.id = $1 AND m.state = 'running' FOR UPDATE SKIP LOCKED";

struct Next {
    id: Uuid,
    flow: i32,
    version: i32,
    current: i32,
    name: String,
}

/// The next items of one organization, from a position on. `$1` migration, `$2` position, `$3` how many.
const ITEMS: &str = "
WITH i AS MATERIALIZED (
    SELECT i.n, i.organization_id, i.side, i.left_id, i.right_id
      FROM usher.migration_items AS i JOIN usher.migrations AS m ON m.id = $1
     WHERE i.migration_id = $1 AND i.n > $2 AND i.state = 'planned' AND (m.kinds IS NULL OR i.kind = ANY (m.kinds)) AND (m.actions IS NULL OR i.action = ANY (m.actions))
     ORDER BY i.n LIMIT $3),
o AS (SELECT i.organization_id AS id FROM i ORDER BY i.n LIMIT 1)
SELECT i.organization_id, pg_catalog.array_agg(i.n ORDER BY i.n) FILTER (WHERE i.side = 'left'), pg_catalog.array_agg(i.left_id ORDER BY i.n) FILTER (WHERE i.side = 'left'),
       pg_catalog.array_agg(i.n ORDER BY i.n) FILTER (WHERE i.side = 'right'), pg_catalog.array_agg(i.right_id ORDER BY i.n) FILTER (WHERE i.side = 'right'),
       pg_catalog.max(i.n)
  FROM i JOIN o ON o.id = i.organization_id GROUP BY i.organization_id";

/// `$1` migration, `$2` organization, `$3` numbers, `$4` numbers of those that failed, `$5` why, `$6` whether another try may do better, `$7` attempts. Comes
/// back as how many are done, and how many have failed for good.
const MARK: &str = "
WITH f AS MATERIALIZED (SELECT f.* FROM unnest($4::bigint[], $5::text[], $6::boolean[]) AS f (n, why, busy)),
u AS (
    UPDATE usher.migration_items AS i
       SET state = CASE WHEN f.n IS NULL THEN 'done' WHEN f.busy AND i.attempts + 1 < $7 THEN 'planned' ELSE 'failed' END, error_message = f.why,
           attempts = i.attempts + CASE WHEN f.n IS NULL THEN 0 ELSE 1 END, done_at = CASE WHEN f.n IS NULL THEN pg_catalog.clock_timestamp() END
      FROM unnest($3::bigint[]) AS a (n) LEFT JOIN f ON f.n = a.n
     WHERE i.organization_id = $2 AND i.migration_id = $1 AND i.n = a.n
    RETURNING i.state)
SELECT pg_catalog.count(*) FILTER (WHERE u.state = 'done'), pg_catalog.count(*) FILTER (WHERE u.state = 'failed') FROM u";

/// Does the next slice of a migration whose flow has one of these lanes, in the caller's transaction. Runs with the owner's rights.
pub fn slice(installed: Installed, lanes: &[i16], place: Place) -> Result<Outcome> {
    if catalog::is_unused("migrations") {
        return Ok(Outcome::Nothing);
    }
    let gone = spi::run(
        "UPDATE usher.migrations AS m SET state = 'cancelled', error_message = 'its flow was dropped', finished_at = pg_catalog.now(), updated_at = pg_catalog.now()
          WHERE m.state IN ('running', 'paused', 'failed') AND NOT EXISTS (SELECT FROM usher.flows AS f WHERE f.id = m.flow_id)",
        &[],
    )?;
    let found = spi::all(NEXT, &[spi::arg(lanes.to_vec())], |row| {
        Ok(Next {
            id: row.get::<Uuid>(1)?.unwrap_or_else(|| Uuid::from_bytes([0; 16])),
            flow: row.get::<i32>(2)?.unwrap_or_default(),
            version: row.get::<i32>(3)?.unwrap_or_default(),
            current: row.get::<i32>(4)?.unwrap_or_default(),
            name: row.get::<String>(5)?.unwrap_or_default(),
        })
    })?;
    let any = gone > 0 || !found.is_empty();
    for next in found {
        let broken = RefCell::new(None);
        match subxact::attempt(|| one(installed, &next, place, &broken)) {
            Ok(Outcome::Waits) => {}
            Ok(outcome) => return Ok(outcome),
            Err(failure) => {
                if let Some(flow) = broken.take() {
                    warning!(
                        "flow \"{}\" no longer fits the database and is broken: {}; its migration waits",
                        next.name,
                        failure.line()
                    );
                    flows::set_state(flow, Some(&failure.line()))?;
                    return Ok(Outcome::Later);
                }
                return stopped(&next, &failure);
            }
        }
    }
    Ok(if any { Outcome::Waits } else { Outcome::Nothing })
}

/// A slice that failed as a whole is tried again, or the migration stands still until somebody resumes it.
fn stopped(next: &Next, failure: &Failure) -> Result<Outcome> {
    let for_good = failure.tells_about_the_statement() || failure.sqlstate == "55000";
    spi::run(
        "UPDATE usher.migrations AS m SET error_message = $2, state = CASE WHEN $3 THEN 'failed' ELSE m.state END, updated_at = pg_catalog.clock_timestamp()
          WHERE m.id = $1 AND m.state = 'running'",
        &[spi::arg(next.id), spi::arg(failure.line()), spi::arg(for_good)],
    )?;
    if for_good {
        log!("usher worker: migration {} stands still: {}", next.id, failure.line());
    }
    Ok(if for_good { Outcome::Did(0) } else { Outcome::Later })
}

fn flow_at(id: i32, version: i32) -> Result<Rc<Flow>> {
    flows::get(id, version)?.ok_or_else(|| UsherError::internal("a flow is gone"))
}

fn one(installed: Installed, next: &Next, place: Place, broken: &RefCell<Option<i32>>) -> Result<Outcome> {
    let held =
        spi::all(HOLD, &[spi::arg(next.id)], |row| Ok((row.get::<i32>(1)?.unwrap_or(1), row.get::<i64>(2)?.unwrap_or(0))))?;
    let Some((slice, position)) = held.into_iter().next() else { return Ok(Outcome::Waits) };
    if next.version != next.current {
        return Err(UsherError::state(format!(
            "the plan was made by version {} of flow \"{}\", which is at version {} now",
            next.version, next.name, next.current
        )));
    }
    let items = spi::all(ITEMS, &[spi::arg(next.id), spi::arg(position), spi::arg(i64::from(slice))], |row| {
        let numbers = |at| row.get::<Vec<i64>>(at).map(Option::unwrap_or_default);
        let ids = |at| row.get::<Vec<String>>(at).map(Option::unwrap_or_default);
        Ok((row.get::<Uuid>(1)?, [(numbers(2)?, ids(3)?), (numbers(4)?, ids(5)?)], row.get::<i64>(6)?.unwrap_or(0)))
    })?;
    let Some((Some(organization), [left, right], position)) = items.into_iter().next() else { return round_over(next) };
    let forward = flow_at(next.flow, next.version)?;
    let (id, version) = manage::id_of(installed, &format!("{}:{BACK}", next.name))?;
    let back = flow_at(id, version)?;
    let known = pauses::current(installed)?;
    if [&forward, &back].into_iter().any(|flow| known.of_job(flow, organization).is_some()) {
        return Ok(Outcome::Waits);
    }
    // Somebody may have switched it off since: those items fail, and may be applied again.
    let on = switches::require_on(forward.id, &forward.name, organization);
    let default = installed.default_organization.to_string();
    let images = compare::images(&forward, &back, &default)?;
    let mut failed = (Vec::new(), Vec::new(), Vec::new());
    let numbers: Vec<i64> = left.0.iter().chain(&right.0).copied().collect();
    for (flow, sql, (n, ids)) in [(&forward, &images.0, left), (&back, &images.1, right)] {
        if n.is_empty() {
            continue;
        }
        if let Err(off) = &on {
            failed.0.extend(&n);
            failed.1.extend(n.iter().map(|_| off.message.clone()));
            failed.2.extend(n.iter().map(|_| false));
            continue;
        }
        let seen = Seen { installed, flow, migration: next.id, organization, place };
        for (n, failure) in seen.merge(sql, n, ids, broken)? {
            failed.0.push(n);
            failed.2.push(failure.is_busy());
            failed.1.push(failure.line());
        }
    }
    let (done, lost) = Spi::connect_mut(|client| {
        let arguments = [
            spi::arg(next.id),
            spi::arg(organization),
            spi::arg(numbers),
            spi::arg(failed.0),
            spi::arg(failed.1),
            spi::arg(failed.2),
            spi::arg(ATTEMPTS),
        ];
        let table = spi::query(client, MARK, &arguments)?.first();
        Ok::<_, UsherError>((table.get::<i64>(1)?.unwrap_or(0), table.get::<i64>(2)?.unwrap_or(0)))
    })?;
    spi::run(
        "UPDATE usher.migrations AS m SET position = $2, done = m.done + $3, failed = m.failed + $4, error_message = NULL, updated_at = pg_catalog.clock_timestamp() WHERE m.id = $1",
        &[spi::arg(next.id), spi::arg(position), spi::arg(done), spi::arg(lost)],
    )?;
    Ok(Outcome::Did(i32::try_from(done + lost).unwrap_or(i32::MAX)))
}

/// All items have been looked at. Those whose rows were locked are tried once more, until there are none.
fn round_over(next: &Next) -> Result<Outcome> {
    let again = spi::one::<bool>(
        "UPDATE usher.migrations AS m
            SET position = 0, updated_at = pg_catalog.clock_timestamp(), state = CASE WHEN o.open THEN m.state ELSE 'done' END,
                error_message = o.why, finished_at = CASE WHEN NOT o.open THEN pg_catalog.clock_timestamp() END
           FROM (SELECT pg_catalog.count(*) > 0 AS open, pg_catalog.min(i.error_message) AS why
                   FROM usher.migration_items AS i JOIN usher.migrations AS c ON c.id = $1
                  WHERE i.migration_id = $1 AND i.state = 'planned' AND (c.kinds IS NULL OR i.kind = ANY (c.kinds)) AND (c.actions IS NULL OR i.action = ANY (c.actions))) AS o
          WHERE m.id = $1 RETURNING o.open",
        &[spi::arg(next.id)],
    )?;
    Ok(if again == Some(true) { Outcome::Later } else { Outcome::Did(0) })
}

/// One side's share of a slice.
struct Seen<'a> {
    installed: Installed,
    flow: &'a Flow,
    migration: Uuid,
    organization: Uuid,
    place: Place,
}

impl Seen<'_> {
    /// Has the merge look at rows, as if they were written now. Returns the numbers of those that it could not merge, and why.
    fn merge(
        &self,
        images: &str,
        numbers: Vec<i64>,
        ids: Vec<String>,
        broken: &RefCell<Option<i32>>,
    ) -> Result<Vec<(i64, Failure)>> {
        // A job's rows as a job has them. Who is gone meanwhile is not among them.
        let sql = format!(
            "SELECT pg_catalog.array_agg($3::uuid), pg_catalog.array_agg($4::uuid), pg_catalog.array_agg(x.image), pg_catalog.array_agg(NULL::jsonb),
                    pg_catalog.array_agg('I'::\"char\"), pg_catalog.array_agg(pg_catalog.now()), pg_catalog.array_agg(0::bigint), pg_catalog.count(*)::integer, pg_catalog.array_agg(x.n)
               FROM (SELECT y.* FROM ({images}) AS y ORDER BY y.n) AS x"
        );
        Spi::connect_mut(|client| {
            let table = {
                let _fence = Nest::fence().lock_timeout(self.flow.definition.lock_timeout).pinned_formats();
                // Policies of the tables show the organization's rows, as they did to the plan.
                let _for_flow = identity::for_flow(Some(self.organization));
                let _acting = role::act_as(self.flow.run_as);
                let arguments = [spi::arg(numbers), spi::arg(ids), spi::arg(self.organization), spi::arg(self.migration)];
                spi::query(client, &sql, &arguments)?.first()
            };
            let size = table.get::<i32>(8)?.unwrap_or(0);
            if size == 0 {
                return Ok(Vec::new());
            }
            let order = Raw::read(&table, 9)?.value::<Vec<i64>>()?.unwrap_or_default();
            let batch = Batch::read(&table, 1, size)?;
            // What follows was caused by the migration.
            let cause = Cause { hop: 1, job: Some(*self.migration.as_bytes()), ..Cause::default() };
            let emit = |_: &crate::flow::emit_statement::Emission<'_>| Err(UsherError::internal("a merge emits nothing"));
            let run = Run {
                flow: self.flow,
                owner: self.installed.owner,
                batch: &batch,
                causes: Causes::Shared(&cause, Some(self.organization)),
                place: self.place,
                emit,
                tell: conflict::TELL,
            };
            match apply::apply(&run, 1, size) {
                Ok(failed) => Ok(failed
                    .into_iter()
                    .filter_map(|failed| Some((*order.get(usize::try_from(failed.n - 1).ok()?)?, failed.failure)))
                    .collect()),
                Err(Stop::Broken(failure)) => {
                    broken.replace(Some(self.flow.id));
                    Err(failure.into())
                }
            }
        })
    }
}
