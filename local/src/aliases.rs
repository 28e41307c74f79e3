//! Tables of aliases: `/etc/aliases` as sendmail reads it, made into a database as fastforward's, and `.forward` files.
//!
//! `name: member, member`; what begins with a blank goes on with the line before, `#` begins a comment, quotes take
//! the meaning from what they hold. A name may be `joe`, `joe@domain`, or `@domain` for all of a domain. A member is
//! an address, `:include:/a/list`, `|a program` or `/a/file`; a name `owner-joe` is who hears of failures of what goes
//! to joe.
//!
//! [`database`] keeps what was read in a constant database, so that a look-up costs the same in any table and a new
//! table takes the old one's place while it is used; [`source`] is another way to write one, and to show it; [`files`] are
//! the databases and lists on a disk. Trusts the operator's own file, and of a list nothing but
//! addresses. Bounds: [`TABLE_MAX`] octets, [`MEMBERS_MAX`] members of a name, [`ADDRESS_MAX`] octets of an address.

pub mod database;
pub mod files;
pub mod forward_file;
mod member;
pub mod source;

pub use member::{Member, fuzz_members, members_of};

use std::collections::HashSet;
use std::iter;

/// Octets of a table.
pub const TABLE_MAX: usize = 256 << 20;

/// Members of one name.
pub const MEMBERS_MAX: usize = 1 << 20;

/// Octets of an address, as fastforward has it.
pub const ADDRESS_MAX: usize = 800;

/// A name and whom it stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alias {
    /// In lower case: `joe`, `joe@domain` or `@domain`.
    pub name: String,
    pub members: Vec<Member>,
    /// Where it stands in the table, counted from 1.
    pub line: usize,
}

/// What is wrong with a table or a `.forward` file, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct AliasError {
    pub line: usize,
    pub what: AliasFault,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AliasFault {
    #[error("it has a NUL, or is not text in UTF-8")]
    NotText,
    #[error("the table has more than {TABLE_MAX} octets")]
    TableTooLong,
    #[error("an alias is name: member, member")]
    NoColon,
    #[error("the name is empty, or no name")]
    Name,
    #[error("the name has no members")]
    Nobody,
    #[error("the name has more than {MEMBERS_MAX} members")]
    TooMany,
    #[error("a quote, comment or bracket does not end")]
    Unclosed,
    #[error("an address is empty, or longer than {ADDRESS_MAX} octets")]
    Address,
    #[error("a list that is included has nothing but addresses")]
    NotInList,
    #[error("the name of a program, file or list is empty")]
    Empty,
}

/// Names of a table, in order.
pub fn parse(text: &[u8]) -> Result<Vec<Alias>, AliasError> {
    let at = |line| move |what| AliasError { line, what };
    if text.len() > TABLE_MAX {
        return Err(at(1)(AliasFault::TableTooLong));
    }
    let mut aliases = Vec::new();
    for (line, text) in whole_lines(text) {
        let text = std::str::from_utf8(&text).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| at(line)(AliasFault::NotText))?;
        aliases.push(parse_line(line, text).map_err(at(line))?);
    }
    Ok(aliases)
}

/// Lines with those that go on with them, and the number of the first; without blank ones and comments. What goes on
/// with a comment is comment.
fn whole_lines(text: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let mut lines = text.split(|octet| *octet == b'\n').enumerate().peekable();
    iter::from_fn(move || {
        loop {
            let (index, first) = lines.next()?;
            let mut whole = first.to_vec();
            while let Some((_, more)) =
                lines.next_if(|(_, line)| line.is_empty() || matches!(line[0], b' ' | b'\t' | b'\r'))
            {
                whole.push(b' ');
                whole.extend_from_slice(more);
            }
            if !whole.starts_with(b"#") && !whole.trim_ascii().is_empty() {
                return Some((index + 1, whole));
            }
        }
    })
}

fn parse_line(line: usize, text: &str) -> Result<Alias, AliasFault> {
    let colon = member::end_of(text, ':')?.ok_or(AliasFault::NoColon)?;
    let name = member::unquoted(text[..colon].trim()).to_ascii_lowercase();
    let is_name = !name.is_empty() && name != "@" && name.len() <= ADDRESS_MAX;
    if !is_name || name.contains(|char: char| char.is_control() || char == '/' || char == '|') {
        return Err(AliasFault::Name);
    }
    let members = members_of(&text[colon + 1..])?;
    if members.is_empty() {
        return Err(AliasFault::Nobody);
    }
    Ok(Alias { name, members, line })
}

/// Aliases whose name another had before: they count for nothing.
pub fn repeated(aliases: &[Alias]) -> impl Iterator<Item = &Alias> {
    let mut names = HashSet::new();
    aliases.iter().filter(move |alias| !names.insert(alias.name.as_str()))
}

/// A table that says the same.
pub fn print(aliases: &[Alias]) -> String {
    let line = |alias: &Alias| {
        let members: Vec<String> = alias.members.iter().map(Member::to_string).collect();
        format!("{}: {}\n", member::quoted(&alias.name), members.join(", "))
    };
    aliases.iter().map(line).collect()
}

/// For the fuzzer: what is read prints and reads the same, and makes a database in which each name is found.
pub fn fuzz_aliases(bytes: &[u8]) {
    let Ok(aliases) = parse(bytes) else { return };
    let strip = |aliases: &[Alias]| -> Vec<(String, Vec<Member>)> {
        aliases.iter().map(|alias| (alias.name.clone(), alias.members.clone())).collect()
    };
    let again = parse(print(&aliases).as_bytes()).expect("what is printed can be read");
    assert_eq!(strip(&aliases), strip(&again));
    let no_at_host = message::Domain::parse("mx.example.org").expect("a host");
    let Ok(octets) = database::build(&aliases, &no_at_host) else { return };
    let database = database::Database::new(octets);
    for alias in &aliases {
        let host = if alias.name.contains('@') { "" } else { "@any.test" };
        let found = database.members(&format!("{}{host}", alias.name));
        assert!(matches!(found, Ok(Some(_))), "{:?}", alias.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> Member {
        Member::Address(text.into())
    }

    #[test]
    fn a_table_is_read_as_sendmail_reads_it() {
        let text = "# comment: a@b\n\
                    postmaster: root, ann@example.net\n\
                    Owner-List:\tbob\n\
                    list: :include:/lists/list,\n\
                    \x20   cy (the boss), \"|/bin/prog -a, b\",\n\
                    \n\
                    \t/var/mail/archive\n\
                    # gone: x\n\
                    \x20 and this with it\n\
                    \"odd name\": Dee Dee <dee@example.net>\n\
                    @example.org: |catch all -x, eve\n";
        let aliases = parse(text.as_bytes()).unwrap();
        let found: Vec<(usize, &str, &[Member])> =
            aliases.iter().map(|alias| (alias.line, alias.name.as_str(), &alias.members[..])).collect();
        let list = [
            Member::Include("/lists/list".into()),
            address("cy"),
            Member::Program("/bin/prog -a, b".into()),
            Member::File("/var/mail/archive".into()),
        ];
        assert_eq!(found[0], (2, "postmaster", &[address("root"), address("ann@example.net")][..]));
        assert_eq!(found[1], (3, "owner-list", &[address("bob")][..]));
        assert_eq!(found[2], (4, "list", &list[..]));
        assert_eq!(found[3], (10, "odd name", &[address("dee@example.net")][..]));
        assert_eq!(
            found[4],
            (11, "@example.org", &[Member::Program("catch all -x".into()), address("eve")][..])
        );
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn of_two_of_one_name_the_second_is_named() {
        let aliases = parse(b"joe: a\nJoe@x: b\nJOE: c\n").unwrap();
        assert_eq!(repeated(&aliases).map(|alias| alias.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn errors_name_their_line() {
        let fault = |text: &str| {
            let error = parse(text.as_bytes()).unwrap_err();
            (error.line, error.what)
        };
        assert_eq!(fault("a: b\njust words\n"), (2, AliasFault::NoColon));
        assert_eq!(fault(": b\n"), (1, AliasFault::Name));
        assert_eq!(fault("a:\nb: c\n"), (1, AliasFault::Nobody));
        assert_eq!(fault("a: \"b\n"), (1, AliasFault::Unclosed));
        assert_eq!(fault("\n\na: b\0\n"), (3, AliasFault::NotText));
        assert_eq!(fault("a: |\n"), (1, AliasFault::Empty));
        assert_eq!(fault("a: :include:\n"), (1, AliasFault::Empty));
        assert_eq!(fault(&format!("a: {}\n", "x".repeat(ADDRESS_MAX + 1))), (1, AliasFault::Address));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "([a-c@\"]{1,4}: ?([a-c@.\"\\\\ <>()|/:]{0,6},?){0,4}\n){0,4}",
        ) {
            fuzz_aliases(&bytes);
            fuzz_aliases(text.as_bytes());
        }
    }
}
