//! The key file of a test, and looking everywhere for what must be nowhere in clear text.

use crate::{Client, Database, reload, run, value, wait};
use std::fs;
use std::process::Command;

/// The key file, outside the data directory; gone when the test is over.
pub struct KeyFile(pub String);

impl KeyFile {
    /// With one key, named `first`.
    pub fn new(client: &mut Client, name: &str) -> Self {
        let file = Self(format!("{}/usher-{name}-keys", crate::variable("PGHOST")));
        file.write(client, &[("first", '1')]);
        run(client, &format!("ALTER SYSTEM SET usher.key_file = '{}'", file.0));
        reload(client);
        wait::until_true(client, &format!("SELECT current_setting('usher.key_file') = '{}'", file.0));
        file
    }

    /// Written by the server, whose file it must be.
    pub fn write(&self, client: &mut Client, keys: &[(&str, char)]) {
        let lines: Vec<String> = if keys.is_empty() { vec!["('# nothing')".to_owned()] } else { Vec::new() };
        let lines: Vec<String> = lines
            .into_iter()
            .chain(keys.iter().map(|(id, digit)| format!("('{id} {}')", digit.to_string().repeat(64))))
            .collect();
        run(client, &format!("COPY (VALUES {}) TO PROGRAM 'umask 077; cat >{}'", lines.join(", "), self.0));
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        if let Ok(mut client) = crate::try_connect("postgres", None) {
            let _ = client.batch_execute("ALTER SYSTEM RESET usher.key_file");
            let _ = client.batch_execute("SELECT pg_reload_conf()");
        }
    }
}

/// Where the server's log ends now.
pub fn log_end() -> usize {
    fs::metadata(crate::variable("USHER_LOG")).map_or(0, |log| usize::try_from(log.len()).unwrap_or(0))
}

/// What the server has logged since then. It writes before it answers.
pub fn log_since(begin: usize) -> String {
    let bytes = fs::read(crate::variable("USHER_LOG")).expect("the server's log can be read");
    String::from_utf8_lossy(&bytes[begin.min(bytes.len())..]).into_owned()
}

pub fn dump(database: &Database) -> String {
    let dump = Command::new(format!("{}/pg_dump", crate::variable("USHER_PGBIN")))
        .args(["-h", &database.host, "-U", "postgres", &database.name])
        .output()
        .expect("pg_dump runs");
    assert!(dump.status.success() && dump.stdout.len() > 10_000, "{}", String::from_utf8_lossy(&dump.stderr));
    String::from_utf8_lossy(&dump.stdout).into_owned()
}

/// The marker is in no table or view of the database, in no statement that the server remembers, in no line of the log since
/// `begin`, in no dump.
pub fn assert_nowhere(database: &Database, client: &mut Client, marker: &str, begin: usize) {
    let tables: Vec<String> = client
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'm', 'v') AND (n.nspname IN ('usher', 'public')
                    OR c.relname IN ('pg_proc', 'pg_settings', 'pg_db_role_setting', 'pg_description', 'pg_trigger', 'pg_statistic', 'pg_constraint'))",
            &[],
        )
        .expect("tables can be listed")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(tables.len() > 30, "{tables:?}");
    for table in tables {
        let found: i64 =
            value(client, &format!("SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%'"), &[&marker]);
        assert_eq!(found, 0, "{table}");
    }
    if crate::text(client, "SHOW shared_preload_libraries").contains("pg_stat_statements") {
        run(client, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
        let remembered = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%' || $1 || '%'";
        assert!(value::<i64>(client, remembered, &[&"usher."]) > 0, "statements are remembered");
        assert_eq!(value::<i64>(client, remembered, &[&marker]), 0, "pg_stat_statements");
    }
    let lines = log_since(begin);
    assert_eq!(lines.lines().find(|line| line.contains(marker)), None);
    assert!(!dump(database).contains(marker), "the dump");
}

/// Nor in the files of the server: data, WAL, statistics.
pub fn assert_in_no_file(client: &mut Client, marker: &str) {
    run(client, "CHECKPOINT");
    let found = Command::new("grep").args(["-rlaF", marker, &crate::variable("USHER_DATA")]).output().expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files of the server");
}
