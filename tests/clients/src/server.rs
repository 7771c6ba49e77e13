//! The processes of the scratch cluster: finding them, killing them, and the way back.

use crate::{Database, variable, wait};
use postgres::Client;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Worker processes of the connection's database.
#[track_caller]
pub fn workers(client: &mut Client) -> Vec<i32> {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'usher worker' AND datname = current_database() ORDER BY pid";
    match client.query(sql, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("workers cannot be listed: {}", wait::describe(&error)),
    }
}

/// The worker that serves a lane, by what `usher.status()` says.
pub fn worker_of(client: &mut Client, lane: &str) -> Option<i32> {
    let sql = "SELECT substring(note FROM 'pid ([0-9]+)')::integer FROM usher.status()
                WHERE section = 'worker' AND $1 = ANY (string_to_array(item, ', '))";
    client.query_opt(sql, &[&lane]).ok().flatten().and_then(|row| row.get(0))
}

/// SIGKILL: the process gets no chance to tidy up.
///
/// By the shell's own kill, which needs neither `unsafe` nor a crate; a process that is gone already is no error.
pub fn kill(pid: i32) {
    let _ = Command::new("sh").args(["-c", &format!("kill -9 {pid} 2>/dev/null")]).status();
}

/// Waits until no job of the client's database has been in the middle of two ends of the server: a third would be taken for
/// its own doing, and put it aside. The worker of the normal lane must have begun: it writes down whose end the last one was.
#[track_caller]
pub fn spare_the_suspect(client: &mut Client) {
    wait::until_true(
        client,
        "SELECT EXISTS (SELECT FROM usher.worker_marks WHERE lanes & 8 <> 0) AND NOT EXISTS (SELECT FROM usher.job_intents WHERE crashes >= 2)",
    );
}

/// Waits until both workers of a new database do batches. One that finds jobs at its first start cannot know that none of them has ended a
/// server before: it does them one by one, each in a transaction of its own.
#[track_caller]
pub fn does_batches(client: &mut Client) {
    wait::until_true(client, "SELECT coalesce(NOT bool_or(careful), false) AND count(*) = 2 FROM usher.worker_marks");
}

/// Kills a process with `kill -9` and returns when the server has noticed, restarted all its processes and has its
/// workers again; it spares the suspect. `witness` is a connection that the crash must end: that is how "noticed" is known.
#[track_caller]
pub fn kill_and_recover(database: &Database, witness: &mut Client, pid: i32) -> Client {
    spare_the_suspect(witness);
    kill(pid);
    wait::until(Duration::from_secs(60), "the server has noticed the death of one of its processes", || {
        witness.batch_execute("SELECT 1").is_err()
    });
    database.reconnect()
}

/// Stops the server without a checkpoint, as a power failure would, and starts it again.
#[track_caller]
pub fn crash(database: &Database) -> Client {
    cluster_in(&database.host, &["stop", "immediate"], None);
    cluster_in(&database.host, &["start"], None);
    database.reconnect()
}

/// Kills the postmaster itself, waits until its children are gone, and starts the server again.
#[track_caller]
pub fn kill_postmaster(database: &Database) -> Client {
    kill(postmaster(&database.host).unwrap_or_else(|| panic!("{} has no server", database.host)));
    // cluster.sh waits until the shared memory is free.
    cluster_in(&database.host, &["start"], None);
    database.reconnect()
}

/// The first process of the server in a cluster's home, as its pid file names it.
pub fn postmaster(home: &str) -> Option<i32> {
    std::fs::read_to_string(format!("{home}/data/postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// Kills a whole server at once, as when its machine is lost, and returns when none of its processes is left.
#[track_caller]
pub fn lose(home: &str) {
    let first = postmaster(home).unwrap_or_else(|| panic!("{home} has no server"));
    let mut processes = vec![first];
    processes.extend(children(first));
    processes.iter().for_each(|pid| kill(*pid));
    wait::until(Duration::from_secs(60), "a killed server is gone", || processes.iter().all(|pid| gone(*pid)));
}

fn children(parent: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| status(*pid, "PPid:") == Some(parent.to_string()))
        .collect()
}

/// Gone, or only not yet taken note of by its parent.
fn gone(pid: i32) -> bool {
    status(pid, "State:").is_none_or(|state| state.starts_with('Z'))
}

fn status(pid: i32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
}

/// scripts/cluster.sh, for the very cluster that the environment describes.
#[track_caller]
pub fn cluster(arguments: &[&str]) {
    cluster_in(&variable("PGHOST"), arguments, None);
}

/// scripts/cluster.sh for the cluster in a folder, with the programs of another PostgreSQL if one is named.
#[track_caller]
pub fn cluster_in(home: &str, arguments: &[&str], pg_config: Option<&str>) {
    let mut command = Command::new(variable("USHER_CLUSTER"));
    let own = format!("{}/pg_config", variable("USHER_PGBIN"));
    // PG_CONFIG alone says which PostgreSQL: the tests may have been asked for another by PG.
    command.args(arguments).env("USHER_HOME", home).env("PG_CONFIG", pg_config.unwrap_or(&own)).env_remove("PG");
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "cluster.sh {} failed: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{} cannot be run: {error}", variable("USHER_CLUSTER")),
    }
}

/// A streaming standby of the scratch cluster, in a short directory beside it; stopped and removed when dropped.
pub struct Standby {
    home: String,
}

impl Standby {
    /// Copies the running cluster and starts the copy as its hot standby.
    #[track_caller]
    pub fn start() -> Self {
        let standby = Self { home: format!("{}.s", variable("PGHOST")) };
        standby.remove();
        let home = &standby.home;
        let (own, bin) = (variable("PGHOST"), variable("USHER_PGBIN"));
        // The files belong to the user that the scratch cluster runs as, who is not always the one who runs the tests.
        let script = format!(
            "set -e; own() {{ if [ \"$(id -un)\" = \"$(stat -c %U '{own}/data')\" ]; then \"$@\"; else setpriv --reuid=\"$(stat -c %u '{own}/data')\" \
                 --regid=\"$(stat -c %g '{own}/data')\" --clear-groups \"$@\"; fi; }}
             mkdir -m 700 '{home}'; chown --reference='{own}/data' '{home}'
             cd '{home}'; own '{bin}/pg_basebackup' -h '{own}' -D '{home}/data' -R -X stream -c fast
             echo \"unix_socket_directories = '{home}'\" >>'{home}/data/postgresql.auto.conf'
             own '{bin}/pg_ctl' start -D '{home}/data' -l '{home}/log' -w -t 600 >/dev/null </dev/null"
        );
        let output = Command::new("bash").args(["-c", &script]).output().expect("bash runs");
        assert!(output.status.success(), "the standby: {}", String::from_utf8_lossy(&output.stderr));
        standby
    }

    /// Its socket directory.
    pub fn home(&self) -> &str {
        &self.home
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(format!("{}/log", self.home)).unwrap_or_default()
    }

    fn remove(&self) {
        let home = &self.home;
        let script = format!(
            "[ -e '{home}/data' ] || exit 0
             pid=$(head -n 1 '{home}/data/postmaster.pid' 2>/dev/null) && kill -QUIT \"$pid\" 2>/dev/null
             while [ -e '{home}/data/postmaster.pid' ] && kill -0 \"$pid\" 2>/dev/null; do sleep 0.1; done
             rm -rf '{home}'"
        );
        let _ = Command::new("bash").args(["-c", &script]).status();
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Other sessions of the database: victims for `kill -9` and for pg_terminate_backend.
pub fn backends(database: &Database) -> Vec<i32> {
    let Ok(mut client) = database.try_connect() else { return Vec::new() };
    client
        .query(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            &[&database.name],
        )
        .map(|rows| rows.iter().map(|row| row.get(0)).collect())
        .unwrap_or_default()
}

fn program(name: &str) -> Command {
    let folder = variable("USHER_PGBIN");
    Command::new(format!("{folder}/{name}"))
}

/// `pg_dump from | psql to`, stopping at the first error. Nobody is warned of what is just being restored.
#[track_caller]
pub fn copy_database(from: &str, to: &str) {
    let mut dump = program("pg_dump").arg(from).stdout(Stdio::piped()).spawn().expect("pg_dump runs");
    let output = program("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", to])
        .stdin(dump.stdout.take().expect("a pipe"))
        .output()
        .expect("psql runs");
    let dumped = dump.wait().expect("pg_dump ends");
    // psql first: when it stops early, pg_dump only reports a broken pipe.
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    assert!(dumped.success(), "pg_dump has failed");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "what psql was told");
}
