//! Authorization: asking the auth servers who a client is, and keeping to what they say.
//!
//! ```text
//!                 AUTH                    a good answer
//!   nothing ───────────────► Asking ─────────────────────► Granted ──┐ commands are checked
//!                              ▲ │ the next server, or over TLS      │
//!                              └─┘                  ttl over         │
//!                              ▲ ◄───────────────────────────────────┘
//! ```
//!
//! While a server is asked, its connection's next command is not decoded; heartbeats go on. A
//! command that finds the grant expired waits for the renewal. A running subscription is not
//! checked again (weakness W17 names the reason: clients would see it).
//!
//! Limits: [`AUTH_ANSWER_LEN_MAX`], [`ANSWER_PATTERNS_MAX`], [`PATTERN_SIZE_MAX`],
//! [`PATTERNS_MAX`].
//!
//! Source: nsqd-protocol.md section 16.

mod grant;
mod pattern;
mod syntax;

pub use self::grant::{ANSWER_PATTERNS_MAX, judge};
pub use self::pattern::{PATTERN_SIZE_MAX, PATTERNS_MAX};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use super::config::{AuthMethod, Config};
use crate::http::call::{Call, CallFailure, CallResult, Url, push_form_value};
use crate::name::TopicName;
use crate::protocol::command::Command;
use crate::protocol::error::{ErrorCode, ProtocolError, quoted};
use crate::protocol::json;
use crate::time::Instant;

pub(crate) use self::grant::Grant;
pub(crate) use self::pattern::Patterns;

/// How long an auth server's answer may be, in bytes. A longer one is a failure.
pub const AUTH_ANSWER_LEN_MAX: usize = 1024 * 1024;

/// What a connection has to do with authorization, from its AUTH on.
pub(super) struct ClientAuth {
    secret: Bytes,
    pub(super) grant: Option<Grant>,
    asking: Option<Asking>,
}

/// A round of questions under way.
struct Asking {
    /// What goes on once it is over.
    held: Postponed,
    /// The server that is asked, by its place in the configuration.
    server: usize,
    /// How many are left to be asked after it.
    left: usize,
    /// Where it is asked; where it wants to be asked over TLS, if it said so.
    url: Option<Url>,
    /// What went wrong so far, for the log.
    failures: String,
}

/// What waits for the answer.
#[derive(Debug)]
pub(super) enum Postponed {
    /// The answer to AUTH.
    Auth,
    /// A command whose grant had expired.
    Command(Box<Command>),
}

/// What a server is told of a client.
#[derive(Debug)]
pub(super) struct Facts {
    /// Empty on unix sockets.
    pub(super) remote_ip: String,
    pub(super) is_tls: bool,
    /// Of the client's certificate; empty without one.
    pub(super) common_name: String,
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask again: another server, or the same over TLS.
    Again,
    /// The grant is renewed; this goes on.
    Granted(Postponed),
    /// No server gave a valid answer; the text is for the log.
    Failed(String),
}

/// What a command needs to be allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need<'a> {
    command: &'static str,
    topic: &'a TopicName,
    /// Empty for publishing.
    channel: &'a str,
}

/// Whether a command may be carried out now.
#[derive(Debug)]
pub(super) enum Verdict {
    Allowed,
    /// The grant has to be renewed first.
    Expired,
    Refused(ProtocolError),
}

impl ClientAuth {
    pub(super) fn new(secret: &[u8]) -> Self {
        // A copy, so that it keeps no read buffer alive.
        Self { secret: Bytes::copy_from_slice(secret), grant: None, asking: None }
    }

    /// Whether a server is being asked, so that no command may be decoded.
    pub(super) const fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether it is allowed anything at all.
    pub(super) fn is_authorized(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| !grant.is_empty())
    }

    /// The JSON that AUTH answers; `None` if nothing is granted.
    pub(super) fn answer(&self) -> Option<String> {
        self.grant.as_ref().filter(|grant| !grant.is_empty()).map(Grant::to_json)
    }

    /// Begins a round of questions with the server at `first` of `servers`.
    pub(super) fn ask(&mut self, held: Postponed, first: usize, servers: usize) {
        let left = servers.saturating_sub(1);
        let failures = String::new();
        self.asking = Some(Asking { held, server: first, left, url: None, failures });
    }

    /// The request to the server whose turn it is; `None` if none is being asked.
    pub(super) fn call(
        &mut self,
        facts: &Facts,
        config: &Config,
    ) -> Option<Result<Call, CallFailure>> {
        let asking = self.asking.as_mut()?;
        let body = match config.auth_http_request_method {
            AuthMethod::Get => None,
            AuthMethod::Post => Some(facts.to_json(&self.secret).into()),
        };
        let url = match asking.url.take() {
            Some(url) => url,
            None => {
                let address = config.auth_http_addresses.get(asking.server)?;
                let mut url = if address.contains("://") {
                    address.clone()
                } else {
                    alloc::format!("http://{address}/auth")
                };
                if body.is_none() {
                    facts.push_query(&mut url, &self.secret);
                }
                match Url::parse(&url) {
                    Ok(url) => url,
                    Err(error) => return Some(Err(CallFailure::Url(error))),
                }
            }
        };
        asking.url = Some(url.clone());
        Some(Ok(Call {
            url,
            body,
            authorization: None,
            connect_timeout: config.http_client_connect_timeout,
            timeout: config.http_client_request_timeout,
            answer_len_max: AUTH_ANSWER_LEN_MAX,
        }))
    }

    /// A server's answer is in, or there is none. `None` if nobody had asked.
    pub(super) fn answered(
        &mut self,
        result: CallResult,
        now: Instant,
        config: &Config,
        patterns: &mut Patterns,
    ) -> Option<Step> {
        let asking = self.asking.as_mut()?;
        let url = asking.url.take();
        let outcome = match result {
            Ok(answer) if answer.status == 200 => Grant::parse(&answer.body, now, patterns),
            Ok(answer) => {
                if let Some(url) = url.and_then(|url| url.over_tls(&answer)) {
                    asking.url = Some(url);
                    return Some(Step::Again);
                }
                Err(alloc::format!("got response {}", answer.status))
            }
            Err(failure) => Err(alloc::format!("{failure}")),
        };
        match outcome {
            Ok(grant) => {
                self.grant = Some(grant);
                self.asking.take().map(|asking| Step::Granted(asking.held))
            }
            Err(why) => {
                let servers = config.auth_http_addresses.len();
                asking.failed(config, &why);
                if asking.left > 0 {
                    asking.left -= 1;
                    asking.server = (asking.server + 1) % servers.max(1);
                    return Some(Step::Again);
                }
                self.asking.take().map(|asking| Step::Failed(asking.failures))
            }
        }
    }

    /// Whether a command may be carried out.
    pub(super) fn judge(
        &mut self,
        need: Need<'_>,
        now: Instant,
        patterns: &mut Patterns,
    ) -> Verdict {
        // An empty grant ended the connection if AUTH got it, so this one came with a renewal, and
        // refuses like one that does not match.
        let Some(grant) = &mut self.grant else { return Verdict::Refused(need.auth_first()) };
        if grant.is_expired(now) {
            Verdict::Expired
        } else if grant.allows(need.topic, need.channel, patterns) {
            Verdict::Allowed
        } else {
            Verdict::Refused(need.refusal())
        }
    }
}

impl Asking {
    /// Takes note of why a server gave no valid answer.
    fn failed(&mut self, config: &Config, why: &str) {
        let server = config.auth_http_addresses.get(self.server).map_or("", String::as_str);
        if !self.failures.is_empty() {
            self.failures.push_str("; ");
        }
        // What servers and systems say goes into one line of the log, and not without end.
        let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_LEN_MAX);
        self.failures.push_str("failed to auth against ");
        self.failures.push_str(server);
        self.failures.push_str(" - ");
        self.failures.extend(why);
    }
}

impl Facts {
    /// The values in the order of their names, as the reference's form encoding has them.
    fn values<'a>(&'a self, secret: &'a [u8]) -> [(&'static str, &'a [u8]); 4] {
        [
            ("common_name", self.common_name.as_bytes()),
            ("remote_ip", self.remote_ip.as_bytes()),
            ("secret", secret),
            ("tls", if self.is_tls { b"true" } else { b"false" }),
        ]
    }

    /// Appends the query of a GET. A `?` that is there already changes nothing, as in the
    /// reference.
    fn push_query(&self, url: &mut String, secret: &[u8]) {
        let mut separator = '?';
        for (name, value) in self.values(secret) {
            url.push(separator);
            url.push_str(name);
            url.push('=');
            push_form_value(url, value);
            separator = '&';
        }
    }

    /// The body of a POST.
    fn to_json(&self, secret: &[u8]) -> String {
        let values = self.values(secret).map(|(name, value)| (name, [text(value)]));
        json::encode(&BTreeMap::from(values))
    }
}

/// `bytes` as text, each byte that is none as U+FFFD.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

impl<'a> Need<'a> {
    /// What `command` needs; `None` if anybody may do it.
    pub(super) fn of(command: &'a Command) -> Option<Self> {
        let (command, topic, channel) = match command {
            Command::Sub { topic, channel } => ("SUB", topic, &**channel),
            Command::Pub { topic, .. } => ("PUB", topic, ""),
            Command::Dpub { topic, .. } => ("DPUB", topic, ""),
            Command::MpubLine(topic) => ("MPUB", topic, ""),
            // Its line was checked.
            Command::Mpub { .. }
            | Command::Auth(_)
            | Command::Cls
            | Command::Fin(_)
            | Command::Identify(_)
            | Command::Nop
            | Command::Rdy(_)
            | Command::Req { .. }
            | Command::Touch(_) => return None,
        };
        Some(Self { command, topic, channel })
    }

    /// What a client is told that has not authorized.
    pub(super) fn auth_first(self) -> ProtocolError {
        let text = alloc::format!("AUTH required before {}", self.command);
        ProtocolError::new(ErrorCode::AuthFirst, text)
    }

    fn refusal(self) -> ProtocolError {
        let (topic, channel) = (quoted(self.topic.as_bytes()), quoted(self.channel.as_bytes()));
        let parts =
            [&b"AUTH failed for "[..], self.command.as_bytes(), b" on ", &topic, b" ", &channel];
        ProtocolError::quote(ErrorCode::Unauthorized, &parts)
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is nobody's business.
        f.debug_struct("ClientAuth").field("grant", &self.grant).finish_non_exhaustive()
    }
}

/// How many characters of one server's failure are shown in the log.
const REASON_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests;
