//! `[pop3]`: whose mail can be fetched, and how. Read by `ringpost pop3` alone, a process of its own.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const SESSIONS_MAX: usize = 10_000;
const IDLE_TIMEOUT_MAX_SECS: u64 = 24 * 3600;
const ADDRESSES_MAX: usize = 64;

/// A name in a path, as file systems have it.
const NAME_MAX: usize = 255;

const USER: &str = "{user}";
const DOMAIN: &str = "{domain}";

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pop3 {
    /// Addresses in plain text, with STLS if there is a certificate. POP3 has port 110.
    pub listen: Vec<SocketAddr>,
    /// Addresses with TLS from the first octet on. pop3s has port 995.
    pub listen_tls: Vec<SocketAddr>,
    /// PEM files: the certificate with those that lead to its authority, and its key.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// A user's Maildir, such as `/home/{user}/Maildir` or `/var/mail/{domain}/{user}`. With `{domain}` the login is cut at its
    /// last `@`, and one without has no mailbox; else `{user}` is the whole login.
    pub maildir: String,
    pub sessions_max: usize,
    /// Of one client; an IPv6 client is its /64.
    pub sessions_per_address: usize,
    /// RFC 1939 has it that this is at least 600.
    pub idle_timeout_secs: u64,
    /// Passwords are taken without TLS, from others than loopback too.
    pub plain_logins: bool,
    /// Passwords for POP3 alone, which the daemon need not be able to read. None: those of `[auth]`.
    pub password_file: Option<PathBuf>,
    /// Lines `user:{PLAIN}SECRET` for APOP, which needs the secret itself. None: no APOP.
    pub apop_secrets: Option<PathBuf>,
}

impl Default for Pop3 {
    fn default() -> Pop3 {
        Pop3 {
            listen: Vec::new(),
            listen_tls: Vec::new(),
            certificate: None,
            key: None,
            maildir: String::new(),
            sessions_max: 500,
            sessions_per_address: 20,
            idle_timeout_secs: 600,
            plain_logins: false,
            password_file: None,
            apop_secrets: None,
        }
    }
}

/// Where a mailbox is: `below` has no links that are followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MailboxPath {
    pub(crate) base: PathBuf,
    pub(crate) below: PathBuf,
}

impl Pop3 {
    /// The user's Maildir. `None` for a name that shall be in no path: ASCII letters, digits and `.-_+@` are let through,
    /// and no part may begin with a dot.
    pub(crate) fn mailbox_of(&self, login: &str) -> Option<MailboxPath> {
        let (user, domain) = match self.maildir.contains(DOMAIN) {
            true => login.rsplit_once('@')?,
            false => (login, "-"),
        };
        if !(is_plain(user) && is_plain(domain)) {
            return None;
        }
        // What is put in has no brace, so nothing is replaced twice.
        let fill = |text: &str| text.replace(USER, user).replace(DOMAIN, &domain.to_ascii_lowercase());
        let first = self.maildir.find('{')?;
        let cut = self.maildir[..first].rfind('/')? + 1;
        let (base, below) = self.maildir.split_at(cut);
        Some(MailboxPath { base: base.into(), below: fill(below).into() })
    }

    /// What must hold, and what is said if it does not.
    pub(super) fn check(&self, has_passwords: bool) -> Result<(), String> {
        let has_certificate = self.certificate.is_some();
        let addresses = self.listen.len() + self.listen_tls.len();
        let others = self.maildir.replace(USER, "").replace(DOMAIN, "");
        let rules = [
            (addresses > 0, "listen and listen_tls are empty: nobody could connect"),
            (addresses <= ADDRESSES_MAX, "listen and listen_tls: more than 64 addresses"),
            (has_certificate == self.key.is_some(), "certificate and key go together"),
            (has_certificate || self.listen_tls.is_empty(), "listen_tls needs certificate and key"),
            (
                Path::new(&self.maildir).is_absolute(),
                "maildir must be a whole path, such as /home/{user}/Maildir",
            ),
            (self.maildir.contains(USER), "maildir must have {user} in it: else all users had the same mail"),
            (!others.contains(['{', '}']), "maildir: {user} and {domain} are all that is put in"),
            ((1..=SESSIONS_MAX).contains(&self.sessions_max), "sessions_max must be 1 to 10000"),
            (self.sessions_per_address > 0, "sessions_per_address must be at least 1"),
            (
                (1..=IDLE_TIMEOUT_MAX_SECS).contains(&self.idle_timeout_secs),
                "idle_timeout_secs must be 1 to 86400",
            ),
            (
                has_passwords || self.password_file.is_some() || self.apop_secrets.is_some(),
                "nobody could log in: add password_file here, or that or checkpassword to [auth]",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(format!("pop3: {what}")))
    }
}

fn is_plain(name: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b".-_+@".contains(&octet);
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(maildir: &str) -> Pop3 {
        let listen = vec!["127.0.0.1:110".parse().unwrap()];
        Pop3 { listen, maildir: maildir.to_owned(), ..Pop3::default() }
    }

    fn path(maildir: &str, login: &str) -> Option<String> {
        of(maildir).mailbox_of(login).map(|path| format!("{}|{}", path.base.display(), path.below.display()))
    }

    #[test]
    fn plain_names_are_put_in() {
        let home = "/mail/{user}/Maildir";
        assert_eq!(path(home, "ann").unwrap(), "/mail/|ann/Maildir");
        assert_eq!(path(home, "ann@example.net").unwrap(), "/mail/|ann@example.net/Maildir");
        assert_eq!(path("/v/{domain}/{user}", "a.b+c@Example.NET").unwrap(), "/v/|example.net/a.b+c");
        assert_eq!(path("/v/x-{user}/y", "a@b@c").unwrap(), "/v/|x-a@b@c/y");
        assert_eq!(path("/{user}", "ann").unwrap(), "/|ann");
    }

    #[test]
    fn other_names_have_no_mailbox() {
        for login in [
            "",
            ".",
            "..",
            ".ann",
            "a/b",
            "../ann",
            "a\0",
            "a b",
            "{user}",
            "\u{e4}",
            "a\\b",
            "~",
            &"a".repeat(256),
        ] {
            assert_eq!(path("/mail/{user}/Maildir", login), None, "{login:?}");
        }
        for login in ["ann", "@", "ann@", "@b", "ann@.", "ann@..", "..@b", "ann@a/b"] {
            assert_eq!(path("/v/{domain}/{user}", login), None, "{login:?}");
        }
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        let wrong = |change: fn(&mut Pop3)| {
            let mut pop3 = of("/mail/{user}/Maildir");
            assert_eq!(pop3.check(true), Ok(()));
            change(&mut pop3);
            pop3.check(true).unwrap_err()
        };
        assert!(wrong(|pop3| pop3.listen.clear()).contains("nobody could connect"));
        assert!(wrong(|pop3| pop3.key = Some("k".into())).contains("go together"));
        assert!(wrong(|pop3| pop3.listen_tls = pop3.listen.clone()).contains("needs certificate"));
        assert!(wrong(|pop3| pop3.maildir = "home/{user}".into()).contains("whole path"));
        assert!(wrong(|pop3| pop3.maildir = "/var/mail".into()).contains("must have {user}"));
        assert!(wrong(|pop3| pop3.maildir = "/{user}/{home}".into()).contains("all that is put in"));
        assert!(wrong(|pop3| pop3.sessions_max = 0).contains("1 to 10000"));
        assert!(wrong(|pop3| pop3.idle_timeout_secs = 0).contains("1 to 86400"));
        assert!(of("/{user}").check(false).unwrap_err().contains("nobody could log in"));
    }
}
