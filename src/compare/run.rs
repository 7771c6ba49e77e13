//! A comparison, step by step: how many leaves, which of them differ, and what is in those.

use super::fit;
use super::sides::Side;
use super::statement::{Spread, Statement};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{ids, results};
use pgrx::JsonB;

/// A leaf should have about so many rows of a side: those are joined to find one that differs.
const ROWS_OF_A_LEAF: f64 = 256.0;
/// 16 bytes each, in every process that scans: at most 512 kB, which stay in a processor's cache. With four times as many a row takes a third longer.
const MOST_BITS: i32 = 15;
const FEWEST_BITS: i32 = 4;

fn bits_for(rows: f64) -> i32 {
    let wanted = (rows / ROWS_OF_A_LEAF).max(1.0).log2().ceil();
    (wanted as i32).clamp(FEWEST_BITS, MOST_BITS)
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

/// Compares both sides, with the caller's rights and in the snapshot of the caller's statement, under [`settings`]. None: both are the same.
/// Errors: 22023 when the sides do not go together, or a side has several rows with one key among those that differ.
pub fn compare(left: &Side, right: &Side) -> Result<Option<Differences>> {
    let pair = fit::pair(left, right)?;
    let rows = expected(left)?.max(expected(right)?);
    let spread = Spread { secret: ids::secret().to_string(), bits: bits_for(rows) };
    let statement = Statement { left, right, pair: &pair, spread };
    let leaves = {
        let _says = results::progress(&format!("usher: digests of {} and {}", left.name, right.name));
        results::first::<Vec<i32>>(&statement.tree())?.unwrap_or_default()
    };
    if leaves.is_empty() {
        return Ok(None);
    }
    // Where most rows have to be looked at, asking each of them for its leaf would only cost.
    let few = leaves.len() * 2 <= 1 << statement.spread.bits;
    let opened = few.then_some(leaves.as_slice());
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
        assert_eq!([0.0, 100.0, 10_000.0, 1e6, 1e7, 1e12].map(bits_for), [4, 4, 6, 12, 15, 15]);
    }
}
