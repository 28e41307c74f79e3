//! message: one recipient's copy of a merged message, and what leaves the list for him.

use criterion::{BenchmarkId, Criterion, Throughput};
use message::merge::{Bound, Template};
use message::unsubscribe::{Links, Subscription, UnsubscribeKey};
use message::{MailboxRef, merge};
use std::hint::black_box;

const COLUMNS: [&str; 5] = ["email", "name", "city", "code", "link"];
const VALUES: [&str; 5] =
    ["ann@example.net", "Zoë Example", "Zürich", "AUTUMN-4711", "https://example.org/?c=4711&r=77777"];

/// A newsletter of about 10 KiB: a plain text and an HTML text, five fields in each, three in the header.
fn letter(coding: &str) -> Vec<u8> {
    let greeting =
        "Dear {{name|default(\"reader\")}}, in {{city}} your code is {{code}}: {{link}} ({{email}})\r\n";
    let line = "And here is what is new this week, told at a length that a newsletter has.\r\n";
    let text = format!("{greeting}{}{greeting}", line.repeat(40));
    let html =
        format!("<p>{greeting}</p>{}<p>{greeting}</p>", format!("<p class=\"x\">{line}</p>").repeat(60));
    let mut content = String::from(
        "From: News <news@example.org>\r\nTo: {{name}} <{{email}}>\r\nSubject: {{name}}, your code {{code}}\r\n\
         Date: Sun, 22 Nov 2026 23:50:57 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"b\"\r\n\r\n",
    );
    for (media, body) in [("plain", text), ("html", html)] {
        content.push_str(&format!(
            "--b\r\nContent-Type: text/{media}; charset=utf-8\r\nContent-Transfer-Encoding: {coding}\r\n\r\n"
        ));
        content.push_str(&if coding == "base64" { base64(&body) } else { body });
        content.push_str("\r\n");
    }
    content.push_str("--b--\r\n");
    content.into_bytes()
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        let letter = |place: usize| match place <= group.len() {
            true => char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]),
            false => '=',
        };
        (0..4).map(letter).collect::<String>()
    };
    text.as_bytes().chunks(3).map(group).collect()
}

fn bound(coding: &str) -> Bound {
    let template = Template::compile(&letter(coding)).expect("a good template");
    template.bind(&COLUMNS).expect("all fields have columns")
}

pub(crate) fn rendering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message/merge render");
    let mut out = Vec::new();
    for coding in ["8bit", "base64"] {
        let bound = bound(coding);
        bound.render_body(&VALUES, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(BenchmarkId::new("body", coding), |bencher| {
            bencher.iter(|| {
                out.clear();
                bound.render_body(black_box(&VALUES), &mut out);
                out.len()
            });
        });
    }
    let bound = bound("8bit");
    out.clear();
    bound.render_header(&VALUES, &mut out);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("header", |bencher| {
        bencher.iter(|| {
            out.clear();
            bound.render_header(black_box(&VALUES), &mut out);
            out.len()
        });
    });
    group.finish();
}

pub(crate) fn injection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message/merge inject");
    let (content, bound, mut record) = (letter("8bit"), bound("8bit"), Vec::new());
    group.bench_function("compile", |bencher| {
        bencher.iter(|| Template::compile(black_box(&content)).expect("a good template"));
    });
    group.bench_function("check and encode values", |bencher| {
        bencher.iter(|| {
            record.clear();
            bound.check(black_box(&VALUES)).expect("good values");
            merge::fields::encode(&VALUES, &mut record).expect("short values");
            record.len()
        });
    });
    group.bench_function("decode values", |bencher| {
        bencher.iter(|| merge::fields::decode(black_box(&record)).filter(Result::is_ok).count());
    });
    group.finish();
}

pub(crate) fn unsubscribing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message/unsubscribe");
    let key = UnsubscribeKey::new(&[7; 32]);
    let links = Links::new("https://example.org/u/", None).expect("a good URL");
    let address = MailboxRef::parse("ann@example.net").expect("an address");
    let subscription = Subscription::new("autumn", address).expect("a short name");
    let mut out = Vec::new();
    group.bench_function("fields", |bencher| {
        bencher.iter(|| {
            out.clear();
            links.header_fields(&key, black_box(&subscription), &mut out);
            out.len()
        });
    });
    let mut token = Vec::new();
    key.token(&subscription, &mut token);
    let token = String::from_utf8(token).expect("ASCII");
    group.bench_function("open", |bencher| bencher.iter(|| key.open(black_box(&token)).expect("its own")));
    group.finish();
}
