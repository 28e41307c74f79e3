//! The TXT record that says where reports go (RFC 8460 §3): `v=TLSRPTv1; rua=mailto:tls@example.net,https://...`.
//!
//! Pure. Trusts nothing. Bound: [`PLACES_MAX`] places.

use message::Mailbox;

/// Places of one domain that get a report.
const PLACES_MAX: usize = 4;

/// Octets of a place.
const PLACE_MAX: usize = 1024;

/// Where a report goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    Mail(Mailbox),
    Https {
        host: String,
        port: u16,
        /// With its query, from the first slash on.
        path: String,
    },
}

/// The places that a domain's TXT records name. `None` without a record, or with more than one (§3).
pub fn places_of(records: &[Vec<u8>]) -> Option<Vec<Place>> {
    let mut found =
        records.iter().filter_map(|record| std::str::from_utf8(record).ok()).filter_map(fields_of);
    let (fields, second) = (found.next()?, found.next());
    if second.is_some() {
        return None;
    }
    let mut values = fields.split(';').filter_map(|field| field.split_once('='));
    let (_, places) = values.find(|(key, _)| key.trim() == "rua")?;
    Some(places.split(',').filter_map(|place| place_of(place.trim())).take(PLACES_MAX).collect())
}

/// What stands behind `v=TLSRPTv1;`.
fn fields_of(text: &str) -> Option<&str> {
    let (version, fields) = text.split_once(';')?;
    let (key, value) = version.split_once('=')?;
    (key.trim() == "v" && value.trim() == "TLSRPTv1").then_some(fields)
}

fn place_of(text: &str) -> Option<Place> {
    if text.len() > PLACE_MAX {
        return None;
    }
    if let Some(address) = strip_scheme(text, "mailto:") {
        let address = unescaped(address.split('?').next()?)?;
        return Mailbox::parse(&address).ok().map(Place::Mail);
    }
    let rest = strip_scheme(text, "https://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, 443),
    };
    let is_host = message::Domain::parse(host).is_ok() && !host.starts_with('[');
    let is_path = path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'#');
    (is_host && is_path && port != 0).then(|| Place::Https {
        host: host.to_lowercase(),
        port,
        path: unescaped_marks(path),
    })
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `%2C` and `%3B` stand for what would end the place in the record (§3); in a request they may stay as they are.
fn unescaped_marks(path: &str) -> String {
    ["%2C", "%2c", "%3B", "%3b"].iter().fold(path.to_owned(), |path, mark| {
        path.replace(mark, if mark.eq_ignore_ascii_case("%2c") { "," } else { ";" })
    })
}

fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((octet, behind)) = rest.split_first() {
        if *octet == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            octets.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            octets.push(*octet);
            rest = behind;
        }
    }
    String::from_utf8(octets).ok()
}

/// Any bytes, as records that are parted by zeros.
pub fn fuzz_tlsrpt_record(bytes: &[u8]) {
    let records: Vec<Vec<u8>> = bytes.split(|octet| *octet == 0).map(<[u8]>::to_vec).collect();
    let places = places_of(&records).unwrap_or_default();
    assert!(places.len() <= PLACES_MAX);
    for place in places {
        if let Place::Https { host, path, .. } = place {
            assert!(path.starts_with('/') && !host.is_empty() && !path.contains(['\r', '\n', ' ']));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(records: &[&str]) -> Option<Vec<Place>> {
        places_of(&records.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    fn mail(address: &str) -> Place {
        Place::Mail(Mailbox::parse(address).unwrap())
    }

    #[test]
    fn mail_and_https_are_places() {
        let https = Place::Https { host: "r.example.net".into(), port: 443, path: "/v1/tls?a,b".into() };
        assert_eq!(
            of(&["spf", "v=TLSRPTv1; rua=mailto:tls@example.net,https://R.example.net/v1/tls?a%2Cb;"]),
            Some(vec![mail("tls@example.net"), https])
        );
        let local = Place::Https { host: "localhost".into(), port: 8443, path: "/".into() };
        assert_eq!(of(&["v=TLSRPTv1;rua=HTTPS://localhost:8443"]), Some(vec![local]));
        assert_eq!(
            of(&["v = TLSRPTv1 ;x=1; rua = MailTo:a%2Bb@c.test?subject=x "]),
            Some(vec![mail("a+b@c.test")])
        );
    }

    #[test]
    fn two_records_are_none_and_a_bad_place_is_left_out() {
        assert_eq!(of(&["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test"]), None);
        assert_eq!(of(&["v=TLSRPTv2; rua=mailto:a@b.test"]), None);
        assert_eq!(of(&["v=TLSRPTv1; x=mailto:a@b.test"]), None);
        let bad = "v=TLSRPTv1; rua=http://a.test/,https:///x,https://a.test:0/,https://a.test/ x,mailto:a,mailto:%f";
        assert_eq!(of(&[bad]), Some(vec![]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            fuzz_tlsrpt_record(&bytes);
            let mut record = b"v=TLSRPTv1; rua=https://".to_vec();
            record.extend(bytes);
            fuzz_tlsrpt_record(&record);
        }
    }
}
