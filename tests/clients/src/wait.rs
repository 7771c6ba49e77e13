//! Waiting for conditions. Nothing here or in the tests sleeps in the hope that something has happened meanwhile.

use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks: short, because what is waited for usually takes milliseconds.
const PAUSE: Duration = Duration::from_millis(5);

/// What a test waits for if nothing special is expected; generous, because a slow machine is no failure.
pub const LONG: Duration = Duration::from_secs(30);

/// Asks until there is an answer, or the time is over.
pub fn poll<T>(timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits for a condition; panics with `what` when it does not come true.
#[track_caller]
pub fn until(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    if poll(timeout, || condition().then_some(())).is_none() {
        panic!("after {timeout:?} still not: {what}");
    }
}

/// Waits until a query returns true.
#[track_caller]
pub fn until_true(client: &mut Client, sql: &str) {
    until_true_for(client, LONG, sql);
}

/// Waits until a query returns true, for a time of its own. On failure the jobs are shown: they usually say why.
#[track_caller]
pub fn until_true_for(client: &mut Client, timeout: Duration, sql: &str) {
    if poll(timeout, || crate::value::<Option<bool>>(client, sql, &[]).filter(|yes| *yes)).is_none() {
        panic!("after {timeout:?} still not true: {sql}\n{}", jobs(client));
    }
}

/// The last jobs as lines, for messages of failed tests.
pub fn jobs(client: &mut Client) -> String {
    let sql = "SELECT concat_ws(' | ', flow, status, waiting_for, 'attempts ' || attempts, payload::text, error_message)
                 FROM usher.sync_jobs ORDER BY created_at DESC, id DESC LIMIT 12";
    match client.query(sql, &[]) {
        Ok(rows) if rows.is_empty() => "  there are no jobs".to_owned(),
        Ok(rows) => rows.iter().map(|row| format!("  job: {}", row.get::<_, String>(0))).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("  jobs cannot be read: {}", describe(&error)),
    }
}

/// An error with everything the server said; the client's own text is just "db error".
pub fn describe(error: &postgres::Error) -> String {
    let Some(answer) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{} ({})", answer.message(), answer.code().code());
    for more in [answer.detail(), answer.hint(), answer.where_()].into_iter().flatten() {
        text.push_str("\n  ");
        text.push_str(more);
    }
    text
}
