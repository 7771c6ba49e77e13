//! Statements inside statements.
//!
//! A trigger of the application may change the same row again. PostgreSQL then runs the inner statement's AFTER triggers
//! first, so that its change is captured before the outer one that it followed. Every captured statement gets a number
//! when it begins; an outer statement that ends finds out which inner ones were captured meanwhile.

use crate::pg::xact;
use std::cell::RefCell;

struct Open {
    number: u64,
    relation: u32,
    op: char,
    ended: usize,
}

#[derive(Default)]
struct State {
    counter: u64,
    open: Vec<Open>,
    /// (statement, first position, last position) of what inner statements have captured.
    captured: Vec<(u64, i64, i64)>,
    /// (statement, flow, row) that inner statements have applied in this transaction.
    applied: Vec<(u64, i32, i64)>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

fn forget() {
    STATE.with_borrow_mut(|state| *state = State::default());
}

/// A statement begins.
pub fn begin(relation: u32, op: char) {
    xact::at_end(forget);
    STATE.with_borrow_mut(|state| {
        state.counter += 1;
        let number = state.counter;
        state.open.push(Open { number, relation, op, ended: 0 });
    });
}

/// A statement that is ending, as one of its `siblings` capture triggers sees it.
#[derive(Clone, Copy)]
pub struct Ending {
    number: u64,
    /// Another captured statement is still running around it.
    pub inner: bool,
}

pub fn end(relation: u32, op: char, siblings: usize) -> Ending {
    STATE.with_borrow_mut(|state| {
        let Some(at) = state.open.iter().rposition(|open| open.relation == relation && open.op == op) else {
            return Ending { number: u64::MAX, inner: false };
        };
        state.open[at].ended += 1;
        let number = state.open[at].number;
        if state.open[at].ended >= siblings {
            state.open.remove(at);
        }
        Ending { number, inner: state.open.iter().any(|open| open.number < number) }
    })
}

/// The whole nest is over when the outermost statement has ended.
pub fn settle(ending: Ending) {
    if !ending.inner {
        STATE.with_borrow_mut(|state| {
            if state.open.is_empty() {
                state.captured.clear();
                state.applied.clear();
            }
        });
    }
}

pub fn note_captured(ending: Ending, first: i64, last: i64) {
    STATE.with_borrow_mut(|state| state.captured.push((ending.number, first, last)));
}

/// The positions that statements inside this one have captured, if any.
pub fn captured_inside(ending: Ending) -> Option<(i64, i64)> {
    STATE.with_borrow(|state| {
        let inside = state.captured.iter().filter(|(number, ..)| *number > ending.number);
        inside.fold(None, |range, (_, first, last)| match range {
            None => Some((*first, *last)),
            Some((low, high)) => Some((i64::min(low, *first), i64::max(high, *last))),
        })
    })
}

pub fn note_applied(ending: Ending, flow: i32, rows: &[i64]) {
    STATE.with_borrow_mut(|state| state.applied.extend(rows.iter().map(|row| (ending.number, flow, *row))));
}

/// Rows to which this flow has already applied a newer image inside this statement.
pub fn applied_inside(ending: Ending, flow: i32) -> Vec<i64> {
    STATE.with_borrow(|state| {
        state
            .applied
            .iter()
            .filter(|(number, applied, _)| *number > ending.number && *applied == flow)
            .map(|(.., row)| *row)
            .collect()
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    fn reset() {
        STATE.with_borrow_mut(|state| *state = State::default());
    }

    fn start(relation: u32, op: char) {
        STATE.with_borrow_mut(|state| {
            state.counter += 1;
            let number = state.counter;
            state.open.push(Open { number, relation, op, ended: 0 });
        });
    }

    #[test]
    fn an_outer_statement_sees_what_was_captured_inside() {
        reset();
        start(1, 'I');
        start(1, 'U');
        let inner = end(1, 'U', 1);
        assert!(inner.inner);
        note_captured(inner, 5, 7);
        let outer = end(1, 'I', 1);
        assert!(!outer.inner);
        assert_eq!(captured_inside(outer), Some((5, 7)));
        settle(outer);
        assert_eq!(captured_inside(Ending { number: 0, inner: false }), None);
    }

    #[test]
    fn siblings_of_one_statement_share_its_number() {
        reset();
        start(1, 'U');
        let first = end(1, 'U', 2);
        let second = end(1, 'U', 2);
        assert_eq!(first.number, second.number);
        assert!(STATE.with_borrow(|state| state.open.is_empty()));
    }

    #[test]
    fn a_statement_that_was_never_announced_does_no_harm() {
        reset();
        let ending = end(9, 'D', 1);
        assert_eq!(captured_inside(ending), None);
        assert!(!ending.inner);
    }
}
