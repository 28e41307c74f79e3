//! Toy cores and peers, small enough to be right at a glance.

mod echo;
mod log;
mod relay;

pub(crate) use echo::{Echo, Talker};
pub(crate) use log::ToyLog;
pub(crate) use relay::Relay;
