//! The queue's own promises, in one backend and one transaction.

#[pgrx::pg_schema]
mod tests {
    use crate::pg::{spi, subxact};
    use pgrx::prelude::*;

    fn ready() {
        spi::script(
            r#"SELECT usher.setup();
             CREATE ROLE test_queue;
             CREATE TABLE public.done (n int PRIMARY KEY);
             GRANT SELECT, INSERT ON public.done TO test_queue;
             SELECT usher.create_flow('take', '{"from": "a", "to": "b", "when": {"request": "take"}, "then": {"insert": "public.done"}, "run_as": "test_queue",
                                                "set": {"n": "(job.payload ->> ''n'')::int"}, "retry": {"delays": [0, 0]}}')"#,
        )
        .unwrap();
    }

    fn number(sql: &str) -> i64 {
        spi::one::<i64>(sql, &[]).unwrap().unwrap_or(-1)
    }

    fn process() -> i32 {
        spi::one::<i32>("SELECT usher.process_jobs()", &[]).unwrap().unwrap_or(-1)
    }

    #[pg_test]
    fn a_request_reaches_its_flow() {
        ready();
        spi::script(r#"SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 1}')"#).unwrap();
        assert_eq!(process(), 1);
        assert_eq!(number("SELECT count(*) FROM public.done"), 1);
        assert_eq!(number("SELECT count(*) FROM usher.sync_jobs WHERE status = 'synced' AND flow = 'take' AND attempts = 1"), 1);
    }

    #[pg_test]
    fn one_key_makes_one_job() {
        ready();
        spi::script(r#"SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 1}', unique_key => 'k') FROM generate_series(1, 3)"#).unwrap();
        assert_eq!(number("SELECT count(*) FROM usher.sync_jobs"), 1);
        process();
        spi::script(r#"SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 2}', unique_key => 'k')"#)
            .unwrap();
        assert_eq!(process(), 0);
    }

    #[pg_test]
    fn a_hundred_thousand_jobs_are_one_call_and_one_bad_one_refuses_all() {
        ready();
        let made = number(r#"SELECT cardinality(usher.enqueue_sync_jobs('default', 'a', 'b', (SELECT array_agg(jsonb_build_object('action', 'take', 'n', n)) FROM generate_series(1, 100000) n)))"#.replace("cardinality(", "count(*) FROM unnest(").as_str());
        assert_eq!(made, 100_000);
        let failure = subxact::attempt(|| {
            spi::one::<i64>(
                r#"SELECT count(*) FROM unnest(usher.enqueue_sync_jobs('default', 'a', 'b', ARRAY['{"action": "take", "n": 1}', '{"action": "tkae"}']::jsonb[]))"#,
                &[],
            )
        })
        .unwrap_err();
        assert!(failure.message.contains("payload 2") && failure.message.contains("tkae"), "{}", failure.message);
        assert_eq!(number("SELECT count(*) FROM usher.ready_jobs"), 100_000);
    }

    #[pg_test]
    fn a_failing_job_is_tried_again_and_then_dead() {
        ready();
        spi::script(r#"INSERT INTO public.done VALUES (1); SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 1}')"#).unwrap();
        assert_eq!(process(), 1);
        assert_eq!(number("SELECT attempts FROM usher.sync_jobs WHERE status = 'failed' AND waiting_for = 'retry'"), 1);
        assert_eq!(process() + process(), 2);
        assert_eq!(
            number("SELECT attempts FROM usher.sync_jobs WHERE status = 'dead' AND error_message LIKE 'duplicate key%'"),
            3
        );
        spi::script(r#"SELECT usher.retry_sync_job(id, '{"n": 5}') FROM usher.sync_jobs"#).unwrap();
        assert_eq!(process(), 1);
        assert_eq!(number("SELECT count(*) FROM public.done WHERE n = 5"), 1);
    }

    #[pg_test]
    fn a_cancelled_job_does_not_run() {
        ready();
        spi::script(r#"SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 1}'); SELECT usher.cancel_sync_job(id) FROM usher.sync_jobs"#).unwrap();
        assert_eq!(process(), 0);
        assert_eq!(number("SELECT count(*) FROM usher.sync_jobs WHERE status = 'cancelled'"), 1);
    }

    #[pg_test]
    fn a_later_job_waits_for_its_time() {
        ready();
        spi::script(r#"SELECT usher.enqueue_sync_job('default', 'a', 'b', '{"action": "take", "n": 1}', run_at => now() + interval '1 hour')"#).unwrap();
        assert_eq!(process(), 0);
        assert_eq!(
            number("SELECT count(*) FROM usher.sync_jobs WHERE status = 'pending' AND waiting_for = 'run_at' AND run_at > now()"),
            1
        );
    }

    #[pg_test]
    fn nobody_else_may_call_anything() {
        let open = number(
            "SELECT count(*) FROM pg_proc p WHERE p.pronamespace = 'usher'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')",
        );
        assert_eq!(open, 0);
    }
}
