//! The personal columns of a pack, as its manifest declares them:
//!
//! ```text
//! "protected": {"crm.contacts": {"email": {"how": "sealed", "readers": ["admin"]},
//!                                "phone": {"how": "masked", "readers": ["crm_staff"], "mask": "hidden"}}}
//! ```

use crate::error::{Result, UsherError};
use crate::pg::catalog;
use crate::protect::declare::{self, Wish};
use crate::protect::{How, checked_readers};
use crate::registry::tables;
use crate::setup::Installed;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    how: String,
    readers: Vec<String>,
    mask: Option<String>,
}

type Tables = BTreeMap<String, BTreeMap<String, Declared>>;

fn parsed(manifest: &Value) -> Result<Tables> {
    match &manifest["protected"] {
        Value::Null => Ok(Tables::new()),
        declared => Tables::deserialize(declared)
            .map_err(|e| UsherError::internal(format!("\"protected\" of a pack's manifest is malformed: {e}"))),
    }
}

/// Protects what the manifest names, and ends what an earlier version named; tables of somebody else are theirs to protect. Runs as
/// the caller.
pub fn bring_in_line(installed: Installed, pack: &str, manifest: &Value, others: &dyn Fn(&str) -> bool) -> Result<usize> {
    let mut kept = Vec::new();
    for (table, columns) in parsed(manifest)?.into_iter().filter(|(table, _)| !others(table)) {
        let found = tables::split(&table).and_then(|(schema, name)| Some((catalog::relation(&schema, &name)?, schema, name)));
        let (oid, schema, name) =
            found.ok_or_else(|| UsherError::internal(format!("a pack protects columns of {table}, which it does not make")))?;
        for (column, declared) in columns {
            let readers = checked_readers(Some(declared.readers.into_iter().map(Some).collect()))?;
            kept.push(format!("{schema}.{name}.{column}"));
            let how = How::parse(&declared.how)?;
            declare::declare(
                installed,
                Wish { table: oid, column, how, readers, mask: declared.mask, pack: Some(pack.to_owned()) },
            )?;
        }
    }
    let ended = declare::end_of_pack(installed, pack, &kept)?;
    Ok(kept.len() + ended)
}

/// Ends what the pack has declared.
pub fn end(installed: Installed, pack: &str) -> Result<usize> {
    declare::end_of_pack(installed, pack, &[])
}

#[cfg(test)]
mod unit {
    use super::parsed;
    use serde_json::json;

    #[test]
    fn a_manifest_says_what_is_protected() {
        let tables = parsed(&json!({"protected": {"crm.contacts": {"email": {"how": "sealed", "readers": ["admin"]}}}})).unwrap();
        assert_eq!(tables["crm.contacts"]["email"].how, "sealed");
        assert!(parsed(&json!({"name": "plain"})).unwrap().is_empty());
        assert!(parsed(&json!({"protected": {"crm.contacts": {"email": {"how": "sealed", "reader": "admin"}}}})).is_err());
    }

    #[test]
    fn every_pack_declares_what_can_be_read() {
        for pack in crate::pack::PACKS {
            parsed(&serde_json::from_str(pack.manifest).unwrap()).unwrap();
        }
    }
}
