//! What a core answers its sessions about senders and recipients, at once.
//!
//! Cost of a recipient from a client that may relay, where nothing is configured about recipients: a few comparisons; no
//! allocation, no lock. Where there are rates, one short lock for each that applies.

use super::{Access, Rates, What, Whose, address_of, refusal, rewrite};
use crate::config::Pace;
use crate::returns::Returns;
use crate::suppression::Refusing;
use message::{Mailbox, MailboxRef, ReversePath};
use smtp_in::Gate;
use smtp_in::door::{Client, Door, Entry, Origin, Refusal};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Rewritings of one address, each of which may make the next one possible.
const REWRITINGS_MAX: usize = 8;

/// What all cores share, and when and how the question is asked.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub rates: &'a Rates,
    pub now: Instant,
    pub gate: Gate,
    /// The listener's number, see [`Access::listener`]; [`super::SOCKET`] for the Unix socket.
    pub listener: usize,
    /// True if the machine has that address.
    pub is_local: fn(IpAddr) -> bool,
    /// Addresses that mail comes back to, which anybody may send to. `None`: the key that tells them is not at hand.
    pub returns: Option<&'a Returns>,
    /// Who is refused for being on the suppression list, if anybody is.
    pub(crate) suppressed: Option<Refusing<'a>>,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct AccessDoor<'a> {
    access: &'a Access,
    shared: Shared<'a>,
}

impl<'a> AccessDoor<'a> {
    pub fn new(access: &'a Access, shared: Shared<'a>) -> AccessDoor<'a> {
        AccessDoor { access, shared }
    }

    /// Takes a token of each rate that applies, or none.
    fn spend(&self, client: &Client, sender: &ReversePath, what: What) -> Result<(), Refusal> {
        let access = self.access;
        let (own, by_sender) = (access.pace_of(client, self.shared.listener), access.per_sender);
        let of = |pace: Pace| match what {
            What::Messages => pace.message_rate,
            What::Recipients => pace.recipient_rate,
        };
        if of(own).or(of(by_sender)).is_none() {
            return Ok(());
        }
        let (now, rates) = (self.shared.now, self.shared.rates);
        let whose = whose(client);
        if let Some(rate) = of(own) {
            rates.take(whose, what, rate, now).map_err(|wait| too_fast(what, "you", wait))?;
        }
        let Some(rate) = of(by_sender) else { return Ok(()) };
        let lower = sender.as_str().to_lowercase();
        rates.take(Whose::Sender(&lower), what, rate, now).map_err(|wait| {
            if let Some(rate) = of(own) {
                rates.give_back(whose, what, rate);
            }
            too_fast(what, "this sender", wait)
        })
    }

    fn is_bad(&self, recipient: MailboxRef<'_>) -> bool {
        let bad = &self.access.bad_recipients;
        !bad.is_empty() && bad.contains(recipient.local_part, recipient.domain)
    }

    /// Percent hacks, bang paths and our own address literals. `None`: it is what it was.
    fn rewritten(&self, recipient: MailboxRef<'_>) -> Option<Mailbox> {
        let access = self.access;
        let mut now: Option<Mailbox> = None;
        for _ in 0..REWRITINGS_MAX {
            let at = now.as_ref().map_or(recipient, Mailbox::as_ref);
            let next = if let Some(host) = access.local_host.as_ref().filter(|_| self.is_ours(at.domain)) {
                Mailbox::parse(&format!("{}@{host}", at.local_part)).ok()
            } else if !access.percent_hack.is_empty() && access.percent_hack.contains(at.domain) {
                rewrite::percent_hack(at)
            } else {
                None
            };
            let next =
                next.or_else(|| if self.has_bang_paths(at.domain) { rewrite::bang_path(at) } else { None });
            match next {
                Some(next) => now = Some(next),
                None => break,
            }
        }
        now
    }

    /// From those who may not relay, and to nobody that they may send to, mail may still come back.
    fn only_returns(&self, recipient: MailboxRef<'_>) -> Result<(), Refusal> {
        let Some(returns) = self.shared.returns.filter(|returns| returns.concerns(recipient.domain)) else {
            return Err(refusal(550, (7, 1), "Relaying denied"));
        };
        let found = returns.address(recipient).map(drop);
        found.ok_or_else(|| refusal(550, (1, 1), "No such return address"))
    }

    /// A mailbox of this machine: it needs no leave. That of everybody (`:word`) does, for its mail is anybody's.
    fn is_for_us(&self, recipient: MailboxRef<'_>) -> bool {
        self.access.mailboxes.as_ref().is_some_and(|domains| {
            let is_exception = domains.is_exception(recipient.local_part, recipient.domain);
            if is_exception {
                !domains.is_local(recipient.domain)
            } else {
                domains.is_named(recipient.domain)
            }
        })
    }

    /// A path that ends at another host's domain is that host's to read.
    fn has_bang_paths(&self, domain: &str) -> bool {
        self.access.bang_paths
            && self.access.mailboxes.as_ref().is_some_and(|domains| domains.has_mailboxes(domain))
    }

    fn is_ours(&self, domain: &str) -> bool {
        rewrite::literal(domain).is_some_and(|address| (self.shared.is_local)(address))
    }

    fn suffixed(&self, client: &Client, recipient: MailboxRef<'_>) -> Result<Option<Mailbox>, Refusal> {
        let rule = self.access.rule_for(client, self.shared.listener);
        let Some(suffix) = rule.and_then(|rule| rule.relay_suffix.as_ref()) else { return Ok(None) };
        rewrite::with_suffix(recipient, &suffix.0)
            .map(Some)
            .map_err(|_| refusal(553, (1, 3), "The address is too long with our suffix"))
    }
}

impl Door for AccessDoor<'_> {
    fn gate(&self) -> Gate {
        self.shared.gate
    }

    fn sender(&mut self, client: &Client, sender: &ReversePath, _size: Option<u64>) -> Result<(), Refusal> {
        if let ReversePath::Mailbox(mailbox) = sender
            && self.access.bad_senders.contains(mailbox.local_part(), mailbox.domain())
        {
            return Err(refusal(553, (7, 1), "Mail from this sender is not taken here"));
        }
        self.spend(client, sender, What::Messages)
    }

    fn recipient(
        &mut self,
        client: &Client,
        sender: &ReversePath,
        recipient: MailboxRef<'_>,
    ) -> Result<Entry, Refusal> {
        if self.is_bad(recipient) {
            return Err(refusal(550, (7, 1), "Mail to this recipient is not taken here"));
        }
        let mut now = self.rewritten(recipient);
        if let Some(rewritten) = &now
            && self.is_bad(rewritten.as_ref())
        {
            return Err(refusal(550, (7, 1), "Mail to this recipient is not taken here"));
        }
        let at = now.as_ref().map_or(recipient, Mailbox::as_ref);
        if client.rights.may_relay {
            now = self.suffixed(client, at)?.or(now);
        } else if !(self.access.relay_to.contains(at.domain) || self.is_for_us(at)) {
            self.only_returns(at)?;
        }
        let at = now.as_ref().map_or(recipient, Mailbox::as_ref);
        if self.shared.suppressed.is_some_and(|suppressed| suppressed.refuses(sender, at)) {
            return Err(refusal(550, (7, 1), "The recipient is on the suppression list"));
        }
        self.spend(client, sender, What::Recipients)?;
        Ok(now.map_or(Entry::AsGiven, Entry::As))
    }
}

impl Access {
    /// The client's own rates: its rule's, else those of logins or of addresses.
    fn pace_of(&self, client: &Client, listener: usize) -> Pace {
        let usual = if client.login.is_some() { self.per_login } else { self.per_address };
        let rule = self.rule_for(client, listener);
        Pace {
            message_rate: rule.and_then(|rule| rule.message_rate).or(usual.message_rate),
            recipient_rate: rule.and_then(|rule| rule.recipient_rate).or(usual.recipient_rate),
            sessions_max: None,
        }
    }
}

fn whose(client: &Client) -> Whose<'_> {
    match (&client.login, &client.origin) {
        (Some(login), _) => Whose::Login(login),
        (None, Origin::Local { uid }) => Whose::Uid(*uid),
        (None, Origin::Net { .. }) => address_of(client).map_or(Whose::Login(""), Whose::Address),
    }
}

fn too_fast(what: What, who: &str, wait: Duration) -> Refusal {
    let what = match what {
        What::Messages => "messages",
        What::Recipients => "recipients",
    };
    // Rounded up: whoever comes back then is let in.
    let secs = wait.as_secs() + 1;
    refusal(450, (7, 1), &format!("Too many {what} from {who}; try again in {secs} s"))
}
