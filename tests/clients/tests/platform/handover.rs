//! P3 and P4: what modules and executions bring into handover packages.

use super::rows::{OUTPUTS, allow, emit, execution, forbid, installation, module, set};
use super::stage::{Bad, Case, Place, nothing, says, unchanged};
use usher_clients::Client;

/// An execution that is completed, and so has a package, and a module that nobody uses yet.
fn handed_over(place: &Place) -> String {
    execution(place, "completed") + &module(place, "billing")
}

/// What the package of the case says of the module, with the version of the row.
fn snapshot(here: &mut Client, place: &Place, name: &str, wanted: &str) {
    let sql = format!(
        "SELECT COALESCE(string_agg(concat_ws(' ', d.body ->> 'status', d.body ->> 'version', d.body ->> 'capabilities', d.body ->> 'configuration', d.version), '; '), '')
           FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
          WHERE h.organization_id = '{}' AND h.execution_id = '{}' AND d.kind = 'module_snapshot' AND d.source_ref = '{}'",
        place.organization,
        place.id("execution"),
        place.id(name)
    );
    says(here, &sql, wanted);
}

fn activation(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO platform.module_activations (organization_id, id, module_id, status, capabilities) VALUES ('{}', '{}', '{}', '{status}', '{{export}}');",
        place.organization,
        place.id("activation"),
        place.id("billing")
    )
}

fn not_of_this_module(place: &Place) -> String {
    forbid(place, "handover_documentation", &format!("body ->> 'module' IS DISTINCT FROM '{}'", place.unique("billing")))
}

pub const ACTIVATED: Case = Case {
    pattern: "P3",
    name: "module activated",
    targets: &["platform.handover_documentation"],
    prepare: handed_over,
    act: |place| activation(place, "active"),
    check: |here, place| snapshot(here, place, "billing", r#"active 1.0.0 ["export"] {} 1"#),
    not_met: |place| activation(place, "pending"),
    repeat: |place| set(place, "module_activations", "activation", "status = 'active'"),
    bad: Bad {
        before: not_of_this_module,
        act: |place| activation(place, "active"),
        flow: "platform.snapshot_activated_module",
        error: "violates check constraint \"test_",
        repair: |place| allow(place, "handover_documentation"),
        changes: unchanged,
    },
};

fn configuration(place: &Place) -> String {
    format!(
        "INSERT INTO platform.module_configurations (organization_id, id, module_id, configuration) VALUES ('{}', '{}', '{}', '{{\"tax\": 19}}');",
        place.organization,
        place.id("configuration"),
        place.id("billing")
    )
}

pub const CONFIGURED: Case = Case {
    pattern: "P3",
    name: "module configured",
    targets: &["platform.handover_documentation"],
    prepare: handed_over,
    act: configuration,
    check: |here, place| snapshot(here, place, "billing", r#"inactive 1.0.0 [] {"tax": 19} 1"#),
    // Of a package that is delivered nothing changes any more; there is another one, but it has no modules.
    not_met: |place| {
        format!(
            "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE organization_id = '{0}' AND status = 'ready';
             {1}",
            place.organization,
            configuration(place)
        )
    },
    repeat: |place| emit(place, "handover.configuration.sync", &format!(r#"{{"module_id": "{}"}}"#, place.id("billing"))),
    bad: Bad {
        before: not_of_this_module,
        act: configuration,
        flow: "platform.snapshot_configured_module",
        error: "violates check constraint \"test_",
        repair: |place| allow(place, "handover_documentation"),
        changes: unchanged,
    },
};

fn in_use(place: &Place) -> String {
    handed_over(place) + &activation(place, "active")
}

fn of_version(place: &Place, version: &str) -> String {
    set(place, "module_registry", "billing", &format!("module_version = '{version}'"))
}

pub const ANOTHER_VERSION: Case = Case {
    pattern: "P3",
    name: "module of another version",
    targets: &["platform.handover_documentation"],
    prepare: in_use,
    act: |place| of_version(place, "2.0.0"),
    check: |here, place| snapshot(here, place, "billing", r#"active 2.0.0 ["export"] {} 2"#),
    not_met: |place| set(place, "module_registry", "billing", "config_schema = '{\"required\": []}'"),
    repeat: |place| of_version(place, "2.0.0"),
    bad: Bad {
        before: |place| {
            forbid(
                place,
                "handover_documentation",
                &format!("NOT (body ->> 'module' = '{}' AND body ->> 'version' = '2.0.0')", place.unique("billing")),
            )
        },
        act: |place| of_version(place, "2.0.0"),
        flow: "platform.snapshot_registered_module",
        error: "violates check constraint \"test_",
        repair: |place| allow(place, "handover_documentation"),
        changes: unchanged,
    },
};

fn of_package(place: &Place) -> String {
    set(place, "marketplace_packages", "package", "package_version = '3.1.0'")
}

fn packages(here: &mut Client, place: &Place, wanted: &str) {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', d.body #>> '{{packages,0,version}}', d.version), '; ' ORDER BY d.body ->> 'module')
           FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
          WHERE h.organization_id = '{}' AND h.execution_id = '{}' AND d.source_ref IN ('{}', '{}')",
        place.organization,
        place.id("execution"),
        place.id("crm"),
        place.id("billing")
    );
    says(here, &sql, wanted);
}

pub const ANOTHER_PACKAGE: Case = Case {
    pattern: "P3",
    name: "marketplace package of another version",
    targets: &["platform.handover_documentation"],
    prepare: |place| execution(place, "completed") + &installation(place, "installed"),
    act: of_package,
    check: |here, place| packages(here, place, "3.1.0 2; 3.1.0 2"),
    not_met: |place| set(place, "marketplace_packages", "package", "package_version = package_version"),
    repeat: of_package,
    bad: Bad {
        before: |place| {
            forbid(
                place,
                "handover_documentation",
                &format!(
                    "NOT (body ->> 'module' = '{}' AND body #>> '{{packages,0,version}}' = '3.1.0')",
                    place.unique("billing")
                ),
            )
        },
        act: of_package,
        flow: "platform.snapshot_modules_of_package",
        error: "violates check constraint \"test_",
        repair: |place| allow(place, "handover_documentation"),
        changes: unchanged,
    },
};

/// The package of the case and what is in it, with versions.
fn package(here: &mut Client, place: &Place) {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', h.status, h.client_ref = '{client}', h.includes_modules, h.notify_client,
                                     (SELECT string_agg(concat_ws(' ', d.kind, d.source_ref, d.body, d.version), ', ' ORDER BY d.kind, d.source_ref)
                                        FROM platform.handover_documentation AS d WHERE d.organization_id = h.organization_id AND d.package_id = h.id
                                         AND (d.kind <> 'module_snapshot' OR d.source_ref = '{module}'))), '; ')
           FROM platform.handover_packages AS h WHERE h.organization_id = '{organization}' AND h.execution_id = '{execution}'",
        client = place.unique("client"),
        module = place.id("billing"),
        organization = place.organization,
        execution = place.id("execution"),
    );
    let wanted = format!(
        r#"ready t t f artifact logo.svg {{"name": "logo.svg"}} 1, artifact plan.pdf {{"url": "s3://plan", "name": "plan.pdf"}} 1, module_snapshot {} {{"module": "{}", "status": "active", "version": "1.0.0", "packages": [], "capabilities": ["export"], "configuration": {{}}}} 1, result {} {{"score": 9}} 1"#,
        place.id("billing"),
        place.unique("billing"),
        place.id("execution")
    );
    says(here, &sql, &wanted);
}

fn completes(place: &Place, outputs: &str) -> String {
    set(place, "workflow_executions", "execution", &format!("status = 'completed', completed_at = now(), outputs = {outputs}"))
}

fn running(place: &Place) -> String {
    execution(place, "running") + &module(place, "billing") + &activation(place, "active")
}

pub const COMPLETED: Case = Case {
    pattern: "P4",
    name: "execution completed",
    targets: &["platform.handover_packages", "platform.handover_documentation"],
    prepare: running,
    act: |place| completes(place, OUTPUTS),
    check: package,
    not_met: |place| set(place, "workflow_executions", "execution", "status = 'failed', error = 'no data', completed_at = now()"),
    repeat: |place| {
        emit(place, "handover.package.preparation.requested", &format!(r#"{{"execution_id": "{}"}}"#, place.id("execution")))
            + &emit(place, "workflow.execution.completed", &format!(r#"{{"execution_id": "{}"}}"#, place.id("execution")))
    },
    bad: Bad {
        before: nothing,
        act: |place| completes(place, r#"'{"artifacts": "two files"}'"#),
        flow: "platform.hand_over_executions",
        error: "are no list of objects",
        repair: |place| set(place, "workflow_executions", "execution", &format!("outputs = {OUTPUTS}")),
        changes: unchanged,
    },
};

/// The package of a completed execution whose preparation somebody has given up.
fn given_up(place: &Place) -> String {
    format!(
        "{}{}{}INSERT INTO platform.handover_packages (organization_id, id, execution_id, client_ref, status) VALUES ('{}', '{}', '{}', '{}', 'failed');",
        execution(place, "completed"),
        module(place, "billing"),
        activation(place, "active"),
        place.organization,
        place.id("package"),
        place.id("execution"),
        place.unique("client"),
    )
}

fn again(place: &Place) -> String {
    set(place, "handover_packages", "package", "status = 'pending'")
}

pub const PREPARED: Case = Case {
    pattern: "P4",
    name: "package made pending by hand",
    targets: &["platform.handover_documentation"],
    prepare: given_up,
    act: again,
    check: package,
    not_met: |place| set(place, "handover_packages", "package", "notify_client = true"),
    repeat: |place| set(place, "handover_packages", "package", "status = 'failed'") + &again(place),
    bad: Bad {
        before: |place| {
            set(place, "workflow_executions", "execution", r#"outputs = '{"artifacts": [{"name": "a"}, {"name": "a"}]}'"#)
        },
        act: again,
        flow: "platform.prepare_package",
        error: "each with a name of its own",
        repair: |place| set(place, "workflow_executions", "execution", &format!("outputs = {OUTPUTS}")),
        changes: unchanged,
    },
};
