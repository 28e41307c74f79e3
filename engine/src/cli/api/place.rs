//! Where the API is, and how one speaks with it there.

use super::{ApiError, tls};
use crate::config::Config;
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A stream to it, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// See the module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Plain(SocketAddr),
    /// Of the daemon whose configuration has this certificate.
    Ours(SocketAddr, Box<CertificateDer<'static>>),
    Named {
        host: String,
        port: u16,
    },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let Some(rest) = text.strip_prefix("https://") else {
            let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            let wrong = |_| format!("{text:?} is neither ADDRESS:PORT nor https://NAME:PORT");
            return plain.parse().map(Place::Plain).map_err(wrong);
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| format!("{port:?} is no port"))?),
            None => (rest, 443),
        };
        match message::Domain::parse(host) {
            Ok(_) => Ok(Place::Named { host: host.to_owned(), port }),
            Err(_) => Err(format!("{host:?} is no name that a certificate could be for")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Plain(address) => write!(f, "{address}"),
            Place::Ours(address, _) => write!(f, "https://{address}"),
            Place::Named { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl Place {
    /// The first address that the configured daemon listens on.
    pub(super) fn of(config: &Config) -> Result<Place, ApiError> {
        let address = config.api.listen.first().copied().ok_or(ApiError::NotConfigured)?;
        let Some(path) = &config.api.certificate else { return Ok(Place::Plain(address)) };
        let certificate = crate::tls::certificates(path)?.swap_remove(0);
        Ok(Place::Ours(address, Box::new(certificate)))
    }

    /// As a request names it.
    pub(super) fn host(&self) -> String {
        match self {
            Place::Plain(address) | Place::Ours(address, _) => address.to_string(),
            Place::Named { host, port: 443 } => host.clone(),
            Place::Named { host, port } => format!("{host}:{port}"),
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ApiError> {
        let connected = match self {
            Place::Plain(address) | Place::Ours(address, _) => TcpStream::connect(address).await,
            Place::Named { host, port } => TcpStream::connect((&**host, *port)).await,
        };
        let stream = connected.map_err(|source| ApiError::Connect { place: self.to_string(), source })?;
        let secured = match self {
            Place::Plain(_) => return Ok(Box::new(stream)),
            Place::Ours(address, certificate) => {
                tls::connect(tls::only(certificate), address.ip().into(), stream).await
            }
            Place::Named { host, .. } => match host.clone().try_into() {
                Ok(name) => tls::connect(tls::authorities(), name, stream).await,
                Err(_) => return Err(ApiError::Tls { place: self.to_string(), what: "no name".to_owned() }),
            },
        };
        let wrong = |source: std::io::Error| match tls::about_the_certificate(&source) {
            Some(what) => ApiError::Tls { place: self.to_string(), what },
            None => ApiError::Connect { place: self.to_string(), source },
        };
        Ok(Box::new(secured.map_err(wrong)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_print_the_same() {
        let named = |host: &str, port| Ok(Place::Named { host: host.to_owned(), port });
        assert_eq!("https://api.example.org".parse(), named("api.example.org", 443));
        assert_eq!("https://api.example.org:8443/".parse(), named("api.example.org", 8443));
        for text in ["127.0.0.1:8025", "[::1]:8025"] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.to_string(), place.host()), (text.to_owned(), text.to_owned()));
            assert_eq!(format!("http://{text}").parse(), Ok(place));
        }
        for wrong in ["", "localhost", "https://", "https://a b", "https://a.test:x", "https://[::1]:8025"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
    }
}
