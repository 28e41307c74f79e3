//! The way to the name servers, with so many places: a question on the wire holds one until its answer is here.
//!
//! Stands below hickory's validation and its repeats, so that nothing gets past it. Fair: who waits longest is next.

use futures_util::stream::once;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer as _};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// See the module.
#[derive(Clone)]
pub(super) struct Gate {
    inner: TokioRuntimeProvider,
    places: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new(places: usize) -> Gate {
        Gate { inner: TokioRuntimeProvider::default(), places: Arc::new(Semaphore::new(places)) }
    }
}

/// A connection behind the gate.
#[derive(Clone)]
pub(super) struct Gated {
    inner: DnsExchange<TokioRuntimeProvider>,
    places: Arc<Semaphore>,
}

impl ConnectionProvider for Gate {
    type Conn = Gated;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Gated, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.inner.new_connection(ip, config, context)?;
        let places = Arc::clone(&self.places);
        Ok(Box::pin(async move { Ok(Gated { inner: connecting.await?, places }) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.inner
    }
}

impl DnsHandle for Gated {
    type Response = Pin<Box<dyn futures_util::Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let (inner, places) = (self.inner.clone(), Arc::clone(&self.places));
        Box::pin(once(async move {
            let _place = places.acquire_owned().await.map_err(|_| NetError::NoConnections)?;
            inner.send(request).first_answer().await
        }))
    }
}
