//! Will my topology lose messages if a rack goes away during a deploy?
//!
//! Two racks with two nsqds each. Those of rack A are deployed anew, one after the other; in the
//! middle of that rack B loses power. `cargo run --release -p sansq-sim --example rack`

use core::time::Duration;
use std::io::{Write, stdout};

use sansq_core::client::RetryPolicy;
use sansq_sim::client::pool::{Pool, PoolPlan};
use sansq_sim::client::worker::{Worker, WorkerPlan};
use sansq_sim::swarm::DiskPlan;
use sansq_sim::{Options, Trace, World, channel, topic};

/// How many of the messages that the producer was told are stored never reach a consumer.
fn lost(seed: u64, mem_queue_size: usize, comes_back: bool) -> usize {
    let latency_max = Duration::from_millis(2);
    let disks = Some(DiskPlan { latency_max, max_bytes_per_file: 1 << 20, sync_every: 1 });
    let base = Options::empty(seed, 4, 1);
    let mut world = World::new(Options { mem_queue_size, disks, ..base }, Trace::new(None));
    let mut worker = WorkerPlan::new(topic(0), channel(0));
    worker.nsqds = vec![0, 1, 2, 3];
    worker.habits.work_max = Duration::from_secs(5);
    world.add_client(Worker::new(worker));
    world.run_for(Duration::from_secs(5));
    let mut pool = PoolPlan::new(vec![topic(0)], 500, Duration::from_millis(200));
    pool.options.retry = RetryPolicy::Always;
    world.add_client(Pool::new(pool));
    world.run_for(Duration::from_secs(15));
    for rack_a in [0, 1] {
        world.stop(rack_a);
        world.run_for(Duration::from_secs(3));
        if rack_a == 1 {
            [2, 3].into_iter().for_each(|rack_b| world.kill(rack_b, true));
        }
        world.run_for(Duration::from_secs(7));
        world.start(rack_a);
    }
    world.run_for(Duration::from_secs(60));
    if comes_back {
        [2, 3].into_iter().for_each(|rack_b| world.start(rack_b));
    }
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.finish().result, Ok(()), "seed {seed}: NSQ itself went wrong");
    world.oracles().unfinished().len()
}

fn main() -> std::io::Result<()> {
    for (queue, comes_back) in [(10_000, true), (0, true), (10_000, false), (0, false)] {
        let counts: Vec<_> = (0..50).map(|seed| lost(seed, queue, comes_back)).collect();
        let (bad, sum) =
            (counts.iter().filter(|lost| **lost > 0).count(), counts.iter().sum::<usize>());
        let fate = if comes_back { "comes back" } else { "is gone for good" };
        let text =
            format!("{bad} of 50 runs lose messages, {} of 500 on average", sum as f64 / 50.0);
        writeln!(stdout(), "--mem-queue-size={queue}, rack B {fate}: {text}")?;
    }
    Ok(())
}
