//! What is kept of a message besides its delivery (Q05): a one-way hash of it, or a copy in an archive.
//!
//! An archive's copy is a message of its own from the null reverse-path and not one more recipient: so its failure is
//! told to no sender, who would learn of the archive by it; nobody's VERP or DSN reaches it; and no other recipient
//! shares a transaction with it. Messages from `<>` that come in are archived like all others; what we compose
//! ourselves is not, nor is mail to the archives alone, so that no copy breeds another.
//! Pure. Bound: `keep.archive` has at most 8 addresses; a look at the recipients of a list ends at the first that is
//! no archive.

use crate::config::Keep;
use message::{Mailbox, MessageId, Recipients, UnixMillis};

/// A line of JSON for the delivery log, with its line end. `content`: as it came, without what we put on top of it, so
/// that whoever sent it finds the same. Costs one pass, about a second for a gigabyte.
pub fn hash_line(at: UnixMillis, id: MessageId, content: &[u8]) -> String {
    let hash = blake3::hash(content);
    let octets = content.len();
    format!("{{\"at\":\"{}\",\"msg\":\"{id}\",\"octets\":{octets},\"blake3\":\"{hash}\"}}\n", at.rfc3339())
}

/// Who gets a copy of a message to `recipients`: to be put into an envelope with the null reverse-path, without VERP and
/// DSN, and with the message's own body kind, SMTPUTF8 and REQUIRETLS. `None`: nobody.
pub fn archive_recipients(keep: &Keep, recipients: &Recipients) -> Option<Recipients> {
    if keep.archive.is_empty() {
        return None;
    }
    let mut archives = Recipients::new();
    for mailbox in keep.archive.iter().filter_map(|address| Mailbox::parse(address).ok()) {
        archives.push(mailbox.as_ref());
    }
    // Both lists have their domains in lower case.
    let is_archive = |recipient| archives.iter().any(|archive| archive == recipient);
    let is_own = !recipients.is_empty() && recipients.iter().all(is_archive);
    (!is_own && !archives.is_empty()).then_some(archives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use message::MailboxRef;

    fn list(addresses: &[&str]) -> Recipients {
        let mut recipients = Recipients::new();
        addresses.iter().for_each(|address| recipients.push(MailboxRef::parse(address).unwrap()));
        recipients
    }

    #[test]
    fn the_line_has_the_hash_of_the_content() {
        let line = hash_line(UnixMillis(0), MessageId(0xab), b"");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        // The empty input's hash, as BLAKE3's own test vectors have it.
        assert_eq!(value["blake3"], "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(value["msg"], "00000000000000ab");
        assert!(line.ends_with("}\n") && value["octets"] == 0);
        assert_ne!(hash_line(UnixMillis(0), MessageId(0xab), b"a"), line);
    }

    #[test]
    fn everything_is_archived_but_mail_to_the_archives() {
        let keep = Keep { hash: false, archive: vec!["all@Example.net".into(), "b@x.test".into()] };
        let archives = list(&["all@example.net", "b@x.test"]);
        assert_eq!(archive_recipients(&keep, &list(&["ann@a.test"])), Some(archives.clone()));
        assert_eq!(archive_recipients(&keep, &list(&["all@example.net", "ann@a.test"])), Some(archives));
        assert_eq!(archive_recipients(&keep, &list(&["b@X.test"])), None);
        assert_eq!(archive_recipients(&Keep::default(), &list(&["ann@a.test"])), None);
    }
}
