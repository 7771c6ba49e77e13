//! The plans and their items as rows. All of it runs with the owner's rights.

use crate::error::{Result, UsherError};
use crate::pg::{catalog, spi};
use pgrx::{JsonB, Uuid};
use serde_json::Value;

/// A plan, as far as it is asked for before something is done with it.
pub struct Migration {
    pub id: Uuid,
    pub organization: Option<Uuid>,
    pub flow: i32,
    pub name: String,
    pub version: i32,
    pub left: String,
    pub right: String,
    pub state: String,
    pub equal: i64,
    pub left_out: i64,
}

/// A plan by its id, locked if it is to be changed; which organizations it may be of (None: any, also all of them at once).
pub fn by_id(id: Uuid, of: Option<Vec<Uuid>>, lock: bool) -> Result<Option<Migration>> {
    let sql = format!(
        "SELECT m.id, m.organization_id, m.flow_id, m.flow, m.version, m.left_table, m.right_table, m.state, m.equal, m.left_out
           FROM usher.migrations AS m WHERE m.id = $1 AND ($2::uuid[] IS NULL OR m.organization_id = ANY ($2)){}",
        if lock { " FOR UPDATE" } else { "" }
    );
    let found = spi::all(&sql, &[spi::arg(id), spi::arg(of)], |row| {
        let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
        Ok(Migration {
            id,
            organization: row.get::<Uuid>(2)?,
            flow: row.get::<i32>(3)?.unwrap_or_default(),
            name: text(4)?,
            version: row.get::<i32>(5)?.unwrap_or_default(),
            left: text(6)?,
            right: text(7)?,
            state: text(8)?,
            equal: row.get::<i64>(9)?.unwrap_or(0),
            left_out: row.get::<i64>(10)?.unwrap_or(0),
        })
    })?;
    Ok(found.into_iter().next())
}

/// What is written down of a new plan, whose items are there already.
pub struct New {
    pub id: Uuid,
    pub organization: Option<Uuid>,
    pub flow: i32,
    pub name: String,
    pub version: i32,
    pub left: String,
    pub right: String,
    pub left_rows: i64,
    pub right_rows: i64,
    pub equal: i64,
    pub by: String,
}

/// `$1` id, `$2` organization, `$3`-`$5` flow, `$6` and `$7` tables, `$8` and `$9` their rows, `$10` equal pairs, `$11` by whom. A pair is two rows.
const INSERT: &str = "
WITH c AS MATERIALIZED (
    SELECT i.kind, i.action, pg_catalog.count(*) AS items FROM usher.migration_items AS i WHERE i.migration_id = $1 GROUP BY i.kind, i.action),
k AS (SELECT c.kind, pg_catalog.jsonb_object_agg(c.action, c.items) AS actions FROM c GROUP BY c.kind)
INSERT INTO usher.migrations (id, organization_id, flow_id, flow, version, left_table, right_table, left_rows, right_rows, equal, left_out, items, counts, planned_by)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
       GREATEST($8 + $9 - 2 * $10 - COALESCE((SELECT pg_catalog.sum(CASE WHEN c.kind IN ('matched', 'different') THEN 2 ELSE 1 END * c.items) FROM c), 0), 0)::bigint,
       COALESCE((SELECT pg_catalog.sum(c.items) FROM c), 0)::bigint,
       COALESCE((SELECT pg_catalog.jsonb_object_agg(k.kind, k.actions) FROM k), '{}'), $11
RETURNING counts";

/// Returns the numbers of items by kind and action.
pub fn insert(new: New) -> Result<Value> {
    let counts = spi::one::<JsonB>(
        INSERT,
        &[
            spi::arg(new.id),
            spi::arg(new.organization),
            spi::arg(new.flow),
            spi::arg(new.name),
            spi::arg(new.version),
            spi::arg(new.left),
            spi::arg(new.right),
            spi::arg(new.left_rows),
            spi::arg(new.right_rows),
            spi::arg(new.equal),
            spi::arg(new.by),
        ],
    )?;
    counts.map(|counts| counts.0).ok_or_else(|| UsherError::internal("a plan was not written down"))
}

/// Items that are still to be done, among those that are chosen. `$1` id, `$2` kinds, `$3` actions.
const CHOSEN: &str =
    "i.migration_id = $1 AND ($2::text[] IS NULL OR i.kind = ANY ($2)) AND ($3::text[] IS NULL OR i.action = ANY ($3))";

/// Lets the worker begin, or begin again with what has failed. Returns how many items it will see to.
pub fn begin(id: Uuid, kinds: Option<Vec<String>>, actions: Option<Vec<String>>, slice: i32, by: &str) -> Result<i64> {
    let choice = [spi::arg(id), spi::arg(kinds.clone()), spi::arg(actions.clone())];
    spi::run(
        &format!(
            "UPDATE usher.migration_items AS i SET state = 'planned', attempts = 0, error_message = NULL WHERE {CHOSEN} AND i.state = 'failed'"
        ),
        &choice,
    )?;
    let planned = spi::one::<i64>(
        &format!("SELECT pg_catalog.count(*) FROM usher.migration_items AS i WHERE {CHOSEN} AND i.state = 'planned'"),
        &choice,
    )?
    .unwrap_or(0);
    if planned > 0 {
        spi::run(
            "UPDATE usher.migrations AS m
                SET state = 'running', kinds = $2, actions = $3, slice = $4, position = 0, total = m.done + f.failed + $5, failed = f.failed, error_message = NULL,
                    started_at = COALESCE(m.started_at, pg_catalog.clock_timestamp()), started_by = $6, resumed_at = pg_catalog.clock_timestamp(), done_before = m.done,
                    updated_at = pg_catalog.clock_timestamp(), finished_at = NULL
               FROM (SELECT pg_catalog.count(*) AS failed FROM usher.migration_items AS i WHERE i.migration_id = $1 AND i.state = 'failed') AS f
              WHERE m.id = $1",
            &[spi::arg(id), spi::arg(kinds), spi::arg(actions), spi::arg(slice), spi::arg(planned), spi::arg(by)],
        )?;
    }
    Ok(planned)
}

/// Changes the state if it is one of these. False: it is not.
pub fn steer(id: Uuid, from: &[&str], to: &str) -> Result<bool> {
    let from: Vec<String> = from.iter().map(|state| (*state).to_owned()).collect();
    let changed = spi::run(
        "UPDATE usher.migrations AS m
            SET state = $3, updated_at = pg_catalog.clock_timestamp(),
                error_message = CASE WHEN $3 = 'running' THEN NULL ELSE m.error_message END,
                resumed_at = CASE WHEN $3 = 'running' THEN pg_catalog.clock_timestamp() ELSE m.resumed_at END,
                done_before = CASE WHEN $3 = 'running' THEN m.done ELSE m.done_before END,
                finished_at = CASE WHEN $3 = 'cancelled' THEN pg_catalog.clock_timestamp() END
          WHERE m.id = $1 AND m.state = ANY ($2)",
        &[spi::arg(id), spi::arg(from), spi::arg(to)],
    )?;
    Ok(changed > 0)
}

/// A migration that stands still because of an error.
pub struct Stopped {
    pub id: String,
    pub flow: String,
    pub message: String,
}

/// Those that stand still, for the doctor.
pub fn stopped() -> Result<Vec<Stopped>> {
    spi::read_all(
        "SELECT m.id::text, m.flow, COALESCE(m.error_message, '') FROM usher.migrations AS m WHERE m.state = 'failed' ORDER BY m.updated_at, m.id",
        &[],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok(Stopped { id: text(1)?, flow: text(2)?, message: text(3)? })
        },
    )
}

/// So many plans are forgotten at once: they may be large.
const FORGOTTEN: usize = 20;

/// Forgets plans that have ended, or were never applied, as long ago as the history is kept.
pub fn prune(days: i32) -> Result<()> {
    if catalog::is_unused("migrations") {
        return Ok(());
    }
    for _ in 0..FORGOTTEN {
        let old = spi::one::<Uuid>(
            "DELETE FROM usher.migrations AS m
              WHERE m.id = (SELECT o.id FROM usher.migrations AS o
                             WHERE o.state IN ('planned', 'done', 'cancelled') AND o.updated_at < pg_catalog.now() - $1 * interval '1 day' ORDER BY o.updated_at LIMIT 1)
              RETURNING m.id",
            &[spi::arg(days)],
        )?;
        let Some(old) = old else { break };
        spi::run("DELETE FROM usher.migration_items AS i WHERE i.migration_id = $1", &[spi::arg(old)])?;
    }
    Ok(())
}
