//! Checks of the server: library, tables, workers, key file, transactions.

use super::{Finding, Seen, listed, problem, warning};
use crate::error::Result;
use crate::pg::files::{self, Guarded};
use crate::pg::{shmem, spi};
use crate::secrets::store as secrets;
use crate::settings;
use crate::setup::{self, Installed};
use std::cmp::Ordering;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Versions by their numbers: 0.10.0 is newer than 0.9.1.
fn compare(left: &str, right: &str) -> Ordering {
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(left).cmp(&numbers(right))
}

pub fn library() -> Result<Seen> {
    let extension = spi::read::<String>("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_usher'", &[])?;
    let mut findings = Vec::new();
    if !shmem::available() {
        findings.push(warning(
            "the library is not preloaded: there are no workers and no wake-ups",
            "Append pg_usher to shared_preload_libraries and restart the server; until then SELECT usher.process_jobs(); runs jobs.",
        ));
    }
    findings.extend(extension.and_then(|extension| versions(&extension)));
    Ok((format!("pg_usher {VERSION} is preloaded"), findings))
}

fn versions(extension: &str) -> Option<Finding> {
    let says = format!("the loaded library is {VERSION}, the extension in this database is {extension}");
    match compare(VERSION, extension) {
        Ordering::Equal => None,
        Ordering::Greater => Some(warning(says, "ALTER EXTENSION pg_usher UPDATE; SELECT usher.setup();")),
        Ordering::Less => {
            Some(problem(says, "Restart the server, so that it loads the newer library; install that first if it is not there."))
        }
    }
}

pub fn setup(installed: Option<Installed>) -> Result<Seen> {
    let Some(installed) = installed else {
        let finding = problem("the tables do not exist", "Run SELECT usher.setup(); as the role that shall own them.");
        return Ok((String::new(), vec![finding]));
    };
    let level = spi::read::<i32>("SELECT schema_level FROM usher.installation", &[])?.unwrap_or(0);
    // What stands on the extension's functions goes with it, and comes back with setup().
    let whole = spi::read::<bool>(
        "SELECT pg_catalog.to_regclass('usher.sync_jobs') IS NOT NULL
                AND EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'usher.flows'::pg_catalog.regclass
                               AND t.tgname = 'usher_flows_changed' AND t.tgenabled IN ('O', 'A'))",
        &[],
    )?;
    let findings = match level.cmp(&setup::SCHEMA_LEVEL) {
        Ordering::Equal if whole == Some(true) => Vec::new(),
        Ordering::Equal => vec![problem(
            "the tables are there, but not their view, policies and triggers, as after usher.detach_all(): nothing is captured",
            "Run SELECT usher.setup(); as their owner.",
        )],
        Ordering::Less => vec![problem(
            format!("the tables are of level {level}, this version works with level {}", setup::SCHEMA_LEVEL),
            "Run SELECT usher.setup(); as their owner.",
        )],
        Ordering::Greater => vec![problem(
            format!("the tables are of level {level}, this version knows only level {}", setup::SCHEMA_LEVEL),
            "Install the newer version of pg_usher, restart, then ALTER EXTENSION pg_usher UPDATE;",
        )],
    };
    let owner = crate::pg::role::name_of(installed.owner).unwrap_or_default();
    Ok((format!("the tables are of this version and belong to {owner}"), findings))
}

pub fn home(installed: Installed) -> Seen {
    let findings = if installed.home {
        Vec::new()
    } else {
        vec![problem(
            "the tables come from another database or server, as after a restore or in a clone: their jobs wait",
            "SELECT usher.resume('moved') if the original does not run any more, or SELECT usher.resume('copy').",
        )]
    };
    ("the tables are at home in this database".to_owned(), findings)
}

/// What there is of workers.
#[derive(Debug, Clone, Default)]
struct Workers {
    preloaded: bool,
    standby: bool,
    /// This database is in `usher.databases`.
    listed: bool,
    /// What the list would be with this database.
    list: String,
    launcher: bool,
    wanted: usize,
    listening: usize,
    slots_left: usize,
    /// `max_worker_processes`, what pg_usher needs of them, and what all together take now.
    processes: i32,
    needed: i32,
    taken: i32,
}

pub fn workers() -> Result<Seen> {
    let databases = settings::databases();
    let row = spi::read_all(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_database()::text = ANY ($1) OR '*' = ANY ($1),
                (SELECT pg_catalog.count(*)::integer FROM pg_catalog.pg_database d WHERE d.datname::text = ANY ($1) AND d.datallowconn AND NOT d.datistemplate),
                pg_catalog.current_setting('max_worker_processes')::integer,
                (SELECT pg_catalog.count(*)::integer FROM pg_catalog.pg_stat_activity a
                  WHERE a.backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'checkpointer', 'background writer', 'walwriter',
                                               'startup', 'archiver', 'walsender', 'walreceiver', 'walsummarizer', 'slotsync worker', 'io worker')),
                pg_catalog.current_database()::text",
        &[spi::arg(databases.clone())],
        |row| {
            Ok((
                row.get::<bool>(1)?.unwrap_or(false),
                row.get::<bool>(2)?.unwrap_or(false),
                row.get::<i32>(3)?.unwrap_or(0),
                row.get::<i32>(4)?.unwrap_or(0),
                row.get::<i32>(5)?.unwrap_or(0),
                row.get::<String>(6)?.unwrap_or_default(),
            ))
        },
    )?;
    let (standby, listed, known, processes, taken, name) = row.into_iter().next().unwrap_or_default();
    let running = shmem::workers();
    let seen = Workers {
        preloaded: shmem::available(),
        standby,
        listed,
        list: databases.iter().chain([&name]).cloned().collect::<Vec<_>>().join(","),
        launcher: shmem::launcher_pid() != 0,
        wanted: usize::try_from(settings::workers()).unwrap_or(1),
        listening: running.iter().filter(|worker| worker.listening).count(),
        slots_left: shmem::SLOTS - shmem::slots_taken(),
        processes,
        needed: 1 + known * settings::workers(),
        taken,
    };
    let fine = match (&seen.preloaded, &seen.standby) {
        (false, _) => "none, because the library is not preloaded".to_owned(),
        (_, true) => "none on a standby; they start when it is promoted".to_owned(),
        _ => format!("{} of {} listen", seen.listening, seen.wanted),
    };
    Ok((fine, judge(&seen)))
}

fn judge(seen: &Workers) -> Vec<Finding> {
    if !seen.preloaded || seen.standby {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !seen.launcher {
        findings.push(problem(
            "the launcher does not run",
            "The server starts it again within a second; the server's log says why it ended.",
        ));
    }
    if !seen.listed {
        findings.push(warning(
            "this database is not in usher.databases and gets no workers",
            format!("ALTER SYSTEM SET usher.databases = '{}'; SELECT pg_reload_conf();", seen.list.replace('\'', "''")),
        ));
    } else if seen.listening < seen.wanted {
        let finding = format!("{} of {} workers listen", seen.listening, seen.wanted);
        findings.push(if seen.slots_left == 0 && seen.listening == 0 {
            problem(
                format!("{finding}: all {} slots are taken", shmem::SLOTS),
                "Take databases out of usher.databases, or set usher.workers = 1, and reload.",
            )
        } else if seen.taken >= seen.processes {
            problem(
                format!("{finding}: all {} background processes of the server are taken", seen.processes),
                "Raise max_worker_processes and restart the server.",
            )
        } else {
            problem(finding, "They start within a second, and once a minute after a failure; if not, the server's log says why.")
        });
    }
    if seen.needed > seen.processes {
        findings.push(warning(
            format!(
                "pg_usher needs {} background processes for all its databases, max_worker_processes is {}",
                seen.needed, seen.processes
            ),
            "Raise max_worker_processes and restart the server.",
        ));
    }
    if seen.listed && seen.slots_left == 0 && seen.listening == seen.wanted {
        findings.push(warning(
            format!("all {} slots for workers are taken: one more database would get none", shmem::SLOTS),
            "Set usher.workers = 1, or leave some databases without workers.",
        ));
    }
    findings
}

/// Where the file is, is not told: only superusers may read that setting. `sealed`: there are tables that may hold what it
/// opens.
pub fn key_file(sealed: bool) -> Result<Seen> {
    let Some(path) = settings::key_file() else {
        let held = if sealed { secrets::sealed()? } else { 0 };
        let finding = (held > 0).then(|| {
            problem(
                format!("usher.key_file is not set, but secrets are sealed: {held}"),
                "Put the key file back, name it in usher.key_file, and SELECT pg_reload_conf();",
            )
        });
        return Ok(("none is set, and nothing is sealed".to_owned(), finding.into_iter().collect()));
    };
    let finding = match files::guarded(&path) {
        Guarded::Well => match if sealed { secrets::missing_keys() } else { Ok(Vec::new()) } {
            Ok(missing) => {
                let told = missing.into_iter().map(|(id, count)| {
                    problem(
                        format!("secrets are sealed with key \"{id}\", which is not in the key file: {count}"),
                        "Put that key back into the file, below the newest one; usher.reseal_secrets() then makes it needless.",
                    )
                });
                return Ok((
                    "it is there, outside the data directory, and only the server may read it".to_owned(),
                    told.collect(),
                ));
            }
            Err(error) => Some(problem(error.message, error.hint.unwrap_or_default())),
        },
        Guarded::Missing => Some(problem(
            "usher.key_file names a file that is not there, or that the server cannot reach",
            "Put the key there, on every standby too, or correct the setting; back the file up apart from the database.",
        )),
        Guarded::NoFile => {
            Some(problem("usher.key_file names an empty file, or none at all", "Put the key there, or correct the setting."))
        }
        Guarded::InsideDataDirectory => Some(problem(
            "the key file is inside the data directory: every base backup carries it along with what it seals",
            "Move it outside, set usher.key_file, and SELECT pg_reload_conf();",
        )),
        Guarded::Foreign => {
            Some(problem("the key file does not belong to the user that the server runs as", "chown it to that user."))
        }
        Guarded::Open => {
            Some(problem("others than the server may read the key file", "chmod 600 it, and think of the key as known."))
        }
    };
    Ok(("it is there, outside the data directory, and only the server may read it".to_owned(), finding.into_iter().collect()))
}

pub fn transactions(patience: f64) -> Result<Seen> {
    let sees_all = spi::read::<bool>("SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')", &[])?;
    if sees_all != Some(true) {
        let finding = warning(
            "the sessions of other roles cannot be looked at",
            "GRANT pg_read_all_stats TO the role that owns the tables of pg_usher.",
        );
        return Ok((String::new(), vec![finding]));
    }
    let rows = spi::read_all(
        "SELECT a.pid, pg_catalog.concat_ws(', ', a.usename, NULLIF(a.application_name, ''), a.state),
                pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start)::text
           FROM pg_catalog.pg_stat_activity a
          WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
            AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
            AND a.xact_start < pg_catalog.clock_timestamp() - $1 * interval '1 second'
          ORDER BY a.xact_start",
        &[spi::arg(patience)],
        |row| {
            let pid = row.get::<i32>(1)?.unwrap_or(0);
            Ok(warning(
                format!(
                    "pid {pid} ({}) has had a transaction open for {}: what is deleted meanwhile cannot be cleaned up",
                    row.get::<String>(2)?.unwrap_or_default(),
                    row.get::<String>(3)?.unwrap_or_default()
                ),
                format!("End it where it was begun, or SELECT pg_terminate_backend({pid});"),
            ))
        },
    )?;
    Ok(("none has been open for long".to_owned(), listed(rows)))
}

pub fn prepared(patience: f64) -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT p.gid, pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - p.prepared)::text, pg_catalog.quote_literal(p.gid)
           FROM pg_catalog.pg_prepared_xacts p
          WHERE p.database = pg_catalog.current_database() AND p.prepared < pg_catalog.clock_timestamp() - $1 * interval '1 second'
          ORDER BY p.prepared",
        &[spi::arg(patience)],
        |row| {
            let literal = row.get::<String>(3)?.unwrap_or_default();
            Ok(warning(
                format!(
                    "\"{}\" has been prepared for {}: its jobs and its locks wait with it",
                    row.get::<String>(1)?.unwrap_or_default(),
                    row.get::<String>(2)?.unwrap_or_default()
                ),
                format!("Let its coordinator end it, or COMMIT PREPARED {literal}; or ROLLBACK PREPARED {literal};"),
            ))
        },
    )?;
    Ok(("none has waited for long".to_owned(), listed(rows)))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn versions_go_by_their_numbers() {
        assert_eq!(compare("0.10.0", "0.9.1"), Ordering::Greater);
        assert_eq!(compare("0.2.0", "0.2.0"), Ordering::Equal);
        assert!(versions(VERSION).is_none());
        assert!(versions("0.0.1").unwrap().remedy.contains("ALTER EXTENSION"));
        assert!(versions("999.0.0").unwrap().remedy.contains("Restart"));
    }

    fn healthy() -> Workers {
        Workers {
            preloaded: true,
            standby: false,
            listed: true,
            list: "shop".to_owned(),
            launcher: true,
            wanted: 2,
            listening: 2,
            slots_left: 28,
            processes: 8,
            needed: 5,
            taken: 6,
        }
    }

    fn says(seen: &Workers) -> Vec<String> {
        judge(seen).into_iter().map(|finding| format!("{}: {}", finding.state.word(), finding.finding)).collect()
    }

    #[test]
    fn what_is_wrong_with_workers_is_told_apart() {
        assert!(says(&healthy()).is_empty());
        assert!(says(&Workers { preloaded: false, launcher: false, listening: 0, ..healthy() }).is_empty());
        assert!(says(&Workers { standby: true, listening: 0, ..healthy() }).is_empty());
        let cases = [
            (Workers { launcher: false, ..healthy() }, "problem: the launcher"),
            (Workers { listed: false, listening: 0, ..healthy() }, "warning: this database is not in"),
            (Workers { listening: 1, ..healthy() }, "problem: 1 of 2 workers listen"),
            (Workers { listening: 0, slots_left: 0, ..healthy() }, "problem: 0 of 2 workers listen: all 32 slots"),
            (Workers { listening: 0, taken: 8, ..healthy() }, "problem: 0 of 2 workers listen: all 8 background"),
            (Workers { needed: 9, ..healthy() }, "warning: pg_usher needs 9"),
            (Workers { slots_left: 0, ..healthy() }, "warning: all 32 slots"),
        ];
        for (seen, expected) in cases {
            let said = says(&seen);
            assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?} should begin with {expected}");
        }
    }
}
