//! What the demo, the benchmarks and the tests from outside share: databases of their own, waiting, killing.
//!
//! They reach the scratch cluster by PGHOST (a socket directory), PGPORT and PGUSER (a superuser), as
//! `scripts/cluster.sh env` prints them. Each of them works in a database of its own, made anew every time, so that
//! nothing depends on what ran before. A test never waits for a time, only for a condition (see [`wait`]).

pub mod chaos;
pub mod disk;
pub mod faults;
pub mod keyfile;
pub mod page;
pub mod pair;
pub mod postgrest;
pub mod realtime;
pub mod released;
pub mod season;
pub mod server;
pub mod storage;
pub mod storm;
pub mod wait;

pub use postgres::{self, Client, error::SqlState};
pub use serde_json::{self, Value, json};
pub use uuid::{self, Uuid};

use postgres::{Config, NoTls, types::ToSql};
use std::time::Duration;

/// How long a server may take to accept connections again after a crash.
const RECOVERY: Duration = Duration::from_secs(90);
/// How long the workers of a new database may take to arrive; normally about a second.
const ARRIVAL: Duration = Duration::from_secs(60);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: start the scratch cluster and run eval \"$(scripts/cluster.sh env)\" first")
    })
}

/// One attempt to connect, as a superuser (PGUSER) or as another role.
pub fn try_connect(database: &str, user: Option<&str>) -> Result<Client, postgres::Error> {
    open(&variable("PGHOST"), database, user)
}

/// Connects, as a superuser, to a database of another scratch cluster.
#[track_caller]
pub fn connect_to(cluster: &str, database: &str) -> Client {
    open(cluster, database, None).unwrap_or_else(|error| panic!("{cluster}, {database}: {}", wait::describe(&error)))
}

fn open(host: &str, database: &str, user: Option<&str>) -> Result<Client, postgres::Error> {
    Config::new()
        .host(host)
        .port(variable("PGPORT").parse().unwrap_or(5432))
        .user(user.unwrap_or(&variable("PGUSER")))
        .dbname(database)
        .connect_timeout(Duration::from_secs(10))
        .application_name("usher-clients")
        .connect(NoTls)
}

/// Connects; a server that is just recovering from a crash is waited for.
#[track_caller]
pub fn connect(database: &str, user: Option<&str>) -> Client {
    connect_at(&variable("PGHOST"), database, user)
}

#[track_caller]
fn connect_at(host: &str, database: &str, user: Option<&str>) -> Client {
    let mut last = String::new();
    wait::poll(RECOVERY, || match open(host, database, user) {
        Ok(client) => Some(client),
        Err(error) => {
            last = wait::describe(&error);
            // A wrong name does not become right by waiting.
            let hopeless = [SqlState::INVALID_CATALOG_NAME, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
            assert!(error.code().is_none_or(|code| !hopeless.contains(code)), "cannot connect to {database}: {last}");
            None
        }
    })
    .unwrap_or_else(|| panic!("database {database} did not accept a connection within {RECOVERY:?}: {last}"))
}

/// A database with the extension, set up, whose workers listen.
#[derive(Clone)]
pub struct Database {
    pub name: String,
    /// The socket directory of its cluster, which is the cluster's home.
    pub host: String,
}

impl Database {
    /// Makes the database anew. Only `postgres` and this one have workers afterwards: earlier ones no longer compete.
    #[track_caller]
    pub fn create(name: &str) -> Self {
        Self::create_in(&variable("PGHOST"), name)
    }

    /// The same in another scratch cluster.
    #[track_caller]
    pub fn create_in(host: &str, name: &str) -> Self {
        let database = Self::create_empty_in(host, name);
        let mut client = database.connect();
        client.batch_execute("CREATE EXTENSION pg_usher; SELECT usher.setup()").unwrap_or_else(|e| {
            panic!("pg_usher cannot be set up in {name}: {}", wait::describe(&e));
        });
        database.await_workers();
        // Jobs that a worker finds at its first start would run one by one: tests count statements and calls.
        server::does_batches(&mut client);
        database
    }

    /// The database without the extension, in the list of those that get workers.
    #[track_caller]
    pub fn create_empty(name: &str) -> Self {
        Self::create_empty_in(&variable("PGHOST"), name)
    }

    #[track_caller]
    fn create_empty_in(host: &str, name: &str) -> Self {
        let mut admin = connect_at(host, "postgres", None);
        // Known settings to begin with: a test that failed may have left its own behind.
        for setting in [
            "batch_size",
            "workers",
            "callers",
            "claims_roles",
            "history_days",
            "audit_days",
            "notice_failures",
            "notice_window",
            "key_file",
        ] {
            run(&mut admin, &format!("ALTER SYSTEM RESET usher.{setting}"));
        }
        set_databases(&mut admin, "postgres");
        forget_prepared_transactions(&mut admin, host);
        // A worker that was just starting in it may keep the database busy for a moment.
        wait::until(Duration::from_secs(30), &format!("database {name} can be dropped"), || {
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).is_ok()
        });
        run(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE template0"));
        set_databases(&mut admin, &format!("postgres,{name}"));
        Self { name: name.to_owned(), host: host.to_owned() }
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        connect_at(&self.host, &self.name, None)
    }

    /// One attempt, as a superuser.
    pub fn try_connect(&self) -> Result<Client, postgres::Error> {
        open(&self.host, &self.name, None)
    }

    #[track_caller]
    pub fn connect_as(&self, user: &str) -> Client {
        connect_at(&self.host, &self.name, Some(user))
    }

    /// Gives this database the workers again, where another one was made since.
    #[track_caller]
    pub fn take_workers(&self) {
        let mut admin = connect_at(&self.host, "postgres", None);
        let wanted = format!("postgres,{}", self.name);
        if text(&mut admin, "SHOW usher.databases") != wanted {
            set_databases(&mut admin, &wanted);
            self.await_workers();
        }
    }

    /// Waits until every worker of this database listens. Connects anew, so it also waits for a crashed server.
    #[track_caller]
    pub fn await_workers(&self) {
        let mut client = self.connect();
        let wanted: i64 = text(&mut client, "SHOW usher.workers").parse().unwrap_or(2);
        wait::until(ARRIVAL, &format!("{wanted} workers of {} listen", self.name), || {
            let listening = "SELECT count(*) FROM usher.status() WHERE section = 'worker' AND value IN ('waiting', 'working')";
            client.query_one(listening, &[]).is_ok_and(|row| row.get::<_, i64>(0) == wanted)
        });
    }

    /// A connection that is there again after a crash, once the workers are, too.
    #[track_caller]
    pub fn reconnect(&self) -> Client {
        self.await_workers();
        self.connect()
    }
}

fn set_databases(admin: &mut Client, list: &str) {
    run(admin, &format!("ALTER SYSTEM SET usher.databases = '{list}'"));
    reload(admin);
}

/// Makes the server read its settings again.
#[track_caller]
pub fn reload(client: &mut Client) {
    run(client, "SELECT pg_reload_conf()");
}

/// Even FORCE does not drop a database with prepared transactions; and one that a failed test has left in any database holds back
/// the floors and the horizon of all tests after it.
fn forget_prepared_transactions(admin: &mut Client, host: &str) {
    let open = admin.query("SELECT gid, database FROM pg_prepared_xacts", &[]).unwrap_or_default();
    for row in open {
        let (gid, database): (String, String) = (row.get(0), row.get(1));
        run(&mut connect_at(host, &database, None), &format!("ROLLBACK PREPARED '{gid}'"));
    }
}

/// Runs statements that must succeed.
#[track_caller]
pub fn run(client: &mut Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql) {
        panic!("{}\n  in: {sql}", wait::describe(&error));
    }
}

/// Makes a role if it is not there: roles belong to the server and outlive the test databases.
#[track_caller]
pub fn role(client: &mut Client, name: &str, attributes: &str) {
    run(
        client,
        &format!(
            "DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name}; END IF; END $$; ALTER ROLE {name} {attributes}"
        ),
    );
}

/// The one value of a query: text, number, boolean, uuid, jsonb …
#[track_caller]
pub fn value<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str, arguments: &[&(dyn ToSql + Sync)]) -> T {
    match client.query_one(sql, arguments) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{}\n  in: {sql}", wait::describe(&error)),
    }
}

#[track_caller]
pub fn text(client: &mut Client, sql: &str) -> String {
    value::<Option<String>>(client, sql, &[]).unwrap_or_default()
}

/// A count, or any other whole number that the query casts to bigint.
#[track_caller]
pub fn number(client: &mut Client, sql: &str) -> i64 {
    value(client, sql, &[])
}

/// The SQLSTATE, message and the rest of the error that statements must raise.
#[track_caller]
pub fn refused(client: &mut Client, sql: &str) -> postgres::error::DbError {
    match client.batch_execute(sql) {
        Ok(()) => panic!("should have been refused: {sql}"),
        Err(error) => error.as_db_error().cloned().unwrap_or_else(|| panic!("not an answer of the server: {error}\n  in: {sql}")),
    }
}

/// Makes a flow, or replaces it by a new version.
#[track_caller]
pub fn flow(client: &mut Client, name: &str, definition: &Value) {
    let exists = value::<bool>(client, "SELECT EXISTS (SELECT FROM usher.flows WHERE name = $1)", &[&name]);
    let function = if exists { "alter_flow" } else { "create_flow" };
    value::<String>(client, &format!("SELECT usher.{function}($1, $2)"), &[&name, definition]);
}

/// Sends a request as the connection's role and returns the job's id.
#[track_caller]
pub fn enqueue(client: &mut Client, organization: &str, source: &str, target: &str, payload: &Value) -> Uuid {
    value(client, "SELECT id FROM usher.enqueue_sync_job($1, $2, $3, $4)", &[&organization, &source, &target, payload])
}

/// Waits until no job is left that could still run: nothing ready, nothing due, nothing to be tried again.
#[track_caller]
pub fn settled(client: &mut Client, timeout: Duration) {
    wait::until(timeout, "all jobs have ended", || !storage::anything_open(client));
}
