//! Conflicts of pairs that merges keep equal: written down when a merge finds them, and answered to both sides.

use crate::error::{Result, UsherError, did_you_mean};
use crate::flow::merge::apply::{self, Disagreement, Pair};
use crate::flow::merge::decide::Decided;
use crate::flow::merge::definition::WHOLE_ROW;
use crate::flow::merge::explain::{self, Explained};
use crate::flow::store::{self as flows, Flow};
use crate::pg::{role, spi, subxact, xact};
use crate::registry::identity::{self, Right};
use crate::setup::Installed;
use pgrx::Uuid;
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// The kind of a conflict about a pair.
pub const KIND: &str = "data_mismatch";

/// `$1` organizations, `$2` links, `$3` and `$4` ids, `$5` conflicts, `$6` whether there was one, `$7` flow, `$8` and `$9` tables, `$10` and `$11` their
/// ids' columns, `$12` seconds until it is told, by severity.
const RECORD: &str = "
WITH d AS MATERIALIZED (
    SELECT d.*, 'merge:' || d.link AS subject, pg_catalog.jsonb_build_object($10::text, d.left_id) AS left_key, pg_catalog.jsonb_build_object($11::text, d.right_id) AS right_key,
           ARRAY(SELECT pg_catalog.jsonb_array_elements_text(d.conflict -> 'fields')) AS fields
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::boolean[]) AS d (organization_id, link, left_id, right_id, conflict, had)),
m AS MATERIALIZED (
    SELECT d.*, CASE WHEN d.fields = '{*}' THEN CASE WHEN d.conflict -> 'ours' = 'null' THEN pg_catalog.format('%s %s was deleted, and %s %s has changed', $8, d.left_id, $9, d.right_id)
                                                ELSE pg_catalog.format('%s %s was deleted, and %s %s has changed', $9, d.right_id, $8, d.left_id) END
                     ELSE pg_catalog.format('%s: %s %s and %s %s do not agree', pg_catalog.array_to_string(d.fields, ', '), $8, d.left_id, $9, d.right_id) END AS message
      FROM d),
over AS (
    UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp()
      FROM d WHERE d.conflict IS NULL AND d.had AND c.organization_id = d.organization_id AND c.subject = d.subject AND c.state = 'open')
INSERT INTO usher.conflicts AS c (organization_id, id, kind, severity, subject, flow_id, link_id, left_table, left_key, right_table, right_key, fields, base, ours, theirs,
                                  message, strategy, escalate_at)
SELECT m.organization_id, usher.uuid_v7(), 'data_mismatch', m.conflict ->> 'severity', m.subject, (SELECT f.id FROM usher.flows AS f WHERE f.name = $7), m.link,
       $8, m.left_key, $9, m.right_key, m.fields, m.conflict -> 'base', m.conflict -> 'ours', m.conflict -> 'theirs', m.message, 'manual',
       pg_catalog.clock_timestamp() + ($12::jsonb ->> (m.conflict ->> 'severity'))::float8 * interval '1 second'
  FROM m WHERE m.conflict IS NOT NULL ORDER BY m.subject
ON CONFLICT (organization_id, subject) WHERE state = 'open' DO UPDATE
   SET kind = EXCLUDED.kind, flow_id = EXCLUDED.flow_id, fields = EXCLUDED.fields, base = EXCLUDED.base, ours = EXCLUDED.ours, theirs = EXCLUDED.theirs, message = EXCLUDED.message, severity = EXCLUDED.severity,
       escalate_at = LEAST(c.escalate_at, EXCLUDED.escalate_at), last_seen_at = pg_catalog.clock_timestamp(), times_seen = c.times_seen + 1";

/// Writes down what a merge could not decide, and ends what agrees again. Runs with the owner's rights.
pub fn disagree(found: &Disagreement<'_>) -> Result<()> {
    spi::run(
        RECORD,
        &[
            found.organizations.arg(),
            found.links.arg(),
            found.lefts.arg(),
            found.rights.arg(),
            found.conflicts.arg(),
            found.had.arg(),
            spi::arg(found.flow),
            spi::arg(found.left_table.as_str()),
            spi::arg(found.right_table.as_str()),
            spi::arg(found.left_id.as_str()),
            spi::arg(found.right_id.as_str()),
            spi::arg(pgrx::JsonB(json!(found.merge.escalate_after))),
        ],
    )?;
    // Somebody may have to be told in time.
    xact::note_overlaps();
    Ok(())
}

/// The rows of a link are no pair any more, or others: what they did not agree on is over. Runs with the owner's rights.
pub fn forget_pair(organization: Uuid, link: Option<Uuid>) -> Result<()> {
    spi::run(
        "UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp()
          WHERE c.organization_id = $1 AND (c.subject = 'merge:' || $2::uuid AND c.state = 'open'
                OR c.subject = 'failed:' || $2::uuid AND (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept'))",
        &[spi::arg(organization), spi::arg(link)],
    )?;
    Ok(())
}

/// A conflict's pair is locked before the conflict, as a merge does it: two that meet do not lock each other out.
pub fn lock(conflict: Uuid, managed: &[Uuid]) -> Result<()> {
    spi::run(
        "SELECT FROM usher.links AS l
          WHERE (l.organization_id, l.id) IN (SELECT c.organization_id, c.link_id FROM usher.conflicts AS c WHERE c.id = $1 AND c.organization_id = ANY ($2)) FOR UPDATE",
        &[spi::arg(conflict), spi::arg(managed.to_vec())],
    )?;
    Ok(())
}

/// The flow that keeps a pair equal, at its current version. Runs with the owner's rights.
pub fn flow_of(id: Option<i32>) -> Result<Rc<Flow>> {
    let flow = id.map(flows::newest).transpose()?.flatten().filter(|flow| flow.definition.merge().is_some());
    flow.ok_or_else(|| {
        UsherError::state("the flow that kept this pair equal is not there any more")
            .hint("Make both rows as they should be; nothing keeps them equal now.")
    })
}

/// A conflict that somebody decides.
pub struct Question {
    pub organization: Uuid,
    pub flow: Option<i32>,
    pub link: Option<Uuid>,
    pub fields: Vec<String>,
}

impl Question {
    /// What is still to be decided by a flow as it is today: it may do without some of the fields.
    fn today(&self, flow: &Flow) -> Self {
        let merges =
            |name: &str| flow.definition.merge().is_some_and(|merge| merge.fields.iter().any(|field| field.name == name));
        let fields = self.fields.iter().filter(|name| *name == WHOLE_ROW || merges(name)).cloned().collect();
        Self { fields, ..*self }
    }
}

/// Which side holds of each field, and values, as the merge's statements take them.
fn decided(question: &Question, decision: &str, values: Option<&Value>) -> Result<Value> {
    let refused = |refusal: crate::flow::fields::Refusal| UsherError::invalid(refusal.message).hint(refusal.hint);
    let every = |side: &str| question.fields.iter().map(|field| (field.clone(), json!(side))).collect::<Map<_, _>>();
    let values = match Decided::parse(decision, values).map_err(refused)? {
        Decided::Left => return Ok(json!({"take": every("left")})),
        Decided::Right => return Ok(json!({"take": every("right")})),
        Decided::Values(values) => values,
    };
    if question.fields.iter().any(|field| field == WHOLE_ROW) {
        return Err(UsherError::invalid("one row was deleted: values cannot decide that")
            .hint("Use left or right: whether that side has its row or not, the other one shall be like it."));
    }
    let known: Vec<&str> = question.fields.iter().map(String::as_str).collect();
    if let Some(other) = values.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(UsherError::invalid(format!("\"{other}\" is no field of this conflict")).hint(format!(
            "{}It is about: {}.",
            did_you_mean(other, &known),
            known.join(", ")
        )));
    }
    if let Some(lost) = known.iter().find(|name| !values.contains_key(**name)) {
        return Err(UsherError::invalid(format!("decided_values lack \"{lost}\""))
            .hint(format!("Give a value, as the left side has it, for each of: {}.", known.join(", "))));
    }
    Ok(json!({"take": every("left"), "values": values}))
}

/// Writes what somebody has decided to both sides, with the rights of the flow; or nothing, and says why.
pub fn answer(installed: Installed, question: &Question, decision: &str, values: Option<&Value>) -> Result<()> {
    let flow = {
        let _acting = role::internal(installed.owner);
        flow_of(question.flow)?
    };
    let question = &question.today(&flow);
    let decided = decided(question, decision, values)?;
    let pair = {
        let _acting = role::internal(installed.owner);
        question.link.map(|link| Pair::of(question.organization, link, true)).transpose()?.flatten()
    };
    // Somebody has taken the link away, and with it what there was to decide.
    let Some(pair) = pair else { return Ok(()) };
    subxact::attempt(|| apply::decide(installed.owner, &flow, pair, decided, super::failed::TELL)).map_err(|failure| {
        let hint = failure.hint.clone();
        let mut error = UsherError::from(failure);
        error.message = format!("the decision cannot be written: {}", error.message);
        error.hint(hint.unwrap_or_else(|| "Nothing was changed: decide on values that both tables take.".to_owned()))
    })
}

/// What the merge of a pair says of it now; `of`: what is counted for the caller.
pub fn explain(installed: Installed, link: Uuid, of: impl FnOnce(Uuid) -> Result<()>) -> Result<Vec<Explained>> {
    let managed = identity::organizations(Right::Manage)?;
    let found = {
        let _acting = role::internal(installed.owner);
        spi::all(
            "SELECT l.organization_id, (SELECT f.id FROM usher.flows AS f WHERE f.name = l.flow) FROM usher.links AS l WHERE l.id = $1 AND l.organization_id = ANY ($2)",
            &[spi::arg(link), spi::arg(managed)],
            |row| Ok((row.get::<Uuid>(1)?, row.get::<i32>(2)?)),
        )?
    };
    let Some((Some(organization), flow)) = found.into_iter().next() else {
        return Err(UsherError::forbidden(format!("link {link} does not exist, or is not one of yours to explain"))
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint("SELECT id, kind, left_id, right_id FROM usher.links shows those that you may read; admins of the organization may ask."));
    };
    of(organization)?;
    let (flow, pair) = {
        let _acting = role::internal(installed.owner);
        (flow_of(flow)?, Pair::of(organization, link, false)?)
    };
    let pair = pair.ok_or_else(|| {
        UsherError::state(format!("link {link} has no base: no merge has met its rows yet"))
            .hint("Write one of the rows; usher.reconcile() and usher.apply_migration() bring all of them together.")
    })?;
    explain::explain(installed.owner, &flow, pair)
}
