//! Whole runs: one told step by step, many drawn by seeds.

use core::time::Duration;

use sansq_sim::swarm::Habit;
use sansq_sim::{MessageNumber, Options, Outcome, Trace, World, run};

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
