//! Fuzz targets: bindings as people write them, and the scripts and expressions that names are looked for in.

use super::lex::{pieces, replace_columns, replace_names, statements};
use super::model::Model;
use super::needs::of_flow;
use super::parse::{Bind, Source};
use super::rewrite::{self, Fits};
use super::script::{self, Clashes};
use crate::fuzz::{Choices, fuzz_target, refused_well, seeds, text, values};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

fn model() -> Model {
    Model::read(
        ["CREATE TABLE crm.deals (organization_id uuid, id uuid, title text, status text, value numeric, CONSTRAINT k CHECK (status IN ('open', 'won')));
          CREATE TABLE crm.notes (organization_id uuid, id uuid, body text)"]
        .into_iter(),
    )
}

fn source(source: &Source) -> Value {
    match source {
        Source::Column(name) => json!(name),
        Source::Constant(value) => json!({"value": value}),
        Source::Absent => Value::Null,
    }
}

/// The binding in the words that it was made of.
fn written(bind: &Bind) -> Value {
    let mut all = Map::new();
    for (name, bound) in &bind.tables {
        let Some(bound) = bound else {
            all.insert(name.clone(), Value::Null);
            continue;
        };
        let (schema, table) = bound.table.split_once('.').unwrap_or_default();
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Map<String, Value> = bound.columns.iter().map(|(name, found)| (name.clone(), source(found))).collect();
        let values: Map<String, Value> = bound
            .words
            .iter()
            .map(|(name, words)| {
                (name.clone(), words.iter().map(|(ours, list)| (ours.clone(), json!(list))).collect::<Map<_, _>>().into())
            })
            .collect();
        let fill: Map<String, Value> = bound.fill.clone().into_iter().collect();
        all.insert(
            name.clone(),
            json!({"table": format!("{}.{}", quoted(schema), quoted(table)), "columns": columns, "values": values, "fill": fill}),
        );
    }
    let everywhere: Map<String, Value> = bind.everywhere.iter().map(|(name, found)| (name.clone(), source(found))).collect();
    all.insert("*".to_owned(), json!({"columns": everywhere}));
    all.into()
}

fuzz_target!(bind, |bytes: &[u8]| {
    let model = model();
    for value in values(seeds("bind"), bytes) {
        match Bind::parse(&value, &model) {
            Ok(bind) => {
                assert!(bind.tables.keys().all(|name| model.tables.contains_key(name)));
                // A dot in a name of the application would be taken for the one between schema and table.
                if bind.tables.values().flatten().all(|bound| bound.table.matches('.').count() == 1) {
                    assert_eq!(Bind::parse(&written(&bind), &model).unwrap(), bind, "{value}");
                }
                let mut more = value.clone();
                more["no.such"] = json!("public.table");
                assert!(Bind::parse(&more, &model).is_err());
            }
            Err(error) => {
                refused_well(&error);
                assert!(error.message.starts_with("bind"), "{error:?}");
            }
        }
    }
});

fuzz_target!(pack_script, |bytes: &[u8]| {
    let given = text(bytes);
    assert_eq!(pieces(&given).iter().map(|piece| piece.text).collect::<String>(), given);
    assert_eq!(replace_columns(&given, &mut |_, _| None), given);
    assert_eq!(replace_names(&given, &mut |_| None), given);
    assert!(given.starts_with(&statements(&given).concat()));
    let read = Model::read([given.as_ref()].into_iter());
    for function in read.functions.values() {
        super::functions::needs(function, &read);
    }
    let none = BTreeSet::new();
    let clashes = Clashes { model: &read, bound: &|_| false, by_function: &|_| true, without: &none, absent: &|_| false };
    let kept = script::left(&given, &|_| false, &clashes);
    assert!(given.starts_with(&kept), "{given}");
    script::left(
        &given,
        &|_| true,
        &Clashes { model: &read, bound: &|_| true, by_function: &|_| false, without: &none, absent: &|_| true },
    );
    // Definitions of flows are the pack's own, but what is not bound stays as it is whatever they are.
    let mut choices = Choices::of(bytes);
    let flow = json!({"when": {"change": choices.text()}, "if": given, "then": {"insert": "crm.deals", "key": [choices.text()]}, "set": {"title": given}});
    assert_eq!(rewrite::flow(&flow, &Fits::new()), flow);
    of_flow(&flow, &model());
});
