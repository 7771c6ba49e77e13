//! What it costs that organizations are kept apart: policies, and counting calls.

use crate::{Figure, Gate, level, median, size};
use std::time::Instant;
use usher_clients::{Client, Database, role, run, text};

pub const METHOD: &str = "1,000,000 rows of usher.links in 1,000 organizations. A member of one asks without a word about organizations, \
the owner of the tables the same with organization_id = its id: 50 newest rows, one by its key, a count by kind; each prepared, 200 \
times in turns, medians. Limiter: 1,000,000 calls of usher.check_rate() in one statement of a member, for an organization, under two rules \
that let all of them pass; best of 3";

const ROUNDS: usize = 200;

pub fn measure(database: &Database) -> Vec<Figure> {
    let rows = size("BENCH_CHURN");
    let mut owner = database.connect();
    let here = &mut owner;
    role(here, "clients_bench_member", "LOGIN");
    run(
        here,
        &format!(
            "GRANT usher_member TO clients_bench_member;
             SELECT count(usher.create_organization('tenant-' || n)) FROM generate_series(1, 1000) AS n;
             SELECT usher.grant_membership('tenant-500', 'role:clients_bench_member');
             SET session_replication_role = replica;
             INSERT INTO usher.links (organization_id, id, kind, left_id, right_id)
             SELECT o.id, gen_random_uuid(), 'kind ' || n % 7, 'left ' || n, 'right ' || n
               FROM generate_series(1, {rows}) AS n JOIN (SELECT id, row_number() OVER (ORDER BY slug) AS at FROM usher.organizations WHERE slug LIKE 'tenant-%') AS o ON o.at = 1 + n % 1000;
             RESET session_replication_role;
             ANALYZE usher.links"
        ),
    );
    level(here);
    let id = text(here, "SELECT id::text FROM usher.organizations WHERE slug = 'tenant-500'");
    let left = text(here, &format!("SELECT left_id FROM usher.links WHERE organization_id = '{id}' LIMIT 1"));
    let kind = text(here, &format!("SELECT kind FROM usher.links WHERE organization_id = '{id}' AND left_id = '{left}'"));
    let mut member = database.connect_as("clients_bench_member");
    let questions = [
        ("member_newest_50", "SELECT * FROM usher.links WHERE {} ORDER BY created_at DESC LIMIT 50".to_owned()),
        ("member_by_key", format!("SELECT * FROM usher.links WHERE {{}} AND kind = '{kind}' AND left_id = '{left}'")),
        ("member_count_by_kind", "SELECT kind, count(*) FROM usher.links WHERE {} GROUP BY kind".to_owned()),
    ];
    let mut figures = Vec::new();
    for (name, question) in questions {
        let with = question.replace("{}", &format!("organization_id = '{id}'"));
        let without = question.replace("{}", "true");
        let (by_member, by_owner) = in_turns(&mut member, &without, here, &with);
        figures.push(Figure::new(name, by_member, by_owner, "ms", Gate::AtMost(1.2)));
    }
    run(
        here,
        "SELECT usher.limit_rpc('1000000000 per second', 'bench', burst => 1000000), usher.limit_rpc('1000000000 per second', burst => 1000000)",
    );
    let checks = format!("SELECT count(usher.check_rate('bench', '{id}')) FROM generate_series(1, 1000000)");
    let rate = (0..3).map(|_| 1e6 / seconds(&mut member, &checks)).fold(0.0, f64::max);
    figures.push(Figure::new("rate_checks", rate, 1e6, "checks/s", Gate::AtLeast(1.0)));
    run(
        here,
        "SELECT count(usher.unlimit_rpc(id)) FROM usher.rpc_rules; TRUNCATE usher.links; DELETE FROM usher.organizations WHERE slug LIKE 'tenant-%'",
    );
    figures
}

fn seconds(client: &mut Client, sql: &str) -> f64 {
    let begin = Instant::now();
    client.query(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
    begin.elapsed().as_secs_f64()
}

/// Milliseconds of each, medians.
fn in_turns(one: &mut Client, first: &str, other: &mut Client, second: &str) -> (f64, f64) {
    let prepared = (one.prepare(first).expect("the member's query"), other.prepare(second).expect("the owner's query"));
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let seen = one.query(&prepared.0, &[]).expect("the member's rows").len();
        ones.push(begin.elapsed().as_secs_f64() * 1000.0);
        let begin = Instant::now();
        assert_eq!(other.query(&prepared.1, &[]).expect("the owner's rows").len(), seen);
        others.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    (median(ones), median(others))
}
