//! Encryption of outgoing connections: what each policy has ready, what is sealed and sent, and what came of it.
//!
//! Ciphertext is made a slice at a time, when the one before it is with the kernel, so that a large content costs
//! no memory of its size. Bounds: [`CLIENTS_MAX`] policies with their sessions, [`SLICE_LEN`] octets sealed at a time
//! and connection.

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, token};
use crate::domains::SiteKey;
use crate::settings::Settings;
use crate::tlsrpt::{Failure, TlsNote};
use ring::{Outgoing, Piece, Ring};
use smallvec::SmallVec;
use smtp_out::{Encrypted, FailureKind, Protection, Session, TlsClient, TlsPolicy, Verified};
use std::collections::HashMap;
use std::sync::Arc;

/// Policies that are kept ready. DANE has one per set of records.
const CLIENTS_MAX: usize = 4096;

/// Octets in plain text that are sealed at a time: sixteen whole records.
const SLICE_LEN: usize = 256 << 10;

/// What each policy has ready: its verifier and the sessions to resume.
#[derive(Debug, Default)]
pub(crate) struct TlsClients {
    by_policy: HashMap<Arc<TlsPolicy>, Option<Arc<TlsClient>>>,
}

impl TlsClients {
    /// The policy's, made if need be. One look-up a connection.
    pub(crate) fn get(&mut self, policy: &Arc<TlsPolicy>, settings: &Settings) -> Option<Arc<TlsClient>> {
        if let Some(client) = self.by_policy.get(policy) {
            return client.clone();
        }
        if self.by_policy.len() >= CLIENTS_MAX {
            // Those of open connections stay in use; they only resume nothing more.
            self.by_policy.clear();
        }
        let client = settings.tls.client(policy);
        self.by_policy.insert(Arc::clone(policy), client.clone());
        client
    }

    /// Other roots, another certificate: sessions made with the old ones are not resumed.
    pub(crate) fn clear(&mut self) {
        self.by_policy.clear();
    }
}

/// A flight whose octets are not all sealed.
#[derive(Debug, Default)]
pub(crate) struct Sealing {
    own: Vec<u8>,
    pieces: SmallVec<[Piece; 8]>,
    /// The first piece that is not wholly sealed, and how far it is.
    piece: usize,
    offset: usize,
}

impl Sealing {
    /// Takes the flight that is in `outgoing`, which is empty then.
    pub(crate) fn take(&mut self, outgoing: &mut Outgoing) {
        self.own.clear();
        std::mem::swap(&mut self.own, &mut outgoing.own);
        self.pieces.clear();
        std::mem::swap(&mut self.pieces, &mut outgoing.pieces);
        (self.piece, self.offset) = (0, 0);
        outgoing.zero_copy = false;
    }

    pub(crate) fn is_done(&self) -> bool {
        self.piece >= self.pieces.len()
    }

    /// Makes the next slice's records. One copy of it, and no allocation once `out` has grown.
    pub(crate) fn seal_next(&mut self, session: &mut Session, out: &mut Outgoing) {
        let mut left = SLICE_LEN;
        let mut slices: SmallVec<[&[u8]; 16]> = SmallVec::new();
        while left > 0
            && let Some(piece) = self.pieces.get(self.piece)
        {
            let whole = match piece {
                Piece::Own(range) => &self.own[range.start as usize..range.end as usize],
                Piece::Shared(bytes) => bytes,
            };
            let rest = &whole[self.offset..];
            let slice = &rest[..rest.len().min(left)];
            left -= slice.len();
            slices.push(slice);
            (self.piece, self.offset) = match slice.len() == rest.len() {
                true => (self.piece + 1, 0),
                false => (self.piece, self.offset + slice.len()),
            };
        }
        out.clear();
        session.seal_pieces(&slices, &mut out.own);
        drop(slices);
        let len = u32::try_from(out.own.len()).expect("a slice and what its records add");
        out.pieces.push(Piece::Own(0..len));
        if self.is_done() {
            // The contents are not held while the last of their octets are on their way.
            self.pieces.clear();
            self.piece = 0;
        }
    }
}

fn failure_of(kind: FailureKind) -> Failure {
    match kind {
        FailureKind::StarttlsNotSupported => Failure::NoStartTls,
        FailureKind::CertificateHostMismatch => Failure::HostMismatch,
        FailureKind::CertificateExpired => Failure::Expired,
        FailureKind::CertificateNotTrusted => Failure::NotTrusted,
        FailureKind::ValidationFailure => Failure::Validation,
        FailureKind::TlsaInvalid => Failure::Tlsa,
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// What came of TLS, or of its absence.
    pub(crate) fn on_protection(&mut self, place: Place, protection: &Protection) {
        match protection {
            // As it came in: no handshake of ours.
            Protection::Encrypted(Encrypted { verified: Verified::Login, .. }) => {}
            Protection::Encrypted(Encrypted { is_resumed, failure, .. }) => {
                self.counters.tls_handshakes.add(1);
                self.counters.tls_resumed.add(u64::from(*is_resumed));
                self.counters.tls_failures.add(u64::from(failure.is_some()));
            }
            Protection::Plain(_) => self.counters.plain_connections.add(1),
            Protection::Failed(_) => self.counters.tls_failures.add(1),
        }
        self.note_for_report(place, protection);
        let Some(connection) = self.outbound.get(place) else { return };
        if let Protection::Encrypted(encrypted) = protection {
            connection.tls = encrypted.version;
        }
        let (site, host) = (connection.site, Arc::clone(&connection.host));
        match protection {
            Protection::Failed(failure) => {
                tracing::warn!(site = self.site_name(site), host = &*host, reason = %failure, "TLS failed");
            }
            Protection::Encrypted(Encrypted { failure: Some(failure), .. }) => {
                let site = self.site_name(site);
                tracing::info!(site, host = &*host, reason = %failure, "TLS would have failed, were its policy enforced");
            }
            Protection::Encrypted(_) | Protection::Plain(_) => {}
        }
    }

    /// For the daily reports (RFC 8460): one session, under the domain that it was opened for.
    fn note_for_report(&mut self, place: Place, protection: &Protection) {
        if !self.crossing.wants_tls_notes() {
            return;
        }
        let Some(connection) = self.outbound.get(place) else { return };
        let (site, peer, host) = (connection.site, connection.peer.ip(), Arc::clone(&connection.host));
        let Some(domain) = connection.opened_for.clone() else { return };
        let local = self.sites.get(site);
        let failure = protection.failure_kind().map(|kind| (failure_of(kind), protection.to_string().into()));
        self.crossing.note_tls(TlsNote {
            domain,
            basis: Arc::clone(&self.ways.get(local.way).basis),
            host,
            receiving: Some(peer),
            sending: self.settings.bind_to(local.source, peer),
            result: failure.map_or(Ok(()), Err),
        });
    }

    fn site_name(&self, key: SiteKey) -> &str {
        self.sites.get(key).pace.site().name()
    }

    /// Sends the next slice of a sealed flight. False if all of it is with the kernel.
    pub(crate) fn send_sealed(&mut self, place: Place) -> bool {
        let Some(connection) = self.outbound.get(place) else { return false };
        let Some(sealing) = connection.sealing.as_mut().filter(|sealing| !sealing.is_done()) else {
            return false;
        };
        let (Some(session), Some(mut outgoing)) = (&mut connection.session, connection.outgoing.take())
        else {
            return false;
        };
        sealing.seal_next(session, &mut outgoing);
        let socket = connection.socket;
        self.ring.send(token(Kind::Outbound, place), socket, outgoing);
        true
    }
}
