//! Whole nodes under any sequence of events: see the model.
#![expect(unreachable_pub, reason = "the model is a module of its own")]

#[path = "model/node/mod.rs"]
mod model;

use model::{Harness, Step};
use proptest::prelude::*;
use sansq_core::nsqd::{ChannelOp, TopicOp};

/// What clients do and what takes its time; nothing that anybody loses messages by.
fn gentle() -> impl Strategy<Value = Step> {
    let n = || 0_usize..12;
    prop_oneof![
        3 => n().prop_map(|shard| Step::Connect { shard }),
        8 => (n(), n()).prop_map(|(client, topic)| Step::Pub { client, topic }),
        1 => prop_oneof![
            15 => Just(Step::Wait { millis: 1 }),
            1 => (n(), n()).prop_map(|(client, topic)| Step::Burst { client, topic }),
        ],
        2 => (n(), n(), 1_usize..4)
            .prop_map(|(client, topic, messages)| Step::Mpub { client, topic, messages }),
        2 => (n(), n(), 0_u64..2000)
            .prop_map(|(client, topic, delay)| Step::Dpub { client, topic, delay }),
        6 => (n(), n(), n())
            .prop_map(|(client, topic, channel)| Step::Sub { client, topic, channel }),
        8 => (n(), 0_usize..5).prop_map(|(client, count)| Step::Rdy { client, count }),
        8 => (n(), n()).prop_map(|(client, message)| Step::Fin { client, message }),
        3 => (n(), n(), prop_oneof![Just(0), 1_u64..2000])
            .prop_map(|(client, message, delay)| Step::Req { client, message, delay }),
        1 => (n(), n()).prop_map(|(client, message)| Step::Touch { client, message }),
        1 => n().prop_map(|client| Step::Cls { client }),
        2 => n().prop_map(|client| Step::Drop { client }),
        1 => (n(), n(), 1_usize..40)
            .prop_map(|(client, topic, bytes)| Step::DropInside { client, topic, bytes }),
        1 => n().prop_map(|client| Step::Closed { client }),
        1 => (n(), n()).prop_map(|(shard, topic)| Step::Post { shard, topic }),
        1 => (n(), n(), n(), any::<bool>()).prop_map(|(shard, topic, channel, on)| {
            let op = if on { ChannelOp::Pause } else { ChannelOp::Unpause };
            Step::Channel { shard, topic, channel, op }
        }),
        1 => (n(), n(), any::<bool>()).prop_map(|(shard, topic, on)| {
            let op = if on { TopicOp::Pause } else { TopicOp::Unpause };
            Step::Topic { shard, topic, op }
        }),
        1 => (n(), n(), n()).prop_map(|(shard, topic, channel)| {
            Step::Channel { shard, topic, channel, op: ChannelOp::Create }
        }),
        14 => n().prop_map(|lane| Step::Lane { lane }),
        8 => n().prop_map(|connection| Step::Arrive { connection }),
        3 => (0_u64..1500).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// The same, and what operators do.
fn rough() -> impl Strategy<Value = Step> {
    let n = || 0_usize..12;
    let topic_op = prop::sample::select(vec![TopicOp::Create, TopicOp::Delete, TopicOp::Empty]);
    let channel_op = prop::sample::select(vec![ChannelOp::Delete, ChannelOp::Empty]);
    prop_oneof![
        20 => gentle(),
        1 => (n(), n(), topic_op).prop_map(|(shard, topic, op)| Step::Topic { shard, topic, op }),
        2 => (n(), n(), n(), channel_op)
            .prop_map(|(shard, topic, channel, op)| Step::Channel { shard, topic, channel, op }),
    ]
}

/// The same, and clients that do not read for a while.
fn slow() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => rough(),
        1 => (0_usize..12, any::<bool>()).prop_map(|(client, reads)| Step::Reads { client, reads }),
    ]
}

/// A quarter of the usual number: a case is long. PROPTEST_CASES has its effect.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.div_ceil(4), ..config }
}

proptest! {
    #![proptest_config(config())]

    /// Every message that is acknowledged is finished on every channel that existed, whoever comes,
    /// goes and stalls meanwhile.
    #[test]
    fn what_is_acknowledged_arrives(
        shards in 1_u16..4,
        consumers_max in prop_oneof![Just(0_usize), Just(2)],
        steps in prop::collection::vec(gentle(), 1..300),
    ) {
        let mut world = Harness::new(shards, consumers_max, true);
        for step in steps {
            world.step(step);
        }
        world.end();
    }

    /// Topics and channels are deleted and emptied under everybody's hands: nobody is left stuck,
    /// and what nobody touched arrives.
    #[test]
    fn nobody_is_left_stuck(
        shards in 1_u16..4,
        steps in prop::collection::vec(rough(), 1..300),
    ) {
        let mut world = Harness::new(shards, 0, true);
        for step in steps {
            world.step(step);
        }
        world.end();
    }

    /// Nor if clients stop reading for a while, with more owed to them than they may be owed.
    #[test]
    fn slow_readers_hold_up_nobody_for_ever(
        shards in 1_u16..4,
        steps in prop::collection::vec(slow(), 1..200),
    ) {
        let mut world = Harness::new(shards, 0, false);
        for step in steps {
            world.step(step);
        }
        world.end();
    }
}
