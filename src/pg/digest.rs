//! Digests of rows: what two tables are compared by without joining them.
//!
//! A row's digest is 128 bits of SipHash-1-3 under a key that is drawn for one comparison, over the bytes that its values are kept as. Two
//! values with different bytes may be equal (`{"a": 1.0}` and `{"a": 1.00}`): that costs time, because somebody looks at the rows. Two values that
//! are not equal never have the same bytes: that would cost the truth. The hash functions that types have for joins are of no use
//! here: by them 1 and -1 of `numeric` are the same whatever the seed, and so are two `bigint`s or times whose halves fold alike.
//!
//! Rows of the left side are added and those of the right are taken away, modulo 2^128, leaf by leaf; a leaf is chosen by the
//! key. A leaf that is zero in the end holds the same rows on both sides.
//!
//! Beside the digests D of a leaf stand, for short keys, the sums of D times each word of the key. Where one key alone differs in a leaf, its rows leave d
//! in the one and d times the word in the other, so that d divides out and the key is known without another look at the table.

use super::report::raise;
use crate::error::UsherError;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, varlena};
use siphasher::sip128::SipHasher13;
use std::ffi::CStr;

/// A sum is so many bytes of an aggregate's state; a leaf is one sum, and one for each word of the key.
pub(super) const SUM: usize = 16;
/// The state is a `bytea`; its length word comes first.
const HEADER: usize = 4;
/// Then how many words a key has, and nothing.
const PREFACE: usize = SUM;
/// Words of eight bytes that a key may have to be read back: an organization's id, and sixteen bytes more.
const MOST_WORDS: usize = 4;
/// Longer values are hashed apart, and are never copied.
const LONG: usize = 2048;
/// Stand where the length of a value does.
const HASHED: [u8; 2] = [0xfe, 0xff];
const NONE: [u8; 2] = [0xff, 0xff];
/// More leaves than this do not fit a processor's cache by far.
pub const MOST_BITS: i32 = 20;

/// How the bytes of a value are found, and what in them says nothing about it.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Kept in a word, of which so many bytes are used.
    Word(usize),
    Float4,
    Float8,
    Fixed(usize),
    CString,
    Varlena,
    /// Spaces at the end are no part of it.
    Padded,
    /// How many digits are shown behind the point is no part of it.
    Numeric,
}

pub(super) fn kind(oid: pg_sys::Oid) -> Kind {
    // SAFETY: look-ups of the catalog's cache inside a transaction; an unknown type raises an error.
    let (base, length, by_value) = unsafe {
        let base = pg_sys::getBaseType(oid);
        let (mut length, mut by_value) = (0_i16, false);
        pg_sys::get_typlenbyval(base, &mut length, &mut by_value);
        (base, length, by_value)
    };
    match base {
        pg_sys::FLOAT4OID => Kind::Float4,
        pg_sys::FLOAT8OID if by_value => Kind::Float8,
        pg_sys::NUMERICOID => Kind::Numeric,
        pg_sys::BPCHAROID => Kind::Padded,
        _ if by_value => Kind::Word(usize::try_from(length).unwrap_or(8).min(8)),
        _ if length == -2 => Kind::CString,
        _ => usize::try_from(length).map_or(Kind::Varlena, Kind::Fixed),
    }
}

/// What is the same for all rows of a statement.
struct Plan {
    hasher: SipHasher13,
    kinds: Vec<Kind>,
    row: Vec<u8>,
    /// Words of the key; 0: it is not read back.
    words: usize,
    /// Where the values of such a key begin and end in the bytes of a row, if none of them is NULL.
    spans: Vec<(usize, usize)>,
}

/// How long the values of a key are that is read back from leaves. None: it is not, being too long, or not as long in every row.
pub(super) fn lengths(kinds: &[Kind]) -> Option<Vec<usize>> {
    let length = |kind: &Kind| match kind {
        Kind::Word(length) | Kind::Fixed(length) => Some(*length),
        _ => None,
    };
    let lengths: Vec<usize> = kinds.iter().map(length).collect::<Option<_>>()?;
    (lengths.iter().sum::<usize>() <= MOST_WORDS * 8).then_some(lengths)
}

impl Plan {
    fn new(secret: &[u8; 16], kinds: Vec<Kind>, keys: usize) -> Self {
        let lengths = kinds.get(..keys).and_then(lengths).unwrap_or_default();
        let mut spans = Vec::with_capacity(lengths.len());
        for length in &lengths {
            let begin = spans.last().map_or(0, |(_, end)| *end) + 1;
            spans.push((begin, begin + length));
        }
        let words = lengths.iter().sum::<usize>().div_ceil(8);
        Self { hasher: SipHasher13::new_with_key(secret), kinds, row: Vec::with_capacity(256), words, spans }
    }

    /// The words of the key, when nothing else has been added to the row yet. Where a value is NULL they say nothing.
    fn key(&self) -> [u64; MOST_WORDS] {
        let mut words = [0; MOST_WORDS];
        if self.spans.last().is_some_and(|(_, end)| *end == self.row.len()) {
            let mut at = 0;
            for (begin, end) in &self.spans {
                for byte in &self.row[*begin..*end] {
                    words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
                    at += 1;
                }
            }
        }
        words
    }

    /// A value whose length differs from row to row: the length says where it ends, so that no other values give the same bytes.
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > LONG {
            let hash = self.hasher.hash(bytes).as_bytes();
            self.row.extend_from_slice(&HASHED);
            self.row.extend_from_slice(&hash);
        } else {
            self.row.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            self.row.extend_from_slice(bytes);
        }
    }

    /// A value that is as long in every row.
    fn put_fixed(&mut self, bytes: &[u8]) {
        self.row.push(1);
        self.row.extend_from_slice(bytes);
    }

    /// Adds a value to the row.
    ///
    /// # Safety
    /// The value is of the type that `kind` was made for.
    unsafe fn add(&mut self, kind: Kind, value: pg_sys::NullableDatum) {
        if value.isnull {
            match kind {
                Kind::CString | Kind::Varlena | Kind::Padded | Kind::Numeric => self.row.extend_from_slice(&NONE),
                Kind::Word(_) | Kind::Float4 | Kind::Float8 | Kind::Fixed(_) => self.row.push(0),
            }
            return;
        }
        let datum = value.value;
        match kind {
            Kind::Word(length) => {
                self.put_fixed(&(datum.value() as u64).to_le_bytes()[..length]);
            }
            // -0 equals 0, and every NaN every other.
            Kind::Float4 => {
                let float = f32::from_bits(datum.value() as u32);
                let plain = if float == 0.0 {
                    0.0
                } else if float.is_nan() {
                    f32::NAN
                } else {
                    float
                };
                self.put_fixed(&plain.to_bits().to_le_bytes());
            }
            Kind::Float8 => {
                let float = f64::from_bits(datum.value() as u64);
                let plain = if float == 0.0 {
                    0.0
                } else if float.is_nan() {
                    f64::NAN
                } else {
                    float
                };
                self.put_fixed(&plain.to_bits().to_le_bytes());
            }
            // SAFETY: a value of a type of this length is so many bytes at its address.
            Kind::Fixed(length) => self.put_fixed(unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), length) }),
            // SAFETY: a value of a type of length -2 ends with a zero.
            Kind::CString => self.put(unsafe { CStr::from_ptr(datum.cast_mut_ptr()) }.to_bytes()),
            Kind::Varlena | Kind::Padded | Kind::Numeric => {
                let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
                // SAFETY: a value of a type of length -1 is a varlena; what is compressed or kept elsewhere is brought here first, and the
                // bytes are only read until the copy is freed.
                unsafe {
                    let plain =
                        varlena::varatt_is_4b_u(stored) || varlena::varatt_is_1b(stored) && !varlena::varatt_is_1b_e(stored);
                    let here = if plain { stored } else { pg_sys::pg_detoast_datum_packed(stored) };
                    self.put_varlena(kind, varlena::varlena_to_byte_slice(here));
                    if here != stored {
                        pg_sys::pfree(here.cast());
                    }
                }
            }
        }
    }

    fn put_varlena(&mut self, kind: Kind, bytes: &[u8]) {
        match (kind, bytes) {
            (Kind::Padded, _) => {
                let length = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                self.put(&bytes[..length]);
            }
            // The first two bytes are the header: NUMERIC_SHORT has the digits to show in the bits 7 to 12, another one in the lower 14; of NaN and the
            // infinities (both upper bits set) everything counts.
            (Kind::Numeric, [low, high, digits @ ..]) => {
                let header = u16::from_ne_bytes([*low, *high]);
                let header = match header & 0xc000 {
                    0xc000 => header,
                    0x8000 => header & !0x1f80,
                    sign => sign,
                };
                self.put(digits);
                self.row.extend_from_slice(&header.to_le_bytes());
            }
            _ => self.put(bytes),
        }
    }
}

fn misuse(what: &str) -> ! {
    raise(UsherError::internal(format!("{what} is called by usher.compare_tables() alone")))
}

/// The arguments of the call, as they came.
///
/// # Safety
/// `fcinfo` is of a call that is running.
unsafe fn arguments<'a>(fcinfo: pg_sys::FunctionCallInfo) -> &'a [pg_sys::NullableDatum] {
    // SAFETY: as the caller promises; the array has nargs members.
    unsafe { (*fcinfo).args.as_slice(usize::try_from((*fcinfo).nargs).unwrap_or(0)) }
}

/// What this call site keeps from row to row; made at its first row. `secret`: 16 bytes; values begin at argument `from`, the first `keys` of them are the key.
///
/// # Safety
/// `fcinfo` is of a call that is running, and argument `secret` is a uuid.
unsafe fn plan<'a>(fcinfo: pg_sys::FunctionCallInfo, secret: usize, from: usize, keys: usize) -> &'a mut Plan {
    // SAFETY: fn_extra is ours: NULL, or what was put there below, which lives as long as fn_mcxt, in which the call site lives.
    unsafe {
        let site = (*fcinfo).flinfo;
        if (*site).fn_extra.is_null() {
            let args = arguments(fcinfo);
            let Some(secret) = args.get(secret).filter(|secret| !secret.isnull) else { misuse("usher.compare_leaf()") };
            let mut key = [0; 16];
            key.copy_from_slice(std::slice::from_raw_parts(secret.value.cast_mut_ptr::<u8>(), 16));
            let kinds = (from..args.len()).map(|n| kind(pg_sys::get_fn_expr_argtype(site, n as i32))).collect();
            let plan = Plan::new(&key, kinds, keys);
            (*site).fn_extra = PgMemoryContexts::For((*site).fn_mcxt).leak_and_drop_on_delete(plan).cast();
        }
        &mut *(*site).fn_extra.cast::<Plan>()
    }
}

fn number(value: &pg_sys::NullableDatum) -> i32 {
    if value.isnull { -1 } else { value.value.value() as i32 }
}

fn leaf(hash: u64, bits: i32) -> usize {
    (hash & ((1_u64 << bits) - 1)) as usize
}

macro_rules! callable {
    ($name:ident) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    };
}
callable!(pg_finfo_usher_compare_step);
callable!(pg_finfo_usher_compare_join);
callable!(pg_finfo_usher_compare_open);
callable!(pg_finfo_usher_compare_leaf);
callable!(pg_finfo_usher_compare_digest);

/// The context that an aggregate's state lives in.
///
/// # Safety
/// `fcinfo` is of a call that is running.
unsafe fn state_context(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::MemoryContext {
    let mut context = std::ptr::null_mut();
    // SAFETY: as the caller promises.
    if unsafe { pg_sys::AggCheckCallContext(fcinfo, &mut context) } == 0 {
        misuse("usher.compare_tree()");
    }
    context
}

/// A state behind its length word, which nobody else has.
///
/// # Safety
/// `state` is a plain bytea with a header of four bytes.
unsafe fn body<'a>(state: pg_sys::Datum) -> &'a mut [u8] {
    let state = state.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(state.cast::<u8>().add(HEADER), varlena::varsize_any_exhdr(state)) }
}

pub(super) fn sum(bytes: &[u8]) -> u128 {
    let mut held = [0; SUM];
    held.copy_from_slice(bytes);
    u128::from_le_bytes(held)
}

fn add_to(bytes: &mut [u8], digest: u128, left: bool) {
    let held = sum(bytes);
    let held = if left { held.wrapping_add(digest) } else { held.wrapping_sub(digest) };
    bytes.copy_from_slice(&held.to_le_bytes());
}

/// `(state bytea, left boolean, secret uuid, bits integer, keys integer, VARIADIC "any") → bytea`: adds a row of the left side to its leaf, or takes
/// one of the right side away. The first `keys` values choose the leaf.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_step(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    const VALUES: usize = 5;
    // SAFETY: called by the server as the aggregate's declaration says: the arguments are of those types. The state is NULL or what this
    // function has returned or `usher_compare_join` has, in the aggregate's own context.
    unsafe {
        let context = state_context(fcinfo);
        let args = arguments(fcinfo);
        if args.len() < VALUES {
            misuse("usher.compare_tree()");
        }
        let (left, bits, keys) = (args[1].value.value() & 1 == 1, number(&args[3]), number(&args[4]));
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        if !(0..=MOST_BITS).contains(&bits) || keys > args.len() - VALUES {
            misuse("usher.compare_tree()");
        }
        let plan = plan(fcinfo, 2, VALUES, keys);
        let length = SUM * (1 + plan.words);
        let state = if args[0].isnull {
            let size = HEADER + PREFACE + (length << bits);
            let state = pg_sys::MemoryContextAllocZero(context, size);
            varlena::set_varsize_4b(state.cast(), size as i32);
            let state = pg_sys::Datum::from(state);
            body(state)[0] = plan.words as u8;
            state
        } else {
            args[0].value
        };
        plan.row.clear();
        let (mut hash, mut key) = (0, [0; MOST_WORDS]);
        for (n, value) in args[VALUES..].iter().enumerate() {
            let kind = plan.kinds[n];
            plan.add(kind, *value);
            if n + 1 == keys {
                hash = plan.hasher.hash(&plan.row).h1;
                key = plan.key();
            }
        }
        let digest = plan.hasher.hash(&plan.row).as_u128();
        let at = PREFACE + leaf(hash, bits) * length;
        let Some(leaf) = body(state).get_mut(at..at + length) else { misuse("usher.compare_tree()") };
        let (sum, words) = leaf.split_at_mut(SUM);
        add_to(sum, digest, left);
        for (sum, word) in words.chunks_exact_mut(SUM).zip(key) {
            add_to(sum, digest.wrapping_mul(u128::from(word)), left);
        }
        state
    }
}

/// `(bytea, bytea) → bytea`: what two processes have found, together.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_join(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: both are states of the aggregate, or NULL; the first is ours to change, or a copy is made in the aggregate's context.
    unsafe {
        let context = state_context(fcinfo);
        let args = arguments(fcinfo);
        if args[1].isnull {
            (*fcinfo).isnull = args[0].isnull;
            return args[0].value;
        }
        let old = pg_sys::MemoryContextSwitchTo(context);
        let other = pg_sys::pg_detoast_datum(args[1].value.cast_mut_ptr());
        let result = if args[0].isnull {
            // What came from another process lives until the next row.
            let size = varlena::varsize_any(other);
            let copy = pg_sys::palloc(size).cast::<u8>();
            std::ptr::copy_nonoverlapping(other.cast::<u8>(), copy, size);
            pg_sys::Datum::from(copy)
        } else {
            let (all, more) = (body(args[0].value), body(pg_sys::Datum::from(other)));
            if all.len() != more.len() || all.len() < PREFACE || all[0] != more[0] {
                misuse("usher.compare_tree()");
            }
            for (bytes, added) in all[PREFACE..].chunks_exact_mut(SUM).zip(more[PREFACE..].chunks_exact(SUM)) {
                add_to(bytes, sum(added), true);
            }
            args[0].value
        };
        pg_sys::MemoryContextSwitchTo(old);
        result
    }
}

/// `(bytea) → bytea`: the leaves that are not the same on both sides, see [`super::digest_keys::unequal`].
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_open(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the argument is a state of the aggregate, or NULL where there were no rows.
    unsafe {
        state_context(fcinfo);
        let args = arguments(fcinfo);
        let mut differ: Vec<u8> = Vec::new();
        if !args[0].isnull {
            let state = pg_sys::pg_detoast_datum(args[0].value.cast_mut_ptr());
            if let Some((preface, all)) = body(pg_sys::Datum::from(state)).split_at_checked(PREFACE) {
                differ.push(preface[0]);
                for (n, leaf) in (0_i32..).zip(all.chunks_exact(SUM * (1 + usize::from(preface[0])))) {
                    if sum(&leaf[..SUM]) != 0 {
                        differ.extend_from_slice(&n.to_le_bytes());
                        differ.extend_from_slice(leaf);
                    }
                }
            }
        }
        differ.into_datum().unwrap_or(pg_sys::Datum::from(0))
    }
}

/// `(secret uuid, bits integer, VARIADIC "any") → integer`: the leaf of a row with this key.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_leaf(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: called by the server as declared: a uuid, a number, and values of the types that the call site names.
    unsafe {
        let args = arguments(fcinfo);
        let bits = args.get(1).map_or(-1, number);
        if !(0..=MOST_BITS).contains(&bits) {
            misuse("usher.compare_leaf()");
        }
        let plan = plan(fcinfo, 0, 2, 0);
        plan.row.clear();
        for (n, value) in args[2..].iter().enumerate() {
            let kind = plan.kinds[n];
            plan.add(kind, *value);
        }
        pg_sys::Datum::from(leaf(plan.hasher.hash(&plan.row).h1, bits))
    }
}

/// `(secret uuid, VARIADIC "any") → uuid`: the digest of some values, for rows that have more of them than a function may have arguments.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_compare_digest(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: called by the server as declared: a uuid, and values of the types that the call site names.
    unsafe {
        let args = arguments(fcinfo);
        let plan = plan(fcinfo, 0, 1, 0);
        plan.row.clear();
        for (n, value) in args[1..].iter().enumerate() {
            let kind = plan.kinds[n];
            plan.add(kind, *value);
        }
        let digest = plan.hasher.hash(&plan.row).as_bytes();
        pgrx::Uuid::from_bytes(digest).into_datum().unwrap_or(pg_sys::Datum::from(0))
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    fn row(values: &[(Kind, &[u8])]) -> Vec<u8> {
        let mut plan = Plan::new(&[7; 16], Vec::new(), 0);
        for (kind, bytes) in values {
            plan.put_varlena(*kind, bytes);
        }
        plan.row
    }

    #[test]
    fn of_a_numeric_the_digits_shown_do_not_count() {
        let numeric = |header: u16| [&header.to_ne_bytes()[..], &[1, 0]].concat();
        let of = |header: u16| row(&[(Kind::Numeric, &numeric(header))]);
        // 1, 1.0 and 1.00; -1; 10000.
        assert_eq!((of(0x8000), of(0x8000)), (of(0x8080), of(0x8100)));
        assert_ne!(of(0x8000), of(0xa000));
        assert_ne!(of(0x8000), of(0x8001));
        assert_ne!(of(0x8001), of(0x8041), "the weight's sign");
        // The long form, and NaN and the infinities.
        assert_eq!(of(0x0000), of(0x0041));
        assert_ne!(of(0x0000), of(0x4000));
        assert_ne!(of(0xc000), of(0xd000));
        assert_ne!(of(0xd000), of(0xf000));
    }

    #[test]
    fn spaces_that_only_pad_do_not_count() {
        assert_eq!(row(&[(Kind::Padded, b"a  ")]), row(&[(Kind::Padded, b"a")]));
        assert_eq!(row(&[(Kind::Padded, b"   ")]), row(&[(Kind::Padded, b"")]));
        assert_ne!(row(&[(Kind::Varlena, b"a ")]), row(&[(Kind::Varlena, b"a")]));
        assert_ne!(row(&[(Kind::Padded, b" a")]), row(&[(Kind::Padded, b"a")]));
    }

    #[test]
    fn what_is_added_and_taken_away_is_nothing() {
        let mut leaf = [0; SUM];
        for digest in [1, u128::MAX, 1 << 127, 0x1234_5678_9abc_def0] {
            add_to(&mut leaf, digest, true);
        }
        assert_ne!(leaf, [0; SUM]);
        for digest in [u128::MAX, 0x1234_5678_9abc_def0, 1, 1 << 127] {
            add_to(&mut leaf, digest, false);
        }
        assert_eq!(leaf, [0; SUM]);
    }

    #[test]
    fn the_words_of_a_key_are_its_bytes() {
        let kinds = vec![Kind::Fixed(16), Kind::Word(4), Kind::Varlena];
        let mut plan = Plan::new(&[7; 16], kinds, 2);
        assert_eq!(plan.words, 3);
        let id: Vec<u8> = (1..=16).collect();
        plan.put_fixed(&id);
        plan.put_fixed(&[0xff, 0, 0, 0x80]);
        assert_eq!(plan.key(), [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09, 0x8000_00ff, 0]);
        // A value that is NULL.
        plan.row.clear();
        plan.put_fixed(&id);
        plan.row.push(0);
        assert_eq!(plan.key(), [0; MOST_WORDS]);
        for kinds in [vec![Kind::Varlena], vec![Kind::Fixed(33)], vec![Kind::Word(8), Kind::Numeric], Vec::new()] {
            let keys = kinds.len();
            assert_eq!(Plan::new(&[7; 16], kinds, keys).words, 0);
        }
    }

    proptest! {
        /// Where one value ends and the next begins is part of the row, also where they are long.
        #[test]
        fn rows_that_are_not_the_same_have_other_bytes(a in proptest::collection::vec("[a-c]{0,3}", 0..4), b in proptest::collection::vec("[a-c]{0,3}", 0..4), times in 1_usize..1500) {
            fn long(values: &[String], times: usize) -> Vec<u8> {
                let values: Vec<String> = values.iter().map(|value| value.repeat(times)).collect();
                row(&values.iter().map(|value| (Kind::Varlena, value.as_bytes())).collect::<Vec<_>>())
            }
            prop_assert_eq!(a == b, long(&a, times) == long(&b, times));
        }
    }
}
