//! The pure functions that a message or a delivery passes through, one by one, without I/O.
//!
//! Each file here is a box of the drawing and measures it through its public API alone, with input of the size that
//! a list or a newsletter has. The figures are for comparing one version of the code with the next on one machine:
//! caches and branch predictors are as warm here as they never are in a mail server.
#![forbid(unsafe_code)]

use criterion::{criterion_group, criterion_main};

mod class;
mod content;
mod delivery_log;
mod dkim;
mod fan_out;
mod intake;
mod journal;
mod merge;
mod outbound;
mod record;
mod sample;
mod verp;

criterion_group!(
    hot,
    intake::commands,
    intake::data,
    class::flows,
    content::facts,
    content::stuffing,
    record::encoding,
    record::envelopes,
    verp::rendering,
    verp::decoding,
    merge::rendering,
    merge::injection,
    merge::unsubscribing,
    dkim::body_hashes,
    dkim::signatures,
    outbound::windows,
    outbound::replies,
    journal::marks,
    fan_out::names,
    delivery_log::lines,
);
criterion_main!(hot);
