//! Who sees what, and how pairs of systems are doing.

use usher_clients::{Database, SqlState, flow, json, number, refused, role, run, settled, text, wait};

const MEMBER: &str = "clients_lineage_member";
const OTHER: &str = "clients_lineage_other";

#[test]
fn members_are_told_of_pairs_what_is_theirs_and_nothing_of_definitions() {
    let database = Database::create("usher_test_lineage_members");
    let mut client = database.connect();
    let here = &mut client;
    for name in [MEMBER, OTHER] {
        role(here, name, "LOGIN");
        run(here, &format!("GRANT usher_member TO {name}"));
    }
    role(here, "clients_lineage_reader", "LOGIN");
    role(here, "clients_lineage", "NOLOGIN");
    run(
        here,
        &format!(
            "GRANT usher_reader TO clients_lineage_reader;
             SELECT usher.create_organization('here'), usher.create_organization('there');
             SELECT usher.grant_membership('here', 'role:{MEMBER}'), usher.grant_membership('there', 'role:{OTHER}');
             SELECT usher.create_system('shop'), usher.create_system('books'), usher.create_system('stock', 'external');
             CREATE TABLE public.orders (organization_id uuid, id int, total int, PRIMARY KEY (organization_id, id));
             CREATE TABLE public.invoices (organization_id uuid, id int, total int CHECK (total > 0), PRIMARY KEY (organization_id, id));
             GRANT ALL ON public.orders, public.invoices TO clients_lineage"
        ),
    );
    flow(
        here,
        "bill",
        &json!({"from": "shop", "to": "books", "run_as": "clients_lineage", "retry": {"delays": []}, "when": {"change": "public.orders"}, "link": {"kind": "bill", "left": "new.id", "right": "id"},
                "then": {"upsert": "public.invoices", "key": ["id"]}, "set": {"id": "new.id", "total": "new.total"}}),
    );
    // Here ten good ones, there three and a bad one; then two that wait here because the flow is paused.
    run(
        here,
        "INSERT INTO public.orders SELECT o.id, n, 10 FROM usher.organizations AS o, generate_series(1, 10) AS n WHERE o.slug = 'here' OR o.slug = 'there' AND n <= 3;
         INSERT INTO public.orders SELECT o.id, 99, -1 FROM usher.organizations AS o WHERE o.slug = 'there'",
    );
    settled(here, wait::LONG);
    let age =
        "SELECT extract(epoch FROM clock_timestamp() - min(created_at))::bigint FROM usher.sync_jobs WHERE status = 'pending'";
    run(here, "SELECT usher.pause_jobs(flow => 'bill')");
    run(
        here,
        "INSERT INTO public.orders SELECT o.id, n, 10 FROM usher.organizations AS o, generate_series(20, 21) AS n WHERE o.slug = 'here'",
    );
    run(here, "SELECT usher.enqueue_sync_job('there', 'shop', 'stock', '{}')");
    run(here, "SELECT usher.enqueue_sync_job('there', 'shop', 'stock', '{}', run_at => now() + interval '1 hour')");
    // A link of this organization of which somebody says that it failed.
    run(
        here,
        "UPDATE usher.links SET status = 'failed' WHERE left_id = '1' AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'here')",
    );
    let sql = "SELECT string_agg(concat_ws(' ', from_system, to_system, flows, enabled, broken, pending, lag IS NOT NULL, dead_letters, last_synced_at IS NOT NULL, linked, open_conflicts, consistency), ', ')
                 FROM usher.registry";
    assert_eq!(text(here, sql), "shop books 1 1 0 2 t 1 t 13 0 92.3, shop stock 0 0 0 2 t 0 f 0 0");
    let lag = number(here, "SELECT lag::bigint FROM usher.registry WHERE to_system = 'books'");
    assert!((lag - number(here, age)).abs() <= 5, "{lag}");
    // What is only wanted later is not late.
    run(here, "SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs WHERE target_system = 'stock' AND run_at IS NULL");
    assert_eq!(
        text(here, "SELECT pending || ' ' || COALESCE(lag::text, 'not late') FROM usher.registry WHERE to_system = 'stock'"),
        "1 not late"
    );

    let mut member = database.connect_as(MEMBER);
    let mut other = database.connect_as(OTHER);
    assert_eq!(text(&mut member, sql), "shop books 1 1 0 2 t 0 t 10 0 90");
    assert_eq!(text(&mut other, sql), "shop books 1 1 0 0 f 1 t 3 0 100, shop stock 0 0 0 1 f 0 f 0 0");
    for who in [&mut member, &mut other] {
        for call in
            ["SELECT * FROM usher.lineage()", "SELECT usher.lineage_diagram()", "SELECT * FROM usher.lineage('public.orders')"]
        {
            assert_eq!(refused(who, call).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{call}");
        }
    }
    // Readers see all of both.
    let mut reader = database.connect_as("clients_lineage_reader");
    assert!(text(&mut reader, sql).starts_with("shop books 1 1 0 2 t 1 t 13 0 92.3"));
    assert_eq!(number(&mut reader, "SELECT count(*) FROM usher.lineage()"), 1);
    // Words that are no arguments.
    for (call, code) in [
        ("usher.lineage('public.nothing')", SqlState::UNDEFINED_OBJECT),
        ("usher.lineage('public.orders', 'sideways')", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage('public.orders', depth => -1)", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage(depth => 1)", SqlState::INVALID_PARAMETER_VALUE),
        ("usher.lineage_diagram('png')", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let error = refused(here, &format!("SELECT * FROM {call}"));
        assert_eq!(error.code(), &code, "{call}");
        assert!(error.hint().is_some(), "{call}");
    }
}
