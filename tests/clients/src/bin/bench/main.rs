//! The measured promises: every figure as a ratio to a baseline of the same run, in the same database.
//!
//! Prints a line for each and writes `target/bench.json`. A gate that is not reached is said, and is no failure: what a
//! machine with few cores shows is for people to judge. Database: `usher_bench`, made anew. With an argument, only the
//! groups whose title contains it are measured, and nothing is written.

mod drain;
mod ingestion;
mod inserts;
mod latency;

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
}

impl Figure {
    pub fn new(name: impl Into<String>, value: f64, baseline: f64, unit: &'static str, gate: Gate) -> Self {
        Self { name: name.into(), value, baseline, unit, gate }
    }

    fn ratio(&self) -> f64 {
        self.value / self.baseline
    }

    fn verdict(&self) -> String {
        match self.gate {
            Gate::AtLeast(least) => format!("gate >= {least}: {}", if self.ratio() >= least { "reached" } else { "NOT REACHED" }),
            Gate::AtMost(most) => format!("gate <= {most}: {}", if self.ratio() <= most { "reached" } else { "NOT REACHED" }),
            Gate::None => String::new(),
        }
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

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let begin = Instant::now();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let database = Database::create("usher_bench");
    let mut client = database.connect();
    println!("{}", text(&mut client, "SELECT split_part(version(), ' on ', 1)"));
    println!(
        "{} processors; every ratio is pg_usher to the baseline of the same run\n",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    let mut figures = Vec::new();
    for (what, measure) in [
        ("100,000 jobs against hand-written SQL", drain::measure as fn(&Database) -> Vec<Figure>),
        ("from the change to its effect against a bare commit", latency::measure),
        ("single-row INSERTs, captured and not", inserts::measure),
        ("ticket revenue taken in and booked, against the same rows by hand", ingestion::measure),
    ]
    .into_iter()
    .filter(|(what, _)| what.contains(&wanted))
    {
        println!("{what}");
        for figure in measure(&database) {
            let (name, value, baseline, unit) = (&figure.name, round(figure.value), round(figure.baseline), figure.unit);
            println!(
                "  {name:32} {value:>10} against {baseline:>10} {unit:8} ratio {:>6.2}   {}",
                figure.ratio(),
                figure.verdict()
            );
            figures.push(figure);
        }
        println!();
    }
    if !wanted.is_empty() {
        return;
    }
    let all: Map<String, _> = figures
        .iter()
        .map(|f| {
            (
                f.name.clone(),
                json!({"value": round(f.value), "baseline": round(f.baseline), "ratio": round(f.ratio()), "unit": f.unit}),
            )
        })
        .collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench.json");
    let text = usher_clients::serde_json::to_string_pretty(&all).expect("figures are JSON");
    std::fs::write(path, text + "\n").unwrap_or_else(|e| panic!("{path} cannot be written: {e}"));
    println!("written to target/bench.json, after {:.0} s", begin.elapsed().as_secs_f64());
}

/// Three decimals are more than any of this is exact to.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
