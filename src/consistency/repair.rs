//! Mending what is bad: violations are looked at again, their rows repaired, looked at again, and what did not help is undone.
//!
//! All of it is one transaction. The rule's query is asked anew for the keys first, so a repair acts on rows as they are now. The rows
//! of an organization are repaired by one statement in a subtransaction; when that fails, by halves, until only the row whose repair
//! fails is left out. Rows that are bad afterwards make the whole of it undone and done again without them. So what a repair has
//! changed is either kept with the violation ended, or not there.

use super::fit::{self, Fitted};
use super::look::{self, Keys, Scope};
use super::repair_fit::{self, Asking, Mender, Way};
use super::repair_images::{self as images, Change};
use super::repair_store::{self as repairs, Open, Record};
use super::store::{self, Rule};
use crate::error::{Result, UsherError};
use crate::pg::spi;
use crate::pg::subxact::{self, Failure};
use crate::pg::{ids, role, xact};
use crate::queue::request::{self, Request};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use pgrx::{JsonB, Uuid};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Rows that one statement repairs.
const MOST: usize = 10_000;
/// Keys that a flow is asked for at once: they stand in the condition by which it finds them.
const MOST_ASKED: usize = 1_000;

/// A repair that somebody, or the rule itself, wants.
pub struct Order<'a> {
    pub installed: Installed,
    pub rule: &'a Rule,
    pub fitted: &'a Fitted,
    pub mender: &'a Mender,
    /// Who is said to have done it.
    pub by: String,
    pub automatic: bool,
    /// What the rows of violations were when the plan was read: those alone are repaired, and only if they are as they were.
    pub expect: Option<HashMap<Uuid, String>>,
}

/// What has become of a violation.
#[derive(Debug, Clone)]
pub struct Line {
    /// None: rows that were changed and belong to no single violation.
    pub violation: Option<Uuid>,
    pub organization: Uuid,
    pub key: Option<Value>,
    pub outcome: &'static str,
    pub error: Option<String>,
    pub changes: Option<Value>,
    pub repair: Option<Uuid>,
}

pub const REPAIRED: &str = "repaired";
pub const ASKED: &str = "asked";
const NOT_BAD: &str = "not bad any more";
const CHANGED: &str = "changed since the plan";
const NO_HELP: &str = "did not help";
const FAILED: &str = "failed";
const NO_HELP_SAID: &str = "the repair did not help";

/// The repair of a rule, or that it has none. Runs with the owner's rights.
pub fn mender(installed: Installed, rule: &Rule, fitted: &Fitted) -> Result<Mender> {
    let told = |mut error: UsherError| {
        error.message = format!("rule \"{}\": {}", rule.name, error.message);
        error
    };
    repair_fit::mender(installed, fitted).map_err(told)?.ok_or_else(|| {
        UsherError::state(format!("rule \"{}\" says nothing about repairing", rule.name))
            .hint("Give it a \"repair\" with usher.alter_rule(), or mend the rows yourself.")
    })
}

/// Refuses a repair that could change rows of other organizations without anybody seeing it.
pub fn seen(rule: &Rule, fitted: &Fitted, mender: &Mender) -> Result<()> {
    match images::unseen(fitted, mender)? {
        None => Ok(()),
        Some(table) => Err(UsherError::state(format!(
            "rule \"{}\": changes of {table} are not noted, so its repair might change rows of other organizations",
            rule.name
        ))
        .hint(format!(
            "usher.alter_rule() with the same definition makes the trigger usher_repairs; that needs the right TRIGGER on {table} for the owner of pg_usher's tables."
        ))),
    }
}

/// Refuses where a repair could not see what others commit, or would have to run what others have left for COMMIT. Takes the rule's lock, and comes back as what
/// the rule is then.
pub fn ready(rule: &Rule) -> Result<Rule> {
    if !xact::sees_new_commits() {
        return Err(UsherError::state("a transaction with one snapshot cannot see what others have written meanwhile")
            .hint("Repair in READ COMMITTED."));
    }
    if xact::may_defer()? && !xact::pending(false)?.is_empty() {
        return Err(UsherError::state("this transaction has deferred constraints or triggers pending")
            .detail("A repair has what is checked at COMMIT checked at once, as the rule's role; what is pending is not its own.")
            .hint("Repair in a transaction of its own, or run SET CONSTRAINTS ALL IMMEDIATE before."));
    }
    store::hold(rule)
}

/// Whose rows they are; None: of nobody.
fn tenant(organization: Uuid) -> Option<Uuid> {
    Some(organization).filter(|id| id.as_bytes() != &[0; 16])
}

fn keys(organization: Uuid, keys: impl Iterator<Item = Value>) -> Keys {
    let keys: Vec<JsonB> = keys.map(JsonB).collect();
    Keys { organizations: keys.iter().map(|_| tenant(organization)).collect(), keys }
}

impl Order<'_> {
    fn line(&self, organization: Uuid, open: &Open, outcome: &'static str) -> Line {
        Line {
            violation: Some(open.id),
            organization,
            key: Some(open.key.clone()),
            outcome,
            error: None,
            changes: None,
            repair: None,
        }
    }

    /// Repairs violations of one organization; the rule's lock is held. Runs with the owner's rights.
    pub fn run(&self, organization: Uuid, chosen: Vec<Uuid>) -> Result<Vec<Line>> {
        let found = repairs::read(organization, chosen)?;
        self.hold(organization, &found)?;
        self.look(organization, found.iter())?;
        let now = repairs::read(organization, found.iter().map(|open| open.id).collect())?;
        let (mut lines, mut wanted) = (Vec::new(), Vec::new());
        for open in now {
            let expected = self.expect.as_ref().map(|expect| expect.get(&open.id));
            if !open.is_open {
                lines.push(self.line(organization, &open, NOT_BAD));
            } else if expected.is_some_and(|expected| expected != Some(&open.hash)) {
                let error = Some("its row is not as it was when the plan was read".to_owned());
                lines.push(Line { error, ..self.line(organization, &open, CHANGED) });
            } else {
                wanted.push(open);
            }
        }
        if !wanted.is_empty() {
            match &self.mender.way {
                Way::Run(sql) => lines.extend(self.mend(organization, sql, wanted)?),
                Way::Ask(asking) => lines.extend(self.ask(organization, asking, wanted)?),
            }
        }
        Ok(lines)
    }

    fn look<'o>(&self, organization: Uuid, open: impl Iterator<Item = &'o Open>) -> Result<()> {
        let keys = keys(organization, open.map(|open| open.key.clone()));
        if !keys.keys.is_empty() {
            look::look(self.installed, self.rule, self.fitted, &Scope::Keys(&keys))?;
        }
        Ok(())
    }

    /// Locks the rows that the keys are of, where the key is columns of one table and the rule's role may: nobody changes them between
    /// the look and the repair. Waits for who is changing them now, and sees what came of it.
    fn hold(&self, organization: Uuid, open: &[Open]) -> Result<()> {
        let Some(sql) = self.holding()? else { return Ok(()) };
        let keys: Vec<JsonB> = open.iter().map(|open| JsonB(open.key.clone())).collect();
        let held = subxact::attempt(|| {
            let _fence = fit::fence_of_repairs();
            let _acting = role::act_as(self.fitted.run_as);
            spi::one::<i64>(&sql, &[spi::arg(keys), spi::arg(organization)])
        });
        match held {
            Err(failure) if failure.is_busy() => Err(failure.into()),
            // It may not, or the table is not what it was: the statement that repairs takes what locks it needs.
            _ => Ok(()),
        }
    }

    fn holding(&self) -> Result<Option<String>> {
        let key = &self.fitted.key;
        let Some(table) = key.first().and_then(|column| column.origin).map(|(table, _)| table) else { return Ok(None) };
        if key.iter().any(|column| column.origin.is_none_or(|(other, _)| other != table)) {
            return Ok(None);
        }
        let Some(known) = self.fitted.reads.iter().find(|read| read.oid == table) else { return Ok(None) };
        let names = spi::read_all(
            "SELECT a.attname::text, a.attnum FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
            &[spi::arg(table)],
            |row| Ok((row.get::<i16>(2)?.unwrap_or_default(), row.get::<String>(1)?.unwrap_or_default())),
        )?;
        let names: HashMap<i16, String> = names.into_iter().collect();
        let column = |at: i16| names.get(&at).map(|name| format!("t.{}", quote_identifier(name))).unwrap_or_default();
        let own: Vec<String> = key.iter().filter_map(|column| column.origin).map(|(_, at)| column(at)).collect();
        let given: Vec<String> = key
            .iter()
            .map(|column| format!("(u.key ->> {})::{}", pgrx::spi::quote_literal(&column.name), column.type_sql))
            .collect();
        let of = if self.fitted.organization.is_some() && known.has_organization() {
            "t.organization_id = $2"
        } else {
            "$2 IS NOT NULL"
        };
        Ok(Some(format!(
            "SELECT pg_catalog.count(*) FROM (SELECT FROM {} AS t WHERE ({}) IN (SELECT {} FROM pg_catalog.unnest($1::jsonb[]) AS u (key)) AND {of}
              ORDER BY {} FOR NO KEY UPDATE OF t) AS h",
            known.sql,
            own.join(", "),
            given.join(", "),
            own.join(", "),
        )))
    }

    /// A statement or a call.
    fn mend(&self, organization: Uuid, sql: &str, wanted: Vec<Open>) -> Result<Vec<Line>> {
        let mut tried = Tried::default();
        let mut parts: Vec<Vec<usize>> = (0..wanted.len()).collect::<Vec<_>>().chunks(MOST).map(<[usize]>::to_vec).collect();
        parts.reverse();
        while let Some(part) = parts.pop() {
            let mut stuck = HashSet::new();
            match subxact::attempt(|| self.once(organization, sql, &wanted, &part, &mut stuck)) {
                Ok((changes, Some(repair))) => tried.helped.push(Helped { rows: part, changes, repair }),
                // Somebody else has mended it at the same moment.
                Ok((_, None)) => tried.failed.extend(part.into_iter().map(|n| (n, None))),
                // Undone for these; the others are done without them.
                Err(_) if !stuck.is_empty() => {
                    let rest: Vec<usize> = part.iter().copied().filter(|n| !stuck.contains(n)).collect();
                    tried.failed.extend(stuck.iter().map(|n| (*n, None)));
                    if !rest.is_empty() {
                        parts.push(rest);
                    }
                }
                Err(failure) if part.len() == 1 => tried.failed.extend(part.iter().map(|n| (*n, Some(failure.clone())))),
                Err(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.push(second.to_vec());
                    parts.push(first.to_vec());
                }
            }
        }
        self.settle(organization, &wanted, tried)
    }

    /// Repairs some rows by one statement, looks at them again, and writes down what was done. Those that are bad all the same come back in `stuck`, with an
    /// error. What does not fit into one value fails like what the statement does, and is done in halves. A statement that has changed nothing has repaired nothing,
    /// and nothing is written down.
    fn once(
        &self,
        organization: Uuid,
        sql: &str,
        wanted: &[Open],
        part: &[usize],
        stuck: &mut HashSet<usize>,
    ) -> Result<(Vec<Change>, Option<Uuid>)> {
        let is_call = self.mender.kind() == "call";
        let before = if is_call { images::written_so_far()? } else { None };
        let noting = images::note();
        let rows = Value::Array(part.iter().map(|n| wanted[*n].row.clone()).collect());
        run_as(self.fitted.run_as, tenant(organization), || spi::run(sql, &[spi::arg(JsonB(rows))]))?;
        let changes = images::taken()?;
        drop(noting);
        self.own(organization, &changes)?;
        let mut cannot_undo = Vec::new();
        if is_call {
            match &before {
                Some(before) => cannot_undo
                    .extend(images::unnoted(before)?.into_iter().map(|table| format!("its changes of {table} were not noted"))),
                None => cannot_undo.push("what it has changed is not known while track_counts is off".to_owned()),
            }
        } else {
            for table in &self.mender.tables {
                if !images::is_noted(table.oid)? {
                    cannot_undo.push(format!("its changes of {} were not noted", table.name));
                }
            }
        }
        let bad = look::find(self.installed, self.fitted, keys(organization, part.iter().map(|n| wanted[*n].key.clone())))?;
        let bad: HashSet<String> =
            bad.into_iter().filter(|bad| bad.organization == organization).map(|bad| bad.key.to_string()).collect();
        stuck.extend(part.iter().copied().filter(|n| bad.contains(&wanted[*n].key.to_string())));
        if !stuck.is_empty() {
            return Err(UsherError::state(NO_HELP_SAID));
        }
        if !is_call && changes.is_empty() && cannot_undo.is_empty() {
            return Ok((changes, None));
        }
        let helped: Vec<&Open> = part.iter().map(|n| &wanted[*n]).collect();
        let repair = self.record(organization, &helped, &changes, cannot_undo)?;
        Ok((changes, Some(repair)))
    }

    /// A repair of an organization's rows keeps to them.
    fn own(&self, organization: Uuid, changes: &[Change]) -> Result<()> {
        let (Some(_), Some(own)) = (&self.fitted.organization, tenant(organization)) else { return Ok(()) };
        let own = Value::String(own.to_string());
        match changes.iter().find(|change| change.values("organization_id").any(|id| !id.is_null() && *id != own)) {
            None => Ok(()),
            Some(change) => Err(UsherError::forbidden(format!(
                "the repair would change a row of {} that belongs to another organization",
                change.table
            ))
            .hint("Join on organization_id as well.")),
        }
    }

    /// What has become of the violations.
    fn settle(&self, organization: Uuid, wanted: &[Open], tried: Tried) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for done in tried.helped {
            let repair = Some(done.repair);
            let helped: Vec<&Open> = done.rows.iter().map(|n| &wanted[*n]).collect();
            repairs::ended(organization, helped.iter().map(|open| open.id).collect())?;
            let mut of = attributed(&self.fitted.definition.key, &helped, &done.changes);
            for open in &helped {
                let changes = of.remove(&Some(open.id)).map(Value::Array);
                lines.push(Line { changes, repair, ..self.line(organization, open, REPAIRED) });
            }
            if let Some(rest) = of.remove(&None) {
                lines.push(Line {
                    violation: None,
                    organization,
                    key: None,
                    outcome: "also changed",
                    error: None,
                    changes: Some(Value::Array(rest)),
                    repair,
                });
            }
        }
        if !tried.failed.is_empty() {
            // Somebody else may have mended it at the same moment: that is why the repair could not.
            self.look(organization, tried.failed.iter().map(|(n, _)| &wanted[*n]))?;
            let said = tried.failed.iter().map(|(n, failure)| {
                let why = failure.as_ref().map_or_else(|| NO_HELP_SAID.to_owned(), Failure::line);
                (wanted[*n].id, why, failure.as_ref().is_some_and(Failure::is_busy))
            });
            let open = repairs::failed(self.rule, self.mender.repair.most, organization, said.collect())?;
            for (n, failure) in tried.failed {
                let line = match failure {
                    _ if !open.contains(&wanted[n].id) => self.line(organization, &wanted[n], NOT_BAD),
                    None => Line { error: Some(NO_HELP_SAID.to_owned()), ..self.line(organization, &wanted[n], NO_HELP) },
                    Some(failure) => Line { error: Some(failure.line()), ..self.line(organization, &wanted[n], FAILED) },
                };
                lines.push(line);
            }
        }
        Ok(lines)
    }

    fn record(&self, organization: Uuid, helped: &[&Open], changes: &[Change], mut cannot_undo: Vec<String>) -> Result<Uuid> {
        if let Some(change) = changes.iter().find(|change| change.key.is_none()) {
            cannot_undo.push(format!("{} has no primary key", change.table));
        }
        if self.mender.kind() == "flow" {
            cannot_undo.push("what the flow does is done by its jobs".to_owned());
        }
        cannot_undo.sort();
        cannot_undo.dedup();
        let record = Record {
            organization,
            id: ids::uuid_v7(),
            rule: self.rule,
            kind: self.mender.kind(),
            violations: helped.iter().map(|open| open.id).collect(),
            by: self.by.clone(),
            automatic: self.automatic,
            run_as: self.fitted.run_as,
            statement: self.mender.says(),
            changes,
            cannot_undo: (!cannot_undo.is_empty()).then(|| cannot_undo.join("; ")),
            undoes: None,
        };
        repairs::write(self.installed, &record)?;
        Ok(record.id)
    }

    /// A flow is asked for the rows; a later look finds what came of it.
    fn ask(&self, organization: Uuid, asking: &Asking, wanted: Vec<Open>) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut asked: Vec<&Open> = Vec::new();
        let mut failed = Vec::new();
        let parts: Vec<&[Open]> = match asking {
            Asking::Request { .. } => wanted.chunks(1).collect(),
            Asking::Rows { .. } => wanted.chunks(MOST_ASKED).collect(),
        };
        for part in parts {
            match subxact::attempt(|| self.ask_for(organization, asking, part)) {
                Ok(()) => asked.extend(part),
                Err(failure) => failed.extend(part.iter().map(|open| (open, failure.clone()))),
            }
        }
        if !asked.is_empty() {
            let repair = self.record(organization, &asked, &[], Vec::new())?;
            repairs::asked(self.rule, self.mender.repair.most, organization, asked.iter().map(|open| open.id).collect())?;
            lines.extend(asked.iter().map(|open| Line { repair: Some(repair), ..self.line(organization, open, ASKED) }));
        }
        if !failed.is_empty() {
            // A flow goes through its table once at a time: that it does so already is no failure of this repair.
            let busy = |failure: &Failure| failure.is_busy() || failure.sqlstate == "55000";
            let said = failed.iter().map(|(open, failure)| (open.id, failure.line(), busy(failure))).collect();
            repairs::failed(self.rule, self.mender.repair.most, organization, said)?;
            for (open, failure) in failed {
                lines.push(Line { error: Some(failure.line()), ..self.line(organization, open, FAILED) });
            }
        }
        Ok(lines)
    }

    fn ask_for(&self, organization: Uuid, asking: &Asking, part: &[Open]) -> Result<()> {
        match asking {
            Asking::Request { from, to, action } => {
                let organization = tenant(organization).unwrap_or(self.installed.default_organization);
                for open in part {
                    let mut payload = open.row.clone();
                    if let Value::Object(fields) = &mut payload {
                        fields.insert("action".to_owned(), json!(action));
                    }
                    let request = Request { organization, source: from.clone(), target: to.clone(), lane: 3, lane_given: false };
                    request::id_of_one(&request, JsonB(payload))?;
                }
                Ok(())
            }
            Asking::Rows { columns, by_organization } => {
                let keys: Vec<&Value> = part.iter().map(|open| &open.key).collect();
                let mut condition = repair_fit::rows_of_keys(columns, &keys);
                if let (true, Some(own)) = (*by_organization, tenant(organization)) {
                    condition = format!("new.organization_id = '{own}'::uuid AND ({condition})");
                }
                let flow = match &self.mender.repair.mend {
                    super::definition::Mend::Flow(flow) => flow.as_str(),
                    _ => "",
                };
                // By its function: long work belongs to a room above this one, which clients call as well.
                spi::one::<Uuid>("SELECT usher.backfill($1, $2)", &[spi::arg(flow), spi::arg(condition)])?;
                Ok(())
            }
        }
    }
}

/// Runs what changes rows of the application as a role, fenced, with what is checked at COMMIT checked now, and its changes noted.
pub fn run_as<T>(role: Oid, organization: Option<Uuid>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = if xact::may_defer()? { xact::pending(false)? } else { HashSet::new() };
    let done = {
        let _fence = fit::fence_of_repairs().noted();
        let _for_organization = identity::for_flow(organization);
        let _acting = role::act_as(role);
        // Never what the caller's own statements have left: it would run with the rights of the rule.
        let settle = before.is_empty();
        if settle {
            spi::script("SET CONSTRAINTS ALL DEFERRED")?;
        }
        let done = work()?;
        if settle {
            spi::script("SET CONSTRAINTS ALL IMMEDIATE")?;
        }
        done
    };
    // Asked afresh: what was called may have made a trigger of its own, or have deferred it again.
    if xact::may_defer()? && !xact::pending(false)?.is_subset(&before) {
        return Err(UsherError::state("the repair left something for COMMIT, where it would run with other rights")
            .detail("A deferred constraint or trigger is pending on a table that was written.")
            .hint("Repair it by itself, outside of BEGIN and COMMIT, or make the constraint or the trigger immediate."));
    }
    Ok(done)
}

/// How the repair of some rows went.
#[derive(Default)]
struct Tried {
    helped: Vec<Helped>,
    /// None: it did not help.
    failed: Vec<(usize, Option<Failure>)>,
}

/// Rows that one statement has repaired.
struct Helped {
    rows: Vec<usize>,
    changes: Vec<Change>,
    repair: Uuid,
}

/// Changes by the violation that they are about: the one whose key the row holds in columns of the same names, as long as that is one.
fn attributed(key: &[String], helped: &[&Open], changes: &[Change]) -> HashMap<Option<Uuid>, Vec<Value>> {
    let only = if let [one] = helped { Some(one.id) } else { None };
    let by_key: HashMap<String, Uuid> = helped
        .iter()
        .map(|open| {
            let values: Vec<String> = key.iter().map(|name| open.key.get(name).unwrap_or(&Value::Null).to_string()).collect();
            (values.join(","), open.id)
        })
        .collect();
    let mut of: HashMap<Option<Uuid>, Vec<Value>> = HashMap::new();
    for change in changes {
        let row = change.after.as_ref().or(change.before.as_ref());
        let values: Option<Vec<String>> =
            row.and_then(|row| key.iter().map(|name| row.get(name).map(Value::to_string)).collect());
        let whose = only.or_else(|| values.and_then(|values| by_key.get(&values.join(",")).copied()));
        of.entry(whose).or_default().push(change.json());
    }
    of
}
