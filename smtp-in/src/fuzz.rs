//! A session under a peer that sends anything, for the fuzzer and for the properties in `tests`.
//!
//! Each entry begins where something is due: `tests` holds that all states of a session are met from one of them.

mod sealed;
#[cfg(test)]
mod tests;

pub use sealed::fuzz_sealed;

use crate::door::{Answer, Arrival, Client, Door, Entry, Origin, Question, Refusal, Rights, ScramKeys};
use crate::{
    Gate, Limits, Mechanism, Output, Policy, Session, Stored, Timeouts, TlsServer, TlsUse, TurnUse, bare,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use message::{MailboxRef, MessageId, ReversePath};
use rustls::ClientConnection;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whatever comes and wherever it is cut, the session stays within its bounds and says the same. `now` is any time.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, false, &[], bytes);
}

/// As [`fuzz_session`], in a transaction: the first octet chooses how far it has got.
pub fn fuzz_transaction(now: Instant, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let opening = TRANSACTIONS[usize::from(*first) % TRANSACTIONS.len()];
    hold_wherever_cut(now, false, &[GREETED, opening].concat(), bytes);
}

/// As [`fuzz_session`], in an AUTH: the first octet chooses the mechanism, and how far it has got.
pub fn fuzz_auth(now: Instant, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    hold_wherever_cut(now, false, &[GREETED, &login(now, *first)].concat(), bytes);
}

/// As [`fuzz_session`], with `bytes` as XCLIENT's arguments and what follows.
pub fn fuzz_xclient(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, false, b"EHLO a\r\nXCLIENT ", bytes);
}

/// As [`fuzz_session`], of a session that begins with a PROXY header.
pub fn fuzz_proxied(now: Instant, bytes: &[u8]) {
    hold_wherever_cut(now, true, &[], bytes);
}

/// Where the greeting waits: the first octet says how many octets come before it. Who spoke so early is turned away, and
/// whoever did not notices nothing.
pub fn fuzz_greeting(now: Instant, bytes: &[u8]) {
    let Some((early_len, bytes)) = bytes.split_first() else { return };
    let (early, rest) = bytes.split_at(bytes.len().min(usize::from(*early_len)));
    let mut peer = Peer::new(now, slow_policy(), false);
    while peer.unblock() {}
    peer.feed(early, early.len().max(1));
    peer.session.handle_timeout(now + GREETING_DELAY);
    while peer.unblock() {}
    peer.feed(rest, rest.len().max(1));
    if early.is_empty() {
        assert_eq!(peer.heard, converse(now, false, rest, rest.len().max(1)));
    } else {
        let (refused, greeted) = (peer.heard.contains("554 5.5.1 "), peer.heard.contains("220 "));
        assert!(refused && !greeted && !peer.heard.contains("Store"), "{}", peer.heard);
    }
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

const GREETED: &[u8] = b"EHLO a\r\n";

const LOGINS: [&[u8]; 7] = [
    b"",
    b"AUTH PLAIN ",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH LOGIN YQ==\r\n",
    b"AUTH CRAM-MD5\r\n",
    SCRAM,
];

/// `n,,n=a,r=x`: the keys are there, the proof is due.
const SCRAM: &[u8] = b"AUTH SCRAM-SHA-256 biwsbj1hLHI9eA==\r\n";

/// What the right password has for a client's key.
const CLIENT_KEY: [u8; 32] = [1; 32];

const TRANSACTIONS: [&[u8]; 7] = [
    b"MAIL FROM:<",
    b"MAIL FROM:<a@b.c>\r\n",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\n",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\n",
    b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nBDAT 40\r\n",
    // A chunk that is skipped to its end.
    b"BDAT 40\r\n",
];

/// One of [`LOGINS`], or all of SCRAM but its last word.
fn login(now: Instant, first: u8) -> Vec<u8> {
    let opening = LOGINS.get(usize::from(first) % (LOGINS.len() + 1));
    opening.map_or_else(|| [SCRAM, &proof(now)].concat(), |opening| opening.to_vec())
}

/// The right response to what [`SCRAM`] is answered.
fn proof(now: Instant) -> Vec<u8> {
    let said = converse(now, false, &[GREETED, SCRAM].concat(), usize::MAX);
    let challenge = said.rsplit("334 ").next().unwrap_or_default().trim_end();
    let server_first = STANDARD.decode(challenge).expect("a challenge is base64");
    let server_first = String::from_utf8(server_first).expect("SCRAM is text");
    let last = format!("c=biws,{}", server_first.split(',').next().unwrap_or_default());
    let whole = format!("n=a,r=x,{server_first},{last}");
    let stored_key = digest(&SHA256, &CLIENT_KEY);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored_key.as_ref()), whole.as_bytes());
    let proof: Vec<u8> = CLIENT_KEY.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let response = format!("{last},p={}", STANDARD.encode(proof));
    format!("{}\r\n", STANDARD.encode(response)).into_bytes()
}

/// As [`fuzz_session`], of a session that has said `opening` already.
fn hold_wherever_cut(now: Instant, is_proxied: bool, opening: &[u8], bytes: &[u8]) {
    let all = [opening, bytes].concat();
    let whole = converse(now, is_proxied, &all, all.len().max(1));
    for piece_len in [1, 2, 3, 7] {
        assert_eq!(converse(now, is_proxied, &all, piece_len), whole, "pieces of {piece_len}");
    }
}

const GREETING_DELAY: Duration = Duration::from_secs(5);

fn slow_policy() -> Policy {
    Policy { greeting_delay_secs: GREETING_DELAY.as_secs(), ..tight_policy() }
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
    peer.feed(bytes, piece_len);
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
    /// Once it is there, octets of the wire are TLS's.
    tunnel: Option<Box<ClientConnection>>,
}

impl Peer {
    fn new(now: Instant, policy: Policy, is_proxied: bool) -> Peer {
        let origin = Origin::Net { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
        let arrival = Arrival { origin, local: None, is_proxied, nonce: [7; 16] };
        let session = Session::new(now, Arc::new(policy), arrival);
        Peer { session, now, heard: String::new(), open: Vec::new(), tunnel: None }
    }

    /// Sends all of it, and takes what comes of it to the end.
    fn feed(&mut self, bytes: &[u8], piece_len: usize) {
        for piece in bytes.chunks(piece_len) {
            let mut at = 0;
            while at < piece.len() {
                let used = self.session.handle_bytes(self.now, &mut Anyone, &piece[at..]);
                at += used;
                assert!(used > 0 || self.unblock(), "a session that stops reading must wait for something");
            }
        }
        self.settle();
    }

    /// Takes what comes of it to the end. What waits inside a tunnel is read as soon as it can be.
    fn settle(&mut self) {
        while self.unblock() || self.session.wants_turn() {
            self.session.handle_bytes(self.now, &mut Anyone, &[]);
        }
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
        self.heard += &match &mut self.tunnel {
            Some(tunnel) => sealed::open(tunnel, &replies).into(),
            None => String::from_utf8_lossy(&replies),
        };
        if let Some(answer) = answer {
            self.session.handle_answer(self.now, answer);
        } else if let Some(key) = self.open.pop() {
            self.heard.push('\n');
            self.session.handle_stored(self.now, key, Stored::Accepted(MessageId(u64::from(key.0))));
        }
        self.heard.len() > before || !replies.is_empty()
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
            stored_key: digest(&SHA256, &CLIENT_KEY).as_ref().try_into().expect("SHA-256 has 32 octets"),
            server_key: [2; 32],
        }),
        Question::Prove { .. } => Answer::LoggedIn(rights()),
    }
}
