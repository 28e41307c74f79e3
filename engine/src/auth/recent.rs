//! Passwords that were right a moment ago, so that they need not be hashed again.
//!
//! Kept as an HMAC under a key that is made at the start and leaves no memory: what is found there is no password.
//! Bounds: [`USERS_MAX`] users, the last right password of each; at the bound old ones go, and if there are none the
//! new one is not kept.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key, Tag, verify};
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

const USERS_MAX: usize = 4096;

/// See the module.
pub(super) struct Recent {
    key: Key,
    users: Mutex<HashMap<Box<str>, (Tag, Instant)>>,
}

impl Recent {
    pub(super) fn new() -> Result<Recent, Unspecified> {
        Ok(Recent { key: Key::generate(HMAC_SHA256, &SystemRandom::new())?, users: Mutex::default() })
    }

    pub(super) fn holds(&self, now: Instant, user: &str, password: &[u8]) -> bool {
        let users = self.users.lock();
        let Some((tag, _)) = users.get(user).filter(|(_, until)| now < *until) else { return false };
        let said = [user.as_bytes(), b"\0", password].concat();
        let is_same = verify(&self.key, &said, tag.as_ref()).is_ok();
        drop(zeroize::Zeroizing::new(said));
        is_same
    }

    pub(super) fn keep(&self, now: Instant, until: Instant, user: &str, password: &[u8]) {
        if until <= now {
            return;
        }
        let mut users = self.users.lock();
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            users.retain(|_, (_, until)| now < *until);
        }
        if users.len() < USERS_MAX || users.contains_key(user) {
            users.insert(user.into(), (self.tag(user, password), until));
        }
    }

    /// After a reload.
    pub(super) fn forget(&self) {
        self.users.lock().clear();
    }

    fn tag(&self, user: &str, password: &[u8]) -> Tag {
        let mut context = Context::with_key(&self.key);
        [user.as_bytes(), b"\0", password].into_iter().for_each(|part| context.update(part));
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_right_password_is_known_until_its_time_is_over() {
        let (recent, now) = (Recent::new().unwrap(), crate::clock::now());
        let until = now + Duration::from_secs(60);
        recent.keep(now, until, "ann", b"secret");
        assert!(recent.holds(now, "ann", b"secret"));
        assert!(!recent.holds(now, "ann", b"secre") && !recent.holds(now, "bob", b"secret"));
        assert!(!recent.holds(until, "ann", b"secret"));
        recent.keep(now, until, "ann", b"newer");
        assert!(!recent.holds(now, "ann", b"secret") && recent.holds(now, "ann", b"newer"));
        recent.forget();
        assert!(!recent.holds(now, "ann", b"newer"));
        recent.keep(now, now, "ann", b"secret");
        assert!(recent.users.lock().is_empty(), "nothing is kept for no time");
    }

    #[test]
    fn the_table_has_a_bound() {
        let (recent, now) = (Recent::new().unwrap(), crate::clock::now());
        let until = now + Duration::from_secs(60);
        for number in 0..USERS_MAX + 3 {
            recent.keep(now, until, &number.to_string(), b"x");
        }
        assert_eq!(recent.users.lock().len(), USERS_MAX);
        recent.keep(until, until + Duration::from_secs(60), "late", b"x");
        assert!(recent.holds(until, "late", b"x") && recent.users.lock().len() == 1);
    }
}
