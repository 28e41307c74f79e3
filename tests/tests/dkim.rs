//! What goes out is signed so that verifiers of three other houses say so.

#[path = "dkim/cases.rs"]
mod cases;
#[path = "dkim/keys.rs"]
mod keys;
#[path = "dkim/verifiers.rs"]
mod verifiers;

use cases::Case;
use keys::{DOMAIN, key_file, keygen, records, serve, signs, with_keys};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::process::setup::temporary_folder;
use tests::process::{Client, Daemon, Setup, Sink, http, wait};
use verifiers::{Verifier, by_dkimpy, by_mail_auth, by_opendkim, by_signature, mail_auth, run};

const RUN_MAX: Duration = Duration::from_secs(120);

const LETTER: &str = "From: ann@here.test\r\nTo: bob@there.test\r\nSubject: x\r\n\r\nHello\r\n";

/// One message, octet for octet.
fn submit(client: &mut Client, from: &str, to: &[&str], content: &[u8]) {
    client.say_expecting(&format!("MAIL FROM:{from} BODY=8BITMIME SMTPUTF8"), "250");
    to.iter().for_each(|to| drop(client.say_expecting(&format!("RCPT TO:<{to}>"), "250")));
    let chunk = [format!("BDAT {} LAST\r\n", content.len()).as_bytes(), content].concat();
    client.write(&chunk).expect("the daemon reads");
    client.expect("250");
}

fn deliver(daemon: &Daemon, content: &str) {
    submit(&mut daemon.client(), "<ann@here.test>", &["bob@there.test"], content.as_bytes());
}

/// The only one that the sink has.
fn arrived(sink: &Sink) -> String {
    let contents = sink.wait_for_contents(1, RUN_MAX);
    assert_eq!(contents.len(), 1);
    String::from_utf8(contents.concat()).expect("this test's messages are UTF-8")
}

fn signatures(content: &str) -> usize {
    by_signature(content.as_bytes(), DOMAIN).len()
}

// ---- awkward messages ----

/// The messages as they arrived, each with one of its signatures, in files.
struct Arrived {
    cases: Vec<Case>,
    /// Place in `cases`, selector, file, message.
    messages: Vec<(usize, String, PathBuf, Vec<u8>)>,
}

/// Sends all of them to a sink with these options.
fn send_all(daemon: &Daemon, sink: &Sink, folder: &Path) -> Arrived {
    let cases = cases::all();
    let mut messages = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        submit(&mut daemon.client(), "<ann@here.test>", &["bob@there.test"], &case.content);
        let content = sink.wait_for_contents(index + 1, RUN_MAX).pop().expect("it was waited for");
        let whole =
            content.ends_with(&case.content) || content.ends_with(&[&case.content[..], b"\r\n"].concat());
        assert!(whole, "{}: the message itself is as it was", case.name);
        let signed = by_signature(&content, DOMAIN);
        let selectors: Vec<&str> = signed.iter().map(|(selector, _)| selector.as_str()).collect();
        assert_eq!(selectors, ["r1", "e1"], "{}: {}", case.name, String::from_utf8_lossy(&content));
        for (selector, message) in signed {
            let file = folder.join(format!("{index:03}-{selector}.eml"));
            std::fs::write(&file, &message).expect("ours");
            messages.push((index, selector, file, message));
        }
    }
    Arrived { cases, messages }
}

impl Arrived {
    /// Each message holds at this verifier, or does not where that is known.
    fn assert_hold(&self, verifier: Verifier, results: &[Result<(), String>]) {
        for ((index, selector, _, message), result) in self.messages.iter().zip(results) {
            let case = &self.cases[*index];
            // DATA ends the last line, and then nothing is odd about it.
            let was_ended = message.ends_with(b"\r\n") && !case.content.ends_with(b"\r\n");
            let holds = was_ended || !case.not_by.contains(&verifier);
            let text = String::from_utf8_lossy(message);
            assert_eq!(
                result.is_ok(),
                holds,
                "{verifier:?}, {}, {selector}: {result:?}\n{text:.4000}",
                case.name
            );
        }
    }

    fn assert_verified(&self, folder: &Path, records: &HashMap<String, String>) {
        let names = serve(records.clone());
        let results: Vec<_> = run(async {
            let names = mail_auth(names.address);
            let mut results = Vec::new();
            for (.., message) in &self.messages {
                results.push(by_mail_auth(&names, message).await);
            }
            results
        });
        self.assert_hold(Verifier::MailAuth, &results);
        let files: Vec<PathBuf> = self.messages.iter().map(|(.., file, _)| file.clone()).collect();
        if let Some(results) = by_dkimpy(folder, records, &files) {
            self.assert_hold(Verifier::DkimPy, &results);
        }
        if let Some(results) = by_opendkim(folder, records, &files) {
            self.assert_hold(Verifier::OpenDkim, &results);
        }
    }
}

fn awkward_messages_hold(sink_options: &[&str]) {
    let sink = Sink::keeping(sink_options);
    let setup = with_keys(Setup::new().relay(sink.address));
    let records = records(&setup);
    let (daemon, folder) = (setup.start(), temporary_folder());
    let arrived = send_all(&daemon, &sink, folder.path());
    arrived.assert_verified(folder.path(), &records);
}

/// The tags of the message's only signature by [`DOMAIN`], without white space.
fn tags(message: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(message).replace("\r\n\t", "").replace("\r\n ", "");
    let field = text.lines().find_map(|line| line.strip_prefix("DKIM-Signature:")).expect("it is signed");
    let tags = field.split(';').filter_map(|tag| tag.split_once('='));
    tags.map(|(name, value)| (name.trim().to_owned(), value.replace([' ', '\t'], ""))).collect()
}

#[test]
fn merged_copies_are_signed_each_with_its_way_to_leave_inside() {
    let sink = Sink::keeping(&[]);
    let api = "[api]\nlisten = [\"127.0.0.1:0\"]\n[unsubscribe]\nbase_url = \"https://lists.here.test\"";
    let setup = with_keys(Setup::new().relay(sink.address)).with_lines(api);
    let records = records(&setup);
    let (daemon, folder) = (setup.start(), temporary_folder());
    let campaign = json!({
        "envelope_sender": "news@here.test", "verp": true, "unsubscribe": true, "list": "news.here.test",
        "content": "From: News <news@here.test>\nTo: {{email}}\nSubject: Dear {{name}}\n\nHello {{name}}!\n",
    });
    let send = |what: &str, kind: &str, body: &str| {
        http::send(daemon.api[0], what, &[("Content-Type", kind)], body.as_bytes()).expect("an answer").status
    };
    assert_eq!(send("PUT /api/campaigns/spring", "application/json", &campaign.to_string()), 201);
    let list = "email,name\nann@a.test,Ann\nbob@b.test,J\u{f6}rg\ncy@c.test,\"C, Y <cy>\"\n";
    assert_eq!(send("POST /api/campaigns/spring/recipients", "text/csv", list), 200);
    let case = Case { name: "a merged copy", content: b"\r\n".to_vec(), not_by: &[] };
    let mut arrived = Arrived { cases: vec![case], messages: Vec::new() };
    let mut ways = HashSet::new();
    for (number, content) in sink.wait_for_contents(3, RUN_MAX).into_iter().enumerate() {
        let text = String::from_utf8_lossy(&content).replace("\r\n ", " ").replace("\r\n\t", " ");
        let way =
            text.lines().find_map(|line| line.strip_prefix("List-Unsubscribe:")).expect("a way to leave");
        assert!(way.contains("https://lists.here.test/u/") && ways.insert(way.to_owned()), "{text}");
        assert!(text.contains("\nList-Unsubscribe-Post: List-Unsubscribe=One-Click"), "{text}");
        let signed = by_signature(&content, DOMAIN);
        let selectors: Vec<&str> = signed.iter().map(|(selector, _)| selector.as_str()).collect();
        assert_eq!(selectors, ["r1", "e1"], "{text}");
        for (selector, message) in signed {
            let names = tags(&message)["h"].to_ascii_lowercase();
            let names: Vec<&str> = names.split(':').collect();
            for name in ["list-unsubscribe", "list-unsubscribe-post", "to", "subject"] {
                assert!(names.contains(&name), "{name}: {names:?}");
            }
            let file = folder.path().join(format!("{number}-{selector}.eml"));
            std::fs::write(&file, &message).expect("ours");
            arrived.messages.push((0, selector, file, message));
        }
    }
    arrived.assert_verified(folder.path(), &records);
}

#[test]
fn awkward_messages_hold_in_chunks() {
    awkward_messages_hold(&[]);
}

#[test]
fn awkward_messages_hold_under_tls() {
    awkward_messages_hold(&["--tls", "offer"]);
}

#[test]
fn awkward_messages_hold_over_data() {
    // A lone CR or LF before a dot does not go over DATA at all; there is none among them.
    awkward_messages_hold(&["--no-chunking"]);
}

#[test]
fn incoming_mail_is_verified_as_we_sign_it() {
    let sink = Sink::keeping(&[]);
    let setup = with_keys(Setup::new().relay(sink.address));
    let names = serve(records(&setup));
    let (daemon, folder) = (setup.start(), temporary_folder());
    let arrived = send_all(&daemon, &sink, folder.path());
    let text = format!(
        "host_name = \"mx.there.test\"\nqueue = \"q\"\n[delivery]\nname_servers = [\"{}\"]",
        names.address
    );
    let config = engine::config::parse(&text, "test").expect("made by this test");
    let results: Vec<_> = run(async {
        let verifier = engine::verify::Verifier::new(&config).expect("a resolver");
        let mut results = Vec::new();
        for (.., message) in &arrived.messages {
            let letter = engine::verify::Letter {
                client: [192, 0, 2, 1].into(),
                helo: "relay.process.test".to_owned(),
                sender: message::ReversePath::Null,
                content: message.clone().into(),
            };
            let (findings, field) = verifier.verify(&letter).await;
            let holds = findings.dkim.iter().any(|dkim| dkim.finding == engine::verify::Finding::Pass);
            results.push(if holds { Ok(()) } else { Err(String::from_utf8_lossy(&field).into_owned()) });
        }
        results
    });
    arrived.assert_hold(Verifier::MailAuthWithOurDigest, &results);
}

// ---- who is signed, and how often ----

#[test]
fn a_list_is_signed_once_for_all_its_recipients_on_both_cores() {
    let sink = Sink::keeping(&[]);
    let setup = with_keys(Setup::new().relay(sink.address).on_cpus(&[0, 1]).with("delivery.share_len", 64));
    let names = serve(records(&setup));
    let daemon = setup.start();
    let recipients: Vec<String> = (0..1000).map(|n| format!("u{n}@d{}.test", n % 7)).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    submit(&mut daemon.client(), "<list@here.test> XVERP", &recipients, LETTER.as_bytes());
    let contents = sink.wait_for_contents(1000, RUN_MAX);
    assert_eq!((daemon.metric("signed"), daemon.metric("unsigned")), (1, 0));
    assert!(contents.iter().all(|content| *content == contents[0]), "all copies are the same");
    run(async {
        let names = mail_auth(names.address);
        for (_, message) in by_signature(&contents[0], DOMAIN) {
            by_mail_auth(&names, &message).await.expect("it holds");
        }
    });
}

#[test]
fn a_new_key_signs_what_waits() {
    let sink = Sink::keeping(&["--fault", "rcpt[first=1]=450"]);
    let setup = with_keys(Setup::new().relay(sink.address).with("retry.quadratic_secs", 3600));
    assert!(keygen(&setup, "r2", "rsa").status.success());
    let mut daemon = setup.start();
    deliver(&daemon, LETTER);
    daemon.wait_for("deferred_recipients", 1, RUN_MAX);
    // It was signed for the attempt that failed, and is still in memory.
    assert_eq!(daemon.metric("signed"), 1);
    let lines = signs(&daemon.setup, DOMAIN, &["r2"]);
    daemon.setup = daemon.setup.with_lines(&lines);
    daemon.setup.write_config();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    wait::succeed(&mut daemon.setup.command(&["queue", "flush"]), wait::PATIENCE);
    let content = arrived(&sink);
    assert!(
        content.starts_with("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n\td=here.test; s=r2;"),
        "{content}"
    );
    assert_eq!(signatures(&content), 1, "{content}");
    assert_eq!(daemon.metric("signed"), 2);
}

#[test]
fn keys_that_are_taken_away_or_broken_change_nothing_but_what_they_should() {
    let sink = Sink::keeping(&[]);
    let mut daemon = with_keys(Setup::new().relay(sink.address)).start();
    // A key's file that others may read is refused; the daemon goes on with what it has.
    let key = key_file(&daemon.setup, "r1");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("ours");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_until_said("the configuration was not reloaded; the old one stays");
    deliver(&daemon, LETTER);
    assert_eq!(signatures(&arrived(&sink)), 2);
    daemon.setup.remove("dkim.domains");
    daemon.setup.write_config();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_until_said("configuration reloaded");
    deliver(&daemon, LETTER);
    let contents = sink.wait_for_contents(2, RUN_MAX);
    assert!(contents[1].starts_with(b"Received: "));
}

#[test]
fn only_mail_of_the_configured_domains_is_signed_and_none_twice() {
    let sink = Sink::keeping(&[]);
    let daemon = with_keys(Setup::new().relay(sink.address)).start();
    let signed =
        format!("DKIM-Signature: v=1; a=rsa-sha256; d=HERE.test; s=other; h=from; bh=; b=\r\n{LETTER}");
    for (index, (content, count)) in [
        (LETTER.to_owned(), 2),
        (LETTER.replace("ann@here", "ann@there"), 0),
        (LETTER.replace("ann@here", "ann@below.here"), 0),
        (LETTER.replace("From:", "Sender:"), 0),
        (signed, 0),
        // Nobody knows where such a header ends.
        (LETTER.replace("Subject: x", "Subject: x\r\nno field"), 0),
    ]
    .into_iter()
    .enumerate()
    {
        deliver(&daemon, &content);
        let arrived = sink.wait_for_contents(index + 1, RUN_MAX).pop().expect("it was waited for");
        let begin = arrived
            .starts_with(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n\td=here.test; s=r1;");
        assert_eq!((begin, daemon.metric("signed")), (count > 0, 1), "{}", String::from_utf8_lossy(&arrived));
    }
    assert_eq!(daemon.metric("unsigned"), 1);
}

#[test]
fn settings_say_what_signatures_say() {
    let sink = Sink::keeping(&[]);
    let setup = with_keys(Setup::new().relay(sink.address));
    let lines = "[dkim]\noversign = [\"From\", \"X-Ours\"]\nheaders = [\"To\", \"Cc\"]\nexpiry_secs = 86400\nsign_again = true\n\
                 [dkim.domains.\"here.test\"]\nsubdomains = true\nidentity = \"@lists.here.test\"\n";
    let daemon = setup.with_lines(lines).start();
    deliver(
        &daemon,
        &LETTER.replace("From: ann@here", "DKIM-Signature: d=here.test; b=\r\nFrom: ann@a.b.here"),
    );
    let content = arrived(&sink);
    assert!(content.contains("\r\n\ti=@lists.here.test;\r\n\th=From:From:X-Ours:To;\r\n"), "{content}");
    let number = |name: &str| {
        let text = content.split(&format!(" {name}=")).nth(1).and_then(|rest| rest.split(';').next());
        text.and_then(|digits| digits.parse::<u64>().ok()).expect("a number")
    };
    assert_eq!(number("x"), number("t") + 86_400);
}

#[test]
fn our_own_reports_are_signed() {
    let sink = Sink::keeping(&["--fault", "rcpt[address=bob@there.test]=550"]);
    let setup = with_keys(Setup::new().relay(sink.address));
    let lines = signs(&setup, "relay.process.test", &["r1"]);
    let setup = setup.with_lines(&lines);
    let names = serve(records(&setup));
    let daemon = setup.start();
    deliver(&daemon, LETTER);
    let content = arrived(&sink);
    assert!(content.contains("multipart/report"), "{content}");
    let signed = by_signature(content.as_bytes(), "relay.process.test");
    assert_eq!(signed.len(), 1, "{content}");
    run(async { by_mail_auth(&mail_auth(names.address), &signed[0].1).await }).expect("it holds");
}

// ---- the command line ----

fn exit_and_words(setup: &Setup, words: &[&str]) -> (i32, String) {
    setup.write_config();
    let output = wait::finish(&mut setup.command(words), wait::PATIENCE);
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code().expect("it ends by itself"), said)
}

#[test]
fn keygen_writes_a_new_file_for_us_alone_and_prints_its_record() {
    let setup = Setup::new();
    for (selector, kind, start) in
        [("r1", "rsa", "v=DKIM1; k=rsa; p=MII"), ("e1", "ed25519", "v=DKIM1; k=ed25519; p=")]
    {
        let made = keygen(&setup, selector, kind);
        let printed = String::from_utf8(made.stdout).expect("text");
        assert!(
            made.status.success()
                && printed.starts_with(&format!("{selector}._domainkey.here.test. IN TXT (\n    \"{start}")),
            "{printed}"
        );
        assert!(printed.lines().all(|line| line.len() < 255 + 10), "{printed}");
        let file = key_file(&setup, selector);
        assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
        let before = std::fs::read(&file).expect("ours");
        let again = keygen(&setup, selector, kind);
        assert_eq!((again.status.code(), again.stdout.len()), (Some(75), 0));
        assert_eq!(std::fs::read(&file).expect("ours"), before, "a key is never written over");
    }
    let setup = with_keys_shown(setup);
    let (code, said) = exit_and_words(&setup, &["dkim", "show"]);
    assert_eq!((code, said.matches("._domainkey.here.test. IN TXT (").count()), (0, 2), "{said}");
    let (code, said) = exit_and_words(&setup, &["dkim", "show", "--domain", "there.test"]);
    assert_eq!((code, said.contains("does not have that domain")), (78, true), "{said}");
}

fn with_keys_shown(setup: Setup) -> Setup {
    let lines = signs(&setup, DOMAIN, &["r1", "e1"]);
    setup.with_lines(&lines)
}

#[test]
fn check_compares_what_the_dns_has() {
    let setup = with_keys(Setup::new());
    let right = records(&setup);
    let exit = |records: &HashMap<String, String>, words: &[&str]| {
        let names = serve(records.clone());
        let folder = Setup::new().with("delivery.name_servers", vec![names.address.to_string()]);
        let folder = folder.with_lines(&signs(&setup, DOMAIN, &["r1", "e1"]));
        exit_and_words(&folder, &[&["dkim", "check"], words].concat())
    };
    let (code, said) = exit(&right, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("r1._domainkey.here.test: good, rsa-sha256, 2048 bits\n"), "{said}");
    let mut wrong = right.clone();
    let (r1, e1) = ("r1._domainkey.here.test", "e1._domainkey.here.test");
    wrong.insert(r1.to_owned(), right[e1].clone());
    wrong.remove(e1);
    let (code, said) = exit(&wrong, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(
            "r1._domainkey.here.test: k= is another algorithm than the key's; p= is not this key's"
        ),
        "{said}"
    );
    assert!(said.contains("e1._domainkey.here.test: there is no record"), "{said}");
}

#[test]
fn check_says_when_nobody_knows() {
    let setup = with_keys(Setup::new());
    let names = serve(HashMap::new());
    let setup = setup.with("delivery.name_servers", vec![names.address.to_string()]);
    let lines = signs(&setup, "broken.test", &["r1"]);
    let (code, said) =
        exit_and_words(&setup.with_lines(&lines), &["dkim", "check", "--domain", "broken.test"]);
    assert_eq!((code, said.contains("the name servers do not know")), (75, true), "{said}");
}

#[test]
fn check_verifies_a_message_in_a_file() {
    let sink = Sink::keeping(&[]);
    let setup = with_keys(Setup::new().relay(sink.address));
    let names = serve(records(&setup));
    let daemon = setup.with("delivery.name_servers", vec![names.address.to_string()]).start();
    deliver(&daemon, LETTER);
    let content = arrived(&sink);
    let verify = |content: &str| {
        let file = daemon.setup.folder().join("message.eml");
        std::fs::write(&file, content).expect("ours");
        exit_and_words(&daemon.setup, &["dkim", "check", "--message", file.to_str().expect("a plain name")])
    };
    for whole in [content.clone(), format!("From ann Thu Jan  1 1970\n{}", content.replace("\r\n", "\n"))] {
        let (code, said) = verify(&whole);
        assert_eq!(
            (code, said.matches("d=here.test").count(), said.matches(": pass\n").count()),
            (0, 2, 2),
            "{said}"
        );
    }
    let (code, said) = verify(&content.replace("Hello", "Hallo"));
    assert_eq!((code, said.matches(": fail, the body was changed").count()), (1, 2), "{said}");
    let (code, said) = verify(LETTER);
    assert_eq!((code, said.contains("the message is not signed")), (1, true), "{said}");
}

#[test]
fn keys_that_cannot_be_used_stop_the_start_and_name_their_file() {
    let setup = with_keys(Setup::new());
    let key = key_file(&setup, "e1");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o604)).expect("ours");
    let refusal = setup.refusal();
    assert_eq!(refusal.code, 78);
    let sentence = refusal.sentence();
    assert!(sentence.contains("e1.pem") && sentence.contains("chmod 0600"), "{sentence}");
    std::fs::remove_file(&key).expect("ours");
    let (code, said) = exit_and_words(&setup, &["check"]);
    assert_eq!((code, said.contains("e1.pem: No such file")), (78, true), "{said}");
    let (code, said) = exit_and_words(&setup, &["dkim", "show"]);
    assert_eq!((code, said.contains("e1.pem: No such file")), (78, true), "{said}");
}
