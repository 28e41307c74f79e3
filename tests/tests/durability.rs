//! `kill -9` at any time, SIGTERM at any time, other cores at the next start: nothing accepted is lost.
//!
//! What was in flight when the process died may arrive twice: at most a full window on every connection.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tests::process::source::{
    self, Run, assert_clean, audit, newsletter, recipients, return_path_of, singles,
};
use tests::process::{Daemon, Setup, Sink, wait};

const RUN_MAX: Duration = Duration::from_secs(240);

const RECIPIENTS: u64 = 100_000;

const WINDOW: u64 = 8;
const CONNECTIONS: u64 = 20;

/// Clients that bring messages.
const SESSIONS: usize = 32;

/// What waits for something that does not come takes 20 s.
const END_MAX: Duration = Duration::from_secs(15);

/// Transactions in flight, all of whose replies may be lost.
const IN_FLIGHT_MAX: u64 = WINDOW * CONNECTIONS;

fn setup(sink: &Sink) -> Setup {
    Setup::new()
        .relay(sink.address)
        .on_cpus(&[0, 1])
        .with("delivery.window_max", WINDOW.cast_signed())
        .with("delivery.connections_max", CONNECTIONS.cast_signed())
}

fn sent_file(daemon: &Daemon) -> PathBuf {
    daemon.setup.folder().join("sent.tsv")
}

/// The whole list is in; its delivery has begun.
fn fan_out(daemon: &Daemon, recipients: u64) -> PathBuf {
    let sent = sent_file(daemon);
    let report = source::send(newsletter(daemon.address, recipients, 4096), sent.clone());
    assert_eq!((report.messages_accepted, report.recipients_accepted), (1, recipients), "{report:?}");
    sent
}

/// Waits until no more than that many are owed, but some still are.
fn owed_at_most(daemon: &Daemon, count: u64) {
    let enough = || Some(daemon.owed()).filter(|owed| *owed <= count);
    let owed = wait::until_some(&format!("{count} or fewer to be owed"), RUN_MAX, enough);
    assert!(owed > 0, "it was over before the test could interfere");
}

// ---- kill -9 ----

fn killed_in_a_fan_out(owed: &[u64]) {
    // A millisecond before each group of replies leaves time to interfere.
    let sink = Sink::start(&["--delay", "1"]);
    let mut daemon = setup(&sink).start();
    let sent = fan_out(&daemon, RECIPIENTS);
    for owed in owed {
        owed_at_most(&daemon, *owed);
        daemon = daemon.kill().restart();
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("damaged"), 0);
    let sink = sink.end();
    assert_clean(&audit(&[&sent], &sink, true), owed.len() as u64 * IN_FLIGHT_MAX);
}

#[test]
fn kill_9_in_a_fan_out_loses_nobody_and_serves_twice_only_what_was_in_flight() {
    killed_in_a_fan_out(&[RECIPIENTS / 2]);
}

#[test]
fn kill_9_three_times_in_a_row_loses_nobody() {
    killed_in_a_fan_out(&[RECIPIENTS * 4 / 5, RECIPIENTS / 2, RECIPIENTS / 5]);
}

#[test]
fn kill_9_right_after_the_last_250_loses_nobody() {
    let sink = Sink::start(&["--delay", "1"]);
    let daemon = setup(&sink).start();
    let sent = fan_out(&daemon, RECIPIENTS);
    let daemon = daemon.kill().restart();
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), true), IN_FLIGHT_MAX);
}

/// A run of single messages, of which a part is in.
fn ingest(daemon: &Daemon, accepted: u64) -> Run {
    let run = source::start(singles(daemon.address, 200_000, SESSIONS), sent_file(daemon));
    daemon.wait_for_at_least("accepted_messages", accepted, RUN_MAX);
    run
}

#[test]
fn kill_9_while_messages_come_in_loses_none_that_got_its_250() {
    let sink = Sink::start(&[]);
    let daemon = setup(&sink).start();
    let run = ingest(&daemon, 5_000);
    let stopped = daemon.kill();
    let sent = run.sent.clone();
    let report = run.end();
    // Each session may still have waited for its answer.
    assert!(report.messages_accepted >= 5_000 - SESSIONS as u64, "{report:?}");
    assert!(report.messages_unsent > 0, "it was over before the test could interfere: {report:?}");
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), false), IN_FLIGHT_MAX);
}

// ---- SIGTERM ----

#[test]
fn sigterm_in_a_fan_out_ends_what_is_in_flight_and_the_next_start_does_the_rest() {
    let sink = Sink::start(&["--delay", "1"]);
    let daemon = setup(&sink).start();
    let sent = fan_out(&daemon, RECIPIENTS);
    owed_at_most(&daemon, RECIPIENTS * 2 / 3);
    let stopped = daemon.terminate();
    assert!(stopped.took < END_MAX, "the end took {:?}", stopped.took);
    let daemon = stopped.restart();
    assert!(daemon.owed() > 0, "everything was delivered before the end");
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), true), 0);
}

#[test]
fn sigterm_while_messages_come_in_loses_none_and_delivers_none_twice() {
    let sink = Sink::start(&[]);
    let daemon = setup(&sink).start();
    let run = ingest(&daemon, 5_000);
    let stopped = daemon.terminate();
    assert!(stopped.took < END_MAX, "the end took {:?}", stopped.took);
    let sent = run.sent.clone();
    let report = run.end();
    assert!(report.messages_unsent > 0, "it was over before the test could interfere: {report:?}");
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), false), 0);
}

#[test]
fn sigterm_when_idle_is_quick_and_leaves_an_empty_queue_empty() {
    let sink = Sink::start(&[]);
    let daemon = setup(&sink).start();
    daemon.client().deliver("ann@here.test", &["bob@there.test"]);
    daemon.wait_until_empty(RUN_MAX);
    let stopped = daemon.terminate();
    assert!(stopped.took < END_MAX, "the end took {:?}", stopped.took);
    assert_eq!(stopped.setup.queue_stat()["messages"], 0);
    assert_eq!(sink.end().counters.recipients, 1);
}

// ---- other cores ----

#[test]
fn another_number_of_cores_at_each_start_loses_nobody() {
    let sink = Sink::start(&["--delay", "1"]);
    let mut daemon = setup(&sink).start();
    let sent = fan_out(&daemon, RECIPIENTS);
    for (cpus, owed) in [(&[0][..], RECIPIENTS * 3 / 4), (&[0, 1], RECIPIENTS / 2), (&[1], RECIPIENTS / 4)] {
        owed_at_most(&daemon, owed);
        let mut stopped = daemon.kill();
        stopped.setup.set("cpus", cpus.to_vec());
        daemon = stopped.restart();
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_clean(&audit(&[&sent], &sink.end(), true), 3 * IN_FLIGHT_MAX);
}

#[test]
fn mail_of_a_core_that_is_no_more_goes_out_without_any_new_mail() {
    let sink = Sink::start(&["--delay", "1"]);
    let mut daemon = setup(&sink).start();
    // Many sessions: the kernel spreads them over both cores.
    let run = ingest(&daemon, 2_000);
    let mut stopped = daemon.kill();
    let sent = run.sent.clone();
    run.end();
    stopped.setup.set("cpus", vec![0]);
    daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    // Emptied, not only read: the next start finds nothing.
    let stopped = daemon.terminate();
    assert_eq!(stopped.setup.queue_stat()["messages"], 0);
    assert_clean(&audit(&[&sent], &sink.end(), false), IN_FLIGHT_MAX);
}

// ---- retries and failures across a kill ----

#[test]
fn deferred_and_failed_recipients_survive_kill_9_and_each_failed_one_is_told() {
    const COUNT: u64 = 4_000;
    // One in ten thousand of these is tried for a fifth time, 16 seconds after it came in.
    let sink = Sink::start(&["--fault", "rcpt=550:0.05:by-address", "--fault", "rcpt=450:0.1"]);
    let returns = Sink::start(&[]);
    let daemon = setup(&sink).with("routes.loadgen.test", returns.address.to_string()).start();
    fan_out(&daemon, COUNT);
    daemon.wait_for_at_least("delivered", COUNT / 5, RUN_MAX);
    let daemon = daemon.kill().restart();
    daemon.wait_until_empty(RUN_MAX);
    let (served, told) = (sink.end().forward_paths(), returns.end().forward_paths());
    let unserved = recipients(COUNT).filter(|recipient| !served.contains(recipient));
    let owed: BTreeSet<String> = unserved.map(|recipient| return_path_of(&recipient)).collect();
    assert!(!owed.is_empty());
    assert_eq!(told, owed);
}
