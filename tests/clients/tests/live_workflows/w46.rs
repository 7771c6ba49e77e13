//! W46: one identity for a person and organization, with an account for each platform; whoever leaves has none any more, in the same transaction.

use super::show::set;
use super::six::{Bad, Place, Workflow, alone, nothing};
use usher_clients::{Client, Database, Uuid, Value, json, number, page, refused, run, settled, text, value, wait};

pub const WORKFLOW: Workflow = Workflow {
    number: "W46",
    targets: &["live_events.identities", "live_events.platform_accounts"],
    prepare: nothing,
    act: |place| format!("{} {}", employee(place, "hired"), contact(place, &format!("'{}'", address(place).to_uppercase()))),
    check,
    not_met: |place| format!("{} {}", employee(place, "applicant"), contact(place, "NULL")),
    repeat: |place| {
        format!(
            "{} {}",
            set(place, "atlvs.employees", "employee", "email = upper(email)"),
            set(place, "atlvs.contacts", "contact", "email = lower(email), phone = '+49 30'")
        )
    },
    bad: Bad {
        // The address is another guest's, by what somebody has entered.
        before: |place| {
            format!(
                "INSERT INTO live_events.identities (organization_id, id, email, name) VALUES ('{0}', '{1}', '{2}', 'Ann Lee');
                 INSERT INTO live_events.platform_accounts (organization_id, identity_id, platform, kind, ref, role) VALUES ('{0}', '{1}', 'gvteway', 'guest', '{3}', 'guest')",
                place.organization,
                place.id("identity"),
                address(place),
                place.id("somebody else")
            )
        },
        act: |place| {
            format!("INSERT INTO gvteway.guests (organization_id, id, email) VALUES ('{}', '{}', '{}')", place.organization, place.id("guest"), address(place))
        },
        flow: "live_events.link_guest",
        error: "who is another person",
        repair: |place| {
            format!(
                "DELETE FROM live_events.platform_accounts WHERE organization_id = '{}' AND ref = '{}'; {} {}",
                place.organization,
                place.id("somebody else"),
                employee(place, "hired"),
                contact(place, &format!("'{}'", address(place)))
            )
        },
        changes: Some(|_| "{}".to_owned()),
    },
};

fn address(place: &Place) -> String {
    format!("{}@example.org", place.unique("ann"))
}

fn employee(place: &Place, status: &str) -> String {
    format!(
        "INSERT INTO atlvs.employees (organization_id, id, name, email, status) VALUES ('{}', '{}', 'Ann Lee', '{}', '{status}');",
        place.organization,
        place.id("employee"),
        address(place)
    )
}

fn contact(place: &Place, email: &str) -> String {
    format!(
        "INSERT INTO atlvs.contacts (organization_id, id, first_name, last_name, email) VALUES ('{}', '{}', 'Ann', 'Lee', {email});",
        place.organization,
        place.id("contact")
    )
}

/// Who has an address, and what that person is.
fn person(place: &Place) -> String {
    format!(
        "SELECT string_agg(concat_ws('|', i.status, i.name, (SELECT string_agg(concat_ws(' ', a.platform, a.role, a.status), ',' ORDER BY a.platform, a.role)
                                                               FROM live_events.platform_accounts AS a WHERE a.organization_id = i.organization_id AND a.identity_id = i.id)), E'\\n')
           FROM live_events.identities AS i WHERE i.organization_id = '{}' AND lower(i.email) = '{}'",
        place.organization,
        address(place)
    )
}

const ALL: &str = "active|Ann Lee|atlvs client active,atlvs employee active,compvss crew active,gvteway guest active";

fn check(here: &mut Client, place: &Place) {
    assert_eq!(text(here, &person(place)), ALL);
    let (slug, user) = (place.slug, place.unique("user"));
    let guest = text(
        here,
        &format!("SELECT id::text FROM gvteway.guests WHERE organization_id = '{}' AND lower(email) = '{}'", place.organization, address(place)),
    );
    // What she was told as a guest is hers as soon as it is known as whom she signs in.
    run(here, &format!("SELECT usher.notify('{slug}', '{{{guest}}}', 'Gates at six', key => 'gates')"));
    run(here, &format!("SELECT usher.grant_membership('{slug}', '{user}'), live_events.link_user('{slug}', '{}', '{user}')", address(place).to_uppercase()));
    settled(here, wait::LONG);
    assert_eq!(text(here, &format!("SELECT string_agg(title, ',') FROM usher.notifications WHERE recipient = '{user}'")), "Gates at six");
    let claims: Value = value(here, "SELECT live_events.claims($1)", &[&user]);
    let expected = json!({"atlvs": ["client", "employee"], "compvss": ["crew"], "gvteway": ["guest"]});
    assert_eq!((&claims["organizations"][0]["platforms"], &claims["organizations"][0]["role"]), (&expected, &json!("member")), "{claims}");

    // With the membership everything ends, in one transaction; a rollback brings all of it back.
    let revoke = format!("SELECT usher.revoke_membership('{slug}', '{user}')");
    let ended = "deprovisioned|Ann Lee|atlvs client deprovisioned,atlvs employee deprovisioned,compvss crew deprovisioned,gvteway guest deprovisioned";
    run(here, &format!("BEGIN; {revoke}"));
    assert_eq!(text(here, &person(place)), ended, "before the COMMIT");
    run(here, "ROLLBACK");
    assert_eq!(text(here, &person(place)), ALL);
    run(here, &revoke);
    assert_eq!(text(here, &person(place)), ended);
    assert_eq!(value::<Value>(here, "SELECT live_events.claims($1)", &[&user])["organizations"][0]["platforms"], json!({}));
    // What changes in her rows does not bring an account back; membership does.
    run(here, &set(place, "atlvs.employees", "employee", "name = 'Ann L. Lee'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &person(place)), ended.replace("Ann Lee", "Ann L. Lee"));
    run(here, &set(place, "atlvs.employees", "employee", "name = 'Ann Lee'"));
    run(here, &format!("SELECT usher.grant_membership('{slug}', '{user}')"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &person(place)), ALL);
    // Who leaves the company is no employee and not on the crew, at once; she may still be a client and a guest.
    run(here, &format!("BEGIN; {}", set(place, "atlvs.employees", "employee", "status = 'left'")));
    let left = "active|Ann Lee|atlvs client active,atlvs employee deprovisioned,compvss crew deprovisioned,gvteway guest active";
    assert_eq!(text(here, &person(place)), left);
    run(here, "COMMIT");
    settled(here, wait::LONG);
    assert_eq!(text(here, &person(place)), left);
}

/// A house of its own: organizations north and south, an admin of each, and a member of north.
fn house(name: &str) -> (Database, Client, Place) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    for (role, slug, right) in [("north_admin", "north", "admin"), ("north_member", "north", "member"), ("south_admin", "south", "admin")] {
        let role = format!("clients_w46_{role}");
        usher_clients::role(here, &role, "LOGIN");
        run(here, &format!("GRANT usher_member TO {role}"));
        run(here, &format!("DO $$ BEGIN PERFORM usher.create_organization('{slug}'); EXCEPTION WHEN unique_violation THEN NULL; END $$"));
        run(here, &format!("SELECT usher.grant_membership('{slug}', 'role:{role}', '{right}')"));
    }
    let organization = value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]);
    (database, client, Place { slug: "north", organization, case: 1 })
}

#[test]
fn the_first_meeting_is_by_address_and_all_later_ones_by_link() {
    let (_database, mut client, place) = house("usher_test_w46");
    let (here, place) = (&mut client, &place);
    run(here, &format!("{} {}", employee(place, "hired"), contact(place, &format!("'{}'", address(place)))));
    settled(here, wait::LONG);
    assert_eq!(text(here, &person(place)), ALL);
    // The address of one row is another now: the account stays with its person, who has the other address still.
    run(here, &set(place, "atlvs.employees", "employee", "email = 'ann@work.example.org'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, &person(place)), ALL);
    // Now all rows have it: the person's follows.
    run(here, &set(place, "atlvs.contacts", "contact", "email = 'ann@work.example.org'"));
    settled(here, wait::LONG);
    assert_eq!(text(here, "SELECT string_agg(email, ',') FROM live_events.identities"), "ann@work.example.org");
    assert_eq!(number(here, "SELECT count(*) FROM live_events.platform_accounts"), 4);

    // Somebody on the crew turns out to be an employee: one person from then on.
    run(
        here,
        "INSERT INTO atlvs.employees (organization_id, id, name, status) SELECT organization_id, '00000000-0000-0000-0000-00000000000b', 'Bob', 'applicant' FROM live_events.identities;
         INSERT INTO compvss.crew_members (organization_id, name, role) SELECT organization_id, 'Bobby', 'rigger' FROM live_events.identities",
    );
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM live_events.identities"), 2);
    run(
        here,
        "UPDATE compvss.crew_members SET employee_ref = '00000000-0000-0000-0000-00000000000b' WHERE name = 'Bobby';
         UPDATE atlvs.employees SET status = 'hired' WHERE name = 'Bob'",
    );
    settled(here, wait::LONG);
    let bob = "SELECT string_agg(concat_ws(' ', i.name, a.kind, a.role), ', ' ORDER BY a.kind) FROM live_events.identities AS i
                 JOIN live_events.platform_accounts AS a ON a.identity_id = i.id WHERE i.email IS NULL";
    assert_eq!(text(here, bob), "Bob crew_member rigger, Bob employee employee");
    assert_eq!(number(here, "SELECT count(*) FROM live_events.identities"), 2);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);

    // Of somebody who is erased nothing is left that names the person.
    run(here, "INSERT INTO gvteway.guests (organization_id, email, name) SELECT organization_id, 'cyd@example.org', 'Cyd' FROM live_events.identities LIMIT 1");
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM live_events.identities WHERE name = 'Cyd'"), 1);
    run(here, "UPDATE gvteway.guests SET email = 'erased-1', name = NULL, erased_at = now() WHERE name = 'Cyd'");
    assert_eq!(number(here, "SELECT count(*) FROM live_events.identities WHERE num_nonnulls(name, email, user_id) = 0"), 1);
    // Two identities that are one person, by whoever knows it.
    run(here, "INSERT INTO gvteway.guests (organization_id, email, name) SELECT organization_id, 'bob@example.org', 'Robert' FROM live_events.identities LIMIT 1");
    settled(here, wait::LONG);
    run(here, "SELECT live_events.merge_identities(b.organization_id, b.id, r.id) FROM live_events.identities AS b, live_events.identities AS r WHERE b.name = 'Bob' AND r.name = 'Robert'");
    assert_eq!(
        text(here, "SELECT concat_ws('|', i.name, i.email, (SELECT count(*) FROM live_events.platform_accounts AS a WHERE a.identity_id = i.id)) FROM live_events.identities AS i WHERE i.name = 'Bob'"),
        "Bob|bob@example.org|3"
    );
    let error = refused(here, "SELECT live_events.merge_identities(organization_id, id, id) FROM live_events.identities LIMIT 1");
    assert!(error.message().starts_with("there are no two identities") && error.hint().is_some(), "{error:?}");
}

#[test]
fn people_see_who_they_are_and_admins_see_to_the_others() {
    let (database, mut client, place) = house("usher_test_w46_rights");
    let (here, place) = (&mut client, &place);
    run(here, &format!("{} {}", employee(place, "hired"), contact(place, &format!("'{}'", address(place)))));
    settled(here, wait::LONG);
    let mut admin = database.connect_as("clients_w46_north_admin");
    let mut member = database.connect_as("clients_w46_north_member");
    let mut stranger = database.connect_as("clients_w46_south_admin");
    let count = "SELECT count(*) FROM live_events.identities";
    assert_eq!([number(&mut admin, count), number(&mut member, count), number(&mut stranger, count)], [1, 0, 0], "admins read identities");

    // The member is Ann.
    let link = |user: &str| format!("SELECT live_events.link_user('north', '{}', '{user}')", address(place));
    assert_eq!(refused(&mut member, &link("role:clients_w46_north_member")).code().code(), "42501");
    assert_eq!(refused(&mut stranger, &link("role:clients_w46_south_admin")).code().code(), "42501");
    run(&mut admin, &link("role:clients_w46_north_member"));
    run(&mut admin, &link("role:clients_w46_north_member"));
    let taken = refused(&mut admin, &link("somebody"));
    assert!(taken.code().code() == "23505" && taken.hint().is_some(), "{taken:?}");
    for (sql, code) in [
        ("SELECT live_events.link_user('north', 'nobody@example.org', 'x')", "42704"),
        ("SELECT live_events.link_user('north', NULL, 'x')", "22023"),
        ("SELECT live_events.link_user('north', 'a@b', ' ')", "22023"),
        ("SELECT live_events.link_user('south', 'a@b', 'x')", "42501"),
    ] {
        let error = refused(&mut admin, sql);
        assert!(error.code().code() == code && error.hint().is_some(), "{sql}: {error:?}");
    }
    let claims: Value = value(&mut member, "SELECT live_events.claims()", &[]);
    assert_eq!(claims["user_id"], "role:clients_w46_north_member");
    let north = &claims["organizations"][0];
    assert_eq!((&north["slug"], &north["role"], &north["name"], &north["platforms"]["compvss"]), (&json!("north"), &json!("member"), &json!("Ann Lee"), &json!(["crew"])));
    assert_eq!(claims["organizations"].as_array().map(Vec::len), Some(1));
    // Of others only what one may read.
    let others: Value = value(&mut stranger, "SELECT live_events.claims('role:clients_w46_north_member')", &[]);
    assert_eq!(others["organizations"], json!([]));
    let own: Value = value(&mut stranger, "SELECT live_events.claims()", &[]);
    assert_eq!((&own["organizations"][0]["slug"], &own["organizations"][0]["identity_id"]), (&json!("south"), &Value::Null));
    assert_eq!([number(&mut member, count), number(&mut stranger, count)], [1, 0], "she reads herself");

    // Nobody else ends or begins what is hers.
    let id: Uuid = value(here, "SELECT id FROM live_events.identities", &[]);
    for end in ["deprovision", "provision"] {
        let sql = format!("SELECT live_events.{end}('{}', '{id}')", place.organization);
        for client in [&mut member, &mut stranger] {
            assert_eq!(refused(client, &sql).code().code(), "42501", "{sql}");
        }
    }
    assert_eq!(refused(&mut admin, &format!("SELECT live_events.deprovision('{}', '{}')", place.organization, place.id("nobody"))).code().code(), "42501");
    let sql = |function: &str| format!("SELECT live_events.{function}('{}', '{id}')::bigint", place.organization);
    assert_eq!(number(&mut admin, &sql("deprovision")), 4);
    assert_eq!(value::<Value>(&mut member, "SELECT live_events.claims()", &[])["organizations"][0]["platforms"], json!({}));
    run(&mut admin, &format!("UPDATE live_events.platform_accounts SET status = 'suspended', role = 'boss' WHERE kind = 'employee' AND identity_id = '{id}'"));
    assert_eq!(number(&mut admin, &sql("provision")), 3, "what an admin has suspended stays so");
    settled(here, wait::LONG);
    let platforms = &value::<Value>(&mut member, "SELECT live_events.claims()", &[])["organizations"][0]["platforms"];
    assert_eq!(platforms, &json!({"atlvs": ["client"], "compvss": ["crew"], "gvteway": ["guest"]}));

    // Ann as a guest of the event: told where she signs in.
    run(
        here,
        &format!(
            "INSERT INTO gvteway.events (organization_id, id, slug, title, status) VALUES ('{0}', '{1}', 'night', 'Night', 'on_sale');
             INSERT INTO gvteway.orders (organization_id, id, event_id, guest_ref, number, status, subtotal, total) SELECT organization_id, '{2}', '{1}', id, 'O-1', 'paid', 20, 20 FROM gvteway.guests;
             INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price) VALUES ('{0}', '{2}', 'ticket', 1, 20);
             INSERT INTO gvteway.announcements (organization_id, event_id, kind, message, source_ref) VALUES ('{0}', '{1}', 'schedule', 'Doors at seven', 'by hand')",
            place.organization,
            place.id("event"),
            place.id("order")
        ),
    );
    settled(here, wait::LONG);
    assert_eq!(text(&mut member, "SELECT string_agg(title, ',') FROM usher.notifications"), "Doors at seven");
    assert_eq!(number(here, "SELECT count(*) FROM usher.notifications WHERE kind = 'schedule'"), 1);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));

    // Where the application says who belongs where, by the flow of the pack's page.
    let block = page::blocks("packs/live_events.md").into_iter().find(|block| block.sql.contains("end_accounts"));
    run(
        here,
        "CREATE TABLE public.team_members (team_id uuid, user_id text, PRIMARY KEY (team_id, user_id));
         INSERT INTO public.team_members SELECT organization_id, user_id FROM live_events.identities",
    );
    run(here, &block.expect("the page has the flow").sql);
    run(here, "BEGIN; DELETE FROM public.team_members");
    assert_eq!(text(here, "SELECT string_agg(DISTINCT status, ',') FROM live_events.platform_accounts WHERE kind <> 'employee'"), "deprovisioned");
    run(here, "COMMIT");

    // With the organization goes everything of hers there, and nothing is in the way.
    run(here, "DELETE FROM usher.organizations WHERE slug = 'south'");
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
}

#[test]
fn who_has_left_has_no_account_on_the_crew() {
    let (mut stage, place) = alone(nothing);
    let (place, crew) = (&place, place.id("crew"));
    run(
        &mut stage.owner,
        &format!(
            "{} INSERT INTO compvss.crew_members (organization_id, id, employee_ref, name, role) VALUES ('{}', '{crew}', '{}', 'Ann Lee', 'rigger')",
            employee(place, "left"),
            place.organization,
            place.id("employee")
        ),
    );
    stage.settle();
    assert_eq!(number(&mut stage.owner, &format!("SELECT count(*) FROM live_events.platform_accounts WHERE ref = '{crew}'")), 0);
}

#[test]
fn an_account_that_is_made_while_its_person_is_erased_ends_too() {
    let (mut stage, place) = alone(nothing);
    run(&mut stage.owner, "SELECT usher.disable_flow('live_events.link_guest')");
    let stands: Vec<String> = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
        .into_iter()
        .map(|level| {
            let guest = place.id(level);
            let insert = format!("INSERT INTO gvteway.guests (organization_id, id, email, name) VALUES ('{}', '{guest}', '{guest}@example.org', 'Cyd')", place.organization);
            run(&mut stage.owner, &insert);
            stage.settle();
            let erased = stage.meanwhile(
                &format!("SELECT live_events.link_account('{}', 'guest', '{guest}', NULL, NULL)", place.organization),
                &format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM live_events.platform_accounts"),
                &format!("UPDATE gvteway.guests SET email = 'erased-{guest}', name = NULL, erased_at = now() WHERE id = '{guest}'; COMMIT"),
            );
            erased.unwrap_or_else(|error| panic!("{level}: {error}"));
            stage.settle();
            let sql = "SELECT concat_ws('|', a.status, i.name, i.email) FROM live_events.platform_accounts AS a JOIN live_events.identities AS i ON i.id = a.identity_id";
            text(&mut stage.owner, &format!("{sql} WHERE a.ref = '{guest}'"))
        })
        .collect();
    run(&mut stage.owner, "SELECT usher.enable_flow('live_events.link_guest')");
    assert_eq!(stands, ["deprovisioned"; 3]);
}
