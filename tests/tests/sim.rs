//! The real core loop in the simulator: nothing that was accepted is lost, whatever the network, the peers, the
//! disk and the power do (invariants 1, 4, 5 and 9 of ARCHITECTURE.md).
//!
//! `SIM_SEEDS=5000 cargo test -p tests --test sim` runs more seeds; a failure prints the one to repeat.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sim/fetch.rs"]
mod fetch;
#[path = "sim/life.rs"]
mod life;
#[path = "sim/nightly.rs"]
mod nightly;
#[path = "sim/orders.rs"]
mod orders;
#[path = "sim/storage.rs"]
mod storage;

use engine::config::Config;
use engine::crossing::Mail;
use engine::settings::Settings;
use life::{Life, concluded, config, survives};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tests::sim::{
    CORE, Injector, InjectorPlan, LetterPlan, Weather, World, for_seeds, spawn_injector, spawn_sinks,
};

#[test]
fn calm_world_is_served_exactly_once() {
    for_seeds("calm_world_is_served_exactly_once", 400, calm_world);
}

fn calm_world(seed: u64) {
    let world = World::new(seed, Weather::calm());
    let domains = spawn_sinks(&world, 4);
    spawn_injector(&world, 30, domains);
    survives(&world, 0, 1, 2, |_| {});
    world.audit().assert_exact();
}

#[test]
fn bad_network_and_bad_peers_lose_nothing() {
    for_seeds("bad_network_and_bad_peers_lose_nothing", 800, bad_network);
}

fn bad_network(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 4);
    spawn_injector(&world, 30, domains);
    survives(&world, 0, 1, 2, |_| {});
    world.audit().assert_exact();
}

#[test]
fn accepted_mail_survives_power_loss() {
    for_seeds("accepted_mail_survives_power_loss", 1_200, power_loss);
}

fn power_loss(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    survives(&world, 1 + world.random(4), 40_000, 2, World::crash);
}

#[test]
fn accepted_mail_survives_the_death_of_the_process() {
    for_seeds("accepted_mail_survives_the_death_of_the_process", 800, death_of_the_process);
}

fn death_of_the_process(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    survives(&world, 1 + world.random(4), 40_000, 3, World::kill);
    assert_each_has_its_event(&world);
}

/// Who got their mail, or failed, stand so in the event log, whenever the process died: the line is in the page cache
/// before the mark.
fn assert_each_has_its_event(world: &World) {
    let concluded = concluded(world);
    let lost: Vec<String> =
        world.accepted().into_iter().filter(|recipient| !concluded.contains(recipient)).collect();
    assert!(lost.is_empty(), "without an event: {lost:?}");
}

#[test]
fn crash_during_recovery_loses_nothing() {
    for_seeds("crash_during_recovery_loses_nothing", 600, crash_during_recovery);
}

fn crash_during_recovery(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    // Some lives are over before their first turns are.
    survives(&world, 3 + world.random(5), 300, 2, |world| {
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    });
}

#[test]
fn fan_out_is_shared_between_cores_and_survives_crashes() {
    for_seeds("fan_out_is_shared_between_cores_and_survives_crashes", 400, fan_out);
}

fn fan_out(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    let letter = LetterPlan { recipients: 150..400, body_len: 0..3_000, domains, verp: true };
    let plan = InjectorPlan {
        target: SocketAddr::from(CORE),
        letters: 3,
        connections: 1,
        attempts_max: 30,
        spread: Duration::from_secs(3),
        letter,
    };
    world.spawn(Injector::new(plan));
    survives(&world, world.random(3), 8_000, 3, |world| {
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    });
}

#[test]
fn no_250_before_the_sync() {
    for_seeds("no_250_before_the_sync", 200, |seed| {
        let world = World::new(seed, Weather::calm());
        let domains = spawn_sinks(&world, 2);
        spawn_injector(&world, 10, domains);
        let mut life = Life::begin(&world, 1);
        // The segment is prepared; from here on no sync ends.
        life.live(&world, Duration::from_millis(1));
        world.hold_syncs(true);
        life.live(&world, Duration::from_secs(60));
        let audit = world.audit();
        assert_eq!((audit.accepted, audit.delivered), (0, 0), "nothing may be answered, or sent on: {audit}");
        world.hold_syncs(false);
        assert!(life.finish(&world));
        assert!(world.audit().accepted > 0);
        world.audit().assert_exact();
    });
}

const HOUR: Duration = Duration::from_secs(3600);

/// A life of ten minutes: its end is soon, and the grace for the last attempt an hour.
fn short_lived() -> Config {
    let mut config = config();
    config.retry.lifetime_secs = 600;
    config
}

#[test]
fn mail_ends_though_the_name_servers_never_answer() {
    for_seeds("mail_ends_though_the_name_servers_never_answer", 20, |seed| {
        let world = World::new(seed, Weather::calm());
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 10, domains);
        let mut life = Life::begin_with(&world, 1, short_lived());
        life.live_unanswered(&world, HOUR);
        assert!(
            life.owed() > 0 && life.count(|counters| &counters.failed) == 0,
            "past its lifetime, mail may still have its last attempt"
        );
        // An hour and its lifetime for the mail, then the same for its bounces, which nobody answers for either.
        life.live_unanswered(&world, 4 * HOUR);
        assert!(
            life.owed() == 0 && life.count(|counters| &counters.failed) > 0,
            "{} owed, {} failed",
            life.owed(),
            life.count(|counters| &counters.failed)
        );
    });
}

#[test]
fn held_mail_outlives_its_lifetime_and_goes_out_when_it_is_released() {
    for_seeds("held_mail_outlives_its_lifetime_and_goes_out_when_it_is_released", 20, |seed| {
        let world = World::new(seed, Weather::calm());
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 10, domains);
        let mut held = short_lived();
        held.delivery.connections_max = 0;
        let mut life = Life::begin_with(&world, 1, held);
        life.live(&world, 24 * HOUR);
        assert!(
            life.owed() > 0 && life.count(|counters| &counters.failed) == 0,
            "{} owed, {} failed",
            life.owed(),
            life.count(|counters| &counters.failed)
        );
        let released = Arc::new(Settings::new(short_lived(), &[7; 32]));
        life.crossing.send(0, Mail::Reload(released)).unwrap();
        // Its last attempt: whom a sink asks to wait now has failed. Some sinks do.
        life.live_until(&world, 4 * HOUR, |_| false);
        let delivered = life.crossing.counters[0].delivered.get();
        assert!(
            life.owed() == 0 && delivered > 0,
            "{delivered} delivered, {} failed",
            life.count(|counters| &counters.failed)
        );
    });
}

#[test]
fn same_seed_same_history() {
    let history = |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        let hash = Rc::new(RefCell::new(0));
        survives(&world, 2, 20_000, 2, |world| {
            *hash.borrow_mut() ^= world.trace_hash();
            world.crash();
        });
        (world.trace_hash(), hash.take())
    };
    for seed in 0..20 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
}
