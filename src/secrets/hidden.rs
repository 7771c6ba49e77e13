//! How a function runs that is given a secret, or gives one out.

use crate::error::Result;
use crate::pg::report;

/// Whatever is raised meanwhile, by us, by a lock that is not had, by whoever ends the statement: the statement and its context
/// may have the secret in them, and are kept out of the log.
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> T {
    let _hidden = report::hide_statement();
    match work() {
        Ok(value) => value,
        Err(error) => report::raise(error),
    }
}
