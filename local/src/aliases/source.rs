//! Forwarding instructions as setforward reads them and printforward writes them: the other way to make a database.
//!
//! `target: command, command;` with as many rules as there are. A command is an address, which may begin with `&`;
//! `|program` or `!program`; a list, which begins with `.` or `/`; `?address` of who hears of failures; and, of ours,
//! `>/path` of a file. `#` begins a comment, blanks and line ends count for nothing, and a backslash takes the meaning from
//! the octet behind it.
//!
//! Bounds: a table's octets ([`TABLE_MAX`]) and an address's ([`ADDRESS_MAX`]).

use super::{ADDRESS_MAX, TABLE_MAX};
use message::cdb::{Cdb, CdbWriter, TooLong};
use std::iter;
use std::mem::take;

/// What is wrong with instructions, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SourceError {
    pub line: usize,
    pub what: SourceFault,
}

/// In setforward's words where it has some.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceFault {
    #[error("final instruction must end with semicolon")]
    NoSemicolon,
    #[error("double colons are not permitted")]
    SecondColon,
    #[error("commas are not permitted before colons")]
    CommaFirst,
    #[error("NUL bytes are not permitted")]
    Nul,
    #[error("addresses over {ADDRESS_MAX} bytes are not permitted")]
    Address,
    #[error("the instructions have more than {TABLE_MAX} octets")]
    SourceTooLong,
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// A database, and how many targets it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compiled {
    pub octets: Vec<u8>,
    pub count: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    Colon,
    Comma,
    Semicolon,
    Octet(u8),
    /// Only a backslash makes one that means nothing else.
    Plain(u8),
}

/// With the line of each, counted from 1.
fn tokens(text: &[u8]) -> impl Iterator<Item = (usize, Token)> {
    let mut octets = text.iter().copied();
    let mut line = 1;
    iter::from_fn(move || {
        loop {
            let octet = octets.next()?;
            let at = line;
            line += usize::from(octet == b'\n');
            let token = match octet {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'#' => {
                    octets.find(|octet| *octet == b'\n')?;
                    line += 1;
                    continue;
                }
                b':' => Token::Colon,
                b',' => Token::Comma,
                b';' => Token::Semicolon,
                b'\\' => {
                    let octet = octets.next()?;
                    line += usize::from(octet == b'\n');
                    Token::Plain(octet)
                }
                octet => Token::Octet(octet),
            };
            return Some((at, token));
        }
    })
}

/// Makes a database of instructions.
pub fn compile(text: &[u8]) -> Result<Compiled, SourceError> {
    if text.len() > TABLE_MAX {
        return Err(SourceError { line: 1, what: SourceFault::SourceTooLong });
    }
    let mut rules = Rules::default();
    let mut last = 1;
    for (line, token) in tokens(text) {
        rules.take(token).map_err(|what| SourceError { line, what })?;
        last = line;
    }
    if rules.is_behind_colon || !rules.target.is_empty() {
        return Err(SourceError { line: last, what: SourceFault::NoSemicolon });
    }
    let octets = rules.writer.finish().map_err(|error| SourceError { line: last, what: error.into() })?;
    Ok(Compiled { octets, count: rules.count })
}

#[derive(Debug, Default)]
struct Rules {
    writer: CdbWriter,
    count: usize,
    is_behind_colon: bool,
    target: Vec<u8>,
    command: Vec<u8>,
    /// Commands of the target, each ended by a NUL.
    instructions: Vec<u8>,
}

impl Rules {
    fn take(&mut self, token: Token) -> Result<(), SourceFault> {
        match token {
            Token::Octet(0) | Token::Plain(0) => return Err(SourceFault::Nul),
            Token::Octet(octet) | Token::Plain(octet) if self.is_behind_colon => self.command.push(octet),
            Token::Octet(octet) | Token::Plain(octet) => self.target.push(octet),
            Token::Colon if self.is_behind_colon => return Err(SourceFault::SecondColon),
            Token::Colon => self.is_behind_colon = true,
            Token::Comma | Token::Semicolon if !self.is_behind_colon => return Err(SourceFault::CommaFirst),
            Token::Comma => self.end_command()?,
            Token::Semicolon => {
                self.end_command()?;
                self.end_rule()?;
            }
        }
        Ok(())
    }

    fn end_command(&mut self) -> Result<(), SourceFault> {
        let command = take(&mut self.command);
        match command.first() {
            None => return Ok(()),
            Some(b'?') => return Ok(self.writer.add(&self.key(b'?'), &command[1..])?),
            Some(b'|' | b'!' | b'.' | b'/' | b'>') => {}
            Some(_) if command.len() > ADDRESS_MAX => return Err(SourceFault::Address),
            Some(b'&') => {}
            Some(_) => self.instructions.push(b'&'),
        }
        self.instructions.extend_from_slice(&command);
        self.instructions.push(0);
        Ok(())
    }

    fn end_rule(&mut self) -> Result<(), SourceFault> {
        let instructions = take(&mut self.instructions);
        if !instructions.is_empty() {
            self.writer.add(&self.key(b':'), &instructions)?;
            self.count += 1;
        }
        self.target.clear();
        self.is_behind_colon = false;
        Ok(())
    }

    fn key(&self, kind: u8) -> Vec<u8> {
        iter::once(kind).chain(self.target.iter().map(u8::to_ascii_lowercase)).collect()
    }
}

/// Instructions that make the same database, a rule a line. What is neither a target's commands nor its owner is left out.
pub fn print(database: &Cdb) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, data) in database.records() {
        let commands = match key.first() {
            Some(b':') => data.split(|octet| *octet == 0).filter(|command| !command.is_empty()).collect(),
            Some(b'?') => vec![],
            _ => continue,
        };
        quote(&key[1..], &mut out);
        out.push(b':');
        if key[0] == b'?' {
            out.extend_from_slice(b" ?");
            quote(data, &mut out);
        }
        for (index, command) in commands.into_iter().enumerate() {
            out.extend_from_slice(if index == 0 { b" " } else { b", " });
            quote(command, &mut out);
        }
        out.extend_from_slice(b";\n");
    }
    out
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    for octet in text {
        if matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b'#' | b':' | b',' | b';' | b'\\') {
            out.push(b'\\');
        }
        out.push(*octet);
    }
}

/// For the fuzzer: what is made prints, and makes the same.
pub fn fuzz_source(bytes: &[u8]) {
    let Ok(compiled) = compile(bytes) else { return };
    let database = Cdb::new(compiled.octets.clone()).expect("it was made so");
    let printed = print(&database);
    assert_eq!(compile(&printed).as_ref(), Ok(&compiled), "{:?}", String::from_utf8_lossy(&printed));
}

#[cfg(test)]
mod tests {
    use super::super::database::{Database, Lists, expand};
    use super::*;
    use message::Domain;
    use proptest::prelude::*;

    struct NoLists;

    impl Lists for NoLists {
        fn read(&mut self, _: &str) -> std::io::Result<Vec<u8>> {
            Ok(b"eve@x.test\n".to_vec())
        }
    }

    const SOURCE: &str = "# people\n\
        joe@Example.org: ann@x.test, &bob@x.test,\n  |prog\\ -a\\, b ;list@: ?owner@x.test, /lists/all;\n\
        @a.test: >/var/mail/a, !sort; # done";

    #[test]
    fn instructions_are_followed_as_those_of_aliases_are() {
        let compiled = compile(SOURCE.as_bytes()).unwrap();
        assert_eq!(compiled.count, 3);
        let database = Database::new(compiled.octets);
        let no_at_host = Domain::parse("example.org").unwrap();
        let to =
            |recipient: &str| expand(&database, &no_at_host, recipient, "s@x.test", &mut NoLists).unwrap();
        let joe = to("JOE@example.org");
        assert_eq!(joe.addresses, ["ann@x.test", "bob@x.test"]);
        assert_eq!((joe.programs, joe.sender.as_str()), (vec![("prog -a,b".into(), false)], "s@x.test"));
        let list = to("list@example.org");
        assert_eq!((list.sender.as_str(), &list.addresses[..]), ("owner@x.test", &["eve@x.test".into()][..]));
        let any = to("x@a.test");
        assert_eq!((any.files, any.programs), (vec!["/var/mail/a".into()], vec![("sort".into(), true)]));
    }

    #[test]
    fn a_database_is_shown_as_instructions_that_make_it() {
        let database = Cdb::new(compile(SOURCE.as_bytes()).unwrap().octets).unwrap();
        let shown = "joe@example.org: &ann@x.test, &bob@x.test, |prog\\ -a\\,b;\n\
                     list@: ?owner@x.test;\nlist@: /lists/all;\n@a.test: >/var/mail/a, !sort;\n";
        assert_eq!(String::from_utf8(print(&database)).unwrap(), shown);
    }

    #[test]
    fn errors_name_their_line() {
        let fault = |text: &str| compile(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(fault("a: b;\nc: d\n"), "line 2: final instruction must end with semicolon");
        assert_eq!(fault("# x\na: b\nc: d;"), "line 3: double colons are not permitted");
        assert_eq!(fault("a, b: c;"), "line 1: commas are not permitted before colons");
        assert_eq!(fault("a: b\0;"), "line 1: NUL bytes are not permitted");
        let long = format!("a: {};", "x".repeat(ADDRESS_MAX + 1));
        assert_eq!(fault(&long), "line 1: addresses over 800 bytes are not permitted");
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "([a-c@?#]{0,4}:([&|!>./?]?[a-c@ \\\\\n]{0,5},?){0,3};){0,4}",
        ) {
            fuzz_source(&bytes);
            fuzz_source(text.as_bytes());
        }
    }
}
