//! A show day of the pack live_events: doors, shop, stage and stores write at once, guests look, and the office is told of it all.

use crate::{Figure, Gate, level, median, size};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use usher_clients::season::Season;
use usher_clients::{Client, Database, Uuid, number, run, settled, value, wait};

pub const METHOD: &str = "50,000 scans, 5,000 orders (each an order, its lines and its payment in one transaction), 200 changes of the schedule and 1,000 of the stores a \
minute together, each at its pace, for BENCH_SHOW_SECONDS, over 20 shows of today, in a season of 20,000 orders; of the schedule two items of five are public, and each change of these is told to all who hold a ticket for the show; against the same writers with all flows of the pack \
off, half of that before and half after, at most a minute in all. Guest-visible: from sending the change until another connection has seen the time of the set, \
the announcement, or the stock. Lag: from the end of the writers until no job is left. Flat out: the same writers without a pace, 10 s each way";

/// A minute's writes, and how many connections make them.
const KINDS: [(&str, f64, u32); 4] =
    [("scans", 50_000.0, 4), ("orders", 5_000.0, 2), ("schedule", 200.0, 1), ("stores", 1_000.0, 1)];
const SHOWS: i64 = 20;
/// Items in the schedule of a show that change, and articles that only the stores count.
const SETS: i64 = 5;
/// The others are the crew's: nobody is told of them.
const PUBLIC: i64 = 2;
const ARTICLES: i64 = 20;

/// What writers choose from.
struct Stage {
    organization: Uuid,
    events: Vec<Uuid>,
    guests: Vec<Uuid>,
    tickets: Vec<Uuid>,
    /// With whether guests see them.
    sets: Vec<(Uuid, bool)>,
    articles: Vec<(Uuid, String)>,
}

/// A change that somebody waits to see.
struct Awaited {
    what: What,
    key: String,
    /// The number that is to be seen, or a later one.
    number: i64,
    sent: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    SetTime,
    Announcement,
    Stock,
}

type Waiting = Arc<Mutex<Vec<Awaited>>>;

pub fn measure(database: &Database) -> Vec<Figure> {
    let spell = Duration::from_secs(size("BENCH_SHOW_SECONDS") as u64);
    let mut client = database.connect();
    let here = &mut client;
    let stage = Arc::new(prepare(here));
    let bare = (spell / 2).min(Duration::from_secs(30));

    let mut theirs = Vec::new();
    let mut flat_theirs = Vec::new();
    switch(here, false);
    level(here);
    theirs.push(day(database, &stage, bare, true, 1, None));
    flat_theirs.push(day(database, &stage, Duration::from_secs(10), false, 2, None));

    switch(here, true);
    run(here, "DELETE FROM usher.dead_letters");
    let before = state(here, stage.organization);
    level(here);
    let waiting = Waiting::default();
    let over = Arc::new(AtomicBool::new(false));
    let watcher = watch(database, stage.organization, &waiting, &over);
    let ours = day(database, &stage, spell, true, 3, Some(&waiting));
    let ended = Instant::now();
    settled(here, Duration::from_secs(600));
    let lag = ended.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let seen = watcher.join().expect("the watcher has panicked");
    let after = state(here, stage.organization);
    let written = number_of(&ours, "scans");
    let sold = number_of(&ours, "orders");
    let told = after.told - before.told;
    let (dead, lost, off) =
        (after.dead, (written - (after.scanned - before.scanned)).abs() + (sold - (after.sales - before.sales)).abs(), after.off);

    let flat_ours = day(database, &stage, Duration::from_secs(10), false, 4, None);
    settled(here, Duration::from_secs(600));
    switch(here, false);
    level(here);
    theirs.push(day(database, &stage, bare, true, 5, None));
    flat_theirs.push(day(database, &stage, Duration::from_secs(10), false, 6, None));
    switch(here, true);

    let mut figures = Vec::new();
    for (n, (name, ..)) in KINDS.iter().enumerate() {
        let mean = |days: &[Vec<(i64, f64)>]| days.iter().map(|day| day[n].1).sum::<f64>() / days.len() as f64;
        figures.push(Figure::new(format!("show_day_{name}"), ours[n].1, mean(&theirs), "/s", Gate::AtLeast(0.5)));
        figures.push(Figure::new(format!("show_day_{name}_flat_out"), flat_ours[n].1, mean(&flat_theirs), "/s", Gate::None));
    }
    let of = |what: What| seen.iter().filter(|(of, _)| *of == what).map(|(_, ms)| *ms).collect::<Vec<f64>>();
    for (name, mut times) in
        [("set_times", of(What::SetTime)), ("announcements", of(What::Announcement)), ("stock", of(What::Stock))]
    {
        times.sort_by(f64::total_cmp);
        let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
        figures.push(Figure::limit(format!("show_day_{name}_p50"), median(times), 100.0, "ms", Gate::None));
        figures.push(Figure::limit(format!("show_day_{name}_p99"), p99, 100.0, "ms", Gate::AtMost(1.0)));
    }
    figures.push(Figure::new(
        "show_day_inbox_messages",
        told as f64 / spell.as_secs_f64(),
        number_of(&ours, "schedule") as f64 / spell.as_secs_f64(),
        "/s",
        Gate::None,
    ));
    figures.push(Figure::limit("show_day_lag", lag, 2.0, "s", Gate::AtMost(1.0)));
    // None is the gate: one is as bad as many.
    figures.push(Figure::limit("show_day_dead", dead as f64, 1.0, "jobs", Gate::AtMost(0.0)));
    figures.push(Figure::limit("show_day_not_counted_or_booked", lost as f64, 1.0, "rows", Gate::AtMost(0.0)));
    figures.push(Figure::limit("show_day_books_off", off as f64, 1.0, "figures", Gate::AtMost(0.0)));
    figures
}

fn number_of(day: &[(i64, f64)], name: &str) -> i64 {
    day[KINDS.iter().position(|(kind, ..)| *kind == name).expect("a kind")].0
}

/// What the office knows.
struct State {
    scanned: i64,
    sales: i64,
    told: i64,
    dead: i64,
    off: i64,
}

fn state(here: &mut Client, organization: Uuid) -> State {
    State {
        scanned: value(here, "SELECT COALESCE(sum(scanned), 0)::bigint FROM compvss.access_counts WHERE organization_id = $1", &[&organization]),
        sales: value(here, "SELECT count(*) FROM usher.ticket_revenue_ingestions WHERE organization_id = $1", &[&organization]),
        told: number(here, "SELECT count(*) FROM usher.notifications"),
        dead: number(here, "SELECT count(*) FROM usher.dead_letters"),
        off: value(
            here,
            "SELECT count(*) FROM (SELECT j.currency FROM atlvs.journals AS j JOIN atlvs.ledger_entries AS e ON e.organization_id = j.organization_id AND e.journal_id = j.id
                                    WHERE j.organization_id = $1 GROUP BY j.currency HAVING sum(e.debit) <> sum(e.credit)) AS x",
            &[&organization],
        ),
    }
}

fn switch(here: &mut Client, on: bool) {
    let call = if on { "enable_flow" } else { "disable_flow" };
    run(
        here,
        &format!(
            "SELECT usher.{call}(name) FROM usher.flows WHERE pack = 'live_events' AND strpos(name, ':') = 0 AND enabled <> {on}"
        ),
    );
}

fn prepare(here: &mut Client) -> Stage {
    run(here, "SELECT usher.install_pack('live_events')");
    switch(here, false);
    Season { seed: 71, organizations: 1, deals: 100, orders: 20_000, booked: true }.make(here);
    let organization: Uuid = value(here, "SELECT id FROM usher.organizations WHERE slug = 'season-71-0'", &[]);
    // Twenty shows of today, with tickets and holders, a schedule, and articles that nobody buys.
    run(
        here,
        &format!(
            "BEGIN;
             CREATE TEMP TABLE today ON COMMIT DROP AS SELECT e.id AS event, e.production_ref AS production FROM gvteway.events AS e WHERE e.organization_id = '{organization}' ORDER BY e.slug LIMIT {SHOWS};
             INSERT INTO compvss.schedule_items (organization_id, production_id, kind, title, artist, stage, starts_at, ends_at, public)
             SELECT '{organization}', t.production, 'set', 'Set ' || n, 'Artist ' || n, 'Main', date_trunc('minute', now()), date_trunc('minute', now()) + interval '1 hour', n <= {PUBLIC}
               FROM today AS t, generate_series(1, {SETS}) AS n;
             INSERT INTO gvteway.merch_products (organization_id, sku, title, price) SELECT '{organization}', 'STORE-' || n, 'Counted ' || n, 1 FROM generate_series(1, {ARTICLES}) AS n;
             INSERT INTO atlvs.inventory_items (organization_id, sku, name) SELECT '{organization}', 'STORE-' || n, 'Counted ' || n FROM generate_series(1, {ARTICLES}) AS n;
             INSERT INTO gvteway.tickets (organization_id, item_id, code)
             SELECT i.organization_id, i.id, 'T-' || i.id || n FROM today AS t JOIN gvteway.orders AS o ON o.organization_id = '{organization}' AND o.event_id = t.event AND o.status = 'paid'
               JOIN gvteway.order_items AS i ON i.organization_id = o.organization_id AND i.order_id = o.id AND i.kind = 'ticket', generate_series(1, i.qty) AS n;
             COMMIT"
        ),
    );
    // What is there reaches the guests before the day begins.
    switch(here, true);
    run(
        here,
        &format!(
            "UPDATE compvss.schedule_items SET title = title || '.' WHERE organization_id = '{organization}'; UPDATE atlvs.inventory_items SET on_hand = 1 WHERE organization_id = '{organization}' AND sku LIKE 'STORE-%'"
        ),
    );
    settled(here, Duration::from_secs(300));
    let ids = |here: &mut Client, sql: &str| {
        here.query(&sql.replace('@', &organization.to_string()), &[])
            .expect("ids")
            .iter()
            .map(|row| row.get(0))
            .collect::<Vec<Uuid>>()
    };
    let articles = here
        .query(
            "SELECT id, sku FROM atlvs.inventory_items WHERE organization_id = $1 AND sku LIKE 'STORE-%' ORDER BY sku",
            &[&organization],
        )
        .expect("articles")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    Stage {
        organization,
        events: ids(here, &format!("SELECT id FROM gvteway.events WHERE organization_id = '@' ORDER BY slug LIMIT {SHOWS}")),
        guests: ids(here, "SELECT id FROM gvteway.guests WHERE organization_id = '@' ORDER BY id"),
        tickets: ids(here, "SELECT id FROM gvteway.tickets WHERE organization_id = '@' ORDER BY id"),
        sets: here
            .query(
                "SELECT id, public FROM compvss.schedule_items WHERE organization_id = $1 AND kind = 'set' ORDER BY id",
                &[&organization],
            )
            .expect("the schedule")
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect(),
        articles,
    }
}

/// All writers for a spell; of each kind how many writes, and how many a second.
fn day(
    database: &Database,
    stage: &Arc<Stage>,
    spell: Duration,
    paced: bool,
    run: i64,
    waiting: Option<&Waiting>,
) -> Vec<(i64, f64)> {
    let begin = Instant::now() + Duration::from_millis(300);
    let mut writers: Vec<Vec<JoinHandle<(i64, f64)>>> = Vec::new();
    for (kind, per_minute, connections) in KINDS {
        let pause = paced.then(|| Duration::from_secs_f64(60.0 / per_minute * f64::from(connections)));
        writers.push(
            (0..connections)
                .map(|writer| {
                    let (mut client, stage, waiting) = (database.connect(), stage.clone(), waiting.cloned());
                    let first = begin + pause.unwrap_or_default() * writer / connections;
                    // Numbers of different days and writers are far apart.
                    let base = run * 100_000_000 + i64::from(writer) * 10_000_000;
                    thread::spawn(move || {
                        let mut write = writer_of(kind, &mut client, &stage, waiting.as_ref());
                        let mut done = 0;
                        loop {
                            let due = pause.map_or(first, |pause| first + pause * done as u32);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            if Instant::now() >= begin + spell {
                                break;
                            }
                            write(&mut client, base + done);
                            done += 1;
                        }
                        (done, done as f64 / begin.elapsed().as_secs_f64())
                    })
                })
                .collect(),
        );
    }
    writers
        .into_iter()
        .map(|of_kind| {
            of_kind
                .into_iter()
                .map(|writer| writer.join().expect("a writer has panicked"))
                .fold((0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        })
        .collect()
}

type Write = Box<dyn FnMut(&mut Client, i64)>;

fn writer_of(kind: &str, client: &mut Client, stage: &Arc<Stage>, waiting: Option<&Waiting>) -> Write {
    let (stage, waiting) = (stage.clone(), waiting.cloned());
    let mut prepare = |sql: &str| client.prepare(sql).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    let tell = move |what, key: String, number, sent| {
        if let Some(waiting) = &waiting {
            waiting.lock().expect("nobody has panicked").push(Awaited { what, key, number, sent });
        }
    };
    fn pick(from: &[Uuid], n: i64) -> &Uuid {
        // Any spread will do: each writer's numbers count up.
        &from[(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % from.len()]
    }
    match kind {
        "scans" => {
            let scan = prepare("INSERT INTO gvteway.ticket_scans (organization_id, ticket_id, gate) VALUES ($1, $2, $3)");
            Box::new(move |client, n| {
                let gate = format!("Gate {}", n % 8);
                client.execute(&scan, &[&stage.organization, pick(&stage.tickets, n), &gate]).expect("a scan");
            })
        }
        "orders" => {
            let order = prepare(
                "INSERT INTO gvteway.orders (organization_id, id, event_id, guest_ref, number, subtotal, fees, tax, total, currency, jurisdiction)
                 VALUES ($1, $2, $3, $4, $5, 85, 5, 16.15, 106.15, 'EUR', 'DE')",
            );
            let lines = prepare(
                "INSERT INTO gvteway.order_items (organization_id, order_id, kind, sku, qty, unit_price) VALUES ($1, $2, 'ticket', NULL, 2, 30), ($1, $2, 'merch', $3, 1, 25)",
            );
            let pay =
                prepare("UPDATE gvteway.orders SET status = 'paid', paid_at = now() WHERE organization_id = $1 AND id = $2");
            Box::new(move |client, n| {
                let (id, sku, number) =
                    (Uuid::from_u128((0xd0_u128 << 100) + n as u128), format!("SKU-{}", n % 50), format!("D-{n}"));
                let mut transaction = client.transaction().expect("BEGIN");
                transaction
                    .execute(&order, &[&stage.organization, &id, pick(&stage.events, n), pick(&stage.guests, n), &number])
                    .expect("an order");
                transaction.execute(&lines, &[&stage.organization, &id, &sku]).expect("its lines");
                transaction.execute(&pay, &[&stage.organization, &id]).expect("its payment");
                transaction.commit().expect("COMMIT");
            })
        }
        "schedule" => {
            let delay = prepare(
                "UPDATE compvss.schedule_items SET delay_min = $3 WHERE organization_id = $1 AND id = $2 RETURNING version",
            );
            Box::new(move |client, n| {
                let (item, public) = stage.sets[n as usize % stage.sets.len()];
                // Another delay each time, and in each day, so that each is news.
                let minutes = (n / 100_000_000 * 600 + n % 600) as i32 + 1;
                let sent = Instant::now();
                let version: i64 = client.query_one(&delay, &[&stage.organization, &item, &minutes]).expect("a delay").get(0);
                if public {
                    tell(What::SetTime, item.to_string(), i64::from(minutes), sent);
                    tell(What::Announcement, format!("schedule_item:{item}"), version, sent);
                }
            })
        }
        _ => {
            let count = prepare("UPDATE atlvs.inventory_items SET on_hand = $3 WHERE organization_id = $1 AND id = $2");
            Box::new(move |client, n| {
                let (article, sku) = &stage.articles[n as usize % stage.articles.len()];
                let counted = (n % 1_000_000_000) as i32;
                tell(What::Stock, sku.clone(), i64::from(counted), Instant::now());
                client.execute(&count, &[&stage.organization, article, &counted]).expect("a count");
            })
        }
    }
}

/// Looks for what is awaited until nothing is any more; of each change what it was and after how many milliseconds it was seen.
fn watch(database: &Database, organization: Uuid, waiting: &Waiting, over: &Arc<AtomicBool>) -> JoinHandle<Vec<(What, f64)>> {
    let (mut client, waiting, over) = (database.connect(), waiting.clone(), over.clone());
    thread::spawn(move || {
        let look = client
            .prepare(
                "SELECT 0, s.source_ref, (extract(epoch FROM s.starts_at - i.starts_at) / 60)::bigint FROM gvteway.set_times AS s
                   JOIN compvss.schedule_items AS i ON i.organization_id = s.organization_id AND i.id = s.source_ref::uuid WHERE s.organization_id = $1 AND s.source_ref = ANY ($2)
                 UNION ALL
                 SELECT 1, a.source_ref, max(a.revision) FROM gvteway.announcements AS a WHERE a.organization_id = $1 AND a.source_ref = ANY ($3) GROUP BY a.source_ref
                 UNION ALL
                 SELECT 2, p.sku, p.stock::bigint FROM gvteway.merch_products AS p WHERE p.organization_id = $1 AND p.sku = ANY ($4)",
            )
            .expect("guests may look");
        let mut seen = Vec::new();
        loop {
            let keys = |what| -> Vec<String> {
                waiting
                    .lock()
                    .expect("nobody has panicked")
                    .iter()
                    .filter(|awaited| awaited.what == what)
                    .map(|awaited| awaited.key.clone())
                    .collect()
            };
            let keys = [What::SetTime, What::Announcement, What::Stock].map(keys);
            if keys.iter().all(Vec::is_empty) {
                if over.load(Ordering::Relaxed) {
                    return seen;
                }
            } else {
                let last = over.load(Ordering::Relaxed);
                let rows = client.query(&look, &[&organization, &keys[0], &keys[1], &keys[2]]).expect("a look");
                let now = Instant::now();
                waiting.lock().expect("nobody has panicked").retain(|awaited| {
                    let there = rows.iter().any(|row| {
                        let (what, key, number): (i32, String, i64) = (row.get(0), row.get(1), row.get(2));
                        // A set's delay is as it was written; the others only rise.
                        what == awaited.what as i32
                            && key == awaited.key
                            && (number == awaited.number || what != 0 && number >= awaited.number)
                    });
                    if there {
                        seen.push((awaited.what, now.duration_since(awaited.sent).as_secs_f64() * 1000.0));
                    }
                    !there
                });
                if last {
                    // What is not there when all is done was never seen: it counts with the time that has gone by.
                    let never = waiting.lock().expect("nobody has panicked");
                    seen.extend(never.iter().map(|awaited| (awaited.what, awaited.sent.elapsed().as_secs_f64() * 1000.0)));
                    return seen;
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
    })
}
