//! What a driver tells a consumer.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use bytes::BytesMut;

use super::super::actions::{DialId, LookupCallId, NetActions};
use super::super::error::ConnectionError;
use super::super::machine::ClientMachine;
use super::actions::{ConsumerActions, ConsumerEvent};
use super::in_flight::InFlight;
use super::link::{Frames, Link, Stage};
use super::{Consumer, Phase};
use crate::http::call::CallResult;
use crate::time::{Instant, Now};

impl ClientMachine for Consumer {
    type Actions = ConsumerActions;

    fn net(actions: &mut ConsumerActions) -> &mut NetActions {
        &mut actions.net
    }

    /// The dial has succeeded. If it is not wanted any more, its connection is to be closed.
    fn handle_connected(&mut self, id: DialId, now: Now, out: &mut ConsumerActions) {
        match self.links.get_mut(&id) {
            Some(link) => link.connection.handle_connected(now),
            None => out.net.close.push(id),
        }
        self.settle(now, out);
    }

    fn handle_connect_failed(
        &mut self,
        id: DialId,
        error: &str,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        self.end_link(id, ConnectionError::Dial(error.into()), now, out);
        self.settle(now, out);
    }

    fn handle_input(
        &mut self,
        id: DialId,
        input: &mut BytesMut,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let Some(link) = self.links.get_mut(&id) else {
            input.clear();
            return;
        };
        let mut frames = mem::take(&mut self.frames);
        let result = link.connection.handle_input(input, now, &mut Frames(&mut frames));
        let mut fault = None;
        for frame in frames.drain(..) {
            if fault.is_none() {
                fault = self.handle_frame(id, frame, now, out).err();
            }
        }
        self.frames = frames;
        if let Some(error) = fault.or_else(|| result.err()) {
            input.clear();
            match self.links.get_mut(&id) {
                Some(link) => out.net.close_failed(id, &mut link.connection, &error),
                None => out.net.close.push(id),
            }
            self.end_link(id, error, now, out);
        }
        self.settle(now, out);
    }

    fn handle_closed(
        &mut self,
        id: DialId,
        error: Option<&str>,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let error =
            error.map_or(ConnectionError::Closed, |error| ConnectionError::Io(String::from(error)));
        self.end_link(id, error, now, out);
        self.settle(now, out);
    }

    fn handle_called(
        &mut self,
        id: LookupCallId,
        result: CallResult,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let mut changes = mem::take(&mut self.changes);
        self.directory.handle_called(id, result, now, &mut out.net, &mut changes);
        out.events.extend(changes.events.drain(..).map(ConsumerEvent::Directory));
        for address in changes.found.drain(..) {
            let address: Arc<str> = address.into();
            if !self.nsqds.contains_key(&address) {
                let nsqd = self.new_nsqd(false);
                self.nsqds.insert(address.clone(), nsqd);
                self.dial(&address, now, out);
            }
        }
        for address in changes.vanished.drain(..) {
            if self.nsqds.get(address.as_str()).is_some_and(|nsqd| !nsqd.is_given) {
                self.forget(&address, now, out);
            }
        }
        self.changes = changes;
        self.settle(now, out);
    }

    fn handle_timeout(&mut self, now: Now, out: &mut ConsumerActions) {
        if self.is_stopped() {
            return;
        }
        self.handle_message_timeouts(now, out);
        self.handle_slowdown_timeouts(now, out);
        self.measure(now);
        self.handle_link_timeouts(now, out);
        self.directory.handle_timeout(now, &mut out.net);
        self.settle(now, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; looks at each connection.
    /// It may be in the past when the last byte of a connection that is to be closed was written.
    fn poll_timeout(&self) -> Option<Instant> {
        if self.is_stopped() {
            return None;
        }
        let links = self.links.values().filter_map(Link::poll_timeout);
        let nsqds = self.nsqds.values();
        let nsqds = nsqds.flat_map(|nsqd| [nsqd.redial_at, nsqd.slowdown.poll_timeout()]);
        let others = [
            self.in_flight.next_wake(),
            self.slowdown.poll_timeout(),
            self.spread.until,
            self.measure_at,
            self.directory.poll_timeout(),
        ];
        links.chain(nsqds.chain(others).flatten()).min()
    }

    fn overdue(&self, now: Now, ids: &mut Vec<DialId>) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let overdue = self.links.iter().filter(|(_, link)| {
            is_due(link.connection.poll_timeout())
                || matches!(link.stage, Stage::Subscribing { until } if until <= now.instant)
        });
        ids.extend(overdue.map(|(id, _)| *id));
    }

    fn postpone(&mut self, id: DialId, until: Instant) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.connection.postpone(until);
        if let Stage::Subscribing { until: deadline } = &mut link.stage {
            *deadline = until.max(*deadline);
        }
    }

    /// Empties `spare` and fills it with the bytes to write next to this connection, none if there
    /// are none.
    ///
    /// A call that gives none also says that what was given before is written: a connection that is
    /// to be closed is closed then, in the `handle_timeout` that
    /// [`poll_timeout`](Self::poll_timeout) asks for.
    fn swap_transmit(&mut self, id: DialId, now: Now, spare: &mut Vec<u8>) {
        spare.clear();
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.connection.swap_transmit(spare);
        if let Stage::Closing { until } = &mut link.stage
            && spare.is_empty()
        {
            *until = now.instant.min(*until);
        }
    }

    /// Nothing drives it any more, so its connections are gone, and nobody is told so. It is
    /// stopped; answers to messages are [`ConnectionLost`](super::AnswerError::ConnectionLost).
    fn abort(&mut self) {
        self.phase = Phase::Stopped;
        self.directory.stop();
        self.links.clear();
        self.in_flight = InFlight::default();
        for nsqd in self.nsqds.values_mut() {
            nsqd.link = None;
            nsqd.redial_at = None;
        }
    }

    fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }
}
