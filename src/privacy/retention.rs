//! What goes by itself when its time is over: rows of the application's tables, or what is personal in them.

use super::graph::{self, erased};
use super::rows::{self, Acting};
use super::store::Erase;
use super::{Patience, erase, store};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::subxact::{self, Failure};
use crate::pg::{role, spi, xact};
use crate::registry::tables::{self, Table};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

/// Rows that are removed in one transaction: more go the next minute.
const MOST: i64 = 10_000;

thread_local! {
    /// Of rules for whose rows there was not the time: how many to try.
    static FEWER: RefCell<HashMap<(String, Action), i64>> = RefCell::default();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Delete,
    Erase,
}

impl Action {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "delete" => Some(Self::Delete),
            "erase" => Some(Self::Erase),
            _ => None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Erase => "erase",
        }
    }
}

/// A rule, as it stands.
pub struct Rule {
    schema: String,
    table: String,
    pub time: String,
    pub keep: String,
    pub action: Action,
    run_as: Oid,
}

/// What a rule would do, or did.
pub struct Due {
    pub table: String,
    pub action: Action,
    pub rows: i64,
    pub oldest: Option<String>,
    /// Old enough, and kept because of a hold.
    pub held: i64,
    pub error: Option<String>,
}

/// The rules. Runs with the owner's rights.
fn rules(shuffled: bool) -> Result<Vec<Rule>> {
    spi::read_all(
        "SELECT r.schema_name, r.table_name, r.time_column, r.keep::text, r.action, r.run_as::oid FROM usher.retention_rules AS r
          ORDER BY CASE WHEN $1 THEN pg_catalog.random() ELSE 0 END, 1, 2, 5",
        &[spi::arg(shuffled)],
        |row| {
            let text = |at| row.get::<String>(at).map(Option::unwrap_or_default);
            Ok(Rule {
                schema: text(1)?,
                table: text(2)?,
                time: text(3)?,
                keep: text(4)?,
                action: Action::named(&text(5)?).unwrap_or(Action::Erase),
                run_as: row.get::<Oid>(6)?.unwrap_or(Oid::INVALID),
            })
        },
    )
}

impl Rule {
    fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    fn table(&self) -> Result<Table> {
        let gone = || {
            UsherError::state(format!("the table {} of a retention rule is gone", self.name()))
                .hint("usher.unset_retention() ends the rule; make the table again and it goes on.")
        };
        let oid = spi::read::<Oid>(
            "SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', $1::text, $2::text))::oid",
            &[spi::arg(self.schema.as_str()), spi::arg(self.table.as_str())],
        )?;
        tables::by_oid(oid.ok_or_else(gone)?)?.ok_or_else(gone)
    }

    /// What is to be done with one row, as SQL: None when there is nothing personal.
    fn changes(&self, table: &Table) -> Result<Option<(String, String)>> {
        let personal: Vec<_> = store::personal()?.into_iter().filter(|(name, _)| *name == table.name).collect();
        // What is sealed looks different each time it is written: nobody could tell which rows are done.
        let sealed = store::sealed(&self.schema, &self.table)?;
        let unclear = |p: &store::Personal| sealed.contains(&p.column) && !matches!(p.erase, Erase::Null | Erase::Keep);
        if let Some((_, personal)) = personal.iter().find(|(_, personal)| unclear(personal)) {
            return Err(UsherError::state(format!(
                "{}.{} is sealed, and would be written anew each time",
                table.name, personal.column
            ))
            .hint("Declare with usher.declare_personal() that it becomes \"null\", or \"keep\" it."));
        }
        let changes: Vec<(String, String)> = personal
            .iter()
            .filter_map(|(_, personal)| Some((quote_identifier(&personal.column), erased(table, personal)?)))
            .collect();
        if changes.is_empty() {
            return Ok(None);
        }
        let set: Vec<String> = changes.iter().map(|(column, value)| format!("{column} = {value}")).collect();
        let differs: Vec<String> = changes
            .iter()
            .map(|(column, value)| {
                // A pseudonym is made for each row: what has one already stays.
                if value.contains("$3") {
                    format!("t.{column}::text NOT LIKE 'erased-%'")
                } else {
                    format!("t.{column}::text IS DISTINCT FROM ({value})::text")
                }
            })
            .collect();
        // Each row a pseudonym of its own.
        let own = "('erased-' || pg_catalog.substr(pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''), 1, 12))";
        Ok(Some((set.join(", ").replace("$3::text", own), differs.join(" OR "))))
    }

    /// The rows whose time is over, about the alias `t`.
    fn old(&self) -> String {
        format!("t.{} < pg_catalog.now() - '{}'::interval", quote_identifier(&self.time), self.keep.replace('\'', "''"))
    }
}

/// A hold that reaches into the table: a condition about the alias `t`, whose `$1` and `$2` are the organization and the values.
pub struct Held {
    pub kind: String,
    pub condition: String,
    pub acting: Acting,
    pub values: Vec<String>,
}

pub fn holds(table: &Table) -> Result<Vec<Held>> {
    let active = spi::read_all(
        "SELECT h.organization_id, h.kind, pg_catalog.array_agg(h.subject) FILTER (WHERE h.subject IS NOT NULL), pg_catalog.bool_or(h.subject IS NULL)
           FROM usher.legal_holds AS h WHERE h.released_at IS NULL GROUP BY 1, 2 ORDER BY 1, 2",
        &[],
        |row| {
            let keys = row.get::<Vec<String>>(3)?.unwrap_or_default();
            Ok((row.get::<Uuid>(1)?, row.get::<String>(2)?.unwrap_or_default(), keys, row.get::<bool>(4)? == Some(true)))
        },
    )?;
    let mut found = Vec::new();
    for (organization, kind, keys, everybody) in active {
        let Some(organization) = organization else { continue };
        let mut graph = graph::of(&kind)?;
        if !graph.owned().any(|at| graph.nodes[at].table.oid == table.oid) {
            continue;
        }
        let acting = Acting { organization, run_as: graph.subject.run_as, alone: false };
        let keys = if everybody { rows::keys(acting, &graph)? } else { keys };
        erase::resolve(&mut graph, acting, keys)?;
        for at in graph.owned().filter(|at| graph.nodes[*at].table.oid == table.oid) {
            let alias = graph.alias(at);
            let condition = format!(
                "EXISTS (SELECT FROM {} AS {alias} WHERE {alias}.ctid = t.ctid AND {alias}.tableoid = t.tableoid AND {})",
                table.sql,
                graph.predicate(at)
            );
            found.push(Held { kind: kind.clone(), condition, acting, values: graph.values(at) });
        }
    }
    Ok(found)
}

/// Refuses to delete where rows that are held hang on the table, or the table is a part of theirs: these would go with it unseen.
fn nothing_held_below(table: &Table) -> Result<()> {
    if !store::held(None)? {
        return Ok(());
    }
    let below = spi::read::<Vec<Oid>>(
        "WITH RECURSIVE d (id) AS (
             SELECT $1
             UNION
             SELECT n.id FROM d CROSS JOIN LATERAL (
                 SELECT k.conrelid FROM pg_catalog.pg_constraint AS k WHERE k.confrelid = d.id AND k.contype = 'f' AND k.confdeltype IN ('c', 'n', 'd')
                 UNION ALL SELECT pg_catalog.pg_partition_root(d.id::pg_catalog.regclass)::oid) AS n (id) WHERE n.id IS NOT NULL)
         SELECT pg_catalog.array_agg(d.id) FROM d WHERE d.id <> $1",
        &[spi::arg(table.oid)],
    )?
    .unwrap_or_default();
    let kinds = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(DISTINCT h.kind) FROM usher.legal_holds AS h WHERE h.released_at IS NULL",
        &[],
    )?;
    for kind in kinds.unwrap_or_default() {
        let graph = graph::of(&kind)?;
        if let Some(at) = graph.owned().find(|at| below.contains(&graph.nodes[*at].table.oid)) {
            return Err(UsherError::state(format!(
                "rows of {} that are held could go with rows of {}",
                graph.nodes[at].table.name, table.name
            ))
            .hint("Set the rule for the table that has the person's rows, or wait until the holds are released."));
        }
    }
    Ok(())
}

/// What tells a row of `t` from others while statements follow each other.
fn identity(table: &Table) -> String {
    if table.key.is_empty() {
        return "(t.tableoid::text || t.ctid::text)".to_owned();
    }
    let columns: Vec<String> = table.key.iter().map(|name| format!("t.{}", quote_identifier(name))).collect();
    format!("pg_catalog.concat_ws('|', {})", columns.join(", "))
}

/// Goes through the rules. `dry`: only counts. Runs with the owner's rights; each rule's rows with those of its role.
pub fn apply(installed: Installed, dry: bool, only: Option<Oid>, patience: Option<Patience>) -> Result<Vec<Due>> {
    let (rules, alone) = (rules(patience.is_some())?, !xact::in_block());
    let begin = Instant::now();
    if !dry && !rules.is_empty() {
        if !xact::sees_new_commits() {
            return Err(UsherError::state("a transaction with one snapshot cannot see what others have held meanwhile")
                .hint("Call usher.apply_retention() in READ COMMITTED."));
        }
        // Nobody else at the same rules, and no hold in between.
        let lock = || {
            spi::run("LOCK TABLE usher.retention_rules IN SHARE UPDATE EXCLUSIVE MODE", &[])?;
            spi::run("LOCK TABLE usher.legal_holds IN SHARE MODE", &[])
        };
        subxact::attempt_within(patience.map(|patience| patience.each), lock)?;
    }
    let mut done = Vec::new();
    for rule in rules {
        if Patience::is_over(patience, begin) {
            break;
        }
        let due = match in_time(&rule, patience, begin, |most| one(&rule, dry, only, alone, most)) {
            Ok(None) => continue,
            Ok(Some(due)) => due,
            Err(failure) => {
                Due { table: rule.name(), action: rule.action, rows: 0, oldest: None, held: 0, error: Some(failure.line()) }
            }
        };
        if !dry {
            note(installed, &rule, &due)?;
        }
        done.push(due);
    }
    Ok(done)
}

/// As many rows as there is time for: when it was not enough, a tenth of them; when it was, more the next time.
fn in_time(
    rule: &Rule,
    patience: Option<Patience>,
    begin: Instant,
    work: impl Fn(i64) -> Result<Option<Due>>,
) -> std::result::Result<Option<Due>, Failure> {
    let Some(limit) = patience else { return subxact::attempt(|| work(MOST)) };
    let key = (rule.name(), rule.action);
    let mut most = FEWER.with_borrow(|fewer| fewer.get(&key).copied()).unwrap_or(MOST);
    loop {
        let done = subxact::attempt_within(Some(limit.each), || work(most));
        let overdue = matches!(&done, Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED);
        let full = matches!(&done, Ok(Some(due)) if due.rows >= most);
        let next = if overdue {
            (most / 10).max(1)
        } else if full {
            (most * 2).min(MOST)
        } else {
            most
        };
        FEWER.with_borrow_mut(|fewer| if next == MOST { fewer.remove(&key) } else { fewer.insert(key.clone(), next) });
        if !overdue || most == 1 || Patience::is_over(patience, begin) {
            return done;
        }
        most = next;
    }
}

fn note(installed: Installed, rule: &Rule, due: &Due) -> Result<()> {
    spi::run(
        "UPDATE usher.retention_rules AS r SET last_run_at = pg_catalog.clock_timestamp(), last_rows = $4, last_error = $5
          WHERE r.schema_name = $1 AND r.table_name = $2 AND r.action = $3
            AND ($4 > 0 OR r.last_error IS DISTINCT FROM $5 OR r.last_run_at IS NULL OR r.last_run_at < pg_catalog.now() - interval '1 hour')",
        &[
            spi::arg(rule.schema.as_str()),
            spi::arg(rule.table.as_str()),
            spi::arg(rule.action.word()),
            spi::arg(due.rows),
            spi::arg(due.error.clone()),
        ],
    )?;
    if due.rows > 0 {
        let what = json!({"action": rule.action.word(), "rows": due.rows, "keep": rule.keep, "held": due.held});
        audit::note(installed, None, "usher.retention.applied", &due.table, None, Some(what))?;
    }
    Ok(())
}

fn one(rule: &Rule, dry: bool, only: Option<Oid>, alone: bool, most: i64) -> Result<Option<Due>> {
    let table = rule.table()?;
    if only.is_some_and(|only| only != table.oid) {
        return Ok(None);
    }
    if rule.action == Action::Delete {
        nothing_held_below(&table)?;
    }
    let (set, wanted) = match rule.action {
        Action::Delete => (None, "true".to_owned()),
        Action::Erase => match rule.changes(&table)? {
            Some((set, differs)) => (Some(set), format!("({differs})")),
            None => (None, "false".to_owned()),
        },
    };
    // Who is held is found with the rights of the kind's definition.
    let mut held = Vec::new();
    for hold in holds(&table)? {
        let sql = format!(
            "SELECT pg_catalog.array_agg({}) FROM {} AS t WHERE {} AND {wanted} AND {}",
            identity(&table),
            table.sql,
            rule.old(),
            hold.condition
        );
        let arguments = [spi::arg(hold.acting.organization), spi::arg(hold.values)];
        held.extend(hold.acting.within(|| spi::read::<Vec<String>>(&sql, &arguments))?.unwrap_or_default());
    }
    held.sort_unstable();
    held.dedup();
    let due = format!("{} AND {wanted} AND {} <> ALL ($1)", rule.old(), identity(&table));
    let acting = Acting { organization: crate::setup::installed()?.default_organization, run_as: rule.run_as, alone };
    let time = format!("t.{}", quote_identifier(&rule.time));
    let (rows, oldest) = if dry {
        let counted = format!("SELECT pg_catalog.count(*), pg_catalog.min({time})::text FROM {} AS t WHERE {due}", table.sql);
        acting
            .within(|| {
                spi::read_all(&counted, &[spi::arg(held.clone())], |row| {
                    Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<String>(2)?))
                })
            })?
            .pop()
            .unwrap_or_default()
    } else {
        let chosen = format!(
            "SELECT t.ctid, t.tableoid, {time} AS at FROM {} AS t WHERE {due} ORDER BY {time} LIMIT {most} FOR UPDATE SKIP LOCKED",
            table.sql
        );
        let act = match &set {
            None => {
                format!("DELETE FROM {} AS t USING d WHERE t.ctid = d.ctid AND t.tableoid = d.tableoid RETURNING d.at", table.sql)
            }
            Some(set) => format!(
                "UPDATE {} AS t SET {set} FROM d WHERE t.ctid = d.ctid AND t.tableoid = d.tableoid RETURNING d.at",
                table.sql
            ),
        };
        let sql = format!(
            "WITH d AS MATERIALIZED ({chosen}), done AS ({act}) SELECT pg_catalog.count(*), pg_catalog.min(at)::text FROM done"
        );
        acting
            .changing(|| {
                spi::all(&sql, &[spi::arg(held.clone())], |row| Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<String>(2)?)))
            })?
            .pop()
            .unwrap_or_default()
    };
    Ok(Some(Due { table: table.name.clone(), action: rule.action, rows, oldest, held: held.len() as i64, error: None }))
}

/// What a worker does once a minute. Runs with the owner's rights.
pub fn run(installed: Installed, patience: Patience) -> Result<()> {
    for due in apply(installed, false, None, Some(patience))? {
        if let Some(error) = due.error {
            pgrx::warning!("retention of {}: {error}", due.table);
        }
    }
    Ok(())
}

/// Sets a rule. The caller was checked.
pub fn set(
    installed: Installed,
    table: &tables::Named,
    time: &str,
    keep: &str,
    action: Action,
    run_as: Oid,
    by: &str,
) -> Result<()> {
    let _acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.retention_rules AS r (schema_name, table_name, time_column, keep, action, run_as, set_by) VALUES ($1, $2, $3, $4::text::interval, $5, $6::oid::regrole, $7)
         ON CONFLICT ON CONSTRAINT retention_rules_pkey
         DO UPDATE SET time_column = EXCLUDED.time_column, keep = EXCLUDED.keep, run_as = EXCLUDED.run_as, set_by = EXCLUDED.set_by, set_at = pg_catalog.now(), last_error = NULL",
        &[
            spi::arg(table.schema.as_str()),
            spi::arg(table.name.as_str()),
            spi::arg(time),
            spi::arg(keep),
            spi::arg(action.word()),
            spi::arg(run_as),
            spi::arg(by),
        ],
    )?;
    let what = json!({"keep": keep, "time": time, "action": action.word()});
    audit::note(installed, None, "usher.retention.set", &format!("{}.{}", table.schema, table.name), None, Some(what))
}
