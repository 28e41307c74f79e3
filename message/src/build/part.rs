//! The parts of a new message (RFC 2045, RFC 2046, RFC 2387).

use super::error::{BuildError, BuildProblem};
use super::field::check_line;
use super::{Attachment, Data, Letter};
use crate::base32;
use crate::coding::line::Line;
use crate::coding::url::{is_unreserved, percent_encoded};
use crate::coding::{TextCoding, base64_lines, quoted_printable, with_crlf};
use aws_lc_rs::digest::{SHA256, digest};
use std::borrow::Cow;

/// Longest name of a file, longest Content-ID, longest Content-Type, in octets.
const NAME_MAX: usize = 255;

pub(super) enum Part<'a> {
    Text { media: &'static str, text: &'a str },
    Attached { attachment: &'a Attachment<'a>, data: Cow<'a, [u8]> },
    Multi { media: &'static str, parts: Vec<Part<'a>> },
}

/// Makes a boundary after the other.
pub(super) struct Boundaries {
    seed: [u8; 10],
    count: u32,
}

impl Boundaries {
    pub(super) fn of(message_id: &str) -> Boundaries {
        let hash = digest(&SHA256, message_id.as_bytes());
        Boundaries { seed: std::array::from_fn(|at| hash.as_ref()[at]), count: 0 }
    }

    fn next(&mut self) -> String {
        self.count += 1;
        let seed = (0..base32::letters(self.seed.len())).map(|place| base32::letter(&self.seed, place));
        format!("=_{}_{}", seed.map(char::from).collect::<String>(), self.count)
    }
}

impl<'a> Part<'a> {
    pub(super) fn of(letter: &Letter<'a>) -> Result<Part<'a>, BuildError> {
        if letter.text_body.is_none() && letter.html_body.is_none() {
            return Err(BuildError::new("text_body", BuildProblem::NoBody));
        }
        let texts = [
            ("text/plain", letter.text_body),
            ("text/x-amp-html", letter.amp_html_body),
            ("text/html", letter.html_body),
        ];
        let texts = texts.into_iter().filter_map(|(media, text)| Some(Part::Text { media, text: text? }));
        let (mut inline, mut beside) = (Vec::new(), Vec::new());
        for (index, attachment) in letter.attachments.iter().enumerate() {
            let part = attached(attachment, index)?;
            if attachment.content_id.is_some() { inline.push(part) } else { beside.push(part) }
        }
        let body = Part::joined("multipart/alternative", texts.collect());
        let body = Part::with("multipart/related", body, inline);
        Ok(Part::with("multipart/mixed", body, beside))
    }

    fn with(media: &'static str, first: Part<'a>, others: Vec<Part<'a>>) -> Part<'a> {
        Part::joined(media, std::iter::once(first).chain(others).collect())
    }

    /// A part alone needs no multipart.
    fn joined(media: &'static str, mut parts: Vec<Part<'a>>) -> Part<'a> {
        match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                parts.extend(last);
                Part::Multi { media, parts }
            }
        }
    }

    pub(super) fn len_about(&self) -> usize {
        match self {
            Part::Text { text, .. } => text.len() + text.len() / 2 + 200,
            Part::Attached { data, .. } => data.len() * 3 / 2 + 400,
            Part::Multi { parts, .. } => parts.iter().map(Part::len_about).sum::<usize>() + 200,
        }
    }

    /// Appends header and body, the body's last line without its end.
    pub(super) fn put(&self, boundaries: &mut Boundaries, out: &mut Vec<u8>) {
        match self {
            Part::Text { media, text } => put_text(media, text, out),
            Part::Attached { attachment, data } => put_attached(attachment, data, out),
            Part::Multi { media, parts } => put_multi(media, parts, boundaries, out),
        }
    }

    fn media(&self) -> &str {
        match self {
            Part::Text { media, .. } | Part::Multi { media, .. } => media,
            Part::Attached { attachment, .. } => attachment.content_type,
        }
    }
}

fn put_text(media: &str, text: &str, out: &mut Vec<u8>) {
    let coding = TextCoding::of(text);
    put_field("Content-Type", &[media, "charset=utf-8"], out);
    put_field("Content-Transfer-Encoding", &[coding.name()], out);
    out.extend_from_slice(b"\r\n");
    match coding {
        TextCoding::QuotedPrintable => {
            let mut writer = quoted_printable::Writer::new(out);
            writer.put(text.as_bytes());
            writer.end();
        }
        TextCoding::Base64 => {
            let mut writer = base64_lines::Writer::new(out);
            with_crlf(text.as_bytes(), |line| writer.put(line));
            writer.end();
        }
    }
}

/// The line end before a boundary belongs to it (RFC 2046 §5.1.1).
fn put_multi(media: &str, parts: &[Part<'_>], boundaries: &mut Boundaries, out: &mut Vec<u8>) {
    let boundary = boundaries.next();
    let said = format!("boundary=\"{boundary}\"");
    let kind = format!("type=\"{}\"", parts.first().map_or("text/plain", Part::media));
    // RFC 2387 §3.1: the type of what the others belong to.
    match media {
        "multipart/related" => put_field("Content-Type", &[media, &said, &kind], out),
        _ => put_field("Content-Type", &[media, &said], out),
    }
    for part in parts {
        out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        part.put(boundaries, out);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
}

fn put_attached(attachment: &Attachment<'_>, data: &[u8], out: &mut Vec<u8>) {
    let media = attachment.content_type.trim();
    let is_text = media.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    let needs_charset = is_text && matches!(attachment.data, Data::Text(_)) && !media.contains("charset");
    match needs_charset {
        true => put_field("Content-Type", &[media, "charset=utf-8"], out),
        false => put_field("Content-Type", &[media], out),
    }
    put_field("Content-Transfer-Encoding", &["base64"], out);
    let disposition = if attachment.content_id.is_some() { "inline" } else { "attachment" };
    match attachment.file_name.map(file_name) {
        Some(name) => put_field("Content-Disposition", &[disposition, &name], out),
        None => put_field("Content-Disposition", &[disposition], out),
    }
    if let Some(id) = attachment.content_id {
        put_field("Content-ID", &[&format!("<{}>", bare_id(id))], out);
    }
    out.extend_from_slice(b"\r\n");
    let mut writer = base64_lines::Writer::new(out);
    writer.put(data);
    writer.end();
}

/// A field with parameters.
fn put_field(name: &str, values: &[&str], out: &mut Vec<u8>) {
    let mut line = Line::field(name.as_bytes(), out);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            line.put(b";");
            line.space();
        }
        line.put(value.as_bytes());
    }
    line.end();
}

/// RFC 2183 §2.3; beyond ASCII RFC 2231 §4.
fn file_name(name: &str) -> String {
    if name.is_ascii() {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("filename=\"{quoted}\"");
    }
    let coded: String = percent_encoded(name, is_unreserved).map(char::from).collect();
    format!("filename*=UTF-8''{coded}")
}

fn bare_id(id: &str) -> &str {
    id.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(id)
}

// ---- what may be attached ----

fn attached<'a>(attachment: &'a Attachment<'a>, index: usize) -> Result<Part<'a>, BuildError> {
    let label = |name: &str| format!("attachments[{index}].{name}");
    check_media(&label("content_type"), attachment.content_type)?;
    if let Some(name) = attachment.file_name {
        check_short(&label("file_name"), name)?;
    }
    if let Some(id) = attachment.content_id {
        check_short(&label("content_id"), id)?;
        let good = |octet: u8| octet.is_ascii_graphic() && !b"<>".contains(&octet);
        if bare_id(id).is_empty() || !bare_id(id).bytes().all(good) {
            return Err(BuildError::new(label("content_id"), BuildProblem::ContentId));
        }
    }
    let data = match attachment.data {
        Data::Text(text) => Cow::Borrowed(text.as_bytes()),
        Data::Base64(text) => {
            let data = base64_lines::decode(text.as_bytes());
            Cow::Owned(data.ok_or_else(|| BuildError::new(label("data"), BuildProblem::Base64))?)
        }
    };
    Ok(Part::Attached { attachment, data })
}

fn check_media(label: &str, media: &str) -> Result<(), BuildError> {
    check_short(label, media)?;
    let name = media.split(';').next().unwrap_or_default().trim();
    let is_token = |text: &str| {
        let good = |octet: u8| octet.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&octet);
        !text.is_empty() && text.bytes().all(good)
    };
    match name.split_once('/') {
        Some((kind, sub)) if is_token(kind) && is_token(sub) && media.is_ascii() => {
            // RFC 2046 §5: these may not be base64, and could hold more than they show.
            match ["multipart", "message"].iter().any(|composite| kind.eq_ignore_ascii_case(composite)) {
                true => Err(BuildError::new(label, BuildProblem::Composite)),
                false => Ok(()),
            }
        }
        _ => Err(BuildError::new(label, BuildProblem::ContentType)),
    }
}

fn check_short(label: &str, text: &str) -> Result<(), BuildError> {
    check_line(label, text)?;
    match text.len() > NAME_MAX {
        true => Err(BuildError::new(label, BuildProblem::TooLong(NAME_MAX))),
        false => Ok(()),
    }
}
