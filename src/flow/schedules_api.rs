//! SQL functions for schedules.

use super::schedule::Schedule;
use crate::error::UsherError;
use crate::pg::{ids, zone};
use crate::registry::zones;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The next times of a schedule, as a flow with it would be due.
///
/// Arguments: `schedule` (five fields of cron, `@daily` and the like, or `every 15 minutes`), `timezone` (IANA name), `after`
/// (now), `count` (1 to 1000). Errors: 22023 for a schedule, zone or count that is none.
#[pg_extern(volatile, parallel_unsafe)]
fn next_runs(
    schedule: Option<String>,
    timezone: default!(Option<String>, "'UTC'"),
    after: default!(Option<TimestampWithTimeZone>, "NULL"),
    count: default!(Option<i32>, 5),
) -> std::result::Result<SetOfIterator<'static, TimestampWithTimeZone>, ErrorReport> {
    let text = UsherError::given(schedule, "the schedule")?;
    let object = serde_json::json!({"schedule": text});
    let schedule = Schedule::parse(object.as_object().unwrap_or(&serde_json::Map::new()))
        .map_err(|(message, hint)| UsherError::invalid(message).hint(hint))?;
    let zone = zones::named(timezone.as_deref().unwrap_or("UTC"))?;
    let count = count.unwrap_or(5);
    if !(1..=1_000).contains(&count) {
        return Err(UsherError::invalid(format!("count is {count}")).hint("Give a number from 1 to 1000.").into());
    }
    let mut at = match after {
        Some(after) if matches!(i64::from(after), i64::MIN | i64::MAX) => {
            return Err(UsherError::invalid("\"after\" is not a finite time").hint("Give a time, or leave it out.").into());
        }
        Some(after) => zone::seconds(after),
        None => zone::seconds_of(ids::clock()),
    };
    let mut times = Vec::new();
    while times.len() < count as usize {
        let Some(next) = schedule.next_after(&zone, at) else { break };
        times.extend(zone::timestamp(next));
        at = next;
    }
    Ok(SetOfIterator::new(times))
}
