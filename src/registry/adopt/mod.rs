//! The application's own tables of organizations and members, in place of ours.
//!
//! Owns `usher.adoptions` and the triggers named `usher_follow_*`.
//!
//! * [`members`]: who belongs where is read where it stands, for each question anew. There is no copy that could drift, and a
//!   membership that is removed gives no right in the next statement.
//! * [`organizations`]: which there are is entered into `usher.organizations` too, in the transaction of whoever writes them,
//!   since jobs, limits and schedules go by it. That gives nobody a right.
//! * [`binding`] knows what was adopted and whether it is still what it was.
//!
//! All of it is read with the rights of the installation's owner. So nothing of the table's owner may run: no view, no type of
//! its own is compared, no policy is evaluated; every value that is not of a built-in type passes as its output text.

mod api;
pub mod binding;
pub mod members;
pub mod organizations;
