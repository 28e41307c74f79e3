//! Runs the dialogs in `tests/transcripts/smtp-in`, each whole and cut into pieces.
//!
//! ```text
//! # a comment
//! % size_max 100          a setting, before anything is said (see `dialog::settings`)
//! + connects              nothing; what the session wants so far stands below
//! C: NOOP                 the client sends a line with CR LF; client lines without another line between
//! C* a\r\n.\n             them go in one segment. C* sends just these octets: \r \n \t \0 \\ \xHH
//! C= a                    as C:, in base64
//! S: 250 2.0.0 Ok         we say this
//! ! store 0 ...           we want this stored (0 is its key), and this is its content
//! ! flush a.test          we want what waits for that domain tried now
//! ! rejected at mail: ... the operator is told
//! ! close                 we want to close
//! ? introduce ...         we ask this, and read no more until
//! > welcome relay         it is answered: welcome RIGHTS, turned 554 5.7.1 why, logged-in RIGHTS, wrong-login,
//!                         unavailable, keys-of-pencil, turning, nothing-waits, turn-denied
//! @ +300s                 time passes
//! > stored accepted 1     the store of key 1 ended (accepted, full, failed; no key: the oldest)
//! > gate full             the queue takes no more (open, full, broken)
//! > shutdown              the daemon stops
//! ```
//! Unless `% asks yes`, whoever comes is welcome, and the greeting is left out. `UPDATE_EXPECT=1 cargo test -p smtp-in`
//! rewrites the `S:`, `!` and `?` lines.

mod dialog;

use base64::Engine as _;
use dialog::Dialog;
use dialog::settings::Settings;
use std::path::{Path, PathBuf};

/// The text as a run of its client's lines makes it.
fn run(text: &str, piece_len: usize) -> String {
    let mut settings = Settings::new();
    text.lines().filter_map(|line| line.strip_prefix("% ")).for_each(|line| settings.set(line));
    let (mut dialog, mut out) = (Dialog::new(settings, piece_len), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if is_expectation(line) {
            continue;
        }
        out += &format!("{line}\n");
        match line.split_at_checked(3) {
            Some(("C: ", sent)) => dialog.sent.extend_from_slice(format!("{sent}\r\n").as_bytes()),
            Some(("C* ", sent)) => dialog.sent.extend(unescape(sent)),
            Some(("C= ", sent)) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(unescape(sent));
                dialog.sent.extend(format!("{encoded}\r\n").into_bytes());
            }
            _ if line.starts_with("@ ") => dialog.wait(&line[2..]),
            _ if line.starts_with("> ") => dialog.act(&line[2..]),
            _ => assert!(line.is_empty() || line.starts_with(['#', '%', '+']), "what is {line:?}?"),
        }
        let same_segment = line.starts_with('C') && lines.peek().is_some_and(|next| next.starts_with('C'));
        if !same_segment && !line.starts_with(['#', '%']) {
            dialog.settle();
            dialog.heard.drain(..).for_each(|heard| out += &format!("{heard}\n"));
        }
    }
    out
}

fn is_expectation(line: &str) -> bool {
    line.starts_with("S:") || line.starts_with(['!', '?'])
}

fn unescape(text: &str) -> Vec<u8> {
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

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts/smtp-in");
    let entries = std::fs::read_dir(folder).expect("the folder of transcripts");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn transcripts_hold_wherever_the_stream_is_cut() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let paths = transcripts();
    assert!(paths.len() >= 130, "transcripts are missing");
    for path in paths {
        println!("{}", path.display());
        let mut text = std::fs::read_to_string(&path).unwrap();
        let whole = run(&text, usize::MAX / 2);
        if update {
            std::fs::write(&path, &whole).unwrap();
            text = whole;
        }
        for piece_len in [usize::MAX / 2, 1, 2, 3, 5, 11] {
            let found = run(&text, piece_len);
            assert!(found == text, "{} in pieces of {piece_len} went like this:\n{found}", path.display());
        }
    }
}
