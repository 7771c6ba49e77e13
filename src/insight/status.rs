//! One screen for psql.

use crate::error::Result;
use crate::pg::{role, shmem, spi};
use crate::queue::LANES;
use crate::registry::identity::{self, Right};
use crate::settings;
use crate::setup;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Line = (&'static str, String, String, Option<String>);

/// Workers, lanes, flows and the last errors, as far as the caller may see them: a caller who sees no organization is
/// told why, operators see flows. Rows of `section, item, value, note`.
///
/// Errors: 55000 before `usher.setup()`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn status() -> std::result::Result<
    TableIterator<'static, (name!(section, String), name!(item, String), name!(value, String), name!(note, Option<String>))>,
    ErrorReport,
> {
    let mut lines: Vec<Line> = Vec::new();
    let organizations = you(&mut lines)?;
    workers(&mut lines, setup::installed()?.home);
    lanes(&mut lines, &organizations)?;
    if identity::is_operator() {
        flows(&mut lines)?;
        rules(&mut lines)?;
    }
    violations(&mut lines, organizations.clone())?;
    notices(&mut lines)?;
    errors(&mut lines, organizations)?;
    Ok(TableIterator::new(lines.into_iter().map(|(section, item, value, note)| (section.to_owned(), item, value, note))))
}

fn you(lines: &mut Vec<Line>) -> Result<Vec<pgrx::Uuid>> {
    let organizations = identity::organizations(Right::Read)?;
    let actor = identity::actor();
    let counted = format!("{} organization{}", organizations.len(), if organizations.len() == 1 { "" } else { "s" });
    let (value, note) = if organizations.is_empty() {
        (
            "no organization".to_owned(),
            Some(format!(
                "you act as {actor}, who is a member of none, so nothing below counts jobs; an admin can call usher.grant_membership(organization, '{actor}')"
            )),
        )
    } else if identity::is_operator() {
        (counted, Some("you are an operator and see all of them".to_owned()))
    } else {
        (counted, None)
    };
    lines.push(("you", actor, value, note));
    Ok(organizations)
}

fn workers(lines: &mut Vec<Line>, home: bool) {
    if !home {
        lines.push((
            "worker",
            "none".to_owned(),
            "waits for resume()".to_owned(),
            Some(
                "the tables come from another database or server: SELECT usher.resume('moved') if this one takes its place, usher.resume('copy') if that one lives on"
                    .to_owned(),
            ),
        ));
        return;
    }
    if !settings::outbound() {
        lines.push((
            "outbound",
            "off".to_owned(),
            "held".to_owned(),
            Some("usher.outbound is off: what leaves the database waits until it is on again".to_owned()),
        ));
    }
    if !shmem::available() {
        lines.push((
            "worker",
            "none".to_owned(),
            "not preloaded".to_owned(),
            Some(
                "add pg_usher to shared_preload_libraries and restart; until then SELECT usher.process_jobs() runs jobs"
                    .to_owned(),
            ),
        ));
        return;
    }
    let workers = shmem::workers();
    if workers.is_empty() {
        let note = if shmem::launcher_pid() == 0 {
            "the launcher is not running: look into the server log"
        } else {
            "put this database into usher.databases and reload: ALTER SYSTEM SET usher.databases = …; SELECT pg_reload_conf()"
        };
        lines.push(("worker", "none".to_owned(), "no worker here".to_owned(), Some(note.to_owned())));
    }
    for caller in shmem::callers() {
        let state = if caller.listening { "there" } else { "starting" };
        lines.push((
            "caller",
            "calls that leave the database".to_owned(),
            state.to_owned(),
            Some(format!("pid {}, {} calls since it started", caller.pid, caller.jobs)),
        ));
    }
    for worker in workers {
        let lanes: Vec<&str> =
            LANES.iter().enumerate().filter(|(lane, _)| worker.lanes & (1 << lane) != 0).map(|(_, name)| *name).collect();
        let state = match (worker.listening, worker.busy) {
            (false, _) => "starting",
            (true, true) => "working",
            (true, false) => "waiting",
        };
        lines.push((
            "worker",
            lanes.join(", "),
            state.to_owned(),
            Some(format!("pid {}, {} jobs in {} batches since it started", worker.pid, worker.jobs, worker.batches)),
        ));
    }
}

fn lanes(lines: &mut Vec<Line>, organizations: &[pgrx::Uuid]) -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    let counts = spi::read_all(
        &setup::for_tables("SELECT l.lane, COALESCE(q.n, 0), COALESCE(w.retry, 0), COALESCE(w.other, 0), COALESCE(d.n, 0)
           FROM pg_catalog.generate_series(0, 4) AS l (lane)
           LEFT JOIN (SELECT lane, pg_catalog.count(*) AS n FROM usher.ready_jobs WHERE organization_id = ANY ($1) GROUP BY lane) q ON q.lane = l.lane
           LEFT JOIN (SELECT lane, pg_catalog.count(*) FILTER (WHERE waiting_for = 'retry') AS retry, pg_catalog.count(*) FILTER (WHERE waiting_for <> 'retry') AS other
                        FROM usher.queue_waiting WHERE organization_id = ANY ($1) GROUP BY lane) w ON w.lane = l.lane
           LEFT JOIN (SELECT lane, pg_catalog.count(*) AS n FROM usher.dead_letters WHERE organization_id = ANY ($1) GROUP BY lane) d ON d.lane = l.lane
          ORDER BY l.lane")?,
        &[spi::arg(organizations.to_vec())],
        |row| {
            let count = |at| -> Result<i64> { Ok(row.get::<i64>(at)?.unwrap_or(0)) };
            Ok((row.get::<i32>(1)?.unwrap_or(0), count(2)?, count(3)?, count(4)?, count(5)?))
        },
    )?;
    for (lane, ready, retry, other, dead) in counts {
        let name = LANES.get(lane as usize).copied().unwrap_or_default();
        let value = format!("{ready} ready");
        let note = (retry + other + dead > 0).then(|| format!("{retry} to be tried again, {other} waiting, {dead} dead"));
        lines.push(("lane", name.to_owned(), value, note));
    }
    Ok(())
}

fn flows(lines: &mut Vec<Line>) -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    let flows = spi::read_all(
        "SELECT name, CASE WHEN state = 'broken' THEN 'broken' WHEN NOT enabled THEN 'off' WHEN definition -> 'shadow' = 'true' THEN 'shadow' ELSE 'on' END,
                pg_catalog.concat_ws('; ', reason, CASE WHEN r.rolsuper THEN 'runs as superuser ' || r.rolname END)
           FROM usher.flows f LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.run_as ORDER BY name",
        &[],
        |row| {
            let note = row.get::<String>(3)?.filter(|text| !text.is_empty());
            Ok(("flow", row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default(), note))
        },
    )?;
    lines.extend(flows);
    Ok(())
}

/// Rules that do not find what they should.
fn rules(lines: &mut Vec<Line>) -> Result<()> {
    let installed = setup::installed()?;
    if !installed.up_to_date {
        return Ok(());
    }
    let _acting = role::internal(installed.owner);
    let rules = spi::read_all(
        "SELECT l.name, CASE WHEN l.state = 'broken' THEN 'broken' WHEN NOT l.enabled THEN 'off' ELSE 'on' END, COALESCE(l.reason, l.last_error)
           FROM usher.rules AS l WHERE l.state = 'broken' OR NOT l.enabled OR l.last_error IS NOT NULL ORDER BY l.name",
        &[],
        |row| Ok(("rule", row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default(), row.get::<String>(3)?)),
    )?;
    lines.extend(rules);
    Ok(())
}

/// Violations that are open, of the caller's organizations: the critical ones first, which somebody has to see to.
fn violations(lines: &mut Vec<Line>, organizations: Vec<pgrx::Uuid>) -> Result<()> {
    let installed = setup::installed()?;
    if !installed.up_to_date {
        return Ok(());
    }
    let everything = super::may_look();
    let _acting = role::internal(installed.owner);
    let violations = spi::read_all(
        "SELECT g.rule, g.severity, g.n, g.since
           FROM (SELECT v.rule, v.severity, pg_catalog.count(*) AS n, 'since ' || pg_catalog.date_trunc('second', pg_catalog.min(v.first_seen_at)) AS since
                   FROM usher.violations AS v WHERE v.status = 'open' AND ($2 OR v.organization_id = ANY ($1)) GROUP BY v.rule, v.severity) AS g
          ORDER BY pg_catalog.array_position(ARRAY['critical', 'warning', 'info'], g.severity), g.n DESC, g.rule LIMIT 20",
        &[spi::arg(organizations), spi::arg(everything)],
        |row| {
            let severity = row.get::<String>(2)?.unwrap_or_default();
            let since = row.get::<String>(4)?.unwrap_or_default();
            let note = if severity == "critical" {
                format!("{since}; to be seen to by hand: usher.violations shows which")
            } else {
                since
            };
            Ok(("violation", row.get::<String>(1)?.unwrap_or_default(), format!("{} open, {severity}", row.get::<i64>(3)?.unwrap_or(0)), Some(note)))
        },
    )?;
    lines.extend(violations);
    Ok(())
}

/// Notices that nobody has read, the latest first: of the organizations that the caller manages, and for those who run the
/// installation all.
fn notices(lines: &mut Vec<Line>) -> Result<()> {
    let installed = setup::installed()?;
    if !installed.up_to_date {
        return Ok(());
    }
    let everything = super::may_look();
    let managed = identity::organizations(Right::Manage)?;
    let _acting = role::internal(installed.owner);
    let notices = spi::read_all(
        "SELECT COALESCE(n.flow, n.subject), n.kind, n.failures,
                'since ' || pg_catalog.date_trunc('second', n.first_at) || COALESCE(', organization ' || o.slug, '') || ', notice ' || n.id
                || COALESCE(': ' || COALESCE(n.body ->> 'last_error', n.body ->> 'reason'), '')
           FROM usher.notices n LEFT JOIN usher.organizations o ON o.id = n.organization_id
          WHERE n.read_at IS NULL AND ($2 OR n.organization_id = ANY ($1)) ORDER BY n.last_at DESC LIMIT 10",
        &[spi::arg(managed), spi::arg(everything)],
        |row| {
            let kind = row.get::<String>(2)?.unwrap_or_default();
            let value = match kind.as_str() {
                "flow failing" => format!("{} failures", row.get::<i32>(3)?.unwrap_or(0)),
                _ => kind,
            };
            Ok(("notice", row.get::<String>(1)?.unwrap_or_default(), value, row.get::<String>(4)?))
        },
    )?;
    lines.extend(notices);
    Ok(())
}

fn errors(lines: &mut Vec<Line>, organizations: Vec<pgrx::Uuid>) -> Result<()> {
    let installed = setup::installed()?;
    let _acting = role::internal(installed.owner);
    let errors = spi::read_all(
        "SELECT e.name, e.what, e.error_message || ' (job ' || e.id || ')' FROM (
            SELECT f.name, 'dead' AS what, d.error_message, d.id, d.died_at AS at FROM usher.dead_letters d
              LEFT JOIN usher.flow_versions f ON f.flow_id = d.flow_id AND f.version = d.flow_version WHERE d.organization_id = ANY ($1)
            UNION ALL
            SELECT f.name, 'failed ' || w.attempts || 'x', w.error_message, w.id, w.last_attempted_at FROM usher.queue_waiting w
              LEFT JOIN usher.flow_versions f ON f.flow_id = w.flow_id AND f.version = w.flow_version
             WHERE w.organization_id = ANY ($1) AND w.waiting_for = 'retry' AND w.error_message IS NOT NULL) AS e
          ORDER BY e.at DESC NULLS LAST LIMIT 5",
        &[spi::arg(organizations)],
        |row| Ok(("error", row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default(), row.get::<String>(3)?)),
    )?;
    if errors.is_empty() {
        lines.push(("error", "none".to_owned(), String::new(), None));
    }
    lines.extend(errors);
    Ok(())
}
