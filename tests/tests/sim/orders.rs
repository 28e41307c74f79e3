//! Operators who steer while everything else goes wrong.

use super::life::Life;
use engine::crossing::Mail;
use engine::steer::order::{Action, Order};
use engine::steer::wire::Request;
use std::sync::Arc;
use std::time::Duration;
use tests::sim::{Weather, World, for_seeds, spawn_injector, spawn_sinks};

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
    for_seeds("orders_that_delete_nothing_lose_nothing", 600, orders);
}

pub(super) fn orders(seed: u64) {
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
}

#[test]
fn deleted_mail_is_gone_and_no_other() {
    for_seeds("deleted_mail_is_gone_and_no_other", 300, deletions);
}

pub(super) fn deletions(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    let mut life = survives_orders(&world, &[Action::Delete, Action::Delete, Action::Hold, Action::Retry]);
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
    let others: Vec<_> = audit.lost.iter().filter(|line| !line.contains(&format!("@{DELETED}"))).collect();
    assert!(others.is_empty(), "{others:#?}");
}
