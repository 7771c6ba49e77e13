//! The rows that a statement has changed, as its trigger sees them: read column by column, without a query, and so without anybody's code.

use pgrx::prelude::*;
use pgrx::{FromDatum, varlena};
use std::ffi::CString;

/// The rows of an INSERT and the new ones of an UPDATE, or those of a DELETE and the old ones of an UPDATE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// A value of a changed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Boolean(bool),
    Uuid([u8; 16]),
    Text(&'a str),
    /// A text that is none: bytes from a time when nobody looked.
    Unreadable,
}

/// A column whose values can be read as they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    number: i16,
    pub type_oid: pg_sys::Oid,
}

/// Types that are read as they are kept: integers, uuid, boolean, text.
pub const READABLE: [pg_sys::Oid; 6] =
    [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::UUIDOID, pg_sys::BOOLOID, pg_sys::TEXTOID];

/// Rows between two looks whether somebody wants this statement to end.
const ROWS_AT_ONCE: usize = 1_000;

/// The column of that name, if its values can be read: it is of one of the types, is kept in the row, and text is Unicode.
pub fn column(relation: pg_sys::Oid, name: &str) -> Option<Column> {
    let name = CString::new(name).ok()?;
    // SAFETY: look-ups in the catalog cache inside a transaction; what is not there has the number 0 and is not looked up further.
    let (number, type_oid, generated, encoding) = unsafe {
        let number = pg_sys::get_attnum(relation, name.as_ptr());
        if number <= 0 {
            return None;
        }
        let generated = pg_sys::get_attgenerated(relation, number);
        (number, pg_sys::get_atttype(relation, number), generated as u8, pg_sys::GetDatabaseEncoding())
    };
    let unicode = u32::try_from(encoding) == Ok(pg_sys::pg_enc::PG_UTF8);
    let readable = READABLE.contains(&type_oid) && (type_oid != pg_sys::TEXTOID || unicode);
    // A virtual one is made by whoever reads it.
    (readable && generated != b'v').then_some(Column { number, type_oid })
}

/// Whether a column is generated and the table partitioned: what is inserted through the table itself is seen as it was before a partition has
/// generated its values.
pub fn is_unseen(relation: pg_sys::Oid, name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: look-ups in the catalog cache inside a transaction; what is not there has the number 0 and is not looked up further.
    unsafe {
        let number = pg_sys::get_attnum(relation, name.as_ptr());
        number > 0
            && pg_sys::get_rel_relkind(relation) as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
            && pg_sys::get_attgenerated(relation, number) != 0
    }
}

/// Calls `row` with the columns of each row of one side, until it says false. False: the table is not as it was when its columns were looked
/// up, and nothing was read.
pub fn each_row(trigger: &PgTrigger<'_>, side: Side, columns: &[Column], mut row: impl FnMut(&[Value<'_>]) -> bool) -> bool {
    let data = trigger.trigger_data();
    let rows = if side == Side::New { data.tg_newtable } else { data.tg_oldtable };
    // SAFETY: the data belongs to the trigger call that is running, and its relation is open as long.
    let shape = unsafe { (*data.tg_relation).rd_att };
    // SAFETY: looks into that descriptor; a number beyond it or of a dropped column gives no type that can be read.
    let fits = |column: &Column| unsafe { pg_sys::SPI_gettypeid(shape, i32::from(column.number)) } == column.type_oid;
    if rows.is_null() || !columns.iter().all(fits) {
        return false;
    }
    // SAFETY: the rows live as long as the trigger call. A place of our own is read from, as a query over them would have; others begin at
    // places of their own. The slot is ours, and is dropped here, or with the transaction after an error.
    let slot = unsafe {
        let place = pg_sys::tuplestore_alloc_read_pointer(rows, pg_sys::EXEC_FLAG_REWIND as i32);
        pg_sys::tuplestore_select_read_pointer(rows, place);
        // The place begins where the first one is.
        pg_sys::tuplestore_rescan(rows);
        pg_sys::MakeSingleTupleTableSlot(shape, &raw const pg_sys::TTSOpsMinimalTuple)
    };
    let mut read = 0_usize;
    // SAFETY: as above; a row is in the slot until the next one is asked for.
    while unsafe { pg_sys::tuplestore_gettupleslot(rows, true, false, slot) } {
        read += 1;
        if read.is_multiple_of(ROWS_AT_ONCE) {
            pgrx::check_for_interrupts!();
        }
        let mut copies = Copies(Vec::new());
        // SAFETY: the slot holds a row of this shape, whose columns have the types that were looked at; texts are read before the next row.
        let values: Vec<Value<'_>> = columns.iter().map(|column| unsafe { value(slot, column, &mut copies) }).collect();
        if !row(&values) {
            break;
        }
    }
    // SAFETY: made above.
    unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
    true
}

/// Long texts that were put together again, until their row has been read.
struct Copies(Vec<*mut pg_sys::varlena>);

impl Drop for Copies {
    fn drop(&mut self) {
        // SAFETY: each was made for this row, by `value`, and nobody else knows it.
        self.0.iter().for_each(|copy| unsafe { pg_sys::pfree(copy.cast()) });
    }
}

/// SAFETY: the slot holds a row with a column of that number and type; the value is not used beyond the row and its copies.
unsafe fn value<'a>(slot: *mut pg_sys::TupleTableSlot, column: &Column, copies: &mut Copies) -> Value<'a> {
    let mut null = true;
    // SAFETY: as the caller says.
    let datum = unsafe { pg_sys::slot_getattr(slot, i32::from(column.number), &mut null) };
    if null {
        return Value::Null;
    }
    // SAFETY: the value is of the column's type, which says how it is kept.
    unsafe {
        match column.type_oid {
            pg_sys::INT2OID => i16::from_datum(datum, false).map_or(Value::Null, |n| Value::Integer(n.into())),
            pg_sys::INT4OID => i32::from_datum(datum, false).map_or(Value::Null, |n| Value::Integer(n.into())),
            pg_sys::INT8OID => i64::from_datum(datum, false).map_or(Value::Null, Value::Integer),
            pg_sys::BOOLOID => bool::from_datum(datum, false).map_or(Value::Null, Value::Boolean),
            pg_sys::UUIDOID => pgrx::Uuid::from_datum(datum, false).map_or(Value::Null, |id| Value::Uuid(*id.as_bytes())),
            _ => {
                let kept = datum.cast_mut_ptr::<pg_sys::varlena>();
                let whole = pg_sys::pg_detoast_datum_packed(kept);
                if whole != kept {
                    copies.0.push(whole);
                }
                varlena::text_to_rust_str(whole).map_or(Value::Unreadable, Value::Text)
            }
        }
    }
}
