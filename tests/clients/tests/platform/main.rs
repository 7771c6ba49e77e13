//! The pack platform from outside: its flows, reactions, rules, and the calls for clients.

mod calls;
mod events;
mod handover;
mod modules;
mod rows;
mod rules;
mod stage;
mod whole;

/// A test for each case.
macro_rules! cases {
    ($($name:ident: $case:path),+ $(,)?) => {
        const ALL: &[&stage::Case] = &[$(&$case),+];

        $(
            #[test]
            fn $name() {
                stage::six(&$case);
            }
        )+
    };
}

cases!(
    p1_workflow_made: modules::WORKFLOW,
    p1_workflow_run: modules::RUN,
    p1_modules_asked_for: modules::ASKED,
    p2_package_installed: modules::INSTALLED,
    p2_installation_changed: modules::CHANGED_INSTALLATION,
    p2_package_changed: modules::CHANGED_PACKAGE,
    p2_configuration_merged: modules::MERGED,
    p3_module_activated: handover::ACTIVATED,
    p3_module_configured: handover::CONFIGURED,
    p3_module_of_another_version: handover::ANOTHER_VERSION,
    p3_package_of_another_version: handover::ANOTHER_PACKAGE,
    p4_execution_completed: handover::COMPLETED,
    p4_package_prepared: handover::PREPARED,
    p5_workflow_begun_by_an_event: events::TRIGGERED,
    p5_people_told: events::NOTIFIED,
    p6_alert_raised: events::ALERTED,
    p7_table_synchronised: calls::SYNCED,
);

/// The pack's page names exactly the flows that there are, and what is tested of them. With USHER_WRITE_TABLE=1 it is written.
#[test]
fn the_page_shows_what_is_tested() {
    shown("patterns", &stage::table(ALL));
}

/// A part of the pack's page is what it should be, or (with USHER_WRITE_TABLE=1) becomes it.
fn shown(part: &str, wanted: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/packs/platform.md");
    let page = std::fs::read_to_string(&path).expect("the pack's page");
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->\n"));
    let (before, rest) = page.split_once(&begin).expect("where it begins");
    let (shown, after) = rest.split_once(&end).expect("where it ends");
    if std::env::var_os("USHER_WRITE_TABLE").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).expect("the page can be written");
        return;
    }
    assert_eq!(shown, wanted, "USHER_WRITE_TABLE=1 cargo test -p usher-clients --test platform writes it");
}
