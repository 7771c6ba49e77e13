//! Conflicts of rows that a merge cannot write: a table's own rules, its rights or a trigger refuse what the other side has.
//!
//! Raised when a job of a merge has failed for good, by the class of its SQLSTATE; gone when a merge of the row comes through.

use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::merge::Side;
use crate::flow::merge::apply::{Tell, Through, whole};
use crate::flow::store as flows;
use crate::pg::guc::Nest;
use crate::pg::{catalog, spi, xact};
use crate::registry::tables;
use pgrx::Uuid;

/// Kinds, with what the SQLSTATE begins with. Others are nobody's to decide: whoever runs the database looks at the dead letter.
const KINDS: &str =
    "CASE WHEN d.sqlstate = '42501' THEN 'permission_conflict' WHEN d.sqlstate LIKE 'P0%' THEN 'business_rule_violation'
      WHEN d.error_message LIKE '%links\\_%\\_pair\\_key%' THEN NULL WHEN d.sqlstate LIKE '22%' OR d.sqlstate LIKE '23%' THEN 'validation_failure' END";

/// What can be decided of them: it stays as it is.
const ACCEPT: &str = "accept";

/// Whether a kind is one of these.
pub fn is_kind(kind: &str) -> bool {
    matches!(kind, "permission_conflict" | "business_rule_violation" | "validation_failure")
}

/// Dead letters of one merge become conflicts of its pairs. `$1` organizations, `$2` jobs, `$3` flow, `$4` that of the pair, `$5` the name
/// of the pair's flow, `$6` table and `$7` its id's column, `$8` the other table and `$9` its id's, `$10` severity, `$11` seconds until it is
/// told, `$12` kind of the links. `id`: the type of ids, which are written as the links have them.
fn raise(side: Side, id: &str) -> String {
    let (own, other) = (side.word(), side.other().word());
    format!(
        "WITH f AS MATERIALIZED (
    SELECT d.organization_id, i.id, d.error_message, d.seq, {KINDS} AS kind, l.link, l.other
      FROM unnest($1::uuid[], $2::uuid[]) AS e (organization_id, job)
      JOIN usher.dead_letters AS d ON d.organization_id = e.organization_id AND d.id = e.job AND d.flow_id = $3
     CROSS JOIN LATERAL (SELECT (COALESCE(d.new ->> $7, d.old ->> $7)::{id})::text AS id) AS i
      LEFT JOIN LATERAL (SELECT l.id AS link, l.{other}_id AS other FROM usher.links AS l
                          WHERE l.organization_id = d.organization_id AND l.kind = $12 AND l.{own}_id = i.id AND l.paired LIMIT 1) AS l ON true),
n AS MATERIALIZED (
    SELECT DISTINCT ON (f.organization_id, s.subject) f.*, s.subject, pg_catalog.format('%s %s cannot be merged with %s: %s', $6, f.id, $8, f.error_message) AS message
      FROM f CROSS JOIN LATERAL (SELECT COALESCE('failed:' || f.link, pg_catalog.concat_ws(':', 'failed', $5, '{own}', f.id)) AS subject) AS s
     WHERE f.kind IS NOT NULL AND f.id IS NOT NULL ORDER BY f.organization_id, s.subject, f.seq DESC),
-- What somebody has accepted stands for as long as its reason does.
accepted AS MATERIALIZED (
    SELECT c.organization_id, c.id, c.subject, (c.kind, c.message) = (n.kind, n.message) AS same
      FROM n JOIN usher.conflicts AS c ON c.organization_id = n.organization_id AND c.subject = n.subject AND c.state = 'resolved' AND c.decision = 'accept'
     ORDER BY c.organization_id, c.subject FOR UPDATE OF c),
over AS (
    UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp()
      FROM accepted AS a WHERE NOT a.same AND c.organization_id = a.organization_id AND c.id = a.id)
INSERT INTO usher.conflicts AS c (organization_id, id, kind, severity, subject, flow_id, link_id, left_table, left_key, right_table, right_key, message, escalate_at)
SELECT n.organization_id, usher.uuid_v7(), n.kind, $10, n.subject, $4, n.link, $6, pg_catalog.jsonb_build_object($7::text, n.id), $8,
       CASE WHEN n.other IS NOT NULL THEN pg_catalog.jsonb_build_object($9::text, n.other) END, n.message, pg_catalog.clock_timestamp() + $11::float8 * interval '1 second'
  FROM n WHERE NOT EXISTS (SELECT FROM accepted AS a WHERE a.same AND a.organization_id = n.organization_id AND a.subject = n.subject)
 ORDER BY n.organization_id, n.subject
ON CONFLICT (organization_id, subject) WHERE state = 'open' DO UPDATE
   SET kind = EXCLUDED.kind, message = EXCLUDED.message, link_id = EXCLUDED.link_id, left_table = EXCLUDED.left_table, left_key = EXCLUDED.left_key,
       right_table = EXCLUDED.right_table, right_key = EXCLUDED.right_key, last_seen_at = pg_catalog.clock_timestamp(), times_seen = c.times_seen + 1"
    )
}

/// Jobs of a flow have failed for good. Runs with the owner's rights.
pub fn failed(flow: i32, organizations: Vec<Uuid>, jobs: Vec<Uuid>) -> Result<()> {
    let Some(flow) = flows::newest(flow)? else { return Ok(()) };
    let (Some(merge), Some((own, other)), Some(link)) =
        (flow.definition.merge(), flow.definition.merge_ids(), &flow.definition.link)
    else {
        return Ok(());
    };
    // A table that is not there any more has no ids to write.
    let table = flow.compiled.source.as_deref().and_then(tables::split);
    let table = match table.and_then(|(schema, name)| catalog::relation(&schema, &name)) {
        Some(oid) => tables::by_oid(oid)?,
        None => None,
    };
    let Some(id) = table.and_then(|table| table.column(own).map(|column| column.type_sql.clone())) else { return Ok(()) };
    let name = whole(&flow.name);
    let pair = spi::read::<i32>("SELECT f.id FROM usher.flows AS f WHERE f.name = $1", &[spi::arg(name)])?;
    let severity = merge.severity.word();
    let _index = Nest::open().one_by_one();
    let raised = spi::run(
        &raise(merge.side, &id),
        &[
            spi::arg(organizations),
            spi::arg(jobs),
            spi::arg(flow.id),
            spi::arg(pair),
            spi::arg(name),
            spi::arg(flow.compiled.source.clone()),
            spi::arg(own),
            spi::arg(flow.compiled.target.clone()),
            spi::arg(other),
            spi::arg(severity),
            spi::arg(merge.escalate_after.get(severity).copied()),
            spi::arg(link.kind.as_str()),
        ],
    )?;
    if raised > 0 {
        xact::note_overlaps();
    }
    Ok(())
}

/// `$1` flow, `$2` side, `$3` numbers, `$4` organizations, `$5` ids and `$6` former ids of rows, `$7` numbers of those that are left out, and for
/// pairs that have met and for others numbers, organizations, left and right ids and links. Rows are locked in the order in which they are raised.
const END: &str = "
WITH s AS MATERIALIZED (
    SELECT u.organization_id, s.subject
      FROM unnest($3::integer[], $4::uuid[], $5::text[], $6::text[]) AS u (n, organization_id, id, former)
     CROSS JOIN LATERAL (VALUES (pg_catalog.concat_ws(':', 'failed', $1, $2, u.id)), (pg_catalog.concat_ws(':', 'failed', $1, $2, u.former))) AS s (subject)
     WHERE u.n <> ALL ($7::integer[])
     UNION
    SELECT u.organization_id, s.subject
      FROM unnest($8::integer[], $9::uuid[], $10::text[], $11::text[], $12::uuid[]) AS u (n, organization_id, left_id, right_id, link)
     CROSS JOIN LATERAL (VALUES ('failed:' || u.link), (pg_catalog.concat_ws(':', 'failed', $1, 'left', u.left_id)),
                                (pg_catalog.concat_ws(':', 'failed', $1, 'right', u.right_id))) AS s (subject)
     WHERE u.n <> ALL ($7::integer[]) AND s.subject IS NOT NULL),
c AS MATERIALIZED (
    SELECT c.organization_id, c.id
      FROM s CROSS JOIN LATERAL (
           SELECT c.organization_id, c.id, c.subject FROM usher.conflicts AS c WHERE c.organization_id = s.organization_id AND c.subject = s.subject AND c.state = 'open'
            UNION ALL
           SELECT c.organization_id, c.id, c.subject FROM usher.conflicts AS c
            WHERE c.organization_id = s.organization_id AND c.subject = s.subject AND c.state = 'resolved' AND c.decision = 'accept') AS c
     ORDER BY c.organization_id, c.subject)
UPDATE usher.conflicts AS t SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp() FROM c WHERE t.organization_id = c.organization_id AND t.id = c.id";

/// Merges of rows have come through: what had kept them from it is over. Runs with the owner's rights.
pub fn through(through: &Through<'_>) -> Result<()> {
    if catalog::is_unused("conflicts") {
        return Ok(());
    }
    let any = spi::read::<bool>(
        "SELECT EXISTS (SELECT FROM usher.conflicts AS c JOIN usher.flows AS f ON f.id = c.flow_id
                         WHERE f.name = $1 AND (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept')
                           AND c.kind IN ('permission_conflict', 'validation_failure', 'business_rule_violation'))",
        &[spi::arg(through.flow)],
    )?;
    if any != Some(true) {
        return Ok(());
    }
    let _index = Nest::open().one_by_one();
    let [numbers, organizations, ids, former] = &through.rows;
    for [pairs, owners, lefts, rights, links] in &through.pairs {
        spi::run(
            END,
            &[
                spi::arg(through.flow),
                spi::arg(through.side.word()),
                numbers.arg(),
                organizations.arg(),
                ids.arg(),
                former.arg(),
                spi::arg(through.idle.clone()),
                pairs.arg(),
                owners.arg(),
                lefts.arg(),
                rights.arg(),
                links.arg(),
            ],
        )?;
    }
    Ok(())
}

/// Whom merges tell of their pairs.
pub const TELL: Tell = Tell { disagree: super::pairs::disagree, through };

/// Checks a decision: there is but one.
pub fn decided(decision: &str, values: bool) -> Result<()> {
    if decision != ACCEPT {
        let near = did_you_mean(decision, &[ACCEPT]);
        return Err(UsherError::invalid(format!("\"{decision}\" is no decision about a row that cannot be written")).hint(
            format!(
                "{near}accept: it stays as it is. To have it merged, mend what the message says and write the row again, or call \
             usher.retry_dead_letters(); the conflict is gone then."
            ),
        ));
    }
    if values {
        return Err(UsherError::invalid("a decision to leave it as it is takes no values")
            .hint("Write the row itself; its merge is tried again then."));
    }
    Ok(())
}
