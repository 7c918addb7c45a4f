//! Finding nsqds through nsqlookupds (clients.md sections 3.7 and 8.5, part 7, B14 and B15).
//!
//! A [`Directory`] asks every nsqlookupd it was given, all at once, when it is given and then every
//! `poll_interval`. What it finds is the union of their answers, by `broadcast_address:tcp_port`.
//!
//! - A server whose first question fails is asked again after a wait that grows, as nsqds are
//!   dialled (see [`Backoff`]), until it answers: it may come up after this client. So is one that
//!   answers while no nsqd is known at all, but only until the waits are as long as
//!   `poll_interval`: nsqds may register later.
//! - A server that fails, or answers nonsense, keeps its last good answer: an nsqlookupd that is
//!   being started again does not make nsqds vanish.
//! - An nsqd that no answer lists for `vanished_after` regular rounds in a row has vanished.
//! - A topic that a server does not know (`TOPIC_NOT_FOUND`) is an answer without nsqds.
//! - An answer is taken in the form of today and in the one of nsqlookupd before 1.0, which wraps
//!   the same in `{"status_code":…,"status_txt":…,"data":…}`.
//! - A server that wants to be asked over TLS (403 and its port) is asked over TLS.
//!
//! Limits: [`ANSWER_LEN_MAX`] for the bytes of an answer, [`FOUND_MAX`] for the nsqds that are
//! known at once; more of them are left out, with an event. One request is under way per server.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::actions::{LookupCallId, NetActions};
use super::backoff::Backoff;
use crate::http::call::{Call, CallResult, Url, UrlError, push_form_value};
use crate::log::{Level, OneLine};
use crate::name::TopicName;
use crate::rng::Rng;
use crate::secret::Secret;
use crate::time::{Instant, Now};

mod answer;

/// What nsqlookupds are asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// Which nsqds have this topic (`/lookup?topic=`).
    Lookup(TopicName),
    /// Which nsqds there are (`/nodes`).
    Nodes,
}

/// When nsqlookupds are asked, and how long they may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirectoryOptions {
    /// The longest time between two rounds; a round is never sooner than 1 ms after the last.
    pub poll_interval: Duration,
    /// Each round comes earlier by a random part of this, so that many clients do not ask at once.
    pub poll_jitter: Duration,
    /// How long a request may take.
    pub poll_timeout: Duration,
    /// So many regular rounds in a row without being listed, and an nsqd has vanished; 0: never.
    pub vanished_after: u32,
}

impl Default for DirectoryOptions {
    /// The intervals of go-nsq: 60 s, three tenths of it, 60 s; and [`VANISHED_AFTER`].
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(60),
            poll_jitter: Duration::from_secs(18),
            poll_timeout: Duration::from_secs(60),
            vanished_after: VANISHED_AFTER,
        }
    }
}

/// What calls into a [`Directory`] tell its owner, who clears it.
#[derive(Debug, Default)]
pub struct DirectoryChanges {
    /// Addresses, `host:port`, that are listed and were not known.
    pub found: Vec<String>,
    /// Addresses that were found once and are listed by nobody any more. May be found again.
    pub vanished: Vec<String>,
    /// What is worth a line in a log.
    pub events: Vec<DirectoryEvent>,
}

/// What happened to a question. `Display` is the text of the log line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryEvent {
    /// The nsqlookupd, as it was given.
    pub nsqlookupd: String,
    /// What happened.
    pub kind: DirectoryEventKind,
}

/// What happened to a question.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DirectoryEventKind {
    /// There is no answer, or none that can be read. Its last good answer still counts.
    Failed(String),
    /// It lists more nsqds than are taken: so many were left out.
    LeftOut(usize),
}

impl DirectoryEvent {
    /// How loud it is.
    pub const fn level(&self) -> Level {
        Level::Warn
    }
}

impl fmt::Display for DirectoryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = OneLine(&self.nsqlookupd);
        match &self.kind {
            DirectoryEventKind::Failed(why) => {
                write!(f, "nsqlookupd {server} was asked in vain: {}", OneLine(why))
            }
            DirectoryEventKind::LeftOut(count) => {
                write!(f, "nsqlookupd {server} lists too many nsqds: {count} left out")
            }
        }
    }
}

/// Asks nsqlookupds for nsqds; see the [module's page](self).
#[derive(Debug)]
pub struct Directory {
    question: Question,
    options: DirectoryOptions,
    authorization: Option<Secret>,
    servers: Vec<Server>,
    /// How many regular rounds in a row did not list it, by address.
    known: BTreeMap<String, u32>,
    rng: Rng,
    calls: u64,
    asked_at: Instant,
    /// When everybody is asked next; `None` without a server.
    regular_at: Option<Instant>,
    /// When everybody is asked besides, since somebody wanted it.
    extra_at: Option<Instant>,
    /// A regular round is under way: at its end is counted who was not listed.
    is_counting: bool,
}

/// An nsqlookupd.
#[derive(Debug)]
struct Server {
    /// As it was given.
    address: String,
    url: Url,
    /// Where to ask instead, as the server itself said.
    over_tls: Option<Url>,
    under_way: Option<LookupCallId>,
    /// It has answered, once at least.
    has_answered: bool,
    /// When it is asked besides the rounds, because it has been of no use yet.
    again_at: Option<Instant>,
    /// How long that takes, from time to time.
    backoff: Backoff,
    /// How often it was asked like this in a row.
    tries: u32,
    /// Its last good answer.
    listed: BTreeSet<String>,
}

impl Directory {
    /// Knows nobody to ask yet. `seed` spreads its rounds among those of others.
    pub fn new(question: Question, options: DirectoryOptions, seed: u64) -> Self {
        Self {
            question,
            options,
            authorization: None,
            servers: Vec::new(),
            known: BTreeMap::new(),
            rng: Rng::new(seed),
            calls: 0,
            asked_at: Instant::ZERO,
            regular_at: None,
            extra_at: None,
            is_counting: false,
        }
    }

    /// Sends `secret` along with every request from now on, as `Authorization: Bearer`.
    pub fn authorize(&mut self, secret: Secret) {
        self.authorization = Some(secret);
    }

    /// Asks the nsqlookupd at `address` too, at once for the first time; false if it is known
    /// already.
    ///
    /// `address` is `host:port`, or a URL. A URL's own path and query are kept; without a path, it
    /// is the question's.
    ///
    /// # Errors
    /// [`UrlError`] if that cannot be asked; [`UrlError::Port`] also for a host alone.
    pub fn add(&mut self, address: &str, now: Now, out: &mut NetActions) -> Result<bool, UrlError> {
        let url = self.question.url(address)?;
        if self.servers.iter().any(|server| server.url == url) {
            return Ok(false);
        }
        let rng = Rng::new(self.rng.next_u64());
        self.servers.push(Server {
            address: address.to_owned(),
            url,
            over_tls: None,
            under_way: None,
            has_answered: false,
            again_at: None,
            backoff: Backoff::new(ASK_AGAIN_MIN, ASK_AGAIN_MAX, rng),
            tries: 0,
            listed: BTreeSet::new(),
        });
        self.ask(self.servers.len() - 1, out);
        if self.regular_at.is_none() {
            self.asked_at = now.instant;
            self.regular_at = Some(now.instant + self.next_wait());
        }
        Ok(true)
    }

    /// Asks this nsqlookupd no more; false if it is not known. What only it listed vanishes later.
    pub fn remove(&mut self, address: &str) -> bool {
        let before = self.servers.len();
        let url = self.question.url(address);
        self.servers.retain(|server| Ok(&server.url) != url.as_ref());
        if self.servers.is_empty() {
            self.regular_at = None;
            self.extra_at = None;
        }
        self.servers.len() < before
    }

    /// Forgets every nsqlookupd: nothing is asked any more.
    pub fn stop(&mut self) {
        self.servers.clear();
        self.regular_at = None;
        self.extra_at = None;
    }

    /// Asks everybody soon, because the answers may have changed: at the next
    /// [`handle_timeout`](Self::handle_timeout), but not within [`ASK_AGAIN_AFTER`] of the last
    /// time.
    pub fn ask_soon(&mut self, now: Now) {
        if !self.servers.is_empty() && self.extra_at.is_none() {
            self.extra_at = Some(now.instant.max(self.asked_at + ASK_AGAIN_AFTER));
        }
    }

    /// How many nsqlookupds it asks.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there is nobody to ask.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The outcome of a request. Others' are ignored.
    pub fn handle_called(
        &mut self,
        id: LookupCallId,
        result: CallResult,
        now: Now,
        out: &mut NetActions,
        changes: &mut DirectoryChanges,
    ) {
        let is_asked = |server: &Server| server.under_way == Some(id);
        let Some(at) = self.servers.iter().position(is_asked) else { return };
        let Some(server) = self.servers.get_mut(at) else { return };
        server.under_way = None;
        if let Ok(answer) = &result
            && server.over_tls.is_none()
            && let Some(url) = server.url.over_tls(answer)
        {
            server.over_tls = Some(url);
            self.ask(at, out);
            return;
        }
        let listed = result.map_err(|failure| failure.to_string());
        match listed.and_then(|answer| answer::addresses(&answer)) {
            Ok((listed, left_out)) => {
                server.listed = listed;
                server.has_answered = true;
                let left_out = left_out + take_new(&mut self.known, server, changes);
                if left_out > 0 {
                    changes.events.push(server.event(DirectoryEventKind::LeftOut(left_out)));
                }
            }
            Err(why) => {
                // Where it was before, it may say anew where it is.
                server.over_tls = None;
                let why = why.chars().take(REASON_LEN_MAX).collect();
                changes.events.push(server.event(DirectoryEventKind::Failed(why)));
            }
        }
        self.ask_again(at, now);
        if self.is_counting && self.servers.iter().all(|server| server.under_way.is_none()) {
            self.is_counting = false;
            self.count(changes);
        }
    }

    /// Has a server asked again soon that has been of no use yet.
    fn ask_again(&mut self, at: usize, now: Now) {
        let Some(server) = self.servers.get_mut(at) else { return };
        let longest = 1_u32.checked_shl(server.tries).map(|factor| ASK_AGAIN_MIN * factor);
        let is_early = longest.is_some_and(|longest| longest < self.options.poll_interval);
        if !server.has_answered || (self.known.is_empty() && is_early) {
            server.tries = server.tries.saturating_add(1);
            server.again_at = Some(now.instant + server.backoff.next_wait());
        } else if !self.known.is_empty() {
            server.tries = 0;
            server.backoff.reset();
        }
    }

    /// A regular round is over.
    fn count(&mut self, changes: &mut DirectoryChanges) {
        let (servers, vanished_after) = (&self.servers, self.options.vanished_after);
        self.known.retain(|address, missed| {
            let is_listed = servers.iter().any(|server| server.listed.contains(address));
            *missed = if is_listed { 0 } else { missed.saturating_add(1) };
            let stays = vanished_after == 0 || *missed < vanished_after;
            if !stays {
                changes.vanished.push(address.clone());
            }
            stays
        });
    }

    /// Time has passed; does nothing before [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now, out: &mut NetActions) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let (regular, extra) = (is_due(self.regular_at), is_due(self.extra_at));
        if regular {
            self.is_counting = true;
            self.regular_at = Some(now.instant + self.next_wait());
        }
        if regular || extra {
            self.asked_at = now.instant;
            self.extra_at = None;
        }
        for at in 0..self.servers.len() {
            let again_at = self.servers.get(at).and_then(|server| server.again_at);
            if regular || extra || is_due(again_at) {
                self.ask(at, out);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let again = self.servers.iter().map(|server| server.again_at);
        again.chain([self.regular_at, self.extra_at]).flatten().min()
    }

    fn ask(&mut self, at: usize, out: &mut NetActions) {
        let Some(server) = self.servers.get_mut(at) else { return };
        server.again_at = None;
        if server.under_way.is_some() {
            return;
        }
        let id = LookupCallId(self.calls);
        self.calls += 1;
        server.under_way = Some(id);
        let url = server.over_tls.as_ref().unwrap_or(&server.url).clone();
        let timeout = self.options.poll_timeout;
        let answer_len_max = ANSWER_LEN_MAX;
        let call = Call {
            url,
            body: None,
            authorization: self.authorization.clone(),
            connect_timeout: timeout,
            timeout,
            answer_len_max,
        };
        out.calls.push((id, call));
    }

    fn next_wait(&mut self) -> Duration {
        let jitter = u64::try_from(self.options.poll_jitter.as_nanos()).unwrap_or(u64::MAX);
        let earlier = Duration::from_nanos(self.rng.below(jitter.saturating_add(1)));
        self.options.poll_interval.saturating_sub(earlier).max(POLL_INTERVAL_LEAST)
    }
}

/// Notes what `server` lists and nobody did before. Returns how many did not fit.
fn take_new(
    known: &mut BTreeMap<String, u32>,
    server: &Server,
    changes: &mut DirectoryChanges,
) -> usize {
    let mut left_out = 0;
    for address in &server.listed {
        if known.contains_key(address) {
            continue;
        }
        if known.len() < FOUND_MAX {
            known.insert(address.clone(), 0);
            changes.found.push(address.clone());
        } else {
            left_out += 1;
        }
    }
    left_out
}

impl Server {
    fn event(&self, kind: DirectoryEventKind) -> DirectoryEvent {
        DirectoryEvent { nsqlookupd: self.address.clone(), kind }
    }
}

impl Question {
    /// The URL to ask at `address` (clients.md section 3.7a).
    fn url(&self, address: &str) -> Result<Url, UrlError> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        // A host alone would be asked at port 80, where hardly ever an nsqlookupd is.
        if scheme.is_empty() && !has_port {
            return Err(UrlError::Port);
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let scheme = if scheme.is_empty() { "http" } else { scheme };
        let mut text = alloc::format!("{scheme}://{authority}");
        match (self, path) {
            (Self::Lookup(_), "" | "/") => text.push_str("/lookup"),
            (Self::Nodes, "" | "/") => text.push_str("/nodes"),
            // A URL that was given for consumers serves producers too.
            (Self::Nodes, _) if path.ends_with("/lookup") => {
                text.push_str(path.strip_suffix("/lookup").unwrap_or_default());
                text.push_str("/nodes");
            }
            _ => text.push_str(path),
        }
        if !query.is_empty() {
            text.push('?');
            text.push_str(query);
        }
        if let Self::Lookup(topic) = self {
            text.push_str(if query.is_empty() { "?topic=" } else { "&topic=" });
            push_form_value(&mut text, topic.as_str().as_bytes());
        }
        Url::parse(&text)
    }
}

/// The default of `vanished_after`: longer than an nsqlookupd takes to hear of every nsqd again
/// after its start (nsqds connect again within 15 s).
pub const VANISHED_AFTER: u32 = 3;

/// The shortest time between two rounds when somebody wants one: nsqds that end every connection at
/// once would else cause a storm of questions (clients.md section 3.9, row 5).
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The shortest and the longest wait before a server is asked again that has been of no use yet: as
/// nsqds are dialled by default.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(30);

/// How many bytes an answer may have. `/nodes` lists every topic of every nsqd: this is enough for
/// 200 nsqds with 1000 topics of 70 bytes each.
pub const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

/// How many nsqds are known at once, and taken from one answer; each may become a connection.
pub const FOUND_MAX: usize = 4096;

/// Below this an interval would be a busy loop.
const POLL_INTERVAL_LEAST: Duration = Duration::from_millis(1);

/// How much of a reason goes into an event, in characters.
const REASON_LEN_MAX: usize = 256;

#[cfg(test)]
mod tests;
