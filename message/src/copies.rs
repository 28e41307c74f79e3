//! A message of which each recipient gets a copy of its own: a template filled in, fields on top, a signature.
//!
//! What all copies have in common is kept: a body without fields is rendered and hashed once, and then each copy costs its
//! header and its signatures. Pure. Trusts values no further than [`merge`](crate::merge) does. Bounds: those of a
//! template; [`Scratch`] keeps the longest header and body that went through it.

use crate::dkim::{BodyHash, SignError, Signers, split};
use crate::merge::Bound;
use crate::time::UnixMillis;
use std::sync::OnceLock;

/// See the module. To be shared by all copies, on whatever thread.
#[derive(Debug)]
pub struct Pattern {
    source: Source,
    /// Of copies whose bodies are the same.
    body: OnceLock<Body>,
}

#[derive(Debug)]
enum Source {
    Template(Bound),
    /// Header with the empty line behind it, and body: copies differ by what stands on top of them.
    Plain {
        header: Box<[u8]>,
        body: Box<[u8]>,
    },
}

#[derive(Debug)]
struct Body {
    octets: Box<[u8]>,
    hash: BodyHash,
}

/// Room for one copy at a time, used again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    header: Vec<u8>,
    body: Vec<u8>,
}

/// What became of a copy's signatures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signing {
    /// Nobody signs for its author.
    Nobody,
    Signed,
    /// It goes out without.
    Failed(SignError),
}

impl Pattern {
    pub fn template(bound: Bound) -> Pattern {
        Pattern { source: Source::Template(bound), body: OnceLock::new() }
    }

    /// Copies of a message that names no fields. Lines end in CRLF; without a header it is all body.
    pub fn plain(content: &[u8]) -> Pattern {
        let (header, body) = split(content).unwrap_or((b"", content));
        let header =
            if header.is_empty() { Box::from(&b"\r\n"[..]) } else { [header, b"\r\n"].concat().into() };
        Pattern { source: Source::Plain { header, body: body.into() }, body: OnceLock::new() }
    }

    /// The template, if there is one: its fields are the columns that values are given by.
    pub fn bound(&self) -> Option<&Bound> {
        match &self.source {
            Source::Template(bound) => Some(bound),
            Source::Plain { .. } => None,
        }
    }

    /// Appends a copy to `out`: signatures, `fields` (whole lines, which are signed too), header and body. Allocates nothing
    /// once `scratch` has grown, but for `out` and in the cryptographic library.
    pub fn render(
        &self,
        fields: &[u8],
        values: &[&str],
        signers: (&Signers, UnixMillis),
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Signing {
        scratch.header.clear();
        scratch.header.extend_from_slice(fields);
        match &self.source {
            Source::Template(bound) => bound.render_header(values, &mut scratch.header),
            Source::Plain { header, .. } => scratch.header.extend_from_slice(header),
        }
        let own = match &self.source {
            Source::Template(bound) if bound.template().has_body_fields() => {
                scratch.body.clear();
                bound.render_body(values, &mut scratch.body);
                Some(&scratch.body[..])
            }
            Source::Template(_) | Source::Plain { .. } => None,
        };
        let body = own.unwrap_or_else(|| &self.shared_body().octets);
        out.reserve(scratch.header.len() + body.len() + 1024);
        let hash = || own.map_or_else(|| self.shared_body().hash, BodyHash::of);
        let signing = sign(&scratch.header, hash, signers, out);
        out.extend_from_slice(&scratch.header);
        out.extend_from_slice(body);
        signing
    }

    fn shared_body(&self) -> &Body {
        self.body.get_or_init(|| {
            let mut octets = Vec::new();
            match &self.source {
                Source::Template(bound) => bound.render_body(&[], &mut octets),
                Source::Plain { body, .. } => octets.extend_from_slice(body),
            }
            Body { hash: BodyHash::of(&octets), octets: octets.into() }
        })
    }
}

fn sign(
    header: &[u8],
    body: impl FnOnce() -> BodyHash,
    (signers, now): (&Signers, UnixMillis),
    out: &mut Vec<u8>,
) -> Signing {
    let Some(own) = signers.signers_for(header) else { return Signing::Nobody };
    match own.sign(header, &body(), now, out) {
        Ok(()) => Signing::Signed,
        Err(error) => Signing::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Template;

    fn rendered(pattern: &Pattern, fields: &[u8], values: &[&str]) -> String {
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        let signing =
            pattern.render(fields, values, (&Signers::default(), UnixMillis(0)), &mut scratch, &mut out);
        assert_eq!(signing, Signing::Nobody);
        String::from_utf8(out).unwrap()
    }

    fn template(content: &str, columns: &[&str]) -> Pattern {
        Pattern::template(Template::compile(content.as_bytes()).unwrap().bind(columns).unwrap())
    }

    #[test]
    fn each_copy_has_its_fields_its_header_and_its_body() {
        let pattern =
            template("Subject: Dear {{name}}\r\n\r\nHello {{name}}, {{town}}!\r\n", &["name", "town"]);
        let copy = rendered(&pattern, b"X-A: 1\r\n", &["Ann", "Ulm"]);
        assert_eq!(copy.split_once("\r\n").unwrap().0, "X-A: 1");
        assert!(copy.contains("Subject: Dear Ann\r\n") && copy.contains("Hello Ann, Ulm!"), "{copy}");
        assert!(rendered(&pattern, b"", &["Bob", "Bonn"]).contains("Hello Bob, Bonn!"));
    }

    #[test]
    fn body_without_fields_is_rendered_once_and_is_every_copys() {
        let pattern = template("Subject: {{name}}\r\n\r\nThe same.\r\n", &["name"]);
        let copies = [rendered(&pattern, b"", &["Ann"]), rendered(&pattern, b"", &["Bob"])];
        let body = std::ptr::from_ref(pattern.shared_body());
        assert!(copies.iter().all(|copy| copy.ends_with("\r\n\r\nThe same.\r\n")) && copies[0] != copies[1]);
        assert!(std::ptr::eq(body, pattern.shared_body()));
    }

    #[test]
    fn message_without_fields_gets_what_stands_on_top_and_nothing_else_changes() {
        for content in ["Subject: x\r\n\r\nbody\r\n", "Subject: x\r\n\r\n", "\r\nno header\r\n"] {
            assert_eq!(
                rendered(&Pattern::plain(content.as_bytes()), b"X-A: 1\r\n", &[]),
                format!("X-A: 1\r\n{content}")
            );
        }
    }
}
