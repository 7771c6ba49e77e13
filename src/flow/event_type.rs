//! Types of events, such as `orders.paid`, and patterns of them. Pure.
//!
//! A type is words with dots between them. In a pattern `*` stands for one word, whichever it is, and `**` for any number of
//! words, also for none: `orders.*` means `orders.paid` and not `orders.item.added`, `orders.**` means both and `orders` itself.

use super::fields::{Parsed, refuse};
use crate::error::{Result, UsherError};

/// Bytes that a type may have.
const LONGEST: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Named(String),
    One,
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub text: String,
    words: Vec<Word>,
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// Refuses what is no type, and says what is wrong with it.
pub(super) fn check_type(text: &str) -> Parsed<()> {
    if text.len() > LONGEST {
        return refuse(
            format!("the event's type has more than {LONGEST} characters"),
            "Give it a shorter name, such as orders.paid.",
        );
    }
    match text.split('.').find(|word| !is_word(word)) {
        None => Ok(()),
        Some(word) if word.contains('*') => refuse(
            format!("\"{text}\" is a pattern, no type of an event"),
            "Name the event by words of lower-case letters, digits, _ and - with dots between them, such as orders.paid.",
        ),
        Some(word) => refuse(
            format!("\"{word}\" in \"{text}\" is no word of an event's type"),
            "Use words of lower-case letters, digits, _ and - with dots between them, such as orders.paid.",
        ),
    }
}

/// The types of what this extension itself has to say.
pub fn is_reserved(text: &str) -> bool {
    text == "usher" || text.starts_with("usher.")
}

/// The same, for what a caller gives.
pub fn require(text: &str) -> Result<()> {
    check_type(text).map_err(|refusal| UsherError::invalid(refusal.message).hint(refusal.hint))?;
    if is_reserved(text) {
        return Err(UsherError::invalid(format!("\"{text}\" is a type of pg_usher's own events"))
            .hint("Begin the type with whose it is, such as orders.paid."));
    }
    Ok(())
}

impl Pattern {
    pub fn parse(text: &str) -> Parsed<Self> {
        let mut words = Vec::new();
        for word in text.split('.') {
            words.push(match word {
                "*" => Word::One,
                "**" if words.last() == Some(&Word::Any) => {
                    return refuse(format!("\"**.**\" in \"{text}\" says the same as \"**\""), "Write \"**\" once.");
                }
                "**" => Word::Any,
                word if is_word(word) => Word::Named(word.to_owned()),
                word => {
                    return refuse(
                        format!("\"{word}\" in the pattern \"{text}\" is no word of an event's type"),
                        "Write words with dots between them, * for one word and ** for any number: orders.paid, orders.*, **.failed.",
                    );
                }
            });
        }
        if text.len() > LONGEST {
            return refuse(format!("the pattern has more than {LONGEST} characters"), "Use ** for several words.");
        }
        Ok(Self { text: text.to_owned(), words })
    }

    /// The one type that it means, if it means just one.
    pub fn exactly(&self) -> Option<&str> {
        self.words.iter().all(|word| matches!(word, Word::Named(_))).then_some(self.text.as_str())
    }

    /// The same as a regular expression of PostgreSQL's, for the type with a dot in front of it.
    pub fn expression(&self) -> String {
        let words: String = self
            .words
            .iter()
            .map(|word| match word {
                // Letters, digits, _ and - stand for themselves.
                Word::Named(name) => format!("\\.{name}"),
                Word::One => "\\.[^.]+".to_owned(),
                Word::Any => "(\\.[^.]+)*".to_owned(),
            })
            .collect();
        format!("^{words}$")
    }

    /// True for a type that it means. In time that grows with words times words, whatever the pattern is.
    pub fn means(&self, event_type: &str) -> bool {
        // After each word of the pattern: which beginnings of the type are meant so far, by their number of words.
        let given: Vec<&str> = event_type.split('.').collect();
        let mut reached = vec![false; given.len() + 1];
        reached[0] = true;
        for word in &self.words {
            match word {
                Word::Any => {
                    let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
                    reached[first..].fill(true);
                }
                word => {
                    for at in (0..given.len()).rev() {
                        let fits = matches!(word, Word::One) || matches!(word, Word::Named(name) if name == given[at]);
                        reached[at + 1] = reached[at] && fits;
                    }
                    reached[0] = false;
                }
            }
        }
        reached[given.len()]
    }
}

#[cfg(test)]
mod unit {
    use super::{Pattern, check_type};

    fn means(pattern: &str, event_type: &str) -> bool {
        Pattern::parse(pattern).expect("a pattern").means(event_type)
    }

    #[test]
    fn a_pattern_means_what_its_words_say() {
        for (pattern, meant, others) in [
            ("orders.paid", vec!["orders.paid"], vec!["orders", "orders.paid.twice", "orders.paid2", "x.orders.paid"]),
            ("orders.*", vec!["orders.paid", "orders.a-b_1"], vec!["orders", "orders.item.added"]),
            ("orders.**", vec!["orders", "orders.paid", "orders.item.added"], vec!["order.paid", "x.orders"]),
            ("**", vec!["a", "a.b.c"], vec![]),
            ("**.failed", vec!["failed", "a.failed", "a.b.failed"], vec!["failed.a", "a.failed.b"]),
            ("a.**.b.**.c", vec!["a.b.c", "a.x.b.y.c", "a.b.b.c.c"], vec!["a.c", "a.b", "b.c", "a.c.b"]),
            ("*.**.*", vec!["a.b", "a.b.c"], vec!["a"]),
        ] {
            meant.iter().for_each(|given| assert!(means(pattern, given), "{pattern} means {given}"));
            others.iter().for_each(|given| assert!(!means(pattern, given), "{pattern} does not mean {given}"));
        }
    }

    #[test]
    fn a_pattern_as_an_expression_has_a_dot_before_each_word() {
        for (pattern, expression) in [
            ("orders.paid", r"^\.orders\.paid$"),
            ("*.a-b", r"^\.[^.]+\.a-b$"),
            ("**", r"^(\.[^.]+)*$"),
            ("a.**.b", r"^\.a(\.[^.]+)*\.b$"),
        ] {
            assert_eq!(Pattern::parse(pattern).expect("a pattern").expression(), expression);
        }
    }

    #[test]
    fn what_is_no_type_or_pattern_is_refused() {
        for wrong in ["", ".", "a.", "a..b", "A.b", "a b", "a.*", "**", "ä", &"a".repeat(201)] {
            assert!(check_type(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "a.", "*.B", "***", "a*", "**.**", "a.**.**.b", &format!("{}.**", "a".repeat(200))] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
        assert!(check_type("atlvs.deals.updated").is_ok());
    }

    proptest::proptest! {
        /// As a simple and slow matching has it.
        #[test]
        fn it_agrees_with_the_definition(pattern in "(a|b|\\*|\\*\\*)(\\.(a|b|\\*|\\*\\*)){0,5}", given in "(a|b)(\\.(a|b)){0,6}") {
            fn slow(pattern: &[&str], given: &[&str]) -> bool {
                match (pattern.first(), given.first()) {
                    (None, _) => given.is_empty(),
                    (Some(&"**"), _) => slow(&pattern[1..], given) || !given.is_empty() && slow(pattern, &given[1..]),
                    (Some(&"*"), Some(_)) => slow(&pattern[1..], &given[1..]),
                    (Some(word), Some(other)) => word == other && slow(&pattern[1..], &given[1..]),
                    (Some(_), None) => false,
                }
            }
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let (words, types): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), given.split('.').collect());
                proptest::prop_assert_eq!(parsed.means(&given), slow(&words, &types));
            }
        }
    }
}
