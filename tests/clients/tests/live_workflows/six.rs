//! The six cases of a workflow of the pack live_events, from outside: its condition is met, is not met, its cause is repeated, is rolled back, its
//! data are bad until somebody repairs them, and another organization is not touched.
//!
//! A file for each workflow says what is there before, what somebody does, and what must have come of it; the cases are put together here.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use usher_clients::{Client, Database, Uuid, postgres::Error, role, run, settled, text, value, wait};

/// A workflow as its file describes it. SQL is a function of the place, so that the same is said of every organization.
pub struct Workflow {
    /// Such as W3.
    pub number: &'static str,
    /// Tables that it writes: they stay as they were where nothing must happen.
    pub targets: &'static [&'static str],
    /// What is there before, in both organizations. Run by the owner.
    pub prepare: fn(&Place) -> String,
    /// What somebody does that sets it off. Run by a member of the organization.
    pub act: fn(&Place) -> String,
    /// What must have come of it: exactly, once, with link and trail. Panics if not.
    pub check: fn(&mut Client, &Place),
    /// The same deed, but for the condition.
    pub not_met: fn(&Place) -> String,
    /// The deed once more: nothing more comes of it.
    pub repeat: fn(&Place) -> String,
    pub bad: Bad,
}

/// Data that the workflow cannot take.
pub struct Bad {
    /// What makes them bad, if it is not the deed itself: a rule of the target, say. Run by the owner.
    pub before: fn(&Place) -> String,
    /// Done instead of [`Workflow::act`].
    pub act: fn(&Place) -> String,
    /// The flow whose job fails, and what its error says.
    pub flow: &'static str,
    pub error: &'static str,
    /// What somebody repairs, run by the owner.
    pub repair: fn(&Place) -> String,
    /// What the dead letter is given, as `usher.retry_dead_letters` takes it; `{}` when the repair is enough. None: the repaired row itself
    /// sets it off again, and the dead letter is dropped.
    pub changes: Option<fn(&Place) -> String>,
}

/// An organization in one case, with ids of its own.
#[derive(Clone, Copy)]
pub struct Place {
    pub slug: &'static str,
    pub organization: Uuid,
    /// Another one for each case: codes, numbers and names are made of it.
    pub case: u32,
}

impl Place {
    /// The id of a row by a name of the test's own, the same for the whole case.
    pub fn id(&self, name: &str) -> Uuid {
        // FNV-1a of 128 bits: any spread will do.
        let text = format!("{} {} {name}", self.organization, self.case);
        let offset: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let prime: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        Uuid::from_u128(text.bytes().fold(offset, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(prime)))
    }

    /// A text that no other case has.
    pub fn unique(&self, name: &str) -> String {
        format!("{name}-{}-{}", self.slug, self.case)
    }
}

/// For cases that have nothing to say here.
pub fn nothing(_: &Place) -> String {
    String::new()
}

const MEMBER: &str = "clients_live_member";

/// The one database of these tests: the pack is installed once, and every case has rows of its own.
pub struct Stage {
    database: Database,
    pub owner: Client,
    member: Client,
    organizations: [Uuid; 2],
    case: u32,
}

static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();

fn stage() -> MutexGuard<'static, Stage> {
    let stage = STAGE.get_or_init(|| {
        let database = Database::create("usher_test_live_workflows");
        let mut owner = database.connect();
        let here = &mut owner;
        run(here, "SELECT usher.install_pack('live_events')");
        role(here, MEMBER, "LOGIN");
        run(here, &format!("GRANT usher_member TO {MEMBER}"));
        let organizations = ["north", "south"].map(|slug| {
            value(here, "SELECT usher.create_organization($1, $2, 'Europe/Berlin')", &[&slug, &format!("{slug} live")])
        });
        run(here, &format!("SELECT usher.grant_membership('north', 'role:{MEMBER}', 'admin')"));
        // A case that fails for good shall not take the seconds that tries are apart, nor one that gathers those in which it does.
        run(
            here,
            "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}'
                    || CASE WHEN definition ? 'batch' THEN jsonb_build_object('batch', definition -> 'batch' || '{\"size\": 1}') ELSE '{}' END)
               FROM usher.flows
              WHERE pack = 'live_events' AND strpos(name, ':') = 0 AND NOT definition -> 'then' ? 'steps'",
        );
        // What the clock does each minute must not happen in the middle of a case; the request for it does the same.
        run(here, "SELECT usher.disable_flow('live_events.refresh_kpis')");
        let member = database.connect_as(MEMBER);
        Mutex::new(Stage { database, owner, member, organizations, case: 0 })
    });
    // A case that failed has told so; the others go on.
    let stage = stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Tests beside the six cases have databases of their own, and the workers with them.
    stage.database.take_workers();
    stage
}

impl Stage {
    fn prepare(&mut self, workflow: &Workflow) -> [Place; 2] {
        self.rows(workflow.prepare)
    }

    /// Both organizations with the rows of a new case.
    pub fn rows(&mut self, prepare: fn(&Place) -> String) -> [Place; 2] {
        self.case += 1;
        let [north, south] = self.organizations;
        let places =
            [("north", north), ("south", south)].map(|(slug, organization)| Place { slug, organization, case: self.case });
        for place in &places {
            run(&mut self.owner, &prepare(place));
        }
        self.settle();
        places
    }

    /// Another session of the owner.
    pub fn another(&self) -> Client {
        self.database.connect()
    }

    /// Does the second while the transaction of the first is open: it waits for that, or is through by then. Returns what came of it.
    pub fn meanwhile(&mut self, first: &str, begin: &str, second: &str) -> Result<(), Error> {
        let [mut here, mut other] = [self.another(), self.another()];
        let process: i32 = value(&mut other, "SELECT pg_backend_pid()", &[]);
        run(&mut other, begin);
        run(&mut here, &format!("BEGIN; {first}"));
        let second = second.to_owned();
        let session = thread::spawn(move || other.batch_execute(&second));
        let waits = format!("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {process} AND wait_event_type = 'Lock')");
        wait::until(wait::LONG, "the other session waits, or is through", || {
            session.is_finished() || value(&mut self.owner, &waits, &[])
        });
        run(&mut here, "COMMIT");
        session.join().expect("the other session has panicked")
    }

    /// Somebody waits for a lock.
    pub fn somebody_waits(&mut self) {
        wait::until_true(
            &mut self.owner,
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        );
    }

    pub fn settle(&mut self) {
        settled(&mut self.owner, wait::LONG);
    }

    /// Everything that tables hold of an organization, in short.
    fn print(&mut self, tables: &[String], organization: Uuid) -> Vec<String> {
        let rows = |table: &String| {
            format!(
                "SELECT '{table} ' || count(*) || ' ' || COALESCE(md5(string_agg(t::text, '|' ORDER BY t::text)), '') AS p FROM {table} AS t WHERE t.organization_id = '{organization}'"
            )
        };
        let sql = tables.iter().map(rows).collect::<Vec<_>>().join(" UNION ALL ");
        let found =
            self.owner.query(&format!("{sql} ORDER BY p"), &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        found.iter().map(|row| row.get(0)).collect()
    }

    fn targets(&mut self, workflow: &Workflow, place: &Place) -> Vec<String> {
        let tables: Vec<String> = workflow.targets.iter().map(ToString::to_string).collect();
        self.print(&tables, place.organization)
    }

    /// All that the pack and the hub hold of an organization.
    fn everything(&mut self, place: &Place) -> Vec<String> {
        let sql = "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE n.nspname IN ('atlvs', 'compvss', 'gvteway', 'live_events') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                      AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'organization_id') ORDER BY 1";
        let tables = self.owner.query(sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        let mut tables: Vec<String> = tables.iter().map(|row| row.get(0)).collect();
        tables.extend(["usher.links", "usher.sync_jobs", "usher.dead_letters", "usher.conflicts"].map(str::to_owned));
        self.print(&tables, place.organization)
    }

    /// Dead letters of an organization: none where nothing is wrong.
    pub fn dead(&mut self, place: &Place) -> Vec<(String, String)> {
        let sql = "SELECT f.name, d.error_message FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id
                    WHERE d.organization_id = $1 ORDER BY d.created_at, d.id";
        let found = self.owner.query(sql, &[&place.organization]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        found.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Jobs of the workflow's flows, and of their steps, that are done.
    fn history(&mut self, workflow: &Workflow, place: &Place) -> i64 {
        let sql = "SELECT count(*) FROM usher.pack_workflows('live_events') AS w JOIN usher.sync_jobs AS j ON split_part(j.flow, ':', 1) = w.part
                    WHERE w.workflow = $1 AND j.organization_id = $2 AND j.status = 'synced'";
        value(&mut self.owner, sql, &[&workflow.number, &place.organization])
    }

    fn act(&mut self, sql: &str) {
        run(&mut self.member, sql);
        self.settle();
    }

    fn met(&mut self, workflow: &Workflow) {
        let [north, south] = self.prepare(workflow);
        let (before, history) = (self.everything(&south), self.history(workflow, &north));
        self.act(&(workflow.act)(&north));
        assert_eq!(self.dead(&north), [], "{}, met: nothing fails", workflow.number);
        assert!(self.history(workflow, &north) > history, "{}, met: the history has its jobs", workflow.number);
        (workflow.check)(&mut self.owner, &north);
        assert_eq!(
            self.everything(&south),
            before,
            "{}, other tenant: nothing of the other organization has changed",
            workflow.number
        );
    }

    fn repeated(&mut self, workflow: &Workflow) {
        let [north, _] = self.prepare(workflow);
        self.act(&(workflow.act)(&north));
        let before = self.targets(workflow, &north);
        self.act(&(workflow.repeat)(&north));
        assert_eq!(self.targets(workflow, &north), before, "{}, repeated: nothing more comes of it", workflow.number);
        (workflow.check)(&mut self.owner, &north);
    }

    fn not_met(&mut self, workflow: &Workflow) {
        let [north, _] = self.prepare(workflow);
        let before = self.targets(workflow, &north);
        self.act(&(workflow.not_met)(&north));
        assert_eq!(self.targets(workflow, &north), before, "{}, not met: nothing is written", workflow.number);
        assert_eq!(self.dead(&north), [], "{}, not met: nothing fails", workflow.number);
    }

    fn rolled_back(&mut self, workflow: &Workflow) {
        let [north, _] = self.prepare(workflow);
        let before = self.everything(&north);
        run(&mut self.member, &format!("BEGIN; {}; ROLLBACK", (workflow.act)(&north)));
        self.settle();
        assert_eq!(self.everything(&north), before, "{}, rolled back: nothing stays", workflow.number);
    }

    fn bad(&mut self, workflow: &Workflow) {
        let [north, _] = self.prepare(workflow);
        let bad = &workflow.bad;
        run(&mut self.owner, &(bad.before)(&north));
        let before = self.targets(workflow, &north);
        self.act(&(bad.act)(&north));
        let dead = self.dead(&north);
        let told = |(flow, error): &(String, String)| flow == bad.flow && error.contains(bad.error);
        assert!(
            dead.len() == 1 && dead.iter().all(told),
            "{}, bad data: one dead letter of {} says \"{}\": {dead:?}",
            workflow.number,
            bad.flow,
            bad.error
        );
        assert_eq!(self.targets(workflow, &north), before, "{}, bad data: nothing is half done", workflow.number);
        run(&mut self.owner, &(bad.repair)(&north));
        self.settle();
        match bad.changes {
            Some(changes) => {
                let changes = changes(&north).replace('\'', "''");
                let sql = format!("SELECT usher.retry_dead_letters('north', '{{\"flow\": \"{}\"}}', '{changes}')", bad.flow);
                assert_eq!(value::<i64>(&mut self.member, &sql, &[]), 1, "{}: a member replays it", workflow.number);
            }
            None => run(&mut self.owner, "DELETE FROM usher.dead_letters"),
        }
        self.settle();
        assert_eq!(self.dead(&north), [], "{}, bad data: repaired and replayed, nothing is left", workflow.number);
        (workflow.check)(&mut self.owner, &north);
    }

    /// What a member of one organization does with rows of the other changes nothing there.
    fn other_tenant(&mut self, workflow: &Workflow) {
        let [_, south] = self.prepare(workflow);
        let before = self.everything(&south);
        // Refused, or about no row: both will do.
        let _ = self.member.batch_execute(&(workflow.act)(&south));
        self.settle();
        assert_eq!(
            self.everything(&south),
            before,
            "{}, other tenant: nothing of the other organization has changed",
            workflow.number
        );
    }
}

/// For what a workflow does beside the six cases: the rows of a case of its own, in `north`.
pub fn alone(prepare: fn(&Place) -> String) -> (MutexGuard<'static, Stage>, Place) {
    let mut stage = stage();
    run(&mut stage.owner, "DELETE FROM usher.dead_letters");
    let [north, _] = stage.rows(prepare);
    (stage, north)
}

/// Runs the six cases of a workflow.
pub fn six(workflow: &Workflow) {
    let stage = &mut *stage();
    run(&mut stage.owner, "DELETE FROM usher.dead_letters");
    stage.met(workflow);
    stage.not_met(workflow);
    stage.repeated(workflow);
    stage.rolled_back(workflow);
    stage.bad(workflow);
    stage.other_tenant(workflow);
}

/// The table of the workflows that are tested here, as the pack's page has it.
pub fn table(workflows: &[&Workflow]) -> String {
    let stage = &mut *stage();
    let mut lines = vec!["| | workflow | flows and rules | six cases |".to_owned(), "|---|---|---|---|".to_owned()];
    for workflow in workflows {
        let sql = format!(
            "SELECT format('| %s | %s | %s | met, not met, repeated, rolled back, bad data repaired and replayed, other tenant |', workflow, min(title),
                           string_agg('`' || replace(part, 'live_events.', '') || '`', ', ' ORDER BY kind, part))
               FROM usher.pack_workflows('live_events') WHERE workflow = '{}' GROUP BY workflow",
            workflow.number
        );
        lines.push(text(&mut stage.owner, &sql));
    }
    lines.join("\n") + "\n"
}
