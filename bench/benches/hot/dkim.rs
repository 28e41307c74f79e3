//! message: the digest of a body, and signatures of a header by each kind of key.

use crate::sample;
use criterion::{BenchmarkId, Criterion, Throughput};
use message::UnixMillis;
use message::dkim::{BodyHash, DomainSigners, Key, SelectorKey, Terms, split};
use std::hint::black_box;
use std::sync::Arc;

pub(crate) fn body_hashes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message/dkim body hash");
    let words = "of words that are some five letters long, with  spaces here and there \r\n";
    let base64 = format!("{}\r\n", "QUJD".repeat(19));
    for (case, line, len) in [
        ("4 KiB, words", words, 4 << 10),
        ("64 KiB, words", words, 64 << 10),
        ("64 KiB, base64", base64.as_str(), 64 << 10),
    ] {
        let body = line.repeat(len / line.len()).into_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(case), &body, |bencher, body| {
            bencher.iter(|| BodyHash::of(black_box(body)));
        });
    }
    group.finish();
}

/// What a merged copy costs besides its body: the fields of a header are hashed and signed.
pub(crate) fn signatures(criterion: &mut Criterion) {
    let content = sample::content(4 << 10, false);
    let (header, body) = split(&content).expect("the sample has a header");
    let (hash, now, mut out) = (BodyHash::of(body), UnixMillis(1_700_000_000_000), Vec::new());
    let mut group = criterion.benchmark_group("message/dkim signature");
    group.throughput(Throughput::Elements(1));
    for (case, keys) in [
        ("no key: the header alone", vec![]),
        ("RSA 2048", vec![key("r1", RSA)]),
        ("Ed25519", vec![key("e1", ED25519)]),
        ("both", vec![key("r1", RSA), key("e1", ED25519)]),
    ] {
        let signers = signers(keys);
        group.bench_function(case, |bencher| {
            bencher.iter(|| {
                out.clear();
                signers.sign(black_box(header), &hash, now, &mut out).expect("it can be signed");
                out.len()
            });
        });
    }
    group.finish();
}

const RSA: &str = include_str!("../../../message/tests/dkim/rsa-pkcs8.pem");
const ED25519: &str = include_str!("../../../message/tests/dkim/ed25519.pem");

fn key(selector: &str, pem: &str) -> SelectorKey {
    SelectorKey { selector: selector.into(), key: Key::from_pem(pem.as_bytes()).expect("a key of the tests") }
}

/// With the terms of a configuration that says nothing of them.
fn signers(keys: Vec<SelectorKey>) -> DomainSigners {
    let config = engine::config::Dkim::default();
    let terms =
        Terms::new(config.oversign.iter().map(String::as_str), config.headers.iter().map(String::as_str));
    DomainSigners {
        domain: "news.example.org".into(),
        identity: None,
        subdomains: false,
        terms: Arc::new(terms),
        keys,
    }
}
