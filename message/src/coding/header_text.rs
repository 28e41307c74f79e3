//! Text in a header field: as it is where it can be, encoded where it must (RFC 2047 §5).
//!
//! Control characters become spaces before anything else: no text can end a field. Bound: no line passes 76 octets, but
//! for a single word of ASCII that is longer.

use super::encoded_word::{self, Coding};
use super::line::{LINE_AIM, Line, UNIT_MAX};
use crate::compose::token::is_atext;
use smallvec::SmallVec;

/// Text of a field while it is written. Longer text takes memory.
pub(crate) type Text = SmallVec<[u8; 512]>;

/// Appends `text` with a space for each control character.
pub(crate) fn clean(text: &str, out: &mut Text) {
    out.extend(text.bytes().map(|octet| if octet.is_ascii_control() { b' ' } else { octet }));
}

/// What was cleaned, without white space around it.
pub(crate) fn trimmed(text: &Text) -> &str {
    // Only ASCII was replaced.
    std::str::from_utf8(text).unwrap_or_default().trim_matches(' ')
}

/// Text of an unstructured field, cleaned and trimmed. A space must be due.
pub(crate) fn put_text(text: &str, line: &mut Line<'_>) {
    if !is_plain(text) {
        return put_encoded(text, line);
    }
    let mut after_word = false;
    for word in text.split(' ').filter(|_| !text.is_empty()) {
        if after_word {
            line.space();
        }
        // Of several spaces the first is the fold; an empty word is one of the others.
        line.put(if word.is_empty() { b" " } else { word.as_bytes() });
        after_word = !word.is_empty();
    }
}

/// A display name, cleaned and trimmed: words, a quoted string, or encoded words. Nothing for an empty one. A space must be
/// due, and follow.
pub(crate) fn put_phrase(text: &str, line: &mut Line<'_>) {
    if text.len() > LINE_AIM || !is_plain(text) {
        return put_encoded(text, line);
    }
    if text.bytes().all(|octet| is_atext(octet) || octet == b' ') && !text.contains("  ") {
        return put_text(text, line);
    }
    let mut quoted = Text::from_slice(b"\"");
    for octet in text.bytes() {
        if matches!(octet, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(octet);
    }
    quoted.push(b'"');
    line.put(&quoted);
}

/// Readers give it back as it is, and it can be folded.
fn is_plain(text: &str) -> bool {
    let printable = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    printable && !text.contains("=?") && (text.len() <= UNIT_MAX || has_short_units(text))
}

/// No word, with the white space before it, is too long for a line.
fn has_short_units(text: &str) -> bool {
    let (mut len, mut in_word) = (0, true);
    text.bytes().all(|octet| {
        let blank = octet == b' ';
        len = if blank && in_word { 1 } else { len + 1 };
        in_word = !blank;
        len <= UNIT_MAX
    })
}

fn put_encoded(text: &str, line: &mut Line<'_>) {
    let (coding, mut rest) = (Coding::of(text), text);
    while !rest.is_empty() {
        line.space();
        line.make_room(encoded_word::ROOM_MIN + 8);
        let max = LINE_AIM.saturating_sub(line.column());
        let said = encoded_word::put(coding, rest, max, line.unit());
        rest = &rest[said..];
    }
}
