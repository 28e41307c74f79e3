//! Requests over HTTPS, for those who publish policies, take reports and take events.
//!
//! hyper's client speaks HTTP/1.1 (chunked bodies and odd servers are its trade; axum brings it anyway); the certificate
//! must lead to one of the system's authorities, or of `tls.ca_file`, and be for the host. No redirects, no cookies. A
//! connection is used once, or for as long as its [`Link`] is kept; plain HTTP is spoken by a link alone, to whom
//! the operator says so of. Bounds: [`ADDRESSES_MAX`] addresses are tried, each for [`CONNECT_MAX`]; the caller bounds the
//! whole time and the length of the answer.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;

/// A connection and its handshake take no longer each.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpsError {
    #[error("{0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("HTTP: {0}")]
    Http(String),
}

/// What the host said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The media type without its parameters.
    pub(crate) fn is_of_type(&self, wanted: &str) -> bool {
        let text = self.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
    }
}

/// See the module.
pub(crate) struct Https {
    authorities: Option<PathBuf>,
    /// Made for the first request: most that could send one never do.
    tls: OnceCell<TlsConnector>,
}

impl Https {
    /// `authorities`: a PEM file. Without it, the system's.
    pub(crate) fn new(authorities: Option<&Path>) -> Https {
        Https { authorities: authorities.map(Path::to_owned), tls: OnceCell::new() }
    }

    fn tls(&self) -> &TlsConnector {
        self.tls.get_or_init(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider has suites for both versions")
                .with_root_certificates(roots(self.authorities.as_deref()))
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        })
    }

    /// `len_max`: octets of the answer's body.
    pub(crate) async fn get(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        path: &str,
        len_max: usize,
    ) -> Result<Answer, HttpsError> {
        let request = Request::get(path).body(Full::default());
        self.exchange(addresses, host, request.map_err(http)?, len_max).await
    }

    pub(crate) async fn post(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        path: &str,
        (content_type, body): (&'static str, Vec<u8>),
    ) -> Result<Answer, HttpsError> {
        let request = Request::post(path).header(CONTENT_TYPE, content_type).body(Full::from(body));
        self.exchange(addresses, host, request.map_err(http)?, 4096).await
    }

    async fn exchange(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        mut request: Request<Full<Bytes>>,
        len_max: usize,
    ) -> Result<Answer, HttpsError> {
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(http)?);
        headers.insert(USER_AGENT, HeaderValue::from_static("ringpost"));
        let stream = self.connect(addresses, host).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            read(response, len_max).await
        };
        // The connection moves the bytes of the exchange; it may end before all of them are looked at.
        match futures_util::future::select(pin!(exchange), pin!(connection)).await {
            futures_util::future::Either::Left((answer, _)) => answer,
            futures_util::future::Either::Right((_, exchange)) => exchange.await,
        }
    }

    async fn connect(
        &self,
        addresses: &[SocketAddr],
        host: &str,
    ) -> Result<TlsStream<TcpStream>, HttpsError> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| HttpsError::Connect(error.to_string()))?;
        let mut trouble = HttpsError::Connect("no address".to_owned());
        for address in addresses.iter().take(ADDRESSES_MAX) {
            match self.connect_to(*address, name.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        name: ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, HttpsError> {
        let stream = connect_plainly(address).await?;
        let stream = tokio::time::timeout(CONNECT_MAX, self.tls().connect(name, stream));
        let stream = stream.await.map_err(|_| late(address))?;
        stream.map_err(|error| HttpsError::Tls(error.to_string()))
    }

    /// A connection for several requests, one after the other.
    pub(crate) async fn open(
        &self,
        addresses: &[SocketAddr],
        host: &str,
        is_plain: bool,
    ) -> Result<Link, HttpsError> {
        if !is_plain {
            return Link::begin(self.connect(addresses, host).await?).await;
        }
        let mut trouble = HttpsError::Connect("no address".to_owned());
        for address in addresses.iter().take(ADDRESSES_MAX) {
            match connect_plainly(*address).await {
                Ok(stream) => return Link::begin(stream).await,
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }
}

async fn connect_plainly(address: SocketAddr) -> Result<TcpStream, HttpsError> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await;
    stream.map_err(|_| late(address))?.map_err(|error| HttpsError::Connect(format!("{address}: {error}")))
}

fn late(address: SocketAddr) -> HttpsError {
    HttpsError::Connect(format!("{address}: time-out"))
}

/// A connection that is kept. It ends with this.
pub(crate) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Link {
    async fn begin<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<Link, HttpsError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // It moves the bytes of all exchanges, and ends when nobody can ask for one any more.
        tokio::task::spawn_local(connection);
        Ok(Link { sender })
    }

    /// Headers are the caller's, `Host` among them; so is the time that it may take.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpsError> {
        self.sender.ready().await.map_err(http)?;
        self.sender.send_request(request).await.map_err(http)
    }
}

async fn read(response: Response<Incoming>, len_max: usize) -> Result<Answer, HttpsError> {
    let status = response.status().as_u16();
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let body = Limited::new(response.into_body(), len_max).collect().await;
    let body = body.map_err(|error| HttpsError::Http(error.to_string()))?.to_bytes();
    Ok(Answer { status, content_type, body })
}

fn http(error: impl std::fmt::Display) -> HttpsError {
    HttpsError::Http(error.to_string())
}

/// None at all means that every handshake fails, which says more at the right place than a refused start.
fn roots(authorities: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'static>> = match authorities {
        Some(path) => match CertificateDer::pem_file_iter(path) {
            Ok(found) => found.filter_map(Result::ok).collect(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "tls.ca_file cannot be read: no policy's host is trusted");
                Vec::new()
            }
        },
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        tracing::error!(
            "no certificate authorities: MTA-STS policies cannot be had, reports cannot be posted"
        );
    }
    roots
}
