//! The statement of a flow that writes a table: the rows of a batch, transformed and checked, and what is done with them.

use super::catalog::Column;
use super::compile::{Target, Writer};
use super::definition::{OnConflict, Then};
use crate::error::{Result, UsherError};
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(quote_identifier).collect()
}

/// `a IS DISTINCT FROM b`, for types without equality by their text.
fn differs(column: &Column, left: &str, right: &str) -> String {
    if column.compare_as_text {
        format!("{left}::text IS DISTINCT FROM ({right})::text")
    } else {
        format!("{left} IS DISTINCT FROM ({right})::{}", column.type_sql)
    }
}

/// The rows of a batch transformed and checked (`v`), and the statement that writes them.
pub(super) fn write(w: &Writer<'_>, then: &Then, target: &Target, preview: bool) -> Result<String> {
    let definition = w.definition;
    let mut columns: Vec<(String, String)> = Vec::new();
    for (group, map) in [("set", &definition.set), ("set_once", &definition.set_once)] {
        for (name, text) in map {
            columns.push((name.clone(), w.value(&format!("{group}.{name}"), text, target.table.column(name))));
        }
    }
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let fields: String = columns.iter().fold(String::new(), |mut out, (name, value)| {
        let _ = write!(out, ", {value} AS {}", quote_identifier(name));
        out
    });
    let mut key = quoted(&target.key);
    if target.organization {
        key.insert(0, "organization_id".to_owned());
    }
    let ordered = matches!(then, Then::Upsert { .. } | Then::Update { .. });
    let plain_insert = matches!(then, Then::Insert { .. }) && definition.check.is_empty() && !preview;
    let into: Vec<String> = target.organization.then(|| "organization_id".to_owned()).into_iter().chain(quoted(&names)).collect();

    if plain_insert {
        // The common case needs no word back: straight from the batch into the table.
        let organization = if target.organization { "b.organization_id, " } else { "" };
        let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
        return Ok(format!(
            "WITH w AS (INSERT INTO {} ({}) SELECT {organization}{} FROM {}{} ORDER BY b.n{}) SELECT NULL::integer, NULL::text, NULL::boolean WHERE false",
            target.table.sql,
            into.join(", "),
            values.join(", "),
            w.from(),
            w.range(),
            conflict(then, target)
        ));
    }

    let mut checks = String::new();
    for (name, text) in &definition.check {
        let _ = write!(checks, " WHEN ({text}\n) IS FALSE THEN {}", quote_literal(name));
    }
    let failed = if checks.is_empty() { "NULL::text".to_owned() } else { format!("CASE{checks} END") };
    let wave = if ordered {
        format!("pg_catalog.row_number() OVER (PARTITION BY {} ORDER BY s.usher_n)", key_of("s", &key, "usher_organization"))
    } else {
        "1".to_owned()
    };
    let rows = format!(
        "WITH s AS MATERIALIZED (SELECT b.n AS usher_n, b.organization_id AS usher_organization{fields} FROM {}{}),
 v AS MATERIALIZED (SELECT s.*, {failed} AS usher_failed, {wave} AS usher_wave FROM s)",
        w.from(),
        w.range()
    );
    let ready = "v.usher_failed IS NULL AND v.usher_wave = 1";
    let organization = if target.organization { "v.usher_organization, " } else { "" };
    let values = quoted(&names).iter().map(|name| format!("v.{name}")).collect::<Vec<_>>().join(", ");
    let matches: Vec<String> = target
        .key
        .iter()
        .map(|name| {
            let name = quote_identifier(name);
            format!("t.{name} = v.{name}")
        })
        .chain(target.organization.then(|| "t.organization_id = v.usher_organization".to_owned()))
        .collect();
    let returning = if preview { " RETURNING pg_catalog.to_jsonb(t.*)" } else { "" };
    let effect = match then {
        Then::Insert { .. } => format!(
            "INSERT INTO {} AS t ({}) SELECT {organization}{values} FROM v WHERE {ready} ORDER BY v.usher_n{}{returning}",
            target.table.sql,
            into.join(", "),
            conflict(then, target)
        ),
        Then::Upsert { .. } => {
            let changing: Vec<&Column> = definition
                .set
                .keys()
                .filter(|name| !target.key.contains(name))
                .filter_map(|name| target.table.column(name))
                .collect();
            let update = if changing.is_empty() {
                "NOTHING".to_owned()
            } else {
                let set: Vec<String> =
                    changing.iter().map(|column| format!("{0} = EXCLUDED.{0}", quote_identifier(&column.name))).collect();
                let differ: Vec<String> = changing
                    .iter()
                    .map(|column| {
                        let name = quote_identifier(&column.name);
                        differs(column, &format!("t.{name}"), &format!("EXCLUDED.{name}"))
                    })
                    .collect();
                format!("UPDATE SET {} WHERE {}", set.join(", "), differ.join(" OR "))
            };
            format!(
                "INSERT INTO {} AS t ({}) SELECT {organization}{values} FROM v WHERE {ready} ORDER BY v.usher_n ON CONFLICT ({}) DO {update}{returning}",
                target.table.sql,
                into.join(", "),
                key.join(", ")
            )
        }
        Then::Update { .. } => {
            let changing: Vec<&Column> =
                names.iter().filter(|name| !target.key.contains(name)).filter_map(|name| target.table.column(name)).collect();
            if changing.is_empty() {
                return Err(UsherError::definition("\"update\" changes nothing")
                    .hint("Put at least one column that is not in \"key\" into \"set\"."));
            }
            let set: Vec<String> = changing.iter().map(|column| format!("{0} = v.{0}", quote_identifier(&column.name))).collect();
            let differ: Vec<String> = changing
                .iter()
                .map(|column| {
                    let name = quote_identifier(&column.name);
                    differs(column, &format!("t.{name}"), &format!("v.{name}"))
                })
                .collect();
            format!(
                "UPDATE {} AS t SET {} FROM v WHERE {ready} AND {} AND ({}){returning}",
                target.table.sql,
                set.join(", "),
                matches.join(" AND "),
                differ.join(" OR ")
            )
        }
        Then::Delete { .. } => {
            format!("DELETE FROM {} AS t USING v WHERE {ready} AND {}{returning}", target.table.sql, matches.join(" AND "))
        }
        Then::Call { .. } | Then::Steps(_) | Then::Collect(_) | Then::Emit { .. } | Then::Publish(_) | Then::Merge(_) => {
            return Err(UsherError::internal("this writes no table by itself"));
        }
    };
    Ok(if preview {
        format!(
            "{rows}, w(usher_row) AS ({effect}) SELECT w.usher_row FROM w UNION ALL SELECT pg_catalog.jsonb_build_object('failed check', v.usher_failed) FROM v WHERE v.usher_failed IS NOT NULL"
        )
    } else {
        format!(
            "{rows}, w AS ({effect}) SELECT v.usher_n::integer, v.usher_failed, v.usher_wave > 1 FROM v WHERE v.usher_failed IS NOT NULL OR v.usher_wave > 1 ORDER BY 1"
        )
    })
}

fn key_of(alias: &str, key: &[String], organization: &str) -> String {
    key.iter()
        .map(|name| if name == "organization_id" { format!("{alias}.{organization}") } else { format!("{alias}.{name}") })
        .collect::<Vec<_>>()
        .join(", ")
}

fn conflict(then: &Then, target: &Target) -> String {
    match then {
        Then::Insert { key, on_conflict: OnConflict::Keep, .. } => {
            let mut names = quoted(key);
            if target.organization {
                names.insert(0, "organization_id".to_owned());
            }
            format!(" ON CONFLICT ({}) DO NOTHING", names.join(", "))
        }
        _ => String::new(),
    }
}
