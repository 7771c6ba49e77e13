//! What people and times do to violations: waived, reopened, told.

use super::look;
use super::store;
use crate::error::{Result, UsherError};
use crate::event;
use crate::guard::audit;
use crate::pg::{role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};
use serde_json::json;

struct Violation {
    organization: Uuid,
    status: String,
    event: JsonB,
}

/// Locked until the transaction ends: two who decide at once come one after the other.
fn find(installed: Installed, id: Uuid) -> Result<Violation> {
    let managed = identity::organizations(Right::Manage)?;
    let everywhere = identity::is_operator();
    let actor = identity::actor();
    let _acting = role::internal(installed.owner);
    let found = spi::all(
        "SELECT v.organization_id, v.status,
                pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at)
           FROM usher.violations AS v WHERE v.id = $1 AND ($3 OR v.organization_id = ANY ($2)) FOR UPDATE",
        &[spi::arg(id), spi::arg(managed), spi::arg(everywhere)],
        |row| {
            Ok(Violation {
                organization: row.get::<Uuid>(1)?.unwrap_or(Uuid::from_bytes([0; 16])),
                status: row.get::<String>(2)?.unwrap_or_default(),
                event: row.get::<JsonB>(3)?.unwrap_or(JsonB(json!({}))),
            })
        },
    )?;
    found.into_iter().next().ok_or_else(|| {
        UsherError::forbidden(format!("violation {id} does not exist, or is not one of yours to decide"))
            .detail(format!("You act as \"{actor}\"."))
            .hint("SELECT id, wrong FROM usher.violations shows those that you may read; admins of the organization decide them.")
    })
}

/// A violation is accepted for as long as the row is bad. `of`: what is counted for the caller.
pub fn waive(installed: Installed, id: Uuid, because: &str, of: impl FnOnce(Uuid) -> Result<()>) -> Result<String> {
    let by = identity::author();
    let violation = find(installed, id)?;
    of(violation.organization)?;
    match violation.status.as_str() {
        "open" | "pending" => {}
        "waived" => {
            return Err(UsherError::state(format!("violation {id} is waived already")).hint(
                "SELECT waived_by, waived_because FROM usher.violations shows by whom and why; usher.reopen_violation() ends it.",
            ));
        }
        status => {
            return Err(UsherError::state(format!("violation {id} is not open: it is {status}"))
                .hint("The row is not bad any more; there is nothing to waive."));
        }
    }
    let _acting = role::internal(installed.owner);
    spi::run(
        "UPDATE usher.violations AS v
            SET status = 'waived', waived_by = $3, waived_because = $4, waived_at = pg_catalog.clock_timestamp(), due_at = NULL, escalate_at = NULL
          WHERE v.organization_id = $1 AND v.id = $2",
        &[spi::arg(violation.organization), spi::arg(id), spi::arg(by.as_str()), spi::arg(because)],
    )?;
    audit::note(
        installed,
        organization(&violation),
        "usher.violations.waived",
        &id.to_string(),
        None,
        Some(json!({"because": because})),
    )?;
    let mut event = violation.event;
    event.0["waived_by"] = json!(by);
    event.0["because"] = json!(because);
    look::tell("usher.violation.waived", (vec![violation.organization], vec![event]))?;
    Ok("waived".to_owned())
}

fn organization(violation: &Violation) -> Option<Uuid> {
    Some(violation.organization).filter(|id| id.as_bytes() != &[0; 16])
}

/// A violation that was waived counts again; somebody is told of it from the beginning.
pub fn reopen(installed: Installed, id: Uuid, of: impl FnOnce(Uuid) -> Result<()>) -> Result<String> {
    let violation = find(installed, id)?;
    of(violation.organization)?;
    if violation.status != "waived" {
        return Err(UsherError::state(format!("violation {id} is not waived: it is {}", violation.status))
            .hint("Only what somebody has waived can be reopened; what is bad again opens by itself."));
    }
    let _acting = role::internal(installed.owner);
    spi::run(
        "UPDATE usher.violations AS v
            SET status = 'open', opened_at = pg_catalog.clock_timestamp(), waived_by = NULL, waived_because = NULL, waived_at = NULL, escalated_at = NULL,
                escalate_at = pg_catalog.clock_timestamp() + (SELECT $3::bigint * '1 millisecond'::interval)
          WHERE v.organization_id = $1 AND v.id = $2",
        &[spi::arg(violation.organization), spi::arg(id), spi::arg(escalation(id)?)],
    )?;
    xact::note_overlaps();
    audit::note(installed, organization(&violation), "usher.violations.reopened", &id.to_string(), None, None)?;
    look::tell("usher.violation.opened", (vec![violation.organization], vec![violation.event]))?;
    Ok("open".to_owned())
}

/// Milliseconds until somebody is told of a violation, if its rule says so.
fn escalation(violation: Uuid) -> Result<Option<i64>> {
    let rule = spi::read::<i32>("SELECT v.rule_id FROM usher.violations AS v WHERE v.id = $1", &[spi::arg(violation)])?;
    let Some(rule) = rule.map(store::by_id).transpose()?.flatten() else { return Ok(None) };
    Ok(rule.definition()?.escalate.map(|escalate| escalate.after))
}

/// Violations that are open beyond their time, whose rule emits an event of them. The most that one call tells; more follow with the
/// next. Those whose rule makes a notice are told by `notify`.
const ESCALATED: &str = "
WITH d AS MATERIALIZED (
    SELECT v.organization_id, v.id, l.definition -> 'escalate' ->> 'emit' AS type
      FROM usher.violations AS v JOIN usher.rules AS l ON l.id = v.rule_id AND l.definition -> 'escalate' ? 'emit'
     WHERE v.status = 'open' AND v.escalated_at IS NULL AND v.escalate_at <= pg_catalog.clock_timestamp()
     ORDER BY v.escalate_at LIMIT 1000 FOR UPDATE OF v SKIP LOCKED)
UPDATE usher.violations AS v SET escalated_at = pg_catalog.clock_timestamp() FROM d WHERE v.organization_id = d.organization_id AND v.id = d.id
RETURNING d.type, v.organization_id,
          pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'row', v.\"row\", 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at, 'opened_at', v.opened_at)";

/// Emits the events of violations that are open beyond their time. Runs with the owner's rights.
pub fn escalate() -> Result<()> {
    let due = spi::all(ESCALATED, &[], |row| {
        Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<Uuid>(2)?, row.get::<JsonB>(3)?))
    })?;
    let mut by_type: std::collections::BTreeMap<String, (Vec<Uuid>, Vec<JsonB>)> = std::collections::BTreeMap::new();
    for (event_type, organization, event) in due {
        let told = by_type.entry(event_type).or_default();
        if let (Some(organization), Some(event)) = (organization.filter(|id| id.as_bytes() != &[0; 16]), event) {
            told.0.push(organization);
            told.1.push(event);
        }
    }
    for (event_type, (organizations, events)) in by_type {
        if !organizations.is_empty() {
            event::tell(&event_type, &organizations, events)?;
        }
    }
    Ok(())
}

/// Seconds until somebody is to be told.
pub fn next_escalation() -> Result<Option<f64>> {
    spi::read::<f64>(
        "SELECT EXTRACT(epoch FROM pg_catalog.min(v.escalate_at) - pg_catalog.clock_timestamp())::float8 FROM usher.violations AS v
          WHERE v.status = 'open' AND v.escalated_at IS NULL AND v.escalate_at IS NOT NULL",
        &[],
    )
}

/// Violations that ended so long ago, and repairs, as other history.
pub fn prune(days: i32) -> Result<()> {
    super::repair_store::prune(days)?;
    spi::run(
        "DELETE FROM usher.violations AS v WHERE v.status IN ('gone', 'repaired') AND v.ended_at < pg_catalog.now() - $1 * '1 day'::interval",
        &[spi::arg(days)],
    )?;
    Ok(())
}
