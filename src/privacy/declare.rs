//! Saying whose data there is: kinds of persons, and personal columns.

use super::store::{self, Erase};
use crate::error::{Result, UsherError, did_you_mean};
use crate::guard::audit;
use crate::pg::{role, spi};
use crate::registry::tables::{self, Named, Table};
use crate::setup::Installed;
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use serde_json::{Map, Value, json};

/// Characters of a pseudonym.
const PSEUDONYM: i32 = 19;
const KEYS: [&str; 5] = ["identifies", "category", "purpose", "basis", "erase"];

/// What the caller says of a kind of person.
pub struct Definition {
    pub kind: String,
    pub table: Named,
    pub follow: Vec<String>,
    pub leave: Vec<String>,
    pub links: Vec<String>,
    pub run_as: Option<String>,
}

/// The role with whose rights rows are read and erased; the caller must be a member of it.
pub fn run_as(named: Option<&str>) -> Result<Oid> {
    let caller = role::outer();
    let Some(named) = named else { return Ok(caller) };
    let chosen = role::by_name(named).ok_or_else(|| {
        UsherError::not_found(format!("role \"{named}\" in run_as does not exist"))
            .hint("Name a database role, or leave it out to use your own.")
    })?;
    if !role::is_member(caller, chosen) {
        return Err(UsherError::forbidden(format!("you are not a member of role \"{named}\""))
            .hint(format!("Ask its owner for GRANT {named} TO {}.", role::name_of(caller).unwrap_or_default())));
    }
    Ok(chosen)
}

/// The caller owns the table, or is a member of its owner.
pub fn owns(table: &Named, what: &str) -> Result<()> {
    let owner = spi::read::<Oid>("SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = $1", &[spi::arg(table.oid)])?;
    let caller = role::outer();
    if owner.is_some_and(|owner| role::has_rights_of(caller, owner)) || role::is_superuser(caller) {
        return Ok(());
    }
    Err(UsherError::forbidden(format!("only the owner of {}.{} may {what}", table.schema, table.name))
        .hint("Ask its owner to do it, or for membership in the owning role."))
}

fn read(table: &Named) -> Result<Table> {
    tables::by_oid(table.oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))
}

/// Defines a kind of person, anew if there is one of that name.
pub fn subject(installed: Installed, definition: &Definition, by: &str) -> Result<String> {
    let kind = &definition.kind;
    if kind.is_empty()
        || kind.len() > 63
        || !kind.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c))
    {
        return Err(UsherError::invalid(format!("\"{kind}\" is no name for a kind of person"))
            .hint("Use lower-case letters, digits, '_', '.' and '-', such as guest."));
    }
    let table = read(&definition.table)?;
    store::key_of(&table)?;
    owns(&definition.table, "say who is in it")?;
    {
        let _acting = role::internal(installed.owner);
        store::of_one_organization(&table)?;
    }
    redefined(installed, kind, &definition.table)?;
    let run_as = run_as(definition.run_as.as_deref())?;
    warn_of_superuser(run_as, &format!("data of a {kind}"));
    for name in definition.follow.iter().chain(&definition.leave) {
        known_reference(name)?;
    }
    let _acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.subject_kinds AS k (kind, schema_name, table_name, follow, leave, link_kinds, run_as, defined_by) VALUES ($1, $2, $3, $4, $5, $6, $7::oid::regrole, $8)
         ON CONFLICT ON CONSTRAINT subject_kinds_pkey
         DO UPDATE SET schema_name = EXCLUDED.schema_name, table_name = EXCLUDED.table_name, follow = EXCLUDED.follow, leave = EXCLUDED.leave,
                       link_kinds = EXCLUDED.link_kinds, run_as = EXCLUDED.run_as, defined_by = EXCLUDED.defined_by, defined_at = pg_catalog.now()",
        &[
            spi::arg(kind.as_str()),
            spi::arg(definition.table.schema.as_str()),
            spi::arg(definition.table.name.as_str()),
            spi::arg(definition.follow.clone()),
            spi::arg(definition.leave.clone()),
            spi::arg(definition.links.clone()),
            spi::arg(run_as),
            spi::arg(by),
        ],
    )?;
    let about = json!({"table": table.name, "follow": definition.follow, "leave": definition.leave, "links": definition.links});
    audit::note(installed, None, "usher.subjects.defined", kind, None, Some(about))?;
    Ok(format!("each row of {} is a {kind}; SELECT * FROM usher.subject_graph('{kind}'); shows where its data is", table.name))
}

pub fn warn_of_superuser(run_as: Oid, what: &str) {
    if role::is_superuser(run_as) {
        pgrx::warning!(
            "{what} is seen to as superuser {}: name a role with just the rights it needs in run_as",
            role::name_of(run_as).unwrap_or_default()
        );
    }
}

/// A kind can be forgotten: by whoever owns its table, and while nobody is held under it.
pub fn forgotten(installed: Installed, kind: &str) -> Result<()> {
    redefined(installed, kind, &Named { oid: Oid::INVALID, schema: String::new(), name: String::new() })
}

/// A kind that there is stays what it is for whoever defined it, and while somebody is held under it.
pub fn redefined(installed: Installed, kind: &str, table: &Named) -> Result<()> {
    let found = {
        let _acting = role::internal(installed.owner);
        let sql = "SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', k.schema_name, k.table_name))::oid, k.schema_name, k.table_name
                     FROM usher.subject_kinds AS k WHERE k.kind = $1";
        let found = spi::read_all(sql, &[spi::arg(kind)], |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok((row.get::<Oid>(1)?, text(2)?, text(3)?))
        })?;
        let held = store::held(Some(kind))?;
        found.into_iter().next().map(|(oid, schema, name)| (oid, schema, name, held))
    };
    let Some((oid, schema, name, held)) = found else { return Ok(()) };
    if let Some(oid) = oid {
        let before = Named { oid, schema, name };
        owns(&before, &format!("change what a {kind} is"))?;
        if held && oid != table.oid {
            return Err(UsherError::state(format!("a {kind} is under a legal hold, which would be of somebody else then"))
                .hint("Release the holds first: SELECT * FROM usher.legal_holds WHERE released_at IS NULL;"));
        }
    }
    Ok(())
}

/// A reference is named as `usher.subject_graph()` shows it; a flow's link by the flow.
fn known_reference(name: &str) -> Result<()> {
    let known = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                         WHERE k.contype = 'f' AND n.nspname || '.' || c.relname || '.' || k.conname = $1)
             OR EXISTS (SELECT FROM usher.flow_versions AS f WHERE f.name = $1 AND f.definition ? 'link')",
        &[spi::arg(name)],
    )?;
    if known == Some(true) {
        return Ok(());
    }
    Err(UsherError::not_found(format!("there is no reference \"{name}\""))
        .hint("Write it as usher.subject_graph() shows it: schema.table.constraint, or the name of the flow that links."))
}

/// Declares columns of a table as personal; a column with NULL is so no more. Returns how many are declared now.
pub fn personal(installed: Installed, named: &Named, columns: &Value, by: &str) -> Result<String> {
    owns(named, "say what is personal in it")?;
    let table = read(named)?;
    let Value::Object(columns) = columns else {
        return Err(UsherError::invalid("the columns are no JSON object")
            .hint("Write {\"email\": {\"identifies\": true, \"purpose\": \"tickets\"}, \"born\": {}}."));
    };
    let mut rows = Vec::with_capacity(columns.len());
    let mut ends = Vec::new();
    for (name, about) in columns {
        if about.is_null() {
            ends.push(name.clone());
            continue;
        }
        rows.push(column(&table, name, about)?);
    }
    let _acting = role::internal(installed.owner);
    spi::run(
        "DELETE FROM usher.personal_columns AS p WHERE p.schema_name = $1 AND p.table_name = $2 AND p.column_name = ANY ($3)",
        &[spi::arg(named.schema.as_str()), spi::arg(named.name.as_str()), spi::arg(ends)],
    )?;
    spi::run(
        "INSERT INTO usher.personal_columns AS p (schema_name, table_name, column_name, identifies, category, purpose, basis, erase, declared_by)
         SELECT $1, $2, r.name, r.identifies, r.category, r.purpose, r.basis, r.erase, $4
           FROM pg_catalog.jsonb_to_recordset($3) AS r (name text, identifies boolean, category text, purpose text, basis text, erase jsonb)
         ON CONFLICT ON CONSTRAINT personal_columns_pkey
         DO UPDATE SET identifies = EXCLUDED.identifies, category = EXCLUDED.category, purpose = EXCLUDED.purpose, basis = EXCLUDED.basis,
                       erase = EXCLUDED.erase, declared_by = EXCLUDED.declared_by, declared_at = pg_catalog.now()",
        &[
            spi::arg(named.schema.as_str()),
            spi::arg(named.name.as_str()),
            spi::arg(JsonB(Value::Array(rows))),
            spi::arg(by),
        ],
    )?;
    let count = spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.personal_columns AS p WHERE p.schema_name = $1 AND p.table_name = $2",
        &[spi::arg(named.schema.as_str()), spi::arg(named.name.as_str())],
    )?
    .unwrap_or(0);
    audit::note(installed, None, "usher.personal_columns.declared", &table.name, None, Some(Value::Object(columns.clone())))?;
    Ok(format!("{count} personal column{} in {}", if count == 1 { "" } else { "s" }, table.name))
}

/// One declaration, checked, as it is stored.
fn column(table: &Table, name: &str, about: &Value) -> Result<Value> {
    let at = |what: &str| format!("{what} of {}.{name}", table.name);
    let column = table.expect(name, "the declaration")?;
    let Value::Object(about) = about else {
        return Err(UsherError::invalid(format!("the {} is no JSON object", at("declaration")))
            .hint(format!("Write {{}} or any of: {}.", KEYS.join(", "))));
    };
    if let Some(unknown) = about.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(UsherError::invalid(format!("unknown key \"{unknown}\" in the {}", at("declaration"))).hint(format!(
            "{}Known here: {}.",
            did_you_mean(unknown, &KEYS),
            KEYS.join(", ")
        )));
    }
    let text =
        |key: &str| match about.get(key) {
            None | Some(Value::Null) => Ok(Value::Null),
            Some(Value::String(text)) => Ok(Value::from(text.as_str())),
            Some(_) => Err(UsherError::invalid(format!("\"{key}\" in the {} is no text", at("declaration")))
                .hint("Write it as a JSON string.")),
        };
    let identifies = match about.get("identifies") {
        None => false,
        Some(Value::Bool(yes)) => *yes,
        Some(_) => {
            return Err(UsherError::invalid(format!("\"identifies\" in the {} is neither true nor false", at("declaration")))
                .hint("true: its values name the person wherever they stand."));
        }
    };
    let texts = ["text", "character varying", "character", "bpchar"].contains(&column.base_sql.as_str());
    let room = spi::read::<i32>(
        "SELECT a.atttypmod - 4 FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = $2 AND a.atttypmod > 4 AND a.atttypid IN (1042, 1043)",
        &[spi::arg(table.oid), spi::arg(name)],
    )?;
    // What is cut off is no pseudonym any more, and is not known as one.
    let texts = texts && room.is_none_or(|room| room >= PSEUDONYM);
    let required = spi::read::<bool>(
        "SELECT a.attnotnull FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = $2",
        &[spi::arg(table.oid), spi::arg(name)],
    )? == Some(true);
    let erase = match about.get("erase") {
        None if !required && !identifies => Erase::Null,
        None if texts => Erase::Pseudonym,
        None if !required => Erase::Null,
        None => {
            return Err(UsherError::invalid(format!("{} may not be NULL and takes no pseudonym", at("the value")))
                .hint("Say what it becomes: {\"erase\": {\"value\": \"1900-01-01\"}}, or {\"erase\": \"keep\"}."));
        }
        Some(value) => Erase::read(value).ok_or_else(|| {
            UsherError::invalid(format!("\"erase\" in the {} is not known", at("declaration")))
                .hint("Use \"null\", \"pseudonym\", \"keep\" or {\"value\": …}.")
        })?,
    };
    let refused = match &erase {
        Erase::Keep => None,
        _ if column.generated => {
            Some(("is written by PostgreSQL alone", "Declare the columns that it is made of, and this one as \"keep\"."))
        }
        _ if table.key.contains(&column.name) => {
            Some(("is part of the primary key", "Rows go on being told apart by it: declare it as \"keep\"."))
        }
        Erase::Null if required => Some(("may not be NULL", "Use \"pseudonym\" or {\"value\": …}.")),
        Erase::Pseudonym if !texts => {
            Some(("is no text, or too short, and takes no pseudonym", "Use \"null\" or {\"value\": …}."))
        }
        _ => None,
    };
    if let Some((why, remedy)) = refused {
        return Err(UsherError::invalid(format!("{} {why}", at("the column").replace("the column of ", ""))).hint(remedy));
    }
    if let Erase::Value(value) = &erase {
        // A value that the type does not take is found now, not when somebody asks to be forgotten.
        let fits = format!("SELECT ({}::{}) IS NULL", pgrx::spi::quote_literal(value), column.type_sql);
        let _fence = crate::pg::guc::Nest::fence();
        let _acting = role::act_as(role::outer());
        crate::pg::subxact::attempt(|| spi::read::<bool>(&fits, &[])).map_err(|failure| {
            UsherError::invalid(format!("\"erase\" in the {} does not fit: {}", at("declaration"), failure.message))
                .hint(format!("Give a value of type {}.", column.type_sql))
        })?;
    }
    let mut row = Map::new();
    row.insert("name".into(), Value::from(name));
    row.insert("identifies".into(), Value::from(identifies));
    for key in ["category", "purpose", "basis"] {
        row.insert(key.into(), text(key)?);
    }
    row.insert("erase".into(), erase.stored());
    Ok(Value::Object(row))
}
