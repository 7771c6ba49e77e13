//! What the walks share: one database with the pack, in which each has two organizations of its own.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use usher_clients::{Client, Database, Uuid, role, run, settled, text, value, wait};

static STAGE: OnceLock<Mutex<Database>> = OnceLock::new();

/// One organization.
#[derive(Clone)]
pub struct Town {
    pub slug: String,
    pub id: Uuid,
}

impl Town {
    /// The id of a row by a name of the walk's own.
    pub fn id(&self, name: &str) -> Uuid {
        // FNV-1a of 128 bits: any spread will do.
        let (offset, prime): (u128, u128) =
            (0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, 0x0000_0000_0100_0000_0000_0000_0000_013b);
        let text = format!("{} {name}", self.id);
        Uuid::from_u128(text.bytes().fold(offset, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(prime)))
    }

    /// A row of the pack's table; values are SQL.
    pub fn add(&self, table: &str, name: &str, columns: &[(&str, &str)]) -> String {
        let names: String = columns.iter().map(|(column, _)| format!(", {column}")).collect();
        let values: String = columns.iter().map(|(_, value)| format!(", {value}")).collect();
        format!("INSERT INTO platform.{table} (organization_id, id{names}) VALUES ('{}', '{}'{values});", self.id, self.id(name))
    }

    pub fn set(&self, table: &str, name: &str, what: &str) -> String {
        format!("UPDATE platform.{table} SET {what} WHERE organization_id = '{}' AND id = '{}';", self.id, self.id(name))
    }

    pub fn emit(&self, event: &str, data: &str) -> String {
        format!("SELECT usher.emit_event('{}', '{event}', '{data}');", self.slug)
    }

    /// `'id'`, for a value.
    pub fn the(&self, name: &str) -> String {
        format!("'{}'", self.id(name))
    }
}

/// Modules crm, whose configuration has a whole number of seats, and billing; the package suite brings both.
pub fn suite(town: &Town) -> String {
    town.add(
        "module_registry",
        "crm",
        &[("code", "'crm'"), ("config_schema", r#"'{"properties": {"seats": {"type": "integer"}}}'"#)],
    ) + &town.add("module_registry", "billing", &[("code", "'billing'")])
        + &town.add("marketplace_packages", "suite", &[("code", "'suite'"), ("module_codes", "'{crm,billing}'")])
}

/// A workflow and a run of it in this state.
pub fn run_of(town: &Town, name: &str, status: &str, more: &[(&str, &str)]) -> String {
    let (workflow, state) = (format!("{name} workflow"), format!("'{status}'"));
    let the = town.the(&workflow);
    let mut columns = vec![("workflow_id", the.as_str()), ("status", state.as_str())];
    columns.extend(more);
    let label = format!("'{name}'");
    town.add("orchestration_workflows", &workflow, &[("name", &label)]) + &town.add("workflow_executions", name, &columns)
}

/// What a walk has in its hands.
pub struct Walk {
    pub database: Database,
    pub owner: Client,
    /// An admin of `near`, and nothing elsewhere.
    pub admin: Client,
    /// The role that `admin` is.
    pub login: String,
    pub near: Town,
    pub far: Town,
    _alone: MutexGuard<'static, Database>,
}

/// Two organizations for a walk. One walk goes at a time.
pub fn walk(name: &str) -> Walk {
    let stage = STAGE.get_or_init(|| {
        let database = Database::create("usher_test_checkpoints");
        let here = &mut database.connect();
        run(here, "SELECT usher.install_pack('platform')");
        // What fails for good shall do so soon, and what is broken count soon.
        run(
            here,
            "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": [0.1, 0.2, 0.3]}}') FROM usher.flows WHERE pack = 'platform';
             SELECT usher.alter_rule(name, definition || '{\"grace\": \"1500ms\", \"every\": \"1s\"}') FROM usher.rules WHERE pack = 'platform'",
        );
        Mutex::new(database)
    });
    // A walk that failed has told so; the others go on.
    let alone = stage.lock().unwrap_or_else(PoisonError::into_inner);
    let database = alone.clone();
    database.take_workers();
    let mut owner = database.connect();
    let login = format!("clients_walk_{name}");
    role(&mut owner, &login, "LOGIN");
    let [near, far] = ["near", "far"].map(|which| {
        let slug = format!("{name}-{which}");
        let id = value(&mut owner, "SELECT usher.create_organization($1)", &[&slug]);
        Town { slug, id }
    });
    run(
        &mut owner,
        &format!("GRANT usher_member TO {login}; SELECT usher.grant_membership('{}', 'role:{login}', 'admin')", near.slug),
    );
    let admin = database.connect_as(&login);
    Walk { database, owner, admin, login, near, far, _alone: alone }
}

impl Walk {
    /// Rows to begin with, in both organizations alike.
    #[track_caller]
    pub fn prepare(&mut self, rows: impl Fn(&Town) -> String) {
        run(&mut self.owner, &(rows(&self.near) + &rows(&self.far)));
        self.settle();
    }

    #[track_caller]
    pub fn settle(&mut self) {
        settled(&mut self.owner, wait::LONG);
    }

    /// What the admin does, until everything that follows from it is done.
    #[track_caller]
    pub fn act(&mut self, sql: &str) {
        run(&mut self.admin, sql);
        self.settle();
    }

    #[track_caller]
    pub fn says(&mut self, what: &str, sql: &str, wanted: &str) {
        assert_eq!(text(&mut self.owner, sql), wanted, "{what}: {sql}\n{}", wait::jobs(&mut self.owner));
    }

    /// The dead letters of an organization: flow and error.
    pub fn dead(&mut self, town: &Town) -> Vec<(String, String)> {
        let sql = "SELECT f.name, d.error_message FROM usher.dead_letters AS d JOIN usher.flows AS f ON f.id = d.flow_id WHERE d.organization_id = $1 ORDER BY d.created_at, d.id";
        let rows = self.owner.query(sql, &[&town.id]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// The one dead letter that there is, of this flow, says this.
    #[track_caller]
    pub fn died(&mut self, flow: &str, error: &str) {
        let near = self.near.clone();
        let dead = self.dead(&near);
        let told = |(of, said): &(String, String)| *of == format!("platform.{flow}") && said.contains(error);
        assert!(dead.len() == 1 && dead.iter().all(told), "one dead letter of {flow} says \"{error}\": {dead:?}");
    }

    /// The dead letter is replayed, with these changes, and everything that follows is done.
    #[track_caller]
    pub fn replay(&mut self, flow: &str, changes: &str) {
        let near = self.near.clone();
        let sql = format!("SELECT usher.retry_dead_letters('{}', '{{\"flow\": \"platform.{flow}\"}}', '{changes}')", near.slug);
        assert_eq!(value::<i64>(&mut self.admin, &sql, &[]), 1, "an admin replays it");
        self.settle();
        assert_eq!(self.dead(&near), [], "nothing is left of it");
    }

    #[track_caller]
    pub fn nothing_dead(&mut self) {
        for town in [self.near.clone(), self.far.clone()] {
            assert_eq!(self.dead(&town), [], "{}", town.slug);
        }
    }

    /// Everything that the pack and the hub hold of the other organization, in short.
    pub fn elsewhere(&mut self) -> Vec<String> {
        // A look may have come between a row and what follows from it; once that is there it ends by itself.
        let standing = format!(
            "SELECT NOT EXISTS (SELECT FROM usher.violations WHERE organization_id = '{}' AND status IN ('pending', 'open'))",
            self.far.id
        );
        wait::until_true(&mut self.owner, &standing);
        self.settle();
        let sql = "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind = 'r' ORDER BY 1";
        let tables = self.owner.query(sql, &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        let mut tables: Vec<String> = tables.iter().map(|row| row.get(0)).collect();
        assert_eq!(tables.len(), 12, "{tables:?}");
        tables.extend(
            ["links", "sync_jobs", "dead_letters", "events", "notifications", "violations", "repairs"]
                .map(|name| format!("usher.{name}")),
        );
        let print = |table: &String| {
            format!(
                "SELECT '{table} ' || count(*) || ' ' || COALESCE(md5(string_agg(t::text, '|' ORDER BY t::text)), '') AS p FROM {table} AS t WHERE t.organization_id = '{}'",
                self.far.id
            )
        };
        let sql = tables.iter().map(print).collect::<Vec<_>>().join(" UNION ALL ");
        let found =
            self.owner.query(&format!("{sql} ORDER BY p"), &[]).unwrap_or_else(|error| panic!("{}", wait::describe(&error)));
        found.iter().map(|row| row.get(0)).collect()
    }

    /// In the end the rules of the pack find nothing in an organization: asked by hand, and not through the hub.
    #[track_caller]
    pub fn holds(&mut self, town: &Town) {
        let rules = self
            .owner
            .query("SELECT name, definition ->> 'query' FROM usher.rules WHERE pack = 'platform' ORDER BY name", &[])
            .expect("the rules");
        assert_eq!(rules.len(), 4);
        for rule in rules {
            let (name, query): (String, String) = (rule.get(0), rule.get(1));
            let left = format!("SELECT count(*) = 0 FROM ({query}) AS q WHERE q.organization_id = '{}'", town.id);
            wait::until(wait::LONG, &format!("{}: rule {name} holds", town.slug), || value(&mut self.owner, &left, &[]));
        }
    }

    /// The server's clock, for [`Self::repaired`].
    pub fn now(&mut self) -> String {
        text(&mut self.owner, "SELECT clock_timestamp()::text")
    }

    /// As a violation of this key, by itself, within seconds: found, and repaired by the rule, since then.
    #[track_caller]
    pub fn repaired(&mut self, since: &str, rule: &str, key: &str) {
        let near = self.near.id;
        let sql = format!(
            "SELECT COALESCE(bool_or(v.status = 'repaired' AND v.repaired_at >= '{since}' AND EXISTS (SELECT FROM usher.repairs AS r WHERE r.automatic AND v.id = ANY (r.violations) AND jsonb_array_length(r.changes) > 0
                    AND EXISTS (SELECT FROM usher.audit_log AS a WHERE a.action = 'usher.rules.repaired' AND a.new ->> 'repair' = r.id::text))), false)
               FROM usher.violations AS v WHERE v.rule = 'platform.{rule}' AND v.organization_id = '{near}' AND v.key @> '{key}'"
        );
        // What no rule hears of is found by the clock, and a worker looks at its clock every minute whatever else it has missed.
        if wait::poll(Duration::from_secs(150), || value::<bool>(&mut self.owner, &sql, &[]).then_some(())).is_none() {
            panic!("rule {rule} has not repaired {key} since {since}\n{}", self.rules());
        }
        self.settle();
    }

    /// How the rules are doing, for messages of failed tests.
    fn rules(&mut self) -> String {
        text(
            &mut self.owner,
            "SELECT string_agg(line, E'\\n') FROM (
                 SELECT concat_ws(' | ', '  rule', name, state, enabled, last_checked_at, wait, check_at, last_found, changes, sweep_began_at, last_error_at, last_error) AS line FROM usher.rules
                 UNION ALL SELECT concat_ws(' | ', '  violation', rule, status, key, first_seen_at, due_at, seen, times, repairs, manual, last_error) FROM usher.violations
                            WHERE status IN ('pending', 'open') OR ended_at > now() - interval '3 min'
                 UNION ALL SELECT concat_ws(' | ', '  process', pid, backend_type, state, wait_event, xact_start, query) FROM pg_stat_activity WHERE datname = current_database()
                 UNION ALL SELECT concat_ws(' | ', '  now', clock_timestamp())) AS l",
        )
    }
}
