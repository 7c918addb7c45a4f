//! Durations as NSQ's flags and config files write them: `2s`, `1h30m`, `250ms`, `1.5s`.
//!
//! Source: http-and-ops.md section 4.

use core::fmt::{self, Write as _};
use core::time::Duration;

/// The text is not a duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DurationError {
    /// A number without a unit; only a bare `0` needs none.
    MissingUnit,
    /// Less than nothing.
    Negative,
    /// Not numbers with units.
    Syntax,
    /// More than 292 years, the reference's limit.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingUnit => "the unit is missing (ns, us, ms, s, m or h)",
            Self::Negative => "a duration can't be negative",
            Self::Syntax => "not a duration such as 250ms, 2s or 1h30m",
            Self::TooLong => "longer than 292 years",
        })
    }
}

impl core::error::Error for DurationError {}

/// Reads a duration: one or more decimal numbers, each with its unit, or a bare `0`.
///
/// # Errors
/// [`DurationError`] says what is wrong with it.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Syntax);
    }
    let (mut rest, mut total) = (unsigned, 0_u128);
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DurationError::Syntax);
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit = unit_nanos(&after[..end])?;
        total = total.saturating_add(scaled(whole, fraction, unit)?);
        rest = &after[end..];
    }
    let nanos = i64::try_from(total).map_err(|_| DurationError::TooLong)?;
    if text.starts_with('-') && nanos > 0 {
        return Err(DurationError::Negative);
    }
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// Writes a duration the way [`parse`] reads it and NSQ shows it: `1h0m0s`, `2s`, `250ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(nanos, 1_000) + "µs",
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000) + "ms",
        1_000_000_000.. => {
            let minutes = nanos / MINUTE;
            let mut text = String::new();
            // Writing into a String can't fail.
            let _ = match (minutes / 60, minutes) {
                (0, 0) => Ok(()),
                (0, _) => write!(text, "{minutes}m"),
                (hours, _) => write!(text, "{hours}h{}m", minutes % 60),
            };
            text + &decimal(nanos % MINUTE, SECOND) + "s"
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "" => return Err(DurationError::MissingUnit),
        "ns" => 1,
        // Both the micro sign and the Greek letter are in use.
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => 60 * MINUTE,
        _ => return Err(DurationError::Syntax),
    })
}

/// `whole.fraction` units in nanoseconds, rounded down.
fn scaled(whole: &str, fraction: &str, unit: u128) -> Result<u128, DurationError> {
    let whole = match whole {
        "" => 0,
        digits => digits.parse::<u64>().map_err(|_| DurationError::TooLong)?,
    };
    // Digits behind the 18th are far below a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(fraction.len() as u32);
    let part = fraction.parse::<u64>().unwrap_or(0);
    Ok(u128::from(whole) * unit + u128::from(part) * unit / scale)
}

fn decimal(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let text = format!("{whole}.{rest:0width$}");
    text.trim_end_matches('0').into()
}

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("+2s", 2_000_000_000),
            ("250ms", 250_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("7ns", 7),
            ("1m0.000000001s", 60_000_000_001),
            ("0.3333333333333333333333s", 333_333_333),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        use DurationError::{MissingUnit, Negative, Syntax, TooLong};
        for (text, error) in [
            ("", Syntax),
            ("-", Syntax),
            ("s", Syntax),
            (".s", Syntax),
            ("2 s", Syntax),
            ("2d", Syntax),
            ("ä", Syntax),
            ("60", MissingUnit),
            ("1h30", MissingUnit),
            ("-1s", Negative),
            ("9223372036854775808ns", TooLong),
            ("99999999999999999999h", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn writes_as_the_reference_does() {
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (2_000, "2s"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
            (900_000, "15m0s"),
            (5_430_500, "1h30m30.5s"),
        ] {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
        assert_eq!(format(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(format(Duration::from_nanos(999)), "999ns");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.nuµmsh]{0,12}|.{0,12}") {
            let _ = parse(&text);
        }
    }
}
