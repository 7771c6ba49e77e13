//! The seasons that the demo and the benchmarks work on: the same for a seed, and as the pack's own flows would have left them.

use usher_clients::season::Season;
use usher_clients::{Client, Database, number, run, settled, text, wait};

/// Everything that a season has written, in short.
fn digest(here: &mut Client) -> String {
    let tables = text(
        here,
        "SELECT string_agg(format('SELECT %L || md5(COALESCE(string_agg(t::text, ''|'' ORDER BY t::text), '''')) AS d FROM %s AS t', c.oid::regclass, c.oid::regclass), ' UNION ALL ')
           FROM pg_class AS c WHERE c.relkind = 'r' AND (c.relnamespace IN ('atlvs'::regnamespace, 'compvss'::regnamespace, 'gvteway'::regnamespace)
                OR c.oid IN ('usher.links'::regclass, 'usher.ticket_revenue_ingestions'::regclass))",
    );
    text(
        here,
        &format!(
            "SELECT md5(string_agg(d, ' ' ORDER BY d)) || (SELECT string_agg(slug || id, ' ' ORDER BY slug) FROM usher.organizations WHERE slug LIKE 'season-%') FROM ({tables}) AS x"
        ),
    )
}

fn empty(here: &mut Client) {
    let tables = text(
        here,
        "SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace IN ('atlvs'::regnamespace, 'compvss'::regnamespace, 'gvteway'::regnamespace)",
    );
    run(
        here,
        &format!(
            "BEGIN; SET LOCAL session_replication_role = replica; TRUNCATE {tables}, usher.ticket_revenue_ingestions, usher.links;
             DELETE FROM usher.organizations WHERE slug LIKE 'season-%'; COMMIT"
        ),
    );
}

#[test]
fn a_season_is_the_same_for_a_seed_and_fits_the_pack() {
    let database = Database::create("usher_test_season");
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    let season = Season { seed: 5, organizations: 2, deals: 60, orders: 600, booked: true };
    season.make(here);
    let first = digest(here);
    empty(here);
    assert_ne!(digest(here), first, "the digest looks at what is there");
    Season { seed: 6, ..season }.make(here);
    assert_ne!(digest(here), first, "another seed is another season");
    // Beside another one, too.
    season.make(here);
    empty(here);
    season.make(here);
    assert_eq!(digest(here), first);

    let counts = "SELECT concat_ws('|', (SELECT count(*) FROM atlvs.deals), (SELECT count(*) FROM compvss.productions), (SELECT count(DISTINCT organization_id) FROM gvteway.orders),
                                        (SELECT count(*) FROM gvteway.orders), (SELECT count(*) FROM gvteway.order_items WHERE kind = 'ticket'))";
    assert_eq!(text(here, counts), "60|24|2|600|600");
    // Nothing ran for it, and there is nothing that flows would do otherwise.
    assert_eq!(number(here, "SELECT count(*) FROM usher.sync_jobs WHERE flow NOT LIKE 'live_events.refresh_kpis%'"), 0);
    for (differ, what) in [
        ("SELECT COALESCE(sum(atlvs.reconcile(id, '2030-01-01')), 0) FROM usher.organizations", "orders and ledger"),
        ("SELECT sum(atlvs.refresh_all_lifetime_values(id)) FROM usher.organizations", "what guests have spent"),
        ("SELECT sum(compvss.set_staffing_targets(id)) FROM usher.organizations", "staffing targets"),
        (
            "SELECT count(*) FROM compvss.productions WHERE tickets_sold <> compvss.tickets_sold(organization_id, project_ref)",
            "tickets sold",
        ),
        (
            "SELECT count(*) FROM atlvs.projects AS p WHERE NOT EXISTS (SELECT FROM usher.links AS l WHERE l.kind = 'event' AND l.left_id = p.id::text)",
            "links",
        ),
    ] {
        assert_eq!(number(here, differ), 0, "{what}");
    }
    // What is sold of articles is counted for all of it once more, and stays.
    let forecasts = "SELECT md5(string_agg(concat_ws('|', production_id, sku, sold, projected, stock, reorder), ',' ORDER BY production_id, sku)) || count(*) FROM compvss.merch_forecasts";
    let before = text(here, forecasts);
    run(
        here,
        "SELECT compvss.forecast_merch((SELECT jsonb_agg(jsonb_build_object('organization', o.organization_id, 'order', o.id)) FROM gvteway.orders AS o
                                         WHERE o.organization_id = x.id AND o.status IN ('paid', 'refunded'))) FROM usher.organizations AS x WHERE x.slug LIKE 'season-%'",
    );
    assert_eq!(text(here, forecasts), before);
    // And it goes on: what is still pending is paid.
    let paid = number(
        here,
        "WITH o AS (UPDATE gvteway.orders SET status = 'paid', paid_at = now() WHERE status = 'pending' RETURNING 1) SELECT count(*) FROM o",
    );
    assert!(paid > 0);
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
    let orders = number(here, "SELECT count(*) FROM gvteway.orders WHERE status IN ('paid', 'refunded')");
    assert_eq!(
        number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE project_id IS NOT NULL AND reverses IS NULL"),
        orders
    );
    assert_eq!(number(here, "SELECT sum(atlvs.reconcile(id, '2030-01-01')) FROM usher.organizations"), 0);
}
