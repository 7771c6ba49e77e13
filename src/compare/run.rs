//! A comparison, step by step: how many leaves, which of them differ, and what is in those.

use super::fit;
use super::sides::Side;
use super::statement::{Opened, Spread, Statement};
use crate::error::{Result, UsherError};
use crate::pg::digest_keys::{self as digest, Unequal};
use crate::pg::guc::Nest;
use crate::pg::{ids, results, subxact};
use pgrx::{JsonB, pg_sys};
use std::collections::BTreeSet;

/// A leaf should have about so many rows of a side: those are joined to find one that differs.
const ROWS_OF_A_LEAF: f64 = 256.0;
/// 16 bytes each, in every process that scans: at most 512 kB, which stay in a processor's cache. With four times as many a row takes a third longer.
const MOST_BITS: i32 = 15;
/// Where keys are read back a leaf has up to 80 bytes.
const MOST_BITS_WITH_KEYS: i32 = 13;
const FEWEST_BITS: i32 = 4;
/// So many keys that were read back are looked up.
const MOST_KEYS: usize = 1_000;

fn bits_for(rows: f64, with_keys: bool) -> i32 {
    let wanted = (rows / ROWS_OF_A_LEAF).max(1.0).log2().ceil();
    (wanted as i32).clamp(FEWEST_BITS, if with_keys { MOST_BITS_WITH_KEYS } else { MOST_BITS })
}

/// How many rows PostgreSQL expects.
fn expected(side: &Side) -> Result<f64> {
    let filter = if side.filter.is_empty() { "true".to_owned() } else { side.filter.join(" AND ") };
    results::expected(&format!("SELECT 1 FROM {} WHERE {filter}", side.from))
}

/// Policies are an error instead of hiding rows, names resolve as compiled.
pub fn settings() -> Nest {
    Nest::fence().no_policies()
}

/// What was found, not read yet.
pub struct Differences {
    /// Its rows are `(key jsonb, finding text, columns text[], left_row jsonb, right_row jsonb)`. Each of them is so in the snapshot that it is run
    /// in, whichever that is; in a later one than that of the digests, what has become different since is among them only by chance.
    pub query: String,
}

/// The keys whose rows are all that is different, where each leaf that differs does so by one key, and their rows are found by an index. None: that is not so,
/// or the types of the keys cannot be written or read by whoever asks, which comparing them does not need.
fn keys(statement: &Statement<'_>, types: &[pg_sys::Oid], differ: &[Unequal]) -> Option<Vec<Vec<String>>> {
    let key = &statement.pair.key;
    // IN means PostgreSQL's own equality.
    let by_index = statement.left.unique && statement.right.unique && key.iter().all(|field| field.plain && !field.cast);
    if !by_index || differ.len() > MOST_KEYS {
        return None;
    }
    subxact::attempt(|| {
        let read: Option<BTreeSet<Vec<String>>> = {
            // As any session reads it; the comparison itself keeps the settings of its own.
            let _formats = Nest::open().pinned_formats().utc();
            differ.iter().map(|leaf| leaf.key_of(types)).collect()
        };
        let Some(keys) = read else { return Ok(None) };
        let keys: Vec<Vec<String>> = keys.into_iter().collect();
        // The others are the same if these alone leave in each leaf what all have left.
        let found = digest::unequal(&results::first::<Vec<u8>>(&statement.tree(Opened::Keys(&keys)))?.unwrap_or_default());
        Ok((found == differ).then_some(keys))
    })
    .ok()
    .flatten()
}

/// Compares both sides, with the caller's rights and in the snapshot of the caller's statement, under [`settings`]. None: both are the same.
/// Errors: 22023 when the sides do not go together, or a side has several rows with one key among those that differ.
pub fn compare(left: &Side, right: &Side) -> Result<Option<Differences>> {
    let pair = fit::pair(left, right)?;
    let rows = expected(left)?.max(expected(right)?);
    let types: Vec<pg_sys::Oid> = pair.key.iter().map(|field| field.kind).collect();
    let spread = Spread { secret: ids::secret().to_string(), bits: bits_for(rows, digest::is_read_back(&types)) };
    let statement = Statement { left, right, pair: &pair, spread };
    let differ = {
        let _says = results::progress(&format!("usher: digests of {} and {}", left.name, right.name));
        digest::unequal(&results::first::<Vec<u8>>(&statement.tree(Opened::All))?.unwrap_or_default())
    };
    if differ.is_empty() {
        return Ok(None);
    }
    let keys = keys(&statement, &types, &differ);
    let leaves: Vec<i32> = differ.iter().map(|leaf| leaf.leaf).collect();
    let opened = match &keys {
        Some(keys) => Opened::Keys(keys),
        None if leaves.len() * 2 <= 1 << statement.spread.bits => Opened::Leaves(&leaves),
        // Where most rows have to be looked at, asking each of them for its leaf would only cost.
        None => Opened::All,
    };
    for (side, is_left) in [(left, true), (right, false)] {
        if side.unique {
            continue;
        }
        if let Some(key) = results::first::<JsonB>(&statement.doubled(is_left, opened))? {
            return Err(UsherError::invalid(format!("the key is not unique in {}", side.name))
                .detail(format!("Several rows have the key {}, or one has no key.", key.0))
                .hint("Choose a key that each row has for itself."));
        }
    }
    Ok(Some(Differences { query: statement.differences(opened) }))
}

#[cfg(test)]
mod unit {
    use super::bits_for;

    #[test]
    fn leaves_go_by_the_rows() {
        assert_eq!([0.0, 100.0, 10_000.0, 1e6, 1e7, 1e12].map(|rows| bits_for(rows, false)), [4, 4, 6, 12, 15, 15]);
        assert_eq!([0.0, 1e6, 1e7].map(|rows| bits_for(rows, true)), [4, 12, 13]);
    }
}
