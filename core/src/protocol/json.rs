//! JSON as NSQ's peers write it: keys in any letter case, `null` as absent, damaged text accepted.
//!
//! The rules are those of nsqd-protocol.md section 8.2 and nsqlookupd-protocol.md section 3.1,
//! which hold for both protocols' IDENTIFY bodies.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::marker::PhantomData;
use core::mem;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A JSON object's members that are scalars, by lower-case key; of equal keys the last one counts.
///
/// Members that are arrays or objects are kept as [`Scalar::Nested`], so that a field of the wrong
/// type is told apart from a field that is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(BTreeMap<String, Scalar>);

/// The value of one member.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction or exponent that fits.
    Integer(i64),
    /// Any other number, also an integer beyond 64 bits.
    Number,
    /// Text, with damaged parts replaced by U+FFFD.
    Text(String),
    /// An array or object.
    Nested,
    /// The key came more than once, with values of different types: one of them is wrong for any
    /// field.
    Mixed,
}

/// The body is not a JSON object, or a field has the wrong type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidJson;

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a JSON object with fields of the expected types")
    }
}

impl core::error::Error for InvalidJson {}

impl Fields {
    /// Reads one object (or `null`, which is an object without members) and nothing behind it.
    ///
    /// # Errors
    /// [`InvalidJson`] for anything else.
    pub fn decode(body: &[u8]) -> Result<Self, InvalidJson> {
        let text = replace_damage(body);
        let mut reader = serde_json::Deserializer::from_slice(&text);
        let fields = ScalarMembers.deserialize(&mut reader).map_err(|_| InvalidJson)?;
        reader.end().map_err(|_| InvalidJson)?;
        Ok(Self(fields))
    }

    /// A text field, empty if absent.
    ///
    /// # Errors
    /// [`InvalidJson`] if the field is something else.
    pub fn text(&self, key: &str) -> Result<String, InvalidJson> {
        match self.0.get(key) {
            None => Ok(String::new()),
            Some(Scalar::Text(text)) => Ok(text.clone()),
            Some(_) => Err(InvalidJson),
        }
    }

    /// An integer field, 0 if absent.
    ///
    /// # Errors
    /// [`InvalidJson`] if the field is something else, or does not fit 64 bits.
    pub fn integer(&self, key: &str) -> Result<i64, InvalidJson> {
        match self.0.get(key) {
            None => Ok(0),
            Some(Scalar::Integer(n)) => Ok(*n),
            Some(_) => Err(InvalidJson),
        }
    }

    /// A truth value, false if absent.
    ///
    /// # Errors
    /// [`InvalidJson`] if the field is something else.
    pub fn boolean(&self, key: &str) -> Result<bool, InvalidJson> {
        match self.0.get(key) {
            None => Ok(false),
            Some(Scalar::Bool(b)) => Ok(*b),
            Some(_) => Err(InvalidJson),
        }
    }
}

/// An object that takes its members one by one; for what [`Fields`] can't hold.
pub(crate) trait Members: Default {
    /// Takes the value of the member `key`, which is in lower case, from `map`.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads one object (or `null`, which is an object without members) and nothing behind it. The
/// error says what is wrong.
pub(crate) fn decode<T: Members>(body: &[u8]) -> Result<T, serde_json::Error> {
    let text = replace_damage(body);
    let mut reader = serde_json::Deserializer::from_slice(&text);
    let Object(object) = Object::deserialize(&mut reader)?;
    reader.end()?;
    Ok(object)
}

/// Sets `field` to a member's value; `null` leaves it as it was, like the reference.
pub(crate) fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    field: &mut T,
    map: &mut A,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        *field = value;
    }
    Ok(())
}

/// Passes over a member that nobody asked for.
pub(crate) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// An object whose members take themselves.
#[derive(Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Members> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Members> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(key) = map.next_key_seed(Key)? {
            object.take(&key, &mut map)?;
        }
        Ok(object)
    }
}

/// A key without its letter case. One that is in lower case already is not copied: metadata has a
/// hundred thousand of them.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        let is_lower = key.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        Ok(if is_lower { Cow::Borrowed(key) } else { Cow::Owned(fold(key)) })
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(fold(key)))
    }
}

/// Reads a list of texts, or `null`, and nothing behind it. A `null` in the list is an empty text.
///
/// # Errors
/// [`InvalidJson`] for anything else.
pub fn texts(body: &[u8]) -> Result<Option<Vec<String>>, InvalidJson> {
    let texts: Option<Vec<Option<String>>> =
        serde_json::from_slice(&replace_damage(body)).map_err(|_| InvalidJson)?;
    Ok(texts.map(|all| all.into_iter().map(Option::unwrap_or_default).collect()))
}

/// Makes the bytes valid UTF-8 and lone surrogate escapes readable, as the reference's decoder
/// does.
pub(crate) fn replace_damage(body: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(body).into_owned().into_bytes();
    let mut at = 0;
    while let Some(found) = text[at..].windows(2).position(|pair| pair[0] == b'\\') {
        let escape = at + found;
        let Some(high) = surrogate(&text, escape) else {
            at = escape + 2;
            continue;
        };
        let low = surrogate(&text, escape + 6);
        if high < 0xDC00 && low.is_some_and(|low| low >= 0xDC00) {
            at = escape + 12;
        } else {
            text[escape + 2..escape + 6].copy_from_slice(b"FFFD");
            at = escape + 6;
        }
    }
    text
}

/// The surrogate code unit that the escape at `at` names, if it is one.
fn surrogate(text: &[u8], at: usize) -> Option<u16> {
    let escape = text.get(at..at + 6)?;
    let digits = escape.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let unit = u16::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
    (0xD800..0xE000).contains(&unit).then_some(unit)
}

struct ScalarMembers;

impl<'de> DeserializeSeed<'de> for ScalarMembers {
    type Value = BTreeMap<String, Scalar>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarMembers {
    type Value = BTreeMap<String, Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key_seed(Key)? {
            // `null` leaves the field as it was, like the reference.
            if let Some(value) = map.next_value_seed(ScalarSeed)? {
                let before = members.get(&*key).map(mem::discriminant);
                let mixed = before.is_some_and(|before| before != mem::discriminant(&value));
                members.insert(key.into_owned(), if mixed { Scalar::Mixed } else { value });
            }
        }
        Ok(members)
    }
}

/// A key without its letter case. The long s is the one letter whose upper case is ASCII and which
/// is lower case itself.
fn fold(key: &str) -> String {
    key.to_lowercase().replace('\u{17F}', "s")
}

struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Option<Scalar>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Option<Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(i64::try_from(value).map_or(Scalar::Number, Scalar::Integer)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Scalar::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Scalar::Nested))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(Scalar::Nested))
    }
}

/// `value` as JSON, with `<`, `>`, `&`, U+2028 and U+2029 escaped as the reference does. They are
/// nowhere in JSON but in texts.
///
/// # Panics
/// If `value` has no form in JSON: it has a map with keys that are no texts.
pub fn encode(value: &(impl Serialize + ?Sized)) -> String {
    let json = serde_json::to_string(value).expect("what we write has a form in JSON");
    let is_escaped = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    if !json.contains(is_escaped) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + json.len() / 8);
    for part in json.split_inclusive(is_escaped) {
        match part.char_indices().next_back() {
            Some((at, c)) if is_escaped(c) => {
                escaped.push_str(&part[..at]);
                write!(escaped, "\\u{:04x}", u32::from(c)).expect("a String takes all text");
            }
            _ => escaped.push_str(part),
        }
    }
    escaped
}

/// Writes a number as the reference does, a whole one without a point.
pub(crate) fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = *value as i64;
    if whole as f64 == *value {
        serializer.serialize_i64(whole)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenient_where_the_reference_is() {
        let fields =
            Fields::decode(br#" {"A":1,"a":2,"B":null,"c":"\ud800x","d":[{"x":[]}],"E":true} "#)
                .unwrap();
        assert_eq!(fields.integer("a"), Ok(2));
        let folded = Fields::decode("{\"\u{17F}\u{212A}\":1}".as_bytes()).unwrap();
        assert_eq!(folded.integer("sk"), Ok(1));
        assert_eq!(fields.text("b"), Ok(String::new()));
        assert_eq!(fields.text("c"), Ok("\u{FFFD}x".into()));
        assert_eq!(fields.text("d"), Err(InvalidJson));
        assert_eq!(fields.boolean("e"), Ok(true));
        assert_eq!(Fields::decode(b"null"), Ok(Fields::default()));
        assert_eq!(Fields::decode(b"{\"a\":\"\xff\"}").unwrap().text("a"), Ok("\u{FFFD}".into()));
        assert_eq!(Fields::decode(br#"{"a":"\ud83d\ude00"}"#).unwrap().text("a"), Ok("😀".into()));
        assert_eq!(Fields::decode(br#"{"a":"\\ud800"}"#).unwrap().text("a"), Ok("\\ud800".into()));
    }

    #[test]
    fn strict_where_the_reference_is() {
        for body in ["", "[]", "1", "\"x\"", "{\"a\":1,}", "{\"a\":1", "{} x", "\u{feff}{}", "true"]
        {
            assert_eq!(Fields::decode(body.as_bytes()), Err(InvalidJson), "{body}");
        }
        let fields =
            Fields::decode(br#"{"a":1.0,"b":1e3,"c":9223372036854775808,"d":"1","e":1}"#).unwrap();
        for key in ["a", "b", "c", "d"] {
            assert_eq!(fields.integer(key), Err(InvalidJson), "{key}");
        }
        assert_eq!(fields.boolean("e"), Err(InvalidJson));
        assert_eq!(fields.text("e"), Err(InvalidJson));
        // One of two values is wrong, whichever it is.
        let twice =
            Fields::decode(br#"{"a":"x","A":1,"b":1,"b":"x","b":2,"c":1,"c":null}"#).unwrap();
        for key in ["a", "b"] {
            assert_eq!(twice.integer(key), Err(InvalidJson), "{key}");
        }
        assert_eq!(twice.integer("c"), Ok(1));
    }

    #[test]
    fn text_is_escaped_as_the_reference_does() {
        assert_eq!(
            encode("<a>&\"\\\u{1}\u{2028}é"),
            "\"\\u003ca\\u003e\\u0026\\\"\\\\\\u0001\\u2028é\""
        );
    }
}
