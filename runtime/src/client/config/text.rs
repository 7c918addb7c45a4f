//! Settings as texts: those that files have in a form of their own, and all of them on command
//! lines.

use core::fmt::{self, Display};
use core::iter;
use core::marker::PhantomData;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use sansq_core::client::Secret;
use sansq_core::duration::{go_duration, parse_go_duration};
use serde::de::value::MapDeserializer;
use serde::de::{Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serializer, forward_to_deserialize_any};

/// What files have as a text or as a whole number.
pub(super) trait Written: Sized {
    const EXPECTED: &'static str;

    fn read(text: &str) -> Option<Self>;
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

pub(super) fn serialize<T: Written, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

pub(super) fn deserialize<'de, T: Written, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(WrittenVisitor(PhantomData))
}

/// A secret; an empty one is none.
pub(super) fn secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| Secret::new(text)))
}

struct WrittenVisitor<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for WrittenVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::read(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::read(&number.to_string())
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::read(&number.to_string())
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// In Go's form, or in whole milliseconds.
impl Written for Duration {
    const EXPECTED: &'static str = "a duration like 1m30s, or whole milliseconds";

    fn read(text: &str) -> Option<Self> {
        let millis = text.parse().ok().map(Self::from_millis);
        millis.or_else(|| parse_go_duration(text).ok())
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&go_duration(*self))
    }
}

/// With what go-nsq takes for "off".
impl Written for Option<Duration> {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn read(text: &str) -> Option<Self> {
        if matches!(text, "-1" | "-1ms") { Some(None) } else { Duration::read(text).map(Some) }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write(serializer),
            None => serializer.serialize_i64(-1),
        }
    }
}

/// A size, or -1 for "off".
impl Written for Option<u32> {
    const EXPECTED: &'static str = "a number of bytes, or -1";

    fn read(text: &str) -> Option<Self> {
        if text == "-1" { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.map_or(-1, i64::from))
    }
}

/// With a port that leaves the choice to the system, or without; empty for none.
impl Written for Option<IpAddr> {
    const EXPECTED: &'static str = "an IP address, with port 0 or without a port";

    fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(None);
        }
        let with_port = || text.parse::<SocketAddr>().ok().filter(|address| address.port() == 0);
        text.parse().ok().or_else(|| with_port().map(|address| address.ip())).map(Some)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(ip) => serializer.collect_str(ip),
            None => serializer.serialize_str(""),
        }
    }
}

/// Reads a `T` that has one field from `text` and all others by default.
///
/// # Errors
/// What would be right, to be read behind "is not".
pub(super) fn read<T: for<'de> Deserialize<'de>>(field: &str, text: &str) -> Result<T, String> {
    T::deserialize(MapDeserializer::new(iter::once((field, Text(text))))).map_err(|refused| {
        match refused {
            Refused::Field(_) => String::new(),
            Refused::Value(expected) => expected,
        }
    })
}

/// The names of the fields of `T`: those that serde proposes in place of one that is none.
pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    match T::deserialize(MapDeserializer::new(iter::once(("", Text(""))))) {
        Err(Refused::Field(names)) => names,
        Err(Refused::Value(_)) | Ok(_) => &[],
    }
}

/// A text that may stand for any type of value.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

macro_rules! numbers {
    ($($kind:ty: $deserialize:ident, $visit:ident;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let expected = || format!("a whole number from {} to {}", <$kind>::MIN, <$kind>::MAX);
            visitor.$visit(self.0.parse().map_err(|_| Refused::Value(expected()))?)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(self.0)
    }

    /// As Go reads them.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.0 {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => visitor.visit_bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => visitor.visit_bool(false),
            _ => Err(Refused::Value("true or false".into())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        if self.0.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    numbers! {
        u8: deserialize_u8, visit_u8;
        u16: deserialize_u16, visit_u16;
        u32: deserialize_u32, visit_u32;
        u64: deserialize_u64, visit_u64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_f64(self.0.parse().map_err(|_| Refused::Value("a number".into()))?)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 f32 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Refused> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Why a text can't be read.
#[derive(Debug)]
enum Refused {
    /// There are only these fields.
    Field(&'static [&'static str]),
    /// This would be right.
    Value(String),
}

impl Error for Refused {
    fn custom<T: Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value(expected.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Value(format!("one of {}", expected.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Field(expected)
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(names) => write!(f, "not one of {}", names.join(", ")),
            Self::Value(expected) => write!(f, "not {expected}"),
        }
    }
}

impl core::error::Error for Refused {}
