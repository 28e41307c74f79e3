//! How a connection came to be protected, or why it is not: what logs, reports (RFC 8460) and retries are made from.

use std::fmt;

/// Said once, before `Ready`, also for a connection in plain text. `Failed` is followed by `Closed`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Protection {
    Encrypted(Encrypted),
    Plain(WhyPlain),
    Failed(TlsFailure),
}

/// The facts of an encrypted connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encrypted {
    /// "TLS 1.3"
    pub version: &'static str,
    /// "TLS13_AES_256_GCM_SHA384"
    pub cipher: &'static str,
    /// A session of an earlier connection under the same policy was taken up.
    pub is_resumed: bool,
    pub verified: Verified,
    /// What would have ended the connection if the policy were enforced.
    pub failure: Option<TlsFailure>,
}

/// What the host's identity was verified by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verified {
    /// Nothing: the policy does not ask for it, or what it asks for failed and is not enforced.
    Nobody,
    Roots,
    Fingerprint,
    Dane,
    /// It logged in over this very connection, before it became the host (RFC 2645).
    Login,
}

/// Why mail goes in plain text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhyPlain {
    /// The policy is to use no TLS.
    Policy,
    /// The host does not offer STARTTLS.
    NotOffered,
    /// The host offered STARTTLS and refused it.
    Refused,
    /// `Habits::tls_broken`: it failed lately.
    Broken,
}

/// Why a connection could not be protected as its policy demands. The text is for an operator.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}")]
pub struct TlsFailure {
    pub kind: FailureKind,
    pub text: String,
}

/// The result types of RFC 8460 §4.3 that a session can see; DNS and policy failures are its caller's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FailureKind {
    StarttlsNotSupported,
    CertificateHostMismatch,
    CertificateExpired,
    CertificateNotTrusted,
    ValidationFailure,
    /// None of the TLSA records matches what the host presented.
    TlsaInvalid,
}

impl FailureKind {
    /// As RFC 8460 §4.3 writes it.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::StarttlsNotSupported => "starttls-not-supported",
            FailureKind::CertificateHostMismatch => "certificate-host-mismatch",
            FailureKind::CertificateExpired => "certificate-expired",
            FailureKind::CertificateNotTrusted => "certificate-not-trusted",
            FailureKind::ValidationFailure => "validation-failure",
            FailureKind::TlsaInvalid => "tlsa-invalid",
        }
    }
}

impl TlsFailure {
    pub(crate) fn new(kind: FailureKind, text: impl Into<String>) -> TlsFailure {
        TlsFailure { kind, text: text.into() }
    }
}

impl Protection {
    /// The failure that a report counts this connection under; none: a success. For a policy that asks for TLS.
    pub fn failure_kind(&self) -> Option<FailureKind> {
        match self {
            Protection::Encrypted(encrypted) => encrypted.failure.as_ref().map(|failure| failure.kind),
            Protection::Plain(WhyPlain::Policy) => None,
            Protection::Plain(WhyPlain::NotOffered | WhyPlain::Refused) => {
                Some(FailureKind::StarttlsNotSupported)
            }
            Protection::Plain(WhyPlain::Broken) => Some(FailureKind::ValidationFailure),
            Protection::Failed(failure) => Some(failure.kind),
        }
    }
}

impl Verified {
    /// For a sentence and a log: "roots".
    pub fn name(self) -> &'static str {
        match self {
            Verified::Nobody => "nobody",
            Verified::Roots => "roots",
            Verified::Fingerprint => "fingerprint",
            Verified::Dane => "DANE",
            Verified::Login => "its login",
        }
    }
}

/// `TLS 1.3 TLS13_AES_256_GCM_SHA384, verified by roots`
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protection::Encrypted(encrypted) => encrypted.fmt(f),
            Protection::Plain(WhyPlain::Policy) => f.write_str("plain text: the policy is to use no TLS"),
            Protection::Plain(WhyPlain::NotOffered) => f.write_str("plain text: STARTTLS is not offered"),
            Protection::Plain(WhyPlain::Refused) => f.write_str("plain text: STARTTLS was refused"),
            Protection::Plain(WhyPlain::Broken) => f.write_str("plain text: TLS failed lately"),
            Protection::Failed(failure) => write!(f, "{}: {failure}", failure.kind.name()),
        }
    }
}

impl fmt::Display for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Encrypted { version, cipher, is_resumed, verified, failure } = self;
        let resumed = if *is_resumed { ", resumed" } else { "" };
        write!(f, "{version} {cipher}{resumed}, verified by {}", verified.name())?;
        match failure {
            Some(failure) => write!(f, " ({}: {failure}; not enforced)", failure.kind.name()),
            None => Ok(()),
        }
    }
}
