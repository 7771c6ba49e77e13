//! Checks of flows and of what they need on the application's tables.

use super::{Finding, Seen, listed, problem, warning};
use crate::capture::differences::{self, Difference, Fault};
use crate::error::Result;
use crate::pg::spi;
use pgrx::spi::quote_identifier;

struct Flow {
    name: String,
    broken: Option<String>,
    role: Option<String>,
    superuser: bool,
}

pub fn flows() -> Result<Seen> {
    let flows = spi::read_all(
        "SELECT f.name, CASE WHEN f.state = 'broken' THEN COALESCE(f.reason, 'no reason is known') END, r.rolname::text, COALESCE(r.rolsuper, false)
           FROM usher.flows f LEFT JOIN pg_catalog.pg_roles r ON r.oid = f.run_as ORDER BY f.name",
        &[],
        |row| {
            Ok(Flow {
                name: row.get::<String>(1)?.unwrap_or_default(),
                broken: row.get::<String>(2)?,
                role: row.get::<String>(3)?,
                superuser: row.get::<bool>(4)?.unwrap_or(false),
            })
        },
    )?;
    let mut findings = listed(flows.iter().filter_map(broken).collect());
    findings.extend(listed(flows.iter().filter_map(wrong_role).collect()));
    let count = flows.len();
    Ok((format!("{count} flow{}, none broken", if count == 1 { "" } else { "s" }), findings))
}

fn broken(flow: &Flow) -> Option<Finding> {
    let reason = flow.broken.as_ref()?;
    Some(problem(
        format!("flow \"{}\" is broken, its jobs wait: {reason}", flow.name),
        format!("Mend the table, or give the flow a definition that fits: SELECT usher.alter_flow('{}', …);", flow.name),
    ))
}

fn wrong_role(flow: &Flow) -> Option<Finding> {
    match &flow.role {
        None => Some(problem(
            format!("the role that flow \"{}\" runs as is gone", flow.name),
            format!("Name another in \"run_as\": SELECT usher.alter_flow('{}', …);", flow.name),
        )),
        Some(role) if flow.superuser => Some(warning(
            format!("flow \"{}\" runs as superuser {role}", flow.name),
            format!("Name a role with just the rights it needs in \"run_as\": SELECT usher.alter_flow('{}', …);", flow.name),
        )),
        Some(_) => None,
    }
}

pub fn triggers() -> Result<Seen> {
    let findings = differences::find()?.iter().map(fault).collect();
    Ok(("every source table has the triggers that its flows need".to_owned(), listed(findings)))
}

/// The event triggers by which a schema change reaches the flows that it touches.
pub fn schema_changes() -> Result<Seen> {
    let findings = spi::read_all(
        "SELECT w.name, e.oid IS NOT NULL
           FROM unnest(ARRAY['usher_follow_ddl', 'usher_follow_drop']) AS w (name)
           LEFT JOIN pg_catalog.pg_event_trigger e ON e.evtname = w.name
          WHERE e.oid IS NULL OR e.evtenabled NOT IN ('O', 'A') ORDER BY w.name",
        &[],
        |row| {
            let name = row.get::<String>(1)?.unwrap_or_default();
            Ok(if row.get::<bool>(2)? == Some(true) {
                warning(
                    format!("event trigger {name} is disabled: a flow that a schema change breaks is found at its next job"),
                    format!("ALTER EVENT TRIGGER {name} ENABLE;"),
                )
            } else {
                problem(
                    format!("event trigger {name} is missing"),
                    "ALTER EXTENSION pg_usher UPDATE; or drop and create the extension.",
                )
            })
        },
    )?;
    Ok(("schema changes are followed as they are made".to_owned(), findings))
}

fn fault(difference: &Difference) -> Finding {
    let Difference { relation, trigger, fault } = difference;
    let name = quote_identifier(trigger);
    let attach = "SELECT usher.attach_all();";
    match fault {
        Fault::NoTable => problem(
            format!("the source table {relation} does not exist"),
            "Create it again, or drop the flows that listen to it with usher.drop_flow().",
        ),
        Fault::Missing => problem(format!("trigger {name} is missing on {relation}: its changes are not captured"), attach),
        Fault::Disabled => problem(
            format!("trigger {name} on {relation} is disabled: its changes are not captured"),
            format!("ALTER TABLE {relation} ENABLE TRIGGER {name};"),
        ),
        Fault::Changed => problem(format!("trigger {name} on {relation} is not as pg_usher made it"), attach),
        Fault::Foreign => problem(
            format!("{relation} has a trigger {name} of somebody else, in place of the one that captures changes"),
            format!("Rename it: ALTER TRIGGER {name} ON {relation} RENAME TO …; then {attach}"),
        ),
        Fault::Unneeded => warning(format!("no flow needs trigger {name} on {relation} any more"), attach),
        Fault::Stray => {
            warning(format!("no flow needs trigger {name} on {relation} any more"), format!("DROP TRIGGER {name} ON {relation};"))
        }
    }
}

pub fn primary_keys() -> Result<Seen> {
    let rows = spi::read_all(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.string_agg(f.name, ', ' ORDER BY f.name)
           FROM usher.flows f JOIN usher.flow_versions v ON v.flow_id = f.id AND v.version = f.version
           JOIN pg_catalog.pg_class c ON true
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname || '.' || c.relname = v.compiled ->> 'source'
          WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
          GROUP BY 1 ORDER BY 1",
        &[],
        |row| {
            let table = row.get::<String>(1)?.unwrap_or_default();
            Ok(warning(
                format!(
                    "{table} has no primary key: changes of one row may take effect in another order ({})",
                    row.get::<String>(2)?.unwrap_or_default()
                ),
                format!("ALTER TABLE {table} ADD PRIMARY KEY (…);"),
            ))
        },
    )?;
    Ok(("every source table has one".to_owned(), listed(rows)))
}
