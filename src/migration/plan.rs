//! Making a plan: who belongs together, who is alone, and what the merge would say of each pair.
//!
//! Temporary tables carry the rows from one statement to the next, because no single role may read everything: the application's tables are
//! read with the flow's rights, links and our own tables with the owner's. A few joins over whole tables; nothing is looked up row by row.

use super::model::{CLASH, NOT_MADE, PARTNER_GONE, POISON, SEVERAL, TAKEN};
use crate::error::{Result, UsherError};
use crate::flow::cause::{self, Cause};
use crate::flow::merge::compare::{self, Comparison, Rows};
use crate::flow::store::Flow;
use crate::flow::switches;
use crate::pg::guc::Nest;
use crate::pg::{event, role, spi, subxact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use std::rc::Rc;

const LEFT: &str = "pg_temp.usher_migration_left";
const RIGHT: &str = "pg_temp.usher_migration_right";
const LINKS: &str = "pg_temp.usher_migration_links";
const FREE: &str = "pg_temp.usher_migration_free";
const PAIRS: &str = "pg_temp.usher_migration_pairs";
const FOUND: &str = "pg_temp.usher_migration_found";

/// More pairs than this that cannot even be compared, and the plan is given up.
const MOST_POISON: usize = 100;

/// A merge and its two halves.
pub struct Halves {
    pub forward: Rc<Flow>,
    pub back: Rc<Flow>,
}

/// What was counted beside the items.
pub struct Counted {
    pub left_table: String,
    pub right_table: String,
    pub left_rows: i64,
    pub right_rows: i64,
    pub equal: i64,
}

struct Planner<'a> {
    installed: Installed,
    halves: &'a Halves,
    organization: Option<Uuid>,
    comparison: Comparison,
}

fn numbered(keys: &[String]) -> String {
    (0..keys.len()).map(|n| format!(", k{n}")).collect()
}

/// Compares both tables of a merge, for an organization or for all, and writes the items of a migration down. Runs with the owner's rights.
pub fn make(installed: Installed, halves: &Halves, organization: Option<Uuid>, migration: Uuid) -> Result<Counted> {
    let default = installed.default_organization.to_string();
    let comparison = compare::comparison(&halves.forward, &halves.back, &default, PAIRS, FOUND)?;
    let planner = Planner { installed, halves, organization, comparison };
    let _settings = Nest::open().pinned_formats().roomy();
    planner.prepare()?;
    let left_rows = planner.rows(&halves.forward, LEFT, &planner.comparison.left)?;
    let right_rows = planner.rows(&halves.back, RIGHT, &planner.comparison.right)?;
    planner.links()?;
    planner.free()?;
    let pairs = planner.pairs()?;
    let found = planner.compare(pairs)?;
    planner.items(migration)?;
    drop_tables()?;
    Ok(Counted {
        left_table: planner.comparison.left.table.clone(),
        right_table: planner.comparison.right.table.clone(),
        left_rows,
        right_rows,
        equal: pairs - found,
    })
}

fn drop_tables() -> Result<()> {
    let _ours = event::ours();
    let _quiet = Nest::open().quiet();
    spi::script(&format!("DROP TABLE IF EXISTS {LEFT}, {RIGHT}, {LINKS}, {FREE}, {PAIRS}, {FOUND}"))
}

impl Planner<'_> {
    fn run_as(&self) -> Oid {
        self.halves.forward.run_as
    }

    /// With the rights of the flow, fenced, as the merge runs.
    fn as_flow<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _fence = Nest::fence().lock_timeout(self.halves.forward.definition.lock_timeout).pinned_formats();
        let _caused = cause::enter(Cause::default());
        let _for_flow = identity::for_flow(self.organization);
        let _acting = role::act_as(self.run_as());
        work()
    }

    fn prepare(&self) -> Result<()> {
        let may = spi::read::<bool>("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')", &[])?;
        let owner = || role::name_of(self.installed.owner).unwrap_or_default();
        if may != Some(true) {
            return Err(UsherError::forbidden(format!("{} may make no temporary tables here", owner())).hint(format!(
                "A plan is put together in temporary tables: GRANT TEMPORARY ON DATABASE … TO {}.",
                quote_identifier(owner())
            )));
        }
        let keys = |rows: &Rows| rows.keys.iter().enumerate().map(|(n, of)| format!(", k{n} {of}")).collect::<String>();
        let name = |table: &str| table.replace("pg_temp.", "");
        let rows = "organization_id uuid NOT NULL, id text COLLATE \"C\" NOT NULL, follows boolean NOT NULL";
        let flow = quote_identifier(role::name_of(self.run_as()).unwrap_or_default());
        drop_tables()?;
        let _ours = event::ours();
        spi::script(&format!(
            "CREATE TEMPORARY TABLE {} ({rows}{}) ON COMMIT DROP;
             CREATE TEMPORARY TABLE {} ({rows}{}) ON COMMIT DROP;
             CREATE TEMPORARY TABLE {} (organization_id uuid, id uuid, left_id text COLLATE \"C\", right_id text COLLATE \"C\", base jsonb, has_left boolean,
                                        has_right boolean, left_follows boolean, right_follows boolean, clash boolean, paired boolean) ON COMMIT DROP;
             CREATE TEMPORARY TABLE {} (side text, organization_id uuid, id text COLLATE \"C\", follows boolean, here bigint, there bigint, taken bigint, loose bigint,
                                        partner text COLLATE \"C\") ON COMMIT DROP;
             CREATE TEMPORARY TABLE {} (n bigint, organization_id uuid, left_id text COLLATE \"C\", right_id text COLLATE \"C\", base jsonb, gone text, link uuid,
                                        decided jsonb, side text) ON COMMIT DROP;
             CREATE TEMPORARY TABLE {} (n bigint, fields jsonb, writes_left boolean, writes_right boolean, open boolean, error_message text) ON COMMIT DROP;
             GRANT INSERT ON {LEFT}, {RIGHT}, {FOUND} TO {flow};
             GRANT SELECT ON {PAIRS} TO {flow}",
            name(LEFT),
            keys(&self.comparison.left),
            name(RIGHT),
            keys(&self.comparison.right),
            name(LINKS),
            name(FREE),
            name(PAIRS),
            name(FOUND),
        ))
    }

    /// The rows of one side, with the rights of the flow. Returns how many.
    fn rows(&self, flow: &Flow, into: &str, rows: &Rows) -> Result<i64> {
        let sql = format!("INSERT INTO {into} (organization_id, id, follows{}) {}", numbered(&rows.keys), rows.read);
        let organization = self.organization;
        if organization.is_none() {
            self.warn_of_policies(flow, rows)?;
        }
        let read = subxact::attempt(|| self.as_flow(|| spi::run(&sql, &[spi::arg(organization)])));
        let rows =
            read.map_err(|failure| {
                let hint = failure.hint.clone();
                let mut error = UsherError::from(failure);
                error.message =
                    format!("the rows of {} cannot be read as flow \"{}\" does: {}", rows.table, flow.name, error.message);
                error.hint(hint.unwrap_or_else(|| {
                    "Mend what the message names, in the rows or in the flow; nothing was planned.".to_owned()
                }))
            })?;
        spi::script(&format!("ANALYZE {into}"))?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// For all organizations at once the flow acts for none, and what policies hide then is not in the plan.
    fn warn_of_policies(&self, flow: &Flow, rows: &Rows) -> Result<()> {
        let hidden = self.as_flow(|| {
            spi::one::<bool>("SELECT pg_catalog.row_security_active($1::pg_catalog.regclass)", &[spi::arg(rows.sql.as_str())])
        })?;
        if hidden == Some(true) {
            pgrx::warning!(
                "policies of {} decide which rows flow \"{}\" sees, and for all organizations at once it acts for none: name an organization, or what they hide is not in the plan",
                rows.table,
                flow.name
            );
        }
        Ok(())
    }

    fn same_organization(&self, rows: &Rows, a: &str, b: &str) -> String {
        if rows.tells_organization { format!(" AND {a}.organization_id = {b}.organization_id") } else { String::new() }
    }

    /// The link of each left row, as the merge finds it.
    fn links(&self) -> Result<()> {
        let (left, right) = (&self.comparison.left, &self.comparison.right);
        let kind = self.halves.forward.definition.link.as_ref().map(|link| link.kind.clone());
        spi::run(
            &format!(
                "INSERT INTO {LINKS} (organization_id, id, left_id, right_id, base, has_left, has_right, left_follows, right_follows, clash, paired)
                 SELECT k.organization_id, k.id, k.left_id, k.right_id, k.base, a.id IS NOT NULL, b.id IS NOT NULL, COALESCE(a.follows, false), COALESCE(b.follows, false),
                        pg_catalog.row_number() OVER (PARTITION BY k.organization_id, k.right_id ORDER BY k.paired DESC, k.last_synced_at DESC NULLS LAST, k.id) > 1, k.paired
                   FROM (SELECT DISTINCT ON (l.organization_id, l.left_id COLLATE \"C\") l.organization_id, l.id, l.left_id COLLATE \"C\" AS left_id,
                                l.right_id COLLATE \"C\" AS right_id, COALESCE(l.base, '{{}}') AS base, l.paired, l.last_synced_at
                           FROM usher.links AS l
                          WHERE l.kind = $1 AND l.right_id IS NOT NULL AND ($2::uuid IS NULL OR l.organization_id = $2)
                          ORDER BY l.organization_id, l.left_id COLLATE \"C\", NOT l.paired, l.last_synced_at DESC NULLS LAST) AS k
                   LEFT JOIN {LEFT} AS a ON a.id = k.left_id{} LEFT JOIN {RIGHT} AS b ON b.id = k.right_id{}",
                self.same_organization(left, "a", "k"),
                self.same_organization(right, "b", "k"),
            ),
            &[spi::arg(kind), spi::arg(self.organization)],
        )?;
        spi::script(&format!("ANALYZE {LINKS}"))
    }

    /// Rows without a link, each with how many such rows have its key here and there, how many there are linked already, and how many on both
    /// sides have a link that no merge has met yet: to it they are free, too.
    fn free(&self) -> Result<()> {
        let (left, right) = (&self.comparison.left, &self.comparison.right);
        let by_organization = left.tells_organization && right.tells_organization;
        let keys: Vec<String> = by_organization
            .then(|| "organization_id".to_owned())
            .into_iter()
            .chain((0..left.keys.len()).map(|n| format!("k{n}")))
            .collect();
        let linked = |rows: &Rows, side: &str, from: &str| {
            let organization = if rows.tells_organization { ", organization_id" } else { "" };
            format!(
                "SELECT t.*, k.id IS NOT NULL AS linked, NOT k.paired AS loose
                   FROM {from} AS t LEFT JOIN (SELECT {side}_id AS id{organization}, pg_catalog.bool_or(paired) AS paired FROM {LINKS} GROUP BY {side}_id{organization}) AS k ON k.id = t.id{}",
                self.same_organization(rows, "k", "t")
            )
        };
        let sql = if left.keys.is_empty() {
            let alone = |side: &str| {
                format!(
                    "SELECT '{side}' AS side, t.organization_id, t.id, t.follows, 1::bigint, 0::bigint, 0::bigint, 0::bigint, NULL FROM {side} AS t WHERE NOT t.linked"
                )
            };
            format!("{} UNION ALL {}", alone("l"), alone("r")).replace("'l'", "'left'").replace("'r'", "'right'")
        } else {
            let same =
                |a: &str, b: &str| keys.iter().map(|key| format!("{a}.{key} = {b}.{key}")).collect::<Vec<_>>().join(" AND ");
            let alone = |side: &str, here: &str| {
                let (own, other) = if here == "l" { ("gl", "gr") } else { ("gr", "gl") };
                format!(
                    "SELECT '{side}' AS side, t.organization_id, t.id, t.follows, COALESCE(o.free, 1), COALESCE(p.free, 0), COALESCE(p.linked, 0), COALESCE(o.loose, 0) + COALESCE(p.loose, 0), p.one
                       FROM {here} AS t LEFT JOIN {own} AS o ON {} LEFT JOIN {other} AS p ON {} WHERE NOT t.linked",
                    same("o", "t"),
                    same("p", "t")
                )
            };
            format!("{} UNION ALL {}", alone("left", "l"), alone("right", "r"))
        };
        let groups = |name: &str, of: &str| {
            let there: Vec<String> = (0..left.keys.len()).map(|n| format!("t.k{n} IS NOT NULL")).collect();
            format!(
                ", {name} AS MATERIALIZED (
    SELECT {}, pg_catalog.count(*) FILTER (WHERE NOT t.linked) AS free, pg_catalog.count(*) FILTER (WHERE t.linked) AS linked, pg_catalog.count(*) FILTER (WHERE t.loose) AS loose,
           pg_catalog.min(t.id) FILTER (WHERE NOT t.linked) AS one
      FROM {of} AS t WHERE {} GROUP BY {})",
                keys.join(", "),
                there.join(" AND "),
                keys.join(", ")
            )
        };
        let groups = if left.keys.is_empty() { String::new() } else { groups("gl", "l") + &groups("gr", "r") };
        spi::run(
            &format!(
                "WITH l AS MATERIALIZED ({}), r AS MATERIALIZED ({}){groups}
                 INSERT INTO {FREE} (side, organization_id, id, follows, here, there, taken, loose, partner) {sql}",
                linked(left, "left", LEFT),
                linked(right, "right", RIGHT),
            ),
            &[],
        )?;
        spi::script(&format!("ANALYZE {FREE}"))
    }

    /// Rows that belong together, by their links or by their keys. Returns how many.
    fn pairs(&self) -> Result<i64> {
        let (left, right) = (&self.comparison.left, &self.comparison.right);
        let organization = if left.tells_organization || !right.tells_organization { "a" } else { "b" };
        let same =
            if left.tells_organization && right.tells_organization { " AND b.organization_id = a.organization_id" } else { "" };
        let pairs = spi::run(
            &format!(
                "INSERT INTO {PAIRS} (n, organization_id, left_id, right_id, base, link, side)
                 SELECT pg_catalog.row_number() OVER (), p.*
                   FROM (SELECT k.organization_id, k.left_id, k.right_id, k.base, k.id, CASE WHEN k.left_follows THEN 'left' ELSE 'right' END
                           FROM {LINKS} AS k WHERE k.has_left AND k.has_right AND NOT k.clash AND (k.left_follows OR k.right_follows)
                         UNION ALL
                         SELECT {organization}.organization_id, a.id, b.id, NULL, NULL, CASE WHEN a.follows THEN 'left' ELSE 'right' END
                           FROM {FREE} AS a JOIN {FREE} AS b ON b.side = 'right' AND b.id = a.partner{same}
                          WHERE a.side = 'left' AND a.here = 1 AND a.there = 1 AND a.loose = 0 AND (a.follows OR b.follows)) AS p
                  WHERE {}",
                self.of_ours("p")
            ),
            &[spi::arg(self.organization)],
        )?;
        spi::script(&format!("ANALYZE {PAIRS}"))?;
        Ok(i64::try_from(pairs).unwrap_or(i64::MAX))
    }

    /// SQL that is true of rows of organizations that exist and do with the flow; `$1`: the one that is meant.
    fn of_ours(&self, alias: &str) -> String {
        format!(
            "EXISTS (SELECT FROM usher.organizations AS o WHERE o.id = {alias}.organization_id) AND ($1::uuid IS NULL OR {alias}.organization_id = $1) AND {}",
            switches::is_on(self.halves.forward.id, &format!("{alias}.organization_id"))
        )
    }

    /// What the merge would say of the pairs, with the rights of the flow. Halves, where a row cannot be compared, until it is found. Returns
    /// how many pairs are not simply equal.
    fn compare(&self, pairs: i64) -> Result<i64> {
        let mut found = 0;
        let mut poison = 0;
        let mut open = if pairs > 0 { vec![(1, pairs)] } else { Vec::new() };
        while let Some((from, to)) = open.pop() {
            let compared =
                subxact::attempt(|| self.as_flow(|| spi::run(&self.comparison.compare, &[spi::arg(from), spi::arg(to)])));
            match compared {
                Ok(rows) => found += i64::try_from(rows).unwrap_or(0),
                Err(failure) if failure.is_busy() || failure.is_outside() || failure.is_drift() || poison >= MOST_POISON => {
                    return Err(UsherError::from(failure).hint("Nothing was planned: mend what the message names and try again."));
                }
                Err(failure) if from == to => {
                    poison += 1;
                    found += 1;
                    spi::run(
                        &format!("INSERT INTO {FOUND} (n, error_message) VALUES ($1, $2)"),
                        &[spi::arg(from), spi::arg(failure.line())],
                    )?;
                }
                Err(_) => {
                    let middle = from + (to - from) / 2;
                    open.push((middle + 1, to));
                    open.push((from, middle));
                }
            }
        }
        Ok(found)
    }

    fn items(&self, migration: Uuid) -> Result<()> {
        let makes = |yes: bool, action: &str| if yes { quote_literal(action) } else { "'nothing'".to_owned() };
        let why = |yes: bool| if yes { "NULL".to_owned() } else { quote_literal(NOT_MADE) };
        let (right, left) = (self.comparison.creates_right, self.comparison.creates_left);
        let sql = format!(
            "INSERT INTO usher.migration_items (organization_id, migration_id, n, kind, action, left_id, right_id, link_id, fields, why, side, state, error_message)
             SELECT i.organization_id, $2, pg_catalog.row_number() OVER (ORDER BY i.organization_id, i.kind, i.left_id, i.right_id), i.kind, i.action, i.left_id, i.right_id,
                    i.link, NULLIF(i.fields, '{{}}'), i.why, i.side, CASE WHEN i.action = 'nothing' THEN 'none' ELSE 'planned' END, i.error_message
               FROM (SELECT p.organization_id,
                            CASE WHEN f.error_message IS NOT NULL OR f.open OR f.writes_left OR f.writes_right THEN 'different' ELSE 'matched' END AS kind,
                            CASE WHEN f.error_message IS NOT NULL THEN 'nothing' WHEN f.open THEN 'conflict' WHEN f.writes_left AND f.writes_right THEN 'write_both'
                                 WHEN f.writes_left THEN 'write_left' WHEN f.writes_right THEN 'write_right' ELSE 'link' END AS action,
                            p.left_id, p.right_id, p.link, f.fields, CASE WHEN f.error_message IS NOT NULL THEN {} END AS why, p.side, f.error_message
                       FROM {FOUND} AS f JOIN {PAIRS} AS p ON p.n = f.n
                     UNION ALL
                     SELECT k.organization_id, CASE WHEN k.has_left THEN 'only_left' ELSE 'only_right' END, 'nothing', k.left_id, k.right_id, k.id, NULL, {}, CASE WHEN k.has_left THEN 'left' ELSE 'right' END, NULL
                       FROM {LINKS} AS k WHERE NOT k.clash AND (k.has_left AND NOT k.has_right AND k.left_follows OR k.has_right AND NOT k.has_left AND k.right_follows)
                     UNION ALL
                     SELECT k.organization_id, 'ambiguous', 'nothing', k.left_id, k.right_id, k.id, NULL, {}, 'left', NULL
                       FROM {LINKS} AS k WHERE k.clash AND k.has_left AND k.left_follows
                     UNION ALL
                     SELECT r.organization_id, CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN 'only_left' ELSE 'ambiguous' END,
                            CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN {} ELSE 'nothing' END, r.id, NULL, NULL, NULL,
                            CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN {} WHEN r.there = 0 AND r.taken > 0 THEN {taken} ELSE {several} END, 'left', NULL
                       FROM {FREE} AS r WHERE r.side = 'left' AND r.follows AND NOT (r.here = 1 AND r.there = 1 AND r.loose = 0)
                     UNION ALL
                     SELECT r.organization_id, CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN 'only_right' ELSE 'ambiguous' END,
                            CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN {} ELSE 'nothing' END, NULL, r.id, NULL, NULL,
                            CASE WHEN r.here = 1 AND r.there = 0 AND r.taken = 0 THEN {} WHEN r.there = 0 AND r.taken > 0 THEN {taken} ELSE {several} END, 'right', NULL
                       FROM {FREE} AS r WHERE r.side = 'right' AND r.follows AND NOT (r.here = 1 AND r.there = 1 AND r.loose = 0)) AS i
              WHERE {}",
            quote_literal(POISON),
            quote_literal(PARTNER_GONE),
            quote_literal(CLASH),
            makes(right, "make_right"),
            why(right),
            makes(left, "make_left"),
            why(left),
            self.of_ours("i"),
            taken = quote_literal(TAKEN),
            several = quote_literal(SEVERAL),
        );
        spi::run(&sql, &[spi::arg(self.organization), spi::arg(migration)])?;
        Ok(())
    }
}
