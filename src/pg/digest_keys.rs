//! Which leaves two sides differ in, and the key of the row by which one does: read back from the sums that [`super::digest`] has left.

use super::digest::{Kind, SUM, kind, lengths, sum};
use pgrx::pg_sys;
use std::ffi::CStr;

/// Whether keys of these types are read back from leaves.
pub fn is_read_back(types: &[pg_sys::Oid]) -> bool {
    let kinds: Vec<Kind> = types.iter().map(|oid| kind(*oid)).collect();
    lengths(&kinds).is_some_and(|lengths| !lengths.is_empty())
}

/// A leaf that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unequal {
    pub leaf: i32,
    pub sum: u128,
    words: Vec<u128>,
}

/// Reads what `usher.compare_tree` gives.
pub fn unequal(found: &[u8]) -> Vec<Unequal> {
    let Some((words, leaves)) = found.split_first() else { return Vec::new() };
    let length = 4 + SUM * (1 + usize::from(*words));
    let read = |bytes: &[u8]| {
        let (number, sums) = bytes.split_at(4);
        let mut sums = sums.chunks_exact(SUM).map(sum);
        let mut leaf = [0; 4];
        leaf.copy_from_slice(number);
        Unequal { leaf: i32::from_le_bytes(leaf), sum: sums.next().unwrap_or_default(), words: sums.collect() }
    };
    leaves.chunks_exact(length).map(read).collect()
}

/// What an odd number has to be multiplied by to become 1, modulo 2^128: each step doubles the bits that are right, of which there are three at first.
fn inverse(odd: u128) -> u128 {
    (0..6).fold(odd, |x, _| x.wrapping_mul(2_u128.wrapping_sub(odd.wrapping_mul(x))))
}

impl Unequal {
    /// The bytes of the one key whose rows make the leaf differ. None: there are several. (That several look like one happens with a chance of
    /// 2^-64; whoever asks makes sure by the rows of that key.)
    fn key(&self) -> Option<Vec<u8>> {
        let zeros = self.sum.trailing_zeros();
        if self.words.is_empty() || zeros > 64 {
            return None;
        }
        let inverse = inverse(self.sum >> zeros);
        let word = |sum: &u128| {
            let word = (sum >> zeros).wrapping_mul(inverse) & (u128::MAX >> zeros);
            u64::try_from(word).ok().filter(|word| u128::from(*word).wrapping_mul(self.sum) == *sum)
        };
        let words: Vec<u64> = self.words.iter().map(word).collect::<Option<_>>()?;
        Some(words.into_iter().flat_map(u64::to_le_bytes).collect())
    }

    /// That key as its types write it.
    pub fn key_of(&self, types: &[pg_sys::Oid]) -> Option<Vec<String>> {
        let kinds: Vec<Kind> = types.iter().map(|oid| kind(*oid)).collect();
        let (lengths, key) = (lengths(&kinds)?, self.key()?);
        let mut rest = key.as_slice();
        let mut texts = Vec::new();
        for ((length, oid), kind) in lengths.into_iter().zip(types).zip(kinds) {
            let (bytes, more) = rest.split_at_checked(length)?;
            rest = more;
            texts.push(written(*oid, kind, bytes)?);
        }
        Some(texts)
    }
}

/// A value as its type writes it. `kind` is that of the type, and of a length that is the same for all values.
fn written(oid: pg_sys::Oid, kind: Kind, bytes: &[u8]) -> Option<String> {
    // SAFETY: the output function of a type is called with a datum of it: a word that holds the bytes that a value of it has had, or the address of a
    // copy of them, aligned as all memory of palloc is. Its text is copied and freed.
    unsafe {
        let (mut output, mut varlena) = (pg_sys::Oid::INVALID, false);
        pg_sys::getTypeOutputInfo(oid, &mut output, &mut varlena);
        let datum = if let Kind::Word(_) = kind {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            pg_sys::Datum::from(u64::from_le_bytes(word) as usize)
        } else {
            let copy = pg_sys::palloc(bytes.len().max(1)).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
            pg_sys::Datum::from(copy)
        };
        let text = pg_sys::OidOutputFunctionCall(output, datum);
        let copied = CStr::from_ptr(text).to_str().map(str::to_owned).ok();
        pg_sys::pfree(text.cast());
        copied
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of a row that is different, or on one side only, the key is read back from what the leaf's rows have left; of two keys nothing is.
        #[test]
        fn a_key_is_read_back(rows in proptest::collection::vec((any::<u128>(), any::<[u64; 2]>()), 0..20), key in any::<[u64; 2]>(), before in any::<u128>(), after in any::<u128>(), zeros in 0_u32..70, other in any::<[u64; 2]>(), digest in any::<u128>()) {
            let before = before.wrapping_sub(after).wrapping_shl(zeros).wrapping_add(after);
            let mut sums = [0_u128; 3];
            let put = |sums: &mut [u128; 3], digest: u128, words: [u64; 2], left: bool| {
                for (sum, times) in sums.iter_mut().zip([1, u128::from(words[0]), u128::from(words[1])]) {
                    let digest = digest.wrapping_mul(times);
                    *sum = if left { sum.wrapping_add(digest) } else { sum.wrapping_sub(digest) };
                }
            };
            for (digest, words) in &rows {
                put(&mut sums, *digest, *words, true);
                put(&mut sums, *digest, *words, false);
            }
            put(&mut sums, before, key, true);
            put(&mut sums, after, key, false);
            let found = |sums: [u128; 3]| Unequal { leaf: 0, sum: sums[0], words: sums[1..].to_vec() }.key();
            let said = found(sums);
            if sums[0].trailing_zeros() <= 64 {
                prop_assert_eq!(said, Some(key.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()));
            } else {
                prop_assert_eq!(said, None);
            }
            prop_assume!(other != key && sums[0] != 0);
            put(&mut sums, digest | 1, other, true);
            prop_assert_eq!(found(sums), None);
        }
    }
}
