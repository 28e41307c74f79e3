//! `ringpost token`: one program's line in a file of tokens.
//!
//! The token is shown once, on standard output; the file has its SHA-256 alone. A new one replaces the old one of its name
//! as soon as the daemon reloads.

use super::secrets::{SecretsError, rewrite};
use crate::auth::{Scope, Tokens, make_token, with_lines};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// The file of tokens; made if it is not there.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// What its holder may do; may be given several times. Default: everything.
    #[arg(long, value_enum)]
    scope: Vec<Scope>,
    /// Take the token out.
    #[arg(long, conflicts_with = "scope")]
    delete: bool,
    /// Whom it is for: stands in the daemon's log.
    name: String,
}

pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let done = if args.delete { delete(args) } else { make(args) };
    done.map_or_else(|error| error.exit(), |()| ExitCode::SUCCESS)
}

fn make(args: &TokenArgs) -> Result<(), SecretsError> {
    let (token, line) = make_token(&args.name, &args.scope).map_err(SecretsError::Input)?;
    rewrite(&args.file, |old| {
        let new = with_lines(old, &args.name, &line);
        Tokens::parse(&new, &args.file.display().to_string())?;
        Ok(new)
    })?;
    println!("{token}");
    eprintln!("This is shown once. The daemon knows it after a reload (SIGHUP).");
    Ok(())
}

fn delete(args: &TokenArgs) -> Result<(), SecretsError> {
    rewrite(&args.file, |old| {
        let tokens = Tokens::parse(old, &args.file.display().to_string())?;
        if !tokens.has(&args.name) {
            return Err(SecretsError::Input("there is no such token"));
        }
        Ok(with_lines(old, &args.name, ""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &std::path::Path, name: &str, delete: bool) -> TokenArgs {
        TokenArgs { file: file.to_owned(), scope: vec![Scope::Read], delete, name: name.to_owned() }
    }

    #[test]
    fn tokens_are_made_replaced_and_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        make(&args(&file, "ann", false)).unwrap();
        make(&args(&file, "bob", false)).unwrap();
        let before = std::fs::read_to_string(&file).unwrap();
        make(&args(&file, "ann", false)).unwrap();
        let after = std::fs::read_to_string(&file).unwrap();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(lines(&before)[0] != lines(&after)[0] && lines(&before)[1] == lines(&after)[1]);
        delete(&args(&file, "ann", true)).unwrap();
        assert_eq!(lines(&std::fs::read_to_string(&file).unwrap()), lines(&after)[1..]);
        assert!(delete(&args(&file, "ann", true)).is_err() && make(&args(&file, "a:b", false)).is_err());
    }
}
