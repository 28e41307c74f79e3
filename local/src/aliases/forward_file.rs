//! A user's `.forward`, as sendmail's users write it (dot-forward).
//!
//! Lines are lists of members as in a table of aliases; `#` begins a comment. The user's own name, alone or with our
//! host, asks for their own mailbox, so that `\joe, ann@example.net` keeps a copy. Bounds: [`FILE_MAX`] octets, and
//! those of a table's line.

use super::{AliasError, AliasFault, MEMBERS_MAX, Member, members_of};
use message::Domain;

/// Octets of a `.forward`.
pub const FILE_MAX: usize = 1 << 20;

/// What a `.forward` asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forwarding {
    /// A copy goes to the user's own mailbox: the instructions behind this one are followed.
    pub is_own: bool,
    /// Completed.
    pub addresses: Vec<String>,
    /// For a shell, each with the lines of an mbox on top.
    pub programs: Vec<String>,
    pub files: Vec<String>,
    pub lists: Vec<String>,
}

impl Forwarding {
    /// It asks for nothing: as if it were not there.
    pub fn is_empty(&self) -> bool {
        *self == Forwarding::default()
    }

    /// 99 if the rest of the instructions is not followed, else 0.
    pub fn exit_code(&self) -> u8 {
        if self.is_own || self.is_empty() { 0 } else { 99 }
    }
}

/// Reads the file of `user` at `host`. Addresses without a host get `no_at_host`.
pub fn parse(text: &[u8], user: &str, host: &str, no_at_host: &Domain) -> Result<Forwarding, AliasError> {
    let at = |line| move |what| AliasError { line, what };
    if text.len() > FILE_MAX {
        return Err(at(1)(AliasFault::TableTooLong));
    }
    let mut found = Forwarding::default();
    let mut count = 0;
    for (index, line) in text.split(|octet| *octet == b'\n').enumerate() {
        if line.starts_with(b"#") {
            continue;
        }
        let line = std::str::from_utf8(line).ok().filter(|line| !line.contains('\0'));
        let line = line.ok_or_else(|| at(index + 1)(AliasFault::NotText))?;
        for member in members_of(line.trim()).map_err(at(index + 1))? {
            count += 1;
            if count > MEMBERS_MAX {
                return Err(at(index + 1)(AliasFault::TooMany));
            }
            match member {
                Member::Address(address) if is_own(&address, user, host) => found.is_own = true,
                Member::Address(address) => {
                    found.addresses.push(super::database::completed(&address, no_at_host));
                }
                Member::Program(program) => found.programs.push(program),
                Member::File(path) => found.files.push(path),
                Member::Include(path) => found.lists.push(path),
            }
        }
    }
    Ok(found)
}

fn is_own(address: &str, user: &str, host: &str) -> bool {
    match address.rsplit_once('@') {
        Some((local, domain)) => local.eq_ignore_ascii_case(user) && domain.eq_ignore_ascii_case(host),
        None => address.eq_ignore_ascii_case(user),
    }
}

/// For the fuzzer: every address is complete.
pub fn fuzz_forward_file(bytes: &[u8]) {
    let no_at_host = Domain::parse("mx.example.org").expect("a host");
    if let Ok(found) = parse(bytes, "ann", "example.org", &no_at_host) {
        assert!(found.addresses.iter().all(|address| address.contains('@')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Forwarding {
        parse(text.as_bytes(), "ann", "mx.example.org", &Domain::parse("mx.example.org").unwrap()).unwrap()
    }

    #[test]
    fn a_file_is_read_as_sendmail_reads_it() {
        let found = read(
            "# away\n\\ann, bob@example.net\n\"|/usr/bin/vacation ann\"\nCy <cy@lists>, /home/ann/copy\n",
        );
        assert!(found.is_own);
        assert_eq!(found.addresses, ["bob@example.net", "cy@lists"]);
        assert_eq!(found.programs, ["/usr/bin/vacation ann"]);
        assert_eq!(found.files, ["/home/ann/copy"]);
        assert_eq!(found.exit_code(), 0);
    }

    #[test]
    fn what_goes_elsewhere_alone_ends_the_instructions() {
        assert_eq!(read("bob\n").exit_code(), 99);
        assert_eq!(read("bob\n").addresses, ["bob@mx.example.org"]);
        assert_eq!(read("ANN@MX.example.org\n").exit_code(), 0);
        assert_eq!(read("# nothing\n\n").exit_code(), 0);
        assert!(read("# nothing\n\n").is_empty());
    }

    #[test]
    fn errors_name_their_line() {
        let no_at_host = Domain::parse("x.test").unwrap();
        let error = parse(b"bob\n\"cy\n", "ann", "x.test", &no_at_host).unwrap_err();
        assert_eq!(error, AliasError { line: 2, what: AliasFault::Unclosed });
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "[a-c@.\"\\\\ <>(),|/:\n]{0,30}",
        ) {
            fuzz_forward_file(&bytes);
            fuzz_forward_file(text.as_bytes());
        }
    }
}
