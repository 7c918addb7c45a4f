//! Whole runs: one told step by step, many drawn by seeds.

use core::time::Duration;

use sansq_core::nsqd::{AdminRequest, Batch, ChannelOp, TopicOp};
use sansq_sim::swarm::{DiskOptions, Habit};
use sansq_sim::{
    Client, Context, MessageNumber, Options, Outcome, Trace, World, channel, run, topic,
};

/// A message is published, requeued, ignored until it times out, and finished, on one shard and where
/// the connection has to move between several.
#[test]
fn life_of_a_message() {
    for shards in 1..=4 {
        let options = Options {
            shards,
            script: vec![Habit::Requeue, Habit::Ignore, Habit::Finish],
            chaos: Duration::from_secs(30),
            ..Options::quiet(1)
        };
        let mut world = World::new(options, Trace::new(None));
        world.run();
        assert_eq!(world.outcomes().result, Ok(()));
        assert_eq!(world.oracles().outcome(MessageNumber(0)), Some(Outcome::Accepted));
        let deliveries = world.oracles().deliveries();
        let seen: Vec<_> =
            deliveries.iter().map(|(_, message, attempts)| (message.0, *attempts)).collect();
        // The second message is the one that every run ends with.
        assert_eq!(seen, [(0, 1), (0, 2), (0, 3), (1, 1)]);
        // To the nanosecond the msg-timeout of the second delivery.
        let waited = deliveries[2].0.saturating_since(deliveries[1].0);
        assert_eq!(waited, Duration::from_secs(10));
    }
}

#[test]
fn two_hundred_seeds_keep_the_rules() {
    let mut delivered = 0;
    for seed in 0..200 {
        let outcomes = run(Options::from_seed(seed), Trace::new(None));
        assert_eq!(outcomes.result, Ok(()), "seed {seed}: sansq-sim --seed {seed} --trace");
        delivered += outcomes.delivered;
    }
    // A swarm that delivers next to nothing would prove nothing.
    assert!(delivered > 2000, "{delivered} deliveries");
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 0..10 {
        let runs = [(); 2].map(|()| run(Options::from_seed(seed), Trace::new(None)));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
    let hashes = [0, 1].map(|seed| run(Options::from_seed(seed), Trace::new(None)).hash);
    assert_ne!(hashes[0], hashes[1]);
}

/// A topic that is deleted while its nsqd stops is not waited for.
#[test]
fn a_topic_may_go_while_its_nsqd_writes_its_memory_to_disk() {
    #[derive(Debug)]
    struct Admin;

    impl Client for Admin {
        fn started(&mut self, context: &mut Context<'_>) {
            for at in 0..20 {
                let (_, body) = context.publishing(0, topic(0), 100 + at, Duration::ZERO);
                let (batch, delay) = (Batch::One(body), Duration::ZERO);
                context.ask(0, AdminRequest::Publish { topic: topic(0), batch, delay });
            }
            context.ask(0, AdminRequest::Channel(topic(0), channel(0), ChannelOp::Create));
            context.wake(Duration::from_secs(1), 0);
        }

        fn woken(&mut self, _: u64, context: &mut Context<'_>) {
            context.ask(0, AdminRequest::Topic(topic(0), TopicOp::Delete));
        }
    }

    let latency_max = Duration::from_millis(30);
    let disks = DiskOptions { latency_max, max_bytes_per_file: 1000, sync_every: 10 };
    for seed in 0..20 {
        let lane_delay_max = Duration::from_millis(5);
        let base = Options { shards: 2, lane_delay_max, ..Options::empty(seed, 1, 1) };
        let options = Options { disks: Some(disks), ..base };
        let mut world = World::new(options, Trace::new(None));
        world.add_client(Admin);
        world.run_for(Duration::from_secs(1));
        world.stop(0);
        assert_eq!(world.finish().result, Ok(()), "seed {seed}");
    }
}
