//! Who runs a submitting program, as the system's list of users and the environment say it.
//!
//! That is what From and the sender are made of, and a user may say anything there; the daemon asks the kernel who it
//! is and writes that into `Received`. Bound: [`PASSWD_MAX`] octets of /etc/passwd; users of other sources are known by
//! their environment.

use message::compose::Identity;
use std::fs::File;
use std::io::Read as _;

const PASSWD_MAX: u64 = 16 << 20;

/// An entry of passwd(5).
#[derive(Debug, Eq, PartialEq)]
pub(super) struct User {
    login: String,
    /// The first part of the comment: a person's name.
    name: Option<String>,
}

/// The environment's word, where it is text.
pub(super) fn variable(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl User {
    /// The one whose process this is; `anonymous` if the list does not have it.
    pub(super) fn ours() -> User {
        let mut text = Vec::new();
        let _ = File::open("/etc/passwd").and_then(|file| file.take(PASSWD_MAX).read_to_end(&mut text));
        let uid = rustix::process::getuid().as_raw();
        User::find(&String::from_utf8_lossy(&text), uid)
            .unwrap_or_else(|| User { login: "anonymous".to_owned(), name: None })
    }

    fn find(passwd: &str, uid: u32) -> Option<User> {
        let entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let ours = |entry: &Vec<&str>| entry.get(2).is_some_and(|field| field.parse() == Ok(uid));
        let entry = entries.into_iter().find(ours)?;
        let (login, comment) = (entry.first()?, entry.get(4).copied().unwrap_or_default());
        let name = comment.split(',').next().unwrap_or_default().replace('&', &capitalised(login));
        Some(User { login: (*login).to_owned(), name: (!name.is_empty()).then_some(name) })
    }

    /// By the environment; `with_name`: else by the user's full name, as sendmail does and inject does not.
    pub(super) fn identity(self, with_name: bool) -> Identity {
        let mut identity = Identity::from_variables(&self.login, variable);
        if with_name && identity.name.is_none() {
            identity.name = self.name;
        }
        identity
    }
}

/// What `&` stands for in a comment.
fn capitalised(login: &str) -> String {
    let mut chars = login.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n#broken\nann:x:1001:1001:& Example,Room 3:/home/ann:/bin/sh\n";
        let ann = User { login: "ann".into(), name: Some("Ann Example".into()) };
        assert_eq!(User::find(passwd, 1001), Some(ann));
        assert_eq!(User::find(passwd, 7), None);
    }
}
