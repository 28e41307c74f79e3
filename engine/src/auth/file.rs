//! The password file: lines `user:HASH`, `#` begins a comment line. A user may have several lines, one for each way
//! to log in.
//!
//! Trusts nobody else: a file that others may read or write is refused, whatever its hashes are worth, because a hash
//! that can be read can be guessed at leisure and one that can be written is everybody's password; so is one that
//! belongs to another user. Errors name file and line, and never say what stands there.
//! Bounds: [`FILE_MAX`], [`LINE_MAX`], [`HASHES_MAX`] for a user.

use super::hash::{Hash, Scheme};
use super::scram::ITERATIONS;
use crate::config::ConfigError;
use smtp_in::door::ScramKeys;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::LazyLock;

/// Room for some 100,000 users.
const FILE_MAX: u64 = 16 << 20;

/// Octets of a line: a name, a password or a hash, and what is between them.
const LINE_MAX: usize = 1024;

/// Of one user.
const HASHES_MAX: usize = 8;

/// Everybody whom a file names.
#[derive(Debug, Default)]
pub struct Passwords {
    users: HashMap<Box<str>, Vec<Hash>>,
}

/// What is hashed for users that there are none of, if the file itself has nothing to hash.
static DECOY: LazyLock<Hash> = LazyLock::new(|| {
    let text =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    Hash::parse(text).expect("a hash of our own")
});

impl Passwords {
    /// Reads a file that belongs to root or to us.
    pub fn load(path: &Path) -> Result<Passwords, ConfigError> {
        let name = path.display().to_string();
        Passwords::parse(&read_secrets(path, &name)?, &name)
    }

    /// `name` stands for the file in errors.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Passwords, ConfigError> {
        let mut users: HashMap<Box<str>, Vec<Hash>> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| ConfigError::Wrong {
                file: name.to_owned(),
                line: index + 1,
                what: what.to_owned(),
            };
            let Some((user, hash)) = parse_line(line).map_err(wrong)? else { continue };
            let hashes = users.entry(user.into()).or_default();
            if hashes.len() == HASHES_MAX {
                return Err(wrong("a user has at most 8 lines"));
            }
            hashes.push(hash);
        }
        Ok(Passwords { users })
    }

    pub fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Hashes once at least, whoever the user is and however the password is kept: which of a user's lines it is,
    /// and whether there is such a user, is not told by the time. A file of mixed schemes tells which one a user has.
    pub(super) fn is_right(&self, user: &str, password: &[u8]) -> bool {
        let hashes = self.users.get(user).map_or(&[][..], Vec::as_slice);
        // One that is hashed serves best; all of a user's lines are of one password, or any of them will do.
        let mut is_right = hashes.iter().any(|hash| matches!(hash, Hash::Plain(_)) && hash.is_of(password));
        let mut hashed = hashes.iter().filter(|hash| !matches!(hash, Hash::Plain(_))).peekable();
        if hashed.peek().is_none() {
            let _ = self.decoy().is_of(password);
        }
        for hash in hashed {
            is_right = is_right || hash.is_of(password);
        }
        is_right
    }

    fn decoy(&self) -> &Hash {
        let hashed = self.users.values().flatten().find(|hash| !matches!(hash, Hash::Plain(_)));
        hashed.unwrap_or(&DECOY)
    }

    /// The passwords that are kept as they are.
    pub(super) fn plain(&self, user: &str) -> impl Iterator<Item = &[u8]> {
        self.users.get(user).into_iter().flatten().filter_map(|hash| match hash {
            Hash::Plain(password) => Some(password.octets()),
            _ => None,
        })
    }

    pub(super) fn scram(&self, user: &str) -> Option<&ScramKeys> {
        self.users.get(user)?.iter().find_map(keys)
    }

    /// As many as the file's own keys have, for keys that are made up.
    pub(super) fn scram_iterations(&self) -> u32 {
        self.users.values().flatten().find_map(keys).map_or(ITERATIONS, |keys| keys.iterations)
    }

    /// How this user's new password is to be kept. Empty for a new user.
    pub(crate) fn schemes(&self, user: &str) -> Vec<Scheme> {
        let mut schemes: Vec<_> = self.users.get(user).into_iter().flatten().map(Hash::successor).collect();
        schemes.sort_by_key(|scheme| *scheme as u8);
        schemes.dedup();
        schemes
    }

    /// Checks one password on the caller's time, for the command line.
    pub(crate) fn check(&self, user: &str, password: &[u8]) -> bool {
        super::is_fit(user, password) && self.is_right(user, password)
    }
}

fn keys(hash: &Hash) -> Option<&ScramKeys> {
    match hash {
        Hash::Scram(keys) => Some(keys),
        _ => None,
    }
}

/// The file as it is, for whoever rewrites it.
pub(crate) fn secrets_of(path: &Path) -> Result<String, ConfigError> {
    read_secrets(path, &path.display().to_string())
}

/// The lines of a file of which nobody else knows.
pub(super) fn read_secrets(path: &Path, name: &str) -> Result<String, ConfigError> {
    let value = |what: &str| ConfigError::Value { file: name.to_owned(), what: what.to_owned() };
    let failed = |source| ConfigError::Read { file: name.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    if !facts.is_file() || facts.len() > FILE_MAX {
        return Err(value("it must be an ordinary file of at most 16 MiB"));
    }
    if facts.mode() & 0o027 != 0 {
        return Err(value("others may read or write these secrets: chmod 600, or 640 with a group of ours"));
    }
    if facts.uid() != own && facts.uid() != 0 {
        return Err(value(
            "these secrets belong to another user: chown them to root or to the daemon's user",
        ));
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// `None`: a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<(&str, Hash)>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.len() > LINE_MAX {
        return Err("a line has at most 1024 octets");
    }
    let (user, hash) = line.split_once(':').ok_or("no colon: a line is user:HASH")?;
    if !super::is_fit(user, b"-") {
        return Err("a user's name has 1 to 255 octets and no control characters");
    }
    Ok(Some((user, Hash::parse(hash)?)))
}

/// The user's lines for a new password, one for each scheme.
pub(crate) fn lines_of(user: &str, schemes: &[Scheme], password: &[u8]) -> Result<String, &'static str> {
    if !super::is_fit(user, b"-") || user.contains(':') || user.starts_with('#') {
        return Err(
            "a user's name has 1 to 255 octets, no colon and no control characters, and begins with no #",
        );
    }
    let line = |scheme: &Scheme| Hash::make(*scheme, password).map(|hash| format!("{user}:{hash}\n"));
    schemes.iter().map(line).collect::<Option<String>>().ok_or("this password cannot be kept in that way")
}

/// The file with `lines` instead of the user's own, in their place or at the end.
pub(crate) fn with_lines(text: &str, user: &str, lines: &str) -> String {
    let (mut out, mut left) = (String::with_capacity(text.len() + lines.len()), Some(lines));
    for line in text.lines() {
        if user_of(line) == Some(user) {
            out.push_str(left.take().unwrap_or_default());
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str(left.unwrap_or_default());
    out
}

fn user_of(line: &str) -> Option<&str> {
    line.split_once(':').map(|(user, _)| user).filter(|_| !line.starts_with('#'))
}

/// Any octets: no panic, and what is read is found again.
pub fn fuzz_password_file(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok(passwords) = Passwords::parse(text, "fuzz") {
        for line in text.lines() {
            assert!(user_of(line).is_none_or(|user| passwords.has(user)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn error(text: &str) -> String {
        Passwords::parse(text, "passwords").unwrap_err().to_string()
    }

    #[test]
    fn users_have_a_line_for_each_way_to_log_in() {
        let text = "# ours\n\nann:{PLAIN}se:cret\nann:$5$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC\r\n\
                    bob@example.net:{PLAIN}other\n";
        let passwords = Passwords::parse(text, "passwords").unwrap();
        assert!(passwords.is_right("ann", b"se:cret") && passwords.is_right("ann", b"correct horse"));
        assert!(passwords.is_right("bob@example.net", b"other") && !passwords.is_right("bob", b"other"));
        assert_eq!(passwords.plain("ann").collect::<Vec<_>>(), [b"se:cret"]);
        assert!(passwords.scram("ann").is_none() && !passwords.has("# ours"));
        assert_eq!(passwords.schemes("ann"), [Scheme::Argon2id, Scheme::Plain]);
    }

    #[test]
    fn errors_name_the_line_and_tell_no_secret() {
        assert!(error("ann:{PLAIN}a\nsecret").starts_with("passwords:2: no colon"));
        let error_of = error("#\nann:hunter2");
        assert!(error_of.starts_with("passwords:2: no known scheme") && !error_of.contains("hunter2"));
        assert!(error(":{PLAIN}x").contains("a user's name"));
        assert!(error(&format!("ann:{{PLAIN}}{}", "x".repeat(2000))).contains("1024 octets"));
        assert!(error(&"ann:{PLAIN}x\n".repeat(9)).starts_with("passwords:9: a user has"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwords");
        std::fs::write(&path, "ann:{PLAIN}x\n").unwrap();
        for (mode, is_right) in [(0o600, true), (0o640, true), (0o644, false), (0o620, false), (0o602, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Passwords::load(&path).is_ok(), is_right, "{mode:o}");
        }
        assert!(Passwords::load(folder.path()).unwrap_err().to_string().contains("ordinary file"));
        assert!(Passwords::load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_new_password_replaces_all_of_a_users_lines() {
        let text = "# ours\nann:{PLAIN}old\nbob:{PLAIN}x\nann:{PLAIN}older\n#ann:{PLAIN}y";
        let lines = lines_of("ann", &[Scheme::Plain], b"new").unwrap();
        let new = with_lines(text, "ann", &lines);
        assert_eq!(new, "# ours\nann:{PLAIN}new\nbob:{PLAIN}x\n#ann:{PLAIN}y\n");
        assert_eq!(with_lines(&new, "ann", ""), "# ours\nbob:{PLAIN}x\n#ann:{PLAIN}y\n");
        assert_eq!(with_lines("", "eve", "eve:{PLAIN}z\n"), "eve:{PLAIN}z\n");
        let both = lines_of("ann", &[Scheme::Argon2id, Scheme::ScramSha256], b"new").unwrap();
        let passwords = Passwords::parse(&both, "passwords").unwrap();
        assert!(passwords.check("ann", b"new") && passwords.scram("ann").is_some());
        for user in ["", "a:b", "#a", "a\nb"] {
            assert!(lines_of(user, &[Scheme::Plain], b"x").is_err(), "{user:?}");
        }
        assert!(lines_of("ann", &[Scheme::Plain], b"a\nb").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(#|ann|:|\\{PLAIN\\}|\\$[56y]\\$|\\$argon2id\\$v=19|\\$scram-sha-256\\$4096|[a-z$=,]|\n){0,40}") {
            fuzz_password_file(text.as_bytes());
        }
    }
}
