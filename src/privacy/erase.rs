//! Erasing a person: the application's rows, then what pg_usher keeps of them, then the systems that know the person.
//!
//! One transaction, so that a person is erased or not. Work that ran beside it may have read the person before and write afterwards:
//! once all of that has ended, a worker goes through the same rows again ([`sweep`]).

use super::copies::{self, Counts, Known, Person};
use super::graph::{self, Graph, Standing};
use super::rows::{self, Acting};
use super::{Patience, mask, receipt, retention, store};
use crate::error::{Result, UsherError};
use crate::guard::{audit, erasure};
use crate::pg::{ids, role, spi, subxact, xact};
use crate::queue::request::{self, Request};
use crate::registry::identity;
use crate::registry::tables::row_key;
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// The lane for requests to other systems: they are not urgent, and must not be last.
const NORMAL: usize = 3;
/// Erasures that a worker looks at again in one go.
const MOST: i64 = 20;

/// A person and everything that is known of that person's rows.
pub struct Found {
    pub graph: Graph,
    pub acting: Acting,
    /// Of the person's row, as that shows it.
    pub key: String,
    pub identifiers: Vec<String>,
    pub known: Vec<Known>,
    /// Rows by node.
    pub counts: Vec<i64>,
}

impl Found {
    /// The person's rows as the audit log names them: tables, and keys.
    pub fn objects(&self) -> (Vec<String>, Vec<String>) {
        self.known.iter().flat_map(|known| known.objects.iter().map(|object| (known.table.clone(), object.clone()))).unzip()
    }
}

/// Where another system knows the person.
pub struct Elsewhere {
    pub system: String,
    source: String,
    kind: String,
    id: String,
    /// Somebody takes a request to erase.
    pub reachable: bool,
}

/// Looks up a person's rows. Runs with the owner's rights.
pub fn find(organization: Uuid, kind: &str, key: &str) -> Result<Found> {
    let mut graph = graph::of(kind)?;
    let acting = Acting { organization, run_as: graph.subject.run_as, alone: !xact::in_block() };
    let nobody = |graph: &Graph| {
        UsherError::not_found(format!("there is no {kind} \"{key}\" in this organization"))
            .hint(format!("The key is {}.{} of a row.", graph.nodes[0].table.name, graph.subject.key))
    };
    // What is no value of the key's type is nobody's key.
    let Some(key) = rows::key(&graph, key) else { return Err(nobody(&graph)) };
    resolve(&mut graph, acting, vec![key.clone()])?;
    let (mut identifiers, mut known, mut counts) = (Vec::new(), Vec::new(), vec![0; graph.nodes.len()]);
    for (at, count) in counts.iter_mut().enumerate() {
        if graph.nodes[at].standing == Standing::LeftOut {
            continue;
        }
        let mut facts = rows::facts(acting, &graph, at)?;
        *count = facts.count;
        if matches!(graph.nodes[at].standing, Standing::Person | Standing::Owned) {
            identifiers.append(&mut facts.identifiers);
            let node = &graph.nodes[at];
            known.push(Known::new(&node.table, &node.personal, facts));
        }
    }
    if counts[0] == 0 {
        return Err(nobody(&graph));
    }
    identifiers.sort_unstable();
    identifiers.dedup();
    // The key itself is the pseudonym's other half: rows, links and entries go on being told apart by it.
    identifiers.retain(|value| *value != key && value.chars().count() >= mask::SHORTEST);
    Ok(Found { graph, acting, key, identifiers, known, counts })
}

/// Follows the links of these persons' rows. Runs with the owner's rights.
pub fn resolve(graph: &mut Graph, acting: Acting, keys: Vec<String>) -> Result<()> {
    graph.resolve(
        keys,
        |graph, at, column| rows::column(acting, graph, at, column),
        |link, left, ids| ends(acting.organization, link, left, ids),
    )
}

/// The ids at the other end of links. Runs with the owner's rights.
fn ends(organization: Uuid, kind: &str, from_left: bool, ids: &[String]) -> Result<Vec<String>> {
    let (here, there) = if from_left { ("left_id", "right_id") } else { ("right_id", "left_id") };
    let found = spi::read::<Vec<String>>(
        &format!(
            "SELECT pg_catalog.array_agg(DISTINCT l.{there}) FROM usher.links AS l
              WHERE l.organization_id = $1 AND l.kind = $2 AND l.{here} = ANY ($3) AND l.{there} IS NOT NULL"
        ),
        &[spi::arg(organization), spi::arg(kind), spi::arg(ids.to_vec())],
    )?;
    Ok(found.unwrap_or_default())
}

/// The systems that are not in this database and know the person by a link. Runs with the owner's rights.
pub fn elsewhere(organization: Uuid, links: &[String], key: &str) -> Result<Vec<Elsewhere>> {
    let found = spi::read_all(
        "SELECT DISTINCT s.name, COALESCE(l.own, 'usher'), l.kind, l.id
           FROM (SELECT x.kind, x.right_id AS id, x.right_system AS system, x.left_system AS own FROM usher.links AS x
                  WHERE x.organization_id = $1 AND x.kind = ANY ($2) AND x.left_id = $3
                 UNION ALL
                 SELECT x.kind, x.left_id, x.left_system, x.right_system FROM usher.links AS x
                  WHERE x.organization_id = $1 AND x.kind = ANY ($2) AND x.right_id = $3) AS l
           JOIN usher.systems AS s ON s.name = l.system AND s.kind <> 'local'
          WHERE l.id IS NOT NULL ORDER BY 1, 3, 4",
        &[spi::arg(organization), spi::arg(links.to_vec()), spi::arg(key)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok(Elsewhere { system: text(1)?, source: text(2)?, kind: text(3)?, id: text(4)?, reachable: true })
        },
    )?;
    found
        .into_iter()
        .map(|place| {
            // What nobody takes is an error of the request; here it is what the receipt says.
            let reachable = subxact::attempt(|| {
                request::check_route(&place.request(organization), &JsonB(place.payload(Uuid::from_bytes([0; 16]))))
            })
            .is_ok();
            Ok(Elsewhere { reachable, ..place })
        })
        .collect()
}

impl Elsewhere {
    fn request(&self, organization: Uuid) -> Request {
        Request { organization, source: self.source.clone(), target: self.system.clone(), lane: NORMAL, lane_given: true }
    }

    fn payload(&self, erasure: Uuid) -> Value {
        json!({"action": "erase_subject", "link": self.kind, "id": self.id, "erasure": erasure.to_string()})
    }
}

/// What stands for a person who was erased: the same everywhere, and nothing that could be worked out from the person.
fn pseudonym() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("erased-{}", &random[..12])
}

fn rows_of(found: &Found, pseudonym: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    // From the far end back: a row is found by those before it, as they were.
    let mut owned: Vec<usize> = found.graph.owned().collect();
    owned.sort_by_key(|at| std::cmp::Reverse(found.graph.nodes[*at].depth));
    for at in owned {
        let done = rows::erase(found.acting, &found.graph, at, pseudonym)?;
        copies::count(&mut counts, &found.graph.nodes[at].table.name, done);
    }
    Ok(counts)
}

/// Why a person may not be erased now: a hold on the person, or one that reaches rows that would be. Runs with the owner's rights.
pub fn held(found: &Found, kind: &str) -> Result<Option<String>> {
    if let Some(why) = store::hold(found.acting.organization, kind, &found.key)? {
        return Ok(Some(why));
    }
    for (at, known) in found.graph.owned().zip(&found.known) {
        let table = &found.graph.nodes[at].table;
        // Rows without a key cannot be told apart: then any that is held in that table counts.
        let which = if table.key.is_empty() {
            "$3::bigint[] IS NOT NULL".to_owned()
        } else {
            format!("{} = ANY ($3)", row_key(&table.key, "t"))
        };
        if found.counts[at] == 0 {
            continue;
        }
        for hold in retention::holds(table)? {
            let sql = format!("SELECT true FROM {} AS t WHERE {which} AND {} LIMIT 1", table.sql, hold.condition);
            let arguments = [spi::arg(hold.acting.organization), spi::arg(hold.values), spi::arg(known.row_keys.clone())];
            if hold.acting.organization == found.acting.organization
                && hold.acting.within(|| spi::read::<bool>(&sql, &arguments))? == Some(true)
            {
                return Ok(Some(format!("it reaches rows of {} that belong to a {}", table.name, hold.kind)));
            }
        }
    }
    Ok(None)
}

/// Erases a person and returns the signed receipt. The caller may manage the organization.
pub fn run(installed: Installed, organization: Uuid, kind: &str, key: &str, reason: &str) -> Result<Value> {
    receipt::ready()?;
    let by = identity::author();
    let owner = role::internal(installed.owner);
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see what others have held or written meanwhile")
            .hint("Call usher.erase_subject() in READ COMMITTED."));
    }
    // No hold in between.
    spi::run("LOCK TABLE usher.legal_holds IN SHARE MODE", &[])?;
    let found = find(organization, kind, key)?;
    let key = found.key.as_str();
    // Once at a time for a person.
    spi::run(
        "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(pg_catalog.concat_ws('|', 'usher.erase_subject', $1::text, $2, $3), 0))",
        &[spi::arg(organization), spi::arg(kind), spi::arg(key)],
    )?;
    if let Some(why) = held(&found, kind)? {
        return Err(UsherError::state(format!("this {kind} is under a legal hold: {why}"))
            .hint("SELECT usher.release_hold(organization, id); ends it; usher.legal_holds shows the id."));
    }
    let erasure = ids::uuid_v7();
    let pseudonym = pseudonym();
    let elsewhere = elsewhere(organization, &found.graph.subject.links, key)?;
    let rows = rows_of(&found, &pseudonym)?;
    let person = Person { organization, erasure, pseudonym: &pseudonym, identifiers: &found.identifiers, known: &found.known };
    let copies = copies::mask(&person)?;
    // Last: what was done until here was itself entered.
    let (entries, days) = copies::mask_audit(&person)?;
    let (reachable, unreachable): (Vec<_>, Vec<_>) = elsewhere.into_iter().partition(|place| place.reachable);
    let unreachable: Vec<Value> = unreachable.iter().map(|place| json!({"system": place.system, "link": place.kind})).collect();
    spi::run(
        "INSERT INTO usher.erasures (organization_id, id, kind, subject, pseudonym, reason, requested_by, rows, copies, audit_entries, unreachable, table_name, done_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, pg_catalog.pg_current_xact_id()::text::bigint)",
        &[
            spi::arg(organization),
            spi::arg(erasure),
            spi::arg(kind),
            spi::arg(key),
            spi::arg(pseudonym.as_str()),
            spi::arg(reason),
            spi::arg(by),
            spi::arg(JsonB(Value::Object(rows.clone()))),
            spi::arg(JsonB(Value::Object(copies.clone()))),
            spi::arg(entries),
            spi::arg(JsonB(Value::Array(unreachable))),
            spi::arg(found.graph.nodes[0].table.name.as_str()),
        ],
    )?;
    let mut jobs = Vec::new();
    for place in &reachable {
        let job = request::id_of_one(&place.request(organization), JsonB(place.payload(erasure)))?;
        jobs.push((job, place.system.clone()));
    }
    let (job_ids, systems): (Vec<Uuid>, Vec<String>) = jobs.into_iter().unzip();
    spi::run(
        "INSERT INTO usher.erasure_jobs (organization_id, erasure_id, job_id, system) SELECT $1, $2, u.job, u.system FROM unnest($3::uuid[], $4::text[]) AS u (job, system)",
        &[spi::arg(organization), spi::arg(erasure), spi::arg(job_ids), spi::arg(systems)],
    )?;
    entered(
        installed,
        organization,
        erasure,
        json!({"kind": kind, "pseudonym": pseudonym, "rows": rows, "copies": copies, "audit_days": days}),
    )?;
    drop(owner);
    receipt_of(installed, organization, erasure)
}

fn entered(installed: Installed, organization: Uuid, erasure: Uuid, what: Value) -> Result<()> {
    audit::note(installed, Some(organization), erasure::ACTION, &erasure.to_string(), None, Some(what))
}

/// The receipt as things stand now: jobs at other systems may have been done since.
pub fn receipt_of(installed: Installed, organization: Uuid, erasure: Uuid) -> Result<Value> {
    let _acting = role::internal(installed.owner);
    let found = spi::read::<JsonB>(
        "SELECT pg_catalog.jsonb_build_object('erasure', e.id, 'organization', e.organization_id, 'kind', e.kind, 'subject', e.subject,
                'pseudonym', e.pseudonym, 'reason', e.reason, 'requested_by', e.requested_by, 'erased_at', e.requested_at, 'rows', e.rows, 'copies', e.copies,
                'audit_entries', e.audit_entries, 'looked_again_at', e.swept_at, 'systems_without_a_way', e.unreachable,
                'systems', COALESCE((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('system', j.system, 'job', j.job_id,
                                                'state', COALESCE(s.status, 'unknown: forgotten after usher.history_days'), 'finished_at', s.finished_at) ORDER BY j.system, j.job_id)
                                       FROM usher.erasure_jobs AS j LEFT JOIN usher.sync_jobs AS s ON s.organization_id = j.organization_id AND s.id = j.job_id
                                      WHERE j.organization_id = e.organization_id AND j.erasure_id = e.id), '[]'))
           FROM usher.erasures AS e WHERE e.organization_id = $1 AND e.id = $2",
        &[spi::arg(organization), spi::arg(erasure)],
    )?;
    let Some(found) = found else {
        return Err(UsherError::not_found("there is no such erasure in this organization")
            .hint("SELECT id, kind, requested_at FROM usher.erasures; shows them."));
    };
    receipt::sign(&found.0)
}

/// Goes once more through the rows of erasures beside which nothing runs any more. Runs with the owner's rights; returns how many.
pub fn sweep(installed: Installed, patience: Option<Patience>) -> Result<i64> {
    let begin = Instant::now();
    let open = spi::read_all(
        "SELECT e.organization_id, e.id, e.kind, e.subject, e.pseudonym FROM usher.erasures AS e
          -- Numbers that are still to come are of another server, from which this was brought.
          WHERE e.swept_at IS NULL
            AND (e.done_by < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint
                 OR e.done_by >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint)
          ORDER BY pg_catalog.random() LIMIT $1",
        &[spi::arg(MOST)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok((row.get::<Uuid>(1)?, row.get::<Uuid>(2)?, text(3)?, text(4)?, text(5)?))
        },
    )?;
    let mut done = 0;
    for (organization, erasure, kind, subject, pseudonym) in open {
        let (Some(organization), Some(erasure)) = (organization, erasure) else { continue };
        if Patience::is_over(patience, begin) {
            break;
        }
        let limit = patience.map(|patience| patience.each);
        match subxact::attempt_within(limit, || again(installed, organization, erasure, &kind, &subject, &pseudonym)) {
            Ok(()) => done += 1,
            // A definition that is broken is somebody's to mend; the erasure stays open until then.
            Err(failure) => pgrx::warning!("erasure {erasure} could not be looked at again: {}", failure.line()),
        }
    }
    Ok(done)
}

fn again(installed: Installed, organization: Uuid, erasure: Uuid, kind: &str, subject: &str, pseudonym: &str) -> Result<()> {
    xact::take_number();
    let mut days = Map::new();
    let (mut rows, mut copies, mut entries) = (Counts::new(), Counts::new(), 0);
    // Defined anew over another table, the key is somebody else's.
    let same = spi::read::<bool>(
        "SELECT k.schema_name || '.' || k.table_name = e.table_name FROM usher.erasures AS e JOIN usher.subject_kinds AS k ON k.kind = e.kind
          WHERE e.organization_id = $1 AND e.id = $2",
        &[spi::arg(organization), spi::arg(erasure)],
    )?;
    let found = if same == Some(true) { found_again(organization, kind, subject)? } else { None };
    if let Some(found) = &found
        && let Some(why) = held(found, kind)?
    {
        return Err(UsherError::state(format!("this {kind} is under a legal hold since: {why}")));
    }
    match found {
        // The row, or what said where its data is, was removed meanwhile.
        None => (),
        Some(found) => {
            rows = rows_of(&found, pseudonym)?;
            // What names the person now is the pseudonym.
            let person = Person { organization, erasure, pseudonym, identifiers: &[], known: &found.known };
            copies = copies::mask(&person)?;
            (entries, days) = copies::mask_audit(&person)?;
        }
    }
    spi::run(
        "UPDATE usher.erasures AS e SET swept_at = pg_catalog.clock_timestamp(), audit_entries = e.audit_entries + $3 WHERE e.organization_id = $1 AND e.id = $2",
        &[spi::arg(organization), spi::arg(erasure), spi::arg(entries)],
    )?;
    if rows.is_empty() && copies.is_empty() && entries == 0 {
        return Ok(());
    }
    entered(installed, organization, erasure, json!({"again": true, "rows": rows, "copies": copies, "audit_days": days}))
}

fn found_again(organization: Uuid, kind: &str, subject: &str) -> Result<Option<Found>> {
    match find(organization, kind, subject) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT => Ok(None),
        Err(error) => Err(error),
    }
}
