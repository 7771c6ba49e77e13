//! Sealed columns from outside: nowhere in clear text, read by whom they are for, through flows, dumps and another key.

use std::process::{Command, Stdio};
use usher_clients::keyfile::{self, KeyFile};
use usher_clients::{Client, Database, SqlState, connect, flow, json, number, refused, role, run, text, value, wait};

/// What nobody must find anywhere.
const MARKER: &str = "pm_ada-0f-the-test-4417@example.com";

const TABLES: &str = "
    CREATE TABLE public.guests (organization_id uuid NOT NULL, id bigint, name text, email text, PRIMARY KEY (organization_id, id));
    CREATE TABLE public.mailing (organization_id uuid NOT NULL, id bigint, email text, PRIMARY KEY (organization_id, id));
    CREATE TABLE public.copies (organization_id uuid NOT NULL, id bigint, email text, PRIMARY KEY (organization_id, id));
    GRANT SELECT, INSERT, UPDATE ON public.guests, public.mailing, public.copies TO usher_member, protect_flow";

fn installation(name: &str) -> (Database, Client, KeyFile) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    let file = KeyFile::new(here, name);
    for name in ["protect_north_admin", "protect_north", "protect_south_admin", "protect_mailer"] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "protect_flow", "NOLOGIN");
    run(
        here,
        "GRANT usher_member TO protect_flow;
         SELECT usher.create_organization('north'), usher.create_organization('south');
         SELECT usher.grant_membership('north', 'role:protect_north_admin', 'admin'), usher.grant_membership('north', 'role:protect_north'),
                usher.grant_membership('south', 'role:protect_south_admin', 'admin')",
    );
    run(here, TABLES);
    (database, client, file)
}

fn copying(here: &mut Client, name: &str, target: &str) {
    flow(
        here,
        name,
        &json!({
            "from": "left", "to": name, "mode": "realtime", "run_as": "protect_flow", "when": {"change": "public.guests", "on": ["insert", "update"]},
            "then": {"upsert": target, "key": ["id"]}, "set": {"id": "new.id", "email": "new.email"}
        }),
    );
}

fn add(client: &mut Client, organization: &str, id: i64, email: &str) {
    client
        .execute(
            &format!("INSERT INTO public.guests SELECT o.id, $1, 'guest', $2 FROM usher.organizations o WHERE o.slug = '{organization}'"),
            &[&id, &email],
        )
        .unwrap_or_else(|error| panic!("a guest can be added: {}", wait::describe(&error)));
}

fn hundred(here: &mut Client) {
    for n in 0..100 {
        add(here, if n % 2 == 0 { "north" } else { "south" }, n, &format!("guest{n}@example.com"));
    }
}

/// A marker is written, carried by flows, audited, refused in every way and sealed anew; then everything that pg_usher and the server
/// keep is searched for it.
#[test]
fn a_planted_value_is_found_nowhere() {
    let (database, mut client, file) = installation("usher_test_protect");
    let here = &mut client;
    let begin = keyfile::log_end();
    run(here, "SELECT usher.audit_table('public.guests'), usher.audit_table('public.mailing')");
    run(
        here,
        "SELECT usher.protect_column('public.guests', 'email', 'sealed', '{admin}'), usher.protect_column('public.mailing', 'email', 'sealed', '{protect_mailer}')",
    );
    copying(here, "mail", "public.mailing");
    copying(here, "copy", "public.copies");
    let mut member = database.connect_as("protect_north");
    let org: usher_clients::Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]);
    member.execute("INSERT INTO public.guests VALUES ($1, 1, 'Ada', $2)", &[&org, &MARKER]).expect("a member writes clear text");
    member.execute("UPDATE public.guests SET name = 'Ada L.', email = $1 WHERE id = 1", &[&MARKER]).expect("and again");
    wait::until_true(here, "SELECT (SELECT count(*) FROM public.mailing) = 1 AND (SELECT count(*) FROM public.copies) = 1");
    wait::until_true(here, "SELECT count(*) = 4 FROM usher.sync_jobs WHERE status = 'synced'");
    // Carried as it was: still under the first declaration, also where it is copied to a plain column or a column of other readers.
    assert_eq!(
        number(
            here,
            "SELECT count(DISTINCT email) FROM (SELECT email FROM public.guests UNION ALL SELECT email FROM public.mailing UNION ALL SELECT email FROM public.copies) AS x"
        ),
        1
    );
    let mut admin = database.connect_as("protect_north_admin");
    assert_eq!(text(&mut admin, "SELECT usher.unseal_column(email) FROM public.copies"), MARKER);
    let mut mailer = database.connect_as("protect_mailer");
    let of_admin = refused(&mut mailer, "SELECT usher.unseal_column(email) FROM public.mailing");
    assert_eq!(of_admin.code(), &SqlState::INSUFFICIENT_PRIVILEGE);

    // Refused in every way, the value in the statement's own text: not in the log even so.
    let sealed = text(here, "SELECT email FROM public.guests");
    let half = &sealed[..sealed.len() - 8];
    for sql in [
        format!("INSERT INTO public.guests VALUES ('{org}', 2, 'x', 'usher:sealed:{MARKER}')"),
        format!("UPDATE public.guests SET name = '{MARKER}', email = '{half}AAAAAAA='"),
        format!("UPDATE public.guests SET email = repeat('{MARKER}', 50000)"),
        format!("UPDATE public.guests SET organization_id = '{}', name = '{MARKER}'", usher_clients::Uuid::nil()),
        format!("DO $$BEGIN INSERT INTO public.guests VALUES ('{org}', 2, 'x', 'usher:sealed:{MARKER}'); END$$"),
        format!("SELECT usher.unseal_column('usher:sealed:1:{MARKER}')"),
    ] {
        let error = refused(&mut member, &sql);
        let said = format!("{} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert!(!said.contains(MARKER), "{said}");
        assert!(error.hint().is_some(), "{said}");
    }
    file.write(here, &[]);
    let nothing = refused(&mut member, &format!("INSERT INTO public.guests VALUES ('{org}', 3, 'x', '{MARKER}')"));
    assert_eq!(nothing.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "without a key nothing is written");
    file.write(here, &[("second", '2'), ("first", '1')]);
    assert_eq!(number(here, "SELECT sum(resealed)::bigint FROM usher.reseal_columns()"), 2);
    // Text with a zero byte is none, for the server itself.
    let zero = member.execute("UPDATE public.guests SET email = $1", &[&"a\0b"]);
    assert!(zero.is_err_and(|error| error.code() == Some(&SqlState::CHARACTER_NOT_IN_REPERTOIRE)));

    assert!(keyfile::log_since(begin).contains("begins like a sealed one"), "the refusals are in the log");
    keyfile::assert_nowhere(&database, here, MARKER, begin);
    keyfile::assert_in_no_file(here, MARKER);
    assert_eq!(text(&mut admin, "SELECT usher.unseal_column(email) FROM public.guests"), MARKER, "and it is there all the same");
}

#[test]
fn no_organization_reads_what_is_anothers() {
    let (database, mut client, _file) = installation("usher_test_protect_tenants");
    let here = &mut client;
    run(here, "SELECT usher.protect_column('public.guests', 'email', 'sealed', '{admin,protect_mailer}')");
    add(here, "north", 1, "north@example.com");
    add(here, "south", 1, "south@example.com");
    let of = |slug: &str| {
        format!(
            "(SELECT email FROM public.guests g JOIN usher.organizations o ON o.id = g.organization_id WHERE o.slug = '{slug}')"
        )
    };
    let north = text(here, &format!("SELECT {}", of("north")));
    let mut other = database.connect_as("protect_south_admin");
    // The text in hand, from wherever.
    let foreign = refused(&mut other, &format!("SELECT usher.unseal_column('{north}')"));
    let made_up = refused(&mut other, &format!("SELECT usher.unseal_column('{}')", north.replace("first", "other")));
    assert_eq!(foreign.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!((foreign.code(), foreign.message()), (made_up.code(), made_up.message()), "whether it opens is not told");
    // Nor by writing it into a row of one's own, or with another header.
    let south: usher_clients::Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'south'", &[]);
    let north_id: usher_clients::Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'north'", &[]);
    let moved = north.replace(&north_id.to_string(), &south.to_string());
    for value in [&north, &moved] {
        let insert = refused(&mut other, &format!("INSERT INTO public.guests VALUES ('{south}', 2, 'x', '{value}')"));
        assert_eq!(insert.code(), &SqlState::INVALID_TEXT_REPRESENTATION);
    }
    let opened = refused(&mut other, &format!("SELECT usher.unseal_column('{moved}')"));
    assert_eq!(opened.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "a header of one's own does not open another's value");

    // A role that is named reads for itself; for a person it stays within that person's organizations.
    let mut mailer = database.connect_as("protect_mailer");
    assert_eq!(text(&mut mailer, &format!("SELECT usher.unseal_column('{north}')")), "north@example.com");
    run(here, "GRANT SET ON PARAMETER usher.user_id TO protect_mailer; SELECT usher.grant_membership('south', 'somebody')");
    run(&mut mailer, "SET usher.user_id = 'somebody'");
    assert_eq!(refused(&mut mailer, &format!("SELECT usher.unseal_column('{north}')")).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(text(&mut mailer, &format!("SELECT usher.unseal_column({})", of("south"))), "south@example.com");
    run(&mut mailer, "RESET usher.user_id");
    // Who was taken off the list reads nothing in the next statement of an open session.
    run(here, "SELECT usher.protect_column('public.guests', 'email', 'sealed', '{admin}')");
    assert_eq!(refused(&mut mailer, &format!("SELECT usher.unseal_column('{north}')")).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    run(here, "REVOKE SET ON PARAMETER usher.user_id FROM protect_mailer");
}

#[test]
fn a_declaration_is_no_change_and_outlives_a_dump() {
    let (database, mut client, file) = installation("usher_test_protect_dump");
    let here = &mut client;
    copying(here, "copy", "public.copies");
    run(here, "SELECT usher.audit_table('public.guests')");
    hundred(here);
    wait::until_true(here, "SELECT count(*) = 100 FROM public.copies");
    wait::until_true(here, "SELECT count(*) = 100 FROM usher.sync_jobs WHERE status = 'synced'");
    let entries = number(here, "SELECT count(*) FROM usher.audit_log WHERE action LIKE 'public.guests.%'");
    run(here, "CREATE VIEW public.names AS SELECT id, email FROM public.guests");
    run(
        here,
        "SELECT usher.protect_column('public.guests', 'email', 'sealed', '{protect_mailer}'), usher.protect_column('public.guests', 'name', 'masked', '{protect_mailer}')",
    );
    assert_eq!(number(here, "SELECT count(*) FROM public.guests WHERE email LIKE 'usher:sealed:1:%'"), 100);
    // Another key, in slices, while somebody holds a row.
    file.write(here, &[("second", '2'), ("first", '1')]);
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; SELECT FROM public.guests WHERE id = 7 FOR UPDATE");
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_columns(30)"), "30 70");
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_columns()"), "69 1");
    run(&mut holder, "COMMIT");
    assert_eq!(text(here, "SELECT resealed || ' ' || remaining FROM usher.reseal_columns()"), "1 0");
    file.write(here, &[("second", '2')]);
    assert_eq!(number(here, "SELECT count(*) FROM usher.sync_jobs"), 100, "no flow has heard of it");
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.audit_log WHERE action LIKE 'public.guests.%'"),
        entries,
        "nor the audit"
    );

    // Into another database: values, trigger, constraint and declaration come along.
    let dump = keyfile::dump(&database);
    let copy = Database::create_empty("usher_test_protect_restored");
    let mut psql = Command::new(format!("{}/psql", std::env::var("USHER_PGBIN").expect("USHER_PGBIN is set")))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &copy.host, "-U", "postgres", "-d", &copy.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql runs");
    std::io::Write::write_all(&mut psql.stdin.take().expect("psql reads"), dump.as_bytes()).expect("the dump is read");
    assert!(psql.wait().expect("psql ends").success(), "the dump is restored");
    // `create_empty` has put the settings of the server back.
    let mut there = connect(&copy.name, None);
    let there = &mut there;
    run(there, &format!("ALTER SYSTEM SET usher.key_file = '{}'; ", file.0));
    usher_clients::reload(there);
    wait::until_true(there, &format!("SELECT current_setting('usher.key_file') = '{}'", file.0));
    // Before anybody has set it up there: what is written is sealed.
    add(there, "north", 1000, "restored@example.com");
    assert_eq!(number(there, "SELECT count(*) FROM public.guests WHERE email NOT LIKE 'usher:sealed:1:%'"), 0);
    run(there, "SELECT usher.setup()");
    assert_eq!(
        text(there, "SELECT finding FROM usher.doctor() WHERE \"check\" = 'protected columns'"),
        "every protected column is as declared"
    );
    assert_eq!(text(there, "SELECT usher.unseal_column(email) FROM public.guests WHERE id = 42"), "guest42@example.com");
    assert_eq!(text(there, "SELECT usher.unseal_column(email) FROM public.guests WHERE id = 1000"), "restored@example.com");
    let mut member = copy.connect_as("protect_north");
    assert_eq!(refused(&mut member, "SELECT name FROM public.guests").code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(text(&mut member, "SELECT name FROM public.guests_masked WHERE id = 42"), "***");
    drop(member);
    run(there, "SELECT usher.unprotect_column('public.guests', 'email'), usher.unprotect_column('public.guests', 'name')");
    assert_eq!(
        text(there, "SELECT string_agg(email, ',' ORDER BY id) FROM public.guests WHERE id IN (3, 1000)"),
        "guest3@example.com,restored@example.com"
    );
}
