//! Who and what takes part: organizations, memberships, systems, links.
//!
//! Owns `usher.organizations`, `usher.memberships`, `usher.systems`, `usher.links`, `usher.adoptions`. Called by every room above;
//! calls `setup` and `pg`. [`identity`] is the one place that decides for whom a session acts; [`adopt`] binds it to the
//! application's own tables. [`tenancy`] makes the policies of every table from one declaration.

pub mod adopt;
mod api;
pub mod identity;
pub mod links;
pub mod systems;
pub mod tables;
pub mod tenancy;
pub mod zones;

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
