//! Whether the audit log is what it was: `usher.verify_audit_log()`.

use super::chain::{self, Block, Difference, Hash, Kind};
use super::{erasure, seal};
use crate::error::Result;
use crate::pg::{spi, xact};
use std::collections::{BTreeMap, BTreeSet};

/// Rows that are read at a time.
const SLICE: i64 = 10_000;

/// What was found. The first of what is broken is named.
#[derive(Debug, Default)]
pub struct Report {
    pub blocks: i64,
    pub entries: i64,
    /// Not in the chain yet.
    pub unsealed: i64,
    pub broken_block: Option<i64>,
    pub broken_position: Option<i64>,
    pub broken: Option<String>,
}

/// A block whose entries are being read.
struct Open {
    block: Block,
    found: Vec<(i64, Hash)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Right,
    /// Looked at again at the end.
    Wrong,
}

impl Open {
    /// Takes an entry; when all of them are there, they are compared and forgotten.
    fn take(&mut self, position: i64, hash: Hash) {
        if self.state != State::Reading {
            self.state = State::Wrong;
            return;
        }
        self.found.push((position, hash));
        if self.found.len() >= usize::try_from(self.block.entries).unwrap_or(0) {
            self.state = if self.fits() { State::Right } else { State::Wrong };
            self.found = Vec::new();
        }
    }

    fn fits(&mut self) -> bool {
        if !self.found.is_sorted_by_key(|(position, _)| *position) {
            self.found.sort_unstable_by_key(|(position, _)| *position);
        }
        chain::root(self.found.iter().map(|(_, hash)| hash)) == self.block.root
    }
}

/// The blocks that have entries, by day and by the position after which they begin.
#[derive(Default)]
struct Blocks {
    open: Vec<Open>,
    by_day: BTreeMap<i32, Vec<usize>>,
    /// Where the last entry went: the next one most often goes there too.
    last: usize,
}

impl Blocks {
    fn add(&mut self, block: Block) {
        self.by_day.entry(block.day).or_default().push(self.open.len());
        self.open.push(Open { block, found: Vec::new(), state: State::Reading });
    }

    fn of(&mut self, day: i32, position: i64) -> Option<&mut Open> {
        let holds = |block: &Block| block.day == day && block.after < position && position <= block.to;
        if !self.open.get(self.last).is_some_and(|open| holds(&open.block)) {
            let list = self.by_day.get(&day)?;
            // In the order of the chain, which is that of positions.
            let at = list.partition_point(|index| self.open[*index].block.to < position);
            self.last = *list.get(at)?;
        }
        self.open.get_mut(self.last).filter(|open| holds(&open.block))
    }
}

/// Goes through chain and entries. `anchor`: a block and the hash that it had. Runs with the owner's rights.
pub fn verify(anchor: Option<(i64, Hash)>) -> Result<Report> {
    // Nobody adds to the chain and nobody retires a day meanwhile.
    if xact::may_write() {
        spi::one::<bool>("SELECT true FROM usher.audit_chain_state AS s FOR SHARE", &[])?;
    }
    let sealed_to = spi::read::<i64>("SELECT s.sealed_to FROM usher.audit_chain_state AS s", &[])?.unwrap_or(0);
    let mut report = Report::default();
    let mut blocks = Blocks::default();
    let mut retired = BTreeSet::new();
    links(anchor, &mut report, &mut blocks, &mut retired)?;
    let mut stranger = None;
    let forged = erasure::forged()?;
    let entries = format!("SELECT e.position, e.recorded_at, {VOUCHED}");
    spi::each(&entries, &[], SLICE, |row| {
        let entry = seal::read(row)?;
        report.entries += 1;
        if retired.contains(&entry.day) {
            // The day is said to be gone.
            stranger = Some(stranger.map_or(entry.position, |first: i64| first.min(entry.position)));
        }
        match blocks.of(entry.day, entry.position) {
            Some(open) => open.take(entry.position, entry.hash),
            None if entry.position > sealed_to => report.unsealed += 1,
            None => stranger = Some(stranger.map_or(entry.position, |first: i64| first.min(entry.position))),
        }
        Ok(())
    })?;
    let wrong = blocks.open.iter().find(|open| open.state != State::Right && !retired.contains(&open.block.day));
    let wrong = wrong.map(|open| open.block.clone());
    if let Some(block) = wrong.filter(|block| report.broken_block.is_none_or(|broken| block.number < broken)) {
        let (position, what) = match look(&block)? {
            Some(Difference::At(position)) => {
                (Some(position), format!("the entry at position {position} was changed or put there"))
            }
            Some(Difference::MissingAfter(0)) => (None, "its first entry is missing".to_owned()),
            Some(Difference::MissingAfter(position)) => {
                (Some(position), format!("an entry after position {position} is missing"))
            }
            None => (None, "its entries were changed while they were read".to_owned()),
        };
        report.broken_block = Some(block.number);
        report.broken_position = position;
        report.broken = Some(format!("block {}: {what}", block.number));
    }
    if let (None, Some(position)) = (&report.broken, stranger) {
        report.broken_position = Some(position);
        report.broken = Some(format!(
            "the entry at position {position} is in no block, or of a day that was retired: it was put there afterwards, or its time was changed"
        ));
    }
    if let (None, Some((erasure, day))) = (&report.broken, forged) {
        report.broken = Some(format!(
            "what was masked on {day} for erasure {erasure} is not what the entry of that erasure says: usher.audit_erasures was changed"
        ));
    }
    Ok(report)
}

/// The hash of an entry `e`, as it was before persons were masked in it.
const VOUCHED: &str = "usher.audit_entry_hash(e.position, e.recorded_at, e.id, e.correlation_id, e.organization_id, e.actor, e.role, e.action, e.object, e.old::text, e.new::text, e.flow, e.salt, x.images, x.masked)
      FROM usher.audit_log AS e LEFT JOIN usher.audit_erasures AS x ON x.position = e.position AND x.last";

/// Goes along the chain: each block follows from the one before it.
fn links(anchor: Option<(i64, Hash)>, report: &mut Report, blocks: &mut Blocks, retired: &mut BTreeSet<i32>) -> Result<()> {
    let mut previous = chain::BEGIN;
    let sql = "SELECT b.number, b.kind, b.day - DATE '2000-01-01', b.after_position, b.to_position, b.entries, b.root, b.hash
                 FROM usher.audit_blocks AS b ORDER BY b.number";
    let mut broken = None;
    spi::each(sql, &[], SLICE, |row| {
        let number = row.get::<i64>(1)?.unwrap_or(0);
        let kind = Kind::named(row.get::<&str>(2)?.unwrap_or_default());
        let block = Block {
            number,
            kind: kind.unwrap_or(Kind::Entries),
            day: row.get::<i32>(3)?.unwrap_or(0),
            after: row.get::<i64>(4)?.unwrap_or(0),
            to: row.get::<i64>(5)?.unwrap_or(0),
            entries: row.get::<i32>(6)?.unwrap_or(0),
            root: seal::as_hash(row.get::<&[u8]>(7)?.unwrap_or_default()),
        };
        let hash = seal::as_hash(row.get::<&[u8]>(8)?.unwrap_or_default());
        report.blocks += 1;
        if broken.is_none() {
            let expected = report.blocks;
            broken = if number != expected {
                Some((expected, format!("block {expected} is missing")))
            } else if block.hash(&previous) != hash {
                Some((number, format!("block {number} does not follow from the one before it: one of the two was changed")))
            } else if anchor.is_some_and(|(at, known)| at == number && known != hash) {
                Some((number, format!("block {number} is not the one of the anchor: the chain was made anew")))
            } else {
                None
            };
        }
        previous = hash;
        match block.kind {
            Kind::Entries => blocks.add(block),
            Kind::Retired => {
                retired.insert(block.day);
            }
        }
        Ok(())
    })?;
    if let (None, Some((at, _))) = (&broken, anchor.filter(|(at, _)| *at > report.blocks)) {
        broken = Some((report.blocks + 1, format!("the chain ends at block {}, before the anchor's block {at}", report.blocks)));
    }
    if let Some((number, what)) = broken {
        report.broken_block = Some(number);
        report.broken = Some(what);
    }
    Ok(())
}

/// Reads the entries of a block again, and what is left of them as they were.
fn look(block: &Block) -> Result<Option<Difference>> {
    let marks =
        spi::read::<Vec<u8>>("SELECT b.marks FROM usher.audit_blocks AS b WHERE b.number = $1", &[spi::arg(block.number)])?;
    let found = spi::read_all(
        &format!("SELECT e.position, e.recorded_at, {VOUCHED} WHERE e.position > $1 AND e.position <= $2 ORDER BY e.position"),
        &[spi::arg(block.after), spi::arg(block.to)],
        seal::read,
    )?;
    let found: Vec<(i64, Hash)> =
        found.into_iter().filter(|entry| entry.day == block.day).map(|entry| (entry.position, entry.hash)).collect();
    Ok(chain::difference(block, &marks.unwrap_or_default(), &found))
}
