//! Rates: how often clients may call functions.
//!
//! Owns `usher.rpc_rules`. Called by the functions that clients call; calls `flow` for the words of a rate, `registry`, `setup`.
//! The counting is in `pg::meters`.

mod api;
mod rules;

use crate::error::{Result, UsherError};
use crate::pg::buckets::Pace;
use crate::pg::{guc, meters, report};
use crate::registry::identity::{self, Right};
use pgrx::Uuid;
use serde_json::json;

/// Counts a call of a function for an organization, which the caller belongs to (None: for the person alone). Refused as
/// PT429, which PostgREST makes the HTTP status 429 of.
pub fn take(function: &str, organization: Option<Uuid>) -> Result<()> {
    if identity::in_flow() {
        return Ok(());
    }
    match meters::take(&meters_of(function, organization)?) {
        None => Ok(()),
        Some(wait) => refuse(function, wait),
    }
}

fn meters_of(function: &str, organization: Option<Uuid>) -> Result<Vec<(u64, Pace)>> {
    Ok(rules::asked(function, organization)?.into_iter().map(|asked| (asked.key, asked.pace)).collect())
}

/// The same for an organization by its slug or id, as the caller wrote it.
pub fn take_named(function: &str, organization: &str) -> Result<()> {
    if identity::in_flow() || !rules::any()? {
        return Ok(());
    }
    take(function, Some(identity::organization(organization, Right::Read)?))
}

fn refuse(function: &str, wait: i64) -> ! {
    // Whole seconds, as the header has them; never too early.
    let seconds = (wait as u64).div_ceil(1_000_000_000);
    let message = format!("{function} is called too often");
    let detail = format!("It may be called again in {seconds} s.");
    let hint = "Wait and try again; SELECT * FROM usher.rpc_limits; shows how often it may be called.";
    if guc::custom(c"request.method").is_some_and(|method| !method.is_empty()) {
        // What PostgREST makes a whole response of, header included (its "PGRST" errors).
        let body = json!({"code": "PT429", "message": message, "details": detail, "hint": hint});
        let response = json!({"status": 429, "headers": {"Retry-After": seconds.to_string()}});
        report::raise_as(UsherError::internal(body.to_string()).detail(response.to_string()), b"PGRST");
    }
    report::raise_as(UsherError::internal(message).detail(detail).hint(hint), b"PT429")
}
