//! What a seed stands for: how large the cluster is, what breaks, how clients behave.
//!
//! Every seed draws its own mix, often with extreme weights: runs that all have a little of
//! everything would all look the same.

use core::time::Duration;

use sansq_core::client::directory::DirectoryOptions;
use sansq_core::client::{
    ConnectionOptions, ConsumerOptions, PoolOptions, ProducerOptions, RetryPolicy,
};
use sansq_core::rng::Rng;

use crate::chance::{Chance, stream};
use crate::limits::Limits;
use crate::net::NetOptions;

/// Everything about a run. [`Options::from_seed`] draws it, [`Options::quiet`] is for scenarios.
#[derive(Clone, Debug)]
pub struct Options {
    /// All chance of the run comes from it.
    pub seed: u64,
    /// How many nsqds there are.
    pub nodes: usize,
    /// How many shards each has.
    pub shards: u16,
    /// How many nsqlookupds there are, at least one.
    pub lookupds: usize,
    /// How many topics are published to.
    pub topics: usize,
    /// How many channels each topic gets.
    pub channels: usize,
    /// Whether one consumer more listens on an ephemeral channel.
    pub ephemeral: bool,
    /// How many producers there are; each publishes to one nsqd.
    pub producers: usize,
    /// The pools of producers, besides.
    pub pools: Vec<PoolDraw>,
    /// How many messages each publishes.
    pub messages: usize,
    /// Whether producers end with more publishes at once than an nsqd takes on at a time.
    pub burst: bool,
    /// The longest body in bytes.
    pub body_len_max: usize,
    /// Whether somebody harms the nsqds as he can.
    pub hostile: bool,
    /// So many publishes of a hundred go through the admin interface.
    pub admin_percent: u64,
    /// How many consumers each channel has.
    pub consumers: usize,
    /// How many of the core's consumers each channel has besides, which have these options.
    pub workers: (usize, ConsumerOptions),
    /// The nsqds' `--mem-queue-size`.
    pub mem_queue_size: usize,
    /// The nsqds' `--msg-timeout`.
    pub msg_timeout: Duration,
    /// The clients' heartbeat interval.
    pub heartbeat_interval: Duration,
    /// The highest RDY of a consumer.
    pub ready_max: u32,
    /// How long things break and messages are published.
    pub chaos: Duration,
    /// The longest that a batch between two shards, or a connection that moves, is under way.
    pub lane_delay_max: Duration,
    /// How bad the network is.
    pub net: NetOptions,
    /// The nsqds' disks; without them everything is in memory.
    pub disks: Option<DiskPlan>,
    /// The nsqds' limits that are small.
    pub limits: Limits,
    /// What breaks.
    pub faults: Faults,
    /// How consumers behave.
    pub habits: Habits,
    /// What the first consumer does with its first deliveries, before its habits come in.
    pub script: Vec<Habit>,
}

/// What disks are like as long as they work, and how they are used.
#[derive(Clone, Copy, Debug)]
pub struct DiskPlan {
    /// The longest that a request takes.
    pub latency_max: Duration,
    /// The nsqds' `--max-bytes-per-file`.
    pub max_bytes_per_file: u64,
    /// The nsqds' `--sync-every`.
    pub sync_every: u64,
}

/// A pool of producers.
#[derive(Clone, Debug)]
pub struct PoolDraw {
    /// Its settings.
    pub options: PoolOptions,
    /// Whether it asks nsqlookupds for nsqds, and is not given them.
    pub finds: bool,
    /// Whether its publishes have time enough to be accepted if nothing breaks.
    pub is_patient: bool,
}

/// What breaks, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// The longest between two.
    pub every_max: Duration,
    /// Which kinds; none: nothing breaks.
    pub kinds: Vec<Fault>,
    /// How many there are at most.
    pub count_max: Option<u64>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// A connection breaks.
    LoseLink,
    /// A connection breaks, and neither end notices: it is half-open on both sides.
    SilenceLink,
    /// Two machines are cut off from each other for a while, or one from the other only.
    Partition,
    /// A process stands still for a while.
    PauseProcess,
    /// A client dies and starts anew.
    KillClient,
    /// An nsqd's wall clock goes wrong by hours; others' do not.
    SkewClock,
    /// Nothing comes through a connection for a while.
    StallLink,
    /// An nsqlookupd stops, loses all it knows, and comes back later.
    RestartLookupd,
    /// The wall clock is set, by hours, forwards or backwards.
    StepClock,
    /// A topic or channel is paused or unpaused.
    Pause,
    /// A topic or channel is emptied or deleted, and what it had is gone.
    Discard,
    /// An nsqd's disk does not do what it is asked, or does again. Without disks nothing happens.
    BreakDisk,
    /// An nsqd's disk has little room from now on, to the end of the run, or has room again.
    /// Consumers that finish everything have to be enough to make room.
    FillDisk,
    /// An nsqd dies, perhaps in the middle of a write, and is started again later. Only with disks.
    KillNode,
    /// The same with the loss of power: what is not synced may be gone.
    LosePower,
    /// An nsqd is stopped in good order, and started again. Only with disks.
    RestartNode,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::LoseLink,
        Self::SilenceLink,
        Self::Partition,
        Self::PauseProcess,
        Self::KillClient,
        Self::SkewClock,
        Self::StallLink,
        Self::RestartLookupd,
        Self::StepClock,
        Self::Pause,
        Self::Discard,
        Self::BreakDisk,
        Self::KillNode,
        Self::LosePower,
        Self::RestartNode,
        Self::FillDisk,
    ];
}

/// What a consumer does with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Habit {
    /// FIN.
    Finish,
    /// FIN, and once more by mistake.
    FinishTwice,
    /// REQ, often with a delay.
    Requeue,
    /// TOUCH, and FIN later.
    Touch,
    /// Nothing: the message times out.
    Ignore,
}

/// How consumers behave.
#[derive(Clone, Debug)]
pub struct Habits {
    /// What they do with a message, and how often.
    pub weights: Vec<(u64, Habit)>,
    /// The longest that they work on a message.
    pub work_max: Duration,
    /// The longest delay of a REQ.
    pub requeue_delay_max: Duration,
    /// How often of a hundred, when they look up their topic, they change RDY.
    pub ready_percent: u64,
    /// How often of a hundred, when they look up their topic, they leave a nsqd in order (CLS).
    pub close_percent: u64,
}

impl Habits {
    /// Finishes every message within a millisecond.
    pub fn good() -> Self {
        Self {
            weights: vec![(1, Habit::Finish)],
            work_max: Duration::from_millis(1),
            requeue_delay_max: Duration::ZERO,
            ready_percent: 0,
            close_percent: 0,
        }
    }

    /// What to do with a message.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Habit {
        let total = self.weights.iter().map(|(weight, _)| weight).sum();
        let mut at = rng.below(total);
        for (weight, habit) in &self.weights {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *habit,
            }
        }
        Habit::Finish
    }
}

impl Options {
    /// A cluster of one nsqd and one nsqlookupd, with one producer and one consumer, where nothing
    /// breaks.
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            nodes: 1,
            shards: 1,
            lookupds: 1,
            topics: 1,
            channels: 1,
            ephemeral: false,
            producers: 1,
            pools: Vec::new(),
            messages: 1,
            burst: false,
            body_len_max: 100,
            hostile: false,
            admin_percent: 0,
            consumers: 1,
            workers: (0, ConsumerOptions::default()),
            mem_queue_size: 10_000,
            msg_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            ready_max: 1,
            chaos: Duration::from_secs(5),
            lane_delay_max: Duration::from_micros(100),
            net: NetOptions {
                latency_max: Duration::from_micros(500),
                chunk_max: 16 * 1024,
                capacity: 64 * 1024,
                slow_percent: 0,
                dial_failure_percent: 0,
            },
            disks: None,
            limits: Limits::default(),
            faults: Faults {
                every_max: Duration::from_secs(1),
                kinds: Vec::new(),
                count_max: None,
            },
            habits: Habits::good(),
            script: Vec::new(),
        }
    }

    /// nsqds and nsqlookupds without clients, where nothing breaks by itself and the calm begins
    /// when [`World::finish`](crate::World::finish) says so: a world to be filled.
    pub fn empty(seed: u64, nodes: usize, lookupds: usize) -> Self {
        let chaos = Duration::from_secs(u64::from(u32::MAX));
        Self { nodes, lookupds, producers: 0, consumers: 0, chaos, ..Self::quiet(seed) }
    }

    /// The run that `seed` stands for.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(stream::SWARM);
        let rng = &mut rng;
        // Tiny pieces of everything cost events, so then the bodies are small as well.
        let tiny = rng.percent(25);
        // So many messages at once need room and time to be consumed.
        let burst = !tiny && rng.percent(5);
        let net = NetOptions {
            latency_max: *rng.pick(&[
                Duration::from_micros(20),
                Duration::from_millis(2),
                Duration::from_millis(200),
            ]),
            chunk_max: if tiny { rng.between(1, 9) as usize } else { 16 * 1024 },
            capacity: if tiny { rng.between(64, 512) as usize } else { 64 * 1024 },
            slow_percent: *rng.pick(&[0, 0, 5, 40]),
            dial_failure_percent: *rng.pick(&[0, 10, 50]),
        };
        let mut options = Self {
            seed,
            nodes: rng.between(1, 3) as usize,
            shards: *rng.pick(&[1, 2, 2, 3, 4]),
            lookupds: rng.between(1, 2) as usize,
            topics: rng.between(1, 3) as usize,
            channels: rng.between(1, 2) as usize,
            ephemeral: rng.percent(20),
            producers: rng.between(1, 3) as usize,
            pools: Vec::new(),
            messages: rng.between(3, 25) as usize,
            burst,
            body_len_max: if tiny { 40 } else { *rng.pick(&[20, 300, 6000]) },
            hostile: false,
            admin_percent: *rng.pick(&[0, 10, 50]),
            consumers: rng.between(1, 2) as usize,
            workers: (0, ConsumerOptions::default()),
            mem_queue_size: *rng.pick(&[0, 1, 3, 10, 10_000]),
            msg_timeout: Duration::from_secs(rng.between(1, 10)),
            heartbeat_interval: Duration::from_secs(*rng.pick(&[2, 5, 30])),
            ready_max: *rng.pick(&[1, 2, 10, 2500]),
            chaos: Duration::from_secs(rng.between(5, 40)),
            lane_delay_max: *rng.pick(&[
                Duration::ZERO,
                Duration::from_micros(50),
                Duration::from_millis(20),
            ]),
            net,
            disks: None,
            limits: Limits::default(),
            faults: Faults::draw(rng),
            habits: Habits {
                weights: vec![
                    (rng.between(1, 20), Habit::Finish),
                    (rng.between(0, 3), Habit::FinishTwice),
                    (*rng.pick(&[0, 1, 10]), Habit::Requeue),
                    (*rng.pick(&[0, 1, 5]), Habit::Touch),
                    (*rng.pick(&[0, 0, 1, 5]), Habit::Ignore),
                ],
                work_max: *rng.pick(&[
                    Duration::ZERO,
                    Duration::from_millis(10),
                    Duration::from_millis(1500),
                ]),
                requeue_delay_max: *rng.pick(&[Duration::ZERO, Duration::from_secs(3)]),
                ready_percent: *rng.pick(&[0, 20]),
                close_percent: *rng.pick(&[0, 0, 10]),
            },
            script: Vec::new(),
        };
        if options.burst {
            options.mem_queue_size = 10_000;
            options.net.latency_max = options.net.latency_max.min(Duration::from_millis(2));
        }
        options.draw_disks();
        options.draw_more();
        options.draw_limits();
        options
    }

    /// Whether, when nothing breaks, everything has to be accepted. If the core's consumers have
    /// fewer messages in flight than there are nsqds, RDY goes around, and one that has neither RDY
    /// nor disk may have no room for longer than a publish is kept waiting. A disk that is full has
    /// room when everything is finished, which may take longer. A topic for which there is no place
    /// has no room, nor has one whose channels or consumers have found none.
    pub(crate) fn has_room(&self) -> bool {
        if self.faults.kinds.contains(&Fault::FillDisk) || !self.limits.has_places(self) {
            return false;
        }
        let (workers, options) = &self.workers;
        let goes_around = *workers > 0 && (options.max_in_flight as usize) < self.nodes;
        self.consumers > 0 || self.disks.is_some() || !goes_around
    }

    /// What came later, from a stream of its own.
    fn draw_more(&mut self) {
        let mut rng = Rng::new(self.seed).fork(stream::CLIENTS_DRAWN);
        let rng = &mut rng;
        self.hostile = rng.percent(20);
        self.draw_clients(rng);
        let kinds = [
            Fault::SilenceLink,
            Fault::Partition,
            Fault::PauseProcess,
            Fault::KillClient,
            Fault::SkewClock,
            Fault::Discard,
        ];
        self.faults.kinds.extend(kinds.into_iter().filter(|_| rng.percent(25)));
    }

    /// The clients that programs use.
    fn draw_clients(&mut self, rng: &mut Rng) {
        let policies = [RetryPolicy::Never, RetryPolicy::NotStored, RetryPolicy::Always];
        for _ in 0..*rng.pick(&[0, 0, 1, 2]) {
            let is_patient = rng.percent(60);
            let publish_timeout = Duration::from_secs(if is_patient { 30 } else { 3 });
            let producer = ProducerOptions {
                connection: connection_options(self),
                publish_timeout,
                backoff_max: Duration::from_secs(*rng.pick(&[1, 10])),
                ..ProducerOptions::default()
            };
            let lookupd = DirectoryOptions {
                poll_interval: Duration::from_secs(2),
                poll_jitter: Duration::from_millis(600),
                poll_timeout: Duration::from_secs(5),
                ..DirectoryOptions::default()
            };
            let retry = *rng.pick(&policies);
            let options = PoolOptions { producer, retry, lookupd, ..PoolOptions::default() };
            self.pools.push(PoolDraw { options, finds: rng.percent(50), is_patient });
        }
        let workers = *rng.pick(&[0, 1, 1, 2]);
        if workers > 0 && rng.percent(50) {
            self.consumers = 0;
        }
        let options = ConsumerOptions {
            connection: connection_options(self),
            max_in_flight: self.ready_max,
            // Nothing is finished but by the program.
            max_attempts: 0,
            default_requeue_delay: *rng.pick(&[Duration::ZERO, Duration::from_secs(1)]),
            backoff_multiplier: *rng.pick(&[Duration::ZERO, Duration::from_millis(200)]),
            max_backoff_duration: *rng.pick(&[Duration::from_secs(1), Duration::from_secs(20)]),
            low_rdy_idle_timeout: Duration::from_secs(rng.between(1, 10)),
            low_rdy_timeout: Duration::from_secs(rng.between(1, 30)),
            // Before a topic that is new to an nsqd has no room any more.
            lookupd_poll_interval: Duration::from_secs(rng.between(1, 2)),
            lookupd_poll_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            auto_touch: rng.percent(30),
            redial_max: Duration::from_secs(*rng.pick(&[1, 10])),
            ..ConsumerOptions::default()
        };
        self.workers = (workers, options);
    }

    /// Some nsqds have small limits, from a stream of their own.
    fn draw_limits(&mut self) {
        let mut rng = Rng::new(self.seed).fork(stream::LIMITS);
        self.limits = Limits::draw(&mut rng, self);
        // Who finds no place dials for as long as the run takes.
        if !self.limits.has_places(self) {
            self.workers.1.redial_max = Duration::from_secs(10);
        }
        // To fill the room for what is unanswered takes more than the allowance of a connection.
        if self.limits.max_unanswered_bytes.is_some() && self.body_len_max > 100 {
            self.body_len_max = 15_000;
            self.limits.max_msg_size.get_or_insert(15_000);
            self.limits.max_body_size = Some(20_000);
        }
    }

    /// Most nsqds have disks, and of those most have trouble with them.
    fn draw_disks(&mut self) {
        let mut rng = Rng::new(self.seed).fork(stream::DISKS);
        let rng = &mut rng;
        if rng.percent(30) {
            return;
        }
        let disks = DiskPlan {
            latency_max: *rng.pick(&[
                Duration::ZERO,
                Duration::from_micros(200),
                Duration::from_millis(30),
            ]),
            max_bytes_per_file: *rng.pick(&[100, 1000, 100_000]),
            sync_every: *rng.pick(&[1, 10, 2500]),
        };
        // One that is so slow can't do as much besides.
        let slow = DiskPlan {
            latency_max: Duration::from_millis(900),
            max_bytes_per_file: 100_000,
            sync_every: 2500,
        };
        self.disks = Some(if rng.percent(10) { slow } else { disks });
        let kinds = [Fault::BreakDisk, Fault::KillNode, Fault::LosePower, Fault::RestartNode];
        self.faults.kinds.extend(kinds.into_iter().filter(|_| rng.percent(30)));
        if !self.burst && rng.percent(30) {
            self.faults.kinds.push(Fault::FillDisk);
        }
    }
}

/// What clients tell their servers.
pub(crate) fn connection_options(options: &Options) -> ConnectionOptions {
    ConnectionOptions {
        hostname: "client".into(),
        heartbeat_interval: Some(options.heartbeat_interval),
        ..ConnectionOptions::default()
    }
}

impl Faults {
    fn draw(rng: &mut Rng) -> Self {
        const ALL: [Fault; 5] = [
            Fault::LoseLink,
            Fault::StallLink,
            Fault::RestartLookupd,
            Fault::StepClock,
            Fault::Pause,
        ];
        let every_max = *rng.pick(&[Duration::from_millis(500), Duration::from_secs(5)]);
        let kinds = ALL.into_iter().filter(|_| rng.percent(50)).collect();
        Self { every_max, kinds, count_max: None }
    }
}
