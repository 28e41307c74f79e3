//! A set of keys on disk: how long it takes to build, what it takes of memory, and what a look-up costs.
//!
//! One run and no statistics: a set of 50,000,000 keys takes minutes to build and 1.2 GB of disk.
//! `KEYSET_ENTRIES=50000000 cargo bench -p bench --bench keyset`; without, a million. The folder is `KEYSET_FOLDER`, else
//! /var/tmp. Look-ups are of keys in an order of chance, after a first round that brings their pages into the system's memory, and
//! once more with all entries in ours. Building
//! is wall time; a look-up and a hash are a thread's time on its CPU by its calls, so that other work beside it does
//! not count.
#![forbid(unsafe_code)]

use engine::keyset::{Change, Found, Key, KeySet, Options, Reader, Value};
use engine::suppression::Keys;
use message::MailboxRef;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BATCH: u64 = 50_000;
const LOOK_UPS: u64 = 2_000_000;

fn main() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let entries = number("KEYSET_ENTRIES").unwrap_or(1_000_000);
    let parent = std::env::var_os("KEYSET_FOLDER").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let folder = parent.join(format!("keyset-bench-{}", std::process::id()));
    run(&folder, entries);
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

fn run(folder: &Path, entries: u64) {
    let before = resident();
    let mut set = KeySet::open(folder, options(entries, 0)).expect("a new set");
    let start = Instant::now();
    for first in (0..entries).step_by(usize::try_from(BATCH).expect("small")) {
        let last = entries.min(first + BATCH);
        let changes: Vec<Change<'_>> = (first..last).map(add).collect();
        black_box(set.apply(&changes).expect("room on the disk"));
    }
    say("built, durable batches of 50,000", start.elapsed(), entries);
    set.wait().expect("room on the disk");
    say("and all files merged", start.elapsed(), entries);
    describe(&set, before);
    drop(set);

    for (what, memory_max) in [("opened again", 0), ("opened again, entries in memory", u64::MAX)] {
        let start = Instant::now();
        let set = KeySet::open(folder, options(entries, memory_max)).expect("what was written can be read");
        println!("{what:<44} {:>10.3} s", start.elapsed().as_secs_f64());
        describe(&set, before);
        look_up(&set.reader(), entries);
    }
    hash();
}

fn options(entries: u64, memory_max: u64) -> Options {
    Options { memory_max, ..Options::new(1, entries + 1) }
}

/// The key of that number: SplitMix64, twice. As spread as a hash's, and costs less than what is measured.
fn key(number: u64) -> Key {
    let mix = |number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let high = mix(number + 1);
    Key(u128::from(high) << 64 | u128::from(mix(high ^ 0x5555)))
}

fn add(number: u64) -> Change<'static> {
    Change::Add { key: key(number), value: Value { kind: 1, at_secs: 1 }, note: &[] }
}

fn look_up(reader: &Reader, entries: u64) {
    let count = LOOK_UPS.min(entries);
    // Every so many of all keys, in the order of their pages' chance.
    let there: Vec<Key> = (0..count).map(|number| key(number * (entries / count))).collect();
    let absent: Vec<Key> = (0..count).map(|number| key(entries + number)).collect();
    there.iter().for_each(|key| drop(black_box(reader.get(*key))));
    let mut found = 0;
    let took = time(&there, |key| found += u64::from(matches!(reader.look(key), Found::Yes(_))));
    assert_eq!(found, count, "pages that were just read are in memory");
    say("look-up of a key that is there", took, count);
    let (mut unread, mut wrong) = (0, 0);
    let took = time(&absent, |key| match reader.look(key) {
        Found::No => {}
        Found::Unread => unread += 1,
        Found::Yes(_) => wrong += 1,
    });
    assert_eq!(wrong, 0);
    say("look-up of a key that is not there", took, count);
    println!("{:<44} {:>10} of {count}", "of those a page was asked for, not in memory", unread);
}

fn hash() {
    let keys = Keys::new(&[7; 32]);
    let addresses: Vec<String> =
        (0..1000).map(|number| format!("customer.{number}@example-{number}.com")).collect();
    let start = on_cpu();
    for address in addresses.iter().cycle().take(1_000_000) {
        if let Some((local_part, domain)) = address.split_once('@') {
            black_box(keys.key("news.example.org", MailboxRef { local_part, domain }));
        }
    }
    say("key of an address", on_cpu() - start, 1_000_000);
}

fn time(keys: &[Key], mut call: impl FnMut(Key)) -> Duration {
    let start = on_cpu();
    keys.iter().for_each(|key| call(black_box(*key)));
    on_cpu() - start
}

/// What this thread has had of a CPU.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the kernel counts what a thread has had"))
}

fn say(what: &str, took: Duration, count: u64) {
    let each = took.as_secs_f64() * 1e9 / count as f64;
    println!("{what:<44} {:>10.3} s {each:>10.0} ns each", took.as_secs_f64());
}

fn describe(set: &KeySet, before: u64) {
    let stat = set.handle().stat();
    let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
    println!(
        "{:<44} {} keys, {} files, {:.0} MiB on disk, {:.1} MiB of tables, resident {:.0} MiB more",
        "it is",
        stat.counts.sum(),
        stat.files,
        mib(stat.disk),
        mib(stat.memory),
        mib(resident().saturating_sub(before)),
    );
}

/// Octets of the process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
