//! The rules of the pack, as queries and repairs: what each finds, in whose organization, and that its repair mends it.

use super::rows::{OUTPUTS, both, execution, installation, module, set, unheard, workflow};
use super::stage::{Place, Stage, says, stage};
use usher_clients::{Client, SqlState, Value, refused, run, serde_json, text, value, wait};

fn rule(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../sql/packs/platform/rules/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect("a rule's file")).expect("a rule is JSON")
}

fn part<'a>(rule: &'a Value, path: &str) -> &'a str {
    rule.pointer(path).and_then(Value::as_str).expect(path)
}

/// What the rule says of rows of this case, in one organization. As the pack's role sees it.
fn found(here: &mut Client, rule: &Value, place: &Place) -> String {
    let query = part(rule, "/query");
    let keys: Vec<&str> = rule["key"].as_array().expect("a key").iter().filter_map(Value::as_str).collect();
    let distinct = format!(
        "WITH bad AS ({query}) SELECT count(*)::text || ' ' || count(DISTINCT (bad.organization_id, {}))::text FROM bad",
        keys.iter().map(|key| format!("bad.{key}")).collect::<Vec<_>>().join(", ")
    );
    run(here, "SET ROLE usher_platform");
    let counted = text(here, &distinct);
    let (all, different) = counted.split_once(' ').expect("two counts");
    assert_eq!(all, different, "the key tells bad rows apart");
    let said = text(
        here,
        &format!(
            "WITH bad AS ({query}) SELECT COALESCE(string_agg(said, '; ' ORDER BY said), '') FROM (
                 SELECT regexp_replace({}, '[0-9a-f]{{8}}-[0-9a-f-]{{27}}', '…', 'g') AS said FROM bad
                  WHERE bad.organization_id = '{}' AND to_jsonb(bad)::text ~ ANY (ARRAY[{}])) AS s",
            part(rule, "/wrong"),
            place.organization,
            ids(place)
        ),
    );
    run(here, "RESET ROLE");
    said
}

/// What tells rows of this case from those of others.
fn ids(place: &Place) -> String {
    let ids = ["workflow", "installation", "execution", "billing", "crm"].map(|name| format!("'{}'", place.id(name)));
    ids.join(", ")
}

/// Repairs what is bad of this case in one organization; returns how many rows were written.
fn repair(here: &mut Client, rule: &Value, place: &Place) -> u64 {
    let sql = format!(
        "WITH bad AS (SELECT q.* FROM ({}) AS q WHERE q.organization_id = '{}' AND to_jsonb(q)::text ~ ANY (ARRAY[{}])) {}",
        part(rule, "/query"),
        place.organization,
        ids(place),
        part(rule, "/repair/statement")
    );
    run(here, "SET ROLE usher_platform");
    let written = here.execute(sql.as_str(), &[]).unwrap_or_else(|error| panic!("{}", usher_clients::wait::describe(&error)));
    run(here, "RESET ROLE");
    written
}

/// A rule finds what is broken in both organizations, says it, and mends the one that it is told to.
fn finds_and_mends(
    name: &str,
    prepare: fn(&Place) -> String,
    break_it: fn(&Place) -> String,
    wrong: fn(&Place) -> String,
    rows: u64,
) -> (std::sync::MutexGuard<'static, Stage>, Place) {
    let mut stage = stage();
    let rule = rule(name);
    let [north, south] = stage.rows(prepare);
    for place in [&north, &south] {
        assert_eq!(found(&mut stage.owner, &rule, place), "", "{name}: all is well to begin with");
        run(&mut stage.owner, &unheard(&break_it(place)));
    }
    stage.settle();
    for place in [&north, &south] {
        assert_eq!(found(&mut stage.owner, &rule, place), wrong(place), "{name}");
    }
    assert_eq!(repair(&mut stage.owner, &rule, &north), rows, "{name}: repaired");
    stage.settle();
    assert_eq!(found(&mut stage.owner, &rule, &north), "", "{name}: nothing is left");
    assert_eq!(found(&mut stage.owner, &rule, &south), wrong(&south), "{name}: the other organization's stays as it is");
    assert_eq!(repair(&mut stage.owner, &rule, &north), 0, "{name}: a second time there is nothing to do");
    assert_eq!(stage.dead(&north), []);
    // So that it is not in the way of others.
    repair(&mut stage.owner, &rule, &south);
    stage.settle();
    (stage, north)
}

#[test]
fn a_workflow_that_needs_modules_has_activations() {
    let (mut stage, north) = finds_and_mends(
        "workflow_has_activations",
        |place| module(place, "crm") + &module(place, "billing") + &workflow(place, &[("required_modules", &both(place))]),
        |place| {
            format!(
                "DELETE FROM platform.module_activations WHERE organization_id = '{}' AND module_id IN ('{}', '{}');",
                place.organization,
                place.id("billing"),
                place.id("crm")
            )
        },
        |place| {
            format!(
                "workflow \"{0}\" needs module \"{1}\", which is not activated; workflow \"{0}\" needs module \"{2}\", which is not activated",
                place.unique("Onboarding"),
                place.unique("billing"),
                place.unique("crm")
            )
        },
        2,
    );
    says(&mut stage.owner, &activations(&north), "active,active");
}

fn activations(place: &Place) -> String {
    format!(
        "SELECT string_agg(status, ',' ORDER BY status) FROM platform.module_activations WHERE organization_id = '{}' AND module_id IN ('{}', '{}')",
        place.organization,
        place.id("crm"),
        place.id("billing")
    )
}

/// What failed, and what somebody has switched off, no repair switches on.
#[test]
fn what_people_have_to_decide_is_not_repaired() {
    let stage = &mut *stage();
    let [north, _] = stage
        .rows(|place| module(place, "crm") + &module(place, "billing") + &workflow(place, &[("required_modules", &both(place))]));
    let rule = rule("workflow_has_activations");
    let broken = |module: &str, status: &str| {
        format!(
            "UPDATE platform.module_activations SET status = '{status}' WHERE organization_id = '{}' AND module_id = '{}';",
            north.organization,
            north.id(module)
        )
    };
    run(&mut stage.owner, &unheard(&(broken("crm", "failed") + &broken("billing", "inactive"))));
    stage.settle();
    let wrong = format!(
        "workflow \"{0}\" needs module \"{1}\", which is inactive; workflow \"{0}\" needs module \"{2}\", which is failed",
        north.unique("Onboarding"),
        north.unique("billing"),
        north.unique("crm")
    );
    assert_eq!(found(&mut stage.owner, &rule, &north), wrong);
    assert_eq!(repair(&mut stage.owner, &rule, &north), 0);
    says(&mut stage.owner, &activations(&north), "failed,inactive");
    // By itself it stays open, and is told to be for people.
    run(&mut stage.owner, "SELECT usher.enable_rule('platform.workflow_has_activations')");
    let manual = format!(
        "SELECT count(*) = 2 FROM usher.violations WHERE rule = 'platform.workflow_has_activations' AND organization_id = '{}' AND key ->> 'workflow_id' = '{}' AND status = 'open' AND manual",
        north.organization,
        north.id("workflow")
    );
    wait::until_true_for(&mut stage.owner, wait::LONG * 3, &manual);
    says(&mut stage.owner, &activations(&north), "failed,inactive");
    run(&mut stage.owner, &set(&north, "orchestration_workflows", "workflow", "status = 'archived'"));
}

#[test]
fn an_installation_has_configuration() {
    let (mut stage, north) = finds_and_mends(
        "installation_has_configuration",
        |place| installation(place, "installed"),
        |place| {
            format!(
                "DELETE FROM platform.module_configurations WHERE organization_id = '{}' AND module_id = '{}';",
                place.organization,
                place.id("crm")
            )
        },
        |place| {
            format!(
                "package \"{}\" is installed, and its module \"{}\" has no configuration",
                place.unique("suite"),
                place.unique("crm")
            )
        },
        1,
    );
    let sql = format!(
        "SELECT configuration::text FROM platform.module_configurations WHERE organization_id = '{}' AND module_id = '{}'",
        north.organization,
        north.id("crm")
    );
    says(&mut stage.owner, &sql, r#"{"seats": 5, "region": "eu"}"#);
}

#[test]
fn a_package_holds_all_module_data() {
    let (mut stage, north) = finds_and_mends(
        "package_holds_module_data",
        |place| installation(place, "installed") + &execution(place, "completed"),
        |place| {
            format!(
                "DELETE FROM platform.handover_documentation WHERE organization_id = '{0}' AND source_ref = '{1}'
                     AND package_id = (SELECT h.id FROM platform.handover_packages AS h WHERE h.organization_id = '{0}' AND h.execution_id = '{2}');
                 UPDATE platform.handover_documentation SET body = body || '{{\"configuration\": {{}}}}' WHERE organization_id = '{0}' AND source_ref = '{3}'
                     AND package_id = (SELECT h.id FROM platform.handover_packages AS h WHERE h.organization_id = '{0}' AND h.execution_id = '{2}');",
                place.organization,
                place.id("billing"),
                place.id("execution"),
                place.id("crm")
            )
        },
        |place| {
            format!(
                "handover package … holds an old state of module \"{}\"; handover package … lacks module \"{}\"",
                place.unique("crm"),
                place.unique("billing")
            )
        },
        2,
    );
    let sql = format!(
        "SELECT bool_and(d.body = m.body)::text || ' ' || count(*) FROM platform.handover_documentation AS d JOIN platform.module_data AS m ON m.organization_id = d.organization_id AND m.module_id::text = d.source_ref
          WHERE d.organization_id = '{}' AND d.package_id = (SELECT id FROM platform.handover_packages WHERE execution_id = '{}') AND m.module_id IN ('{}', '{}')",
        north.organization,
        north.id("execution"),
        north.id("crm"),
        north.id("billing")
    );
    says(&mut stage.owner, &sql, "true 2");
}

#[test]
fn a_completed_execution_has_a_package() {
    let (mut stage, north) = finds_and_mends(
        "completed_execution_has_package",
        |place| execution(place, "running"),
        |place| set(place, "workflow_executions", "execution", "status = 'completed', completed_at = now()"),
        |place| format!("execution … of workflow \"{}\" is completed and has no handover package", place.unique("Onboarding")),
        1,
    );
    // The flow that follows what is pending has filled it.
    let sql = format!(
        "SELECT concat_ws(' ', h.status, h.client_ref = '{}', (SELECT count(*) FROM platform.handover_documentation AS d WHERE d.package_id = h.id AND d.kind <> 'module_snapshot'))
           FROM platform.handover_packages AS h WHERE h.organization_id = '{}' AND h.execution_id = '{}'",
        north.unique("client"),
        north.organization,
        north.id("execution")
    );
    says(&mut stage.owner, &sql, "ready t 3");
    assert!(OUTPUTS.contains("logo.svg"));
}

/// What no repair can know stays for people.
#[test]
fn what_cannot_be_repaired_is_left_to_people() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(|place| unheard(&workflow(place, &[("required_modules", &both(place))])));
    let rule = rule("workflow_has_activations");
    assert_eq!(part(&rule, "/severity"), "critical");
    let wrong = format!(
        "workflow \"{0}\" needs module \"{1}\", which is not registered; workflow \"{0}\" needs module \"{2}\", which is not registered",
        north.unique("Onboarding"),
        north.unique("billing"),
        north.unique("crm")
    );
    assert_eq!(found(&mut stage.owner, &rule, &north), wrong);
    assert_eq!(repair(&mut stage.owner, &rule, &north), 0);
    assert_eq!(found(&mut stage.owner, &rule, &north), wrong);
    run(&mut stage.owner, &set(&north, "orchestration_workflows", "workflow", "status = 'archived'"));
}

/// Nobody has to look, and nobody to repair: what somebody has deleted is there again, and it is written down how.
#[test]
fn what_is_broken_is_mended_without_anybody() {
    let stage = &mut *stage();
    run(&mut stage.owner, "SELECT usher.enable_rule(name) FROM usher.rules");
    let [north, south] = stage.rows(|place| installation(place, "installed"));
    let deleted = format!(
        "DELETE FROM platform.module_configurations WHERE organization_id = '{}' AND installation_id = '{}' AND module_id = '{}'",
        north.organization,
        north.id("installation"),
        north.id("crm")
    );
    run(&mut stage.owner, &deleted);
    let violation = format!(
        "rule = 'platform.installation_has_configuration' AND organization_id = '{}' AND key ->> 'installation_id' = '{}' AND key ->> 'module_code' = '{}'",
        north.organization,
        north.id("installation"),
        north.unique("crm")
    );
    wait::until_true(
        &mut stage.owner,
        &format!("SELECT COALESCE(bool_and(status = 'repaired' AND repairs = 1), false) FROM usher.violations WHERE {violation}"),
    );
    let configuration = format!(
        "SELECT configuration::text FROM platform.module_configurations WHERE organization_id = '{}' AND module_id = '{}'",
        north.organization,
        north.id("crm")
    );
    says(&mut stage.owner, &configuration, r#"{"seats": 5, "region": "eu"}"#);
    let written = format!(
        "SELECT count(*) || ' ' || bool_and(automatic) FROM usher.repairs WHERE organization_id = '{}' AND changes::text LIKE '%{}%'",
        north.organization,
        north.id("installation")
    );
    assert_eq!(text(&mut stage.owner, &written), "1 true");
    let audited = format!(
        "SELECT (count(*) > 0)::text FROM usher.audit_log WHERE action = 'usher.rules.repaired' AND organization_id = '{}'",
        north.organization
    );
    assert_eq!(text(&mut stage.owner, &audited), "true");
    let others = format!(
        "SELECT count(*)::text FROM usher.violations WHERE organization_id = '{}' AND key ->> 'installation_id' = '{}' AND status <> 'gone'",
        south.organization,
        south.id("installation")
    );
    assert_eq!(text(&mut stage.owner, &others), "0");
}

/// What leaves no trace is found when somebody says that something went wrong, and not only when its time comes.
#[test]
fn a_failed_synchronisation_has_the_rules_look() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(|place| installation(place, "installed"));
    let here = &mut stage.owner;
    run(here, "SELECT usher.enable_rule('platform.installation_has_configuration')");
    let waits =
        "SELECT check_at > now() + interval '30 s' FROM usher.rules WHERE name = 'platform.installation_has_configuration'";
    wait::until_true(
        here,
        &waits.replace(
            "SELECT check_at",
            "SELECT sweep_began_at IS NULL AND last_checked_at + interval '10 s' < now() AND check_at",
        ),
    );
    run(
        here,
        &format!(
            "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM platform.module_configurations WHERE organization_id = '{}' AND installation_id = '{}'; COMMIT;
             SELECT pg_stat_force_next_flush()",
            north.organization,
            north.id("installation")
        ),
    );
    assert!(value::<bool>(here, waits, &[]), "nobody looks yet");
    run(here, "SELECT usher.emit_event('north', 'data.sync.failed', '{\"flow\": \"platform.snapshot_modules\"}')");
    let found = |place: &Place| {
        format!(
            "SELECT count(*) > 0 FROM usher.violations WHERE rule = 'platform.installation_has_configuration' AND organization_id = '{}' AND key ->> 'installation_id' = '{}'",
            place.organization,
            place.id("installation")
        )
    };
    wait::until_true(here, &found(&north));
    assert!(!value::<bool>(here, &found(&south), &[]));
    // Nobody else may ask.
    let error = refused(&mut stage.admin, "SELECT usher.check_soon(pack => 'platform')");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
    assert_eq!(refused(&mut stage.owner, "SELECT usher.check_soon('nothing')").code(), &SqlState::UNDEFINED_OBJECT);
    stage.settle();
}
