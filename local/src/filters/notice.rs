//! `qreceipt` and `qbiff`: somebody is told that a message came.

use super::{Exit, HEADER_MAX, Variables};
use crate::delivery::quoted_address;
use message::compose::address_list::{AddrSpec, AddressList};
use message::compose::token::unfold;
use message::header::{fields, header_len};

/// Characters of a message that `qbiff` shows, with the four blanks before them.
const TEXT_MAX: usize = 78;

/// A message of thanks, from the null sender.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    pub to: String,
    /// Lines end in LF.
    pub content: Vec<u8>,
}

/// What `qreceipt address` answers to a message whose lines end in LF: if its `Notice-Requested-Upon-Delivery-To`
/// names that address, its envelope sender gets a receipt; nobody else, and no bounce.
pub fn receipt(
    arguments: &[String],
    variables: Variables<'_>,
    content: &[u8],
) -> Result<Option<Receipt>, Exit> {
    let usage = || Exit::new(100, "qreceipt: usage: qreceipt deliveryaddress");
    let target = arguments.first().ok_or_else(usage)?;
    let sender = variables("SENDER").ok_or_else(usage)?;
    let header = &content[..header_len(&content[..content.len().min(HEADER_MAX)])];
    let (mut is_asked, mut id) = (false, None);
    for field in fields(header) {
        if field.name.eq_ignore_ascii_case(b"message-id") {
            id = Some(field.whole);
        }
        if field.name.eq_ignore_ascii_case(b"notice-requested-upon-delivery-to") {
            is_asked |= names(&field.whole[field.name.len() + 1..], target).ok_or_else(|| {
                let whole = String::from_utf8_lossy(field.whole);
                Exit::new(100, format!("qreceipt: fatal: unable to parse this: {}", whole.trim_end()))
            })?;
        }
    }
    if !is_asked || sender.is_empty() || sender == "#@[]" {
        return Ok(None);
    }
    let address = quoted_address(&sender);
    let mut content = format!(
        "From: DELIVERY NOTICE SYSTEM <{address}>\nTo: <{address}>\nSubject: success notice\n\n\
         Hi! This is the qreceipt program. Your message was delivered to the\n\
         following address: {target}. Thanks for asking.\n"
    )
    .into_bytes();
    if let Some(id) = id {
        content.extend_from_slice(b"Your ");
        content.extend_from_slice(id);
    }
    Ok(Some(Receipt { to: sender, content }))
}

/// True if a list of addresses has that one, exactly; silent if it is no list of addresses.
fn names(list: &[u8], target: &str) -> Option<bool> {
    let text = unfold(list);
    let list = AddressList::parse(&text).ok()?;
    let is_target = |address: &AddrSpec<'_>| {
        let whole = address.mailbox().map(|mailbox| mailbox.to_string());
        whole.unwrap_or_else(|_| address.shown()) == target
    };
    Some(list.entries().filter_map(|entry| entry.address.as_ref()).any(is_target))
}

/// What `qbiff` writes to the terminals of a user who wants to hear of mail: whom it is to and from, its subject and
/// the beginning of its text, with nothing that a terminal would obey. Silent without `USER`, `SENDER` and `LOCAL`.
pub fn biff_lines(variables: Variables<'_>, content: &[u8]) -> Option<Vec<u8>> {
    variables("USER")?;
    let (sender, local) = (variables("SENDER")?, variables("LOCAL")?);
    let head = visible(format!("*** TO <{local}> FROM <{sender}>").as_bytes(), b'_');
    let content = &content[..content.len().min(HEADER_MAX)];
    let body = &content[header_len(content)..];
    let subjects = fields(content).filter(|field| field.name.eq_ignore_ascii_case(b"subject"));
    let mut text = b"    ".to_vec();
    for piece in subjects.map(|field| &field.whole[field.name.len() + 1..]).chain([body]) {
        text.extend_from_slice(&piece[..piece.len().min(TEXT_MAX - text.len())]);
    }
    let text = visible(&text, b'/');
    Some([b"\r\n\x07", &head[..], b"\r\n", &text, b"\r\n"].concat())
}

fn visible(text: &[u8], instead: u8) -> Vec<u8> {
    text.iter().map(|octet| if (32..=126).contains(octet) { *octet } else { instead }).collect()
}

/// For the fuzzer: nothing that a terminal obeys is shown, and a receipt goes to the sender alone.
pub fn fuzz_receipt(bytes: &[u8]) {
    let variables = |name: &str| Some(format!("{name}@x.test"));
    if let Ok(Some(receipt)) = receipt(&["ann@x.test".to_owned()], &variables, bytes) {
        assert_eq!(receipt.to, "SENDER@x.test");
    }
    let shown = biff_lines(&variables, bytes).expect("the variables are there");
    assert!(shown.iter().filter(|octet| !(32..=126).contains(*octet)).count() == 7);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(sender: &str, content: &str) -> Result<Option<Receipt>, Exit> {
        let variables = |name: &str| (name == "SENDER").then(|| sender.to_owned());
        receipt(&["ann@example.org".to_owned()], &variables, content.as_bytes())
    }

    const ASKING: &str = "Message-ID: <1@example.net>\n\
                          Notice-Requested-Upon-Delivery-To: Bob <b@x.test>,\n ann@example.org\n\nhi\n";

    #[test]
    fn who_asks_for_a_receipt_gets_one() {
        let receipt = answer("a b@example.net", ASKING).unwrap().unwrap();
        assert_eq!(receipt.to, "a b@example.net");
        let want = "From: DELIVERY NOTICE SYSTEM <\"a b\"@example.net>\nTo: <\"a b\"@example.net>\n\
                    Subject: success notice\n\nHi! This is the qreceipt program. Your message was delivered to the\n\
                    following address: ann@example.org. Thanks for asking.\nYour Message-ID: <1@example.net>\n";
        assert_eq!(String::from_utf8(receipt.content).unwrap(), want);
    }

    #[test]
    fn nobody_else_does() {
        assert_eq!(answer("", ASKING), Ok(None));
        assert_eq!(answer("#@[]", ASKING), Ok(None));
        let other = "Notice-Requested-Upon-Delivery-To: Ann@example.org\n\n";
        assert_eq!(answer("b@x.test", other), Ok(None));
        let body = "Subject: x\n\nNotice-Requested-Upon-Delivery-To: ann@example.org\n";
        assert_eq!(answer("b@x.test", body), Ok(None));
        let broken = "Notice-Requested-Upon-Delivery-To: \"ann\n\n";
        assert_eq!(answer("b@x.test", broken).unwrap_err().code, 100);
    }

    #[test]
    fn a_terminal_is_shown_nothing_that_it_would_obey() {
        let variables = |name: &str| {
            Some(match name {
                "SENDER" => "bob@x.test\x1b[2J".to_owned(),
                _ => "ann".to_owned(),
            })
        };
        let content = format!("To: x\nSubject: hi\x07\n\nbody\n{}", "y".repeat(200));
        let shown = biff_lines(&variables, content.as_bytes()).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let start = "\r\n\x07*** TO <ann> FROM <bob@x.test_[2J>\r\n     hi//body/yyy";
        assert!(shown.starts_with(start) && shown.ends_with("y\r\n"), "{shown:?}");
        assert_eq!(shown.lines().last().unwrap().len(), TEXT_MAX);
        assert_eq!(biff_lines(&|_| None, b""), None);
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200), list in "[a-z@., <>\"]{0,30}") {
            fuzz_receipt(&bytes);
            fuzz_receipt(format!("Notice-Requested-Upon-Delivery-To: {list}\n\n").as_bytes());
        }
    }
}
