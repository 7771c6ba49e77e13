//! What the cases begin with.

use super::stage::Place;

/// A registered module; its configuration needs a whole number of seats when it is called crm.
pub fn module(place: &Place, name: &str) -> String {
    let schema = if name == "crm" {
        r#"{"required": ["seats"], "properties": {"seats": {"type": "integer"}, "plan": {"enum": ["small", "large"]}}}"#
    } else {
        "{}"
    };
    format!(
        "INSERT INTO platform.module_registry (organization_id, id, code, config_schema) VALUES ('{}', '{}', '{}', '{schema}');",
        place.organization,
        place.id(name),
        place.unique(name)
    )
}

/// A workflow with these columns besides.
pub fn workflow(place: &Place, columns: &[(&str, &str)]) -> String {
    let names: String = columns.iter().map(|(name, _)| format!(", {name}")).collect();
    let values: String = columns.iter().map(|(_, value)| format!(", {value}")).collect();
    format!(
        "INSERT INTO platform.orchestration_workflows (organization_id, id, name{names}) VALUES ('{}', '{}', '{}'{values});",
        place.organization,
        place.id("workflow"),
        place.unique("Onboarding")
    )
}

/// The codes of crm and billing.
pub fn both(place: &Place) -> String {
    format!("'{{{},{}}}'", place.unique("crm"), place.unique("billing"))
}

/// Both modules, and a package that brings them.
pub fn package(place: &Place) -> String {
    format!(
        "{}{}INSERT INTO platform.marketplace_packages (organization_id, id, code, module_codes) VALUES ('{}', '{}', '{}', {});",
        module(place, "crm"),
        module(place, "billing"),
        place.organization,
        place.id("package"),
        place.unique("suite"),
        both(place)
    )
}

/// Its installation, in this state.
pub fn installation(place: &Place, status: &str) -> String {
    format!(
        "{}INSERT INTO platform.marketplace_installations (organization_id, id, package_id, configuration, status) VALUES ('{}', '{}', '{}', {}, '{status}');",
        package(place),
        place.organization,
        place.id("installation"),
        place.id("package"),
        settings(place, "5")
    )
}

/// What an installation says of its modules.
pub fn settings(place: &Place, seats: &str) -> String {
    format!(r#"'{{"*": {{"region": "eu"}}, "{}": {{"seats": {seats}}}}}'"#, place.unique("crm"))
}

/// A workflow without modules and an execution of it, in this state.
pub fn execution(place: &Place, status: &str) -> String {
    format!(
        "{}INSERT INTO platform.workflow_executions (organization_id, id, workflow_id, status, input, outputs)
         VALUES ('{}', '{}', '{}', '{status}', '{{\"client_ref\": \"{}\"}}', {});",
        workflow(place, &[]),
        place.organization,
        place.id("execution"),
        place.id("workflow"),
        place.unique("client"),
        OUTPUTS
    )
}

pub const OUTPUTS: &str = r#"'{"score": 9, "artifacts": [{"name": "plan.pdf", "url": "s3://plan"}, {"name": "logo.svg"}]}'"#;

/// Changes a row by the name that the test gave it.
pub fn set(place: &Place, table: &str, name: &str, what: &str) -> String {
    format!("UPDATE platform.{table} SET {what} WHERE organization_id = '{}' AND id = '{}';", place.organization, place.id(name))
}

/// Takes a row away.
pub fn remove(place: &Place, table: &str, name: &str) -> String {
    format!("DELETE FROM platform.{table} WHERE organization_id = '{}' AND id = '{}';", place.organization, place.id(name))
}

/// Says something on the bus.
pub fn emit(place: &Place, event: &str, data: &str) -> String {
    format!("SELECT usher.emit_event('{}', '{event}', '{data}');", place.slug)
}

/// A rule that the target gets, and that this case's rows break.
pub fn forbid(place: &Place, table: &str, condition: &str) -> String {
    format!("ALTER TABLE platform.{table} ADD CONSTRAINT test_{} CHECK ({condition}) NOT VALID;", place.case)
}

pub fn allow(place: &Place, table: &str) -> String {
    format!("ALTER TABLE platform.{table} DROP CONSTRAINT test_{};", place.case)
}

/// Without the flows hearing of it, as after a restore or a bulk load.
pub fn unheard(sql: &str) -> String {
    format!("BEGIN; SET LOCAL usher.capture = off; {sql} COMMIT;")
}
