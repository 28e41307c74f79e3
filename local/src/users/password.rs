//! The user whose name a local part begins with (qmail-getpw).
//!
//! `joe-list` is joe's, extension `list`, if there is a user joe; the longest name that is a user's wins. A user
//! counts only with a uid other than 0, and a home that exists and is their own. Names of [`USER_NAME_MAX`] octets or
//! more, and names with capitals, are nobody's: a local part is compared in lower case. What is nobody's is the alias
//! user's.
//!
//! The password file is behind [`PasswordFile`], so that a directory service can stand in for it. Bound:
//! [`PASSWORD_FILE_MAX`] octets of `/etc/passwd`, and of it one look for each `-` of a local part.

use super::Account;
use crate::failure::is_passing;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A user's name is shorter than this many octets.
pub const USER_NAME_MAX: usize = 32;

/// Octets of `/etc/passwd` that are read.
pub const PASSWORD_FILE_MAX: u64 = 64 << 20;

/// Between a user's name and the extension.
const BREAK: u8 = b'-';

/// A line of the password file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Password {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// Where users are looked up. An error is a passing one: what is not there is `None`.
pub trait PasswordFile {
    fn user(&self, name: &str) -> Result<Option<Password>, FileError>;

    /// Whose a home is; `None` if it does not exist.
    fn owner_of(&self, home: &str) -> Result<Option<u32>, FileError>;
}

/// The system could not say now.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct FileError {
    pub what: String,
    pub source: io::Error,
}

/// Why nobody can be given a message. Each is a soft error, as with qmail.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("Unable to find alias user! (#4.3.0)")]
    NoAliasUser,
    #[error("Not allowed to perform deliveries as root. (#4.3.0)")]
    Root,
    #[error("{0}. (#4.3.0)")]
    File(#[from] FileError),
}

impl PartialEq for AccountError {
    fn eq(&self, other: &AccountError) -> bool {
        self.to_string() == other.to_string()
    }
}

/// The user of a local part, or `alias_user` with all of it as the extension.
pub fn system_user(
    passwords: &dyn PasswordFile,
    alias_user: &str,
    local: &str,
) -> Result<Account, AccountError> {
    let breaks = |at: &usize| *at == local.len() || local.as_bytes()[*at] == BREAK;
    for at in (0..=local.len()).rev().filter(breaks).filter(|at| *at < USER_NAME_MAX) {
        if let Some(password) = eligible(passwords, &local[..at].to_ascii_lowercase())? {
            let rest = &local[at..];
            let extension = rest.strip_prefix('-').unwrap_or(rest);
            return Ok(account(password, if rest.is_empty() { "" } else { "-" }, extension));
        }
    }
    let password = passwords.user(alias_user)?.ok_or(AccountError::NoAliasUser)?;
    Ok(account(password, "-", local))
}

fn eligible(passwords: &dyn PasswordFile, name: &str) -> Result<Option<Password>, FileError> {
    let Some(password) = passwords.user(name)?.filter(|password| password.uid != 0) else { return Ok(None) };
    let owner = passwords.owner_of(&password.home)?;
    Ok((owner == Some(password.uid)).then_some(password))
}

fn account(password: Password, dash: &str, extension: &str) -> Account {
    let Password { user, uid, gid, home } = password;
    Account { user, uid, gid, home, dash: dash.into(), extension: extension.into() }
}

/// The password file itself, read anew for each question as `getpwnam` does.
#[derive(Clone, Debug)]
pub struct SystemFiles {
    passwd: PathBuf,
}

impl Default for SystemFiles {
    fn default() -> SystemFiles {
        SystemFiles { passwd: "/etc/passwd".into() }
    }
}

impl SystemFiles {
    pub fn at(passwd: &Path) -> SystemFiles {
        SystemFiles { passwd: passwd.to_owned() }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(&self.passwd)?.take(PASSWORD_FILE_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl PasswordFile for SystemFiles {
    fn user(&self, name: &str) -> Result<Option<Password>, FileError> {
        let wrong = |source| FileError { what: self.passwd.display().to_string(), source };
        let bytes = self.read().map_err(wrong)?;
        Ok(parse_passwd(&bytes).find(|password| password.user == name))
    }

    fn owner_of(&self, home: &str) -> Result<Option<u32>, FileError> {
        match std::fs::metadata(home) {
            Ok(about) => Ok(Some(about.uid())),
            Err(source) if is_passing(&source) => Err(FileError { what: home.to_owned(), source }),
            Err(_) => Ok(None),
        }
    }
}

/// Lines `name:password:uid:gid:comment:home:shell`; a line of another form is nobody.
pub fn parse_passwd(bytes: &[u8]) -> impl Iterator<Item = Password> {
    bytes.split(|octet| *octet == b'\n').filter_map(|line| {
        let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split(':').collect();
        let [user, _, uid, gid, _, home, ..] = fields[..] else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (!user.is_empty()).then(|| Password { user: user.into(), uid, gid, home: home.into() })
    })
}

/// For the fuzzer.
pub fn fuzz_passwd(bytes: &[u8]) {
    for password in parse_passwd(bytes) {
        assert!(!password.user.contains(':') && !password.home.contains(':'));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Users with their uids and the uids that own their homes.
    #[derive(Default)]
    pub(in crate::users) struct Fake(Vec<(&'static str, u32, Option<u32>)>);

    impl PasswordFile for Fake {
        fn user(&self, name: &str) -> Result<Option<Password>, FileError> {
            let found = self.0.iter().find(|(user, ..)| *user == name);
            Ok(found.map(|(user, uid, _)| Password {
                user: (*user).into(),
                uid: *uid,
                gid: 100,
                home: format!("/home/ann/{user}"),
            }))
        }

        fn owner_of(&self, home: &str) -> Result<Option<u32>, FileError> {
            Ok(self.0.iter().find(|(user, ..)| home.ends_with(user)).and_then(|(.., owner)| *owner))
        }
    }

    fn found(local: &str) -> (String, String, String) {
        let users = Fake(vec![
            ("joe", 500, Some(500)),
            ("joe-list", 501, Some(501)),
            ("root", 0, Some(0)),
            ("homeless", 502, None),
            ("guest", 503, Some(0)),
            ("Big", 504, Some(504)),
            ("a-name-with-thirty-one-octets-xx", 505, Some(505)),
            ("a-name-of-thirty-one-octets-xyz", 506, Some(506)),
            ("alias", 7790, Some(7790)),
        ]);
        let account = system_user(&users, "alias", local).unwrap();
        (account.user, account.dash, account.extension)
    }

    fn three(user: &str, dash: &str, extension: &str) -> (String, String, String) {
        (user.into(), dash.into(), extension.into())
    }

    #[test]
    fn the_longest_name_that_is_a_users_wins() {
        assert_eq!(found("joe"), three("joe", "", ""));
        assert_eq!(found("JOE"), three("joe", "", ""));
        assert_eq!(found("joe-Foo-bar"), three("joe", "-", "Foo-bar"));
        assert_eq!(found("joe-list"), three("joe-list", "", ""));
        assert_eq!(found("joe-list-x"), three("joe-list", "-", "x"));
        assert_eq!(found("joe-"), three("joe", "-", ""));
    }

    #[test]
    fn who_may_not_have_mail_leaves_it_to_alias() {
        for local in ["root", "homeless", "guest-x", "nobody", "Big", "joey", ""] {
            assert_eq!(found(local), three("alias", "-", local));
        }
    }

    #[test]
    fn names_of_32_octets_match_nobody() {
        assert_eq!(found("a-name-of-thirty-one-octets-xyz").0, "a-name-of-thirty-one-octets-xyz");
        let long = "a-name-with-thirty-one-octets-xx";
        assert_eq!(long.len(), USER_NAME_MAX);
        assert_eq!(found(long), three("alias", "-", long));
    }

    #[test]
    fn without_an_alias_user_mail_waits() {
        assert_eq!(system_user(&Fake::default(), "alias", "x"), Err(AccountError::NoAliasUser));
    }

    #[test]
    fn system_files_know_root() {
        let system = SystemFiles::default();
        assert_eq!(system.user("root").unwrap().unwrap().uid, 0);
        assert_eq!(system.owner_of("/").unwrap(), Some(0));
        assert_eq!(system.owner_of("/no such folder").unwrap(), None);
        assert!(SystemFiles::at(Path::new("/no such file")).user("root").is_err());
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "([a-z]{0,3}:x:[0-9]{1,3}:1::/[a-z]{0,3}:/bin/sh\n){0,4}",
            local in "\\PC{0,40}",
        ) {
            fuzz_passwd(&bytes);
            fuzz_passwd(text.as_bytes());
            let _ = found(&local);
        }
    }
}
