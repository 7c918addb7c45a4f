//! What happens to connections.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::super::actions::DialId;
use super::super::connection::Negotiated;
use super::super::error::{ConnectionError, readable};
use super::super::figures::code_of;
use super::super::frame::Received;
use super::actions::{ConsumerActions, ConsumerEvent, Delivery, DeliveryKey};
use super::in_flight::TimeLimits;
use super::link::{Incoming, Stage, is_permanent};
use super::options::{BackoffScope, RdyShares};
use super::rdy::Prospects;
use super::slowdown::{Signal, Slowdown};
use super::{Consumer, FLUSH_TIMEOUT, HEALTHY_AFTER};
use crate::protocol::frame::{CLOSE_WAIT, OK};
use crate::time::{Instant, Now};

impl Consumer {
    pub(super) fn handle_frame(
        &mut self,
        id: DialId,
        frame: Incoming,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), ConnectionError> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        match (frame, link.stage) {
            (Incoming::Authenticated(identity), _) => {
                out.events.push(ConsumerEvent::Authenticated { nsqd: link.nsqd.clone(), identity });
            }
            (Incoming::Opened(negotiated), _) => self.subscribe(id, &negotiated, now),
            (Incoming::Response(text), Stage::Subscribing { .. }) if text == OK => {
                self.subscribed(id, now, out);
            }
            (Incoming::Response(text), Stage::Draining { until, .. }) if text == CLOSE_WAIT => {
                link.stage = Stage::Draining { until, is_acknowledged: true };
            }
            // The server is told all that there is to tell, and what it says changes nothing.
            (_, Stage::Closing { .. }) => {}
            (Incoming::Response(text), _) => {
                return Err(ConnectionError::UnexpectedResponse(readable(&text)));
            }
            (Incoming::Error(text), Stage::Subscribed | Stage::Draining { .. }) => {
                self.refused(id, &text, out);
            }
            (Incoming::Error(text), _) => return Err(ConnectionError::Refused(readable(&text))),
            (Incoming::Message(message), Stage::Subscribed | Stage::Draining { .. }) => {
                return self.receive(id, message, now, out);
            }
            (Incoming::Message(_), _) => return Err(ConnectionError::UnexpectedMessage),
        }
        Ok(())
    }

    fn subscribe(&mut self, id: DialId, negotiated: &Negotiated, now: Now) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.limits = TimeLimits {
            msg_timeout: negotiated.msg_timeout,
            max_msg_timeout: negotiated.max_msg_timeout,
            auto_touch: self.options.auto_touch,
        };
        link.connection.subscribe(&self.topic, &self.channel);
        let until = now.instant + self.options.connection.handshake_timeout;
        link.stage = Stage::Subscribing { until };
    }

    fn subscribed(&mut self, id: DialId, now: Now, out: &mut ConsumerActions) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.stage = Stage::Subscribed;
        link.subscribed_at = Some(now.instant);
        (link.since, link.active) = (now.instant, now.instant);
        let negotiated = link.connection.negotiated();
        out.events.push(ConsumerEvent::Subscribed {
            nsqd: link.nsqd.clone(),
            version: negotiated.version.clone(),
            max_rdy_count: negotiated.max_rdy_count,
        });
        if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
            nsqd.subscriptions += 1;
        }
        self.spread.is_dirty = true;
    }

    fn refused(&mut self, id: DialId, text: &Bytes, out: &mut ConsumerActions) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let text = readable(text);
        if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
            nsqd.errors.record(code_of(&text), text.clone());
        }
        out.events.push(ConsumerEvent::Refused { nsqd: link.nsqd.clone(), text });
    }

    fn receive(
        &mut self,
        id: DialId,
        message: Received,
        now: Now,
        out: &mut ConsumerActions,
    ) -> Result<(), ConnectionError> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        if link.is_flooded() {
            return Err(ConnectionError::TooManyMessages);
        }
        link.active = now.instant;
        if self.options.rdy_shares == RdyShares::Rate {
            link.recent = link.recent.saturating_add(1);
            let interval = self.options.rdy_redistribute_interval;
            self.measure_at.get_or_insert(now.instant + interval);
        }
        let nsqd = link.nsqd.clone();
        let is_draining = link.stage != Stage::Subscribed;
        let limits = link.limits;
        self.totals.received += 1;
        if let Some(nsqd) = self.nsqds.get_mut(&nsqd) {
            nsqd.received += 1;
        }
        let (key, deadline, replaced) =
            self.in_flight.insert(id, message.id, message.attempts, limits, now);
        match replaced {
            Some(key) => self.timed_out(&nsqd, key, out),
            None => link.in_flight += 1,
        }
        if is_draining {
            // The program is not to begin anything new.
            let _ = self.give_back(key, Duration::ZERO, None, now, out);
            return Ok(());
        }
        let max = self.options.max_attempts;
        let exhausted = max > 0 && message.attempts > max;
        if exhausted && !self.options.hand_over_exhausted {
            let (id, attempts) = (message.id, message.attempts);
            self.totals.exhausted += 1;
            out.events.push(ConsumerEvent::Exhausted { nsqd, id, attempts });
            let _ = self.complete(key, now, out);
            return Ok(());
        }
        out.messages.push(Delivery { key, message, nsqd, deadline, exhausted });
        Ok(())
    }

    pub(super) fn timed_out(
        &mut self,
        nsqd: &Arc<str>,
        key: DeliveryKey,
        out: &mut ConsumerActions,
    ) {
        self.totals.timed_out += 1;
        out.events.push(ConsumerEvent::TimedOut { nsqd: nsqd.clone(), key });
    }

    /// Wants an nsqd no more.
    pub(super) fn forget(&mut self, address: &str, now: Now, out: &mut ConsumerActions) {
        let Some(nsqd) = self.nsqds.remove(address) else {
            return;
        };
        if let Some(id) = nsqd.link {
            out.events.push(ConsumerEvent::Draining { nsqd: Arc::from(address) });
            self.drain(id, now.instant + self.options.drain_timeout, out);
        }
    }

    /// Starts to close a connection, or shortens its time.
    pub(super) fn drain(&mut self, id: DialId, at: Instant, out: &mut ConsumerActions) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match &mut link.stage {
            Stage::Handshake | Stage::Subscribing { .. } => {
                out.net.close.push(id);
                self.drop_link(id, out);
            }
            Stage::Subscribed => {
                link.connection.start_close();
                link.rdy = 0;
                link.stage = Stage::Draining { until: at, is_acknowledged: false };
                self.spread.is_dirty = true;
            }
            Stage::Draining { until, .. } => *until = at.min(*until),
            Stage::Closing { .. } => {}
        }
    }

    /// Closes what is drained, or has had its time: the messages that are left are requeued.
    pub(super) fn close_drained(&mut self, now: Now, out: &mut ConsumerActions) {
        for (id, link) in &mut self.links {
            let Stage::Draining { until, is_acknowledged } = link.stage else {
                continue;
            };
            if until > now.instant && !(is_acknowledged && link.in_flight == 0) {
                continue;
            }
            for message in self.in_flight.give_up(*id) {
                link.connection.requeue(&message, Duration::ZERO);
                self.totals.requeued += 1;
                if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) {
                    nsqd.requeued += 1;
                }
            }
            link.in_flight = 0;
            link.stage = Stage::Closing { until: now.instant + FLUSH_TIMEOUT };
            self.spread.is_dirty = true;
            // Even with nothing to write: the call that gives none closes it.
            out.net.transmit(*id);
        }
    }

    pub(super) fn handle_link_timeouts(&mut self, now: Now, out: &mut ConsumerActions) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        let mut over = Vec::new();
        for (id, link) in &mut self.links {
            let error = if let Stage::Subscribing { until } = link.stage
                && until <= now.instant
            {
                Some(ConnectionError::NoAnswer)
            } else if let Stage::Closing { until } = link.stage
                && until <= now.instant
            {
                Some(ConnectionError::Stopped)
            } else {
                link.connection.handle_timeout(now).err()
            };
            over.extend(error.map(|error| (*id, error)));
        }
        for (id, error) in over {
            match self.links.get_mut(&id) {
                Some(link) if matches!(link.stage, Stage::Closing { .. }) => {
                    out.net.close(id, &mut link.connection);
                }
                _ => out.net.close.push(id),
            }
            self.end_link(id, error, now, out);
        }
        let due = |(address, nsqd): (&Arc<str>, &super::Nsqd)| {
            is_due(nsqd.redial_at).then(|| address.clone())
        };
        let due: Vec<Arc<str>> = self.nsqds.iter().filter_map(due).collect();
        for address in due {
            self.dial(&address, now, out);
        }
    }

    /// A connection or a dial is over. It is dialled again unless it is not wanted any more.
    pub(super) fn end_link(
        &mut self,
        id: DialId,
        error: ConnectionError,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let (address, stage) = (link.nsqd.clone(), link.stage);
        let lived = link.subscribed_at.map(|at| now.instant.saturating_since(at));
        let healthy = lived.is_some_and(|lived| lived >= HEALTHY_AFTER);
        self.drop_link(id, out);
        if matches!(stage, Stage::Closing { .. }) {
            return;
        }
        let is_running = self.is_running();
        let Some(nsqd) = self.nsqds.get_mut(&address).filter(|_| is_running) else {
            let event = ConsumerEvent::Disconnected { nsqd: address, error, redial_after: None };
            out.events.push(event);
            return;
        };
        if matches!(stage, Stage::Draining { .. }) {
            // It was removed, and added again since.
            let event = ConsumerEvent::Disconnected { nsqd: address, error, redial_after: None };
            out.events.push(event);
            return;
        }
        nsqd.errors.record(error.code(), error.to_string());
        if is_permanent(&error) {
            nsqd.is_given_up = true;
            out.events.push(ConsumerEvent::GaveUp { nsqd: address, error });
            return;
        }
        let wait = if healthy {
            nsqd.backoff.reset();
            Duration::ZERO
        } else {
            nsqd.backoff.next_wait()
        };
        let redial_after = Some(wait);
        let nsqd = address.clone();
        out.events.push(ConsumerEvent::Disconnected { nsqd, error, redial_after });
        if healthy {
            self.dial(&address, now, out);
            self.directory.ask_soon(now);
        } else if let Some(nsqd) = self.nsqds.get_mut(&address) {
            nsqd.redial_at = Some(now.instant + wait);
        }
    }

    /// Takes a connection out, with all that is in flight on it.
    fn drop_link(&mut self, id: DialId, out: &mut ConsumerActions) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        self.in_flight.give_up(id);
        self.spread.is_dirty = true;
        if let Some(nsqd) = self.nsqds.get_mut(&link.nsqd)
            && nsqd.link == Some(id)
        {
            nsqd.link = None;
        }
        if matches!(link.stage, Stage::Closing { .. }) {
            out.events.push(ConsumerEvent::Closed { nsqd: link.nsqd });
        }
    }

    /// What an answer to a message of this connection says about the program.
    pub(super) fn signal(
        &mut self,
        id: DialId,
        signal: Signal,
        now: Now,
        out: &mut ConsumerActions,
    ) {
        if !self.is_running() {
            return;
        }
        let (nsqd, slowdown) = match self.options.backoff_scope {
            BackoffScope::Consumer => (None, &mut self.slowdown),
            BackoffScope::Connection => {
                let Some(link) = self.links.get(&id) else { return };
                let Some(nsqd) = self.nsqds.get_mut(&link.nsqd) else { return };
                (Some(link.nsqd.clone()), &mut nsqd.slowdown)
            }
        };
        if !slowdown.signal(signal, now) {
            return;
        }
        out.events.push(match slowdown.poll_timeout() {
            None => ConsumerEvent::BackoffOver { nsqd },
            Some(until) => ConsumerEvent::Backoff {
                nsqd,
                level: slowdown.level(),
                wait: until.saturating_since(now.instant),
            },
        });
        // Now, so that it goes out before the answer that caused it.
        self.note_prospects(id);
        self.spread_rdy(now);
    }

    /// An answer to a message of `cause` makes the consumer wait: notes where the test is likely to
    /// get one.
    fn note_prospects(&mut self, cause: DialId) {
        for (id, link) in &mut self.links {
            let is_cause = *id == cause;
            // The message that was answered is not in flight any more.
            let in_use = link.in_flight.saturating_add(u32::from(is_cause));
            link.prospects = Prospects { is_full: link.rdy > 0 && in_use >= link.rdy, is_cause };
        }
    }

    /// Lets tests begin.
    pub(super) fn handle_slowdown_timeouts(&mut self, now: Now, out: &mut ConsumerActions) {
        let is_running = self.is_running();
        let mut begin = |nsqd: Option<&Arc<str>>, slowdown: &mut Slowdown| {
            let begins = slowdown.handle_timeout(now);
            if begins && is_running {
                out.events.push(ConsumerEvent::BackoffTest { nsqd: nsqd.cloned() });
            }
            begins
        };
        self.spread.is_dirty |= begin(None, &mut self.slowdown);
        for (address, nsqd) in &mut self.nsqds {
            self.spread.is_dirty |= begin(Some(address), &mut nsqd.slowdown);
        }
    }
}
