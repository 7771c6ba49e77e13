//! A table of the pack as it lies in a table of the application: where each column is, and how it is read and written. Pure.

use super::lex::solid;
use super::model::{Column, Table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A column of the application's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Theirs {
    pub name: String,
    /// As SQL writes it.
    pub type_sql: String,
    /// Without its domains.
    pub base_sql: String,
    /// The words of an enum.
    pub labels: Option<Vec<String>>,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
}

/// Where a column of the pack is.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped {
    Same(String),
    /// Under other words, or of another type of text: read and written through its text. `(theirs, ours)`, `(ours, theirs)`.
    Words {
        column: String,
        type_sql: String,
        read: Vec<(String, String)>,
        write: Vec<(String, String)>,
        labels: Option<Vec<String>>,
    },
    /// Nowhere: this SQL is read, nothing is written.
    Fixed(String),
    Unfit {
        column: String,
        is: String,
    },
    Missing,
}

/// How words of other tables and texts come into SQL.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name behind `alias.`: there any word may stand, and what is plain stays so.
pub fn behind(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { quoted(name) }
}

/// The function that puts the application's word in the place of the pack's, for a column of the pack's table.
pub fn word_function(table: &str, column: &str) -> String {
    let (schema, table) = table.split_once('.').unwrap_or_default();
    format!("{}.{}", quoted(schema), quoted(&format!("{table}_{column}_word")))
}

/// Types that stand for each other.
fn family(type_sql: &str) -> String {
    let lower = type_sql.to_ascii_lowercase();
    let base = lower.split('(').next().unwrap_or_default().trim().to_owned();
    let rest = lower.rsplit(')').next().filter(|_| lower.contains('(')).unwrap_or_default().trim().to_owned();
    let whole = if rest.is_empty() { base } else { format!("{base} {rest}") };
    match whole.as_str() {
        "text" | "varchar" | "character varying" | "char" | "character" | "bpchar" | "citext" | "name" => "text".to_owned(),
        "smallint" | "integer" | "int" | "bigint" => "integer".to_owned(),
        "numeric" | "decimal" => "numeric".to_owned(),
        "timestamptz" | "timestamp with time zone" => "timestamptz".to_owned(),
        "bool" | "boolean" => "boolean".to_owned(),
        other => other.rsplit('.').next().unwrap_or(other).to_owned(),
    }
}

/// Whether values of the one type are values of the other; whole numbers are amounts, if nothing is written back.
pub fn fits(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (family(ours), family(theirs));
    ours == theirs || ours == "numeric" && theirs == "integer"
}

/// Cuts what is written.
pub fn loses(ours: &str, theirs: &str) -> bool {
    family(ours) == "numeric" && family(theirs) == "integer"
}

/// Digits before and behind the point that a numeric holds, as far as it says so.
fn digits(type_sql: &str) -> Option<(i64, i64)> {
    let (_, inside) = type_sql.split_once('(').filter(|_| family(type_sql) == "numeric")?;
    let mut numbers = inside.split(')').next()?.split(',').map(|number| number.trim().parse::<i64>());
    let (all, behind) = (numbers.next()?.ok()?, numbers.next().and_then(|number| number.ok()).unwrap_or(0));
    Some((all - behind, behind))
}

/// What becomes of an amount that is written where fewer digits are kept.
pub fn narrows(ours: &str, theirs: &str) -> Option<&'static str> {
    let (before, behind) = digits(theirs).filter(|_| family(ours) == "numeric")?;
    match digits(ours) {
        Some((_, fine)) if fine > behind => Some("rounded"),
        None => Some("rounded"),
        Some((large, _)) if large > before => Some("refused where it is larger"),
        Some(_) => None,
    }
}

/// How `column` of the pack lies in `theirs`.
pub fn map(column: &Column, theirs: &Theirs, words: &[(String, Vec<String>)]) -> Mapped {
    let textual = family(&column.type_sql) == "text";
    if textual && (theirs.labels.is_some() || !words.is_empty() && family(&theirs.base_sql) == "text") {
        // A word that is written in another way is named, also if it reads as itself: it is known what it stands for.
        let read = words.iter().flat_map(|(ours, list)| {
            let named = move |word: &&String| *word != ours || list.first() != Some(*word);
            list.iter().filter(named).map(move |word| (word.clone(), ours.clone()))
        });
        let write = words.iter().filter_map(|(ours, list)| Some((ours.clone(), list.first()?.clone()))).filter(|(a, b)| a != b);
        return Mapped::Words {
            column: theirs.name.clone(),
            type_sql: theirs.type_sql.clone(),
            read: read.collect(),
            write: write.collect(),
            labels: theirs.labels.clone(),
        };
    }
    if fits(&column.type_sql, &theirs.base_sql) {
        Mapped::Same(theirs.name.clone())
    } else {
        Mapped::Unfit { column: theirs.name.clone(), is: theirs.type_sql.clone() }
    }
}

/// What is read for a column that is nowhere.
pub fn fixed(column: &Column, value: Option<&Value>) -> Mapped {
    let type_sql = &column.type_sql;
    Mapped::Fixed(match value {
        Some(Value::String(text)) => format!("{}::{type_sql}", literal(text)),
        Some(other) => format!("'{other}'::{type_sql}"),
        None => match &column.default {
            // Each row would get another one.
            Some(default) if !default.contains('(') => format!("({default})::{type_sql}"),
            _ => format!("NULL::{type_sql}"),
        },
    })
}

/// An index that is unique over just these columns.
pub type Unique = BTreeSet<String>;

#[derive(Debug, Clone, Default)]
pub struct Fitted {
    /// The pack's name of it.
    pub name: String,
    /// The application's, as people write it and as SQL does.
    pub table: String,
    pub sql: String,
    pub oid: u32,
    pub owned: bool,
    pub theirs: Vec<Theirs>,
    pub columns: BTreeMap<String, Mapped>,
    /// Those that an ON CONFLICT can name.
    pub uniques: Vec<Unique>,
    /// Of them, those to which NULL is a value (NULLS NOT DISTINCT).
    pub one_null: Vec<Unique>,
    /// Those of some rows only.
    pub partial: Vec<Unique>,
    /// Columns of the primary key.
    pub key: Vec<String>,
    pub fill: BTreeMap<String, Value>,
    /// Policies that take rows away from whoever has others.
    pub restrictive: Vec<String>,
}

impl Fitted {
    pub fn theirs(&self, name: &str) -> Option<&Theirs> {
        self.theirs.iter().find(|column| column.name == name)
    }

    pub fn mapped(&self, column: &str) -> &Mapped {
        self.columns.get(column).unwrap_or(&Mapped::Missing)
    }

    /// The application's column that holds one of the pack.
    pub fn column(&self, name: &str) -> Option<&str> {
        match self.mapped(name) {
            Mapped::Same(column) | Mapped::Words { column, .. } => Some(column),
            _ => None,
        }
    }

    /// The column holds just what the pack's would.
    pub fn is_plain(&self, name: &str) -> bool {
        matches!(self.mapped(name), Mapped::Same(_))
    }

    /// What is read for a column; `alias` is `new.` or the like, or nothing.
    pub fn read(&self, name: &str, alias: &str) -> Option<String> {
        let named = |column: &str| if alias.is_empty() { quoted(column) } else { format!("{alias}{}", behind(column)) };
        match self.mapped(name) {
            Mapped::Same(column) => Some(named(column)),
            Mapped::Words { column, read, .. } if read.is_empty() => Some(format!("{}::text", named(column))),
            Mapped::Words { column, read, .. } => {
                let whens: String =
                    read.iter().map(|(theirs, ours)| format!(" WHEN {} THEN {}", literal(theirs), literal(ours))).collect();
                Some(format!("(CASE {0}::text{whens} ELSE {0}::text END)", named(column)))
            }
            Mapped::Fixed(sql) => Some(format!("({sql})")),
            Mapped::Unfit { .. } | Mapped::Missing => None,
        }
    }

    /// What is written where the pack writes `sql` into a column; None: nothing.
    pub fn write(&self, name: &str, sql: &str) -> Option<String> {
        match self.mapped(name) {
            Mapped::Same(_) => Some(sql.to_owned()),
            Mapped::Words { type_sql, write, .. } => {
                let pieces = solid(sql);
                let alone = if let [one] = pieces.as_slice() { one.literal() } else { None };
                if let Some(word) = alone {
                    let theirs = write.iter().find(|(ours, _)| *ours == word).map_or(&word, |(_, theirs)| theirs);
                    return Some(format!("{}::{type_sql}", literal(theirs)));
                }
                Some(if write.is_empty() {
                    format!("(({sql})::text)::{type_sql}")
                } else {
                    format!("{}(({sql})::text)::{type_sql}", word_function(&self.name, name))
                })
            }
            Mapped::Fixed(_) | Mapped::Unfit { .. } | Mapped::Missing => None,
        }
    }

    /// Whether the application has a word for it.
    pub fn says(&self, name: &str, word: &str) -> bool {
        match self.mapped(name) {
            Mapped::Words { write, labels: Some(labels), .. } => {
                let theirs = write.iter().find(|(ours, _)| ours == word).map_or(word, |(_, theirs)| theirs);
                labels.iter().any(|label| label == theirs)
            }
            _ => true,
        }
    }

    /// Words of an enum that would be taken for one of the pack that has another name here.
    pub fn mistaken(&self, name: &str) -> Vec<&str> {
        let Mapped::Words { write, read, labels: Some(labels), .. } = self.mapped(name) else { return Vec::new() };
        let taken =
            |label: &&String| write.iter().any(|(ours, _)| ours == *label) && !read.iter().any(|(theirs, _)| theirs == *label);
        labels.iter().filter(taken).map(String::as_str).collect()
    }

    /// Whether one of these columns can be without a value.
    pub fn may_be_null(&self, columns: &[&str]) -> bool {
        columns.iter().filter_map(|name| self.theirs(name)).any(|column| !column.not_null)
    }

    /// Columns that an inserted row must be given.
    pub fn must_have(&self) -> impl Iterator<Item = &Theirs> {
        self.theirs.iter().filter(|column| column.not_null && !column.has_default && !column.generated)
    }
}

/// Where every column of `table` is, as far as names and types say it.
pub fn columns(
    table: &Table,
    theirs: &[Theirs],
    said: &dyn Fn(&str) -> Option<super::parse::Source>,
    words: &BTreeMap<String, Vec<(String, Vec<String>)>>,
) -> BTreeMap<String, Mapped> {
    use super::parse::Source;
    let none = Vec::new();
    let find = |column: &Column, name: &str| {
        let words = words.get(&column.name).unwrap_or(&none);
        theirs.iter().find(|theirs| theirs.name == name).map_or(Mapped::Missing, |theirs| map(column, theirs, words))
    };
    table
        .columns
        .iter()
        .map(|column| {
            let mapped = match said(&column.name) {
                Some(Source::Column(name)) => find(column, &name),
                Some(Source::Constant(value)) => fixed(column, Some(&value)),
                Some(Source::Absent) => fixed(column, None),
                None => find(column, &column.name),
            };
            (column.name.clone(), mapped)
        })
        .collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn theirs(name: &str, type_sql: &str, labels: Option<&[&str]>) -> Theirs {
        let labels = labels.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect());
        Theirs {
            name: name.into(),
            type_sql: type_sql.into(),
            base_sql: type_sql.into(),
            labels,
            not_null: false,
            has_default: false,
            generated: false,
        }
    }

    fn ours(name: &str, type_sql: &str) -> Column {
        Column { name: name.into(), type_sql: type_sql.into(), not_null: false, default: None, words: Vec::new() }
    }

    fn fitted(columns: Vec<(&str, Mapped)>) -> Fitted {
        let columns = columns.into_iter().map(|(name, mapped)| (name.to_owned(), mapped)).collect();
        Fitted {
            name: "crm.deals".into(),
            table: "public.deals".into(),
            sql: "public.deals".into(),
            oid: 0,
            owned: true,
            theirs: Vec::new(),
            columns,
            ..Fitted::default()
        }
    }

    #[test]
    fn types_that_hold_the_same_fit() {
        for (ours, theirs) in [
            ("text", "character varying(20)"),
            ("char(3)", "text"),
            ("bigint", "integer"),
            ("numeric(14,2)", "numeric"),
            ("timestamptz", "timestamp with time zone"),
            ("numeric", "bigint"),
        ] {
            assert!(fits(ours, theirs), "{ours} {theirs}");
        }
        for (ours, theirs) in [
            ("date", "timestamp with time zone"),
            ("uuid", "text"),
            ("integer", "numeric"),
            ("jsonb", "json"),
            ("timestamptz", "timestamp(3) without time zone"),
        ] {
            assert!(!fits(ours, theirs), "{ours} {theirs}");
        }
        assert!(loses("numeric(14,2)", "integer") && !loses("numeric", "numeric(10,2)"));
        for (ours, theirs, expected) in [
            ("numeric(14,2)", "numeric(10,0)", Some("rounded")),
            ("numeric(14,2)", "numeric(10)", Some("rounded")),
            ("numeric", "numeric(14,2)", Some("rounded")),
            ("numeric(14,2)", "numeric(10,2)", Some("refused where it is larger")),
            ("numeric(14,2)", "numeric(20,4)", None),
            ("numeric(14,2)", "numeric", None),
            ("text", "numeric(10,0)", None),
        ] {
            assert_eq!(narrows(ours, theirs), expected, "{ours} {theirs}");
        }
    }

    #[test]
    fn words_are_read_and_written_in_the_others_language() {
        let words = vec![("won".to_owned(), vec!["closed".to_owned(), "signed".to_owned()])];
        let mapped =
            map(&ours("status", "text"), &theirs("stage", "public.stage", Some(&["open", "closed", "signed", "won"])), &words);
        let deals = fitted(vec![("status", mapped), ("id", Mapped::Same("Id".into())), ("at", fixed(&ours("at", "date"), None))]);
        assert_eq!(
            deals.read("status", "new.").unwrap(),
            "(CASE new.stage::text WHEN 'closed' THEN 'won' WHEN 'signed' THEN 'won' ELSE new.stage::text END)"
        );
        assert_eq!(deals.write("status", "'won'").unwrap(), "'closed'::public.stage");
        assert_eq!(deals.write("status", "lower(x)").unwrap(), "\"crm\".\"deals_status_word\"((lower(x))::text)::public.stage");
        assert_eq!((deals.read("id", "p."), deals.read("id", "")), (Some("p.\"Id\"".into()), Some("\"Id\"".into())));
        assert_eq!((deals.read("at", "p.").unwrap(), deals.write("at", "x")), ("(NULL::date)".to_owned(), None));
        assert!(deals.says("status", "won") && deals.says("status", "open") && !deals.says("status", "lost"));
        assert_eq!(deals.mistaken("status"), ["won"]);
        let words = vec![("won".to_owned(), vec!["closed".to_owned(), "won".to_owned()])];
        let mapped = map(&ours("status", "text"), &theirs("stage", "public.stage", Some(&["closed", "won"])), &words);
        assert!(fitted(vec![("status", mapped)]).mistaken("status").is_empty());
    }

    #[test]
    fn a_constant_is_of_the_columns_type() {
        assert_eq!(
            fixed(&ours("a", "text"), Some(&serde_json::json!("it's \\ 1"))),
            Mapped::Fixed(" E'it''s \\\\ 1'::text".into())
        );
        assert_eq!(fixed(&ours("a", "integer"), Some(&serde_json::json!(7))), Mapped::Fixed("'7'::integer".into()));
    }
}
