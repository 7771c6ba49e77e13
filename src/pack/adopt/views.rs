//! Views in the place of the pack's tables, by which its functions read and write the application's. Pure.
//!
//! A view shows what its reader may see of the table (`security_invoker`), under the pack's names and words. PostgreSQL writes through it by
//! itself, with ON CONFLICT, as long as only columns are written that hold just what the pack's would; otherwise a trigger does.

use super::fitted::{Fitted, Mapped, literal, quoted, word_function};
use super::model::Table;
use super::needs::{Clash, Needs};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What functions write to a table that is bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    pub inserted: BTreeSet<String>,
    pub clashes: BTreeSet<Clash>,
    pub updated: BTreeSet<String>,
    /// What people change by calling a function themselves: with their rights, not with those of the pack's role.
    pub by_people: BTreeSet<String>,
    /// Columns of these that one statement changes.
    pub together: BTreeSet<BTreeSet<String>>,
}

impl Writes {
    pub fn of<'a>(table: &str, all: impl Iterator<Item = &'a Needs>, people: impl Iterator<Item = &'a Needs>) -> Self {
        let mut found = Self::default();
        for needs in people {
            let updated = needs.updated_by_functions.iter().filter(|(name, _)| name == table);
            found.by_people.extend(updated.map(|(_, column)| column.clone()));
            found.together.extend(needs.updated_together.get(table).into_iter().flatten().cloned());
        }
        for needs in all {
            for (clash, columns) in needs.inserted_by_functions.get(table).into_iter().flatten() {
                found.clashes.insert(*clash);
                found.inserted.extend(columns.iter().cloned());
            }
            let updated = needs.updated_by_functions.iter().filter(|(name, _)| name == table);
            found.updated.extend(updated.map(|(_, column)| column.clone()));
            found.together.extend(needs.updated_together.get(table).into_iter().flatten().cloned());
        }
        found
    }

    pub fn insert_by_function(&self, fitted: &Fitted) -> bool {
        self.inserted.iter().any(|column| !fitted.is_plain(column))
    }

    pub fn update_by_function(&self, fitted: &Fitted) -> bool {
        self.updated.union(&self.by_people).any(|column| !fitted.is_plain(column))
    }
}

fn parts(fitted: &Fitted) -> (&str, &str) {
    fitted.name.split_once('.').unwrap_or_default()
}

fn view(fitted: &Fitted) -> String {
    let (schema, table) = parts(fitted);
    format!("{}.{}", quoted(schema), quoted(table))
}

/// Functions that put the application's words in the place of the pack's.
pub fn word_functions(fitted: &Fitted) -> String {
    let mut sql = String::new();
    for (name, mapped) in &fitted.columns {
        let Mapped::Words { write, .. } = mapped else { continue };
        if write.is_empty() {
            continue;
        }
        let whens: String =
            write.iter().map(|(ours, theirs)| format!(" WHEN {} THEN {}", literal(ours), literal(theirs))).collect();
        let function = word_function(&fitted.name, name);
        let _ = write!(
            sql,
            "CREATE OR REPLACE FUNCTION {function}(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE $1{whens} ELSE $1 END;
             REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC;
             GRANT EXECUTE ON FUNCTION {function}(text) TO usher_member;
             COMMENT ON FUNCTION {function}(text) IS {};\n",
            literal(&format!("What {} says for a word of {}", fitted.table, fitted.name))
        );
    }
    sql
}

/// The names of what [`statements`] and [`word_functions`] may have made, to be taken away again.
pub fn functions(name: &str, table: &Table) -> Vec<String> {
    let (schema, plain) = name.split_once('.').unwrap_or_default();
    let of_rows = ["insert", "update"].map(|what| format!("{}.{}()", quoted(schema), quoted(&format!("{plain}_{what}_row"))));
    table.columns.iter().map(|column| format!("{}(text)", word_function(name, &column.name))).chain(of_rows).collect()
}

/// `default_of`: the SQL that a column of the application holds by default.
pub fn statements(
    pack: &str,
    fitted: &Fitted,
    table: &Table,
    writes: &Writes,
    default_of: &dyn Fn(&str) -> Option<String>,
) -> String {
    let view = view(fitted);
    let mut columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let sql = fitted.read(&column.name, "b.").unwrap_or_else(|| format!("NULL::{}", column.type_sql));
            format!("{sql} AS {}", quoted(&column.name))
        })
        .collect();
    let free = |name: &&String| table.column(name).is_none();
    columns.extend(fitted.fill.keys().filter(free).map(|name| format!("b.{0} AS {0}", quoted(name))));
    let mut sql = format!(
        "CREATE VIEW {view} WITH (security_invoker = true) AS SELECT {} FROM {} AS b;\nCOMMENT ON VIEW {view} IS {};\n",
        columns.join(", "),
        fitted.sql,
        literal(&format!("Pack {pack}: {} of the application, under the pack's names", fitted.table))
    );
    for column in &table.columns {
        let mapped = fitted.mapped(&column.name);
        let default = fitted.column(&column.name).and_then(default_of);
        let default = match (mapped, default) {
            (Mapped::Same(_), Some(default)) => default,
            (Mapped::Words { read, .. }, Some(default)) => {
                let whens: String =
                    read.iter().map(|(theirs, ours)| format!(" WHEN {} THEN {}", literal(theirs), literal(ours))).collect();
                if read.is_empty() {
                    format!("({default})::text")
                } else {
                    format!("CASE ({default})::text{whens} ELSE ({default})::text END")
                }
            }
            _ => continue,
        };
        let _ = writeln!(sql, "ALTER VIEW {view} ALTER COLUMN {} SET DEFAULT {default};", quoted(&column.name));
    }
    for (name, value) in fitted.fill.iter().filter(|(name, _)| free(name)) {
        let value = value.as_str().map_or_else(|| format!("'{value}'"), literal);
        let type_sql = fitted.theirs(name).map_or("text", |theirs| theirs.type_sql.as_str());
        let _ = writeln!(sql, "ALTER VIEW {view} ALTER COLUMN {} SET DEFAULT {value}::{type_sql};", quoted(name));
    }
    if writes.insert_by_function(fitted) {
        sql += &insert(fitted, writes);
    }
    if writes.update_by_function(fitted) {
        sql += &update(fitted, table, writes);
    }
    sql
}

fn trigger(fitted: &Fitted, what: &str, comment: &str, body: &str) -> String {
    let (schema, name) = parts(fitted);
    let (view, function) = (view(fitted), format!("{}.{}", quoted(schema), quoted(&format!("{name}_{what}_row"))));
    // Names of the application stand in it, which may be any.
    let mut quote = "$usher$".to_owned();
    while body.contains(&quote) {
        quote.insert(1, '_');
    }
    format!(
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS {quote}\n{body}\n{quote};
         REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;
         COMMENT ON FUNCTION {function}() IS {};
         CREATE TRIGGER {} INSTEAD OF {} ON {view} FOR EACH ROW EXECUTE FUNCTION {function}();\n",
        literal(&format!("Trigger: {comment}")),
        quoted(&format!("{what}_row")),
        what.to_ascii_uppercase()
    )
}

fn insert(fitted: &Fitted, writes: &Writes) -> String {
    let columns = fitted.columns.iter().filter_map(|(name, mapped)| {
        let column = fitted.column(name)?;
        let generated = fitted.theirs(column).is_some_and(|theirs| theirs.generated);
        let kept = !generated && !matches!(mapped, Mapped::Fixed(_)) && (writes.inserted.contains(name) || name == "id");
        kept.then(|| Some((quoted(column), fitted.write(name, &format!("NEW.{}", quoted(name)))?)))?
    });
    let fill = fitted.fill.iter().map(|(name, value)| {
        let type_sql = fitted.theirs(name).map_or("text", |theirs| theirs.type_sql.as_str());
        (quoted(name), format!("{}::{type_sql}", value.as_str().map_or_else(|| format!("'{value}'"), literal)))
    });
    let (names, values): (Vec<String>, Vec<String>) = columns.chain(fill).unzip();
    let keeps = if writes.clashes.contains(&Clash::Keeps) { " ON CONFLICT DO NOTHING" } else { "" };
    let body = format!(
        "BEGIN
    INSERT INTO {} ({}) VALUES ({}){keeps};
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END",
        fitted.sql,
        names.join(", "),
        values.join(", ")
    );
    trigger(fitted, "insert", &format!("a row for {}, in its own words", fitted.table), &body)
}

/// The pack's own key of a table: how one row is found again.
pub fn identity(table: &Table) -> Option<&Vec<String>> {
    table.keys.iter().find(|(name, _)| name.ends_with("_pkey")).map(|(_, key)| key)
}

/// A column that the trigger writes: what it is set to, and that it is what the statement saw.
type Written = (String, String);

/// How one column is written from the rows `new` and `old`.
fn written(fitted: &Fitted, name: &str, new: &str, old: &str) -> Option<Written> {
    let (column, read) = (fitted.column(name)?, fitted.read(name, "b.")?);
    let value = fitted.write(name, &format!("{new}.{}", quoted(name)))?;
    let seen = format!("{old}.{}", quoted(name));
    Some((format!("{} = {value}", quoted(column)), format!("{read} IS NOT DISTINCT FROM {seen}")))
}

/// A view's trigger is given the row as the statement saw it. What somebody else has changed meanwhile is not overwritten: the statement
/// fails, and its job is tried again. Only columns that change are named: others may be nobody's to write, or have triggers of their own.
/// What the pack's functions change together has a statement that is planned once; any other mixture is put together when it comes.
fn update(fitted: &Fitted, table: &Table, writes: &Writes) -> String {
    let key = identity(table).cloned().unwrap_or_default();
    let row = |old: &str| {
        let column = |name: &String| Some(format!("b.{} = {old}.{}", quoted(fitted.column(name)?), quoted(name)));
        key.iter().filter_map(column).collect::<Vec<_>>().join(" AND ")
    };
    let names: BTreeSet<&String> = writes.updated.union(&writes.by_people).filter(|name| !key.contains(name)).collect();
    let all: BTreeMap<&String, Written> =
        names.iter().filter_map(|name| Some((*name, written(fitted, name, "NEW", "OLD")?))).collect();
    if all.is_empty() {
        return trigger(fitted, "update", "nothing of it is here", "BEGIN\n    RETURN NEW;\nEND");
    }
    let known: BTreeSet<Vec<&String>> = writes
        .together
        .iter()
        .map(|together| together.iter().filter_map(|name| all.get_key_value(name).map(|(name, _)| *name)).collect())
        .chain(all.keys().map(|name| vec![*name]))
        .filter(|names: &Vec<&String>| !names.is_empty())
        .collect();
    let mut branches = String::new();
    for names in &known {
        let (set, same): (Vec<&str>, Vec<&str>) =
            names.iter().map(|name| &all[*name]).map(|(set, same)| (&**set, &**same)).unzip();
        let words: Vec<String> = names.iter().map(|name| literal(name)).collect();
        let _ = write!(
            branches,
            "\n    ELSIF changed = ARRAY[{}] THEN\n        UPDATE {} AS b SET {} WHERE {} AND {};",
            words.join(", "),
            fitted.sql,
            set.join(", "),
            row("OLD"),
            same.join(" AND ")
        );
    }
    if all.len() > 1 {
        let (set, same): (Vec<String>, Vec<String>) = all
            .keys()
            .filter_map(|name| Some((name, written(fitted, name, "($1)", "($2)")?)))
            .map(|(name, (set, same))| {
                let if_changed = |sql: &str| format!("CASE WHEN {} = ANY (changed) THEN {} END", literal(name), literal(sql));
                (if_changed(&set), if_changed(&same))
            })
            .unzip();
        let _ = write!(
            branches,
            "\n    ELSE\n        EXECUTE {} || concat_ws(', ', {})\n            || {} || concat_ws(' AND ', {}) USING NEW, OLD;",
            literal(&format!("UPDATE {} AS b SET ", fitted.sql)),
            set.join(", "),
            literal(&format!(" WHERE {} AND ", row("($2)"))),
            same.join(", ")
        );
    }
    let differs = |name: &&String| {
        let column = quoted(name);
        format!("CASE WHEN NEW.{column} IS DISTINCT FROM OLD.{column} THEN {} END", literal(name))
    };
    let body = format!(
        "DECLARE
    changed CONSTANT text[] := array_remove(ARRAY[{changed}]::text[], NULL);
    touched bigint;
BEGIN
    IF changed = '{{}}' THEN
        RETURN NEW;{branches}
    END IF;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched = 0 THEN
        IF EXISTS (SELECT FROM {sql} AS b WHERE {row}) THEN
            RAISE EXCEPTION 'a row of {table} was changed meanwhile' USING ERRCODE = 'serialization_failure', HINT = 'It is tried again.';
        END IF;
        RETURN NULL;
    END IF;
    RETURN NEW;
END",
        changed = all.keys().map(differs).collect::<Vec<_>>().join(", "),
        sql = fitted.sql,
        row = row("OLD"),
        table = fitted.table.replace(['\'', '%', '$'], "_")
    );
    trigger(fitted, "update", &format!("a changed row of {}, in its own words", fitted.table), &body)
}
