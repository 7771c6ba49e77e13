//! The tables and functions that a pack makes, read from its own scripts: what can be bound is known without making any of it. Pure.

use super::lex::{Kind, Piece, closes, parts, solid, statements};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_sql: String,
    pub not_null: bool,
    pub default: Option<String>,
    /// The words that a CHECK allows; empty: any.
    pub words: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<Column>,
    /// Constraints that find a row, by name.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Those that may be NULL, and NULL is one value there.
    pub one_null: BTreeSet<String>,
    pub references: Vec<Reference>,
    /// Functions of its triggers.
    pub triggers: BTreeSet<String>,
}

/// A key to another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub to: String,
    /// The whole constraint.
    pub sql: String,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub arguments: Vec<String>,
    pub body: String,
}

/// Tables by `schema.table`, functions by `schema.function`.
#[derive(Debug, Default)]
pub struct Model {
    pub tables: BTreeMap<String, Table>,
    pub functions: BTreeMap<String, Function>,
    /// Functions that members call, with their own rights.
    pub for_members: BTreeSet<String>,
}

/// What a statement of a script is about.
#[derive(Debug, PartialEq, Eq)]
pub enum Subject {
    /// It makes this table.
    Makes(String),
    /// It adds something to this table, which must be one.
    Adds(String),
    Function(String),
    /// It says something of this function.
    Of(String),
    /// It has this table call this function.
    Calls(String, String),
    Do,
    Other,
}

/// `schema.name` at this place.
pub fn qualified(pieces: &[Piece<'_>], at: usize) -> Option<String> {
    let dot = pieces.get(at + 1)?.sign('.');
    let (schema, name) = (pieces.get(at)?.name()?, pieces.get(at + 2)?.name()?);
    dot.then(|| format!("{schema}.{name}"))
}

/// Behind these words, in this order, wherever they first stand.
fn behind(pieces: &[Piece<'_>], words: &[&str]) -> Option<usize> {
    (0..pieces.len())
        .find(|at| words.iter().enumerate().all(|(n, word)| pieces.get(at + n).is_some_and(|piece| piece.is(word))))
        .map(|at| at + words.len())
}

fn begins(pieces: &[Piece<'_>], words: &[&str]) -> bool {
    words.iter().enumerate().all(|(n, word)| pieces.get(n).is_some_and(|piece| piece.is(word)))
}

fn past_if_exists(pieces: &[Piece<'_>], mut at: usize) -> usize {
    while pieces.get(at).is_some_and(|piece| piece.is("if") || piece.is("not") || piece.is("exists") || piece.is("only")) {
        at += 1;
    }
    at
}

pub fn subject(pieces: &[Piece<'_>]) -> Subject {
    let table = |at: usize| qualified(pieces, past_if_exists(pieces, at));
    let found = if begins(pieces, &["create", "table"]) {
        table(2).map(Subject::Makes)
    } else if begins(pieces, &["alter", "table"]) {
        table(2).map(Subject::Adds)
    } else if begins(pieces, &["comment", "on", "table"]) || begins(pieces, &["comment", "on", "column"]) {
        table(3).map(Subject::Adds)
    } else if begins(pieces, &["create", "or", "replace", "function"]) {
        table(4).map(Subject::Function)
    } else if begins(pieces, &["do"]) {
        Some(Subject::Do)
    } else if begins(pieces, &["create", "or", "replace", "trigger"]) {
        let function = behind(pieces, &["execute", "function"]).and_then(|at| qualified(pieces, at));
        behind(pieces, &["on"]).and_then(table).zip(function).map(|(table, function)| Subject::Calls(table, function))
    } else if begins(pieces, &["comment", "on", "function"]) || begins(pieces, &["revoke"]) || begins(pieces, &["grant"]) {
        behind(pieces, &["on", "function"]).and_then(|at| qualified(pieces, at)).map(Subject::Of)
    } else if begins(pieces, &["create", "index"]) || begins(pieces, &["create", "unique"]) {
        behind(pieces, &["on"]).and_then(table).map(Subject::Adds)
    } else {
        None
    };
    found.unwrap_or(Subject::Other)
}

/// Names between the parentheses that open at `at`.
fn names(pieces: &[Piece<'_>], at: usize) -> Vec<String> {
    // UNIQUE NULLS NOT DISTINCT (…) has words in between.
    let open = (at..pieces.len()).find(|at| pieces[*at].sign('('));
    let Some((open, end)) = open.and_then(|open| Some((open, closes(pieces, open)?))) else { return Vec::new() };
    parts(&pieces[open + 1..end]).iter().filter_map(|part| part.first()?.name()).collect()
}

const ENDS: [&str; 9] = ["not", "null", "default", "constraint", "generated", "check", "references", "primary", "unique"];

fn column(part: &[Piece<'_>]) -> Option<Column> {
    let name = part.first()?.name()?;
    let ends = |piece: &Piece<'_>| ENDS.iter().any(|word| piece.is(word));
    let end = part.iter().skip(1).position(ends).map_or(part.len(), |at| at + 1);
    let default = behind(part, &["default"]).map(|from| {
        let to = part[from..].iter().position(ends).map_or(part.len(), |at| from + at);
        text(&part[from..to])
    });
    Some(Column {
        name,
        type_sql: text(&part[1..end]),
        not_null: behind(part, &["not", "null"]).is_some(),
        default,
        words: Vec::new(),
    })
}

/// Pieces as text again.
fn text(pieces: &[Piece<'_>]) -> String {
    let mut out = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let apart =
            at > 0 && matches!(piece.kind, Kind::Word | Kind::Quoted) && matches!(pieces[at - 1].kind, Kind::Word | Kind::Quoted);
        if apart {
            out.push(' ');
        }
        out.push_str(piece.text);
    }
    out
}

/// `CHECK (column IN ('a', 'b'))`.
fn words(part: &[Piece<'_>]) -> Option<(String, Vec<String>)> {
    let at = behind(part, &["check"])?;
    let inside = part.get(at + 1..closes(part, at)?)?;
    let list = inside.get(2..).filter(|_| inside.get(1).is_some_and(|piece| piece.is("in")))?;
    let words =
        parts(list.get(1..list.len().checked_sub(1)?)?).iter().map(|word| word.first()?.literal()).collect::<Option<_>>()?;
    Some((inside.first()?.name()?, words))
}

impl Model {
    pub fn read<'a>(scripts: impl Iterator<Item = &'a str>) -> Self {
        let mut model = Self::default();
        for statement in scripts.flat_map(statements) {
            let pieces = solid(statement);
            match subject(&pieces) {
                Subject::Makes(table) => model.made(table, &pieces),
                Subject::Adds(table) => model.added(&table, &pieces),
                Subject::Function(name) => model.function(name, &pieces),
                Subject::Calls(table, function) => {
                    if let Some(table) = model.tables.get_mut(&table) {
                        table.triggers.insert(function);
                    }
                }
                Subject::Of(name) if begins(&pieces, &["grant"]) && pieces.iter().any(|piece| piece.is("usher_member")) => {
                    model.for_members.insert(name);
                }
                Subject::Of(_) | Subject::Do | Subject::Other => {}
            }
        }
        model
    }

    /// Functions that name one of these tables, or a function that does.
    pub fn functions_about(&self, tables: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
        let names: BTreeMap<&String, BTreeSet<String>> = self
            .functions
            .iter()
            .map(|(name, function)| {
                let pieces = solid(&function.body);
                (name, (0..pieces.len()).filter_map(|at| qualified(&pieces, at)).collect())
            })
            .collect();
        let mut found = BTreeSet::new();
        loop {
            let about = |named: &BTreeSet<String>| named.iter().any(|name| tables(name) || found.contains(name));
            let more: Vec<String> = names
                .iter()
                .filter(|(name, named)| !found.contains(**name) && about(named))
                .map(|(name, _)| (*name).clone())
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    fn made(&mut self, name: String, pieces: &[Piece<'_>]) {
        let Some(open) = pieces.iter().position(|piece| piece.sign('(')) else { return };
        let Some(end) = closes(pieces, open) else { return };
        let table = self.tables.entry(name).or_default();
        for part in parts(&pieces[open + 1..end]) {
            if !part.first().is_some_and(|piece| piece.is("constraint")) {
                table.columns.extend(column(part));
                continue;
            }
            if let (Some(name), Some(at)) =
                (part.get(1).and_then(Piece::name), behind(part, &["primary", "key"]).or_else(|| behind(part, &["unique"])))
            {
                if behind(part, &["nulls", "not", "distinct"]).is_some() {
                    table.one_null.insert(name.clone());
                }
                table.keys.insert(name, names(part, at));
            }
            if let (Some(name), Some(to)) =
                (part.get(1).and_then(Piece::name), behind(part, &["references"]).and_then(|at| qualified(part, at)))
            {
                table.references.push(Reference { name, to, sql: text(part) });
            }
            if let Some((name, words)) = words(part)
                && let Some(column) = table.columns.iter_mut().find(|column| column.name == name)
            {
                column.words = words;
            }
        }
    }

    fn added(&mut self, name: &str, pieces: &[Piece<'_>]) {
        let Some(table) = self.tables.get_mut(name) else { return };
        if begins(pieces, &["alter"]) {
            for part in parts(pieces) {
                if let Some(at) = behind(part, &["add", "column"]) {
                    let part: Vec<Piece<'_>> =
                        part[past_if_exists(part, at)..].iter().filter(|piece| !piece.sign(';')).copied().collect();
                    table.columns.extend(column(&part));
                }
            }
        }
    }

    fn function(&mut self, name: String, pieces: &[Piece<'_>]) {
        let Some(open) = pieces.iter().position(|piece| piece.sign('(')) else { return };
        let arguments = names(pieces, open);
        // RETURN expression has no body: it is all that follows.
        let body = pieces.iter().find_map(Piece::body).map_or_else(|| text(&pieces[open..]), str::to_owned);
        self.functions.insert(name, Function { arguments, body });
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    const SCRIPT: &str = "
        CREATE TABLE IF NOT EXISTS crm.deals (
            organization_id uuid NOT NULL, title text NOT NULL DEFAULT 'new', value numeric(14,2), currency char(3) NOT NULL DEFAULT 'USD', at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT deals_pkey PRIMARY KEY (organization_id, title), CONSTRAINT deals_known CHECK (title IN ('new', 'old')));
        ALTER TABLE crm.deals
            ADD COLUMN IF NOT EXISTS a integer,
            ADD COLUMN IF NOT EXISTS b jsonb NOT NULL DEFAULT '{}';
        CREATE UNIQUE INDEX IF NOT EXISTS i ON crm.deals (a);
        CREATE OR REPLACE FUNCTION crm.keep(one uuid, two text DEFAULT 'x') RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        GRANT EXECUTE ON FUNCTION crm.keep(uuid, text) TO usher_member;
        CREATE TABLE crm.notes (deal uuid, n integer, CONSTRAINT notes_deal_fkey FOREIGN KEY (deal) REFERENCES crm.deals (id) ON DELETE CASCADE,
            CONSTRAINT notes_key UNIQUE NULLS NOT DISTINCT (deal, n));
        CREATE OR REPLACE TRIGGER keep BEFORE UPDATE ON crm.deals FOR EACH ROW WHEN (OLD.title = 'on x') EXECUTE FUNCTION crm.keep();";

    #[test]
    fn tables_are_read_from_the_scripts() {
        let model = Model::read([SCRIPT].into_iter());
        let deals = &model.tables["crm.deals"];
        assert_eq!(deals.names(), ["organization_id", "title", "value", "currency", "at", "a", "b"]);
        assert_eq!(deals.column("value").unwrap().type_sql, "numeric(14,2)");
        assert_eq!(deals.column("at").unwrap().default.as_deref(), Some("now()"));
        assert_eq!(deals.column("b").unwrap().default.as_deref(), Some("'{}'"));
        assert_eq!(deals.column("title").unwrap().words, ["new", "old"]);
        assert_eq!(deals.keys["deals_pkey"], ["organization_id", "title"]);
        assert!(deals.triggers.contains("crm.keep"));
        assert_eq!(model.functions["crm.keep"].arguments, ["one", "two"]);
        assert!(model.for_members.contains("crm.keep"));
        let notes = &model.tables["crm.notes"];
        assert_eq!((notes.keys["notes_key"].len(), notes.one_null.len(), deals.one_null.len()), (2, 1, 0));
        let sql = "CONSTRAINT notes_deal_fkey FOREIGN KEY(deal)REFERENCES crm.deals(id)ON DELETE CASCADE";
        assert_eq!(notes.references, [Reference { name: "notes_deal_fkey".into(), to: "crm.deals".into(), sql: sql.into() }]);
    }

    #[test]
    fn statements_say_what_they_are_about() {
        let about = |sql: &str| subject(&solid(sql));
        assert_eq!(about("COMMENT ON COLUMN crm.deals.title IS 'x'"), Subject::Adds("crm.deals".into()));
        assert_eq!(about("CREATE UNIQUE INDEX IF NOT EXISTS i ON crm.deals (a)"), Subject::Adds("crm.deals".into()));
        assert_eq!(about("CREATE SCHEMA IF NOT EXISTS crm"), Subject::Other);
        assert_eq!(about("DO $$ BEGIN END $$"), Subject::Do);
    }
}
