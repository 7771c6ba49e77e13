//! The statements that find again which target rows a batch has written.

use super::catalog::row_key;
use super::compile::{Target, Writer};
use super::definition::Link;
use pgrx::spi::quote_identifier;

/// A batch's jobs beside the target rows that the flow's key finds for them. The key is worked out first, by itself: it
/// may count over the batch. `left` is carried along under that name.
fn with_targets(w: &Writer<'_>, target: &Target, left: Option<&str>) -> String {
    let mut fields = vec!["b.n::integer AS n".to_owned(), "b.organization_id".to_owned()];
    fields.extend(left.map(|left| format!("({left}\n)::text AS usher_left")));
    let mut on: Vec<String> =
        target.organization.then(|| "t.organization_id = k.organization_id".to_owned()).into_iter().collect();
    for (n, name) in target.key.iter().enumerate() {
        let (group, text) = match w.definition.set.get(name) {
            Some(text) => ("set", text),
            None => ("set_once", &w.definition.set_once[name]),
        };
        fields.push(format!("{} AS usher_key_{n}", w.value(&format!("{group}.{name}"), text, target.table.column(name))));
        on.push(format!("t.{} = k.usher_key_{n}", quote_identifier(name)));
    }
    format!(
        "FROM (SELECT {} FROM {}{}) AS k JOIN {} AS t ON {}",
        fields.join(", "),
        w.from(),
        w.range(),
        target.table.sql,
        on.join(" AND ")
    )
}

/// `(n, key of the target row)` as arrays: which row each job of a batch has written.
pub fn parents(w: &Writer<'_>, target: &Target) -> String {
    format!(
        "SELECT pg_catalog.array_agg(k.n), pg_catalog.array_agg({}) {}",
        row_key(&target.table.key, "t"),
        with_targets(w, target, None)
    )
}

/// Pairs for `usher.links`: `(organization, left, right, n)` as arrays.
pub fn link_statement(w: &Writer<'_>, link: &Link, target: &Target) -> String {
    format!(
        "SELECT pg_catalog.array_agg(k.organization_id), pg_catalog.array_agg(k.usher_left), pg_catalog.array_agg((t.{})::text), pg_catalog.array_agg(k.n) {}",
        quote_identifier(&link.right),
        with_targets(w, target, Some(&link.left))
    )
}
