//! Whether a rule fits the database: its query, its key, its sentence and what it says about changed rows.
//!
//! All of it is analysed and run with the rights of the rule's role, under which it may read what it reads and no more.

use super::definition::{Definition, Tell};
use super::keyed;
use super::slices::{self, Slices};
use super::statement::{Bounds, Form, Shape};
use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::{catalog, event_type, shape};
use crate::pg::guc::Nest;
use crate::pg::query::{self, Given};
use crate::pg::{depend, expr, role, spi, subxact};
use crate::registry::tables::{self, Table};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};
use pgrx::spi::quote_identifier;
use serde_json::Value;

/// A column of the query.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// As SQL writes its type.
    pub type_sql: String,
    pub type_oid: Oid,
    /// Values that are equal are written alike, as far as its collation goes.
    pub deterministic: bool,
    /// The column of a table that it is, if it is just that.
    pub origin: Option<(Oid, i16)>,
}

/// What a changed row of a table concerns.
pub struct Touch {
    pub table: Table,
    /// SQL over `row` for each column of the key, in its order; None: all keys that are alike in the others are meant.
    pub keys: Vec<Option<String>>,
    /// SQL over `row` for the organization; None: the keys of every organization are meant.
    pub organization: Option<String>,
}

/// A rule and the database as it is now.
pub struct Fitted {
    pub definition: Definition,
    pub run_as: Oid,
    /// Of the query.
    pub columns: Vec<Column>,
    /// Its key, in the order of the definition.
    pub key: Vec<Column>,
    /// The column that names the tenant; None: everything is the default organization's.
    pub organization: Option<String>,
    pub touches: Vec<Touch>,
    /// The tables that the query reads.
    pub reads: Vec<Table>,
    /// Why everything has to be looked at each time; None: between two such looks it is enough to look at touched keys.
    pub whole: Option<String>,
    /// How everything can be looked at in parts; None: as a whole.
    pub slices: Option<Slices>,
    /// `(class, object)` of all that it stands on.
    pub needs: Vec<(Oid, Oid)>,
}

/// Around whatever a rule asks, as its role: nothing that it sets stays, and it writes nothing. A function in it that wrote to a table of its own could leave a
/// deferred trigger there for COMMIT, with the rights of whoever commits.
pub fn fence() -> Nest {
    fence_of_repairs().read_only()
}

/// Around what mends.
pub fn fence_of_repairs() -> Nest {
    Nest::fence().pinned_formats().utc().policies()
}

/// The definition on the database as it is, or why it does not fit.
pub fn fit(installed: Installed, definition: Definition, run_as: Oid) -> Result<Fitted> {
    let acting = role::internal(installed.owner);
    if role::name_of(run_as).is_none() {
        return Err(UsherError::state("the role that it runs as is gone")
            .hint("usher.alter_rule() gives it another: name it in \"run_as\"."));
    }
    let (columns, sliceable) = columns(&definition, run_as)?;
    let key = key(&definition, &columns)?;
    let organization = organization(&definition, &columns)?;
    wrong(&definition, run_as)?;
    let reads = reads(&referenced(run_as, std::slice::from_ref(&definition.query))?, run_as)?;
    let touches = touches(&definition, &key, organization.as_deref(), run_as)?;
    let needs = referenced(run_as, &statements(&definition, &touches))?;
    let tenant = organization.as_ref().and_then(|name| columns.iter().find(|column| column.name == *name));
    let slices = slices::of(&key, tenant, sliceable)?;
    event_type(&definition)?;
    let whole = keyed::whole(&definition, &key, &touches, &reads, run_as)?;
    drop(acting);
    let fitted = Fitted { definition, run_as, columns, key, organization, touches, reads, whole, slices, needs };
    fitted.plans(installed)?;
    Ok(fitted)
}

/// What some statements stand on.
fn referenced(run_as: Oid, statements: &[String]) -> Result<Vec<(Oid, Oid)>> {
    let no_arguments: &[pg_sys::BuiltinOid] = &[];
    let statements: Vec<_> = statements.iter().map(|sql| (sql.as_str(), no_arguments)).collect();
    Ok(subxact::rehearse(|| {
        let _fence = fence();
        let _acting = role::act_as(run_as);
        depend::referenced(&statements)
    })?)
}

/// All that a rule says in SQL: its query with the sentence, and what a changed row concerns.
fn statements(definition: &Definition, touches: &[Touch]) -> Vec<String> {
    let mut all = vec![format!("SELECT ({}\n) FROM ({}\n) AS bad", definition.wrong, definition.query)];
    for touch in touches {
        let given: Vec<String> =
            touch.keys.iter().flatten().chain(&touch.organization).map(|text| format!("({text}\n)")).collect();
        all.push(format!("SELECT {} FROM {} AS row", given.join(", "), touch.table.sql));
    }
    all
}

impl Fitted {
    /// Rows that name a key of which a part is NULL are noted, too: nobody looks at all keys for long. A gate keeps nobody out for them.
    pub fn names_nulls(&self) -> bool {
        self.whole.is_none() && !self.definition.in_transaction
    }

    /// As they will run: every name, type and right in them is looked at.
    fn plans(&self, installed: Installed) -> Result<()> {
        let form = Form { fitted: self, installed };
        let keys = [pg_sys::BuiltinOid::UUIDARRAYOID, pg_sys::BuiltinOid::JSONBARRAYOID];
        subxact::rehearse(|| {
            let _fence = fence();
            let _acting = role::act_as(self.run_as);
            let mut shapes = vec![Shape::whole(self)];
            shapes.extend(self.touches.iter().map(Shape::of_touch));
            for shape in &shapes {
                spi::explain(&form.at_keys(shape), &keys)?;
            }
            spi::explain(&form.everywhere(), &[pg_sys::BuiltinOid::UUIDOID])?;
            if let Some(slices) = &self.slices {
                let of_part = [pg_sys::BuiltinOid::JSONBOID, pg_sys::BuiltinOid::JSONBOID];
                let bounds = Bounds { behind: Some(Value::Null), up_to: Some(Value::Null) };
                spi::explain(&slices.next(true, None), &[pg_sys::BuiltinOid::JSONBOID, pg_sys::BuiltinOid::INT4OID])?;
                spi::explain(&form.between(slices, &bounds), &of_part)?;
            }
            for touch in &self.touches {
                spi::explain(&form.touched(touch, &touch.table.sql), &[])?;
            }
            Ok(())
        })
        .map_err(|failure| {
            let name = role::name_of(self.run_as).unwrap_or_default();
            let hint = failure.hint.clone().unwrap_or_else(|| match failure.sqlstate.as_str() {
                "42501" => {
                    format!("The rule runs as {name}: GRANT that role what the query reads, or name another in \"run_as\".")
                }
                _ => "usher.explain_rule() shows the statement of a rule that could be created.".to_owned(),
            });
            UsherError::from(failure).hint(hint)
        })
    }
}

/// PostgreSQL's own words, with the part of the definition that they are about.
fn told(part: &str, text: &str, hint: &str) -> impl Fn(subxact::Failure) -> UsherError {
    let (part, text, hint) = (part.to_owned(), text.to_owned(), hint.to_owned());
    move |failure| {
        let mut error = UsherError::new(failure.code, format!("{part}: {}", failure.message))
            .hint(failure.hint.clone().unwrap_or_else(|| hint.clone()));
        if !text.is_empty() {
            error = error.detail(format!("It says: {text}"));
        }
        error
    }
}

/// The columns of the query, and whether its rows do not depend on each other.
fn columns(definition: &Definition, run_as: Oid) -> Result<(Vec<Column>, bool)> {
    subxact::rehearse(|| query::require_select(&definition.query)).map_err(told(
        "\"query\"",
        "",
        "Write one SELECT whose rows are bad rows; names outside pg_catalog need their schema.",
    ))?;
    let (given, sliceable) = subxact::rehearse(|| {
        let _fence = fence().tables_only();
        let _acting = role::act_as(run_as);
        query::describe(&definition.query)
    })
    .map_err(|failure| {
        if failure.code == PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE {
            // "access to non-system view … is restricted"
            return UsherError::definition(format!("\"query\": {}", failure.message))
                .detail("A rule is about tables, whose changes can be watched.")
                .hint("Write the query over the tables themselves.");
        }
        let denied = failure.sqlstate == "42501";
        let hint = if denied {
            format!(
                "The rule runs as {}: GRANT that role what the query reads, or name another in \"run_as\".",
                role::name_of(run_as).unwrap_or_default()
            )
        } else {
            "Names outside pg_catalog need their schema, such as public.orders.".to_owned()
        };
        told("\"query\"", "", &hint)(failure)
    })?;
    if let Some(twice) = given.iter().enumerate().find(|(at, one)| given[..*at].iter().any(|other| other.name == one.name)) {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
            format!("\"query\" gives two columns \"{}\"", twice.1.name),
        )
        .hint("Give each a name of its own: SELECT a.id AS order_id, b.id AS invoice_id."));
    }
    Ok((given.into_iter().map(named).collect::<Result<_>>()?, sliceable))
}

fn named(given: Given) -> Result<Column> {
    let type_sql =
        spi::read::<String>("SELECT pg_catalog.format_type($1, $2)", &[spi::arg(given.type_oid), spi::arg(given.typmod)])?;
    Ok(Column {
        name: given.name,
        type_sql: type_sql.unwrap_or_default(),
        type_oid: given.type_oid,
        deterministic: given.deterministic,
        origin: given.origin,
    })
}

fn expect<'a>(columns: &'a [Column], name: &str, at: &str) -> Result<&'a Column> {
    columns.iter().find(|column| column.name == name).ok_or_else(|| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        UsherError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN, format!("{at}: the query gives no column \"{name}\""))
            .hint(format!("{}It gives: {}.", did_you_mean(name, &names), names.join(", ")))
    })
}

fn key(definition: &Definition, columns: &[Column]) -> Result<Vec<Column>> {
    let key: Vec<Column> = definition.key.iter().map(|name| expect(columns, name, "\"key\"").cloned()).collect::<Result<_>>()?;
    for column in &key {
        let one_type = format!("SELECT NULL::{0} = ANY (NULL::{0}[]) ", column.type_sql);
        let comparable = column.type_oid != pg_sys::UNKNOWNOID
            && subxact::rehearse(|| {
                spi::plans(&format!("{one_type} FROM (SELECT NULL::{} AS k ORDER BY 1) AS o", column.type_sql), &[])
            })
            .is_ok();
        if !comparable {
            return Err(UsherError::definition(format!(
                "\"key\": column \"{}\" is of type {}, whose values cannot be told apart",
                column.name, column.type_sql
            ))
            .hint("Name columns of types such as uuid, bigint or text, or cast it in the query."));
        }
    }
    Ok(key)
}

fn organization(definition: &Definition, columns: &[Column]) -> Result<Option<String>> {
    let column = match &definition.organization {
        Some(name) => expect(columns, name, "\"organization\"")?,
        None => match columns.iter().find(|column| column.name == "organization_id") {
            Some(column) => column,
            None => return Ok(None),
        },
    };
    if column.type_oid != pg_sys::UUIDOID {
        return Err(UsherError::definition(format!(
            "\"organization\": column \"{}\" is of type {}, not uuid",
            column.name, column.type_sql
        ))
        .hint("Name the column with the id of the organization, or give this one another name in the query."));
    }
    Ok(Some(column.name.clone()))
}

/// Who is told by an event is told by one of the application's own types.
fn event_type(definition: &Definition) -> Result<()> {
    match definition.escalate.as_ref().map(|escalate| &escalate.tell) {
        Some(Tell::Emit(event_type)) => event_type::require(event_type).map_err(|mut error| {
            error.message = format!("\"emit\" in \"escalate\": {}", error.message);
            error
        }),
        _ => Ok(()),
    }
}

/// One expression without a query of its own.
fn expression(part: &str, text: &str) -> Result<()> {
    let hint = "Write one SQL expression; text stands in single quotes: \"'…'\".";
    let nodes = subxact::rehearse(|| expr::parse(text)).map_err(told(part, text, hint))?;
    if shape::read(&nodes).is_some_and(|shape| shape.has_subquery) {
        return Err(UsherError::definition(format!("{part} contains a query of its own"))
            .detail(format!("It says: {text}"))
            .hint("Have the rule's query give the value as a column."));
    }
    Ok(())
}

fn wrong(definition: &Definition, run_as: Oid) -> Result<()> {
    let text = &definition.wrong;
    expression("\"wrong\"", text)?;
    let tried = format!("SELECT ({text}\n) AS wrong FROM ({}\n) AS bad", definition.query);
    let (given, _) = subxact::rehearse(|| {
        let _fence = fence();
        let _acting = role::act_as(run_as);
        query::describe(&tried)
    })
    .map_err(told(
        "\"wrong\"",
        text,
        "It names columns of the query, without an alias; text stands in single quotes: \"'…'\".",
    ))?;
    let one = given.into_iter().next().map(named).transpose()?;
    match one {
        Some(column)
            if [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::UNKNOWNOID].contains(&column.type_oid) =>
        {
            Ok(())
        }
        other => Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("\"wrong\" is of type {}, not text", other.map(|column| column.type_sql).unwrap_or_default()),
        )
        .detail(format!("It says: {text}"))
        .hint("Put a sentence together: \"'order ' || order_id || ' has no invoice'\".")),
    }
}

/// Of pg_usher's own tables those that a rule may be about.
const OWN: [&str; 3] = ["links", "organizations", "memberships"];

/// The tables among what the query stands on. Only over tables: what a view or a foreign table hides nobody could watch.
fn reads(needs: &[(Oid, Oid)], run_as: Oid) -> Result<Vec<Table>> {
    let objects: Vec<Oid> =
        needs.iter().filter(|(class, _)| *class == pg_sys::RelationRelationId).map(|(_, object)| *object).collect();
    let found = spi::read_all(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text
           FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1) ORDER BY 2, 3",
        &[spi::arg(objects)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), text(2)?, text(3)?, text(4)?, text(5)?))
        },
    )?;
    let mut reads = Vec::new();
    for (oid, schema, name, kind, persistence) in found {
        // A sequence, an index: nothing that is read.
        if !matches!(kind.as_str(), "r" | "p" | "v" | "m" | "f") {
            continue;
        }
        let what = match (kind.as_str(), persistence.as_str()) {
            ("v", _) => "a view",
            ("m", _) => "a materialized view",
            ("f", _) => "a foreign table",
            (_, "t") => "a temporary table",
            _ => "",
        };
        if !what.is_empty() {
            return Err(UsherError::definition(format!("\"query\": {schema}.{name} is {what}"))
                .detail("A rule is about tables, whose changes can be watched.")
                .hint("Write the query over the tables themselves."));
        }
        if schema == "usher" && !OWN.contains(&name.as_str()) {
            return Err(UsherError::definition(format!("\"query\": {schema}.{name} belongs to pg_usher itself"))
                .hint("Write the query over tables of your application."));
        }
        reads.push(tables::read(oid, &schema, &name)?);
    }
    if reads.is_empty() {
        return Err(UsherError::definition("\"query\" reads no table of the application")
            .hint("Each row that it gives is a bad row: SELECT … FROM a table WHERE …."));
    }
    let hidden = {
        let _acting = role::act_as(run_as);
        spi::read::<String>(HIDDEN, &[spi::arg(reads.iter().map(|table| table.oid).collect::<Vec<_>>())])?
    };
    match hidden {
        None => Ok(reads),
        Some(table) => {
            let name = role::name_of(run_as).unwrap_or_default();
            Err(UsherError::forbidden(format!("policies of {table} hide rows from {name}, the role that the rule runs as"))
                .detail("What it does not see would pass for consistent.")
                .hint(format!("CREATE POLICY … ON {table} FOR SELECT TO {name} USING (true); or name a role in \"run_as\" that sees all rows: the table's owner, or one with BYPASSRLS.")))
        }
    }
}

/// Of some tables the first of which the current role does not see all rows: its policies apply, and none of them lets it see
/// all, or one restricts that.
const HIDDEN: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
       SELECT pg_catalog.bool_or(p.polpermissive AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true') AS all_rows,
              pg_catalog.bool_or(NOT p.polpermissive AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) <> 'true') AS fewer
         FROM pg_catalog.pg_policy AS p
        WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*')
          AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS r (id) WHERE r.id = 0 OR pg_catalog.pg_has_role(r.id, 'USAGE'))) AS p
 WHERE c.oid = ANY ($1) AND pg_catalog.row_security_active(c.oid) AND (p.all_rows IS NOT TRUE OR p.fewer IS TRUE)
 ORDER BY 1 LIMIT 1";

fn touches(definition: &Definition, key: &[Column], organization: Option<&str>, run_as: Oid) -> Result<Vec<Touch>> {
    let mut touches = Vec::new();
    for (name, given) in &definition.touches {
        let at = format!("\"touches\".\"{name}\"");
        let table = catalog::table(name, "\"touches\"")?;
        let mut known: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        known.extend(organization.filter(|name| !known.contains(name)));
        if let Some(unknown) = given.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(UsherError::definition(format!("{at}: \"{unknown}\" is no column of the rule's key")).hint(format!(
                "{}The key is: {}.",
                did_you_mean(unknown, &known),
                known.join(", ")
            )));
        }
        // The organization is that of the row, where nothing else is said.
        let own = table.has_organization().then(|| "row.organization_id".to_owned());
        let of = |column: &str| given.get(column).cloned().or_else(|| own.clone().filter(|_| organization == Some(column)));
        let mut keys = Vec::with_capacity(key.len());
        for column in key {
            let text = of(&column.name);
            if let Some(text) = &text {
                touch(&format!("{at}.\"{}\"", column.name), text, &table, &column.type_sql, column.type_oid, run_as)?;
            }
            keys.push(text);
        }
        let tenant = match organization {
            None => None,
            Some(column) => of(column),
        };
        if let Some(text) = &tenant {
            touch(&format!("{at}.\"{}\"", organization.unwrap_or_default()), text, &table, "uuid", pg_sys::UUIDOID, run_as)?;
        }
        touches.push(Touch { table, keys, organization: tenant });
    }
    Ok(touches)
}

/// An expression over the changed row gives a value of the key's column, as PostgreSQL would take it without being asked.
fn touch(part: &str, text: &str, table: &Table, type_sql: &str, type_oid: Oid, run_as: Oid) -> Result<()> {
    expression(part, text)?;
    let hint = format!("Columns are those of the changed row of {}: row.id.", table.name);
    let (given, _) = subxact::rehearse(|| {
        let _fence = fence();
        let _acting = role::act_as(run_as);
        query::describe(&format!("SELECT COALESCE(({text}\n), NULL::{type_sql}) AS k FROM {} AS row", table.sql))
    })
    .map_err(told(part, text, &hint))?;
    match given.first() {
        Some(one) if one.type_oid == type_oid => Ok(()),
        other => {
            let found = match other {
                Some(one) => named(one.clone())?.type_sql,
                None => String::new(),
            };
            Err(UsherError::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("{part} is of type {found}, the key of type {type_sql}"),
            )
            .detail(format!("It says: {text}"))
            .hint(format!("Cast it: ({text})::{type_sql}.")))
        }
    }
}

/// What the organization of a row is, as SQL over the query's rows `q`. What names none is nobody's but of those who run the installation.
pub fn tenant(fitted: &Fitted, installed: Installed) -> String {
    match &fitted.organization {
        Some(name) => format!("COALESCE(q.{}, '00000000-0000-0000-0000-000000000000'::uuid)", quote_identifier(name)),
        None => format!("'{}'::uuid", installed.default_organization),
    }
}
