//! Keeps a shop busy while processes die, servers are lost and a disk runs full, and balances its account again and again:
//! nothing lost, nothing doubled, nothing out of order, and nobody had to help.
//!
//! SOAK_KILLS (200), SOAK_PROMOTIONS (20) and SOAK_DISK_FULL (3) say how often; SOAK_SECONDS how long at least the kills and
//! smaller troubles go on, SOAK_STORM (300) how many seconds there is a storm over the pack platform. SOAK_SEED repeats the choices of an earlier run; the moments at which they hit are never quite
//! the same. Database: `usher_soak`, made anew; the pair of servers and the one with the small disk are beside the scratch cluster.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use usher_clients::Database;
use usher_clients::chaos::{self, Acknowledged, Chance, Writers};
use usher_clients::disk::SmallDisk;
use usher_clients::faults::{KILLS, TROUBLES, seed};
use usher_clients::pair::Pair;
use usher_clients::storm::{self, Storm};

const WRITERS: usize = 4;
/// Faults until writers stop for the account.
const ROUND: u64 = 20;
const LONG: Duration = Duration::from_secs(300);

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", which is not a number")),
        Err(_) => default,
    }
}

fn main() -> ExitCode {
    let begin = Instant::now();
    let seed = seed("SOAK_SEED");
    let parts = [("kills", kills as fn(u64)), ("storms", storms), ("promotions", promotions), ("full disks", full_disks)];
    for (part, play) in parts {
        println!("soak: {part}");
        if std::panic::catch_unwind(|| play(seed)).is_err() {
            eprintln!("soak: FAILED at {part}; the server and its database are left as they are");
            return ExitCode::FAILURE;
        }
    }
    println!("soak: nothing lost, nothing doubled, nothing out of order, in {} s", begin.elapsed().as_secs());
    ExitCode::SUCCESS
}

/// Kills and lesser troubles in turn, at random moments.
fn kills(seed: u64) {
    let wanted = setting("SOAK_KILLS", 200);
    let length = Duration::from_secs(setting("SOAK_SECONDS", 0));
    let database = Database::create("usher_soak");
    chaos::open_shop(&mut database.connect(), 0.0002, 0.3);
    let mut chance = Chance::new(seed);
    let mut acknowledged = Acknowledged::new();
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    let begin = Instant::now();
    let (mut killed, mut round) = (0, 0);
    while killed < wanted || begin.elapsed() < length {
        round += 1;
        let writers = Writers::start(&database, WRITERS, round);
        for _ in 0..ROUND {
            std::thread::sleep(Duration::from_millis(chance.below(1500)));
            let (name, fault) = if chance.below(3) > 0 {
                killed += 1;
                KILLS[chance.below(KILLS.len() as u64) as usize]
            } else {
                TROUBLES[chance.below(TROUBLES.len() as u64) as usize]
            };
            *met.entry(name).or_default() += 1;
            fault(&database, &writers, &mut chance);
        }
        acknowledged.extend(writers.stop());
        let orders = chaos::balance(&mut database.reconnect(), &acknowledged, LONG);
        println!(
            "soak: {:>5} s, {killed} kills: {orders} orders, every one with its effects exactly once",
            begin.elapsed().as_secs()
        );
    }
    for (name, times) in met {
        println!("soak: {times:>4} x {name}");
    }
}

/// A storm over the pack platform, with kills; it becomes quiet every minute, and every rule must hold and every effect be there once.
fn storms(seed: u64) {
    let wanted = Duration::from_secs(setting("SOAK_STORM", 300));
    if wanted.is_zero() {
        return;
    }
    let database = Database::create("usher_soak");
    storm::open(&database);
    let mut chance = Chance::new(seed);
    let mut ledger = storm::Ledger::default();
    let begin = Instant::now();
    let (mut killed, mut round) = (0, 0);
    while begin.elapsed() < wanted {
        round += 1;
        let storm = Storm::begin(&database, seed, round);
        let stormy = Instant::now();
        while stormy.elapsed() < Duration::from_secs(60).min(wanted) {
            storm.get_on(1 + chance.below(40) as u32);
            let (_, trouble) = if chance.below(4) == 0 {
                killed += 1;
                storm::KILLS[chance.below(storm::KILLS.len() as u64) as usize]
            } else {
                storm::TROUBLES[chance.below(storm::TROUBLES.len() as u64) as usize]
            };
            trouble(&database, &storm, &mut chance);
        }
        ledger.add(storm.end());
        let account = storm::balance(&database, &ledger);
        println!(
            "soak: {:>5} s, {killed} kills: {} transactions, {} repairs by themselves; every rule holds, and every effect is there once",
            begin.elapsed().as_secs(),
            account.transactions,
            account.repairs
        );
    }
}

/// The primary is lost again and again; the standby takes its place, and it the standby's.
fn promotions(seed: u64) {
    let wanted = setting("SOAK_PROMOTIONS", 20);
    if wanted == 0 {
        return;
    }
    let mut pair = Pair::start("usher_soak");
    chaos::open_shop(&mut pair.database.connect(), 0.0002, 0.3);
    let mut chance = Chance::new(seed);
    let mut acknowledged = Acknowledged::new();
    for promotion in 1..=wanted {
        let writers = Writers::start(&pair.database, WRITERS, promotion as usize);
        writers.get_on(10);
        std::thread::sleep(Duration::from_millis(chance.below(3000)));
        let mut client = pair.fail_over(|database| writers.move_to(database));
        writers.get_on(10);
        acknowledged.extend(writers.stop());
        let orders = chaos::balance(&mut client, &acknowledged, LONG);
        println!("soak: {promotion} promotions: {orders} orders, every one with its effects exactly once");
    }
}

fn full_disks(_seed: u64) {
    let wanted = setting("SOAK_DISK_FULL", 3);
    if wanted == 0 {
        return;
    }
    let disk = match SmallDisk::mount("usher_soak") {
        Ok(disk) => disk,
        Err(why) => return println!("soak: passed over, a small disk cannot be mounted here: {why}"),
    };
    chaos::open_shop(&mut disk.database.connect(), 0.0002, 0.3);
    let mut acknowledged = Acknowledged::new();
    for time in 1..=wanted {
        let writers = Writers::start(&disk.database, WRITERS, time as usize);
        writers.get_on(20);
        disk.fill();
        disk.make_room();
        writers.get_on(20);
        acknowledged.extend(writers.stop());
        let orders = chaos::balance(&mut disk.database.reconnect(), &acknowledged, LONG);
        println!("soak: full {time} times: {orders} orders, every one with its effects exactly once");
    }
}
