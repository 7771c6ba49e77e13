//! Migrations: two tables that exist already are brought together by a merge.
//!
//! Owns `usher.migrations` and `usher.migration_items`. First a plan, made by a few statements over whole tables: which rows belong together,
//! which are alone, and what the merge would do about each. Nothing of the application is written until somebody applies it. Then the
//! merge itself does it, slice by slice; a slice, its items' marks and the position behind it are one transaction, so whoever is killed,
//! every item is done once. The plan says which rows; what is written is decided from the rows as they are then. Called by clients and,
//! for the slices, by the worker.

mod api;
mod apply;
mod manage;
mod model;
mod plan;
mod show;
mod store;

pub use apply::{Outcome, slice};
pub use store::{prune, stopped};
