//! The pack live_events at the tables of an application (docs/adoption.md): one schema, enums, keys of one column, names of its own. People of
//! the application write their own tables, and the workflows follow; the organization beside theirs stays as it was.

use std::sync::{Mutex, MutexGuard, OnceLock};
use usher_clients::{Client, Database, SqlState, Uuid, number, page, refused, role, run, settled, text, value, wait};

const APP: &str = include_str!("app.sql");
const BIND: &str = include_str!("bind.json");
const MEMBER: &str = "clients_adoption_member";
const PERSON: &str = "22222222-0000-4000-8000-000000000001";

struct Stage {
    database: Database,
    owner: Client,
    member: Client,
    north: Uuid,
    south: Uuid,
    said: String,
    planned: Vec<(String, bool, String)>,
}

static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();

fn plan(owner: &mut Client) -> Vec<(String, bool, String)> {
    let sql =
        format!("SELECT workflow, runs, array_to_string(lacks, '; ') FROM usher.plan_pack('live_events', $bind${BIND}$bind$)");
    let rows = owner.query(&sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn stage() -> MutexGuard<'static, Stage> {
    let stage = STAGE.get_or_init(|| {
        let database = Database::create("usher_test_pack_adoption");
        let mut owner = database.connect();
        let here = &mut owner;
        role(here, "authenticated", "NOLOGIN");
        role(here, MEMBER, "LOGIN");
        run(here, &format!("GRANT usher_member TO authenticated; GRANT authenticated TO {MEMBER}"));
        run(here, APP);
        run(
            here,
            &format!(
                "SELECT usher.adopt_organizations('public.organizations', slug_column => 'slug', name_column => 'name', timezone_column => 'timezone');
                 INSERT INTO public.organizations (slug, name, timezone) VALUES ('north', 'North', 'Europe/Berlin'), ('south', 'South', 'Europe/Berlin');
                 INSERT INTO public.profiles (id, full_name) VALUES ('{PERSON}', 'Nora');
                 INSERT INTO public.organization_members SELECT o.id, '{PERSON}', 'owner' FROM public.organizations AS o WHERE o.slug = 'north';
                 SELECT usher.grant_membership('north', 'role:{MEMBER}', 'admin')"
            ),
        );
        let planned = plan(here);
        // What the plan says would help.
        let remedies =
            text(here, &format!("SELECT string_agg(DISTINCT r, ' ') FROM usher.plan_pack('live_events', $bind${BIND}$bind$) AS p CROSS JOIN unnest(p.remedies) AS r"));
        run(here, &remedies);
        let said = text(here, &format!("SELECT usher.install_pack('live_events', bind => $bind${BIND}$bind$)"));
        run(
            here,
            "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}') FROM usher.flows
              WHERE pack = 'live_events' AND strpos(name, ':') = 0 AND NOT definition -> 'then' ? 'steps'",
        );
        let [north, south] = ["north", "south"].map(|slug| value(here, "SELECT id FROM public.organizations WHERE slug = $1", &[&slug]));
        let mut member = database.connect_as(MEMBER);
        run(&mut member, &format!("SET request.jwt.claims = '{{\"sub\": \"{PERSON}\"}}'"));
        Mutex::new(Stage { database, owner, member, north, south, said, planned })
    });
    let stage = stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    stage.database.take_workers();
    stage
}

impl Stage {
    /// What a person of the application does.
    fn does(&mut self, sql: &str) {
        run(&mut self.member, &sql.replace("$north", &format!("'{}'::uuid", self.north)));
        self.settle();
    }

    /// The same by the owner, for tables of the pack's own.
    fn has(&mut self, sql: &str) {
        run(
            &mut self.owner,
            &sql.replace("$north", &format!("'{}'::uuid", self.north)).replace("$south", &format!("'{}'::uuid", self.south)),
        );
        self.settle();
    }

    fn settle(&mut self) {
        settled(&mut self.owner, wait::LONG);
        let dead = "SELECT COALESCE(string_agg(f.name || ': ' || d.error_message, '; '), '') FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id";
        assert_eq!(text(&mut self.owner, dead), "", "nothing fails");
    }

    fn asks(&mut self, sql: &str) -> String {
        text(&mut self.owner, &sql.replace("$north", &format!("'{}'::uuid", self.north)))
    }

    /// Everything of the other organization.
    fn south(&mut self) -> String {
        let tables =
            "SELECT c.oid::regclass::text, a.attname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname IN ('org_id', 'organization_id')
                       WHERE n.nspname IN ('public', 'atlvs', 'compvss', 'gvteway') AND c.relkind IN ('r', 'p') ORDER BY 1";
        let rows = self.owner.query(tables, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        let south = self.south;
        rows.iter()
            .map(|row| {
                let (table, column): (String, String) = (row.get(0), row.get(1));
                let sql = format!("SELECT '{table} ' || count(*) || COALESCE(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} AS t WHERE t.{column} = '{south}'");
                text(&mut self.owner, &sql)
            })
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The same rows in both organizations, so that a flow that forgot whose they are would find the wrong ones.
fn deal(stage: &mut Stage, name: &str) -> String {
    for organization in [stage.south, stage.north] {
        run(
            &mut stage.owner,
            &format!(
                "INSERT INTO public.deals (org_id, name, stage, amount, event_date, location, guests, secret_note)
                 VALUES ('{organization}', '{name}', 'negotiation', 5000, '2027-06-01', 'Arena', 800, 'not for flows')"
            ),
        );
    }
    stage.settle();
    stage.asks(&format!("SELECT id::text FROM public.deals WHERE org_id = $north AND name = '{name}'"))
}

/// A won deal, its project and its production.
fn production(stage: &mut Stage, name: &str) -> [String; 3] {
    let deal = deal(stage, name);
    stage.does(&format!("UPDATE public.deals SET stage = 'closed_won' WHERE id = '{deal}'"));
    let project = stage.asks(&format!("SELECT id::text FROM public.projects WHERE deal_id = '{deal}'"));
    let production = stage.asks(&format!("SELECT id::text FROM compvss.productions WHERE project_ref = '{project}'"));
    [deal, project, production]
}

#[test]
fn the_plan_says_what_runs_and_what_the_others_lack() {
    let stage = &mut *stage();
    let lacks = |workflow: &str| {
        stage.planned.iter().find(|(name, ..)| name == workflow).map(|(_, _, lacks)| lacks.clone()).unwrap_or_default()
    };
    assert_eq!(lacks("W1"), "");
    assert!(lacks("W5").contains("public.expenses.amount is text, amount is numeric(14,2)"), "{}", lacks("W5"));
    assert!(lacks("W12").contains("public.projects has no column for closing_run"), "{}", lacks("W12"));
    assert_eq!(lacks("W15"), "public.fans lacks a unique index on (org_id, id)");
    assert_eq!(lacks("W35"), "there is no compvss.merch_forecasts");
    // With the indexes that it asked for, the rest is as it was planned.
    let now = plan(&mut stage.owner);
    let out: Vec<&str> = now.iter().filter(|(_, runs, _)| !runs).map(|(name, ..)| name.as_str()).collect();
    for workflow in &out {
        assert!(stage.said.contains(&format!("{workflow} (")), "{}", stage.said);
    }
    let runs = now.len() - out.len();
    assert!(stage.said.contains(&format!("{runs} workflows run at 17 tables of the application")), "{}", stage.said);
    let flows = "SELECT count(*) FROM usher.pack_workflows('live_events') AS w JOIN usher.flows AS f ON f.name = w.part WHERE w.workflow = ANY ($1)";
    assert_eq!(value::<i64>(&mut stage.owner, flows, &[&out]), 0, "what cannot run is not there");
}

#[test]
fn w1_w9_and_w25_a_won_deal_is_a_project_that_follows_its_production() {
    let stage = &mut *stage();
    let won = deal(stage, "Gala");
    let before = stage.south();
    // In the transaction of whoever wins it.
    run(&mut stage.member, &format!("BEGIN; UPDATE public.deals SET stage = 'closed_won' WHERE id = '{won}'"));
    assert_eq!(number(&mut stage.member, &format!("SELECT count(*) FROM public.projects WHERE deal_id = '{won}'")), 1);
    stage.does("COMMIT");
    let project = format!(
        "SELECT concat_ws('|', title, status, budget, start_date, end_date, source, substr(project_code, 1, 2)) FROM public.projects WHERE deal_id = '{won}' AND org_id = $north"
    );
    assert_eq!(stage.asks(&project), "Gala|backlog|5000.00|2027-06-01|2027-06-01|usher|P-");
    assert_eq!(
        stage.asks(&format!("SELECT count(*)::text FROM usher.links AS l WHERE l.kind = 'deal' AND l.left_id = '{won}'")),
        "1"
    );
    // Once.
    stage.does(&format!("UPDATE public.deals SET stage = 'lead' WHERE id = '{won}'; UPDATE public.deals SET stage = 'closed_won' WHERE id = '{won}'"));
    assert_eq!(stage.asks(&format!("SELECT count(*)::text FROM public.projects WHERE deal_id = '{won}'")), "1");
    let made = format!(
        "SELECT concat_ws('|', p.name, p.status, p.venue_name, p.timezone, p.capacity, p.starts_at) FROM compvss.productions AS p JOIN public.projects AS j ON j.id = p.project_ref WHERE j.deal_id = '{won}'"
    );
    assert!(stage.asks(&made).starts_with("Gala|planning|Arena|Europe/Berlin|800|"), "{}", stage.asks(&made));
    // W25: and an event, which follows.
    let shown = format!(
        "SELECT concat_ws('|', e.title, e.status, e.timezone, e.capacity) FROM public.events AS e JOIN compvss.productions AS p ON p.id = e.production_ref
           JOIN public.projects AS j ON j.id = p.project_ref WHERE j.deal_id = '{won}'"
    );
    assert_eq!(stage.asks(&shown), "Gala|draft|Europe/Berlin|800");
    assert_eq!(stage.south(), before, "the other organization is as it was");
    // Back, in the application's words.
    stage.has(&format!("UPDATE compvss.productions SET status = 'show' WHERE project_ref = (SELECT id FROM public.projects WHERE deal_id = '{won}')"));
    assert_eq!(stage.asks(&format!("SELECT status::text FROM public.projects WHERE deal_id = '{won}'")), "running");
    stage.has(&format!("UPDATE compvss.productions SET name = 'Gala night' WHERE project_ref = (SELECT id FROM public.projects WHERE deal_id = '{won}')"));
    assert_eq!(stage.asks(&shown), "Gala night|draft|Europe/Berlin|800");
    // And there again: a project that is cancelled takes its production along.
    stage.does(&format!("UPDATE public.projects SET status = 'cancelled' WHERE deal_id = '{won}'"));
    assert!(stage.asks(&made).starts_with("Gala night|cancelled|"));
    // Rolled back, nothing comes of it.
    let lost = deal(stage, "Lost");
    run(&mut stage.member, &format!("BEGIN; UPDATE public.deals SET stage = 'closed_won' WHERE id = '{lost}'; ROLLBACK"));
    stage.settle();
    assert_eq!(stage.asks(&format!("SELECT count(*)::text FROM public.projects WHERE deal_id = '{lost}'")), "0");
}

#[test]
fn w3_and_w11_assets_are_held_in_the_applications_words() {
    let stage = &mut *stage();
    let [_, _, production] = production(stage, "Tour");
    for organization in ["$south", "$north"] {
        stage.has(&format!(
            "INSERT INTO public.assets (org_id, asset_tag, name, category) VALUES ({organization}, 'L1', 'Lamp', 'light')"
        ));
    }
    let before = stage.south();
    let ask = |from: &str, to: &str| {
        format!(
            "INSERT INTO public.asset_requests (org_id, production_id, category, booked) VALUES ($north, '{production}', 'light', tstzrange('{from}', '{to}'))"
        )
    };
    stage.does(&ask("2027-06-01", "2027-06-03"));
    let asked =
        "SELECT string_agg(concat_ws('|', r.status, a.asset_tag, a.status, r.reason), ', ' ORDER BY r.booked, r.created_at)
                   FROM public.asset_requests AS r LEFT JOIN public.assets AS a ON a.id = r.asset_id WHERE r.org_id = $north";
    assert_eq!(stage.asks(asked), "allocated|L1|booked");
    stage.does(&ask("2027-06-02", "2027-06-04"));
    assert_eq!(stage.asks(asked), "allocated|L1|booked, denied|no asset of category \"light\" is free");
    stage.does("UPDATE public.asset_requests SET status = 'deployed' WHERE status = 'allocated'");
    assert_eq!(stage.asks("SELECT status FROM atlvs.asset_reservations WHERE organization_id = $north"), "confirmed");
    // W11: what is broken is out of service.
    stage.has(
        "INSERT INTO compvss.damage_reports (organization_id, asset_ref, severity) SELECT $north, id, 'critical' FROM public.assets WHERE org_id = $north AND asset_tag = 'L1'",
    );
    assert_eq!(stage.asks("SELECT status::text FROM public.assets WHERE org_id = $north AND asset_tag = 'L1'"), "repair");
    assert_eq!(stage.asks("SELECT count(*)::text FROM atlvs.maintenance_orders WHERE organization_id = $north"), "1");
    assert_eq!(stage.south(), before);
}

/// An event with an order over a ticket and two shirts, in both organizations.
fn order(stage: &mut Stage, number: &str) -> String {
    for organization in ["$south", "$north"] {
        stage.has(&format!(
            "INSERT INTO public.events (org_id, slug, title, status) VALUES ({organization}, 'show', 'Show', 'on_sale') ON CONFLICT DO NOTHING;
             INSERT INTO public.products (org_id, sku, name, stock) VALUES ({organization}, 'SHIRT', 'Shirt', 10) ON CONFLICT DO NOTHING;
             INSERT INTO public.customers (org_id, given_name, email) SELECT {organization}, 'Ada', 'ada@example.com'
              WHERE NOT EXISTS (SELECT FROM public.customers WHERE org_id = {organization} AND email = 'ada@example.com');
             INSERT INTO public.orders (org_id, order_no, event_id, fan_id, net, fees, tax, gross)
             SELECT {organization}, '{number}', e.id, f.id, 90, 4, 6, 100 FROM public.events AS e LEFT JOIN public.fans AS f ON f.org_id = e.org_id AND f.email = 'ada@example.com'
              WHERE e.org_id = {organization} AND e.slug = 'show';
             INSERT INTO public.order_items (org_id, order_id, type, sku, quantity, price)
             SELECT {organization}, o.id, i.* FROM public.orders AS o, (VALUES ('ticket', NULL, 1, 50), ('merch', 'SHIRT', 2, 20)) AS i (type, sku, quantity, price)
              WHERE o.org_id = {organization} AND o.order_no = '{number}'"
        ));
    }
    stage.asks(&format!("SELECT id::text FROM public.orders WHERE org_id = $north AND order_no = '{number}'"))
}

const BOOKS: &str = "SELECT COALESCE(string_agg(concat_ws('|', a.code, a.type, e.debit, e.credit), ', ' ORDER BY a.code, e.debit, e.credit), '')
                       FROM public.ledger_entries AS e JOIN public.ledger_accounts AS a ON a.id = e.account_id JOIN public.journal_entries AS j ON j.id = e.entry_id
                      WHERE e.org_id = $north AND j.org_id = $north";

#[test]
fn w16_w17_w19_w20_and_w23_orders_are_booked_in_the_applications_ledger() {
    let stage = &mut *stage();
    // W15: who is a customer is known at the gate.
    let order = order(stage, "A-1");
    assert_eq!(
        stage.asks("SELECT concat_ws('|', f.email, f.name) FROM public.fans AS f WHERE f.org_id = $north"),
        "ada@example.com|Ada"
    );
    stage.has("UPDATE public.orders AS o SET fan_id = f.id FROM public.fans AS f WHERE f.org_id = o.org_id");
    let before = stage.south();
    stage.does(&format!("UPDATE public.orders SET status = 'paid', paid_at = now() WHERE id = '{order}'"));
    let booked = "1100|asset|100.00|0, 2200|liability|0|6.00, 4000|income|0|50.00, 4100|income|0|40.00, 4300|income|0|4.00";
    assert_eq!(stage.asks(BOOKS), booked);
    // W17
    assert_eq!(stage.asks("SELECT stock::text FROM public.products WHERE org_id = $north AND sku = 'SHIRT'"), "8");
    // W19
    wait::until_true(&mut stage.owner, "SELECT count(*) = 1 FROM public.fans WHERE spent = 100 AND currency = 'EUR'");
    wait::until_true(&mut stage.owner, "SELECT count(*) = 1 FROM public.customers WHERE worth = 100");
    // Once.
    stage.does(&format!("UPDATE public.orders SET card_last4 = '4242' WHERE id = '{order}'"));
    assert_eq!(stage.asks(BOOKS), booked);
    assert_eq!(stage.asks("SELECT stock::text FROM public.products WHERE org_id = $north AND sku = 'SHIRT'"), "8");
    // W20
    stage.does("INSERT INTO public.payouts (org_id, provider, reference, gross, fees, net, status, paid_at) VALUES ($north, 'bank', 'PO-1', 100, 3, 97, 'paid', now())");
    let books = stage.asks(BOOKS);
    assert!(books.starts_with("1000|asset|97|0, 1100|asset|0|100, 1100|asset|100.00|0"), "{books}");
    assert_eq!(stage.asks("SELECT payout_ref FROM atlvs.settlements WHERE organization_id = $north"), "PO-1");
    // A refund is booked back, and the shirts are in stock again.
    stage.does(&format!("UPDATE public.orders SET status = 'refunded', refunded_at = now() WHERE id = '{order}'"));
    assert_eq!(stage.asks("SELECT (sum(debit - credit) = 0)::text FROM public.ledger_entries WHERE org_id = $north"), "true");
    assert_eq!(
        stage.asks("SELECT count(*)::text FROM public.journal_entries WHERE org_id = $north AND reverses_id IS NOT NULL"),
        "1"
    );
    assert_eq!(stage.asks("SELECT stock::text FROM public.products WHERE org_id = $north AND sku = 'SHIRT'"), "10");
    assert_eq!(stage.south(), before);
    // W23: the books are looked over at once when somebody asks.
    stage.has("SELECT usher.enqueue_sync_job('north', 'atlvs', 'atlvs', '{\"action\": \"reconcile\"}')");
    assert_eq!(stage.asks("SELECT count(*)::text FROM atlvs.reconciliation_runs WHERE organization_id = $north"), "1");
}

#[test]
fn w14_w21_w22_and_w8_what_people_say_and_book() {
    let stage = &mut *stage();
    let [_, _, production] = production(stage, "Fair");
    let open = deal(stage, "Concert");
    for organization in ["$south", "$north"] {
        stage.has(&format!(
            "INSERT INTO public.vendors (org_id, name) VALUES ({organization}, 'Lights Ltd');
             INSERT INTO public.customers (org_id, given_name) VALUES ({organization}, 'Grace');
             INSERT INTO public.events (org_id, slug, title) VALUES ({organization}, 'fair', 'Fair');
             INSERT INTO atlvs.artists (organization_id, name) VALUES ({organization}, 'The Sines')"
        ));
    }
    let before = stage.south();
    // W21, in words that are no enum's.
    stage.does(
        "INSERT INTO public.reviews (org_id, event_id, vendor_id, stars, visible) SELECT $north, e.id, v.id, s, 'yes' FROM public.events AS e, public.vendors AS v, unnest(ARRAY[3, 4]) AS s
          WHERE e.org_id = $north AND e.slug = 'fair' AND v.org_id = $north",
    );
    assert_eq!(stage.asks("SELECT concat_ws('|', stars, reviews) FROM public.vendors WHERE org_id = $north"), "3.50|2");
    // W14
    stage.has(&format!(
        "INSERT INTO compvss.satisfaction_surveys (organization_id, production_id, contact_ref, score) SELECT $north, '{production}', id, 8 FROM public.customers WHERE org_id = $north AND given_name = 'Grace'"
    ));
    assert_eq!(stage.asks("SELECT concat_ws('|', average_score::numeric(4,1), scores) FROM public.customers WHERE org_id = $north AND given_name = 'Grace'"), "8.0|1");
    // W22: a booking that is confirmed is a draft of an event.
    stage.has(&format!(
        "INSERT INTO atlvs.artist_bookings (organization_id, artist_id, deal_id, event_on, status) SELECT $north, id, '{open}', '2027-06-01', 'confirmed' FROM atlvs.artists WHERE organization_id = $north"
    ));
    assert_eq!(
        stage.asks(&format!(
            "SELECT concat_ws('|', title, status, timezone, lineup) FROM public.events WHERE deal_ref = '{open}'"
        )),
        "Concert|draft|Europe/Berlin|[\"The Sines\"]"
    );
    // W10: what changes is planned, in the currency of the application's project.
    stage.has(&format!(
        "INSERT INTO compvss.change_orders (organization_id, production_id, number, category, cost_delta, currency, status) VALUES ($north, '{production}', '1', 'light', 250, 'EUR', 'approved')"
    ));
    assert_eq!(
        stage.asks("SELECT planned::text FROM atlvs.budget_lines WHERE organization_id = $north AND category = 'light'"),
        "250.00"
    );
    // W8
    stage.has(&format!(
        "INSERT INTO compvss.alerts (organization_id, production_id, kind, level, headline) VALUES ($north, '{production}', 'risk', 'high', 'Storm')"
    ));
    assert_eq!(
        stage.asks(
            "SELECT count(*)::text FROM atlvs.alerts WHERE organization_id = $north AND kind = 'risk' AND project_id IS NOT NULL"
        ),
        "1"
    );
    assert_eq!(stage.south(), before);
}

#[test]
fn the_packs_role_has_no_more_than_it_needs() {
    let stage = &mut *stage();
    let may =
        |stage: &mut Stage, what: &str| stage.asks(&format!("SELECT has_column_privilege('usher_live_events', {what})::text"));
    assert_eq!(may(stage, "'public.deals', 'amount', 'SELECT'"), "true");
    assert_eq!(may(stage, "'public.deals', 'secret_note', 'SELECT'"), "false");
    assert_eq!(may(stage, "'public.deals', 'stage', 'UPDATE'"), "false");
    assert_eq!(may(stage, "'public.orders', 'card_last4', 'SELECT'"), "false");
    assert_eq!(may(stage, "'public.projects', 'title', 'INSERT'"), "true");
    assert_eq!(may(stage, "'public.projects', 'title', 'UPDATE'"), "false");
    assert_eq!(may(stage, "'public.projects', 'status', 'UPDATE'"), "true");
    assert_eq!(
        stage.asks("SELECT count(*)::text FROM pg_policies WHERE schemaname = 'public' AND policyname = 'usher_live_events'"),
        "16"
    );
    // Through a view nobody sees more than through the table, nor less where no workflow runs.
    assert_eq!(number(&mut stage.member, "SELECT count(*) FROM compvss.expenses"), 0);
    assert_eq!(
        number(
            &mut stage.member,
            "SELECT count(*) FROM atlvs.deals WHERE organization_id <> (SELECT org_id FROM public.organization_members)"
        ),
        0
    );
}

#[test]
fn what_somebody_has_changed_meanwhile_is_not_overwritten() {
    let stage = &mut *stage();
    stage.has("INSERT INTO public.assets (org_id, asset_tag, name, category) VALUES ($north, 'X1', 'Crane', 'lift')");
    let (mut other, mut watch) = (stage.database.connect(), stage.database.connect());
    run(&mut stage.owner, "BEGIN; UPDATE public.assets SET status = 'sold' WHERE asset_tag = 'X1'");
    // As a function of the pack writes it, which has seen the crane in stock.
    let second = std::thread::spawn(move || {
        other.batch_execute(
            "SET application_name = 'adoption_second'; UPDATE atlvs.assets SET state = 'maintenance' WHERE tag = 'X1'",
        )
    });
    wait::until_true(
        &mut watch,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'adoption_second' AND wait_event_type = 'Lock'",
    );
    run(&mut stage.owner, "COMMIT");
    let error = second.join().expect("the other session").expect_err("it gives way");
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    assert_eq!(stage.asks("SELECT status::text FROM public.assets WHERE org_id = $north AND asset_tag = 'X1'"), "sold");
}

/// What members call themselves works through the views, with their rights and in the application's words.
#[test]
fn a_member_takes_a_bound_deal_all_the_way() {
    let stage = &mut *stage();
    let (open, next, third) = (deal(stage, "Ball"), deal(stage, "Second ball"), deal(stage, "No ball"));
    let other = stage.asks(&format!("SELECT id::text FROM public.deals WHERE name = 'Ball' AND id <> '{open}'"));
    run(&mut stage.owner, &format!("SELECT usher.grant_membership('north', '{PERSON}', 'admin')"));
    let before = stage.south();
    let advance = |deal: &str| {
        format!(
            "SELECT string_agg(concat_ws('|', stage, status, detail), ', ' ORDER BY step) FROM live_events.advance_lifecycle('north', '{deal}')"
        )
    };
    let said = text(&mut stage.member, &advance(&open));
    assert!(said.starts_with("deal|synced|won now, was proposal, project|synced"), "{said}");
    stage.settle();
    let project = format!(
        "SELECT concat_ws('|', d.stage, p.title) FROM public.deals AS d JOIN public.projects AS p ON p.deal_id = d.id WHERE d.id = '{open}'"
    );
    assert_eq!(stage.asks(&project), "closed_won|Ball");
    let said = text(&mut stage.member, &advance(&open));
    assert!(said.starts_with("deal|synced, project|synced, production|synced|planning, event|synced|draft"), "{said}");
    // What has failed is tried again with the deal as it is now, in the application's names.
    run(
        &mut stage.member,
        &format!(
            "UPDATE public.deals SET name = ' ' WHERE id = '{third}'; UPDATE public.deals SET stage = 'closed_won' WHERE id = '{third}'"
        ),
    );
    settled(&mut stage.owner, wait::LONG);
    assert_eq!(stage.asks("SELECT count(*)::text FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id WHERE f.name = 'live_events.create_project_from_won_deal'"), "1");
    run(&mut stage.member, &format!("UPDATE public.deals SET name = 'Third ball' WHERE id = '{third}'"));
    let said = text(&mut stage.member, &advance(&third));
    assert!(said.starts_with("deal|synced, project|pending|"), "{said}");
    stage.settle();
    assert_eq!(stage.asks(&format!("SELECT title FROM public.projects WHERE deal_id = '{third}'")), "Third ball");
    // Only in an organization of theirs, and as far as the application lets them.
    assert_eq!(refused(&mut stage.member, &advance(&other)).code(), &SqlState::UNDEFINED_OBJECT);
    run(&mut stage.owner, "REVOKE UPDATE ON public.deals FROM authenticated");
    let error = refused(&mut stage.member, &advance(&next));
    assert_eq!((error.code(), error.message()), (&SqlState::INSUFFICIENT_PRIVILEGE, "permission denied for table deals"));
    run(&mut stage.owner, "GRANT UPDATE ON public.deals TO authenticated");
    // The pack's role may still not write what only people do.
    assert_eq!(
        stage.asks("SELECT concat_ws('|', has_column_privilege('usher_live_events', 'public.deals', 'stage', 'UPDATE'), has_column_privilege('usher_member', 'atlvs.deals', 'title', 'UPDATE'))"),
        "f|f"
    );
    assert_eq!(stage.south(), before);
}

/// `null` for a table leaves out what needs it, and the rest is installed: from nothing, and where the table stood before.
/// `EVERY_TABLE=1` does so with all of them (some minutes).
#[test]
fn any_table_of_the_pack_can_be_left_out() {
    let database = Database::create("usher_test_pack_absent");
    let here = &mut database.connect();
    let every = std::env::var("EVERY_TABLE").is_ok_and(|every| every == "1");
    let some = ["atlvs.assets", "atlvs.deals", "compvss.productions", "live_events.identities", "live_events.project_figures"];
    let tables = "SELECT array_agg(DISTINCT table_name ORDER BY table_name) FROM usher.pack_tables('live_events')";
    let all: Vec<String> = value(here, tables, &[]);
    assert!(all.len() >= 80 && some.iter().all(|table| all.iter().any(|known| known == table)));
    let chosen: Vec<&String> = all.iter().filter(|table| every || some.contains(&table.as_str())).collect();
    run(
        here,
        "CREATE FUNCTION public.without(lacking text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN
             -- Figures that were counted meanwhile would be in the way.
             IF lacking LIKE 'live_events.%' AND to_regclass(lacking) IS NOT NULL THEN EXECUTE 'DELETE FROM ' || lacking; END IF;
             PERFORM usher.install_pack('live_events', bind => jsonb_build_object(lacking, NULL));
             IF to_regclass(lacking) IS NOT NULL THEN RETURN 'made'; END IF;
             RAISE SQLSTATE 'UT001';
         EXCEPTION WHEN SQLSTATE 'UT001' THEN RETURN NULL;
             WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
         END $$",
    );
    let mut failed = Vec::new();
    for before in ["nothing", "the pack"] {
        for table in &chosen {
            let said: Option<String> = value(here, "SELECT public.without($1)", &[table]);
            failed.extend(said.map(|said| format!("{table} after {before}: {said}")));
        }
        if before == "nothing" {
            run(here, "SELECT usher.install_pack('live_events')");
        }
    }
    nobody_writes_into_a_table_that_makes_way(&database, here);
    assert_eq!(failed, Vec::<String>::new());
}

/// Whoever writes into the pack's own table while it is bound: their row is not dropped with the table.
fn nobody_writes_into_a_table_that_makes_way(database: &Database, here: &mut Client) {
    run(
        here,
        "CREATE TABLE public.people (id uuid PRIMARY KEY, org_id uuid NOT NULL, first_name text); SELECT usher.create_organization('north')",
    );
    let (mut other, mut watch) = (database.connect(), database.connect());
    run(
        here,
        "BEGIN; INSERT INTO atlvs.contacts (organization_id, first_name) SELECT id, 'Ada' FROM usher.organizations WHERE slug = 'north'",
    );
    let second = std::thread::spawn(move || {
        other.batch_execute(
            "SET application_name = 'adoption_binds'; SELECT usher.install_pack('live_events', bind => '{\"atlvs.contacts\": {\"table\": \"public.people\", \"columns\": {\"organization_id\": \"org_id\"}}}')",
        )
    });
    wait::until_true(
        &mut watch,
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'adoption_binds' AND wait_event_type = 'Lock'",
    );
    run(here, "COMMIT");
    let error = second.join().expect("the other session").expect_err("the table has a row now");
    assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{error:?}");
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM atlvs.contacts AS c JOIN usher.organizations AS o ON o.id = c.organization_id AND o.slug = 'north'"
        ),
        1
    );
}

/// The owner of pg_usher's tables gets TRIGGER for the flows, and gives it back with them, also when the pack's role is gone.
#[test]
fn trigger_is_taken_back_without_the_packs_role() {
    let database = Database::create_empty("usher_test_pack_trigger");
    let here = &mut database.connect();
    for name in ["clients_adoption_owner", "clients_adoption_runner"] {
        role(here, name, "NOLOGIN");
    }
    run(
        here,
        "CREATE EXTENSION pg_usher; GRANT CREATE ON SCHEMA usher TO clients_adoption_owner; GRANT USAGE ON SCHEMA usher TO clients_adoption_owner;
         GRANT usher_operator TO clients_adoption_owner;
         SET ROLE clients_adoption_owner; SELECT usher.setup(); RESET ROLE;
         CREATE TABLE public.guests_said (id uuid PRIMARY KEY, org_id uuid NOT NULL, event_id uuid NOT NULL, guest_id uuid, rating smallint NOT NULL, vendor_ref uuid, status text, note text);
         CREATE TABLE public.suppliers (id uuid PRIMARY KEY, org_id uuid NOT NULL, name text NOT NULL, rating numeric, rating_n integer NOT NULL DEFAULT 0);
         GRANT TRIGGER ON public.suppliers TO clients_adoption_owner",
    );
    let bind = |more: &str| {
        format!(
            "bind => '{{\"*\": {{\"columns\": {{\"organization_id\": \"org_id\"}}}}, \"atlvs.vendors\": \"public.suppliers\"{more}}}'"
        )
    };
    let both = bind(", \"gvteway.reviews\": \"public.guests_said\"");
    let may = "SELECT concat_ws('|', has_table_privilege('clients_adoption_owner', 'public.guests_said', 'TRIGGER'), has_table_privilege('clients_adoption_owner', 'public.suppliers', 'TRIGGER'))";
    let install = format!("SELECT usher.install_pack('live_events', run_as => 'clients_adoption_runner', {both})");
    assert_eq!(text(here, may), "f|t");
    let less = format!("SELECT usher.install_pack('live_events', {})", bind(""));
    let gone = "SET client_min_messages = error; DROP OWNED BY clients_adoption_runner; DROP ROLE clients_adoption_runner; SELECT usher.remove_pack('live_events')";
    for (what, end) in [
        ("removed", "SELECT usher.remove_pack('live_events')"),
        ("not bound any more", &less),
        ("removed without its role", gone),
    ] {
        run(here, &install);
        // Again, when the triggers are there.
        run(here, "SELECT usher.install_pack('live_events')");
        assert_eq!(text(here, may), "t|t", "{what}");
        run(here, end);
        assert_eq!(text(here, may), "f|t", "{what}: what was there before stays");
    }
}

#[test]
fn the_page_runs() {
    let database = Database::create("usher_test_pack_page");
    let here = &mut database.connect();
    let mut done = Vec::new();
    for block in page::blocks("adoption.md") {
        run(here, &block.sql);
        if block.sql.contains("UPDATE public.deals") {
            let project = "SELECT concat_ws('|', substr(code, 1, 2), title, budget, phase, origin) FROM public.projects";
            assert_eq!(text(here, project), "P-|Gala|5000.00|intake|usher");
            done.push("won");
        } else if block.sql.contains("RENAME COLUMN") {
            assert_eq!(number(here, "SELECT count(*) FROM usher.flows WHERE state = 'broken'"), 0);
            assert_eq!(number(here, "SELECT count(*) FROM atlvs.deals WHERE value = 5000"), 1);
            done.push("renamed");
        } else if block.sql.contains("remove_pack") {
            assert_eq!(number(here, "SELECT count(*) FROM public.projects"), 1);
            assert_eq!(number(here, "SELECT count(*) FROM pg_policies WHERE schemaname = 'public'"), 0);
            done.push("removed");
        }
    }
    assert_eq!(done, ["won", "renamed", "removed"]);
}
