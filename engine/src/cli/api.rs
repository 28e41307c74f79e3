//! The daemon's API as its own commands use it: one request, its answer, or a sentence why not.
//!
//! To the address that `[api]` listens on: plain HTTP, or TLS with whoever shows the certificate that stands in the
//! configuration, whatever name it is for. To another machine: TLS with a name that the system's authorities vouch for.
//! Bound: an answer of [`ANSWER_MAX`] octets.

mod place;
mod tls;

use super::{ConfigFile, complain};
use clap::Args;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use place::Place;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

/// Octets of an answer: a thousand campaigns have room.
const ANSWER_MAX: usize = 8 << 20;

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// Which daemon, and who asks.
#[derive(Args, Debug)]
pub(super) struct ApiArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the API is, if not where the configuration says: ADDRESS:PORT in plain text, or https://NAME:PORT
    #[arg(long, value_name = "PLACE")]
    api: Option<Place>,
    /// A file with the token to show, if the API wants one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(
        "api.listen is empty in the configuration: say where the daemon is to be asked, or name it by --api"
    )]
    NotConfigured,
    #[error(transparent)]
    Certificate(#[from] crate::tls::TlsFilesError),
    #[error("{place}: {what}")]
    Tls { place: String, what: String },
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{place}: {source}; is the daemon running?")]
    Connect { place: String, source: std::io::Error },
    #[error("the API: {0}")]
    Http(String),
    /// What the daemon said.
    #[error("{what}")]
    Refused { status: u16, what: String, answer: Value },
}

impl ApiError {
    pub(super) fn exit(&self) -> ExitCode {
        let code = match self {
            ApiError::Config(_)
            | ApiError::NotConfigured
            | ApiError::Certificate(_)
            | ApiError::Tls { .. } => 78,
            ApiError::File { .. } => 66,
            ApiError::Refused { status: 401 | 403, .. } => 77,
            ApiError::Refused { status: 400..=428, .. } => 65,
            ApiError::Connect { .. } | ApiError::Http(_) | ApiError::Refused { .. } => 75,
        };
        complain(code, self)
    }
}

/// Somebody to ask.
#[derive(Debug)]
pub(super) struct Api {
    place: Place,
    token: Option<String>,
}

impl ApiArgs {
    pub(super) fn open(&self) -> Result<Api, ApiError> {
        let place = match &self.api {
            Some(place) => place.clone(),
            None => Place::of(&self.config.load()?)?,
        };
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ApiError::File { path: path.clone(), source })
        };
        let token = self.token_file.as_ref().map(read).transpose()?;
        Ok(Api { place, token: token.map(|token| token.trim().to_owned()) })
    }
}

impl Api {
    /// Asks, and waits for the answer: JSON, or nothing.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let body = body.map(|body| ("application/json", whole(body.to_string().into_bytes())));
        self.send(method, path, body)
    }

    /// As [`Api::ask`], with a body of any type and length.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
    ) -> Result<Value, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| ApiError::Connect { place: self.place.to_string(), source })?;
        runtime.block_on(self.exchange(method, path, body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
    ) -> Result<Value, ApiError> {
        let stream = self.place.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let running = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.place.host());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((content_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *content_type);
        }
        let body = body.map_or_else(|| whole(Vec::new()), |(_, body)| body);
        let answer = sender.send_request(request.body(body).map_err(http)?).await.map_err(http)?;
        let status = answer.status().as_u16();
        let octets = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(http)?.to_bytes();
        drop(sender);
        running.abort();
        let answer: Value = serde_json::from_slice(&octets).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let what =
            answer.get("error").and_then(Value::as_str).unwrap_or("the daemon refused, and did not say why");
        Err(ApiError::Refused { status, what: what.to_owned(), answer: answer.clone() })
    }
}

pub(super) fn whole(octets: Vec<u8>) -> Body {
    Full::from(octets).map_err(|never| match never {}).boxed()
}

fn http(error: impl std::fmt::Display) -> ApiError {
    ApiError::Http(error.to_string())
}
