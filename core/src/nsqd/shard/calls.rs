//! HTTP requests of a shard: few at a time, the rest in a queue, each for somebody who may be gone
//! when the answer comes.

use alloc::collections::VecDeque;

use super::Shard;
use crate::arena::{Arena, CallId, ConnId, TopicId};
use crate::http::call::{Call, CallFailure, CallResult};
use crate::nsqd::actions::Actions;
use crate::nsqd::config::CALLS_MAX;
use crate::time::Now;

/// The requests under way, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Calls {
    under_way: Arena<CallId, Purpose>,
    waiting: VecDeque<Purpose>,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// The auth server whose turn it is, about this connection.
    Auth(ConnId),
    /// One of the nsqlookupds that a new topic asks for its channels.
    Channels(TopicId, usize),
}

impl Calls {
    /// Asks for a request. It is put together when it is its turn.
    pub(super) fn push(&mut self, purpose: Purpose) {
        self.waiting.push_back(purpose);
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Forgets what waits: the node stops.
    pub(super) fn forget(&mut self) {
        self.waiting = VecDeque::new();
    }
}

impl Shard {
    /// The outcome of one of [`Actions::calls`]. To be called exactly once for each.
    pub fn handle_called(&mut self, call: CallId, result: CallResult, now: Now, out: &mut Actions) {
        if let Some(purpose) = self.calls.under_way.remove(call) {
            self.called(purpose, result, now, out);
        }
        self.settle_all(now, out);
    }

    /// Starts as many requests as may be under way. Returns whether anything happened.
    pub(super) fn start_calls(&mut self, now: Now, out: &mut Actions) -> bool {
        let mut happened = false;
        while self.calls.under_way.len() < CALLS_MAX
            && let Some(purpose) = self.calls.waiting.pop_front()
        {
            happened = true;
            match self.call(purpose, out) {
                Some(Ok(call)) => {
                    let id = self.calls.under_way.insert(purpose);
                    out.calls.push((id, call));
                }
                Some(Err(failure)) => self.called(purpose, Err(failure), now, out),
                // Nobody wants to know any more.
                None => {}
            }
        }
        happened
    }

    fn call(&mut self, purpose: Purpose, out: &mut Actions) -> Option<Result<Call, CallFailure>> {
        match purpose {
            Purpose::Auth(conn) => self.auth_call(conn),
            Purpose::Channels(topic, at) => self.channels_call(topic, at, out),
        }
    }

    fn called(&mut self, purpose: Purpose, result: CallResult, now: Now, out: &mut Actions) {
        match purpose {
            Purpose::Auth(conn) => self.auth_called(conn, result, now, out),
            Purpose::Channels(topic, at) => self.channels_called(topic, at, result, now, out),
        }
    }
}
