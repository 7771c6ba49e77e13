//! A storm over the pack platform: writers who do everything at once, also what they should not, while processes die, and the account
//! that must balance once it is quiet: every rule holds, and whatever was committed has its effects, once.
//!
//! Used by `tests/storm.rs` (short) and by the soak (long). Two organizations share four systems and a bank whose accounts a rule guards at
//! COMMIT. What the writers did is in a ledger of their own, written with it; what they were told of it, they keep in memory.

mod account;
mod stage;
mod writer;

pub use account::{Account, balance};
pub use stage::open;
pub use writer::Ledger;

use crate::chaos::Chance;
use crate::faults::pick;
use crate::{Client, Database, number, reload, run, server, wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Those who write.
pub const WRITERS: u64 = 8;
const ORGANIZATIONS: [&str; 2] = ["north", "south"];
/// The rules of the pack, which repair by themselves.
const RULES: [&str; 4] = [
    "completed_execution_has_package",
    "installation_has_configuration",
    "package_holds_module_data",
    "workflow_has_activations",
];

/// What everybody shares while it lasts.
struct Shared {
    database: Database,
    stop: AtomicBool,
    /// Transactions that were acknowledged.
    commits: AtomicU32,
    /// Snapshots in which the bank was in order.
    looks: AtomicU32,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Writers and a reader that go on until they are stopped, whatever happens to the server.
pub struct Storm {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Ledger>>,
    reader: JoinHandle<()>,
}

impl Storm {
    /// `round` keeps what is written by one storm apart from that of another in the same database.
    pub fn begin(database: &Database, seed: u64, round: u64) -> Self {
        let shared = Arc::new(Shared {
            database: database.clone(),
            stop: AtomicBool::new(false),
            commits: AtomicU32::new(0),
            looks: AtomicU32::new(0),
        });
        let writers = (1..=WRITERS)
            .map(|number| {
                let shared = shared.clone();
                thread::spawn(move || writer::write(&shared, seed, round * 100 + number))
            })
            .collect();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || watch(&shared))
        };
        Self { shared, writers, reader }
    }

    /// Waits until so many more transactions have been acknowledged.
    #[track_caller]
    pub fn get_on(&self, commits: u32) {
        let wanted = self.shared.commits.load(Ordering::Relaxed) + commits;
        wait::until(Duration::from_secs(120), "the writers get on", || {
            self.shared.commits.load(Ordering::Relaxed) >= wanted || self.writers.iter().any(JoinHandle::is_finished)
        });
        assert!(!self.writers.iter().any(JoinHandle::is_finished), "a writer has given up");
    }

    /// How often the bank was looked at, and in order, so far.
    pub fn looks(&self) -> u32 {
        self.shared.looks.load(Ordering::Relaxed)
    }

    /// Ends it, and returns what the writers know.
    #[track_caller]
    pub fn end(self) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for writer in self.writers {
            ledger.add(writer.join().expect("a writer has panicked"));
        }
        self.reader.join().expect("the bank was not in order in some snapshot");
        ledger
    }
}

/// The bank in one snapshot after the other: no sum of an owner below zero, and all the money that there ever was.
fn watch(shared: &Shared) {
    let sql = "SELECT (SELECT count(*) FROM (SELECT FROM public.storm_accounts GROUP BY organization_id, owner HAVING sum(balance) < 0) AS b),
                      (SELECT sum(balance)::bigint FROM public.storm_accounts)";
    while !shared.stopped() {
        let Ok(mut client) = shared.database.try_connect() else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !shared.stopped() {
            if client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").is_err() {
                break;
            }
            let Ok(row) = client.query_one(sql, &[]) else { break };
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                (0, stage::MONEY),
                "owners below zero, and the money there is"
            );
            shared.looks.fetch_add(1, Ordering::Relaxed);
            if client.batch_execute("COMMIT").is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One of them happens to the database while they write.
pub type Trouble = fn(&Database, &Storm, &mut Chance);

/// What ends the whole server.
pub const KILLS: [(&str, Trouble); 3] = [
    ("kill -9 of a worker", |database, _, _| {
        let mut client = database.connect();
        let pid = wait::poll(wait::LONG, || server::worker_of(&mut database.connect(), "normal"));
        server::kill_and_recover(database, &mut client, pid.expect("a worker serves the normal lane"));
    }),
    ("immediate stop and start", |database, _, _| {
        server::spare_the_suspect(&mut database.connect());
        server::crash(database);
    }),
    ("kill -9 of a writer's backend", |database, storm, chance| {
        storm.get_on(1);
        let pid = wait::poll(wait::LONG, || pick(&server::backends(database), chance));
        server::kill_and_recover(database, &mut database.connect(), pid.expect("somebody is connected"));
    }),
];

/// What a server lives through.
pub const TROUBLES: [(&str, Trouble); 6] = [
    ("end of a writer's session", |database, _, chance| {
        let mut client = database.connect();
        if let Some(pid) = pick(&server::backends(database), chance) {
            // It may be this very session's neighbour that has just ended, or the one that was made to look.
            let _ = client.batch_execute(&format!("SELECT pg_terminate_backend({pid})"));
        }
    }),
    ("cancelling what a writer does", |database, _, chance| {
        let mut client = database.connect();
        if let Some(pid) = pick(&server::backends(database), chance) {
            let _ = client.batch_execute(&format!("SELECT pg_cancel_backend({pid})"));
        }
    }),
    ("end of a worker by an administrator", |database, _, chance| {
        let mut client = database.connect();
        let workers = server::workers(&mut client);
        if let Some(pid) = pick(&workers, chance) {
            run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
        }
    }),
    ("a pause of all flows of an organization", |database, storm, chance| {
        let organization = ORGANIZATIONS[chance.below(2) as usize];
        run(&mut database.connect(), &format!("SELECT usher.pause_jobs(organization => '{organization}')"));
        storm.get_on(15);
        run(&mut database.connect(), &format!("SELECT usher.resume_jobs(organization => '{organization}')"));
    }),
    ("a worker that is held", |database, storm, _| {
        let mut holder = database.connect();
        run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal'), usher.hold_lane('high')");
        storm.get_on(15);
        run(&mut holder, "ROLLBACK");
    }),
    ("a change of the batch size", |database, _, chance| {
        let mut client = database.connect();
        run(&mut client, &format!("ALTER SYSTEM SET usher.batch_size = {}", 1 + chance.below(500)));
        reload(&mut client);
    }),
];

fn slug(writer: u64) -> &'static str {
    ORGANIZATIONS[(writer % 2) as usize]
}

fn login(slug: &str) -> String {
    format!("clients_storm_{slug}")
}

/// How many rows a query finds; used on what must be nothing.
fn rows(client: &mut Client, sql: &str) -> i64 {
    number(client, &format!("SELECT count(*) FROM ({sql}) AS q"))
}
