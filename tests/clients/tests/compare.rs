//! Comparisons by digests against the full outer join that they stand for, on random tables; under writers, as parallel plans, and cut off.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use usher_clients::{Client, Database, number, page, refused, role, run, text};

/// The same numbers in every run: a red build must be red again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn once_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

/// Types of a column on both sides, and values of it as text. Some are equal and look different, some look alike to hash functions of joins.
const COLUMNS: &[(&str, &str, &[&str])] = &[
    ("integer", "integer", &["0", "1", "-1", "2147483647"]),
    ("integer", "bigint", &["0", "1", "-1", "-2147483648"]),
    ("bigint", "bigint", &["1", "4294967296", "8589934594", "-1", "-4294967297", "4294967297"]),
    ("smallint", "numeric", &["0", "1", "-1", "300"]),
    ("numeric", "numeric", &["0", "1", "-1", "1.0", "1.00", "100", "1e30", "1e-30", "-1e30", "NaN", "Infinity", "-Infinity"]),
    ("numeric(12,2)", "numeric", &["0", "1.50", "-1.50", "1234567.89", "NaN"]),
    ("double precision", "double precision", &["0", "-0", "1.5", "-1.5", "NaN", "Infinity", "-Infinity", "1e-300"]),
    ("real", "double precision", &["0", "-0", "1.5", "NaN", "Infinity", "0.1"]),
    ("text", "text", &["", " ", "a", "a ", "A", "ä", "null", "ab"]),
    ("text", "varchar(9)", &["", "a", "a ", "abc", "äöü"]),
    ("char(5)", "char(9)", &["", "a", "ab", "a b"]),
    ("char(5)", "text", &["", "a", "ab"]),
    ("boolean", "boolean", &["true", "false"]),
    ("uuid", "uuid", &["00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"]),
    ("date", "timestamp", &["2026-01-01", "2026-01-02", "infinity", "0001-01-01 BC"]),
    ("timestamptz", "timestamptz", &["2026-01-01 00:00Z", "2026-01-01 01:00+01", "2026-01-01 00:00:00.000001Z", "-infinity"]),
    ("timetz", "timetz", &["10:00Z", "11:00+01", "10:00:01Z"]),
    ("interval", "interval", &["1 day", "24 hours", "1 mon", "30 days", "-1 day", "0"]),
    (
        "jsonb",
        "jsonb",
        &[r#"{"a": 1}"#, r#"{"a": 1.0}"#, r#"{"a": -1}"#, "[]", "{}", "null", "[1]", "[[1]]", r#""1""#, "1", "true"],
    ),
    ("json", "json", &[r#"{"a": 1}"#, r#"{"a":1}"#, "[]", "null"]),
    ("integer[]", "integer[]", &["{}", "{1,2}", "{{1,2}}", "[0:1]={1,2}", "{NULL}", "{2,1}"]),
    ("integer[]", "bigint[]", &["{}", "{1,2}", "{NULL}", "{2,1}"]),
    ("numeric[]", "numeric[]", &["{1}", "{1.0}", "{-1}", "{}"]),
    ("json[]", "json[]", &["{}", r#"{"{}"}"#, r#"{"[]"}"#]),
    ("bytea", "bytea", &["", "\\x00", "\\x0000", "a"]),
    ("inet", "inet", &["10.0.0.1", "10.0.0.1/24", "::1"]),
    ("int4range", "int4range", &["empty", "[1,2]", "[1,3)", "(,)", "[1,2)"]),
    ("bit varying", "bit varying", &["", "0", "00", "1"]),
    ("point", "point", &["(0,0)", "(0,1)"]),
    ("compared.mood", "compared.mood", &["fine", "sad"]),
    ("compared.amount", "numeric", &["0", "1.0", "1.00", "7"]),
    ("compared.place", "compared.place", &["(1,a)", "(1.0,a)", "(,)", "(1,)", "(-1,a)"]),
    ("name", "text", &["a", "b", ""]),
    ("\"char\"", "\"char\"", &["a", "b"]),
];

/// Types of a key on both sides, and SQL for the value of row `g`.
const KEYS: &[(&str, &str, &str)] = &[
    ("integer", "integer", "g"),
    ("integer", "bigint", "g"),
    ("bigint", "bigint", "g::bigint << 32"),
    ("uuid", "uuid", "md5(g::text)::uuid"),
    ("text", "text", "'key ' || g"),
    ("varchar(20)", "text", "'key ' || g"),
    ("date", "date", "date '2000-01-01' + g"),
    ("numeric", "numeric", "g / 4.0"),
    ("timestamptz", "timestamptz", "timestamptz '2026-01-01' + g * interval '1 s'"),
];

/// A random value of a column, as text; now and then none.
fn any_of(values: &[&str]) -> String {
    let listed: Vec<String> = values.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
    format!("(ARRAY[{}, NULL]::text[])[1 + floor(random() * {})::integer]", listed.join(", "), values.len() + 1)
}

fn long(values: String, dice: &mut Dice) -> String {
    // Beyond what is kept in the row, and beyond what is hashed in one go.
    if dice.once_in(6) { format!("({values}) || repeat('x', floor(random() * 3)::integer * 5000)") } else { values }
}

struct Case {
    keys: Vec<usize>,
    columns: Vec<usize>,
    rows: usize,
    renamed: bool,
}

fn tables(dice: &mut Dice, case: &Case, seed: usize) -> String {
    let mut sql = format!("DROP TABLE IF EXISTS compared.l, compared.r; SELECT setseed({});", seed as f64 / 1000.0);
    let (mut left, mut right, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut values, mut own, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    let last = case.keys.len() - 1;
    for (n, key) in case.keys.iter().enumerate() {
        let (here, there, value) = KEYS[*key];
        left.push(format!("k{n} {here}"));
        right.push(format!("k{n} {there}"));
        keys.push(format!("k{n}"));
        // Only the last one tells rows apart.
        let value = if n == last { value.to_owned() } else { format!("(SELECT {value} FROM (SELECT g % 3) AS x (g))") };
        values.push(value.clone());
        own.push(format!("k{n}"));
        fresh.push(value);
    }
    for (n, column) in case.columns.iter().enumerate() {
        let (here, there, given) = COLUMNS[*column];
        let picked = any_of(given);
        let picked = if here == "text" && there == "text" { long(picked, dice) } else { picked };
        left.push(format!("c{n} {here}"));
        right.push(format!("{} {there}", other(case, n)));
        values.push(format!("({picked})::{here}"));
        own.push(format!("CASE WHEN random() < 0.1 THEN ({picked})::{there} ELSE c{n}::text::{there} END"));
        fresh.push(format!("({picked})::{there}"));
    }
    let key = keys.join(", ");
    let _ = write!(
        sql,
        "CREATE TABLE compared.l ({}, PRIMARY KEY ({key})); CREATE TABLE compared.r ({}, PRIMARY KEY ({key}));
         INSERT INTO compared.l SELECT {} FROM generate_series(1, {}) AS g;",
        left.join(", "),
        right.join(", "),
        values.join(", "),
        case.rows
    );
    let kept = ["1", "0.9", "0.5", "0"][dice.below(4)];
    let more = [0, 0, 3, case.rows][dice.below(4)];
    let exact = dice.once_in(5);
    let own = if exact {
        let same = |n: usize| format!("c{n}::text::{}", COLUMNS[case.columns[n]].1);
        keys.iter().cloned().chain((0..case.columns.len()).map(same)).collect()
    } else {
        own
    };
    let _ = write!(
        sql,
        "INSERT INTO compared.r SELECT {} FROM compared.l WHERE random() < {kept} ORDER BY random();
         INSERT INTO compared.r SELECT {} FROM generate_series({}, {}) AS g; ANALYZE compared.l; ANALYZE compared.r",
        own.join(", "),
        fresh.join(", "),
        case.rows + 1,
        case.rows + more
    );
    sql
}

fn other(case: &Case, n: usize) -> String {
    if case.renamed { format!("d{n}") } else { format!("c{n}") }
}

/// What a full outer join by hand finds.
fn oracle(case: &Case) -> String {
    let keys: Vec<String> = (0..case.keys.len()).map(|n| format!("k{n}")).collect();
    let differs: Vec<String> = case
        .columns
        .iter()
        .enumerate()
        .map(|(n, column)| {
            let (here, there, _) = COLUMNS[*column];
            // What has no equality is equal when its text is.
            let cast = if ["json", "point", "json[]"].contains(&here) { "::text" } else { "" };
            // There is no operator for the two.
            let (own, wide) = if here == "integer[]" { ("::bigint[]", "::bigint[]") } else { (cast, cast) };
            let _ = there;
            format!("l.c{n}{own} IS DISTINCT FROM r.{}{wide}", other(case, n))
        })
        .collect();
    let named: Vec<String> =
        differs.iter().enumerate().map(|(n, differs)| format!("CASE WHEN {differs} THEN 'c{n}' END")).collect();
    let pairs: Vec<String> = keys.iter().map(|key| format!("'{key}', COALESCE(l.{key}, r.{key})")).collect();
    let on: Vec<String> = keys.iter().map(|key| format!("l.{key} = r.{key}")).collect();
    format!(
        "SELECT jsonb_build_object({}) AS key,
                CASE WHEN l.k0 IS NULL THEN 'missing_left' WHEN r.k0 IS NULL THEN 'missing_right' ELSE 'different' END AS finding,
                CASE WHEN l.k0 IS NOT NULL AND r.k0 IS NOT NULL THEN array_remove(ARRAY[{}]::text[], NULL) END AS columns
           FROM compared.l FULL JOIN compared.r ON {} WHERE l.k0 IS NULL OR r.k0 IS NULL OR {}",
        pairs.join(", "),
        named.join(", "),
        on.join(" AND "),
        differs.join(" OR ")
    )
}

fn types(client: &mut Client) {
    run(
        client,
        "CREATE SCHEMA compared; CREATE TYPE compared.mood AS ENUM ('fine', 'sad'); CREATE DOMAIN compared.amount AS numeric CHECK (VALUE >= 0);
         CREATE TYPE compared.place AS (x numeric, name text)",
    );
}

#[test]
fn random_tables_are_compared_as_a_full_join_does() {
    const CASES: usize = 300;
    let database = Database::create("usher_test_compare_random");
    let mut client = database.connect();
    let here = &mut client;
    types(here);
    let mut dice = Dice(0x5eed_0000_0000_0008);
    let (mut equal, mut found, mut met) = (0, 0, vec![0; COLUMNS.len()]);
    for seed in 0..CASES {
        let case = Case {
            keys: (0..=dice.below(3)).map(|_| dice.below(KEYS.len())).collect(),
            columns: (0..=dice.below(6)).map(|_| dice.below(COLUMNS.len())).collect(),
            rows: [0, 1, 30, 300, 3000][dice.below(5)],
            renamed: dice.once_in(3),
        };
        let parallel = dice.once_in(2);
        run(here, &tables(&mut dice, &case, seed));
        let cost = if parallel { 0 } else { 1000 };
        run(
            here,
            &format!(
                "SET parallel_setup_cost = {cost}; SET parallel_tuple_cost = {cost}; SET min_parallel_table_scan_size = {}",
                if parallel { "0" } else { "'8MB'" }
            ),
        );
        let columns = if case.renamed {
            let pairs: Vec<String> = (0..case.columns.len()).map(|n| format!("\"c{n}\": \"d{n}\"")).collect();
            format!(", columns => '{{{}}}'", pairs.join(", "))
        } else {
            String::new()
        };
        run(
            here,
            &format!(
                "DROP TABLE IF EXISTS ours, theirs; CREATE TEMPORARY TABLE theirs AS {};
                 CREATE TEMPORARY TABLE ours AS SELECT key, finding, columns FROM usher.compare_tables('compared.l', 'compared.r'{columns})",
                oracle(&case)
            ),
        );
        let wrong = number(
            here,
            "SELECT count(*) FROM ((TABLE ours EXCEPT ALL TABLE theirs) UNION ALL (TABLE theirs EXCEPT ALL TABLE ours)) AS x",
        );
        let kinds: Vec<(&str, &str)> = case.columns.iter().map(|column| (COLUMNS[*column].0, COLUMNS[*column].1)).collect();
        let keys: Vec<&str> = case.keys.iter().map(|key| KEYS[*key].0).collect();
        assert_eq!(wrong, 0, "case {seed}: keys {keys:?}, columns {kinds:?}, {} rows, parallel {parallel}", case.rows);
        let differences = number(here, "SELECT count(*) FROM theirs");
        found += differences;
        equal += i64::from(differences == 0);
        case.columns.iter().for_each(|column| met[*column] += 1);
    }
    assert!(equal > 10 && found > 1000 && met.iter().all(|times| *times > 0), "{equal} equal, {found} found, {met:?}");
}

/// Each row differs in one column, and by no more than what a hash function of joins does not see.
#[test]
fn values_that_joins_hash_alike_are_told_apart() {
    let database = Database::create("usher_test_compare_alike");
    let mut client = database.connect();
    let here = &mut client;
    for (kind, one, other) in [
        ("numeric", "1", "-1"),
        ("bigint", "1", "4294967296"),
        ("timestamptz", "2000-01-01 00:00:00.000001Z", "2000-01-01 01:11:34.967296Z"),
        ("jsonb", "{\"a\": 1}", "{\"a\": -1}"),
        ("integer[]", "{1,2}", "{{1,2}}"),
        ("numeric", "Infinity", "-Infinity"),
        ("text", "a", "a "),
    ] {
        run(
            here,
            &format!(
                "DROP TABLE IF EXISTS l, r; CREATE TABLE l (id integer PRIMARY KEY, v {kind}); CREATE TABLE r (id integer PRIMARY KEY, v {kind});
                 INSERT INTO l SELECT g, '{one}' FROM generate_series(1, 100) AS g; INSERT INTO r SELECT g, CASE g WHEN 50 THEN '{other}' ELSE '{one}' END::{kind} FROM generate_series(1, 100) AS g"
            ),
        );
        assert_eq!(
            text(
                here,
                "SELECT string_agg(concat_ws(' ', key ->> 'id', finding, columns::text), ', ') FROM usher.compare_tables('l', 'r')"
            ),
            "50 different {v}",
            "{kind}"
        );
    }
}

#[test]
fn what_is_written_meanwhile_is_seen_on_both_sides_or_on_none() {
    let database = Database::create("usher_test_compare_writers");
    let mut client = database.connect();
    let here = &mut client;
    run(
        here,
        "CREATE TABLE l (id integer PRIMARY KEY, v integer); CREATE TABLE r (id integer PRIMARY KEY, v integer); CREATE TABLE mine (n integer);
         INSERT INTO l SELECT g, 0 FROM generate_series(1, 20000) AS g; INSERT INTO r SELECT g, 0 FROM generate_series(1, 20000) AS g",
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = database.connect();
            let mut turn = 0;
            while !stop.load(Ordering::SeqCst) {
                turn += 1;
                let from = turn * 37 % 19000;
                // In one transaction, the other way round every second time.
                let (one, other) = if turn % 2 == 0 { ("l", "r") } else { ("r", "l") };
                run(
                    &mut writer,
                    &format!(
                        "BEGIN; UPDATE {one} SET v = v + 1 WHERE id BETWEEN {from} AND {from} + 50; UPDATE {other} SET v = v + 1 WHERE id BETWEEN {from} AND {from} + 50; COMMIT"
                    ),
                );
            }
        });
        for _ in 0..20 {
            assert_eq!(number(here, "SELECT count(*) FROM usher.compare_tables('l', 'r')"), 0);
            // A transaction that has written itself takes a new snapshot for each of its statements.
            run(here, "BEGIN; INSERT INTO mine VALUES (1)");
            let found = number(here, "SELECT count(*) FROM usher.compare_tables('l', 'r')");
            run(here, "COMMIT");
            assert_eq!(found, 0);
        }
        stop.store(true, Ordering::SeqCst);
    });
    // What the same transaction has written counts.
    run(here, "BEGIN; UPDATE l SET v = -1 WHERE id = 7");
    assert_eq!(text(here, "SELECT key ->> 'id' FROM usher.compare_tables('l', 'r')"), "7");
    run(here, "ROLLBACK");
}

#[test]
fn many_rows_are_compared_in_parallel_and_can_be_cut_off() {
    let database = Database::create("usher_test_compare_many");
    let mut client = database.connect();
    let here = &mut client;
    run(
        here,
        "CREATE TABLE l (id bigint PRIMARY KEY, v text); CREATE TABLE r (id bigint PRIMARY KEY, v text);
         INSERT INTO l SELECT g, 'value ' || g FROM generate_series(1, 300000) AS g; INSERT INTO r SELECT * FROM l ORDER BY md5(v);
         UPDATE r SET v = 'other' WHERE id = 123456; DELETE FROM r WHERE id = 99; DELETE FROM l WHERE id = 299999; ANALYZE l; ANALYZE r",
    );
    let found = "SELECT string_agg(concat_ws(' ', key ->> 'id', finding, left_row ->> 'v', right_row ->> 'v'), ', ') FROM usher.compare_tables('l', 'r')";
    let expected = "99 missing_right value 99, 123456 different value 123456 other, 299999 missing_left value 299999";
    for setting in [
        "max_parallel_workers_per_gather = 0",
        "max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0",
        "work_mem = '64kB'",
    ] {
        run(here, &format!("SET {setting}"));
        assert_eq!(text(here, found), expected, "{setting}");
    }
    // Everything differs: all rows are joined, and go to disk on their way.
    run(here, "SET work_mem = '64kB'; UPDATE r SET v = v || '!'");
    assert_eq!(number(here, "SELECT count(*) FROM usher.compare_tables('l', 'r')"), 300_000);
    run(here, "SET statement_timeout = '20ms'");
    assert_eq!(refused(here, found).code().code(), "57014");
    run(here, "RESET statement_timeout");
    // Nothing of it is left in the session.
    assert_eq!(
        text(here, "SELECT current_setting('row_security') || ' ' || current_setting('search_path')"),
        "on \"$user\", public"
    );
}

/// By such a collation texts with different letters are equal: as values, and as keys that lie in different leaves.
#[test]
fn texts_are_equal_as_their_collation_says() {
    let database = Database::create("usher_test_compare_collations");
    let mut client = database.connect();
    let here = &mut client;
    if number(here, "SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") == 0 {
        eprintln!("this PostgreSQL was built without ICU: nothing to compare by");
        return;
    }
    run(
        here,
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE l (k text COLLATE blind PRIMARY KEY, v text COLLATE blind); CREATE TABLE r (k text COLLATE blind PRIMARY KEY, v text COLLATE blind);
         INSERT INTO l SELECT 'key' || g, 'Value' FROM generate_series(1, 200) AS g; INSERT INTO r SELECT 'KEY' || g, CASE g WHEN 7 THEN 'other' ELSE 'vaLUE' END FROM generate_series(1, 200) AS g",
    );
    assert_eq!(
        text(here, "SELECT string_agg(concat_ws(' ', key ->> 'k', finding), ', ') FROM usher.compare_tables('l', 'r')"),
        "key7 different"
    );
}

/// One row of many that differs, by keys of all kinds that are read back, some of which the caller's session or rights could not write as a text and read again.
#[test]
fn one_row_that_differs_is_named_by_keys_of_any_type() {
    let database = Database::create("usher_test_compare_keys");
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_compares", "LOGIN");
    run(
        here,
        "CREATE SCHEMA hidden; CREATE TYPE hidden.size AS ENUM ('small', 'large'); CREATE DOMAIN public.number AS integer;
         GRANT usher_operator TO clients_compares",
    );
    let mut caller = database.connect_as("clients_compares");
    run(&mut caller, "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Jakarta'");
    for (n, (kind, value)) in [
        ("timestamptz", "timestamptz '2026-01-01 00:00+00' + n * interval '1 hour'"),
        ("date", "date '2026-01-01' + n"),
        ("hidden.size", "(CASE n WHEN 1 THEN 'small' ELSE 'large' END)::hidden.size"),
        ("bigint", "-5000000000 * n"),
        ("public.number", "-n"),
        ("uuid", "md5(n::text)::uuid"),
        ("interval", "n * interval '1 day'"),
        ("text", "'n' || n"),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = if kind == "hidden.size" { 2 } else { 1_000 };
        run(
            here,
            &format!(
                "CREATE TABLE public.a{n} (k {kind} PRIMARY KEY, v integer); INSERT INTO public.a{n} SELECT {value}, 1 FROM generate_series(1, {rows}) AS n;
                 CREATE TABLE public.b{n} (k {kind} PRIMARY KEY, v integer); INSERT INTO public.b{n} TABLE public.a{n};
                 GRANT SELECT ON public.a{n}, public.b{n} TO clients_compares"
            ),
        );
        let found = format!(
            "SELECT concat_ws(' ', count(*), min(finding), bool_and(key -> 'k' = (SELECT to_jsonb(x.k) FROM public.b{n} AS x WHERE x.v IS DISTINCT FROM 1))) FROM usher.compare_tables('public.a{n}', 'public.b{n}')"
        );
        assert_eq!(text(&mut caller, &found), "0", "{kind}");
        run(here, &format!("UPDATE public.b{n} SET v = 2 WHERE k = (SELECT k FROM public.b{n} ORDER BY k LIMIT 1 OFFSET 1)"));
        assert_eq!(text(&mut caller, &found), "1 different t", "{kind}");
        // Two are gone, and one is new: each has a leaf of its own, or they share one.
        run(
            here,
            &format!(
                "DELETE FROM public.b{n} WHERE k IN (SELECT k FROM public.a{n} ORDER BY k LIMIT 2); DELETE FROM public.a{n} WHERE k = (SELECT k FROM public.a{n} ORDER BY k DESC LIMIT 1)"
            ),
        );
        let findings = format!(
            "SELECT string_agg(finding || ' ' || n, ', ' ORDER BY finding) FROM (SELECT finding, count(*) AS n FROM usher.compare_tables('public.a{n}', 'public.b{n}') GROUP BY 1) AS f"
        );
        let expected = if rows == 2 { "missing_right 1" } else { "missing_left 1, missing_right 2" };
        assert_eq!(text(&mut caller, &findings), expected, "{kind}");
    }
}

#[test]
fn the_page_does_what_it_says() {
    let database = Database::create("usher_test_compare_page");
    let mut client = database.connect();
    let here = &mut client;
    let blocks = page::blocks("compare.md");
    assert_eq!(blocks.len(), 3);
    run(here, &blocks[0].sql);
    assert_eq!(
        text(
            here,
            "SELECT string_agg(concat_ws(' ', key ->> 'id', finding, columns::text), ', ') FROM usher.compare_tables('shop.orders', 'books.orders')"
        ),
        "2 different {total}, 3 missing_right, 4 missing_left"
    );
    run(here, &blocks[1].sql);
    run(here, &blocks[2].sql);
    assert_eq!(
        text(here, "SELECT string_agg(concat_ws(' ', key ->> 'order_id', finding), ', ') FROM usher.compare_pair('invoices')"),
        "2 different, 3 missing_right"
    );
}
