//! The house rules for SQL that a machine can check: rights, `search_path`, and that what is public says what it does.
//!
//! What ends in the catalog is asked there (`tests/pg_regress/sql/catalog.sql`); here are the texts, also those that only
//! some installation runs: scripts of packs, migrations, updates.

use std::fs;
use std::path::Path;

fn texts(folder: &str, ending: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(&place).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// One statement: its line, and its words outside of comments, with every quoted text and function body emptied.
struct Statement {
    line: usize,
    words: String,
}

/// Cuts a script into statements. Bodies in quotes or between dollars are emptied, so that nothing in them is taken for SQL
/// of the script; a body between BEGIN ATOMIC and END stays part of its statement.
fn statements(text: &str) -> Vec<Statement> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut begin, mut words, mut found) = (0, 1, 1, String::new(), Vec::new());
    let mut atomic = false;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('\'') {
            words.push_str("''");
            quoted(rest)
        } else if let Some(tag) = dollar_tag(rest) {
            words.push_str("$$");
            rest[tag.len()..].find(tag).map_or(rest.len(), |end| end + 2 * tag.len())
        } else {
            0
        };
        if skipped > 0 {
            line += rest[..skipped].matches('\n').count();
            at += skipped;
            continue;
        }
        let next = rest.chars().next().unwrap();
        at += next.len_utf8();
        line += usize::from(next == '\n');
        if next == ';' {
            let upper = words.to_uppercase();
            atomic = upper.contains("BEGIN ATOMIC") && !upper.trim_end().ends_with("END");
            if !atomic {
                found.push(Statement { line: begin, words: squeeze(&words) });
                words.clear();
                continue;
            }
        }
        if words.trim().is_empty() {
            words.clear();
            begin = line;
        }
        words.push(next);
    }
    assert!(!atomic, "a BEGIN ATOMIC without its END");
    if !words.trim().is_empty() {
        found.push(Statement { line: begin, words: squeeze(&words) });
    }
    found
}

fn quoted(rest: &str) -> usize {
    let mut end = 1;
    while let Some(next) = rest[end..].find('\'') {
        end += next + 1;
        if !rest[end..].starts_with('\'') {
            return end;
        }
        end += 1;
    }
    rest.len()
}

/// `$$` or `$name$`; not `$1`.
fn dollar_tag(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('$')?;
    let end = inner.find('$')?;
    let name = &inner[..end];
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    plain.then(|| &rest[..end + 2])
}

fn squeeze(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// These two read the ledger of batches, which members may not, and show them their own organizations' jobs. The catalog test
/// excepts the same.
fn is_window(upper: &str) -> bool {
    ["READY", "DONE"].iter().any(|jobs| {
        upper.starts_with(&format!(" CREATE OR REPLACE VIEW USHER.VISIBLE_{jobs}_JOBS WITH (SECURITY_BARRIER = TRUE) AS "))
    })
}

/// What a script may not contain, each with the rule that it breaks.
fn broken_rules(text: &str) -> Vec<(usize, &'static str)> {
    let mut broken = Vec::new();
    for Statement { line, words } in statements(text) {
        let upper = format!(" {} ", words.to_uppercase());
        let mut rule = |holds: bool, rule| {
            if !holds {
                broken.push((line, rule));
            }
        };
        if upper.starts_with(" GRANT ") {
            rule(!upper.contains(" TO PUBLIC "), "nothing is granted to PUBLIC");
            rule(!upper.contains(" WITH GRANT OPTION "), "nobody hands rights on");
        }
        if upper.starts_with(" ALTER DEFAULT PRIVILEGES ") {
            rule(false, "default privileges belong to the database's own people");
        }
        let function =
            [" CREATE FUNCTION ", " CREATE OR REPLACE FUNCTION ", " CREATE PROCEDURE ", " CREATE OR REPLACE PROCEDURE "]
                .iter()
                .any(|start| upper.starts_with(start));
        if function {
            let pinned = upper.contains(" SET SEARCH_PATH = PG_CATALOG, PG_TEMP ")
                || (upper.contains(" SET SEARCH_PATH = PG_CATALOG, ") && upper.contains(", PG_TEMP "))
                // as pg_get_functiondef writes it into an update script: a list of quoted names
                || (upper.contains(" SET SEARCH_PATH TO '', '' "));
            let body_found_its_names = upper.contains(" BEGIN ATOMIC ") || upper.contains(" RETURN ");
            let c = upper.contains(" LANGUAGE C ");
            rule(
                pinned || !upper.contains(" SECURITY DEFINER "),
                "SECURITY DEFINER pins its search_path to pg_catalog, …, pg_temp",
            );
            rule(
                pinned || body_found_its_names || c,
                "a function with a body in a string pins its search_path to pg_catalog, …, pg_temp",
            );
        }
        if upper.starts_with(" CREATE VIEW ") || upper.starts_with(" CREATE OR REPLACE VIEW ") {
            rule(
                upper.contains("(SECURITY_INVOKER = TRUE") || is_window(&upper),
                "a view has its reader's rights: WITH (security_invoker = true)",
            );
        }
        if upper.starts_with(" CREATE POLICY ") {
            rule(upper.contains(" TO ") && !upper.contains(" TO PUBLIC"), "a policy names its roles");
        }
        rule(!upper.contains(" BYPASSRLS") || upper.contains(" NOBYPASSRLS"), "no role passes by row level security");
    }
    broken
}

#[test]
fn scripts_keep_the_house_rules() {
    let mut wrong = Vec::new();
    let scripts = texts("sql", "sql");
    assert!(scripts.len() > 5, "the scripts are in sql/");
    for (name, text) in scripts {
        wrong.extend(broken_rules(&text).into_iter().map(|(line, rule)| format!("{name}:{line}: {rule}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_is_told_when_it_is_broken() {
    let told = |sql: &str| {
        broken_rules(sql).into_iter().map(|(line, rule)| format!("{line} {}", &rule[..12])).collect::<Vec<_>>().join("; ")
    };
    for (sql, wanted) in [
        ("GRANT SELECT ON a TO usher_member;\nGRANT SELECT ON a TO public;", "2 nothing is g"),
        ("-- GRANT SELECT ON a TO PUBLIC;\n/* GRANT x TO PUBLIC; */ SELECT 'GRANT x TO PUBLIC; ''; GRANT x TO PUBLIC';", ""),
        ("GRANT a TO b WITH GRANT OPTION", "1 nobody hands"),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA usher GRANT SELECT ON TABLES TO a;", "1 default priv"),
        ("CREATE FUNCTION a() RETURNS void LANGUAGE plpgsql AS $$ BEGIN; END $$;", "1 a function w"),
        ("CREATE FUNCTION a() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $x$ BEGIN; $$ END $x$;", ""),
        (
            "CREATE FUNCTION a() RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$ SET search_path = pg_catalog, pg_temp $$;",
            "1 a function w",
        ),
        ("CREATE FUNCTION a() RETURNS int LANGUAGE sql AS 'SELECT 1';", "1 a function w"),
        ("CREATE FUNCTION a() RETURNS int LANGUAGE sql RETURN 1;", ""),
        (
            "\n\nCREATE FUNCTION a() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; GRANT a TO PUBLIC;",
            "3 nothing is g",
        ),
        ("CREATE FUNCTION a() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1;", "1 SECURITY DEF"),
        ("CREATE FUNCTION a(x int) RETURNS int LANGUAGE c AS 'b', 'c'", ""),
        ("CREATE VIEW v AS SELECT 1;", "1 a view has i"),
        ("CREATE VIEW v WITH (security_invoker = true) AS SELECT 1;", ""),
        ("CREATE OR REPLACE VIEW v WITH (security_barrier = true) AS SELECT 1;", "1 a view has i"),
        ("CREATE OR REPLACE VIEW usher.visible_done_jobs WITH (security_barrier = true) AS SELECT 1;", ""),
        ("CREATE OR REPLACE VIEW usher.visible_done_jobs AS SELECT 1;", "1 a view has i"),
        ("CREATE OR REPLACE VIEW usher.visible_done_jobs_too WITH (security_barrier = true) AS SELECT 1;", "1 a view has i"),
        ("CREATE POLICY p ON t USING (true);", "1 a policy nam"),
        ("CREATE POLICY p ON t FOR SELECT TO usher_reader USING (true);", ""),
        ("CREATE ROLE a BYPASSRLS;", "1 no role pass"),
    ] {
        assert_eq!(told(sql), wanted, "{sql}");
    }
}

/// The grants are given by name (`sql/99_grants.sql`): a function that is in no list there is for nobody, which is what the
/// catalog test says, or it is meant so and says "internal".
#[test]
fn what_is_called_from_sql_is_documented_in_rust() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, text) in texts("src", "rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if !(line.trim_start().starts_with("#[pg_extern") || line.trim_start().starts_with("#[pg_trigger")) {
                continue;
            }
            seen += 1;
            // Over the attributes, upwards.
            let mut above = at;
            while above > 0 && (lines[above - 1].trim_start().starts_with("#[") || lines[above - 1].trim() == ")]") {
                above -= 1;
            }
            if above == 0 || !lines[above - 1].trim_start().starts_with("///") {
                wrong.push(format!("{name}:{}", at + 1));
            }
        }
    }
    assert!(seen > 20, "only {seen} functions found");
    assert!(wrong.is_empty(), "functions without a doc comment: {wrong:#?}");
}

#[test]
fn every_room_says_what_it_owns() {
    let mut wrong = Vec::new();
    for (name, text) in texts("src", "rs") {
        let entrance = name.ends_with("/mod.rs") || name == "src/lib.rs";
        if !text.starts_with("//! ") && (entrance || !name.ends_with("_tests.rs")) {
            wrong.push(name);
        } else if entrance && text.lines().take_while(|line| line.starts_with("//!")).map(str::len).sum::<usize>() < 80 {
            wrong.push(format!("{name}: a word is not enough"));
        }
    }
    assert!(wrong.is_empty(), "files that do not begin with what they are for: {wrong:#?}");
}
