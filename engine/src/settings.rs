//! The configuration as the core threads use it: checked, and turned into what each box wants.

use crate::access::Access;
use crate::auth::Passwords;
use crate::config::{Config, ConfigError, Retry, RetrySchedule};
use crate::ingress::Ingress;
use crate::providers::Providers;
use crate::sources::{SourceKey, Sources};
use crate::suppression::SuppressionRules;
use message::VerpKey;
use message::compose::Hosts;
use queue::schedule::{Curve, Exponential, RetryPolicy};
use queue::site_table::SiteLimits;
use smtp_out::TlsBase;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Shared by all cores; replaced whole by a reload.
#[derive(Debug)]
pub struct Settings {
    pub config: Config,
    /// What each listener offers, and who may do what there.
    pub ingress: Ingress,
    pub access: Access,
    pub passwords: Arc<Passwords>,
    pub outbound: Arc<smtp_out::Config>,
    pub retry: RetryPolicy,
    pub sources: Sources,
    pub providers: Arc<Providers>,
    pub suppression: SuppressionRules,
    pub site_limits: SiteLimits,
    /// What TLS connections are made and verified with.
    pub tls: TlsBase,
    pub verp_key: VerpKey,
    /// What completes addresses of clients whose messages are mended; `None` if the host's own name is none.
    pub hosts: Option<Hosts>,
    /// Makes the salts of segments: known to nobody who sends mail.
    pub log_salt: u64,
}

impl Settings {
    /// With what the configuration names files for: authorities, our certificate, provider rules.
    pub fn load(config: Config, verp_secret: &[u8; 32]) -> Result<Settings, ConfigError> {
        let ingress = Ingress::load(&config)?;
        let passwords = Arc::new(config.auth.load_passwords()?);
        let (tls, providers) = (crate::tls::load(&config.tls)?, Arc::new(config.shaping.load_providers()?));
        let building = Arc::clone(&providers);
        // A core that needs them sooner waits for them.
        std::thread::spawn(move || building.build());
        Ok(Settings { ingress, passwords, tls, providers, ..Settings::new(config, verp_secret) })
    }

    /// `verp_secret` signs VERP tokens; it lives as long as the queue. No authority is trusted.
    pub fn new(config: Config, verp_secret: &[u8; 32]) -> Settings {
        Settings {
            ingress: Ingress::plain(&config),
            access: Access::new(&config),
            passwords: Arc::default(),
            outbound: Arc::new(smtp_out::Config {
                helo: config.host_name.clone(),
                timeouts: smtp_out::Timeouts::default(),
                window_max: config.delivery.window_max,
                transactions_max: config.delivery.messages_per_connection,
            }),
            retry: retry_policy(&config.retry),
            sources: Sources::new(&config),
            providers: Arc::new(Providers::shipped()),
            suppression: SuppressionRules::new(&config.suppression),
            site_limits: SiteLimits {
                connections_max: config.delivery.connections_max,
                slots_initial: config.delivery.connections_initial,
                backoff_secs: config.delivery.backoff_secs,
                backoff_max_secs: config.delivery.backoff_max_secs,
                ..SiteLimits::default()
            },
            tls: TlsBase::default(),
            verp_key: VerpKey::new(verp_secret),
            hosts: config.compose.hosts(&config.host_name).ok(),
            log_salt: log_salt(verp_secret),
            config,
        }
    }

    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.config.delivery.connect_timeout_secs)
    }

    /// The source's name; that of one which a reload removed is not known any more.
    pub fn source_name(&self, source: SourceKey) -> &str {
        self.sources.source(source).map_or("removed", |source| &source.name)
    }

    /// The address to connect from. `None`: the system's choice.
    pub fn bind_to(&self, source: SourceKey, peer: IpAddr) -> Option<IpAddr> {
        self.sources.source(source)?.bind_to(peer)
    }

    pub fn has_warm_up(&self) -> bool {
        self.sources.iter().any(|(_, source)| source.warm_up.is_some())
    }

    /// What sessions from that source are told.
    pub fn sessions(&self, source: SourceKey, transactions_max: u32) -> Arc<smtp_out::Config> {
        let helo = self.sources.source(source).map_or(&self.config.host_name, |source| &source.ehlo);
        let same = *helo == self.outbound.helo && transactions_max == self.outbound.transactions_max;
        if same {
            return Arc::clone(&self.outbound);
        }
        let helo = helo.clone();
        Arc::new(smtp_out::Config { helo, transactions_max, ..(*self.outbound).clone() })
    }

    /// Connections that each of `cores` may have to others.
    pub fn connections_share(&self, cores: usize) -> usize {
        self.config.delivery.connections_total.div_ceil(cores)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.config.delivery.idle_secs)
    }
}

/// The secret, folded. What is made of it stays in the queue's folder.
fn log_salt(secret: &[u8; 32]) -> u64 {
    let (words, _) = secret.as_chunks::<8>();
    words.iter().fold(0, |salt, word| salt ^ u64::from_le_bytes(*word))
}

fn retry_policy(retry: &Retry) -> RetryPolicy {
    let curve = match retry.schedule {
        RetrySchedule::Quadratic => Curve::Quadratic { secs: retry.quadratic_secs },
        RetrySchedule::List => Curve::List(retry.list_secs.clone()),
        RetrySchedule::Exponential => Curve::Exponential(Exponential {
            first_secs: retry.first_secs,
            factor_permille: permille(retry.factor),
            max_secs: retry.max_secs,
            jitter_permille: permille(retry.jitter),
        }),
    };
    RetryPolicy { curve, lifetime_secs: retry.lifetime_secs, warn_after_secs: retry.warn_after_secs }
}

#[expect(clippy::cast_possible_truncation, reason = "the configuration allows 0 to 100")]
fn permille(part: f64) -> u64 {
    (part * 1000.0).round() as u64
}
