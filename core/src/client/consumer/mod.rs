//! Consuming one channel of one topic (clients.md part 3).
//!
//! Each nsqd that the program adds, or that an nsqlookupd names, has a connection of its own:
//!
//! ```text
//!   add_nsqd, a lookup                                 stop, remove_nsqd, not named any more
//!          |                                                      |
//!          v                          SUB: OK                     v   CLOSE_WAIT, all answered
//!       dialling --> handshake --> subscribing --> subscribed --> draining ---------> closing --> gone
//!          ^             |             |               |                  or in time
//!          +--- wait <---+-------------+---------------+   lost, refused
//!                                      |
//!                                      +--> given up       refused for good
//! ```
//!
//! - A connection that lived for [`HEALTHY_AFTER`] is dialled again at once, any other after a wait
//!   that grows (see [`Backoff`](super::Backoff)). Messages of the old one do not hold that up:
//!   their answers are [`ConnectionLost`](AnswerError::ConnectionLost).
//! - SUB is a transaction. A refusal that will not change by itself (a bad name, no permission) is
//!   [`GaveUp`](ConsumerEvent::GaveUp), and the nsqd is left alone.
//! - RDY is a window, sent only when it changes. `max_in_flight` is divided among all connections,
//!   equally or, with [`RdyShares::Rate`], half of it after what came lately. With fewer than
//!   connections, RDY goes around, to the one that has waited longest.
//! - What is in flight counts as long as it is, also where RDY has fallen since: nothing is asked
//!   for beyond `max_in_flight`, and what comes unasked for counts as soon as it is here. See below
//!   for what may come on top.
//! - Failures reported with [`requeue`](Consumer::requeue) slow the whole consumer down, or with
//!   [`BackoffScope::Connection`] the nsqd that the message came from: RDY 0 (before the REQ goes
//!   out), a wait, then one message as a test, at the nsqd that is most likely to have one; when
//!   none comes for the length of the wait, at another. Each test that fails doubles the wait, up
//!   to `max_backoff_duration`, and each that succeeds halves it.
//! - A message that is not answered within the server's timeout is let go, with
//!   [`TimedOut`](ConsumerEvent::TimedOut): the server sends it again. With `auto_touch` the
//!   consumer asks for more time itself.
//! - A connection is closed when all that is owed to it was written, which the driver shows by
//!   calling [`swap_transmit`](super::ClientMachine::swap_transmit) until it gives none, or else after
//!   [`FLUSH_TIMEOUT`].
//!
//! More than `max_in_flight` messages may be with the program for a while, in four ways, and in no
//! other as long as servers keep to RDY. go-nsq, which counts per connection, has them all:
//!
//! - RDY has no answer, so what a server sent before it read a smaller count comes on top, at most
//!   as many as that connection's count fell by. It counts in [`ConsumerStats::in_flight`].
//! - A connection that is lost, or that had its time to drain, gives its place back at once, while
//!   handlers may still be at its messages. Their answers are refused, they don't count any more,
//!   and the server sends those messages again. So a handler that outlives its connection is one
//!   more than `max_in_flight`.
//! - The same for a message whose time in flight is over.
//! - A smaller `max_in_flight` takes nothing back, and RDY that is left beside what is in flight
//!   may still be used: as many as before may be there until answers have come.
//!
//! Limits: messages in flight (as above; a server that sends more than twice its RDY count and a
//! few loses its connection, with [`TooManyMessages`](super::ConnectionError::TooManyMessages));
//! the frame size (`max_frame_size`); the nsqds that nsqlookupds name, and their answers (see
//! [`directory`](super::directory)). The nsqds and nsqlookupds that the program adds are its own
//! business.

mod actions;
mod answers;
mod in_flight;
mod link;
mod machine;
mod nsqds;
mod options;
mod rdy;
mod slowdown;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::actions::{Dial, DialId};
use super::directory::{Directory, DirectoryChanges, Question};
use super::options::InvalidOption;
use super::producer::HEALTHY_AFTER;
use crate::address::check_address;
use crate::http::call::UrlError;
use crate::name::{ChannelName, TopicName};
use crate::rng::Rng;
use crate::time::{Instant, Now};

pub use actions::{
    AnswerError, ConnectionStats, ConsumerActions, ConsumerEvent, ConsumerStats, Delivery,
    DeliveryKey,
};
pub use options::{BackoffScope, BackoffStrategy, ConsumerOptions, RdyShares};

use in_flight::InFlight;
use link::{Link, Nsqd, Stage};
use rdy::{Budget, Seat, Timers};
use slowdown::Slowdown;

/// Consumes one channel over connections to any number of nsqds, given or found.
///
/// See the [module's page](self) for its states and promises, and [`crate::client`] for the turn.
#[derive(Debug)]
pub struct Consumer {
    topic: TopicName,
    channel: ChannelName,
    options: ConsumerOptions,
    max_in_flight: u32,
    nsqds: BTreeMap<Arc<str>, Nsqd>,
    links: BTreeMap<DialId, Link>,
    in_flight: InFlight,
    /// With [`BackoffScope::Consumer`].
    slowdown: Slowdown,
    /// When rates are looked at, with [`RdyShares::Rate`]; none while nothing comes.
    measure_at: Option<Instant>,
    directory: Directory,
    /// Kept for its memory.
    changes: DirectoryChanges,
    spread: Spread,
    totals: ConsumerStats,
    dials: u64,
    rng: Rng,
    phase: Phase,
    /// Kept for its memory.
    frames: Vec<link::Incoming>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Running,
    /// At this time what is in flight is requeued.
    Stopping(Instant),
    Stopped,
}

/// What the latest plan of RDY counts depends on.
#[derive(Debug, Default)]
struct Spread {
    /// It is out of date.
    is_dirty: bool,
    /// It is out of date as soon as a message is answered.
    follows_answers: bool,
    /// It is out of date then.
    until: Option<Instant>,
}

impl Consumer {
    /// A consumer that has no nsqd yet, and does nothing before it has one or an nsqlookupd. `seed`
    /// spreads its redials and lookups among those of others.
    ///
    /// # Errors
    /// [`InvalidOption`] if an option is out of its range.
    pub fn new(
        topic: TopicName,
        channel: ChannelName,
        options: ConsumerOptions,
        seed: u64,
    ) -> Result<Self, InvalidOption> {
        options.check()?;
        let rng = Rng::new(seed);
        let question = Question::Lookup(topic);
        let mut directory = Directory::new(question, options.directory(), rng.fork(2).next_u64());
        if let Some(secret) = &options.connection.auth_secret
            && options.lookupd_authorization
        {
            directory.authorize(secret.clone());
        }
        Ok(Self {
            topic,
            channel,
            max_in_flight: options.max_in_flight,
            nsqds: BTreeMap::new(),
            links: BTreeMap::new(),
            in_flight: InFlight::default(),
            slowdown: Slowdown::new(&options, rng.fork(1)),
            measure_at: None,
            directory,
            changes: DirectoryChanges::default(),
            spread: Spread::default(),
            totals: ConsumerStats::default(),
            dials: 0,
            rng: rng.fork(3),
            phase: Phase::Running,
            frames: Vec::new(),
            options,
        })
    }

    /// Consumes from the nsqd at `host:port` too; false if it does already, is stopping, or if
    /// nothing can be dialled there (see [`check_address`]). One that has refused the client for
    /// good is tried again.
    ///
    /// Addresses are told apart by their text.
    pub fn add_nsqd(&mut self, address: &str, now: Now, out: &mut ConsumerActions) -> bool {
        if !self.is_running() || check_address(address).is_err() {
            return false;
        }
        let is_new = match self.nsqds.get_mut(address) {
            Some(nsqd) => {
                nsqd.is_given = true;
                core::mem::take(&mut nsqd.is_given_up)
            }
            None => {
                let nsqd = self.new_nsqd(true);
                self.nsqds.insert(address.into(), nsqd);
                true
            }
        };
        if is_new {
            self.dial(&Arc::from(address), now, out);
        }
        self.settle(now, out);
        is_new
    }

    /// Forgets an nsqd, however it was come by: drains and closes its connection. False if it is
    /// not known. It comes back when it is added again, or vanishes from the nsqlookupds and is
    /// found again.
    pub fn remove_nsqd(&mut self, address: &str, now: Now, out: &mut ConsumerActions) -> bool {
        let is_known = self.is_running() && self.nsqds.contains_key(address);
        if is_known {
            self.forget(address, now, out);
        }
        self.settle(now, out);
        is_known
    }

    /// Changes `max_in_flight`; 0 pauses. What is in flight stays so until it is answered.
    pub fn change_max_in_flight(&mut self, count: u32, now: Now, out: &mut ConsumerActions) {
        self.max_in_flight = count;
        self.spread.is_dirty = true;
        self.settle(now, out);
    }

    /// Takes no more messages, waits up to `grace` for answers to those in flight, requeues the
    /// rest and stops, at the latest [`FLUSH_TIMEOUT`] after that. A further call can only shorten
    /// the time.
    ///
    /// What is being dialled is dropped. Messages that were on their way are requeued at once.
    pub fn stop(&mut self, grace: Duration, now: Now, out: &mut ConsumerActions) {
        let at = now.instant + grace;
        self.phase = match self.phase {
            Phase::Stopped => return,
            Phase::Stopping(before) => Phase::Stopping(before.min(at)),
            Phase::Running => {
                out.events.push(ConsumerEvent::Stopping);
                Phase::Stopping(at)
            }
        };
        self.directory.stop();
        for nsqd in self.nsqds.values_mut() {
            nsqd.redial_at = None;
        }
        let ids: Vec<DialId> = self.links.keys().copied().collect();
        for id in ids {
            self.drain(id, at, out);
        }
        self.settle(now, out);
    }

    /// Asks the nsqlookupd at `host:port`, or at a URL, too; false if it does already, or is
    /// stopping. A URL without a path gets the path `/lookup`; `topic` is added to its query.
    ///
    /// # Errors
    /// [`UrlError`] if the address can't be asked; also for a host without a port.
    pub fn add_nsqlookupd(
        &mut self,
        address: &str,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<bool, UrlError> {
        if !self.is_running() {
            return Ok(false);
        }
        self.directory.add(address, now, &mut out.net)
    }

    /// Asks an nsqlookupd no more; false if it is not known. What only it named is drained after
    /// `lookupd_forget_rounds`, as if nobody named it any more; without any nsqlookupd everything
    /// stays as it is.
    pub fn remove_nsqlookupd(&mut self, address: &str) -> bool {
        self.directory.remove(address)
    }

    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether the program is what the messages wait for: some connection has 85 % of its RDY in
    /// flight.
    pub fn is_starved(&self) -> bool {
        self.links.values().any(|link| {
            let (in_flight, rdy) = (u64::from(link.in_flight), u64::from(link.rdy));
            link.stage == Stage::Subscribed && in_flight > 0 && in_flight * 100 >= rdy * 85
        })
    }

    /// Counts, and each nsqd's by address.
    pub fn stats(&self) -> ConsumerStats {
        let connections = self
            .nsqds
            .iter()
            .map(|(address, nsqd)| {
                nsqd.stats(address, nsqd.link.and_then(|id| self.links.get(&id)))
            })
            .collect();
        ConsumerStats {
            in_flight: self.in_flight.len(),
            backoff_level: self.slowdown.level(),
            connections,
            ..self.totals.clone()
        }
    }

    /// The topic and the channel.
    pub fn names(&self) -> (String, String) {
        (self.topic.as_str().to_string(), self.channel.as_str().to_string())
    }

    /// The `max_in_flight` of now.
    pub const fn max_in_flight(&self) -> u32 {
        self.max_in_flight
    }

    fn new_nsqd(&mut self, is_given: bool) -> Nsqd {
        Nsqd::new(is_given, &self.options, &Rng::new(self.rng.next_u64()))
    }

    fn dial(&mut self, address: &Arc<str>, now: Now, out: &mut ConsumerActions) {
        let Some(nsqd) = self.nsqds.get_mut(address) else {
            return;
        };
        let id = DialId(self.dials);
        self.dials += 1;
        nsqd.link = Some(id);
        nsqd.redial_at = None;
        self.links.insert(id, Link::new(address.clone(), &self.options, now));
        out.net.dial.push(Dial { id, address: address.to_string() });
        out.events.push(ConsumerEvent::Connecting { nsqd: address.clone() });
    }

    /// Ends every call: spreads RDY anew if need be, closes what is drained, and says what the
    /// driver has to do.
    fn settle(&mut self, now: Now, out: &mut ConsumerActions) {
        self.close_drained(now, out);
        if self.spread.is_dirty || self.spread.until.is_some_and(|until| until <= now.instant) {
            self.spread_rdy(now);
        }
        if matches!(self.phase, Phase::Stopping(_)) && self.links.is_empty() {
            self.phase = Phase::Stopped;
            out.events.push(ConsumerEvent::Stopped);
        }
        for (id, link) in &self.links {
            if link.connection.wants_transmit() {
                out.net.transmit(*id);
            }
        }
    }

    /// Looks at the rates, if it is time, and at what follows from them.
    fn measure(&mut self, now: Now) {
        if self.measure_at.is_none_or(|at| at > now.instant) {
            return;
        }
        self.measure_at = None;
        for link in self.links.values_mut() {
            link.measure();
            if link.rate > 0 {
                self.measure_at = Some(now.instant + self.options.rdy_redistribute_interval);
            }
        }
        self.spread.is_dirty = true;
    }

    /// Gives every connection its share of RDY: first those that lose some, then those that gain.
    fn spread_rdy(&mut self, now: Now) {
        let mut held = 0_u32;
        let count = self.links.len() as u64;
        let mut ids = Vec::new();
        let mut seats = Vec::new();
        let rates: u64 = self.links.values().map(|link| u64::from(link.rate)).sum();
        for (id, link) in &mut self.links {
            // While an nsqd is left alone it is none of those among whom RDY is divided.
            let most = link.connection.negotiated().max_rdy_count;
            let slowdown = self.nsqds.get(&link.nsqd).map(|nsqd| &nsqd.slowdown);
            let max = slowdown.map_or(most, |slowdown| slowdown.budget(most));
            if link.stage == Stage::Subscribed && max > 0 {
                ids.push(*id);
                seats.push(Seat {
                    max,
                    // Half of all for everybody's equal part, half after the rates.
                    weight: 1 + rates + count * u64::from(link.rate),
                    rdy: link.rdy,
                    in_flight: link.in_flight,
                    since: link.since,
                    active: link.active,
                    prospects: link.prospects,
                });
            } else {
                held = held.saturating_add(link.in_flight);
                if link.stage == Stage::Subscribed {
                    link.set_rdy(rdy::Share::default(), now);
                }
            }
        }
        let budget = Budget {
            rdy: self.slowdown.budget(self.max_in_flight),
            in_flight: self.max_in_flight,
            held,
            is_test: self.slowdown.is_testing(),
        };
        let idle_timeout = self.options.low_rdy_idle_timeout;
        let timers = Timers {
            idle_timeout: self
                .slowdown
                .test_patience()
                .map_or(idle_timeout, |test_patience| idle_timeout.min(test_patience)),
            hold_timeout: self.options.low_rdy_timeout,
        };
        let plan = rdy::plan(budget, timers, &seats, now.instant);
        for is_raise in [false, true] {
            for (id, share) in ids.iter().zip(&plan.shares) {
                if let Some(link) = self.links.get_mut(id)
                    && (share.rdy >= link.rdy) == is_raise
                {
                    link.set_rdy(*share, now);
                }
            }
        }
        self.spread = Spread {
            is_dirty: false,
            follows_answers: plan.is_blocked || plan.is_rotating,
            until: plan.until,
        };
    }
}

impl Link {
    fn set_rdy(&mut self, share: rdy::Share, now: Now) {
        if share.rdy != self.rdy {
            self.connection.ready(share.rdy);
        }
        if share.is_granted || (share.rdy == 0 && self.rdy > 0) {
            self.since = now.instant;
        }
        self.rdy = share.rdy;
        self.rdy_most = self.rdy_most.max(share.rdy);
    }
}

/// How long the last bytes of a connection may take to be written before it is closed.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
