//! A list of recipients as it comes over the wire: CSV or one JSON object a line, in pieces of any cut.
//!
//! [`Reader::feed`] takes octets and fills a [`Batch`]; who feeds it hands full batches on. A record that cannot be
//! understood ends the reading with an error that names it, because whatever follows may be misread as well. An address
//! that is none is noted in the batch, and the reading goes on: real lists have a few.
//!
//! No I/O, no clock. Trusts nothing. Bounds: [`RECORD_MAX`] octets of a record that is not whole yet, [`BATCH_MAX`]
//! records and [`BATCH_LEN_MAX`] octets of a batch; those of [`super::values`] for a recipient's fields.

mod csv;
mod gunzip;
mod ndjson;

pub use gunzip::{Gunzip, GunzipError, fuzz_gunzip};

use super::Recipient;
use super::values::{ValueError, Values};
use csv::Csv;
use message::{Mailbox, Recipients};
use ndjson::Ndjson;

/// Octets of a record.
pub const RECORD_MAX: usize = 64 << 10;

/// Records of a batch.
pub const BATCH_MAX: usize = 10_000;

/// Octets of a batch, about; one record more may be in it.
pub const BATCH_LEN_MAX: usize = 1 << 20;

/// What a list is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// RFC 4180, with a header row. The column `email` has the addresses, or `address` where there is no
    /// `email`; all others are fields.
    Csv,
    /// A JSON object a line: `email`, or `address` where there is no `email`; `name`, the members of
    /// `substitutions` and all others are fields.
    Ndjson,
}

/// Why a record cannot be taken, and where it stands. Both count from 1; a header row is no record.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("record {record} (line {line}): {what}")]
pub struct RecordError {
    pub record: u64,
    pub line: u64,
    pub what: String,
}

/// Some records of a list.
#[derive(Debug, Default)]
pub struct Batch {
    pub recipients: Vec<Recipient>,
    /// Where each of them stands in the list.
    places: Vec<Place>,
    /// Those whose address is none.
    pub invalid: Vec<RecordError>,
    len: usize,
}

impl Batch {
    /// Of both kinds.
    pub fn records(&self) -> usize {
        self.recipients.len() + self.invalid.len()
    }

    pub fn is_full(&self) -> bool {
        self.records() >= BATCH_MAX || self.len >= BATCH_LEN_MAX
    }

    /// Notes one of its recipients as invalid.
    pub fn reject(&mut self, index: usize, what: &str) {
        if let Some(place) = self.places.get(index) {
            self.invalid.push(place.error(what));
        }
    }

    fn push(&mut self, place: Place, recipient: Recipient) {
        self.len += recipient.values.len_bytes() + recipient.mailbox.as_str().len() + size_of::<Recipient>();
        self.recipients.push(recipient);
        self.places.push(place);
    }

    fn push_invalid(&mut self, error: RecordError) {
        self.len += error.what.len() + size_of::<RecordError>();
        self.invalid.push(error);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Reader(Kind);

#[derive(Debug)]
enum Kind {
    Csv(Csv),
    Ndjson(Ndjson),
}

impl Reader {
    pub fn new(format: Format) -> Reader {
        Reader(match format {
            Format::Csv => Kind::Csv(Csv::default()),
            Format::Ndjson => Kind::Ndjson(Ndjson::default()),
        })
    }

    /// Reads on, up to the end of the record that fills the batch. Returns how many octets it took.
    pub fn feed(&mut self, piece: &[u8], batch: &mut Batch) -> Result<usize, RecordError> {
        match &mut self.0 {
            Kind::Csv(csv) => csv.feed(piece, batch),
            Kind::Ndjson(ndjson) => ndjson.feed(piece, batch),
        }
    }

    /// There is no more: a last line may lack its end.
    pub fn finish(&mut self, batch: &mut Batch) -> Result<(), RecordError> {
        match &mut self.0 {
            Kind::Csv(csv) => csv.finish(batch),
            Kind::Ndjson(ndjson) => ndjson.finish(batch),
        }
    }

    /// The fields that every record has, once they are known; lines of JSON have none in common.
    pub fn columns(&self) -> Option<&[Box<str>]> {
        match &self.0 {
            Kind::Csv(csv) => csv.columns(),
            Kind::Ndjson(_) => None,
        }
    }
}

/// Which record is being read, and in which line.
#[derive(Clone, Copy, Debug)]
struct Place {
    record: u64,
    line: u64,
}

impl Default for Place {
    fn default() -> Place {
        Place { record: 1, line: 1 }
    }
}

impl Place {
    fn error(self, what: impl Into<String>) -> RecordError {
        RecordError { record: self.record, line: self.line, what: what.into() }
    }

    fn field_error(self, name: &str, error: ValueError) -> RecordError {
        self.error(format!("{name:?}: {error}"))
    }
}

/// An address as somebody typed it, or why it is none.
pub(super) fn parse_mailbox(text: &str) -> Result<Mailbox, String> {
    let mailbox = Mailbox::parse(text.trim()).map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        format!("{shown:?} is no mail address: {error}")
    })?;
    // An envelope leaves out a domain that grows too long when it is lower-cased.
    let mut kept = Recipients::new();
    kept.push(mailbox.as_ref());
    if kept.is_empty() { Err("the domain is too long".to_owned()) } else { Ok(mailbox) }
}

/// Puts a whole record into the batch.
fn put(batch: &mut Batch, place: Place, address: &str, values: Values) {
    match parse_mailbox(address) {
        Ok(mailbox) => batch.push(place, Recipient { mailbox, values }),
        Err(what) => batch.push_invalid(place.error(format!("email: {what}"))),
    }
}

/// Any octets, cut anywhere: what is read does not depend on the cuts, and the bounds hold.
pub fn fuzz_recipients(bytes: &[u8]) {
    let Some((first, list)) = bytes.split_first() else { return };
    let format = if first & 1 == 0 { Format::Csv } else { Format::Ndjson };
    let whole = read_in_pieces(format, list, list.len().max(1));
    let cut = read_in_pieces(format, list, usize::from(first >> 1) + 1);
    assert_eq!(whole, cut);
}

type Read = (Vec<Recipient>, Vec<RecordError>, Option<RecordError>);

fn read_in_pieces(format: Format, list: &[u8], piece_len: usize) -> Read {
    let (mut reader, mut batch) = (Reader::new(format), Batch::default());
    let (mut recipients, mut invalid) = (Vec::new(), Vec::new());
    let mut failed = None;
    'pieces: for mut piece in list.chunks(piece_len) {
        while !piece.is_empty() {
            match reader.feed(piece, &mut batch) {
                Ok(used) => piece = &piece[used..],
                Err(error) => {
                    failed = Some(error);
                    break 'pieces;
                }
            }
            assert!(piece.is_empty() || batch.is_full());
            assert!(batch.records() <= BATCH_MAX);
            if batch.is_full() {
                let full = std::mem::take(&mut batch);
                recipients.extend(full.recipients);
                invalid.extend(full.invalid);
            }
        }
    }
    if failed.is_none() {
        failed = reader.finish(&mut batch).err();
    }
    recipients.extend(batch.recipients);
    invalid.extend(batch.invalid);
    (recipients, invalid, failed)
}

#[cfg(test)]
mod tests;
