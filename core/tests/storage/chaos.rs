//! Nodes on a disk that breaks, die, lose power, stop and start again: what was acknowledged comes
//! out in the end as far as it is promised, nothing is invented, and a node always starts.
//!
//! Promised is, of messages that were acknowledged and not finished:
//! - a stop in good order loses nothing;
//! - with `--mem-queue-size=0` the death of the process loses nothing;
//! - and the loss of power nothing that lay on a disk that worked for longer than `--sync-timeout`,
//!   and of which no sync had failed.
//!
//! A seed is a run.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sansq_core::client::frame::Frame;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{AdminRequest, ChannelOp, Config, TopicOp};
use sansq_core::rng::Rng;
use sansq_core::storage::memory::{Faults, MemoryFiles};
use sansq_core::storage::{FailureKind, Request};
use sansq_core::testing::{ClientId, Holds, Node};
use sansq_core::time::{Instant, Now};

use crate::text;

const TOPICS: [&str; 2] = ["t", "u"];
const CHANNELS: [&str; 2] = ["a", "b"];
/// The longest that data is not synced although the disk works.
const SYNCED_AFTER: Duration = Duration::from_secs(5);
const DELAY_MAX: u64 = 4000;

/// A message of a topic.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    topic: usize,
    /// When it was acknowledged, or handed on to other files.
    acked: Option<Instant>,
    /// A sync failed that it may have needed: nobody knows whether the disk has it.
    is_suspect: bool,
    /// It may be lost.
    may_be_lost: bool,
}

/// A producer of one topic: what it has no answer to yet, by numbers of first and last message.
struct Producer {
    client: ClientId,
    open: VecDeque<(usize, usize)>,
}

struct Run {
    rng: Rng,
    node: Node,
    shards: u16,
    config: Config,
    sent: Vec<Sent>,
    producers: Vec<Producer>,
    /// By topic and channel.
    consumers: BTreeMap<(usize, usize), ClientId>,
    finished: BTreeSet<(usize, usize)>,
    received: BTreeSet<(usize, usize)>,
    /// The disk works since then.
    calm_since: Instant,
    /// What was acknowledged until then is synced.
    synced: Option<Instant>,
    lost_power: bool,
}

impl Run {
    fn new(seed: u64, shards: u16, mem_queue_size: usize) -> Self {
        let config = Config {
            disk: true,
            mem_queue_size,
            max_bytes_per_file: 400,
            sync_every: 7,
            msg_timeout: Duration::from_secs(3),
            ..Config::default()
        };
        let mut node = Node::new(shards, config.clone());
        for topic in TOPICS {
            node.admin(0, AdminRequest::Topic(TopicName::new(topic).unwrap(), TopicOp::Create));
            for channel in CHANNELS {
                node.admin(0, channel_request(topic, channel, ChannelOp::Create));
            }
        }
        node.wait(Duration::from_secs(1));
        let now = node.now.instant;
        let mut run = Self {
            rng: Rng::new(seed),
            node,
            shards,
            config,
            sent: Vec::new(),
            producers: Vec::new(),
            consumers: BTreeMap::new(),
            finished: BTreeSet::new(),
            received: BTreeSet::new(),
            calm_since: now,
            synced: None,
            lost_power: false,
        };
        run.connect();
        run
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn connect(&mut self) {
        self.producers.clear();
        self.consumers.clear();
        for _ in TOPICS {
            let client = self.node.client(0);
            self.producers.push(Producer { client, open: VecDeque::new() });
        }
    }

    fn step(&mut self) {
        match self.below(43) {
            0..=11 => self.publish(),
            12..=17 => self.consume(),
            18..=21 => self.subscribe(),
            22..=27 => {
                let millis = self.below(3000);
                self.wait(millis);
            }
            28 => self.wait(9000),
            29 | 30 => {
                self.node.set_holds(Holds::DISK);
                self.upset();
            }
            31 => self.node.set_holds(Holds::NOTHING),
            32 => self.break_disk(),
            33 | 34 => self.mend_disk(),
            35 => self.pause(),
            36 | 37 => self.kill(),
            38 => self.lose_power(),
            39..=41 => self.disk_ahead(),
            _ => self.restart(),
        }
        self.look();
    }

    fn publish(&mut self) {
        let topic = self.below(TOPICS.len() as u64) as usize;
        let (first, count) = (self.sent.len(), 1 + self.below(4) as usize);
        let name = TOPICS[topic];
        let bodies: Vec<_> = (first..first + count).map(body).collect();
        let sized = |body: &String| [&(body.len() as u32).to_be_bytes(), body.as_bytes()].concat();
        let command = if count > 1 {
            let list: Vec<u8> = bodies.iter().flat_map(sized).collect();
            let head = format!("MPUB {name}\n");
            let (size, number) = ((list.len() as u32 + 4).to_be_bytes(), count as u32);
            [head.as_bytes(), &size, &number.to_be_bytes(), &list].concat()
        } else {
            let delay = self.below(4).saturating_sub(2) * self.below(DELAY_MAX);
            let head = format!("DPUB {name} {delay}\n");
            [head.as_bytes(), &sized(&bodies[0])].concat()
        };
        self.sent.extend((0..count).map(|_| Sent { topic, ..Sent::default() }));
        self.producers[topic].open.push_back((first, first + count));
        let client = self.producers[topic].client;
        self.node.send(client, &command);
    }

    /// Looks at what came back, and answers heartbeats.
    fn look(&mut self) {
        let now = self.node.now.instant;
        for topic in 0..TOPICS.len() {
            let client = self.producers[topic].client;
            for frame in self.node.frames(client) {
                match frame {
                    Frame::Response(text) if text == "OK" => {
                        let (first, end) = self.producers[topic].open.pop_front().unwrap();
                        for sent in &mut self.sent[first..end] {
                            sent.acked = Some(now);
                        }
                    }
                    Frame::Response(_) => self.node.send(client, b"NOP\n"),
                    Frame::Error(text) => assert!(text.starts_with(b"E_"), "{text:?}"),
                    Frame::Message(_) => panic!("a producer gets no messages"),
                }
            }
            if self.node.is_closed(client) {
                let client = self.node.client(0);
                self.producers[topic] = Producer { client, open: VecDeque::new() };
            }
        }
        if self.node.files.faults.sync.is_some() {
            let synced = self.synced;
            for sent in self.sent.iter_mut().filter(|sent| sent.acked > synced) {
                sent.is_suspect = true;
            }
        }
        let is_calm = !self.node.holds().disk && self.node.files.faults == Faults::default();
        if !is_calm {
            self.calm_since = now;
        } else if now >= self.calm_since + SYNCED_AFTER {
            let before = now.saturating_since(self.calm_since + SYNCED_AFTER);
            self.synced = Some(self.calm_since + before);
        }
    }

    /// What the disk is to have from now on need not be synced.
    const fn upset(&mut self) {
        self.calm_since = self.node.now.instant;
    }

    fn subscribe(&mut self) {
        let key = self.any_channel();
        let rdy = self.below(5);
        let client = match self.consumers.get(&key) {
            Some(client) if !self.node.is_closed(*client) => *client,
            Some(_) | None => {
                let client = self.node.client(0);
                let (topic, channel) = (TOPICS[key.0], CHANNELS[key.1]);
                self.node.send(client, format!("SUB {topic} {channel}\n").as_bytes());
                self.consumers.insert(key, client);
                client
            }
        };
        self.node.send(client, format!("RDY {rdy}\n").as_bytes());
    }

    fn consume(&mut self) {
        let key = self.any_channel();
        let Some(client) = self.consumers.get(&key).copied() else { return };
        for frame in self.node.frames(client) {
            let Frame::Message(message) = frame else {
                self.node.send(client, b"NOP\n");
                continue;
            };
            let (id, body) = (text(&message.id), text(&message.body));
            self.receive(key, &body);
            let number = number(&body).unwrap_or(0);
            match self.below(8) {
                0 => self.node.send(client, format!("REQ {id} 0\n").as_bytes()),
                1 => {
                    let delay = self.below(DELAY_MAX);
                    self.node.send(client, format!("REQ {id} {delay}\n").as_bytes());
                }
                2 => {}
                _ => {
                    self.node.send(client, format!("FIN {id}\n").as_bytes());
                    // It may be refused: then the message comes again.
                    self.finished.insert((number, key.1));
                }
            }
        }
    }

    fn receive(&mut self, key: (usize, usize), body: &str) {
        let number = number(body);
        let sent = number.and_then(|number| self.sent.get(number));
        // Bytes that were not synced may come back as zeros: records have no checksum.
        if sent.is_none_or(|sent| sent.topic != key.0) {
            assert!(
                self.lost_power && body.contains('\0'),
                "{body:?} was never published to {key:?}"
            );
            return;
        }
        self.received.insert((number.unwrap(), key.1));
    }

    fn any_channel(&mut self) -> (usize, usize) {
        let topic = self.below(TOPICS.len() as u64) as usize;
        (topic, self.below(CHANNELS.len() as u64) as usize)
    }

    fn wait(&mut self, millis: u64) {
        self.node.wait(Duration::from_millis(millis));
    }

    fn break_disk(&mut self) {
        let kinds = [FailureKind::Full, FailureKind::Other, FailureKind::ReadOnly];
        let kind = Some(kinds[self.below(3) as usize]);
        let faults = &mut self.node.files.faults;
        match self.rng.below(5) {
            0 | 1 => faults.append = kind,
            2 => faults.sync = kind,
            3 => faults.replace = kind,
            _ => faults.read = kind,
        }
        self.upset();
    }

    fn mend_disk(&mut self) {
        self.node.files.faults = Faults::default();
        self.node.set_holds(Holds::NOTHING);
    }

    /// The disk does one of the things that need not wait for an earlier one.
    fn disk_ahead(&mut self) {
        let requests = &self.node.requests;
        let is_free = |at: &usize| {
            let (shard, request) = &requests[*at];
            let depends = |(of, earlier): &(usize, Request)| {
                (of, &earlier.store) == (shard, &request.store)
                    && request.op.depends_on(&earlier.op)
            };
            !requests.iter().take(*at).any(depends)
        };
        let free: Vec<_> = (0..requests.len()).filter(is_free).collect();
        if !free.is_empty() {
            let at = free[self.below(free.len() as u64) as usize];
            self.node.carry_out(at);
        }
    }

    fn pause(&mut self) {
        let topic = self.below(TOPICS.len() as u64) as usize;
        let op = if self.below(2) == 0 { TopicOp::Pause } else { TopicOp::Unpause };
        let request = AdminRequest::Topic(TopicName::new(TOPICS[topic]).unwrap(), op);
        self.node.admin(0, request);
        // What collected is handed on, into files that are not synced yet.
        let now = self.node.now.instant;
        for sent in self.sent.iter_mut().filter(|sent| sent.topic == topic) {
            sent.acked = sent.acked.map(|_| now);
        }
    }

    /// The process dies, perhaps within a write.
    fn kill(&mut self) {
        self.look();
        let done = self.below(3);
        for _ in 0..done {
            let Some((_, request)) = self.node.requests.front().cloned() else { break };
            // Half of the time it hears of it.
            if self.below(2) == 0 {
                self.node.carry_out(0);
            } else {
                self.node.files.carry_out(&request);
                self.node.requests.pop_front();
                break;
            }
        }
        self.look();
        if let Some((_, request)) = self.node.requests.front() {
            self.node.files.tear(&request.store, &request.op, &mut self.rng);
        }
        if self.config.mem_queue_size > 0 {
            self.sent.iter_mut().for_each(|sent| sent.may_be_lost = true);
        }
        let (now, files) = (self.node.now, self.node.files.clone());
        self.start(now, files);
    }

    fn lose_power(&mut self) {
        self.kill();
        self.lost_power = true;
        let synced = self.synced;
        for sent in &mut self.sent {
            sent.may_be_lost |= sent.acked > synced || sent.is_suspect;
        }
        let (now, mut files) = (self.node.now, self.node.files.clone());
        files.lose_power(&mut self.rng);
        self.start(now, files);
    }

    /// A stop in good order, and a start.
    fn restart(&mut self) {
        self.mend_disk();
        self.wait(6000);
        self.look();
        let now = self.node.now;
        let node = core::mem::replace(&mut self.node, Node::new(1, Config::default()));
        self.start(now.after(Duration::from_secs(1)), node.stop());
    }

    fn start(&mut self, now: Now, mut files: MemoryFiles) {
        files.faults = Faults::default();
        // Names of messages are made of the time, and a start takes longer than a millisecond.
        let now = now.after(Duration::from_millis(10));
        self.node = Node::at(now, files, self.shards, self.config.clone());
        self.upset();
        self.connect();
    }

    /// Nothing breaks any more: everything comes.
    fn end(mut self) {
        self.mend_disk();
        self.wait(6000);
        self.look();
        for topic in TOPICS {
            let name = TopicName::new(topic).unwrap();
            self.node.admin(0, AdminRequest::Topic(name, TopicOp::Unpause));
            for channel in CHANNELS {
                let request = channel_request(topic, channel, ChannelOp::Unpause);
                self.node.admin(0, request);
            }
        }
        let old: Vec<_> = self.consumers.values().copied().collect();
        for client in old {
            self.node.close(client);
        }
        for (topic, topic_name) in TOPICS.into_iter().enumerate() {
            for (channel, channel_name) in CHANNELS.into_iter().enumerate() {
                let client = self.node.client(0);
                let command = format!("SUB {topic_name} {channel_name}\nRDY 5\n");
                self.node.send(client, command.as_bytes());
                self.consumers.insert((topic, channel), client);
            }
        }
        for _ in 0..20 {
            for (key, client) in self.consumers.clone() {
                loop {
                    let frames = self.node.frames(client);
                    if frames.is_empty() {
                        break;
                    }
                    for frame in frames {
                        match frame {
                            Frame::Message(message) => {
                                self.receive(key, &text(&message.body));
                                let finish = format!("FIN {}\n", text(&message.id));
                                self.node.send(client, finish.as_bytes());
                            }
                            Frame::Response(_) | Frame::Error(_) => {
                                self.node.send(client, b"NOP\n");
                            }
                        }
                    }
                }
            }
            self.wait(1000);
        }
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.acked.is_none() || sent.may_be_lost {
                continue;
            }
            for (channel, channel_name) in CHANNELS.into_iter().enumerate() {
                let key = (number, channel);
                assert!(
                    self.received.contains(&key) || self.finished.contains(&key),
                    "{number} is lost on {}:{channel_name}: {sent:?}",
                    TOPICS[sent.topic],
                );
            }
        }
    }
}

fn channel_request(topic: &str, channel: &str, op: ChannelOp) -> AdminRequest {
    let channel = ChannelName::new(channel).unwrap();
    AdminRequest::Channel(TopicName::new(topic).unwrap(), channel, op)
}

/// Bodies of many lengths, so that files roll at many places.
fn body(number: usize) -> String {
    format!("{number:06}{}", "x".repeat(number * 7 % 90))
}

fn number(body: &str) -> Option<usize> {
    let number = body.get(..6)?.parse().ok()?;
    (body == self::body(number)).then_some(number)
}

fn run(seed: u64) {
    let shards = if seed.is_multiple_of(2) { 1 } else { 4 };
    let mem_queue_size = [0, 0, 3][seed as usize % 3];
    let mut run = Run::new(seed, shards, mem_queue_size);
    for _ in 0..120 {
        run.step();
    }
    run.end();
}

#[test]
fn what_is_acknowledged_is_not_lost() {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match setting("STORAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("STORAGE_SEEDS").unwrap_or(60),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed} fails; STORAGE_SEED={seed} runs it alone");
    }
}
