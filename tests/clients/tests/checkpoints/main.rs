//! Eight walks over the pack platform, each by itself, as an admin of one organization while a second one is there that nothing must reach.

mod events;
mod failures;
mod flows;
mod stage;
mod times;
mod truth;
mod volume;

#[test]
fn data_flows_seamlessly_between_all_integrated_systems() {
    flows::every_pair();
}

#[test]
fn real_time_synchronization_working_across_all_modules() {
    times::at_once();
}

#[test]
fn data_consistency_maintained_during_concurrent_operations() {
    truth::at_the_same_time();
}

#[test]
fn event_system_enabling_reactive_updates_across_systems() {
    events::reactions();
}

#[test]
fn cross_system_data_validation_preventing_corruption() {
    truth::validated();
}

#[test]
fn performance_optimized_for_high_volume_operations() {
    volume::thousands();
}

#[test]
fn data_flow_testing_covering_all_integration_scenarios() {
    flows::whole_catalogue();
}

#[test]
fn error_handling_and_recovery_for_data_synchronization_failures() {
    failures::recovered();
}
