//! Who writes in a storm: at random, with rights of an admin, and now and then as somebody who breaks things, or mends them.

use super::stage::{ACCOUNTS, MODULES, PACKAGES};
use super::{RULES, Shared, login, slug};
use crate::chaos::Chance;
use crate::{Client, Value, json, try_connect, wait};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What writers were told of their transactions, by the numbers in the ledger.
#[derive(Default)]
pub struct Ledger {
    pub committed: Vec<i64>,
    /// Rolled back, by the writer or by the server.
    pub refused: Vec<i64>,
    /// The connection was lost at COMMIT: one or the other.
    pub unknown: Vec<i64>,
}

impl Ledger {
    pub fn add(&mut self, other: Self) {
        self.committed.extend(other.committed);
        self.refused.extend(other.refused);
        self.unknown.extend(other.unknown);
    }
}

/// How a transaction has ended.
#[derive(PartialEq)]
enum End {
    Committed,
    Refused,
    Unknown,
}

/// What is done within a transaction, with the ledger's number.
struct Deed {
    number: i64,
    sql: String,
}

pub(super) fn write(shared: &Shared, seed: u64, writer: u64) -> Ledger {
    let mut ledger = Ledger::default();
    let mut chance = Chance::new(seed.wrapping_mul(1000).wrapping_add(writer));
    let mut next = writer as i64 * 1_000_000;
    let slug = slug(writer);
    while !shared.stopped() {
        let opened = try_connect(&shared.database.name, Some(&login(slug)));
        let (Ok(mut client), Ok(mut operator)) = (opened, shared.database.try_connect()) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Ok(row) = client.query_one("SELECT id::text FROM usher.organizations WHERE slug = $1", &[&slug]) else { continue };
        let organization: String = row.get(0);
        while !shared.stopped() && !client.is_closed() && !operator.is_closed() {
            if chance.below(4) == 0 {
                let sql = meddling(&mut chance, &organization, slug);
                if let Err(error) = operator.batch_execute(&sql) {
                    expected(&error, &sql);
                    let _ = operator.batch_execute("ROLLBACK");
                }
            } else {
                transaction(&mut client, &mut chance, &organization, slug, &mut next, &mut ledger);
                shared.commits.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(10 + chance.below(60)));
        }
    }
    ledger
}

/// One or two deeds, perhaps one before that is taken back, perhaps all of it.
fn transaction(client: &mut Client, chance: &mut Chance, organization: &str, slug: &str, next: &mut i64, ledger: &mut Ledger) {
    let mut draw = |chance: &mut Chance| {
        *next += 1;
        Deed { number: *next, sql: deed(chance, organization, slug, *next) }
    };
    let level =
        ["READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][chance.below(5) as usize];
    let mut statements = vec![format!("BEGIN ISOLATION LEVEL {level}")];
    if chance.below(15) == 0 {
        statements.push(format!("SET LOCAL statement_timeout = '{}ms'", 1 + chance.below(4)));
    }
    if chance.below(4) == 0 {
        let doomed = draw(chance);
        ledger.refused.push(doomed.number);
        statements.extend(["SAVEPOINT s".to_owned(), doomed.sql, "ROLLBACK TO SAVEPOINT s".to_owned()]);
    }
    let mut numbers = Vec::new();
    for _ in 0..=chance.below(2) {
        let deed = draw(chance);
        numbers.push(deed.number);
        statements.push(deed.sql);
    }
    let end = if chance.below(10) == 0 { "ROLLBACK" } else { "COMMIT" };
    match tried(client, &statements, end) {
        End::Committed => ledger.committed.extend(numbers),
        End::Refused => ledger.refused.extend(numbers),
        End::Unknown => ledger.unknown.extend(numbers),
    }
}

fn tried(client: &mut Client, statements: &[String], end: &str) -> End {
    for sql in statements {
        if let Err(error) = client.batch_execute(sql) {
            // COMMIT was not sent, so nothing of it is there.
            expected(&error, sql);
            let _ = client.batch_execute("ROLLBACK");
            return End::Refused;
        }
    }
    match client.batch_execute(end) {
        Ok(()) if end == "COMMIT" => End::Committed,
        Ok(()) => End::Refused,
        Err(error) => {
            expected(&error, end);
            // An answer of a server that lives on says that it was not committed; that of one that goes says nothing.
            let answered = error.as_db_error().is_some_and(|answer| answer.severity() == "ERROR");
            if answered || end == "ROLLBACK" { End::Refused } else { End::Unknown }
        }
    }
}

/// Nobody is refused for a mistake in a statement, or for one of the hub: only because of others, the rules, and the weather.
fn expected(error: &postgres::Error, sql: &str) {
    let Some(code) = error.code() else { return };
    let weather = ["40", "57", "55", "08", "23", "53", "58"];
    assert!(weather.iter().any(|class| code.code().starts_with(class)), "{}\n  in: {sql}", wait::describe(error));
}

/// The id that a row of a deed has.
fn id(number: i64, what: u32) -> String {
    format!("{what:08}-0000-4000-8000-{number:012}")
}

fn entered(organization: &str, number: i64, kind: &str, subject: &str, count: i64) -> String {
    let subject = if subject.is_empty() { "NULL".to_owned() } else { format!("'{subject}'") };
    format!("; INSERT INTO public.storm_ledger VALUES ('{organization}', {number}, '{kind}', {subject}, {count})")
}

/// What an admin of the organization does, with its line in the ledger.
fn deed(chance: &mut Chance, organization: &str, slug: &str, number: i64) -> String {
    let package = format!(
        "(SELECT id FROM platform.marketplace_packages WHERE organization_id = '{organization}' AND code = 'p{}')",
        chance.below(PACKAGES)
    );
    let module = chance.below(MODULES);
    let noted = |kind: &str| entered(organization, number, kind, "", 0);
    match chance.below(24) {
        0..6 => {
            let (from, to, amount) = (chance.below(ACCOUNTS), chance.below(ACCOUNTS), chance.below(60) as i64);
            let change = |account: u64, by: i64| format!("UPDATE public.storm_accounts SET balance = balance + {by} WHERE organization_id = '{organization}' AND id = {account}; ");
            format!("{}{}INSERT INTO public.storm_transfers VALUES ('{organization}', {number}, {amount})", change(from, -amount), change(to, amount)) + &noted("transfer")
        }
        6..12 => executed(chance, organization, number),
        12..14 => {
            let configuration = json!({"*": {"region": "eu"}, format!("m{module}"): {"seats": number}});
            format!(
                "INSERT INTO platform.marketplace_installations (organization_id, package_id, configuration, status) VALUES ('{organization}', {package}, '{configuration}', 'installed')
                 ON CONFLICT ON CONSTRAINT marketplace_installations_package_key DO UPDATE SET status = 'installed', configuration = excluded.configuration"
            ) + &noted("installed")
        }
        14 => format!("UPDATE platform.marketplace_installations SET status = 'removed' WHERE organization_id = '{organization}' AND package_id = {package}") + &noted("removed"),
        15 => {
            let request = json!({"action": "merge_configuration", "module": format!("m{module}"), "configuration": {format!("k{number}"): number}});
            format!("SELECT usher.enqueue_sync_job('{slug}', 'marketplace', 'modules', '{request}')") + &entered(organization, number, "merged", "", module as i64)
        }
        16 => format!("SELECT usher.emit_event('{slug}', 'storm.ordered', '{{\"number\": {number}}}')") + &noted("ordered"),
        17 => batch(chance, organization, slug, number),
        18 => {
            let nothing = id(number, 9);
            format!("SELECT usher.emit_event('{slug}', 'handover.package.preparation.requested', '{{\"execution_id\": \"{nothing}\"}}')")
                + &entered(organization, number, "poison", &nothing, 0)
        }
        19..21 => ready(organization, "delivered', delivered_at = clock_timestamp() + interval '1 us'", 3) + &noted("delivered"),
        21 => ready(organization, "failed'", 1) + &format!("; UPDATE platform.handover_packages SET status = 'pending' WHERE organization_id = '{organization}' AND status = 'failed'") + &noted("prepared again"),
        22 => format!(
            "UPDATE platform.module_activations SET status = CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END
              WHERE organization_id = '{organization}' AND status <> 'failed' AND module_id = (SELECT id FROM platform.module_registry WHERE organization_id = '{organization}' AND code = 'm{module}')"
        ) + &noted("switched"),
        _ => format!(
            "UPDATE platform.module_registry SET module_version = '{number}' WHERE organization_id = '{organization}' AND code = 'm{module}';
             UPDATE platform.marketplace_packages SET package_version = '{number}' WHERE organization_id = '{organization}' AND id = {package}"
        ) + &noted("versions"),
    }
}

/// Some packages that are ready become something else.
fn ready(organization: &str, what: &str, most: u64) -> String {
    format!(
        "UPDATE platform.handover_packages SET status = '{what} WHERE organization_id = '{organization}' AND status = 'ready' AND id IN (
             SELECT id FROM platform.handover_packages WHERE organization_id = '{organization}' AND status = 'ready' ORDER BY id LIMIT {most} FOR UPDATE SKIP LOCKED)"
    )
}

/// A workflow that is run, and completes with artifacts.
fn executed(chance: &mut Chance, organization: &str, number: i64) -> String {
    let (workflow, execution) = (id(number, 1), id(number, 2));
    let modules: Vec<String> = (0..chance.below(3)).map(|_| format!("m{}", chance.below(MODULES))).collect();
    let artifacts: Vec<Value> = (0..chance.below(4)).map(|n| json!({"name": format!("{n}.pdf")})).collect();
    let (input, outputs) = (
        json!({"client_ref": format!("c{number}"), "includes_modules": chance.below(3) == 0}),
        json!({"score": number, "artifacts": artifacts}),
    );
    format!(
        "INSERT INTO platform.orchestration_workflows (organization_id, id, name, required_modules, auto_activate)
         VALUES ('{organization}', '{workflow}', 'w{number}', '{{{}}}', {});
         INSERT INTO platform.workflow_executions (organization_id, id, workflow_id, status, input) VALUES ('{organization}', '{execution}', '{workflow}', 'running', '{input}');
         UPDATE platform.workflow_executions SET status = 'completed', outputs = '{outputs}' WHERE organization_id = '{organization}' AND id = '{execution}'",
        modules.join(","),
        chance.below(8) > 0
    ) + &entered(organization, number, "completed", &execution, artifacts.len() as i64)
}

/// Templates in one call: all, or, with one that is wrong, none.
fn batch(chance: &mut Chance, organization: &str, slug: &str, number: i64) -> String {
    let wrong = chance.below(4) == 0;
    let rows: Vec<Value> = (0..5 + chance.below(10))
        .map(|n| {
            let code = if wrong && n == 3 { String::new() } else { format!("t{number}-{n}") };
            json!({"table": "marketplace_templates", "action": "upsert", "row": {"id": id(number, 100 + n as u32), "code": code}})
        })
        .collect();
    let rows = Value::Array(rows);
    format!(
        "INSERT INTO public.storm_ledger SELECT '{organization}', {number}, 'templates', NULL, count(*) FILTER (WHERE outcome = 'inserted') FROM platform.synchronize('{rows}', '{slug}')"
    )
}

/// What breaks things behind the pack's back, and what an operator does about it, or beside it. With all rights.
fn meddling(chance: &mut Chance, organization: &str, slug: &str) -> String {
    let some = |table: &str, condition: &str| {
        format!(
            "(SELECT id FROM platform.{table} WHERE organization_id = '{organization}' AND {condition} ORDER BY random() LIMIT 1)"
        )
    };
    let rule = format!("platform.{}", RULES[chance.below(4) as usize]);
    match chance.below(20) {
        0..3 => format!(
            "DELETE FROM platform.module_configurations WHERE organization_id = '{organization}' AND id = {}",
            some("module_configurations", "installation_id IS NOT NULL")
        ),
        3..5 => format!(
            "DELETE FROM platform.module_activations WHERE organization_id = '{organization}' AND id = {}",
            some("module_activations", "true")
        ),
        // That is left to people.
        5 => format!(
            "UPDATE platform.module_activations SET status = 'failed' WHERE organization_id = '{organization}' AND status <> 'inactive' AND id = {}",
            some("module_activations", "status <> 'inactive'")
        ),
        6..9 => format!(
            "BEGIN; CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT {} AS id;
             DELETE FROM platform.handover_documentation WHERE organization_id = '{organization}' AND package_id = (SELECT id FROM gone);
             DELETE FROM platform.handover_packages WHERE organization_id = '{organization}' AND id = (SELECT id FROM gone); COMMIT",
            some("handover_packages", "status = 'ready'")
        ),
        9 => format!(
            "DELETE FROM platform.handover_documentation WHERE organization_id = '{organization}' AND kind = 'module_snapshot' AND id = {}",
            some("handover_documentation", "kind = 'module_snapshot'")
        ),
        10 => format!(
            "UPDATE platform.handover_documentation SET body = '{{}}' WHERE organization_id = '{organization}' AND kind = 'module_snapshot' AND id = {}",
            some("handover_documentation", "kind = 'module_snapshot'")
        ),
        11..14 => "SELECT * FROM usher.check_rules()".to_owned(),
        14 => format!("SELECT * FROM usher.check_rules('{slug}')"),
        15..17 => format!("SELECT * FROM usher.repair_rule('{rule}')"),
        17 => format!("SELECT * FROM usher.repair_rule('{rule}', dry_run => true, organization => '{slug}')"),
        18 => "SELECT * FROM usher.repair_due()".to_owned(),
        _ => {
            let table = ["marketplace_installations", "module_configurations", "handover_packages"][chance.below(3) as usize];
            format!("SELECT platform.sync_table('{table}', '{slug}')")
        }
    }
}

/// What somebody had given up is made again: without that it would stay as it is.
pub(super) fn resume(client: &mut Client) {
    crate::run(
        client,
        "UPDATE platform.handover_packages SET status = 'pending' WHERE status = 'failed';
         UPDATE platform.module_activations SET status = 'pending' WHERE status IN ('failed', 'inactive')",
    );
    // What was paused comes back in slices.
    wait::until_true(client, "SELECT NOT EXISTS (SELECT FROM usher.pauses)");
}
