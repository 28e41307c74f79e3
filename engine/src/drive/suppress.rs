//! Recipients who are on the suppression list: ended before anything is sent to them; and hard bounces, heard at once or
//! told by a report later, which put somebody on it.
//!
//! A recipient is looked at when it is about to be offered to its host. One whose key must be read from the disk stands
//! aside meanwhile, and has its turn again when the page is in memory. A recipient that failed hard is owed until its
//! bounce is durable and then until its entry is: a crash on the way asks its host once more. In this order: one who is on the
//! list gets no bounce any more.
//! Bounds: [`UNREAD_MAX`] recipients aside, past which one comes back in a second; [`FEEDING_MAX`] on their way to the list,
//! past which one is owed for a minute more, and fails again.

use crate::clock::Clock;
use crate::core::Core;
use crate::keyset::Key;
use crate::suppression::{
    Entry, Feed, Listed, Reason, Refusing, Screen, Screened, Suppression, SuppressionRules, Who,
};
use message::{Lane, Mailbox, MailboxRef, Reply, ReversePath, Verdict};
use queue::Range;
use queue::fanout::{Addressee, Letter, Name, OpenRange};
use ring::Ring;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// Recipients who are on the suppression list and are ended before another site has its turn.
pub(crate) const ASIDE_MAX: usize = 256;

const UNREAD_MAX: usize = 1024;
const UNREAD_AGAIN_SECS: u64 = 1;

const FEEDING_MAX: usize = 10_000;

/// The ticket of an entry that nobody waits for.
const NOBODY: u32 = u32::MAX;
const FEED_AGAIN_SECS: u64 = 60;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Suppressing {
    /// None in a simulation.
    screen: Option<Screen>,
    unread: Slab<Range>,
    /// Settled once somebody is on the list: recipients that failed, and whose senders know, and mail that says who leaves.
    feeding: Slab<(Range, Reason)>,
    /// The writer had no room for them.
    unsent: VecDeque<Feed>,
}

impl Suppressing {
    pub(crate) fn new(suppression: Option<&Arc<Suppression>>) -> Suppressing {
        Suppressing { screen: suppression.map(Suppression::screen), ..Suppressing::default() }
    }

    /// Whether the recipient gets the letter. Costs nothing while the list is empty; see [`Screen::look`].
    pub(crate) fn look(&self, rules: &SuppressionRules, letter: &Letter, to: MailboxRef<'_>) -> Screened {
        let Some(screen) = self.screen.as_ref().filter(|screen| !screen.is_empty()) else {
            return Screened::Free;
        };
        if letter.reverse_path == ReversePath::Null {
            return Screened::Free;
        }
        match screen.look(|| letter.list(), to) {
            Screened::Free => Screened::Free,
            _ if rules.exempts(&letter.reverse_path, letter.lane) => Screened::Free,
            found => found,
        }
    }

    /// Who is refused at RCPT, if anybody is.
    pub(crate) fn at_rcpt<'a>(&'a self, rules: &'a SuppressionRules) -> Option<Refusing<'a>> {
        let screen = self.screen.as_ref().filter(|screen| rules.refuses_at_rcpt() && !screen.is_empty())?;
        Some(Refusing { screen, rules })
    }

    /// Every range that waits here.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &Range> {
        let unread = self.unread.iter().map(|(_, range)| range);
        unread.chain(self.feeding.iter().map(|(_, (range, _))| range))
    }

    /// Nobody waits to be put on the list.
    pub(crate) fn is_idle(&self) -> bool {
        self.feeding.is_empty()
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Once a turn.
    pub(crate) fn run_suppressing(&mut self) {
        let Suppressing { screen, unsent, .. } = &mut self.suppressing;
        let Some(screen) = screen else { return };
        screen.refresh();
        while let Some(feed) = unsent.pop_front() {
            if let Err(feed) = screen.suppression().feed(feed) {
                return unsent.push_front(feed);
            }
        }
    }

    /// A name of an open range that is not to be offered now.
    pub(crate) fn set_name_aside(
        &mut self,
        (letter, window): (&Arc<Letter>, &bytes::Bytes),
        range: Range,
        name: Name,
        found: Screened,
    ) {
        let one = Range { first: name.index, count: 1, name_offset: name.offset, ..range };
        match found {
            Screened::Free => self.offer_range(one),
            Screened::Listed(listed) => self.end_listed(letter, one, name.text(window), listed),
            Screened::Unread(key) => self.ask_the_disk(one, key),
        }
    }

    /// Nothing is sent, and nobody is told: who is on the list is to hear nothing, and his sender has said so.
    pub(crate) fn end_listed(
        &mut self,
        letter: &Arc<Letter>,
        range: Range,
        local_part: &str,
        listed: Listed,
    ) {
        self.counters.suppressed.add(1);
        self.log_suppressed(letter, &range, local_part, reply_for(listed));
        self.settle(range);
    }

    fn ask_the_disk(&mut self, range: Range, key: Key) {
        let Suppressing { screen, unread, .. } = &mut self.suppressing;
        self.counters.suppression_reads.add(1);
        if let Some(screen) = screen.as_ref().filter(|_| unread.len() < UNREAD_MAX) {
            let ticket = unread.insert(range);
            let number = u32::try_from(ticket).expect("UNREAD_MAX is below");
            if screen.suppression().read_for(self.index, number, key) {
                return;
            }
            unread.remove(ticket);
        }
        self.schedule_or_return(range, self.wall.plus_secs(UNREAD_AGAIN_SECS));
    }

    /// The key of one that stands aside was read: now it is in memory. Where nobody can read it, its recipient waits as
    /// after any other failure, rather than get what it may have refused.
    pub(crate) fn on_screened(&mut self, ticket: u32, is_known: bool) {
        let Some(range) = self.suppressing.unread.try_remove(ticket as usize) else { return };
        if is_known {
            return self.offer_range(range);
        }
        let text = "the suppression list cannot be read; the operator has the details";
        self.conclude_range(range, Verdict::Deferred(Reply::ours(451, (4, 3, 0), text)));
    }

    // ---- hard bounces ----

    /// The recipient failed, and whoever is to hear of it will: it is settled. One that its host does not know is put on the
    /// list first.
    pub(crate) fn settle_unknown(&mut self, range: Range, unknown: Option<Box<Who>>) {
        self.settle_listed(range, unknown.map(|who| (*who, Reason::HardBounce)));
    }

    /// The range is settled once that entry is durable.
    pub(crate) fn settle_listed(&mut self, range: Range, entry: Option<(Who, Reason)>) {
        let Suppressing { screen, feeding, unsent, .. } = &mut self.suppressing;
        let (Some(screen), Some((who, reason))) = (screen, entry) else { return self.settle(range) };
        if screen.has(&who) {
            return self.settle(range);
        }
        if feeding.len() >= FEEDING_MAX {
            return self.schedule_or_return(range, self.wall.plus_secs(FEED_AGAIN_SECS));
        }
        let ticket = u32::try_from(feeding.insert((range, reason))).expect("FEEDING_MAX is below");
        let entry = Entry { who, reason, at: self.wall };
        if let Err(feed) = screen.suppression().feed(Feed { core: self.index, ticket, entry }) {
            unsent.push_back(feed);
        }
    }

    /// A report that came back says that the recipient failed: it is put on the list if the same refusal, heard from a host,
    /// would have put it there. A return path does not say which lane its message was in: it counts as bulk mail, which most
    /// mail is whose reports are read here.
    pub(crate) fn learn_from_report(&mut self, recipient: &Mailbox, reply: &Reply) {
        let rules = &self.settings.suppression;
        if rules.learns_from(Lane::Bulk) && rules.is_hard(&as_heard(reply)) {
            self.suppress_returned("", recipient, Reason::HardBounce);
        }
    }

    /// A report that came back says that there is no such recipient, or that it wants no more of a list. Nobody waits for
    /// the entry: the event that stands in the log already is what a crash leaves.
    pub(crate) fn suppress_returned(&mut self, list: &str, recipient: &Mailbox, reason: Reason) {
        let Ok(who) = Who::parse(list, recipient.as_str()) else { return };
        let Suppressing { screen, unsent, .. } = &mut self.suppressing;
        let Some(screen) = screen.as_ref().filter(|screen| !screen.has(&who)) else { return };
        let feed = Feed { core: self.index, ticket: NOBODY, entry: Entry { who, reason, at: self.wall } };
        match screen.suppression().feed(feed) {
            Ok(()) => {}
            Err(feed) if unsent.len() < FEEDING_MAX => unsent.push_back(feed),
            Err(_) => tracing::error!(
                "too many entries wait for the suppression list: one is in the event log alone"
            ),
        }
    }

    pub(crate) fn who(&self, to: &Addressee, range: &Range) -> Option<Box<Who>> {
        let address = format!("{}@{}", to.local_part(), self.domains.get(range.domain).name);
        Who::parse("", &address).ok().map(Box::new)
    }

    /// The entry is durable; or it could not be made, and the recipient fails again later.
    pub(crate) fn on_suppressed(&mut self, ticket: u32, is_done: bool) {
        let Some((range, reason)) = self.suppressing.feeding.try_remove(ticket as usize) else { return };
        if is_done {
            self.counters.bounces_learnt.add(u64::from(reason == Reason::HardBounce));
            return self.settle(range);
        }
        self.schedule_or_return(range, self.wall.plus_secs(FEED_AGAIN_SECS));
    }
}

/// What was taken off the front of an open range.
#[derive(Default)]
pub(crate) struct Picked {
    /// For one transaction.
    pub(crate) names: SmallVec<[Name; 1]>,
    /// Not to be offered now, and why.
    pub(crate) aside: SmallVec<[(Name, Screened); 1]>,
}

/// Up to `most` names that `look` lets go, and those that it does not. No allocation where it lets all go. Who needs SMTPUTF8
/// and who does not are never in one transaction: a host without it would take neither.
pub(crate) fn pick(open: &mut OpenRange, most: usize, look: impl Fn(&OpenRange, Name) -> Screened) -> Picked {
    let mut picked = Picked::default();
    let is_wide = |open: &OpenRange, name: Name| !name.text(open.window()).is_ascii();
    while picked.names.len() < most
        && picked.aside.len() < ASIDE_MAX
        && let Some(name) = open.next_name()
    {
        let first = picked.names.first().copied();
        match look(open, name) {
            Screened::Free if first.is_some_and(|first| is_wide(open, first) != is_wide(open, name)) => {
                picked.aside.push((name, Screened::Free));
            }
            Screened::Free => picked.names.push(name),
            found => picked.aside.push((name, found)),
        }
    }
    picked
}

/// As the delivery log has it.
pub(crate) fn reply_for(listed: Listed) -> Reply {
    Reply::ours(550, (5, 7, 1), &format!("on the suppression list: {listed}"))
}

/// What a report tells, as its host would have said it to us: one that failed for good may come without a code. A status
/// that is not for good stands against any code, as somebody tried until he gave up.
fn as_heard(told: &Reply) -> Reply {
    let is_for_good = told.enhanced.is_none_or(|status| status.0 == 5);
    let mut reply = told.clone();
    reply.code = match (is_for_good, told.code) {
        (false, _) => 450,
        (true, 0) => 550,
        (true, code) => code,
    };
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use message::EnhancedCode;

    #[test]
    fn what_a_report_tells_is_judged_as_what_a_host_says() {
        let config = config::Suppression {
            bounce_patterns: vec!["mailbox disabled".to_owned()],
            ..config::Suppression::default()
        };
        let rules = SuppressionRules::new(&config);
        for (code, status, text, is_hard) in [
            (550, Some((5, 1, 1)), "no such user", true),
            (0, Some((5, 1, 1)), "", true),
            (0, Some((5, 0, 0)), "Mailbox disabled", true),
            (0, None, "Mailbox disabled", true),
            (0, None, "gone", false),
            (0, Some((5, 4, 4)), "no host", false),
            (550, Some((5, 7, 1)), "Mailbox disabled", false),
            (550, Some((4, 4, 7)), "Mailbox disabled", false),
            (450, Some((5, 1, 1)), "no such user", false),
            (450, None, "Mailbox disabled", false),
        ] {
            let status = status.map(|(class, subject, detail)| EnhancedCode(class, subject, detail));
            let told = Reply::new(code, status, text.as_bytes());
            assert_eq!(rules.is_hard(&as_heard(&told)), is_hard, "{told}");
        }
    }
}
