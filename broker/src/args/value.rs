//! What a flag or a config key can hold: one [`Value`] per type, read from text.

use core::time::Duration;

use sansq_core::duration::{go_duration, parse_go_duration};
use sansq_core::log::Level;
use sansq_core::nsqd::http::OptionValue;
use sansq_toolkit::flags::switch;
use sansq_toolkit::log::LogFormat;

/// The shape of a value; the config file's rules depend on it (http-and-ops.md section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `true` or `false`; on the command line the bare flag means `true`.
    Bool,
    /// As [`Kind::Bool`], or another word.
    BoolOrWord,
    /// A duration; a bare number in the config file is milliseconds.
    Duration,
    /// Several decimal numbers.
    Floats,
    /// A whole number.
    Int,
    /// Any text.
    Text,
    /// Several texts.
    Texts,
    /// One of a few words.
    Word,
}

/// The text does not fit the type; what would fit is said by [`Value::expected`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unfit;

/// A place for the value of a flag.
pub trait Value {
    /// The words that it can be, if it is one of a few.
    fn words(&self) -> &'static [&'static str] {
        &[]
    }

    /// Its shape.
    fn kind(&self) -> Kind;

    /// Takes `text` as the value. A list grows by it.
    ///
    /// # Errors
    /// [`Unfit`] if the text is not of this type; the value is then unchanged.
    fn set(&mut self, text: &str) -> Result<(), Unfit>;

    /// What a text has to be, as the end of "is not ...".
    fn expected(&self) -> String;

    /// The value as text, the way [`Value::set`] reads it.
    fn show(&self) -> String;

    /// Empties a list before the first value that replaces its default.
    fn clear(&mut self) {}

    /// Called once after the last value from the command line.
    fn settle(&mut self) {}

    /// The value as `/config` shows it (http-and-ops.md section 2.9).
    fn shown(&self) -> OptionValue;

    /// The value as a number (of nanoseconds for a duration), where a range can be asked for.
    fn number(&self) -> Option<i64> {
        None
    }
}

impl Value for bool {
    fn kind(&self) -> Kind {
        Kind::Bool
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        *self = switch(text).map_err(|_| Unfit)?;
        Ok(())
    }
    fn expected(&self) -> String {
        "true or false".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Bool(*self)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn kind(&self) -> Kind {
        Kind::Text
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        *self = text.into();
        Ok(())
    }
    fn expected(&self) -> String {
        "a text".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Text(self.clone())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Vec<String> {
    fn kind(&self) -> Kind {
        Kind::Texts
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        self.push(text.into());
        Ok(())
    }
    fn expected(&self) -> String {
        "a list of texts".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Texts(Some(self.clone()))
    }
    fn show(&self) -> String {
        self.join(",")
    }
    fn clear(&mut self) {
        Self::clear(self);
    }
}

impl Value for Vec<f64> {
    fn kind(&self) -> Kind {
        Kind::Floats
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        let parse = |part: &str| part.trim().parse::<f64>().map_err(|_| Unfit);
        let numbers = text.split(',').map(parse).collect::<Result<Self, _>>()?;
        self.extend(numbers);
        Ok(())
    }
    fn expected(&self) -> String {
        "a list of numbers such as 0.99,0.95".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Numbers(self.clone())
    }
    fn show(&self) -> String {
        self.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
    }
    fn clear(&mut self) {
        Self::clear(self);
    }
    fn settle(&mut self) {
        // The reference sorts what the command line says, and keeps the order of the config file.
        self.sort_by(|a, b| b.total_cmp(a));
    }
}

impl Value for Duration {
    fn kind(&self) -> Kind {
        Kind::Duration
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        *self = parse_go_duration(text).map_err(|_| Unfit)?;
        Ok(())
    }
    fn expected(&self) -> String {
        "a duration such as 250ms, 2s or 1h30m".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Integer(i64::try_from(self.as_nanos()).unwrap_or(i64::MAX))
    }
    fn show(&self) -> String {
        go_duration(*self).to_string()
    }
    fn number(&self) -> Option<i64> {
        i64::try_from(self.as_nanos()).ok()
    }
}

macro_rules! int_value {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn kind(&self) -> Kind {
                Kind::Int
            }
            fn set(&mut self, text: &str) -> Result<(), Unfit> {
                *self = parse_int(text).and_then(|n| n.try_into().ok()).ok_or(Unfit)?;
                Ok(())
            }
            fn expected(&self) -> String {
                match (Self::MIN, Self::MAX) {
                    (0, max) if i64::try_from(max).is_ok() => {
                        format!("a whole number from 0 to {max}")
                    }
                    (0, _) => "a whole number from 0 up".into(),
                    _ => "a whole number".into(),
                }
            }
                    fn shown(&self) -> OptionValue {
                OptionValue::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
            }
    fn show(&self) -> String {
                self.to_string()
            }
            fn number(&self) -> Option<i64> {
                i64::try_from(*self).ok()
            }
        }
    )*};
}

int_value!(i64, u16, u32, u64);

impl Value for Level {
    fn words(&self) -> &'static [&'static str] {
        &["debug", "info", "warn", "error", "fatal"]
    }
    fn kind(&self) -> Kind {
        Kind::Word
    }
    fn set(&mut self, text: &str) -> Result<(), Unfit> {
        *self = Self::parse(text).ok_or(Unfit)?;
        Ok(())
    }
    fn expected(&self) -> String {
        "one of debug, info, warn, error, fatal".into()
    }
    fn shown(&self) -> OptionValue {
        OptionValue::Integer((*self).number().into())
    }
    fn show(&self) -> String {
        self.word().into()
    }
}

/// An enum of words with its [`Value`], or, behind `@value`, the [`Value`] of an enum that there is;
/// the first word of a line is the one that is shown, except by `/config` if there is a number at
/// its end.
macro_rules! word_value {
    (@shown $first:literal = $number:literal) => { OptionValue::Integer($number) };
    (@shown $first:literal) => { OptionValue::Text($first.into()) };
    (@value $name:ident $kind:ident: $($word:ident $first:literal $(| $more:literal)* $(= $number:literal)?,)*) => {
        impl Value for $name {
            fn words(&self) -> &'static [&'static str] {
                &[$($first),*]
            }
            fn kind(&self) -> Kind {
                Kind::$kind
            }
            fn set(&mut self, text: &str) -> Result<(), Unfit> {
                *self = match text.to_ascii_lowercase().as_str() {
                    $($first $(| $more)* => Self::$word,)*
                    _ => return Err(Unfit),
                };
                Ok(())
            }
            fn expected(&self) -> String {
                format!("one of {}", [$($first),*].join(", "))
            }
            fn shown(&self) -> OptionValue {
                match self {
                    $(Self::$word => word_value!(@shown $first $(= $number)?),)*
                }
            }
            fn show(&self) -> String {
                match self {
                    $(Self::$word => $first,)*
                }
                .into()
            }
        }
    };
    ($(#[$doc:meta])* $name:ident $kind:ident: $($(#[$word_doc:meta])* $word:ident $first:literal $(| $more:literal)* $(= $number:literal)?,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
        }

        word_value! { @value $name $kind: $($word $first $(| $more)* $(= $number)?,)* }
    };
}

word_value! {
    /// Whom nsqd refuses without TLS (nsqd-protocol.md section 17).
    TlsRequired BoolOrWord:
    /// Nobody.
    No "false" | "0" | "f" = 0,
    /// Clients over TCP and over HTTP.
    Yes "true" | "1" | "t" = 2,
    /// Clients over TCP; HTTP stays open.
    ExceptHttp "tcp-https" = 1,
}

word_value! {
    /// The oldest TLS version that nsqd accepts (nsqd-protocol.md section 17).
    TlsVersion Word:
    /// TLS 1.0, the default; also what an empty text means.
    Tls10 "tls1.0" | "" = 769,
    /// TLS 1.1.
    Tls11 "tls1.1" = 770,
    /// TLS 1.2.
    Tls12 "tls1.2" = 771,
    /// TLS 1.3.
    Tls13 "tls1.3" = 772,
}

word_value! { @value LogFormat Word: Text "text", Json "json", }

word_value! {
    /// What drives the servers.
    Runtime Word:
    /// tokio, one current-thread runtime per shard.
    Tokio "tokio",
    /// smol, one local executor per shard.
    Smol "smol",
    /// async-std, which is no longer maintained; smol is what its authors point to.
    AsyncStd "async-std",
}

/// A whole number the way NSQ's flags take it: decimal, or with the prefix `0x`, `0o`, `0b` or `0`;
/// with a prefix `_` may separate digits.
fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits: String = digits.chars().filter(|c| radix == 10 || *c != '_').collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        for (text, number) in [
            ("0", Some(0)),
            ("42", Some(42)),
            ("+42", Some(42)),
            ("-7", Some(-7)),
            ("0x10", Some(16)),
            ("0X1f", Some(31)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b101", Some(5)),
            ("0xff_ff", Some(65_535)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1_000", None),
            ("many", None),
            ("1.0", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("--1", None),
            ("08", None),
            (" 1", None),
        ] {
            assert_eq!(parse_int(text), number, "{text}");
        }
    }

    #[test]
    fn a_number_keeps_to_its_type() {
        let mut port = 1_u16;
        assert_eq!(port.set("65536"), Err(Unfit));
        assert_eq!(port.set("-1"), Err(Unfit));
        assert_eq!((port, port.expected().as_str()), (1, "a whole number from 0 to 65535"));
        assert_eq!((port.set("65535"), port), (Ok(()), 65_535));
    }

    #[test]
    fn words() {
        assert_eq!(Runtime::Tokio.words(), ["tokio", "smol", "async-std"]);
        for word in Level::Info.words() {
            assert!(Level::parse(word).is_some_and(|level| level.show() == *word), "{word}");
        }
        let mut tls = TlsRequired::No;
        for (text, value) in [
            ("TCP-HTTPS", TlsRequired::ExceptHttp),
            ("True", TlsRequired::Yes),
            ("0", TlsRequired::No),
        ] {
            assert_eq!((tls.set(text), tls), (Ok(()), value));
        }
        assert_eq!(tls.set("maybe"), Err(Unfit));
        let mut version = TlsVersion::Tls13;
        assert_eq!(version.set("ssl3.0"), Err(Unfit));
        assert_eq!((version.set(""), version.show().as_str()), (Ok(()), "tls1.0"));
        assert_eq!(Level::parse("WARN"), Some(Level::Warn));
        assert_eq!(Level::parse("warning"), None);
        assert_eq!(tls.shown(), OptionValue::Integer(0));
        assert_eq!(version.shown(), OptionValue::Integer(769));
        assert_eq!(Runtime::AsyncStd.shown(), OptionValue::Text("async-std".into()));
    }

    #[test]
    fn percentiles_come_in_lists_and_are_sorted() {
        let mut percentiles: Vec<f64> = vec![];
        percentiles.set("0.95").unwrap();
        percentiles.set("0.5, 0.99").unwrap();
        assert_eq!(percentiles.set("0.1,x"), Err(Unfit));
        assert_eq!(percentiles, [0.95, 0.5, 0.99]);
        percentiles.settle();
        assert_eq!(percentiles, [0.99, 0.95, 0.5]);
    }
}
