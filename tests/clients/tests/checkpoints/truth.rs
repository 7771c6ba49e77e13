//! What stays true while many write at once, and what keeps wrong data out: before, in the transaction, and after.

use super::stage::{Town, suite, walk};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use usher_clients::{Client, Database, json, number, refused, role, run, text, value, wait};

const SEATS: i64 = 20;
const ROUNDS: usize = 12;

/// SQLSTATE of a statement that fails; empty when it does not.
fn outcome(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => String::new(),
        Err(error) => error.code().map(|code| code.code().to_owned()).unwrap_or_else(|| panic!("{error}")),
    }
}

/// One of those who write: runs that are completed, merges into one configuration, the last word on one installation, and seats of which there are few.
fn writes(client: &mut Client, town: &Town, who: usize) -> i64 {
    let mut sold = 0;
    for n in 0..ROUNDS {
        let name = format!("{who}-{n}");
        run(
            client,
            &(town.add(
                "orchestration_workflows",
                &name,
                &[("name", &format!("'{name}'")), ("required_modules", "'{crm,billing}'")],
            ) + &town.add(
                "workflow_executions",
                &name,
                &[
                    ("workflow_id", &town.the(&name)),
                    ("status", "'completed'"),
                    ("outputs", r#"'{"artifacts": [{"name": "a"}, {"name": "b"}]}'"#),
                ],
            )),
        );
        let merge = json!({"action": "merge_configuration", "module": "mail", "configuration": {format!("k{name}"): n}});
        run(client, &format!("SELECT usher.enqueue_sync_job('{}', 'marketplace', 'modules', '{merge}')", town.slug));
        run(
            client,
            &town.set(
                "marketplace_installations",
                "installed",
                &format!(r#"configuration = '{{"crm": {{"seats": {}}}}}'"#, who * 100 + n),
            ),
        );
        match outcome(client, &format!("INSERT INTO public.walk_seats VALUES ('{}', 'gala')", town.id)).as_str() {
            "" => sold += 1,
            "23514" => {}
            other => panic!("{other}"),
        }
    }
    sold
}

/// Until it is told to stop, one snapshot after the other: never a seat too many.
fn watches(database: &Database, stop: &AtomicBool) -> usize {
    let mut client = database.connect();
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        let most = number(
            &mut client,
            "SELECT COALESCE(max(n), 0) FROM (SELECT count(*) AS n FROM public.walk_seats GROUP BY organization_id) AS s",
        );
        assert!(most <= SEATS, "{most} seats were sold");
        run(&mut client, "COMMIT");
        looks += 1;
    }
    looks
}

pub fn at_the_same_time() {
    let mut walk = walk("truth");
    role(&mut walk.owner, "clients_walk_gate", "NOLOGIN");
    run(
        &mut walk.owner,
        &format!(
            r#"CREATE TABLE public.walk_seats (organization_id uuid NOT NULL, event text NOT NULL);
               GRANT SELECT, INSERT ON public.walk_seats TO usher_member, clients_walk_gate;
               SELECT usher.create_rule('walk_seats', '{{
                   "query": "SELECT organization_id, event, count(*) AS sold FROM public.walk_seats GROUP BY organization_id, event HAVING count(*) > {SEATS}",
                   "key": ["event"], "wrong": "sold || '' seats''", "run": ["transaction"], "run_as": "clients_walk_gate", "touches": {{"public.walk_seats": {{"event": "row.event"}}}}}}')"#
        ),
    );
    walk.prepare(|town| {
        suite(town)
            + &town.add("module_registry", "mail", &[("code", "'mail'")])
            + &town.add(
                "marketplace_installations",
                "installed",
                &[("package_id", &town.the("suite")), ("status", "'installed'")],
            )
    });
    let (near, far) = (walk.near.clone(), walk.far.clone());
    let stop = AtomicBool::new(false);
    let (sold, looks) = thread::scope(|scope| {
        let reader = scope.spawn(|| watches(&walk.database, &stop));
        let writers: Vec<_> = (0..8)
            .map(|who| {
                // Six admins here, two elsewhere.
                let (town, database, login) = (if who < 6 { &near } else { &far }, &walk.database, &walk.login);
                let mut client = if who < 6 { database.connect_as(login) } else { database.connect() };
                scope.spawn(move || (who < 6, writes(&mut client, town, who)))
            })
            .collect();
        let mut sold = [0, 0];
        for writer in writers {
            let (here, some) = writer.join().expect("a writer ends");
            sold[usize::from(!here)] += some;
        }
        stop.store(true, Ordering::Relaxed);
        (sold, reader.join().expect("no snapshot shows a seat too many"))
    });
    walk.settle();
    walk.nothing_dead();
    // All were asked for and no more were given, here and there.
    assert_eq!(sold, [SEATS, SEATS]);
    assert!(looks > 10, "{looks}");
    for (town, writers) in [(&near, 6), (&far, 2)] {
        let runs = writers * ROUNDS;
        let id = town.id;
        walk.says(
            "seats",
            &format!("SELECT count(*)::text FROM public.walk_seats WHERE organization_id = '{id}'"),
            &SEATS.to_string(),
        );
        walk.says(
            "each run has one package with its result and its artifacts, and the bus has heard of it once",
            &format!(
                "SELECT concat_ws(' ', count(*), sum(s.packages), sum(s.documents), sum(s.heard), bool_and(s.packages = 1 AND s.documents = 3 AND s.heard = 1)) FROM (
                     SELECT (SELECT count(*) FROM platform.handover_packages AS h WHERE h.organization_id = e.organization_id AND h.execution_id = e.id AND h.status = 'ready') AS packages,
                            (SELECT count(*) FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
                              WHERE h.organization_id = e.organization_id AND h.execution_id = e.id AND d.kind <> 'module_snapshot') AS documents,
                            (SELECT count(*) FROM usher.events AS v WHERE v.organization_id = e.organization_id AND v.type = 'workflow.execution.completed' AND v.data ->> 'execution_id' = e.id::text) AS heard
                       FROM platform.workflow_executions AS e WHERE e.organization_id = '{id}') AS s"
            ),
            &format!("{runs} {runs} {} {runs} t", 3 * runs),
        );
        walk.says(
            "no merge is lost",
            &format!(
                "SELECT count(*)::text FROM platform.module_configurations AS c, jsonb_object_keys(c.configuration) WHERE c.organization_id = '{id}' AND c.module_id = '{}' AND c.installation_id IS NULL",
                town.id("mail")
            ),
            &runs.to_string(),
        );
        walk.says(
            "the last word on the installation is that of the configuration",
            &format!(
                "SELECT (c.configuration -> 'seats' = i.configuration #> '{{crm,seats}}')::text FROM platform.module_configurations AS c
                   JOIN platform.marketplace_installations AS i ON i.organization_id = c.organization_id AND i.id = c.installation_id WHERE c.organization_id = '{id}' AND c.module_id = '{}'",
                town.id("crm")
            ),
            "true",
        );
        walk.says(
            "each module is activated once",
            &format!("SELECT string_agg(concat_ws(' ', status, version), ', ') FROM platform.module_activations WHERE organization_id = '{id}'"),
            "active 1, active 1",
        );
        let found = text(
            &mut walk.owner,
            &format!(
                "SELECT string_agg(concat_ws(' ', rule, new, still, error), ', ') FROM usher.check_rules('{}') WHERE new + still > 0 OR error IS NOT NULL",
                town.slug
            ),
        );
        assert_eq!(found, "", "{}: what the rules find", town.slug);
        walk.holds(town);
    }
    run(&mut walk.owner, "SELECT usher.drop_rule('walk_seats')");
}

pub fn validated() {
    let mut walk = walk("validated");
    walk.prepare(|town| suite(town) + &town.add("marketplace_installations", "installed", &[("package_id", &town.the("suite"))]));
    let near = walk.near.clone();
    let before = walk.elsewhere();

    // Before: of a call with one wrong row nothing is written, and each row is told of.
    let rows = json!([
        {"table": "module_registry", "action": "upsert", "row": {"id": near.id("mail"), "code": "mail"}},
        {"table": "module_registry", "action": "upsert", "row": {"id": near.id("wrong"), "code": "wrong", "config_schema": "none"}},
        {"table": "module_configurations", "action": "upsert", "row": {"id": near.id("nothing"), "module_id": near.id("mail")}}
    ]);
    let told = format!(
        "SELECT string_agg(outcome || COALESCE(' ' || substring(error FROM '\"([a-z_]+)\"$'), ''), ', ' ORDER BY operation) FROM platform.synchronize('{rows}', '{}')",
        near.slug
    );
    assert_eq!(text(&mut walk.admin, &told), "not written, refused module_registry_schema_object, not written");
    let modules =
        format!("SELECT string_agg(code, ' ' ORDER BY code) FROM platform.module_registry WHERE organization_id = '{}'", near.id);
    walk.says("nothing is written", &modules, "billing crm");
    // A step that does not exist is refused, whoever takes it.
    walk.act(&near.set("marketplace_installations", "installed", "status = 'failed'"));
    let installs = near.set("marketplace_installations", "installed", "status = 'installed'");
    for client in [&mut walk.admin, &mut walk.owner] {
        let error = refused(client, &installs);
        assert!(
            error.code().code() == "23514" && error.message().contains("that is failed cannot become installed"),
            "{error:?}"
        );
    }
    walk.act(&near.set("marketplace_installations", "installed", "status = 'pending'"));

    // On the way: what does not fit its target is told of, and nothing of it is there, not even what would have fitted.
    let configured = format!(
        "SELECT COALESCE(string_agg(concat_ws(' ', m.code, c.configuration), ', ' ORDER BY m.code), 'nothing') FROM platform.module_configurations AS c
           JOIN platform.module_registry AS m ON m.organization_id = c.organization_id AND m.id = c.module_id WHERE c.organization_id = '{}'",
        near.id
    );
    walk.act(&near.set(
        "marketplace_installations",
        "installed",
        r#"status = 'installed', configuration = '{"crm": {"seats": 1.5}, "billing": {"tax": 19}}'"#,
    ));
    walk.died("configure_installed_modules", "the configuration of module \"crm\" does not fit: \"seats\" is no integer");
    walk.says("nothing is half done", &configured, "nothing");
    // By capture off it is put right, so that it is the replay alone that brings it over.
    run(
        &mut walk.owner,
        &format!(
            "BEGIN; SET LOCAL usher.capture = off; {} COMMIT",
            near.set(
                "marketplace_installations",
                "installed",
                r#"configuration = '{"crm": {"seats": 2}, "billing": {"tax": 19}}'"#
            )
        ),
    );
    walk.replay("configure_installed_modules", "{}");
    let right = r#"billing {"tax": 19}, crm {"seats": 2}"#;
    walk.says("replayed", &configured, right);

    // In the transaction: who breaks a rule does not commit, whether a person or a flow.
    run(
        &mut walk.owner,
        r#"SELECT usher.create_rule('walk_discount', '{
               "query": "SELECT organization_id, module_id, sum((configuration ->> ''discount'')::integer) AS sum FROM platform.module_configurations GROUP BY organization_id, module_id HAVING sum((configuration ->> ''discount'')::integer) > 50",
               "key": ["module_id"], "wrong": "''together they give '' || sum || '' % off''", "run": ["transaction"], "run_as": "usher_platform",
               "touches": {"platform.module_configurations": {"module_id": "row.module_id"}}}')"#,
    );
    let by_hand = |discount: u32| {
        near.add(
            "module_configurations",
            "by hand",
            &[("module_id", &near.the("billing")), ("configuration", &format!("'{{\"discount\": {discount}}}'"))],
        )
    };
    run(&mut walk.admin, &format!("BEGIN; {}", by_hand(60)));
    let error = refused(&mut walk.admin, "COMMIT");
    assert!(error.code().code() == "23514" && error.message().contains("together they give 60 % off"), "{error:?}");
    walk.settle();
    walk.says("refused", &configured, right);
    walk.act(&by_hand(30));
    walk.act(&near.set(
        "marketplace_installations",
        "installed",
        r#"configuration = '{"crm": {"seats": 3}, "billing": {"discount": 40}}'"#,
    ));
    walk.died("configure_changed_installation", "rule \"walk_discount\" does not hold");
    let held = r#"billing {"tax": 19}, billing {"discount": 30}, crm {"seats": 2}"#;
    let sorted = configured.replace("ORDER BY m.code", "ORDER BY m.code, c.installation_id");
    walk.says("what would have fitted waits with what does not", &sorted, held);
    run(
        &mut walk.owner,
        &format!(
            "BEGIN; SET LOCAL usher.capture = off; {} COMMIT",
            near.set(
                "marketplace_installations",
                "installed",
                r#"configuration = '{"crm": {"seats": 3}, "billing": {"discount": 10}}'"#
            )
        ),
    );
    walk.replay("configure_changed_installation", "{}");
    walk.says("replayed", &sorted, r#"billing {"tax": 19, "discount": 10}, billing {"discount": 30}, crm {"seats": 3}"#);
    run(&mut walk.owner, "SELECT usher.drop_rule('walk_discount')");

    let since = walk.now();
    // After: what somebody takes away behind the flows' back is found by the rule, and is there again, as the installation says.
    run(
        &mut walk.admin,
        &format!(
            "DELETE FROM platform.module_configurations WHERE organization_id = '{}' AND installation_id = '{}'",
            near.id,
            near.id("installed")
        ),
    );
    walk.repaired(&since, "installation_has_configuration", &format!("{{\"installation_id\": \"{}\"}}", near.id("installed")));
    walk.says("repaired", &sorted, r#"billing {"discount": 10}, billing {"discount": 30}, crm {"seats": 3}"#);
    let members: i64 = value(&mut walk.admin, "SELECT count(*) FROM usher.violations WHERE organization_id <> $1", &[&near.id]);
    assert_eq!(members, 0, "an admin sees no violation of others");
    walk.nothing_dead();
    walk.holds(&near);
    wait::until_true(
        &mut walk.owner,
        &format!(
            "SELECT count(*) = 0 FROM usher.violations WHERE organization_id = '{}' AND status IN ('open', 'pending')",
            near.id
        ),
    );
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}
