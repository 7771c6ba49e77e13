//! Packs: flows and tables for a purpose, as data.
//!
//! Owns the files below `sql/packs/`. A pack knows no queue: it has scripts that make its tables, and a file for each workflow, with the flows
//! and overlap rules that it is made of and, where a decision needs them, a script with functions. Installing runs the scripts, grants its role
//! what the flows need, and creates flows and rules like anybody would.

mod api;
mod install;
mod protect;
mod workflow;

/// A pack as it is built into the library.
pub struct Pack {
    pub name: &'static str,
    pub manifest: &'static str,
    /// Run in this order, `last` after those of the workflows.
    pub schema: &'static [&'static str],
    pub last: &'static str,
    pub workflows: &'static [Workflow],
}

/// One workflow: its flows and rules as JSON, and its functions.
pub struct Workflow {
    pub definition: &'static str,
    pub functions: Option<&'static str>,
}

macro_rules! file {
    ($pack:literal, $path:expr) => {
        include_str!(concat!("../../sql/packs/", $pack, "/", $path))
    };
}

/// A workflow `name`, or `name + sql` where functions stand beside it.
macro_rules! workflow {
    ($pack:literal, $name:literal) => {
        Workflow { definition: file!($pack, concat!("workflows/", $name, ".json")), functions: None }
    };
    ($pack:literal, $name:literal, sql) => {
        Workflow {
            definition: file!($pack, concat!("workflows/", $name, ".json")),
            functions: Some(file!($pack, concat!("workflows/", $name, ".sql"))),
        }
    };
}

macro_rules! pack {
    ($name:literal, [$($schema:literal),+], [$(($($workflow:tt)+)),+ $(,)?]) => {
        Pack {
            name: $name,
            manifest: file!($name, "pack.json"),
            schema: &[$(file!($name, concat!("schema/", $schema, ".sql"))),+],
            last: file!($name, "schema/last.sql"),
            workflows: &[$(workflow!($name, $($workflow)+)),+],
        }
    };
}

pub const PACKS: &[Pack] = &[pack!(
    "live_events",
    ["first", "atlvs", "compvss", "gvteway"],
    [
        ("r17_deal_status_trail"),
        ("w01_project_from_won_deal", sql),
        ("w09_project_status"),
        ("w16_ticket_revenue_to_ledger", sql),
        ("w25_event_details", sql),
        ("w43_revenue_flow", sql),
    ]
)];
