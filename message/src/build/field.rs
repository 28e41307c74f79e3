//! Header fields of a new message.

use super::error::{BuildError, BuildProblem};
use super::{Person, is_role};
use crate::address::MailboxRef;
use crate::coding::header_text::{self, Text};
use crate::coding::line::Line;
use crate::compose::address_list::AddressList;
use crate::compose::role::{Known, Role};
use crate::merge;

/// Longest name of a field.
const NAME_MAX: usize = 76;

/// RFC 5322 §3.6: at most one of each.
const SINGLE: [&str; 9] =
    ["from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject"];

/// A further field; `before` are those that came earlier.
pub(super) fn put(
    name: &str,
    value: &str,
    before: &[(&str, &str)],
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    let label: String = name.chars().take(NAME_MAX).flat_map(char::escape_default).collect();
    let label = format!("headers.{label}");
    let wrong = |problem| Err(BuildError::new(&*label, problem));
    let lower = name.to_ascii_lowercase();
    if name.is_empty()
        || name.len() > NAME_MAX
        || !name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':')
    {
        return wrong(BuildProblem::Name);
    }
    let reserved = lower.starts_with("content-") || lower == "mime-version";
    if reserved || is_role(name, Role::Bcc) || is_role(name, Role::ReturnPath) {
        return wrong(BuildProblem::Reserved);
    }
    let single = SINGLE.contains(&lower.as_str()) || lower == "date";
    if single && before.iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
        return wrong(BuildProblem::Twice);
    }
    match Known::of(name.as_bytes()).role {
        role if role.has_addresses() => put_addresses(name, &label, value, out),
        Role::Date | Role::MessageId => {
            check_line(&label, value)?;
            put_raw(name, value, out);
            Ok(())
        }
        _ => put_text(name, &label, value, out),
    }
}

/// A field that is known to be good as it is.
pub(super) fn put_raw(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn put_text(name: &str, label: &str, value: &str, out: &mut Vec<u8>) -> Result<(), BuildError> {
    check_line(label, value)?;
    let text = cleaned(value);
    let mut line = Line::field(name.as_bytes(), out);
    header_text::put_text(header_text::trimmed(&text), &mut line);
    line.end();
    Ok(())
}

pub(super) fn put_person(
    name: &str,
    label: &str,
    person: &Person<'_>,
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    MailboxRef::parse(person.email).map_err(|error| BuildError::new(format!("{label}.email"), error))?;
    let shown = person.name.unwrap_or_default();
    check_line(&format!("{label}.name"), shown)?;
    let shown = cleaned(shown);
    let shown = header_text::trimmed(&shown);
    let mut line = Line::field(name.as_bytes(), out);
    header_text::put_phrase(shown, &mut line);
    line.space();
    let (open, close) = if shown.is_empty() { ("", "") } else { ("<", ">") };
    for text in [open, person.email, close] {
        line.put(text.as_bytes());
    }
    line.end();
    Ok(())
}

/// Addresses of a template are known only when it is merged.
fn put_addresses(name: &str, label: &str, value: &str, out: &mut Vec<u8>) -> Result<(), BuildError> {
    check_line(label, value)?;
    if merge::has_reference(value) {
        put_raw(name, value, out);
        return Ok(());
    }
    let mut list = AddressList::parse(value.as_bytes()).map_err(|error| BuildError::new(label, error))?;
    if list.is_empty() {
        return Err(BuildError::new(label, BuildProblem::NoAddress));
    }
    for entry in list.entries() {
        let address = entry.address.as_ref().ok_or(BuildProblem::NoAddress);
        let mailbox = address.and_then(|address| address.mailbox().map_err(BuildProblem::from));
        mailbox.map_err(|problem| BuildError::new(label, problem))?;
    }
    list.encode_names();
    out.extend_from_slice(&list.print(name.as_bytes()));
    Ok(())
}

fn cleaned(text: &str) -> Text {
    let mut clean = Text::new();
    header_text::clean(text, &mut clean);
    clean
}

/// A tab is white space like any other.
pub(super) fn check_line(label: &str, value: &str) -> Result<(), BuildError> {
    match value.bytes().any(|octet| octet.is_ascii_control() && octet != b'\t') {
        true => Err(BuildError::new(label, BuildProblem::Control)),
        false => Ok(()),
    }
}
