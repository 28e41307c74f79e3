//! Connections of a listener: taken, perhaps encrypted, served one request after the other, and ended.
//!
//! Bounds: so many connections in all and from one address, past which a new one is closed at once; [`HEAD_MAX`] octets
//! and [`HEAD_TIME`] for a request's head, which is also how long a connection may stand idle; [`HANDSHAKE_TIME`] for TLS;
//! a client that takes nothing of its answer for `idle` is gone. A connection has its place until what it asked for is
//! done, whether or not its client waits for the answer. How slowly a body may come: see [`super::body`].

use super::gate::Peer;
use crate::access::{Counts, Seat, SessionLimits};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

/// Octets of a request's head.
const HEAD_MAX: usize = 32 << 10;

const HEAD_TIME: Duration = Duration::from_secs(15);

const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// After a failure to accept (no more files, say).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Requests under way when we stop have this long.
const GRACE: Duration = Duration::from_secs(20);

/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(20);

/// How connections are encrypted; a reload replaces it. `None`: not at all.
pub type Encryption = Arc<RwLock<Option<Arc<ServerConfig>>>>;

/// What is served at some addresses.
#[derive(Clone)]
pub struct Front {
    pub router: Router,
    pub encryption: Encryption,
    pub limits: SessionLimits,
    /// Of this front alone.
    pub counts: Arc<Counts>,
    pub idle: Duration,
}

/// Serves until `stop` says so, then lets what is under way end.
pub async fn serve(listener: TcpListener, front: Front, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((stream, peer)) => front.take(stream, peer, &stop),
            Err(error) => {
                tracing::warn!(%error, "taking a connection for HTTP");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let all_ended = async {
        while front.counts.total() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(GRACE, all_ended).await;
}

impl Front {
    fn take(&self, stream: TcpStream, peer: SocketAddr, stop: &watch::Receiver<bool>) {
        let address = peer.ip().to_canonical();
        let Ok(seat) = self.counts.enter(Some(address), &self.limits) else {
            return tracing::debug!(%address, "too many connections for HTTP: one was closed");
        };
        // Answers are short, and whoever waits for one sends nothing.
        let _ = stream.set_nodelay(true);
        let (front, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move { front.attend(stream, Peer(peer), &Arc::new(seat), stop).await });
    }

    async fn attend(&self, stream: TcpStream, peer: Peer, seat: &Arc<Seat>, stop: watch::Receiver<bool>) {
        let encryption = self.encryption.read().clone();
        let stream = Patient::new(stream, self.idle);
        let Some(config) = encryption else { return self.converse(stream, peer, seat, stop).await };
        let handshake = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIME, handshake).await {
            Ok(Ok(stream)) => self.converse(stream, peer, seat, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake for HTTP failed"),
            Err(_) => tracing::debug!("a TLS handshake for HTTP took too long"),
        }
    }

    async fn converse<S>(&self, stream: S, peer: Peer, seat: &Arc<Seat>, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let answer = TowerToHyperService::new(self.router.clone()).call(request);
            let seat = Arc::clone(seat);
            // A task of its own: what was begun for a client that leaves is done to its end.
            tokio::spawn(async move {
                let Ok(answer) = answer.await;
                drop(seat);
                answer
            })
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection for HTTP ended");
        }
    }
}

/// Returns once we are to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}

/// A stream whose peer must take what it is sent.
#[derive(Debug)]
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// While a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Patient<S> {
        Patient { stream, patience, deadline: None }
    }

    /// What a write, a flush or a shutdown said, unless it has waited too long.
    fn or_late<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.deadline = None;
            return result;
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_late(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_late(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.or_late(cx, result)
    }
}
