//! Looks: what an operator may ask to see of sites, hosts and domains ([`ask`]), what is shown ([`view`]), what the cores
//! are asked for it and say of it ([`call`]), and dialogues as they happen ([`trace`]).
//!
//! Nothing here does I/O. `drive/look` answers on a core, `control/look` asks all of them and puts the answers together,
//! `cli/{explain,sites,trace}` ask and print.

pub mod ask;
pub mod call;
pub mod trace;
pub mod view;
