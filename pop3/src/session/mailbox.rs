//! What lies there, and what of it goes: STAT, LIST, UIDL, DELE, RSET, LAST, QUIT.
//!
//! A marked message is as if it were gone, but for RSET, until QUIT takes it away. A list is said in pieces, each no
//! longer than `replies_max` and a line.

use super::{Column, Listing, Session, Waiting};
use crate::maildrop::Maildrop;
use crate::output::Output;
use crate::replies;
use std::time::Instant;

impl Session {
    /// What became of [`Output::Remove`]: so many of them are there still.
    pub fn handle_removed(&mut self, _now: Instant, left: usize) {
        if !matches!(self.waiting, Waiting::Removal) {
            return;
        }
        if left == 0 {
            self.say(replies::BYE);
        } else {
            replies::print(
                &mut self.replies,
                format_args!("-ERR [SYS/TEMP] {left} marked messages are not removed\r\n"),
            );
        }
        self.close();
    }

    pub(super) fn on_quit(&mut self) {
        let marked = self.maildrop.as_ref().map_or_else(Vec::new, Maildrop::marked);
        if marked.is_empty() {
            self.say(replies::BYE);
            return self.close();
        }
        self.due = Some(Output::Remove(marked));
        self.waiting = Waiting::Removal;
    }

    pub(super) fn on_stat(&mut self) {
        let (count, len) = self.opened().sum();
        replies::print(&mut self.replies, format_args!("+OK {count} {len}\r\n"));
    }

    pub(super) fn on_list(&mut self, what: Column, number: Option<u64>) {
        let Some(number) = number else {
            self.say(replies::OK);
            self.listing = Some(Listing { what, next: 0 });
            return;
        };
        if let Some(index) = self.find(number) {
            self.replies.extend_from_slice(b"+OK ");
            self.list(what, index);
        }
    }

    /// Goes on with the list, as far as there is room.
    pub(super) fn list_on(&mut self) {
        let Some(Listing { what, mut next }) = self.listing.take() else { return };
        let count = self.opened().count();
        while next < count && self.replies.len() < self.policy.limits.replies_max {
            if !self.opened().is_marked(next) {
                self.list(what, next);
            }
            next += 1;
        }
        if next < count {
            self.listing = Some(Listing { what, next });
        } else {
            self.say(replies::END);
        }
    }

    fn list(&mut self, what: Column, index: usize) {
        let number = index + 1;
        match what {
            Column::Len => {
                let len = self.opened().len_of(index);
                replies::print(&mut self.replies, format_args!("{number} {len}\r\n"));
            }
            Column::Uid => {
                let uid = self.opened().uid_of(index);
                replies::print(&mut self.replies, format_args!("{number} {uid}\r\n"));
            }
        }
    }

    pub(super) fn on_dele(&mut self, number: u64) {
        let Some(index) = self.find(number) else { return };
        if let Some(maildrop) = &mut self.maildrop {
            maildrop.mark(index);
        }
        self.last = self.last.max(index + 1);
        self.say(replies::MARKED);
    }

    pub(super) fn on_rset(&mut self) {
        if let Some(maildrop) = &mut self.maildrop {
            maildrop.unmark_all();
        }
        self.last = 0;
        self.on_stat();
    }

    /// RFC 1460: the highest number of a message that the client has had or marked. TOP does not count.
    pub(super) fn on_last(&mut self) {
        replies::print(&mut self.replies, format_args!("+OK {}\r\n", self.last));
    }

    /// The message of that number; if there is none, that is said.
    pub(super) fn find(&mut self, number: u64) -> Option<usize> {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        match index.filter(|index| *index < self.opened().count()) {
            Some(index) if self.opened().is_marked(index) => self.refuse(replies::MARKED_ALREADY),
            Some(index) => return Some(index),
            None => self.refuse(replies::NO_SUCH_MESSAGE),
        }
        None
    }

    /// Of whoever is logged in.
    fn opened(&self) -> &Maildrop {
        self.maildrop.as_ref().expect("on_command lets nobody here who is not logged in")
    }
}
