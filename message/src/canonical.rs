//! A body as DKIM hashes it (RFC 6376 §3.4.3, §3.4.4).
//!
//! Lines end in CRLF alone: a lone CR or LF is an octet like others. Gives out slices of the body, in order, so that
//! nothing is copied.

use memchr::memmem;

/// As it is, without the empty lines at its end; an empty body is one empty line.
pub fn simple_body(body: &[u8], mut out: impl FnMut(&[u8])) {
    let mut end = body;
    while let Some(shorter) = end.strip_suffix(b"\r\n") {
        end = shorter;
    }
    out(end);
    out(b"\r\n");
}

/// White space at line ends goes, other runs of it become one space, lines that are empty then go at the end. An empty
/// body stays empty.
pub fn relaxed_body(body: &[u8], mut out: impl FnMut(&[u8])) {
    let mut empty_lines = 0usize;
    let mut rest = body;
    while !rest.is_empty() {
        let len = memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let line = trim_end(&rest[..len]);
        rest = rest.get(len + 2..).unwrap_or_default();
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        (0..std::mem::take(&mut empty_lines)).for_each(|_| out(b"\r\n"));
        relaxed_line(line, &mut out);
        out(b"\r\n");
    }
}

fn relaxed_line(line: &[u8], out: &mut impl FnMut(&[u8])) {
    let mut rest = line;
    while !rest.is_empty() {
        let words = rest.iter().position(|octet| is_space(*octet)).unwrap_or(rest.len());
        let spaces = rest[words..].iter().position(|octet| !is_space(*octet)).unwrap_or(rest.len() - words);
        out(&rest[..words]);
        if spaces > 0 {
            out(b" ");
        }
        rest = &rest[words + spaces..];
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let len = line.iter().rposition(|octet| !is_space(*octet)).map_or(0, |last| last + 1);
    &line[..len]
}

fn is_space(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
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
    fn lone_newlines_are_octets() {
        assert_eq!(relaxed("a \n b\r \r\n"), "a \n b\r\r\n");
        assert_eq!(simple("a\n\n\r\n"), "a\n\n\r\n");
    }

    proptest::proptest! {
        #[test]
        fn what_is_relaxed_is_relaxed_already(body in "(a| |\t|\r\n|\r|\n){0,40}") {
            let once = relaxed(&body);
            proptest::prop_assert_eq!(relaxed(&once), once);
        }
    }
}
