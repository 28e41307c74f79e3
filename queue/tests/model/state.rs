//! The trivial model: a map from messages to what became of each of their recipients.
//!
//! Of each recipient the model keeps what was so at some time since the last moment that is known to be durable: the
//! loss of power may bring back any of that and nothing older, nothing else. The death of the process brings back the
//! last of what was put into a file.

use message::{MessageId, UnixMillis};
use queue::Attempts;
use queue::journal::Position;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Settled,
    Owed { attempts: Attempts, due: UnixMillis },
}

pub(crate) const NEW: Fate = Fate::Owed { attempts: Attempts::NONE, due: UnixMillis(0) };

/// A mark in a core's journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    pub(crate) core: u8,
    pub(crate) position: Position,
}

#[derive(Clone, Debug)]
struct Version {
    fate: Fate,
    /// Each of these says it.
    anchors: Vec<Anchor>,
    /// It was in a file when an earlier process died.
    was_put: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    pub(crate) local_part: String,
    pub(crate) domain: String,
    /// Never empty. The first one is durable, the last one is what is so.
    versions: Vec<Version>,
    /// How many versions came before `versions[0]`.
    forgotten: usize,
    /// The version that the message's owner knows of, counted from the first ever.
    known: usize,
}

impl Recipient {
    pub(crate) fn new(local_part: &str, domain: &str) -> Recipient {
        let version = Version { fate: NEW, anchors: Vec::new(), was_put: true };
        let (local_part, domain) = (local_part.to_owned(), domain.to_owned());
        Recipient { local_part, domain, versions: vec![version], forgotten: 0, known: 0 }
    }

    pub(crate) fn fate(&self) -> Fate {
        self.versions.last().expect("never empty").fate
    }

    /// Something became of it, and `anchor` says so. `is_owner`: the message's owner knows.
    pub(crate) fn becomes(&mut self, fate: Fate, anchor: Anchor, is_owner: bool) {
        self.versions.push(Version { fate, anchors: vec![anchor], was_put: false });
        if is_owner {
            self.owner_learns();
        }
    }

    fn owner_learns(&mut self) {
        self.known = self.forgotten + self.versions.len() - 1;
    }

    /// The owner took over what another core had marked.
    pub(crate) fn is_noted(&mut self, anchor: Anchor) {
        self.owner_learns();
        self.anchor_known(anchor);
    }

    /// What the owner knows is said once more.
    pub(crate) fn anchor_known(&mut self, anchor: Anchor) {
        if let Some(at) = self.known.checked_sub(self.forgotten) {
            self.versions[at].anchors.push(anchor);
        }
    }

    /// What was before the last durable version cannot come back.
    pub(crate) fn forget(&mut self, is_durable: &dyn Fn(&Anchor) -> bool) {
        let durable = |version: &Version| version.anchors.iter().any(is_durable);
        if let Some(at) = self.versions.iter().rposition(durable) {
            self.versions.drain(..at);
            self.forgotten += at;
        }
    }

    /// The process died: what was not put is lost.
    pub(crate) fn lose_unput(&mut self, is_put: &dyn Fn(&Anchor) -> bool) {
        for version in &mut self.versions {
            version.was_put |= version.anchors.iter().any(is_put);
        }
        let last = self.versions.iter().rposition(|version| version.was_put).unwrap_or(0);
        self.versions.truncate(last + 1);
    }

    /// True if the loss of power may bring it back like that.
    fn may_be(&self, fate: Fate) -> bool {
        self.versions.iter().any(|version| version.fate == fate)
    }

    /// It was found like that. `is_durable`: nothing else can come back any more.
    pub(crate) fn is_found(&mut self, fate: Fate, is_durable: bool) {
        if is_durable {
            self.forgotten += self.versions.len();
            self.versions = vec![Version { fate, anchors: Vec::new(), was_put: true }];
        }
        for version in &mut self.versions {
            version.anchors.clear();
        }
        self.owner_learns();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Whose submitters heard that they are durable, or that were found by a restart.
    pub(crate) messages: BTreeMap<MessageId, Vec<Recipient>>,
    /// Written, perhaps, and not known to be durable: they may be found or not.
    pub(crate) unsure: Vec<(MessageId, Vec<Recipient>)>,
    /// Found by a restart, but promised to nobody: the next loss of power may take them.
    unpromised: BTreeSet<MessageId>,
}

/// What a restart found of a recipient.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) local_part: String,
    pub(crate) domain: String,
    pub(crate) fate: Fate,
}

/// Of each message, the recipients that are owed, by index.
pub(crate) type Recovered = BTreeMap<MessageId, BTreeMap<u32, Found>>;

impl Model {
    pub(crate) fn recipient(&mut self, id: MessageId, index: u32) -> &mut Recipient {
        &mut self.messages.get_mut(&id).expect("it was committed")[index as usize]
    }

    pub(crate) fn is_committed(&mut self, id: MessageId) {
        let at = self.unsure.iter().rposition(|(unsure, _)| *unsure == id).expect("it was appended");
        let (id, recipients) = self.unsure.remove(at);
        assert!(self.messages.insert(id, recipients).is_none(), "{id} was given twice");
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Recipient> {
        self.messages.values_mut().flatten()
    }

    /// Compares what a restart found, and takes it for what is so from here on.
    /// Returns how many recipients are not as they were.
    pub(crate) fn check(&mut self, found: &Recovered, is_exact: bool) -> u64 {
        let mut undone = 0;
        for (id, owed) in found {
            if !self.messages.contains_key(id) {
                self.was_committed_after_all(*id, owed);
            }
        }
        let none = BTreeMap::new();
        for (id, recipients) in &mut self.messages {
            if !is_exact && !found.contains_key(id) && self.unpromised.contains(id) {
                recipients.iter_mut().for_each(|recipient| recipient.is_found(Fate::Settled, true));
                continue;
            }
            let owed = found.get(id).unwrap_or(&none);
            assert!(owed.keys().all(|index| (*index as usize) < recipients.len()), "{id}: {owed:?}");
            for (index, recipient) in (0..).zip(recipients) {
                let is_as_it_was = check_recipient((*id, index), recipient, owed.get(&index), is_exact);
                undone += u64::from(!is_as_it_was);
            }
        }
        undone
    }

    /// A message that nobody was told of is whole, or not there.
    fn was_committed_after_all(&mut self, id: MessageId, owed: &BTreeMap<u32, Found>) {
        let is_it = |recipients: &[Recipient]| {
            recipients.len() == owed.len()
                && recipients.iter().zip(owed.values()).all(|(recipient, found)| {
                    (recipient.local_part.as_str(), recipient.domain.as_str(), NEW)
                        == (found.local_part.as_str(), found.domain.as_str(), found.fate)
                })
        };
        let at = self.unsure.iter().rposition(|(unsure, recipients)| *unsure == id && is_it(recipients));
        let at = at.unwrap_or_else(|| panic!("{id} was never written: {owed:?}"));
        self.messages.insert(id, self.unsure[at].1.clone());
        self.unpromised.insert(id);
    }
}

/// True if it is as it was.
fn check_recipient(
    (id, index): (MessageId, u32),
    recipient: &mut Recipient,
    found: Option<&Found>,
    is_exact: bool,
) -> bool {
    let fate = found.map_or(Fate::Settled, |found| found.fate);
    let is_as_it_was = recipient.fate() == fate;
    assert!(
        is_as_it_was || !is_exact && recipient.may_be(fate),
        "{id}, {index}: {fate:?} was found of {recipient:?}"
    );
    if let Some(found) = found {
        let names = (&found.local_part, &found.domain);
        assert_eq!(names, (&recipient.local_part, &recipient.domain), "{id}, {index}: a name of another");
    }
    recipient.is_found(fate, !is_exact);
    is_as_it_was
}
