//! The statements of an overlap rule.
//!
//! Rows are known by their organization and key. `rows()` reads a table, or what a statement has changed, as `org`, `k0`… (the key),
//! `q0`… (the resource) and `p` (the period); everything else is about rows in that form. What has no period, an empty one or one
//! that ends before it begins overlaps with nothing.

use super::fit::{Fitted, Held};
use crate::registry::tables::{Column, Table};
use crate::setup::Installed;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};

/// Rows of one statement that are looked at in the writer's transaction; what changes more is left to a worker.
pub const MOST_IN_WRITER: i64 = 5_000;

/// The statements of one rule.
pub struct Form<'a> {
    pub id: i32,
    pub name: &'a str,
    pub fitted: &'a Fitted,
    pub installed: Installed,
}

fn column<'a>(table: &'a Table, name: &str) -> Option<&'a Column> {
    table.column(name)
}

/// A value for JSON that is the same in every session.
fn json(column: Option<&Column>, value: &str) -> String {
    if column.is_some_and(|column| column.type_oid == pg_sys::TIMESTAMPTZOID) { utc(value) } else { value.to_owned() }
}

fn utc(value: &str) -> String {
    format!("pg_catalog.to_char(pg_catalog.timezone('UTC', {value}), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let list: Vec<String> = fields.map(|(name, value)| format!("{}, {value}", quote_literal(name))).collect();
    format!("pg_catalog.jsonb_build_object({})", list.join(", "))
}

fn list(count: usize, make: impl Fn(usize) -> String) -> String {
    (0..count).map(make).collect::<Vec<_>>().join(", ")
}

fn all(count: usize, make: impl Fn(usize) -> String) -> String {
    (0..count).map(make).collect::<Vec<_>>().join(" AND ")
}

impl Form<'_> {
    fn table(&self) -> &Table {
        &self.fitted.table
    }

    fn keys(&self) -> Vec<&str> {
        self.table().own_key()
    }

    fn resource(&self) -> &[String] {
        &self.fitted.definition.resource
    }

    fn organization(&self, table: &Table) -> String {
        if table.has_organization() {
            "r.organization_id".to_owned()
        } else {
            format!("{}::uuid", quote_literal(self.installed.default_organization.to_string()))
        }
    }

    fn period(&self) -> String {
        match &self.fitted.period {
            Held::Range(name) => format!("r.{}", quote_identifier(name)),
            // Made only of what makes a range: the function refuses an end before the beginning.
            Held::Between(from, to, range) => {
                let (from, to) = (quote_identifier(from), quote_identifier(to));
                format!(
                    "CASE WHEN r.{from} <= r.{to} OR r.{to} IS NULL AND r.{from} IS NOT NULL THEN pg_catalog.{range}(r.{from}, r.{to}) END"
                )
            }
        }
    }

    /// Rows of a relation with the columns of the table, about which the rule is.
    fn rows(&self, relation: &str, more: &str) -> String {
        let keys = self.keys();
        let key = list(keys.len(), |n| format!("r.{} AS k{n}", quote_identifier(keys[n])));
        let taken = list(self.resource().len(), |n| format!("r.{} AS q{n}", quote_identifier(&self.resource()[n])));
        let there = all(self.resource().len(), |n| format!("r.{} IS NOT NULL", quote_identifier(&self.resource()[n])));
        let period = self.period();
        let condition = match &self.fitted.definition.condition {
            Some(condition) => format!(" AND ({condition}\n)"),
            None => String::new(),
        };
        let organization = self.organization(self.table());
        format!(
            "SELECT {organization} AS org, {key}, {taken}, {period} AS p FROM {relation} AS r{more}
              WHERE {organization} IS NOT NULL AND {there} AND NOT pg_catalog.isempty({period}){condition}"
        )
    }

    /// Rows of the table that `which` means, for each row that it names. OFFSET keeps the planner from reading the whole table for
    /// the few rows that are meant: whatever it reckons, each is looked up by an index, if there is one.
    fn beside(&self, which: &str) -> String {
        format!("CROSS JOIN LATERAL ({} AND {which} OFFSET 0)", self.rows(&self.table().sql, ""))
    }

    /// The rows of the table that overlap with `a`.
    fn others(&self) -> String {
        let taken = all(self.resource().len(), |n| format!("r.{} = a.q{n}", quote_identifier(&self.resource()[n])));
        self.beside(&format!("{} = a.org AND {taken} AND {} && a.p", self.organization(self.table()), self.period()))
    }

    /// The key as JSON, from columns that begin with `prefix`.
    fn key(&self, prefix: &str) -> String {
        let keys = self.keys();
        object((0..keys.len()).map(|n| (keys[n].to_owned(), json(column(self.table(), keys[n]), &format!("{prefix}{n}")))))
    }

    /// `a` before `b`, in an order that no collation changes.
    fn before(&self, a: &str, b: &str) -> String {
        let keys = self.keys();
        let side = |prefix: &str| {
            let collatable =
                |n: usize| column(self.table(), keys[n]).is_some_and(|column| column.collation != pg_sys::Oid::INVALID);
            list(keys.len(), |n| format!("{prefix}{n}{}", if collatable(n) { " COLLATE pg_catalog.\"C\"" } else { "" }))
        };
        format!("ROW({}) < ROW({})", side(a), side(b))
    }

    /// The ends of a period are of the type of its columns.
    fn bound(&self, which: &str, period: &str) -> String {
        let value = format!("pg_catalog.{which}({period})");
        let zoned = match &self.fitted.period {
            Held::Between(_, _, range) => *range == "tstzrange",
            Held::Range(name) => column(self.table(), name).is_some_and(|column| column.type_oid == pg_sys::TSTZRANGEOID),
        };
        if zoned { utc(&value) } else { value }
    }

    /// What a row takes, and when.
    fn facts(&self, period: &str) -> String {
        let taken = object(
            self.resource()
                .iter()
                .enumerate()
                .map(|(n, name)| (name.clone(), json(column(self.table(), name), &format!("s.q{n}")))),
        );
        let (from, to) = (self.bound("lower", period), self.bound("upper", period));
        let plain = format!("pg_catalog.jsonb_build_object('resource', {taken}, 'from', {from}, 'to', {to})");
        if matches!(self.fitted.period, Held::Between(..)) {
            return plain;
        }
        // Only a range can be written with other bounds than those.
        format!(
            "({plain} || CASE WHEN (pg_catalog.lower_inc({period}) OR pg_catalog.lower_inf({period})) AND NOT pg_catalog.upper_inc({period}) THEN '{{}}'::jsonb
                ELSE pg_catalog.jsonb_build_object('bounds', CASE WHEN pg_catalog.lower_inc({period}) THEN '[' ELSE '(' END || CASE WHEN pg_catalog.upper_inc({period}) THEN ']' ELSE ')' END) END)"
        )
    }

    fn message(&self) -> String {
        let keys = self.keys();
        let named = |prefix: &str| {
            let parts = list(keys.len(), |n| {
                format!(
                    "{} || {}",
                    quote_literal(format!("{} ", keys[n])),
                    self.text(column(self.table(), keys[n]), &format!("s.{prefix}{n}"))
                )
            });
            format!("pg_catalog.concat_ws(', ', {parts})")
        };
        let taken = list(self.resource().len(), |n| {
            let name = &self.resource()[n];
            format!("{} || {}", quote_literal(format!("{name} ")), self.text(column(self.table(), name), &format!("s.q{n}")))
        });
        let both = "(s.lp * s.rp)";
        let end = |which: &str, none: &str| {
            let value = format!("pg_catalog.{which}({both})");
            let zoned = self.bound(which, both) != value;
            let shown = if zoned {
                format!("pg_catalog.to_char(pg_catalog.timezone('UTC', {value}), 'YYYY-MM-DD HH24:MI:SS \"UTC\"')")
            } else {
                format!("(pg_catalog.to_jsonb({value}) #>> '{{}}')")
            };
            format!("COALESCE({shown}, '{none}')")
        };
        format!(
            "pg_catalog.format('%s: %s and %s have the same %s from %s to %s', {}, {}, {}, pg_catalog.concat_ws(', ', {taken}), {}, {})",
            quote_literal(&self.table().name),
            named("l"),
            named("r"),
            end("lower", "the beginning"),
            end("upper", "the end")
        )
    }

    fn text(&self, column: Option<&Column>, value: &str) -> String {
        format!("(pg_catalog.to_jsonb({}) #>> '{{}}')", json(column, value))
    }

    /// Pairs of rows that overlap, `a` and `b` of `from`: the row whose key comes first on the left.
    fn pairs(&self, from: &str) -> String {
        let (keys, taken) = (self.keys().len(), self.resource().len());
        let either = |a: &str, b: &str, name: &str| format!("CASE WHEN c.a_first THEN c.{a} ELSE c.{b} END AS {name}");
        format!(
            "SELECT c.org, {}, {}, {}, {}, {}
               FROM (SELECT a.org, {}, {}, {}, a.p AS ap, b.p AS bp, {} AS a_first FROM {from}) AS c",
            list(taken, |n| format!("c.q{n}")),
            list(keys, |n| either(&format!("a{n}"), &format!("b{n}"), &format!("l{n}"))),
            list(keys, |n| either(&format!("b{n}"), &format!("a{n}"), &format!("r{n}"))),
            either("ap", "bp", "lp"),
            either("bp", "ap", "rp"),
            list(taken, |n| format!("a.q{n}")),
            list(keys, |n| format!("a.k{n} AS a{n}")),
            list(keys, |n| format!("b.k{n} AS b{n}")),
            self.before("a.k", "b.k"),
        )
    }

    /// `a` and `b` are one row.
    fn same(&self) -> String {
        all(self.keys().len(), |n| format!("b.k{n} = a.k{n}"))
    }

    /// Pairs as conflicts will have them.
    fn found(&self, pairs: &str) -> String {
        let taken = self.resource().len();
        format!(
            "SELECT s.org, {}, s.lp, s.rp, {} AS left_key, {} AS right_key, {} AS ours, {} AS theirs, {} AS message,
                    {} || pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({}::text || ' ' || {}::text, 'UTF8')), 'hex'), 1, 32) AS subject
               FROM ({pairs}) AS s",
            list(taken, |n| format!("s.q{n}")),
            self.key("s.l"),
            self.key("s.r"),
            self.facts("s.lp"),
            self.facts("s.rp"),
            self.message(),
            quote_literal(format!("overlap {} ", self.name)),
            self.key("s.l"),
            self.key("s.r"),
        )
    }

    /// Free resources for the row with this period.
    fn free(&self, period: &str) -> Option<String> {
        let free = self.fitted.free.as_ref()?;
        let key = quote_identifier(&free.given.key);
        let organization = self.organization(&free.table);
        let condition = free.given.condition.as_ref().map(|text| format!(" AND ({text}\n)")).unwrap_or_default();
        let own = if free.table.has_organization() { " AND o.organization_id = f.org" } else { "" };
        let same = if free.given.same.is_empty() {
            String::new()
        } else {
            let equal: Vec<String> =
                free.given.same.iter().map(|name| format!("o.{0} IS NOT DISTINCT FROM r.{0}", quote_identifier(name))).collect();
            format!(" AND EXISTS (SELECT FROM {} AS o WHERE o.{key} = f.q0{own} AND {})", free.table.sql, equal.join(" AND "))
        };
        Some(format!(
            "(SELECT COALESCE(pg_catalog.jsonb_agg(v.free ORDER BY v.n), '[]'::jsonb)
                FROM (SELECT {} AS free, pg_catalog.row_number() OVER (ORDER BY r.{key}) AS n FROM {} AS r
                       WHERE {organization} = f.org AND r.{key} <> f.q0{same}{condition}
                         AND NOT EXISTS (SELECT FROM ({}) AS b WHERE b.org = f.org AND b.q0 = r.{key} AND b.p && f.{period} OFFSET 0)
                       ORDER BY r.{key} LIMIT {}) AS v)",
            json(column(&free.table, &free.given.key), &format!("r.{key}")),
            free.table.sql,
            self.rows(&self.table().sql, ""),
            free.given.most
        ))
    }

    fn alternatives(&self) -> String {
        match (self.free("lp"), self.free("rp")) {
            (Some(left), Some(right)) => format!("pg_catalog.jsonb_build_object('left', {left}, 'right', {right})"),
            _ => "NULL::jsonb".to_owned(),
        }
    }

    /// From pairs that were found, `found`, and conflicts that stood, `standing`, to what is written. Nobody waits for a conflict that an
    /// open transaction has changed: it is left as it is, and said so. Says how many were raised, how many are gone, how many are
    /// there and how many had to be left.
    fn settle(&self, bump: bool) -> String {
        let definition = &self.fitted.definition;
        let mut fields: Vec<String> = self.resource().iter().map(quote_literal).collect();
        match &self.fitted.period {
            Held::Range(name) => fields.push(quote_literal(name)),
            Held::Between(from, to, _) => fields.extend([quote_literal(from), quote_literal(to)]),
        }
        let (name, table) = (quote_literal(self.name), quote_literal(&self.table().name));
        let escalate = match definition.escalate_after {
            Some(seconds) => format!("pg_catalog.clock_timestamp() + {seconds} * '1 second'::interval"),
            None => "NULL::timestamptz".to_owned(),
        };
        let seen = if bump {
            ", again AS MATERIALIZED (
                SELECT c.organization_id, c.id FROM usher.conflicts AS c
                 WHERE c.id = ANY (ARRAY(SELECT o.id FROM old AS o WHERE NOT o.changed)) AND c.state = 'open' FOR UPDATE SKIP LOCKED),
              seen AS (
                UPDATE usher.conflicts AS c SET last_seen_at = pg_catalog.clock_timestamp(), times_seen = c.times_seen + 1
                  FROM again AS a WHERE c.organization_id = a.organization_id AND c.id = a.id)"
        } else {
            ""
        };
        format!(
            "ending AS MATERIALIZED (
                SELECT s.organization_id, s.id, s.state FROM standing AS s LEFT JOIN found AS f ON f.org = s.organization_id AND f.subject = s.subject
                 WHERE f.subject IS NULL OR s.state = 'resolved' AND (f.ours <> s.ours OR f.theirs <> s.theirs)),
             old AS MATERIALIZED (
                SELECT f.org, f.subject, c.id, f.ours <> c.ours OR f.theirs <> c.theirs AS changed
                  FROM found AS f
                 CROSS JOIN LATERAL (SELECT * FROM usher.conflicts AS k WHERE k.organization_id = f.org AND k.subject = f.subject AND k.state = 'open' OFFSET 0) AS c),
             held AS MATERIALIZED (
                SELECT c.organization_id, c.id, c.state FROM usher.conflicts AS c
                 WHERE c.id = ANY (ARRAY(SELECT e.id FROM ending AS e UNION ALL SELECT o.id FROM old AS o WHERE o.changed))
                   AND (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept')
                   FOR UPDATE SKIP LOCKED),
             ended AS (
                UPDATE usher.conflicts AS c SET state = 'gone', last_seen_at = pg_catalog.clock_timestamp()
                  FROM held AS h
                 WHERE c.organization_id = h.organization_id AND c.id = h.id AND h.id = ANY (ARRAY(SELECT e.id FROM ending AS e))
                RETURNING c.id, h.state),
             fresh AS (
                SELECT f.* FROM found AS f LEFT JOIN old AS o ON o.org = f.org AND o.subject = f.subject
                 WHERE CASE WHEN o.id IS NOT NULL THEN o.changed AND EXISTS (SELECT FROM held AS h WHERE h.organization_id = o.org AND h.id = o.id)
                            ELSE NOT EXISTS (SELECT FROM usher.conflicts AS c WHERE c.organization_id = f.org AND c.subject = f.subject
                                                AND c.state = 'resolved' AND c.decision = 'accept' AND c.ours = f.ours AND c.theirs = f.theirs) END),
             raised AS (
                INSERT INTO usher.conflicts AS c (organization_id, id, kind, severity, subject, rule, left_table, left_key, right_table, right_key,
                       fields, ours, theirs, alternatives, message, escalate_at)
                SELECT f.org, usher.uuid_v7(), 'timing_conflict', '{}', f.subject, {name}, {table}, f.left_key, {table}, f.right_key,
                       ARRAY[{}]::text[], f.ours, f.theirs, {}, f.message, {escalate}
                  FROM fresh AS f ORDER BY f.org, f.subject
                ON CONFLICT (organization_id, subject) WHERE state = 'open' DO UPDATE
                   SET ours = EXCLUDED.ours, theirs = EXCLUDED.theirs, alternatives = EXCLUDED.alternatives, message = EXCLUDED.message,
                       last_seen_at = EXCLUDED.last_seen_at, times_seen = c.times_seen + 1
                RETURNING c.xmax = 0 AS made){seen}
             SELECT (SELECT pg_catalog.count(*) FROM raised AS x WHERE x.made), (SELECT pg_catalog.count(*) FROM ended AS e WHERE e.state = 'open'),
                    (SELECT pg_catalog.count(*) FROM found),
                    (SELECT pg_catalog.count(*) FROM ending) + (SELECT pg_catalog.count(*) FROM old AS o WHERE o.changed) - (SELECT pg_catalog.count(*) FROM held)",
            definition.severity,
            fields.join(", "),
            self.alternatives(),
        )
    }

    /// Conflicts of the rule that an end or another form of the overlap would end.
    const STANDING: &'static str =
        "SELECT c.organization_id, c.id, c.subject, c.state, c.ours, c.theirs FROM usher.conflicts AS c
              WHERE (c.state = 'open' OR c.state = 'resolved' AND c.decision = 'accept') AND c.rule = ";

    /// The rows that were written down in checks, `$1` their organizations and `$2` their ids, as they are now: `t` their keys, `came`
    /// those that the rule is about.
    fn checked(&self) -> String {
        let keys = self.keys();
        let equal = all(keys.len(), |n| {
            let base = column(self.table(), keys[n]).map_or("text", |column| column.base_sql.as_str());
            format!("r.{} = (t.key ->> {})::{base}", quote_identifier(keys[n]), quote_literal(keys[n]))
        });
        let organization = self.organization(self.table());
        format!(
            "t AS MATERIALIZED (
                SELECT DISTINCT c.organization_id AS org, k.value AS key
                  FROM ROWS FROM (pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::uuid[])) AS i (org, id)
                  JOIN usher.overlap_checks AS c ON c.organization_id = i.org AND c.id = i.id
                 CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(c.row_keys) AS k (value)),
             came AS MATERIALIZED ({})",
            format_args!("SELECT x.* FROM t {} AS x", self.beside(&format!("{organization} = t.org AND {equal}")))
        )
    }

    /// Looks at the rows of checks: `$1` and `$2` as above.
    pub fn look(&self) -> String {
        let standing = |side: &str| {
            format!(
                "SELECT x.* FROM t CROSS JOIN LATERAL ({}{} AND c.organization_id = t.org AND c.{side}_key = t.key OFFSET 0) AS x",
                Self::STANDING,
                quote_literal(self.name)
            )
        };
        // Both rows of a pair may be among them.
        let pairs = self.pairs(&format!("came AS a {} AS b WHERE NOT ({})", self.others(), self.same()));
        format!(
            "/* {} */ WITH {}, found AS MATERIALIZED ({}), standing AS MATERIALIZED ({} UNION {}), {}",
            self.table().oid.to_u32(),
            self.checked(),
            self.found(&pairs.replacen("SELECT", "SELECT DISTINCT", 1)),
            standing("left"),
            standing("right"),
            self.settle(false),
        )
    }

    /// Looks at all rows. Of one resource the rows are numbered in the order of their beginnings; how many have begun when one ends says
    /// which of those behind it can overlap with it. So no more rows are compared than overlap, however many there are; OFFSET keeps
    /// the planner from comparing all rows of a resource first.
    pub fn sweep(&self) -> String {
        let (keys, taken) = (self.keys().len(), self.resource().len());
        let key = list(keys, |n| format!("x.k{n}"));
        let columns = format!("x.org, {key}, {}, x.p", list(taken, |n| format!("x.q{n}")));
        let one = format!("x.org, {}", list(taken, |n| format!("x.q{n}")));
        let pairs = self.pairs(&format!(
            "(SELECT s.*, g.next FROM spans AS s CROSS JOIN LATERAL pg_catalog.generate_series(s.began + 1, s.begun) AS g (next) OFFSET 0) AS a
             JOIN spans AS b ON b.org = a.org AND {} AND b.began = a.next WHERE b.p && a.p",
            all(taken, |n| format!("b.q{n} = a.q{n}")),
        ));
        format!(
            "/* {} */ WITH ends AS (
                SELECT {columns}, e.kind,
                       pg_catalog.count(*) FILTER (WHERE e.kind = 1) OVER (PARTITION BY {one} ORDER BY e.side, e.at, e.kind, {key} ROWS UNBOUNDED PRECEDING) AS begun
                  FROM ({}) AS x
                 -- What begins without a beginning comes first, what ends without an end last; at one moment ends come before beginnings,
                 -- unless they include it.
                 CROSS JOIN LATERAL (VALUES
                    (CASE WHEN pg_catalog.lower_inf(x.p) THEN 0 ELSE 1 END, pg_catalog.lower(x.p), 1),
                    (CASE WHEN pg_catalog.upper_inf(x.p) THEN 2 ELSE 1 END, pg_catalog.upper(x.p), CASE WHEN pg_catalog.upper_inc(x.p) THEN 2 ELSE 0 END)) AS e (side, at, kind)),
             spans AS MATERIALIZED (
                SELECT {columns}, pg_catalog.max(x.begun) FILTER (WHERE x.kind = 1) AS began, pg_catalog.max(x.begun) FILTER (WHERE x.kind <> 1) AS begun
                  FROM ends AS x GROUP BY {columns}),
             found AS MATERIALIZED ({}),
             standing AS MATERIALIZED ({}{}),
             {}",
            self.table().oid.to_u32(),
            self.rows(&self.table().sql, ""),
            self.found(&pairs),
            Self::STANDING,
            quote_literal(self.name),
            self.settle(true),
        )
    }

    /// From the changed rows of one statement to checks: those that have come, gone, or changed in what the rule is about. Returns
    /// organizations and ids of the checks, and whether there were too many to name them. A rule that refuses names them all. The
    /// relation that has changed, which may be a partition, in front: a plan belongs to one order of columns.
    pub fn note(&self, relation: u32, new: bool, old: bool) -> String {
        let most = if self.fitted.definition.refuse { i64::MAX } else { MOST_IN_WRITER };
        let (n, o) = (self.rows("usher_new", ""), self.rows("usher_old", ""));
        let (keys, taken) = (self.keys().len(), self.resource().len());
        let key = list(keys, |n| format!("x.k{n}"));
        let touched = match (new, old) {
            (true, true) => {
                let columns = format!("x.org, {key}, {}, x.p", list(taken, |n| format!("x.q{n}")));
                let less = |a: &str, b: &str| format!("SELECT {columns} FROM ({a}) AS x EXCEPT SELECT {columns} FROM ({b}) AS x");
                format!("SELECT x.org, {key} FROM ({}) AS x UNION SELECT x.org, {key} FROM ({}) AS x", less(&n, &o), less(&o, &n))
            }
            (true, false) => format!("SELECT x.org, {key} FROM ({n}) AS x"),
            _ => format!("SELECT x.org, {key} FROM ({o}) AS x"),
        };
        format!(
            "/* {} */ WITH t AS MATERIALIZED ({touched}), n AS (SELECT pg_catalog.count(*) AS rows FROM t),
             made AS (
                INSERT INTO usher.overlap_checks (organization_id, id, rule_id, row_keys)
                SELECT x.org, usher.uuid_v7(), {id}, pg_catalog.jsonb_agg({}) FROM t AS x WHERE (SELECT n.rows FROM n) <= {most} GROUP BY x.org
                UNION ALL
                SELECT '{NOBODY}'::uuid, usher.uuid_v7(), {id}, NULL FROM n WHERE n.rows > {most}
                RETURNING organization_id, id, row_keys IS NULL AS whole)
             SELECT pg_catalog.array_agg(m.organization_id), pg_catalog.array_agg(m.id), pg_catalog.bool_or(m.whole) FROM made AS m",
            relation,
            self.key("x.k"),
            id = self.id,
        )
    }

    /// Whether the rows of a conflict, `$1` its organization and `$2` its id, overlap.
    pub fn still(&self) -> String {
        let keys = self.keys();
        let equal = |side: &str| {
            all(keys.len(), |n| {
                let base = column(self.table(), keys[n]).map_or("text", |column| column.base_sql.as_str());
                format!("r.{} = (c.{side}_key ->> {})::{base}", quote_identifier(keys[n]), quote_literal(keys[n]))
            })
        };
        let organization = self.organization(self.table());
        let row = |side: &str| {
            let more = format!(
                " JOIN usher.conflicts AS c ON c.organization_id = $1 AND c.id = $2 AND {organization} = $1 AND {}",
                equal(side)
            );
            self.rows(&self.table().sql, &more)
        };
        format!(
            "/* {} */ SELECT EXISTS (SELECT FROM ({}) AS a JOIN ({}) AS b ON b.p && a.p AND {})",
            self.table().oid.to_u32(),
            row("left"),
            row("right"),
            all(self.resource().len(), |n| format!("b.q{n} = a.q{n}"))
        )
    }

    /// The resources of the rows of checks, each as a number: the same for what is equal, however it is written. A record's hash knows
    /// the collation of its columns' types, a text's that of the column.
    pub fn resources(&self) -> String {
        let taken = list(self.resource().len(), |n| {
            let base = column(self.table(), &self.resource()[n]).map_or("", |column| column.base_sql.as_str());
            match base {
                "text" | "character varying" => format!("pg_catalog.hashtextextended(x.q{n}, 0)"),
                "character" | "bpchar" => format!("pg_catalog.hashbpcharextended(x.q{n}, 0)"),
                _ => format!("x.q{n}"),
            }
        });
        format!(
            "/* {} */ WITH {} SELECT pg_catalog.array_agg(DISTINCT pg_catalog.hash_record_extended(ROW(x.org, {taken}), 0)) FROM came AS x",
            self.table().oid.to_u32(),
            self.checked()
        )
    }

    /// The first row of checks that overlaps with another one: its key, and what both want.
    pub fn first(&self) -> String {
        let keys = self.keys();
        let named = |prefix: &str, names: &[&str]| {
            let parts = list(names.len(), |n| {
                format!(
                    "{} || {}",
                    quote_literal(format!("{} ", names[n])),
                    self.text(column(self.table(), names[n]), &format!("{prefix}{n}"))
                )
            });
            format!("pg_catalog.concat_ws(', ', {parts})")
        };
        let resource: Vec<&str> = self.resource().iter().map(String::as_str).collect();
        format!(
            "/* {} */ WITH {} SELECT {}, {} FROM came AS a {} AS b WHERE NOT ({}) LIMIT 1",
            self.table().oid.to_u32(),
            self.checked(),
            named("a.k", &keys),
            named("a.q", &resource),
            self.others(),
            self.same(),
        )
    }
}

/// A check of all rows of a rule, with the same columns as [`Form::note`].
pub fn note_all(rule: i32) -> String {
    format!(
        "WITH made AS (INSERT INTO usher.overlap_checks (organization_id, id, rule_id) VALUES ('{NOBODY}'::uuid, usher.uuid_v7(), {rule}) RETURNING organization_id, id)
         SELECT pg_catalog.array_agg(m.organization_id), pg_catalog.array_agg(m.id), true FROM made AS m"
    )
}

/// Stands for all organizations.
pub const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
