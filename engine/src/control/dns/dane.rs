//! A host's TLSA records (RFC 7672): which of its names has them, and whether they may be relied on.
//!
//! What cannot be told is not the same as what is not there: trouble on the way to the records makes the host unusable,
//! or whoever sits between could make them go away.

use super::questions::{Answer, Lack, Questions};
use smtp_out::{TlsPolicy, Tlsa};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// Records of a name that count.
const RECORDS_MAX: usize = 32;

/// Octets of a record's data that a report shows: all of a digest, the beginning of a certificate.
const SHOWN_MAX: usize = 128;

/// A host's records.
#[derive(Debug)]
pub(super) struct Association {
    /// Its first name is the one whose records they are: what the host is called in the handshake (§3.2.1).
    pub(super) policy: TlsPolicy,
    /// As they stand in the zone.
    pub(super) lines: Vec<String>,
    pub(super) secs: u64,
}

/// RFC 7672 §2.2.2: the end of the aliases first, if all of the way there is signed; then the host's own name, if what
/// stands there is. `next_hop`: what the host was found for (§3.2.2).
pub(super) async fn association(
    questions: &Questions,
    host: &str,
    addresses: &Answer<IpAddr>,
    port: u16,
    next_hop: &str,
) -> Result<Option<Association>, String> {
    let canonical = (addresses.secure && addresses.canonical != host).then_some(addresses.canonical.as_str());
    let own = addresses.name_secure.then_some(host);
    for base in canonical.into_iter().chain(own) {
        match questions.tlsa(&format!("_{port}._tcp.{base}")).await {
            Ok(answer) if answer.secure => return Ok(Some(associate(base, next_hop, answer))),
            // Unsigned records say nothing.
            Ok(_) | Err(Lack::Name | Lack::Type) => {}
            Err(Lack::Trouble(what)) => return Err(format!("TLSA of {base}: {what}")),
        }
    }
    Ok(None)
}

fn associate(base: &str, next_hop: &str, mut answer: Answer<Tlsa>) -> Association {
    answer.records.sort_by(|a, b| order(a).cmp(&order(b)));
    answer.records.truncate(RECORDS_MAX);
    let lines = answer.records.iter().map(line).collect();
    Association { policy: policy(base, next_hop, answer.records), lines, secs: answer.secs }
}

fn order(record: &Tlsa) -> (u8, u8, u8, &[u8]) {
    (record.usage, record.selector, record.matching, &record.data)
}

/// §2.2: records that are there and of no use still forbid plain text. Names matter only under a trust anchor (§3.1.1);
/// left out elsewhere, they let domains with the same hosts share connections.
fn policy(base: &str, next_hop: &str, records: Vec<Tlsa>) -> TlsPolicy {
    let records: Vec<Tlsa> = records.into_iter().filter(is_usable).collect();
    if records.is_empty() {
        return TlsPolicy::Encrypt;
    }
    let mut names: Vec<Arc<str>> = vec![base.into()];
    if records.iter().any(|record| record.usage == 2) && next_hop != base {
        names.push(next_hop.into());
    }
    TlsPolicy::Dane { records, names }
}

/// DANE-TA and DANE-EE (§3.1), of a selector and a matching type that we know, and of its length.
fn is_usable(record: &Tlsa) -> bool {
    let fits = match record.matching {
        0 => !record.data.is_empty(),
        1 => record.data.len() == 32,
        2 => record.data.len() == 64,
        _ => false,
    };
    matches!(record.usage, 2 | 3) && matches!(record.selector, 0 | 1) && fits
}

fn line(record: &Tlsa) -> String {
    let mut line = format!("{} {} {} ", record.usage, record.selector, record.matching);
    for octet in record.data.iter().take(SHOWN_MAX) {
        let _ = write!(line, "{octet:02x}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlsa(usage: u8, selector: u8, matching: u8, len: usize) -> Tlsa {
        Tlsa { usage, selector, matching, data: vec![0xab; len] }
    }

    #[test]
    fn records_that_mean_nothing_to_mail_still_forbid_plain_text() {
        for record in
            [tlsa(0, 0, 1, 32), tlsa(1, 1, 1, 32), tlsa(3, 1, 7, 32), tlsa(3, 1, 1, 31), tlsa(3, 9, 1, 32)]
        {
            assert_eq!(policy("mx.test", "a.test", vec![record]), TlsPolicy::Encrypt);
        }
    }

    #[test]
    fn only_a_trust_anchor_makes_the_next_hop_a_name() {
        let names = |records| match policy("mx.test", "a.test", records) {
            TlsPolicy::Dane { names, .. } => names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(names(vec![tlsa(3, 1, 1, 32)]), ["mx.test"]);
        assert_eq!(names(vec![tlsa(2, 0, 2, 64), tlsa(3, 1, 1, 32)]), ["mx.test", "a.test"]);
    }

    #[test]
    fn a_line_is_as_in_a_zone() {
        assert_eq!(line(&tlsa(3, 1, 1, 3)), "3 1 1 ababab");
    }
}
