//! The channels that a new topic has elsewhere (nsqd-protocol.md section 18.5).
//!
//! A new topic asks the nsqlookupds over HTTP which channels it has on other nsqds, and makes them
//! before its first message goes out, so that none of them misses it.
//!
//! ```text
//!           an nsqlookupd is still being reached   all have answered, or failed, or are late
//!   new ──────────► Waiting ──────────► Asking ──────────────────► Making ──────────────► flows
//!       └─────────────────────────────────▲
//! ```
//!
//! Who makes the topic is answered when it has its channels, as with the reference: what that
//! client does next, with an nsqlookupd say, comes after the question. But not later than after
//! [`OPENING_WAIT`]: an nsqlookupd that is slow or gone must not keep publishers waiting for long
//! (weakness W8). From then on publishes are accepted, and the topic holds their messages back.
//!
//! After its start nsqd does not yet know where its nsqlookupds are reached over HTTP. A topic that
//! comes into being in these first moments waits until the first attempt with each of them has
//! succeeded or failed. One that cannot be reached is not waited for any more.
//!
//! The channels are made in slices, so that a list of thousands holds up nobody else on the shard.
//!
//! Limits: [`LOOKUPD_WAIT`] for the waiting, `--http-client-request-timeout` for the asking, and
//! [`CHANNELS_ANSWER_LEN_MAX`]. What is held counts to the topic's backlog, with its limit.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::de::MapAccess;

use super::Shard;
use super::calls::Purpose;
use super::tables::TopicEntry;
use crate::arena::{ConnId, TopicId};
use crate::http::call::{Call, CallFailure, CallResult, Url, push_form_value};
use crate::name::{ChannelName, TopicName};
use crate::nsqd::actions::Actions;
use crate::nsqd::admin::AdminReply;
use crate::nsqd::config::Config;
use crate::nsqd::event::Event;
use crate::nsqd::ids::{ReplyToken, ShardId};
use crate::nsqd::lookup_peer::{ANSWER_TIMEOUT, DIAL_TIMEOUT};
use crate::nsqd::publish::TooMany;
use crate::nsqd::shard_message::Lookupds;
use crate::nsqd::topic::Stage;
use crate::protocol::json::{self, Members};
use crate::time::{Instant, Now};

/// How long a new topic waits at most for an nsqlookupd that is being reached for the first time:
/// as long as such an attempt can take, and a moment for the word to get from one shard to another.
pub const LOOKUPD_WAIT: Duration = DIAL_TIMEOUT.saturating_add(ANSWER_TIMEOUT.saturating_mul(2));

/// How long whoever makes a topic, or publishes to a new one, waits at most for its channels.
pub const OPENING_WAIT: Duration = Duration::from_secs(1);

/// How long an nsqlookupd's list of channels may be, in bytes: 15,000 of the longest names. A
/// longer one is a failure.
pub const CHANNELS_ANSWER_LEN_MAX: usize = 1024 * 1024;

/// Whom new topics ask.
#[derive(Debug)]
pub(super) struct Lookups {
    /// Where the nsqlookupds are, as the clerk says.
    lookupds: Lookupds,
    /// New topics that wait for that.
    waiting: Vec<TopicId>,
}

impl Lookups {
    /// Before the clerk has said anything.
    pub(super) fn new(config: &Config) -> Self {
        let undecided = config.lookupd_tcp_addresses.len();
        Self { lookupds: Lookupds { undecided, ..Lookupds::default() }, waiting: Vec::new() }
    }
}

/// Where a new topic's question has got to.
#[derive(Debug)]
pub(super) struct Precreate {
    /// When the topic goes on without what is still missing.
    until: Instant,
    /// Until when publishes, and whoever made the topic, are kept waiting; `None` when they are not
    /// any more.
    opens: Option<Instant>,
    creator: Option<Creator>,
    step: Step,
    asked: Vec<Asked>,
    missing: usize,
    found: BTreeSet<ChannelName>,
    refused: Option<TooMany>,
    failures: String,
}

/// What a new topic is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// It waits for nsqlookupds that are being reached.
    Waiting,
    /// They are asked.
    Asking,
    /// Its channels are being made: no answer counts any more.
    Making,
}

/// Who made a topic otherwise than by a publish, and waits for the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Creator {
    /// By SUB.
    Client(ConnId),
    /// Over HTTP.
    Admin(ShardId, ReplyToken),
}

/// An nsqlookupd that is asked.
#[derive(Debug)]
struct Asked {
    address: String,
    /// Set when it wants to be asked over TLS.
    url: Option<Url>,
}

/// The answer's JSON.
#[derive(Default)]
struct ChannelsJson {
    channels: Vec<Option<String>>,
}

impl Members for ChannelsJson {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "channels" => json::set(&mut self.channels, map),
            _ => json::skip(map),
        }
    }
}

/// What an nsqlookupd's answer means for a topic that waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// The same nsqlookupd is to be asked once more.
    Again,
    /// Others have not answered.
    Waits,
    /// It was the last one.
    Complete,
}

impl Precreate {
    /// Nobody is asked yet. `opens` as in the field.
    const fn new(until: Instant, opens: Option<Instant>) -> Self {
        Self {
            until,
            opens,
            creator: None,
            step: Step::Waiting,
            asked: Vec::new(),
            missing: 0,
            found: BTreeSet::new(),
            refused: None,
            failures: String::new(),
        }
    }

    /// When [`Shard::handle_precreate_timeout`] is next worth a call.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.opens.map_or(self.until, |opens| opens.min(self.until))
    }

    /// Asks those at `addresses`, until `until`.
    fn ask(&mut self, addresses: &[String], until: Instant) {
        let asked = |address: &String| Asked { address: address.clone(), url: None };
        self.step = Step::Asking;
        self.asked = addresses.iter().map(asked).collect();
        self.missing = self.asked.len();
        self.until = until;
    }

    /// The request to one of those that are asked.
    fn call(
        &mut self,
        at: usize,
        topic: &TopicName,
        config: &Config,
    ) -> Option<Result<Call, CallFailure>> {
        let asked = self.asked.get_mut(at)?;
        let url = match asked.url.take() {
            Some(url) => url,
            None => {
                let mut url = alloc::format!("http://{}/channels?topic=", asked.address);
                push_form_value(&mut url, topic.as_bytes());
                match Url::parse(&url) {
                    Ok(url) => url,
                    Err(error) => return Some(Err(CallFailure::Url(error))),
                }
            }
        };
        asked.url = Some(url.clone());
        Some(Ok(Call {
            url,
            body: None,
            authorization: None,
            connect_timeout: config.http_client_connect_timeout,
            timeout: config.http_client_request_timeout,
            answer_len_max: CHANNELS_ANSWER_LEN_MAX,
        }))
    }

    /// One of those that are asked has answered, or failed.
    fn answered(&mut self, at: usize, result: CallResult) -> Progress {
        if self.step != Step::Asking {
            return Progress::Waits;
        }
        let Some(asked) = self.asked.get_mut(at) else { return Progress::Waits };
        let url = asked.url.take();
        match result {
            Ok(answer) if answer.status == 200 => {
                match json::decode::<ChannelsJson>(&answer.body) {
                    Ok(ChannelsJson { channels }) => {
                        let names = channels.into_iter().flatten();
                        let names = names.filter_map(|name| ChannelName::new(name.as_bytes()).ok());
                        // Without a consumer an ephemeral channel would never go.
                        self.found.extend(names.filter(|name| !name.is_ephemeral()));
                    }
                    Err(error) => self.failed(at, &error.to_string()),
                }
            }
            Ok(answer) => {
                if let Some(url) = url.and_then(|url| url.over_tls(&answer)) {
                    asked.url = Some(url);
                    return Progress::Again;
                }
                self.failed(at, &alloc::format!("got response {}", answer.status));
            }
            Err(failure) => self.failed(at, &failure.to_string()),
        }
        self.missing -= 1;
        if self.missing == 0 { Progress::Complete } else { Progress::Waits }
    }

    fn failed(&mut self, at: usize, why: &str) {
        if !self.failures.is_empty() {
            self.failures.push_str("; ");
        }
        if let Some(asked) = self.asked.get(at) {
            self.failures.push_str(&asked.address);
            self.failures.push_str(" - ");
        }
        self.failures
            .extend(why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_LEN_MAX));
    }
}

impl Shard {
    /// Holds a new topic's publishes back until it has its channels, if there is anybody to ask.
    pub(super) fn begin_precreate(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        if !self.life.is_running() {
            return;
        }
        if self.lookups.lookupds.known.is_empty() && self.lookups.lookupds.undecided == 0 {
            if self.lookups.lookupds.unreached > 0 {
                self.nobody_asked(id, out);
            }
            return;
        }
        let Some(entry) = self.topics.get_mut(id) else { return };
        // The reference does not ask yet in these first moments, and answers at once.
        let is_waiting = self.lookups.lookupds.undecided > 0;
        entry.topic.set_stage(if is_waiting { Stage::Collecting } else { Stage::Opening });
        let opens = (!is_waiting).then(|| now.instant + OPENING_WAIT);
        entry.precreate = Some(Box::new(Precreate::new(now.instant + LOOKUPD_WAIT, opens)));
        if is_waiting {
            self.lookups.waiting.push(id);
        } else {
            self.ask_for_channels(id, now, out);
        }
        self.arm_topic(id);
    }

    /// Takes note of where the nsqlookupds are. Topics that waited for that go on.
    pub(super) fn set_known_lookupds(&mut self, lookupds: Lookupds, now: Now, out: &mut Actions) {
        self.lookups.lookupds = lookupds;
        if self.lookups.lookupds.undecided == 0 {
            for id in core::mem::take(&mut self.lookups.waiting) {
                self.ask_for_channels(id, now, out);
            }
        }
    }

    fn ask_for_channels(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(precreate) = entry.precreate.as_mut().filter(|it| it.step == Step::Waiting) else {
            return;
        };
        let until = now.instant + self.config.http_client_request_timeout;
        precreate.ask(&self.lookups.lookupds.known, until);
        if precreate.missing == 0 {
            self.nobody_asked(id, out);
            return self.end_precreate(id, now, out);
        }
        for at in 0..precreate.missing {
            self.calls.push(Purpose::Channels(id, at));
        }
        self.arm_topic(id);
    }

    fn nobody_asked(&self, id: TopicId, out: &mut Actions) {
        if let Some(entry) = self.topics.get(id) {
            out.events.push(Event::NobodyAsked(*entry.topic.name()));
        }
    }

    /// The request to one of the nsqlookupds.
    pub(super) fn channels_call(
        &mut self,
        id: TopicId,
        at: usize,
        out: &mut Actions,
    ) -> Option<Result<Call, CallFailure>> {
        let TopicEntry { topic, precreate, .. } = self.topics.get_mut(id)?;
        let call = precreate.as_mut()?.call(at, topic.name(), &self.config)?;
        if let Ok(call) = &call {
            out.events.push(Event::LookupAsked(call.url.to_string()));
        }
        Some(call)
    }

    /// An nsqlookupd's answer.
    pub(super) fn channels_called(
        &mut self,
        id: TopicId,
        at: usize,
        result: CallResult,
        now: Now,
        out: &mut Actions,
    ) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(precreate) = &mut entry.precreate else { return };
        match precreate.answered(at, result) {
            Progress::Again => self.calls.push(Purpose::Channels(id, at)),
            Progress::Waits => {}
            Progress::Complete => self.end_precreate(id, now, out),
        }
    }

    /// Looks whether a topic has waited long enough.
    pub(super) fn handle_precreate_timeout(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(precreate) = &mut entry.precreate else { return };
        if precreate.opens.is_some_and(|opens| opens <= now.instant) {
            precreate.opens = None;
            let creator = precreate.creator.take();
            entry.topic.set_stage(Stage::Collecting);
            self.answer_creator(creator, out);
        }
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(precreate) = &mut entry.precreate else { return };
        if precreate.until > now.instant {
            return;
        }
        match precreate.step {
            Step::Waiting => {
                self.lookups.waiting.retain(|other| *other != id);
                self.ask_for_channels(id, now, out);
            }
            Step::Asking => {
                let missing = precreate.missing;
                precreate.failed(usize::MAX, &alloc::format!("{missing} did not answer in time"));
                self.end_precreate(id, now, out);
            }
            Step::Making => self.make_channels(id, now, out),
        }
    }

    /// All have answered, or failed, or are late.
    fn end_precreate(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(precreate) = &mut entry.precreate else { return };
        precreate.step = Step::Making;
        if !precreate.failures.is_empty() {
            let failures = core::mem::take(&mut precreate.failures);
            out.events.push(Event::LookupFailed(*entry.topic.name(), failures));
        }
        self.make_channels(id, now, out);
    }

    /// Makes some of the channels that were found, and lets the messages flow when it has made all.
    fn make_channels(&mut self, id: TopicId, now: Now, out: &mut Actions) {
        let Some(entry) = self.topics.get_mut(id) else { return };
        let Some(mut precreate) = entry.precreate.take() else { return };
        for _ in 0..MADE_PER_TURN {
            let Some(name) = precreate.found.pop_first() else { break };
            precreate.refused = self.channel(id, name, now, out).err().or(precreate.refused);
        }
        let Some(entry) = self.topics.get_mut(id) else { return };
        if !precreate.found.is_empty() {
            precreate.until = now.instant + MAKING_PAUSE;
            entry.precreate = Some(precreate);
            return self.arm_topic(id);
        }
        if let Some(why) = precreate.refused {
            out.events.push(Event::LookupFailed(*entry.topic.name(), why.to_string()));
        }
        self.answer_creator(precreate.creator, out);
        self.on_topic(id, now, out, |topic, ids, now, out| {
            topic.set_stage(Stage::Flowing);
            topic.pump(now, ids, out);
        });
    }

    /// Keeps whoever has just made this topic waiting, if there is anything to wait for and nobody
    /// else does.
    pub(super) fn keep_creator(&mut self, id: TopicId, creator: Creator) -> bool {
        let precreate = self.topics.get_mut(id).and_then(|entry| entry.precreate.as_mut());
        let precreate =
            precreate.filter(|precreate| precreate.opens.is_some() && precreate.creator.is_none());
        let Some(precreate) = precreate else { return false };
        precreate.creator = Some(creator);
        true
    }

    /// Whether this is who made the topic and waits.
    pub(super) fn is_kept(&self, id: TopicId, creator: Creator) -> bool {
        let precreate = self.topics.get(id).and_then(|entry| entry.precreate.as_ref());
        precreate.is_some_and(|precreate| precreate.creator == Some(creator))
    }

    /// The topic is about to go, or the shard: it waits for nothing any more.
    pub(super) fn forget_precreate(&mut self, id: TopicId, out: &mut Actions) {
        let precreate = self.topics.get_mut(id).and_then(|entry| entry.precreate.take());
        self.answer_creator(precreate.and_then(|precreate| precreate.creator), out);
    }

    /// Whoever made a topic goes on: it has its channels, they are late, or it is gone.
    fn answer_creator(&mut self, creator: Option<Creator>, out: &mut Actions) {
        match creator {
            Some(Creator::Client(conn)) => self.clients.unsettled.push(conn),
            Some(Creator::Admin(shard, token)) => {
                self.reply_to(shard, token, AdminReply::Done, out);
            }
            None => {}
        }
    }
}

/// How many characters of one nsqlookupd's failure are shown in the log.
const REASON_LEN_MAX: usize = 200;

/// Channels that are made before others have their turns: a fraction of a millisecond.
const MADE_PER_TURN: usize = 256;

/// What lies between two such turns.
const MAKING_PAUSE: Duration = Duration::from_millis(1);
