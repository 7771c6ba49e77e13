//! One type for both sides of each comparison, and the operator that says whether two of its values are equal.

use super::sides::{Side, Value};
use crate::error::{Result, UsherError};
use crate::pg::results::{self, Shape};
use crate::pg::{spi, subxact};
use pgrx::pg_sys::{self, Oid};

/// Integers of all sizes; a key of one is found by a key of another.
const INTEGERS: [Oid; 3] = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];
/// Texts that compare as text does.
const TEXTS: [Oid; 2] = [pg_sys::TEXTOID, pg_sys::VARCHAROID];
/// Types of texts: of two different ones, text is common to both.
const STRINGS: [Oid; 4] = [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::NAMEOID];

/// A value of each side as they are compared.
#[derive(Debug, Clone)]
pub struct Fitted {
    pub name: String,
    pub other: String,
    pub left: String,
    pub right: String,
    /// `OPERATOR(schema.=)`.
    pub equal: String,
    /// That operator is what IS DISTINCT FROM means, too, which is far cheaper to evaluate.
    pub plain: bool,
    /// The type that both sides are compared in, and its name.
    pub kind: Oid,
    pub type_name: String,
    /// One of them is made into that first, which no index of the column helps to find.
    pub cast: bool,
}

/// Both sides, fitted to each other.
pub struct Pair {
    pub key: Vec<Fitted>,
    pub columns: Vec<Fitted>,
}

/// What both sides' values are, each checked as its reader would read it.
fn shapes(side: &Side) -> Result<Vec<Shape>> {
    let values: Vec<&str> = side.key.iter().chain(&side.columns).map(|value| value.sql.as_str()).collect();
    let sql = format!("SELECT {} FROM {}", values.join(", "), side.from);
    subxact::rehearse(|| results::shapes(&sql)).map_err(|failure| {
        let hint = failure.hint.clone();
        let mut error = UsherError::from(failure);
        error.message = format!("{} cannot be read: {}", side.name, error.message);
        error.hint(hint.unwrap_or_else(|| {
            "Both sides are read with your rights: SELECT on all columns that are compared, and no policies that would hide rows.".to_owned()
        }))
    })
}

fn type_name(kind: Oid) -> Result<String> {
    let name = spi::read::<String>("SELECT pg_catalog.format_type($1, NULL)", &[spi::arg(kind)])?;
    name.ok_or_else(|| UsherError::internal("a type has no name"))
}

/// The type in which values of two types are compared. None: there is none.
fn common(left: Oid, right: Oid) -> Result<Option<Oid>> {
    if left == right {
        return Ok(Some(left));
    }
    if STRINGS.contains(&left) && STRINGS.contains(&right) {
        return Ok(Some(pg_sys::TEXTOID));
    }
    let tried = format!("SELECT CASE WHEN true THEN NULL::{} ELSE NULL::{} END", type_name(left)?, type_name(right)?);
    Ok(subxact::rehearse(|| results::shapes(&tried)).ok().and_then(|shapes| shapes.first().map(|shape| shape.base)))
}

fn deterministic(collation: Oid) -> Result<bool> {
    let found = spi::read::<bool>(
        "SELECT c.collisdeterministic FROM pg_catalog.pg_collation AS c WHERE c.oid = $1",
        &[spi::arg(collation)],
    )?;
    Ok(found != Some(false))
}

/// The operator as SQL names it, and whether its plain name means it under our path.
fn operator(operator: Oid) -> Result<(String, bool)> {
    let found = spi::read_all(
        "SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), n.nspname = 'pg_catalog' AND o.oprname = '='
           FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace WHERE o.oid = $1",
        &[spi::arg(operator)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<bool>(2)? == Some(true))),
    )?;
    found.into_iter().next().ok_or_else(|| UsherError::internal("an operator has no name"))
}

/// The names of a comparison, for messages.
fn both(own: &Value, other: &Value) -> String {
    if own.name == other.name { format!("\"{}\"", own.name) } else { format!("\"{}\" and \"{}\"", own.name, other.name) }
}

fn fit(own: &Value, other: &Value, shapes: (Shape, Shape), is_key: bool) -> Result<Fitted> {
    let (left, right) = shapes;
    let what = if is_key { "key" } else { "column" };
    let alike = |set: &[Oid]| set.contains(&left.base) && set.contains(&right.base);
    let kinds = || -> Result<String> { Ok(format!("{} (left) and {} (right)", type_name(left.base)?, type_name(right.base)?)) };
    if is_key && left.base != right.base && !alike(&INTEGERS) && !alike(&TEXTS) {
        return Err(UsherError::invalid(format!("the {what} {} is of different types: {}", both(own, other), kinds()?))
            .detail("Rows find each other by their keys, which must be equal as they are.")
            .hint("Compare a view that casts one of them, or give the column the type of the other side."));
    }
    let Some(kind) = common(left.base, right.base)? else {
        return Err(UsherError::invalid(format!("the {what} {} cannot be compared: {}", both(own, other), kinds()?))
            .hint("Leave it out of columns, or compare a view that casts one of them."));
    };
    let (mut cast, kind, equality) = match results::equality(kind) {
        Some(equality) => (left.base != right.base, kind, equality),
        None if is_key => {
            return Err(UsherError::invalid(format!(
                "the {what} {} is of type {}, which has no equality",
                both(own, other),
                type_name(kind)?
            ))
            .hint("Choose another key."));
        }
        // What has no equality of its own is equal when its text is.
        None => {
            let text = results::equality(pg_sys::TEXTOID).ok_or_else(|| UsherError::internal("text has no equality"))?;
            (true, pg_sys::TEXTOID, text)
        }
    };
    let mut collate = "";
    if left.collation != right.collation && left.collation != Oid::INVALID && right.collation != Oid::INVALID {
        if !(deterministic(left.collation)? && deterministic(right.collation)?) {
            return Err(UsherError::invalid(format!("the {what} {} has different collations on both sides", both(own, other)))
                .detail("By one of them texts may be equal that have different letters, and by the other they are not.")
                .hint("Compare a view that gives it one collation: name COLLATE …."));
        }
        // By every deterministic collation the same texts are equal.
        collate = " COLLATE pg_catalog.\"C\"";
        cast = cast || left.base != right.base;
    }
    let target = type_name(kind)?;
    let sql = |value: &Value| {
        let value = if cast { format!("({}\n)::{target}", value.sql) } else { value.sql.clone() };
        format!("{value}{collate}")
    };
    let (equal, plain) = operator(equality)?;
    // IS DISTINCT FROM takes composite values apart.
    let composite = spi::read::<bool>(
        "SELECT t.typtype = 'c' OR t.oid = 2249 FROM pg_catalog.pg_type AS t WHERE t.oid = $1",
        &[spi::arg(kind)],
    )?;
    let plain = plain && composite != Some(true);
    let cast = cast || !collate.is_empty();
    Ok(Fitted {
        name: own.name.clone(),
        other: other.name.clone(),
        left: sql(own),
        right: sql(other),
        equal,
        plain,
        kind,
        type_name: target,
        cast,
    })
}

/// Finds for each value what is common to both sides, or says which have nothing in common.
pub fn pair(left: &Side, right: &Side) -> Result<Pair> {
    let (own, other) = (shapes(left)?, shapes(right)?);
    let values = left.key.iter().chain(&left.columns).zip(right.key.iter().chain(&right.columns));
    let mut fitted = Vec::new();
    for (n, ((a, b), shapes)) in values.zip(own.into_iter().zip(other)).enumerate() {
        fitted.push(fit(a, b, shapes, n < left.key.len())?);
    }
    let columns = fitted.split_off(left.key.len());
    Ok(Pair { key: fitted, columns })
}
