//! What a topic, a channel and a consumer take of the heap, and that making many of them costs each
//! the same.

use bytes::BytesMut;
use sansq_core::machine::{Machine, MachineActions, ReadState};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId};
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{ChannelRecord, Found, Metadata, TopicRecord};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

use crate::counting::{allocations, held};

/// A shard alone, with a disk that answers at once and clients that take everything.
struct Node {
    shard: Shard,
    actions: Actions,
    files: MemoryFiles,
    now: Now,
    spare: Transmit,
    messages: usize,
}

impl Node {
    fn new() -> Self {
        let config = Config { disk: true, ..Config::default() };
        Self {
            shard: Shard::new(ShardId(0), 1, config, 1),
            actions: Actions::default(),
            files: MemoryFiles::new(),
            now: Now::from_millis(1_789_000_000_000),
            spare: Transmit::new(),
            messages: 0,
        }
    }

    /// One that has so many topics, with a channel each, since its start.
    fn loaded(topics: usize) -> Self {
        let channel = ChannelRecord { name: ChannelName::new("c").expect("a name"), paused: false };
        let record = |n| TopicRecord {
            name: TopicName::new(format!("topic-{n:06}")).expect("a name"),
            paused: false,
            channels: vec![channel.clone()],
        };
        let metadata = Metadata { topics: (0..topics).map(record).collect() };
        let mut node = Self::new();
        let Self { shard, actions, now, .. } = &mut node;
        shard.load(&metadata, |_| Some(Found::default()), *now, actions);
        node.shard.start(node.now, &mut node.actions);
        node.settle();
        node
    }

    fn connect(&mut self, bytes: impl AsRef<[u8]>) {
        let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
        let conn = self.shard.accept(peer, self.now, &mut self.actions);
        let mut input = BytesMut::from(bytes.as_ref());
        let state = self.shard.handle_input(conn, &mut input, self.now, &mut self.actions);
        assert!(matches!(state, ReadState::More(_)) && input.is_empty(), "refused");
        self.settle();
    }

    fn settle(&mut self) {
        while !self.actions.is_empty() {
            self.actions.events.clear();
            while let Some(conn) = self.actions.transmit.pop() {
                self.shard.swap_transmit(conn, &mut self.spare);
                let len = self.spare.len();
                let mut slices = [&[][..]; 1];
                self.spare.slices(&mut slices);
                // The kind of a frame; none of what is sent here is long enough to look like one.
                self.messages += usize::from(slices[0].get(7) == Some(&2));
                core::mem::take(&mut self.spare);
                self.shard.handle_sent(conn, len, self.now, &mut self.actions);
            }
            let requests: Vec<_> = self.actions.storage.drain(..).collect();
            for request in requests {
                let completion = self.files.carry_out(&request);
                self.shard.handle_storage(completion, self.now, &mut self.actions);
            }
            self.actions.trim();
        }
    }
}

/// The difference between n and 2n of something, for each.
fn each<T>(n: usize, make: impl Fn(usize) -> T) -> (f64, f64) {
    let measure = |n| {
        let (bytes, times) = (held(), allocations());
        let made = make(n);
        let result = (held() - bytes, allocations() - times);
        drop(made);
        result
    };
    let (one, two) = (measure(n), measure(2 * n));
    ((two.0 - one.0) as f64 / n as f64, (two.1 - one.1) as f64 / n as f64)
}

#[test]
fn a_topic_with_a_channel_is_small() {
    let (bytes, times) = each(1000, Node::loaded);
    assert!(bytes < 1900.0, "{bytes} bytes");
    assert!(times < 6.0, "{times} allocations");
}

#[test]
fn a_consumer_is_small() {
    let (bytes, _) = each(1024, |n| {
        let mut node = Node::new();
        (0..n).for_each(|_| node.connect("  V2SUB t c\nRDY 1\n"));
        node
    });
    assert!(bytes < 1400.0, "{bytes} bytes");
}

#[test]
fn what_is_made_one_by_one_costs_each_the_same() {
    let topics = |n| (0..n).map(|n| format!("  V2SUB topic-{n:04} c\n")).collect::<Vec<_>>();
    let channels = |n| (0..n).map(|n| format!("  V2SUB t channel-{n:04}\n")).collect::<Vec<_>>();
    let consumers = |n| vec![String::from("  V2SUB t c\nRDY 1\n"); n];
    let kinds: [&dyn Fn(usize) -> Vec<String>; 3] = [&topics, &channels, &consumers];
    for (kind, commands) in kinds.into_iter().enumerate() {
        let count = |n| {
            let (commands, before) = (commands(n), allocations());
            let mut node = Node::new();
            commands.iter().for_each(|command| node.connect(command));
            allocations() - before
        };
        let (one, two) = (count(500), count(1000));
        assert!(two < 2 * one + one / 10, "kind {kind}: {one} and {two} allocations");
    }
}

#[test]
fn each_of_many_consumers_gets_its_turn() {
    let deliver = |n: usize| {
        let mut node = Node::new();
        (0..n).for_each(|_| node.connect("  V2SUB t c\nRDY 1\n"));
        let bodies = b"\0\0\0\x01x".repeat(n);
        let (size, count) = ((bodies.len() as u32 + 4).to_be_bytes(), (n as u32).to_be_bytes());
        let list = [&b"  V2MPUB t\n"[..], &size, &count, &bodies].concat();
        let before = allocations();
        node.connect(list);
        assert_eq!(node.messages, n);
        allocations() - before
    };
    let (one, two) = (deliver(100), deliver(200));
    assert!(two < 2 * one + one / 10, "{one} and {two} allocations");
}
