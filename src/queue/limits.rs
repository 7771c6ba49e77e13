//! Limits on what goes through: which ones a job counts for, who may pass now, and whose turn comes next.
//!
//! How much was let through is kept in shared memory ([`crate::pg::buckets`]) and written to `usher.limit_marks` in the same
//! transaction, which is where it comes from when the memory knows nothing. A job that may not pass waits with the key of the
//! limit that holds it longest. Of each key and lane only the first has a time; at that time as many as may pass are made due
//! together, and the next one gets the next time. So nobody else is looked at, however many wait. Runs with the owner's rights.

use crate::error::Result;
use crate::flow::limits::{self, Bound, Limit, Per};
use crate::flow::store::{self as flows, Flow};
use crate::pg::buckets::{self, Asked, Pace, Verdict, Wish};
use crate::pg::guc::Nest;
use crate::pg::shmem::LANES;
use crate::pg::{locks, relcache, spi, xact};
use crate::setup::Installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, Uuid};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// Longer values of a key are told by their beginning and their hash.
const LONGEST_VALUE: usize = 100;

/// One limit that the jobs of a flow count for.
pub struct Rule {
    /// `flow 12, limit 1` or `system books, limit 1`.
    name: String,
    per: Scope,
    pub bound: Bound,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Organization,
    /// The number of the key's expression among those of its flow.
    Key(usize),
}

impl Rule {
    /// What the job of an organization counts for; `values` of the flow's keys.
    pub fn key(&self, organization: Uuid, values: &[Option<String>]) -> String {
        let mut text = self.name.clone();
        if self.per != Scope::All {
            let _ = write!(text, ", organization {organization}");
        }
        if let Scope::Key(number) = self.per {
            match values.get(number).and_then(Option::as_deref) {
                // Without a value they count together: less goes through, not more.
                None => text += ", no key",
                Some(value) if value.len() <= LONGEST_VALUE => {
                    let _ = write!(text, ", key {value}");
                }
                Some(value) => {
                    let mut hash = DefaultHasher::new();
                    value.hash(&mut hash);
                    let begin: String = value.chars().take(LONGEST_VALUE / 4).collect();
                    let _ = write!(text, ", key {begin}… {:016x}", hash.finish());
                }
            }
        }
        text
    }

    /// Of whom the limit counts the jobs; None: of all.
    pub fn organization(&self, of: Uuid) -> Option<Uuid> {
        (self.per != Scope::All).then_some(of)
    }

    /// Its number among the limits of its flow or system, from 0.
    pub fn number(&self) -> usize {
        self.name.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).map_or(0, |number| number.saturating_sub(1))
    }

    pub fn is_per_key(&self) -> bool {
        matches!(self.per, Scope::Key(_))
    }

    pub fn pace(&self) -> Option<Pace> {
        match self.bound {
            Bound::Rate(rate) => Some(Pace { interval: rate.interval, burst: rate.burst }),
            Bound::Concurrency(_) => None,
        }
    }

    /// True when a key is one of this limit's.
    pub fn has(&self, key: &str) -> bool {
        key.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
    }
}

type BySystem = Rc<BTreeMap<String, Vec<Limit>>>;

thread_local! {
    /// The limits of systems, and whether anything is limited, as of a generation of `usher.flows`.
    static SYSTEMS: RefCell<(u64, BySystem)> = RefCell::new((0, Rc::default()));
    static IN_USE: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

/// The limits of all systems that have some.
pub fn systems(installed: Installed) -> Result<BySystem> {
    let generation = relcache::generation();
    let (known, systems) = SYSTEMS.with_borrow(|(known, systems)| (*known, systems.clone()));
    if known == generation {
        return Ok(systems);
    }
    let mut found = BTreeMap::new();
    if installed.up_to_date {
        xact::remember_only_now();
        let stored = spi::read_all("SELECT s.name, s.limits FROM usher.systems s WHERE s.limits IS NOT NULL", &[], |row| {
            Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<JsonB>(2)?.map(|json| json.0).unwrap_or_default()))
        })?;
        for (name, stored) in stored {
            found.insert(name, limits::of_system(&stored).map_err(flows::refused)?);
        }
    }
    let found = Rc::new(found);
    SYSTEMS.set((generation, found.clone()));
    Ok(found)
}

/// True when some flow or system has a limit: else nothing here costs a statement.
pub fn in_use(installed: Installed) -> Result<bool> {
    let generation = relcache::generation();
    let (known, any) = IN_USE.get();
    if known == generation {
        return Ok(any);
    }
    let any = installed.up_to_date
        && (!systems(installed)?.is_empty()
            || spi::read::<bool>("SELECT EXISTS (SELECT FROM usher.flows f WHERE f.definition ? 'limits')", &[])? == Some(true));
    IN_USE.set((generation, any));
    Ok(any)
}

fn made(limits: &[Limit], owner: &str) -> Vec<Rule> {
    let mut keys = 0;
    let rule = |(number, limit): (usize, &Limit)| {
        let per = match limit.per {
            Per::All => Scope::All,
            Per::Organization => Scope::Organization,
            Per::Key(_) => {
                keys += 1;
                Scope::Key(keys - 1)
            }
        };
        Rule { name: format!("{owner}, limit {}", number + 1), per, bound: limit.bound }
    };
    limits.iter().enumerate().map(rule).collect()
}

/// The limits of a system.
pub fn of_system(installed: Installed, system: &str) -> Result<Vec<Rule>> {
    Ok(systems(installed)?.get(system).map(|limits| made(limits, &format!("system {system}"))).unwrap_or_default())
}

/// The limits that a flow's jobs count for: its own, and those of the system that it writes to.
pub fn of_flow(installed: Installed, flow: &Flow) -> Result<Vec<Rule>> {
    if !in_use(installed)? {
        return Ok(Vec::new());
    }
    let mut rules = made(&flow.definition.limits, &format!("flow {}", flow.id));
    if let Some(system) = &flow.definition.to {
        rules.extend(of_system(installed, system)?);
    }
    Ok(rules)
}

/// The limit that a key belongs to, as it is now, and whether callers decide on it as well.
pub fn rule_of(installed: Installed, key: &str) -> Result<Option<(Rule, bool)>> {
    let owner = key.split(", ").next().unwrap_or_default();
    let (rules, shared) = if let Some(id) = owner.strip_prefix("flow ").and_then(|id| id.parse::<i32>().ok()) {
        let flow = flows::newest(id)?;
        (
            flow.as_ref().map(|flow| made(&flow.definition.limits, owner)).unwrap_or_default(),
            flow.is_some_and(|flow| flow.definition.is_external()),
        )
    } else {
        (of_system(installed, owner.strip_prefix("system ").unwrap_or_default())?, true)
    };
    Ok(rules.into_iter().find(|rule| rule.has(key)).map(|rule| (rule, shared)))
}

/// What is written of keys, and who waits for them in lanes.
const READ: &str = "
SELECT k.n::integer,
       (EXTRACT(epoch FROM (SELECT m.spent_until FROM usher.limit_marks m WHERE m.limit_key = k.key ORDER BY m.spent_until DESC LIMIT 1)
                - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint,
       (SELECT pg_catalog.min(f.seq) FROM unnest($2::smallint[]) AS l (lane)
         CROSS JOIN LATERAL (SELECT w.seq FROM usher.queue_waiting w WHERE w.limit_key = k.key AND w.lane = l.lane ORDER BY w.seq LIMIT 1) AS f)
  FROM unnest($1::text[]) WITH ORDINALITY AS k (key, n)";

/// Keys of a batch, each once.
#[derive(Default)]
pub struct Keys {
    asked: Vec<Asked>,
    index: HashMap<String, usize>,
}

impl Keys {
    /// The index of a key.
    pub fn add(&mut self, text: String, pace: Pace, organization: Option<Uuid>) -> usize {
        if let Some(index) = self.index.get(&text) {
            return *index;
        }
        self.index.insert(text.clone(), self.asked.len());
        self.asked.push(Asked { text, organization, pace, spent: 0, waits: None });
        self.asked.len() - 1
    }

    pub fn text(&self, index: usize) -> &str {
        &self.asked[index].text
    }

    fn read(&mut self, lane: Option<i16>) -> Result<()> {
        let texts: Vec<String> = self.asked.iter().map(|asked| asked.text.clone()).collect();
        let lanes = lane.map_or_else(|| (0..LANES as i16).collect::<Vec<_>>(), |lane| vec![lane]);
        // However few keys there were when the table was looked at last.
        let _plan = Nest::open().one_plan();
        let rows = spi::all(READ, &[spi::arg(texts), spi::arg(lanes)], |row| {
            Ok((row.get::<i32>(1)?.unwrap_or(1), row.get::<i64>(2)?, row.get::<i64>(3)?))
        })?;
        for (n, spent, waits) in rows {
            let asked = &mut self.asked[n as usize - 1];
            asked.spent = spent.unwrap_or(0).saturating_mul(1_000);
            asked.waits = waits;
        }
        Ok(())
    }

    /// Decides on jobs of a lane in their order. What a transaction takes is taken: undone, it is lost.
    pub fn decide(&mut self, wishes: &[Wish], lane: Option<i16>) -> Result<Vec<Verdict>> {
        let now = now();
        loop {
            let as_of = buckets::evicted();
            self.read(lane)?;
            if let Some(verdicts) = buckets::decide(&self.asked, wishes, now, as_of) {
                return Ok(verdicts);
            }
        }
    }

    /// As [`Self::decide`], whoever waits.
    pub fn decide_freely(&mut self, wishes: &[Wish]) -> Result<Vec<Verdict>> {
        let now = now();
        loop {
            let as_of = buckets::evicted();
            self.read(None)?;
            self.asked.iter_mut().for_each(|asked| asked.waits = None);
            if let Some(verdicts) = buckets::decide(&self.asked, wishes, now, as_of) {
                return Ok(verdicts);
            }
        }
    }

    /// How many may pass each key now, in the order in which they were added.
    pub fn look(&mut self) -> Result<Vec<i64>> {
        self.read(None)?;
        Ok(self.asked.iter().map(|asked| buckets::look(asked, now()).0).collect())
    }
}

/// The time of all decisions of a transaction, in nanoseconds: no later than any effect or record of it.
pub fn now() -> i64 {
    xact::began_at().saturating_mul(1_000)
}

/// Seconds from now until a time in nanoseconds.
pub fn until(slot: i64) -> f64 {
    (slot as f64 / 1e9 - crate::pg::ids::clock() as f64 / 1e6).max(0.0)
}

/// Writes down what this transaction has taken. To be called when its effects are done.
pub fn mark() -> Result<()> {
    let marks = buckets::marks();
    if marks.is_empty() {
        return Ok(());
    }
    let mut columns: (Vec<String>, Vec<Option<Uuid>>, Vec<i64>) = Default::default();
    for (key, organization, spent) in marks {
        columns.0.push(key);
        columns.1.push(organization);
        // Rounded up: never more than was let through.
        columns.2.push(spent / 1_000 + 1);
    }
    spi::run(
        "INSERT INTO usher.limit_marks (limit_key, organization_id, spent_until)
         SELECT m.key, m.organization_id, '2000-01-01 00:00:00+00'::timestamptz + pg_catalog.max(m.spent) * interval '1 microsecond'
           FROM unnest($1::text[], $2::uuid[], $3::bigint[]) AS m (key, organization_id, spent) GROUP BY m.key, m.organization_id",
        &[spi::arg(columns.0), spi::arg(columns.1), spi::arg(columns.2)],
    )?;
    Ok(())
}

/// Marks that say nothing any more.
pub fn forget(installed: Installed) -> Result<()> {
    if installed.up_to_date {
        spi::run(
            "DELETE FROM usher.limit_marks m
              WHERE m.spent_until < pg_catalog.now()
                 OR EXISTS (SELECT FROM usher.limit_marks n WHERE n.limit_key = m.limit_key AND n.spent_until > m.spent_until)",
            &[],
        )?;
    }
    Ok(())
}

/// The keys of a lane whose time has come, with what is written of them.
const DUE: &str = "
SELECT d.limit_key, d.lane,
       (EXTRACT(epoch FROM (SELECT m.spent_until FROM usher.limit_marks m WHERE m.limit_key = d.limit_key ORDER BY m.spent_until DESC LIMIT 1)
                - '2000-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
  FROM (SELECT DISTINCT x.limit_key, x.lane
          FROM (SELECT w.limit_key, w.lane FROM usher.queue_waiting w
                 WHERE w.waiting_for = 'rate limit' AND w.lane = ANY ($1::smallint[]) AND w.due_at <= $3
                 ORDER BY w.due_at LIMIT $2) AS x) AS d
 ORDER BY d.limit_key";

/// `$1` keys, `$2` lanes, `$3` how many pass now, `$4` seconds until the next, `$5` now, `$6` whether the limit is gone. Of each key
/// the first ones are due, the next one gets its time, and who had one before its turn follows again, unless there is nothing to
/// wait for any more. Who was due before keeps its place among all that are due.
const PROMOTE: &str = "
WITH k AS (
    SELECT * FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::float8[], $6::boolean[]) AS k (key, lane, passes, next, gone)),
f AS MATERIALIZED (
    SELECT x.at, CASE WHEN x.n <= k.passes OR k.gone THEN LEAST(x.due_at, $5) ELSE pg_catalog.clock_timestamp() + k.next * interval '1 second' END AS due_at
      FROM k CROSS JOIN LATERAL (
           SELECT y.at, y.due_at, pg_catalog.row_number() OVER (ORDER BY y.seq) AS n
             FROM (SELECT w.ctid AS at, w.seq, w.due_at FROM usher.queue_waiting w
                    WHERE w.limit_key = k.key AND w.lane = k.lane AND w.waiting_for = 'rate limit'
                    ORDER BY w.seq LIMIT k.passes + 1 FOR UPDATE SKIP LOCKED) AS y) AS x),
h AS MATERIALIZED (
    SELECT y.at FROM k CROSS JOIN LATERAL (
           SELECT w.ctid AS at FROM usher.queue_waiting w
            WHERE NOT k.gone AND w.limit_key = k.key AND w.lane = k.lane AND w.limit_key IS NOT NULL AND w.waiting_for = 'rate limit' AND w.due_at IS NOT NULL
              FOR UPDATE SKIP LOCKED) AS y)
UPDATE usher.queue_waiting w SET due_at = a.due_at
  FROM (SELECT f.at, f.due_at FROM f UNION ALL SELECT h.at, NULL FROM h WHERE h.at NOT IN (SELECT f.at FROM f)) AS a
 WHERE w.ctid = a.at AND w.due_at IS DISTINCT FROM a.due_at";

/// Before due jobs of lanes are claimed: those whose turn it is along with the first of each limit. Returns the time at which it
/// was looked: who comes first later than that must not be claimed yet, since nobody has been put behind it.
pub fn promote(installed: Installed, lanes: &[i16], most: i32) -> Result<Option<TimestampWithTimeZone>> {
    if !in_use(installed)? {
        return Ok(None);
    }
    let looked = spi::one::<TimestampWithTimeZone>("SELECT pg_catalog.clock_timestamp()", &[])?;
    let _plan = Nest::open().one_plan();
    let due = spi::all(DUE, &[spi::arg(lanes.to_vec()), spi::arg(i64::from(most)), spi::arg(looked)], |row| {
        Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i16>(2)?.unwrap_or(0), row.get::<i64>(3)?.unwrap_or(0)))
    })?;
    if due.is_empty() {
        return Ok(looked);
    }
    let now = now();
    let mut columns: (Vec<String>, Vec<i16>, Vec<i64>, Vec<f64>) = Default::default();
    let mut gone = Vec::new();
    for (key, lane, spent) in due {
        let rule = rule_of(installed, &key)?;
        gone.push(rule.is_none());
        let (passes, next) = match rule {
            Some((rule, shared)) => {
                if shared {
                    // Callers put jobs behind the first as well: what they are about to write must be seen.
                    lock(&key);
                }
                match rule.pace() {
                    Some(pace) => {
                        let asked = Asked {
                            text: key.clone(),
                            organization: None,
                            pace,
                            spent: spent.saturating_mul(1_000),
                            waits: None,
                        };
                        let (passes, next) = buckets::look(&asked, now);
                        (passes.min(i64::from(most)), until(next))
                    }
                    None => (i64::from(most), 0.0),
                }
            }
            // The limit is gone: what waits for it goes on.
            None => (i64::from(most), 0.0),
        };
        columns.0.push(key);
        columns.1.push(lane);
        columns.2.push(passes);
        columns.3.push(next);
    }
    spi::run(
        PROMOTE,
        &[spi::arg(columns.0), spi::arg(columns.1), spi::arg(columns.2), spi::arg(columns.3), spi::arg(looked), spi::arg(gone)],
    )?;
    Ok(looked)
}

/// True when the limits that were asked, of flows (with their versions) and systems, are those of now and stay so until this
/// transaction has ended: then whoever changes them sees what it has put behind them. That a job was let go by a change may be
/// seen before the change itself is heard of.
pub fn stay(installed: Installed, flows: &[(i32, i32)], names: &[String]) -> Result<bool> {
    // Several groups of a batch may be of one flow, or write to one system.
    let flows: BTreeSet<(i32, i32)> = flows.iter().copied().collect();
    let (ids, versions): (Vec<i32>, Vec<i32>) = flows.iter().copied().unzip();
    let same = spi::run(
        "SELECT FROM usher.flows f JOIN unnest($1::integer[], $2::integer[]) AS k (id, version) ON k.id = f.id AND k.version = f.version FOR SHARE OF f SKIP LOCKED",
        &[spi::arg(ids), spi::arg(versions)],
    )?;
    if same < flows.len() {
        return Ok(false);
    }
    let known = systems(installed)?;
    let names: BTreeSet<&String> = names.iter().filter(|name| known.contains_key(*name)).collect();
    if names.is_empty() {
        return Ok(true);
    }
    let stored = spi::all(
        "SELECT s.name, s.limits FROM usher.systems s WHERE s.name = ANY ($1) AND s.limits IS NOT NULL FOR SHARE SKIP LOCKED",
        &[spi::arg(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<JsonB>(2)?.map(|json| json.0).unwrap_or_default())),
    )?;
    let same = stored.iter().filter(|(name, limits)| limits::of_system(limits).ok().as_ref() == known.get(name)).count();
    if same < names.len() {
        SYSTEMS.set((0, Rc::default()));
    }
    Ok(same == names.len())
}

/// Whoever decides on a key that is not one lane's alone waits for others who do, to the end of the transaction.
pub fn lock(key: &str) {
    locks::take_equal(buckets::key_of(key));
}

/// Gives every limit a first one that has lost it: it was cancelled, moved to another lane, or died. Looks at one job of each
/// key and lane.
const HEAL: &str = "
WITH RECURSIVE k AS (
    (SELECT w.limit_key, w.lane FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL ORDER BY w.limit_key, w.lane LIMIT 1)
    UNION ALL
    SELECT n.limit_key, n.lane FROM k CROSS JOIN LATERAL (
           SELECT w.limit_key, w.lane FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL AND (w.limit_key, w.lane) > (k.limit_key, k.lane)
            ORDER BY w.limit_key, w.lane LIMIT 1) AS n)
UPDATE usher.queue_waiting w SET due_at = pg_catalog.clock_timestamp()
 WHERE w.ctid = ANY (ARRAY(
       SELECT f.at FROM k CROSS JOIN LATERAL (
              SELECT x.ctid AS at, x.waiting_for FROM usher.queue_waiting x WHERE x.limit_key = k.limit_key AND x.lane = k.lane ORDER BY x.seq LIMIT 1) AS f
        WHERE f.waiting_for = 'rate limit'
          AND NOT EXISTS (SELECT FROM usher.queue_waiting h WHERE h.limit_key = k.limit_key AND h.lane = k.lane AND h.due_at IS NOT NULL)))";

/// Without any limit nobody asks for whom they held: all of them go on, calls that leave the database as well.
const LET_ALL_GO: &str = "
UPDATE usher.queue_waiting SET waiting_for = 'run_at', limit_key = NULL, limit_keys = NULL, due_at = pg_catalog.clock_timestamp()
 WHERE ctid = ANY (ARRAY(SELECT w.ctid FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL FOR UPDATE SKIP LOCKED))";

pub fn heal(installed: Installed) -> Result<()> {
    if !installed.up_to_date {
        return Ok(());
    }
    let _plan = Nest::open().index_scans();
    if !in_use(installed)? {
        if spi::run(LET_ALL_GO, &[])? > 0 {
            xact::note_due_changed();
        }
    } else {
        if spi::run(HEAL, &[])? > 0 {
            xact::note_due_changed();
        }
        if spi::run(super::call_limits::HEAL, &[])? > 0 {
            xact::note_callers();
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::{Rule, Scope};
    use crate::flow::limits::{Bound, Rate};
    use pgrx::Uuid;

    fn rule(per: Scope) -> Rule {
        Rule { name: "flow 1, limit 1".to_owned(), per, bound: Bound::Rate(Rate { interval: 1, burst: 1 }) }
    }

    #[test]
    fn a_key_tells_its_limit() {
        let organization = Uuid::from_bytes([7; 16]);
        let key = |per, value: Option<&str>| rule(per).key(organization, &[value.map(str::to_owned)]);
        assert_eq!(key(Scope::All, None), "flow 1, limit 1");
        assert!(key(Scope::Key(0), Some("a, key b")).ends_with(", key a, key b"));
        assert!(key(Scope::Key(0), None).ends_with(", no key"));
        assert!(key(Scope::Key(1), Some("a")).ends_with(", no key"));
        let long = "é".repeat(5_000);
        assert!(key(Scope::Key(0), Some(&long)).len() < 250);
        assert_ne!(key(Scope::Key(0), Some(&long)), key(Scope::Key(0), Some(&(long.clone() + "x"))));
        assert!(rule(Scope::Key(0)).has(&key(Scope::Key(0), Some("a"))));
        assert!(!rule(Scope::All).has("flow 1, limit 10"));
        assert!(rule(Scope::All).has("flow 1, limit 1"));
    }
}
