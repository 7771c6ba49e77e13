//! Runs the fuzz targets: what they find is found again, since every ordinary run gives them the same input.
//!
//! A target is a test named `fuzz` in some room that hands bytes to a parser and asserts what must hold whatever they are. It gets
//! every file of `tests/fuzz/<target>/`, a few inputs that are huge or deep, and then changed copies of those files from a fixed
//! seed. `USHER_FUZZ_SECONDS` goes on for so long with each target, from another seed each time, which is printed.
//! Under `cargo bolero test` the compiler's coverage chooses instead. docs/development.md says how to use it.

use crate::error::UsherError;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Changed copies in an ordinary run; all targets together stay below some seconds.
const ROUNDS: u64 = 1_500;
const LONGEST: usize = 1 << 16;
/// No input of ours may take so long, on whatever machine.
const HANGS: Duration = Duration::from_secs(30);

/// What parsers are known to stumble over, whatever they parse.
const NASTY: &[&str] = &[
    "\0",
    "\\u0000",
    "\u{202e}",
    "\u{200b}",
    "\u{feff}",
    "\u{130}",
    "é",
    "🎫",
    "'; DROP TABLE usher.flows; --",
    "$$",
    "/*",
    "\"",
    "\"\"",
    "'",
    "\\",
    "%s",
    "../",
    "-1",
    "0",
    "-0",
    "+1",
    "1e400",
    "1e-400",
    "NaN",
    "inf",
    "0x10",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0.1",
    "null",
    "true",
    "[]",
    "{}",
    " ",
    "\n",
    "\r\n",
    ".",
    ",",
    ":",
    "=",
    "/",
    "*",
];

/// Numbers that look like chance and are the same every time (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// The files of a target in the order of their names, so that every machine sees the same.
pub fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(files.len() >= 3, "{} has no corpus", folder.display());
    files
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect()
}

/// The corpus files of a target that are JSON objects: what near-valid input is made from.
pub fn seeds(target: &'static str) -> &'static [Value] {
    static READ: Mutex<BTreeMap<&str, &[Value]>> = Mutex::new(BTreeMap::new());
    READ.lock().unwrap_or_else(PoisonError::into_inner).entry(target).or_insert_with(|| {
        let parsed = corpus(target).into_iter().filter_map(|(_, bytes)| serde_json::from_slice::<Value>(&bytes).ok());
        parsed.filter(Value::is_object).collect::<Vec<_>>().leak()
    })
}

/// Too large or too deep for a parser that calls itself or looks at everything again and again.
fn extremes() -> Vec<(String, Vec<u8>)> {
    let repeated = |text: &str| (format!("{text:?} again and again"), text.repeat((1 << 18) / text.len()).into_bytes());
    ["[", "{\"a\":", "{A ", "(", "\"", "a", "9", "token ", "password=", "a.", "*,", "\n", " ", "\u{202e}", "\\", "é"]
        .map(repeated)
        .into_iter()
        .chain([("nothing".to_owned(), Vec::new()), ("no UTF-8".to_owned(), vec![0xff; 1 << 16])])
        .chain(["token ", "a"].map(|text| {
            let long = text.repeat(1 << 13);
            (format!("{text:?} as a long key and value"), format!("{{\"{long}\":\"{long}\"}}").into_bytes())
        }))
        .collect()
}

/// A changed copy of one of the files.
fn changed(files: &[(PathBuf, Vec<u8>)], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance| files[chance.below(files.len())].1.clone();
    let mut bytes = pick(chance);
    for _ in 0..=chance.below(6) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + chance.below(16)).min(bytes.len());
        match chance.below(10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece.repeat(1 + chance.below(4)));
            }
            // The beginning of one file and the end of another.
            4 => {
                let other = pick(chance);
                bytes.truncate(at);
                bytes.extend(&other[chance.below(other.len() + 1)..]);
            }
            5 => {
                let random: Vec<u8> = (0..chance.below(24)).map(|_| chance.next() as u8).collect();
                bytes.splice(at..end, random);
            }
            // A number, whole, for another.
            6 => {
                let from = (at..bytes.len()).find(|at| bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
                let to = (from..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
                bytes.splice(from..to, NASTY[chance.below(NASTY.len())].bytes());
            }
            7 if chance.below(40) == 0 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece.repeat(1 + chance.below(1_000)));
            }
            _ => drop(bytes.splice(at..end, NASTY[chance.below(NASTY.len())].bytes())),
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// None: what must hold holds. Otherwise what the target says; nothing is printed meanwhile.
fn failure(check: &dyn Fn(&[u8]), bytes: &[u8]) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let begin = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| check(bytes)));
    QUIET.set(false);
    match outcome {
        Ok(()) if begin.elapsed() < HANGS => None,
        Ok(()) => Some(format!("took {} s", begin.elapsed().as_secs())),
        Err(said) => Some(match (said.downcast_ref::<String>(), said.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "panicked".to_owned(),
        }),
    }
}

/// Leaves out what is not needed to fail, in smaller and smaller pieces.
fn smallest(check: &dyn Fn(&[u8]), mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut piece, end) = (bytes.len() / 2, Instant::now() + Duration::from_secs(10));
    while piece > 0 && Instant::now() < end {
        let mut at = 0;
        while at < bytes.len() && Instant::now() < end {
            let mut less = bytes.clone();
            less.drain(at..(at + piece).min(less.len()));
            if failure(check, &less).is_some() {
                bytes = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    bytes
}

fn try_out(target: &str, check: &dyn Fn(&[u8]), bytes: &[u8], source: &dyn Fn() -> String) {
    if failure(check, bytes).is_none() {
        return;
    }
    let bytes = smallest(check, bytes.to_vec());
    let said = failure(check, &bytes).unwrap_or_else(|| "it holds the second time".to_owned());
    let kept = std::env::temp_dir().join(format!("usher-fuzz-{target}"));
    let where_kept = std::fs::write(&kept, &bytes).map_or_else(|why| why.to_string(), |()| kept.display().to_string());
    let mut shown = bytes.escape_ascii().to_string();
    shown.truncate(2_000);
    panic!("fuzz target {target}, {}: {said}\n  input ({} bytes, in {where_kept}): {shown}", source(), bytes.len());
}

/// Runs a target.
#[cfg_attr(fuzzing, allow(dead_code, reason = "bolero runs them then"))]
pub fn target(target: &str, check: impl Fn(&[u8])) {
    let files = corpus(target);
    for (path, bytes) in &files {
        try_out(target, &check, bytes, &|| path.display().to_string());
    }
    for (what, bytes) in extremes() {
        try_out(target, &check, &bytes, &|| what.clone());
    }
    let seconds = std::env::var("USHER_FUZZ_SECONDS").ok().and_then(|text| text.parse::<u64>().ok());
    let fixed = target.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let seed = match std::env::var("USHER_FUZZ_SEED").ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(seed) => seed,
        None if seconds.is_some() => {
            std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(fixed, |since| fixed ^ since.as_nanos() as u64)
        }
        None => fixed,
    };
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut chance = Chance(seed);
    let mut round = 0;
    while end.map_or(round < ROUNDS, |end| Instant::now() < end) {
        let bytes = changed(&files, &mut chance);
        try_out(target, &check, &bytes, &|| format!("USHER_FUZZ_SEED={seed}, round {round}"));
        round += 1;
    }
    if seconds.is_some() {
        eprintln!("fuzz target {target}: {round} rounds from USHER_FUZZ_SEED={seed}");
    }
}

/// A test of that name, which is the fuzz target of that name.
macro_rules! fuzz_target {
    ($name:ident, $check:expr) => {
        #[test]
        fn $name() {
            // Here and not in a function: bolero names a target after the test around it.
            #[cfg(fuzzing)]
            bolero::check!().for_each($check);
            #[cfg(not(fuzzing))]
            crate::fuzz::target(stringify!($name), $check);
        }
    };
}
pub(crate) use fuzz_target;

/// Reads decisions from bytes; when they are used up, each is the first there is.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, end: usize) -> usize {
        let wide = usize::from(self.byte()) << 8 | usize::from(self.byte());
        wide % end.max(1)
    }

    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// The next few bytes, as text.
    pub fn text(&mut self) -> String {
        let length = usize::from(self.byte() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn leaf(&mut self) -> Value {
        match self.below(8) {
            0 => Value::Null,
            1 => Value::Bool(self.byte() & 1 == 0),
            2 => Value::from(i64::from(self.byte()) - 20),
            3 => Value::from(f64::from(self.byte()) / 7.0),
            4 => serde_json::from_str(["1e400", "-0", "18446744073709551616", "0.1", "1E2"][self.below(5)]).unwrap_or_default(),
            5 => Value::from(NASTY[self.below(NASTY.len())]),
            6 => [Value::Array(Vec::new()), Value::Object(Map::new())][self.below(2)].clone(),
            _ => Value::from(self.text()),
        }
    }
}

/// The parts of a value, each with where it is.
fn places(value: &Value, here: String, found: &mut Vec<String>) {
    let inner = |name: &str| format!("{here}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| places(value, inner(name), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| places(value, inner(&at.to_string()), found)),
        _ => {}
    }
    found.push(here);
}

/// Near-valid JSON: one of the seeds with a few parts replaced, exchanged, renamed, taken away or added.
pub fn near(seeds: &[Value], bytes: &[u8]) -> Value {
    let mut choices = Choices::of(bytes);
    let mut value = seeds[choices.below(seeds.len())].clone();
    for _ in 0..=choices.below(3) {
        let mut known = Vec::new();
        places(&value, String::new(), &mut known);
        let place = known[choices.below(known.len())].clone();
        // Parts of another seed know keys that this one does not have.
        let other = &seeds[choices.below(seeds.len())];
        let mut others = Vec::new();
        places(other, String::new(), &mut others);
        let part = other.pointer(&others[choices.below(others.len())]).cloned().unwrap_or_default();
        let how = choices.below(7);
        let leaf = choices.leaf();
        let Some(here) = value.pointer_mut(&place) else { continue };
        match (how, here) {
            (0, here) => *here = leaf,
            (1, here) => *here = part,
            (2, Value::Object(map)) => {
                let name = map.keys().nth(choices.below(map.len())).cloned().unwrap_or_default();
                map.remove(&name);
            }
            (3, Value::Object(map)) => {
                let name = map.keys().nth(choices.below(map.len())).cloned().unwrap_or_default();
                let moved = map.remove(&name).unwrap_or_default();
                map.insert(choices.text(), moved);
            }
            (4, Value::Object(map)) => {
                if let Some((name, given)) = other.as_object().and_then(|map| map.iter().nth(choices.below(map.len()))) {
                    map.insert(name.clone(), given.clone());
                }
            }
            (4, Value::Array(items)) => items.push(leaf),
            (5, Value::String(text)) => {
                let at = (0..=text.len()).rev().find(|at| text.is_char_boundary(*at) && *at <= choices.0.len()).unwrap_or(0);
                text.insert_str(at, NASTY[choices.below(NASTY.len())]);
            }
            (_, Value::String(text)) => text.push_str(&choices.text()),
            (_, Value::Object(map)) => {
                map.insert(choices.text(), leaf);
            }
            (_, Value::Array(items)) => items.insert(0, part),
            (_, here) => *here = leaf,
        }
    }
    value
}

/// What bytes are as JSON: themselves, if they are any, and the near-valid value that they choose.
pub fn values(seeds: &[Value], bytes: &[u8]) -> Vec<Value> {
    serde_json::from_slice::<Value>(bytes).ok().into_iter().chain([near(seeds, bytes)]).collect()
}

/// The text of bytes, as PostgreSQL would have it: what is no UTF-8 never arrives.
pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// What every refusal says: what is wrong, and what to do about it.
pub fn refused_well(error: &UsherError) {
    assert!(!error.message.trim().is_empty(), "{error:?}");
    assert!(error.hint.as_ref().is_some_and(|hint| !hint.trim().is_empty()), "{error:?}");
}
