//! What feeds what, held against the truth from outside: the files of the packs, the catalog, expectations written by hand, and tables that
//! really change when flows of every kind run. Pictures are read by a strict parser, and by Graphviz where it is there.

mod by_hand;
mod changes;
mod members;
mod packs;
mod pictures;

use usher_clients::{Database, page, run, text};

/// Names in edges that the catalog does not know.
pub const UNKNOWN: &str = "
    WITH l AS MATERIALIZED (SELECT * FROM usher.lineage()),
    ends AS (SELECT source_kind AS kind, source AS name FROM l UNION SELECT target_kind, target FROM l),
    columns AS (
        SELECT l.source AS relation, c AS name FROM l, unnest(l.uses) AS c WHERE l.source_kind IN ('table', 'view')
        UNION SELECT l.source, c FROM l, jsonb_each(l.fields) AS f, jsonb_array_elements_text(f.value) AS c WHERE l.source_kind IN ('table', 'view')
        UNION SELECT l.target, f.key FROM l, jsonb_each(l.fields) AS f WHERE l.target_kind IN ('table', 'view')),
    arguments AS (
        SELECT l.target AS function, f.key AS name FROM l, jsonb_each(l.fields) AS f WHERE l.target_kind = 'function' AND f.key <> '*'),
    payloads AS (
        -- Takes what it is given as one JSON document.
        SELECT r.routine_schema || '.' || r.routine_name AS function
          FROM information_schema.routines AS r JOIN information_schema.parameters AS p USING (specific_schema, specific_name)
         WHERE p.ordinal_position = 1 AND p.data_type = 'jsonb')
    SELECT string_agg(x.what, '; ' ORDER BY x.what) FROM (
        SELECT e.kind || ' ' || e.name AS what FROM ends AS e
         WHERE e.kind = 'table' AND NOT EXISTS (SELECT FROM information_schema.tables AS t WHERE t.table_schema || '.' || t.table_name = e.name AND t.table_type = 'BASE TABLE')
            OR e.kind = 'view' AND NOT EXISTS (SELECT FROM information_schema.views AS v WHERE v.table_schema || '.' || v.table_name = e.name)
            OR e.kind = 'function' AND NOT EXISTS (SELECT FROM information_schema.routines AS r WHERE r.routine_schema || '.' || r.routine_name = e.name)
        UNION ALL SELECT 'column ' || c.relation || '.' || c.name FROM columns AS c
         WHERE NOT EXISTS (SELECT FROM information_schema.columns AS i WHERE i.table_schema || '.' || i.table_name = c.relation AND i.column_name = c.name)
        UNION ALL SELECT 'argument ' || a.function || '.' || a.name FROM arguments AS a
         WHERE a.function NOT IN (SELECT function FROM payloads) AND NOT EXISTS (SELECT FROM information_schema.routines AS r JOIN information_schema.parameters AS p USING (specific_schema, specific_name)
                            WHERE r.routine_schema || '.' || r.routine_name = a.function AND p.parameter_name = a.name)) AS x";

/// Flows that are on and of which there is no edge. What only sees to time, or looks up what a step needs from its own run, has none.
pub const MISSING: &str = "SELECT string_agg(f.name, ', ') FROM usher.flows AS f
    WHERE f.enabled AND NOT f.name LIKE '%::clock' AND NOT f.name LIKE '%:look' AND NOT EXISTS (SELECT FROM usher.lineage() AS l WHERE l.flow = f.name)";

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_lineage_page");
    let mut client = database.connect();
    let here = &mut client;
    for block in page::blocks("lineage.md") {
        run(here, &block.sql);
    }
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', distance, source, target, flow), ', ') FROM usher.lineage('books.reminders', 'upstream')"
        ),
        "-1 invoices.* books.reminders remind, -2 invoices.large invoices.*, -3 books.invoices invoices.large tell_overdue, \
         -4 shop.customers books.invoices invoice, -4 shop.orders books.invoices invoice"
    );
    assert_eq!(
        text(here, "SELECT fields::text || uses::text FROM usher.lineage() WHERE flow = 'invoice' AND kind = 'upsert'"),
        r#"{"amount": ["net", "tax"], "customer": [], "order_id": ["id"]}{customer,status}"#
    );
    let picture = page::blocks("lineage.md")
        .into_iter()
        .find(|block| block.before.contains("How pairs of systems"))
        .expect("a picture")
        .before;
    let picture = picture.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a picture");
    assert_eq!(text(here, "SELECT usher.lineage_diagram('mermaid', 'books.invoices', 'downstream')"), picture);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', from_system, to_system, flows, enabled, broken, pending), ', ') FROM usher.registry"
        ),
        "books books 2 2 0 0, shop books 1 1 0 0"
    );
}
