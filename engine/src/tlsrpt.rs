//! Reports about TLS (RFC 8460): what cores note of sessions, how it adds up, and what a domain is told of a day.
//!
//! Pure. [`tally`] bounds what is kept; what does not fit is counted in the sums and has no line of its own.

pub mod record;
pub mod report;
pub mod tally;

use crate::domains::Basis;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// A session, or what kept one from being tried.
#[derive(Clone, Debug)]
pub struct TlsNote {
    /// The recipients' domain, whose policy it was.
    pub domain: Arc<str>,
    pub basis: Arc<Basis>,
    /// The MX host, or the host of the policy.
    pub host: Arc<str>,
    pub receiving: Option<IpAddr>,
    pub sending: Option<IpAddr>,
    /// Protected as demanded; or what failed, and a word about it.
    pub result: Result<(), (Failure, Box<str>)>,
}

/// Result types of RFC 8460 §4.3.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Failure {
    #[serde(rename = "starttls-not-supported")]
    NoStartTls,
    #[serde(rename = "certificate-host-mismatch")]
    HostMismatch,
    #[serde(rename = "certificate-expired")]
    Expired,
    #[serde(rename = "certificate-not-trusted")]
    NotTrusted,
    /// Any other.
    #[serde(rename = "validation-failure")]
    Validation,
    /// TLSA records that match nothing, or do not keep to their form.
    #[serde(rename = "tlsa-invalid")]
    Tlsa,
    #[serde(rename = "dnssec-invalid")]
    Dnssec,
    #[serde(rename = "dane-required")]
    DaneRequired,
    #[serde(rename = "sts-policy-fetch-error")]
    StsFetch,
    #[serde(rename = "sts-policy-invalid")]
    StsPolicy,
    #[serde(rename = "sts-webpki-invalid")]
    StsWebpki,
}
