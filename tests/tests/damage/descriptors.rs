//! A daemon that is out of file descriptors: it crashes over nothing, loses nothing, and goes on when there are some.

use super::RUN_MAX;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::collections::BTreeSet;
use tests::process::source::{self, SourceConfig, assert_clean, audit, newsletter};
use tests::process::{Client, Daemon, Setup, Sink, vacant, wait};

/// So many of a daemon's descriptors are for connections and new files; a fresh one has some 30 open.
const DESCRIPTORS: u32 = 64;

/// Changes how many the daemon may have. Returns the limit before.
fn limit(daemon: &Daemon, count: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a child's pid is above 0");
    let maximum = getrlimit(Resource::Nofile).maximum;
    let new = Rlimit { current: count, maximum };
    prlimit(Some(pid), Resource::Nofile, new).expect("our child's limits are ours").current
}

/// More connections than there are descriptors; most of them wait to be taken.
fn crowd(daemon: &Daemon) -> Vec<Client> {
    let crowd = (0..2 * DESCRIPTORS).map(|_| Client::connect(daemon.address)).collect();
    daemon.wait_until_said("accepting stopped for now");
    crowd
}

/// 64 KiB to each; who was taken, and what the others were told.
fn send_all(client: &mut Client, count: usize) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut taken, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let content = format!("Subject: long\r\n\r\n{}", format!("{}\r\n", "x".repeat(900)).repeat(72));
    for number in 0..count {
        let to = format!("u{number:03}@there.test");
        let reply = client.send("ann@here.test", &[&to], &content);
        if reply.starts_with("250") {
            taken.insert(to)
        } else {
            refused.insert(reply)
        };
    }
    (taken, refused)
}

#[test]
fn more_connections_than_descriptors_lose_no_mail() {
    let relay = vacant();
    let setup = Setup::new().relay(relay).with("storage.segment_len", 1 << 20);
    let daemon = setup.with("delivery.backoff_max_secs", 1).descriptors_max(DESCRIPTORS).start();
    let mut client = daemon.client();
    // A segment is there before the crowd is.
    client.deliver("ann@here.test", &["first@there.test"]);
    let crowd = crowd(&daemon);
    // Segments are full soon, and no file can be opened for the next one.
    let (mut taken, refused) = send_all(&mut client, 80);
    assert!(!taken.is_empty() && !refused.is_empty(), "{} taken, {refused:?}", taken.len());
    taken.insert("first@there.test".to_owned());
    assert!(refused.iter().all(|reply| reply.starts_with("452 ")), "{refused:?}");
    let sink = Sink::start_on(&relay.to_string(), &[]);
    drop(crowd);
    sink.wait_for_recipients(taken.len() as u64, RUN_MAX);
    drop(client);
    wait::until("mail to be taken again", RUN_MAX, || {
        let reply = daemon.client().send("ann@here.test", &["last@there.test"], "Subject: last\r\n\r\nlast");
        reply.starts_with("250") || {
            assert!(reply.starts_with("452 "), "{reply}");
            false
        }
    });
    daemon.wait_until_empty(RUN_MAX);
    daemon.assert_healthy();
    taken.insert("last@there.test".to_owned());
    let ended = sink.end();
    assert_eq!(ended.forward_paths(), taken);
    assert_eq!(ended.deliveries().len(), taken.len(), "nobody twice");
}

#[test]
fn a_journal_that_cannot_be_opened_for_want_of_descriptors_grows_on_and_loses_nobody() {
    const COUNT: u64 = 60_000;
    // Every other recipient is deferred, again and again: marks enough for several journals.
    let sink = Sink::start(&["--fault", "rcpt=450:0.5", "--delay", "1"]);
    // Connections that are there stay; no other one can be made either.
    let setup = Setup::new().relay(sink.address).with("delivery.messages_per_connection", 1_000_000);
    let daemon = setup.with("retry.schedule", "list").with("retry.list_secs", vec![1]).start();
    let sent = daemon.setup.folder().join("sent.tsv");
    let config = SourceConfig { domain_count: 20, ..newsletter(daemon.address, COUNT, 2048) };
    assert_eq!(source::send(config, sent.clone()).recipients_accepted, COUNT);
    daemon.wait_for_at_least("deferred", 1, RUN_MAX);
    // Fewer than are open: whatever is to be opened now is one too many.
    let before = limit(&daemon, Some(3));
    daemon.wait_until_said("no new journal; the old one grows on");
    limit(&daemon, before);
    let stopped = daemon.kill();
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!((daemon.metric("poisoned"), daemon.metric("damaged")), (0, 0));
    // What was under way on its connections when it died may have arrived twice.
    assert_clean(&audit(&[&sent], &sink.end(), true), COUNT / 10);
}
