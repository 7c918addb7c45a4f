//! What an auth server grants: its answer, and whether that allows a command.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;
use serde::de::MapAccess;

use super::pattern::{Pattern, Patterns};
use crate::name::TopicName;
use crate::nsqd::config::cut_identity;
use crate::protocol::json::{self, Members, Object};
use crate::time::Instant;

/// What a connection may do until `expires`.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) identity: String,
    pub(crate) identity_url: String,
    expires: Instant,
    rules: Vec<Rule>,
    /// The topic that was published to last; a publisher has most often one.
    published: Option<TopicName>,
}

#[derive(Debug)]
struct Rule {
    topic: Pattern,
    channels: Vec<Pattern>,
    subscribe: bool,
    publish: bool,
}

/// The answer's JSON.
#[derive(Default)]
struct AuthJson {
    ttl: i64,
    authorizations: Vec<Object<Authorization>>,
    identity: String,
    identity_url: String,
}

#[derive(Default)]
struct Authorization {
    topic: String,
    channels: Vec<Option<String>>,
    permissions: Vec<Option<String>>,
}

impl Members for AuthJson {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "ttl" => json::set(&mut self.ttl, map),
            "authorizations" => json::set(&mut self.authorizations, map),
            "identity" => json::set(&mut self.identity, map),
            "identity_url" => json::set(&mut self.identity_url, map),
            _ => json::skip(map),
        }
    }
}

impl Members for Authorization {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "topic" => json::set(&mut self.topic, map),
            "channels" => json::set(&mut self.channels, map),
            "permissions" => json::set(&mut self.permissions, map),
            _ => json::skip(map),
        }
    }
}

impl Grant {
    /// Reads an answer's body. The error is for the log; a client is not told it.
    pub(super) fn parse(
        body: &[u8],
        now: Instant,
        patterns: &mut Patterns,
    ) -> Result<Self, String> {
        let answer: AuthJson = json::decode(body).map_err(|error| error.to_string())?;
        let count: usize =
            answer.authorizations.iter().map(|Object(rule)| 1 + rule.channels.len()).sum();
        if count > ANSWER_PATTERNS_MAX {
            return Err(alloc::format!("more than {ANSWER_PATTERNS_MAX} patterns"));
        }
        let rules = answer.authorizations.iter().map(|Object(rule)| Rule::new(rule, patterns));
        let rules = rules.collect::<Result<_, _>>()?;
        let ttl = u64::try_from(answer.ttl).unwrap_or_default();
        if ttl == 0 {
            return Err(alloc::format!("invalid TTL {} (must be >0)", answer.ttl));
        }
        let AuthJson { identity, identity_url, .. } = answer;
        let expires = now + Duration::from_secs(ttl.min(TTL_MAX));
        let (identity, identity_url) = (cut_identity(identity), cut_identity(identity_url));
        Ok(Self { identity, identity_url, expires, rules, published: None })
    }

    /// Whether it grants nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether it has to be renewed before the next command.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires < now
    }

    /// Whether one may publish to `topic` (`channel` is empty then), or subscribe to its `channel`.
    pub(super) fn allows(
        &mut self,
        topic: &TopicName,
        channel: &str,
        patterns: &mut Patterns,
    ) -> bool {
        let is_publish = channel.is_empty();
        if is_publish && self.published.as_ref() == Some(topic) {
            return true;
        }
        let mut matches = |pattern: &Pattern, name: &str| patterns.is_match(pattern, name);
        let allowed = self.rules.iter().any(|rule| {
            (if is_publish { rule.publish } else { rule.subscribe })
                && matches(&rule.topic, topic)
                && rule.channels.iter().any(|pattern| matches(pattern, channel))
        });
        if allowed && is_publish {
            self.published = Some(*topic);
        }
        allowed
    }

    /// The answer to AUTH.
    pub(super) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Identity<'a> {
            identity: &'a str,
            identity_url: &'a str,
            permission_count: usize,
        }
        json::encode(&Identity {
            identity: &self.identity,
            identity_url: &self.identity_url,
            permission_count: self.rules.len(),
        })
    }
}

impl Rule {
    fn new(rule: &Authorization, patterns: &mut Patterns) -> Result<Self, String> {
        let (mut subscribe, mut publish) = (false, false);
        for permission in &rule.permissions {
            match permission.as_deref().unwrap_or_default() {
                "subscribe" => subscribe = true,
                "publish" => publish = true,
                other => return Err(alloc::format!("unknown permission {other}")),
            }
        }
        let mut compile = |what: &str, pattern: &str| {
            patterns
                .compile(pattern)
                .map_err(|why| alloc::format!("unable to compile {what} {pattern:?} {why}"))
        };
        let topic = compile("topic", &rule.topic)?;
        let channels = rule
            .channels
            .iter()
            .map(|pattern| compile("channel", pattern.as_deref().unwrap_or("")));
        Ok(Self { topic, channels: channels.collect::<Result<_, _>>()?, subscribe, publish })
    }
}

/// Reads an auth server's answer and tells what it grants: the JSON that AUTH answers, and for each
/// of `asked` (topic, and channel or nothing for publishing) whether it is allowed. For tests and
/// fuzzing.
///
/// # Errors
/// What the log would say.
#[doc(hidden)]
pub fn judge(body: &[u8], asked: &[(TopicName, &str)]) -> Result<(String, Vec<bool>), String> {
    let mut patterns = Patterns::default();
    let mut grant = Grant::parse(body, Instant::ZERO, &mut patterns)?;
    let allowed =
        asked.iter().map(|(topic, channel)| grant.allows(topic, channel, &mut patterns)).collect();
    Ok((grant.to_json(), allowed))
}

/// The most patterns of one answer, of topics and channels together. More is a failure.
pub const ANSWER_PATTERNS_MAX: usize = 4096;

/// Seconds beyond which a grant's life is not told apart: a hundred years.
const TTL_MAX: u64 = 100 * 365 * 24 * 60 * 60;
