//! Masking columns of a table: taking away the right to read them, and the view that shows masks.
//!
//! Whoever could read the whole table reads its other columns from then on, each by a right of its own; a named reader keeps what
//! there was, or is given the column. Everything is written down with the declaration, and undone with it. The table's owner and
//! superusers read everything, as ever.

use super::check::Target;
use super::declare;
use super::readers;
use super::store::{self, How, Protection, Taken};
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::trigger::locked;
use crate::pg::{catalog, role, spi, subxact};
use crate::registry::tables::Column;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

/// The comment of a view that was made here begins so.
const MARK: &str = "pg_usher: ";

/// Somebody's right to read the table (`attnum` 0) or one of its columns.
struct Grant {
    grantee: Oid,
    name: Option<String>,
    grantable: bool,
    attnum: i16,
}

impl Grant {
    fn to(&self) -> String {
        to(self.name.as_deref())
    }
}

fn to(grantee: Option<&str>) -> String {
    grantee.map_or("PUBLIC".to_owned(), quote_identifier)
}

fn option(grantable: bool) -> &'static str {
    if grantable { " WITH GRANT OPTION" } else { "" }
}

/// A masked column, as the catalog numbers it.
struct Masked {
    protection: Protection,
    attnum: i16,
    readers: Vec<Oid>,
}

fn grants(table: Oid) -> Result<Vec<Grant>> {
    spi::all(
        "SELECT x.grantee, r.rolname::text, pg_catalog.bool_or(x.is_grantable), x.attnum
           FROM (SELECT a.grantee, a.is_grantable, 0::smallint AS attnum FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
                  WHERE c.oid = $1 AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
                 UNION ALL
                 SELECT a.grantee, a.is_grantable, t.attnum FROM pg_catalog.pg_attribute AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.attrelid
                  CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) AS a
                  WHERE t.attrelid = $1 AND NOT t.attisdropped AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner) AS x
           LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = x.grantee
          WHERE x.grantee = 0 OR r.oid IS NOT NULL GROUP BY 1, 2, 4 ORDER BY x.attnum, 2",
        &[spi::arg(table)],
        |row| {
            Ok(Grant {
                grantee: row.get::<Oid>(1)?.unwrap_or(Oid::INVALID),
                name: row.get::<String>(2)?,
                grantable: row.get::<bool>(3)?.unwrap_or(false),
                attnum: row.get::<i16>(4)?.unwrap_or(0),
            })
        },
    )
}

/// The table's columns and their numbers, in their order.
fn numbered(target: &Target) -> Result<Vec<(i16, Column)>> {
    let found = spi::all(
        "SELECT a.attnum, a.attname::text FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        &[spi::arg(target.table.oid)],
        |row| Ok((row.get::<i16>(1)?.unwrap_or(0), row.get::<String>(2)?.unwrap_or_default())),
    )?;
    Ok(found.into_iter().filter_map(|(number, name)| Some((number, target.table.column(&name)?.clone()))).collect())
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|name| quote_identifier(*name)).collect::<Vec<_>>().join(", ")
}

/// Brings rights and view of a table in line with its masked columns; says in words what members read. Runs with the rights of a
/// member of the table's owner.
pub fn sync(installed: Installed, target: &Target, patience: i64) -> Result<String> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(patience);
    let declared = {
        let _acting = role::internal(installed.owner);
        store::of_table(&target.schema, &target.name)?
    };
    let columns = numbered(target)?;
    let mut masked: Vec<Masked> = declared
        .into_iter()
        .filter(|protection| protection.how == How::Masked)
        .filter_map(|protection| {
            let attnum = columns.iter().find(|(_, column)| column.name == protection.column)?.0;
            let readers = protection.readers.iter().filter_map(|name| role::by_name(readers::role_of(name)?)).collect();
            Some(Masked { protection, attnum, readers })
        })
        .collect();
    if masked.is_empty() {
        drop_view(target)?;
        return Ok("nothing is masked".to_owned());
    }
    let before: Vec<Vec<Taken>> = masked.iter().map(|column| column.protection.taken.clone()).collect();
    take(target, &columns, &mut masked)?;
    all_taken(target, &masked)?;
    {
        let _acting = role::internal(installed.owner);
        for (column, _) in masked.iter().zip(&before).filter(|(column, before)| column.protection.taken != **before) {
            store::record_taken(column.protection.id, &column.protection.taken)?;
        }
    }
    view(target, &masked)
}

fn take(target: &Target, columns: &[(i16, Column)], masked: &mut [Masked]) -> Result<()> {
    let table = &target.table.sql;
    let last = columns.last().map_or(0, |(number, _)| *number);
    let found = grants(target.table.oid)?;
    for grant in &found {
        let closed: Vec<i16> =
            masked.iter().filter(|column| !column.readers.contains(&grant.grantee)).map(|column| column.attnum).collect();
        let to = grant.to();
        if grant.attnum == 0 && !closed.is_empty() {
            let open: Vec<&str> =
                columns.iter().filter(|(number, _)| !closed.contains(number)).map(|(_, column)| column.name.as_str()).collect();
            locked(table, &format!("REVOKE SELECT ON {table} FROM {to}"))?;
            if !open.is_empty() {
                locked(table, &format!("GRANT SELECT ({}) ON {table} TO {to}{}", list(&open), option(grant.grantable)))?;
            }
        } else if closed.contains(&grant.attnum) {
            let name = columns.iter().find(|(number, _)| *number == grant.attnum).map(|(_, column)| column.name.as_str());
            locked(table, &format!("REVOKE SELECT ({}) ON {table} FROM {to}", list(&name.into_iter().collect::<Vec<_>>())))?;
        }
        for column in masked.iter_mut().filter(|column| closed.contains(&column.attnum)) {
            let whole = grant.attnum == 0;
            if !whole && grant.attnum != column.attnum {
                continue;
            }
            let taken = &mut column.protection.taken;
            // A reader who is none any more: what was given is taken, and nothing to be given back.
            if !whole && taken.iter().any(|known| known.given && known.grantee == grant.name) {
                continue;
            }
            match taken.iter_mut().find(|known| known.grantee == grant.name && !known.given) {
                Some(known) => {
                    known.whole |= whole;
                    known.upto = if whole { last } else { known.upto };
                }
                None => taken.push(Taken {
                    grantee: grant.name.clone(),
                    whole,
                    grantable: grant.grantable,
                    given: false,
                    upto: if whole { last } else { 0 },
                }),
            }
        }
    }
    later_columns(table, columns, masked, &found, last)?;
    for column in masked.iter_mut() {
        give(target, column)?;
    }
    Ok(())
}

/// What another than the owner has granted is not the owner's to take: refused, so that nobody thinks that it is masked.
fn all_taken(target: &Target, masked: &[Masked]) -> Result<()> {
    let found = grants(target.table.oid)?;
    let open = |column: &&Masked| {
        let of_column =
            |grant: &&Grant| (grant.attnum == 0 || grant.attnum == column.attnum) && !column.readers.contains(&grant.grantee);
        found.iter().find(of_column)
    };
    let Some((column, grant)) = masked.iter().find_map(|column| Some((column, open(&column)?))) else { return Ok(()) };
    Err(UsherError::state(format!("{} can read {} although it is no reader of it", grant.to(), column.protection.name()))
        .detail("The right was granted by somebody else than the owner of the table.")
        .hint("\\dp shows behind the slash who granted it; that role must REVOKE it, or lose its grant option with CASCADE."))
}

/// Columns that came later are for those who could read the whole table, unless nothing of it was left to them.
fn later_columns(table: &str, columns: &[(i16, Column)], masked: &mut [Masked], found: &[Grant], last: i16) -> Result<()> {
    let wholes: Vec<Taken> = masked
        .iter()
        .flat_map(|column| column.protection.taken.iter())
        .filter(|taken| taken.whole && taken.upto < last)
        .cloned()
        .collect();
    for taken in wholes {
        let id = taken.grantee.as_deref().and_then(role::by_name);
        let closed: Vec<i16> = masked
            .iter()
            .filter(|column| id.is_none_or(|id| !column.readers.contains(&id)))
            .map(|column| column.attnum)
            .collect();
        let new: Vec<&str> = columns
            .iter()
            .filter(|(number, _)| *number > taken.upto && !closed.contains(number))
            .map(|(_, column)| column.name.as_str())
            .collect();
        let reads = found.iter().any(|grant| grant.name == taken.grantee);
        if !new.is_empty() && reads && (taken.grantee.is_none() || id.is_some()) {
            let to = to(taken.grantee.as_deref());
            locked(table, &format!("GRANT SELECT ({}) ON {table} TO {to}{}", list(&new), option(taken.grantable)))?;
        }
        for known in masked.iter_mut().flat_map(|column| column.protection.taken.iter_mut()) {
            if known.whole && known.grantee == taken.grantee {
                known.upto = last;
            }
        }
    }
    Ok(())
}

/// A reader who could read the column as one of many, or not at all, gets it.
fn give(target: &Target, column: &mut Masked) -> Result<()> {
    let table = &target.table.sql;
    let names: Vec<String> =
        column.protection.readers.iter().filter_map(|name| readers::role_of(name)).map(str::to_owned).collect();
    let lacking = spi::all(
        "SELECT r.rolname::text FROM pg_catalog.pg_roles AS r
          WHERE r.rolname::text = ANY ($2) AND NOT pg_catalog.has_column_privilege(r.oid, $1, $3, 'SELECT') ORDER BY 1",
        &[spi::arg(target.table.oid), spi::arg(names.clone()), spi::arg(column.attnum)],
        |row| Ok(row.get::<String>(1)?.unwrap_or_default()),
    )?;
    let name = quote_identifier(&column.protection.column);
    for reader in lacking {
        locked(table, &format!("GRANT SELECT ({name}) ON {table} TO {}", quote_identifier(&reader)))?;
        column.protection.taken.push(Taken { grantee: Some(reader), whole: false, grantable: false, given: true, upto: 0 });
    }
    // Who is no reader any more: the right was taken with all others above.
    column.protection.taken.retain(|taken| !taken.given || taken.grantee.as_ref().is_some_and(|name| names.contains(name)));
    Ok(())
}

/// Gives back what the declaration has taken. Runs with the rights of a member of the table's owner.
pub fn give_back(installed: Installed, target: &Target, protection: &Protection, patience: i64) -> Result<()> {
    let _nest = Nest::pinned_path().quiet().lock_timeout(patience);
    // Its columns change with the end of the mask.
    drop_view(target)?;
    let mut others: Vec<Protection> = {
        let _acting = role::internal(installed.owner);
        let declared = store::of_table(&target.schema, &target.name)?.into_iter();
        declared.filter(|other| other.how == How::Masked && other.id != protection.id).collect()
    };
    let table = &target.table.sql;
    let name = quote_identifier(&protection.column);
    let found = grants(target.table.oid)?;
    for taken in &protection.taken {
        let there = taken.grantee.as_deref().is_none_or(|name| role::by_name(name).is_some());
        if !there {
            continue;
        }
        let to = to(taken.grantee.as_deref());
        if taken.given {
            locked(table, &format!("REVOKE SELECT ({name}) ON {table} FROM {to}"))?;
            continue;
        }
        // Somebody has taken the rest away meanwhile: so this is not given back.
        if taken.whole && !found.iter().any(|grant| grant.name == taken.grantee) {
            continue;
        }
        let closed = others.iter().any(|other| other.taken.iter().any(|known| known.grantee == taken.grantee && !known.given));
        if taken.whole && !closed {
            // With the table's right those of its columns go.
            locked(table, &format!("REVOKE SELECT ON {table} FROM {to}"))?;
            locked(table, &format!("GRANT SELECT ON {table} TO {to}{}", option(taken.grantable)))?;
            continue;
        }
        locked(table, &format!("GRANT SELECT ({name}) ON {table} TO {to}{}", option(taken.grantable)))?;
        for known in others.iter_mut().flat_map(|other| other.taken.iter_mut()) {
            if taken.whole && known.grantee == taken.grantee && !known.given {
                known.whole = true;
                known.upto = known.upto.max(taken.upto);
            }
        }
    }
    let _acting = role::internal(installed.owner);
    for other in &others {
        store::record_taken(other.id, &other.taken)?;
    }
    Ok(())
}

/// The name of a table's view.
pub fn view_name(table: &str) -> String {
    let mut end = table.len().min(56);
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_masked", &table[..end])
}

/// Made here, and no one else's.
fn ours(oid: Oid) -> Result<bool> {
    let sql = "SELECT COALESCE(pg_catalog.starts_with(pg_catalog.obj_description($1, 'pg_class'), $2), false) AND c.relkind = 'v' FROM pg_catalog.pg_class AS c WHERE c.oid = $1";
    Ok(spi::read::<bool>(sql, &[spi::arg(oid), spi::arg(MARK)])? == Some(true))
}

fn drop_view(target: &Target) -> Result<()> {
    let name = view_name(&target.name);
    match catalog::relation(&target.schema, &name) {
        Some(oid) if ours(oid)? => {
            let sql = quote_qualified_identifier(&target.schema, &name);
            locked(&sql, &format!("DROP VIEW {sql}"))
        }
        _ => Ok(()),
    }
}

/// Why a view with its owner's rights would show more rows than the table does. None: it would not.
fn unsafe_to_show(target: &Target) -> Result<Option<&'static str>> {
    let facts = spi::all(
        "SELECT c.relrowsecurity, c.relforcerowsecurity,
                EXISTS (SELECT FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND NOT p.polpermissive),
                EXISTS (SELECT FROM pg_catalog.pg_policy AS p
                         WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND p.polpermissive
                           AND (0 = ANY (p.polroles) OR pg_catalog.to_regrole('usher_member') = ANY (p.polroles))
                           AND pg_catalog.regexp_replace(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '\\s', '', 'g')
                             = '(organization_id=ANY((SELECTusher.member_organizations()ASmember_organizations)::uuid[]))')
           FROM pg_catalog.pg_class AS c WHERE c.oid = $1",
        &[spi::arg(target.table.oid)],
        |row| Ok([1, 2, 3, 4].map(|column| row.get::<bool>(column).ok().flatten().unwrap_or(false))),
    )?;
    let [secured, forced, restrictive, plain] = facts.into_iter().next().unwrap_or_default();
    Ok(match (secured, target.table.has_organization()) {
        (false, _) => None,
        (true, false) => Some("its row level security goes by something else than organizations"),
        (true, true) if forced => Some("its row level security is forced upon its owner"),
        (true, true) if restrictive || !plain => Some("its row level security goes by more than the organization"),
        (true, true) => None,
    })
}

fn shown(masked: &Masked, column: &Column, organization: bool) -> String {
    let name = quote_identifier(&column.name);
    let id = quote_literal(declare::id(&masked.protection).to_string());
    let clear = format!("pg_catalog.concat(t.{name})");
    let mask = match &masked.protection.mask {
        Some(mask) => format!("{}::pg_catalog.text", quote_literal(mask)),
        None => format!("usher.mask_value({clear})"),
    };
    let by_right = masked.protection.readers.iter().any(|reader| readers::role_of(reader).is_none());
    let own = if organization { "t.organization_id" } else { "'00000000-0000-0000-0000-000000000000'::pg_catalog.uuid" };
    let reads = if by_right {
        format!("WHEN {own} = ANY ((SELECT usher.reader_organizations({id}))::pg_catalog.uuid[]) THEN {clear} ")
    } else {
        String::new()
    };
    format!("CASE WHEN t.{name} IS NULL THEN NULL {reads}ELSE {mask} END AS {name}")
}

fn view(target: &Target, masked: &[Masked]) -> Result<String> {
    let name = view_name(&target.name);
    let sql = quote_qualified_identifier(&target.schema, &name);
    if let Some(why) = unsafe_to_show(target)? {
        drop_view(target)?;
        return Ok(format!("there is no view {}.{name}, because {why}", target.schema));
    }
    if let Some(oid) = catalog::relation(&target.schema, &name)
        && !ours(oid)?
    {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
            format!("{}.{name} is there already and was not made by pg_usher", target.schema),
        )
        .detail("Members read masked columns through a view of that name.")
        .hint("Rename it, then declare the column again."));
    }
    let organization = target.table.has_organization();
    let columns: Vec<String> = target
        .table
        .columns
        .iter()
        .map(|column| match masked.iter().find(|masked| masked.protection.column == column.name) {
            Some(masked) => shown(masked, column, organization),
            None => format!("t.{}", quote_identifier(&column.name)),
        })
        .collect();
    let condition = if organization {
        " WHERE t.organization_id = ANY ((SELECT usher.member_organizations())::pg_catalog.uuid[])"
    } else {
        ""
    };
    let create = format!(
        "VIEW {sql} WITH (security_barrier = true) AS SELECT {} FROM {} AS t{condition}",
        columns.join(", "),
        target.table.sql
    );
    // Only what is added at the end can be replaced.
    if subxact::attempt(|| locked(&sql, &format!("CREATE OR REPLACE {create}"))).is_err() {
        drop_view(target)?;
        locked(&sql, &format!("CREATE {create}"))?;
    }
    let owner = quote_identifier(role::name_of(target.owner).unwrap_or_default());
    let comment = format!("{MARK}{} with masks in the place of protected columns", target.table.name);
    let mut after =
        vec![format!("ALTER VIEW {sql} OWNER TO {owner}"), format!("COMMENT ON VIEW {sql} IS {}", quote_literal(comment))];
    let mut whole: Vec<Option<String>> =
        grants(target.table.oid)?.into_iter().filter(|grant| grant.attnum == 0).map(|grant| grant.name).collect();
    whole.extend(
        masked
            .iter()
            .flat_map(|column| column.protection.taken.iter())
            .filter(|taken| taken.whole)
            .map(|taken| taken.grantee.clone()),
    );
    whole.retain(|name| name.as_deref().is_none_or(|name| role::by_name(name).is_some()));
    whole.sort();
    whole.dedup();
    after.extend(whole.iter().map(|name| format!("GRANT SELECT ON {sql} TO {}", to(name.as_deref()))));
    for statement in after {
        locked(&sql, &statement)?;
    }
    Ok(format!("{}.{name} shows the rest and masks", target.schema))
}

/// Says what else shows a masked column: views with their owners' rights, and flows that carry it in clear.
pub fn warn(target: &Target, column: &str, attnum: i16) -> Result<()> {
    let views = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(DISTINCT r.ev_class::pg_catalog.regclass::text ORDER BY r.ev_class::pg_catalog.regclass::text)
           FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
          WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.refobjid = $1 AND d.refobjsubid = $2 AND c.relname <> $3",
        &[spi::arg(target.table.oid), spi::arg(attnum), spi::arg(view_name(&target.name))],
    )?
    .unwrap_or_default();
    let name = format!("{}.{column}", target.table.name);
    if !views.is_empty() {
        notice!("{name} is shown by views with the rights of their owners: {}", views.join(", "));
    }
    let installed = crate::setup::installed()?;
    let _acting = role::internal(installed.owner);
    let flows = spi::read::<Vec<String>>(
        "SELECT pg_catalog.array_agg(DISTINCT f.name ORDER BY f.name) FROM usher.flow_dependencies AS d JOIN usher.flows AS f ON f.id = d.flow_id
          WHERE d.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.object = $1 AND d.attnum = $2",
        &[spi::arg(target.table.oid), spi::arg(attnum)],
    )?
    .unwrap_or_default();
    if !flows.is_empty() {
        notice!(
            "{name} is carried in clear by flows, whose jobs members can see: {}; a sealed column is carried sealed",
            flows.join(", ")
        );
    }
    Ok(())
}
