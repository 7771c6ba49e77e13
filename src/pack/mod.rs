//! Packs: flows and tables for a purpose, as data.
//!
//! Owns the files below `sql/packs/`. A pack knows no queue: it has scripts that make its tables, and a file for each workflow, with the flows
//! and overlap rules that it is made of and, where a decision needs them, a script with functions; what must hold of its rows is said by rules, a file each. Installing runs the scripts, grants its role
//! what the flows need, and creates flows and rules like anybody would.

mod adopt;
mod api;
mod install;
mod protect;
mod rules;
mod workflow;

/// A pack as it is built into the library.
pub struct Pack {
    pub name: &'static str,
    pub manifest: &'static str,
    /// Run in this order, `last` after those of the workflows.
    pub schema: &'static [&'static str],
    pub last: &'static str,
    pub workflows: &'static [Workflow],
    /// What must hold of its rows: the name of each rule, without the pack's, and its definition.
    pub rules: &'static [(&'static str, &'static str)],
}

/// One workflow: its flows and rules as JSON, and its functions.
pub struct Workflow {
    pub definition: &'static str,
    pub functions: Option<&'static str>,
}

/// The scripts of a pack in the order in which they run; the first one makes its schemas.
pub fn scripts_of(pack: &Pack) -> impl Iterator<Item = &'static str> {
    pack.schema.iter().copied().chain(pack.workflows.iter().filter_map(|workflow| workflow.functions)).chain([pack.last])
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
    ($name:literal, [$($schema:literal),+], [$(($($workflow:tt)+)),+ $(,)?] $(, rules [$($rule:literal),+ $(,)?])?) => {
        Pack {
            name: $name,
            manifest: file!($name, "pack.json"),
            schema: &[$(file!($name, concat!("schema/", $schema, ".sql"))),+],
            last: file!($name, "schema/last.sql"),
            workflows: &[$(workflow!($name, $($workflow)+)),+],
            rules: &[$($(($rule, file!($name, concat!("rules/", $rule, ".json")))),+)?],
        }
    };
}

pub const PACKS: &[Pack] = &[
    pack!(
        "live_events",
        [
            "first",
            "atlvs",
            "atlvs_operations",
            "ledger",
            "compvss",
            "compvss_show",
            "gvteway",
            "gvteway_shows",
            "identity",
            "client",
            "hub"
        ],
        [
            ("r17_deal_status_trail"),
            ("w01_project_from_won_deal", sql),
            ("w02_two_way_budget", sql),
            ("w03_asset_allocation", sql),
            ("w04_crew_payroll", sql),
            ("w05_expense_payable", sql),
            ("w06_hours_payroll"),
            ("w07_vendor_invoice_matching", sql),
            ("w08_alerts"),
            ("w09_project_status"),
            ("w10_change_order_budget", sql),
            ("w11_damage_maintenance", sql),
            ("w12_financial_closeout", sql),
            ("w13_resource_conflicts"),
            ("w14_satisfaction", sql),
            ("w15_guest_from_contact", sql),
            ("w16_ticket_revenue_to_ledger", sql),
            ("w17_inventory_levels", sql),
            ("w18_campaign_spend", sql),
            ("w19_lifetime_value", sql),
            ("w20_payment_settlement", sql),
            ("w21_vendor_rating", sql),
            ("w22_event_from_booking", sql),
            ("w23_financial_reconciliation", sql),
            ("w24_tax_consolidation", sql),
            ("w25_event_details", sql),
            ("w26_schedule_notices", sql),
            ("w27_capacity_and_layout", sql),
            ("w28_seat_map", sql),
            ("w29_show_day_updates", sql),
            ("w30_content_to_gallery"),
            ("w31_guest_services"),
            ("w32_incident_messages"),
            ("w33_access_control", sql),
            ("w34_vip_list"),
            ("w35_merch_forecast", sql),
            ("w36_weather", sql),
            ("w37_parking_and_transport"),
            ("w38_set_times", sql),
            ("w39_event_lifecycle", sql),
            ("w40_asset_lifecycle", sql),
            ("w41_crew_lifecycle", sql),
            ("w42_marketing_attribution", sql),
            ("w43_revenue_flow", sql),
            ("w44_feedback_loop", sql),
            ("w45_unified_reporting", sql),
            ("w46_single_identity", sql),
            ("w47_one_inbox", sql),
            ("w48_search", sql),
        ]
    ),
    pack!(
        "platform",
        ["first", "orchestration", "modules", "handover", "client"],
        [
            ("activate_required_modules", sql),
            ("configure_installed_package", sql),
            ("snapshot_modules_for_handover", sql),
            ("hand_over_completed_execution", sql),
            ("coordinate_by_events", sql),
            ("watch_over_synchronisation"),
            ("synchronise_on_demand", sql),
        ],
        rules [
            "workflow_has_activations",
            "installation_has_configuration",
            "package_holds_module_data",
            "completed_execution_has_package",
        ]
    ),
];
