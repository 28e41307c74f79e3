//! Looks, for operators who ask over the control socket: all cores are asked, and what they say becomes one answer.
//!
//! Changes nothing but the memory of hosts that failed, where that is asked for. Whoever may give orders may look. Bounds:
//! a look for each connection of the socket, [`TRACES_MAX`] of them dialogues; [`RESOLVE_MAX`] for the name servers.

use super::dns::Resolver;
use super::socket::{say, send};
use crate::clock;
use crate::crossing::{Crossing, Mail, Target};
use crate::domains::{Host, Resolution};
use crate::hosts::Trouble;
use crate::look::ask::{Look, Meant, ROWS_MAX};
use crate::look::call::{Call, DomainPart, Part, What, Which};
use crate::look::trace::{TRACES_MAX, Tracer};
use crate::look::view::{
    Explanation, HostRow, HostView, Resolved, SiteRow, View, merge_hosts, merge_sites, tls_words,
};
use crate::steer::condition::Pattern;
use crate::steer::wire::Answer;
use message::Reply;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Whoever asks has an answer by then, whatever the name servers do.
const RESOLVE_MAX: Duration = Duration::from_secs(20);

/// A dialogue in which nothing is said shows that it is still there this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Sight {
    crossing: Arc<Crossing>,
    resolver: Rc<Resolver>,
    traces: Semaphore,
}

impl Sight {
    pub(super) fn new(crossing: Arc<Crossing>, resolver: Rc<Resolver>) -> Sight {
        Sight { crossing, resolver, traces: Semaphore::new(TRACES_MAX) }
    }

    /// Answers one look; a dialogue goes on until the client goes away.
    pub(super) async fn attend(
        &self,
        look: Result<Look, String>,
        uid: u32,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let view = match look {
            Err(why) => return say(writer, &Answer::Error(why)).await,
            Ok(Look::Trace { domain }) => return self.trace(domain, uid, reader, writer).await,
            Ok(Look::Explain { domain }) => match self.explain(domain).await {
                Some(view) => view,
                None => return say(writer, &Answer::Error("the daemon is stopping".into())).await,
            },
            Ok(Look::Sites { pattern, limit }) => self.sites(pattern.as_deref(), limit).await,
            Ok(Look::Hosts { limit }) => self.hosts(limit).await,
            Ok(Look::Forget { addresses, all }) => {
                let addresses = if all { Vec::new() } else { addresses };
                self.forget(addresses, uid).await
            }
        };
        say(writer, &Answer::Look(view)).await
    }

    /// Each core's part, in the order of the cores.
    async fn ask(&self, what: What) -> Vec<Part> {
        let (call, mut heard) = Call::new(what);
        for core in 0..self.crossing.cores() {
            send(&self.crossing, core, Mail::Look(Arc::clone(&call))).await;
        }
        // A core that has ended drops its copy: then there is no more to wait for.
        drop(call);
        let mut parts = Vec::new();
        while let Some(part) = heard.recv().await {
            parts.push(part);
        }
        parts.sort_by_key(|part| part.core);
        parts
    }

    async fn sites(&self, pattern: Option<&str>, limit: usize) -> View {
        let which = pattern.map_or(Which::All, |pattern| Which::Like(Pattern::new(pattern)));
        let (sites, has_more) = self.rows(which, limit).await;
        View::Sites { sites, has_more }
    }

    async fn rows(&self, which: Which, limit: usize) -> (Vec<SiteRow>, bool) {
        let parts = self.ask(What::Sites { which, limit }).await;
        let is_cut = parts.iter().any(|part| part.has_more);
        let rows = parts.into_iter().flat_map(|part| part.sites).collect();
        merge_sites(rows, self.crossing.cores(), is_cut, limit)
    }

    // ---- hosts ----

    async fn hosts(&self, limit: usize) -> View {
        let parts = self.ask(What::Hosts { limit }).await;
        let is_cut = parts.iter().any(|part| part.has_more);
        let now = Now::read();
        let shared =
            self.crossing.hosts.all().into_iter().map(|(address, trouble)| now.row(address, trouble));
        let rows = shared.chain(parts.into_iter().flat_map(|part| part.hosts)).collect();
        let (hosts, has_more) = merge_hosts(rows, is_cut, limit);
        View::Hosts { hosts, has_more }
    }

    /// No addresses: all.
    async fn forget(&self, addresses: Vec<Meant>, uid: u32) -> View {
        let is_meant =
            |address: &SocketAddr| addresses.is_empty() || addresses.iter().any(|meant| meant.is(*address));
        let shared = self.crossing.hosts.forget(is_meant) as u64;
        let named = addresses.len();
        let parts = self.ask(What::Forget(addresses)).await;
        let forgotten = shared + parts.iter().map(|part| part.forgotten).sum::<u64>();
        tracing::info!(uid, named, forgotten, "hosts that failed were forgotten");
        View::Forgotten(forgotten)
    }

    // ---- a domain ----

    /// `None` if no core is left to ask.
    async fn explain(&self, domain: String) -> Option<View> {
        let parts = self.ask(What::Domain(domain.clone())).await;
        let (mut rows, mut cores, mut first) = (Vec::new(), Vec::new(), None);
        for part in parts {
            rows.extend(part.sites);
            let Some(DomainPart { route, target, at_hand, limits, view }) = part.domain else { continue };
            cores.push(view);
            first.get_or_insert((route, target, at_hand, limits));
        }
        let (route, target, at_hand, limits) = first?;
        let resolved = self.resolve(&domain, &target, at_hand).await;
        if !resolved.site.is_empty() && !rows.iter().any(|row: &SiteRow| row.site == resolved.site) {
            // Other domains' mail may go there already.
            rows.extend(self.rows(Which::Named(resolved.site.clone()), ROWS_MAX).await.0);
        }
        let (sites, _) = merge_sites(rows, self.crossing.cores(), false, ROWS_MAX);
        let at_ms = clock::wall().0;
        let explanation = Explanation { domain, at_ms, route, resolved, limits, cores, sites };
        Some(View::Explain(Box::new(explanation)))
    }

    /// What the name servers say now, or within what they said an answer may be kept for.
    async fn resolve(&self, domain: &str, target: &Target, at_hand: Option<Resolution>) -> Resolved {
        let is_at_hand = at_hand.is_some();
        let asked = async {
            match at_hand {
                Some(resolution) => (Vec::new(), resolution),
                None if *target == Target::Mx => {
                    let exchanges = self.resolver.exchanges(domain).await;
                    (exchanges, self.resolver.resolve(domain, target, ()).await)
                }
                None => (Vec::new(), self.resolver.resolve(domain, target, ()).await),
            }
        };
        let obeys = self.resolver.obeys_tls_required();
        let late = || Resolution::Deferred(Reply::ours(451, (4, 4, 3), "the name servers take their time"));
        let answer = tokio::time::timeout(RESOLVE_MAX, asked).await;
        let (exchanges, resolution) = answer.unwrap_or_else(|_| (Vec::new(), late()));
        match resolution {
            Resolution::Failed(reply) | Resolution::Deferred(reply) => {
                Resolved { refusal: Some(reply.to_string()), exchanges, ..Resolved::default() }
            }
            Resolution::Site { site, hosts, basis, ttl_secs, relaxed } => Resolved {
                refusal: None,
                exchanges,
                site: site.to_string(),
                hosts: hosts.iter().map(|host| self.host_view(host)).collect(),
                basis: (&*basis).into(),
                relaxes: relaxed.is_some() && obeys,
                ttl_secs: (!is_at_hand).then_some(ttl_secs),
            },
            Resolution::Barred { reply, site, relaxed, ttl_secs } => Resolved {
                refusal: Some(reply.to_string()),
                exchanges,
                site: site.to_string(),
                hosts: relaxed.hosts.iter().map(|host| self.host_view(host)).collect(),
                basis: (&*relaxed.basis).into(),
                relaxes: obeys,
                ttl_secs: Some(ttl_secs),
            },
        }
    }

    fn host_view(&self, host: &Host) -> HostView {
        let trouble = self.crossing.hosts.trouble(host.address);
        HostView {
            name: host.name.to_string(),
            address: host.address,
            tls: tls_words(&host.tls),
            allows_plain: host.tls.allows_plain(),
            trouble: trouble.map(|trouble| Now::read().row(host.address, trouble)),
        }
    }

    // ---- dialogues ----

    async fn trace(
        &self,
        domain: String,
        uid: u32,
        reader: &mut BufReader<OwnedReadHalf>,
        writer: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let Ok(_place) = self.traces.try_acquire() else {
            let why = format!("{TRACES_MAX} dialogues are watched already; one of them must end first");
            return say(writer, &Answer::Error(why)).await;
        };
        let (tracer, mut lines) = Tracer::new(domain.clone());
        let watched = Watched { tracer, crossing: &self.crossing };
        self.ask(What::Trace(Arc::clone(&watched.tracer))).await;
        tracing::info!(uid, domain, "an operator watches a domain's dialogues");
        say(writer, &Answer::Look(View::Tracing(domain))).await?;
        let mut tick = tokio::time::interval(HEARTBEAT);
        loop {
            let listens = reader.buffer().is_empty();
            tokio::select! {
                Some(line) = lines.recv() => say(writer, &Answer::Trace(line)).await?,
                _ = tick.tick() => say(writer, &Answer::Progress { swept: 0, recipients: 0 }).await?,
                more = reader.fill_buf(), if listens => {
                    if more?.is_empty() {
                        return Ok(());
                    }
                }
            }
            let lost = watched.tracer.take_lost();
            if lost > 0 {
                say(writer, &Answer::Lost(lost)).await?;
            }
        }
    }
}

/// However the client goes away: the cores stop telling.
struct Watched<'a> {
    tracer: Arc<Tracer>,
    crossing: &'a Crossing,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.tracer.end();
        let (call, _) = Call::new(What::Trace(Arc::clone(&self.tracer)));
        for core in 0..self.crossing.cores() {
            // A core whose box is full sees by itself that this is over, at the next one who watches.
            let _ = self.crossing.send(core, Mail::Look(Arc::clone(&call)));
        }
    }
}

/// Both clocks, read together.
struct Now {
    now: std::time::Instant,
    wall_ms: u64,
}

impl Now {
    fn read() -> Now {
        Now { now: clock::now(), wall_ms: clock::wall().0 }
    }

    fn row(&self, address: SocketAddr, trouble: Trouble) -> HostRow {
        let left = trouble.rests_until.saturating_duration_since(self.now);
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        HostRow {
            address,
            name: String::new(),
            core: None,
            rests_until_ms: (left_ms > 0).then(|| self.wall_ms.saturating_add(left_ms)),
            is_down: trouble.is_down,
            failures: trouble.failures,
            why: trouble.why,
        }
    }
}
