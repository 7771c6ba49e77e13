//! What a call of platform.synchronize costs beside the bare statements that it stands for.

use crate::{Figure, Gate, median};
use std::time::{Duration, Instant};
use usher_clients::{Client, Database, Uuid, Value, json, role, run, settled, value, wait};

pub const METHOD: &str = "1,000 rows of four tables of the pack platform, 250 of each, whose flows are on, written by an admin of the organization under row level \
security: by one call of platform.synchronize, against 1,000 prepared single-row INSERT statements in one transaction of the same client, and against four multi-row ones written by \
hand; then the same 1,000 rows changed, against UPDATE statements. In turns, median of 9, the queue empty before each";

const ROUNDS: usize = 9;
const EACH: usize = 250;

/// Tables, and a column of each that changes.
const TABLES: [(&str, &str); 4] = [
    ("module_registry", "module_version"),
    ("marketplace_packages", "package_version"),
    ("marketplace_templates", "template_version"),
    ("orchestration_workflows", "kind"),
];

/// The rows of a round: by table the ids and what names each row.
struct Rows {
    round: usize,
    ids: Vec<Vec<Uuid>>,
}

impl Rows {
    fn new(client: &mut Client, round: usize) -> Self {
        let sql = format!("SELECT array_agg(gen_random_uuid()) FROM generate_series(1, {EACH})");
        Self { round, ids: TABLES.iter().map(|_| value(client, &sql, &[])).collect() }
    }

    /// The column by which the row is called.
    fn naming(table: &str) -> &'static str {
        if table == "orchestration_workflows" { "name" } else { "code" }
    }

    fn operations(&self, side: &str, changed: &str) -> Value {
        let mut all = Vec::new();
        for ((table, column), ids) in TABLES.iter().zip(&self.ids) {
            for (n, id) in ids.iter().enumerate() {
                let mut row = json!({"id": id});
                row[Self::naming(table)] = json!(format!("{side} {} {n}", self.round));
                row[*column] = json!(changed);
                all.push(json!({"table": table, "action": "upsert", "row": row}));
            }
        }
        json!(all)
    }
}

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut owner = database.connect();
    run(&mut owner, "SELECT usher.install_pack('platform')");
    let organization: Uuid = value(&mut owner, "SELECT usher.create_organization('bench_platform')", &[]);
    role(&mut owner, "clients_bench_platform", "LOGIN");
    run(
        &mut owner,
        "GRANT usher_member TO clients_bench_platform; SELECT usher.grant_membership('bench_platform', 'role:clients_bench_platform', 'admin')",
    );
    let mut admin = database.connect_as("clients_bench_platform");
    let here = &mut admin;
    let [mut call, mut bare, mut by_hand, mut change, mut bare_change] = [const { Vec::new() }; 5];
    for round in 0..ROUNDS {
        let (called, single, set) = (Rows::new(&mut owner, round), Rows::new(&mut owner, round), Rows::new(&mut owner, round));
        call.push(timed(&mut owner, || synchronize(here, &called.operations("call", "1"), "inserted")));
        bare.push(timed(&mut owner, || insert_singly(here, organization, &single)));
        by_hand.push(timed(&mut owner, || insert_together(here, organization, &set)));
        change.push(timed(&mut owner, || synchronize(here, &called.operations("call", "2"), "updated")));
        bare_change.push(timed(&mut owner, || update_singly(here, organization, &single)));
    }
    run(&mut owner, "SELECT usher.remove_pack('platform'); DROP SCHEMA platform CASCADE");
    let (call, bare, by_hand) = (median(call), median(bare), median(by_hand));
    vec![
        Figure::new("synchronize_1000_inserts", call, bare, "ms", Gate::AtMost(2.0)),
        Figure::new("synchronize_1000_updates", median(change), median(bare_change), "ms", Gate::AtMost(2.0)),
        Figure::new("synchronize_beside_set_by_hand", call, by_hand, "ms", Gate::None),
    ]
}

fn timed(owner: &mut Client, mut what: impl FnMut()) -> f64 {
    settled(owner, Duration::from_secs(120));
    let begin = Instant::now();
    what();
    begin.elapsed().as_secs_f64() * 1000.0
}

fn synchronize(client: &mut Client, operations: &Value, outcome: &str) {
    let rows = client.query("SELECT outcome, error FROM platform.synchronize($1, 'bench_platform')", &[operations]);
    let rows = rows.unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    assert_eq!(rows.iter().filter(|row| row.get::<_, String>(0) == outcome).count(), EACH * TABLES.len());
}

fn insert_singly(client: &mut Client, organization: Uuid, rows: &Rows) {
    run(client, "BEGIN");
    for ((table, column), ids) in TABLES.iter().zip(&rows.ids) {
        let sql = format!(
            "INSERT INTO platform.{table} (organization_id, id, {}, {column}) VALUES ($1, $2, $3, '1')",
            Rows::naming(table)
        );
        let statement = client.prepare(&sql).expect("a statement");
        for (n, id) in ids.iter().enumerate() {
            let named = format!("single {} {n}", rows.round);
            client.execute(&statement, &[&organization, id, &named]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        }
    }
    run(client, "COMMIT");
}

fn update_singly(client: &mut Client, organization: Uuid, rows: &Rows) {
    run(client, "BEGIN");
    for ((table, column), ids) in TABLES.iter().zip(&rows.ids) {
        let statement = client
            .prepare(&format!("UPDATE platform.{table} SET {column} = '2' WHERE organization_id = $1 AND id = $2"))
            .expect("a statement");
        for id in ids {
            let changed =
                client.execute(&statement, &[&organization, id]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
            assert_eq!(changed, 1);
        }
    }
    run(client, "COMMIT");
}

fn insert_together(client: &mut Client, organization: Uuid, rows: &Rows) {
    run(client, "BEGIN");
    for ((table, column), ids) in TABLES.iter().zip(&rows.ids) {
        let names: Vec<String> = (0..ids.len()).map(|n| format!("set {} {n}", rows.round)).collect();
        let sql = format!(
            "INSERT INTO platform.{table} (organization_id, id, {}, {column}) SELECT $1, i, n, '1' FROM unnest($2::uuid[], $3::text[]) AS r (i, n)",
            Rows::naming(table)
        );
        client.execute(sql.as_str(), &[&organization, ids, &names]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    }
    run(client, "COMMIT");
}
