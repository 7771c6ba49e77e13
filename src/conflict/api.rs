//! SQL functions of conflicts.

use super::look::{self, Counts};
use super::resolve::{self, Decision};
use super::{failed, manage, pairs, store};
use crate::error::UsherError;
use crate::guard::audit;
use crate::pg::{locks, role, xact};
use crate::rates;
use crate::registry::identity;
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

type Sql<T> = std::result::Result<T, ErrorReport>;

fn rule(name: Option<String>, definition: Option<JsonB>) -> std::result::Result<(String, serde_json::Value), UsherError> {
    let name = UsherError::given(name, "the rule's name")?;
    Ok((name, definition.ok_or_else(|| UsherError::missing("the definition"))?.0))
}

/// From now on rows of a table that share a resource and overlap in time are found, and written into `usher.conflicts`.
///
/// Arguments: `name` (`rule` or `pack.rule`), `definition` (see docs/conflicts.md).
/// Errors: 42501 for callers who are no operators or may not read the tables, 42P17 for a definition that cannot work, 42703/42P01 for
/// a name that does not exist, 42710 when the rule exists, 55P03 when the table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn create_overlap_rule(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    identity::require_operator("create overlap rules")?;
    let (name, definition) = rule(name, definition)?;
    Ok(manage::create(setup::current()?, &name, definition)?)
}

/// Gives an overlap rule a new definition; conflicts that it does not mean are gone with the next sweep, which follows at once.
/// Errors: as `create_overlap_rule`, and 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn alter_overlap_rule(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    identity::require_operator("alter overlap rules")?;
    let (name, definition) = rule(name, definition)?;
    Ok(manage::alter(setup::current()?, &name, definition)?)
}

/// Removes an overlap rule; its conflicts are gone. Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn drop_overlap_rule(name: Option<String>) -> Sql<String> {
    identity::require_operator("drop overlap rules")?;
    Ok(manage::drop(setup::current()?, &UsherError::given(name, "the rule's name")?)?)
}

/// Looks at all rows of a rule, or of all rules: what overlaps is in `usher.conflicts` afterwards, and nothing else is open.
///
/// Arguments: `rule`, by name; NULL: all. Returns for each rule how many conflicts were raised, how many are gone, and how many pairs
/// overlap, with those that were accepted; NULL where the rule does not fit its tables, see `usher.overlap_rules.reason`.
/// Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn check_overlaps(
    rule: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (name!(rule, String), name!(raised, Option<i64>), name!(gone, Option<i64>), name!(found, Option<i64>)),
    >,
    ErrorReport,
> {
    identity::require_operator("check overlaps")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let rules = match rule {
        Some(name) => vec![store::by_name(&name)?],
        None => store::rules("true", &[])?,
    };
    locks::look_for_overlaps(true);
    // A worker that meets us meanwhile looks again afterwards.
    xact::note_overlaps();
    let mut rows = Vec::with_capacity(rules.len());
    for rule in rules {
        let counts = look::sweep(installed, &rule)?;
        let count = |which: fn(&Counts) -> i64| counts.as_ref().map(which);
        rows.push((rule.name, count(|c| c.raised), count(|c| c.gone), count(|c| c.found)));
    }
    Ok(TableIterator::new(rows))
}

/// Decides a conflict. Returns its new state.
///
/// Arguments: `conflict`, its id; `decision`, about a pair `left` or `right` (that side's values, or its missing row, hold on both sides) or
/// `values`, with `decided_values` for each field of the conflict, as the left side has it; about an overlap `accept` (both rows stay; the pair is not raised again while neither
/// changes its resource or period) or `ended` (they do not overlap any more); `note`.
/// Errors: 42501 unless the caller is an admin of the conflict's organization, 22023 for an unknown decision, 55000 when the conflict is
/// not open, or when the overlap that is said to have ended is still there, 0A000 for kinds that are not decided here yet.
#[pg_extern(volatile, parallel_unsafe)]
fn resolve_conflict(
    conflict: Option<Uuid>,
    decision: Option<String>,
    decided_values: default!(Option<JsonB>, "NULL"),
    note: default!(Option<String>, "NULL"),
) -> Sql<String> {
    let installed = setup::current()?;
    let id = conflict.ok_or_else(|| UsherError::missing("the conflict's id"))?;
    let wanted =
        Decision { decision: UsherError::given(decision, "the decision")?, values: decided_values.map(|values| values.0), note };
    Ok(resolve::resolve(installed, id, wanted, |organization| {
        audit::note_legend("resolve_conflict", organization)?;
        rates::take("resolve_conflict", Some(organization))
    })?)
}

/// What holds of each field of a pair that a merge keeps equal, and why, as both rows are now. Nothing is written.
///
/// Arguments: `link`, the id of the pair in `usher.links`. Returns for each field what both sides last agreed on, what they have now, the
/// strategy, whose value holds, and why; NULL in both bases where they have not agreed yet.
/// Errors: 42501 unless the caller is an admin of the link's organization, 55000 for a link that no merge keeps.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn explain_merge(
    link: Option<Uuid>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(field, String),
            name!(base_left, Option<String>),
            name!(base_right, Option<String>),
            name!(left_value, Option<String>),
            name!(right_value, Option<String>),
            name!(strategy, String),
            name!(holds, String),
            name!(why, String),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let link = link.ok_or_else(|| UsherError::missing("the link's id"))?;
    let rows = pairs::explain(installed, link, |organization| {
        audit::note_legend("explain_merge", organization)?;
        rates::take("explain_merge", Some(organization))
    })?;
    Ok(TableIterator::new(
        rows.into_iter().map(|row| {
            (row.field, row.base_left, row.base_right, row.left, row.right, row.strategy, row.holds.to_owned(), row.why)
        }),
    ))
}

/// Jobs of a merge have failed for good: what kept its rows apart becomes a conflict. Internal, called when dead letters are written.
///
/// Arguments: `flow`, `organizations` and `jobs` of dead letters. Errors: none of its own.
#[pg_extern(volatile, parallel_unsafe)]
fn note_merges_failed(flow: i32, organizations: Vec<Uuid>, jobs: Vec<Uuid>) -> Sql<()> {
    let _acting = role::internal(setup::current()?.owner);
    Ok(failed::failed(flow, organizations, jobs)?)
}
