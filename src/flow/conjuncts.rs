//! The parts of a condition that are joined by AND, as texts.
//!
//! A rough reading: what it is not sure of stays in one piece, and whoever uses the parts has PostgreSQL confirm that they mean
//! what the whole means.

/// The parts, in order; one where nothing can be taken apart.
pub fn conjuncts(condition: &str) -> Vec<&str> {
    split(condition).unwrap_or_else(|| vec![condition])
}

/// None where the text has what is not read here: comments, escapes, quoting by dollars.
fn split(condition: &str) -> Option<Vec<&str>> {
    let bytes = condition.as_bytes();
    let (mut parts, mut begin, mut at, mut depth) = (Vec::new(), 0, 0, 0_i32);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                at += 1;
                while *bytes.get(at)? != quote {
                    at += 1;
                }
            }
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'\\' | b'$' => return None,
            b'-' if bytes.get(at + 1) == Some(&b'-') => return None,
            b'/' if bytes.get(at + 1) == Some(&b'*') => return None,
            first if is_word(first) => {
                let end = (at..bytes.len()).find(|n| !is_word(bytes[*n])).unwrap_or(bytes.len());
                // What stands behind a dot is a name.
                let word = if at > 0 && bytes[at - 1] == b'.' { "" } else { &condition[at..end] };
                match word.to_ascii_lowercase().as_str() {
                    "case" => depth += 1,
                    "end" => depth -= 1,
                    // Binds less than AND, or has an AND of its own.
                    "or" | "between" if depth == 0 => return None,
                    "and" if depth == 0 => {
                        parts.push(condition[begin..at].trim());
                        begin = end;
                    }
                    _ => {}
                }
                at = end;
                continue;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
        at += 1;
    }
    parts.push(condition[begin..].trim());
    (depth == 0 && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Those parts that `fits`, as one condition that holds whenever the whole one does. None where no part does, or where `same`
/// does not confirm the reading: it is told the condition and its parts in brackets.
pub fn part(condition: &str, fits: impl Fn(&str) -> bool, same: impl Fn(&str, &str) -> bool) -> Option<String> {
    let all = conjuncts(condition);
    if all.len() < 2 || !same(condition, &joined(&all)) {
        return None;
    }
    let fitting: Vec<&str> = all.into_iter().filter(|part| fits(part)).collect();
    (!fitting.is_empty()).then(|| joined(&fitting))
}

fn joined(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("({part}\n)")).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn splits_at_the_outermost_and() {
        for (text, parts) in [
            ("new.a = 1", vec!["new.a = 1"]),
            ("new.a = 1 AND f(new.b, 'x and y') and (c OR d)", vec!["new.a = 1", "f(new.b, 'x and y')", "(c OR d)"]),
            ("CASE WHEN a AND b THEN c END AND d", vec!["CASE WHEN a AND b THEN c END", "d"]),
            ("new.\"and\" = 'it''s' AND new.and = 2 AND andy", vec!["new.\"and\" = 'it''s'", "new.and = 2", "andy"]),
            ("x[1] AND NOT y", vec!["x[1]", "NOT y"]),
        ] {
            assert_eq!(conjuncts(text), parts, "{text}");
        }
    }

    #[test]
    fn leaves_whole_what_it_cannot_read() {
        for text in [
            "a OR b AND c",
            "a BETWEEN 1 AND 2 AND b",
            "a AND b -- c AND d",
            "a /* AND */ AND b",
            "E'\\'' = a AND b",
            "$$ AND $$ = a AND b",
            "a AND",
            "AND a",
            "a) AND (b",
            "'open AND b",
            "end AND a",
            "a AND é OR b",
        ] {
            assert_eq!(conjuncts(text), [text], "{text}");
        }
    }

    #[test]
    fn takes_only_what_fits_and_is_confirmed() {
        let safe = |part: &str| part.starts_with("new.");
        let text = "new.a AND f(b) AND new.c";
        assert_eq!(part(text, safe, |_, _| true).as_deref(), Some("(new.a\n) AND (new.c\n)"));
        assert_eq!(part(text, safe, |whole, parts| whole != text || parts != "(new.a\n) AND (f(b)\n) AND (new.c\n)"), None);
        assert_eq!(part("f(b) AND g(c)", safe, |_, _| true), None);
        assert_eq!(part("new.a", safe, |_, _| true), None);
    }
}
