//! Durations as NSQ writes them: `1h30m0s`, `250ms`, `827ns`.
//!
//! Flags, configuration files and the log use Go's text form (http-and-ops.md sections 1.5, 4 and
//! 6).

use core::fmt;
use core::time::Duration;

/// Shows `duration` in Go's form: at least a second as hours, minutes and seconds without leading
/// zero units, less than a second in the largest unit that leaves no leading zero.
pub const fn go_duration(duration: Duration) -> GoDuration {
    GoDuration(duration)
}

/// A duration whose `Display` is Go's form; made by [`go_duration`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.subsec_nanos();
        let seconds = self.0.as_secs();
        if seconds == 0 {
            return match nanos {
                0 => f.write_str("0s"),
                1..1_000 => write!(f, "{nanos}ns"),
                1_000..1_000_000 => write_decimal(f, u64::from(nanos), 3, "µs"),
                1_000_000.. => write_decimal(f, u64::from(nanos), 6, "ms"),
            };
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        write_decimal(f, seconds % 60 * 1_000_000_000 + u64::from(nanos), 9, "s")
    }
}

/// Writes `value / 10^places` without trailing zeros, then `unit`.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, places: usize, unit: &str) -> fmt::Result {
    let scale = 10_u64.pow(places as u32);
    write!(f, "{}", value / scale)?;
    let (mut fraction, mut places) = (value % scale, places);
    if fraction > 0 {
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            places -= 1;
        }
        write!(f, ".{fraction:0places$}")?;
    }
    f.write_str(unit)
}

/// Reads Go's form: one or more decimal numbers, each with a unit (`ns`, `us`, `µs`, `ms`, `s`,
/// `m`, `h`), in any order, or a plain `0`. A leading `+` is allowed. What is finer than a
/// nanosecond is cut off.
///
/// # Errors
/// [`ParseDurationError`], which says what is wrong. No option of NSQ has a use for a negative
/// duration, so these are refused as well.
pub fn parse_go_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(ParseDurationError::Syntax);
    }
    let mut nanos = 0_u128;
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest)?;
        nanos += part;
        if nanos > NANOS_MAX {
            return Err(ParseDurationError::TooLong);
        }
        rest = after;
    }
    if negative && nanos > 0 {
        return Err(ParseDurationError::Negative);
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| ParseDurationError::TooLong)
}

/// Reads one number with its unit: its nanoseconds, and what follows.
fn parse_part(text: &str) -> Result<(u128, &str), ParseDurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(ParseDurationError::Syntax);
    }
    let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    let unit: u128 = match unit {
        "" => return Err(ParseDurationError::MissingUnit),
        "ns" => 1,
        // Both the micro sign and the Greek letter are in use.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(ParseDurationError::UnknownUnit),
    };
    let mut nanos = 0_u128;
    for digit in whole.bytes() {
        nanos = nanos * 10 + u128::from(digit - b'0');
        if nanos > NANOS_MAX {
            return Err(ParseDurationError::TooLong);
        }
    }
    nanos *= unit;
    let (mut numerator, mut divisor) = (0, 1);
    // An hour has 3.6e12 ns: digits beyond the 13th are below a nanosecond, even all together.
    for digit in fraction.bytes().take(FRACTION_DIGITS) {
        numerator = numerator * 10 + u128::from(digit - b'0') * unit;
        divisor *= 10;
    }
    Ok((nanos + numerator / divisor, rest))
}

/// Splits behind the leading decimal digits.
fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The text is not a duration that an option can take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParseDurationError {
    /// A number has no unit.
    MissingUnit,
    /// The duration is below zero.
    Negative,
    /// Something that is neither number nor unit, or nothing at all.
    Syntax,
    /// More than 2^63 - 1 nanoseconds, which are 292 years.
    TooLong,
    /// A unit other than `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`.
    UnknownUnit,
}

impl fmt::Display for ParseDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingUnit => "missing unit in duration",
            Self::Negative => "negative duration",
            Self::Syntax => "invalid duration",
            Self::TooLong => "duration beyond 292 years",
            Self::UnknownUnit => "unknown unit in duration",
        })
    }
}

impl core::error::Error for ParseDurationError {}

/// The longest duration, as the reference stores it in 63 bits.
const NANOS_MAX: u128 = i64::MAX as u128;

/// How many digits behind the point can matter.
const FRACTION_DIGITS: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    #[test]
    fn shown_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (827, "827ns"),
            (1_000, "1µs"),
            (1_100, "1.1µs"),
            (999_999, "999.999µs"),
            (2_000_000, "2ms"),
            (1_010_000, "1.01ms"),
            (250_000_000, "250ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (59_000_000_001, "59.000000001s"),
            (60_000_000_000, "1m0s"),
            (300_000_000_000, "5m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_601_020_000_000, "1h0m1.02s"),
        ] {
            assert_eq!(format!("{}", go_duration(Duration::from_nanos(nanos))), text);
        }
    }

    #[test]
    fn read_as_go_does() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("2s", 2_000_000_000),
            ("+2s", 2_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("1s1h", 3_601_000_000_000),
            ("0.3333333333333333333333h", 1_200_000_000_000 - 1),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refused_as_go_does() {
        use ParseDurationError::*;
        for (text, error) in [
            ("", Syntax),
            ("-", Syntax),
            (".", Syntax),
            (".s", Syntax),
            ("s", Syntax),
            (" 1s", Syntax),
            ("1", MissingUnit),
            ("1s2", MissingUnit),
            ("1S", UnknownUnit),
            ("1d", UnknownUnit),
            ("1 s", UnknownUnit),
            ("1s-", UnknownUnit),
            ("-1s", Negative),
            ("9223372036854775808ns", TooLong),
            ("2562048h", TooLong),
            ("99999999999999999999999999999999999999999999999999h", TooLong),
        ] {
            assert_eq!(parse_go_duration(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_go_duration(&format!("{}", go_duration(duration))), Ok(duration));
        }

        #[test]
        fn any_text_is_judged(text in ".{0,40}") {
            if let Ok(duration) = parse_go_duration(&text) {
                prop_assert!(duration.as_nanos() <= NANOS_MAX);
            }
        }
    }
}
