//! Every pair of systems, and the whole catalogue of the pack.

use super::stage::{Town, Walk, run_of, suite, walk};
use std::collections::BTreeSet;
use usher_clients::{number, refused, run, text, wait};

/// How data that are wrong are kept from going over.
enum Bad {
    /// The statement is refused: SQLSTATE and a part of what is said.
    Refused(fn(&Town) -> String, &'static str),
    /// The job of a flow fails for good: what is done, the flow, what it says, what mends it, and with which changes it is replayed.
    Dead(fn(&Town) -> String, &'static str, &'static str, fn(&Town) -> String, fn(&Town) -> String),
}

fn nothing(_: &Town) -> String {
    "{}".to_owned()
}

/// From one system to another: a row goes in, and what comes out is made of it.
struct Pair {
    from: &'static str,
    to: &'static str,
    act: fn(&Town) -> String,
    effect: fn(&Town) -> String,
    wanted: &'static str,
    bad: Bad,
}

const OUTPUTS: &str = r#"'{"score": 9, "artifacts": [{"name": "plan.pdf"}, {"name": "logo.svg"}]}'"#;

/// What the handover package of the run `handed over` says of a module.
fn snapshot(town: &Town, module: &str, what: &str) -> String {
    format!(
        "SELECT concat_ws(' ', {what}) FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
          WHERE h.organization_id = '{}' AND h.execution_id = '{}' AND d.kind = 'module_snapshot' AND d.source_ref = '{}'",
        town.id,
        town.id("handed over"),
        town.id(module)
    )
}

const PAIRS: [Pair; 7] = [
    Pair {
        from: "orchestration",
        to: "modules",
        act: |town| {
            town.add(
                "orchestration_workflows",
                "needs both",
                &[("name", "'Onboarding'"), ("required_modules", "'{crm,billing}'")],
            )
        },
        // Codes have become modules.
        effect: |town| {
            format!(
                "SELECT string_agg(concat_ws(' ', m.code, a.status, a.workflow_id = '{}'), ', ' ORDER BY m.code) FROM platform.module_activations AS a
                   JOIN platform.module_registry AS m ON m.organization_id = a.organization_id AND m.id = a.module_id WHERE a.organization_id = '{}'",
                town.id("needs both"),
                town.id
            )
        },
        wanted: "billing active t, crm active t",
        bad: Bad::Dead(
            |town| {
                town.add(
                    "orchestration_workflows",
                    "needs nothing known",
                    &[("name", "'Lost'"), ("required_modules", "'{teleport}'")],
                )
            },
            "activate_modules_of_workflow",
            "workflow \"Lost\" needs module \"teleport\", which is not registered",
            |town| town.set("orchestration_workflows", "needs nothing known", "required_modules = '{crm}'"),
            nothing,
        ),
    },
    Pair {
        from: "orchestration",
        to: "handover",
        act: |town| {
            town.set(
                "workflow_executions",
                "handed over",
                &format!("status = 'completed', completed_at = now(), outputs = {OUTPUTS}"),
            )
        },
        // One document of the result, and one for each artifact.
        effect: |town| {
            format!(
                "SELECT concat_ws(' ', h.status, h.client_ref, (SELECT string_agg(concat_ws(' ', d.kind, CASE d.kind WHEN 'result' THEN d.body::text ELSE d.source_ref END), ', ' ORDER BY d.kind, d.source_ref)
                                                                 FROM platform.handover_documentation AS d WHERE d.organization_id = h.organization_id AND d.package_id = h.id AND d.kind <> 'module_snapshot'))
                   FROM platform.handover_packages AS h WHERE h.organization_id = '{}' AND h.execution_id = '{}'",
                town.id,
                town.id("handed over")
            )
        },
        wanted: r#"ready ann artifact logo.svg, artifact plan.pdf, result {"score": 9}"#,
        bad: Bad::Dead(
            |town| run_of(town, "careless", "completed", &[("outputs", r#"'{"artifacts": "two files"}'"#)]),
            "hand_over_executions",
            "are no list of objects",
            |town| town.set("workflow_executions", "careless", "outputs = '{}'"),
            nothing,
        ),
    },
    Pair {
        from: "modules",
        to: "handover",
        act: |town| {
            town.add("module_configurations", "tax", &[("module_id", &town.the("billing")), ("configuration", "'{\"tax\": 19}'")])
        },
        effect: |town| snapshot(town, "billing", "d.body ->> 'module', d.body ->> 'status', d.body ->> 'configuration'"),
        wanted: r#"billing active {"tax": 19}"#,
        bad: Bad::Dead(
            |town| town.emit("handover.configuration.sync", "{}"),
            "snapshot_configured_module",
            "a module is named",
            |_| String::new(),
            |town| format!(r#"{{"data": {{"module_id": "{}"}}}}"#, town.id("billing")),
        ),
    },
    Pair {
        from: "modules",
        to: "orchestration",
        act: |town| town.add("module_activations", "mail on", &[("module_id", &town.the("mail")), ("status", "'active'")]),
        // The module's code has come along, which the row has not.
        effect: |town| {
            format!(
                "SELECT string_agg(concat_ws(' ', data ->> 'module', data ->> 'module_id' = '{}'), ', ') FROM usher.events
                  WHERE organization_id = '{}' AND type = 'orchestration.workflow.module.ready' AND data ->> 'module' = 'mail'",
                town.id("mail"),
                town.id
            )
        },
        wanted: "mail t",
        bad: Bad::Refused(
            |town| town.set("module_activations", "mail on", "status = 'pending'"),
            "that is active cannot become pending",
        ),
    },
    Pair {
        from: "marketplace",
        to: "modules",
        act: |town| {
            town.add(
                "marketplace_installations",
                "installed",
                &[
                    ("package_id", &town.the("suite")),
                    ("status", "'installed'"),
                    ("configuration", r#"'{"*": {"region": "eu"}, "crm": {"seats": 5}}'"#),
                ],
            )
        },
        // What is for all modules, and what is for one, is one configuration of each.
        effect: |town| {
            format!(
                "SELECT string_agg(concat_ws(' ', m.code, c.configuration), ', ' ORDER BY m.code) FROM platform.module_configurations AS c
                   JOIN platform.module_registry AS m ON m.organization_id = c.organization_id AND m.id = c.module_id WHERE c.organization_id = '{}' AND c.installation_id = '{}'",
                town.id,
                town.id("installed")
            )
        },
        wanted: r#"billing {"region": "eu"}, crm {"seats": 5, "region": "eu"}"#,
        bad: Bad::Dead(
            |town| town.set("marketplace_installations", "installed", r#"configuration = '{"crm": {"seats": "five"}}'"#),
            "configure_changed_installation",
            "\"seats\" is no integer",
            |town| town.set("marketplace_installations", "installed", r#"configuration = '{"crm": {"seats": 5}}'"#),
            nothing,
        ),
    },
    Pair {
        from: "marketplace",
        to: "orchestration",
        act: |town| town.add("marketplace_templates", "template", &[("code", "'welcome'"), ("template_version", "'2.0.0'")]),
        effect: |town| {
            format!(
                "SELECT string_agg(concat_ws(' ', data ->> 'code', data ->> 'version', data ->> 'template_id' = '{}'), ', ') FROM usher.events
                  WHERE organization_id = '{}' AND type = 'orchestration.template.available'",
                town.id("template"),
                town.id
            )
        },
        wanted: "welcome 2.0.0 t",
        bad: Bad::Refused(
            |town| town.add("marketplace_templates", "nameless", &[("code", "' '")]),
            "marketplace_templates_code_given",
        ),
    },
    Pair {
        from: "marketplace",
        to: "handover",
        act: |town| town.set("marketplace_packages", "suite", "package_version = '3.1.0'"),
        effect: |town| snapshot(town, "crm", "d.body ->> 'module', d.body ->> 'packages'"),
        wanted: r#"crm [{"code": "suite", "version": "3.1.0"}]"#,
        bad: Bad::Refused(
            |town| town.set("marketplace_packages", "suite", "package_version = '4.0.0', module_codes = '{crm,\"\"}'"),
            "marketplace_packages_modules_named",
        ),
    },
];

fn world(town: &Town) -> String {
    suite(town)
        + &town.add("module_registry", "mail", &[("code", "'mail'")])
        + &run_of(town, "handed over", "running", &[("input", r#"'{"client_ref": "ann"}'"#)])
}

pub fn every_pair() {
    let mut walk = walk("pairs");
    walk.prepare(world);
    // Every pair of systems between which the pack has a flow, as the hub itself says it, has its case.
    let pairs = text(
        &mut walk.owner,
        "SELECT string_agg(DISTINCT from_system || ' ' || to_system, ', ' ORDER BY from_system || ' ' || to_system) FROM usher.lineage(pack => 'platform')
          WHERE from_system <> to_system AND ARRAY[from_system, to_system] <@ '{orchestration,modules,marketplace,handover}'::text[]",
    );
    let tried: BTreeSet<String> = PAIRS.iter().map(|pair| format!("{} {}", pair.from, pair.to)).collect();
    assert_eq!(pairs, tried.into_iter().collect::<Vec<_>>().join(", "), "pairs of systems, and those that are tried");
    let before = walk.elsewhere();
    let near = walk.near.clone();
    for Pair { from, to, act, effect, wanted, bad } in &PAIRS {
        let what = format!("{from} to {to}");
        walk.act(&act(&near));
        assert_eq!(walk.dead(&near), [], "{what}: nothing fails");
        walk.says(&what, &effect(&near), wanted);
        match bad {
            Bad::Refused(sql, said) => {
                let error = refused(&mut walk.admin, &sql(&near));
                assert!(error.code().code() == "23514" && error.message().contains(said), "{what}: {error:?}");
                walk.settle();
            }
            Bad::Dead(sql, flow, said, mend, changes) => {
                walk.act(&sql(&near));
                walk.died(flow, said);
                walk.says(&format!("{what}, after bad data"), &effect(&near), wanted);
                run(&mut walk.owner, &mend(&near));
                walk.settle();
                walk.replay(flow, &changes(&near));
            }
        }
        walk.says(&format!("{what}, once bad data are mended"), &effect(&near), wanted);
    }
    walk.holds(&near);
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}

/// All flows, reactions and rules of the pack in one walk, each of which must have worked.
pub fn whole_catalogue() {
    let mut walk = walk("catalogue");
    walk.prepare(world);
    let near = walk.near.clone();
    assert_eq!(
        number(&mut walk.owner, "SELECT count(*) FROM usher.flows WHERE pack = 'platform' AND enabled AND state = 'ok'"),
        39
    );
    explained(&mut walk);
    let before = walk.elsewhere();
    steps(&mut walk);
    let idle = text(
        &mut walk.owner,
        &format!(
            "SELECT string_agg(f.name, ', ' ORDER BY f.name) FROM usher.flows AS f WHERE f.pack = 'platform'
                AND NOT EXISTS (SELECT FROM usher.sync_jobs AS j WHERE j.organization_id = '{}' AND j.flow = f.name AND j.status = 'synced')",
            near.id
        ),
    );
    assert_eq!(idle, "", "flows that no step of the walk has set going");
    reactions(&mut walk);
    broken_and_mended(&mut walk);
    walk.nothing_dead();
    walk.holds(&near);
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}

/// Every flow and every rule says what it does, and fits the database as it is.
fn explained(walk: &mut Walk) {
    let sql = "SELECT (SELECT string_agg(name, ', ') FROM usher.flows WHERE pack = 'platform' AND length(usher.explain_flow(name)) < 100),
                      (SELECT string_agg(name, ', ') FROM usher.rules WHERE pack = 'platform' AND length(usher.explain_rule(name)) < 100)";
    let row = walk.owner.query_one(sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    assert_eq!((row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1)), (None, None));
}

/// What admins do in a season, and what the hub notices.
fn steps(walk: &mut Walk) {
    let near = walk.near.clone();
    let asks = &[("name", "'Asks'"), ("required_modules", "'{mail}'"), ("auto_activate", "false")];
    walk.act(
        &(near.add("orchestration_workflows", "needs", &[("name", "'Needs'"), ("required_modules", "'{crm,billing}'")])
            + &near.add("orchestration_workflows", "asks", asks)
            + &near.add("workflow_triggers", "trigger", &[("workflow_id", &near.the("needs")), ("event_type", "'orders.paid'")])
            + &near.add(
                "marketplace_installations",
                "installed",
                &[("package_id", &near.the("suite")), ("status", "'installed'")],
            )
            + &near.add("marketplace_templates", "template", &[("code", "'welcome'")])),
    );
    walk.act(&near.set(
        "workflow_executions",
        "handed over",
        &format!("status = 'completed', completed_at = now(), outputs = {OUTPUTS}"),
    ));
    walk.act(
        &(near.emit("orders.paid", "{}")
            + &near.set("marketplace_installations", "installed", r#"configuration = '{"crm": {"seats": 7}}'"#)
            + &near.set("marketplace_packages", "suite", "module_codes = '{crm,billing,mail}', package_version = '2.0.0'")
            + &near.set("module_registry", "crm", "module_version = '2.0.0'")
            + &format!(
                "SELECT usher.enqueue_sync_job('{0}', 'marketplace', 'modules', '{{\"action\": \"merge_configuration\", \"module\": \"mail\", \"configuration\": {{\"from\": \"us\"}}}}');
                 SELECT usher.enqueue_sync_job('{0}', 'modules', 'handover', '{{\"action\": \"snapshot_modules\"}}');
                 SELECT platform.sync_table('orchestration_workflows', '{0}');",
                near.slug
            )),
    );
    walk.act(&format!(
        "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE organization_id = '{}' AND execution_id = '{}'",
        near.id,
        near.id("handed over")
    ));
    // What the hub has to tell of this organization: a flow of the pack that fails, and something else.
    let notice = |kind: &str, flow: &str| {
        format!(
            "INSERT INTO usher.notices (id, organization_id, kind, severity, flow, subject, first_at, last_at) VALUES (gen_random_uuid(), '{}', '{kind}', 'critical', {flow}, '{kind}', now(), now());",
            near.id
        )
    };
    run(&mut walk.owner, &(notice("flow failing", "'platform.prepare_package'") + &notice("conflict open", "NULL")));
    walk.settle();
}

/// The ten reactions: of each event of the first type one of the second has come, by a job.
fn reactions(walk: &mut Walk) {
    let near = walk.near.id;
    for (heard, follows, flow) in [
        ("workflow.created", "module.activation.requested", "request_modules_of_created_workflow"),
        ("workflow.execution.completed", "handover.package.preparation.requested", "request_package_of_execution"),
        ("module.activated", "orchestration.workflow.module.ready", "announce_workflow_module_ready"),
        ("module.configuration.updated", "handover.configuration.sync", "sync_updated_configuration"),
        ("marketplace.installation.completed", "module.installation.apply", "apply_completed_installation"),
        ("marketplace.template.updated", "orchestration.template.available", "offer_updated_template"),
        ("handover.package.created", "notification.send", "notify_of_created_package"),
        ("handover.package.delivered", "analytics.track", "track_delivered_package"),
        ("system.error", "monitoring.alert", "alert_of_system_error"),
        ("data.sync.failed", "data.consistency.check", "check_after_failed_synchronisation"),
    ] {
        let sql = format!(
            "SELECT concat_ws(' ', count(*) > 0, count(*) = count(DISTINCT j.payload ->> 'id')) FROM usher.events AS f
               JOIN usher.sync_jobs AS j ON j.id = f.cause AND j.flow = 'platform.{flow}' AND j.status = 'synced'
               JOIN usher.events AS h ON h.id::text = j.payload ->> 'id' AND h.type = '{heard}'
              WHERE f.organization_id = '{near}' AND f.type = '{follows}'"
        );
        walk.says(&format!("{heard} brings about {follows}"), &sql, "t t");
    }
}

/// Each of the four rules finds what somebody breaks, and mends it.
fn broken_and_mended(walk: &mut Walk) {
    let near = walk.near.clone();
    // A run whose package is not delivered yet.
    walk.act(&run_of(&near, "second", "completed", &[("outputs", OUTPUTS)]));
    let packages = format!(
        "SELECT h.id FROM platform.handover_packages AS h WHERE h.organization_id = '{}' AND h.execution_id = '{}'",
        near.id,
        near.id("second")
    );
    let snapshots = format!(
        "DELETE FROM platform.handover_documentation WHERE organization_id = '{}' AND package_id = ({packages}) AND kind = 'module_snapshot'",
        near.id
    );
    let both = format!(
        "BEGIN; DELETE FROM platform.handover_documentation WHERE organization_id = '{0}' AND package_id = ({packages});
         DELETE FROM platform.handover_packages WHERE organization_id = '{0}' AND id = ({packages}); COMMIT",
        near.id
    );
    let configuration = format!(
        "DELETE FROM platform.module_configurations WHERE organization_id = '{}' AND installation_id = '{}' AND module_id = '{}'",
        near.id,
        near.id("installed"),
        near.id("crm")
    );
    let activation = format!(
        "DELETE FROM platform.module_activations WHERE organization_id = '{}' AND module_id = '{}'",
        near.id,
        near.id("crm")
    );
    let of = |field: &str, name: &str| format!("{{\"{field}\": \"{}\"}}", near.id(name));
    for (rule, broken, key) in [
        ("package_holds_module_data", snapshots, of("module_id", "crm")),
        ("completed_execution_has_package", both, of("execution_id", "second")),
        ("installation_has_configuration", configuration, of("installation_id", "installed")),
        ("workflow_has_activations", activation, of("workflow_id", "needs")),
    ] {
        let since = walk.now();
        run(&mut walk.owner, &broken);
        walk.repaired(&since, rule, &key);
    }
    assert_eq!(
        number(&mut walk.owner, &format!("SELECT count(DISTINCT rule) FROM usher.repairs WHERE organization_id = '{}'", near.id)),
        4
    );
}
