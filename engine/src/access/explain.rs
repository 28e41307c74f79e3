//! Which rule a client meets, and what it comes to: in words, for operators.

use super::{Access, AccessDoor, Admission, Facts, Found, Rates, ReverseName, SOCKET, Shared};
use crate::config::Rule;
use message::{MailboxRef, ReversePath};
use smtp_in::Gate;
use smtp_in::door::{Client, Door as _, Entry, Origin, Refusal, Rights};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Instant;

/// Whom is asked about.
#[derive(Clone, Debug)]
pub struct Ask {
    pub origin: Origin,
    /// `None`: as if nobody had looked. Empty: there is none.
    pub name: Option<String>,
    pub user: Option<String>,
    /// Default: the first one.
    pub listener: Option<String>,
    pub recipient: Option<String>,
}

impl Access {
    /// In lines. `Err`: what is wrong with the question.
    pub fn explain(&self, ask: &Ask, now: Instant, is_local: fn(IpAddr) -> bool) -> Result<String, String> {
        let listener = self.listener_asked(ask)?;
        let mut client = client(ask);
        let found = found(ask);
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_rule(&mut out, &self.facts(&client, listener, &found));
        let _ = self.write_look_ups(&mut out, &client, listener);
        match self.rights(&client, listener, &found) {
            Admission::Turned(refusal) => {
                let _ = writeln!(out, "Turned away: {}", words(&refusal));
                return Ok(out);
            }
            Admission::Welcome(rights, _) => {
                let _ = write_rights(&mut out, &rights);
                client.rights = rights;
                if let Some(domains) = self.may_fetch(&client, listener, &[]) {
                    let _ = writeln!(out, "May fetch mail (ATRN): {}", domains.join(", "));
                }
            }
        }
        if let Some(recipient) = &ask.recipient {
            let to = MailboxRef::parse(recipient).map_err(|error| format!("{recipient:?}: {error}"))?;
            let rates = Rates::default();
            let shared = Shared {
                rates: &rates,
                now,
                gate: Gate::Open,
                listener,
                is_local,
                returns: None,
                suppressed: None,
            };
            let answer = AccessDoor::new(self, shared).recipient(&client, &ReversePath::Null, to);
            let _ = write_entry(&mut out, to, answer);
        }
        Ok(out)
    }

    fn listener_asked(&self, ask: &Ask) -> Result<usize, String> {
        match (&ask.listener, &ask.origin) {
            (Some(name), _) => self.listener(name).ok_or_else(|| format!("there is no [listeners.{name}]")),
            (None, Origin::Local { .. }) => Ok(SOCKET),
            (None, Origin::Net { .. }) => Ok(0),
        }
    }

    fn write_rule(&self, out: &mut String, facts: &Facts<'_>) -> fmt::Result {
        match self.rule_of(facts) {
            Some((place, rule)) => writeln!(out, "Rule: {}", shown(place, rule))?,
            None => writeln!(out, "Rule: none of {} matches", self.table.len())?,
        }
        let wants = self.table.wants(facts);
        let unknown = *facts.name == ReverseName::Unknown;
        if wants.name && unknown {
            writeln!(
                out,
                "An earlier rule depends on the client's name: say --name, or --name '' if it has none"
            )?;
        }
        if wants.ident && facts.ident.is_none() {
            writeln!(out, "An earlier rule depends on what the client's ident service says")?;
        }
        Ok(())
    }

    fn write_look_ups(&self, out: &mut String, client: &Client, listener: usize) -> fmt::Result {
        let Some(look_up) = self.needs(client, listener, None) else {
            return writeln!(out, "Looked up before the greeting: nothing");
        };
        write!(out, "Looked up before the greeting:")?;
        if look_up.wants_name {
            write!(out, " its name")?;
        }
        for question in &look_up.lists {
            write!(out, " {}", question.name)?;
        }
        writeln!(out)
    }

    /// One line: how much there is of everything.
    pub fn summary(&self) -> String {
        let domains = match self.relay_to.count() {
            None => "all domains".to_owned(),
            Some(count) => format!("{count} entries of domains"),
        };
        format!(
            "access: {} listeners, {} rules, mail from anybody to {domains}, {} bad senders, {} bad recipients, {} lists",
            self.listeners.len(),
            self.table.len(),
            self.bad_senders.count(),
            self.bad_recipients.count(),
            self.lists.len()
        )
    }
}

fn client(ask: &Ask) -> Client {
    Client {
        origin: ask.origin.clone(),
        rights: Rights::default(),
        login: ask.user.as_deref().map(Into::into),
        certificate: None,
        is_encrypted: false,
    }
}

fn found(ask: &Ask) -> Found {
    let name = match ask.name.as_deref() {
        None => ReverseName::Unknown,
        Some("") => ReverseName::Missing,
        Some(name) => ReverseName::Is(name.to_lowercase().into()),
    };
    Found { name, ..Found::default() }
}

/// Where it stands and what it says, on one line.
fn shown(place: u32, rule: &Rule) -> String {
    let text = toml::to_string(rule).unwrap_or_default();
    let text = text.trim_end().lines().collect::<Vec<_>>().join(", ");
    let text = if text.is_empty() { "anybody, with nothing set" } else { &text };
    match &rule.source.0 {
        Some(_) => format!("{}: {text}", rule.source),
        None => format!("[[access.rules]] number {}: {text}", place + 1),
    }
}

fn write_rights(out: &mut String, rights: &Rights) -> fmt::Result {
    let said = |may: bool| if may { "yes" } else { "no" };
    writeln!(out, "May send to any domain: {}", said(rights.may_relay))?;
    writeln!(out, "May have mail sent now (ETRN): {}", said(rights.may_flush))?;
    writeln!(out, "May say for whom it comes (XCLIENT): {}", said(rights.may_xclient))?;
    if let Some(size_max) = rights.size_max {
        writeln!(out, "Octets of a message: {size_max}")?;
    }
    rights
        .refusal
        .as_ref()
        .map_or(Ok(()), |refusal| writeln!(out, "Each recipient refused: {}", words(refusal)))
}

fn write_entry(out: &mut String, to: MailboxRef<'_>, answer: Result<Entry, Refusal>) -> fmt::Result {
    match answer {
        Ok(Entry::AsGiven) => writeln!(out, "RCPT TO:<{to}>: taken"),
        Ok(Entry::As(other)) => writeln!(out, "RCPT TO:<{to}>: taken as <{other}>"),
        Err(refusal) => writeln!(out, "RCPT TO:<{to}>: {}", words(&refusal)),
    }
}

fn words(refusal: &Refusal) -> String {
    let (subject, detail) = refusal.enhanced;
    format!("{} {}.{subject}.{detail} {}", refusal.code, refusal.code / 100, refusal.text)
}
