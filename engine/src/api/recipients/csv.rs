//! CSV as RFC 4180 has it: commas, quotes doubled within quotes, lines that end in CRLF or LF, a header row.
//!
//! Strict, because a file that is misread writes to the wrong people: a quote within an unquoted field, text behind a
//! closing quote, a row with more or fewer fields than the header are errors. Empty lines are passed over, and so is the
//! mark that some programs put before UTF-8.

use super::super::values::{FIELDS_MAX, Values, check_name};
use super::{Batch, Place, RECORD_MAX, RecordError, put};

/// Columns: a recipient's fields, and his address.
const COLUMNS_MAX: usize = FIELDS_MAX + 1;

const UTF8_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// Names that the column of addresses may have, in any case. The first that is there counts: beside `email`,
/// an `address` is where somebody lives.
const ADDRESS_COLUMNS: [&str; 2] = ["email", "address"];

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Nothing of the field has come.
    #[default]
    Begin,
    Plain,
    Quoted,
    /// A quote within quotes: the end, or one half of a quote.
    Quote,
    /// A CR behind a field: LF must follow.
    Return,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Csv {
    state: State,
    /// Octets of the mark that came so far; past its length once it is known whether it came.
    marked: usize,
    header: Option<Header>,
    /// Of the record under way, without quotes and commas.
    text: Vec<u8>,
    /// Where each of its whole fields ends.
    ends: Vec<usize>,
    place: Place,
    /// Line ends within the record's quotes.
    lines_within: u64,
}

#[derive(Debug)]
struct Header {
    /// Without that of the addresses, which a letter has as `email` alone.
    columns: Vec<Box<str>>,
    /// Its place among all.
    address: usize,
}

impl Csv {
    pub(super) fn columns(&self) -> Option<&[Box<str>]> {
        self.header.as_ref().map(|header| &header.columns[..])
    }

    pub(super) fn feed(&mut self, piece: &[u8], batch: &mut Batch) -> Result<usize, RecordError> {
        let mut at = self.skip_mark(piece);
        while at < piece.len() && !batch.is_full() {
            at += self.step(&piece[at..], batch)?;
            if self.text.len() > RECORD_MAX {
                return Err(self.place.error("a record has at most 64 KiB: is a quote left open?"));
            }
        }
        Ok(at)
    }

    pub(super) fn finish(&mut self, batch: &mut Batch) -> Result<(), RecordError> {
        self.end_mark();
        if self.state == State::Quoted {
            return Err(self.place.error("the list ends within quotes: a quote is left open"));
        }
        if self.state != State::Begin || !self.ends.is_empty() {
            self.end_record(batch)?;
        }
        match self.header {
            Some(_) => Ok(()),
            None => Err(self.place.error("there is no header row: the first line names the columns")),
        }
    }

    fn skip_mark(&mut self, piece: &[u8]) -> usize {
        let mut at = 0;
        while self.marked < UTF8_MARK.len() && at < piece.len() {
            if piece[at] != UTF8_MARK[self.marked] {
                self.end_mark();
                break;
            }
            (at, self.marked) = (at + 1, self.marked + 1);
        }
        at
    }

    /// What came so far was no mark but text.
    fn end_mark(&mut self) {
        if (1..UTF8_MARK.len()).contains(&self.marked) {
            self.text.extend_from_slice(&UTF8_MARK[..self.marked]);
            self.state = State::Plain;
        }
        self.marked = UTF8_MARK.len();
    }

    /// One special octet, or all octets before the next. Returns how many.
    fn step(&mut self, rest: &[u8], batch: &mut Batch) -> Result<usize, RecordError> {
        let octet = rest[0];
        match (self.state, octet) {
            (State::Quoted, b'"') => self.state = State::Quote,
            (State::Quoted, _) => return Ok(self.take_quoted(rest)),
            (State::Quote, b'"') => {
                self.text.push(b'"');
                self.state = State::Quoted;
            }
            (State::Return, b'\n') => self.end_record(batch)?,
            (State::Return, _) => return Err(self.place.error("a CR without LF: lines end in CRLF or LF")),
            (_, b',') => self.end_field()?,
            (_, b'\n') => self.end_record(batch)?,
            (_, b'\r') => self.state = State::Return,
            (State::Begin, b'"') => self.state = State::Quoted,
            (State::Plain, b'"') => {
                return Err(self.place.error("a quote within a field: quote the field and double the quote"));
            }
            (State::Quote, _) => {
                return Err(self.place.error("text behind a closing quote: double quotes within a field"));
            }
            (State::Begin | State::Plain, _) => return Ok(self.take_plain(rest)),
        }
        Ok(1)
    }

    fn take_plain(&mut self, rest: &[u8]) -> usize {
        self.state = State::Plain;
        self.take(rest, |octet| matches!(octet, b',' | b'"' | b'\r' | b'\n'))
    }

    fn take_quoted(&mut self, rest: &[u8]) -> usize {
        let len = self.take(rest, |octet| octet == b'"');
        self.lines_within += rest[..len].iter().filter(|octet| **octet == b'\n').count() as u64;
        len
    }

    /// No more than what shows that the record is too long.
    fn take(&mut self, rest: &[u8], is_special: impl Fn(u8) -> bool) -> usize {
        let rest = &rest[..rest.len().min(RECORD_MAX + 1)];
        let len = rest.iter().position(|octet| is_special(*octet)).unwrap_or(rest.len());
        self.text.extend_from_slice(&rest[..len]);
        len
    }

    fn end_field(&mut self) -> Result<(), RecordError> {
        if self.ends.len() == COLUMNS_MAX {
            return Err(self.place.error("more than 65 fields"));
        }
        self.ends.push(self.text.len());
        self.state = State::Begin;
        Ok(())
    }

    fn end_record(&mut self, batch: &mut Batch) -> Result<(), RecordError> {
        let is_empty = self.ends.is_empty() && self.text.is_empty();
        if !is_empty {
            self.end_field()?;
            self.take_record(batch)?;
        }
        self.text.clear();
        self.ends.clear();
        self.state = State::Begin;
        self.place.line += 1 + std::mem::take(&mut self.lines_within);
        Ok(())
    }

    fn take_record(&mut self, batch: &mut Batch) -> Result<(), RecordError> {
        let place = self.place;
        let not_utf8 = |_| place.error("it is not UTF-8: save the list as UTF-8");
        let text = std::str::from_utf8(&self.text).map_err(not_utf8)?;
        let Some(header) = &self.header else {
            self.header = Some(Header::parse(place, fields(text, &self.ends))?);
            return Ok(());
        };
        header.read(place, text, &self.ends, batch)?;
        self.place.record += 1;
        Ok(())
    }
}

/// The record's fields. Ends may not fall between the octets of a character: commas and quotes are ASCII.
fn fields<'a>(text: &'a str, ends: &'a [usize]) -> impl Iterator<Item = &'a str> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| text.get(start..*end).unwrap_or_default())
}

impl Header {
    fn parse<'a>(place: Place, names: impl Iterator<Item = &'a str>) -> Result<Header, RecordError> {
        let mut columns: Vec<Box<str>> = names.map(|name| name.trim().into()).collect();
        let place_of = |own: &str| columns.iter().position(|name| name.eq_ignore_ascii_case(own));
        let Some(address) = ADDRESS_COLUMNS.iter().find_map(|own| place_of(own)) else {
            return Err(place.error(
                "the header row names no column email or address: are the columns separated by commas?",
            ));
        };
        for (index, name) in columns.iter().enumerate() {
            check_name(name).map_err(|error| place.field_error(name, error))?;
            if columns[..index].contains(name) {
                return Err(place.error(format!("the header row names {name:?} twice")));
            }
        }
        columns.remove(address);
        Ok(Header { columns, address })
    }

    fn read(&self, place: Place, text: &str, ends: &[usize], batch: &mut Batch) -> Result<(), RecordError> {
        let (found, columns) = (ends.len(), self.columns.len() + 1);
        if found != columns {
            return Err(place.error(format!(
                "{found} fields, and the header row has {columns}: quote fields that have commas in them"
            )));
        }
        let mut values = Values::with_capacity(text.len() + ends.len() * 16);
        let address = fields(text, ends).nth(self.address).unwrap_or_default();
        let others = fields(text, ends).enumerate().filter(|(index, _)| *index != self.address);
        for (name, (_, value)) in self.columns.iter().zip(others) {
            // An empty cell says nothing: the letter's default counts.
            if !value.is_empty() {
                values.push(name, value).map_err(|error| place.field_error(name, error))?;
            }
        }
        put(batch, place, address, values);
        Ok(())
    }
}
