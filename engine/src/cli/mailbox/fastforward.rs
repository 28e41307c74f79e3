//! `fastforward [ -nNpPdD ] data.cdb`: a message to whom a database of aliases names for its recipient.
//!
//! What the letters mean and which codes follow is [`local::filters`]' to say, whom an alias stands for
//! [`local::aliases::database`]'s. Programs and files come first and addresses last, as in a `.qmail` file: if one of the
//! first fails, nothing was sent on yet. The database is read at the places that the look-ups need.

use super::letter::{Letter, no_at_host, unreadable};
use super::{variable, whichever};
use local::aliases::database::{Expansion, expand};
use local::aliases::files::{self, FileLists};
use local::filters::{self as rules, Exit, Fastforward};
use std::path::Path;

const NAME: &str = "fastforward";

pub(super) fn run(words: &[String]) -> Exit {
    whichever(rules::fastforward(words, &variable).and_then(|wanted| {
        let found = expansion(&wanted)?;
        let code = wanted.code(&found)?;
        if wanted.explains {
            return Ok(Exit::new(code, wanted.explained(&found)));
        }
        Ok(Exit::new(code, carry_out(&found)?))
    }))
}

fn expansion(wanted: &Fastforward<'_>) -> Result<Expansion, Exit> {
    let Fastforward { recipient, sender, database, .. } = wanted;
    let table = files::open(Path::new(database)).map_err(|error| unreadable(NAME, database, &error))?;
    let no_at_host = no_at_host(NAME)?;
    expand(&table, &no_at_host, recipient, sender, &mut FileLists).map_err(|error| wanted.failed(error))
}

/// Returns what there is to say.
fn carry_out(found: &Expansion) -> Result<String, Exit> {
    let mut letter = Letter::of(NAME)?;
    for (program, has_top) in &found.programs {
        letter.run(program, *has_top)?;
    }
    for path in &found.files {
        letter.deliver_to(path)?;
    }
    if found.addresses.is_empty() {
        return Ok(String::new());
    }
    letter.send_on(&found.sender, &found.addresses)
}
