//! What one side writes, the other reads back: commands from client to server, frames from server
//! to client.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use sansq_core::client::frame::{self, Frame, Received};
use sansq_core::message::{Bodies, Message, MessageId};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::protocol::command::{ClientState, Command, Decoder, Gate, Limits};
use sansq_core::protocol::encode;
use sansq_core::protocol::frame::{FrameType, push_frame, push_message};
use sansq_core::time::UnixNanos;
use sansq_core::transmit::Transmit;

const LIMITS: Limits = Limits {
    max_msg_size: 6000,
    max_body_size: 30_000,
    mpub_count_max: 6000,
    max_req_timeout: Duration::from_secs(3600),
    max_rdy_count: 2500,
    line_len_max: 16 * 1024,
    auth_secret_len_max: 64 * 1024,
};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[.a-zA-Z0-9_-]{1,64}", 1 => "[.a-zA-Z0-9_-]{1,54}#ephemeral"]
}

fn topic() -> impl Strategy<Value = TopicName> {
    name().prop_map(|name| TopicName::new(name).unwrap())
}

/// Lengths on both sides of what is copied and what is sliced.
fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 1..400), 1 => vec(any::<u8>(), 4000..6000)]
        .prop_map(Bytes::from)
}

fn delay() -> impl Strategy<Value = Duration> {
    (0_u64..=3_600_000).prop_map(Duration::from_millis)
}

/// Any bytes but those that end a line or a word: the decoder looks into an id as little as the
/// reference does.
fn id() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
        .prop_map(|id| id.map(|byte| if byte.is_ascii_whitespace() { b'_' } else { byte }))
}

/// A command, and the state in which it is allowed.
fn command() -> impl Strategy<Value = (ClientState, Command)> {
    let first = prop_oneof![
        body().prop_map(Command::Auth),
        body().prop_map(Command::Identify),
        (topic(), name()).prop_map(|(topic, channel)| {
            Command::Sub { topic, channel: ChannelName::new(channel).unwrap() }
        }),
    ];
    let subscribed = prop_oneof![
        Just(Command::Cls),
        Just(Command::Nop),
        id().prop_map(Command::Fin),
        id().prop_map(Command::Touch),
        (id(), delay()).prop_map(|(id, delay)| Command::Req { id, delay }),
        (0_u32..=2500).prop_map(Command::Rdy),
        (topic(), body()).prop_map(|(topic, body)| Command::Pub { topic, body }),
        (topic(), delay(), body()).prop_map(|(topic, delay, body)| Command::Dpub {
            topic,
            delay,
            body
        }),
        (topic(), vec(body(), 1..5))
            .prop_map(|(topic, bodies)| Command::Mpub { topic, bodies: bodies.iter().collect() }),
    ];
    prop_oneof![
        first.prop_map(|command| (ClientState::Init, command)),
        subscribed.prop_map(|command| (ClientState::Subscribed, command)),
    ]
}

fn encode(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    match command {
        Command::Auth(secret) => encode::auth(secret, &mut out),
        Command::Cls => encode::close(&mut out),
        Command::Dpub { topic, delay, body } => {
            encode::publish_after(topic, *delay, body, &mut out)
        }
        Command::Fin(id) => encode::finish(id, &mut out),
        Command::Identify(body) => encode::identify(body, &mut out),
        Command::MpubLine(_) => unreachable!("only the decoder makes it"),
        Command::Mpub { topic, bodies } => {
            let bodies: Vec<_> = bodies.iter().collect();
            encode::publish_many(topic, &bodies, &mut out)
        }
        Command::Nop => encode::nop(&mut out),
        Command::Pub { topic, body } => encode::publish(topic, body, &mut out),
        Command::Rdy(count) => encode::ready(*count, &mut out),
        Command::Req { id, delay } => encode::requeue(id, *delay, &mut out),
        Command::Sub { topic, channel } => encode::subscribe(topic, channel, &mut out),
        Command::Touch(id) => encode::touch(id, &mut out),
    }
    out
}

/// What a client reads out of what a server owes it, piece by piece.
fn frames(transmit: &mut Transmit, cut: usize) -> Vec<Frame> {
    let (mut input, mut frames) = (BytesMut::new(), Vec::new());
    while !transmit.is_empty() {
        let mut slices = [&[][..]; 3];
        let count = transmit.slices(&mut slices);
        let bytes = slices[..count].concat();
        let len = bytes.len().min(cut);
        input.extend_from_slice(&bytes[..len]);
        transmit.advance(len);
        while let Some(frame) = frame::decode(&mut input, 1 << 20).unwrap() {
            frames.push(frame);
        }
    }
    assert!(input.is_empty(), "bytes are left that make no frame");
    frames
}

proptest! {
    /// A server reads what a client wrote, one command behind the other, however the bytes are cut.
    #[test]
    fn commands(commands in vec(command(), 1..6), cut in 1_usize..3000) {
        let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
        let (mut input, mut read) = (BytesMut::new(), Vec::new());
        for (state, command) in &commands {
            let gate = Gate { state: *state, heartbeats: true, lacks_tls: false, authorizes: false };
            for piece in encode(command).chunks(cut) {
                input.extend_from_slice(piece);
                if let Some(command) = decoder.decode(&mut input, gate, &LIMITS, &mut bodies).unwrap() {
                    read.push((*state, command));
                }
            }
            prop_assert!(input.is_empty(), "{:?} left {} bytes", command, input.len());
        }
        prop_assert_eq!(read, commands);
    }

    /// A client reads the messages, answers and errors that a server wrote, in their order.
    #[test]
    fn frames_of_every_kind(
        items in vec((0_u8..3, body(), any::<u64>(), any::<i64>(), any::<u16>()), 1..8),
        cut in 1_usize..3000,
    ) {
        let (mut transmit, mut expected) = (Transmit::new(), Vec::new());
        for (kind, body, id, timestamp, attempts) in items {
            let (id, timestamp) = (MessageId(id), UnixNanos(timestamp));
            match kind {
                0 => {
                    push_frame(&mut transmit, FrameType::Response, &body);
                    expected.push(Frame::Response(body));
                }
                1 => {
                    push_frame(&mut transmit, FrameType::Error, &body);
                    expected.push(Frame::Error(body));
                }
                _ => {
                    let received =
                        Received { timestamp, attempts, id: id.to_hex(), body: body.clone() };
                    push_message(&mut transmit, &Message { id, timestamp, attempts, record: None, body });
                    prop_assert_eq!(MessageId::parse(&received.id), Some(id));
                    expected.push(Frame::Message(received));
                }
            }
        }
        prop_assert_eq!(frames(&mut transmit, cut), expected);
    }
}
