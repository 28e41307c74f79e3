use super::*;
use crate::bare::{Open, arrival};
use crate::door::Rights;
use crate::limits::{Limits, TurnUse};

/// Replies that nobody takes soon stop the reading.
fn policy() -> Policy {
    let policy = crate::bare::policy();
    Policy { limits: Limits { replies_max: 1000, ..policy.limits }, ..policy }
}

fn local() -> Arrival {
    Arrival { origin: Origin::Local { uid: 1000 }, ..arrival() }
}

/// Greeted; the greeting is not taken.
fn session(now: Instant) -> Session {
    let mut session = Session::new(now, Arc::new(policy()), arrival());
    assert!(matches!(session.poll_output(), Some(Output::Ask(_))));
    session.handle_answer(now, Answer::Welcome(Rights { may_relay: true, ..Rights::default() }));
    session
}

fn read(session: &mut Session, now: Instant, bytes: &[u8]) -> usize {
    session.handle_bytes(now, &mut Open, bytes)
}

fn taken(session: &mut Session) -> String {
    let mut out = Vec::new();
    session.take_replies(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn greets_before_the_client_speaks() {
    let mut session = session(Instant::now());
    assert!(!session.is_idle());
    assert_eq!(taken(&mut session), "220 mx.example.org ESMTP ringpost\r\n");
    assert!(session.is_idle());
}

#[test]
fn no_time_runs_while_the_client_waits_for_an_answer() {
    let now = Instant::now();
    let mut session = Session::new(now, Arc::new(policy()), local());
    assert_eq!((session.poll_timeout(), read(&mut session, now, b"NOOP\r\n")), (None, 0));
    assert!(matches!(session.poll_output(), Some(Output::Ask(_))));
    assert_eq!((session.poll_timeout(), read(&mut session, now, b"NOOP\r\n")), (None, 0));
    session.handle_answer(now, Answer::Welcome(Rights::default()));
    assert_eq!(session.poll_timeout(), Some(now + Duration::from_secs(300)));
    assert_eq!(read(&mut session, now, b"NOOP\r\n"), 6);
    // One that comes too late, or twice, changes nothing.
    session.handle_answer(now, Answer::Welcome(Rights { may_relay: true, ..Rights::default() }));
    assert!(!session.client().rights.may_relay);
}

#[test]
fn unread_replies_stop_the_reading() {
    let now = Instant::now();
    let mut session = session(now);
    let commands = b"NOOP\r\n".repeat(200);
    let (mut at, mut replies) = (0, String::new());
    while at < commands.len() {
        let used = read(&mut session, now, &commands[at..]);
        assert!(used.is_multiple_of(6) && used <= 6 * 80, "{used} octets at once");
        assert_eq!(read(&mut session, now, &commands[at + used..]), 0);
        at += used;
        replies += &taken(&mut session);
    }
    assert_eq!(replies.matches("250 2.0.0 Ok\r\n").count(), 200);
}

#[test]
fn open_transaction_tells_what_it_holds_and_gives_it_back() {
    let now = Instant::now();
    let mut session = session(now);
    let begin = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.net>\r\nBDAT 500\r\n";
    read(&mut session, now, begin);
    read(&mut session, now, &[b'x'; 500]);
    assert!(session.buffered_len() >= 500 + 16, "{}", session.buffered_len());
    read(&mut session, now, b"RSET\r\n");
    assert_eq!(session.buffered_len(), 0);
}

#[test]
fn close_comes_once_and_after_the_last_reply() {
    let now = Instant::now();
    let mut session = session(now);
    assert_eq!(read(&mut session, now, b"QUIT\r\nNOOP\r\n"), 12);
    assert!(session.poll_output().is_none());
    assert!(taken(&mut session).ends_with("221 2.0.0 Bye\r\n"));
    assert!(matches!(session.poll_output(), Some(Output::Close)));
    assert!(session.poll_output().is_none());
    assert_eq!((read(&mut session, now, b"NOOP\r\n"), session.poll_timeout()), (6, None));
}

#[test]
fn time_out_that_is_not_due_does_nothing() {
    let now = Instant::now();
    let mut session = session(now);
    taken(&mut session);
    session.handle_timeout(now + Duration::from_secs(299));
    assert_eq!(taken(&mut session), "");
}

#[test]
fn line_of_a_mebioctet_comes_out_as_it_went_in() {
    let now = Instant::now();
    let line = [&[b'x'; 1 << 20][..], b"\0\xff"].concat();
    let envelope = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.net>\r\n";
    let bdat = [&envelope[..], format!("BDAT {} LAST\r\n", line.len()).as_bytes(), &line].concat();
    let data = [&envelope[..], b"DATA\r\n", &line, b"\r\n.\r\n"].concat();
    for (wire, expected) in [(bdat, line.clone()), (data, [&line[..], b"\r\n"].concat())] {
        let mut session = session(now);
        assert_eq!(read(&mut session, now, &wire), wire.len());
        let Some(Output::Store(submission)) = session.poll_output() else { panic!("nothing to store") };
        assert!(submission.content == expected, "{} octets", submission.content.len());
    }
}

#[test]
fn idle_session_is_small_and_holds_nothing() {
    assert!(size_of::<Session>() <= 512, "{}", size_of::<Session>());
    let now = Instant::now();
    let mut session = session(now);
    let mail = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.net>\r\nBDAT 3 LAST\r\nabcNOOP\r\n";
    read(&mut session, now, mail);
    let Some(Output::Store(submission)) = session.poll_output() else { panic!("nothing to store") };
    session.handle_stored(now, submission.transaction, Stored::Full);
    assert!(session.poll_output().is_none());
    taken(&mut session);
    assert!(session.is_idle());
    session.shrink();
    assert_eq!((session.stores.capacity(), session.rejections.capacity()), (0, 0));
    assert_eq!((session.replies.capacity(), session.lines.capacity()), (0, 0));
    let boxes = (&session.transaction, &session.due, &session.exchange, &session.tunnel, &session.named);
    assert!(matches!(boxes, (None, None, None, None, None)));
}

#[test]
fn session_between_two_messages_keeps_its_room() {
    let now = Instant::now();
    let mut session = session(now);
    let mail = b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.net>\r\nBDAT 3 LAST\r\nabc";
    read(&mut session, now, mail);
    let Some(Output::Store(submission)) = session.poll_output() else { panic!("nothing to store") };
    session.handle_stored(now, submission.transaction, Stored::Full);
    taken(&mut session);
    assert!(session.poll_output().is_none() && session.is_idle());
    assert!(session.stores.capacity() > 0 && session.replies.capacity() > 0);
}

#[test]
fn what_a_debugger_prints_has_no_password() {
    let now = Instant::now();
    let policy = Policy { mechanisms: crate::Mechanism::ALL.to_vec(), ..policy() };
    let mut session = Session::new(now, Arc::new(policy), local());
    session.poll_output();
    session.handle_answer(now, Answer::Welcome(Rights::default()));
    read(&mut session, now, b"EHLO a\r\nAUTH PLAIN AGFubgBodW50ZXIy\r\n");
    let shown = format!("{session:?}");
    assert!(
        shown.contains("ann") && !shown.contains("hunter2") && !shown.contains("104, 117, 110"),
        "{shown}"
    );
    session.poll_output();
    session.handle_answer(now, Answer::WrongLogin);
    read(&mut session, now, b"AUTH PLAIN AGFubgBodW50ZXIy");
    assert!(!format!("{session:?}").contains("65, 71, 70"));
}

#[test]
fn octets_behind_a_turn_are_the_other_directions() {
    let now = Instant::now();
    let policy = Policy { mechanisms: crate::Mechanism::ALL.to_vec(), turn_use: TurnUse::Offer, ..policy() };
    let mut session = Session::new(now, Arc::new(policy), local());
    session.poll_output();
    session.handle_answer(now, Answer::Welcome(Rights::default()));
    read(&mut session, now, b"EHLO a\r\nAUTH PLAIN AGFubgBodW50ZXIy\r\n");
    session.poll_output();
    session.handle_answer(now, Answer::LoggedIn(Rights::default()));
    let wire = b"ATRN\r\n220 client.example ready\r\n";
    assert_eq!(read(&mut session, now, wire), 6);
    assert!(matches!(session.poll_output(), Some(Output::Turn(domains)) if domains.is_empty()));
    session.handle_answer(now, Answer::Turning);
    assert_eq!(read(&mut session, now, &wire[6..]), 0);
    assert!(session.poll_output().is_none(), "the reply comes first");
    assert!(taken(&mut session).ends_with("250 2.0.0 OK now reversing the connection\r\n"));
    assert!(matches!(session.poll_output(), Some(Output::HandOver)));
    assert_eq!((read(&mut session, now, &wire[6..]), session.poll_timeout()), (0, None));
    assert!(session.poll_output().is_none() && session.into_tunnel().is_none());
}
