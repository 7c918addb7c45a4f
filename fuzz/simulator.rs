//! A small cluster in the simulator, driven from the input: the first bytes choose topology, sizes
//! and which kinds of faults there are, the rest is what breaks and when. The simulator's judges
//! say whether a message was lost, came twice or out of turn, and whether everything comes to an
//! end when nothing breaks any more; some inputs run twice, and have to give one hash.

use core::time::Duration;
use std::collections::BTreeSet;

use sansq_sim::net::Process;
use sansq_sim::swarm::Fault;
use sansq_sim::{Options, Outcomes, Trace, World};

/// Reads the input as a world and what happens to it.
///
/// # Panics
/// If a rule is broken, or a second run differs.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let outcomes = run(input.clone());
    assert_eq!(outcomes.result, Ok(()), "{outcomes:?}");
    if flags & 7 == 7 {
        assert_eq!(outcomes, run(input), "a second run differs");
    }
}

/// The input that is left. Behind its end there are zeros.
#[derive(Clone)]
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn millis(&mut self) -> Duration {
        Duration::from_millis(1 << self.below(11))
    }
}

fn run(mut input: Input<'_>) -> Outcomes {
    let options = options(&mut input);
    let restarts = Fault::ALL.iter().any(|kind| {
        let restarts = [Fault::KillNode, Fault::LosePower, Fault::RestartNode].contains(kind);
        restarts && options.faults.kinds.contains(kind)
    });
    let mut cluster = Cluster {
        end: options.chaos,
        passed: Duration::ZERO,
        clients: clients(&options),
        has_disks: options.disks.is_some(),
        // Whoever else starts and stops nsqds would start those that are down by the input.
        may_restart: options.disks.is_some() && !restarts,
        may_set_clocks: !options.faults.kinds.contains(&Fault::RestartNode),
        down: BTreeSet::new(),
        nodes: options.nodes,
        lookupds: options.lookupds,
        world: World::new(options, Trace::new(None)),
    };
    for _ in 0..STEPS_MAX {
        if input.0.is_empty() {
            break;
        }
        cluster.step(&mut input);
    }
    for node in cluster.down {
        cluster.world.start(node);
    }
    cluster.world.run();
    cluster.world.outcomes()
}

/// What the swarm would draw of a small seed, with fewer messages and less time, and the faults of
/// the input.
fn options(input: &mut Input<'_>) -> Options {
    let seed = u64::from(input.byte()) << 8 | u64::from(input.byte());
    let mut options = Options::from_seed(seed);
    options.nodes = 1 + input.below(3);
    options.shards = 1 + input.below(3) as u16;
    options.messages = 1 + input.below(6);
    options.chaos = Duration::from_millis(200 + 10 * u64::from(input.byte()));
    options.burst = false;
    options.body_len_max = options.body_len_max.min(300);
    options.topics = options.topics.min(2);
    let mask = u16::from(input.byte()) << 8 | u16::from(input.byte());
    let is_chosen = |at: usize| mask >> at & 1 == 1;
    let chosen = Fault::ALL.into_iter().enumerate().filter(|(at, _)| is_chosen(*at));
    options.faults.kinds = chosen.map(|(_, kind)| kind).collect();
    if options.disks.is_some() && options.faults.kinds.contains(&Fault::RestartNode) {
        // As the swarm does: what is deferred over a restart is due by the wall clock.
        let clocks = [Fault::StepClock, Fault::SkewClock];
        options.faults.kinds.retain(|kind| !clocks.contains(kind));
    }
    options.faults.count_max = Some(u64::from(input.byte() % 16));
    options.faults.every_max = Duration::from_millis(1 + 4 * u64::from(input.byte()));
    options
}

/// How many clients the swarm has.
fn clients(options: &Options) -> usize {
    let channels = options.topics * options.channels;
    let more = [options.ephemeral && options.consumers > 0, options.hostile];
    options.producers
        + options.pools.len()
        + channels * (options.consumers + options.workers.0)
        + more.into_iter().filter(|is_there| *is_there).count()
}

struct Cluster {
    world: World,
    /// How long things break.
    end: Duration,
    passed: Duration,
    nodes: usize,
    lookupds: usize,
    clients: usize,
    has_disks: bool,
    may_restart: bool,
    may_set_clocks: bool,
    /// nsqds that the input has ended.
    down: BTreeSet<usize>,
}

impl Cluster {
    fn step(&mut self, input: &mut Input<'_>) {
        let world = &mut self.world;
        match input.byte() % 16 {
            0..=4 => {
                let time = input.millis().min(self.end.saturating_sub(self.passed + MARGIN));
                self.passed += time;
                world.run_for(time);
            }
            5 => world.break_any_link(input.byte() & 1 == 1),
            6 => {
                let process = self.process(input);
                self.world.pause(process, input.millis());
            }
            7 => {
                let (from, to) = (self.process(input), self.process(input));
                self.world.cut(from, to);
            }
            8 => {
                let (from, to) = (self.process(input), self.process(input));
                self.world.heal(from, to);
            }
            9 => world.crash_client(input.below(self.clients)),
            10 => world.restart_lookupd(input.below(self.lookupds), input.millis()),
            11 if self.has_disks => world.break_disk(input.below(self.nodes)),
            12 if self.has_disks => world.mend_disk(input.below(self.nodes)),
            what @ 13..=14 if self.may_restart => {
                let node = input.below(self.nodes);
                let flags = input.byte();
                if self.down.remove(&node) {
                    world.start(node);
                } else if what == 13 {
                    self.down.insert(node);
                    world.kill(node, flags & 1 == 1);
                } else {
                    // What can't be written during a stop is lost, as documented.
                    world.mend_disk(node);
                    self.down.insert(node);
                    world.stop(node);
                    self.may_set_clocks = false;
                }
            }
            15 if self.may_set_clocks => {
                let minutes = i64::from(input.byte()) - 128;
                world.set_clock_ahead(input.below(self.nodes), minutes * MINUTE_NANOS);
                self.may_restart = false;
            }
            _ => {}
        }
    }

    fn process(&self, input: &mut Input<'_>) -> Process {
        let at = input.below(self.nodes + self.lookupds + self.clients);
        match at.checked_sub(self.nodes) {
            None => Process::Nsqd(at),
            Some(at) if at < self.lookupds => Process::Lookupd(at),
            Some(at) => Process::Client(at - self.lookupds),
        }
    }
}

/// More would only make runs longer.
const STEPS_MAX: usize = 60;

/// What the input breaks, it breaks before the calm.
const MARGIN: Duration = Duration::from_millis(1);

const MINUTE_NANOS: i64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("simulator", super::check);
    }
}
