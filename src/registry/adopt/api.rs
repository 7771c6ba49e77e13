//! SQL functions of adoption.

use super::binding::{self, Adoption};
use super::{members, organizations};
use crate::error::{Result, UsherError};
use crate::pg::{catalog, role, spi};
use crate::registry::{identity, tables};
use crate::setup::{self, Installed};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, PgRelation, pg_sys::Oid};
use serde_json::{Map, Value, json};

/// How long triggers wait for a busy table, in milliseconds.
const PATIENCE: i64 = 5_000;

/// The table that is meant, which the caller may read: what it says becomes known by what people may do.
fn target(relation: Option<PgRelation>, example: &str) -> Result<Oid> {
    let relation = relation.ok_or_else(|| UsherError::invalid("the table is missing").hint(example.to_owned()))?;
    let (oid, schema, name) = (relation.oid(), relation.namespace().to_owned(), relation.name().to_owned());
    drop(relation);
    if schema == "usher" {
        return Err(UsherError::invalid(format!("{schema}.{name} belongs to pg_usher")).hint("Name a table of your application."));
    }
    let allowed = "SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')";
    if spi::read::<bool>(allowed, &[spi::arg(role::current()), spi::arg(oid)])? != Some(true) {
        return Err(UsherError::forbidden(format!("you may not read {schema}.{name}, so you may not have it decide"))
            .hint(format!("GRANT SELECT ON {schema}.{name} TO your role, or let a role do it that may read the table.")));
    }
    Ok(oid)
}

fn object(json: Option<JsonB>, what: &str) -> Result<Option<Map<String, Value>>> {
    match json.map(|json| json.0) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => {
            Err(UsherError::invalid(format!("\"{what}\" is not a JSON object")).hint("Write it as '{\"name\": \"value\"}'."))
        }
    }
}

fn columns(named: &[(&str, Option<String>)]) -> Map<String, Value> {
    named.iter().filter_map(|(what, column)| column.as_ref().map(|column| ((*what).to_owned(), json!(column)))).collect()
}

fn record(kind: &str, adoption: &Adoption, by: &str) -> Result<()> {
    told();
    spi::run(
        "INSERT INTO usher.adoptions AS a (kind, relation, columns, roles, condition, adopted_by) VALUES ($1, $2::regclass, $3, $4, $5, $6)
         ON CONFLICT ON CONSTRAINT adoptions_pkey
         DO UPDATE SET relation = EXCLUDED.relation, columns = EXCLUDED.columns, roles = EXCLUDED.roles, condition = EXCLUDED.condition,
                       adopted_at = pg_catalog.now(), adopted_by = EXCLUDED.adopted_by",
        &[
            spi::arg(kind),
            spi::arg(adoption.relation),
            spi::arg(JsonB(Value::Object(adoption.columns.clone()))),
            spi::arg(adoption.roles.clone().map(|roles| JsonB(Value::Object(roles)))),
            spi::arg(JsonB(Value::Object(adoption.condition.clone()))),
            spi::arg(by),
        ],
    )?;
    Ok(())
}

/// Every session looks at what is adopted again, this one after the statement that follows.
fn told() {
    if let Some(oid) = catalog::usher_relation("adoptions") {
        catalog::invalidate(oid);
    }
}

/// Has a table of the application say which organizations there are: its rows become rows of `usher.organizations` now, and
/// follow in the transaction of whoever changes them. A row that is gone is an organization that is gone. Organizations made by
/// `usher.create_organization()` stay beside them; those with the id of a row are its own from now on.
///
/// Arguments: `relation`, an ordinary or partitioned table; the columns that hold the id (uuid), and, if there are such, the slug
/// (else, and where it is no slug or taken, the id is used), the name and the IANA time zone (else UTC).
/// Returns what was done in words. Errors: 42501 for callers who are no operators or may not read the table, and when the owner
/// of pg_usher's tables may not; 42703 for a column that does not exist; 22023 for one that cannot be an id; 55P03 when the
/// table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn adopt_organizations(
    relation: Option<PgRelation>,
    id_column: default!(Option<String>, "'id'"),
    slug_column: default!(Option<String>, "NULL"),
    name_column: default!(Option<String>, "NULL"),
    timezone_column: default!(Option<String>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("adopt organizations")?;
    let installed = setup::current()?;
    let relation = target(relation, "SELECT usher.adopt_organizations('public.organizations', name_column => 'name');")?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let table = binding::readable(relation)?;
    let columns = columns(&[("id", id_column), ("slug", slug_column), ("name", name_column), ("timezone", timezone_column)]);
    let adoption = Adoption { relation, columns, roles: None, condition: Map::new() };
    organizations::bind(&adoption, &table)?;
    record("organizations", &adoption, &by)?;
    organizations::attach(installed, PATIENCE)?;
    organizations::take_over(installed)?;
    let count = spi::one::<i64>("SELECT pg_catalog.count(*) FROM usher.organizations AS o WHERE o.adopted", &[])?.unwrap_or(0);
    Ok(format!("{} says which organizations there are: {}", table.name, counted(count, "organization")))
}

/// Has a table of the application say who belongs where, beside `usher.memberships`. It is read for every question: a
/// membership that was removed gives no right in the next statement.
///
/// Arguments: `relation`, an ordinary or partitioned table; the columns that hold the organization's id (uuid) and the user's
/// (uuid, text, integer or bigint: a token's sub); the column that holds the role, NULL if all are members; `roles`, which of the
/// table's roles are admin and which member, by default owner and admin are admin and member is member, and all others nothing;
/// `condition`, columns and the values that they must have, such as `{"status": "active", "left_at": null}`.
/// Returns what was done in words. Errors: 42501 for callers who are no operators or may not read the table, and when the owner
/// of pg_usher's tables may not; 42703 for a column that does not exist; 22023 for columns, roles or conditions that do not fit.
#[pg_extern(volatile, parallel_unsafe)]
fn adopt_memberships(
    relation: Option<PgRelation>,
    organization_column: default!(Option<String>, "'organization_id'"),
    user_column: default!(Option<String>, "'user_id'"),
    role_column: default!(Option<String>, "'role'"),
    roles: default!(Option<JsonB>, "NULL"),
    condition: default!(Option<JsonB>, "NULL"),
) -> std::result::Result<String, ErrorReport> {
    identity::require_operator("adopt memberships")?;
    let installed = setup::current()?;
    let relation = target(relation, "SELECT usher.adopt_memberships('public.organization_members');")?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let table = binding::readable(relation)?;
    let roles = object(roles, "roles")?;
    if role_column.is_none() && roles.is_some() {
        return Err(UsherError::invalid("\"roles\" needs the column that holds the role")
            .hint("Give role_column, or leave roles out: then all are members.")
            .into());
    }
    let columns = columns(&[("organization", organization_column), ("user", user_column), ("role", role_column)]);
    let adoption = Adoption { relation, columns, roles, condition: object(condition, "condition")?.unwrap_or_default() };
    members::bind(&adoption, &table)?;
    record("memberships", &adoption, &by)?;
    let user = adoption.needed(&table, "user")?;
    if !indexed(&table, &user.name)? {
        notice!(
            "every statement of a member looks into {}: an index that begins with \"{}\" would find it faster",
            table.name,
            user.name
        );
    }
    let count = spi::one::<i64>(&format!("SELECT pg_catalog.count(*) FROM {}", table.sql), &[])?.unwrap_or(0);
    Ok(format!("{} says who belongs where: {}", table.name, counted(count, "row")))
}

/// The application's table says no more which organizations there are; those that are known stay, as if made by
/// `usher.create_organization()`. Errors: 42501 for callers who are no operators, 42704 when none is adopted, 55P03 when the
/// table is busy.
#[pg_extern(volatile, parallel_unsafe)]
fn release_organizations() -> std::result::Result<String, ErrorReport> {
    identity::require_operator("release organizations")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    release(installed, "organizations")?;
    let kept = spi::run("UPDATE usher.organizations SET adopted = false WHERE adopted", &[])?;
    Ok(format!("{} stay", counted(kept as i64, "organization")))
}

/// The application's table says no more who belongs where; `usher.memberships` alone does. Errors: 42501 for callers who are no
/// operators, 42704 when none is adopted.
#[pg_extern(volatile, parallel_unsafe)]
fn release_memberships() -> std::result::Result<String, ErrorReport> {
    identity::require_operator("release memberships")?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    release(installed, "memberships")?;
    Ok("usher.memberships alone says who belongs where".to_owned())
}

fn release(installed: Installed, kind: &str) -> Result<()> {
    told();
    if spi::run("DELETE FROM usher.adoptions WHERE kind = $1", &[spi::arg(kind)])? == 0 {
        return Err(UsherError::not_found(format!("no table of {kind} is adopted"))
            .hint(format!("SELECT usher.adopt_{kind}('schema.table'); adopts one.")));
    }
    if kind == "organizations" {
        organizations::attach(installed, PATIENCE)?;
    }
    Ok(())
}

/// Some whole index begins with the column.
fn indexed(table: &tables::Table, column: &str) -> Result<bool> {
    Ok(spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                         WHERE i.indrelid = $1 AND a.attname = $2 AND i.indpred IS NULL AND i.indisvalid)",
        &[spi::arg(table.oid), spi::arg(column)],
    )? == Some(true))
}

fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
