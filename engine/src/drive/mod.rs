//! Between the machines and the ring: one file per box. Each is a handful of `impl Core` methods that feed a machine
//! with what happened and turn what it wants into submissions; none decides what mail means.

pub(crate) mod aside;
pub(crate) mod campaigns;
pub(crate) mod compact;
mod compose;
pub(crate) mod connecting;
pub(crate) mod copies;
pub(crate) mod delivery_log;
pub(crate) mod egress;
pub(crate) mod events;
pub(crate) mod expiry;
pub(crate) mod fetch;
mod flush;
pub(crate) mod inject;
pub(crate) mod intake;
pub(crate) mod journal;
pub(crate) mod lanes;
pub(crate) mod letters;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod look;
pub(crate) mod notices;
pub(crate) mod outbound;
pub(crate) mod pace;
pub(crate) mod returns;
pub(crate) mod rules;
pub(crate) mod secure;
pub(crate) mod share;
mod signing;
pub(crate) mod sites;
pub(crate) mod spent;
pub(crate) mod steer;
pub(crate) mod suppress;
pub(crate) mod verdicts;
pub(crate) mod ways;
