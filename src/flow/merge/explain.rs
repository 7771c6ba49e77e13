//! What a merge does, and what it would say of a pair, in words.

use super::super::store::Flow;
use super::apply::{self, Pair};
use super::definition::{AgainstEdit, Deletes, Merge, Strategy};
use super::evaluate::{AGREED, BOTH, LEFT, OPEN, RIGHT, SAME};
use crate::error::{Result, UsherError};
use pgrx::pg_sys::Oid;
use std::fmt::Write as _;

impl Merge {
    /// As usher.explain_flow() tells it.
    pub fn told(&self) -> String {
        let mut out = String::new();
        for field in &self.fields {
            let columns =
                if field.left == field.right { field.left.clone() } else { format!("{} = {}", field.left, field.right) };
            let _ = writeln!(out, "  field:   {}: {columns}, {}, {}", field.name, field.strategy.word(), field.severity.word());
        }
        let made = match (self.creates_left, self.creates_right) {
            (true, true) => "on both sides",
            (true, false) => "on the left side",
            (false, true) => "on the right side",
            (false, false) => "nowhere",
        };
        let key: Vec<String> = self.matches.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let found = if key.is_empty() { String::new() } else { format!(", unless one is found by {}", key.join(", ")) };
        let _ = writeln!(out, "  rows:    a row without a pair gets one {made}{found}");
        let deleted = match (self.deletes, self.against_edit) {
            (Deletes::Keep, _) => "the other one stays",
            (_, AgainstEdit::Edit) => "the other one is deleted too; if it has changed meanwhile, the row comes back",
            (_, AgainstEdit::Delete) => "the other one is deleted too, also if it has changed meanwhile",
            (_, AgainstEdit::Manual) => "the other one is deleted too; if it has changed meanwhile, somebody decides",
        };
        let _ = writeln!(out, "  deletes: {deleted}");
        out
    }
}

/// One field of a pair.
pub struct Explained {
    pub field: String,
    pub strategy: String,
    pub base_left: Option<String>,
    pub base_right: Option<String>,
    pub left: Option<String>,
    pub right: Option<String>,
    /// Whose value holds.
    pub holds: &'static str,
    pub why: String,
}

/// Who holds, and why.
fn words(d: u8, met: bool, strategy: &Strategy) -> (&'static str, String) {
    let both = if met { "both sides have changed it" } else { "the sides differ and have not agreed before" };
    match d {
        SAME => ("both", "neither side has changed it".to_owned()),
        LEFT | RIGHT => (if d == LEFT { "left" } else { "right" }, format!("{both}, and its strategy is {}", strategy.word())),
        BOTH => ("together", format!("{both}: {} makes one value of both", strategy.word())),
        AGREED => ("both", "both sides have the same value".to_owned()),
        OPEN => ("nobody", format!("{both}: somebody must decide, see usher.conflicts")),
        _ => ("nobody", "unknown".to_owned()),
    }
}

/// What holds of each field of a pair, as its rows are now.
pub fn explain(owner: Oid, flow: &Flow, pair: Pair) -> Result<Vec<Explained>> {
    let merge = flow.definition.merge().ok_or_else(|| UsherError::internal("a flow without a merge"))?;
    apply::look(owner, flow, pair, |row| {
        let text = |at| row.get::<String>(at);
        let (left_there, right_there) = (row.get::<bool>(3)?.unwrap_or(false), row.get::<bool>(4)?.unwrap_or(false));
        let name = text(5)?.unwrap_or_default();
        let strategy = merge.fields.iter().find(|field| field.name == name).map_or(&merge.strategy, |field| &field.strategy);
        let d = u8::try_from(row.get::<i32>(10)?.unwrap_or(0)).unwrap_or(u8::MAX);
        let changed = (row.get::<bool>(13)?.unwrap_or(false), row.get::<bool>(14)?.unwrap_or(false));
        let (holds, why) = match (left_there, right_there) {
            (true, true) if d == LEFT && changed == (true, false) => ("left", "only the left side has changed it".to_owned()),
            (true, true) if d == RIGHT && changed == (false, true) => ("right", "only the right side has changed it".to_owned()),
            (true, true) => words(d, row.get::<bool>(11)?.unwrap_or(false), strategy),
            (true, false) => ("nobody", "the right row is not there".to_owned()),
            (false, true) => ("nobody", "the left row is not there".to_owned()),
            (false, false) => ("nobody", "neither row is there".to_owned()),
        };
        Ok(Explained {
            field: name,
            strategy: strategy.word(),
            base_left: text(6)?,
            base_right: text(7)?,
            left: text(8)?,
            right: text(9)?,
            holds,
            why,
        })
    })
}
