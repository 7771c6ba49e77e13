//! All four systems together: one chain from the marketplace to the client, many at once, what fails for a while, and installing again.

use super::rows::{OUTPUTS, both, forbid, module, package, set, workflow};
use super::stage::{ADMIN, says, stage};
use std::thread;
use usher_clients::{Database, number, refused, role, run, settled, text, wait};

/// From the package that is installed to the client who is told, by what members write alone.
#[test]
fn data_walk_through_all_four_systems() {
    let stage = &mut *stage();
    let [north, south] = stage.rows(package);
    let before = stage.everything(&south);
    stage.act(&format!(
        "INSERT INTO platform.marketplace_installations (organization_id, id, package_id, configuration, status)
         VALUES ('{0}', '{1}', '{2}', '{{\"{3}\": {{\"seats\": 2}}}}', 'installed');
         {4}
         INSERT INTO platform.workflow_executions (organization_id, id, workflow_id, status, input)
         VALUES ('{0}', '{5}', '{6}', 'running', '{{\"client_ref\": \"{7}\", \"notify_client\": true}}');",
        north.organization,
        north.id("installation"),
        north.id("package"),
        north.unique("crm"),
        workflow(&north, &[("required_modules", &both(&north))]),
        north.id("execution"),
        north.id("workflow"),
        north.unique("client"),
    ));
    stage.act(&set(
        &north,
        "workflow_executions",
        "execution",
        &format!("status = 'completed', completed_at = now(), outputs = {OUTPUTS}"),
    ));
    stage.act(&format!(
        "UPDATE platform.handover_packages SET status = 'delivered', delivered_at = now() WHERE organization_id = '{}' AND execution_id = '{}' AND status = 'ready'",
        north.organization,
        north.id("execution")
    ));
    assert_eq!(stage.dead(&north), []);
    let sql = format!(
        "SELECT concat_ws(' | ', h.status, (SELECT string_agg(d.kind || CASE d.kind WHEN 'module_snapshot' THEN concat(' ', split_part(d.body ->> 'module', '-', 1), ' ', d.body ->> 'status', ' ', d.body ->> 'configuration') ELSE '' END, ', ' ORDER BY d.kind, d.body ->> 'module')
                                    FROM platform.handover_documentation AS d WHERE d.organization_id = h.organization_id AND d.package_id = h.id
                                     AND (d.kind <> 'module_snapshot' OR d.source_ref IN ('{0}', '{1}'))),
                          (SELECT string_agg(n.recipient = '{2}' || '', ',') FROM usher.notifications AS n WHERE n.organization_id = h.organization_id AND n.body ->> 'package_id' = h.id::text),
                          (SELECT count(*) FROM usher.events AS e WHERE e.organization_id = h.organization_id AND e.type = 'analytics.track' AND e.data ->> 'package_id' = h.id::text AND (e.data ->> 'seconds')::numeric > 0))
           FROM platform.handover_packages AS h WHERE h.organization_id = '{3}' AND h.execution_id = '{4}'",
        north.id("crm"),
        north.id("billing"),
        north.unique("client"),
        north.organization,
        north.id("execution")
    )
    .replace("string_agg(n.recipient = ", "string_agg((n.recipient = ")
    .replace(" || '', ',')", ")::text, ',')");
    says(
        &mut stage.owner,
        &sql,
        r#"delivered | artifact, artifact, module_snapshot billing active {}, module_snapshot crm active {"seats": 2}, result | true | 1"#,
    );
    assert_eq!(stage.everything(&south), before, "nothing of the other organization has changed");
}

/// Many who need the same modules, and ask for the same packages, at once: each effect once.
#[test]
fn many_at_once_make_each_effect_once() {
    let stage = &mut *stage();
    let [north, _] = stage.rows(|place| module(place, "crm") + &module(place, "billing"));
    let (organization, modules) = (north.organization, both(&north));
    let sessions: Vec<_> = (0..4)
        .map(|session| {
            let (mut client, modules) = (stage.database.connect_as(ADMIN), modules.clone());
            let case = north.case;
            thread::spawn(move || {
                for n in 0..10 {
                    run(
                        &mut client,
                        &format!(
                            "WITH w AS (INSERT INTO platform.orchestration_workflows (organization_id, name, required_modules) VALUES ('{organization}', 'at once {case} {session} {n}', {modules}) RETURNING id)
                             INSERT INTO platform.workflow_executions (organization_id, workflow_id, status) SELECT '{organization}', id, 'completed' FROM w;
                             SELECT usher.emit_event('north', 'handover.package.preparation.requested', jsonb_build_object('execution_id', e.id))
                               FROM platform.workflow_executions AS e JOIN platform.orchestration_workflows AS w ON w.organization_id = e.organization_id AND w.id = e.workflow_id
                              WHERE e.organization_id = '{organization}' AND w.name = 'at once {case} {session} {n}'"
                        ),
                    );
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    stage.settle();
    assert_eq!(stage.dead(&north), []);
    let sql = format!(
        "SELECT concat_ws(' ', (SELECT string_agg(concat_ws(',', status, version), ' ') FROM platform.module_activations WHERE organization_id = '{organization}' AND module_id IN ('{}', '{}')),
                          (SELECT concat_ws(',', count(*), count(DISTINCT h.execution_id), string_agg(DISTINCT h.status, '')) FROM platform.handover_packages AS h
                             JOIN platform.workflow_executions AS e ON e.organization_id = h.organization_id AND e.id = h.execution_id
                             JOIN platform.orchestration_workflows AS w ON w.organization_id = e.organization_id AND w.id = e.workflow_id
                            WHERE w.name LIKE 'at once {} %'),
                          (SELECT count(DISTINCT d.package_id) || ',' || count(*) FROM platform.handover_documentation AS d
                             JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
                             JOIN platform.workflow_executions AS e ON e.organization_id = h.organization_id AND e.id = h.execution_id
                             JOIN platform.orchestration_workflows AS w ON w.organization_id = e.organization_id AND w.id = e.workflow_id
                            WHERE w.name LIKE 'at once {2} %' AND d.source_ref IN ('{0}', '{1}')))",
        north.id("crm"),
        north.id("billing"),
        north.case
    );
    says(&mut stage.owner, &sql, "active,1 active,1 40,40,ready 40,80");
}

/// What fails for a while is tried again by itself, as the flows say without being told otherwise.
#[test]
fn what_fails_for_a_while_goes_through_by_itself() {
    let database = Database::create("usher_test_platform_retry");
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('platform'); SELECT usher.create_organization('north')");
    let place = super::stage::Place {
        slug: "north",
        organization: usher_clients::value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]),
        case: 1,
    };
    run(here, &(module(&place, "crm") + &module(&place, "billing") + &forbid(&place, "module_activations", "false")));
    run(here, &workflow(&place, &[("required_modules", &both(&place))]));
    wait::until_true(
        here,
        "SELECT EXISTS (SELECT FROM usher.sync_jobs WHERE flow = 'platform.activate_modules_of_workflow' AND status = 'failed' AND attempts > 0)",
    );
    assert_eq!(number(here, "SELECT count(*) FROM platform.module_activations"), 0);
    run(here, "ALTER TABLE platform.module_activations DROP CONSTRAINT test_1");
    settled(here, wait::LONG);
    assert_eq!(text(here, "SELECT string_agg(status, ',') FROM platform.module_activations"), "active,active");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
}

/// Everything is there once the pack is installed; installing again changes nothing, and removing it leaves the rows.
#[test]
fn everything_is_set_by_installing_the_pack() {
    let database = Database::create("usher_test_platform_install");
    let mut client = database.connect();
    let here = &mut client;
    let said = text(here, "SELECT usher.install_pack('platform')");
    let flows = number(here, "SELECT count(*) FROM usher.flows WHERE pack = 'platform' AND enabled AND state = 'ok'");
    assert!(flows > 30 && said.contains(&format!("{flows} flows made, 0 changed, running as usher_platform")), "{said}");
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.pack_workflows('platform') WHERE kind = 'flow' AND description <> ''"),
        flows
    );
    assert_eq!(
        text(
            here,
            "SELECT string_agg(name, ',' ORDER BY name) FROM usher.systems WHERE name IN ('orchestration', 'modules', 'marketplace', 'handover')"
        ),
        "handover,marketplace,modules,orchestration"
    );
    // A flow for every pair of systems.
    assert_eq!(
        text(
            here,
            "SELECT string_agg(p.pair, ', ' ORDER BY p.pair) FROM (
                 SELECT DISTINCT concat_ws(' ', least(f.definition ->> 'from', f.definition ->> 'to'), greatest(f.definition ->> 'from', f.definition ->> 'to')) AS pair
                   FROM usher.flows AS f WHERE f.pack = 'platform' AND f.definition ->> 'from' <> f.definition ->> 'to' AND 'platform' NOT IN (f.definition ->> 'from', f.definition ->> 'to')) AS p"
        ),
        "handover marketplace, handover modules, handover orchestration, marketplace modules, marketplace orchestration, modules orchestration"
    );
    // Row level security everywhere, keys that lead with the organization, nothing for everybody.
    assert_eq!(
        text(
            here,
            "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE c.relrowsecurity),
                              (SELECT count(*) FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid WHERE t.relnamespace = 'platform'::regnamespace
                                  AND (SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attnum = i.indkey[0]) <> 'organization_id'),
                              (SELECT count(*) FROM pg_proc AS p WHERE p.pronamespace = 'platform'::regnamespace AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS x WHERE x.grantee = 0))),
                              (SELECT count(*) FROM pg_proc AS p WHERE p.pronamespace = 'platform'::regnamespace AND NOT 'search_path=pg_catalog, pg_temp' = ANY (COALESCE(p.proconfig, '{}'))))
               FROM pg_class AS c WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind = 'r'"
        ),
        "12 12 0 0 0"
    );
    assert!(text(here, "SELECT usher.install_pack('platform')").contains("0 flows made, 0 changed"));
    let picture = text(here, "SELECT usher.lineage_diagram('mermaid', pack => 'platform')");
    super::shown("lineage", &format!("```mermaid\n{}\n```\n", picture.trim_end()));
    run(
        here,
        "INSERT INTO platform.module_registry (organization_id, code) SELECT id, 'crm' FROM usher.organizations WHERE slug = 'default'",
    );
    assert!(text(here, "SELECT usher.remove_pack('platform')").contains(&format!("{flows} flows removed")));
    assert_eq!(number(here, "SELECT count(*) FROM usher.flows WHERE pack = 'platform'"), 0);
    assert_eq!(number(here, "SELECT count(*) FROM platform.module_registry"), 1);
    // A table that somebody else made is not adopted.
    run(here, "DROP SCHEMA platform CASCADE; CREATE SCHEMA platform; CREATE TABLE platform.module_registry (id integer)");
    let error = refused(here, "SELECT usher.install_pack('platform')");
    assert!(error.message().contains("did not make platform.module_registry"), "{error:?}");
    role(here, "usher_platform", "NOLOGIN");
}

/// Who writes and whoever removes the pack lock rows of the hub and the pack's tables in orders of their own.
#[test]
fn a_pack_is_removed_while_others_work_on_its_tables() {
    let database = Database::create("usher_test_platform_deadlock");
    let mut client = database.connect();
    let (here, other, third) = (&mut client, &mut database.connect(), &mut database.connect());
    run(here, "SELECT usher.install_pack('platform')");
    settled(here, wait::LONG);
    run(
        other,
        "SET deadlock_timeout = '1 min'; BEGIN; SELECT FROM usher.flows WHERE pack = 'platform' ORDER BY id DESC LIMIT 1 FOR UPDATE",
    );
    run(here, "SET deadlock_timeout = '2 s'; SET application_name = 'removes'");
    thread::scope(|threads| {
        let removing = threads.spawn(|| text(here, "SELECT usher.remove_pack('platform')"));
        wait::until_true(
            third,
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'removes' AND wait_event_type = 'Lock')",
        );
        // This waits for the tables, whose triggers are dropped by then; so who removes finds the deadlock and gives way.
        run(
            other,
            "DO $$BEGIN EXECUTE (SELECT 'LOCK TABLE ' || string_agg(oid::regclass::text, ', ') || ' IN ROW EXCLUSIVE MODE' FROM pg_class WHERE relnamespace = 'platform'::regnamespace AND relkind = 'r'); END$$;
             COMMIT",
        );
        assert!(removing.join().expect("the pack is removed").contains("flows removed"));
    });
    assert_eq!(
        number(third, "SELECT (SELECT count(*) FROM usher.flows WHERE pack = 'platform') + (SELECT count(*) FROM usher.rules)"),
        0
    );
    wait::until_true(third, "SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = current_database()");
    role(third, "usher_platform", "NOLOGIN");
}
