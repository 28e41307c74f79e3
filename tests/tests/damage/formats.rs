//! Queues of other formats: a newer one is refused, an older one is read and served.

use super::{RUN_MAX, files, nobody, stopped_queue};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tests::process::wait::{PATIENCE, finish, succeed};
use tests::process::{Setup, Sink, SmtpSink};

fn refuses_a_newer(start: &str) {
    let stopped = stopped_queue(nobody());
    let is_used = |path: &std::path::PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"RP"));
    let path = files(&stopped.setup.queue(), start).into_iter().find(is_used).expect("one");
    OpenOptions::new().write(true).open(&path).and_then(|file| file.write_all_at(&[3], 6)).expect("ours");
    let refusal = stopped.setup.refusal();
    assert_eq!(refusal.code, 78, "{refusal:?}");
    let wanted = format!("{}: written by a newer format than this program reads", path.display());
    assert!(refusal.sentence().contains(&wanted), "{refusal:?}");
    let looked = finish(&mut stopped.setup.command(&["queue", "verify"]), PATIENCE);
    assert_eq!(looked.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&looked.stderr).contains(&wanted));
}

#[test]
fn a_segment_of_a_newer_format_refuses_the_start() {
    refuses_a_newer("data-");
}

#[test]
fn a_journal_of_a_newer_format_refuses_the_start() {
    refuses_a_newer("journal-");
}

// ---- format 1 ----

fn fixture() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/queue-format-1"))
}

/// A copy of a queue that format 1 wrote.
fn queue_of_format_1(setup: &Setup) {
    let copied = succeed(
        std::process::Command::new("cp").arg("-r").arg(fixture().join("queue")).arg(setup.folder()),
        PATIENCE,
    );
    assert!(copied.status.success());
}

/// What format 1's own program said of it.
fn list_of_format_1() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture().join("list.json")).expect("it is there");
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn by_id(list: &[Value]) -> BTreeMap<String, &Value> {
    list.iter().map(|message| (message["id"].as_str().expect("an id").to_owned(), message)).collect()
}

/// What format 1's program said of each message; it listed all domains.
fn assert_same(found: &[Value], wanted: &[Value]) {
    let (found, wanted) = (by_id(found), by_id(wanted));
    assert!(found.keys().eq(wanted.keys()), "{found:?}");
    for (id, message) in wanted {
        // A start rounds due times up to whole seconds.
        let due = |message: &Value| message["next_due"].as_str().expect("a time")[..16].to_owned();
        assert_eq!(due(found[id.as_str()]), due(message), "{id}");
        for field in ["arrived", "octets", "owed", "recipients", "sender"] {
            assert_eq!(found[id.as_str()][field], message[field], "{field} of {id}");
        }
        assert_eq!(found[id.as_str()]["domain"], message["domains"][0], "{id}");
    }
}

/// Relays to `to`, on the two cores that the queue was written by, and keeps mail for longer than it can lie in the
/// fixture.
fn setup_for(to: std::net::SocketAddr) -> Setup {
    let setup = Setup::new().relay(to).with("retry.lifetime_secs", 50 * 365 * 86_400_i64);
    queue_of_format_1(&setup);
    setup.on_cpus(&[0, 1])
}

#[test]
fn a_queue_of_format_1_is_shown_as_its_own_program_showed_it() {
    let setup = setup_for(nobody());
    setup.write_config();
    assert_same(&setup.queue_list(), &list_of_format_1());
    let stat = setup.queue_stat();
    assert_eq!((&stat["messages"], &stat["recipients_owed"]), (&8.into(), &36.into()));
    assert!(setup.queue_list().iter().all(|message| message["attempts"] == 1));
    succeed(&mut setup.command(&["queue", "verify"]), PATIENCE);
}

#[test]
fn a_queue_of_format_1_is_taken_up_with_its_due_times_and_stays_so_over_a_restart() {
    let mut setup = setup_for(nobody());
    // What is due must not be tried meanwhile.
    setup.set("delivery.connections_max", 0);
    let daemon = setup.start();
    assert_eq!(daemon.metric("queued_recipients"), 36);
    assert_same(&daemon.setup.queue_list(), &list_of_format_1());
    let stopped = daemon.kill();
    assert_same(&stopped.setup.queue_list(), &list_of_format_1());
    let daemon = stopped.restart();
    assert_same(&daemon.setup.queue_list(), &list_of_format_1());
}

/// What `queue cat` gives of each message.
fn contents(setup: &Setup) -> Vec<Vec<u8>> {
    let ids: Vec<String> = by_id(&list_of_format_1()).into_keys().collect();
    let cat = |id: &String| succeed(&mut setup.command(&["queue", "cat", id]), PATIENCE).stdout;
    ids.iter().map(cat).collect()
}

#[test]
fn a_queue_of_format_1_goes_out_octet_for_octet() {
    let Some(sink) = SmtpSink::start(true) else { return };
    let setup = setup_for(sink.address);
    setup.write_config();
    let contents = contents(&setup);
    assert!(contents.iter().all(|content| content.starts_with(b"Received: ")));
    let daemon = setup.start();
    succeed(&mut daemon.setup.command(&["queue", "flush"]), PATIENCE);
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("delivered"), 36);
    let kept = sink.kept(8);
    for content in contents {
        // A file of mail has lines that end in LF.
        let lines = String::from_utf8(content).expect("ASCII").replace("\r\n", "\n");
        assert!(memchr::memmem::find(&kept, lines.as_bytes()).is_some(), "{lines}");
    }
}

#[test]
fn a_queue_of_format_1_reaches_exactly_those_who_were_owed() {
    let sink = Sink::start(&[]);
    let setup = setup_for(sink.address);
    setup.write_config();
    let owed: Vec<String> = by_id(&list_of_format_1()).keys().flat_map(|id| owed_of(&setup, id)).collect();
    let daemon = setup.start();
    succeed(&mut daemon.setup.command(&["queue", "flush"]), PATIENCE);
    daemon.wait_until_empty(RUN_MAX);
    let mut found: Vec<String> =
        sink.end().deliveries().into_iter().map(|delivery| delivery.forward_path).collect();
    let mut owed = owed;
    owed.sort();
    found.sort();
    assert_eq!((owed.len(), found), (36, owed));
}

/// Recipients still to do, by `queue show`.
fn owed_of(setup: &Setup, id: &str) -> Vec<String> {
    let output = succeed(&mut setup.command(&["queue", "show", id, "--json"]), PATIENCE);
    let message: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let to_do = message["to_do"].as_array().expect("a list");
    to_do.iter().map(|entry| entry["recipient"].as_str().expect("an address").to_owned()).collect()
}
