//! Where the parts of a multipart are (RFC 2046 §5.1).

use memchr::memchr;

/// A stretch of a multipart's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stretch<'a> {
    /// A boundary's line with the line end before it, and what is outside of all parts.
    Between(&'a [u8]),
    Part(&'a [u8]),
}

/// All of `body`, cut. A part that no boundary ends goes to the end. Cost: one pass over the lines.
pub(super) fn stretches<'a>(body: &'a [u8], boundary: &'a [u8]) -> impl Iterator<Item = Stretch<'a>> {
    let (mut at, mut in_part) = (0, false);
    std::iter::from_fn(move || {
        if at == body.len() && !in_part {
            return None;
        }
        if in_part {
            in_part = false;
            let end = next_line(body, at, boundary).map_or(body.len(), |line| line.before);
            let part = &body[at..end];
            at = end;
            return Some(Stretch::Part(part));
        }
        let from = at;
        let line = next_line(body, at, boundary);
        at = line.as_ref().map_or(body.len(), |line| line.end);
        in_part = line.is_some_and(|line| !line.closes);
        if !in_part {
            at = body.len();
        }
        Some(Stretch::Between(&body[from..at]))
    })
}

struct Line {
    /// Where the line end before it begins: that belongs to the boundary.
    before: usize,
    end: usize,
    closes: bool,
}

/// The next line from `from` on that is the boundary. `from` is a line's beginning, or the line end before a boundary.
fn next_line(body: &[u8], from: usize, boundary: &[u8]) -> Option<Line> {
    let mut at = from;
    while at < body.len() {
        let end = memchr(b'\n', &body[at..]).map_or(body.len(), |lf| at + lf + 1);
        if let Some(closes) = boundary_line(&body[at..end], boundary) {
            return Some(Line { before: line_end_before(body, from, at), end, closes });
        }
        at = end;
    }
    None
}

fn line_end_before(body: &[u8], from: usize, at: usize) -> usize {
    match &body[from..at] {
        [.., b'\r', b'\n'] => at - 2,
        [.., b'\n'] => at - 1,
        _ => at,
    }
}

/// Whether `line` is the boundary's, and the last one.
fn boundary_line(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?.trim_ascii_end();
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(body: &str) -> Vec<String> {
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        let stretches = stretches(body.as_bytes(), b"b").map(|stretch| match stretch {
            Stretch::Between(octets) => format!("-{}", text(octets)),
            Stretch::Part(octets) => format!("+{}", text(octets)),
        });
        stretches.collect()
    }

    #[test]
    fn line_end_before_a_boundary_belongs_to_it() {
        assert_eq!(
            cut("pre\r\n--b\r\nA: 1\r\n\r\none\r\n--b \t\r\n\r\ntwo\r\n\r\n--b--\r\npost\r\n--b\r\n"),
            [
                "-pre\r\n--b\r\n",
                "+A: 1\r\n\r\none",
                "-\r\n--b \t\r\n",
                "+\r\ntwo\r\n",
                "-\r\n--b--\r\npost\r\n--b\r\n"
            ]
        );
    }

    #[test]
    fn parts_may_be_empty_and_may_not_end() {
        assert_eq!(cut("--b\n--b\nx"), ["---b\n", "+", "---b\n", "+x"]);
        assert_eq!(cut("--bc\n--b"), ["---bc\n--b", "+"]);
        assert_eq!(cut("no boundary\n"), ["-no boundary\n"]);
        assert_eq!(cut(""), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(body in "(--b|--|b|\r\n|\n|x){0,30}") {
            let whole: String = cut(&body).iter().map(|stretch| &stretch[1..]).collect();
            proptest::prop_assert_eq!(whole, body);
        }
    }
}
