//! Faults on request: what a provider may do wrong, at which stage, and how often.
//!
//! Written `STAGE=WHAT:PROBABILITY`, with `:by-address` where the same address shall always meet the same fate:
//! then a hash of (seed, address) decides instead of the generator. The first fault that strikes wins.

use std::str::FromStr;

use crate::text::mix;

/// Where in a session a fault strikes. `Dot` is the reply to the content, by DATA or by BDAT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Connect,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Dot,
}

const STAGES: [(Stage, &str); 7] = [
    (Stage::Connect, "connect"),
    (Stage::Ehlo, "ehlo"),
    (Stage::Mail, "mail"),
    (Stage::Rcpt, "rcpt"),
    (Stage::Data, "data"),
    (Stage::Dot, "dot"),
    (Stage::Dot, "bdat"),
];

impl Stage {
    pub fn name(self) -> &'static str {
        STAGES.iter().find(|(stage, _)| *stage == self).map_or("", |(_, name)| name)
    }
}

/// What happens when a fault strikes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultAction {
    /// This code instead of the usual reply; 421 also ends the connection.
    Reply(u16),
    /// The connection ends there, without a reply.
    Drop,
    /// The message is accepted and recorded, and the connection ends before the reply.
    DropAfterAccept,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    pub stage: Stage,
    pub action: FaultAction,
    pub probability: f64,
    pub by_address: bool,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{0}: a fault is STAGE=CODE:PROBABILITY[:by-address]; stages connect ehlo mail rcpt data dot, CODE 400-599, \
         drop or (at dot) drop-after-accept; by-address only at mail and rcpt"
)]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        parse(text).filter(is_possible).ok_or_else(|| FaultError(text.into()))
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (stage, rest) = text.split_once('=')?;
    let stage = STAGES.iter().find(|(_, name)| *name == stage)?.0;
    let mut parts = rest.split(':');
    let action = match parts.next()? {
        "drop" => FaultAction::Drop,
        "drop-after-accept" => FaultAction::DropAfterAccept,
        code => FaultAction::Reply(code.parse().ok()?),
    };
    let probability = parts.next()?.parse().ok()?;
    let by_address = match parts.next() {
        None => false,
        Some("by-address") => true,
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Fault { stage, action, probability, by_address })
}

fn is_possible(fault: &Fault) -> bool {
    let action = match fault.action {
        FaultAction::Reply(code) => (400..600).contains(&code),
        FaultAction::Drop => true,
        FaultAction::DropAfterAccept => fault.stage == Stage::Dot,
    };
    let address = !fault.by_address || matches!(fault.stage, Stage::Mail | Stage::Rcpt);
    action && address && (0.0..=1.0).contains(&fault.probability)
}

/// The faults of a sink, sorted by stage.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    stages: [Vec<Planned>; 6],
    seed: u64,
}

#[derive(Debug)]
struct Planned {
    action: FaultAction,
    /// Strikes when a uniform u64 is below this.
    threshold: u64,
    by_address: bool,
}

impl Faults {
    pub(crate) fn new(faults: &[Fault], seed: u64) -> Faults {
        let mut planned = Faults { seed, ..Faults::default() };
        for fault in faults {
            let (action, by_address) = (fault.action, fault.by_address);
            let threshold = threshold(fault.probability);
            planned.stages[fault.stage as usize].push(Planned { action, threshold, by_address });
        }
        planned
    }

    /// Does a fault strike here? Free where none is planned for the stage.
    pub(crate) fn strike(&self, stage: Stage, address: &[u8], dice: &mut Dice) -> Option<FaultAction> {
        self.stages[stage as usize]
            .iter()
            .find(|fault| fault.strikes(self.seed, address, dice))
            .map(|f| f.action)
    }
}

impl Planned {
    fn strikes(&self, seed: u64, address: &[u8], dice: &mut Dice) -> bool {
        let number = if self.by_address { of_address(seed, address) } else { dice.roll() };
        number < self.threshold
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

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_written() {
        let fault: Fault = "rcpt=550:0.01:by-address".parse().unwrap();
        assert_eq!((fault.stage, fault.action), (Stage::Rcpt, FaultAction::Reply(550)));
        assert!(fault.by_address);
        assert_eq!("bdat=drop-after-accept:1".parse::<Fault>().unwrap().stage, Stage::Dot);
        for wrong in
            ["rcpt", "rcpt=250:1", "mail=drop-after-accept:1", "dot=450:2", "dot=450:1:by-address", "x=450:1"]
        {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_always_meets_the_same_fate_at_about_the_rate_asked() {
        let faults = Faults::new(&["rcpt=550:0.1:by-address".parse().unwrap()], 7);
        let struck = |n: u32, session| {
            let address = format!("u{n}@d.test");
            faults.strike(Stage::Rcpt, address.as_bytes(), &mut Dice::new(7, session)).is_some()
        };
        let count = (0..10_000).filter(|&n| struck(n, 1)).count();
        assert!((800..1200).contains(&count), "{count}");
        assert!((0..1000).all(|n| struck(n, 1) == struck(n, 2)));
    }

    #[test]
    fn certain_faults_always_strike_and_impossible_ones_never() {
        let mut dice = Dice::new(1, 1);
        let faults = Faults::new(&["mail=450:1".parse().unwrap(), "rcpt=450:0".parse().unwrap()], 1);
        assert!((0..1000).all(|_| faults.strike(Stage::Mail, b"", &mut dice).is_some()));
        assert!((0..1000).all(|_| faults.strike(Stage::Rcpt, b"", &mut dice).is_none()));
    }
}
