//! The hash chain over the audit log: what is hashed, and when a block of entries is as it was. Pure.
//!
//! Entries are hashed one by one, off the writer's path, in the order of their positions; up to [`BLOCK`] of them of one UTC
//! day make a block, and each block's hash covers the one before it. So nobody can change, add or take away an entry of a
//! block without changing every hash from there on, of which an anchor kept elsewhere is proof.
//!
//! All hashes are SHA-256 (FIPS 180-4). Integers are big-endian, texts UTF-8. An entry is hashed as
//!
//! ```text
//! "pg_usher entry 1\n"  position i64  recorded_at i64 (microseconds since 2000-01-01 UTC)  id 16 bytes  correlation_id 16 bytes
//! then organization_id, actor, role, action, object, flow, each as
//!     00                          NULL
//!     01 length u32 bytes         otherwise
//! then the hash of its images:
//! "pg_usher images 1\n"  salt, old, new, each as above; jsonb as PostgreSQL prints it
//! ```
//!
//! Old and new have a hash of their own so that a person can be erased from them: they are masked, and the salt is destroyed, without
//! which their hash tells nothing. The hash itself stays (`usher.audit_erasures`), and the entry's with it.
//!
//! A block is hashed as
//!
//! ```text
//! "pg_usher block 1\n"  hash of the block before (32 zero bytes for the first)  number i64  kind u8
//! day i32 (since 2000-01-01)  after i64  to i64  entries i32  root
//! ```
//!
//! where the root is the hash of the entries' hashes, one after the other. `docs/audit.md` says the same for those who verify
//! elsewhere.

use ring::digest::{Context, SHA256};

pub type Hash = [u8; 32];

struct Hasher(Context);

impl Hasher {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    fn field(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.add([0]),
            Some(bytes) => {
                self.add([1]);
                // A value of PostgreSQL has less than 1 GB.
                self.add(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                self.add(bytes);
            }
        }
    }

    fn finish(self) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.0.finish().as_ref());
        hash
    }
}

/// Most entries of a block.
pub const BLOCK: usize = 1000;
/// So many bytes of each entry's hash stay with the block, to find the one that does not fit.
pub const MARK: usize = 8;

/// An entry as it is hashed.
pub struct Entry<'a> {
    pub position: i64,
    pub recorded_at: i64,
    pub id: [u8; 16],
    pub correlation: [u8; 16],
    pub organization: Option<[u8; 16]>,
    pub actor: &'a str,
    pub role: &'a str,
    pub action: &'a str,
    pub object: Option<&'a str>,
    pub flow: Option<&'a str>,
    pub images: Hash,
}

/// Old and new of an entry.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    pub salt: Option<[u8; 16]>,
    pub old: Option<&'a str>,
    pub new: Option<&'a str>,
}

impl Images<'_> {
    pub fn hash(&self) -> Hash {
        let mut hasher = Hasher::new();
        hasher.add(b"pg_usher images 1\n");
        hasher.field(self.salt.as_ref().map(<[u8; 16]>::as_slice));
        hasher.field(self.old.map(str::as_bytes));
        hasher.field(self.new.map(str::as_bytes));
        hasher.finish()
    }

    /// The hash that the chain covers. `erased`: the one from before they were masked, and the one that they must have since.
    pub fn vouched(&self, erased: Option<(Hash, Hash)>) -> Hash {
        let now = self.hash();
        match erased {
            Some((before, since)) if now == since => before,
            _ => now,
        }
    }
}

impl Entry<'_> {
    pub fn hash(&self) -> Hash {
        let mut hasher = Hasher::new();
        hasher.add(b"pg_usher entry 1\n");
        hasher.add(self.position.to_be_bytes());
        hasher.add(self.recorded_at.to_be_bytes());
        hasher.add(self.id);
        hasher.add(self.correlation);
        hasher.field(self.organization.as_ref().map(<[u8; 16]>::as_slice));
        for text in [Some(self.actor), Some(self.role), Some(self.action), self.object, self.flow] {
            hasher.field(text.map(str::as_bytes));
        }
        hasher.add(self.images);
        hasher.finish()
    }
}

/// What a block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// These entries are there.
    Entries = 1,
    /// The entries of this day have been kept as long as they should, and were dropped.
    Retired = 2,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Retired => "retired",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Self::Entries, Self::Retired].into_iter().find(|kind| kind.name() == name)
    }
}

/// A link of the chain, without its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub number: i64,
    pub kind: Kind,
    /// Days since 2000-01-01.
    pub day: i32,
    /// Its entries have positions above this one,
    pub after: i64,
    /// and up to this one.
    pub to: i64,
    pub entries: i32,
    pub root: Hash,
}

impl Block {
    pub fn hash(&self, previous: &Hash) -> Hash {
        let mut hasher = Hasher::new();
        hasher.add(b"pg_usher block 1\n");
        hasher.add(previous);
        hasher.add(self.number.to_be_bytes());
        hasher.add([self.kind as u8]);
        hasher.add(self.day.to_be_bytes());
        hasher.add(self.after.to_be_bytes());
        hasher.add(self.to.to_be_bytes());
        hasher.add(self.entries.to_be_bytes());
        hasher.add(self.root);
        hasher.finish()
    }
}

/// What stands in front of the first block.
pub const BEGIN: Hash = [0; 32];

pub fn root<'a>(hashes: impl Iterator<Item = &'a Hash>) -> Hash {
    let mut hasher = Hasher::new();
    hashes.for_each(|hash| hasher.add(hash));
    hasher.finish()
}

/// The first bytes of each hash.
pub fn marks<'a>(hashes: impl Iterator<Item = &'a Hash>) -> Vec<u8> {
    hashes.flat_map(|hash| hash[..MARK].iter().copied()).collect()
}

/// An entry to be put into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    pub position: i64,
    pub day: i32,
    pub hash: Hash,
}

/// A block that is to be added, and what stays with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub block: Block,
    pub hash: Hash,
    pub marks: Vec<u8>,
}

/// The blocks for entries in the order of their positions, all of them above `after` and up to `to`, behind the block
/// `number` with the hash `previous`. Every position up to `to` is then settled, whether it has an entry or not.
pub fn blocks(entries: &[Hashed], after: i64, to: i64, number: i64, previous: Hash) -> Vec<Made> {
    let (mut made, mut after, mut number, mut previous) = (Vec::new(), after, number, previous);
    let mut chunks = entries.chunks(BLOCK).peekable();
    while let Some(chunk) = chunks.next() {
        // The last one reaches to the end: positions that nobody took belong to some block too.
        let upper = if chunks.peek().is_some() { chunk[chunk.len() - 1].position } else { to };
        let mut days: Vec<i32> = chunk.iter().map(|entry| entry.day).collect();
        days.sort_unstable();
        days.dedup();
        for day in days {
            let hashes = || chunk.iter().filter(|entry| entry.day == day).map(|entry| &entry.hash);
            let count = hashes().count();
            number += 1;
            let block = Block {
                number,
                kind: Kind::Entries,
                day,
                after,
                to: upper,
                entries: i32::try_from(count).unwrap_or(i32::MAX),
                root: root(hashes()),
            };
            previous = block.hash(&previous);
            made.push(Made { block, hash: previous, marks: marks(hashes()) });
        }
        after = upper;
    }
    made
}

/// Where the entries of a block, in the order of their positions, differ first from what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// This one was changed, or put there.
    At(i64),
    /// One that followed this position is missing; 0: the first one.
    MissingAfter(i64),
}

/// None: they are as they were.
pub fn difference(block: &Block, marks: &[u8], found: &[(i64, Hash)]) -> Option<Difference> {
    if i32::try_from(found.len()) == Ok(block.entries) && root(found.iter().map(|(_, hash)| hash)) == block.root {
        return None;
    }
    let known: Vec<&[u8]> = marks.chunks(MARK).collect();
    let is = |index: usize, hash: &Hash| known.get(index).is_some_and(|mark| *mark == &hash[..MARK]);
    let same = found.iter().enumerate().take_while(|(index, (_, hash))| is(*index, hash)).count();
    let before = same.checked_sub(1).map_or(0, |last| found[last].0);
    Some(match found.get(same) {
        // What stands here now is what came next: the one in between is gone.
        Some((_, hash)) if found.len() < known.len() && (same + 1..known.len()).any(|later| is(later, hash)) => {
            Difference::MissingAfter(before)
        }
        Some((position, _)) => Difference::At(*position),
        None => Difference::MissingAfter(before),
    })
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod unit;
