//! The name servers that verification asks: the configured ones, or the system's, through a resolver and a cache of
//! its own, so that a flood of incoming mail does not take the places of mail that goes out.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::SocketAddr;
use std::time::Duration;

/// Answers that are kept.
const ANSWERS_MAX: u64 = 1 << 14;

/// A denial is kept this long at least: most senders' subdomains have no records, and are asked for again and again.
const DENIAL_MIN: Duration = Duration::from_secs(60);

/// `questions_max` on the wire at a time.
pub(super) fn resolver(servers: &[SocketAddr], questions_max: usize) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder(provider)?
    } else {
        let servers = servers.iter().map(|server| name_server(*server)).collect();
        TokioResolver::builder_with_config(ResolverConfig::from_parts(None, Vec::new(), servers), provider)
    };
    let options = builder.options_mut();
    (options.ndots, options.cache_size, options.attempts) = (0, ANSWERS_MAX, 2);
    (options.timeout, options.negative_min_ttl) = (Duration::from_secs(2), Some(DENIAL_MIN));
    options.max_active_requests = questions_max;
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}
