//! The list as text: `address,list,reason,at` with a line for each entry (RFC 4180), read and written.
//!
//! What others export is read as well: columns in any order under the names of a first line, others beside
//! them, a bare address a line, times as others write them. Under names, free text (`reason`) or a time that is
//! not understood costs nobody his entry: the default counts. A word for what somebody is (`type`, `status`) must be
//! understood, unless there is text as well; one that says he is to be written to, or that nothing is for good, makes
//! no entry whatever the text says.
//!
//! A line that says nothing legal is counted and said, and the rest goes on. Bounds: [`LINE_MAX`] octets a
//! line, [`WRONG_MAX`] wrong lines in words.

use super::entry::{Entry, Reason, Who};
use message::{EnhancedCode, UnixMillis};

/// The first line.
pub const HEADER: &str = "address,list,reason,at\n";

/// Octets of a line.
const LINE_MAX: usize = 4096;

/// Wrong lines that are said; the others are counted.
const WRONG_MAX: usize = 20;

/// Names of columns as [`plain`] has them: ours and those of Amazon SES, listmonk, Mailgun, Postmark and
/// SendGrid. The first that is there counts: beside `email`, an `address` is where somebody lives.
const ADDRESSES: [&str; 4] = ["email", "emailaddress", "address", "recipient"];
const REASONS: [&str; 3] = ["reason", "suppressionreason", "error"];
const TIMES: [&str; 8] =
    ["at", "created", "createdat", "date", "time", "timestamp", "lastupdatetime", "bouncedat"];

/// What words in a text tell; the first that is found counts. `None`: no reason, whatever else it says.
const WORDS: [(&str, Option<Reason>); 19] = [
    ("soft bounce", None),
    ("softbounce", None),
    ("transient", None),
    ("temporar", None),
    ("complain", Some(Reason::Complaint)),
    ("spam report", Some(Reason::Complaint)),
    ("spam notification", Some(Reason::Complaint)),
    ("reported as spam", Some(Reason::Complaint)),
    ("marked as spam", Some(Reason::Complaint)),
    ("unsubscri", Some(Reason::Unsubscribe)),
    ("opted out", Some(Reason::Unsubscribe)),
    ("bounce", Some(Reason::HardBounce)),
    ("user unknown", Some(Reason::HardBounce)),
    ("unknown user", Some(Reason::HardBounce)),
    ("no such user", Some(Reason::HardBounce)),
    ("no such mailbox", Some(Reason::HardBounce)),
    ("does not exist", Some(Reason::HardBounce)),
    ("invalid email", Some(Reason::HardBounce)),
    ("manual", Some(Reason::Manual)),
];

/// What others call somebody who is to be written to.
const WELCOME: [&str; 4] = ["enabled", "active", "subscribed", "confirmed"];

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
    /// Free text.
    reason: Option<usize>,
    /// `type` and `status`.
    words: [Option<usize>; 2],
    /// A reply's code.
    code: Option<usize>,
    at: Option<usize>,
    /// A first line says what is where.
    is_named: bool,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns {
            address: 0,
            list: Some(1),
            reason: None,
            words: [None, Some(2)],
            code: None,
            at: Some(3),
            is_named: false,
        }
    }
}

impl Columns {
    /// `None`: that is no line of names.
    fn of(names: &[String]) -> Option<Columns> {
        let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
        let place =
            |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
        Some(Columns {
            address: place(&ADDRESSES)?,
            list: place(&["list", "listid"]),
            reason: place(&REASONS),
            words: [place(&["type"]), place(&["status"])],
            code: place(&["code"]),
            at: place(&TIMES),
            is_named: true,
        })
    }
}

/// `Email Address`, `email_address` and `EmailAddress` are the same name.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
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
        let columns = &self.columns;
        let address = cell_at(cells, Some(columns.address)).ok_or_else(|| "no address".to_owned())?;
        let who = Who::parse(cell_at(cells, columns.list).unwrap_or(&self.defaults.list), address)?;
        let reason = self.reason_of(cells)?;
        let at = match cell_at(cells, columns.at).map(|text| (text, time_of(text))) {
            Some((_, Some(at))) => at,
            Some((text, None)) if !columns.is_named => {
                return Err(format!("{text:?} is no time of RFC 3339"));
            }
            _ => self.defaults.at,
        };
        Ok(Entry { who, reason, at })
    }

    /// What the first column tells that tells anything.
    fn reason_of(&self, cells: &[String]) -> Result<Reason, String> {
        let columns = &self.columns;
        let (text, code) = (cell_at(cells, columns.reason), cell_at(cells, columns.code));
        let words = columns.words.map(|place| cell_at(cells, place));
        if let Some(word) = words.into_iter().flatten().find(|word| is_welcome(word)) {
            return Err(no_reason(word));
        }
        if let Some(reason) = [text, words[0], words[1], code].into_iter().flatten().find_map(told_by) {
            return Ok(reason);
        }
        match words.into_iter().flatten().next() {
            Some(word) if text.is_none() || is_no_reason(word) => Err(no_reason(word)),
            _ => Ok(self.defaults.reason),
        }
    }
}

fn cell_at(cells: &[String], place: Option<usize>) -> Option<&str> {
    cells.get(place?).map(|cell| cell.trim()).filter(|cell| !cell.is_empty())
}

fn is_welcome(word: &str) -> bool {
    WELCOME.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// True if the word says that nobody is to be put on a list for it.
fn is_no_reason(word: &str) -> bool {
    meaning(&spaced(word)) == Some(None)
}

fn spaced(text: &str) -> String {
    text.to_ascii_lowercase().replace(['_', '-'], " ")
}

/// Of the first of [`WORDS`] that is found in a text that [`spaced`] made.
fn meaning(text: &str) -> Option<Option<Reason>> {
    WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, reason)| *reason)
}

fn no_reason(word: &str) -> String {
    if is_welcome(word) {
        return format!("{word:?} says that he is to be written to: that makes no entry");
    }
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    format!("{word:?} is no reason; there are {}", known.join(", "))
}

/// A reason by any of its names, or what a host's reply or somebody's words clearly tell.
fn told_by(text: &str) -> Option<Reason> {
    if let Some(reason) = Reason::parse(text) {
        return Some(reason);
    }
    let text = spaced(text);
    if matches!(text.as_str(), "blocklisted" | "blacklisted") {
        return Some(Reason::Manual);
    }
    match class_of(&text) {
        Some(5) => Some(Reason::HardBounce),
        Some(_) => None,
        None => meaning(&text).flatten(),
    }
}

/// The class of a status code that stands in a text (RFC 3463), or of the reply code that it begins with.
fn class_of(text: &str) -> Option<u8> {
    let is_between = |letter: char| !letter.is_ascii_alphanumeric() && letter != '.';
    let words = || text.split(is_between).map(|word| word.trim_matches('.')).filter(|word| !word.is_empty());
    let status = |word: &str| EnhancedCode::parse_prefix(word.as_bytes()).map(|(code, _)| code.0);
    let reply = |word: &str| match word.as_bytes() {
        [class @ (b'4' | b'5'), b'0'..=b'9', b'0'..=b'9'] => Some(class - b'0'),
        _ => None,
    };
    words().find_map(status).or_else(|| words().next().and_then(reply))
}

/// Seconds since 1970, a date, a time of RFC 3339 or RFC 5322. In UTC if it names no zone.
fn time_of(text: &str) -> Option<UnixMillis> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000).map(UnixMillis);
    }
    UnixMillis::parse_rfc3339(text)
        .or_else(|| UnixMillis::parse_rfc3339(&joined(text)?))
        .or_else(|| mail_time(text))
}

/// RFC 3339 out of what Go writes, and databases with less: `2023-05-01 10:20:30.123 +0000 UTC`.
fn joined(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (date, time) = (words.next()?, words.next().unwrap_or("00:00:00"));
    let zone = words.next().filter(|zone| !matches!(*zone, "UTC" | "GMT")).unwrap_or("Z");
    Some(format!("{date}T{time}{zone}"))
}

fn mail_time(text: &str) -> Option<UnixMillis> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(time.as_millisecond()).ok().map(UnixMillis)
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
    fn exports_of_others_are_read() {
        let cases = [
            (
                "uuid,email,name,attributes,status,created_at,updated_at\n\
                 0-1,ann@a.test,Ann,\"{\"\"city\"\":\"\"x, y\"\"}\",blocklisted,\
                 2023-05-01 10:20:30.123456 +0000 UTC,2023-06-01 10:20:30 +0000 UTC\n",
                "manual,2023-05-01T10:20:30.123Z",
            ),
            (
                "status,reason,email,created\n5.1.1,\"550 5.1.1 unknown, sorry\",ann@a.test,1577934245\n",
                "hard-bounce,2020-01-02T03:04:05Z",
            ),
            ("status,reason,email,created\n5.1.1,Gone,ann@a.test,\n", "hard-bounce,1970-01-01T00:00:05Z"),
            (
                "status,reason,email,created\n4.2.2,Full,ann@a.test,2009-06-10 12:40:30\n",
                "manual,2009-06-10T12:40:30Z",
            ),
            ("reason,email\nOur own whim,ann@a.test\n", "manual,1970-01-01T00:00:05Z"),
            ("email,created\nann@a.test,1000\n", "manual,1970-01-01T00:16:40Z"),
            (
                "address,code,error,created_at\n\
                 ann@a.test,550,Gone,\"Mon, 06 May 2024 18:11:58 UTC\"\n",
                "hard-bounce,2024-05-06T18:11:58Z",
            ),
            (
                "address,tags,created_at\nann@a.test,*,\"Mon, 06 May 2024 18:11:58 UTC\"\n",
                "manual,2024-05-06T18:11:58Z",
            ),
            (
                "EmailAddress,Reason,LastUpdateTime\n\
                 ann@a.test,COMPLAINT,2020-04-10T21:03:05.000000+00:00\n",
                "complaint,2020-04-10T21:03:05Z",
            ),
            (
                "EmailAddress,SuppressionReason,Origin,CreatedAt\n\
                 ann@a.test,SpamComplaint,Recipient,2019-12-17T08:58:33-05:00\n",
                "complaint,2019-12-17T13:58:33Z",
            ),
            (
                "name,address,email,type,date\nAnn,12 Main St,ann@a.test,HardBounce,last spring\n",
                "hard-bounce,1970-01-01T00:00:05Z",
            ),
        ];
        for (text, end) in cases {
            let (lines, said) = import(text);
            assert_eq!((lines, said), (vec![format!("ann@a.test,own,{end}")], vec![]), "{text:?}");
        }
    }

    #[test]
    fn a_status_that_is_no_reason_makes_no_entry() {
        let text = "email,status,reason\nann@a.test,Enabled,\nbob@a.test,disabled,\n\
                    cy@a.test,unsubscribed,\ndee@a.test,disabled,spam complaint\n\
                    eve@a.test,enabled,VIP\nfay@a.test,SoftBounce,mailbox full\n";
        let (lines, said) = import(text);
        let expected = [
            "cy@a.test,own,unsubscribe,1970-01-01T00:00:05Z",
            "dee@a.test,own,complaint,1970-01-01T00:00:05Z",
        ];
        assert_eq!(lines, expected);
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].starts_with("line 2: \"Enabled\" says that he is to be written to"), "{said:?}");
        assert!(said[1].starts_with("line 3: \"disabled\" is no reason"), "{said:?}");
    }

    #[test]
    fn words_and_codes_tell_a_reason_where_they_are_clear() {
        let cases = [
            ("blocklisted", Some(Reason::Manual)),
            ("Blacklisted", Some(Reason::Manual)),
            ("ManualSuppression", Some(Reason::Manual)),
            ("host [127.0.0.1] said: 550 5.1.1 illegal user", Some(Reason::HardBounce)),
            ("550-5.7.1 rejected as spam", Some(Reason::HardBounce)),
            ("554", Some(Reason::HardBounce)),
            ("Hard bounce.", Some(Reason::HardBounce)),
            ("INVALID_EMAIL", Some(Reason::HardBounce)),
            ("452 4.2.2 mailbox full, bounced", None),
            ("Soft_bounce", None),
            ("spam complaint", Some(Reason::Complaint)),
            ("Spam Reporting Address", Some(Reason::Complaint)),
            ("It was unsubscribed by hand", Some(Reason::Unsubscribe)),
            ("blocked, see 5.1.1.1", None),
            ("", None),
        ];
        for (text, reason) in cases {
            assert_eq!(told_by(text), reason, "{text:?}");
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
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a-c@.,\"\n]|email|list|reason|status|5.1.1){0,60}") {
            fuzz_suppression_csv(&bytes);
            fuzz_suppression_csv(text.as_bytes());
        }
    }
}
