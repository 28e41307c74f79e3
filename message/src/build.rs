//! A message from what a program says of it: texts, attachments and a few fields, in the form that clients of KumoMTA's
//! HTTP injection send.
//!
//! Texts become one part or a multipart/alternative (plain, AMP, HTML: the last is preferred), attachments that have a
//! Content-ID stand beside them in a multipart/related, all others in a multipart/mixed. Everything is sent in ASCII: texts in
//! quoted-printable or base64, attachments in base64, fields in encoded words. References of a merge template pass through
//! wherever `merge` takes them.
//!
//! Pure: date and Message-ID are arguments, and boundaries come from the Message-ID; they begin with `=_`, which no body here
//! can have. Trusts nobody: what would break a field, a name or an address is refused, with the field's name. Bound: the message
//! is at most some three times as long as what it is made of.

mod error;
mod field;
mod part;
mod whole;

pub use error::{BuildError, BuildProblem};
pub use whole::encode_whole;

use crate::compose::Stamp;
use crate::compose::role::{Known, Role};
use part::Part;

/// To of each copy that is merged: its recipient.
pub const TO_EACH: &str = "{{name|default(\"\")}} <{{email}}>";

/// What a message is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Letter<'a> {
    pub from: Option<Person<'a>>,
    pub reply_to: Option<Person<'a>>,
    pub subject: Option<&'a str>,
    /// Write [`TO_EACH`] unless `headers` have a To: for what becomes a merge template.
    pub to_each: bool,
    pub text_body: Option<&'a str>,
    pub html_body: Option<&'a str>,
    pub amp_html_body: Option<&'a str>,
    /// Further fields, name and value. From, Reply-To and Subject count only where they are not said above; Date and Message-ID
    /// take the place of the given ones.
    pub headers: &'a [(&'a str, &'a str)],
    pub attachments: &'a [Attachment<'a>],
}

/// A mailbox with a name.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    pub email: &'a str,
    pub name: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// `image/png`, with parameters if there are any.
    pub content_type: &'a str,
    pub data: Data<'a>,
    pub file_name: Option<&'a str>,
    /// What `cid:` URLs of the HTML call it. It is shown within the text, not beside it.
    pub content_id: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Text(&'a str),
    Base64(&'a str),
}

/// Makes the message; its lines end in CR LF. `message_id` is without brackets.
pub fn build(letter: &Letter<'_>, date: Stamp, message_id: &str) -> Result<Vec<u8>, BuildError> {
    build_with(letter, Some((date, message_id)))
}

/// As [`build`], without Date and Message-ID unless they are given: for whoever completes it later. The same letter is the
/// same message, octet for octet.
pub fn build_undated(letter: &Letter<'_>) -> Result<Vec<u8>, BuildError> {
    build_with(letter, None)
}

fn build_with(letter: &Letter<'_>, stamp: Option<(Stamp, &str)>) -> Result<Vec<u8>, BuildError> {
    let part = Part::of(letter)?;
    let mut out = Vec::with_capacity(part.len_about());
    header(letter, stamp, &mut out)?;
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let seed = stamp.map_or("", |(_, message_id)| message_id);
    part.put(&mut part::Boundaries::of(seed), &mut out);
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

fn header(letter: &Letter<'_>, stamp: Option<(Stamp, &str)>, out: &mut Vec<u8>) -> Result<(), BuildError> {
    let given = |role| letter.headers.iter().any(|(name, _)| is_role(name, role));
    match &letter.from {
        Some(person) => field::put_person("From", "from", person, out)?,
        None if given(Role::From) => {}
        None => return Err(BuildError::new("from", BuildProblem::Missing)),
    }
    if letter.to_each && !given(Role::To) {
        field::put_raw("To", TO_EACH, out);
    }
    if let Some(person) = &letter.reply_to {
        field::put_person("Reply-To", "reply_to", person, out)?;
    }
    if let Some(subject) = letter.subject {
        field::put_text("Subject", "subject", subject, out)?;
    }
    if let Some((date, _)) = stamp.filter(|_| !given(Role::Date)) {
        field::put_raw("Date", &date.date(), out);
    }
    if let Some((_, message_id)) = stamp.filter(|_| !given(Role::MessageId)) {
        field::put_raw("Message-ID", &format!("<{message_id}>"), out);
    }
    for (index, (name, value)) in letter.headers.iter().enumerate() {
        let said = is_role(name, Role::From) && letter.from.is_some()
            || is_role(name, Role::ReplyTo) && letter.reply_to.is_some()
            || name.eq_ignore_ascii_case("subject") && letter.subject.is_some();
        if !said {
            field::put(name, value, &letter.headers[..index], out)?;
        }
    }
    Ok(())
}

fn is_role(name: &str, role: Role) -> bool {
    Known::of(name.as_bytes()) == Known { role, resent: false }
}

#[cfg(test)]
mod tests;
