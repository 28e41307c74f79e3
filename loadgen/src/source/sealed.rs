//! One connection's TLS in the source: sealed octets on one side, plain ones on the other.
//!
//! Bound: what one flight holds, sealed; rustls keeps one record of what comes in.

use std::io::{self, ErrorKind, Read, Write};

use rustls::client::ClientConnection;
use rustls::{HandshakeKind, ProtocolVersion};

use crate::client::Secure;

pub(crate) struct Tls {
    connection: ClientConnection,
    /// Kept from flight to flight.
    sealed: Vec<u8>,
}

impl Tls {
    pub(crate) fn new(secure: &Secure) -> io::Result<Tls> {
        let connection = ClientConnection::new(secure.config.clone(), secure.name.clone());
        let mut connection = connection.map_err(io::Error::other)?;
        connection.set_buffer_limit(None); // a flight is bounded by its message
        Ok(Tls { connection, sealed: Vec::new() })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// As people write it.
    pub(crate) fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }

    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    pub(crate) fn keep_buffer(&mut self, empty: Vec<u8>) {
        self.sealed = empty;
    }

    /// Seals `plain`, and appends that and whatever else is to be sent.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
        self.connection.writer().write_all(plain)?;
        while self.connection.wants_write() {
            self.connection.write_tls(sealed)?;
        }
        Ok(())
    }

    /// Takes all of `sealed` and appends what was in it. The peer's end is an error once nothing came before it.
    pub(crate) fn take(&mut self, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !sealed.is_empty() {
            self.connection.read_tls(&mut sealed)?;
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            let (len, has_closed) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
            let at = plain.len();
            plain.resize(at + len, 0);
            self.connection.reader().read_exact(&mut plain[at..])?;
            if has_closed {
                return if plain.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
            }
        }
        Ok(())
    }
}
