//! What the audit costs those who write, and how fast its chain is verified.

use crate::inserts;
use crate::{Figure, Gate, level, median, size};
use std::time::Instant;
use usher_clients::{Client, Database, number, run, text};

pub const METHOD: &str = "prepared single-row INSERTs of one client and of eight into an audited table, against a table like it; 3 s each, \
interleaved, median of 3. Verification: usher.verify_audit_log() over 1,000,000 sealed entries, against SELECT \
count(sha256(convert_to(row::text, 'UTF8'))) over the same, interleaved, best of 5";

const ROUNDS: usize = 3;
const SCANS: usize = 5;

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    let here = &mut client;
    let columns = "(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), amount numeric NOT NULL, note text NOT NULL)";
    run(here, &format!("CREATE TABLE public.audit_plain {columns}; CREATE TABLE public.audit_watched {columns}"));
    run(here, "SELECT usher.audit_table('public.audit_watched')");
    let mut figures: Vec<Figure> = [1, 8].into_iter().map(|clients| writers(database, here, clients)).collect();
    figures.push(verification(here));
    run(here, "SELECT usher.unaudit_table('public.audit_watched'); DROP TABLE public.audit_plain, public.audit_watched");
    figures
}

fn writers(database: &Database, client: &mut Client, clients: usize) -> Figure {
    let (mut plain, mut watched) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        level(client);
        plain.push(inserts::rate(database, "public.audit_plain", clients));
        watched.push(inserts::rate(database, "public.audit_watched", clients));
    }
    let name = if clients == 1 { "1_client".to_owned() } else { format!("{clients}_clients") };
    Figure::new(format!("audited_insert_{name}"), median(watched), median(plain), "rows/s", Gate::AtLeast(0.65))
}

fn verification(client: &mut Client) -> Figure {
    let wanted = size("BENCH_ENTRIES");
    let there = number(client, "SELECT count(*) FROM usher.audit_log");
    run(
        client,
        &format!(
            "INSERT INTO public.audit_watched (amount, note) SELECT n * 0.01, repeat('x', 100) FROM generate_series(1, {}) n",
            (wanted - there).max(1)
        ),
    );
    while number(client, "SELECT usher.seal_audit_log()") > 0 {}
    level(client);
    let entries = number(client, "SELECT count(*) FROM usher.audit_log") as f64;
    let timed = |client: &mut Client, sql: &str| {
        let begin = Instant::now();
        run(client, sql);
        entries / begin.elapsed().as_secs_f64()
    };
    let (mut bare, mut ours) = (f64::NAN, f64::NAN);
    for _ in 0..SCANS {
        bare = bare.max(timed(client, "SELECT count(sha256(convert_to(e::text, 'UTF8'))) FROM usher.audit_log AS e"));
        ours = ours.max(timed(client, "SELECT * FROM usher.verify_audit_log()"));
    }
    let found = text(client, "SELECT concat_ws(' ', intact, unsealed) FROM usher.verify_audit_log()");
    assert_eq!(found, "t 0", "the test itself: everything is in the chain and as it was");
    Figure::new("verify_audit_log", ours, bare, "entries/s", Gate::AtLeast(0.9))
}
