//! As much HTTP as it takes to read the daemon's pages.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Status and body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, page.clone());
    let (head, body) = page.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    Ok((status, body.to_owned()))
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
