//! What the cores are asked for one look, and the part of the answer that each of them has.
//!
//! Bounds: those of `ask` for the rows; one part from each core.

use crate::crossing::Target;
use crate::domains::Resolution;
use crate::look::ask::Meant;
use crate::look::trace::Tracer;
use crate::look::view::{CoreView, HostRow, Limits, RouteView, SiteRow};
use crate::steer::condition::Pattern;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Shared by all cores and whoever waits for them.
#[derive(Debug)]
pub struct Call {
    pub what: What,
    /// One part from each core.
    pub parts: mpsc::UnboundedSender<Part>,
}

/// See the module.
#[derive(Debug)]
pub enum What {
    Domain(String),
    Sites {
        which: Which,
        limit: usize,
    },
    Hosts {
        limit: usize,
    },
    /// No addresses: all.
    Forget(Vec<Meant>),
    Trace(Arc<Tracer>),
}

/// Which sites are shown.
#[derive(Debug)]
pub enum Which {
    All,
    Like(Pattern),
    /// By its whole name.
    Named(String),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Part {
    pub core: usize,
    pub sites: Vec<SiteRow>,
    pub hosts: Vec<HostRow>,
    /// There are rows that the limit left out.
    pub has_more: bool,
    pub forgotten: u64,
    pub domain: Option<DomainPart>,
}

/// A domain as one core sees it, with the limits and routes that are in force there.
#[derive(Debug)]
pub struct DomainPart {
    pub route: RouteView,
    /// What the name servers are to be asked.
    pub target: Target,
    /// What needs no name server.
    pub at_hand: Option<Resolution>,
    pub limits: Limits,
    pub view: CoreView,
}

impl Call {
    /// A call, and where its parts come out.
    pub fn new(what: What) -> (Arc<Call>, mpsc::UnboundedReceiver<Part>) {
        let (parts, heard) = mpsc::unbounded_channel();
        (Arc::new(Call { what, parts }), heard)
    }
}
