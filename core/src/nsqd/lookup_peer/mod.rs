//! nsqd's connection to one nsqlookupd (nsqd-protocol.md section 18, nsqlookupd-protocol.md section
//! 8).
//!
//! ```text
//!           start                   connected                  info
//! Stopped --------> Dialing ---------------------> Identifying -----> Registered
//!    ^                ^  | 1 s, or refused             | 1 s, or not JSON   | PING every 15 s
//!    | stop           |  v                             v                    | 1 s, E_..., end
//!    any            Waiting <------------------------------------------------+
//! ```
//!
//! A REGISTER that is refused ends nothing: the nsqlookupd has no room for it, or for it now, and
//! keeps the rest. It is tried again, later and later (`Retry`). An `E_…` to PING says that
//! registrations were dropped: then all are tried again.
//!
//! Whenever a connection is new, the machine asks its owner for everything that exists and
//! registers that; changes meanwhile are queued behind it. So a lost command is never repeated:
//! after a failure all is told anew. Where it differs from the reference (nsqlookupd-protocol.md
//! W15): one nsqlookupd does not delay another, a connection that ends is made again at once and
//! not at the next event, failures back off, commands go out without waiting for each other's
//! answers, and an `E_…` answer counts.
//!
//! Limits: [`OUTSTANDING_MAX`], [`QUEUE_ROOM`], [`REFUSED_MAX`], and the answers' length given at
//! construction.

mod event;
mod queue;
mod retry;

pub use event::{LookupPeerEvent, LookupPeerEventKind};
pub use retry::REFUSED_MAX;

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::BytesMut;

use crate::protocol::lookup::{
    self, LookupdInfo, MAGIC, PeerInfo, Registration, ReplyDecoder, encode_identify,
};
use crate::rng::Rng;
use crate::time::{Instant, Now};

use queue::{Change, Queue};
use retry::Retry;

/// What a [`LookupPeer`] asks of its owner. Infallible, and never calls the machine back.
pub trait PeerOutput {
    /// Connect to [`LookupPeer::address`]; [`LookupPeer::handle_connected`] or
    /// [`LookupPeer::handle_closed`] follows.
    fn dial(&mut self);
    /// Send these bytes on the connection, behind what was sent before.
    fn send(&mut self, bytes: &[u8]);
    /// Close the connection, or give up making it, and forget what was not sent. Nothing that
    /// happens to it later, not even its end, is told to the machine.
    fn close(&mut self);
    /// Append everything that exists now: a topic without channels as itself, of any other topic
    /// its channels, and nothing else of it.
    fn registrations(&mut self, all: &mut Vec<Registration>);
    /// Write a line into the log.
    fn event(&mut self, event: LookupPeerEvent);
}

/// The connection to one nsqlookupd, in whatever state it is.
#[derive(Debug)]
pub struct LookupPeer {
    address: String,
    /// The magic and IDENTIFY.
    hello: Vec<u8>,
    replies: ReplyDecoder,
    rng: Rng,
    state: State,
    /// From the latest answer to IDENTIFY; stays when the connection ends.
    info: Option<LookupdInfo>,
    /// Failures since the last sign of health, which is an answered PING.
    failures: u32,
    /// Since its making.
    refused: u64,
}

#[derive(Debug)]
enum State {
    Stopped,
    Waiting { until: Instant },
    Dialing { until: Instant },
    Identifying { until: Instant },
    Registered(Session),
}

#[derive(Debug)]
struct Session {
    queue: Queue,
    /// Commands that have to be answered, in order.
    outstanding: VecDeque<PeerCommand>,
    /// When the oldest of them has to be answered.
    answer_until: Instant,
    ping_at: Instant,
    /// What was refused.
    retry: Retry,
}

/// What was going on when something failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerCommand {
    /// Making the connection.
    Connect,
    /// IDENTIFY.
    Identify,
    /// Nothing: the connection ended by itself.
    Idle,
    /// PING.
    Ping,
    /// REGISTER.
    Register(Registration),
    /// UNREGISTER.
    Unregister(Registration),
}

impl LookupPeer {
    /// A connection that is not made yet, to the nsqlookupd at `address` (`host:port`), for the
    /// nsqd that `info` describes. Answers are at most `reply_len_max` bytes (nsqd's
    /// `max-body-size`).
    pub fn new(address: String, info: &PeerInfo, reply_len_max: usize, seed: u64) -> Self {
        let mut hello = MAGIC.to_vec();
        encode_identify(info.to_json().as_bytes(), &mut hello);
        Self {
            address,
            hello,
            replies: ReplyDecoder::new(reply_len_max),
            rng: Rng::new(seed),
            state: State::Stopped,
            info: None,
            failures: 0,
            refused: 0,
        }
    }

    /// How many REGISTER commands the nsqlookupd has refused so far.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The nsqlookupd, as the configuration names it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the nsqlookupd told about itself last, also while it cannot be reached. At
    /// its [`LookupdInfo::http_address`] it is asked for the channels of a new topic.
    pub const fn info(&self) -> Option<&LookupdInfo> {
        self.info.as_ref()
    }

    /// Whether the nsqlookupd is being reached for the first time, and it is not known yet whether
    /// it can be.
    pub const fn is_undecided(&self) -> bool {
        let tries = matches!(self.state, State::Dialing { .. } | State::Identifying { .. });
        tries && self.info.is_none() && self.failures == 0
    }

    /// Whether the nsqlookupd has answered IDENTIFY on the present connection.
    pub const fn is_registered(&self) -> bool {
        matches!(self.state, State::Registered(_))
    }

    /// Starts to keep up the connection. Only the first call counts.
    pub fn start(&mut self, now: Now, out: &mut impl PeerOutput) {
        if matches!(self.state, State::Stopped) {
            self.event(LookupPeerEventKind::Added, out);
            self.dial(now, out);
        }
    }

    /// Ends the connection, without a word to the nsqlookupd: its end says everything.
    pub fn stop(&mut self, out: &mut impl PeerOutput) {
        match core::mem::replace(&mut self.state, State::Stopped) {
            State::Stopped => return,
            State::Waiting { .. } => {}
            State::Dialing { .. } | State::Identifying { .. } | State::Registered(_) => out.close(),
        }
        self.event(LookupPeerEventKind::Removed, out);
    }

    /// The connection that was asked for is made.
    pub fn handle_connected(&mut self, now: Now, out: &mut impl PeerOutput) {
        if matches!(self.state, State::Dialing { .. }) {
            out.send(&self.hello);
            self.state = State::Identifying { until: now.instant + ANSWER_TIMEOUT };
        }
    }

    /// Takes bytes of the nsqlookupd; what is left in `input` waits there for more.
    pub fn handle_input(&mut self, input: &mut BytesMut, now: Now, out: &mut impl PeerOutput) {
        loop {
            match self.state {
                State::Identifying { .. } | State::Registered(_) => {}
                State::Stopped | State::Waiting { .. } | State::Dialing { .. } => {
                    return input.clear();
                }
            }
            match self.replies.next(input) {
                Ok(Some(text)) => self.reply(&text, now, out),
                Ok(None) => break,
                Err(error) => self.fail(&error.to_string(), now, out),
            }
        }
        self.flush(now, out);
    }

    /// The connection could not be made, or has ended: `reason` says why, for the log.
    pub fn handle_closed(&mut self, reason: &str, now: Now, out: &mut impl PeerOutput) {
        let was_registered = match self.state {
            State::Stopped | State::Waiting { .. } => return,
            State::Dialing { .. } | State::Identifying { .. } => false,
            State::Registered(_) => true,
        };
        self.event(LookupPeerEventKind::Failed(self.command(), reason.into()), out);
        if was_registered && self.failures == 0 {
            // A healthy one that has gone, most likely a restart. One that goes again before it has
            // answered a PING has to wait.
            self.failures = 1;
            self.dial(now, out);
        } else {
            self.back_off(now);
        }
    }

    /// A topic, or a channel of a topic, was made.
    pub fn register(&mut self, what: Registration, now: Now, out: &mut impl PeerOutput) {
        // Without a connection there is nothing to do: the next one begins with everything.
        if let State::Registered(session) = &mut self.state {
            let result = session.queue.register(what);
            self.flush_or_start_over(result, now, out);
        }
    }

    /// A topic with its channels, or a channel of a topic, was deleted.
    pub fn unregister(&mut self, what: Registration, now: Now, out: &mut impl PeerOutput) {
        if let State::Registered(session) = &mut self.state {
            let result = session.queue.unregister(what);
            self.flush_or_start_over(result, now, out);
        }
    }

    /// Does what is due. Calling it early or twice changes nothing.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl PeerOutput) {
        match &mut self.state {
            State::Waiting { until } if *until <= now.instant => self.dial(now, out),
            State::Dialing { until } | State::Identifying { until } if *until <= now.instant => {
                self.fail("i/o timeout", now, out);
            }
            State::Registered(session) => {
                if !session.outstanding.is_empty() && session.answer_until <= now.instant {
                    return self.fail("i/o timeout", now, out);
                }
                if session.ping_at <= now.instant {
                    session.ping_at = now.instant + PING_INTERVAL;
                    session.sent(PeerCommand::Ping, now);
                    self.event(LookupPeerEventKind::Heartbeat, out);
                    out.send(b"PING\n");
                }
                self.try_again(now, out);
            }
            State::Stopped
            | State::Waiting { .. }
            | State::Dialing { .. }
            | State::Identifying { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do at the earliest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Stopped => None,
            State::Waiting { until } | State::Dialing { until } | State::Identifying { until } => {
                Some(*until)
            }
            State::Registered(session) => {
                let answer_until =
                    (!session.outstanding.is_empty()).then_some(session.answer_until);
                let rest = [answer_until, session.retry.due()].into_iter().flatten();
                Some(rest.fold(session.ping_at, Instant::min))
            }
        }
    }

    fn dial(&mut self, now: Now, out: &mut impl PeerOutput) {
        self.event(LookupPeerEventKind::Connecting, out);
        self.state = State::Dialing { until: now.instant + DIAL_TIMEOUT };
        out.dial();
    }

    fn reply(&mut self, text: &[u8], now: Now, out: &mut impl PeerOutput) {
        let State::Registered(session) = &mut self.state else {
            return self.identified(text, now, out);
        };
        let command = session.outstanding.pop_front();
        session.answer_until = now.instant + ANSWER_TIMEOUT;
        match (command, text.starts_with(b"E_")) {
            (Some(PeerCommand::Ping), false) => {
                self.failures = 0;
                if session.queue.is_empty() {
                    session.retry.calm();
                }
            }
            (Some(_), false) => {}
            (Some(PeerCommand::Register(what)), true) => {
                self.refused = self.refused.saturating_add(1);
                let is_first = session.retry.note(what.topic, now, &mut self.rng);
                self.retry_later(is_first, PeerCommand::Register(what), text, now, out);
            }
            (Some(PeerCommand::Ping), true) => {
                let is_first = session.retry.note_all(now, &mut self.rng);
                self.retry_later(is_first, PeerCommand::Ping, text, now, out);
            }
            (Some(command), true) => {
                session.outstanding.push_front(command);
                self.fail(&String::from_utf8_lossy(text), now, out);
            }
            (None, true) => self.fail(&String::from_utf8_lossy(text), now, out),
            (None, false) => self.fail("unexpected response", now, out),
        }
    }

    /// Says that something is tried again later, if it is the first of those that are.
    fn retry_later(
        &self,
        is_first: bool,
        command: PeerCommand,
        text: &[u8],
        now: Now,
        out: &mut impl PeerOutput,
    ) {
        let State::Registered(session) = &self.state else { return };
        if let (true, Some(due)) = (is_first, session.retry.due()) {
            let reason = String::from_utf8_lossy(text).chars().take(REASON_LEN_MAX).collect();
            let wait = due.saturating_since(now.instant);
            self.event(LookupPeerEventKind::Refused { command, reason, wait }, out);
        }
    }

    /// Queues what was refused once more, as far as it still exists, if it is time.
    fn try_again(&mut self, now: Now, out: &mut impl PeerOutput) {
        let State::Registered(session) = &mut self.state else { return };
        let mut all = Vec::new();
        if session.retry.is_due(now.instant) {
            out.registrations(&mut all);
            session.retry.begin(&mut all);
            session.queue.register_again(all, QUEUE_ROOM);
            self.flush(now, out);
        }
    }

    fn identified(&mut self, text: &[u8], now: Now, out: &mut impl PeerOutput) {
        let Ok(info) = LookupdInfo::decode(text) else {
            return self.fail(&String::from_utf8_lossy(text), now, out);
        };
        self.event(LookupPeerEventKind::Identified(info.clone()), out);
        if info.broadcast_address.is_empty() {
            self.event(LookupPeerEventKind::NoBroadcastAddress, out);
        }
        self.info = Some(info);
        let mut all = Vec::new();
        out.registrations(&mut all);
        self.state = State::Registered(Session {
            queue: Queue::of_all(all, QUEUE_ROOM),
            outstanding: VecDeque::new(),
            answer_until: now.instant,
            ping_at: now.instant + PING_INTERVAL,
            retry: Retry::default(),
        });
    }

    fn flush_or_start_over(
        &mut self,
        result: Result<(), queue::Full>,
        now: Now,
        out: &mut impl PeerOutput,
    ) {
        match result {
            Ok(()) => self.flush(now, out),
            Err(queue::Full) => self.fail("too many changes wait for an answer", now, out),
        }
    }

    /// Sends what waits, as far as there is room for its answers.
    fn flush(&mut self, now: Now, out: &mut impl PeerOutput) {
        let mut bytes = Vec::new();
        while let State::Registered(session) = &mut self.state {
            if session.outstanding.len() >= OUTSTANDING_MAX {
                break;
            }
            let Some(change) = session.queue.pop() else { break };
            match change {
                Change::Register(what) => {
                    session.sent(PeerCommand::Register(what), now);
                    lookup::LookupCommand::Register(what).encode(&mut bytes);
                    self.event(LookupPeerEventKind::Registered(what), out);
                }
                Change::Unregister(what) => {
                    session.sent(PeerCommand::Unregister(what), now);
                    lookup::LookupCommand::Unregister(what).encode(&mut bytes);
                    self.event(LookupPeerEventKind::Unregistered(what), out);
                }
            }
        }
        if !bytes.is_empty() {
            out.send(&bytes);
        }
    }

    /// Gives this connection up.
    fn fail(&mut self, reason: &str, now: Now, out: &mut impl PeerOutput) {
        let reason = reason.chars().take(REASON_LEN_MAX).collect();
        self.event(LookupPeerEventKind::Failed(self.command(), reason), out);
        out.close();
        self.back_off(now);
    }

    /// Waits longer after each failure in a row, and differently for each nsqd, so that a restarted
    /// nsqlookupd does not meet all of them at once.
    fn back_off(&mut self, now: Now) {
        let span = BACK_OFF_MIN * 2_u32.saturating_pow(self.failures.saturating_add(1).min(8));
        let spread = span.min(BACK_OFF_MAX) - BACK_OFF_MIN;
        let extra = self.rng.below(spread.as_nanos() as u64);
        self.failures = self.failures.saturating_add(1);
        let wait = BACK_OFF_MIN + Duration::from_nanos(extra);
        self.state = State::Waiting { until: now.instant + wait };
    }

    /// What the nsqlookupd has to answer next.
    fn command(&self) -> PeerCommand {
        match &self.state {
            State::Stopped | State::Waiting { .. } | State::Dialing { .. } => PeerCommand::Connect,
            State::Identifying { .. } => PeerCommand::Identify,
            State::Registered(session) => {
                session.outstanding.front().copied().unwrap_or(PeerCommand::Idle)
            }
        }
    }

    fn event(&self, kind: LookupPeerEventKind, out: &mut impl PeerOutput) {
        out.event(LookupPeerEvent { address: self.address.clone(), kind });
    }
}

impl Session {
    fn sent(&mut self, command: PeerCommand, now: Now) {
        // Only the oldest command's answer is waited for, however many follow it.
        if self.outstanding.is_empty() {
            self.answer_until = now.instant + ANSWER_TIMEOUT;
        }
        self.outstanding.push_back(command);
    }
}

/// How long a connection may take to be made.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer may take once the ones before it have come.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The time between PINGs.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// How many commands wait for their answers at most, PINGs aside; more are queued. A full window of
/// longest lines is 35 KiB.
pub const OUTSTANDING_MAX: usize = 256;

/// How many changes are queued at most, on top of as many as the full registration of the
/// connection had. One more ends the connection, and the next one begins with a full registration,
/// so that nothing is lost: 10,000 changes are 1.3 MB, and mean that answers stopped keeping up.
pub const QUEUE_ROOM: usize = 10_000;

/// The shortest wait after a failure.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);

/// How many characters of an answer are shown in the log.
const REASON_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests;
