//! Keeps a shop busy for SOAK_SECONDS (600 if not set) while processes die at random, and balances its account after
//! every round: nothing lost, nothing doubled, nothing out of order. Database: `usher_soak`, made anew.
//!
//! SOAK_SEED repeats the choices of an earlier run; the moments at which they hit are never quite the same.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use usher_clients::chaos::{self, Acknowledged, Chance, Writers};
use usher_clients::{Client, Database, reload, run, server, text, wait};

const WRITERS: usize = 4;
/// Writers stop for the account this often.
const ROUND: Duration = Duration::from_secs(60);

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", which is not a number")),
        Err(_) => default,
    }
}

fn main() -> ExitCode {
    let length = Duration::from_secs(setting("SOAK_SECONDS", 600));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = setting("SOAK_SEED", clock);
    println!("soak: {} s with {WRITERS} writers; SOAK_SEED={seed} repeats its choices", length.as_secs());
    match std::panic::catch_unwind(|| soak(length, seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            eprintln!("soak: FAILED; the database usher_soak is left as it is");
            ExitCode::FAILURE
        }
    }
}

fn soak(length: Duration, seed: u64) {
    let database = Database::create("usher_soak");
    chaos::open_shop(&mut database.connect(), 0.0002, 0.3);
    let mut chance = Chance::new(seed);
    let mut acknowledged = Acknowledged::new();
    let mut met = [0_u32; EVENTS.len()];
    let begin = Instant::now();
    let mut round = 0;
    while begin.elapsed() < length {
        round += 1;
        let writers = Writers::start(&database, WRITERS, round);
        let end = (Instant::now() + ROUND).min(begin + length);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(500 + chance.below(2500)));
            let event = chance.below(EVENTS.len() as u64) as usize;
            met[event] += 1;
            (EVENTS[event].1)(&database, &mut chance);
        }
        acknowledged.extend(writers.stop());
        let orders = chaos::balance(&mut database.reconnect(), &acknowledged, Duration::from_secs(300));
        println!(
            "soak: {:>5} s, round {round}: {orders} orders, every one with its effects exactly once",
            begin.elapsed().as_secs()
        );
    }
    let events: Vec<String> = EVENTS.iter().zip(met).map(|((name, _), times)| format!("{times} x {name}")).collect();
    println!("soak: nothing lost, nothing doubled; {}", events.join(", "));
}

type Event = fn(&Database, &mut Chance);

/// What can happen. The first three take the whole server through a crash.
const EVENTS: [(&str, Event); 7] = [
    ("kill -9 of a worker", |database, _| {
        let client = database.connect();
        if let Some(pid) = worker(database) {
            recover(database, client, pid);
        }
    }),
    ("kill -9 of a backend", |database, chance| {
        let client = database.connect();
        let backends = server::backends(database);
        if let Some(pid) = pick(&backends, chance) {
            recover(database, client, pid);
        }
    }),
    ("kill -9 of the postmaster", |database, _| {
        server::kill_postmaster(database);
    }),
    ("immediate stop and start", |database, _| {
        server::crash(database);
    }),
    ("end of a worker by an administrator", |database, chance| {
        let mut client = database.connect();
        let workers = server::workers(&mut client);
        if let Some(pid) = pick(&workers, chance) {
            run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
        }
    }),
    ("end of all sessions", |database, _| chaos::terminate_sessions(database)),
    ("change of the batch size", |database, chance| {
        let mut client = database.connect();
        run(&mut client, &format!("ALTER SYSTEM SET usher.batch_size = {}", 1 + chance.below(1000)));
        reload(&mut client);
    }),
];

fn worker(database: &Database) -> Option<i32> {
    wait::poll(Duration::from_secs(30), || server::worker_of(&mut database.connect(), "normal"))
}

fn recover(database: &Database, mut witness: Client, pid: i32) {
    let mut client = server::kill_and_recover(database, &mut witness, pid);
    assert_eq!(text(&mut client, "SELECT 'up'"), "up");
}

fn pick(pids: &[i32], chance: &mut Chance) -> Option<i32> {
    (!pids.is_empty()).then(|| pids[chance.below(pids.len() as u64) as usize])
}
