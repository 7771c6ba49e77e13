//! Checks of what is stored, and of who may reach it.

use super::{Finding, Seen, listed, problem, warning};
use crate::error::Result;
use crate::migration;
use crate::pg::{shmem, spi};
use crate::protect::mend;
use crate::queue::{LANES, store};
use crate::registry::adopt::binding::{self, Bound};
use crate::setup::{self, Installed};

pub fn public_functions() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p
          WHERE p.pronamespace = 'usher'::pg_catalog.regnamespace AND pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1",
        &[],
        |row| {
            let function = row.get::<String>(1)?.unwrap_or_default();
            Ok(problem(format!("everybody may call {function}"), format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC;")))
        },
    )?;
    Ok(("none in schema usher".to_owned(), listed(rows)))
}

/// Functions that run with their owner's rights and find names by the caller's search path. In schema usher, and in those
/// that the flows of packs read, write or call.
pub fn search_paths(set_up: bool) -> Result<Seen> {
    let packs = "SELECT pg_catalog.split_part(x.name, '.', 1)
                   FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
                   CROSS JOIN LATERAL (VALUES (v.compiled ->> 'source'), (v.compiled ->> 'target'), (v.definition -> 'then' ->> 'call')) AS x (name)
                  WHERE f.pack IS NOT NULL AND x.name IS NOT NULL";
    let sql = format!(
        "SELECT p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
          WHERE p.prosecdef AND n.nspname::text IN (SELECT 'usher'{})
            AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=%') ORDER BY 1",
        if set_up { format!(" UNION {packs}") } else { String::new() }
    );
    let rows = spi::read_all(&sql, &[], |row| {
        let function = row.get::<String>(1)?.unwrap_or_default();
        Ok(problem(
            format!("{function} runs with its owner's rights and takes names from the caller's search path"),
            format!("ALTER FUNCTION {function} SET search_path = pg_catalog, pg_temp; with every other name in it qualified."),
        ))
    })?;
    Ok(("pinned in every function that runs with its owner's rights".to_owned(), listed(rows)))
}

pub fn row_security() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT c.oid::pg_catalog.regclass::text, c.relrowsecurity FROM pg_catalog.pg_class c
          WHERE c.relnamespace = 'usher'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
            AND (NOT c.relrowsecurity OR NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid)) ORDER BY 1",
        &[],
        |row| {
            let table = row.get::<String>(1)?.unwrap_or_default();
            Ok(if row.get::<bool>(2)? == Some(true) {
                problem(format!("{table} has no policy: nobody but its owner reads it"), "SELECT usher.setup();")
            } else {
                problem(format!("{table} has no row level security: every organization reads every row"), "SELECT usher.setup();")
            })
        },
    )?;
    Ok(("on for every table, each with its policies".to_owned(), listed(rows)))
}

/// Where indexes show the newest rows, they are not from the future. Histories by their days.
pub fn clock() -> Result<Seen> {
    let ahead = spi::read::<String>(
        &setup::for_tables(
            "SELECT pg_catalog.date_trunc('second', pg_catalog.max(x.at) - pg_catalog.clock_timestamp())::text
           FROM (SELECT (SELECT q.created_at FROM usher.jobs q WHERE q.lane = l ORDER BY q.seq DESC LIMIT 1) FROM pg_catalog.generate_series(0, 4) AS l
                 UNION ALL SELECT pg_catalog.max(d.died_at) FROM usher.dead_letters d
                 UNION ALL SELECT pg_catalog.max(v.created_at) FROM usher.flow_versions v
                 UNION ALL SELECT pg_catalog.max(h.finished_at) FROM usher.job_history h
                            WHERE h.finished_at >= (pg_catalog.date_trunc('day', pg_catalog.now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC') AS x (at)
         HAVING pg_catalog.max(x.at) > pg_catalog.clock_timestamp() + interval '5 seconds'",
        )?,
        &[],
    )?;
    let finding = ahead.map(|ahead| {
        problem(
            format!("rows are dated {ahead} in the future: the server's clock was set back, or the data come from a server that was ahead"),
            "Correct the clock (timedatectl, chrony); due times and the days of the history go by it.",
        )
    });
    Ok(("no row is from the future".to_owned(), finding.into_iter().collect()))
}

pub fn history(up_to_date: bool) -> Result<Seen> {
    let mut findings = Vec::new();
    let mut tables = vec![("job_history_default", "finished jobs")];
    if up_to_date {
        tables.push(("events_default", "events"));
    }
    for (table, what) in tables {
        let sql = format!("SELECT pg_catalog.count(*) FROM (SELECT FROM usher.{table} LIMIT 100000) AS x");
        let rows = spi::read::<i64>(&sql, &[])?.unwrap_or(0);
        if rows > 0 {
            let more = if rows >= 100_000 { "at least " } else { "" };
            findings.push(warning(
                format!("{what} in the default partition, because none was made for their day in time: {more}{rows}"),
                "Let a worker run in this database: it makes the days ahead. These rows are read as usual, and deleted when usher.history_days have passed.",
            ));
        }
    }
    Ok(("every finished job and event is in the partition of its day".to_owned(), findings))
}

pub fn backlog() -> Result<Seen> {
    let runs = shmem::workers().iter().any(|worker| worker.listening);
    let first = if setup::installed()?.up_to_date {
        store::first_ready("created_at", "l.lane", "0")
    } else {
        setup::for_tables("SELECT q.created_at FROM usher.jobs AS q WHERE q.lane = l.lane ORDER BY q.seq LIMIT 1")?.into_owned()
    };
    let rows = spi::read_all(
        &format!(
            "SELECT l.lane::integer, pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - o.created_at)::text
               FROM (SELECT n::smallint AS lane FROM pg_catalog.generate_series(0, 4) AS n) AS l
              CROSS JOIN LATERAL ({first}) AS o
              WHERE o.created_at < pg_catalog.clock_timestamp() - interval '1 minute' ORDER BY l.lane"
        ),
        &[],
        |row| {
            let lane = usize::try_from(row.get::<i32>(1)?.unwrap_or(0)).unwrap_or(0);
            let age = row.get::<String>(2)?.unwrap_or_default();
            Ok(behind(LANES.get(lane).copied().unwrap_or_default(), &age, runs))
        },
    )?;
    Ok(("no job has been ready for more than a minute".to_owned(), rows))
}

fn behind(lane: &str, age: &str, workers_run: bool) -> Finding {
    let says = format!("lane {lane}: the oldest ready job has waited for {age}");
    if workers_run {
        warning(
            format!("{says}, although workers run"),
            "SELECT * FROM usher.status(); tells whether they work. Slow targets, locks on them and usher.hold_lane() hold a lane up.",
        )
    } else {
        problem(
            format!("{says}, and no worker runs"),
            "See the check \"workers\"; SELECT usher.process_jobs(); runs jobs by hand.",
        )
    }
}

pub fn waiting() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT COALESCE(f.name, 'flow ' || w.flow_id), w.waiting_for, pg_catalog.count(*)
           FROM usher.queue_waiting w LEFT JOIN usher.flows f ON f.id = w.flow_id
          WHERE w.waiting_for IN ('flow disabled', 'flow broken') GROUP BY 1, 2 ORDER BY 1, 2",
        &[],
        |row| {
            let flow = row.get::<String>(1)?.unwrap_or_default();
            let jobs = row.get::<i64>(3)?.unwrap_or(0);
            Ok(match row.get::<String>(2)?.as_deref() {
                Some("flow disabled") => warning(
                    format!("jobs that wait because flow \"{flow}\" is off: {jobs}"),
                    format!("SELECT usher.enable_flow('{flow}'); runs them, SELECT usher.drop_flow('{flow}'); cancels them."),
                ),
                _ => problem(
                    format!("jobs that wait because flow \"{flow}\" is broken: {jobs}"),
                    format!("They run when it fits again: mend the table, or SELECT usher.alter_flow('{flow}', …);"),
                ),
            })
        },
    )?;
    Ok(("no job waits for a flow".to_owned(), listed(rows)))
}

/// The application's tables that say who belongs where.
pub fn adoptions(installed: Installed) -> Result<Seen> {
    let broken = |what: &str, state: &str, why: String| {
        problem(
            format!("{what} are adopted, but {why}: {state}"),
            format!("Mend it, call usher.adopt_{what}() again for the table that is right, or usher.release_{what}()."),
        )
    };
    let mut findings = Vec::new();
    if let Bound::Broken(why) = binding::organizations(installed)? {
        findings.push(broken("organizations", "new ones are not known", why));
    }
    if let Bound::Broken(why) = binding::members(installed)? {
        findings.push(broken("memberships", "it gives nobody a right", why));
    }
    Ok(("every adopted table can be read".to_owned(), findings))
}

/// Columns that are sealed or masked.
pub fn protected_columns() -> Result<Seen> {
    let findings = mend::findings()?.into_iter().map(|(finding, remedy)| problem(finding, remedy)).collect();
    Ok(("every protected column is as declared".to_owned(), findings))
}

/// Migrations that stand still.
pub fn migrations() -> Result<Seen> {
    let findings = migration::stopped()?.into_iter().map(|stopped| {
        problem(
            format!("the migration {} of flow \"{}\" stands still: {}", stopped.id, stopped.flow, stopped.message),
            format!(
                "Mend what the message names, then SELECT usher.resume_migration('{0}'); or usher.cancel_migration('{0}') and usher.reconcile() anew.",
                stopped.id
            ),
        )
    });
    Ok(("no migration stands still".to_owned(), listed(findings.collect())))
}

/// Runs of workflows that wait for somebody to decide.
pub fn workflows() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT r.workflow, pg_catalog.count(*), pg_catalog.min(r.started_at)::text, (pg_catalog.array_agg(r.error_message ORDER BY r.started_at))[1]
           FROM usher.workflow_runs AS r WHERE r.ended_at IS NULL AND r.state = 'parked' GROUP BY 1 ORDER BY 1",
        &[],
        |row| {
            let workflow = row.get::<String>(1)?.unwrap_or_default();
            Ok(warning(
                format!(
                    "runs of workflow \"{workflow}\" that are parked: {}; the first began at {}: {}",
                    row.get::<i64>(2)?.unwrap_or(0),
                    row.get::<String>(3)?.unwrap_or_default(),
                    row.get::<String>(4)?.unwrap_or_default()
                ),
                format!("SELECT id, remedy FROM usher.workflow_runs WHERE workflow = '{workflow}' AND state = 'parked'; tells what can be done."),
            ))
        },
    )?;
    Ok(("no run of a workflow is parked".to_owned(), listed(rows)))
}

/// What was paused and forgotten.
pub fn pauses() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT pg_catalog.concat_ws(' of ', COALESCE('flow \"' || f.name || '\"', 'system \"' || p.target_system || '\"'), 'organization \"' || o.slug || '\"'),
                pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - p.paused_at)::text, p.paused_by, p.reason,
                pg_catalog.concat_ws(', ', 'flow => ' || pg_catalog.quote_literal(f.name), 'system => ' || pg_catalog.quote_literal(p.target_system),
                                           'organization => ' || pg_catalog.quote_literal(o.slug))
           FROM usher.pause_orders p LEFT JOIN usher.flows f ON f.id = p.flow_id LEFT JOIN usher.organizations o ON o.id = p.organization_id
          WHERE p.paused_at < pg_catalog.clock_timestamp() - interval '1 day' AND p.resumed_at IS NULL
            AND (p.until IS NULL OR p.until > pg_catalog.clock_timestamp()) ORDER BY p.paused_at",
        &[],
        |row| {
            let said = |at| -> Result<String> { Ok(row.get::<String>(at)?.unwrap_or_default()) };
            let reason = row.get::<String>(4)?.map(|reason| format!(": {reason}")).unwrap_or_default();
            Ok(warning(
                format!("{} has been paused for {} by {}{reason}", said(1)?, said(2)?, said(3)?),
                format!("SELECT usher.resume_jobs({}); lets its jobs go on.", said(5)?),
            ))
        },
    )?;
    Ok(("nothing has been paused for more than a day".to_owned(), listed(rows)))
}

pub fn dead_letters() -> Result<Seen> {
    let dead = spi::read::<i64>(
        "SELECT pg_catalog.count(*) FROM usher.dead_letters WHERE died_at > pg_catalog.now() - interval '1 day'",
        &[],
    )?
    .unwrap_or(0);
    let finding = (dead > 0).then(|| {
        warning(
            format!("jobs that failed for good within a day: {dead}"),
            "SELECT id, flow, error_message FROM usher.sync_jobs WHERE status = 'dead'; mend the cause, then usher.retry_sync_job(id) runs one again.",
        )
    });
    Ok(("none within a day".to_owned(), finding.into_iter().collect()))
}

/// Entries that were made a while ago and are in no block of the chain: until then nothing shows that they were changed.
pub fn audit_chain() -> Result<Seen> {
    let behind = spi::read_all(
        "SELECT pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - x.recorded_at)::text
           FROM (SELECT l.recorded_at FROM usher.audit_log l
                  WHERE l.position > (SELECT s.sealed_to FROM usher.audit_chain_state s) ORDER BY l.position LIMIT 1) AS x
          WHERE x.recorded_at < pg_catalog.clock_timestamp() - interval '10 minutes'",
        &[],
        |row| Ok(row.get::<String>(1)?),
    )?;
    let finding = behind.into_iter().flatten().map(|age| {
        warning(
            format!("audit entries made {age} ago are not in the chain yet"),
            "Let a worker run in this database, and end long transactions (SELECT * FROM usher.horizon()): the chain follows those that have ended.",
        )
    });
    Ok(("every older entry is in it".to_owned(), finding.collect()))
}

/// Who sees to the data of persons: a role with just the rights that it needs, and one that is there. And whether what is kept
/// for a time could be deleted when it was over.
pub fn personal_data() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT x.what, x.remedy, r.rolname::text
           FROM (SELECT k.run_as, pg_catalog.format('data of a %s', k.kind),
                        pg_catalog.format('SELECT usher.define_subject(%L, %L, run_as => …, …);', k.kind, pg_catalog.format('%I.%I', k.schema_name, k.table_name))
                   FROM usher.subject_kinds k
                 UNION ALL
                 SELECT t.run_as, pg_catalog.format('retention of %s.%s', t.schema_name, t.table_name),
                        pg_catalog.format('SELECT usher.set_retention(%L, %L, %L, %L, run_as => …);', pg_catalog.format('%I.%I', t.schema_name, t.table_name), t.time_column, t.keep, t.action)
                   FROM usher.retention_rules t) AS x (run_as, what, remedy)
           LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.run_as::oid
          WHERE r.oid IS NULL OR r.rolsuper ORDER BY x.what",
        &[],
        |row| {
            let (what, remedy) = (row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default());
            Ok(match row.get::<String>(3)? {
                None => problem(format!("{what} is seen to by a role that is gone"), format!("Name another: {remedy}")),
                Some(role) => warning(
                    format!("{what} is seen to as superuser {role}"),
                    format!("Name a role with just the rights it needs: {remedy}"),
                ),
            })
        },
    )?;
    let failed = spi::read_all(
        "SELECT t.schema_name || '.' || t.table_name,
                COALESCE(t.last_error, 'nobody has looked since ' || pg_catalog.date_trunc('minute', COALESCE(t.last_run_at, t.set_at))::text)
           FROM usher.retention_rules t
          WHERE t.last_error IS NOT NULL OR COALESCE(t.last_run_at, t.set_at) < pg_catalog.now() - interval '3 hours' ORDER BY 1",
        &[],
        |row| {
            let (table, error) = (row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default());
            Ok(problem(
                format!("rows of {table} may be kept longer than is said: {error}"),
                "Mend what the message names and let a worker run; SELECT * FROM usher.apply_retention(); shows what is due.",
            ))
        },
    )?;
    let open = spi::read_all(
        "SELECT e.id::text FROM usher.erasures e WHERE e.swept_at IS NULL AND e.requested_at < pg_catalog.now() - interval '1 day' ORDER BY e.requested_at",
        &[],
        |row| {
            let erasure = row.get::<String>(1)?.unwrap_or_default();
            Ok(warning(
                format!("erasure {erasure} has not been looked at again since a day"),
                "End transactions that have been open since, let a worker run; SELECT usher.sweep_erasures(); says what fails.",
            ))
        },
    )?;
    let findings = listed(rows).into_iter().chain(listed(failed)).chain(listed(open)).collect();
    Ok(("no superuser sees to it, no row is kept too long, every erasure is through".to_owned(), findings))
}
