//! At `--max-topics` and `--max-channels-per-topic`: who is refused hears which it is, and what is
//! there stays.

use core::time::Duration;

use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{
    AdminError, AdminReply, AdminRequest, Batch, ChannelOp, Config, NotPublished, Refusals,
    StatsFilter, TooMany, TopicOp,
};
use sansq_core::testing::Node;

use crate::{error, pub_command, stats};

fn config(max_topics: usize, max_channels_per_topic: usize) -> Config {
    Config { disk: true, max_topics, max_channels_per_topic, ..Config::default() }
}

fn create(node: &mut Node, topic: &str) -> Option<AdminReply> {
    node.admin(0, AdminRequest::Topic(TopicName::new(topic).unwrap(), TopicOp::Create))
}

fn create_channel(node: &mut Node, topic: &str, channel: &str) -> Option<AdminReply> {
    let channel = ChannelName::new(channel).unwrap();
    let topic = TopicName::new(topic).unwrap();
    node.admin(0, AdminRequest::Channel(topic, channel, ChannelOp::Create))
}

fn refusals(node: &mut Node) -> Refusals {
    match node.admin(0, AdminRequest::Stats(StatsFilter::default())) {
        Some(AdminReply::Stats(stats)) => stats.refusals,
        other => panic!("statistics are expected, not {other:?}"),
    }
}

#[test]
fn one_topic_too_many_is_refused_by_name() {
    let text = "too many topics - the limit is --max-topics=5";
    for shards in [1, 2, 4] {
        for client_at in 0..usize::from(shards) {
            let mut node = Node::new(shards, config(5, 0));
            let producer = node.client(client_at);
            node.publish(producer, "a", "1");
            let consumer = node.consumer(client_at, "b", "c", 1);
            assert_eq!(create(&mut node, "c"), Some(AdminReply::Done));
            node.publish(producer, "d", "1");
            node.publish(producer, "e", "1");
            for (command, code) in [
                (pub_command("f", "1"), "PUB"),
                (b"MPUB g\n\0\0\0\x09\0\0\0\x01\0\0\0\x01x".to_vec(), "MPUB"),
                (b"DPUB h 100\n\0\0\0\x01x".to_vec(), "DPUB"),
                (b"SUB i c\n".to_vec(), "SUB"),
            ] {
                let client = node.client(client_at);
                node.send(client, &command);
                let refusal = format!("E_{code}_FAILED {code} failed {text}");
                assert_eq!(node.frames(client), [error(&refusal)]);
            }
            let too_many = TooMany::Topics(5);
            assert_eq!(
                create(&mut node, "j"),
                Some(AdminReply::Refused(AdminError::TooMany(too_many)))
            );
            let (topic, batch) = (TopicName::new("k").unwrap(), Batch::One("x".into()));
            let publish = AdminRequest::Publish { topic, batch, delay: Duration::ZERO };
            let why = AdminError::NotPublished(NotPublished::TooMany(too_many));
            assert_eq!(node.admin(client_at, publish), Some(AdminReply::Refused(why.clone())));
            assert_eq!(why.to_string(), format!("TOO_MANY_TOPICS: {text}"));
            assert_eq!(refusals(&mut node), Refusals { topics: 6, channels: 0, publishes: 0 });
            assert_eq!(stats(&mut node).topics.len(), 5);
            // What is there goes on, and where one goes another may come.
            node.publish(producer, "a", "2");
            node.publish(producer, "b", "2");
            assert_eq!(node.frames(consumer).len(), 1);
            node.admin(0, AdminRequest::Topic(TopicName::new("c").unwrap(), TopicOp::Delete));
            node.publish(producer, "f", "1");
            assert!(matches!(create(&mut node, "j"), Some(AdminReply::Refused(_))));
        }
    }
}

#[test]
fn one_channel_too_many_is_refused_by_name() {
    let text = "too many channels - the limit is --max-channels-per-topic=2";
    let mut node = Node::new(2, config(0, 2));
    create(&mut node, "t");
    assert_eq!(create_channel(&mut node, "t", "a"), Some(AdminReply::Done));
    node.consumer(1, "t", "b", 1);
    let why = AdminError::TooMany(TooMany::Channels(2));
    assert_eq!(why.to_string(), format!("TOO_MANY_CHANNELS: {text}"));
    assert_eq!(create_channel(&mut node, "t", "c"), Some(AdminReply::Refused(why)));
    let client = node.client(1);
    node.send(client, b"SUB t c\n");
    let refusal = format!("E_SUB_FAILED SUB failed {text}");
    assert_eq!(node.frames(client), [error(&refusal)]);
    // Those that are there, and other topics', can be had.
    assert_eq!(create_channel(&mut node, "t", "a"), Some(AdminReply::Done));
    node.consumer(0, "t", "b", 1);
    node.consumer(0, "u", "a", 1);
    assert_eq!(refusals(&mut node), Refusals { topics: 0, channels: 2, publishes: 0 });
}

#[test]
fn what_is_there_at_the_start_stays() {
    for shards in [1, 3] {
        let mut node = Node::new(shards, config(0, 0));
        for topic in ["a", "b", "c"] {
            create(&mut node, topic);
            for channel in ["x", "y", "z"] {
                create_channel(&mut node, topic, channel);
            }
        }
        let mut node = Node::over(node.stop(), shards, config(2, 1));
        let there = stats(&mut node).topics;
        assert_eq!(there.iter().map(|topic| topic.channels.len()).collect::<Vec<_>>(), [3, 3, 3]);
        assert!(matches!(create(&mut node, "d"), Some(AdminReply::Refused(_))));
        assert!(matches!(create_channel(&mut node, "a", "w"), Some(AdminReply::Refused(_))));
        let producer = node.client(0);
        node.publish(producer, "c", "1");
    }
}
