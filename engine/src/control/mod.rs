//! The control thread: everything that would make a core wait. Name servers, HTTP, operators' orders, signals, reload.
//!
//! Runs on a thread of its own beside the cores and is never on a delivery's way. Bound: [`LOOK_UPS_MAX`] domains are looked up
//! at a time, `delivery.questions_max` questions are on the wire; further domains wait in the crossing's queue.

mod clients;
mod consumers;
pub mod dns;
mod http;
mod https;
mod look;
pub mod lookups;
mod socket;
pub mod sts;
mod suppress;
mod tlsrpt;

use crate::api::thread::Running;
use crate::config::{ConfigError, Events};
use crate::crossing::{Crossing, Mail, Question};
use crate::settings::Settings;
use consumers::Consumers;
use message::address::shown_domain;
use parking_lot::Mutex;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore, mpsc};

/// Domains that are looked up at a time. More than questions on the wire, so that domains whose name servers are silent
/// leave places to the others.
const LOOK_UPS_MAX: usize = 2048;

type Reread = Box<dyn Fn() -> Result<Settings, ConfigError>>;

/// What the control thread works with.
pub(crate) struct Control {
    pub(crate) settings: Arc<Settings>,
    pub(crate) crossing: Arc<Crossing>,
    pub(crate) listener: Option<std::net::TcpListener>,
    pub(crate) api: Option<Running>,
    /// Where operators' orders come in.
    pub(crate) orders: std::os::unix::net::UnixListener,
    /// Cores that have ended, by index.
    pub(crate) ends: mpsc::UnboundedReceiver<usize>,
    /// What the event log's keeper goes by.
    pub(crate) event_rules: Option<Arc<Mutex<Events>>>,
    pub(crate) reread: Reread,
    /// Says that we are up: when signals are heard, not before, or the first one would end us.
    pub(crate) ready: Box<dyn FnOnce()>,
}

/// What it runs on: no ring, which would be one that can do more than those of the cores.
pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs until all cores have ended. Returns a core that ended without being told to.
pub(crate) fn run(runtime: &Runtime, control: Control) -> Option<usize> {
    tokio::task::LocalSet::new().block_on(runtime, control.run())
}

impl Control {
    async fn run(mut self) -> Option<usize> {
        let resolver = Rc::new(self.resolver());
        self.answer_questions(&resolver);
        let reports = self.report(&resolver);
        let oracles = Rc::new(clients::Oracles::new(&self.settings));
        tokio::task::spawn_local(clients::serve(Arc::clone(&self.crossing), Rc::clone(&oracles)));
        let consumers = self.crossing.events.get().map(Consumers::new);
        if let Some(consumers) = &consumers {
            consumers.configure(&self.settings.config);
        }
        if let Some(listener) = self.listener.take() {
            tokio::task::spawn_local(http::serve(listener, Arc::clone(&self.crossing)));
        }
        match self.orders.try_clone() {
            Ok(orders) => {
                let sight = look::Sight::new(Arc::clone(&self.crossing), Rc::clone(&resolver));
                let uids = &self.settings.config.control_uids;
                let gate = socket::Gate::new(uids, Arc::clone(&self.crossing), sight);
                tokio::task::spawn_local(socket::serve(orders, gate));
            }
            Err(error) => tracing::error!(%error, "no orders are taken"),
        }
        let signals = Signals::new();
        std::mem::replace(&mut self.ready, Box::new(|| {}))();
        let mut signals = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "no signals: stop this daemon with kill -9, which loses nothing");
                return self.ends.recv().await;
            }
        };
        loop {
            tokio::select! {
                core = self.ends.recv() => return core,
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.reload.recv() => {
                    self.reload(&resolver, &oracles, reports.as_deref());
                    self.reload_events(consumers.as_ref());
                }
            }
        }
        self.shut_down().await;
        if let Some(reports) = reports {
            reports.save();
        }
        None
    }

    fn answer_questions(&self, resolver: &Rc<dns::Resolver>) {
        let notify = Arc::new(Notify::new());
        let waker = Arc::clone(&notify);
        self.crossing.set_question_waker(Box::new(move || waker.notify_one()));
        let resolver = Rc::clone(resolver);
        let crossing = Arc::clone(&self.crossing);
        tokio::task::spawn_local(async move {
            let places = Arc::new(Semaphore::new(LOOK_UPS_MAX));
            loop {
                while let Some(question) = crossing.next_question() {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    let (resolver, crossing) = (Rc::clone(&resolver), Arc::clone(&crossing));
                    tokio::task::spawn_local(async move {
                        answer(&resolver, &crossing, question, place).await;
                    });
                }
                notify.notified().await;
            }
        });
    }

    /// Starts to report about TLS, if there are name servers to find out to whom.
    fn report(&self, resolver: &dns::Resolver) -> Option<Rc<tlsrpt::Reports>> {
        let questions = Rc::clone(resolver.questions()?);
        let reports = Rc::new(tlsrpt::Reports::new(&self.settings.config, &self.crossing, questions));
        let running = Rc::clone(&reports);
        tokio::task::spawn_local(async move { running.run().await });
        Some(reports)
    }

    /// Name servers and trust anchors are those of the start; a reload does not change them.
    fn resolver(&self) -> dns::Resolver {
        let crossing = Arc::clone(&self.crossing);
        dns::Resolver::new(&self.settings, move |note| crossing.note_tls(note)).unwrap_or_else(|error| {
            tracing::error!(%error, "nothing can be looked up: only static routes by address work");
            dns::Resolver::none(&self.settings)
        })
    }

    fn reload(
        &mut self,
        resolver: &dns::Resolver,
        oracles: &clients::Oracles,
        reports: Option<&tlsrpt::Reports>,
    ) {
        match (self.reread)() {
            Ok(mut settings) => {
                settings.sources = self.settings.sources.renew(&settings.config);
                self.settings = Arc::new(settings);
                for core in 0..self.crossing.cores() {
                    let _ = self.crossing.send(core, Mail::Reload(Arc::clone(&self.settings)));
                }
                resolver.configure(&self.settings);
                oracles.configure(&self.settings);
                if let Some(authenticator) = self.crossing.authenticator.get() {
                    authenticator.configure(&self.settings.config.auth, Arc::clone(&self.settings.passwords));
                }
                if let Some(reports) = reports {
                    reports.configure(&self.settings.config);
                }
                if let Some(api) = &self.api {
                    api.configure(&self.settings);
                }
                tracing::info!("configuration reloaded");
            }
            Err(error) => tracing::error!(%error, "the configuration was not reloaded; the old one stays"),
        }
    }

    /// The log itself is there or not from a start on.
    fn reload_events(&self, consumers: Option<&Consumers>) {
        let config = &self.settings.config;
        match (consumers, &self.event_rules, &config.events) {
            (Some(consumers), Some(rules), Some(events)) => {
                *rules.lock() = events.clone();
                consumers.configure(config);
            }
            (None, _, None) => {}
            _ => tracing::warn!("[events] came or went: that takes a restart"),
        }
    }

    async fn shut_down(&mut self) {
        tracing::info!("stopping: no new mail, transactions under way end");
        if let Some(api) = &self.api {
            api.begin_stop();
        }
        for core in 0..self.crossing.cores() {
            let _ = self.crossing.send(core, Mail::Shutdown);
        }
        for _ in 0..self.crossing.cores() {
            self.ends.recv().await;
        }
        // What the last commit answered is still to be said.
        if let Some(api) = self.api.take() {
            api.join();
        }
    }
}

/// `place` is one of the look-ups at a time.
async fn answer<P>(resolver: &dns::Resolver, crossing: &Crossing, question: Question, place: P) {
    let Question { core, domain, name, target } = question;
    let resolution = resolver.resolve(shown_domain(&name), &target, place).await;
    // A full mailbox empties within a turn; the domain's mail waits until then.
    let mut mail = Mail::Answer { domain, name, target: Box::new(target), resolution };
    while let Err(back) = crossing.send(core, mail) {
        mail = back;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}
