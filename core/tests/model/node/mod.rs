//! A whole node and its clients, in any order of events: several shards, lanes and moves between
//! them that take their time, and a bookkeeper who knows what each client was promised.
//!
//! Checked on the way: answers come in the order of the commands, with the right words; attempts
//! rise by one per delivery; nothing is delivered that was not published, nor on a channel of
//! another topic.
//!
//! Checked in the end, when everybody's patience is over: no client waits for an answer, no
//! connection is left on a channel that is gone, everything drains, and every message that was
//! acknowledged was finished on each channel that existed when it was published, unless somebody
//! emptied or deleted that.

mod clients;
mod driver;
mod ending;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    AdminReply, AdminRequest, Batch, ChannelOp, Config, ReplyToken, ServerStats, StatsFilter,
    TopicOp,
};
use sansq_core::testing::{ClientId, Holds, Node};
use sansq_core::time::Instant;

/// What happens next. Clients, lanes and the like are named by any number, taken modulo how many
/// there are; times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Connect {
        shard: usize,
    },
    Pub {
        client: usize,
        topic: usize,
    },
    /// More publishes in one write than may be unanswered.
    Burst {
        client: usize,
        topic: usize,
    },
    Mpub {
        client: usize,
        topic: usize,
        messages: usize,
    },
    Dpub {
        client: usize,
        topic: usize,
        delay: u64,
    },
    Sub {
        client: usize,
        topic: usize,
        channel: usize,
    },
    Rdy {
        client: usize,
        count: usize,
    },
    Fin {
        client: usize,
        message: usize,
    },
    Req {
        client: usize,
        message: usize,
        delay: u64,
    },
    Touch {
        client: usize,
        message: usize,
    },
    Cls {
        client: usize,
    },
    /// The client's socket goes.
    Drop {
        client: usize,
    },
    /// It goes in the middle of a command.
    DropInside {
        client: usize,
        topic: usize,
        bytes: usize,
    },
    /// The client takes what it is sent, or does not for a while.
    Reads {
        client: usize,
        reads: bool,
    },
    /// The socket of a connection that the broker closed is closed at last.
    Closed {
        client: usize,
    },
    Topic {
        shard: usize,
        topic: usize,
        op: TopicOp,
    },
    Channel {
        shard: usize,
        topic: usize,
        channel: usize,
        op: ChannelOp,
    },
    /// HTTP's publish.
    Post {
        shard: usize,
        topic: usize,
    },
    /// A batch from one shard arrives at another.
    Lane {
        lane: usize,
    },
    /// A moving connection arrives.
    Arrive {
        connection: usize,
    },
    Wait {
        millis: u64,
    },
}

const TOPICS: [&str; 4] = ["a", "b", "c", "e#ephemeral"];
const CHANNELS: [&str; 3] = ["x", "y", "z#ephemeral"];
const MSG_TIMEOUT: Duration = Duration::from_secs(3);

/// A topic and a channel, by their numbers.
type ChannelKey = (usize, usize);

/// What the bookkeeper knows of a message.
struct Published {
    topic: usize,
    /// Channels that existed, for all that anybody knew, when it was sent.
    owed_to: Vec<ChannelKey>,
    acknowledged: bool,
    refused: bool,
    /// Its topic, or one of the channels, was deleted or emptied since it was sent.
    disturbed: bool,
    finished_on: BTreeSet<ChannelKey>,
    attempts: BTreeMap<ChannelKey, u16>,
}

/// An answer that a client waits for.
#[derive(Debug)]
enum Awaited {
    /// To a publish of these messages: `OK`, or the failure of this command.
    Publish(Vec<usize>, &'static str),
    /// To SUB.
    Subscribe(ChannelKey),
    CloseWait,
    /// Perhaps this error.
    Perhaps(String),
}

struct Client {
    id: ClientId,
    received: BytesMut,
    /// What SUB was sent for, and whether it was answered.
    place: Option<(ChannelKey, bool)>,
    closes: bool,
    /// And was told `CLOSE_WAIT`.
    closed: bool,
    awaited: VecDeque<Awaited>,
    /// What it holds, by id: the message's number, and until when it is its own.
    held: Vec<(String, usize, Instant)>,
    /// FINs that the broker has not read yet.
    finishing: Vec<(String, usize, Instant)>,
}

/// What an admin request was about.
enum Asked {
    Create(ChannelKey),
    Destroyed,
    Publish(usize),
    Other,
}

/// The node, its clients, and the bookkeeper.
pub struct Harness {
    /// Whether all clients read what they are sent at once. If not, bodies are large, and
    /// deliveries are seen later than they happen, in any order.
    all_read: bool,
    node: Node,
    clients: Vec<Client>,
    messages: Vec<Published>,
    /// Channels that somebody was told exist.
    channels: BTreeSet<ChannelKey>,
    /// Topics that have, or had, an ephemeral channel.
    ephemeral: BTreeSet<usize>,
    /// How often something was deleted or emptied.
    destructions: u64,
    /// Admin requests that are not answered, and how many destructions there had been; `None` if
    /// one was under way.
    asked: BTreeMap<ReplyToken, (Asked, Option<u64>)>,
    stats: Option<ServerStats>,
}

impl Harness {
    pub fn new(shards: u16, max_channel_consumers: usize, all_read: bool) -> Self {
        let config =
            Config { max_channel_consumers, msg_timeout: MSG_TIMEOUT, ..Config::default() };
        let mut node = Node::new(shards, config);
        node.set_holds(Holds::WAYS);
        Self {
            all_read,
            node,
            clients: Vec::new(),
            messages: Vec::new(),
            channels: BTreeSet::new(),
            ephemeral: BTreeSet::new(),
            destructions: 0,
            asked: BTreeMap::new(),
            stats: None,
        }
    }

    /// # Panics
    /// If the node is wrong.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Connect { shard } => {
                self.connect(shard);
            }
            Step::Pub { client, topic } => self.publish(client, topic, 1, None, "PUB"),
            Step::Burst { client, topic } => self.burst(client, topic),
            Step::Mpub { client, topic, messages } => {
                self.publish(client, topic, messages, None, "MPUB");
            }
            Step::Dpub { client, topic, delay } => {
                self.publish(client, topic, 1, Some(delay), "DPUB");
            }
            Step::Sub { client, topic, channel } => {
                if let Some(at) = self.living(client)
                    && self.clients[at].place.is_none()
                {
                    let place = (topic % TOPICS.len(), channel % CHANNELS.len());
                    self.subscribe(at, place);
                }
            }
            Step::Rdy { client, count } => {
                if let Some(at) = self.consumer(client) {
                    self.send(at, format!("RDY {count}\n").as_bytes());
                }
            }
            Step::Fin { client, message } => {
                if let Some((at, held)) = self.held(client, message) {
                    self.finish(at, held);
                }
            }
            Step::Req { client, message, delay } => {
                if let Some((at, held)) = self.held(client, message) {
                    let (id, ..) = self.clients[at].held.swap_remove(held);
                    self.answer(at, "REQ", &id, &format!(" {delay}"));
                }
            }
            Step::Touch { client, message } => {
                if let Some((at, held)) = self.held(client, message) {
                    let (id, _, until) = &mut self.clients[at].held[held];
                    let id = id.clone();
                    let now = self.node.now.instant;
                    if *until > now {
                        *until = now + MSG_TIMEOUT;
                    }
                    self.answer(at, "TOUCH", &id, "");
                }
            }
            Step::Cls { client } => {
                if let Some(at) = self.consumer(client) {
                    self.clients[at].closes = true;
                    self.clients[at].awaited.push_back(Awaited::CloseWait);
                    self.send(at, b"CLS\n");
                }
            }
            Step::Drop { client } => {
                if let Some(at) = self.living(client) {
                    self.close(at);
                }
            }
            Step::Reads { client, reads } => {
                if let Some(at) = self.living(client).filter(|_| !self.all_read) {
                    self.node.set_reads(self.clients[at].id, reads);
                }
            }
            Step::DropInside { client, topic, bytes } => {
                if let Some(at) = self.living(client) {
                    let command = pub_command(TOPICS[topic % TOPICS.len()], "never published");
                    let bytes = bytes % command.len();
                    self.send(at, &command[..bytes]);
                    self.close(at);
                }
            }
            Step::Closed { client } => {
                let closing = |at: &usize| {
                    let id = self.clients[*at].id;
                    self.node.is_closed(id) && !self.node.is_gone(id)
                };
                let closing: Vec<_> = (0..self.clients.len()).filter(closing).collect();
                if let Some(number) = client.checked_rem(closing.len()) {
                    self.close(closing[number]);
                }
            }
            Step::Topic { shard, topic, op } => self.topic_op(shard, topic % TOPICS.len(), op),
            Step::Channel { shard, topic, channel, op } => {
                let place = (topic % TOPICS.len(), channel % CHANNELS.len());
                self.channel_op(shard, place, op);
            }
            Step::Post { shard, topic } => self.post(shard, topic % TOPICS.len()),
            Step::Lane { lane } => self.lane(lane),
            Step::Arrive { connection } => self.arrive(connection),
            Step::Wait { millis } => self.elapse(Duration::from_millis(millis)),
        }
        self.look();
    }

    /// A new message for a topic, and to whom it is owed.
    fn message(&mut self, topic: usize) -> usize {
        let disturbed = self.is_destroying();
        let known = self.channels.iter().copied().filter(|_| !disturbed);
        let owed_to = known.filter(|(t, c)| *t == topic && *c != EPHEMERAL_CHANNEL).collect();
        self.messages.push(Published {
            topic,
            owed_to,
            acknowledged: false,
            refused: false,
            disturbed,
            finished_on: BTreeSet::new(),
            attempts: BTreeMap::new(),
        });
        self.messages.len() - 1
    }

    fn note_ephemeral(&mut self, (topic, channel): ChannelKey) {
        if channel == EPHEMERAL_CHANNEL {
            self.ephemeral.insert(topic);
        }
    }

    fn topic_op(&mut self, shard: usize, topic: usize, op: TopicOp) {
        let name = TopicName::new(TOPICS[topic]).expect("it is valid");
        let asked = match op {
            TopicOp::Delete | TopicOp::Empty => {
                self.disturb(|(t, _)| t == topic, topic, op == TopicOp::Delete);
                Asked::Destroyed
            }
            TopicOp::Create | TopicOp::Pause | TopicOp::Unpause => Asked::Other,
        };
        self.ask(shard, AdminRequest::Topic(name, op), asked);
    }

    fn channel_op(&mut self, shard: usize, place: ChannelKey, op: ChannelOp) {
        let topic = TopicName::new(TOPICS[place.0]).expect("it is valid");
        let name = ChannelName::new(CHANNELS[place.1]).expect("it is valid");
        let asked = match op {
            ChannelOp::Delete | ChannelOp::Empty => {
                self.disturb(|other| other == place, place.0, op == ChannelOp::Delete);
                Asked::Destroyed
            }
            ChannelOp::Create => {
                self.note_ephemeral(place);
                Asked::Create(place)
            }
            ChannelOp::Pause | ChannelOp::Unpause => Asked::Other,
        };
        self.ask(shard, AdminRequest::Channel(topic, name, op), asked);
    }

    /// Something is deleted or emptied: nothing that was published before is owed there any more,
    /// and nobody knows whether those channels exist if it is a deletion.
    fn disturb(&mut self, is_meant: impl Fn(ChannelKey) -> bool, topic: usize, deletes: bool) {
        self.destructions += 1;
        for message in self.messages.iter_mut().filter(|message| message.topic == topic) {
            message.disturbed = true;
            message.owed_to.retain(|place| !is_meant(*place));
        }
        if deletes {
            self.channels.retain(|place| !is_meant(*place));
        }
    }

    fn post(&mut self, shard: usize, topic: usize) {
        let number = self.message(topic);
        let batch = Batch::One(self.body(number).into());
        let topic = TopicName::new(TOPICS[topic]).expect("it is valid");
        let request = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
        self.ask(shard, request, Asked::Publish(number));
    }

    fn ask(&mut self, shard: usize, request: AdminRequest, asked: Asked) {
        let destructions = (!self.is_destroying()).then_some(self.destructions);
        let token = self.node.ask(shard % self.node.shards().len(), request);
        self.asked.insert(token, (asked, destructions));
        self.look();
    }

    fn stats(&mut self) -> ServerStats {
        let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
        self.ask(0, AdminRequest::Stats(filter), Asked::Other);
        self.flush();
        self.stats.take().expect("all shards were asked")
    }

    fn replied(&mut self, token: ReplyToken, reply: AdminReply) {
        let (asked, destructions) = self.asked.remove(&token).expect("nobody asked, or twice");
        // If something is being deleted at the same time, nobody knows what comes last.
        let undisturbed = destructions == Some(self.destructions);
        match (asked, reply) {
            (Asked::Create(place), AdminReply::Done) if undisturbed => {
                self.channels.insert(place);
            }
            (Asked::Publish(number), AdminReply::Published) => {
                self.messages[number].acknowledged = true;
            }
            (Asked::Publish(number), _) => self.messages[number].refused = true,
            (_, AdminReply::Stats(stats)) => self.stats = Some(*stats),
            _ => {}
        }
    }

    fn is_destroying(&self) -> bool {
        self.asked.values().any(|(asked, _)| matches!(asked, Asked::Destroyed))
    }
}

const EPHEMERAL_CHANNEL: usize = 2;

fn is_ephemeral(topic: usize) -> bool {
    TOPICS[topic].ends_with("#ephemeral")
}

fn number_of(names: &[&str], name: &str) -> usize {
    names.iter().position(|other| *other == name).expect("it is one of ours")
}

fn pub_command(topic: &str, body: &str) -> Vec<u8> {
    let head = format!("PUB {topic}\n");
    [head.as_bytes(), &(body.len() as u32).to_be_bytes(), body.as_bytes()].concat()
}
