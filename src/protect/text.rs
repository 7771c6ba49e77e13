//! The form of a sealed value. Pure.
//!
//! ```text
//! usher:sealed:1:<protection>:<organization>:<name of the key>:<nonce, ciphertext and tag, in base64>
//! ```
//!
//! It says by itself which declaration it is under, whose it is and which key opens it; all of that is authenticated, so that a
//! value with another header does not open. Protection and organization are uuids; the organization is all zeros in tables
//! without one. The declaration is known by a uuid, not by a number: in another database the same number would name other readers.

use crate::error::{Result, UsherError};
use crate::secrets::sealing::{self, Key, Place, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What begins like this claims to be sealed.
pub const CLAIM: &str = "usher:sealed:";
/// And like this, in the present form.
pub const PREFIX: &str = "usher:sealed:1:";
/// A sealed value is about half as long again as this; so that a mistaken upload is not sealed, kept and carried about.
pub const MOST_BYTES: usize = 1_048_576;

/// A value that is bound to no organization.
pub const NOBODY: Uuid = Uuid::nil();

/// Text that claims to be sealed, taken apart; whether it is, is known when it has been opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    pub protection: Uuid,
    pub organization: Uuid,
    pub key: &'a str,
    body: &'a str,
}

/// Why a value does not open.
#[derive(Debug, PartialEq, Eq)]
pub enum Shut {
    NoKey(String),
    /// Forged, changed, or sealed by another key of that name.
    Wrong,
}

fn id(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    // One form for each: what is equal is written alike.
    (id.to_string() == text).then_some(id)
}

pub fn claims(text: &str) -> bool {
    text.starts_with(CLAIM)
}

pub fn parse(text: &str) -> Option<Sealed<'_>> {
    let mut parts = text.strip_prefix(PREFIX)?.split(':');
    let sealed = Sealed {
        protection: id(parts.next()?)?,
        organization: id(parts.next()?)?,
        key: parts.next().filter(|key| !key.is_empty())?,
        body: parts.next()?,
    };
    parts.next().is_none().then_some(sealed)
}

fn place<'a>(organization: Uuid, protection: &'a str) -> Place<'a> {
    Place { purpose: Purpose::Column, organization: Some(*organization.as_bytes()), name: protection }
}

pub fn seal(key: &Key, protection: Uuid, organization: Uuid, clear: &str) -> Result<String> {
    if clear.len() > MOST_BYTES {
        return Err(UsherError::new(
            pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            "the value is longer than 1 MB, the most that a sealed column takes",
        )
        .hint("Keep what is longer elsewhere, and here where it is."));
    }
    let id = protection.to_string();
    let bytes = sealing::seal(key, &place(organization, &id), clear.as_bytes())?;
    // The key's name is in the header already.
    let body = bytes.get(2 + key.id.len()..).ok_or_else(|| UsherError::internal("a sealed value is too short"))?;
    Ok(format!("{PREFIX}{id}:{organization}:{}:{}", key.id, BASE64.encode(body)))
}

impl Sealed<'_> {
    pub fn open(&self, keys: &[Key]) -> std::result::Result<Zeroizing<String>, Shut> {
        let key = keys.iter().find(|key| key.id == self.key).ok_or_else(|| Shut::NoKey(self.key.to_owned()))?;
        let body = BASE64.decode(self.body).map_err(|_| Shut::Wrong)?;
        let length = u8::try_from(self.key.len()).map_err(|_| Shut::Wrong)?;
        let mut bytes = vec![1, length];
        bytes.extend(self.key.as_bytes());
        bytes.extend(body);
        let id = self.protection.to_string();
        let clear = sealing::open(key, &place(self.organization, &id), &bytes).ok_or(Shut::Wrong)?;
        std::str::from_utf8(&clear).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| Shut::Wrong)
    }
}

#[cfg(test)]
mod unit {
    use super::{Shut, parse, seal};
    use crate::secrets::sealing::{KEY_BYTES, Key};
    use proptest::prelude::*;
    use uuid::Uuid;
    use zeroize::Zeroizing;

    fn key(id: &str, byte: u8) -> Key {
        Key { id: id.to_owned(), bytes: Zeroizing::new([byte; KEY_BYTES]) }
    }

    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    #[test]
    fn opens_with_its_own_header_only() {
        let text = seal(&key("a", 1), ONE, TWO, "ada@example.com").unwrap();
        let open = |text: &str| parse(text).map(|sealed| sealed.open(&[key("a", 1), key("b", 2)]).map(|clear| clear.to_string()));
        assert_eq!(open(&text), Some(Ok("ada@example.com".to_owned())));
        assert!(!text.contains("ada"));
        // Another protection, another organization, another key: nothing that a writer puts into the header is believed.
        let (one, two) = (ONE.to_string(), TWO.to_string());
        assert_eq!(open(&text.replace(&one, &two)), Some(Err(Shut::Wrong)));
        assert_eq!(open(&text.replace(&two, &one)), Some(Err(Shut::Wrong)));
        assert_eq!(open(&text.replace(":a:", ":b:")), Some(Err(Shut::Wrong)));
        assert_eq!(open(&text.replace(":a:", ":c:")), Some(Err(Shut::NoKey("c".to_owned()))));
        assert_eq!(open(&format!("{text}:")), None);
        assert_eq!(open(&text.to_uppercase()), None);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(seal(&key("a", 1), ONE, TWO, &"x".repeat(super::MOST_BYTES)).is_ok());
        assert!(seal(&key("a", 1), ONE, TWO, &"x".repeat(super::MOST_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_back(clear in "\\PC{0,80}") {
            let text = seal(&key("k", 3), ONE, TWO, &clear).unwrap();
            let opened = parse(&text).unwrap().open(&[key("k", 3)]).unwrap();
            prop_assert_eq!(opened.as_str(), clear);
        }

        #[test]
        fn what_was_changed_does_not_open(at in any::<proptest::sample::Index>(), with in "[ -~]") {
            let text = seal(&key("k", 3), ONE, TWO, "clear").unwrap();
            let at = at.index(text.len());
            let mut other = text.clone();
            other.replace_range(at..=at, &with);
            prop_assume!(other != text);
            prop_assert!(parse(&other).is_none_or(|sealed| sealed.open(&[key("k", 3)]).is_err()));
        }

        #[test]
        fn anything_at_all_is_refused_quietly(text in "(usher:sealed:1:)?\\PC{0,60}") {
            prop_assert!(parse(&text).is_none_or(|sealed| sealed.open(&[key("k", 3)]).is_err()));
        }
    }
}
