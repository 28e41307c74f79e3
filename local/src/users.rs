//! Whose mailbox a local part is: the table of assigned users, then the system's password file (qmail-lspawn).
//!
//! [`Assignments`] is qmail's `users/assign`: `=local:user:uid:gid:home:dash:ext:` for one local part,
//! `+prefix:user:uid:gid:home:dash:pre:` for all that begin so, and a line that begins with a dot at the end. A whole
//! local part wins over every prefix, a longer prefix over a shorter one. Letters match in either case; what follows a
//! prefix keeps its own. Who is not in the table is looked for by [`system_user`].
//!
//! Pure. Bounds: [`TABLE_MAX`] octets and [`ENTRIES_MAX`] lines of a table. An operator's error names its line.

mod password;

pub use password::{
    AccountError, FileError, PASSWORD_FILE_MAX, Password, PasswordFile, SystemFiles, USER_NAME_MAX,
    fuzz_passwd, parse_passwd, system_user,
};

use std::collections::HashMap;

/// Octets of a table.
pub const TABLE_MAX: usize = 64 << 20;

/// Lines of a table.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Who a message for a local part is given to, and which of their instructions are about it: `.qmail` + dash +
/// extension.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub dash: String,
    pub extension: String,
}

impl Account {
    /// Nothing is ever delivered with the rights of root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// What is wrong with a table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TableError {
    #[error("the table has more than {TABLE_MAX} octets")]
    TooLong,
    #[error("the table has more than {ENTRIES_MAX} lines")]
    TooMany,
    #[error("line {0}: it has a NUL, or is not text in UTF-8")]
    NotText(usize),
    #[error("line {0}: a line begins with = or +, or is the dot at the end")]
    Kind(usize),
    #[error("line {0}: it is name:user:uid:gid:home:dash:ext: with six colons behind the name")]
    Fields(usize),
    #[error("line {line}: {text:?} is no number of a user or group")]
    Number { line: usize, text: String },
    #[error("the last line is no dot: a part of the table may be missing")]
    NoEnd,
}

/// The table, ready for look-ups.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Assignments {
    /// By local part in lower case.
    exact: HashMap<String, Account>,
    /// By prefix in lower case; their `extension` is what is put before the rest.
    prefixes: HashMap<String, Account>,
    /// Octets in which a prefix may end, the empty one aside: as qmail, no other is tried.
    breaks: Vec<u8>,
}

impl Assignments {
    /// Reads a table. The first of two lines about one name counts.
    pub fn parse(text: &[u8]) -> Result<Assignments, TableError> {
        if text.len() > TABLE_MAX {
            return Err(TableError::TooLong);
        }
        let mut table = Assignments::default();
        for (index, line) in text.split_inclusive(|octet| *octet == b'\n').enumerate() {
            if line.starts_with(b".") {
                return Ok(table);
            }
            if index == ENTRIES_MAX {
                return Err(TableError::TooMany);
            }
            table.take_up(index + 1, line)?;
        }
        Err(TableError::NoEnd)
    }

    fn take_up(&mut self, line: usize, text: &[u8]) -> Result<(), TableError> {
        let text = text.strip_suffix(b"\n").ok_or(TableError::NoEnd)?;
        let text = std::str::from_utf8(text).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or(TableError::NotText(line))?;
        let (is_prefix, rest) = match text.as_bytes().first() {
            Some(b'=') => (false, &text[1..]),
            Some(b'+') => (true, &text[1..]),
            _ => return Err(TableError::Kind(line)),
        };
        let fields: Vec<&str> = rest.splitn(8, ':').collect();
        let [name, user, uid, gid, home, dash, extension, _] = fields[..] else {
            return Err(TableError::Fields(line));
        };
        let number =
            |text: &str| text.parse().map_err(|_| TableError::Number { line, text: text.to_owned() });
        let account = Account {
            user: user.to_owned(),
            uid: number(uid)?,
            gid: number(gid)?,
            home: home.to_owned(),
            dash: dash.to_owned(),
            extension: extension.to_owned(),
        };
        let name = name.to_ascii_lowercase();
        if !is_prefix {
            self.exact.entry(name).or_insert(account);
            return Ok(());
        }
        if let Some(last) = name.as_bytes().last().filter(|last| !self.breaks.contains(last)) {
            self.breaks.push(*last);
        }
        self.prefixes.entry(name).or_insert(account);
        Ok(())
    }

    /// One hash of the local part, then one for each place in it that a prefix may end at.
    pub fn find(&self, local: &str) -> Option<Account> {
        let lower = local.to_ascii_lowercase();
        if let Some(account) = self.exact.get(&lower) {
            return Some(account.clone());
        }
        let may_end_at = |len: &usize| {
            lower.is_char_boundary(*len) && (*len == 0 || self.breaks.contains(&lower.as_bytes()[len - 1]))
        };
        let len_and_account = (0..=lower.len())
            .rev()
            .filter(may_end_at)
            .find_map(|len| self.prefixes.get(&lower[..len]).map(|account| (len, account)));
        let (len, account) = len_and_account?;
        let extension = format!("{}{}", account.extension, &local[len..]);
        Some(Account { extension, ..account.clone() })
    }

    /// Lines that count.
    pub fn count(&self) -> usize {
        self.exact.len() + self.prefixes.len()
    }

    /// The table as text, its lines in order: what [`Assignments::parse`] reads as the same.
    pub fn print(&self) -> String {
        let line = |kind: char, name: &str, account: &Account| {
            let Account { user, uid, gid, home, dash, extension } = account;
            format!("{kind}{name}:{user}:{uid}:{gid}:{home}:{dash}:{extension}:\n")
        };
        let exact = self.exact.iter().map(|(name, account)| line('=', name, account));
        let mut lines: Vec<String> = exact.collect();
        lines.extend(self.prefixes.iter().map(|(name, account)| line('+', name, account)));
        lines.sort();
        lines.push(".\n".to_owned());
        lines.concat()
    }
}

/// Whose mail it is: by the table, else by the password file, else `alias_user`'s.
pub fn account_of(
    table: &Assignments,
    passwords: &dyn PasswordFile,
    alias_user: &str,
    local: &str,
) -> Result<Account, AccountError> {
    let account = match table.find(local) {
        Some(account) => account,
        None => system_user(passwords, alias_user, local)?,
    };
    if account.is_root() { Err(AccountError::Root) } else { Ok(account) }
}

/// For the fuzzer: what is read prints and reads the same, and every name in it can be found.
pub fn fuzz_assignments(bytes: &[u8]) {
    let Ok(table) = Assignments::parse(bytes) else { return };
    let again = Assignments::parse(table.print().as_bytes()).expect("what is printed can be read");
    assert_eq!((&again.exact, &again.prefixes), (&table.exact, &table.prefixes));
    for name in table.exact.keys().chain(table.prefixes.keys()) {
        assert!(table.find(name).is_some());
        let _ = table.find(&format!("{name}-x"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "=joe.shmoe:joe:503:78:/home/ann/joe:::\n\
                         +:alias:7790:2108:/var/qmail/alias:-::\n\
                         +joe-:joe:503:78:/home/ann/joe:-::\n\
                         +joe-list-:lists:600:60:/lists:-:l-:\n\
                         =root:fred:504:78:/home/bob:-:admin:\n\
                         .\n";

    fn found(local: &str) -> (String, String, String) {
        let account = Assignments::parse(TABLE.as_bytes()).unwrap().find(local).unwrap();
        (account.user, account.dash, account.extension)
    }

    fn three(user: &str, dash: &str, extension: &str) -> (String, String, String) {
        (user.into(), dash.into(), extension.into())
    }

    #[test]
    fn a_whole_name_wins_then_the_longest_prefix() {
        assert_eq!(found("joe.shmoe"), three("joe", "", ""));
        assert_eq!(found("Joe.Shmoe"), three("joe", "", ""));
        assert_eq!(found("joe-Direct"), three("joe", "-", "Direct"));
        assert_eq!(found("joe-list-Request"), three("lists", "-", "l-Request"));
        assert_eq!(found("root"), three("fred", "-", "admin"));
        assert_eq!(found("joe"), three("alias", "-", "joe"));
        assert_eq!(found(""), three("alias", "-", ""));
    }

    #[test]
    fn prefixes_end_where_a_prefix_of_the_table_ends() {
        // `jo` is no entry; the octet `o` ends none, so nothing but break characters is tried.
        let table = Assignments::parse(b"+ab:u:1:2:/h:-::\n+x-:v:1:2:/h:-::\n.\n").unwrap();
        assert_eq!(table.find("abc").unwrap().extension, "c");
        assert_eq!(table.find("x-y-z").unwrap().extension, "y-z");
        assert_eq!(table.find("x"), None);
        assert_eq!(table.find("y"), None);
    }

    #[test]
    fn a_table_that_is_cut_off_is_refused() {
        assert_eq!(Assignments::parse(b""), Err(TableError::NoEnd));
        assert_eq!(Assignments::parse(b"=a:a:1:1:/a:::\n"), Err(TableError::NoEnd));
        assert_eq!(Assignments::parse(b"=a:a:1:1:/a:::"), Err(TableError::NoEnd));
        assert!(Assignments::parse(b".").is_ok());
        assert!(Assignments::parse(b".\nrubbish").is_ok(), "nothing counts behind the dot");
    }

    #[test]
    fn errors_name_their_line() {
        let error = |text: &str| Assignments::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error("=a:a:1:1:/a:::\n\n.\n"), TableError::Kind(2));
        assert_eq!(error("=a:a:1:1:/a:\n.\n"), TableError::Fields(1));
        assert_eq!(error("=a:a:one:1:/a:::\n.\n"), TableError::Number { line: 1, text: "one".into() });
        assert_eq!(error("=a\0:a:1:1:/a:::\n.\n"), TableError::NotText(1));
    }

    #[test]
    fn nothing_is_delivered_as_root() {
        let table = Assignments::parse(b"=toor:root:0:0:/root:::\n.\n").unwrap();
        let nobody = password::tests::Fake::default();
        assert_eq!(account_of(&table, &nobody, "alias", "toor"), Err(AccountError::Root));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(text in "([=+][a-zA-Z-]{0,4}:u:[0-9]{1,3}:2:/h:-{0,1}:[a-z]{0,2}:\n){0,6}\\.\n") {
            fuzz_assignments(text.as_bytes());
        }

        #[test]
        fn any_octets_are_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            local in "\\PC{0,30}",
        ) {
            fuzz_assignments(&bytes);
            let _ = Assignments::parse(TABLE.as_bytes()).unwrap().find(&local);
        }
    }
}
