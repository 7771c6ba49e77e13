//! Adoption: a pack's flows at an application's own tables.
//!
//! `bind` says which of the pack's tables is which of the application's. What can run is worked out without making anything: the pack's
//! scripts say which tables it would make ([`model`]), definitions and functions what a workflow needs of them ([`needs`], [`functions`]), the
//! catalog what there is ([`fit`]). Then definitions are written for the application's tables ([`rewrite`]), and functions find them by views
//! in the place of the pack's own ([`views`]).

pub mod apply;
pub mod fit;
pub mod fitted;
mod functions;
#[cfg(test)]
mod fuzz_tests;
mod lex;
pub mod model;
pub mod needs;
mod notes;
pub mod parse;
pub mod plan;
pub mod rewrite;
pub mod rights;
pub mod script;
pub mod store;
pub mod views;
