//! Customers who fetch their mail over their own connections (ATRN), while everything else goes wrong.

use super::life::{Life, config};
use engine::config::{self, Config};
use std::net::SocketAddr;
use std::time::Duration;
use tests::sim::{CORE, Customer, Offers, Rng, Weather, World, for_seeds, spawn_injector, spawn_sinks};

/// Two of the domains are a customer's, whom nothing reaches but what he fetches.
fn provider() -> Config {
    let text = "host_name = 'relay.example'\nqueue = '/queue'\n\
        [listeners.one]\naddresses = ['10.0.0.1:25']\nxclient_from = ['10.0.0.0/8']\nauth = ['PLAIN']\n\
        [[access.rules]]\nuser = 'cust'\natrn = ['d1.example', '.example']\nrelay = false\n\
        [routes]\n'd1.example' = { relay = '10.9.9.9:25', hold = true }\n\
        'd2.example' = { relay = '10.9.9.9:25', hold = true }\n";
    let Config { listen, listeners, access, routes, .. } = config::parse(text, "sim").unwrap();
    Config { listen, listeners, access, routes, ..config() }
}

fn cores(world: &World, most: u64) -> usize {
    1 + usize::try_from(world.random(most)).unwrap()
}

fn spawn_all(world: &World) {
    let domains = spawn_sinks(world, 3);
    let offers = Offers::draw(&mut Rng::new(world.random(u64::MAX)));
    world.spawn(Customer::new(SocketAddr::from(CORE), offers));
    spawn_injector(world, 20, domains);
}

fn reversed(life: &Life) -> u64 {
    life.count(|counters| &counters.connections_reversed)
}

/// `before`: connections that were reversed in earlier lives.
fn everybody_is_served(world: &World, mut life: Life, before: u64) {
    let is_done = life.finish(world);
    let audit = world.audit();
    assert!(is_done && life.owed() == 0, "settled: {is_done}, still owed: {}\n{audit}", life.owed());
    assert!(before + reversed(&life) > 0, "nobody fetched anything\n{audit}");
    audit.assert_sound();
}

#[test]
fn fetched_mail_comes_once_over_bad_lines() {
    for_seeds("fetched_mail_comes_once_over_bad_lines", 200, bad_lines);
}

fn bad_lines(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    spawn_all(&world);
    let life = Life::begin_with(&world, cores(&world, 3), provider());
    everybody_is_served(&world, life, 0);
    world.audit().assert_exact();
}

#[test]
fn fetched_mail_survives_crashes() {
    for_seeds("fetched_mail_survives_crashes", 300, crashes);
}

pub(super) fn crashes(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    spawn_all(&world);
    let mut before = 0;
    for _ in 0..1 + world.random(3) {
        let mut life = Life::begin_with(&world, cores(&world, 3), provider());
        life.live(&world, Duration::from_millis(world.random(60_000)));
        before += reversed(&life);
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    }
    world.heal();
    let life = Life::begin_with(&world, cores(&world, 2), provider());
    everybody_is_served(&world, life, before);
}
