//! The values of a flow's limits per key, for the jobs of a batch.

use super::apply::{self, Batch, Failed};
use super::compile::Writer;
use super::store::Flow;
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::{role, spi, subxact};

/// `(n, values)` for a range of a batch; None for a flow without limits per key. Its condition is not asked: whether a job
/// has anything to do is known only when it runs.
pub(super) fn statement(w: &Writer<'_>) -> Option<String> {
    let keys: Vec<String> = w.definition.limit_keys().map(|(_, text)| format!("({text}\n)::text")).collect();
    (!keys.is_empty()).then(|| {
        format!("SELECT b.n::integer, ARRAY[{}] FROM {} WHERE b.n BETWEEN $7 AND $8 ORDER BY 1", keys.join(", "), w.from())
    })
}

/// The values for each job of a batch, in its order, and the jobs for which there are none because an expression failed.
/// They are worked out with the flow's rights.
#[allow(clippy::type_complexity, reason = "values by job and limit")]
pub fn values(flow: &Flow, batch: &Batch) -> Result<(Vec<Vec<Option<String>>>, Vec<Failed>)> {
    let mut found = vec![Vec::new(); usize::try_from(batch.size).unwrap_or(0)];
    let mut failed = Vec::new();
    let program = flow.program()?;
    let Some(sql) = &program.limit_keys else { return Ok((found, failed)) };
    let mut open = vec![(1, batch.size)];
    while let Some((from, to)) = open.pop() {
        let part = subxact::attempt_within(flow.definition.limit(), || {
            let _fence = Nest::fence().lock_timeout(flow.definition.lock_timeout);
            let _acting = role::act_as(flow.run_as);
            spi::all(sql, &apply::arguments(batch, from, to), |row| {
                Ok((row.get::<i32>(1)?.unwrap_or(1), row.get::<Vec<Option<String>>>(2)?.unwrap_or_default()))
            })
        });
        match part {
            Ok(rows) => rows.into_iter().for_each(|(n, values)| found[n as usize - 1] = values),
            Err(failure) if from == to => failed.push(Failed { n: from, failure }),
            Err(_) => {
                let middle = from + (to - from) / 2;
                open.push((middle + 1, to));
                open.push((from, middle));
            }
        }
    }
    Ok((found, failed))
}
