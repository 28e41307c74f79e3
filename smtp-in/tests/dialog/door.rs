//! An engine's word on senders and recipients, by how they are called.

use super::refusal;
use message::{Mailbox, MailboxRef, ReversePath};
use smtp_in::Gate;
use smtp_in::door::{Client, Door, Entry, Refusal};

pub(crate) struct Doorkeeper {
    pub(crate) gate: Gate,
}

pub(crate) fn gate(word: &str) -> Gate {
    match word {
        "open" => Gate::Open,
        "full" => Gate::Full,
        "broken" => Gate::Broken,
        _ => panic!("no gate {word}"),
    }
}

impl Door for Doorkeeper {
    fn gate(&self) -> Gate {
        self.gate
    }

    fn sender(&mut self, _client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Refusal> {
        match sender.as_str().split('@').next() {
            Some("badmailfrom") => Err(refusal("553", "5.7.1", "This sender is not welcome")),
            Some("too-fast") => Err(refusal("450", "4.7.1", "Too many messages from this sender")),
            Some("closing-time") => Err(refusal("421", "4.7.0", "Go away for a while")),
            _ => Ok(()),
        }
    }

    fn recipient(
        &mut self,
        client: &Client,
        _sender: &ReversePath,
        recipient: MailboxRef<'_>,
    ) -> Result<Entry, Refusal> {
        let is_local = recipient.domain == "local.example";
        match recipient.local_part {
            _ if !client.rights.may_relay && !is_local => Err(refusal("550", "5.7.1", "Relaying denied")),
            "nobody" => Err(refusal("550", "5.1.1", "No such mailbox")),
            "grey" => Err(refusal("450", "4.7.1", "Come again in a minute")),
            "closing-time" => Err(refusal("421", "4.7.0", "Go away for a while")),
            "literal" => Ok(Entry::As(Mailbox::parse("literal@local.example").expect("an address"))),
            "odd" => Err(refusal("200", "5.7.1", "two\r\n250 replies\u{e9}")),
            _ => Ok(Entry::AsGiven),
        }
    }
}
