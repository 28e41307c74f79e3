//! What is found out about incoming mail: signed by another implementation, judged by records of a name server of ours.

#[path = "verify/daemon.rs"]
mod daemon;

use bytes::Bytes;
use engine::config::Config;
use engine::verify::{Finding, Findings, Letter, Verifier};
use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use message::{Mailbox, ReversePath};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::HashMap;
use std::sync::LazyLock;
use tests::names::{A, Names, Said, TXT};

const BODY: &str = "Dear all,\r\n\r\nhello  there \r\n";

/// Keys, and the records that show them.
struct Keys {
    rsa: Vec<u8>,
    ed: Vec<u8>,
    rsa_record: String,
    ed_record: String,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    let base64 = |octets: &[u8]| base64::engine::general_purpose::STANDARD.encode(octets);
    let rsa = KeyPair::generate(KeySize::Rsa2048).expect("made by this test");
    let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().expect("made by this test");
    let private: Pkcs8V1Der<'_> = rsa.as_der().expect("made by this test");
    let ed = Ed25519KeyPair::generate().expect("made by this test");
    Keys {
        rsa: private.as_ref().to_vec(),
        ed: ed.to_pkcs8().expect("made by this test").as_ref().to_vec(),
        rsa_record: format!("v=DKIM1; k=rsa; p={}", base64(public.as_ref())),
        ed_record: format!("v=DKIM1; k=ed25519; p={}", base64(ed.public_key().as_ref())),
    }
});

const SIGNED: [&str; 3] = ["From", "To", "Subject"];

fn message(from: &str, body: &str) -> String {
    format!("From: {from}\r\nTo: list@mx.example\r\nSubject: News\r\n\r\n{body}")
}

fn signed_rsa(domain: &str, message: &str) -> String {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEYS.rsa.clone()));
    let signer = DkimSigner::from_key(RsaKey::<Sha256>::from_key_der(key).expect("made by this test"));
    let signer = signer.domain(domain).selector("r").headers(SIGNED);
    signer.sign(message.as_bytes()).expect("made by this test").to_header() + message
}

fn signed_ed(domain: &str, message: &str) -> String {
    let signer = DkimSigner::from_key(
        Ed25519Key::from_pkcs8_maybe_unchecked_der(&KEYS.ed).expect("made by this test"),
    );
    let signer = signer.domain(domain).selector("e").headers(SIGNED);
    signer.sign(message.as_bytes()).expect("made by this test").to_header() + message
}

/// `a.test` has everything, `b.test` a key and SPF alone; `broken.test` and `silent.test` say what they are called.
fn names() -> Names {
    let mut texts = HashMap::from([
        ("a.test".to_owned(), "v=spf1 ip4:192.0.2.0/24 -all".to_owned()),
        ("_dmarc.a.test".to_owned(), "v=DMARC1; p=reject".to_owned()),
        ("b.test".to_owned(), "v=spf1 a:mail.b.test ~all".to_owned()),
        ("helo.a.test".to_owned(), "v=spf1 ip4:192.0.2.7 -all".to_owned()),
    ]);
    for domain in ["a.test", "b.test", "sub.a.test"] {
        texts.insert(format!("r._domainkey.{domain}"), KEYS.rsa_record.clone());
        texts.insert(format!("e._domainkey.{domain}"), KEYS.ed_record.clone());
    }
    Names::start(move |name, kind| match (name, kind) {
        (name, _) if name.ends_with("broken.test") => Said::ServFail,
        (name, _) if name.ends_with("silent.test") => Said::Silence,
        ("mail.b.test", A) => Said::addresses(&[[198, 51, 100, 1]]),
        (name, TXT) => texts.get(name).map_or(Said::NoName, |text| Said::text(text)),
        _ => Said::NoName,
    })
}

fn config(names: &Names, keys: &str) -> Config {
    let text = format!(
        "host_name = \"mx.example\"\nqueue = \"q\"\n[delivery]\nname_servers = [\"{}\"]\n[verify]\n{keys}",
        names.address
    );
    engine::config::parse(&text, "ringpost.toml").expect("made by this test")
}

fn letter(client: &str, sender: &str, content: String) -> Letter {
    let sender = match sender {
        "" => ReversePath::Null,
        sender => ReversePath::Mailbox(Mailbox::parse(sender).expect("made by this test")),
    };
    Letter {
        client: client.parse().expect("made by this test"),
        helo: "helo.a.test".to_owned(),
        sender,
        content: Bytes::from(content),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("made by this test")
        .block_on(work)
}

fn verify_with(keys: &str, letter: &Letter) -> (Findings, String) {
    let names = names();
    let config = config(&names, keys);
    run(async {
        let (findings, field) = Verifier::new(&config).expect("made by this test").verify(letter).await;
        (findings, String::from_utf8(field).expect("made by this test"))
    })
}

fn verify(letter: &Letter) -> (Findings, String) {
    verify_with("", letter)
}

fn words(findings: &Findings) -> (Option<Finding>, Vec<Finding>, Option<Finding>) {
    let dkim = findings.dkim.iter().map(|dkim| dkim.finding).collect();
    (findings.spf, dkim, findings.dmarc.as_ref().map(|(finding, ..)| *finding))
}

#[test]
fn a_message_that_is_what_it_says_passes_everything() {
    let content = signed_rsa("a.test", &signed_ed("a.test", &message("ann@a.test", BODY)));
    let (findings, field) = verify(&letter("192.0.2.1", "bounce@a.test", content));
    assert_eq!(
        words(&findings),
        (Some(Finding::Pass), vec![Finding::Pass; 2], Some(Finding::Pass)),
        "{field}"
    );
    assert!(
        field.starts_with("Authentication-Results: mx.example;\r\n\tspf=pass smtp.mailfrom=bounce@a.test;\r\n\tdkim=pass header.d=a.test header.s=r header.b=\""),
        "{field}"
    );
    assert!(field.ends_with(";\r\n\tdmarc=pass header.from=a.test policy.dmarc=reject\r\n"), "{field}");
}

#[test]
fn a_changed_message_fails() {
    let content = signed_rsa("a.test", &message("ann@a.test", BODY));
    let (findings, field) = verify(&letter("203.0.113.1", "ann@a.test", content.replace("hello", "hallo")));
    assert_eq!(words(&findings), (Some(Finding::Fail), vec![Finding::Fail], Some(Finding::Fail)), "{field}");
    assert!(field.contains("dkim=fail reason=\"the body was changed\" header.d=a.test"), "{field}");
    let (findings, field) = verify(&letter("203.0.113.1", "ann@a.test", content.replace("News", "Olds")));
    assert_eq!(words(&findings).1, [Finding::Fail], "{field}");
}

#[test]
fn text_that_is_slipped_in_before_the_body_fails() {
    let content = signed_rsa("a.test", &message("ann@a.test", BODY));
    for slipped in
        ["X: y\n\nbuy\r\n\r\n", "\n\nbuy\r\n\r\n", "\r\nbuy\r\n\r\n", "\r\n\n", "\r\r\nbuy\r\n\r\n"]
    {
        let slipped = content.replacen("\r\n\r\nDear", &format!("\r\n{slipped}Dear"), 1);
        let (findings, field) = verify(&letter("192.0.2.1", "ann@a.test", slipped));
        assert!(!words(&findings).1.contains(&Finding::Pass), "{field}");
    }
}

#[test]
fn dmarc_wants_the_authors_own_domain() {
    // Right in itself, for somebody else than the author.
    let content = signed_rsa("b.test", &message("ann@a.test", BODY));
    let (findings, field) = verify(&letter("198.51.100.1", "bounce@b.test", content));
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![Finding::Pass], Some(Finding::Fail)), "{field}");
    // A subdomain's signature is its organisation's.
    let content = signed_ed("sub.a.test", &message("ann@a.test", BODY));
    let (findings, field) = verify(&letter("203.0.113.1", "bounce@b.test", content));
    assert_eq!(
        words(&findings),
        (Some(Finding::SoftFail), vec![Finding::Pass], Some(Finding::Pass)),
        "{field}"
    );
    // SPF alone is enough.
    let (findings, field) = verify(&letter("192.0.2.1", "ann@a.test", message("ann@a.test", BODY)));
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![Finding::None], Some(Finding::Pass)), "{field}");
}

#[test]
fn a_null_sender_is_judged_by_its_helo() {
    let message = message("ann@a.test", BODY);
    let (findings, field) = verify(&letter("192.0.2.7", "", message.clone()));
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![Finding::None], Some(Finding::Pass)));
    assert!(field.contains("spf=pass smtp.helo=helo.a.test;"), "{field}");
    assert_eq!(words(&verify(&letter("192.0.2.8", "", message)).0).0, Some(Finding::Fail));
}

#[test]
fn who_has_no_records_gets_none() {
    let (findings, field) = verify(&letter("192.0.2.1", "ann@c.test", message("ann@c.test", BODY)));
    assert_eq!(words(&findings), (Some(Finding::None), vec![Finding::None], Some(Finding::None)), "{field}");
    assert!(field.ends_with("dmarc=none header.from=c.test\r\n"), "{field}");
}

#[test]
fn disorder_at_the_name_servers_is_a_temporary_error() {
    let content = signed_rsa("broken.test", &message("ann@broken.test", BODY));
    let (findings, field) = verify(&letter("192.0.2.1", "ann@broken.test", content));
    let temporary = Finding::TempError;
    assert_eq!(words(&findings), (Some(temporary), vec![temporary], Some(temporary)), "{field}");
}

#[test]
fn silence_ends_at_the_time_limit_and_too_many_do_not_wait() {
    let names = names();
    let config = config(&names, "timeout_secs = 1\nmessages_max = 1");
    let content = signed_rsa("silent.test", &message("ann@silent.test", BODY));
    let silent = letter("192.0.2.1", "ann@silent.test", content);
    let right = letter("192.0.2.1", "ann@a.test", signed_rsa("a.test", &message("ann@a.test", BODY)));
    let temporary = (Some(Finding::TempError), vec![Finding::TempError], Some(Finding::TempError));
    run(async {
        let verifier = Verifier::new(&config).expect("made by this test");
        let ((first, _), (second, field)) = tokio::join!(verifier.verify(&silent), verifier.verify(&right));
        assert_eq!(words(&first), temporary);
        assert_eq!(words(&second), temporary, "the only place was taken");
        let field = String::from_utf8(field).expect("made by this test");
        assert!(field.contains("spf=temperror smtp.mailfrom=ann@a.test"), "{field}");
        let (third, _) = verifier.verify(&right).await;
        assert_eq!(words(&third).2, Some(Finding::Pass));
    });
}

#[test]
fn a_body_may_end_in_white_space() {
    // The same to a relaxed signature (RFC 6376 3.4.4), and the library's own digest of it is another.
    let content = signed_rsa("a.test", &message("ann@a.test", BODY));
    let (findings, field) = verify(&letter("192.0.2.1", "ann@a.test", format!("{content} \t\r\n")));
    assert_eq!(words(&findings).1, [Finding::Pass], "{field}");
}

#[test]
fn large_bodies_are_verified_and_too_large_ones_by_spf_alone() {
    let content = signed_rsa("a.test", &message("ann@a.test", &"twelve octets \r\n".repeat(20_000)));
    let letter = letter("192.0.2.1", "ann@a.test", content);
    let (findings, field) = verify(&letter);
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![Finding::Pass], Some(Finding::Pass)), "{field}");
    let (findings, field) = verify_with("size_max = 100000", &letter);
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![], None), "{field}");
}

#[test]
fn weak_and_broken_signatures_do_not_pass() {
    let message = message("ann@a.test", BODY);
    let signature =
        "DKIM-Signature: v=1; a=rsa-sha1; c=relaxed/relaxed; d=a.test; s=r; h=from; bh=AAAA; b=AAAA\r\n";
    for (header, said) in [
        (signature.to_owned(), "dkim=permerror reason=\"rsa-sha1 is worth nothing\""),
        (
            signature.replace("sha1", "sha256").replace("h=from", "l=5; h=from"),
            "it signs a part of the body only",
        ),
        ("DKIM-Signature: garbage\r\n".to_owned(), "dkim=permerror reason=\"the signature or its key"),
    ] {
        let (_, field) = verify(&letter("192.0.2.1", "ann@b.test", header + &message));
        assert!(field.contains(said), "{field}");
    }
    let many = signature.replace("sha1", "sha256").repeat(50) + &message;
    let (findings, _) = verify(&letter("192.0.2.1", "ann@a.test", many));
    assert_eq!(findings.dkim.len(), 8);
    let revoked = signed_rsa("nokey.test", &message);
    let (_, field) = verify(&letter("192.0.2.1", "ann@a.test", revoked));
    assert!(field.contains("dkim=permerror reason=\"there is no such key\""), "{field}");
}

#[test]
fn what_is_turned_off_is_not_told() {
    let content = signed_rsa("a.test", &message("ann@a.test", BODY));
    let letter = letter("192.0.2.1", "ann@a.test", content);
    let (findings, field) = verify_with("spf = false", &letter);
    assert_eq!(words(&findings), (None, vec![Finding::Pass], Some(Finding::Pass)), "{field}");
    let (findings, field) = verify_with("dkim = false\ndmarc = false\nauthserv_id = \"id.example\"", &letter);
    assert_eq!(words(&findings), (Some(Finding::Pass), vec![], None));
    assert!(field.starts_with("Authentication-Results: id.example;"), "{field}");
    let (_, field) = verify_with("spf = false\ndkim = false\ndmarc = false", &letter);
    assert_eq!(field, "Authentication-Results: mx.example; none\r\n");
}
