//! Seasons of the pack live_events: organizations with their deals, shows and orders, as many as wanted, the same for a seed.
//!
//! For the demo and the benchmarks, where what lies in the tables matters and not how it came there. Everything is made by
//! statements over whole sets, while triggers rest: no flow runs for it, and the rows are those that the flows would have left.

use crate::{Client, run, text};

/// How much, and which of all possible seasons.
#[derive(Clone, Copy)]
pub struct Season {
    pub seed: i64,
    /// Called season-0, season-1, …; deals and orders are spread over them.
    pub organizations: i64,
    /// Two of five are won and have a project, a production and an event.
    pub deals: i64,
    /// Of those events. Nine of ten are paid, some of these refunded.
    pub orders: i64,
    /// Ticket revenue and ledger of what was paid stand beside it; else that is still to be done.
    pub booked: bool,
}

impl Season {
    /// Fills the tables of a database that has the pack, by a superuser. They need not be empty: ids and slugs carry the seed.
    pub fn make(&self, client: &mut Client) {
        assert!(
            self.organizations > 0 && self.deals >= 10 * self.organizations && self.orders >= 0,
            "a season has something to sell"
        );
        let words = [
            ("{seed}", self.seed),
            ("{organizations}", self.organizations),
            ("{deals}", self.deals),
            ("{orders}", self.orders),
            // Somebody buys four times a season.
            ("{guests}", (self.orders / self.organizations / 4).max(1)),
        ];
        let script =
            |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, &value.to_string()));
        run(client, "BEGIN; SET LOCAL session_replication_role = replica");
        run(client, &script(include_str!("season/shows.sql")));
        run(client, &script(include_str!("season/orders.sql")));
        if self.booked {
            run(client, &script(include_str!("season/books.sql")));
        }
        run(client, "COMMIT");
        // Planners go by what is there, and autovacuum comes later. Not of what is empty: a plan for a table that was vacuumed empty reads all
        // of it, and sessions keep their plans.
        let filled = text(
            client,
            "SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname IN ('atlvs', 'compvss', 'gvteway', 'usher') AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0",
        );
        run(client, &format!("VACUUM ANALYZE {filled}"));
    }
}
