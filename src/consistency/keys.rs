//! Keys out of rows whose columns are read as they are kept, and the locks that keys share. Pure: no statement is run.
//!
//! The same key is the same text, and has the same stripe, whether it was read here or made by a statement.

use super::touched::Key;
use crate::pg::changed::Value;
use pgrx::pg_sys::{self, Oid};
use std::fmt::Write;

/// Whose the keys of rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    Of([u8; 16]),
    /// It is in this place of the row.
    At(usize),
    /// Whoever's.
    Any,
}

/// How a row names a key of a rule.
#[derive(Debug)]
pub struct Reading {
    pub rule: i32,
    tenant: Tenant,
    /// What stands before each value, and its place in the row.
    parts: Vec<(String, usize)>,
    /// The places of those that the stripe goes by.
    striped: Vec<usize>,
    /// A key of which a part is NULL is one.
    nulls: bool,
}

/// What a row concerns.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    Key(Key, u8),
    /// A row that names no key concerns none.
    Nothing,
    Unreadable,
}

impl Reading {
    /// `parts`: columns of the key, with the place of each in the row.
    pub fn new(rule: i32, tenant: Tenant, mut parts: Vec<(String, usize)>, striped: Vec<usize>, nulls: bool) -> Self {
        // The order of jsonb.
        parts.sort_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(n, (name, at))| (format!("{}{}: ", if n == 0 { "" } else { ", " }, quoted(&name)), at)).collect();
        Self { rule, tenant, parts, striped, nulls }
    }

    pub fn key(&self, row: &[Value<'_>]) -> Named {
        let organization = match self.tenant {
            Tenant::Of(id) => Some(id),
            Tenant::Any => None,
            Tenant::At(at) => match row[at] {
                Value::Uuid(id) => Some(id),
                _ => None,
            },
        };
        let mut key = String::with_capacity(48);
        key.push('{');
        for (before, at) in &self.parts {
            key.push_str(before);
            match row[*at] {
                Value::Null if self.nulls => key.push_str("null"),
                Value::Null => return Named::Nothing,
                Value::Unreadable => return Named::Unreadable,
                value => write(&mut key, value),
            }
        }
        key.push('}');
        Named::Key((organization, key), stripe(self.striped.iter().map(|at| row[*at])))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writing into a String cannot fail.
fn write(json: &mut String, value: Value<'_>) {
    let _ = match value {
        Value::Null | Value::Unreadable => write!(json, "null"),
        Value::Integer(number) => write!(json, "{number}"),
        Value::Boolean(yes) => write!(json, "{yes}"),
        Value::Uuid(id) => {
            let n = u128::from_be_bytes(id);
            write!(
                json,
                "\"{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\"",
                n >> 96,
                (n >> 80) & 0xffff,
                (n >> 64) & 0xffff,
                (n >> 48) & 0xffff,
                n & 0xffff_ffff_ffff
            )
        }
        Value::Text(text) => write!(json, "{}", quoted(text)),
    };
}

/// Of the 256 locks of a rule the one that such a key has; a number is the same in each of its types.
pub fn stripe<'a>(values: impl Iterator<Item = Value<'a>>) -> u8 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |kind: u8, bytes: &[u8]| {
        for byte in std::iter::once(&kind).chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for value in values {
        match value {
            Value::Null | Value::Unreadable => add(0, &[]),
            Value::Integer(number) => add(1, &number.to_le_bytes()),
            Value::Boolean(yes) => add(2, &[yes.into()]),
            Value::Uuid(id) => add(3, &id),
            Value::Text(text) => {
                add(4, text.as_bytes());
                add(5, &[]);
            }
        }
    }
    // The last byte of a sum is decided by few of its bits; the first by all.
    (hash ^ (hash >> 29) ^ (hash >> 56)) as u8
}

/// One kind of values in memory, JSON and comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Boolean,
    Uuid,
    Text,
}

/// None: values of this type are not read here.
pub fn kind(type_oid: Oid) -> Option<Kind> {
    match type_oid {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => Some(Kind::Integer),
        pg_sys::BOOLOID => Some(Kind::Boolean),
        pg_sys::UUIDOID => Some(Kind::Uuid),
        pg_sys::TEXTOID => Some(Kind::Text),
        _ => None,
    }
}

/// A value as a key has it in JSON; None: it is none of that kind.
pub fn value(kind: Kind, json: &serde_json::Value) -> Option<Value<'_>> {
    match kind {
        Kind::Integer => json.as_i64().map(Value::Integer),
        Kind::Boolean => json.as_bool().map(Value::Boolean),
        Kind::Text => json.as_str().map(Value::Text),
        Kind::Uuid => {
            let digits: Vec<u8> = json.as_str()?.bytes().filter(|byte| *byte != b'-').collect();
            let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
            u128::from_str_radix(digits, 16).ok().map(|id| Value::Uuid(id.to_be_bytes()))
        }
    }
}

/// The stripe of a key that a statement has made, by these of its columns.
pub fn stripe_of(key: &str, columns: &[(String, Kind)]) -> u8 {
    let json: serde_json::Value = serde_json::from_str(key).unwrap_or_default();
    stripe(columns.iter().map(|(name, kind)| json.get(name).and_then(|json| value(*kind, json)).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod unit {
    use super::*;

    const ID: [u8; 16] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 1, 2, 3, 4, 5, 6, 0xff];

    fn reading(names: &[&str]) -> Reading {
        let parts = names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at)).collect();
        Reading::new(7, Tenant::Any, parts, (0..names.len()).collect(), false)
    }

    #[test]
    fn a_key_is_written_as_jsonb_writes_it() {
        let row =
            [Value::Text("a \"b\"\\\n\u{1}é"), Value::Integer(-9_007_199_254_740_993), Value::Boolean(true), Value::Uuid(ID)];
        let Named::Key((None, key), _) = reading(&["long", "b", "a", "\"q"]).key(&row) else { panic!("no key") };
        assert_eq!(
            key,
            "{\"a\": true, \"b\": -9007199254740993, \"\\\"q\": \"01234567-89ab-cdef-0001-0203040506ff\", \"long\": \"a \\\"b\\\"\\\\\\n\\u0001é\"}"
        );
    }

    #[test]
    fn a_key_read_from_json_has_the_stripe_of_the_row() {
        let kinds = [("t", Kind::Text), ("i", Kind::Integer), ("b", Kind::Boolean), ("u", Kind::Uuid)];
        let kinds: Vec<(String, Kind)> = kinds.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        for n in 0..1_000_i64 {
            let text = format!("n{n}");
            let row = [Value::Text(&text), Value::Integer(n - 500), Value::Boolean(n % 2 == 0), Value::Uuid(ID)];
            let Named::Key((_, key), stripe) = reading(&["t", "i", "b", "u"]).key(&row) else { panic!("no key") };
            assert_eq!(stripe_of(&key, &kinds), stripe, "{key}");
        }
    }

    #[test]
    fn keys_in_a_row_have_locks_of_their_own() {
        for values in [0..256_i64, 1_000_000..1_000_256] {
            let stripes: std::collections::HashSet<u8> = values.map(|n| stripe([Value::Integer(n)].into_iter())).collect();
            // Of numbers drawn by chance it would be 162.
            assert!(stripes.len() > 140, "{}", stripes.len());
        }
    }

    #[test]
    fn what_names_no_key_concerns_none() {
        assert_eq!(reading(&["a", "b"]).key(&[Value::Integer(1), Value::Null]), Named::Nothing);
        assert_eq!(reading(&["a"]).key(&[Value::Unreadable]), Named::Unreadable);
        let own = Reading::new(7, Tenant::At(1), vec![("a".to_owned(), 0)], vec![0], false);
        let key = |tenant| match own.key(&[Value::Integer(1), tenant]) {
            Named::Key((organization, _), _) => organization,
            other => panic!("{other:?}"),
        };
        assert_eq!((key(Value::Null), key(Value::Uuid(ID))), (None, Some(ID)));
    }
}
