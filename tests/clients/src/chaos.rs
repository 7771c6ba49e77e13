//! A small shop that is written to while processes are killed, and the account that must balance afterwards.
//!
//! Used by `tests/worker.rs` (50 kills at chosen moments), by `tests/faults.rs` and by the soak (random ones, many).
//!
//! Three flows read `public.orders`: one appends without a key, so that an effect that happens twice shows; one keeps a
//! copy up to date, so that a lost or misordered change shows; one works in the writer's own transaction.

use crate::{Client, Database, SqlState, flow, json, number, role, run, settled, value, wait};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Makes the shop. `pause` seconds pass on average for an appended entry, so that batches last and can be hit in the middle:
/// five times that for every fifth, so that one is hit too when jobs are done one by one after a crash.
/// `bad_luck` is the share of tries for which some orders fail, so that retries and those who wait behind them are hit.
/// Whoever holds `pg_advisory_lock(id)` stops the worker at the entry of that order, for as long as it takes to aim.
#[track_caller]
pub fn open_shop(client: &mut Client, pause: f64, bad_luck: f64) {
    role(client, "clients_shop", "NOLOGIN");
    run(
        client,
        &format!(
            "CREATE TABLE public.orders (id bigint PRIMARY KEY, version integer NOT NULL DEFAULT 1, note text);
         CREATE TABLE public.order_entries (order_id bigint NOT NULL, applied_by integer NOT NULL DEFAULT pg_backend_pid());
         CREATE TABLE public.order_copies (order_id bigint PRIMARY KEY, version integer NOT NULL);
         CREATE TABLE public.order_marks (order_id bigint NOT NULL);
         CREATE FUNCTION public.take_time() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN
                 IF TG_RELID = 'public.order_entries'::regclass THEN
                     IF NEW.order_id % 5 = 0 THEN PERFORM pg_catalog.pg_sleep(5 * {pause}); END IF;
                     PERFORM pg_catalog.pg_advisory_xact_lock_shared(NEW.order_id);
                 END IF;
                 IF NEW.order_id % 20 < 2 AND pg_catalog.random() < {bad_luck} THEN RAISE EXCEPTION 'bad luck'; END IF;
                 RETURN NEW;
             END $$;
         CREATE TRIGGER take_time BEFORE INSERT ON public.order_entries FOR EACH ROW EXECUTE FUNCTION public.take_time();
         CREATE TRIGGER take_time BEFORE INSERT OR UPDATE ON public.order_copies FOR EACH ROW EXECUTE FUNCTION public.take_time();
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.order_entries, public.order_copies, public.order_marks TO clients_shop"
        ),
    );
    // So many tries that bad luck alone practically never makes a dead letter.
    let retry = json!({"delays": vec![0.1; 15]});
    flow(
        client,
        "enter_order",
        &json!({
            "from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_shop", "retry": retry, "lock_timeout": "10 min",
            "when": {"change": "public.orders", "on": ["insert"]},
            "then": {"insert": "public.order_entries"}, "set": {"order_id": "new.id"}
        }),
    );
    flow(
        client,
        "copy_order",
        &json!({
            "from": "shop", "to": "books", "mode": "realtime", "run_as": "clients_shop", "retry": retry,
            "when": {"change": "public.orders", "on": ["insert", "update"]},
            "then": {"upsert": "public.order_copies", "key": ["order_id"]}, "set": {"order_id": "new.id", "version": "new.version"}
        }),
    );
    flow(
        client,
        "mark_order",
        &json!({
            "from": "shop", "to": "books", "mode": "transactional", "run_as": "clients_shop",
            "when": {"change": "public.orders", "on": ["insert"]},
            "then": {"insert": "public.order_marks"}, "set": {"order_id": "new.id"}
        }),
    );
}

/// What a writer was told is committed: order id -> version.
pub type Acknowledged = HashMap<i64, i32>;

/// Sessions that keep writing until they are stopped, whatever happens to the server.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Acknowledged>>,
}

struct Shared {
    stop: AtomicBool,
    /// Where they write; after a promotion it is elsewhere.
    place: Mutex<Database>,
    /// Transactions that were acknowledged, so that one can wait until they have got on.
    commits: AtomicU32,
    /// Statements that a statement_timeout has ended.
    timeouts: AtomicU32,
}

impl Shared {
    fn place(&self) -> Database {
        self.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn failed(&self, error: &postgres::Error) {
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            self.timeouts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Writers {
    /// `round` keeps the orders of one start apart from those of another.
    pub fn start(database: &Database, count: usize, round: usize) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            place: Mutex::new(database.clone()),
            commits: AtomicU32::new(0),
            timeouts: AtomicU32::new(0),
        });
        let threads = (1..=count)
            .map(|writer| {
                let shared = shared.clone();
                thread::spawn(move || write(&shared, (round * 100 + writer) as i64))
            })
            .collect();
        Self { shared, threads }
    }

    /// From their next connection on they write there.
    pub fn move_to(&self, database: &Database) {
        *self.shared.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = database.clone();
    }

    /// Waits until so many more of their transactions have been acknowledged.
    #[track_caller]
    pub fn get_on(&self, commits: u32) {
        let wanted = self.shared.commits.load(Ordering::Relaxed) + commits;
        wait::until(Duration::from_secs(120), "the writers get on", || self.shared.commits.load(Ordering::Relaxed) >= wanted);
    }

    /// Statements that a timeout has ended so far.
    pub fn timeouts(&self) -> u32 {
        self.shared.timeouts.load(Ordering::Relaxed)
    }

    /// Ends them and returns everything that any of them was told is committed.
    pub fn stop(self) -> Acknowledged {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a writer has panicked")).collect()
    }
}

/// A few orders at a time, then changes to some of them. After an error the outcome is unknown: such an order is not
/// acknowledged, and the account at the end accepts it either way, but never half.
fn write(shared: &Shared, writer: i64) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut next = writer * 1_000_000;
    let mut chance = Chance::new(writer as u64);
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok(mut client) = shared.place().try_connect() else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !shared.stop.load(Ordering::Relaxed) {
            let (first, last) = (next, next + chance.below(5) as i64);
            next = last + 1;
            let sql = "INSERT INTO public.orders (id) SELECT generate_series($1::bigint, $2)";
            if let Err(error) = client.execute(sql, &[&first, &last]) {
                shared.failed(&error);
                break;
            }
            acknowledged.extend((first..=last).map(|id| (id, 1)));
            let id = first + chance.below((last - first + 1) as u64) as i64;
            match client.query_one("UPDATE public.orders SET version = version + 1 WHERE id = $1 RETURNING version", &[&id]) {
                Ok(row) => acknowledged.insert(id, row.get(0)),
                Err(error) => {
                    shared.failed(&error);
                    break;
                }
            };
            shared.commits.fetch_add(2, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10 + chance.below(40)));
        }
    }
    acknowledged
}

/// Balances the account: everything acknowledged is there, and every order has exactly its effects and its history.
/// Returns the number of orders.
#[track_caller]
pub fn balance(client: &mut Client, acknowledged: &Acknowledged, timeout: Duration) -> i64 {
    settled(client, timeout);
    let (ids, versions): (Vec<i64>, Vec<i32>) = acknowledged.iter().map(|(id, version)| (*id, *version)).unzip();
    let lost: i64 = value(
        client,
        "SELECT count(*) FROM unnest($1::bigint[], $2::integer[]) AS a (id, version)
           LEFT JOIN public.orders o ON o.id = a.id AND o.version >= a.version WHERE o.id IS NULL",
        &[&ids, &versions],
    );
    assert_eq!(lost, 0, "committed orders are lost: that would be PostgreSQL's fault, or the test's");
    let accounts = [
        ("orders without exactly one entry", exactly_one("public.order_entries")),
        ("orders without exactly one mark from the writer's own transaction", exactly_one("public.order_marks")),
        (
            "copies that are not what the order is",
            "SELECT count(*) FROM public.orders o FULL JOIN public.order_copies c ON c.order_id = o.id
              WHERE o.version IS DISTINCT FROM c.version".to_owned(),
        ),
        ("dead letters", "SELECT count(*) FROM usher.dead_letters".to_owned()),
        ("jobs that are there twice", "SELECT count(*) - count(DISTINCT id) FROM usher.sync_jobs".to_owned()),
        ("orders without exactly one finished job of enter_order", finished("enter_order")),
        ("orders without exactly one finished job of mark_order", finished("mark_order")),
        (
            "changes without exactly one finished job of copy_order",
            "SELECT count(*) FROM (SELECT o.id, v FROM public.orders o, generate_series(1, o.version) v) AS o
               FULL JOIN (SELECT (payload -> 'new' ->> 'id')::bigint AS id, (payload -> 'new' ->> 'version')::integer AS v, count(*) AS n
                            FROM usher.sync_jobs WHERE flow = 'copy_order' AND status = 'synced' GROUP BY 1, 2) AS j
                 ON j.id = o.id AND j.v = o.v
              WHERE j.n IS DISTINCT FROM 1 OR o.id IS NULL".to_owned(),
        ),
    ];
    for (what, sql) in accounts {
        assert_eq!(number(client, &sql), 0, "{what}\n{}", wait::jobs(client));
    }
    number(client, "SELECT count(*) FROM public.orders")
}

fn exactly_one(table: &str) -> String {
    format!(
        "SELECT count(*) FROM public.orders o FULL JOIN (SELECT order_id, count(*) AS n FROM {table} GROUP BY 1) AS e ON e.order_id = o.id
          WHERE e.n IS DISTINCT FROM 1 OR o.id IS NULL"
    )
}

fn finished(flow: &str) -> String {
    format!(
        "SELECT count(*) FROM public.orders o
           FULL JOIN (SELECT (payload -> 'new' ->> 'id')::bigint AS id, count(*) AS n FROM usher.sync_jobs
                       WHERE flow = '{flow}' AND status = 'synced' GROUP BY 1) AS j ON j.id = o.id
          WHERE j.n IS DISTINCT FROM 1 OR o.id IS NULL"
    )
}

/// What a `kill -9` of a worker met.
pub struct Hit {
    /// The worker was in the middle of a batch, of which nothing had been committed.
    pub inside_batch: bool,
    pub client: Client,
}

/// Kills the worker of the normal lane with whatever it is doing, and finds out afterwards what that was.
///
/// The jobs that were in progress right before the kill name their orders; every entry carries the process that wrote
/// it. No entry of these orders by the killed process means: its batch was not committed.
#[track_caller]
pub fn kill_worker(database: &Database, mut client: Client) -> Hit {
    let pid = crate::server::worker_of(&mut client, "normal").expect("a worker serves the normal lane");
    let working: Vec<i64> = value(
        &mut client,
        "SELECT coalesce(array_agg((payload -> 'new' ->> 'id')::bigint), '{}') FROM usher.sync_jobs
          WHERE flow = 'enter_order' AND status = 'in_progress'",
        &[],
    );
    let mut client = crate::server::kill_and_recover(database, &mut client, pid);
    let committed: i64 = value(
        &mut client,
        "SELECT count(*) FROM public.order_entries WHERE order_id = ANY ($1) AND applied_by = $2",
        &[&working, &pid],
    );
    Hit { inside_batch: !working.is_empty() && committed == 0, client }
}

/// Ends any connections that a test has left open in the database.
pub fn terminate_sessions(database: &Database) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    if let Ok(mut client) = database.try_connect() {
        let _ = client.query(sql, &[&database.name]);
    }
}

/// Numbers that look random and are the same in every run with the same seed: a failure can be seen again.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 0 up to, not including, `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
