//! Looking at an installation: `usher.status()`.
//!
//! Owns no table; reads what the caller may see. Nobody calls this room.

mod status;
