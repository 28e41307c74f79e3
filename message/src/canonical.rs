//! A message as DKIM hashes it (RFC 6376 §3.4).
//!
//! Gives out slices of what it is shown, in order, so that nothing is copied: as long ones as can be, since each is a
//! call of the hash.
//!
//! RFC 6376 wants lines that end in CRLF. To the relaxed forms an LF alone ends a line too: hosts on the way mend it to
//! CRLF, and other implementations read it so. To the simple form, and everywhere to a CR alone, it is an octet like others.

/// As it is, without the empty lines at its end; an empty body is one empty line (§3.4.3).
pub fn simple_body(body: &[u8], mut out: impl FnMut(&[u8])) {
    let mut end = body;
    while let Some(shorter) = end.strip_suffix(b"\r\n") {
        end = shorter;
    }
    out(end);
    out(b"\r\n");
}

/// White space at line ends goes, other runs of it become one space, lines that are empty then go at the end. An empty
/// body stays empty (§3.4.4).
pub fn relaxed_body(body: &[u8], mut out: impl FnMut(&[u8])) {
    let mut relaxed = RelaxedBody::default();
    relaxed.update(body, &mut out);
    relaxed.finish(out);
}

/// As [`relaxed_body`], of a body that comes in pieces, cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct RelaxedBody {
    /// Line ends that were not given out: those at the body's end shrink to one.
    held_lines: u64,
    /// White space: nothing at the end of a line.
    held_space: bool,
    /// A CR that ended a piece: half a line end, or an octet.
    held_cr: bool,
    has_content: bool,
}

impl RelaxedBody {
    pub fn update(&mut self, piece: &[u8], mut out: impl FnMut(&[u8])) {
        let mut rest = piece;
        if self.held_cr && piece.first().is_some_and(|first| *first != b'\n') {
            self.content(b"\r", &mut out);
        }
        self.held_cr &= piece.is_empty();
        while !rest.is_empty() {
            let used = match rest {
                [b' ' | b'\t', ..] => self.hold_space(),
                [b'\n', ..] => self.hold_line(1),
                [b'\r', b'\n', ..] => self.hold_line(2),
                [b'\r'] => self.hold_cr(),
                _ => self.content(&rest[..unchanged_len(rest)], &mut out),
            };
            rest = &rest[used..];
        }
    }

    pub fn finish(mut self, mut out: impl FnMut(&[u8])) {
        if self.held_cr {
            self.content(b"\r", &mut out);
        }
        if self.has_content {
            out(b"\r\n");
        }
    }

    fn hold_space(&mut self) -> usize {
        self.held_space = true;
        1
    }

    fn hold_line(&mut self, len: usize) -> usize {
        self.held_space = false;
        self.held_lines += 1;
        len
    }

    fn hold_cr(&mut self) -> usize {
        self.held_cr = true;
        1
    }

    /// What is held was not at the end of a line, nor of the body.
    fn content(&mut self, piece: &[u8], out: &mut impl FnMut(&[u8])) -> usize {
        (0..std::mem::take(&mut self.held_lines)).for_each(|_| out(b"\r\n"));
        if std::mem::take(&mut self.held_space) {
            out(b" ");
        }
        self.has_content = true;
        out(piece);
        piece.len()
    }
}

/// A field without its line end (§3.4.2): the name in lower case, the value on one line, runs of white space as one
/// space, none around the colon and at the end.
pub fn relaxed_field(name: &[u8], value: &[u8], mut out: impl FnMut(&[u8])) {
    let mut lower = [0; 32];
    for part in name.chunks(lower.len()) {
        let lower = &mut lower[..part.len()];
        lower.copy_from_slice(part);
        lower.make_ascii_lowercase();
        out(lower);
    }
    out(b":");
    let mut rest = &value[white_len(value)..];
    while !rest.is_empty() {
        let (words, tail) = rest.split_at(unchanged_len(rest));
        out(words);
        let white = white_len(tail);
        rest = &tail[white..];
        if white > 0 && !rest.is_empty() {
            out(b" ");
        }
    }
}

/// Octets from the first, which is no white space, up to where the relaxed forms change something.
fn unchanged_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    loop {
        at += control_at(&bytes[at..]);
        at += match &bytes[at..] {
            [b' ', next, ..] if !is_white(*next) => 2,
            [b'\r', b'\n', next, ..] if !is_white(*next) => 3,
            [b' ' | b'\t' | b'\n', ..] | [b'\r', b'\n', ..] | [b'\r'] | [] => return at,
            // A lone CR, another control character.
            _ => 1,
        };
    }
}

/// Octets before the first that is a space or below it.
fn control_at(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each octet below 33. A borrow may set a bit above such an octet, never below it.
        let found = word.wrapping_sub(ONES * 33) & !word & (ONES << 7);
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().position(|octet| *octet <= b' ').unwrap_or(rest.len())
}

fn white_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += match &bytes[at..] {
            [b' ' | b'\t' | b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return at,
        };
    }
}

fn is_white(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(body: &str) -> String {
        let mut out = Vec::new();
        simple_body(body.as_bytes(), |part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    fn relaxed(body: &str) -> String {
        let mut out = Vec::new();
        relaxed_body(body.as_bytes(), |part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    /// RFC 6376 §3.4.5.
    #[test]
    fn the_rfcs_example_comes_out() {
        let body = " C \r\nD \t E\r\n\r\n\r\n";
        assert_eq!(relaxed(body), " C\r\nD E\r\n");
        assert_eq!(simple(body), " C \r\nD \t E\r\n");
    }

    #[test]
    fn ends_of_bodies_are_the_rfcs() {
        assert_eq!((simple(""), relaxed("")), ("\r\n".into(), String::new()));
        assert_eq!((simple("\r\n\r\n"), relaxed("\r\n\r\n")), ("\r\n".into(), String::new()));
        assert_eq!((simple("a"), relaxed("a")), ("a\r\n".into(), "a\r\n".into()));
        assert_eq!(
            (simple("a\r\n \t\r\n"), relaxed("a\r\n \t\r\n")),
            ("a\r\n \t\r\n".into(), "a\r\n".into())
        );
        assert_eq!(relaxed("a\r\n\r\n \r\nb  \t\r\n \t"), "a\r\n\r\n\r\nb\r\n");
    }

    #[test]
    fn a_lone_lf_ends_a_line_where_it_is_relaxed_and_a_lone_cr_nowhere() {
        assert_eq!(relaxed("a \n b\r \r\n"), "a\r\n b\r\r\n");
        assert_eq!(relaxed("a\rb\r\r\n\r"), "a\rb\r\r\n\r\r\n");
        assert_eq!(relaxed("a\n\n\n"), "a\r\n");
        assert_eq!(simple("a\n\n\r\n"), "a\n\n\r\n");
    }

    fn field(name: &str, value: &str) -> String {
        let mut out = Vec::new();
        relaxed_field(name.as_bytes(), value.as_bytes(), |part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    /// RFC 6376 §3.4.5.
    #[test]
    fn fields_come_out_as_in_the_rfcs_example() {
        assert_eq!(field("A", " X\r\n"), "a:X");
        assert_eq!(field("B", " Y\t\r\n\tZ  \r\n"), "b:Y Z");
    }

    #[test]
    fn fields_are_unfolded_wherever_they_were_folded() {
        assert_eq!(field("Subject", "\r\n \r\n\t a\n b \t\r\n\r\n"), "subject:a b");
        assert_eq!(field("Subject", "\r\n"), "subject:");
        assert_eq!(field("Subject", " a\rb\x01c\r"), "subject:a\rb\x01c\r");
        let long = "X-".to_owned() + &"Long".repeat(20);
        assert_eq!(field(&long, "grün, 東京  x"), format!("{}:grün, 東京 x", long.to_lowercase()));
    }

    /// Octet by octet, as the RFC puts it.
    fn plainly(body: &[u8]) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for line in body.split(|octet| *octet == b'\n') {
            let mut out: Vec<u8> = Vec::new();
            for octet in line.iter().map(|octet| if *octet == b'\t' { b' ' } else { *octet }) {
                if octet != b' ' || out.last() != Some(&b' ') {
                    out.push(octet);
                }
            }
            lines.push(out);
        }
        let last = lines.len() - 1;
        for line in &mut lines[..last] {
            line.pop_if(|octet| *octet == b'\r');
        }
        for line in &mut lines {
            line.pop_if(|octet| *octet == b' ');
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines.iter().flat_map(|line| [line.as_slice(), b"\r\n"].concat()).collect()
    }

    proptest::proptest! {
        #[test]
        fn what_is_relaxed_is_relaxed_already(body in "(a| |\t|\r\n|\r|\n){0,40}") {
            let once = relaxed(&body);
            proptest::prop_assert_eq!(relaxed(&once), once);
        }

        #[test]
        fn pieces_come_to_the_same_as_the_whole(body in "(abcdefghi|a|\u{1}|é| |\t|\r\n|\r|\n){0,40}", cuts in proptest::collection::vec(0usize..100, 0..5)) {
            let whole = relaxed(&body);
            proptest::prop_assert_eq!(whole.as_bytes(), plainly(body.as_bytes()));
            let (mut out, mut relaxed, mut at) = (Vec::new(), RelaxedBody::default(), 0);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < body.len()).collect();
            cuts.sort_unstable();
            for cut in cuts.into_iter().chain([body.len()]) {
                relaxed.update(&body.as_bytes()[at..cut], |part| out.extend_from_slice(part));
                at = cut;
            }
            relaxed.finish(|part| out.extend_from_slice(part));
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), whole);
        }
    }
}
