//! A seeded world for cores to live in: clock, network, disk and peers, all simulated, all in one thread.
//!
//! A failure of the whole engine is a schedule: this sync ended before that reset, then the power went. Here a
//! seed decides the schedule, so a failure can be had again. The core under test is the real one; only its
//! [`ring::Ring`] is [`SimRing`], and its clock is [`SimClock`].
//!
//! # Writing a scenario
//!
//! ```text
//! #[test]
//! fn accepted_mail_survives_power_loss() {
//!     for_seeds("accepted_mail_survives_power_loss", 200, |seed| {
//!         let world = World::new(seed, Weather::of_seed(seed));
//!         let domains = spawn_sinks(&world, 4);           // d0.example … d3.example, world.route(domain) finds them
//!         spawn_injector(&world, 50, domains);            // submits 50 letters to CORE, tries again by itself
//!         for _ in 0..world.random(4) {
//!             let mut cores = [new_core(&world)];         // Core::new(config, world.ring(), world.clock(), …)
//!             let span = Duration::from_millis(world.random(60_000));
//!             world.run(&mut cores, span, |core| core.turn(), World::settled);
//!             world.crash();                              // void: every SimRing that exists
//!         }
//!         world.heal();                                   // no more faults
//!         let mut cores = [new_core(&world)];             // the ordinary start, on the disk that survived
//!         let done = world.run(&mut cores, Duration::from_secs(3 * 86_400), |core| core.turn(), World::settled);
//!         let audit = world.audit();
//!         audit.assert_sound();                           // assert_exact() if nothing crashed
//!         assert!(done, "{audit}");
//!     });
//! }
//! ```
//!
//! # The rules for whoever runs cores by hand
//!
//! - [`World::next_turn`] names the core whose turn it is (the first [`World::ring`] since the start or the last
//!   crash is core 0, the next core 1); call that core's `turn()` once. It is `None` at the time given.
//!   It is made of [`World::step`] (what is due happens), [`World::runnable`] (who has something to do) and
//!   [`World::advance`] (on to the next thing); time moves in the last alone.
//! - A turn must call `wait` exactly once, with a time-out computed there and then. Cores get a turn right after
//!   one that brought events, so that they can say how long they now want to sleep; and `wait` may bring nothing
//!   although the time-out is not over.
//! - Drop the cores after a crash; what they do then is void.
//! - Anything else that the core waits for (its resolver) is scripted with [`World::after`] and the ring's waker.
//!
//! # What is not simulated
//!
//! Half-closed streams (`api.rs` has none), TLS, reordering within a connection, latent sector errors, a clock that jumps.

mod actor;
mod audit;
mod clock;
mod customer;
mod disk;
mod disk_ops;
mod injector;
mod ledger;
mod letter;
mod net;
mod ring;
mod rng;
mod scenario;
mod sink;
mod sockets;
mod sparse;
mod sync_hold;
mod timeline;
mod weather;
mod world;

pub use actor::{Actor, Ending, Io};
pub use audit::Audit;
pub use clock::SimClock;
pub use customer::Customer;
pub use injector::{Injector, InjectorPlan};
pub use ledger::{Ledger, Place};
pub use letter::{GONE, Intake, Letter, LetterPlan, Recipient, SENDER_DOMAIN, TOKEN_FIELD};
pub use net::Link;
pub use ring::SimRing;
pub use rng::{NEVER, OneIn, Rng};
pub use scenario::{CORE, for_seeds, spawn_injector, spawn_sinks};
pub use sink::{Offers, Sink};
pub use timeline::digest;
pub use weather::Weather;
pub use world::World;
