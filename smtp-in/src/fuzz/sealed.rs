//! A session under TLS with a client that shakes hands as it should, and then says anything.

use super::{Peer, tight_policy};
use crate::{Identity, Policy, TlsServer, TlsUse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// The first octet chooses whether TLS comes by STARTTLS or before the greeting, and whether `bytes` are sealed. If they
/// are: wherever plain text and records are cut, the session says the same. If they stand on the wire as they are: nothing
/// of them is a command, and nothing is said but TLS.
pub fn fuzz_sealed(now: Instant, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let tls_use = if first & 1 == 0 { TlsUse::Offer } else { TlsUse::Implicit };
    let mut peer = secured(now, tls_use, usize::MAX);
    if first & 2 == 0 {
        say_sealed(&mut peer, bytes, usize::MAX);
        let mut in_pieces = secured(now, tls_use, 7);
        say_sealed(&mut in_pieces, bytes, 7);
        assert_eq!(in_pieces.heard, peer.heard);
    } else {
        let before = peer.heard.len();
        peer.feed(bytes, bytes.len().max(1));
        let said = &peer.heard[before..];
        assert!(["Ask", "Store", "\r\n"].iter().all(|word| !said.contains(word)), "{said}");
    }
}

/// Past its handshake, all octets of which came in pieces.
pub(super) fn secured(now: Instant, tls_use: TlsUse, piece_len: usize) -> Peer {
    let policy = Policy { tls: Some(Arc::clone(&SERVER)), tls_use, ..tight_policy() };
    let mut peer = Peer::new(now, policy, false);
    while peer.unblock() {}
    if tls_use != TlsUse::Implicit {
        peer.feed(b"EHLO a\r\nSTARTTLS\r\n", piece_len);
    }
    let name = ServerName::try_from("fuzz.test").expect("a name");
    let client = ClientConnection::new(Arc::clone(&CLIENT), name).expect("a client of ours");
    peer.tunnel = Some(Box::new(client));
    while send_sealed(&mut peer, piece_len) {}
    assert!(peer.tunnel.as_ref().is_some_and(|tunnel| !tunnel.is_handshaking()), "{}", peer.heard);
    peer
}

/// Each piece in a record of its own.
pub(super) fn say_sealed(peer: &mut Peer, bytes: &[u8], piece_len: usize) {
    let tunnel = peer.tunnel.as_mut().expect("it shook hands");
    tunnel.set_buffer_limit(None);
    for piece in bytes.chunks(piece_len) {
        tunnel.writer().write_all(piece).expect("it takes everything");
    }
    send_sealed(peer, piece_len);
}

/// Sends what the client's end of the tunnel has; false if that is nothing.
fn send_sealed(peer: &mut Peer, piece_len: usize) -> bool {
    let (mut wire, tunnel) = (Vec::new(), peer.tunnel.as_mut().expect("it is there"));
    while tunnel.wants_write() {
        tunnel.write_tls(&mut wire).expect("a Vec takes everything");
    }
    peer.feed(&wire, piece_len);
    !wire.is_empty()
}

/// The plain text of what the session said; an alert ends it.
pub(super) fn open(tunnel: &mut ClientConnection, mut wire: &[u8]) -> String {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        tunnel.read_tls(&mut wire).expect("a slice can be read");
        match tunnel.process_new_packets() {
            Ok(_) => {}
            Err(Error::AlertReceived(_)) => break,
            Err(error) => panic!("what is said is TLS: {error}"),
        }
        // There is no more, or there will be.
        let _ = tunnel.reader().read_to_end(&mut plain);
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Known to everybody: it proves nothing but that a handshake ends well.
static SERVER: LazyLock<Arc<TlsServer>> = LazyLock::new(|| {
    let key = PrivatePkcs8KeyDer::from(STANDARD.decode(KEY).expect("base64"));
    let identity = Identity { names: Vec::new(), chain: vec![certificate()], key: key.into() };
    let server = TlsServer::new(vec![identity], None).expect("a certificate and its key");
    Arc::new(server.with_time(Arc::new(Fixed)))
});

static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).expect("a certificate");
    let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(Fixed));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has suites of them");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
});

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from(STANDARD.decode(CERTIFICATE).expect("base64"))
}

/// 2030-01-01, when the certificate is good.
#[derive(Debug)]
struct Fixed;

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_893_456_000)))
    }
}

const KEY: &str = "MC4CAQAwBQYDK2VwBCIEIHWH+sz7ZfWw/p9+Lju1nPjMmdlexrJupsSqSOZmdEyV";

/// Of `fuzz.test`, by itself.
const CERTIFICATE: &str = concat!(
    "MIIBKTCB3KADAgECAhRvyxNNB4dMbimlmAKGhtq4Yn9WlDAFBgMrZXAwADAgFw0yNjExMzAwMDM0MjBaGA8yMTI2MTEwNjAwMzQy",
    "MFowADAqMAUGAytlcAMhAJm+3Mb9UcAGHu0D+vjE8hm9YUVNGTcHAW3TzAU9gqrko2YwZDAdBgNVHQ4EFgQUB2KYvXuaOhN1bdMi",
    "9P0SM3PXt2wwHwYDVR0jBBgwFoAUB2KYvXuaOhN1bdMi9P0SM3PXt2wwFAYDVR0RBA0wC4IJZnV6ei50ZXN0MAwGA1UdEwEB/wQC",
    "MAAwBQYDK2VwA0EAGAsZ+kbQ7/JucqNQpXBzoh+ik/Ei6DfUrTHxqrckI4i8e9pQVTz/Ii0IuW9+EpoMONrHZ3JmZ5v4HH8gP42P",
    "AA==",
);
