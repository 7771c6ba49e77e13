//! The short form of the soak: each fault a few times, while a shop is written to, and then its account.
//!
//! FAULTS_SEED repeats the choices of a run. `make soak` is the long form.

use std::time::Duration;
use usher_clients::chaos::{self, Acknowledged, Chance, Writers};
use usher_clients::disk::SmallDisk;
use usher_clients::faults::{Fault, KILLS, TROUBLES, seed};
use usher_clients::pair::Pair;
use usher_clients::{Database, wait};

const WRITERS: usize = 4;
const LONG: Duration = Duration::from_secs(120);

/// All of them, in a random order, each while the writers get on.
fn happen(faults: &[(&str, Fault)]) {
    let mut chance = Chance::new(seed("FAULTS_SEED"));
    let database = Database::create("usher_test_faults");
    chaos::open_shop(&mut database.connect(), 0.0002, 0.3);
    let mut left: Vec<_> = faults.to_vec();
    let writers = Writers::start(&database, WRITERS, 1);
    while !left.is_empty() {
        let (what, fault) = left.swap_remove(chance.below(left.len() as u64) as usize);
        println!("{what}");
        writers.get_on(10);
        fault(&database, &writers, &mut chance);
    }
    writers.get_on(10);
    let acknowledged = writers.stop();
    let orders = chaos::balance(&mut database.reconnect(), &acknowledged, LONG);
    assert!(orders as usize >= acknowledged.len() && orders > 20, "{orders} orders");
}

#[test]
fn kills_at_random_lose_and_double_nothing() {
    let twice: Vec<(&str, Fault)> = KILLS.iter().chain(&KILLS[..3]).copied().collect();
    happen(&twice);
}

#[test]
fn sessions_and_batches_that_are_ended_lose_and_double_nothing() {
    happen(&TROUBLES);
}

#[test]
fn a_promoted_standby_goes_on_where_the_primary_was() {
    let mut pair = Pair::start("usher_test_pair");
    chaos::open_shop(&mut pair.database.connect(), 0.0002, 0.3);
    let writers = Writers::start(&pair.database, WRITERS, 1);
    writers.get_on(20);
    let mut client = pair.fail_over(|database| writers.move_to(database));
    writers.get_on(20);
    let acknowledged: Acknowledged = writers.stop();
    let orders = chaos::balance(&mut client, &acknowledged, LONG);
    assert!(orders as usize >= acknowledged.len() && orders > 20, "{orders} orders");
}

#[test]
fn a_full_disk_under_the_wal_loses_and_doubles_nothing() {
    let disk = match SmallDisk::mount("usher_test_disk") {
        Ok(disk) => disk,
        Err(why) => {
            println!("passed over, a small disk cannot be mounted here: {why}");
            return;
        }
    };
    chaos::open_shop(&mut disk.database.connect(), 0.0002, 0.3);
    let writers = Writers::start(&disk.database, WRITERS, 1);
    writers.get_on(20);
    disk.fill();
    disk.make_room();
    writers.get_on(20);
    let acknowledged = writers.stop();
    let mut client = disk.database.reconnect();
    let orders = chaos::balance(&mut client, &acknowledged, LONG);
    assert!(orders as usize >= acknowledged.len(), "{}", wait::jobs(&mut client));
}
