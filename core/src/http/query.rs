//! The query string, judged as a whole: one bad escape spoils all of it (http-and-ops.md section
//! 1.3).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The most parameters of one query. No endpoint knows more than a handful; the rest of the limit
/// is room for clients that send along what they have. A query with more is invalid.
pub const QUERY_PARAMS_MAX: usize = 1000;

/// The parameters of a query, decoded, in the order of the text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `text`, the part behind the `?`: pairs separated by `&`, `+` for a blank, `%` and two
    /// hexadecimal digits for any byte. A name without `=` has the empty value. Bytes that are not
    /// UTF-8 become U+FFFD, which is valid in no name.
    ///
    /// # Errors
    /// [`InvalidQuery`] for a bad escape, a `;` that is not escaped, or more than
    /// [`QUERY_PARAMS_MAX`] parameters.
    pub fn parse(text: &str) -> Result<Self, InvalidQuery> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') || pairs.len() == QUERY_PARAMS_MAX {
                return Err(InvalidQuery);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_percent(name, true).ok_or(InvalidQuery)?;
            let value = decode_percent(value, true).ok_or(InvalidQuery)?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of the first parameter called `name` (letter case counts); `None` if there is
    /// none.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The query string cannot be read; the answer is 400 `INVALID_REQUEST`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidQuery;

impl fmt::Display for InvalidQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("INVALID_REQUEST")
    }
}

impl core::error::Error for InvalidQuery {}

/// Undoes percent encoding, and `+` for a blank if `plus_is_blank`; `None` for a bad escape.
pub(super) fn decode_percent(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            b'+' if plus_is_blank => b' ',
            _ => byte,
        });
    }
    Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_value_of_a_name_counts() {
        let query = Query::parse("topic=a%2Eb&topic=second&x&&y=1=2&z=a+b%2B&=v").unwrap();
        assert_eq!(query.first("topic"), Some("a.b"));
        assert_eq!(query.first("x"), Some(""));
        assert_eq!(query.first("y"), Some("1=2"));
        assert_eq!(query.first("z"), Some("a b+"));
        assert_eq!(query.first(""), Some("v"));
        assert_eq!(query.first("Topic"), None);
        assert_eq!(Query::parse("").unwrap().first("topic"), None);
    }

    #[test]
    fn one_fault_spoils_the_whole_query() {
        for text in ["topic=%zz", "topic=t&x=%", "a=%4", "a;b", "topic=t;channel=c", "%+1=x"] {
            assert_eq!(Query::parse(text), Err(InvalidQuery), "{text}");
        }
        assert_eq!(Query::parse("a=%3B").unwrap().first("a"), Some(";"));
        assert_eq!(Query::parse("a=%ff").unwrap().first("a"), Some("\u{FFFD}"));
        assert!(Query::parse(&"a&".repeat(QUERY_PARAMS_MAX)).is_ok());
        assert_eq!(Query::parse(&"a&".repeat(QUERY_PARAMS_MAX + 1)), Err(InvalidQuery));
    }

    proptest! {
        #[test]
        fn escaped_text_is_read_back(value in ".{0,30}") {
            use core::fmt::Write as _;
            let mut text = String::from("k=");
            for byte in value.bytes() {
                write!(text, "%{byte:02x}").unwrap();
            }
            let query = Query::parse(&text).unwrap();
            prop_assert_eq!(query.first("k"), Some(value.as_str()));
        }

        #[test]
        fn any_text_is_judged(text in ".{0,60}") {
            let bad = text.contains(';');
            prop_assert!(!bad || Query::parse(&text).is_err());
        }
    }
}
