//! Checking a definition against the catalog before it becomes a flow.

use super::catalog;
use super::coalesce;
use super::compile::{self, Program};
use super::definition::{Definition, Mode, OnError, When};
use super::publish_statement;
use super::schedules;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::{role, spi, subxact};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use std::fmt::Write as _;

/// Checks a definition against the catalog, with the rights under which it will run.
/// `reader`: who makes the flow, or made it; None when that is not a database role, and is then not asked again.
pub fn checked(definition: &Definition, run_as: Oid, reader: Option<Oid>) -> Result<Program> {
    let _nest = Nest::pinned_path();
    try_fields(definition)?;
    let program = compile::compile(definition)?;
    if let Some(reader) = reader {
        may_read_source(definition, run_as, reader)?;
    }
    publish_statement::usable(definition, run_as)?;
    coalesce::fits(definition, &program)?;
    fits_mode(definition, program.compiled.target.as_deref())?;
    // A flow in shadow reads back what it would write.
    let shadow = definition.shadow.then_some((program.preview.as_str(), compile::TYPES));
    for (sql, types) in program.statements().into_iter().chain(shadow) {
        subxact::rehearse(|| {
            let _acting = role::act_as(run_as);
            spi::explain(sql, types)
        })
        .map_err(|failure| {
            let hint = failure.hint.clone().unwrap_or_else(|| match failure.sqlstate.as_str() {
                "42501" if definition.shadow => format!(
                    "The flow runs as {}: GRANT that role what the flow reads and writes, and in shadow SELECT on the whole target.",
                    role::name_of(run_as).unwrap_or_default()
                ),
                "42501" => format!(
                    "The flow runs as {}: GRANT that role what the flow reads and writes, or name another in \"run_as\".",
                    role::name_of(run_as).unwrap_or_default()
                ),
                "42P10" => {
                    "The \"key\" (with organization_id in front where the table has it) must be the columns of a unique index."
                        .to_owned()
                }
                "42804" => "Cast the expression to the column's type, such as (new.total)::numeric.".to_owned(),
                _ => "usher.explain_flow() shows the statement of a flow that could be created.".to_owned(),
            });
            UsherError::from(failure).hint(hint)
        })?;
    }
    if let Some(merge) = &program.merge {
        may_number(&merge.sequences, run_as)?;
    }
    Ok(program)
}

/// A merge that makes rows draws their numbers, for which the rights on their table are not enough.
fn may_number(sequences: &[Oid], run_as: Oid) -> Result<()> {
    let kept = spi::read::<String>(
        "SELECT s.id::regclass::text FROM unnest($1::oid[]) AS s (id) WHERE NOT pg_catalog.has_sequence_privilege($2, s.id, 'USAGE') LIMIT 1",
        &[spi::arg(sequences.to_vec()), spi::arg(run_as)],
    )?;
    let Some(name) = kept else { return Ok(()) };
    let role = role::name_of(run_as).unwrap_or_default();
    Err(UsherError::forbidden(format!("{role}, the role that the flow runs as, may not draw numbers from {name}"))
        .detail("A merge knows the id of a row before it makes it.")
        .hint(format!("GRANT USAGE ON SEQUENCE {name} TO {role};")))
}

/// A flow carries rows of its source to its target: whoever makes it, or the role that it runs as, must be allowed to
/// read them.
fn may_read_source(definition: &Definition, run_as: Oid, reader: Oid) -> Result<()> {
    let When::Change { table, .. } = &definition.when else { return Ok(()) };
    let source = catalog::table(table, "\"when\"")?;
    let allowed = spi::read::<bool>(
        "SELECT pg_catalog.has_table_privilege($1, $3, 'SELECT') OR pg_catalog.has_table_privilege($2, $3, 'SELECT')",
        &[spi::arg(reader), spi::arg(run_as), spi::arg(source.oid)],
    )?;
    if allowed == Some(true) {
        return Ok(());
    }
    let name = role::name_of(run_as).unwrap_or_default();
    Err(UsherError::forbidden(format!("neither you nor {name}, the role that the flow runs as, may read {table}"))
        .hint(format!("GRANT SELECT ON {table} TO {name}, or let a role create the flow that may read the table.")))
}

/// Tries every expression by itself, so that an error can name its field.
fn try_fields(definition: &Definition) -> Result<()> {
    let source = match &definition.when {
        When::Change { table, .. } => Some(catalog::table(table, "\"when\"")?),
        When::Request { .. } | When::Schedule(_) | When::Event(_) | When::Step(_) => None,
    };
    if let When::Schedule(schedule) = &definition.when {
        schedules::check_zone(schedule)?;
    }
    let scheduled_at = if matches!(definition.when, When::Schedule(_)) { ", NULL::timestamptz AS scheduled_at" } else { "" };
    compile::refuse_rows_of_requests(definition)?;
    let mut scope = format!(
        "(SELECT NULL::uuid AS id, NULL::uuid AS organization_id, NULL::jsonb AS payload, NULL::text AS op, NULL::timestamptz AS created_at{scheduled_at}) AS job"
    );
    if matches!(definition.when, When::Event(_)) {
        scope += " CROSS JOIN (SELECT NULL::uuid AS id, NULL::uuid AS organization_id, NULL::text AS type, NULL::jsonb AS data, \
                  NULL::timestamptz AS emitted_at, NULL::text AS emitted_by) AS event";
    }
    if matches!(definition.when, When::Step(_)) {
        scope += " CROSS JOIN (SELECT NULL::uuid AS id, NULL::uuid AS organization_id, NULL::text AS workflow, NULL::text AS step, \
                  NULL::jsonb AS input, NULL::jsonb AS results, NULL::jsonb AS item, NULL::jsonb AS result, \
                  NULL::timestamptz AS started_at) AS run";
    }
    if let Some(source) = &source {
        let _ = write!(scope, " CROSS JOIN {0} AS new CROSS JOIN {0} AS old", source.sql);
    }
    let own_scope = scope.clone();
    for (name, join) in &definition.joins {
        let table = catalog::table(&join.table, &format!("join \"{name}\""))?;
        let _ = write!(scope, " CROSS JOIN {} AS {name}", table.sql);
        let try_join = format!("{own_scope} CROSS JOIN {} AS {name}", table.sql);
        try_one(&format!("join.{name}"), &join.on, &format!("SELECT 1 FROM {try_join} WHERE ({}\n)", join.on))?;
    }
    if let Some(text) = &definition.condition {
        try_one("if", text, &format!("SELECT 1 FROM {scope} WHERE ({text}\n)"))?;
    }
    let mut transformed = Vec::new();
    for (group, map) in [("set", &definition.set), ("set_once", &definition.set_once)] {
        for (name, text) in map {
            // Naming job.id beside it makes an aggregate fail here, which would fold the batch into one row; COALESCE takes
            // no function that returns a set, which would write several rows for one job.
            try_one(&format!("{group}.{name}"), text, &format!("SELECT job.id, COALESCE(({text}\n), NULL) FROM {scope}"))?;
            transformed.push(format!("({text}\n) AS {}", quote_identifier(name)));
        }
    }
    for (name, text) in &definition.check {
        let row = format!("(SELECT {} FROM {scope}) AS s", transformed.join(", "));
        try_one(&format!("check.{name}"), text, &format!("SELECT 1 FROM {row} WHERE ({text}\n)"))?;
    }
    for (number, text) in definition.limit_keys() {
        let field = format!("limits.{}.key", number + 1);
        try_one(&field, text, &format!("SELECT job.id, COALESCE(({text}\n)::text, NULL) FROM {scope}"))?;
    }
    if let Some(link) = &definition.link {
        try_one("link.left", &link.left, &format!("SELECT ({}\n)::text FROM {scope}", link.left))?;
    }
    Ok(())
}

pub(super) fn try_one(field: &str, text: &str, sql: &str) -> Result<()> {
    subxact::rehearse(|| spi::plans(sql, &[])).map_err(|failure| {
        let aggregate = failure.sqlstate == "42803";
        // PostgreSQL's own complaint about an aggregate is about a column that the author never wrote.
        let message = if aggregate { "an aggregate would fold the whole batch into one row" } else { &failure.message };
        let hint = match failure.hint {
            _ if aggregate => "Use a window function, such as count(*) OVER ().".to_owned(),
            Some(hint) => hint,
            None if field.starts_with("check.") => {
                "A check names the columns of the transformed row: those of \"set\".".to_owned()
            }
            None => {
                "Columns are new.x, old.x, job.x, event.x or those of a join; functions outside pg_catalog need their schema."
                    .to_owned()
            }
        };
        UsherError::new(failure.code, format!("{field}: {message}")).detail(format!("The expression is: {text}")).hint(hint)
    })
}

/// Definitions that would hurt the writer are refused: what a deferred constraint finds comes only at its COMMIT.
fn fits_mode(definition: &Definition, target: Option<&str>) -> Result<()> {
    let (Mode::Transactional, Some(target)) = (definition.mode, target) else {
        return Ok(());
    };
    let table = catalog::table(target, "\"then\"")?;
    // A flow that may abort its writer may leave keys to COMMIT; a trigger would run there with the writer's rights.
    let deferred = spi::read::<String>(
        "SELECT c.conname::text FROM pg_catalog.pg_constraint c WHERE c.conrelid = $1 AND c.condeferred AND c.contype <> 't' AND NOT $2
         UNION ALL SELECT t.tgname::text FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND t.tginitdeferred AND NOT t.tgisinternal LIMIT 1",
        &[spi::arg(table.oid), spi::arg(definition.on_error == OnError::Abort)],
    )?;
    match deferred {
        Some(name) => Err(UsherError::definition(format!("\"{name}\" on {target} is checked only at COMMIT"))
            .detail("It would run at the writer's COMMIT, with the writer's rights, and what it finds would fail the COMMIT.")
            .hint("Use \"mode\": \"realtime\", or \"on_error\": \"abort\" for a key if the writer shall fail, or make it immediate.")),
        None => Ok(()),
    }
}
