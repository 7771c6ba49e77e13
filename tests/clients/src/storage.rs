//! The one place outside the extension that knows in which tables jobs are kept.
//!
//! Tests and benchmarks read `usher.sync_jobs`. A benchmark must sometimes throw a backlog away, make millions of waiting
//! jobs at once, or ask how large the tables are: what it needs for that is here, so that another layout is told once.

use crate::{Client, number, run, text, value};

/// The table that jobs are captured into.
pub const READY_TABLE: &str = "usher.jobs";

/// Jobs that could run now, and nobody has run yet.
pub fn ready(client: &mut Client) -> i64 {
    number(client, "SELECT count(*) FROM usher.ready_jobs")
}

/// Some job has not ended: it is ready, or it waits for whatever it may be.
pub fn anything_open(client: &mut Client) -> bool {
    value(client, "SELECT EXISTS (SELECT FROM usher.ready_jobs) OR EXISTS (SELECT FROM usher.queue_waiting)", &[])
}

/// Throws all ready jobs away. Only where the workers are held.
pub fn forget_ready(client: &mut Client) {
    run(client, "TRUNCATE usher.jobs, usher.job_batches");
}

/// Throws all waiting jobs away.
pub fn forget_waiting(client: &mut Client) {
    run(client, "TRUNCATE usher.queue_waiting");
}

/// Makes of the one job that waits so many that wait for the same.
pub fn multiply_waiting(client: &mut Client, jobs: i64) {
    let sample = "(SELECT * FROM usher.queue_waiting LIMIT 1)";
    let (columns, values) = columns_of(client, "usher.queue_waiting", "r.new");
    run(
        client,
        &format!("INSERT INTO usher.queue_waiting ({columns}) SELECT {values} FROM {sample} r, generate_series(2, {jobs})"),
    );
    run(client, "VACUUM ANALYZE usher.queue_waiting");
}

/// The columns of a table of jobs, and what makes a job of `r`, a row of that table, with a number, an id and a `payload` (an
/// SQL expression) of its own. What is left out has a default or is generated.
pub fn columns_of(client: &mut Client, table: &str, payload: &str) -> (String, String) {
    let columns = text(
        client,
        &format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = ''"
        ),
    );
    let values: Vec<String> = columns
        .split(", ")
        .map(|column| match column {
            "seq" => "pg_catalog.nextval('usher.queue_seq')".to_owned(),
            "id" => "usher.uuid_v7()".to_owned(),
            "new" => payload.to_owned(),
            "created_at" => "pg_catalog.now()".to_owned(),
            // The row that a job is about: each one its own.
            "row_key" => "CASE WHEN r.row_key IS NOT NULL THEN (pg_catalog.random() * 9e18)::bigint END".to_owned(),
            other => format!("r.{other}"),
        })
        .collect();
    (columns, values.join(", "))
}

/// Bytes of what the workers must walk: the ready and the waiting jobs with their indexes, finished ones not.
pub fn hot_bytes(client: &mut Client) -> i64 {
    bytes(client, "c.relname ~ '^(job_batches.*|job_floors|queue_waiting)$'")
}

/// Bytes of everything that is kept for jobs: ready, waiting, dead and finished.
pub fn all_bytes(client: &mut Client) -> i64 {
    bytes(client, "c.relname ~ '^(queue_waiting|jobs|jobs_.*|job_batches.*|job_history.*|dead_letters)$'")
}

fn bytes(client: &mut Client, which: &str) -> i64 {
    number(
        client,
        &format!(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
              WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND {which}"
        ),
    )
}
