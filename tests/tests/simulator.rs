//! The simulator itself, proved with toy cores: an echo, a relay of octets, a log of durable records.
#![allow(clippy::unwrap_used, reason = "a toy that cannot go on is a failed test")]

mod toys;

use ring::Ring;
use std::net::SocketAddr;
use std::time::Duration;
use tests::sim::{CORE, NEVER, OneIn, Weather, World, for_seeds, spawn_injector, spawn_sinks};
use toys::{Echo, Relay, Talker, ToyLog};

const DAY: Duration = Duration::from_secs(86_400);

fn echo_run(seed: u64, weather: Weather) -> (World, bool) {
    let world = World::new(seed, weather);
    let mut cores =
        [Echo::new(world.ring(), SocketAddr::from(CORE)), Echo::new(world.ring(), SocketAddr::from(CORE))];
    let talker = Talker::new(SocketAddr::from(CORE), 5, 20_000);
    let done = talker.done();
    world.spawn(talker);
    let all_back = world.run(&mut cores, DAY, Echo::turn, |_| done.get() == 5);
    world.run(&mut cores, Duration::from_secs(60), Echo::turn, |_| false);
    for core in [0, 1] {
        assert_eq!((world.buffers_lent(core), world.sockets_open(core)), (0, 1), "core {core} leaks");
    }
    (world, all_back)
}

#[test]
fn octets_come_back_in_order_whatever_the_schedule() {
    for_seeds("octets_come_back_in_order_whatever_the_schedule", 100, |seed| {
        let weather = Weather {
            reset: NEVER,
            vanish: NEVER,
            refused: NEVER,
            unanswered: NEVER,
            ..Weather::of_seed(seed)
        };
        assert!(echo_run(seed, weather).1);
    });
}

#[test]
fn a_broken_network_breaks_no_core() {
    for_seeds("a_broken_network_breaks_no_core", 100, |seed| {
        let weather =
            Weather { reset: OneIn(3), vanish: OneIn(5), accept_ended: OneIn(3), ..Weather::of_seed(seed) };
        echo_run(seed, weather);
    });
}

#[test]
fn a_seed_is_one_run() {
    let hash = |seed| echo_run(seed, Weather::of_seed(seed)).0.trace_hash();
    for seed in 0..20 {
        assert_eq!(hash(seed), hash(seed));
        assert_ne!(hash(seed), hash(seed + 1));
    }
}

/// Mail from injector to sinks through a relay of octets: who accepted is then the sink itself, so nothing can be
/// lost, and every copy too many must have its reason.
fn mail_run(seed: u64, weather: Weather) -> (World, bool) {
    let world = World::new(seed, weather);
    let domains = spawn_sinks(&world, 1);
    let mut cores = [Relay::new(world.ring(), SocketAddr::from(CORE), world.route(&domains[0])[0])];
    spawn_injector(&world, 50, domains);
    let hour = Duration::from_secs(3_600);
    world.run(&mut cores, hour, Relay::turn, World::settled);
    world.heal();
    let settled = world.run(&mut cores, 30 * DAY, Relay::turn, World::settled);
    (world, settled)
}

#[test]
fn injector_and_sink_agree_through_a_relay() {
    for_seeds("injector_and_sink_agree_through_a_relay", 200, |seed| {
        let weather = Weather { sink_fails: NEVER, ..Weather::of_seed(seed) };
        let (world, settled) = mail_run(seed, weather);
        let audit = world.audit();
        assert!(settled && audit.lost.is_empty(), "{audit}");
        // A relay of octets makes no VERP reverse-path, so those letters must be found out, and only those.
        let unexpected: Vec<_> = audit
            .corrupt
            .iter()
            .filter(|sentence| !sentence.contains("is not its own") && !sentence.contains("stands for two"))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
        assert_eq!(audit.duplicates_unexplained, 0, "{audit}");
        assert!(audit.accepted > 100 && audit.refused > 0, "{audit}");
    });
}

#[test]
fn mail_runs_repeat_exactly() {
    for seed in 0..10 {
        let hash = || mail_run(seed, Weather::of_seed(seed)).0.trace_hash();
        assert_eq!(hash(), hash());
    }
}

#[test]
fn what_was_acknowledged_as_durable_survives_every_crash() {
    let mut torn = 0;
    for_seeds("what_was_acknowledged_as_durable_survives_every_crash", 1_000, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let mut kept = 0;
        for life in 0..3 {
            let mut cores = [ToyLog::start(world.ring())];
            let found = cores[0].intact();
            assert!(found >= kept, "life {life}: {found} records are there of {kept} acknowledged");
            let span = Duration::from_micros(world.random(40_000));
            world.run(&mut cores, span, ToyLog::turn, |_| false);
            kept = cores[0].acknowledged();
            torn += u32::from(cores[0].found_torn());
            if world.random(4) == 0 { world.kill() } else { world.crash() }
        }
    });
    assert!(torn > 50, "crashes tear what was not synced: {torn}");
}

#[test]
fn killed_process_keeps_what_was_written() {
    for_seeds("killed_process_keeps_what_was_written", 200, |seed| {
        let world = World::new(seed, Weather::calm());
        let mut cores = [ToyLog::start(world.ring())];
        world.hold_syncs(true);
        world.run(&mut cores, Duration::from_secs(1), ToyLog::turn, |_| false);
        let written = cores[0].written();
        world.kill();
        world.hold_syncs(false);
        assert!(ToyLog::start(world.ring()).intact() >= written);
    });
}

#[test]
fn nothing_is_acknowledged_while_syncs_are_held() {
    let world = World::new(1, Weather::calm());
    let mut cores = [ToyLog::start(world.ring())];
    world.hold_syncs(true);
    world.run(&mut cores, Duration::from_secs(1), ToyLog::turn, |_| false);
    assert_eq!(cores[0].acknowledged(), 0);
    world.hold_syncs(false);
    world.run(&mut cores, Duration::from_secs(1), ToyLog::turn, |_| false);
    assert!(cores[0].acknowledged() > 10);
}

#[test]
fn a_failed_sync_can_lose_what_a_later_one_seems_to_cover() {
    let mut lost = 0;
    for seed in 0..200 {
        let world = World::new(seed, Weather { sync_error: OneIn(4), ..Weather::calm() });
        let mut cores = [ToyLog::start(world.ring())];
        cores[0].trust_failed_syncs();
        world.run(&mut cores, Duration::from_millis(100), ToyLog::turn, |_| false);
        let believed = cores[0].acknowledged();
        world.crash();
        lost += u32::from(ToyLog::start(world.ring()).intact() < believed);
    }
    assert!(lost > 20, "a log that goes on after a failed sync must lose records here: {lost}");
}

#[test]
fn a_full_disk_says_so() {
    let world = World::new(1, Weather::calm());
    world.set_disk_len(64 * 1024);
    let mut cores = [ToyLog::start(world.ring())];
    world.run(&mut cores, Duration::from_secs(1), ToyLog::turn, |_| false);
    assert_eq!(cores[0].acknowledged(), 16);
    assert_eq!(world.ring().free_space("/queue".as_ref()).unwrap(), 0);
}

#[test]
fn wakers_and_calls_give_a_core_its_turn() {
    let world = World::new(1, Weather::calm());
    let mut ring = world.ring();
    let waker = ring.waker();
    world.after(Duration::from_secs(7), move || waker.wake());
    let mut events = Vec::new();
    while let Some(0) = world.next_turn(Duration::from_secs(60)) {
        ring.wait(None, &mut events).unwrap();
        if !events.is_empty() {
            break;
        }
    }
    assert!(matches!(events[..], [ring::Event::Woken]));
    assert_eq!(world.clock().elapsed(), Duration::from_secs(7));
}

#[test]
fn rings_are_void_after_a_crash() {
    let world = World::new(1, Weather::calm());
    let mut old = world.ring();
    world.crash();
    let mut new = world.ring();
    assert!(old.wait(None, &mut Vec::new()).is_err());
    assert!(old.listen(SocketAddr::from(CORE)).is_err());
    assert!(new.listen(SocketAddr::from(CORE)).is_ok());
}
