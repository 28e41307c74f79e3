//! What a provider's rules make of a refusal: a pause, another host, another source, another verdict.

use crate::clock::Clock;
use crate::core::{Core, Place};
use crate::domains::SiteKey;
use crate::providers::{Action, Judgement};
use message::{Reply, Scope, Verdict};
use queue::site_table::Health;
use ring::Ring;
use smtp_out::Protocol;
use std::net::SocketAddr;
use std::time::Duration;

impl<R: Ring, C: Clock> Core<R, C> {
    /// A reply to a recipient, a message or the connection. Some microseconds for a refusal, nothing for a delivery.
    pub(crate) fn judge(&mut self, place: Place, verdict: Verdict, scope: Scope) -> (Verdict, Scope) {
        let (Verdict::Deferred(reply) | Verdict::Failed(reply)) = &verdict else { return (verdict, scope) };
        let Some(connection) = self.outbound.get(place) else { return (verdict, scope) };
        let (site, peer) = (connection.site, connection.peer);
        if connection.reversed.is_some() || self.delivers_here(site) {
            // Providers do not fetch their mail, and users are none.
            return (verdict, scope);
        }
        let Some((action, defers)) = self.rule_for(site, reply) else { return (verdict, scope) };
        self.act(site, peer, action, reply);
        let verdict = match verdict {
            Verdict::Failed(reply) if defers => Verdict::Deferred(reply),
            Verdict::Deferred(reply) if action == Action::Bounce && !defers => Verdict::Failed(reply),
            verdict => verdict,
        };
        // Whoever is only to be tried again waits alone, however far the code reaches.
        (verdict, if action == Action::Defer { Scope::Recipient } else { scope })
    }

    /// True if the site is this machine's mailboxes.
    pub(crate) fn delivers_here(&self, site: SiteKey) -> bool {
        self.ways.get(self.sites.get(site).way).terms.protocol == Protocol::Mailboxes
    }

    /// What the rules say, noted in the log.
    fn rule_for(&self, site: SiteKey, reply: &Reply) -> Option<(Action, bool)> {
        let way = self.ways.get(self.sites.get(site).way);
        let Judgement { action, defers, rule } = self.settings.providers.judge(way.provider, None, reply)?;
        if !matches!(action, Action::Bounce | Action::Defer) {
            let source = self.settings.source_name(self.sites.get(site).source);
            tracing::warn!(site = &*way.site, source, rule, ?action, %reply, "a provider's rule holds");
        }
        Some((action, defers))
    }

    fn act(&mut self, site: SiteKey, peer: SocketAddr, action: Action, reply: &Reply) {
        match action {
            Action::Bounce | Action::Defer => {}
            Action::Slower { to_percent, lasts } => {
                let health = Health::Slower { permille: u32::from(to_percent) * 10, until: self.now + lasts };
                self.sites.get(site).pace.report(self.now, health);
            }
            Action::SkipMx { lasts } => {
                self.sites.get_mut(site).host_rests(peer, self.now + lasts);
                self.go_to_next_host(site, reply.clone());
            }
            Action::BackOff => {
                let wait = Duration::from_secs(self.settings.config.delivery.backoff_secs);
                self.sites.get_mut(site).trouble = Some(reply.clone());
                self.sites.get(site).pace.report(self.now, Health::HostFailed);
                self.site_must_wait(site, self.now + wait);
            }
            Action::Suspend { lasts } => self.suspend(site, lasts, false, reply),
            Action::BlockSource { lasts } => self.suspend(site, lasts, true, reply),
        }
    }

    /// `source_only`: the source is at fault, and others may go.
    fn suspend(&mut self, site: SiteKey, lasts: Duration, source_only: bool, reply: &Reply) {
        let until = self.now + lasts;
        self.sites.get_mut(site).trouble = Some(reply.clone());
        let health = if source_only { Health::Blocked { until } } else { Health::Suspended { until } };
        self.sites.get(site).pace.report(self.now, health);
        match source_only {
            true => self.close_site(site, until),
            false => self.site_must_wait(site, until),
        }
    }
}
