//! Statements with saved plans.
//!
//! A plan is kept per process and per statement text; PostgreSQL itself plans again when something it depends on
//! changes. Values that only pass from one statement to the next (arrays of a batch) travel as [`Raw`], undecoded.

use crate::error::Result;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum, PgOid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

pub type Args<'a> = &'a [DatumWithOid<'a>];

/// More statements than this and the cache starts anew: flows come and go, sessions of a pooler live long.
const MOST_PLANS: usize = 2_000;

thread_local! {
    static PLANS: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::new(HashMap::new());
}

/// A value that is handed on undecoded. It lives as long as the SPI connection that it came from.
#[derive(Clone, Copy)]
pub struct Raw {
    datum: Option<pg_sys::Datum>,
    oid: pg_sys::Oid,
}

impl Raw {
    /// Reads column `ordinal` (from 1) of the table's current row.
    pub fn read(table: &SpiTupleTable<'_>, ordinal: usize) -> Result<Self> {
        Ok(Self { datum: table.get_datum_by_ordinal(ordinal)?, oid: table.column_type_oid(ordinal)?.value() })
    }

    /// An argument of a function that is running.
    pub(super) fn of(datum: pg_sys::Datum, oid: pg_sys::Oid) -> Self {
        Self { datum: Some(datum), oid }
    }

    /// The value itself.
    pub fn value<T: FromDatum>(&self) -> Result<Option<T>> {
        // SAFETY: datum and type were read together from one result column, which is of the type that the caller names.
        Ok(self.datum.and_then(|datum| unsafe { T::from_polymorphic_datum(datum, false, self.oid) }))
    }

    pub fn is_null(&self) -> bool {
        self.datum.is_none()
    }

    pub fn arg<'a>(&self) -> DatumWithOid<'a> {
        match self.datum {
            // SAFETY: datum and type were read together from one result column; the caller keeps the connection open.
            Some(datum) => unsafe { DatumWithOid::new(datum, self.oid) },
            None => DatumWithOid::null_oid(self.oid),
        }
    }
}

/// A typed null or value as an argument.
pub fn arg<'a, T: IntoDatum>(value: T) -> DatumWithOid<'a> {
    DatumWithOid::from(value)
}

fn plan(client: &SpiClient<'_>, sql: &str, args: Args<'_>) -> Result<Rc<OwnedPreparedStatement>> {
    if let Some(found) = PLANS.with_borrow(|plans| plans.get(sql).cloned()) {
        return Ok(found);
    }
    let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
    let prepared = Rc::new(client.prepare_mut(sql, &types)?.keep());
    PLANS.with_borrow_mut(|plans| {
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(sql.to_owned(), prepared.clone());
    });
    Ok(prepared)
}

/// Runs a statement that may write, inside an open connection.
pub fn query<'c>(client: &mut SpiClient<'c>, sql: &str, args: Args<'_>) -> Result<SpiTupleTable<'c>> {
    let plan = plan(client, sql, args)?;
    Ok(client.update(&*plan, None, args)?)
}

/// Runs a statement and tells how many rows it touched.
pub fn run(sql: &str, args: Args<'_>) -> Result<usize> {
    Spi::connect_mut(|client| Ok(query(client, sql, args)?.len()))
}

/// First column of the first row, from a statement that may write.
pub fn one<T: FromDatum + IntoDatum>(sql: &str, args: Args<'_>) -> Result<Option<T>> {
    Spi::connect_mut(|client| {
        let table = query(client, sql, args)?;
        if table.is_empty() { Ok(None) } else { Ok(table.first().get::<T>(1)?) }
    })
}

/// First column of the first row of a query that only reads: takes no transaction id where none was taken.
pub fn read<T: FromDatum + IntoDatum>(sql: &str, args: Args<'_>) -> Result<Option<T>> {
    Spi::connect(|client| {
        let plan = plan(client, sql, args)?;
        let table = client.select(&*plan, None, args)?;
        if table.is_empty() { Ok(None) } else { Ok(table.first().get::<T>(1)?) }
    })
}

/// Every row of a query that only reads, each made into a value by `row`.
pub fn read_all<T>(sql: &str, args: Args<'_>, row: impl Fn(&SpiTupleTable<'_>) -> Result<T>) -> Result<Vec<T>> {
    Spi::connect(|client| {
        let plan = plan(client, sql, args)?;
        collect(client.select(&*plan, None, args)?, row)
    })
}

/// Every row of a statement that may write, each made into a value by `row`.
pub fn all<T>(sql: &str, args: Args<'_>, row: impl Fn(&SpiTupleTable<'_>) -> Result<T>) -> Result<Vec<T>> {
    Spi::connect_mut(|client| collect(query(client, sql, args)?, row))
}

fn collect<T>(mut table: SpiTupleTable<'_>, row: impl Fn(&SpiTupleTable<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(table.len());
    while table.next().is_some() {
        out.push(row(&table)?);
    }
    Ok(out)
}

/// Calls `row` for every row of a query that only reads, without ever having more than `slice` of them in memory.
pub fn each(sql: &str, args: Args<'_>, slice: i64, mut row: impl FnMut(&SpiTupleTable<'_>) -> Result<()>) -> Result<()> {
    let mut cursor = Spi::connect(|client| -> Result<String> {
        let plan = plan(client, sql, args)?;
        Ok(client.open_cursor(&*plan, args).detach_into_name())
    })?;
    loop {
        // A connection of its own for each slice: its rows go when it ends.
        let next = Spi::connect(|client| -> Result<Option<String>> {
            let mut open = client.find_cursor(&cursor)?;
            let got = {
                let mut table = open.fetch(slice)?;
                while table.next().is_some() {
                    row(&table)?;
                }
                table.len() as i64
            };
            Ok((got == slice).then(|| open.detach_into_name()))
        })?;
        match next {
            Some(name) => cursor = name,
            None => return Ok(()),
        }
    }
}

/// All plans of this process are made anew when they are next used, also those inside functions: for tables as large as they are by then.
pub fn plan_again() {
    // SAFETY: marks saved plans as out of date, as DISCARD PLANS does; one that is just being used stays whole until its end.
    unsafe { pg_sys::ResetPlanCache() }
}

/// Runs a script of several statements without arguments (set-up, packs). Nothing is kept.
pub fn script(sql: &str) -> Result<()> {
    Ok(Spi::run(sql)?)
}

/// Plans a statement without running it: every name in it must exist and fit.
pub fn plans(sql: &str, types: &[pg_sys::Oid]) -> Result<()> {
    Spi::connect(|client| {
        let types: Vec<PgOid> = types.iter().map(|oid| PgOid::from(*oid)).collect();
        client.prepare_mut(sql, &types)?;
        Ok(())
    })
}

/// Plans a statement with all its parameters NULL, as far as an execution would begin: unique indexes are looked for,
/// rights are checked, nothing is run.
pub fn explain(sql: &str, types: &[pg_sys::BuiltinOid]) -> Result<()> {
    let nulls: Vec<DatumWithOid<'_>> = types.iter().map(|oid| DatumWithOid::null_oid(oid.value())).collect();
    Spi::connect_mut(|client| {
        client.update(format!("EXPLAIN (COSTS OFF) {sql}").as_str(), None, &nulls)?;
        Ok(())
    })
}
