//! A whole message that was written as text: what its header may not have as it is, is encoded.
//!
//! Whoever writes a message into a string of a program writes `Subject: Grüße` and a body in UTF-8, and says nothing of
//! MIME. A field that is well-formed otherwise gets encoded words (RFC 2047); a body beyond ASCII of which nothing is said is
//! declared to be plain text in UTF-8. All else stays octet for octet.

use super::field;
use crate::compose::header::{Parts, RawField};
use crate::compose::token::unfold;

/// What says that a body is not the plain ASCII of RFC 5322.
const MIME_FIELDS: [&str; 3] = ["mime-version", "content-type", "content-transfer-encoding"];

const DECLARED: &[u8] =
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";

/// The message as mail has it; `None` if it is so already. Lines end in CR LF. Cost: one pass.
pub fn encode_whole(content: &[u8]) -> Option<Vec<u8>> {
    if content.is_ascii() {
        return None;
    }
    let parts = Parts::of(content);
    let declares = !parts.rest.is_ascii()
        && !parts.fields.iter().any(is_of_mime)
        && std::str::from_utf8(parts.rest).is_ok();
    let encoded: Vec<Option<Vec<u8>>> = parts.fields.iter().map(encoded).collect();
    if !declares && encoded.iter().all(Option::is_none) {
        return None;
    }
    let (mut out, mut rest) = (Vec::with_capacity(content.len() + 512), content);
    for (field, encoded) in parts.fields.iter().zip(&encoded) {
        let (whole, tail) = rest.split_at(field.value_at + field.value.len());
        out.extend_from_slice(encoded.as_deref().unwrap_or(whole));
        rest = tail;
    }
    if declares {
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(DECLARED);
    }
    if !rest.starts_with(b"\r\n") && declares {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(rest);
    Some(out)
}

fn is_of_mime(field: &RawField<'_>) -> bool {
    MIME_FIELDS.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_bytes()))
}

/// The field with encoded words. `None`: it needs none, or its reader may know better what it means.
fn encoded(field: &RawField<'_>) -> Option<Vec<u8>> {
    if field.value.is_ascii() {
        return None;
    }
    let (name, value) = (std::str::from_utf8(field.name).ok()?, unfold(field.value));
    let mut out = Vec::new();
    field::put(name.trim(), std::str::from_utf8(&value).ok()?.trim(), &[], &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> String {
        let content = text.replace('\n', "\r\n");
        let encoded = encode_whole(content.as_bytes()).unwrap_or(content.into_bytes());
        String::from_utf8(encoded).unwrap().replace("\r\n", "\n")
    }

    #[test]
    fn fields_get_encoded_words_and_the_body_is_declared() {
        let text = "From: Jörg <j@x.test>\nSubject: Grüße\n  aus Köln\nX-A: plain\n\nGrüße\n";
        let written = whole(text);
        assert!(written.starts_with("From: =?UTF-8?"), "{written}");
        assert!(
            written.contains("<j@x.test>\nSubject: =?UTF-8?") && written.contains("\nX-A: plain\n"),
            "{written}"
        );
        let end = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n";
        assert!(written.ends_with(end), "{written}");
    }

    #[test]
    fn what_says_itself_what_it_is_stays_as_it_is() {
        for text in
            ["Subject: x\n\nhi\n", "Subject: x\nContent-Type: text/html; charset=utf-8\n\n<p>Grüße\n", ""]
        {
            assert_eq!(encode_whole(text.replace('\n', "\r\n").as_bytes()), None, "{text:?}");
        }
        let latin = b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n";
        assert_eq!(encode_whole(latin), None, "nobody knows which charset this is");
        assert_eq!(encode_whole(b"Subject: Gr\xfc\xdfe\r\n\r\n"), None);
    }

    #[test]
    fn references_of_a_template_pass_through() {
        let written = whole("Subject: Grüße, {{ name }}\nTo: {{ name }} <{{ email }}>\n\nhi\n");
        let template = crate::merge::Template::compile(written.as_bytes()).unwrap();
        let fields: Vec<_> = template.fields().iter().map(|field| &*field.name).collect();
        assert_eq!(fields, ["name", "email"]);
    }

    proptest! {
        #[test]
        fn a_second_time_changes_nothing(text in "((Subject|From|To|X-A): ?[ -~é\u{4e16}]{0,30}\n)*(\n)?[ -~é\n]{0,60}") {
            let once = whole(&text);
            prop_assert_eq!(whole(&once), once);
        }
    }
}
