//! A full disk under a whole node: what is consumed makes room, whatever way it had to go.

use core::time::Duration;

use sansq_core::nsqd::{ChannelOp, TopicOp};
use sansq_core::storage::FailureKind;
use sansq_core::testing::Node;

use super::{
    SHARDS, bodies, channel_op, channel_stats, config, drain, id, metadata, numbered, ok, ping,
    publish_many, subscribe, topic_op,
};
use crate::pub_command;

/// Publishes `m0`, `m1`, … until one is refused: how many were accepted. From then on there is no
/// room.
fn fill(node: &mut Node, topic: &str, capacity: u64) -> usize {
    (node.files.capacity, node.files.reserve) = (Some(capacity), 500);
    for number in 0.. {
        let producer = node.client(0);
        node.send(producer, &pub_command(topic, &format!("m{number}")));
        if node.frames(producer) != [ok()] {
            node.files.capacity = Some(node.files.used());
            return number;
        }
    }
    unreachable!()
}

/// All is well again, by itself, and what is published now is all that there is.
fn is_as_new(mut node: Node, shards: u16, channels: &[&str]) {
    node.files.capacity = Some(node.files.used() + 6000);
    node.wait(Duration::from_secs(6));
    assert_eq!(ping(&mut node), Ok(()));
    publish_many(&mut node, "t", 900..901);
    let mut node = Node::over(node.kill(), shards, config(0));
    for channel in channels {
        let consumer = subscribe(&mut node, 0, "t", channel, 100);
        assert_eq!(bodies(drain(&mut node, consumer)), ["m900"]);
    }
}

#[test]
fn consuming_makes_room() {
    for shards in SHARDS {
        for max_bytes_per_file in [400, 1_000_000] {
            let config = sansq_core::nsqd::Config { max_bytes_per_file, ..config(0) };
            let mut node = Node::new(shards, config);
            channel_op(&mut node, "t", "c", ChannelOp::Create);
            node.wait(Duration::from_secs(1));
            let count = fill(&mut node, "t", 3000);
            assert!(ping(&mut node).is_err() && count > 20);
            let consumer = subscribe(&mut node, 0, "t", "c", 100);
            assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..count));
            is_as_new(node, shards, &["c"]);
        }
    }
}

#[test]
fn what_a_topic_has_is_consumed_without_being_copied() {
    for shards in SHARDS {
        for channels in [&["a"][..], &["a", "b"]] {
            let mut node = Node::new(shards, config(0));
            topic_op(&mut node, "t", TopicOp::Create);
            node.wait(Duration::from_secs(1));
            let count = fill(&mut node, "t", 3000);
            // Both are to get everything.
            topic_op(&mut node, "t", TopicOp::Pause);
            for channel in channels {
                channel_op(&mut node, "t", channel, ChannelOp::Create);
            }
            topic_op(&mut node, "t", TopicOp::Unpause);
            let consumers: Vec<_> =
                channels.iter().map(|channel| subscribe(&mut node, 0, "t", channel, 7)).collect();
            // The disk may die at any moment: what is not finished everywhere is still there.
            let kept = node.files.clone();
            for consumer in &consumers {
                assert_eq!(bodies(drain(&mut node, *consumer)), numbered(0..count));
            }
            let mut before = Node::over(kept, shards, config(0));
            before.files.capacity = None;
            topic_op(&mut before, "t", TopicOp::Unpause);
            channel_op(&mut before, "t", "a", ChannelOp::Create);
            let consumer = subscribe(&mut before, 0, "t", "a", 100);
            assert_eq!(bodies(drain(&mut before, consumer)), numbered(0..count));
            is_as_new(node, shards, channels);
        }
    }
}

#[test]
fn what_one_channel_did_not_finish_stays_in_the_topic() {
    for (shards, stops) in SHARDS.into_iter().flat_map(|shards| [(shards, false), (shards, true)]) {
        let mut node = Node::new(shards, config(0));
        topic_op(&mut node, "t", TopicOp::Create);
        node.wait(Duration::from_secs(1));
        let count = fill(&mut node, "t", 3000);
        topic_op(&mut node, "t", TopicOp::Pause);
        for channel in ["a", "b"] {
            channel_op(&mut node, "t", channel, ChannelOp::Create);
        }
        topic_op(&mut node, "t", TopicOp::Unpause);
        let consumer = subscribe(&mut node, 0, "t", "a", 100);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..count));
        // Some are in flight on the other one, and one is back already.
        let slow = subscribe(&mut node, 0, "t", "b", 3);
        let taken = node.frames(slow);
        let [first, _, _] = &taken[..] else { panic!("{taken:?}") };
        node.send(slow, format!("REQ {} 0\n", id(first)).as_bytes());
        node.wait(Duration::from_secs(1));
        let files = if stops { node.stop() } else { node.kill() };
        let mut node = Node::over(files, shards, config(0));
        node.files.capacity = None;
        topic_op(&mut node, "t", TopicOp::Unpause);
        channel_op(&mut node, "t", "b", ChannelOp::Create);
        let consumer = subscribe(&mut node, 0, "t", "b", 100);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..count), "{stops}");
    }
}

#[test]
fn the_list_of_topics_is_written_when_there_is_room() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(0));
        channel_op(&mut node, "t", "c", ChannelOp::Create);
        node.wait(Duration::from_secs(1));
        let count = fill(&mut node, "t", 3000);
        node.files.faults.replace = Some(FailureKind::Full);
        topic_op(&mut node, "late", TopicOp::Create);
        channel_op(&mut node, "late", "c", ChannelOp::Create);
        node.wait(Duration::from_secs(20));
        assert!(!metadata(&node.files).contains("late"));
        let consumer = subscribe(&mut node, 0, "t", "c", 100);
        assert_eq!(bodies(drain(&mut node, consumer)), numbered(0..count));
        node.files.faults.replace = None;
        node.wait(Duration::from_secs(6));
        assert!(metadata(&node.files).contains("late"));
        assert_eq!(channel_stats(&mut node, "late", "c").depth, 0);
        is_as_new(node, shards, &["c"]);
    }
}
