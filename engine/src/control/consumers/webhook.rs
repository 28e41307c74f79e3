//! Batches of events, posted over HTTP and signed.
//!
//! The body is the log's own lines (NDJSON), so that what is signed is what stands in the file. The signature is an HMAC with
//! SHA-256 over the time, a dot and the body: whoever knows the secret can tell a post of ours from another's and an old
//! one from a new one. A batch that is tried again keeps its name and its body and gets a new time.
//! Trusts the answer's status and `Retry-After`, and reads no more of its body than it takes to keep the connection.
//! Bounds: `timeout_secs` for a try, name look-up and handshake included; [`LINKS_MAX`] kept connections;
//! [`RETRY_AFTER_MAX`].

use super::Outcome;
use crate::config::{Config, Place, Webhook};
use crate::control::https::{Https, HttpsError, Link};
use crate::events::reader::Batch;
use aws_lc_rs::hmac;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that are kept between posts.
const LINKS_MAX: usize = 32;

/// Octets of an answer's body that are read so that its connection can be used again.
const ANSWER_MAX: usize = 64 << 10;

/// Nobody makes us wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// See the module.
pub(super) struct WebhookEnd {
    place: Place,
    key: hmac::Key,
    host_name: String,
    timeout: Duration,
    https: Https,
    links: RefCell<Vec<Link>>,
    /// What batches are called, before their places.
    name: String,
}

impl WebhookEnd {
    pub(super) fn new(name: &str, webhook: &Webhook, config: &Config) -> WebhookEnd {
        let place = webhook.place().expect("the configuration was checked");
        let secret = webhook.secret.as_ref().map_or(&[][..], |secret| &secret.0);
        WebhookEnd {
            place,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            host_name: config.host_name.clone(),
            timeout: Duration::from_secs(webhook.timeout_secs),
            https: Https::new(config.tls.ca_file.as_deref()),
            links: RefCell::default(),
            name: name.to_owned(),
        }
    }

    pub(super) async fn post(&self, batch: &Batch) -> Outcome {
        match tokio::time::timeout(self.timeout, self.try_post(batch)).await {
            Ok(Ok(response)) => self.outcome(response).await,
            Ok(Err(error)) => Outcome::Later { why: error.to_string(), wait: None },
            Err(_) => Outcome::Later { why: "no answer in time".to_owned(), wait: None },
        }
    }

    async fn try_post(&self, batch: &Batch) -> Result<(Response<Incoming>, Link), HttpsError> {
        let body = Bytes::copy_from_slice(&batch.lines);
        // A kept connection may have ended meanwhile: that is no failure of the place's.
        let kept = self.links.borrow_mut().pop();
        if let Some(mut link) = kept
            && let Ok(response) = link.send(self.request(batch, body.clone())?).await
        {
            return Ok((response, link));
        }
        let Place { host, port, is_plain, .. } = &self.place;
        let addresses = tokio::net::lookup_host((host.as_str(), *port)).await;
        let addresses: Vec<SocketAddr> =
            addresses.map_err(|error| HttpsError::Connect(format!("{host}: {error}")))?.collect();
        let mut link = self.https.open(&addresses, host, *is_plain).await?;
        let response = link.send(self.request(batch, body)?).await?;
        Ok((response, link))
    }

    fn request(&self, batch: &Batch, body: Bytes) -> Result<Request<Full<Bytes>>, HttpsError> {
        let time = crate::clock::wall().seconds().to_string();
        let signature = signature(&self.key, &time, &body);
        let request = Request::post(&self.place.path)
            .header(HOST, &self.place.authority)
            .header(USER_AGENT, "ringpost")
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("X-Ringpost-Host", &self.host_name)
            .header("X-Ringpost-Batch", batch_name(&self.name, batch))
            .header("X-Ringpost-Events", batch.events)
            .header("X-Ringpost-Timestamp", time)
            .header("X-Ringpost-Signature", signature);
        request.body(Full::new(body)).map_err(|error| HttpsError::Http(error.to_string()))
    }

    async fn outcome(&self, (response, link): (Response<Incoming>, Link)) -> Outcome {
        let (status, wait) = (response.status().as_u16(), retry_after(response.headers().get(RETRY_AFTER)));
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(self.timeout, body).await
            && self.links.borrow().len() < LINKS_MAX
        {
            self.links.borrow_mut().push(link);
        }
        let why = format!("{} answered {status}", self.place.authority);
        match status {
            200..300 => Outcome::Taken,
            408 | 429 | 500.. => Outcome::Later { why, wait },
            _ => Outcome::Refused { why },
        }
    }
}

/// The same for the same events: a place that took a batch and could not say so knows it again.
fn batch_name(consumer: &str, batch: &Batch) -> String {
    let (from, to) = (batch.from, batch.to);
    format!("{consumer}-{}.{}-{}.{}", from.file, from.offset, to.file, to.offset)
}

/// `sha256=` and the HMAC in hex.
fn signature(key: &hmac::Key, time: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(time.as_bytes());
    context.update(b".");
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("sha256={hex}")
}

/// Seconds, or a moment (RFC 9110 §10.2.3).
fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    let secs = text.parse().ok().or_else(|| {
        let moment = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let now = i64::try_from(crate::clock::wall().seconds()).ok()?;
        u64::try_from(moment.as_second() - now).ok()
    })?;
    Some(Duration::from_secs(secs).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::cursor::Position;

    #[test]
    fn signature_is_that_of_rfc_4231() {
        // Test case 2, whose data has no dot: a time of "what do ya want for nothing?" would end in one.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let tag = hmac::sign(&key, b"what do ya want for nothing?");
        assert_eq!(tag.as_ref()[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        // Python: hmac.new(b"Jefe", b"1700000000.{}\n", "sha256").hexdigest()
        assert_eq!(
            signature(&key, "1700000000", b"{}\n"),
            "sha256=f481071efb5a86dddb38c589bade39a20df61b10594571714ff863b4bc3c39a5"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_moment() {
        let wait = |text: &'static str| retry_after(Some(&HeaderValue::from_static(text)));
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Tue, 31 Dec 2199 23:59:59 GMT"), Some(RETRY_AFTER_MAX));
        for none in ["soon", "-1", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            assert_eq!(wait(none), None, "{none}");
        }
    }

    #[test]
    fn batch_has_the_name_of_its_places() {
        let from = Position { file: 3, offset: 10, events: 1 };
        let to = Position { file: 4, offset: 0, events: 0 };
        assert_eq!(batch_name("crm", &Batch { from, to, ..Batch::default() }), "crm-3.10-4.0");
    }
}
