//! What all actors share: the clock, the queue, the network, the judges and the trace.

use core::fmt;
use core::time::Duration;

use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now, UnixNanos};

use crate::chance::{Chance, stream};
use crate::events::Queue;
use crate::net::Net;
use crate::oracles::{Observation, Oracles, Violation};
use crate::swarm::Options;
use crate::trace::Trace;

/// The world around the actors.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) now: Now,
    pub(crate) queue: Queue,
    pub(crate) net: Net,
    pub(crate) oracles: Oracles,
    pub(crate) trace: Trace,
    /// Nothing breaks any more, and consumers behave.
    pub(crate) calm: bool,
    /// The first rule that was broken.
    pub(crate) violation: Option<Violation>,
    lanes: Rng,
    lane_delay_max: Duration,
    pub(crate) disk_latency_max: Duration,
    /// The wall clock is ahead of the other one by so much.
    unix_offset: i64,
    /// How many nsqds and nsqlookupds there are.
    pub(crate) nodes: usize,
    pub(crate) lookupds: usize,
    /// The users' own judges.
    pub(crate) checks: Checks,
    /// What was seen since the last look, if somebody looks.
    pub(crate) seen: Option<Vec<Observation>>,
}

type Check = Box<dyn FnMut(Now, &Observation) -> Result<(), String>>;

/// What users look at.
#[derive(Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    pub(crate) fn push(
        &mut self,
        check: impl FnMut(Now, &Observation) -> Result<(), String> + 'static,
    ) {
        self.0.push(Box::new(check));
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checks", self.0.len())
    }
}

impl Env {
    pub(crate) fn new(options: &Options, max_msg_timeout: Duration, trace: Trace) -> Self {
        let rng = Rng::new(options.seed);
        let mut env = Self {
            now: Now::default(),
            queue: Queue::new(rng.fork(stream::TIES)),
            net: Net::new(options.net, rng.fork(stream::NET)),
            oracles: Oracles::new(max_msg_timeout, options.disks.is_some()),
            trace,
            calm: false,
            violation: None,
            lanes: rng.fork(stream::LANES),
            lane_delay_max: options.lane_delay_max,
            disk_latency_max: options.disks.map_or(Duration::ZERO, |disks| disks.latency_max),
            unix_offset: START_UNIX,
            nodes: options.nodes,
            lookupds: options.lookupds,
            checks: Checks::default(),
            seen: None,
        };
        env.set_instant(Instant::ZERO);
        env
    }

    /// Moves the clock.
    pub(crate) fn set_instant(&mut self, instant: Instant) {
        let unix = (instant.as_nanos() as i64).saturating_add(self.unix_offset);
        self.now = Now { instant, unix: UnixNanos(unix) };
    }

    /// Sets the wall clock alone; timers must not care.
    pub(crate) fn step_clock(&mut self, nanos: i64) {
        self.unix_offset = self.unix_offset.saturating_add(nanos);
        self.set_instant(self.now.instant);
    }

    /// The clocks of a machine whose wall clock is ahead of the others' by so many nanoseconds.
    pub(crate) const fn now_ahead(&self, nanos: i64) -> Now {
        let unix = UnixNanos(self.now.unix.0.saturating_add(nanos));
        Now { instant: self.now.instant, unix }
    }

    /// How long something between two shards is under way this time.
    pub(crate) fn lane_delay(&mut self) -> Duration {
        self.lanes.within(self.lane_delay_max)
    }

    /// Shows something to the judges.
    pub(crate) fn observe(&mut self, observation: Observation) {
        self.line(format_args!("{}", Brief(&observation)));
        let now = self.now;
        let found = self.checks.0.iter_mut().find_map(|check| check(now, &observation).err());
        if let Some(text) = found {
            self.judge(Err(Violation::Other(text)));
        }
        if let Some(seen) = &mut self.seen {
            seen.push(observation.clone());
        }
        let result = self.oracles.observe(self.now.instant, observation);
        self.judge(result);
    }

    /// Takes note of a rule that was broken.
    pub(crate) fn judge(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.line(format_args!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    /// Writes a line into the trace.
    pub(crate) fn line(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }
}

/// An observation on one line, ids as text and bodies by length.
struct Brief<'a>(&'a Observation);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |id: &[u8; 16]| String::from_utf8_lossy(id).into_owned();
        match self.0 {
            Observation::Published { target, topic, len, delay } => {
                write!(f, "  publish to {target:?} {topic}: {len} bytes after {delay:?}")
            }
            Observation::Reached { node, topic, messages } => {
                write!(f, "  {messages:?} reach nsqd {node} {topic}")
            }
            Observation::Handled { topic, channel, message } => {
                write!(f, "  message {} is handled for {topic}/{channel}", message.0)
            }
            Observation::Completed { message, outcome } => {
                write!(f, "  message {} {outcome:?}", message.0)
            }
            Observation::ChannelCreated(place) => write!(f, "  created {place}"),
            Observation::TopicDeleted { node, topic } => write!(f, "  deleted {node} {topic}"),
            Observation::ChannelDeleted(place) => write!(f, "  deleted {place}"),
            Observation::Discarding(what) => write!(f, "  to go: {what:?}"),
            Observation::Discarded(what) => write!(f, "  gone: {what:?}"),
            Observation::ChannelLoaded(place) => write!(f, "  loaded {place}"),
            Observation::Died { node, .. } => write!(f, "  nsqd {node} died"),
            Observation::Gone { node } => write!(f, "  nsqd {node} does not come back"),
            Observation::Stopped { node, .. } => write!(f, "  nsqd {node} has stopped"),
            Observation::Subscribed { link, place, .. } => {
                write!(f, "  link {} SUB {place}", link.0)
            }
            Observation::Ready { link, count } => write!(f, "  link {} RDY {count}", link.0),
            Observation::Finished { link, id } => write!(f, "  link {} FIN {}", link.0, text(id)),
            Observation::Requeued { link, id, delay } => {
                write!(f, "  link {} REQ {} {delay:?}", link.0, text(id))
            }
            Observation::Touched { link, id } => write!(f, "  link {} TOUCH {}", link.0, text(id)),
            Observation::Leaving(link) => write!(f, "  link {} is leaving", link.0),
            Observation::Left(link) => write!(f, "  link {} left", link.0),
            Observation::Delivered { link, id, attempts, body } => {
                let head = String::from_utf8_lossy(&body[..body.len().min(8)]);
                write!(f, "  link {} gets {head} {} attempt {attempts}", link.0, text(id))
            }
        }
    }
}

/// When runs begin: 2026-09-10.
const START_UNIX: i64 = 1_789_000_000_000_000_000;
