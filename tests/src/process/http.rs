//! As much HTTP as it takes to read the daemon's pages and to speak with its API, right or wrong.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Status and body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let answer = send(address, &format!("GET {path}"), &[], b"")?;
    Ok((answer.status, answer.body))
}

/// `what`: method and path. The connection ends with the answer.
pub fn send(address: SocketAddr, what: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    read(&mut ask(address, what, fields, body)?)
}

/// As [`send`], by a client that does not wait for the answer: its connection closes when this is dropped.
pub fn ask(address: SocketAddr, what: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut head = format!("{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // Who is refused early may not get all of it away; the answer says why.
    let _ = stream.write_all(body);
    Ok(stream)
}

/// An answer that ends with its connection.
pub fn read(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, page.clone());
    // What says that the body may come is not the answer.
    let rest = page.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&page);
    let (head, body) = rest.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    match answer.field("transfer-encoding") {
        Some("chunked") => Ok(Answer { body: unchunked(body).ok_or_else(wrong)?, ..answer }),
        _ => Ok(answer),
    }
}

/// RFC 9112 §7.1, without extensions and trailers. `None`: it is not whole.
fn unchunked(mut rest: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (len, tail) = rest.split_once("\r\n")?;
        let len = usize::from_str_radix(len, 16).ok()?;
        if len == 0 {
            return Some(whole);
        }
        whole.push_str(tail.get(..len)?);
        rest = tail.get(len..)?.strip_prefix("\r\n")?;
    }
}

/// The samples of an OpenMetrics page without labels, by name, without our prefix and the suffix of counters.
pub fn samples(page: &str) -> BTreeMap<String, u64> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}"))).collect()
}

fn sample(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.split_once(' ')?;
    let name = name.strip_prefix("ringpost_")?;
    Some((name.strip_suffix("_total").unwrap_or(name).to_owned(), value.parse().ok()?))
}
