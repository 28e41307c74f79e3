//! The whole daemon: what it found stands on top of the message that is kept, and what strangers wrote under its name is gone.

use super::{BODY, message, names, signed_ed, signed_rsa};
use tests::names::Names;
use tests::process::wait::{self, PATIENCE};
use tests::process::{Client, Daemon, Setup};

/// Verifies what clients behind a proxy bring for `ours.test`, by that name server. What it takes stays in its queue.
fn daemon(names: &Names) -> Daemon {
    let mut setup = Setup::new();
    setup.remove("listen");
    let lines = format!(
        "[delivery]\nname_servers = [\"{}\"]\n[access]\nrelay_to = [\"ours.test\"]\n[routes]\n\
         \"*\" = {{ relay = \"127.0.0.1:9\", hold = true }}\n[listeners.mx]\naddresses = [\"127.0.0.1:0\"]\n\
         proxy_from = [\"127.0.0.1\"]\nverify = true\n",
        names.address
    );
    setup.with_lines(&lines).start()
}

/// Brings one message from that address; what is kept of it, which is what goes out.
fn kept(daemon: &Daemon, client: &str, sender: &str, content: &str) -> String {
    let before: Vec<String> = ids(daemon);
    let mut session = Client::connect(daemon.address);
    session.write(format!("PROXY TCP4 {client} 127.0.0.1 40000 25\r\n").as_bytes()).expect("it reads");
    session.expect("220");
    session.say_expecting("EHLO helo.a.test", "250");
    let reply = session.send(sender, &["bob@ours.test"], content.trim_end_matches("\r\n"));
    assert!(reply.starts_with("250"), "{reply}");
    let id = ids(daemon).into_iter().find(|id| !before.contains(id)).expect("it was taken");
    let cat = wait::succeed(&mut daemon.setup.command(&["queue", "cat", &id]), PATIENCE);
    String::from_utf8_lossy(&cat.stdout).into_owned()
}

fn ids(daemon: &Daemon) -> Vec<String> {
    let rows = daemon.setup.queue_list();
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// The fields that speak of results, unfolded.
fn results(content: &str) -> Vec<String> {
    let header = content.replace("\r\n", "\n").split("\n\n").next().unwrap_or_default().replace("\n\t", " ");
    header.lines().filter(|line| line.starts_with("Authentication-Results:")).map(str::to_owned).collect()
}

#[test]
fn what_is_verified_stands_on_top_of_the_message_that_is_kept() {
    let names = names();
    let daemon = daemon(&names);
    let genuine = signed_rsa("a.test", &signed_ed("a.test", &message("ann@a.test", BODY)));
    let content = kept(&daemon, "192.0.2.1", "bounce@a.test", &genuine);
    let own = "Authentication-Results: relay.process.test; ";
    let [result] = &results(&content)[..] else { panic!("{content}") };
    assert!(
        result.starts_with(&format!("{own}spf=pass smtp.mailfrom=bounce@a.test; dkim=pass ")),
        "{result}"
    );
    assert!(result.ends_with("; dmarc=pass header.from=a.test policy.dmarc=reject"), "{result}");
    assert_eq!(result.matches("dkim=pass").count(), 2, "{result}");
    let (trace, result) = (content.find("Received:"), content.find("Authentication-Results:"));
    assert!(trace == Some(0) && result < content.find("DKIM-Signature:"), "{content}");
    assert!(content.ends_with(&genuine), "the rest is as it came: {content}");
}

#[test]
fn forged_mail_is_kept_with_what_is_wrong_and_without_the_results_it_made_up() {
    let names = names();
    let daemon = daemon(&names);
    let signed = signed_rsa("a.test", &message("ann@a.test", BODY)).replace("hello", "HELLO");
    let forged =
        format!("Authentication-Results: relay.process.test; dmarc=pass header.from=a.test\r\n{signed}");
    let content = kept(&daemon, "198.51.100.7", "ann@a.test", &forged);
    let [result] = &results(&content)[..] else { panic!("{content}") };
    for part in ["spf=fail smtp.mailfrom=ann@a.test", "dkim=fail ", "dmarc=fail header.from=a.test"] {
        assert!(result.contains(part), "{part}: {result}");
    }
}
