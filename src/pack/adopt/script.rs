//! The pack's scripts without what is about tables that the application has, or is to do without. Pure.

use super::lex::{Kind, Piece, closes, pieces, solid, statements};
use super::model::{Model, Subject, qualified, subject};
use std::collections::BTreeSet;

/// How functions find a row that is there, where a table is bound: its constraints have other names.
pub struct Clashes<'a> {
    pub model: &'a Model,
    pub bound: &'a dyn Fn(&str) -> bool,
    /// An INSERT goes to a function, which does not hear of ON CONFLICT.
    pub by_function: &'a dyn Fn(&str) -> bool,
    /// Functions that are not made: they name a table that is not there.
    pub without: &'a BTreeSet<String>,
    /// Tables that are not there: views of them are not made either.
    pub absent: &'a dyn Fn(&str) -> bool,
}

/// True if `schema.table` of those that are taken stands in it, also within texts of a DO.
fn names_taken(sql: &str, takes: &dyn Fn(&str) -> bool) -> bool {
    let found = solid(sql);
    (0..found.len())
        .any(|at| qualified(&found, at).is_some_and(|name| takes(&name)) || found[at].literal().is_some_and(|text| takes(&text)))
}

/// Constraints of a CREATE TABLE that lead to a table that is no table of the pack are left out.
fn without_references(statement: &str, takes: &dyn Fn(&str) -> bool) -> String {
    let all = pieces(statement);
    let Some(open) = all.iter().position(|piece| piece.sign('(')) else { return statement.to_owned() };
    let Some(end) = closes(&all, open) else { return statement.to_owned() };
    let text = |pieces: &[Piece<'_>]| pieces.iter().map(|piece| piece.text).collect::<String>();
    let leads = |part: &&[Piece<'_>]| {
        let found: Vec<Piece<'_>> = part.iter().filter(|piece| piece.kind != Kind::Gap).copied().collect();
        let target = found.iter().position(|piece| piece.is("references")).and_then(|at| qualified(&found, at + 1));
        found.first().is_some_and(|piece| piece.is("constraint")) && target.is_some_and(|table| takes(&table))
    };
    let kept: Vec<String> = super::lex::parts(&all[open + 1..end]).into_iter().filter(|part| !leads(part)).map(text).collect();
    format!("{}{}{}", text(&all[..=open]), kept.join(","), text(&all[end..]))
}

/// A DO without those of its IF … END IF that are about such a table.
fn without_branches(statement: &str, takes: &dyn Fn(&str) -> bool) -> String {
    let all = pieces(statement);
    let Some(body) = all.iter().find_map(Piece::body) else { return statement.to_owned() };
    let inner = pieces(body);
    let (mut out, mut branch, mut inside) = (String::new(), String::new(), false);
    let mut before: Option<Piece<'_>> = None;
    let mut ending = false;
    for piece in inner {
        if !inside && piece.is("if") && before.is_none_or(|before| before.sign(';') || before.is("begin")) {
            inside = true;
        }
        if inside {
            branch.push_str(piece.text)
        } else {
            out.push_str(piece.text)
        }
        if piece.kind == Kind::Gap {
            continue;
        }
        ending |= inside && piece.is("if") && before.is_some_and(|before| before.is("end"));
        if ending && piece.sign(';') {
            if !names_taken(&branch, takes) {
                out.push_str(&branch);
            }
            branch.clear();
            (inside, ending) = (false, false);
        }
        before = Some(piece);
    }
    out.push_str(&branch);
    statement.replacen(body, &out, 1)
}

/// A function whose ON CONFLICT names no constraint of a table that is bound.
fn without_constraints(statement: &str, clashes: &Clashes<'_>) -> String {
    let all = pieces(statement);
    let Some(body) = all.iter().find_map(Piece::body) else { return statement.to_owned() };
    let inner = pieces(body);
    let at: Vec<usize> = (0..inner.len()).filter(|at| inner[*at].kind != Kind::Gap).collect();
    let found: Vec<Piece<'_>> = at.iter().map(|at| inner[*at]).collect();
    let mut into: Option<String> = None;
    let (mut out, mut done, mut columns) = (String::new(), 0, false);
    let by_variable = body.contains("#variable_conflict use_variable");
    for nth in 0..found.len() {
        if found[nth].is("into") && nth > 0 && found[nth - 1].is("insert") {
            into = qualified(&found, nth + 1);
        }
        let conflict = found[nth].is("conflict") && nth > 0 && found[nth - 1].is("on");
        let Some(table) = into.as_ref().filter(|table| conflict && (clashes.bound)(table)) else { continue };
        let Some(action) = (nth..found.len()).find(|at| found[*at].is("do")) else { continue };
        let named = found.get(nth + 3).and_then(Piece::name).filter(|_| found[nth + 1].is("on"));
        let key = named.and_then(|name| clashes.model.tables.get(table)?.keys.get(&name));
        let plain = (clashes.by_function)(table) || by_variable;
        if !plain && key.is_none() {
            continue;
        }
        out.extend(inner[done..=at[nth]].iter().map(|piece| piece.text));
        if let (false, Some(key)) = (plain, key) {
            out.push_str(&format!(" ({})", key.join(", ")));
            columns = true;
        }
        out.push(' ');
        done = at[action];
    }
    out.extend(inner[done..].iter().map(|piece| piece.text));
    // A column may be called like an argument. Until now nothing in it was: that would have been an error.
    let asks = columns && !body.contains("#variable_conflict") && statement.to_ascii_lowercase().contains("language plpgsql");
    let new =
        if asks { format!("\n#variable_conflict use_column{}{out}", if out.starts_with('\n') { "" } else { "\n" }) } else { out };
    statement.replacen(body, &new, 1)
}

/// The view that a statement makes, if it is of tables that are not there.
fn view_of_nothing(statement: &str, absent: &dyn Fn(&str) -> bool) -> Option<String> {
    let found = solid(statement);
    let makes = ["create", "or", "replace", "view"].iter().zip(&found).all(|(word, piece)| piece.is(word));
    qualified(&found, 4).filter(|_| makes && names_taken(statement, absent))
}

/// The script for what is left to the pack.
pub fn left(script: &str, takes: &dyn Fn(&str) -> bool, clashes: &Clashes<'_>) -> String {
    let mut out = String::new();
    let nowhere: BTreeSet<String> =
        statements(script).into_iter().filter_map(|statement| view_of_nothing(statement, clashes.absent)).collect();
    for statement in statements(script) {
        match subject(&solid(statement)) {
            Subject::Makes(table) | Subject::Adds(table) | Subject::Calls(table, _) if takes(&table) => {}
            Subject::Function(name) | Subject::Of(name) | Subject::Calls(_, name) if clashes.without.contains(&name) => {}
            Subject::Makes(_) => out.push_str(&without_references(statement, takes)),
            Subject::Do => out.push_str(&without_branches(statement, takes)),
            Subject::Function(_) => out.push_str(&without_constraints(statement, clashes)),
            // A view of nothing, and what is said and granted of it.
            Subject::Other if names_taken(statement, &|name| nowhere.contains(name)) => {}
            Subject::Adds(_) | Subject::Calls(..) | Subject::Of(_) | Subject::Other => out.push_str(statement),
        }
    }
    out
}

#[cfg(test)]
mod unit {
    use super::*;

    fn left_of(script: &str, by_function: bool) -> String {
        let model = Model::read(["CREATE TABLE s.a (id uuid, n integer, CONSTRAINT a_key UNIQUE (id, n));"].into_iter());
        let clashes = Clashes {
            model: &model,
            bound: &|name| name == "s.a",
            by_function: &|_| by_function,
            without: &BTreeSet::from(["s.gone".to_owned()]),
            absent: &|name| name == "s.a",
        };
        left(script, &|name| name == "s.a", &clashes)
    }

    #[test]
    fn what_is_about_a_bound_table_is_left_out() {
        let script = "CREATE TABLE s.a (id uuid); COMMENT ON COLUMN s.a.id IS ';'; CREATE INDEX i ON s.a (id); ALTER TABLE s.a ADD COLUMN b text;
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON s.a FOR EACH ROW EXECUTE FUNCTION s.f(); CREATE INDEX j ON s.b (id);";
        assert_eq!(left_of(script, false).trim(), "CREATE INDEX j ON s.b (id);");
        let views = "CREATE OR REPLACE VIEW s.v AS SELECT FROM s.a; COMMENT ON VIEW s.v IS 'v'; GRANT SELECT ON s.v TO x;
GRANT EXECUTE ON FUNCTION s.gone(text) TO x; CREATE OR REPLACE VIEW s.w AS SELECT FROM s.b; GRANT SELECT ON s.w TO x;";
        assert_eq!(left_of(views, false).trim(), "CREATE OR REPLACE VIEW s.w AS SELECT FROM s.b; GRANT SELECT ON s.w TO x;");
        let table = "CREATE TABLE s.b (id uuid, CONSTRAINT one FOREIGN KEY (id) REFERENCES s.a (id, n) ON DELETE CASCADE, CONSTRAINT two CHECK (id IS NOT NULL));";
        assert_eq!(left_of(table, false), "CREATE TABLE s.b (id uuid, CONSTRAINT two CHECK (id IS NOT NULL));");
        let function = "CREATE OR REPLACE FUNCTION s.gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; REVOKE ALL ON FUNCTION s.gone() FROM PUBLIC;
COMMENT ON FUNCTION s.gone() IS 'x'; CREATE OR REPLACE TRIGGER t BEFORE INSERT ON s.b FOR EACH ROW EXECUTE FUNCTION s.gone();";
        assert_eq!(left_of(function, false), "");
        let block = "DO $x$ BEGIN IF NOT EXISTS (SELECT 1) THEN ALTER TABLE s.b ADD FOREIGN KEY (i) REFERENCES s.a; END IF; IF true THEN PERFORM 1; END IF; END $x$;";
        assert_eq!(left_of(block, false), "DO $x$ BEGIN  IF true THEN PERFORM 1; END IF; END $x$;");
    }

    #[test]
    fn a_function_names_columns_instead_of_a_constraint() {
        let function = |rest: &str| {
            format!(
                "CREATE OR REPLACE FUNCTION s.f(n integer) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s.a AS x (id) VALUES (1) {rest}; END $$;"
            )
        };
        assert_eq!(
            left_of(&function("ON CONFLICT ON CONSTRAINT a_key DO NOTHING"), false),
            function("ON CONFLICT (id, n) DO NOTHING").replace("$$ BEGIN", "$$\n#variable_conflict use_column\n BEGIN")
        );
        assert_eq!(left_of(&function("ON CONFLICT ON CONSTRAINT a_key DO NOTHING"), true), function("ON CONFLICT DO NOTHING"));
        assert_eq!(left_of(&function("ON CONFLICT (id, n) WHERE n > 1 DO NOTHING"), true), function("ON CONFLICT DO NOTHING"));
        assert_eq!(left_of(&function("ON CONFLICT (id, n) DO NOTHING"), false), function("ON CONFLICT (id, n) DO NOTHING"));
    }

    #[test]
    fn other_scripts_stay_as_they_are() {
        for pack in crate::pack::PACKS {
            let model = Model::read(crate::pack::scripts_of(pack));
            let clashes = Clashes {
                model: &model,
                bound: &|_| false,
                by_function: &|_| false,
                without: &BTreeSet::new(),
                absent: &|_| false,
            };
            for script in crate::pack::scripts_of(pack) {
                let kept = left(script, &|_| false, &clashes);
                assert!(script.starts_with(&kept) && script[kept.len()..].trim().is_empty());
            }
        }
    }
}
