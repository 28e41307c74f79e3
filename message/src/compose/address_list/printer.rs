//! Writes an address list into a field: one space behind each comma, folded before 78 columns where a line can be
//! folded (RFC 5322 §2.1.1). An address that is longer than a line stays whole.

use super::{AddrSpec, AddressList, Element, Entry, Group, Phrase};
use crate::compose::token::{Kind, Token};

/// Columns of a line (RFC 5322 §2.1.1).
const COLUMNS: usize = 78;

pub(super) fn print(list: &AddressList<'_>, name: &[u8]) -> Vec<u8> {
    let mut folder = Folder::new(name);
    let mut piece = Piece::default();
    for (index, element) in list.elements.iter().enumerate() {
        let comma = if index + 1 < list.elements.len() { "," } else { "" };
        match element {
            Element::Mailbox(entry) => {
                piece.entry(entry, comma);
                folder.put(&mut piece);
            }
            Element::Group(group) => print_group(group, comma, &mut piece, &mut folder),
        }
    }
    piece.comments(&list.comments);
    folder.put(&mut piece);
    folder.end()
}

/// The group's name stands alone, so that a line may end behind its colon.
fn print_group(group: &Group<'_>, comma: &str, piece: &mut Piece, folder: &mut Folder) {
    piece.phrase(&group.name);
    piece.add(b":", false);
    folder.put(piece);
    let end = if group.after.is_empty() { [";", comma].concat() } else { ";".to_owned() };
    for (index, member) in group.members.iter().enumerate() {
        piece.entry(member, if index + 1 < group.members.len() { "," } else { &end });
        folder.put(piece);
    }
    if group.members.is_empty() {
        piece.comments(&group.inner);
        piece.add(end.as_bytes(), false);
        folder.put(piece);
    }
    if !group.after.is_empty() {
        piece.comments(&group.after);
        piece.add(comma.as_bytes(), false);
        folder.put(piece);
    }
}

/// What should stand on one line, and where it may be parted if no line is long enough.
#[derive(Default)]
struct Piece {
    text: Vec<u8>,
    /// Offsets of spaces at which a line may end.
    spaces: Vec<usize>,
}

impl Piece {
    fn add(&mut self, text: &[u8], space: bool) {
        if space && !self.text.is_empty() {
            self.spaces.push(self.text.len());
            self.text.push(b' ');
        }
        self.text.extend_from_slice(text);
    }

    fn entry(&mut self, entry: &Entry<'_>, separator: &str) {
        self.phrase(&entry.before);
        match (&entry.address, entry.in_angles) {
            (Some(address), false) => self.address(address, true),
            (Some(address), true) => {
                self.add(b"<", true);
                self.address(address, false);
                self.add(b">", false);
            }
            (None, _) => self.add(b"<>", true),
        }
        self.comments(&entry.after);
        self.add(separator.as_bytes(), false);
    }

    fn address(&mut self, address: &AddrSpec<'_>, space: bool) {
        self.add(&address.local, space);
        if let Some(host) = &address.host {
            self.add(b"@", false);
            self.add(host, false);
        }
    }

    /// The quoted words come behind the comments that stood among them.
    fn phrase(&mut self, phrase: &Phrase<'_>) {
        let mut after_atom = false;
        for token in &phrase.tokens {
            let is_atom = token.kind == Kind::Atom;
            self.add(token.text, token.space || after_atom && is_atom);
            after_atom = is_atom;
        }
        if let Some(quoted) = &phrase.quoted {
            self.add(quoted, true);
        }
    }

    fn comments(&mut self, comments: &[Token<'_>]) {
        for comment in comments {
            self.add(comment.text, true);
        }
    }
}

/// The field in the making.
struct Folder {
    out: Vec<u8>,
    column: usize,
    /// Nothing stands on this line but the fold's space or the field's name.
    fresh: bool,
}

impl Folder {
    fn new(name: &[u8]) -> Folder {
        let mut out = name.to_vec();
        out.push(b':');
        Folder { column: out.len(), out, fresh: true }
    }

    /// Appends the piece behind a space or a fold, and empties it.
    fn put(&mut self, piece: &mut Piece) {
        if piece.text.is_empty() {
            return;
        }
        if !self.fresh && self.column + 1 + piece.text.len() > COLUMNS {
            self.fold();
        }
        let mut from = 0;
        for space in piece.spaces.iter().copied().chain([piece.text.len()]) {
            self.put_word(&piece.text[from..space]);
            from = space + 1;
        }
        piece.text.clear();
        piece.spaces.clear();
    }

    fn put_word(&mut self, word: &[u8]) {
        if !self.fresh && self.column + 1 + word.len() > COLUMNS {
            self.fold();
        }
        // A fold has brought its space.
        if !self.out.ends_with(b"\r\n ") {
            self.out.push(b' ');
            self.column += 1;
        }
        self.out.extend_from_slice(word);
        self.column += word.len();
        self.fresh = false;
    }

    fn fold(&mut self) {
        self.out.extend_from_slice(b"\r\n ");
        self.column = 1;
        self.fresh = true;
    }

    fn end(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"\r\n");
        self.out
    }
}
