//! Limits of the nsqds that are small enough to be reached, and the refusals that follow.

use core::time::Duration;

use sansq_core::nsqd::Config;
use sansq_core::rng::Rng;

use crate::chance::Chance;
use crate::client::publisher::SMALLEST_BODY_LEN;
use crate::swarm::Options;

/// The nsqds' limits by the names of the flags; `None` for the default, which no run reaches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// `--max-msg-size`, in bytes; also of what goes through the admin interface.
    pub max_msg_size: Option<usize>,
    /// `--max-body-size`, in bytes, at least 2,000 so that clients can identify.
    pub max_body_size: Option<usize>,
    /// `--max-unanswered-bytes`.
    pub max_unanswered_bytes: Option<usize>,
    /// `--max-topics`.
    pub max_topics: Option<usize>,
    /// `--max-channels-per-topic`.
    pub max_channels_per_topic: Option<usize>,
    /// `--max-channel-consumers`.
    pub max_channel_consumers: Option<usize>,
    /// `--max-rdy-count`.
    pub max_rdy_count: Option<u32>,
    /// `--max-req-timeout`.
    pub max_req_timeout: Option<Duration>,
}

impl Limits {
    /// Those of most seeds: none. Others have some of them, around what the run needs.
    pub(crate) fn draw(rng: &mut Rng, options: &Options) -> Self {
        let mut limits = Self::default();
        if options.burst || rng.percent(60) {
            return limits;
        }
        let mut below = |most: usize, least: usize| {
            let drawn = rng.between(least as u64, most.max(least) as u64) as usize;
            rng.percent(40).then_some(drawn)
        };
        limits.max_topics = below(options.topics, 1);
        let channels = options.channels + usize::from(options.ephemeral);
        limits.max_channels_per_topic = below(channels, 1);
        limits.max_channel_consumers = below(options.consumers + options.workers.0, 1);
        limits.max_msg_size = below(options.body_len_max, SMALLEST_BODY_LEN);
        limits.max_body_size = below(10_000, BODY_SIZE_MIN);
        // So that there is no more than the least: that of one body, for each shard.
        limits.max_unanswered_bytes = below(100_000, 1);
        limits.max_rdy_count = below(5, 1).map(|count| count as u32);
        let millis = below(4000, 100);
        limits.max_req_timeout = millis.map(|millis| Duration::from_millis(millis as u64));
        limits
    }

    /// Puts them into a configuration.
    pub(crate) fn apply(self, config: Config) -> Config {
        Config {
            max_msg_size: self.max_msg_size.unwrap_or(config.max_msg_size),
            max_body_size: self.max_body_size.unwrap_or(config.max_body_size),
            max_unanswered_bytes: self.max_unanswered_bytes.unwrap_or(config.max_unanswered_bytes),
            max_topics: self.max_topics.unwrap_or(config.max_topics),
            max_channels_per_topic: self
                .max_channels_per_topic
                .unwrap_or(config.max_channels_per_topic),
            max_channel_consumers: self
                .max_channel_consumers
                .unwrap_or(config.max_channel_consumers),
            max_rdy_count: self.max_rdy_count.unwrap_or(config.max_rdy_count),
            max_req_timeout: self.max_req_timeout.unwrap_or(config.max_req_timeout),
            ..config
        }
    }

    /// Whether everybody finds a place who wants one: every topic, channel and consumer of the run.
    /// Consumers' places are never sure if a hostile client may take one and fall silent: nsqd
    /// keeps its place until it has missed two heartbeats of the default interval.
    pub(crate) fn has_places(&self, options: &Options) -> bool {
        let has = |limit: Option<usize>, wanted| limit.is_none_or(|limit| limit >= wanted);
        has(self.max_topics, options.topics)
            && has(self.max_channels_per_topic, options.channels + usize::from(options.ephemeral))
            && has(self.max_channel_consumers, options.consumers + options.workers.0)
            && (self.max_channel_consumers.is_none() || !options.hostile)
    }
}

/// Whether a limit is the reason why a client that keeps to the protocol is refused with `text`,
/// and was in fact reached, as far as the text says by what.
pub(crate) fn explains(config: &Config, text: &str) -> bool {
    let ends = |end: &str, limit: usize| text.ends_with(&format!("{end}{limit}"));
    let too_big = |limit: usize| {
        let numbers = text.split_once("too big ").and_then(|(_, rest)| rest.split_once(" > "));
        let number = |text: &str| text.parse::<usize>().ok();
        numbers.is_some_and(|(len, max)| {
            number(max) == Some(limit) && number(len).is_some_and(|len| len > limit)
        })
    };
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    match (code, rest.split(' ').nth(1)) {
        ("E_SUB_FAILED", _) => {
            ends("--max-topics=", config.max_topics)
                || ends("--max-channels-per-topic=", config.max_channels_per_topic)
                || ends("exceeds limit of ", config.max_channel_consumers)
        }
        ("E_PUB_FAILED" | "E_MPUB_FAILED" | "E_DPUB_FAILED", _) => {
            ends("--max-topics=", config.max_topics)
        }
        ("E_BAD_MESSAGE", Some("message")) => too_big(config.max_msg_size),
        ("E_BAD_BODY", Some("body")) => too_big(config.max_body_size),
        ("E_INVALID", Some("timeout")) => {
            rest.starts_with("DPUB ")
                && ends("range 0-", config.max_req_timeout.as_millis() as usize)
        }
        _ => false,
    }
}

/// Above what a client says of itself in IDENTIFY.
const BODY_SIZE_MIN: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_client_may_take_the_place_of_a_consumer() {
        let mut options = Options::empty(1, 1, 1);
        (options.consumers, options.hostile) = (1, true);
        let limits = |max| Limits { max_channel_consumers: max, ..Limits::default() };
        assert!(limits(None).has_places(&options));
        assert!(!limits(Some(1)).has_places(&options));
        options.hostile = false;
        assert!(limits(Some(1)).has_places(&options));
    }

    #[test]
    fn only_a_limit_that_was_reached_explains_a_refusal() {
        let limits = Limits { max_topics: Some(2), max_msg_size: Some(20), ..Limits::default() };
        let config = limits.apply(Config::default());
        for (text, expected) in [
            ("E_PUB_FAILED PUB failed too many topics - the limit is --max-topics=2", true),
            ("E_SUB_FAILED SUB failed too many topics - the limit is --max-topics=2", true),
            ("E_PUB_FAILED PUB failed too many topics - the limit is --max-topics=3", false),
            ("E_BAD_MESSAGE PUB message too big 21 > 20", true),
            ("E_BAD_MESSAGE MPUB message too big 21 > 20", true),
            ("E_BAD_MESSAGE PUB message too big 20 > 20", false),
            ("E_BAD_MESSAGE PUB message too big 30 > 21", false),
            ("E_BAD_MESSAGE PUB invalid message body size 0", false),
            ("E_BAD_BODY MPUB body too big 5242881 > 5242880", true),
            ("E_INVALID DPUB timeout 3600001 out of range 0-3600000", true),
            ("E_INVALID RDY count 5 out of range 0-2", false),
            ("E_SUB_FAILED SUB failed consumers for t:c exceeds limit of 1", false),
            ("E_SUB_FAILED SUB failed exiting", false),
            ("", false),
        ] {
            assert_eq!(explains(&config, text), expected, "{text}");
        }
    }
}
