//! Thousands in one call, in one statement, and by request: right, whole, and done.

use super::stage::walk;
use std::time::Duration;
use usher_clients::{Value, json, number, run, settled, text, value};

/// Generous: what is measured is that all of it comes, not when.
const LONG: Duration = Duration::from_secs(240);
const MODULES: i64 = 50;
const TEMPLATES: i64 = 450;
const RUNS: i64 = 1_000;
const MERGES: i64 = 1_000;

pub fn thousands() {
    let mut walk = walk("volume");
    let near = walk.near.clone();
    let before = walk.elsewhere();
    let upsert = |table: &str, row: Value| json!({"table": table, "action": "upsert", "row": row});
    let mut rows: Vec<Value> = Vec::new();
    // Those that refer to others come before them.
    for n in 0..RUNS {
        let (run, workflow) = (near.id(&format!("e{n}")), near.id(&format!("w{}", n / 2)));
        let outputs = json!({"n": n, "artifacts": [{"name": "a"}]});
        rows.push(upsert("workflow_executions", json!({"id": run, "workflow_id": workflow, "status": "completed", "input": {"includes_modules": false}, "outputs": outputs})));
        if n % 2 == 0 {
            rows.push(upsert(
                "orchestration_workflows",
                json!({"id": workflow, "name": format!("w{n}"), "required_modules": [format!("m{}", n % MODULES)]}),
            ));
        }
    }
    rows.extend(
        (0..MODULES).map(|n| upsert("module_registry", json!({"id": near.id(&format!("m{n}")), "code": format!("m{n}")}))),
    );
    rows.extend(
        (0..TEMPLATES)
            .map(|n| upsert("marketplace_templates", json!({"id": near.id(&format!("t{n}")), "code": format!("t{n}")}))),
    );
    assert_eq!(rows.len(), 2_000);
    let outcomes = "SELECT string_agg(concat_ws(' ', n, outcome), ', ' ORDER BY outcome) FROM (SELECT count(*) AS n, outcome FROM platform.synchronize($1, $2) GROUP BY outcome) AS r";

    // One that is wrong keeps all others from being written.
    let mut wrong = rows.clone();
    wrong[1_500]["row"]["code"] = json!(" ");
    let said: String = value(&mut walk.admin, outcomes, &[&json!(wrong), &near.slug]);
    assert_eq!(said, "1999 not written, 1 refused");
    let there = "SELECT (SELECT count(*) FROM platform.workflow_executions WHERE organization_id = $1) + (SELECT count(*) FROM platform.marketplace_templates WHERE organization_id = $1)";
    assert_eq!(value::<i64>(&mut walk.owner, there, &[&near.id]), 0);

    let said: String = value(&mut walk.admin, outcomes, &[&json!(rows), &near.slug]);
    assert_eq!(said, "2000 inserted");
    settled(&mut walk.owner, LONG);
    walk.nothing_dead();
    let whole = format!(
        "SELECT concat_ws(' ',
            (SELECT count(*) FROM platform.handover_packages WHERE organization_id = '{0}' AND status = 'ready'),
            (SELECT count(DISTINCT execution_id) FROM platform.handover_packages WHERE organization_id = '{0}'),
            (SELECT string_agg(concat_ws(' ', kind, n, packages), ', ' ORDER BY kind) FROM (SELECT kind, count(*) AS n, count(DISTINCT package_id) AS packages FROM platform.handover_documentation WHERE organization_id = '{0}' GROUP BY kind) AS d),
            (SELECT sum((body ->> 'n')::integer) FROM platform.handover_documentation WHERE organization_id = '{0}' AND kind = 'result'),
            (SELECT string_agg(concat_ws(' ', status, n), ', ') FROM (SELECT status, count(*) AS n FROM platform.module_activations WHERE organization_id = '{0}' GROUP BY status) AS a),
            (SELECT string_agg(concat_ws(' ', type, n, of), ', ' ORDER BY type) FROM (
                SELECT type, count(*) AS n, count(DISTINCT data) AS of FROM usher.events WHERE organization_id = '{0}' AND type IN ('workflow.execution.completed', 'handover.package.created', 'orchestration.template.available', 'workflow.created') GROUP BY type) AS v))",
        near.id
    );
    // Twenty-five modules are needed: the workflows' numbers are even.
    let wanted = format!(
        "{RUNS} {RUNS} artifact {RUNS} {RUNS}, result {RUNS} {RUNS} {} active {} handover.package.created {RUNS} {RUNS}, orchestration.template.available {TEMPLATES} {TEMPLATES}, workflow.created 500 500, workflow.execution.completed {RUNS} {RUNS}",
        RUNS * (RUNS - 1) / 2,
        MODULES / 2
    );
    walk.says("everything has come of it, once", &whole, &wanted);

    // Once more: nothing is news, and nothing comes of it.
    let jobs = format!("SELECT count(*) FROM usher.sync_jobs WHERE organization_id = '{}'", near.id);
    let done = number(&mut walk.owner, &jobs);
    let said: String = value(&mut walk.admin, outcomes, &[&json!(rows), &near.slug]);
    assert_eq!(said, "2000 unchanged");
    settled(&mut walk.owner, LONG);
    assert_eq!(number(&mut walk.owner, &jobs), done);

    // One statement over all packages; and requests, of which each is a job.
    run(
        &mut walk.admin,
        &format!(
            "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE organization_id = '{}' AND status = 'ready'",
            near.id
        ),
    );
    let asked: i64 = value(
        &mut walk.admin,
        "SELECT cardinality(usher.enqueue_sync_jobs($1, 'marketplace', 'modules', ARRAY(
             SELECT jsonb_build_object('action', 'merge_configuration', 'module', 'm' || n % $2, 'configuration', jsonb_build_object('k' || n, n)) FROM generate_series(1::bigint, $3) AS n)))::bigint",
        &[&near.slug, &MODULES, &MERGES],
    );
    assert_eq!(asked, MERGES);
    settled(&mut walk.owner, LONG);
    walk.nothing_dead();
    walk.says(
        "each delivery is counted once, and every merge is there",
        &format!(
            "SELECT concat_ws(' ', (SELECT concat_ws(' ', count(*), count(DISTINCT data ->> 'package_id')) FROM usher.events WHERE organization_id = '{0}' AND type = 'analytics.track'),
                                   (SELECT concat_ws(' ', count(DISTINCT c.id), count(*), sum(k.value::integer)) FROM platform.module_configurations AS c, jsonb_each_text(c.configuration) AS k WHERE c.organization_id = '{0}'))",
            near.id
        ),
        &format!("{RUNS} {RUNS} {MODULES} {MERGES} {}", MERGES * (MERGES + 1) / 2),
    );
    assert_eq!(
        text(
            &mut walk.owner,
            "SELECT concat_ws(' ', (SELECT count(*) FROM usher.ready_jobs), (SELECT count(*) FROM usher.queue_waiting))"
        ),
        "0 0"
    );
    walk.holds(&near);
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}
