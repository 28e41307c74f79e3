//! Addresses as they stand in a header.

/// Octets that a local part may have without quotes.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-./=?^_`{|}~".contains(&octet) || octet >= 128
}

/// The address with its local part quoted if it must be, and not twice. The empty one stays empty.
pub fn quoted_address(address: &str) -> String {
    if address.is_empty() {
        return String::new();
    }
    let (local, host) = match address.rfind('@') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    if is_quoted || !needs_quotes(local) {
        return address.to_owned();
    }
    let mut out = String::from("\"");
    for char in local.chars() {
        if matches!(char, '\r' | '\n' | '"' | '\\') {
            out.push('\\');
        }
        out.push(char);
    }
    out.push('"');
    out.push_str(host);
    out
}

fn needs_quotes(local: &str) -> bool {
    local.is_empty()
        || local.starts_with('.')
        || local.ends_with('.')
        || local.contains("..")
        || !local.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_is_quoted() {
        for (address, want) in [
            ("", ""),
            ("ann@example.net", "ann@example.net"),
            ("a b@example.net", "\"a b\"@example.net"),
            ("a@b@example.net", "\"a@b\"@example.net"),
            ("\"a b\"@example.net", "\"a b\"@example.net"),
            (".a@example.net", "\".a\"@example.net"),
            ("a\"b", "\"a\\\"b\""),
            ("@example.net", "\"\"@example.net"),
            ("#@[]", "#@[]"),
            ("list-@example.org-@[]", "\"list-@example.org-\"@[]"),
            ("jürgen@example.net", "jürgen@example.net"),
        ] {
            assert_eq!(quoted_address(address), want);
        }
    }
}
