//! What is paused, as this process knows it, and letting its jobs go when a pause is over.
//!
//! Owns `usher.pause_orders`; who may pause what is decided in [`super::pause`]. Everybody keeps the few rows in memory until they
//! change, so that a batch asks nothing while nothing is paused, and never looks at the jobs that wait. A job that a worker
//! comes upon is put aside with the number of its pause; when that is over, slices of them are due again, the oldest first.
//!
//! A pause's row stays until its last job has gone. Whoever puts jobs aside has a share in the row, and whoever deletes it must
//! have it alone: no job is left behind under a pause that is no more.

use super::group::Group;
use crate::error::Result;
use crate::flow::store::Flow;
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::{self, ids, spi, xact};
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

type Organization = [u8; 16];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    pub id: i32,
    pub flow: Option<i32>,
    pub target: Option<String>,
    pub organization: Option<Organization>,
    /// Microseconds, on the scale of [`ids::clock`].
    pub until: Option<i64>,
    /// Or what it means is gone.
    pub resumed: bool,
}

impl Pause {
    fn holds(&self, now: i64) -> bool {
        !self.resumed && self.until.is_none_or(|until| until > now)
    }

    fn means(&self, flow: Option<i32>, target: Option<&str>) -> bool {
        self.flow.is_none_or(|own| Some(own) == flow) && self.target.as_deref().is_none_or(|own| Some(own) == target)
    }
}

#[derive(Debug, Default)]
pub struct Pauses(Vec<Pause>);

/// What of a flow's jobs is paused.
#[derive(Debug, PartialEq, Eq)]
pub enum Paused {
    Nothing,
    All(i32),
    /// The jobs of these organizations.
    Of(HashMap<Organization, i32>),
}

impl Pauses {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is paused of the jobs of a flow (None: of an external system) that go to `target`.
    pub fn of(&self, flow: Option<i32>, target: Option<&str>, now: i64) -> Paused {
        let mut organizations = HashMap::new();
        for pause in self.0.iter().filter(|pause| pause.holds(now) && pause.means(flow, target)) {
            match pause.organization {
                None => return Paused::All(pause.id),
                Some(organization) => organizations.entry(organization).or_insert(pause.id),
            };
        }
        if organizations.is_empty() { Paused::Nothing } else { Paused::Of(organizations) }
    }

    pub fn of_job(&self, flow: &Flow, organization: Uuid) -> Option<i32> {
        match self.of(Some(flow.id), flow.definition.to.as_deref(), ids::clock()) {
            Paused::Nothing => None,
            Paused::All(pause) => Some(pause),
            Paused::Of(organizations) => organizations.get(organization.as_bytes()).copied(),
        }
    }

    /// Those that are over and may still have jobs.
    fn over(&self, now: i64) -> Vec<i32> {
        self.0.iter().filter(|pause| !pause.holds(now)).map(|pause| pause.id).collect()
    }

    /// Microseconds until the next one ends by itself.
    fn next_end(&self, now: i64) -> Option<i64> {
        self.0.iter().filter(|pause| pause.holds(now)).filter_map(|pause| pause.until).min().map(|until| until - now)
    }

    fn ids(&self, now: i64) -> Vec<i32> {
        self.0.iter().filter(|pause| pause.holds(now)).map(|pause| pause.id).collect()
    }
}

thread_local! {
    static KNOWN: RefCell<(u64, Rc<Pauses>)> = RefCell::new((0, Rc::default()));
    /// The pause that is being let go, and the position up to which that has been done: what was changed is not walked over again.
    static LET_GO: Cell<(i32, i64)> = const { Cell::new((0, 0)) };
}

/// What is paused now. Runs with the owner's rights.
pub fn current(installed: Installed) -> Result<Rc<Pauses>> {
    if !installed.up_to_date {
        return Ok(Rc::default());
    }
    let generation = pg::relcache::pauses_generation();
    let (known, pauses) = KNOWN.with_borrow(|(known, pauses)| (*known, pauses.clone()));
    if known == generation && xact::sees_new_commits() {
        return Ok(pauses);
    }
    let rows = spi::read_all(
        "SELECT p.id, p.flow_id, p.target_system, p.organization_id, p.until,
                p.resumed_at IS NOT NULL OR p.flow_id IS NOT NULL AND NOT EXISTS (SELECT FROM usher.flows f WHERE f.id = p.flow_id)
                OR p.organization_id IS NOT NULL AND NOT EXISTS (SELECT FROM usher.organizations o WHERE o.id = p.organization_id)
           FROM usher.pause_orders AS p ORDER BY p.id",
        &[],
        |row| {
            Ok(Pause {
                id: row.get::<i32>(1)?.unwrap_or_default(),
                flow: row.get::<i32>(2)?,
                target: row.get::<String>(3)?,
                organization: row.get::<Uuid>(4)?.map(|id| *id.as_bytes()),
                until: row.get::<TimestampWithTimeZone>(5)?.map(i64::from),
                resumed: row.get::<bool>(6)?.unwrap_or(false),
            })
        },
    )?;
    let pauses = Rc::new(Pauses(rows));
    // What one snapshot shows may be old.
    KNOWN.set((if xact::sees_new_commits() { generation } else { 0 }, pauses.clone()));
    Ok(pauses)
}

/// What is paused, or over, has changed: everybody reads it anew when this transaction commits.
pub fn changed() {
    if let Some(relation) = pg::catalog::usher_relation("pause_orders") {
        pg::catalog::invalidate(relation);
    }
    pg::relcache::forget_pauses();
    xact::note_plans_changed();
}

/// Which of these pauses are there and stay so until this transaction has ended, so that jobs may be put aside for them.
pub fn keep(pauses: Vec<i32>) -> Result<HashSet<i32>> {
    let kept = spi::all(
        "SELECT p.id FROM usher.pause_orders AS p WHERE p.id = ANY ($1) ORDER BY p.id FOR KEY SHARE SKIP LOCKED",
        &[spi::arg(pauses)],
        |row| Ok(row.get::<i32>(1)?),
    )?;
    Ok(kept.into_iter().flatten().collect())
}

/// The jobs of a group that are paused, by their numbers, each with its pause.
pub fn paused(installed: Installed, group: &Group, flow: &Flow) -> Result<Vec<(i32, i32)>> {
    let pauses = current(installed)?;
    if pauses.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match pauses.of(Some(flow.id), flow.definition.to.as_deref(), ids::clock()) {
        Paused::Nothing => Vec::new(),
        Paused::All(pause) => (1..=group.batch.size).map(|n| (n, pause)).collect(),
        Paused::Of(organizations) => {
            let of_jobs = group.batch.organizations.value::<Vec<Uuid>>()?.unwrap_or_default();
            (1..).zip(of_jobs).filter_map(|(n, of)| organizations.get(of.as_bytes()).map(|pause| (n, *pause))).collect()
        }
    })
}

/// Of jobs (by their numbers) that have an earlier change of their row before them: those for which that one is paused, with its
/// pause. They wait for the same, in their place, and not one by one for each other.
pub fn behind(installed: Installed, group: &Group, siblings: &[i32], numbers: &[i32]) -> Result<HashMap<i32, i32>> {
    if numbers.is_empty() || current(installed)?.is_empty() {
        return Ok(HashMap::new());
    }
    let found = spi::all(
        "SELECT b.n, w.pause FROM unnest($4::integer[]) AS b (n)
          CROSS JOIN LATERAL (SELECT pg_catalog.max(w.paused_by) AS pause FROM usher.queue_waiting w
                               WHERE w.flow_id = ANY ($1) AND w.row_key = ($2::bigint[])[b.n] AND w.seq < ($3::bigint[])[b.n] AND w.waiting_for = 'paused') AS w
          WHERE w.pause IS NOT NULL",
        &[spi::arg(siblings.to_vec()), group.row_keys.arg(), group.batch.positions.arg(), spi::arg(numbers.to_vec())],
        |row| Ok((row.get::<i32>(1)?.unwrap_or_default(), row.get::<i32>(2)?.unwrap_or_default())),
    )?;
    if found.is_empty() {
        return Ok(HashMap::new());
    }
    let kept = keep(found.iter().map(|(_, pause)| *pause).collect::<HashSet<_>>().into_iter().collect())?;
    Ok(found.into_iter().filter(|(_, pause)| kept.contains(pause)).collect())
}

/// Calls are looked through so many at a time, beginning with the next one.
const LOOKED_THROUGH: i32 = 1_000;

/// Puts aside the first calls of some lanes that are paused. Returns how many. Runs with the owner's rights.
pub fn put_calls_aside(installed: Installed, lanes: &[i16]) -> Result<usize> {
    let kept = keep(current(installed)?.ids(ids::clock()))?;
    spi::run(
        "WITH c AS MATERIALIZED (
             SELECT w.ctid AS at, w.flow_id, w.organization_id FROM usher.queue_waiting AS w
              WHERE w.waiting_for = 'external call' AND w.due_at IS NULL AND w.lane = ANY ($1::smallint[])
              ORDER BY w.lane, w.seq LIMIT $3 FOR UPDATE SKIP LOCKED),
         m AS MATERIALIZED (
             SELECT c.at, p.id FROM c JOIN usher.flows AS f ON f.id = c.flow_id
              CROSS JOIN LATERAL (SELECT p.id FROM usher.pause_orders AS p
                                   WHERE p.id = ANY ($2) AND COALESCE(p.flow_id = c.flow_id, true) AND COALESCE(p.organization_id = c.organization_id, true)
                                     AND (p.target_system IS NULL OR p.target_system = f.definition ->> 'to')
                                   ORDER BY p.id LIMIT 1) AS p)
         UPDATE usher.queue_waiting AS w SET waiting_for = 'paused', paused_by = m.id FROM m WHERE w.ctid = m.at",
        &[spi::arg(lanes.to_vec()), spi::arg(kept.into_iter().collect::<Vec<_>>()), spi::arg(i64::from(LOOKED_THROUGH))],
    )
}

/// What [`let_go`] has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LetGo {
    /// No pause is over. Seconds until the next one is.
    Nothing(Option<f64>),
    /// Jobs are due now, or a pause is gone: look again.
    Some,
    /// Jobs that were let go before come first, or somebody has the row: look again a little later.
    Later,
}

/// So many jobs are due already, of all lanes together. Lane by lane, as the index has them: what waits for later is not walked
/// over.
fn crowded(most: i32) -> Result<bool> {
    let _index = Nest::open().index_scans();
    let crowded = spi::read::<bool>(
        "SELECT pg_catalog.count(*) >= $1
           FROM (SELECT FROM unnest('{0,1,2,3,4}'::smallint[]) AS l (lane)
                  CROSS JOIN LATERAL (SELECT w.seq FROM usher.queue_waiting AS w
                                       WHERE w.lane = l.lane AND w.due_at <= (SELECT pg_catalog.clock_timestamp())
                                         AND w.waiting_for NOT IN ('external worker', 'external call', 'batch window')
                                       ORDER BY w.due_at, w.seq LIMIT $1) AS d
                  LIMIT $1) AS d",
        &[spi::arg(i64::from(most))],
    )?;
    Ok(crowded == Some(true))
}

/// Makes the next `most` jobs of a pause due that is over. Runs with the owner's rights.
pub fn let_go(installed: Installed, most: i32) -> Result<LetGo> {
    let (pauses, now) = (current(installed)?, ids::clock());
    let over = pauses.over(now);
    let Some(pause) = over.iter().copied().find(|id| *id == LET_GO.get().0).or(over.first().copied()) else {
        return Ok(LetGo::Nothing(pauses.next_end(now).map(|micros| micros as f64 / 1e6)));
    };
    if crowded(most)? {
        return Ok(LetGo::Later);
    }
    let (of, position) = LET_GO.get();
    let position = if of == pause { position } else { 0 };
    let (jobs, last) = spi::all(
        "WITH s AS MATERIALIZED (
             SELECT w.ctid AS at FROM usher.queue_waiting AS w
              WHERE w.waiting_for = 'paused' AND w.paused_by = $1 AND w.seq > $2 ORDER BY w.seq LIMIT $3 FOR UPDATE SKIP LOCKED),
         u AS (
             UPDATE usher.queue_waiting AS w SET waiting_for = 'run_at', due_at = pg_catalog.now(), paused_by = NULL
              WHERE w.ctid = ANY (ARRAY(SELECT s.at FROM s)) RETURNING w.seq)
         SELECT pg_catalog.count(*), pg_catalog.max(u.seq) FROM u",
        &[spi::arg(pause), spi::arg(position), spi::arg(i64::from(most))],
        |row| Ok((row.get::<i64>(1)?.unwrap_or(0), row.get::<i64>(2)?)),
    )?
    .first()
    .copied()
    .unwrap_or_default();
    if let Some(last) = last {
        LET_GO.set((pause, last));
        xact::note_due_changed();
    }
    if jobs >= i64::from(most) {
        return Ok(LetGo::Some);
    }
    // Some may have come with lower positions, or been locked.
    LET_GO.set((0, 0));
    if position > 0 || jobs > 0 {
        return Ok(LetGo::Some);
    }
    let alone = spi::run("SELECT FROM usher.pause_orders WHERE id = $1 FOR UPDATE SKIP LOCKED", &[spi::arg(pause)])? > 0;
    if !alone {
        // Deleted by another process, or jobs are being put aside for it.
        pg::relcache::forget_pauses();
        return Ok(LetGo::Later);
    }
    let gone = spi::all(
        "DELETE FROM usher.pause_orders AS p
          WHERE p.id = $1 AND (p.resumed_at IS NOT NULL OR p.until <= pg_catalog.clock_timestamp()
                             OR p.flow_id IS NOT NULL AND NOT EXISTS (SELECT FROM usher.flows f WHERE f.id = p.flow_id)
                             OR p.organization_id IS NOT NULL AND NOT EXISTS (SELECT FROM usher.organizations o WHERE o.id = p.organization_id))
            AND NOT EXISTS (SELECT FROM usher.queue_waiting AS w WHERE w.waiting_for = 'paused' AND w.paused_by = $1)
         RETURNING p.organization_id, p.resumed_at IS NULL,
                   COALESCE('flow ' || (SELECT f.name FROM usher.flows AS f WHERE f.id = p.flow_id), 'system ' || p.target_system, 'all')",
        &[spi::arg(pause)],
        |row| Ok((row.get::<Uuid>(1)?, row.get::<bool>(2)?.unwrap_or(false), row.get::<String>(3)?.unwrap_or_default())),
    )?;
    if gone.is_empty() {
        // Taken up again, or somebody has a lock on one of its jobs.
        pg::relcache::forget_pauses();
        return Ok(LetGo::Later);
    }
    for (organization, by_itself, what) in gone {
        if by_itself {
            let why = serde_json::json!({"reason": "its time was over"});
            audit::note(installed, organization, "usher.jobs.resumed", &what, None, Some(why))?;
        }
        changed();
    }
    Ok(LetGo::Some)
}

/// A slice failed: what is remembered of it may not have happened.
pub fn forget() {
    LET_GO.set((0, 0));
}

/// How many jobs wait for a pause, at most `most`: those that were put aside, and those of external systems that are not handed out.
pub fn waiting(pause: i32, most: i64) -> Result<Option<i64>> {
    spi::read::<i64>(
        "SELECT LEAST($2,
                (SELECT pg_catalog.count(*) FROM (SELECT FROM usher.queue_waiting AS w WHERE w.waiting_for = 'paused' AND w.paused_by = p.id LIMIT $2) AS w)
              + (SELECT pg_catalog.count(*) FROM (SELECT FROM usher.queue_waiting AS w
                  WHERE p.organization_id IS NULL AND w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.target_system = p.target_system AND w.lane >= 0 LIMIT $2) AS w)
              + (SELECT pg_catalog.count(*) FROM (SELECT FROM usher.queue_waiting AS w
                  WHERE p.flow_id IS NULL AND w.waiting_for = 'external worker' AND w.due_at IS NULL AND w.organization_id = p.organization_id
                    AND (p.target_system IS NULL OR w.target_system = p.target_system) LIMIT $2) AS w))
           FROM usher.pause_orders AS p WHERE p.id = $1",
        &[spi::arg(pause), spi::arg(most)],
    )
}

#[cfg(test)]
mod unit {
    use super::{Pause, Paused, Pauses};
    use std::collections::HashMap;

    fn pause(id: i32, flow: Option<i32>, target: Option<&str>, organization: Option<u8>) -> Pause {
        let organization = organization.map(|n| [n; 16]);
        Pause { id, flow, target: target.map(str::to_owned), organization, until: None, resumed: false }
    }

    #[test]
    fn a_pause_means_its_flow_its_system_or_its_organization() {
        let pauses = Pauses(vec![
            pause(1, Some(7), None, None),
            pause(2, None, Some("books"), Some(1)),
            pause(3, None, None, Some(2)),
            pause(4, Some(8), None, Some(1)),
        ]);
        let of = |pairs: &[(u8, i32)]| Paused::Of(pairs.iter().map(|(n, id)| ([*n; 16], *id)).collect::<HashMap<_, _>>());
        assert_eq!(pauses.of(Some(7), Some("shop"), 0), Paused::All(1));
        assert_eq!(pauses.of(Some(9), Some("books"), 0), of(&[(1, 2), (2, 3)]));
        assert_eq!(pauses.of(Some(8), None, 0), of(&[(2, 3), (1, 4)]));
        assert_eq!(pauses.of(None, Some("shop"), 0), of(&[(2, 3)]), "an external system's");
        assert_eq!(Pauses::default().of(Some(7), None, 0), Paused::Nothing);
    }

    #[test]
    fn a_pause_holds_until_its_time_or_until_it_is_resumed() {
        let mut timed = pause(1, Some(7), None, None);
        timed.until = Some(100);
        let mut resumed = pause(2, Some(7), None, None);
        resumed.resumed = true;
        let pauses = Pauses(vec![timed, resumed]);
        assert_eq!(pauses.of(Some(7), None, 99), Paused::All(1));
        assert_eq!((pauses.over(99), pauses.next_end(99)), (vec![2], Some(1)));
        assert_eq!(pauses.of(Some(7), None, 100), Paused::Nothing);
        assert_eq!((pauses.over(100), pauses.next_end(100)), (vec![1, 2], None));
    }
}
