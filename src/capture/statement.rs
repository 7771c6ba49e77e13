//! The statements of capture: from the changed rows of one statement to jobs.
//!
//! Each comes in two forms: for changes that a flow has caused (`$1` hop, `$2` causing job, `$3` trail as an array, `$4`
//! trail as text), and for everybody else's, without parameters, so that its plan is made once. The changed rows are the transition tables
//! `usher_new` and `usher_old`; of an UPDATE the two are paired by their order, and rows that did not change are skipped.

use crate::flow::catalog::{Table, row_key};
use crate::flow::compile::{condition_is_safe, text_is_safe};
use crate::flow::definition::Change;
use crate::flow::store::Flow;
use crate::flow::switches;
use pgrx::spi::{quote_identifier, quote_literal};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Stands for "the row names no organization": the worker puts such a job into the dead letters.
pub const NO_ORGANIZATION: &str = "00000000-0000-0000-0000-000000000000";

/// The changed rows as `new` and `old`, with the row's key.
fn rows(table: &Table, change: Change, flows: &[Rc<Flow>]) -> String {
    let key = |alias: &str| row_key(&table.key, alias);
    // The side that does not exist is all NULL; only what some flow uses is spelt out.
    let none = |alias: &str, used: fn(&Flow) -> &Vec<String>| nothing(alias, table, flows.iter().flat_map(|flow| used(flow)));
    match change {
        Change::Insert => format!(
            "(SELECT n.*, {} AS usher_key, 1 AS usher_n FROM usher_new AS n) AS new CROSS JOIN {}",
            key("n"),
            none("old", |flow| &flow.compiled.old)
        ),
        Change::Update => format!(
            "(SELECT n.*, {} AS usher_key, pg_catalog.row_number() OVER () AS usher_n FROM usher_new AS n) AS new
             JOIN (SELECT o.*, {} AS usher_key, pg_catalog.row_number() OVER () AS usher_n FROM usher_old AS o) AS old
               ON old.usher_n = new.usher_n AND old OPERATOR(pg_catalog.*<>) new",
            key("n"),
            key("o")
        ),
        Change::Delete => format!(
            "(SELECT o.*, {} AS usher_key, 1 AS usher_n FROM usher_old AS o) AS old CROSS JOIN {}",
            key("o"),
            none("new", |flow| &flow.compiled.new)
        ),
    }
}

/// A row of which nothing is there.
pub(super) fn nothing<'a>(alias: &str, table: &Table, used: impl Iterator<Item = &'a String>) -> String {
    let names: BTreeSet<&String> = used.collect();
    let columns: Vec<String> = table
        .columns
        .iter()
        .filter(|column| names.contains(&column.name))
        .map(|column| format!("NULL::{} AS {}", column.base_sql, quote_identifier(&column.name)))
        .collect();
    format!("(SELECT {}) AS {alias}", columns.join(", "))
}

/// `jsonb_build_object` of the columns that a flow uses.
pub(super) fn image(alias: &str, table: &Table, used: &[String]) -> String {
    let fields: Vec<String> = table
        .columns
        .iter()
        .filter(|column| used.contains(&column.name))
        .map(|column| {
            let value = column.json_sql(alias);
            format!("{}, {value}", quote_literal(&column.name))
        })
        .collect();
    // A function takes at most 100 arguments: wide rows are put together from parts.
    let parts: Vec<String> =
        fields.chunks(45).map(|chunk| format!("pg_catalog.jsonb_build_object({})", chunk.join(", "))).collect();
    if parts.is_empty() { "'{}'::jsonb".to_owned() } else { parts.join(" || ") }
}

/// How a statement names the cause of a change.
#[derive(Clone, Copy)]
pub struct Origin {
    hop: &'static str,
    job: &'static str,
    trail: Option<&'static str>,
    trail_text: &'static str,
    /// Rows to which a newer image was already applied; transactional flows only.
    applied: Option<&'static str>,
}

pub const CAUSED: Origin = Origin {
    hop: "$1::smallint",
    job: "$2::uuid",
    trail: Some("$3::bigint[]"),
    trail_text: "$4::text",
    applied: Some("$5::bigint[]"),
};
/// Nobody's flow: the ordinary writer.
pub const FRESH: Origin = Origin { hop: "0::smallint", job: "NULL::uuid", trail: None, trail_text: "NULL::text", applied: None };

pub(super) struct Parts {
    pub(super) new: String,
    old: String,
    pub(super) organization: String,
    pub(super) condition: String,
    key: &'static str,
}

pub(super) fn parts(flow: &Flow, table: &Table, change: Change, default_organization: &str, origin: Origin) -> Parts {
    let compiled = &flow.compiled;
    let key = if change == Change::Delete { "old.usher_key" } else { "new.usher_key" };
    // What the flow was checked against may have changed since: nothing here may fail in the writer.
    let fits_organization = |sql: &str| match sql.strip_prefix("new.") {
        Some(name) => table.columns.iter().any(|column| quote_identifier(&column.name) == name && column.is_uuid()),
        None => true,
    };
    let organization = match &compiled.organization {
        Some(sql) if !fits_organization(sql) => "NULL::uuid".to_owned(),
        Some(sql) if change == Change::Delete => sql.replacen("new.", "old.", 1),
        Some(sql) => sql.clone(),
        None => format!("{}::uuid", quote_literal(default_organization)),
    };
    // A column that the flow uses and that is gone: take every change, whole; the worker finds the flow broken.
    let fits = compiled.new.iter().chain(&compiled.old).all(|name| table.column(name).is_some());
    let all: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let condition = match &flow.definition.condition {
        Some(condition) if fits && condition_is_safe(&flow.definition, table) => format!("({condition}\n)"),
        _ => match &compiled.part {
            Some(part) if fits && text_is_safe(part, table) => format!("({part})"),
            _ => "true".to_owned(),
        },
    };
    let condition =
        if flow.switched { format!("{condition} AND {}", switches::is_on(flow.id, &organization)) } else { condition };
    Parts {
        new: match change {
            Change::Delete => "NULL::jsonb".to_owned(),
            _ => image("new", table, if fits { &compiled.new } else { &all }),
        },
        old: match change {
            Change::Insert => "NULL::jsonb".to_owned(),
            _ if fits && compiled.old.is_empty() => "NULL::jsonb".to_owned(),
            _ => image("old", table, if fits { &compiled.old } else { &all }),
        },
        organization,
        condition: match origin.trail {
            Some(trail) => format!(
                "{condition} AND ({trail} IS NULL OR {key} IS NULL OR NOT (pg_catalog.hashint8extended({key}, {}) = ANY ({trail})))",
                flow.id
            ),
            None => condition,
        },
        key,
    }
}

/// The INSERT for all flows that share a trigger. `limited`: some limit of the queue may mean their jobs. What a flow has caused
/// is counted and never held back: its cause is written to it in the log.
pub fn enqueue(
    table: &Table,
    change: Change,
    flows: &[Rc<Flow>],
    default_organization: &str,
    origin: Origin,
    limited: bool,
) -> String {
    let parts: Vec<Parts> = flows.iter().map(|flow| parts(flow, table, change, default_organization, origin)).collect();
    let matches = match flows {
        [flow] => one(flow, &parts[0]),
        _ => several(flows, &parts),
    };
    let organization = format!("COALESCE(f.organization_id, '{NO_ORGANIZATION}'::uuid)");
    let rows = rows(table, change, flows);
    let (oid, job, hop, letter, trail) = (table.oid.to_u32(), origin.job, origin.hop, change.letter(), origin.trail_text);
    if limited && origin.trail.is_none() {
        // The limits are asked row by row, in the order of the rows, and know what this statement has made so far.
        let columns = "seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old";
        let waiting = columns.replace(" fallback,", "");
        return format!(
            "/* {oid} */ WITH f AS MATERIALIZED (
    SELECT f.*, {organization} AS organization, usher.admit(f.lane, f.flow_id, {organization}) AS held_by
      FROM {rows} CROSS JOIN LATERAL ({matches}) AS f),
p AS MATERIALIZED (
    SELECT f.*, CASE WHEN f.held_by IS NULL THEN usher.take_seq(f.lane) ELSE usher.take_later_seq() END AS seq FROM f),
w AS (
    INSERT INTO usher.queue_waiting ({waiting}, waiting_for, held_by)
    SELECT p.seq, p.row_key, usher.uuid_v7(), p.organization, pg_catalog.now(), {job}, p.flow_id, p.flow_version, p.lane, {hop}, '{letter}'::\"char\",
           {trail}, p.new, p.old, 'queue full', p.held_by
      FROM p WHERE p.held_by IS NOT NULL)
INSERT INTO usher.jobs ({columns})
SELECT p.seq, p.row_key, usher.uuid_v7(), p.organization, pg_catalog.now(), {job}, p.flow_id, p.flow_version, p.lane, {hop}, '{letter}'::\"char\",
       p.fallback, {trail}, p.new, p.old
  FROM p WHERE p.held_by IS NULL"
        );
    }
    let seq = if limited {
        format!("usher.take_counted_seq(f.lane, f.flow_id, {organization})")
    } else {
        "usher.take_seq(f.lane)".to_owned()
    };
    format!(
        "/* {oid} */ INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old)
SELECT {seq}, f.row_key, usher.uuid_v7(), {organization}, pg_catalog.now(), {job},
       f.flow_id, f.flow_version, f.lane, {hop}, '{letter}'::\"char\", f.fallback, {trail}, f.new, f.old
  FROM {rows} CROSS JOIN LATERAL ({matches}) AS f"
    )
}

fn one(flow: &Flow, p: &Parts) -> String {
    format!(
        "SELECT {} AS flow_id, {} AS flow_version, {}::smallint AS lane, {} AS fallback, {} AS organization_id, {} AS row_key, {} AS new, {} AS old WHERE {}",
        flow.id,
        flow.version,
        flow.definition.lane,
        flow.definition.in_writer(),
        p.organization,
        p.key,
        p.new,
        p.old,
        p.condition
    )
}

/// All conditions as one array of the numbers of those that hold: a thousand of them are then one expression, where a
/// thousand sub-queries would have to be made ready for every statement. What flows have in common is spelt out once.
fn several(flows: &[Rc<Flow>], parts: &[Parts]) -> String {
    let list = |value: &dyn Fn(usize) -> String| (0..flows.len()).map(value).collect::<Vec<_>>().join(",");
    // Expressions that several flows share, by their text: (the text, the numbers of those flows).
    let shared = |text: &dyn Fn(&Parts) -> &String, none: &str| {
        let mut groups: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
        for (n, p) in parts.iter().enumerate() {
            groups.entry(text(p)).or_default().push(n);
        }
        if let Some((text, _)) = groups.first_key_value().filter(|_| groups.len() == 1) {
            return (*text).clone();
        }
        let mut which = vec![0; parts.len()];
        let mut cases = String::new();
        for (group, (text, members)) in groups.iter().enumerate() {
            members.iter().for_each(|n| which[*n] = group);
            cases += &format!(" WHEN {group} THEN {text}");
        }
        format!("CASE ('{{{}}}'::integer[])[m.n]{cases} ELSE {none} END", list(&|n| which[n].to_string()))
    };
    format!(
        "SELECT ('{{{}}}'::integer[])[m.n] AS flow_id, ('{{{}}}'::integer[])[m.n] AS flow_version, ('{{{}}}'::smallint[])[m.n] AS lane,
                ('{{{}}}'::boolean[])[m.n] AS fallback, {} AS organization_id, {} AS row_key, {} AS new, {} AS old
           FROM unnest(ARRAY[{}]::integer[]) AS m (n) WHERE m.n IS NOT NULL",
        list(&|n| flows[n].id.to_string()),
        list(&|n| flows[n].version.to_string()),
        list(&|n| flows[n].definition.lane.to_string()),
        list(&|n| (flows[n].definition.in_writer()).to_string()),
        shared(&|p| &p.organization, "NULL::uuid"),
        parts[0].key,
        shared(&|p| &p.new, "NULL::jsonb"),
        shared(&|p| &p.old, "NULL::jsonb"),
        // Arrays count from 1.
        list(&|n| format!("CASE WHEN {} THEN {} END", parts[n].condition, n + 1)),
    )
}

/// The rows for one transactional flow, as the arrays of a batch: first those that can be applied now, then those whose
/// row has an earlier change waiting. `$5`: rows to which a newer image was already applied.
pub fn matched(
    table: &Table,
    change: Change,
    flow: &Rc<Flow>,
    default_organization: &str,
    origin: Origin,
    siblings: &[i32],
) -> String {
    let applied = origin.applied;
    let p = parts(flow, table, change, default_organization, origin);
    format!(
        "/* {oid} */ SELECT pg_catalog.array_agg(x.organization_id), pg_catalog.array_agg(x.id), pg_catalog.array_agg(x.new), pg_catalog.array_agg(x.old),
       pg_catalog.array_agg('{letter}'::\"char\"), pg_catalog.array_agg(pg_catalog.now()), pg_catalog.array_agg(x.seq), pg_catalog.array_agg(x.row_key),
       pg_catalog.count(*)::integer, pg_catalog.count(*) FILTER (WHERE NOT x.blocked)::integer, {hop}, {job}, {trail_text},
       CASE WHEN pg_catalog.min(x.organization_id::text) = pg_catalog.max(x.organization_id::text) THEN pg_catalog.min(x.organization_id::text)::uuid END
  FROM (SELECT y.*, usher.uuid_v7() AS id, pg_catalog.nextval('usher.queue_seq'::pg_catalog.regclass) AS seq
          FROM (SELECT COALESCE({organization}, '{NO_ORGANIZATION}'::uuid) AS organization_id, {key} AS row_key, {new} AS new, {old} AS old,
                       EXISTS (SELECT FROM usher.jobs q WHERE q.fallback AND q.flow_id = ANY ('{{{siblings}}}'::integer[]) AND q.row_key = {key})
                       OR EXISTS (SELECT FROM usher.queue_waiting w WHERE w.flow_id = ANY ('{{{siblings}}}'::integer[]) AND w.row_key = {key}) AS blocked
                  FROM {rows}
                 WHERE {condition}{newer}) AS y
         ORDER BY y.blocked) AS x",
        oid = table.oid.to_u32(),
        hop = origin.hop,
        job = origin.job,
        trail_text = origin.trail_text,
        newer = applied
            .map(|rows| format!(" AND ({rows} IS NULL OR {0} IS NULL OR NOT ({0} = ANY ({rows})))", p.key))
            .unwrap_or_default(),
        letter = change.letter(),
        organization = p.organization,
        key = p.key,
        new = p.new,
        old = p.old,
        siblings = siblings.iter().map(i32::to_string).collect::<Vec<_>>().join(","),
        rows = rows(table, change, std::slice::from_ref(flow)),
        condition = p.condition,
    )
}

/// Gives inner changes of the rows that an outer statement has just captured positions after the outer ones.
/// `$1`-`$2` positions captured inside, `$3`-`$4` positions of the outer statement.
pub const REORDER: &str = "
    UPDATE usher.jobs AS q SET seq = x.seq
      FROM (SELECT o.lane, o.was, usher.take_seq(o.lane) AS seq
              FROM (SELECT i.lane, i.seq AS was
                      FROM usher.jobs i
                     WHERE i.lane = ANY ('{0,1,2,3,4}'::smallint[]) AND i.seq BETWEEN $1 AND $2
                       AND EXISTS (SELECT FROM usher.jobs m
                                    WHERE m.lane = i.lane AND m.seq BETWEEN $3 AND $4 AND m.flow_id = i.flow_id AND m.row_key = i.row_key)
                     ORDER BY i.seq) AS o) AS x
     WHERE q.lane = x.lane AND q.seq = x.was";

/// The same where limits hold jobs back: both kinds of each row are put into one order.
pub const REORDER_HELD: &str = "
    WITH i AS MATERIALIZED (
        SELECT o.held, o.lane, o.was, o.organization_id, o.id, CASE WHEN o.held THEN usher.take_later_seq() ELSE usher.take_seq(o.lane) END AS seq
          FROM (SELECT x.held, x.lane, x.seq AS was, x.organization_id, x.id
                  FROM (SELECT false AS held, j.lane, j.seq, j.organization_id, j.id, j.flow_id, j.row_key
                          FROM usher.jobs j WHERE j.lane = ANY ('{0,1,2,3,4}'::smallint[]) AND j.seq BETWEEN $1 AND $2
                        UNION ALL
                        SELECT true, w.lane, w.seq, w.organization_id, w.id, w.flow_id, w.row_key
                          FROM usher.queue_waiting w
                         WHERE w.held_by IN (SELECT r.id FROM usher.queue_limit_rules r) AND w.waiting_for = 'queue full' AND w.due_at IS NULL
                           AND w.lane = ANY ('{0,1,2,3,4}'::smallint[]) AND w.seq BETWEEN $1 AND $2) AS x
                 WHERE EXISTS (SELECT FROM usher.jobs m
                                WHERE m.lane = ANY ('{0,1,2,3,4}'::smallint[]) AND m.seq BETWEEN $3 AND $4 AND m.flow_id = x.flow_id AND m.row_key = x.row_key)
                    OR EXISTS (SELECT FROM usher.queue_waiting m
                                WHERE m.flow_id = x.flow_id AND m.row_key = x.row_key AND m.seq BETWEEN $3 AND $4)
                 ORDER BY x.seq) AS o),
    h AS (UPDATE usher.queue_waiting AS w SET seq = i.seq FROM i WHERE i.held AND w.organization_id = i.organization_id AND w.id = i.id)
    UPDATE usher.jobs AS q SET seq = i.seq FROM i WHERE NOT i.held AND q.lane = i.lane AND q.seq = i.was";
