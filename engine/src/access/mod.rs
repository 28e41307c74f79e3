//! Who may come in, what each may do, and to whom mail may go: `[access]` and `[listeners]`, compiled.
//!
//! A session's engine asks in this order: [`Access::seat`] when somebody connects, [`Access::needs`] whether anything must be
//! looked up first (for most clients nothing, and then nothing leaves the core), [`Access::rights`] with what was found, and
//! again when more is known (a login, a certificate, XCLIENT). [`AccessDoor`] answers the session about senders and
//! recipients from then on. Pure but for [`AccessDoor`]'s one question to the kernel, whether an address literal is ours.
//!
//! Built anew by each reload; [`Counts`] and [`Rates`] are shared by all cores and outlive it. Bounds: each file's own.

mod counts;
mod domains;
mod door;
mod explain;
mod found;
mod judge;
mod rates;
mod rewrite;
mod table;

pub use counts::{Counts, Full, Seat, SessionLimits};
pub use domains::{Domains, Mailboxes};
pub use door::{AccessDoor, Shared};
pub use explain::Ask;
pub(crate) use found::reversed;
pub use found::{Found, IdentPorts, List, ListQuestion, Listed, LookUp, ReverseName, TEXT_MAX};
pub use judge::{Judgement, LISTS_FIELD};
pub use rates::{BUCKETS_MAX, Rates, What, Whose};
pub(crate) use rewrite::unquoted;
pub use table::{Facts, Table, Wants};

use crate::config::{self, Config, ListOn, Listener, Network, Pace, Rule, Words};
use message::{Domain, Mailbox, ReversePath};
use smtp_in::door::{Client, Origin, Refusal, Rights};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The number of the Unix socket, which is no listener of the configuration.
pub const SOCKET: usize = usize::MAX;

/// See the module.
#[derive(Debug)]
pub struct Access {
    pub(crate) table: Table,
    pub(crate) relay_to: Domains,
    pub(crate) bad_senders: Mailboxes,
    pub(crate) bad_recipients: Mailboxes,
    percent_hack: Domains,
    bang_paths: bool,
    /// Which addresses are this machine's.
    mailboxes: Option<Arc<local::virtual_domains::Domains>>,
    local_host: Option<Domain>,
    /// In the order of [`Config::listeners`].
    listeners: Vec<Place>,
    lists: Vec<Arc<List>>,
    relay_from: Vec<Network>,
    etrn_from: Vec<Network>,
    sessions: SessionLimits,
    per_address: Pace,
    per_login: Pace,
    per_sender: Pace,
}

/// A listener, as far as access goes.
#[derive(Debug)]
struct Place {
    name: String,
    listener: Listener,
    lists: Vec<Arc<List>>,
    sessions: SessionLimits,
}

/// What becomes of a client.
#[derive(Clone, Debug)]
pub enum Admission {
    /// May go on. With a field, it goes on top of each of the client's messages; it has its line end.
    Welcome(Rights, Option<Arc<str>>),
    Turned(Refusal),
}

impl Access {
    /// Of a checked configuration whose files have been read.
    pub fn new(config: &Config) -> Access {
        let access = &config.access;
        let lists: Vec<Arc<List>> = access
            .lists
            .iter()
            .map(|(name, list)| Arc::new(List { name: name.as_str().into(), list: list.clone() }))
            .collect();
        let sessions = SessionLimits {
            total: access.sessions_max.unwrap_or(u32::MAX),
            per_address: access.per_address.sessions_max.unwrap_or(u32::MAX),
            per_network: access.per_network.sessions_max.unwrap_or(u32::MAX),
        };
        let place = |(name, listener)| Place::new(name, listener, &lists, sessions);
        let intake = &config.intake;
        Access {
            table: Table::new(access.all_rules()),
            relay_to: relay_to(access),
            bad_senders: Mailboxes::new(access.bad_senders.iter().chain(&access.files.bad_senders)),
            bad_recipients: Mailboxes::new(access.bad_recipients.iter().chain(&access.files.bad_recipients)),
            percent_hack: Domains::new(access.percent_hack.iter(), None),
            bang_paths: access.bang_paths,
            mailboxes: config.local.as_ref().map(|local| Arc::clone(&local.domains)),
            local_host: access.local_addresses_become.as_ref().and_then(|host| Domain::parse(host).ok()),
            listeners: config.listeners().into_iter().map(place).collect(),
            lists,
            relay_from: intake.relay_from.clone(),
            etrn_from: intake.etrn_from.as_ref().unwrap_or(&intake.relay_from).clone(),
            sessions,
            per_address: access.per_address,
            per_login: access.per_login,
            per_sender: access.per_sender,
        }
    }

    /// A listener's number: its place in the order of [`Config::listeners`].
    pub fn listener(&self, name: &str) -> Option<usize> {
        self.listeners.iter().position(|place| place.name == name)
    }

    /// The listener of that number; none for the Unix socket.
    pub fn name_of(&self, listener: usize) -> Option<&str> {
        self.listeners.get(listener).map(|place| place.name.as_str())
    }

    /// What is found out about this client's messages is written on top of them: not for those who may relay.
    pub fn wants_verified(&self, client: &Client, listener: usize) -> bool {
        let place = self.listeners.get(listener);
        place.is_some_and(|place| place.listener.verify) && !client.rights.may_relay
    }

    /// What lists say of this client or its messages may be written on top of them: not for those who may relay.
    pub fn tags(&self, client: &Client, listener: usize) -> bool {
        let tags = |place: &Place| !place.lists.is_empty() && place.listener.thresholds().tag_at.is_some();
        self.listeners.get(listener).is_some_and(tags) && !client.rights.may_relay
    }

    /// Connections from that address begin with a PROXY header.
    pub fn is_proxied(&self, listener: usize, address: IpAddr) -> bool {
        let place = self.listeners.get(listener);
        place.is_some_and(|place| place.listener.proxy_from.iter().any(|network| network.contains(address)))
    }

    /// A place among the sessions, before anything is said. `Err`: 421. Two short locks.
    pub fn seat(&self, counts: &Arc<Counts>, client: &Client, listener: usize) -> Result<Seat, Refusal> {
        let mut limits = self.listeners.get(listener).map_or(self.sessions, |place| place.sessions);
        let rule = self.rule_of(&self.facts(client, listener, &Found::default()));
        if let Some(most) = rule.and_then(|(_, rule)| rule.sessions_max) {
            limits.per_address = most;
        }
        counts.enter(address_of(client), &limits).map_err(|full| match full {
            Full::Total => refusal(421, (3, 2), "Too many sessions at a time; try again later"),
            Full::Address => refusal(421, (7, 0), "Too many sessions from your address; try again later"),
            Full::Network => refusal(421, (7, 0), "Too many sessions from your network; try again later"),
        })
    }

    /// What must be looked up before [`Access::rights`] can be told; `None` if nothing. `local`: our end of the client's own
    /// connection, for ident; `None` if there is another host between.
    pub fn needs(&self, client: &Client, listener: usize, local: Option<SocketAddr>) -> Option<LookUp> {
        let Origin::Net { address, port } = client.origin else { return None };
        let place = self.listeners.get(listener);
        let unknown = Found::default();
        let facts = self.facts(client, listener, &unknown);
        let wants = self.table.wants(&facts);
        let is_asked = |of: fn(&Listener) -> bool| {
            !address.is_loopback() && place.is_some_and(|place| of(&place.listener))
        };
        let theirs = SocketAddr::new(address, port);
        let ident = wants.ident || is_asked(|listener| listener.ident);
        let look_up = LookUp {
            address,
            wants_name: wants.name || is_asked(|listener| listener.reverse_names),
            ident: local.filter(|_| ident).map(|ours| IdentPorts { ours, theirs }),
            lists: self.lists_about_address(client, &facts, place),
        };
        let is_needed = look_up.wants_name || look_up.ident.is_some() || !look_up.lists.is_empty();
        is_needed.then_some(look_up)
    }

    fn lists_about_address(
        &self,
        client: &Client,
        facts: &Facts<'_>,
        place: Option<&Place>,
    ) -> Vec<ListQuestion> {
        let (Some(place), Some(address)) = (place, facts.address) else { return Vec::new() };
        let rule = self.rule_of(facts).map(|(_, rule)| rule);
        let is_settled = rule.is_some_and(|rule| rule.deny.is_some() || rule.defer.is_some());
        if address.is_loopback() || is_settled || self.is_exempt(client, rule) {
            return Vec::new();
        }
        let lists = place.lists.iter().filter(|list| list.list.on == ListOn::Address);
        lists.map(|list| found::question_about_address(list, address)).collect()
    }

    /// Whoever may relay is known; whoever a rule exempts is the operator's business.
    fn is_exempt(&self, client: &Client, rule: Option<&Rule>) -> bool {
        match rule.and_then(|rule| rule.block_lists) {
            Some(is_held) => !is_held,
            None => self.may_relay(client, rule),
        }
    }

    fn may_relay(&self, client: &Client, rule: Option<&Rule>) -> bool {
        let by_rule = rule.and_then(|rule| rule.relay.or(rule.relay_suffix.as_ref().map(|_| true)));
        by_rule.unwrap_or_else(|| client.login.is_some() || is_in(&self.relay_from, client))
    }

    /// What the client may do, as far as it is known now. One look-up in the table.
    pub fn rights(&self, client: &Client, listener: usize, found: &Found) -> Admission {
        let facts = self.facts(client, listener, found);
        let matched = self.rule_of(&facts);
        let rule = matched.map(|(_, rule)| rule);
        if let Some(refusal) = rule.and_then(turned) {
            return Admission::Turned(refusal);
        }
        let place = self.listeners.get(listener);
        let by_rule = rule.and_then(kept_back);
        let (refusal, tag) = match by_rule {
            Some(refusal) => (Some(refusal), None),
            None => match self.judge(client, rule, place, &found.listed) {
                Judgement::Refuse(refusal) => (Some(refusal), None),
                Judgement::Tag(field) => (None, Some(field)),
                Judgement::Nothing => (None, None),
            },
        };
        let xclient_from = place.map_or(&[][..], |place| &place.listener.xclient_from);
        let is_local_process = matches!(client.origin, Origin::Local { .. });
        let rights = Rights {
            may_relay: self.may_relay(client, rule),
            may_flush: rule.and_then(|rule| rule.etrn).unwrap_or_else(|| is_in(&self.etrn_from, client)),
            may_xclient: rule
                .and_then(|rule| rule.xclient)
                .unwrap_or_else(|| !is_local_process && is_in(xclient_from, client)),
            size_max: rule.and_then(|rule| rule.size_max),
            refusal,
            name: match &found.name {
                ReverseName::Is(name) => Some(Arc::clone(name)),
                ReverseName::Unknown | ReverseName::Missing => None,
            },
            ident: found.ident.clone(),
            rule: self.number(matched.map(|(place, _)| place)),
        };
        Admission::Welcome(rights, tag)
    }

    fn judge(
        &self,
        client: &Client,
        rule: Option<&Rule>,
        place: Option<&Place>,
        listed: &[Listed],
    ) -> Judgement {
        let Some(place) = place.filter(|_| !listed.is_empty() && !self.is_exempt(client, rule)) else {
            return Judgement::Nothing;
        };
        let what = address_of(client).map_or_else(String::new, |address| address.to_string());
        judge::judge(listed, place.listener.thresholds(), &what)
    }

    /// What lists should be asked about a message's sender and the client's HELO name, when both are known. `None` if nothing.
    pub fn needs_of_message(
        &self,
        client: &Client,
        listener: usize,
        helo: &str,
        sender: &ReversePath,
    ) -> Option<LookUp> {
        let address = address_of(client).filter(|address| !address.is_loopback())?;
        let place = self.listeners.get(listener)?;
        if self.is_exempt(client, self.rule_for(client, listener)) {
            return None;
        }
        let sender = sender.mailbox().map(Mailbox::domain);
        let question = |list: &Arc<List>| match list.list.on {
            ListOn::Address => None,
            ListOn::SenderDomain => found::question_about_name(list, sender?),
            ListOn::Helo => found::question_about_name(list, helo),
        };
        let lists: Vec<ListQuestion> = place.lists.iter().filter_map(question).collect();
        (!lists.is_empty()).then_some(LookUp { address, wants_name: false, ident: None, lists })
    }

    /// What the answers to [`Access::needs_of_message`] mean for the message.
    pub fn judge_message(&self, listener: usize, found: &Found) -> Judgement {
        let thresholds = self.listeners.get(listener).map(|place| place.listener.thresholds());
        thresholds
            .map_or(Judgement::Nothing, |thresholds| judge::judge(&found.listed, thresholds, "The sender"))
    }

    /// Missing fields are added to this client's messages, and addresses are qualified.
    pub fn wants_fix_up(&self, client: &Client, listener: usize) -> bool {
        self.rule_for(client, listener).is_some_and(|rule| rule.fix_up)
    }

    /// Whose mail the client gets over its own connection (RFC 2645 §5.2.1), as entries of [`Domains`]: of the domains that it
    /// asks for, or of all that are its login's. `None`: it may not have it.
    pub fn may_fetch(&self, client: &Client, listener: usize, asked: &[Box<str>]) -> Option<Vec<String>> {
        client.login.as_ref()?;
        let rule = self.rule_for(client, listener).filter(|rule| !rule.atrn.is_empty())?;
        if asked.is_empty() {
            return Some(rule.atrn.clone());
        }
        let own = Domains::new(rule.atrn.iter(), None);
        let is_own = asked.iter().all(|domain| own.contains(domain));
        is_own.then(|| asked.iter().map(ToString::to_string).collect())
    }

    /// The rule by which the client got its rights. After a reload that changed rules: the one that matches now.
    fn rule_for(&self, client: &Client, listener: usize) -> Option<&Rule> {
        let number = client.rights.rule;
        if number == 0 {
            return None;
        }
        if number >> 16 == u32::from(self.table.edition()) {
            return self.table.rule((number & 0xffff).wrapping_sub(1));
        }
        let found = Found {
            name: client.rights.name.clone().map_or(ReverseName::Unknown, ReverseName::Is),
            ident: client.rights.ident.clone(),
            listed: Vec::new(),
        };
        self.rule_of(&self.facts(client, listener, &found)).map(|(_, rule)| rule)
    }

    /// 0: none matched.
    fn number(&self, place: Option<u32>) -> u32 {
        place.map_or(0, |place| u32::from(self.table.edition()) << 16 | (place + 1))
    }

    fn rule_of(&self, facts: &Facts<'_>) -> Option<(u32, &Rule)> {
        let place = self.table.find(facts)?;
        self.table.rule(place).map(|rule| (place, rule))
    }

    fn facts<'a>(&'a self, client: &'a Client, listener: usize, found: &'a Found) -> Facts<'a> {
        Facts {
            address: address_of(client),
            uid: match client.origin {
                Origin::Local { uid } => Some(uid),
                Origin::Net { .. } => None,
            },
            name: &found.name,
            ident: found.ident.as_deref(),
            login: client.login.as_deref(),
            certificate: client.certificate.as_ref(),
            listener: self.listeners.get(listener).map(|place| place.name.as_str()),
        }
    }
}

impl Place {
    fn new(name: String, listener: Listener, lists: &[Arc<List>], sessions: SessionLimits) -> Place {
        let asked = |list: &&Arc<List>| listener.block_lists.iter().any(|name| **name == *list.name);
        let lists = lists.iter().filter(asked).cloned().collect();
        let sessions = SessionLimits {
            per_address: listener.sessions_per_address.unwrap_or(sessions.per_address),
            per_network: listener.sessions_per_network.unwrap_or(sessions.per_network),
            ..sessions
        };
        Place { name, listener, lists, sessions }
    }
}

fn relay_to(access: &config::Access) -> Domains {
    Domains::new(access.relay_to.iter().chain(&access.files.relay_to), access.files.relay_to_cdb.clone())
}

fn address_of(client: &Client) -> Option<IpAddr> {
    match client.origin {
        Origin::Net { address, .. } => Some(address),
        Origin::Local { .. } => None,
    }
}

/// A process of this machine is in every network.
fn is_in(networks: &[Network], client: &Client) -> bool {
    address_of(client).is_none_or(|address| networks.iter().any(|network| network.contains(address)))
}

fn turned(rule: &Rule) -> Option<Refusal> {
    let denied = |words: &Words| said(554, words);
    rule.deny.as_ref().map(denied).or_else(|| rule.defer.as_ref().map(|words| said(421, words)))
}

fn kept_back(rule: &Rule) -> Option<Refusal> {
    let rejected = rule.reject_recipients.as_ref().map(|words| said(554, words));
    rejected.or_else(|| rule.defer_recipients.as_ref().map(|words| said(450, words)))
}

fn said(code: u16, words: &Words) -> Refusal {
    Refusal { code, enhanced: (7, 1), text: Arc::clone(&words.0) }
}

fn refusal(code: u16, enhanced: (u8, u8), text: &str) -> Refusal {
    Refusal { code, enhanced, text: text.into() }
}

#[cfg(test)]
mod tests;
