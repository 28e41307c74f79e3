//! A message's way to the client: RETR and TOP.
//!
//! `+OK` is said when the first piece is there, so that what cannot be read is refused. What breaks off later ends the
//! connection without its final dot: a client must not take half a message for a whole one.

use super::{Fetch, Session, Waiting};
use crate::output::{Output, Unreadable};
use crate::replies;
use crate::wire::Encoder;
use std::time::Instant;

impl Session {
    /// The next piece of what [`Output::Read`] asked for. Take the replies before the next: they are its bound.
    pub fn handle_content(&mut self, content: &[u8]) {
        self.begin_content();
        if let Waiting::Content(fetch) = &mut self.waiting {
            fetch.encoder.write(content, &mut self.replies);
        }
    }

    /// It has no more pieces, or none that are wanted.
    pub fn handle_content_end(&mut self, now: Instant) {
        self.begin_content();
        if let Waiting::Content(fetch) = std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            if fetch.is_whole {
                self.last = self.last.max(fetch.index + 1);
            }
            fetch.encoder.finish(&mut self.replies);
            self.restart_deadline(now);
        }
    }

    /// It cannot be read, or no further.
    pub fn handle_unreadable(&mut self, now: Instant, why: Unreadable) {
        let Waiting::Content(fetch) = std::mem::replace(&mut self.waiting, Waiting::Nothing) else { return };
        self.restart_deadline(now);
        match why {
            _ if fetch.has_begun => self.close(),
            // No error of the client's.
            Unreadable::Vanished => self.say(replies::VANISHED),
            Unreadable::Failed => self.say(replies::READ_FAILED),
        }
    }

    /// False once no more pieces are of use.
    pub fn wants_content(&self) -> bool {
        matches!(&self.waiting, Waiting::Content(fetch) if !fetch.encoder.is_done())
    }

    pub(super) fn on_fetch(&mut self, number: u64, lines: Option<u64>) {
        let Some(index) = self.find(number) else { return };
        let (encoder, is_whole) = (Encoder::new(lines), lines.is_none());
        self.waiting = Waiting::Content(Box::new(Fetch { index, encoder, has_begun: false, is_whole }));
        self.due = Some(Output::Read(index));
    }

    fn begin_content(&mut self) {
        if let Waiting::Content(fetch) = &mut self.waiting
            && !std::mem::replace(&mut fetch.has_begun, true)
        {
            replies::say(&mut self.replies, replies::CONTENT_FOLLOWS);
        }
    }
}
