//! What the small programs of qmail decide that stand in `.qmail` files: `forward`, `preline`, `condredirect`,
//! `bouncesaying`, `except`, `qreceipt`, `qbiff`, `maildirmake`, and `fastforward` and `dot-forward`.
//!
//! Only their arguments, variables, exit codes and words are here; starting programs, reading the message and handing
//! one in is their commands' part. Words and codes are qmail's own, since scripts know them. Bounds: [`HEADER_MAX`]
//! octets of a header are read.

mod aliased;
mod notice;
mod redirect;

pub use aliased::{DotForward, Fastforward, dot_forward, fastforward};
pub use notice::{Receipt, biff_lines, fuzz_receipt, receipt};
pub use redirect::{ChildEnd, Except, Gate, except_of, gate_of, start_failed};

/// Octets of a header that is looked at.
pub const HEADER_MAX: usize = 1 << 20;

/// A program's end: its code, and one line for standard error if it has something to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    pub code: u8,
    pub words: String,
}

impl Exit {
    pub fn new(code: u8, words: impl Into<String>) -> Exit {
        Exit { code, words: words.into() }
    }

    pub fn silent(code: u8) -> Exit {
        Exit::new(code, "")
    }
}

/// Finds a variable's value.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A message to be sent on: as it came, behind `top`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resent {
    pub sender: String,
    /// The Delivered-To line.
    pub top: String,
    pub recipients: Vec<String>,
}

/// Letters of the options before the first word that is none, or before `--`, and that word and those behind it. `None`: one
/// of them is not `known`.
fn options<'a>(arguments: &'a [String], known: &str) -> Option<(String, &'a [String])> {
    let mut found = String::new();
    let mut rest = arguments;
    while let [first, behind @ ..] = rest
        && let Some(letters) = first.strip_prefix('-').filter(|letters| !letters.is_empty())
    {
        rest = behind;
        if letters == "-" {
            break;
        }
        found.push_str(letters);
    }
    found.chars().all(|letter| known.contains(letter)).then_some((found, rest))
}

/// Whether the last letter that is one of the pair is its second. `None`: there is none.
fn has_last(letters: &str, pair: &str) -> Option<bool> {
    let last = letters.chars().rfind(|letter| pair.contains(*letter))?;
    Some(pair.ends_with(last))
}

fn needed(program: &str, name: &str, variables: Variables<'_>) -> Result<String, Exit> {
    variables(name).ok_or_else(|| Exit::new(100, format!("{program}: fatal: {name} not set")))
}

/// `forward address …`: to all of them, from the new sender.
pub fn forward(arguments: &[String], variables: Variables<'_>) -> Result<Resent, Exit> {
    Ok(Resent {
        sender: needed("forward", "NEWSENDER", variables)?,
        top: needed("forward", "DTLINE", variables)?,
        recipients: arguments.to_vec(),
    })
}

/// `condredirect newaddress program [ arg … ]`: the address and the program.
pub fn condredirect(arguments: &[String]) -> Result<(&str, &[String]), Exit> {
    match arguments {
        [address, program @ ..] if !program.is_empty() => Ok((address, program)),
        _ => Err(Exit::new(100, "condredirect: usage: condredirect newaddress program [ arg ... ]")),
    }
}

/// What `condredirect` sends once its program has said yes. The sender stays who it was.
pub fn redirected(address: &str, variables: Variables<'_>) -> Result<Resent, Exit> {
    Ok(Resent {
        sender: needed("condredirect", "SENDER", variables)?,
        top: needed("condredirect", "DTLINE", variables)?,
        recipients: vec![address.to_owned()],
    })
}

/// `bouncesaying error [ program [ arg … ] ]`: the error, and the program if there is one.
pub fn bouncesaying(arguments: &[String]) -> Result<(&str, &[String]), Exit> {
    match arguments {
        [words, program @ ..] => Ok((words, program)),
        [] => Err(Exit::new(100, "bouncesaying: usage: bouncesaying error [ program [ arg ... ] ]")),
    }
}

/// `except program [ arg … ]`: the program.
pub fn except(arguments: &[String]) -> Result<&[String], Exit> {
    match arguments {
        [] => Err(Exit::new(100, "except: usage: except program [ arg ... ]")),
        program => Ok(program),
    }
}

/// `preline [ -frdFRD ] cmd [ arg … ]`: lines to put before the message, and the program that gets it all.
pub fn preline<'a>(
    arguments: &'a [String],
    variables: Variables<'_>,
) -> Result<(String, &'a [String]), Exit> {
    let usage = || Exit::new(100, "preline: usage: preline cmd [ arg ... ]");
    let line = |name| variables(name).ok_or_else(usage);
    let lines = [line("UFLINE")?, line("RPLINE")?, line("DTLINE")?];
    let (letters, rest) = options(arguments, "frdFRD").ok_or_else(usage)?;
    let wanted = ["fF", "rR", "dD"].map(|pair| has_last(&letters, pair).unwrap_or(true));
    if rest.is_empty() {
        return Err(usage());
    }
    let top = lines.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(line, _)| line).collect();
    Ok((top, rest))
}

/// `maildirmake name`: the folders to make, in order, each with mode 700.
pub fn maildirmake(arguments: &[String]) -> Result<[String; 4], Exit> {
    match arguments {
        [name, ..] => Ok([name.clone(), format!("{name}/tmp"), format!("{name}/new"), format!("{name}/cur")]),
        [] => Err(Exit::new(100, "maildirmake: usage: maildirmake name")),
    }
}

/// What `maildirmake` says of a folder that it could not make.
pub fn cannot_make(folder: &str, error: &std::io::Error) -> Exit {
    let why = crate::failure::reason(error);
    Exit::new(111, format!("maildirmake: fatal: unable to mkdir {folder}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "UFLINE" => "From u\n",
            "RPLINE" => "Return-Path: <r>\n",
            "DTLINE" => "Delivered-To: d\n",
            "SENDER" => "ann@example.net",
            "NEWSENDER" => "owner@example.net",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn forward_has_the_new_sender_and_condredirect_the_old_one() {
        let sent = forward(&words("a@x.test b@x.test"), &variables).unwrap();
        assert_eq!((sent.sender.as_str(), sent.recipients.len()), ("owner@example.net", 2));
        assert_eq!(redirected("a@x.test", &variables).unwrap().sender, "ann@example.net");
        assert_eq!(forward(&[], &none), Err(Exit::new(100, "forward: fatal: NEWSENDER not set")));
        assert_eq!(redirected("a", &none), Err(Exit::new(100, "condredirect: fatal: SENDER not set")));
    }

    #[test]
    fn preline_puts_the_lines_that_are_wanted() {
        let top =
            |arguments: &str| preline(&words(arguments), &variables).map(|(top, rest)| (top, rest.len()));
        assert_eq!(top("cmd -f"), Ok(("From u\nReturn-Path: <r>\nDelivered-To: d\n".into(), 2)));
        assert_eq!(top("-df cmd"), Ok(("Return-Path: <r>\n".into(), 1)));
        assert_eq!(top("-dfr -F -- -cmd"), Ok(("From u\n".into(), 1)));
        assert_eq!(top("-x cmd").unwrap_err().code, 100);
        assert_eq!(top("-f").unwrap_err().words, "preline: usage: preline cmd [ arg ... ]");
        assert_eq!(preline(&words("cmd"), &none).unwrap_err().code, 100);
    }

    #[test]
    fn programs_are_asked_for() {
        assert_eq!(condredirect(&words("a@x.test grep x")).unwrap().1.len(), 2);
        assert_eq!(condredirect(&words("a@x.test")).unwrap_err().code, 100);
        assert_eq!(bouncesaying(&words("no")).unwrap(), ("no", &[][..]));
        assert!(bouncesaying(&[]).is_err() && except(&[]).is_err() && maildirmake(&[]).is_err());
        assert_eq!(maildirmake(&words("M")).unwrap(), ["M", "M/tmp", "M/new", "M/cur"]);
        let error = std::io::Error::from_raw_os_error(17);
        assert_eq!(cannot_make("M", &error).words, "maildirmake: fatal: unable to mkdir M: file exists");
    }
}
