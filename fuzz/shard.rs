//! A whole nsqd of one or two shards: whatever clients send, and in whatever order the world acts,
//! no shard panics, every byte that is sent belongs to a frame, nothing is sent after a close, and
//! no timer rings for nothing.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{AdminRequest, Batch, ChannelOp, Config, StatsFilter, TopicOp};
use sansq_core::testing::{ClientId, Holds, Node};

use crate::peer::Reader;

/// Reads the input as a program: what the world does, step by step. Byte 0 chooses the node.
///
/// # Panics
/// If a shard is wrong.
pub fn check(data: &[u8]) {
    let mut program = Reader::new(data);
    let flags = program.byte();
    let mut world = Harness::new(1 + u16::from(flags & 1), flags & 2 != 0);
    while !program.is_empty() {
        world.step(&mut program);
    }
    world.end();
}

/// A node whose lanes, moves and closes take their time, and its clients.
struct Harness {
    node: Node,
    /// Each with the last message that it got.
    clients: Vec<(ClientId, [u8; 16])>,
}

impl Harness {
    fn new(shards: u16, is_small: bool) -> Self {
        let mut config = Config::default();
        if is_small {
            (config.mem_queue_size, config.max_msg_size, config.max_channel_consumers) = (1, 40, 2);
            config.max_body_size = 90;
        }
        let mut node = Node::new(shards, config);
        node.set_holds(Holds::WAYS);
        Self { node, clients: Vec::new() }
    }

    fn step(&mut self, program: &mut Reader<'_>) {
        match program.byte() % 16 {
            0 if self.clients.len() < CLIENTS_MAX => {
                let shard = program.below(2) % self.node.shards().len();
                self.clients.push((self.node.connect(shard), [b'0'; 16]));
            }
            0 => {
                program.below(2);
            }
            1 | 2 => {
                let (client, len) = (program.byte(), program.below(64));
                let bytes = program.bytes(len);
                self.with(client, |node, client| node.send(client, bytes));
            }
            3..=6 => {
                let (client, which) = (program.byte(), program.byte());
                let command = self.command(client, which, program);
                self.with(client, |node, client| node.send(client, &command));
            }
            7 => {
                let receiver = program.below(2) % self.node.shards().len();
                if let Some(at) = self.node.batches().iter().position(|(_, to)| *to == receiver) {
                    self.node.deliver(at);
                }
            }
            8 if self.node.moving() > 0 => self.node.arrive(0),
            8 => {}
            9 => self.node.advance(Duration::from_millis(1 << program.below(18))),
            10 => {
                // To the next deadline, and not a nanosecond further.
                if let Some(next) = self.node.poll_timeout() {
                    self.node.advance(next.saturating_since(self.node.now.instant));
                }
            }
            11 => {
                let (client, reads) = (program.byte(), program.byte() & 1 == 0);
                self.with(client, |node, client| node.set_reads(client, reads));
            }
            12 => self.with(program.byte(), Node::half_close),
            13 => self.with(program.byte(), Node::close),
            14 => self.admin(program),
            _ => {
                // Rarely, or nothing would happen in most programs.
                if program.byte() == 0xFF {
                    self.node.shut_down();
                }
            }
        }
        self.look();
    }

    fn with(&mut self, client: u8, call: impl FnOnce(&mut Node, ClientId)) {
        if let Some(at) = self.find(client) {
            call(&mut self.node, self.clients[at].0);
        }
    }

    fn find(&self, client: u8) -> Option<usize> {
        usize::from(client).checked_rem(self.clients.len())
    }

    /// Whatever was sent is frames.
    fn look(&mut self) {
        for (client, id) in &mut self.clients {
            for frame in self.node.frames(*client) {
                if let Frame::Message(message) = frame {
                    *id = message.id;
                }
            }
        }
    }

    /// A command that is in order, so that programs get far.
    fn command(&self, client: u8, which: u8, program: &mut Reader<'_>) -> Vec<u8> {
        let topic = ["a", "b", "e#ephemeral"][program.below(3)];
        let id = self.find(client).map_or([b'0'; 16], |at| self.clients[at].1);
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

    fn admin(&mut self, program: &mut Reader<'_>) {
        let shard = program.below(self.node.shards().len());
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
        self.node.ask(shard, request);
    }

    /// Everybody leaves, everything under way arrives: then no shard holds a connection.
    fn end(&mut self) {
        self.clients.iter().for_each(|(client, _)| self.node.close(*client));
        self.node.set_holds(Holds::NOTHING);
        self.look();
        let mut shards = self.node.shards().iter();
        assert!(shards.all(|shard| shard.connections() == 0), "connections are left");
        assert!(self.node.peers.is_empty(), "there is no nsqlookupd");
        assert!(self.node.calls.is_empty(), "there is nobody to ask");
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
