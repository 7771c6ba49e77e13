//! `"then": {"merge": table}`: two tables kept equal, field by field, whichever side is written.
//!
//! The pair remembers on its link what both sides last agreed on, the **base**. A job does not carry values: it says that a row was written,
//! and both rows are looked at as they are, with the link locked. So it does not matter in which order jobs come, nor how often. For each field: only
//! the left side has changed since the base, its value holds; only the right one, that one holds; both, and they are equal, agreed; both,
//! and different, the field's strategy decides, or somebody.
//!
//! Whoever makes the flow writes down the left side's half; the right side's half is a part of it, `name:back`, made with it. Both run the
//! same statements. What a merge writes does not start the pair again.

pub mod apply;
pub mod compare;
pub mod decide;
pub mod definition;
mod evaluate;
pub mod explain;
mod quick;
mod sides;
pub mod statement;

pub use definition::{Merge, Side};
pub use sides::without_index;
