//! Privacy: a person is found, given out, erased everywhere, and the rest is provably as it was.

use usher_clients::keyfile::{self, KeyFile};
use usher_clients::{Client, Database, SqlState, flow, json, number, refused, role, run, serde_json, text, value, wait};

const ANN: &str = "00000000-0000-4000-8000-000000000001";
const BOB: &str = "00000000-0000-4000-8000-000000000002";
/// Of Ann, in the organization where she is erased.
const MARKER: &str = "ann-7fe2@example.org";
const NAME: &str = "Annabel Q. Leemarker";

struct House {
    database: Database,
    _keys: KeyFile,
}

/// A shop of two organizations with a guest of the same key in each; flows copy what guests order.
fn house(name: &str) -> (House, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    let keys = KeyFile::new(here, name);
    for name in ["clients_privacy_admin", "clients_privacy_member", "clients_privacy_other"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "clients_privacy_flows", "NOLOGIN");
    run(
        here,
        "SELECT usher.create_organization('north'), usher.create_organization('south');
         SELECT usher.grant_membership('north', 'role:clients_privacy_admin', 'admin'), usher.grant_membership('north', 'role:clients_privacy_member'),
                usher.grant_membership('south', 'role:clients_privacy_other', 'admin');
         CREATE SCHEMA shop;
         CREATE TABLE shop.guests (organization_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL, email text NOT NULL, born date,
             PRIMARY KEY (organization_id, id));
         CREATE TABLE shop.orders (organization_id uuid NOT NULL, id int NOT NULL, guest_id uuid NOT NULL, total numeric, ship_to text, made_at timestamptz DEFAULT now(),
             PRIMARY KEY (organization_id, id), FOREIGN KEY (organization_id, guest_id) REFERENCES shop.guests ON DELETE CASCADE);
         CREATE TABLE shop.invoices (organization_id uuid NOT NULL, order_id int NOT NULL, customer text, amount numeric, PRIMARY KEY (organization_id, order_id));
         GRANT USAGE ON SCHEMA shop TO clients_privacy_flows;
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA shop TO clients_privacy_flows;
         SELECT usher.audit_table('shop.guests'), usher.audit_table('shop.orders'), usher.audit_table('shop.invoices')",
    );
    flow(
        here,
        "invoice",
        &json!({"from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_privacy_flows",
                "when": {"change": "shop.orders", "on": ["insert", "update"]},
                "then": {"upsert": "shop.invoices", "key": ["order_id"]},
                "set": {"order_id": "new.id", "customer": "new.ship_to", "amount": "new.total"},
                "link": {"kind": "order", "left": "new.id", "right": "order_id"}}),
    );
    // Fails for good, so that a dead letter has the person too.
    flow(
        here,
        "greet",
        &json!({"from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_privacy_flows", "retry": {"delays": []},
                "when": {"change": "shop.guests", "on": ["insert"]},
                "then": {"insert": "shop.invoices", "key": ["order_id"], "on_conflict": "keep"},
                "set": {"order_id": "(1 / length(repeat(new.name, 0)))::int", "customer": "new.email"}}),
    );
    run(
        here,
        &format!(
            "INSERT INTO shop.guests SELECT o.id, g.id::uuid, g.name, g.email || CASE o.slug WHEN 'south' THEN '.south' ELSE '' END, '1980-01-02'
               FROM usher.organizations o, (VALUES ('{ANN}', '{NAME}', '{MARKER}'), ('{BOB}', 'Bob', 'bob@example.org')) AS g (id, name, email)
              WHERE o.slug IN ('north', 'south');
             INSERT INTO shop.orders (organization_id, id, guest_id, total, ship_to)
             SELECT g.organization_id, CASE g.id WHEN '{ANN}' THEN 1 ELSE 2 END, g.id, 12.50, g.name || ', ' || g.email FROM shop.guests g;
             UPDATE shop.guests SET born = '1980-01-03';
             SELECT usher.create_system('crm', 'external'), usher.create_system('fax', 'remote');
             INSERT INTO usher.links (organization_id, id, kind, left_id, right_id, left_system, right_system)
             SELECT id, usher.uuid_v7(), 'contact', '{ANN}', s.far, 'shop', s.system FROM usher.organizations, (VALUES ('crm', 'c-77'), ('fax', 'f-1')) AS s (system, far)
              WHERE slug = 'north'"
        ),
    );
    let payload = json!({"action": "welcome", "to": MARKER, "text": format!("Dear {MARKER}!")}).to_string();
    run(here, &format!("SELECT usher.enqueue_sync_job('north', 'shop', 'crm', '{payload}')"));
    run(here, &format!("SELECT usher.notify('north', '{{desk}}', 'Who has written: {MARKER}', body => '{payload}')"));
    // Nobody listens: it is kept all the same.
    run(
        here,
        &format!(
            "SELECT usher.emit_event('north', 'guests.written_to', '{payload}'), usher.emit_event('north', 'guests.counted')"
        ),
    );
    wait::until_true(here, "SELECT count(*) = 4 FROM usher.dead_letters");
    run(
        here,
        "SELECT usher.define_subject('guest', 'shop.guests', links => '{contact}');
         SELECT usher.declare_personal('shop.guests', '{\"name\": {}, \"email\": {\"identifies\": true, \"purpose\": \"tickets\"}, \"born\": {}}'),
                usher.declare_personal('shop.orders', '{\"ship_to\": {}}'), usher.declare_personal('shop.invoices', '{\"customer\": {}}')",
    );
    wait::until_true(here, "SELECT count(*) = 4 FROM shop.invoices WHERE customer IS NOT NULL");
    (House { database, _keys: keys }, client)
}

/// Lines of a dump that show Ann of the north.
fn shown(house: &House, north: &str) -> Vec<String> {
    let of_north = |line: &&str| {
        let south = line.contains(&format!("{MARKER}.south"));
        (line.contains(MARKER) && !south) || (line.contains(NAME) && line.contains(north))
    };
    keyfile::dump(&house.database).lines().filter(of_north).map(str::to_owned).collect()
}

fn seal(client: &mut Client) {
    wait::until_true(
        client,
        "SELECT usher.seal_audit_log() IS NOT NULL AND (SELECT sealed_to FROM usher.audit_chain_state) = (SELECT max(position) FROM usher.audit_log)",
    );
}

/// Waits until the flows have nothing to do; what a worker outside is asked for waits on.
fn quiet(client: &mut Client) {
    wait::until_true(
        client,
        "SELECT NOT EXISTS (SELECT FROM usher.sync_jobs WHERE flow IS NOT NULL AND status IN ('pending', 'in_progress', 'failed'))",
    );
}

fn erase(client: &mut Client, organization: &str, key: &str) -> serde_json::Value {
    value(client, "SELECT usher.erase_subject($1, 'guest', $2, 'asked by letter')", &[&organization, &key])
}

fn intact(client: &mut Client) -> String {
    text(client, "SELECT CASE WHEN intact THEN 'intact' ELSE message END FROM usher.verify_audit_log()")
}

#[test]
fn a_person_is_erased_everywhere_and_the_chain_still_verifies() {
    let (house, mut client) = house("privacy_erase");
    let here = &mut client;
    let north = text(here, "SELECT id::text FROM usher.organizations WHERE slug = 'north'");
    assert!(shown(&house, &north).len() > 8, "before, Ann is in rows, jobs, dead letters and the audit log");
    seal(here);
    run(here, "CREATE TABLE shop.anchor AS SELECT * FROM usher.audit_anchor()");
    let mut admin = house.database.connect_as("clients_privacy_admin");

    let export: serde_json::Value = value(&mut admin, "SELECT usher.export_subject('north', 'guest', $1)", &[&ANN]);
    assert_eq!(export["tables"]["shop.guests"][0]["email"], MARKER);
    assert_eq!(export["tables"]["shop.orders"].as_array().map(Vec::len), Some(1), "Bob's order is not hers");
    assert_eq!(export["tables"]["shop.invoices"][0]["amount"], 12.50);
    assert!(export["jobs"].as_array().is_some_and(|jobs| jobs.len() >= 3), "{export}");
    assert!(!export.to_string().contains("bob@example.org"), "{export}");
    assert_eq!(export["events"].as_array().map(Vec::len), Some(1), "{export}");
    assert_eq!(export["events"][0]["data"]["to"], MARKER);

    let receipt = erase(&mut admin, "north", ANN);
    let signed: serde_json::Value = serde_json::from_str(receipt["signed"].as_str().expect("signed")).expect("JSON");
    assert_eq!(signed["rows"], json!({"shop.guests": 1, "shop.orders": 1, "shop.invoices": 1}));
    assert_eq!(signed["systems"][0]["system"], "crm");
    assert_eq!(signed["systems_without_a_way"], json!([{"system": "fax", "link": "contact"}]));
    let pseudonym = signed["pseudonym"].as_str().expect("a pseudonym").to_owned();

    quiet(here);
    assert_eq!(shown(&house, &north), Vec::<String>::new());
    assert!(
        text(here, "SELECT title FROM usher.notifications").ends_with(&format!("has written: {pseudonym}")),
        "the desk keeps its message"
    );
    // The event is kept, and so is everybody else.
    assert_eq!(
        text(here, &format!("SELECT name FROM shop.guests WHERE organization_id = '{north}' AND id = '{ANN}'")),
        pseudonym
    );
    assert_eq!(number(here, "SELECT count(*) FROM shop.orders WHERE total = 12.50"), 4);
    assert_eq!(number(here, &format!("SELECT count(*) FROM shop.guests WHERE email = '{MARKER}.south'")), 1);
    assert_eq!(number(here, "SELECT count(*) FROM shop.invoices WHERE customer LIKE 'Bob, bob@example.org%'"), 2);
    assert!(number(here, "SELECT count(*) FROM usher.audit_log WHERE action = 'shop.guests.created' AND salt IS NULL") == 1);

    // As it was before, entry for entry: also by the anchor that was taken before.
    assert_eq!(intact(here), "intact");
    seal(here);
    assert_eq!(intact(here), "intact");
    assert!(value::<bool>(here, "SELECT v.intact FROM shop.anchor a, usher.verify_audit_log(a.block, a.hash) v", &[]));

    // The other system answers, and the receipt says so.
    let erasure = signed["erasure"].as_str().expect("an id").to_owned();
    run(here, "SELECT usher.finish_job(c.job, c.lease) FROM usher.claim_jobs('crm', 10) AS c");
    let later: serde_json::Value = value(&mut admin, "SELECT usher.erasure_receipt('north', $1::text::uuid)", &[&erasure]);
    let said: serde_json::Value = serde_json::from_str(later["signed"].as_str().expect("signed")).expect("JSON");
    assert_eq!(said["systems"][0]["state"], "synced", "{said}");
    let verified = |client: &mut Client, receipt: &serde_json::Value, key: Option<&str>| -> bool {
        value(client, "SELECT usher.verify_receipt($1, $2)", &[receipt, &key])
    };
    assert!(verified(here, &receipt, None) && verified(here, &later, receipt["public_key"].as_str()));
    let mut forged = receipt.clone();
    forged["signed"] = json!(receipt["signed"].as_str().expect("signed").replace("guest", "staff"));
    assert!(!verified(here, &forged, None));
}

/// Anybody who writes rows could do it, so that nobody of the organization could be forgotten.
#[test]
fn json_that_is_nested_too_deeply_keeps_nobody_from_being_erased() {
    let (house, mut client) = house("privacy_deep");
    let here = &mut client;
    let north = text(here, "SELECT id::text FROM usher.organizations WHERE slug = 'north'");
    run(
        here,
        "ALTER TABLE shop.guests ADD wishes jsonb;
         CREATE TABLE shop.wishes (organization_id uuid NOT NULL, guest_id uuid, wishes jsonb, PRIMARY KEY (organization_id, guest_id));
         GRANT SELECT, INSERT, UPDATE ON shop.wishes TO clients_privacy_flows",
    );
    flow(
        here,
        "wish",
        &json!({"from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_privacy_flows",
                "when": {"change": "shop.guests", "on": ["update"]}, "then": {"upsert": "shop.wishes", "key": ["guest_id"]},
                "set": {"guest_id": "new.id", "wishes": "new.wishes"}}),
    );
    let wish = |client: &mut Client, guest: &str, inside: Option<&str>| {
        let deep = inside.map(|inside| format!("{}\"{inside}\"{}", "[".repeat(3_000), "]".repeat(3_000)));
        let sql =
            "UPDATE shop.guests SET wishes = $3::text::jsonb WHERE organization_id = $1::text::uuid AND id = $2::text::uuid";
        assert_eq!(client.execute(sql, &[&north, &guest, &deep]).expect("a wish"), 1);
    };
    wish(here, BOB, Some("a quiet room"));
    wish(here, ANN, Some(&format!("mail {MARKER}")));
    wish(here, ANN, None);
    wait::until_true(here, "SELECT count(*) = 2 AND count(wishes) = 1 FROM shop.wishes");
    quiet(here);
    assert!(shown(&house, &north).iter().any(|line| line.contains("[[[[[[[[")), "she is in it");
    for guest in [ANN, BOB] {
        let export: serde_json::Value = value(here, "SELECT usher.export_subject('north', 'guest', $1)", &[&guest]);
        assert!(export["jobs"].to_string().contains("[[[[[[[["), "what is nested too deeply is given out as text");
    }
    erase(here, "north", ANN);
    quiet(here);
    assert_eq!(shown(&house, &north), Vec::<String>::new());
    assert!(keyfile::dump(&house.database).contains("a quiet room"), "Bob's wish is as he wrote it");
    seal(here);
    assert_eq!(intact(here), "intact");
}

#[test]
fn nothing_else_is_changed_under_the_cover_of_an_erasure() {
    let (_house, mut client) = house("privacy_forge");
    let here = &mut client;
    seal(here);
    erase(here, "north", ANN);
    quiet(here);
    seal(here);
    assert_eq!(intact(here), "intact");
    // Whoever may do everything tries to use what lets erasures pass.
    let masked = "(SELECT position FROM usher.audit_erasures WHERE last ORDER BY position LIMIT 1)";
    let other = "(SELECT position FROM usher.audit_log WHERE action = 'shop.orders.created' AND salt IS NOT NULL ORDER BY position LIMIT 1)";
    run(here, "SET session_replication_role = replica");
    for (attack, found) in [
        (format!("UPDATE usher.audit_log SET new = new || '{{\"born\": \"2000-01-01\"}}' WHERE position = {masked}"), "was changed or put there"),
        (
            format!(
                "UPDATE usher.audit_log SET new = '{{}}' WHERE position = {masked};
                 UPDATE usher.audit_erasures x SET masked = usher.audit_images_hash(NULL, e.old::text, e.new::text) FROM usher.audit_log e
                  WHERE x.position = e.position AND x.position = {masked}"
            ),
            "usher.audit_erasures was changed",
        ),
        (format!("DELETE FROM usher.audit_erasures WHERE position = {masked}"), "was changed or put there"),
        (
            format!(
                "INSERT INTO usher.audit_erasures (position, number, day, erasure_id, images, masked)
                 SELECT e.position, 1, (e.recorded_at AT TIME ZONE 'UTC')::date, (SELECT erasure_id FROM usher.audit_erasures LIMIT 1),
                        usher.audit_images_hash(e.salt, e.old::text, e.new::text), usher.audit_images_hash(NULL, NULL, '{{\"total\": 0}}')
                   FROM usher.audit_log e WHERE e.position = {other};
                 UPDATE usher.audit_log SET new = '{{\"total\": 0}}', salt = NULL WHERE position = {other}"
            ),
            "usher.audit_erasures was changed",
        ),
    ] {
        run(here, "BEGIN");
        run(here, &attack);
        let said = intact(here);
        assert!(said.contains(found), "{attack}: {said}");
        run(here, "ROLLBACK");
    }
    run(here, "SET session_replication_role = origin");
    assert_eq!(refused(here, "UPDATE usher.audit_log SET new = NULL").code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(intact(here), "intact");
}

#[test]
fn work_that_ran_beside_the_erasure_is_looked_at_again() {
    let (house, mut client) = house("privacy_sweep");
    let here = &mut client;
    let north = text(here, "SELECT id::text FROM usher.organizations WHERE slug = 'north'");
    let mut beside = house.database.connect();
    run(&mut beside, "BEGIN; CREATE TABLE shop.something ()");
    erase(here, "north", ANN);
    assert_eq!(number(here, "SELECT usher.sweep_erasures()"), 0, "something still runs that may have read her");
    run(
        &mut beside,
        &format!(
            "INSERT INTO shop.orders (organization_id, id, guest_id, total, ship_to) VALUES ('{north}', 9, '{ANN}', 1, '{NAME}'); COMMIT"
        ),
    );
    quiet(here);
    wait::until_true(
        here,
        "SELECT usher.sweep_erasures() IS NOT NULL AND NOT EXISTS (SELECT FROM usher.erasures WHERE swept_at IS NULL)",
    );
    quiet(here);
    assert_eq!(shown(&house, &north), Vec::<String>::new());
    seal(here);
    assert_eq!(intact(here), "intact");
}

#[test]
fn who_may_not_is_refused_and_learns_nothing() {
    let (house, mut client) = house("privacy_rights");
    let here = &mut client;
    let call = |client: &mut Client, organization: &str, key: &str| {
        let refusal = refused(client, &format!("SELECT usher.erase_subject('{organization}', 'guest', '{key}', 'x')"));
        (refusal.code().clone(), refusal.message().replace(key, "KEY").replace(organization, "ORG"))
    };
    let (mut member, mut other) =
        (house.database.connect_as("clients_privacy_member"), house.database.connect_as("clients_privacy_other"));
    assert_eq!(call(&mut member, "north", ANN).0, SqlState::INSUFFICIENT_PRIVILEGE);
    let foreign = call(&mut other, "north", ANN);
    assert_eq!(foreign.0, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(foreign, call(&mut other, "nowhere", ANN), "whether an organization exists is not told");
    assert_eq!(call(&mut other, "south", "00000000-0000-4000-8000-00000000dead").0, SqlState::UNDEFINED_OBJECT);
    assert_eq!(call(&mut other, "south", "no uuid").0, SqlState::UNDEFINED_OBJECT);
    assert_eq!(
        refused(&mut other, "SELECT usher.export_subject('north', 'guest', 'x')").code(),
        &SqlState::INSUFFICIENT_PRIVILEGE
    );
    for sql in [
        "SELECT usher.define_subject('a', 'shop.guests')",
        "SELECT usher.declare_personal('shop.guests', '{}')",
        "SELECT * FROM usher.apply_retention()",
    ] {
        assert_eq!(refused(&mut other, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    // The south's Ann is another person.
    erase(&mut other, "south", ANN);
    assert_eq!(number(here, &format!("SELECT count(*) FROM shop.guests WHERE email = '{MARKER}'")), 1);
    assert_eq!(number(&mut other, "SELECT count(*) FROM usher.erasures"), 1);
    let mut admin = house.database.connect_as("clients_privacy_admin");
    assert_eq!(number(&mut admin, "SELECT count(*) FROM usher.erasures"), 0);
    assert_eq!(refused(&mut admin, "SELECT FROM usher.audit_erasures").code(), &SqlState::INSUFFICIENT_PRIVILEGE);

    // With the rights of the definition's role, not with the caller's or the owner's.
    run(
        here,
        "SELECT usher.define_subject('guest', 'shop.guests', run_as => 'clients_privacy_flows'); REVOKE UPDATE ON shop.orders FROM clients_privacy_flows",
    );
    let refusal = refused(&mut admin, &format!("SELECT usher.erase_subject('north', 'guest', '{ANN}', 'x')"));
    assert_eq!(refusal.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert!(refusal.message().contains("rows of shop.orders could not be erased"), "{}", refusal.message());
    assert_eq!(number(here, &format!("SELECT count(*) FROM shop.guests WHERE email = '{MARKER}'")), 1, "nothing was erased");
}

#[test]
fn what_is_held_stays_and_what_is_old_goes() {
    let (house, mut client) = house("privacy_retention");
    let here = &mut client;
    let mut admin = house.database.connect_as("clients_privacy_admin");
    run(&mut admin, &format!("SELECT usher.hold_subject('north', 'guest', '{ANN}', 'a lawsuit')"));
    let refusal = refused(&mut admin, &format!("SELECT usher.erase_subject('north', 'guest', '{ANN}', 'x')"));
    assert_eq!(refusal.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(refusal.message().contains("a lawsuit"));

    run(here, "UPDATE shop.orders SET made_at = now() - interval '400 days'");
    run(here, "SELECT usher.set_retention('shop.orders', 'made_at', '1 year')");
    let due = "SELECT table_name || ' ' || action || ' ' || rows || ' held ' || held FROM usher.apply_retention()";
    assert_eq!(text(here, due), "shop.orders delete 3 held 1");
    assert_eq!(number(here, "SELECT count(*) FROM shop.orders"), 4, "a dry run");
    assert_eq!(text(here, &due.replace("()", "(false)")), "shop.orders delete 3 held 1");
    assert_eq!(text(here, "SELECT string_agg(guest_id::text, ',') FROM shop.orders"), ANN);
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.audit_log WHERE action = 'shop.orders.deleted'"),
        3,
        "the rows that went were entered"
    );
    run(&mut admin, "SELECT usher.release_hold('north', id) FROM usher.legal_holds");
    assert_eq!(text(here, &due.replace("()", "(false)")), "shop.orders delete 1 held 0");
    // What is personal goes, the row stays; a pseudonym for each.
    run(here, "ALTER TABLE shop.guests ADD seen timestamptz DEFAULT now() - interval '3 years'");
    run(here, "SELECT usher.set_retention('shop.guests', 'seen', '2 years', 'erase')");
    assert_eq!(
        text(here, &format!("{} WHERE table_name = 'shop.guests'", due.replace("()", "(false)"))),
        "shop.guests erase 4 held 0"
    );
    assert_eq!(number(here, "SELECT count(DISTINCT name) FROM shop.guests WHERE name LIKE 'erased-%' AND born IS NULL"), 4);
    assert_eq!(text(here, &format!("{} WHERE table_name = 'shop.guests'", due)), "shop.guests erase 0 held 0");
}

#[test]
fn tables_of_others_run_nothing_and_keep_nobody() {
    let (house, mut client) = house("privacy_others");
    let here = &mut client;
    role(here, "clients_mallory", "LOGIN");
    run(
        here,
        "CREATE SCHEMA mallory AUTHORIZATION clients_mallory;
         GRANT USAGE ON SCHEMA shop TO clients_mallory;
         GRANT REFERENCES ON shop.guests TO clients_mallory;
         -- What the person's table belongs to is trusted, and what belongs to others is not.
         ALTER TABLE shop.orders OWNER TO clients_mallory; GRANT SELECT, UPDATE ON shop.orders TO clients_privacy_flows;
         SELECT usher.define_subject('guest', 'shop.guests', run_as => 'clients_privacy_flows')",
    );
    let mut mallory = house.database.connect_as("clients_mallory");
    run(
        &mut mallory,
        "CREATE TABLE mallory.t (o uuid, g uuid, note text, FOREIGN KEY (o, g) REFERENCES shop.guests ON DELETE CASCADE);
         CREATE FUNCTION mallory.grab() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE clients_mallory SUPERUSER; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER grab AFTER UPDATE OR DELETE ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.grab()",
    );
    let standing = |client: &mut Client, table: &str| {
        text(
            client,
            &format!("SELECT string_agg(DISTINCT relation, ',') FROM usher.subject_graph('guest') WHERE table_name = '{table}'"),
        )
    };
    assert_eq!(standing(here, "mallory.t"), "left out");
    assert_eq!(standing(here, "shop.orders"), "left out");
    // Named by whoever defines it, a table of others is followed; what it leaves for COMMIT runs with the definition's rights.
    run(
        here,
        "SELECT usher.define_subject('guest', 'shop.guests', run_as => 'clients_privacy_flows', follow => ARRAY(SELECT via FROM usher.subject_graph('guest') WHERE table_name = 'shop.orders'))",
    );
    assert_eq!(standing(here, "shop.orders"), "owned");
    let refusal = refused(here, &format!("SELECT usher.erase_subject('north', 'guest', '{ANN}', 'x')"));
    assert!(
        refusal.message().contains("permission denied") || refusal.message().contains("must be superuser"),
        "{}",
        refusal.message()
    );
    // In a block nothing of it is left for COMMIT.
    run(here, "BEGIN");
    let refusal = refused(here, &format!("SELECT usher.erase_subject('north', 'guest', '{ANN}', 'x')"));
    assert!(refusal.message().contains("left something for COMMIT"), "{}", refusal.message());
    run(here, "ROLLBACK");
    // And not in a worker: there it fails, and is told.
    run(here, "UPDATE shop.orders SET made_at = now() - interval '400 days' WHERE false");
    run(here, "SELECT usher.set_retention('shop.orders', 'made_at', '1 microsecond', run_as => 'clients_mallory')");
    run(here, "GRANT SELECT, DELETE ON shop.orders TO clients_mallory");
    let error = text(here, "SELECT COALESCE(error, 'none') FROM usher.apply_retention(false)");
    assert!(error.contains("permission denied") || error.contains("must be superuser"), "{error}");
    assert_eq!(text(here, "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'clients_mallory'"), "false");
    assert_eq!(number(here, "SELECT count(*) FROM shop.orders"), 4);
    run(here, "DROP OWNED BY clients_mallory CASCADE");
}

#[test]
fn a_hold_is_no_matter_of_spelling() {
    let (house, mut client) = house("privacy_spelling");
    let here = &mut client;
    let mut admin = house.database.connect_as("clients_privacy_admin");
    run(&mut admin, &format!("SELECT usher.hold_subject('north', 'guest', upper('{ANN}'), 'a lawsuit')"));
    for key in [ANN.to_owned(), ANN.to_uppercase(), format!("{{{ANN}}}"), ANN.replace('-', "")] {
        let refusal = refused(&mut admin, &format!("SELECT usher.erase_subject('north', 'guest', '{key}', 'x')"));
        assert!(refusal.message().contains("legal hold"), "{key}: {}", refusal.message());
    }
    // Nor of the name of the kind, nor of which table one comes from.
    run(
        here,
        "CREATE TABLE shop.households (organization_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (organization_id, id));
         INSERT INTO shop.households SELECT id, 3 FROM usher.organizations WHERE slug = 'north';
         ALTER TABLE shop.guests ADD household int, ADD FOREIGN KEY (organization_id, household) REFERENCES shop.households;
         SELECT usher.define_subject('visitor', 'shop.guests'), usher.define_subject('household', 'shop.households')",
    );
    run(
        here,
        &format!(
            "UPDATE shop.guests SET household = 3 WHERE id = '{ANN}' AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'north')"
        ),
    );
    for (kind, key) in [("visitor", ANN), ("household", "3")] {
        let refusal = refused(&mut admin, &format!("SELECT usher.erase_subject('north', '{kind}', '{key}', 'x')"));
        assert!(refusal.message().contains("legal hold"), "{kind}: {}", refusal.message());
    }
    // Whoever would delete what they hang on.
    run(
        here,
        "ALTER TABLE shop.households ADD at date DEFAULT '2000-01-01'; SELECT usher.set_retention('shop.households', 'at', '1 year')",
    );
    let error = text(here, "SELECT COALESCE(error, 'none') FROM usher.apply_retention(false)");
    assert!(error.contains("foreign key"), "a plain reference refuses by itself: {error}");
    run(
        here,
        "ALTER TABLE shop.guests DROP CONSTRAINT guests_organization_id_household_fkey,
             ADD FOREIGN KEY (organization_id, household) REFERENCES shop.households ON DELETE CASCADE",
    );
    let error = text(here, "SELECT COALESCE(error, 'none') FROM usher.apply_retention(false)");
    assert!(error.contains("that are held could go"), "{error}");
    run(&mut admin, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    let refusal = refused(&mut admin, &format!("SELECT usher.erase_subject('north', 'guest', '{BOB}', 'x')"));
    assert!(refusal.message().contains("one snapshot"), "{}", refusal.message());
}
