//! Rights: what a binding gives at the application's tables, and taking back what it gave.

use super::fitted::{Fitted, quoted};
use super::needs::Needs;
use super::plan::Plan;
use super::rewrite::Fits;
use super::store::{Given, Stored};
use crate::error::{Result, UsherError};
use crate::pg::{role as roles, spi};
use crate::setup::Installed;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use std::collections::BTreeSet;

fn policy(pack: &str) -> String {
    quoted(&format!("usher_{pack}"))
}

fn list(columns: &BTreeSet<&str>) -> String {
    columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn view(fitted: &Fitted) -> String {
    let (schema, view) = fitted.name.split_once('.').unwrap_or_default();
    format!("{}.{}", quoted(schema), quoted(view))
}

/// What the workflows that run need on one table, and no more.
fn of_role(pack: &str, role: &str, fitted: &Fitted, needs: &Needs) -> String {
    let (name, table) = (&fitted.name, &fitted.sql);
    let role = quote_identifier(role);
    let of = |names: &mut dyn Iterator<Item = &String>| -> BTreeSet<&str> {
        names.filter_map(|column| fitted.column(column)).collect()
    };
    let mut sql = if needs.merged.contains(name) || needs.whole.contains(name) {
        format!("GRANT SELECT ON {table} TO {role};\n")
    } else {
        // The view reads them all, and keys of rows are noted by what their table calls its key.
        let mut read = of(&mut fitted.columns.keys());
        read.extend(fitted.fill.keys().map(String::as_str));
        read.extend(fitted.key.iter().map(String::as_str));
        format!("GRANT SELECT ({}) ON {table} TO {role};\n", list(&read))
    };
    if let Some(inserts) = needs.inserts.get(name) {
        let mut columns = of(&mut inserts.iter().flatten());
        columns.extend(fitted.fill.keys().map(String::as_str));
        // A trigger gives every row its id.
        columns.extend(fitted.column("id").filter(|_| needs.inserted_by_functions.contains_key(name)));
        sql += &format!("GRANT INSERT ({}) ON {table} TO {role};\n", list(&columns));
    }
    let changed = needs.updated_by_flows.iter().chain(&needs.updated_by_functions);
    let mut columns = of(&mut changed.filter(|(table, _)| table == name).map(|(_, column)| column));
    if needs.locks.contains(name) {
        columns.extend(fitted.column("id"));
    }
    if !columns.is_empty() {
        sql += &format!("GRANT UPDATE ({}) ON {table} TO {role};\n", list(&columns));
    }
    if needs.deletes.contains(name) {
        sql += &format!("GRANT DELETE ON {table} TO {role};\n");
    }
    let policy = policy(pack);
    sql += &format!(
        "DROP POLICY IF EXISTS {policy} ON {table};
         CREATE POLICY {policy} ON {table} FOR ALL TO {role} USING (true) WITH CHECK (true);
         GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {role};\n",
        view(fitted)
    );
    sql
}

/// What people may do at a view, whether a workflow runs there or not: the rest the application's table says, with their rights on it.
fn of_people(fitted: &Fitted, changed: &BTreeSet<String>) -> String {
    let view = view(fitted);
    let mut sql = format!("GRANT SELECT ON {view} TO usher_member, usher_reader;\n");
    if !changed.is_empty() {
        let columns: Vec<String> = changed.iter().map(|name| quoted(name)).collect();
        sql += &format!("GRANT UPDATE ({}) ON {view} TO usher_member;\n", columns.join(", "));
    }
    sql
}

/// Gives the role what the workflows that run need on the application's tables. Returns what was given, to be taken back: also what another
/// pack has given the same role before, so that it stays until both are gone.
pub fn grant(installed: Installed, pack: &str, role: &str, fits: &Fits, plan: &Plan, earlier: &Earlier) -> Result<Given> {
    let needs = &plan.needs();
    let mut given = Given::default();
    for fitted in fits.values() {
        spi::script(&of_people(fitted, &plan.writes[&fitted.name].by_people))?;
    }
    for fitted in fits.values().filter(|fitted| needs.tables.contains(&fitted.name)) {
        let schema = fitted.table.split_once('.').map_or("", |(schema, _)| schema);
        let allowed = "SELECT pg_catalog.has_schema_privilege($1::pg_catalog.name, $2, 'USAGE')";
        let may = || spi::one::<bool>(allowed, &[spi::arg(role), spi::arg(schema)]).map(|may| may == Some(true));
        if !may()? {
            spi::script(&format!("GRANT USAGE ON SCHEMA {} TO {}", quote_identifier(schema), quote_identifier(role)))?;
            if !may()? {
                return Err(UsherError::forbidden(format!("you may not let {role} use schema {schema}")).hint(format!(
                    "GRANT USAGE ON SCHEMA {} TO {}; as its owner, then again.",
                    quote_identifier(schema),
                    quote_identifier(role)
                )));
            }
            given.schemas.insert(schema.to_owned());
        } else if earlier.others.schemas.contains(schema) {
            given.schemas.insert(schema.to_owned());
        }
        // What was there before would be taken away with the binding.
        let has = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS r ON r.rolname = $2
                                   WHERE c.oid = $1 AND (c.relowner = r.oid OR EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a WHERE a.grantee = r.oid)
                                      OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS t, pg_catalog.aclexplode(t.attacl) AS a
                                                  WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped AND a.grantee = r.oid)))";
        if spi::one::<bool>(has, &[spi::arg(Oid::from(fitted.oid)), spi::arg(role)])? == Some(true) {
            return Err(UsherError::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{role} has rights of its own on {}, which would go with the binding", fitted.table),
            )
            .hint("Give run_as a role that is the pack's alone, or leave it out."));
        }
        spi::script(&of_role(pack, role, fitted, needs))?;
        if needs.inserts.contains_key(&fitted.name) {
            number(role, fitted, earlier, &mut given)?;
        }
        listen(installed, fitted, earlier, &mut given)?;
        given.relations.insert(fitted.oid);
    }
    Ok(given)
}

/// What was given before: by this pack's binding, if it had one, and by those of others.
pub struct Earlier {
    pub own: Given,
    /// To the same role; TRIGGER to whom it always goes.
    pub others: Given,
}

/// Numbers that the table draws for its rows.
fn number(role: &str, fitted: &Fitted, earlier: &Earlier, given: &mut Given) -> Result<()> {
    let sequences = spi::all(
        "SELECT DISTINCT s.oid, pg_catalog.format('%I.%I', n.nspname, s.relname), pg_catalog.has_sequence_privilege($2::pg_catalog.name, s.oid, 'USAGE')
           FROM pg_catalog.pg_attrdef AS a
           JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = a.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
           JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace AS n ON n.oid = s.relnamespace
          WHERE a.adrelid = $1",
        &[spi::arg(Oid::from(fitted.oid)), spi::arg(role)],
        |row| {
            let oid = row.get::<Oid>(1)?.unwrap_or(Oid::INVALID).to_u32();
            Ok((oid, row.get::<String>(2)?.unwrap_or_default(), row.get::<bool>(3)? == Some(true)))
        },
    )?;
    for (oid, name, may) in sequences {
        if !may {
            spi::script(&format!("GRANT USAGE ON SEQUENCE {name} TO {}", quote_identifier(role)))?;
        }
        if !may || earlier.others.sequences.contains(&oid) {
            given.sequences.insert(oid);
        }
    }
    Ok(())
}

/// Flows have their triggers from the owner of pg_usher's tables.
fn listen(installed: Installed, fitted: &Fitted, earlier: &Earlier, given: &mut Given) -> Result<()> {
    let (owner, oid) = (roles::name_of(installed.owner).unwrap_or_default(), fitted.oid);
    if owner.is_empty() {
        return Ok(());
    }
    let lacks = "SELECT NOT pg_catalog.has_table_privilege($1::pg_catalog.name, $2, 'TRIGGER')";
    if spi::one::<bool>(lacks, &[spi::arg(owner.as_str()), spi::arg(Oid::from(oid))])? == Some(true) {
        spi::script(&format!("GRANT TRIGGER ON {} TO {}", fitted.sql, quote_identifier(&owner)))?;
        given.triggers.insert(oid);
    } else if earlier.own.triggers.contains(&oid) || earlier.others.triggers.contains(&oid) {
        given.triggers.insert(oid);
    }
    Ok(())
}

/// Names of what is still there of these relations.
fn names(relations: &BTreeSet<u32>) -> Result<Vec<String>> {
    spi::all(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE c.oid = ANY ($1) ORDER BY 1",
        &[spi::arg(relations.iter().copied().map(Oid::from).collect::<Vec<Oid>>())],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )
}

/// Takes back what [`grant`] gave the role at an earlier time. A table that is gone has taken it along, and so has the role.
pub fn revoke(pack: &str, stored: &Stored, earlier: &Earlier) -> Result<()> {
    if roles::by_name(&stored.run_as).is_none() {
        return Ok(());
    }
    let (role, given, others) = (quote_identifier(&stored.run_as), &stored.given, &earlier.others);
    for table in names(&given.relations)? {
        spi::script(&format!("DROP POLICY IF EXISTS {} ON {table}; REVOKE ALL ON {table} FROM {role}", policy(pack)))?;
    }
    for sequence in names(&given.sequences.difference(&others.sequences).copied().collect())? {
        spi::script(&format!("REVOKE USAGE ON SEQUENCE {sequence} FROM {role}"))?;
    }
    for schema in given.schemas.difference(&others.schemas) {
        let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        if spi::one::<bool>(there, &[spi::arg(schema.as_str())])? == Some(true) {
            spi::script(&format!("REVOKE USAGE ON SCHEMA {} FROM {role}", quote_identifier(schema)))?;
        }
    }
    Ok(())
}

/// Takes back TRIGGER where this pack's flows do not listen any more, and nobody else's do. Whatever became of the pack's role: it was not
/// given to that one.
pub fn end_listening(installed: Installed, earlier: &Earlier, now: &Given) -> Result<()> {
    let owner = roles::name_of(installed.owner).unwrap_or_default();
    let over: BTreeSet<u32> = earlier
        .own
        .triggers
        .iter()
        .filter(|oid| !now.triggers.contains(oid) && !earlier.others.triggers.contains(oid))
        .copied()
        .collect();
    for table in names(&over)? {
        let alone = "SELECT c.relowner <> $2 AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
                                                             JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE t.tgrelid = c.oid AND n.nspname = 'usher')
                       FROM pg_catalog.pg_class AS c WHERE c.oid = $1::pg_catalog.regclass";
        if !owner.is_empty() && spi::one::<bool>(alone, &[spi::arg(table.as_str()), spi::arg(installed.owner)])? == Some(true) {
            spi::script(&format!("REVOKE TRIGGER ON {table} FROM {}", quote_identifier(&owner)))?;
        }
    }
    Ok(())
}
