//! Ticket revenue from outside: once under concurrency and crashes, sums that agree, orders and counts through the worker.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use usher_clients::chaos::Chance;
use usher_clients::postgres::{Config, NoTls};
use usher_clients::{
    Client, Database, SqlState, Uuid, json, number, refused, role, run, serde_json, server, settled, text, value, wait,
};

const LONG: Duration = wait::LONG;

const SELL: &str = "SELECT id FROM usher.ingest_ticket_revenue('acme', $1::text, $2::text, $3::integer, $4::text::numeric, idempotency_key => $5::text)";

fn pack(name: &str) -> (Database, Client, Uuid) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(&mut client, "SELECT usher.install_pack('live_events')");
    let acme = value(&mut client, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &[]);
    (database, client, acme)
}

/// A project with its production and its event, whose slug is the lower-case name.
fn project(client: &mut Client, organization: Uuid, name: &str, capacity: Option<i32>) -> Uuid {
    let id: Uuid = value(
        client,
        "INSERT INTO atlvs.projects (organization_id, code, name) VALUES ($1, 'P-' || $2::text, $2) RETURNING id",
        &[&organization, &name],
    );
    let production: Uuid = value(
        client,
        "INSERT INTO compvss.productions (organization_id, project_ref, name, capacity, status) VALUES ($1, $2, $3, $4, 'cancelled') RETURNING id",
        &[&organization, &id, &name, &capacity],
    );
    client
        .execute(
            "INSERT INTO gvteway.events (organization_id, production_ref, slug, title) VALUES ($1, $2, lower($3), $3)",
            &[&organization, &production, &name],
        )
        .expect("an event");
    id
}

/// What must hold at any time: one journal for each row of revenue, every journal balanced and worth its row, accounts of
/// its own organization.
#[track_caller]
fn books_agree(client: &mut Client) {
    let wrong = text(
        client,
        "SELECT string_agg(concat_ws(' ', i.id, i.gross_amount, j.id, e.debit, e.credit), '; ')
           FROM usher.ticket_revenue_ingestions i
           FULL JOIN atlvs.journals j ON j.organization_id = i.organization_id AND j.source_system = 'ticket_revenue' AND j.source_ref = i.id::text
           LEFT JOIN LATERAL (SELECT coalesce(sum(debit), 0) AS debit, coalesce(sum(credit), 0) AS credit,
                                     coalesce(sum(e.debit - e.credit) FILTER (WHERE a.code = '1100'), 0) AS clearing, count(*) FILTER (WHERE a.id IS NULL) AS foreign
                                FROM atlvs.ledger_entries e LEFT JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
                               WHERE e.organization_id = j.organization_id AND e.journal_id = j.id) AS e ON true
          WHERE i.id IS NULL OR j.id IS NULL OR e.debit <> e.credit OR e.clearing <> i.gross_amount OR e.foreign > 0
             OR j.currency <> i.currency OR j.project_id IS DISTINCT FROM i.project_id",
    );
    assert_eq!(wrong, "", "every row of revenue has one balanced journal worth the same");
}

#[test]
fn twenty_callers_with_one_key_make_one_sale() {
    let (database, mut client, acme) = pack("usher_test_revenue_once");
    let here = &mut client;
    project(here, acme, "One", None);
    // Also the very first sale of an organization, when its accounts are not there yet.
    for (round, payload) in [(1, json!({})), (2, json!({})), (3, json!({"reference": "R-3"}))] {
        let key = (round < 3).then(|| format!("key {round}"));
        let threads: Vec<_> = (0..20)
            .map(|_| {
                let (mut client, key, payload) = (database.connect(), key.clone(), payload.clone());
                thread::spawn(move || {
                    let sql = "SELECT id, repeated FROM usher.ingest_ticket_revenue('acme', 'P-One', 'one', 2, 99.50, payload => $1, idempotency_key => $2)";
                    let row = client.query_one(sql, &[&payload, &key]).expect("every call is answered with the sale");
                    (row.get::<_, Uuid>(0), row.get::<_, bool>(1))
                })
            })
            .collect();
        let answers: Vec<(Uuid, bool)> = threads.into_iter().map(|thread| thread.join().expect("a caller")).collect();
        assert!(answers.iter().all(|(id, _)| *id == answers[0].0), "all got the same sale");
        assert_eq!(answers.iter().filter(|(_, repeated)| !repeated).count(), 1, "one call has made it");
        assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions"), round);
    }
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals"), 3);
    books_agree(here);

    // The same for taking it back.
    let sale: Uuid = value(here, "SELECT id FROM usher.ticket_revenue_ingestions WHERE idempotency_key = 'key 1'", &[]);
    let threads: Vec<_> = (0..20)
        .map(|_| {
            let mut client = database.connect();
            thread::spawn(move || {
                let sql = "SELECT id, repeated FROM usher.reverse_ticket_revenue($1, 'twice')";
                let row = client.query_one(sql, &[&sale]).expect("every call is answered with the reversal");
                (row.get::<_, Uuid>(0), row.get::<_, bool>(1))
            })
        })
        .collect();
    let answers: Vec<(Uuid, bool)> = threads.into_iter().map(|thread| thread.join().expect("a caller")).collect();
    assert!(answers.iter().all(|(id, _)| *id == answers[0].0));
    assert_eq!(answers.iter().filter(|(_, repeated)| !repeated).count(), 1);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals WHERE reverses IS NOT NULL"), 1);
    books_agree(here);
}

#[test]
fn callers_with_the_same_many_sales_take_each_in_once() {
    let (database, mut client, acme) = pack("usher_test_revenue_many");
    project(&mut client, acme, "One", None);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let mut mine = database.connect();
            std::thread::spawn(move || {
                let mut made = 0;
                for round in 0..20 {
                    let mut keys: Vec<u32> = (0..60).map(|key| round * 50 + key).collect();
                    // Crosswise: whoever takes them in the order that they come in would meet the others in a deadlock.
                    keys.rotate_left(caller * 17);
                    if caller % 2 == 1 {
                        keys.reverse();
                    }
                    let sales: Vec<_> = keys
                        .iter()
                        .map(|key| json!({"project_code": "P-One", "ticket_count": 1, "gross_amount": 10, "idempotency_key": format!("key {key}")}))
                        .collect();
                    let sql = "SELECT count(*) FILTER (WHERE NOT repeated) FROM usher.ingest_ticket_revenue_batch('acme', $1::text::jsonb)";
                    made += value::<i64>(&mut mine, sql, &[&json!(sales).to_string()]);
                }
                made
            })
        })
        .collect();
    let made: i64 = callers.into_iter().map(|caller| caller.join().expect("no caller fails")).sum();
    assert_eq!((made, number(&mut client, "SELECT count(*) FROM usher.ticket_revenue_ingestions")), (1010, 1010));
    books_agree(&mut client);
}

#[test]
fn equal_sales_at_once_see_each_other() {
    let (database, mut client, acme) = pack("usher_test_revenue_equal");
    let here = &mut client;
    project(here, acme, "One", None);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let (name, heard) = (database.name.clone(), notices.clone());
            thread::spawn(move || {
                let mut client = listening(&name, heard);
                run(&mut client, "SELECT usher.ingest_ticket_revenue('acme', 'P-One', 'one', 1, 40)");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a caller"));
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions"), 10, "none is swallowed");
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE possible_duplicate_of IS NOT NULL"), 9);
    wait::until(LONG, "nine notices were heard", || notices.lock().expect("notices").len() == 9);
    assert!(notices.lock().expect("notices").iter().all(|line| line.contains("is taken in as another one")));
    books_agree(here);

    // A bulk load without keys takes no lock for each sale: the server's lock table would not hold them.
    run(
        here,
        "SELECT count(s.id) FROM generate_series(1, 20000) AS n, LATERAL usher.ingest_ticket_revenue('acme', 'P-One', 'bulk', 1, n) AS s",
    );
    assert_eq!(
        number(
            here,
            "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE event_code = 'bulk' AND possible_duplicate_of IS NULL"
        ),
        20_000
    );
}

fn listening(database: &str, heard: Arc<Mutex<Vec<String>>>) -> Client {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    Config::new()
        .host(&variable("PGHOST"))
        .port(variable("PGPORT").parse().unwrap_or(5432))
        .user(&variable("PGUSER"))
        .dbname(database)
        .notice_callback(move |notice| heard.lock().expect("notices").push(notice.message().to_owned()))
        .connect(NoTls)
        .expect("a connection")
}

#[test]
fn a_thousand_random_sales_add_up() {
    let (_database, mut client, acme) = pack("usher_test_revenue_sums");
    let here = &mut client;
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    for (organization, name) in [(acme, "One"), (acme, "Two"), (other, "Three")] {
        project(here, organization, name, Some(1000));
    }
    let mut random = Chance::new(20_261_121);
    let currencies = [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("EUR", 2)];
    let parts = ["tickets", "merch", "parking", "fees", "tax"];
    let (mut sold, mut taken_back) = (Vec::new(), 0);
    // Some come by themselves, some gather until many are taken in by one call.
    let mut gathered: std::collections::BTreeMap<&str, Vec<(serde_json::Value, &str, u64)>> = std::collections::BTreeMap::new();
    let mut minor_units = std::collections::BTreeMap::new();
    for n in 0..1000_i32 {
        let (currency, digits) = currencies[random.below(5) as usize];
        let decimal = |units: u64| {
            format!("{}.{:0width$}", units / 10_u64.pow(digits), units % 10_u64.pow(digits), width = digits as usize)
        };
        let money = |units: u64| if digits == 0 { units.to_string() } else { decimal(units) };
        // Broken down into parts that sum up, to the last minor unit, some as JSON numbers and some as text; or not at all.
        let mut breakdown = serde_json::Map::new();
        let mut units = 0;
        if random.below(4) > 0 {
            for part in parts {
                if random.below(2) == 0 {
                    let share = random.below(1_000_000);
                    units += share;
                    let text = money(share);
                    breakdown.insert(
                        part.into(),
                        if random.below(2) == 0 { json!(text) } else { serde_json::from_str(&text).expect("a number") },
                    );
                }
            }
        } else {
            units = random.below(10_000_000);
        }
        let payload =
            if breakdown.is_empty() { json!({"reference": n}) } else { json!({"reference": n, "breakdown": breakdown}) };
        let (slug, code, event) =
            [("acme", Some("P-One"), None), ("acme", None, Some("two")), ("other", Some("P-Three"), Some("three"))]
                [random.below(3) as usize];
        let count = random.below(9) as i32;
        *minor_units.entry((slug, currency)).or_insert(0_i64) += units as i64;
        if random.below(2) == 0 {
            let gross: serde_json::Value = serde_json::from_str(&money(units)).expect("a number");
            let sale = json!({"project_code": code, "event_code": event, "ticket_count": count, "gross_amount": gross, "currency": currency, "payload": payload});
            gathered.entry(slug).or_default().push((sale, currency, units));
        } else {
            let sql =
                "SELECT id FROM usher.ingest_ticket_revenue($1, $2, $3, $4, $5::text::numeric, $6, payload => $7::text::jsonb)";
            let id: Uuid = value(here, sql, &[&slug, &code, &event, &count, &money(units), &currency, &payload.to_string()]);
            sold.push((id, slug, currency, units));
        }
        for (slug, sales) in &mut gathered {
            if sales.len() < 20 && n < 999 {
                continue;
            }
            let all = json!(sales.iter().map(|(sale, ..)| sale).collect::<Vec<_>>()).to_string();
            let sql = "SELECT array_agg(id ORDER BY sale) FROM usher.ingest_ticket_revenue_batch($1, $2::text::jsonb) WHERE NOT repeated";
            let ids: Option<Vec<Uuid>> = value(here, sql, &[slug, &all]);
            let ids = ids.unwrap_or_default();
            assert_eq!(ids.len(), sales.len());
            sold.extend(ids.into_iter().zip(sales.drain(..)).map(|(id, (_, currency, units))| (id, *slug, currency, units)));
        }
        if random.below(5) == 0 && !sold.is_empty() {
            let (id, slug, currency, units) = sold.swap_remove(random.below(sold.len() as u64) as usize);
            value::<Uuid>(here, "SELECT id FROM usher.reverse_ticket_revenue($1, 'random')", &[&id]);
            *minor_units.entry((slug, currency)).or_insert(0) -= units as i64;
            taken_back += 1;
        }
    }
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions"), 1000 + taken_back);
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.journals"), 1000 + taken_back);
    books_agree(here);
    // The sums that were kept here, outside of the database, to the last minor unit.
    for ((slug, currency), units) in minor_units {
        let digits = currencies.iter().find(|(code, _)| *code == currency).map_or(0, |(_, digits)| *digits as i32);
        let sql =
            "SELECT (coalesce(sum(i.gross_amount), 0) * 10::numeric ^ $3::integer)::bigint FROM usher.ticket_revenue_ingestions i
                     JOIN usher.organizations o ON o.id = i.organization_id WHERE o.slug = $1 AND i.currency = $2";
        assert_eq!(value::<i64>(here, sql, &[&slug, &currency, &digits]), units, "{slug} {currency}: revenue");
        let sql = "SELECT (coalesce(sum(e.debit - e.credit), 0) * 10::numeric ^ $3::integer)::bigint FROM atlvs.ledger_entries e
                     JOIN atlvs.journals j ON j.organization_id = e.organization_id AND j.id = e.journal_id
                     JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
                     JOIN usher.organizations o ON o.id = e.organization_id WHERE o.slug = $1 AND j.currency = $2 AND a.code = '1100'";
        assert_eq!(value::<i64>(here, sql, &[&slug, &currency, &digits]), units, "{slug} {currency}: clearing");
    }
    // W43: whatever came in, the productions show it.
    settled(here, LONG);
    counts_agree(here);
}

#[track_caller]
fn counts_agree(client: &mut Client) {
    let wrong = text(
        client,
        "SELECT string_agg(concat_ws(' ', p.name, p.tickets_sold, i.sold, p.sell_through), '; ') FROM compvss.productions p
           CROSS JOIN LATERAL (SELECT coalesce(sum(ticket_count), 0) AS sold FROM usher.ticket_revenue_ingestions i
                                WHERE i.organization_id = p.organization_id AND i.project_id = p.project_ref) AS i
          WHERE p.tickets_sold <> i.sold OR p.sell_through IS DISTINCT FROM round(i.sold::numeric / p.capacity, 4)",
    );
    assert_eq!(wrong, "", "tickets sold are those of the revenue");
    assert_eq!(number(client, "SELECT count(*) FROM usher.dead_letters"), 0);
}

/// An order of two tickets, one shirt and parking, with fees and tax: 2 × 30 + 25 + 10, and 4.50, and 8.05.
fn order(client: &mut Client, organization: Uuid, event: &str, number: &str, status: &str) -> Uuid {
    let mut transaction = client.transaction().expect("BEGIN");
    let id: Uuid = transaction
        .query_one(
            "INSERT INTO gvteway.orders (organization_id, event_id, number, status, subtotal, fees, tax, total)
             SELECT $1, id, $3, $4, 95, 4.50, 8.05, 107.55 FROM gvteway.events WHERE organization_id = $1 AND slug = $2 RETURNING id",
            &[&organization, &event, &number, &status],
        )
        .expect("an order")
        .get(0);
    transaction
        .execute(
            "INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price)
             VALUES ($1, $2, 'ticket', 2, 30), ($1, $2, 'merch', 1, 25), ($1, $2, 'parking', 1, 10)",
            &[&organization, &id],
        )
        .expect("its items");
    transaction.commit().expect("COMMIT");
    id
}

#[test]
fn w16_paid_orders_are_booked_and_refunds_reversed() {
    let (_database, mut client, acme) = pack("usher_test_w16");
    let here = &mut client;
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    project(here, acme, "One", Some(100));
    project(here, other, "Two", None);
    order(here, acme, "one", "A-1", "pending");
    order(here, acme, "one", "A-2", "paid");
    order(here, other, "two", "A-1", "paid");
    for n in 3..=40 {
        order(here, acme, "one", &format!("A-{n}"), "pending");
    }
    run(here, "UPDATE gvteway.orders SET status = 'paid' WHERE status = 'pending' AND number <> 'A-1'");
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions"), 40, "what is not paid is no revenue");
    books_agree(here);
    let sums = "SELECT string_agg(a.code || ' ' || s.amount, ', ' ORDER BY a.code) FROM atlvs.ledger_accounts a
                  JOIN LATERAL (SELECT sum(debit - credit) AS amount FROM atlvs.ledger_entries e WHERE e.organization_id = a.organization_id AND e.account_id = a.id) AS s ON true
                 WHERE a.organization_id = $1";
    assert_eq!(
        value::<String>(here, sums, &[&other]),
        "1100 107.55, 2200 -8.05, 4000 -60.00, 4100 -25.00, 4200 -10.00, 4300 -4.50"
    );
    assert_eq!(
        number(here, "SELECT (sum(total) * 100)::bigint FROM gvteway.orders WHERE status = 'paid'"),
        number(here, "SELECT (sum(gross_amount) * 100)::bigint FROM usher.ticket_revenue_ingestions")
    );
    counts_of(here, "One", 78, "0.7800");

    // Paid again changes nothing, whoever writes what; a change beside the status neither.
    run(here, "UPDATE gvteway.orders SET status = 'paid', guest_ref = gen_random_uuid() WHERE status = 'paid'");
    // Refunds: some at once with their payment, so that the reversal may come to the worker before the sale.
    run(
        here,
        "UPDATE gvteway.orders SET status = 'paid' WHERE number = 'A-1' AND status = 'pending';
         UPDATE gvteway.orders SET status = 'refunded' WHERE number IN ('A-1', 'A-2', 'A-3') AND organization_id <> (SELECT id FROM usher.organizations WHERE slug = 'other')",
    );
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE reverses IS NOT NULL"), 3);
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE reverses IS NULL"), 41);
    assert_eq!(
        number(here, "SELECT (sum(total) * 100)::bigint FROM gvteway.orders WHERE status = 'paid'"),
        number(here, "SELECT (sum(gross_amount) * 100)::bigint FROM usher.ticket_revenue_ingestions")
    );
    books_agree(here);
    counts_of(here, "One", 74, "0.7400");

    // The reversal first: the flow that books is off while the order is paid and refunded.
    run(here, "SELECT usher.disable_flow('live_events.ingest_paid_order')");
    order(here, acme, "one", "B-1", "pending");
    run(here, "UPDATE gvteway.orders SET status = 'paid' WHERE number = 'B-1'");
    run(here, "UPDATE gvteway.orders SET status = 'refunded' WHERE number = 'B-1'");
    wait::until_true(here, "SELECT count(*) = 4 FROM usher.ticket_revenue_ingestions WHERE reverses IS NOT NULL");
    run(here, "SELECT usher.enable_flow('live_events.ingest_paid_order')");
    settled(here, LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE payload ->> 'order' = 'B-1'"), 2);
    books_agree(here);
    counts_of(here, "One", 74, "0.7400");
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0);
    run(here, "UPDATE compvss.productions SET capacity = NULL");
    assert_eq!(text(here, "SELECT string_agg(sell_through::text, '') FROM compvss.productions"), "");
}

#[track_caller]
fn counts_of(client: &mut Client, production: &str, sold: i32, through: &str) {
    let sql = "SELECT tickets_sold || ' ' || sell_through FROM compvss.productions WHERE name = $1";
    assert_eq!(value::<String>(client, sql, &[&production]), format!("{sold} {through}"));
}

#[test]
fn w43_counts_a_burst_of_sales() {
    let (database, mut client, acme) = pack("usher_test_w43");
    let here = &mut client;
    project(here, acme, "One", Some(10_000));
    project(here, acme, "Two", Some(10_000));
    // Many at once for two projects: of each batch one row per project counts, and it must count all.
    let sellers: Vec<_> = (0..4)
        .map(|seller| {
            let mut client = database.connect();
            thread::spawn(move || {
                for n in 0..250 {
                    let (code, event) = if n % 2 == 0 { ("P-One", "one") } else { ("P-Two", "two") };
                    let id: Uuid = value(&mut client, SELL, &[&code, &event, &3, &"15", &format!("{seller} {n}")]);
                    if n % 10 == 0 {
                        value::<Uuid>(&mut client, "SELECT id FROM usher.reverse_ticket_revenue($1, 'changed mind')", &[&id]);
                    }
                }
            })
        })
        .collect();
    sellers.into_iter().for_each(|seller| seller.join().expect("a seller"));
    settled(here, LONG);
    counts_agree(here);
    counts_of(here, "One", 1200, "0.1200");
    counts_of(here, "Two", 1500, "0.1500");
    // A production that is made after the sales starts with them.
    let late: Uuid = value(
        here,
        "INSERT INTO atlvs.deals (organization_id, title, value, event_date, status) VALUES ($1, 'Late', 1, '2031-01-01', 'won') RETURNING id",
        &[&acme],
    );
    settled(here, LONG);
    run(here, "SELECT usher.disable_flow('live_events.update_production_from_revenue')");
    let code: String = value(here, "SELECT code FROM atlvs.projects WHERE deal_id = $1", &[&late]);
    value::<Uuid>(here, SELL, &[&code, &None::<String>, &7, &"1", &"late"]);
    run(here, "DELETE FROM gvteway.events WHERE title = 'Late'; DELETE FROM compvss.productions WHERE name = 'Late'");
    let again = "SELECT usher.preview_flow('live_events.create_production_from_project', to_jsonb(p)) ->> 'tickets_sold' FROM atlvs.projects p WHERE p.name = 'Late'";
    assert_eq!(text(here, again), "7");
}

#[test]
fn a_killed_backend_leaves_all_or_nothing() {
    let (database, mut client, acme) = pack("usher_test_revenue_kill");
    project(&mut client, acme, "One", None);
    value::<Uuid>(&mut client, SELL, &[&"P-One", &"one", &1, &"10", &"before"]);
    // Somebody holds the journals: a sale stands between its row and its booking.
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; LOCK TABLE atlvs.journals IN EXCLUSIVE MODE");
    let mut seller = database.connect();
    let victim: i32 = value(&mut seller, "SELECT pg_backend_pid()", &[]);
    let selling = thread::spawn(move || seller.query_one(SELL, &[&"P-One", &"one", &1, &"20", &"killed"]).is_err());
    wait::until_true(
        &mut client,
        &format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {victim} AND NOT granted AND relation = 'atlvs.journals'::regclass)"
        ),
    );
    let mut client = server::kill_and_recover(&database, &mut holder, victim);
    assert!(selling.join().expect("the seller"), "its call was not answered");
    assert_eq!(text(&mut client, "SELECT string_agg(idempotency_key, ',') FROM usher.ticket_revenue_ingestions"), "before");
    books_agree(&mut client);
    // Nothing is in the way of trying again.
    value::<Uuid>(&mut client, SELL, &[&"P-One", &"one", &1, &"20", &"killed"]);

    // At random times, four sellers at work: what was answered is there, and everything that is there is booked.
    for round in 0..3 {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let sellers: Vec<_> = (0..4)
            .map(|seller| {
                let (mut client, answered) = (database.connect(), answered.clone());
                thread::spawn(move || {
                    for n in 0.. {
                        let key = format!("{round} {seller} {n}");
                        match client.query_one(SELL, &[&"P-One", &"one", &1, &"5", &key]) {
                            Ok(_) => answered.lock().expect("keys").push(key),
                            Err(_) => break,
                        }
                    }
                })
            })
            .collect();
        wait::until(LONG, "some sales were answered", || answered.lock().expect("keys").len() > 60 + round * 17);
        let victims = server::backends(&database);
        let victim = victims.into_iter().next_back().expect("a session");
        client = server::kill_and_recover(&database, &mut client, victim);
        sellers.into_iter().for_each(|seller| seller.join().expect("a seller"));
        let answered = answered.lock().expect("keys");
        let lost: i64 = value(
            &mut client,
            "SELECT count(*) FROM unnest($1::text[]) AS k WHERE NOT EXISTS (SELECT FROM usher.ticket_revenue_ingestions WHERE idempotency_key = k)",
            &[&*answered],
        );
        assert_eq!(lost, 0, "an answered sale is there");
        books_agree(&mut client);
    }
}

#[test]
fn only_the_own_organization_from_a_flow() {
    let (database, mut client, acme) = pack("usher_test_revenue_flow");
    let here = &mut client;
    let other: Uuid = value(here, "SELECT usher.create_organization('other')", &[]);
    project(here, acme, "One", None);
    project(here, other, "Two", None);
    role(here, "clients_till", "NOLOGIN");
    run(
        here,
        "GRANT usher_member TO clients_till;
         CREATE TABLE public.tills (organization_id uuid, id integer PRIMARY KEY, seller text, project text, amount numeric)",
    );
    usher_clients::flow(
        here,
        "till",
        &json!({
            "from": "till", "to": "atlvs", "run_as": "clients_till", "retry": {"delays": []}, "when": {"change": "public.tills", "on": ["insert"]},
            "then": {"call": "usher.ingest_ticket_revenue"},
            "set": {"organization": "new.seller", "project_code": "new.project", "event_code": "NULL::text", "ticket_count": 1, "gross_amount": "new.amount",
                    "source": "'till'", "idempotency_key": "'till:' || new.id"}
        }),
    );
    here.execute("INSERT INTO public.tills VALUES ($1, 1, 'acme', 'P-One', 12), ($1, 2, 'other', 'P-Two', 12)", &[&acme])
        .expect("tills");
    settled(here, LONG);
    assert_eq!(
        text(here, "SELECT string_agg(idempotency_key || ' ' || gross_amount, ',') FROM usher.ticket_revenue_ingestions"),
        "till:1 12.00"
    );
    let reason = text(here, "SELECT error_message FROM usher.dead_letters");
    assert!(reason.contains("42501"), "{reason}");
    books_agree(here);
    // The role of the pack cannot be borrowed: who is nobody's admin cannot call at all.
    role(here, "clients_nobody", "LOGIN");
    run(here, "GRANT usher_member TO clients_nobody");
    let mut nobody = database.connect_as("clients_nobody");
    for sql in [
        "SELECT usher.ingest_ticket_revenue('acme', 'P-One', NULL, 1, 1)",
        "SELECT usher.ingest_ticket_revenue_batch('acme', '[]')",
        "SELECT gvteway.ingest_orders('[]')",
        "SELECT atlvs.account_ids(gen_random_uuid(), '{1}')",
        "INSERT INTO atlvs.journals (organization_id, entry_on, memo, currency, source_system, source_ref) VALUES (gen_random_uuid(), now(), 'x', 'USD', 'x', 'x')",
    ] {
        assert_eq!(refused(&mut nobody, sql).code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
}
