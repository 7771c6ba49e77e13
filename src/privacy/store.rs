//! What was declared: kinds of persons, personal columns, holds.

use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::spi;
use crate::registry::tables;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, Uuid};
use serde_json::Value;

/// A kind of person.
pub struct Subject {
    pub table: tables::Named,
    /// The column of its primary key that is not the organization.
    pub key: String,
    pub follow: Vec<String>,
    pub leave: Vec<String>,
    pub links: Vec<String>,
    pub run_as: Oid,
}

/// What a column becomes when the person is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    Null,
    Pseudonym,
    Keep,
    Value(String),
}

impl Erase {
    /// As it is written in a declaration.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => match text.as_str() {
                "null" => Some(Self::Null),
                "pseudonym" => Some(Self::Pseudonym),
                "keep" => Some(Self::Keep),
                _ => None,
            },
            Value::Object(fields) if fields.len() == 1 => match fields.get("value")? {
                Value::String(text) => Some(Self::Value(text.clone())),
                other @ (Value::Number(_) | Value::Bool(_)) => Some(Self::Value(other.to_string())),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn stored(&self) -> Value {
        match self {
            Self::Null => Value::from("null"),
            Self::Pseudonym => Value::from("pseudonym"),
            Self::Keep => Value::from("keep"),
            Self::Value(text) => serde_json::json!({ "value": text }),
        }
    }
}

/// A column with personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Personal {
    pub column: String,
    pub identifies: bool,
    pub erase: Erase,
}

/// The key's one column beside the organization.
pub fn key_of(table: &tables::Table) -> Result<String> {
    match table.own_key().as_slice() {
        [key] if *key != "organization_id" => Ok((*key).to_owned()),
        _ => Err(UsherError::invalid(format!("{} has no primary key of one column beside organization_id", table.name))
            .hint("A person is named by one value: give the table such a key.")),
    }
}

/// A kind of person as it was defined. Runs with the owner's rights.
pub fn subject(kind: &str) -> Result<Subject> {
    let found = spi::read_all(
        "SELECT k.schema_name, k.table_name, pg_catalog.to_regclass(pg_catalog.format('%I.%I', k.schema_name, k.table_name))::oid,
                k.follow, k.leave, k.link_kinds, k.run_as::oid, EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = k.run_as)
           FROM usher.subject_kinds AS k WHERE k.kind = $1",
        &[spi::arg(kind)],
        |row| {
            let list = |at| row.get::<Vec<String>>(at).map(Option::unwrap_or_default);
            let names = (row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default());
            let run_as = row.get::<Oid>(7)?.filter(|_| matches!(row.get::<bool>(8), Ok(Some(true))));
            Ok((names, row.get::<Oid>(3)?, list(4)?, list(5)?, list(6)?, run_as))
        },
    )?;
    let Some(((schema, name), oid, follow, leave, links, run_as)) = found.into_iter().next() else {
        let kinds =
            spi::read::<Vec<String>>("SELECT pg_catalog.array_agg(k.kind ORDER BY k.kind) FROM usher.subject_kinds AS k", &[])?;
        let kinds = kinds.unwrap_or_default();
        let near = did_you_mean(kind, &kinds.iter().map(String::as_str).collect::<Vec<_>>());
        return Err(UsherError::not_found(format!("there is no kind of person \"{kind}\""))
            .hint(format!("{near}SELECT kind FROM usher.subject_kinds shows them; usher.define_subject() makes one.")));
    };
    let again = || format!("Define it again: SELECT usher.define_subject('{kind}', …);");
    let oid = oid.ok_or_else(|| UsherError::state(format!("the table {schema}.{name} of \"{kind}\" is gone")).hint(again()))?;
    let run_as = run_as.ok_or_else(|| UsherError::state(format!("the role of \"{kind}\" is gone")).hint(again()))?;
    let table = tables::by_oid(oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))?;
    Ok(Subject { key: key_of(&table)?, table: tables::Named { oid, schema, name }, follow, leave, links, run_as })
}

/// Every personal column that there still is, with its `schema.table`. Runs with the owner's rights.
pub fn personal() -> Result<Vec<(String, Personal)>> {
    spi::read_all(
        "SELECT p.schema_name || '.' || p.table_name, p.column_name, p.identifies, p.erase FROM usher.personal_columns AS p
          WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', p.schema_name, p.table_name))
                           AND a.attname = p.column_name AND NOT a.attisdropped)
          ORDER BY 1, 2",
        &[],
        |row| {
            let erase = row.get::<JsonB>(4)?.and_then(|json| Erase::read(&json.0)).unwrap_or(Erase::Keep);
            let personal = Personal {
                column: row.get::<String>(2)?.unwrap_or_default(),
                identifies: row.get::<bool>(3)? == Some(true),
                erase,
            };
            Ok((row.get::<String>(1)?.unwrap_or_default(), personal))
        },
    )
}

/// Why a person may not be erased now: the reason of a hold. Runs with the owner's rights.
pub fn hold(organization: Uuid, kind: &str, key: &str) -> Result<Option<String>> {
    spi::read::<String>(
        "SELECT h.reason FROM usher.legal_holds AS h
          WHERE h.organization_id = $1 AND h.kind = $2 AND (h.subject = $3 OR h.subject IS NULL) AND h.released_at IS NULL
          ORDER BY h.held_at LIMIT 1",
        &[spi::arg(organization), spi::arg(kind), spi::arg(key)],
    )
}

/// What is said about tables' personal columns. Runs with the owner's rights.
pub fn processing(tables: &[String]) -> Result<Value> {
    let found = spi::read::<JsonB>(
        "SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r) ORDER BY r.table_name, r.column_name) FROM usher.processing_records AS r WHERE r.table_name = ANY ($1)",
        &[spi::arg(tables.to_vec())],
    )?;
    Ok(found.map_or_else(|| serde_json::json!([]), |json| json.0))
}

/// The columns of a table that are sealed. Runs with the owner's rights.
pub fn sealed(schema: &str, table: &str) -> Result<Vec<String>> {
    let found = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(p.column_name) FROM usher.column_protections AS p
          WHERE p.schema_name = $1 AND p.table_name = $2 AND p.how = 'sealed' AND p.ended_at IS NULL",
        &[spi::arg(schema), spi::arg(table)],
    )?;
    Ok(found.unwrap_or_default())
}

/// Refuses a table whose rows could be of any organization: then nobody could say whose person is meant. Runs with the owner's rights.
pub fn of_one_organization(table: &tables::Table) -> Result<()> {
    if table.has_organization() {
        return Ok(());
    }
    let many = spi::read::<bool>("SELECT pg_catalog.count(*) > 1 FROM usher.organizations", &[])? == Some(true);
    if !many && table.column("organization_id").is_none() {
        return Ok(());
    }
    Err(UsherError::invalid(format!("{} has no column organization_id of type uuid", table.name))
        .hint("Where there are several organizations, each person belongs to one: add the column, and lead the key with it."))
}

/// The legal holds that are active, or those of a kind. Runs with the owner's rights.
pub fn held(kind: Option<&str>) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM usher.legal_holds AS h WHERE h.released_at IS NULL AND h.kind = COALESCE($1, h.kind))";
    Ok(spi::read::<bool>(sql, &[spi::arg(kind)])? == Some(true))
}

/// The columns of a table that are masked for those who are no readers. Runs with the owner's rights.
pub fn masked(table: &str) -> Result<Vec<String>> {
    let found = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(p.column_name) FROM usher.column_protections AS p
          WHERE p.schema_name || '.' || p.table_name = $1 AND p.how = 'masked' AND p.ended_at IS NULL",
        &[spi::arg(table)],
    )?;
    Ok(found.unwrap_or_default())
}
