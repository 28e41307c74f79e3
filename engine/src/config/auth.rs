//! `[auth]`: whose passwords are right.

use super::{ConfigError, Rate};
use crate::auth::Passwords;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Threads that hash.
const THREADS_MAX: usize = 64;

/// Arguments of the program, and their octets together.
const ARGUMENTS_MAX: usize = 64;

/// A longer memory would keep a password alive that was taken back.
const REMEMBER_SECS_MAX: u64 = 3600;

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Lines `user:HASH`; `ringpost passwd` writes them. Read again by a reload.
    pub password_file: Option<PathBuf>,
    /// A program with DJB's checkpassword interface, and its arguments: asked about users that the file does not have.
    pub checkpassword: Vec<String>,
    /// Wrong passwords of one client (an IPv6 client is its /64) and for one user; past them 454 without looking.
    pub wrong_per_address: Rate,
    pub wrong_per_user: Rate,
    /// A right password is known again for this long without being hashed. 0: never.
    pub remember_secs: u64,
    /// Threads that hash, beside the cores'. Changed by a restart only.
    pub threads: usize,
}

impl Default for Auth {
    fn default() -> Auth {
        let rate = |text: &str| Rate::try_from(text.to_owned()).expect("a rate");
        Auth {
            password_file: None,
            checkpassword: Vec::new(),
            wrong_per_address: rate("10/10min"),
            wrong_per_user: rate("100/10min"),
            remember_secs: 60,
            threads: 2,
        }
    }
}

impl Auth {
    /// There is somebody to ask.
    pub fn is_on(&self) -> bool {
        self.password_file.is_some() || !self.checkpassword.is_empty()
    }

    /// What the password file says now; nobody without one.
    pub fn load_passwords(&self) -> Result<Passwords, ConfigError> {
        self.password_file.as_ref().map_or_else(|| Ok(Passwords::default()), |path| Passwords::load(path))
    }

    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let program = self.checkpassword.first();
        let rules = [
            (
                program.is_none_or(|path| path.starts_with('/')),
                "auth.checkpassword must begin with the program's whole path, such as /usr/local/bin/checkpassword",
            ),
            (self.checkpassword.len() <= ARGUMENTS_MAX, "auth.checkpassword has more than 64 arguments"),
            (
                self.checkpassword.iter().all(|argument| !argument.contains('\0')),
                "auth.checkpassword: an argument has a NUL",
            ),
            ((1..=THREADS_MAX).contains(&self.threads), "auth.threads must be 1 to 64"),
            (self.remember_secs <= REMEMBER_SECS_MAX, "auth.remember_secs must be at most 3600"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(keys: &str) -> String {
        toml::from_str::<Auth>(keys).unwrap().check().unwrap_err()
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(wrong("checkpassword = [\"checkpassword\"]").contains("whole path"));
        assert!(wrong("checkpassword = [\"/bin/c\", \"a\\u0000b\"]").contains("NUL"));
        assert!(wrong("threads = 0").contains("1 to 64"));
        assert!(wrong("remember_secs = 4000").contains("at most 3600"));
        assert!(toml::from_str::<Auth>("wrong_per_user = \"10\"").is_err());
    }

    #[test]
    fn nobody_is_asked_unless_something_is_configured() {
        let auth = Auth::default();
        assert!(auth.check().is_ok() && !auth.is_on());
        assert!(toml::from_str::<Auth>("password_file = \"/etc/p\"").unwrap().is_on());
        let shown = toml::to_string(&auth).unwrap();
        assert_eq!(toml::from_str::<Auth>(&shown).unwrap().threads, auth.threads);
    }
}
