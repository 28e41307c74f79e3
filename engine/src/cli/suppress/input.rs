//! Addresses as an operator gives them: words with an @, files, standard input; in orders of a bounded length.

use super::super::queue::QueueError;
use crate::suppression::{Defaults, Entry, Import, ORDER_LEN_MAX};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::process::ExitCode;

/// Entries of an order.
const ORDER_LEN: usize = ORDER_LEN_MAX / 2;

const PIECE_LEN: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Reading {
    defaults: Defaults,
    wrong: u64,
}

impl Reading {
    pub(super) fn new(defaults: Defaults) -> Reading {
        Reading { defaults, wrong: 0 }
    }

    /// Lines that said nothing legal.
    pub(super) fn wrong(&self) -> u64 {
        self.wrong
    }

    /// 0, or that of wrong data.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.wrong == 0 { 0 } else { 65 })
    }

    /// Shows everything that the words name to `visit`, an order at a time. What is wrong is said on standard error.
    pub(super) fn each(
        &mut self,
        words: &[String],
        mut visit: impl FnMut(Vec<Entry>) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let (addresses, files): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| word.contains('@'));
        if !addresses.is_empty() {
            let lines: Vec<String> = addresses.into_iter().map(|address| quoted(address)).collect();
            self.read("", lines.concat().as_bytes(), &ProgressBar::hidden(), &mut visit)?;
        }
        for file in files {
            if file == "-" {
                self.read("-: ", io::stdin().lock(), &bar(None), &mut visit)?;
                continue;
            }
            let named = |error: io::Error| QueueError::Usage(format!("{file}: {error}"));
            let open = File::open(file).map_err(named)?;
            let len = open.metadata().map_err(named)?.len();
            self.read(&format!("{file}: "), open, &bar(Some(len)), &mut visit)?;
        }
        Ok(())
    }

    fn read(
        &mut self,
        name: &str,
        mut from: impl Read,
        bar: &ProgressBar,
        visit: &mut impl FnMut(Vec<Entry>) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let mut import = Import::new(self.defaults.clone());
        let (mut piece, mut entries) = (vec![0; PIECE_LEN], Vec::new());
        loop {
            let len = from.read(&mut piece)?;
            if len == 0 {
                break;
            }
            import.feed(&piece[..len], &mut entries);
            while entries.len() >= ORDER_LEN {
                let rest = entries.split_off(ORDER_LEN);
                visit(std::mem::replace(&mut entries, rest))?;
            }
            bar.inc(len as u64);
            bar.set_message(super::grouped(import.entries));
        }
        import.finish(&mut entries);
        if !entries.is_empty() {
            visit(entries)?;
        }
        bar.finish_and_clear();
        self.complain(name, &import);
        Ok(())
    }

    fn complain(&mut self, name: &str, import: &Import) {
        self.wrong += import.wrong;
        for said in &import.said {
            eprintln!("ringpost: {name}{said}");
        }
        let unsaid = import.wrong - import.said.len() as u64;
        if unsaid > 0 {
            eprintln!("ringpost: {name}{unsaid} more lines are wrong");
        }
    }
}

/// A word as a line of CSV.
fn quoted(word: &str) -> String {
    format!("\"{}\"\n", word.replace('"', "\"\"").replace('\n', " "))
}

/// On a terminal alone.
fn bar(len: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match len {
        Some(len) => (ProgressBar::new(len), "{bar:40} {msg} entries, {percent} %, {eta} left"),
        None => (ProgressBar::no_length(), "{msg} entries"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suppression::Reason;
    use message::UnixMillis;

    fn read(words: &[&str]) -> (Vec<usize>, u64) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let defaults = Defaults { list: "".into(), reason: Reason::Manual, at: UnixMillis(0) };
        let (mut reading, mut orders) = (Reading::new(defaults), Vec::new());
        let each = reading.each(&words, |entries| {
            orders.push(entries.len());
            Ok(())
        });
        each.unwrap();
        (orders, reading.wrong())
    }

    #[test]
    fn words_with_an_at_are_addresses_and_others_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.csv");
        std::fs::write(&file, "email\nann@a.test\nbob@a.test\nwrong\n").unwrap();
        let found = read(&["cy@a.test", file.to_str().unwrap(), "\"d,e\"@a.test", "@"]);
        assert_eq!(found, (vec![2, 2], 2));
    }

    #[test]
    fn a_long_file_comes_in_orders_of_a_bounded_length() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.csv");
        let lines: String = (0..30_000).map(|number| format!("u{number}@a.test\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let (orders, wrong) = read(&[file.to_str().unwrap()]);
        assert_eq!((orders.iter().sum::<usize>(), wrong), (30_000, 0));
        assert!(orders.iter().all(|len| *len <= ORDER_LEN_MAX), "{orders:?}");
    }
}
