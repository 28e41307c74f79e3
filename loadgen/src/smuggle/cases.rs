//! What is sent: every end of data that is none, and every content that a server may be tempted to mend.

use serde::Serialize;

use super::SmuggleConfig;
use crate::content::{TOKEN_HEADER, digest, run_name, write_token};

/// The token of a forged message is of this run: no run of ours, whose names are hexadecimal.
pub(crate) const FORGED_RUN: &str = "forged";

/// How a content goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    Data,
    /// DATA, with every octet around the critical place in a segment of its own.
    Segments,
    Bdat,
    /// Two chunks, parted in the middle of the critical place.
    Chunks,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub by: By,
    pub number: u64,
    /// What should arrive.
    pub content: Vec<u8>,
    /// Where in `wire` a segment or chunk ends.
    pub(crate) cuts: Vec<usize>,
    /// The same as it goes: by DATA with its dots doubled and its end.
    pub(crate) wire: Vec<u8>,
}

impl Case {
    pub(crate) fn digest(&self) -> u64 {
        digest(&self.content)
    }
}

/// Not one of these ends DATA. They go over the wire as they stand; where a dot begins a line in them, a server
/// takes it away (RFC 5321 §4.5.2) and what is left is content.
const FALSE_ENDS: &[(&str, &[u8])] = &[
    ("LF.LF", b"\n.\n"),
    ("LF.CRLF", b"\n.\r\n"),
    ("CRLF.LF", b"\r\n.\n"),
    ("CR.CR", b"\r.\r"),
    ("CR.CRLF", b"\r.\r\n"),
    ("CR.LF", b"\r.\n"),
    ("LF.CR", b"\n.\r"),
    ("CRLF.CR", b"\r\n.\r"),
    ("CRLF.CRCRLF", b"\r\n.\r\r\n"),
    ("CRLF.space CRLF", b"\r\n. \r\n"),
    ("CRLF.NUL CRLF", b"\r\n.\0\r\n"),
    ("CRLF NUL.CRLF", b"\r\n\0.\r\n"),
    ("CRLF.CR NUL LF", b"\r\n.\r\0\n"),
    ("CR NUL LF.CRLF", b"\r\0\n.\r\n"),
    ("LF NUL.LF", b"\n\0.\n"),
    ("LF.NUL LF", b"\n.\0\n"),
    ("CR NUL.CR", b"\r\0.\r"),
    ("LFCR.LFCR", b"\n\r.\n\r"),
    ("NEL.NEL", b"\xc2\x85.\xc2\x85"),
];

/// True ends of DATA, and near ones: in a chunk these are content, which whoever sends it on by DATA must double.
const CHUNKED_ENDS: &[(&str, &[u8])] =
    &[("CRLF.CRLF", b"\r\n.\r\n"), ("CRLF..CRLF", b"\r\n..\r\n"), ("CRLF.CRLF.CRLF", b"\r\n.\r\n.\r\n")];

const MIB: usize = 1 << 20;

/// Every case of a run, in the order in which they are sent.
pub fn cases(config: &SmuggleConfig) -> Vec<Case> {
    let mut cases = Cases { config, done: Vec::new() };
    for (name, end) in FALSE_ENDS {
        [By::Data, By::Segments, By::Bdat, By::Chunks]
            .into_iter()
            .for_each(|by| cases.add_end(name, by, end));
    }
    for (name, end) in CHUNKED_ENDS {
        [By::Bdat, By::Chunks].into_iter().for_each(|by| cases.add_end(name, by, end));
    }
    for (name, below) in whole_lines() {
        [By::Data, By::Bdat].into_iter().for_each(|by| cases.add_content(name, by, &below));
    }
    for (name, below) in torn_lines() {
        cases.add_content(name, By::Bdat, &below);
    }
    let wanted = |case: &Case| config.only.as_ref().is_none_or(|text| case.name.contains(text));
    cases.done.into_iter().filter(wanted).collect()
}

/// What follows the line of the token: contents that end with CRLF, as DATA's must.
fn whole_lines() -> Vec<(&'static str, Vec<u8>)> {
    let every: Vec<u8> = (0..=255).collect();
    let [line, mib] = [998, MIB].map(|len| vec![b'x'; len]);
    vec![
        ("nothing", b"".to_vec()),
        ("no body", b"Subject: a\r\n".to_vec()),
        ("empty body", b"Subject: a\r\n\r\n".to_vec()),
        (
            "a body line before any header ends",
            b"Subject: a\r\nno header at all\r\nTo: b\r\n\r\nc\r\n".to_vec(),
        ),
        ("a header line without a name", b": a\r\n\r\nb\r\n".to_vec()),
        ("a continuation first", b" a\r\n\r\nb\r\n".to_vec()),
        ("From at the start of a line", b"Subject: a\r\n\r\nFrom b\r\n>From c\r\n".to_vec()),
        ("every octet", [b"Subject: a\r\n\r\n", &every[..], b"\r\n"].concat()),
        ("8-bit header", b"Subject: \xe4\xf6\xfc \xff\xfe\r\n\r\na\r\n".to_vec()),
        ("8-bit body", b"Subject: a\r\n\r\n\x80\xff\xc3\xa4\r\n".to_vec()),
        ("NUL in the header", b"Subject: a\0b\r\n\r\nc\r\n".to_vec()),
        ("NUL in the body", b"Subject: a\r\n\r\nb\0c\0\0\r\n".to_vec()),
        ("bare LF", b"Subject: a\n\nb\nc\r\n".to_vec()),
        ("bare CR", b"Subject: a\r\n\r\nb\rc\r\r\n".to_vec()),
        ("dots", b"Subject: a\r\n\r\n..\r\n...\r\n. \r\n.b\r\n".to_vec()),
        ("a line of 1,000 octets", [b"Subject: a\r\n\r\n", &line[..], b"\r\n"].concat()),
        ("a line of 1 MiB", [b"Subject: a\r\n\r\n", &mib[..], b"\r\n"].concat()),
        ("a header line of 1 MiB", [b"Subject: ", &mib[..], b"\r\n\r\na\r\n"].concat()),
    ]
}

/// Contents without a CRLF at their end, which only a chunk can carry.
fn torn_lines() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("no final newline", b"Subject: a\r\n\r\nb".to_vec()),
        ("CR at the end", b"Subject: a\r\n\r\nb\r".to_vec()),
        ("LF at the end", b"Subject: a\r\n\r\nb\n".to_vec()),
        ("a dot at the end", b"Subject: a\r\n\r\nb\r\n.".to_vec()),
        ("a dot and CR at the end", b"Subject: a\r\n\r\nb\r\n.\r".to_vec()),
        ("NUL at the end", b"Subject: a\r\n\r\nb\r\n\0".to_vec()),
        ("1 MiB without a newline", [b"Subject: a\r\n\r\n", &vec![b'x'; MIB][..]].concat()),
    ]
}

struct Cases<'a> {
    config: &'a SmuggleConfig,
    done: Vec<Case>,
}

impl Cases<'_> {
    /// A false end, and behind it a transaction that nobody has asked for.
    fn add_end(&mut self, name: &str, by: By, end: &[u8]) {
        let mut content = self.start();
        content.extend_from_slice(b"Subject: a\r\n\r\nb");
        let at = content.len();
        content.extend_from_slice(end);
        let forged = self.forged();
        content.extend_from_slice(&forged);
        self.add(name, by, content, Some(at..at + end.len()));
    }

    fn add_content(&mut self, name: &str, by: By, below: &[u8]) {
        let mut content = self.start();
        content.extend_from_slice(below);
        self.add(name, by, content, None);
    }

    fn number(&self) -> u64 {
        self.done.len() as u64
    }

    /// The line of the token, by which the sink's record is compared.
    fn start(&self) -> Vec<u8> {
        token_line(&run_name(self.config.seed), self.number())
    }

    fn forged(&self) -> Vec<u8> {
        let mut forged = b"MAIL FROM:<forged@loadgen.test>\r\nRCPT TO:<forged.".to_vec();
        self.config.recipients().write_to(&mut forged, self.number());
        forged.extend_from_slice(b">\r\nDATA\r\n");
        forged.extend_from_slice(&token_line(FORGED_RUN, self.number()));
        forged.extend_from_slice(b"\r\nsmuggled\r\n");
        forged
    }

    /// By DATA the octets of `seen` go as they stand; by BDAT they are the content.
    fn add(&mut self, name: &str, by: By, seen: Vec<u8>, critical: Option<std::ops::Range<usize>>) {
        let number = self.number();
        let (content, wire) = match (by, &critical) {
            (By::Bdat | By::Chunks, _) => (seen.clone(), seen),
            (_, Some(_)) => (undoubled(&seen), [&seen[..], b".\r\n"].concat()),
            (_, None) => {
                let wire = [&doubled(&seen)[..], b".\r\n"].concat();
                (seen, wire)
            }
        };
        let cuts = match (by, critical) {
            (By::Segments, Some(critical)) => (critical.start..=critical.end).collect(),
            (By::Chunks, Some(critical)) => vec![critical.start + critical.len().div_ceil(2)],
            _ => Vec::new(),
        };
        self.done.push(Case { name: name.to_owned(), by, number, content, cuts, wire });
    }
}

fn token_line(run: &str, number: u64) -> Vec<u8> {
    let mut line = TOKEN_HEADER.to_vec();
    line.push(b' ');
    write_token(&mut line, run, number);
    line.extend_from_slice(b"\r\n");
    line
}

/// RFC 5321 §4.5.2, as who sends it. Ours never begins with a dot.
fn doubled(content: &[u8]) -> Vec<u8> {
    replace(content, b"\r\n.", b"\r\n..")
}

/// The same as who takes it, whose line began with a dot and went on.
fn undoubled(wire: &[u8]) -> Vec<u8> {
    replace(wire, b"\r\n.", b"\r\n")
}

fn replace(octets: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let (mut out, mut from) = (Vec::with_capacity(octets.len()), 0);
    for at in memchr::memmem::find_iter(octets, what) {
        out.extend_from_slice(&octets[from..at]);
        out.extend_from_slice(with);
        from = at + what.len();
    }
    out.extend_from_slice(&octets[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Introduction;

    fn all() -> Vec<Case> {
        let introduction = Introduction::to(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        cases(&SmuggleConfig::to(introduction))
    }

    #[test]
    fn nothing_by_data_ends_before_its_end() {
        for case in all().iter().filter(|case| matches!(case.by, By::Data | By::Segments)) {
            let end = memchr::memmem::find(&case.wire, b"\r\n.\r\n").unwrap();
            assert_eq!(end + 5, case.wire.len(), "{}", case.name);
        }
    }

    #[test]
    fn cases_are_numbered_and_named_apart() {
        let all = all();
        for (index, case) in all.iter().enumerate() {
            assert_eq!(case.number, index as u64);
            assert!(all[..index].iter().all(|other| (&other.name, other.by) != (&case.name, case.by)));
            assert!(case.cuts.iter().all(|cut| *cut > 0 && *cut < case.wire.len()));
        }
    }

    #[test]
    fn a_false_end_is_cut_at_each_of_its_octets() {
        let cases = all();
        let segments = cases.iter().find(|case| case.by == By::Segments).unwrap();
        assert_eq!((segments.name.as_str(), segments.cuts.len()), ("LF.LF", 4));
        assert_eq!(&segments.wire[segments.cuts[0]..segments.cuts[3]], b"\n.\n");
    }

    #[test]
    fn dots_are_doubled_and_undoubled() {
        assert_eq!(doubled(b"a\r\n.\r\n..b\r\n"), b"a\r\n..\r\n...b\r\n");
        assert_eq!(undoubled(b"a\r\n.\nb\r\n. \r\n"), b"a\r\n\nb\r\n \r\n");
    }
}
