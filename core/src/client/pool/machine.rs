//! What a driver tells a pool.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::super::actions::{DialId, LookupCallId, NetActions, ProducerActions, ProducerEvent};
use super::super::error::ConnectionError;
use super::super::machine::ClientMachine;
use super::ProducerPool;
use crate::http::call::CallResult;
use crate::time::{Instant, Now};

impl ClientMachine for ProducerPool {
    type Actions = ProducerActions;

    fn net(actions: &mut ProducerActions) -> &mut NetActions {
        &mut actions.net
    }

    /// The dial has succeeded. If it is not wanted any more, its connection is to be closed.
    fn handle_connected(&mut self, id: DialId, now: Now, out: &mut ProducerActions) {
        if self.member_of(id).is_none() {
            out.net.close.push(id);
        }
        self.tell(id, now, out, |producer, out| producer.handle_connected(id, now, out));
    }

    fn handle_connect_failed(
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

    fn handle_input(
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

    fn handle_closed(
        &mut self,
        id: DialId,
        error: Option<&str>,
        now: Now,
        out: &mut ProducerActions,
    ) {
        self.tell(id, now, out, |producer, out| producer.handle_closed(id, error, now, out));
    }

    fn handle_called(
        &mut self,
        id: LookupCallId,
        result: CallResult,
        now: Now,
        out: &mut ProducerActions,
    ) {
        if self.close_at.is_some() {
            return;
        }
        let mut changes = core::mem::take(&mut self.changes);
        self.directory.handle_called(id, result, now, &mut out.net, &mut changes);
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

    fn handle_timeout(&mut self, now: Now, out: &mut ProducerActions) {
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
    fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let own = [self.slots.next_deadline(), self.close_at, self.directory.poll_timeout()];
        let members = self.members.iter().map(|member| member.producer.poll_timeout());
        own.into_iter().chain(members).flatten().min()
    }

    fn overdue(&self, now: Now, ids: &mut Vec<DialId>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let is_late = is_due(self.slots.next_deadline()) || is_due(self.close_at);
        let members = self.members.iter();
        ids.extend(members.filter_map(|member| member.producer.overdue(now, is_late)));
    }

    fn postpone(&mut self, id: DialId, until: Instant) {
        if let Some(at) = self.member_of(id)
            && let Some(member) = self.members.get_mut(at)
        {
            member.producer.postpone(id, until);
        }
    }

    /// Empties `spare` and fills it with the bytes to write next to this connection, none if there
    /// are none. See [`Producer::swap_transmit`](crate::client::Producer::swap_transmit).
    fn swap_transmit(&mut self, id: DialId, now: Now, spare: &mut Vec<u8>) {
        spare.clear();
        if let Some(at) = self.member_of(id)
            && let Some(member) = self.members.get_mut(at)
            && member.producer.dial_id() == Some(id)
        {
            member.producer.swap_transmit(now, spare);
        }
    }

    /// Nothing drives it any more, so its connections are gone, and nobody is told so. It is
    /// stopped; publishes that were outstanding are not completed.
    fn abort(&mut self) {
        self.close_at.get_or_insert(Instant::ZERO);
        self.stopped = true;
        self.directory.stop();
        self.members.clear();
        self.slots.clear();
        self.queue.clear();
    }

    fn is_stopped(&self) -> bool {
        self.stopped
    }
}
