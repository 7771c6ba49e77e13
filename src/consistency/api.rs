//! SQL functions of rules.

use super::look::{self, Scope, Seen};
use super::{explain, life, manage, monitor, store};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, xact};
use crate::rates;
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::JsonB;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Sql<T> = std::result::Result<T, ErrorReport>;

fn given(name: Option<String>, definition: Option<JsonB>) -> Result<(String, serde_json::Value)> {
    let name = UsherError::given(name, "the rule's name")?;
    Ok((name, definition.ok_or_else(|| UsherError::missing("the definition"))?.0))
}

/// From now on rows for which a rule does not hold are found, and written into `usher.violations`.
///
/// Arguments: `name` (`rule` or `pack.rule`), `definition` (see docs/consistency.md).
/// Errors: 42501 for callers who are no operators, or whose role may not read the tables, 42P17 for a definition that cannot work,
/// 42703/42P01 for a name that does not exist, 42804 for a type that does not fit, 42710 when the rule exists.
#[pg_extern(volatile, parallel_unsafe)]
fn create_rule(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    identity::require_operator("create rules")?;
    let (name, definition) = given(name, definition)?;
    Ok(manage::create(setup::current()?, &name, None, definition)?)
}

/// Gives a rule a new definition; everything is looked at at once. Violations that it does not mean are gone then.
/// Errors: as `create_rule`, and 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn alter_rule(name: Option<String>, definition: Option<JsonB>) -> Sql<String> {
    identity::require_operator("alter rules")?;
    let (name, definition) = given(name, definition)?;
    Ok(manage::alter(setup::current()?, &name, definition)?)
}

/// Removes a rule; its violations are gone. Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn drop_rule(name: Option<String>) -> Sql<String> {
    identity::require_operator("drop rules")?;
    Ok(manage::drop(setup::current()?, &UsherError::given(name, "the rule's name")?)?)
}

/// Switches a rule on; everything is looked at. Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn enable_rule(name: Option<String>) -> Sql<String> {
    identity::require_operator("enable rules")?;
    Ok(manage::switch(setup::current()?, &UsherError::given(name, "the rule's name")?, true)?)
}

/// Switches a rule off; its violations stay as they are. Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn disable_rule(name: Option<String>) -> Sql<String> {
    identity::require_operator("disable rules")?;
    Ok(manage::switch(setup::current()?, &UsherError::given(name, "the rule's name")?, false)?)
}

/// Looks at everything that a rule is about, now; `usher.violations` shows what was found.
///
/// Arguments: `rule`, by name; `organization`, slug or id, NULL: all. Returns how many bad rows are new, how many were known, and how many violations
/// are gone.
/// Errors: 42501 for callers who are neither operators nor admins of the organization that they name, 42704 when there is no such
/// rule, 55000 in a transaction that does not see what others commit, and for a rule that is broken; for callers who are no operators also when
/// the rule could not be evaluated, without saying of what.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn check_rule(
    rule: Option<String>,
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<'static, (name!(rule, String), name!(new, i64), name!(still, i64), name!(gone, i64))>,
    ErrorReport,
> {
    let organization = match organization {
        Some(named) => Some(managed("check_rule", &named)?),
        None => {
            identity::require_operator("check rules for all organizations")?;
            None
        }
    };
    let name = UsherError::given(rule, "the rule's name")?;
    let operator = identity::is_operator();
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let rule = store::by_name(&name)?;
    let seen = if operator {
        check(installed, &rule, organization, &mut false)?
    } else {
        looked(installed, &rule, organization, operator).map_err(UsherError::from)?
    };
    Ok(TableIterator::once((rule.name, seen.new, seen.still, seen.gone)))
}

/// Looks at everything that the rules are about, now, one after the other: `new`, `still` and `gone` as `check_rule`; NULL for a rule that is
/// broken or whose look failed, with the reason in `error`.
///
/// Arguments: `organization`, slug or id, NULL: all.
/// Errors: 42501 for callers who are neither operators nor admins of the organization that they name, 55000 in a transaction that
/// does not see what others commit.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the type says the columns")]
fn check_rules(
    organization: default!(Option<String>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(rule, String),
            name!(new, Option<i64>),
            name!(still, Option<i64>),
            name!(gone, Option<i64>),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let organization = match organization {
        Some(named) => Some(managed("check_rules", &named)?),
        None => {
            identity::require_operator("check rules for all organizations")?;
            None
        }
    };
    let operator = identity::is_operator();
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let mut rows = Vec::new();
    for rule in store::rules("l.enabled", &[])? {
        match looked(installed, &rule, organization, operator) {
            Ok(seen) => rows.push((rule.name, Some(seen.new), Some(seen.still), Some(seen.gone), None)),
            Err(failure) => rows.push((rule.name, None, None, None, Some(failure.line()))),
        }
    }
    Ok(TableIterator::new(rows))
}

/// Has a worker look at everything that rules are about as soon as it can, but at none that was looked at in the last ten seconds. For who has learnt that something
/// went wrong. Returns how many rules that concerns.
///
/// Arguments: `rule`, its name, NULL: all; `pack`, only those of this pack. Operators ask for any rule, other roles for those that run as them; what is off or broken
/// is left alone.
/// Errors: 42501 for callers who are no operators and as whom no rule runs, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn check_soon(rule: default!(Option<String>, "NULL"), pack: default!(Option<String>, "NULL")) -> Sql<i64> {
    let asks = role::current();
    let operator = identity::is_operator();
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    Ok(manage::check_soon(rule.as_deref(), pack.as_deref(), (!operator).then_some(asks))?)
}

/// What a rule does, in words, and the SQL that it runs. Errors: 42501 for callers who are no operators, 42704 when there is no such rule.
#[pg_extern(volatile, parallel_unsafe)]
fn explain_rule(name: Option<String>) -> Sql<String> {
    identity::require_operator("explain rules")?;
    Ok(explain::explain(setup::current()?, &UsherError::given(name, "the rule's name")?)?)
}

/// Accepts a violation for as long as its row is bad: it is neither counted nor told any more. If it ends and the row becomes bad again it
/// is open again. Returns the new status.
///
/// Arguments: `violation`, its id; `because`, why.
/// Errors: 42501 unless the caller is an admin of the violation's organization, 22023 without a reason, 55000 when it is not open.
#[pg_extern(volatile, parallel_unsafe)]
fn waive_violation(violation: Option<Uuid>, because: Option<String>) -> Sql<String> {
    let id = violation.ok_or_else(|| UsherError::missing("the violation's id"))?;
    let because = UsherError::given(because, "the reason")?;
    Ok(life::waive(setup::current()?, id, &because, |organization| called("waive_violation", organization))?)
}

/// Ends that a violation is waived: it is open. Returns the new status.
///
/// Arguments: `violation`, its id. Errors: 42501 unless the caller is an admin of the violation's organization, 55000 when it is not waived.
#[pg_extern(volatile, parallel_unsafe)]
fn reopen_violation(violation: Option<Uuid>) -> Sql<String> {
    let id = violation.ok_or_else(|| UsherError::missing("the violation's id"))?;
    Ok(life::reopen(setup::current()?, id, |organization| called("reopen_violation", organization))?)
}

fn managed(function: &str, organization: &str) -> Result<Uuid> {
    let organization = identity::organization(organization, Right::Manage)?;
    called(function, organization)?;
    Ok(organization)
}

fn called(function: &str, organization: Uuid) -> Result<()> {
    audit::note_legend(function, organization)?;
    rates::take(function, Some(organization))
}

/// Looks, for whoever asks. The query is asked about everybody's rows, and a message of what it stumbles over may hold what is in them, as it may the query: why it
/// could not be asked is for those who run the installation.
fn looked(
    installed: Installed,
    rule: &store::Rule,
    organization: Option<Uuid>,
    operator: bool,
) -> std::result::Result<Seen, Failure> {
    let mut asked = false;
    subxact::attempt(|| check(installed, rule, organization, &mut asked)).map_err(|failure| {
        if operator || !asked || failure.is_busy() {
            return failure;
        }
        pgrx::log!("usher: rule \"{}\" could not be evaluated: {}", rule.name, failure.line());
        if let Err(error) = monitor::failed(installed, rule, &failure) {
            pgrx::log!("usher: that of rule \"{}\" could not be noted: {}", rule.name, error.message);
        }
        Failure {
            sqlstate: "55000".to_owned(),
            code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!("rule \"{}\" could not be evaluated", rule.name),
            detail: None,
            hint: Some("usher.rules.last_error, or the server's log, tells those who run the installation why.".to_owned()),
        }
    })
}

/// `asked`: set once what goes wrong is a matter of the rule.
fn check(installed: Installed, rule: &store::Rule, organization: Option<Uuid>, asked: &mut bool) -> Result<Seen> {
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see what others have written meanwhile")
            .hint("Check rules in READ COMMITTED."));
    }
    // In the order of their numbers, so that two who check all rules do not wait for each other.
    let rule = store::hold(rule)?;
    *asked = true;
    let fitted = rule.fit(installed)?;
    look::look(installed, &rule, &fitted, &Scope::All(organization))
}
