//! What `fastforward` and `dot-forward` are asked for, and how each ends.

use super::{Exit, Variables, has_last, needed, options};
use crate::aliases::database::{ExpandError, Expansion};
use crate::aliases::forward_file::Forwarding;
use crate::failure::Failure;

/// `fastforward [ -nNpPdD ] data.cdb`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fastforward<'a> {
    /// `-n`: nothing is done, and what would be is said.
    pub explains: bool,
    /// `-p`: what has no alias is left to the instructions behind this one, and nothing else is.
    pub passes: bool,
    pub recipient: String,
    pub sender: String,
    pub database: &'a str,
}

/// Arguments and variables of `fastforward`. With `-d` the recipient is `$DEFAULT@$HOST`, or `$EXT@$HOST`.
pub fn fastforward<'a>(arguments: &'a [String], variables: Variables<'_>) -> Result<Fastforward<'a>, Exit> {
    let usage = || Exit::new(100, "fastforward: usage: fastforward [ -nNpPdD ] data.cdb");
    let unset = |names: &str| Exit::new(100, format!("fastforward: fatal: {names} must be set"));
    let (letters, rest) = options(arguments, "nNpPdD").ok_or_else(usage)?;
    let database = rest.first().ok_or_else(usage)?;
    let is = |pair| has_last(&letters, pair) == Some(true);
    let recipient = if is("Dd") {
        let local = variables("DEFAULT").or_else(|| variables("EXT"));
        let local = local.ok_or_else(|| unset("$DEFAULT or $EXT"))?;
        format!("{local}@{}", variables("HOST").ok_or_else(|| unset("$HOST"))?)
    } else {
        variables("RECIPIENT").ok_or_else(|| unset("$RECIPIENT"))?
    };
    let explains = is("Nn");
    let sender = match variables("SENDER") {
        None if explains => "original envelope sender".to_owned(),
        None => return Err(unset("$SENDER")),
        Some(sender) => sender,
    };
    Ok(Fastforward { explains, passes: is("Pp"), recipient, sender, database })
}

impl Fastforward<'_> {
    /// What an expansion that came to nothing ends with.
    pub fn failed(&self, error: ExpandError) -> Exit {
        match error {
            ExpandError::Nobody if self.passes => Exit::silent(0),
            ExpandError::Nobody => Exit::new(100, ExpandError::Nobody.to_string()),
            error => {
                let Failure { words, .. } = Failure::from(error);
                Exit::new(111, format!("fastforward: fatal: {words}"))
            }
        }
    }

    /// 99 ends the instructions. An alias that asks for its own mailbox is not all there is to do: what is behind it goes on,
    /// and where nobody says that there is something, a message that would go nowhere is not dropped.
    pub fn code(&self, found: &Expansion) -> Result<u8, Exit> {
        let goes_nowhere = found.addresses.is_empty() && found.programs.is_empty() && found.files.is_empty();
        match (self.passes, found.is_own) {
            (true, false) => Ok(99),
            (false, true) if goes_nowhere => Err(self.failed(ExpandError::Nobody)),
            _ => Ok(0),
        }
    }

    /// For `-n`.
    pub fn explained(&self, found: &Expansion) -> String {
        let programs = found.programs.iter().map(|(program, has_top)| {
            let kind = if *has_top { '!' } else { '|' };
            format!("run {kind}{program}")
        });
        let files = found.files.iter().map(|path| format!("file {path}"));
        let last = match &found.addresses[..] {
            [] => vec!["no forwarding".to_owned()],
            addresses => {
                let to = addresses.iter().map(|address| format!("to <{address}>"));
                [format!("from <{}>", found.sender)].into_iter().chain(to).collect()
            }
        };
        shown(programs.chain(files).chain(last))
    }
}

/// Lines that show nothing a terminal would obey.
fn shown(lines: impl Iterator<Item = String>) -> String {
    let line = |line: String| line.replace(char::is_control, "_");
    lines.map(line).collect::<Vec<_>>().join("\n")
}

/// `dot-forward [ -nN ] file ...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DotForward<'a> {
    /// `-n`: nothing is done, and what would be is said.
    pub explains: bool,
    pub user: String,
    pub host: String,
    pub sender: String,
    /// The first that is there and asks for something is followed.
    pub files: &'a [String],
}

/// Arguments and variables of `dot-forward`.
pub fn dot_forward<'a>(arguments: &'a [String], variables: Variables<'_>) -> Result<DotForward<'a>, Exit> {
    let usage = || Exit::new(100, "dot-forward: usage: dot-forward [ -nN ] file ...");
    let (letters, files) = options(arguments, "nN").ok_or_else(usage)?;
    let explains = has_last(&letters, "Nn") == Some(true);
    let or_nothing = |name: &str| variables(name).unwrap_or_default();
    let sender = if explains { String::new() } else { needed("dot-forward", "NEWSENDER", variables)? };
    Ok(DotForward { explains, user: or_nothing("USER"), host: or_nothing("HOST"), sender, files })
}

impl DotForward<'_> {
    /// For `-n`.
    pub fn explained(&self, found: &Forwarding) -> String {
        let programs = found.programs.iter().map(|program| format!("pipe through {program}"));
        let files = found.files.iter().map(|path| format!("file {path}"));
        let lists = found.lists.iter().map(|path| format!("list {path}"));
        let addresses = found.addresses.iter().map(|address| format!("forward {address}"));
        let own = found.is_own.then(|| "direct delivery".to_owned());
        shown(programs.chain(files).chain(lists).chain(addresses).chain(own))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::words;
    use super::*;

    fn variables(name: &str) -> Option<String> {
        let value = match name {
            "RECIPIENT" => "alias-joe-x@h.test",
            "EXT" => "joe-x",
            "HOST" => "h.test",
            "SENDER" => "ann@example.net",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn with_default(name: &str) -> Option<String> {
        if name == "DEFAULT" { Some("x".into()) } else { variables(name) }
    }

    #[test]
    fn the_recipient_is_the_variable_that_the_letter_says() {
        let of = |text: &str| fastforward(&words(text), &with_default).map(|found| found.recipient);
        assert_eq!(of("a.cdb").unwrap(), "alias-joe-x@h.test");
        assert_eq!(of("-d a.cdb").unwrap(), "x@h.test");
        assert_eq!(of("-dD -- a.cdb").unwrap(), "alias-joe-x@h.test");
        assert_eq!(fastforward(&words("-d a.cdb"), &variables).unwrap().recipient, "joe-x@h.test");
        for wrong in ["", "-d", "-x a.cdb"] {
            assert_eq!(of(wrong).unwrap_err().code, 100, "{wrong}");
        }
        let none = |_: &str| None;
        let error = fastforward(&words("-d a.cdb"), &none).unwrap_err();
        assert_eq!(error.words, "fastforward: fatal: $DEFAULT or $EXT must be set");
        assert_eq!(fastforward(&words("a.cdb"), &none).unwrap_err().code, 100);
    }

    #[test]
    fn codes_say_whether_the_rest_is_followed() {
        let (arguments, to_pass) = (words("a.cdb"), words("-p a.cdb"));
        let strict = fastforward(&arguments, &variables).unwrap();
        let passing = fastforward(&to_pass, &variables).unwrap();
        let sorry = Exit::new(100, "Sorry, no mailbox here by that name. (#5.1.1)");
        assert_eq!(strict.failed(ExpandError::Nobody), sorry);
        assert_eq!(passing.failed(ExpandError::Nobody), Exit::silent(0));
        let soft = passing.failed(ExpandError::TooMany("joe".into()));
        assert!(soft.code == 111 && soft.words.starts_with("fastforward: fatal: joe stands for more"));
        let found = Expansion { addresses: vec!["a@x.test".into()], ..Expansion::default() };
        assert_eq!((strict.code(&found), passing.code(&found)), (Ok(0), Ok(99)));
        let copied = Expansion { is_own: true, ..found };
        assert_eq!((strict.code(&copied), passing.code(&copied)), (Ok(0), Ok(0)));
        let own = Expansion { addresses: Vec::new(), ..copied };
        assert_eq!((strict.code(&own), passing.code(&own)), (Err(sorry), Ok(0)));
    }

    #[test]
    fn explanations_have_a_line_for_each_step() {
        let arguments = words("-n a.cdb");
        let wanted = fastforward(&arguments, &|name| if name == "SENDER" { None } else { variables(name) });
        let wanted = wanted.unwrap();
        let found = Expansion {
            sender: wanted.sender.clone(),
            addresses: vec!["a@x.test".into()],
            programs: vec![("p\x07".into(), true), ("q".into(), false)],
            files: vec!["/f".into()],
            is_own: false,
        };
        let said = "run !p_\nrun |q\nfile /f\nfrom <original envelope sender>\nto <a@x.test>";
        assert_eq!(wanted.explained(&found), said);
        assert_eq!(wanted.explained(&Expansion::default()), "no forwarding");
        let arguments = words("-n .forward");
        let wanted = dot_forward(&arguments, &variables).unwrap();
        let found = Forwarding { is_own: true, addresses: vec!["a@x.test".into()], ..Forwarding::default() };
        assert_eq!(wanted.explained(&found), "forward a@x.test\ndirect delivery");
        assert_eq!(dot_forward(&words(".forward"), &variables).unwrap_err().code, 100);
        assert_eq!(dot_forward(&words("-x"), &variables).unwrap_err().code, 100);
    }
}
