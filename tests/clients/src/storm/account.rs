//! The account of a storm: what must be true once it is quiet, found out by queries of its own.

use super::writer::{Ledger, resume};
use super::{RULES, rows, stage};
use crate::{Client, Database, number, settled, storage, text, value, wait};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// What was found in order.
pub struct Account {
    pub transactions: i64,
    pub executions: i64,
    pub transfers: i64,
    pub repairs: i64,
}

/// Waits until it is quiet, and balances. Everything written by storms in this database must be in the ledger.
#[track_caller]
pub fn balance(database: &Database, ledger: &Ledger) -> Account {
    let mut client = database.reconnect();
    let here = &mut client;
    resume(here);
    quiet(here);
    // Not through the hub: what the rules ask, asked by hand.
    for rule in RULES.iter().map(|rule| format!("platform.{rule}")).chain(["storm_bank".to_owned()]) {
        let query = text(here, &format!("SELECT definition ->> 'query' FROM usher.rules WHERE name = '{rule}'"));
        nothing(here, &format!("rows for which rule {rule} does not hold"), &query);
    }
    told(here, ledger);
    effects(here);
    repairs(here);
    Account {
        transactions: number(here, "SELECT count(*) FROM public.storm_ledger"),
        executions: number(here, "SELECT count(*) FROM public.storm_ledger WHERE kind = 'completed'"),
        transfers: number(here, "SELECT count(*) FROM public.storm_entries"),
        repairs: number(here, "SELECT count(*) FROM usher.repairs WHERE automatic"),
    }
}

#[track_caller]
fn nothing(client: &mut Client, what: &str, sql: &str) {
    let found = rows(client, sql);
    if found > 0 {
        let some = text(client, &format!("SELECT string_agg(q::text, E'\\n  ') FROM (SELECT q FROM ({sql}) AS q LIMIT 8) AS q"));
        panic!("{found} {what}:\n  {some}");
    }
}

/// Until no job is open, no rule finds anything, and nothing is to be repaired by itself.
#[track_caller]
fn quiet(client: &mut Client) {
    settled(client, LONG);
    let found = wait::poll(LONG, || {
        let errors =
            text(client, "SELECT string_agg(rule || ': ' || error, '; ') FROM usher.check_rules() WHERE error IS NOT NULL");
        assert_eq!(errors, "", "every rule can be asked");
        client.batch_execute("SELECT * FROM usher.repair_due()").ok()?;
        let open = number(client, "SELECT count(*) FROM usher.violations WHERE status IN ('open', 'pending')");
        (open == 0 && !storage::anything_open(client)).then_some(())
    });
    if found.is_none() {
        let open = "SELECT string_agg(concat_ws(' | ', rule, key, status, repairs, manual, wrong, last_error), E'\\n  ') FROM usher.violations WHERE status IN ('open', 'pending')";
        let open = text(client, open);
        panic!("it does not become quiet; open violations:\n  {open}\n{}", wait::jobs(client));
    }
    let again = text(
        client,
        "SELECT string_agg(concat_ws(' ', rule, new, still, gone), '; ') FROM usher.check_rules() WHERE new + still + gone > 0",
    );
    assert_eq!(again, "", "nothing is found once more");
    let due = text(
        client,
        "SELECT string_agg(concat_ws(' ', rule, repaired, failed, asked, error), '; ') FROM usher.repair_due() WHERE COALESCE(repaired + failed + asked, 1) > 0",
    );
    assert_eq!(due, "", "nothing is due");
}

/// What the writers were told is what is there.
#[track_caller]
fn told(client: &mut Client, ledger: &Ledger) {
    let missing = "SELECT count(*) FROM unnest($1::bigint[]) AS t (id) WHERE NOT EXISTS (SELECT FROM public.storm_ledger AS l WHERE l.id = t.id)";
    assert_eq!(value::<i64>(client, missing, &[&ledger.committed]), 0, "transactions that were committed, and are not there");
    let there = "SELECT count(*) FROM public.storm_ledger WHERE id = ANY ($1)";
    assert_eq!(value::<i64>(client, there, &[&ledger.refused]), 0, "transactions that were refused, and are there");
    let known: Vec<i64> = ledger.committed.iter().chain(&ledger.unknown).copied().collect();
    let foreign = "SELECT count(*) FROM public.storm_ledger WHERE id <> ALL ($1)";
    assert_eq!(value::<i64>(client, foreign, &[&known]), 0, "transactions that nobody knows of");
}

/// Every line of the ledger has its effects, once.
#[track_caller]
fn effects(client: &mut Client) {
    let money = number(client, "SELECT sum(balance)::bigint FROM public.storm_accounts");
    assert_eq!(money, stage::MONEY, "the money there is");
    for (what, sql) in [
        ("transfers that are not what the ledger says", "SELECT * FROM (SELECT organization_id, id FROM public.storm_ledger WHERE kind = 'transfer') AS l FULL JOIN public.storm_transfers AS t USING (organization_id, id) WHERE t.amount IS NULL OR l IS NULL"),
        (
            "transfers without exactly one entry",
            "SELECT t.id, count(e) FROM public.storm_transfers AS t FULL JOIN public.storm_entries AS e ON e.organization_id = t.organization_id AND e.transfer_id = t.id AND e.amount = t.amount
              GROUP BY t.organization_id, t.id HAVING count(e) <> 1 OR t.id IS NULL",
        ),
        (
            "transfers without exactly one finished job",
            "SELECT t.id, count(j) FROM public.storm_transfers AS t FULL JOIN (SELECT (payload -> 'new' ->> 'id')::bigint AS id FROM usher.sync_jobs WHERE flow = 'storm_enter' AND status = 'synced') AS j ON j.id = t.id
              GROUP BY t.id HAVING count(j) <> 1 OR t.id IS NULL",
        ),
        (
            "completed executions that are not what the ledger says",
            "SELECT l.id, e.id FROM (SELECT * FROM public.storm_ledger WHERE kind = 'completed') AS l
               FULL JOIN (SELECT * FROM platform.workflow_executions WHERE status = 'completed') AS e ON e.organization_id = l.organization_id AND e.id = l.subject
              WHERE e.id IS NULL OR l.id IS NULL",
        ),
        (
            "completed executions without exactly one package that is ready or delivered, with its result and its artifacts",
            "SELECT l.id, l.number, count(DISTINCT h.id), min(h.status), count(d) FILTER (WHERE d.kind = 'result'), count(d) FILTER (WHERE d.kind = 'artifact') FROM public.storm_ledger AS l
               LEFT JOIN platform.handover_packages AS h ON h.organization_id = l.organization_id AND h.execution_id = l.subject
               LEFT JOIN platform.handover_documentation AS d ON d.organization_id = h.organization_id AND d.package_id = h.id AND d.kind <> 'module_snapshot'
              WHERE l.kind = 'completed' GROUP BY l.id, l.number
             HAVING count(DISTINCT h.id) <> 1 OR min(h.status) NOT IN ('ready', 'delivered') OR count(d) FILTER (WHERE d.kind = 'result') <> 1 OR count(d) FILTER (WHERE d.kind = 'artifact') <> l.number",
        ),
        ("completed executions of which the bus has not heard exactly once", &heard("l.subject", "public.storm_ledger AS l WHERE l.kind = 'completed'", "workflow.execution.completed", "execution_id")),
        ("installations of which the bus has not heard as often as they were made", &heard("l.subject", "public.storm_facts AS l WHERE l.fact = 'installed'", "marketplace.installation.completed", "installation_id")),
        ("packages of which the bus has not heard exactly once", &heard("l.subject", "public.storm_facts AS l WHERE l.fact = 'made'", "handover.package.created", "package_id")),
        ("deliveries of which the bus has not heard exactly once", &heard("l.subject", "public.storm_facts AS l WHERE l.fact = 'delivered'", "handover.package.delivered", "package_id")),
        ("deliveries that were not counted exactly once", &heard("l.subject", "public.storm_facts AS l WHERE l.fact = 'delivered'", "analytics.track", "package_id")),
        (
            "events that have not begun exactly one run",
            "SELECT l.id, count(e) FROM (SELECT * FROM public.storm_ledger WHERE kind = 'ordered') AS l
               FULL JOIN (SELECT * FROM platform.workflow_executions WHERE trigger_event IS NOT NULL) AS e ON e.organization_id = l.organization_id AND (e.input ->> 'number')::bigint = l.id
              GROUP BY l.id HAVING count(e) <> 1 OR l.id IS NULL",
        ),
        (
            "calls whose templates are not all there, or were not all offered once",
            "SELECT l.id, l.number, count(t), sum(t.offered) FROM public.storm_ledger AS l
               LEFT JOIN (SELECT t.*, (SELECT count(*) FROM usher.events AS e WHERE e.organization_id = t.organization_id AND e.type = 'orchestration.template.available' AND e.data ->> 'template_id' = t.id::text) AS offered
                            FROM platform.marketplace_templates AS t) AS t ON t.organization_id = l.organization_id AND t.code LIKE 't' || l.id || '-%'
              WHERE l.kind = 'templates' GROUP BY l.id, l.number HAVING count(t) <> l.number OR COALESCE(sum(t.offered), 0) <> l.number OR l.number BETWEEN 1 AND 4",
        ),
        (
            "configurations that were to be merged, and are lost",
            "SELECT l.id, l.number, c.configuration FROM public.storm_ledger AS l
               LEFT JOIN platform.module_registry AS m ON m.organization_id = l.organization_id AND m.code = 'm' || l.number
               LEFT JOIN platform.module_configurations AS c ON c.organization_id = m.organization_id AND c.module_id = m.id AND c.installation_id IS NULL
              WHERE l.kind = 'merged' AND (c.configuration ->> ('k' || l.id))::bigint IS DISTINCT FROM l.id",
        ),
        (
            "dead letters that are not those that were to be expected",
            "SELECT l.id, l.subject, d.error_message FROM (SELECT * FROM public.storm_ledger WHERE kind = 'poison') AS l
               FULL JOIN (SELECT d.organization_id, d.error_message, substring(d.error_message FROM 'execution ([0-9a-f-]{36}) does not exist')::uuid AS subject FROM usher.dead_letters AS d) AS d
                 ON d.organization_id = l.organization_id AND d.subject = l.subject
              WHERE d.error_message IS NULL OR l.id IS NULL",
        ),
        ("jobs that are there twice", "SELECT id FROM usher.sync_jobs GROUP BY id HAVING count(*) > 1"),
    ] {
        nothing(client, what, sql);
    }
}

/// Subjects for which the bus has not as many events as there are lines of them; events of none.
fn heard(subject: &str, of: &str, event: &str, field: &str) -> String {
    format!(
        "SELECT s.organization_id, s.subject, s.n AS happened, e.n AS heard
           FROM (SELECT l.organization_id, {subject} AS subject, count(*) AS n FROM {of} GROUP BY 1, 2) AS s
           FULL JOIN (SELECT organization_id, (data ->> '{field}')::uuid AS subject, count(*) AS n FROM usher.events WHERE type = '{event}' GROUP BY 1, 2) AS e USING (organization_id, subject)
          WHERE s.n IS DISTINCT FROM e.n"
    )
}

/// Who repaired what is written down, once, and what is said to be repaired was.
#[track_caller]
fn repairs(client: &mut Client) {
    for (what, sql) in [
        (
            "repairs without exactly one line in the audit log, or lines without a repair",
            "SELECT r.id, a.n FROM usher.repairs AS r
               FULL JOIN (SELECT (new ->> 'repair')::uuid AS id, organization_id, count(*) AS n FROM usher.audit_log WHERE action = 'usher.rules.repaired' GROUP BY 1, 2) AS a
                 ON a.id = r.id AND a.organization_id = r.organization_id
              WHERE a.n IS DISTINCT FROM 1 OR r.id IS NULL",
        ),
        ("repairs that say nothing of what they have changed", "SELECT id, rule FROM usher.repairs WHERE jsonb_array_length(changes) = 0 OR cannot_undo IS NOT NULL"),
        ("repairs by nobody that say they were asked for", "SELECT id FROM usher.repairs WHERE automatic <> (repaired_by = 'pg_usher')"),
        (
            "violations that are repaired, and no repair knows of them",
            "SELECT v.id, v.rule FROM usher.violations AS v WHERE v.status = 'repaired'
                AND NOT EXISTS (SELECT FROM usher.repairs AS r WHERE r.organization_id = v.organization_id AND r.rule = v.rule AND v.id = ANY (r.violations))",
        ),
        (
            "changes of repairs that are of another organization",
            "SELECT r.id, c FROM usher.repairs AS r, jsonb_array_elements(r.changes) AS c
              WHERE r.organization_id::text IS DISTINCT FROM COALESCE(c -> 'after' ->> 'organization_id', c -> 'before' ->> 'organization_id', r.organization_id::text)",
        ),
        ("rules that are not as they were", "SELECT name, state, last_error FROM usher.rules WHERE state <> 'active' OR last_error IS NOT NULL"),
    ] {
        nothing(client, what, sql);
    }
}
