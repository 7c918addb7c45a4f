//! A topic against a model of it: what is published goes to every channel there is when it is
//! handed on, in order and once, and every publisher hears what became of its publish, once.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use sansq_core::arena::{ChannelId, Key as _, TicketId};
use sansq_core::message::{Bodies, IdGenerator, Message, MessageId, RecordId};
use sansq_core::name::TopicName;
use sansq_core::nsqd::{
    BacklogOutput, Batch, Beyond, NotPublished, Origin, Publish, ReplyToken, ShardId, Topic,
    TopicOutput, Volume,
};
use sansq_core::storage::{
    DiskEvent, DiskOutput, Durability, Failure, Op as DiskOp, RequestId, Ticket,
};
use sansq_core::time::{Instant, Now, UnixNanos};

/// What happens to a topic. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Op {
    Publish {
        messages: usize,
        delay: u64,
    },
    InsertChannel,
    RemoveChannel(usize),
    Pause(bool),
    Empty,
    Exit,
    Wait(u64),
    /// A channel has room for so many messages more.
    Room(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (1_usize..5, prop_oneof![3 => Just(0), 1 => 1_u64..500])
            .prop_map(|(messages, delay)| Op::Publish { messages, delay }),
        2 => Just(Op::InsertChannel),
        1 => (0_usize..4).prop_map(Op::RemoveChannel),
        2 => any::<bool>().prop_map(Op::Pause),
        1 => prop_oneof![3 => Just(Op::Pause(false)), 2 => Just(Op::Empty), 1 => Just(Op::Exit)],
        4 => (0_u64..2000).prop_map(Op::Wait),
        4 => (0_usize..4, 0_usize..6).prop_map(|(channel, room)| Op::Room(channel, room)),
    ]
}

/// A message as a channel should get it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Expected {
    body: Bytes,
    timestamp: UnixNanos,
    due: Option<Instant>,
}

/// A message as a channel got it, and when it is due.
type Put = (Message, Option<Instant>);

#[derive(Default)]
struct Sink {
    /// Room and what came, by channel.
    channels: BTreeMap<ChannelId, (usize, Vec<Put>)>,
    /// The publishes that were begun; their places are their tickets.
    begun: Vec<u64>,
    outcomes: Vec<(u64, Result<(), NotPublished>)>,
    bodies: Bodies,
}

/// There is no disk.
impl DiskOutput for Sink {
    fn ask(&mut self, op: DiskOp) -> RequestId {
        panic!("{op:?} without a disk");
    }
    fn stored(&mut self, ticket: Ticket, _: Result<Durability, &Failure>) {
        panic!("{ticket:?} without a disk");
    }
    fn event(&mut self, event: DiskEvent) {
        panic!("{event:?} without a disk");
    }
}

impl BacklogOutput for Sink {
    fn hold(&mut self, ticket: Ticket) {
        panic!("{ticket:?} without a disk");
    }

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.bodies
    }
}

impl TopicOutput for Sink {
    fn room(&self, channel: ChannelId) -> usize {
        self.channels[&channel].0
    }

    fn put(
        &mut self,
        channel: ChannelId,
        message: Message,
        due: Option<Instant>,
        _: Option<Ticket>,
    ) {
        let (room, came) = self.channels.get_mut(&channel).expect("a channel that was removed");
        *room = room.saturating_sub(1);
        came.push((message, due));
    }

    fn begin(&mut self, origin: Origin, _: Volume) -> Ticket {
        self.begun.push(number(origin));
        Ticket::publish(TicketId::new(self.begun.len() as u32 - 1, 0))
    }

    fn end(&mut self, ticket: Ticket) {
        self.outcomes.push((self.begun[ticket.id.index() as usize], Ok(())));
    }

    fn begin_move(&mut self, record: RecordId) -> Ticket {
        panic!("{record:?} without a disk");
    }

    fn memory_room(&self, _: ChannelId) -> usize {
        usize::MAX
    }

    fn accepted(&mut self, origin: Origin) {
        self.outcomes.push((number(origin), Ok(())));
    }

    fn refuse(&mut self, origin: Origin, why: NotPublished) {
        self.outcomes.push((number(origin), Err(why)));
    }
}

fn number(origin: Origin) -> u64 {
    let Origin::Admin { token, .. } = origin else { panic!("from {origin:?}") };
    token.0
}

/// A topic under test.
struct Bench {
    topic: Topic,
    ids: IdGenerator,
    sink: Sink,
    now: Now,
    publishes: u64,
    bodies: u64,
    channels: u32,
    limit: usize,
    /// Publishes that are not answered yet, with their messages and how long they may wait.
    open: VecDeque<(u64, Vec<Expected>, Instant)>,
    /// What was accepted and not handed on.
    backlog: VecDeque<Expected>,
    accepted: (u64, u64),
    last_id: Option<MessageId>,
    exited: bool,
}

const PUBLISH_WAIT: Duration = Duration::from_secs(5);

impl Bench {
    fn new(limit: usize) -> Self {
        let name = TopicName::new("t").expect("it is valid");
        let mut sink = Sink::default();
        Self {
            topic: Topic::new(name, limit, Beyond::Nowhere, PUBLISH_WAIT, &mut sink),
            ids: IdGenerator::new(0, 0, 1),
            sink,
            now: Now::from_millis(1_789_000_000_000),
            publishes: 0,
            bodies: 0,
            channels: 0,
            limit,
            open: VecDeque::new(),
            backlog: VecDeque::new(),
            accepted: (0, 0),
            last_id: None,
            exited: false,
        }
    }

    fn channel(&self, number: usize) -> Option<ChannelId> {
        let channels = self.topic.channels();
        channels.get(number.checked_rem(channels.len())?).copied()
    }

    fn step(&mut self, op: Op, room: usize) {
        match op {
            Op::Publish { messages, delay } if !self.exited => self.publish(messages, delay),
            Op::InsertChannel if self.topic.channels().len() < 4 => {
                self.channels += 1;
                let channel = ChannelId::new(self.channels, 0);
                self.sink.channels.insert(channel, (room, Vec::new()));
                // Anywhere among the others: their order is that of their names.
                let at = self.channels as usize % (self.topic.channels().len() + 1);
                self.topic.insert_channel(at, channel);
            }
            Op::RemoveChannel(number) => {
                if let Some(channel) = self.channel(number) {
                    self.topic.remove_channel(channel);
                    self.sink.channels.remove(&channel);
                }
            }
            Op::Pause(paused) => self.topic.set_paused(paused),
            Op::Empty => {
                self.topic.empty(self.now, &mut self.sink);
                self.backlog.clear();
            }
            Op::Exit => {
                self.topic.exit(&mut self.sink);
                self.exited = true;
            }
            Op::Wait(millis) => {
                self.now = self.now.after(Duration::from_millis(millis));
                self.topic.handle_timeout(self.now, &mut self.sink);
                let next = self.topic.poll_timeout();
                assert!(next.is_none_or(|next| next > self.now.instant), "it rings for ever");
            }
            Op::Room(number, more) => {
                if let Some(channel) = self.channel(number) {
                    let (room, _) = self.sink.channels.get_mut(&channel).expect("it is there");
                    *room = room.saturating_add(more);
                }
            }
            Op::Publish { .. } | Op::InsertChannel => {}
        }
        self.topic.pump(self.now, &mut self.ids, &mut self.sink);
        self.check(op);
    }

    fn publish(&mut self, messages: usize, delay: u64) {
        self.publishes += 1;
        let delay = Duration::from_millis(delay);
        let bodies: Vec<_> =
            (self.bodies..).take(messages).map(|n| Bytes::from(n.to_string())).collect();
        self.bodies += messages as u64;
        let expected = bodies.iter().map(|body| Expected {
            body: body.clone(),
            timestamp: self.now.unix,
            // The delay runs from the publish, however long the topic keeps the message.
            due: (!delay.is_zero()).then(|| self.now.instant + delay),
        });
        let until = self.now.instant + PUBLISH_WAIT;
        self.open.push_back((self.publishes, expected.collect(), until));
        let origin = Origin::Admin { shard: ShardId(0), token: ReplyToken(self.publishes) };
        let (topic, batch) = (*self.topic.name(), Batch::Many(bodies.iter().collect()));
        let publish = Publish { origin, topic, batch, delay };
        self.topic.publish(publish, self.now, &mut self.ids, &mut self.sink);
    }

    fn check(&mut self, op: Op) {
        // Publishes are answered in their order, those that are refused among them.
        for (number, outcome) in core::mem::take(&mut self.sink.outcomes) {
            let (expected, messages, until) = self.open.pop_front().expect("nobody waits");
            assert_eq!(number, expected, "out of order");
            match outcome {
                Ok(()) => {
                    assert!(until > self.now.instant, "accepted too late");
                    let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
                    self.accepted.0 += messages.len() as u64;
                    self.accepted.1 += bytes as u64;
                    self.backlog.extend(messages);
                }
                Err(NotPublished::Full) => assert!(until <= self.now.instant, "refused early"),
                Err(_) => assert!(matches!(op, Op::Exit), "refused without need"),
            }
        }
        assert!(!self.exited || self.open.is_empty(), "a publisher is left waiting");
        let counts = (self.topic.message_count(), self.topic.message_bytes());
        assert_eq!(counts, self.accepted);
        assert_eq!(self.topic.poll_timeout(), self.open.front().map(|(_, _, until)| *until));
        self.check_channels();
        assert_eq!(self.topic.depth(), self.backlog.len() as u64, "what is not handed on is kept");
        // Nothing waits without a reason.
        let room = self.topic.channels().iter().map(|channel| self.sink.room(*channel)).min();
        let flows = !self.topic.is_paused() && room.is_some_and(|room| room > 0);
        assert!(!flows || self.backlog.is_empty(), "a message waits although there is room");
        let full = self.backlog.len() >= self.limit;
        assert!(full || self.open.is_empty(), "a publisher waits although there is room");
    }

    /// Every channel got the same, which was the first of the backlog.
    fn check_channels(&mut self) {
        let came = self.sink.channels.values_mut().map(|(_, came)| core::mem::take(came));
        let mut came: Vec<_> = came.collect();
        let Some(first) = came.pop() else { return };
        assert!(came.iter().all(|other| *other == first), "a copy for each channel, all the same");
        for (message, due) in first {
            let Message { id, timestamp, attempts, body, record: None } = message else {
                panic!("{message:?} without a disk");
            };
            assert_eq!(self.backlog.pop_front(), Some(Expected { body, timestamp, due }));
            assert_eq!(attempts, 0);
            assert!(self.last_id.replace(id).is_none_or(|last| last < id), "ids rise");
        }
    }
}

proptest! {
    /// With ample memory no publisher ever waits.
    #[test]
    fn what_is_published_goes_to_every_channel(ops in prop::collection::vec(op(), 1..150)) {
        let mut bench = Bench::new(1 << 20);
        for op in ops {
            bench.step(op, usize::MAX);
            prop_assert!(bench.open.is_empty(), "a publisher waits for memory");
        }
    }

    /// The rule at the limit of memory: publishers wait, in order, for room, for so long and no
    /// longer.
    #[test]
    fn publishers_wait_for_room(
        limit in 1_usize..8,
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut bench = Bench::new(limit);
        for op in ops {
            bench.step(op, 2);
            // A publish is taken whole, so the last one may exceed the limit by less than itself.
            prop_assert!(bench.topic.depth() < limit as u64 + 4);
        }
    }
}
