//! What the transcript tests of crates that take a stream of octets share: the files of a folder here, each played whole and cut
//! into pieces. `UPDATE_EXPECT=1` writes what happened instead.

use std::path::{Path, PathBuf};

/// Every file of `folder`, of which there are at least `least`, says what `run` makes of it: the transcript as it went, with no
/// more than so many octets at a time.
pub(crate) fn hold_wherever_the_stream_is_cut(
    folder: &str,
    least: usize,
    run: impl Fn(&str, usize) -> String,
) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let paths = files_of(folder);
    assert!(paths.len() >= least, "transcripts are missing");
    for path in paths {
        println!("{}", path.display());
        let mut text = std::fs::read_to_string(&path).expect("a transcript");
        let whole = run(&text, usize::MAX / 2);
        if update {
            std::fs::write(&path, &whole).expect("it can be written");
            text = whole;
        }
        for piece_len in [usize::MAX / 2, 1, 2, 3, 5, 11] {
            let found = run(&text, piece_len);
            assert!(found == text, "{} in pieces of {piece_len} went like this:\n{found}", path.display());
        }
    }
}

fn files_of(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts").join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder of transcripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// `\r`, `\n`, `\t`, `\0`, `\\` and `\xHH`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let (octet, used) = match (first, tail.first()) {
            (b'\\', Some(b'r')) => (b'\r', 1),
            (b'\\', Some(b'n')) => (b'\n', 1),
            (b'\\', Some(b't')) => (b'\t', 1),
            (b'\\', Some(b'0')) => (0, 1),
            (b'\\', Some(b'\\')) => (b'\\', 1),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(&tail[1..3]).expect("two digits");
                (u8::from_str_radix(digits, 16).expect("hexadecimal"), 3)
            }
            (b'\\', _) => panic!("no such escape in {text}"),
            _ => (*first, 0),
        };
        octets.push(octet);
        rest = &tail[used..];
    }
    octets
}
