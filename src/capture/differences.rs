//! What is wrong with the capture triggers of the database, without touching them: for `usher.doctor()`.

use super::attach::{same, wanted_by};
use crate::error::Result;
use crate::flow::store::{self, Listener};
use crate::pg::spi;
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The source table of a flow does not exist.
    NoTable,
    Missing,
    /// There, and does not fire for ordinary sessions.
    Disabled,
    /// There, and not as it was made.
    Changed,
    /// Another function's trigger has its name.
    Foreign,
    /// On a source table, and no flow needs it any more.
    Unneeded,
    /// On a table that no flow listens to.
    Stray,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As SQL, such as `public.orders`.
    pub relation: String,
    /// Its name; empty for a table that is gone.
    pub trigger: String,
    pub fault: Fault,
}

/// A relation to look at: a flow's table or one of its partitions.
struct Relation {
    table: String,
    sql: String,
}

struct Trigger {
    name: String,
    definition: String,
    ours: bool,
    fires: bool,
    relation_sql: String,
}

/// Compares every source table, its partitions, and whatever else has capture triggers, with what the enabled flows need.
/// Runs with the owner's rights.
pub fn find() -> Result<Vec<Difference>> {
    let mut by_table: BTreeMap<String, Vec<Listener>> = BTreeMap::new();
    for listener in store::listening(None)? {
        by_table.entry(listener.table.clone()).or_default().push(listener);
    }
    let relations = relations(by_table.keys())?;
    let triggers = triggers(&relations)?;
    let mut out: Vec<Difference> = by_table
        .keys()
        .filter(|table| !relations.values().any(|relation| relation.table == **table))
        .map(|table| Difference { relation: table.clone(), trigger: String::new(), fault: Fault::NoTable })
        .collect();
    for (oid, relation) in &relations {
        let listeners = by_table.get(&relation.table).map(Vec::as_slice).unwrap_or_default();
        let wanted = wanted_by(&relation.table, &relation.sql, listeners.iter());
        let there = triggers.get(oid).map(Vec::as_slice).unwrap_or_default();
        out.extend(compare(&relation.sql, &wanted, there));
    }
    let strays = triggers.iter().filter(|(oid, _)| !relations.contains_key(oid)).flat_map(|(_, list)| list);
    out.extend(strays.filter(|trigger| trigger.ours).map(|trigger| Difference {
        relation: trigger.relation_sql.clone(),
        trigger: trigger.name.clone(),
        fault: Fault::Stray,
    }));
    out.sort_by(|a, b| (&a.relation, &a.trigger).cmp(&(&b.relation, &b.trigger)));
    Ok(out)
}

fn compare(relation: &str, wanted: &BTreeMap<String, String>, there: &[Trigger]) -> Vec<Difference> {
    let say = |name: &str, fault| Difference { relation: relation.to_owned(), trigger: name.to_owned(), fault };
    let missing = wanted.keys().filter(|name| !there.iter().any(|trigger| trigger.name == **name));
    let mut out: Vec<Difference> = missing.map(|name| say(name, Fault::Missing)).collect();
    out.extend(there.iter().filter_map(|trigger| {
        let fault = match wanted.get(&trigger.name) {
            None if trigger.ours => Fault::Unneeded,
            None => return None,
            Some(_) if !trigger.ours => Fault::Foreign,
            Some(sql) if !same(sql, &trigger.definition) => Fault::Changed,
            Some(_) if !trigger.fires => Fault::Disabled,
            Some(_) => return None,
        };
        Some(say(&trigger.name, fault))
    }));
    out
}

/// The tables and their partitions by oid.
fn relations<'a>(tables: impl Iterator<Item = &'a String>) -> Result<HashMap<u32, Relation>> {
    let found = spi::read_all(
        "SELECT r.oid, x.name, pg_catalog.format('%I.%I', n.nspname, r.relname)
           FROM unnest($1::text[]) AS x (name)
           JOIN pg_catalog.pg_class c ON true JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname || '.' || c.relname = x.name
           CROSS JOIN LATERAL (SELECT c.oid AS id UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(c.oid) t) AS part
           JOIN pg_catalog.pg_class r ON r.oid = part.id JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace",
        &[spi::arg(tables.cloned().collect::<Vec<_>>())],
        |row| {
            let oid = row.get::<pgrx::pg_sys::Oid>(1)?.unwrap_or(pgrx::pg_sys::Oid::INVALID).to_u32();
            let relation =
                Relation { table: row.get::<String>(2)?.unwrap_or_default(), sql: row.get::<String>(3)?.unwrap_or_default() };
            Ok((oid, relation))
        },
    )?;
    Ok(found.into_iter().collect())
}

/// All triggers of these relations, and capture triggers wherever they are.
fn triggers(relations: &HashMap<u32, Relation>) -> Result<HashMap<u32, Vec<Trigger>>> {
    let oids: Vec<pgrx::pg_sys::Oid> = relations.keys().map(|oid| pgrx::pg_sys::Oid::from(*oid)).collect();
    let found = spi::read_all(
        "SELECT t.tgrelid, t.tgname::text, pg_catalog.pg_get_triggerdef(t.oid), p.ours, t.tgenabled IN ('O', 'A'),
                pg_catalog.format('%I.%I', n.nspname, c.relname)
           FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL (SELECT t.tgfoid IN ('usher.capture()'::pg_catalog.regprocedure, 'usher.capture_statement()'::pg_catalog.regprocedure) AS ours) AS p
          WHERE NOT t.tgisinternal AND (p.ours OR t.tgrelid = ANY ($1))",
        &[spi::arg(oids)],
        |row| {
            let relation = row.get::<pgrx::pg_sys::Oid>(1)?.unwrap_or(pgrx::pg_sys::Oid::INVALID).to_u32();
            let trigger = Trigger {
                name: row.get::<String>(2)?.unwrap_or_default(),
                definition: row.get::<String>(3)?.unwrap_or_default(),
                ours: row.get::<bool>(4)?.unwrap_or(false),
                fires: row.get::<bool>(5)?.unwrap_or(false),
                relation_sql: row.get::<String>(6)?.unwrap_or_default(),
            };
            Ok((relation, trigger))
        },
    )?;
    let mut by_relation: HashMap<u32, Vec<Trigger>> = HashMap::new();
    for (relation, trigger) in found {
        by_relation.entry(relation).or_default().push(trigger);
    }
    Ok(by_relation)
}

#[cfg(test)]
mod unit {
    use super::*;

    const SQL: &str = "CREATE TRIGGER t AFTER INSERT ON s.x FOR EACH STATEMENT EXECUTE FUNCTION usher.capture('s.x', '')";

    fn trigger(name: &str, definition: &str, ours: bool, fires: bool) -> Trigger {
        Trigger { name: name.to_owned(), definition: definition.to_owned(), ours, fires, relation_sql: "s.x".to_owned() }
    }

    fn faults(there: &[Trigger]) -> Vec<Fault> {
        let wanted = BTreeMap::from([("t".to_owned(), SQL.to_owned())]);
        compare("s.x", &wanted, there).into_iter().map(|difference| difference.fault).collect()
    }

    #[test]
    fn each_fault_is_told() {
        assert_eq!(faults(&[trigger("t", SQL, true, true)]), []);
        assert_eq!(faults(&[]), [Fault::Missing]);
        assert_eq!(faults(&[trigger("t", SQL, true, false)]), [Fault::Disabled]);
        assert_eq!(faults(&[trigger("t", &SQL.replace("INSERT", "DELETE"), true, true)]), [Fault::Changed]);
        assert_eq!(faults(&[trigger("t", SQL, false, true)]), [Fault::Foreign]);
        assert_eq!(faults(&[trigger("t", SQL, true, true), trigger("u", SQL, true, true)]), [Fault::Unneeded]);
    }

    #[test]
    fn triggers_of_others_are_their_own() {
        assert_eq!(faults(&[trigger("t", SQL, true, true), trigger("theirs", "anything", false, false)]), []);
    }
}
