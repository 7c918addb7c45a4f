//! Finding nsqds with the help of nsqlookupds (clients.md section 3.7).
//!
//! - All nsqlookupds are asked in parallel: when they are added, every `lookupd_poll_interval` and, at most
//!   every [`LOOKUP_SOON`], when a connection that was in order has ended. The last good answer of each
//!   counts until the next one. What any of them names is connected to.
//! - An nsqd that none of them has named for `lookupd_forget_rounds` rounds in a row is drained and closed,
//!   unless the program itself has added it.
//! - `404 TOPIC_NOT_FOUND` is an answer: nobody has the topic.
//!
//! Limits: the length of an answer ([`LOOKUP_ANSWER_LEN_MAX`]) and the number of nsqds that are found this
//! way ([`NSQDS_MAX`], each answer's and in all). What is beyond is ignored, with an event.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use serde::de::MapAccess;

use super::super::actions::CallId;
use super::super::error::readable;
use super::Consumer;
use super::actions::{ConsumerActions, ConsumerEvent};
use crate::http::call::{Call, CallAnswer, CallResult, Url, UrlError, push_form_value};
use crate::name::TopicName;
use crate::protocol::json::{self, Members, Object};
use crate::rng::Rng;
use crate::time::{Instant, Now};

/// How long an nsqlookupd's answer may be, in bytes: [`NSQDS_MAX`] producers with long names.
pub const LOOKUP_ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;

/// How many nsqds nsqlookupds may name. Each means a connection, and this is more than any known cluster.
pub const NSQDS_MAX: usize = 4096;

/// The shortest time from one round to the next that is due to the end of a connection.
pub const LOOKUP_SOON: Duration = Duration::from_secs(5);

/// The nsqlookupds and what they said.
#[derive(Debug)]
pub(super) struct Lookups {
    servers: Vec<Lookupd>,
    /// When the next round begins.
    round_at: Option<Instant>,
    /// When all are asked out of turn.
    soon_at: Option<Instant>,
    /// When all were asked last.
    asked_at: Instant,
    /// A round is under way that counts towards `lookupd_forget_rounds`.
    is_round: bool,
    calls: u64,
    rng: Rng,
}

#[derive(Debug)]
struct Lookupd {
    /// As the program gave it.
    address: String,
    shown: Arc<str>,
    url: Url,
    call: Option<Asked>,
    /// The last good answer.
    listed: BTreeSet<Arc<str>>,
}

/// A question that is under way.
#[derive(Debug)]
struct Asked {
    id: CallId,
    url: Url,
}

impl Lookups {
    pub(super) const fn new(rng: Rng) -> Self {
        Self {
            servers: Vec::new(),
            round_at: None,
            soon_at: None,
            asked_at: Instant::ZERO,
            is_round: false,
            calls: 0,
            rng,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.round_at, self.soon_at].into_iter().flatten().min()
    }

    /// Asks nobody any more, and takes no answers.
    pub(super) fn stop(&mut self) {
        (self.round_at, self.soon_at) = (None, None);
        for server in &mut self.servers {
            server.call = None;
        }
    }

    /// Something has changed: all are asked again before the next round. That is no round itself, or nsqds
    /// would be forgotten the sooner the more connections end.
    pub(super) fn hurry(&mut self) {
        self.soon_at = self.round_at.map(|_| self.asked_at + LOOKUP_SOON);
    }

    fn lists(&self, nsqd: &str) -> bool {
        self.servers.iter().any(|server| server.listed.contains(nsqd))
    }
}

impl Consumer {
    /// Asks the nsqlookupd at `host:port`, or at a URL, too; false if it does already, or is stopping. A URL
    /// without a path gets the path `/lookup`; `topic` is added to its query.
    ///
    /// # Errors
    /// [`UrlError`] if the address can't be asked; the port must be there.
    pub fn add_nsqlookupd(
        &mut self,
        address: &str,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<bool, UrlError> {
        let url = lookup_url(address, &self.topic)?;
        let is_known = self.lookups.servers.iter().any(|server| server.url == url);
        if is_known || !self.is_running() {
            return Ok(false);
        }
        let shown = Arc::from(url.to_string());
        let listed = BTreeSet::new();
        let server = Lookupd { address: address.into(), shown, url, call: None, listed };
        self.lookups.servers.push(server);
        self.ask(self.lookups.servers.len() - 1, None, out);
        if self.lookups.round_at.is_none() {
            self.lookups.asked_at = now.instant;
            self.plan_round(now);
        }
        Ok(true)
    }

    /// Asks an nsqlookupd no more; false if it is not known. What only it named is forgotten as if nobody
    /// named it any more; without any nsqlookupd everything stays as it is.
    pub fn remove_nsqlookupd(&mut self, address: &str) -> bool {
        let count = self.lookups.servers.len();
        self.lookups.servers.retain(|server| server.address != address);
        if self.lookups.servers.is_empty() {
            self.lookups.stop();
        }
        self.lookups.servers.len() < count
    }

    /// An nsqlookupd answered, or did not.
    pub fn handle_called(
        &mut self,
        id: CallId,
        result: CallResult,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let is_asked = |server: &Lookupd| server.call.as_ref().is_some_and(|asked| asked.id == id);
        let Some(at) = self.lookups.servers.iter().position(is_asked) else {
            return;
        };
        let server = &mut self.lookups.servers[at];
        let asked = server.call.take();
        let shown = server.shown.clone();
        let listed = match &result {
            Ok(answer) => {
                if let Some(url) = asked.and_then(|asked| asked.url.over_tls(answer)) {
                    return self.ask(at, Some(url), out);
                }
                addresses(answer)
            }
            Err(failure) => Err(failure.to_string()),
        };
        match listed {
            Ok(Listed { addresses, mut ignored }) => {
                server.listed = addresses;
                let missing = |nsqd: &&Arc<str>| !self.nsqds.contains_key(*nsqd);
                let new: Vec<Arc<str>> = server.listed.iter().filter(missing).cloned().collect();
                for nsqd in new {
                    if self.nsqds.len() >= NSQDS_MAX {
                        ignored += 1;
                        continue;
                    }
                    let entry = self.new_nsqd(false);
                    self.nsqds.insert(nsqd.clone(), entry);
                    self.dial(&nsqd, now, out);
                }
                if ignored > 0 {
                    let event = ConsumerEvent::LookupIgnored { lookupd: shown, count: ignored };
                    out.events.push(event);
                }
            }
            Err(reason) => {
                out.events.push(ConsumerEvent::LookupFailed { lookupd: shown, reason });
            }
        }
        self.end_round(now, out);
        self.settle(now, out);
    }

    /// Begins a round if one is due.
    pub(super) fn handle_lookup_timeout(&mut self, now: Now, out: &mut ConsumerActions) {
        if self.lookups.poll_timeout().is_none_or(|at| at > now.instant) {
            return;
        }
        self.lookups.asked_at = now.instant;
        self.lookups.soon_at = None;
        if self.lookups.round_at.is_some_and(|at| at <= now.instant) {
            self.lookups.is_round = true;
            self.plan_round(now);
        }
        for at in 0..self.lookups.servers.len() {
            if self.lookups.servers[at].call.is_none() {
                self.ask(at, None, out);
            }
        }
    }

    fn plan_round(&mut self, now: Now) {
        let interval = self.options.lookupd_poll_interval;
        let jitter = interval * u32::from(self.options.lookupd_poll_jitter_percent) / 100;
        let nanos = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        let early = Duration::from_nanos(self.lookups.rng.below(nanos));
        // At least the shortest interval, so that a jitter of 1 is no busy loop.
        let wait = (interval - early).max(POLL_LEAST);
        self.lookups.round_at = Some(now.instant + wait);
    }

    fn ask(&mut self, at: usize, url: Option<Url>, out: &mut ConsumerActions) {
        let timeout = self.options.lookupd_poll_timeout;
        let server = &mut self.lookups.servers[at];
        let id = CallId(self.lookups.calls);
        self.lookups.calls += 1;
        let url = url.unwrap_or_else(|| server.url.clone());
        server.call = Some(Asked { id, url: url.clone() });
        let call = Call {
            url,
            body: None,
            connect_timeout: timeout,
            timeout,
            answer_len_max: LOOKUP_ANSWER_LEN_MAX,
        };
        out.net.calls.push((id, call));
    }

    /// When all have answered: forgets whom nobody has named for long enough.
    fn end_round(&mut self, now: Now, out: &mut ConsumerActions) {
        let lookups = &mut self.lookups;
        if !lookups.is_round || lookups.servers.iter().any(|server| server.call.is_some()) {
            return;
        }
        lookups.is_round = false;
        let rounds = self.options.lookupd_forget_rounds;
        let mut gone = Vec::new();
        for (address, nsqd) in &mut self.nsqds {
            if nsqd.is_given || lookups.lists(address) {
                nsqd.missed = 0;
                continue;
            }
            nsqd.missed = nsqd.missed.saturating_add(1);
            if rounds > 0 && nsqd.missed >= rounds {
                gone.push(address.clone());
            }
        }
        for address in gone {
            self.forget(&address, now, out);
        }
    }
}

/// Where to ask about `topic` (clients.md section 3.7, rule a).
fn lookup_url(address: &str, topic: &TopicName) -> Result<Url, UrlError> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if tail.starts_with('/') { "" } else { "/lookup" };
    let join = match tail.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let mut text = alloc::format!("{scheme}://{authority}{path}{tail}{join}topic=");
    push_form_value(&mut text, topic.as_str().as_bytes());
    let url = Url::parse(&text)?;
    if !url.authority().ends_with(&alloc::format!(":{}", url.port())) {
        return Err(UrlError::Port);
    }
    Ok(url)
}

/// The nsqds of an answer.
#[derive(Debug, Default)]
struct Listed {
    addresses: BTreeSet<Arc<str>>,
    /// How many were left out.
    ignored: usize,
}

#[derive(Default)]
struct Answer {
    producers: Option<Vec<Option<Object<Peer>>>>,
    /// The form of nsqlookupd before 1.0.
    data: Option<Object<Data>>,
    /// The same form: a status other than that of HTTP.
    status_code: i64,
    /// Why not, in the old form and in the new one.
    status_txt: String,
    message: String,
}

#[derive(Default)]
struct Data {
    producers: Option<Vec<Option<Object<Peer>>>>,
}

#[derive(Default)]
struct Peer {
    broadcast_address: String,
    /// What nsqds before 0.2.22 had instead.
    address: String,
    tcp_port: i64,
}

impl Members for Answer {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "producers" => take_list(&mut self.producers, map),
            "data" => json::set(&mut self.data, map),
            "status_code" => json::set(&mut self.status_code, map),
            "status_txt" => json::set(&mut self.status_txt, map),
            "message" => json::set(&mut self.message, map),
            _ => json::skip(map),
        }
    }
}

impl Members for Data {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "producers" => take_list(&mut self.producers, map),
            _ => json::skip(map),
        }
    }
}

/// A list that is `null` is an empty one, and not the same as none.
fn take_list<'de, A: MapAccess<'de>>(
    list: &mut Option<Vec<Option<Object<Peer>>>>,
    map: &mut A,
) -> Result<(), A::Error> {
    let mut all = Vec::new();
    json::set(&mut all, map)?;
    *list = Some(all);
    Ok(())
}

impl Members for Peer {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "broadcast_address" => json::set(&mut self.broadcast_address, map),
            "address" => json::set(&mut self.address, map),
            "tcp_port" => json::set(&mut self.tcp_port, map),
            _ => json::skip(map),
        }
    }
}

/// Reads an answer of either form; the error says what is wrong.
fn addresses(answer: &CallAnswer) -> Result<Listed, String> {
    let failed = || {
        let start = answer.body.get(..TEXT_LEN_MAX).unwrap_or(&answer.body);
        alloc::format!("got response {} {:?}", answer.status, readable(start))
    };
    let read = json::decode::<Answer>(&answer.body);
    if let Ok(read) = &read {
        let is_legacy_error = read.status_code != 0 && read.status_code != 200;
        let is_error = answer.status != 200 || is_legacy_error;
        if is_error && [&read.message, &read.status_txt].into_iter().any(|text| text == NOT_FOUND) {
            return Ok(Listed::default());
        }
        if is_legacy_error {
            return Err(failed());
        }
    }
    if answer.status != 200 {
        return Err(failed());
    }
    // The text may quote the answer.
    let read = read.map_err(|why| why.chars().take(TEXT_LEN_MAX).collect::<String>())?;
    let of_data = read.data.and_then(|Object(data)| data.producers);
    let producers = read.producers.or(of_data).ok_or("the answer has no list of producers")?;
    let mut listed = Listed::default();
    for Object(peer) in producers.into_iter().flatten() {
        match peer.into_address() {
            Some(address) if listed.addresses.len() < NSQDS_MAX => {
                listed.addresses.insert(address);
            }
            _ => listed.ignored += 1,
        }
    }
    Ok(listed)
}

impl Peer {
    /// `host:port`, with brackets around what has colons itself.
    fn into_address(self) -> Option<Arc<str>> {
        let host =
            if self.broadcast_address.is_empty() { self.address } else { self.broadcast_address };
        let port = u16::try_from(self.tcp_port).ok().filter(|port| *port > 0)?;
        let is_clean = |host: &str| host.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.len() > HOST_LEN_MAX || !is_clean(&host) {
            return None;
        }
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        let (open, close) = if is_bare_v6 { ("[", "]") } else { ("", "") };
        Some(alloc::format!("{open}{host}{close}:{port}").into())
    }
}

/// The answer about a topic that nobody has.
const NOT_FOUND: &str = "TOPIC_NOT_FOUND";

/// The longest that a host's name can be.
const HOST_LEN_MAX: usize = 255;

/// How much of a refusal gets into the event, in bytes.
const TEXT_LEN_MAX: usize = 200;

/// The shortest interval that `check` lets pass.
const POLL_LEAST: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn url(address: &str) -> Result<String, UrlError> {
        let topic = TopicName::new("tp#ephemeral").unwrap();
        let url = lookup_url(address, &topic)?;
        let scheme = if url.is_https() { "https" } else { "http" };
        Ok(alloc::format!("{scheme}://{}{}", url.authority(), url.target()))
    }

    #[test]
    fn urls_of_the_reference() {
        for (address, expected) in [
            ("h:4161", "http://h:4161/lookup?topic=tp%23ephemeral"),
            ("[::1]:4161", "http://[::1]:4161/lookup?topic=tp%23ephemeral"),
            ("https://h:1/", "https://h:1/?topic=tp%23ephemeral"),
            ("http://h:1?", "http://h:1/lookup?topic=tp%23ephemeral"),
            ("http://h:1/x/y?a=b&topic=zz#f", "http://h:1/x/y?a=b&topic=zz&topic=tp%23ephemeral"),
        ] {
            assert_eq!(url(address).as_deref(), Ok(expected), "{address}");
        }
        for (address, error) in [
            ("h", UrlError::Port),
            ("https://h/lookup", UrlError::Port),
            ("", UrlError::Host),
            ("ftp://h:1", UrlError::Scheme),
            ("h:x", UrlError::Port),
            ("h\r\n:1", UrlError::Character),
        ] {
            assert_eq!(url(address), Err(error), "{address:?}");
        }
    }

    fn read(status: u16, body: &str) -> Result<(Vec<String>, usize), String> {
        let answer = CallAnswer { status, body: body.as_bytes().to_vec().into() };
        let listed = addresses(&answer)?;
        Ok((listed.addresses.iter().map(ToString::to_string).collect(), listed.ignored))
    }

    #[test]
    fn answers_of_both_forms() {
        let two = r#"{"channels":["c"],"producers":[{"broadcast_address":"b","tcp_port":4150,"x":[]},
            {"broadcast_address":"::1","tcp_port":1},{"broadcast_address":"b","tcp_port":4150},null]}"#;
        let expected = Ok((vec!["[::1]:1".into(), "b:4150".into()], 0));
        assert_eq!(read(200, two), expected);
        let legacy = alloc::format!(r#"{{"status_code":200,"status_txt":"OK","data":{two}}}"#);
        assert_eq!(read(200, &legacy), expected);
        assert_eq!(read(200, r#"{"producers":null}"#), Ok((vec![], 0)));
        let old = r#"{"producers":[{"address":"[::2]","tcp_port":5}]}"#;
        assert_eq!(read(200, old), Ok((vec!["[::2]:5".into()], 0)));
        for (status, body) in [
            (404, r#"{"message":"TOPIC_NOT_FOUND"}"#),
            (404, r#"{"status_code":404,"status_txt":"TOPIC_NOT_FOUND","data":null}"#),
            (200, r#"{"status_code":404,"status_txt":"TOPIC_NOT_FOUND","data":null}"#),
        ] {
            assert_eq!(read(status, body), Ok((vec![], 0)), "{body}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_and_bad_addresses_are_left_out() {
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, "[]"),
            (200, r#"{"producers":3}"#),
            (200, r#"{"producers":[3]}"#),
            (200, r#"{"producers":[{"broadcast_address":"b","tcp_port":"4150"}]}"#),
            (200, r#"{"status_code":500,"status_txt":"INVALID_ARG_TOPIC","producers":[]}"#),
            (404, "404 page not found"),
            (404, r#"{"message":"NOT_FOUND"}"#),
            (500, r#"{"producers":[]}"#),
        ] {
            assert!(read(status, body).is_err(), "{body}");
        }
        let bad = r#"{"producers":[{"broadcast_address":"","tcp_port":1},
            {"broadcast_address":"b","tcp_port":0},{"broadcast_address":"b","tcp_port":65536},
            {"broadcast_address":"b\nc","tcp_port":1},{"tcp_port":1}]}"#;
        assert_eq!(read(200, bad), Ok((vec![], 5)));
        let many: Vec<String> = (0..=NSQDS_MAX)
            .map(|at| alloc::format!(r#"{{"broadcast_address":"h{at}","tcp_port":1}}"#))
            .collect();
        let many = alloc::format!(r#"{{"producers":[{}]}}"#, many.join(","));
        assert_eq!(read(200, &many).map(|(all, ignored)| (all.len(), ignored)), Ok((NSQDS_MAX, 1)));
    }
}
