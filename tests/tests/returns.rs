//! Bounces out and bounces in: what senders are told of failures, what becomes of bounces that fail themselves, and what is
//! made of mail that comes back to return paths.

#[path = "dsn/host.rs"]
mod host;

use host::{Host, Taken};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tests::process::{Client, Daemon, Setup, vacant, wait};

const RUN_MAX: Duration = Duration::from_secs(60);

/// Mail goes to `host`; clients of the listener `mx` may not relay, those of the other may.
fn setup(host: &Host) -> Setup {
    let lines = "[bounces]\ndomains = [\"b.test\"]\nfeedback_addresses = [\"fbl@here.test\"]\n[events]\n\
                 [listeners.mx]\naddresses = [\"127.0.0.1:0\"]\n[[access.rules]]\nlistener = \"mx\"\nrelay = false\n";
    Setup::new().relay(host.address).with_lines(lines)
}

/// Somebody out there.
fn stranger(daemon: &Daemon) -> Client {
    Client::greet(daemon.listening[1])
}

/// A list with VERP: the return path of each recipient that took it, by its local part.
fn send_list(daemon: &Daemon, host: &Host, names: &[&str]) -> BTreeMap<String, String> {
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<list@b.test> XVERP", "250");
    for name in names {
        client.say_expecting(&format!("RCPT TO:<{name}@there.test>"), "250");
    }
    client.say_expecting("DATA", "354");
    client.say_expecting("X-Campaign: spring\r\nSubject: news\r\n\r\nhello\r\n.", "250");
    daemon.wait_until_empty(RUN_MAX);
    let of = |taken: Taken| {
        let path = taken.mail.strip_prefix("FROM:<")?.split('>').next()?.to_owned();
        let name = taken.rcpts.first()?.strip_prefix("TO:<")?.split('@').next()?.to_owned();
        Some((name, path))
    };
    host.taken().into_iter().filter_map(of).collect()
}

/// A report of one recipient, with the original's header.
fn rfc3464(recipient: &str, action: &str, status: &str) -> String {
    format!(
        "From: MAILER-DAEMON@there.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; there.test\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {status}\r\n\
         Diagnostic-Code: smtp; 550 {status} said the host\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         X-Campaign: spring\r\nSubject: news\r\n\r\n--b--"
    )
}

fn qsbmf(recipient: &str, why: &str) -> String {
    format!(
        "Subject: failure notice\r\n\r\nHi. This is the qmail-send program at there.test.\r\nSorry.\r\n\r\n\
         <{recipient}>:\r\n{why}\r\n\r\n--- Below this line is a copy of the message.\r\n\r\nX-Campaign: spring\r\n\r\nhello"
    )
}

fn exim(recipient: &str, why: &str) -> String {
    format!(
        "Subject: Mail delivery failed: returning message to sender\r\nX-Failed-Recipients: {recipient}\r\n\r\n\
         A message that you sent could not be delivered to one or more of its\r\nrecipients. This is a permanent error. \
         The following address(es) failed:\r\n\r\n  {recipient}\r\n    {why}\r\n"
    )
}

/// A complaint about a message with that return path.
fn arf(path: &str) -> String {
    format!(
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\
         Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n--b\r\n\
         Content-Type: message/rfc822\r\n\r\nReturn-Path: <{path}>\r\nX-Campaign: spring\r\n\r\nhello\r\n--b--"
    )
}

fn send(client: &mut Client, to: &str, content: &str) {
    let reply = client.send("", &[to], content);
    assert!(reply.starts_with("250"), "{to}: {reply}");
}

/// What is in the event log of those kinds.
fn events(daemon: &Daemon, kinds: &[&str]) -> Vec<Value> {
    let folder = daemon.setup.queue().join("events");
    let files = std::fs::read_dir(folder).expect("the log's folder is there").filter_map(Result::ok);
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let lines: Vec<Value> = texts
        .flat_map(|text| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>())
        .collect();
    lines.into_iter().filter(|line| kinds.iter().any(|kind| line["kind"] == *kind)).collect()
}

fn returned(daemon: &Daemon) -> Vec<Value> {
    events(daemon, &["bounced", "complaint"])
}

/// Who of them is on the suppression list, for all lists, and why.
fn listed(daemon: &Daemon, names: &[&str]) -> BTreeMap<String, String> {
    let why = |name: &str| {
        let address = format!("{name}@there.test");
        let mut command = daemon.setup.command(&["suppress", "check", "--json", &address]);
        let output = wait::finish(&mut command, RUN_MAX);
        let found: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        Some((name.to_owned(), found["reason"].as_str()?.to_owned()))
    };
    names.iter().filter_map(|name| why(name)).collect()
}

/// Somebody complains. Entries are written one after the other: with his, those of all who came before are there.
fn complain(daemon: &Daemon, client: &mut Client, name: &str, path: &str) {
    daemon.wait_until_empty(RUN_MAX);
    send(client, "fbl@here.test", &arf(path));
    wait::until("the complaint's entry", RUN_MAX, || !listed(daemon, &[name]).is_empty());
}

// ---- what comes back ----

#[test]
fn reports_in_several_forms_become_events_about_their_recipients() {
    let host = Host::start(&[]);
    let daemon = setup(&host).start();
    let long = "eve.whose.name.is.too.long.to.stand.in.a.signed.path";
    let paths = send_list(&daemon, &host, &["ann", "bob", "cy", "dan", long, "bad"]);
    assert!(
        paths["ann"].starts_with("list+=") && paths["ann"].ends_with("=ann=there.test@b.test"),
        "{paths:?}"
    );
    let mut client = stranger(&daemon);
    send(&mut client, &paths["ann"], &rfc3464("ann@there.test", "failed", "5.1.1"));
    send(&mut client, &paths["bob"], &qsbmf("bob@there.test", "Mailbox is full (#5.2.2)"));
    send(
        &mut client,
        &paths["cy"].to_uppercase(),
        &exim("cy@other.test", "host mx.other.test: 554 5.7.1 Spam detected"),
    );
    send(&mut client, &paths[long], &rfc3464(&format!("{long}@there.test"), "failed", "5.4.4"));
    send(&mut client, "fbl@here.test", &arf(&paths["dan"]));
    daemon.wait_until_empty(RUN_MAX);
    let said = |event: &Value| {
        let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
        // A host that wrote the path in capitals has the event say so; the signature holds all the same.
        [
            text("rcpt").to_lowercase(),
            text("kind"),
            text("class"),
            text("enhanced"),
            text("campaign"),
            text("sender").to_lowercase(),
            text("detail"),
        ]
    };
    let mut found: Vec<_> = returned(&daemon).iter().map(said).collect();
    found.sort();
    let long = format!("{long}@there.test");
    assert_eq!(
        found,
        [
            ["ann@there.test", "bounced", "hard", "5.1.1", "spring", "list@b.test", "rfc3464"],
            ["bob@there.test", "bounced", "mailbox-full", "5.2.2", "spring", "list@b.test", "qsbmf"],
            ["cy@there.test", "bounced", "content", "5.7.1", "-", "list@b.test", "exim"],
            ["dan@there.test", "complaint", "-", "-", "spring", "list@b.test", "abuse"],
            [&long, "bounced", "hard", "5.4.4", "spring", "list@b.test", "rfc3464"],
        ]
    );
    let list = events(&daemon, &["delivered"])[0]["msg"].clone();
    assert!(returned(&daemon).iter().all(|event| event["msg"] == list), "they say which message it was");
    // Who failed at once was an event already, and no bounce of ours comes back to us.
    assert_eq!(events(&daemon, &["failed"])[0]["rcpt"], "bad@there.test");
    let metrics = daemon.metrics();
    assert_eq!((metrics["returns_bounced"], metrics["returns_complaints"], metrics["bounces"]), (4, 1, 0));
}

#[test]
fn forged_reports_automatic_answers_and_garbage_change_nothing() {
    let host = Host::start(&[]);
    let daemon = setup(&host).start();
    let path = send_list(&daemon, &host, &["ann"]).remove("ann").expect("it was sent");
    let before = host.taken().len();
    let mut client = stranger(&daemon);
    let refused = [
        ("list+ann=there.test@b.test", "550 5.1.1"),
        (&path.replace("=ann=", "=bob="), "550 5.1.1"),
        (&path.replace("list+", "lisp+"), "550 5.1.1"),
        ("list@b.test", "550 5.1.1"),
        ("ann@there.test", "550 5.7.1"),
    ];
    for (to, code) in refused {
        let reply = client.send("", &[to], &rfc3464("ann@there.test", "failed", "5.1.1"));
        assert!(reply.starts_with(code), "{to}: {reply}");
        client.say_expecting("RSET", "250");
    }
    for (to, content) in [
        (&*path, &*rfc3464("ann@there.test", "delayed", "4.4.1")),
        (&path, &rfc3464("ann@there.test", "delivered", "2.0.0")),
        (&path, "Subject: Automatic reply: news\r\nAuto-Submitted: auto-replied\r\n\r\nI am away."),
        (&path, "Subject: Please confirm your message\r\n\r\nAre you human?"),
        (&path, "Subject: Re: news\r\n\r\nMy mailbox was full, 550 times."),
        (&path, "\0\u{1}\u{7f} --b\r\n\r\n--b--"),
        ("fbl@here.test", &arf("list+ann=there.test@b.test")),
        ("fbl@here.test", &arf(&path.replace("=ann=", "=bob="))),
    ] {
        send(&mut client, to, content);
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(returned(&daemon), Vec::<Value>::new());
    let metrics = daemon.metrics();
    let counts = ["returns_progress", "returns_automatic", "returns_unknown", "returns_unproven"];
    assert_eq!(counts.map(|name| metrics[name]), [2, 2, 2, 2], "{metrics:?}");
    assert_eq!((host.taken().len(), metrics["bounces"], metrics["double_bounces"]), (before, 0, 0));
}

#[test]
fn unsigned_paths_count_only_with_a_header_that_we_passed_on() {
    let host = Host::start(&[]);
    let setup = setup(&host).with("bounces.tokens", "long").with("bounces.unsigned", "check");
    let daemon = setup.start();
    let paths = send_list(&daemon, &host, &["ann", "bob"]);
    assert_eq!(paths["ann"], "list+ann=there.test@b.test");
    let header = host.taken().into_iter().find(|taken| taken.mail.contains("+ann=")).expect("ann's").content;
    let header = header.split("\n\n").next().expect("it has one").replace('\n', "\r\n");
    let report = rfc3464("ann@there.test", "failed", "5.1.1");
    let ours = report.replace("X-Campaign: spring\r\nSubject: news", &header);
    let mut client = stranger(&daemon);
    send(&mut client, &paths["ann"], &report);
    send(&mut client, &paths["bob"], &ours);
    send(&mut client, &paths["ann"], &ours);
    daemon.wait_until_empty(RUN_MAX);
    let found = returned(&daemon);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["rcpt"], &found[0]["class"]), (&"ann@there.test".into(), &"hard".into()));
    assert_eq!(daemon.metric("returns_unproven"), 2);
}

#[test]
fn others_at_the_same_host_go_on_by_routes() {
    let host = Host::start(&[]);
    let daemon = setup(&host).with_lines("[access]\nrelay_to = [\"b.test\"]\n").start();
    let path = send_list(&daemon, &host, &["ann"]).remove("ann").expect("it was sent");
    let before = host.taken().len();
    let mut client = stranger(&daemon);
    let content = rfc3464("ann@there.test", "failed", "5.1.1");
    let to = ["mailman-bounces+zoe=y.test@b.test", &path, "ann@b.test", "bob@b.test"];
    assert!(client.send("", &to, &content).starts_with("250"));
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(returned(&daemon).len(), 1);
    let mut passed: Vec<String> =
        host.taken().split_off(before).into_iter().flat_map(|taken| taken.rcpts).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["TO:<ann@b.test>", "TO:<bob@b.test>", "TO:<mailman-bounces+zoe=y.test@b.test>"]);
}

#[test]
fn owners_get_a_copy_and_what_nobody_can_read_goes_where_it_is_wanted() {
    let (host, people) = (Host::start(&[]), Host::start(&[]));
    let setup = setup(&host).with("routes.people.test", people.address.to_string());
    let setup = setup.with("bounces.unknown_to", "post@people.test");
    let daemon = setup.with_lines("[bounces.owners]\n\"list@b.test\" = \"owner@people.test\"\n").start();
    let path = send_list(&daemon, &host, &["ann", "bad"]).remove("ann").expect("it was sent");
    // The owner is told at once of whoever failed at once.
    let told = people.wait_for(1);
    assert!(told[0].content.contains("Final-Recipient: rfc822; bad@there.test"), "{}", told[0].content);
    let mut client = stranger(&daemon);
    send(&mut client, &path, "Subject: Out of office\r\n\r\nAway.");
    send(&mut client, &path, "Subject: hello\r\n\r\nI am a person.");
    daemon.wait_until_empty(RUN_MAX);
    let copies = people.taken().split_off(1);
    let mut to: Vec<&str> = copies.iter().map(|copy| copy.rcpts[0].as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["TO:<owner@people.test>", "TO:<owner@people.test>", "TO:<post@people.test>"]);
    for copy in &copies {
        assert!(copy.mail.starts_with("FROM:<>"), "{copy:?}");
        assert!(
            copy.content.starts_with(&format!("Delivered-To: {path}\nReceived: from ")),
            "{}",
            copy.content
        );
    }
    assert_eq!(returned(&daemon), Vec::<Value>::new());
}

#[test]
fn what_came_back_before_a_kill_is_an_event_after_it() {
    let host = Host::start(&[]);
    let daemon = setup(&host).start();
    let names: Vec<String> = (0..100).map(|number| format!("u{number}")).collect();
    let paths = send_list(&daemon, &host, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut client = stranger(&daemon);
    for (name, path) in &paths {
        send(&mut client, path, &rfc3464(&format!("{name}@there.test"), "failed", "5.1.1"));
    }
    let daemon = daemon.kill().restart();
    daemon.wait_until_empty(RUN_MAX);
    let mut found: Vec<String> =
        returned(&daemon).iter().filter_map(|event| event["rcpt"].as_str().map(str::to_owned)).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), names.len(), "each at least once");
}

#[test]
fn reports_put_on_the_suppression_list_whom_the_same_refusal_would() {
    let host = Host::start(&[]);
    let daemon = setup(&host).with("suppression.bounce_patterns", vec!["mailbox disabled"]).start();
    let names = ["ann", "bob", "cy", "dan", "eve", "fay", "gil"];
    let paths = send_list(&daemon, &host, &names);
    let mut client = stranger(&daemon);
    let report = |name: &str, status: &str| rfc3464(&format!("{name}@there.test"), "failed", status);
    let bare = report("bob", "5.1.1").replace("Diagnostic-Code: smtp; 550 5.1.1 said the host\r\n", "");
    for (name, content) in [
        ("ann", report("ann", "5.1.1")),
        ("bob", bare),
        ("cy", qsbmf("cy@there.test", "Mailbox disabled (#5.0.0)")),
        // Of class `hard` too, and none of the codes that the configuration names.
        ("dan", report("dan", "5.4.4")),
        ("eve", report("eve", "5.2.2")),
        ("fay", report("fay", "5.7.1").replace("said the host", "Mailbox disabled")),
    ] {
        send(&mut client, &paths[name], &content);
    }
    complain(&daemon, &mut client, "gil", &paths["gil"]);
    let hard = ["ann", "bob", "cy"].map(|name| (name.to_owned(), "hard-bounce".to_owned()));
    let complained = ("gil".to_owned(), "complaint".to_owned());
    assert_eq!(listed(&daemon, &names), hard.into_iter().chain([complained]).collect());
    let dans = returned(&daemon).into_iter().find(|event| event["rcpt"] == "dan@there.test");
    assert_eq!(dans.expect("it is an event all the same")["class"], "hard");
}

#[test]
fn reports_put_nobody_on_the_suppression_list_where_bulk_mail_is_not_learnt_from() {
    for lanes in [vec![], vec!["urgent", "normal"]] {
        let host = Host::start(&[]);
        let daemon = setup(&host).with("suppression.bounce_lanes", lanes).start();
        let paths = send_list(&daemon, &host, &["ann", "bob"]);
        let mut client = stranger(&daemon);
        send(&mut client, &paths["ann"], &rfc3464("ann@there.test", "failed", "5.1.1"));
        complain(&daemon, &mut client, "bob", &paths["bob"]);
        let complained = ("bob".to_owned(), "complaint".to_owned());
        assert_eq!(listed(&daemon, &["ann", "bob"]), BTreeMap::from([complained]));
        assert_eq!(events(&daemon, &["bounced"]).len(), 1);
    }
}

// ---- bounces that fail ----

#[test]
fn bounce_that_fails_goes_to_the_postmaster_also_after_a_restart() {
    let host = Host::start(&[]);
    let vacant = vacant().to_string();
    let setup = setup(&host).with("routes.relay.process.test", vacant.clone());
    let daemon = setup.with("delivery.backoff_max_secs", 1).start();
    let reply = daemon.client().send("bad-sender@there.test", &["bad@there.test"], "Subject: lost\r\n\r\nx");
    assert!(reply.starts_with("250"), "{reply}");
    daemon.wait_for_at_least("connect_failures", 1, RUN_MAX);
    let daemon = daemon.kill().restart();
    assert_eq!(daemon.setup.queue_list()[0]["sender"], "#@[]");
    let postmaster = Host::start_on(&vacant, &[]);
    let told = postmaster.wait_for(1).remove(0);
    assert_eq!(
        (told.rcpts, &told.mail[..7]),
        (vec!["TO:<postmaster@relay.process.test>".to_owned()], "FROM:<>")
    );
    let wanted = [
        "Subject: Undelivered bounce\n",
        "Final-Recipient: rfc822; bad-sender@there.test\n",
        "Subject: Undelivered mail returned to sender\n",
    ];
    for words in wanted {
        assert!(told.content.contains(words), "{words:?} is missing in {}", told.content);
    }
    daemon.wait_until_empty(RUN_MAX);
    assert_eq!(daemon.metric("triple_bounces"), 0);
}

#[test]
fn triple_bounces_are_discarded_and_said() {
    let host = Host::start(&[]);
    let daemon = setup(&host).with("bounces.doublebounce_to", "bad-ops@there.test").start();
    let lost = |from: &str, to: &str| {
        assert!(daemon.client().send(from, &[to], "Subject: lost\r\n\r\nx").starts_with("250"));
        daemon.wait_until_empty(RUN_MAX);
        let metrics = daemon.metrics();
        (metrics["double_bounces"], metrics["triple_bounces"])
    };
    assert_eq!(lost("", "bad@there.test"), (1, 1), "it failed too");
    assert_eq!(lost("#@[]", "bad@there.test"), (1, 2), "as another qmail sends it");
    assert_eq!(lost("", "bad-ops@there.test"), (1, 3), "it would only fail there again");
    daemon.wait_until_said("triple bounce: discarded");
    assert_eq!((host.taken().len(), daemon.metric("bounces")), (0, 0));
}

#[test]
fn nobody_is_told_of_double_bounces_where_nobody_wants_to_be() {
    let host = Host::start(&[]);
    let daemon = setup(&host).with("bounces.doublebounce_to", "").start();
    assert!(daemon.client().send("", &["bad@there.test"], "Subject: lost\r\n\r\nx").starts_with("250"));
    daemon.wait_until_empty(RUN_MAX);
    let metrics = daemon.metrics();
    assert_eq!((metrics["failed"], metrics["double_bounces"], metrics["triple_bounces"]), (1, 0, 0));
    assert_eq!(host.taken().len(), 0);
}

// ---- qmail's format ----

#[test]
fn failures_are_told_in_qmails_format_where_that_is_wanted() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let setup = setup(&host).with("routes.here.test", returns.address.to_string());
    let daemon = setup.with("bounces.format", "qsbmf").start();
    let mut client = daemon.client();
    let content = "Subject: hi\r\n\r\n-the body";
    assert!(client.send("ann@here.test", &["bad@there.test", "bad2@there.test"], content).starts_with("250"));
    let told = returns.wait_for(1).remove(0);
    assert!(told.mail.starts_with("FROM:<>"), "{told:?}");
    let (header, body) = told.content.split_once("\n\n").expect("it has both");
    assert!(header.contains("Subject: failure notice"), "{header}");
    let paragraphs: Vec<&str> = body.split("\n\n").collect();
    assert!(paragraphs[0].starts_with("Hi. This is the "), "{body}");
    let mut named = [paragraphs[1], paragraphs[2]];
    named.sort_unstable();
    for (paragraph, address) in named.iter().zip(["bad2@there.test", "bad@there.test"]) {
        assert!(paragraph.starts_with(&format!("<{address}>:\n")), "{paragraph}");
        assert!(
            paragraph.contains("(#5.1.1)") && paragraph.contains("550 5.1.1 No such user"),
            "{paragraph}"
        );
    }
    assert_eq!(paragraphs[3], "--- Below this line is a copy of the message.");
    assert!(paragraphs[4].starts_with("Return-Path: <ann@here.test>\nReceived: "), "{body}");
    assert!(body.ends_with("\nSubject: hi\n\n-the body\n"), "{body}");
    // And are read as they were written, by whoever reads what comes back.
    wait::until("the queue to be empty", RUN_MAX, || daemon.metric("queued_messages") == 0);
}
