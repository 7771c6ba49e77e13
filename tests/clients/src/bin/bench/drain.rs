//! How fast a backlog is worked off, with one INSERT for each job and with no effect at all.

use crate::pipe::{self, Pipe};
use crate::{Figure, Gate, median, peer, size};
use usher_clients::Database;

pub const METHOD: &str = "a backlog of 100,000 jobs of about 200 bytes, worker held until it is there; from its release until the last \
effect is seen, with history. By hand: DELETE … FOR UPDATE SKIP LOCKED and INSERT … SELECT in batches of 1000 in one PL/pgSQL \
session, no history. PgQ: one tick, one batch, one transaction. One worker serves the lane, so it is one process against one. \
Rounds interleaved, median of 5. The no-op drain: a condition that holds for the last job only";

const ROUNDS: usize = 5;

pub fn measure(database: &Database) -> Vec<Figure> {
    let jobs = size("BENCH_JOBS");
    let mut client = database.connect();
    let here = &mut client;
    pipe::prepare_by_hand(here);
    let effect = Pipe::create(here, "drain", false);
    let noop = Pipe::create(here, "drain_noop", true);
    let has_peer = peer::prepare(here);
    let mut rates: [Vec<f64>; 6] = Default::default();
    for round in 0..ROUNDS {
        if round == 0 {
            // Once it is made sure that "held" is true: everything is there before anything is done.
            let holder = effect.fill(database, here, jobs);
            pipe::assert_held(here, jobs);
            effect.drain(here, holder, jobs);
        }
        rates[0].push(pipe::round_by_hand(here, "drain", jobs));
        rates[1].push(effect.round(database, here, jobs));
        if has_peer {
            rates[2].push(peer::round(here, jobs, true));
        }
        rates[3].push(pipe::round_by_hand(here, "drain_noop", jobs));
        rates[4].push(noop.round(database, here, jobs));
        if has_peer {
            rates[5].push(peer::round(here, jobs, false));
        }
    }
    effect.close(here);
    noop.close(here);
    let [hand, ours, theirs, hand_noop, ours_noop, theirs_noop] =
        rates.map(|list| if list.is_empty() { f64::NAN } else { median(list) });
    let mut figures = vec![Figure::new("drain", ours, hand, "jobs/s", Gate::AtLeast(0.9))];
    if has_peer {
        figures.push(Figure::new("drain_against_pgq", ours, theirs, "jobs/s", Gate::AtLeast(1.0)));
    }
    figures.push(Figure::new("drain_noop", ours_noop, hand_noop, "jobs/s", Gate::None));
    if has_peer {
        figures.push(Figure::new("drain_noop_against_pgq", ours_noop, theirs_noop, "jobs/s", Gate::None));
    }
    figures
}
