//! What the pack live_events tells over all three systems, beyond the six cases of each workflow: search and figures.

use usher_clients::{Client, Database, SqlState, number, refused, role, run, settled, text, wait};

const MEMBER: &str = "clients_live_hub";

/// Two organizations with the same rows; the member belongs to the first.
fn stage(name: &str) -> (Database, Client, Client) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events')");
    role(here, MEMBER, "LOGIN");
    run(here, &format!("GRANT usher_member TO {MEMBER}"));
    run(
        here,
        &format!(
            "SELECT usher.create_organization('north', 'North Live', 'Europe/Berlin'), usher.create_organization('south', 'South Live', 'Europe/Berlin');
             SELECT usher.grant_membership('north', 'role:{MEMBER}', 'admin')"
        ),
    );
    let member = database.connect_as(MEMBER);
    (database, client, member)
}

fn done(here: &mut Client) {
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
}

/// What a search finds, in order.
fn found(member: &mut Client, arguments: &str) -> String {
    let sql = format!(
        "SELECT COALESCE(string_agg(kind || ' ' || title, ', ' ORDER BY n), 'nothing') FROM live_events.search({arguments}) WITH ORDINALITY AS f (kind, id, system, title, body, rank, n)"
    );
    text(member, &sql)
}

#[test]
fn search_finds_what_a_member_may_read_the_best_first() {
    let (_database, mut client, mut member) = stage("usher_test_live_search");
    let here = &mut client;
    run(
        here,
        "INSERT INTO atlvs.deals (organization_id, title, venue_name) SELECT id, 'Summer Night', 'Tempodrom' FROM usher.organizations WHERE slug IN ('north', 'south');
         INSERT INTO atlvs.projects (organization_id, code, name) SELECT id, 'P-77', 'Midsummer' FROM usher.organizations WHERE slug IN ('north', 'south');
         INSERT INTO atlvs.vendors (organization_id, name, category) SELECT id, 'Licht & Co.', 'summer stages' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.contacts (organization_id, first_name, last_name, email, phone) SELECT id, 'Greta', 'Lindqvist', 'greta@agency.example', '+49 30 5550123' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.assets (organization_id, tag, name, category) SELECT id, 'PA-9', 'Line array', 'audio' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.employees (organization_id, name, status) SELECT id, 'Summer Payroll', 'left' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.artists (organization_id, name) SELECT id, 'Summer of Sound' FROM usher.organizations WHERE slug = 'south';
         INSERT INTO compvss.productions (organization_id, name, venue_name) SELECT id, 'Opera Gala', 'Tempodrom' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO compvss.crew_members (organization_id, name, skills) SELECT id, 'Bo Berg', '{rigging,sound}' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO gvteway.venues (organization_id, name, address) SELECT id, 'Tempodrom', 'Möckernstraße 10, Berlin' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO gvteway.merch_products (organization_id, sku, title, price) SELECT id, 'SHIRT-L', 'Tour shirt', 25 FROM usher.organizations WHERE slug = 'north'",
    );
    done(here);
    let here = &mut member;

    // What is called so before what has the word elsewhere, and nothing that has it in the middle of another; of the other organization, and of what only admins read, nothing.
    assert_eq!(found(here, "'north', 'summer'"), "deal Summer Night, vendor Licht & Co.");
    // All words, in any order, also only their beginnings, and those of what belongs to it: the event that follows from the production.
    assert_eq!(found(here, "'north', 'NIGHT tempo'"), "deal Summer Night");
    assert_eq!(
        found(here, "'north', 'tempodrom'"),
        "venue Tempodrom, event Opera Gala, production Opera Gala, deal Summer Night"
    );
    assert_eq!(found(here, "'north', 'tempodrom', most => 1"), "venue Tempodrom");
    assert_eq!(found(here, "'north', 'tempodrom', kinds => '{production,deal}'"), "production Opera Gala, deal Summer Night");
    // Codes, parts of addresses and numbers; letters of other alphabets.
    assert_eq!(found(here, "'north', 'p-77'"), "project Midsummer");
    assert_eq!(found(here, "'north', 'greta@agency', kinds => '{contact}'"), "contact Greta Lindqvist");
    assert_eq!(found(here, "'north', '5550123', kinds => '{guest}'"), "guest Greta Lindqvist");
    assert_eq!(found(here, "'north', 'MÖCKERN'"), "venue Tempodrom");
    assert_eq!(found(here, "'north', 'rigging'"), "crew_member Bo Berg");
    assert_eq!(found(here, "'north', 'shirt-l'"), "merch_product Tour shirt");
    // Slips of the pen, where nothing is spelt so.
    assert_eq!(found(here, "'north', 'sumer nigt'"), "deal Summer Night");
    assert_eq!(
        found(here, "'north', 'lindkvist', kinds => '{contact,guest,venue}'"),
        "contact Greta Lindqvist, guest Greta Lindqvist"
    );
    assert_eq!(found(here, "'north', 'tepmodrom'"), "venue Tempodrom");
    // Nothing in it is taken for an operator.
    assert_eq!(found(here, "'north', $$it's & ! ( | <-> :* \\ %$$"), "nothing");

    // Bad input is told of; what is not there and what is not theirs sound the same.
    for (arguments, message) in [
        ("'north', ' -- '", "there is no word to search for"),
        ("'north', NULL", "there is no word to search for"),
        ("'north', repeat('x', 201)", "the search has 201 characters, at most 200 are looked for"),
        ("'north', 'x', 0", "a search gives 1 to 100 results, not 0"),
        ("'north', 'x', NULL", "a search gives 1 to 100 results, not NULL"),
        ("'north', 'x', kinds => '{deals,order,deal}'", "nothing of the kind deals, order is searched"),
    ] {
        let error = refused(here, &format!("SELECT * FROM live_events.search({arguments})"));
        assert_eq!((error.code(), error.message()), (&SqlState::INVALID_PARAMETER_VALUE, message));
        assert!(error.hint().is_some(), "{arguments}");
    }
    for organization in ["'south'", "'nobody'", "(SELECT organization_id::text FROM live_events.search_documents WHERE false)"] {
        let error = refused(here, &format!("SELECT * FROM live_events.search({organization}, 'summer')"));
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    }
    assert_eq!(number(here, "SELECT count(DISTINCT organization_id) FROM live_events.search_documents"), 1);
    for sql in ["DELETE FROM live_events.search_documents", "UPDATE live_events.search_documents SET title = 'x'"] {
        run(here, sql);
    }
    assert_eq!(found(here, "'north', 'opera'"), "event Opera Gala, production Opera Gala", "members write no documents");
}

#[test]
fn what_is_deleted_erased_or_called_otherwise_is_found_no_more() {
    let (_database, mut client, mut member) = stage("usher_test_live_search_gone");
    let here = &mut client;
    run(
        here,
        "INSERT INTO atlvs.artists (organization_id, name) SELECT id, 'Ensemble ' || n FROM usher.organizations, generate_series(1, 300) AS n WHERE slug = 'north';
         INSERT INTO atlvs.contacts (organization_id, first_name, email) SELECT id, 'Ada', 'ada@example.com' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO gvteway.guests (organization_id, name, email) SELECT id, 'Grace', 'grace@example.com' FROM usher.organizations WHERE slug = 'north'",
    );
    done(here);
    assert_eq!(found(&mut member, "'north', 'ensemble 299'"), "artist Ensemble 299");

    // Written, deleted and made again under the same id, in one transaction and in many: the last word holds.
    run(
        here,
        "BEGIN;
         DELETE FROM atlvs.artists WHERE name = 'Ensemble 1';
         UPDATE atlvs.artists SET name = 'Quartet' WHERE name = 'Ensemble 2';
         CREATE TEMP TABLE again AS SELECT organization_id, id, name FROM atlvs.artists WHERE name LIKE 'Ensemble _%' AND name < 'Ensemble 2';
         DELETE FROM atlvs.artists WHERE id IN (SELECT id FROM again);
         INSERT INTO atlvs.artists (organization_id, id, name) SELECT * FROM again;
         UPDATE atlvs.artists SET name = name || ' again' WHERE id IN (SELECT id FROM again);
         COMMIT;
         DELETE FROM atlvs.artists WHERE name = 'Ensemble 3';
         INSERT INTO atlvs.artists (organization_id, id, name) SELECT organization_id, 'a0000000-0000-4000-8000-000000000001', 'Trio' FROM again LIMIT 1",
    );
    for _ in 0..5 {
        run(
            here,
            "DELETE FROM atlvs.artists WHERE name = 'Trio';
             INSERT INTO atlvs.artists (organization_id, id, name) SELECT organization_id, 'a0000000-0000-4000-8000-000000000001', 'Trio' FROM again LIMIT 1;
             UPDATE atlvs.artists SET name = 'Duo' WHERE name = 'Trio'; UPDATE atlvs.artists SET name = 'Trio' WHERE name = 'Duo'",
        );
    }
    done(here);
    let differ = "SELECT count(*) FROM atlvs.artists AS a FULL JOIN (SELECT * FROM live_events.search_documents WHERE kind = 'artist') AS d ON d.source_id = a.id
                   WHERE a.name IS DISTINCT FROM d.title";
    assert_eq!(number(here, differ), 0);
    assert_eq!(found(&mut member, "'north', 'trio'"), "artist Trio");
    assert_eq!(found(&mut member, "'north', 'duo', kinds => '{artist}'"), "nothing");
    run(here, "DELETE FROM atlvs.artists");
    done(here);
    assert_eq!(number(here, "SELECT count(*) FROM live_events.search_documents WHERE kind = 'artist'"), 0);

    // Whoever is erased is gone from all of it, also where the address stays for some reason.
    assert_eq!(found(&mut member, "'north', 'ada'"), "contact Ada, guest Ada");
    run(here, "UPDATE atlvs.contacts SET erased_at = now(); UPDATE gvteway.guests SET erased_at = now()");
    done(here);
    assert_eq!(number(here, "SELECT count(*) FROM live_events.search_documents"), 0);

    // Rows from before the flows: a backfill finds them.
    run(here, "SELECT usher.disable_flow('live_events.search_venue')");
    run(
        here,
        "INSERT INTO gvteway.venues (organization_id, name) SELECT id, 'Old Mill' FROM usher.organizations WHERE slug = 'north'",
    );
    run(here, "SELECT usher.enable_flow('live_events.search_venue'); SELECT usher.backfill('live_events.search_venue')");
    wait::until_true(here, "SELECT NOT EXISTS (SELECT FROM usher.progress WHERE state = 'running')");
    done(here);
    assert_eq!(found(&mut member, "'north', 'mill'"), "venue Old Mill");
}

/// The function refuses kinds that it does not know: it must know those that the flows make.
#[test]
fn every_kind_that_is_written_can_be_asked_for() {
    let (_database, mut client, _) = stage("usher_test_live_search_kinds");
    let kinds = text(
        &mut client,
        "SELECT string_agg(btrim(definition -> 'set' ->> 'kind', ''''), ',' ORDER BY name) FROM usher.flows WHERE definition -> 'then' ->> 'upsert' = 'live_events.search_documents'",
    );
    assert_eq!(kinds.split(',').count(), 12, "{kinds}");
    assert_eq!(number(&mut client, &format!("SELECT count(*) FROM live_events.search('north', 'x', kinds => '{{{kinds}}}')")), 0);
}

#[test]
fn figures_are_a_minute_old_at_most_of_one_moment_and_for_members_only() {
    let (database, mut client, mut member) = stage("usher_test_live_kpis");
    let here = &mut client;
    assert_eq!(text(here, "SELECT schedule FROM usher.schedules WHERE flow = 'live_events.refresh_kpis'"), "every 1 minute");
    run(
        here,
        "SELECT usher.alter_flow(name, jsonb_set(definition, '{when,schedule}', '\"every 1 seconds\"')) FROM usher.flows WHERE name = 'live_events.refresh_kpis';
         INSERT INTO atlvs.projects (organization_id, code, name) SELECT o.id, 'P-' || n, 'Night ' || n FROM usher.organizations AS o, generate_series(1, 20) AS n WHERE slug IN ('north', 'south');
         INSERT INTO atlvs.deals (organization_id, title, status, value, currency) SELECT id, 'A', 'proposal', 100, 'EUR' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.deals (organization_id, title, status, value, currency) SELECT id, 'B', 'inquiry', 5, 'USD' FROM usher.organizations WHERE slug = 'north';
         INSERT INTO atlvs.deals (organization_id, title, status, value, currency) SELECT id, 'C', 'lost', 7, 'USD' FROM usher.organizations WHERE slug = 'north'",
    );
    // By the clock alone.
    wait::until_true(&mut member, "SELECT COALESCE(sum(value), 0) = 20 FROM live_events.kpis WHERE kpi = 'projects_running'");
    let pipeline = "SELECT string_agg(concat_ws(' ', kpi, currency, value), ', ' ORDER BY kpi, currency) FROM live_events.kpis WHERE kpi IN ('pipeline', 'deals_open')";
    assert_eq!(text(&mut member, pipeline), "deals_open 2, pipeline EUR 100.00, pipeline USD 5.00");

    // Sales go on while figures are counted: in every look, what projects have sold is what the organization has.
    let seller = {
        let mut seller = database.connect();
        std::thread::spawn(move || {
            for n in 0..200 {
                let sql = format!("SELECT usher.ingest_ticket_revenue('north', 'P-{}', NULL, 2, 10)", n % 20 + 1);
                run(&mut seller, &sql);
            }
        })
    };
    let look = "SELECT (SELECT concat_ws('|', sum(f.tickets), sum(f.revenue), sum(f.sales)) FROM live_events.project_kpis AS f),
                       concat_ws('|', (SELECT value FROM live_events.kpis WHERE (system, kpi) = ('gvteway', 'tickets')),
                                      COALESCE((SELECT value FROM live_events.kpis WHERE (system, kpi) = ('gvteway', 'revenue')), 0),
                                      (SELECT value FROM live_events.kpis WHERE (system, kpi) = ('gvteway', 'sales')))";
    let mut looks = Vec::new();
    wait::until(wait::LONG, "the last sale is in the figures", || {
        let row = member.query_one(look, &[]).expect("figures can be read");
        let (of_projects, of_organization): (String, String) = (row.get(0), row.get(1));
        assert_eq!(of_projects, of_organization, "half of a refresh was seen");
        looks.push(of_projects);
        looks.last().is_some_and(|seen| seen == "400|2000.00|200")
    });
    seller.join().expect("sales were made");
    looks.dedup();
    assert!(looks.len() > 1, "figures were seen on their way: {looks:?}");

    // A refund, a project that is gone, and what happens when nothing does.
    run(here, "SELECT usher.reverse_ticket_revenue(id, 'test') FROM usher.ticket_revenue_ingestions ORDER BY id LIMIT 1");
    run(
        here,
        "DELETE FROM atlvs.projects WHERE code = 'P-20' AND organization_id = (SELECT id FROM usher.organizations WHERE slug = 'south')",
    );
    let refunded = "SELECT count(*) FILTER (WHERE kpi = 'refunds' AND value = 10) = 1 AND count(*) FILTER (WHERE kpi = 'revenue' AND value = 1990) = 1 FROM live_events.kpis WHERE system = 'gvteway'";
    wait::until_true(&mut member, refunded);
    wait::until_true(here, "SELECT count(*) = 39 FROM live_events.project_figures");
    let as_it_is = "SELECT string_agg(xmin::text, ',' ORDER BY organization_id) FROM live_events.kpi_snapshots";
    let (before, runs) = (
        text(here, as_it_is),
        "SELECT count(*) FROM usher.sync_jobs WHERE flow = 'live_events.refresh_kpis' AND status = 'synced'",
    );
    let ran = number(here, runs);
    wait::until_true(here, &format!("SELECT ({runs}) >= {ran} + 6"));
    assert_eq!(text(here, as_it_is), before, "what is the same is not written");

    // Members of the organization and nobody else, and nobody writes.
    assert_eq!(number(&mut member, "SELECT count(DISTINCT organization_id) FROM live_events.kpis"), 1);
    assert_eq!(number(&mut member, "SELECT count(*) FROM live_events.project_kpis"), 20);
    assert_eq!(number(&mut member, "SELECT count(*) FROM live_events.project_figures"), 20);
    for table in ["kpi_snapshots", "project_figures"] {
        assert_eq!(member.execute(&format!("DELETE FROM live_events.{table}"), &[]).expect("of no row"), 0);
    }
    let error = refused(&mut member, "SELECT live_events.refresh_kpis(organization_id) FROM live_events.kpi_snapshots");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE);
}
