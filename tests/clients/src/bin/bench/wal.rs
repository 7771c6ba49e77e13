//! What a job costs beside its effect: WAL, commits, room on disk.

use crate::pipe::{self, Pipe};
use crate::{Figure, Gate, level, median, size};
use usher_clients::{Client, Database, number, run, storage};

pub const METHOD: &str = "WAL: pg_current_wal_insert_lsn before and after 100,000 captured rows and their effects, less what the same rows \
into the same tables cost without us, less the payload (pg_column_size); by hand: the same of jobs put into a table and deleted \
from it, without history. Commits: xact_commit of the database while a backlog is worked off, less our own looks. Room: tables \
and indexes of ready and waiting jobs after ten backlogs of 100,000, against the rows of one in a table of the same shape; \
everything kept for a finished job against its bare row there. Median of 3";

const ROUNDS: usize = 3;
const CYCLES: i64 = 10;
const WAL_LIMIT: f64 = 300.0;
const COMMIT_LIMIT: f64 = 0.01;
const MEGABYTE: f64 = 1024.0 * 1024.0;

pub fn measure(database: &Database) -> Vec<Figure> {
    let jobs = size("BENCH_JOBS");
    let mut client = database.connect();
    let here = &mut client;
    if number(here, "SELECT count(*) FROM pg_class WHERE oid = to_regclass('public.jobs')") == 0 {
        pipe::prepare_by_hand(here);
    }
    let pipe = Pipe::create(here, "wal", false);
    run(here, &format!("CREATE TABLE public.wal_plain (LIKE {} INCLUDING ALL)", pipe.source));
    let (mut ours, mut by_hand, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let payload = || format!("SELECT (avg(pg_column_size(to_jsonb(s) - 'n')) * {jobs})::bigint FROM {} s", pipe.source);
        // With us.
        pipe.empty(here);
        level(here);
        let begin = position(here);
        let holder = pipe.fill(database, here, jobs);
        let before = committed(database);
        let drained = pipe.drain(here, holder, jobs);
        let with_us = position(here) - begin;
        commits.push((committed(database) - before - drained.looks) as f64 / jobs as f64);
        pipe.check(here, jobs);
        let payload = number(here, &payload());
        // The rows alone.
        run(here, "TRUNCATE public.wal_plain, public.target");
        level(here);
        let begin = position(here);
        run(here, &pipe.rows("public.wal_plain", jobs));
        let source = position(here) - begin;
        let begin = position(here);
        run(here, "INSERT INTO public.target SELECT id, amount, note FROM public.wal_plain");
        let target = position(here) - begin;
        ours.push((with_us - source - target - payload) as f64 / jobs as f64);
        // By hand.
        run(here, "TRUNCATE public.target, public.jobs");
        level(here);
        let begin = position(here);
        run(here, "INSERT INTO public.jobs (payload) SELECT to_jsonb(s) - 'n' FROM public.wal_plain s");
        run(here, "CALL public.drain()");
        by_hand.push((position(here) - begin - target - payload) as f64 / jobs as f64);
    }
    let (ours, by_hand) = (median(ours), median(by_hand));
    let mut figures = vec![
        Figure::limit("wal_per_job", ours, WAL_LIMIT, "bytes", Gate::AtMost(1.0)),
        Figure::new("wal_per_job_against_by_hand", ours, by_hand, "bytes", Gate::None),
        // The commits of autovacuum and of the other worker count as ours: there are few, and they are not told apart.
        Figure::limit("commits_per_job", median(commits), COMMIT_LIMIT, "", Gate::AtMost(1.0)),
    ];
    figures.extend(room(database, here, &pipe, jobs));
    pipe.close(here);
    figures
}

fn position(client: &mut Client) -> i64 {
    number(client, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
}

/// Commits in the database so far. A process reports its own at most once a second, and when it rests.
fn committed(database: &Database) -> i64 {
    std::thread::sleep(std::time::Duration::from_secs(2));
    number(&mut database.connect(), "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
}

fn room(database: &Database, client: &mut Client, pipe: &Pipe, jobs: i64) -> Vec<Figure> {
    run(client, "VACUUM");
    let all = storage::all_bytes(client);
    let table = storage::READY_TABLE;
    pipe.empty(client);
    let holder = pipe.fill(database, client, jobs);
    run(
        client,
        &format!(
            "CREATE TABLE public.wal_shape (LIKE {table} INCLUDING ALL); INSERT INTO public.wal_shape SELECT * FROM {table} ORDER BY seq DESC LIMIT {jobs}"
        ),
    );
    let bare = number(client, "SELECT pg_total_relation_size('public.wal_shape')") as f64 / jobs as f64;
    run(client, "DROP TABLE public.wal_shape");
    pipe.drain(client, holder, jobs);
    pipe.churn(database, client, jobs * (CYCLES - 1), jobs);
    let ten = storage::hot_bytes(client);
    let kept = (storage::all_bytes(client) - all - ten).max(0) as f64 / (jobs * CYCLES) as f64;
    vec![
        Figure::new(
            "hot_tables_after_10_backlogs",
            ten as f64 / MEGABYTE,
            bare * jobs as f64 / MEGABYTE,
            "MB",
            Gate::AtMost(2.0),
        ),
        Figure::new("kept_per_finished_job", kept, bare, "bytes", Gate::None),
    ]
}
