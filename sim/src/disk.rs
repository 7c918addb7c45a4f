//! The disk of an nsqd: requests that take their time, fail, are torn, and forget what is not synced.
//!
//! Each shard has a storage thread of its own, as in the runtimes: its requests are carried out in order,
//! those of different shards in any order. What an operation does to the files is
//! [`MemoryFiles`]' doing.

use core::time::Duration;
use std::collections::VecDeque;

use sansq_core::rng::Rng;
use sansq_core::storage::memory::{Faults, MemoryFiles};
use sansq_core::storage::{Done, FailureKind, Metadata, MetadataError, Request};
use sansq_core::time::Instant;

use crate::chance::Chance;
use crate::env::Env;
use crate::events::Event;

/// The files of one nsqd, and what it asked of them.
#[derive(Debug)]
pub(crate) struct Disk {
    node: usize,
    files: MemoryFiles,
    /// By shard.
    threads: Vec<Thread>,
    rng: Rng,
    /// Something has failed since this was cleared.
    pub(crate) has_failed: bool,
}

#[derive(Debug, Default)]
struct Thread {
    requests: VecDeque<Request>,
    busy_until: Instant,
    /// Ends of requests that a process asked for which has died.
    stale: usize,
}

impl Disk {
    pub(crate) fn new(node: usize, shards: usize, rng: Rng) -> Self {
        let threads = (0..shards).map(|_| Thread::default()).collect();
        Self { node, files: MemoryFiles::new(), threads, rng, has_failed: false }
    }

    /// What nsqd.dat says.
    pub(crate) fn metadata(&self) -> Result<Metadata, MetadataError> {
        match self.files.get("nsqd.dat") {
            Some(contents) => Metadata::parse(contents).map(|parsed| parsed.metadata),
            None => Ok(Metadata::default()),
        }
    }

    /// A shard asks for something.
    pub(crate) fn submit(&mut self, shard: usize, request: Request, env: &mut Env) {
        let thread = &mut self.threads[shard];
        thread.requests.push_back(request);
        let latency = self.rng.within(env.disk_latency_max);
        thread.busy_until = thread.busy_until.max(env.now.instant) + latency;
        env.queue.push(thread.busy_until, Event::Disk { node: self.node, shard });
    }

    /// Carries out what a shard asked for first.
    pub(crate) fn carry_out(&mut self, shard: usize, env: &mut Env) -> Option<Done> {
        let thread = &mut self.threads[shard];
        if thread.stale > 0 {
            thread.stale -= 1;
            return None;
        }
        let request = thread.requests.pop_front()?;
        let done = self.files.carry_out(&request);
        self.has_failed |= done.result.is_err();
        let what = if done.result.is_ok() { "done" } else { "failed" };
        env.line(format_args!("  disk of nsqd {} {what}: {:?}", self.node, Brief(&request)));
        Some(done)
    }

    /// Whether everything is done that was asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.threads.iter().all(|thread| thread.requests.is_empty())
    }

    /// Whoever asked is gone, perhaps in the middle of a write.
    pub(crate) fn die(&mut self, loses_power: bool) {
        for thread in &mut self.threads {
            if let Some(request) = thread.requests.front()
                && self.rng.percent(50)
            {
                self.files.tear(&request.store, &request.op, &mut self.rng);
            }
            thread.stale += thread.requests.len();
            thread.requests.clear();
        }
        if loses_power {
            self.files.lose_power(&mut self.rng);
        }
    }

    /// Some kind of work fails from now on.
    pub(crate) fn break_somehow(&mut self) {
        let kinds = [FailureKind::Full, FailureKind::Other, FailureKind::ReadOnly];
        let kind = Some(*self.rng.pick(&kinds));
        let faults = &mut self.files.faults;
        match self.rng.below(6) {
            0 | 1 => faults.append = kind,
            2 => faults.sync = kind,
            3 => faults.replace = kind,
            4 => faults.read = kind,
            _ => faults.open = kind,
        }
    }

    /// Everything works again.
    pub(crate) fn mend(&mut self) {
        self.files.faults = Faults::default();
    }
}

/// The longest that an nsqd is down.
pub(crate) const DOWN_MAX: Duration = Duration::from_secs(5);

/// A request on one line.
struct Brief<'a>(&'a Request);

impl core::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = format!("{:?}", self.0.op);
        let end = text.char_indices().nth(60).map_or(text.len(), |(at, _)| at);
        write!(f, "{} {}", self.0.store, &text[..end])
    }
}
