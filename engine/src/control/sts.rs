//! MTA-STS (RFC 8461): the policy by which a domain says which hosts take its mail and that they can be authenticated.
//!
//! A policy that was fetched counts until its age is over, whatever becomes of the domain's TXT record and of the host
//! that published it: who can make those silent must not be able to make it go away. It is fetched again when the
//! record has another id, and in good time before it ends. Bounds: [`FETCHES_MAX`] fetches at a time and
//! [`WAITING_MAX`] domains that wait for one, none longer than [`FETCH_MAX`]; a host that failed is left alone for
//! [`FAILURE_REST`], and mail goes by the policy that is there, or without one (§5.1).

pub mod policy;
mod store;

pub(crate) use policy::Policy;

use super::dns::{Lack, Questions};
use super::https::{Https, HttpsError};
use crate::config::Config;
use crate::domains::{Basis, BasisKind};
use crate::tlsrpt::{Failure, TlsNote};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::{Mutex, Semaphore};

/// Fetches at a time.
const FETCHES_MAX: usize = 128;

/// Domains whose mail waits for a fetch; past it policies are not waited for.
const WAITING_MAX: usize = 16_384;

/// A fetch takes no longer, its wait for a place included (§3.3 suggests a minute).
const FETCH_MAX: Duration = Duration::from_secs(60);

/// After a failed fetch the next one is tried no sooner (§3.3: five minutes or longer).
const FAILURE_REST: Duration = Duration::from_secs(600);

/// A domain without the policy that it announces is looked at again after this long.
const AGAIN_SECS: u64 = 600;

/// A policy is fetched again after this long at the latest, if there is mail for its domain (§5.1).
const REFRESH_SECS: u64 = 24 * 3600;

/// Policies and failures in memory; past it the memory is emptied, and policies come back from disk.
const KEPT_MAX: usize = 10_000;

/// Octets of a policy (§3.3 suggests 64 kilobytes).
const POLICY_MAX: usize = 64 << 10;

/// A policy as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Kept {
    /// Of the TXT record that announced it.
    id: String,
    /// When, in milliseconds since 1970.
    fetched: u64,
    pub(crate) policy: Policy,
}

/// What a domain's TXT records say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Hint {
    /// There is a policy of this id.
    Id(String),
    /// There is none, or nobody can tell.
    Nothing,
}

/// See the module.
pub(crate) struct Policies {
    questions: Rc<Questions>,
    https: Https,
    port: u16,
    store: Store,
    kept: RefCell<HashMap<Arc<str>, Rc<Kept>>>,
    /// Domains whose host failed, and until when it is left alone.
    failed: RefCell<HashMap<Arc<str>, Instant>>,
    /// One fetch for a domain at a time.
    turns: RefCell<HashMap<Arc<str>, Rc<Mutex<()>>>>,
    places: Semaphore,
    waiting: Cell<usize>,
}

impl Policies {
    pub(crate) fn new(config: &Config, questions: Rc<Questions>) -> Policies {
        Policies {
            questions,
            https: Https::new(config.tls.ca_file.as_deref()),
            port: config.tls.mta_sts_port,
            store: Store::open(&config.queue),
            kept: RefCell::default(),
            failed: RefCell::default(),
            turns: RefCell::default(),
            places: Semaphore::new(FETCHES_MAX),
            waiting: Cell::new(0),
        }
    }

    /// What the name servers say of the domain's policy.
    pub(crate) async fn hint(&self, domain: &str) -> Hint {
        match self.questions.texts(&format!("_mta-sts.{domain}")).await {
            Ok(answer) => policy::id_of(&answer.records).map_or(Hint::Nothing, Hint::Id),
            Err(Lack::Name | Lack::Type | Lack::Trouble(_)) => Hint::Nothing,
        }
    }

    /// The policy that holds for the domain. `secs`: how long the answer counts, shortened where it may soon change.
    pub(crate) async fn of(
        self: &Rc<Policies>,
        domain: &str,
        hint: Hint,
        secs: &mut u64,
        note: &dyn Fn(TlsNote),
    ) -> Option<Rc<Kept>> {
        let kept = self.kept(domain);
        let Hint::Id(id) = hint else { return kept };
        match kept {
            Some(kept) if kept.id == id => {
                if kept.wants_refresh() {
                    let (policies, domain) = (Rc::clone(self), Arc::from(domain));
                    tokio::task::spawn_local(async move { policies.refresh(&domain, id).await });
                }
                Some(kept)
            }
            kept => match self.fetch_in_turn(domain, &id).await {
                Ok(fetched) => Some(fetched),
                Err(error) => {
                    *secs = (*secs).min(AGAIN_SECS);
                    if let Some(error) = error {
                        tracing::warn!(domain, %error, "the MTA-STS policy cannot be had");
                        note(failure_note(domain, &error));
                    }
                    kept
                }
            },
        }
    }

    async fn refresh(self: Rc<Policies>, domain: &Arc<str>, id: String) {
        // What is kept serves on.
        if let Err(Some(error)) = self.fetch_in_turn(domain, &id).await {
            tracing::warn!(%domain, %error, "the MTA-STS policy cannot be renewed; the old one counts");
        }
    }

    /// What is kept, from memory or disk, unless its time is over.
    fn kept(&self, domain: &str) -> Option<Rc<Kept>> {
        let known = self.kept.borrow().get(domain).cloned();
        let load = || self.store.load(domain).map(|kept| self.remember(domain, kept));
        known.or_else(load).filter(|kept| kept.is_live())
    }

    fn remember(&self, domain: &str, kept: Kept) -> Rc<Kept> {
        let kept = Rc::new(kept);
        let mut all = self.kept.borrow_mut();
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        all.insert(domain.into(), Rc::clone(&kept));
        kept
    }

    /// `Err(None)`: not tried, because of an earlier failure or because too many wait.
    async fn fetch_in_turn(&self, domain: &str, id: &str) -> Result<Rc<Kept>, Option<FetchError>> {
        if self.rests(domain) || self.waiting.get() >= WAITING_MAX {
            return Err(None);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let turn = Rc::clone(self.turns.borrow_mut().entry(domain.into()).or_default());
        let result = {
            let _turn = turn.lock().await;
            match self.kept(domain) {
                // Whoever was before us has brought it.
                Some(kept) if kept.id == id && !kept.wants_refresh() => Ok(kept),
                _ if self.rests(domain) => Err(None),
                _ => self.fetch_and_keep(domain, id).await.map_err(Some),
            }
        };
        drop(turn);
        let mut turns = self.turns.borrow_mut();
        if turns.get(domain).is_some_and(|turn| Rc::strong_count(turn) == 1) {
            turns.remove(domain);
        }
        result
    }

    fn rests(&self, domain: &str) -> bool {
        self.failed.borrow().get(domain).is_some_and(|until| crate::clock::now() < *until)
    }

    async fn fetch_and_keep(&self, domain: &str, id: &str) -> Result<Rc<Kept>, FetchError> {
        let fetched = tokio::time::timeout(FETCH_MAX, self.fetch(domain)).await;
        match fetched.unwrap_or(Err(FetchError::Late)) {
            Ok(policy) => {
                let kept = Kept { id: id.to_owned(), fetched: crate::clock::wall().0, policy };
                self.store.save(domain, &kept);
                Ok(self.remember(domain, kept))
            }
            Err(error) => {
                let mut failed = self.failed.borrow_mut();
                if failed.len() >= KEPT_MAX {
                    failed.clear();
                }
                failed.insert(domain.into(), crate::clock::now() + FAILURE_REST);
                Err(error)
            }
        }
    }

    /// RFC 8461 §3.3: no redirects, the certificate for this very name, text/plain.
    async fn fetch(&self, domain: &str) -> Result<Policy, FetchError> {
        let _place = self.places.acquire().await.map_err(|_| FetchError::Late)?;
        let host = format!("mta-sts.{domain}");
        let answer = self.questions.addresses(&host).await.map_err(FetchError::Address)?;
        let addresses: Vec<SocketAddr> =
            answer.records.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect();
        let answer = self.https.get(&addresses, &host, "/.well-known/mta-sts.txt", POLICY_MAX).await?;
        if answer.status != 200 {
            return Err(FetchError::Status(answer.status));
        }
        if !answer.is_of_type("text/plain") {
            return Err(FetchError::Type);
        }
        Policy::parse(&answer.body).map_err(FetchError::Policy)
    }
}

impl Kept {
    fn age_secs(&self) -> u64 {
        crate::clock::wall().0.saturating_sub(self.fetched) / 1000
    }

    fn is_live(&self) -> bool {
        self.age_secs() < self.policy.max_age_secs
    }

    fn wants_refresh(&self) -> bool {
        self.age_secs() >= REFRESH_SECS.min(self.policy.max_age_secs / 2)
    }
}

/// Counts those who wait for as long as it is there.
struct Waiting<'a>(&'a Cell<usize>);

impl Waiting<'_> {
    fn begin(count: &Cell<usize>) -> Waiting<'_> {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("its host: {0:?}")]
    Address(Lack),
    #[error("its host took longer than a minute")]
    Late,
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error("its host answered {0}")]
    Status(u16),
    #[error("it is not of type text/plain")]
    Type,
    #[error("{0}")]
    Policy(&'static str),
}

impl FetchError {
    fn failure(&self) -> Failure {
        match self {
            FetchError::Https(HttpsError::Tls(_)) => Failure::StsWebpki,
            FetchError::Policy(_) | FetchError::Type => Failure::StsPolicy,
            _ => Failure::StsFetch,
        }
    }
}

fn failure_note(domain: &str, error: &FetchError) -> TlsNote {
    TlsNote {
        domain: domain.into(),
        basis: Arc::new(Basis { kind: BasisKind::Sts, ..Basis::default() }),
        host: format!("mta-sts.{domain}").into(),
        receiving: None,
        sending: None,
        result: Err((error.failure(), error.to_string().into())),
    }
}
