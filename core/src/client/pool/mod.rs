//! Publishing to any of several nsqds, given or found (clients.md part 7, B1 to B8).
//!
//! ```text
//!             publish                  an nsqd is connected             answered
//!   (caller) ---------> waiting here ------------------------> at it ------------> completed
//!                          ^                                      |   `- or failed, late, closed
//!                          +-- it lost its connection before      |
//!                          |   sending this, or the retry policy -+
//! ```
//!
//! - Each nsqd has a [`Producer`](super::Producer), which connects and connects again by itself. A
//!   publish goes to the nsqd with the fewest publishes outstanding, in turn among equals; nsqds
//!   that failed within the last [`HEALTHY_AFTER`](super::producer::HEALTHY_AFTER) only get what no
//!   other one takes.
//! - While none is connected, publishes wait, bound to no nsqd. What an nsqd was given and had not
//!   been sent when its connection was lost waits again.
//! - Each publish completes exactly once, at its deadline at the latest, unless it is
//!   [abandoned](ProducerPool::abandon). What becomes of a failure is up to the [`RetryPolicy`].
//! - With one nsqd and one timeout, publishes are sent in the order in which they were taken, but
//!   for those that are tried again. With several nsqds no order is promised.
//! - When the nsqds turn the client itself away (IDENTIFY or AUTH), everything that waits fails
//!   with that reason as soon as all of them have. While one has not, it is waited for.
//! - Nsqds that nsqlookupds list come and go as [`Directory`] says; those given stay until they are
//!   removed. One that goes gets nothing new, and its connection ends with its last publish.
//!
//! Limits: publishes and bytes outstanding (`max_outstanding`, never above [`OUTSTANDING_MAX`], and
//! `max_outstanding_bytes` of [`PoolOptions::producer`], for the pool as a whole, then
//! [`PublishError::Full`]); commands that an nsqd has not answered (`max_outstanding`, those
//! included whose deadline has passed; then it is given none);
//! [`FOUND_MAX`](super::directory::FOUND_MAX) for the nsqds that are found. Choosing looks at every
//! nsqd.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::actions::{Outcome, ProducerActions, PublishError, PublishId};
use super::directory::{Directory, DirectoryChanges, DirectoryOptions, Question};
use super::error::ConnectionError;
use super::options::InvalidOption;
use super::producer::{ProducerOptions, PublishStats};
use super::transactions::Publish;
use crate::address::check_address;
use crate::http::call::UrlError;
use crate::name::TopicName;
use crate::rng::Rng;
use crate::time::{Instant, Now};

mod flow;
mod machine;
mod member;
mod queue;
mod slots;

use member::Member;
use queue::Queue;
pub use slots::OUTSTANDING_MAX;
use slots::{Location, Slots};

/// When a publish that failed at one nsqd is tried at another, or there again, until its deadline.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryPolicy {
    /// Never: the first outcome is the caller's.
    Never,
    /// When it is certain that nothing was stored: never sent, or refused for a reason that another
    /// nsqd may not have (`E_PUB_FAILED` and its like, not a bad topic, a bad message or a missing
    /// permission).
    #[default]
    NotStored,
    /// Also when it was sent and not answered, so that the message may come twice.
    Always,
}

impl RetryPolicy {
    fn allows(self, error: &PublishError) -> bool {
        match (self, error) {
            (Self::Never, _) => false,
            (_, PublishError::NotSent(_)) => true,
            (_, PublishError::Rejected(_)) => error.outcome() == Outcome::NotStored,
            (Self::Always, PublishError::Unknown(_)) => true,
            _ => false,
        }
    }
}

/// The settings of a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolOptions {
    /// Those of each producer in it; the limits on what is outstanding are the pool's.
    pub producer: ProducerOptions,
    /// What becomes of publishes that fail.
    pub retry: RetryPolicy,
    /// When nsqlookupds are asked for nsqds.
    pub lookupd: DirectoryOptions,
    /// The secret that goes to the nsqlookupds as `Authorization: Bearer`, if `auth_secret` of the
    /// producer's connection is set.
    pub lookupd_authorization: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            producer: ProducerOptions::default(),
            retry: RetryPolicy::default(),
            lookupd: DirectoryOptions::default(),
            lookupd_authorization: true,
        }
    }
}

/// Publishes to the nsqds that it is given, or that nsqlookupds know.
///
/// See the [module's page](self) for its promises. It is driven like a
/// [`Producer`](super::Producer), with more than one connection, and with
/// [`NetActions::calls`](super::NetActions::calls) if it asks nsqlookupds.
#[derive(Debug)]
pub struct ProducerPool {
    options: PoolOptions,
    members: Vec<Member>,
    /// Where the next choice begins, so that equals take turns.
    cursor: usize,
    serials: u64,
    rng: Rng,
    slots: Slots,
    queue: Queue,
    directory: Directory,
    /// Why the last connection ended; what waits in vain fails with it.
    failure: Option<ConnectionError>,
    /// When `close` stops waiting.
    close_at: Option<Instant>,
    stopped: bool,
    /// What a member asks for, on its way to the caller. Empty between calls, as are the next two.
    scratch: ProducerActions,
    returning: Vec<(PublishId, Publish)>,
    changes: DirectoryChanges,
}

impl ProducerPool {
    /// A pool without an nsqd. `seed` spreads its redials and questions among those of others.
    ///
    /// # Errors
    /// [`InvalidOption`] if an option is out of its range.
    pub fn new(options: PoolOptions, seed: u64) -> Result<Self, InvalidOption> {
        options.producer.check()?;
        if options.lookupd.poll_interval.is_zero() {
            let reason = "must not be zero";
            return Err(InvalidOption { name: "lookupd_poll_interval", reason });
        }
        let mut rng = Rng::new(seed);
        let mut directory = Directory::new(Question::Nodes, options.lookupd, rng.next_u64());
        if let Some(secret) = &options.producer.connection.auth_secret
            && options.lookupd_authorization
        {
            directory.authorize(secret.clone());
        }
        let ProducerOptions { max_outstanding, max_outstanding_bytes, .. } = options.producer;
        Ok(Self {
            members: Vec::new(),
            cursor: 0,
            serials: 0,
            slots: Slots::new(max_outstanding, max_outstanding_bytes),
            queue: Queue::default(),
            directory,
            rng,
            failure: None,
            close_at: None,
            stopped: false,
            scratch: ProducerActions::default(),
            returning: Vec::new(),
            changes: DirectoryChanges::default(),
            options,
        })
    }

    /// Publishes to the nsqd at `host:port` too, and starts to connect; false if it does already,
    /// if the pool is closed, or if nothing can be dialled there (see [`check_address`]).
    pub fn add_nsqd(&mut self, address: &str, now: Now, out: &mut ProducerActions) -> bool {
        if check_address(address).is_err() {
            return false;
        }
        let is_new = self.add(address, now, out);
        if let Some(member) = self.member_at(address) {
            member.is_given = true;
        }
        self.settle(now, out);
        is_new
    }

    /// Publishes to this nsqd no more, however it was come by, until it is given again, or vanishes
    /// from the nsqlookupds and is found again. What it has not answered yet is waited for. False
    /// if it is not published to.
    pub fn remove_nsqd(&mut self, address: &str, now: Now, out: &mut ProducerActions) -> bool {
        let Some(member) = self.member_at(address).filter(|member| !member.is_draining) else {
            return false;
        };
        (member.is_given, member.is_found, member.is_draining) = (false, false, true);
        let serial = member.serial;
        self.take_waiting_of(serial);
        self.settle(now, out);
        true
    }

    /// Asks the nsqlookupd at `host:port` or a URL for nsqds (`/nodes`), now and every
    /// [`poll_interval`](DirectoryOptions::poll_interval); false if it does already, or if the pool
    /// is closed.
    ///
    /// # Errors
    /// [`UrlError`] if that cannot be asked.
    pub fn add_nsqlookupd(
        &mut self,
        address: &str,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<bool, UrlError> {
        if self.close_at.is_some() {
            return Ok(false);
        }
        self.directory.add(address, now, &mut out.net)
    }

    /// Asks this nsqlookupd no more; false if it is not known. Nsqds that only it lists vanish
    /// after some rounds, if another one is asked.
    pub fn remove_nsqlookupd(&mut self, address: &str) -> bool {
        self.directory.remove(address)
    }

    /// Publishes a message; its deadline is `publish_timeout` from now.
    ///
    /// # Errors
    /// [`PublishError`] if it is not taken: [`Full`](PublishError::Full) for the moment, or because
    /// of what it is. Nothing is completed then.
    pub fn publish(
        &mut self,
        topic: &TopicName,
        body: Bytes,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        let publish = self.options.producer.message(topic, body)?;
        self.take(publish, now, out)
    }

    /// Publishes a message that the broker holds back for `delay`, in whole milliseconds.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_after(
        &mut self,
        topic: &TopicName,
        delay: Duration,
        body: Bytes,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        let publish = self.options.producer.message_after(topic, delay, body)?;
        self.take(publish, now, out)
    }

    /// Publishes several messages with one command: the broker takes all of them or, unless its
    /// disk fails, none. The bodies are copied.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_many<B: AsRef<[u8]>>(
        &mut self,
        topic: &TopicName,
        bodies: &[B],
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        let publish = self.options.producer.messages(topic, bodies)?;
        self.take(publish, now, out)
    }

    fn take(
        &mut self,
        publish: Publish,
        now: Now,
        out: &mut ProducerActions,
    ) -> Result<PublishId, PublishError> {
        if self.close_at.is_some() {
            return Err(PublishError::Closed);
        }
        let deadline = now.instant + self.options.producer.publish_timeout;
        let id = self.slots.insert(publish.body.len(), deadline)?;
        // The short way, which spares a publish the moves into the queue and out of it.
        if self.queue.front().is_none()
            && let Some(at) = self.choose(now)
        {
            self.give(at, id, publish, now, deadline, out);
        } else {
            self.queue.push_back(id, publish);
            self.flush(now, out);
        }
        Ok(id)
    }

    /// Gives a publish a deadline of its own, earlier or later than `publish_timeout` made it;
    /// false if it is over. To be called right after the publish, or any time before it is
    /// completed.
    ///
    /// An nsqd that answers nothing for `publish_timeout` loses its connection even so.
    pub fn set_deadline(&mut self, id: PublishId, deadline: Instant) -> bool {
        let Some(place) = self.slots.set_deadline(id, deadline) else { return false };
        if let Location::At { serial, seq } = place
            && let Some(at) = self.index_of(serial)
            && let Some(member) = self.members.get_mut(at)
        {
            member.producer.transactions().set_deadline(seq, deadline);
        }
        true
    }

    /// Nobody waits for this publish any more: it is not sent unless it was sent already, and is
    /// not among the completed ones. False if it is over.
    pub fn abandon(&mut self, id: PublishId, now: Now, out: &mut ProducerActions) -> bool {
        let Some(removed) = self.slots.remove(id) else { return false };
        self.withdraw(removed.place);
        self.nudge(out);
        self.settle(now, out);
        true
    }

    /// Takes no more publishes, waits up to `close_timeout` for those outstanding and then stops.
    pub fn close(&mut self, now: Now, out: &mut ProducerActions) {
        if self.close_at.is_none() {
            self.close_at = Some(now.instant + self.options.producer.close_timeout);
            self.directory.stop();
            self.settle(now, out);
        }
    }

    /// How many nsqds publishes can go to at once.
    pub fn connected(&self) -> usize {
        self.members.iter().filter(|member| member.is_usable()).count()
    }

    /// How many publishes are taken and not completed.
    pub const fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// The bytes of their bodies.
    pub const fn outstanding_bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// The addresses of the nsqds that it publishes to, in the order in which they came.
    pub fn addresses(&self) -> Vec<String> {
        let stay = self.members.iter().filter(|member| !member.is_draining);
        stay.map(|member| String::from(&*member.address)).collect()
    }

    /// Figures of each nsqd, in the order in which they came.
    pub fn stats(&self) -> Vec<PublishStats> {
        self.members.iter().map(|member| member.producer.stats()).collect()
    }
}

#[cfg(test)]
mod tests;
