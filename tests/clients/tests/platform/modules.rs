//! P1 and P2: what workflows and packages do to modules.

use super::rows::{both, emit, installation, module, package, remove, set, settings, workflow};
use super::stage::{Bad, Case, Place, nothing, says, unchanged};
use usher_clients::Client;

fn two_modules(place: &Place) -> String {
    module(place, "crm") + &module(place, "billing")
}

/// Which modules of the case are activated, with state, version and whether by the workflow of the case.
fn activated(here: &mut Client, place: &Place, wanted: &str) {
    let sql = format!(
        "SELECT COALESCE(string_agg(concat_ws(' ', split_part(m.code, '-', 1), a.status, a.version, a.workflow_id = '{}'), ', ' ORDER BY m.code), '')
           FROM platform.module_activations AS a JOIN platform.module_registry AS m ON m.organization_id = a.organization_id AND m.id = a.module_id
          WHERE a.organization_id = '{}' AND m.id IN ('{}', '{}')",
        place.id("workflow"),
        place.organization,
        place.id("crm"),
        place.id("billing")
    );
    says(here, &sql, wanted);
}

/// How the modules of the case are configured by its installation, with versions.
fn configured(here: &mut Client, place: &Place, wanted: &str) {
    let sql = format!(
        "SELECT COALESCE(string_agg(concat_ws(' ', split_part(m.code, '-', 1), c.configuration, c.version), ', ' ORDER BY m.code), '')
           FROM platform.module_configurations AS c JOIN platform.module_registry AS m ON m.organization_id = c.organization_id AND m.id = c.module_id
          WHERE c.organization_id = '{}' AND c.installation_id = '{}'",
        place.organization,
        place.id("installation")
    );
    says(here, &sql, wanted);
}

fn active(place: &Place) -> String {
    workflow(place, &[("required_modules", &both(place))])
}

pub const WORKFLOW: Case = Case {
    pattern: "P1",
    name: "workflow made",
    targets: &["platform.module_activations"],
    prepare: two_modules,
    act: active,
    check: |here, place| activated(here, place, "billing active 1 t, crm active 1 t"),
    not_met: |place| workflow(place, &[("required_modules", &both(place)), ("status", "'draft'")]),
    repeat: |place| {
        set(place, "orchestration_workflows", "workflow", "status = 'paused'")
            + &set(place, "orchestration_workflows", "workflow", "status = 'active'")
    },
    bad: Bad {
        before: |place| remove(place, "module_registry", "billing"),
        act: active,
        flow: "platform.activate_modules_of_workflow",
        error: "which is not registered",
        repair: |place| module(place, "billing"),
        changes: unchanged,
    },
};

fn run_of(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO platform.workflow_executions (organization_id, id, workflow_id, status) VALUES ('{}', '{}', '{}', '{status}');",
        place.organization,
        place.id("execution"),
        place.id("workflow")
    )
}

pub const RUN: Case = Case {
    pattern: "P1",
    name: "workflow run",
    targets: &["platform.module_activations"],
    // A draft has activated nothing so far, and one of its modules was switched off.
    prepare: |place| {
        format!(
            "{}{}INSERT INTO platform.module_activations (organization_id, module_id, status) VALUES ('{}', '{}', 'inactive');",
            two_modules(place),
            workflow(place, &[("required_modules", &both(place)), ("status", "'draft'")]),
            place.organization,
            place.id("crm")
        )
    },
    act: |place| run_of(place, "pending"),
    check: |here, place| activated(here, place, "billing active 1 t, crm active 2"),
    not_met: |place| run_of(place, "skipped"),
    repeat: |place| set(place, "workflow_executions", "execution", "status = 'running', started_at = now()"),
    bad: Bad {
        before: |place| remove(place, "module_registry", "billing"),
        act: |place| run_of(place, "pending"),
        flow: "platform.activate_modules_of_run",
        error: "which is not registered",
        repair: |place| module(place, "billing"),
        changes: unchanged,
    },
};

fn asking(place: &Place) -> String {
    workflow(place, &[("required_modules", &both(place)), ("auto_activate", "false")])
}

pub const ASKED: Case = Case {
    pattern: "P1",
    name: "modules asked for",
    targets: &["platform.module_activations"],
    prepare: two_modules,
    act: asking,
    check: |here, place| activated(here, place, "billing pending 1 t, crm pending 1 t"),
    not_met: |place| workflow(place, &[("required_modules", &both(place)), ("auto_activate", "false"), ("status", "'draft'")]),
    repeat: |place| emit(place, "module.activation.requested", &format!(r#"{{"workflow_id": "{}"}}"#, place.id("workflow"))),
    bad: Bad {
        before: |place| remove(place, "module_registry", "crm"),
        act: asking,
        flow: "platform.note_requested_modules",
        error: "which is not registered",
        repair: |place| module(place, "crm"),
        changes: unchanged,
    },
};

fn installs(place: &Place) -> String {
    set(place, "marketplace_installations", "installation", "status = 'installed'")
}

pub const INSTALLED: Case = Case {
    pattern: "P2",
    name: "package installed",
    targets: &["platform.module_configurations"],
    prepare: |place| installation(place, "pending"),
    act: installs,
    check: |here, place| configured(here, place, r#"billing {"region": "eu"} 1, crm {"seats": 5, "region": "eu"} 1"#),
    not_met: |place| {
        set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "6")))
    },
    repeat: |place| {
        set(place, "marketplace_installations", "installation", "status = 'removed'")
            + &installs(place)
            + &emit(place, "module.installation.apply", &format!(r#"{{"installation_id": "{}"}}"#, place.id("installation")))
    },
    bad: Bad {
        before: |place| {
            set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "\"five\"")))
        },
        act: installs,
        flow: "platform.configure_installed_modules",
        error: "does not fit: \"seats\" is no integer",
        repair: |place| {
            set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "5")))
        },
        changes: unchanged,
    },
};

pub const CHANGED_INSTALLATION: Case = Case {
    pattern: "P2",
    name: "installation changed",
    targets: &["platform.module_configurations"],
    prepare: |place| installation(place, "installed"),
    act: |place| set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "9"))),
    check: |here, place| configured(here, place, r#"billing {"region": "eu"} 1, crm {"seats": 9, "region": "eu"} 2"#),
    not_met: |place| set(place, "marketplace_installations", "installation", "status = 'removed'"),
    repeat: |place| set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "9"))),
    bad: Bad {
        before: nothing,
        act: |place| {
            set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "1.5")))
        },
        flow: "platform.configure_changed_installation",
        error: "\"seats\" is no integer",
        repair: |place| {
            set(place, "marketplace_installations", "installation", &format!("configuration = {}", settings(place, "9")))
        },
        changes: unchanged,
    },
};

fn brings_more(place: &Place) -> String {
    set(place, "marketplace_packages", "package", &format!("module_codes = module_codes || '{}'::text", place.unique("mail")))
}

pub const CHANGED_PACKAGE: Case = Case {
    pattern: "P2",
    name: "package brings another module",
    targets: &["platform.module_configurations"],
    prepare: |place| installation(place, "installed") + &module(place, "mail"),
    act: brings_more,
    check: |here, place| {
        configured(here, place, r#"billing {"region": "eu"} 1, crm {"seats": 5, "region": "eu"} 1, mail {"region": "eu"} 1"#);
    },
    not_met: |place| set(place, "marketplace_packages", "package", "package_version = '2.0.0'"),
    repeat: |place| {
        set(place, "marketplace_packages", "package", &format!("module_codes = {}", both(place))) + &brings_more(place)
    },
    bad: Bad {
        before: |place| remove(place, "module_registry", "mail"),
        act: brings_more,
        flow: "platform.configure_changed_package",
        error: "which is not registered",
        repair: |place| module(place, "mail"),
        changes: unchanged,
    },
};

fn merges(place: &Place, configuration: &str) -> String {
    format!(
        r#"SELECT usher.enqueue_sync_job('{}', 'marketplace', 'modules', '{{"action": "merge_configuration", "module": "{}", "configuration": {configuration}}}');"#,
        place.slug,
        place.unique("crm")
    )
}

pub const MERGED: Case = Case {
    pattern: "P2",
    name: "configuration merged on demand",
    targets: &["platform.module_configurations"],
    prepare: package,
    act: |place| merges(place, r#"{"seats": 3, "plan": "small"}"#),
    check: |here, place| {
        let sql = format!(
            "SELECT string_agg(concat_ws(' ', c.configuration, c.version), ', ') FROM platform.module_configurations AS c
              WHERE c.organization_id = '{}' AND c.module_id = '{}' AND c.installation_id IS NULL",
            place.organization,
            place.id("crm")
        );
        says(here, &sql, r#"{"plan": "small", "seats": 3} 1"#);
    },
    not_met: |place| merges(place, "{}"),
    repeat: |place| merges(place, r#"{"plan": "small"}"#),
    bad: Bad {
        before: nothing,
        act: |place| merges(place, r#"{"seats": 3, "plan": "huge"}"#),
        flow: "platform.merge_configuration",
        error: "\"plan\" is none of",
        repair: nothing,
        changes: |_| r#"{"configuration": {"seats": 3, "plan": "small"}}"#.to_owned(),
    },
};
