//! SQL functions of repairs.

use super::repair::{self, Line, Order};
use super::repair_store::{self as repairs, Choice};
use super::{look, repair_auto, repair_undo, store};
use crate::error::{Result, UsherError};
use crate::pg::{role, spi, subxact};
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use std::collections::HashMap;

type Sql<T> = std::result::Result<T, ErrorReport>;

/// Violations that one call repairs.
const MOST: i64 = 100_000;

fn named(organization: Option<String>) -> Result<Option<Uuid>> {
    organization.map(|named| identity::organization(&named, Right::Manage)).transpose()
}

/// What a repair would be about: the violations that are open and bad now, each with its row, what would be done, and a mark by which
/// `usher.repair_rule` knows whether the row has changed since. Nothing is changed.
///
/// Arguments: `rule`, by name; `organization`, slug or id, NULL: all; `most`, how many violations, 1 to 10000.
/// Errors: 42501 for callers who are no operators, 42704 when there is no such rule, 55000 for a rule without a repair, and in a
/// transaction that does not see what others commit; those of `create_rule` when the rule or its repair does not fit any more.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn plan_repair(
    rule: Option<String>,
    organization: default!(Option<String>, "NULL"),
    most: default!(Option<i32>, 100),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(violation, Uuid),
            name!(organization_id, Uuid),
            name!(key, JsonB),
            name!(wrong, String),
            name!(bad, JsonB),
            name!(does, String),
            name!(expect, String),
        ),
    >,
    ErrorReport,
> {
    identity::require_operator("plan repairs")?;
    let organization = named(organization)?;
    let most = match most.unwrap_or(100) {
        most @ 1..=10_000 => i64::from(most),
        _ => {
            return Err(UsherError::invalid("\"most\" is not a number from 1 to 10000").hint("Leave it out for 100.").into());
        }
    };
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let rule = repair::ready(&store::by_name(&UsherError::given(rule, "the rule's name")?)?)?;
    let fitted = rule.fit(installed)?;
    let mender = repair::mender(installed, &rule, &fitted)?;
    // Looked at anew, and nothing of that is kept.
    let rows = subxact::rehearse(|| {
        let mut rows = Vec::new();
        for (organization, violations) in repairs::chosen(rule.id, Choice::Open(organization, most))? {
            let known = repairs::read(organization, violations)?;
            let keys = look::Keys {
                organizations: known.iter().map(|_| Some(organization).filter(|id| id.as_bytes() != &[0; 16])).collect(),
                keys: known.iter().map(|open| JsonB(open.key.clone())).collect(),
            };
            look::look(installed, &rule, &fitted, &look::Scope::Keys(&keys))?;
            let now = repairs::read(organization, known.iter().map(|open| open.id).collect())?;
            rows.extend(
                now.into_iter()
                    .filter(|open| open.is_open)
                    .map(|open| (open.id, organization, JsonB(open.key), open.wrong, JsonB(open.row), mender.says(), open.hash)),
            );
        }
        Ok(rows)
    })
    .map_err(UsherError::from)?;
    Ok(TableIterator::new(rows))
}

/// A row of `repair_rule`.
type Shown = (Option<Uuid>, Uuid, Option<JsonB>, String, Option<String>, Option<JsonB>, Option<Uuid>);

fn shown(lines: Vec<Line>) -> TableIterator<'static, Shown> {
    TableIterator::new(lines.into_iter().map(|line| {
        (
            line.violation,
            line.organization,
            line.key.map(JsonB),
            line.outcome.to_owned(),
            line.error,
            line.changes.map(JsonB),
            line.repair,
        )
    }))
}

/// Repairs some violations of a rule, or tries it out.
fn carry_out(
    installed: Installed,
    rule: &store::Rule,
    chosen: impl FnOnce() -> Result<Vec<(Uuid, Vec<Uuid>)>>,
    dry_run: bool,
    expect: Option<HashMap<Uuid, String>>,
    by: String,
) -> Result<Vec<Line>> {
    let rule = &repair::ready(rule)?;
    let fitted = rule.fit(installed)?;
    let mender = repair::mender(installed, rule, &fitted)?;
    repair::seen(rule, &fitted, &mender)?;
    let order = Order { installed, rule, fitted: &fitted, mender: &mender, by, automatic: false, expect };
    let work = || {
        let mut lines = Vec::new();
        for (organization, violations) in chosen()? {
            lines.extend(order.run(organization, violations)?);
        }
        Ok(lines)
    };
    if !dry_run {
        return work();
    }
    let mut lines = subxact::rehearse(work).map_err(UsherError::from)?;
    lines.iter_mut().for_each(|line| line.repair = None);
    Ok(lines)
}

fn expected(expect: Option<JsonB>) -> Result<Option<HashMap<Uuid, String>>> {
    let Some(expect) = expect else { return Ok(None) };
    let wrong = || {
        UsherError::invalid("\"expect\" is not an object of violations and their marks")
            .hint("expect => (SELECT jsonb_object_agg(violation, expect) FROM usher.plan_repair('the rule'))")
    };
    let fields = expect.0.as_object().ok_or_else(wrong)?;
    let read = |(id, mark): (&String, &serde_json::Value)| {
        let id = uuid::Uuid::parse_str(id).map_err(|_| wrong())?;
        Ok((Uuid::from_bytes(*id.as_bytes()), mark.as_str().ok_or_else(wrong)?.to_owned()))
    };
    fields.iter().map(read).collect::<Result<_>>().map(Some)
}

/// Repairs the open violations of a rule. Each is looked at again first, so the repair acts on rows as they are now; what is not bad any
/// more is left alone, and a repair that does not help is undone. A row comes back for each violation: `outcome`, `error`, and the rows
/// that were changed, where they are known and hold its key; those that belong to no single violation come in a row of their own. `repair` is the row of
/// `usher.repairs`: what one statement has done, for up to 10,000 violations of an organization.
///
/// Arguments: `rule`, by name; `dry_run`, everything is done and undone again; `organization`, slug or id, NULL: all; `expect`, the
/// violations of a plan with their marks, as an object: those alone are repaired, and only while their rows are as the plan showed them.
/// Errors: as `plan_repair`; 55000 in a transaction that has left deferred constraints for COMMIT.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn repair_rule(
    rule: Option<String>,
    dry_run: default!(Option<bool>, false),
    organization: default!(Option<String>, "NULL"),
    expect: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(violation, Option<Uuid>),
            name!(organization_id, Uuid),
            name!(key, Option<JsonB>),
            name!(outcome, String),
            name!(error, Option<String>),
            name!(changes, Option<JsonB>),
            name!(repair, Option<Uuid>),
        ),
    >,
    ErrorReport,
> {
    identity::require_operator("repair violations")?;
    let organization = named(organization)?;
    let expect = expected(expect)?;
    let by = identity::author();
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let rule = store::by_name(&UsherError::given(rule, "the rule's name")?)?;
    let only: Option<Vec<Uuid>> = expect.as_ref().map(|expect| expect.keys().copied().collect());
    let chosen = || {
        let mut chosen = repairs::chosen(rule.id, Choice::Open(organization, MOST))?;
        if let Some(only) = &only {
            chosen.iter_mut().for_each(|(_, violations)| violations.retain(|id| only.contains(id)));
            chosen.retain(|(_, violations)| !violations.is_empty());
        }
        Ok(chosen)
    };
    Ok(shown(carry_out(installed, &rule, chosen, dry_run.unwrap_or(false), expect, by)?))
}

/// Repairs one violation, however often that was tried before. Comes back as `repair_rule`.
///
/// Arguments: `violation`, its id; `dry_run`; `expect`, the mark that `plan_repair` has shown for it.
/// Errors: as `repair_rule`; 42704 when there is no such violation, 55000 when it is waived, repaired or gone.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn repair_violation(
    violation: Option<Uuid>,
    dry_run: default!(Option<bool>, false),
    expect: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(violation, Option<Uuid>),
            name!(organization_id, Uuid),
            name!(key, Option<JsonB>),
            name!(outcome, String),
            name!(error, Option<String>),
            name!(changes, Option<JsonB>),
            name!(repair, Option<Uuid>),
        ),
    >,
    ErrorReport,
> {
    identity::require_operator("repair violations")?;
    let id = violation.ok_or_else(|| UsherError::missing("the violation"))?;
    let by = identity::author();
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let found = spi::read_all(
        "SELECT v.organization_id, v.rule_id, v.status FROM usher.violations AS v WHERE v.id = $1",
        &[spi::arg(id)],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<i32>(2)?.unwrap_or_default(), row.get::<String>(3)?.unwrap_or_default())),
    )?;
    let Some((Some(organization), rule, status)) = found.into_iter().next() else {
        return Err(UsherError::not_found("there is no violation of that id")
            .hint("SELECT id, rule, key, wrong FROM usher.violations WHERE status = 'open'; shows those that there are.")
            .into());
    };
    match status.as_str() {
        "open" | "pending" => {}
        "waived" => {
            return Err(UsherError::state("the violation is waived")
                .hint("Somebody has accepted it: usher.reopen_violation() takes that back.")
                .into());
        }
        ended => return Err(UsherError::state(format!("the violation is {ended}")).hint("There is nothing to repair.").into()),
    }
    let rule = store::by_id(rule)?
        .ok_or_else(|| UsherError::state("the rule of the violation is gone").hint("Mend the row by hand."))?;
    let expect = expect.map(|mark| HashMap::from([(id, mark)]));
    let chosen = || Ok(vec![(organization, vec![id])]);
    Ok(shown(carry_out(installed, &rule, chosen, dry_run.unwrap_or(false), expect, by)?))
}

/// Puts the rows that a repair has changed back as they were; its violations are looked at again. All rows or none.
///
/// Arguments: `repair`, its id, as `usher.repairs` shows it.
/// Errors: 42501 for callers who are no operators, 42704 when there is no such repair, 55000 when it is undone already, when its changes
/// are not all known, or when a row is not as the repair has left it.
#[pg_extern(volatile, parallel_unsafe)]
fn undo_repair(repair: Option<Uuid>) -> Sql<String> {
    identity::require_operator("undo repairs")?;
    Ok(repair_undo::asked(setup::current()?, repair)?)
}

/// Carries out now what rules repair by themselves (`"auto"`), as far as it is due: for databases without workers. NULL in the counts:
/// the rule could not be repaired, with the reason in `error`.
///
/// Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn repair_due() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(rule, String),
            name!(repaired, Option<i64>),
            name!(failed, Option<i64>),
            name!(asked, Option<i64>),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    identity::require_operator("have repairs carried out")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let mut rows = Vec::new();
    for id in repair_auto::due(0.0)? {
        let Some(rule) = store::by_id(id)? else { continue };
        match subxact::attempt(|| repair_auto::auto_repair(installed, &rule, None)) {
            Ok(done) => rows.push((rule.name, Some(done.repaired), Some(done.failed), Some(done.asked), None)),
            Err(failure) => rows.push((rule.name, None, None, None, Some(failure.line()))),
        }
    }
    Ok(TableIterator::new(rows))
}
