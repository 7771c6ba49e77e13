//! Everything that touches PostgreSQL's internals, and the only `unsafe` of the crate.
//!
//! Owns no table. Everybody may call it; it calls nobody. What it offers upwards is safe to use: statements with saved
//! plans, subtransactions, acting as a role, the wake-up at commit, expression parsing, worker processes.

pub mod argument;
pub mod bgw;
pub mod buckets;
pub mod called;
pub mod catalog;
pub mod changed;
pub mod commit;
pub mod counters;
pub mod crash;
pub mod definitions;
pub mod depend;
pub mod digest;
pub mod digest_keys;
pub mod event;
pub mod expr;
pub mod files;
pub mod gauges;
pub mod guc;
pub mod ids;
pub mod images;
pub mod latest;
pub mod locks;
pub mod meters;
pub mod query;
pub mod relcache;
pub mod report;
pub mod results;
pub mod role;
pub mod row;
pub mod shmem;
pub mod spi;
pub mod subxact;
pub mod timeout;
pub mod trigger;
pub mod utility;
pub mod writes;
pub mod xact;
pub mod zone;
