//! A session under a peer that sends anything, for the fuzzer and for the properties below.

use crate::door::{Answer, Arrival, Client, Door, Entry, Origin, Question, Refusal, Rights, ScramKeys};
use crate::{
    Gate, Limits, Mechanism, Output, Policy, Session, Stored, Timeouts, TlsServer, TlsUse, TurnUse, bare,
};
use message::{MailboxRef, MessageId, ReversePath};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// Whatever comes and wherever it is cut, the session stays within its bounds and says the same. `now` is any time.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, false, &[], bytes);
}

/// As [`fuzz_session`], in an AUTH: the first octet chooses the mechanism, and how far it has got.
pub fn fuzz_auth(now: Instant, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let openings: [&[u8]; 7] = [
        b"",
        b"AUTH PLAIN ",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH LOGIN YQ==\r\n",
        b"AUTH CRAM-MD5\r\n",
        // `n,,n=a,r=x`: the keys are there, the proof is due.
        b"AUTH SCRAM-SHA-256 biwsbj1hLHI9eA==\r\n",
    ];
    let opening = openings[usize::from(*first) % openings.len()];
    hold_wherever_cut(now, false, &[b"EHLO a\r\n", opening].concat(), bytes);
}

/// As [`fuzz_session`], with `bytes` as XCLIENT's arguments and what follows.
pub fn fuzz_xclient(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, false, b"EHLO a\r\nXCLIENT ", bytes);
}

/// As [`fuzz_session`], of a session that begins with a PROXY header.
pub fn fuzz_proxied(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, true, &[], bytes);
}

/// Octets where a handshake is due: nothing of them is ever a command, and nothing is said but TLS.
pub fn fuzz_handshake(now: Instant, bytes: &[u8]) {
    let policy = Policy { tls_use: TlsUse::Implicit, ..tight_policy() };
    let mut peer = Peer::new(now, policy, false);
    peer.session.handle_bytes(now, &mut Anyone, bytes);
    let mut replies = Vec::new();
    peer.session.take_replies(&mut replies);
    assert!(replies.first().is_none_or(|first| matches!(first, 20..=23)), "{replies:?}");
    while peer.unblock() {}
    assert!(!peer.heard.contains("Ask"), "no handshake can end without a certificate: {}", peer.heard);
}

/// As [`fuzz_session`], of a session that has said `opening` already.
fn hold_wherever_cut(now: Instant, is_proxied: bool, opening: &[u8], bytes: &[u8]) {
    let all = [opening, bytes].concat();
    let whole = converse(now, is_proxied, &all, all.len().max(1));
    for piece_len in [1, 2, 3, 7] {
        assert_eq!(converse(now, is_proxied, &all, piece_len), whole, "pieces of {piece_len}");
    }
}

/// Bounds so low that short input reaches them.
fn tight_policy() -> Policy {
    let limits = Limits {
        size_max: 100,
        recipients_max: 3,
        command_line_max: 80,
        errors_max: 6,
        idle_commands_max: 30,
        logins_max: 2,
        hops_max: 2,
        stores_in_flight_max: 2,
        replies_max: 300,
    };
    let policy = bare::policy();
    Policy {
        limits,
        timeouts: Timeouts { data_block_len: 64, ..policy.timeouts },
        turn_use: TurnUse::Offer,
        tls: TlsServer::without_identity().ok().map(Arc::new),
        mechanisms: Mechanism::ALL.to_vec(),
        tells_rejections: true,
        ..policy
    }
}

/// All that a session said and gave, in order. Stores end only once the session stops reading for them.
fn converse(now: Instant, is_proxied: bool, bytes: &[u8], piece_len: usize) -> String {
    let mut peer = Peer::new(now, tight_policy(), is_proxied);
    while peer.unblock() {}
    for piece in bytes.chunks(piece_len) {
        let mut at = 0;
        while at < piece.len() {
            let used = peer.session.handle_bytes(now, &mut Anyone, &piece[at..]);
            at += used;
            assert!(used > 0 || peer.unblock(), "a session that stops reading must wait for something");
        }
    }
    while peer.unblock() {}
    peer.heard
}

/// Refuses some.
struct Anyone;

impl Door for Anyone {
    fn gate(&self) -> Gate {
        Gate::Open
    }

    fn sender(&mut self, _client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Refusal> {
        if sender.as_str().starts_with('!') { Err(refusal(421)) } else { Ok(()) }
    }

    fn recipient(
        &mut self,
        _client: &Client,
        _sender: &ReversePath,
        recipient: MailboxRef<'_>,
    ) -> Result<Entry, Refusal> {
        match recipient.local_part.as_bytes() {
            [b'!', ..] => Err(refusal(550)),
            [b'?', ..] => Err(refusal(450)),
            [b'/', ..] => {
                message::Mailbox::parse(&recipient.to_string()[1..]).map(Entry::As).map_err(|_| refusal(553))
            }
            _ => Ok(Entry::AsGiven),
        }
    }
}

fn refusal(code: u16) -> Refusal {
    Refusal { code, enhanced: (7, 1), text: "No".into() }
}

struct Peer {
    session: Session,
    now: Instant,
    heard: String,
    open: Vec<crate::TransactionKey>,
}

impl Peer {
    fn new(now: Instant, policy: Policy, is_proxied: bool) -> Peer {
        let origin = Origin::Net { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
        let arrival = Arrival { origin, local: None, is_proxied, nonce: [7; 16] };
        let session = Session::new(now, Arc::new(policy), arrival);
        Peer { session, now, heard: String::new(), open: Vec::new() }
    }

    /// Takes what there is; answers what is asked, else ends the newest store. False if there was nothing to do.
    fn unblock(&mut self) -> bool {
        let before = self.heard.len();
        let mut answer = None;
        while let Some(output) = self.session.poll_output() {
            self.heard += &format!("{output:?}\n");
            match output {
                Output::Store(submission) => self.open.push(submission.transaction),
                Output::Ask(question) => answer = Some(answer_to(question)),
                Output::Turn(_) => answer = Some(Answer::NothingWaits),
                Output::Flush(_) | Output::Rejected(_) | Output::HandOver | Output::Close => {}
            }
        }
        let mut replies = Vec::new();
        self.session.take_replies(&mut replies);
        self.heard += &String::from_utf8_lossy(&replies);
        if let Some(answer) = answer {
            self.session.handle_answer(self.now, answer);
        } else if let Some(key) = self.open.pop() {
            self.heard.push('\n');
            self.session.handle_stored(self.now, key, Stored::Accepted(MessageId(u64::from(key.0))));
        }
        self.heard.len() > before
    }
}

/// One user, `a`, whose password is `b`.
fn answer_to(question: Question) -> Answer {
    let rights = || Rights { may_relay: true, may_flush: true, may_xclient: true, ..Rights::default() };
    match question {
        Question::Introduce(_) => Answer::Welcome(rights()),
        Question::Password { user, password } if user == "a" && password.octets() == b"b" => {
            Answer::LoggedIn(rights())
        }
        Question::Password { .. } | Question::CramMd5 { .. } => Answer::WrongLogin,
        Question::ScramKeys { user } if user == "?" => Answer::Unavailable,
        Question::ScramKeys { .. } => Answer::Scram(ScramKeys {
            salt: b"salt".to_vec(),
            iterations: 4096,
            stored_key: [1; 32],
            server_key: [2; 32],
        }),
        Question::Prove { .. } => Answer::LoggedIn(rights()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PHRASES: &[&[u8]] = &[
        b"EHLO a\r\n",
        b"HELO b\r\n",
        b"MAIL FROM:<a@b.c>\r\n",
        b"MAIL FROM:<>",
        b" SMTPUTF8",
        b" XVERP",
        b" SIZE=101",
        b" BODY=BINARYMIME",
        b"RCPT TO:<x@y.z>\r\n",
        b"RCPT TO:<postmaster>\r\n",
        b"RCPT TO:<\xc3\xa9@y.z>",
        b"DATA\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 9\r\n",
        b"BDAT 12 LAST\r\n",
        b"BDAT 99\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"VRFY x\r\n",
        b"HELP\r\n",
        b"EXPN x\r\n",
        b"\r\n.\r\n",
        b".\r\n",
        b"\n.\n",
        b"\r\n.\n",
        b"\r",
        b"\n",
        b".",
        b"\r\n",
        b"Received: x\r\n",
        b"\0",
        b"STARTTLS\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH CRAM-MD5\r\n",
        b"AUTH SCRAM-SHA-256 biwsbj1hLHI9eA==\r\n",
        b"YQ==\r\n",
        b"Yg==\r\n",
        b"*\r\n",
        b"XCLIENT ADDR=192.0.2.1 NAME=a.b\r\n",
        b"XCLIENT LOGIN=ann\r\n",
        b"ATRN\r\n",
        b"ETRN a.b\r\n",
        b"MAIL FROM:<!a@b.c>\r\n",
        b"RCPT TO:<!x@y.z>\r\n",
        b"RCPT TO:<?x@y.z>\r\n",
        b"RCPT TO:</x@y.z>\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"body text that has some length\r\n",
        b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nBDAT 3 LAST\r\nabc",
        b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\nS: x\r\n\r\nabc\r\n.\r\n",
    ];

    const ATTRIBUTES: &[&[u8]] = &[
        b"NAME=a.b",
        b"ADDR=192.0.2.1",
        b"ADDR=IPV6:::1",
        b"ADDR=[UNAVAILABLE]",
        b"PORT=25",
        b"HELO=a+2Bb",
        b"PROTO=ESMTP",
        b"LOGIN=ann",
        b"LOGIN=[TEMPUNAVAIL]",
        b"NAME=+0",
        b"=",
    ];

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_session(Instant::now(), &bytes);
            fuzz_auth(Instant::now(), &bytes);
            fuzz_xclient(Instant::now(), &bytes);
            fuzz_proxied(Instant::now(), &bytes);
            fuzz_handshake(Instant::now(), &bytes);
        }

        #[test]
        fn cuts_change_nothing_in_what_looks_like_mail(
            phrases in proptest::collection::vec(proptest::sample::select(PHRASES), 0..40),
        ) {
            let said = phrases.concat();
            fuzz_session(Instant::now(), &[b"EHLO a\r\n".as_slice(), &said].concat());
            fuzz_proxied(Instant::now(), &said);
            (0..7).for_each(|step| fuzz_auth(Instant::now(), &[&[step], &said[..]].concat()));
        }

        #[test]
        fn cuts_change_nothing_for_a_front_server(
            words in proptest::collection::vec(proptest::sample::select(ATTRIBUTES), 0..6),
        ) {
            fuzz_xclient(Instant::now(), &[words.join(&b' '), b"\r\nEHLO b\r\nNOOP\r\n".to_vec()].concat());
        }
    }
}
