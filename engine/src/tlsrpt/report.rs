//! A domain's report of a day as JSON (RFC 8460 §4), and as a message that carries it (§5.3).
//!
//! Pure. What peers said stands in JSON strings only; the message's header is made of our own words and of domains.

use super::tally::{Account, DAY_SECS, Detail, PolicyKind, PolicySum};
use message::UnixMillis;
use serde_json::{Map, Value, json};

/// Who reports, on whom, about when.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    pub organization: &'a str,
    /// A mail address.
    pub contact: &'a str,
    /// This host.
    pub submitter: &'a str,
    pub domain: &'a str,
    /// Days since 1970.
    pub day: u64,
}

impl Heading<'_> {
    fn start(&self) -> UnixMillis {
        UnixMillis(self.day * DAY_SECS * 1000)
    }

    /// Different for each report (§4.4).
    pub fn id(&self) -> String {
        let day = self.start().rfc3339();
        format!("{}_{}_{}", &day[..10], self.domain, self.submitter)
    }

    /// §5.1.
    pub fn file_name(&self) -> String {
        let start = self.start().seconds();
        format!("{}!{}!{start}!{}.json.gz", self.submitter, self.domain, start + DAY_SECS - 1)
    }

    /// The report.
    pub fn json(&self, account: &Account) -> Value {
        let end = UnixMillis(self.start().0 + (DAY_SECS - 1) * 1000);
        let policies: Vec<Value> = account.policies.iter().map(|sum| policy(sum, self.domain)).collect();
        json!({
            "organization-name": self.organization,
            "date-range": { "start-datetime": seconds(self.start()), "end-datetime": seconds(end) },
            "contact-info": self.contact,
            "report-id": self.id(),
            "policies": policies,
        })
    }

    /// The message (§5.3). `gzip`: the report, compressed. Lines end in CRLF.
    pub fn message(&self, to: &str, gzip: &[u8], now: UnixMillis) -> Vec<u8> {
        let Heading { contact, submitter, domain, .. } = self;
        let (id, name, date) = (self.id(), self.file_name(), now.rfc5322());
        let boundary = format!("=_tlsrpt_{}", now.0);
        let mut lines = vec![
            format!("From: <{contact}>"),
            format!("To: <{to}>"),
            format!("Date: {date}"),
            format!("Message-ID: <{}.{id}@{submitter}>", now.0),
            format!("Subject: Report Domain: {domain} Submitter: {submitter}"),
            format!(" Report-ID: <{id}@{submitter}>"),
            format!("TLS-Report-Domain: {domain}"),
            format!("TLS-Report-Submitter: {submitter}"),
            // A report about TLS that fails must not fail by it (RFC 8460 §3, RFC 8689).
            "TLS-Required: No".to_owned(),
            "Auto-Submitted: auto-generated".to_owned(),
            "MIME-Version: 1.0".to_owned(),
            "Content-Type: multipart/report; report-type=\"tlsrpt\";".to_owned(),
            format!("\tboundary=\"{boundary}\""),
            String::new(),
            format!("--{boundary}"),
            "Content-Type: text/plain; charset=us-ascii".to_owned(),
            String::new(),
            format!("This is a report about the TLS sessions of {submitter} with the hosts"),
            format!("that take mail for {domain}."),
            String::new(),
            format!("--{boundary}"),
            "Content-Type: application/tlsrpt+gzip".to_owned(),
            "Content-Transfer-Encoding: base64".to_owned(),
            format!("Content-Disposition: attachment;\r\n\tfilename=\"{name}\""),
            String::new(),
        ];
        lines.extend(base64_lines(gzip));
        lines.extend([format!("--{boundary}--"), String::new()]);
        lines.join("\r\n").into_bytes()
    }
}

/// RFC 3339 without fractions.
fn seconds(time: UnixMillis) -> String {
    time.rfc3339().replace(".000Z", "Z")
}

fn policy(sum: &PolicySum, domain: &str) -> Value {
    let mut policy = Map::new();
    policy.insert("policy-type".to_owned(), json!(sum.kind));
    policy.insert("policy-domain".to_owned(), json!(domain));
    if sum.kind != PolicyKind::None {
        policy.insert("policy-string".to_owned(), json!(sum.lines));
        policy.insert("mx-host".to_owned(), json!(sum.mx));
    }
    let details: Vec<Value> = sum.details.iter().map(detail).collect();
    json!({
        "policy": policy,
        "summary": {
            "total-successful-session-count": sum.successes,
            "total-failure-session-count": sum.failures,
        },
        "failure-details": details,
    })
}

fn detail(detail: &Detail) -> Value {
    let mut value = json!({
        "result-type": detail.result,
        "receiving-mx-hostname": detail.host,
        "failed-session-count": detail.count,
        "failure-reason-code": detail.text,
    });
    let addresses = [("sending-mta-ip", detail.sending), ("receiving-ip", detail.receiving)];
    for (key, ip) in addresses {
        if let Some(ip) = ip {
            value[key] = json!(ip);
        }
    }
    value
}

/// RFC 2045 §6.8, 76 characters a line.
fn base64_lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes.chunks(57).map(|line| line.chunks(3).flat_map(base64_group).map(char::from).collect())
}

fn base64_group(group: &[u8]) -> [u8; 4] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
    let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
    let digit = |at: usize| {
        if at > group.len() { b'=' } else { DIGITS[(bits >> (18 - 6 * at)) as usize & 63] }
    };
    [digit(0), digit(1), digit(2), digit(3)]
}

#[cfg(test)]
mod tests {
    use super::super::Failure;
    use super::super::tally::Tally;
    use super::super::tally::tests::note;
    use super::*;

    const HEADING: Heading<'_> = Heading {
        organization: "Example, Inc.",
        contact: "tls@relay.test",
        submitter: "relay.test",
        domain: "a.test",
        day: 20_780,
    };

    fn account() -> Account {
        let (mut tally, noon) = (Tally::default(), UnixMillis((20_780 * DAY_SECS + 43_200) * 1000));
        tally.add(&note("a.test", Ok(())), noon);
        tally.add(&note("a.test", Err(Failure::NoStartTls)), noon);
        tally.over(noon.plus_secs(DAY_SECS)).next().unwrap().2.clone()
    }

    #[test]
    fn a_report_says_what_the_standard_wants() {
        let report = HEADING.json(&account());
        let expected = json!({
            "organization-name": "Example, Inc.",
            "date-range": {
                "start-datetime": "2026-11-23T00:00:00Z",
                "end-datetime": "2026-11-23T23:59:59Z",
            },
            "contact-info": "tls@relay.test",
            "report-id": "2026-11-23_a.test_relay.test",
            "policies": [{
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: testing"],
                    "policy-domain": "a.test",
                    "mx-host": ["*.a.test"],
                },
                "summary": { "total-successful-session-count": 1, "total-failure-session-count": 1 },
                "failure-details": [{
                    "result-type": "starttls-not-supported",
                    "sending-mta-ip": "2001:db8::1",
                    "receiving-mx-hostname": "mx.a.test",
                    "receiving-ip": "192.0.2.1",
                    "failed-session-count": 1,
                    "failure-reason-code": "it isover",
                }],
            }],
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn the_message_is_multipart_report_with_its_two_fields() {
        let text = String::from_utf8(HEADING.message("r@a.test", &[7; 100], UnixMillis(1))).unwrap();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: <tls@relay.test>",
            "TLS-Report-Domain: a.test",
            "TLS-Report-Submitter: relay.test",
            "Content-Type: multipart/report; report-type=\"tlsrpt\";",
        ] {
            assert!(header.lines().any(|found| found == line), "{line} in {header}");
        }
        assert!(body.contains("application/tlsrpt+gzip") && text.ends_with("--\r\n"));
        assert!(body.contains("relay.test!a.test!1795392000!1795478399.json.gz"));
        assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n')));
    }

    #[test]
    fn base64_is_as_in_its_rfc() {
        let of = |text: &str| base64_lines(text.as_bytes()).collect::<Vec<_>>().join("\n");
        assert_eq!((of("f"), of("fo"), of("foo")), ("Zg==".into(), "Zm8=".into(), "Zm9v".into()));
        assert_eq!(of(&"a".repeat(58)).lines().map(str::len).collect::<Vec<_>>(), [76, 4]);
    }
}
