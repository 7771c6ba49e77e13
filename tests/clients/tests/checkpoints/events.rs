//! Events: who is heard first, what one brings about elsewhere and that again, and what was never said.

use super::stage::{suite, walk};
use usher_clients::{flow, json, number, refused, role, run, wait};

const ROUNDS: i64 = 5;
const EACH: i64 = 5;

/// A function that waits for whoever holds this lock keeps a worker in the middle of a job.
const LOCK: i64 = 0x1e77e2;

pub fn reactions() {
    let mut walk = walk("events");
    walk.prepare(|town| {
        suite(town)
            + &town.add("orchestration_workflows", "listens", &[("name", "'Listens'"), ("required_modules", "'{billing}'")])
            + &town.add(
                "workflow_triggers",
                "trigger",
                &[("workflow_id", &town.the("listens")), ("event_type", "'orchestration.workflow.module.ready'")],
            )
    });
    let before = walk.elsewhere();
    order(&mut walk);
    cascade(&mut walk);
    never_said(&mut walk);
    walk.nothing_dead();
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}

/// While a worker is busy, events of all lanes gather: the critical ones do not wait for it, and the others go by rank, not by their time.
fn order(walk: &mut super::stage::Walk) {
    let near = walk.near.clone();
    let here = &mut walk.owner;
    role(here, "clients_walk_events", "NOLOGIN");
    run(
        here,
        &format!(
            "CREATE FUNCTION public.walk_wait(organization uuid) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); END $$;
             GRANT EXECUTE ON FUNCTION public.walk_wait(uuid) TO clients_walk_events"
        ),
    );
    flow(
        here,
        "walk_wait",
        &json!({
            "from": "platform", "to": "platform", "when": {"request": "walk_wait"}, "then": {"call": "public.walk_wait", "effect": "sql"},
            "set": {"organization": "job.organization_id"}, "run_as": "clients_walk_events", "lock_timeout": "5min"
        }),
    );
    let mut holder = walk.database.connect();
    let mut in_order = 0;
    for round in 0..ROUNDS {
        run(&mut holder, &format!("SELECT pg_advisory_lock({LOCK})"));
        run(
            &mut walk.owner,
            // In the lowest lane, so that it takes nobody else's turn.
            &format!(
                "SELECT usher.enqueue_sync_job('{}', 'platform', 'platform', '{{\"action\": \"walk_wait\"}}', 'low')",
                near.slug
            ),
        );
        wait::until_true(
            &mut walk.owner,
            &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK} AND NOT granted)"),
        );
        // The least important first.
        let said: Vec<String> = [
            ("marketplace.template.updated", r#""code": "t""#),
            ("module.activated", r#""module": "crm""#),
            ("workflow.created", r#""status": "active", "required_modules": ["crm"], "auto_activate": true"#),
            ("system.error", r#""message": "Disk full""#),
        ]
        .iter()
        .map(|(event, data)| {
            format!(
                "SELECT usher.emit_event('{}', '{event}', '{{{data}, \"round\": {round}}}') FROM generate_series(1, {EACH})",
                near.slug
            )
        })
        .collect();
        run(&mut walk.admin, &format!("BEGIN; {}; COMMIT", said.join("; ")));
        // What follows each of them, in the order in which it came.
        let followed = |event: &str, heard: &str| {
            format!(
                "(SELECT COALESCE(array_agg(f.id::text ORDER BY f.id), '{{}}') FROM usher.events AS f JOIN usher.sync_jobs AS j ON j.id = f.cause JOIN usher.events AS h ON h.id::text = j.payload ->> 'id'
                   WHERE f.organization_id = '{}' AND f.type = '{event}' AND h.type = '{heard}' AND (h.data ->> 'round')::integer = {round})",
                near.id
            )
        };
        let (low, normal, high, critical) = (
            followed("orchestration.template.available", "marketplace.template.updated"),
            followed("orchestration.workflow.module.ready", "module.activated"),
            followed("module.activation.requested", "workflow.created"),
            followed("monitoring.alert", "system.error"),
        );
        wait::until_true(&mut walk.owner, &format!("SELECT cardinality({critical}) = {EACH}"));
        let others = number(&mut walk.owner, &format!("SELECT cardinality({low} || {normal} || {high})::bigint"));
        assert_eq!(others, 0, "the critical ones have not waited for the worker that is busy, the others have");
        run(&mut holder, &format!("SELECT pg_advisory_unlock({LOCK})"));
        walk.settle();
        let sql = format!(
            "SELECT (cardinality(l) = {EACH} AND cardinality(n) = {EACH} AND cardinality(h) = {EACH})::text || ' ' || (h[{EACH}] < n[1] AND n[{EACH}] < l[1])::text FROM (SELECT {low} AS l, {normal} AS n, {high} AS h) AS e"
        );
        let said = usher_clients::text(&mut walk.owner, &sql);
        assert!(said.starts_with("true "), "each event has brought about one: {said}");
        in_order += i64::from(said == "true true");
    }
    // Now and then it is a lower lane's turn: none starves.
    assert!(in_order >= ROUNDS - 1, "{in_order} of {ROUNDS} rounds went by rank");
    run(&mut walk.owner, "SELECT usher.drop_flow('walk_wait'); DROP FUNCTION public.walk_wait(uuid)");
    run(
        &mut walk.owner,
        &format!("UPDATE platform.workflow_executions SET status = 'skipped' WHERE organization_id = '{}'", near.id),
    );
    walk.settle();
}

/// A workflow that only asks: an admin decides, its module is ready, another workflow hears of that and is run, and switches on the module that it needs itself.
fn cascade(walk: &mut super::stage::Walk) {
    let near = walk.near.clone();
    let billing = |status: &str| {
        format!(
            "UPDATE platform.module_activations SET status = '{status}' WHERE organization_id = '{}' AND module_id = '{}'",
            near.id,
            near.id("billing")
        )
    };
    run(&mut walk.owner, &format!("DELETE FROM platform.workflow_executions WHERE organization_id = '{}'", near.id));
    walk.act(&near.add(
        "orchestration_workflows",
        "asks",
        &[("name", "'Asks'"), ("required_modules", "'{crm}'"), ("auto_activate", "false")],
    ));
    let activations = format!(
        "SELECT string_agg(concat_ws(' ', m.code, a.status), ', ' ORDER BY m.code) FROM platform.module_activations AS a JOIN platform.module_registry AS m ON m.organization_id = a.organization_id AND m.id = a.module_id
          WHERE a.organization_id = '{}' AND m.code = 'crm'",
        near.id
    );
    walk.says("asked for", &activations, "crm pending");
    // Switched off at the same moment, so that only the run can have switched it on again.
    run(
        &mut walk.admin,
        &format!(
            "BEGIN; {}; UPDATE platform.module_activations SET status = 'active' WHERE organization_id = '{}' AND module_id = '{}'; COMMIT",
            billing("inactive"),
            near.id,
            near.id("crm")
        ),
    );
    walk.settle();
    walk.says("decided", &activations, "crm active");
    walk.says(
        "the run that it has begun, from the event back to the row",
        &format!(
            "SELECT concat_ws(' | ', count(DISTINCT e.id), string_agg(DISTINCT concat_ws(' ', e.status, e.input ->> 'module', r.type, j.flow, h.type, c.flow), ', '))
               FROM platform.workflow_executions AS e
               JOIN usher.events AS r ON r.id = e.trigger_event
               JOIN usher.sync_jobs AS j ON j.id = r.cause
               JOIN usher.events AS h ON h.id::text = j.payload ->> 'id'
               JOIN usher.sync_jobs AS c ON c.id = h.cause
              WHERE e.organization_id = '{}' AND e.workflow_id = '{}' AND e.input ->> 'module' = 'crm'",
            near.id,
            near.id("listens")
        ),
        "1 | pending crm orchestration.workflow.module.ready platform.announce_workflow_module_ready module.activated platform.announce_module_activated",
    );
    walk.says(
        "and what came of the run, which begins the next one, once",
        &format!(
            "SELECT concat_ws(' | ', (SELECT status FROM platform.module_activations WHERE organization_id = '{0}' AND module_id = '{1}'),
                    (SELECT string_agg(e.input ->> 'module', ', ' ORDER BY e.input ->> 'module') FROM platform.workflow_executions AS e WHERE e.organization_id = '{0}' AND e.workflow_id = '{2}'))",
            near.id,
            near.id("billing"),
            near.id("listens")
        ),
        "active | billing, crm",
    );
}

/// What is rolled back, or said by somebody who may not, nobody hears.
fn never_said(walk: &mut super::stage::Walk) {
    let (near, far) = (walk.near.clone(), walk.far.clone());
    let count = format!("SELECT count(*) FROM usher.events WHERE organization_id = '{}'", near.id);
    let before = number(&mut walk.owner, &count);
    run(
        &mut walk.admin,
        &format!(
            "BEGIN; {}; SAVEPOINT s; {} ROLLBACK TO SAVEPOINT s; ROLLBACK",
            near.emit("system.error", "{\"message\": \"x\"}").trim_end_matches(';'),
            near.emit("workflow.created", "{}")
        ),
    );
    run(&mut walk.admin, &format!("BEGIN; SAVEPOINT s; {} ROLLBACK TO SAVEPOINT s; COMMIT", near.emit("workflow.created", "{}")));
    let error = refused(&mut walk.admin, &far.emit("system.error", "{\"message\": \"x\"}"));
    assert_eq!(error.code().code(), "42501", "{error:?}");
    walk.settle();
    assert_eq!(number(&mut walk.owner, &count), before);
}
