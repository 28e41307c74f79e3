//! Every policy against hosts with the right certificate and with wrong ones, over TLS 1.2 and 1.3, resumed and not.

// A test may panic.
#![allow(clippy::unwrap_used)]

mod tls_host;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use smtp_out::{
    Config, Encrypted, FailureKind, Flight, Habits, Link, Output, Protection, Session, Timeouts, TlsBase,
    TlsClient, TlsPolicy, Tlsa, Verified,
};
use std::sync::Arc;
use std::time::Instant;
use tls_host::{Identity, TlsHost, World, choosy_server, self_signed, server};
use webpki::EndEntityCert;

/// What the session tells about a connection by implicit TLS to `mx.example`.
fn connect(client: &Arc<TlsClient>, config: &Arc<ServerConfig>) -> Protection {
    Wire::new(client, config).protection()
}

struct Wire {
    session: Session,
    host: TlsHost,
    flight: Flight,
    now: Instant,
}

impl Wire {
    fn new(client: &Arc<TlsClient>, config: &Arc<ServerConfig>) -> Wire {
        let settings = Config {
            helo: "us.example".to_owned(),
            timeouts: Timeouts::RFC_5321,
            window_max: 8,
            transactions_max: 0,
        };
        let link = Link {
            host: "mx.example".into(),
            tls: Some(Arc::clone(client)),
            is_tls_implicit: true,
            ..Link::default()
        };
        let now = Instant::now();
        let session = Session::new(now, Arc::new(settings), Habits::default(), link);
        Wire { session, host: TlsHost::new(Arc::clone(config)), flight: Flight::default(), now }
    }

    /// Carries octets both ways until nothing moves; what the host opened is in `host.opened`.
    fn run(&mut self) {
        loop {
            let has_sent = self.session.take_flight(self.now, &mut self.flight);
            if has_sent {
                let mut out = Vec::new();
                match self.flight.is_raw {
                    true => out.extend_from_slice(&self.flight.own),
                    false => self.session.seal(&self.flight.own, &mut out),
                }
                self.host.hear(&out);
                self.session.handle_sent(self.now);
            }
            let said = self.host.say(b"");
            self.session.handle_bytes(self.now, &said);
            if !has_sent && said.is_empty() {
                return;
            }
        }
    }

    fn protection(&mut self) -> Protection {
        self.run();
        match self.session.poll_output() {
            Some(Output::Protection(protection)) => protection,
            other => panic!("{other:?}"),
        }
    }
}

fn verified(protection: &Protection) -> Option<Verified> {
    match protection {
        Protection::Encrypted(Encrypted { verified, failure: None, .. }) => Some(*verified),
        _ => None,
    }
}

/// Both versions of TLS come to the same result.
fn outcome(base: &TlsBase, policy: &TlsPolicy, identity: &Identity) -> Result<Verified, FailureKind> {
    let client = base.client(policy).unwrap();
    let [old, new] = [true, false].map(|is_tls12| {
        let protection = connect(&client, &server(identity.clone(), is_tls12));
        verified(&protection).ok_or_else(|| protection.failure_kind().unwrap())
    });
    assert_eq!(old, new, "TLS 1.2 and 1.3 differ");
    new
}

fn verify(names: &[&str]) -> TlsPolicy {
    TlsPolicy::Verify { names: names.iter().map(|name| (*name).into()).collect(), enforced: true }
}

fn spki(certificate: &CertificateDer<'_>) -> Vec<u8> {
    EndEntityCert::try_from(certificate).unwrap().subject_public_key_info().to_vec()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

fn sha512(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, bytes).as_ref().to_vec()
}

fn tlsa(usage: u8, selector: u8, matching: u8, data: Vec<u8>) -> Tlsa {
    Tlsa { usage, selector, matching, data }
}

fn dane(records: &[Tlsa]) -> TlsPolicy {
    TlsPolicy::Dane { records: records.to_vec(), names: Vec::new() }
}

#[test]
fn may_and_encrypt_take_anybody() {
    let world = World::new();
    let anybody = ["good", "wrong_name", "expired", "self_signed"].map(|name| world.by_name(name));
    for policy in [TlsPolicy::May, TlsPolicy::Encrypt] {
        for identity in &anybody {
            assert_eq!(outcome(&world.base(), &policy, identity), Ok(Verified::Nobody));
        }
    }
    assert!(world.base().client(&TlsPolicy::Never).is_none());
}

#[test]
fn verify_wants_a_root_a_name_and_a_date() {
    let world = World::new();
    let outcome = |identity: &Identity| outcome(&world.base(), &verify(&[]), identity);
    assert_eq!(outcome(&world.by_name("good")), Ok(Verified::Roots));
    assert_eq!(outcome(&world.by_name("wrong_name")), Err(FailureKind::CertificateHostMismatch));
    assert_eq!(outcome(&world.by_name("expired")), Err(FailureKind::CertificateExpired));
    assert_eq!(outcome(&world.by_name("self_signed")), Err(FailureKind::CertificateNotTrusted));
    assert_eq!(outcome(&World::new().by_name("good")), Err(FailureKind::CertificateNotTrusted));
}

#[test]
fn names_of_the_policy_take_the_place_of_the_hosts() {
    let world = World::new();
    let outcome = |names: &[&str], certificate: &str| {
        outcome(&world.base(), &verify(names), &world.identity(certificate))
    };
    assert_eq!(outcome(&["nexthop.test", "mx.example"], "mx.example"), Ok(Verified::Roots));
    assert_eq!(outcome(&["nexthop.test"], "mx.example"), Err(FailureKind::CertificateHostMismatch));
    for certificate in ["a.mx.test", "A.MX.test", "*.mx.test"] {
        assert_eq!(outcome(&["*.mx.test"], certificate), Ok(Verified::Roots), "{certificate}");
    }
    for certificate in ["mx.test", "a.b.mx.test", "amx.test", "*.test"] {
        let mismatch = Err(FailureKind::CertificateHostMismatch);
        assert_eq!(outcome(&["*.mx.test"], certificate), mismatch, "{certificate}");
    }
    assert_eq!(outcome(&["a.mx.test"], "*.mx.test"), Ok(Verified::Roots));
}

#[test]
fn what_is_not_enforced_passes_and_is_told() {
    let world = World::new();
    let client = world.base().client(&TlsPolicy::Verify { names: Vec::new(), enforced: false }).unwrap();
    let cases = [
        ("good", Verified::Roots, None),
        ("wrong_name", Verified::Nobody, Some(FailureKind::CertificateHostMismatch)),
        ("expired", Verified::Nobody, Some(FailureKind::CertificateExpired)),
        ("self_signed", Verified::Nobody, Some(FailureKind::CertificateNotTrusted)),
    ];
    for (name, expected, kind) in cases {
        let config = server(world.by_name(name), false);
        // The second connection resumes the session of the first, and is judged as that one was.
        for is_resumed in [false, true] {
            let protection = connect_and_close(&client, &config);
            let Protection::Encrypted(encrypted) = &protection else { panic!("{protection:?}") };
            assert_eq!((encrypted.verified, protection.failure_kind()), (expected, kind), "{name}");
            assert_eq!(encrypted.is_resumed, is_resumed, "{name}");
        }
        // A session of another host's certificate is not to be resumed here.
        connect(&client, &server(world.by_name("good"), true));
    }
}

/// Runs long enough for the host's tickets to arrive.
fn connect_and_close(client: &Arc<TlsClient>, config: &Arc<ServerConfig>) -> Protection {
    let mut wire = Wire::new(client, config);
    let protection = wire.protection();
    let said = wire.host.say(b"220 mx.example\r\n");
    wire.session.handle_bytes(wire.now, &said);
    wire.run();
    assert_eq!(wire.host.opened, b"EHLO us.example\r\n");
    protection
}

#[test]
fn sessions_are_resumed_within_a_policy_and_never_across() {
    let (world, facts) = (World::new(), |protection| match protection {
        Protection::Encrypted(Encrypted { is_resumed, verified, .. }) => (is_resumed, verified),
        other => panic!("{other:?}"),
    });
    for is_tls12 in [true, false] {
        let config = server(world.by_name("good"), is_tls12);
        let base = world.base();
        let [may, strict] = [TlsPolicy::May, verify(&[])].map(|policy| base.client(&policy).unwrap());
        assert_eq!(facts(connect_and_close(&may, &config)), (false, Verified::Nobody));
        assert_eq!(facts(connect_and_close(&may, &config)), (true, Verified::Nobody));
        assert_eq!(facts(connect_and_close(&strict, &config)), (false, Verified::Roots));
        assert_eq!(facts(connect_and_close(&strict, &config)), (true, Verified::Roots));
    }
}

#[test]
fn fingerprint_is_of_the_certificate_or_of_its_key() {
    let (world, identity) = (World::new(), self_signed("any.test"));
    let outcome = |digest: Vec<u8>| {
        let policy = TlsPolicy::Fingerprint { sha256: vec![[0; 32], digest.try_into().unwrap()] };
        outcome(&world.base(), &policy, &identity)
    };
    assert_eq!(outcome(sha256(&identity.chain[0])), Ok(Verified::Fingerprint));
    assert_eq!(outcome(sha256(&spki(&identity.chain[0]))), Ok(Verified::Fingerprint));
    let other = self_signed("any.test");
    assert_eq!(outcome(sha256(&other.chain[0])), Err(FailureKind::CertificateNotTrusted));
    assert_eq!(outcome(sha256(&spki(&other.chain[0]))), Err(FailureKind::CertificateNotTrusted));
}

/// RFC 7672 §3.1.1: neither names nor dates nor authorities matter.
#[test]
fn dane_ee_looks_at_the_certificate_alone() {
    let world = World::new();
    for identity in [self_signed("other.test"), world.expired("other.test"), world.by_name("good")] {
        let (whole, key) = (identity.chain[0].to_vec(), spki(&identity.chain[0]));
        let records = [
            tlsa(3, 0, 0, whole.clone()),
            tlsa(3, 0, 1, sha256(&whole)),
            tlsa(3, 0, 2, sha512(&whole)),
            tlsa(3, 1, 0, key.clone()),
            tlsa(3, 1, 1, sha256(&key)),
            tlsa(3, 1, 2, sha512(&key)),
        ];
        for record in records {
            let others = [tlsa(3, record.selector, record.matching, sha256(b"x")), record.clone()];
            assert_eq!(outcome(&world.base(), &dane(&[record]), &identity), Ok(Verified::Dane));
            assert_eq!(outcome(&world.base(), &dane(&others), &identity), Ok(Verified::Dane));
        }
    }
}

#[test]
fn dane_ee_refuses_another_key() {
    let (world, other) = (World::new(), self_signed("mx.example"));
    for record in [tlsa(3, 1, 1, sha256(&spki(&other.chain[0]))), tlsa(3, 0, 0, other.chain[0].to_vec())] {
        let outcome = outcome(&world.base(), &dane(&[record]), &world.by_name("good"));
        assert_eq!(outcome, Err(FailureKind::TlsaInvalid));
    }
}

/// RFC 7672 §3.1.2: the anchor is in the chain that the host presents; the roots do not matter, name and date do.
#[test]
fn dane_ta_builds_a_chain_to_what_matches() {
    let world = World::new();
    let base = TlsBase::new(Vec::new(), None).unwrap().with_time(world.time());
    let (middle, root) = (world.middle.der().clone(), world.root.der().clone());
    let presents_root = |mut identity: Identity| {
        identity.chain.push(root.clone());
        identity
    };
    let anchors = [
        tlsa(2, 0, 1, sha256(&middle)),
        tlsa(2, 1, 1, sha256(&spki(&middle))),
        tlsa(2, 1, 0, spki(&middle)),
        tlsa(2, 0, 0, middle.to_vec()),
        tlsa(2, 0, 2, sha512(&root)),
        tlsa(2, 1, 2, sha512(&spki(&root))),
    ];
    for record in anchors {
        let policy = dane(&[record]);
        let outcome = |identity| outcome(&base, &policy, &presents_root(identity));
        assert_eq!(outcome(world.by_name("good")), Ok(Verified::Dane), "{policy:?}");
        assert_eq!(outcome(world.by_name("wrong_name")), Err(FailureKind::CertificateHostMismatch));
        assert_eq!(outcome(world.by_name("expired")), Err(FailureKind::CertificateExpired));
    }
    let of_key = TlsPolicy::Dane {
        records: vec![tlsa(2, 0, 1, sha256(&middle))],
        names: vec!["nexthop.test".into(), "other.example".into()],
    };
    assert_eq!(outcome(&base, &of_key, &world.by_name("wrong_name")), Ok(Verified::Dane));
}

#[test]
fn dane_ta_needs_the_anchor_in_the_chain_or_whole_in_the_record() {
    let world = World::new();
    let (base, root) = (world.base(), world.root.der().clone());
    let outcome = |record| outcome(&base, &dane(&[record]), &world.by_name("good"));
    // The host presents its own and the middle one, and not the root.
    assert_eq!(outcome(tlsa(2, 0, 1, sha256(&root))), Err(FailureKind::TlsaInvalid));
    assert_eq!(outcome(tlsa(2, 1, 1, sha256(&spki(&root)))), Err(FailureKind::TlsaInvalid));
    assert_eq!(outcome(tlsa(2, 0, 0, root.to_vec())), Ok(Verified::Dane));
    // An authority that did not sign it.
    let other = World::new().root.der().to_vec();
    assert_eq!(outcome(tlsa(2, 0, 0, other)), Err(FailureKind::CertificateNotTrusted));
}

/// A chain that merely contains the anchor's certificate, without being signed by it, is worth nothing.
#[test]
fn dane_ta_is_not_satisfied_by_presenting_the_anchor() {
    let (world, thief) = (World::new(), World::new());
    let mut identity = thief.by_name("good");
    identity.chain.push(world.middle.der().clone());
    let policy = dane(&[tlsa(2, 0, 1, sha256(world.middle.der()))]);
    let outcome = outcome(&world.base(), &policy, &identity);
    assert_eq!(outcome, Err(FailureKind::CertificateNotTrusted));
}

/// RFC 7672 §2.2, §3.1.3: encrypted, and nobody is authenticated.
#[test]
fn dane_without_a_usable_record_encrypts() {
    let (world, identity) = (World::new(), self_signed("other.test"));
    let (whole, key) = (identity.chain[0].to_vec(), spki(&identity.chain[0]));
    let unusable = [
        tlsa(0, 0, 1, sha256(b"x")),
        tlsa(1, 1, 1, sha256(&key)),
        tlsa(3, 0, 3, whole.clone()),
        tlsa(3, 2, 1, sha256(b"x")),
        tlsa(4, 0, 1, sha256(b"x")),
        tlsa(3, 0, 1, sha256(b"x")[..31].to_vec()),
        tlsa(2, 0, 0, b"no certificate".to_vec()),
        tlsa(3, 1, 0, Vec::new()),
    ];
    assert_eq!(outcome(&world.base(), &dane(&unusable), &identity), Ok(Verified::Nobody));
    // One usable record among them decides.
    let with_wrong = [&unusable[..], &[tlsa(3, 1, 1, sha256(b"x"))]].concat();
    assert_eq!(outcome(&world.base(), &dane(&with_wrong), &identity), Err(FailureKind::TlsaInvalid));
    let with_right = [&unusable[..], &[tlsa(3, 1, 1, sha256(&key))]].concat();
    assert_eq!(outcome(&world.base(), &dane(&with_right), &identity), Ok(Verified::Dane));
}

/// RFC 7671 §9: a digest that is left over beside a stronger one does not count.
#[test]
fn dane_takes_the_strongest_digest() {
    let (world, identity) = (World::new(), self_signed("mx.example"));
    let key = spki(&identity.chain[0]);
    let stale = [tlsa(3, 1, 1, sha256(&key)), tlsa(3, 1, 2, sha512(b"x"))];
    assert_eq!(outcome(&world.base(), &dane(&stale), &identity), Err(FailureKind::TlsaInvalid));
    let other_selector = [tlsa(3, 1, 1, sha256(&key)), tlsa(3, 0, 2, sha512(b"x"))];
    assert_eq!(outcome(&world.base(), &dane(&other_selector), &identity), Ok(Verified::Dane));
}

/// Whoever presents a certificate must have its key, under every policy.
#[test]
fn certificate_without_its_key_is_refused() {
    let world = World::new();
    let mut identity = world.by_name("good");
    identity.key = self_signed("mx.example").key;
    let config = tls_host::server_without_checks(identity.clone());
    let of_key = dane(&[tlsa(3, 1, 1, sha256(&spki(&identity.chain[0])))]);
    for policy in [TlsPolicy::May, TlsPolicy::Encrypt, verify(&[]), of_key] {
        let protection = connect(&world.base().client(&policy).unwrap(), &config);
        assert_eq!(protection.failure_kind(), Some(FailureKind::ValidationFailure), "{policy:?}");
        assert!(matches!(protection, Protection::Failed(_)), "{policy:?}");
    }
}

#[test]
fn our_certificate_is_shown_to_a_host_that_asks() {
    let world = World::new();
    let ours = world.identity("us.example");
    let config = choosy_server(world.by_name("good"), world.root.der());
    let base = TlsBase::new(Vec::new(), Some((ours.chain, ours.key))).unwrap().with_time(world.time());
    let mut wire = Wire::new(&base.client(&TlsPolicy::May).unwrap(), &config);
    assert_eq!(verified(&wire.protection()), Some(Verified::Nobody));
    assert!(wire.host.is_up() && wire.host.error.is_none());

    let mut without = Wire::new(&world.base().client(&TlsPolicy::May).unwrap(), &config);
    without.run();
    assert!(without.host.error.is_some(), "the host wanted a certificate");
}

#[test]
fn base_says_what_is_wrong_with_what_it_was_given() {
    let junk = CertificateDer::from(vec![1, 2, 3]);
    let error = TlsBase::new(vec![junk], None).unwrap_err().to_string();
    assert!(error.starts_with("none of the 1 root certificates can be read"), "{error}");
    let (ours, other) = (self_signed("us.example"), self_signed("us.example"));
    let error = TlsBase::new(Vec::new(), Some((ours.chain, other.key))).unwrap_err().to_string();
    assert!(error.starts_with("our certificate and its key cannot be used"), "{error}");
}

/// One flight is as few records as its octets need, however many pieces it lies in.
#[test]
fn pieces_share_records() {
    let world = World::new();
    let client = world.base().client(&TlsPolicy::May).unwrap();
    let mut wire = Wire::new(&client, &server(world.by_name("good"), false));
    wire.run();
    let (envelope, content) = (vec![b'e'; 300], vec![b'c'; 40_000]);
    let mut out = Vec::new();
    wire.session.seal_pieces(&[&envelope, &content, &envelope], &mut out);
    wire.host.hear(&out);
    assert_eq!(wire.host.opened, [&envelope[..], &content, &envelope].concat());
    assert_eq!(records(&out), 3, "40,600 octets are three records");
}

fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((header, _)) = bytes.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        bytes = &bytes[5 + len..];
        count += 1;
    }
    count
}

#[test]
fn goodbye_follows_the_reply_to_quit() {
    let world = World::new();
    let client = world.base().client(&TlsPolicy::May).unwrap();
    let mut wire = Wire::new(&client, &server(world.by_name("good"), false));
    wire.run();
    wire.session.quit(wire.now);
    for (said, heard) in [("220 mx.example", "QUIT\r\n"), ("221 bye", "")] {
        wire.host.opened.clear();
        assert!(!wire.host.was_closed);
        let said = wire.host.say(format!("{said}\r\n").as_bytes());
        wire.session.handle_bytes(wire.now, &said);
        wire.run();
        assert_eq!(String::from_utf8_lossy(&wire.host.opened), heard);
    }
    assert!(wire.host.was_closed && wire.host.error.is_none());
    let last = std::iter::from_fn(|| wire.session.poll_output()).last();
    assert_eq!(last, Some(Output::Closed { verdict: None }));
}
