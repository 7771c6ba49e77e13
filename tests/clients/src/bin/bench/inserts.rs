//! What capture costs the one who writes: single-row INSERTs a second into a captured and an ordinary table.
//!
//! Once with the worker at work beside them, which is how it is in life, and once with the worker held, which shows
//! the cost of capture alone; on a machine with few cores the difference is the worker's own time.

use crate::pipe::{HOLD, RELEASE};
use crate::{Figure, Gate, flow_role, level, median};
use std::thread;
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, flow, json, run, settled};

pub const METHOD: &str = "prepared single-row INSERTs of one client and of eight, with the worker at work beside them and with it \
held. 3 s each, interleaved, median of 3";

const ROUNDS: usize = 3;
const SPELL: Duration = Duration::from_secs(3);

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    let columns = "(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), amount numeric NOT NULL, note text NOT NULL)";
    for table in ["ins_plain", "ins_captured", "ins_dst"] {
        run(&mut client, &format!("CREATE TABLE public.{table} {columns}"));
    }
    flow_role(&mut client, "public.ins_dst");
    flow(
        &mut client,
        "inserts",
        &json!({
            "from": "src", "to": "dst", "mode": "realtime", "run_as": "clients_bench",
            "when": {"change": "public.ins_captured", "on": ["insert"]},
            "then": {"insert": "public.ins_dst"}, "set": {"id": "new.id", "amount": "new.amount", "note": "new.note"}
        }),
    );
    [1, 8].into_iter().flat_map(|clients| compare(database, &mut client, clients)).collect()
}

fn compare(database: &Database, client: &mut Client, clients: usize) -> Vec<Figure> {
    let (mut plain, mut captured, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        run(client, "TRUNCATE public.ins_plain, public.ins_captured, public.ins_dst");
        level(client);
        plain.push(rate(database, "public.ins_plain", clients));
        captured.push(rate(database, "public.ins_captured", clients));
        settled(client, Duration::from_secs(120));
        run(client, "TRUNCATE public.ins_captured, public.ins_dst");
        level(client);
        let mut holder = database.connect();
        run(&mut holder, HOLD);
        held.push(rate(database, "public.ins_captured", clients));
        run(&mut holder, RELEASE);
        settled(client, Duration::from_secs(120));
    }
    let plain = median(plain);
    let name = if clients == 1 { "1_client".to_owned() } else { format!("{clients}_clients") };
    vec![
        Figure::new(format!("insert_{name}"), median(captured), plain, "rows/s", Gate::AtLeast(0.6)),
        Figure::new(format!("insert_{name}_worker_held"), median(held), plain, "rows/s", Gate::None),
    ]
}

/// Rows per second of all clients together.
pub fn rate(database: &Database, table: &'static str, clients: usize) -> f64 {
    let begin = Instant::now() + Duration::from_millis(300);
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = database.connect();
            thread::spawn(move || {
                let insert = client
                    .prepare(&format!("INSERT INTO {table} (amount, note) VALUES (12.5, repeat('x', 100))"))
                    .expect("the table can be written");
                thread::sleep(begin.saturating_duration_since(Instant::now()));
                let mut rows = 0_u32;
                while begin.elapsed() < SPELL {
                    client.execute(&insert, &[]).expect("an INSERT");
                    rows += 1;
                }
                f64::from(rows) / begin.elapsed().as_secs_f64()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("a client has panicked")).sum()
}
