//! `ringpost passwd`: one user's lines in a password file.
//!
//! A new password replaces all of the user's lines, because an old one that stayed would still open the door. How the file
//! is replaced: see [`super::secrets`].

use super::complain;
use super::secrets::{SecretsError, rewrite};
use crate::auth::{PASSWORD_MAX, Passwords, Scheme, lines_of, with_lines};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The password file; made if it is not there.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// How the password is kept; may be given several times. Default: as before, else argon2id.
    #[arg(long, value_enum)]
    scheme: Vec<Scheme>,
    /// Say by the exit code whether the password is right: 0 if it is, 1 if not. Writes nothing.
    #[arg(long, conflicts_with_all = ["scheme", "delete"])]
    check: bool,
    /// Take the user out.
    #[arg(long, conflicts_with = "scheme")]
    delete: bool,
    /// The name to log in by.
    user: String,
}

pub(super) fn run(args: &Passwd) -> ExitCode {
    let done = if args.check { check(args) } else { change(args).map(|()| ExitCode::SUCCESS) };
    done.unwrap_or_else(|error| error.exit())
}

fn check(args: &Passwd) -> Result<ExitCode, SecretsError> {
    let passwords = Passwords::load(&args.file)?;
    let password = read_password(false)?;
    if passwords.check(&args.user, &password) {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(complain(1, &format!("that is not the password of {:?}", args.user)))
}

fn change(args: &Passwd) -> Result<(), SecretsError> {
    let password = if args.delete { None } else { Some(read_password(true)?) };
    rewrite(&args.file, |old| {
        let passwords = Passwords::parse(old, &args.file.display().to_string())?;
        if args.delete && !passwords.has(&args.user) {
            return Err(SecretsError::Input("there is no such user"));
        }
        let lines = match &password {
            Some(password) => {
                lines_of(&args.user, &schemes(args, &passwords), password).map_err(SecretsError::Input)?
            }
            None => String::new(),
        };
        Ok(with_lines(old, &args.user, &lines))
    })
}

fn schemes(args: &Passwd, passwords: &Passwords) -> Vec<Scheme> {
    let kept = if args.scheme.is_empty() { passwords.schemes(&args.user) } else { args.scheme.clone() };
    if kept.is_empty() { vec![Scheme::Argon2id] } else { kept }
}

/// From the terminal without showing it, twice if `is_new`; else the first line of standard input.
fn read_password(is_new: bool) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let password = ask("Password: ")?;
    if is_new && *ask("Again: ")? != *password {
        return Err(SecretsError::Input("these are two different passwords"));
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, SecretsError> {
    eprint!("{prompt}");
    let shown = tcgetattr(io::stdin()).map_err(|error| SecretsError::Read(error.into()))?;
    let mut hidden = shown.clone();
    // With signals it would stay hidden after Ctrl-C; without, Ctrl-C is one more octet.
    hidden.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
    let set = |modes| {
        tcsetattr(io::stdin(), OptionalActions::Flush, modes)
            .map_err(|error| SecretsError::Read(error.into()))
    };
    set(&hidden)?;
    let password = read_line();
    set(&shown)?;
    eprintln!();
    match password {
        Ok(password) if password.contains(&3) => Err(SecretsError::Input("given up")),
        password => password,
    }
}

fn read_line() -> Result<Zeroizing<Vec<u8>>, SecretsError> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_MAX + 2));
    let most = PASSWORD_MAX as u64 + 2;
    io::stdin().lock().take(most).read_until(b'\n', &mut line).map_err(SecretsError::Read)?;
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    match line.len() {
        0 => Err(SecretsError::Input("no password was given")),
        len if len > PASSWORD_MAX => Err(SecretsError::Input("a password has at most 480 octets")),
        _ => Ok(line),
    }
}
