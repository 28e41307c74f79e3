//! The mail that is measured with.

/// Content of about `len` octets: a header of ten fields, then lines of 72 octets. With `dots`, every tenth line
/// begins with one.
pub(crate) fn content(len: usize, dots: bool) -> Vec<u8> {
    let mut content = Vec::with_capacity(len + 80);
    for field in 0..10 {
        content.extend_from_slice(format!("X-Field-{field}: {}\r\n", "value ".repeat(6)).as_bytes());
    }
    content.extend_from_slice(b"Subject: news\r\n\r\n");
    let mut line = 0;
    while content.len() + 74 <= len {
        let first = if dots && line % 10 == 0 { '.' } else { 'a' };
        content.extend_from_slice(format!("{first}{}\r\n", "b".repeat(71)).as_bytes());
        line += 1;
    }
    content
}

/// Recipient `index` of a list that goes round `domains` domains.
pub(crate) fn recipient(index: usize, domains: usize) -> String {
    format!("subscriber{index:06}@domain{:03}.example", index % domains)
}
