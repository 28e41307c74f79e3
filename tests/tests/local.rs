//! Mail for this machine's mailboxes, by the programs that `.qmail` files know: real files, real programs, and a real
//! daemon that takes what is forwarded.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use tests::process::home::{Home, MESSAGE, Office, RUN_MAX, assert_told, ringpost, run, told};
use tests::process::{Setup, peer, programs, setup, wait};

#[test]
fn every_kind_of_line_is_followed_and_addresses_come_last() {
    let office = Office::open();
    let program = "|cat > seen; env | sort > vars; echo told";
    let home = Home::new().maildir("Maildir").with(
        ".qmail-list-default",
        &format!("# comment\n&cy@example.com\n./Mailbox\n./Maildir/\n{program}\ndee@example.com\n"),
    );
    let output = run(office.furnish(&mut home.local(&[], "list-X.y")), MESSAGE);
    assert_told(&output, 0, "told\ndid 2+2+1\n", "");
    let top = "Return-Path: <bob@example.net>\nDelivered-To: ann-list-X.y@mail.example.org\n";
    assert_eq!(home.new_in("Maildir"), [format!("{top}{MESSAGE}")]);
    let mbox = home.read("Mailbox");
    let (from, rest) = mbox.split_once('\n').expect("a From line");
    assert!(
        from.starts_with("From bob@example.net ") && from.len() == "From bob@example.net ".len() + 24,
        "{from}"
    );
    assert_eq!(rest, format!("{top}{}\n", MESSAGE.replace("From me", ">From me")));
    assert_eq!(home.read("seen"), MESSAGE);
    let vars = home.read("vars");
    for line in [
        "DEFAULT=X.y",
        "EXT=list-X.y",
        "EXT2=X.y",
        "EXT3=",
        "HOST=mail.example.org",
        "HOST2=mail.example",
        "HOST3=mail",
        "LOCAL=ann-list-X.y",
        "NEWSENDER=bob@example.net",
        "RECIPIENT=ann-list-X.y@mail.example.org",
        "SENDER=bob@example.net",
        "USER=ann",
        "DTLINE=Delivered-To: ann-list-X.y@mail.example.org",
        "RPLINE=Return-Path: <bob@example.net>",
    ] {
        assert!(vars.lines().any(|found| found == line), "{line} is not in\n{vars}");
    }
    // Of our own environment: where mail is sent on.
    let ours: Vec<&str> =
        vars.lines().filter(|line| line.contains("RINGPOST") || line.contains("CARGO")).collect();
    assert!(matches!(ours[..], [line] if line.starts_with("RINGPOST_SUBMIT=")), "{vars}");
    let (sender, recipients, content) = office.queued();
    assert_eq!(sender, "bob@example.net");
    assert_eq!(recipients, ["cy@example.com", "dee@example.com"]);
    let ours = "Delivered-To: ann-list-X.y@mail.example.org\r\nFrom: bob@example.net\r\nSubject: hi\r\n";
    assert!(content.contains(ours) && content.ends_with("\r\n\r\nFrom me\r\nto you\r\n"), "{content}");
}

#[test]
fn a_list_with_owners_is_sent_with_a_sender_for_each_recipient() {
    let office = Office::open();
    let home = Home::new()
        .with(".qmail-list", "&cy@example.com\n&dee@example.com\n")
        .with(".qmail-list-owner", "ann\n")
        .with(".qmail-list-owner-default", "ann\n");
    let output = run(office.furnish(&mut home.local(&[], "list")), MESSAGE);
    assert_told(&output, 0, "did 0+2+0\n", "");
    let (sender, recipients, _) = office.queued();
    assert_eq!(sender, "ann-list-owner-@mail.example.org");
    assert_eq!(recipients.len(), 2);
}

#[test]
fn an_explanation_does_nothing() {
    let home = Home::new().with(".qmail", "|touch done\n&cy@example.com\n./Mailbox\n");
    let output = run(&mut home.local(&["-n"], ""), MESSAGE);
    let said = "instructions .qmail\nprogram touch done\nforward cy@example.com\nmbox ./Mailbox\ndid 1+1+1\n";
    assert_told(&output, 0, said, "");
    assert!(!home.has("done") && !home.has("Mailbox"));
}

#[test]
fn failures_are_told_in_qmails_words_and_codes() {
    let none = Home::new();
    assert_told(&none.deliver("x"), 100, "", "Sorry, no mailbox here by that name. (#5.1.1)\n");
    let default = Home::new();
    assert_told(&default.deliver(""), 0, "did 1+0+0\n", "");
    assert!(default.read("Mailbox").contains("Subject: hi\n"), "the default delivery");
    let looping = format!("Delivered-To: ann@mail.example.org\n{MESSAGE}");
    let words = "This message is looping: it already has my Delivered-To line. (#5.4.6)\n";
    assert_told(&run(&mut none.local(&[], ""), &looping), 100, "", words);
    let hard = Home::new().with(".qmail", "./Mailbox\n|echo No, thanks.; exit 77\n|touch never\n");
    assert_told(&hard.deliver(""), 100, "", "No, thanks.\n");
    assert!(hard.has("Mailbox") && !hard.has("never"));
    let stopped = Home::new().with(".qmail", "|exit 99\n|touch never\n");
    assert_told(&stopped.deliver(""), 0, "did 0+0+1\n", "");
    assert!(!stopped.has("never"));
    let soft = Home::new().with(".qmail", "./Maildir/\n");
    assert_told(&soft.deliver(""), 111, "", "Unable to chdir to maildir. (#4.2.1)\n");
    let blank = Home::new().with(".qmail", "\n./Mailbox\n");
    assert_told(&blank.deliver(""), 111, "", "Uh-oh: first line of .qmail file is blank. (#4.2.1)\n");
    let sticky = Home::new();
    std::fs::set_permissions(sticky.0.path(), Permissions::from_mode(0o1755)).expect("ours");
    let words = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n";
    assert_told(&sticky.deliver(""), 111, "", words);
    let open = Home::new().with(".qmail", "./Mailbox\n");
    std::fs::set_permissions(open.path(".qmail"), Permissions::from_mode(0o646)).expect("ours");
    assert_told(&open.deliver(""), 111, "", "Uh-oh: .qmail file is writable. (#4.7.0)\n");
    assert_eq!(told(&run(&mut ringpost(&["qmail-local", "ann"]), MESSAGE)).0, 100);
}

#[test]
fn without_a_daemon_what_is_to_be_forwarded_waits() {
    let home = Home::new().with(".qmail", "&cy@example.com\n");
    let output = run(home.local(&[], "").env("RINGPOST_SUBMIT", home.path("nobody.sock")), MESSAGE);
    let (code, _, said) = told(&output);
    assert!(code == 111 && said.starts_with("Unable to forward message: "), "{said}");
}

#[test]
fn a_message_by_a_pipe_is_read_as_often_as_it_is_needed() {
    let home = Home::new().with(".qmail", "|cat > one\n|cat > two\n");
    let mut child =
        home.local(&[], "").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(MESSAGE.as_bytes()).expect("it reads");
    assert!(wait::ends_within(&mut child, RUN_MAX).expect("it ends").success());
    assert_eq!((home.read("one"), home.read("two")), (MESSAGE.to_owned(), MESSAGE.to_owned()));
}

#[test]
fn programs_of_qmail_files_go_by_their_names() {
    let folder = setup::temporary_folder();
    let link = |name: &str| {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(programs::ringpost(), &path).expect("ours");
        path
    };
    let [except, bounce, preline] = ["except", "bouncesaying", "preline"].map(link);
    let run = |path: &Path, words: &[&str]| run(Command::new(path).args(words).env("LC_ALL", "C"), MESSAGE);
    assert_told(&run(&except, &["grep", "-q", "Subject: hi"]), 100, "", "");
    assert_told(&run(&except, &["grep", "-q", "Subject: no"]), 0, "", "");
    assert_told(&run(&except, &["sh", "-c", "exit 111"]), 111, "", "except: fatal: temporary child error\n");
    assert_told(&run(&except, &["/no such program"]), 0, "", "");
    assert_told(&run(&except, &[]), 100, "", "except: usage: except program [ arg ... ]\n");
    assert_told(&run(&bounce, &["Go away."]), 100, "", "Go away.\n");
    assert_told(&run(&bounce, &["Go away.", "grep", "-q", "Subject: no"]), 0, "", "");
    assert_told(&run(&bounce, &["Go away.", "grep", "-q", "Subject: hi"]), 100, "", "Go away.\n");
    assert_told(&run(&preline, &["cat"]), 100, "", "preline: usage: preline cmd [ arg ... ]\n");
    let home = Home::new()
        .with(".qmail", &format!("|{} -f sh -c 'cat > seen; exit 99'\n./never\n", preline.display()));
    assert_told(&home.deliver(""), 0, "did 0+0+1\n", "");
    let top = "Return-Path: <bob@example.net>\nDelivered-To: ann@mail.example.org\n";
    assert_eq!(home.read("seen"), format!("{top}{MESSAGE}"));
    assert!(!home.has("never"));
    let maildir = home.path("Maildir");
    wait::succeed(ringpost(&["maildirmake"]).arg(&maildir), RUN_MAX);
    let (code, _, said) = told(&wait::finish(ringpost(&["maildirmake"]).arg(&maildir), RUN_MAX));
    let words = format!("maildirmake: fatal: unable to mkdir {}: file exists\n", maildir.display());
    assert_eq!((code, said), (111, words));
}

#[test]
fn a_redirected_message_keeps_its_sender_and_ends_the_instructions() {
    let office = Office::open();
    let own = programs::ringpost();
    let line =
        |word: &str| format!("|{} condredirect cy@example.com grep -q 'Subject: {word}'\n", own.display());
    let home = Home::new().with(".qmail", &format!("{}./Mailbox\n{}./never\n", line("no"), line("hi")));
    // Programs find the daemon by its configuration; here they are told.
    let socket = office.0.setup.folder().join("submit.sock");
    let text = home.read(".qmail").replace('|', &format!("|RINGPOST_SUBMIT={} ", socket.display()));
    let home = home.with(".qmail", &text);
    let (code, _, said) = told(&home.deliver(""));
    assert_eq!(code, 0, "{said}");
    assert!(home.has("Mailbox") && !home.has("never"));
    let (sender, recipients, content) = office.queued();
    assert_eq!((sender.as_str(), &recipients[..]), ("bob@example.net", &["cy@example.com".to_owned()][..]));
    assert!(content.contains("Delivered-To: ann@mail.example.org\r\n"), "{content}");
}

#[test]
fn forward_and_qreceipt_send_as_qmails_do() {
    let variables = |command: &mut Command| {
        command
            .env("SENDER", "bob@example.net")
            .env("NEWSENDER", "ann-owner@mail.example.org")
            .env("DTLINE", "Delivered-To: ann@mail.example.org\n");
    };
    let office = Office::open();
    let mut forward = ringpost(&["forward", "cy@example.com"]);
    variables(office.furnish(&mut forward));
    let (code, _, said) = told(&run(&mut forward, MESSAGE));
    assert!(code == 0 && said.starts_with("forward: "), "{said}");
    assert_eq!(office.queued().0, "ann-owner@mail.example.org");

    let office = Office::open();
    let asking = format!(
        "Message-ID: <7@example.net>\nNotice-Requested-Upon-Delivery-To: ann@mail.example.org\n{MESSAGE}"
    );
    let mut receipt = ringpost(&["qreceipt", "ann@mail.example.org"]);
    variables(office.furnish(&mut receipt));
    assert_told(&run(&mut receipt, &asking), 0, "", "");
    let (sender, recipients, content) = office.queued();
    assert_eq!((sender.as_str(), &recipients[..]), ("", &["bob@example.net".to_owned()][..]));
    assert!(content.ends_with("Thanks for asking.\r\nYour Message-ID: <7@example.net>\r\n"), "{content}");
    let mut silent = ringpost(&["qreceipt", "else@mail.example.org"]);
    variables(&mut silent);
    assert_told(&run(&mut silent, &asking), 0, "", "");
}

/// A daemon that refuses a recipient.
fn strict_office() -> Office {
    let setup = Setup::new().relay("127.0.0.1:1".parse().expect("an address"));
    let socket = setup.folder().join("submit.sock").to_str().expect("a plain name").to_owned();
    Office(setup.with("submit", socket).with("access.bad_recipients", vec!["gone@example.com"]).start())
}

#[test]
fn who_is_refused_for_good_is_left_out_of_a_bounce_that_is_sent_on() {
    let office = strict_office();
    let home = Home::new()
        .with(".qmail", "&cy@example.com\n&bob@example..com\n&gone@example.com\n")
        .with(".qmail-none", "&bob@example..com\n&gone@example.com\n");
    let left_out = "bob@example..com: 553 5.1.3 the domain is empty or has an empty label\n\
                    gone@example.com: 550 5.7.1 Mail to this recipient is not taken here\n";
    // Nobody would get it: who wrote it hears of it.
    let (code, out, said) = told(&run(office.furnish(&mut home.local(&[], "none")), MESSAGE));
    assert_eq!((code, out.as_str()), (100, ""), "{said}");
    assert!(said.contains("bob@example..com: 553 5.1.3 "), "{said}");
    assert!(office.0.setup.queue_list().is_empty());
    // A bounce is no reason for another.
    let mut command = ringpost(&["qmail-local", "ann"]);
    command.arg(home.0.path()).args(["ann", "", "", "mail.example.org", "", "./Mailbox"]);
    assert_told(&run(office.furnish(&mut command), MESSAGE), 0, &format!("{left_out}did 0+3+0\n"), "");
    let (sender, recipients, _) = office.queued();
    assert_eq!((sender.as_str(), &recipients[..]), ("", &["cy@example.com".to_owned()][..]));
}

#[test]
fn who_is_refused_for_good_is_named_to_the_sender_by_a_bounce() {
    let office = strict_office();
    let mut forward = ringpost(&["forward", "cy@example.com", "bob@example..com", "gone@example.com"]);
    forward
        .env("NEWSENDER", "ann-owner@mail.example.org")
        .env("DTLINE", "Delivered-To: ann@mail.example.org\n");
    let (code, _, said) = told(&run(office.furnish(&mut forward), MESSAGE));
    assert!(code == 0 && said.lines().count() == 3, "{said}");
    assert!(said.starts_with("forward: bob@example..com: 553 5.1.3 "), "{said}");
    let list = office.0.setup.queue_list();
    let of = |sender: &str| {
        let row = list.iter().find(|row| row["sender"].as_str().unwrap_or_default() == sender);
        let id = row.unwrap_or_else(|| panic!("{list:#?}"))["id"].as_str().expect("an id");
        let content = wait::succeed(&mut office.0.setup.command(&["queue", "cat", id]), RUN_MAX).stdout;
        String::from_utf8(content).expect("these tests write UTF-8")
    };
    assert_eq!(list.len(), 2, "{list:#?}");
    assert!(of("ann-owner@mail.example.org").ends_with("\r\n\r\nFrom me\r\nto you\r\n"));
    let bounce = of("");
    for words in [
        "\r\nTo: <ann-owner@mail.example.org>\r\n",
        "\r\n\r\nHi. This is the ringpost program at ",
        "\r\n\r\n<bob@example..com>:\r\nthe domain is empty or has an empty label (#5.1.3)\r\n\r\n",
        "<gone@example.com>:\r\nMail to this recipient is not taken here (#5.7.1)\r\n\r\n---",
        "\r\nDelivered-To: ann@mail.example.org\r\nFrom: bob@example.net\r\n",
    ] {
        assert!(bounce.contains(words), "{words:?} is not in\n{bounce}");
    }
}

#[test]
fn who_has_no_host_gets_the_one_that_is_named_and_who_has_one_keeps_it() {
    let office = Office::open();
    let home = Home::new().with(".qmail", "&cy\n&dee@localhost\n|echo $RINGPOST_NO_AT_HOST > host\n");
    let mut local = home.local(&[], "");
    local.env("RINGPOST_NO_AT_HOST", "lists.example.org");
    assert_told(&run(office.furnish(&mut local), MESSAGE), 0, "did 0+2+1\n", "");
    assert_eq!(home.read("host"), "lists.example.org\n");
    assert_eq!(office.queued().1, ["cy@lists.example.org", "dee@localhost"]);
}

#[test]
fn who_said_biff_y_hears_of_mail_on_the_terminal_and_nobody_else() {
    let home = Home::new().with("letter", MESSAGE);
    let shown = |permissions: &str| {
        let mut script = peer("script")?;
        let (own, letter) = (programs::ringpost(), home.path("letter"));
        let bark = format!("chmod {permissions} $(tty); {} qbiff < {}", own.display(), letter.display());
        let variables = [("USER", "ann"), ("LOCAL", "ann-list"), ("SENDER", "bob@example.net")];
        // A terminal of its own, which prints what is written to it.
        script.args(["-q", "-e", "-c", &bark, "/dev/null"]).envs(variables).stdin(Stdio::null());
        Some(String::from_utf8_lossy(&wait::succeed(&mut script, RUN_MAX).stdout).into_owned())
    };
    let (Some(awake), Some(asleep)) = (shown("u+x"), shown("u-x")) else { return };
    // The terminal puts a CR before each LF.
    let words = "\x07*** TO <ann-list> FROM <bob@example.net>\r\r\n     hi/From me/to you/\r\r\n";
    assert!(awake.ends_with(words), "{awake:?}");
    assert!(!asleep.contains("***"), "{asleep:?}");
}

#[test]
fn a_qmail_directory_becomes_a_configuration_that_is_taken() {
    let folder = setup::temporary_folder();
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        std::fs::write(path, content).expect("ours");
    };
    put("control/me", "mx.example.org\n");
    put("control/rcpthosts", "example.org\n.example.net\n");
    put("control/smtproutes", ":smarthost.example.org\n");
    put("control/locals", "mx.example.org\n");
    put("control/virtualdomains", "lists.example.org:lists\nann@example.org:ann\n.uucp:alias-uucp\n");
    put("control/percenthack", "mx.example.org\n");
    put("control/defaultdelivery", "./Mailbox\n");
    put("control/envnoathost", "mx.example.org\n");
    put("control/badmailto", "x\n");
    put("users/assign", "=ann:ann:1000:1000:/home/ann:::\n.\n");
    put("alias/.qmail-postmaster", "ann\n");
    put("alias/.qmail-broken", "\nann\n");
    put("alias/.qmail-fax", "# by fax\n|/var/qmail/bin/forward ann\n|./rmail ann\n");
    let (code, toml, said) = told(&wait::finish(ringpost(&["import-qmail"]).arg(folder.path()), RUN_MAX));
    assert_eq!(code, 1, "{said}");
    for word in [
        "control/badmailto",
        ".qmail-broken: Uh-oh",
        "no account of this system has ",
        "control/locals: mx.example.org is not in control/rcpthosts",
        "control/virtualdomains: lists.example.org is not in control/rcpthosts",
        "control/virtualdomains: .uucp is not in control/rcpthosts",
        "alias/.qmail-fax: line 2: /var/qmail/bin/forward is qmail's: write forward",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(said.lines().count(), 7, "{said}");
    let file = folder.path().join("ringpost.toml");
    std::fs::write(&file, &toml).expect("ours");
    let checked = wait::finish(ringpost(&["check", "--config"]).arg(&file), RUN_MAX);
    let (code, in_force, said) = told(&checked);
    assert_eq!(code, 0, "{said}\n{toml}");
    let assign = format!("assign = \"{}\"", folder.path().join("users/assign").display());
    for word in [
        "smarthost.example.org",
        "submit = \"/run/ringpost/submit.sock\"",
        ".example.net",
        "locals = [\"mx.example.org\"]",
        "\"ann@example.org:ann\"",
        "\".uucp:alias-uucp\"",
        "percent_hack = [\"mx.example.org\"]",
        "default_delivery = \"./Mailbox\"",
        "alias_user = \"alias\"",
        "no_at_host = \"mx.example.org\"",
        &assign,
    ] {
        assert!(in_force.contains(word), "{word} is not in\n{in_force}");
    }
    put("users/assign", "=ann:ann:1000\n.\n");
    let (code, _, said) = told(&wait::finish(ringpost(&["import-qmail"]).arg(folder.path()), RUN_MAX));
    assert!(code == 78 && said.contains("users/assign: line 1: "), "{said}");
}
