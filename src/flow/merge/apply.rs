//! Running a merge over a range of a batch.
//!
//! Whom it is about and what is written is asked with the flow's rights, links are read, locked and kept with the owner's. Links are locked
//! first, in their own order: whoever merges the same pairs from the other side waits, and then finds everything done. Where it matters, both
//! rows are locked too, the left ones before the right ones.

use super::super::apply::{Batch, Causes, Place, Run, arguments, as_flow, work};
use super::super::cause::Cause;
use super::super::compile::Program;
use super::super::store::Flow;
use super::definition::{Merge, Side};
use super::statement::{NOTED, Statements};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Raw};
use crate::pg::{role, trigger};
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use std::rc::Rc;

/// How often a range is merged again because triggers answer each other.
const MOST_ECHOES: usize = 4;

/// What came out of pairs that do not agree, or did not: to be written down by the room above.
pub struct Disagreement<'a> {
    /// The pair's flow.
    pub flow: &'a str,
    pub left_table: String,
    pub right_table: String,
    pub left_id: String,
    pub right_id: String,
    pub merge: &'a Merge,
    pub organizations: Raw,
    pub links: Raw,
    pub lefts: Raw,
    pub rights: Raw,
    /// NULL: they agree.
    pub conflicts: Raw,
    /// There was a conflict before.
    pub had: Raw,
}

/// Writes conflicts down, and ends those that are over. Runs with the owner's rights.
pub type Disagree = fn(&Disagreement<'_>) -> Result<()>;

/// Rows whose merge has come through, whether or not there was something to write.
pub struct Through<'a> {
    /// The pair's flow.
    pub flow: &'a str,
    /// The side that the rows are of.
    pub side: Side,
    /// Numbers, organizations, ids and former ids of the rows.
    pub rows: [Raw; 4],
    /// Numbers, organizations, left and right ids and links of their pairs.
    pub pairs: Vec<[Raw; 5]>,
    /// Numbers of rows with which nothing was done: their other side is not to be seen.
    pub idle: Vec<i32>,
}

/// Whom a merge tells of its pairs: the room above.
#[derive(Clone, Copy)]
pub struct Tell {
    pub disagree: Disagree,
    /// Runs with the owner's rights, after each range.
    pub through: fn(&Through<'_>) -> Result<()>,
}

/// Links of rows, locked, each found by the one index that has its order, whatever statistics say: `$1` numbers, `$2` organizations, `$3` ids,
/// `$4` whether they were deleted, `$5` kind. Comes back as the parameters of the merge's statements, of pairs that have met and of others, and which
/// rows have no link.
fn find_links(here: Side) -> String {
    let own = here.word();
    let (left, right) = match here {
        Side::Left => ("COALESCE(k.left_id, u.id)", "k.right_id"),
        Side::Right => ("k.left_id", "COALESCE(k.right_id, u.id)"),
    };
    let pairs = |of: &str| {
        let gone = format!("CASE WHEN u.deleted THEN '{own}' END");
        let columns = ["u.n", "u.organization_id", left, right, "k.base", &gone, "k.id", "NULL::jsonb"];
        columns.map(|column| format!("pg_catalog.array_agg({column}) FILTER (WHERE {of})")).join(", ")
    };
    format!(
        "WITH u AS MATERIALIZED (SELECT u.* FROM unnest($1::integer[], $2::uuid[], $3::text[], $4::boolean[]) AS u (n, organization_id, id, deleted)),
found AS MATERIALIZED (
    SELECT u.n, f.organization_id, f.id
      FROM u CROSS JOIN LATERAL (
           SELECT u.organization_id, COALESCE(
                  (SELECT l.id FROM usher.links AS l
                    WHERE l.organization_id = u.organization_id AND l.kind = $5 AND l.{own}_id BETWEEN u.id AND u.id AND l.paired AND l.right_id IS NOT NULL ORDER BY l.{own}_id),
                  (SELECT (pg_catalog.array_agg(l.id ORDER BY l.last_synced_at DESC NULLS LAST))[1]
                     FROM (SELECT l.id, l.last_synced_at, l.right_id FROM usher.links AS l
                            WHERE l.organization_id = u.organization_id AND l.kind = $5 AND l.{own}_id BETWEEN u.id AND u.id ORDER BY l.{own}_id OFFSET 0) AS l
                    WHERE l.right_id IS NOT NULL)) AS id) AS f
     WHERE f.id IS NOT NULL ORDER BY f.id),
k AS MATERIALIZED (
    SELECT f.n, l.*
      FROM found AS f CROSS JOIN LATERAL (
           SELECT l.id, l.left_id, l.right_id, COALESCE(l.base, '{{}}') AS base FROM usher.links AS l
            WHERE l.organization_id = f.organization_id AND l.id BETWEEN f.id AND f.id ORDER BY l.id FOR UPDATE) AS l)
SELECT {}, {}, pg_catalog.array_agg(u.n) FILTER (WHERE k.id IS NULL), pg_catalog.array_agg(u.organization_id) FILTER (WHERE k.id IS NULL),
       pg_catalog.array_agg(u.id) FILTER (WHERE k.id IS NULL)
  FROM u LEFT JOIN k ON k.n = u.n
 WHERE k.id IS NOT NULL OR NOT u.deleted",
        pairs("k.base <> '{}'"),
        pairs("k.base IS NULL OR k.base = '{}'"),
    )
}

/// What [`find_links`] has found.
struct Links {
    /// Pairs that have a base, as the parameters of the merge's statements.
    met: [Raw; 8],
    /// The others: rows that are alone, and pairs that have only been linked.
    fresh: [Raw; 8],
    /// Rows without a link: their numbers, organizations and ids.
    lonely: [Raw; 3],
}

/// A row has got another id, and keeps its pair: `$1` organizations, `$2` ids, `$3` former ids, `$4` kind.
fn rename(here: Side) -> String {
    let own = here.word();
    format!(
        "UPDATE usher.links AS l SET {own}_id = u.id
           FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u (organization_id, id, former)
          WHERE u.former <> u.id AND l.organization_id = u.organization_id AND l.kind = $4 AND l.{own}_id = u.former AND l.paired
            AND NOT EXISTS (SELECT FROM usher.links AS o WHERE o.organization_id = u.organization_id AND o.kind = $4 AND o.{own}_id = u.id AND o.paired)"
    )
}

/// Rows that have found each other by their key become pairs: `$1` numbers, `$2` organizations, `$3` ids here, `$4` ids there, `$5` kind, `$6`
/// and `$7` systems of left and right, `$8` flow. A row that cannot be paired is told: `(id here, why)`.
fn pair(here: Side) -> String {
    let (own, other) = (here.word(), here.other().word());
    format!(
        "WITH c AS MATERIALIZED (SELECT c.* FROM unnest($1::integer[], $2::uuid[], $3::text[], $4::text[]) AS c (n, organization_id, own, other)),
free AS MATERIALIZED (
    SELECT c.*, pg_catalog.count(*) OVER (PARTITION BY c.n) AS ways, pg_catalog.row_number() OVER (PARTITION BY c.organization_id, c.other ORDER BY c.n) AS turn
      FROM c WHERE NOT EXISTS (SELECT FROM usher.links AS l
                                WHERE l.organization_id = c.organization_id AND l.kind = $5 AND l.{other}_id = c.other AND l.paired)),
made AS (
    INSERT INTO usher.links AS l (organization_id, id, kind, {own}_id, {other}_id, left_system, right_system, flow, base, paired)
    SELECT f.organization_id, usher.uuid_v7(), $5, f.own, f.other, $6, $7, $8, '{{}}', true FROM free AS f WHERE f.ways = 1 AND f.turn = 1
    ON CONFLICT ON CONSTRAINT links_pair_key DO UPDATE SET base = COALESCE(l.base, '{{}}'), paired = true)
SELECT c.own, CASE WHEN EXISTS (SELECT FROM free AS f WHERE f.n = c.n AND f.ways > 1) THEN 'several rows have its key'
                   ELSE 'the row with its key is the other side of another row' END
  FROM c WHERE NOT EXISTS (SELECT FROM free AS f WHERE f.n = c.n AND f.ways = 1 AND f.turn = 1) ORDER BY c.n LIMIT 1"
    )
}

/// What a merge leaves on the links: `$1` organizations, `$2` links, `$3` and `$4` ids, `$5` bases, `$6` kind, `$7` and `$8` systems, `$9` flow.
const NOTE: &str = "
WITH o AS MATERIALIZED (
    SELECT o.*, o.base -> 'held' <> '[]' AS held
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[]) AS o (organization_id, link, left_id, right_id, base)),
gone AS (
    DELETE FROM usher.links AS l USING o WHERE o.base IS NULL AND l.organization_id = o.organization_id AND l.id = o.link),
kept AS (
    UPDATE usher.links AS l
       SET base = o.base, paired = true, last_synced_at = pg_catalog.now(), flow = $9, status = CASE WHEN o.held THEN 'pending' ELSE 'synced' END,
           error_message = CASE WHEN o.held THEN 'the sides differ, and nobody has decided yet' END
      FROM o WHERE o.base IS NOT NULL AND l.organization_id = o.organization_id AND l.id = o.link)
INSERT INTO usher.links AS l (organization_id, id, kind, left_id, right_id, left_system, right_system, flow, base, paired, last_synced_at)
SELECT o.organization_id, usher.uuid_v7(), $6, o.left_id, o.right_id, $7, $8, $9, o.base, true, pg_catalog.now()
  FROM o WHERE o.base IS NOT NULL AND o.link IS NULL
ON CONFLICT ON CONSTRAINT links_pair_key DO UPDATE SET base = EXCLUDED.base, paired = true, last_synced_at = EXCLUDED.last_synced_at, flow = EXCLUDED.flow";

/// The systems of left and right.
fn systems(run: &Run<'_>, merge: &Merge) -> (Option<String>, Option<String>) {
    let (from, to) = (run.flow.definition.from.clone(), run.flow.definition.to.clone());
    if merge.side == Side::Left { (from, to) } else { (to, from) }
}

/// A pair's flow is named by its left half, whichever half has run.
pub fn whole(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// Merges the rows that a range of the batch is about.
pub(in super::super) fn range(
    run: &Run<'_>,
    program: &Rc<Program>,
    cause: &Cause,
    of: Option<pgrx::Uuid>,
    from: i32,
    to: i32,
) -> Result<()> {
    let (Some(statements), Some(merge)) = (&program.merge, run.flow.definition.merge()) else {
        return Err(UsherError::internal("a merge has no statements"));
    };
    Spi::connect_mut(|client| {
        let about = as_flow(run, program, cause, of, (from, to), || {
            Ok(spi::query(client, &program.apply, &arguments(run.batch, from, to))?.first())
        })?;
        let renamed = about.get::<i64>(6)?.unwrap_or(0);
        let former = Raw::read(&about, 5)?;
        let about: [Raw; 4] = raws(&about, 1)?;
        if about[0].is_null() {
            return Ok(());
        }
        let kind = run.flow.definition.link.as_ref().map(|link| link.kind.clone());
        if renamed > 0 {
            let _audited = audit::by_flow(work(run, program, from, to));
            let _acting = role::internal(run.owner);
            let [_, organizations, ids, _] = &about;
            spi::query(client, &rename(merge.side), &[organizations.arg(), ids.arg(), former.arg(), spi::arg(kind.clone())])?;
        }
        let links = |client: &mut SpiClient<'_>| -> Result<Links> {
            let _acting = role::internal(run.owner);
            let _index = Nest::open().one_plan();
            let [numbers, organizations, ids, deleted] = &about;
            let sql = find_links(merge.side);
            let arguments = [numbers.arg(), organizations.arg(), ids.arg(), deleted.arg(), spi::arg(kind.clone())];
            let table = spi::query(client, &sql, &arguments)?.first();
            Ok(Links { met: raws(&table, 1)?, fresh: raws(&table, 9)?, lonely: raws(&table, 17)? })
        };
        let mut found = links(client)?;
        if !found.lonely[0].is_null()
            && let Some(find) = &statements.find
        {
            let lonely = &found.lonely;
            let others = as_flow(run, program, cause, of, (from, to), || {
                Ok(spi::query(client, find, &[lonely[0].arg(), lonely[1].arg(), lonely[2].arg()])?.first())
            })?;
            let [numbers, organizations, own, other]: [Raw; 4] = raws(&others, 1)?;
            if !numbers.is_null() {
                let _audited = audit::by_flow(work(run, program, from, to));
                let _acting = role::internal(run.owner);
                let (left, right) = systems(run, merge);
                let arguments = [
                    numbers.arg(),
                    organizations.arg(),
                    own.arg(),
                    other.arg(),
                    spi::arg(kind.clone()),
                    spi::arg(left),
                    spi::arg(right),
                    spi::arg(whole(&run.flow.name)),
                ];
                let refused = spi::query(client, &pair(merge.side), &arguments)?;
                if !refused.is_empty() {
                    let refused = refused.first();
                    let (id, why) =
                        (refused.get::<String>(1)?.unwrap_or_default(), refused.get::<String>(2)?.unwrap_or_default());
                    return Err(UsherError::state(format!("row {id} cannot be paired with one of {}: {why}", merge.table)).hint(
                        "Make the columns of \"match\" unique among rows that have no pair yet, or write the link yourself.",
                    ));
                }
                drop(_acting);
                found = links(client)?;
            }
        }
        let writes = merging(run, cause);
        // What a trigger has made of another field is a change of that side, which goes on to the other.
        for _ in 0..MOST_ECHOES {
            let mut echoes = 0;
            let mut idle = Vec::new();
            let mut merge_by = |client: &mut SpiClient<'_>, way, pairs: Option<[Raw; 8]>| -> Result<Option<[Raw; 8]>> {
                let Some(pairs) = pairs.filter(|pairs| !pairs[0].is_null()) else { return Ok(None) };
                let arguments = pairs.each_ref().map(Raw::arg);
                let noted = as_flow(run, program, &writes, of, (from, to), || write(client, statements, way, &arguments))?;
                note(client, run, program, merge, &noted)?;
                echoes += noted.echoes;
                idle.extend(noted.idle);
                Ok(noted.rest)
            };
            // Rows are made before others refer to them, and deleted after that.
            merge_by(client, Way::Locked, Some(found.fresh))?;
            let rest = merge_by(client, Way::Quick, Some(found.met))?;
            merge_by(client, Way::Locked, rest)?;
            if echoes == 0 {
                through(run, merge, &about, &former, &[found.met, found.fresh], idle)?;
                return Ok(());
            }
            found = links(client)?;
        }
        Ok(())
    })
}

/// Tells whom it concerns that rows have come through: all but those that the merge has left alone.
fn through(run: &Run<'_>, merge: &Merge, about: &[Raw; 4], former: &Raw, pairs: &[[Raw; 8]; 2], idle: Vec<i32>) -> Result<()> {
    let _acting = role::internal(run.owner);
    let [numbers, organizations, ids, _] = about;
    (run.tell.through)(&Through {
        flow: whole(&run.flow.name),
        side: merge.side,
        rows: [*numbers, *organizations, *ids, *former],
        pairs: pairs
            .map(|[numbers, organizations, lefts, rights, _, _, links, _]| [numbers, organizations, lefts, rights, links])
            .to_vec(),
        idle,
    })
}

/// The cause of what a merge writes itself.
fn merging(run: &Run<'_>, cause: &Cause) -> Cause {
    Cause { merging: Some((whole(&run.flow.name).into(), trigger::depth())), ..cause.clone() }
}

/// What a statement has to say: [`NOTED`] arrays, and how many of them are about conflicts.
struct Noted {
    arrays: [Raw; NOTED],
    conflicts: i64,
    /// Pairs of which a trigger has changed what was not written.
    echoes: i64,
    /// Numbers of pairs of which one row is not to be seen, and nobody has told that it was deleted.
    idle: Vec<i32>,
    /// Pairs that are left to be written with both rows locked.
    rest: Option<[Raw; 8]>,
}

/// How pairs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only the other side, no row locked before.
    Quick,
    /// Both sides, both rows locked.
    Locked,
}

/// Runs a writing statement with the rights of whoever acts.
fn write(client: &mut SpiClient<'_>, statements: &Statements, way: Way, arguments: spi::Args<'_>) -> Result<Noted> {
    let _formats = Nest::open().pinned_formats();
    let sql = if way == Way::Quick { &statements.quick } else { &statements.write };
    let table = spi::query(client, sql, arguments)?.first();
    if let Some(lost) = table.get::<String>(NOTED + 1)? {
        return Err(UsherError::state(format!("a row of {lost} did not take what was written"))
            .detail("A trigger or a policy of the table has kept the row as it is, or given it another id.")
            .hint("A merge needs a table that keeps what it is given, or refuses it with an error."));
    }
    let count = |at: usize| table.get::<i64>(at).map(|count| count.unwrap_or(0));
    let idle = table.get::<Vec<i32>>(NOTED + 4)?.unwrap_or_default();
    let rest = if way == Way::Quick { Some(raws::<8>(&table, NOTED + 5)?).filter(|rest| !rest[0].is_null()) } else { None };
    Ok(Noted { arrays: raws(&table, 1)?, conflicts: count(NOTED + 2)?, echoes: count(NOTED + 3)?, idle, rest })
}

/// Columns of a row, from the first one that is named.
fn raws<const N: usize>(table: &pgrx::spi::SpiTupleTable<'_>, first: usize) -> Result<[Raw; N]> {
    let read: Vec<Raw> = (first..first + N).map(|at| Raw::read(table, at)).collect::<Result<_>>()?;
    read.try_into().map_err(|_| UsherError::internal("a statement has too few columns"))
}

/// Keeps what was agreed on, and tells of what was not.
fn note(client: &mut SpiClient<'_>, run: &Run<'_>, program: &Rc<Program>, merge: &Merge, noted: &Noted) -> Result<()> {
    let [numbers, organizations, links, lefts, rights, bases, conflicts, had] = &noted.arrays;
    if numbers.is_null() {
        return Ok(());
    }
    let definition = &run.flow.definition;
    let kind = definition.link.as_ref().map(|link| link.kind.clone()).unwrap_or_default();
    let (left, right) = systems(run, merge);
    let _audited = audit::by_flow(work(run, program, 1, 1));
    let _acting = role::internal(run.owner);
    {
        let _index = Nest::open().one_by_one();
        spi::query(
            client,
            NOTE,
            &[
                organizations.arg(),
                links.arg(),
                lefts.arg(),
                rights.arg(),
                bases.arg(),
                spi::arg(kind.as_str()),
                spi::arg(left),
                spi::arg(right),
                spi::arg(whole(&run.flow.name)),
            ],
        )?;
    }
    if noted.conflicts == 0 {
        return Ok(());
    }
    let (here, there) =
        (run.flow.compiled.source.clone().unwrap_or_default(), run.flow.compiled.target.clone().unwrap_or_default());
    let (own, other) = definition.merge_ids().ok_or_else(|| UsherError::internal("a merge has no link"))?;
    let ((left_table, left_id), (right_table, right_id)) =
        if merge.side == Side::Left { ((here, own), (there, other)) } else { ((there, other), (here, own)) };
    (run.tell.disagree)(&Disagreement {
        flow: whole(&run.flow.name),
        left_table,
        right_table,
        left_id: left_id.to_owned(),
        right_id: right_id.to_owned(),
        merge,
        organizations: *organizations,
        links: *links,
        lefts: *lefts,
        rights: *rights,
        conflicts: *conflicts,
        had: *had,
    })
}

/// A pair as it stands on its link.
pub struct Pair {
    pub organization: pgrx::Uuid,
    pub link: pgrx::Uuid,
    pub left: String,
    pub right: String,
    pub base: JsonB,
}

impl Pair {
    /// A link with a base, locked if something is to be written. Runs with the owner's rights.
    pub fn of(organization: pgrx::Uuid, link: pgrx::Uuid, lock: bool) -> Result<Option<Self>> {
        let found = spi::all(
            &format!(
                "SELECT l.left_id, l.right_id, l.base FROM usher.links AS l WHERE l.organization_id = $1 AND l.id = $2 AND l.paired{}",
                if lock { " FOR UPDATE" } else { "" }
            ),
            &[spi::arg(organization), spi::arg(link)],
            |row| {
                let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
                let base = row.get::<JsonB>(3)?.unwrap_or_else(|| JsonB(serde_json::json!({})));
                Ok(Self { organization, link, left: text(1)?, right: text(2)?, base })
            },
        )?;
        Ok(found.into_iter().next())
    }

    /// As the parameters of the merge's statements.
    fn arguments(self, decided: Option<JsonB>) -> [pgrx::datum::DatumWithOid<'static>; 8] {
        [
            spi::arg(vec![1]),
            spi::arg(vec![self.organization]),
            spi::arg(vec![self.left]),
            spi::arg(vec![self.right]),
            spi::arg(vec![self.base]),
            spi::arg(vec![None::<String>]),
            spi::arg(vec![self.link]),
            spi::arg(vec![decided]),
        ]
    }
}

/// No job: somebody's own call. There is one to tell who has written.
const NO_JOB: &str = "SELECT ARRAY[$1::uuid], ARRAY[usher.uuid_v7()], ARRAY[NULL::jsonb], ARRAY[NULL::jsonb], ARRAY['R'::\"char\"], ARRAY[pg_catalog.now()], ARRAY[0::bigint]";

/// A call's run of a merge, in the session of whoever calls.
fn called<T>(
    owner: Oid,
    flow: &Flow,
    organization: pgrx::Uuid,
    tell: Tell,
    work: impl FnOnce(&mut SpiClient<'_>, &Run<'_>, &Rc<Program>, &Cause) -> Result<T>,
) -> Result<T> {
    let program = {
        let _acting = role::internal(owner);
        flow.program()?
    };
    Spi::connect_mut(|client| {
        let batch = Batch::read(&spi::query(client, NO_JOB, &[spi::arg(organization)])?.first(), 1, 1)?;
        let cause = Cause::default();
        let silent = |_: &super::super::emit_statement::Emission<'_>| Err(UsherError::internal("a merge emits nothing"));
        let run = Run {
            flow,
            owner,
            batch: &batch,
            causes: Causes::Shared(&cause, Some(organization)),
            place: Place::Caller,
            emit: silent,
            tell,
        };
        work(client, &run, &program, &cause)
    })
}

/// Writes what somebody has decided to both sides. `decided`: which side holds by field, and values.
pub fn decide(owner: Oid, flow: &Flow, pair: Pair, decided: serde_json::Value, tell: Tell) -> Result<()> {
    let merge = flow.definition.merge().ok_or_else(|| UsherError::internal("a conflict of a flow without a merge"))?;
    let organization = pair.organization;
    called(owner, flow, organization, tell, |client, run, program, cause| {
        let statements = program.merge.as_ref().ok_or_else(|| UsherError::internal("a merge has no statements"))?;
        let arguments = pair.arguments(Some(JsonB(decided)));
        let noted = as_flow(run, program, &merging(run, cause), Some(organization), (1, 1), || {
            write(client, statements, Way::Locked, &arguments)
        })?;
        if noted.arrays[0].is_null() {
            return Err(UsherError::state("one of the two rows is not there, and nobody has told that it was deleted")
                .hint("Wait until the jobs of the flow are done, or delete or make the row yourself."));
        }
        note(client, run, program, merge, &noted)?;
        let [numbers, organizations, links, lefts, rights, ..] = noted.arrays;
        let _acting = role::internal(owner);
        (run.tell.through)(&Through {
            flow: whole(&run.flow.name),
            side: merge.side,
            rows: [numbers, organizations, lefts, lefts],
            pairs: vec![[numbers, organizations, lefts, rights, links]],
            idle: Vec::new(),
        })
    })
}

/// What a merge would say of a pair now: the rows of its look.
pub fn look<T>(owner: Oid, flow: &Flow, pair: Pair, read: impl Fn(&pgrx::spi::SpiTupleTable<'_>) -> Result<T>) -> Result<Vec<T>> {
    let organization = pair.organization;
    called(owner, flow, organization, Tell { disagree: |_| Ok(()), through: |_| Ok(()) }, |client, run, program, cause| {
        let statements = program.merge.as_ref().ok_or_else(|| UsherError::internal("a merge has no statements"))?;
        let arguments = pair.arguments(None);
        as_flow(run, program, cause, Some(organization), (1, 1), || {
            let mut table = spi::query(client, &statements.look, &arguments)?;
            let mut rows = Vec::with_capacity(table.len());
            while table.next().is_some() {
                rows.push(read(&table)?);
            }
            Ok(rows)
        })
    })
}
