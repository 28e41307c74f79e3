//! Content of a message, by DATA or in chunks, until it is a submission or refused.
//!
//! Whatever is refused is still read to its end, so that content never becomes commands.

use super::commands::check_gate;
use super::{OpenChunk, Reading, Session};
use crate::command::Chunk;
use crate::data::Progress;
use crate::limits::Gate;
use crate::output::{Stage, Submission, TransactionKey};
use crate::replies::{self, Sentence};
use crate::transaction::Transaction;
use message::{ContentFacts, Envelope};
use std::sync::Arc;

impl Session {
    pub(super) fn read_data(&mut self, bytes: &[u8]) -> usize {
        let (Reading::Data(reader), Some(transaction)) = (&mut self.reading, &mut self.transaction) else {
            unreachable!("a transaction is open while its content comes");
        };
        match reader.read(bytes, &mut transaction.content) {
            Progress::More => {
                self.note_content(bytes.len());
                bytes.len()
            }
            Progress::End(used) => {
                self.end_content();
                used
            }
        }
    }

    pub(super) fn read_chunk(&mut self, bytes: &[u8]) -> usize {
        let Reading::Chunk(chunk) = &mut self.reading else {
            unreachable!("only read() calls, and it looked");
        };
        let used = usize::try_from(chunk.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        chunk.left -= used as u64;
        let whole = chunk.left == 0;
        if let (None, Some(transaction)) = (chunk.refusal, &mut self.transaction) {
            transaction.content.append(&bytes[..used]);
        }
        self.note_content(used);
        if whole {
            self.end_chunk();
        }
        used
    }

    /// Every `data_block_len` octets win the client more time, wherever they are cut.
    fn note_content(&mut self, len: usize) {
        let (len, block_len) = (len as u64, self.policy.timeouts.data_block_len.max(1));
        if len < self.block_left {
            self.block_left -= len;
        } else {
            self.block_left = block_len - (len - self.block_left) % block_len;
            self.progressed = true;
        }
    }

    pub(super) fn begin_blocks(&mut self) {
        self.block_left = self.policy.timeouts.data_block_len.max(1);
    }

    /// A refused chunk ends its transaction at once: the chunks that follow meet none and are refused as RFC 3030
    /// §2 wants, and the MAIL of a pipelined next message finds the way free.
    pub(super) fn on_bdat(&mut self, gate: Gate, chunk: Chunk) {
        let refusal = self.begin_chunk(gate, chunk).err();
        if refusal.is_some() {
            self.transaction = None;
            if self.is_idling() {
                return self.close_with(replies::TOO_MANY_IDLE);
            }
        }
        let Chunk { len, last } = chunk;
        self.reading = Reading::Chunk(OpenChunk { len, left: len, last, refusal });
        if len == 0 {
            self.end_chunk();
        }
    }

    fn begin_chunk(&mut self, gate: Gate, chunk: Chunk) -> Result<(), Sentence> {
        if !self.policy.offer_chunking {
            return Err(replies::NOT_OFFERED);
        }
        if !self.is_in_chunks() {
            self.begin_blocks();
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(replies::MAIL_FIRST);
        };
        if !transaction.chunks_begun {
            transaction.check_recipients()?;
            check_gate(gate)?;
            transaction.chunks_begun = true;
        }
        if !transaction.content.has_room(chunk.len) {
            return Err(replies::TOO_BIG);
        }
        transaction.content.reserve(chunk.len);
        Ok(())
    }

    fn end_chunk(&mut self) {
        let Reading::Chunk(chunk) = std::mem::replace(&mut self.reading, Reading::Commands) else {
            unreachable!("only the reader of a chunk calls");
        };
        match chunk {
            OpenChunk { refusal: Some(sentence), .. } => {
                self.progressed = true;
                self.say(sentence);
            }
            OpenChunk { last: true, .. } => self.end_content(),
            OpenChunk { len, .. } => replies::chunk_taken(len, self.replies.tail()),
        }
    }

    /// The message is whole: it goes to the queue, or never anywhere.
    fn end_content(&mut self) {
        self.reading = Reading::Commands;
        self.progressed = true;
        self.stage = Stage::Content;
        let Some(transaction) = self.transaction.take() else {
            unreachable!("a transaction is open while its content comes");
        };
        if transaction.content.is_over() {
            self.say(replies::TOO_BIG);
        } else if message::header::hop_count(transaction.content.as_slice()) >= self.policy.limits.hops_max {
            self.say(replies::TOO_MANY_HOPS);
        } else {
            self.submit(*transaction);
        }
    }

    fn submit(&mut self, mut transaction: Transaction) {
        let is_lowered = transaction.settle_lane(self.client.rights.may_relay, self.policy.bulk_recipients);
        let key = TransactionKey(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        (self.errors_count, self.idle_count) = (0, 0);
        self.replies.hold(key, is_lowered);
        let content = transaction.content.into_vec();
        self.stores.push_back(Box::new(Submission {
            transaction: key,
            with: self.with(&transaction.envelope),
            envelope: transaction.envelope,
            facts: ContentFacts::of(&content),
            content,
            helo: self.helo_name().to_owned(),
            client: Arc::clone(&self.client),
            encrypted: self.encrypted,
        }));
    }

    /// The client's word, not that of a front server that says whom it comes for.
    fn helo_name(&self) -> &str {
        let named = self.named.as_ref().and_then(|named| named.helo.as_deref());
        named.or(self.helo.as_ref().map(|helo| &*helo.name)).unwrap_or_default()
    }

    /// RFC 3848, RFC 6531 §4.3.
    fn with(&self, envelope: &Envelope) -> &'static str {
        let own = self.helo.as_ref().is_some_and(|helo| helo.extended);
        let is_extended = self.named.as_ref().and_then(|named| named.is_extended).unwrap_or(own);
        match (envelope.smtputf8, self.client.is_encrypted, self.client.login.is_some()) {
            (true, false, false) => "UTF8SMTP",
            (true, true, false) => "UTF8SMTPS",
            (true, false, true) => "UTF8SMTPA",
            (true, true, true) => "UTF8SMTPSA",
            _ if !is_extended => "SMTP",
            (false, false, false) => "ESMTP",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, true, true) => "ESMTPSA",
        }
    }
}
