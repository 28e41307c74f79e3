//! DANE (RFC 7672) against Knot DNS: which answers make a host's TLSA records count, and which make it unusable.

mod asking;

use asking::{Asking, hosts, places, policy, refusal, relaxed, run};
use engine::domains::{BasisKind, Resolution};
use engine::tlsrpt::Failure;
use smtp_out::TlsPolicy;
use tests::process::{Chain, Knot, Zone, setup};

const DIGEST: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const SECURE: &[&str] = &[
    "a MX 10 mx",
    "b MX 10 mx",
    "mx A 127.0.0.1",
    "_25._tcp.mx TLSA 3 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "without MX 10 mx2",
    "mx2 A 127.0.0.2",
    "useless MX 10 mx3",
    "mx3 A 127.0.0.3",
    "_25._tcp.mx3 TLSA 1 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "anchored MX 10 mx4",
    "mx4 A 127.0.0.4",
    "_25._tcp.mx4 TLSA 2 0 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    // Its TLSA records are in a zone that nobody serves.
    "broken MX 10 mx5",
    "mx5 A 127.0.0.5",
    "_tcp.mx5 NS ns.plain.",
    "both MX 10 mx5",
    "both MX 20 mx",
    // Aliases of a host, and of a domain.
    "aliased MX 10 alias",
    "alias CNAME mx",
    "other CNAME a",
    // Hosts elsewhere.
    "outside MX 10 mx.insecure.",
    "bogushost MX 10 mx.bogus.",
    "self A 127.0.0.6",
    "_25._tcp.self TLSA 3 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "lost MX 10 nowhere",
    // An alias that leads out of what is signed: what stands at the alias itself still counts.
    "leading MX 10 leads",
    "leads CNAME mx.insecure.",
    "_25._tcp.leads TLSA 3 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
];

const INSECURE: &[&str] = &[
    "a MX 10 mx",
    "mx A 127.0.0.1",
    "_25._tcp.mx TLSA 3 1 1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    "inside MX 10 mx.secure.",
];

fn tree() -> Option<Knot> {
    Knot::start(&[
        Zone { name: "secure", chain: Chain::Secure, records: SECURE },
        Zone { name: "insecure", chain: Chain::Insecure, records: INSECURE },
        Zone { name: "bogus", chain: Chain::Bogus, records: &["a MX 10 mx", "mx A 127.0.0.1"] },
        Zone { name: "lame", chain: Chain::Lame, records: &[] },
        Zone { name: "_tcp.mx5.secure", chain: Chain::Lame, records: &[] },
    ])
}

/// With DANE on and the tree's own anchor.
fn with(test: impl AsyncFnOnce(Asking)) {
    let Some(knot) = tree() else { return };
    let queue = setup::temporary_folder();
    let tls = format!("dane = true\nmta_sts = false\ntrust_anchors = \"{}\"", knot.anchors().display());
    run(async { test(Asking::new(knot.address, queue.path(), "", &tls)).await });
}

fn names(policy: &TlsPolicy) -> Vec<&str> {
    match policy {
        TlsPolicy::Dane { names, records } => {
            assert_eq!(records.len(), 1);
            names.iter().map(|name| &**name).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn tag(resolution: &Resolution) -> &str {
    match resolution {
        Resolution::Site { basis, .. } => &basis.tag,
        other => panic!("{other:?}"),
    }
}

#[test]
fn signed_all_the_way_the_records_count() {
    with(async |asking| {
        let a = asking.mx("a.secure").await;
        assert_eq!(names(policy(&a)), ["mx.secure"]);
        assert_eq!(relaxed(&a), [("mx.secure", &TlsPolicy::May)], "for who is not held to it");
        let Resolution::Site { basis, .. } = &a else { panic!("names() saw a site") };
        assert_eq!(
            (basis.kind, basis.policy.as_slice()),
            (BasisKind::Dane, &[format!("3 1 1 {DIGEST}")][..])
        );
        // Domains of one host make the same demands: they may share connections.
        assert_eq!(tag(&a), tag(&asking.mx("b.secure").await));
        assert_eq!(names(policy(&asking.mx("self.secure").await)), ["self.secure"]);
    });
}

#[test]
fn under_a_trust_anchor_the_domain_is_a_name_as_well() {
    with(async |asking| {
        assert_eq!(names(policy(&asking.mx("anchored.secure").await)), ["mx4.secure", "anchored.secure"]);
    });
}

#[test]
fn a_proven_absence_is_no_demand() {
    with(async |asking| {
        let without = asking.mx("without.secure").await;
        assert_eq!((policy(&without), tag(&without)), (&TlsPolicy::May, ""));
    });
}

#[test]
fn records_of_no_use_still_forbid_plain_text() {
    with(async |asking| {
        assert_eq!(policy(&asking.mx("useless.secure").await), &TlsPolicy::Encrypt);
    });
}

#[test]
fn aliases_are_followed_and_their_ends_records_count() {
    with(async |asking| {
        let aliased = asking.mx("aliased.secure").await;
        assert_eq!(places(&aliased), ["alias.secure 127.0.0.1:25"]);
        assert_eq!(names(policy(&aliased)), ["mx.secure"]);
        assert_eq!(names(policy(&asking.mx("other.secure").await)), ["mx.secure"]);
        assert_eq!(names(policy(&asking.mx("leading.secure").await)), ["leads.secure"]);
    });
}

#[test]
fn nothing_unsigned_on_the_way_makes_a_demand() {
    with(async |asking| {
        for domain in ["a.insecure", "inside.insecure", "outside.secure"] {
            assert_eq!(policy(&asking.mx(domain).await), &TlsPolicy::May, "{domain}");
        }
    });
}

#[test]
fn trouble_with_the_records_is_not_their_absence() {
    with(async |asking| {
        let broken = asking.mx("broken.secure").await;
        assert_eq!(refusal(&broken), "deferred 451 4.4.3");
        assert_eq!(relaxed(&broken).len(), 1, "for who is not held to them");
        let failure = asking.notes.borrow()[0].result.clone().expect_err("it failed").0;
        assert_eq!(failure, Failure::Dnssec);
        let both = asking.mx("both.secure").await;
        assert_eq!(hosts(&both).iter().map(|host| &*host.name).collect::<Vec<_>>(), ["mx.secure"]);
        assert_eq!(names(policy(&both)), ["mx.secure"]);
    });
}

#[test]
fn signatures_that_do_not_hold_make_the_mail_wait() {
    with(async |asking| {
        for domain in ["a.bogus", "nowhere.bogus", "bogushost.secure", "a.lame"] {
            assert_eq!(refusal(&asking.mx(domain).await), "deferred 451 4.4.3", "{domain}");
        }
    });
}

#[test]
fn what_provably_does_not_exist_fails_at_once() {
    with(async |asking| {
        assert_eq!(refusal(&asking.mx("nowhere.secure").await), "failed 550 5.1.2");
        assert_eq!(refusal(&asking.mx("lost.secure").await), "failed 550 5.4.4");
        assert_eq!(refusal(&asking.mx("nowhere.insecure").await), "failed 550 5.1.2");
    });
}

#[test]
fn without_dane_nobody_asks_for_the_records() {
    let Some(knot) = tree() else { return };
    let queue = setup::temporary_folder();
    run(async {
        let asking = Asking::new(knot.address, queue.path(), "", "mta_sts = false");
        assert_eq!(policy(&asking.mx("a.secure").await), &TlsPolicy::May);
        assert_eq!(policy(&asking.mx("broken.secure").await), &TlsPolicy::May);
        // Nor does anybody check signatures.
        assert_eq!(places(&asking.mx("a.bogus").await), ["mx.bogus 127.0.0.1:25"]);
    });
}

#[test]
fn the_roots_own_anchor_does_not_vouch_for_another_tree() {
    let Some(knot) = tree() else { return };
    let queue = setup::temporary_folder();
    run(async {
        let asking = Asking::new(knot.address, queue.path(), "", "dane = true\nmta_sts = false");
        assert_eq!(refusal(&asking.mx("a.secure").await), "deferred 451 4.4.3");
    });
}
