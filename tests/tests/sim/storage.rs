//! Old segments that are emptied, disks that err and disks that are full, under crashes.

use super::life::{Life, config, survives};
use engine::config::Config;
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;
use tests::sim::{
    CORE, Injector, InjectorPlan, LetterPlan, NEVER, Offers, OneIn, Sink, Weather, World, for_seeds,
    spawn_injector, spawn_sinks,
};

const HOUR: Duration = Duration::from_secs(3600);

// ---- compaction ----

/// A host whose recipients wait so long, and the domain whose mail it takes.
fn spawn_slow_sink(world: &World, defers_for: Duration) -> String {
    let address = SocketAddr::from(([10, 2, 0, 1], 25));
    let offers = Offers {
        ehlo: true,
        pipelining: true,
        chunking: true,
        recipients_max: 100,
        messages_max: 1_000,
        multiline: false,
        defers_for,
    };
    world.spawn(Sink::new(address, offers));
    world.set_route("slow.example", vec![address]);
    "slow.example".to_owned()
}

/// Letters of some KiB over two hours, one in eight of them for a domain that makes them wait for hours: the segments
/// of the others are left nearly empty, and nothing but compaction frees them.
fn spawn_mixed_mail(world: &World, letters: usize) {
    let mut domains = spawn_sinks(world, 7);
    domains.push(spawn_slow_sink(world, 5 * HOUR));
    let letter = LetterPlan { recipients: 1..2, body_len: 1_000..8_000, domains, verp: true };
    world.spawn(Injector::new(InjectorPlan {
        target: SocketAddr::from(CORE),
        letters,
        connections: 3,
        attempts_max: 30,
        spread: 2 * HOUR,
        letter,
    }));
}

/// Some lives of an hour or so, then one to the end. Returns how many records were copied forward.
fn compacts(world: &World, end: impl Fn(&World)) -> u64 {
    let copied = Cell::new(0);
    let note = |life: &Life| copied.set(copied.get() + life.count(|counters| &counters.copied));
    for _ in 0..1 + world.random(4) {
        world.adjust(|weather| weather.read_error = NEVER);
        let cores = 1 + usize::try_from(world.random(2)).unwrap();
        if let Ok(mut life) = Life::try_begin(world, cores, config()) {
            life.live_until(world, Duration::from_millis(world.random(5_400_000)), |_| false);
            note(&life);
        }
        end(world);
    }
    world.heal();
    let mut life = Life::begin(world, 1);
    let is_done = life.finish(world);
    note(&life);
    let audit = world.audit();
    assert!(is_done && life.owed() == 0, "settled: {is_done}, still owed: {}\n{audit}", life.owed());
    audit.assert_sound();
    copied.get()
}

thread_local! {
    /// Of the seeds that ran in this thread: all, those in which a record was copied.
    static COMPACTED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn note_copied(copied: u64) {
    COMPACTED.with(|seeds| {
        let (all, some) = seeds.get();
        seeds.set((all + 1, some + u64::from(copied > 0)));
    });
}

/// A scenario that never empties a segment proves nothing about it.
pub(super) fn assert_compacted() {
    let (all, some) = COMPACTED.take();
    assert!(some * 4 > all, "records were copied in {some} of {all} runs");
}

pub(super) fn emptied_segments(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    spawn_mixed_mail(&world, 150);
    note_copied(compacts(&world, |world| if world.random(3) == 0 { world.kill() } else { world.crash() }));
}

#[test]
fn segments_are_emptied_under_crashes_and_lose_nothing() {
    for_seeds("segments_are_emptied_under_crashes_and_lose_nothing", 120, emptied_segments);
    assert_compacted();
}

pub(super) fn emptied_segments_on_a_bad_disk(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed).bad_disk());
    spawn_mixed_mail(&world, 150);
    note_copied(compacts(&world, World::crash));
}

#[test]
fn segments_are_emptied_on_a_bad_disk_and_lose_nothing() {
    for_seeds("segments_are_emptied_on_a_bad_disk_and_lose_nothing", 80, emptied_segments_on_a_bad_disk);
    assert_compacted();
}

// ---- disks that err ----

#[test]
fn bad_disk_poisons_and_a_restart_recovers() {
    for_seeds("bad_disk_poisons_and_a_restart_recovers", 1_000, bad_disk);
}

/// Anything that is asked of the disk may fail, at the start and in recovery too.
pub(super) fn bad_disk(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed).bad_disk());
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    for _ in 0..1 + world.random(4) {
        let cores = 1 + usize::try_from(world.random(2)).unwrap();
        // A start on a failing disk may fail; that is an answer.
        if let Ok(mut life) = Life::try_begin(&world, cores, config()) {
            life.live(&world, Duration::from_millis(world.random(40_000)));
        }
        world.crash();
    }
    survives(&world, 0, 1, 1, |_| {});
}

/// Segments that cannot be read at a start are read at the next one.
pub(super) fn bad_reads(seed: u64) {
    let world = World::new(seed, Weather::of_seed(seed));
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 20, domains);
    for _ in 0..2 + world.random(4) {
        world.adjust(|weather| weather.read_error = OneIn(10));
        let cores = 1 + usize::try_from(world.random(2)).unwrap();
        let life = Life::try_begin(&world, cores, config());
        world.adjust(|weather| weather.read_error = NEVER);
        if let Ok(mut life) = life {
            life.live(&world, Duration::from_millis(world.random(20_000)));
        }
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    }
    survives(&world, 0, 1, 1, |_| {});
}

#[test]
fn what_cannot_be_read_at_one_start_is_not_forgotten_by_the_next() {
    for_seeds("what_cannot_be_read_at_one_start_is_not_forgotten_by_the_next", 600, bad_reads);
}

/// A start that is killed leaves segments whose names no sync has made durable; the next one takes mail into them, and
/// then the power goes.
pub(super) fn killed_young(seed: u64) {
    let weather = Weather { sync_us: 1_000..200_000, latency_us: 50..500, ..Weather::calm() };
    let world = World::new(seed, weather);
    let domains = spawn_sinks(&world, 2);
    let letter = LetterPlan { recipients: 1..2, body_len: 0..1_000, domains, verp: false };
    world.spawn(Injector::new(InjectorPlan {
        target: SocketAddr::from(CORE),
        letters: 40,
        connections: 8,
        attempts_max: 30,
        spread: Duration::from_millis(10),
        letter,
    }));
    for end in [World::kill, World::crash] {
        let mut life = Life::begin_with(&world, 1, config());
        life.live(&world, Duration::from_millis(world.random(400)));
        end(&world);
    }
    survives(&world, 0, 1, 1, |_| {});
}

#[test]
fn segments_of_a_killed_start_are_used_only_when_their_names_are_durable() {
    for_seeds("segments_of_a_killed_start_are_used_only_when_their_names_are_durable", 1_000, killed_young);
}

/// Little more than what the mail in flight takes, and less while it is still coming in.
pub(super) fn full_disk(seed: u64) {
    let world = World::new(seed, Weather { no_space: OneIn(400), ..Weather::of_seed(seed) });
    let domains = spawn_sinks(&world, 3);
    spawn_injector(&world, 60, domains);
    for _ in 0..1 + world.random(4) {
        world.set_disk_len((140 << 10) + world.random(200 << 10));
        let cores = 1 + usize::try_from(world.random(2)).unwrap();
        if let Ok(mut life) = Life::try_begin(&world, cores, config()) {
            life.live(&world, Duration::from_millis(world.random(60_000)));
        }
        if world.random(2) == 0 { world.crash() } else { world.kill() }
    }
    world.set_disk_len(1 << 30);
    survives(&world, 0, 1, 1, |_| {});
}

#[test]
fn full_disk_loses_nothing() {
    for_seeds("full_disk_loses_nothing", 300, full_disk);
}

// ---- poisoning ----

/// A life in which some mail waits, safe, for a host that lets it wait, when the log's syncs begin to fail; more mail
/// comes in then.
fn poisoned(seed: u64) -> (World, Life) {
    let world = World::new(seed, Weather::calm());
    let domain = spawn_slow_sink(&world, HOUR);
    world.set_route(tests::sim::SENDER_DOMAIN, world.route(&domain));
    spawn_injector(&world, 10, vec![domain.clone()]);
    let mut life = Life::begin_with(&world, 1, config());
    life.live_until(&world, Duration::from_secs(120), |_| false);
    assert!(life.owed() > 0 && world.audit().delivered == 0);
    world.break_syncs("data-");
    spawn_injector(&world, 10, vec![domain]);
    life.live_until(&world, Duration::from_secs(120), |_| false);
    (world, life)
}

#[test]
fn after_a_failed_sync_new_mail_gets_451() {
    for_seeds("after_a_failed_sync_new_mail_gets_451", 20, |seed| {
        let (world, mut life) = poisoned(seed);
        let (taken, refused) = (world.replies(250), world.replies(451));
        assert!(refused > 0);
        life.live_until(&world, Duration::from_secs(600), |_| false);
        // 250 is the answer to MAIL while nobody knows of the failure.
        assert!(world.replies(451) > refused && world.replies(250) == taken);
        assert_eq!(world.replies(452), 0);
    });
}

#[test]
fn after_a_failed_sync_what_is_safe_goes_out() {
    for_seeds("after_a_failed_sync_what_is_safe_goes_out", 20, |seed| {
        let (world, mut life) = poisoned(seed);
        let accepted = world.audit().accepted;
        life.live_until(&world, 24 * HOUR, |_| false);
        let audit = world.audit();
        assert!(audit.delivered > 0 && audit.accepted == accepted, "{audit}");
        // Whom a host has refused for good waits for a bounce, which is new mail too.
        assert!(audit.lost.iter().all(|line| line.contains("its sender was not told")), "{audit}");
    });
}

#[test]
fn after_a_failed_sync_the_gauge_says_so_until_the_next_start() {
    for_seeds("after_a_failed_sync_the_gauge_says_so_until_the_next_start", 20, |seed| {
        let (world, life) = poisoned(seed);
        assert_eq!(life.count(|counters| &counters.poisoned), 1);
        drop(life);
        world.crash();
        let life = Life::begin_with(&world, 1, config());
        assert_eq!(life.count(|counters| &counters.poisoned), 0);
    });
}

#[test]
fn after_a_failed_sync_a_restart_takes_mail_again_and_loses_none() {
    for_seeds("after_a_failed_sync_a_restart_takes_mail_again_and_loses_none", 20, |seed| {
        let (world, life) = poisoned(seed);
        let accepted = world.audit().accepted;
        drop(life);
        world.crash();
        survives(&world, 0, 1, 1, |_| {});
        assert!(world.audit().accepted > accepted);
    });
}

// ---- room ----

/// Messages a minute, for a week.
const A_MINUTE: usize = 2;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Compaction looks twice before it begins to empty a segment, each second.
const LOOKS: Duration = Duration::from_secs(10);

/// One recipient in a hundred is deferred for two days.
fn spawn_a_week_of_mail(world: &World) {
    let mut domains: Vec<String> = spawn_sinks(world, 3).into_iter().cycle().take(99).collect();
    domains.push(spawn_slow_sink(world, Duration::from_secs(2 * 86_400)));
    let letter = LetterPlan { recipients: 1..2, body_len: 500..6_000, domains, verp: false };
    world.spawn(Injector::new(InjectorPlan {
        target: SocketAddr::from(CORE),
        letters: A_MINUTE * 7 * 24 * 60,
        connections: 2,
        attempts_max: 30,
        spread: WEEK,
        letter,
    }));
}

fn roomy() -> Config {
    let mut config = config();
    config.storage.segment_len = 256 << 10;
    config
}

/// Bytes of all segment files, and the most that they may be: twice what is owed and two segments for each core.
fn room(world: &World, life: &Life, config: &Config) -> (u64, u64) {
    let used = world.files("data-").iter().map(|(_, len)| len).sum();
    let live = life.count(|counters| &counters.log_live_octets);
    (used, 2 * live + 2 * config.storage.segment_len * life.cores.len() as u64)
}

#[test]
fn a_week_of_mail_takes_no_more_than_twice_the_live_and_two_segments_a_core() {
    let world = World::new(1, Weather::calm());
    spawn_a_week_of_mail(&world);
    let config = roomy();
    let mut life = Life::begin_with(&world, 2, config.clone());
    for hour in 0..7 * 24 {
        life.live_until(&world, HOUR, |_| false);
        // A segment that has just been left to be emptied is copied from at the next two looks.
        let (used, most) = room(&world, &life, &config);
        if used > most {
            life.live_until(&world, LOOKS, |_| false);
        }
        let (used, most) = room(&world, &life, &config);
        assert!(used <= most, "hour {hour}: {used} octets of segments, {most} at most");
    }
    assert!(life.count(|counters| &counters.copied) > 0, "the week fills and empties segments");
    assert!(life.finish(&world));
    world.audit().assert_exact();
}
