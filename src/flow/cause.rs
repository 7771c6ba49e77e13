//! The chain of causes: which job led to the change that is being written now.
//!
//! While a flow applies a job, capture asks here what to write into the jobs that follow: the number of hops so far, the
//! job that caused them, and the trail of (flow, row) pairs that the chain has been through. A flow does not run twice
//! for the same row in one chain, and a chain ends after [`MOST_HOPS`].

use crate::error::{Result, UsherError};
use crate::pg::spi;
use std::cell::RefCell;
use std::rc::Rc;

/// A job of a chain longer than this goes to the dead letters.
pub const MOST_HOPS: i16 = 8;

#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// 0 outside of flows; jobs captured now get this hop.
    pub hop: i16,
    pub job: Option<[u8; 16]>,
    /// `hashint8extended(row_key, flow_id)` of every step so far.
    pub trail: Vec<i64>,
    /// The merge that writes, and how deep in triggers it does: what it writes itself starts neither half of its pair, which agrees by
    /// then. What triggers make of that does.
    pub merging: Option<(Rc<str>, i32)>,
}

thread_local! {
    static CURRENT: RefCell<Option<Cause>> = const { RefCell::new(None) };
}

/// Until dropped, captured changes are caused by this.
pub struct Guard(Option<Cause>);

pub fn enter(cause: Cause) -> Guard {
    Guard(CURRENT.replace(Some(cause)))
}

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

pub fn current() -> Cause {
    CURRENT.with_borrow(|cause| cause.clone().unwrap_or_default())
}

/// One step of a chain, as capture's statement computes it: `hashint8extended(row_key, flow_id)`.
pub fn step(flow: i32, row_key: i64) -> Result<i64> {
    spi::read::<i64>("SELECT pg_catalog.hashint8extended($1, $2)", &[spi::arg(row_key), spi::arg(i64::from(flow))])?
        .ok_or_else(|| UsherError::internal("a hash was NULL"))
}

/// A trail as a job stores it.
pub fn write_trail(trail: &[i64]) -> Option<String> {
    (!trail.is_empty()).then(|| trail.iter().map(i64::to_string).collect::<Vec<_>>().join(","))
}

pub fn read_trail(text: Option<&str>) -> Vec<i64> {
    text.map(|text| text.split(',').filter_map(|part| part.parse().ok()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod unit {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_trail_survives_its_text(trail in proptest::collection::vec(proptest::num::i64::ANY, 0..9)) {
            proptest::prop_assert_eq!(read_trail(write_trail(&trail).as_deref()), trail);
        }
    }

    #[test]
    fn causes_nest_and_end() {
        assert_eq!(current().hop, 0);
        let outer = enter(Cause { hop: 1, ..Cause::default() });
        {
            let _inner = enter(Cause { hop: 2, ..Cause::default() });
            assert_eq!(current().hop, 2);
        }
        assert_eq!(current().hop, 1);
        drop(outer);
        assert_eq!(current().hop, 0);
    }
}
