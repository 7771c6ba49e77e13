//! Fuzz targets of protected columns: text that claims to be sealed, and what a mask shows.

use super::mask::mask;
use super::text::{MOST_BYTES, NOBODY, parse, seal};
use crate::fuzz::{Choices, fuzz_target, text};
use crate::secrets::sealing::{KEY_BYTES, Key};
use zeroize::Zeroizing;

fn key(digit: u8) -> Key {
    Key { id: "key".to_owned(), bytes: Zeroizing::new([digit; KEY_BYTES]) }
}

fuzz_target!(sealed_column, |bytes: &[u8]| {
    let given = text(&bytes[..bytes.len().min(1 << 13)]);
    if let Some(sealed) = parse(&given) {
        assert!(sealed.open(&[key(1)]).is_err(), "nobody has sealed this");
    }
    let id = uuid::Uuid::from_u128(7);
    let whole = seal(&key(1), id, NOBODY, &given).expect("it is not too long");
    // Its header has names and zeros, which a value may be made of.
    let body = whole.rsplit(':').next().unwrap_or_default();
    assert!(given.len() < MOST_BYTES && (given.len() < 12 || !body.contains(&*given)), "it can be read");
    let opened = parse(&whole).expect("its own form").open(&[key(2), key(1)].map(|k| Key { id: k.id, bytes: k.bytes })[1..]);
    assert_eq!(opened.expect("its own key").as_str(), &*given);
    assert!(parse(&whole).expect("its own form").open(&[key(2)]).is_err());
    // One letter of it changed: it opens no more, whatever stands in its header then.
    let mut choices = Choices::of(bytes);
    let mut letters: Vec<char> = whole.chars().collect();
    let at = choices.below(letters.len());
    letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
    let changed: String = letters.into_iter().collect();
    assert!(parse(&changed).is_none_or(|sealed| sealed.open(&[key(1)]).is_err()), "{changed}");
});

fuzz_target!(mask_value, |bytes: &[u8]| {
    let given = text(bytes);
    let shown = mask(&given);
    assert!(shown.contains("***") && shown.chars().count() <= 40, "{shown}");
    // Of what is no address and no number nothing is shown.
    if !given.contains('@') && !given.chars().any(|c| c.is_ascii_digit()) {
        assert_eq!(shown, "***");
    }
});
