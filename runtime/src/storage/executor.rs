//! Requests in batches: what waits for the disk is gathered, and waits together.
//!
//! What needs no fsync is done at once. What needs one is gathered for the round, or stands in line
//! for the next one if the round is full; whatever else is asked about that queue meanwhile waits
//! behind it, so that the requests of a queue keep their order. Then the gathered fsyncs come, one
//! per file and up to [`HELPERS_MAX`] more at a time, and one of the folder for all. Between two of
//! its own the thread looks into its mailbox, so that a queue that needs no fsync never waits for
//! more than one of another's. Each request is looked at a bounded number of times, however many
//! there are: 100,000 queues that are closed at once take as long each as a hundred, and less where
//! the file system can be synced as a [whole](super::whole).

use core::mem;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{io, thread};

use sansq_core::storage::{
    Completion, Durability, Failure, File, Op, Owner, Request, RequestId, Store, Success,
};

use super::folder::{Aside, DataHandle, Folder};
use super::whole::{FileSystem, WHOLE_MAX, WholeSync};

/// Where requests come from and completions go to.
pub(super) trait Mailbox {
    /// Appends what was asked for meanwhile; never waits.
    fn fetch(&self, requests: &mut Vec<Request>);
    /// Takes completions, and leaves none.
    fn report(&self, completions: &mut Vec<Completion>);
}

/// Where a completion goes.
#[derive(Clone, Copy, Debug)]
struct Asker {
    id: RequestId,
    owner: Owner,
}

impl Asker {
    const fn completion(self, result: Result<Success, Failure>) -> Completion {
        Completion { id: self.id, owner: self.owner, result }
    }
}

/// How large rounds are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    /// Files that are written aside, or synced, in one round: each is a descriptor.
    pub(super) asides_max: usize,
    /// Queues that wait, from which on a round is a large one.
    pub(super) large_from: usize,
}

/// Carries out the requests of a shard.
#[derive(Debug)]
pub(super) struct Executor<M> {
    folder: Folder,
    mailbox: M,
    rounds: Rounds,
    /// Where the files of a large round can be synced at once.
    file_system: Option<FileSystem>,
    /// That of this round, or of the last one that had it.
    whole: Arc<WholeSync>,
    /// This round is so large.
    is_large: bool,
    completions: Vec<Completion>,
    /// What waits for its fsync in this round.
    slow: Vec<(Asker, Slow)>,
    /// What waits for the fsync of the folder.
    named: Vec<Asker>,
    /// Queues with something in this round or in line, and what waits of each, in order.
    waiting: BTreeMap<Store, VecDeque<(Asker, Op)>>,
    /// Queues whose first waiting request needs an fsync, in the order of asking.
    line: VecDeque<Store>,
    /// Queues in this round.
    in_round: Vec<Store>,
    /// Bytes that were written since the last report.
    unreported_len: usize,
}

#[derive(Debug)]
enum Slow {
    Replace(Aside),
    Sync(Store, u64),
}

/// An fsync, and what goes with it.
#[derive(Debug)]
enum Job {
    Replace(Aside),
    Sync(Store, u64, DataHandle),
}

/// What became of one.
#[derive(Debug)]
enum Outcome {
    Replaced(Result<(Store, File), Failure>),
    Synced(Store, u64, io::Result<()>),
}

impl Job {
    /// Does it, or what is left to do if the file `is_synced`.
    fn carry_out(self, is_synced: bool) -> Outcome {
        match self {
            Self::Replace(aside) => Outcome::Replaced(aside.put_in_place(is_synced)),
            Self::Sync(store, file, handle) if is_synced => {
                Outcome::Synced(store, file, handle.look())
            }
            Self::Sync(store, file, handle) => Outcome::Synced(store, file, handle.sync()),
        }
    }
}

impl<M: Mailbox> Executor<M> {
    pub(super) fn new(folder: Folder, mailbox: M, rounds: Rounds) -> Self {
        Self {
            file_system: FileSystem::of(folder.path()),
            folder,
            mailbox,
            rounds,
            whole: Arc::default(),
            is_large: false,
            completions: Vec::new(),
            slow: Vec::new(),
            named: Vec::new(),
            waiting: BTreeMap::new(),
            line: VecDeque::new(),
            in_round: Vec::new(),
            unreported_len: 0,
        }
    }

    /// Where its requests come from.
    pub(super) const fn mailbox(&self) -> &M {
        &self.mailbox
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        self.folder.end();
    }

    /// Carries out everything in `batch`, and what arrives in the mailbox meanwhile, in part. All
    /// completions are reported when it returns.
    pub(super) fn run(&mut self, batch: &mut Vec<Request>) {
        for request in batch.drain(..) {
            self.take(request);
        }
        self.report();
        while !self.line.is_empty() {
            self.fill_round();
            self.finish_slow(batch);
            for store in mem::take(&mut self.in_round) {
                self.go_on(store);
            }
            self.report();
        }
    }

    /// Does what can be done at once; what can't waits.
    fn take(&mut self, request: Request) {
        let Request { id, owner, store, op } = request;
        let asker = Asker { id, owner };
        if let Some(waiting) = self.waiting.get_mut(&store) {
            waiting.push_back((asker, op));
        } else if is_slow(&op) {
            self.waiting.insert(store, VecDeque::from([(asker, op)]));
            self.line.push_back(store);
        } else {
            self.begin(asker, store, op);
        }
    }

    /// Begins what is first in line, as much as goes into a round.
    fn fill_round(&mut self) {
        if self.whole.has_failed() {
            self.file_system = None;
        }
        self.is_large = self.line.len() >= self.rounds.large_from
            && !self.whole.is_under_way()
            && self.file_system.as_ref().is_some_and(FileSystem::is_calm);
        let began = Instant::now();
        let most = if self.is_large { WHOLE_MAX } else { self.rounds.asides_max };
        while self.in_round.len() < most
            && began.elapsed() < ANSWER_AFTER
            && let Some(store) = self.line.pop_front()
        {
            let first = self.waiting.get_mut(&store).and_then(VecDeque::pop_front);
            let Some((asker, op)) = first else { continue };
            self.begin(asker, store, op);
            self.in_round.push(store);
        }
    }

    /// Goes on with a queue whose fsync is done.
    fn go_on(&mut self, store: Store) {
        let Some(mut waiting) = self.waiting.remove(&store) else { return };
        while let Some((asker, op)) = waiting.pop_front() {
            if is_slow(&op) {
                waiting.push_front((asker, op));
                self.waiting.insert(store, waiting);
                self.line.push_back(store);
                return;
            }
            self.begin(asker, store, op);
        }
    }

    /// Does what needs no fsync, and what comes before one.
    fn begin(&mut self, asker: Asker, store: Store, op: Op) {
        self.unreported_len += written_len(&op);
        let result = match op {
            Op::Sync { file } => {
                self.slow.push((asker, Slow::Sync(store, file)));
                return;
            }
            Op::Append { file, offset, data, sync: true } => {
                match self.folder.append(&store, file, offset, &data) {
                    Ok(()) => {
                        self.slow.push((asker, Slow::Sync(store, file)));
                        return;
                    }
                    Err(failure) => Err(failure),
                }
            }
            Op::Replace { file, contents } => {
                match self.folder.write_aside(&store, file, contents) {
                    Ok(Some(mut aside)) => {
                        if self.is_large {
                            aside.close();
                        }
                        self.slow.push((asker, Slow::Replace(aside)));
                        return;
                    }
                    Ok(None) => Ok(Success::Stored(Durability::Synced)),
                    Err(failure) => Err(failure),
                }
            }
            Op::Append { sync: false, .. }
            | Op::Open
            | Op::Read { .. }
            | Op::Remove { .. }
            | Op::RemoveAll
            | Op::SetAside { .. } => self.folder.carry_out(&store, op),
        };
        self.completions.push(asker.completion(result));
        // Who stops must see that the disk is at work, also if it has a hundred thousand requests.
        if self.completions.len() >= REPORT_AFTER || self.unreported_len >= REPORT_AFTER_LEN {
            self.report();
        }
    }

    /// The fsyncs of a round, side by side: the disk and its file system take many at once, and
    /// most of the time of one is waiting. `spare` is empty, and is left so.
    fn finish_slow(&mut self, spare: &mut Vec<Request>) {
        let (jobs, outcomes) = (Mutex::new(self.prepare()), Mutex::new(Vec::new()));
        if let Some(file_system) = self.file_system.as_ref().filter(|_| self.is_large) {
            self.whole = WholeSync::begin(file_system);
        }
        // One of an earlier round says nothing about this one.
        let whole = if self.is_large { Arc::clone(&self.whole) } else { Arc::default() };
        let take = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = |(asker, job): (Asker, Job)| {
            let outcome = (asker, job.carry_out(whole.is_done()));
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        };
        let helpers = jobs.lock().map_or(0, |jobs| jobs.len().saturating_sub(1)).min(HELPERS_MAX);
        thread::scope(|scope| {
            for _ in 0..helpers {
                let help = || {
                    whole.wait();
                    while let Some(job) = take() {
                        work(job);
                    }
                };
                // With fewer threads it takes longer.
                if thread::Builder::new().spawn_scoped(scope, help).is_err() {
                    break;
                }
            }
            let mut answered = Instant::now();
            loop {
                let done = mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner));
                self.note_slow(done);
                if answered.elapsed() >= ANSWER_AFTER {
                    self.finish_named();
                    answered = Instant::now();
                }
                self.mailbox.fetch(spare);
                for request in spare.drain(..) {
                    self.take(request);
                }
                self.report();
                let Some(job) = take() else { break };
                work(job);
            }
            whole.dismiss();
        });
        self.note_slow(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner));
        self.finish_named();
        self.report();
    }

    /// Syncs the folder for those who wait for that.
    fn finish_named(&mut self) {
        if self.named.is_empty() {
            return;
        }
        let synced = self.folder.sync_names();
        for asker in self.named.drain(..) {
            let result = synced.clone().map(|()| Success::Stored(Durability::Synced));
            self.completions.push(asker.completion(result));
        }
    }

    /// What the fsyncs of a round are about, in a form that any thread can have.
    fn prepare(&mut self) -> VecDeque<(Asker, Job)> {
        let mut jobs = VecDeque::with_capacity(self.slow.len());
        for (asker, slow) in mem::take(&mut self.slow) {
            match slow {
                Slow::Replace(aside) => jobs.push_back((asker, Job::Replace(aside))),
                Slow::Sync(store, file) => match self.folder.handle(&store, file, self.is_large) {
                    Ok(handle) => jobs.push_back((asker, Job::Sync(store, file, handle))),
                    Err(failure) => self.completions.push(asker.completion(Err(failure))),
                },
            }
        }
        jobs
    }

    /// Takes in what became of fsyncs.
    fn note_slow(&mut self, outcomes: Vec<(Asker, Outcome)>) {
        for (asker, outcome) in outcomes {
            let result = match outcome {
                Outcome::Replaced(result) => {
                    result.map(|(store, file)| self.folder.note_replaced(&store, file))
                }
                Outcome::Synced(store, file, result) => {
                    self.folder.note_synced(&store, file, result)
                }
            };
            match result {
                Ok(()) => self.named.push(asker),
                Err(failure) => self.completions.push(asker.completion(Err(failure))),
            }
        }
    }

    fn report(&mut self) {
        self.unreported_len = 0;
        if !self.completions.is_empty() {
            self.mailbox.report(&mut self.completions);
        }
    }
}

/// Completions, and bytes that were written with them, that may wait until they are reported: a
/// second's work of a disk that is as good as none.
const REPORT_AFTER: usize = 64;
const REPORT_AFTER_LEN: usize = 1024 * 1024;

/// How long a large round goes on without an answer to anybody: who stops must not take a disk for
/// dead that is slow.
const ANSWER_AFTER: Duration = Duration::from_secs(1);

/// How many bytes are written at once.
fn written_len(op: &Op) -> usize {
    if let Op::Append { data, .. } = op { data.iter().map(|part| part.len()).sum() } else { 0 }
}

/// Whether it waits for the disk.
const fn is_slow(op: &Op) -> bool {
    matches!(op, Op::Append { sync: true, .. } | Op::Sync { .. } | Op::Replace { .. })
}

/// Threads that help with the fsyncs of a round, and live as long as it. One fsync takes a
/// millisecond and a file system commits those that wait together: with 16 at a time, 10,000 on
/// ext4 take a tenth of the time that they take one by one.
const HELPERS_MAX: usize = 15;
