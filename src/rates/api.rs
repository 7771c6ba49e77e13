//! SQL functions of rates.

use super::rules;
use crate::error::{Result, UsherError};
use crate::flow::{limits, store};
use crate::pg::buckets::Pace;
use crate::pg::{catalog, meters, relcache, role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::setup;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::RefCell;

/// Limits how often a function may be called for an organization, and returns the rule's number. A second call for the same
/// function, organization and role replaces the rate.
///
/// Arguments: `rate`, such as "100 per minute"; `function`, one of pg_usher's that name an organization, or a name that your own
/// function gives to `usher.check_rate()`, NULL for all of them together; `organization`, NULL for each by itself; `role`, whose members are
/// counted together, NULL for everybody but operators; `burst`, how many at once, by default as many as the rate has calls.
/// Errors: 42501 for callers who are no operators, 42P17 for a rate that is none, 42704 for an unknown role or organization.
#[pg_extern(volatile, parallel_unsafe)]
fn limit_rpc(
    rate: Option<String>,
    function: default!(Option<String>, "NULL"),
    organization: default!(Option<String>, "NULL"),
    role: default!(Option<String>, "NULL"),
    burst: default!(Option<i64>, "NULL"),
) -> std::result::Result<i32, ErrorReport> {
    identity::require_operator("limit how often functions are called")?;
    let installed = setup::current()?;
    let rate = UsherError::given(rate, "the rate")?;
    let pace = limits::calls(&rate, burst).map_err(store::refused)?;
    if function.as_deref().is_some_and(|name| name.trim().is_empty()) {
        return Err(UsherError::invalid("the function's name is empty")
            .hint("Name a function, or leave it out: then all count together.")
            .into());
    }
    let organization = organization.map(|named| identity::organization(&named, Right::Manage)).transpose()?;
    if let Some(name) = role.as_deref().filter(|name| role::by_name(name).is_none()) {
        return Err(UsherError::not_found(format!("role \"{name}\" does not exist"))
            .hint("Name a database role, such as authenticated.")
            .into());
    }
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    told();
    let id = spi::one::<i32>(
        "INSERT INTO usher.rpc_rules AS r (of_function, of_organization, of_role, rate, burst, nanoseconds, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT ON CONSTRAINT rpc_rules_key
         DO UPDATE SET rate = EXCLUDED.rate, burst = EXCLUDED.burst, nanoseconds = EXCLUDED.nanoseconds RETURNING r.id",
        &[
            spi::arg(function),
            spi::arg(organization),
            spi::arg(role),
            spi::arg(rate),
            spi::arg(pace.burst),
            spi::arg(pace.interval),
            spi::arg(by),
        ],
    )?;
    Ok(id.unwrap_or(0))
}

/// Every session looks at the rules again, this one after the statement that follows.
fn told() {
    if let Some(oid) = catalog::usher_relation("rpc_rules") {
        catalog::invalidate(oid);
    }
}

/// Ends a limit. Errors: 42501 for callers who are no operators, 42704 when there is none of that number.
#[pg_extern(volatile, parallel_unsafe)]
fn unlimit_rpc(id: Option<i32>) -> std::result::Result<(), ErrorReport> {
    identity::require_operator("end limits of calls")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    told();
    if spi::run("DELETE FROM usher.rpc_rules WHERE id = $1", &[spi::arg(id)])? == 0 {
        return Err(UsherError::not_found("there is no such limit of calls")
            .hint("SELECT id, function, rate FROM usher.rpc_limits; lists them.")
            .into());
    }
    Ok(())
}

/// What the last check was for, and what it came to: worked out once for each statement.
struct Checked {
    statement: i64,
    generation: (u64, u64),
    roles: (pg_sys::Oid, pg_sys::Oid),
    inputs: identity::Inputs,
    function: String,
    organization: Option<Uuid>,
    meters: Vec<(u64, Pace)>,
}

thread_local! {
    static CHECKED: RefCell<Option<Checked>> = const { RefCell::new(None) };
}

fn roles() -> (pg_sys::Oid, pg_sys::Oid) {
    (role::current(), role::outer())
}

impl Checked {
    fn covers(&self, function: &str, organization: Option<Uuid>) -> bool {
        self.statement == xact::statement_began_at()
            && self.generation == relcache::generations()
            && self.roles == roles()
            && self.organization == organization
            && self.function == function
            && self.inputs.same()
    }
}

/// The meters that a call is counted by, for a caller who may ask for the organization.
fn meters_of(function: &str, organization: Option<Uuid>) -> Result<Checked> {
    let (statement, generation) = (xact::statement_began_at(), relcache::generations());
    if let Some(organization) = organization {
        identity::organization(&uuid::Uuid::from_bytes(*organization.as_bytes()).to_string(), Right::Read)?;
    }
    let meters = super::meters_of(function, organization)?;
    let (roles, inputs) = (roles(), identity::inputs());
    Ok(Checked { statement, generation, roles, inputs, function: function.to_owned(), organization, meters })
}

/// For functions of your own: counts a call under that name and returns true, or refuses it. What `usher.limit_rpc()` says of the
/// name applies.
///
/// Arguments: `function`; `organization`, one that the caller belongs to; NULL: the person is counted alone.
/// Errors: PT429 when it is called too often (through PostgREST status 429 with Retry-After), 42501 for a foreign organization.
#[pg_extern(volatile, parallel_unsafe)]
fn check_rate(function: &str, organization: default!(Option<Uuid>, "NULL")) -> std::result::Result<bool, ErrorReport> {
    if identity::in_flow() {
        return Ok(true);
    }
    let checked = match CHECKED.take() {
        Some(checked) if checked.covers(function, organization) => checked,
        _ => meters_of(function, organization)?,
    };
    let passed = meters::take(&checked.meters);
    CHECKED.set(Some(checked));
    if let Some(wait) = passed {
        super::refuse(function, wait);
    }
    Ok(true)
}

/// How often functions may be called, and how many calls each organization of the caller has left now; operators and readers see
/// all of them. Internal, for the view `usher.rpc_limits`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn rpc_states() -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(id, i32),
            name!(function, Option<String>),
            name!(organization, String),
            name!(role, Option<String>),
            name!(rate, String),
            name!(burst, i64),
            name!(calls_left, i64),
        ),
    >,
    ErrorReport,
> {
    let installed = setup::current()?;
    let all = identity::has_reader_rights(role::current());
    let organizations = identity::organizations(Right::Read)?;
    let _acting = role::internal(installed.owner);
    let rows = spi::read_all(
        "SELECT r.id, r.of_function, o.slug, r.of_role, r.rate, r.burst, r.nanoseconds, o.id
           FROM usher.rpc_rules AS r JOIN usher.organizations AS o ON o.id = COALESCE(r.of_organization, o.id)
          WHERE $1 OR o.id = ANY ($2) ORDER BY r.id, o.slug",
        &[spi::arg(all), spi::arg(organizations)],
        |row| {
            let (id, burst) = (row.get::<i32>(1)?.unwrap_or(0), row.get::<i64>(6)?.unwrap_or(1));
            let pace = Pace { interval: row.get::<i64>(7)?.unwrap_or(1), burst };
            let whose = row.get::<Uuid>(8)?.map(|id| *id.as_bytes()).unwrap_or_default();
            let left = meters::left(rules::key(id, &whose), pace);
            let text = |column| Ok::<_, UsherError>(row.get::<String>(column)?);
            Ok((id, text(2)?, text(3)?.unwrap_or_default(), text(4)?, text(5)?.unwrap_or_default(), burst, left))
        },
    )?;
    Ok(TableIterator::new(rows))
}
