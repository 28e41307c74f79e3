//! `dot-forward [ -nN ] file ...`: a message to whom the first of these `.forward` files names that is there.
//!
//! 99 when it did, so that the instructions behind it are not followed; 0 when they are: there is no such file, it says
//! nothing, or it asks for the user's own mailbox too. Programs and files come first and addresses last. What stands in such a
//! file is [`local::aliases::forward_file`]'s to say.

use super::letter::{Letter, no_at_host, unreadable};
use super::{variable, whichever};
use local::aliases::database::addresses_of;
use local::aliases::files::{self, FileLists};
use local::aliases::forward_file::{self, Forwarding};
use local::failure::Failure;
use local::filters::{self as rules, DotForward, Exit};
use message::Domain;
use std::path::Path;

const NAME: &str = "dot-forward";

pub(super) fn run(words: &[String]) -> Exit {
    whichever(rules::dot_forward(words, &variable).and_then(|wanted| follow(&wanted)))
}

fn follow(wanted: &DotForward<'_>) -> Result<Exit, Exit> {
    let no_at_host = no_at_host(NAME)?;
    for path in wanted.files {
        let text = files::read_forward(Path::new(path)).map_err(|error| unreadable(NAME, path, &error))?;
        let Some(text) = text else { continue };
        let found = forward_file::parse(&text, &wanted.user, &wanted.host, &no_at_host)
            .map_err(|error| Exit::new(111, format!("{NAME}: fatal: {path}: {error}")))?;
        if wanted.explains && !found.is_empty() {
            return Ok(Exit::new(found.exit_code(), wanted.explained(&found)));
        }
        if !found.is_empty() {
            return Ok(Exit::new(found.exit_code(), carry_out(wanted, &found, &no_at_host)?));
        }
    }
    Ok(Exit::new(0, if wanted.explains { "direct delivery" } else { "" }))
}

/// Returns what there is to say.
fn carry_out(wanted: &DotForward<'_>, found: &Forwarding, no_at_host: &Domain) -> Result<String, Exit> {
    let mut addresses = found.addresses.clone();
    let listed = addresses_of(&found.lists, no_at_host, &mut FileLists).map_err(|error| {
        let failure = Failure::from(error);
        Exit::new(failure.exit_code(), format!("{NAME}: fatal: {failure}"))
    })?;
    addresses.extend(listed);
    let mut letter = Letter::of(NAME)?;
    for program in &found.programs {
        letter.run(program, true)?;
    }
    for path in &found.files {
        letter.deliver_to(path)?;
    }
    if addresses.is_empty() {
        return Ok(String::new());
    }
    letter.send_on(&wanted.sender, &addresses)
}
