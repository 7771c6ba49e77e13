//! A storm over the pack platform, in the manner of Jepsen: eight who write everything at once, and break it, while processes die. Then it must
//! become quiet by itself, and the account must balance (`usher_clients::storm`).
//!
//! STORM_SEED repeats the choices of a run; `make soak` is the long form.

use std::time::Instant;
use usher_clients::chaos::Chance;
use usher_clients::faults::seed;
use usher_clients::storm::{self, KILLS, Storm, TROUBLES};
use usher_clients::{Database, number};

#[test]
fn after_a_storm_everything_holds_and_nothing_is_lost() {
    let seed = seed("STORM_SEED");
    let mut chance = Chance::new(seed);
    let database = Database::create("usher_test_storm");
    storm::open(&database);
    let begin = Instant::now();
    let storm = Storm::begin(&database, seed, 1);
    // One kill and one crash; what a writer meets more often comes twice.
    let mut left: Vec<_> = TROUBLES.iter().chain(&TROUBLES[..2]).chain(&KILLS[..2]).collect();
    while !left.is_empty() {
        let (what, trouble) = left.swap_remove(chance.below(left.len() as u64) as usize);
        println!("{:>5.1?} {what}", begin.elapsed());
        storm.get_on(40);
        trouble(&database, &storm, &mut chance);
    }
    storm.get_on(60);
    let looks = storm.looks();
    let ledger = storm.end();
    let stormy = begin.elapsed();
    let account = storm::balance(&database, &ledger);
    println!(
        "{} deeds committed, {} refused, {} unknown; {} executions, {} transfers, {} repairs by themselves, {looks} looks at the bank; a storm of {stormy:.1?}, quiet after {:.1?} more",
        ledger.committed.len(),
        ledger.refused.len(),
        ledger.unknown.len(),
        account.executions,
        account.transfers,
        account.repairs,
        begin.elapsed() - stormy
    );
    // It was one: nobody stood aside.
    assert!(
        account.transactions as usize >= ledger.committed.len() && ledger.committed.len() > 200,
        "{}",
        ledger.committed.len()
    );
    assert!(ledger.refused.len() > 50 && looks > 50 && account.executions > 20 && account.transfers > 20, "{looks} looks");
    assert!(account.repairs > 0, "rules have repaired by themselves");
    let gate = number(&mut database.connect(), "SELECT count(*) FROM usher.violations WHERE rule = 'storm_bank'");
    assert_eq!(gate, 0, "what nobody could commit was never found");
}
