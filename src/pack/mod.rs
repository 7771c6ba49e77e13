//! Packs: flows and tables for a purpose, as data.
//!
//! Owns the files below `sql/packs/`. A pack knows no queue: it has a script that makes its tables, and flow definitions.
//! Installing runs the script, grants its role what the flows need, and creates the flows like anybody would.

mod api;
mod install;
mod protect;

/// A pack as it is built into the library.
pub struct Pack {
    pub name: &'static str,
    pub manifest: &'static str,
    pub schema: &'static str,
    pub flows: &'static [&'static str],
}

macro_rules! pack {
    ($name:literal, $($flow:literal),+ $(,)?) => {
        Pack {
            name: $name,
            manifest: include_str!(concat!("../../sql/packs/", $name, "/pack.json")),
            schema: include_str!(concat!("../../sql/packs/", $name, "/schema.sql")),
            flows: &[$(include_str!(concat!("../../sql/packs/", $name, "/flows/", $flow, ".json"))),+],
        }
    };
}

pub const PACKS: &[Pack] = &[pack!(
    "live_events",
    "create_project_from_won_deal",
    "log_deal_status_change",
    "create_production_from_project",
    "request_event_for_production",
    "create_event",
    "describe_event",
    "update_event_from_production",
    "update_project_phase_from_production",
    "cancel_production_from_project",
    "ingest_paid_order",
    "reverse_refunded_order",
    "update_production_from_revenue",
)];
