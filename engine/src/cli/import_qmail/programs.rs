//! Programs in instructions that have no effect here.
//!
//! They run with their user's rights and can get no others (no new privileges), so the set-uid and set-gid bits of a file say
//! nothing. qmail's own hand what they send to qmail-queue, which lives by such a bit; ours of the same names ask the
//! daemon. Words are told apart roughly: what the shell would make of variables is not known.

use super::Translation;
use crate::cli::{mailbox, submit};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Where qmail is, unless it was built for another place.
const USUAL: &str = "/var/qmail/bin";

const SET_ID: u32 = 0o6000;

/// What parts words for the shell.
const MARKS: &str = "\"'`;&|()<>=";

/// `bin`: the programs of the qmail whose file it is.
pub(super) fn tell(file: &str, text: &str, bin: &Path, translation: &mut Translation) {
    for (line, number) in text.lines().zip(1_usize..) {
        let Some(program) = line.strip_prefix('|') else { continue };
        let words = program.split(|char: char| char.is_whitespace() || MARKS.contains(char));
        for word in words.filter(|word| word.starts_with('/')) {
            if let Some(what) = without_effect(Path::new(word), bin) {
                translation.untold(&format!("{file}: line {number}: {word} {what}"));
            }
        }
    }
}

/// Why, and what to write.
fn without_effect(program: &Path, bin: &Path) -> Option<String> {
    let is_qmails = program.parent().is_some_and(|folder| folder == bin || folder == Path::new(USUAL));
    if is_qmails {
        let name = program.file_name()?;
        let (is_ours, name) = (is_ours(name), name.display());
        return Some(if is_ours {
            format!("is qmail's: write {name}, where a link of that name to ringpost is, or ringpost {name}")
        } else {
            "is qmail's, and nothing here corresponds to it; what sends mail is ringpost sendmail".to_owned()
        });
    }
    let about = program.metadata().ok().filter(Metadata::is_file)?;
    let what = "is set-uid or set-gid, which has no effect here: an entry in local.assign can give the \
                address to the user whose rights it wants";
    (about.permissions().mode() & SET_ID != 0).then(|| what.to_owned())
}

/// By the name under which it is called.
fn is_ours(name: &OsStr) -> bool {
    let words = [name.to_owned()];
    mailbox::Program::of(&words).is_some() || submit::Program::of(&words).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn what_programs_cannot_do_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (set, plain) = (put("set", 0o4755), put("plain", 0o755));
        let text = format!(
            "# |/var/qmail/bin/forward\n\n|/var/qmail/bin/condredirect bob /var/qmail/bin/except grep x\n\
             &ann@example.org\n|{plain}; forward bob\n|cat|\"{set}\" x\n|/qmail/bin/qmail-queue\n\
             |/nowhere/forward\n"
        );
        let mut translation = Translation::default();
        tell("alias/.qmail-x", &text, Path::new("/qmail/bin"), &mut translation);
        let starts = [
            "alias/.qmail-x: line 3: /var/qmail/bin/condredirect is qmail's: write condredirect, ".to_owned(),
            "alias/.qmail-x: line 3: /var/qmail/bin/except is qmail's: write except, ".to_owned(),
            format!("alias/.qmail-x: line 6: {set} is set-uid or set-gid, "),
            "alias/.qmail-x: line 7: /qmail/bin/qmail-queue is qmail's, and nothing here ".to_owned(),
        ];
        let told = &translation.untold;
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        assert!(told.iter().zip(&starts).all(|(line, start)| line.starts_with(start)), "{told:#?}");
    }
}
