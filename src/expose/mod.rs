//! Expose: the hub under the names that existing clients know.
//!
//! Owns `usher.exposed_objects` and, outside of the schema `usher`, the views and functions below `sql/expose/` in whatever
//! schemas `usher.expose_api()` was asked for. They are thin: views that run with the rights of their reader, and functions
//! that call those of the schema `usher`. Called by nobody; calls `guard`, `registry` and `setup`, and the queue by SQL.

mod api;
mod link;
mod surface;

/// One object of the surface.
pub struct Object {
    pub name: &'static str,
    pub kind: Kind,
    /// `@schema@` and `@job@` stand for the schema and for the columns of a sync job `j`.
    sql: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    View,
    Function,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Function => "function",
        }
    }
}

macro_rules! object {
    ($kind:ident $name:literal) => {
        Object { name: $name, kind: Kind::$kind, sql: include_str!(concat!("../../sql/expose/", $name, ".sql")) }
    };
}

/// In the order in which they can be made: the functions return rows of the views.
pub const OBJECTS: &[Object] = &[
    object!(View "integration_deal_links"),
    object!(View "integration_project_links"),
    object!(View "integration_event_links"),
    object!(View "integration_asset_links"),
    object!(View "integration_sync_jobs"),
    object!(View "ticket_revenue_ingestions"),
    object!(View "audit_log"),
    object!(Function "rpc_enqueue_sync_job"),
    object!(Function "rpc_ingest_ticket_revenue"),
    object!(Function "rpc_deal_to_project"),
    object!(Function "rpc_project_to_event"),
];
/// The columns of `integration_sync_jobs`, from a row `j` of the type `usher.sync_job`.
const JOB: &str = include_str!("../../sql/expose/job_columns.sql");
/// With these words the comments of all objects begin: that is how they are told from somebody else's of the same name.
pub const MARK: &str = "pg_usher: ";

impl Object {
    pub fn sql(&self, schema: &str) -> String {
        self.sql.replace("@job@", JOB.trim_end()).replace("@schema@", &pgrx::spi::quote_identifier(schema))
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn every_object_is_marked_and_keeps_its_callers_rights() {
        for object in OBJECTS {
            assert!(object.sql.contains(&format!("IS '{MARK}")), "{} lacks its mark", object.name);
            assert!(!object.sql.to_uppercase().contains("SECURITY DEFINER"), "{}", object.name);
            let careful = match object.kind {
                Kind::View => "security_invoker = true",
                Kind::Function => "SET search_path = pg_catalog, pg_temp",
            };
            assert!(object.sql.contains(careful), "{} lacks {careful}", object.name);
            assert!(object.sql.contains(&format!("@schema@.{}", object.name)), "{}", object.name);
        }
    }
}
