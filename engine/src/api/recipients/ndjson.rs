//! One JSON object a line. Empty lines are passed over.

use super::super::values::{Scalar, Values};
use super::{Batch, Place, RECORD_MAX, RecordError, put};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ndjson {
    /// Of the line under way, what earlier pieces had.
    line: Vec<u8>,
    place: Place,
}

impl Ndjson {
    pub(super) fn feed(&mut self, piece: &[u8], batch: &mut Batch) -> Result<usize, RecordError> {
        let mut at = 0;
        while at < piece.len() && !batch.is_full() {
            let rest = &piece[at..];
            let len = rest.iter().position(|octet| *octet == b'\n');
            let part = &rest[..len.unwrap_or(rest.len())];
            if self.line.len() + part.len() > RECORD_MAX {
                return Err(self.place.error("a line has at most 64 KiB: does each record end in a LF?"));
            }
            at += part.len();
            if len.is_none() {
                self.line.extend_from_slice(part);
                break;
            }
            at += 1;
            self.end_line(part, batch)?;
        }
        Ok(at)
    }

    pub(super) fn finish(&mut self, batch: &mut Batch) -> Result<(), RecordError> {
        self.end_line(&[], batch)
    }

    fn end_line(&mut self, part: &[u8], batch: &mut Batch) -> Result<(), RecordError> {
        let mut kept = std::mem::take(&mut self.line);
        if kept.is_empty() {
            self.take_line(part, batch)?;
        } else {
            kept.extend_from_slice(part);
            self.take_line(&kept, batch)?;
            kept.clear();
        }
        (self.line, self.place.line) = (kept, self.place.line + 1);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), RecordError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let row: Row = serde_json::from_slice(line).map_err(|error| {
            self.place
                .error(format!("{error}; a line is a JSON object such as {{\"email\":\"ann@example.net\"}}"))
        })?;
        put(batch, self.place, &row.mailbox, row.values);
        self.place.record += 1;
        Ok(())
    }
}

/// A line's object. Members of `substitutions` go before those beside it; `address` is the mailbox if `email`
/// is not there, else a field.
struct Row {
    mailbox: String,
    values: Values,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let (mut email, mut address, mut beside, mut values) = (None, None, Vec::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "email" if email.is_some() => return Err(de::Error::duplicate_field("email")),
                "email" => email = Some(map.next_value::<String>()?),
                "address" if address.is_some() => return Err(de::Error::duplicate_field("address")),
                "address" => address = map.next_value::<Scalar>()?.0,
                "substitutions" if values.is_some() => {
                    return Err(de::Error::duplicate_field("substitutions"));
                }
                "substitutions" => values = Some(map.next_value::<Values>()?),
                _ => beside.extend(map.next_value::<Scalar>()?.0.map(|value| (name, value))),
            }
        }
        // Only now is it known whether `email` is one of the members.
        let (mailbox, address) = match (email, address) {
            (Some(email), address) => (email, address),
            (None, Some(address)) => (address, None),
            (None, None) => return Err(de::Error::missing_field("email")),
        };
        beside.extend(address.map(|value| ("address".to_owned(), value)));
        let mut values = values.unwrap_or_default();
        let within: Vec<bool> = beside.iter().map(|(name, _)| values.get(name).is_some()).collect();
        for ((name, value), _) in beside.iter().zip(within).filter(|(_, is_within)| !is_within) {
            let wrap = |error| de::Error::custom(format_args!("{name:?}: {error}"));
            values.push(name, value).map_err(wrap)?;
        }
        Ok(Row { mailbox, values })
    }
}
