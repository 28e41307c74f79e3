//! Lines of JSON (RFC 8259), written without a tree and without an allocation of their own.
//!
//! Text is UTF-8 already; what a peer said was made safe when it came in. Runs of octets that need no escape are copied
//! as they are: a line costs what its octets cost.

use message::EnhancedCode;

/// One object under way, on one line.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Begins one at the end of `out`.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out }
    }

    /// Ends it, and the line.
    pub(crate) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.pieces(key, &[text]);
    }

    /// Nothing, if there is nothing to say.
    pub(crate) fn text_if(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    /// A text put together of several.
    pub(crate) fn pieces(&mut self, key: &str, pieces: &[&str]) {
        self.key(key);
        self.out.push(b'"');
        pieces.iter().for_each(|piece| escape(piece, self.out));
        self.out.push(b'"');
    }

    pub(crate) fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        decimal(number, self.out);
    }

    /// `5.1.1`, in quotes.
    pub(crate) fn enhanced(&mut self, key: &str, code: EnhancedCode) {
        self.key(key);
        self.out.push(b'"');
        decimal(u64::from(code.0), self.out);
        for number in [code.1, code.2] {
            self.out.push(b'.');
            decimal(u64::from(number), self.out);
        }
        self.out.push(b'"');
    }

    /// 16 digits: numbers above 2^53 are none to many readers of JSON.
    pub(crate) fn hex(&mut self, key: &str, number: u64) {
        self.key(key);
        let mut digits = *b"\"0000000000000000\"";
        for (at, digit) in digits[1..17].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
        }
        self.out.extend_from_slice(&digits);
    }
}

fn decimal(number: u64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// String escapes (RFC 8259 §7).
fn escape(text: &str, out: &mut Vec<u8>) {
    let needs_escape = |octet: &u8| *octet < 32 || *octet == b'"' || *octet == b'\\';
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(needs_escape) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            octet @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', octet]),
            octet => {
                let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(octet >> 4), digit(octet & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_and_number_come_back(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}", number: u64) {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.pieces("text", &[&text, "@", &text]);
            object.number("number", number);
            object.hex("hex", number);
            object.text_if("none", "");
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&value["text"], &format!("{text}@{text}"));
            prop_assert_eq!(&value["number"], number);
            prop_assert_eq!(&value["hex"], &format!("{number:016x}"));
            prop_assert_eq!(value.as_object().unwrap().len(), 3);
            prop_assert!(out.iter().position(|octet| *octet == b'\n') == Some(out.len() - 1));
        }
    }
}
