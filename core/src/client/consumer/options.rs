//! What can be set about a consumer (clients.md part 4).

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::directory::{DirectoryOptions, VANISHED_AFTER};
use super::super::options::{ConnectionOptions, InvalidOption};

/// The settings of a consumer, with go-nsq's names, defaults and bounds (clients.md part 4), and a
/// few of its own.
///
/// RDY moves when it is due, not at the next round; `rdy_redistribute_interval` only says how often
/// rates are looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsumerOptions {
    /// Those of its connections. Without heartbeats servers refuse to serve a consumer.
    pub connection: ConnectionOptions,
    /// How many messages may be in flight on all connections together; 0: paused. More than these
    /// are asked for never; when more may be there for a while says the [module's page](super).
    pub max_in_flight: u32,
    /// How often a message may be attempted; 0: any number of times.
    pub max_attempts: u16,
    /// Messages above `max_attempts` go to the program, marked as
    /// [`exhausted`](super::Delivery::exhausted). Otherwise the consumer finishes them.
    pub hand_over_exhausted: bool,
    /// The delay of a requeue that names none, times attempts; 0 to 60 min.
    pub default_requeue_delay: Duration,
    /// The longest delay of a requeue that names none; 0 to 60 min.
    pub max_requeue_delay: Duration,
    /// What is left alone in a backoff.
    pub backoff_scope: BackoffScope,
    /// How the wait of a backoff level comes about.
    pub backoff_strategy: BackoffStrategy,
    /// The unit of the wait: it is this times 2 to the level; 0 to 60 min, 0: no backoff.
    pub backoff_multiplier: Duration,
    /// The longest wait of a backoff; 0 to 60 min, 0: no backoff.
    pub max_backoff_duration: Duration,
    /// With more connections than `max_in_flight`: after this long without a message a connection
    /// makes room for another; 1 s to 5 min.
    pub low_rdy_idle_timeout: Duration,
    /// With more connections than `max_in_flight`: after this long a connection makes room for
    /// another even if it has messages; 1 s to 5 min.
    pub low_rdy_timeout: Duration,
    /// Who gets how much of `max_in_flight` where there is enough for all.
    pub rdy_shares: RdyShares,
    /// How often shares follow the rates, with [`RdyShares::Rate`]; 1 ms to 5 s.
    pub rdy_redistribute_interval: Duration,
    /// The longest time between two rounds of questions to the nsqlookupds; 10 ms to 5 min.
    pub lookupd_poll_interval: Duration,
    /// By what part of the interval, in percent, a round may come sooner, so that many consumers do
    /// not ask at the same moment; 0 to 100. go-nsq's `lookupd_poll_jitter` is a fraction: its 0.3
    /// is 30.
    pub lookupd_poll_jitter_percent: u8,
    /// How long an nsqlookupd may take to answer; not zero.
    pub lookupd_poll_timeout: Duration,
    /// The secret that goes to the nsqlookupds as `Authorization: Bearer`, if
    /// `connection.auth_secret` is set.
    pub lookupd_authorization: bool,
    /// An nsqd that only nsqlookupds named is drained and closed after none has named it for this
    /// many rounds; 0: it stays while it lives.
    pub lookupd_forget_rounds: u32,
    /// How long an nsqd that was removed may take until its messages in flight are answered. The
    /// rest is requeued then.
    pub drain_timeout: Duration,
    /// Messages are touched by the consumer itself before their time in flight is over, as long as
    /// the server allows it (its `--max-msg-timeout`).
    pub auto_touch: bool,
    /// The shortest wait before an nsqd is dialled again; at least 1 ms.
    pub redial_min: Duration,
    /// The longest wait before an nsqd is dialled again; at least `redial_min`.
    pub redial_max: Duration,
}

/// How the wait of a backoff level comes about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffStrategy {
    /// It is `backoff_multiplier` times 2 to the level.
    #[default]
    Exponential,
    /// It is a random time below that.
    FullJitter,
}

/// What is left alone in a backoff.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffScope {
    /// All nsqds: whatever makes handlers fail is here, or behind all of them.
    #[default]
    Consumer,
    /// The nsqd whose messages fail; the others go on.
    Connection,
}

/// Who gets how much of `max_in_flight` where there is enough for all.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RdyShares {
    /// All connections the same.
    #[default]
    Equal,
    /// One half equally, so that everybody can begin at any time, the other half after what came
    /// lately.
    Rate,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            max_in_flight: 1,
            max_attempts: 5,
            hand_over_exhausted: false,
            default_requeue_delay: Duration::from_secs(90),
            max_requeue_delay: Duration::from_secs(15 * 60),
            backoff_scope: BackoffScope::Consumer,
            backoff_strategy: BackoffStrategy::Exponential,
            backoff_multiplier: Duration::from_secs(1),
            max_backoff_duration: Duration::from_secs(2 * 60),
            low_rdy_idle_timeout: Duration::from_secs(10),
            low_rdy_timeout: Duration::from_secs(30),
            rdy_shares: RdyShares::Equal,
            rdy_redistribute_interval: Duration::from_secs(5),
            lookupd_poll_interval: Duration::from_secs(60),
            lookupd_poll_jitter_percent: 30,
            lookupd_poll_timeout: Duration::from_secs(60),
            lookupd_authorization: true,
            lookupd_forget_rounds: VANISHED_AFTER,
            drain_timeout: Duration::from_secs(60),
            auto_touch: false,
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(30),
        }
    }
}

impl ConsumerOptions {
    pub(super) fn directory(&self) -> DirectoryOptions {
        let percent = u32::from(self.lookupd_poll_jitter_percent);
        DirectoryOptions {
            poll_interval: self.lookupd_poll_interval,
            poll_jitter: self.lookupd_poll_interval * percent / 100,
            poll_timeout: self.lookupd_poll_timeout,
            vanished_after: self.lookupd_forget_rounds,
        }
    }

    /// Checks what could never work, and go-nsq's bounds.
    ///
    /// # Errors
    /// [`InvalidOption`] for the first value out of its range.
    pub fn check(&self) -> Result<(), InvalidOption> {
        self.connection.check()?;
        let invalid = |name, reason| Err(InvalidOption { name, reason });
        if self.connection.heartbeat_interval.is_none() {
            return invalid("heartbeat_interval", "must not be off for a consumer");
        }
        for (name, value) in [
            ("default_requeue_delay", self.default_requeue_delay),
            ("max_requeue_delay", self.max_requeue_delay),
            ("backoff_multiplier", self.backoff_multiplier),
            ("max_backoff_duration", self.max_backoff_duration),
        ] {
            if value > HOUR {
                return invalid(name, "must be 0 to 60 min");
            }
        }
        for (name, value) in [
            ("low_rdy_idle_timeout", self.low_rdy_idle_timeout),
            ("low_rdy_timeout", self.low_rdy_timeout),
        ] {
            if !(SECOND..=FIVE_MINUTES).contains(&value) {
                return invalid(name, "must be 1 s to 5 min");
            }
        }
        if !(MILLISECOND..=FIVE_SECONDS).contains(&self.rdy_redistribute_interval) {
            return invalid("rdy_redistribute_interval", "must be 1 ms to 5 s");
        }
        if !(POLL_LEAST..=FIVE_MINUTES).contains(&self.lookupd_poll_interval) {
            return invalid("lookupd_poll_interval", "must be 10 ms to 5 min");
        }
        if self.lookupd_poll_jitter_percent > 100 {
            return invalid("lookupd_poll_jitter", "must be 0 to 1");
        }
        if self.lookupd_poll_timeout.is_zero() {
            return invalid("lookupd_poll_timeout", "must not be zero");
        }
        if self.redial_min < REDIAL_LEAST {
            return invalid("redial_min", "must be at least 1 ms");
        }
        if self.redial_max < self.redial_min {
            return invalid("redial_max", "must be at least redial_min");
        }
        Ok(())
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const FIVE_SECONDS: Duration = Duration::from_secs(5);
const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// go-nsq's bound.
const POLL_LEAST: Duration = Duration::from_millis(10);

/// Below this a failing address would be dialled in a busy loop.
const REDIAL_LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let good = ConsumerOptions::default();
        assert_eq!(good.check(), Ok(()));
        let secs = Duration::from_secs;
        let with = |name: &str, set: &dyn Fn(&mut ConsumerOptions)| {
            let mut options = good.clone();
            set(&mut options);
            assert_eq!(options.check().map_err(|error| error.name), Err(name));
        };
        with("heartbeat_interval", &|options| options.connection.heartbeat_interval = None);
        with("sample_rate", &|options| options.connection.sample_rate = 100);
        with("default_requeue_delay", &|options| options.default_requeue_delay = secs(3601));
        with("max_requeue_delay", &|options| options.max_requeue_delay = secs(3601));
        with("backoff_multiplier", &|options| options.backoff_multiplier = secs(3601));
        with("max_backoff_duration", &|options| options.max_backoff_duration = secs(3601));
        with("low_rdy_idle_timeout", &|options| options.low_rdy_idle_timeout = secs(301));
        with("low_rdy_timeout", &|options| options.low_rdy_timeout = Duration::from_millis(999));
        with("rdy_redistribute_interval", &|options| options.rdy_redistribute_interval = secs(6));
        with("lookupd_poll_interval", &|options| options.lookupd_poll_interval = secs(301));
        with("lookupd_poll_jitter", &|options| options.lookupd_poll_jitter_percent = 101);
        with("lookupd_poll_timeout", &|options| options.lookupd_poll_timeout = Duration::ZERO);
        with("redial_min", &|options| options.redial_min = Duration::ZERO);
        with("redial_max", &|options| options.redial_max = Duration::from_millis(99));
    }
}
