//! The statement of a `call`: the function is called once per job, in the order of the batch.

use super::catalog::Function;
use super::compile::Writer;
use crate::error::{Result, UsherError, did_you_mean};
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;

/// A parameter of this name gets the job's id, unless "set" gives it something else: a key that stays the same however often
/// the job is tried.
const JOB_ID: &str = "job_id";

/// Calls a function once per job; the arguments are the transformed row.
pub(super) fn call(w: &Writer<'_>, function: &Function) -> Result<(String, String)> {
    let definition = w.definition;
    for name in definition.set.keys().filter(|_| !definition.calls_per_batch()) {
        if !function.names.contains(name) {
            let known: Vec<&str> = function.names.iter().map(String::as_str).collect();
            let named: Vec<&str> = known.into_iter().filter(|name| !name.is_empty()).collect();
            return Err(UsherError::definition(format!("{} has no parameter \"{name}\"", function.sql)).hint(
                if named.is_empty() {
                    "Its parameters have no names; give them names, because \"set\" gives the arguments by name.".to_owned()
                } else {
                    format!("{}\"set\" gives the arguments by name: {}.", did_you_mean(name, &named), named.join(", "))
                },
            ));
        }
    }
    if definition.calls_per_batch() && !function.takes_payload {
        return Err(UsherError::definition(format!(
            "{} does not take one jsonb, as a call for a whole batch does",
            function.sql
        ))
        .hint("Give it one parameter of type jsonb: the array of what it would get for each job; or leave out \"per\"."));
    }
    let mut fields = String::new();
    for (name, text) in &definition.set {
        let _ = write!(fields, ", ({text}\n) AS {}", quote_identifier(name));
    }
    let mut arguments: Vec<String> = definition.set.keys().map(|name| format!("{0} => v.{0}", quote_identifier(name))).collect();
    let own_key =
        definition.is_external() && !definition.set.contains_key(JOB_ID) && function.names.iter().any(|name| name == JOB_ID);
    if own_key {
        let _ = write!(fields, ", b.id AS {JOB_ID}");
        arguments.push(format!("{JOB_ID} => v.{JOB_ID}"));
    }
    if definition.set.is_empty() && function.takes_payload {
        fields = ", b.new AS payload".to_owned();
        arguments = vec!["v.payload".to_owned()];
    } else if definition.set.is_empty() && definition.is_external() && function.takes_payload_and_job {
        fields += ", b.new AS payload";
        arguments.insert(0, "v.payload".to_owned());
    } else if definition.set.is_empty() && !function.takes_nothing && function.names.is_empty() {
        return Err(UsherError::definition(format!("{} needs arguments that have no names", function.sql))
            .hint("Name the function's parameters and give them in \"set\"."));
    }
    let mut checks = String::new();
    for (name, text) in &definition.check {
        let _ = write!(checks, " WHEN ({text}\n) IS FALSE THEN {}", quote_literal(name));
    }
    let failed = if checks.is_empty() { "NULL::text".to_owned() } else { format!("CASE{checks} END") };
    let rows = format!(
        "WITH s AS MATERIALIZED (SELECT b.n AS usher_n{fields} FROM {}{}),
 v AS MATERIALIZED (SELECT s.*, {failed} AS usher_failed FROM s)",
        w.from(),
        w.range()
    );
    if definition.calls_per_batch() {
        return Ok(per_batch(function, &rows, definition.set.is_empty()));
    }
    let arguments = arguments.join(", ");
    let preview = format!(
        "{} SELECT CASE WHEN v.usher_failed IS NULL THEN pg_catalog.jsonb_build_object('call', {}, 'arguments', pg_catalog.to_jsonb(v.*) - 'usher_n' - 'usher_failed') ELSE pg_catalog.jsonb_build_object('failed check', v.usher_failed) END FROM v",
        rows,
        quote_literal(&function.sql)
    );
    if definition.keeps_result() {
        if function.returns_nothing {
            return Err(UsherError::definition(format!("{} returns nothing that could be kept", function.sql))
                .hint("Leave out \"keep_result\", or let the function return a value."));
        }
        // A fourth column: what came back, as text, so that it is handed on as it is.
        let (value, end) = if function.returns_set {
            ("pg_catalog.jsonb_agg(w.usher_result)::text", " GROUP BY w.usher_n")
        } else {
            ("w.usher_result::text", "")
        };
        let apply = format!(
            "{rows}, w AS MATERIALIZED (SELECT v.usher_n, pg_catalog.to_jsonb({}({arguments})) AS usher_result FROM v WHERE v.usher_failed IS NULL ORDER BY v.usher_n)
 SELECT v.usher_n::integer AS n, v.usher_failed, false, NULL::text FROM v WHERE v.usher_failed IS NOT NULL
 UNION ALL SELECT w.usher_n::integer, NULL, false, {value} FROM w{end} ORDER BY 1",
            function.sql
        );
        return Ok((apply, preview));
    }
    let effect = format!("SELECT {}({arguments}) FROM v WHERE v.usher_failed IS NULL ORDER BY v.usher_n", function.sql);
    let apply = format!(
        // The count makes every call happen; the row without a number that it leaves is skipped by the reader.
        "{}, w AS MATERIALIZED ({effect}) SELECT v.usher_n::integer, v.usher_failed, false
   FROM (SELECT pg_catalog.count(*) AS calls FROM w) AS done LEFT JOIN v ON v.usher_failed IS NOT NULL ORDER BY 1",
        rows
    );
    Ok((apply, preview))
}

/// One call with an array of what the function would get for each job, in the order of the batch: the payload, or the fields
/// of "set".
fn per_batch(function: &Function, rows: &str, whole: bool) -> (String, String) {
    let element = if whole { "v.payload" } else { "pg_catalog.to_jsonb(v.*) - 'usher_n' - 'usher_failed'" };
    let apply = format!(
        "{rows}, w AS MATERIALIZED (SELECT {}(a.jobs)
   FROM (SELECT pg_catalog.jsonb_agg({element} ORDER BY v.usher_n) AS jobs FROM v WHERE v.usher_failed IS NULL) AS a WHERE a.jobs IS NOT NULL)
 SELECT v.usher_n::integer, v.usher_failed, false
   FROM (SELECT pg_catalog.count(*) AS calls FROM w) AS done LEFT JOIN v ON v.usher_failed IS NOT NULL ORDER BY 1",
        function.sql
    );
    let preview = format!(
        "{rows} SELECT CASE WHEN v.usher_failed IS NULL THEN pg_catalog.jsonb_build_object('call', {}, 'argument', pg_catalog.jsonb_build_array({element}))
                            ELSE pg_catalog.jsonb_build_object('failed check', v.usher_failed) END FROM v",
        quote_literal(&function.sql)
    );
    (apply, preview)
}
