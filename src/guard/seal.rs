//! Making the chain: what is settled of the audit log goes into blocks.
//!
//! Owns `usher.audit_blocks` and `usher.audit_chain_state`. A worker does it once a minute; nobody who writes waits for it.
//!
//! Positions are drawn by transactions that have a number already, and commit in another order. So when every transaction
//! that ran at some moment has ended, all entries up to the position that had been drawn then are there, or never will be.

use super::audit;
use super::chain::{self, Block, Hash, Hashed, Kind, Made};
use crate::error::Result;
use crate::pg::guc::Nest;
use crate::pg::{spi, subxact, xact};
use crate::setup::Installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::quote_identifier;

/// Most entries in memory at a time, and how often in one transaction: more than anybody writes in a minute.
const MOST: i64 = 100_000;
const MOST_ROUNDS: usize = 50;

/// What is known before anything is written.
pub struct Look {
    drawn: i64,
    next_xid: i64,
    oldest: i64,
}

/// To be taken before the transaction writes: it would wait for itself.
pub fn look() -> Result<Look> {
    // First what is drawn, then who runs: whoever draws in between is not missing from the second.
    let sql = "SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM usher.audit_position_seq AS s";
    let drawn = spi::read::<i64>(sql, &[])?.unwrap_or(0);
    let next_xid = xact::next_xid();
    let oldest = spi::read::<i64>("SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint", &[])?;
    Ok(Look { drawn, next_xid, oldest: oldest.unwrap_or(0) })
}

struct State {
    sealed_to: i64,
    awaited: Option<(i64, i64)>,
}

/// Where the chain ends.
pub struct End {
    pub number: i64,
    pub hash: Hash,
}

/// Reads bytes that should be a hash; what is none fits nothing.
pub fn as_hash(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or([0xff; 32])
}

pub fn end() -> Result<End> {
    let last =
        spi::read_all("SELECT b.number, b.hash FROM usher.audit_blocks AS b ORDER BY b.number DESC LIMIT 1", &[], |row| {
            Ok(End { number: row.get::<i64>(1)?.unwrap_or(0), hash: as_hash(&row.get::<Vec<u8>>(2)?.unwrap_or_default()) })
        })?;
    Ok(last.into_iter().next().unwrap_or(End { number: 0, hash: chain::BEGIN }))
}

/// Puts everything that is settled into blocks; returns how many entries. Runs with the owner's rights. Somebody else who is at it
/// is left alone.
pub fn seal(look: &Look) -> Result<i64> {
    let mut sealed = 0;
    // What was settled when we looked stays so.
    for _ in 0..MOST_ROUNDS {
        let count = seal_some(look)?;
        sealed += count;
        if count < MOST {
            break;
        }
    }
    Ok(sealed)
}

fn seal_some(look: &Look) -> Result<i64> {
    let state = spi::all(
        "SELECT s.sealed_to, s.awaited_position, s.awaited_xid FROM usher.audit_chain_state AS s FOR UPDATE SKIP LOCKED",
        &[],
        |row| {
            let awaited = row.get::<i64>(2)?.zip(row.get::<i64>(3)?);
            Ok(State { sealed_to: row.get::<i64>(1)?.unwrap_or(0), awaited })
        },
    )?;
    let Some(state) = state.into_iter().next() else { return Ok(0) };
    // A number that is still to come is of another server; the transactions that it was about are not here.
    let awaited = state.awaited.filter(|(_, xid)| *xid <= look.next_xid);
    let settled = |(_, xid): &(i64, i64)| look.oldest >= *xid;
    let now = (look.drawn, look.next_xid);
    let target = [Some(now), awaited].into_iter().flatten().filter(settled).map(|(position, _)| position).max();
    let mut sealed_to = state.sealed_to;
    let mut count = 0;
    if let Some(target) = target.filter(|target| *target > sealed_to) {
        let (entries, upper) = settled_entries(sealed_to, target)?;
        count = entries.len() as i64;
        add(&entries, sealed_to, upper)?;
        sealed_to = upper;
    }
    // Whoever is awaited stays awaited; only then the next moment counts.
    let awaits = awaited.filter(|moment| !settled(moment)).or_else(|| (look.drawn > sealed_to).then_some(now));
    if sealed_to != state.sealed_to || awaits != state.awaited {
        spi::run(
            "UPDATE usher.audit_chain_state SET sealed_to = $1, awaited_position = $2, awaited_xid = $3",
            &[spi::arg(sealed_to), spi::arg(awaits.map(|(position, _)| position)), spi::arg(awaits.map(|(_, xid)| xid))],
        )?;
    }
    Ok(count)
}

/// The entries above a position, in order, and the position up to which these are all.
fn settled_entries(after: i64, target: i64) -> Result<(Vec<Hashed>, i64)> {
    // One more than goes in shows that there are more.
    let entries = spi::read_all(
        &format!(
            "SELECT e.position, e.recorded_at, {HASHED} FROM usher.audit_log AS e WHERE e.position > $1 AND e.position <= $2 ORDER BY e.position LIMIT $3"
        ),
        &[spi::arg(after), spi::arg(target), spi::arg(MOST)],
        read,
    )?;
    let upper = if entries.len() as i64 == MOST { entries.last().map_or(target, |entry| entry.position) } else { target };
    Ok((entries, upper))
}

/// The hash of an entry `e` that is not in the chain yet.
const HASHED: &str = "usher.audit_entry_hash(e.position, e.recorded_at, e.id, e.correlation_id, e.organization_id, e.actor, e.role, e.action, e.object, e.old::text, e.new::text, e.flow, e.salt, NULL, NULL)";

/// A row of position, time and hash.
pub fn read(row: &pgrx::spi::SpiTupleTable<'_>) -> Result<Hashed> {
    let at = row.get::<TimestampWithTimeZone>(2)?.map_or(0, i64::from);
    Ok(Hashed {
        position: row.get::<i64>(1)?.unwrap_or(0),
        day: i32::try_from(at.div_euclid(DAY)).unwrap_or(i32::MAX),
        hash: as_hash(row.get::<&[u8]>(3)?.unwrap_or_default()),
    })
}

const DAY: i64 = 86_400_000_000;

fn add(entries: &[Hashed], after: i64, to: i64) -> Result<()> {
    let end = end()?;
    let made = chain::blocks(entries, after, to, end.number, end.hash);
    if made.is_empty() {
        return Ok(());
    }
    let column = |read: fn(&Made) -> i64| made.iter().map(read).collect::<Vec<i64>>();
    let bytes = |read: fn(&Made) -> Vec<u8>| made.iter().map(read).collect::<Vec<Vec<u8>>>();
    spi::run(
        "INSERT INTO usher.audit_blocks (number, kind, day, after_position, to_position, entries, root, hash, marks)
         SELECT b.number, 'entries', DATE '2000-01-01' + b.day::integer, b.after, b.upto, b.entries, b.root, b.hash, b.marks
           FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[])
             AS b (number, day, after, upto, entries, root, hash, marks)",
        &[
            spi::arg(column(|made| made.block.number)),
            spi::arg(column(|made| i64::from(made.block.day))),
            spi::arg(column(|made| made.block.after)),
            spi::arg(column(|made| made.block.to)),
            spi::arg(column(|made| i64::from(made.block.entries))),
            spi::arg(bytes(|made| made.block.root.to_vec())),
            spi::arg(bytes(|made| made.hash.to_vec())),
            spi::arg(bytes(|made| made.marks.clone())),
        ],
    )?;
    Ok(())
}

/// Drops the oldest day of the log that is older than the days to keep and wholly in the chain: one, since dropping a partition
/// keeps writers out until the transaction ends. The chain says that it was retired, and keeps its blocks as anchors for what
/// follows. Runs with the owner's rights. Returns the day; a busy table is left for the next time.
pub fn retire(installed: Installed, keep_days: i32) -> Result<Option<String>> {
    let old = spi::read_all(
        "SELECT c.relname::text, pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') - DATE '2000-01-01'
           FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'usher.audit_log'::pg_catalog.regclass AND c.relname ~ '^audit_log_[0-9]{8}$'
            AND pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') < (pg_catalog.now() AT TIME ZONE 'UTC')::date - $1
          ORDER BY 1 LIMIT 1",
        &[spi::arg(keep_days)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i32>(2)?.unwrap_or(0))),
    )?;
    let Some((name, day)) = old.into_iter().next() else { return Ok(None) };
    let entries = match subxact::attempt(|| retire_day(&name, day)) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Ok(None),
        Err(failure) => {
            pgrx::log!("{name} could not be dropped: {}", failure.line());
            return Ok(None);
        }
    };
    let day = name.trim_start_matches("audit_log_").to_owned();
    audit::note(installed, None, "usher.audit_log.retired", &day, None, Some(serde_json::json!({"entries": entries})))?;
    Ok(Some(day))
}

/// How many entries it had; None when some of them are not in the chain yet, or somebody else is at it.
fn retire_day(name: &str, day: i32) -> Result<Option<i64>> {
    let _patience = Nest::open().lock_timeout(200);
    let sealed = spi::one::<i64>("SELECT s.sealed_to FROM usher.audit_chain_state AS s FOR UPDATE SKIP LOCKED", &[])?;
    let Some(sealed) = sealed else { return Ok(None) };
    let table = format!("usher.{}", quote_identifier(name));
    // First the lock, then a look with a snapshot of its own: nobody adds an entry in between.
    spi::script(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
    let newer = format!("SELECT EXISTS (SELECT FROM {table} AS e WHERE e.position > $1)");
    if spi::one::<bool>(&newer, &[spi::arg(sealed)])? != Some(false) {
        return Ok(None);
    }
    let entries =
        "SELECT COALESCE(pg_catalog.sum(b.entries), 0)::bigint FROM usher.audit_blocks AS b WHERE b.day = DATE '2000-01-01' + $1";
    let entries = spi::one::<i64>(entries, &[spi::arg(day)])?.unwrap_or(0);
    // Nothing is left that these would vouch for.
    spi::run("DELETE FROM usher.audit_erasures AS x WHERE x.day = DATE '2000-01-01' + $1", &[spi::arg(day)])?;
    spi::script(&format!("DROP TABLE {table}"))?;
    let end = end()?;
    let block = Block {
        number: end.number + 1,
        kind: Kind::Retired,
        day,
        after: sealed,
        to: sealed,
        entries: 0,
        root: chain::root([].iter()),
    };
    let hash = block.hash(&end.hash);
    spi::run(
        "INSERT INTO usher.audit_blocks (number, kind, day, after_position, to_position, entries, root, hash, marks)
         VALUES ($1, $2, DATE '2000-01-01' + $3, $4, $4, 0, $5, $6, '')",
        &[
            spi::arg(block.number),
            spi::arg(block.kind.name()),
            spi::arg(day),
            spi::arg(sealed),
            spi::arg(block.root.to_vec()),
            spi::arg(hash.to_vec()),
        ],
    )?;
    spi::run("UPDATE usher.audit_blocks SET marks = '' WHERE day = DATE '2000-01-01' + $1", &[spi::arg(day)])?;
    Ok(Some(entries))
}
