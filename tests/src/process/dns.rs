//! dnsmasq as a name server that knows what it is told and nothing else.

use super::daemon::Own;
use super::peer::peer;
use super::{vacant, wait};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Another program may take the port between our look and dnsmasq's.
const ATTEMPTS: usize = 5;

/// See the module.
#[derive(Debug)]
pub struct NameServer {
    _child: Own,
    pub address: SocketAddr,
}

impl NameServer {
    /// `records` are options such as `--mx-host=a.test,mx.a.test,10`. `None` if dnsmasq is not installed.
    pub fn start(records: &[String]) -> Option<NameServer> {
        for _ in 0..ATTEMPTS {
            let address = free_address();
            if let Some(server) = NameServer::try_start(peer("dnsmasq")?, address, records) {
                return Some(server);
            }
        }
        panic!("dnsmasq did not come up");
    }

    /// Where one was before.
    pub fn start_on(address: SocketAddr, records: &[String]) -> Option<NameServer> {
        let server = NameServer::try_start(peer("dnsmasq")?, address, records);
        Some(server.unwrap_or_else(|| panic!("dnsmasq did not come up on {address} again")))
    }

    fn try_start(mut dnsmasq: Command, address: SocketAddr, records: &[String]) -> Option<NameServer> {
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        dnsmasq.args(["--bind-interfaces", "--listen-address=127.0.0.1", "--local=/test/"]);
        dnsmasq.arg(format!("--port={}", address.port())).args(records);
        let spawned = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = Own(spawned.expect("dnsmasq starts"));
        let is_up = wait::until_some("dnsmasq", Duration::from_secs(20), || {
            let has_ended = child.0.try_wait().is_ok_and(|ended| ended.is_some());
            // It answers over TCP as well, and a connection tells us that it is up.
            if has_ended { Some(false) } else { TcpStream::connect(address).is_ok().then_some(true) }
        });
        is_up.then_some(NameServer { _child: child, address })
    }
}

/// One that is free for both UDP and TCP, and given to nobody else.
pub(super) fn free_address() -> SocketAddr {
    let both = || Some(vacant()).filter(|address| UdpSocket::bind(address).is_ok());
    wait::until_some("a free port", Duration::from_secs(10), both)
}
