//! message: a reverse-path for each recipient, and back.

use criterion::{BenchmarkId, Criterion};
use message::verp::VerpOrigin;
use message::{Mailbox, MailboxRef, MessageId, RecipientIndex, Verp, VerpKey};
use std::hint::black_box;

const BASE: &str = "list@example.org";
const BASE_LOCAL: &str = "list";
const PLACE: (MessageId, RecipientIndex) = (MessageId(0x0100_0000_0040), RecipientIndex(77_777));

/// The first fits into 64 octets, the second has to become a token.
const RECIPIENTS: [(&str, &str); 2] = [
    ("plain", "ann@example.net"),
    ("token", "ann.with.a.rather.long.name@departments.of.a.large.company.example"),
];

fn render(recipient: &str, key: &VerpKey, out: &mut Vec<u8>) {
    let address = |text| MailboxRef::parse(text).expect("an address");
    Verp::DEFAULT.render(address(BASE), address(recipient), PLACE, key, out);
}

pub(crate) fn rendering(criterion: &mut Criterion) {
    let (key, mut out) = (VerpKey::new(&[7; 32]), Vec::new());
    let base = MailboxRef::parse(BASE).expect("an address");
    let mut group = criterion.benchmark_group("message/verp render");
    for (name, recipient) in RECIPIENTS {
        let recipient = MailboxRef::parse(recipient).expect("an address");
        group.bench_with_input(BenchmarkId::from_parameter(name), &recipient, |bencher, recipient| {
            bencher.iter(|| {
                out.clear();
                Verp::DEFAULT.render(base, black_box(*recipient), PLACE, &key, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

pub(crate) fn decoding(criterion: &mut Criterion) {
    let key = VerpKey::new(&[7; 32]);
    let mut group = criterion.benchmark_group("message/verp decode");
    for (name, recipient) in RECIPIENTS {
        let mut sender = Vec::new();
        render(recipient, &key, &mut sender);
        let sender = Mailbox::parse(std::str::from_utf8(&sender).expect("ASCII")).expect("an address");
        let origin =
            Verp::DEFAULT.decode(BASE_LOCAL, sender.local_part(), &key).expect("it was just rendered");
        assert_eq!(matches!(origin, VerpOrigin::Place(..)), name == "token");
        group.bench_with_input(BenchmarkId::from_parameter(name), &sender, |bencher, sender| {
            bencher.iter(|| Verp::DEFAULT.decode(BASE_LOCAL, black_box(sender.local_part()), &key));
        });
    }
    group.finish();
}
