//! Arguments of SQL functions that are handed on as they are.

use super::spi::Raw;
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::nullable::Nullable;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

/// A `jsonb[]` that only statements look into: a hundred thousand payloads are not parsed one by one on their way.
pub struct JsonbArray(pg_sys::Datum);

impl JsonbArray {
    /// For statements, as long as the function runs that got it.
    pub fn raw(&self) -> Raw {
        Raw::of(self.0, pg_sys::JSONBARRAYOID)
    }
}

impl FromDatum for JsonbArray {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _type: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Self(datum))
    }
}

// SAFETY: the datum is taken over as it is; the server has checked that it is of the type in ARGUMENT_SQL.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonbArray {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        let index = arg.index();
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or_else(|| panic!("argument {index} must not be null")) }
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as the caller promises.
        unsafe { arg.unbox_arg_using_from_datum().into() }
    }
}

// SAFETY: says which SQL type stands for it.
unsafe impl SqlTranslatable for JsonbArray {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(JsonbArray);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb[]"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb[]")));
}
