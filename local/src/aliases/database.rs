//! Aliases in a constant database, and whom an address stands for in the end (fastforward).
//!
//! Key `:address` has the members, each ended by a NUL: `&address`, `!program` for a program that wants the lines of
//! an mbox on top and `|program` for one that does not, `/path` or `./path` of a list. These are fastforward's, so its
//! files are read too. `>path` of a file to deliver into is ours. Key `?address` has who hears of failures.
//! `joe@example.net` is looked for as it is, as `@example.net`, and as `joe@`. The octets may be in memory or in a file; in
//! a file, a look-up reads those that it needs.
//!
//! Members that are aliases themselves are followed, each once; one that is owned by somebody else is sent to, so that
//! its own failures go there. Lists hold addresses alone, whatever they say: who may write a list may not run
//! programs. Bounds: [`ADDRESSES_MAX`] addresses and [`LISTS_MAX`] lists of an expansion.

use super::member::unquoted;
use super::{Alias, AliasError, AliasFault, Member, members_of};
use crate::disk::{Disk, PUBLIC, replace_file};
use crate::failure::Failure;
use message::Domain;
use message::cdb::{CdbWriter, Octets, Outside, TooLong, seek};
use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::Path;

/// Addresses that one stands for.
pub const ADDRESSES_MAX: usize = 1 << 20;

/// Lists that are read for one address.
pub const LISTS_MAX: usize = 1000;

/// Octets of a list.
pub const LIST_LEN_MAX: usize = 64 << 20;

/// The full form of a member's address: with a host, which stays the one that it has, and its quotes gone. An envelope's
/// addresses have none among qmail's programs, so those of keys and members have none either.
pub(super) fn completed(address: &str, no_at_host: &Domain) -> String {
    match address.rsplit_once('@').filter(|(_, host)| !host.ends_with('"')) {
        Some((local, host)) => format!("{}@{}", unquoted(local), host.trim_end_matches('.')),
        None => format!("{}@{no_at_host}", unquoted(address)),
    }
}

/// The address of a name, which has no quotes.
fn address_of(name: &str, no_at_host: &Domain) -> String {
    if name.contains('@') { name.to_owned() } else { format!("{name}@{no_at_host}") }
}

/// Makes a database of a table. Of two aliases of one name the first counts. Addresses without a host get `no_at_host`.
pub fn build(aliases: &[Alias], no_at_host: &Domain) -> Result<Vec<u8>, TooLong> {
    let mut writer = CdbWriter::default();
    for alias in aliases {
        let key = if alias.name.contains('@') { alias.name.clone() } else { format!("{}@", alias.name) };
        if let Some(owned) = key.strip_prefix("owner-") {
            writer.add(format!("?{owned}").as_bytes(), address_of(&alias.name, no_at_host).as_bytes())?;
        }
        let mut data = Vec::new();
        for member in &alias.members {
            data.extend_from_slice(coded(member, no_at_host).as_bytes());
            data.push(0);
        }
        writer.add(format!(":{key}").as_bytes(), &data)?;
    }
    writer.finish()
}

fn coded(member: &Member, no_at_host: &Domain) -> String {
    match member {
        Member::Address(address) => format!("&{}", completed(address, no_at_host)),
        Member::Program(program) => format!("!{program}"),
        Member::File(path) => format!(">{path}"),
        Member::Include(path) if path.starts_with(['.', '/']) => path.clone(),
        Member::Include(path) => format!("./{path}"),
    }
}

/// Makes a table the one in use, all at once: whoever reads meanwhile has the old one or the new. Everybody may read it, for
/// it is users' processes that deliver. `temporary` is in the same folder, and nobody else's meanwhile.
pub fn install<D: Disk>(disk: &mut D, octets: &[u8], path: &Path, temporary: &Path) -> io::Result<()> {
    replace_file(disk, path, temporary, octets, PUBLIC)
}

/// Something that an address stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Target {
    Address(String),
    Program { command: String, has_top: bool },
    File(String),
    List(String),
}

/// A database, wherever its octets are.
#[derive(Clone, Debug)]
pub struct Database<O>(O);

impl<O: Octets> Database<O> {
    pub fn new(octets: O) -> Database<O> {
        Database(octets)
    }

    /// What the database has for an address, by whichever key.
    pub fn members(&self, address: &str) -> Result<Option<Vec<u8>>, O::Error> {
        self.find(':', address)
    }

    /// Who hears of failures of what goes to an address, if that is not its sender.
    pub fn owner(&self, address: &str) -> Result<Option<String>, O::Error> {
        let owner = self.find('?', address)?;
        Ok(owner.map(|owner| String::from_utf8_lossy(&owner).into_owned()))
    }

    fn find(&self, kind: char, address: &str) -> Result<Option<Vec<u8>>, O::Error> {
        let mut found = self.exactly(kind, address)?;
        if let Some((local, host)) = address.rsplit_once('@') {
            for key in [format!("@{host}"), format!("{local}@")] {
                if found.is_none() {
                    found = self.exactly(kind, &key)?;
                }
            }
        }
        Ok(found)
    }

    fn exactly(&self, kind: char, address: &str) -> Result<Option<Vec<u8>>, O::Error> {
        let key = format!("{kind}{address}").to_ascii_lowercase();
        let Some(data) = seek(&self.0, key.as_bytes())? else { return Ok(None) };
        self.0.read(data.start, data.len()).map(|data| Some(data.into_owned()))
    }
}

fn targets(data: &[u8]) -> impl Iterator<Item = Target> {
    data.split_inclusive(|octet| *octet == 0).filter_map(|part| {
        // What does not end in a NUL is cut off.
        let text = String::from_utf8_lossy(part.strip_suffix(&[0])?);
        let text: &str = &text;
        let kind = text.chars().next()?;
        let rest = &text[kind.len_utf8()..];
        Some(match kind {
            '&' => Target::Address(rest.to_owned()),
            '!' | '|' => Target::Program { command: rest.to_owned(), has_top: kind == '!' },
            '>' => Target::File(rest.to_owned()),
            '.' | '/' => Target::List(text.to_owned()),
            _ => return None,
        })
    })
}

/// Where lists of addresses are read.
pub trait Lists {
    /// A list as it stands in its file; an error if it cannot be read, or not by everybody.
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>>;
}

/// Everything that an address stands for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expansion {
    /// Who hears of failures.
    pub sender: String,
    pub addresses: Vec<String>,
    /// Commands, and whether each wants the lines of an mbox on top.
    pub programs: Vec<(String, bool)>,
    pub files: Vec<String>,
    /// The address stands for itself among others: a copy goes to the mailbox of that name, past the table.
    pub is_own: bool,
}

/// Why an address could not be expanded.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    #[error("Sorry, no mailbox here by that name. (#5.1.1)")]
    Nobody,
    #[error("unable to read {path}: {}. (#4.3.0)", crate::failure::reason(source))]
    List { path: String, source: io::Error },
    #[error("{path}: {source}. (#4.3.0)")]
    ListSyntax { path: String, source: AliasError },
    #[error("{0} stands for more than can be sent to. (#4.3.0)")]
    TooMany(String),
    #[error("unable to read the database: {0}. (#4.3.0)")]
    Damaged(#[from] Outside),
    #[error("unable to read the database: {}. (#4.3.0)", crate::failure::reason(.0))]
    Database(#[from] io::Error),
}

impl From<ExpandError> for Failure {
    fn from(error: ExpandError) -> Failure {
        match error {
            ExpandError::Nobody => Failure::hard(error.to_string()),
            _ => Failure::soft(error.to_string()),
        }
    }
}

/// Follows an address through the table.
pub fn expand<O: Octets>(
    database: &Database<O>,
    no_at_host: &Domain,
    recipient: &str,
    sender: &str,
    lists: &mut dyn Lists,
) -> Result<Expansion, ExpandError>
where
    ExpandError: From<O::Error>,
{
    let members = database.members(recipient)?.ok_or(ExpandError::Nobody)?;
    // A bounce stays one.
    let owner = if sender.is_empty() || sender == "#@[]" { None } else { database.owner(recipient)? };
    let mut walk = Walk::new(database, no_at_host, recipient);
    walk.found.sender = owner.unwrap_or_else(|| sender.to_owned());
    let is_oneself =
        |target: &Target| matches!(target, Target::Address(own) if own.eq_ignore_ascii_case(recipient));
    walk.found.is_own = targets(&members).any(|target| is_oneself(&target));
    walk.seen.insert(recipient.to_ascii_lowercase());
    walk.wait_for(targets(&members))?;
    walk.run(lists)
}

/// The addresses of lists, and of the lists that those name.
pub fn addresses_of(
    paths: &[String],
    no_at_host: &Domain,
    lists: &mut dyn Lists,
) -> Result<Vec<String>, ExpandError> {
    let nothing = Database::new(NoAliases);
    let mut walk = Walk::new(&nothing, no_at_host, "the list");
    walk.wait_for(paths.iter().cloned().map(Target::List))?;
    Ok(walk.run(lists)?.addresses)
}

/// A database without records: all of it is zeros.
struct NoAliases;

impl Octets for NoAliases {
    type Error = Outside;

    fn read(&self, _: usize, len: usize) -> Result<Cow<'_, [u8]>, Outside> {
        Ok(Cow::Owned(vec![0; len]))
    }
}

struct Walk<'a, O> {
    database: &'a Database<O>,
    no_at_host: &'a Domain,
    recipient: &'a str,
    found: Expansion,
    /// Addresses and lists that were met, in lower case.
    seen: HashSet<String>,
    waiting: VecDeque<Target>,
    lists_left: usize,
}

impl<'a, O: Octets> Walk<'a, O>
where
    ExpandError: From<O::Error>,
{
    fn new(database: &'a Database<O>, no_at_host: &'a Domain, recipient: &'a str) -> Walk<'a, O> {
        Walk {
            database,
            no_at_host,
            recipient,
            found: Expansion::default(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            lists_left: LISTS_MAX,
        }
    }

    fn run(mut self, lists: &mut dyn Lists) -> Result<Expansion, ExpandError> {
        while let Some(target) = self.waiting.pop_front() {
            match target {
                Target::Address(address) => self.follow(address)?,
                Target::Program { command, has_top } => self.found.programs.push((command, has_top)),
                Target::File(path) => self.found.files.push(path),
                Target::List(path) => self.read(&path, lists)?,
            }
        }
        Ok(self.found)
    }

    fn wait_for(&mut self, targets: impl Iterator<Item = Target>) -> Result<(), ExpandError> {
        for target in targets {
            if self.waiting.len() + self.seen.len() >= ADDRESSES_MAX {
                return Err(ExpandError::TooMany(self.recipient.to_owned()));
            }
            self.waiting.push_back(target);
        }
        Ok(())
    }

    fn follow(&mut self, address: String) -> Result<(), ExpandError> {
        if !self.seen.insert(address.to_ascii_lowercase()) {
            return Ok(());
        }
        let is_owned = self.database.exactly('?', &address)?.is_some();
        match self.database.exactly(':', &address)?.filter(|_| !is_owned) {
            Some(members) => self.wait_for(targets(&members)),
            None => {
                self.found.addresses.push(address);
                Ok(())
            }
        }
    }

    fn read(&mut self, path: &str, lists: &mut dyn Lists) -> Result<(), ExpandError> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let left = self.lists_left.checked_sub(1);
        self.lists_left = left.ok_or_else(|| ExpandError::TooMany(self.recipient.to_owned()))?;
        let content =
            lists.read(path).map_err(|source| ExpandError::List { path: path.to_owned(), source })?;
        let targets = list_targets(&content, self.no_at_host)
            .map_err(|source| ExpandError::ListSyntax { path: path.to_owned(), source })?;
        self.wait_for(targets.into_iter())
    }
}

/// Addresses and further lists of a list: text with addresses on its lines, or what newinclude made of one.
fn list_targets(content: &[u8], no_at_host: &Domain) -> Result<Vec<Target>, AliasError> {
    let at = |line| move |what| AliasError { line, what };
    if content.len() > LIST_LEN_MAX {
        return Err(at(1)(AliasFault::TableTooLong));
    }
    if content.contains(&0) {
        let is_allowed = |target: &Target| matches!(target, Target::Address(_) | Target::List(_));
        return Ok(targets(content).filter(is_allowed).collect());
    }
    let mut found = Vec::new();
    for (index, line) in content.split(|octet| *octet == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| at(index + 1)(AliasFault::NotText))?;
        for member in members_of(text).map_err(at(index + 1))? {
            found.push(match member {
                Member::Address(address) => Target::Address(completed(&address, no_at_host)),
                Member::Include(path) => Target::List(path),
                Member::Program(_) | Member::File(_) => return Err(at(index + 1)(AliasFault::NotInList)),
            });
        }
    }
    Ok(found)
}

/// For the fuzzer: any octets as members of a name, and as a list.
pub fn fuzz_expand(bytes: &[u8]) {
    struct Same<'a>(&'a [u8]);
    impl Lists for Same<'_> {
        fn read(&mut self, _: &str) -> io::Result<Vec<u8>> {
            Ok(self.0.to_vec())
        }
    }
    let mut writer = CdbWriter::default();
    for key in [":a@x.test", ":b@x.test", "?b@x.test"] {
        writer.add(key.as_bytes(), bytes).expect("it is short");
    }
    let database = Database::new(writer.finish().expect("it is short"));
    let no_at_host = Domain::parse("x.test").expect("a host");
    if let Ok(found) = expand(&database, &no_at_host, "A@x.test", "s@x.test", &mut Same(bytes)) {
        assert!(found.addresses.len() <= ADDRESSES_MAX && found.sender == "s@x.test");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Fake(Vec<(&'static str, &'static str)>);

    impl Lists for Fake {
        fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
            let found = self.0.iter().find(|(name, _)| *name == path);
            found
                .map(|(_, content)| content.as_bytes().to_vec())
                .ok_or_else(|| io::Error::from_raw_os_error(2))
        }
    }

    fn no_at_host() -> Domain {
        Domain::parse("example.org").unwrap()
    }

    fn database(table: &str) -> Database<Vec<u8>> {
        let aliases = super::super::parse(table.as_bytes()).unwrap();
        Database::new(build(&aliases, &no_at_host()).unwrap())
    }

    fn expanded(table: &str, recipient: &str, lists: &mut Fake) -> Expansion {
        expand(&database(table), &no_at_host(), recipient, "bob@example.net", lists).unwrap()
    }

    #[test]
    fn whole_addresses_come_before_domains_and_those_before_names() {
        let table = "joe: one\njoe@a.test: two\n@a.test: three\n";
        let to = |recipient: &str| expanded(table, recipient, &mut Fake::default()).addresses;
        assert_eq!(to("Joe@A.test"), ["two@example.org"]);
        assert_eq!(to("ann@a.test"), ["three@example.org"]);
        assert_eq!(to("joe@b.test"), ["one@example.org"]);
        let nobody = expand(&database(table), &no_at_host(), "ann@b.test", "", &mut Fake::default());
        assert_eq!(
            Failure::from(nobody.unwrap_err()),
            Failure::hard("Sorry, no mailbox here by that name. (#5.1.1)")
        );
    }

    #[test]
    fn quotes_are_no_part_of_an_address() {
        let found = expanded("\"a b\": \"c d\"@x.test, \"e@f\"\n", "a b@example.org", &mut Fake::default());
        assert_eq!(found.addresses, ["c d@x.test", "e@f@example.org"]);
    }

    #[test]
    fn a_host_that_is_there_stays_as_it_is() {
        let found = expanded("joe: a@localhost, b@X.test., c\n", "joe@example.org", &mut Fake::default());
        assert_eq!(found.addresses, ["a@localhost", "b@X.test", "c@example.org"]);
    }

    #[test]
    fn members_that_are_whole_names_of_the_table_are_followed_once() {
        let table =
            "all@example.org: a, b@x.test, \"|prog x\"\na@example.org: b@x.test, c, all\nc@example.org: a\n";
        let found = expanded(table, "all@example.org", &mut Fake::default());
        assert_eq!(found.addresses, ["b@x.test"]);
        assert_eq!(found.programs, [("prog x".to_owned(), true)]);
        assert!(!found.is_own, "that an alias of its own leads back to it is nobody's wish for a copy");
    }

    #[test]
    fn a_copy_to_oneself_is_not_lost() {
        let found = expanded("joe: \\joe, ann@x.test\n", "joe@example.org", &mut Fake::default());
        assert!(found.is_own && found.addresses == ["ann@x.test"]);
    }

    #[test]
    fn an_owner_hears_of_failures_and_of_nothing_else() {
        let table = "list: ann@x.test, sub@example.org\nowner-list: carl\n\
                     sub@example.org: dee@x.test\nowner-sub@example.org: eve\n";
        let found = expanded(table, "list@example.org", &mut Fake::default());
        assert_eq!(found.sender, "owner-list@example.org");
        assert_eq!(
            found.addresses,
            ["ann@x.test", "sub@example.org"],
            "the inner list has an owner of its own"
        );
        let bounce =
            expand(&database(table), &no_at_host(), "list@example.org", "", &mut Fake::default()).unwrap();
        assert_eq!(bounce.sender, "");
    }

    #[test]
    fn lists_hold_addresses_and_lists_alone() {
        let mut lists = Fake(vec![
            ("/l/one", "# all\nann@x.test, Bob <bob@x.test>\n:include:/l/two\n\n"),
            ("/l/two", "&cy@x.test\0/l/one\0|evil\0>/etc/passwd\0"),
        ]);
        let found = expanded("list: :include:/l/one\n", "list@example.org", &mut lists);
        assert_eq!(found.addresses, ["ann@x.test", "bob@x.test", "cy@x.test"]);
        assert!(found.programs.is_empty() && found.files.is_empty());
        for wrong in ["|evil", "/etc/passwd", "\"|evil\""] {
            let mut lists = Fake(vec![("/l/one", wrong)]);
            let done =
                expand(&database("l: :include:/l/one\n"), &no_at_host(), "l@example.org", "", &mut lists);
            let failure = Failure::from(done.unwrap_err());
            assert_eq!(
                failure.words,
                "/l/one: line 1: a list that is included has nothing but addresses. (#4.3.0)"
            );
        }
        let cut = Database::new(build(&[], &no_at_host()).unwrap()[..100].to_vec());
        let done = expand(&cut, &no_at_host(), "a@x.test", "", &mut Fake::default());
        assert!(matches!(done, Err(ExpandError::Damaged(_))), "nobody is unknown to what cannot be read");
        let missing =
            expand(&database("l: :include:/no\n"), &no_at_host(), "l@example.org", "", &mut Fake::default());
        let words = "unable to read /no: no such file or directory. (#4.3.0)";
        assert_eq!(Failure::from(missing.unwrap_err()), Failure::soft(words));
    }

    #[test]
    fn lists_alone_have_addresses_and_no_aliases() {
        let mut lists = Fake(vec![("/l/one", "ann\n:include:/l/two\n"), ("/l/two", "&bob@x.test\0/l/one\0")]);
        let found = addresses_of(&["/l/one".into(), "/l/one".into()], &no_at_host(), &mut lists).unwrap();
        assert_eq!(found, ["ann@example.org", "bob@x.test"]);
        assert!(addresses_of(&["/no".into()], &no_at_host(), &mut lists).is_err());
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "([&|!>./]([ab]@x.test|[a-z]{0,4})\0){0,5}|[a-c@,\n:]{0,20}",
        ) {
            fuzz_expand(&bytes);
            fuzz_expand(text.as_bytes());
        }
    }
}
