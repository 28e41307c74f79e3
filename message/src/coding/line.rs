//! A header field on its way out, folded (RFC 5322 §2.2.3).
//!
//! Text comes in units that must not be parted, and spaces between them. A line that has grown past 76 octets is folded
//! at its last space when the next space or the end comes: so a unit is written at once and moved at most once. A space
//! is written only when something follows it: no line is blank, and none ends in white space.
//!
//! Bound: a unit longer than a line has a line of its own; who writes units sees to it that none passes
//! [`UNIT_MAX`]. No allocation beyond the buffer's growth.

/// What a line aims at, without its end (RFC 2047 §2: the most that a line with an encoded word may have).
pub(crate) const LINE_AIM: usize = 76;

/// The most that a line may have, without its end (RFC 5322 §2.1.1).
pub(crate) const LINE_MAX: usize = 998;

/// Longest unit that is written as it is: with the space before it, it stays below [`LINE_MAX`].
pub(crate) const UNIT_MAX: usize = 900;

pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    /// Where the line begins in `out`.
    start: usize,
    /// The last space in this line at which it can be folded.
    fold: Option<usize>,
    /// A space is due before what comes next.
    space: bool,
}

impl<'a> Line<'a> {
    /// Begins the field `name`; what follows its colon comes behind a space.
    pub(crate) fn field(name: &[u8], out: &'a mut Vec<u8>) -> Line<'a> {
        let start = out.len();
        out.extend_from_slice(name);
        out.push(b':');
        Line { out, start, fold: None, space: true }
    }

    /// Text that belongs to what stands before it, unless a space is between them.
    pub(crate) fn put(&mut self, unit: &[u8]) {
        if !unit.is_empty() {
            self.unit().extend_from_slice(unit);
        }
    }

    /// Where more of the unit is appended: at least one octet.
    pub(super) fn unit(&mut self) -> &mut Vec<u8> {
        if std::mem::take(&mut self.space) {
            self.wrap();
            self.fold = Some(self.out.len());
            self.out.push(b' ');
        }
        self.out
    }

    /// The line may be folded here.
    pub(crate) fn space(&mut self) {
        self.space = true;
    }

    /// Octets in this line so far, the space that is due included.
    pub(crate) fn column(&self) -> usize {
        self.out.len() - self.start + usize::from(self.space)
    }

    /// Octets that a unit may still have if `after` more belong to it. Folds first if it can.
    pub(crate) fn room(&mut self, after: usize) -> usize {
        self.wrap();
        LINE_MAX.saturating_sub(self.column() + after)
    }

    /// Begins a new line unless `len` more octets fit in this one.
    pub(super) fn make_room(&mut self, len: usize) {
        if self.space && self.column() + len > LINE_AIM {
            self.out.extend_from_slice(b"\r\n");
            self.start = self.out.len();
            self.fold = None;
        }
    }

    /// The field's end.
    pub(crate) fn end(mut self) {
        self.wrap();
        self.out.extend_from_slice(b"\r\n");
    }

    fn wrap(&mut self) {
        if self.out.len() - self.start <= LINE_AIM {
            return;
        }
        let Some(at) = self.fold.take() else { return };
        let len = self.out.len();
        self.out.extend_from_slice(b"\r\n");
        self.out.copy_within(at..len, at + 2);
        self.out[at..at + 2].copy_from_slice(b"\r\n");
        self.start = at + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(units: &[&str]) -> String {
        let mut out = Vec::new();
        let mut line = Line::field(b"X", &mut out);
        for unit in units {
            line.put(unit.as_bytes());
            line.space();
        }
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_folded_at_its_last_space_before_76_octets() {
        let word = "w".repeat(24);
        assert_eq!(field(&[&word, &word, &word]), format!("X: {word} {word}\r\n {word}\r\n"));
        assert_eq!(field(&["a", "b"]), "X: a b\r\n");
        assert_eq!(field(&[]), "X:\r\n");
        assert_eq!(field(&["", ""]), "X:\r\n");
    }

    #[test]
    fn a_unit_longer_than_a_line_has_one_of_its_own() {
        let long = "w".repeat(100);
        assert_eq!(field(&["a", &long, "b"]), format!("X: a\r\n {long}\r\n b\r\n"));
        assert_eq!(field(&[&long]), format!("X:\r\n {long}\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn unfolding_gives_the_units_back(units in proptest::collection::vec("[a-z]{1,90}", 0..12)) {
            let units: Vec<&str> = units.iter().map(String::as_str).collect();
            let folded = field(&units);
            let whole = if units.is_empty() { "X:".to_owned() } else { format!("X: {}", units.join(" ")) };
            proptest::prop_assert_eq!(folded.replace("\r\n", ""), whole);
            for line in folded.split("\r\n") {
                let one_unit = line.trim_start_matches("X:").trim_start().split(' ').count() == 1;
                proptest::prop_assert!(line.len() <= LINE_AIM || one_unit, "{}", line);
            }
        }
    }
}
