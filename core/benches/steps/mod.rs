//! What is measured of the core, step by step, for those who count instructions and those who take the time.

#[path = "../../tests/rig/mod.rs"]
mod rig;

use core::any::Any;
use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sansq_core::message::{Bodies, Message, MessageId};
use sansq_core::nsqd::{Config, Peer};
use sansq_core::protocol::command::{Decoder, Gate, Limits, finishes};
use sansq_core::protocol::encode;
use sansq_core::protocol::frame::push_message;
use sansq_core::time::UnixNanos;
use sansq_core::transmit::Transmit;

use rig::Rig;

/// One line of the table.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Does what goes before for so many messages, and gives what is to be measured.
    pub(crate) prepare: fn(usize) -> Measured,
}

/// What is measured. Its result is what is left over, whose disposal is not.
pub(crate) type Measured = Box<dyn FnOnce() -> Box<dyn Any>>;

/// All of them.
pub(crate) const STEPS: [Step; 18] = [
    Step { name: "decode PUB", prepare: decode_pub },
    Step { name: "decode MPUB of 200", prepare: decode_mpub },
    Step { name: "decode FIN", prepare: decode_fin },
    Step { name: "encode a message", prepare: encode_message },
    Step { name: "publish, MPUB of 200, no channel", prepare: publish_many },
    Step { name: "publish, PUB, no channel", prepare: |count| publish(0, count) },
    Step { name: "publish to 1 channel", prepare: |count| publish(1, count) },
    Step { name: "publish to 10 channels", prepare: |count| publish(10, count) },
    Step { name: "deliver and encode", prepare: deliver },
    Step { name: "finish", prepare: finish },
    Step { name: "finish, last one first", prepare: finish_backwards },
    Step { name: "time out and deliver again", prepare: time_out },
    Step { name: "publish deferred, DPUB", prepare: defer },
    Step { name: "fall due and deliver", prepare: fall_due },
    Step { name: "make a topic with a channel", prepare: make_topics },
    Step { name: "make one more channel of a topic", prepare: make_channels },
    Step { name: "one more consumer of a channel", prepare: subscribe },
    Step { name: "a message for each consumer", prepare: deliver_to_each },
];

/// Bytes of a message's body.
const BODY_LEN: usize = 100;

/// As many FINs as come in one read.
const READ: usize = 500;

const LIMITS: Limits = Limits {
    max_msg_size: 1024 * 1024,
    max_body_size: 5 * 1024 * 1024,
    mpub_count_max: 1_000_000,
    max_req_timeout: Duration::from_secs(3600),
    max_rdy_count: 2500,
    line_len_max: 1024,
};

/// The commands of `input`, one read after the other.
fn decode(read: Vec<u8>, reads: usize) -> Measured {
    let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
    let mut input = BytesMut::with_capacity(read.len());
    let gate = Gate { heartbeats: true, ..Gate::default() };
    Box::new(move || {
        for _ in 0..reads {
            input.extend_from_slice(&read);
            while let Ok(Some(command)) = decoder.decode(&mut input, gate, &LIMITS, &mut bodies) {
                core::hint::black_box(command);
            }
            assert!(input.is_empty(), "whole commands");
        }
        Box::new((decoder, bodies))
    })
}

fn decode_pub(count: usize) -> Measured {
    decode(pub_command("PUB t\n"), count)
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
    let body = Bytes::from(vec![b'x'; BODY_LEN]);
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
    fn publish(&mut self, head: &str, count: usize) {
        let command = pub_command(head);
        for _ in 0..count {
            self.send(self.producer, &command);
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

fn pub_command(head: &str) -> Vec<u8> {
    [head.as_bytes(), &(BODY_LEN as u32).to_be_bytes(), &[b'x'; BODY_LEN]].concat()
}

fn mpub_command() -> Vec<u8> {
    let sized = [&(BODY_LEN as u32).to_be_bytes()[..], &[b'x'; BODY_LEN]].concat();
    let list = [&200_u32.to_be_bytes()[..], &sized.repeat(200)].concat();
    [b"MPUB t\n", &(list.len() as u32).to_be_bytes()[..], &list].concat()
}

fn publish_many(count: usize) -> Measured {
    let command = mpub_command();
    on(rig(0), move |rig| {
        for _ in 0..count / 200 {
            rig.send(rig.producer, &command);
        }
    })
}

fn publish(channels: usize, count: usize) -> Measured {
    on(rig(channels), move |rig| rig.publish("PUB t\n", count))
}

fn deliver(count: usize) -> Measured {
    let mut rig = rig(1);
    rig.publish("PUB t\n", count);
    on(rig, move |rig| {
        rig.ready(count);
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}

fn delivered(count: usize) -> Rig {
    let mut rig = rig(1);
    rig.publish("PUB t\n", count);
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
    on(rig(1), move |rig| rig.publish("DPUB t 10000\n", count))
}

fn fall_due(count: usize) -> Measured {
    let mut rig = rig(1);
    rig.publish("DPUB t 10000\n", count);
    rig.ready(count);
    assert_eq!(rig.ids.len(), 0, "not due yet");
    on(rig, move |rig| {
        rig.wait(Duration::from_secs(11));
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}

/// So many consumers come, and each says something.
fn consumers(count: usize, command: impl Fn(usize) -> String + 'static) -> Measured {
    on(rig(0), move |rig| {
        let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
        for n in 0..count {
            let conn = rig.shard.accept(peer, rig.now, &mut rig.actions);
            rig.send(conn, command(n).as_bytes());
        }
    })
}

fn make_topics(count: usize) -> Measured {
    consumers(count, |n| format!("  V2SUB t{n:07} c\n"))
}

fn make_channels(count: usize) -> Measured {
    consumers(count, |n| format!("  V2SUB t c{n:07}\n"))
}

fn subscribe(count: usize) -> Measured {
    consumers(count, |_| String::from("  V2SUB t c\nRDY 1\n"))
}

fn deliver_to_each(count: usize) -> Measured {
    let rig = subscribe(count)().downcast::<Rig>();
    let rig = *rig.expect("what it leaves over");
    on(rig, move |rig| {
        rig.publish("PUB t\n", count);
        assert_eq!(rig.ids.len(), count, "delivered");
    })
}
