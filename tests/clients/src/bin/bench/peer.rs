//! PgQ, the queue of Skype: the one peer that does not decay. Debian's package postgresql-15-pgq3; only if it is there.
//!
//! As fast as it can be used: one tick for the whole backlog, so one batch, fetched, applied by one INSERT … SELECT and
//! finished in one transaction by one consumer.

use crate::level;
use std::time::Instant;
use usher_clients::{Client, number, run, text, value};

/// Makes the extension, or says how to get it.
pub fn prepare(client: &mut Client) -> bool {
    let there: bool = value(client, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgq')", &[]);
    if !there {
        let major = text(client, "SELECT (current_setting('server_version_num')::integer / 10000)::text");
        println!("  PgQ is not installed, so nothing is compared with it: apt-get install postgresql-{major}-pgq3");
        return false;
    }
    run(
        client,
        "CREATE EXTENSION pgq;
         SELECT pgq.create_queue('bench');
         SELECT pgq.register_consumer('bench', 'bench');
         SELECT pgq.ticker('bench')",
    );
    true
}

/// Events a second, with one INSERT each or with nothing but reading them.
pub fn round(client: &mut Client, jobs: i64, effect: bool) -> f64 {
    run(client, "TRUNCATE public.target");
    run(client, "SELECT pgq.maint_rotate_tables_step1('bench'); SELECT pgq.maint_rotate_tables_step2()");
    level(client);
    run(
        client,
        &format!(
            "SELECT count(pgq.insert_event('bench', 'i', jsonb_build_object('id', gen_random_uuid(), 'amount', n * 0.01, 'note', rpad('x', 120, 'x'))::text))
               FROM generate_series(1, {jobs}) n"
        ),
    );
    run(client, "SELECT pgq.force_tick('bench'); SELECT pgq.ticker('bench')");
    let apply = if effect {
        "INSERT INTO public.target (id, amount, note)
         SELECT (d ->> 'id')::uuid, (d ->> 'amount')::numeric, d ->> 'note'
           FROM (SELECT ev_data::jsonb AS d FROM pgq.get_batch_events($1)) AS e"
    } else {
        "SELECT ev_data FROM pgq.get_batch_events($1)"
    };
    let begin = Instant::now();
    let mut done = 0;
    loop {
        let mut work = client.transaction().expect("BEGIN");
        let batch: Option<i64> = work.query_one("SELECT pgq.next_batch('bench', 'bench')", &[]).expect("a batch").get(0);
        let Some(batch) = batch else { break };
        // A no-op is counted in the server: the client's own time is not the queue's.
        done += if effect {
            work.execute(apply, &[&batch]).expect("the effect") as i64
        } else {
            work.query_one(&format!("SELECT count(ev_data) FROM ({apply}) AS e"), &[&batch]).expect("the events").get::<_, i64>(0)
        };
        work.execute("SELECT pgq.finish_batch($1)", &[&batch]).expect("the batch ends");
        work.commit().expect("COMMIT");
    }
    let rate = jobs as f64 / begin.elapsed().as_secs_f64();
    assert_eq!(done, jobs, "PgQ has given out every event once");
    if effect {
        assert_eq!(number(client, "SELECT count(*) FROM public.target"), jobs);
    }
    rate
}
