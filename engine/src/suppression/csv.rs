//! The list as text: `address,list,reason,at` with a line for each entry (RFC 4180), read and written.
//!
//! What others export is read as well: columns in any order under the names of a first line, others beside them, a bare
//! address a line, `at` as a time of RFC 3339, a date, or seconds since 1970. A line that says nothing legal is counted and said, and the rest
//! goes on. Bounds: [`LINE_MAX`] octets a line, [`WRONG_MAX`] wrong lines in words.

use super::entry::{Entry, Reason, Who};
use message::UnixMillis;

/// The first line.
pub const HEADER: &str = "address,list,reason,at\n";

/// Octets of a line.
const LINE_MAX: usize = 4096;

/// Wrong lines that are said; the others are counted.
const WRONG_MAX: usize = 20;

/// What an entry is where its line does not say.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub list: Box<str>,
    pub reason: Reason,
    pub at: UnixMillis,
}

/// Where in a line to look.
#[derive(Clone, Debug)]
struct Columns {
    address: usize,
    list: Option<usize>,
    reason: Option<usize>,
    at: Option<usize>,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { address: 0, list: Some(1), reason: Some(2), at: Some(3) }
    }
}

impl Columns {
    /// `None`: that is no line of names.
    fn of(names: &[String]) -> Option<Columns> {
        let place = |known: &[&str]| {
            names.iter().position(|name| known.iter().any(|known| name.trim().eq_ignore_ascii_case(known)))
        };
        Some(Columns {
            address: place(&["address", "email", "email address", "recipient", "e-mail"])?,
            list: place(&["list", "list_id", "list-id"]),
            reason: place(&["reason", "type", "status"]),
            at: place(&["at", "created", "created_at", "date", "time", "timestamp"]),
        })
    }
}

/// Lines as they come, piece by piece, into entries.
#[derive(Clone, Debug)]
pub struct Import {
    defaults: Defaults,
    columns: Columns,
    /// The line under way.
    line: Vec<u8>,
    number: u64,
    /// Entries so far.
    pub entries: u64,
    pub wrong: u64,
    /// The first of them, in words.
    pub said: Vec<String>,
}

impl Import {
    pub fn new(defaults: Defaults) -> Import {
        Import {
            defaults,
            columns: Columns::default(),
            line: Vec::new(),
            number: 0,
            entries: 0,
            wrong: 0,
            said: Vec::new(),
        }
    }

    /// Takes up a piece of any length; entries of lines that end in it go to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Entry>) {
        for piece in bytes.split_inclusive(|octet| *octet == b'\n') {
            // What is too long is told by its first octets.
            let room = (LINE_MAX + 1).saturating_sub(self.line.len()).min(piece.len());
            self.line.extend_from_slice(&piece[..room]);
            if piece.ends_with(b"\n") {
                out.extend(self.end_line());
            }
        }
    }

    /// The last line may have no end.
    pub fn finish(&mut self, out: &mut Vec<Entry>) {
        if !self.line.is_empty() {
            out.extend(self.end_line());
        }
    }

    fn end_line(&mut self) -> Option<Entry> {
        self.number += 1;
        let line = std::mem::take(&mut self.line);
        let read = self.read_line(&line);
        self.line = line;
        self.line.clear();
        match read {
            Ok(entry) => {
                self.entries += u64::from(entry.is_some());
                entry
            }
            Err(why) => {
                self.wrong += 1;
                if self.said.len() < WRONG_MAX {
                    self.said.push(format!("line {}: {why}", self.number));
                }
                None
            }
        }
    }

    /// `None`: an empty line, or the names of the columns.
    fn read_line(&mut self, line: &[u8]) -> Result<Option<Entry>, String> {
        if line.len() > LINE_MAX {
            return Err(format!("longer than {LINE_MAX} octets"));
        }
        let text = std::str::from_utf8(line).map_err(|_| "no UTF-8".to_owned())?;
        let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            return Ok(None);
        }
        let cells = cells(text).ok_or_else(|| "a quote without its other end".to_owned())?;
        if self.number == 1
            && let Some(columns) = Columns::of(&cells)
        {
            self.columns = columns;
            return Ok(None);
        }
        self.entry_of(&cells).map(Some)
    }

    fn entry_of(&self, cells: &[String]) -> Result<Entry, String> {
        let cell = |place: Option<usize>| {
            place.and_then(|place| cells.get(place)).map(|cell| cell.trim()).filter(|cell| !cell.is_empty())
        };
        let address = cell(Some(self.columns.address)).ok_or_else(|| "no address".to_owned())?;
        let who = Who::parse(cell(self.columns.list).unwrap_or(&self.defaults.list), address)?;
        let reason = match cell(self.columns.reason) {
            Some(text) => Reason::parse(text).ok_or_else(|| {
                let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
                format!("{text:?} is no reason; there are {}", known.join(", "))
            })?,
            None => self.defaults.reason,
        };
        let at = match cell(self.columns.at) {
            Some(text) => time_of(text).ok_or_else(|| format!("{text:?} is no time of RFC 3339"))?,
            None => self.defaults.at,
        };
        Ok(Entry { who, reason, at })
    }
}

fn time_of(text: &str) -> Option<UnixMillis> {
    let seconds = || Some(UnixMillis(text.parse::<u64>().ok()?.checked_mul(1000)?));
    let is_date = text.len() == 10 && !text.bytes().all(|octet| octet.is_ascii_digit());
    let whole = if is_date { format!("{text}T00:00:00Z") } else { text.to_owned() };
    seconds().or_else(|| UnixMillis::parse_rfc3339(&whole))
}

/// The cells of one line. `None`: a quoted one has no end.
fn cells(line: &str) -> Option<Vec<String>> {
    let (mut cells, mut rest) = (Vec::new(), line);
    loop {
        let (cell, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => {
                let len = rest.find(',').unwrap_or(rest.len());
                (rest[..len].to_owned(), &rest[len..])
            }
        };
        cells.push(cell);
        match tail.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some(cells),
        }
    }
}

/// What stands in quotes, and what follows up to the comma is part of it as it stands.
fn quoted_cell(text: &str) -> Option<(String, &str)> {
    let (mut cell, mut rest) = (String::new(), text);
    loop {
        let end = rest.find('"')?;
        cell.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => {
                let len = rest.find(',').unwrap_or(rest.len());
                cell.push_str(&rest[..len]);
                return Some((cell, &rest[len..]));
            }
        }
    }
}

/// One line, with its end.
pub fn push_line(entry: &Entry, out: &mut Vec<u8>) {
    let cells = [entry.who.address.as_str(), &entry.who.list, entry.reason.name(), &seconds_text(entry.at)];
    for (place, cell) in cells.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push_cell(cell, out);
    }
    out.push(b'\n');
}

fn push_cell(cell: &str, out: &mut Vec<u8>) {
    if !cell.contains([',', '"']) && cell.trim() == cell {
        return out.extend_from_slice(cell.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// Whole seconds, as they are kept: `2026-11-22T23:50:57Z`.
pub fn seconds_text(at: UnixMillis) -> String {
    at.rfc3339().replace(".000Z", "Z")
}

/// For the fuzzer: any octets as lines.
pub fn fuzz_suppression_csv(bytes: &[u8]) {
    let defaults = || Defaults { list: "".into(), reason: Reason::Import, at: UnixMillis(0) };
    let (mut import, mut entries) = (Import::new(defaults()), Vec::new());
    import.feed(bytes, &mut entries);
    import.finish(&mut entries);
    assert_eq!(import.entries, entries.len() as u64);
    let mut pieces = (Import::new(defaults()), Vec::new());
    bytes.chunks(7).for_each(|piece| pieces.0.feed(piece, &mut pieces.1));
    pieces.0.finish(&mut pieces.1);
    assert_eq!(pieces.1, entries, "the same however it was cut");
    for entry in &mut entries {
        entry.at = UnixMillis(entry.at.seconds().min(u64::from(u32::MAX)) * 1000);
    }
    let mut text = HEADER.as_bytes().to_vec();
    entries.iter().for_each(|entry| push_line(entry, &mut text));
    let (mut again, mut read) = (Import::new(defaults()), Vec::new());
    again.feed(&text, &mut read);
    assert_eq!((read, again.wrong), (entries, 0), "what is written is read back");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn import(text: &str) -> (Vec<String>, Vec<String>) {
        let defaults = Defaults { list: "own".into(), reason: Reason::Manual, at: UnixMillis(5_000) };
        let (mut import, mut entries) = (Import::new(defaults), Vec::new());
        import.feed(text.as_bytes(), &mut entries);
        import.finish(&mut entries);
        let line = |entry: &Entry| {
            let mut line = Vec::new();
            push_line(entry, &mut line);
            String::from_utf8(line).unwrap().trim_end().to_owned()
        };
        (entries.iter().map(line).collect(), import.said)
    }

    #[test]
    fn own_form_is_read_and_written() {
        let text = "address,list,reason,at\nann@a.test,news.a.test,complaint,2026-11-22T23:50:57Z\n\
                    \"\"\"a,b\"\"@a.test\",,hard-bounce,1970-01-01T00:00:00Z\n";
        let (lines, said) = import(text);
        assert!(said.is_empty(), "{said:?}");
        let expected = [
            "ann@a.test,news.a.test,complaint,2026-11-22T23:50:57Z",
            "\"\"\"a,b\"\"@a.test\",own,hard-bounce,1970-01-01T00:00:00Z",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn others_forms_are_read() {
        let cases = [
            ("ann@a.test", "ann@a.test,own,manual,1970-01-01T00:00:05Z"),
            (
                "\u{feff}Status,Email,Created\r\nBounced,ann@a.test,1000\r\n",
                "ann@a.test,own,hard-bounce,1970-01-01T00:16:40Z",
            ),
            ("email,created_at\nann@a.test,2020-01-02", "ann@a.test,own,manual,2020-01-02T00:00:00Z"),
            ("\n\nann@a.test,x,\n", "ann@a.test,x,manual,1970-01-01T00:00:05Z"),
        ];
        for (text, line) in cases {
            let (lines, said) = import(text);
            assert_eq!((lines, said), (vec![line.to_owned()], vec![]), "{text:?}");
        }
    }

    #[test]
    fn wrong_lines_are_said_and_the_rest_goes_on() {
        let long = "x".repeat(2 * LINE_MAX);
        let text =
            format!("ann\nbob@a.test\n\"cy@a.test\ndee@a.test,,whim\n{long}\neve@a.test,,,soon\nfay@a.test");
        let (lines, said) = import(&text);
        assert_eq!(lines.len(), 2);
        let starts = [
            "line 1: \"ann\": ",
            "line 3: a quote",
            "line 4: \"whim\" is no reason",
            "line 5: longer",
            "line 6: \"soon\"",
        ];
        assert_eq!(said.len(), starts.len());
        for (said, start) in said.iter().zip(starts) {
            assert!(said.starts_with(start), "{said}");
        }
        let many = "x\n".repeat(50);
        assert_eq!(import(&many).1.len(), WRONG_MAX);
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a-c@.,\"\n]|email|list){0,60}") {
            fuzz_suppression_csv(&bytes);
            fuzz_suppression_csv(text.as_bytes());
        }
    }
}
