//! Shards as a driver sees them: bytes in, frames out, over one shard and over several.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod auth;
mod limits;
mod operations;
mod precreate;
mod room;
mod statistics;
mod storage;
#[cfg(feature = "upgrade")]
mod upgrade;
mod weaknesses;

use core::time::Duration;

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;
use sansq_core::client::frame::Frame;
use sansq_core::machine::{Machine, MachineActions, ReadState};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    Actions, AdminError, AdminReply, AdminRequest, Batch, ChannelOp, Close, Config, Peer,
    PeerAction, ReplyToken, ServerStats, Shard, ShardId, StatsFilter, TopicOp,
};
use sansq_core::testing::{ClientId, Node};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;

fn ok() -> Frame {
    Frame::Response("OK".into())
}

fn error(text: &str) -> Frame {
    Frame::Error(text.to_owned().into())
}

/// What a frame says, or an id.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pub_command(topic: &str, body: &str) -> Vec<u8> {
    let head = format!("PUB {topic}\n");
    [head.as_bytes(), &(body.len() as u32).to_be_bytes(), body.as_bytes()].concat()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn stats(node: &mut Node) -> ServerStats {
    let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
    match node.admin(0, AdminRequest::Stats(filter)) {
        Some(AdminReply::Stats(stats)) => *stats,
        other => panic!("statistics are expected, not {other:?}"),
    }
}

fn message(node: &mut Node, client: ClientId) -> (String, u16, String) {
    match node.frames(client).as_slice() {
        [Frame::Message(message)] => (text(&message.id), message.attempts, text(&message.body)),
        other => panic!("one message is expected, not {other:?}"),
    }
}

#[test]
fn answers_keep_their_order_although_shards_answer_when_they_can() {
    let mut node = Node::new(4, Config::default());
    let client = node.client(0);
    let mut bytes = Vec::new();
    for n in 0..600 {
        bytes.extend(pub_command(&format!("topic{}", n % 13), "x"));
    }
    bytes.extend(b"SUB topic3 c\nRDY 5\nNOP\nFIN 0123456789abcdef\n");
    bytes.extend(pub_command("topic4", "y"));
    bytes.extend(b"CLS\nBAD\n");
    node.send(client, &bytes);
    let frames = node.frames(client);
    let answers: Vec<_> = frames.into_iter().filter(|f| !matches!(f, Frame::Message(_))).collect();
    assert_eq!(answers.len(), 600 + 1 + 4);
    assert!(answers[..601].iter().all(|answer| *answer == ok()));
    assert_eq!(
        answers[601..],
        [
            error("E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight"),
            ok(),
            Frame::Response("CLOSE_WAIT".into()),
            error("E_INVALID invalid command BAD"),
        ]
    );
    assert!(node.is_closed(client));
    assert_eq!(node.shard_of(client), usize::from(topic("topic3").home(4)));
    assert_eq!(stats(&mut node).topics.iter().map(|topic| topic.message_count).sum::<u64>(), 601);
}

#[test]
fn a_malformed_mpub_creates_its_topic_and_a_malformed_pub_does_not() {
    let mut node = Node::new(3, Config::default());
    for bytes in [&b"MPUB made\n\0\0\0\0"[..], b"PUB unmade\n\0\0\0\0"] {
        let client = node.client(0);
        node.send(client, bytes);
    }
    let names: Vec<_> =
        stats(&mut node).topics.iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["made"]);
    // It is the line that makes the topic, wherever the topic is at home.
    for name in ["a", "b", "c", "d"] {
        let client = node.client(0);
        node.send(client, format!("MPUB {name}\n\0").as_bytes());
    }
    assert_eq!(stats(&mut node).topics.len(), 5);
}

#[test]
fn a_reader_that_stops_costs_a_bounded_amount_and_is_given_up() {
    let mut node = Node::new(1, Config::default());
    let (slow, producer) = (node.consumer(0, "t", "c", 2500), node.client(0));
    node.set_reads(slow, false);
    let body = "x".repeat(10_000);
    for _ in 0..100 {
        node.publish(producer, "t", &body);
    }
    let in_flight = stats(&mut node).topics[0].channels[0].in_flight_count;
    assert!((26..=28).contains(&in_flight), "{in_flight} messages of 10 kB are owed");
    node.set_reads(slow, true);
    assert_eq!(node.bodies(slow).len(), 100);
    // It stops again, for good: one heartbeat interval, and others get its messages.
    node.set_reads(slow, false);
    node.publish(producer, "t", "last");
    node.wait(Duration::from_secs(30));
    assert!(node.is_closed(slow));
    assert_eq!(stats(&mut node).topics[0].channels[0].depth, 101);
}

/// Answers that nobody reads do not pile up: commands wait until some are taken.
#[test]
fn a_sender_that_does_not_read_is_not_listened_to() {
    let mut node = Node::new(1, Config::default());
    let client = node.consumer(0, "t", "c", 0);
    node.set_reads(client, false);
    let fin = b"FIN 0123456789abcdef\n".repeat(1000);
    for _ in 0..20 {
        node.send(client, &fin);
    }
    let unread = node.unread(client);
    assert!(unread > 10_000 * 21, "{unread} bytes of commands are left alone");
    node.set_reads(client, true);
    assert_eq!((node.frames(client).len(), node.unread(client)), (20_000, 0));
    // One that reads nothing for a heartbeat interval is given up.
    node.set_reads(client, false);
    for _ in 0..20 {
        node.send(client, &fin);
    }
    node.wait(Duration::from_secs(30));
    assert!(node.is_closed(client));
}

/// Sampling keeps r percent of the channel's messages; what it drops is gone for the channel, and
/// no rate is everything (nsqd-protocol.md section 10.4; the reference keeps one percent more).
#[test]
fn sampling_keeps_its_share() {
    for (rate, kept) in [(0, 2000..=2000), (1, 5..=40), (50, 900..=1100), (99, 1950..=1999)] {
        let mut node = Node::new(2, Config { max_rdy_count: 5000, ..Config::default() });
        let (producer, consumer) = (node.client(0), node.client(0));
        let json = format!("{{\"sample_rate\":{rate}}}");
        let len = (json.len() as u32).to_be_bytes();
        let commands = [b"IDENTIFY\n", &len[..], json.as_bytes(), b"SUB t c\nRDY 5000\n"].concat();
        node.send(consumer, &commands);
        assert_eq!(node.frames(consumer), [ok(), ok()]);
        for _ in 0..2000 {
            node.publish(producer, "t", "x");
        }
        let came = node.bodies(consumer).len();
        assert!(kept.contains(&came), "{came} of 2000 at {rate} percent");
        let channel = &stats(&mut node).topics[0].channels[0];
        let counts = (channel.message_count, channel.depth, channel.in_flight_count);
        assert_eq!(counts, (2000, 0, came as u64));
    }
}

#[test]
fn admin_requests_reach_their_topic_wherever_it_is() {
    let mut node = Node::new(3, Config::default());
    let (t, c) = (topic("t"), ChannelName::new("c").unwrap());
    let on_topic = |op| AdminRequest::Topic(t, op);
    let on_channel = |op| AdminRequest::Channel(t, c, op);
    let refused = |error| Some(AdminReply::Refused(error));
    let done = Some(AdminReply::Done);
    assert_eq!(node.admin(0, on_topic(TopicOp::Delete)), refused(AdminError::TopicNotFound));
    assert_eq!(node.admin(1, on_channel(ChannelOp::Create)), refused(AdminError::TopicNotFound));
    assert_eq!(node.admin(1, on_topic(TopicOp::Create)), done);
    assert_eq!(node.admin(2, on_channel(ChannelOp::Pause)), refused(AdminError::ChannelNotFound));
    assert_eq!(node.admin(2, on_channel(ChannelOp::Create)), done);
    let consumer = node.consumer(0, "t", "c", 9);
    assert_eq!(node.admin(0, on_channel(ChannelOp::Pause)), done);
    let batch = Batch::Many(["a", "b"].into_iter().collect());
    let publish = AdminRequest::Publish { topic: t, batch, delay: Duration::ZERO };
    assert_eq!(node.admin(0, publish.clone()), Some(AdminReply::Published));
    assert_eq!(node.bodies(consumer), [""; 0]);
    assert_eq!(node.admin(0, on_channel(ChannelOp::Unpause)), done);
    assert_eq!(node.bodies(consumer), ["a", "b"]);
    assert_eq!(node.admin(0, on_channel(ChannelOp::Empty)), done);
    assert_eq!(stats(&mut node).topics[0].channels[0].in_flight_count, 0);
    assert_eq!(node.admin(0, on_topic(TopicOp::Pause)), done);
    assert_eq!(node.admin(0, publish), Some(AdminReply::Published));
    assert_eq!(stats(&mut node).topics[0].depth, 2);
    assert_eq!(node.admin(0, on_topic(TopicOp::Empty)), done);
    assert_eq!(node.admin(0, on_topic(TopicOp::Unpause)), done);
    assert_eq!(stats(&mut node).topics[0].depth, 0);
    assert_eq!(node.admin(0, on_topic(TopicOp::Delete)), done);
    assert!(node.is_closed(consumer));
    assert_eq!(node.frames(consumer), []);
    assert_eq!(stats(&mut node).topics, []);
}

/// A reference nsqlookupd forgets an ephemeral channel only when it is named, so each one is.
#[test]
fn deleting_a_topic_unregisters_its_channels_too() {
    let config =
        Config { lookupd_tcp_addresses: vec!["lookupd:4160".into(); 2], ..Config::default() };
    let (mut shard, mut out) = (Shard::new(ShardId(0), 1, config, 7), Actions::default());
    let now = Now::from_millis(1_789_000_000_000);
    shard.start(now, &mut out);
    // One that is configured twice is dialled once.
    let [(peer, _)] = out.peers[..] else { panic!("one dial is expected, not {:?}", out.peers) };
    shard.handle_peer_connected(peer, now, &mut out);
    let answer = "{\"broadcast_address\":\"l\",\"http_port\":1,\"tcp_port\":2,\"version\":\"1\"}";
    let mut input = BytesMut::new();
    input.put_u32(answer.len() as u32);
    input.put_slice(answer.as_bytes());
    shard.handle_peer_input(peer, &mut input, now, &mut out);
    let (topic, token) = (topic("t"), ReplyToken(1));
    let channel =
        |name| AdminRequest::Channel(topic, ChannelName::new(name).unwrap(), ChannelOp::Create);
    for request in [
        AdminRequest::Topic(topic, TopicOp::Create),
        channel("c"),
        channel("e#ephemeral"),
        AdminRequest::Topic(topic, TopicOp::Delete),
    ] {
        shard.handle_admin(request, token, now, &mut out);
    }
    let sent = out.peers.iter().skip(2).filter_map(|(_, action)| match action {
        PeerAction::Send(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        PeerAction::Dial(_) | PeerAction::Close => None,
    });
    assert_eq!(
        sent.collect::<String>(),
        "REGISTER t\nREGISTER t c\nREGISTER t e#ephemeral\n\
         UNREGISTER t c\nUNREGISTER t e#ephemeral\nUNREGISTER t\n"
    );
}

#[test]
fn stopping_closes_everybody_without_a_word() {
    let mut node = Node::new(2, Config { mem_queue_size: 1, ..Config::default() });
    let (producer, consumer) = (node.client(0), node.consumer(1, "other", "c", 1));
    node.publish(producer, "other", "in flight");
    assert_eq!(node.bodies(consumer), ["in flight"]);
    // Nor with what the one had when it was closed a moment earlier.
    let others = [node.consumer(0, "other", "c", 5), node.consumer(1, "other", "c", 5)];
    node.send(producer, &pub_command("t", "x").repeat(2));
    node.frames(producer);
    node.shut_down();
    assert!(node.is_closed(producer));
    for client in [consumer, others[0], others[1]] {
        assert!(node.is_closed(client));
        assert_eq!(node.frames(client), []);
    }
    assert_eq!(node.shards().iter().map(|shard| shard.connections()).sum::<usize>(), 0);
    let late = node.client(0);
    assert!(node.is_closed(late));
}

proptest! {
    /// However the clients' bytes are cut, the broker sends the same.
    #[test]
    fn any_split_of_the_input_gives_the_same_output(
        cuts in prop::collection::vec(1_usize..40, 1..30),
        shards in 1_u16..4,
    ) {
        let mut bytes = b"  V2IDENTIFY\n\0\0\0\x02{}".to_vec();
        for n in 0..12 {
            bytes.extend(pub_command(&format!("t{}", n % 3), &format!("body {n}")));
        }
        bytes.extend(b"SUB t1 c\nRDY 3\nTOUCH 0123456789abcdef\nDPUB t2 10\n\0\0\0\x01xCLS\nNOP\nFIN x\n");
        let whole = {
            let mut node = Node::new(shards, Config::default());
            let client = node.connect(0);
            node.send(client, &bytes);
            (node.frames(client), node.is_closed(client), stats(&mut node).topics)
        };
        let mut node = Node::new(shards, Config::default());
        let client = node.connect(0);
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            node.send(client, piece);
            rest = behind;
        }
        let cut = (node.frames(client), node.is_closed(client), stats(&mut node).topics);
        prop_assert_eq!(cut, whole);
    }
}

/// A client that takes no bytes loses its connection while another shard still has its publish in
/// hand: the answer that comes then goes nowhere.
#[test]
fn an_answer_behind_a_close_is_not_sent() {
    let name = (0..9).map(|n| format!("topic-{n}")).find(|name| topic(name).home(2) == 1).unwrap();
    let shard = |id| Shard::new(ShardId(id), 2, Config::default(), 7);
    let (mut shards, mut out) = ([shard(0), shard(1)], Actions::default());
    let peer = Peer::Tcp(([127, 0, 0, 1], 4000).into());
    let start = Now::from_millis(1_789_000_000_000);
    let conn = shards[0].accept(peer, start, &mut out);
    let mut input = BytesMut::from(&[b"  V2", &pub_command(&name, "hello")[..]].concat()[..]);
    assert_eq!(shards[0].handle_input(conn, &mut input, start, &mut out), ReadState::More(1));
    // The publish arrives at the other shard, whose answer takes a long time.
    let mut elsewhere = Actions::default();
    shards[1].handle_shard(&mut out.lanes[1], start, &mut elsewhere);
    for seconds in [30, 60] {
        shards[0].handle_timeout(start.after(Duration::from_secs(seconds)), &mut out);
        // The driver takes the heartbeat, and can't write it.
        shards[0].swap_transmit(conn, &mut Transmit::new());
    }
    assert_eq!(out.close, [(conn, Close::Now)]);
    let mut late = Actions::default();
    let now = start.after(Duration::from_secs(61));
    shards[0].handle_shard(&mut elsewhere.lanes[0], now, &mut late);
    assert!(late.is_empty(), "{late:?}");
}
