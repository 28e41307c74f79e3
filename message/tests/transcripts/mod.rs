//! Cases of `tests/transcripts`: lines that are given, and behind them what is made of them.
//!
//! A case is parted from the next by an empty line. `#` says what it shows, `$` is its command, `<` its input; `=`, `>` and
//! `!` are what comes out. `^M`, `^@` and `^J` stand for CR, NUL and LF. `UPDATE_EXPECT=1` rewrites what comes out.

use std::path::Path;

/// Runs every case of a folder, and fails with the differences. Returns how many there are.
pub(crate) fn check(folder: &str, run: impl Fn(&str) -> String) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/transcripts").join(folder);
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).expect("the transcripts are there") {
        let path = entry.expect("a folder's entry").path();
        let text = std::fs::read_to_string(&path).expect("a transcript is UTF-8");
        let cases: Vec<String> = text.trim_end().split("\n\n").map(&run).collect();
        count += cases.len();
        let made = cases.join("\n\n") + "\n";
        if made == text {
            continue;
        }
        if update {
            std::fs::write(&path, &made).expect("the transcript can be written");
        } else {
            wrong.push(format!("{}:\n{}", path.display(), difference(&text, &made)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    count
}

/// The case with what `outcome` makes of its command and its given lines now.
pub(crate) fn with_outcome(case: &str, outcome: impl Fn(&str, &[&str]) -> Vec<String>) -> String {
    let given: Vec<&str> = case.lines().filter(|line| !line.starts_with(['=', '>', '!'])).collect();
    let command = given.iter().find_map(|line| line.strip_prefix("$ ")).expect("a case has a command");
    let mut lines: Vec<String> = given.iter().map(|line| (*line).to_owned()).collect();
    lines.extend(outcome(command, &given));
    lines.join("\n")
}

/// The lines around the first one that differs.
fn difference(want: &str, made: &str) -> String {
    let same = want.lines().zip(made.lines()).take_while(|(want, made)| want == made).count();
    let from = |text: &str| text.lines().skip(same.saturating_sub(3)).take(9).collect::<Vec<_>>().join("\n");
    format!("line {}: wanted\n{}\nmade\n{}\n", same + 1, from(want), from(made))
}

/// The `<` lines, ended by LF; `<|` is a last line without its end.
pub(crate) fn input_of(given: &[&str]) -> Vec<u8> {
    let mut input = Vec::new();
    for line in given.iter().filter_map(|line| line.strip_prefix('<')) {
        let (text, end) = match line.strip_prefix('|') {
            Some(open) => (open, ""),
            None => (line, "\n"),
        };
        let text = text.strip_prefix(' ').unwrap_or(text);
        input.extend_from_slice(text.replace("^M", "\r").replace("^@", "\0").as_bytes());
        input.extend_from_slice(end.as_bytes());
    }
    input
}

/// Parted at spaces; single quotes hold words together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut open) = (Vec::new(), false, false);
    for char in line.chars() {
        match char {
            '\'' => {
                quoted = !quoted;
                if !open {
                    words.push(String::new());
                }
                open = true;
            }
            ' ' if !quoted => open = false,
            other => {
                if !open {
                    words.push(String::new());
                }
                open = true;
                words.last_mut().expect("one is open").push(other);
            }
        }
    }
    words
}

/// Content as `>` lines, which end in CR LF but for `>|`.
pub(crate) fn shown(content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let mut lines = Vec::new();
    let mut rest = &text[..];
    while let Some((line, tail)) = rest.split_once("\r\n") {
        lines.push(format!("> {}", visible(line)).trim_end().to_owned());
        rest = tail;
    }
    if !rest.is_empty() {
        lines.push(format!(">| {}", visible(rest)));
    }
    lines
}

fn visible(line: &str) -> String {
    line.replace('\r', "^M").replace('\0', "^@").replace('\n', "^J")
}
