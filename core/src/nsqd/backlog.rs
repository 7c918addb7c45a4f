//! The messages that wait in a topic or channel: the older ones in memory, the newer ones on disk.
//!
//! ```text
//!   fresh ──► memory has room, nothing on disk? ──► memory ──────────► pop
//!                        │ else                       ▲                 ▲
//!                        └──────────► disk ───────────┼─────────────────┘ when memory is empty
//!   came back (timeout, REQ) ─────────────────────────┘
//! ```
//!
//! So the order of publishing is kept, whatever waits where (nsqd-protocol.md W25). What came back
//! while there is something on disk takes turns with the disk: a message that is requeued again and
//! again holds nobody up.
//!
//! Limits: `--mem-queue-size` messages in memory, beyond which a queue goes on on disk; what comes
//! back is always taken. With `--mem-queue-size=0` all fresh messages go to disk. Without a disk a
//! queue either drops what does not fit (ephemeral ones) or tells the publisher to wait
//! ([`Backlog::room`]).
//!
//! Messages of one MPUB stay together until one of them is popped, or there is no room for all.
//!
//! The due times of deferred messages are kept beside, for at most [`DUE_TIMES_MAX`] messages.

mod memory;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use self::memory::Memory;
pub use self::memory::Run;
use crate::message::{Bodies, Message, MessageId, RecordId};
use crate::storage::{
    DiskEvent, DiskHeld, DiskOptions, DiskOutput, DiskQueue, Durability, Failure, Found, Op,
    PENDING_MAX, Popped, RequestId, Success, Ticket,
};
use crate::time::{Instant, Now};

/// How many messages of one queue on disk may have a due time. A topic loses those of further ones,
/// as the reference loses all of them; a channel keeps further ones in memory. Some 60 bytes each.
pub const DUE_TIMES_MAX: usize = 100_000;

/// What a backlog asks of its owner.
pub trait BacklogOutput: DiskOutput {
    /// A record with this ticket is about to be pushed: one more outcome is to come.
    fn hold(&mut self, ticket: Ticket);
    /// Where small bodies are copied to.
    fn bodies(&mut self) -> &mut Bodies;
}

/// Where messages go for which there is no room in memory.
#[derive(Clone, Copy, Debug)]
pub enum Beyond {
    /// Nowhere: they are dropped, as befits an ephemeral queue.
    Dropped,
    /// To the disk, which is asked what there is.
    Disk(DiskOptions),
    /// To the disk; what there is somebody has looked at, and says next.
    LookedAt(DiskOptions),
    /// There is no disk: whoever publishes waits.
    Nowhere,
    /// To the disk, where nothing is yet, as somebody knows who has looked.
    Unused(DiskOptions),
}

#[derive(Debug)]
enum Rest {
    Dropped,
    Disk(Box<DiskQueue>),
    Nowhere,
    /// To the disk, where nothing is or was: most queues never need theirs, and it is not small.
    Unused(DiskOptions),
}

impl Rest {
    const fn is_disk(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Unused(_))
    }

    /// The disk, if there is one.
    fn disk(&mut self) -> Option<&mut DiskQueue> {
        if let Self::Unused(options) = *self {
            *self = Self::Disk(Box::new(DiskQueue::unused(options)));
        }
        if let Self::Disk(disk) = self { Some(disk) } else { None }
    }
}

/// Messages that wait.
#[derive(Debug)]
pub(super) struct Backlog {
    memory: Memory,
    limit: usize,
    rest: Rest,
    /// How many of those in memory are older than all on disk.
    older: usize,
    /// Whether it is the disk's turn, and not that of what came back.
    disk_is_next: bool,
    /// When the deferred ones among them are due.
    due_times: BTreeMap<MessageId, Due>,
}

/// When a message is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// If the disk may still refuse it: the publish, which is refused then.
    ticket: Option<Ticket>,
}

impl Backlog {
    /// An empty backlog; one with a disk learns what is there. `limit` is `--mem-queue-size`.
    pub(super) fn new(limit: usize, beyond: Beyond, out: &mut impl DiskOutput) -> Self {
        let rest = match beyond {
            Beyond::Dropped => Rest::Dropped,
            Beyond::Disk(options) => Rest::Disk(Box::new(DiskQueue::open(options, out))),
            Beyond::LookedAt(options) => Rest::Disk(Box::new(DiskQueue::looked_at(options))),
            Beyond::Nowhere => Rest::Nowhere,
            Beyond::Unused(options) => Rest::Unused(options),
        };
        // Without a disk a queue needs room for one message, or nothing would ever wait in it.
        let limit = if rest.is_disk() { limit } else { limit.max(1) };
        Self {
            memory: Memory::new(),
            limit,
            rest,
            older: 0,
            disk_is_next: false,
            due_times: BTreeMap::new(),
        }
    }

    /// How many fresh messages it takes before the publisher should wait.
    pub(super) fn room(&self) -> usize {
        let memory = self.limit.saturating_sub(self.memory.len());
        match &self.rest {
            Rest::Dropped => usize::MAX,
            Rest::Nowhere => memory,
            Rest::Disk(disk) if disk.is_empty() => memory.saturating_add(disk.room()),
            Rest::Disk(disk) => disk.room(),
            Rest::Unused(_) => memory.saturating_add(PENDING_MAX),
        }
    }

    /// How many messages it takes that somebody else keeps until they are written or finished. The
    /// disk may refuse all the while.
    pub(super) fn room_for_kept(&self) -> usize {
        match &self.rest {
            Rest::Disk(disk) if disk.is_empty() => {
                let memory = self.limit.saturating_sub(self.memory.len());
                memory.saturating_add(disk.room_for_kept())
            }
            Rest::Disk(disk) => disk.room_for_kept(),
            Rest::Dropped | Rest::Nowhere | Rest::Unused(_) => self.room(),
        }
    }

    /// How many fresh messages it takes without asking the disk for anything.
    pub(super) fn memory_room(&self) -> usize {
        match &self.rest {
            Rest::Dropped | Rest::Nowhere => usize::MAX,
            Rest::Disk(disk) if !disk.is_empty() => 0,
            Rest::Disk(_) | Rest::Unused(_) => self.limit.saturating_sub(self.memory.len()),
        }
    }

    /// Whether fresh messages go to disk before anything else happens to them.
    pub(super) const fn is_disk_first(&self) -> bool {
        self.rest.is_disk() && self.limit == 0
    }

    /// Whether a message that is to go to disk can have a due time.
    pub(super) fn takes_due_times(&self) -> bool {
        self.due_times.len() < DUE_TIMES_MAX
    }

    /// Takes a fresh message. If it goes to disk, the outcome is told under `ticket`; returns
    /// whether it may still be refused then.
    pub(super) fn put(
        &mut self,
        message: Message,
        due: Option<Instant>,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl BacklogOutput,
    ) -> bool {
        let is_full = self.memory.len() >= self.limit;
        if (is_full || matches!(&self.rest, Rest::Disk(disk) if !disk.is_empty()))
            && let Some(disk) = self.rest.disk()
        {
            if let Some(due) = due
                && self.due_times.len() < DUE_TIMES_MAX
            {
                self.due_times.insert(message.id, Due { at: due, ticket });
            }
            if disk.is_empty() {
                self.older = self.memory.len();
            }
            if let Some(ticket) = ticket {
                out.hold(ticket);
            }
            disk.push(&message, ticket, now, out);
            return ticket.is_some_and(|ticket| !ticket.is_kept());
        }
        if let Some(at) = due {
            self.due_times.insert(message.id, Due { at, ticket: None });
        }
        self.memory.push_back(message);
        false
    }

    /// Takes fresh messages of which [`memory_room`](Self::memory_room) says that they fit.
    pub(super) fn put_run(&mut self, run: Run) {
        self.memory.push_run(run);
    }

    /// Takes a message back that had been popped, behind those in memory.
    pub(super) fn put_back(&mut self, message: Message) {
        self.memory.push_back(message);
    }

    /// Drops what came last and does not fit, if that is what becomes of it. To be called once what
    /// somebody can have now is popped.
    pub(super) fn drop_excess(&mut self) {
        if matches!(self.rest, Rest::Dropped) {
            self.memory.truncate(self.limit, |id| {
                self.due_times.remove(&id);
            });
        }
    }

    /// Takes a message back that was popped last and could not be handed on.
    pub(super) fn undo_pop(&mut self, message: Message) {
        self.memory.push_front(message);
        self.older += 1;
    }

    /// Takes out the next message, and when it is due if it is deferred. `None` if there is none,
    /// or if it has to be read first: then [`handle`](Self::handle) brings it.
    pub(super) fn pop(
        &mut self,
        now: Now,
        out: &mut impl BacklogOutput,
    ) -> Option<(Message, Option<Instant>)> {
        let from_disk = match &mut self.rest {
            // Asked also if what came back could be had at once, or it would never be read.
            Rest::Disk(disk)
                if !disk.is_empty()
                    && self.older == 0
                    && (self.disk_is_next || self.memory.is_empty()) =>
            {
                disk.pop(now, out)
            }
            Rest::Dropped | Rest::Disk(_) | Rest::Nowhere | Rest::Unused(_) => None,
        };
        self.disk_is_next = from_disk.is_none();
        let (message, mut due) = match from_disk {
            Some(Popped { message, due }) => (message, due),
            None => {
                self.older = self.older.saturating_sub(1);
                (self.memory.pop_front(out.bodies())?, None)
            }
        };
        if !self.due_times.is_empty() {
            due = self.due_times.remove(&message.id).map(|due| due.at).or(due);
        }
        Some((message, due))
    }

    /// Takes out the run of messages that is next, if there is one, nothing else is to be
    /// considered, and it has at most `max` messages.
    pub(super) fn pop_run(&mut self, max: usize) -> Option<Run> {
        if self.on_disk() > 0 || !self.due_times.is_empty() {
            return None;
        }
        let run = self.memory.pop_run(max)?;
        self.older = self.older.saturating_sub(run.list.len());
        Some(run)
    }

    /// The disk need not keep this message any longer.
    pub(super) fn finish(&mut self, record: Option<RecordId>, now: Now, out: &mut impl DiskOutput) {
        if let Some(record) = record
            && let Rest::Disk(disk) = &mut self.rest
        {
            disk.finish(record, now, out);
        }
    }

    /// A request of the disk's part was carried out, or failed. Returns how many messages are
    /// certain now that might have been refused ([`put`](Self::put)).
    pub(super) fn handle(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) -> u64 {
        let mut out = Certain::new(&self.due_times, out);
        if let Rest::Disk(disk) = &mut self.rest {
            disk.handle(id, result, now, &mut out);
        }
        let Certain { count, mut refused, .. } = out;
        if !refused.is_empty() {
            // There may be thousands of them, and a hundred thousand due times.
            refused.sort_unstable();
            let is_refused = |ticket| refused.binary_search(&ticket).is_ok();
            self.due_times.retain(|_, due| !due.ticket.is_some_and(is_refused));
        }
        self.leave_unused();
        count
    }

    /// What the disk has, if it was looked at before ([`Beyond::LookedAt`]).
    pub(super) fn handle_found(&mut self, found: &Found, now: Now, out: &mut impl DiskOutput) {
        if let Rest::Disk(disk) = &mut self.rest {
            disk.handle_found(found, now, out);
        }
        self.leave_unused();
    }

    /// Gives the memory back of a disk's part that is as if it had never been used.
    fn leave_unused(&mut self) {
        if let Rest::Disk(disk) = &self.rest
            && disk.is_unused()
        {
            self.rest = Rest::Unused(disk.options());
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut impl DiskOutput) {
        if let Rest::Disk(disk) = &mut self.rest
            && disk.poll_timeout().is_some_and(|at| at <= now.instant)
        {
            disk.handle_timeout(now, out);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let Rest::Disk(disk) = &self.rest { disk.poll_timeout() } else { None }
    }

    /// Drops everything. Returns how many messages among it are certain now that might have been
    /// refused: their publishers are told that they were accepted.
    pub(super) fn empty(&mut self, now: Now, out: &mut impl DiskOutput) -> u64 {
        self.forget();
        let mut out = Certain::new(&self.due_times, out);
        if let Rest::Disk(disk) = &mut self.rest {
            disk.empty(now, &mut out);
        }
        out.count
    }

    /// Drops everything and removes the files. It takes nothing any more.
    pub(super) fn delete(&mut self, out: &mut impl DiskOutput) {
        self.forget();
        if let Some(disk) = self.rest.disk() {
            disk.delete(out);
            self.rest = Rest::Dropped;
        }
    }

    /// Has everything written to disk, `deferred` behind what waits. Nothing may be put or popped
    /// any more; it is done when [`is_flushed`](Self::is_flushed). A disk that refuses is given up
    /// at `until`. A queue that has nothing, on disk or in
    /// memory, leaves nothing: without files it is read as an empty one (storage-formats.md section
    /// 5).
    pub(super) fn flush(
        &mut self,
        deferred: impl Iterator<Item = (Message, Instant)>,
        until: Instant,
        now: Now,
        out: &mut impl BacklogOutput,
    ) {
        let mut deferred = deferred.peekable();
        if matches!(self.rest, Rest::Unused(_))
            && self.memory.is_empty()
            && deferred.peek().is_none()
        {
            return;
        }
        let Some(disk) = self.rest.disk() else { return };
        while let Some(message) = self.memory.pop_front(out.bodies()) {
            disk.push_again(&message, now, out);
        }
        for (message, due) in deferred {
            disk.push_again(&message, now, out);
            self.due_times.insert(message.id, Due { at: due, ticket: None });
        }
        let due_times = core::mem::take(&mut self.due_times).into_iter();
        let due_times: Vec<_> = due_times.map(|(id, due)| (id, due.at)).collect();
        disk.close(&due_times, until, now, out);
    }

    /// Waits for the disk no longer: what it has not written is lost.
    pub(super) fn abandon(&mut self, failure: Failure, out: &mut impl DiskOutput) {
        let in_memory = self.memory.len();
        if (in_memory > 0 || matches!(self.rest, Rest::Disk(_)))
            && let Some(disk) = self.rest.disk()
        {
            disk.abandon(in_memory, failure, out);
        }
    }

    /// Whether everything that [`flush`](Self::flush) asked for is done.
    pub(super) fn is_flushed(&self) -> bool {
        if let Rest::Disk(disk) = &self.rest { disk.is_closed() } else { true }
    }

    /// The trouble that the disk is in, if it is.
    pub(super) fn failure(&self) -> Option<&Failure> {
        if let Rest::Disk(disk) = &self.rest { disk.failure() } else { None }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.on_disk() == 0
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> u64 {
        self.memory.len() as u64 + self.on_disk()
    }

    /// How many of them are on disk.
    pub(super) fn on_disk(&self) -> u64 {
        if let Rest::Disk(disk) = &self.rest { disk.depth() } else { 0 }
    }

    /// How many of them are deferred.
    pub(super) fn deferred(&self) -> usize {
        self.due_times.len()
    }

    /// How many of those in memory were never delivered.
    pub(super) fn fresh(&self) -> usize {
        self.memory.fresh()
    }

    /// What its disk holds in memory, if it has one.
    pub(super) fn disk_held(&self) -> Option<DiskHeld> {
        if let Rest::Disk(disk) = &self.rest { Some(disk.held()) } else { None }
    }

    /// Drops what is in memory, and gives its memory back.
    fn forget(&mut self) {
        (self.memory, self.due_times, self.older) = (Memory::new(), BTreeMap::new(), 0);
    }

    /// For how many messages there is room without an allocation.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.memory.capacity()
    }
}

/// Looks at what becomes of the records of publishers, on its way to the owner.
struct Certain<'a, O> {
    /// How many were written.
    count: u64,
    /// Whose were refused, if anybody wants to know.
    refused: Vec<Ticket>,
    is_wanted: bool,
    out: &'a mut O,
}

impl<'a, O> Certain<'a, O> {
    fn new(due_times: &BTreeMap<MessageId, Due>, out: &'a mut O) -> Self {
        Self { count: 0, refused: Vec::new(), is_wanted: !due_times.is_empty(), out }
    }
}

impl<O: DiskOutput> DiskOutput for Certain<'_, O> {
    fn ask(&mut self, op: Op) -> RequestId {
        self.out.ask(op)
    }

    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>) {
        self.count += u64::from(result.is_ok() && !ticket.is_kept());
        if result.is_err() && self.is_wanted && self.refused.last() != Some(&ticket) {
            self.refused.push(ticket);
        }
        self.out.stored(ticket, result);
    }

    fn event(&mut self, event: DiskEvent) {
        self.out.event(event);
    }
}

#[cfg(test)]
mod tests;
