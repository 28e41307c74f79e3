use super::*;
use crate::failure::Severity;
use crate::instructions::search::tests::FakeHome;
use proptest::prelude::*;

pub(crate) fn delivery<'a>(dash: &'a str, extension: &'a str) -> Delivery<'a> {
    Delivery {
        user: "ann",
        home: "/home/ann",
        local: "ann-list",
        dash,
        extension,
        host: "mail.example.org",
        sender: "bob@example.net",
        default_delivery: b"./Mailbox",
    }
}

fn steps(file: &str) -> Vec<Step> {
    let home = FakeHome::with(&[(".qmail", file)]);
    plan(&home, Distrust::World, &delivery("", "")).unwrap().steps
}

#[test]
fn without_instructions_or_with_an_empty_file_the_default_delivery_is_made() {
    let mailbox = [Step::Mbox(b"./Mailbox".into())];
    assert_eq!(plan(&FakeHome::with(&[]), Distrust::World, &delivery("", "")).unwrap().steps, mailbox);
    assert_eq!(steps(""), mailbox);
    // Even if it says that only addresses may follow: nothing follows.
    let home = FakeHome::with(&[(".qmail", "")]).mode_of(".qmail", 0o744);
    assert_eq!(plan(&home, Distrust::World, &delivery("", "")).unwrap().steps, mailbox);
    assert_eq!(steps("# away\n"), []);
}

#[test]
fn an_extension_without_instructions_is_no_mailbox() {
    let refused =
        plan(&FakeHome::with(&[(".qmail", "./x")]), Distrust::World, &delivery("-", "a")).unwrap_err();
    assert_eq!(refused, Failure::hard("Sorry, no mailbox here by that name. (#5.1.1)"));
}

#[test]
fn a_file_for_addresses_only_ends_at_its_first_other_line() {
    let home = FakeHome::with(&[(".qmail", "&a@x.test\n|prog\n&b@x.test\n")]).mode_of(".qmail", 0o744);
    let found = plan(&home, Distrust::World, &delivery("", "")).unwrap().steps;
    let refused = Step::Refuse(Failure::soft("Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)"));
    assert_eq!(found, [Step::Forward(b"a@x.test".into()), refused]);
    let refused = Step::Refuse(Failure::soft("Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)"));
    assert_eq!(steps("./ok\n+list\n./bad/\n"), [Step::Mbox(b"./ok".into()), refused]);
}

/// Carries a file out; each action's outcome is the next of `outcomes`, then all goes well.
fn carried_out(file: &str, outcomes: Vec<Result<Next, Failure>>) -> (Vec<Action>, Result<Counts, Failure>) {
    let home = FakeHome::with(&[(".qmail", file)]);
    let mut course = Course::new(plan(&home, Distrust::World, &delivery("", "")).unwrap());
    let mut outcomes = outcomes.into_iter();
    let mut done = Vec::new();
    while let Some(action) = course.poll_action() {
        done.push(action);
        course.handle_outcome(outcomes.next().unwrap_or(Ok(Next::GoOn)));
    }
    (done, course.finish())
}

#[test]
fn addresses_come_after_all_else() {
    let (done, result) = carried_out("&a@x.test\n|one\n./Maildir/\nb@x.test\n|two\n", vec![]);
    let want = [
        Action::Program(b"one".into()),
        Action::Maildir(b"./Maildir/".into()),
        Action::Program(b"two".into()),
        Action::Forward(vec![b"a@x.test".into(), b"b@x.test".into()]),
    ];
    assert_eq!(done, want);
    assert_eq!(result.unwrap().to_string(), "did 1+2+2");
}

#[test]
fn exit_99_ends_it_and_sends_to_the_addresses_before_it() {
    let (done, result) = carried_out("&a@x.test\n|one\n./Mailbox\n&b@x.test\n", vec![Ok(Next::Stop)]);
    assert_eq!(done, [Action::Program(b"one".into()), Action::Forward(vec![b"a@x.test".into()])]);
    assert_eq!(result.unwrap().to_string(), "did 0+1+1");
}

#[test]
fn the_first_failure_ends_it_and_nothing_is_forwarded() {
    let soft = Failure::soft("Aack, child crashed. (#4.3.0)");
    let (done, result) =
        carried_out("&a@x.test\n./one\n|two\n./three\n", vec![Ok(Next::GoOn), Err(soft.clone())]);
    assert_eq!(done, [Action::Mbox(b"./one".into()), Action::Program(b"two".into())]);
    assert_eq!(result, Err(soft));
    let (done, result) = carried_out("&a@x.test\n+list\n./one\n", vec![]);
    assert!(done.is_empty() && result.is_err());
}

#[test]
fn top_lines_are_one_line_each_whatever_the_addresses_are() {
    let odd = Delivery { sender: "a b\n@x.test", local: "l\nBcc: x", ..delivery("", "") };
    let lines = odd.top_lines(UnixMillis(0));
    assert_eq!(lines.from_line, "From a-b-@x.test Thu Jan 01 00:00:00 1970\n");
    assert_eq!(lines.return_path, "Return-Path: <\"a b\\_\"@x.test>\n");
    assert_eq!(lines.delivered_to, "Delivered-To: l_Bcc: x@mail.example.org\n");
    let null = Delivery { sender: "", ..delivery("", "") }.top_lines(UnixMillis(0));
    assert!(null.from_line.starts_with("From MAILER-DAEMON Thu") && null.return_path == "Return-Path: <>\n");
}

#[test]
fn an_explanation_says_what_would_be_done() {
    let home = FakeHome::with(&[
        (".qmail-list-default", "|prog \u{1b}[1m\n&a@x.test\n./Maildir/\n"),
        (".qmail-list-x-owner", "#"),
    ]);
    let text = explain(&home, Distrust::World, &delivery("-", "list-X")).unwrap();
    let want = "instructions .qmail-list-default\ndefault X\nsender ann-list-owner@mail.example.org\n\
                program prog _[1m\nforward a@x.test\nmaildir ./Maildir/\ndid 1+1+1\n";
    assert_eq!(text, want);
    let sticky = FakeHome { mode: 0o1755, files: vec![] };
    let text = explain(&sticky, Distrust::World, &delivery("", "")).unwrap();
    assert!(text.starts_with("warning: home directory is sticky"), "{text}");
    assert!(text.contains("instructions none, the default delivery\nmbox ./Mailbox\n"), "{text}");
    assert!(plan(&sticky, Distrust::World, &delivery("", "")).is_err());
    let writable = FakeHome { mode: 0o1777, files: vec![] };
    assert!(explain(&writable, Distrust::World, &delivery("", "")).is_err());
}

proptest! {
    #[test]
    fn lines_hold_no_other_line(sender in "\\PC{0,20}|[ \n\t\"@a]{0,12}", local in "\\PC{0,20}|[\na]{0,5}") {
        let odd = Delivery { sender: &sender, local: &local, ..delivery("", "") };
        let TopLines { from_line, return_path, delivered_to } = odd.top_lines(UnixMillis(0));
        for line in [from_line, return_path, delivered_to] {
            prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        }
    }

    #[test]
    fn a_plan_is_made_of_any_file(content in "([#|&+./ a-z]{0,4}(list)?\n?){0,6}", is_list: bool) {
        let mode = if is_list { 0o744 } else { 0o644 };
        let home = FakeHome::with(&[(".qmail", content.as_str())]).mode_of(".qmail", mode);
        match plan(&home, Distrust::World, &delivery("", "")) {
            Ok(plan) => {
                let mut course = Course::new(plan);
                while course.poll_action().is_some() {
                    course.handle_outcome(Ok(Next::GoOn));
                }
                let _ = course.finish();
            }
            Err(failure) => prop_assert_eq!(failure.severity, Severity::Soft),
        }
    }
}
