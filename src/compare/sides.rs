//! What is compared: two relations with a key, and the columns that should be equal.

use super::columns;
use crate::error::{Result, UsherError};
use crate::pg::{expr, results, spi, subxact};
use crate::registry::identity::{self, Right};
use crate::registry::tables::{self, Table};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use pgrx::{JsonB, PgSqlErrorCode};

/// Something that a side's rows say: the name that people know it by, and SQL for it.
#[derive(Debug, Clone)]
pub struct Value {
    pub name: String,
    pub sql: String,
}

/// One of the two.
#[derive(Debug, Clone)]
pub struct Side {
    /// For messages.
    pub name: String,
    /// What stands behind FROM.
    pub from: String,
    /// SQL that is true of the rows that count.
    pub filter: Vec<String>,
    pub key: Vec<Value>,
    pub columns: Vec<Value>,
    /// The catalog says that no two rows have one key, and no row has none.
    pub unique: bool,
}

/// What somebody asks for.
pub struct Wish {
    pub left: Option<Oid>,
    pub right: Option<Oid>,
    pub key: Option<Vec<Option<String>>>,
    pub columns: Option<JsonB>,
    pub condition: Option<String>,
    pub organization: Option<String>,
}

struct Relation {
    table: Table,
    kind: char,
    has_children: bool,
    word: &'static str,
}

fn column(name: &str) -> Value {
    Value { name: name.to_owned(), sql: format!("t.{}", quote_identifier(name)) }
}

fn relation(oid: Option<Oid>, word: &'static str) -> Result<Relation> {
    let oid = oid.ok_or_else(|| UsherError::missing(&format!("the {word} table")))?;
    let found = spi::read_all(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid AND c.relkind = 'r'),
                pg_catalog.row_security_active(c.oid)
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[spi::arg(oid)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            let truth = |at| row.get::<bool>(at).map(|truth| truth == Some(true));
            Ok((text(1)?, text(2)?, text(3)?, truth(4)?, truth(5)?))
        },
    )?;
    let Some((schema, name, kind, has_children, hidden)) = found.into_iter().next() else {
        return Err(UsherError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, format!("the {word} table does not exist"))
            .detail(format!("There is no relation with the number {}.", oid.to_u32()))
            .hint("Name a table, such as 'public.orders'."));
    };
    let table = tables::read(oid, &schema, &name)?;
    match kind.as_str() {
        "r" | "p" | "v" | "m" => {}
        "f" => {
            return Err(UsherError::unsupported(format!("{} ({word}) is a foreign table", table.name))
                .detail("What it shows is no part of this database's snapshot: both sides would be read as of different times.")
                .hint("Copy it into a table first: CREATE TEMPORARY TABLE … AS SELECT …."));
        }
        _ => {
            return Err(UsherError::invalid(format!("{} ({word}) is not a table", table.name))
                .hint("Tables, partitioned tables, views and materialized views can be compared."));
        }
    }
    if hidden {
        return Err(policies(&table.name, word));
    }
    Ok(Relation { table, kind: kind.chars().next().unwrap_or('r'), has_children, word })
}

/// What policies hide would be reported as missing, or not be reported at all.
fn policies(name: &str, word: &str) -> UsherError {
    UsherError::forbidden(format!("policies of {name} ({word}) decide which of its rows you see"))
        .detail("Rows that they hide would be told as missing, or differences would not be told.")
        .hint("Compare as the table's owner, unless row level security is forced upon it, or as a role with BYPASSRLS.")
}

/// Whether the key is known to be one. Errors when it is known not to be.
fn unique(relation: &Relation, key: &[String]) -> Result<bool> {
    let (table, word) = (&relation.table, relation.word);
    // Nobody knows that of a view; the rows say it.
    if matches!(relation.kind, 'v' | 'm') {
        return Ok(false);
    }
    let listed = key.join(", ");
    let nullable = spi::read::<String>(
        "SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
          WHERE a.attrelid = $1 AND a.attname::text = ANY ($2) AND NOT a.attnotnull",
        &[spi::arg(table.oid), spi::arg(key.to_vec())],
    )?;
    if let Some(nullable) = nullable {
        return Err(UsherError::invalid(format!("{nullable} of {} ({word}) may be NULL, and is in the key", table.name))
            .detail("A row without a key belongs to no row of the other side.")
            .hint("Choose another key, or ALTER TABLE … ALTER COLUMN … SET NOT NULL."));
    }
    let immediate = spi::read::<bool>(
        "SELECT pg_catalog.bool_or(i.indimmediate) FROM pg_catalog.pg_index AS i
          WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
            AND NOT EXISTS (SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS n LEFT JOIN pg_catalog.pg_attribute AS a
                               ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n] AND a.attname::text = ANY ($2) WHERE a.attnum IS NULL)",
        &[spi::arg(table.oid), spi::arg(key.to_vec())],
    )?;
    match immediate {
        None => Err(UsherError::invalid(format!("nothing says that ({listed}) is unique in {} ({word})", table.name))
            .detail("Each row is compared with the one row of the other side that has its key.")
            .hint(format!(
                "Choose the columns of a unique index as key, or make one: CREATE UNIQUE INDEX ON {} ({listed});",
                table.name
            ))),
        // A deferred constraint is not kept before the commit, and an index knows nothing of the tables that inherit.
        Some(immediate) => Ok(immediate && !relation.has_children),
    }
}

/// The key: what was asked for, or the left table's primary key.
fn key_of(left: &Relation, asked: Option<Vec<Option<String>>>) -> Result<Vec<String>> {
    let asked: Option<Vec<String>> = asked.map(|names| names.into_iter().flatten().collect());
    match asked {
        Some(names) if names.is_empty() => Err(UsherError::missing("the key")),
        Some(names) => Ok(names),
        None if left.table.key.is_empty() => Err(UsherError::invalid(format!("{} (left) has no primary key", left.table.name))
            .detail("A row is compared with the row of the other side that has its key.")
            .hint("Name the key: key => ARRAY['…'].")),
        None => Ok(left.table.key.clone()),
    }
}

/// Says which columns nobody looks at.
fn tell_left_out(relation: &Relation, other: &Relation, named: &[&str]) {
    let out: Vec<&str> =
        relation.table.columns.iter().map(|column| column.name.as_str()).filter(|name| !named.contains(name)).collect();
    if !out.is_empty() {
        pgrx::notice!("not compared, as {} has no such columns: {} of {}", other.table.name, out.join(", "), relation.table.name);
    }
}

/// Two tables, as somebody has asked.
pub fn of_tables(wish: Wish) -> Result<(Side, Side)> {
    let left = relation(wish.left, "left")?;
    let right = relation(wish.right, "right")?;
    let key = key_of(&left, wish.key)?;
    let asked = wish.columns.map(|given| columns::parse(&given.0)).transpose()?;
    let partner = |name: &String| {
        let mapped = asked.iter().flatten().find(|(left, _)| left == name);
        mapped.map_or_else(|| name.clone(), |(_, right)| right.clone())
    };
    let other_key: Vec<String> = key.iter().map(partner).collect();
    for (name, other) in key.iter().zip(&other_key) {
        left.table.expect(name, "the key (left)")?;
        right.table.expect(other, "the key (right)")?;
    }
    let pairs: Vec<(String, String)> = match asked {
        Some(pairs) => pairs.into_iter().filter(|(name, _)| !key.contains(name)).collect(),
        None => {
            let both: Vec<String> = left
                .table
                .columns
                .iter()
                .map(|column| column.name.clone())
                .filter(|name| !key.contains(name) && !other_key.contains(name) && right.table.column(name).is_some())
                .collect();
            let named: Vec<&str> = both.iter().chain(&key).chain(&other_key).map(String::as_str).collect();
            tell_left_out(&left, &right, &named);
            tell_left_out(&right, &left, &named);
            both.into_iter().map(|name| (name.clone(), name)).collect()
        }
    };
    for (own, other) in &pairs {
        left.table.expect(own, "columns (left)")?;
        right.table.expect(other, "columns (right)")?;
    }
    let filter = filters(&wish.organization, wish.condition.as_deref(), [&left, &right])?;
    let side = |relation: &Relation, key: &[String], columns: Vec<Value>| -> Result<Side> {
        Ok(Side {
            name: format!("{} ({})", relation.table.name, relation.word),
            from: format!("{} AS t", relation.table.sql),
            filter: filter.clone(),
            key: key.iter().map(|name| column(name)).collect(),
            columns,
            unique: unique(relation, key)?,
        })
    };
    let own = side(&left, &key, pairs.iter().map(|(name, _)| column(name)).collect())?;
    let other = side(&right, &other_key, pairs.iter().map(|(_, name)| column(name)).collect())?;
    Ok((own, other))
}

fn filters(organization: &Option<String>, condition: Option<&str>, sides: [&Relation; 2]) -> Result<Vec<String>> {
    let mut filter = Vec::new();
    if let Some(named) = organization {
        let id = identity::organization(named, Right::Read)?;
        for relation in sides {
            if !relation.table.has_organization() {
                return Err(UsherError::invalid(format!("rows of {} ({}) do not say of which organization they are", relation.table.name, relation.word))
                    .hint("Leave the organization out, or say it with \"where\": both tables need a column organization_id of type uuid."));
            }
        }
        filter.push(format!("t.organization_id = '{id}'::uuid"));
    }
    let Some(text) = condition else { return Ok(filter) };
    let wrong = |failure: subxact::Failure, at: String| {
        UsherError::new(failure.code, format!("where{at}: {}", failure.message))
            .detail(format!("The expression is: {text}"))
            .hint(failure.hint.unwrap_or_else(|| {
                "Write one SQL expression over columns that both sides have; functions outside pg_catalog need their schema."
                    .to_owned()
            }))
    };
    subxact::rehearse(|| expr::parse(text)).map_err(|failure| wrong(failure, String::new()))?;
    for relation in sides {
        let tried = format!("SELECT 1 FROM {} AS t WHERE ({text}\n)", relation.table.sql);
        subxact::rehearse(|| results::shapes(&tried))
            .map_err(|failure| wrong(failure, format!(" does not fit {} ({})", relation.table.name, relation.word)))?;
    }
    filter.push(format!("({text}\n)"));
    Ok(filter)
}
