//! Random lives of jobs against a model that is small enough to be read: whatever is asked for, cancelled, retried, delayed,
//! switched off or killed, and in whatever order, in the end every job stands where the model says, with its effect once or
//! not at all, and every row has gone through all its changes in their order.
//!
//! A worker runs meanwhile, so what a call meets is not known beforehand: whether a job could still be cancelled is the
//! server's answer, and the model believes it. What follows from the answers is then exact.
//!
//! MODEL_SEED repeats a run, MODEL_CASES makes it longer (100 by default). A failure is made as small as it gets and printed.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use usher_clients::{Client, Database, SqlState, Uuid, faults, flow, json, number, role, run, server, text, value, wait};

/// One thing that somebody does. Numbers pick a job or a row out of those there are.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A request whose effect works.
    Ask,
    /// A request whose effect fails, whenever it is tried.
    AskInVain,
    /// A request for tomorrow.
    AskForLater,
    /// A request for a time that has passed.
    AskForEarlier,
    Cancel(usize),
    /// Run it again, with what makes it work.
    Retry(usize),
    /// A change of a row, by the request flow's neighbour.
    Change(i32),
    Disable,
    Enable,
    /// The worker is kept away from the lane, so that what follows meets jobs that have not run.
    Hold,
    Release,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let job = 0..64_usize;
    let step = prop_oneof![
        8 => Just(Step::Ask),
        4 => Just(Step::AskInVain),
        3 => Just(Step::AskForLater),
        2 => Just(Step::AskForEarlier),
        6 => job.clone().prop_map(Step::Cancel),
        5 => job.prop_map(Step::Retry),
        10 => (1..4_i32).prop_map(Step::Change),
        2 => Just(Step::Disable),
        3 => Just(Step::Enable),
        3 => Just(Step::Hold),
        3 => Just(Step::Release),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

/// How a job must stand in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Synced,
    Dead,
    Cancelled,
    Later,
}

impl End {
    fn status(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Later => "pending",
        }
    }
}

struct Job {
    id: Uuid,
    end: End,
}

/// What should be there, kept beside what is there.
struct Model {
    jobs: Vec<Job>,
    /// Row by row, the values that it has had.
    rows: [Vec<i32>; 4],
    enabled: bool,
}

struct World {
    database: Database,
    client: Client,
    holder: Option<Client>,
    /// Tells the jobs and rows of one case from those of another.
    case: i32,
}

impl World {
    fn new() -> Self {
        let database = Database::create("usher_test_model");
        let mut client = database.connect();
        role(&mut client, "clients_model", "NOLOGIN");
        run(
            &mut client,
            "CREATE TABLE public.calls (job_id uuid NOT NULL, n integer NOT NULL CHECK (n > 0));
             CREATE TABLE public.items (id integer PRIMARY KEY, v integer NOT NULL);
             CREATE TABLE public.copies (id integer PRIMARY KEY, v integer NOT NULL);
             CREATE TABLE public.copy_log (n bigserial PRIMARY KEY, id integer, v integer);
             CREATE FUNCTION public.note_copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN INSERT INTO public.copy_log (id, v) VALUES (NEW.id, NEW.v); RETURN NULL; END $$;
             CREATE TRIGGER note_copy AFTER INSERT OR UPDATE ON public.copies FOR EACH ROW EXECUTE FUNCTION public.note_copy();
             GRANT SELECT, INSERT, UPDATE ON public.calls, public.copies TO clients_model",
        );
        flow(
            &mut client,
            "call",
            &json!({
                "from": "left", "to": "right", "run_as": "clients_model", "retry": {"delays": [0], "jitter": 0}, "when": {"request": "call"},
                "then": {"insert": "public.calls"}, "set": {"job_id": "job.id", "n": "(job.payload ->> 'n')::integer"}
            }),
        );
        flow(
            &mut client,
            "copy",
            &json!({
                "from": "left", "to": "right", "mode": "realtime", "run_as": "clients_model",
                "when": {"change": "public.items", "on": ["insert", "update"]},
                "then": {"upsert": "public.copies", "key": ["id"]}, "set": {"id": "new.id", "v": "new.v"}
            }),
        );
        Self { database, client, holder: None, case: 0 }
    }

    fn ask(&mut self, works: bool, run_at: &str) -> Uuid {
        let sql = format!(
            "SELECT id FROM usher.enqueue_sync_job('default', 'left', 'right', jsonb_build_object('action', 'call', 'n', $1::integer), run_at => {run_at})"
        );
        value(&mut self.client, &sql, &[&if works { 1 } else { -1 }])
    }

    /// Whether the server has done it. Refused is an answer as well, everything else a failure.
    fn asked(&mut self, sql: &str, job: Uuid) -> bool {
        match self.client.query(sql, &[&job]) {
            Ok(_) => true,
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => false,
            Err(error) => panic!("{}\n  in: {sql}", wait::describe(&error)),
        }
    }

    fn row(&self, row: i32) -> i32 {
        self.case * 10 + row
    }

    fn release(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            run(&mut holder, "ROLLBACK");
        }
    }

    fn take(&mut self, model: &mut Model, step: Step) {
        let job = |model: &Model, n: usize| (!model.jobs.is_empty()).then(|| n % model.jobs.len());
        match step {
            Step::Ask | Step::AskInVain | Step::AskForEarlier | Step::AskForLater => {
                let works = !matches!(step, Step::AskInVain);
                let (at, end) = match step {
                    Step::AskForLater => ("now() + interval '1 day'", End::Later),
                    Step::AskForEarlier => ("now() - interval '1 day'", End::Synced),
                    _ => ("NULL", if works { End::Synced } else { End::Dead }),
                };
                let id = self.ask(works, at);
                model.jobs.push(Job { id, end });
            }
            Step::Cancel(n) => {
                let Some(n) = job(model, n) else { return };
                let done = self.asked("SELECT usher.cancel_sync_job($1)", model.jobs[n].id);
                let job = &mut model.jobs[n];
                // What waits until tomorrow, or is cancelled, cannot have ended meanwhile: there the answer is known.
                match job.end {
                    End::Later => assert!(done, "a job for tomorrow can be cancelled"),
                    End::Cancelled => assert!(!done, "a cancelled job cannot be cancelled again"),
                    // A worker may have it in hand: then it is refused, also when the try fails a moment later.
                    End::Dead | End::Synced => {}
                }
                if done {
                    job.end = End::Cancelled;
                }
            }
            Step::Retry(n) => {
                let Some(n) = job(model, n) else { return };
                let done = self.asked("SELECT usher.retry_sync_job($1, '{\"n\": 2}')", model.jobs[n].id);
                let job = &mut model.jobs[n];
                match job.end {
                    End::Later | End::Cancelled => assert!(done, "what waits for its time or is cancelled can be retried"),
                    // One that works has nothing to retry, except while it waits for a time that has passed.
                    End::Synced | End::Dead => {}
                }
                if done {
                    job.end = End::Synced;
                }
            }
            Step::Change(row) => {
                let id = self.row(row);
                let sql = "INSERT INTO public.items AS i VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET v = i.v + 1 RETURNING v";
                let v: i32 = value(&mut self.client, sql, &[&id]);
                model.rows[row as usize].push(v);
            }
            Step::Disable if model.enabled => {
                run(&mut self.client, "SELECT usher.disable_flow('call')");
                model.enabled = false;
            }
            Step::Enable if !model.enabled => {
                run(&mut self.client, "SELECT usher.enable_flow('call')");
                model.enabled = true;
            }
            Step::Disable | Step::Enable => {}
            Step::Hold => {
                if self.holder.is_none() {
                    let mut holder = self.database.connect();
                    run(&mut holder, "BEGIN; SELECT usher.hold_lane('normal')");
                    self.holder = Some(holder);
                }
            }
            Step::Release => self.release(),
            Step::Kill => {
                self.holder = None;
                let pid = wait::poll(wait::LONG, || server::worker_of(&mut self.client, "normal")).expect("a worker");
                self.client = server::kill_and_recover(&self.database, &mut self.client, pid);
            }
        }
    }

    /// One life from the beginning to the end, and how it differs from the model.
    fn live(&mut self, steps: &[Step]) -> Result<(), String> {
        self.case += 1;
        let mut model = Model { jobs: Vec::new(), rows: Default::default(), enabled: true };
        for step in steps {
            self.take(&mut model, *step);
        }
        self.release();
        self.take(&mut model, Step::Enable);
        self.check(&model)
    }

    fn check(&mut self, model: &Model) -> Result<(), String> {
        let ids: Vec<Uuid> = model.jobs.iter().map(|job| job.id).collect();
        // Settled: whatever is not for tomorrow has ended.
        let open = "SELECT NOT EXISTS (SELECT FROM usher.sync_jobs WHERE status IN ('pending', 'in_progress', 'failed')
                                          AND (run_at IS NULL OR run_at < now() + interval '1 hour'))";
        if wait::poll(wait::LONG, || value::<bool>(&mut self.client, open, &[]).then_some(())).is_none() {
            return Err(format!("jobs do not end:\n{}", wait::jobs(&mut self.client)));
        }
        let status = "SELECT string_agg(concat_ws(' ', j.status, (SELECT count(*) FROM public.calls c WHERE c.job_id = a.id)), ', ' ORDER BY a.n)
                        FROM unnest($1::uuid[]) WITH ORDINALITY AS a (id, n) LEFT JOIN usher.sync_jobs j ON j.id = a.id";
        let is: String = value::<Option<String>>(&mut self.client, status, &[&ids]).unwrap_or_default();
        let should: Vec<String> =
            model.jobs.iter().map(|job| format!("{} {}", job.end.status(), i32::from(job.end == End::Synced))).collect();
        if is != should.join(", ") {
            return Err(format!("jobs with their effects\n  are    {is}\n  should {}", should.join(", ")));
        }
        for (row, values) in model.rows.iter().enumerate() {
            let id = self.row(row as i32);
            let sql = format!("SELECT string_agg(v::text, ' ' ORDER BY n) FROM public.copy_log WHERE id = {id}");
            let (is, should) = (text(&mut self.client, &sql), values.iter().map(i32::to_string).collect::<Vec<_>>().join(" "));
            if is != should {
                return Err(format!("the values of row {row}\n  are    {is}\n  should {should}"));
            }
        }
        let strangers = "SELECT count(*) FROM public.calls c LEFT JOIN usher.sync_jobs j ON j.id = c.job_id WHERE j.status IS DISTINCT FROM 'synced'";
        match number(&mut self.client, strangers) {
            0 => Ok(()),
            n => Err(format!("{n} effects of jobs that are not synced")),
        }
    }
}

#[test]
fn whatever_happens_jobs_end_as_the_model_says() {
    let cases = std::env::var("MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let mut seed = [0_u8; 32];
    seed[..8].copy_from_slice(&faults::seed("MODEL_SEED").to_le_bytes());
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let world = RefCell::new(World::new());
    let outcome = runner.run(&steps(), |steps| {
        let mut world = world.borrow_mut();
        // A life that ends badly must not spoil the next one, by which a smaller one is looked for.
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live(&steps)));
        let told = lived.unwrap_or_else(|panic| {
            let constant = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Err(panic.downcast_ref::<String>().cloned().or(constant).unwrap_or_else(|| "a panic".to_owned()))
        });
        told.map_err(|why| {
            *world = World::new();
            TestCaseError::fail(why)
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\nafter {steps:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    let jobs = number(&mut world.borrow_mut().client, "SELECT count(*) FROM usher.sync_jobs");
    println!("{cases} lives, {jobs} jobs");
    assert!(jobs >= i64::from(cases), "{jobs} jobs");
}
