//! Fuzz targets of secrets: the key file's text, and values that were sealed by us or by somebody who would like to be us.

use super::keys::parse;
use super::sealing::{KEY_BYTES, Key, Place, Purpose, key_id, open, seal};
use crate::fuzz::{Choices, fuzz_target, text};
use zeroize::Zeroizing;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fuzz_target!(keys, |bytes: &[u8]| {
    match parse(&text(bytes)) {
        Ok(keys) => {
            let lines: String = keys.iter().map(|key| format!("{} {}\n", key.id, hex(key.bytes.as_slice()))).collect();
            let again = parse(&lines).unwrap();
            assert!(!keys.is_empty() && again.len() == keys.len());
            for (at, (key, same)) in keys.iter().zip(&again).enumerate() {
                assert!(key.id == same.id && *key.bytes == *same.bytes, "{}", key.id);
                assert!((1..=32).contains(&key.id.len()) && keys[..at].iter().all(|other| other.id != key.id));
            }
        }
        // The line's number is all of the file that may be said: anything else could be a key.
        Err(said) => assert!(
            [
                "line  of the key file is not a name and  hexadecimal digits",
                "line  of the key file names a key a second time",
                "there is no key in the key file",
            ]
            .contains(&said.replace(|c: char| c.is_ascii_digit(), "").as_str())
        ),
    }
});

const HERE: Place<'static> = Place { purpose: Purpose::Secret, organization: Some([7; 16]), name: "stripe" };

fn key(id: &str) -> Key {
    Key { id: id.to_owned(), bytes: Zeroizing::new([9; KEY_BYTES]) }
}

fuzz_target!(sealed, |bytes: &[u8]| {
    // Longer values are sealed in the same way, and take long.
    let bytes = &bytes[..bytes.len().min(1 << 13)];
    let mut choices = Choices::of(bytes);
    // As a forger would have it: under the name of a key that there is.
    let named = key_id(bytes).map(str::to_owned);
    for id in ["key", ""].into_iter().chain(named.as_deref()) {
        assert!(open(&key(id), &HERE, bytes).is_none(), "nobody has sealed this");
    }
    let whole = seal(&key("key"), &HERE, bytes).unwrap();
    assert_eq!(open(&key("key"), &HERE, &whole).unwrap().as_slice(), bytes);
    let begin = &bytes[..bytes.len().min(16)];
    assert!(begin.len() < 16 || !whole.windows(16).any(|part| part == begin), "it can be read");
    // A bit of each byte before and behind the text, and of some in it.
    let head = 2 + "key".len() + 12;
    let counted: Vec<usize> =
        (0..head).chain(whole.len() - 16..whole.len()).map(|byte| byte * 8 + usize::from(choices.byte() % 8)).collect();
    let at = counted.into_iter().chain((0..16).map(|_| choices.below(whole.len() * 8)).collect::<Vec<_>>());
    let mut sealed = whole.clone();
    for at in at {
        sealed[at / 8] ^= 1 << (at % 8);
        assert!(open(&key("key"), &HERE, &sealed).is_none(), "bit {at} does not count");
        sealed[at / 8] ^= 1 << (at % 8);
    }
    let shorter = choices.below(whole.len());
    assert!(open(&key("key"), &HERE, &whole[..shorter]).is_none());
    assert!(open(&key("key"), &HERE, &[&whole[..], &[0]].concat()).is_none());
    let elsewhere = choices.text();
    assert!(elsewhere == "stripe" || open(&key("key"), &Place { name: &elsewhere, ..HERE }, &whole).is_none());
});
