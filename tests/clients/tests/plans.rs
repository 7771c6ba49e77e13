//! A worker's plans are made when there is next to nothing to read, and used when there is much.

use std::time::Duration;
use usher_clients::wait::until;
use usher_clients::{Client, Database, flow, json, number, role, run, settled};

fn database(name: &str) -> (Database, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    role(&mut client, "clients_plans", "NOLOGIN");
    run(
        &mut client,
        "SELECT usher.create_organization('acme'); CREATE TABLE public.rows (id integer PRIMARY KEY, organization_id uuid)",
    );
    (database, client)
}

fn insert(client: &mut Client, first: i64, rows: i64) {
    run(
        client,
        &format!(
            "INSERT INTO public.rows SELECT n, (SELECT id FROM usher.organizations WHERE slug = 'acme') FROM generate_series({first}, {first} + {rows} - 1) AS n"
        ),
    );
}

/// A flow's statement that was planned while its table was empty is planned anew when the flow has done much, without ANALYZE.
#[test]
fn a_plan_of_the_first_row_is_not_the_plan_of_all() {
    let (_database, mut client) = database("usher_plans_grow");
    run(
        &mut client,
        "CREATE TABLE public.counted (organization_id uuid, ref integer, place integer, PRIMARY KEY (organization_id, ref)) WITH (autovacuum_enabled = off);
         CREATE INDEX counted_place_idx ON public.counted (organization_id, place);
         CREATE TABLE public.reads (entries bigint);
         CREATE FUNCTION public.count(payload jsonb) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
         DECLARE
             org uuid := (payload -> 0 ->> 'org')::uuid;
             ids integer[] := ARRAY(SELECT (j ->> 'id')::integer FROM jsonb_array_elements(payload) AS j);
         BEGIN
             PERFORM FROM public.counted AS c WHERE c.organization_id = org AND c.ref = ANY (ids);
             INSERT INTO public.reads
             SELECT sum(pg_stat_get_xact_tuples_returned(r)) FROM unnest('{public.counted,public.counted_place_idx,public.counted_pkey}'::regclass[]) AS r;
         END $$;
         GRANT SELECT ON public.counted TO clients_plans;
         GRANT INSERT ON public.reads TO clients_plans;
         ANALYZE public.counted",
    );
    let definition = json!({"when": {"change": "public.rows"}, "then": {"call": "public.count", "per": "batch", "effect": "sql"}, "set": {"org": "job.organization_id", "id": "new.id"},
                            "run_as": "clients_plans", "mode": "batch", "batch": {"size": 100, "window": "1s"}});
    flow(&mut client, "count", &definition);
    insert(&mut client, 0, 100);
    settled(&mut client, Duration::from_secs(60));
    // Nobody counts these: what the planner knows of the table is that it was empty.
    run(
        &mut client,
        "INSERT INTO public.counted SELECT o.id, n, 1 FROM usher.organizations AS o, generate_series(1, 100000) AS n WHERE o.slug = 'acme'",
    );
    let mut next = 100;
    let mut round = |client: &mut Client, rows: i64| {
        insert(client, next, rows);
        next += rows;
        settled(client, Duration::from_secs(60));
        number(client, "SELECT COALESCE(max(entries), 0) FROM (SELECT entries FROM public.reads ORDER BY ctid DESC LIMIT 1) AS x")
    };
    assert!(round(&mut client, 100) >= 100_000, "the first plan reads all of the organization: that is what this test is about");
    // Jobs go on coming; after a thousand the plan is made anew.
    until(Duration::from_secs(60), "the plan fits", || round(&mut client, 500) <= 1_000);
}
