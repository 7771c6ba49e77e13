//! What can happen to a server while it is written to; for the soak and for its short form in `tests/faults.rs`.

use crate::chaos::{self, Chance, Writers};
use crate::{Client, Database, reload, run, server, wait};
use std::time::Duration;

/// One of them happens: to this database, while these write.
pub type Fault = fn(&Database, &Writers, &mut Chance);

/// The `kill -9`s. All take the whole server through a crash: it ends its other processes and recovers.
pub const KILLS: [(&str, Fault); 4] = [
    ("kill -9 of a worker", |database, _, _| {
        let client = database.connect();
        let pid = wait::poll(wait::LONG, || server::worker_of(&mut database.connect(), "normal"));
        recover(database, client, pid.expect("a worker serves the normal lane"));
    }),
    ("kill -9 of a client's backend", |database, writers, chance| {
        writers.get_on(1);
        // Of those that write, if they have not ended just now.
        let pid = wait::poll(wait::LONG, || pick(&server::backends(database), chance));
        recover(database, database.connect(), pid.expect("somebody is connected"));
    }),
    ("kill -9 of the postmaster", |database, _, _| {
        server::spare_the_suspect(&mut database.connect());
        server::kill_postmaster(database);
    }),
    ("immediate stop and start", |database, _, _| {
        server::spare_the_suspect(&mut database.connect());
        server::crash(database);
    }),
];

/// What a server lives through.
pub const TROUBLES: [(&str, Fault); 5] = [
    ("end of a worker by an administrator", |database, _, chance| {
        let mut client = database.connect();
        let workers = server::workers(&mut client);
        if let Some(pid) = pick(&workers, chance) {
            run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
        }
    }),
    ("cancelling what a worker does", |database, _, chance| {
        let mut client = database.connect();
        let workers = server::workers(&mut client);
        if let Some(pid) = pick(&workers, chance) {
            run(&mut client, &format!("SELECT pg_cancel_backend({pid})"));
        }
    }),
    ("end of all sessions", |database, _, _| chaos::terminate_sessions(database)),
    ("a change of the batch size", |database, _, chance| {
        let mut client = database.connect();
        run(&mut client, &format!("ALTER SYSTEM SET usher.batch_size = {}", 1 + chance.below(1000)));
        reload(&mut client);
    }),
    ("statement timeouts of 1 ms", |database, writers, _| {
        let mut client = database.connect();
        run(&mut client, "SET statement_timeout = 0");
        let before = writers.timeouts();
        run(&mut client, "ALTER SYSTEM SET statement_timeout = '1ms'");
        reload(&mut client);
        // Also a fast machine commits none of these within a millisecond for long.
        let hit = wait::poll(wait::LONG, || (writers.timeouts() > before).then_some(()));
        run(&mut client, "ALTER SYSTEM RESET statement_timeout");
        reload(&mut client);
        assert!(hit.is_some(), "no statement of the writers was ended by its timeout");
    }),
];

/// Kills a process, waits until the server is there again, with its workers.
fn recover(database: &Database, mut witness: Client, pid: i32) {
    let mut client = server::kill_and_recover(database, &mut witness, pid);
    assert_eq!(crate::text(&mut client, "SELECT 'up'"), "up");
}

pub fn pick(pids: &[i32], chance: &mut Chance) -> Option<i32> {
    (!pids.is_empty()).then(|| pids[chance.below(pids.len() as u64) as usize])
}

/// The seed of this run's choices: `name` repeats an earlier one. It is said, so that it can be.
pub fn seed(name: &str) -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or(Duration::from_secs(1));
    let seed = match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", which is not a number")),
        Err(_) => clock.as_secs(),
    };
    println!("{name}={seed} repeats the choices of this run");
    seed
}
