//! One password as a file keeps it, and whether another is the same.
//!
//! argon2id as a PHC string, SHA-crypt (`$5$`, `$6$`), yescrypt (`$y$`) as libcrypt writes them, SCRAM-SHA-256's keys,
//! and the password itself, which CRAM-MD5 needs (RFC 2195). All are compared in constant time.
//! Bound: a hash costs at most [`MEMORY_MAX`] of memory and about a second; one that wants more is refused when it is read.

use super::scram::{self, ITERATIONS, SALT_LEN};
use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use message::Secret;
use sha_crypt::ShaCrypt;
use smtp_in::door::ScramKeys;
use yescrypt::Yescrypt;

/// Octets that one hash may take.
const MEMORY_MAX: u64 = 256 << 20;

/// KiB that argon2 may fill altogether: memory by passes.
const ARGON2_WORK_MAX: u64 = 1 << 20;

const ROUNDS_MAX: u32 = 1_000_000;
const SCRAM_ITERATIONS_MAX: u32 = 1_000_000;

/// The ways to keep a password that we write.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Scheme {
    /// For PLAIN and LOGIN.
    Argon2id,
    /// For SCRAM-SHA-256, and for PLAIN and LOGIN.
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// The password itself, for CRAM-MD5, and for PLAIN and LOGIN.
    Plain,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) enum Hash {
    Argon2id(Box<PasswordHash>),
    ShaCrypt(Box<str>),
    Yescrypt(Box<str>),
    Scram(ScramKeys),
    Plain(Secret),
}

impl Hash {
    /// Errors say what is wrong and never what stands there.
    pub(super) fn parse(text: &str) -> Result<Hash, &'static str> {
        if let Some(password) = text.strip_prefix("{PLAIN}") {
            let is_fit = super::is_fit("-", password.as_bytes());
            let hash = || Hash::Plain(Secret::new(password.as_bytes().to_vec()));
            return if is_fit { Ok(hash()) } else { Err("a password has 1 to 480 octets and no NUL") };
        }
        match text.strip_prefix('$').and_then(|rest| rest.split_once('$')) {
            Some(("argon2id", _)) => parse_argon2id(text),
            Some(("5", rest)) => parse_sha_crypt(text, rest, 43),
            Some(("6", rest)) => parse_sha_crypt(text, rest, 86),
            Some(("y", rest)) => parse_yescrypt(text, rest),
            Some(("scram-sha-256", rest)) => parse_scram(rest).map(Hash::Scram),
            _ => Err("no known scheme: $argon2id$, $5$, $6$, $y$, $scram-sha-256$ and {PLAIN} are; \
                      `ringpost passwd` writes such lines"),
        }
    }

    /// Takes as long as the scheme wants.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Hash::Argon2id(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            Hash::ShaCrypt(hash) => ShaCrypt::default().verify_password(password, &**hash).is_ok(),
            Hash::Yescrypt(hash) => Yescrypt::default().verify_password(password, &**hash).is_ok(),
            Hash::Scram(keys) => scram::matches(keys, password),
            Hash::Plain(own) => is_same(own.octets(), password),
        }
    }

    /// The way to keep a new password for whoever had this one.
    pub(super) fn successor(&self) -> Scheme {
        match self {
            Hash::Argon2id(_) | Hash::ShaCrypt(_) | Hash::Yescrypt(_) => Scheme::Argon2id,
            Hash::Scram(_) => Scheme::ScramSha256,
            Hash::Plain(_) => Scheme::Plain,
        }
    }

    /// As it stands in a file. `None`: the password is not fit, or the system has no random octets.
    pub(super) fn make(scheme: Scheme, password: &[u8]) -> Option<String> {
        if !super::is_fit("-", password) {
            return None;
        }
        let mut salt = [0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).ok()?;
        match scheme {
            Scheme::Argon2id => {
                use argon2::PasswordHasher as _;
                Some(Argon2::default().hash_password_with_salt(password, &salt).ok()?.to_string())
            }
            Scheme::ScramSha256 => Some(show_scram(&scram::derive(password, &salt, ITERATIONS))),
            // A line end would begin another user's line.
            Scheme::Plain if password.iter().any(|octet| *octet == b'\n' || *octet == b'\r') => None,
            Scheme::Plain => {
                std::str::from_utf8(password).ok().map(|password| format!("{{PLAIN}}{password}"))
            }
        }
    }
}

/// Digests first: their length is all that may be told, and a password's not even that.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let digest = |octets: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, octets);
    verify_slices_are_equal(digest(one).as_ref(), digest(other).as_ref()).is_ok()
}

fn parse_argon2id(text: &str) -> Result<Hash, &'static str> {
    const WRONG: &str = "no PHC string of argon2id: $argon2id$v=19$m=...,t=...,p=...$SALT$HASH";
    let hash = PasswordHash::new(text).map_err(|_| WRONG)?;
    let params = argon2::Params::try_from(&hash).map_err(|_| WRONG)?;
    let is_version = hash.version.is_none_or(|version| version == 19 || version == 16);
    let (memory, passes) = (u64::from(params.m_cost()), u64::from(params.t_cost()));
    if hash.salt.is_none() || hash.hash.is_none() || !is_version {
        return Err(WRONG);
    }
    if memory << 10 > MEMORY_MAX || memory * passes > ARGON2_WORK_MAX {
        return Err("argon2id with more than 256 MiB, or more than 1 GiB over all passes");
    }
    Ok(Hash::Argon2id(Box::new(hash)))
}

/// `rest`: `[rounds=N$]SALT$HASH`.
fn parse_sha_crypt(text: &str, rest: &str, hash_len: usize) -> Result<Hash, &'static str> {
    const WRONG: &str = "no SHA-crypt string: $6$[rounds=N$]SALT$HASH";
    let mut parts: Vec<&str> = rest.split('$').collect();
    if let Some(rounds) = parts[0].strip_prefix("rounds=") {
        let rounds: u32 = rounds.parse().map_err(|_| WRONG)?;
        if !(1000..=ROUNDS_MAX).contains(&rounds) {
            return Err("SHA-crypt with less than 1000 or more than 1000000 rounds");
        }
        parts.remove(0);
    }
    let [salt, hash] = parts[..] else { return Err(WRONG) };
    let is_right = salt.len() <= 16 && salt.is_ascii() && hash.len() == hash_len && is_crypt64(hash);
    if is_right { Ok(Hash::ShaCrypt(text.into())) } else { Err(WRONG) }
}

/// `rest`: `PARAMS$SALT$HASH`. libcrypt's own settings have three characters (flavour, cost, block size); what more
/// there may be makes a hash dearer than we allow.
fn parse_yescrypt(text: &str, rest: &str) -> Result<Hash, &'static str> {
    const WRONG: &str = "no yescrypt string as libcrypt writes it: $y$j9T$SALT$HASH";
    let parts: Vec<&str> = rest.split('$').collect();
    let [settings, salt, hash] = parts[..] else { return Err(WRONG) };
    let is_right =
        settings.len() == 3 && is_crypt64(salt) && salt.len() <= 86 && hash.len() == 43 && is_crypt64(hash);
    let params = settings.parse::<yescrypt::Params>().map_err(|_| WRONG)?;
    if !is_right {
        return Err(WRONG);
    }
    if params.n().saturating_mul(u64::from(params.r())).saturating_mul(128) > MEMORY_MAX {
        return Err("yescrypt with more than 256 MiB");
    }
    Ok(Hash::Yescrypt(text.into()))
}

fn is_crypt64(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'.' || octet == b'/')
}

/// `text`: `ITERATIONS$SALT$STOREDKEY$SERVERKEY`, the last three in base64.
fn parse_scram(text: &str) -> Result<ScramKeys, &'static str> {
    const WRONG: &str = "no keys of SCRAM: $scram-sha-256$ITERATIONS$SALT$STOREDKEY$SERVERKEY, in base64";
    let parts: Vec<&str> = text.split('$').collect();
    let [iterations, salt, stored_key, server_key] = parts[..] else { return Err(WRONG) };
    let octets = |text: &str| STANDARD.decode(text).map_err(|_| WRONG);
    let key = |text: &str| octets(text)?.try_into().map_err(|_| WRONG);
    let iterations: u32 = iterations.parse().map_err(|_| WRONG)?;
    if !(4096..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
        return Err("SCRAM with less than 4096 (RFC 7677) or more than 1000000 iterations");
    }
    let salt = octets(salt)?;
    if !(8..=64).contains(&salt.len()) {
        return Err("SCRAM with a salt of less than 8 or more than 64 octets");
    }
    Ok(ScramKeys { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? })
}

fn show_scram(keys: &ScramKeys) -> String {
    let base64 = |octets: &[u8]| STANDARD.encode(octets);
    format!(
        "$scram-sha-256${}${}${}${}",
        keys.iterations,
        base64(&keys.salt),
        base64(&keys.stored_key),
        base64(&keys.server_key)
    )
}

#[cfg(test)]
mod tests;
