//! The event bus: what has happened, and the flows that want to hear of it.
//!
//! Owns `usher.events`. An event is written, matched with the patterns of `"when": {"event": …}` and made a job of each flow that it
//! means in one statement of the emitter, so that all of it commits with what has happened, or nothing does. From there on each
//! subscriber's job is a job like any other: one that fails keeps no other from running. Called by clients, by functions that flows
//! call, and by whoever applies flows that emit.

mod api;
pub mod broadcast;
mod outside;
pub mod replay;
mod store;

pub use store::{emit_for_flow, tell};
