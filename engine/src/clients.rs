//! What a core asks the control thread about those who bring mail, and what it hears.
//!
//! Most clients need no question: [`crate::access::Access::needs`] and the listener say so, and then nothing leaves the
//! core. Bound: [`QUESTIONS_MAX`] questions wait; past it a client is told to come again.

use crate::access::{Found, LookUp};
use crate::auth::Outcome;
use crate::core::Place;
use crate::verify::Letter;

/// Questions on their way to the control thread, of all cores.
pub const QUESTIONS_MAX: usize = 1 << 13;

/// One question.
#[derive(Debug)]
pub struct Question {
    pub core: usize,
    /// The session's place on that core.
    pub(crate) place: Place,
    pub ask: Ask,
}

/// What is to be found out.
#[derive(Debug)]
pub enum Ask {
    /// Before it is greeted, or after it said that it is somebody else.
    WhoIsIt(Box<LookUp>),
    /// About a message whose content is here; `slot` is the core's name for it.
    Message { slot: u32, look_up: Option<Box<LookUp>>, letter: Option<Box<Letter>> },
}

/// What came out, to the session at `place`.
#[derive(Debug)]
pub struct Answer {
    pub(crate) place: Place,
    pub found: Finding,
}

/// See [`Ask`].
#[derive(Debug)]
pub enum Finding {
    Client(Box<Found>),
    /// With the field that tells what was verified, if that was asked for.
    Message {
        slot: u32,
        found: Box<Found>,
        field: Option<Vec<u8>>,
    },
    /// From the threads that hash, not from the control thread.
    Login(Outcome),
}
