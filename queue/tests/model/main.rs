//! The queue's state equals a trivial in-memory model's, under random operations and restarts.
//!
//! Log, journal, store and fold are driven over a disk in memory exactly as the engine drives them: several cores, each
//! with its partition, small segments that are sealed, emptied and used again, chunks of one core's lists delivered by
//! another, journals turned over in the middle of it. A restart may be clean, follow the death of the process (what was
//! put is there) or the loss of power (what was not synced is lost, torn or there), and may have another number of
//! cores. After each one, what is owed to whom, how often it was tried and when it is due must be what the model allows:
//! a recipient that is settled durably is never owed again, one that is owed is never lost.

mod core;
mod counters;
mod disk;
mod recovery;
mod state;

use crate::core::{Around, Core, Letters};
use crate::counters::Counters;
use crate::disk::{Chance, Disk, Name};
use crate::state::{Anchor, Model, Recovered};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::VecDeque;

/// What becomes of the first recipients of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Settle,
    /// Due after that many seconds.
    Defer(u8),
    /// The sender was told that they are late.
    Warn,
    /// An operator holds them back.
    Hold,
    Release,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// Everything is durable first.
    Clean,
    Kill,
    PowerLoss,
}

/// Of the core at the first number, modulo their count.
#[derive(Clone, Debug)]
enum Operation {
    /// Recipients at domains of these numbers; octets of content.
    Submit(u8, Vec<u8>, u16),
    /// A list to more domains than an index names.
    SubmitWide(u8),
    StartCommit(u8),
    EndWrites(u8),
    CommitAll(u8),
    Conclude {
        core: u8,
        pick: u16,
        count: u8,
        verdict: Verdict,
    },
    Lend {
        core: u8,
        to: u8,
        pick: u16,
        count: u8,
    },
    /// All cores read their letters.
    Receive,
    Put(u8),
    NameJournal(u8),
    StartSync(u8),
    EndSync(u8),
    SyncAll,
    TurnOver(u8),
    Compact(u8),
    Restart {
        end: End,
        cores: u8,
        seed: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let core = || prop_oneof![3 => Just(0u8), 1 => 1u8..3];
    let domains = prop_oneof![
        4 => proptest::collection::vec(0u8..4, 1..5),
        1 => proptest::collection::vec(0u8..2, 5..14),
    ];
    let len = prop_oneof![3 => 0u16..3000, 2 => 3000u16..9000, 1 => 9000u16..60_000];
    let verdict = prop_oneof![
        8 => Just(Verdict::Settle),
        3 => (0u8..9).prop_map(Verdict::Defer),
        1 => Just(Verdict::Warn),
        1 => Just(Verdict::Hold),
        1 => Just(Verdict::Release),
    ];
    let count = || prop_oneof![2 => 1u8..4, 3 => Just(u8::MAX)];
    let end = prop_oneof![1 => Just(End::Clean), 2 => Just(End::Kill), 3 => Just(End::PowerLoss)];
    prop_oneof![
        12 => (core(), domains, len).prop_map(|(core, domains, len)| Operation::Submit(core, domains, len)),
        1 => core().prop_map(Operation::SubmitWide),
        3 => core().prop_map(Operation::StartCommit),
        3 => core().prop_map(Operation::EndWrites),
        9 => core().prop_map(Operation::CommitAll),
        24 => (core(), any::<u16>(), count(), verdict)
            .prop_map(|(core, pick, count, verdict)| Operation::Conclude { core, pick, count, verdict }),
        6 => (core(), core(), any::<u16>(), count())
            .prop_map(|(core, to, pick, count)| Operation::Lend { core, to, pick, count }),
        8 => Just(Operation::Receive),
        3 => core().prop_map(Operation::Put),
        1 => core().prop_map(Operation::NameJournal),
        2 => core().prop_map(Operation::StartSync),
        2 => core().prop_map(Operation::EndSync),
        6 => Just(Operation::SyncAll),
        2 => core().prop_map(Operation::TurnOver),
        6 => core().prop_map(Operation::Compact),
        2 => (end, 1u8..4, any::<u64>())
            .prop_map(|(end, cores, seed)| Operation::Restart { end, cores, seed }),
    ]
}

/// Cores over a disk, and the model beside them.
struct World<'a> {
    disk: Disk,
    model: Model,
    cores: Vec<Core>,
    mailboxes: Vec<VecDeque<(Letters, Option<String>)>>,
    old_journals: Vec<Name>,
    counters: &'a mut Counters,
    submitted: usize,
}

impl World<'_> {
    fn new(counters: &mut Counters) -> World<'_> {
        let (disk, model) = (Disk::default(), Model::default());
        let (cores, mailboxes, old_journals) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = World { disk, model, cores, mailboxes, old_journals, counters, submitted: 0 };
        world.start(2, true);
        world
    }

    /// A step of one core, and the letters that it writes.
    fn step(&mut self, core: u8, step: impl FnOnce(&mut Core, &mut Around<'_>)) {
        let World { disk, model, counters, .. } = self;
        let mut outbox = Vec::new();
        let mut around = Around { disk, model, counters, outbox: &mut outbox };
        let at = usize::from(core) % self.cores.len();
        step(&mut self.cores[at], &mut around);
        for (to, letters) in outbox {
            let domain = match &letters {
                Letters::Chunk { owner, open, .. } => {
                    let domains = &self.cores[usize::from(*owner)].domains;
                    Some(domains[open.range().domain.0 as usize].clone())
                }
                Letters::Done { .. } | Letters::Noted { .. } => None,
            };
            self.mailboxes[usize::from(to)].push_back((letters, domain));
        }
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Submit(core, domains, len) => self.submit(*core, domains, *len),
            Operation::SubmitWide(core) => self.submit(*core, &(0..70).collect::<Vec<u8>>(), 500),
            Operation::StartCommit(core) => self.step(*core, Core::start_commit),
            Operation::EndWrites(core) => self.step(*core, Core::end_writes),
            Operation::CommitAll(core) => self.step(*core, Core::commit_all),
            Operation::Conclude { core, pick, count, verdict } => {
                let (pick, count) = (usize::from(*pick), u32::from(*count));
                self.step(*core, |core, around| core.conclude(around, pick, count, *verdict));
            }
            Operation::Lend { core, to, pick, count } => {
                let to = to % u8::try_from(self.cores.len()).expect("few cores");
                let (pick, count) = (usize::from(*pick), u32::from(*count));
                self.step(*core, |core, around| core.lend(around, to, pick, count));
            }
            Operation::Receive => (0..self.cores.len()).for_each(|core| self.receive(core)),
            Operation::Put(core) => self.step(*core, Core::put),
            Operation::NameJournal(core) => self.step(*core, Core::name),
            Operation::StartSync(core) => self.step(*core, |core, _| core.start_sync()),
            Operation::EndSync(core) => self.step(*core, Core::end_sync),
            Operation::SyncAll => self.sync_all(),
            Operation::TurnOver(core) => self.step(*core, Core::turn_over),
            Operation::Compact(core) => self.step(*core, Core::compact),
            Operation::Restart { end, cores, seed } => self.restart(*end, *cores, &mut Chance(*seed)),
        }
        self.each(Core::run_shares);
        self.each(Core::run_logs);
        self.remove_old_journals();
    }

    fn each(&mut self, step: impl Fn(&mut Core, &mut Around<'_>)) {
        for core in 0..u8::try_from(self.cores.len()).expect("few cores") {
            self.step(core, &step);
        }
    }

    fn submit(&mut self, core: u8, domains: &[u8], len: u16) {
        let number = self.submitted;
        self.submitted += 1;
        let list: Vec<String> = (0..domains.len())
            .map(|at| format!("u{number}-{}@d{}.test", "x".repeat(at % 7), domains[at]))
            .collect();
        let content = vec![b'a' + u8::try_from(number % 26).expect("a letter"); usize::from(len)];
        self.step(core, |core, around| core.submit(around, &list, &content));
    }

    fn receive(&mut self, core: usize) {
        for (letters, domain) in std::mem::take(&mut self.mailboxes[core]) {
            self.counters.noted += u64::from(matches!(letters, Letters::Noted { .. }));
            let core = u8::try_from(core).expect("few cores");
            self.step(core, |core, around| core.receive(around, letters, domain));
        }
    }

    fn sync_all(&mut self) {
        self.each(|core, around| {
            core.put(around);
            core.name(around);
            core.end_sync(around);
            core.start_sync();
            core.end_sync(around);
        });
    }

    /// Journals of earlier starts may name what any core owes: they stay until every core has said it anew.
    fn remove_old_journals(&mut self) {
        if self.cores.iter().all(|core| core.has_told) {
            std::mem::take(&mut self.old_journals).into_iter().for_each(|name| self.disk.remove(name));
        }
    }

    fn restart(&mut self, end: End, cores: u8, chance: &mut Chance) {
        match end {
            End::Clean => {
                self.each(Core::commit_all);
                self.sync_all();
                self.disk.forget_removed();
            }
            End::Kill => self.kill(chance),
            End::PowerLoss => {
                let World { cores, disk, .. } = self;
                cores.iter_mut().for_each(|core| core.abandon_write(disk));
                disk.lose_power(chance);
            }
        }
        self.counters.restarts += 1;
        self.counters.resized += u64::from(usize::from(cores) != self.cores.len());
        self.start(cores, !matches!(end, End::PowerLoss));
    }

    fn kill(&mut self, chance: &mut Chance) {
        let World { cores, disk, model, .. } = self;
        for core in cores.iter_mut() {
            if chance.once_in(2) {
                core.abandon_write(disk);
            }
        }
        let put: Vec<_> = cores.iter().map(|core| core.journal.put_position()).collect();
        let is_put = |anchor: &Anchor| anchor.position <= put[usize::from(anchor.core)];
        model.each().for_each(|recipient| recipient.lose_unput(&is_put));
        disk.forget_removed();
    }

    fn start(&mut self, cores: u8, is_exact: bool) {
        // What was just written can be read and is not durable yet: before it is believed, it is.
        self.disk.sync_segments();
        let journals = recovery::read_journals(&self.disk);
        let (mut started, mut recovered) = (Vec::new(), Recovered::new());
        let World { disk, model, counters, .. } = self;
        let mut outbox = Vec::new();
        let mut around = Around { disk, model, counters, outbox: &mut outbox };
        for index in 0..cores {
            let (core, found) = recovery::start(index, cores, &journals, &mut around);
            started.push(core);
            recovered.extend(found);
        }
        around.counters.recipients_found += recovered.values().map(|owed| owed.len() as u64).sum::<u64>();
        around.counters.undone += around.model.check(&recovered, is_exact);
        self.cores = started;
        self.mailboxes = (0..cores).map(|_| VecDeque::new()).collect();
        self.old_journals = journals.old;
        self.each(Core::put_state);
        self.each(Core::run_logs);
    }
}

/// Some fifteen seconds. `PROPTEST_CASES` asks for another number.
const CASES: u32 = 512;

#[test]
fn state_after_any_restart_is_the_models() {
    let counters = RefCell::new(Counters::default());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, max_shrink_iters: 20_000, ..Config::default() });
    let operations = proptest::collection::vec(operation(), 1..400);
    let result = runner.run(&operations, |operations| {
        let mut counters = counters.borrow_mut();
        let mut world = World::new(&mut counters);
        operations.iter().for_each(|operation| world.run(operation));
        world.restart(End::PowerLoss, 1, &mut Chance(1));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    println!("{:?}", counters.borrow());
    if cases >= CASES {
        counters.borrow().assert_all_happened();
    }
}

/// Six segments with little left in them; the first is being copied when the process dies, another core takes the
/// partition over, and soon power is lost.
fn lose_power_after_death_in_a_copy(seed: u64) {
    let mut counters = Counters::default();
    let mut world = World::new(&mut counters);
    for _ in 0..6 {
        for len in [300, 17_000] {
            world.run(&Operation::Submit(1, vec![0], len));
            world.run(&Operation::CommitAll(1));
        }
    }
    for pick in [11, 9, 7, 5, 3, 1] {
        world.run(&Operation::Conclude { core: 1, pick, count: 1, verdict: Verdict::Settle });
    }
    world.run(&Operation::SyncAll);
    world.run(&Operation::Compact(1));
    // The index of the segment before comes first.
    for _ in 0..seed % 4 {
        world.run(&Operation::StartCommit(1));
        world.run(&Operation::EndWrites(1));
    }
    world.run(&Operation::StartCommit(1));
    world.run(&Operation::Restart { end: End::Kill, cores: 1, seed });
    world.run(&Operation::Restart { end: End::PowerLoss, cores: 1, seed });
}

#[test]
fn copy_is_relied_on_only_when_it_is_durable() {
    (0..100).for_each(lose_power_after_death_in_a_copy);
}
