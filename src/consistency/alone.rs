//! Asking whether a key is bad by values of its own types: what most transactions touch is one key, and its look is a few index look-ups
//! then, planned once, without JSON or arrays. Which key it is, and what is wrong with it, is asked the long way, and only then.

use super::fit::Fitted;
use super::keys::{self, Kind};
use super::statement::{Form, Shape};
use super::touched::Key;
use crate::error::Result;
use crate::pg::changed::Value;
use crate::pg::{latest, spi};
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Oid};
use std::collections::HashMap;

/// With more keys than these all are asked for together.
const MOST: usize = 4;

/// A statement for keys of which as much is known.
pub struct Alone {
    shape: Shape,
    sql: String,
    /// Type and kind of the values, in the order of the shape.
    values: Vec<(Oid, Kind)>,
    organization: bool,
}

/// The statements of a rule, for whole keys and for what its tables name of them.
pub fn forms(form: &Form<'_>) -> Vec<Alone> {
    let fitted = form.fitted;
    let mut shapes = vec![Shape::whole(fitted)];
    for shape in fitted.touches.iter().map(Shape::of_touch) {
        // Where the query names no organization, a row is always somebody's.
        let shape = Shape { organization: shape.organization || fitted.organization.is_none(), ..shape };
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes.into_iter().filter_map(|shape| alone(form, shape)).collect()
}

/// None: a column is of another type, or nothing is known.
fn alone(form: &Form<'_>, shape: Shape) -> Option<Alone> {
    let types = shape.given.iter().map(|at| form.fitted.key[*at].type_oid);
    let values: Vec<(Oid, Kind)> = types.map(|oid| Some((oid, keys::kind(oid)?))).collect::<Option<_>>()?;
    let organization = shape.organization && form.fitted.organization.is_some();
    (!values.is_empty() || organization).then(|| Alone { sql: form.alone(&shape), shape, values, organization })
}

/// None: they cannot be asked for one by one. Otherwise whether any of them is bad. Runs with the rights of the rule's role, inside its fence.
pub fn any_bad(fitted: &Fitted, forms: &[Alone], touched: &HashMap<Key, u8>) -> Result<Option<bool>> {
    if touched.len() > MOST {
        return Ok(None);
    }
    let mut looks = Vec::with_capacity(touched.len());
    for (organization, key) in touched.keys() {
        let json: serde_json::Value = serde_json::from_str(key).unwrap_or_default();
        let shape = Shape::of(fitted, organization.is_some(), &json);
        let Some(form) = forms.iter().find(|form| form.shape == shape) else { return Ok(None) };
        let Some(values) = form.arguments(fitted, *organization, &json) else { return Ok(None) };
        looks.push((form, values));
    }
    for (form, values) in looks {
        if latest::any(&form.sql, &values)? {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

impl Alone {
    fn arguments(
        &self,
        fitted: &Fitted,
        organization: Option<[u8; 16]>,
        json: &serde_json::Value,
    ) -> Option<Vec<DatumWithOid<'static>>> {
        let mut arguments = Vec::with_capacity(self.values.len() + 1);
        for (at, (type_oid, kind)) in self.shape.given.iter().zip(&self.values) {
            arguments.push(argument(*type_oid, keys::value(*kind, json.get(&fitted.key[*at].name)?)?)?);
        }
        if self.organization {
            arguments.push(spi::arg(Uuid::from_bytes(organization?)));
        }
        Some(arguments)
    }
}

fn argument(type_oid: Oid, value: Value<'_>) -> Option<DatumWithOid<'static>> {
    match value {
        Value::Integer(number) => match type_oid {
            pg_sys::INT2OID => i16::try_from(number).ok().map(spi::arg),
            pg_sys::INT4OID => i32::try_from(number).ok().map(spi::arg),
            _ => Some(spi::arg(number)),
        },
        Value::Boolean(yes) => Some(spi::arg(yes)),
        Value::Uuid(id) => Some(spi::arg(Uuid::from_bytes(id))),
        Value::Text(text) => Some(spi::arg(text.to_owned())),
        Value::Null | Value::Unreadable => None,
    }
}
