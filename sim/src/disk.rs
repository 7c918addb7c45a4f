//! The disk of an nsqd: requests that take their time, fail, are torn, and forget what is not
//! synced.
//!
//! Each shard has a storage thread of its own, as in the runtimes: its requests are carried out in
//! order, those of different shards in any order. What an operation does to the files is
//! [`MemoryFiles`]' doing.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sansq_core::rng::Rng;
use sansq_core::storage::memory::{Faults, MemoryFiles};
use sansq_core::storage::{
    Completion, FailureKind, File, Found, Metadata, MetadataError, Op, Request, Store, Success,
};
use sansq_core::time::Instant;

use crate::chance::Chance;
use crate::env::Env;
use crate::events::WorldEvent;
use crate::model::{MessageNumber, RawId};
use crate::oracles::durability::{Syncs, bodies_with_holes, reading_begins, records_in};
use crate::trace::digest;

/// The files of one nsqd, and what it asked of them.
#[derive(Debug)]
pub(crate) struct Disk {
    node: usize,
    files: MemoryFiles,
    /// By shard.
    threads: Vec<Thread>,
    rng: Rng,
    pub(crate) syncs: Syncs,
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
    pub(crate) fn new(node: usize, shards: usize, syncs: Syncs, rng: Rng) -> Self {
        let threads = (0..shards).map(|_| Thread::default()).collect();
        Self { node, files: MemoryFiles::new(), threads, rng, syncs, has_failed: false }
    }

    /// What nsqd.dat says.
    pub(crate) fn metadata(&self) -> Result<Metadata, MetadataError> {
        match self.files.get("nsqd.dat") {
            Some(contents) => Metadata::parse(contents).map(|parsed| parsed.metadata),
            None => Ok(Metadata::default()),
        }
    }

    /// What the queues that are listed have, as far as whoever starts got to read it; the others
    /// ask.
    pub(crate) fn look(&mut self, metadata: &Metadata) -> BTreeMap<Store, Found> {
        let queues = metadata.topics.iter().flat_map(|topic| {
            let channels = topic.channels.iter().map(|channel| Some(channel.name));
            let names = core::iter::once(None).chain(channels);
            names.map(|channel| Store::Queue(topic.name, channel))
        });
        let mut known = BTreeMap::new();
        for store in queues {
            if self.rng.percent(70)
                && let Ok(Success::Opened(found)) = self.files.execute(&store, &Op::Open)
            {
                known.insert(store, *found);
            }
        }
        known
    }

    /// A shard took what [`look`](Self::look) found of a queue.
    pub(crate) fn opened(&mut self, store: Store, now: Instant) {
        self.syncs.opened(store, now);
    }

    /// A shard asks for something.
    pub(crate) fn submit(&mut self, shard: usize, request: Request, env: &mut Env) {
        self.syncs.asked(&request);
        let thread = &mut self.threads[shard];
        thread.requests.push_back(request);
        let latency = self.rng.within(env.disk_latency_max);
        thread.busy_until = thread.busy_until.max(env.now.instant) + latency;
        env.queue.push(thread.busy_until, WorldEvent::Disk { node: self.node, shard });
    }

    /// Carries out what a shard asked for first.
    pub(crate) fn carry_out(&mut self, shard: usize, env: &mut Env) -> Option<Completion> {
        let thread = &mut self.threads[shard];
        if thread.stale > 0 {
            thread.stale -= 1;
            return None;
        }
        let request = thread.requests.pop_front()?;
        let completion = self.files.carry_out(&request);
        let is_ok = completion.result.is_ok();
        self.has_failed |= !is_ok;
        self.syncs.done(&request, is_ok, env.now.instant);
        let what = if is_ok { "done" } else { "failed" };
        env.line(format_args!("  disk of nsqd {} {what}: {:?}", self.node, Brief(&request)));
        Some(completion)
    }

    /// The names of the files.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.names()
    }

    /// Whether everything is done that was asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.threads.iter().all(|thread| thread.requests.is_empty())
    }

    /// Whether whoever uses it has read what it has to know: nothing is under way, and nothing
    /// failed of late.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        self.is_idle() && !self.syncs.is_patient(now)
    }

    /// Whoever asked is gone, perhaps in the middle of a write. Returns the bodies in which the
    /// loss of power left holes, by the ids of their messages.
    pub(crate) fn die(&mut self, loses_power: bool) -> BTreeSet<(RawId, Vec<u8>)> {
        for thread in &mut self.threads {
            if let Some(request) = thread.requests.front()
                && self.rng.percent(50)
            {
                self.files.tear(&request.store, &request.op, &mut self.rng);
            }
            thread.stale += thread.requests.len();
            thread.requests.clear();
        }
        let mut damaged = BTreeSet::new();
        if loses_power {
            let before = self.files.clone();
            self.files.lose_power(&mut self.rng);
            for name in self.files.names().filter(|name| is_data(name)) {
                let of = |files: &'_ MemoryFiles| files.get(name).unwrap_or_default().to_vec();
                damaged.extend(bodies_with_holes(&of(&before), &of(&self.files)));
            }
        }
        self.syncs.died(loses_power);
        damaged
    }

    /// The messages that are on the disk and have to be read by the next process: of a channel all
    /// that are not finished, of a topic those from where its meta file has reading begin.
    pub(crate) fn kept(&self) -> BTreeSet<(Store, MessageNumber)> {
        let mut kept = BTreeSet::new();
        for name in self.files.names() {
            let Some((store, File::Data(number))) = Store::parse(name) else { continue };
            let meta = match store {
                Store::Queue(_, None) => self.files.get(&store.file(File::Meta).to_string()),
                Store::Queue(_, Some(_)) | Store::Metadata => None,
            };
            let first = meta.and_then(reading_begins).unwrap_or_default();
            let records = records_in(self.files.get(name).unwrap_or_default());
            let unread = records.into_iter().filter(|(at, _)| (number, *at) >= first);
            kept.extend(unread.filter_map(|(_, message)| Some((store, message?))));
        }
        kept
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

    /// The disk has this much room in all, or, if there is more on it, for so many bytes more at
    /// most.
    pub(crate) fn fill(&mut self, least: u64, more_max: u64) {
        let room = self.files.used() + self.rng.below(more_max);
        self.files.capacity = Some(room.max(least));
        self.files.reserve = RESERVE;
    }

    /// The disk has room for everything.
    pub(crate) fn make_room(&mut self) {
        self.files.capacity = None;
    }

    /// A data file behind which there is another one, if there is no room for a block: when
    /// everything is finished, a queue needs none but the one that it writes to.
    pub(crate) fn find_left_over(&self) -> Option<String> {
        let capacity = self.files.capacity?;
        let mut last: Option<(Store, &str)> = None;
        for name in self.files.names().filter(|_| self.files.used() + BLOCK > capacity) {
            if let Some((store, File::Data(_))) = Store::parse(name) {
                match last.replace((store, name)) {
                    Some((of, name)) if of == store => return Some(name.into()),
                    _ => {}
                }
            }
        }
        None
    }

    /// Everything works again, as far as there is room.
    pub(crate) fn mend(&mut self) {
        self.files.faults = Faults::default();
    }
}

/// What an nsqd keeps for positions and names, in bytes.
const RESERVE: u64 = 8 * BLOCK;

/// What an nsqd asks for to see whether there is room, in bytes.
const BLOCK: u64 = 4096;

fn is_data(name: &str) -> bool {
    matches!(Store::parse(name), Some((_, File::Data(_))))
}

/// The longest that an nsqd is down.
pub(crate) const DOWN_MAX: Duration = Duration::from_secs(5);

/// A request on one line.
struct Brief<'a>(&'a Request);

impl core::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let store = &self.0.store;
        match &self.0.op {
            Op::Append { file, offset, data, .. } => {
                let (len, digest) =
                    (data.iter().map(Bytes::len).sum::<usize>(), digest(&data.concat()));
                write!(f, "{store} append {len} bytes {digest:x} at {offset} of file {file}")
            }
            Op::Replace { file: File::Meta, contents } => {
                let text = String::from_utf8_lossy(contents).trim().replace('\n', " ");
                write!(f, "{store} meta file {text}")
            }
            Op::Replace { file, contents } => {
                write!(
                    f,
                    "{store} replace {file:?}: {} bytes {:x}",
                    contents.len(),
                    digest(contents)
                )
            }
            op @ (Op::Open
            | Op::Read { .. }
            | Op::Remove { .. }
            | Op::RemoveAll
            | Op::SetAside { .. }
            | Op::Sync { .. }) => write!(f, "{store} {op:?}"),
        }
    }
}
