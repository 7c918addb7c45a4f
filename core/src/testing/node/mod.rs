//! A whole nsqd on one thread and a clock that is moved by hand.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::arena::{CallId, ConnId, PeerId};
use crate::client::frame::{self, Frame};
use crate::http::call::{Call, CallAnswer, CallResult};
use crate::input::READ_LEN_MAX;
use crate::machine::Machine;
use crate::name::{ChannelName, TopicName};
use crate::nsqd::{
    Actions, AdminReply, AdminRequest, Close, Config, Detached, Event, Peer, PeerAction,
    ReplyToken, Shard, ShardId, ShardMessage, StatsdAction,
};
use crate::protocol::encode;
use crate::rng::Rng;
use crate::storage::memory::MemoryFiles;
use crate::storage::{Metadata, Request};
use crate::time::{Instant, Now};
use crate::transmit::Transmit;

mod turn;

/// An nsqd that a test drives: shards, the lanes between them, a disk in memory, and clients that
/// send bytes and look at frames.
///
/// Each method carries out everything that follows from it, in a fixed order, before it returns.
/// What [`set_holds`](Self::set_holds) names waits instead until the test lets it happen, so that
/// a test can put something in between. Time passes only in [`wait`](Self::wait) and
/// [`advance`](Self::advance).
///
/// A node ends by being dropped, or by [`stop`](Self::stop), [`kill`](Self::kill) or
/// [`lose_power`](Self::lose_power), which give back the disk for the [next one](Self::over).
///
/// ```
/// use core::time::Duration;
///
/// use sansq_core::client::frame::Frame;
/// use sansq_core::nsqd::Config;
/// use sansq_core::testing::Node;
///
/// let mut node = Node::new(2, Config::default());
/// let consumer = node.consumer(0, "orders", "shipping", 1);
/// let producer = node.client(1);
/// node.publish(producer, "orders", "apples");
/// assert_eq!(node.bodies(consumer), ["apples"]);
///
/// // Nobody finishes it, so it comes again after --msg-timeout; heartbeats come meanwhile.
/// node.wait(Duration::from_secs(30));
/// node.send(consumer, b"NOP\n");
/// node.wait(Duration::from_secs(30));
/// let frames = node.frames(consumer);
/// let again = |frame: &&Frame| matches!(frame, Frame::Message(message) if message.attempts == 2);
/// assert_eq!(frames.iter().filter(again).count(), 1);
/// ```
///
/// # Panics
/// All methods panic if a shard breaks its contract with its driver: if it sends something behind
/// a close, closes twice, wakes the driver for nothing, or sends what is no frame; and if an index
/// or a [`ClientId`] is not of this node.
#[derive(Debug)]
pub struct Node {
    /// The clocks. A test may set the wall clock; the other one is for [`wait`](Self::wait).
    pub now: Now,
    /// What was worth a line in the log.
    pub events: Vec<Event>,
    /// Answers that [`admin`](Self::admin) did not return.
    pub replies: BTreeMap<ReplyToken, AdminReply>,
    /// HTTP requests that are not answered yet, oldest first, each with the shard that asks.
    pub calls: Vec<(usize, CallId, Call)>,
    /// What was to be done with the connections to nsqlookupds.
    pub peers: Vec<(PeerId, PeerAction)>,
    /// What was to be sent to statsd. How much memory there is, is answered at once.
    pub statsd: Vec<StatsdAction>,
    /// The disk, with its faults and its room; used if [`Config::disk`] says so.
    pub files: MemoryFiles,
    /// What is asked of the disk and not carried out, oldest first, each with the shard that asks.
    pub requests: VecDeque<(usize, Request)>,
    holds: Holds,
    shards: Vec<Shard>,
    actions: Vec<Actions>,
    links: Vec<Link>,
    /// What clients were sent and have not looked at, in the order in which it came.
    received: Vec<(ClientId, Vec<u8>)>,
    /// Batches between shards, oldest first.
    batches: VecDeque<Batch>,
    /// Connections between shards, oldest first.
    moving: VecDeque<(ClientId, Detached)>,
    tokens: u64,
}

/// A client of a [`Node`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(usize);

/// What waits until a test lets it happen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Holds {
    /// The sockets of connections that a shard closes stay open; see [`Node::close`].
    pub closes: bool,
    /// The disk carries nothing out; see [`Node::carry_out`].
    pub disk: bool,
    /// Batches between shards do not arrive; see [`Node::deliver`].
    pub lanes: bool,
    /// Connections that move to another shard do not arrive; see [`Node::arrive`].
    pub moves: bool,
}

impl Holds {
    /// Everything happens at once.
    pub const NOTHING: Self = Self { closes: false, disk: false, lanes: false, moves: false };
    /// The disk hangs.
    pub const DISK: Self = Self { disk: true, ..Self::NOTHING };
    /// All that takes its time outside the shards waits, but not the disk.
    pub const WAYS: Self = Self { closes: true, disk: false, lanes: true, moves: true };
}

/// A batch from one shard to another.
#[derive(Debug)]
struct Batch {
    from: usize,
    to: usize,
    messages: Vec<ShardMessage>,
}

/// A client's connection, from both ends.
#[derive(Debug)]
struct Link {
    /// The shard that has it, had it last, or gets it.
    shard: usize,
    /// `None` while it moves, and when it is gone.
    conn: Option<ConnId>,
    /// What the client has sent and the shard has not taken.
    input: BytesMut,
    /// What the shard has given out and the client has not taken.
    unsent: Transmit,
    /// The shard does not want to read.
    waits: bool,
    /// The client takes what it is sent.
    reads: bool,
    /// The client sends nothing more.
    has_ended: bool,
    closed: Option<Close>,
    /// The socket is gone. A connection that moves is told when it arrives.
    is_gone: bool,
}

impl Node {
    /// A node on an empty disk, at a fixed time in 2026.
    pub fn new(shards: u16, config: Config) -> Self {
        Self::over(MemoryFiles::new(), shards, config)
    }

    /// A node on what an earlier one left on its disk, at the same fixed time.
    pub fn over(files: MemoryFiles, shards: u16, config: Config) -> Self {
        Self::at(Now::from_millis(STARTED_AT), files, shards, config)
    }

    /// The same at a time of the test's own.
    ///
    /// # Panics
    /// If there are no shards, or if `nsqd.dat` can't be understood.
    pub fn at(now: Now, files: MemoryFiles, shards: u16, config: Config) -> Self {
        let shard = |id| Shard::new(ShardId(id), shards, config.clone(), SEED);
        let mut node = Self {
            now,
            events: Vec::new(),
            replies: BTreeMap::new(),
            calls: Vec::new(),
            peers: Vec::new(),
            statsd: Vec::new(),
            files,
            requests: VecDeque::new(),
            holds: Holds::NOTHING,
            shards: (0..shards).map(shard).collect(),
            actions: (0..shards).map(|_| Actions::default()).collect(),
            links: Vec::new(),
            received: Vec::new(),
            batches: VecDeque::new(),
            moving: VecDeque::new(),
            tokens: 0,
        };
        let contents = node.files.get("nsqd.dat");
        let metadata = contents.map(|contents| {
            Metadata::parse(contents).expect("nsqd.dat can be understood").metadata
        });
        for (shard, out) in node.shards.iter_mut().zip(&mut node.actions) {
            if let Some(metadata) = &metadata {
                shard.load(metadata, |_| None, now, out);
            }
            shard.start(now, out);
        }
        node.run();
        node
    }

    /// The node stops in good order, and the disk carries everything out.
    ///
    /// # Panics
    /// If a connection is left, or the disk is not done with everything after a second.
    pub fn stop(mut self) -> MemoryFiles {
        self.shut_down();
        assert!(self.shards.iter().all(|shard| shard.connections() == 0), "connections are left");
        self.flush();
        self.wait(Duration::from_secs(1));
        let left: Vec<_> = self.shards.iter().filter(|shard| !shard.is_flushed()).collect();
        assert!(left.is_empty(), "the disk is not done with {left:?}");
        self.files
    }

    /// The process dies: what it asked of the disk and was not carried out is not done.
    pub fn kill(self) -> MemoryFiles {
        self.files
    }

    /// The machine loses power: of what was not synced, chance decides what is left.
    pub fn lose_power(self, rng: &mut Rng) -> MemoryFiles {
        let mut files = self.kill();
        files.lose_power(rng);
        files
    }

    /// All shards take nothing new, and end their connections.
    pub fn shut_down(&mut self) {
        self.on_each(|shard, now, out| shard.shut_down(now, out));
    }

    /// What is in memory is written to the disk.
    pub fn flush(&mut self) {
        self.on_each(|shard, now, out| shard.flush(now, out));
    }

    /// The shards, by number.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Calls a shard as its driver does.
    pub fn on_shard<T>(
        &mut self,
        shard: usize,
        call: impl FnOnce(&mut Shard, Now, &mut Actions) -> T,
    ) -> T {
        let result = call(&mut self.shards[shard], self.now, &mut self.actions[shard]);
        self.run();
        result
    }

    fn on_each(&mut self, mut call: impl FnMut(&mut Shard, Now, &mut Actions)) {
        for (shard, out) in self.shards.iter_mut().zip(&mut self.actions) {
            call(shard, self.now, out);
        }
        self.run();
    }

    /// When time has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shards.iter().filter_map(Shard::poll_timeout).min()
    }

    /// Lets time pass, stopping at each deadline on the way.
    pub fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(next) = self.poll_timeout().filter(|next| *next <= end.instant) {
            self.advance(next.saturating_since(self.now.instant));
        }
        self.now = end;
    }

    /// Lets time pass at once: deadlines on the way are noticed late.
    pub fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        for (shard, out) in self.shards.iter_mut().zip(&mut self.actions) {
            shard.handle_timeout(self.now, out);
            let next = shard.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "a timer rings for ever");
        }
        self.run();
    }

    /// Asks as over HTTP; `None` if the answer takes its time, and comes to
    /// [`replies`](Self::replies).
    pub fn admin(&mut self, shard: usize, request: AdminRequest) -> Option<AdminReply> {
        let token = self.ask(shard, request);
        self.replies.remove(&token)
    }

    /// Asks as over HTTP; the answer comes to [`replies`](Self::replies).
    pub fn ask(&mut self, shard: usize, request: AdminRequest) -> ReplyToken {
        self.tokens += 1;
        let token = ReplyToken(self.tokens);
        self.on_shard(shard, |shard, now, out| shard.handle_admin(request, token, now, out));
        token
    }

    /// The oldest of [`calls`](Self::calls) is answered.
    pub fn answer(&mut self, status: u16, body: &str) {
        self.called(Ok(CallAnswer { status, body: Bytes::copy_from_slice(body.as_bytes()) }));
    }

    /// The oldest of [`calls`](Self::calls) comes to this.
    pub fn called(&mut self, result: CallResult) {
        let (shard, id, _) = self.calls.remove(0);
        self.on_shard(shard, |shard, now, out| shard.handle_called(id, result, now, out));
    }
}

/// Clients.
impl Node {
    /// A client connects to `shard`; it has sent nothing yet.
    pub fn connect(&mut self, shard: usize) -> ClientId {
        let client = ClientId(self.links.len());
        let port = 40_000_u16.wrapping_add(self.links.len() as u16);
        let peer = Peer::Tcp(([127, 0, 0, 1], port).into());
        let conn = self.shards[shard].accept(peer, self.now, &mut self.actions[shard]);
        self.links.push(Link {
            shard,
            conn: Some(conn),
            input: BytesMut::new(),
            unsent: Transmit::new(),
            waits: false,
            reads: true,
            has_ended: false,
            closed: None,
            is_gone: false,
        });
        self.run();
        client
    }

    /// A client that has sent the magic.
    pub fn client(&mut self, shard: usize) -> ClientId {
        let client = self.connect(shard);
        self.send(client, b"  V2");
        client
    }

    /// A client that is subscribed and has said RDY, and has taken the answer to SUB.
    ///
    /// # Panics
    /// If it is refused.
    pub fn consumer(&mut self, shard: usize, topic: &str, channel: &str, rdy: u32) -> ClientId {
        let client = self.client(shard);
        let mut commands = Vec::new();
        encode::subscribe(&topic_name(topic), &channel_name(channel), &mut commands);
        self.send(client, &commands);
        assert_eq!(self.frames(client), [ok()], "the answer to SUB");
        commands.clear();
        encode::ready(rdy, &mut commands);
        self.send(client, &commands);
        client
    }

    /// A client publishes a message, and takes the answer.
    ///
    /// # Panics
    /// If it is refused, or if something else comes.
    pub fn publish(&mut self, client: ClientId, topic: &str, body: impl AsRef<[u8]>) {
        let mut command = Vec::new();
        encode::publish(&topic_name(topic), body.as_ref(), &mut command);
        self.send(client, &command);
        assert_eq!(self.frames(client), [ok()], "the answer to PUB");
    }

    /// A client sends bytes. They are kept while its shard does not want to read.
    pub fn send(&mut self, client: ClientId, bytes: &[u8]) {
        self.links[client.0].input.extend_from_slice(bytes);
        if !self.links[client.0].waits {
            self.input(client);
        }
        self.run();
    }

    /// Sends as much of `bytes` as a driver would read just now, and cuts it off.
    pub fn feed(&mut self, client: ClientId, bytes: &mut &[u8]) {
        while !bytes.is_empty() && !self.links[client.0].waits && !self.is_closed(client) {
            let (part, rest) = bytes.split_at(bytes.len().min(READ_LEN_MAX));
            *bytes = rest;
            self.send(client, part);
        }
    }

    /// How many bytes the client has sent and its shard has not taken.
    pub fn unread(&self, client: ClientId) -> usize {
        self.links[client.0].input.len()
    }

    /// The client sends nothing more.
    pub fn half_close(&mut self, client: ClientId) {
        let link = &mut self.links[client.0];
        link.has_ended = true;
        if let Some(conn) = link.conn {
            let shard = link.shard;
            self.on_shard(shard, |shard, now, out| shard.handle_eof(conn, now, out));
        }
    }

    /// The client's socket is gone, whoever closed it.
    pub fn close(&mut self, client: ClientId) {
        self.links[client.0].closed.get_or_insert(Close::Now);
        self.gone(client);
        self.run();
    }

    /// Whether the client takes what it is sent; what piled up comes with the switch.
    pub fn set_reads(&mut self, client: ClientId, reads: bool) {
        self.links[client.0].reads = reads;
        self.write(client);
        self.run();
    }

    /// The bytes that came since the last look.
    pub fn received(&mut self, client: ClientId) -> Vec<u8> {
        let is_its = |(to, _): &mut (ClientId, Vec<u8>)| *to == client;
        self.received.extract_if(.., is_its).flat_map(|(_, bytes)| bytes).collect()
    }

    /// What came to all clients since the last look, in the order in which it came.
    pub fn all_received(&mut self) -> Vec<(ClientId, Vec<u8>)> {
        core::mem::take(&mut self.received)
    }

    /// The frames that came since the last look.
    pub fn frames(&mut self, client: ClientId) -> Vec<Frame> {
        let mut bytes = BytesMut::from(&self.received(client)[..]);
        let mut frames = Vec::new();
        while let Some(frame) = frame::decode(&mut bytes, usize::MAX).expect("a shard sends frames")
        {
            frames.push(frame);
        }
        assert!(bytes.is_empty(), "half a frame: {}", bytes.escape_ascii());
        frames
    }

    /// The bodies of the messages that came since the last look.
    ///
    /// # Panics
    /// If something else came.
    pub fn bodies(&mut self, client: ClientId) -> Vec<Bytes> {
        let body = |frame| match frame {
            Frame::Message(message) => message.body,
            Frame::Response(text) | Frame::Error(text) => {
                panic!("a message is expected, not {}", text.escape_ascii())
            }
        };
        self.frames(client).into_iter().map(body).collect()
    }

    /// Whether the connection is closed, or will be when everything is sent.
    pub fn is_closed(&self, client: ClientId) -> bool {
        self.links[client.0].closed.is_some()
    }

    /// How the connection is closed.
    pub fn close_of(&self, client: ClientId) -> Option<Close> {
        self.links[client.0].closed
    }

    /// Whether the socket is gone.
    pub fn is_gone(&self, client: ClientId) -> bool {
        self.links[client.0].is_gone
    }

    /// The shard that has the connection, had it last, or gets it.
    pub fn shard_of(&self, client: ClientId) -> usize {
        self.links[client.0].shard
    }
}

/// What waits.
impl Node {
    /// Says what waits from now on; what waited and is not named any more happens now.
    pub fn set_holds(&mut self, holds: Holds) {
        self.holds = holds;
        self.run();
    }

    /// What waits at present.
    pub const fn holds(&self) -> Holds {
        self.holds
    }

    /// The batches under way, oldest first: sender and receiver.
    pub fn batches(&self) -> Vec<(usize, usize)> {
        self.batches.iter().map(|batch| (batch.from, batch.to)).collect()
    }

    /// A batch arrives: the oldest from the sender to the receiver of number `at`, since these keep
    /// their order.
    pub fn deliver(&mut self, at: usize) {
        let Batch { from, to, .. } = self.batches[at];
        let is_it = |batch: &Batch| (batch.from, batch.to) == (from, to);
        let first = self.batches.iter().position(is_it).unwrap_or(at);
        self.pass(first);
        self.run();
    }

    /// How many connections are under way between shards.
    pub fn moving(&self) -> usize {
        self.moving.len()
    }

    /// Connection number `at` of those under way arrives, oldest first.
    pub fn arrive(&mut self, at: usize) {
        self.attach(at);
        self.run();
    }

    /// The disk carries out number `at` of [`requests`](Self::requests), and the shard hears of it.
    pub fn carry_out(&mut self, at: usize) {
        self.serve(at);
        self.run();
    }
}

/// The answer to what succeeds.
const fn ok() -> Frame {
    Frame::Response(Bytes::from_static(b"OK"))
}

fn topic_name(topic: &str) -> TopicName {
    TopicName::new(topic).expect("the topic has a valid name")
}

fn channel_name(channel: &str) -> ChannelName {
    ChannelName::new(channel).expect("the channel has a valid name")
}

/// When a node starts, in milliseconds of the wall clock: 2026-09-09.
const STARTED_AT: u64 = 1_789_000_000_000;

/// What all shards are seeded with.
const SEED: u64 = 7;
