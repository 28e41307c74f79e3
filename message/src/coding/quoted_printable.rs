//! Quoted-printable (RFC 2045 §6.7), read and written.
//!
//! The writer keeps lines within 76 octets and begins none with a hyphen or a dot: what it writes can neither be
//! taken for a boundary (RFC 2046 §5.1.1) nor needs its dots doubled. Some readers find a boundary within a line too: no
//! two hyphens come from a value. Line ends of any kind become CR LF. Text that was coded before ([`Coded`]) is copied
//! whole; only where it meets other text a soft break may come between.
//! No allocation beyond the buffer's growth.

/// Octets in a line before the `=` of a soft break.
const LINE_MAX: usize = 75;

/// `=C3`
pub(crate) fn hex(octet: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]
}

/// Text that was coded before, from the beginning of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Coded {
    /// Octets of its first line, without the line's end.
    first: u8,
    /// Octets of its last line, if it has more than one.
    last: Option<u8>,
    /// The space or tab that it ends in, and that is not in it: what follows decides how it is written.
    blank: Option<u8>,
}

pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the line begins in `out`.
    start: usize,
    /// A space or tab, which must be coded if the line ends behind it.
    blank: Option<u8>,
    /// What is put may be anybody's.
    guarded: bool,
}

impl<'a> Writer<'a> {
    /// `out` is at the beginning of a line.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { start: out.len(), out, blank: None, guarded: true }
    }

    /// Text, with line ends of any kind.
    pub(crate) fn put(&mut self, text: &[u8]) {
        for (at, octet) in text.iter().enumerate() {
            match octet {
                b'\n' if at > 0 && text[at - 1] == b'\r' => {}
                b'\r' | b'\n' => self.end_line(),
                b' ' | b'\t' => {
                    self.put_blank();
                    self.blank = Some(*octet);
                }
                octet => {
                    self.put_blank();
                    self.put_octet(*octet);
                }
            }
        }
    }

    /// Text that [`code`] has coded.
    pub(crate) fn put_coded(&mut self, text: &[u8], coded: Coded) {
        match text.first() {
            Some(b'\r') => self.end(),
            None if coded.blank.is_none() => return,
            _ => self.put_blank(),
        }
        if self.column() > 0 && self.column() + usize::from(coded.first) > LINE_MAX {
            self.break_line();
        }
        self.out.extend_from_slice(text);
        if let Some(last) = coded.last {
            self.start = self.out.len() - usize::from(last);
        }
        self.blank = coded.blank;
    }

    /// Nothing more comes, or nothing that is known: what the line ends in must be safe.
    pub(crate) fn end(&mut self) {
        if let Some(blank) = self.blank.take() {
            self.put_hex(blank);
        }
    }

    fn column(&self) -> usize {
        self.out.len() - self.start
    }

    fn end_line(&mut self) {
        self.end();
        self.out.extend_from_slice(b"\r\n");
        self.start = self.out.len();
    }

    fn break_line(&mut self) {
        self.out.extend_from_slice(b"=\r\n");
        self.start = self.out.len();
    }

    fn put_blank(&mut self) {
        if let Some(blank) = self.blank.take() {
            self.make_room(1);
            self.out.push(blank);
        }
    }

    fn put_octet(&mut self, octet: u8) {
        if !matches!(octet, b'!'..=b'~') || octet == b'=' {
            return self.put_hex(octet);
        }
        self.make_room(1);
        let begins = self.column() == 0 && matches!(octet, b'-' | b'.');
        let doubles = self.guarded && octet == b'-' && self.out.last() == Some(&b'-');
        if begins || doubles {
            return self.put_hex(octet);
        }
        self.out.push(octet);
    }

    fn put_hex(&mut self, octet: u8) {
        self.make_room(3);
        self.out.extend_from_slice(&hex(octet));
    }

    fn make_room(&mut self, len: usize) {
        if self.column() + len > LINE_MAX {
            self.break_line();
        }
    }
}

/// Appends `text`, coded so that it can be copied to any place of a line.
pub(crate) fn code(text: &[u8], out: &mut Vec<u8>) -> Coded {
    let from = out.len();
    let mut writer = Writer { guarded: false, ..Writer::new(out) };
    writer.put(text);
    let blank = writer.blank;
    let coded = &out[from..];
    let octets = |len: usize| u8::try_from(len).expect("no line passes 76 octets");
    let first = memchr::memchr(b'\r', coded).unwrap_or(coded.len());
    let last = memchr::memrchr(b'\n', coded).map(|lf| octets(coded.len() - lf - 1));
    Coded { first: octets(first), last, blank }
}

/// What `text` says. White space at a line's end is none (§6.7 (3)); an `=` before no code stands for itself.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let end = if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
        let (body, end) = line.split_at(line.len() - end);
        let blanks = body.iter().rev().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
        let body = if end.is_empty() { body } else { &body[..body.len() - blanks] };
        match body.strip_suffix(b"=") {
            Some(soft) => decode_line(soft, &mut plain),
            None => {
                decode_line(body, &mut plain);
                plain.extend_from_slice(end);
            }
        }
    }
    plain
}

fn decode_line(line: &[u8], plain: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(at) = memchr::memchr(b'=', rest) {
        plain.extend_from_slice(&rest[..at]);
        let digit = |place: usize| rest.get(at + place).and_then(|octet| char::from(*octet).to_digit(16));
        let coded = digit(1).zip(digit(2)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        plain.push(coded.unwrap_or(b'='));
        rest = &rest[at + if coded.is_some() { 3 } else { 1 }..];
    }
    plain.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coded(text: &str) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.put(text.as_bytes());
        writer.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_end_safely_and_begin_safely() {
        assert_eq!(coded("a b \r\n--x\n.\r.a-b\t"), "a b=20\r\n=2D-x\r\n=2E\r\n=2Ea-b=09");
        assert_eq!(coded("a----b"), "a-=2D-=2Db");
        assert_eq!(coded("é="), "=C3=A9=3D");
        assert_eq!(coded(&"a".repeat(80)), format!("{}=\r\naaaaa", "a".repeat(75)));
        // The hyphen comes to stand at a line's beginning.
        assert_eq!(coded(&format!("{}-b", "a".repeat(75))), format!("{}=\r\n=2Db", "a".repeat(75)));
    }

    #[test]
    fn what_real_mail_has_is_read() {
        let read = |text: &str| String::from_utf8(decode(text.as_bytes())).unwrap();
        assert_eq!(read("a=20\r\nb  \r\nc=\r\nd= \ne=7b=7B=zz="), "a \r\nb\r\ncde{{=zz");
        assert_eq!(read("=C3=A9"), "é");
        assert_eq!(read("a "), "a ");
    }

    #[test]
    fn nothing_between_a_blank_and_a_line_end_hides_it() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.put(b"a ");
        for text in ["", " ", "", "\nb"] {
            let mut before = Vec::new();
            let coded = code(text.as_bytes(), &mut before);
            writer.put_coded(&before, coded);
        }
        writer.end();
        assert_eq!(out, b"a =20\r\nb");
    }

    proptest! {
        #[test]
        fn pieces_meet_anywhere_and_read_the_same(
            pieces in proptest::collection::vec(("([ -.=\\n\\PC]{0,120}|[ \n]{0,2})", any::<bool>()), 0..8)
        ) {
            let (mut out, mut plain, mut before) = (Vec::new(), String::new(), Vec::new());
            let mut writer = Writer::new(&mut out);
            for (text, is_coded) in &pieces {
                plain.push_str(text);
                if *is_coded {
                    before.clear();
                    let coded = code(text.as_bytes(), &mut before);
                    writer.put_coded(&before, coded);
                } else {
                    writer.put(text.as_bytes());
                }
            }
            writer.end();
            prop_assert_eq!(decode(&out), plain.replace('\n', "\r\n").into_bytes());
            prop_assert!(out.is_ascii());
            let text = String::from_utf8(out).unwrap();
            for line in text.split("\r\n") {
                prop_assert!(line.len() <= 76 && !line.starts_with(['-', '.']) && !line.ends_with([' ', '\t']), "{}", line);
            }
        }

        #[test]
        fn reading_never_panics(text: Vec<u8>) {
            decode(&text);
        }
    }
}
