//! Asks the name servers about one message, within its time.
//!
//! Bounds: `verify.messages_max` messages at a time, `verify.timeout_secs` for each, [`SIGNATURES_MAX`] signatures,
//! [`HEADER_MAX`] of header; [`HASHING_MAX`] large bodies are hashed at a time, on threads of their own.

use super::body;
use super::field::{Dkim, Finding, Findings, Signature};
use super::names;
use crate::clock;
use crate::config::{Config, Verify};
use bytes::Bytes;
use hickory_resolver::net::NetError;
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::dkim::{Canonicalization, DkimError};
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, DnsError, Error,
    MessageAuthenticator, SpfOutput, SpfResult,
};
use message::ReversePath;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Further signatures are not looked at: RFC 6376 §6.1 lets a verifier limit them.
const SIGNATURES_MAX: usize = 8;

/// A larger header is read by nobody.
const HEADER_MAX: usize = 256 << 10;

/// A larger body is hashed on another thread: a megabyte takes milliseconds, and other messages wait here.
const HASH_HERE_MAX: usize = 128 << 10;

const HASHING_MAX: usize = 2;

/// What is verified.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Canonical.
    pub client: IpAddr,
    pub helo: String,
    pub sender: ReversePath,
    /// As it came, without trace fields of ours.
    pub content: Bytes,
}

/// See the module. To be shared by all messages of one thread; lives in tokio's runtime.
pub struct Verifier {
    names: MessageAuthenticator,
    terms: RwLock<Arc<Terms>>,
    places: Semaphore,
    hashing: Semaphore,
}

/// A message and what came of its signatures; `outputs` is `None` if there was not time enough.
struct Signed<'a> {
    parsed: &'a AuthenticatedMessage<'a>,
    outputs: Option<Vec<DkimOutput<'a>>>,
    refused: Refused,
}

/// Signatures that are not looked at any further.
#[derive(Clone, Copy)]
struct Refused {
    weak: usize,
    unreadable: usize,
}

/// What a reload replaces.
struct Terms {
    verify: Verify,
    id: String,
    host: String,
}

impl Verifier {
    /// Name servers and the number of messages at a time are those of the start; a reload does not change them.
    pub fn new(config: &Config) -> Result<Verifier, NetError> {
        let servers = &config.delivery.name_servers;
        Ok(Verifier {
            names: MessageAuthenticator(names::resolver(servers, config.delivery.questions_max)?),
            terms: RwLock::new(Arc::new(Terms::new(config))),
            places: Semaphore::new(config.verify.messages_max),
            hashing: Semaphore::new(HASHING_MAX),
        })
    }

    pub fn configure(&self, config: &Config) {
        *self.terms.write() = Arc::new(Terms::new(config));
    }

    /// What was found, and the field that says it, with its line end.
    pub async fn verify(&self, letter: &Letter) -> (Findings, Vec<u8>) {
        let terms = Arc::clone(&self.terms.read());
        let findings = match self.places.try_acquire() {
            Ok(_place) => self.find(&terms, letter).await,
            Err(_) => terms.unknown(letter),
        };
        let field = findings.render(&terms.id, letter.sender.as_str(), &letter.helo);
        (findings, field)
    }

    async fn find(&self, terms: &Terms, letter: &Letter) -> Findings {
        let deadline = Instant::from_std(clock::now()) + Duration::from_secs(terms.verify.timeout_secs);
        let header_len = message::header::header_len(&letter.content);
        // Digests of the body are ours, so the library is shown the header alone.
        let parsed = (terms.reads(letter) && header_len <= HEADER_MAX)
            .then(|| AuthenticatedMessage::parse_with_opts(&letter.content[..header_len], None, true))
            .flatten();
        let spf = async {
            if !terms.verify.spf {
                return None;
            }
            Some(timeout_at(deadline, self.spf(terms, letter)).await.unwrap_or_else(|_| no_spf_answer()))
        };
        let Some(mut parsed) = parsed else {
            let spf = spf.await.map(|output| spf_finding(output.result()));
            return Findings { spf, ..terms.unreadable(letter) };
        };
        let dkim = self.dkim(terms, deadline, &mut parsed, letter);
        let (spf, signed) = futures_util::future::join(spf, dkim).await;
        let dmarc = match terms.verify.dmarc {
            true => Some(self.dmarc(deadline, letter, spf.as_ref(), &signed).await),
            false => None,
        };
        Findings {
            spf: spf.map(|output| spf_finding(output.result())),
            dkim: if terms.verify.dkim { signed.findings() } else { Vec::new() },
            dmarc,
        }
    }

    async fn spf(&self, terms: &Terms, letter: &Letter) -> SpfOutput {
        let (client, helo, host) = (letter.client, letter.helo.as_str(), terms.host.as_str());
        let parameters = match &letter.sender {
            ReversePath::Null | ReversePath::DoubleBounce => SpfParameters::verify_ehlo(client, helo, host),
            ReversePath::Mailbox(sender) => {
                SpfParameters::verify_mail_from(client, helo, host, sender.as_str())
            }
        };
        self.names.verify_spf(parameters).await
    }

    async fn dkim<'a>(
        &self,
        terms: &Terms,
        deadline: Instant,
        parsed: &'a mut AuthenticatedMessage<'a>,
        letter: &Letter,
    ) -> Signed<'a> {
        let refused = weed(parsed);
        if !terms.verify.dkim {
            return Signed { parsed, outputs: Some(Vec::new()), refused };
        }
        let forms: Vec<Canonicalization> = parsed.body_hashes.iter().map(|(form, ..)| *form).collect();
        let body = letter.content.slice(parsed.body_offset()..);
        let Ok(digests) = timeout_at(deadline, self.digests(body, forms)).await else {
            return Signed { parsed, outputs: None, refused };
        };
        let mut digests = digests.into_iter();
        for (.., digest) in &mut parsed.body_hashes {
            // An empty one fits no signature.
            *digest = digests.next().unwrap_or_default();
        }
        let parsed: &'a AuthenticatedMessage<'a> = parsed;
        let outputs = timeout_at(deadline, self.names.verify_dkim(parsed)).await.ok();
        Signed { parsed, outputs, refused }
    }

    async fn digests(&self, body: Bytes, forms: Vec<Canonicalization>) -> Vec<Vec<u8>> {
        if body.len() <= HASH_HERE_MAX || forms.is_empty() {
            return body::digests(&body, &forms);
        }
        let _place = self.hashing.acquire().await;
        // Without digests every signature fails, which is what a panic of ours should come to.
        tokio::task::spawn_blocking(move || body::digests(&body, &forms)).await.unwrap_or_default()
    }

    async fn dmarc(
        &self,
        deadline: Instant,
        letter: &Letter,
        spf: Option<&SpfOutput>,
        signed: &Signed<'_>,
    ) -> (Finding, Option<String>, &'static str) {
        let none = SpfOutput::default();
        let parameters = DmarcParameters {
            message: signed.parsed,
            dkim_output: signed.outputs.as_deref().unwrap_or_default(),
            dkim2_output: None,
            rfc5321_mail_from_domain: match &letter.sender {
                ReversePath::Null | ReversePath::DoubleBounce => &letter.helo,
                ReversePath::Mailbox(sender) => sender.domain(),
            },
            spf_output: spf.unwrap_or(&none),
        };
        let judged = timeout_at(deadline, self.names.verify_dmarc(parameters)).await;
        let Ok(output) = judged else { return (Finding::TempError, None, "") };
        // What SPF alone decides is decided; what DKIM could still have saved is not.
        let finding = match dmarc_finding(&output) {
            Finding::Fail if signed.outputs.is_none() => Finding::TempError,
            finding => finding,
        };
        let domain = Some(output.domain().to_owned()).filter(|domain| !domain.is_empty());
        (finding, domain, policy_word(&output))
    }
}

impl Terms {
    fn new(config: &Config) -> Terms {
        let (verify, host) = (config.verify.clone(), config.host_name.clone());
        Terms { id: verify.own_id(&host).to_owned(), verify, host }
    }

    /// The message itself is looked at.
    fn reads(&self, letter: &Letter) -> bool {
        (self.verify.dkim || self.verify.dmarc) && letter.content.len() <= self.verify.size_max
    }

    /// Nobody had time for it.
    fn unknown(&self, letter: &Letter) -> Findings {
        let reads = self.reads(letter);
        let dkim = (reads && self.verify.dkim).then(|| Dkim::of_all(Finding::TempError, None));
        Findings {
            spf: self.verify.spf.then_some(Finding::TempError),
            dkim: dkim.into_iter().collect(),
            dmarc: (reads && self.verify.dmarc).then_some((Finding::TempError, None, "")),
        }
    }

    /// It has no header, or more than is read; or it is too large, and then nothing is said.
    fn unreadable(&self, letter: &Letter) -> Findings {
        if !self.reads(letter) {
            return Findings::default();
        }
        let reason = Some("no header that could be read");
        let dkim = self.verify.dkim.then(|| Dkim::of_all(Finding::Neutral, reason));
        let dmarc = self.verify.dmarc.then_some((Finding::PermError, None, ""));
        Findings { spf: None, dkim: dkim.into_iter().collect(), dmarc }
    }
}

fn no_spf_answer() -> SpfOutput {
    SpfOutput::default().with_result(SpfResult::TempError)
}

fn spf_finding(result: SpfResult) -> Finding {
    match result {
        SpfResult::Pass => Finding::Pass,
        SpfResult::Fail => Finding::Fail,
        SpfResult::SoftFail => Finding::SoftFail,
        SpfResult::Neutral => Finding::Neutral,
        SpfResult::TempError => Finding::TempError,
        SpfResult::PermError => Finding::PermError,
        SpfResult::None => Finding::None,
    }
}

impl Signed<'_> {
    fn findings(&self) -> Vec<Dkim> {
        let Some(outputs) = &self.outputs else { return vec![Dkim::of_all(Finding::TempError, None)] };
        let Refused { weak, unreadable } = self.refused;
        let weak = std::iter::repeat_n((Finding::PermError, Some("rsa-sha1 is worth nothing")), weak);
        let unreadable = std::iter::repeat_n(reason(&Error::ParseError), unreadable);
        let refused = weak.chain(unreadable).map(|(finding, reason)| Dkim::of_all(finding, reason));
        let mut found: Vec<Dkim> =
            outputs.iter().map(dkim_finding).chain(refused).take(SIGNATURES_MAX).collect();
        if found.is_empty() {
            found.push(Dkim::of_all(Finding::None, None));
        }
        found
    }
}

/// Takes signatures out that are too many, too weak (RFC 8301 §3.1 forbids rsa-sha1), or such that the library passes
/// over them in silence.
fn weed(parsed: &mut AuthenticatedMessage<'_>) -> Refused {
    let all = parsed.dkim_headers.len();
    parsed.dkim_headers.retain(|header| header.header.a != Algorithm::RsaSha1);
    let weak = (all - parsed.dkim_headers.len()).min(SIGNATURES_MAX);
    parsed.dkim_headers.truncate(SIGNATURES_MAX);
    parsed.body_hashes.retain(|(_, algorithm, ..)| *algorithm == HashAlgorithm::Sha256);
    parsed.errors.retain(|header| header.name.eq_ignore_ascii_case(b"dkim-signature"));
    parsed.errors.truncate(SIGNATURES_MAX);
    let unreadable = parsed.errors.iter().filter(|header| !matches!(header.header, Error::Dkim(_))).count();
    Refused { weak, unreadable }
}

fn dkim_finding(output: &DkimOutput<'_>) -> Dkim {
    let (finding, reason) = match output.result() {
        DkimResult::Pass => (Finding::Pass, None),
        DkimResult::None => (Finding::None, None),
        DkimResult::TempError(_) => (Finding::TempError, Some("its key could not be asked for")),
        DkimResult::PermError(error) | DkimResult::Neutral(error) | DkimResult::Fail(error) => reason(error),
    };
    let signature = output.signature().map(|signature| Signature {
        domain: signature.d.clone(),
        selector: signature.s.clone(),
        begin: begin_of(&signature.b),
    });
    Dkim { finding, reason, signature }
}

/// RFC 8601 §2.7.1: a signature that does not fit the message is `fail`, one that cannot be judged `neutral` or,
/// if that will not change, `permerror`.
fn reason(error: &Error) -> (Finding, Option<&'static str>) {
    let (finding, reason) = match error {
        Error::Dkim(DkimError::FailedBodyHashMatch) => (Finding::Fail, "the body was changed"),
        Error::Dkim(DkimError::SignatureExpired) => (Finding::Neutral, "the signature has expired"),
        Error::Dkim(DkimError::SignatureLength) => (Finding::Neutral, "it signs a part of the body only"),
        Error::Dkim(DkimError::RevokedPublicKey) => (Finding::PermError, "the key was taken back"),
        Error::Dkim(DkimError::FailedAuidMatch) => (Finding::PermError, "the key is not for this identity"),
        Error::Dns(DnsError::RecordNotFound(_)) => (Finding::PermError, "there is no such key"),
        Error::Crypto(_) => (Finding::Fail, "signature and message do not fit"),
        _ => (Finding::PermError, "the signature or its key cannot be read"),
    };
    (finding, Some(reason))
}

/// The first 8 characters: as many as tell signatures apart (RFC 6008 §4).
fn begin_of(signature: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(&signature[..signature.len().min(6)])
}

fn dmarc_finding(output: &DmarcOutput) -> Finding {
    match output.result() {
        DmarcResult::Pass => Finding::Pass,
        DmarcResult::Fail(_) => Finding::Fail,
        DmarcResult::TempError(_) => Finding::TempError,
        DmarcResult::PermError(_) => Finding::PermError,
        DmarcResult::None => Finding::None,
    }
}

/// What the author's domain wishes for mail that fails; nothing without a record.
fn policy_word(output: &DmarcOutput) -> &'static str {
    match (output.dmarc_record(), output.policy()) {
        (Some(_), Policy::Reject) => "reject",
        (Some(_), Policy::Quarantine) => "quarantine",
        (Some(_), Policy::None | Policy::Unspecified) => "none",
        (None, _) => "",
    }
}
