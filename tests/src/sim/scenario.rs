//! What most scenarios begin with: seeds to run, hosts to deliver to, a client that submits.

use super::injector::{Injector, InjectorPlan};
use super::letter::{LetterPlan, SENDER_DOMAIN};
use super::rng::Rng;
use super::sink::{Offers, Sink};
use super::world::World;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// Where the core of most scenarios listens.
pub const CORE: ([u8; 4], u16) = ([10, 0, 0, 1], 25);

/// Runs `scenario` with seeds from 0 up to `count`, or those that the environment names: `SIM_SEED=17` is that one,
/// `SIM_SEEDS=5000` so many. A panic prints its seed and the command to repeat it.
pub fn for_seeds(name: &str, count: u64, mut scenario: impl FnMut(u64)) {
    for seed in seeds(count) {
        let _announcer = Announcer { name, seed };
        scenario(seed);
    }
}

fn seeds(count: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(count),
    }
}

struct Announcer<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Announcer<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Announcer { name, seed } = self;
            eprintln!(
                "seed {seed} fails; repeat: SIM_SEED={seed} cargo test -p tests {name} (SIM_TRACE=1 prints every event)"
            );
        }
    }
}

/// Hosts `10.1.0.1`… at port 25 for the domains `d0.example`…, each with offers of its own; the first takes the
/// bounces too. Returns the domains.
pub fn spawn_sinks(world: &World, count: u8) -> Vec<String> {
    let mut rng = Rng::new(world.random(u64::MAX));
    let mut domains = Vec::new();
    for index in 0..count {
        let address = SocketAddr::from(([10, 1, 0, index + 1], 25));
        let domain = format!("d{index}.example");
        world.spawn(Sink::new(address, Offers::draw(&mut rng)));
        world.set_route(&domain, vec![address]);
        if index == 0 {
            world.set_route(SENDER_DOMAIN, vec![address]);
        }
        domains.push(domain);
    }
    domains
}

/// A client that submits `letters` letters for `domains` to [`CORE`], each to one to six recipients.
pub fn spawn_injector(world: &World, letters: usize, domains: Vec<String>) {
    let letter = LetterPlan { recipients: 1..7, body_len: 0..6_000, domains, verp: true };
    let plan = InjectorPlan {
        target: SocketAddr::from(CORE),
        letters,
        connections: 3,
        attempts_max: 30,
        spread: Duration::from_secs(30),
        letter,
    };
    world.spawn(Injector::new(plan));
}
