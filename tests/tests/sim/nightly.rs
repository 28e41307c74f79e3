//! What CI runs some thousand times, a hundred thousand times: `cargo test --release --workspace -- --ignored sim`.
//!
//! A test of its own for each scenario, so that they run beside each other. A seed that fails is repeated with the
//! scenario's everyday test, whose name is printed with it.

use super::{fetch, orders, storage};
use tests::sim::for_seeds;

#[test]
#[ignore = "for the night"]
fn sim_nightly_calm_world() {
    for_seeds("calm_world_is_served_exactly_once", 4_000, super::calm_world);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_bad_network() {
    for_seeds("bad_network_and_bad_peers_lose_nothing", 12_000, super::bad_network);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_power_loss() {
    for_seeds("accepted_mail_survives_power_loss", 25_000, super::power_loss);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_death_of_the_process() {
    for_seeds("accepted_mail_survives_the_death_of_the_process", 16_000, super::death_of_the_process);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_crash_during_recovery() {
    for_seeds("crash_during_recovery_loses_nothing", 10_000, super::crash_during_recovery);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_fan_out() {
    for_seeds("fan_out_is_shared_between_cores_and_survives_crashes", 3_000, super::fan_out);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_orders() {
    for_seeds("orders_that_delete_nothing_lose_nothing", 5_000, orders::orders);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_deletions() {
    for_seeds("deleted_mail_is_gone_and_no_other", 3_000, orders::deletions);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_fetches() {
    for_seeds("fetched_mail_survives_crashes", 5_000, fetch::crashes);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_bad_disk() {
    for_seeds("bad_disk_poisons_and_a_restart_recovers", 12_000, storage::bad_disk);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_bad_reads() {
    let name = "what_cannot_be_read_at_one_start_is_not_forgotten_by_the_next";
    for_seeds(name, 5_000, storage::bad_reads);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_full_disk() {
    for_seeds("full_disk_loses_nothing", 5_000, storage::full_disk);
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_emptied_segments() {
    for_seeds("segments_are_emptied_under_crashes_and_lose_nothing", 3_000, storage::emptied_segments);
    storage::assert_compacted();
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_emptied_segments_on_a_bad_disk() {
    let name = "segments_are_emptied_on_a_bad_disk_and_lose_nothing";
    for_seeds(name, 2_000, storage::emptied_segments_on_a_bad_disk);
    storage::assert_compacted();
}

#[test]
#[ignore = "for the night"]
fn sim_nightly_killed_young() {
    let name = "segments_of_a_killed_start_are_used_only_when_their_names_are_durable";
    for_seeds(name, 5_000, storage::killed_young);
}
