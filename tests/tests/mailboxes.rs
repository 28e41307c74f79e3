//! This machine's own mail, with the real parts as their own users: taken in, handed to the recipient's process, fetched
//! again; a list by the bulk path; parts that die; parts that try what they must not.

use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::process::house::{HERE, PARTS, has_root, status_of, uid_of};
use tests::process::peer::{is_root, peer};
use tests::process::setup::Refusal;
use tests::process::{Plan, Sink, http, vacant, wait};

const RUN_MAX: Duration = Duration::from_secs(120);

#[test]
fn mail_comes_to_each_users_mailbox_with_that_users_rights() {
    let plan = Plan::new(&["alias", "ann", "bob"]);
    let bob = plan.resident("bob").clone();
    bob.write(".qmail", "|id -u > whoami; pwd > where; cat > program-got\n./Maildir/\n");
    bob.write(".qmail-done", "|echo \"$EXT $SENDER\" >> seen; exit 99\n./Maildir/\n");
    let house = plan.start();
    let mut client = house.client();
    for to in ["ann", "Bob", "bob-done"] {
        let reply =
            client.send("eve@far.test", &[&format!("{to}@{HERE}")], "Subject: hi\r\n\r\n..dot\r\nend");
        assert!(reply.starts_with("250"), "{reply}");
    }
    let ann = house.resident("ann");
    let letter = ann.wait_for_mail(1).remove(0);
    let top = format!("Return-Path: <eve@far.test>\nDelivered-To: ann@{HERE}\nReceived: from ");
    assert!(letter.starts_with(&top) && letter.ends_with("Subject: hi\n\n.dot\nend\n"), "{letter}");
    let file = std::fs::metadata(&ann.new_mail()[0]).expect("it stays");
    assert_eq!((file.uid(), file.mode() & 0o777), (ann.uid, 0o600));
    bob.wait_for_mail(1);
    assert_eq!(bob.read("whoami"), format!("{}\n", bob.uid));
    assert_eq!(bob.read("where"), format!("{}\n", bob.home.display()));
    assert_eq!(bob.read("program-got"), letter.split_once('\n').unwrap().1.split_once('\n').unwrap().1);
    wait::until("the program that says 99", RUN_MAX, || bob.read("seen") == "done eve@far.test\n");
    house.wait_until_empty();
    assert_eq!(bob.new_mail().len(), 1, "behind 99 nothing is done");
    house.terminate();
}

#[test]
fn what_cannot_be_delivered_comes_back_to_its_sender() {
    let plan = Plan::new(&["alias", "ann", "bob"]).with("retry.lifetime_secs", 600);
    let bob = plan.resident("bob").clone();
    bob.write(".qmail-closed", "|echo 'This address is closed.'; exit 100\n");
    bob.write(".qmail-loop", &format!("&bob-loop@{HERE}\n"));
    bob.write(".qmail-full", "./Full/\n");
    bob.make_maildir("Full");
    bob.write("Full/maildirsize", "10S\n");
    bob.write(".qmail-late", "|test -e now || exit 111; cat > late\n");
    let house = plan.start();
    let mut client = house.client();
    for to in ["bob-closed", "bob-loop", "bob-none", "bob-late"] {
        client.deliver(&format!("ann@{HERE}"), &[&format!("{to}@{HERE}")]);
    }
    let bounces = house.resident("ann").wait_for_mail(3);
    let said = |words: &str| bounces.iter().filter(|bounce| bounce.contains(words)).count();
    assert_eq!(said("This address is closed."), 1, "{bounces:?}");
    assert_eq!(said("already has my Delivered-To line"), 1, "{bounces:?}");
    assert_eq!(said("no mailbox here by that name"), 1, "{bounces:?}");
    assert_eq!(said("Status: 5.4.6") + said("Status: 5.1.1") + said("Status: 5.3.0"), 3, "{bounces:?}");
    // What is soft is tried again.
    bob.write("now", "");
    house.wait_until_empty();
    assert!(bob.read("late").starts_with("Received: "), "{}", bob.read("late"));
    house.terminate();
}

#[test]
fn one_users_slow_and_loud_programs_hold_up_nobody_elses_mail() {
    const SLOW: usize = 7;
    let plan = Plan::new(&["alias", "ann", "bob"]);
    let bob = plan.resident("bob").clone();
    bob.write(".qmail-slow", "|echo begun >> runs; while ! test -e go; do sleep 0.1; done\n");
    bob.write(".qmail-loud", "|echo 'disk limit exceeded, slow down'; test -e go && exit 0; exit 111\n");
    let house = plan.start();
    let mut client = house.client();
    let to = |name: &str| format!("{name}@{HERE}");
    for _ in 0..SLOW {
        client.deliver("eve@far.test", &[&to("bob-slow"), &to("ann")]);
    }
    client.deliver("eve@far.test", &[&to("bob-loud")]);
    house.resident("ann").wait_for_mail(SLOW);
    wait::until("bob's programs to begin", wait::PATIENCE, || bob.read("runs").lines().count() == SLOW);
    client.deliver("eve@far.test", &[&to("ann")]);
    house.resident("ann").wait_for_mail(SLOW + 1);
    bob.write("go", "");
    house.wait_until_empty();
    assert_eq!(bob.read("runs").lines().count(), SLOW, "each was run once");
    house.resident("ann").wait_for_mail(SLOW + 1);
    house.terminate();
}

#[test]
fn a_double_bounce_that_a_postmaster_forwards_ends_there() {
    let relay = Sink::start(&["--fault", "rcpt=550"]);
    let mut plan = Plan::new(&["alias", "ann"]).with("bounces.doublebounce_to", format!("postmaster@{HERE}"));
    plan.setup.set("routes.*", relay.address.to_string());
    plan.resident("alias").write(".qmail-postmaster", "&admin@far.test\n|echo \"$SENDER\" >> senders\n");
    let house = plan.start();
    house.client().deliver("", &[&format!("nobody@{HERE}")]);
    wait::until("the double bounce", wait::PATIENCE, || !house.resident("alias").read("senders").is_empty());
    house.wait_until_empty();
    assert_eq!(house.resident("alias").read("senders"), "#@[]\n");
    assert_eq!(relay.end().counters.replies[&550], 1, "it was tried once, and nobody was told");
    house.terminate();
}

#[test]
fn a_full_mailbox_bounces() {
    let plan = Plan::new(&["alias", "ann", "bob"]);
    plan.resident("bob").write("Maildir/maildirsize", "1200S\n");
    let house = plan.start();
    let mut client = house.client();
    let letter = format!("Subject: long\r\n\r\n{}", format!("{}\r\n", "x".repeat(70)).repeat(12));
    let mut send = || client.send(&format!("ann@{HERE}"), &[&format!("bob@{HERE}")], &letter);
    assert!(send().starts_with("250"));
    // What comes at the same time may be let in together: the file is a sum, and no lock.
    house.resident("bob").wait_for_mail(1);
    assert!(send().starts_with("250"));
    let bounce = house.resident("ann").wait_for_mail(1).remove(0);
    assert!(bounce.contains("Mailbox is full. (#5.2.2)") && bounce.contains("Status: 5.2.2"), "{bounce}");
    house.resident("bob").wait_for_mail(1);
    house.wait_until_empty();
    house.terminate();
}

#[test]
fn whole_addresses_and_virtual_domains_go_where_the_lists_say() {
    let (relay, of_domain) = (Sink::start(&[]), Sink::start(&[]));
    let words = vec![
        "v.test:ann",
        "out@v.test:",
        "gone@v.test:",
        "ann@far.test:ann",
        ".w.test:ann",
        "x.w.test:",
        "out@a.w.test:",
    ];
    let mut plan = Plan::new(&["alias", "ann"]).with("local.virtual_domains", words);
    let api = vacant();
    plan.setup.set("routes.*", relay.address.to_string());
    plan.setup.set("routes.a.w.test", of_domain.address.to_string());
    plan.setup.set("api.listen", vec![api.to_string()]);
    plan.resident("ann").write(".qmail-default", "|echo \"$LOCAL@$HOST\" >> got\n");
    let house = plan.start();
    let mut client = house.client();
    wait::succeed(house.setup.command(&["suppress", "add"]).arg("gone@v.test"), RUN_MAX);
    let to = [
        "info@v.test",
        "out@v.test",
        "gone@v.test",
        "ANN@far.test",
        "bob@far.test",
        "a@b.w.test",
        "a@x.w.test",
        "out@a.w.test",
    ];
    for to in to {
        client.deliver("eve@far.test", &[to]);
    }
    let injection = "{\"envelope_sender\": \"eve@far.test\", \"content\": \"Subject: hi\\n\\nhi\\n\", \
        \"recipients\": [{\"email\": \"ann+2@far.test\"}, {\"email\": \"ann@far.test\"}]}";
    let json = ("Content-Type", "application/json");
    let answer = http::send(api, "POST /api/inject/v1", &[json], injection.as_bytes()).expect("it answers");
    assert_eq!(answer.status, 200, "{answer:?}");
    // Bounces are as other mail.
    for from in ["Ann@far.test", "OUT@v.test", "bea@v.test"] {
        client.deliver(from, &[&format!("nobody@{HERE}")]);
    }
    house.wait_until_empty();
    let got: BTreeSet<String> = house.resident("ann").read("got").lines().map(str::to_owned).collect();
    let far = ["ann-ANN@far.test", "ann-ann@far.test", "ann-Ann@far.test"];
    let wanted = [&far[..], &["ann-info@v.test", "ann-a@b.w.test", "ann-bea@v.test"]].concat();
    assert_eq!(got, wanted.iter().map(|line| (*line).to_owned()).collect());
    let wanted = ["out@v.test", "OUT@v.test", "bob@far.test", "ann+2@far.test", "a@x.w.test"];
    assert_eq!(relay.end().forward_paths(), wanted.iter().map(|path| (*path).to_owned()).collect());
    assert_eq!(of_domain.end().forward_paths(), BTreeSet::from(["out@a.w.test".to_owned()]));
    house.terminate();
}

#[test]
fn a_list_goes_out_by_the_bulk_path_and_each_bounce_names_its_member() {
    const MEMBERS: usize = 3000;
    let relay = Sink::start(&["--fault", "rcpt=550:0.01:by-address"]);
    let mut plan = Plan::new(&["alias", "ann"]);
    plan.setup.set("routes.*", relay.address.to_string());
    let ann = plan.resident("ann").clone();
    let members: String = (0..MEMBERS).map(|number| format!("&member{number:04}@members.test\n")).collect();
    ann.write(".qmail-list", &members);
    ann.write(".qmail-list-owner", "./Maildir/\n");
    ann.write(".qmail-list-owner-default", "|echo \"$DEFAULT\" >> bounced\n");
    let house = plan.start();
    house.client().deliver("eve@far.test", &[&format!("ann-list@{HERE}")]);
    house.wait_until_empty();
    let taken = relay.end().deliveries();
    let bounced: BTreeSet<String> = ann.read("bounced").lines().map(str::to_owned).collect();
    assert!(taken.len() < MEMBERS && !bounced.is_empty(), "{} {bounced:?}", taken.len());
    assert_eq!(taken.len() + bounced.len(), MEMBERS, "each has it or is named by a bounce");
    for delivery in &taken {
        let member = delivery.forward_path.replace('@', "=");
        assert_eq!(delivery.reverse_path, format!("ann-list-owner-{member}@{HERE}"));
        assert!(!bounced.contains(&member), "{member}");
    }
    house.terminate();
}

#[test]
fn one_wrong_line_of_a_list_costs_nobody_else_the_message() {
    let relay = Sink::start(&[]);
    let mut plan = Plan::new(&["alias", "ann"]).with("access.bad_recipients", vec!["gone@members.test"]);
    plan.setup.set("routes.*", relay.address.to_string());
    let ann = plan.resident("ann").clone();
    ann.write(".qmail-list", "&bob@members.test\n&bob@members..test\n&gone@members.test\n&cy@members.test\n");
    ann.write(".qmail-list-owner", "./Maildir/\n");
    ann.write(".qmail-list-owner-default", "./Maildir/\n");
    let house = plan.start();
    house.client().deliver("eve@far.test", &[&format!("ann-list@{HERE}")]);
    let bounce = ann.wait_for_mail(1).remove(0);
    let top = format!("Return-Path: <>\nDelivered-To: ann-list-owner-@{HERE}\n");
    assert!(bounce.starts_with(&top), "{bounce}");
    for words in [
        "\n\nHi. This is the ringpost program at ",
        "\n\n<bob@members..test>:\nthe domain is empty or has an empty label (#5.1.3)\n\n",
        "\n\n<gone@members.test>:\nMail to this recipient is not taken here (#5.7.1)\n\n---",
    ] {
        assert!(bounce.contains(words), "{words:?} is not in\n{bounce}");
    }
    house.wait_until_empty();
    // Its author hears of nothing.
    let taken = relay.end().deliveries();
    let paths: BTreeSet<(&str, &str)> =
        taken.iter().map(|one| (one.reverse_path.as_str(), one.forward_path.as_str())).collect();
    let sender = |name: &str| format!("ann-list-owner-{name}=members.test@{HERE}");
    let (bob, cy) = (sender("bob"), sender("cy"));
    assert_eq!(paths, BTreeSet::from([(&bob[..], "bob@members.test"), (&cy[..], "cy@members.test")]));
    house.terminate();
}

#[test]
fn an_address_without_a_host_gets_the_configured_one_where_nobody_may_read_the_configuration() {
    let relay = Sink::start(&[]);
    let mut plan = Plan::new(&["alias", "ann"])
        .with("local.locals", vec![HERE, "localhost"])
        .with("local.no_at_host", "members.test");
    plan.setup.set("routes.*", relay.address.to_string());
    let (alias, ann) = (plan.resident("alias").clone(), plan.resident("ann").clone());
    ann.write(".qmail-away", "&bob\n&carl@localhost\n|echo $RINGPOST_NO_AT_HOST > host\n");
    alias.write(".qmail-carl", "./Maildir/\n");
    let house = plan.start();
    house.client().deliver("eve@far.test", &[&format!("ann-away@{HERE}")]);
    let letter = alias.wait_for_mail(1).remove(0);
    assert!(letter.contains("\nDelivered-To: carl@localhost\n"), "{letter}");
    house.wait_until_empty();
    assert_eq!(ann.read("host"), "members.test\n");
    assert_eq!(relay.end().forward_paths(), BTreeSet::from(["bob@members.test".to_owned()]));
    house.terminate();
}

#[test]
fn who_may_not_relay_is_forwarded_to_anywhere_all_the_same() {
    let relay = Sink::start(&[]);
    let mut plan = Plan::new(&["alias", "ann"])
        .with("access.relay_to", vec![HERE])
        .with("intake.relay_from", vec!["192.0.2.0/24"]);
    plan.setup.set("routes.*", relay.address.to_string());
    plan.resident("alias").write(".qmail-sales", "&ann@elsewhere.test\n");
    plan.resident("ann").write(".qmail-list", "bob@members.test\n");
    plan.resident("ann").write(".qmail-away", "./Maildir/\n&carl@beyond.test\n");
    let house = plan.start();
    let mut client = house.client();
    client.say_expecting("MAIL FROM:<eve@far.test>", "250");
    for refused in ["ann@elsewhere.test", "bob@members.test", "ann%elsewhere.test@far.test"] {
        client.say_expecting(&format!("RCPT TO:<{refused}>"), "550 5.7.1");
    }
    client.say_expecting("RSET", "250");
    let here = ["sales", "ann-list", "ann-away"].map(|name| format!("{name}@{HERE}"));
    client.deliver("eve@far.test", &here.each_ref().map(String::as_str));
    house.wait_until_empty();
    let wanted = ["ann@elsewhere.test", "bob@members.test", "carl@beyond.test"];
    assert_eq!(relay.end().forward_paths(), BTreeSet::from(wanted.map(str::to_owned)));
    house.terminate();
}

#[test]
fn whoever_has_the_password_fetches_their_mail() {
    let house = Plan::new(&["alias", "ann", "bob"]).with_pop3().start();
    house.client().deliver("eve@far.test", &[&format!("ann@{HERE}")]);
    house.resident("ann").wait_for_mail(1);
    let fetch = |user: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--user", user]);
        wait::finish(curl.arg(format!("pop3://{}/1", house.pop3)), RUN_MAX)
    };
    let letter = fetch("ann:secret");
    assert!(letter.status.success(), "{letter:?}");
    let letter = String::from_utf8_lossy(&letter.stdout).into_owned();
    assert!(letter.starts_with("Return-Path: <eve@far.test>\r\nDelivered-To: ann@"), "{letter}");
    assert!(!fetch("ann:wrong").status.success());
    assert!(!fetch("bob:secret").status.success(), "there is no mail for bob");
    let mut stream = TcpStream::connect(house.pop3).expect("it listens");
    stream.write_all(b"USER ann\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n").expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it ends");
    assert_eq!(said.matches("+OK").count(), 5, "{said}");
    wait::until("it is removed", RUN_MAX, || house.resident("ann").new_mail().is_empty());
    house.terminate();
}

#[test]
fn a_part_that_dies_is_started_again_and_nothing_is_lost() {
    const MESSAGES: usize = 120;
    let house = Plan::new(&["alias", "ann"]).with_pop3().with("delivery.backoff_max_secs", 1).start();
    let before = house.parts();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["launch", "local", "pop3", "serve"]);
    let mut sent = 0;
    for part in ["local", "launch", "pop3", "serve"] {
        for number in 0..MESSAGES / 4 {
            if number == 10 {
                house.signal(house.parts()[part], Signal::KILL);
            }
            // Whoever is not answered sends again.
            wait::until("a message is taken", RUN_MAX, || {
                let Ok(()) = try_send(&house, sent) else { return false };
                true
            });
            sent += 1;
        }
        let old = before[part];
        wait::until(part, RUN_MAX, || house.parts().get(part).is_some_and(|new| *new != old));
    }
    house.wait_until_empty();
    let found: BTreeSet<String> = house
        .resident("ann")
        .new_mail()
        .iter()
        .filter_map(|path| {
            let letter = std::fs::read_to_string(path).expect("it stays");
            letter.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned))
        })
        .collect();
    assert_eq!(found.len(), MESSAGES, "{found:?}");
    house.terminate();
}

#[test]
fn what_a_part_was_delivering_when_it_died_makes_nothing_bounce() {
    let plan = Plan::new(&["alias", "ann", "bob"]).with("delivery.backoff_max_secs", 1);
    let bob = plan.resident("bob").clone();
    bob.write(
        ".qmail",
        "|echo begun >> runs; test -e again && exit; touch again; while ! test -e go; do sleep 0.1; done\n",
    );
    bob.write(".qmail-owner", "./Maildir/\n");
    let house = plan.start();
    // The first delivery of a connection, as it is where there is little mail.
    house.client().deliver(&format!("bob-owner@{HERE}"), &[&format!("bob@{HERE}")]);
    wait::until("the program to begin", wait::PATIENCE, || bob.read("runs").lines().count() == 1);
    let old = house.parts()["local"];
    house.signal(old, Signal::KILL);
    wait::until("local", RUN_MAX, || house.parts().get("local").is_some_and(|new| *new != old));
    for number in 1..=3 {
        house.client().deliver("eve@far.test", &[&format!("ann@{HERE}")]);
        house.resident("ann").wait_for_mail(number);
    }
    house.wait_until_empty();
    assert_eq!((bob.read("runs").lines().count(), bob.new_mail().len()), (2, 0), "run again, and no bounce");
    bob.write("go", "");
    house.terminate();
}

fn try_send(house: &tests::process::House, number: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(house.smtp)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let content = format!("Subject: {number}\r\n\r\nhello\r\n.\r\n");
    let lines = format!("EHLO c\r\nMAIL FROM:<eve@far.test>\r\nRCPT TO:<ann@{HERE}>\r\nDATA\r\n");
    let mut said = String::new();
    stream.write_all(lines.as_bytes())?;
    read_until(&mut stream, &mut said, "354")?;
    stream.write_all(content.as_bytes())?;
    read_until(&mut stream, &mut said, "queued as")
}

fn read_until(stream: &mut TcpStream, said: &mut String, words: &str) -> std::io::Result<()> {
    let mut piece = [0; 1024];
    while !said.contains(words) {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        said.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
    Ok(())
}

#[test]
fn each_part_has_its_user_and_the_rights_it_needs() {
    if !has_root() {
        return;
    }
    let house = Plan::new(&["alias", "ann"]).with_pop3().start();
    for (part, pid) in house.parts() {
        let (privileges, seccomp) = (status_of(pid, "NoNewPrivs"), status_of(pid, "Seccomp"));
        assert_eq!((privileges, seccomp), (vec!["1".into()], vec!["2".into()]), "{part}");
        let user = PARTS.iter().find(|(key, _)| part_of(key) == part).map(|(_, user)| uid_of(user));
        assert_eq!(status_of(pid, "Uid"), vec![user.unwrap_or(0).to_string(); 4], "{part}");
        assert!(status_of(pid, "Groups").is_empty(), "{part}");
        // CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_DAC_READ_SEARCH, and none.
        let capabilities = if part == "launch" { "00000000000000e4" } else { "0000000000000000" };
        assert_eq!(status_of(pid, "CapEff"), [capabilities], "{part}");
    }
    house.terminate();
}

/// What no part may: tried by each thread of each that runs, by the calls that whoever took it over would make.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_part_cannot_do_what_is_not_its_own() {
    use tests::process::inside::{Inside, threads_of};
    if !has_root() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let Ok(std::net::SocketAddr::V4(anybody)) = listener.local_addr() else { panic!("it is bound") };
    let plan = Plan::new(&["alias", "ann"]).with_pop3();
    let ann = plan.resident("ann").clone();
    // Not even what everybody could read.
    ann.write("diary", "secret");
    std::fs::set_permissions(ann.home.join("diary"), Permissions::from_mode(0o644)).expect("root may");
    let (queue, config) = (plan.setup.queue().join("verp-secret"), plan.setup.config_file());
    let (new, made) = (plan.setup.folder().join("made"), tests::process::setup::temporary_folder());
    std::fs::set_permissions(made.path(), Permissions::from_mode(0o777)).expect("ours");
    let house = plan.start();
    let supervisor = house.pid();
    let mut count = 0;
    for (part, pid) in house.parts() {
        for thread in threads_of(pid) {
            let Some(mut inside) = Inside::of(thread) else { continue };
            // What another has made it could not write to in any case.
            let open_to_all = made.path().join(format!("{part}-{thread}"));
            let mut can: BTreeSet<&str> = BTreeSet::new();
            let mut attempt = |what: &'static str, result: Result<(), rustix::io::Errno>| {
                can.extend(result.ok().map(|()| what));
            };
            attempt("read the configuration", inside.read(&config));
            attempt("read the queue", inside.read(&queue));
            attempt("read a user's file", inside.read(&ann.home.join("diary")));
            attempt("write beside the configuration", inside.write(&new));
            attempt("write where everybody may", inside.write(&open_to_all));
            attempt("connect", inside.connect(anybody));
            attempt("trace", inside.trace(supervisor));
            attempt("make a ring", inside.make_ring());
            if part != "launch" {
                attempt("be root", inside.become_root());
                attempt("execute", inside.execute(std::path::Path::new("/bin/true")));
            }
            drop(inside);
            let may: &[&str] = match part.as_str() {
                "serve" => &["read the configuration", "read the queue", "connect"],
                // It starts the programs of users, and has to look into their homes: whatever files they may need it cannot
                // give up. But it reads no mail, and has no way out.
                "launch" => &[
                    "read the configuration",
                    "read the queue",
                    "read a user's file",
                    "write beside the configuration",
                    "write where everybody may",
                ],
                _ => &["read the configuration"],
            };
            assert_eq!(can, may.iter().copied().collect(), "{part}, thread {thread}");
            count += 1;
        }
    }
    assert!(count > 4, "{count} threads");
    // They go on as if nothing had been.
    house.client().deliver("eve@far.test", &[&format!("ann@{HERE}")]);
    ann.wait_for_mail(1);
    house.terminate();
}

#[test]
fn a_users_program_has_no_way_to_the_net_or_to_more_rights() {
    if !has_root() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let anybody = listener.local_addr().expect("it is bound").to_string().replace(':', "/");
    let house = Plan::new(&["alias", "ann"]).start();
    let ann = house.resident("ann");
    ann.write(
        ".qmail-out",
        &format!(
            "|(echo > /dev/tcp/{anybody}) 2>/dev/null; echo $? > code; cat /proc/self/status > status\n"
        ),
    );
    house.client().deliver("eve@far.test", &[&format!("ann-out@{HERE}")]);
    house.wait_until_empty();
    assert!(ann.read("status").contains("NoNewPrivs:\t1"));
    assert_ne!(ann.read("code"), "0\n");
    house.terminate();
}

fn part_of(key: &str) -> &'static str {
    match key {
        "engine_user" => "serve",
        "local_user" => "local",
        _ => "pop3",
    }
}

/// A script in Python, as another user, about one of the house's sockets.
fn python_as(user: &str, script: &str, socket: &std::path::Path) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(socket).uid(uid_of(user)).gid(uid_of(user));
    python
}

#[test]
fn nobody_but_the_engine_hands_mail_over_and_nobody_but_the_front_asks_for_a_process() {
    if !has_root() {
        return;
    }
    let house = Plan::new(&["alias", "ann"]).start();
    let socket = house.setup.folder().join("run/local.sock");
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  print(s.recv(100))";
    let output = wait::finish(&mut python_as("nobody", script, &socket), RUN_MAX);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("220"), "{output:?}");
    house.wait_until_said("mail is taken from the engine alone");
    let socket = house.setup.folder().join("run/launch.sock");
    // Whoever is turned away may find the connection closed before anything is sent.
    let asking = |fields: &str| {
        format!(
            "import socket,sys,struct\ns=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n\
             s.connect(sys.argv[1])\nf=lambda x:struct.pack('<I',len(x))+x\n\
             try:\n  s.send({fields})\n  print(s.recv(100))\nexcept OSError:\n  print(b'')"
        )
    };
    let deliver = asking("f(b'deliver')+f(b'ann')+f(b'here.test')+f(b'')");
    let output = wait::finish(&mut python_as("nobody", &deliver, &socket), RUN_MAX);
    assert_eq!(output.stdout, b"b''\n", "{output:?}");
    house.wait_until_said("callers who may ask for nothing");
    // Who hands mail over has no mailbox opened.
    let mailbox = asking("f(b'mailbox')+f(b'ann')");
    let output = wait::finish(&mut python_as(PARTS[1].1, &mailbox, &socket), RUN_MAX);
    assert_eq!(output.stdout, b"b''\n", "{output:?}");
    house.wait_until_said("a caller asked for what it may not");
    assert!(house.resident("ann").new_mail().is_empty());
}

/// Connections on which nothing is said, until the value goes.
struct Silent(std::process::Child);

impl Silent {
    fn hold(user: &str, socket: &std::path::Path, count: usize) -> Silent {
        let script = "import socket,sys\nheld=[]\nfor n in range(int(sys.argv[2])):\n  \
                      held.append(socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET))\n  \
                      held[-1].connect(sys.argv[1])\nprint('held',flush=True)\nsys.stdin.read()";
        let mut python = python_as(user, script, socket);
        let spawned = python.arg(count.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("Python is installed");
        let stdout = child.stdout.take().expect("it was piped");
        let silent = Silent(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it is text");
        assert_eq!(line, "held\n", "{user}");
        silent
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whoever_connects_and_says_nothing_holds_up_no_mail() {
    /// More than all callers of the launcher together have places.
    const CONNECTIONS: usize = 200;
    if !has_root() {
        return;
    }
    let plan = Plan::new(&["alias", "ann"])
        .with_pop3()
        .with("local.sessions_max", 10)
        .with("pop3.sessions_max", 10)
        .with("delivery.backoff_max_secs", 1);
    let house = plan.start();
    let (socket, ann) = (house.setup.folder().join("run/launch.sock"), house.resident("ann"));
    let send = || house.client().deliver("eve@far.test", &[&format!("ann@{HERE}")]);
    let strangers = Silent::hold("nobody", &socket, CONNECTIONS);
    send();
    ann.wait_for_mail(1);
    let lines = house.talk().matches("callers who may ask for nothing").count();
    assert_eq!(lines, 1, "they do not fill the log");
    // Nor do the parts take each other's places, and those of their own come back.
    let of_pop3 = Silent::hold(PARTS[2].1, &socket, CONNECTIONS);
    send();
    ann.wait_for_mail(2);
    house.wait_until_said("a caller said nothing");
    let of_local = Silent::hold(PARTS[1].1, &socket, CONNECTIONS);
    wait::until("ann can look", RUN_MAX, || stat(house.pop3).is_ok_and(|said| said.contains("+OK 2 ")));
    send();
    ann.wait_for_mail(3);
    drop((strangers, of_pop3, of_local));
    house.terminate();
}

/// What the POP3 server says to ann.
fn stat(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"USER ann\r\nPASS secret\r\nSTAT\r\nQUIT\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn sighup_reads_the_lists_again() {
    let relay = Sink::start(&[]);
    let mut plan = Plan::new(&["alias", "ann"]);
    plan.setup.set("routes.*", relay.address.to_string());
    let ann = plan.resident("ann").clone();
    // Until it is told to go on; if nobody does, for five minutes.
    let slow = "|echo begun >> log; grep Sig /proc/$$/status > signals; \
                for n in $(seq 3000); do test -e go && break; sleep 0.1; done; cat >> log\n";
    ann.write(".qmail-slow", slow);
    ann.write(".qmail-after", "|cat >> after\n");
    let mut house = plan.start();
    let launcher = house.parts()["launch"];
    house.client().deliver("eve@far.test", &["ann@new.test"]);
    relay.wait_for_recipients(1, RUN_MAX);
    house.client().deliver("eve@far.test", &[&format!("ann-slow@{HERE}")]);
    wait::until("a slow program", RUN_MAX, || ann.read("log") == "begun\n");
    house.setup.set("local.locals", vec![HERE, "new.test"]);
    house.setup.set("local.default_delivery", "|cat >> anew\n./Maildir/\n");
    house.setup.write_config();
    house.signal(house.pid(), Signal::HUP);
    house.wait_until_said("the lists of local names are read again");
    house.wait_until_said("the settings of deliveries are read again");
    wait::until("the daemon knows it, too", RUN_MAX, || {
        house.client().deliver("eve@far.test", &["ann@new.test"]);
        !ann.new_mail().is_empty()
    });
    assert!(ann.read("anew").contains("Subject: test"), "the launcher has read it, too");
    std::fs::write(house.setup.config_file(), "local = [\n").expect("ours");
    house.signal(house.pid(), Signal::HUP);
    house.wait_until_said("the settings of deliveries stay as they were");
    house.client().deliver("eve@far.test", &[&format!("ann-after@{HERE}")]);
    wait::until("mail after a wrong configuration", RUN_MAX, || ann.read("after").contains("Subject: test"));
    assert_eq!(ann.read("log"), "begun\n", "the slow program is still at work");
    ann.write("go", "");
    house.setup.write_config();
    house.wait_until_empty();
    let log = ann.read("log");
    assert_eq!((log.matches("begun\n").count(), log.matches("Subject: test").count()), (1, 1), "{log}");
    let signals = ann.read("signals");
    for field in ["SigBlk:", "SigIgn:"] {
        let mask = signals.lines().find_map(|line| line.strip_prefix(field)).expect("Linux has it");
        // The lowest bit is SIGHUP's.
        assert_eq!(u64::from_str_radix(mask.trim(), 16).expect("hexadecimal") & 1, 0, "{signals}");
    }
    assert_eq!(house.parts()["launch"], launcher);
    house.terminate();
}

#[test]
fn a_wrong_configuration_is_refused_in_one_sentence() {
    let plan = Plan::new(&["alias"]).with("supervise.engine_user", "nobody-of-that-name");
    plan.setup.write_config();
    let refusal = Refusal::of(&mut plan.setup.command(&["supervise"]));
    if is_root() {
        assert_eq!(refusal.code, 78, "{refusal:?}");
        assert!(refusal.sentence().contains("there is no user \"nobody-of-that-name\""), "{refusal:?}");
    }
    let plan = Plan::new(&["alias"]);
    std::fs::write(plan.setup.folder().join("assign"), "=ann:ann\n.\n").expect("ours");
    plan.setup.write_config();
    let refusal = Refusal::of(&mut plan.setup.command(&["supervise"]));
    assert_eq!(refusal.code, 78, "{refusal:?}");
    assert!(refusal.said.contains("assign: line 1: it is name:user:uid:gid"), "{refusal:?}");
}

/// Dovecot's POP3 server on our Maildirs, until the value goes.
struct Dovecot {
    master: std::process::Child,
    address: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

impl Dovecot {
    fn start(house: &tests::process::House, user: &str) -> Option<Dovecot> {
        let mut dovecot = peer("dovecot")?;
        let folder = tests::process::setup::temporary_folder();
        let resident = house.resident(user);
        let address = vacant();
        let (at, uid, home) = (folder.path().display(), resident.uid, resident.home.display());
        let config = format!(
            "base_dir = {at}/run\nlog_path = {at}/log\nprotocols = pop3\nssl = no\ndisable_plaintext_auth = no\n\
             first_valid_uid = 1\nmail_location = maildir:{home}/Maildir\n\
             passdb {{\n driver = static\n args = password=secret\n}}\n\
             userdb {{\n driver = static\n args = uid={uid} gid={uid} home={home}\n}}\n\
             service pop3-login {{\n inet_listener pop3 {{\n  address = 127.0.0.1\n  port = {}\n }}\n \
             inet_listener pop3s {{\n  port = 0\n }}\n}}\n",
            address.port()
        );
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        std::fs::write(folder.path().join("dovecot.conf"), config).expect("ours");
        let master = dovecot.arg("-F").arg("-c").arg(folder.path().join("dovecot.conf")).spawn();
        let dovecot = Dovecot { master: master.expect("it is installed"), address, _folder: folder };
        wait::until("Dovecot listens", RUN_MAX, || TcpStream::connect(address).is_ok());
        Some(dovecot)
    }
}

impl Drop for Dovecot {
    /// It ends its own children.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.master);
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let _ = wait::ends_within(&mut self.master, RUN_MAX);
    }
}

/// All messages of a mailbox, by Python's poplib.
fn fetched(from: std::net::SocketAddr, user: &str) -> Vec<String> {
    let script = "import poplib,sys\np=poplib.POP3(sys.argv[1],int(sys.argv[2]),timeout=60)\np.user(sys.argv[3])\n\
                  p.pass_('secret')\nfor n in range(1,p.stat()[0]+1):\n  \
                  print(b'\\n'.join(p.retr(n)[1]).hex())\np.quit()";
    let mut python = Command::new("python3");
    python.args(["-c", script, &from.ip().to_string(), &from.port().to_string(), user]);
    let output = wait::succeed(&mut python, RUN_MAX);
    let mut letters: Vec<String> =
        String::from_utf8(output.stdout).expect("hex").lines().map(str::to_owned).collect();
    letters.sort();
    letters
}

#[test]
fn a_script_delivers_and_dovecot_and_poplib_read_the_same() {
    if !has_root() {
        return;
    }
    let plan = Plan::new(&["alias", "ann", "bob"]).with_pop3();
    let bob = plan.resident("bob").clone();
    bob.write(".qmail", "|sh ./sorter\n");
    let sorter = "name=$(date +%s%N).$$.here\n{ printf '%s' \"$RPLINE$DTLINE\"; cat; } > Maildir/tmp/$name || exit 111\n\
                  mv Maildir/tmp/$name Maildir/new/$name || exit 111\n";
    bob.write("sorter", sorter);
    let house = plan.start();
    let mut client = house.client();
    let letters =
        ["..one\r\n...two\r\n\r\n", "no end", "Gr\u{fc}\u{df}e\r\nFrom here\r\n", "", "a\rb\r\n\r\n\r\n"];
    for letter in letters {
        let content = format!("Subject: letter\r\n\r\n{letter}");
        for to in ["ann", "bob"] {
            let reply = client.send("eve@far.test", &[&format!("{to}@{HERE}")], &content);
            assert!(reply.starts_with("250"), "{reply}");
        }
    }
    house.resident("ann").wait_for_mail(letters.len());
    let sorted = bob.wait_for_mail(letters.len());
    assert!(
        sorted
            .iter()
            .all(|letter| letter.contains("Delivered-To: bob@") && letter.contains("Subject: letter\n"))
    );
    let ours = fetched(house.pop3, "ann");
    assert_eq!(ours.len(), letters.len());
    let Some(dovecot) = Dovecot::start(&house, "ann") else { return };
    assert_eq!(fetched(dovecot.address, "ann"), ours);
    drop(dovecot);
    house.terminate();
}
