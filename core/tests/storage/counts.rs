//! What counts is what was acknowledged, and who is refused hears why.

use core::time::Duration;

use sansq_core::client::frame::Frame;
use sansq_core::nsqd::{
    AdminError, AdminReply, AdminRequest, Batch, ChannelOp, NotPublished, StatsFilter, TopicOp,
};
use sansq_core::storage::FailureKind;
use sansq_core::testing::{Holds, Node};

use super::{SHARDS, channel_op, channel_stats, config, name, topic_op, topic_stats};
use crate::{pub_command, text};

/// A publish over HTTP.
fn over_http(bodies: &[&str], delay_ms: u64) -> AdminRequest {
    let batch = Batch::Many(bodies.iter().collect());
    AdminRequest::Publish { topic: name("t"), batch, delay: Duration::from_millis(delay_ms) }
}

/// Messages and bytes that the topic counts.
fn counted(node: &mut Node) -> (u64, u64) {
    topic_stats(node, "t").map_or((0, 0), |topic| (topic.message_count, topic.message_bytes))
}

/// What the statistics say that connections published to the topic.
fn counted_by_producers(node: &mut Node) -> Vec<u64> {
    let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
    let Some(AdminReply::Stats(stats)) = node.admin(0, AdminRequest::Stats(filter)) else {
        panic!("statistics are expected");
    };
    let counts = stats.producers.iter().flat_map(|client| client.pub_counts.iter());
    counts.map(|(_, count)| *count).collect()
}

fn is_refused(frames: &[Frame]) -> bool {
    let [Frame::Error(refusal)] = frames else { return false };
    let refusal = text(refusal);
    refusal.contains("_FAILED ") && refusal.contains("output")
}

#[test]
fn a_refused_publish_is_counted_nowhere() {
    let sized = |body: &str| [&(body.len() as u32).to_be_bytes(), body.as_bytes()].concat();
    let mpub = [&b"MPUB t\n\0\0\0\x0e\0\0\0\x02"[..], &sized("2"), &sized("3")].concat();
    let dpub = [&b"DPUB t 1000\n"[..], &sized("4")].concat();
    for (shards, has_channel) in SHARDS.into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let mut node = Node::new(shards, config(0));
        topic_op(&mut node, "t", TopicOp::Create);
        if has_channel {
            channel_op(&mut node, "t", "c", ChannelOp::Create);
        }
        let producer = node.client(0);
        node.publish(producer, "t", "one");
        node.files.faults.append = Some(FailureKind::Full);
        for command in [pub_command("t", "1"), mpub.clone(), dpub.clone()] {
            // The queue has room again when the disk was found to work.
            let client = node.client(0);
            node.send(client, &command);
            assert!(is_refused(&node.frames(client)));
            node.files.faults.append = None;
            node.wait(Duration::from_secs(6));
            node.files.faults.append = Some(FailureKind::Full);
        }
        for delay_ms in [0, 1000] {
            let reply = node.admin(0, over_http(&["5", "6"], delay_ms));
            assert!(
                matches!(
                    &reply,
                    Some(AdminReply::Refused(AdminError::NotPublished(NotPublished::Disk(why))))
                        if why.contains("output")
                ),
                "{reply:?}"
            );
            node.files.faults.append = None;
            node.wait(Duration::from_secs(6));
            node.files.faults.append = Some(FailureKind::Full);
        }
        assert_eq!(counted(&mut node), (1, 3));
        assert_eq!(counted_by_producers(&mut node), [1]);
        if has_channel {
            let channel = channel_stats(&mut node, "t", "c");
            assert_eq!((channel.message_count, channel.depth), (1, 1));
        }
        node.files.faults.append = None;
        node.wait(Duration::from_secs(6));
        node.send(producer, &pub_command("t", "last"));
        // Behind a heartbeat.
        assert_eq!(node.frames(producer).last(), Some(&Frame::Response("OK".into())));
        assert_eq!((counted(&mut node), counted_by_producers(&mut node)), ((2, 7), vec![2]));
    }
}

#[test]
fn a_publish_counts_when_it_is_acknowledged() {
    for shards in SHARDS {
        let mut node = Node::new(shards, config(0));
        topic_op(&mut node, "t", TopicOp::Create);
        for channel in ["a", "b"] {
            channel_op(&mut node, "t", channel, ChannelOp::Create);
        }
        let producer = node.client(0);
        node.set_holds(Holds::DISK);
        node.send(producer, &pub_command("t", "one"));
        node.send(producer, &pub_command("other", "three"));
        assert_eq!(node.admin(0, over_http(&["2", "3"], 0)), None);
        assert_eq!((counted(&mut node), counted_by_producers(&mut node)), ((0, 0), vec![]));
        assert_eq!(channel_stats(&mut node, "t", "a").message_count, 0);
        node.set_holds(Holds::NOTHING);
        assert_eq!((counted(&mut node), counted_by_producers(&mut node)), ((3, 5), vec![1, 1]));
        assert_eq!(channel_stats(&mut node, "t", "a").message_count, 3);
        // Emptying answers who waits, and what is answered counts.
        node.set_holds(Holds::DISK);
        node.send(producer, &pub_command("t", "four"));
        channel_op(&mut node, "t", "a", ChannelOp::Empty);
        channel_op(&mut node, "t", "b", ChannelOp::Empty);
        assert_eq!((counted(&mut node), counted_by_producers(&mut node)), ((4, 9), vec![1, 2]));
        assert_eq!(channel_stats(&mut node, "t", "b").message_count, 4);
        node.set_holds(Holds::NOTHING);
    }
}

#[test]
fn an_mpub_of_which_a_part_is_written_counts_for_nothing() {
    const LEN: usize = 700 * 1024;
    for has_channel in [false, true] {
        let mut node = Node::new(1, config(0));
        topic_op(&mut node, "t", TopicOp::Create);
        if has_channel {
            channel_op(&mut node, "t", "c", ChannelOp::Create);
        }
        node.files.capacity = Some(LEN as u64 + 4096);
        // Two of them are two appends.
        let body = "x".repeat(LEN);
        let reply = node.admin(0, over_http(&[&body, &body], 0));
        assert!(matches!(reply, Some(AdminReply::Refused(_))), "{reply:?}");
        assert_eq!(counted(&mut node), (0, 0));
        if has_channel {
            // What a channel has it delivers, and so it counts it.
            let channel = channel_stats(&mut node, "t", "c");
            assert_eq!((channel.message_count, channel.depth), (1, 1));
        }
    }
}

#[test]
fn who_is_refused_for_want_of_room_hears_so() {
    let mut node = Node::new(1, config(0));
    topic_op(&mut node, "t", TopicOp::Create);
    node.set_holds(Holds::DISK);
    let many = vec!["x"; 5000];
    assert_eq!(node.admin(0, over_http(&many, 0)), None);
    assert_eq!(node.admin(0, over_http(&["late"], 0)), None);
    let producer = node.client(0);
    node.send(producer, &pub_command("t", "late"));
    node.wait(Duration::from_secs(5));
    let full = AdminReply::Refused(AdminError::NotPublished(NotPublished::Full));
    assert_eq!(node.replies.values().collect::<Vec<_>>(), [&full]);
    let text = "E_PUB_FAILED PUB failed queue full";
    assert_eq!(node.frames(producer), [Frame::Error(text.into())]);
    assert_eq!(counted(&mut node), (0, 0));
    node.set_holds(Holds::NOTHING);
    assert_eq!(counted(&mut node), (5000, 5000));
    let refused = match node.admin(0, AdminRequest::Stats(StatsFilter::default())) {
        Some(AdminReply::Stats(stats)) => stats.refusals.publishes,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused, 2);
}
