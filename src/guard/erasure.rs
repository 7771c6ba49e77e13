//! Masking a person in the audit log, so that the chain still proves all the rest.
//!
//! An entry's old and new have a salted hash of their own (see [`super::chain`]). Masked entries keep that hash and lose the salt:
//! nobody can guess from it what stood there. So that nobody changes more under this cover, each row of `usher.audit_erasures`
//! also has the hash of old and new as they are since, and the entry `usher.subjects.erased`, which is itself in the chain,
//! carries the hash over these rows, day by day.

use crate::error::Result;
use crate::pg::spi;
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;
use serde_json::{Map, Value};
use std::cell::Cell;

/// The act under which erasures are entered; its `new` has `audit_days`: for each day the hash over its rows.
pub const ACTION: &str = "usher.subjects.erased";

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// A person is being masked: the log lets that pass.
pub fn at_work() -> bool {
    AT_WORK.get()
}

struct Working;

impl Working {
    fn enter() -> Self {
        AT_WORK.set(true);
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        AT_WORK.set(false);
    }
}

/// Masks entries: `query` gives rows of `position`, `recorded_at` and what `old` and `new` shall be. Returns how many, and for
/// each day the hash over what vouches for them, to be entered as `audit_days`. Runs with the owner's rights.
pub fn mask(erasure: Uuid, query: &str, mut arguments: Vec<DatumWithOid<'_>>) -> Result<(i64, Map<String, Value>)> {
    // Nothing is put into the chain meanwhile: what is not in it yet is masked and nothing more.
    // Written, not only locked: whoever seals with an older snapshot must fail, and not take what stood here before.
    let sealed = spi::one::<i64>("UPDATE usher.audit_chain_state AS s SET sealed_to = s.sealed_to RETURNING s.sealed_to", &[])?
        .unwrap_or(0);
    let first = arguments.len();
    arguments.push(spi::arg(erasure));
    arguments.push(spi::arg(sealed));
    let _working = Working::enter();
    let count = spi::one::<i64>(
        &format!(
            "WITH m AS MATERIALIZED ({query}),
                  kept AS (INSERT INTO usher.audit_erasures (position, number, day, erasure_id, images, masked)
                           SELECT e.position, COALESCE(x.number, 0) + 1, (e.recorded_at AT TIME ZONE 'UTC')::date, ${erasure},
                                  COALESCE(x.images, usher.audit_images_hash(e.salt, e.old::text, e.new::text)),
                                  usher.audit_images_hash(NULL, m.old::text, m.new::text)
                             FROM m JOIN usher.audit_log AS e ON e.position = m.position AND e.recorded_at = m.recorded_at
                             LEFT JOIN usher.audit_erasures AS x ON x.position = e.position AND x.last
                            WHERE e.position <= ${sealed}),
                  before AS (UPDATE usher.audit_erasures AS x SET last = false FROM m WHERE x.position = m.position AND x.last),
                  done AS (UPDATE usher.audit_log AS e SET old = m.old, new = m.new, salt = NULL
                             FROM m WHERE e.position = m.position AND e.recorded_at = m.recorded_at RETURNING 1)
             SELECT pg_catalog.count(*) FROM done",
            erasure = first + 1,
            sealed = first + 2,
        ),
        &arguments,
    )?;
    let days = spi::read_all(
        &format!(
            "SELECT x.day::text, {ROOT} FROM usher.audit_erasures AS x WHERE x.erasure_id = $1 GROUP BY x.day ORDER BY x.day"
        ),
        &[spi::arg(erasure)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), Value::from(row.get::<String>(2)?.unwrap_or_default()))),
    )?;
    Ok((count.unwrap_or(0), days.into_iter().collect()))
}

/// The hash over rows `x` of one erasure and one day: of position (i64, big-endian), images and masked of each, in the order of
/// positions and numbers.
const ROOT: &str = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.string_agg(pg_catalog.int8send(x.position) || x.images || x.masked, ''::bytea ORDER BY x.position, x.number)), 'hex')";

/// The first erasure, and its day, whose rows are not those that its entry vouches for.
pub fn forged() -> Result<Option<(String, String)>> {
    let found = spi::read_all(
        &format!(
            "SELECT d.erasure_id::text, d.day::text
               FROM (SELECT x.erasure_id, x.day, {ROOT} AS root FROM usher.audit_erasures AS x GROUP BY x.erasure_id, x.day) AS d
              WHERE NOT EXISTS (SELECT FROM usher.audit_log AS e
                                 WHERE e.action = $1 AND e.object = d.erasure_id::text AND e.new -> 'audit_days' ->> d.day::text = d.root)
                -- The erasure's own day may be gone, while an entry that has no day's partition stays.
                AND NOT (EXISTS (SELECT FROM usher.audit_blocks AS b WHERE b.kind = 'retired' AND b.day >= d.day)
                         AND NOT EXISTS (SELECT FROM usher.audit_log AS e WHERE e.action = $1 AND e.object = d.erasure_id::text))
              ORDER BY d.day, d.erasure_id LIMIT 1"
        ),
        &[spi::arg(ACTION)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    Ok(found.into_iter().next())
}
