//! Taking a person out of what pg_usher itself keeps: jobs that wait or went through, dead letters, history, links, notices, and
//! the audit log.
//!
//! A job or an entry about one of the person's rows loses the personal fields; beyond that, whatever names the person is masked
//! wherever it stands in the organization's own rows.

use super::rows::Facts;
use super::store::{Erase, Personal};
use crate::error::Result;
use crate::guard::erasure;
use crate::pg::spi;
use crate::registry::tables::Table;
use pgrx::Uuid;
use pgrx::spi::quote_identifier;
use serde_json::{Map, Value};

/// Columns of our own tables that hold what the application gave us. No others: names of systems, kinds and states are ours, whoever
/// is called like one.
const COPIES: [&str; 29] = [
    "data",
    "input",
    "new",
    "old",
    "payload",
    "result",
    "would_write",
    "metadata",
    "error_message",
    "failed",
    "body",
    "message",
    "detail",
    "title",
    // Of conflicts and what is to be looked at for them.
    "left_key",
    "right_key",
    "base",
    "ours",
    "theirs",
    "alternatives",
    "decided_values",
    "note",
    "row_keys",
    // Of violations.
    "key",
    "row",
    "wrong",
    "waived_because",
    "last_error",
    // Of repairs: rows as they were and as they are.
    "changes",
];
/// What the erasure itself is proved by.
const NOT_COPIES: [&str; 3] = ["audit_log", "audit_erasures", "erasures"];

/// Rows of one table of the application that are the person's.
pub struct Known {
    /// `schema.table`.
    pub table: String,
    /// Columns of its key, as people name a row.
    pub key: Vec<String>,
    pub fields: Vec<String>,
    pub row_keys: Vec<i64>,
    pub objects: Vec<String>,
}

impl Known {
    pub fn new(table: &Table, personal: &[Personal], facts: Facts) -> Self {
        Self {
            table: table.name.clone(),
            key: table.own_key().into_iter().map(str::to_owned).collect(),
            fields: personal.iter().filter(|p| p.erase != Erase::Keep).map(|p| p.column.clone()).collect(),
            row_keys: facts.row_keys,
            objects: facts.objects,
        }
    }
}

/// Who is masked, and how.
pub struct Person<'a> {
    pub organization: Uuid,
    pub erasure: Uuid,
    pub pseudonym: &'a str,
    pub identifiers: &'a [String],
    pub known: &'a [Known],
}

/// How many rows of which table were changed.
pub type Counts = Map<String, Value>;

pub fn count(counts: &mut Counts, table: &str, more: usize) {
    if more > 0 {
        let before = counts.get(table).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(table.to_owned(), Value::from(before + more as u64));
    }
}

/// Where jobs are, and which of them are about rows: `$3` keys as jobs have them, `$4` the columns of the key, `$5` keys as people
/// write them.
const JOBS: [(&str, &str); 4] = [
    ("jobs", "x.row_key = ANY ($3)"),
    ("queue_waiting", "x.row_key = ANY ($3)"),
    ("dead_letters", "x.row_key = ANY ($3)"),
    // The history has no keys of rows: where the flow uses the key, it is in the row as it was.
    (
        "job_history",
        "(SELECT pg_catalog.string_agg(COALESCE(x.new, x.old) ->> k.name, ',' ORDER BY k.n) FROM unnest($4::text[]) WITH ORDINALITY AS k (name, n)) = ANY ($5)",
    ),
];
/// Of the organization `$1`, by flows that follow the table `$2`.
const ABOUT: &str = "x.organization_id = $1 AND num_nulls($3::bigint[], $4::text[], $5::text[]) = 0
    AND x.flow_id IN (SELECT v.flow_id FROM usher.flow_versions AS v WHERE v.compiled ->> 'source' = $2)";

/// The jobs about rows that are the person's. Runs with the owner's rights.
pub fn jobs_about(organization: Uuid, all: &[Known]) -> Result<Vec<Uuid>> {
    let selects = JOBS.map(|(table, which)| format!("SELECT x.id FROM usher.{table} AS x WHERE {ABOUT} AND {which}"));
    let sql = format!("SELECT pg_catalog.array_agg(u.id) FROM ({}) AS u", selects.join(" UNION ALL "));
    let mut ids = Vec::new();
    for known in all {
        let found = spi::read::<Vec<Uuid>>(
            &sql,
            &[
                spi::arg(organization),
                spi::arg(known.table.as_str()),
                spi::arg(known.row_keys.clone()),
                spi::arg(known.key.clone()),
                spi::arg(known.objects.clone()),
            ],
        )?;
        ids.extend(found.unwrap_or_default());
    }
    Ok(ids)
}

/// Masks the person in jobs and whatever else is no audit. Runs with the owner's rights.
pub fn mask(person: &Person<'_>) -> Result<Counts> {
    let mut counts = Counts::new();
    for known in person.known.iter().filter(|known| !known.fields.is_empty() && !known.row_keys.is_empty()) {
        for (table, which) in JOBS {
            let done = spi::run(
                &format!(
                    "UPDATE usher.{table} AS x SET new = usher.mask_person(x.new::text, $6, '{{}}', $7)::jsonb, old = usher.mask_person(x.old::text, $6, '{{}}', $7)::jsonb
                      WHERE {ABOUT} AND {which}
                        AND (x.new, x.old) IS DISTINCT FROM (usher.mask_person(x.new::text, $6, '{{}}', $7)::jsonb, usher.mask_person(x.old::text, $6, '{{}}', $7)::jsonb)"
                ),
                &[
                    spi::arg(person.organization),
                    spi::arg(known.table.as_str()),
                    spi::arg(known.row_keys.clone()),
                    spi::arg(known.key.clone()),
                    spi::arg(known.objects.clone()),
                    spi::arg(known.fields.clone()),
                    spi::arg(person.pseudonym),
                ],
            )?;
            count(&mut counts, table, done);
        }
    }
    for known in person.known.iter().filter(|known| !known.objects.is_empty()) {
        count(&mut counts, "repairs", repaired(person, known)?);
    }
    if !person.identifiers.is_empty() {
        for (table, columns) in places()? {
            let done = named(person, &table, &columns)?;
            count(&mut counts, &table, done);
        }
    }
    Ok(counts)
}

/// Why a repair cannot be undone whose rows are not what they were.
const ERASED: &str = "a person was erased from its changes";

/// SQL for what keeps a repair `x` from being undone, from now on.
fn cannot_undo() -> String {
    format!(
        "CASE WHEN pg_catalog.strpos(COALESCE(x.cannot_undo, ''), '{ERASED}') > 0 THEN x.cannot_undo ELSE pg_catalog.concat_ws('; ', x.cannot_undo, '{ERASED}') END"
    )
}

/// Masks what is personal in the person's rows as repairs have kept them. Whatever of them is left, undoing a repair does not bring them back.
fn repaired(person: &Person<'_>, known: &Known) -> Result<usize> {
    let theirs = "e.change ->> 'table' = $2
        AND (SELECT pg_catalog.string_agg(e.change -> 'key' ->> k.name, ',' ORDER BY k.n) FROM pg_catalog.unnest($3::text[]) WITH ORDINALITY AS k (name, n)) = ANY ($4)";
    spi::run(
        &format!(
            "UPDATE usher.repairs AS r SET changes = m.changes, cannot_undo = m.cannot_undo
               FROM (SELECT x.id, {} AS cannot_undo,
                            (SELECT pg_catalog.jsonb_agg(CASE WHEN {theirs} THEN usher.mask_person(e.change::text, $5, '{{}}', $6)::jsonb ELSE e.change END ORDER BY e.n)
                               FROM pg_catalog.jsonb_array_elements(x.changes) WITH ORDINALITY AS e (change, n)) AS changes
                       FROM usher.repairs AS x
                      WHERE x.organization_id = $1 AND EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(x.changes) AS e (change) WHERE {theirs})
                     OFFSET 0) AS m
              WHERE r.organization_id = $1 AND r.id = m.id AND (r.changes, r.cannot_undo) IS DISTINCT FROM (m.changes, m.cannot_undo)",
            cannot_undo()
        ),
        &[
            spi::arg(person.organization),
            spi::arg(known.table.as_str()),
            spi::arg(known.key.clone()),
            spi::arg(known.objects.clone()),
            spi::arg(known.fields.clone()),
            spi::arg(person.pseudonym),
        ],
    )
}

/// Names of columns, and which are JSON.
type Columns = Vec<(String, bool)>;

/// Where an organization's data can be among our own tables: columns of text and JSON.
fn places() -> Result<Vec<(String, Columns)>> {
    spi::read_all(
        "SELECT c.relname::text, pg_catalog.array_agg(a.attname::text ORDER BY a.attnum), pg_catalog.array_agg(a.atttypid = 3802 ORDER BY a.attnum)
           FROM pg_catalog.pg_class AS c
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN (25, 3802)
          WHERE c.relnamespace = 'usher'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND c.relname <> ALL ($1) AND a.attname = ANY ($2)
            -- By which something is told once, whatever it is about.
            AND NOT (c.relname = 'notifications' AND a.attname = 'key')
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS o WHERE o.attrelid = c.oid AND o.attname = 'organization_id' AND NOT o.attisdropped)
          GROUP BY c.relname ORDER BY c.relname",
        &[spi::arg(NOT_COPIES.map(str::to_owned).to_vec()), spi::arg(COPIES.map(str::to_owned).to_vec())],
        |row| {
            let names = row.get::<Vec<String>>(2)?.unwrap_or_default();
            let json = row.get::<Vec<bool>>(3)?.unwrap_or_default();
            Ok((row.get::<String>(1)?.unwrap_or_default(), names.into_iter().zip(json).collect()))
        },
    )
}

/// Masks what names the person in one of our tables.
fn named(person: &Person<'_>, table: &str, columns: &[(String, bool)]) -> Result<usize> {
    let masked = |(name, json): &(String, bool)| {
        let column = format!("x.{}", quote_identifier(name));
        let value = if *json { column.clone() } else { format!("pg_catalog.to_jsonb({column})") };
        let masked = format!("usher.mask_person(({value})::text, '{{}}', $2, $3)::jsonb");
        (quote_identifier(name), column, if *json { masked } else { format!("({masked} #>> '{{}}')") })
    };
    let all: Vec<(String, String, String)> = columns.iter().map(masked).collect();
    let mut set: Vec<String> = all.iter().map(|(name, _, masked)| format!("{name} = {masked}")).collect();
    if table == "repairs" {
        set.push(format!("cannot_undo = {}", cannot_undo()));
    }
    let differs: Vec<String> = all.iter().map(|(_, column, masked)| format!("{column} IS DISTINCT FROM {masked}")).collect();
    spi::run(
        &format!("UPDATE usher.{table} AS x SET {} WHERE x.organization_id = $1 AND ({})", set.join(", "), differs.join(" OR ")),
        &[spi::arg(person.organization), spi::arg(person.identifiers.to_vec()), spi::arg(person.pseudonym)],
    )
}

/// Masks the person in the audit log; returns how many entries, and what proves that nothing else was changed. Runs with the
/// owner's rights.
pub fn mask_audit(person: &Person<'_>) -> Result<(i64, Map<String, Value>)> {
    let masked = "SELECT m.position, m.recorded_at, m.masked_old AS old, m.masked_new AS new
                    FROM (SELECT e.position, e.recorded_at, e.old, e.new,
                                 usher.mask_person(e.old::text, $2, $3, $4)::jsonb AS masked_old, usher.mask_person(e.new::text, $2, $3, $4)::jsonb AS masked_new
                            FROM usher.audit_log AS e WHERE e.organization_id = $1 AND e.action <> 'usher.subjects.erased'";
    let changed = "OFFSET 0) AS m WHERE m.old IS DISTINCT FROM m.masked_old OR m.new IS DISTINCT FROM m.masked_new";
    let (mut entries, mut days) = (0, Map::new());
    for known in person.known.iter().filter(|known| !known.fields.is_empty() && !known.objects.is_empty()) {
        let query = format!("{masked} AND e.action = ANY ($5) AND e.object = ANY ($6) {changed}");
        let actions = ["created", "updated", "deleted"].map(|done| format!("{}.{done}", known.table));
        let (more, root) = erasure::mask(
            person.erasure,
            &query,
            vec![
                spi::arg(person.organization),
                spi::arg(known.fields.clone()),
                spi::arg(person.identifiers.to_vec()),
                spi::arg(person.pseudonym),
                spi::arg(actions.to_vec()),
                spi::arg(known.objects.clone()),
            ],
        )?;
        (entries, days) = (entries + more, root);
    }
    if !person.identifiers.is_empty() {
        let (more, root) = erasure::mask(
            person.erasure,
            &format!("{masked} {changed}"),
            vec![
                spi::arg(person.organization),
                spi::arg(Vec::<String>::new()),
                spi::arg(person.identifiers.to_vec()),
                spi::arg(person.pseudonym),
            ],
        )?;
        (entries, days) = (entries + more, root);
    }
    Ok((entries, days))
}
