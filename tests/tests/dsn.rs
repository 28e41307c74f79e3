//! What a sender asks to be told, from MAIL and RCPT to the report or to the next host (RFC 3461).

#[path = "dsn/host.rs"]
mod host;

use host::{Host, Taken};
use std::time::Duration;
use tests::process::{Daemon, Setup, vacant};

const RUN_MAX: Duration = Duration::from_secs(60);

/// Mail goes to `host`, what is told to `ann@here.test` to `returns`.
fn setup(host: &Host, returns: &Host) -> Setup {
    Setup::new().relay(host.address).with("routes.here.test", returns.address.to_string())
}

/// One message: `mail` and each of `rcpts` as they stand behind the colon.
fn send(daemon: &Daemon, mail: &str, rcpts: &[&str]) {
    send_with_subject(daemon, mail, rcpts, "test");
}

fn send_with_subject(daemon: &Daemon, mail: &str, rcpts: &[&str], subject: &str) {
    let mut client = daemon.client();
    client.say_expecting(&format!("MAIL FROM:{mail}"), "250");
    for rcpt in rcpts {
        client.say_expecting(&format!("RCPT TO:{rcpt}"), "250");
    }
    client.say_expecting("DATA", "354");
    client.say_expecting(&format!("Subject: {subject}\r\n\r\nthe very body\r\n."), "250");
}

/// What the sender is told in the end; nobody is told of a report, and nothing is owed.
fn told(daemon: &Daemon, returns: &Host) -> Vec<Taken> {
    daemon.wait_until_empty(RUN_MAX);
    let told = returns.taken();
    assert!(told.iter().all(|report| report.mail.starts_with("FROM:<>")), "{told:?}");
    told
}

fn assert_has(report: &Taken, wanted: &[&str]) {
    for words in wanted {
        assert!(report.content.contains(words), "no {words:?} in\n{}", report.content);
    }
}

// ---- success ----

#[test]
fn success_at_a_host_without_dsn_is_reported_as_relayed_to_who_asked() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let daemon = setup(&host, &returns).start();
    let bob = "<bob@there.test> NOTIFY=SUCCESS ORCPT=rfc822;bob+2Blists@elsewhere.test";
    let others =
        ["<cy@there.test>", "<dan@there.test> NOTIFY=FAILURE,DELAY", "<eve@there.test> NOTIFY=NEVER"];
    send(&daemon, "<ann@here.test> ENVID=run+2B7 RET=FULL", &[&[bob][..], &others[..]].concat());
    send(&daemon, "<>", &["<bob@there.test> NOTIFY=SUCCESS"]);
    let told = told(&daemon, &returns);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].rcpts, ["TO:<ann@here.test>"]);
    assert_has(
        &told[0],
        &[
            "\n\nOriginal-Envelope-Id: run+7\nReporting-MTA: dns; relay.process.test\n",
            "\n\nOriginal-Recipient: rfc822;bob+lists@elsewhere.test\nFinal-Recipient: rfc822; bob@there.test\n\
             Action: relayed\nStatus: 2.6.0\n",
            "\nSubject: test\n",
        ],
    );
    assert!(!told[0].content.contains("the very body") && !told[0].content.contains("cy@there.test"));
    // What was asked is not for a host that does not know of it.
    assert!(host.taken().iter().all(|taken| !format!("{taken:?}").contains("NOTIFY")));
    let metrics = daemon.metrics();
    assert_eq!((metrics["delivered"], metrics["success_reports"], metrics["bounces"]), (6, 1, 0));
}

#[test]
fn success_at_an_lmtp_server_is_reported_as_delivered() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let route = format!("[routes.\"there.test\"]\nrelay = \"{}\"\nprotocol = \"lmtp\"\n", host.address);
    let daemon = setup(&host, &returns).with_lines(&route).start();
    send(&daemon, "<ann@here.test>", &["<bob@there.test> NOTIFY=SUCCESS"]);
    let told = told(&daemon, &returns);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_has(&told[0], &["Action: delivered\nStatus: 2.6.0\n"]);
}

#[test]
fn report_of_a_list_with_verp_goes_to_the_recipients_own_return_path() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let daemon = setup(&host, &returns).start();
    let rcpts = ["<bob@there.test> NOTIFY=SUCCESS", "<bad@there.test> NOTIFY=FAILURE", "<cy@there.test>"];
    send(&daemon, "<list@here.test> XVERP", &rcpts);
    let told = told(&daemon, &returns);
    let mut paths: Vec<&str> = told.iter().flat_map(|report| &report.rcpts).map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["TO:<list+bad=there.test@here.test>", "TO:<list+bob=there.test@here.test>"]);
}

// ---- passing on ----

#[test]
fn what_was_asked_outlives_the_daemon_and_goes_on_to_a_host_that_offers_dsn() {
    let (relay, returns) = (vacant().to_string(), Host::start(&[]));
    let setup = Setup::new().with("routes.*", relay.clone());
    let setup = setup.with("routes.here.test", returns.address.to_string());
    let daemon = setup.with("delivery.backoff_max_secs", 1).start();
    let bob = "<bob@there.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+2Blists@elsewhere.test";
    let rcpts = [bob, "<cy@there.test>", "<dan@other.test> NOTIFY=NEVER", "<eve@other.test> NOTIFY=DELAY"];
    send(&daemon, "<ann@here.test> RET=HDRS ENVID=run+2B7", &rcpts);
    send(&daemon, "<ann@here.test>", &["<fay@there.test>"]);
    daemon.wait_for_at_least("connect_failures", 1, RUN_MAX);
    let daemon = daemon.kill().restart();
    let host = Host::start_on(&relay, &["DSN"]);
    assert_eq!(told(&daemon, &returns).len(), 0, "the host answers for success");
    let (mut mails, mut found): (Vec<String>, Vec<String>) = Default::default();
    for taken in host.taken() {
        let is_fay = taken.rcpts[0].contains("fay");
        assert_eq!(taken.mail.ends_with(" RET=HDRS ENVID=run+2B7"), !is_fay, "{taken:?}");
        mails.push(taken.mail);
        found.extend(taken.rcpts);
    }
    found.sort_unstable();
    let wanted = [&rcpts[..], &["<fay@there.test>"]].concat();
    assert_eq!(found, wanted.iter().map(|rcpt| format!("TO:{rcpt}")).collect::<Vec<_>>(), "{mails:?}");
}

// ---- failure ----

#[test]
fn failure_is_told_to_all_but_those_who_asked_for_silence() {
    let (host, returns) = (Host::start(&["DSN"]), Host::start(&[]));
    let daemon = setup(&host, &returns).start();
    let rcpts =
        ["<bad1@there.test> NOTIFY=NEVER", "<bad2@there.test> NOTIFY=SUCCESS,DELAY", "<bad3@there.test>"];
    send(&daemon, "<ann@here.test>", &rcpts);
    send(&daemon, "<ann@here.test>", &["<bad4@there.test> NOTIFY=FAILURE", "<bad5@there.test> NOTIFY=NEVER"]);
    let told = told(&daemon, &returns);
    let named = |name: &str| told.iter().any(|report| report.content.contains(&format!("{name}@there.test")));
    assert_eq!(["bad1", "bad2", "bad3", "bad4", "bad5"].map(named), [false, false, true, true, false]);
    let metrics = daemon.metrics();
    assert_eq!((metrics["failed"], metrics["bounces"]), (5, 2));
    // It failed all the same, and that stands in the delivery log.
    assert_eq!(daemon.last_word_on("bad1@there.test")["verdict"], "failed");
}

#[test]
fn whole_message_comes_back_where_that_was_asked_for() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let daemon = setup(&host, &returns).start();
    for (ret, subject, kind, has_body) in [
        (" RET=FULL", "test", "message/rfc822", true),
        (" RET=HDRS", "test", "text/rfc822-headers", false),
        ("", "test", "text/rfc822-headers", false),
        // Asked for, and not needed.
        (" RET=FULL SMTPUTF8", "test", "message/rfc822", true),
        (" RET=FULL SMTPUTF8", "t\u{eb}st", "message/global", true),
    ] {
        let before = returns.taken().len();
        let to = if ret.ends_with("UTF8") { "<bad@utf8.test>" } else { "<bad@there.test>" };
        send_with_subject(&daemon, &format!("<ann@here.test>{ret}"), &[to], subject);
        let report = returns.wait_for(before + 1).pop().expect("just seen");
        assert_has(
            &report,
            &["Action: failed\n", &format!("Content-Type: {kind}\n"), &format!("\nSubject: {subject}\n")],
        );
        assert_eq!(report.content.contains("\nthe very body\n"), has_body, "{ret}");
    }
}

// ---- delay ----

#[test]
fn delay_is_told_to_those_who_asked_for_it_or_said_nothing() {
    let (host, returns) = (Host::start(&[]), Host::start(&[]));
    let setup = setup(&host, &returns).with("retry.warn_after_secs", 1).with("retry.lifetime_secs", 12);
    let daemon = setup.start();
    let rcpts = [
        "<late1@there.test>",
        "<late2@there.test> NOTIFY=DELAY",
        "<late3@there.test> NOTIFY=FAILURE",
        "<late4@there.test> NOTIFY=NEVER",
    ];
    send(&daemon, "<ann@here.test>", &rcpts);
    let told = told(&daemon, &returns);
    let of = |action: &str| {
        let told = told.iter().filter(|report| report.content.contains(&format!("\nAction: {action}\n")));
        let text: String = told.map(|report| report.content.as_str()).collect();
        [1, 2, 3, 4].map(|number| text.contains(&format!("Final-Recipient: rfc822; late{number}@")))
    };
    assert_eq!(of("delayed"), [true, true, false, false]);
    assert_eq!(of("failed"), [true, false, true, false]);
}

#[test]
fn delay_at_a_dead_host_is_told_to_those_who_asked_for_it_only() {
    let returns = Host::start(&[]);
    let setup = Setup::new().with("routes.*", vacant().to_string());
    let setup = setup.with("routes.here.test", returns.address.to_string());
    let setup = setup.with("retry.warn_after_secs", 1).with("delivery.backoff_max_secs", 1);
    let daemon = setup.start();
    let rcpts: Vec<String> = (0..40)
        .map(|number| {
            let notify = if number % 20 == 7 { "DELAY" } else { "FAILURE" };
            format!("<u{number}@there.test> NOTIFY={notify}")
        })
        .collect();
    send(&daemon, "<ann@here.test>", &rcpts.iter().map(String::as_str).collect::<Vec<_>>());
    let told = returns.wait_for(1);
    assert_has(
        &told[0],
        &["Final-Recipient: rfc822; u7@", "Final-Recipient: rfc822; u27@", "Action: delayed"],
    );
    assert_eq!(told[0].content.matches("Final-Recipient").count(), 2);
    daemon.wait_for("queued_recipients", 40, RUN_MAX);
    assert_eq!(daemon.metric("warnings"), 1);
    daemon.assert_healthy();
}

// ---- what is wrong ----

#[test]
fn bad_parameters_are_refused_with_a_code_of_their_own() {
    let host = Host::start(&[]);
    let daemon = setup(&host, &host).start();
    let mut client = daemon.client();
    client.say_expecting("MAIL FROM:<ann@here.test> RET=ALL", "501 5.5.4");
    client.say_expecting("MAIL FROM:<ann@here.test> ENVID=a+0A", "501 5.5.4");
    client.say_expecting("MAIL FROM:<ann@here.test> RET=FULL", "250");
    client.say_expecting("RCPT TO:<bob@there.test> NOTIFY=NEVER,DELAY", "501 5.5.4");
    client.say_expecting("RCPT TO:<bob@there.test> ORCPT=bob", "501 5.5.4");
    client.say_expecting("RCPT TO:<bob@there.test> NOTIFY=DELAY", "250");
}
