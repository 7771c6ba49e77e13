//! The measured promises: every figure as a ratio to a baseline of the same run, in the same database.
//!
//! Prints the method and a line for each figure, and writes `target/bench.json`. A gate that is not reached is said, and is no failure: what a
//! machine with few cores shows is for people to judge. Database: `usher_bench`, made anew. With an argument, only the
//! groups whose title contains it are measured, and nothing is written. BENCH_JOBS, BENCH_CHURN, BENCH_WAITING and BENCH_FLOWS make
//! it smaller (see docs/performance.md); what was used is printed and written.

mod audit;
mod capture;
mod compare;
mod decay;
mod drain;
mod enqueue;
mod events;
mod gate;
mod ingestion;
mod inserts;
mod latency;
mod looks;
mod merges;
mod migration;
mod overlaps;
mod peer;
mod pipe;
mod platform;
mod scale;
mod season;
mod showday;
mod tenants;
mod urgent;
mod wal;
mod workflows;

use std::time::Instant;
use usher_clients::serde_json::Map;
use usher_clients::{Client, Database, json, role, run, text};

/// What a ratio should be.
#[derive(Clone, Copy)]
pub enum Gate {
    AtLeast(f64),
    AtMost(f64),
    /// For information: no promise depends on it.
    None,
}

pub struct Figure {
    pub name: String,
    pub value: f64,
    pub baseline: f64,
    pub unit: &'static str,
    pub gate: Gate,
    /// The baseline is a limit that somebody has set, not something measured.
    pub limit: bool,
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, baseline: f64, unit: &'static str, gate: Gate) -> Self {
        Self { name: name.into(), value, baseline, unit, gate, limit: false }
    }

    /// A figure with a limit of its own instead of a baseline.
    pub fn limit(name: impl Into<String>, value: f64, limit: f64, unit: &'static str, gate: Gate) -> Self {
        Self { limit: true, ..Self::new(name, value, limit, unit, gate) }
    }

    fn ratio(&self) -> f64 {
        self.value / self.baseline
    }

    fn reached(&self) -> Option<bool> {
        match self.gate {
            Gate::AtLeast(least) => Some(self.ratio() >= least),
            Gate::AtMost(most) => Some(self.ratio() <= most),
            Gate::None => None,
        }
    }

    fn verdict(&self) -> String {
        let gate = match self.gate {
            Gate::AtLeast(least) => format!("gate >= {least}"),
            Gate::AtMost(most) => format!("gate <= {most}"),
            Gate::None => return String::new(),
        };
        format!("{gate}: {}", if self.reached() == Some(true) { "reached" } else { "NOT REACHED" })
    }
}

/// Prepares the role that all flows here run as: an ordinary one, so that nothing is skipped that others pay for.
pub fn flow_role(client: &mut Client, tables: &str) {
    role(client, "clients_bench", "NOLOGIN");
    run(client, &format!("GRANT SELECT, INSERT ON {tables} TO clients_bench"));
}

/// Both sides of a comparison begin with the same: nothing dirty in memory, no dead rows in the way.
pub fn level(client: &mut Client) {
    run(client, "VACUUM");
    run(client, "CHECKPOINT");
}

/// How many of something, from the environment: smaller runs for a small machine.
pub fn size(name: &str) -> i64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", which is not a number")),
        Err(_) => SIZES.iter().find(|(known, _)| *known == name).expect("a known size").1,
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The highest rate: for sides that cannot be measured in turns.
pub fn best(rates: impl Iterator<Item = f64>) -> f64 {
    rates.fold(f64::NAN, f64::max)
}

type Group = (&'static str, &'static str, fn(&Database) -> Vec<Figure>);

/// What is measured, how, and by whom.
const GROUPS: [Group; 27] = [
    ("a backlog worked off", drain::METHOD, drain::measure),
    ("jobs made", enqueue::METHOD, enqueue::measure),
    ("from the change to its effect", latency::METHOD, latency::measure),
    ("an emergency among others", urgent::METHOD, urgent::measure),
    ("WAL, commits, room", wal::METHOD, wal::measure),
    ("decay under a snapshot", decay::METHOD, decay::snapshot),
    ("decay under an open writer", decay::METHOD, decay::writer),
    ("decay with delayed jobs", decay::METHOD, decay::delayed),
    ("decay with a paused flow", decay::METHOD, decay::paused),
    ("decay under a logical slot", decay::METHOD, decay::slot),
    ("much registered, nothing to do", scale::METHOD, scale::measure),
    ("single-row INSERTs, captured and not", inserts::METHOD, inserts::measure),
    ("many flows on a table, a million rows", capture::METHOD, capture::measure),
    ("ticket revenue taken in and booked", ingestion::METHOD, ingestion::measure),
    ("audit", audit::METHOD, audit::measure),
    ("tenants kept apart", tenants::METHOD, tenants::measure),
    ("events and who listens", events::METHOD, events::measure),
    ("workflows", workflows::METHOD, workflows::measure),
    ("merges", merges::METHOD, merges::measure),
    ("commit gate", gate::METHOD, gate::measure),
    ("incremental looks", looks::METHOD, looks::measure),
    ("overlap rules", overlaps::METHOD, overlaps::measure),
    ("two tables of a million rows reconciled", migration::METHOD, migration::measure),
    ("two tables compared by digests", compare::METHOD, compare::measure),
    ("platform batch", platform::METHOD, platform::measure),
    ("a show day", showday::METHOD, showday::measure),
    ("a season of a million orders", season::METHOD, season::measure),
];

/// The sizes that the environment may change, and their defaults.
const SIZES: [(&str, i64); 12] = [
    ("BENCH_JOBS", 100_000),
    ("BENCH_CHURN", 1_000_000),
    ("BENCH_WAITING", 10_000_000),
    ("BENCH_FLOWS", 10_000),
    ("BENCH_ENTRIES", 1_000_000),
    ("BENCH_ROWS", 1_000_000),
    ("BENCH_COMPARED", 10_000_000),
    ("BENCH_EVENTS", 20_000),
    ("BENCH_SHOW_SECONDS", 300),
    ("BENCH_ORDERS", 1_000_000),
    ("BENCH_BACKFILL", 1_000_000),
    ("BENCH_LOOKED", 2_000_000),
];

fn main() {
    let begin = Instant::now();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let database = Database::create("usher_bench");
    let mut client = database.connect();
    println!("{}", text(&mut client, "SELECT split_part(version(), ' on ', 1)"));
    println!(
        "{} processors; every ratio is pg_usher to the baseline of the same run; {}\n",
        std::thread::available_parallelism().map_or(0, usize::from),
        SIZES.iter().map(|(name, _)| format!("{name}={}", size(name))).collect::<Vec<_>>().join(" ")
    );
    assert_eq!(
        text(&mut client, "SHOW fsync"),
        "on",
        "figures without the disk are none: scripts/cluster.sh restart, without USHER_FSYNC"
    );
    let mut figures = Map::new();
    let mut said = "";
    for (what, method, measure) in GROUPS.iter().filter(|(what, ..)| what.contains(&wanted)) {
        // Groups of one method say it once.
        println!("{what}");
        if std::mem::replace(&mut said, *method) != *method {
            println!("  ({method})");
        }
        for figure in measure(&database) {
            let (name, value, baseline, unit) = (&figure.name, round(figure.value), round(figure.baseline), figure.unit);
            let against = if figure.limit { "limit" } else { "against" };
            println!(
                "  {name:34} {value:>11} {against:>7} {baseline:>11} {unit:8} ratio {:>6.2}   {}",
                figure.ratio(),
                figure.verdict()
            );
            figures.insert(
                figure.name.clone(),
                json!({
                    "value": value, "baseline": baseline, "baseline_is": against, "ratio": round(figure.ratio()), "unit": unit,
                    "gate": figure.verdict(), "reached": figure.reached(), "method": method
                }),
            );
        }
        println!();
    }
    let missed: Vec<&str> = figures.iter().filter(|(_, f)| f["reached"] == json!(false)).map(|(name, _)| name.as_str()).collect();
    println!("gates not reached: {}", if missed.is_empty() { "none".to_owned() } else { missed.join(", ") });
    if !wanted.is_empty() {
        return;
    }
    let sizes: Map<String, _> = SIZES.iter().map(|(name, _)| ((*name).to_owned(), json!(size(name)))).collect();
    let all = json!({
        "server": text(&mut database.connect(), "SELECT version()"),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "sizes": sizes, "seconds": begin.elapsed().as_secs(), "figures": figures
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench.json");
    let text = usher_clients::serde_json::to_string_pretty(&all).expect("figures are JSON");
    std::fs::write(path, text + "\n").unwrap_or_else(|e| panic!("{path} cannot be written: {e}"));
    println!("written to target/bench.json, after {:.0} s", begin.elapsed().as_secs_f64());
}

/// Three decimals are more than any of this is exact to.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
