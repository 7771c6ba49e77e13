//! Rules of which only touched keys are looked at between two looks at everything.
//!
//! That is right where every change of the answer is one of a row of which it is known which keys it concerns, and where whoever has written such a row has noted
//! them. The first is known from the rule ([`whole`]), the second is seen to while it runs: triggers must be there and fire ([`watch`]), and
//! whoever began before that has ended when a look at everything begins ([`everybody_notes`]). Whatever puts it in doubt ([`doubt`]) has
//! everything looked at, as often as the keys would have been, until such a look has been finished.

use super::definition::Definition;
use super::fit::{self, Column, Fitted, Touch};
use crate::error::Result;
use crate::pg::called::{self, Called};
use crate::pg::trigger::EVENTS;
use crate::pg::{role, spi, subxact, xact};
use crate::registry::tables::Table;
use pgrx::pg_sys::Oid;

/// SQL: a rule `l` whose touched keys wait until its time has come. Those of others are looked at at once.
pub const BY_THE_CLOCK: &str =
    "(l.keys_every IS NOT NULL AND NOT COALESCE(l.definition -> 'run' ?| '{transaction,after_sync}'::text[], false))";

/// What of PostgreSQL's own is STABLE because of how values are written, or of the time zone, which are the same in every look.
const STEADY: &str = "^(textanycat|anytextcat|concat|concat_ws|format|quote_literal|quote_nullable|array_to_json|array_to_string|row_to_json|to_jsonb?|jsonb?_(build_array|build_object)\
|jsonb?_(object_)?agg(_unique)?(_strict)?(_transfn|_finalfn)?|convert|convert_from|convert_to|length|date_add|date_subtract|date_part|date_trunc|extract|enum_(first|last|range)\
|generate_series|in_range|make_timestamptz|overlaps|timezone|to_char|to_number|numeric|text|date|time|timetz|timestamp|timestamptz\
|(date|timestamp|timestamptz)_(cmp|eq|ge|gt|le|lt|ne|mi|pl)(_(date|timestamp|timestamptz|interval))?|interval_pl_timestamptz|[a-z_]+_out)$";

/// Functions among some, and those of operators, whose results may be others although nothing is written.
const FICKLE: &str = "
SELECT pg_catalog.string_agg(DISTINCT CASE p.pronamespace WHEN 'pg_catalog'::pg_catalog.regnamespace THEN '' ELSE pg_catalog.quote_ident(n.nspname) || '.' END || p.proname || '()', ', ')
  FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE (p.oid = ANY ($1) OR p.oid IN (SELECT o.oprcode::oid FROM pg_catalog.pg_operator AS o WHERE o.oid = ANY ($2)))
   AND p.provolatile <> 'i'
   AND NOT (p.provolatile = 's' AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.proname ~ $3)";

/// Types a text of which may say `now`.
const TIMES: [Oid; 5] = [
    pgrx::pg_sys::DATEOID,
    pgrx::pg_sys::TIMEOID,
    pgrx::pg_sys::TIMETZOID,
    pgrx::pg_sys::TIMESTAMPOID,
    pgrx::pg_sys::TIMESTAMPTZOID,
];

/// Of some types the first whose equal values may be written differently, so that a key is not found by its text.
const UNLIKE: &str = "
SELECT pg_catalog.format_type(t.id, NULL)
  FROM pg_catalog.unnest($1::oid[]) AS t (id) JOIN pg_catalog.pg_type AS y ON y.oid = t.id
 WHERE y.typtype NOT IN ('e')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass AS c JOIN pg_catalog.pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree'
                     JOIN pg_catalog.pg_amproc AS f ON f.amprocfamily = c.opcfamily AND f.amprocnum = 4 AND f.amproclefttype = c.opcintype AND f.amprocrighttype = c.opcintype
                    WHERE c.opcdefault AND c.opcintype = CASE y.typname WHEN 'varchar' THEN 'text'::pg_catalog.regtype::oid ELSE COALESCE(NULLIF(y.typbasetype, 0), t.id) END)
 LIMIT 1";

/// Why all of a rule has to be looked at each time; None: the keys that were touched are enough. `definition` has touches that fit. Runs with the
/// owner's rights.
pub fn whole(definition: &Definition, key: &[Column], touches: &[Touch], reads: &[Table], run_as: Oid) -> Result<Option<String>> {
    let because = |why: &str| Ok(Some(why.to_owned()));
    let (Some(every), Some(full)) = (definition.every, definition.full) else { return because("it has no time") };
    if touches.is_empty() {
        return because("there is no \"touches\"");
    }
    if every >= full {
        return because("\"full\" is no longer than \"every\"");
    }
    if let Some(table) = reads.iter().find(|table| !touches.iter().any(|touch| touch.table.oid == table.oid)) {
        return Ok(Some(format!("it reads {}, which is not in \"touches\"", table.name)));
    }
    if let Some(word) = word_of_time(&definition.query) {
        return Ok(Some(format!("its query says '{word}'")));
    }
    let mut asked = vec![(String::from("its query"), definition.query.clone())];
    for touch in touches {
        let of = |text: &String| {
            (format!("\"touches\" of {}", touch.table.name), format!("SELECT ({text}\n) FROM {} AS row", touch.table.sql))
        };
        asked.extend(touch.keys.iter().flatten().chain(&touch.organization).map(of));
    }
    for (what, sql) in asked {
        let Called { functions, operators, read_as, fickle, among_others } = subxact::rehearse(|| {
            let _fence = fit::fence();
            let _acting = role::act_as(run_as);
            called::by_query(&sql)
        })?;
        if let Some(does) = fickle {
            return Ok(Some(format!("{what} {does}")));
        }
        if read_as.iter().any(|oid| TIMES.contains(oid)) {
            return Ok(Some(format!("{what} reads a time out of a text, which may say 'now'")));
        }
        let names = spi::read::<String>(FICKLE, &[spi::arg(functions), spi::arg(operators), spi::arg(STEADY)])?;
        if let Some(names) = names {
            return Ok(Some(format!("{what} calls {names}, whose result may change although nothing is written")));
        }
        if among_others {
            return because("its query has a LIMIT, OFFSET, DISTINCT ON or window, so that a changed row may concern any key");
        }
    }
    if let Some(column) = key.iter().find(|column| !column.deterministic) {
        return Ok(Some(format!("of \"{}\" in its key equal texts may be written differently", column.name)));
    }
    let types: Vec<Oid> = key.iter().map(|column| column.type_oid).collect();
    match spi::read::<String>(UNLIKE, &[spi::arg(types)])? {
        Some(name) => Ok(Some(format!("its key is of type {name}, of which equal values may be written differently"))),
        None => Ok(None),
    }
}

/// A literal that is read as a time is read anew with each look.
fn word_of_time(query: &str) -> Option<&'static str> {
    let query = query.to_ascii_lowercase();
    // Every second piece stands between quotes; whoever doubles them gets one more piece. Where quotes may be something else every piece may be one.
    let odd = ["--", "/*", "\"", "$", "\\", "u&"].iter().any(|sign| query.contains(sign));
    let literals: Vec<&str> = if odd { query.split('\'').collect() } else { query.split('\'').skip(1).step_by(2).collect() };
    ["now", "today", "tomorrow", "yesterday"]
        .into_iter()
        .find(|word| literals.iter().any(|literal| literal.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == *word)))
}

/// The tables of a rule as they are: what they are made of, and why the changes of one are not all noted.
pub struct Watch {
    pub mark: String,
    pub gap: Option<String>,
}

/// `{tables}`: an array of their numbers; `{events}`: how many triggers each has.
const WATCH: &str = "
WITH below AS (
    SELECT t.id AS oid, true AS named FROM pg_catalog.unnest({tables}) AS t (id)
     UNION SELECT p.relid::oid, false FROM pg_catalog.unnest({tables}) AS t (id) CROSS JOIN LATERAL pg_catalog.pg_partition_tree(t.id::pg_catalog.regclass) AS p WHERE p.relid::oid <> t.id),
r AS (
    SELECT c.oid, c.relfilenode, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relpersistence, b.named AND c.relispartition AS above,
           EXISTS (SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS h ON h.oid = i.inhrelid AND NOT h.relispartition WHERE i.inhparent = c.oid) AS heirs,
           EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS s WHERE s.srrelid = c.oid) AS subscribed,
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger AS t
             WHERE t.tgrelid = c.oid AND t.tgfoid = pg_catalog.to_regprocedure('usher.note_touched()') AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')) AS fires
      FROM below AS b JOIN pg_catalog.pg_class AS c ON c.oid = b.oid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace)
SELECT pg_catalog.md5(pg_catalog.string_agg(r.oid || ' ' || r.relfilenode, ' ' ORDER BY r.oid)) AS mark,
       (SELECT CASE WHEN g.relkind = 'f' THEN g.name || ' is a foreign table'
                    WHEN g.relpersistence = 'u' THEN g.name || ' is unlogged, and a crash empties it'
                    WHEN g.heirs THEN g.name || ' has tables that inherit from it'
                    WHEN g.above THEN g.name || ' is a partition, which is also written by way of the table above it'
                    WHEN g.subscribed THEN 'a subscription writes into ' || g.name
                    ELSE 'the triggers usher_touched of ' || g.name || ' are missing or off' END
          FROM r AS g
         WHERE g.relkind = 'f' OR g.relpersistence = 'u' OR g.heirs OR g.above OR g.subscribed OR g.fires < {events} ORDER BY g.oid LIMIT 1) AS gap
  FROM r";

fn watch_of(tables: &str) -> String {
    WATCH.replace("{tables}", tables).replace("{events}", &EVENTS.len().to_string())
}

/// Rules whose tables are others than when their last look at everything began, or may be written unseen now: a partition below a partition, a table that inherits,
/// triggers that somebody has switched off. Everything is looked at. To be asked once in a while, and after changes of the schema: nobody tells of all of these.
/// Runs with the owner's rights.
pub fn look_around() -> Result<()> {
    let tables = "ARRAY(SELECT d.object FROM usher.rule_dependencies AS d WHERE d.rule_id = l.id AND d.watched AND d.class = 'pg_catalog.pg_class'::pg_catalog.regclass)";
    let others = spi::read::<Vec<i32>>(
        &format!(
            "SELECT pg_catalog.array_agg(l.id) FROM usher.rules AS l CROSS JOIN LATERAL ({}) AS w
              WHERE (l.keyed_now OR l.sweep_sure) AND l.enabled AND l.state = 'active' AND (w.gap IS NOT NULL OR w.mark IS DISTINCT FROM l.watch)",
            watch_of(tables)
        ),
        &[],
    )?;
    match others {
        Some(rules) => anew(&rules),
        None => Ok(()),
    }
}

/// Runs with the owner's rights.
pub fn watch(fitted: &Fitted) -> Result<Watch> {
    // Those that it reads are among them.
    let tables: Vec<Oid> = fitted.touches.iter().map(|touch| touch.table.oid).collect();
    let found = spi::read_all(&watch_of("$1::oid[]"), &[spi::arg(tables)], |row| {
        Ok(Watch { mark: row.get::<String>(1)?.unwrap_or_default(), gap: row.get::<String>(2)? })
    })?;
    Ok(found.into_iter().next().unwrap_or(Watch { mark: String::new(), gap: Some("its tables are gone".to_owned()) }))
}

/// Everybody who may have written something without noting it, because he began before the transaction with this number, has ended: no transaction
/// runs with an older one, and nobody reads what was there before.
fn everybody_notes(from: i64) -> Result<bool> {
    spi::read_all("SELECT pg_catalog.pg_stat_clear_snapshot()", &[], |_| Ok(()))?;
    let oldest = spi::one::<i64>("SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint", &[])?;
    let next = xact::next_xid();
    let seen = spi::one::<Vec<i64>>(
        "SELECT pg_catalog.array_agg(a.backend_xmin::text::bigint) FROM pg_catalog.pg_stat_activity AS a
          WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
            AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())",
        &[],
    )?;
    // Numbers of which only the lower half is told lie behind the next one.
    let whole = |low: i64| next - i64::from((next as u32).wrapping_sub(low as u32));
    let oldest = seen.unwrap_or_default().into_iter().map(whole).chain(oldest).min();
    Ok(oldest.is_some_and(|oldest| oldest > from))
}

/// Whether a look at everything that begins now is enough for a while: None, it is. Otherwise why not. Whoever asks is the only one who looks for the
/// rule. Runs with the owner's rights.
pub fn doubts(rule: i32, fitted: &Fitted) -> Result<Option<String>> {
    if let Some(why) = &fitted.whole {
        return Ok(Some(why.clone()));
    }
    let watch = watch(fitted)?;
    let known = spi::all(
        "SELECT l.watch, l.watched_from, l.keys_at > pg_catalog.clock_timestamp() + l.keys_every, l.whole_because FROM usher.rules AS l WHERE l.id = $1",
        &[spi::arg(rule)],
        |row| Ok((row.get::<String>(1)?, row.get::<i64>(2)?, row.get::<bool>(3)? == Some(true), row.get::<String>(4)?)),
    )?;
    let (mark, from, later, because) = known.into_iter().next().unwrap_or_default();
    let from = from.filter(|_| mark.as_ref() == Some(&watch.mark));
    if let Some(gap) = watch.gap {
        spi::run(
            "UPDATE usher.rules AS l SET watch = NULL, watched_from = NULL WHERE l.id = $1 AND l.watch IS NOT NULL",
            &[spi::arg(rule)],
        )?;
        return Ok(Some(gap));
    }
    if later {
        return Ok(because.or_else(|| Some("a look at touched keys failed".to_owned())));
    }
    match from {
        Some(from) if everybody_notes(from)? => Ok(None),
        Some(_) => Ok(Some("transactions run that began before it".to_owned())),
        None => {
            spi::run(
                "UPDATE usher.rules AS l SET watch = $2, watched_from = $3 WHERE l.id = $1",
                &[spi::arg(rule), spi::arg(watch.mark), spi::arg(xact::next_xid())],
            )?;
            Ok(Some("transactions may run that began before it".to_owned()))
        }
    }
}

/// As what the tables' counters have said (`rules.changes`): a look at everything that is under way may be past what has changed, and is followed by another.
pub const ONCE_MORE: i64 = -1;

/// Something was touched of which the keys are not known: everything is looked at, and until that is done as often as the keys would have been.
/// Runs with the owner's rights.
pub fn doubt(rule: i32, because: &str) -> Result<()> {
    spi::run(
        &format!(
            "UPDATE usher.rules AS l
            SET keyed_now = false, sweep_sure = false, whole_because = $2, changes = {ONCE_MORE},
                check_at = CASE WHEN l.check_at IS NOT NULL THEN LEAST(l.check_at, pg_catalog.clock_timestamp()) END
          WHERE l.id = $1"
        ),
        &[spi::arg(rule), spi::arg(because)],
    )?;
    Ok(())
}

/// What a rule stands on is another than before: who has written meanwhile may not have noted what it concerns. Runs with the owner's rights.
pub fn anew(rules: &[i32]) -> Result<()> {
    spi::run(
        "UPDATE usher.rules AS l
            SET keyed_now = false, sweep_sure = false, watch = NULL, watched_from = NULL, changes = NULL,
                check_at = CASE WHEN l.keyed_now THEN pg_catalog.clock_timestamp() ELSE l.check_at END
          WHERE l.id = ANY ($1) AND l.keyed",
        &[spi::arg(rules.to_vec())],
    )?;
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::word_of_time;

    #[test]
    fn a_word_of_time_is_one_inside_a_literal() {
        assert_eq!(word_of_time("SELECT id FROM a.b WHERE due < 'today'::date"), Some("today"));
        assert_eq!(word_of_time("SELECT id FROM a.b WHERE due < date 'Yesterday 12:00'"), Some("yesterday"));
        assert_eq!(word_of_time("SELECT now FROM a.today WHERE status = 'nowhere' AND other = 'known'"), None);
        assert_eq!(word_of_time("SELECT 'it''s' AS a FROM b WHERE c > 'now'"), Some("now"));
        assert_eq!(word_of_time("SELECT id FROM a.b WHERE due < $$today$$::date"), Some("today"));
        assert_eq!(word_of_time("SELECT id FROM a.b WHERE due < $d$today$d$::date"), Some("today"));
        assert_eq!(word_of_time("SELECT id -- the supplier's\n FROM a.b WHERE due < 'today'"), Some("today"));
        assert_eq!(word_of_time("SELECT id FROM a.b"), None);
    }
}
