//! Figures that clients keep of each nsqd: how long answers took, and what went wrong how often.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::error::ConnectionError;

/// How long something took, each time: counts by length, exact to a quarter of a power of two, from
/// 1 µs to 19 h. Takes about 600 bytes, however much is counted.
#[derive(Clone, Eq, PartialEq)]
pub struct Latencies {
    counts: [u32; BUCKETS],
    count: u64,
    total: Duration,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, total: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Latencies {
    pub(super) fn record(&mut self, took: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(took)) {
            *count = count.saturating_add(1);
        }
        self.count += 1;
        self.total = self.total.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// How often.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The average; zero if nothing was counted.
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos().checked_div(self.count.into()).unwrap_or_default();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What `permille` of a thousand did not exceed, rounded up by at most a quarter; 500 is the
    /// median. Zero if nothing was counted; above 1000 counts as that.
    pub fn quantile(&self, permille: u16) -> Duration {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let rank = (all * u64::from(permille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(500))
            .field("p99", &self.quantile(990))
            .field("max", &self.max)
            .finish()
    }
}

/// Microseconds below 4 each have a bucket, and then each power of two has 4.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 4 {
        return micros as usize;
    }
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    ((power - 1) as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The first length that is too long for the bucket.
const fn upper_bound(index: usize) -> Duration {
    if index < 4 {
        return Duration::from_micros(index as u64 + 1);
    }
    let (power, quarter) = (index / 4 + 1, index as u64 % 4);
    Duration::from_micros((5 + quarter) << (power - 2))
}

/// Up to 2^36 µs.
const BUCKETS: usize = 36 * 4;

/// What went wrong with an nsqd, how often, by [code](ConnectionError::code).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ErrorCounts {
    /// How often each code occurred. At most [`CODES_MAX`], the rest counts as `other`.
    pub by_code: BTreeMap<String, u64>,
    /// How often all of them together.
    pub total: u64,
    /// The text of the latest.
    pub last: Option<String>,
}

impl ErrorCounts {
    pub(super) fn record(&mut self, code: &str, text: String) {
        self.total += 1;
        self.last = Some(text);
        let is_room = self.by_code.len() < CODES_MAX;
        match self.by_code.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                let code = if is_room { code } else { OTHER };
                *self.by_code.entry(code.to_owned()).or_default() += 1;
            }
        }
    }
}

/// The most codes that are told apart: more than there are, since servers could invent some.
pub const CODES_MAX: usize = 64;

const OTHER: &str = "other";

/// The code of an error as nsqds write it (`E_INVALID cannot SUB in current state`), or `refused`.
pub(super) fn code_of(text: &str) -> &str {
    let code = text.split(' ').next().unwrap_or_default();
    let is_code = code.len() <= CODE_LEN_MAX
        && code.starts_with("E_")
        && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if is_code { code } else { "refused" }
}

/// Longer than any that there is.
const CODE_LEN_MAX: usize = 32;

impl ConnectionError {
    /// A short name for statistics: the code that the server wrote (`E_UNAUTHORIZED`), or a word in
    /// lower case such as `dial`, `closed` or `read_timeout`.
    pub fn code(&self) -> &str {
        match self {
            Self::AuthRefused(text)
            | Self::IdentifyRefused(text)
            | Self::Refused(text)
            | Self::UnexpectedError(text) => code_of(text),
            Self::AuthRequired => "auth_required",
            Self::Closed => "closed",
            Self::Dial(_) => "dial",
            Self::DialTimeout => "dial_timeout",
            Self::Frame(_) => "frame",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::IdentifyAnswer => "identify_answer",
            Self::Io(_) => "io",
            #[cfg(feature = "upgrade")]
            Self::Layer(_) => "layer",
            Self::NoAnswer => "no_answer",
            Self::NoNsqd => "no_nsqd",
            Self::ReadTimeout => "read_timeout",
            Self::Stopped => "stopped",
            Self::TimedOut => "timed_out",
            Self::TooManyMessages => "too_many_messages",
            Self::UnexpectedMessage => "unexpected_message",
            Self::UnexpectedResponse(_) => "unexpected_response",
            Self::UnexpectedUpgrade(_) | Self::UpgradeAnswer(_) => "upgrade",
            #[cfg(feature = "upgrade")]
            Self::Upgrade(_) => "upgrade",
            Self::UpgradeRefused(_) => "upgrade_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn quantiles_mean_and_longest() {
        let mut all = Latencies::default();
        assert_eq!((all.quantile(500), all.mean(), all.count()), Default::default());
        for millis in 1..=100 {
            all.record(Duration::from_millis(millis));
        }
        assert_eq!((all.count(), all.max()), (100, Duration::from_millis(100)));
        assert_eq!(all.mean(), Duration::from_micros(50_500));
        // 50 ms lies in the bucket that ends at 57.344 ms.
        assert_eq!(all.quantile(500), Duration::from_micros(57_344));
        assert_eq!(all.quantile(1000), all.quantile(u16::MAX));
        assert_eq!(all.quantile(1000), Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn a_bucket_is_a_quarter_wide_at_most(micros in 0_u64..1 << 36) {
            let took = Duration::from_micros(micros);
            let above = upper_bound(bucket(took));
            prop_assert!(took < above);
            prop_assert!(above <= took + took / 4 + Duration::from_micros(1));
        }

        #[test]
        fn nothing_is_too_long(took: Duration) {
            let mut all = Latencies::default();
            all.record(took);
            prop_assert_eq!(all.counts.iter().sum::<u32>(), 1);
            prop_assert!(all.quantile(0) <= took);
        }
    }

    #[test]
    fn codes_are_short_and_few() {
        for (text, code) in [
            ("E_INVALID cannot SUB", "E_INVALID"),
            ("E_BAD_TOPIC", "E_BAD_TOPIC"),
            ("e_invalid", "refused"),
            ("E_0123", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(ConnectionError::Refused(text.to_string()).code(), code);
        }
        let mut errors = ErrorCounts::default();
        let codes: alloc::vec::Vec<_> = (0..2 * CODES_MAX).map(|at| format!("c{at}")).collect();
        for code in codes.iter().chain(&codes) {
            errors.record(code, code.to_string());
        }
        assert_eq!((errors.total, errors.by_code.len()), (4 * CODES_MAX as u64, CODES_MAX + 1));
        assert_eq!(errors.by_code.get(OTHER), Some(&(2 * CODES_MAX as u64)));
        assert_eq!(errors.last, codes.last().cloned());
    }
}
