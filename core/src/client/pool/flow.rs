//! Where publishes go, and what becomes of them: what is behind the calls of a pool.

use alloc::sync::Arc;

use super::super::actions::{DialId, ProducerActions, ProducerEvent, PublishError, PublishId};
use super::super::error::ConnectionError;
use super::super::producer::{Producer, ProducerOptions};
use super::super::transactions::Publish;
use super::ProducerPool;
use super::member::Member;
use super::slots::Location;
use crate::machine::MachineActions;
use crate::time::{Instant, Now};

impl ProducerPool {
    /// Publishes to this nsqd from now on; false if that is so already.
    pub(super) fn add(&mut self, address: &str, now: Now, out: &mut ProducerActions) -> bool {
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

    pub(super) fn member_at(&mut self, address: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| &*member.address == address)
    }

    pub(super) fn index_of(&self, serial: u64) -> Option<usize> {
        self.members.binary_search_by_key(&serial, |member| member.serial).ok()
    }

    pub(super) fn member_of(&self, id: DialId) -> Option<usize> {
        self.index_of(Member::serial_of(id))
    }

    /// Passes on what happened to a connection.
    pub(super) fn tell(
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
    pub(super) fn absorb(&mut self, at: usize, now: Now, out: &mut ProducerActions) {
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
    pub(super) fn take_waiting_of(&mut self, serial: u64) {
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
            self.slots.put(id, Location::Waiting);
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
    pub(super) fn reason_to_wait(&self) -> ConnectionError {
        if self.connected() > 0 {
            return ConnectionError::TimedOut;
        }
        if self.members.is_empty() {
            return ConnectionError::NoNsqd;
        }
        self.failure.clone().unwrap_or(ConnectionError::TimedOut)
    }

    /// Completes these: with `waiting` as the reason what waits here, else with `taken`.
    pub(super) fn give_up(
        &mut self,
        ids: &[PublishId],
        waiting: &ConnectionError,
        taken: &ConnectionError,
        out: &mut ProducerActions,
    ) {
        for id in ids {
            let Some(removed) = self.slots.remove(*id) else { continue };
            let was_waiting = matches!(removed.place, Location::Waiting);
            let error = match self.withdraw(removed.place) {
                false if was_waiting => PublishError::NotSent(waiting.clone()),
                false => PublishError::NotSent(taken.clone()),
                true => PublishError::Unknown(taken.clone()),
            };
            out.completed.push((*id, Err(removed.outcome(error))));
        }
    }

    /// A publish that was removed from the slots is to be sent no more. Returns whether it was.
    pub(super) fn withdraw(&mut self, place: Location) -> bool {
        match place {
            Location::Waiting => {
                let slots = &self.slots;
                self.queue.note_dead(|id| slots.deadline(id).is_some());
                false
            }
            Location::At { serial, seq } => {
                let at = self.index_of(serial);
                let member = at.and_then(|at| self.members.get_mut(at));
                // It is there as long as its slot says so; if it were not, it may have been sent.
                member.and_then(|member| member.producer.transactions().cancel(seq)).unwrap_or(true)
            }
        }
    }

    /// What was behind something that was withdrawn may be sent now.
    pub(super) fn nudge(&mut self, out: &mut ProducerActions) {
        for member in &mut self.members {
            member.producer.settle(&mut self.scratch);
        }
        pass_on(&mut self.scratch, out);
    }

    /// Gives what waits to whoever takes it.
    pub(super) fn flush(&mut self, now: Now, out: &mut ProducerActions) {
        while let Some(id) = self.queue.front() {
            let Some(deadline) = self.slots.deadline(id) else {
                self.queue.pop_dead();
                continue;
            };
            let Some(at) = self.choose(now) else { return };
            let Some((id, publish)) = self.queue.pop_front() else { return };
            self.give(at, id, publish, now, deadline, out);
        }
    }

    pub(super) fn give(
        &mut self,
        at: usize,
        id: PublishId,
        publish: Publish,
        now: Now,
        deadline: Instant,
        out: &mut ProducerActions,
    ) {
        let Some(member) = self.members.get_mut(at) else { return };
        let seq = member.producer.take_as(id, publish, now, deadline, &mut self.scratch);
        self.slots.put(id, Location::At { serial: member.serial, seq });
        pass_on(&mut self.scratch, out);
    }

    /// The nsqd for the next publish.
    pub(super) fn choose(&mut self, now: Now) -> Option<usize> {
        let load_max = self.options.producer.max_outstanding;
        if let [member] = &self.members[..] {
            return member.takes_more(load_max).then_some(0);
        }
        let (behind, ahead) = self.members.split_at_checked(self.cursor).unwrap_or_default();
        let from_cursor = (self.cursor..).zip(ahead).chain((0..).zip(behind));
        let usable = from_cursor.filter(|(_, member)| member.takes_more(load_max));
        let (at, _) = usable.min_by_key(|(_, member)| member.rank(now))?;
        self.cursor = if at + 1 < self.members.len() { at + 1 } else { 0 };
        Some(at)
    }

    /// Ends every call but the shortest: gives out what waits, lets go who is done with, stops when
    /// nothing is left.
    pub(super) fn settle(&mut self, now: Now, out: &mut ProducerActions) {
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
    for id in scratch.net.transmit.drain(..) {
        out.net.transmit(id);
    }
    // After a publish there is nothing else.
    if scratch.net.is_empty() {
        return;
    }
    out.net.dial.append(&mut scratch.net.dial);
    out.net.farewells.append(&mut scratch.net.farewells);
    for id in scratch.net.close.drain(..) {
        // The driver closes before it dials, so a dial that nobody wants any more must not get
        // there.
        match out.net.dial.iter().position(|dial| dial.id == id) {
            Some(at) => drop(out.net.dial.remove(at)),
            None => out.net.close.push(id),
        }
    }
}
