//! Requests over HTTP: those of nsqds and clients to nsqlookupds, and those of clients to nsqds.

use core::time::Duration;

use sansq_core::arena::CallId;
use sansq_core::http::call::{Call, CallFailure};
use sansq_core::nsqd::{AdminReply, AdminRequest, ChannelOp, ReplyToken, TopicOp};

use super::World;
use crate::chance::Chance;
use crate::client::{Gone, WorldRequest};
use crate::events::WorldEvent;
use crate::net::Process;
use crate::node::{Node, lookupd_of};
use crate::oracles::{Discard, Observation};

/// An HTTP request; no call if it takes too long.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) caller: Caller,
    pub(super) call: Option<Call>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    Shard { node: usize, shard: usize, id: CallId },
    Client(Asker),
}

/// A process of a client that waits for something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) client: usize,
    pub(super) life: u32,
    pub(super) key: u64,
}

impl World {
    /// Asks an nsqd as over its HTTP API.
    pub(super) fn ask(&mut self, node: usize, request: AdminRequest, asker: Option<Asker>) {
        if !self.nodes.get(node).is_some_and(Node::is_up) {
            return self.replied(asker, Err(Gone::Refused));
        }
        let until = self.paused.get(&Process::Nsqd(node)).copied();
        if let Some(until) = until.filter(|until| *until > self.env.now.instant) {
            self.env.queue.push(until, WorldEvent::Ask(self.next_call));
            self.asks.insert(self.next_call, (node, request, asker));
            self.next_call += 1;
            return;
        }
        self.next_token += 1;
        let token = ReplyToken(self.next_token);
        self.tokens.insert(token, (node, asker));
        if let Some(discard) = discard_of(node, &request) {
            self.env.observe(Observation::Discarding(discard));
            self.discards.insert(token, discard);
        }
        self.nodes[node].admin(request, token, &mut self.env);
    }

    /// A request to empty or delete something is answered, or will not be.
    pub(super) fn discarded(&mut self, token: ReplyToken) {
        if let Some(discard) = self.discards.remove(&token) {
            self.env.observe(Observation::Discarded(discard));
        }
    }

    pub(super) fn replied(&mut self, asker: Option<Asker>, reply: Result<AdminReply, Gone>) {
        let Some(Asker { client, life, key }) = asker else { return };
        let slot = &mut self.clients[client];
        if slot.life == life {
            slot.with(&mut self.env, |client, context| client.replied(key, reply, context));
        }
    }

    /// Takes the replies of the admin interfaces.
    pub(super) fn take_replies(&mut self) {
        for node in 0..self.nodes.len() {
            for (token, reply) in core::mem::take(&mut self.nodes[node].replies) {
                self.env.line(format_args!("  nsqd {node} replies to {token:?}"));
                self.discarded(token);
                match (reply, self.tokens.remove(&token)) {
                    (reply, Some((_, Some(asker)))) => self.replied(Some(asker), Ok(reply)),
                    (AdminReply::Stats(stats), Some((_, None))) => {
                        self.stats[node] = Some(*stats);
                    }
                    // A pause of something that does not exist.
                    (AdminReply::Done | AdminReply::Refused(_), Some((_, None))) => {}
                    (other, token) => {
                        self.violate(format!("{other:?} is no reply to {token:?}"));
                    }
                }
            }
        }
    }

    /// Takes the requests of the nsqds and of the clients. Most take milliseconds, some too long.
    pub(super) fn take_calls(&mut self) {
        for node in 0..self.nodes.len() {
            for (shard, id, call) in core::mem::take(&mut self.nodes[node].calls) {
                self.send_call(Caller::Shard { node, shard, id }, call);
            }
        }
        for client in 0..self.clients.len() {
            while !self.clients[client].requests.is_empty() {
                let life = self.clients[client].life;
                for request in core::mem::take(&mut self.clients[client].requests) {
                    match request {
                        WorldRequest::Call(key, call) => {
                            self.send_call(Caller::Client(Asker { client, life, key }), call);
                        }
                        WorldRequest::Ask { node, key, request } => {
                            self.ask(node, request, Some(Asker { client, life, key }));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn send_call(&mut self, caller: Caller, call: Call) {
        let slow = !self.env.calm && self.http.percent(10);
        let delay = self.http.within(if slow { 2 * call.timeout } else { HTTP_DELAY_MAX });
        let at = self.env.now.instant + delay.min(call.timeout);
        self.env.queue.push(at, WorldEvent::Call(self.next_call));
        let call = (delay < call.timeout).then_some(call);
        self.calls.insert(self.next_call, UnderWay { caller, call });
        self.next_call += 1;
    }

    /// An nsqd is gone: nobody waits for the answers to its requests, and requests that it had not
    /// taken when it stood still are not the next process's.
    pub(super) fn drop_calls(&mut self, of: usize) {
        let asks = self.asks.iter().filter(|(_, (node, ..))| *node == of);
        for number in asks.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some((_, _, asker)) = self.asks.remove(&number) {
                self.replied(asker, Err(Gone::Broken));
            }
        }
        self.calls.retain(
            |_, under_way| !matches!(under_way.caller, Caller::Shard { node, .. } if node == of),
        );
        self.nodes[of].calls.clear();
    }

    /// An nsqlookupd answers an HTTP request. The way back takes no time.
    pub(super) fn call(&mut self, number: u64) {
        let Some(UnderWay { caller, call }) = self.calls.remove(&number) else { return };
        let from = match caller {
            Caller::Shard { node, .. } => Process::Nsqd(node),
            Caller::Client(asker) => Process::Client(asker.client),
        };
        let result = match call {
            None => Err(CallFailure::TimedOut),
            Some(call) => {
                let to = lookupd_of(call.url.host()).filter(|at| *at < self.directories.len());
                match to {
                    Some(index) if self.is_out_of_reach(from, Process::Lookupd(index)) => {
                        Err(CallFailure::TimedOut)
                    }
                    Some(index) => self.directories[index].answer(&call, &mut self.env),
                    None => Err(CallFailure::Failed("no such host".into())),
                }
            }
        };
        match caller {
            Caller::Shard { node, shard, id } => {
                self.nodes[node].called(shard, id, result, &mut self.env);
            }
            Caller::Client(Asker { client, life, key }) => {
                let slot = &mut self.clients[client];
                if slot.life == life {
                    slot.with(&mut self.env, |client, context| client.called(key, result, context));
                }
            }
        }
    }

    /// Whether one of the two can't be heard by the other, or stands still.
    pub(super) fn is_out_of_reach(&self, from: Process, to: Process) -> bool {
        let now = self.env.now.instant;
        self.env.net.is_cut(from, to)
            || self.env.net.is_cut(to, from)
            || self.paused.get(&to).is_some_and(|until| *until > now)
    }
}

/// What a request to an nsqd empties or deletes.
fn discard_of(node: usize, request: &AdminRequest) -> Option<Discard> {
    match request {
        AdminRequest::Topic(topic, TopicOp::Delete | TopicOp::Empty) => {
            Some(Discard { node, topic: *topic, channel: None })
        }
        AdminRequest::Channel(topic, channel, ChannelOp::Delete | ChannelOp::Empty) => {
            Some(Discard { node, topic: *topic, channel: Some(*channel) })
        }
        AdminRequest::Channel(..)
        | AdminRequest::Info
        | AdminRequest::Lookupds(_)
        | AdminRequest::Ping
        | AdminRequest::Publish { .. }
        | AdminRequest::Stats(_)
        | AdminRequest::Topic(..) => None,
    }
}

/// How long an HTTP request to an nsqlookupd takes, most often.
const HTTP_DELAY_MAX: Duration = Duration::from_millis(20);
