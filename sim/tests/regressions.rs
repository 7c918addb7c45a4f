//! What the reference gets wrong, each as a small world in which it has to go right.

use core::time::Duration;

use sansq_core::name::ChannelName;
use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::{MessageNumber, Options, Outcome, Trace, World, channel, topic};

const SECOND: Duration = Duration::from_secs(1);

fn world(seed: u64, nodes: usize) -> World {
    World::new(Options { shards: 2, ..Options::empty(seed, nodes, 1) }, Trace::new(None))
}

fn pool(nsqds: Vec<usize>, messages: usize) -> Pool {
    Pool::new(PoolPlan { nsqds, ..PoolPlan::new(vec![topic(0)], messages, SECOND / 10) })
}

fn worker(nsqds: Vec<usize>) -> WorkerPlan {
    WorkerPlan { nsqds, ..WorkerPlan::new(topic(0), channel(0)) }
}

/// Everything comes to a good end, and whatever was accepted was handled.
fn check(world: &mut World, seed: u64) {
    let outcomes = world.finish();
    assert_eq!(outcomes.result, Ok(()), "seed {seed}");
    assert_eq!(world.oracles().unfinished(), [], "seed {seed}");
    assert_eq!(world.oracles().outcome(MessageNumber(0)), Some(Outcome::Accepted), "seed {seed}");
}

/// Two nsqds that were given the same `--node-id` give the same ids to different messages, and one consumer
/// gets both.
#[test]
fn equal_node_ids() {
    for seed in 0..10 {
        let mut world = world(seed, 0);
        for _ in 0..2 {
            world.add_nsqd(1, |config| config.node_id = 7);
        }
        world.add_client(Worker::new(worker(vec![0, 1])));
        world.run_for(SECOND);
        world.add_client(pool(vec![0, 1], 100));
        world.run_for(20 * SECOND);
        check(&mut world, seed);
    }
}

/// A consumer that may have fewer messages in flight than it has connections leaves none at RDY 0 for good.
#[test]
fn nobody_is_stuck_at_ready_0() {
    for seed in 0..10 {
        let mut world = world(seed, 4);
        let mut plan = worker(vec![0, 1, 2, 3]);
        plan.options.max_in_flight = 1;
        plan.options.low_rdy_idle_timeout = SECOND;
        plan.options.low_rdy_timeout = 2 * SECOND;
        world.add_client(Worker::new(plan));
        world.run_for(SECOND);
        world.add_client(pool(vec![0, 1, 2, 3], 60));
        world.run_for(10 * SECOND);
        check(&mut world, seed);
    }
}

/// What was published before a topic had a channel goes to the first one.
#[test]
fn the_first_messages_of_a_new_channel() {
    for seed in 0..10 {
        let mut world = world(seed, 1);
        world.add_client(pool(vec![0], 30));
        world.run_for(10 * SECOND);
        world.add_client(Worker::new(worker(vec![0])));
        world.run_for(5 * SECOND);
        check(&mut world, seed);
    }
}

/// An ephemeral channel goes with its last consumer, and comes again with the next one, who may already be
/// there.
#[test]
fn an_ephemeral_channel_that_goes_and_comes() {
    for seed in 0..10 {
        let mut world = world(seed, 1);
        for _ in 0..2 {
            let mut plan = worker(vec![0]);
            plan.channel = ChannelName::new("tail#ephemeral").unwrap();
            plan.habits.close_percent = 60;
            world.add_client(Worker::new(plan));
        }
        world.add_client(pool(vec![0], 200));
        world.run_for(60 * SECOND);
        let outcomes = world.finish();
        assert_eq!(outcomes.result, Ok(()), "seed {seed}");
        assert!(outcomes.delivered > 50, "seed {seed}: {outcomes:?}");
    }
}
