//! The channels that a new topic has elsewhere (nsqd-protocol.md section 18.5).

use core::time::Duration;

use bytes::BytesMut;
use sansq_core::arena::PeerId;
use sansq_core::client::frame::Frame;
use sansq_core::http::call::CallFailure;
use sansq_core::nsqd::{
    AdminReply, AdminRequest, Config, Event, LOOKUPD_WAIT, OPENING_WAIT, PeerAction, TopicOp,
};
use sansq_core::testing::{ClientId, Node};

use crate::{pub_command, stats, topic};

/// A node with nsqlookupds that it is about to reach, and a publisher.
fn node(shards: u16, addresses: &[&str]) -> (Node, Vec<PeerId>, ClientId) {
    let lookupd_tcp_addresses = addresses.iter().map(|&address| address.into()).collect();
    let mut node = Node::new(shards, Config { lookupd_tcp_addresses, ..Config::default() });
    let dials = node.peers.drain(..);
    let peers = dials.filter(|(_, action)| matches!(action, PeerAction::Dial(_)));
    let peers = peers.map(|(id, _)| id).collect();
    let publisher = node.client(usize::from(shards) - 1);
    (node, peers, publisher)
}

/// An nsqlookupd is reached and says where it answers HTTP.
fn reached(node: &mut Node, peer: PeerId, host: &str) {
    let json = format!(
        r#"{{"broadcast_address":"{host}","http_port":4161,"tcp_port":4160,"version":"1"}}"#
    );
    let mut input = BytesMut::from(&(json.len() as u32).to_be_bytes()[..]);
    input.extend_from_slice(json.as_bytes());
    node.on_shard(0, |shard, now, out| {
        shard.handle_peer_connected(peer, now, out);
        shard.handle_peer_input(peer, &mut input, now, out);
    });
}

fn not_reached(node: &mut Node, peer: PeerId) {
    node.on_shard(0, |shard, now, out| shard.handle_peer_closed(peer, "refused", now, out));
}

/// Each topic's depth, and each of its channels' name and depth.
fn depths(node: &mut Node) -> String {
    let mut text = String::new();
    for topic in stats(node).topics {
        text.push_str(&format!("{}:{}", topic.name, topic.depth));
        for channel in topic.channels {
            text.push_str(&format!(" {}:{}", channel.name, channel.depth));
        }
        text.push(';');
    }
    text
}

fn create(name: &str) -> AdminRequest {
    AdminRequest::Topic(topic(name), TopicOp::Create)
}

fn delete(name: &str) -> AdminRequest {
    AdminRequest::Topic(topic(name), TopicOp::Delete)
}

/// Publishes to a topic that is being made: there is no answer yet.
fn take_reply(node: &mut Node) -> Option<AdminReply> {
    node.replies.pop_first().map(|(_, reply)| reply)
}

fn begin_publish(node: &mut Node, publisher: ClientId, topic: &str, body: &str) {
    node.send(publisher, &pub_command(topic, body));
    assert_eq!(node.frames(publisher), []);
}

/// So many publishes have been answered, and nothing else.
fn assert_published(node: &mut Node, publisher: ClientId, count: usize) {
    assert_eq!(node.frames(publisher), vec![Frame::Response("OK".into()); count]);
}

fn asked(node: &Node) -> Vec<String> {
    let url = |call: &sansq_core::http::call::Call| {
        format!("{}{}", call.url.authority(), call.url.target())
    };
    node.calls.iter().map(|(_, _, call)| url(call)).collect()
}

#[test]
fn the_first_message_reaches_the_channels_of_all_nsqlookupds() {
    for shards in [1, 4] {
        let (mut node, peers, publisher) = node(shards, &["a:1", "b:1"]);
        reached(&mut node, peers[0], "a");
        reached(&mut node, peers[1], "::1");
        begin_publish(&mut node, publisher, "t#ephemeral", "1");
        begin_publish(&mut node, publisher, "t#ephemeral", "2");
        let urls =
            ["a:4161/channels?topic=t%23ephemeral", "[::1]:4161/channels?topic=t%23ephemeral"];
        assert_eq!(asked(&node), urls);
        assert_eq!(node.calls[0].2.connect_timeout, Duration::from_secs(2));
        node.answer(200, r#"{"channels":["one","two","three#ephemeral","not valid",null]}"#);
        assert_eq!(depths(&mut node), "t#ephemeral:0;");
        node.answer(200, r#"{"CHANNELS":["two","four"],"x":{}}"#);
        assert_published(&mut node, publisher, 2);
        assert_eq!(depths(&mut node), "t#ephemeral:0 four:2 one:2 two:2;");
        // A topic that is there does not ask again; one that was deleted does.
        node.publish(publisher, "t#ephemeral", "3");
        assert!(node.calls.is_empty());
        assert_eq!(depths(&mut node), "t#ephemeral:0 four:3 one:3 two:3;");
        assert_eq!(node.admin(0, delete("t#ephemeral")), Some(AdminReply::Done));
        begin_publish(&mut node, publisher, "t#ephemeral", "4");
        assert_eq!(asked(&node), urls);
    }
}

#[test]
fn a_list_of_thousands_is_made_in_slices() {
    for shards in [1, 3] {
        let (mut node, peers, publisher) = node(shards, &["a:1"]);
        reached(&mut node, peers[0], "a");
        begin_publish(&mut node, publisher, "t", "1");
        let names: Vec<_> = (0..5_000).map(|n| format!("\"c{n}\"")).collect();
        node.answer(200, &format!("{{\"channels\":[{}]}}", names.join(",")));
        let count = |node: &mut Node| stats(node).topics[0].channels.len();
        let mut before = 0;
        while count(&mut node) < names.len() {
            let now = count(&mut node);
            assert!(now > before && now - before <= 256, "{before}, then {now}");
            before = now;
            // Others have their turns, and the publish waits for the last channel.
            assert_eq!(node.frames(publisher), []);
            node.wait(Duration::from_millis(1));
        }
        assert_published(&mut node, publisher, 1);
        assert!(stats(&mut node).topics[0].channels.iter().all(|channel| channel.depth == 1));
    }
}

#[test]
fn failures_of_some_leave_the_others_channels() {
    let outcomes = [
        Err(CallFailure::TimedOut),
        Err(CallFailure::TooBig),
        Ok((500, r#"{"channels":["x"]}"#)),
        Ok((200, "not JSON")),
        Ok((200, r#"{"channels":"x"}"#)),
    ];
    for outcome in outcomes {
        let (mut node, peers, publisher) = node(2, &["a:1", "b:1"]);
        reached(&mut node, peers[0], "a");
        reached(&mut node, peers[1], "b");
        begin_publish(&mut node, publisher, "t", "1");
        match outcome {
            Ok((status, body)) => node.answer(status, body),
            Err(failure) => node.called(Err(failure)),
        }
        assert_eq!(depths(&mut node), "t:0;");
        node.answer(200, r#"{"channels":["c"]}"#);
        assert_published(&mut node, publisher, 1);
        assert_eq!(depths(&mut node), "t:0 c:1;");
        let failed = |event: &Event| matches!(event, Event::LookupFailed(..));
        assert_eq!(node.events.iter().filter(|event| failed(event)).count(), 1);
    }
    // And of all: the topic starts without.
    let (mut node, peers, publisher) = node(2, &["a:1"]);
    reached(&mut node, peers[0], "a");
    begin_publish(&mut node, publisher, "t", "1");
    let consumer = node.consumer(0, "t", "c", 1);
    assert!(node.bodies(consumer).is_empty());
    node.answer(403, r#"{"https_port":9}"#);
    assert!(node.calls[0].2.url.is_https());
    node.answer(403, r#"{"https_port":9}"#);
    assert_eq!(node.bodies(consumer), ["1"]);
    assert!(node.calls.is_empty());
}

#[test]
fn the_first_topics_wait_for_nsqlookupds_that_are_being_reached() {
    for shards in [1, 4] {
        let (mut node, peers, publisher) = node(shards, &["a:1", "b:1"]);
        for name in ["t", "u"] {
            node.publish(publisher, name, "1");
        }
        reached(&mut node, peers[0], "a");
        assert!(node.calls.is_empty());
        not_reached(&mut node, peers[1]);
        let mut urls = asked(&node);
        urls.sort();
        assert_eq!(urls, ["a:4161/channels?topic=t", "a:4161/channels?topic=u"]);
        node.answer(200, r#"{"channels":["c"]}"#);
        node.answer(200, r#"{"channels":["c"]}"#);
        assert_eq!(depths(&mut node), "t:0 c:1;u:0 c:1;");
        // The one that cannot be reached is tried again, and is not waited for any more.
        node.wait(Duration::from_secs(15));
        let publisher = node.client(0);
        begin_publish(&mut node, publisher, "v", "1");
        assert_eq!(asked(&node), ["a:4161/channels?topic=v"]);
    }
}

#[test]
fn without_any_nsqlookupd_a_topic_starts_at_once() {
    let (mut node, peers, publisher) = node(2, &["a:1"]);
    let consumer = node.consumer(0, "t", "c", 1);
    node.publish(publisher, "t", "1");
    assert!(node.bodies(consumer).is_empty());
    not_reached(&mut node, peers[0]);
    assert_eq!(node.bodies(consumer), ["1"]);
    let consumer = node.consumer(0, "u", "c", 1);
    node.publish(publisher, "u", "1");
    assert_eq!(node.bodies(consumer), ["1"]);
    let nobody = |event: &&Event| matches!(event, Event::NobodyAsked(_));
    assert_eq!(node.events.iter().filter(nobody).count(), 2);
}

#[test]
fn one_that_does_not_say_where_it_is_asked_is_as_good_as_none() {
    let (mut node, peers, publisher) = node(2, &["a:1"]);
    node.publish(publisher, "t", "1");
    let consumer = node.consumer(0, "t", "c", 1);
    reached(&mut node, peers[0], "");
    assert!(node.calls.is_empty());
    assert_eq!(node.bodies(consumer), ["1"]);
}

#[test]
fn nothing_is_waited_for_without_end() {
    for shards in [1, 2] {
        // An nsqlookupd that is not heard of: its attempt ends after a second each for two steps.
        let (mut node, _, publisher) = node(shards, &["a:1"]);
        node.publish(publisher, "t", "1");
        let consumer = node.consumer(0, "t", "c", 1);
        node.wait(LOOKUPD_WAIT);
        assert_eq!(node.bodies(consumer), ["1"]);

        // One that does not answer over HTTP, and whose failure is never reported.
        let (mut node, peers, publisher) = self::node(shards, &["a:1"]);
        reached(&mut node, peers[0], "a");
        begin_publish(&mut node, publisher, "t", "1");
        let consumer = node.consumer(0, "t", "c", 1);
        node.wait(Duration::from_secs(5) - Duration::from_nanos(1));
        assert!(node.bodies(consumer).is_empty());
        node.wait(Duration::from_nanos(1));
        assert_eq!(node.bodies(consumer), ["1"]);
        // What comes later is dropped.
        node.answer(200, r#"{"channels":["late"]}"#);
        assert_eq!(depths(&mut node), "t:0 c:0;");
    }
}

#[test]
fn a_pause_lasts_beyond_the_answer() {
    let (mut node, peers, publisher) = node(1, &["a:1"]);
    reached(&mut node, peers[0], "a");
    begin_publish(&mut node, publisher, "t", "1");
    let pause = AdminRequest::Topic(topic("t"), TopicOp::Pause);
    assert_eq!(node.admin(0, pause), Some(AdminReply::Done));
    assert_eq!(depths(&mut node), "t:0;");
    node.answer(200, r#"{"channels":["c"]}"#);
    assert_eq!(depths(&mut node), "t:1 c:0;");
    let unpause = AdminRequest::Topic(topic("t"), TopicOp::Unpause);
    assert_eq!(node.admin(0, unpause), Some(AdminReply::Done));
    assert_eq!(depths(&mut node), "t:0 c:1;");
}

/// A channel that this client makes at an nsqlookupd afterwards must not get what it published
/// before.
#[test]
fn who_makes_a_topic_is_answered_when_the_nsqlookupds_have_been_asked() {
    for shards in [1, 4] {
        let (mut node, peers, publisher) = node(shards, &["a:1"]);
        reached(&mut node, peers[0], "a");
        begin_publish(&mut node, publisher, "published", "1");
        node.answer(200, r#"{"channels":["c"]}"#);
        assert_published(&mut node, publisher, 1);

        assert_eq!(node.admin(0, create("created")), None);
        // It is there already for whoever comes second.
        assert_eq!(node.admin(0, create("created")), Some(AdminReply::Done));
        node.answer(200, r#"{"channels":["c"]}"#);
        assert_eq!(take_reply(&mut node), Some(AdminReply::Done));

        let consumer = node.client(0);
        node.send(consumer, b"SUB subscribed c\nRDY 1\n");
        assert_eq!(node.frames(consumer), []);
        node.consumer(0, "subscribed", "c", 1);
        node.answer(200, r#"{"channels":["d"]}"#);
        assert_eq!(node.frames(consumer), [Frame::Response("OK".into())]);
        assert_eq!(depths(&mut node), "created:0 c:0;published:0 c:1;subscribed:0 c:0 d:0;");
    }
}

#[test]
fn who_makes_a_topic_does_not_wait_long_for_nsqlookupds() {
    for shards in [1, 4] {
        let (mut node, peers, publisher) = node(shards, &["a:1"]);
        reached(&mut node, peers[0], "a");
        begin_publish(&mut node, publisher, "published", "1");
        begin_publish(&mut node, publisher, "published", "2");
        assert_eq!(node.admin(0, create("created")), None);
        let consumer = node.client(0);
        node.send(consumer, b"SUB subscribed c\nRDY 1\n");
        node.wait(OPENING_WAIT - Duration::from_nanos(1));
        assert_published(&mut node, publisher, 0);
        assert_eq!(take_reply(&mut node), None);
        assert_eq!(node.frames(consumer), []);
        node.wait(Duration::from_nanos(1));
        assert_published(&mut node, publisher, 2);
        assert_eq!(take_reply(&mut node), Some(AdminReply::Done));
        assert_eq!(node.frames(consumer), [Frame::Response("OK".into())]);
        // The messages wait for the channels all the same.
        assert_eq!(depths(&mut node), "created:0;published:2;subscribed:0 c:0;");
        node.publish(publisher, "published", "3");
        node.answer(200, r#"{"channels":["c"]}"#);
        assert_eq!(depths(&mut node), "created:0;published:0 c:3;subscribed:0 c:0;");
    }
}

#[test]
fn nobody_waits_for_a_topic_that_goes() {
    for shards in [1, 4] {
        let (mut node, peers, publisher) = node(shards, &["a:1"]);
        reached(&mut node, peers[0], "a");
        assert_eq!(node.admin(0, create("t")), None);
        begin_publish(&mut node, publisher, "t", "1");
        assert_eq!(node.admin(0, delete("t")), Some(AdminReply::Done));
        assert_eq!(take_reply(&mut node), Some(AdminReply::Done));
        let refused = Frame::Error("E_PUB_FAILED PUB failed exiting".into());
        assert_eq!(node.frames(publisher), [refused]);

        // A consumer's connection ends with it, as always.
        let consumer = node.client(0);
        node.send(consumer, b"SUB t c\nRDY 1\n");
        assert_eq!(node.admin(0, delete("t")), Some(AdminReply::Done));
        assert_eq!(node.frames(consumer), []);
        assert!(node.is_closed(consumer));

        // And an ephemeral one goes with the consumer that made it.
        let consumer = node.client(0);
        node.send(consumer, b"SUB e#ephemeral c#ephemeral\nRDY 1\n");
        assert_eq!(depths(&mut node), "e#ephemeral:0 c#ephemeral:0;");
        node.close(consumer);
        assert_eq!(depths(&mut node), "");

        assert_eq!(node.admin(0, create("u")), None);
        node.shut_down();
        assert_eq!(take_reply(&mut node), Some(AdminReply::Done));
    }
}
