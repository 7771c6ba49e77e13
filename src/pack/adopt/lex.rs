//! SQL as pieces of text, so that names in it can be found and changed and everything else stays as it was. Pure.

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name without quotes, or a keyword.
    Word,
    /// A name in quotes.
    Quoted,
    /// A text, in quotes of any kind.
    Text,
    Number,
    /// Space and comments.
    Gap,
    Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

impl Piece<'_> {
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub fn sign(&self, sign: char) -> bool {
        self.kind == Kind::Sign && self.text.starts_with(sign)
    }

    /// The name that it is, as PostgreSQL reads it.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::Quoted => Some(inner(self.text, 1).replace("\"\"", "\"")),
            _ => None,
        }
    }

    /// The text that it stands for, if it is an ordinary one.
    pub fn literal(&self) -> Option<String> {
        (self.kind == Kind::Text && self.text.starts_with('\'')).then(|| inner(self.text, 1).replace("''", "'"))
    }

    /// What stands between dollar quotes.
    pub fn body(&self) -> Option<&str> {
        if self.kind != Kind::Text || !self.text.starts_with('$') {
            return None;
        }
        let mark = self.text[1..].find('$')? + 2;
        self.text.get(mark..self.text.len().checked_sub(mark)?)
    }
}

fn inner(text: &str, quotes: usize) -> &str {
    text.get(quotes..text.len().saturating_sub(quotes)).unwrap_or_default()
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn in_word(c: char) -> bool {
    starts_word(c) || c.is_ascii_digit() || c == '$'
}

/// The length of what is quoted by `quote`, which `text` begins with; what is never closed goes to the end.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        if escapes && c == '\\' {
            rest.next();
        } else if c == quote && rest.next_if(|(_, next)| *next == quote).is_none() {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// The length of a text in dollar quotes, if `text` begins with one.
fn dollars(text: &str) -> Option<usize> {
    let tag = text[1..].find('$')?;
    let name = &text[1..1 + tag];
    let is_tag = name.is_empty() || name.starts_with(starts_word) && name.chars().all(|c| in_word(c) && c != '$');
    if !is_tag {
        return None;
    }
    let mark = &text[..tag + 2];
    Some(text[mark.len()..].find(mark).map_or(text.len(), |at| mark.len() + at + mark.len()))
}

/// The length of a comment that may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn first(text: &str) -> (Kind, usize) {
    let c = text.chars().next().unwrap_or(' ');
    let run = |is: fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
    let mut chars = text.chars();
    let (_, second) = (chars.next(), chars.next());
    match c {
        c if c.is_ascii_whitespace() => (Kind::Gap, run(|c| c.is_ascii_whitespace())),
        '-' if text.starts_with("--") => (Kind::Gap, text.find('\n').unwrap_or(text.len())),
        '/' if text.starts_with("/*") => (Kind::Gap, comment(text)),
        '\'' => (Kind::Text, quoted(text, '\'', false)),
        'e' | 'E' if second == Some('\'') => (Kind::Text, 1 + quoted(&text[1..], '\'', true)),
        'b' | 'B' | 'x' | 'X' | 'n' | 'N' if second == Some('\'') => (Kind::Text, 1 + quoted(&text[1..], '\'', false)),
        '"' => (Kind::Quoted, quoted(text, '"', false)),
        '$' => dollars(text).map_or((Kind::Sign, 1), |length| (Kind::Text, length)),
        c if c.is_ascii_digit() => {
            let mut length = run(|c| c.is_ascii_alphanumeric() || c == '_');
            // 1.5, but neither 1..2 nor 1.column.
            if text[length..].starts_with('.') && text[length + 1..].starts_with(|c: char| c.is_ascii_digit()) {
                let after = &text[length + 1..];
                length += 1 + after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
            }
            (Kind::Number, length)
        }
        c if starts_word(c) => (Kind::Word, run(in_word)),
        c => (Kind::Sign, c.len_utf8()),
    }
}

/// All of it, piece by piece: put together again they are the text.
pub fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = sql;
    while !rest.is_empty() {
        let (kind, length) = first(rest);
        let (text, after) = rest.split_at(length);
        found.push(Piece { kind, text });
        rest = after;
    }
    found
}

/// What says something: without gaps.
pub fn solid(sql: &str) -> Vec<Piece<'_>> {
    pieces(sql).into_iter().filter(|piece| piece.kind != Kind::Gap).collect()
}

/// Statements of a script, as they stand there.
pub fn statements(sql: &str) -> Vec<&str> {
    let (mut found, mut from, mut at, mut depth) = (Vec::new(), 0, 0, 0_i64);
    for piece in pieces(sql) {
        at += piece.text.len();
        depth += i64::from(piece.sign('(')) - i64::from(piece.sign(')'));
        if depth <= 0 && piece.sign(';') {
            found.push(&sql[from..at]);
            (from, depth) = (at, 0);
        }
    }
    if pieces(&sql[from..]).iter().any(|piece| piece.kind != Kind::Gap) {
        found.push(&sql[from..]);
    }
    found
}

/// The parts between commas that are in no parentheses.
pub fn parts<'p, 'a>(pieces: &'p [Piece<'a>]) -> Vec<&'p [Piece<'a>]> {
    let mut depth = 0_i64;
    pieces
        .split(|piece| {
            depth += i64::from(piece.sign('(')) - i64::from(piece.sign(')'));
            depth == 0 && piece.sign(',')
        })
        .collect()
}

/// Where the parenthesis that opens at `open` closes.
pub fn closes(pieces: &[Piece<'_>], open: usize) -> Option<usize> {
    pieces.get(open).filter(|piece| piece.sign('('))?;
    let mut depth = 0_i64;
    pieces.iter().enumerate().skip(open).find_map(|(at, piece)| {
        depth += i64::from(piece.sign('(')) - i64::from(piece.sign(')'));
        (depth == 0).then_some(at)
    })
}

/// Puts something else in the place of each `alias.column` for which there is something.
pub fn replace_columns(sql: &str, with: &mut dyn FnMut(&str, &str) -> Option<String>) -> String {
    let all = pieces(sql);
    let solid: Vec<usize> = (0..all.len()).filter(|at| all[*at].kind != Kind::Gap).collect();
    let piece = |nth: usize| solid.get(nth).map(|at| all[*at]);
    let mut out = String::with_capacity(sql.len());
    let mut skip_to = 0;
    for (nth, at) in solid.iter().enumerate() {
        if *at < skip_to {
            continue;
        }
        out.extend(all[skip_to..*at].iter().map(|gap| gap.text));
        skip_to = at + 1;
        let follows = nth > 0 && piece(nth - 1).is_some_and(|before| before.sign('.'));
        let (alias, column) = (all[*at].name(), piece(nth + 2).and_then(|piece| piece.name()));
        let dotted = piece(nth + 1).is_some_and(|next| next.sign('.'));
        // alias.function(…) is none.
        let called = piece(nth + 3).is_some_and(|after| after.sign('('));
        let new = match (alias, column) {
            (Some(alias), Some(column)) if !follows && dotted && !called => with(&alias, &column),
            _ => None,
        };
        if let Some(new) = new {
            out.push_str(&new);
            skip_to = solid[nth + 2] + 1;
        } else {
            out.push_str(all[*at].text);
        }
    }
    out.extend(all[skip_to..].iter().map(|gap| gap.text));
    out
}

/// The same for names that stand alone: neither of an alias nor of a function.
pub fn replace_names(sql: &str, with: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let all = pieces(sql);
    let solid: Vec<usize> = (0..all.len()).filter(|at| all[*at].kind != Kind::Gap).collect();
    let beside = |nth: Option<usize>| nth.and_then(|nth| solid.get(nth)).map(|at| all[*at]);
    let mut out = String::with_capacity(sql.len());
    let mut done = 0;
    for (nth, at) in solid.iter().enumerate() {
        out.extend(all[done..*at].iter().map(|gap| gap.text));
        done = at + 1;
        let before = beside(nth.checked_sub(1)).is_some_and(|piece| piece.sign('.'));
        let after = beside(Some(nth + 1)).is_some_and(|piece| piece.sign('.') || piece.sign('('));
        let new = all[*at].name().filter(|_| !before && !after).and_then(|name| with(&name));
        out.push_str(new.as_deref().unwrap_or(all[*at].text));
    }
    out.extend(all[done..].iter().map(|gap| gap.text));
    out
}

/// Ordinary texts in it, such as the words of a status.
pub fn literals(sql: &str) -> Vec<String> {
    solid(sql).iter().filter_map(Piece::literal).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn words(sql: &str) -> Vec<&str> {
        solid(sql).iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn texts_and_comments_are_one_piece() {
        assert_eq!(words("a -- b 'c\n = 'd''e; f'"), ["a", "=", "'d''e; f'"]);
        assert_eq!(words("/* x /* y */ z */ E'a\\'b' $q$ 'c' $$ $q$"), ["E'a\\'b'", "$q$ 'c' $$ $q$"]);
        assert_eq!(words("1.5 + new.x::text"), ["1.5", "+", "new", ".", "x", ":", ":", "text"]);
        assert_eq!(solid("$q$ one; two $q$")[0].body(), Some(" one; two "));
        assert_eq!(words("'open"), ["'open"]);
    }

    #[test]
    fn a_script_is_statements() {
        let script = "CREATE TABLE a (b text DEFAULT ';'); DO $x$ BEGIN; END $x$;\n-- the end\n";
        assert_eq!(statements(script).len(), 2);
        assert!(statements("-- nothing").is_empty());
    }

    #[test]
    fn columns_are_replaced_where_they_are_columns() {
        let mut with = |alias: &str, column: &str| (alias == "new").then(|| format!("<{column}>"));
        let said = replace_columns("new.a = 'new.a' AND x.new.a IS NULL OR new . \"B\" > old.a -- new.a", &mut with);
        assert_eq!(said, "<a> = 'new.a' AND x.new.a IS NULL OR <B> > old.a -- new.a");
        assert_eq!(replace_columns("new.call(new.x)", &mut with), "new.call(<x>)");
    }

    #[test]
    fn names_that_stand_alone_are_replaced() {
        let mut with = |name: &str| (name == "amount").then(|| "total".to_owned());
        assert_eq!(
            replace_names("amount >= 0 AND x.amount > amount(1) AND Amount<>'amount'", &mut with),
            "total >= 0 AND x.amount > amount(1) AND total<>'amount'"
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(text in "[a-z0-9_ '\"$.;,()*/\\\\é\n-]{0,60}") {
            proptest::prop_assert_eq!(pieces(&text).iter().map(|piece| piece.text).collect::<String>(), text.clone());
            proptest::prop_assert_eq!(replace_columns(&text, &mut |_, _| None), text.clone());
            proptest::prop_assert_eq!(replace_names(&text, &mut |_| None), text);
        }
    }
}
