//! A node without a runtime: shards, lanes, clients' bytes and a disk in memory, driven by hand and
//! in a fixed order.
#![expect(unreachable_pub, reason = "what several test programs share")]

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use sansq_core::arena::{CallId, ConnId, PeerId};
use sansq_core::http::call::{Call, CallAnswer, CallResult};
use sansq_core::input::READ_LEN_MAX;
use sansq_core::nsqd::http::Memory;
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, Close, Config, Event, Peer, PeerAction, ReadState,
    ReplyToken, Shard, ShardId, StatsdAction,
};
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{Completion, Metadata, Request};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

/// A client of a [`Node`], by number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Client(pub usize);

/// What a client was sent, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    Response(String),
    Error(String),
    Message { id: String, attempts: u16, body: String },
}

struct Link {
    shard: usize,
    conn: ConnId,
    input: BytesMut,
    received: Vec<u8>,
    /// Whether the peer takes the bytes that it is sent.
    reads: bool,
    unsent: Transmit,
    closed: Option<Close>,
    waits: bool,
}

/// A whole nsqd on one thread and a hand-moved clock.
pub struct Node {
    pub now: Now,
    pub shards: Vec<Shard>,
    pub events: Vec<Event>,
    pub replies: BTreeMap<u64, AdminReply>,
    /// HTTP requests that are not answered yet, with the shard that asked for each.
    pub calls: Vec<(usize, CallId, Call)>,
    /// What was to be done with connections to nsqlookupds.
    pub peers: Vec<(PeerId, PeerAction)>,
    /// The disk, if [`Config::disk`] says that there is one.
    pub files: MemoryFiles,
    /// What is asked of the disk waits while [`disk_is_stuck`](Self::disk_is_stuck).
    pub requests: VecDeque<(usize, Request)>,
    pub disk_is_stuck: bool,
    /// What was to be sent to statsd; how much memory there is, is answered at once.
    pub statsd: Vec<StatsdAction>,
    links: Vec<Link>,
    actions: Vec<Actions>,
    tokens: u64,
}

impl Node {
    pub fn new(shards: u16, config: Config) -> Self {
        Self::over(MemoryFiles::new(), shards, config)
    }

    /// A node on what an earlier one has left on its disk.
    pub fn over(files: MemoryFiles, shards: u16, config: Config) -> Self {
        Self::at(Now::from_millis(1_789_000_000_000), files, shards, config)
    }

    /// The same, at another time.
    pub fn at(now: Now, files: MemoryFiles, shards: u16, config: Config) -> Self {
        let mut node = Self {
            now,
            shards: (0..shards)
                .map(|id| Shard::new(ShardId(id), shards, config.clone(), 7))
                .collect(),
            events: Vec::new(),
            replies: BTreeMap::new(),
            calls: Vec::new(),
            peers: Vec::new(),
            files,
            requests: VecDeque::new(),
            disk_is_stuck: false,
            statsd: Vec::new(),
            links: Vec::new(),
            actions: (0..shards).map(|_| Actions::new(shards)).collect(),
            tokens: 0,
        };
        let contents = node.files.get("nsqd.dat");
        let metadata = contents.map(|contents| Metadata::parse(contents).unwrap().metadata);
        for shard in 0..usize::from(shards) {
            let (shard, actions) = (&mut node.shards[shard], &mut node.actions[shard]);
            if let Some(metadata) = &metadata {
                shard.load(metadata, |_| None, node.now, actions);
            }
            shard.start(node.now, actions);
        }
        node.run();
        node
    }

    /// The process dies; what it asked of the disk and had no answer to yet is not done.
    pub fn crash(self) -> MemoryFiles {
        self.files
    }

    /// The node stops in good order, and the disk is done with everything.
    pub fn stop(mut self) -> MemoryFiles {
        self.shut_down();
        assert!(self.shards.iter().all(|shard| shard.connections() == 0));
        self.flush();
        self.wait(Duration::from_secs(1));
        let left: Vec<_> = self.shards.iter().filter(|shard| !shard.is_flushed()).collect();
        assert!(left.is_empty(), "the disk is not done with {left:?}");
        self.files
    }

    /// The disk answers.
    pub fn complete(&mut self, shard: usize, completion: Completion) {
        self.shards[shard].handle_storage(completion, self.now, &mut self.actions[shard]);
        self.run();
    }

    /// The disk does what was asked of it meanwhile, and goes on.
    pub fn release_disk(&mut self) {
        self.disk_is_stuck = false;
        self.run();
    }

    /// A client that connects to `shard`; it has sent nothing yet.
    pub fn connect(&mut self, shard: usize) -> Client {
        let peer = Peer::Tcp(([127, 0, 0, 1], 40_000 + self.links.len() as u16).into());
        let conn = self.shards[shard].accept(peer, self.now, &mut self.actions[shard]);
        self.links.push(Link {
            shard,
            conn,
            input: BytesMut::new(),
            received: Vec::new(),
            reads: true,
            unsent: Transmit::new(),
            closed: None,
            waits: false,
        });
        self.run();
        Client(self.links.len() - 1)
    }

    /// A client that has sent the magic.
    pub fn client(&mut self, shard: usize) -> Client {
        let client = self.connect(shard);
        self.send(client, b"  V2");
        client
    }

    /// A client that is subscribed, and whose answer is taken.
    pub fn consumer(&mut self, shard: usize, topic: &str, channel: &str, rdy: u32) -> Client {
        let client = self.client(shard);
        self.send(client, format!("SUB {topic} {channel}\nRDY {rdy}\n").as_bytes());
        let first = self.frames(client);
        assert_eq!(first.first(), Some(&Frame::Response("OK".into())));
        client
    }

    pub fn send(&mut self, client: Client, bytes: &[u8]) {
        self.links[client.0].input.extend_from_slice(bytes);
        if !self.links[client.0].waits && self.links[client.0].closed.is_none() {
            self.input(client);
        }
        self.run();
    }

    /// Publishes and takes the answer.
    pub fn publish(&mut self, client: Client, topic: &str, body: &str) {
        self.send(client, &pub_command(topic, body));
        assert_eq!(self.frames(client), [Frame::Response("OK".into())]);
    }

    /// The client sends nothing more.
    pub fn half_close(&mut self, client: Client) {
        let link = &self.links[client.0];
        self.shards[link.shard].handle_eof(link.conn, self.now, &mut self.actions[link.shard]);
        self.run();
    }

    /// The client's socket is gone.
    pub fn drop_client(&mut self, client: Client) {
        let link = &mut self.links[client.0];
        if link.closed.replace(Close::Now).is_none() {
            let (shard, conn) = (link.shard, link.conn);
            self.shards[shard].handle_closed(conn, self.now, &mut self.actions[shard]);
        }
        self.run();
    }

    /// Whether the client takes what it is sent; what piled up comes with the switch.
    pub fn set_reads(&mut self, client: Client, reads: bool) {
        self.links[client.0].reads = reads;
        if reads {
            self.write(client);
        }
        self.run();
    }

    /// Sends as much of `bytes` as a driver would read just now, which it cuts off.
    pub fn feed(&mut self, client: Client, bytes: &mut &[u8]) {
        while !bytes.is_empty() && !self.links[client.0].waits && !self.is_closed(client) {
            let (part, rest) = bytes.split_at(bytes.len().min(READ_LEN_MAX));
            *bytes = rest;
            self.send(client, part);
        }
    }

    /// Bytes that the client has sent and the shard has not taken.
    pub fn unread(&self, client: Client) -> usize {
        self.links[client.0].input.len()
    }

    /// The bytes that arrived since the last call.
    pub fn received(&mut self, client: Client) -> Vec<u8> {
        core::mem::take(&mut self.links[client.0].received)
    }

    /// The frames that arrived since the last call.
    pub fn frames(&mut self, client: Client) -> Vec<Frame> {
        let bytes = self.received(client);
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let kind = u32::from_be_bytes(rest[4..8].try_into().unwrap());
            let payload = &rest[8..4 + size];
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            frames.push(match kind {
                0 => Frame::Response(text(payload)),
                1 => Frame::Error(text(payload)),
                _ => Frame::Message {
                    attempts: u16::from_be_bytes(payload[8..10].try_into().unwrap()),
                    id: text(&payload[10..26]),
                    body: text(&payload[26..]),
                },
            });
            rest = &rest[4 + size..];
        }
        frames
    }

    /// The bodies of the messages that arrived since the last call; nothing else may have.
    pub fn bodies(&mut self, client: Client) -> Vec<String> {
        let body = |frame| match frame {
            Frame::Message { body, .. } => body,
            Frame::Response(text) | Frame::Error(text) => {
                panic!("a message is expected, not {text}")
            }
        };
        self.frames(client).into_iter().map(body).collect()
    }

    /// Whether the broker closed the connection.
    pub fn is_closed(&self, client: Client) -> bool {
        self.links[client.0].closed.is_some()
    }

    /// How the broker closed the connection.
    pub fn close_of(&self, client: Client) -> Option<Close> {
        self.links[client.0].closed
    }

    /// The shard that has the connection.
    pub fn shard_of(&self, client: Client) -> usize {
        self.links[client.0].shard
    }

    pub fn admin(&mut self, shard: usize, request: AdminRequest) -> Option<AdminReply> {
        self.tokens += 1;
        let token = ReplyToken(self.tokens);
        self.shards[shard].handle_admin(request, token, self.now, &mut self.actions[shard]);
        self.run();
        self.replies.remove(&token.0)
    }

    /// The answer to the oldest admin request that was not answered at once.
    pub fn take_reply(&mut self) -> Option<AdminReply> {
        self.replies.pop_first().map(|(_, reply)| reply)
    }

    /// Calls a shard as its driver does.
    pub fn on_shard(&mut self, shard: usize, call: impl FnOnce(&mut Shard, Now, &mut Actions)) {
        call(&mut self.shards[shard], self.now, &mut self.actions[shard]);
        self.run();
    }

    /// The oldest HTTP request that is not answered yet gets this outcome.
    pub fn called(&mut self, result: CallResult) {
        let (shard, id, _) = self.calls.remove(0);
        self.shards[shard].handle_called(id, result, self.now, &mut self.actions[shard]);
        self.run();
    }

    /// Answers the oldest HTTP request.
    pub fn answer(&mut self, status: u16, body: &str) {
        self.called(Ok(CallAnswer { status, body: body.to_owned().into() }));
    }

    /// Lets time go by, stopping at each deadline on the way.
    pub fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let next = self.shards.iter().filter_map(Shard::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= end.instant) else { break };
            self.now = self.now.after(next.saturating_since(self.now.instant));
            for shard in 0..self.shards.len() {
                self.shards[shard].handle_timeout(self.now, &mut self.actions[shard]);
            }
            self.run();
        }
        self.now = end;
    }

    pub fn shut_down(&mut self) {
        for shard in 0..self.shards.len() {
            self.shards[shard].shut_down(self.now, &mut self.actions[shard]);
        }
        self.run();
    }

    /// What is in memory is written.
    pub fn flush(&mut self) {
        for shard in 0..self.shards.len() {
            self.shards[shard].flush(self.now, &mut self.actions[shard]);
        }
        self.run();
    }

    /// Carries out all actions until there are none.
    fn run(&mut self) {
        loop {
            let Some(shard) = self.actions.iter().position(|actions| !actions.is_empty()) else {
                // One at a time, so that what follows from it is seen before the next.
                if self.disk_is_stuck {
                    return;
                }
                let Some((shard, request)) = self.requests.pop_front() else { return };
                let completion = self.files.carry_out(&request);
                self.shards[shard].handle_storage(completion, self.now, &mut self.actions[shard]);
                continue;
            };
            let fresh = Actions::new(self.shards.len() as u16);
            let actions = core::mem::replace(&mut self.actions[shard], fresh);
            self.events.extend(actions.events);
            for conn in actions.transmit {
                if let Some(client) = self.find(shard, conn) {
                    self.write(client);
                }
            }
            for (conn, how) in actions.close {
                if let Some(client) = self.find(shard, conn) {
                    self.links[client.0].closed = Some(how);
                    self.shards[shard].handle_closed(conn, self.now, &mut self.actions[shard]);
                }
            }
            for (conn, home) in actions.rehome {
                if let Some(client) = self.find(shard, conn) {
                    assert!(self.links[client.0].unsent.is_empty(), "moved while bytes are unsent");
                    let detached = self.shards[shard].detach(conn).unwrap();
                    let home = usize::from(home.0);
                    let conn =
                        self.shards[home].attach(detached, self.now, &mut self.actions[home]);
                    (self.links[client.0].shard, self.links[client.0].conn) = (home, conn);
                    self.input(client);
                }
            }
            for conn in actions.resume {
                if let Some(client) = self.find(shard, conn) {
                    self.input(client);
                }
            }
            for (home, mut batch) in actions.lanes.into_iter().enumerate() {
                if !batch.is_empty() {
                    self.shards[home].handle_shard(&mut batch, self.now, &mut self.actions[home]);
                }
            }
            let calls = actions.calls.into_iter();
            self.calls.extend(calls.map(|(id, call)| (shard, id, call)));
            self.peers.extend(actions.peers);
            self.requests.extend(actions.storage.into_iter().map(|request| (shard, request)));
            for action in actions.statsd {
                if action == StatsdAction::Measure {
                    let actions = &mut self.actions[shard];
                    self.shards[shard].handle_memory(Memory::default(), self.now, actions);
                } else {
                    self.statsd.push(action);
                }
            }
            self.replies.extend(actions.replies.into_iter().map(|(token, reply)| (token.0, reply)));
        }
    }

    fn find(&self, shard: usize, conn: ConnId) -> Option<Client> {
        let here = |link: &Link| link.shard == shard && link.conn == conn && link.closed.is_none();
        self.links.iter().position(here).map(Client)
    }

    fn input(&mut self, client: Client) {
        let link = &mut self.links[client.0];
        let (shard, actions) = (&mut self.shards[link.shard], &mut self.actions[link.shard]);
        let state = shard.handle_input(link.conn, &mut link.input, self.now, actions);
        link.waits = state == ReadState::Wait;
    }

    fn write(&mut self, client: Client) {
        let link = &mut self.links[client.0];
        if !link.reads {
            return;
        }
        loop {
            if link.unsent.is_empty() {
                self.shards[link.shard].swap_transmit(link.conn, &mut link.unsent);
            }
            let mut slices = [&[][..]; 8];
            let count = link.unsent.slices(&mut slices);
            let bytes = slices[..count].concat();
            if bytes.is_empty() {
                break;
            }
            link.received.extend_from_slice(&bytes);
            link.unsent.advance(bytes.len());
            let actions = &mut self.actions[link.shard];
            self.shards[link.shard].handle_sent(link.conn, bytes.len(), self.now, actions);
        }
    }
}

pub fn pub_command(topic: &str, body: &str) -> Vec<u8> {
    let head = format!("PUB {topic}\n");
    [head.as_bytes(), &(body.len() as u32).to_be_bytes(), body.as_bytes()].concat()
}
