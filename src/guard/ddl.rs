//! Schema changes of audited tables: who altered or dropped them is entered like a change of a row.

use super::audit;
use crate::error::Result;
use crate::pg::spi;
use crate::setup::Installed;
use serde_json::json;

struct Change {
    table: String,
    done: String,
    object: String,
    command: String,
}

fn enter(installed: Installed, changes: Vec<Change>) -> Result<()> {
    for change in changes {
        let new = Some(json!({"command": change.command}));
        audit::note(installed, None, &format!("{}.{}", change.table, change.done), &change.object, None, new)?;
    }
    Ok(())
}

fn change(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Change> {
    let text = |column| Ok::<_, crate::error::UsherError>(row.get::<String>(column)?.unwrap_or_default());
    Ok(Change { table: text(1)?, done: text(2)?, object: text(3)?, command: text(4)? })
}

/// In an event trigger at the end of a command: what it has done to audited tables, and to triggers, indexes and policies on
/// them. Runs with the owner's rights.
pub fn changed(installed: Installed) -> Result<()> {
    let changes = spi::read_all(
        "SELECT DISTINCT a.schema_name || '.' || a.table_name, 'altered', c.object_identity, c.command_tag
           FROM pg_catalog.pg_event_trigger_ddl_commands() AS c
           CROSS JOIN LATERAL (
                SELECT c.objid AS id WHERE c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                UNION ALL SELECT i.indrelid FROM pg_catalog.pg_index AS i WHERE i.indexrelid = c.objid AND c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                UNION ALL SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t WHERE t.oid = c.objid AND c.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
                UNION ALL SELECT p.polrelid FROM pg_catalog.pg_policy AS p WHERE p.oid = c.objid AND c.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
                UNION ALL SELECT r.ev_class FROM pg_catalog.pg_rewrite AS r WHERE r.oid = c.objid AND c.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass) AS o
           JOIN pg_catalog.pg_class AS r ON r.oid = o.id JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
           JOIN usher.audited_tables AS a ON a.schema_name = n.nspname AND a.table_name = r.relname
          ORDER BY 1, 3, 4",
        &[],
        change,
    )?;
    enter(installed, changes)
}

/// In an event trigger after objects were dropped: audited tables, and what stood on them and was named.
pub fn dropped(installed: Installed) -> Result<()> {
    let changes = spi::read_all(
        "SELECT DISTINCT a.schema_name || '.' || a.table_name, CASE o.object_type WHEN 'table' THEN 'dropped' ELSE 'altered' END, o.object_identity,
                'DROP ' || pg_catalog.upper(pg_catalog.regexp_replace(o.object_type, '^table (?=.)', ''))
           FROM pg_catalog.pg_event_trigger_dropped_objects() AS o
           JOIN usher.audited_tables AS a
             ON a.schema_name = o.address_names[1] AND a.table_name = o.address_names[2]
          WHERE o.object_type = 'table' OR o.original AND o.object_type IN ('trigger', 'policy', 'rule', 'table column', 'table constraint')
          ORDER BY 1, 3, 4",
        &[],
        change,
    )?;
    enter(installed, changes)
}
