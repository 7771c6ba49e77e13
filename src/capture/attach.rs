//! Creating and dropping capture triggers, so that each table has just those that its flows need.

use crate::conflict;
use crate::consistency;
use crate::error::Result;
use crate::flow::catalog;
use crate::flow::definition::Change;
use crate::flow::store::{self, Listener};
use crate::guard::attach as audit;
use crate::pg::trigger::locked;
use crate::pg::{event, guc::Nest, spi};
use crate::protect;
use crate::registry::adopt::organizations;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A trigger as it should be: its definition as one string, which is also how an existing one is compared.
pub(super) type Wanted = BTreeMap<String, String>;

/// What a relation needs for these flows of the table.
pub(super) fn wanted_by<'a>(table: &str, relation_sql: &str, listeners: impl Iterator<Item = &'a Listener>) -> Wanted {
    let mut triggers = Wanted::new();
    let mut events = BTreeSet::new();
    let mut shared = BTreeSet::new();
    let mut add = |name: &str, change: Change, flow: &str| {
        let tables = match change {
            Change::Insert => "NEW TABLE AS usher_new",
            Change::Update => "OLD TABLE AS usher_old NEW TABLE AS usher_new",
            Change::Delete => "OLD TABLE AS usher_old",
        };
        triggers.insert(
            name.to_owned(),
            format!(
                "CREATE TRIGGER {} AFTER {} ON {relation_sql} REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION usher.capture({}, {})",
                quote_identifier(name),
                change.word().to_uppercase(),
                quote_literal(table),
                quote_literal(flow)
            ),
        );
    };
    for listener in listeners {
        events.extend(listener.on.iter().copied());
        match &listener.trigger {
            None => shared.extend(listener.on.iter().copied()),
            Some((name, flow)) => {
                // The first event carries the name itself; a trigger with transition tables can have only one.
                let order = [Change::Update, Change::Insert, Change::Delete];
                for (at, change) in order.into_iter().filter(|change| listener.on.contains(change)).enumerate() {
                    let name = if at == 0 { name.clone() } else { format!("{name}_{}", change.word()) };
                    add(&name, change, flow);
                }
            }
        }
    }
    for change in shared {
        add(&format!("usher_capture_{}", change.word()), change, "");
    }
    if !events.is_empty() {
        let list: Vec<String> = events.iter().map(|change| change.word().to_uppercase()).collect();
        triggers.insert(
            "usher_statement".to_owned(),
            format!(
                "CREATE TRIGGER usher_statement BEFORE {} ON {relation_sql} FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement()",
                list.join(" OR ")
            ),
        );
    }
    triggers
}

/// Brings the triggers of a table (`schema.table`) and its partitions in line with the flows. Runs with the owner's rights.
pub fn sync(table: &str) -> Result<usize> {
    sync_within(table, PATIENCE)
}

/// Milliseconds that somebody who changes a flow waits for its table.
pub const PATIENCE: i64 = 5_000;

/// The same, waiting no longer than so many milliseconds for a table that is busy.
pub fn sync_within(given: &str, patience: i64) -> Result<usize> {
    let _nest = Nest::pinned_path().lock_timeout(patience);
    let Some((schema, name)) = catalog::split(given) else { return Ok(0) };
    let table = format!("{schema}.{name}");
    let relations = spi::read_all(
        "SELECT r.oid, pg_catalog.format('%I.%I', n.nspname, r.relname)
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
           CROSS JOIN LATERAL (SELECT c.oid AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(c.oid) t) AS part
           JOIN pg_catalog.pg_class r ON r.oid = part.id JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
          WHERE s.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
        &[spi::arg(schema.as_str()), spi::arg(name.as_str())],
        |row| Ok((row.get::<Oid>(1)?.unwrap_or(Oid::INVALID), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    LOOKED_AT.with_borrow_mut(|looked_at| {
        looked_at.extend(relations.iter().map(|(oid, _)| (oid.to_u32(), given.to_owned())));
    });
    let listeners = store::listening(Some(&table))?;
    let mut existing = existing(relations.iter().map(|(oid, _)| *oid).collect())?;
    let mut changed = 0;
    for (oid, relation_sql) in relations {
        let wanted = wanted_by(&table, &relation_sql, listeners.iter());
        changed += sync_relation(&relation_sql, &wanted, &existing.remove(&oid.to_u32()).unwrap_or_default())?;
    }
    Ok(changed)
}

/// The capture triggers of relations, by relation and name.
fn existing(relations: Vec<Oid>) -> Result<BTreeMap<u32, BTreeMap<String, String>>> {
    let triggers = spi::all(
        "SELECT t.tgrelid, t.tgname::text, pg_catalog.pg_get_triggerdef(t.oid) FROM pg_catalog.pg_trigger t
          WHERE t.tgrelid = ANY ($1) AND NOT t.tgisinternal
            AND t.tgfoid IN ('usher.capture()'::pg_catalog.regprocedure, 'usher.capture_statement()'::pg_catalog.regprocedure)",
        &[spi::arg(relations)],
        |row| {
            let relation = row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32();
            Ok((relation, row.get::<String>(2)?.unwrap_or_default(), row.get::<String>(3)?.unwrap_or_default()))
        },
    )?;
    let mut by_relation: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
    for (relation, name, definition) in triggers {
        by_relation.entry(relation).or_default().insert(name, definition);
    }
    Ok(by_relation)
}

fn sync_relation(relation_sql: &str, wanted: &Wanted, existing: &BTreeMap<String, String>) -> Result<usize> {
    let mut changed = 0;
    for (name, definition) in existing {
        let keep = wanted.get(name).is_some_and(|sql| same(sql, definition));
        if !keep {
            locked(relation_sql, &format!("DROP TRIGGER {} ON {relation_sql}", quote_identifier(name)))?;
            changed += 1;
        }
    }
    for (name, sql) in wanted {
        if !existing.get(name).is_some_and(|definition| same(sql, definition)) {
            locked(relation_sql, sql)?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// PostgreSQL writes a trigger back with events in an order of its own; what matters is which ones there are.
pub(super) fn same(wanted: &str, existing: &str) -> bool {
    let words = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| c.is_whitespace() || c == ',' || c == '(' || c == ')')
            .filter(|word| !word.is_empty() && *word != "OR" && *word != "AS")
            .map(str::to_owned)
            .collect()
    };
    words(wanted) == words(existing)
}

thread_local! {
    /// The relations that were looked at in this process, each with the table of the flows that mean it.
    static LOOKED_AT: RefCell<HashMap<u32, String>> = RefCell::new(HashMap::new());
}

/// The tables to which relations that have changed belong, of those that were looked at before in this process.
pub fn sync_changed(relations: &[Oid]) -> Result<usize> {
    let tables: BTreeSet<String> = LOOKED_AT
        .with_borrow(|looked_at| relations.iter().filter_map(|relation| looked_at.get(&relation.to_u32()).cloned()).collect());
    tables.iter().try_fold(0, |changed, table| Ok(changed + sync(table)?))
}

/// Every table that has capture triggers or should have some.
pub fn sync_all() -> Result<usize> {
    let tables = spi::read_all(
        // As the definition writes it, with quotes where a name needs them.
        "SELECT DISTINCT f.definition -> 'when' ->> 'change' FROM usher.flows f WHERE f.definition -> 'when' ->> 'change' IS NOT NULL",
        &[],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    let mut changed = 0;
    for table in tables {
        changed += sync(&table)?;
    }
    Ok(changed)
}

/// Drops every capture and audit trigger of the database, and whatever else of ours would keep the extension from being dropped.
/// `usher.setup()` makes it all again. Runs with the owner's rights.
pub fn detach_all() -> Result<usize> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(5_000);
    let _ours = event::ours();
    let triggers = spi::all(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %s', t.tgname, pg_catalog.format('%I.%I', n.nspname, c.relname)), pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE NOT t.tgisinternal
            AND t.tgfoid IN ('usher.capture()'::pg_catalog.regprocedure, 'usher.capture_statement()'::pg_catalog.regprocedure)",
        &[],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    for (sql, relation) in &triggers {
        locked(relation, sql)?;
    }
    // What else stands on the extension's functions: audits, what was exposed, the view, the policies and triggers of its
    // own tables.
    let audits = audit::detach_all()?
        + conflict::attach::remove(None)?
        + consistency::attach::remove()?
        + consistency::detach_all()?
        + organizations::detach_from(None)?
        + protect::mend::detach_all()?;
    spi::script(
        "DO $$ BEGIN IF pg_catalog.to_regprocedure('usher.drop_api(text)') IS NOT NULL THEN PERFORM usher.drop_api(); END IF; END $$;
         DO $$
         DECLARE
             statement text;
         BEGIN
             -- In tables of an older version some of these names are no views.
             SELECT 'DROP VIEW ' || pg_catalog.string_agg(pg_catalog.format('usher.%I', c.relname), ', ') INTO statement FROM pg_catalog.pg_class c
              WHERE c.relnamespace = 'usher'::pg_catalog.regnamespace AND c.relkind = 'v'
                AND c.relname IN ('schedules', 'queue', 'registry', 'limits', 'queue_limits', 'rpc_limits', 'pauses', 'sync_jobs', 'visible_ready_jobs', 'visible_done_jobs', 'ready_jobs');
             IF statement IS NOT NULL THEN
                 EXECUTE statement;
             END IF;
             FOR statement IN
                 SELECT pg_catalog.format('DROP POLICY %I ON usher.%I', p.polname, c.relname)
                   FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
                  WHERE c.relnamespace = 'usher'::pg_catalog.regnamespace
                    AND EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc f ON f.oid = d.refobjid
                                 WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
                                   AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.pronamespace = c.relnamespace)
                 UNION ALL
                 SELECT pg_catalog.format('DROP TRIGGER %I ON usher.%I', t.tgname, c.relname)
                   FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                  WHERE c.relnamespace = 'usher'::pg_catalog.regnamespace AND NOT t.tgisinternal
             LOOP
                 EXECUTE statement;
             END LOOP;
         END $$",
    )?;
    Ok(triggers.len() + audits)
}

#[cfg(test)]
mod unit {
    use super::same;

    #[test]
    fn the_order_of_events_does_not_matter() {
        assert!(same(
            "CREATE TRIGGER t BEFORE INSERT OR UPDATE ON s.x FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement()",
            "CREATE TRIGGER t BEFORE UPDATE OR INSERT ON s.x FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement()"
        ));
        assert!(!same(
            "CREATE TRIGGER t BEFORE INSERT ON s.x FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement()",
            "CREATE TRIGGER t BEFORE UPDATE OR INSERT ON s.x FOR EACH STATEMENT EXECUTE FUNCTION usher.capture_statement()"
        ));
    }
}
