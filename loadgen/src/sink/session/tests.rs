//! The sink's session, spoken to in one buffer and in single bytes.

use super::super::faults::Fault;
use super::super::replies::Offers;
use super::*;
use crate::content::digest;

const CONTENT: &str = "X-Loadgen: r-1\r\n\r\nhello\r\n";

struct Talk {
    policy: Policy,
    faults: Vec<Fault>,
}

impl Talk {
    fn new() -> Talk {
        Talk { policy: policy(), faults: Vec::new() }
    }

    fn fault(mut self, text: &str) -> Talk {
        self.faults.push(text.parse().unwrap());
        self.policy.faults = Faults::new(&self.faults, 1);
        self
    }

    /// The codes of all replies, the flow, the tally; the same however the bytes are cut.
    fn say(&self, said: &str) -> (Vec<u16>, Flow, Tally) {
        let whole = self.say_in_pieces(said, said.len());
        let single = self.say_in_pieces(said, 1);
        assert_eq!((&whole.0, whole.1), (&single.0, single.1));
        whole
    }

    fn say_in_pieces(&self, said: &str, piece: usize) -> (Vec<u16>, Flow, Tally) {
        let (mut books, mut out) = (books(Log::new(None)), Vec::new());
        let mut session = session(&self.policy, &mut books);
        let mut flow = session.handle_connect(&self.policy, &mut books, &mut out);
        for bytes in said.as_bytes().chunks(piece) {
            if flow == Flow::Continue {
                flow = session.handle_bytes(&self.policy, &mut books, bytes, &mut out);
            }
        }
        (codes(&String::from_utf8(out).unwrap()), flow, books.tally)
    }
}

fn policy() -> Policy {
    let offers = Offers { pipelining: true, chunking: true, starttls: true, auth: false, size_max: 1000 };
    Policy {
        texts: Texts::new("sink.test", false, offers),
        lmtp: false,
        starttls: true,
        tls_required: false,
        account: None,
        chunking: true,
        size_max: 1000,
        recipients_max: 3,
        close_after: 0,
        faults: Faults::default(),
        seed: 1,
        keeps_contents: false,
    }
}

fn books(log: Log) -> Books {
    Books { now_ns: 42, ..Books::new(log, Log::new(None)) }
}

fn session(policy: &Policy, books: &mut Books) -> Session {
    let source = [127, 0, 0, 2].into();
    let pair = books.peers.open(source, ([127, 0, 0, 1], 25).into(), 1);
    Session::new(policy, 1, source, pair)
}

/// The code of each reply's last line.
fn codes(out: &str) -> Vec<u16> {
    out.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| line[..3].parse().unwrap()).collect()
}

fn bdat() -> String {
    format!("MAIL FROM:<a@b> XVERP\r\nRCPT TO:<c@d>\r\nBDAT {} LAST\r\n{CONTENT}", CONTENT.len())
}

#[test]
fn a_window_of_chunked_transactions_is_answered_in_one_flight() {
    let (codes, flow, tally) = Talk::new().say(&format!("EHLO x\r\n{}{}{}QUIT\r\n", bdat(), bdat(), bdat()));
    assert_eq!(codes, [220, 250, 250, 250, 250, 250, 250, 250, 250, 250, 250, 221]);
    assert_eq!((flow, tally.transactions, tally.bytes), (Flow::Finish, 3, 3 * CONTENT.len() as u64));
}

#[test]
fn body_dot_and_the_next_transaction_share_a_buffer() {
    let one = format!("MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n{CONTENT}.\r\n");
    let (codes, _, tally) = Talk::new().say(&format!("HELO x\r\n{one}{one}"));
    assert_eq!(codes, [220, 250, 250, 250, 250, 354, 250, 250, 250, 250, 354, 250]);
    assert_eq!((tally.transactions, tally.recipients), (2, 4));
}

#[test]
fn commands_out_of_order_are_refused_and_the_session_survives() {
    let said = "MAIL FROM:<a@b>\r\nEHLO x\r\nRCPT TO:<c@d>\r\nDATA\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nDATA\r\n";
    let (codes, flow, _) = Talk::new().say(&format!("{said}RSET\r\nVRFY x\r\nNOOP\r\nFROB\r\n{}", bdat()));
    let expected = [220, 503, 250, 503, 503, 250, 503, 554, 250, 252, 250, 502, 250, 250, 250];
    assert_eq!((codes, flow), (expected.to_vec(), Flow::Continue));
}

#[test]
fn octets_of_a_refused_chunk_are_consumed() {
    let bad = "BDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n";
    let (codes, flow, tally) = Talk::new().say(&format!("EHLO x\r\n{bad}{}", bdat()));
    assert_eq!(codes, [220, 250, 503, 250, 554, 503, 250, 250, 250]);
    assert_eq!((flow, tally.transactions), (Flow::Continue, 1));
}

#[test]
fn content_in_several_chunks_is_one_message() {
    let said = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nabcMAIL FROM:<x@y>\r\nDATA\r\nBDAT 0 LAST\r\n";
    let (codes, _, tally) = Talk::new().say(said);
    assert_eq!(codes, [220, 250, 250, 250, 250, 503, 503, 250]);
    assert_eq!((tally.transactions, tally.bytes), (1, 3));
}

#[test]
fn recipients_size_and_lines_have_their_bounds() {
    let many = "RCPT TO:<c@d>\r\n".repeat(4);
    let long = "x".repeat(5000);
    let said = format!(
        "EHLO x\r\nMAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b>\r\n{many}{long}\r\nDATA\r\n{long}\r\n.\r\n"
    );
    let (codes, _, tally) = Talk::new().say(&said);
    assert_eq!(codes, [220, 250, 552, 250, 250, 250, 250, 452, 500, 354, 552]);
    assert_eq!(tally.transactions, 0);
}

#[test]
fn faults_strike_at_their_stage() {
    let hello = |rest: &str| format!("EHLO x\r\n{rest}");
    assert_eq!(Talk::new().fault("connect=554:1").say("EHLO x\r\n").1, Flow::Finish);
    assert!(Talk::new().fault("connect=drop:1").say("EHLO x\r\n").0.is_empty());
    assert_eq!(Talk::new().fault("rcpt=550:1").say(&hello(&bdat())).0, [220, 250, 250, 550, 554]);
    assert_eq!(Talk::new().fault("dot=451:1").say(&hello(&bdat())).0, [220, 250, 250, 250, 451]);
    let (codes, flow, _) = Talk::new().fault("mail=421:1").say(&hello(&bdat()));
    assert_eq!((codes, flow), (vec![220, 250, 421], Flow::Finish));
}

#[test]
fn drop_after_accept_counts_the_message_and_drop_does_not() {
    let said = format!("EHLO x\r\n{}", bdat());
    let (codes, flow, tally) = Talk::new().fault("bdat=drop-after-accept:1").say(&said);
    assert_eq!((codes, flow, tally.recipients), (vec![220, 250, 250, 250], Flow::Break(Break::Close), 1));
    let (codes, flow, tally) = Talk::new().fault("bdat=drop:1").say(&said);
    assert_eq!((codes, flow, tally.recipients), (vec![220, 250, 250, 250], Flow::Break(Break::Close), 0));
}

#[test]
fn a_connection_closes_after_its_messages() {
    let mut talk = Talk::new();
    talk.policy.close_after = 2;
    let (codes, flow, tally) = talk.say(&format!("EHLO x\r\n{}{}{}", bdat(), bdat(), bdat()));
    assert_eq!((codes.len(), flow, tally.transactions), (8, Flow::Finish, 2));
}

#[test]
fn each_accepted_recipient_becomes_one_line_of_the_audit() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = Log::new(Some(std::sync::Arc::new(file.reopen().unwrap())));
    let mut books = books(log);
    let (policy, mut out) = (policy(), Vec::new());
    let mut session = session(&policy, &mut books);
    let said =
        format!("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n{CONTENT}.\r\n");
    session.handle_bytes(&policy, &mut books, said.as_bytes(), &mut out);
    books.log.close().unwrap();
    let shared = format!("42\t{:016x}\tr-1\ta@b\t", digest(CONTENT.as_bytes()));
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), format!("{shared}c@d\n{shared}e@f\n"));
}

#[test]
fn faults_strike_at_the_stages_around_the_content() {
    let talk = |fault: &str, said: &str| Talk::new().fault(fault).say(said);
    let said = format!("EHLO x\r\n{}QUIT\r\n", bdat());
    let (reset, silence) = (Flow::Break(Break::Reset), Flow::Break(Break::Silence));
    assert_eq!(talk("content=reset", &said).1, reset);
    assert_eq!(talk("content=421", &said).0, [220, 250, 250, 250, 421]);
    assert_eq!(talk("chunk=452", &said).0, [220, 250, 250, 250, 452, 221]);
    assert_eq!(talk("chunk=silence", &said).1, silence);
    assert_eq!(talk("quit=reset", &said).1, reset);
    assert_eq!(talk("quit=500", &said).0[5..], [500]);
    assert_eq!(talk("dot=silence-after-accept", &said).2.transactions, 1);
    assert_eq!(talk("starttls=454", "STARTTLS\r\nNOOP\r\n").0, [220, 454, 250]);
}

#[test]
fn a_reply_is_said_in_the_words_asked_for() {
    let mut talk = Talk::new();
    let replies = ["rcpt[address=@d]=250 2.1.5 Fine", "dot=250 2.0.0 Ok: queued as 1"];
    talk.faults = replies.iter().map(|text| Fault::reply(text).unwrap()).collect();
    talk.policy.faults = Faults::new(&talk.faults, 1);
    let (codes, _, tally) = talk.say(&format!("EHLO x\r\n{}", bdat()));
    assert_eq!((codes, tally.transactions, tally.recipients), (vec![220, 250, 250, 250, 250], 1, 1));
    let mut out = Vec::new();
    let mut books = books(Log::new(None));
    let mut session = session(&talk.policy, &mut books);
    session.handle_bytes(&talk.policy, &mut books, format!("EHLO x\r\n{}", bdat()).as_bytes(), &mut out);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("250 2.1.5 Fine\r\n") && out.ends_with("250 2.0.0 Ok: queued as 1\r\n"), "{out}");
}

#[test]
fn lmtp_answers_the_content_for_each_recipient() {
    let mut talk = Talk::new().fault("dot[address=e@f]=452");
    talk.policy.lmtp = true;
    let rcpts = "RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<g@h>\r\n";
    let said = format!("EHLO x\r\nLHLO x\r\nMAIL FROM:<a@b>\r\n{rcpts}DATA\r\n{CONTENT}.\r\nNOOP\r\n");
    let (codes, _, tally) = talk.say(&said);
    assert_eq!(codes, [220, 500, 250, 250, 250, 250, 250, 354, 250, 452, 250, 250]);
    assert_eq!((tally.transactions, tally.recipients), (1, 2));
    assert_eq!(Talk::new().say("LHLO x\r\n").0, [220, 502]);
}

#[test]
fn mail_waits_for_authentication() {
    let mut talk = Talk::new();
    talk.policy.account = Some(Account { user: "u".into(), password: "p".into() });
    let said = "EHLO x\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN AHUAbm8=\r\nAUTH LOGIN\r\ndQ==\r\ncA==\r\nAUTH PLAIN AHUAcA==\r\n";
    let (codes, _, tally) = talk.say(&format!("{said}{}", bdat()));
    assert_eq!(codes, [220, 250, 530, 535, 334, 334, 235, 503, 250, 250, 250]);
    assert_eq!((tally.auth_accepted, tally.auth_refused, tally.transactions), (1, 1, 1));
}

#[test]
fn tls_is_waited_for_and_forgets_what_was_said() {
    let mut talk = Talk::new();
    talk.policy.tls_required = true;
    let (said, flow, tally) = talk.say("EHLO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n");
    assert_eq!((said, flow, tally.tls.injected), (vec![220, 250, 530, 220], Flow::StartTls, 0));
    let (mut books, mut out) = (books(Log::new(None)), Vec::new());
    let mut session = session(&talk.policy, &mut books);
    let flow = session.handle_bytes(&talk.policy, &mut books, b"EHLO x\r\nSTARTTLS\r\nNOOP\r\n", &mut out);
    assert_eq!((flow, books.tally.tls.injected), (Flow::StartTls, 1));
    session.handle_secured();
    out.clear();
    let said = b"MAIL FROM:<a@b>\r\nEHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b> REQUIRETLS\r\n";
    session.handle_bytes(&talk.policy, &mut books, said, &mut out);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(codes(&out), [503, 250, 503, 250]);
    assert!(out.contains("250-REQUIRETLS\r\n") && !out.contains("STARTTLS"), "{out}");
    assert_eq!(books.tally.requiretls, 1);
}
