//! A stop ends whatever the disk does, at once if nothing is lost by that, and says what is lost.

use core::time::Duration;

use sansq_core::log::Count;
use sansq_core::nsqd::{ChannelOp, FlushFailure, Shard, TopicOp};
use sansq_core::storage::FailureKind;
use sansq_core::testing::{Holds, Node};

use super::{channel_op, config, drain, publish_many, subscribe, topic_op};

/// Stops a node whose disk does what it does, and returns how long that took in steps of a tenth of
/// a second beyond what closing the connections took.
fn stop(node: &mut Node) -> Duration {
    node.shut_down();
    node.flush();
    let mut taken = Duration::ZERO;
    while !node.shards().iter().all(Shard::is_flushed) {
        assert!(taken < Duration::from_secs(60), "it does not end");
        node.wait(STEP);
        taken += STEP;
    }
    taken
}

const STEP: Duration = Duration::from_millis(100);

fn lost(node: &Node) -> Vec<FlushFailure> {
    node.shards().iter().filter_map(Shard::flush_failure).collect()
}

/// The lines about what ended badly.
fn lines(node: &Node) -> Vec<String> {
    let lines = node.events.iter().map(ToString::to_string);
    lines.filter(|line| line.contains("lost") || line.contains("left out")).collect()
}

#[test]
fn at_once_if_nothing_is_unwritten() {
    for shards in [1, 4] {
        for kind in [FailureKind::Full, FailureKind::Other] {
            let mut node = Node::new(shards, config(0));
            topic_op(&mut node, "t", TopicOp::Create);
            channel_op(&mut node, "t", "c", ChannelOp::Create);
            publish_many(&mut node, "t", 0..3);
            node.wait(Duration::from_secs(10));
            node.files.faults.append = Some(kind);
            node.files.faults.replace = Some(kind);
            node.files.faults.sync = Some(kind);
            assert_eq!(stop(&mut node), Duration::ZERO);
            assert_eq!(lost(&node), []);
            node.files.faults = Default::default();
            // What was acknowledged is there.
            let mut node = Node::over(node.kill(), shards, config(0));
            let consumer = subscribe(&mut node, 0, "t", "c", 10);
            assert_eq!(drain(&mut node, consumer).len(), 3);
        }
    }
}

#[test]
fn at_once_if_a_queue_can_not_be_opened() {
    let mut node = Node::new(2, config(10));
    topic_op(&mut node, "t", TopicOp::Create);
    channel_op(&mut node, "t", "c", ChannelOp::Create);
    publish_many(&mut node, "t", 0..1);
    let mut files = node.stop();
    files.faults.open = Some(FailureKind::Other);
    let mut node = Node::over(files, 2, config(10));
    node.wait(Duration::from_secs(7));
    assert_eq!((stop(&mut node), lost(&node)), (Duration::ZERO, vec![]));
    // The topic's queue and the channel's.
    assert_eq!(lines(&node).len(), 2, "{:?}", lines(&node));
    assert!(lines(&node).iter().all(|line| line.contains("nothing is lost")));
}

#[test]
fn what_a_disk_does_not_take_is_given_up_and_counted_by_queue() {
    for hangs in [false, true] {
        for shards in [1, 4] {
            let mut node = Node::new(shards, config(10));
            for topic in ["t", "u"] {
                topic_op(&mut node, topic, TopicOp::Create);
                channel_op(&mut node, topic, "c", ChannelOp::Create);
            }
            node.wait(Duration::from_secs(1));
            publish_many(&mut node, "t", 0..3);
            publish_many(&mut node, "u", 0..2);
            publish_many(&mut node, "w", 0..1);
            node.wait(Duration::from_secs(1));
            // One of them is in flight.
            let consumer = subscribe(&mut node, 0, "t", "c", 1);
            node.frames(consumer);
            node.set_holds(Holds { disk: hangs, ..Holds::NOTHING });
            node.files.faults.append = Some(FailureKind::Full);
            let taken = stop(&mut node);
            let expected = if hangs { 11 } else { 10 };
            assert!(taken >= Duration::from_secs(10), "{taken:?}");
            assert!(taken <= Duration::from_secs(expected) + STEP, "{taken:?}");
            let failures = lost(&node);
            assert_eq!(failures.iter().map(|failure| failure.messages).sum::<u64>(), 6);
            assert_eq!(failures.iter().map(|failure| failure.queues).sum::<u64>(), 3);
            assert!(failures.iter().all(|failure| failure.hangs == hangs));
            for (queue, messages) in [("t:c", 3), ("u:c", 2), ("w", 1)] {
                let messages = Count(messages, "message");
                let line = format!("DISKQUEUE({queue}) gave up writing and lost {messages} - ");
                let count = lines(&node).iter().filter(|other| other.starts_with(&line)).count();
                assert_eq!(count, 1, "{line}: {:?}", lines(&node));
            }
        }
    }
}

/// What has a record on the disk is not lost because it could not be written anew.
#[test]
fn what_came_from_the_disk_stays_there() {
    let mut node = Node::new(1, config(0));
    topic_op(&mut node, "t", TopicOp::Create);
    channel_op(&mut node, "t", "c", ChannelOp::Create);
    publish_many(&mut node, "t", 0..5);
    let consumer = subscribe(&mut node, 0, "t", "c", 3);
    assert_eq!(node.frames(consumer).len(), 3);
    node.files.faults.append = Some(FailureKind::Full);
    assert_eq!((stop(&mut node), lost(&node)), (Duration::ZERO, vec![]));
    node.files.faults.append = None;
    let mut node = Node::over(node.kill(), 1, config(0));
    let consumer = subscribe(&mut node, 0, "t", "c", 10);
    assert_eq!(drain(&mut node, consumer).len(), 5);
}

#[test]
fn the_log_names_a_hundred_queues_and_counts_the_rest() {
    let mut node = Node::new(1, config(10));
    for topic in 0..300 {
        publish_many(&mut node, &format!("t{topic}"), 0..1);
    }
    node.wait(Duration::from_secs(1));
    node.files.faults.append = Some(FailureKind::Full);
    let before = node.events.len();
    assert!(stop(&mut node) <= Duration::from_secs(10) + STEP);
    let of_disk = |line: &String| line.starts_with("DISKQUEUE");
    let said = node.events[before..].iter().map(ToString::to_string).filter(of_disk);
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 101, "{said:?}");
    assert!(said[100].contains("500 more lines"), "{}", said[100]);
    let failure = lost(&node)[0];
    assert_eq!((failure.queues, failure.messages), (300, 300));
}

#[test]
fn the_list_is_given_up_as_well() {
    for is_needed in [false, true] {
        for hangs in [false, true] {
            let mut node = Node::new(2, config(10));
            topic_op(&mut node, "t", TopicOp::Create);
            node.wait(Duration::from_secs(1));
            node.set_holds(Holds { disk: hangs, ..Holds::NOTHING });
            node.files.faults.replace = Some(FailureKind::Full);
            if is_needed {
                topic_op(&mut node, "u", TopicOp::Create);
            }
            let taken = stop(&mut node).as_secs();
            match (is_needed, hangs) {
                (false, false) => assert_eq!((taken, lost(&node)), (0, vec![])),
                (_, true) => assert_eq!((taken, lost(&node)[0].hangs), (11, true)),
                (true, false) => assert_eq!(taken, 10),
            }
            assert_eq!(lost(&node).iter().any(|failure| failure.lost_list), is_needed);
        }
    }
}
