//! Tables of aliases, `.forward` files and UUCP: real files, real programs called from `.qmail` files, and a real daemon that
//! takes what is forwarded.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output};
use tests::process::home::{Home, MESSAGE, Office, RUN_MAX, assert_told, ringpost, run, told};
use tests::process::house::HERE;
use tests::process::{Plan, programs, wait};

const SORRY: &str = "Sorry, no mailbox here by that name. (#5.1.1)\n";

/// What stands before `MESSAGE` where a program or a file wants the lines of an mbox.
const TRACE: &str = "Return-Path: <bob@example.net>\nDelivered-To: ann-joe@mail.example.org\n";

/// A home in whose `bin` our programs go by their names.
fn home_with_programs() -> Home {
    let home = Home::new();
    std::fs::create_dir(home.path("bin")).expect("ours");
    for name in ["fastforward", "dot-forward", "preline", "newaliases", "setforward", "printforward"] {
        symlink(programs::ringpost(), home.path("bin").join(name)).expect("ours");
    }
    home
}

/// So that `.qmail` files find them.
fn with_path<'a>(home: &Home, command: &'a mut Command) -> &'a mut Command {
    let usual = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{usual}", home.path("bin").display()))
}

fn program(home: &Home, name: &str) -> Command {
    let mut command = Command::new(home.path("bin").join(name));
    command.env_remove("RINGPOST_SUBMIT");
    command
}

fn newaliases(home: &Home) -> Output {
    let config = home.path("ringpost.toml");
    std::fs::write(&config, "host_name = \"mail.example.org\"\nqueue = \"q\"\n").expect("ours");
    let mut command = program(home, "newaliases");
    command.arg("--file").arg(home.path("aliases")).arg("--database").arg(home.path("aliases.cdb"));
    wait::finish(command.arg("--config").arg(config), RUN_MAX)
}

/// A home with a database of these aliases, whose `.qmail-default` asks it.
fn home_with_aliases(options: &str, aliases: &str) -> Home {
    let home = home_with_programs().with("aliases", aliases);
    let made = newaliases(&home);
    assert!(made.status.success(), "{made:?}");
    home.with(".qmail-default", &format!("|fastforward {options} aliases.cdb\n"))
}

fn deliver(home: &Home, office: Option<&Office>, extension: &str) -> Output {
    let mut command = home.local(&[], extension);
    if let Some(office) = office {
        office.furnish(&mut command);
    }
    run(with_path(home, &mut command), MESSAGE)
}

/// What `fastforward -n` says of a recipient, and its code.
fn explained(home: &Home, recipient: &str) -> (i32, String) {
    let mut command = program(home, "fastforward");
    command.arg("-n").arg(home.path("aliases.cdb"));
    let (code, _, said) = told(&run(command.env("RECIPIENT", recipient).env("SENDER", "s@x.test"), MESSAGE));
    (code, said)
}

// ---- newaliases ----

#[test]
fn a_table_becomes_a_database_that_everybody_may_read() {
    let home =
        home_with_programs().with("aliases", "# ours\nroot: ann\nlist: root,\n  bob@x.test\nROOT: eve\n");
    let script = format!(
        "umask 077; exec newaliases --file={0}/aliases --database={0}/aliases.cdb",
        home.path("").display()
    );
    let made = wait::finish(with_path(&home, Command::new("/bin/sh").args(["-c", &script])), RUN_MAX);
    let (code, out, said) = told(&made);
    assert_eq!((code, out.as_str()), (0, "2 addresses\n"), "{said}");
    assert!(said.ends_with("line 5: \"root\" is an alias already; the first counts\n"), "{said}");
    let about = std::fs::metadata(home.path("aliases.cdb")).expect("it was made");
    assert_eq!(about.permissions().mode() & 0o777, 0o644);
    let names = std::fs::read_dir(home.path("")).expect("ours").count();
    assert_eq!(names, 3, "bin, aliases and aliases.cdb: nothing else is left");
    let said = explained(&home, "list@far.test").1;
    assert!(
        said.starts_with("from <s@x.test>\nto <root@") && said.ends_with("\nto <bob@x.test>\n"),
        "{said}"
    );
}

#[test]
fn a_wrong_table_leaves_the_database_as_it_was() {
    let home = home_with_aliases("", "joe: ann@x.test\n");
    let before = std::fs::read(home.path("aliases.cdb")).expect("it was made");
    let home = home.with("aliases", "joe: bob@x.test\n\nno colon here\n");
    let (code, out, said) = told(&newaliases(&home));
    assert_eq!((code, out.as_str()), (65, ""), "{said}");
    assert!(
        said.contains("aliases: line 3: an alias is name: member") && said.contains("stays as it was"),
        "{said}"
    );
    assert_eq!(std::fs::read(home.path("aliases.cdb")).expect("it stays"), before);
    std::fs::remove_file(home.path("aliases")).expect("ours");
    assert_eq!(told(&newaliases(&home)).0, 66);
    std::fs::write(home.path("aliases"), "joe: bob@x.test\n").expect("ours");
    let mut command = program(&home, "newaliases");
    command.arg("--file").arg(home.path("aliases")).arg("--database").arg(home.path("none/aliases.cdb"));
    assert_eq!(told(&wait::finish(&mut command, RUN_MAX)).0, 73);
    assert_eq!(told(&wait::finish(program(&home, "newaliases").arg("--no-such"), RUN_MAX)).0, 64);
}

#[test]
fn look_ups_go_on_while_the_database_is_rebuilt() {
    const ROUNDS: usize = 25;
    let home = home_with_aliases("", "joe: old@x.test\n");
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for _ in 0..3 {
            readers.push(scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let (code, said) = explained(&home, "joe@x.test");
                    let told = ["old", "new"].map(|name| format!("from <s@x.test>\nto <{name}@x.test>\n"));
                    assert!(code == 0 && told.contains(&said), "{code}: {said}");
                }
            }));
        }
        // Tables of many lines, so that writing one takes its time.
        let filling: String = (0..20_000).map(|number| format!("user{number}: ann@x.test\n")).collect();
        let mut count = 0;
        while count < 4 || readers.iter().any(|reader| !reader.is_finished()) {
            let name = if count % 2 == 0 { "new" } else { "old" };
            std::fs::write(home.path("aliases"), format!("{filling}joe: {name}@x.test\n")).expect("ours");
            assert_told(&newaliases(&home), 0, "20001 addresses\n", "");
            count += 1;
        }
    });
}

// ---- fastforward ----

#[test]
fn an_alias_is_forwarded_run_and_filed_from_its_owner() {
    let office = Office::open();
    let home = home_with_aliases(
        "-d",
        "joe: cy@example.com, inner, :include:list, \"|cat > seen; echo told\", box, /dev/null\n\
         owner-joe: ann@x.test\ninner@mail.example.org: dee@example.com\nbox@mail.example.org: HOME/box, HOME/Maildir/\n",
    );
    let table = home
        .read("aliases")
        .replace("HOME", home.path("").to_str().expect("a plain name").trim_end_matches('/'));
    let home = home
        .with("aliases", &table)
        .with("list", "# all\neve@example.com, cy@example.com\n")
        .maildir("Maildir");
    assert!(newaliases(&home).status.success());
    let (code, out, said) = told(&deliver(&home, Some(&office), "joe"));
    assert!(code == 0 && out.starts_with("told\nfastforward: "), "{code}: {out}{said}");
    let (sender, recipients, content) = office.queued();
    assert_eq!(sender, "owner-joe@mail.example.org");
    assert_eq!(recipients, ["cy@example.com", "dee@example.com", "eve@example.com"]);
    assert!(
        content.contains("Delivered-To: ann-joe@mail.example.org\r\nFrom: bob@example.net\r\n"),
        "{content}"
    );
    for name in ["seen", "box"] {
        let file = home.read(name);
        let (from, rest) = file.split_once('\n').expect("a From line");
        assert!(from.starts_with("From bob@example.net "), "{name}: {from}");
        assert!(rest.starts_with(&format!("{TRACE}From: bob@example.net\n")), "{name}: {rest}");
    }
    assert_eq!(home.new_in("Maildir"), [format!("{TRACE}{MESSAGE}")]);
}

#[test]
fn who_has_no_alias_gets_qmails_words_or_the_rest_of_the_instructions() {
    let home = home_with_aliases("-d", "joe: |cat > seen\n@all.test: |true\n");
    assert_told(&deliver(&home, None, "eve"), 100, "", SORRY);
    assert_told(&deliver(&home, None, "joe"), 0, "did 0+0+1\n", "");
    let home = home.with(".qmail-default", "|fastforward -pd aliases.cdb\n./Mailbox\n");
    assert_told(&deliver(&home, None, "joe"), 0, "did 0+0+1\n", "");
    assert!(!home.has("Mailbox"), "99 ends the instructions");
    assert_told(&deliver(&home, None, "eve"), 0, "did 1+0+1\n", "");
    assert!(home.read("Mailbox").contains("Subject: hi\n"));
    // An alias that is itself too keeps a copy where there is a place for one, and is nobody's where there is none.
    let own = home_with_aliases("-d", "joe: \\joe\nann: \\ann, |cat > seen\n");
    assert_told(&deliver(&own, None, "joe"), 100, "", SORRY);
    assert_told(&deliver(&own, None, "ann"), 0, "did 0+0+1\n", "");
    let own = own.with(".qmail-default", "|fastforward -pd aliases.cdb\n./Mailbox\n");
    assert_told(&deliver(&own, None, "joe"), 0, "did 1+0+1\n", "");
}

#[test]
fn whole_addresses_come_before_domains_and_those_before_names() {
    let home = home_with_aliases("", "joe: a@x.test\njoe@one.test: b@x.test\n@one.test: c@x.test\n");
    let to = |recipient: &str| explained(&home, recipient).1.replace("from <s@x.test>\nto ", "");
    assert_eq!(to("JOE@one.test"), "<b@x.test>\n");
    assert_eq!(to("eve@One.test"), "<c@x.test>\n");
    assert_eq!(to("joe@two.test"), "<a@x.test>\n");
    assert_eq!(explained(&home, "eve@two.test"), (100, SORRY.to_owned()));
}

#[test]
fn what_goes_wrong_with_an_alias_has_qmails_codes() {
    let home = home_with_aliases(
        "-d",
        "hard: |echo No; exit 77\nsoft: |exit 1\ngone: :include:/no/list\nfar: x@x.test\n\
                                         stop: |exit 99\ndead: |kill -9 $$\n",
    );
    assert_told(&deliver(&home, None, "hard"), 100, "", "No\n");
    assert_eq!(told(&deliver(&home, None, "soft")).0, 111);
    let words = "fastforward: fatal: unable to read /no/list: no such file or directory. (#4.3.0)\n";
    assert_told(&deliver(&home, None, "gone"), 111, "", words);
    let (code, _, said) = told(&deliver(&home, None, "dead"));
    assert!(code == 111 && said.contains("child crashed in kill"), "{said}");
    assert_told(&deliver(&home, None, "stop"), 0, "did 0+0+1\n", "");
    // No daemon is there that would take it.
    let mut command = home.local(&[], "far");
    command.env("RINGPOST_SUBMIT", home.path("nobody.sock"));
    let (code, _, said) = told(&run(with_path(&home, &mut command), MESSAGE));
    assert!(code == 111 && said.starts_with("fastforward: fatal: unable to forward message: "), "{said}");
    std::fs::set_permissions(home.path("aliases.cdb"), Permissions::from_mode(0o666)).expect("ours");
    let (code, said) = explained(&home, "joe@x.test");
    assert!(code == 111 && said.ends_with("aliases.cdb: everybody may write to it\n"), "{said}");
    std::fs::write(home.path("aliases.cdb"), "cut off").expect("ours");
    std::fs::set_permissions(home.path("aliases.cdb"), Permissions::from_mode(0o644)).expect("ours");
    let (code, said) = explained(&home, "joe@x.test");
    assert!(code == 111 && said.contains("unable to read the database"), "{said}");
    assert_eq!(told(&run(&mut program(&home, "fastforward"), MESSAGE)).0, 100);
}

#[test]
fn one_wrong_member_costs_nobody_else_the_message() {
    let office = Office::open();
    let home = home_with_aliases("-d", "joe: cy@example.com, bob@example..com, dee@localhost, eve\n");
    let (code, out, said) = told(&deliver(&home, Some(&office), "joe"));
    assert!(code == 0 && out.starts_with("fastforward: bob@example..com: 553 5.1.3 "), "{code}: {out}{said}");
    let list = office.0.setup.queue_list();
    assert_eq!(list.len(), 2, "a bounce to the sender, and the message: {list:#?}");
    let counts: BTreeSet<(String, u64)> = list
        .iter()
        .map(|row| {
            let sender = row["sender"].as_str().unwrap_or_default().to_owned();
            (sender, row["recipients"].as_u64().unwrap_or_default())
        })
        .collect();
    assert_eq!(counts, BTreeSet::from([(String::new(), 1), ("bob@example.net".to_owned(), 3)]), "{list:#?}");
}

#[test]
fn members_without_a_host_get_the_configured_one_and_others_keep_theirs() {
    let home = home_with_programs().with("aliases", "joe: bob, cy@localhost\nowner-joe: ann\n").with(
        "ringpost.toml",
        "host_name = \"mail.example.org\"\nqueue = \"q\"\n[local]\nno_at_host = \"lists.example.org\"\n\
         [compose]\ndefault_domain = \"example.net\"\n",
    );
    let mut command = program(&home, "newaliases");
    command.arg("--file").arg(home.path("aliases")).arg("--database").arg(home.path("aliases.cdb"));
    let made = wait::finish(command.arg("--config").arg(home.path("ringpost.toml")), RUN_MAX);
    assert!(made.status.success(), "{made:?}");
    let said = "from <owner-joe@lists.example.org>\nto <bob@lists.example.org>\nto <cy@localhost>\n";
    assert_eq!(explained(&home, "joe@any.test"), (0, said.to_owned()));
}

// ---- setforward, printforward ----

#[test]
fn instructions_become_a_database_and_come_out_again() {
    let home = home_with_programs();
    let set = |text: &str| {
        let mut command = program(&home, "setforward");
        run(command.arg(home.path("aliases.cdb")).arg(home.path("aliases.tmp")), text)
    };
    assert_told(
        &set("# people\njoe@: ann@x.test, |prog\\ -a;\njoe@: ?owner@x.test; @a.test: /l/all;\n"),
        0,
        "",
        "",
    );
    let printed = told(&run(&mut program(&home, "printforward"), "")).0;
    assert_eq!(printed, 111, "an empty file is no database");
    let mut print = program(&home, "printforward");
    let octets = std::fs::File::open(home.path("aliases.cdb")).expect("it was made");
    let shown = wait::finish_with(&mut print, octets.into(), RUN_MAX);
    let text = "joe@: &ann@x.test, |prog\\ -a;\njoe@: ?owner@x.test;\n@a.test: /l/all;\n";
    assert_told(&shown, 0, text, "");
    let said = "run |prog -a\nfrom <owner@x.test>\nto <ann@x.test>\n";
    assert_eq!(explained(&home, "joe@any.test"), (0, said.to_owned()));
    let (code, _, said) = told(&set("joe@: eve@x.test;\n\njoe2@: bob"));
    assert!(
        code == 100
            && said.starts_with("setforward: fatal: line 3: final instruction must end with semicolon"),
        "{said}"
    );
    assert_eq!(explained(&home, "joe@any.test").0, 0, "the old one is in use");
    assert!(!home.has("aliases.tmp"));
    assert_eq!(told(&run(program(&home, "setforward").arg("x.cdb"), "")).0, 100);
}

// ---- dot-forward ----

#[test]
fn a_forward_file_is_followed_instead_of_the_instructions_behind_it() {
    let office = Office::open();
    let home = home_with_programs().with(".qmail", "|dot-forward .forward\n./Mailbox\n").with(
        ".forward",
        "# away\ncy@example.com, \"|cat > seen\"\nDee <dee@example.com>\n:include:list\nHOME/box\n",
    );
    let text = home
        .read(".forward")
        .replace("HOME", home.path("").to_str().expect("a plain name").trim_end_matches('/'));
    let home = home.with(".forward", &text).with("list", "eve@example.com\n");
    let list = home.path("list");
    std::fs::set_permissions(&list, Permissions::from_mode(0o644)).expect("ours");
    let (code, out, said) = told(&deliver(&home, Some(&office), ""));
    assert!(
        code == 0 && out.starts_with("dot-forward: ") && out.ends_with("did 0+0+1\n"),
        "{code}: {out}{said}"
    );
    let (sender, recipients, content) = office.queued();
    assert_eq!(sender, "bob@example.net");
    assert_eq!(recipients, ["cy@example.com", "dee@example.com", "eve@example.com"]);
    assert!(content.contains("Delivered-To: ann@mail.example.org\r\n"), "{content}");
    let trace = "Return-Path: <bob@example.net>\nDelivered-To: ann@mail.example.org\nFrom: bob@example.net\n";
    assert!(home.read("seen").contains(trace) && home.read("box").contains(trace));
    assert!(!home.has("Mailbox"));
}

#[test]
fn without_a_forward_file_or_with_a_copy_to_oneself_the_instructions_go_on() {
    let home = home_with_programs().with(".qmail", "|dot-forward .none .forward\n./Mailbox\n");
    let delivered = |home: &Home, counts: &str| {
        assert_told(&deliver(home, None, ""), 0, &format!("did {counts}\n"), "");
    };
    delivered(&home, "1+0+1");
    let home = home.with(".forward", "# nothing\n\n");
    delivered(&home, "1+0+1");
    let home = home.with(".forward", "\\ann, \"|cat > seen\"\n");
    delivered(&home, "1+0+1");
    assert!(home.has("seen"));
    let home = home.with(".none", "/dev/null\n");
    delivered(&home, "0+0+1");
    let mut explain = program(&home, "dot-forward");
    explain.args(["-n", ".forward"]).env("USER", "ann").current_dir(home.path(""));
    assert_told(&run(&mut explain, MESSAGE), 0, "", "pipe through cat > seen\ndirect delivery\n");
    let home = home.with(".none", "bob\n\"eve\n");
    let words = "dot-forward: fatal: .none: line 2: a quote, comment or bracket does not end\n";
    assert_told(&deliver(&home, None, ""), 111, "", words);
    std::fs::set_permissions(home.path(".none"), Permissions::from_mode(0o646)).expect("ours");
    let words = "dot-forward: fatal: unable to read .none: everybody may write to it\n";
    assert_told(&deliver(&home, None, ""), 111, "", words);
    assert_eq!(told(&run(&mut program(&home, "dot-forward"), MESSAGE)).0, 100, "NEWSENDER is not set");
}

// ---- UUCP ----

/// Stands in for uux: its arguments, one a line, and what it reads.
const UUX: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$HOME/arguments\"\ncat > \"$HOME/content\"\n";

#[test]
fn a_message_for_a_uucp_host_is_handed_to_uux() {
    // `.uucp:alias-uucp` makes b!user@host.uucp the local part alias-uucp-b!user.
    let line = "|preline -df uux - -r -gC -a\"$SENDER\" $HOST!rmail \"($DEFAULT)\"\n";
    let home = home_with_programs().with(".qmail-uucp-default", line).with("bin/uux", UUX);
    std::fs::set_permissions(home.path("bin/uux"), Permissions::from_mode(0o755)).expect("ours");
    let deliver = |home: &Home, sender: &str| {
        let mut command = ringpost(&["qmail-local", "alias"]);
        command.arg(home.path("")).args([
            "alias-uucp-b!User",
            "-",
            "uucp-b!User",
            "host.uucp",
            sender,
            "./Mailbox",
        ]);
        run(with_path(home, &mut command), MESSAGE)
    };
    assert_told(&deliver(&home, "bob@example.net"), 0, "did 0+0+1\n", "");
    assert_eq!(home.read("arguments"), "-\n-r\n-gC\n-abob@example.net\nhost.uucp!rmail\n(b!User)\n");
    // -d and -f: neither Delivered-To nor a From line; the Return-Path stays.
    assert_eq!(home.read("content"), format!("Return-Path: <bob@example.net>\n{MESSAGE}"));
    let home =
        home.with(".qmail-uucp-default", &line.replace("-df", "-d -f -r").replace("$HOST!", "$HOST2!"));
    assert_told(&deliver(&home, "$(touch never)"), 0, "did 0+0+1\n", "");
    assert_eq!(home.read("arguments"), "-\n-r\n-gC\n-a$(touch never)\nhost!rmail\n(b!User)\n");
    assert_eq!(home.read("content"), MESSAGE);
    assert!(!home.has("never"));
}

// ---- all the way ----

#[test]
fn aliases_and_bang_paths_are_followed_on_the_way_from_smtp() {
    let mut plan = Plan::new(&["alias", "ann"]).with("local.virtual_domains", vec![".uucp:alias-uucp"]);
    plan.setup.set("access.bang_paths", true);
    let alias = plan.resident("alias").clone();
    programs::place_ringpost(&alias.home.join("fastforward"));
    alias.write("aliases", &format!("list: ann@{HERE}, \"|echo $SENDER > ran\"\nowner-list: ann@{HERE}\n"));
    let table = alias.home.join("aliases");
    wait::succeed(ringpost(&["newaliases", "--file"]).arg(&table), RUN_MAX);
    alias.write(".qmail-default", "|./fastforward -d aliases.cdb\n");
    alias.write(".qmail-uucp-default", "|echo \"$DEFAULT $HOST\" > uux\n");
    let house = plan.start();
    let mut client = house.client();
    for to in ["list", "a!b!User"] {
        client.deliver("eve@far.test", &[&format!("{to}@{HERE}")]);
    }
    let letter = house.resident("ann").wait_for_mail(1).remove(0);
    assert!(letter.starts_with("Return-Path: <owner-list@"), "{letter}");
    assert!(letter.contains(&format!("\nDelivered-To: list@{HERE}\n")), "{letter}");
    house.wait_until_empty();
    assert_eq!((alias.read("ran"), alias.read("uux")), ("eve@far.test\n".into(), "b!User a.uucp\n".into()));
    house.terminate();
}
