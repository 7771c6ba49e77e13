//! Deciding a conflict. What can be decided depends on its kind.

use super::failed;
use super::look;
use super::pairs::{self, Question};
use super::statement::Form;
use super::store;
use crate::error::{Result, UsherError, did_you_mean};
use crate::guard::audit;
use crate::pg::{role, spi};
use crate::registry::identity::{self, Right};
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};

/// What is asked of a conflict.
pub struct Decision {
    pub decision: String,
    pub values: Option<Value>,
    pub note: Option<String>,
}

/// A conflict as it stands.
struct Conflict {
    organization: Uuid,
    id: Uuid,
    kind: String,
    state: String,
    rule: Option<String>,
    decided: Option<String>,
    flow: Option<i32>,
    link: Option<Uuid>,
    fields: Vec<String>,
}

impl Conflict {
    fn question(&self) -> Question {
        Question { organization: self.organization, flow: self.flow, link: self.link, fields: self.fields.clone() }
    }
}

/// Of an overlap.
const OVERLAP: [&str; 2] = ["accept", "ended"];

/// Decides a conflict of an organization that the caller manages; returns its state. `of`: what is counted for the caller.
pub fn resolve(installed: Installed, id: Uuid, wanted: Decision, of: impl FnOnce(Uuid) -> Result<()>) -> Result<String> {
    let managed = identity::organizations(Right::Manage)?;
    let by = identity::author();
    let conflict = {
        let _acting = role::internal(installed.owner);
        pairs::lock(id, &managed)?;
        find(id, managed)?
    };
    let conflict = conflict.ok_or_else(|| {
        UsherError::forbidden(format!("conflict {id} does not exist, or is not one of yours to decide"))
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint(
                "SELECT id, message FROM usher.conflicts shows those that you may read; admins of the organization decide them.",
            )
    })?;
    of(conflict.organization)?;
    if conflict.state != "open" {
        let how = conflict.decided.as_ref().map(|how| format!(" ({how})")).unwrap_or_default();
        return Err(UsherError::state(format!("conflict {id} is not open: it is {}{how}", conflict.state)).hint(
            if conflict.state == "gone" {
                "Its reason has ended by itself; there is nothing to decide."
            } else {
                "Somebody has decided it; SELECT decision, decided_by, decided_at, note FROM usher.conflicts shows what."
            },
        ));
    }
    let acting = role::internal(installed.owner);
    match conflict.kind.as_str() {
        pairs::KIND => {}
        "timing_conflict" => overlap(installed, &conflict, &wanted)?,
        kind if failed::is_kind(kind) => failed::decided(&wanted.decision, wanted.values.is_some())?,
        kind => {
            return Err(UsherError::unsupported(format!("conflicts of the kind {kind} are not decided here yet"))
                .hint("End its reason, and it is gone."));
        }
    }
    // First, so that what else does not agree by now is a conflict of its own.
    write(&conflict, &wanted, &by)?;
    drop(acting);
    if conflict.kind == pairs::KIND {
        // With the rights of its flow.
        pairs::answer(installed, &conflict.question(), &wanted.decision, wanted.values.as_ref())?;
    }
    let _acting = role::internal(installed.owner);
    audit::note(
        installed,
        Some(conflict.organization),
        "usher.conflicts.resolved",
        &id.to_string(),
        None,
        Some(json!({"decision": wanted.decision, "values": wanted.values, "note": wanted.note})),
    )?;
    Ok("resolved".to_owned())
}

/// Locked until the transaction ends: two who decide at once come one after the other.
fn find(id: Uuid, managed: Vec<Uuid>) -> Result<Option<Conflict>> {
    let found = spi::all(
        "SELECT c.organization_id, c.id, c.kind, c.state, c.rule, c.decision, c.flow_id, c.link_id, c.fields FROM usher.conflicts AS c
          WHERE c.id = $1 AND c.organization_id = ANY ($2) FOR UPDATE",
        &[spi::arg(id), spi::arg(managed)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            let uuid = |at| row.get::<Uuid>(at).map(|id| id.unwrap_or(Uuid::from_bytes([0; 16])));
            Ok(Conflict {
                organization: uuid(1)?,
                id: uuid(2)?,
                kind: text(3)?,
                state: text(4)?,
                rule: row.get(5)?,
                decided: row.get(6)?,
                flow: row.get(7)?,
                link: row.get(8)?,
                fields: row.get::<Vec<String>>(9)?.unwrap_or_default(),
            })
        },
    )?;
    Ok(found.into_iter().next())
}

fn write(conflict: &Conflict, wanted: &Decision, by: &str) -> Result<()> {
    spi::run(
        "UPDATE usher.conflicts AS c
            SET state = 'resolved', decision = $3, decided_values = $4, note = $5, decided_by = $6, decided_at = pg_catalog.clock_timestamp(),
                last_seen_at = pg_catalog.clock_timestamp()
          WHERE c.organization_id = $1 AND c.id = $2",
        &[
            spi::arg(conflict.organization),
            spi::arg(conflict.id),
            spi::arg(wanted.decision.as_str()),
            spi::arg(wanted.values.clone().map(JsonB)),
            spi::arg(wanted.note.clone()),
            spi::arg(by),
        ],
    )?;
    Ok(())
}

/// Both stay as they are, or one was moved and no trigger has seen it.
fn overlap(installed: Installed, conflict: &Conflict, wanted: &Decision) -> Result<()> {
    if !OVERLAP.contains(&wanted.decision.as_str()) {
        let near = did_you_mean(&wanted.decision, &OVERLAP);
        return Err(UsherError::invalid(format!("\"{}\" is no decision about an overlap", wanted.decision)).hint(format!(
            "{near}accept: both rows stay as they are; ended: they do not overlap any more, which is looked at."
        )));
    }
    if wanted.values.is_some() {
        return Err(UsherError::invalid("a decision about an overlap takes no values")
            .hint("Move the row itself; the conflict is gone then."));
    }
    if wanted.decision == "ended" && still_there(installed, conflict)? {
        return Err(UsherError::state(format!("the overlap of conflict {} is still there", conflict.id))
            .hint("Move or delete one of the rows, which ends the conflict by itself; or decide \"accept\"."));
    }
    Ok(())
}

/// Looks at the two rows as they are now, without writing anything down.
fn still_there(installed: Installed, conflict: &Conflict) -> Result<bool> {
    let Some(rule) = &conflict.rule else { return Ok(false) };
    let rule = store::by_name(rule)?;
    let fitted = rule.fit(installed)?;
    let form = Form { id: rule.id, name: &rule.name, fitted: &fitted, installed };
    look::overlaps(&form, conflict.organization, conflict.id)
}
