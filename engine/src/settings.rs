//! The configuration as the core threads use it: checked, and turned into what each box wants.

use crate::access::Access;
use crate::api::desk::Rules;
use crate::auth::Passwords;
use crate::config::{self, Config, ConfigError, Retry, RetrySchedule};
use crate::ingress::Ingress;
use crate::providers::Providers;
use crate::returns::Returns;
use crate::sources::{SourceKey, Sources};
use crate::suppression::SuppressionRules;
use message::compose::Hosts;
use message::dkim::Signers;
use message::unsubscribe::{Links, UnsubscribeKey};
use message::{Class, Envelope, Mailbox, Marks, Traits, VerpKey};
use queue::schedule::{Curve, Exponential, RetryPolicy};
use queue::site_table::SiteLimits;
use smtp_out::TlsBase;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// 32 octets that nobody is shown.
#[derive(Clone)]
pub struct Secret32(pub [u8; 32]);

impl std::fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret32")
    }
}

/// Shared by all cores; replaced whole by a reload.
#[derive(Debug)]
pub struct Settings {
    pub config: Config,
    /// What each listener offers, and who may do what there.
    pub ingress: Ingress,
    pub access: Access,
    pub passwords: Arc<Passwords>,
    /// Who is heard over HTTP, and how that is encrypted.
    pub api: Arc<Rules>,
    pub api_tls: Option<Arc<rustls::ServerConfig>>,
    pub unsubscribe_tls: Option<Arc<rustls::ServerConfig>>,
    /// The queue's.
    pub secret: Secret32,
    pub outbound: Arc<smtp_out::Config>,
    pub retry: RetryPolicy,
    pub sources: Sources,
    pub providers: Arc<Providers>,
    pub suppression: SuppressionRules,
    pub site_limits: SiteLimits,
    /// What TLS connections are made and verified with.
    pub tls: TlsBase,
    /// Who signs what goes out.
    pub dkim: Arc<Signers>,
    /// Where recipients of campaigns leave their lists, and what makes their tokens.
    pub unsubscribe: Option<Arc<(Links, UnsubscribeKey)>>,
    pub verp_key: Arc<VerpKey>,
    /// Which addresses mail comes back to.
    pub returns: Returns,
    /// Who is told of mail from `<>` that failed.
    pub double_bounces: Option<Mailbox>,
    /// What completes addresses of clients whose messages are mended; `None` if the host's own name is none.
    pub hosts: Option<Hosts>,
    /// Makes the salts of segments: known to nobody who sends mail.
    pub log_salt: u64,
}

/// Whoever delivers says what became of it before we stop waiting.
const DELIVERY_MARGIN: Duration = Duration::from_secs(60);

impl Settings {
    /// With what the configuration names files for: authorities, our certificate, provider rules, DKIM keys.
    pub fn load(config: Config, verp_secret: &[u8; 32]) -> Result<Settings, ConfigError> {
        let ingress = Ingress::load(&config)?;
        let passwords = Arc::new(config.auth.load_passwords()?);
        let (tls, providers) = (crate::tls::load(&config.tls)?, Arc::new(config.shaping.load_providers()?));
        let dkim = Arc::new(crate::dkim::load(&config.dkim)?);
        let building = Arc::clone(&providers);
        // A core that needs them sooner waits for them.
        std::thread::spawn(move || building.build());
        let api = Arc::new(Rules::load(&config)?);
        let api_tls = crate::tls::server(config.api.certificate.as_deref(), config.api.key.as_deref())?;
        let page = &config.unsubscribe;
        let unsubscribe_tls = crate::tls::server(page.certificate.as_deref(), page.key.as_deref())?;
        let plain = Settings::new(config, verp_secret);
        Ok(Settings { ingress, passwords, api, api_tls, unsubscribe_tls, tls, providers, dkim, ..plain })
    }

    /// `verp_secret` signs VERP tokens; it lives as long as the queue. No authority is trusted, nothing is signed by DKIM.
    pub fn new(config: Config, verp_secret: &[u8; 32]) -> Settings {
        let verp_key = Arc::new(VerpKey::new(verp_secret));
        Settings {
            ingress: Ingress::plain(&config),
            access: Access::new(&config),
            passwords: Arc::default(),
            api: Arc::new(Rules::without_tokens(&config)),
            api_tls: None,
            unsubscribe_tls: None,
            secret: Secret32(*verp_secret),
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
            dkim: Arc::default(),
            unsubscribe: unsubscribe(&config.unsubscribe, verp_secret).map(Arc::new),
            returns: Returns::new(&config, Arc::clone(&verp_key)),
            verp_key,
            double_bounces: config.bounces.double_bounces(&config.host_name),
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

    /// Which pool a message goes out from, and whose turn it takes: decided once, when it comes. One pass over the header.
    pub(crate) fn class_of(&self, envelope: &Envelope, content: &[u8]) -> Class {
        let marks = Marks::of(content, &self.config.lanes.tenant_field);
        let traits = Traits {
            sender: envelope.reverse_path.as_str(),
            campaign: marks.campaign.as_deref(),
            tenant: marks.tenant.as_deref(),
        };
        Class { pool: self.sources.select(&traits), flow: traits.flow(self.log_salt), campaign: None }
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

    /// What sessions with whoever delivers to mailboxes are told: a program takes its time, and what waits behind another
    /// message waits for its program.
    pub fn deliveries(&self, local: &config::Local) -> Arc<smtp_out::Config> {
        let mut config = (*self.outbound).clone();
        config.timeouts.data_end = local.delivery_max() + DELIVERY_MARGIN;
        config.window_max = 1;
        Arc::new(config)
    }

    /// Connections that each of `cores` may have to others.
    pub fn connections_share(&self, cores: usize) -> usize {
        self.config.delivery.connections_total.div_ceil(cores)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.config.delivery.idle_secs)
    }
}

/// `None`: nothing says where it would lead. The configuration was checked: its words are good.
fn unsubscribe(config: &config::Unsubscribe, secret: &[u8; 32]) -> Option<(Links, UnsubscribeKey)> {
    let base_url = config.url()?;
    let mailto = config.mailto.as_deref().and_then(|mailto| Mailbox::parse(mailto).ok());
    let links = Links::new(&base_url, mailto.as_ref()).ok()?;
    Some((links, UnsubscribeKey::new(secret)))
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
