//! Secrets: sealed, read by whom they are for, rotated, and nowhere in plain text.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use usher_clients::keyfile::{self, KeyFile};
use usher_clients::{Client, Database, SqlState, flow, json, number, refused, role, run, text, value, wait};

/// What nobody must find anywhere.
const MARKER: &str = "mk_5ecret-0f-the-test-7391";

fn installation(name: &str) -> (Database, Client, KeyFile) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    let file = KeyFile::new(here, name);
    for name in ["clients_north_admin", "clients_north", "clients_south_admin"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "clients_signer", "NOLOGIN");
    run(
        here,
        "SELECT usher.create_organization('north'), usher.create_organization('south');
         SELECT usher.grant_membership('north', 'role:clients_north_admin', 'admin'), usher.grant_membership('north', 'role:clients_north'),
                usher.grant_membership('south', 'role:clients_south_admin', 'admin')",
    );
    (database, client, file)
}

fn set(client: &mut Client, organization: Option<&str>, name: &str, secret: &str) {
    let done = client.execute("SELECT usher.set_secret($1, $2, $3)", &[&organization, &name, &secret]);
    done.unwrap_or_else(|error| panic!("a secret can be set: {}", wait::describe(&error)));
}

#[test]
fn a_secret_is_read_by_its_readers_within_its_organization() {
    let (database, mut client, _file) = installation("usher_test_secrets");
    let here = &mut client;
    let mut admin = database.connect_as("clients_north_admin");
    set(&mut admin, Some("north"), "stripe/key", MARKER);
    let mut member = database.connect_as("clients_north");
    let mut other = database.connect_as("clients_south_admin");

    // Nobody named: nobody reads it, not even who has set it. What does not exist is refused alike.
    for (who, name) in [(&mut admin, "stripe/key"), (&mut member, "stripe/key"), (&mut other, "stripe/key")] {
        let ask = format!("SELECT usher.secret('north', '{name}')");
        assert_eq!(refused(who, &ask).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    }
    let known = refused(&mut member, "SELECT usher.secret('north', 'stripe/key')");
    let unknown = refused(&mut member, "SELECT usher.secret('north', 'paypal/key')");
    assert_eq!(known.message().replace("stripe", "paypal"), unknown.message());

    // A role that is named reads it, in this organization.
    run(&mut admin, "SELECT usher.set_secret('north', 'sms', 'sent', readers => '{clients_north,clients_south_admin}')");
    assert_eq!(text(&mut member, "SELECT usher.secret('north', 'sms')"), "sent");
    assert_eq!(refused(&mut other, "SELECT usher.secret('north', 'sms')").code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    // A new value keeps the readers.
    set(&mut admin, Some("north"), "sms", "sent again");
    assert_eq!(text(&mut member, "SELECT usher.secret('north', 'sms')"), "sent again");

    // Setting and deleting are for admins of the organization, those of the installation for operators.
    for sql in [
        "SELECT usher.set_secret('north', 'sms', 'x')",
        "SELECT usher.delete_secret('north', 'sms')",
        "SELECT usher.set_secret(NULL, 'sms', 'x')",
    ] {
        assert_eq!(refused(&mut member, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        assert_eq!(refused(&mut other, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    set(here, None, "smtp", "of the installation");

    // Which there are: the admins of the organization know, and of no other. What is sealed nobody may select.
    let names = "SELECT COALESCE(string_agg(name, ',' ORDER BY name), '') FROM usher.secrets";
    assert_eq!(text(&mut admin, names), "sms,stripe/key");
    assert_eq!(text(&mut member, names), "");
    assert_eq!(text(&mut other, names), "");
    assert_eq!(refused(&mut admin, "SELECT sealed FROM usher.secrets").code(), &SqlState::INSUFFICIENT_PRIVILEGE);

    // A sealed value that is moved to another organization, or under another name, does not open.
    run(
        here,
        "INSERT INTO usher.secrets (organization_id, name, key_id, sealed, readers, changed_by)
         SELECT (SELECT id FROM usher.organizations WHERE slug = 'south'), name, key_id, sealed, '{clients_south_admin}', 'eve' FROM usher.secrets WHERE name = 'stripe/key'",
    );
    assert_eq!(
        refused(&mut other, "SELECT usher.secret('south', 'stripe/key')").code(),
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
    );

    run(&mut admin, "SELECT usher.delete_secret('north', 'sms')");
    assert_eq!(refused(&mut admin, "SELECT usher.delete_secret('north', 'sms')").code(), &SqlState::UNDEFINED_OBJECT);
    // Who did it, and not what.
    assert_eq!(
        text(
            here,
            "SELECT string_agg(action || ' ' || object, ', ' ORDER BY position) FROM usher.audit_log WHERE action LIKE 'usher.secrets.%' AND object = 'sms'"
        ),
        "usher.secrets.set sms, usher.secrets.set sms, usher.secrets.deleted sms"
    );
}

#[test]
fn a_key_is_changed_without_losing_anything() {
    let (_database, mut client, file) = installation("usher_test_rotation");
    let here = &mut client;
    for n in 0..25 {
        set(here, Some("north"), &format!("s{n}"), &format!("value {n}"));
    }
    run(here, "UPDATE usher.secrets SET readers = '{postgres}'");
    let all = "SELECT string_agg(usher.secret('north', name), ',' ORDER BY name) FROM usher.secrets";
    let before = text(here, all);
    let key = "SELECT finding FROM usher.doctor() WHERE \"check\" = 'key file'";

    file.write(here, &[("second", '2'), ("first", '1')]);
    set(here, Some("north"), "s1", "value 1");
    assert_eq!(text(here, "SELECT string_agg(DISTINCT key_id, ',' ORDER BY key_id) FROM usher.secrets"), "first,second");
    assert_eq!(text(here, all), before, "both keys open");
    // In slices, as far as one likes.
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_secrets(10)"), "10 14");
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_secrets()"), "14 0");
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_secrets()"), "0 0");
    file.write(here, &[("second", '2')]);
    assert_eq!(text(here, all), before, "the first key is not needed any more");
    assert!(text(here, key).starts_with("it is there"));

    // A key that is gone too early, and one of the same name that is another: said, and nothing is lost.
    file.write(here, &[("third", '3')]);
    let error = refused(here, all);
    assert_eq!(error.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.message().contains("sealed with key \"second\", which is not in the key file"), "{}", error.message());
    assert_eq!(text(here, key), "secrets are sealed with key \"second\", which is not in the key file: 25");
    assert_eq!(refused(here, "SELECT * FROM usher.reseal_secrets()").code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    file.write(here, &[("second", '9')]);
    assert!(refused(here, all).message().contains("sealed by another key of that name"));
    file.write(here, &[("second", '2')]);
    assert_eq!(text(here, all), before);

    // A file that others may read is not used.
    fs::set_permissions(&file.0, fs::Permissions::from_mode(0o644)).expect("the mode of the key file can be changed");
    assert!(refused(here, all).message().contains("the key file is not the server's alone"));
}

/// As on Supabase: a view of a superuser that shows what Vault has.
#[test]
fn a_secret_of_vault_is_read_where_it_is() {
    let (database, mut client, _file) = installation("usher_test_vault");
    let here = &mut client;
    let refer =
        "SELECT usher.refer_secret('north', 'mail', '0b5e1c3a-0000-4000-8000-000000000001', readers => '{clients_north}')";
    assert_eq!(refused(here, refer).code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "without Vault");
    // Somebody else's view of that name is not believed.
    role(here, "clients_vault_faker", "NOLOGIN");
    run(
        here,
        "CREATE SCHEMA vault; CREATE TABLE vault.secrets (id uuid, name text, secret text);
         CREATE VIEW vault.decrypted_secrets AS SELECT id, name, secret, secret AS decrypted_secret FROM vault.secrets;
         ALTER VIEW vault.decrypted_secrets OWNER TO clients_vault_faker; GRANT USAGE ON SCHEMA vault TO clients_vault_faker; GRANT SELECT ON vault.secrets TO clients_vault_faker",
    );
    assert_eq!(refused(here, refer).code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "a view of anybody");
    run(here, "ALTER VIEW vault.decrypted_secrets OWNER TO postgres");
    assert_eq!(refused(here, refer).code(), &SqlState::UNDEFINED_OBJECT, "no such secret");
    run(here, "INSERT INTO vault.secrets VALUES ('0b5e1c3a-0000-4000-8000-000000000001', 'mail', 'first')");
    run(here, refer);
    let mut member = database.connect_as("clients_north");
    assert_eq!(text(&mut member, "SELECT usher.secret('north', 'mail')"), "first");
    run(here, "UPDATE vault.secrets SET secret = 'second'");
    assert_eq!(text(&mut member, "SELECT usher.secret('north', 'mail')"), "second");
    let mut admin = database.connect_as("clients_north_admin");
    assert_eq!(refused(&mut admin, refer).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "only operators refer to Vault");
    run(here, "DROP SCHEMA vault CASCADE; DROP OWNED BY clients_vault_faker");
}

/// A marker is set, used by a flow, refused in every way and rotated; then everything that pg_usher and the server keep is
/// searched for it.
#[test]
fn a_planted_secret_is_found_nowhere() {
    let (database, mut client, file) = installation("usher_test_marker");
    let here = &mut client;
    let begin = keyfile::log_end();
    run(
        here,
        "CREATE TABLE public.signed (organization_id uuid, id bigint, signature text, PRIMARY KEY (organization_id, id));
         CREATE TABLE public.notes (organization_id uuid, id bigint PRIMARY KEY, text text);
         GRANT SELECT, INSERT, UPDATE ON public.signed TO clients_signer;
         GRANT usher_member TO clients_signer;
         CREATE FUNCTION public.sign(organization uuid, id bigint, message text) RETURNS void LANGUAGE sql AS
             $$INSERT INTO public.signed VALUES (organization, id, encode(sha256(convert_to(message || usher.secret(organization::text, 'marker'), 'UTF8')), 'hex'))$$",
    );
    run(here, "SELECT usher.audit_table('public.notes')");
    flow(
        here,
        "sign",
        &json!({
            "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_signer", "when": {"change": "public.notes", "on": ["insert"]},
            "then": {"call": "public.sign"}, "retry": {"delays": []},
            "set": {"organization": "new.organization_id", "id": "new.id", "message": "new.text"}
        }),
    );
    let mut admin = database.connect_as("clients_north_admin");
    admin
        .execute("SELECT usher.set_secret('north', 'marker', $1, readers => '{clients_signer}')", &[&MARKER])
        .expect("the marker is set");
    // Used: the signature is right.
    run(here, "INSERT INTO public.notes SELECT id, 1, 'hello' FROM usher.organizations WHERE slug = 'north'");
    wait::until_true(here, "SELECT count(*) = 1 FROM public.signed");
    let right: bool =
        value(here, "SELECT signature = encode(sha256(convert_to('hello' || $1, 'UTF8')), 'hex') FROM public.signed", &[&MARKER]);
    assert!(right, "the flow has used the secret");
    // Refused in every way, the value in the statement's own text: not in the log even so.
    for sql in [
        format!("SELECT usher.set_secret('south', 'marker', '{MARKER}')"),
        format!("SELECT usher.set_secret('north', 'Not A Name', '{MARKER}')"),
        format!("SELECT usher.set_secret('north', 'marker', '{MARKER}', readers => '{{nobody_at_all}}')"),
        format!("SELECT usher.set_secret('nowhere', 'marker', '{MARKER}')"),
        format!("SELECT usher.set_secret('north', 'marker', '{}')", MARKER.repeat(4000)),
        format!("DO $$BEGIN PERFORM usher.set_secret('south', 'marker', '{MARKER}'); END$$"),
    ] {
        let error = refused(&mut admin, &sql);
        let said = format!("{} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert!(!said.contains(MARKER), "{said}");
    }
    // One that waits for another and is ended.
    run(here, "BEGIN; SELECT usher.set_secret('north', 'marker', 'another'); SET LOCAL statement_timeout = 0");
    run(&mut admin, "SET statement_timeout = '200ms'");
    let ended = refused(&mut admin, &format!("SELECT usher.set_secret('north', 'marker', '{MARKER}')"));
    assert_eq!(ended.code(), &SqlState::QUERY_CANCELED);
    run(&mut admin, "RESET statement_timeout");
    run(here, "ROLLBACK");
    file.write(here, &[]);
    run(here, "SELECT 1");
    assert!(
        admin.execute("SELECT usher.set_secret('north', 'marker', $1)", &[&MARKER]).is_err(),
        "without a key nothing is sealed"
    );
    file.write(here, &[("second", '2'), ("first", '1')]);
    assert_eq!(number(here, "SELECT resealed FROM usher.reseal_secrets()"), 1);

    assert!(keyfile::log_since(begin).contains("Not A Name"), "the refusals are in the log");
    keyfile::assert_nowhere(&database, here, MARKER, begin);
    keyfile::assert_in_no_file(here, MARKER);
}
