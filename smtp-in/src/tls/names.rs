//! Which certificate a client is shown: that of the host it asks for (RFC 6066 §3), else the first.
//!
//! An exact name goes before `*.` and its parent; `*` stands for one label. Bound: the operator's list.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Names {
    first: Option<Arc<CertifiedKey>>,
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what stands behind `*.`.
    below: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Names {
    /// Of two certificates for a name the first is shown.
    pub(super) fn add(&mut self, names: &[String], certificate: Arc<CertifiedKey>) {
        for name in names {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.below, parent),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.into()).or_insert_with(|| Arc::clone(&certificate));
        }
        self.first.get_or_insert(certificate);
    }

    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = host.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let parent = host.split_once('.').map_or("", |(_, parent)| parent);
        let named = self.exact.get(host.as_str()).or_else(|| self.below.get(parent));
        named.or(self.first.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
