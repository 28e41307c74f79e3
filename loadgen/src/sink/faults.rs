//! Faults and replies on request: what a provider may do wrong or say, at which stage, how often and to whom.
//!
//! A fault is written `STAGE[CONDITIONS]=WHAT:PROBABILITY`, with `:by-address` where the same address shall always
//! meet the same fate: then a hash of (seed, address) decides instead of the generator. A reply is written
//! `STAGE[CONDITIONS]=CODE TEXT`. The first that strikes wins, replies before faults, each in the order given.
//! `first` and `after` count over the whole sink, its threads together.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::conditions::Conditions;
use crate::text::mix;

/// Where in a session a fault strikes. `Chunk` is a BDAT command, `Content` the first octets after 354 or BDAT,
/// `Dot` the reply to the content, by DATA or by BDAT; with LMTP once for each recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Connect,
    Ehlo,
    StartTls,
    Handshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    Chunk,
    Content,
    Dot,
    Quit,
}

const STAGE_COUNT: usize = 12;

const STAGES: [(Stage, &str); 15] = [
    (Stage::Connect, "connect"),
    (Stage::Connect, "greeting"),
    (Stage::Ehlo, "ehlo"),
    (Stage::StartTls, "starttls"),
    (Stage::Handshake, "handshake"),
    (Stage::Auth, "auth"),
    (Stage::Mail, "mail"),
    (Stage::Rcpt, "rcpt"),
    (Stage::Data, "data"),
    (Stage::Chunk, "chunk"),
    (Stage::Content, "content"),
    (Stage::Dot, "dot"),
    (Stage::Dot, "end"),
    (Stage::Dot, "bdat"),
    (Stage::Quit, "quit"),
];

impl Stage {
    pub fn name(self) -> &'static str {
        STAGES.iter().find(|(stage, _)| *stage == self).map_or("", |(_, name)| name)
    }
}

/// How a connection ends without a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Break {
    Close,
    /// RST: what is under way is lost.
    Reset,
    /// Open, read and never answered again, until the peer leaves or the idle limit is over.
    Silence,
}

/// What happens when a fault strikes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FaultAction {
    /// This code instead of the usual reply; 421 also ends the connection.
    Reply(u16),
    /// This reply instead of the usual one, its lines as they go out; 421 also ends the connection.
    Say(u16, String),
    /// The connection ends there, without a reply.
    Break(Break),
    /// The message is accepted and recorded, and the connection ends before the reply.
    BreakAfterAccept(Break),
    /// Octets that are neither a reply nor TLS, then the end.
    Garbage,
    /// A fatal alert instead of a handshake (RFC 8446 §6.2: `handshake_failure`), then the end.
    Alert,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub stage: Stage,
    pub action: FaultAction,
    pub conditions: Conditions,
}

#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    #[error(
        "{0}: a fault is STAGE[CONDITIONS]=WHAT[:PROBABILITY[:by-address]]; stages connect ehlo starttls handshake auth \
         mail rcpt data chunk content dot quit; WHAT 400-599, drop, reset, silence, garbage, at handshake alert, at \
         dot drop-after-accept, reset-after-accept or silence-after-accept; by-address only at mail and rcpt"
    )]
    Fault(String),
    #[error(
        "{0}: a reply is STAGE[CONDITIONS]=CODE TEXT, CODE 200-599, at any stage but handshake and content"
    )]
    Reply(String),
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        parse_fault(text).filter(is_possible).ok_or_else(|| FaultError::Fault(text.into()))
    }
}

impl Fault {
    /// Reads `STAGE[CONDITIONS]=CODE TEXT`; `\n` in the text begins another line of the reply.
    pub fn reply(text: &str) -> Result<Fault, FaultError> {
        parse_reply(text).filter(is_possible).ok_or_else(|| FaultError::Reply(text.into()))
    }
}

/// The stage, its conditions, and what stands behind the `=`.
fn parse_place(text: &str) -> Option<(Stage, Conditions, &str)> {
    let name_len = text.find(['[', '='])?;
    let (name, rest) = text.split_at(name_len);
    let stage = STAGES.iter().find(|(_, known)| *known == name)?.0;
    if let Some(what) = rest.strip_prefix('=') {
        return Some((stage, Conditions::default(), what));
    }
    let (conditions, what) = rest.strip_prefix('[')?.split_once("]=")?;
    Some((stage, conditions.parse().ok()?, what))
}

fn parse_fault(text: &str) -> Option<Fault> {
    let (stage, mut conditions, what) = parse_place(text)?;
    let mut parts = what.split(':');
    let action = parse_action(parts.next()?)?;
    if let Some(probability) = parts.next() {
        conditions.probability = probability.parse().ok()?;
    }
    match parts.next() {
        None => {}
        Some("by-address") => conditions.by_address = true,
        Some(_) => return None,
    }
    parts.next().is_none().then_some(Fault { stage, action, conditions })
}

fn parse_action(what: &str) -> Option<FaultAction> {
    Some(match what {
        "drop" | "close" => FaultAction::Break(Break::Close),
        "reset" => FaultAction::Break(Break::Reset),
        "silence" => FaultAction::Break(Break::Silence),
        "drop-after-accept" => FaultAction::BreakAfterAccept(Break::Close),
        "reset-after-accept" => FaultAction::BreakAfterAccept(Break::Reset),
        "silence-after-accept" => FaultAction::BreakAfterAccept(Break::Silence),
        "garbage" => FaultAction::Garbage,
        "alert" => FaultAction::Alert,
        code => FaultAction::Reply(code.parse().ok()?),
    })
}

fn parse_reply(text: &str) -> Option<Fault> {
    let (stage, conditions, reply) = parse_place(text)?;
    let (code, words) = reply.split_once(' ').unwrap_or((reply, ""));
    let code: u16 = code.parse().ok()?;
    let is_plain = !words.contains(char::is_control);
    let action = FaultAction::Say(code, reply_lines(code, words));
    (is_plain && code >= 200).then_some(Fault { stage, action, conditions })
}

/// RFC 5321 §4.2.1: a hyphen after the code of every line but the last.
fn reply_lines(code: u16, text: &str) -> String {
    let lines: Vec<&str> = text.split("\\n").collect();
    let last = lines.len() - 1;
    let separator = |index| if index == last { ' ' } else { '-' };
    lines.iter().enumerate().map(|(index, line)| format!("{code}{}{line}\r\n", separator(index))).collect()
}

fn is_possible(fault: &Fault) -> bool {
    let has_reply = !matches!(fault.stage, Stage::Handshake | Stage::Content);
    let action = match &fault.action {
        FaultAction::Reply(421) => fault.stage != Stage::Handshake,
        FaultAction::Reply(code) => has_reply && (400..600).contains(code),
        // A refused chunk is thrown away, so there is nothing to grant in other words.
        FaultAction::Say(code, _) => {
            has_reply && (*code >= 400 || fault.stage != Stage::Chunk) && *code < 600
        }
        FaultAction::Break(_) | FaultAction::Garbage => true,
        FaultAction::BreakAfterAccept(_) => fault.stage == Stage::Dot,
        FaultAction::Alert => fault.stage == Stage::Handshake,
    };
    let address = !fault.conditions.by_address || matches!(fault.stage, Stage::Mail | Stage::Rcpt);
    action && address && (0.0..=1.0).contains(&fault.conditions.probability)
}

/// Where a session stands when a fault may strike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The path of MAIL or RCPT; with the content, the first or with LMTP the answered recipient.
    pub(crate) address: &'a [u8],
    pub(crate) source: Option<IpAddr>,
    /// The client's name in EHLO, empty before it.
    pub(crate) helo: &'a [u8],
}

/// The faults of a sink, sorted by stage.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    stages: [Vec<Planned>; STAGE_COUNT],
    seed: u64,
}

#[derive(Debug)]
struct Planned {
    action: FaultAction,
    conditions: Conditions,
    /// Strikes when a uniform u64 is below this.
    threshold: u64,
    /// How often all conditions but the count have held.
    met: AtomicU64,
}

impl Faults {
    pub(crate) fn new<'a>(faults: impl IntoIterator<Item = &'a Fault>, seed: u64) -> Faults {
        let mut planned = Faults { seed, ..Faults::default() };
        for Fault { stage, action, conditions } in faults {
            planned.stages[*stage as usize].push(Planned {
                action: action.clone(),
                threshold: threshold(conditions.probability),
                conditions: conditions.clone(),
                met: AtomicU64::new(0),
            });
        }
        planned
    }

    /// Is anything planned here? One look, so that a stage without faults costs nothing.
    pub(crate) fn any_at(&self, stage: Stage) -> bool {
        !self.stages[stage as usize].is_empty()
    }

    /// Does a fault strike here?
    pub(crate) fn strike(&self, stage: Stage, place: Place<'_>, dice: &mut Dice) -> Option<&FaultAction> {
        let planned = &self.stages[stage as usize];
        planned.iter().find(|fault| fault.strikes(self.seed, place, dice)).map(|fault| &fault.action)
    }
}

impl Planned {
    fn strikes(&self, seed: u64, place: Place<'_>, dice: &mut Dice) -> bool {
        if !self.conditions.hold_at(place) {
            return false;
        }
        let number = if self.conditions.by_address { of_address(seed, place.address) } else { dice.roll() };
        number < self.threshold && self.conditions.counts(self.met.fetch_add(1, Ordering::Relaxed))
    }
}

/// Domains do not care about case, and relays may change it.
fn of_address(seed: u64, address: &[u8]) -> u64 {
    let mut lower = [0; 320]; // 64 + @ + 255 octets; what is longer is decided by its first 320
    let len = address.len().min(lower.len());
    lower[..len].copy_from_slice(&address[..len]);
    lower[..len].make_ascii_lowercase();
    mix(xxhash_rust::xxh3::xxh3_64_with_seed(&lower[..len], seed))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as wanted")]
fn threshold(probability: f64) -> u64 {
    (probability * 2f64.powi(64)) as u64
}

/// A session's own generator, so that a run with one seed repeats.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, session: u64) -> Dice {
        Dice(mix(seed ^ mix(session)))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
