//! Secrets: what must be there in plain text when it is needed, and nowhere else.
//!
//! Owns `usher.secrets`. Called by every room above that speaks for somebody; calls `guard`, `registry` and `setup`.
//!
//! * [`sealing`] is the wire format, AES-256-GCM under a key with a name; pure.
//! * [`keys`] reads `usher.key_file`, which is not in the database.
//! * [`store`] keeps and finds secrets: sealed here, or by reference in Supabase Vault.
//! * [`hidden`] is how every function here ends that has seen one: an error must not have its statement in the log.

mod api;
pub mod hidden;
pub mod keys;
pub mod sealing;
pub mod store;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
