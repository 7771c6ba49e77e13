//! SQL functions of the registry.

use super::identity::{self, Right};
use super::{systems, tenancy, zones};
use crate::error::{Result as Outcome, UsherError};
use crate::pg::{catalog, ids, role, spi, xact};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Sql<T> = std::result::Result<T, ErrorReport>;

fn given<'a>(value: &'a Option<String>, what: &str) -> Outcome<&'a str> {
    value.as_deref().map(str::trim).filter(|text| !text.is_empty()).ok_or_else(|| UsherError::missing(what))
}

/// Makes a tenant and returns its id. `timezone` is an IANA name and rules all its schedules and days.
///
/// Errors: 42501 for callers who are no operators, 22023 for a malformed slug or an unknown zone, 23505 when the slug
/// is taken.
#[pg_extern(volatile, parallel_unsafe)]
fn create_organization(
    slug: Option<String>,
    name: default!(Option<String>, "NULL"),
    timezone: default!(Option<String>, "'UTC'"),
) -> Sql<pgrx::Uuid> {
    let installed = identity::require_operator("create organizations")?;
    let slug = given(&slug, "the organization's slug")?;
    systems::well_formed(slug, &['-', '_'], "slug")?;
    let timezone = timezone.as_deref().unwrap_or("UTC");
    zones::named(timezone)?;
    let id = ids::uuid_v7();
    // Flows with a schedule may have to look at one more time zone.
    xact::note_plans_changed();
    let _acting = role::internal(installed.owner);
    let made = spi::run(
        "INSERT INTO usher.organizations (id, slug, name, timezone) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT organizations_slug_key DO NOTHING",
        &[spi::arg(id), spi::arg(slug), spi::arg(name.as_deref().unwrap_or(slug)), spi::arg(timezone)],
    )?;
    if made == 0 {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, format!("organization \"{slug}\" exists already"))
            .hint("Choose another slug, or use the organization that is there.")
            .into());
    }
    Ok(id)
}

/// Makes `user_id` (a JWT's sub, or `role:NAME` for a database role) a member of an organization, or changes the role:
/// `member` reads, `admin` manages the organization, `legend` is installation-wide.
///
/// Errors: 42501 unless the caller manages the organization; only operators and legends make legends. 22023 for an
/// unknown role.
#[pg_extern(volatile, parallel_unsafe)]
fn grant_membership(
    organization: Option<String>,
    user_id: Option<String>,
    role: default!(Option<String>, "'member'"),
) -> Sql<()> {
    let id = identity::organization(given(&organization, "the organization")?, Right::Manage)?;
    let user = given(&user_id, "the user id")?;
    let role_name = role.as_deref().unwrap_or("member");
    if !matches!(role_name, "legend" | "admin" | "member") {
        return Err(UsherError::invalid(format!("role \"{role_name}\" is unknown")).hint("Use legend, admin or member.").into());
    }
    let legend = identity::is_legend()?;
    if role_name == "legend" && !legend {
        return Err(UsherError::forbidden("only operators and legends may make a legend")
            .hint("Ask an operator, or grant admin instead.")
            .into());
    }
    let installed = crate::setup::installed()?;
    let _acting = role::internal(installed.owner);
    let changed = spi::run(
        "INSERT INTO usher.memberships AS m (organization_id, user_id, role) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT memberships_pkey DO UPDATE SET role = EXCLUDED.role
         WHERE $4 OR m.role <> 'legend'",
        &[spi::arg(id), spi::arg(user), spi::arg(role_name), spi::arg(legend)],
    )?;
    if changed == 0 {
        return Err(UsherError::forbidden("only operators and legends may change a legend's membership")
            .hint("Ask an operator.")
            .into());
    }
    Ok(())
}

/// Ends a membership. Errors: 42501 unless the caller manages the organization, 42704 when there is no such membership.
#[pg_extern(volatile, parallel_unsafe)]
fn revoke_membership(organization: Option<String>, user_id: Option<String>) -> Sql<()> {
    let id = identity::organization(given(&organization, "the organization")?, Right::Manage)?;
    let user = given(&user_id, "the user id")?;
    let legend = identity::is_legend()?;
    let installed = crate::setup::installed()?;
    let _acting = role::internal(installed.owner);
    let gone = spi::run(
        "DELETE FROM usher.memberships WHERE organization_id = $1 AND user_id = $2 AND ($3 OR role <> 'legend')",
        &[spi::arg(id), spi::arg(user), spi::arg(legend)],
    )?;
    if gone == 0 {
        return Err(UsherError::not_found(format!("\"{user}\" has no membership there that you may end"))
            .hint("SELECT user_id, role FROM usher.memberships shows the memberships you may see.")
            .into());
    }
    Ok(())
}

/// Names a party that takes part: `local` (its tables are here), `remote` (spoken to through a connection) or
/// `external` (a worker outside takes its jobs). A known name gets the new kind.
///
/// Errors: 42501 for callers who are no operators, 22023 for a malformed name or unknown kind.
#[pg_extern(volatile, parallel_unsafe)]
fn create_system(name: Option<String>, kind: default!(Option<String>, "'local'")) -> Sql<()> {
    let installed = identity::require_operator("create systems")?;
    let name = given(&name, "the system's name")?;
    systems::check_name(name)?;
    let kind = kind.as_deref().unwrap_or("local");
    if !matches!(kind, "local" | "remote" | "external") {
        return Err(UsherError::invalid(format!("kind \"{kind}\" is unknown")).hint("Use local, remote or external.").into());
    }
    let _acting = role::internal(installed.owner);
    if kind != "external" {
        systems::refuse_with_jobs_outside(name)?;
    }
    spi::run(
        "INSERT INTO usher.systems (name, kind) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT systems_pkey DO UPDATE SET kind = EXCLUDED.kind",
        &[spi::arg(name), spi::arg(kind)],
    )?;
    Ok(())
}

/// Memberships have changed: every session forgets what it knew of them when this commits.
#[pg_trigger]
fn memberships_changed<'a>(
    trigger: &'a PgTrigger<'a>,
) -> std::result::Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, UsherError> {
    let relation = trigger.relid().map_err(|e| UsherError::internal(e.to_string()))?;
    catalog::invalidate(relation);
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

/// For whom this session acts: a JWT's sub, the user that a trusted pooler set, or `role:NAME`.
#[pg_extern(stable, parallel_restricted)]
fn actor() -> String {
    identity::actor()
}

/// The organizations whose rows the caller may read. Policies call it once per statement.
#[pg_extern(stable, parallel_restricted)]
fn member_organizations() -> Sql<Vec<pgrx::Uuid>> {
    Ok(identity::organizations(Right::Read)?)
}

/// The organizations whose rows the caller may change: as admin, legend or operator.
#[pg_extern(stable, parallel_restricted)]
fn managed_organizations() -> Sql<Vec<pgrx::Uuid>> {
    Ok(identity::organizations(Right::Manage)?)
}

/// Internal: gives the tables of these schemas the policies that the declaration says; returns how many statements that took.
///
/// Runs with its caller's rights: only the tables' owner may.
#[pg_extern(volatile, parallel_unsafe)]
fn isolate_tables(schemas: Vec<String>, declaration: pgrx::JsonB) -> Sql<i64> {
    let schemas: Vec<&str> = schemas.iter().map(String::as_str).collect();
    // Elsewhere policies of the same names are somebody else's.
    if schemas != ["usher"] {
        return Err(UsherError::invalid("only the tables of schema usher are declared here")
            .hint("Packs declare theirs in their manifest.")
            .into());
    }
    Ok(tenancy::bring_in_line(&schemas, &tenancy::Declaration::parse(&declaration.0)?, tenancy::Place::Engine)?)
}
