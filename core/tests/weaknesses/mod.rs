//! What the reference gets wrong (nsqd-protocol.md section 24), done right: one test for each
//! weakness that no other test is about.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::name::ChannelName;
use sansq_core::nsqd::{AdminReply, AdminRequest, ChannelOp, Close, Config};
use sansq_core::testing::{ClientId, Node};
use sansq_core::time::UnixNanos;

use crate::{error, message, ok, pub_command, stats, text, topic};

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn identify(node: &mut Node, client: ClientId, json: &str) {
    let len = (json.len() as u32).to_be_bytes();
    node.send(client, &[b"IDENTIFY\n", &len[..], json.as_bytes()].concat());
    assert_eq!(node.frames(client), [ok()]);
}

fn ids(node: &mut Node, client: ClientId) -> Vec<String> {
    let id = |frame| match frame {
        Frame::Message(message) => text(&message.id),
        other @ (Frame::Response(_) | Frame::Error(_)) => {
            panic!("a message is expected, not {other:?}")
        }
    };
    node.frames(client).into_iter().map(id).collect()
}

/// W0: consumers answer what they had while the channel is emptied, and deleted.
#[test]
fn emptying_a_busy_channel_harms_nobody() {
    for shards in [1, 3] {
        let mut node = Node::new(shards, Config::default());
        let producer = node.client(0);
        let consumers = [0, 1, 2].map(|n| node.consumer(n % shards as usize, "t", "c", 5));
        for round in 0..20 {
            for n in 0..9 {
                node.publish(producer, "t", format!("{round}.{n}"));
            }
            let held = consumers.map(|consumer| ids(&mut node, consumer));
            let empty = AdminRequest::Channel(topic("t"), channel("c"), ChannelOp::Empty);
            assert_eq!(node.admin(0, empty), Some(AdminReply::Done));
            for (consumer, ids) in consumers.into_iter().zip(&held) {
                assert_eq!(ids.len(), 3);
                for (id, command) in ids.iter().zip(["FIN", "REQ", "TOUCH"]) {
                    let delay = if command == "REQ" { " 0" } else { "" };
                    node.send(consumer, format!("{command} {id}{delay}\n").as_bytes());
                    let text = format!("E_{command}_FAILED {command} {id} failed ID not in flight");
                    assert_eq!(node.frames(consumer), [error(&text)]);
                }
            }
            // W16: the count is that of the set, so nobody starves on a RDY that nothing uses.
            let in_flight = stats(&mut node).topics[0].channels[0].in_flight_count;
            assert_eq!(in_flight, 0);
        }
        let delete = AdminRequest::Channel(topic("t"), channel("c"), ChannelOp::Delete);
        assert_eq!(node.admin(0, delete), Some(AdminReply::Done));
        for consumer in consumers {
            assert!(node.is_closed(consumer));
            assert_eq!(node.frames(consumer), []);
        }
    }
}

/// W5: deadlines are exact however many channels there are, and on a channel that is new.
#[test]
fn deadlines_are_exact_on_any_number_of_channels() {
    let mut node = Node::new(3, Config::default());
    let producer = node.client(0);
    let consumers: Vec<_> =
        (0..100).map(|n| node.consumer(n % 3, "t", &format!("c{n}"), 5)).collect();
    node.publish(producer, "t", "x");
    for (n, consumer) in consumers.iter().enumerate() {
        let id = ids(&mut node, *consumer).remove(0);
        node.send(*consumer, format!("REQ {id} {}\n", 100 + n).as_bytes());
    }
    for (n, consumer) in consumers.iter().enumerate() {
        node.wait(Duration::from_millis(if n == 0 { 99 } else { 0 }));
        assert_eq!(node.frames(*consumer), []);
        node.wait(Duration::from_millis(1));
        assert_eq!(message(&mut node, *consumer).1, 2);
    }
}

/// W6: what is requeued, times out or comes back from a lost consumer is in the channel at once.
#[test]
fn a_message_is_always_somewhere() {
    let mut node = Node::new(2, Config::default());
    let (producer, consumer) = (node.client(0), node.consumer(1, "t", "c", 3));
    for n in 0..3 {
        node.publish(producer, "t", n.to_string());
    }
    let held = ids(&mut node, consumer);
    node.send(consumer, b"RDY 0\n");
    let places = |node: &mut Node| {
        let channel = &stats(node).topics[0].channels[0];
        (channel.depth, channel.in_flight_count, channel.deferred_count)
    };
    node.send(consumer, format!("REQ {} 0\n", held[0]).as_bytes());
    assert_eq!(places(&mut node), (1, 2, 0));
    node.send(consumer, format!("REQ {} 5000\n", held[1]).as_bytes());
    assert_eq!(places(&mut node), (1, 1, 1));
    node.close(consumer);
    assert_eq!(places(&mut node), (2, 0, 1));
    node.wait(Duration::from_secs(5));
    assert_eq!(places(&mut node), (3, 0, 0));
}

/// W10: who subscribes to an ephemeral channel as the last one leaves it is not thrown out.
#[test]
fn subscribing_again_to_an_ephemeral_channel_holds() {
    for (topic, shards) in [("t", 1), ("t", 3), ("t#ephemeral", 2)] {
        let mut node = Node::new(shards, Config::default());
        let mut consumer = node.consumer(0, topic, "c#ephemeral", 1);
        for n in 0..300 {
            // The next one's SUB is under way when the socket of the one before goes, or just
            // behind.
            let next = node.client(n % usize::from(shards));
            if n % 2 == 0 {
                node.close(consumer);
                node.send(next, format!("SUB {topic} c#ephemeral\nRDY 1\n").as_bytes());
            } else {
                node.send(next, format!("SUB {topic} c#ephemeral\nRDY 1\n").as_bytes());
                node.close(consumer);
            }
            assert_eq!(node.frames(next), [ok()]);
            assert!(!node.is_closed(next));
            consumer = next;
        }
        let producer = node.client(0);
        node.publish(producer, topic, "x");
        assert_eq!(node.bodies(consumer), ["x"]);
    }
}

/// W12: an id names one message of a node, also on topics of different shards.
#[test]
fn ids_do_not_repeat_across_topics() {
    let mut node = Node::new(3, Config::default());
    let producer = node.client(0);
    let topics: Vec<_> = (0..20).map(|n| format!("t{n}")).collect();
    let consumers: Vec<_> = topics.iter().map(|topic| node.consumer(0, topic, "c", 9)).collect();
    for topic in &topics {
        node.publish(producer, topic, "x");
    }
    let mut seen: Vec<_> =
        consumers.iter().flat_map(|consumer| ids(&mut node, *consumer)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 20);
}

/// W13: the wall clock steps, forth and back; nothing times out, nothing stops.
#[test]
fn a_step_of_the_wall_clock_moves_no_timer() {
    let mut node = Node::new(2, Config::default());
    let (producer, consumer) = (node.client(0), node.consumer(1, "t", "c", 9));
    node.publish(producer, "t", "a");
    node.send(producer, b"DPUB t 1000\n\0\0\0\x01d");
    assert_eq!(node.frames(producer), [ok()]);
    let first = ids(&mut node, consumer);
    const HOUR: i64 = 3_600_000_000_000;
    for step in [HOUR, -2 * HOUR] {
        node.now.unix = UnixNanos(node.now.unix.0 + step);
        node.wait(Duration::from_millis(10));
        assert_eq!(node.frames(consumer), []);
        node.publish(producer, "t", "b");
        assert!(ids(&mut node, consumer)[0] > first[0], "ids rise");
    }
    node.wait(Duration::from_millis(980));
    assert_eq!(node.bodies(consumer), ["d"]);
}

/// W14: a message leaves at once although the client takes more; what it negotiated is an upper
/// bound, and is answered as it was asked for.
#[test]
fn output_buffer_settings_hold_nothing_back() {
    for settings in [
        r#""output_buffer_size":65536,"output_buffer_timeout":30000"#,
        r#""output_buffer_timeout":-1"#,
        r#""output_buffer_size":-1"#,
    ] {
        let mut node = Node::new(2, Config::default());
        let (producer, consumer) = (node.client(0), node.client(0));
        identify(&mut node, consumer, &format!("{{{settings}}}"));
        node.send(consumer, b"SUB t c\nRDY 9\n");
        assert_eq!(node.frames(consumer), [ok()]);
        for body in ["a", "b"] {
            node.publish(producer, "t", body);
            assert_eq!(node.bodies(consumer), [body]);
        }
    }
}

/// W16: the limit holds, whoever comes at once and from wherever.
#[test]
fn the_limit_on_consumers_is_exact() {
    let config = Config { max_channel_consumers: 3, ..Config::default() };
    let mut node = Node::new(3, config);
    let clients: Vec<_> = (0..10).map(|n| node.client(n % 3)).collect();
    for client in &clients {
        node.send(*client, b"SUB t c\n");
    }
    let accepted = clients.iter().filter(|client| node.frames(**client) == [ok()]).count();
    assert_eq!(accepted, 3);
    assert_eq!(stats(&mut node).topics[0].channels[0].client_count, 3);
}

/// W20: behind a fatal error the driver sends before it closes, and drops what still comes.
#[test]
fn a_refusal_is_sent_before_the_close() {
    let mut node = Node::new(1, Config::default());
    let client = node.client(0);
    node.send(client, &[b"BAD\n", &[b'x'; 100_000][..]].concat());
    assert_eq!(node.close_of(client), Some(Close::AfterSending));
    assert_eq!(node.frames(client), [error("E_INVALID invalid command BAD")]);
}

/// W21: who switched heartbeats off and takes no bytes is given up all the same.
#[test]
fn a_publisher_without_deadlines_can_not_hold_on_for_ever() {
    let mut node = Node::new(1, Config::default());
    let (quiet, stuck) = (node.client(0), node.client(0));
    for client in [quiet, stuck] {
        identify(&mut node, client, r#"{"heartbeat_interval":-1}"#);
    }
    node.set_reads(stuck, false);
    node.send(stuck, &pub_command("t", "x"));
    node.wait(Duration::from_secs(59));
    assert!(!node.is_closed(stuck));
    node.wait(Duration::from_secs(1));
    assert!(node.is_closed(stuck));
    node.wait(Duration::from_secs(3600));
    assert!(!node.is_closed(quiet), "it owes nothing");
}

/// W25: in the order of publishing, and turn about.
#[test]
fn first_in_first_out_and_turn_about() {
    let mut node = Node::new(2, Config::default());
    let producer = node.client(0);
    for n in 0..100 {
        node.publish(producer, "t", n.to_string());
    }
    let consumers = [0, 1].map(|shard| node.consumer(shard, "t", "c", 0));
    let mut seen = [Vec::new(), Vec::new()];
    for consumer in consumers {
        node.send(consumer, b"RDY 1\n");
    }
    for _ in 0..50 {
        for (consumer, seen) in consumers.into_iter().zip(&mut seen) {
            let (id, _, body) = message(&mut node, consumer);
            seen.push(body.parse::<u32>().unwrap());
            node.send(consumer, format!("FIN {id}\n").as_bytes());
        }
    }
    let every_second = |first| (first..100).step_by(2).collect::<Vec<u32>>();
    assert_eq!(seen, [every_second(0), every_second(1)]);
}
