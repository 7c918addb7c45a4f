//! What the reference gets wrong, each as a small world in which it has to go right.

use core::time::Duration;
use std::collections::BTreeSet;

use sansq_core::name::ChannelName;
use sansq_core::nsqd::{AdminRequest, ChannelOp};
use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::swarm::DiskPlan;
use sansq_sim::{
    Client, Context, Limits, MessageNumber, Options, PublishOutcome, Trace, World, channel, topic,
};

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
    assert_eq!(
        world.oracles().outcome(MessageNumber(0)),
        Some(PublishOutcome::Accepted),
        "seed {seed}"
    );
}

/// Two nsqds that were given the same `--node-id` give the same ids to different messages, and one
/// consumer gets both.
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

/// A consumer that may have fewer messages in flight than it has connections leaves none at RDY 0
/// for good.
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

/// An ephemeral channel goes with its last consumer, and comes again with the next one, who may
/// already be there.
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

/// Empties the channel of one nsqd every few milliseconds.
#[derive(Debug)]
struct Emptier {
    times: u64,
}

impl Client for Emptier {
    fn started(&mut self, context: &mut Context<'_>) {
        context.wake(SECOND, 0);
    }

    fn woken(&mut self, _: u64, context: &mut Context<'_>) {
        if self.times > 0 {
            self.times -= 1;
            context.ask(0, AdminRequest::Channel(topic(0), channel(0), ChannelOp::Empty));
            context.wake(Duration::from_millis(37), 0);
        }
    }
}

/// An nsqd of two shards with a disk, whose files have 150 bytes.
fn small_files(seed: u64, mem_queue_size: usize) -> World {
    let latency_max = Duration::from_millis(2);
    let disks = Some(DiskPlan { latency_max, max_bytes_per_file: 150, sync_every: 7 });
    let options = Options { shards: 2, mem_queue_size, disks, ..Options::empty(seed, 1, 1) };
    World::new(options, Trace::new(None))
}

/// FIN comes while the channel is emptied: it is refused, and nothing else happens. The judges
/// compare what is in flight with what the nsqd counts.
#[test]
fn finish_races_with_empty() {
    for seed in 0..10 {
        let mut world = small_files(seed, [0, 5, 10_000][seed as usize % 3]);
        for _ in 0..3 {
            let mut plan = worker(vec![0]);
            plan.habits.work_max = SECOND / 20;
            world.add_client(Worker::new(plan));
        }
        world.add_client(Emptier { times: 500 });
        world.add_client(pool(vec![0], 300));
        world.run_for(30 * SECOND);
        let outcomes = world.finish();
        assert_eq!(outcomes.result, Ok(()), "seed {seed}");
        assert!(outcomes.delivered > 50, "seed {seed}: {outcomes:?}");
    }
}

/// A data file that was read to its end is removed when the writer goes on to the next one, and not
/// set aside as damaged; nor is one that a process left unsynced when it died.
#[test]
fn no_file_is_taken_for_damaged() {
    for seed in 0..10 {
        let mut world = small_files(seed, 0);
        world.add_client(Worker::new(worker(vec![0])));
        world.run_for(SECOND);
        world.add_client(pool(vec![0], 200));
        for at in 0..6 {
            world.run_for(3 * SECOND);
            if at % 2 == 0 {
                world.kill(0, false)
            } else {
                world.stop(0)
            }
            world.run_for(SECOND / 10);
            world.start(0);
        }
        world.run_for(20 * SECOND);
        let files: Vec<_> = world.files(0).collect();
        assert!(files.iter().all(|name| !name.ends_with(".bad")), "seed {seed}: {files:?}");
        check(&mut world, seed);
    }
}

/// What a queue counts never falls below 0, so that it wraps around: not when it is emptied or ends
/// while it is read. The judges compare it with what is there.
#[test]
fn no_depth_is_negative() {
    for seed in 0..10 {
        let mut world = small_files(seed, 2);
        let mut plan = worker(vec![0]);
        plan.habits.work_max = SECOND / 2;
        plan.options.max_in_flight = 3;
        world.add_client(Worker::new(plan));
        world.run_for(SECOND);
        world.add_client(pool(vec![0], 200));
        world.add_client(Emptier { times: 40 });
        for _ in 0..4 {
            world.run_for(4 * SECOND);
            world.stop(0);
            world.run_for(SECOND / 10);
            world.start(0);
        }
        let outcomes = world.finish();
        assert_eq!(outcomes.result, Ok(()), "seed {seed}");
        assert!(outcomes.delivered > 50, "seed {seed}: {outcomes:?}");
    }
}

/// At each limit somebody is refused, who is told so, and nothing that was accepted is lost.
#[test]
fn what_a_limit_refuses_is_not_there_and_the_rest_is() {
    let none = Limits::default();
    for (limits, outcomes) in [
        (
            Limits { max_topics: Some(1), ..none },
            [PublishOutcome::Accepted, PublishOutcome::Refused],
        ),
        (
            Limits { max_msg_size: Some(50), ..none },
            [PublishOutcome::Accepted, PublishOutcome::Refused],
        ),
        (
            Limits { max_body_size: Some(2000), ..none },
            [PublishOutcome::Accepted, PublishOutcome::Refused],
        ),
        (
            Limits { max_req_timeout: Some(SECOND), ..none },
            [PublishOutcome::Accepted, PublishOutcome::Refused],
        ),
        (Limits { max_channels_per_topic: Some(1), ..none }, [PublishOutcome::Accepted; 2]),
        (Limits { max_channel_consumers: Some(1), ..none }, [PublishOutcome::Accepted; 2]),
        (Limits { max_rdy_count: Some(1), ..none }, [PublishOutcome::Accepted; 2]),
    ] {
        let mut seen = BTreeSet::new();
        for seed in 0..5 {
            let options = Options {
                topics: 2,
                channels: 2,
                consumers: 2,
                messages: 60,
                body_len_max: if limits.max_body_size.is_some() { 1500 } else { 100 },
                ready_max: 5,
                limits,
                ..Options::quiet(seed)
            };
            let mut world = World::new(options, Trace::new(None));
            world.run();
            assert_eq!(world.outcomes().result, Ok(()), "seed {seed}: {limits:?}");
            let numbers = (0..world.oracles().published() as u32).map(MessageNumber);
            seen.extend(numbers.filter_map(|number| world.oracles().outcome(number)).map(of));
        }
        for outcome in outcomes {
            assert!(seen.contains(&of(outcome)), "{limits:?}: {seen:?}");
        }
    }
}

fn of(outcome: PublishOutcome) -> String {
    format!("{outcome:?}")
}
