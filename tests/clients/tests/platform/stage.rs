//! The flows of the pack platform, from outside: the condition is met, is not met, the cause is repeated, is rolled back, the data are bad until
//! somebody repairs them, and another organization is not touched.
//!
//! Each flow says what is there before, what somebody does, and what must have come of it; the cases are put together here.

use std::sync::{Mutex, MutexGuard, OnceLock};
use usher_clients::{Client, Database, Uuid, role, run, settled, text, value, wait};

/// What a flow does, as its file describes it. SQL is a function of the place, so that the same is said of every organization.
pub struct Case {
    /// Such as P3, and what is tried of it.
    pub pattern: &'static str,
    pub name: &'static str,
    /// Tables that it writes: they stay as they were where nothing must happen.
    pub targets: &'static [&'static str],
    /// What is there before, in both organizations. Run by the owner.
    pub prepare: fn(&Place) -> String,
    /// What somebody does that sets it off. Run by an admin of the organization.
    pub act: fn(&Place) -> String,
    /// What must have come of it: exactly, once. Panics if not.
    pub check: fn(&mut Client, &Place),
    /// The same deed, but for the condition.
    pub not_met: fn(&Place) -> String,
    /// The deed once more: nothing more comes of it.
    pub repeat: fn(&Place) -> String,
    pub bad: Bad,
}

/// Data that the flow cannot take.
pub struct Bad {
    /// What makes them bad, if it is not the deed itself. Run by the owner.
    pub before: fn(&Place) -> String,
    /// Done instead of [`Case::act`].
    pub act: fn(&Place) -> String,
    /// The flow whose job fails, and what its error says.
    pub flow: &'static str,
    pub error: &'static str,
    /// What somebody repairs, run by the owner.
    pub repair: fn(&Place) -> String,
    /// What the dead letter is given, as `usher.retry_dead_letters` takes it; `{}` when the repair is enough.
    pub changes: fn(&Place) -> String,
}

/// An organization in one case, with ids of its own.
#[derive(Clone, Copy)]
pub struct Place {
    pub slug: &'static str,
    pub organization: Uuid,
    /// Another one for each case: codes and names are made of it.
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

/// The repair is enough.
pub fn unchanged(_: &Place) -> String {
    "{}".to_owned()
}

pub const ADMIN: &str = "clients_platform_admin";
pub const MEMBER: &str = "clients_platform_member";

/// The one database of these tests: the pack is installed once, and every case has rows of its own.
pub struct Stage {
    pub database: Database,
    pub owner: Client,
    /// An admin of `north`, and nothing elsewhere.
    pub admin: Client,
    /// A member of `north`.
    pub member: Client,
    organizations: [Uuid; 2],
    case: u32,
}

static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();

pub fn stage() -> MutexGuard<'static, Stage> {
    let stage = STAGE.get_or_init(|| {
        let database = Database::create("usher_test_platform");
        let mut owner = database.connect();
        let here = &mut owner;
        run(here, "SELECT usher.install_pack('platform')");
        let organizations = ["north", "south"].map(|slug| value(here, "SELECT usher.create_organization($1)", &[&slug]));
        for (name, rank) in [(ADMIN, "admin"), (MEMBER, "member")] {
            role(here, name, "LOGIN");
            run(here, &format!("GRANT usher_member TO {name}; SELECT usher.grant_membership('north', 'role:{name}', '{rank}')"));
        }
        // A case that fails for good shall not take the seconds that tries are apart, nor one that gathers those in which it does.
        run(
            here,
            "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}'
                    || CASE WHEN definition ? 'batch' THEN jsonb_build_object('batch', definition -> 'batch' || '{\"size\": 1}') ELSE '{}' END)
               FROM usher.flows WHERE pack = 'platform'",
        );
        let (admin, member) = (database.connect_as(ADMIN), database.connect_as(MEMBER));
        Mutex::new(Stage { database, owner, admin, member, organizations, case: 0 })
    });
    // A case that failed has told so; the others go on.
    let mut stage = stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    stage.database.take_workers();
    run(&mut stage.owner, "RESET ROLE; DELETE FROM usher.dead_letters");
    // What the rules find and mend by the clock, rows that another case left bad too, is in nobody's way here: a test of that enables them.
    // Nor is what one has found there: of that each organization is told by a notice once in a while, which is an event of the pack.
    run(&mut stage.owner, "SELECT usher.disable_rule(name) FROM usher.rules WHERE enabled");
    run(&mut stage.owner, "DELETE FROM usher.violations");
    stage
}

impl Stage {
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

    #[track_caller]
    pub fn settle(&mut self) {
        settled(&mut self.owner, wait::LONG);
    }

    #[track_caller]
    pub fn act(&mut self, sql: &str) {
        run(&mut self.admin, sql);
        self.settle();
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

    fn targets(&mut self, case: &Case, place: &Place) -> Vec<String> {
        let tables: Vec<String> = case.targets.iter().map(ToString::to_string).collect();
        self.print(&tables, place.organization)
    }

    /// All that the pack and the hub hold of an organization.
    pub fn everything(&mut self, place: &Place) -> Vec<String> {
        let sql = "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind = 'r' ORDER BY 1";
        let tables = self.owner.query(sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        let mut tables: Vec<String> = tables.iter().map(|row| row.get(0)).collect();
        assert_eq!(tables.len(), 12, "{tables:?}");
        tables.extend(
            ["usher.links", "usher.sync_jobs", "usher.dead_letters", "usher.events", "usher.notifications"].map(str::to_owned),
        );
        self.print(&tables, place.organization)
    }

    /// Dead letters of an organization: none where nothing is wrong.
    pub fn dead(&mut self, place: &Place) -> Vec<(String, String)> {
        let sql = "SELECT f.name, d.error_message FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id
                    WHERE d.organization_id = $1 ORDER BY d.created_at, d.id";
        let found = self.owner.query(sql, &[&place.organization]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        found.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Jobs of the pattern's flows that are done.
    fn history(&mut self, case: &Case, place: &Place) -> i64 {
        let sql = "SELECT count(*) FROM usher.pack_workflows('platform') AS w JOIN usher.sync_jobs AS j ON j.flow = w.part
                    WHERE w.workflow = $1 AND j.organization_id = $2 AND j.status = 'synced'";
        value(&mut self.owner, sql, &[&case.pattern, &place.organization])
    }

    fn met(&mut self, case: &Case) {
        let [north, south] = self.rows(case.prepare);
        let (before, history) = (self.everything(&south), self.history(case, &north));
        self.act(&(case.act)(&north));
        assert_eq!(self.dead(&north), [], "{}, met: nothing fails", case.name);
        assert!(self.history(case, &north) > history, "{}, met: the history has its jobs", case.name);
        (case.check)(&mut self.owner, &north);
        assert_eq!(self.everything(&south), before, "{}: nothing of the other organization has changed", case.name);
    }

    fn repeated(&mut self, case: &Case) {
        let [north, _] = self.rows(case.prepare);
        self.act(&(case.act)(&north));
        let before = self.targets(case, &north);
        self.act(&(case.repeat)(&north));
        assert_eq!(self.targets(case, &north), before, "{}, repeated: nothing more comes of it", case.name);
        (case.check)(&mut self.owner, &north);
        assert_eq!(self.dead(&north), [], "{}, repeated: nothing fails", case.name);
    }

    fn not_met(&mut self, case: &Case) {
        let [north, _] = self.rows(case.prepare);
        let before = self.targets(case, &north);
        self.act(&(case.not_met)(&north));
        assert_eq!(self.targets(case, &north), before, "{}, not met: nothing is written", case.name);
        assert_eq!(self.dead(&north), [], "{}, not met: nothing fails", case.name);
    }

    fn rolled_back(&mut self, case: &Case) {
        let [north, _] = self.rows(case.prepare);
        let before = self.everything(&north);
        run(&mut self.admin, &format!("BEGIN; {}; ROLLBACK", (case.act)(&north)));
        self.settle();
        assert_eq!(self.everything(&north), before, "{}, rolled back: nothing stays", case.name);
    }

    fn bad(&mut self, case: &Case) {
        let [north, _] = self.rows(case.prepare);
        let bad = &case.bad;
        run(&mut self.owner, &(bad.before)(&north));
        self.settle();
        let before = self.targets(case, &north);
        self.act(&(bad.act)(&north));
        let dead = self.dead(&north);
        let told = |(flow, error): &(String, String)| flow == bad.flow && error.contains(bad.error);
        assert!(
            dead.len() == 1 && dead.iter().all(told),
            "{}, bad data: one dead letter of {} says \"{}\": {dead:?}",
            case.name,
            bad.flow,
            bad.error
        );
        assert_eq!(self.targets(case, &north), before, "{}, bad data: nothing is half done", case.name);
        run(&mut self.owner, &(bad.repair)(&north));
        self.settle();
        let changes = (bad.changes)(&north).replace('\'', "''");
        let sql = format!("SELECT usher.retry_dead_letters('north', '{{\"flow\": \"{}\"}}', '{changes}')", bad.flow);
        assert_eq!(value::<i64>(&mut self.admin, &sql, &[]), 1, "{}: an admin replays it", case.name);
        self.settle();
        assert_eq!(self.dead(&north), [], "{}, bad data: repaired and replayed, nothing is left", case.name);
        (case.check)(&mut self.owner, &north);
    }

    /// What an admin of one organization does with rows of the other changes nothing there.
    fn other_tenant(&mut self, case: &Case) {
        let [_, south] = self.rows(case.prepare);
        let before = self.everything(&south);
        // Refused, or about no row: both will do.
        let _ = self.admin.batch_execute(&(case.act)(&south));
        self.settle();
        assert_eq!(self.everything(&south), before, "{}: nothing of the other organization has changed", case.name);
    }
}

/// Runs the six cases.
pub fn six(case: &Case) {
    let stage = &mut *stage();
    stage.met(case);
    stage.not_met(case);
    stage.repeated(case);
    stage.rolled_back(case);
    stage.bad(case);
    stage.other_tenant(case);
}

/// The table of the patterns, as the pack's page has it, with the cases that are tried of each.
pub fn table(cases: &[&Case]) -> String {
    let stage = &mut *stage();
    let sql = "SELECT workflow, min(title), string_agg('`' || replace(part, 'platform.', '') || '`', ', ' ORDER BY part)
                 FROM usher.pack_workflows('platform') GROUP BY workflow ORDER BY workflow";
    let found = stage.owner.query(sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
    let mut lines = vec!["| | pattern | flows | tried in six cases |".to_owned(), "|---|---|---|---|".to_owned()];
    for row in found {
        let (pattern, title, flows): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let tried: Vec<&str> = cases.iter().filter(|case| case.pattern == pattern).map(|case| case.name).collect();
        lines.push(format!("| {pattern} | {title} | {flows} | {} |", tried.join("; ")));
    }
    lines.join("\n") + "\n"
}

/// One line of text that a query puts together.
#[track_caller]
pub fn says(here: &mut Client, sql: &str, wanted: &str) {
    assert_eq!(text(here, sql), wanted, "{sql}");
}
