//! A recipient's own words for the fields that a letter names: `first_name` is `Ann`.
//!
//! One allocation for all of them, about as long as they were in the request, so that what a request holds in memory is
//! bounded by its length. Text only: a number is its digits, true is `true`, and null is as if nothing had been said.
//! Bounds: [`FIELDS_MAX`] fields, names of [`NAME_LEN_MAX`] octets, values of [`VALUE_LEN_MAX`].

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

/// Fields of one recipient.
pub const FIELDS_MAX: usize = 64;

/// Octets of a field's name.
pub const NAME_LEN_MAX: usize = 64;

/// Octets of a value.
pub const VALUE_LEN_MAX: usize = 16 << 10;

/// Octets before an entry's name: its length, and the value's.
const HEAD_LEN: usize = 3;

const _: () = assert!(NAME_LEN_MAX <= u8::MAX as usize && VALUE_LEN_MAX <= u16::MAX as usize);

/// See the module. In the order in which they came.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Values {
    /// Each entry: length of its name, length of its value (little-endian), name, value.
    bytes: Vec<u8>,
    count: u8,
}

/// Why a field was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    #[error("a field's name has 1 to 64 octets and no control characters")]
    Name,
    #[error("it is there twice")]
    Twice,
    #[error("a value has at most 16 KiB")]
    Long,
    #[error("a recipient has at most 64 fields")]
    Many,
}

impl Values {
    pub fn new() -> Values {
        Values::default()
    }

    /// Room for entries of so many octets.
    pub fn with_capacity(len: usize) -> Values {
        Values { bytes: Vec::with_capacity(len), count: 0 }
    }

    /// One look at the names that are there.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), ValueError> {
        check_name(name)?;
        if value.len() > VALUE_LEN_MAX {
            return Err(ValueError::Long);
        }
        if usize::from(self.count) == FIELDS_MAX {
            return Err(ValueError::Many);
        }
        if self.get(name).is_some() {
            return Err(ValueError::Twice);
        }
        self.count += 1;
        self.bytes.push(u8::try_from(name.len()).expect("NAME_LEN_MAX fits"));
        let value_len = u16::try_from(value.len()).expect("VALUE_LEN_MAX fits");
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (&[name_len, low, high], tail) = rest.split_first_chunk::<HEAD_LEN>()?;
            let (name, tail) = tail.split_at(usize::from(name_len));
            let (value, tail) = tail.split_at(usize::from(u16::from_le_bytes([low, high])));
            rest = tail;
            Some((utf8(name), utf8(value)))
        })
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Memory held, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// A name that a letter may use.
pub fn check_name(name: &str) -> Result<(), ValueError> {
    let is_fit = (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if is_fit { Ok(()) } else { Err(ValueError::Name) }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only push() writes here, and it copies from &str")
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings, numbers and booleans")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut values = Values::new();
        while let Some(name) = map.next_key::<String>()? {
            if let Some(value) = map.next_value::<Scalar>()?.0 {
                let wrap = |error| de::Error::custom(format_args!("{name:?}: {error}"));
                values.push(&name, &value).map_err(wrap)?;
            }
        }
        Ok(values)
    }
}

/// A JSON value as text; `None` is null.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Scalar(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, true, false or null (lists and objects cannot be merged)")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(Some(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
        Ok(Scalar(Some(text)))
    }

    fn visit_bool<E>(self, is: bool) -> Result<Scalar, E> {
        Ok(Scalar(Some(is.to_string())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(Some(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(Some(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        // As JSON writes it: 1e+300 and not 301 digits.
        Ok(Scalar(serde_json::Number::from_f64(number).map(|number| number.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> Result<Values, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn json_scalars_are_text() {
        let values = read(r#"{"s":"Ann","n":42,"m":-1.5,"big":1e300,"t":true,"gone":null}"#).unwrap();
        let all: Vec<_> = values.iter().collect();
        assert_eq!(all, [("s", "Ann"), ("n", "42"), ("m", "-1.5"), ("big", "1e+300"), ("t", "true")]);
        assert_eq!((values.get("t"), values.get("gone")), (Some("true"), None));
    }

    #[test]
    fn what_is_no_field_is_refused_by_its_name() {
        assert!(read(r#"{"a":[1]}"#).unwrap_err().contains("lists and objects cannot be merged"));
        assert!(read(r#"{"a":1,"a":2}"#).unwrap_err().contains("\"a\": it is there twice"));
        assert!(read(r#"{"":1}"#).unwrap_err().contains("1 to 64 octets"));
        assert!(read(r#"{"a\nb":1}"#).unwrap_err().contains("control characters"));
        assert!(read("[]").unwrap_err().contains("an object of"));
        let many: Vec<String> = (0..65).map(|n| format!("\"f{n}\":1")).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).unwrap_err().contains("at most 64 fields"));
        let long = "x".repeat(VALUE_LEN_MAX + 1);
        assert!(read(&format!("{{\"a\":\"{long}\"}}")).unwrap_err().contains("at most 16 KiB"));
    }

    proptest! {
        #[test]
        fn fields_come_back_in_their_order(pairs in prop::collection::btree_map("[a-zé]{1,9}", ".{0,40}", 0..20)) {
            let mut values = Values::new();
            for (name, value) in &pairs {
                values.push(name, value).unwrap();
            }
            prop_assert!(values.iter().eq(pairs.iter().map(|(name, value)| (&name[..], &value[..]))));
            prop_assert!(pairs.iter().all(|(name, value)| values.get(name) == Some(value)));
        }
    }
}
