//! `"coalesce": true`: several pending changes of one row are applied once, with its newest image. Only where that cannot be
//! told from applying them one after another.

use super::compile::Program;
use super::definition::{Change, Definition, Mode, Then, When};
use super::fields::Refusal;
use crate::error::{Result, UsherError};
use crate::pg::spi;

fn refuse<T>(why: &str, hint: &str) -> std::result::Result<T, Refusal> {
    Err(Refusal {
        message: format!("\"coalesce\" would change what the flow does: {why}"),
        hint: hint.to_owned(),
        unsupported: false,
    })
}

/// What the definition alone tells. Pure.
pub fn agrees(definition: &Definition) -> std::result::Result<(), Refusal> {
    const WITHOUT: &str = "Leave out \"coalesce\": then every change is applied.";
    if !definition.coalesce {
        return Ok(());
    }
    let When::Change { on, .. } = &definition.when else {
        return refuse("requests are no changes of a row", WITHOUT);
    };
    if on.contains(&Change::Delete) {
        return refuse(
            "a deleted row has no newest image",
            "Leave delete out of \"on\" and give it a flow of its own, or leave out \"coalesce\".",
        );
    }
    if !matches!(definition.then, Then::Upsert { .. } | Then::Update { .. }) {
        return refuse("only an upsert or update by key comes to the same with the newest image alone", WITHOUT);
    }
    if definition.mode == Mode::Transactional {
        return refuse("in the writer's transaction each change is applied at once", "Use \"mode\": \"realtime\" or \"async\".");
    }
    if definition.condition.is_some() {
        return refuse("an earlier change may meet \"if\" where the newest does not", "Leave out one of them.");
    }
    if !definition.set_once.is_empty() {
        return refuse("\"set_once\" is for the first change", "Leave out one of them.");
    }
    Ok(())
}

/// What only the catalog tells.
pub fn fits(definition: &Definition, program: &Program) -> Result<()> {
    if !definition.coalesce {
        return Ok(());
    }
    let refused = |why: &str, hint: &str| {
        Err(UsherError::definition(format!("\"coalesce\" would change what the flow does: {why}")).hint(hint))
    };
    if !program.compiled.old.is_empty() {
        return refused(
            "an expression uses \"old\", which is another row for each change",
            "Use \"new\" only, or leave out \"coalesce\".",
        );
    }
    if !program.compiled.row_determines_key {
        return refused(
            "changes of one row may go to different target rows",
            "Put the primary key of the source into \"key\" as it is (\"id\": \"new.id\"), or leave out \"coalesce\".",
        );
    }
    let audited = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                         WHERE t.tgrelid = pg_catalog.to_regclass($1) AND n.nspname = 'usher' AND p.proname = 'audit')",
        &[spi::arg(program.compiled.target.clone())],
    )?;
    if audited == Some(true) {
        return refused("the target is audited: every change is to be found in the log", "Leave out \"coalesce\".");
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use crate::flow::definition::Definition;
    use serde_json::json;

    #[test]
    fn it_is_refused_where_it_would_change_the_meaning() {
        let plain = json!({"when": {"change": "a.b"}, "then": {"upsert": "c.d", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}, "coalesce": true});
        assert!(Definition::parse(&plain).unwrap().coalesce);
        for (key, value, why) in [
            ("when", json!({"change": "a.b", "on": ["update", "delete"]}), "deleted"),
            ("then", json!({"insert": "c.d"}), "by key"),
            ("then", json!({"call": "c.f"}), "by key"),
            ("mode", json!("transactional"), "at once"),
            ("if", json!("new.v > 1"), "\"if\""),
            ("set_once", json!({"w": "new.w"}), "set_once"),
            ("coalesce", json!("yes"), "neither true nor false"),
        ] {
            let mut other = plain.clone();
            other[key] = value;
            let refusal = Definition::parse(&other).unwrap_err();
            assert!(refusal.message.contains(why), "{key}: {refusal:?}");
        }
    }
}
