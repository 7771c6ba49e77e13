//! The SQL of a comparison. Pure.

use super::fit::{Fitted, Pair};
use super::sides::Side;
use pgrx::spi::quote_literal;
use std::fmt::Write as _;

/// A function may have a hundred arguments; an object of pairs takes two for each.
const MOST_ARGUMENTS: usize = 80;
const MOST_PAIRS: usize = 40;

/// How rows are spread over leaves: 2 to the power of `bits` of them, by a key that is drawn for each comparison.
#[derive(Clone)]
pub struct Spread {
    pub secret: String,
    pub bits: i32,
}

/// The rows that have to be looked at.
#[derive(Clone, Copy)]
pub enum Opened<'a> {
    All,
    /// Those of these leaves.
    Leaves(&'a [i32]),
    /// Those with these keys, each as its types write it.
    Keys(&'a [Vec<String>]),
}

/// Both sides as they are compared.
pub struct Statement<'a> {
    pub left: &'a Side,
    pub right: &'a Side,
    pub pair: &'a Pair,
    pub spread: Spread,
}

fn names(letter: char, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{letter}{n}")).collect()
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = fields.map(|(name, value)| format!("{}, {value}", quote_literal(name))).collect();
    let parts: Vec<String> =
        pairs.chunks(MOST_PAIRS).map(|chunk| format!("pg_catalog.jsonb_build_object({})", chunk.join(", "))).collect();
    parts.join(" || ")
}

/// True of two values that are not the same; NULL is the same as NULL.
fn differs(n: usize, field: &Fitted) -> String {
    if field.plain {
        return format!("l.c{n} IS DISTINCT FROM r.c{n}");
    }
    format!(
        "CASE pg_catalog.num_nulls(l.c{n}, r.c{n}) WHEN 0 THEN NOT (l.c{n} {} r.c{n}) WHEN 1 THEN true ELSE false END",
        field.equal
    )
}

impl Statement<'_> {
    fn secret(&self) -> String {
        format!("{}::uuid", quote_literal(&self.spread.secret))
    }

    /// The rows of one side, with `more` that must be true of them.
    fn rows(&self, left: bool, with_columns: bool, more: &[String]) -> String {
        let side = if left { self.left } else { self.right };
        let value = |field: &Fitted| if left { field.left.clone() } else { field.right.clone() };
        let mut sql = format!("SELECT {left} AS here");
        for (n, field) in self.pair.key.iter().enumerate() {
            let _ = write!(sql, ", {} AS k{n}", value(field));
        }
        for (n, field) in self.pair.columns.iter().enumerate().filter(|_| with_columns) {
            let _ = write!(sql, ", {} AS c{n}", value(field));
        }
        let _ = write!(sql, " FROM {}", side.from);
        let all: Vec<&str> = side.filter.iter().chain(more).map(String::as_str).collect();
        if !all.is_empty() {
            let _ = write!(sql, " WHERE {}", all.join(" AND "));
        }
        sql
    }

    /// The rows of one side that have to be looked at.
    fn opened(&self, left: bool, with_columns: bool, opened: Opened<'_>) -> String {
        let keys: Vec<&str> =
            self.pair.key.iter().map(|field| if left { field.left.as_str() } else { field.right.as_str() }).collect();
        let keys = keys.join(", ");
        let filter = match opened {
            Opened::All => return self.rows(left, with_columns, &[]),
            Opened::Leaves(leaves) => {
                let listed: Vec<String> = leaves.iter().map(i32::to_string).collect();
                let (secret, bits) = (self.secret(), self.spread.bits);
                format!("usher.compare_leaf({secret}, {bits}, {keys}) = ANY ('{{{}}}'::integer[])", listed.join(","))
            }
            Opened::Keys(listed) => {
                let value = |(text, field): (&String, &Fitted)| format!("{}::{}", quote_literal(text), field.type_name);
                let row = |key: &Vec<String>| key.iter().zip(&self.pair.key).map(value).collect::<Vec<_>>().join(", ");
                let rows: Vec<String> = listed.iter().map(|key| format!("({})", row(key))).collect();
                format!("({keys}) IN (VALUES {})", rows.join(", "))
            }
        };
        self.rows(left, with_columns, &[filter])
    }

    /// One scan of both sides: the leaves that are not the same, by the rows that are looked at.
    pub fn tree(&self, opened: Opened<'_>) -> String {
        let keys = names('k', self.pair.key.len());
        let columns = names('c', self.pair.columns.len());
        let named = |names: &[String]| names.iter().map(|name| format!("s.{name}")).collect::<Vec<_>>();
        let mut values = named(&keys);
        if keys.len() + columns.len() <= MOST_ARGUMENTS {
            values.extend(named(&columns));
        } else {
            let chunks = columns.chunks(MOST_ARGUMENTS);
            values.extend(chunks.map(|chunk| format!("usher.compare_digest({}, {})", self.secret(), named(chunk).join(", "))));
        }
        format!(
            "SELECT usher.compare_tree(s.here, {}, {}, {}, {}) FROM ({} UNION ALL {}) AS s",
            self.secret(),
            self.spread.bits,
            keys.len(),
            values.join(", "),
            self.opened(true, true, opened),
            self.opened(false, true, opened)
        )
    }

    /// One key that several rows of a side have, or a row without a key, among the rows that have to be looked at.
    pub fn doubled(&self, left: bool, opened: Opened<'_>) -> String {
        let keys = names('k', self.pair.key.len()).iter().map(|name| format!("s.{name}")).collect::<Vec<_>>().join(", ");
        format!(
            "SELECT {} FROM ({}) AS s GROUP BY {keys} HAVING pg_catalog.count(*) > 1 OR pg_catalog.num_nulls({keys}) > 0 ORDER BY 1 LIMIT 1",
            object(
                self.pair
                    .key
                    .iter()
                    .enumerate()
                    .map(|(n, field)| { (if left { field.name.clone() } else { field.other.clone() }, format!("s.k{n}")) })
            ),
            self.opened(left, false, opened)
        )
    }

    /// The rows that are missing on one side, or different: `(key, finding, columns, left_row, right_row)`.
    pub fn differences(&self, opened: Opened<'_>) -> String {
        let (keys, columns) = (&self.pair.key, &self.pair.columns);
        let on: Vec<String> = keys.iter().enumerate().map(|(n, field)| format!("l.k{n} {} r.k{n}", field.equal)).collect();
        let key = object(keys.iter().enumerate().map(|(n, field)| (field.name.clone(), format!("COALESCE(l.k{n}, r.k{n})"))));
        let row = |letter: char, left: bool| {
            let name = |field: &Fitted| if left { field.name.clone() } else { field.other.clone() };
            let keys = keys.iter().enumerate().map(|(n, field)| (name(field), format!("{letter}.k{n}")));
            object(keys.chain(columns.iter().enumerate().map(|(n, field)| (name(field), format!("{letter}.c{n}")))))
        };
        let differ: Vec<String> = columns.iter().enumerate().map(|(n, field)| differs(n, field)).collect();
        let any = if differ.is_empty() { "false".to_owned() } else { differ.join(" OR ") };
        let named: Vec<String> = columns
            .iter()
            .zip(&differ)
            .map(|(field, differs)| format!("CASE WHEN {differs} THEN {} END", quote_literal(&field.name)))
            .collect();
        format!(
            "SELECT {key} AS key, CASE WHEN l.here IS NULL THEN 'missing_left' WHEN r.here IS NULL THEN 'missing_right' ELSE 'different' END AS finding,
       CASE WHEN l.here IS NOT NULL AND r.here IS NOT NULL THEN pg_catalog.array_remove(ARRAY[{}]::text[], NULL) END AS columns,
       CASE WHEN l.here IS NOT NULL THEN {} END AS left_row, CASE WHEN r.here IS NOT NULL THEN {} END AS right_row
  FROM ({}) AS l FULL JOIN ({}) AS r ON {} WHERE l.here IS NULL OR r.here IS NULL OR {any} ORDER BY 1",
            named.join(", "),
            row('l', true),
            row('r', false),
            self.opened(true, true, opened),
            self.opened(false, true, opened),
            on.join(" AND ")
        )
    }
}
