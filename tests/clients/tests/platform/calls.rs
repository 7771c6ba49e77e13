//! P7, and the calls for clients: a table on demand, and many rows at once.

use super::modules;
use super::rows::{both, execution, installation, module, package, remove, set, unheard, workflow};
use super::stage::{Bad, Case, Place, Stage, says, stage, unchanged};
use std::fmt::Write;
use usher_clients::postgres::Row;
use usher_clients::{Client, Uuid, Value, json, number, refused, run, text, value, wait};

fn sync(place: &Place, table: &str) -> String {
    format!("SELECT platform.sync_table('{table}', '{}');", place.slug)
}

/// A workflow whose modules nobody has activated, because nothing was heard of it.
fn unheard_workflow(place: &Place) -> String {
    module(place, "crm") + &module(place, "billing") + &unheard(&workflow(place, &[("required_modules", &both(place))]))
}

pub const SYNCED: Case = Case {
    pattern: "P7",
    name: "table synchronised on demand",
    targets: &["platform.module_activations"],
    prepare: unheard_workflow,
    act: |place| sync(place, "platform.orchestration_workflows"),
    check: modules::WORKFLOW.check,
    not_met: |place| sync(place, "marketplace_templates"),
    repeat: |place| sync(place, "orchestration_workflows"),
    bad: Bad {
        // Those of other cases, of which nothing was heard either, would go through.
        before: |place| {
            remove(place, "module_registry", "crm")
                + &unheard(&format!(
                    "UPDATE platform.orchestration_workflows SET status = 'archived' WHERE organization_id = '{}' AND id <> '{}';",
                    place.organization,
                    place.id("workflow")
                ))
        },
        act: |place| sync(place, "orchestration_workflows"),
        flow: "platform.synchronise_rows",
        error: "which is not registered",
        repair: |place| module(place, "crm"),
        changes: unchanged,
    },
};

/// Begins the synchronisation of a table and waits for its end.
fn synchronised(stage: &mut Stage, place: &Place, table: &str) -> Row {
    let operation: Uuid = value(&mut stage.admin, "SELECT platform.sync_table($1, $2)", &[&table, &place.slug]);
    let state = format!("SELECT state <> 'running' FROM platform.operation_status('{operation}')");
    wait::until_true(&mut stage.admin, &state);
    stage.settle();
    let sql = "SELECT state, total, done, failed, errors::text, table_name FROM platform.operation_status($1)";
    stage.admin.query_one(sql, &[&operation]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)))
}

#[test]
fn every_table_that_flows_read_is_synchronised_on_demand() {
    let stage = &mut *stage();
    // Nothing of all this was heard of: an installation, a completed execution, a package that is pending, a module that is active.
    let [north, south] = stage.rows(|place| {
        unheard(&format!(
            "{}{}INSERT INTO platform.module_activations (organization_id, module_id, status) VALUES ('{2}', '{3}', 'active');
             INSERT INTO platform.marketplace_templates (organization_id, id, code) VALUES ('{2}', '{4}', '{5}');",
            installation(place, "installed"),
            execution(place, "completed"),
            place.organization,
            place.id("billing"),
            place.id("template"),
            place.unique("template"),
        ))
    });
    let before = stage.everything(&south);
    let scene = format!(
        "SELECT concat_ws(' ', (SELECT count(*) FROM platform.module_configurations AS c WHERE c.installation_id = '{}'),
                          (SELECT string_agg(concat_ws(',', h.status, (SELECT count(*) FROM platform.handover_documentation AS d WHERE d.package_id = h.id AND (d.kind <> 'module_snapshot' OR d.source_ref IN ('{2}', '{3}')))), ' ')
                             FROM platform.handover_packages AS h WHERE h.execution_id = '{1}'),
                          (SELECT count(*) FROM usher.events AS e WHERE e.type = 'orchestration.template.available' AND e.data ->> 'template_id' = '{4}'))",
        north.id("installation"),
        north.id("execution"),
        north.id("billing"),
        north.id("crm"),
        north.id("template")
    );
    says(&mut stage.owner, &scene, "0 0");
    let tables = text(&mut stage.admin, "SELECT array_to_string(platform.synchronised_tables(), ' ')");
    assert_eq!(tables.split(' ').count(), 9);
    for (table, scene_after) in
        [("marketplace_installations", "2 0"), ("workflow_executions", "2 ready,5 0"), ("marketplace_templates", "2 ready,5 1")]
    {
        let row = synchronised(stage, &north, table);
        assert_eq!(row.get::<_, String>(0), "done", "{table}: {}", row.get::<_, String>(4));
        let counts: [i64; 3] = [row.get(1), row.get(2), row.get(3)];
        let rows: i64 = value(
            &mut stage.owner,
            &format!("SELECT count(*) FROM platform.{table} WHERE organization_id = $1"),
            &[&north.organization],
        );
        assert_eq!(counts, [rows, rows, 0], "{table}: a job for each row");
        assert_eq!(row.get::<_, String>(5), format!("platform.{table}"));
        says(&mut stage.owner, &scene, scene_after);
    }
    // What the packages say of modules is lost, and comes back by each of the tables that tell of them.
    for table in ["module_registry", "module_activations", "module_configurations", "marketplace_packages", "handover_packages"] {
        run(
            &mut stage.owner,
            &format!(
                "DELETE FROM platform.handover_documentation WHERE organization_id = '{}' AND source_ref = '{}'",
                north.organization,
                north.id("billing")
            ),
        );
        says(&mut stage.owner, &scene, "2 ready,4 1");
        assert_eq!(synchronised(stage, &north, table).get::<_, String>(0), "done", "{table}");
        says(&mut stage.owner, &scene, "2 ready,5 1");
    }
    let row = synchronised(stage, &north, "orchestration_workflows");
    assert_eq!(row.get::<_, String>(0), "done");
    // By request, too: the snapshot of one module, of all of them.
    for what in [format!(r#", "module_id": "{}""#, north.id("billing")), String::new()] {
        run(
            &mut stage.owner,
            &format!("DELETE FROM platform.handover_documentation WHERE source_ref = '{}'", north.id("billing")),
        );
        stage.act(&format!(
            "SELECT usher.enqueue_sync_job('north', 'modules', 'handover', '{{\"action\": \"snapshot_modules\"{what}}}')"
        ));
        says(&mut stage.owner, &scene, "2 ready,5 1");
    }
    assert_eq!(stage.dead(&north), []);
    assert_eq!(stage.everything(&south), before);
}

#[test]
fn an_operation_tells_which_rows_failed_and_why() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(unheard_workflow);
    run(&mut stage.owner, &remove(&north, "module_registry", "crm"));
    let row = synchronised(stage, &north, "orchestration_workflows");
    assert_eq!((row.get::<_, String>(0), row.get::<_, i64>(3)), ("failed".to_owned(), 1));
    let errors: Value = usher_clients::serde_json::from_str(row.get(4)).expect("errors are JSON");
    assert_eq!(errors[0]["row"], json!(north.id("workflow").to_string()));
    assert!(errors[0]["error"].as_str().expect("an error").contains("which is not registered"), "{errors}");
    assert_eq!(errors.as_array().map(Vec::len), Some(1));
    // Repaired and replayed, the operation is done.
    run(&mut stage.owner, &module(&north, "crm"));
    stage.act("SELECT usher.retry_dead_letters('north', '{\"flow\": \"platform.synchronise_rows\"}')");
    (SYNCED.check)(&mut stage.owner, &north);
    let operation: Uuid = value(
        &mut stage.owner,
        "SELECT id FROM usher.batches WHERE organization_id = $1 ORDER BY created_at DESC LIMIT 1",
        &[&north.organization],
    );
    says(
        &mut stage.admin,
        &format!("SELECT concat_ws(' ', state, failed, errors) FROM platform.operation_status('{operation}')"),
        "done 0 []",
    );

    // Who may not.
    for (admin, sql, code) in [
        (true, sync(&south, "orchestration_workflows"), "42501"),
        (true, sync(&north, "workflow_triggers"), "22023"),
        (true, sync(&north, "orchestration_workflows; DROP TABLE x"), "22023"),
        (false, sync(&north, "orchestration_workflows"), "42501"),
        (true, format!("SELECT platform.operation_status('{}')", north.id("nothing")), "42704"),
    ] {
        let client = if admin { &mut stage.admin } else { &mut stage.member };
        assert_eq!(refused(client, &sql).code().code(), code, "{sql}");
    }
    // A member of the organization reads how far it is; nobody else does.
    says(&mut stage.member, &format!("SELECT state FROM platform.operation_status('{operation}')"), "done");
    let foreign: Uuid = value(&mut stage.owner, "SELECT platform.sync_table('module_registry', 'south')", &[]);
    stage.settle();
    assert_eq!(refused(&mut stage.admin, &format!("SELECT platform.operation_status('{foreign}')")).code().code(), "42704");
}

/// What became of the operations, in short: how many of each outcome, and the errors.
fn outcomes(client: &mut Client, operations: &Value) -> String {
    let sql = "SELECT string_agg(concat_ws(' ', n, outcome, error), '; ' ORDER BY outcome, error)
                 FROM (SELECT count(*) AS n, outcome, error FROM platform.synchronize($1, 'north') GROUP BY 2, 3) AS r";
    value::<Option<String>>(client, sql, &[operations]).unwrap_or_default()
}

/// A thousand rows of five tables that refer to each other.
fn thousand(place: &Place) -> Vec<Value> {
    let upsert = |table: &str, row: Value| json!({"table": table, "action": "upsert", "row": row});
    let id = |name: &str, n: usize| place.id(&format!("{name} {n}"));
    let mut operations = Vec::new();
    // Executions first: what they refer to comes later in the call.
    for n in 0..200 {
        operations.push(upsert("workflow_executions", json!({"id": id("e", n), "workflow_id": id("w", n), "status": "skipped"})));
        operations.push(upsert("orchestration_workflows", json!({"id": id("w", n), "name": format!("W {n}"), "required_modules": [place.unique(&format!("m{n}"))], "status": "draft"})));
        operations.push(upsert(
            "module_registry",
            json!({"id": id("m", n), "code": place.unique(&format!("m{n}")), "config_schema": {"required": ["a"]}}),
        ));
        operations
            .push(upsert("module_configurations", json!({"id": id("c", n), "module_id": id("m", n), "configuration": {"a": n}})));
        operations
            .push(upsert("workflow_triggers", json!({"id": id("t", n), "workflow_id": id("w", n), "event_type": "never.heard"})));
    }
    operations
}

#[test]
fn a_thousand_rows_are_written_in_one_call_or_none_of_them() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(|_| String::new());
    let foreign = stage.everything(&south);
    let before = stage.everything(&north);
    let good = thousand(&north);
    assert_eq!(good.len(), 1000);

    // Three of them are wrong: one is seen at once, which holds back all others.
    let mut wrong = good.clone();
    wrong[4] = json!({"table": "workflow_triggers", "action": "replace", "row": {}});
    assert_eq!(
        outcomes(&mut stage.admin, &json!(wrong)),
        "999 not written; 1 refused the action is \"replace\" instead of upsert or delete"
    );
    // Two are seen by the table alone, a long way from each other.
    let mut wrong = good.clone();
    wrong[2]["row"]["code"] = json!(" ");
    wrong[702]["row"]["config_schema"] = json!("none");
    assert_eq!(
        outcomes(&mut stage.admin, &json!(wrong)),
        "998 not written; 1 refused new row for relation \"module_registry\" violates check constraint \"module_registry_code_given\"; 1 refused new row for relation \"module_registry\" violates check constraint \"module_registry_schema_object\""
    );
    // One refers to what is not there, one is of another type.
    for (at, field, value, error) in [
        (3, "module_id", json!(north.id("nothing")), "violates foreign key constraint \"module_configurations_module_fkey\""),
        (1, "auto_activate", json!("perhaps"), "invalid input syntax for type boolean"),
    ] {
        let mut wrong = good.clone();
        wrong[at]["row"][field] = value;
        let said = outcomes(&mut stage.admin, &json!(wrong));
        assert!(said.starts_with("999 not written; 1 refused ") && said.contains(error), "{said}");
    }
    stage.settle();
    assert_eq!(stage.everything(&north), before, "nothing was written");

    assert_eq!(outcomes(&mut stage.admin, &json!(good)), "1000 inserted");
    stage.settle();
    assert_eq!(outcomes(&mut stage.admin, &json!(good)), "1000 unchanged", "once more is no news");
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM platform.orchestration_workflows WHERE organization_id = $1 AND name LIKE 'W %' AND status = 'draft'),
                                        (SELECT sum((configuration ->> 'a')::integer) FROM platform.module_configurations WHERE organization_id = $1 AND configuration ? 'a'))";
    assert_eq!(value::<String>(&mut stage.owner, counts, &[&north.organization]), "200 19900");

    // Some change, some go, and the flows hear of it.
    let mut change: Vec<Value> = good[..20].to_vec();
    for (n, operation) in change.iter_mut().enumerate() {
        match operation["table"].as_str() {
            Some("module_configurations") => operation["row"]["configuration"] = json!({"a": 1000 + n}),
            Some("workflow_executions" | "workflow_triggers") => {
                *operation = json!({"table": operation["table"], "action": "delete", "row": {"id": operation["row"]["id"]}});
            }
            Some("orchestration_workflows") => operation["row"]["status"] = json!("active"),
            _ => {}
        }
    }
    change.push(json!({"table": "marketplace_templates", "action": "delete", "row": {"id": north.id("nothing")}}));
    assert_eq!(outcomes(&mut stage.admin, &json!(change)), "1 absent; 8 deleted; 4 unchanged; 8 updated");
    stage.settle();
    let sql = format!(
        "SELECT string_agg(a.status, ',') FROM platform.module_activations AS a WHERE a.organization_id = '{}' AND a.workflow_id IN ('{}', '{}', '{}', '{}')",
        north.organization,
        north.id("w 0"),
        north.id("w 1"),
        north.id("w 2"),
        north.id("w 3")
    );
    says(&mut stage.owner, &sql, "active,active,active,active");
    assert_eq!(stage.dead(&north), []);
    assert_eq!(stage.everything(&south), foreign, "nothing of the other organization has changed");
}

#[test]
fn synchronize_is_for_admins_and_their_own_rows() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(package);
    let before = [stage.everything(&north), stage.everything(&south)];
    let one = |row: Value| json!([{"table": "module_registry", "action": "upsert", "row": row}]);
    for (operations, error) in [
        (
            one(json!({"id": north.id("x"), "code": "x", "organization_id": south.organization})),
            "1 refused the row is of another organization",
        ),
        (one(json!({"id": north.id("x"), "code": "x", "version": 7})), "1 refused \"version\" is no column to be written"),
        (one(json!({"id": "x", "code": "x"})), "1 refused the row has no id that is a uuid"),
        (one(json!("x")), "1 refused the row is no object"),
        (json!([7]), "1 refused the operation is no object"),
        (
            json!([{"table": "handover_documentation", "action": "upsert", "row": {"id": north.id("x")}}]),
            "1 refused there is no table \"handover_documentation\" to be written",
        ),
        (
            json!([{"table": "module_registry\"; DROP TABLE x", "action": "upsert", "row": {"id": north.id("x")}}]),
            "1 refused there is no table \"module_registry\"; DROP TABLE x\" to be written",
        ),
        (
            json!([{"table": "module_registry", "action": "delete", "row": {"id": north.id("crm")}}, {"table": "module_registry", "action": "upsert", "row": {"id": north.id("crm"), "code": "y"}}]),
            "2 refused the row occurs more than once",
        ),
        // A row of the other organization with this id is another row: nothing is deleted.
        (json!([{"table": "module_registry", "action": "delete", "row": {"id": south.id("crm")}}]), "1 absent"),
        // A secret is no reference to one.
        (
            json!([{"table": "handover_credentials", "action": "upsert", "row": {"id": north.id("x"), "package_id": north.id("x"), "secret_ref": "hunter2 Passw0rd", "issued_to": "ann"}}]),
            "1 refused new row for relation \"handover_credentials\" violates check constraint \"handover_credentials_reference_only\"",
        ),
        (json!([]), ""),
    ] {
        assert_eq!(outcomes(&mut stage.admin, &operations), error, "{operations}");
    }
    let code = json!([{"table": "module_registry", "action": "upsert", "row": {"id": north.id("x"), "code": "x"}}]).to_string();
    for (admin, sql, code) in [
        (false, format!("SELECT platform.synchronize('{code}', 'north')"), "42501"),
        (true, format!("SELECT platform.synchronize('{code}', 'south')"), "42501"),
        (true, format!("SELECT platform.synchronize('{code}', '{}')", south.organization), "42501"),
        (true, "SELECT platform.synchronize('{}', 'north')".to_owned(), "22023"),
        (true, "SELECT platform.synchronize(NULL, 'north')".to_owned(), "22023"),
        (
            true,
            "SELECT platform.synchronize((SELECT jsonb_agg(n) FROM generate_series(1, 10001) AS n), 'north')".to_owned(),
            "54000",
        ),
        // Around the function: row level security says the same.
        (
            false,
            format!("INSERT INTO platform.module_registry (organization_id, code) VALUES ('{}', 'x')", north.organization),
            "42501",
        ),
        (
            true,
            format!("INSERT INTO platform.module_registry (organization_id, code) VALUES ('{}', 'x')", south.organization),
            "42501",
        ),
        (
            true,
            format!(
                "INSERT INTO platform.handover_documentation (organization_id, package_id, kind, source_ref, body) VALUES ('{}', '{}', 'result', 'x', '{{}}')",
                north.organization,
                north.id("x")
            ),
            "42501",
        ),
    ] {
        let client = if admin { &mut stage.admin } else { &mut stage.member };
        assert_eq!(refused(client, &sql).code().code(), code, "{sql}");
    }
    assert_eq!([stage.everything(&north), stage.everything(&south)], before);
    // The only organization need not be named.
    assert_eq!(text(&mut stage.admin, &format!("SELECT outcome FROM platform.synchronize('{code}')")), "inserted");
    assert_eq!(
        number(&mut stage.admin, "SELECT count(DISTINCT organization_id) FROM platform.module_registry"),
        1,
        "others are not seen"
    );
}

/// Two who write the same rows from both ends neither wait for each other for ever nor write half.
#[test]
fn two_calls_about_the_same_rows_come_one_after_the_other() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(|_| String::new());
    let rows = |note: &str, backwards: bool| {
        let mut operations: Vec<Value> = (0..200)
            .map(|n| json!({"table": "marketplace_templates", "action": "upsert", "row": {"id": north.id(&format!("{n}")), "code": north.unique(&format!("t{n}")), "template_version": note}}))
            .collect();
        if backwards {
            operations.reverse();
        }
        json!(operations)
    };
    assert_eq!(outcomes(&mut stage.admin, &rows("0", false)), "200 inserted");
    let sessions: Vec<_> = (0..4)
        .map(|n| {
            let (mut client, operations) = (stage.database.connect_as(super::stage::ADMIN), rows(&format!("{n}"), n % 2 == 1));
            std::thread::spawn(move || outcomes(&mut client, &operations))
        })
        .collect();
    for session in sessions {
        let said = session.join().expect("a session has panicked");
        assert!(said == "200 updated" || said == "200 unchanged", "{said}");
    }
    stage.settle();
    let versions = format!(
        "SELECT count(DISTINCT template_version) FROM platform.marketplace_templates WHERE organization_id = '{}' AND code LIKE 't%-{}'",
        north.organization, north.case
    );
    assert_eq!(number(&mut stage.owner, &versions), 1, "one of them was the last for all rows");
}

/// States that do not follow each other are refused, whoever asks.
#[test]
fn steps_that_there_are_not_are_refused() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(|place| {
        let mut sql = workflow(place, &[]);
        for status in ["pending", "running", "failed", "skipped"] {
            let error = if status == "failed" { "'why'" } else { "NULL" };
            writeln!(
                sql,
                "INSERT INTO platform.workflow_executions (organization_id, id, workflow_id, status, error) VALUES ('{}', '{}', '{}', '{status}', {error});",
                place.organization,
                place.id(status),
                place.id("workflow")
            )
            .expect("a string can be written");
        }
        sql + &installation(place, "failed")
            + &format!(
                "INSERT INTO platform.module_activations (organization_id, id, module_id, status) VALUES ('{}', '{}', '{}', 'failed');",
                place.organization,
                place.id("activation"),
                place.id("crm")
            )
    });
    for (table, name, what) in [
        ("workflow_executions", "failed", "status = 'completed', error = NULL"),
        ("workflow_executions", "failed", "status = 'running'"),
        ("workflow_executions", "skipped", "status = 'completed'"),
        ("workflow_executions", "pending", "status = 'completed'"),
        ("workflow_executions", "running", "status = 'pending'"),
        ("workflow_executions", "running", "status = 'failed'"),
        ("workflow_executions", "running", "completed_at = now()"),
        ("workflow_executions", "running", "status = 'completed', error = 'why'"),
        ("module_activations", "activation", "status = 'active'"),
        ("marketplace_installations", "installation", "status = 'installed'"),
    ] {
        for client in [&mut stage.admin, &mut stage.owner] {
            let error = refused(client, &set(&north, table, name, what));
            assert_eq!(error.code().code(), "23514", "{table} {name} {what}: {error:?}");
        }
    }
    stage.act(&set(&north, "workflow_executions", "running", "status = 'completed', completed_at = now()"));
    let package = format!(
        "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE execution_id = '{}'",
        north.id("running")
    );
    stage.act(&package);
    for back in ["ready", "pending", "failed"] {
        let sql = format!(
            "UPDATE platform.handover_packages SET status = '{back}', delivered_at = NULL WHERE execution_id = '{}'",
            north.id("running")
        );
        assert_eq!(refused(&mut stage.owner, &sql).code().code(), "23514", "{back}");
    }
}
