//! What is measured of the core, step by step, for those who count instructions and those who take
//! the time.

#[path = "../../tests/rig/mod.rs"]
mod rig;

use core::any::Any;
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sansq_core::machine::Machine;
use sansq_core::message::{Bodies, Message, MessageId};
use sansq_core::name::TopicName;
use sansq_core::nsqd::{Config, Peer};
use sansq_core::protocol::command::{Decoder, Gate, finishes};
use sansq_core::protocol::encode;
use sansq_core::protocol::frame::push_message;
use sansq_core::time::UnixNanos;
use sansq_core::transmit::Transmit;

use rig::Rig;

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Does what goes before for so many messages, or connections, and gives what is to be
    /// measured.
    pub(crate) prepare: fn(usize) -> Measured,
    /// The most that it can be asked for.
    count_max: usize,
}

/// What is measured. Its result is what is left over, whose disposal is not.
pub(crate) type Measured = Box<dyn FnOnce() -> Box<dyn Any>>;

/// All of them.
pub(crate) const STEPS: [Step; 18] = [
    messages("decode PUB", decode_pub),
    messages("decode MPUB of 200", decode_mpub),
    messages("decode FIN", decode_fin),
    messages("encode a message", encode_message),
    messages("publish, MPUB of 200, no channel", publish_many),
    messages("publish, PUB, no channel", |count| publish(0, count)),
    messages("publish to 1 channel", |count| publish(1, count)),
    messages("publish to 10 channels", |count| publish(10, count)),
    messages("deliver and encode", deliver),
    messages("finish", finish),
    messages("finish, last one first", finish_backwards),
    messages("time out and deliver again", time_out),
    messages("publish deferred, DPUB", defer),
    messages("fall due and deliver", fall_due),
    connections("make a topic with a channel", make_topics),
    connections("make one more channel of a topic", make_channels),
    connections("one more consumer of a channel", subscribe),
    connections("a message for each consumer", deliver_to_each),
];

const fn messages(name: &'static str, prepare: fn(usize) -> Measured) -> Step {
    Step { name, prepare, count_max: usize::MAX }
}

/// A step with a connection for each: a million of them is more than any machine has.
const fn connections(name: &'static str, prepare: fn(usize) -> Measured) -> Step {
    Step { name, prepare, count_max: 100_000 }
}

impl Step {
    /// Whether it can be asked for so many.
    pub(crate) const fn takes(&self, count: usize) -> bool {
        count <= self.count_max
    }
}

/// A message's body.
const BODY: [u8; 100] = [b'x'; 100];

/// As many FINs as come in one read.
const READ: usize = 500;

/// The commands of `input`, one read after the other.
fn decode(read: Vec<u8>, reads: usize) -> Measured {
    let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
    let mut input = BytesMut::with_capacity(read.len());
    let (gate, limits) = (Gate { heartbeats: true, ..Gate::default() }, Config::default().limits());
    Box::new(move || {
        for _ in 0..reads {
            input.extend_from_slice(&read);
            while let Ok(Some(command)) = decoder.decode(&mut input, gate, &limits, &mut bodies) {
                core::hint::black_box(command);
            }
            assert!(input.is_empty(), "whole commands");
        }
        Box::new((decoder, bodies))
    })
}

fn decode_pub(count: usize) -> Measured {
    decode(pub_command(), count)
}

fn decode_mpub(count: usize) -> Measured {
    decode(mpub_command(), count / 200)
}

/// FINs are taken many at a time.
fn decode_fin(count: usize) -> Measured {
    let mut read = Vec::new();
    (0..READ as u64).for_each(|n| encode::finish(&MessageId(n).to_hex(), &mut read));
    Box::new(move || {
        let mut input = BytesMut::with_capacity(read.len());
        for _ in 0..count / READ {
            input.extend_from_slice(&read);
            for id in finishes(&input) {
                core::hint::black_box(id);
            }
            input.advance(read.len());
        }
        Box::new(input)
    })
}

fn encode_message(count: usize) -> Measured {
    let body = Bytes::from(BODY.to_vec());
    let (id, timestamp) = (MessageId(1), UnixNanos(1_789_000_000_000_000_000));
    let message = Message { id, timestamp, attempts: 1, record: None, body };
    Box::new(move || {
        let mut transmit = Transmit::new();
        for _ in 0..count {
            push_message(&mut transmit, &message);
            transmit.advance(transmit.len());
        }
        Box::new(transmit)
    })
}

/// A rig in which nothing but the count of messages has a limit.
fn rig(channels: usize) -> Rig {
    let config = Config {
        mem_queue_size: 1_000_000_000,
        msg_timeout: Duration::from_secs(10),
        max_rdy_count: u32::MAX,
        disk: false,
        ..Config::default()
    };
    Rig::new(config, channels)
}

impl Rig {
    /// Sends a command so often.
    fn publish(&mut self, command: &[u8], count: usize) {
        for _ in 0..count {
            self.send(self.producer, command);
        }
    }

    fn ready(&mut self, count: usize) {
        self.send(self.consumer, format!("RDY {count}\n").as_bytes());
    }

    fn finish(&mut self, ids: impl Iterator<Item = [u8; 16]>) {
        // Simple, because what the rig itself costs is counted too.
        let mut commands = Vec::new();
        ids.for_each(|id| encode::finish(&id, &mut commands));
        for part in commands.chunks(21 * READ) {
            self.send(self.consumer, part);
        }
    }

    /// Lets time pass, and all deadlines with it.
    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        while self.shard.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.shard.handle_timeout(self.now, &mut self.actions);
            self.write();
        }
    }
}

/// What is measured on a rig, of which the rest is left over.
fn on(mut rig: Rig, measured: impl FnOnce(&mut Rig) + 'static) -> Measured {
    Box::new(move || {
        measured(&mut rig);
        Box::new(rig)
    })
}

fn topic() -> TopicName {
    TopicName::new("t").expect("a name")
}

fn pub_command() -> Vec<u8> {
    let mut command = Vec::new();
    encode::publish(&topic(), &BODY, &mut command);
    command
}

fn mpub_command() -> Vec<u8> {
    let mut command = Vec::new();
    encode::publish_many(&topic(), &[BODY; 200], &mut command);
    command
}

/// They are due in ten seconds.
fn dpub_command() -> Vec<u8> {
    let mut command = Vec::new();
    encode::publish_after(&topic(), Duration::from_secs(10), &BODY, &mut command);
    command
}

fn publish_many(count: usize) -> Measured {
    on(rig(0), move |rig| rig.publish(&mpub_command(), count / 200))
}

fn publish(channels: usize, count: usize) -> Measured {
    on(rig(channels), move |rig| rig.publish(&pub_command(), count))
}

fn deliver(count: usize) -> Measured {
    let mut rig = rig(1);
    rig.publish(&pub_command(), count);
    on(rig, move |rig| {
        rig.ready(count);
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}

fn delivered(count: usize) -> Rig {
    let mut rig = rig(1);
    rig.publish(&pub_command(), count);
    rig.ready(count);
    rig
}

fn finish(count: usize) -> Measured {
    let mut rig = delivered(count);
    let ids = core::mem::take(&mut rig.ids);
    on(rig, move |rig| rig.finish(ids.into_iter()))
}

fn finish_backwards(count: usize) -> Measured {
    let mut rig = delivered(count);
    let ids = core::mem::take(&mut rig.ids);
    on(rig, move |rig| rig.finish(ids.into_iter().rev()))
}

fn time_out(count: usize) -> Measured {
    on(delivered(count), move |rig| {
        rig.wait(Duration::from_secs(11));
        assert_eq!(rig.ids.len(), 2 * count, "delivered again");
    })
}

fn defer(count: usize) -> Measured {
    on(rig(1), move |rig| rig.publish(&dpub_command(), count))
}

fn fall_due(count: usize) -> Measured {
    let mut rig = rig(1);
    rig.publish(&dpub_command(), count);
    rig.ready(count);
    assert_eq!(rig.ids.len(), 0, "not due yet");
    on(rig, move |rig| {
        rig.wait(Duration::from_secs(11));
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}

/// So many consumers come, and each says something.
fn come(rig: &mut Rig, count: usize, command: impl Fn(usize) -> String) {
    let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
    for n in 0..count {
        let conn = rig.shard.accept(peer, rig.now, &mut rig.actions);
        rig.send(conn, command(n).as_bytes());
    }
}

fn come_ready(rig: &mut Rig, count: usize) {
    come(rig, count, |_| String::from("  V2SUB t c\nRDY 1\n"));
}

fn make_topics(count: usize) -> Measured {
    on(rig(0), move |rig| come(rig, count, |n| format!("  V2SUB t{n:07} c\n")))
}

fn make_channels(count: usize) -> Measured {
    on(rig(0), move |rig| come(rig, count, |n| format!("  V2SUB t c{n:07}\n")))
}

fn subscribe(count: usize) -> Measured {
    on(rig(0), move |rig| come_ready(rig, count))
}

fn deliver_to_each(count: usize) -> Measured {
    let mut rig = rig(0);
    come_ready(&mut rig, count);
    on(rig, move |rig| {
        rig.publish(&pub_command(), count);
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}
