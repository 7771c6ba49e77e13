//! What released versions left behind (`tests/upgrade/`), loaded as an installation of that version.

use crate::{Client, Database, number, role, run, wait};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const LOADS_VERSION: &str = "CREATE EXTENSION IF NOT EXISTS pg_usher WITH SCHEMA usher";
/// Moves the fixture's times, so that it was always made two hours ago: its history is not old enough to be dropped, and
/// what waits for a time of that day waits no longer. Nothing of the extension fires meanwhile.
const SHIFT: &str = "
    SELECT usher.maintain_history(36500);
    SET LOCAL session_replication_role = replica;
    DO $$
    DECLARE
        shift interval := (SELECT now() - interval '2 hours' - set_up_at FROM usher.installation);
        change record;
    BEGIN
        FOR change IN
            SELECT c.oid::regclass AS relation, string_agg(format('%1$I = %1$I + $1', a.attname), ', ') AS columns
              FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND a.atttypid = 'timestamptz'::regtype AND NOT a.attisdropped
             GROUP BY c.oid
        LOOP
            EXECUTE format('UPDATE %s SET %s', change.relation, change.columns) USING shift;
        END LOOP;
    END
    $$;
    SET LOCAL session_replication_role = origin;";

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn server_program(name: &str) -> PathBuf {
    PathBuf::from(std::env::var("USHER_PGBIN").expect("USHER_PGBIN is set by scripts/cluster.sh env")).join(name)
}

/// The scripts of released versions lie in PostgreSQL's directory for as long as this lives, and no longer.
pub struct Scripts(());

impl Scripts {
    #[track_caller]
    pub fn add() -> Self {
        let output = install("old-add");
        assert!(output.status.success(), "install.sh old-add: {}", String::from_utf8_lossy(&output.stderr));
        Self(())
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        install("old-remove");
    }
}

fn install(action: &str) -> Output {
    Command::new(repository().join("scripts/install.sh"))
        .arg(action)
        .env("PG_CONFIG", server_program("pg_config"))
        .output()
        .expect("scripts/install.sh runs")
}

/// A file below `tests/upgrade/`.
#[track_caller]
pub fn file(name: &str) -> String {
    let path = repository().join("tests/upgrade").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the loaded tables are.
#[derive(Clone, Copy, PartialEq)]
pub enum As {
    /// Another server's, restored here.
    Copy,
    /// This database's own: the dump is only the means to have an installation of that version.
    Home,
}

/// The dump of a version, in a new database with that version's extension and the present library.
#[track_caller]
pub fn load(scripts: &Scripts, version: &str, name: &str, place: As) -> Database {
    let _there = scripts;
    let database = Database::create_empty(name);
    let mut client = database.connect();
    // Roles are not in the dump of a database.
    ["upgrade_books", "usher_live_events", "usher_member"].iter().for_each(|name| role(&mut client, name, "NOLOGIN"));
    // As installing the pack does. Other tests take the role away.
    run(&mut client, "GRANT usher_member TO usher_live_events");
    let dump = file(&format!("{version}/dump.sql"));
    assert!(dump.contains(LOADS_VERSION), "the dump creates the extension");
    let home = "UPDATE usher.installation SET database = (SELECT oid FROM pg_database WHERE datname = current_database());";
    let sql = format!(
        "{}\nRESET search_path;\n{SHIFT}\n{}",
        dump.replace(LOADS_VERSION, &format!("{LOADS_VERSION} VERSION '{version}'")),
        if place == As::Home { home } else { "" }
    );
    // All or nothing: a worker that finds the tables must find them with their times moved.
    let mut psql = Command::new(server_program("psql"))
        .args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", name])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    // A psql that stops early says why by itself.
    let _ = psql.stdin.take().expect("a pipe").write_all(sql.as_bytes());
    let output = psql.wait_with_output().expect("psql ends");
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    database
}

/// Says that this database is where the jobs belong now.
#[track_caller]
pub fn make_home(client: &mut Client) {
    // usher.resume() is younger than the first version that has to be upgraded.
    if number(client, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'usher'::regnamespace AND proname = 'resume'") > 0 {
        run(client, "SELECT usher.resume('moved')");
    } else {
        run(
            client,
            "UPDATE usher.installation SET database = (SELECT oid FROM pg_database WHERE datname = current_database()),
                    system_identifier = (SELECT system_identifier FROM pg_control_system());
             SELECT usher.setup()",
        );
    }
}

/// The catalog as sorted lines (`tests/upgrade/catalog.sql`).
#[track_caller]
pub fn catalog(client: &mut Client) -> Vec<String> {
    match client.query(&file("catalog.sql"), &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("catalog.sql: {}", wait::describe(&error)),
    }
}

/// Lines that only one of both has: `-` is missing, `+` should not be there.
pub fn difference(wanted: &[String], found: &[String]) -> String {
    let missing = wanted.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let surplus = found.iter().filter(|line| !wanted.contains(line)).map(|line| format!("+ {line}"));
    missing.chain(surplus).collect::<Vec<_>>().join("\n")
}
