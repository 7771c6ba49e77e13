//! Telling a changed definition from new statistics.
//!
//! PostgreSQL says "this relation has changed" for `VACUUM` and `ANALYZE`, too, and on a busy day these come to a dozen tables
//! every minute. What hangs on definitions alone asks here. Only statistics have changed where the statistics in `pg_class` are
//! others and the versions (`xmin`, `ctid`) of the catalog's rows about the relation are not: they are written in place. Where neither
//! has changed somebody has sent the message on purpose (`catalog::invalidate`), and that counts.

use super::relcache::{self, Asker};
use super::spi;
use crate::error::Result;
use pgrx::pg_sys::{self, Oid};
use std::collections::HashMap;

/// Of a relation: its definition, its statistics.
type Print = (String, String);

/// What somebody has seen of the database's relations.
pub struct Definitions {
    asker: Asker,
    known: HashMap<u32, Print>,
}

/// `$1` the relations, all that are not the system's without it. Names, owner, rights and options are of `pg_class`.
const PRINTS: &str = "
SELECT x.relation, pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', x.catalog, x.part, x.version, x.place), 0))::text,
       pg_catalog.max(x.statistics)
  FROM (SELECT c.oid AS relation, 1 AS catalog, c.oid AS part, c.xmin AS version, c.ctid AS place,
               pg_catalog.concat_ws(' ', c.relpages, c.reltuples, c.relallvisible, c.relfrozenxid, c.relminmxid) AS statistics
          FROM pg_catalog.pg_class AS c
        UNION ALL SELECT a.attrelid, 2, a.attnum::int4::oid, a.xmin, a.ctid, NULL FROM pg_catalog.pg_attribute AS a WHERE a.attnum > 0
        UNION ALL SELECT d.adrelid, 3, d.oid, d.xmin, d.ctid, NULL FROM pg_catalog.pg_attrdef AS d
        UNION ALL SELECT i.indrelid, 4, i.indexrelid, i.xmin, i.ctid, NULL FROM pg_catalog.pg_index AS i
        UNION ALL SELECT k.conrelid, 5, k.oid, k.xmin, k.ctid, NULL FROM pg_catalog.pg_constraint AS k
        UNION ALL SELECT k.confrelid, 6, k.oid, k.xmin, k.ctid, NULL FROM pg_catalog.pg_constraint AS k WHERE k.confrelid <> 0
        UNION ALL SELECT t.tgrelid, 7, t.oid, t.xmin, t.ctid, NULL FROM pg_catalog.pg_trigger AS t
        UNION ALL SELECT p.polrelid, 8, p.oid, p.xmin, p.ctid, NULL FROM pg_catalog.pg_policy AS p
        UNION ALL SELECT r.ev_class, 9, r.oid, r.xmin, r.ctid, NULL FROM pg_catalog.pg_rewrite AS r
        UNION ALL SELECT h.inhrelid, 10, h.inhparent, h.xmin, h.ctid, NULL FROM pg_catalog.pg_inherits AS h
        UNION ALL SELECT h.inhparent, 11, h.inhrelid, h.xmin, h.ctid, NULL FROM pg_catalog.pg_inherits AS h) AS x";

impl Definitions {
    pub fn new(asker: Asker) -> Self {
        Self { asker, known: HashMap::new() }
    }

    /// Begins anew: what changes from here on is told by the next `changed`.
    pub fn learn(&mut self) -> Result<()> {
        relcache::take_changes(self.asker);
        self.known = prints(" WHERE x.relation >= $1 GROUP BY x.relation", &[spi::arg(Oid::from(pg_sys::FirstNormalObjectId))])?;
        Ok(())
    }

    /// The relations whose definition has changed since the last call, those among them that are gone or were never seen, and of
    /// `always` those that were named at all. None: any may have. A transaction that sees the catalogs as they were must not ask.
    pub fn changed(&mut self, always: Option<Oid>) -> Result<Option<Vec<Oid>>> {
        let Some(mut told) = relcache::take_changes(self.asker) else {
            self.learn()?;
            return Ok(None);
        };
        let unseen = Unseen(self.asker);
        // The system's own are cleaned up like others, and never altered.
        told.retain(|relation| relation.to_u32() >= pg_sys::FirstNormalObjectId);
        if told.is_empty() {
            std::mem::forget(unseen);
            return Ok(Some(told));
        }
        let mut now = prints(" WHERE x.relation = ANY ($1) GROUP BY x.relation", &[spi::arg(told.clone())])?;
        std::mem::forget(unseen);
        let changed = told.into_iter().filter(|oid| {
            let relation = oid.to_u32();
            let before = self.known.remove(&relation);
            let only_counted = match (&before, now.get(&relation)) {
                (Some(before), Some(now)) => before.0 == now.0 && before.1 != now.1,
                _ => false,
            };
            self.known.extend(now.remove_entry(&relation));
            !only_counted || Some(*oid) == always
        });
        Ok(Some(changed.collect()))
    }
}

/// Taken and not looked at yet: an error on the way (a timeout) must not lose it.
struct Unseen(Asker);

impl Drop for Unseen {
    fn drop(&mut self) {
        relcache::give_back(self.0);
    }
}

fn prints(which: &str, args: spi::Args<'_>) -> Result<HashMap<u32, Print>> {
    // With a snapshot of its own, behind everything that this transaction has done itself.
    let rows = spi::all(&format!("{PRINTS}{which}"), args, |row| {
        let print = (row.get::<String>(2)?.unwrap_or_default(), row.get::<String>(3)?.unwrap_or_default());
        Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32(), print))
    })?;
    Ok(rows.into_iter().collect())
}
