//! The keys that seal: a file outside the database, named by `usher.key_file`.
//!
//! One key to a line, its name and 64 hexadecimal digits; the first one seals, all of them open. Empty lines and lines that
//! begin with `#` say nothing.
//!
//! ```text
//! 2026-11 7f3c…
//! 2026-05 91aa…
//! ```
//!
//! Read each time, which is seldom: a key that was put on top is used by the next statement of every session, and none lies in
//! memory longer than it takes. Rows of a sealed column come by the thousand: for them the keys are kept until the statement, or its
//! transaction, is over.

use super::sealing::{KEY_BYTES, Key};
use crate::error::{Result, UsherError};
use crate::pg::files::{self, Guarded};
use crate::pg::xact;
use crate::settings;
use std::cell::RefCell;
use std::rc::Rc;
use zeroize::Zeroizing;

const MOST_BYTES: u64 = 65_536;

/// The keys in their order; there is at least one.
pub fn read() -> Result<Vec<Key>> {
    let unusable = |why: &str| {
        UsherError::state(format!("secrets cannot be sealed or opened: {why}"))
            .hint("SELECT * FROM usher.doctor(); says what is wrong with the key file; docs/secrets.md says how to make one.")
    };
    let Some(path) = settings::key_file() else {
        return Err(unusable("usher.key_file is not set"));
    };
    match files::guarded(&path) {
        Guarded::Well => (),
        Guarded::Missing | Guarded::NoFile => return Err(unusable("there is no key file")),
        Guarded::InsideDataDirectory => return Err(unusable("the key file is inside the data directory")),
        Guarded::Foreign | Guarded::Open => return Err(unusable("the key file is not the server's alone")),
    }
    let text = files::text(&path, MOST_BYTES).map(Zeroizing::new).ok_or_else(|| unusable("the key file could not be read"))?;
    parse(&text).map_err(|why| unusable(&why))
}

thread_local! {
    static OF_STATEMENT: RefCell<Option<(i64, Rc<Vec<Key>>)>> = const { RefCell::new(None) };
}

/// As [`read`], once for each of the client's statements.
pub fn for_statement() -> Result<Rc<Vec<Key>>> {
    let now = xact::statement_began();
    if let Some(known) =
        OF_STATEMENT.with_borrow(|known| known.as_ref().filter(|(at, _)| *at == now).map(|(_, keys)| keys.clone()))
    {
        return Ok(known);
    }
    let keys = Rc::new(read()?);
    xact::at_end(|| OF_STATEMENT.set(None));
    OF_STATEMENT.set(Some((now, keys.clone())));
    Ok(keys)
}

/// What is wrong is told by its line, never by what stands there.
pub(super) fn parse(text: &str) -> std::result::Result<Vec<Key>, String> {
    let mut keys: Vec<Key> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = number + 1;
        let key = key(line).ok_or_else(|| format!("line {at} of the key file is not a name and 64 hexadecimal digits"))?;
        if keys.iter().any(|known| known.id == key.id) {
            return Err(format!("line {at} of the key file names a key a second time"));
        }
        keys.push(key);
    }
    if keys.is_empty() { Err("there is no key in the key file".to_owned()) } else { Ok(keys) }
}

fn key(line: &str) -> Option<Key> {
    let (id, digits) = line.split_once(char::is_whitespace)?;
    let named = id.len() <= 32 && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let digits = digits.trim().as_bytes();
    if !named || digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |index: usize| char::from(pair[index]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(Key { id: id.to_owned(), bytes })
}

#[cfg(test)]
mod unit {
    use super::parse;

    fn ids(text: &str) -> Result<Vec<String>, String> {
        parse(text).map(|keys| keys.into_iter().map(|key| key.id).collect())
    }

    #[test]
    fn the_first_key_is_the_newest() {
        let (one, two) = ("0f".repeat(32), "Ab".repeat(32));
        assert_eq!(ids(&format!("# keys\n\n2026-11 {one}\n  2026-05\t{two} \n")), Ok(vec!["2026-11".into(), "2026-05".into()]));
        assert_eq!(parse(&format!("a {one}")).ok().unwrap()[0].bytes[..2], [0x0f, 0x0f]);
        assert_eq!(parse(&format!("a {two}")).ok().unwrap()[0].bytes[31], 0xab);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_alone() {
        let one = "0f".repeat(32);
        for (text, line) in [
            (format!("a {one}\nb {one}0"), "line 2"),
            (format!("a {}", "0g".repeat(32)), "line 1"),
            (format!("a!b {one}"), "line 1"),
            (one.clone(), "line 1"),
            (format!("a {one}\na {one}"), "line 2"),
            (format!("a {}", "ü".repeat(32)), "line 1"),
        ] {
            let said = ids(&text).unwrap_err();
            assert!(said.contains(line) && !said.contains("0f0f"), "{said}");
        }
        assert!(ids("# nothing").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
