//! What was declared.

use crate::error::{Result, UsherError};
use crate::pg::{catalog, spi};
use pgrx::pg_sys::Oid;
use pgrx::spi::SpiTupleTable;
use pgrx::{JsonB, Uuid};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Sealed,
    Masked,
}

impl How {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "sealed" => Ok(Self::Sealed),
            "masked" => Ok(Self::Masked),
            _ => Err(UsherError::invalid(format!("\"{text}\" is no way to protect a column"))
                .hint("It is sealed (kept as ciphertext) or masked (kept in clear, shown as a mask).")),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Masked => "masked",
        }
    }
}

/// A right to read a masked column that was taken away, or given to a reader: to be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// None: everybody.
    pub grantee: Option<String>,
    /// They could read the whole table.
    #[serde(default)]
    pub whole: bool,
    #[serde(default)]
    pub grantable: bool,
    /// A reader who could read the column by nothing else.
    #[serde(default)]
    pub given: bool,
    /// The last column that whoever could read the whole table was given; later ones are theirs as well.
    #[serde(default)]
    pub upto: i16,
}

#[derive(Debug, Clone)]
pub struct Protection {
    pub id: Uuid,
    pub schema: String,
    pub table: String,
    pub column: String,
    pub how: How,
    pub readers: Vec<String>,
    pub mask: Option<String>,
    pub relation: Oid,
    pub taken: Vec<Taken>,
    pub pack: Option<String>,
}

impl Protection {
    /// `schema.table.column`, for people.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.column)
    }
}

const COLUMNS: &str =
    "SELECT p.id, p.schema_name, p.table_name, p.column_name, p.how, p.readers, p.mask, p.relation, p.taken, p.pack
                         FROM usher.column_protections AS p WHERE p.ended_at IS NULL";

fn protection(row: &SpiTupleTable<'_>) -> Result<Protection> {
    let text = |column| Ok::<_, UsherError>(row.get::<String>(column)?.unwrap_or_default());
    let taken = row.get::<JsonB>(9)?.map(|json| serde_json::from_value(json.0)).transpose();
    Ok(Protection {
        id: row.get::<Uuid>(1)?.ok_or_else(|| UsherError::internal("a protection has no id"))?,
        schema: text(2)?,
        table: text(3)?,
        column: text(4)?,
        how: How::parse(&text(5)?)?,
        readers: row.get::<Vec<String>>(6)?.unwrap_or_default(),
        mask: row.get::<String>(7)?,
        relation: row.get::<Oid>(8)?.unwrap_or(Oid::INVALID),
        taken: taken.map_err(|_| UsherError::internal("what a protection has taken cannot be read"))?.unwrap_or_default(),
        pack: row.get::<String>(10)?,
    })
}

/// All that hold. Runs with the owner's rights.
pub fn all() -> Result<Vec<Protection>> {
    spi::all(&format!("{COLUMNS} ORDER BY p.schema_name, p.table_name, p.column_name"), &[], protection)
}

/// Those of a table. Runs with the owner's rights.
pub fn of_table(schema: &str, table: &str) -> Result<Vec<Protection>> {
    spi::all(
        &format!("{COLUMNS} AND p.schema_name = $1 AND p.table_name = $2 ORDER BY p.column_name"),
        &[spi::arg(schema), spi::arg(table)],
        protection,
    )
}

/// Those that a pack has declared. Runs with the owner's rights.
pub fn of_pack(pack: &str) -> Result<Vec<Protection>> {
    spi::all(
        &format!("{COLUMNS} AND p.pack = $1 ORDER BY p.schema_name, p.table_name, p.column_name"),
        &[spi::arg(pack)],
        protection,
    )
}

/// Every session looks again at who reads what.
fn told(relation: Oid) {
    if let Some(table) = catalog::usher_relation("column_protections") {
        catalog::invalidate(table);
    }
    if relation != Oid::INVALID {
        catalog::invalidate(relation);
    }
}

/// Remembers one. Runs with the owner's rights.
pub fn record(protection: &Protection, attnum: i16, by: &str) -> Result<()> {
    told(protection.relation);
    spi::run(
        "INSERT INTO usher.column_protections AS p (id, schema_name, table_name, column_name, how, readers, mask, pack, relation, attnum, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT ON CONSTRAINT column_protections_pkey DO UPDATE SET readers = EXCLUDED.readers, mask = EXCLUDED.mask, pack = EXCLUDED.pack",
        &[
            spi::arg(protection.id),
            spi::arg(protection.schema.as_str()),
            spi::arg(protection.table.as_str()),
            spi::arg(protection.column.as_str()),
            spi::arg(protection.how.word()),
            spi::arg(protection.readers.clone()),
            spi::arg(protection.mask.as_deref()),
            spi::arg(protection.pack.as_deref()),
            spi::arg(protection.relation),
            spi::arg(attnum),
            spi::arg(by),
        ],
    )?;
    Ok(())
}

/// Remembers what was taken. Runs with the owner's rights.
pub fn record_taken(id: Uuid, taken: &[Taken]) -> Result<()> {
    let json = serde_json::to_value(taken).map_err(|e| UsherError::internal(e.to_string()))?;
    spi::run("UPDATE usher.column_protections AS p SET taken = $2 WHERE p.id = $1", &[spi::arg(id), spi::arg(JsonB(json))])?;
    Ok(())
}

/// It holds no longer. Runs with the owner's rights.
pub fn end(protection: &Protection) -> Result<()> {
    told(protection.relation);
    spi::run(
        "UPDATE usher.column_protections AS p SET ended_at = pg_catalog.now(), taken = '[]' WHERE p.id = $1",
        &[spi::arg(protection.id)],
    )?;
    Ok(())
}

/// Brings names and numbers together: what was renamed where it was declared keeps its number; in a copy, and of a table that was
/// dropped and made anew, the name counts. Runs with the owner's rights.
pub fn locate(home: bool) -> Result<usize> {
    let changed = spi::run(
        "UPDATE usher.column_protections AS p
            SET schema_name = f.schema_name, table_name = f.table_name, column_name = f.column_name, relation = f.relation, attnum = f.attnum
           FROM (SELECT q.id, n.nspname::text AS schema_name, c.relname::text AS table_name, a.attname::text AS column_name, c.oid AS relation, a.attnum,
                        pg_catalog.row_number() OVER (PARTITION BY q.id ORDER BY ($1 AND c.oid = q.relation) DESC) AS choice
                   FROM usher.column_protections AS q
                   JOIN pg_catalog.pg_class AS c ON c.relkind IN ('r', 'p')
                    AND ($1 AND c.oid = q.relation OR c.oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', q.schema_name, q.table_name)))
                   JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                   JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    AND CASE WHEN $1 AND c.oid = q.relation AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS o WHERE o.attrelid = c.oid AND o.attnum = q.attnum AND NOT o.attisdropped)
                             THEN a.attnum = q.attnum ELSE a.attname = q.column_name END
                  WHERE q.ended_at IS NULL) AS f
          WHERE f.id = p.id AND f.choice = 1
            AND (p.schema_name, p.table_name, p.column_name, p.relation, p.attnum) IS DISTINCT FROM (f.schema_name, f.table_name, f.column_name, f.relation, f.attnum)",
        &[spi::arg(home)],
    )?;
    if changed > 0 {
        told(Oid::INVALID);
    }
    Ok(changed)
}
