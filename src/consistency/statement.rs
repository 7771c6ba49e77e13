//! The statements of a rule: those that look run as its role, the one that writes down as the tables' owner.
//!
//! A bad row travels between them as four values: its organization, its key and itself as JSON, and the sentence. A key is JSON with
//! times in UTC, the same wherever it was made.

use super::fit::{self, Fitted, Touch};
use super::slices::Slices;
use crate::setup::Installed;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::Value;

/// A part of everything, in the order of its key: behind one key and up to another.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    pub behind: Option<Value>,
    pub up_to: Option<Value>,
}

/// The statements of one rule.
pub struct Form<'a> {
    pub fitted: &'a Fitted,
    pub installed: Installed,
}

impl Form<'_> {
    fn list(&self, make: impl Fn(usize, &fit::Column) -> String) -> Vec<String> {
        self.fitted.key.iter().enumerate().map(|(n, column)| make(n, column)).collect()
    }

    /// Bad rows, as far as `which`, a condition on `q`, means them.
    fn bad(&self, which: &str) -> String {
        let tenant = fit::tenant(self.fitted, self.installed);
        let key = self.list(|_, column| format!("{}, q.{}", quote_literal(&column.name), quote_identifier(&column.name)));
        format!(
            "SELECT {tenant} AS org, pg_catalog.jsonb_build_object({}) AS key, pg_catalog.to_jsonb(q) AS bad,
                    COALESCE(({}\n)::text, 'it is among the bad rows') AS wrong
               FROM ({}\n) AS q WHERE {which}",
            key.join(", "),
            self.fitted.definition.wrong,
            self.fitted.definition.query,
        )
    }

    /// All of them in one row of arrays.
    fn gathered(bad: &str, with: &str) -> String {
        format!(
            "{with}SELECT pg_catalog.array_agg(f.org), pg_catalog.array_agg(f.key), pg_catalog.array_agg(f.bad), pg_catalog.array_agg(f.wrong), pg_catalog.count(*)
               FROM ({bad}) AS f"
        )
    }

    /// The keys `$1` (organizations) and `$2` as values of their types. Compared one by one with an array, they are
    /// looked for where the query reads its tables, also below a GROUP BY; together they are compared at its end.
    fn touched_keys(&self, shape: &Shape) -> (String, String) {
        let columns = || shape.given.iter().map(|at| (*at, &self.fitted.key[*at]));
        let mut values = vec!["u.org".to_owned()];
        values.extend(
            columns().map(|(n, column)| format!("(u.key ->> {})::{} AS k{n}", quote_literal(&column.name), column.type_sql)),
        );
        let with = format!(
            "WITH touched AS MATERIALIZED (SELECT DISTINCT {} FROM ROWS FROM (pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::jsonb[])) AS u (org, key)) ",
            values.join(", ")
        );
        let mut near: Vec<String> = Vec::new();
        let mut equal: Vec<String> = Vec::new();
        for (n, column) in columns() {
            near.push(format!("q.{} = ANY (ARRAY(SELECT t.k{n} FROM touched AS t))", quote_identifier(&column.name)));
            equal.push(format!("t.k{n} = q.{}", quote_identifier(&column.name)));
        }
        near.extend(shape.null.iter().map(|at| format!("q.{} IS NULL", quote_identifier(&self.fitted.key[*at].name))));
        if let (Some(name), true) = (&self.fitted.organization, shape.organization) {
            near.push(format!("q.{} = ANY (ARRAY(SELECT t.org FROM touched AS t))", quote_identifier(name)));
            equal.push(format!("t.org = q.{}", quote_identifier(name)));
        }
        // A single value is compared where it is read already.
        if equal.len() > 1 {
            near.push(format!("EXISTS (SELECT FROM touched AS t WHERE {})", equal.join(" AND ")));
        }
        (with, if near.is_empty() { "true".to_owned() } else { near.join(" AND ") })
    }

    /// The bad rows among keys of one shape: `$1` organizations, `$2` keys.
    pub fn at_keys(&self, shape: &Shape) -> String {
        let (with, which) = self.touched_keys(shape);
        Self::gathered(&self.bad(&which), &with)
    }

    /// The keys `$1` (organizations) and `$2` as they are, and their values: the organizations, and an array for each column that is known.
    pub fn values(&self, shape: &Shape) -> String {
        let (with, _) = self.touched_keys(shape);
        let arrays: Vec<String> = shape.given.iter().map(|at| format!("pg_catalog.array_agg(DISTINCT t.k{at})")).collect();
        format!(
            "{with}SELECT $1::uuid[], $2::jsonb[], {} FROM touched AS t",
            [vec!["pg_catalog.array_agg(DISTINCT t.org)".to_owned()], arrays].concat().join(", ")
        )
    }

    /// The same as [`Form::at_keys`] for many keys: `$3` and following are their [`Form::values`]. Planned for these, it is seen how many they are, and a table without
    /// an index on them is read once.
    pub fn at_many(&self, shape: &Shape) -> String {
        let (with, _) = self.touched_keys(shape);
        let columns = || shape.given.iter().enumerate().map(|(n, at)| (n + 4, *at, &self.fitted.key[*at].name));
        let mut near: Vec<String> = columns().map(|(n, _, name)| format!("q.{} = ANY (${n})", quote_identifier(name))).collect();
        let mut equal: Vec<String> = columns().map(|(_, at, name)| format!("t.k{at} = q.{}", quote_identifier(name))).collect();
        near.extend(shape.null.iter().map(|at| format!("q.{} IS NULL", quote_identifier(&self.fitted.key[*at].name))));
        match (&self.fitted.organization, shape.organization) {
            (Some(name), true) => {
                near.push(format!("q.{} = ANY ($3)", quote_identifier(name)));
                equal.push(format!("t.org = q.{}", quote_identifier(name)));
            }
            // Every statement has the same parameters.
            _ => near.push("$3::uuid[] IS NOT DISTINCT FROM $3".to_owned()),
        }
        if equal.len() > 1 {
            near.push(format!("EXISTS (SELECT FROM touched AS t WHERE {})", equal.join(" AND ")));
        }
        Self::gathered(&self.bad(&near.join(" AND ")), &with)
    }

    /// Whether one key of this shape is bad: its columns are `$1` and so on, then the organization, if the query names one. Every row that it gives is a bad one.
    pub fn alone(&self, shape: &Shape) -> String {
        let given = shape.given.iter().map(|at| self.fitted.key[*at].name.as_str());
        let organization = self.fitted.organization.as_deref().filter(|_| shape.organization);
        let which: Vec<String> =
            given.chain(organization).enumerate().map(|(n, name)| format!("q.{} = ${}", quote_identifier(name), n + 1)).collect();
        // Plans are kept by their text: one that was made for values of other types is no plan for these.
        let types: Vec<String> = shape.given.iter().map(|at| self.fitted.key[*at].type_oid.to_u32().to_string()).collect();
        // As the query gives them: with a column of its own it would be a step more.
        format!(
            "/* {} */ SELECT q.* FROM ({}\n) AS q WHERE {}",
            types.join(" "),
            self.fitted.definition.query,
            which.join(" AND ")
        )
    }

    /// All bad rows, of the organization `$1` or (NULL) of all.
    pub fn everywhere(&self) -> String {
        let which = match &self.fitted.organization {
            Some(name) => format!("($1::uuid IS NULL OR q.{} = $1)", quote_identifier(name)),
            None => format!("COALESCE($1::uuid, '{0}') = '{0}'", self.installed.default_organization),
        };
        Self::gathered(&self.bad(&which), "")
    }

    /// The bad rows of a part: behind `$1` and up to `$2`.
    pub fn between(&self, slices: &Slices, bounds: &Bounds) -> String {
        Self::gathered(&self.bad(&slices.between(bounds.behind.is_some(), bounds.up_to.is_some())), "")
    }

    /// The bad rows that are in no part.
    pub fn beside(&self, slices: &Slices) -> String {
        Self::gathered(&self.bad(&slices.beside()), "")
    }

    /// The keys that rows of a relation with the columns of a touched table concern, each once: `org` and `key`.
    pub fn touched(&self, touch: &Touch, relation: &str) -> String {
        let organization = match (&self.fitted.organization, &touch.organization) {
            (None, _) => format!("'{}'::uuid", self.installed.default_organization),
            (Some(_), Some(text)) => format!("({text}\n)"),
            (Some(_), None) => "NULL::uuid".to_owned(),
        };
        let given = || self.fitted.key.iter().zip(&touch.keys).filter_map(|(column, text)| Some((column, text.as_ref()?)));
        let values: Vec<String> =
            given().map(|(column, text)| format!("{}, ({text}\n)::{}", quote_literal(&column.name), column.type_sql)).collect();
        // A row that names no key concerns none, but where nobody looks at other keys than those that were named.
        let all = self.fitted.names_nulls();
        let there: Vec<String> = given().filter(|_| !all).map(|(_, text)| format!("({text}\n) IS NOT NULL")).collect();
        let which = if there.is_empty() { "true".to_owned() } else { there.join(" AND ") };
        format!(
            "SELECT DISTINCT {organization} AS org, pg_catalog.jsonb_build_object({}) AS key FROM {relation} AS row WHERE {which}",
            values.join(", ")
        )
    }
}

/// Which part of a rule's key is known of some keys: a changed row may concern all keys that are alike in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Whose they are is known.
    pub organization: bool,
    /// Columns of the key, by their place in it.
    pub given: Vec<usize>,
    /// Columns of which it is known that they are NULL.
    pub null: Vec<usize>,
}

impl Shape {
    pub fn whole(fitted: &Fitted) -> Self {
        Self { organization: true, given: (0..fitted.key.len()).collect(), null: Vec::new() }
    }

    pub fn of_touch(touch: &Touch) -> Self {
        let given = touch.keys.iter().enumerate().filter_map(|(at, text)| text.as_ref().map(|_| at));
        Self { organization: touch.organization.is_some(), given: given.collect(), null: Vec::new() }
    }

    /// Of a key as JSON.
    pub fn of(fitted: &Fitted, organization: bool, key: &Value) -> Self {
        let mut shape = Self { organization, ..Self::default() };
        for (at, column) in fitted.key.iter().enumerate() {
            match key.get(&column.name) {
                None => {}
                Some(Value::Null) => shape.null.push(at),
                Some(_) => shape.given.push(at),
            }
        }
        shape
    }

    pub fn is_whole(&self, fitted: &Fitted) -> bool {
        self.given.len() + self.null.len() == fitted.key.len()
    }
}

/// Which violations a look has seen the whole of: those of them that it did not find are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Whole keys of known organizations: `$9` organizations, `$10` keys.
    Keys,
    /// The same, so many that what stands is compared with them instead of each being looked for.
    ManyKeys,
    /// Keys of which only a part is known, or not whose they are: `$9` organizations (NULL: any), `$10` keys, `$13` the columns that are known.
    Alike,
    /// Everything of the organization `$9`, or (NULL) of all.
    All,
    /// A part, of which is known only what was found. `$9` and `$10` are not used.
    Part,
}

/// SQL for the id of the violation of a key: the same for the same key, whoever finds it.
fn id(organization: &str, key: &str) -> String {
    format!(
        "pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws(' ', $5::integer, {organization}, {key}), 'UTF8')), 'hex'), 1, 32)::uuid"
    )
}

/// Writes down what a look has found: `$1` organizations, `$2` keys, `$3` rows and `$4` sentences of bad rows, `$5` the rule, `$6` its
/// name, `$7` its severity, `$8` milliseconds of grace; then what [`Extent`] says, and `$11` whether rows wait until there are
/// more of them than the rule tolerates, `$12` milliseconds until somebody is told (NULL: never). Comes back as one row: new, still bad, gone, and what
/// is to be told: organizations and events of violations that are open now, and of those that are gone.
pub fn settle(extent: Extent) -> String {
    let standing = match extent {
        Extent::Keys => {
            let of_key = id("t.org", "t.key");
            format!(
                "SELECT v.organization_id, v.id, v.status FROM touched AS t
                   JOIN usher.violations AS v ON v.organization_id = t.org AND v.id = {of_key}
                  WHERE v.status IN ('pending', 'open', 'waived')"
            )
        }
        Extent::ManyKeys => "SELECT v.organization_id, v.id, v.status
                   FROM usher.violations AS v JOIN touched AS t ON t.org = v.organization_id AND t.key = v.key
                  WHERE v.rule_id = $5 AND v.status IN ('pending', 'open', 'waived')"
            .to_owned(),
        Extent::Alike => "SELECT DISTINCT v.organization_id, v.id, v.status
                   FROM (SELECT v.*, (SELECT COALESCE(pg_catalog.jsonb_object_agg(e.key, e.value), '{}') FROM pg_catalog.jsonb_each(v.key) AS e WHERE e.key = ANY ($13::text[])) AS known
                           FROM usher.violations AS v WHERE v.rule_id = $5 AND v.status IN ('pending', 'open', 'waived')) AS v
                   JOIN touched AS t ON t.key = v.known AND (t.org IS NULL OR t.org = v.organization_id)"
            .to_owned(),
        Extent::All => "SELECT v.organization_id, v.id, v.status FROM usher.violations AS v
                  WHERE v.rule_id = $5 AND v.status IN ('pending', 'open', 'waived') AND ($9::uuid IS NULL OR v.organization_id = $9)"
            .to_owned(),
        Extent::Part => "SELECT v.organization_id, v.id, v.status FROM usher.violations AS v WHERE false".to_owned(),
    };
    let touched = match extent {
        Extent::Keys | Extent::ManyKeys | Extent::Alike => {
            "touched AS MATERIALIZED (SELECT DISTINCT u.org, u.key FROM ROWS FROM (pg_catalog.unnest($9::uuid[]), pg_catalog.unnest($10::jsonb[])) AS u (org, key)), "
        }
        // Every statement has the same parameters.
        Extent::All => "unused AS (SELECT $10::jsonb[]), ",
        Extent::Part => "unused AS (SELECT $9::uuid, $10::jsonb[]), ",
    };
    let of_found = id("u.org", "u.key");
    let event = "pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at)";
    format!(
        "WITH {touched}found AS MATERIALIZED (
            SELECT DISTINCT ON (u.org, u.id) u.* FROM (
                SELECT u.*, {of_found} AS id
                  FROM ROWS FROM (pg_catalog.unnest($1::uuid[]), pg_catalog.unnest($2::jsonb[]), pg_catalog.unnest($3::jsonb[]), pg_catalog.unnest($4::text[])) WITH ORDINALITY AS u (org, key, bad, wrong, n)) AS u
             ORDER BY u.org, u.id, u.n),
         standing AS MATERIALIZED ({standing}),
         before AS MATERIALIZED (
            SELECT v.organization_id, v.id, v.status FROM found AS f JOIN usher.violations AS v ON v.organization_id = f.org AND v.id = f.id),
         ended AS (
            UPDATE usher.violations AS v SET status = 'gone', ended_at = pg_catalog.clock_timestamp(), due_at = NULL, escalate_at = NULL
              FROM standing AS s
             WHERE v.organization_id = s.organization_id AND v.id = s.id
               AND NOT EXISTS (SELECT FROM found AS f WHERE f.org = s.organization_id AND f.id = s.id)
            RETURNING v.organization_id, v.id, s.status AS was, {event} AS event),
         moment AS MATERIALIZED (SELECT pg_catalog.clock_timestamp() AS at),
         came AS (
            INSERT INTO usher.violations AS v (organization_id, id, rule_id, rule, key, \"row\", wrong, severity, first_seen_at, last_seen_at, status, due_at, opened_at, escalate_at)
            SELECT f.org, f.id, $5, $6, f.key, f.bad, f.wrong, $7, m.at, m.at,
                   CASE WHEN $8::bigint > 0 OR $11::boolean THEN 'pending' ELSE 'open' END,
                   CASE WHEN $8 > 0 THEN m.at + $8 * '1 millisecond'::interval END,
                   CASE WHEN $8 = 0 AND NOT $11 THEN m.at END,
                   CASE WHEN $8 = 0 AND NOT $11 THEN m.at + $12::bigint * '1 millisecond'::interval END
              FROM found AS f CROSS JOIN moment AS m ORDER BY f.org, f.id
            ON CONFLICT ON CONSTRAINT violations_pkey DO UPDATE
               SET (status, first_seen_at, seen, times, due_at, opened_at, ended_at, escalate_at, escalated_at, waived_by, waived_because, waived_at, repairs, repaired_at, last_error) = (
                   SELECT CASE WHEN b.again THEN EXCLUDED.status WHEN b.over THEN 'open' ELSE v.status END,
                          CASE WHEN b.again THEN EXCLUDED.first_seen_at ELSE v.first_seen_at END,
                          CASE WHEN b.again THEN 1 ELSE v.seen + 1 END,
                          CASE WHEN b.again THEN v.times + 1 ELSE v.times END,
                          CASE WHEN b.again THEN EXCLUDED.due_at WHEN v.due_at <= EXCLUDED.last_seen_at THEN NULL ELSE v.due_at END,
                          CASE WHEN b.again THEN EXCLUDED.opened_at WHEN b.over THEN EXCLUDED.last_seen_at ELSE v.opened_at END,
                          NULL::timestamptz,
                          CASE WHEN b.again THEN EXCLUDED.escalate_at
                               WHEN b.over THEN EXCLUDED.last_seen_at + $12 * '1 millisecond'::interval ELSE v.escalate_at END,
                          CASE WHEN b.again THEN NULL ELSE v.escalated_at END,
                          CASE WHEN b.again THEN NULL ELSE v.waived_by END,
                          CASE WHEN b.again THEN NULL ELSE v.waived_because END,
                          CASE WHEN b.again THEN NULL ELSE v.waived_at END,
                          CASE WHEN b.again AND NOT b.lately THEN 0 ELSE v.repairs END,
                          CASE WHEN b.again AND NOT b.lately THEN NULL ELSE v.repaired_at END,
                          CASE WHEN b.again THEN NULL ELSE v.last_error END
                     FROM (SELECT v.status IN ('gone', 'repaired') AS again,
                                  -- It had helped, and did not last: two repairs that undo each other shall not go on for ever.
                                  v.repairs > 0 AND (v.last_error IS NULL OR v.repaired_at IS NOT NULL) AND COALESCE(v.tried_at > EXCLUDED.last_seen_at - '1 hour'::interval, false) AS lately,
                                  v.status = 'pending' AND NOT $11 AND (v.due_at IS NULL OR v.due_at <= EXCLUDED.last_seen_at) AS over) AS b),
                   rule = EXCLUDED.rule, severity = EXCLUDED.severity, \"row\" = EXCLUDED.\"row\", wrong = EXCLUDED.wrong, last_seen_at = EXCLUDED.last_seen_at
            RETURNING v.organization_id, v.id, v.status, {event} AS event),
         told AS MATERIALIZED (
            SELECT c.organization_id, c.event FROM came AS c LEFT JOIN before AS b ON b.organization_id = c.organization_id AND b.id = c.id
             WHERE c.status = 'open' AND b.status IS DISTINCT FROM 'open' ORDER BY c.organization_id, c.id)
         SELECT (SELECT pg_catalog.count(*) FROM found AS f LEFT JOIN before AS b ON b.organization_id = f.org AND b.id = f.id
                  WHERE b.id IS NULL OR b.status IN ('gone', 'repaired')),
                (SELECT pg_catalog.count(*) FROM before AS b WHERE b.status NOT IN ('gone', 'repaired')),
                (SELECT pg_catalog.count(*) FROM ended),
                (SELECT pg_catalog.array_agg(t.organization_id) FROM told AS t), (SELECT pg_catalog.array_agg(t.event) FROM told AS t),
                (SELECT pg_catalog.array_agg(e.organization_id ORDER BY e.organization_id, e.id) FROM ended AS e WHERE e.was = 'open'),
                (SELECT pg_catalog.array_agg(e.event ORDER BY e.organization_id, e.id) FROM ended AS e WHERE e.was = 'open'),
                (SELECT pg_catalog.count(*) FROM came)"
    )
}
