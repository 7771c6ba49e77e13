//! What fails for a while goes through by itself, what fails for good is kept and can be put right, and neither a worker's nor the server's end changes that.

use super::stage::{Walk, run_of, suite, walk};
use usher_clients::{number, run, server, value, wait};

const RUNS: i64 = 150;

pub fn recovered() {
    let mut walk = walk("failures");
    walk.prepare(|town| {
        suite(town)
            + &run_of(town, "one", "running", &[])
            + &town.add("marketplace_installations", "installed", &[("package_id", &town.the("suite"))])
    });
    let near = walk.near.clone();
    let before = walk.elsewhere();

    // For good: told of, kept with its row, in a letter of its own.
    walk.act(&near.set(
        "marketplace_installations",
        "installed",
        r#"status = 'installed', configuration = '{"crm": {"seats": "many"}}'"#,
    ));
    walk.died("configure_installed_modules", "\"seats\" is no integer");
    let tries = "SELECT string_agg(attempts::text, ',') FROM usher.dead_letters WHERE organization_id = $1";
    assert_eq!(value::<String>(&mut walk.owner, tries, &[&near.id]), "4", "it was tried again three times");

    // For a while: tried again, ever later. The retries of this one flow take longer than the trouble.
    let retry = |delays: &str| {
        format!(
            "SELECT usher.alter_flow(name, definition || '{{\"retry\": {{\"delays\": {delays}, \"jitter\": 0}}}}') FROM usher.flows WHERE name = 'platform.activate_modules_of_workflow'"
        )
    };
    run(
        &mut walk.owner,
        &retry("[0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2, 3.2]"),
    );
    run(
        &mut walk.owner,
        &format!(
            "ALTER TABLE platform.module_activations ADD CONSTRAINT walk_trouble CHECK (organization_id <> '{}') NOT VALID",
            near.id
        ),
    );
    run(
        &mut walk.admin,
        &near.add("orchestration_workflows", "needs", &[("name", "'Needs'"), ("required_modules", "'{crm,billing}'")]),
    );
    let pauses = backoff(&mut walk);
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "each pause is longer than the one before: {pauses:?}");
    assert_eq!(
        number(
            &mut walk.owner,
            &format!("SELECT count(*) FROM platform.module_activations WHERE organization_id = '{}'", near.id)
        ),
        0
    );

    // Meanwhile a worker dies, in the middle of others' work, and the server with it.
    let runs: String = (0..RUNS)
        .map(|n| run_of(&near, &format!("r{n}"), "completed", &[("outputs", r#"'{"artifacts": [{"name": "a"}]}'"#)]))
        .collect();
    run(&mut walk.admin, &format!("BEGIN; {runs} COMMIT"));
    wait::until_true(&mut walk.owner, "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE status = 'in_progress')");
    let pid = server::worker_of(&mut walk.owner, "normal").expect("a worker serves the normal lane");
    let mut witness = walk.database.connect();
    walk.owner = server::kill_and_recover(&walk.database, &mut witness, pid);
    walk.admin = walk.database.connect_as(&walk.login);

    // What could not be done then is still to be done, and the letter still there.
    let waits = format!(
        "SELECT COALESCE(bool_and(status IN ('failed', 'in_progress') AND attempts >= 3), false) FROM usher.sync_jobs WHERE organization_id = '{}' AND flow = 'platform.activate_modules_of_workflow' AND status <> 'synced'",
        near.id
    );
    wait::until_true(&mut walk.owner, &waits);
    walk.died("configure_installed_modules", "\"seats\" is no integer");

    // The trouble is over, and nobody has to do anything.
    run(&mut walk.owner, "ALTER TABLE platform.module_activations DROP CONSTRAINT walk_trouble");
    walk.settle();
    let activated = format!(
        "SELECT string_agg(concat_ws(' ', m.code, a.status), ', ' ORDER BY m.code) FROM platform.module_activations AS a JOIN platform.module_registry AS m ON m.organization_id = a.organization_id AND m.id = a.module_id WHERE a.organization_id = '{}'",
        near.id
    );
    walk.says("it went through by itself", &activated, "billing active, crm active");
    let once = format!(
        "SELECT concat_ws(' ', count(*), bool_and(attempts >= 4)) FROM usher.sync_jobs WHERE organization_id = '{}' AND flow = 'platform.activate_modules_of_workflow' AND status = 'synced' AND payload -> 'new' ->> 'id' = '{}'",
        near.id,
        near.id("needs")
    );
    walk.says("one job, of several attempts", &once, "1 t");
    run(&mut walk.owner, &retry("[0.1, 0.2, 0.3]"));

    // What the worker was doing when it died is done, once.
    walk.says(
        "each run has its package, and the bus has heard of it once",
        &format!(
            "SELECT concat_ws(' ', count(*), bool_and(s.packages = 1 AND s.documents = 2 AND s.heard = 1 AND s.made = 1)) FROM (
                 SELECT (SELECT count(*) FROM platform.handover_packages AS h WHERE h.organization_id = e.organization_id AND h.execution_id = e.id AND h.status = 'ready') AS packages,
                        (SELECT count(*) FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
                          WHERE h.organization_id = e.organization_id AND h.execution_id = e.id AND d.kind <> 'module_snapshot') AS documents,
                        (SELECT count(*) FROM usher.events AS v WHERE v.organization_id = e.organization_id AND v.type = 'workflow.execution.completed' AND v.data ->> 'execution_id' = e.id::text) AS heard,
                        (SELECT count(*) FROM usher.events AS v WHERE v.organization_id = e.organization_id AND v.type = 'handover.package.created' AND v.data ->> 'execution_id' = e.id::text) AS made
                   FROM platform.workflow_executions AS e WHERE e.organization_id = '{}' AND e.status = 'completed') AS s",
            near.id
        ),
        &format!("{RUNS} t"),
    );

    // What failed for good is put right by somebody, and replayed by an admin.
    run(
        &mut walk.owner,
        &format!(
            "BEGIN; SET LOCAL usher.capture = off; {} COMMIT",
            near.set("marketplace_installations", "installed", r#"configuration = '{"crm": {"seats": 12}}'"#)
        ),
    );
    // The rule may have been sooner: then there is nothing left to do for the replay, which does no harm.
    walk.replay("configure_installed_modules", "{}");
    let configured = format!(
        "SELECT string_agg(c.configuration::text, ', ' ORDER BY c.configuration::text COLLATE \"C\") FROM platform.module_configurations AS c WHERE c.organization_id = '{}'",
        near.id
    );
    walk.says("replayed", &configured, r#"{"seats": 12}, {}"#);
    walk.nothing_dead();
    walk.holds(&near);
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}

/// The pauses after the first attempts, in milliseconds, as the hub has planned them.
fn backoff(walk: &mut Walk) -> Vec<i64> {
    let sql = format!(
        "SELECT (EXTRACT(epoch FROM run_at - last_attempted_at) * 1000)::bigint, attempts FROM usher.sync_jobs
          WHERE organization_id = '{}' AND flow = 'platform.activate_modules_of_workflow' AND status = 'failed' AND run_at > last_attempted_at",
        walk.near.id
    );
    let mut pauses: Vec<(i32, i64)> = Vec::new();
    wait::until(wait::LONG, "it was tried four times", || {
        if let Ok(Some(row)) = walk.owner.query_opt(&sql, &[]) {
            let (pause, attempts): (i64, i32) = (row.get(0), row.get(1));
            if pauses.last().is_none_or(|(last, _)| *last < attempts) {
                pauses.push((attempts, pause));
            }
        }
        pauses.last().is_some_and(|(last, _)| *last >= 4)
    });
    pauses.into_iter().map(|(_, pause)| pause).collect()
}
