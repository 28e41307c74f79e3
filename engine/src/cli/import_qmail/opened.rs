//! Hosts that outsiders may send to here and could not send to there.
//!
//! qmail-smtpd asks `rcpthosts` and `morercpthosts.cdb`, and nothing else; here a host whose mailboxes are this machine's
//! needs no further leave ([`crate::access`]). So a `.fax` among the virtual domains was for users alone, and is now for
//! everybody. Where there is no `rcpthosts` qmail took mail for anybody: nothing more is open then.

use super::Translation;
use super::table::{lines, locals_file};
use crate::access::Domains;
use message::cdb::Cdb;
use std::collections::BTreeMap;

/// `more`: what `morercpthosts.cdb` has.
pub(super) fn tell(files: &BTreeMap<String, String>, more: Option<Cdb>, translation: &mut Translation) {
    let Some(text) = files.get("rcpthosts") else { return };
    let listed: Vec<String> = lines(text).map(str::to_owned).collect();
    let taken = Domains::new(listed.iter(), more);
    for (file, name) in named(files) {
        let host = name.rsplit_once('@').map_or(name, |(_, host)| host);
        if !taken.contains(host) {
            let at = if name.contains('@') { "" } else { "@" };
            translation.untold(&format!(
                "control/{file}: {name} is not in control/rcpthosts: outsiders could not send to it and now \
                 can; take it out of [local], or have access.bad_recipients refuse \"{at}{name}\" to all"
            ));
        }
    }
}

/// What mail is taken for by name, with its file. The word for everybody (`:word`) names nobody, and an empty one says
/// that the host is elsewhere.
fn named(files: &BTreeMap<String, String>) -> Vec<(&'static str, &str)> {
    let text = |name: &str| files.get(name).map_or("", String::as_str);
    let own = locals_file(files);
    let locals = lines(text(own)).filter(|host| message::Domain::parse(host).is_ok());
    let virtuals = lines(text("virtualdomains")).filter_map(|line| line.split_once(':'));
    let virtuals = virtuals.filter(|(name, word)| !name.is_empty() && !word.is_empty());
    locals.map(|host| (own, host)).chain(virtuals.map(|(name, _)| ("virtualdomains", name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(files: &[(&str, &str)], more: &[&[u8]]) -> Vec<String> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut translation = Translation::default();
        tell(&files, Cdb::new(crate::config::write_cdb(more)), &mut translation);
        translation.untold
    }

    #[test]
    fn hosts_that_rcpthosts_lacks_are_told() {
        let virtuals = ".fax:alias-fax\nlists.example.net:lists\n.b.example.net:b\nann@Example.org:ann\n\
                        bob@far.test:bob\nmore.test:more\n:catch\nelsewhere.test:\n";
        let files = [
            ("rcpthosts", "example.org\n.example.net\n"),
            ("locals", "mx.example.org\nexample.org\nno host\n"),
            ("virtualdomains", virtuals),
        ];
        let lines = told(&files, &[b"more.test"]);
        let starts = [
            "control/locals: mx.example.org is not in",
            "control/virtualdomains: .fax is not in",
            "control/virtualdomains: bob@far.test is not in",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:#?}");
        assert!(lines[1].contains("\"@.fax\"") && lines[2].contains("\"bob@far.test\""), "{lines:#?}");
        assert_eq!(told(&files, &[]).len(), 4);
    }

    #[test]
    fn where_everybody_could_send_to_anybody_nothing_is_opened() {
        assert!(told(&[("me", "mx.example.org\n"), ("virtualdomains", ".fax:alias-fax\n")], &[]).is_empty());
        assert_eq!(told(&[("me", "mx.example.org\n"), ("rcpthosts", "")], &[]).len(), 1);
    }
}
