//! Who decides: see the parent.

use super::guesses::{Counted, Guesses, Limits};
use super::pool::{Pool, Work};
use super::program::{self, Said};
use super::recent::Recent;
use super::{Attempt, Outcome, PROGRAMS_MAX, Passwords, WAITING_MAX, is_fit, scram};
use crate::clock;
use crate::config::Auth;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use hmac::{Hmac, Mac as _};
use md5::{Digest as _, Md5};
use message::Secret;
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// See the parent. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    book: RwLock<Arc<Book>>,
    guesses: Guesses,
    recent: Recent,
    /// What keys are made up from: known to nobody who asks.
    decoys: Key,
    hashers: Pool,
    programs: Pool,
}

/// What a reload replaces.
struct Book {
    passwords: Arc<Passwords>,
    program: Arc<[String]>,
    limits: Limits,
    remembered: Duration,
    iterations: u32,
}

/// One that is decided later, by `reply`.
struct Open {
    inner: Arc<Inner>,
    book: Arc<Book>,
    counted: Counted,
    user: String,
    password: Secret,
    reply: Reply,
}

/// Answers once; if it goes without an answer, [`Outcome::Unavailable`].
struct Reply(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Reply {
    fn say(mut self, outcome: Outcome) {
        if let Some(reply) = self.0.take() {
            reply(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Outcome::Unavailable);
        }
    }
}

impl Authenticator {
    /// `secret`: the queue's (any that lives long); made-up SCRAM keys are the same as long as it is.
    pub fn new(
        config: &Auth,
        passwords: Arc<Passwords>,
        secret: &[u8; 32],
    ) -> Result<Authenticator, Unspecified> {
        // Not the secret itself: what it is for elsewhere must not be told by what we send.
        let derived = sign(&Key::new(HMAC_SHA256, secret), b"SCRAM keys of users that there are none of");
        Ok(Authenticator(Arc::new(Inner {
            book: RwLock::new(Arc::new(Book::new(config, passwords))),
            guesses: Guesses::new(clock::now()),
            recent: Recent::new()?,
            decoys: Key::new(HMAC_SHA256, derived.as_ref()),
            hashers: Pool::new("passwords", config.threads, WAITING_MAX),
            programs: Pool::new("checkpassword", PROGRAMS_MAX, WAITING_MAX),
        })))
    }

    /// After a reload. What is under way is decided by the old passwords, and not remembered.
    pub fn configure(&self, config: &Auth, passwords: Arc<Passwords>) {
        *self.0.book.write() = Arc::new(Book::new(config, passwords));
        self.0.recent.forget();
    }

    /// Counts a wrong token among the address's wrong passwords. False: there were too many before it.
    pub fn count_wrong_token(&self, address: IpAddr) -> bool {
        let per_address = self.0.book.read().limits.per_address;
        self.0.guesses.count_address(clock::now(), address, per_address)
    }

    /// `address`: the client's; `None` for one of this machine's own processes. `reply` is called once, at once or on
    /// another thread; it must not wait.
    pub fn check(
        &self,
        address: Option<IpAddr>,
        attempt: Attempt,
        reply: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let (inner, reply) = (&self.0, Reply(Some(Box::new(reply))));
        let (book, now) = (Arc::clone(&inner.book.read()), clock::now());
        if let Attempt::Password { user, password } = &attempt
            && inner.recent.holds(now, user, password.octets())
        {
            return reply.say(accepted(user));
        }
        let guesser = inner.guesses.guesser(attempt.user(), address);
        if let Attempt::Prove { user } = &attempt {
            // Counted when it asked for the keys: both are right now.
            let outcome = inner.prove(&book, user);
            let counted = Counted::again(guesser, book.limits);
            inner.settle(&book.passwords, &counted, address, user, &outcome);
            return reply.say(outcome);
        }
        let Some(counted) = inner.guesses.count(now, guesser, book.limits) else {
            tracing::info!(?address, "login put off: too many wrong passwords before it");
            return reply.say(Outcome::Unavailable);
        };
        match attempt {
            Attempt::Password { user, password } => {
                let open = Open { inner: Arc::clone(inner), book, counted, user, password, reply };
                open.begin(address);
            }
            Attempt::CramMd5 { user, challenge, digest } => {
                let outcome = cram_md5(&book.passwords, &user, &challenge, &digest);
                inner.settle(&book.passwords, &counted, address, &user, &outcome);
                reply.say(outcome);
            }
            Attempt::Apop { user, stamp, digest, of } => {
                let outcome = apop(&of, &user, &stamp, &digest);
                inner.settle(&of, &counted, address, &user, &outcome);
                reply.say(outcome);
            }
            Attempt::ScramKeys { user } | Attempt::Prove { user } => reply.say(inner.scram(&book, &user)),
        }
    }
}

impl Book {
    fn new(config: &Auth, passwords: Arc<Passwords>) -> Book {
        Book {
            iterations: passwords.scram_iterations(),
            passwords,
            program: config.checkpassword.clone().into(),
            limits: Limits { per_address: config.wrong_per_address, per_user: config.wrong_per_user },
            remembered: Duration::from_secs(config.remember_secs),
        }
    }
}

impl Inner {
    fn scram(&self, book: &Book, user: &str) -> Outcome {
        let keys = book.passwords.scram(user).cloned();
        Outcome::Scram(keys.unwrap_or_else(|| scram::make_up(&self.decoys, user, book.iterations)))
    }

    /// A reload may have taken the user away meanwhile.
    fn prove(&self, book: &Book, user: &str) -> Outcome {
        if book.passwords.scram(user).is_some() { accepted(user) } else { Outcome::Wrong }
    }

    /// Counts a wrong one, takes back what was none, and says so to the operator. A name that we do not know may be a
    /// password that was typed into the wrong field: it is not logged.
    fn settle(
        &self,
        passwords: &Passwords,
        counted: &Counted,
        address: Option<IpAddr>,
        user: &str,
        outcome: &Outcome,
    ) {
        match outcome {
            Outcome::Accepted { .. } => self.guesses.take_back(clock::now(), counted, true),
            Outcome::Unavailable | Outcome::Scram(_) => {
                self.guesses.take_back(clock::now(), counted, false);
            }
            Outcome::Wrong if passwords.has(user) => {
                tracing::info!(?address, user, "login refused: wrong password");
            }
            Outcome::Wrong => tracing::info!(?address, "login refused: the file has no such user"),
        }
    }
}

impl Open {
    fn begin(self, address: Option<IpAddr>) {
        if !is_fit(&self.user, self.password.octets()) {
            return self.end(address, Outcome::Wrong);
        }
        let inner = Arc::clone(&self.inner);
        let asks_program = !self.book.program.is_empty() && !self.book.passwords.has(&self.user);
        let (pool, decide): (_, fn(&Open) -> Outcome) =
            if asks_program { (&inner.programs, Open::ask) } else { (&inner.hashers, Open::hash) };
        // What comes back unused is dropped, which answers.
        let work: Work = Box::new(move || {
            let outcome = decide(&self);
            self.end(address, outcome);
        });
        if pool.put(work).is_err() {
            tracing::warn!(?address, "login put off: too many others are being checked");
        }
    }

    fn hash(&self) -> Outcome {
        let is_right = self.book.passwords.is_right(&self.user, self.password.octets());
        if is_right { accepted(&self.user) } else { Outcome::Wrong }
    }

    fn ask(&self) -> Outcome {
        let (program, password) = (&self.book.program, self.password.octets());
        match program::ask(program, &self.user, password, program::TIME_LIMIT) {
            Said::Right => accepted(&self.user),
            Said::Wrong => Outcome::Wrong,
            Said::Nothing(why) => {
                tracing::error!(program = program[0], "login put off: the program {why}");
                Outcome::Unavailable
            }
        }
    }

    fn end(self, address: Option<IpAddr>, outcome: Outcome) {
        let (inner, book, now) = (&self.inner, &self.book, clock::now());
        inner.settle(&book.passwords, &self.counted, address, &self.user, &outcome);
        // Under the lock, so that no reload comes in between.
        let current = inner.book.read();
        if matches!(outcome, Outcome::Accepted { .. }) && Arc::ptr_eq(&current, book) {
            inner.recent.keep(now, now + book.remembered, &self.user, self.password.octets());
        }
        drop(current);
        self.reply.say(outcome);
    }
}

fn accepted(user: &str) -> Outcome {
    Outcome::Accepted { user: user.into() }
}

/// As [`cram_md5`].
fn apop(passwords: &Passwords, user: &str, stamp: &str, digest: &[u8; 16]) -> Outcome {
    let is_right = |secret: &[u8]| {
        let made = Md5::new().chain_update(stamp).chain_update(secret).finalize();
        verify_slices_are_equal(&made, digest).is_ok()
    };
    let mut own = passwords.plain(user).peekable();
    if own.peek().is_none() {
        is_right(&[0; 16]);
    }
    if own.any(is_right) { accepted(user) } else { Outcome::Wrong }
}

/// Costs two hashes of little: nothing to put off. A user without such a password costs one of a made-up one.
fn cram_md5(passwords: &Passwords, user: &str, challenge: &str, digest: &[u8; 16]) -> Outcome {
    let is_right = |password: &[u8]| {
        let mut mac = Hmac::<Md5>::new_from_slice(password).expect("HMAC takes keys of any length");
        mac.update(challenge.as_bytes());
        mac.verify_slice(digest).is_ok()
    };
    let mut own = passwords.plain(user).peekable();
    if own.peek().is_none() {
        is_right(&[0; 16]);
    }
    if own.any(is_right) { accepted(user) } else { Outcome::Wrong }
}

#[cfg(test)]
mod tests;
