//! The keys of rules that this transaction has touched, as long as it is open. Pure: no pgrx.
//!
//! Kept by subtransaction: what a savepoint takes back was not touched. In memory, and bounded: of a rule with more keys than
//! [`MOST`] in one transaction everything is meant.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Keys of one rule.
pub const MOST: usize = 100_000;

/// Organization (None: whichever) and key, as JSON text.
pub type Key = (Option<[u8; 16]>, String);

/// What a transaction has touched of one rule.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Touched {
    /// More than could be kept, or nobody knows which.
    Everything,
    /// Each with the stripe of locks that it shares with others.
    Keys(HashMap<Key, u8>),
    #[default]
    Nothing,
}

impl Touched {
    fn add(&mut self, key: Key, stripe: u8) {
        match self {
            Self::Everything => {}
            Self::Nothing => *self = Self::Keys(HashMap::from([(key, stripe)])),
            Self::Keys(keys) if keys.len() >= MOST && !keys.contains_key(&key) => *self = Self::Everything,
            Self::Keys(keys) => {
                keys.insert(key, stripe);
            }
        }
    }

    fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Keys(mine), Self::Keys(mut theirs)) => {
                // The fewer go to the many.
                if mine.len() < theirs.len() {
                    std::mem::swap(mine, &mut theirs);
                }
                theirs.into_iter().for_each(|(key, stripe)| self.add(key, stripe));
            }
            (Self::Nothing, theirs) => *self = theirs,
        }
    }
}

/// By rule.
pub type All = BTreeMap<i32, Touched>;

/// What the open subtransactions have touched, the outermost first.
#[derive(Default)]
struct Levels(Vec<(u32, All)>);

impl Levels {
    fn at(&mut self, level: u32) -> &mut All {
        if self.0.last().is_none_or(|(last, _)| *last < level) {
            self.0.push((level, All::new()));
        }
        let at = self.0.iter().rposition(|(known, _)| *known <= level).unwrap_or(0);
        &mut self.0[at].1
    }

    fn kept(&mut self, level: u32, parent: u32) {
        while let Some((_, all)) = self.0.pop_if(|(last, _)| *last >= level) {
            let to = self.at(parent);
            all.into_iter().for_each(|(rule, touched)| to.entry(rule).or_default().join(touched));
        }
    }

    fn undone(&mut self, level: u32) {
        while self.0.pop_if(|(last, _)| *last >= level).is_some() {}
    }

    fn from(&self, level: u32) -> All {
        let mut all = All::new();
        for (_, some) in self.0.iter().filter(|(known, _)| *known >= level) {
            some.iter().for_each(|(rule, touched)| all.entry(*rule).or_default().join(touched.clone()));
        }
        all
    }
}

thread_local! {
    static LEVELS: RefCell<Levels> = RefCell::new(Levels::default());
    /// Rules of which something was touched by somebody who is not asked. What a savepoint takes back stays: nothing is lost by a look too many.
    static UNASKED: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

/// No gate is asked, and nobody knows which keys.
pub fn note_unasked(rule: i32) {
    UNASKED.with_borrow_mut(|rules| rules.insert(rule));
}

/// The rules of which that was so; they are not remembered any more.
pub fn take_unasked() -> BTreeSet<i32> {
    UNASKED.take()
}

pub fn note(level: u32, rule: i32, key: Key, stripe: u8) {
    LEVELS.with_borrow_mut(|levels| levels.at(level).entry(rule).or_default().add(key, stripe));
}

/// Nobody knows which keys, or all are meant.
pub fn note_everything(level: u32, rule: i32) {
    LEVELS.with_borrow_mut(|levels| levels.at(level).entry(rule).or_default().join(Touched::Everything));
}

/// Whether everything of a rule is meant already, by what the open subtransaction has touched.
pub fn is_everything(level: u32, rule: i32) -> bool {
    LEVELS.with_borrow_mut(|levels| levels.at(level).get(&rule) == Some(&Touched::Everything))
}

pub fn any() -> bool {
    LEVELS.with_borrow(|levels| !levels.0.is_empty()) || UNASKED.with_borrow(|rules| !rules.is_empty())
}

pub fn kept(level: u32, parent: u32) {
    LEVELS.with_borrow_mut(|levels| levels.kept(level, parent));
}

pub fn undone(level: u32) {
    LEVELS.with_borrow_mut(|levels| levels.undone(level));
}

/// The transaction is over.
pub fn forget() {
    LEVELS.take();
    UNASKED.take();
}

/// What was touched since a level began.
pub fn since(level: u32) -> All {
    LEVELS.with_borrow(|levels| levels.from(level))
}

/// What the transaction has touched; it is not remembered any more.
pub fn take() -> All {
    let mut all = All::new();
    for (_, some) in LEVELS.take().0 {
        some.into_iter().for_each(|(rule, touched)| all.entry(rule).or_default().join(touched));
    }
    all
}

#[cfg(test)]
mod unit {
    use super::*;

    fn key(n: usize) -> Key {
        (None, format!("{{\"id\": {n}}}"))
    }

    fn names(all: &All, rule: i32) -> Vec<String> {
        match all.get(&rule) {
            Some(Touched::Keys(keys)) => {
                let mut names: Vec<String> = keys.keys().map(|(_, key)| key.clone()).collect();
                names.sort();
                names
            }
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn a_savepoint_takes_back_what_was_touched_since() {
        forget();
        note(1, 7, key(1), 0);
        note(2, 7, key(2), 0);
        note(3, 7, key(3), 0);
        kept(3, 2);
        note(4, 8, key(4), 0);
        assert_eq!(names(&since(2), 7), ["{\"id\": 2}", "{\"id\": 3}"]);
        undone(4);
        assert_eq!(names(&since(1), 8), ["None"]);
        undone(2);
        assert_eq!(names(&take(), 7), ["{\"id\": 1}"]);
        assert!(!any());
    }

    #[test]
    fn what_is_kept_belongs_to_the_one_around_it() {
        forget();
        note(5, 7, key(5), 3);
        note(5, 7, key(5), 3);
        // Whoever is around it has touched nothing so far.
        kept(5, 2);
        undone(3);
        assert_eq!(names(&since(2), 7), ["{\"id\": 5}"]);
        undone(2);
        assert!(!any());
    }

    #[test]
    fn more_than_can_be_kept_is_everything() {
        forget();
        (0..=MOST).for_each(|n| note(1, 7, key(n), 0));
        note(1, 8, key(1), 0);
        note_everything(2, 8);
        undone(2);
        let all = take();
        assert_eq!(all.get(&7), Some(&Touched::Everything));
        assert_eq!(names(&all, 8), ["{\"id\": 1}"]);
        note(1, 7, key(1), 0);
        note_everything(2, 7);
        kept(2, 1);
        assert_eq!(take().get(&7), Some(&Touched::Everything));
    }
}
