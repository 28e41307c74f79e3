//! Numbers as text, without the formatting machinery and without allocation.
//!
//! Used where a line is written per delivery; everything else uses `write!`.

const DIGITS_MAX: usize = 20; // u64::MAX has twenty decimal digits

/// Appends `number` in decimal, with leading zeros up to `width` digits.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    while number > 0 {
        at -= 1;
        digits[at] += (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at.min(DIGITS_MAX - width.clamp(1, DIGITS_MAX))..]);
}

/// Appends `number` as sixteen lower-case hexadecimal digits.
pub(crate) fn push_hex(out: &mut Vec<u8>, number: u64) {
    for shift in (0..16).rev() {
        let nibble = (number >> (shift * 4)) & 0xf;
        out.push(b"0123456789abcdef"[nibble as usize]);
    }
}

/// Reads a decimal number that is the whole of `text`.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Reads a hexadecimal number that is the whole of `text`.
pub(crate) fn hex(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// One step of a splitmix64 generator: a well mixed number from any number.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut number = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(number: u64, width: usize) -> String {
        let mut out = Vec::new();
        push_decimal(&mut out, number, width);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_keep_their_width_and_never_lose_digits() {
        assert_eq!(pushed(0, 0), "0");
        assert_eq!(pushed(7, 3), "007");
        assert_eq!(pushed(12345, 3), "12345");
        assert_eq!(pushed(u64::MAX, 1), u64::MAX.to_string());
    }

    #[test]
    fn what_is_pushed_is_read_back() {
        let mut out = Vec::new();
        push_hex(&mut out, 0xdead_beef);
        assert_eq!(out, b"00000000deadbeef");
        assert_eq!(hex(&out), Some(0xdead_beef));
        assert_eq!(decimal(b"00123"), Some(123));
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b"12x"), None);
        assert_eq!(decimal(b"99999999999999999999"), None);
    }
}
