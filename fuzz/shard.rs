//! A whole nsqd of one or two shards: whatever clients send, and in whatever order the world acts,
//! no shard panics, every byte that is sent belongs to a frame, nothing is sent after a close, and
//! no timer rings for nothing.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::BytesMut;
use sansq_core::arena::ConnId;
use sansq_core::client::frame::{self, Frame};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    Actions, AdminRequest, Batch, ChannelOp, Close, Config, Detached, Peer, ReadState, ReplyToken,
    Shard, ShardId, ShardMessage, StatsFilter, TopicOp,
};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

/// Reads the input as a program: what the world does, step by step. Byte 0 chooses the node.
///
/// # Panics
/// If a shard is wrong.
pub fn check(data: &[u8]) {
    let mut program = Program(data);
    let flags = program.byte();
    let mut node = Node::new(1 + u16::from(flags & 1), flags & 2 != 0);
    while !program.0.is_empty() {
        node.step(&mut program);
    }
    node.end();
}

/// The input that is left. Behind its end there are zeros.
struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }
}

struct Node {
    now: Now,
    shards: Vec<Shard>,
    actions: Vec<Actions>,
    /// What shards say to each other, by receiver; the order between two senders is the program's.
    lanes: Vec<VecDeque<Vec<ShardMessage>>>,
    moving: VecDeque<(usize, Detached, usize)>,
    clients: Vec<Client>,
    tokens: u64,
}

struct Client {
    home: Option<(usize, ConnId)>,
    input: BytesMut,
    unsent: Transmit,
    received: BytesMut,
    waits: bool,
    reads: bool,
    /// How the shard wants it closed.
    closing: Option<Close>,
    /// The client has gone, which the shard is told when it has the connection again.
    gone: bool,
    /// The last message that it got.
    id: [u8; 16],
}

impl Node {
    fn new(shards: u16, is_small: bool) -> Self {
        let mut config = Config::default();
        if is_small {
            (config.mem_queue_size, config.max_msg_size, config.max_channel_consumers) = (1, 40, 2);
            config.max_body_size = 90;
        }
        let shard = |id| Shard::new(ShardId(id), shards, config.clone(), 7);
        let mut node = Self {
            now: Now::from_millis(1_789_000_000_000),
            shards: (0..shards).map(shard).collect(),
            actions: (0..shards).map(|_| Actions::new(shards)).collect(),
            lanes: (0..shards).map(|_| VecDeque::new()).collect(),
            moving: VecDeque::new(),
            clients: Vec::new(),
            tokens: 0,
        };
        for shard in 0..usize::from(shards) {
            node.shards[shard].start(node.now, &mut node.actions[shard]);
        }
        node.run();
        node
    }

    fn step(&mut self, program: &mut Program<'_>) {
        match program.byte() % 16 {
            0 => self.connect(program.below(2)),
            1 | 2 => {
                let (client, len) = (program.byte(), program.below(64));
                let bytes = program.bytes(len);
                self.send(client, bytes);
            }
            3..=6 => {
                let (client, which) = (program.byte(), program.byte());
                let command = self.command(client, which, program);
                self.send(client, &command);
            }
            7 => self.lane(program.below(2)),
            8 => self.arrive(),
            9 => {
                let millis = 1_u64 << program.below(18);
                self.elapse(Duration::from_millis(millis));
            }
            10 => self.deadline(),
            11 => {
                let client = program.byte();
                self.set_reads(client, program.byte() & 1 == 0);
            }
            12 => self.half_close(program.byte()),
            13 => self.drop_client(program.byte()),
            14 => self.admin(program),
            _ => {
                // Rarely, or nothing would happen in most programs.
                if program.byte() == 0xFF {
                    self.shut_down();
                }
            }
        }
        self.run();
    }

    /// A command that is in order, so that programs get far.
    fn command(&self, client: u8, which: u8, program: &mut Program<'_>) -> Vec<u8> {
        let topic = ["a", "b", "e#ephemeral"][program.below(3)];
        let id = self.find(client).map_or([b'0'; 16], |at| self.clients[at].id);
        let id = String::from_utf8_lossy(&id).into_owned();
        let sized = |line: String, body: &[u8]| {
            [line.as_bytes(), &(body.len() as u32).to_be_bytes(), body].concat()
        };
        match which % 16 {
            0 | 1 => b"  V2".to_vec(),
            2 => {
                let heartbeat = [-1, 1000, 60_000][program.below(3)];
                let body =
                    format!("{{\"feature_negotiation\":true,\"heartbeat_interval\":{heartbeat}}}");
                sized("IDENTIFY\n".into(), body.as_bytes())
            }
            3 | 4 => format!("SUB {topic} {}\n", ["c", "d#ephemeral"][program.below(2)]).into(),
            5 | 6 => format!("RDY {}\n", program.below(4)).into(),
            7 | 8 => {
                let body = vec![b'x'; 1 + program.below(38)];
                sized(format!("PUB {topic}\n"), &body)
            }
            9 => {
                let body = [&[0, 0, 0, 2, 0, 0, 0, 1, b'x', 0, 0, 0, 2][..], b"yz"].concat();
                sized(format!("MPUB {topic}\n"), &body)
            }
            10 => sized(format!("DPUB {topic} {}\n", program.byte()), b"later"),
            11 | 12 => format!("FIN {id}\n").into(),
            13 => format!("REQ {id} {}\n", program.byte()).into(),
            14 => format!("TOUCH {id}\n").into(),
            _ => [&b"NOP\n"[..], b"CLS\n"][program.below(2)].to_vec(),
        }
    }

    fn connect(&mut self, shard: usize) {
        if self.clients.len() == CLIENTS_MAX {
            return;
        }
        let shard = shard % self.shards.len();
        let peer = Peer::Tcp(([127, 0, 0, 1], 40_000 + self.clients.len() as u16).into());
        let conn = self.shards[shard].accept(peer, self.now, &mut self.actions[shard]);
        self.clients.push(Client {
            home: Some((shard, conn)),
            input: BytesMut::new(),
            unsent: Transmit::new(),
            received: BytesMut::new(),
            waits: false,
            reads: true,
            closing: None,
            gone: false,
            id: [b'0'; 16],
        });
    }

    fn send(&mut self, client: u8, bytes: &[u8]) {
        if let Some(at) = self.find(client) {
            self.clients[at].input.extend_from_slice(bytes);
            if !self.clients[at].waits {
                self.input(at);
            }
        }
    }

    fn input(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some((shard, conn)) = client.home else { return };
        if client.closing.is_some() {
            return client.input.clear();
        }
        let before = client.input.len();
        let out = &mut self.actions[shard];
        let state = self.shards[shard].handle_input(conn, &mut client.input, self.now, out);
        assert!(client.input.len() <= before, "a shard adds no bytes to its input");
        client.waits = state == ReadState::Wait;
        if let ReadState::More(least) = state {
            assert!(least > 0, "a driver that reads nothing would wait for ever");
        }
    }

    /// A batch arrives.
    fn lane(&mut self, to: usize) {
        let to = to % self.shards.len();
        if let Some(mut batch) = self.lanes[to].pop_front() {
            self.shards[to].handle_shard(&mut batch, self.now, &mut self.actions[to]);
            assert!(batch.is_empty(), "a batch is taken whole");
        }
    }

    /// A moving connection arrives.
    fn arrive(&mut self) {
        let Some((at, detached, to)) = self.moving.pop_front() else { return };
        let conn = self.shards[to].attach(detached, self.now, &mut self.actions[to]);
        self.clients[at].home = Some((to, conn));
        self.input(at);
        self.run();
        if self.clients[at].gone {
            self.close(at);
        }
    }

    fn elapse(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        for (shard, actions) in self.shards.iter_mut().zip(&mut self.actions) {
            shard.handle_timeout(self.now, actions);
            let next = shard.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "a timer rings for ever");
        }
    }

    /// Time goes on to the next deadline, and not a nanosecond further.
    fn deadline(&mut self) {
        if let Some(next) = self.shards.iter().filter_map(Shard::poll_timeout).min() {
            self.elapse(next.saturating_since(self.now.instant));
        }
    }

    fn set_reads(&mut self, client: u8, reads: bool) {
        if let Some(at) = self.find(client) {
            self.clients[at].reads = reads;
            self.write(at);
        }
    }

    fn half_close(&mut self, client: u8) {
        if let Some(at) = self.find(client)
            && let Some((shard, conn)) = self.clients[at].home
        {
            self.shards[shard].handle_eof(conn, self.now, &mut self.actions[shard]);
        }
    }

    fn drop_client(&mut self, client: u8) {
        if let Some(at) = self.find(client) {
            self.close(at);
        }
    }

    fn admin(&mut self, program: &mut Program<'_>) {
        let shard = program.below(self.shards.len());
        let topic = TopicName::new(["a", "b", "e#ephemeral"][program.below(3)]);
        let channel = ChannelName::new(["c", "d#ephemeral"][program.below(2)]);
        let (Ok(topic), Ok(channel)) = (topic, channel) else { return };
        let topic_ops =
            [TopicOp::Create, TopicOp::Delete, TopicOp::Empty, TopicOp::Pause, TopicOp::Unpause];
        let channel_ops = [
            ChannelOp::Create,
            ChannelOp::Delete,
            ChannelOp::Empty,
            ChannelOp::Pause,
            ChannelOp::Unpause,
        ];
        let request = match program.below(4) {
            0 => AdminRequest::Topic(topic, topic_ops[program.below(5)]),
            1 => AdminRequest::Channel(topic, channel, channel_ops[program.below(5)]),
            2 => {
                AdminRequest::Stats(StatsFilter { include_clients: true, ..StatsFilter::default() })
            }
            _ => {
                let batch = Batch::One(vec![b'x'; 1 + program.below(9)].into());
                AdminRequest::Publish { topic, batch, delay: Duration::ZERO }
            }
        };
        self.tokens += 1;
        let token = ReplyToken(self.tokens);
        self.shards[shard].handle_admin(request, token, self.now, &mut self.actions[shard]);
    }

    fn shut_down(&mut self) {
        for (shard, actions) in self.shards.iter_mut().zip(&mut self.actions) {
            shard.shut_down(self.now, actions);
        }
    }

    /// Carries out everything but what takes its time: lanes, moves, and closing.
    fn run(&mut self) {
        while let Some(shard) = self.actions.iter().position(|actions| !actions.is_empty()) {
            let fresh = Actions::new(self.shards.len() as u16);
            let actions = core::mem::replace(&mut self.actions[shard], fresh);
            for conn in actions.transmit {
                if let Some(at) = self.client_of(shard, conn) {
                    assert_eq!(self.clients[at].closing, None, "something to send after a close");
                    self.write(at);
                }
            }
            for (conn, how) in actions.close {
                if let Some(at) = self.client_of(shard, conn) {
                    let before = self.clients[at].closing.replace(how);
                    assert_ne!(before, Some(Close::Now), "closed twice");
                    assert_ne!(before, Some(how), "closed twice");
                    // What is owed at this moment may still be sent; the socket closes when the
                    // program says so.
                    self.write(at);
                }
            }
            for (conn, home) in actions.rehome {
                if let Some(at) = self.client_of(shard, conn) {
                    assert!(self.clients[at].unsent.is_empty(), "moved while bytes are unsent");
                    let detached = self.shards[shard].detach(conn).expect("it is there");
                    self.clients[at].home = None;
                    self.moving.push_back((at, detached, usize::from(home.0)));
                }
            }
            for conn in actions.resume {
                if let Some(at) = self.client_of(shard, conn) {
                    self.input(at);
                }
            }
            for (to, batch) in actions.lanes.into_iter().enumerate() {
                if !batch.is_empty() {
                    self.lanes[to].push_back(batch);
                }
            }
            assert!(actions.peers.is_empty(), "there is no nsqlookupd");
            assert!(actions.calls.is_empty(), "there is nobody to ask");
        }
    }

    /// Writes what is owed, if the client reads, and looks at it.
    fn write(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some((shard, conn)) = client.home else { return };
        while client.reads {
            if client.unsent.is_empty() {
                self.shards[shard].swap_transmit(conn, &mut client.unsent);
            }
            let mut slices = [&[][..]; 8];
            let count = client.unsent.slices(&mut slices);
            let bytes = slices[..count].concat();
            if bytes.is_empty() {
                return;
            }
            client.unsent.advance(bytes.len());
            client.received.extend_from_slice(&bytes);
            while let Some(frame) =
                frame::decode(&mut client.received, 1 << 20).expect("a shard sends frames")
            {
                if let Frame::Message(message) = frame {
                    client.id = message.id;
                }
            }
            let out = &mut self.actions[shard];
            self.shards[shard].handle_sent(conn, bytes.len(), self.now, out);
        }
    }

    /// The socket is gone.
    fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.gone = true;
        if let Some((shard, conn)) = client.home.take() {
            self.shards[shard].handle_closed(conn, self.now, &mut self.actions[shard]);
            let mut rest = Transmit::new();
            self.shards[shard].swap_transmit(conn, &mut rest);
            assert!(rest.is_empty(), "something to send to nobody");
        }
    }

    fn find(&self, client: u8) -> Option<usize> {
        (!self.clients.is_empty()).then(|| usize::from(client) % self.clients.len())
    }

    fn client_of(&self, shard: usize, conn: ConnId) -> Option<usize> {
        self.clients.iter().position(|client| client.home == Some((shard, conn)))
    }

    /// Everybody leaves, everything under way arrives: then no shard holds a connection.
    fn end(&mut self) {
        for at in 0..self.clients.len() {
            self.close(at);
        }
        self.run();
        loop {
            while !self.moving.is_empty() {
                self.arrive();
                self.run();
            }
            let Some(to) = self.lanes.iter().position(|lane| !lane.is_empty()) else { break };
            self.lane(to);
            self.run();
        }
        assert!(self.shards.iter().all(|shard| shard.connections() == 0), "connections are left");
    }
}

/// More would only make programs longer.
const CLIENTS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("shard", super::check);
    }
}
