//! Reports about TLS, sent: gathers the cores' notes, and after a day's end tells each domain that asks for it.
//!
//! What is gathered lies in `tlsrpt.json` in the queue's folder, written every [`SAVE_EVERY`] and at the end; a crash
//! loses that much. Bounds: those of `tlsrpt::tally`, [`REPORTS_MAX`] reports at a time, a day for trying.
//!
//! RFC 8460 §3 wants mail with reports signed by DKIM: that comes when we sign anything.

use super::dns::{Lack, Questions};
use super::https::Https;
use crate::config::{Config, TlsReports};
use crate::crossing::{Composed, Crossing, Mail};
use crate::tlsrpt::record::{Place, places_of};
use crate::tlsrpt::report::Heading;
use crate::tlsrpt::tally::{Account, DAY_SECS, Tally};
use flate2::Compression;
use flate2::write::GzEncoder;
use message::{Mailbox, UnixMillis};
use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what the cores noted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two writes of what was gathered, and between two rounds of reports.
const SAVE_EVERY: Duration = Duration::from_secs(300);
const SEND_EVERY: Duration = Duration::from_secs(10);

/// Reports of a round.
const REPORTS_MAX: usize = 16;

/// Reports of a day go out over this long: everybody's day ends at the same moment (§4.1).
const SPREAD_SECS: u64 = 4 * 3600;

/// A report that could not be sent is tried again after this long, for a day.
const AGAIN_SECS: u64 = 3600;

/// A place takes a report within this time.
const POST_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Reports {
    wanted: RefCell<Option<TlsReports>>,
    submitter: String,
    file: PathBuf,
    tally: RefCell<Tally>,
    has_changed: Cell<bool>,
    crossing: Arc<Crossing>,
    questions: Rc<Questions>,
    https: Https,
}

/// What became of a domain's report.
enum Outcome {
    /// All places have it, or there is none.
    Done,
    /// These have it; the others may later.
    Later(Vec<String>),
}

impl Reports {
    pub(crate) fn new(config: &Config, crossing: &Arc<Crossing>, questions: Rc<Questions>) -> Reports {
        let file = config.queue.join("tlsrpt.json");
        let tally = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let reports = Reports {
            wanted: RefCell::new(None),
            submitter: config.host_name.to_lowercase(),
            file,
            tally: RefCell::new(tally.unwrap_or_default()),
            has_changed: Cell::new(false),
            crossing: Arc::clone(crossing),
            questions,
            https: Https::new(config.tls.ca_file.as_deref()),
        };
        reports.configure(config);
        reports
    }

    /// Cores note nothing while nobody reports.
    pub(crate) fn configure(&self, config: &Config) {
        self.wanted.replace(config.tls.reports.clone());
        self.crossing.want_tls_notes(config.tls.reports.is_some());
    }

    /// Gathers and sends until the process ends. A place that is slow to take its report holds no note up.
    pub(crate) async fn run(&self) {
        futures_util::future::join(self.keep_gathering(), self.keep_sending()).await;
    }

    async fn keep_gathering(&self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut save = tokio::time::interval(SAVE_EVERY);
        loop {
            tokio::select! {
                _ = look.tick() => self.gather(),
                _ = save.tick() => self.save(),
            }
        }
    }

    async fn keep_sending(&self) {
        let mut send = tokio::time::interval(SEND_EVERY);
        loop {
            send.tick().await;
            self.send_due(crate::clock::wall()).await;
        }
    }

    fn gather(&self) {
        let (mut tally, now) = (self.tally.borrow_mut(), crate::clock::wall());
        while let Some(note) = self.crossing.next_tls_note() {
            self.has_changed.set(true);
            if !tally.add(&note, now) {
                self.crossing.drop_tls_note();
            }
        }
    }

    /// Writes what was gathered, if that is anything new.
    pub(crate) fn save(&self) {
        self.gather();
        if self.has_changed.replace(false)
            && let Err(error) = self.try_save()
        {
            tracing::error!(path = %self.file.display(), %error, "what TLS reports would say is not saved");
        }
    }

    fn try_save(&self) -> io::Result<()> {
        // Under another name first: a crash must not leave half of it.
        let half = self.file.with_extension("new");
        std::fs::write(&half, serde_json::to_vec(&*self.tally.borrow())?)?;
        std::fs::rename(&half, &self.file)
    }

    /// One round.
    async fn send_due(&self, now: UnixMillis) {
        let Some(wanted) = self.wanted.borrow().clone() else { return };
        let due: Vec<(u64, String, Account)> = {
            let tally = self.tally.borrow();
            let due = tally.over(now).filter(|(day, domain, account)| is_due(*day, domain, account, now));
            due.take(REPORTS_MAX)
                .map(|(day, domain, account)| (day, domain.to_owned(), account.clone()))
                .collect()
        };
        let reports = due.iter().map(|(day, domain, account)| self.report(&wanted, *day, domain, account));
        let outcomes = futures_util::future::join_all(reports).await;
        for ((day, domain, _), outcome) in due.iter().zip(outcomes) {
            self.note_outcome(*day, domain, outcome, now);
        }
    }

    fn note_outcome(&self, day: u64, domain: &str, outcome: Outcome, now: UnixMillis) {
        let mut tally = self.tally.borrow_mut();
        self.has_changed.set(true);
        match outcome {
            Outcome::Later(sent) if now.seconds() < (day + 2) * DAY_SECS => {
                if let Some(account) = tally.account_mut(day, domain) {
                    (account.sent, account.tried) = (sent, now.seconds());
                }
            }
            Outcome::Later(_) => {
                tracing::warn!(domain, "nobody took the TLS report in a day's time; it is dropped");
                tally.forget(day, domain);
            }
            Outcome::Done => tally.forget(day, domain),
        }
    }

    async fn report(&self, wanted: &TlsReports, day: u64, domain: &str, account: &Account) -> Outcome {
        let places = match self.questions.texts(&format!("_smtp._tls.{domain}")).await {
            Ok(answer) => places_of(&answer.records).unwrap_or_default(),
            Err(Lack::Name | Lack::Type) => return Outcome::Done,
            Err(Lack::Trouble(_)) => return Outcome::Later(account.sent.clone()),
        };
        let TlsReports { organization, contact } = wanted;
        let heading = Heading { organization, contact, submitter: &self.submitter, domain, day };
        let Ok(gzip) = compressed(&heading.json(account).to_string()) else { return Outcome::Done };
        let mut sent = account.sent.clone();
        let mut all = true;
        for place in &places {
            let key = format!("{place:?}");
            if sent.contains(&key) {
                continue;
            }
            match self.send(&heading, place, &gzip).await {
                Ok(()) => sent.push(key),
                Err(error) => {
                    tracing::warn!(domain, error, "the TLS report was not taken");
                    all = false;
                }
            }
        }
        if all { Outcome::Done } else { Outcome::Later(sent) }
    }

    async fn send(&self, heading: &Heading<'_>, place: &Place, gzip: &[u8]) -> Result<(), String> {
        match place {
            Place::Mail(to) => self.mail(heading, to, gzip),
            Place::Https { host, port, path } => {
                let posting = self.post((host, *port, path), gzip.to_vec());
                tokio::time::timeout(POST_MAX, posting).await.unwrap_or_else(|_| Err("time-out".to_owned()))
            }
        }
    }

    async fn post(&self, (host, port, path): (&str, u16, &str), gzip: Vec<u8>) -> Result<(), String> {
        let answer = self.questions.addresses(host).await.map_err(|lack| format!("{host}: {lack:?}"))?;
        let addresses: Vec<SocketAddr> = answer.records.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let body = ("application/tlsrpt+gzip", gzip);
        let answer =
            self.https.post(&addresses, host, path, body).await.map_err(|error| error.to_string())?;
        if (200..300).contains(&answer.status) {
            Ok(())
        } else {
            Err(format!("{host} answered {}", answer.status))
        }
    }

    /// To a core, which queues it like any other.
    fn mail(&self, heading: &Heading<'_>, to: &Mailbox, gzip: &[u8]) -> Result<(), String> {
        let from =
            Mailbox::parse(heading.contact).map_err(|_| "tls.reports.contact is no address".to_owned())?;
        let content = heading.message(to.as_str(), gzip, crate::clock::wall());
        let composed = Composed { from, to: to.clone(), content };
        let sent = self.crossing.send(0, Mail::Compose(Box::new(composed)));
        sent.map_err(|_| "the core's mailbox is full".to_owned())
    }
}

/// Each domain has its moment in the spread, and an hour between attempts.
fn is_due(day: u64, domain: &str, account: &Account, now: UnixMillis) -> bool {
    let mut hasher = DefaultHasher::new();
    domain.hash(&mut hasher);
    let moment = (day + 1) * DAY_SECS + hasher.finish() % SPREAD_SECS;
    now.seconds() >= moment && now.seconds() >= account.tried + AGAIN_SECS
}

fn compressed(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
