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
#[path = "../../tests/transcripts/reader.rs"]
mod reader;

use base64::Engine as _;
use dialog::Dialog;
use dialog::settings::Settings;
use reader::unescape;

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

#[test]
fn transcripts_hold_wherever_the_stream_is_cut() {
    reader::hold_wherever_the_stream_is_cut("smtp-in", 130, run);
}
