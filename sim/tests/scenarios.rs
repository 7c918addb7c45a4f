//! Whole runs: one told step by step, many drawn by seeds.

use core::time::Duration;

use sansq_core::client::RetryPolicy;
use sansq_core::nsqd::{AdminRequest, Batch, ChannelOp, TopicOp};
use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::raw::{Hostile, Raw, Step};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::net::Process;
use sansq_sim::oracles::Observation;
use sansq_sim::swarm::{DiskPlan, Habit};
use sansq_sim::{
    Client, Context, MessageNumber, Options, PublishOutcome, Trace, Violation, World, channel, run,
    topic,
};

/// A message is published, requeued, ignored until it times out, and finished, on one shard and
/// where the connection has to move between several.
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
        assert_eq!(world.oracles().outcome(MessageNumber(0)), Some(PublishOutcome::Accepted));
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

/// What a client asked of an nsqd that stood still, and died before it went on, is not asked of the
/// next process (seed 262783842668438).
#[test]
fn requests_die_with_who_did_not_take_them() {
    let latency_max = Duration::ZERO;
    let disks = DiskPlan { latency_max, max_bytes_per_file: 10_000, sync_every: 1 };
    let options = Options { disks: Some(disks), admin_percent: 100, ..Options::quiet(1) };
    let mut world = World::new(options, Trace::new(None));
    world.pause(Process::Nsqd(0), Duration::from_secs(4));
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.oracles().outcome(MessageNumber(0)), Some(PublishOutcome::Pending));
    world.kill(0, false);
    assert_eq!(world.oracles().outcome(MessageNumber(0)), Some(PublishOutcome::Unknown));
    world.start(0);
    assert_eq!(world.finish().result, Ok(()));
    assert!(world.oracles().deliveries().iter().all(|(_, message, _)| message.0 != 0));
}

/// Two nsqds, a pool that may try again, and a consumer that finds them.
fn small_world(seed: u64) -> (World, usize, usize) {
    let latency_max = Duration::from_millis(1);
    let disks = DiskPlan { latency_max, max_bytes_per_file: 10_000, sync_every: 1 };
    let options =
        Options { disks: Some(disks), mem_queue_size: 0, shards: 2, ..Options::empty(seed, 2, 1) };
    let mut world = World::new(options, Trace::new(None));
    let mut worker = WorkerPlan::new(topic(0), channel(0));
    worker.nsqds = vec![0, 1];
    let worker = world.add_client(Worker::new(worker));
    world.run_for(Duration::from_secs(5));
    let mut pool = PoolPlan::new(vec![topic(0)], 100, Duration::from_millis(300));
    pool.options.retry = RetryPolicy::Always;
    let pool = world.add_client(Pool::new(pool));
    world.run_for(Duration::from_secs(5));
    (world, worker, pool)
}

/// Whatever happens to them, what the pool was told is stored gets to the consumer.
#[test]
fn nothing_is_lost_between_a_pool_and_a_consumer() {
    type Harm = fn(&mut World, usize, usize);
    let second = Duration::from_secs(1);
    let harms: [(&str, Harm); 8] = [
        ("nothing", |_, _, _| {}),
        ("an nsqd dies", |world, _, _| {
            world.kill(0, false);
            world.run_for(Duration::from_secs(5));
            world.start(0);
        }),
        ("an nsqd is restarted", |world, _, _| {
            world.stop(1);
            world.run_for(Duration::from_secs(5));
            world.start(1);
        }),
        ("the consumer dies", |world, worker, _| world.crash_client(worker)),
        ("the consumer is not heard", |world, worker, _| {
            world.cut(Process::Client(worker), Process::Nsqd(0));
        }),
        ("an nsqd is not heard", |world, worker, pool| {
            world.cut(Process::Nsqd(1), Process::Client(worker));
            world.cut(Process::Nsqd(1), Process::Client(pool));
        }),
        ("an nsqd stands still", |world, _, _| {
            world.pause(Process::Nsqd(0), Duration::from_secs(90));
        }),
        ("connections go half-open", |world, _, _| {
            for _ in 0..10 {
                world.break_any_link(true);
            }
        }),
    ];
    for (name, harm) in harms {
        for seed in 0..5 {
            let (mut world, worker, pool) = small_world(seed);
            harm(&mut world, worker, pool);
            world.run_for(100 * second);
            let outcomes = world.finish();
            assert_eq!(outcomes.result, Ok(()), "{name}, seed {seed}");
            assert_eq!(world.oracles().unfinished(), [], "{name}, seed {seed}");
            assert!(outcomes.published >= 100 && outcomes.delivered >= 50, "{name}: {outcomes:?}");
        }
    }
}

/// A client that is told what to write, step by step; one that waits for what never comes is not
/// done.
#[test]
fn a_raw_client_does_as_it_is_told() {
    let steps = vec![
        Step::Send(b"  V2SUB t0 c0\n".to_vec()),
        Step::Expect(b"OK".to_vec()),
        Step::Wait(Duration::from_secs(2)),
        Step::Send(b"CLS\n".to_vec()),
        Step::Expect(b"CLOSE_WAIT".to_vec()),
        Step::Close,
    ];
    let mut world = World::new(Options::empty(1, 1, 1), Trace::new(None));
    world.add_client(Raw::new(0, steps.clone(), true));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.finish().result, Ok(()));

    let mut world = World::new(Options::empty(1, 1, 1), Trace::new(None));
    let never = Step::Expect(b"never".to_vec());
    world.add_client(Raw::new(0, steps.into_iter().take(1).chain([never]).collect(), true));
    let outcomes = world.finish();
    assert!(matches!(outcomes.result, Err(Violation::Other(text)) if text.contains("is not done")));
}

/// A world stops behind the event in which the judges saw what was looked for, or when the time is
/// over.
#[test]
fn a_world_stops_at_a_moment() {
    let (mut world, worker, _) = small_world(1);
    let mut left = 3;
    let third = |seen: &Observation| {
        left -= i32::from(matches!(seen, Observation::Finished { .. }));
        left == 0
    };
    let before = world.now();
    assert!(world.run_until(Duration::from_secs(60), third));
    assert!(world.now() < before + Duration::from_secs(60));
    world.crash_client(worker);
    let before = world.now();
    let never = |seen: &Observation| matches!(seen, Observation::Gone { .. });
    assert!(!world.run_until(Duration::from_secs(5), never));
    assert_eq!(world.now(), before + Duration::from_secs(5));
    assert_eq!(world.finish().result, Ok(()));
    assert_eq!(world.oracles().unfinished(), []);
}

/// Whoever harms an nsqd as he can does not keep others from their messages.
#[test]
fn a_hostile_client_harms_nobody_else() {
    for seed in 0..10 {
        let (mut world, _, _) = small_world(seed);
        world.add_client(Hostile::new(topic(0), channel(0)));
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.finish().result, Ok(()), "seed {seed}");
        assert_eq!(world.oracles().unfinished(), [], "seed {seed}");
    }
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
    let disks = DiskPlan { latency_max, max_bytes_per_file: 1000, sync_every: 10 };
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
