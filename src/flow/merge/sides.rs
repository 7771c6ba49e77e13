//! The two tables of a merge as the catalog knows them.

use super::super::catalog::{self, Column, Table};
use super::super::check;
use super::super::definition::{Definition, When};
use super::super::shape;
use super::definition::{Field, Merge, Side, Strategy};
use crate::error::{Result, UsherError};
use crate::pg::{self, spi};
use crate::registry::tables::split;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use std::collections::BTreeMap;

/// One of the two tables.
pub struct Half {
    pub side: Side,
    pub table: Table,
    /// Its primary key, next to the organization.
    pub id: Column,
    /// The column, quoted, that says of which organization a row is.
    pub organization: Option<String>,
    /// Columns that the statements read, each once.
    pub read: Vec<Column>,
    /// SQL for the id of a row that is made, over `new`, the row of the other side.
    pub new_id: Option<String>,
    /// Nobody but PostgreSQL gives the id, unless it is told so.
    pub overriding: bool,
    /// Numbers new rows; whoever writes them must be allowed to draw from it.
    pub sequence: Option<Oid>,
    /// Further columns of a row that is made.
    pub new: BTreeMap<String, String>,
}

impl Half {
    /// Where a column that is read stands in `read`.
    pub fn at(&self, column: &str) -> usize {
        self.read.iter().position(|known| known.name == column).unwrap_or_default()
    }

    pub fn column(&self, name: &str) -> &Column {
        &self.read[self.at(name)]
    }
}

pub struct Sides {
    pub left: Half,
    pub right: Half,
    /// The side whose rows the flow follows.
    pub here: Side,
}

impl Sides {
    pub fn half(&self, side: Side) -> &Half {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }
}

/// The column of a field, on a side.
pub fn column_of(field: &Field, side: Side) -> &str {
    match side {
        Side::Left => &field.left,
        Side::Right => &field.right,
    }
}

/// What makes a side's value from the row of the other side.
pub fn way_to(field: &Field, side: Side) -> Option<&str> {
    match side {
        Side::Left => field.to_left.as_deref(),
        Side::Right => field.to_right.as_deref(),
    }
}

/// How a new row gets its id by itself, whether that must be overridden, and the sequence that it comes from.
fn default_of(table: &Table, column: &Column) -> Result<(Option<String>, bool, Option<Oid>)> {
    let found = spi::read_all(
        "SELECT CASE WHEN a.attidentity <> '' THEN pg_catalog.format('pg_catalog.nextval(%L::pg_catalog.regclass)', pg_catalog.pg_get_serial_sequence(a.attrelid::pg_catalog.regclass::text, a.attname::text))
                     ELSE pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, a.attidentity = 'a',
                pg_catalog.pg_get_serial_sequence(a.attrelid::pg_catalog.regclass::text, a.attname::text)::pg_catalog.regclass::oid
           FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          WHERE a.attrelid = $1 AND a.attname = $2",
        &[spi::arg(table.oid), spi::arg(column.name.as_str())],
        |row| Ok((row.get::<String>(1)?, row.get::<bool>(2)?.unwrap_or(false), row.get::<Oid>(3)?)),
    )?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// Columns of the row that an expression is about; what else it names is refused.
fn used(at: &str, text: &str, of: &Table) -> Result<Vec<String>> {
    let parsed = pg::subxact::rehearse(|| pg::expr::parse(text)).map_err(|failure| {
        UsherError::new(failure.code, format!("{at}: {}", failure.message))
            .detail(format!("The expression is: {text}"))
            .hint(failure.hint.unwrap_or_else(|| "Write one SQL expression, such as new.total * 100.".to_owned()))
    })?;
    let shape =
        shape::read(&parsed).ok_or_else(|| UsherError::definition(format!("{at}: this form of expression is not understood")))?;
    if shape.has_subquery {
        return Err(UsherError::definition(format!("{at}: a query inside an expression is not allowed"))
            .detail("It could read rows of another organization.")
            .hint("Use a function that takes the organization."));
    }
    let mut names = Vec::new();
    for column in &shape.columns {
        match &column.column {
            Some(name) if column.alias == "new" => names.push(of.expect(name, at)?.name.clone()),
            _ => {
                return Err(UsherError::definition(format!("{at}: only new.… can be named here, the row of {}", of.name))
                    .detail(format!("The expression is: {text}"))
                    .hint("Write new.column."));
            }
        }
    }
    check::try_one(
        at,
        text,
        &format!("SELECT job.id, COALESCE(({text}\n), NULL) FROM (SELECT NULL::uuid AS id) AS job CROSS JOIN {} AS new", of.sql),
    )?;
    Ok(names)
}

/// The column that says of which organization a row is, quoted: organization_id, or what the definition names.
fn organization_column(table: &Table, asked: Option<&str>, side: Side) -> Result<Option<String>> {
    let Some(text) = asked.filter(|text| !text.trim_start().starts_with('\'')) else {
        return Ok(table.has_organization().then(|| "organization_id".to_owned()));
    };
    let at = format!("organization ({} side)", side.word());
    match used(&at, text, table)?.as_slice() {
        [name] if table.column(name).is_some_and(Column::is_uuid) => Ok(Some(quote_identifier(name))),
        _ => Err(UsherError::definition(format!("{at}: use a uuid column of the row or a slug in quotes"))
            .hint("Write \"new.tenant_id\" or \"'acme'\".")),
    }
}

/// Both sides say of each row whose it is, or neither does: else rows of several organizations would meet in one.
fn same_organizations(definition: &Definition, merge: &Merge, left: &Half, right: &Half) -> Result<()> {
    let lost = match (&left.organization, &right.organization) {
        (Some(_), None) => Some((left, right)),
        (None, Some(_)) => Some((right, left)),
        (None, None) => {
            let fixed = |text: &Option<String>| text.as_deref().map(str::trim).map(str::to_owned);
            if fixed(&definition.organization) != fixed(&merge.other_organization) && merge.other_organization.is_some() {
                return Err(UsherError::definition("the two sides belong to different organizations")
                    .hint("Name the same in \"organization\" and in \"organization\" of \"back\", or leave the latter out."));
            }
            None
        }
        (Some(_), Some(_)) => None,
    };
    let Some((knows, other)) = lost else { return Ok(()) };
    Err(UsherError::definition(format!(
        "rows of {} say whose they are, and those of {} do not",
        knows.table.name, other.table.name
    ))
    .detail("Rows of several organizations would meet in one.")
    .hint(format!(
        "Give {} a column organization_id, or name its column: \"organization\": \"new.tenant_id\"{}.",
        other.table.name,
        if other.side == Side::Right { " in \"back\"" } else { "" }
    )))
}

fn half(definition: &Definition, merge: &Merge, side: Side, tables: (&Table, &Table)) -> Result<Half> {
    let (table, other) = tables;
    let here = merge.side == side;
    let (own, others) = definition.merge_ids().ok_or_else(|| UsherError::internal("a merge has no link"))?;
    let (id, asked) =
        if here { (own, definition.organization.as_deref()) } else { (others, merge.other_organization.as_deref()) };
    let at = |what: &str| format!("{what} ({} side)", side.word());
    let id = table.expect(id, &at("\"link\""))?.clone();
    if table.own_key() != [id.name.as_str()] {
        return Err(UsherError::definition(format!("\"{}\" is not the primary key of {}", id.name, table.name))
            .detail("Each row of a pair is found by its id, and by it alone.")
            .hint("Name in \"link\" the column of the primary key; organization_id may stand in front of it there."));
    }
    let organization = organization_column(table, asked, side)?;
    let mut names: Vec<&str> = Vec::new();
    for field in &merge.fields {
        let name = column_of(field, side);
        let column = table.expect(name, &at("\"fields\""))?;
        if column.generated || column.name == id.name {
            let why = if column.generated { "is generated" } else { "is the row's id, which never changes" };
            return Err(UsherError::definition(format!("field \"{}\": column \"{name}\" of {} {why}", field.name, table.name))
                .hint("Leave it out of \"fields\"."));
        }
        names.push(name);
    }
    for (left, right) in &merge.matches {
        let name = if side == Side::Left { left } else { right };
        names.push(&table.expect(name, &at("\"match\""))?.name);
    }
    if let Some((left, right)) = &merge.times {
        let name = if side == Side::Left { left } else { right };
        names.push(&table.expect(name, &at("\"times\""))?.name);
    }
    let new = if side == Side::Left { &merge.new_left } else { &merge.new_right };
    for name in new.keys() {
        let column = table.expect(name, &format!("\"new_{}\"", side.word()))?;
        if column.generated && column.name != id.name {
            return Err(UsherError::definition(format!("column \"{name}\" of {} is generated", table.name))
                .hint(format!("Leave it out of \"new_{}\".", side.word())));
        }
    }
    // What the other side's row is made of is read here.
    let others_new = if side == Side::Left { &merge.new_right } else { &merge.new_left };
    let mut more = Vec::new();
    for field in &merge.fields {
        if let Some(text) = way_to(field, side.other()) {
            more.extend(used(&format!("\"to_{}\" of field \"{}\"", side.other().word(), field.name), text, table)?);
        }
    }
    for (name, text) in others_new {
        more.extend(used(&format!("new_{}.{name}", side.other().word()), text, table)?);
    }
    let mut read: Vec<Column> = Vec::new();
    for name in names.into_iter().chain(more.iter().map(String::as_str)) {
        if let (Some(column), false) = (table.column(name), read.iter().any(|known| known.name == name)) {
            read.push(column.clone());
        }
    }
    let creates = if side == Side::Left { merge.creates_left } else { merge.creates_right };
    let (default, overriding, sequence) = default_of(table, &id)?;
    let sequence = sequence.filter(|_| creates && !new.contains_key(&id.name));
    let new_id = new.get(&id.name).cloned().or(default);
    if creates && new_id.is_none() {
        return Err(UsherError::definition(format!(
            "a new row of {} would have no {}: the column has no default",
            table.name, id.name
        ))
        .hint(format!(
            "Say it: \"new_{}\": {{\"{}\": \"new.…\"}}, over the row of {}; or let no rows be made there: \"creates\": \"{}\".",
            side.word(),
            id.name,
            other.name,
            side.other().word()
        )));
    }
    let new = new.iter().filter(|(name, _)| **name != id.name).map(|(name, text)| (name.clone(), text.clone())).collect();
    Ok(Half { side, table: table.clone(), id, organization, read, new_id, overriding, sequence, new })
}

/// Tries for each field and key whether the two columns go together, so that an error can name them.
fn fit(merge: &Merge, left: &Half, right: &Half) -> Result<()> {
    for field in &merge.fields {
        let at = format!("field \"{}\"", field.name);
        let (own, other) = (left.column(&field.left), right.column(&field.right));
        for (from, to, way) in [(own, other, &field.to_right), (other, own, &field.to_left)] {
            if way.is_none() {
                let text = format!("new.{}", from.name);
                let sql = format!("SELECT (NULL::{})::{}", from.base_sql, to.base_sql);
                check::try_one(&at, &text, &sql)?;
            }
        }
        let value = format!("NULL::{}", other.base_sql);
        match &field.strategy {
            Strategy::Add => {
                check::try_one(&at, "add", &format!("SELECT ({value} + ({value} - {value}))::{}", other.base_sql))?;
            }
            Strategy::Function(name) => {
                let call = function(field, name)?;
                check::try_one(
                    &at,
                    name,
                    &format!("SELECT COALESCE({call}({value}, {value}, {value}), NULL)::{}", other.base_sql),
                )?;
            }
            _ => {}
        }
    }
    let pairs = |what: &str, left_name: &str, right_name: &str, operator: &str| {
        let (one, two) = (left.column(left_name), right.column(right_name));
        let sql = format!("SELECT NULL::{} {operator} NULL::{}", one.base_sql, two.base_sql);
        check::try_one(what, &format!("{left_name} {operator} {right_name}"), &sql)
    };
    for (one, two) in &merge.matches {
        pairs("\"match\"", one, two, "=")?;
    }
    match &merge.times {
        Some((one, two)) => pairs("\"times\"", one, two, ">="),
        None => Ok(()),
    }
}

/// The function of a strategy, ready to be called.
pub fn function(field: &Field, name: &str) -> Result<String> {
    let (schema, function) = split(name).ok_or_else(|| {
        UsherError::definition(format!("field \"{}\": \"{name}\" is not a qualified function name", field.name)).hint(
            "Write schema.function: it is given the base (NULL when the rows have not met), the left and the right value, all as the \
             right column's type, and returns the value that holds.",
        )
    })?;
    Ok(format!("{}.{}", quote_identifier(&schema), quote_identifier(&function)))
}

/// Looks both tables up and checks every name and expression.
pub fn sides(definition: &Definition, merge: &Merge) -> Result<Sides> {
    let When::Change { table, .. } = &definition.when else { return Err(UsherError::internal("a merge follows no table")) };
    let here = catalog::table(table, "\"when\"")?;
    let there = catalog::table(&merge.table, "\"merge\"")?;
    if here.oid == there.oid {
        return Err(UsherError::definition(format!("{} cannot be merged with itself", here.name))
            .hint("A pair has two tables; rows of one table that belong together are not kept equal."));
    }
    let (left, right) = if merge.side == Side::Left { (&here, &there) } else { (&there, &here) };
    let own = half(definition, merge, Side::Left, (left, right))?;
    let other = half(definition, merge, Side::Right, (right, left))?;
    same_organizations(definition, merge, &own, &other)?;
    fit(merge, &own, &other)?;
    Ok(Sides { left: own, right: other, here: merge.side })
}

/// Tables of which no index leads to a row by its key, with the key's columns: each row that has no pair yet is looked for in all of them.
pub fn without_index(definition: &Definition, merge: &Merge) -> Result<Vec<(String, Vec<String>)>> {
    if merge.matches.is_empty() {
        return Ok(Vec::new());
    }
    let sides = sides(definition, merge)?;
    let mut lost = Vec::new();
    for half in [&sides.left, &sides.right] {
        let own = |(left, right): &(String, String)| if half.side == Side::Left { left.clone() } else { right.clone() };
        let keys: Vec<String> = merge.matches.iter().map(own).collect();
        let found = spi::read::<bool>(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i
                             WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND EXISTS (
                                   SELECT FROM pg_catalog.pg_attribute AS a
                                    WHERE a.attrelid = $1 AND a.attname::text = ANY ($2) AND a.attnum = i.indkey[0]
                                       OR a.attrelid = $1 AND a.attname::text = ANY ($2) AND a.attnum = i.indkey[1] AND i.indnkeyatts > 1
                                          AND i.indkey[0] = (SELECT o.attnum FROM pg_catalog.pg_attribute AS o WHERE o.attrelid = $1 AND pg_catalog.quote_ident(o.attname) = $3)))",
            &[spi::arg(half.table.oid), spi::arg(keys.clone()), spi::arg(half.organization.clone())],
        )?;
        if found != Some(true) {
            lost.push((half.table.name.clone(), keys));
        }
    }
    Ok(lost)
}
