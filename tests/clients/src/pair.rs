//! Two servers, one the streaming standby of the other, that change places when one is lost.
//!
//! Replication is synchronous, so what a client was told is committed is on both. Their homes are beside that of the scratch
//! cluster, made anew and removed at the end.

use crate::{Client, Database, connect_to, reload, run, server, text, variable, wait};
use std::time::Duration;

const TIME: Duration = Duration::from_secs(90);

pub struct Pair {
    primary: String,
    other: String,
    pub database: Database,
}

impl Pair {
    /// Two clusters and a database with the extension, set up on the primary.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        let homes = ["a", "b"].map(|which| format!("{}-{which}", variable("PGHOST")));
        homes.iter().for_each(|home| server::cluster_in(home, &["destroy"], None));
        let [primary, other] = homes;
        server::cluster_in(&primary, &["start"], None);
        run(&mut connect_to(&primary, "postgres"), "ALTER SYSTEM SET dynamic_shared_memory_type = 'mmap'");
        server::cluster_in(&primary, &["restart"], None);
        // Before the copy is made, which takes the settings along: what ALTER SYSTEM sets later stays on its server.
        let database = Database::create_in(&primary, name);
        let mut admin = connect_to(&primary, "postgres");
        run(&mut admin, "ALTER SYSTEM SET synchronous_standby_names = '*'");
        reload(&mut admin);
        server::cluster_in(&other, &["standby", &primary], None);
        server::cluster_in(&other, &["start"], None);
        synchronous(&primary);
        Self { primary, other, database }
    }

    /// The primary is lost with everything it was doing; the standby takes over, and `moved` is told where it now is.
    /// Then the lost one is made anew as the standby. Returns when commits are on both again and the workers listen.
    #[track_caller]
    pub fn fail_over(&mut self, moved: impl FnOnce(&Database)) -> Client {
        server::lose(&self.primary);
        let mut standby = connect_to(&self.other, "postgres");
        assert_eq!(text(&mut standby, "SELECT pg_promote(true, 60)::text"), "true", "the standby takes over");
        std::mem::swap(&mut self.primary, &mut self.other);
        self.database.host.clone_from(&self.primary);
        moved(&self.database);
        server::cluster_in(&self.other, &["destroy"], None);
        server::cluster_in(&self.other, &["standby", &self.primary], None);
        server::cluster_in(&self.other, &["start"], None);
        synchronous(&self.primary);
        self.database.reconnect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Left as they are for a look when something failed.
        if !std::thread::panicking() {
            for home in [&self.other, &self.primary] {
                server::cluster_in(home, &["destroy"], None);
            }
        }
    }
}

/// Waits until the standby takes part in commits.
#[track_caller]
fn synchronous(primary: &str) {
    let mut client = connect_to(primary, "postgres");
    let sql = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming')";
    wait::until_true_for(&mut client, TIME, sql);
}
