//! How soon what is committed is to be seen elsewhere, and who hears of it.

use super::stage::{Town, run_of, walk};
use std::time::{Duration, Instant};
use usher_clients::{Client, json, realtime, reload, role, run, value, wait};

const ANNA: &str = "22222222-0000-4000-8000-00000000000a";
const BERT: &str = "22222222-0000-4000-8000-00000000000b";
const MODULES: usize = 10;

/// From the answer to COMMIT until a query says true.
#[track_caller]
fn measured(writer: &mut Client, sql: &str, reader: &mut Client, seen: &str) -> Duration {
    run(writer, sql);
    let begin = Instant::now();
    wait::until_true(reader, seen);
    begin.elapsed()
}

fn world(town: &Town) -> String {
    let modules: String = (0..MODULES)
        .map(|n| {
            let (module, package) = (format!("m{n}"), format!("p{n}"));
            town.add("module_registry", &module, &[("code", &format!("'{module}'"))])
                + &town.add(
                    "marketplace_packages",
                    &package,
                    &[("code", &format!("'{package}'")), ("module_codes", &format!("'{{{module}}}'"))],
                )
        })
        .collect();
    modules + &run_of(town, "handed over", "completed", &[])
}

/// Each module is activated, configured and installed; the packages and the clients that are connected follow at once.
pub fn at_once() {
    let mut walk = walk("times");
    walk.prepare(world);
    let (near, far) = (walk.near.clone(), walk.far.clone());
    let here = &mut walk.owner;
    realtime::install(here);
    role(here, "clients_walk_live", "NOLOGIN");
    run(
        here,
        &format!(
            "GRANT USAGE ON SCHEMA realtime TO clients_walk_live; GRANT INSERT ON realtime.messages TO clients_walk_live;
             CREATE POLICY sends ON realtime.messages FOR INSERT TO clients_walk_live WITH CHECK (true);
             CREATE POLICY members_hear ON realtime.messages FOR SELECT TO authenticated
                 USING (extension = 'broadcast' AND split_part(realtime.topic(), ':', 1) = ANY ((SELECT usher.member_organizations())::text[]));
             SELECT usher.grant_membership('{}', '{ANNA}'), usher.grant_membership('{}', '{BERT}')",
            near.slug, far.slug
        ),
    );
    let live = json!({
        "run_as": "clients_walk_live", "when": {"change": "platform.module_activations", "on": ["insert", "update"]}, "then": {"publish": "modules"}
    });
    usher_clients::flow(here, "walk_live", &live);
    let before = walk.elsewhere();

    let holds = |module: &str, what: &str| {
        format!(
            "SELECT EXISTS (SELECT FROM platform.handover_documentation AS d JOIN platform.handover_packages AS h ON h.organization_id = d.organization_id AND h.id = d.package_id
                             WHERE h.organization_id = '{}' AND h.execution_id = '{}' AND d.source_ref = '{}' AND {what})",
            near.id,
            near.id("handed over"),
            near.id(module)
        )
    };
    let mut times: Vec<(Duration, &str)> = Vec::new();
    for n in 0..MODULES {
        let module = format!("m{n}");
        let the = near.the(&module);
        let active = format!(
            "SELECT EXISTS (SELECT FROM platform.module_activations WHERE organization_id = '{}' AND module_id = {the} AND status = 'active')",
            near.id
        );
        let needs = near.add(
            "orchestration_workflows",
            &format!("w{n}"),
            &[("name", "'Needs'"), ("required_modules", &format!("'{{{module}}}'"))],
        );
        times.push((measured(&mut walk.admin, &needs, &mut walk.owner, &active), "orchestration to modules"));
        let heard = format!(
            "SELECT count(*) = 1 FROM realtime.messages AS m JOIN platform.module_activations AS a ON m.payload #>> '{{key,id}}' = a.id::text
              WHERE m.topic = '{}:modules' AND m.event = 'INSERT' AND m.private AND a.organization_id = '{0}' AND a.module_id = {the}",
            near.id
        );
        wait::until_true(&mut walk.owner, &heard);
        wait::until_true(&mut walk.owner, &holds(&module, "d.body ->> 'status' = 'active'"));
        // The client hears of what somebody does by hand as soon as of what a flow has done.
        let switched = format!(
            "UPDATE platform.module_activations SET capabilities = '{{export}}' WHERE organization_id = '{}' AND module_id = {the};",
            near.id
        );
        let told = heard.replace("'INSERT'", "'UPDATE'");
        times.push((measured(&mut walk.admin, &switched, &mut walk.owner, &told), "modules to a client that is connected"));
        let configured = near.add(
            "module_configurations",
            &format!("c{n}"),
            &[("module_id", &the), ("configuration", &format!("'{{\"n\": {n}}}'"))],
        );
        let seen = holds(&module, &format!("d.body #>> '{{configuration,n}}' = '{n}'"));
        times.push((measured(&mut walk.admin, &configured, &mut walk.owner, &seen), "modules to handover"));
        let installed = near.add(
            "marketplace_installations",
            &format!("i{n}"),
            &[
                ("package_id", &near.the(&format!("p{n}"))),
                ("status", "'installed'"),
                ("configuration", "'{\"*\": {\"region\": \"eu\"}}'"),
            ],
        );
        let seen = format!(
            "SELECT EXISTS (SELECT FROM platform.module_configurations WHERE organization_id = '{}' AND module_id = {the} AND installation_id = '{}' AND configuration = '{{\"region\": \"eu\"}}')",
            near.id,
            near.id(&format!("i{n}"))
        );
        times.push((measured(&mut walk.admin, &installed, &mut walk.owner, &seen), "marketplace to modules"));
        let template = near.add("marketplace_templates", &format!("t{n}"), &[("code", &format!("'t{n}'"))]);
        let seen = format!(
            "SELECT EXISTS (SELECT FROM usher.events WHERE organization_id = '{}' AND type = 'orchestration.template.available' AND data ->> 'code' = 't{n}')",
            near.id
        );
        times.push((measured(&mut walk.admin, &template, &mut walk.owner, &seen), "marketplace to orchestration"));
    }
    walk.settle();
    walk.nothing_dead();
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2].0, times[times.len() - 1]);
    println!("{} changes were to be seen after {median:.1?} (median), at most {:.1?} ({})", times.len(), slowest.0, slowest.1);
    assert!(median < Duration::from_secs(1), "{times:?}");

    // Who may hear that: asked as the server of Realtime asks.
    let topic = |town: &Town| format!("{}:modules", town.id);
    let sent = value::<i64>(&mut walk.owner, "SELECT count(*) FROM realtime.messages WHERE topic <> $1", &[&topic(&near)]);
    assert_eq!(sent, 0, "nothing of it goes elsewhere");
    run(&mut walk.owner, "ALTER SYSTEM SET usher.claims_roles = 'authenticator, clients_realtime'");
    reload(&mut walk.owner);
    wait::until(wait::LONG, "claims count", || realtime::may_hear(&walk.database, ANNA, &topic(&near)));
    let heard =
        [(ANNA, &far), (BERT, &near), (BERT, &far)].map(|(who, town)| realtime::may_hear(&walk.database, who, &topic(town)));
    run(&mut walk.owner, "ALTER SYSTEM RESET usher.claims_roles");
    reload(&mut walk.owner);
    assert_eq!(heard, [false, false, true]);
    run(&mut walk.owner, "SELECT usher.drop_flow('walk_live')");
    assert_eq!(walk.elsewhere(), before, "nothing of the other organization has changed");
}
