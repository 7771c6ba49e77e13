//! Definitions of the pack, as they are for the application's tables: names, words, and whose rows they are. Pure.

use super::fitted::{Fitted, behind, literal};
use super::lex::{replace_columns, replace_names};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub type Fits = BTreeMap<String, Fitted>;

/// The application's tables behind the aliases of an expression.
type Aliases<'a> = BTreeMap<String, &'a Fitted>;

const ORGANIZATION: &str = "organization_id";

/// The column that says whose a row is, where flows do not find it by themselves.
fn organization(table: &Fitted) -> Option<&str> {
    table.column(ORGANIZATION).filter(|name| *name != ORGANIZATION)
}

fn as_sql(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn said(sql: &str, aliases: &Aliases<'_>) -> String {
    replace_columns(sql, &mut |alias, column| aliases.get(alias)?.read(column, &format!("{alias}.")))
}

fn expression(value: &mut Value, aliases: &Aliases<'_>) {
    if let Value::String(sql) = value {
        *sql = said(sql, aliases);
    }
}

fn each(value: &mut Value, mut change: impl FnMut(&mut Value)) {
    match value {
        Value::Object(object) => object.values_mut().for_each(&mut change),
        Value::Array(list) => list.iter_mut().for_each(&mut change),
        _ => {}
    }
}

/// `set` in the application's columns.
fn set(value: &Value, table: &Fitted, aliases: &Aliases<'_>) -> Map<String, Value> {
    let all = value.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| {
        let sql = said(&as_sql(value), aliases);
        Some((table.column(name)?.to_owned(), Value::String(table.write(name, &sql)?)))
    })
    .collect()
}

fn constant(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), literal)
}

fn rename(value: &mut Value, table: &Fitted) {
    let new = |name: &str| table.column(name).map_or_else(|| name.to_owned(), str::to_owned);
    match value {
        Value::String(name) => *name = new(name),
        Value::Array(list) => list.iter_mut().for_each(|name| rename(name, table)),
        _ => {}
    }
}

/// The effect of a flow, whose parts are all in `definition`, or of a step, where table and key are beside "set".
fn effect(then: &mut Value, sets: &mut Value, fits: &Fits, aliases: &Aliases<'_>, owner: &str) {
    let target =
        ["insert", "upsert", "update", "delete"].into_iter().find_map(|kind| Some((kind, fits.get(then.get(kind)?.as_str()?)?)));
    let Some((kind, table)) = target else {
        for group in ["set", "set_once"] {
            if let Some(values) = sets.get_mut(group) {
                each(values, |value| expression(value, aliases));
            }
        }
        return;
    };
    then[kind] = json!(table.sql);
    if let Some(key) = then.get_mut("key") {
        rename(key, table);
    }
    for group in ["set", "set_once"] {
        if let Some(values) = sets.get(group).cloned() {
            sets[group] = Value::Object(set(&values, table, aliases));
        }
    }
    if let Some(column) = organization(table) {
        sets["set"][column] = json!(format!("{owner}.organization_id"));
        if let Some(Value::Array(key)) = then.get_mut("key") {
            key.insert(0, json!(column));
        }
    }
    let filled = match kind {
        "insert" => "set",
        "upsert" => "set_once",
        _ => return,
    };
    for (column, value) in &table.fill {
        sets[filled][column] = json!(constant(value));
    }
}

/// One field of a merge, in the columns and words of both sides.
fn field(name: &str, value: &Value, left: Option<&Fitted>, right: Option<&Fitted>) -> Value {
    let mut field = match value {
        Value::Object(object) if !object.contains_key("function") => value.clone(),
        Value::Null => json!({}),
        strategy => json!({"strategy": strategy}),
    };
    let column = |side: &str| value.get(side).and_then(Value::as_str).unwrap_or(name).to_owned();
    let (ours, theirs) = (column("left"), column("right"));
    // How the value of a side is read and written there: the row of the other side is `new`.
    let carried = |from: Option<&Fitted>, read: &str, to: Option<&Fitted>, write: &str, said: &Value| {
        let sql = match (said.as_str(), from) {
            (Some(sql), Some(from)) => self::said(sql, &Aliases::from([("new".to_owned(), from)])),
            (Some(sql), None) => sql.to_owned(),
            (None, Some(from)) => from.read(read, "new.").unwrap_or_default(),
            (None, None) => format!("new.{}", behind(read)),
        };
        to.and_then(|to| to.write(write, &sql)).unwrap_or(sql)
    };
    let plain = left.is_none_or(|table| table.is_plain(&ours)) && right.is_none_or(|table| table.is_plain(&theirs));
    if !plain || value.get("to_right").is_some() {
        let (there, back) =
            (carried(left, &ours, right, &theirs, &value["to_right"]), carried(right, &theirs, left, &ours, &value["to_left"]));
        field["to_right"] = json!(there);
        field["to_left"] = json!(back);
    }
    let real =
        |table: Option<&Fitted>, name: String| table.and_then(|table| table.column(&name)).map_or(name.clone(), str::to_owned);
    field["left"] = json!(real(left, ours.clone()));
    field["right"] = json!(real(right, theirs.clone()));
    field
}

fn merge(definition: &mut Value, left: Option<&Fitted>, right: Option<&Fitted>) {
    let then = &mut definition["then"];
    if let Some(right) = right {
        then["merge"] = json!(right.sql);
    }
    let fields: Vec<(String, Value)> = match &then["fields"] {
        Value::Array(names) => names.iter().filter_map(|name| Some((name.as_str()?.to_owned(), Value::Null))).collect(),
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        _ => Vec::new(),
    };
    then["fields"] =
        fields.iter().map(|(name, value)| (name.clone(), field(name, value, left, right))).collect::<Map<_, _>>().into();
    let real = |table: Option<&Fitted>, name: &str| table.and_then(|table| table.column(name)).unwrap_or(name).to_owned();
    let pairs: Vec<(String, String)> = match &then["match"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), name.to_owned())).collect(),
        Value::Object(object) => object.iter().map(|(a, b)| (a.clone(), b.as_str().unwrap_or_default().to_owned())).collect(),
        _ => Vec::new(),
    };
    if !pairs.is_empty() {
        then["match"] = pairs.iter().map(|(a, b)| (real(left, a), json!(real(right, b)))).collect::<Map<_, _>>().into();
    }
    for (side, table) in [("left", left), ("right", right)] {
        if let (Some(column), Some(table)) = (then.get_mut("times").and_then(|times| times.get_mut(side)), table) {
            rename(column, table);
        }
    }
    for (made, word, to, from) in [("new_right", "right", right, left), ("new_left", "left", left, right)] {
        let aliases: Aliases<'_> = from.map(|from| ("new".to_owned(), from)).into_iter().collect();
        if let (Some(values), Some(to)) = (then.get(made).cloned(), to) {
            then[made] = Value::Object(set(&values, to, &aliases));
        } else if let Some(values) = then.get_mut(made) {
            each(values, |value| expression(value, &aliases));
        }
        let creates = then["creates"].as_str().is_none_or(|creates| creates == "both" || creates == word);
        if let (Some(to), true) = (to, creates) {
            if let Some(column) = organization(to) {
                then[made][column] =
                    json!(format!("new.{}", from.and_then(organization).map_or_else(|| ORGANIZATION.to_owned(), behind)));
            }
            for (column, value) in &to.fill {
                then[made][column] = json!(constant(value));
            }
        }
    }
    if let Some(right) = right {
        let aliases = Aliases::from([("new".to_owned(), right)]);
        if let Some(back) = then.get_mut("back") {
            each(back, |value| expression(value, &aliases));
        }
        if let Some(column) = organization(right) {
            then["back"]["organization"] = json!(format!("new.{}", behind(column)));
        }
    }
}

/// A flow for the tables that are bound; others stay as they are.
pub fn flow(definition: &Value, fits: &Fits) -> Value {
    let mut new = definition.clone();
    let mut aliases = Aliases::new();
    let source = definition["when"]["change"].as_str().and_then(|table| fits.get(table));
    if let Some(source) = source {
        new["when"]["change"] = json!(source.sql);
        aliases.extend(["new", "old"].map(|alias| (alias.to_owned(), source)));
        match (new.get_mut("organization"), organization(source)) {
            (Some(said), _) => expression(said, &aliases),
            (None, Some(column)) => new["organization"] = json!(format!("new.{}", behind(column))),
            (None, None) => {}
        }
    }
    for (name, join) in definition["join"].as_object().into_iter().flatten() {
        aliases.extend(join["table"].as_str().and_then(|table| fits.get(table)).map(|table| (name.clone(), table)));
    }
    if let Some(joins) = new.get_mut("join").and_then(Value::as_object_mut) {
        for (name, join) in joins {
            expression(&mut join["on"], &aliases);
            let Some(table) = aliases.get(name) else { continue };
            join["table"] = json!(table.sql);
            if let Some(column) = organization(table) {
                join["on"] = json!(format!("{name}.{} = job.organization_id AND ({})", behind(column), as_sql(&join["on"])));
            }
        }
    }
    if let Some(condition) = new.get_mut("if") {
        expression(condition, &aliases);
    }
    for limit in new.get_mut("limits").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(key) = limit.get_mut("key") {
            expression(key, &aliases);
        }
    }
    if let Some(left) = new.get_mut("link").and_then(|link| link.get_mut("left")) {
        expression(left, &aliases);
    }
    let target = ["insert", "upsert", "update", "delete", "merge"]
        .into_iter()
        .find_map(|kind| fits.get(definition["then"][kind].as_str()?));
    if let (Some(right), Some(target)) = (new.get_mut("link").and_then(|link| link.get_mut("right")), target) {
        rename(right, target);
    }
    if let (Some(checks), Some(target)) = (new.get_mut("check"), target) {
        each(checks, |check| {
            let sql = replace_names(&as_sql(check), &mut |name| {
                let set = definition["set"].get(name).or_else(|| definition["set_once"].get(name));
                set.and_then(|_| target.read(name, ""))
            });
            *check = Value::String(sql);
        });
    }
    let mut then = new["then"].take();
    effect(&mut then, &mut new, fits, &aliases, "job");
    for step in then.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
        for part in ["", "undo", "verify"] {
            let Some(part) = (if part.is_empty() { Some(&mut *step) } else { step.get_mut(part) }) else { continue };
            let mut effect_of = part.clone();
            effect(&mut effect_of, part, fits, &Aliases::new(), "run");
            for key in ["insert", "upsert", "update", "delete", "key"] {
                if let Some(value) = effect_of.get(key) {
                    part[key] = value.clone();
                }
            }
        }
    }
    new["then"] = then;
    if let Some(right) = definition["then"]["merge"].as_str() {
        merge(&mut new, source, fits.get(right));
    }
    new
}

/// An overlap rule for the tables that are bound.
pub fn rule(definition: &Value, fits: &Fits) -> Value {
    fn at(part: &mut Value, names: &[&str], fits: &Fits) {
        let Some(table) = part["table"].as_str().and_then(|table| fits.get(table)) else { return };
        part["table"] = json!(table.sql);
        for name in names {
            if let Some(value) = part.get_mut(*name) {
                rename(value, table);
            }
        }
        if let Some(condition) = part.get_mut("where") {
            expression(condition, &Aliases::from([("r".to_owned(), table)]));
        }
    }
    let mut new = definition.clone();
    at(&mut new, &["resource", "period"], fits);
    if let Some(alternatives) = new.get_mut("alternatives") {
        at(alternatives, &["key", "same"], fits);
    }
    new
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::pack::adopt::fitted::Mapped;

    fn fits() -> Fits {
        let words = Mapped::Words {
            column: "stage".into(),
            type_sql: "public.stage".into(),
            read: vec![("closed".into(), "won".into())],
            write: vec![("won".into(), "closed".into())],
            labels: None,
        };
        let same = |name: &str| Mapped::Same(name.into());
        let table = |name: &str, sql: &str, columns: Vec<(&str, Mapped)>| Fitted {
            name: name.into(),
            table: sql.into(),
            sql: sql.into(),
            oid: 0,
            owned: true,
            columns: columns.into_iter().map(|(name, mapped)| (name.to_owned(), mapped)).collect(),
            fill: BTreeMap::from([("made_by".to_owned(), json!("usher"))]),
            ..Fitted::default()
        };
        let deals = table(
            "crm.deals",
            "public.deals",
            vec![("organization_id", same("org_id")), ("id", same("id")), ("title", same("name")), ("status", words)],
        );
        let jobs = table(
            "crm.jobs",
            "public.jobs",
            vec![
                ("organization_id", same("org_id")),
                ("id", same("id")),
                ("deal_id", same("deal")),
                ("name", same("title")),
                ("note", Mapped::Fixed("NULL".into())),
            ],
        );
        Fits::from([("crm.deals".to_owned(), deals), ("crm.jobs".to_owned(), jobs)])
    }

    #[test]
    fn a_flow_speaks_of_the_applications_tables() {
        let definition = json!({
            "when": {"change": "crm.deals"}, "if": "new.status = 'won' AND old.status IS DISTINCT FROM 'won'",
            "join": {"j": {"table": "crm.jobs", "on": "j.deal_id = new.id"}},
            "then": {"insert": "crm.jobs", "key": ["deal_id"], "on_conflict": "keep"},
            "set": {"deal_id": "new.id", "name": "COALESCE(j.name, new.title)", "note": "'x'"},
            "check": {"it has a name": "name <> ''"}, "link": {"kind": "deal", "left": "new.id", "right": "id"}});
        let stage = |row: &str| format!("(CASE {row}.stage::text WHEN 'closed' THEN 'won' ELSE {row}.stage::text END)");
        let expected = json!({
            "when": {"change": "public.deals"}, "organization": "new.org_id",
            "if": format!("{} = 'won' AND {} IS DISTINCT FROM 'won'", stage("new"), stage("old")),
            "join": {"j": {"table": "public.jobs", "on": "j.org_id = job.organization_id AND (j.deal = new.id)"}},
            "then": {"insert": "public.jobs", "key": ["org_id", "deal"], "on_conflict": "keep"},
            "set": {"deal": "new.id", "title": "COALESCE(j.title, new.name)", "org_id": "job.organization_id", "made_by": "'usher'"},
            "check": {"it has a name": "\"title\" <> ''"}, "link": {"kind": "deal", "left": "new.id", "right": "id"}});
        assert_eq!(flow(&definition, &fits()), expected);
        assert_eq!(flow(&definition, &Fits::new()), definition);
    }

    #[test]
    fn a_merge_keeps_both_sides_apart() {
        let definition = json!({"when": {"change": "crm.deals"}, "then": {"merge": "crm.plans", "match": ["id"], "creates": "left",
            "fields": {"status": {"right": "state", "strategy": "latest"}, "title": "manual"}}, "link": {"kind": "d", "left": "new.id", "right": "id"}});
        let new = flow(&definition, &fits());
        assert_eq!(new["then"]["fields"]["title"], json!({"strategy": "manual", "left": "name", "right": "title"}));
        let status = &new["then"]["fields"]["status"];
        assert_eq!((&status["left"], &status["right"]), (&json!("stage"), &json!("state")));
        assert!(status["to_left"].as_str().unwrap().ends_with("::public.stage"), "{status}");
        assert!(new["then"].get("times").is_none() && new["then"].get("new_right").is_none());
        assert_eq!(new["then"]["new_left"], json!({"org_id": "new.organization_id", "made_by": "'usher'"}));
    }
}
