//! The statement of a flow that writes nothing itself and whose "set" is to be known: the input of a workflow's run, and what the look of
//! a step tells.

use super::compile::Writer;
use super::definition::{Then, When};
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;

/// What the flow knows of each job as one JSON object, a fourth column as of a call whose result is kept.
pub(super) fn collect(w: &Writer<'_>) -> (String, String) {
    let definition = w.definition;
    let mut fields = String::new();
    for (name, text) in &definition.set {
        let _ = write!(fields, ", ({text}\n) AS {}", quote_identifier(name));
    }
    let mut checks = String::new();
    for (name, text) in &definition.check {
        let _ = write!(checks, " WHEN ({text}\n) IS FALSE THEN {}", quote_literal(name));
    }
    let failed = if checks.is_empty() { "NULL::text".to_owned() } else { format!("CASE{checks} END") };
    let known = match (&definition.then, &definition.when) {
        (Then::Steps(_), When::Change { .. }) if definition.set.is_empty() => {
            let old = if w.has_old() { "b.old" } else { "NULL::jsonb" };
            let op = "CASE b.op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' ELSE 'delete' END";
            let whole = format!("pg_catalog.jsonb_build_object('op', {op}, 'new', b.new, 'old', {old})");
            let _ = write!(fields, ", {whole} AS usher_known");
            "v.usher_known"
        }
        (Then::Steps(_), _) if definition.set.is_empty() => {
            fields += ", b.new AS usher_known";
            "v.usher_known"
        }
        _ => "pg_catalog.to_jsonb(v.*) - 'usher_n' - 'usher_failed'",
    };
    let rows = format!(
        "WITH s AS MATERIALIZED (SELECT b.n AS usher_n{fields} FROM {}{}),
 v AS MATERIALIZED (SELECT s.*, {failed} AS usher_failed FROM s)",
        w.from(),
        w.range()
    );
    let apply = format!(
        "{rows} SELECT v.usher_n::integer, v.usher_failed, false, CASE WHEN v.usher_failed IS NULL THEN ({known})::text END FROM v ORDER BY 1"
    );
    let preview = format!(
        "{rows} SELECT CASE WHEN v.usher_failed IS NULL THEN {known} ELSE pg_catalog.jsonb_build_object('failed check', v.usher_failed) END FROM v"
    );
    (apply, preview)
}
