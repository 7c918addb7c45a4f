//! How does the work spread over shards, and what do they hand to each other? Counted, not timed,
//! so that it says something of machines with more cores than this one.
//!
//! `cargo run --release -p sansq-sim --example scaling`

use core::time::Duration;
use std::io::{Write, stdout};

use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::{Options, ShardWork, Trace, World, channel, topic};

const TOPICS: usize = 128;
const POOLS: usize = 64;
const MESSAGES_OF_A_POOL: usize = 250;

/// What each of `shards` shards did while every pool published to all topics, each with a consumer.
fn work(shards: u16) -> (Vec<ShardWork>, usize) {
    let base = Options::empty(1, 1, 1);
    let mut world = World::new(Options { shards, ..base }, Trace::new(None));
    for at in 0..TOPICS {
        let mut worker = WorkerPlan::new(topic(at), channel(0));
        worker.nsqds = vec![0];
        world.add_client(Worker::new(worker));
    }
    world.run_for(Duration::from_secs(10));
    for _ in 0..POOLS {
        let every_max = Duration::from_millis(10);
        let topics = (0..TOPICS).map(topic).collect();
        let mut pool = PoolPlan::new(topics, MESSAGES_OF_A_POOL, every_max);
        pool.nsqds = vec![0];
        world.add_client(Pool::new(pool));
    }
    world.run_for(Duration::from_secs(60));
    let outcomes = world.finish();
    assert_eq!(outcomes.result, Ok(()), "NSQ itself went wrong");
    (world.work(0).to_vec(), outcomes.published)
}

fn main() -> std::io::Result<()> {
    writeln!(stdout(), "shards  hand-overs  batches  turns    busiest shard, of the mean")?;
    for shards in [1, 2, 4, 8, 16, 32, 64] {
        let (work, published) = work(shards);
        let sum = |count: fn(&ShardWork) -> u64| work.iter().map(count).sum::<u64>() as f64;
        let each = |count| sum(count) / published as f64;
        let most = work.iter().map(|shard| shard.turns).max().unwrap_or(0) as f64;
        writeln!(
            stdout(),
            "{shards:6}  {:10.2}  {:7.2}  {:5.2}    {:.2}",
            each(|shard| shard.hand_overs),
            each(|shard| shard.batches),
            each(|shard| shard.turns),
            most / sum(|shard| shard.turns) * f64::from(shards),
        )?;
    }
    Ok(())
}
