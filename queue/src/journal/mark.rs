//! What a journal says of recipients, a mark at a time, and its octets (`FORMAT.md`).

use crate::range::Attempts;
use message::{MessageId, UnixMillis};

const KIND_SETTLED: u8 = 1;
const KIND_DEFERRED: u8 = 2;
const KIND_STATE_BEGINS: u8 = 3;
const KIND_OWED: u8 = 4;
const KIND_STATE_ENDS: u8 = 5;
const KIND_SPENT: u8 = 6;

/// Recipients of a message, by index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    pub id: MessageId,
    pub first: u32,
    pub count: u32,
}

/// The due time of recipients that an operator holds back: never, until they are released.
pub const HELD: UnixMillis = UnixMillis(u64::MAX);

/// Recipients that wait for another attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Waiting {
    pub span: Span,
    pub name_offset: u32,
    pub attempts: Attempts,
    /// 0: at once; [`HELD`]: not until they are released.
    pub due: UnixMillis,
}

/// What a core has sent of a limited allowance in one hour: of a source's warm-up at a provider.
///
/// The total, not a step: said again, or read twice, it is the same. Of several the greatest counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spent {
    /// Whose allowance: a hash that the caller chooses.
    pub key: u64,
    /// The core that sent it, by its own partition.
    pub partition: u8,
    /// Hours since 1970.
    pub hour: u32,
    pub total: u32,
}

/// One mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// Delivered, or failed with its bounce durable.
    Settled(Span),
    Deferred(Waiting),
    /// What follows, up to `StateEnds`, is everything that is owed of this partition's messages up to this id;
    /// marks that this partition made before are void.
    StateBegins {
        covers: MessageId,
    },
    Owed(Waiting),
    StateEnds,
    Spent(Spent),
    /// Not on disk: said by [`read`] where frames are missing. A state around it is not whole.
    Gap,
}

pub(super) fn encode(mark: &Mark, out: &mut Vec<u8>) {
    let span = |kind: u8, span: &Span, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(&span.id.0.to_le_bytes());
        out.extend_from_slice(&span.first.to_le_bytes());
        out.extend_from_slice(&span.count.to_le_bytes());
    };
    match mark {
        Mark::Settled(settled) => span(KIND_SETTLED, settled, out),
        Mark::Deferred(waiting) | Mark::Owed(waiting) => {
            let kind = if matches!(mark, Mark::Owed(_)) { KIND_OWED } else { KIND_DEFERRED };
            span(kind, &waiting.span, out);
            out.extend_from_slice(&waiting.name_offset.to_le_bytes());
            out.extend_from_slice(&waiting.attempts.to_bits().to_le_bytes());
            out.extend_from_slice(&waiting.due.0.to_le_bytes());
        }
        Mark::StateBegins { covers } => {
            out.push(KIND_STATE_BEGINS);
            out.extend_from_slice(&covers.0.to_le_bytes());
        }
        Mark::StateEnds => out.push(KIND_STATE_ENDS),
        Mark::Spent(Spent { key, partition, hour, total }) => {
            out.push(KIND_SPENT);
            out.extend_from_slice(&key.to_le_bytes());
            out.push(*partition);
            out.extend_from_slice(&hour.to_le_bytes());
            out.extend_from_slice(&total.to_le_bytes());
        }
        Mark::Gap => debug_assert!(false, "a gap is found, not written"),
    }
}

/// Takes one mark off the front of `bytes`.
pub(super) fn decode(bytes: &mut &[u8]) -> Option<Mark> {
    let kind = *bytes.first()?;
    let len = match kind {
        KIND_SETTLED => 17,
        KIND_DEFERRED | KIND_OWED => 31,
        KIND_STATE_BEGINS => 9,
        KIND_STATE_ENDS => 1,
        KIND_SPENT => 18,
        _ => return None,
    };
    let (mark, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    let word = |at: usize| u32::from_le_bytes([mark[at], mark[at + 1], mark[at + 2], mark[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let span = || Span { id: MessageId(long(1)), first: word(9), count: word(13) };
    let waiting = || Waiting {
        span: span(),
        name_offset: word(17),
        attempts: Attempts::from_bits(u16::from_le_bytes([mark[21], mark[22]])),
        due: UnixMillis(long(23)),
    };
    Some(match kind {
        KIND_SETTLED => Mark::Settled(span()),
        KIND_DEFERRED => Mark::Deferred(waiting()),
        KIND_OWED => Mark::Owed(waiting()),
        KIND_STATE_BEGINS => Mark::StateBegins { covers: MessageId(long(1)) },
        KIND_SPENT => {
            Mark::Spent(Spent { key: long(1), partition: mark[9], hour: word(10), total: word(14) })
        }
        _ => Mark::StateEnds,
    })
}
