//! Whole nodes with a disk: what is on it after a stop and after a crash, what a publisher is told,
//! and what happens when the disk is slow, full or broken. On one shard and on four.

mod chaos;
mod counts;
mod ending;
mod full;

use core::time::Duration;

use bytes::Bytes;
use sansq_core::client::frame::Frame;
use sansq_core::machine::Machine;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    AdminReply, AdminRequest, Batch, ChannelOp, ChannelStats, Config, StatsFilter, TopicOp,
    TopicStats,
};
use sansq_core::storage::memory::MemoryFiles;
use sansq_core::storage::{FailureKind, Op, Request, Store};
use sansq_core::testing::{ClientId, Holds, Node};

use crate::{message, pub_command, text};

const SHARDS: [u16; 2] = [1, 4];

fn config(mem_queue_size: usize) -> Config {
    Config { disk: true, mem_queue_size, ..Config::default() }
}

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

fn ok() -> Frame {
    Frame::Response("OK".into())
}

fn contents(files: &MemoryFiles, name: &str) -> String {
    let bytes = files.get(name).unwrap_or_else(|| panic!("there is no {name}"));
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn metadata(files: &MemoryFiles) -> String {
    contents(files, "nsqd.dat")
}

fn topic_op(node: &mut Node, topic: &str, op: TopicOp) -> Option<AdminReply> {
    node.admin(0, AdminRequest::Topic(name(topic), op))
}

fn channel_op(node: &mut Node, topic: &str, channel: &str, op: ChannelOp) -> Option<AdminReply> {
    let channel = ChannelName::new(channel).unwrap();
    node.admin(0, AdminRequest::Channel(name(topic), channel, op))
}

fn topic_stats(node: &mut Node, topic: &str) -> Option<TopicStats> {
    let filter = StatsFilter { topic: Some(name(topic)), ..StatsFilter::default() };
    match node.admin(0, AdminRequest::Stats(filter)) {
        Some(AdminReply::Stats(stats)) => stats.topics.into_iter().next(),
        other => panic!("statistics are expected, not {other:?}"),
    }
}

fn channel_stats(node: &mut Node, topic: &str, channel: &str) -> ChannelStats {
    let stats = topic_stats(node, topic).unwrap();
    stats.channels.into_iter().find(|stats| stats.name.as_str() == channel).unwrap()
}

fn ping(node: &mut Node) -> Result<(), String> {
    let shard = node.shards().len() - 1;
    match node.admin(shard, AdminRequest::Ping) {
        Some(AdminReply::Health(result)) => result,
        other => panic!("health is expected, not {other:?}"),
    }
}

/// A consumer none of whose messages are taken yet.
fn subscribe(node: &mut Node, shard: usize, topic: &str, channel: &str, rdy: u32) -> ClientId {
    let consumer = node.consumer(shard, topic, channel, 0);
    node.send(consumer, format!("RDY {rdy}\n").as_bytes());
    consumer
}

/// Publishes `m0`, `m1`, … and takes the answers.
fn publish_many(node: &mut Node, topic: &str, numbers: core::ops::Range<usize>) {
    let producer = node.client(0);
    for number in numbers {
        node.publish(producer, topic, format!("m{number}"));
    }
}

/// Takes and finishes what comes, until nothing comes any more: bodies and attempts.
fn drain(node: &mut Node, client: ClientId) -> Vec<(String, u16)> {
    let mut all = Vec::new();
    loop {
        let frames = node.frames(client);
        if frames.is_empty() {
            return all;
        }
        for frame in frames {
            match frame {
                Frame::Message(message) => {
                    node.send(client, format!("FIN {}\n", text(&message.id)).as_bytes());
                    all.push((text(&message.body), message.attempts));
                }
                Frame::Response(_) | Frame::Error(_) => node.send(client, b"NOP\n"),
            }
        }
    }
}

fn id(frame: &Frame) -> String {
    match frame {
        Frame::Message(message) => text(&message.id),
        other @ (Frame::Response(_) | Frame::Error(_)) => {
            panic!("a message is expected, not {other:?}")
        }
    }
}

fn bodies(all: Vec<(String, u16)>) -> Vec<String> {
    all.into_iter().map(|(body, _)| body).collect()
}

fn numbered(numbers: core::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("m{number}")).collect()
}

#[test]
fn the_list_of_topics_and_channels_is_kept_up() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(10));
        assert_eq!(metadata(&node.files), r#"{"topics":null,"version":"1.3.0"}"#);
        for topic in ["a", "b", "gone", "e#ephemeral"] {
            topic_op(&mut node, topic, TopicOp::Create);
            channel_op(&mut node, topic, "c", ChannelOp::Create);
        }
        channel_op(&mut node, "a", "d#ephemeral", ChannelOp::Create);
        assert_eq!(topic_op(&mut node, "a", TopicOp::Pause), Some(AdminReply::Done));
        let pause = channel_op(&mut node, "b", "c", ChannelOp::Pause);
        assert_eq!(pause, Some(AdminReply::Done));
        topic_op(&mut node, "gone", TopicOp::Delete);
        node.wait(Duration::from_millis(100));
        let expected = concat!(
            r#"{"topics":[{"name":"a","paused":true,"channels":[{"name":"c","paused":false}]},"#,
            r#"{"name":"b","paused":false,"channels":[{"name":"c","paused":true}]}],"#,
            r#""version":"1.3.0"}"#
        );
        assert_eq!(metadata(&node.files), expected);

        let mut node = Node::over(node.kill(), shards, config(10));
        assert_eq!(metadata(&node.files), expected);
        assert!(topic_stats(&mut node, "a").unwrap().paused);
        assert!(channel_stats(&mut node, "b", "c").paused);
        assert_eq!(topic_stats(&mut node, "gone"), None);
        let created = node.events.iter().map(ToString::to_string);
        let mut created: Vec<_> = created.filter(|line| line.starts_with("TOPIC(")).collect();
        created.sort_unstable();
        let expected = [
            "TOPIC(a): created",
            "TOPIC(a): new channel(c)",
            "TOPIC(b): created",
            "TOPIC(b): new channel(c)",
        ];
        assert_eq!(created, expected);
    }
}

#[test]
fn a_pause_is_answered_when_it_is_written_or_that_failed() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(10));
        topic_op(&mut node, "t", TopicOp::Create);
        node.wait(Duration::from_millis(10));
        node.set_holds(Holds::DISK);
        assert_eq!(topic_op(&mut node, "t", TopicOp::Pause), None);
        node.files.faults.replace = Some(FailureKind::Full);
        node.set_holds(Holds::NOTHING);
        assert_eq!(node.replies.values().collect::<Vec<_>>(), [&AdminReply::Done]);
        assert!(!metadata(&node.files).contains("true"));
        let lines = node.events.iter().map(ToString::to_string);
        let failed = lines.filter(|line| line.starts_with("failed to persist metadata - "));
        assert_eq!(failed.count(), 1);
        let why = ping(&mut node).unwrap_err();
        assert!(why.starts_with("failed to persist metadata - disk full"), "{why}");

        node.files.faults.replace = None;
        node.wait(Duration::from_secs(1));
        assert!(metadata(&node.files).contains("true"));
        assert_eq!(ping(&mut node), Ok(()));
    }
}

#[test]
fn a_stop_keeps_everything() {
    for shards in SHARDS {
        for mem_queue_size in [0, 1, 3, 1000] {
            let mut node = Node::new(shards, config(mem_queue_size));
            publish_many(&mut node, "alone", 0..5);
            let consumer = subscribe(&mut node, 0, "t", "c", 3);
            let producer = node.client(0);
            for number in 0..10 {
                node.publish(producer, "t", format!("m{number}"));
            }
            let taken = node.frames(consumer);
            let ids: Vec<_> = taken.iter().map(id).collect();
            assert_eq!(ids.len(), 3);
            node.send(consumer, b"RDY 0\n");
            node.send(consumer, format!("FIN {}\nREQ {} 60000\n", ids[0], ids[1]).as_bytes());
            node.send(producer, b"DPUB t 90000\n\0\0\0\x05later");
            assert_eq!(node.frames(producer), [ok()]);
            let stats = channel_stats(&mut node, "t", "c");
            let counts = (stats.depth, stats.in_flight_count, stats.deferred_count);
            assert_eq!(counts, (7, 1, 2), "mem-queue-size {mem_queue_size}");

            let mut node = Node::over(node.stop(), shards, config(1000));
            assert_eq!(topic_stats(&mut node, "alone").unwrap().depth, 5);
            assert_eq!(channel_stats(&mut node, "t", "c").depth, 10);
            let consumer = subscribe(&mut node, 0, "t", "c", 100);
            let mut all = drain(&mut node, consumer);
            all.sort_unstable();
            // One was in flight: its attempt counts. Two are not due yet.
            let mut expected: Vec<_> = numbered(3..10).into_iter().map(|body| (body, 1)).collect();
            expected.insert(0, ("m2".into(), 2));
            assert_eq!(all, expected);
            node.wait(Duration::from_secs(59));
            assert_eq!(drain(&mut node, consumer), []);
            node.wait(Duration::from_secs(1));
            assert_eq!(drain(&mut node, consumer), [("m1".into(), 2)]);
            node.wait(Duration::from_secs(30));
            assert_eq!(drain(&mut node, consumer), [("later".into(), 1)]);
            let consumer = subscribe(&mut node, 0, "alone", "new", 100);
            // What was in memory comes behind what was on disk, as in the reference.
            let mut all = bodies(drain(&mut node, consumer));
            all.sort_unstable();
            assert_eq!(all, numbered(0..5));
        }
    }
}

#[test]
fn with_mem_queue_size_0_a_crash_loses_nothing_that_was_acknowledged() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(0));
        publish_many(&mut node, "t", 0..4);
        let consumer = subscribe(&mut node, 0, "t", "c", 3);
        publish_many(&mut node, "t", 4..20);
        let taken = node.frames(consumer);
        assert_eq!(taken.len(), 3);
        node.send(consumer, format!("FIN {}\n", id(&taken[0])).as_bytes());
        // The meta file now knows that one is finished, and has to know the unfinished ones behind
        // it.
        node.wait(Duration::from_secs(3));
        let mut node = Node::over(node.kill(), shards, config(0));
        let stats = channel_stats(&mut node, "t", "c");
        assert_eq!((stats.depth, stats.backend_depth), (19, 19));
        let consumer = subscribe(&mut node, 0, "t", "c", 1);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(1..20));
        assert_eq!(channel_stats(&mut node, "t", "c").depth, 0);
    }
}

#[test]
fn a_topic_keeps_what_its_channels_have_not_written() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(0));
        publish_many(&mut node, "t", 0..10);
        topic_op(&mut node, "t", TopicOp::Pause);
        for channel in ["a", "b"] {
            channel_op(&mut node, "t", channel, ChannelOp::Create);
        }
        node.wait(Duration::from_secs(3));
        // The channels' disk does not take what the topic hands on, and the topic's disk is synced.
        let channel = |request: &Request| matches!(request.store, Store::Queue(_, Some(_)));
        node.set_holds(Holds::DISK);
        topic_op(&mut node, "t", TopicOp::Unpause);
        while let Some(at) = node.requests.iter().position(|(_, request)| !channel(request)) {
            node.carry_out(at);
            node.wait(Duration::from_secs(3));
        }
        assert_eq!(channel_stats(&mut node, "t", "b").backend_depth, 10);
        let mut node = Node::over(node.kill(), shards, config(0));
        for channel in ["a", "b"] {
            let consumer = subscribe(&mut node, 0, "t", channel, 10);
            assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..10));
        }
    }
}

#[test]
fn order_is_kept_over_memory_and_disk() {
    for shards in SHARDS {
        for mem_queue_size in [0, 1, 7, 100] {
            let mut node = Node::new(shards, config(mem_queue_size));
            publish_many(&mut node, "t", 0..20);
            let on_disk = topic_stats(&mut node, "t").unwrap().backend_depth;
            assert_eq!(on_disk, 20 - (mem_queue_size as u64).min(20));
            channel_op(&mut node, "t", "c", ChannelOp::Create);
            publish_many(&mut node, "t", 20..40);
            let stats = topic_stats(&mut node, "t").unwrap();
            assert_eq!((stats.depth, stats.backend_depth), (0, 0));
            let stats = &stats.channels[0];
            let on_disk = 40 - (mem_queue_size as u64).min(40);
            assert_eq!((stats.depth, stats.backend_depth), (40, on_disk));
            let consumer = subscribe(&mut node, 0, "t", "c", 1);
            publish_many(&mut node, "t", 40..60);
            assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..60));
        }
    }
}

#[test]
fn what_is_requeued_all_the_time_holds_nobody_up() {
    let mut node = Node::new(1, config(1));
    channel_op(&mut node, "t", "c", ChannelOp::Create);
    publish_many(&mut node, "t", 0..10);
    let consumer = subscribe(&mut node, 0, "t", "c", 1);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let (id, _, body) = message(&mut node, consumer);
        if body == "m0" {
            node.send(consumer, format!("REQ {id} 0\n").as_bytes());
        } else {
            node.send(consumer, format!("FIN {id}\n").as_bytes());
        }
        if !seen.contains(&body) {
            seen.push(body);
        }
    }
    assert_eq!(seen, numbered(0..10));
}

#[test]
fn a_publisher_hears_when_its_messages_are_written() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(0));
        for channel in ["a", "b"] {
            topic_op(&mut node, "t", TopicOp::Create);
            channel_op(&mut node, "t", channel, ChannelOp::Create);
        }
        let producer = node.client(0);
        node.set_holds(Holds::DISK);
        node.send(producer, &pub_command("t", "one"));
        node.send(producer, &pub_command("t", "two"));
        let batch = Batch::Many(["three", "four"].into_iter().collect());
        let publish =
            AdminRequest::Publish { topic: name("t"), batch, delay: Duration::from_millis(1) };
        assert_eq!(node.admin(0, publish), None);
        assert_eq!(node.frames(producer), []);
        node.set_holds(Holds::NOTHING);
        assert_eq!(node.frames(producer), [ok(), ok()]);
        assert_eq!(node.replies.values().collect::<Vec<_>>(), [&AdminReply::Published]);
        // One request wrote what gathered while the first was under way.
        assert_eq!(channel_stats(&mut node, "t", "b").backend_depth, 2);
        node.wait(Duration::from_millis(1));
        let consumer = subscribe(&mut node, 0, "t", "b", 10);
        assert_eq!(bodies(drain(&mut node, consumer)), ["one", "two", "three", "four"]);
    }
}

#[test]
fn a_disk_that_fails_refuses_publishers_and_loses_nothing() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(2));
        channel_op(&mut node, "other", "c", ChannelOp::Create);
        topic_op(&mut node, "t", TopicOp::Create);
        channel_op(&mut node, "t", "c", ChannelOp::Create);
        let producer = node.client(0);
        node.publish(producer, "t", "m0");
        node.publish(producer, "t", "m1");
        node.files.faults.append = Some(FailureKind::Full);
        node.send(producer, &pub_command("t", "refused"));
        let frames = node.frames(producer);
        let [Frame::Error(refusal)] = &frames[..] else { panic!("{frames:?}") };
        assert!(refusal.starts_with(b"E_PUB_FAILED PUB failed "), "{refusal:?}");
        assert!(node.is_closed(producer));
        let why = ping(&mut node).unwrap_err();
        assert!(why.starts_with("disk full - "), "{why}");
        // The channel takes no more; what the topic has room for waits there, in memory.
        let producer = node.client(0);
        node.publish(producer, "t", "m2");
        node.publish(producer, "t", "m3");
        node.send(producer, &pub_command("t", "waits"));
        assert_eq!(node.frames(producer).len(), 1, "the topic's disk is tried as well");
        assert!(node.is_closed(producer));
        node.wait(Duration::from_secs(60));
        let lines = node.events.iter().map(ToString::to_string);
        let failing: Vec<_> = lines.filter(|line| line.contains("input/output error")).collect();
        assert!(failing.iter().filter(|line| line.starts_with("DISKQUEUE(")).count() <= 2);

        node.files.faults.append = None;
        node.wait(Duration::from_secs(6));
        assert_eq!(ping(&mut node), Ok(()));
        publish_many(&mut node, "t", 4..10);
        let consumer = subscribe(&mut node, 0, "t", "c", 100);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..10));
    }
}

#[test]
fn a_disk_that_hangs_makes_publishers_wait_and_then_refuses_them() {
    let mut node = Node::new(1, config(0));
    topic_op(&mut node, "t", TopicOp::Create);
    channel_op(&mut node, "t", "c", ChannelOp::Create);
    node.set_holds(Holds::DISK);
    let bodies: Vec<_> = (0..5000).map(|_| Bytes::from_static(b"x")).collect();
    let batch = Batch::Many(bodies.iter().collect());
    let publish = AdminRequest::Publish { topic: name("t"), batch, delay: Duration::ZERO };
    assert_eq!(node.admin(0, publish.clone()), None);
    // The channel has all that it takes at a time, and so has the topic after another one.
    assert_eq!(node.admin(0, publish), None);
    let producer = node.client(0);
    node.send(producer, &pub_command("t", "late"));
    node.wait(Duration::from_millis(4999));
    assert_eq!(node.frames(producer), []);
    node.wait(Duration::from_millis(1));
    assert_eq!(node.frames(producer), [Frame::Error("E_PUB_FAILED PUB failed queue full".into())]);
    node.set_holds(Holds::NOTHING);
    assert_eq!(node.replies.len(), 2);
    let consumer = subscribe(&mut node, 0, "t", "c", 2000);
    assert_eq!(drain(&mut node, consumer).len(), 10_000);
}

#[test]
fn emptying_and_deleting_leave_no_files() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(1));
        publish_many(&mut node, "t", 0..10);
        topic_op(&mut node, "t", TopicOp::Empty);
        let stats = topic_stats(&mut node, "t").unwrap();
        assert_eq!((stats.depth, stats.backend_depth), (0, 0));
        channel_op(&mut node, "t", "c", ChannelOp::Create);
        let consumer = subscribe(&mut node, 0, "t", "c", 5);
        publish_many(&mut node, "t", 0..20);
        let taken = node.frames(consumer);
        channel_op(&mut node, "t", "c", ChannelOp::Empty);
        let stats = channel_stats(&mut node, "t", "c");
        assert_eq!((stats.depth, stats.backend_depth, stats.in_flight_count), (0, 0, 0));
        node.send(consumer, format!("FIN {}\n", id(&taken[4])).as_bytes());
        assert!(matches!(&node.frames(consumer)[..], [Frame::Error(_)]));
        publish_many(&mut node, "t", 20..30);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(20..30));

        // A name can be used again at once.
        publish_many(&mut node, "t", 30..40);
        let _left = node.frames(consumer);
        channel_op(&mut node, "t", "c", ChannelOp::Delete);
        assert!(node.is_closed(consumer));
        publish_many(&mut node, "t", 40..50);
        let consumer = subscribe(&mut node, 0, "t", "c", 5);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(40..50));
        topic_op(&mut node, "t", TopicOp::Delete);
        node.wait(Duration::from_secs(10));
        assert_eq!(node.files.names().collect::<Vec<_>>(), ["nsqd.dat"]);
        assert_eq!(metadata(&node.files), r#"{"topics":null,"version":"1.3.0"}"#);
    }
}

#[test]
fn a_queue_that_no_list_names_comes_back_with_its_name() {
    let mut node = Node::new(1, config(0));
    publish_many(&mut node, "t", 0..5);
    let mut files = node.stop();
    files.insert("nsqd.dat", br#"{"topics":null,"version":"1.3.0"}"#);
    let mut node = Node::over(files, 1, config(0));
    assert_eq!(topic_stats(&mut node, "t"), None);
    let consumer = subscribe(&mut node, 0, "t", "c", 10);
    assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..5));
}

#[test]
fn an_ephemeral_queue_never_touches_the_disk() {
    let mut node = Node::new(1, config(2));
    publish_many(&mut node, "t#ephemeral", 0..5);
    channel_op(&mut node, "t#ephemeral", "c#ephemeral", ChannelOp::Create);
    channel_op(&mut node, "t#ephemeral", "lasting", ChannelOp::Create);
    channel_op(&mut node, "t#ephemeral", "unused", ChannelOp::Create);
    publish_many(&mut node, "t#ephemeral", 5..10);
    let stats = topic_stats(&mut node, "t#ephemeral").unwrap();
    let depths: Vec<_> =
        stats.channels.iter().map(|stats| (stats.depth, stats.backend_depth)).collect();
    // A lasting channel gets what the first one left, and drops nothing.
    assert_eq!(depths, [(2, 0), (5, 3), (5, 3)]);
    channel_op(&mut node, "t#ephemeral", "unused", ChannelOp::Empty);
    let files = node.stop();
    let left: Vec<_> = files.names().filter(|name| !name.contains("lasting")).collect();
    assert_eq!(left, ["nsqd.dat"]);
    // What is there is had again by who uses the names again (nsqd-protocol.md W18).
    let mut node = Node::over(files, 1, config(2));
    let consumer = subscribe(&mut node, 0, "t#ephemeral", "lasting", 10);
    let mut all = bodies(drain(&mut node, consumer));
    all.sort_unstable();
    assert_eq!(all, numbered(5..10));
}

#[test]
fn deferred_messages_survive_with_their_due_time() {
    for mem_queue_size in [0, 1, 100] {
        let mut node = Node::new(1, config(mem_queue_size));
        let producer = node.client(0);
        for number in 0..5 {
            let body = format!("m{number}");
            let head = format!("DPUB t {}\n", 10_000 * (number + 1));
            let size = (body.len() as u32).to_be_bytes();
            node.send(producer, &[head.as_bytes(), &size, body.as_bytes()].concat());
        }
        assert_eq!(node.frames(producer), [ok(), ok(), ok(), ok(), ok()]);
        assert_eq!(topic_stats(&mut node, "t").unwrap().depth, 5);
        let mut node = Node::over(node.stop(), 1, config(mem_queue_size));
        let consumer = subscribe(&mut node, 0, "t", "c", 10);
        for number in 0..5 {
            node.wait(Duration::from_millis(9_999));
            assert_eq!(drain(&mut node, consumer), [], "{number} came early");
            node.wait(Duration::from_millis(1));
            assert_eq!(bodies(drain(&mut node, consumer)), numbered(number..number + 1));
        }
    }
}

/// Whatever is done to the wall clock, before a start or after it, and however often it is started.
#[test]
fn a_wall_clock_that_is_set_delays_no_message() {
    let hours = |node: &mut Node, hours: i64| {
        node.now.unix.0 += hours * 3_600_000_000_000;
    };
    for (before_start, after_start) in [(-2, 0), (-2, 2), (2, -2), (0, -2), (0, 2), (-20_000, 0)] {
        for mem_queue_size in [0, 100] {
            let mut node = Node::new(1, config(mem_queue_size));
            hours(&mut node, 400_000);
            let producer = node.client(0);
            node.send(producer, b"DPUB t 5000\n\0\0\0\x02m0");
            assert_eq!(node.frames(producer), [ok()]);
            let consumer = subscribe(&mut node, 0, "t", "c", 10);
            assert_eq!(drain(&mut node, consumer), []);
            for _ in 0..3 {
                let mut now = node.now;
                now.unix.0 += before_start * 3_600_000_000_000;
                let files = node.stop();
                node = Node::at(now, files, 1, config(mem_queue_size));
                hours(&mut node, after_start);
                node.wait(Duration::from_secs(1));
            }
            let consumer = subscribe(&mut node, 0, "t", "c", 10);
            node.wait(Duration::from_millis(2001));
            assert_eq!(bodies(drain(&mut node, consumer)), ["m0"], "{before_start}, {after_start}");
        }
    }
}

#[test]
fn requests_are_few() {
    let mut node = Node::new(1, config(0));
    topic_op(&mut node, "t", TopicOp::Create);
    channel_op(&mut node, "t", "c", ChannelOp::Create);
    node.wait(Duration::from_secs(10));
    let consumer = subscribe(&mut node, 0, "t", "c", 100);
    node.set_holds(Holds::DISK);
    let producer = node.client(0);
    for number in 0..100 {
        node.send(producer, &pub_command("t", &format!("m{number}")));
    }
    assert_eq!(node.requests.len(), 1);
    node.carry_out(0);
    // The others go out together, and nobody reads what was just written.
    assert!(matches!(&node.requests[0].1.op, Op::Append { .. }));
    assert_eq!(node.requests.len(), 1);
    node.set_holds(Holds::NOTHING);
    assert_eq!(drain(&mut node, consumer).len(), 100);
    assert!(node.shards()[0].poll_timeout().is_some());
}
