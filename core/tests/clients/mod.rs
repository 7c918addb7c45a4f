//! What clients rely on (nsqd-protocol.md section 22), where no other test is about it: settings
//! that they negotiate, and the ends of their ranges.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::nsqd::Config;
use sansq_core::testing::{ClientId, Node};

use crate::{error, heartbeat, message, ok, stats, text};

/// A connection with these settings.
fn identified(node: &mut Node, json: &str) -> ClientId {
    let client = node.client(0);
    let len = (json.len() as u32).to_be_bytes();
    node.send(client, &[b"IDENTIFY\n", &len[..], json.as_bytes()].concat());
    assert_eq!(node.frames(client), [ok()]);
    client
}

fn wait_ms(node: &mut Node, millis: u64) {
    node.wait(Duration::from_millis(millis));
}

/// Nos. 2 and 6: OK before the first message, none before RDY; RDY is a ceiling that stays.
#[test]
fn rdy_is_a_ceiling_that_stays() {
    let mut node = Node::new(2, Config::default());
    let producer = node.client(0);
    for n in 0..20 {
        node.publish(producer, "t", n.to_string());
    }
    let consumer = node.client(0);
    node.send(consumer, b"SUB t c\n");
    assert_eq!(node.frames(consumer), [ok()]);
    wait_ms(&mut node, 1000);
    assert_eq!(node.frames(consumer), []);
    // RDY alone is 1, and the next message comes for each FIN, without another RDY.
    node.send(consumer, b"RDY\n");
    for n in 0..10 {
        let (id, attempts, body) = message(&mut node, consumer);
        assert_eq!((attempts, body), (1, n.to_string()));
        node.send(consumer, format!("FIN {id}\n").as_bytes());
    }
    // An empty word is 0: one is in flight, and no other follows.
    let (id, ..) = message(&mut node, consumer);
    node.send(consumer, format!("RDY \nFIN {id}\n").as_bytes());
    assert_eq!(node.frames(consumer), []);
}

#[test]
fn rdy_is_held_to_the_operators_limit() {
    for (max, count, is_good) in
        [(2500, 2500, true), (2500, 2501, false), (7, 7, true), (7, 8, false)]
    {
        let mut node = Node::new(1, Config { max_rdy_count: max, ..Config::default() });
        let consumer = node.consumer(0, "t", "c", 0);
        node.send(consumer, format!("RDY {count}\n").as_bytes());
        assert_eq!(node.is_closed(consumer), !is_good, "{count} of {max}");
        let text = format!("E_INVALID RDY count {count} out of range 0-{max}");
        let expected = if is_good { vec![] } else { vec![error(&text)] };
        assert_eq!(node.frames(consumer), expected);
    }
}

/// No. 3: a frame per interval, also while the broker waits for the rest of a body.
#[test]
fn heartbeats_flow_while_a_body_is_awaited() {
    let mut node = Node::new(2, Config::default());
    let client = identified(&mut node, r#"{"heartbeat_interval":1000}"#);
    node.send(client, b"PUB t\n\0\0\0\x05he");
    wait_ms(&mut node, 1999);
    assert_eq!(node.frames(client), [heartbeat()]);
    node.send(client, b"llo");
    assert_eq!(node.frames(client), [ok()]);
    wait_ms(&mut node, 1);
    assert_eq!(node.frames(client), [heartbeat()]);
    // Bytes of a body are no sign of life by themselves (section 2.1).
    node.send(client, b"PUB t\n\0\0\0\x05");
    for _ in 0..4 {
        wait_ms(&mut node, 499);
        node.send(client, b"x");
    }
    wait_ms(&mut node, 4);
    let frames = node.frames(client);
    assert_eq!(frames.last(), Some(&error("E_BAD_MESSAGE PUB failed to read message body")));
    assert!(node.is_closed(client));
}

/// No. 14, and section 8.6 on what a later IDENTIFY changes.
#[test]
fn heartbeats_switched_off() {
    let mut node = Node::new(2, Config::default());
    let publisher = identified(&mut node, r#"{"heartbeat_interval":-1}"#);
    node.wait(Duration::from_secs(3600));
    node.publish(publisher, "t", "x");
    // Nothing said about it: still off.
    node.send(publisher, b"IDENTIFY\n\0\0\0\x02{}SUB t c\n");
    let refusal = error("E_INVALID cannot SUB with heartbeats disabled");
    assert_eq!(node.frames(publisher), [ok(), refusal]);
    // Switched on later, the reader's deadline holds, and there is still no heartbeat.
    let consumer = identified(&mut node, r#"{"heartbeat_interval":-1}"#);
    node.send(consumer, b"IDENTIFY\n\0\0\0\x1b{\"heartbeat_interval\":1000}SUB t c\n");
    assert_eq!(node.frames(consumer), [ok(), ok()]);
    wait_ms(&mut node, 1999);
    assert_eq!((node.frames(consumer), node.is_closed(consumer)), (vec![], false));
    wait_ms(&mut node, 1);
    assert!(node.is_closed(consumer));
}

/// Each consumer's messages time out by its own setting.
#[test]
fn msg_timeout_is_each_clients_own() {
    let mut node = Node::new(3, Config::default());
    let producer = node.client(0);
    let short = identified(&mut node, r#"{"msg_timeout":1000}"#);
    node.send(short, b"SUB t c\nRDY 1\n");
    assert_eq!(node.frames(short), [ok()]);
    node.publish(producer, "t", "a");
    let long = node.consumer(0, "t", "c", 1);
    node.publish(producer, "t", "b");
    let held = message(&mut node, short);
    assert_eq!(message(&mut node, long).2, "b");
    wait_ms(&mut node, 999);
    assert_eq!(node.frames(short), []);
    wait_ms(&mut node, 1);
    // The other one is full, so it comes back to who let it time out (no. 13), and FIN is good.
    assert_eq!(message(&mut node, short), (held.0.clone(), 2, held.2));
    node.send(short, format!("FIN {}\n", held.0).as_bytes());
    assert_eq!(node.frames(short), []);
    let channel = &stats(&mut node).topics[0].channels[0];
    assert_eq!((channel.in_flight_count, channel.timeout_count), (1, 1));
}

/// Deliveries go by the first IDENTIFY, TOUCH by the latest (section 8.6).
#[test]
fn a_later_msg_timeout_is_for_touch() {
    let mut node = Node::new(2, Config::default());
    let producer = node.client(0);
    let consumer = identified(&mut node, r#"{"msg_timeout":1000}"#);
    node.send(consumer, b"IDENTIFY\n\0\0\0\x14{\"msg_timeout\":4000}SUB t c\nRDY 1\n");
    assert_eq!(node.frames(consumer), [ok(), ok()]);
    node.publish(producer, "t", "x");
    let (id, ..) = message(&mut node, consumer);
    wait_ms(&mut node, 1000);
    assert_eq!(message(&mut node, consumer).1, 2);
    node.send(consumer, format!("TOUCH {id}\n").as_bytes());
    wait_ms(&mut node, 3999);
    assert_eq!(node.frames(consumer), []);
    wait_ms(&mut node, 1);
    assert_eq!(message(&mut node, consumer).1, 3);
}

/// No. 10: REQ's delay is clamped, DPUB's is refused.
#[test]
fn a_delay_beyond_the_limit() {
    let config = Config { max_req_timeout: Duration::from_secs(1), ..Config::default() };
    let mut node = Node::new(2, config);
    let (producer, consumer) = (node.client(0), node.consumer(1, "t", "c", 1));
    node.publish(producer, "t", "x");
    let (id, ..) = message(&mut node, consumer);
    node.send(consumer, format!("REQ {id} 999999\n").as_bytes());
    wait_ms(&mut node, 999);
    assert_eq!(node.frames(consumer), []);
    wait_ms(&mut node, 1);
    assert_eq!(message(&mut node, consumer).1, 2);
    node.send(producer, b"DPUB t 1000\n\0\0\0\x01xDPUB t 1001\n");
    let refusal = error("E_INVALID DPUB timeout 1001 out of range 0-1000");
    assert_eq!(node.frames(producer), [ok(), refusal]);
}

/// No. 17: behind CLOSE_WAIT comes no message; what is in flight is still answered.
#[test]
fn a_consumer_that_closes_finishes_what_it_has() {
    let mut node = Node::new(2, Config::default());
    let (producer, consumer) = (node.client(0), node.consumer(0, "t", "c", 3));
    for n in 0..9 {
        node.publish(producer, "t", n.to_string());
    }
    let held: Vec<_> = node.frames(consumer);
    let ids = held.iter().filter_map(|frame| match frame {
        Frame::Message(message) => Some(text(&message.id)),
        Frame::Response(_) | Frame::Error(_) => None,
    });
    let ids: Vec<_> = ids.collect();
    node.send(consumer, b"CLS\nRDY 100\n");
    assert_eq!(node.frames(consumer), [Frame::Response("CLOSE_WAIT".into())]);
    node.send(consumer, format!("FIN {}\nREQ {} 0\nTOUCH {}\n", ids[0], ids[1], ids[2]).as_bytes());
    node.publish(consumer, "t", "from who closes");
    wait_ms(&mut node, 29_999);
    assert_eq!(node.frames(consumer), []);
    node.send(consumer, format!("FIN {}\n", ids[2]).as_bytes());
    wait_ms(&mut node, 1);
    assert_eq!(node.frames(consumer), [heartbeat()]);
    let channel = &stats(&mut node).topics[0].channels[0];
    assert_eq!((channel.depth, channel.in_flight_count), (8, 0));
}

/// Sampling keeps r percent of the channel's messages; what it drops is gone for the channel, and
/// no rate is everything (section 10.4; the reference keeps one percent more).
#[test]
fn sampling_keeps_its_share() {
    for (rate, kept) in [(0, 2000..=2000), (1, 5..=40), (50, 900..=1100), (99, 1950..=1999)] {
        let mut node = Node::new(2, Config { max_rdy_count: 5000, ..Config::default() });
        let producer = node.client(0);
        let consumer = identified(&mut node, &format!("{{\"sample_rate\":{rate}}}"));
        node.send(consumer, b"SUB t c\nRDY 5000\n");
        assert_eq!(node.frames(consumer), [ok()]);
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
