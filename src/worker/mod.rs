//! Workers: the launcher, the loop of one worker process, and running a batch.
//!
//! Owns no table; takes jobs through `queue::store`, applies each group through `flow`, and gives back through `queue::take_back` what is not
//! done. See README.md in this
//! folder for the states. Nobody calls this room.

mod api;
mod aside;
mod batch;
mod broadcast;
mod caller;
mod checks;
mod drift;
mod gather;
mod group;
mod hand_over;
mod launcher;
mod limit;
pub mod maintenance;
mod overlaps;
mod pausing;
mod prepared;
mod process;
mod quarantine;
mod resume;
mod ripening;
mod schedule;
mod work;
mod work_api;
mod workflow;

/// Registers the launcher, while the library is being preloaded.
pub fn register() {
    crate::pg::bgw::register_launcher("usher_launcher_main");
}
