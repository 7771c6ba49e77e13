//! The proof of an erasure: what was done, signed.
//!
//! The text in `signed` is JSON and is signed as it stands, with Ed25519 (RFC 8032). The seed of the signing key is derived from a key
//! of the key file: HKDF-SHA-256 (RFC 5869) without salt, with the info `pg_usher receipt 1`. So nobody signs who has only the
//! database, and whoever has the public key can verify a receipt without it.

use crate::error::{Result, UsherError};
use crate::secrets::keys;
use ring::hkdf;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const INFO: &[u8] = b"pg_usher receipt 1";
const SEED_BYTES: usize = 32;

struct Seed;

impl hkdf::KeyType for Seed {
    fn len(&self) -> usize {
        SEED_BYTES
    }
}

fn pair(key: &[u8]) -> Result<Ed25519KeyPair> {
    let broken = || UsherError::internal("a key for signing could not be derived");
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    derived.expand(&[INFO], Seed).and_then(|okm| okm.fill(seed.as_mut())).map_err(|_| broken())?;
    Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| broken())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    // from_str_radix would take a sign.
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

/// Whether receipts can be signed at all, before anything is done.
pub fn ready() -> Result<()> {
    keys::read().map(drop).map_err(|error| {
        UsherError::state(
            error.message.replace("secrets cannot be sealed or opened", "the receipt of an erasure cannot be signed"),
        )
        .hint(error.hint.unwrap_or_default())
    })
}

/// Signs with the newest key.
pub fn sign(receipt: &Value) -> Result<Value> {
    let keys = keys::read()?;
    let newest = &keys[0];
    let pair = pair(newest.bytes.as_slice())?;
    let text = receipt.to_string();
    Ok(json!({
        "signed": text,
        "algorithm": "Ed25519",
        "key_id": newest.id,
        "public_key": hex(pair.public_key().as_ref()),
        "signature": hex(pair.sign(text.as_bytes()).as_ref()),
    }))
}

/// A public key as people write it.
pub fn public_key(text: &str) -> Result<Vec<u8>> {
    bytes(text).filter(|key| key.len() == ED25519_BYTES).ok_or_else(|| {
        UsherError::invalid("the public key is none: it has 64 hexadecimal digits")
            .hint("It stands as \"public_key\" in every receipt of that server; keep it apart from them.")
    })
}

/// Whether a receipt is as it was signed, with one of the keys that are trusted.
pub fn verify(receipt: &Value, trusted: &[Vec<u8>]) -> Result<bool> {
    let text = |name: &str| {
        receipt.get(name).and_then(Value::as_str).ok_or_else(|| {
            UsherError::invalid(format!("the receipt has no \"{name}\""))
                .hint("Give a whole receipt, as usher.erase_subject() and usher.erasure_receipt() return it.")
        })
    };
    let (signed, signature, named) = (text("signed")?, bytes(text("signature")?), bytes(text("public_key")?));
    let (Some(signature), Some(named)) = (signature, named) else { return Ok(false) };
    Ok(trusted.contains(&named) && UnparsedPublicKey::new(&ED25519, named).verify(signed.as_bytes(), &signature).is_ok())
}

const ED25519_BYTES: usize = 32;

/// The public keys of this server.
pub fn own() -> Result<Vec<Vec<u8>>> {
    keys::read()?.iter().map(|key| Ok(pair(key.bytes.as_slice())?.public_key().as_ref().to_vec())).collect()
}

#[cfg(test)]
mod unit {
    use super::{ED25519, KeyPair, UnparsedPublicKey, bytes, hex, pair, public_key, verify};
    use serde_json::json;

    /// Worked out with openssl: kdf -kdfopt digest:SHA256 -kdfopt hexkey:0707… -kdfopt info:"pg_usher receipt 1" HKDF, and the public
    /// key of that seed.
    #[test]
    fn the_key_is_derived_as_documented() {
        let public = "6e9df23dcbc6ea9127013b0a288cc61928f2c34b68c389fcb686b3976c46aa1c";
        assert_eq!(hex(pair(&[7; 32]).unwrap().public_key().as_ref()), public);
    }

    #[test]
    fn a_receipt_is_verified_with_the_trusted_key_alone() {
        let (mine, other) = (pair(&[7; 32]).unwrap(), pair(&[8; 32]).unwrap());
        let public = hex(mine.public_key().as_ref());
        let verify = |receipt: &serde_json::Value, key: &str| verify(receipt, &[public_key(key)?]);
        let receipt = |text: &str, by: &super::Ed25519KeyPair| json!({"signed": text, "public_key": hex(by.public_key().as_ref()), "signature": hex(by.sign(b"{}").as_ref())});
        assert_eq!(verify(&receipt("{}", &mine), &public).ok(), Some(true));
        assert_eq!(verify(&receipt("{ }", &mine), &public).ok(), Some(false), "the text was changed");
        assert_eq!(verify(&receipt("{}", &other), &public).ok(), Some(false), "signed by somebody else");
        let mut mixed = receipt("{}", &other);
        mixed["public_key"] = json!(public);
        assert_eq!(verify(&mixed, &public).ok(), Some(false), "under a false name");
        assert!(verify(&json!({"signed": "{}"}), &public).is_err() && verify(&receipt("{}", &mine), "zz").is_err());
        assert_eq!(bytes("+f"), None);
        assert!(UnparsedPublicKey::new(&ED25519, bytes(&public).unwrap()).verify(b"{}", mine.sign(b"{}").as_ref()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_bytes_or_none(text in "\\PC{0,20}") {
            // One value has one text.
            proptest::prop_assert!(bytes(&text).is_none_or(|bytes| hex(&bytes) == text.to_ascii_lowercase()));
        }
    }
}
