//! The real core loop in the simulator: nothing that was accepted is lost, whatever the network, the peers, the
//! disk and the power do (invariants 1, 4, 5 and 9 of ARCHITECTURE.md).
//!
//! `SIM_SEEDS=5000 cargo test -p tests --test sim` runs more seeds; a failure prints the one to repeat.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use engine::clock::Clock;
use engine::config::{self, Config};
use engine::core::{Core, CoreConfig};
use engine::crossing::{Crossing, Mail};
use engine::domains::{Host, Resolution};
use engine::recovery::read_journals;
use engine::settings::Settings;
use engine::steer::order::{Action, Order};
use engine::steer::wire::Request;
use message::{Reply, UnixMillis};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::sim::{
    CORE, Injector, InjectorPlan, LetterPlan, SimClock, SimRing, Weather, World, for_seeds, spawn_injector,
    spawn_sinks,
};

/// A run that has not settled by then never will: longer than any back-off and the longest stall.
const SETTLED_BY: Duration = Duration::from_secs(5 * 86_400);

#[derive(Clone)]
struct WorldClock(SimClock);

impl Clock for WorldClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> UnixMillis {
        self.0.wall()
    }
}

type SimCore = Core<SimRing, WorldClock>;

/// One life of the daemon: its cores, and the resolver that answers them.
struct Life {
    cores: Vec<SimCore>,
    crossing: Arc<Crossing>,
}

fn config() -> Config {
    let text = "host_name = 'relay.example'\nqueue = '/queue'\n[intake]\nrelay_from = ['10.0.0.0/8']";
    let mut config = config::parse(text, "sim").unwrap();
    // Small, so that segments are recycled and journals turned over within a short life.
    config.storage.segment_len = 64 << 10;
    config.storage.journal_len = 4 << 10;
    config.storage.spare_segments = 1;
    config.storage.free_min = 0;
    config.storage.cache_max = 16 << 10;
    config.delivery.share_len = 2;
    config.delivery.window_max = 4;
    config.delivery.recipients_per_transaction = 3;
    config
}

impl Life {
    /// The ordinary start, on whatever disk there is.
    fn begin(world: &World, cores: usize) -> Life {
        let mut config = config();
        if world.random(4) == 0 {
            // One core has the only connection to a site, and the others their mail for it.
            config.delivery.connections_max = 1;
        }
        Life::begin_with(world, cores, config)
    }

    fn begin_with(world: &World, cores: usize, config: Config) -> Life {
        let settings = Arc::new(Settings::new(config, &[7; 32]));
        let crossing = Arc::new(Crossing::new(cores));
        let mut rings: Vec<SimRing> = (0..cores).map(|_| world.ring()).collect();
        let journals = Arc::new(read_journals(&mut rings[0], Path::new("/queue")).unwrap());
        let start = |(index, ring): (usize, SimRing)| {
            let (settings, crossing, journals) = (settings.clone(), crossing.clone(), journals.clone());
            let config = CoreConfig { index, settings, crossing, journals };
            let mut core = Core::start(ring, WorldClock(world.clock()), config).unwrap();
            core.listen(&[SocketAddr::from(CORE)]).unwrap();
            core
        };
        let cores = rings.into_iter().enumerate().map(start).collect();
        // What a crash tears was never acknowledged: it must not be taken for damage.
        let damaged: u64 = crossing.counters.iter().map(|counters| counters.damaged.get()).sum();
        assert_eq!(damaged, 0, "a crash damages nothing");
        Life { cores, crossing }
    }

    /// Lives for `span`, or until there is nothing left to do.
    fn live(&mut self, world: &World, span: Duration) -> bool {
        self.live_until(world, span, World::settled)
    }

    /// Until everybody is served, and then until the cores know it too.
    fn finish(&mut self, world: &World) -> bool {
        let is_done = self.live(world, SETTLED_BY);
        // What a crash made them repeat may have been deferred.
        for _ in 0..48 {
            self.live_until(world, Duration::from_secs(3600), |_| false);
            if self.owed() == 0 {
                break;
            }
        }
        is_done
    }

    fn live_until(&mut self, world: &World, span: Duration, is_over: fn(&World) -> bool) -> bool {
        let crossing = Arc::clone(&self.crossing);
        let resolver = world.clone();
        let turn = move |core: &mut SimCore| {
            let mut events = Vec::new();
            core.turn(&mut events).unwrap();
            answer(&resolver, &crossing);
        };
        world.run(&mut self.cores, span, turn, is_over)
    }

    /// Lives without anybody to answer questions.
    fn live_unanswered(&mut self, world: &World, span: Duration) {
        let turn = |core: &mut SimCore| {
            core.turn(&mut Vec::new()).unwrap();
        };
        world.run(&mut self.cores, span, turn, |_| false);
    }

    fn failed(&self) -> u64 {
        self.crossing.counters.iter().map(|counters| counters.failed.get()).sum()
    }

    fn owed(&self) -> u64 {
        self.cores.iter().map(SimCore::owed).sum()
    }
}

/// Answers the cores' questions from the world's routes, a little later.
fn answer(world: &World, crossing: &Arc<Crossing>) {
    while let Some(question) = crossing.next_question() {
        let hosts: Vec<Host> = world
            .route(&question.name)
            .into_iter()
            .map(|address| Host { name: "mx".into(), address })
            .collect();
        let resolution = match hosts.first() {
            Some(host) => Resolution::Site { site: host.address.to_string().into(), hosts, ttl_secs: 3600 },
            None => Resolution::Failed(Reply::ours(550, (5, 1, 2), "no such domain")),
        };
        let crossing = Arc::clone(crossing);
        let delay = Duration::from_micros(world.random(50_000));
        world.after(delay, move || {
            let mail = Mail::Answer { domain: question.domain, name: question.name, resolution };
            crossing.send(question.core, mail).unwrap();
        });
    }
}

/// Some lives that end in one way or another, then one without faults; everybody must be served at its end.
fn survives(world: &World, lives: u64, span_ms: u64, cores_max: u64, end: impl Fn(&World)) {
    for _ in 0..lives {
        let cores = 1 + usize::try_from(world.random(cores_max)).unwrap();
        let mut life = Life::begin(world, cores);
        life.live(world, Duration::from_millis(world.random(span_ms)));
        end(world);
    }
    world.heal();
    let mut life = Life::begin(world, 1 + usize::try_from(world.random(cores_max)).unwrap());
    let is_done = life.finish(world);
    let audit = world.audit();
    assert!(is_done && life.owed() == 0, "settled: {is_done}, still owed: {}\n{audit}", life.owed());
    audit.assert_sound();
}

#[test]
fn calm_world_is_served_exactly_once() {
    for_seeds("calm_world_is_served_exactly_once", 400, |seed| {
        let world = World::new(seed, Weather::calm());
        let domains = spawn_sinks(&world, 4);
        spawn_injector(&world, 30, domains);
        survives(&world, 0, 1, 2, |_| {});
        world.audit().assert_exact();
    });
}

#[test]
fn bad_network_and_bad_peers_lose_nothing() {
    for_seeds("bad_network_and_bad_peers_lose_nothing", 1_500, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 4);
        spawn_injector(&world, 30, domains);
        survives(&world, 0, 1, 2, |_| {});
        world.audit().assert_exact();
    });
}

#[test]
fn accepted_mail_survives_power_loss() {
    for_seeds("accepted_mail_survives_power_loss", 4_000, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        survives(&world, 1 + world.random(4), 40_000, 2, World::crash);
    });
}

#[test]
fn accepted_mail_survives_the_death_of_the_process() {
    for_seeds("accepted_mail_survives_the_death_of_the_process", 2_500, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        survives(&world, 1 + world.random(4), 40_000, 3, World::kill);
    });
}

#[test]
fn crash_during_recovery_loses_nothing() {
    for_seeds("crash_during_recovery_loses_nothing", 1_000, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        // Some lives are over before their first turns are.
        survives(&world, 3 + world.random(5), 300, 2, |world| {
            if world.random(2) == 0 { world.crash() } else { world.kill() }
        });
    });
}

#[test]
fn bad_disk_poisons_and_a_restart_recovers() {
    for_seeds("bad_disk_poisons_and_a_restart_recovers", 1_000, |seed| {
        let world = World::new(seed, Weather::of_seed(seed).bad_disk());
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        survives_bad_disk(&world);
    });
}

/// A start on a failing disk may fail; that is an answer. Starts again after each end.
fn survives_bad_disk(world: &World) {
    for _ in 0..1 + world.random(3) {
        world
            .adjust(|weather| (weather.read_error, weather.no_space) = (tests::sim::NEVER, weather.no_space));
        let mut life = Life::begin(world, 1);
        life.live(world, Duration::from_millis(world.random(40_000)));
        world.crash();
    }
    survives(world, 0, 1, 1, |_| {});
}

#[test]
fn fan_out_is_shared_between_cores_and_survives_crashes() {
    for_seeds("fan_out_is_shared_between_cores_and_survives_crashes", 400, |seed| {
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
    });
}

// ---- operators ----

impl Life {
    /// Gives an order to all cores; what they say of it is not waited for.
    fn order(&self, request: &Request) {
        let line = serde_json::to_vec(request).unwrap();
        let (order, _) = Order::new(Request::parse(&line).unwrap());
        for core in 0..self.cores.len() {
            self.crossing.send(core, Mail::Order(Arc::clone(&order))).unwrap();
        }
    }

    /// Lives on with an operator who steers at random times.
    fn live_steered(&mut self, world: &World, actions: &[Action]) {
        for _ in 0..1 + world.random(6) {
            self.live_until(world, Duration::from_millis(world.random(12_000)), |_| false);
            let at = |count: usize| usize::try_from(world.random(count as u64)).unwrap();
            let mut request = Request::new(actions[at(actions.len())]);
            let conditions =
                ["domain=d0.example", "attempts<2 and age>3s", "state=deferred", "reason~4", "age<1h"];
            request.r#where = vec![conditions[at(conditions.len())].to_owned()];
            if request.action == Action::Delete {
                request.r#where.push(format!("domain={DELETED}"));
            }
            (request.dry_run, request.limit) = (world.random(5) == 0, at(20));
            self.order(&request);
        }
    }
}

/// The domain that operators delete mail for.
const DELETED: &str = "d2.example";

/// Steered lives with hard ends, then one in which everything is released, until nothing is owed.
fn survives_orders(world: &World, actions: &[Action]) -> Life {
    for _ in 0..1 + world.random(3) {
        let mut life = Life::begin(world, 1 + usize::try_from(world.random(3)).unwrap());
        life.live_steered(world, actions);
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    }
    world.heal();
    let mut life = Life::begin(world, 1 + usize::try_from(world.random(2)).unwrap());
    life.live_steered(world, actions);
    life.order(&Request::new(Action::Release));
    life.order(&Request::new(Action::Flush));
    life
}

#[test]
fn orders_that_delete_nothing_lose_nothing() {
    for_seeds("orders_that_delete_nothing_lose_nothing", 600, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        let actions = [
            Action::Hold,
            Action::Hold,
            Action::Release,
            Action::Retry,
            Action::Flush,
            Action::Stat,
            Action::List,
            Action::Show,
        ];
        let mut life = survives_orders(&world, &actions);
        let is_done = life.finish(&world);
        let audit = world.audit();
        assert!(is_done && life.owed() == 0, "settled: {is_done}, still owed: {}\n{audit}", life.owed());
        audit.assert_sound();
    });
}

#[test]
fn deleted_mail_is_gone_and_no_other() {
    for_seeds("deleted_mail_is_gone_and_no_other", 300, |seed| {
        let world = World::new(seed, Weather::of_seed(seed));
        let domains = spawn_sinks(&world, 3);
        spawn_injector(&world, 20, domains);
        let mut life =
            survives_orders(&world, &[Action::Delete, Action::Delete, Action::Hold, Action::Retry]);
        // What was deleted never settles in the books: the queue says when all is done.
        for _ in 0..240 {
            life.live_until(&world, Duration::from_secs(1800), |_| false);
            if life.owed() == 0 {
                break;
            }
        }
        let audit = world.audit();
        assert_eq!(life.owed(), 0, "{audit}");
        assert!(audit.corrupt.is_empty(), "{audit}");
        let others: Vec<_> =
            audit.lost.iter().filter(|line| !line.contains(&format!("@{DELETED}"))).collect();
        assert!(others.is_empty(), "{others:#?}");
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
            life.owed() > 0 && life.failed() == 0,
            "past its lifetime, mail may still have its last attempt"
        );
        // An hour and its lifetime for the mail, then the same for its bounces, which nobody answers for either.
        life.live_unanswered(&world, 4 * HOUR);
        assert!(life.owed() == 0 && life.failed() > 0, "{} owed, {} failed", life.owed(), life.failed());
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
        assert!(life.owed() > 0 && life.failed() == 0, "{} owed, {} failed", life.owed(), life.failed());
        let released = Arc::new(Settings::new(short_lived(), &[7; 32]));
        life.crossing.send(0, Mail::Reload(released)).unwrap();
        // Its last attempt: whom a sink asks to wait now has failed. Some sinks do.
        life.live_until(&world, 4 * HOUR, |_| false);
        let delivered = life.crossing.counters[0].delivered.get();
        assert!(life.owed() == 0 && delivered > 0, "{delivered} delivered, {} failed", life.failed());
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
