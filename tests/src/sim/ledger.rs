//! Who was told what: everything that injectors were promised and sinks were given, for the audit to compare.

use super::letter::{Intake, Letter, TOKEN_FIELD};
use super::timeline::digest;
use memchr::memmem;
use std::collections::BTreeMap;
use std::time::Duration;

/// A recipient of a letter: index of the letter, index of the recipient.
pub type Place = (usize, usize);

#[derive(Debug)]
pub struct Ledger {
    pub letters: Vec<Letter>,
    /// Every recipient address of every letter: each occurs once.
    places: BTreeMap<String, Place>,
    /// Reverse-path tokens by recipient: none may stand for two.
    senders_seen: BTreeMap<String, Place>,
    /// What must never happen, as sentences.
    pub corrupt: Vec<String>,
    pub bounces: u32,
    /// How often injectors were answered so, to MAIL and to the end of a letter.
    pub replies: BTreeMap<u16, u32>,
    /// The last answer of `settled`, unless something was entered since.
    settled: Option<bool>,
}

impl Ledger {
    pub(super) fn new() -> Ledger {
        Ledger {
            letters: Vec::new(),
            places: BTreeMap::new(),
            senders_seen: BTreeMap::new(),
            corrupt: Vec::new(),
            bounces: 0,
            replies: BTreeMap::new(),
            settled: None,
        }
    }

    pub fn add(&mut self, letter: Letter) {
        let index = self.letters.len();
        assert_eq!(letter.token, index, "a letter's token is its place in the ledger");
        for (at, recipient) in letter.recipients.iter().enumerate() {
            self.places.insert(recipient.address.clone(), (index, at));
        }
        self.letters.push(letter);
        self.settled = None;
    }

    fn recipient(&mut self, (letter, recipient): Place) -> &mut super::letter::Recipient {
        self.settled = None;
        &mut self.letters[letter].recipients[recipient]
    }

    // ---- what injectors know ----

    /// Recipients of a letter that are still to be submitted.
    pub fn owed(&self, letter: usize) -> Vec<usize> {
        let all = self.letters[letter].recipients.iter().enumerate();
        all.filter(|(_, recipient)| recipient.intake == Intake::Owed).map(|(index, _)| index).collect()
    }

    pub fn offered(&mut self, place: Place) {
        self.recipient(place).offered += 1;
    }

    pub fn ambiguous(&mut self, place: Place) {
        self.recipient(place).ambiguous += 1;
    }

    pub fn replied(&mut self, code: u16) {
        *self.replies.entry(code).or_default() += 1;
    }

    pub fn intake(&mut self, place: Place, intake: Intake) {
        self.recipient(place).intake = intake;
    }

    // ---- what sinks know ----

    /// A sink said 5xx for this forward-path.
    pub fn failed(&mut self, forward_path: &str) {
        if let Some(place) = self.places.get(forward_path) {
            let place = *place;
            self.recipient(place).failed += 1;
        }
    }

    /// When a sink first heard of this recipient, which may be now. `None` for addresses that bounces go to.
    pub fn first_heard(&mut self, forward_path: &str, now: Duration) -> Option<Duration> {
        let (letter, recipient) = *self.places.get(forward_path)?;
        Some(*self.letters[letter].recipients[recipient].first_heard.get_or_insert(now))
    }

    /// A sink took a message for one recipient.
    pub fn delivered(&mut self, reverse_path: &str, forward_path: &str, content: &[u8]) -> Option<Place> {
        let Some((token, from)) = token_of(content).filter(|(token, _)| *token < self.letters.len()) else {
            self.corrupt(format!("to <{forward_path}> from <{reverse_path}>: content of no letter"));
            return None;
        };
        match self.places.get(forward_path).copied() {
            Some(place) if place.0 == token => {
                Some(self.delivered_letter(place, reverse_path, &content[from..]))
            }
            _ if reverse_path.is_empty() => {
                self.bounced(token, forward_path, content);
                None
            }
            _ => {
                self.corrupt(format!("letter {token} to <{forward_path}>, who is none of its recipients"));
                None
            }
        }
    }

    fn delivered_letter(&mut self, place: Place, reverse_path: &str, content: &[u8]) -> Place {
        let letter = &self.letters[place.0];
        let recipient = &letter.recipients[place.1];
        let what = format!("letter {} to <{}>", letter.token, recipient.address);
        let mut wrong = Vec::new();
        if digest(content) != letter.digest {
            wrong.push(format!(
                "{what}: {} octets differ from the {} submitted",
                content.len(),
                letter.content.len()
            ));
        }
        if !letter.may_come_from(&recipient.address, reverse_path) {
            wrong.push(format!("{what}: reverse-path <{reverse_path}> is not its own"));
        }
        if recipient.offered == 0 || recipient.intake == Intake::Refused {
            wrong.push(format!(
                "{what}: delivered, but {:?} and offered {} times",
                recipient.intake, recipient.offered
            ));
        }
        let verp = letter.verp.is_some();
        for sentence in wrong {
            self.corrupt(sentence);
        }
        if verp {
            self.sender_is_only(place, reverse_path);
        }
        self.recipient(place).delivered += 1;
        place
    }

    fn sender_is_only(&mut self, place: Place, reverse_path: &str) {
        let first = *self.senders_seen.entry(reverse_path.to_owned()).or_insert(place);
        if first != place {
            self.corrupt(format!(
                "reverse-path <{reverse_path}> stands for two recipients: {first:?} and {place:?}"
            ));
        }
    }

    /// A bounce names recipients in its text, or by the VERP address that it goes to.
    fn bounced(&mut self, token: usize, forward_path: &str, content: &[u8]) {
        self.bounces += 1;
        let letter = &self.letters[token];
        let named = |address: &str| memmem::find(content, address.as_bytes()).is_some();
        let all = letter.recipients.iter().enumerate();
        let about: Vec<usize> = all
            .filter(|(_, recipient)| {
                letter.may_bounce_to(&recipient.address, forward_path) && named(&recipient.address)
            })
            .map(|(index, _)| index)
            .collect();
        if about.is_empty() {
            self.corrupt(format!("a bounce of letter {token} went to <{forward_path}> about nobody"));
        }
        for index in about {
            self.recipient((token, index)).bounced += 1;
        }
    }

    /// The sink's 250 for these never reached the core.
    pub fn unheard(&mut self, places: &[Place]) {
        for place in places {
            self.recipient(*place).unheard += 1;
        }
    }

    /// Something happened that must not.
    pub fn corrupt(&mut self, sentence: String) {
        self.corrupt.push(sentence);
    }

    // ---- questions ----

    pub(super) fn settled(&mut self) -> bool {
        let Ledger { letters, settled, .. } = self;
        *settled.get_or_insert_with(|| letters.iter().all(Letter::is_settled))
    }
}

impl Letter {
    fn is_settled(&self) -> bool {
        self.recipients.iter().all(|recipient| match recipient.intake {
            Intake::Owed => false,
            Intake::Refused | Intake::GivenUp => true,
            Intake::Accepted => recipient.delivered > 0 || recipient.failed > 0 && recipient.bounced > 0,
        })
    }
}

/// The letter that content says it is, and where that starts.
fn token_of(content: &[u8]) -> Option<(usize, usize)> {
    let found = memmem::find_iter(content, TOKEN_FIELD).find(|at| *at == 0 || content[at - 1] == b'\n')?;
    let digits = &content[found + TOKEN_FIELD.len()..];
    let len = digits.iter().position(|octet| !octet.is_ascii_digit())?;
    let token = std::str::from_utf8(&digits[..len]).ok()?.parse().ok()?;
    Some((token, found))
}

#[cfg(test)]
mod tests {
    use super::super::audit::Audit;
    use super::super::letter::{LetterPlan, Recipient};
    use super::super::rng::Rng;
    use super::*;

    /// One accepted letter to two recipients.
    fn ledger() -> Ledger {
        let plan = LetterPlan {
            recipients: 2..3,
            body_len: 100..200,
            domains: vec!["d0.example".into()],
            verp: false,
        };
        let mut letter = Letter::make(0, &plan, &mut Rng::new(5));
        letter.sender = "list0@lists.example".into();
        for (recipient, address) in letter.recipients.iter_mut().zip(["r.0.0@d0.example", "r.0.1@d0.example"])
        {
            *recipient = Recipient { intake: Intake::Accepted, offered: 1, ..Recipient::new(address.into()) };
        }
        let mut ledger = Ledger::new();
        ledger.add(letter);
        ledger
    }

    fn received(ledger: &Ledger) -> Vec<u8> {
        [b"Received: from x\r\n", &ledger.letters[0].content[..]].concat()
    }

    #[test]
    fn what_arrives_as_submitted_is_sound_and_what_does_not_arrive_is_lost() {
        let mut ledger = ledger();
        let content = received(&ledger);
        ledger.delivered("list0@lists.example", "r.0.0@d0.example", &content);
        let audit = Audit::of(&ledger);
        assert_eq!((audit.delivered, audit.lost.len(), ledger.settled()), (1, 1, false));
        ledger.delivered("list0@lists.example", "r.0.1@d0.example", &content);
        Audit::of(&ledger).assert_exact();
        assert!(ledger.settled());
    }

    #[test]
    fn a_failure_is_lost_mail_until_its_sender_is_told() {
        let mut ledger = ledger();
        let content = received(&ledger);
        ledger.delivered("list0@lists.example", "r.0.0@d0.example", &content);
        ledger.failed("r.0.1@d0.example");
        assert_eq!(Audit::of(&ledger).lost.len(), 1);
        let bounce = [b"Subject: bounce\r\n\r\nr.0.1@d0.example: 550\r\n\r\n", &content[..]].concat();
        ledger.delivered("", "list0@lists.example", &bounce);
        Audit::of(&ledger).assert_exact();
        assert!(ledger.settled());
    }

    #[test]
    fn every_way_to_be_wrong_is_found() {
        let deliver = |ledger: &mut Ledger, from: &str, to: &str, content: &[u8]| {
            ledger.delivered(from, to, content);
        };
        let mut ledger = ledger();
        let content = received(&ledger);
        let mut changed = content.clone();
        *changed.last_mut().unwrap() ^= 1;
        deliver(&mut ledger, "list0@lists.example", "r.0.0@d0.example", &changed);
        deliver(&mut ledger, "list1@lists.example", "r.0.0@d0.example", &content);
        deliver(&mut ledger, "list0@lists.example", "r.9.9@d0.example", &content);
        deliver(&mut ledger, "list0@lists.example", "r.0.0@d0.example", b"no token\r\n");
        deliver(&mut ledger, "", "other@lists.example", &content);
        ledger.intake((0, 1), Intake::Refused);
        deliver(&mut ledger, "list0@lists.example", "r.0.1@d0.example", &content);
        assert_eq!(Audit::of(&ledger).corrupt.len(), 6, "{}", Audit::of(&ledger));
    }

    #[test]
    fn copies_need_reasons() {
        let mut ledger = ledger();
        let content = received(&ledger);
        for _ in 0..4 {
            ledger.delivered("list0@lists.example", "r.0.0@d0.example", &content);
        }
        ledger.unheard(&[(0, 0)]);
        ledger.ambiguous((0, 0));
        let audit = Audit::of(&ledger);
        assert_eq!((audit.duplicates, audit.duplicates_unexplained), (3, 1));
    }
}
