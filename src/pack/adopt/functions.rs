//! What a function of the pack needs of tables, read from its text. Pure.
//!
//! Such a text names tables with their schema and columns by an alias of their table, or where only columns can stand. A name by itself
//! counts as a column if a table of its statement has one of that name and the function has no variable of it: rather too much than too little.

use super::lex::{Kind, Piece, closes, parts, solid, statements};
use super::model::{Function, Model, Table, qualified};
use super::needs::{Clash, Needs, called};
use std::collections::{BTreeMap, BTreeSet};

/// What may stand behind a table's name and is no alias.
const NO_ALIAS: [&str; 24] = [
    "set",
    "where",
    "values",
    "select",
    "on",
    "join",
    "left",
    "right",
    "inner",
    "cross",
    "full",
    "group",
    "order",
    "limit",
    "for",
    "using",
    "returning",
    "union",
    "default",
    "having",
    "loop",
    "then",
    "with",
    "natural",
];

/// A table in a statement, and from where to where what is said of it goes.
struct Place<'m> {
    name: String,
    table: &'m Table,
    at: usize,
    /// Behind its name and alias.
    after: usize,
}

fn places<'m>(pieces: &[Piece<'_>], model: &'m Model, aliases: &mut BTreeMap<String, BTreeSet<String>>) -> Vec<Place<'m>> {
    let mut found = Vec::new();
    for at in 0..pieces.len() {
        if at > 0 && pieces[at - 1].sign('.') {
            continue;
        }
        let Some((name, table)) = qualified(pieces, at).and_then(|name| model.tables.get(&name).map(|table| (name, table)))
        else {
            continue;
        };
        let mut after = at + 3;
        let said = pieces.get(after).is_some_and(|piece| piece.is("as"));
        after += usize::from(said);
        let alias = pieces.get(after).and_then(Piece::name).filter(|alias| said || !NO_ALIAS.contains(&alias.as_str()));
        after += usize::from(alias.is_some());
        let plain = name.split('.').nth(1).unwrap_or_default().to_owned();
        aliases.entry(alias.unwrap_or(plain)).or_default().insert(name.clone());
        found.push(Place { name, table, at, after });
    }
    found
}

/// Where what belongs to the statement at `from` ends: at the parenthesis around it, or with everything.
fn end_of(pieces: &[Piece<'_>], from: usize) -> usize {
    let mut depth = 0_i64;
    let around = pieces.iter().enumerate().skip(from).find_map(|(at, piece)| {
        depth += i64::from(piece.sign('(')) - i64::from(piece.sign(')'));
        (depth < 0).then_some(at)
    });
    around.unwrap_or(pieces.len())
}

/// Positions in `from..to` that are in no further parentheses.
fn level(pieces: &[Piece<'_>], from: usize, to: usize) -> Vec<usize> {
    let mut depth = 0_i64;
    (from..to)
        .filter(|at| {
            depth -= i64::from(pieces[*at].sign(')'));
            let flat = depth == 0;
            depth += i64::from(pieces[*at].sign('('));
            flat
        })
        .collect()
}

/// `SET a = …, (b, c) = …`: the columns, each with what it is set to.
fn assigned(pieces: &[Piece<'_>], from: usize, to: usize) -> Vec<(String, usize, usize)> {
    let flat = level(pieces, from, to);
    let stops = |at: &&usize| ["from", "where", "returning"].iter().any(|word| pieces[**at].is(word));
    let end = flat.iter().find(stops).copied().unwrap_or(to);
    let part = pieces.get(from..end).unwrap_or_default();
    let mut at = from;
    let mut found = Vec::new();
    for piece in parts(part) {
        let equals = piece.iter().position(|piece| piece.sign('=')).unwrap_or(0);
        let range = (at + equals + 1, at + piece.len());
        found.extend(piece[..equals].iter().filter_map(Piece::name).map(|name| (name, range.0, range.1)));
        at += piece.len() + 1;
    }
    found
}

fn literals_in(pieces: &[Piece<'_>]) -> BTreeSet<String> {
    pieces.iter().filter_map(Piece::literal).collect()
}

struct Reader<'a> {
    model: &'a Model,
    own: BTreeSet<String>,
    /// Variables that hold a row of a table.
    rows: BTreeMap<String, String>,
    needs: Needs,
}

impl Reader<'_> {
    fn read(&mut self, table: &str, column: &str) {
        self.needs.reads.insert((table.to_owned(), column.to_owned()));
    }

    fn words(&mut self, place: &Place<'_>, column: &str, said: &[Piece<'_>]) {
        let Some(known) = place.table.column(column) else { return };
        let found: BTreeSet<String> = literals_in(said).into_iter().filter(|word| known.words.contains(word)).collect();
        if !found.is_empty() {
            self.needs.words.entry((place.name.clone(), column.to_owned())).or_default().extend(found);
        }
    }

    fn update(&mut self, pieces: &[Piece<'_>], place: &Place<'_>, set: usize, end: usize) -> BTreeSet<String> {
        let mut columns = BTreeSet::new();
        for (column, from, to) in assigned(pieces, set, end) {
            self.words(place, &column, pieces.get(from..to).unwrap_or_default());
            self.needs.updated_by_functions.insert((place.name.clone(), column.clone()));
            columns.insert(column);
        }
        self.needs.updated_together.entry(place.name.clone()).or_default().insert(columns.clone());
        columns
    }

    fn insert(&mut self, pieces: &[Piece<'_>], place: &Place<'_>) {
        let end = end_of(pieces, place.at);
        let listed = pieces.get(place.after).filter(|piece| piece.sign('(')).and_then(|_| closes(pieces, place.after));
        let mut columns: BTreeSet<String> = match listed {
            Some(close) => parts(&pieces[place.after + 1..close]).iter().filter_map(|part| part.first()?.name()).collect(),
            None => place.table.names().into_iter().map(str::to_owned).collect(),
        };
        let flat = level(pieces, place.after, end);
        let conflict =
            flat.iter().copied().find(|at| pieces[*at].is("on") && pieces.get(at + 1).is_some_and(|next| next.is("conflict")));
        for column in columns.clone() {
            self.words(place, &column, pieces.get(place.after..conflict.unwrap_or(end)).unwrap_or_default());
        }
        self.needs.inserts.entry(place.name.clone()).or_default().insert(columns.clone());
        let mut clash = Clash::Fails;
        if let Some(at) = conflict {
            let key = match pieces.get(at + 2) {
                Some(open) if open.sign('(') => closes(pieces, at + 2)
                    .map(|close| parts(&pieces[at + 3..close]).iter().filter_map(|part| part.first()?.name()).collect()),
                Some(on) if on.is("on") => {
                    pieces.get(at + 4).and_then(Piece::name).and_then(|name| place.table.keys.get(&name).cloned())
                }
                _ => None,
            };
            self.needs.keys.extend(key.map(|key: Vec<String>| (place.name.clone(), key)));
            let set = flat.iter().copied().find(|flat| *flat > at && pieces[*flat].is("set"));
            clash = if set.is_some() { Clash::Updates } else { Clash::Keeps };
            if let Some(set) = set {
                columns.extend(self.update(pieces, place, set + 1, end));
            }
        }
        self.needs.inserted_by_functions.entry(place.name.clone()).or_default().insert((clash, columns));
    }

    fn statement(&mut self, text: &str) {
        let pieces = solid(text);
        let mut aliases: BTreeMap<String, BTreeSet<String>> =
            self.rows.iter().map(|(name, table)| (name.clone(), BTreeSet::from([table.clone()]))).collect();
        let places = places(&pieces, self.model, &mut aliases);
        for place in &places {
            self.needs.tables.insert(place.name.clone());
            let before = |n: usize, word: &str| place.at >= n && pieces[place.at - n].is(word);
            if before(1, "into") && before(2, "insert") {
                self.insert(&pieces, place);
            } else if before(1, "update") && !before(2, "do") && !before(2, "for") {
                let end = end_of(&pieces, place.at);
                let set = level(&pieces, place.after, end).into_iter().find(|at| pieces[*at].is("set"));
                if let Some(set) = set {
                    self.update(&pieces, place, set + 1, end);
                }
            } else if before(1, "from") && before(2, "delete") {
                self.needs.deletes.insert(place.name.clone());
            }
        }
        let locks = pieces
            .windows(2)
            .any(|pair| pair[0].is("for") && ["update", "share", "no", "key"].iter().any(|word| pair[1].is(word)));
        if locks {
            self.needs.locks.extend(places.iter().map(|place| place.name.clone()));
        }
        let skip: BTreeSet<usize> = places.iter().flat_map(|place| place.at..place.after).collect();
        for at in (0..pieces.len()).filter(|at| !skip.contains(at)) {
            let Some(name) = pieces[at].name() else { continue };
            if at > 0 && pieces[at - 1].sign('.') {
                continue;
            }
            if pieces.get(at + 1).is_some_and(|next| next.sign('.')) {
                for table in aliases.get(&name).into_iter().flatten() {
                    match pieces.get(at + 2) {
                        // Of a row that goes into a variable, what the variable is asked for.
                        Some(star) if star.sign('*') && self.rows.values().any(|row| row == table) => {}
                        Some(star) if star.sign('*') => {
                            for column in self.model.tables[table].names() {
                                self.needs.reads.insert((table.clone(), column.to_owned()));
                            }
                        }
                        Some(column) => {
                            let column = column.name().unwrap_or_default();
                            if self.model.tables[table].column(&column).is_some() {
                                self.read(table, &column);
                            }
                        }
                        None => {}
                    }
                }
            } else if self.stands_alone(&pieces, at, &name) {
                for place in &places {
                    if place.table.column(&name).is_some() {
                        self.read(&place.name, &name);
                    }
                }
            }
        }
    }

    /// A name that can be a column's.
    fn stands_alone(&self, pieces: &[Piece<'_>], at: usize, name: &str) -> bool {
        let called = pieces.get(at + 1).is_some_and(|next| next.sign('('));
        // EXTRACT(year FROM …), x AS name, ON CONSTRAINT name.
        let named = at > 0 && ["as", "constraint", "into"].iter().any(|word| pieces[at - 1].is(word));
        let part = pieces.get(at + 1).is_some_and(|next| next.is("from")) && at > 1 && pieces[at - 2].is("extract");
        pieces[at].kind != Kind::Sign && !called && !named && !part && !self.own.contains(name)
    }
}

/// Names of arguments and variables, and the tables of those that hold a row.
fn own(function: &Function, model: &Model) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let mut names: BTreeSet<String> = function.arguments.iter().cloned().collect();
    let mut rows = BTreeMap::new();
    for text in statements(&function.body) {
        let pieces = solid(text);
        let from = pieces.iter().position(|piece| piece.is("declare")).map_or(0, |at| at + 1);
        let begin = pieces.iter().position(|piece| piece.is("begin"));
        if begin.is_none_or(|begin| from > 0 && begin > from)
            && let Some(name) = pieces.get(from).and_then(Piece::name)
        {
            if let Some(table) = qualified(&pieces, from + 1).filter(|table| model.tables.contains_key(table)) {
                rows.insert(name.clone(), table);
            }
            names.insert(name);
        }
        if begin.is_some() {
            break;
        }
    }
    (names, rows)
}

pub fn needs(function: &Function, model: &Model) -> Needs {
    let (own, rows) = own(function, model);
    let mut reader = Reader { model, own, rows, needs: Needs::default() };
    reader.needs.calls = called(&function.body, model);
    for text in statements(&function.body) {
        reader.statement(text);
    }
    reader.needs
}

#[cfg(test)]
mod unit {
    use super::*;

    fn model() -> Model {
        Model::read(
            ["CREATE TABLE s.a (organization_id uuid, id uuid, status text, n integer, note text, CONSTRAINT a_key UNIQUE (organization_id, n), CONSTRAINT k CHECK (status IN ('on', 'off')));
              CREATE TABLE s.b (organization_id uuid, id uuid, a_id uuid);"]
            .into_iter(),
        )
    }

    fn of(arguments: &[&str], body: &str) -> Needs {
        needs(&Function { arguments: arguments.iter().map(|name| (*name).to_owned()).collect(), body: body.to_owned() }, &model())
    }

    fn name(table: &str, column: &str) -> (String, String) {
        (table.to_owned(), column.to_owned())
    }

    #[test]
    fn columns_are_those_of_an_alias() {
        let found = of(&[], "BEGIN SELECT x.n INTO m FROM s.a AS x JOIN s.b ON b.a_id = x.id WHERE x.status = 'on'; END");
        let expected = [name("s.a", "id"), name("s.a", "n"), name("s.a", "status"), name("s.b", "a_id")];
        assert_eq!(found.reads, BTreeSet::from(expected));
        assert!(found.written().is_empty());
    }

    #[test]
    fn a_row_in_a_variable_is_what_it_is_asked_for() {
        let found = of(&[], "DECLARE one s.a; BEGIN SELECT x.* INTO one FROM s.a x WHERE x.id = m; RETURN one.note; END");
        assert_eq!(found.reads, BTreeSet::from([name("s.a", "id"), name("s.a", "note")]));
        assert_eq!(of(&[], "BEGIN RETURN QUERY SELECT x.* FROM s.a x; END").reads.len(), 5);
    }

    #[test]
    fn what_is_written_is_known_with_its_key_and_words() {
        let found = of(
            &["n"],
            "DECLARE m integer; BEGIN
                 INSERT INTO s.a AS t (organization_id, n, status) VALUES (org, n, 'on')
                 ON CONFLICT ON CONSTRAINT a_key DO UPDATE SET status = CASE WHEN t.note IS NULL THEN 'off' END RETURNING id INTO m;
                 UPDATE s.a SET (n, note) = (1, 'on') WHERE id = m; DELETE FROM s.b WHERE b.id = m; END",
        );
        assert_eq!(found.keys, BTreeSet::from([("s.a".to_owned(), vec!["organization_id".to_owned(), "n".to_owned()])]));
        assert_eq!(found.words[&name("s.a", "status")], BTreeSet::from(["on".to_owned(), "off".to_owned()]));
        let columns = ["n", "organization_id", "status"].map(str::to_owned);
        assert_eq!(found.inserted_by_functions["s.a"], BTreeSet::from([(Clash::Updates, BTreeSet::from(columns))]));
        let together = [BTreeSet::from(["status".to_owned()]), BTreeSet::from(["n".to_owned(), "note".to_owned()])];
        assert_eq!(found.updated_together["s.a"], BTreeSet::from(together));
        assert!(found.updated_by_functions.contains(&name("s.a", "note")) && found.deletes.contains("s.b"));
        assert!(found.reads.contains(&name("s.a", "id")) && found.reads.contains(&name("s.a", "note")));
    }
}
