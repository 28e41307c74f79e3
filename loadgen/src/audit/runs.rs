//! What was sent, one byte per recipient, and the marks of what arrived.
//!
//! A recipient's byte holds two flags (owed, allowed) and how many copies came. Bound: one byte per recipient and
//! one [`Message`] per message, of numbers up to `RECIPIENTS_MAX` and `MESSAGES_MAX`: a damaged file cannot ask
//! for more.

use std::path::Path;

use super::{AuditError, each_line};
use crate::recipient::Recipients;
use crate::records::{Fate, Received, Sent, SentHeader, token_parts};

const OWED: u8 = 0x80;
const ALLOWED: u8 = 0x40;
const COPIES: u8 = 0x3f;
const RECIPIENTS_MAX: u64 = 1 << 32;
const MESSAGES_MAX: u64 = 1 << 28;

#[derive(Clone, Copy)]
struct Message {
    digest: u64,
    sent_ns: u64,
    /// None until its record is read.
    fate: Option<Fate>,
}

const UNRECORDED: Message = Message { digest: 0, sent_ns: 0, fate: None };

struct Run {
    name: String,
    recipients: Recipients,
    recipients_per_message: u64,
    messages: Vec<Message>,
    marks: Vec<u8>,
}

/// Every run that was sent.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    scratch: Vec<u8>,
}

/// A delivery that a run knows of.
pub(super) struct Found {
    pub(super) fate: Fate,
    pub(super) sent_ns: u64,
    pub(super) is_first: bool,
    pub(super) is_altered: bool,
}

impl Runs {
    pub(super) fn read(&mut self, path: &Path) -> Result<(), AuditError> {
        let (mut run, mut twice, mut count) = (None, None, 0);
        let read = each_line(path, |line| {
            count += 1;
            match &mut run {
                None => run = Some(Run::new(SentHeader::parse(line)?)),
                Some(run) => {
                    let (sent, refused) = Sent::parse(line)?;
                    if run.is_recorded(sent.number) {
                        twice.get_or_insert((count, sent.number));
                    }
                    run.add(&sent)?;
                    refused.each(|first, last| run.excuse(first, last))?;
                }
            }
            Some(())
        });
        read?;
        if let Some((line, message)) = twice {
            return Err(AuditError::Twice { path: path.to_owned(), line, message });
        }
        self.runs.push(run.ok_or_else(|| AuditError::Syntax { path: path.to_owned(), line: 1 })?);
        Ok(())
    }

    /// Marks a delivery; `None` if nothing that was sent allows it.
    pub(super) fn deliver(&mut self, received: &Received<'_>) -> Option<Found> {
        let token = token_parts(received.token);
        let run = match (token, self.runs.as_mut_slice()) {
            (Some((name, _)), runs) => runs.iter_mut().find(|run| run.name.as_bytes() == name)?,
            (None, [only]) => only, // the token was lost on the way: altered, but whose it was is certain
            (None, _) => return None,
        };
        run.deliver(received, token.map(|(_, number)| number), &mut self.scratch)
    }

    pub(super) fn owed_and_lost(&self) -> (u64, u64) {
        let marks = self.runs.iter().flat_map(|run| &run.marks).filter(|mark| **mark & OWED != 0);
        marks.fold((0, 0), |(owed, lost), mark| (owed + 1, lost + u64::from(mark & COPIES == 0)))
    }
}

impl Run {
    fn new(SentHeader { run, recipients }: SentHeader) -> Run {
        Run { name: run, recipients, recipients_per_message: 0, messages: Vec::new(), marks: Vec::new() }
    }

    fn is_recorded(&self, number: u64) -> bool {
        index(number).and_then(|at| self.messages.get(at)).is_some_and(|message| message.fate.is_some())
    }

    fn add(&mut self, sent: &Sent) -> Option<()> {
        let end = sent.first_recipient.checked_add(sent.recipient_count)?;
        let first_is_right = sent.number.checked_mul(sent.recipient_count) == Some(sent.first_recipient);
        let is_uniform = self.messages.is_empty() || self.recipients_per_message == sent.recipient_count;
        if end > RECIPIENTS_MAX || sent.number >= MESSAGES_MAX || !first_is_right || !is_uniform {
            return None;
        }
        self.recipients_per_message = sent.recipient_count;
        let (at, first, end) = (index(sent.number)?, index(sent.first_recipient)?, index(end)?);
        self.messages.resize(self.messages.len().max(at + 1), UNRECORDED);
        self.marks.resize(self.marks.len().max(end), 0);
        self.messages[at] = Message { digest: sent.digest, sent_ns: sent.time_ns, fate: Some(sent.fate) };
        let mark = match sent.fate {
            Fate::Accepted => OWED | ALLOWED,
            Fate::Unknown => ALLOWED,
            Fate::Refused => 0,
        };
        self.marks[first..end].fill(mark);
        Some(())
    }

    /// Refused at RCPT: not owed, and not allowed either.
    fn excuse(&mut self, first: u64, last: u64) {
        let range = index(first).zip(index(last)).and_then(|(first, last)| self.marks.get_mut(first..=last));
        if let Some(marks) = range {
            marks.fill(0);
        }
    }

    fn deliver(
        &mut self,
        received: &Received<'_>,
        claimed: Option<u64>,
        scratch: &mut Vec<u8>,
    ) -> Option<Found> {
        let recipient = self.recipients.number_of(received.forward_path, scratch)?;
        let number = recipient.checked_div(self.recipients_per_message)?;
        let (mark, message) = (self.marks.get_mut(index(recipient)?)?, self.messages.get(index(number)?)?);
        let fate = message.fate.filter(|_| *mark & ALLOWED != 0)?;
        let is_first = *mark & COPIES == 0;
        if *mark & COPIES < COPIES {
            *mark += 1;
        }
        let is_altered = received.digest != message.digest || claimed != Some(number);
        Some(Found { fate, sent_ns: message.sent_ns, is_first, is_altered })
    }
}

fn index(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}
