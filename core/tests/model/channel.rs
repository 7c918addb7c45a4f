//! A model of a channel that is told every command and every delivery: a multiset of messages, each
//! in one place. It does not say which consumer gets a message, or in which order things come back
//! that come back at one time; it says what is wrong about what the channel does.
//!
//! Checked after every command:
//! - a message is in the queue, in flight to one consumer, or deferred, until it is finished or the
//!   channel is emptied, and the channel's numbers say the same;
//! - it is delivered to a subscribed consumer with room below its RDY, whose connection takes
//!   messages, while the channel is not paused; attempts rise by one;
//! - the queue is first in, first out, and consumers that can take messages take turns;
//! - nothing waits that could be delivered;
//! - deadlines are kept to the nanosecond, and `poll_timeout` is never later than the next of them.
//!
//! Shared by `core/tests/channel.rs` and the fuzz target `channel`.
#![expect(unreachable_pub, reason = "what a test program and the fuzz targets share")]

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use sansq_core::arena::{ConnId, ConsumerId, Key as _, TopicId};
use sansq_core::message::{Bodies, Message, MessageId};
use sansq_core::name::ChannelName;
use sansq_core::nsqd::{
    BacklogOutput, Beyond, Channel, ChannelCounters, ChannelOptions, ChannelOutput, ConsumerStats,
    NotInFlight,
};
use sansq_core::storage::{self, DiskEvent, DiskOutput, Failure, Ticket};
use sansq_core::time::{Instant, Now, UnixNanos};

/// What happens to a channel. Consumers and messages are named by any number: it is taken modulo
/// how many there are. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Put,
    PutDeferred {
        delay: u16,
    },
    Subscribe {
        timeout: u16,
    },
    Unsubscribe {
        consumer: u8,
    },
    Ready {
        consumer: u8,
        count: u8,
    },
    Finish {
        consumer: u8,
        message: u8,
    },
    Requeue {
        consumer: u8,
        message: u8,
        delay: u16,
    },
    Touch {
        consumer: u8,
        message: u8,
        timeout: u16,
    },
    /// The connection takes one message more, and then none.
    Block {
        consumer: u8,
    },
    Unblock {
        consumer: u8,
    },
    Pause(bool),
    Empty,
    Stop,
    /// Time goes on, and the channel is told late or never.
    Late {
        millis: u16,
    },
    /// Time goes on, and the channel is told.
    Wait {
        millis: u16,
    },
    /// Time goes on to the next deadline, and the channel is told a nanosecond before and then.
    Deadline,
}

/// What happens at the limit of the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Memory {
    /// The limit is never reached.
    Ample,
    /// An ephemeral channel drops what comes when so many wait. Of what comes back at one time
    /// nobody can say which is dropped, so [`Op`]s that do this to several messages are not for
    /// this.
    Drops(usize),
}

/// A channel under test, and what it should be like.
pub struct Model {
    channel: Channel,
    sink: Sink,
    memory: Memory,
    now: Now,
    messages: BTreeMap<MessageId, Entry>,
    consumers: Vec<Consumer>,
    counters: ChannelCounters,
    paused: bool,
    stopped: bool,
    /// The number of the command; what enters the queue by one command has its number.
    step: u64,
    conns: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    attempts: u16,
    place: Whereabouts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Whereabouts {
    Queue { since: u64 },
    InFlight { conn: ConnId, delivered: Instant, deadline: Instant },
    Deferred { due: Instant },
}

struct Consumer {
    id: ConsumerId,
    conn: ConnId,
    timeout: Duration,
    blocked: bool,
    stats: ConsumerStats,
    /// Since which delivery of the channel it has been able to take messages.
    able_since: Option<u64>,
    /// The number of its last delivery among the channel's.
    last: u64,
}

impl Consumer {
    fn can_take(&self) -> bool {
        !self.blocked && self.stats.in_flight < self.stats.ready
    }
}

/// Takes down what is delivered; a connection in `full` takes one message and no more.
#[derive(Default)]
struct Sink {
    delivered: Vec<(ConnId, MessageId, u16)>,
    full: Vec<ConnId>,
    bodies: Bodies,
}

impl DiskOutput for Sink {
    fn ask(&mut self, _: storage::Op) -> storage::RequestId {
        panic!("there is no disk");
    }

    fn stored(&mut self, _: Ticket, _: Result<storage::Durability, &Failure>) {
        panic!("there is no disk");
    }

    fn event(&mut self, _: DiskEvent) {
        panic!("there is no disk");
    }
}

impl BacklogOutput for Sink {
    fn hold(&mut self, _: Ticket) {
        panic!("there is no disk");
    }

    fn bodies(&mut self) -> &mut Bodies {
        &mut self.bodies
    }
}

impl ChannelOutput for Sink {
    fn deliver(&mut self, conn: ConnId, message: &Message) -> bool {
        assert_eq!(message.body, body(message.id), "a body belongs to its message");
        self.delivered.push((conn, message.id, message.attempts));
        !self.full.contains(&conn)
    }
}

fn body(id: MessageId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

const MAX_MSG_TIMEOUT: Duration = Duration::from_secs(5);
const CONSUMERS_MAX: usize = 5;
const NANOSECOND: Duration = Duration::from_nanos(1);

fn millis(millis: u16) -> Duration {
    Duration::from_millis(u64::from(millis))
}

impl Model {
    pub fn new(memory: Memory) -> Self {
        let (name, mem_queue_size, beyond) = match memory {
            Memory::Ample => ("c", 1 << 20, Beyond::Nowhere),
            Memory::Drops(limit) => ("c#ephemeral", limit, Beyond::Dropped),
        };
        let options = ChannelOptions {
            mem_queue_size,
            max_msg_timeout: MAX_MSG_TIMEOUT,
            max_channel_consumers: CONSUMERS_MAX,
            beyond,
            latency_window: None,
        };
        let name = ChannelName::new(name).expect("the name is valid");
        let mut sink = Sink::default();
        Self {
            channel: Channel::new(name, TopicId::new(0, 0), options, 1, &mut sink),
            sink,
            memory,
            now: Now::from_millis(1000),
            messages: BTreeMap::new(),
            consumers: Vec::new(),
            counters: ChannelCounters::default(),
            paused: false,
            stopped: false,
            step: 0,
            conns: 0,
        }
    }

    /// Does it to the channel, and checks what comes of it.
    ///
    /// # Panics
    /// If the channel is wrong.
    pub fn step(&mut self, op: Op) {
        self.step += 1;
        match op {
            Op::Put => self.put(),
            Op::PutDeferred { delay } => self.put_deferred(delay),
            Op::Subscribe { timeout } => self.subscribe(timeout),
            Op::Unsubscribe { consumer } => {
                if let Some(at) = self.consumer(consumer) {
                    self.unsubscribe(at);
                }
            }
            Op::Ready { consumer, count } => {
                if let Some(at) = self.consumer(consumer) {
                    self.consumers[at].stats.ready = u32::from(count);
                    self.look_at_abilities();
                    let id = self.consumers[at].id;
                    self.channel.ready(id, u32::from(count), self.now, &mut self.sink);
                }
            }
            Op::Finish { consumer, message } => self.finish(consumer, message),
            Op::Requeue { consumer, message, delay } => self.requeue(consumer, message, delay),
            Op::Touch { consumer, message, timeout } => self.touch(consumer, message, timeout),
            Op::Block { consumer } => {
                if let Some(at) = self.consumer(consumer) {
                    self.sink.full.push(self.consumers[at].conn);
                }
            }
            Op::Unblock { consumer } => {
                if let Some(at) = self.consumer(consumer) {
                    let Consumer { id, conn, .. } = self.consumers[at];
                    self.consumers[at].blocked = false;
                    self.sink.full.retain(|other| *other != conn);
                    self.look_at_abilities();
                    self.channel.unblock(id, self.now, &mut self.sink);
                }
            }
            Op::Pause(paused) => {
                self.paused = paused;
                self.channel.set_paused(paused, self.now, &mut self.sink);
            }
            Op::Empty => self.empty(),
            Op::Stop => {
                self.stopped = true;
                self.channel.stop();
            }
            Op::Late { millis: late } => self.now = self.now.after(millis(late)),
            Op::Wait { millis: wait } => self.elapse(millis(wait)),
            Op::Deadline => {
                let left = self.next_due().map(|due| due.saturating_since(self.now.instant));
                if let Some(early) = left.and_then(|left| left.checked_sub(NANOSECOND)) {
                    self.elapse(early);
                    self.check();
                    self.step += 1;
                    self.elapse(NANOSECOND);
                } else {
                    self.elapse(Duration::ZERO);
                }
            }
        }
        self.check();
    }

    /// Everything that is left can be had: by one consumer, when all that is deferred or in flight
    /// is due. Then the channel is empty and wants nothing any more.
    ///
    /// # Panics
    /// If the channel is wrong.
    pub fn drain(mut self) {
        if self.stopped {
            return;
        }
        while !self.consumers.is_empty() {
            self.step(Op::Unsubscribe { consumer: 0 });
        }
        self.step(Op::Pause(false));
        self.step(Op::Subscribe { timeout: 1000 });
        self.step(Op::Ready { consumer: 0, count: u8::MAX });
        for _ in 0..2 * self.messages.len() + 2 {
            self.step(Op::Deadline);
            while let Some(at) = self.in_flight_to(0).first().copied() {
                self.step(Op::Finish { consumer: 0, message: at });
            }
        }
        assert!(self.messages.is_empty(), "left behind: {:?}", self.messages);
        for _ in 0..=self.step {
            let Some(next) = self.channel.poll_timeout() else { return };
            self.elapse(next.saturating_since(self.now.instant));
        }
        panic!("an empty channel wants to be woken at {:?}", self.channel.poll_timeout());
    }

    fn put(&mut self) {
        let message = self.message();
        self.messages.insert(message.id, self.queued(0));
        self.channel.put(message, None, self.now, &mut self.sink);
    }

    fn put_deferred(&mut self, delay: u16) {
        let message = self.message();
        let due = self.now.instant + millis(delay);
        let entry = if delay == 0 {
            self.queued(0)
        } else {
            Entry { attempts: 0, place: Whereabouts::Deferred { due } }
        };
        self.messages.insert(message.id, entry);
        self.channel.put_deferred(message, due, None, self.now, &mut self.sink);
    }

    fn subscribe(&mut self, timeout: u16) {
        self.conns += 1;
        let (conn, timeout) = (ConnId::new(self.conns, 0), millis(timeout.max(1)));
        match self.channel.subscribe(conn, timeout, 0) {
            Ok(id) => {
                assert!(self.consumers.len() < CONSUMERS_MAX, "more consumers than allowed");
                self.consumers.push(Consumer {
                    id,
                    conn,
                    timeout,
                    blocked: false,
                    stats: ConsumerStats::default(),
                    able_since: None,
                    last: 0,
                });
            }
            Err(_) => assert_eq!(self.consumers.len(), CONSUMERS_MAX, "refused without need"),
        }
    }

    fn unsubscribe(&mut self, at: usize) {
        let gone = self.consumers.remove(at);
        let since = self.step;
        for entry in self.messages.values_mut() {
            if matches!(entry.place, Whereabouts::InFlight { conn, .. } if conn == gone.conn) {
                entry.place = Whereabouts::Queue { since };
            }
        }
        let is_last = self.channel.unsubscribe(gone.id, self.now, &mut self.sink);
        assert_eq!(is_last, self.consumers.is_empty(), "the last one to leave is told so");
        let again = self.channel.unsubscribe(gone.id, self.now, &mut self.sink);
        assert!(!again, "nobody leaves twice");
    }

    fn finish(&mut self, consumer: u8, message: u8) {
        let Some(at) = self.consumer(consumer) else { return };
        let (id, expected) = self.answered(at, message);
        if expected.is_ok() {
            self.messages.remove(&id);
            self.consumers[at].stats.in_flight -= 1;
            self.consumers[at].stats.finishes += 1;
            self.look_at_abilities();
        }
        let consumer = self.consumers[at].id;
        let result = self.channel.finish(consumer, id, self.now, &mut self.sink);
        assert_eq!(result, expected, "FIN");
    }

    fn requeue(&mut self, consumer: u8, message: u8, delay: u16) {
        let Some(at) = self.consumer(consumer) else { return };
        let (id, expected) = self.answered(at, message);
        let (since, delay) = (self.step, millis(delay));
        if expected.is_ok()
            && let Some(entry) = self.messages.get_mut(&id)
        {
            entry.place = if delay.is_zero() {
                Whereabouts::Queue { since }
            } else {
                Whereabouts::Deferred { due: self.now.instant + delay }
            };
            self.consumers[at].stats.in_flight -= 1;
            self.consumers[at].stats.requeues += 1;
            self.counters.requeues += 1;
            self.look_at_abilities();
        }
        let consumer = self.consumers[at].id;
        let result = self.channel.requeue(consumer, id, delay, self.now, &mut self.sink);
        assert_eq!(result, expected, "REQ");
    }

    fn touch(&mut self, consumer: u8, message: u8, timeout: u16) {
        let Some(at) = self.consumer(consumer) else { return };
        let (id, expected) = self.answered(at, message);
        let timeout = millis(timeout.max(1));
        if let Some(Entry { place: Whereabouts::InFlight { delivered, deadline, .. }, .. }) =
            self.messages.get_mut(&id)
            && expected.is_ok()
        {
            *deadline = (self.now.instant + timeout).min(*delivered + MAX_MSG_TIMEOUT);
        }
        let result = self.channel.touch(self.consumers[at].id, id, timeout, self.now);
        assert_eq!(result, expected, "TOUCH");
    }

    fn empty(&mut self) {
        self.messages.clear();
        for consumer in &mut self.consumers {
            consumer.stats.in_flight = 0;
        }
        self.look_at_abilities();
        self.channel.empty(self.now, &mut self.sink);
    }

    /// Time goes on, and the channel looks at what is due.
    fn elapse(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        let (now, since) = (self.now.instant, self.step);
        for entry in self.messages.values_mut() {
            match entry.place {
                Whereabouts::InFlight { conn, deadline, .. } if deadline <= now => {
                    self.counters.timeouts += 1;
                    for consumer in self.consumers.iter_mut().filter(|other| other.conn == conn) {
                        consumer.stats.in_flight -= 1;
                    }
                    entry.place = Whereabouts::Queue { since };
                }
                Whereabouts::Deferred { due } if due <= now => {
                    entry.place = Whereabouts::Queue { since }
                }
                Whereabouts::Queue { .. }
                | Whereabouts::InFlight { .. }
                | Whereabouts::Deferred { .. } => {}
            }
        }
        self.look_at_abilities();
        self.channel.handle_timeout(self.now, &mut self.sink);
        let next = self.channel.poll_timeout();
        assert!(next.is_none_or(|next| next > now), "a timer rings for ever");
    }

    fn message(&mut self) -> Message {
        self.counters.messages += 1;
        let id = MessageId(self.counters.messages);
        Message { id, timestamp: UnixNanos(7), attempts: 0, record: None, body: body(id) }
    }

    const fn queued(&self, attempts: u16) -> Entry {
        Entry { attempts, place: Whereabouts::Queue { since: self.step } }
    }

    fn consumer(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.consumers.len())
    }

    /// What messages are in flight to a consumer, as numbers for an [`Op`].
    fn in_flight_to(&self, at: usize) -> Vec<u8> {
        let Some(consumer) = self.consumers.get(at) else { return Vec::new() };
        let of_it = |entry: &Entry| matches!(entry.place, Whereabouts::InFlight { conn, .. } if conn == consumer.conn);
        let numbers =
            self.messages.values().take(255).enumerate().filter(|(_, entry)| of_it(entry));
        numbers.map(|(number, _)| number as u8).collect()
    }

    /// The message of this number, and whether a consumer may answer it. The number 255 is of a
    /// message that never was.
    fn answered(&self, consumer: usize, number: u8) -> (MessageId, Result<(), NotInFlight>) {
        let known = usize::from(number).checked_rem(self.messages.len());
        let entry = known.and_then(|at| self.messages.iter().nth(at));
        let Some((id, entry)) = entry.filter(|_| number != u8::MAX) else {
            return (MessageId(u64::MAX), Err(NotInFlight::Unknown));
        };
        let result = match entry.place {
            Whereabouts::InFlight { conn, .. } if conn == self.consumers[consumer].conn => Ok(()),
            Whereabouts::InFlight { .. } => Err(NotInFlight::NotOwner),
            Whereabouts::Queue { .. } | Whereabouts::Deferred { .. } => Err(NotInFlight::Unknown),
        };
        (*id, result)
    }

    /// When the next message times out or is due.
    fn next_due(&self) -> Option<Instant> {
        let due = |entry: &Entry| match entry.place {
            Whereabouts::Queue { .. } => None,
            Whereabouts::InFlight { deadline, .. } => Some(deadline),
            Whereabouts::Deferred { due } => Some(due),
        };
        self.messages.values().filter_map(due).min()
    }

    /// Takes note of who has become able to take messages, or unable. To be called before
    /// deliveries.
    fn look_at_abilities(&mut self) {
        for consumer in &mut self.consumers {
            if !consumer.can_take() {
                consumer.able_since = None;
            } else if consumer.able_since.is_none() {
                consumer.able_since = Some(self.counters.deliveries);
            }
        }
    }

    /// Judges the deliveries, then the state.
    fn check(&mut self) {
        for (conn, id, attempts) in core::mem::take(&mut self.sink.delivered) {
            self.delivered(conn, id, attempts);
        }
        self.overflow();
        self.check_numbers();
        let can_take = |consumer: &Consumer| consumer.can_take();
        let flows = !self.paused && !self.stopped;
        assert!(
            !flows || self.channel.depth() == 0 || !self.consumers.iter().any(can_take),
            "a message waits although somebody could have it"
        );
        if let Some(due) = self.next_due() {
            let next = self.channel.poll_timeout();
            assert!(next.is_some_and(|next| next <= due), "{next:?} is behind what is due {due:?}");
        }
    }

    fn delivered(&mut self, conn: ConnId, id: MessageId, attempts: u16) {
        assert!(!self.paused && !self.stopped, "delivered while paused or stopped");
        let first = self.messages.values().filter_map(|entry| match entry.place {
            Whereabouts::Queue { since } => Some(since),
            Whereabouts::InFlight { .. } | Whereabouts::Deferred { .. } => None,
        });
        let (first, now, number) = (first.min(), self.now.instant, self.counters.deliveries + 1);
        self.counters.deliveries = number;
        let at = self.consumers.iter().position(|consumer| consumer.conn == conn);
        let at = at.expect("delivered to somebody who has left");
        self.check_turns(at);
        let consumer = &mut self.consumers[at];
        assert!(consumer.can_take(), "delivered beyond RDY, or to a connection that is full");
        let entry = self.messages.get_mut(&id).expect("delivered what is gone");
        match entry.place {
            Whereabouts::Queue { since } => assert_eq!(Some(since), first, "first in, first out"),
            Whereabouts::InFlight { .. } | Whereabouts::Deferred { .. } => {
                panic!("delivered from {:?}", entry.place)
            }
        }
        assert_eq!(attempts, entry.attempts + 1, "attempts rise by one");
        let deadline = now + consumer.timeout;
        *entry =
            Entry { attempts, place: Whereabouts::InFlight { conn, delivered: now, deadline } };
        consumer.blocked = self.sink.full.contains(&conn);
        consumer.stats.in_flight += 1;
        consumer.stats.messages += 1;
        consumer.last = number;
        self.look_at_abilities();
    }

    /// Nobody gets a second message while somebody else could have had one in between.
    fn check_turns(&self, at: usize) {
        let before = self.consumers[at].last;
        let passed_over = |other: &Consumer| {
            before > 0 && other.last < before && other.able_since.is_some_and(|able| able < before)
        };
        let others = self.consumers.iter().enumerate().filter(|(other, _)| *other != at);
        assert!(others.map(|(_, other)| other).all(|o| !passed_over(o)), "out of turn");
    }

    /// The rule at the limit of memory.
    fn overflow(&mut self) {
        let Memory::Drops(limit) = self.memory else {
            let room = self.channel.room();
            assert_eq!(room, (1 << 20) - self.channel.depth() as usize, "room is what is left");
            return;
        };
        assert_eq!(self.channel.room(), usize::MAX, "a topic never waits for an ephemeral channel");
        let queued = self.messages.iter().filter_map(|(id, entry)| match entry.place {
            Whereabouts::Queue { since } => Some((since, *id)),
            Whereabouts::InFlight { .. } | Whereabouts::Deferred { .. } => None,
        });
        let mut queued: Vec<_> = queued.collect();
        queued.sort_unstable();
        for (since, id) in queued.into_iter().skip(limit) {
            assert_eq!(since, self.step, "what waits is kept, what comes is dropped");
            self.messages.remove(&id);
        }
    }

    /// Compares whatever the channel says about itself.
    fn check_numbers(&self) {
        let count = |of: fn(&Whereabouts) -> bool| {
            self.messages.values().filter(|entry| of(&entry.place)).count()
        };
        let channel = &self.channel;
        assert_eq!(
            channel.depth() as usize,
            count(|place| matches!(place, Whereabouts::Queue { .. })),
            "depth"
        );
        let in_flight = count(|place| matches!(place, Whereabouts::InFlight { .. }));
        assert_eq!(channel.in_flight_count(), in_flight, "in flight");
        let deferred = count(|place| matches!(place, Whereabouts::Deferred { .. }));
        assert_eq!(channel.deferred_count(), deferred, "deferred");
        assert_eq!(channel.counters(), self.counters);
        assert_eq!(channel.consumer_count(), self.consumers.len(), "consumers");
        assert_eq!(channel.is_paused(), self.paused, "paused");
        let idle = self.consumers.iter().filter(|consumer| consumer.stats.ready == 0).count();
        let ready = self.consumers.iter().filter(|consumer| consumer.can_take()).count();
        assert_eq!(channel.idle_and_ready(), (idle as u64, ready as u64), "idle and ready");
        let mut expected: Vec<_> = self.consumers.iter().map(|c| (c.id, c.conn)).collect();
        let mut consumers: Vec<_> = channel.consumers().collect();
        expected.sort_unstable();
        consumers.sort_unstable();
        assert_eq!(consumers, expected);
        for consumer in &self.consumers {
            assert_eq!(channel.consumer_stats(consumer.id), Some(consumer.stats));
        }
    }
}
