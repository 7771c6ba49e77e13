//! P5 and P6: what the bus brings about. The ten reactions, each by itself.

use super::rows::{allow, emit, execution, forbid, module, set, workflow};
use super::stage::{Bad, Case, Place, nothing, says, stage};
use usher_clients::{Client, number, refused, text, value, wait};

fn listens(place: &Place) -> String {
    format!(
        "{}INSERT INTO platform.workflow_triggers (organization_id, workflow_id, event_type) VALUES ('{}', '{}', 'orders.paid-{}');",
        workflow(place, &[]),
        place.organization,
        place.id("workflow"),
        place.case
    )
}

fn paid(place: &Place) -> String {
    emit(place, &format!("orders.paid-{}", place.case), r#"{"order_id": 7}"#)
}

pub const TRIGGERED: Case = Case {
    pattern: "P5",
    name: "workflow begun by an event",
    targets: &["platform.workflow_executions"],
    prepare: listens,
    act: paid,
    check: |here, place| {
        let sql = format!(
            "SELECT string_agg(concat_ws(' ', e.status, e.input, v.type), '; ') FROM platform.workflow_executions AS e JOIN usher.events AS v ON v.id = e.trigger_event
              WHERE e.organization_id = '{}' AND e.workflow_id = '{}'",
            place.organization,
            place.id("workflow")
        );
        says(here, &sql, &format!(r#"pending {{"order_id": 7}} orders.paid-{}"#, place.case));
    },
    not_met: |place| {
        emit(place, &format!("orders.sent-{}", place.case), "{}")
            + &set(place, "orchestration_workflows", "workflow", "status = 'paused'")
            + &paid(place)
    },
    // The same event once more is no other one; another organization's workflows are not begun by it either.
    repeat: |place| {
        format!(
            "SELECT 1 FROM platform.workflow_executions WHERE workflow_id = '{}'; {}",
            place.id("workflow"),
            emit(place, "orders.paid", "{}")
        )
    },
    bad: Bad {
        before: |place| forbid(place, "workflow_executions", &format!("workflow_id <> '{}'", place.id("workflow"))),
        act: paid,
        flow: "platform.begin_triggered_workflows",
        error: "violates check constraint \"test_",
        repair: |place| allow(place, "workflow_executions"),
        changes: super::stage::unchanged,
    },
};

fn told(here: &mut Client, place: &Place, wanted: &str) {
    let sql = format!(
        "SELECT COALESCE(string_agg(concat_ws('|', recipient, kind, severity, title), '; ' ORDER BY recipient), '') FROM usher.notifications
          WHERE organization_id = '{}' AND key LIKE '%{}'",
        place.organization,
        place.id("told")
    );
    says(here, &sql, wanted);
}

fn send(place: &Place, title: &str) -> String {
    let data = format!(r#"{{"recipients": ["ann lee", "bob"], {title}"key": "{}"}}"#, place.id("told"));
    emit(place, "notification.send", &data)
}

pub const NOTIFIED: Case = Case {
    pattern: "P5",
    name: "people told",
    targets: &["usher.notifications"],
    prepare: nothing,
    act: |place| send(place, r#""title": "Ready", "#),
    check: |here, place| told(here, place, "ann lee|platform|info|Ready; bob|platform|info|Ready"),
    not_met: |place| emit(place, "notification.sent", "{}"),
    repeat: |place| send(place, r#""title": "Ready", "#),
    bad: Bad {
        before: nothing,
        act: |place| send(place, ""),
        flow: "platform.send_notification",
        error: "there is a title",
        repair: nothing,
        changes: |place| {
            format!(r#"{{"data": {{"recipients": ["ann lee", "bob"], "title": "Ready", "key": "{}"}}}}"#, place.id("told"))
        },
    },
};

fn alert(place: &Place, message: &str) -> String {
    format!(r#"{{{message}"severity": "critical", "error_event": "{}"}}"#, place.id("told"))
}

pub const ALERTED: Case = Case {
    pattern: "P6",
    name: "alert raised",
    targets: &["usher.notifications"],
    prepare: nothing,
    act: |place| emit(place, "monitoring.alert", &alert(place, r#""message": "Disk full", "#)),
    check: |here, place| told(here, place, "role:clients_platform_admin|alert|critical|Disk full"),
    not_met: |place| emit(place, "monitoring.alerted", "{}"),
    repeat: |place| emit(place, "monitoring.alert", &alert(place, r#""message": "Disk full", "#)),
    bad: Bad {
        before: nothing,
        act: |place| emit(place, "monitoring.alert", &alert(place, "")),
        flow: "platform.raise_alert",
        error: "the error has a message",
        repair: nothing,
        changes: |place| format!(r#"{{"data": {}}}"#, alert(place, r#""message": "Disk full", "#)),
    },
};

/// A reaction: the event that is heard, the one that follows, a field that both carry, and the flow with its lane.
struct Reaction {
    heard: &'static str,
    follows: &'static str,
    field: &'static str,
    flow: &'static str,
    lane: &'static str,
}

const REACTIONS: [Reaction; 10] = [
    Reaction {
        heard: "workflow.created",
        follows: "module.activation.requested",
        field: "workflow_id",
        flow: "request_modules_of_created_workflow",
        lane: "high",
    },
    Reaction {
        heard: "workflow.execution.completed",
        follows: "handover.package.preparation.requested",
        field: "execution_id",
        flow: "request_package_of_execution",
        lane: "normal",
    },
    Reaction {
        heard: "module.activated",
        follows: "orchestration.workflow.module.ready",
        field: "module_id",
        flow: "announce_workflow_module_ready",
        lane: "normal",
    },
    Reaction {
        heard: "module.configuration.updated",
        follows: "handover.configuration.sync",
        field: "module_id",
        flow: "sync_updated_configuration",
        lane: "normal",
    },
    Reaction {
        heard: "marketplace.installation.completed",
        follows: "module.installation.apply",
        field: "installation_id",
        flow: "apply_completed_installation",
        lane: "high",
    },
    Reaction {
        heard: "marketplace.template.updated",
        follows: "orchestration.template.available",
        field: "template_id",
        flow: "offer_updated_template",
        lane: "low",
    },
    Reaction {
        heard: "handover.package.created",
        follows: "notification.send",
        field: "package_id",
        flow: "notify_of_created_package",
        lane: "normal",
    },
    Reaction {
        heard: "handover.package.delivered",
        follows: "analytics.track",
        field: "package_id",
        flow: "track_delivered_package",
        lane: "low",
    },
    Reaction {
        heard: "system.error",
        follows: "monitoring.alert",
        field: "message",
        flow: "alert_of_system_error",
        lane: "critical",
    },
    Reaction {
        heard: "data.sync.failed",
        follows: "data.consistency.check",
        field: "flow",
        flow: "check_after_failed_synchronisation",
        lane: "high",
    },
];

/// What happens in the tables until each of the ten events has come, from the tables themselves.
#[test]
fn each_of_the_ten_reactions_follows_its_event_once() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(|place| {
        format!(
            "{}{}INSERT INTO platform.marketplace_packages (organization_id, id, code, module_codes) VALUES ('{}', '{}', '{}', '{{{}}}');",
            module(place, "billing"),
            execution(place, "running"),
            place.organization,
            place.id("package"),
            place.unique("suite"),
            place.unique("billing")
        )
    });
    let before = stage.everything(&south);
    let since: String = text(&mut stage.owner, "SELECT clock_timestamp()::text");
    let modules = format!("'{{{}}}'", north.unique("billing"));
    stage.act(&format!(
        "INSERT INTO platform.orchestration_workflows (organization_id, id, name, required_modules) VALUES ('{0}', '{1}', 'Billing', {modules});
         INSERT INTO platform.marketplace_installations (organization_id, id, package_id, status) VALUES ('{0}', '{2}', '{3}', 'installed');
         INSERT INTO platform.marketplace_templates (organization_id, id, code) VALUES ('{0}', '{4}', '{5}');
         {6}{7}{8}",
        north.organization,
        north.id("needs"),
        north.id("installation"),
        north.id("package"),
        north.id("template"),
        north.unique("template"),
        set(&north, "workflow_executions", "execution", "status = 'completed', completed_at = now()"),
        emit(&north, "system.error", r#"{"message": "Disk full"}"#),
        emit(&north, "data.sync.failed", r#"{"flow": "platform.snapshot_modules"}"#),
    ));
    stage.act(&format!(
        "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE organization_id = '{}' AND execution_id = '{}'",
        north.organization,
        north.id("execution")
    ));
    assert_eq!(stage.dead(&north), []);
    let here = &mut stage.owner;
    for Reaction { heard, follows, field, flow, lane } in &REACTIONS {
        // Each event of the first type is the cause, by one job of the flow, of exactly one of the second, with what it was about.
        let path = if *follows == "notification.send" { "body,package_id" } else { field };
        let sql = format!(
            "SELECT concat_ws('|', count(DISTINCT h.id) > 0, count(f.id) = count(DISTINCT h.id), bool_and(f.data #> '{{{path}}}' = h.data -> '{field}'), string_agg(DISTINCT j.priority, ','))
               FROM usher.events AS h
               LEFT JOIN usher.sync_jobs AS j ON j.organization_id = h.organization_id AND j.flow = 'platform.{flow}' AND j.status = 'synced' AND j.payload ->> 'id' = h.id::text
               LEFT JOIN usher.events AS f ON f.organization_id = h.organization_id AND f.type = '{follows}' AND f.cause = j.id
              WHERE h.organization_id = '{}' AND h.type = '{heard}' AND h.emitted_at >= '{since}'",
            north.organization
        );
        assert_eq!(text(here, &sql), format!("t|t|t|{lane}"), "{heard} -> {follows}");
    }
    // The error has reached the admin.
    says(
        here,
        &format!(
            "SELECT string_agg(concat_ws('|', n.recipient, n.severity, n.title), '; ') FROM usher.notifications AS n JOIN usher.events AS e ON n.key = 'alert:' || e.id
              WHERE e.organization_id = '{}' AND e.type = 'system.error' AND e.emitted_at >= '{since}'",
            north.organization
        ),
        "role:clients_platform_admin|critical|Disk full",
    );
    assert_eq!(stage.everything(&south), before, "nothing of the other organization has changed");
}

/// A reaction has no effect where its condition does not hold, or its event is rolled back.
#[test]
fn reactions_follow_nothing_that_has_not_happened() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(|_| String::new());
    let before = stage.everything(&north);
    let all: String = REACTIONS.iter().map(|reaction| emit(&north, reaction.heard, r#"{"message": "x"}"#)).collect();
    usher_clients::run(&mut stage.admin, &format!("BEGIN; {all} ROLLBACK"));
    stage.settle();
    assert_eq!(stage.everything(&north), before);
    // A draft asks for no modules, nor does a workflow that needs none.
    stage.act(
        &(workflow(&north, &[("required_modules", "'{nowhere}'"), ("status", "'draft'")])
            + &emit(&north, "workflow.created", r#"{"status": "active", "required_modules": []}"#)),
    );
    let asked = format!(
        "SELECT count(*) FROM usher.events WHERE organization_id = '{}' AND type = 'module.activation.requested' AND data ->> 'workflow_id' = '{}'",
        north.organization,
        north.id("workflow")
    );
    assert_eq!(number(&mut stage.owner, &asked), 0);
    assert_eq!(stage.dead(&north), []);
    // Somebody without rights says nothing on the bus of others.
    for (client, slug) in [(&mut stage.admin, "south"), (&mut stage.member, "north")] {
        let error = refused(client, &format!("SELECT usher.emit_event('{slug}', 'system.error', '{{\"message\": \"x\"}}')"));
        assert_eq!(error.code().code(), "42501", "{error:?}");
    }
}

/// The same event begins a workflow once, however often it is heard.
#[test]
fn an_event_that_is_heard_again_begins_nothing() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(listens);
    stage.act(&paid(&north));
    (TRIGGERED.check)(&mut stage.owner, &north);
    let replay = format!(
        "SELECT usher.replay_events('platform.begin_triggered_workflows', now() - interval '1 hour', clock_timestamp(), types => 'orders.paid-{}')",
        north.case
    );
    usher_clients::run(&mut stage.owner, &replay);
    wait::until_true(
        &mut stage.owner,
        "SELECT NOT EXISTS (SELECT FROM usher.progress WHERE state = 'running') AND EXISTS (SELECT FROM usher.progress WHERE jobs > 0)",
    );
    stage.settle();
    (TRIGGERED.check)(&mut stage.owner, &north);
}

/// A flow of the pack that keeps failing is a failed synchronisation, what else the hub has to tell is an error of the system.
#[test]
fn what_the_hub_notices_is_heard_on_the_bus() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(|_| String::new());
    let notice = |kind: &str, flow: &str, organization: usher_clients::Uuid| {
        format!(
            "INSERT INTO usher.notices (id, organization_id, kind, severity, flow, subject, first_at, last_at)
             VALUES (gen_random_uuid(), '{organization}', '{kind}', 'critical', {flow}, 'notice {} {kind}', now(), now());",
            north.case
        )
    };
    usher_clients::run(
        &mut stage.owner,
        &(notice("flow failing", "'platform.prepare_package'", north.organization)
            + &notice("conflict open", "NULL", north.organization)),
    );
    stage.settle();
    let heard = format!(
        "SELECT string_agg(concat_ws(' ', type, data ->> 'flow', data ->> 'source'), ', ' ORDER BY type) FROM usher.events
          WHERE organization_id = '{}' AND data ->> 'message' LIKE 'notice {} %'",
        north.organization, north.case
    );
    says(
        &mut stage.owner,
        &heard,
        "data.sync.failed platform.prepare_package, monitoring.alert conflict open, system.error conflict open",
    );
    assert_eq!(
        value::<i64>(
            &mut stage.owner,
            "SELECT count(*) FROM usher.notifications WHERE title LIKE $1",
            &[&format!("notice {} %", north.case)]
        ),
        1
    );
    let foreign = format!(
        "SELECT count(*) FROM usher.events WHERE organization_id = '{}' AND data ->> 'message' LIKE 'notice {} %'",
        south.organization, north.case
    );
    assert_eq!(number(&mut stage.owner, &foreign), 0);
}
