//! Queues of other formats: a newer one is refused, an older one is read and served.

use super::{RUN_MAX, files, stopped_queue};
use message::UnixMillis;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tests::process::wait::{PATIENCE, finish, succeed};
use tests::process::{Setup, Sink, SmtpSink, vacant};

fn refuses_a_newer(start: &str) {
    let stopped = stopped_queue(vacant());
    let is_used = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"RP"));
    let path = files(&stopped.setup.queue(), start).into_iter().find(is_used).expect("one");
    OpenOptions::new().write(true).open(&path).and_then(|file| file.write_all_at(&[6], 6)).expect("ours");
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

// ---- older formats ----

/// A queue that an older program wrote, and what that program said of it.
struct Old {
    name: &'static str,
    messages: u64,
    owed: u64,
}

/// Format 1 is from before segments had indexes, format 2 from before messages had a class, format 3 from before
/// names could have something behind them, format 4 from before campaigns and values. Sealed segments have an index from format 2 on.
const OLD: [Old; 4] = [
    Old { name: "queue-format-1", messages: 8, owed: 36 },
    Old { name: "queue-format-2", messages: 10, owed: 25 },
    Old { name: "queue-format-3", messages: 8, owed: 21 },
    Old { name: "queue-format-4", messages: 8, owed: 18 },
];

impl Old {
    fn folder(&self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(self.name)
    }

    fn copy_to(&self, setup: &Setup) {
        let copied = succeed(
            std::process::Command::new("cp").arg("-r").arg(self.folder().join("queue")).arg(setup.folder()),
            PATIENCE,
        );
        assert!(copied.status.success());
    }

    fn list(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder().join("list.json")).expect("it is there");
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }

    /// Relays to `to`, on the two cores that the queue was written by, and keeps mail for longer than it can lie in the
    /// fixture.
    fn setup_for(&self, to: std::net::SocketAddr) -> Setup {
        let setup = Setup::new().relay(to).with("retry.lifetime_secs", 50 * 365 * 86_400_i64);
        self.copy_to(&setup);
        setup.on_cpus(&[0, 1])
    }

    /// What `queue cat` gives of each message.
    fn contents(&self, setup: &Setup) -> Vec<Vec<u8>> {
        let ids: Vec<String> = by_id(&self.list()).into_keys().collect();
        let cat = |id: &String| succeed(&mut setup.command(&["queue", "cat", id]), PATIENCE).stdout;
        ids.iter().map(cat).collect()
    }
}

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() * 1000)
}

fn by_id(list: &[Value]) -> BTreeMap<String, &Value> {
    list.iter().map(|message| (message["id"].as_str().expect("an id").to_owned(), message)).collect()
}

/// What the older program said of each message; that of format 1 listed all domains.
fn assert_same(found: &[Value], wanted: &[Value]) {
    let (found, wanted) = (by_id(found), by_id(wanted));
    assert!(found.keys().eq(wanted.keys()), "{found:?}");
    for (id, message) in wanted {
        // A start rounds due times up to whole seconds. What is due by now has no time any more where a daemon runs.
        let due = |message: &Value| message["next_due"].as_str().map(|time| time[..16].to_owned());
        let (found_due, wanted_due) = (due(found[id.as_str()]), due(message).expect("a time"));
        let is_past = wanted_due < UnixMillis(now_ms()).rfc3339();
        assert!(
            found_due.as_ref() == Some(&wanted_due) || found_due.is_none() && is_past,
            "{id}: {found_due:?}"
        );
        for field in ["arrived", "octets", "owed", "recipients", "sender"] {
            assert_eq!(found[id.as_str()][field], message[field], "{field} of {id}");
        }
        let domain = message.get("domains").map_or(&message["domain"], |domains| &domains[0]);
        assert_eq!(&found[id.as_str()]["domain"], domain, "{id}");
    }
}

#[test]
fn an_older_queue_is_shown_as_its_own_program_showed_it() {
    for old in OLD {
        let setup = old.setup_for(vacant());
        setup.write_config();
        assert_same(&setup.queue_list(), &old.list());
        let stat = setup.queue_stat();
        assert_eq!((&stat["messages"], &stat["recipients_owed"]), (&old.messages.into(), &old.owed.into()));
        assert!(setup.queue_list().iter().all(|message| message["attempts"] == 1));
        succeed(&mut setup.command(&["queue", "verify"]), PATIENCE);
    }
}

#[test]
fn an_older_queue_is_taken_up_with_its_due_times_and_stays_so_over_a_restart() {
    for old in OLD {
        let mut setup = old.setup_for(vacant());
        // What is due must not be tried meanwhile.
        setup.set("delivery.connections_max", 0);
        let daemon = setup.start();
        assert_eq!(daemon.metric("queued_recipients"), old.owed);
        assert_same(&daemon.setup.queue_list(), &old.list());
        let stopped = daemon.kill();
        assert_same(&stopped.setup.queue_list(), &old.list());
        let daemon = stopped.restart();
        assert_same(&daemon.setup.queue_list(), &old.list());
    }
}

#[test]
fn an_older_queue_goes_out_octet_for_octet() {
    for old in OLD {
        let Some(sink) = SmtpSink::start(true) else { return };
        let setup = old.setup_for(sink.address);
        setup.write_config();
        let contents = old.contents(&setup);
        assert!(contents.iter().all(|content| content.starts_with(b"Received: ")));
        let daemon = setup.start();
        succeed(&mut daemon.setup.command(&["queue", "flush"]), PATIENCE);
        daemon.wait_until_empty(RUN_MAX);
        assert_eq!(daemon.metric("delivered"), old.owed);
        let kept = sink.kept(old.messages);
        for content in contents {
            // A file of mail has lines that end in LF.
            let lines = String::from_utf8(content).expect("ASCII").replace("\r\n", "\n");
            assert!(memchr::memmem::find(&kept, lines.as_bytes()).is_some(), "{lines}");
        }
    }
}

#[test]
fn an_older_queue_reaches_exactly_those_who_were_owed() {
    for old in OLD {
        let sink = Sink::start(&[]);
        let setup = old.setup_for(sink.address);
        setup.write_config();
        let mut owed: Vec<String> = by_id(&old.list()).keys().flat_map(|id| owed_of(&setup, id)).collect();
        let daemon = setup.start();
        succeed(&mut daemon.setup.command(&["queue", "flush"]), PATIENCE);
        daemon.wait_until_empty(RUN_MAX);
        let mut found: Vec<String> =
            sink.end().deliveries().into_iter().map(|delivery| delivery.forward_path).collect();
        owed.sort();
        found.sort();
        assert_eq!((owed.len() as u64, found), (old.owed, owed));
    }
}

/// Recipients still to do, by `queue show`.
fn owed_of(setup: &Setup, id: &str) -> Vec<String> {
    let output = succeed(&mut setup.command(&["queue", "show", id, "--json"]), PATIENCE);
    let message: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let to_do = message["to_do"].as_array().expect("a list");
    to_do.iter().map(|entry| entry["recipient"].as_str().expect("an address").to_owned()).collect()
}
