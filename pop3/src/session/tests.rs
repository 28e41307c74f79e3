use super::*;
use crate::maildrop::{Entry, Folder};
use crate::output::Login;
use crate::{Limits, Unreadable};

fn session(now: Instant, arrival: Arrival) -> Session {
    let policy =
        Policy { limits: Limits::default(), tls_use: TlsUse::Offer, plain_logins: false, idle_secs: 600 };
    Session::new(now, Arc::new(policy), arrival)
}

fn local() -> Arrival {
    Arrival { is_local: true, is_encrypted: false, stamp: None }
}

fn said(session: &mut Session) -> String {
    let mut out = Vec::new();
    while session.take_replies(&mut out) {}
    String::from_utf8(out).unwrap()
}

/// Logged in, with so many messages of 7 octets.
fn opened(now: Instant, count: usize) -> Session {
    let mut session = session(now, local());
    session.handle_bytes(now, b"USER ann\r\nPASS secret\r\n");
    assert!(matches!(session.poll_output(), Some(Output::Check(_))));
    session.handle_login(now, Login::Right);
    assert!(matches!(session.poll_output(), Some(Output::Open(user)) if *user == *"ann"));
    let entry = |index| Entry { folder: Folder::New, name: format!("{index}.a").into_bytes().into() };
    session.handle_maildrop(now, Ok(Maildrop::new((0..count).map(|index| (entry(index), 7)))));
    said(&mut session);
    session
}

#[test]
fn a_long_list_is_said_in_pieces_and_holds_up_what_follows() {
    let now = Instant::now();
    let mut session = opened(now, 50_000);
    assert_eq!(session.handle_bytes(now, b"LIST\r\nNOOP\r\n"), 6);
    let (mut pieces, mut all) = (0, Vec::new());
    loop {
        let mut piece = Vec::new();
        if !session.take_replies(&mut piece) {
            break;
        }
        assert!(piece.len() < (16 << 10) + 40);
        pieces += 1;
        all.append(&mut piece);
    }
    assert!(pieces > 10 && all.ends_with(b"\r\n50000 7\r\n.\r\n"));
    assert_eq!(session.handle_bytes(now, b"NOOP\r\n"), 6);
    assert_eq!(said(&mut session), "+OK\r\n");
}

#[test]
fn passwords_are_in_no_debug_output() {
    let now = Instant::now();
    let mut session = session(now, local());
    session.handle_bytes(now, b"USER ann\r\nPASS s3cr");
    assert!(!format!("{session:?}").contains("s3cr"));
    session.handle_bytes(now, b"et\r\n");
    assert!(!format!("{session:?}").contains("s3cret"));
    assert!(!format!("{:?}", session.poll_output()).contains("s3cret"));
}

#[test]
fn nothing_is_removed_but_by_quit() {
    let now = Instant::now();
    let mut session = opened(now, 3);
    session.handle_bytes(now, b"DELE 2\r\n");
    session.handle_timeout(now + Duration::from_secs(600));
    assert!(matches!(session.poll_output(), Some(Output::Close)));
    assert!(session.poll_output().is_none());

    let mut session = opened(now, 3);
    session.handle_bytes(now, b"DELE 2\r\nQUIT\r\n");
    said(&mut session);
    assert!(matches!(session.poll_output(), Some(Output::Remove(marked)) if marked == [1]));
    assert!(session.poll_output().is_none(), "it waits");
    session.handle_removed(now, 0);
    assert_eq!(said(&mut session), "+OK Bye\r\n");
    assert!(matches!(session.poll_output(), Some(Output::Close)));
}

#[test]
fn what_breaks_off_has_no_final_dot() {
    let now = Instant::now();
    let mut session = opened(now, 1);
    session.handle_bytes(now, b"RETR 1\r\n");
    assert!(matches!(session.poll_output(), Some(Output::Read(0))));
    session.handle_content(b"half");
    session.handle_unreadable(now, Unreadable::Failed);
    assert_eq!(said(&mut session), "+OK Here it is\r\nhalf");
    assert!(matches!(session.poll_output(), Some(Output::Close)));
}

#[test]
fn time_runs_only_while_the_client_is_waited_for_and_whole_lines_win_more() {
    let now = Instant::now();
    let mut session = session(now, local());
    let later = now + Duration::from_secs(599);
    session.handle_bytes(later, b"USER ann");
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(600)));
    session.handle_bytes(later, b"\r\nPASS x\r\n");
    assert_eq!(session.poll_timeout(), None, "the client waits for us");
    session.handle_login(later, Login::Wrong);
    assert_eq!(session.poll_timeout(), Some(later + Duration::from_secs(600)));
}

#[test]
fn answers_to_what_was_not_asked_change_nothing() {
    let now = Instant::now();
    let mut session = session(now, local());
    said(&mut session);
    session.handle_login(now, Login::Right);
    session.handle_maildrop(now, Ok(Maildrop::default()));
    session.handle_content(b"x");
    session.handle_content_end(now);
    session.handle_unreadable(now, Unreadable::Failed);
    session.handle_removed(now, 1);
    session.handle_encrypted(now);
    assert!(session.poll_output().is_none() && session.maildrop().is_none());
    assert_eq!(said(&mut session), "");
}
