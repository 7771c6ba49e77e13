//! Declaring that a column is protected, and ending it.

use super::check::{self, Target};
use super::store::{self, How, Protection};
use super::{masked, sealed};
use crate::error::{Result, UsherError};
use crate::pg::{ids, role};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use uuid::Uuid;

/// How long a busy table is waited for, in milliseconds.
pub const PATIENCE: i64 = 5_000;

/// What somebody, or a pack, wants to be protected.
pub struct Wish {
    pub table: Oid,
    pub column: String,
    pub how: How,
    pub readers: Vec<String>,
    pub mask: Option<String>,
    pub pack: Option<String>,
}

pub fn id(protection: &Protection) -> Uuid {
    Uuid::from_bytes(*protection.id.as_bytes())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn existing(installed: Installed, target: &Target, column: &str) -> Result<Option<Protection>> {
    let _acting = role::internal(installed.owner);
    store::locate(installed.home)?;
    Ok(store::of_table(&target.schema, &target.name)?.into_iter().find(|known| known.column == column))
}

/// Protects a column; a second declaration replaces readers and mask. Runs as the caller, whose rights on the table count.
pub fn declare(installed: Installed, wish: Wish) -> Result<String> {
    let target = check::target(wish.table)?;
    let column = target.table.expect(&wish.column, "\"column\"")?.clone();
    let attnum = check::number(&target.table, &column.name)?;
    let known = existing(installed, &target, &column.name)?;
    if let Some(known) = known.as_ref().filter(|known| known.how != wish.how) {
        return Err(UsherError::state(format!("{} is {} already", known.name(), known.how.word()))
            .hint(format!("SELECT usher.unprotect_column('{}', '{}'); first.", target.table.name, column.name)));
    }
    if column.name == "organization_id" {
        return Err(UsherError::invalid("the column that says whose a row is cannot be protected").hint("Name another column."));
    }
    if wish.how == How::Sealed && wish.mask.is_some() {
        return Err(
            UsherError::invalid("a sealed column has no mask").hint("Leave the mask out, or declare the column as masked.")
        );
    }
    let new = known.is_none();
    if new && wish.how == How::Sealed {
        check::can_be_sealed(&target, &column, attnum)?;
    }
    let by = identity::author();
    let protection = Protection {
        id: known.as_ref().map_or_else(ids::uuid_v7, |known| known.id),
        schema: target.schema.clone(),
        table: target.name.clone(),
        column: column.name.clone(),
        how: wish.how,
        readers: wish.readers,
        mask: wish.mask,
        relation: target.table.oid,
        taken: known.map(|known| known.taken).unwrap_or_default(),
        pack: wish.pack,
    };
    {
        let _acting = role::internal(installed.owner);
        store::record(&protection, attnum, &by)?;
    }
    let name = protection.name();
    let readers = protection.readers.join(", ");
    match protection.how {
        How::Sealed if new => {
            let sealed = sealed::attach(&target, &column.name, id(&protection), true, PATIENCE)?;
            Ok(format!("{name} is sealed, read by {readers}; sealed just now: {}", counted(sealed, "value")))
        }
        How::Sealed => Ok(format!("{name} is sealed, read by {readers}")),
        How::Masked => {
            let shown = masked::sync(installed, &target, PATIENCE)?;
            masked::warn(&target, &column.name, attnum)?;
            Ok(format!("{name} is masked, read by {readers}; {shown}"))
        }
    }
}

/// Ends a protection: sealed values are clear again, the rights to read a masked column are given back. Runs as the caller.
pub fn end(installed: Installed, table: Oid, column: &str) -> Result<String> {
    let target = check::target(table)?;
    let protection = existing(installed, &target, column)?.ok_or_else(|| {
        UsherError::not_found(format!("{}.{column} is not protected", target.table.name))
            .hint("SELECT schema_name, table_name, column_name FROM usher.protected_columns; lists the columns that are.")
    })?;
    finish(installed, &target, &protection)
}

fn finish(installed: Installed, target: &Target, protection: &Protection) -> Result<String> {
    let name = protection.name();
    let done = match protection.how {
        How::Sealed => {
            let (clear, left) = sealed::detach(target, &protection.column, id(protection), PATIENCE)?;
            let left =
                if left == 0 { String::new() } else { format!("; {left} that another column has sealed stay as they are") };
            format!("{name} is not sealed any more: {} in clear text{left}", counted(clear, "value"))
        }
        How::Masked => {
            masked::give_back(installed, target, protection, PATIENCE)?;
            format!("{name} is not masked any more")
        }
    };
    {
        let _acting = role::internal(installed.owner);
        store::end(protection)?;
    }
    if protection.how == How::Masked {
        masked::sync(installed, target, PATIENCE)?;
    }
    Ok(done)
}

/// Ends what a pack has declared and does not declare any more; `kept` are `schema.table.column`. Runs as the caller.
pub fn end_of_pack(installed: Installed, pack: &str, kept: &[String]) -> Result<usize> {
    let declared = {
        let _acting = role::internal(installed.owner);
        store::locate(installed.home)?;
        store::of_pack(pack)?
    };
    let mut ended = 0;
    for protection in declared.iter().filter(|protection| !kept.contains(&protection.name())) {
        match crate::pg::catalog::relation(&protection.schema, &protection.table) {
            Some(oid) => drop(finish(installed, &check::target(oid)?, protection)?),
            // The table is gone, and its column with it.
            None => {
                let _acting = role::internal(installed.owner);
                store::end(protection)?;
            }
        }
        ended += 1;
    }
    Ok(ended)
}
