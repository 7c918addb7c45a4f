//! Clients that plug in: whatever talks to the servers from outside, scripted or real.
//!
//! A [`Client`] is a program on a machine of its own. The world tells it what happens, and it asks
//! the [`Context`] for what a program may do: dial, write, close, ask an nsqlookupd or an nsqd over
//! HTTP, have itself woken. It has no clock and no chance but the context's, so that a seed replays
//! it.
//!
//! [`publisher`] and [`subscriber`] are the clients that try everything the protocol allows,
//! [`pool`] and [`worker`] the ones that programs use, [`raw`] those that keep to no protocol. A
//! program that reads messages and publishes others is a [`handler`]; one that needs more drives
//! the core's machines with [`wires`].

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sansq_core::http::call::{Call, CallResult, Url};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{AdminReply, AdminRequest};
use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};

use crate::env::Env;
use crate::events::{Alarm, DeadlineOwner, WorldEvent};
use crate::model::{MessageNumber, PublishOutcome, body_of};
use crate::net::{End, Endpoint, LinkId, Side};
use crate::oracles::{Observation, Target, Violation};

pub mod handler;
pub mod pool;
pub mod publisher;
pub mod raw;
pub mod subscriber;
pub mod wires;
pub mod worker;

/// A program outside the servers. All methods have defaults that do nothing.
///
/// What it does in answer to a call it asks of the context, within the call; nothing else is looked
/// at.
pub trait Client: fmt::Debug {
    /// The program starts; first of all calls.
    fn started(&mut self, _: &mut Context<'_>) {}

    /// A dial has succeeded.
    fn connected(&mut self, _: LinkId, _: &mut Context<'_>) {}

    /// Bytes have come; what is left in `input` is there again at the next call, with more.
    fn input(&mut self, _: LinkId, input: &mut BytesMut, _: &mut Context<'_>) {
        input.clear();
    }

    /// Everything is written that was asked for, after the connection took no more for a while.
    fn writable(&mut self, _: LinkId, _: &mut Context<'_>) {}

    /// The dial has failed, or the connection is gone, and not by [`Context::close`].
    fn closed(&mut self, _: LinkId, _: Gone, _: &mut Context<'_>) {}

    /// What became of [`Context::call`].
    fn called(&mut self, _: u64, _: CallResult, _: &mut Context<'_>) {}

    /// What became of [`Context::ask`]: [`Gone::Refused`] if the nsqd does not run,
    /// [`Gone::Broken`] if it died over it.
    fn replied(&mut self, _: u64, _: Result<AdminReply, Gone>, _: &mut Context<'_>) {}

    /// Looked at regularly: whether it holds no more than its limits allow.
    ///
    /// # Errors
    /// What it holds.
    fn check_held(&self) -> Result<(), String> {
        Ok(())
    }

    /// The time of [`Context::arm`] has come.
    fn timeout(&mut self, _: &mut Context<'_>) {}

    /// The time of [`Context::wake`] has come.
    fn woken(&mut self, _: u64, _: &mut Context<'_>) {}

    /// From now on nothing breaks any more, and the client is to come to its end.
    fn calm(&mut self, _: &mut Context<'_>) {}

    /// The process died: connections, requests and wakes are gone, and it starts anew. It is to
    /// forget what a process forgets.
    fn crashed(&mut self, context: &mut Context<'_>) {
        self.started(context);
    }

    /// Whether it has come to its end; asked when the calm has begun.
    ///
    /// # Errors
    /// What it still has to do. If it has not done so in five minutes, the run has failed.
    fn check_done(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether it keeps to the protocol. That one which does is refused is a violation.
    fn is_polite(&self) -> bool {
        true
    }
}

/// Why a connection is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gone {
    /// The dial failed.
    Refused,
    /// The server closed it, and everything that it sent was read.
    Ended,
    /// It broke.
    Broken,
}

impl Gone {
    /// What the system says; `None` if it is no error.
    pub const fn text(self) -> Option<&'static str> {
        match self {
            Self::Refused => Some("connection refused"),
            Self::Ended => None,
            Self::Broken => Some("connection reset by peer"),
        }
    }
}

/// What a client may do, and what it may know.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) index: usize,
    pub(crate) life: u32,
    pub(crate) env: &'a mut Env,
    pub(crate) sockets: &'a mut BTreeMap<LinkId, Socket>,
    pub(crate) rng: &'a mut Rng,
    pub(crate) alarm: &'a mut Alarm,
    pub(crate) requests: &'a mut Vec<WorldRequest>,
    pub(crate) next_key: &'a mut u64,
}

/// Something that the world has to carry out.
#[derive(Debug)]
pub(crate) enum WorldRequest {
    Call(u64, Call),
    Ask { node: usize, key: u64, request: AdminRequest },
}

/// A client's end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    input: BytesMut,
    outbox: BytesMut,
    is_connected: bool,
}

impl Context<'_> {
    /// The number of this client.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The clocks.
    pub const fn now(&self) -> Now {
        self.env.now
    }

    /// Chance of this client's own.
    pub const fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// Whether nothing breaks any more.
    pub const fn is_calm(&self) -> bool {
        self.env.calm
    }

    /// How many nsqds there are; see [`nsqd_address`].
    pub const fn nsqds(&self) -> usize {
        self.env.nodes
    }

    /// How many nsqlookupds there are; see [`lookupd_http_address`].
    pub const fn lookupds(&self) -> usize {
        self.env.lookupds
    }

    /// Begins to connect to `host:port`; [`Client::connected`] or [`Client::closed`] follows.
    /// Nobody listens but at the addresses of [`nsqd_address`] and `lookupd-N:4160`.
    pub fn dial(&mut self, address: &str) -> LinkId {
        let nsqd = crate::node::node_of(address).filter(|at| *at < self.env.nodes);
        let lookupd = crate::node::lookupd_of(address).filter(|at| *at < self.env.lookupds);
        let server = match (nsqd, lookupd) {
            (Some(node), _) => Endpoint::Nsqd(node),
            (None, Some(index)) => Endpoint::Lookupd(index),
            (None, None) => Endpoint::Nobody,
        };
        let (client, env) = (Endpoint::Client(self.index), &mut *self.env);
        let link = env.net.dial(client, server, env.now, &mut env.queue);
        self.sockets.insert(link, Socket::default());
        link
    }

    /// Writes; what the connection does not take now is kept, without limit, and written later.
    pub fn write(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(&link) {
            socket.outbox.extend_from_slice(bytes);
            self.flush(link);
        }
    }

    /// Whether a write goes on the wire at once. If not, [`Client::writable`] tells when.
    pub fn is_writable(&self, link: LinkId) -> bool {
        let socket = self.sockets.get(&link);
        socket.is_some_and(|socket| socket.is_connected && socket.outbox.is_empty())
    }

    /// Whether the connection, or the dial, is this client's.
    pub fn is_open(&self, link: LinkId) -> bool {
        self.sockets.contains_key(&link)
    }

    /// Reads, or does not read until told otherwise, so that the server's bytes pile up.
    pub fn set_reading(&mut self, link: LinkId, reads: bool) {
        let env = &mut *self.env;
        if self.sockets.contains_key(&link) {
            env.net.set_wanted(client(link), reads, env.now, &mut env.queue);
        }
    }

    /// Closes the connection, or gives the dial up. What was not written is lost.
    pub fn close(&mut self, link: LinkId) {
        if self.sockets.remove(&link).is_some() {
            let env = &mut *self.env;
            env.net.close(client(link), env.now, &mut env.queue);
        }
    }

    /// Closes the connection with a reset: what is under way is lost.
    pub fn reset(&mut self, link: LinkId) {
        if self.sockets.remove(&link).is_some() {
            let env = &mut *self.env;
            env.net.reset(client(link), env.now, &mut env.queue);
        }
    }

    /// Sends an HTTP request to an nsqlookupd; returns what [`Client::called`] will name it.
    pub fn call(&mut self, call: Call) -> u64 {
        let key = self.key();
        self.requests.push(WorldRequest::Call(key, call));
        key
    }

    /// GETs `path` of an nsqlookupd, with five seconds of time; see [`call`](Self::call).
    ///
    /// # Panics
    /// If `path` is none.
    pub fn get(&mut self, lookupd: usize, path: &str) -> u64 {
        let url = format!("http://{}{path}", lookupd_http_address(lookupd));
        self.call(Call {
            url: Url::parse(&url).expect("host, port and path make a URL"),
            body: None,
            authorization: None,
            connect_timeout: CALL_TIMEOUT,
            timeout: CALL_TIMEOUT,
            answer_len_max: 1024 * 1024,
        })
    }

    /// Asks an nsqd as over its HTTP API; returns what [`Client::replied`] will name it.
    pub fn ask(&mut self, node: usize, request: AdminRequest) -> u64 {
        let key = self.key();
        self.requests.push(WorldRequest::Ask { node, key, request });
        key
    }

    /// Calls [`Client::timeout`] at `deadline`, as one timer does: an earlier deadline replaces a
    /// later one, and one that moved to later rings early, which a machine has to take.
    pub fn arm(&mut self, deadline: Option<Instant>) {
        let machine = DeadlineOwner::Client(self.index);
        self.alarm.arm(machine, deadline, self.env.now, &mut self.env.queue);
    }

    /// Calls [`Client::woken`] with `token` after `delay`.
    pub fn wake(&mut self, delay: Duration, token: u64) {
        let event = WorldEvent::Wake { client: self.index, life: self.life, token };
        self.env.queue.push(self.env.now.instant + delay, event);
    }

    /// Takes note that the client is about to publish a message of `len` bytes (8 at least) on one
    /// nsqd, and returns its number and its body. From now on the judges know it; they are to be
    /// told what became of it, by [`completed`](Self::completed).
    pub fn publishing(
        &mut self,
        node: usize,
        topic: TopicName,
        len: usize,
        delay: Duration,
    ) -> (MessageNumber, Bytes) {
        self.publishing_to(Target::Nsqd(node), topic, len, delay)
    }

    /// The same of a message that goes to whichever nsqd will have it, perhaps to several; `once`:
    /// it is not to be stored twice.
    pub fn publishing_anywhere(
        &mut self,
        topic: TopicName,
        len: usize,
        delay: Duration,
        once: bool,
    ) -> (MessageNumber, Bytes) {
        self.publishing_to(Target::Anywhere { once }, topic, len, delay)
    }

    fn publishing_to(
        &mut self,
        target: Target,
        topic: TopicName,
        len: usize,
        delay: Duration,
    ) -> (MessageNumber, Bytes) {
        let number = self.env.oracles.next_number();
        self.env.observe(Observation::Published { target, topic, len, delay });
        (number, Bytes::from(body_of(number, len)))
    }

    /// What the client was told about a message.
    pub fn completed(&mut self, message: MessageNumber, outcome: PublishOutcome) {
        self.env.observe(Observation::Completed { message, outcome });
    }

    /// The client has done with a message what it is there for, before it finishes it.
    pub fn handled(&mut self, topic: TopicName, channel: ChannelName, body: &[u8]) {
        if let Some(message) = crate::model::number_of(body) {
            self.env.observe(Observation::Handled { topic, channel, message });
        }
    }

    /// From now on the judges expect that whatever is finished on this channel was
    /// [`handled`](Self::handled).
    pub fn handles(&mut self, topic: TopicName, channel: ChannelName) {
        self.env.oracles.expect_handling(topic, channel);
    }

    /// Says that a rule was broken: the run has failed.
    pub fn violate(&mut self, text: impl Into<String>) {
        self.env.judge(Err(Violation::Other(text.into())));
    }

    /// Writes a line into the trace.
    pub fn log(&mut self, what: fmt::Arguments<'_>) {
        self.env.line(format_args!("  client {}: {what}", self.index));
    }

    fn key(&mut self) -> u64 {
        *self.next_key += 1;
        *self.next_key
    }

    fn flush(&mut self, link: LinkId) {
        let env = &mut *self.env;
        if let Some(socket) = self.sockets.get_mut(&link)
            && socket.is_connected
        {
            env.net.write(client(link), &mut socket.outbox, env.now, &mut env.queue);
        }
    }
}

/// A client and what the world keeps for it.
#[derive(Debug)]
pub(crate) struct Slot {
    index: usize,
    pub(crate) client: Box<dyn Client>,
    sockets: BTreeMap<LinkId, Socket>,
    alarm: Alarm,
    rng: Rng,
    pub(crate) requests: Vec<WorldRequest>,
    next_key: u64,
    pub(crate) life: u32,
}

impl Slot {
    pub(crate) fn new(index: usize, client: Box<dyn Client>, rng: Rng) -> Self {
        Self {
            index,
            client,
            sockets: BTreeMap::new(),
            alarm: Alarm::default(),
            rng,
            requests: Vec::new(),
            next_key: 0,
            life: 0,
        }
    }

    /// Calls the client.
    pub(crate) fn with<T>(
        &mut self,
        env: &mut Env,
        call: impl FnOnce(&mut dyn Client, &mut Context<'_>) -> T,
    ) -> T {
        let mut context = Context {
            index: self.index,
            life: self.life,
            env,
            sockets: &mut self.sockets,
            rng: &mut self.rng,
            alarm: &mut self.alarm,
            requests: &mut self.requests,
            next_key: &mut self.next_key,
        };
        call(&mut *self.client, &mut context)
    }

    pub(crate) fn connected(&mut self, link: LinkId, env: &mut Env) {
        if let Some(socket) = self.sockets.get_mut(&link) {
            socket.is_connected = true;
            self.with(env, |client, context| {
                context.flush(link);
                client.connected(link, context);
            });
        }
    }

    pub(crate) fn readable(&mut self, link: LinkId, env: &mut Env) {
        let Some(socket) = self.sockets.get_mut(&link) else { return };
        let read = env.net.read(client(link), &mut socket.input, env.now, &mut env.queue);
        if read.len > 0 {
            let mut input = core::mem::take(&mut socket.input);
            self.with(env, |client, context| client.input(link, &mut input, context));
            if let Some(socket) = self.sockets.get_mut(&link) {
                socket.input = input;
            }
        }
        if read.is_end {
            self.gone(link, Gone::Ended, env);
        }
    }

    pub(crate) fn writable(&mut self, link: LinkId, env: &mut Env) {
        self.with(env, |client, context| {
            context.flush(link);
            if context.is_writable(link) {
                client.writable(link, context);
            }
        });
    }

    pub(crate) fn gone(&mut self, link: LinkId, why: Gone, env: &mut Env) {
        if let Some(socket) = self.sockets.remove(&link) {
            let why = if socket.is_connected { why } else { Gone::Refused };
            env.net.close(client(link), env.now, &mut env.queue);
            self.with(env, |client, context| client.closed(link, why, context));
        }
    }

    pub(crate) fn deadline(&mut self, env: &mut Env) {
        if self.alarm.rings(env.now) {
            self.with(env, |client, context| client.timeout(context));
        }
    }

    /// The process dies and starts anew.
    pub(crate) fn crash(&mut self, env: &mut Env) {
        for link in core::mem::take(&mut self.sockets).into_keys() {
            env.net.reset(client(link), env.now, &mut env.queue);
        }
        self.life += 1;
        self.requests.clear();
        self.alarm = Alarm::default();
        self.with(env, |client, context| client.crashed(context));
    }
}

/// The address of an nsqd, `nsqd-N:4150`.
pub fn nsqd_address(node: usize) -> String {
    format!("{}:4150", crate::node::host_of(node))
}

/// The address of an nsqlookupd's HTTP API, `lookupd-N:4161`.
pub fn lookupd_http_address(lookupd: usize) -> String {
    format!("lookupd-{lookupd}:4161")
}

const fn client(link: LinkId) -> End {
    End { link, side: Side::Client }
}

/// How long a request to an nsqlookupd may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
