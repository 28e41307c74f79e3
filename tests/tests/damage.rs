//! Disks that are full and files that rot: the daemon says so and does what can still be done.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::process::daemon::Stopped;
use tests::process::source::{self, assert_clean, audit, newsletter, singles};
use tests::process::{Daemon, Setup, Sink, Volume, vacant};

const RUN_MAX: Duration = Duration::from_secs(120);

#[path = "damage/anywhere.rs"]
mod anywhere;
#[path = "damage/descriptors.rs"]
mod descriptors;
#[path = "damage/formats.rs"]
mod formats;

// ---- no room ----

/// A queue on a filesystem of its own, with segments that fit there.
fn setup_on(volume: &Volume, relay: SocketAddr) -> Setup {
    let queue = volume.root().join("queue").display().to_string();
    let setup = Setup::new().relay(relay).with("queue", queue).with("storage.segment_len", 1 << 20);
    setup.with("delivery.backoff_max_secs", 1)
}

#[test]
fn a_disk_that_is_full_at_start_is_named_in_one_sentence() {
    let Some(volume) = Volume::mount(32 << 20) else { return };
    volume.fill();
    let setup = setup_on(&volume, vacant());
    let refusal = setup.refusal();
    assert_eq!(refusal.code, 75, "{refusal:?}");
    let sentence = refusal.sentence();
    assert!(sentence.contains(&volume.root().display().to_string()), "{sentence}");
    assert!(sentence.contains("No space left"), "{sentence}");
}

#[test]
fn new_mail_gets_452_while_room_is_short_and_the_queued_goes_out() {
    let Some(volume) = Volume::mount(64 << 20) else { return };
    let relay = vacant();
    let daemon = setup_on(&volume, relay).with("storage.free_min", 8 << 20).start();
    let mut client = daemon.client();
    for number in 0..20 {
        client.deliver("ann@here.test", &[&format!("u{number}@there.test")]);
    }
    volume.fill();
    daemon.wait_until_said("is_short=true");
    client.say_expecting("MAIL FROM:<ann@here.test>", "452");
    let sink = Sink::start_on(&relay.to_string(), &[]);
    daemon.wait_for("delivered", 20, RUN_MAX);
    volume.free();
    daemon.wait_until_said("is_short=false");
    client.deliver("ann@here.test", &["last@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(sink.end().counters.recipients, 21);
}

#[test]
fn a_disk_that_fills_up_with_mail_loses_none_of_it() {
    let Some(volume) = Volume::mount(64 << 20) else { return };
    let relay = vacant();
    let daemon = setup_on(&volume, relay).with("storage.free_min", 8 << 20).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    // 80 MiB where 64 is all there is; the source takes 452 for an answer.
    let config = source::SourceConfig { size_bytes: 16 << 10, ..singles(daemon.address, 5_000, 8) };
    let report = source::send(config, sent.clone());
    assert!(report.messages_accepted > 500, "{report:?}");
    assert!(report.messages_refused > 500 && report.messages_unknown == 0, "{report:?}");
    assert!(report.refusals.keys().all(|refusal| refusal.ends_with(" 452")), "{:?}", report.refusals);
    daemon.wait_until_said("is_short=true");
    let sink = Sink::start_on(&relay.to_string(), &[]);
    daemon.wait_until_empty(RUN_MAX);
    // What is delivered makes room.
    daemon.wait_until_said("is_short=false");
    daemon.client().deliver("ann@here.test", &["last@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    daemon.assert_healthy();
    assert_all_arrived(&sent, sink, report.messages_accepted);
}

#[test]
fn a_full_disk_does_not_keep_a_killed_daemon_from_delivering() {
    let Some(volume) = Volume::mount(48 << 20) else { return };
    let relay = vacant();
    let daemon = setup_on(&volume, relay).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let config = source::SourceConfig { size_bytes: 16 << 10, ..singles(daemon.address, 1_000, 8) };
    let report = source::send(config, sent.clone());
    assert!(report.messages_accepted > 500, "{report:?}");
    let stopped = daemon.kill();
    volume.fill();
    // Its journal needs some room at every start. As much as an operator frees first.
    volume.free_some(2 << 20);
    let daemon = stopped.restart();
    let sink = Sink::start_on(&relay.to_string(), &[]);
    daemon.wait_until_empty(RUN_MAX);
    assert_all_arrived(&sent, sink, report.messages_accepted);
}

/// The run's own mail, once each; one more message of the test's may be among it.
fn assert_all_arrived(sent: &Path, sink: Sink, count: u64) {
    let report = audit(&[sent], &sink.end(), false);
    assert_eq!((report.expected, report.lost), (count, 0), "{report:?}");
    assert_eq!((report.altered, report.duplicated), (0, 0), "{report:?}");
    assert!(report.unexpected <= 1, "{report:?}");
}

// ---- rotten files ----

const MESSAGES: usize = 20;

/// A stopped queue with [`MESSAGES`] messages that nobody took.
fn stopped_queue(relay: SocketAddr) -> Stopped {
    let daemon = Setup::new().relay(relay).with("delivery.backoff_max_secs", 1).start();
    let mut client = daemon.client();
    for number in 0..MESSAGES {
        let content = format!("Subject: number {number:03}\r\n\r\nmark-of-{number:03}");
        let reply = client.send("ann@here.test", &[&format!("u{number:03}@there.test")], &content);
        assert!(reply.starts_with("250"), "{reply}");
    }
    daemon.terminate()
}

/// The same queue when a start has given its segment an index: a segment is read back by that from then on.
fn sealed(stopped: Stopped) -> Stopped {
    let mut stopped = stopped;
    stopped.setup.set("delivery.connections_max", 0);
    let daemon = stopped.restart();
    daemon.wait_for_at_least("commits", 1, RUN_MAX);
    let mut stopped = daemon.terminate();
    stopped.setup.set("delivery.connections_max", 20);
    stopped
}

/// Names and octets of what was set aside.
fn quarantine(queue: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = std::fs::read_dir(queue.join("quarantine")) else { return Vec::new() };
    let paths = folder.map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("ours").to_owned();
    paths.map(|path| (name(&path), std::fs::read(&path).expect("ours"))).collect()
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// Files of the queue whose names begin so.
fn files(queue: &Path, start: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(queue.join("core-0")).expect("a partition");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
        })
        .collect()
}

/// Turns one bit of the octet `offset` behind the first place where `mark` stands.
fn damage(files: &[PathBuf], mark: &[u8], offset: i64) {
    for path in files {
        let bytes = std::fs::read(path).expect("a file of the queue");
        let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) else { continue };
        let at = usize::try_from(i64::try_from(at).expect("a small file") + offset).expect("in the file");
        let file = OpenOptions::new().write(true).open(path).expect("ours");
        return file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("written");
    }
    panic!("{mark:?} is in none of {files:?}");
}

/// All but the damaged one arrive, unaltered, and the daemon speaks of the damage.
fn delivers_the_rest(stopped: Stopped, relay: SocketAddr, damaged: usize) {
    let sink = Sink::start_on(&relay.to_string(), &[]);
    let daemon = stopped.restart();
    daemon.wait_for_at_least("delivered", MESSAGES as u64 - 1, RUN_MAX);
    daemon.wait_for_at_least("damaged", 1, RUN_MAX);
    daemon.wait_until_said("damaged");
    daemon.assert_healthy();
    daemon.client().deliver("ann@here.test", &["last@there.test"]);
    daemon.wait_for("delivered", MESSAGES as u64, RUN_MAX);
    let name = |number: usize| format!("u{number:03}@there.test");
    let mut wanted: BTreeSet<String> = (0..MESSAGES).filter(|number| *number != damaged).map(name).collect();
    wanted.insert("last@there.test".to_owned());
    assert_eq!(sink.end().forward_paths(), wanted);
    // What is left of it is kept for a human, at the next start too.
    assert!(!files(&daemon.setup.queue(), "data-").is_empty());
    let daemon = daemon.terminate().restart();
    daemon.assert_healthy();
}

#[test]
fn a_rotten_octet_of_content_costs_that_message_alone() {
    let relay = vacant();
    let stopped = stopped_queue(relay);
    damage(&files(&stopped.setup.queue(), "data-"), b"mark-of-007", 3);
    delivers_the_rest(stopped, relay, 7);
}

#[test]
fn a_rotten_octet_of_an_envelope_costs_that_message_alone() {
    let relay = vacant();
    let stopped = stopped_queue(relay);
    damage(&files(&stopped.setup.queue(), "data-"), b"u007", 1);
    delivers_the_rest(stopped, relay, 7);
}

#[test]
fn a_rotten_octet_of_a_record_head_costs_that_message_alone() {
    let relay = vacant();
    let stopped = stopped_queue(relay);
    let segments = files(&stopped.setup.queue(), "data-");
    // The envelope stands right behind its head of 64 octets and names the sender first: this is in the first head.
    damage(&segments, b"RPM1", 17);
    delivers_the_rest(stopped, relay, 0);
}

#[test]
fn content_that_rots_while_it_waits_is_set_aside_and_not_delivered() {
    let sink = Sink::start(&["--fault", "rcpt=450:1"]);
    let daemon = Setup::new().relay(sink.address).with("storage.cache_max", 0).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    damage(&files(&daemon.setup.queue(), "data-"), b"Hello", 2);
    daemon.wait_for("set_aside", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    daemon.assert_healthy();
    let kept = quarantine(&daemon.setup.queue());
    assert!(kept.len() == 1 && contains(&kept[0].1, b"bob") && contains(&kept[0].1, b"Hemlo"), "{kept:?}");
    assert_eq!(sink.end().counters.recipients, 0);
}

#[test]
fn content_that_is_found_rotten_after_its_lifetime_is_told_to_its_sender() {
    let (sink, returns) = (Sink::start(&["--fault", "rcpt=450:1"]), Sink::start(&[]));
    let setup = Setup::new().relay(sink.address).with("routes.here.test", returns.address.to_string());
    let daemon = setup.start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    // The second attempt comes after a second: so old it is then at the least.
    daemon.wait_for_at_least("deferred", 2, RUN_MAX);
    let mut stopped = sealed(daemon.terminate());
    damage(&files(&stopped.setup.queue(), "data-"), b"Hello", 2);
    stopped.setup.set("retry.lifetime_secs", 1);
    let daemon = stopped.restart();
    daemon.wait_until_said("its time is over, its sender is told");
    daemon.wait_for("bounces", 1, RUN_MAX);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(returns.end().forward_paths(), BTreeSet::from(["ann@here.test".to_owned()]));
}

/// A fan-out that was killed half-way, its journal damaged, and what it said at the next start.
fn with_a_rotten_journal() -> String {
    const COUNT: u64 = 20_000;
    let sink = Sink::start(&["--delay", "1"]);
    let daemon = Setup::new().relay(sink.address).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    assert_eq!(
        source::send(newsletter(daemon.address, COUNT, 2048), sent.clone()).recipients_accepted,
        COUNT
    );
    daemon.wait_for_at_least("delivered", COUNT / 2, RUN_MAX);
    let stopped = daemon.kill();
    for journal in files(&stopped.setup.queue(), "journal-") {
        damage_early(&journal);
    }
    let daemon = stopped.restart();
    let said = daemon.talk();
    daemon.wait_until_empty(RUN_MAX);
    daemon.assert_healthy();
    assert_clean(&audit(&[&sent], &sink.end(), true), COUNT);
    said
}

#[test]
fn a_rotten_octet_of_a_journal_may_serve_somebody_twice_but_loses_vacant() {
    with_a_rotten_journal();
}

#[test]
fn a_rotten_octet_of_a_journal_is_spoken_of() {
    let said = with_a_rotten_journal();
    assert!(said.contains("journal is damaged"), "{said}");
}

/// Behind the file's head and its first state. Damage near the end could be a write that the crash tore.
fn damage_early(path: &Path) {
    let bytes = std::fs::read(path).expect("a journal");
    let end = bytes.iter().rposition(|octet| *octet != 0).expect("something was written");
    let at = end / 10;
    let file = OpenOptions::new().write(true).open(path).expect("ours");
    file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("written");
}

#[test]
fn journals_that_are_gone_lose_vacant() {
    let sink = Sink::start(&["--delay", "1"]);
    let daemon: Daemon = Setup::new().relay(sink.address).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    assert_eq!(
        source::send(newsletter(daemon.address, 5_000, 2048), sent.clone()).recipients_accepted,
        5_000
    );
    daemon.wait_for_at_least("delivered", 1_000, RUN_MAX);
    let stopped = daemon.kill();
    for journal in files(&stopped.setup.queue(), "journal-") {
        std::fs::remove_file(journal).expect("ours");
    }
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), true), 5_000);
}
