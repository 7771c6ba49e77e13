//! What an application says of its tables, `bind`: read as JSON, against the pack's own names. Pure.
//!
//! ```text
//! {"*": {"columns": {"organization_id": "org_id"}},
//!  "atlvs.deals": {"table": "public.deals", "columns": {"title": "name", "currency": {"value": "EUR"}, "venue_name": null},
//!                  "values": {"status": {"won": ["closed_won", "signed"]}}, "fill": {"source": "usher"}},
//!  "atlvs.contacts": "public.contacts", "atlvs.journals": null}
//! ```

use super::model::{Column, Model};
use crate::error::{Result, UsherError, did_you_mean};
use crate::registry::tables::split;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where a column of the pack is in the application's table.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Column(String),
    /// Nowhere: always this, and what would be written is left out.
    Constant(Value),
    /// Nowhere: read as what the pack's own column would hold by default, and what would be written is left out.
    Absent,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bound {
    /// The application's table, `schema.table`.
    pub table: String,
    pub columns: BTreeMap<String, Source>,
    /// By column: the pack's word, and what the application says for it; the first is what is written.
    pub words: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// Columns of the application that rows of the pack get, too.
    pub fill: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bind {
    /// None: the table is neither there nor to be made.
    pub tables: BTreeMap<String, Option<Bound>>,
    /// Columns of all bound tables, where they have them.
    pub everywhere: BTreeMap<String, Source>,
}

const EVERYWHERE: &str = "*";
const EXAMPLE: &str = "Write it like {\"atlvs.deals\": {\"table\": \"public.deals\", \"columns\": {\"title\": \"name\"}}}.";

fn refuse<T>(at: &[&str], what: &str, hint: impl Into<String>) -> Result<T> {
    let place: String = at.iter().map(|key| format!("[{key:?}]")).collect();
    Err(UsherError::invalid(format!("bind{place}: {what}")).hint(hint))
}

fn object<'a>(value: &'a Value, at: &[&str]) -> Result<&'a Map<String, Value>> {
    match value.as_object() {
        Some(object) => Ok(object),
        None => refuse(at, "not an object", EXAMPLE),
    }
}

fn known(name: &str, names: &[&str], what: &str, at: &[&str]) -> Result<()> {
    if names.contains(&name) {
        return Ok(());
    }
    let near = did_you_mean(name, names);
    let all =
        if names.len() > 30 { "usher.pack_tables() shows them.".to_owned() } else { format!("There are: {}.", names.join(", ")) };
    refuse(at, &format!("unknown {what} \"{name}\""), if near.is_empty() { all } else { near.trim_end().to_owned() })
}

/// A text that can be a name in the catalog.
fn name(value: &Value, at: &[&str], what: &str) -> Result<String> {
    match value.as_str() {
        Some(name) if !name.trim().is_empty() && name.len() < 64 * 3 && !name.contains('\0') => Ok(name.to_owned()),
        _ => refuse(at, &format!("not the name of {what}"), "Write it in quotes."),
    }
}

fn scalar(value: &Value, at: &[&str]) -> Result<Value> {
    match value {
        Value::String(text) if text.contains('\0') => refuse(at, "a text with a NUL character", "Leave it out."),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value.clone()),
        _ => refuse(at, "not a plain value", "Write a text, a number, true or false."),
    }
}

fn source(value: &Value, at: &[&str]) -> Result<Source> {
    match value {
        Value::Null => Ok(Source::Absent),
        Value::Object(object) => match (object.len(), object.get("value")) {
            (1, Some(value)) => Ok(Source::Constant(scalar(value, &[at, &["value"]].concat())?)),
            _ => refuse(at, "an object without \"value\" alone", "Write {\"value\": \"EUR\"} for what is always the same."),
        },
        other => Ok(Source::Column(name(other, at, "a column").or_else(|_| {
            refuse(
                at,
                "neither a column nor null",
                "Write the column's name, null if there is none, or {\"value\": …} for what is always the same.",
            )
        })?)),
    }
}

/// `{"won": "closed_won"}` or `{"won": ["closed_won", "signed"]}`.
fn words(value: &Value, column: &Column, at: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
    let ours: Vec<&str> = column.words.iter().map(String::as_str).collect();
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (word, theirs) in object(value, at)? {
        let here = [at, &[word.as_str()]].concat();
        if !ours.is_empty() {
            known(word, &ours, "word", at)?;
        }
        let list = match theirs {
            Value::Array(list) if !list.is_empty() => {
                list.iter().map(|word| name(word, &here, "a value")).collect::<Result<Vec<_>>>()?
            }
            other => vec![name(other, &here, "a value")?],
        };
        for word in &list {
            if let Some((other, _)) = found.iter().find(|(_, list)| list.contains(word)) {
                return refuse(
                    &here,
                    &format!("\"{word}\" stands for \"{other}\" already"),
                    "One word of the application has one meaning.",
                );
            }
        }
        found.push((word.clone(), list));
    }
    Ok(found)
}

fn bound(key: &str, value: &Value, model: &Model) -> Result<Option<Bound>> {
    let (at, table) = ([key], &model.tables[key]);
    let object = match value {
        Value::Null => return Ok(None),
        Value::String(_) => &Map::from_iter([("table".to_owned(), value.clone())]),
        other => object(other, &at)?,
    };
    for part in object.keys() {
        known(part, &["table", "columns", "values", "fill"], "key", &at)?;
    }
    let Some(named) = object.get("table") else {
        return refuse(
            &at,
            "the application's table is missing",
            "Name it: \"table\": \"public.deals\"; null instead of the object says that there is none.",
        );
    };
    let place = [key, "table"];
    let Some((schema, relation)) = split(&name(named, &place, "a table")?) else {
        return refuse(&place, "not a qualified table name", "Write schema.table, such as public.deals.");
    };
    let empty = Value::Object(Map::new());
    let part = |name: &str| object.get(name).unwrap_or(&empty);
    let mut bound = Bound { table: format!("{schema}.{relation}"), ..Bound::default() };
    for (column, value) in self::object(part("columns"), &[key, "columns"])? {
        known(column, &table.names(), "column", &[key, "columns"])?;
        let source = source(value, &[key, "columns", column])?;
        let words: Vec<&str> = table.column(column).into_iter().flat_map(|column| &column.words).map(String::as_str).collect();
        if let (Source::Constant(Value::String(word)), false) = (&source, words.is_empty()) {
            self::known(word, &words, "word", &[key, "columns", column, "value"])?;
        }
        bound.columns.insert(column.clone(), source);
    }
    for (column, value) in self::object(part("values"), &[key, "values"])? {
        known(column, &table.names(), "column", &[key, "values"])?;
        let ours = table.column(column).filter(|column| column.type_sql.eq_ignore_ascii_case("text"));
        let Some(ours) = ours else {
            return refuse(&[key, "values", column], "a column without words", "Only columns of type text have them.");
        };
        bound.words.insert(column.clone(), words(value, ours, &[key, "values", column])?);
    }
    for (column, value) in self::object(part("fill"), &[key, "fill"])? {
        name(&Value::String(column.clone()), &[key, "fill"], "a column")?;
        bound.fill.insert(column.clone(), scalar(value, &[key, "fill", column])?);
    }
    Ok(Some(bound))
}

impl Bind {
    pub fn parse(value: &Value, model: &Model) -> Result<Self> {
        let mut bind = Self::default();
        let tables: Vec<&str> = model.tables.keys().map(String::as_str).collect();
        for (key, value) in object(value, &[])? {
            if key == EVERYWHERE {
                for part in object(value, &[key])?.keys() {
                    known(part, &["columns"], "key", &[key])?;
                }
                for (column, value) in object(value.get("columns").unwrap_or(&Value::Null), &[key, "columns"])? {
                    let names: Vec<&str> = model.tables.values().flat_map(|table| table.names()).collect();
                    if !names.contains(&column.as_str()) {
                        known(column, &names, "column", &[key, "columns"])?;
                    }
                    bind.everywhere.insert(column.clone(), source(value, &[key, "columns", column])?);
                }
                continue;
            }
            known(key, &tables, "table", &[])?;
            let bound = bound(key, value, model)?;
            if let Some(bound) = &bound {
                let other = bind.tables.iter().find(|(_, other)| other.as_ref().is_some_and(|other| other.table == bound.table));
                if let Some((other, _)) = other {
                    return refuse(
                        &[key, "table"],
                        &format!("{} is bound to {other} already", bound.table),
                        "A table can be bound once: name another, or leave one of them out.",
                    );
                }
                if model.tables.contains_key(&bound.table) {
                    return refuse(
                        &[key, "table"],
                        &format!("{} is the name of a table of the pack", bound.table),
                        "Rename the application's table, or move it to another schema.",
                    );
                }
            }
            bind.tables.insert(key.clone(), bound);
        }
        Ok(bind)
    }

    pub fn bound(&self, table: &str) -> Option<&Bound> {
        self.tables.get(table)?.as_ref()
    }

    /// The pack is not to make it.
    pub fn is_absent(&self, table: &str) -> bool {
        matches!(self.tables.get(table), Some(None))
    }

    /// Neither the pack's own nor to be made.
    pub fn takes(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn model() -> Model {
        Model::read(
            ["CREATE TABLE crm.deals (organization_id uuid, id uuid, title text, status text, value numeric, CONSTRAINT k CHECK (status IN ('open', 'won')));
              CREATE TABLE crm.notes (organization_id uuid, id uuid)"]
            .into_iter(),
        )
    }

    fn refused(value: &Value) -> (String, String) {
        let error = Bind::parse(value, &model()).expect_err("refused");
        (error.message, error.hint.unwrap_or_default())
    }

    #[test]
    fn a_table_is_bound_with_its_columns_and_words() {
        let value = json!({"*": {"columns": {"organization_id": "org"}}, "crm.notes": null, "crm.deals": {"table": "public.deals",
            "columns": {"title": "name", "value": {"value": 1}, "id": null}, "values": {"status": {"won": ["closed", "signed"], "open": "new"}}, "fill": {"by": "usher"}}});
        let bind = Bind::parse(&value, &model()).unwrap();
        let deals = bind.bound("crm.deals").unwrap();
        assert_eq!((deals.table.as_str(), deals.columns.len()), ("public.deals", 3));
        assert_eq!(deals.columns["value"], Source::Constant(json!(1)));
        assert_eq!(deals.words["status"].iter().find(|(ours, _)| ours == "won").unwrap().1, ["closed", "signed"]);
        assert!(bind.is_absent("crm.notes") && bind.takes("crm.notes") && bind.bound("crm.notes").is_none());
        assert_eq!(
            Bind::parse(&json!({"crm.deals": "public.deals"}), &model()).unwrap().bound("crm.deals").unwrap().table,
            "public.deals"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let (message, hint) = refused(&json!({"crm.deal": "public.deals"}));
        assert_eq!((message.as_str(), hint.as_str()), ("bind: unknown table \"crm.deal\"", "Did you mean \"crm.deals\"?"));
        let (message, hint) = refused(&json!({"crm.deals": {"table": "public.deals", "columns": {"titel": "name"}}}));
        assert_eq!(
            (message.as_str(), hint.as_str()),
            ("bind[\"crm.deals\"][\"columns\"]: unknown column \"titel\"", "Did you mean \"title\"?")
        );
        let (message, _) = refused(&json!({"crm.deals": {"table": "public.deals", "values": {"status": {"wom": "x"}}}}));
        assert_eq!(message, "bind[\"crm.deals\"][\"values\"][\"status\"]: unknown word \"wom\"");
        for wrong in [
            json!([]),
            json!({"crm.deals": 1}),
            json!({"crm.deals": {}}),
            json!({"crm.deals": "deals"}),
            json!({"crm.deals": {"table": "public.deals", "columns": {"title": 7}}}),
            json!({"crm.deals": {"table": "public.deals", "values": {"value": {"a": "b"}}}}),
            json!({"crm.deals": {"table": "public.deals", "values": {"status": {"won": "x", "open": ["x"]}}}}),
            json!({"crm.deals": "public.x", "crm.notes": "public.x"}),
            json!({"crm.deals": "crm.notes"}),
            json!({"*": {"table": "x"}}),
            json!({"crm.deals": {"table": "public.deals", "columns": {"status": {"value": "lost"}}}}),
        ] {
            refused(&wrong);
        }
    }
}
