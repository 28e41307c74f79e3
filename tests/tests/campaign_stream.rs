//! A list of a million recipients goes through HTTP in constant memory. Alone in its process, whose memory is looked at.

#[path = "campaign_api/memory.rs"]
#[allow(dead_code, reason = "one of the two tests that share it needs each part")]
mod memory;

use engine::api::CampaignId;
use flate2::Compression;
use flate2::write::GzEncoder;
use memory::Memory;
use serde_json::json;
use std::io::{BufWriter, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tests::process::house::memory_peak;
use tests::process::http::{self, Answer};

const RECORDS: u64 = 1_000_000;

/// Octets that the process may grow by: a list of these is 60 times as long as one of them, and so are its recipients.
const GROWTH_MAX: u64 = 24 << 20;

fn rows(out: &mut impl Write, count: u64) {
    out.write_all(b"email,first_name,town,order\r\n").expect("sent");
    for number in 0..count {
        let row = format!(
            "recipient-{number}@d{}.example.test,\"Ann, {number}\",Oslo,{}\r\n",
            number % 997,
            number * 7
        );
        out.write_all(row.as_bytes()).expect("sent");
    }
}

/// Sends rows in chunks as they are made, so that the list is nowhere as a whole.
fn stream(address: SocketAddr, packed: bool, count: u64) -> Answer {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(
        stream,
        "POST /api/campaigns/spring/recipients HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    )
    .expect("sent");
    write!(stream, "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n").expect("sent");
    write!(stream, "{}\r\n", if packed { "Content-Encoding: gzip\r\n" } else { "" }).expect("sent");
    let mut chunks = BufWriter::with_capacity(64 << 10, Chunks(&mut stream));
    if packed {
        let mut encoder = GzEncoder::new(&mut chunks, Compression::fast());
        rows(&mut encoder, count);
        encoder.finish().expect("sent");
    } else {
        rows(&mut chunks, count);
    }
    chunks.flush().expect("sent");
    drop(chunks);
    stream.write_all(b"0\r\n\r\n").expect("sent");
    http::read(&mut stream).expect("an answer")
}

/// Each write is a chunk (RFC 9112 §7.1).
struct Chunks<'a>(&'a mut TcpStream);

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        write!(self.0, "{:x}\r\n", bytes.len())?;
        self.0.write_all(bytes)?;
        self.0.write_all(b"\r\n")?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_million_records_take_no_more_memory_than_ten_thousand() {
    let memory = Arc::new(Memory::forgetful());
    let address = memory::listen(&memory, "");
    let letter =
        json!({ "envelope_sender": "news@here.test", "content": "Subject: x\n\nHello\n" }).to_string();
    let json = ("Content-Type", "application/json");
    let created =
        http::send(address, "PUT /api/campaigns/spring", &[json], letter.as_bytes()).expect("an answer");
    assert_eq!(created.status, 201, "{created:?}");
    for packed in [false, true] {
        assert_eq!(stream(address, packed, 20_000).json()["added"], 20_000);
    }
    let before = memory_peak(std::process::id());
    for packed in [false, true] {
        let reply = stream(address, packed, RECORDS).json();
        assert_eq!((&reply["added"], &reply["durable"]), (&json!(RECORDS), &json!(RECORDS)), "{reply}");
    }
    let grown = memory_peak(std::process::id()) - before;
    assert!(grown < GROWTH_MAX, "the process grew by {grown} octets");
    let shown = memory.shown(&CampaignId::parse("spring").expect("a name")).expect("it is there");
    assert_eq!(shown.counts.recipients, 2 * (RECORDS + 20_000));
}
