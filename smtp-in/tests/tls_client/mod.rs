//! A client's side of TLS, in memory, with certificates made for the test. The time is always `NOW`.

// A test may panic; not every test uses all of this.
#![allow(clippy::unwrap_used, dead_code)]

use crate::dialog::door::Doorkeeper;
use crate::dialog::settings::Settings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use smtp_in::door::{Answer, Client, Question};
use smtp_in::{Identity, Output, Session, Stored, Submission, TlsServer, TransactionKey};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// 2026-01-01; certificates are of 2025 to 2027.
#[derive(Debug)]
pub(crate) struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600)))
    }
}

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = params("authority.example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

/// A certificate for `name`, and its key.
pub(crate) fn signed_by(
    authority: &Authority,
    name: &str,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    (params(name).signed_by(&key, authority).unwrap().der().clone(), key.into())
}

pub(crate) fn self_signed(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    (params(name).self_signed(&key).unwrap().der().clone(), key.into())
}

/// One of our certificates, shown for its name.
pub(crate) fn identity(name: &str) -> Identity {
    let (certificate, key) = self_signed(name);
    Identity { names: vec![name.to_owned()], chain: vec![certificate], key }
}

pub(crate) fn server(
    identities: Vec<Identity>,
    roots: Option<Vec<CertificateDer<'static>>>,
) -> Arc<TlsServer> {
    Arc::new(TlsServer::new(identities, roots).unwrap().with_time(Arc::new(Now)))
}

/// Takes any server for who it says it is.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client is, once; sessions are resumed under the same one. The key need not be that of the certificate.
pub(crate) fn client(
    certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    is_tls12: bool,
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = if is_tls12 { [&TLS12] } else { [&TLS13] };
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(Now))
        .with_protocol_versions(&versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(Arc::clone(&provider))));
    let mut config = match certificate {
        Some((certificate, key)) => {
            let key = provider.key_provider.load_private_key(key).unwrap();
            let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
            builder.with_client_cert_resolver(Arc::new(shown) as Arc<dyn ResolvesClientCert>)
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(4);
    Arc::new(config)
}

/// A connection, from both ends.
pub(crate) struct Wire {
    pub(crate) session: Session,
    pub(crate) tls: ClientConnection,
    pub(crate) now: Instant,
    pub(crate) piece_len: usize,
    pub(crate) door: Doorkeeper,
    /// Answered with these, one after the other; welcome if there is none.
    pub(crate) answers: Vec<Answer>,
    pub(crate) asked: Vec<Client>,
    pub(crate) stored: Vec<Submission>,
    pub(crate) open: Vec<TransactionKey>,
    pub(crate) is_closed: bool,
    pub(crate) is_handed_over: bool,
    /// Opened by the client.
    pub(crate) heard: String,
    pub(crate) error: Option<Error>,
    pub(crate) was_said_goodbye: bool,
    rights: smtp_in::door::Rights,
    sealed: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(settings: Settings, client: &Arc<ClientConfig>, host: &str) -> Wire {
        let now = Instant::now();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        Wire {
            session: Session::new(now, Arc::new(settings.policy), settings.arrival),
            tls: ClientConnection::new(Arc::clone(client), name).unwrap(),
            now,
            piece_len: usize::MAX / 2,
            door: Doorkeeper { gate: smtp_in::Gate::Open },
            answers: Vec::new(),
            asked: Vec::new(),
            stored: Vec::new(),
            open: Vec::new(),
            is_closed: false,
            is_handed_over: false,
            heard: String::new(),
            error: None,
            was_said_goodbye: false,
            rights: settings.rights,
            sealed: Vec::new(),
        }
    }

    /// Says this in plain text; returns what comes back in plain text.
    pub(crate) fn plainly(&mut self, text: &str) -> String {
        let mut replies = Vec::new();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + self.piece_len);
            let used = self.session.handle_bytes(self.now, &mut self.door, &bytes[at..end]);
            assert!(used > 0, "take the greeting first");
            at += used;
        }
        while self.drain() | self.session.take_replies(&mut replies) {}
        String::from_utf8(replies).unwrap()
    }

    /// Says this through TLS, and shakes hands before if that is due; returns what comes back.
    pub(crate) fn say(&mut self, text: &str) -> String {
        self.tls.writer().write_all(text.as_bytes()).unwrap();
        self.run();
        std::mem::take(&mut self.heard)
    }

    /// Carries octets both ways until nothing moves.
    pub(crate) fn run(&mut self) {
        loop {
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.sealed).unwrap();
            }
            let used = self.give_sealed();
            let any = self.drain();
            let mut out = Vec::new();
            self.session.take_replies(&mut out);
            self.hear(&out);
            if used == 0 && !any && out.is_empty() && !self.session.wants_turn() {
                return;
            }
        }
    }

    fn give_sealed(&mut self) -> usize {
        let mut used = 0;
        loop {
            let end = self.sealed.len().min(used + self.piece_len);
            let more = self.session.handle_bytes(self.now, &mut self.door, &self.sealed[used..end]);
            used += more;
            if more == 0 {
                self.sealed.drain(..used);
                return used;
            }
        }
    }

    /// True if there was anything.
    fn drain(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.session.poll_output() {
            any = true;
            match output {
                Output::Ask(Question::Introduce(client)) => {
                    self.asked.push(*client);
                    let welcome = || Answer::Welcome(self.rights.clone());
                    let answer = if self.answers.is_empty() { welcome() } else { self.answers.remove(0) };
                    self.session.handle_answer(self.now, answer);
                }
                Output::Ask(_) => self.session.handle_answer(self.now, Answer::LoggedIn(self.rights.clone())),
                Output::Turn(_) => self.session.handle_answer(self.now, Answer::Turning),
                Output::Store(submission) => {
                    self.open.push(submission.transaction);
                    self.stored.push(*submission);
                }
                Output::HandOver => self.is_handed_over = true,
                Output::Close => self.is_closed = true,
                Output::Flush(_) | Output::Rejected(_) => {}
            }
        }
        any
    }

    /// Ends the oldest store.
    pub(crate) fn store(&mut self) {
        let key = self.open.remove(0);
        self.session.handle_stored(self.now, key, Stored::Accepted(message::MessageId(1)));
    }

    pub(crate) fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() && !self.was_said_goodbye {
            self.tls.read_tls(&mut bytes).unwrap();
            match self.tls.process_new_packets() {
                Ok(state) => {
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut plain).unwrap();
                    self.heard += &String::from_utf8(plain).unwrap();
                    self.was_said_goodbye |= state.peer_has_closed();
                }
                Err(error) => self.error = Some(error),
            }
        }
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that we showed.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.tls.peer_certificates().unwrap()[0].clone().into_owned()
    }
}
