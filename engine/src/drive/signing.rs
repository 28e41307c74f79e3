//! Signatures of what goes out (DKIM): made when a message is first sent, for all of its deliveries on all cores.
//!
//! They stay with the message in memory, so a list of a million is signed once, and never get to the disk: what waits
//! there, or is in memory when the keys change, is signed by the new ones. Bound: a signature costs a pass over the content
//! and, by an RSA key, less than a millisecond, for which the core waits; a second core that has the same message, too.

use crate::drive::letters::Letters;
use crate::observe::Counters;
use bytes::Bytes;
use message::UnixMillis;
use message::dkim::{SignError, Signed, Signers};
use queue::fanout::{Letter, OpenRange, Prefix};
use std::sync::Arc;

/// What was done about a message's signatures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Signing {
    /// They are there, or nobody signs it.
    #[default]
    Nothing,
    Done,
    Failed(SignError),
}

/// Sees to it that the range's message has its signatures, made by these signers and good for a while. Two loads if they are
/// there, or nobody signs anything.
pub(super) fn sign(
    open: &mut OpenRange,
    letters: &mut Letters,
    signers: &Signers,
    now: UnixMillis,
) -> Signing {
    if open.letter().has_outdated_prefix(signers.tag(), now) {
        open.set_letter(renewed(open, letters, signers, now));
    }
    if signers.is_empty() || open.letter().has_prefix() {
        return Signing::Nothing;
    }
    let (letter, mut signing) = (Arc::clone(open.letter()), Signing::Nothing);
    letter.put_before(|content| {
        let (prefix, done) = prefix(content, signers, now);
        signing = done;
        prefix
    });
    match signing {
        Signing::Done => letters.renew(open.range().message, &letter),
        Signing::Failed(error) => tracing::debug!(msg = %letter.id, %error, "the message goes out unsigned"),
        Signing::Nothing => {}
    }
    signing
}

/// The letter that the message is known by, if that is up to date; else one without signatures.
fn renewed(open: &OpenRange, letters: &mut Letters, signers: &Signers, now: UnixMillis) -> Arc<Letter> {
    let (key, old) = (open.range().message, open.letter());
    let is_good = |known: &Arc<Letter>| known.id == old.id && !known.has_outdated_prefix(signers.tag(), now);
    if let Some(known) = letters.get(key).filter(is_good) {
        return known;
    }
    let letter = Arc::new(old.without_prefix());
    letters.renew(key, &letter);
    letter
}

fn prefix(content: &Bytes, signers: &Signers, now: UnixMillis) -> (Prefix, Signing) {
    let none = Prefix { octets: Bytes::new(), tag: signers.tag(), until: UnixMillis(u64::MAX) };
    match signers.fields_for(content, now) {
        Ok(Some(Signed { fields, until })) => {
            (Prefix { octets: Bytes::from(fields), until, ..none }, Signing::Done)
        }
        Ok(None) => (none, Signing::Nothing),
        Err(error) => (none, Signing::Failed(error)),
    }
}

impl Counters {
    pub(super) fn count_signed(&self, signing: Signing) {
        match signing {
            Signing::Nothing => {}
            Signing::Done => self.signed.add(1),
            Signing::Failed(_) => self.unsigned.add(1),
        }
    }
}
