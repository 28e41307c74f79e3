use super::*;
use proptest::prelude::*;

/// Octets that mean something here, more often than others.
fn telling() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()],
        0..60,
    )
}

proptest! {
    #[test]
    fn any_octets_are_borne_and_mean_the_same_wherever_they_are_cut(
        first in any::<u8>(),
        lines in "((USER|PASS|RETR|TOP|DELE|LIST|UIDL|STAT|RSET|LAST|NOOP|QUIT|CAPA|STLS|AUTH|APOP|retr|XTND|\\*)\
                  ( (a|b|\\?|[0-6]|18446744073709551616|PLAIN|=|AGEAYg==|[ -~]{0,30}))*\r?\n){0,12}",
        rest in telling(),
    ) {
        let now = Instant::now();
        fuzz_session(now, &[&[first][..], lines.as_bytes(), &rest].concat());
        fuzz_session(now, &[&[first][..], &rest].concat());
    }

    #[test]
    fn any_content_reads_back_with_cr_lf(content in telling()) {
        fuzz_content(&content);
    }

    #[test]
    fn any_file_of_sizes_is_read_or_left(file in "(ringpost-sizes 1 )?[0-9a-f \n]{0,60}") {
        fuzz_sizes(file.as_bytes());
    }

    #[test]
    fn top_is_the_beginning_of_the_whole(content in telling(), lines in 0..5u64) {
        let (mut whole, mut top) = (Vec::new(), Vec::new());
        for (lines, out) in [(None, &mut whole), (Some(lines), &mut top)] {
            let mut encoder = Encoder::new(lines);
            encoder.write(&content, out);
            encoder.finish(out);
        }
        let top = decode(&top);
        prop_assert!(decode(&whole).starts_with(&top));
        let blank = top.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(header_len) = blank.filter(|_| !top.starts_with(b"\r\n")) {
            let body_lines = top[header_len..].iter().filter(|octet| **octet == b'\n').count();
            prop_assert!(body_lines as u64 <= lines);
        }
    }
}
