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
//! - Each nsqd has a [`Producer`], which connects and connects again by itself. A publish goes to the
//!   nsqd with the fewest publishes outstanding, in turn among equals; nsqds that failed within the
//!   last [`HEALTHY_AFTER`](super::producer::HEALTHY_AFTER) only get what no other one takes.
//! - While none is connected, publishes wait, bound to no nsqd. What an nsqd was given and had not been
//!   sent when its connection was lost waits again.
//! - Each publish completes exactly once, at its deadline at the latest, unless it is
//!   [abandoned](ProducerPool::abandon). What becomes of a failure is up to the [`RetryPolicy`].
//! - With one nsqd and one timeout, publishes are sent in the order in which they were taken, but for
//!   those that are tried again. With several nsqds no order is promised.
//! - When the nsqds turn the client itself away (IDENTIFY or AUTH), everything that waits fails with
//!   that reason as soon as all of them have. While one has not, it is waited for.
//! - Nsqds that nsqlookupds list come and go as [`Directory`] says; those given stay until they are
//!   removed. One that goes gets nothing new, and its connection ends with its last publish.
//!
//! Limits: publishes and bytes outstanding (`max_outstanding`, `max_outstanding_bytes` of
//! [`PoolOptions::producer`], for the pool as a whole, then [`PublishError::Full`]); commands that an
//! nsqd has not answered (`max_outstanding`, those included whose deadline has passed; then it is given
//! none); [`FOUND_MAX`](super::directory::FOUND_MAX) for the nsqds that are found. Choosing looks at
//! every nsqd.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::actions::{CallId, DialId, ProducerActions, ProducerEvent, PublishError, PublishId};
use super::directory::{Directory, DirectoryChanges, DirectoryOptions, Question};
use super::error::ConnectionError;
use super::options::InvalidOption;
use super::producer::{Producer, ProducerOptions};
use super::transactions::Publish;
use crate::http::call::{CallResult, UrlError};
use crate::name::TopicName;
use crate::rng::Rng;
use crate::time::{Instant, Now};

mod member;
mod queue;
mod slots;

use member::Member;
use queue::Queue;
pub use slots::OUTSTANDING_MAX;
use slots::{Place, Slots};

/// When a publish that failed at one nsqd is tried at another, or there again, until its deadline.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RetryPolicy {
    /// Never: the first outcome is the caller's.
    Never,
    /// When it is certain that nothing was stored: never sent, or refused for a reason that another nsqd
    /// may not have (`E_PUB_FAILED` and its like, not a bad topic, a bad message or a missing permission).
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
            (_, PublishError::Rejected(text)) => {
                RETRIED_CODES.contains(&text.split(' ').next().unwrap_or_default())
            }
            (Self::Always, PublishError::Unknown(_)) => true,
            _ => false,
        }
    }
}

/// The settings of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PoolOptions {
    /// Those of each producer in it; the limits on what is outstanding are the pool's.
    pub producer: ProducerOptions,
    /// What becomes of publishes that fail.
    pub retry: RetryPolicy,
    /// When nsqlookupds are asked for nsqds.
    pub lookupd: DirectoryOptions,
}

/// Publishes to the nsqds that it is given, or that nsqlookupds know.
///
/// See the [module's page](self) for its promises. It is driven like a [`Producer`], with more than one
/// connection, and with [`NetActions::calls`](super::NetActions::calls) if it asks nsqlookupds.
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
        let ProducerOptions { max_outstanding, max_outstanding_bytes, .. } = options.producer;
        Ok(Self {
            members: Vec::new(),
            cursor: 0,
            serials: 0,
            slots: Slots::new(max_outstanding, max_outstanding_bytes),
            queue: Queue::default(),
            directory: Directory::new(Question::Nodes, options.lookupd, rng.next_u64()),
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

    /// Publishes to the nsqd at `host:port` too, and starts to connect; false if it does already, or if
    /// the pool is closed.
    pub fn add_nsqd(&mut self, address: &str, now: Now, out: &mut ProducerActions) -> bool {
        let is_new = self.add(address, now, out);
        if let Some(member) = self.member_at(address) {
            member.is_given = true;
        }
        self.settle(now, out);
        is_new
    }

    /// Publishes to this nsqd no more, however it was come by, until it is given again, or vanishes
    /// from the nsqlookupds and is found again. What it has not answered yet is waited for. False if it
    /// is not published to.
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
    /// [`poll_interval`](DirectoryOptions::poll_interval); false if it does already, or if the pool is
    /// closed.
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

    /// Asks this nsqlookupd no more; false if it is not known. Nsqds that only it lists vanish after
    /// some rounds, if another one is asked.
    pub fn remove_nsqlookupd(&mut self, address: &str) -> bool {
        self.directory.remove(address)
    }

    /// Publishes a message; its deadline is `publish_timeout` from now.
    ///
    /// # Errors
    /// [`PublishError`] if it is not taken: [`Full`](PublishError::Full) for the moment, or because of
    /// what it is. Nothing is completed then.
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

    /// Publishes several messages with one command: the broker takes all of them or, unless its disk
    /// fails, none. The bodies are copied.
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
        self.queue.push_back(id, publish);
        self.flush(now, out);
        Ok(id)
    }

    /// Gives a publish a deadline of its own, earlier or later than `publish_timeout` made it; false if
    /// it is over. To be called right after the publish, or any time before it is completed.
    ///
    /// An nsqd that answers nothing for `publish_timeout` loses its connection even so.
    pub fn set_deadline(&mut self, id: PublishId, deadline: Instant) -> bool {
        let Some(place) = self.slots.set_deadline(id, deadline) else { return false };
        if let Place::At { serial, seq } = place
            && let Some(at) = self.index_of(serial)
            && let Some(member) = self.members.get_mut(at)
        {
            member.producer.transactions().set_deadline(seq, deadline);
        }
        true
    }

    /// Nobody waits for this publish any more: it is not sent unless it was sent already, and is not
    /// among the completed ones. False if it is over.
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

    /// Whether it is closed and asks for nothing any more.
    pub const fn is_stopped(&self) -> bool {
        self.stopped
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

    /// The dial has succeeded. If it is not wanted any more, its connection is to be closed.
    pub fn handle_connected(&mut self, id: DialId, now: Now, out: &mut ProducerActions) {
        if self.member_of(id).is_none() {
            out.net.close.push(id);
        }
        self.tell(id, now, out, |producer, out| producer.handle_connected(id, now, out));
    }

    /// The dial has failed; `error` is the system's text.
    pub fn handle_connect_failed(
        &mut self,
        id: DialId,
        error: &str,
        now: Now,
        out: &mut ProducerActions,
    ) {
        self.tell(id, now, out, |producer, out| {
            producer.handle_connect_failed(id, error, now, out);
        });
    }

    /// Bytes have arrived; takes all complete frames out of `input`.
    pub fn handle_input(
        &mut self,
        id: DialId,
        input: &mut BytesMut,
        now: Now,
        out: &mut ProducerActions,
    ) {
        if self.member_of(id).is_none() {
            input.clear();
        }
        self.tell(id, now, out, |producer, out| producer.handle_input(id, input, now, out));
    }

    /// The connection is gone: closed by the broker, or broken with the system's text.
    pub fn handle_closed(
        &mut self,
        id: DialId,
        error: Option<&str>,
        now: Now,
        out: &mut ProducerActions,
    ) {
        self.tell(id, now, out, |producer, out| producer.handle_closed(id, error, now, out));
    }

    /// An nsqlookupd answered, or did not.
    pub fn handle_called(
        &mut self,
        id: CallId,
        result: CallResult,
        now: Now,
        out: &mut ProducerActions,
    ) {
        if self.close_at.is_some() {
            return;
        }
        let mut changes = core::mem::take(&mut self.changes);
        self.directory.handle_called(id, result, &mut out.net, &mut changes);
        out.events.extend(changes.events.drain(..).map(ProducerEvent::Directory));
        for address in changes.found.drain(..) {
            self.add(&address, now, out);
            if let Some(member) = self.member_at(&address) {
                member.is_found = true;
            }
            out.events.push(ProducerEvent::Found(address));
        }
        for address in changes.vanished.drain(..) {
            if let Some(member) = self.member_at(&address) {
                member.is_found = false;
                if !member.is_given {
                    member.is_draining = true;
                    let serial = member.serial;
                    self.take_waiting_of(serial);
                }
            }
            out.events.push(ProducerEvent::Vanished(address));
        }
        self.changes = changes;
        self.settle(now, out);
    }

    /// Time has passed; does nothing before [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now, out: &mut ProducerActions) {
        if self.close_at.is_some_and(|at| at <= now.instant) {
            let all = self.slots.all();
            self.give_up(&all, &ConnectionError::Stopped, &ConnectionError::Stopped, out);
        } else if self.slots.next_deadline().is_some_and(|at| at <= now.instant) {
            let late = self.slots.expired(now.instant);
            let reason = self.reason_to_wait();
            self.give_up(&late, &reason, &ConnectionError::TimedOut, out);
            self.nudge(out);
        }
        self.directory.handle_timeout(now, &mut out.net);
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { break };
            if member.producer.poll_timeout().is_some_and(|due| due <= now.instant) {
                member.producer.handle_timeout(now, &mut self.scratch);
                self.absorb(at, now, out);
            }
        }
        self.settle(now, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; looks at every nsqd.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let own = [self.slots.next_deadline(), self.close_at, self.directory.poll_timeout()];
        let members = self.members.iter().map(|member| member.producer.poll_timeout());
        own.into_iter().chain(members).flatten().min()
    }

    /// Empties `spare` and fills it with the bytes to write next to this connection, none if there are
    /// none. See [`Producer::swap_transmit`].
    pub fn swap_transmit(&mut self, id: DialId, now: Now, spare: &mut Vec<u8>) {
        spare.clear();
        if let Some(at) = self.member_of(id)
            && let Some(member) = self.members.get_mut(at)
            && member.producer.dial_id() == Some(id)
        {
            member.producer.swap_transmit(now, spare);
        }
    }
}

/// What is behind the calls.
impl ProducerPool {
    /// Publishes to this nsqd from now on; false if that is so already.
    fn add(&mut self, address: &str, now: Now, out: &mut ProducerActions) -> bool {
        if self.close_at.is_some() {
            return false;
        }
        if let Some(member) = self.member_at(address) {
            return core::mem::take(&mut member.is_draining);
        }
        let options = ProducerOptions {
            max_outstanding: usize::MAX,
            max_outstanding_bytes: usize::MAX,
            ..self.options.producer.clone()
        };
        // The options were checked, so there is no error.
        let Ok(mut producer) = Producer::new(address, options, self.rng.next_u64()) else {
            return false;
        };
        let serial = self.serials;
        self.serials += 1;
        producer.join_pool(Member::first_dial(serial));
        producer.connect(now, &mut self.scratch);
        self.members.push(Member::new(serial, Arc::from(address), producer));
        self.absorb(self.members.len() - 1, now, out);
        true
    }

    fn member_at(&mut self, address: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| &*member.address == address)
    }

    fn index_of(&self, serial: u64) -> Option<usize> {
        self.members.binary_search_by_key(&serial, |member| member.serial).ok()
    }

    fn member_of(&self, id: DialId) -> Option<usize> {
        self.index_of(Member::serial_of(id))
    }

    /// Passes on what happened to a connection.
    fn tell(
        &mut self,
        id: DialId,
        now: Now,
        out: &mut ProducerActions,
        what: impl FnOnce(&mut Producer, &mut ProducerActions),
    ) {
        if let Some(at) = self.member_of(id)
            && let Some(member) = self.members.get_mut(at)
        {
            what(&mut member.producer, &mut self.scratch);
            self.absorb(at, now, out);
            self.settle(now, out);
        }
    }

    /// Takes over what a call into a member has left behind.
    fn absorb(&mut self, at: usize, now: Now, out: &mut ProducerActions) {
        let Some(member) = self.members.get_mut(at) else { return };
        pass_on(&mut self.scratch, out);
        for (id, result) in self.scratch.completed.drain(..) {
            if self.slots.remove(id).is_some() {
                out.completed.push((id, result));
            }
        }
        for failed in member.producer.transactions().returned() {
            let is_in_time = self.slots.deadline(failed.id).is_some_and(|at| at > now.instant);
            if is_in_time && self.options.retry.allows(&failed.error) {
                self.slots.note_failure(failed.id, &failed.error);
                self.returning.push((failed.id, failed.publish));
            } else if let Some(removed) = self.slots.remove(failed.id) {
                out.completed.push((failed.id, Err(removed.outcome(failed.error))));
            }
        }
        let (mut is_lost, mut is_refused) = (false, false);
        for event in self.scratch.events.drain(..) {
            if let ProducerEvent::Connected { .. } = &event {
                (member.is_connected, member.is_refused) = (true, false);
            }
            if let ProducerEvent::Disconnected { error, .. } = &event {
                is_lost = true;
                is_refused = error.is_refusal();
                (member.is_connected, member.is_refused) = (false, is_refused);
                member.failed_at = Some(now.instant);
                self.failure = Some(error.clone());
            }
            out.events.push(member.event(event));
        }
        let serial = member.serial;
        if is_lost {
            self.take_waiting_of(serial);
        }
        self.requeue();
        if is_refused && self.is_refused_by_all() {
            self.fail_waiting(out);
        }
    }

    /// Takes back what a member was given and has not sent.
    fn take_waiting_of(&mut self, serial: u64) {
        if let Some(at) = self.index_of(serial)
            && let Some(member) = self.members.get_mut(at)
        {
            member.producer.transactions().take_waiting(&mut self.returning);
        }
        self.requeue();
    }

    /// What came back goes before everything that waits: it was taken earlier.
    fn requeue(&mut self) {
        for (id, publish) in self.returning.drain(..).rev() {
            self.slots.put(id, Place::Waiting);
            self.queue.push_front(id, publish);
        }
    }

    fn is_refused_by_all(&self) -> bool {
        self.members.iter().all(|member| member.is_refused || member.is_draining)
    }

    /// Nobody will take what waits.
    fn fail_waiting(&mut self, out: &mut ProducerActions) {
        let reason = self.reason_to_wait();
        while let Some((id, _)) = self.queue.pop_front() {
            if let Some(removed) = self.slots.remove(id) {
                let error = removed.outcome(PublishError::NotSent(reason.clone()));
                out.completed.push((id, Err(error)));
            }
        }
        self.queue.clear();
    }

    /// Why publishes are not sent.
    fn reason_to_wait(&self) -> ConnectionError {
        if self.connected() > 0 {
            return ConnectionError::TimedOut;
        }
        if self.members.is_empty() {
            return ConnectionError::NoNsqd;
        }
        self.failure.clone().unwrap_or(ConnectionError::TimedOut)
    }

    /// Completes these: with `waiting` as the reason what waits here, else with `taken`.
    fn give_up(
        &mut self,
        ids: &[PublishId],
        waiting: &ConnectionError,
        taken: &ConnectionError,
        out: &mut ProducerActions,
    ) {
        for id in ids {
            let Some(removed) = self.slots.remove(*id) else { continue };
            let was_waiting = matches!(removed.place, Place::Waiting);
            let error = match self.withdraw(removed.place) {
                false if was_waiting => PublishError::NotSent(waiting.clone()),
                false => PublishError::NotSent(taken.clone()),
                true => PublishError::Unknown(taken.clone()),
            };
            out.completed.push((*id, Err(removed.outcome(error))));
        }
    }

    /// A publish that was removed from the slots is to be sent no more. Returns whether it was.
    fn withdraw(&mut self, place: Place) -> bool {
        match place {
            Place::Waiting => {
                let slots = &self.slots;
                self.queue.note_dead(|id| slots.deadline(id).is_some());
                false
            }
            Place::At { serial, seq } => {
                let at = self.index_of(serial);
                let member = at.and_then(|at| self.members.get_mut(at));
                // It is there as long as its slot says so; if it were not, it may have been sent.
                member.and_then(|member| member.producer.transactions().cancel(seq)).unwrap_or(true)
            }
        }
    }

    /// What was behind something that was withdrawn may be sent now.
    fn nudge(&mut self, out: &mut ProducerActions) {
        for member in &mut self.members {
            member.producer.settle(&mut self.scratch);
        }
        pass_on(&mut self.scratch, out);
    }

    /// Gives what waits to whoever takes it.
    fn flush(&mut self, now: Now, out: &mut ProducerActions) {
        while let Some(id) = self.queue.front() {
            let Some(deadline) = self.slots.deadline(id) else {
                self.queue.pop_dead();
                continue;
            };
            let Some(at) = self.choose(now) else { return };
            let Some(member) = self.members.get_mut(at) else { return };
            let Some((id, publish)) = self.queue.pop_front() else { return };
            let seq = member.producer.take_as(id, publish, deadline, &mut self.scratch);
            self.slots.put(id, Place::At { serial: member.serial, seq });
            pass_on(&mut self.scratch, out);
        }
    }

    /// The nsqd for the next publish.
    fn choose(&mut self, now: Now) -> Option<usize> {
        let load_max = self.options.producer.max_outstanding;
        let (behind, ahead) = self.members.split_at_checked(self.cursor).unwrap_or_default();
        let from_cursor = (self.cursor..).zip(ahead).chain((0..).zip(behind));
        let usable = from_cursor.filter(|(_, member)| member.takes_more(load_max));
        let (at, _) = usable.min_by_key(|(_, member)| member.rank(now))?;
        self.cursor = if at + 1 < self.members.len() { at + 1 } else { 0 };
        Some(at)
    }

    /// Ends every call but the shortest: gives out what waits, lets go who is done with, stops when
    /// nothing is left.
    fn settle(&mut self, now: Now, out: &mut ProducerActions) {
        self.flush(now, out);
        let is_done = self.close_at.is_some() && self.slots.len() == 0;
        let mut at = 0;
        while let Some(member) = self.members.get_mut(at) {
            if is_done || member.is_drained() {
                member.producer.close(now, &mut self.scratch);
                self.absorb(at, now, out);
                self.members.remove(at);
                self.cursor = 0;
            } else {
                at += 1;
            }
        }
        if is_done && !self.stopped {
            self.stopped = true;
            self.queue.clear();
            out.events.push(ProducerEvent::Stopped);
        }
        out.room |= self.slots.take_room();
    }
}

/// Hands a member's actions about its connection to the driver.
fn pass_on(scratch: &mut ProducerActions, out: &mut ProducerActions) {
    scratch.room = false;
    out.net.dial.append(&mut scratch.net.dial);
    out.net.farewells.append(&mut scratch.net.farewells);
    for id in scratch.net.close.drain(..) {
        // The driver closes before it dials, so a dial that nobody wants any more must not get there.
        match out.net.dial.iter().position(|dial| dial.id == id) {
            Some(at) => drop(out.net.dial.remove(at)),
            None => out.net.close.push(id),
        }
    }
    for id in scratch.net.transmit.drain(..) {
        out.net.transmit(id);
    }
}

/// What nsqd says when it could not store a message (nsqd-protocol.md section 6): nothing is wrong with
/// the message, so another nsqd may take it. `E_PUT_FAILED` is that of versions before 0.2.20.
const RETRIED_CODES: [&str; 4] = ["E_PUB_FAILED", "E_MPUB_FAILED", "E_DPUB_FAILED", "E_PUT_FAILED"];

#[cfg(test)]
mod tests;
