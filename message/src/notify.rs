//! What a sender asks to be told of its mail (RFC 3461): RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT.
//!
//! Texts are kept as they came, in xtext (§4), since that is how they are handed on; [`decoded`] undoes it for a
//! report. Trusts nothing that a peer sent: what does not decode to printable ASCII is refused, so that nothing here
//! can end a line of a command or of a report. Bounds: [`ENVELOPE_ID_MAX`] and [`ORIGINAL_MAX`] octets.

/// Octets of ENVID's value (RFC 3461 §4.4).
pub const ENVELOPE_ID_MAX: usize = 100;

/// Octets of ORCPT's value (RFC 3461 §4.2).
pub const ORIGINAL_MAX: usize = 500;

/// What MAIL said. Nothing, by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MailAsked {
    pub ret: Option<Ret>,
    pub envelope_id: Option<EnvelopeId>,
}

impl MailAsked {
    pub fn is_nothing(&self) -> bool {
        self.ret.is_none() && self.envelope_id.is_none()
    }
}

/// What one RCPT said. Nothing, by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecipientAsked<'a> {
    pub notify: Notify,
    pub original: Option<OriginalRecipient<'a>>,
}

impl RecipientAsked<'_> {
    pub fn is_nothing(&self) -> bool {
        self.notify == Notify::UNSAID && self.original.is_none()
    }
}

/// How much of a message that failed is sent back (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ret {
    Full,
    Headers,
}

impl Ret {
    /// `FULL` or `HDRS`, in any case.
    pub fn parse(text: &str) -> Option<Ret> {
        match text {
            _ if text.eq_ignore_ascii_case("FULL") => Some(Ret::Full),
            _ if text.eq_ignore_ascii_case("HDRS") => Some(Ret::Headers),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        }
    }
}

/// Whether a sender wants one kind of report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    Yes,
    No,
    /// As we see fit.
    Unsaid,
}

/// NOTIFY's value (RFC 3461 §4.1): a set of occasions, the empty set by its own name, or nothing said at all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Notify(u8);

impl Notify {
    pub const UNSAID: Notify = Notify(0);
    pub const NEVER: Notify = Notify(8);
    const SUCCESS: u8 = 1;
    const FAILURE: u8 = 2;
    const DELAY: u8 = 4;

    /// `NEVER`, or `SUCCESS`, `FAILURE` and `DELAY` with commas between, each once at most, in any case.
    pub fn parse(text: &str) -> Option<Notify> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::NEVER);
        }
        let mut bits = 0;
        for occasion in text.split(',') {
            let bit = match occasion {
                _ if occasion.eq_ignore_ascii_case("SUCCESS") => Notify::SUCCESS,
                _ if occasion.eq_ignore_ascii_case("FAILURE") => Notify::FAILURE,
                _ if occasion.eq_ignore_ascii_case("DELAY") => Notify::DELAY,
                _ => return None,
            };
            if bits & bit != 0 {
                return None;
            }
            bits |= bit;
        }
        Some(Notify(bits))
    }

    /// As on disk: 1 SUCCESS, 2 FAILURE, 4 DELAY, or 8 NEVER; 0 nothing was said.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// `None` for bits that [`Notify::bits`] does not give.
    pub const fn from_bits(bits: u8) -> Option<Notify> {
        if bits <= 8 { Some(Notify(bits)) } else { None }
    }

    /// The value as RCPT has it; "" if nothing was said.
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0 => "",
            1 => "SUCCESS",
            2 => "FAILURE",
            3 => "SUCCESS,FAILURE",
            4 => "DELAY",
            5 => "SUCCESS,DELAY",
            6 => "FAILURE,DELAY",
            7 => "SUCCESS,FAILURE,DELAY",
            _ => "NEVER",
        }
    }

    /// To be told of success only where it was asked for (RFC 3461 §4.1).
    pub const fn wants_success(self) -> bool {
        self.0 & Notify::SUCCESS != 0
    }

    /// Of failure everyone is told who did not say otherwise.
    pub const fn wants_failure(self) -> bool {
        self.0 == 0 || self.0 & Notify::FAILURE != 0
    }

    pub const fn delay(self) -> Wanted {
        match self.0 {
            0 => Wanted::Unsaid,
            bits if bits & Notify::DELAY != 0 => Wanted::Yes,
            _ => Wanted::No,
        }
    }
}

/// ENVID's value, in xtext: the sender's own name for this transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnvelopeId(Box<str>);

impl EnvelopeId {
    /// `None` if it is empty, too long or no xtext of printable ASCII.
    pub fn parse(text: &str) -> Option<EnvelopeId> {
        ((1..=ENVELOPE_ID_MAX).contains(&text.len()) && is_xtext(text, false))
            .then(|| EnvelopeId(text.into()))
    }

    /// As it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// ORCPT's value: type and address as it was first given, `rfc822;ann+2Blists@example.net`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OriginalRecipient<'a>(&'a str);

impl<'a> OriginalRecipient<'a> {
    /// `None` if it is too long, a part of it is empty or wrong. Addresses of the type `utf-8` may have octets above 127
    /// (RFC 6533 §3). No allocation.
    pub fn parse(text: &'a str) -> Option<OriginalRecipient<'a>> {
        let (kind, address) = text.split_once(';')?;
        let is_atom = !kind.is_empty() && kind.bytes().all(is_atext);
        let is_fit = !address.is_empty() && text.len() <= ORIGINAL_MAX;
        (is_atom && is_fit && is_xtext(address, kind.eq_ignore_ascii_case("utf-8")))
            .then_some(OriginalRecipient(text))
    }

    /// As it came.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// It may only be said where SMTPUTF8 was (RFC 6533 §3).
    pub fn needs_smtputf8(self) -> bool {
        !self.0.is_ascii()
    }

    /// For a report: the type as it came, the address decoded.
    pub fn decoded(self) -> String {
        let (kind, address) = self.0.split_once(';').unwrap_or(("", self.0));
        format!("{kind};{}", decoded(address))
    }
}

/// RFC 5322 §3.2.3.
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet)
}

/// RFC 3461 §4: printable octets but `+` and `=`, and `+` with two hexadecimal digits in upper case. What it decodes
/// to must be printable ASCII as well (§4.2, §4.4).
fn is_xtext(text: &str, may_have_utf8: bool) -> bool {
    let mut rest = text.as_bytes();
    while let Some((octet, tail)) = rest.split_first() {
        rest = match (octet, tail.split_first_chunk::<2>()) {
            (b'+', Some((digits, tail))) if hex_pair(*digits).is_some_and(|it| (32..127).contains(&it)) => {
                tail
            }
            (b'+' | b'=', _) => return false,
            (33..=126, _) => tail,
            (128.., _) if may_have_utf8 => tail,
            _ => return false,
        };
    }
    // U+0080 to U+009F are controls too.
    !text.contains(char::is_control)
}

fn hex_pair([high, low]: [u8; 2]) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// What xtext stands for. A `+` that begins nothing is kept.
pub fn decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('+') {
        out.push_str(before);
        let digits = after.as_bytes().first_chunk::<2>();
        rest = match digits.and_then(|digits| hex_pair(*digits)).filter(u8::is_ascii) {
            Some(octet) => {
                out.push(char::from(octet));
                &after[2..]
            }
            None => {
                out.push('+');
                after
            }
        };
    }
    out + rest
}

/// For the fuzzer: any octets as each of the values.
pub fn fuzz_notify(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (Ret::parse(text), Notify::parse(text));
    let is_safe = |text: &str| assert!(!text.contains(char::is_control));
    if let Some(id) = EnvelopeId::parse(text) {
        is_safe(&decoded(id.as_str()));
    }
    if let Some(original) = OriginalRecipient::parse(text) {
        is_safe(&original.decoded());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_set_of_occasions_comes_back_from_its_text_and_its_bits() {
        for bits in 1..=8 {
            let notify = Notify::from_bits(bits).unwrap();
            assert_eq!(Notify::parse(notify.as_str()), Some(notify));
            assert_eq!(Notify::parse(&notify.as_str().to_lowercase()), Some(notify));
            assert_eq!(notify.bits(), bits);
        }
        assert_eq!(Notify::parse("DELAY,SUCCESS"), Notify::parse("SUCCESS,DELAY"));
        assert_eq!(Notify::from_bits(9), None);
    }

    #[test]
    fn never_stands_alone_and_nothing_is_said_twice() {
        for wrong in
            ["", ",", "NEVER,DELAY", "DELAY,NEVER", "DELAY,DELAY", "DELAY,", "SUCCES", "FAILURE, DELAY"]
        {
            assert_eq!(Notify::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn who_said_nothing_is_told_of_failure_alone() {
        let wants = |text| {
            let notify = Notify::parse(text).unwrap_or_default();
            (notify.wants_success(), notify.wants_failure(), notify.delay())
        };
        assert_eq!(wants(""), (false, true, Wanted::Unsaid));
        assert_eq!(wants("NEVER"), (false, false, Wanted::No));
        assert_eq!(wants("SUCCESS"), (true, false, Wanted::No));
        assert_eq!(wants("FAILURE,DELAY"), (false, true, Wanted::Yes));
    }

    #[test]
    fn envelope_id_is_printable_text_of_a_hundred_octets_at_most() {
        let decode = |text: &str| EnvelopeId::parse(text).map(|id| decoded(id.as_str()));
        assert_eq!(decode("QQ314159").as_deref(), Some("QQ314159"));
        assert_eq!(decode("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        for wrong in ["", "a=b", "a+", "a+2", "a+2b", "a+0D+0A", "a+7F", "a+E9", "a b", "é"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        assert!(decode(&"x".repeat(ENVELOPE_ID_MAX)).is_some());
        assert_eq!(decode(&"x".repeat(ENVELOPE_ID_MAX + 1)), None);
    }

    #[test]
    fn original_recipient_has_a_type_and_an_address() {
        let decode = |text: &str| OriginalRecipient::parse(text).map(OriginalRecipient::decoded);
        assert_eq!(decode("rfc822;ann+2Blists@example.net").as_deref(), Some("rfc822;ann+lists@example.net"));
        assert_eq!(decode("utf-8;é@example.net").as_deref(), Some("utf-8;é@example.net"));
        assert!(OriginalRecipient::parse("UTF-8;é@example.net").unwrap().needs_smtputf8());
        for wrong in [
            "ann@example.net",
            "rfc822;",
            ";ann@example.net",
            "rfc 822;a",
            "rfc822;é@a",
            "utf-8;\u{85}",
            "a;b=c",
        ] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        assert!(decode(&format!("rfc822;{}", "a".repeat(ORIGINAL_MAX - 7))).is_some());
        assert_eq!(decode(&format!("rfc822;{}", "a".repeat(ORIGINAL_MAX - 6))), None);
    }

    fn encoded(text: &str) -> String {
        let mut out = String::new();
        for octet in text.bytes() {
            match octet {
                b'+' | b'=' | b' ' => out.push_str(&format!("+{octet:02X}")),
                _ => out.push(char::from(octet)),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_notify(&bytes);
        }

        #[test]
        fn xtext_of_printable_text_decodes_to_it(text in "[ -~]{1,30}") {
            let id = EnvelopeId::parse(&encoded(&text)).expect("it is xtext");
            prop_assert_eq!(decoded(id.as_str()), text);
        }

        #[test]
        fn what_is_taken_can_end_no_line(text in "(utf-8|rfc822);[+0-9A-F\\x00-\\u{a0}é]{0,20}") {
            fuzz_notify(text.as_bytes());
        }
    }
}
