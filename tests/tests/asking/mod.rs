//! The control thread's resolver without a daemon around it.

use engine::control::dns::Resolver;
use engine::crossing::Target;
use engine::domains::{Host, Resolution};
use engine::settings::Settings;
use engine::tlsrpt::TlsNote;
use smtp_out::TlsPolicy;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A resolver, and what it noted.
pub(crate) struct Asking {
    pub(crate) resolver: Resolver,
    #[allow(dead_code, reason = "not every test looks")]
    pub(crate) notes: Rc<RefCell<Vec<TlsNote>>>,
}

impl Asking {
    /// `delivery` and `tls`: lines of these tables.
    pub(crate) fn new(server: SocketAddr, queue: &Path, delivery: &str, tls: &str) -> Asking {
        let text = format!(
            "host_name = \"relay.own.test\"\nqueue = \"{}\"\nlisten = [\"127.0.0.1:2525\"]\n\
             [delivery]\nname_servers = [\"{server}\"]\n{delivery}\n[tls]\n{tls}\n",
            queue.display()
        );
        let config = engine::config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        let notes = Rc::new(RefCell::new(Vec::new()));
        let own = Rc::clone(&notes);
        let resolver = Resolver::new(&Arc::new(Settings::new(config, &[7; 32])), move |note| {
            own.borrow_mut().push(note)
        });
        Asking { resolver: resolver.unwrap_or_else(|error| panic!("{error}")), notes }
    }

    pub(crate) async fn mx(&self, domain: &str) -> Resolution {
        self.resolver.resolve(domain, &Target::Mx, ()).await
    }
}

/// On a runtime like the control thread's.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

pub(crate) fn hosts(resolution: &Resolution) -> &[Host] {
    match resolution {
        Resolution::Site { hosts, .. } => hosts,
        other => panic!("{other:?}"),
    }
}

/// Each host's name and address.
#[allow(dead_code, reason = "not every test looks")]
pub(crate) fn places(resolution: &Resolution) -> Vec<String> {
    hosts(resolution).iter().map(|host| format!("{} {}", host.name, host.address)).collect()
}

#[allow(dead_code, reason = "not every test looks")]
pub(crate) fn policy(resolution: &Resolution) -> &TlsPolicy {
    &hosts(resolution)[0].tls
}

/// Each host's name and policy, for mail that is not held to what the domain publishes; none if that makes no difference.
#[allow(dead_code, reason = "not every test looks")]
pub(crate) fn relaxed(resolution: &Resolution) -> Vec<(&str, &TlsPolicy)> {
    let relaxed = match resolution {
        Resolution::Site { relaxed, .. } => relaxed.as_ref(),
        Resolution::Barred { relaxed, .. } => Some(relaxed),
        Resolution::Failed(_) | Resolution::Deferred(_) => None,
    };
    relaxed.iter().flat_map(|relaxed| &relaxed.hosts).map(|host| (&*host.name, &*host.tls)).collect()
}

/// `failed` or `deferred`, and the codes.
#[allow(dead_code, reason = "not every test looks")]
pub(crate) fn refusal(resolution: &Resolution) -> String {
    let (word, reply) = match resolution {
        Resolution::Failed(reply) => ("failed", reply),
        Resolution::Deferred(reply) | Resolution::Barred { reply, .. } => ("deferred", reply),
        site @ Resolution::Site { .. } => panic!("{site:?}"),
    };
    let enhanced = reply.enhanced.map(|code| code.to_string()).unwrap_or_default();
    format!("{word} {} {enhanced}", reply.code)
}
