//! Pausing and resuming, as operators and admins ask for it.

use super::pauses;
use crate::error::{Result, UsherError};
use crate::flow::manage;
use crate::flow::store as flows;
use crate::guard::audit;
use crate::pg::{ids, role, spi, xact};
use crate::registry::identity::{self, Right};
use crate::registry::systems;
use crate::setup::{self, Installed};
use pgrx::Uuid;
use pgrx::prelude::*;
use serde_json::json;

/// Characters of a reason.
const LONGEST_REASON: usize = 500;
/// Jobs are counted up to here.
const MOST_COUNTED: i64 = 10_000;

/// Whose jobs are meant.
struct Scope {
    installed: Installed,
    /// With the other half of a merge.
    flow: Option<(Vec<i32>, String)>,
    system: Option<String>,
    organization: Option<(Uuid, String)>,
}

impl Scope {
    /// Finds what is named, for a caller who may pause it.
    fn of(flow: Option<String>, system: Option<String>, organization: Option<String>, what: &str) -> Result<Self> {
        if flow.is_some() && system.is_some() {
            return Err(UsherError::invalid("a flow and a system are named")
                .hint("Name one of them; an organization can be named with either."));
        }
        if flow.is_none() && system.is_none() && organization.is_none() {
            return Err(UsherError::invalid("nothing is named whose jobs are meant").hint(
                "Give flow => …, system => … or organization => …; an organization can also be named with one of the others.",
            ));
        }
        let organization = match organization {
            Some(named) => Some((identity::organization(&named, Right::Manage)?, named)),
            None => None,
        };
        if organization.is_none() && !identity::is_operator() {
            return Err(UsherError::forbidden(format!("only operators may {what} jobs for everybody"))
                .hint("Name your organization as well: organization => …; its admins may do it for its own jobs."));
        }
        let installed = setup::current()?;
        let flow = match flow {
            Some(name) => Some((manage::halves(installed, &name)?, name)),
            None => None,
        };
        if let Some(name) = &system {
            let _acting = role::internal(installed.owner);
            if systems::kind(name)?.is_none() {
                return Err(UsherError::not_found(format!("system \"{name}\" does not exist"))
                    .hint("SELECT name FROM usher.systems lists them; a flow's system is the one in its \"to\"."));
            }
        }
        Ok(Self { installed, flow, system, organization })
    }

    fn what(&self) -> String {
        match (&self.flow, &self.system) {
            (Some((_, name)), _) => format!("flow {name}"),
            (_, Some(name)) => format!("system {name}"),
            _ => "all".to_owned(),
        }
    }

    fn words(&self) -> String {
        let what = match (&self.flow, &self.system) {
            (None, None) => "jobs".to_owned(),
            (None, Some(name)) => format!("jobs for system {name}"),
            (Some((_, name)), _) => format!("jobs of flow {name}"),
        };
        match &self.organization {
            Some((_, name)) => format!("{what} of organization {name}"),
            None => what,
        }
    }

    fn organization_id(&self) -> Option<Uuid> {
        self.organization.as_ref().map(|(id, _)| *id)
    }

    fn arguments<'a>(&self) -> [pgrx::datum::DatumWithOid<'a>; 3] {
        let flows = self.flow.as_ref().map_or_else(|| vec![None], |(ids, _)| ids.iter().copied().map(Some).collect());
        [spi::arg(flows), spi::arg(self.system.clone()), spi::arg(self.organization_id())]
    }
}

pub fn pause(
    flow: Option<String>,
    system: Option<String>,
    organization: Option<String>,
    until: Option<TimestampWithTimeZone>,
    reason: Option<String>,
) -> Result<String> {
    let scope = Scope::of(flow, system, organization, "pause")?;
    if let Some(at) = until.map(i64::from) {
        if matches!(at, i64::MIN | i64::MAX) {
            return Err(UsherError::invalid("until is not a finite time")
                .hint("Leave it out to pause until usher.resume_jobs() is called."));
        }
        if at <= ids::clock() {
            return Err(UsherError::invalid("until is over").hint("Give a time to come, such as now() + '1 hour'."));
        }
    }
    let reason = reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return Err(UsherError::invalid("the reason is too long").hint(format!("Give at most {LONGEST_REASON} characters.")));
    }
    let by = identity::actor();
    let _acting = role::internal(scope.installed.owner);
    let mut arguments = Vec::from(scope.arguments());
    arguments.extend([spi::arg(until), spi::arg(reason.clone()), spi::arg(by)]);
    // One that is being resumed is taken up again: what has not been let go stays where it is.
    spi::run(
        "INSERT INTO usher.pause_orders AS p (flow_id, target_system, organization_id, until, reason, paused_by)
         SELECT f.id, $2, $3, $4, $5, $6 FROM unnest($1::integer[]) AS f (id)
         ON CONFLICT ((COALESCE(organization_id, '00000000-0000-0000-0000-000000000000')), (COALESCE(flow_id, 0)), (COALESCE(target_system, '')))
         DO UPDATE SET until = EXCLUDED.until, reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by, resumed_at = NULL,
                       paused_at = CASE WHEN p.resumed_at IS NULL AND (p.until IS NULL OR p.until > pg_catalog.now()) THEN p.paused_at ELSE EXCLUDED.paused_at END",
        &arguments,
    )?;
    pauses::changed();
    if let Some((ids, name)) = &scope.flow
        && let Some(id) = ids.first()
        && flows::newest(*id)?.is_some_and(|flow| flow.definition.in_writer())
    {
        notice!("flow \"{name}\" is transactional: what it does in the writer's transaction goes on");
    }
    let said = json!({"reason": reason, "until": until.map(|until| until.to_iso_string())});
    audit::note(scope.installed, scope.organization_id(), "usher.jobs.paused", &scope.what(), None, Some(said))?;
    let end = if until.is_some() { "until the time that was given" } else { "until usher.resume_jobs() is called" };
    Ok(format!("{} wait {end}", scope.words()))
}

pub fn resume(flow: Option<String>, system: Option<String>, organization: Option<String>) -> Result<String> {
    let scope = Scope::of(flow, system, organization, "resume")?;
    let _acting = role::internal(scope.installed.owner);
    let resumed = spi::run(
        "UPDATE usher.pause_orders AS p SET resumed_at = pg_catalog.now()
          WHERE COALESCE(p.flow_id, 0) IN (SELECT COALESCE(f.id, 0) FROM unnest($1::integer[]) AS f (id)) AND p.target_system IS NOT DISTINCT FROM $2 AND p.organization_id IS NOT DISTINCT FROM $3
            AND p.resumed_at IS NULL AND (p.until IS NULL OR p.until > pg_catalog.clock_timestamp())",
        &scope.arguments(),
    )?;
    if resumed == 0 {
        return Err(UsherError::state(format!("{} are not paused", scope.words()))
            .hint("SELECT * FROM usher.pauses shows what is; name it in the same way."));
    }
    pauses::changed();
    xact::note_callers();
    audit::note(scope.installed, scope.organization_id(), "usher.jobs.resumed", &scope.what(), None, None)?;
    Ok(format!("{} go on", scope.words()))
}

/// How many jobs wait for a pause, for those who may see them all; NULL for everybody else.
pub fn waiting(pause: i32) -> Result<Option<i64>> {
    let installed = setup::current()?;
    let all = identity::is_legend()? || identity::has_reader_rights(role::current());
    let mine = if all { Vec::new() } else { identity::organizations(Right::Read)? };
    let _acting = role::internal(installed.owner);
    let seen = spi::read::<bool>(
        "SELECT $2 OR p.organization_id = ANY ($3) FROM usher.pause_orders AS p WHERE p.id = $1",
        &[spi::arg(pause), spi::arg(all), spi::arg(mine)],
    )?;
    if seen == Some(true) { pauses::waiting(pause, MOST_COUNTED) } else { Ok(None) }
}
