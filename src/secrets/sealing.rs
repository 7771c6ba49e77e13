//! Sealing a value, and opening it again. Pure.
//!
//! AES-256-GCM (NIST SP 800-38D) with a nonce of 12 random bytes. A sealed value is
//!
//! ```text
//! 01  length of the key's name u8  the key's name  nonce 12 bytes  ciphertext and tag (16 bytes)
//! ```
//!
//! What it belongs to is authenticated with it: a sealed value that is moved to another organization, or under another name,
//! does not open. That text is
//!
//! ```text
//! "pg_usher secret 1\n"  organization 16 bytes (zeros: the installation)  the secret's name
//! ```
//!
//! Values of sealed columns (see `protect`) are sealed alike, under another first line: neither passes for the other.

use crate::error::{Result, UsherError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
pub const KEY_BYTES: usize = 32;

/// A key and its name, which stands on everything that it seals.
pub struct Key {
    pub id: String,
    pub bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.as_slice())
            .map_err(|_| UsherError::internal("a key has the wrong length"))?;
        Ok(LessSafeKey::new(key))
    }
}

/// What a value is; a word of the text that is authenticated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Secret,
    Column,
}

/// What a value belongs to.
pub struct Place<'a> {
    pub purpose: Purpose,
    pub organization: Option<[u8; 16]>,
    pub name: &'a str,
}

impl Place<'_> {
    fn bound(&self) -> Aad<Vec<u8>> {
        let mut text = match self.purpose {
            Purpose::Secret => b"pg_usher secret 1\n".to_vec(),
            Purpose::Column => b"pg_usher column 1\n".to_vec(),
        };
        text.extend(self.organization.unwrap_or_default());
        text.extend(self.name.as_bytes());
        Aad::from(text)
    }
}

pub fn seal(key: &Key, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| UsherError::internal("the system gave no random bytes"))?;
    let mut sealed = Vec::with_capacity(2 + key.id.len() + NONCE_LEN + value.len() + AES_256_GCM.tag_len());
    sealed.push(VERSION);
    sealed.push(u8::try_from(key.id.len()).map_err(|_| UsherError::internal("a key's name is too long"))?);
    sealed.extend(key.id.as_bytes());
    sealed.extend(nonce);
    let mut text = Zeroizing::new(value.to_vec());
    let tag = key
        .cipher()?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place.bound(), &mut text)
        .map_err(|_| UsherError::internal("a secret could not be sealed"))?;
    sealed.extend(text.iter());
    sealed.extend(tag.as_ref());
    Ok(sealed)
}

/// The name of the key that a sealed value needs.
pub fn key_id(sealed: &[u8]) -> Option<&str> {
    let [VERSION, length, rest @ ..] = sealed else { return None };
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok()
}

/// None: it was not sealed by this key for this place, or was changed since.
pub fn open(key: &Key, place: &Place<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let id = key_id(sealed).filter(|id| *id == key.id)?;
    let (nonce, text) = sealed.get(2 + id.len()..)?.split_at_checked(NONCE_LEN)?;
    let mut text = Zeroizing::new(text.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let length = key.cipher().ok()?.open_in_place(nonce, place.bound(), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

#[cfg(test)]
mod unit {
    use super::{KEY_BYTES, Key, Place, Purpose, key_id, open, seal};
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn key(id: &str, byte: u8) -> Key {
        Key { id: id.to_owned(), bytes: Zeroizing::new([byte; KEY_BYTES]) }
    }

    const HERE: Place<'static> = Place { purpose: Purpose::Secret, organization: Some([7; 16]), name: "stripe" };

    #[test]
    fn opens_for_its_key_and_its_place_only() {
        let sealed = seal(&key("a", 1), &HERE, b"sk_live").unwrap();
        assert_eq!(open(&key("a", 1), &HERE, &sealed).unwrap().as_slice(), b"sk_live");
        assert_eq!(key_id(&sealed), Some("a"));
        assert!(open(&key("a", 2), &HERE, &sealed).is_none(), "another key of that name");
        assert!(open(&key("b", 1), &HERE, &sealed).is_none(), "another name");
        assert!(open(&key("a", 1), &Place { organization: Some([8; 16]), ..HERE }, &sealed).is_none(), "another organization");
        assert!(open(&key("a", 1), &Place { organization: None, ..HERE }, &sealed).is_none(), "the installation");
        assert!(open(&key("a", 1), &Place { name: "paypal", ..HERE }, &sealed).is_none(), "another secret");
        assert!(open(&key("a", 1), &Place { purpose: Purpose::Column, ..HERE }, &sealed).is_none(), "a column's value");
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        assert_ne!(seal(&key("a", 1), &HERE, b"x").unwrap(), seal(&key("a", 1), &HERE, b"x").unwrap());
    }

    /// The gcmEncryptExtIV256 construction, by hand: the layout of this module over the cipher's own output for zeros
    /// (test case 14 of the GCM specification: key, nonce and text of zeros).
    #[test]
    fn the_cipher_is_the_published_one() {
        let cipher = key("z", 0).cipher().unwrap();
        let mut text = [0u8; 16];
        let nonce = ring::aead::Nonce::assume_unique_for_key([0; 12]);
        let tag = cipher.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), &mut text).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&text), "cea7403d4d606b6e074ec5d3baf39d18");
        assert_eq!(hex(tag.as_ref()), "d0d1c8a799996bf0265b98b5d48ab919");
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens(value in proptest::collection::vec(any::<u8>(), 0..200), id in "[a-z0-9]{1,32}") {
            let key = key(&id, 9);
            let sealed = seal(&key, &HERE, &value).unwrap();
            prop_assert_eq!(open(&key, &HERE, &sealed).unwrap().to_vec(), value);
        }

        #[test]
        fn whatever_was_changed_does_not(at in any::<proptest::sample::Index>(), bit in 0..8u8) {
            let mut sealed = seal(&key("key", 9), &HERE, b"value").unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&key("key", 9), &HERE, &sealed).is_none());
        }

        #[test]
        fn anything_at_all_is_refused_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(open(&key("key", 9), &HERE, &bytes).is_none());
        }
    }
}
