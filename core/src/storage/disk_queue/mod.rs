//! The queue of a topic or channel on disk (storage-formats.md sections 4 to 9 and 12).
//!
//! ```text
//!   outstanding   staged      on disk only     pending
//!   ------------+-----------+----------------+-----------------
//!               ^ read      ^ fetched        ^ write position
//!   popped, not   in memory                    in memory: the first of them in
//!   finished                                   an append, the others gather
//! ```
//!
//! Records are in one order from the oldest that is popped and not *finished* to the youngest that
//! is not written yet. What is kept on disk is the part up to the write position; the *meta file*
//! says from the oldest outstanding record on, so that after a crash everything unfinished comes
//! again.
//!
//! - **Writing** ([`writer`]): one append at a time; what is pushed meanwhile goes into the next
//!   one. A failed append is told to those publishers whose records it had, and tried again for
//!   ever with the rest.
//! - **Reading** ([`reader`]): ahead, in chunks, when somebody pops. What was just appended is
//!   taken from memory if the reader has caught up and waits. Behind bytes that are no record it
//!   [searches](search) for the next one.
//! - **Syncing** ([`sync`]): after `sync_every` records written or finished, or `sync_timeout`;
//!   data before the meta file; data files are removed after the meta file that no longer needs
//!   them.
//! - **Trouble** ([`trouble`]): each kind of work is tried again on its own, after 100 ms and then
//!   after twice the time as before, up to 5 s. Nothing that could be read some day is given up.
//! - **Room** ([`relief`]): on a full disk data files go before the meta file says so, and what
//!   somebody else keeps is handed out before it is written ([`lent`]).
//! - **Opening** ([`open`]): what is there counts, not what should be there.
//!
//! An idle queue has no timer, and no memory beyond the struct. The limits are [`PENDING_MAX`],
//! [`PENDING_LEN_MAX`], [`APPEND_LEN_MAX`](writer::APPEND_LEN_MAX), [`STAGED_LEN_MAX`] and
//! [`OUTSTANDING_MAX`](outstanding::OUTSTANDING_MAX).

mod close;
mod deferred;
mod event;
mod files;
mod lent;
mod meta;
mod open;
mod outstanding;
mod reader;
mod record;
mod relief;
mod search;
mod sync;
mod trouble;
mod writer;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

pub use self::close::CLOSE_PATIENCE;
use self::close::Closing;
use self::deferred::Dues;
pub use self::event::DiskEvent;
use self::files::DataFiles;
use self::lent::Lent;
use self::meta::{Meta, Position};
use self::outstanding::Outstanding;
use self::reader::{Reading, Scan, Staged};
pub use self::record::Damage;
use self::search::Search;
use self::sync::Sync;
use self::trouble::{Troubles, Work};
use self::writer::{Append, Pending};
use super::{Durability, Failure, FailureKind, Found, Op, RequestId, Success, Ticket};
use crate::message::{Bodies, Message, RecordId};
use crate::time::{Instant, Now};

/// Records that may be pushed and not yet written before [`DiskQueue::room`] is 0.
pub const PENDING_MAX: usize = 4096;

/// Bytes of such records before [`DiskQueue::room`] is 0. One batch may go beyond.
pub const PENDING_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of records that are kept in memory to be popped, their places in lists included. One
/// record alone may be larger.
pub const STAGED_LEN_MAX: usize = 256 * 1024;

/// What an operator decides about queues on disk; see [`Config`](crate::nsqd::Config).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskOptions {
    /// Before a data file would grow beyond this, in bytes, the next one is begun. A record that
    /// alone is larger gets a file of its own.
    pub max_bytes_per_file: u64,
    /// Sync after so many records written or finished; 0 means 1.
    pub sync_every: u64,
    /// Sync at the latest so long after a record was written or finished.
    pub sync_timeout: Duration,
    /// The largest body that clients may publish now, in bytes. Larger records are read all the
    /// same; it only tells the start of a record at the end of a file from garbage.
    pub max_msg_size: usize,
    /// The longest time for which a message may be deferred.
    pub max_delay: Duration,
}

/// A message that comes back from the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Popped {
    /// The message, with its record; without one if the disk is in trouble and nobody has written
    /// it.
    pub message: Message,
    /// Not to be delivered before this time: it was deferred when the queue was closed.
    pub due: Option<Instant>,
}

/// What a queue holds in memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskHeld {
    /// Records that are not written yet.
    pub unwritten: usize,
    /// Their bytes.
    pub unwritten_len: u64,
    /// Bytes that were read ahead, places in lists included; limit [`STAGED_LEN_MAX`].
    pub read_ahead_len: usize,
}

/// What a queue asks of its owner.
pub trait DiskOutput {
    /// Have this done. Returns the id of the request, with which its outcome goes to
    /// [`DiskQueue::handle`].
    fn ask(&mut self, op: Op) -> RequestId;
    /// How safe a record is now that was pushed with a ticket; once for each such record. A queue
    /// on disk never says more than [`Durability::Written`], unless nobody needs the record any
    /// more: one that is finished, or removed by [`DiskQueue::empty`], is as safe as its ticket
    /// asks. If it failed, the record is not in the queue (its bytes may still be found after a
    /// crash, as a publish that is refused may have happened).
    fn stored(&mut self, ticket: Ticket, result: Result<Durability, &Failure>);
    /// For the log.
    fn event(&mut self, event: DiskEvent);
}

/// A queue of messages on disk: a machine that asks for reads and writes and never waits for them.
#[derive(Debug)]
pub struct DiskQueue {
    options: DiskOptions,
    phase: Phase,
    /// What is asked and not completed, in the order of asking.
    asked: VecDeque<(RequestId, Asked)>,
    troubles: Troubles,

    /// The data files that are needed, or not removed yet.
    files: DataFiles,
    /// Where the next record goes. Behind what is written, not behind what is being written.
    write: Position,
    pending: VecDeque<Pending>,
    pending_len: u64,
    append: Option<Append>,
    /// Records written since the queue was opened.
    written: u64,
    /// Behind the write position there may be a part of an append that failed.
    is_tail_dirty: bool,
    /// The next record goes to a new file in any case.
    must_roll: bool,
    /// The disk had no room for something since everything was finished last.
    had_no_room: bool,

    staged: VecDeque<Staged>,
    staged_len: usize,
    bodies: Bodies,
    /// Up to here everything was staged.
    fetched: Position,
    /// The bytes that are needed at `fetched` to go on.
    fetch_len: usize,
    reading: Option<Reading>,
    /// Behind `fetched`, or where records are counted, it is not known where the next record
    /// begins.
    search: Option<Box<Search>>,
    /// The record here is one, as a search found.
    trusted: Option<Position>,
    /// The read that ended last passed over something.
    has_passed: bool,
    /// Somebody found nothing to pop and will try again.
    is_wanted: bool,
    /// Records between the read and the write position, as far as is known.
    unread: u64,
    outstanding: Outstanding,
    /// Records popped since the queue was opened.
    popped: u64,
    lent: Lent,
    dues: Option<Box<Dues>>,

    sync: Sync,
    /// Records written or finished since the last sync began.
    touched: u64,
    sync_at: Option<Instant>,
    is_sync_due: bool,
    /// The first data file that was appended to since the last sync began.
    unsynced: Option<u64>,
    /// The last data file of which a sync failed: nobody knows what the disk has of it.
    suspect: Option<u64>,
    /// What the meta file holds, if it is known.
    meta: Option<Meta>,
    has_side_file: bool,
    closing: Option<Box<Closing>>,
}

#[derive(Debug)]
enum Phase {
    Opening,
    /// Records are counted that the meta file does not know of.
    Counting(Scan),
    Open,
    /// Nothing is asked any more.
    Closed,
    Deleted,
}

/// A request whose completion is to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Append,
    /// Nothing depends on it.
    Discard,
    /// A data file is removed to make room.
    Relief,
    Meta,
    Open,
    Read,
    RemoveAll,
    SideFile,
    Sync,
}

impl DiskQueue {
    /// Opens the queue; asks for [`Op::Open`]. Until that is completed nothing is popped, and what
    /// is pushed gathers.
    pub fn open(options: DiskOptions, out: &mut impl DiskOutput) -> Self {
        let mut queue = Self::looked_at(options);
        queue.ask(Asked::Open, Op::Open, out);
        queue
    }

    /// A queue of which somebody has looked at what there is: it asks for nothing and is as if it
    /// were being opened, until [`handle_found`](Self::handle_found) says it.
    pub fn looked_at(options: DiskOptions) -> Self {
        Self { phase: Phase::Opening, ..Self::unused(options) }
    }

    /// A queue that is known to have nothing on disk: one that [`is_unused`](Self::is_unused) was
    /// true of.
    pub fn unused(options: DiskOptions) -> Self {
        Self {
            options,
            phase: Phase::Open,
            asked: VecDeque::new(),
            troubles: Troubles::default(),
            files: DataFiles::default(),
            write: Position::default(),
            pending: VecDeque::new(),
            pending_len: 0,
            append: None,
            written: 0,
            is_tail_dirty: false,
            must_roll: false,
            had_no_room: false,
            staged: VecDeque::new(),
            staged_len: 0,
            bodies: Bodies::default(),
            fetched: Position::default(),
            fetch_len: 0,
            reading: None,
            search: None,
            trusted: None,
            has_passed: false,
            is_wanted: false,
            unread: 0,
            outstanding: Outstanding::new(),
            popped: 0,
            lent: Lent::new(),
            dues: None,
            sync: Sync::Idle,
            touched: 0,
            sync_at: None,
            is_sync_due: false,
            unsynced: None,
            suspect: None,
            meta: None,
            has_side_file: false,
            closing: None,
        }
    }

    /// What the operator decided.
    pub const fn options(&self) -> DiskOptions {
        self.options
    }

    /// Whether there is nothing on disk, nor was, and nothing is being done: the queue need not be
    /// kept, and [`unused`](Self::unused) makes it again. A meta file that says just that may be
    /// there.
    pub fn is_unused(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && self.write == Position::default()
            && self.files.0.is_empty()
            && self.is_empty()
            && self.asked.is_empty()
            && self.troubles.failure().is_none()
            && self.outstanding.oldest().is_none()
            && self.lent.is_empty()
            && self.meta.is_none_or(|meta| meta == Meta::default())
            && self.sync_at.is_none()
            && !self.is_sync_due
            && !self.has_side_file
            && self.closing.is_none()
    }

    /// Puts a message at the end. If it has a record of this queue, it takes the place of that,
    /// which is finished when the message is written. Never fails at once: look at
    /// [`room`](Self::room) before, for messages that somebody else keeps as long as there is none.
    /// What becomes of it is told to `ticket`; without one it is written some day.
    pub fn push(
        &mut self,
        message: &Message,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        self.put(message, ticket, None, out);
        self.advance(now, out);
    }

    /// Puts a message at the end that was popped from this queue: its record is needed until the
    /// new one is written, if that ever happens.
    pub fn push_again(&mut self, message: &Message, now: Now, out: &mut impl DiskOutput) {
        let ticket = message.record.and_then(|record| self.lent.take(record));
        let replaces = message.record.filter(|_| ticket.is_none());
        self.put(message, ticket, replaces, out);
        self.advance(now, out);
    }

    /// Takes out the first message. `None` if there is none, or if it has to be read or written
    /// first: then try again after the next [`handle`](Self::handle).
    pub fn pop(&mut self, now: Now, out: &mut impl DiskOutput) -> Option<Popped> {
        let popped = self.take(out);
        if popped.is_none() {
            self.is_wanted = true;
            self.advance(now, out);
        }
        popped
    }

    /// The message of `record` needs the disk no longer: it is finished, dropped, or pushed anew.
    /// To be called once for each record. One from before [`empty`](Self::empty) is ignored.
    pub fn finish(&mut self, record: RecordId, now: Now, out: &mut impl DiskOutput) {
        if let Some(ticket) = self.lent.take(record) {
            out.stored(ticket, Ok(ticket.until));
        } else if self.outstanding.remove(record) {
            self.touch(1, now);
            if self.files.0.front().is_some_and(|file| file.number < self.first_needed().file) {
                self.is_sync_due = true;
            }
            self.advance(now, out);
        }
    }

    /// A request was carried out, or failed. One that is none of this queue's is ignored.
    pub fn handle(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        // Most often the first.
        let Some(at) = self.asked.iter().position(|(other, _)| *other == id) else { return };
        let Some((_, asked)) = self.asked.remove(at) else { return };
        if matches!(self.phase, Phase::Closed | Phase::Deleted) {
            return;
        }
        self.note_completion(at);
        match asked {
            Asked::Append => self.handle_append(result, now, out),
            Asked::Discard => {}
            Asked::Relief => self.handle_relief(result.is_ok()),
            Asked::Meta => self.handle_meta(result, now, out),
            Asked::Open => self.handle_open(result, now, out),
            Asked::Read => self.handle_read(result, now, out),
            Asked::RemoveAll => {
                // What could not be removed is out of reach as soon as the meta file says so. If it
                // was removed, there is no meta file, and none has to be written.
                if result.is_ok() {
                    self.clear(Work::Meta, out);
                } else {
                    self.is_sync_due = true;
                }
            }
            Asked::SideFile => self.handle_side_file(result, now, out),
            Asked::Sync => self.handle_sync(result, now, out),
        }
        self.give_up(now, out);
        self.advance(now, out);
    }

    /// What there is, for a queue that was [`looked_at`](Self::looked_at).
    pub fn handle_found(&mut self, found: &Found, now: Now, out: &mut impl DiskOutput) {
        self.lay_out(found, now, out);
        self.advance(now, out);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl DiskOutput) {
        self.troubles.handle_timeout(now.instant);
        if self.sync_at.is_some_and(|at| at <= now.instant) {
            self.sync_at = None;
            self.is_sync_due = true;
        }
        self.give_up(now, out);
        self.advance(now, out);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` while idle.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Closed | Phase::Deleted) {
            return None;
        }
        let close = self.closing.as_ref().map(|closing| closing.until);
        [self.sync_at, self.troubles.next(), close].into_iter().flatten().min()
    }

    /// How many records are not popped, those that are not yet written among them. While the queue
    /// is being opened only the latter are known. An estimate after damage, until it is read to its
    /// end.
    pub fn depth(&self) -> u64 {
        let in_sight = self.staged.len() as u64 + u64::from(self.has_unfetched());
        self.unread.max(in_sight) + self.pending.len() as u64
    }

    /// Whether there is nothing to pop, now or after reading or writing. While the queue is being
    /// opened: whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.pending.is_empty() && !self.has_unfetched()
    }

    /// Whether [`pop`](Self::pop) would give a message now.
    pub fn has_ready(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && !self.is_closing()
            && !self.outstanding.is_full()
            && (!self.staged.is_empty() || self.can_take_pending())
    }

    /// Whether it is not yet known what there is on disk.
    pub const fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Counting(_))
    }

    /// How many fresh messages it takes now; 0 while the disk is in trouble.
    pub fn room(&self) -> usize {
        if self.pending_len >= PENDING_LEN_MAX || self.troubles.holds() {
            return 0;
        }
        PENDING_MAX.saturating_sub(self.pending.len())
    }

    /// How many messages it takes now that somebody else keeps until they are written or finished:
    /// more than [`room`](Self::room) has, while the disk refuses.
    pub fn room_for_kept(&self) -> usize {
        if self.pending_len >= PENDING_LEN_MAX || self.troubles.has(Work::Open) {
            return 0;
        }
        PENDING_MAX.saturating_sub(self.pending.len())
    }

    /// What it holds in memory.
    pub fn held(&self) -> DiskHeld {
        DiskHeld {
            unwritten: self.pending.len(),
            unwritten_len: self.pending_len,
            read_ahead_len: self.staged_len,
        }
    }

    /// Drops everything, what is popped and not finished as well.
    pub fn empty(&mut self, now: Now, out: &mut impl DiskOutput) {
        self.forget(out);
        if matches!(self.phase, Phase::Counting(_)) {
            self.phase = Phase::Open;
        }
        // One that nothing was asked behind does for this one too: a disk that hangs does not pile
        // them up.
        if !matches!(self.asked.back(), Some((_, Asked::RemoveAll))) {
            self.ask(Asked::RemoveAll, Op::RemoveAll, out);
        }
        // What failed is not tried again, since it is not wanted any more, and a queue that is held
        // because of it would get nothing new to try it with.
        for work in [Work::Append, Work::Read, Work::Sync] {
            self.clear(work, out);
        }
        self.advance(now, out);
    }

    /// Removes everything. The owner forgets the queue; completions that are still to come mean
    /// nothing.
    pub fn delete(&mut self, out: &mut impl DiskOutput) {
        self.forget(out);
        self.phase = Phase::Deleted;
        self.ask(Asked::RemoveAll, Op::RemoveAll, out);
    }

    /// The trouble that the disk is in, if it is. After a failed sync it lasts until data that was
    /// written later is synced, or nothing is left of what nobody knows to be on the disk.
    pub fn failure(&self) -> Option<&Failure> {
        self.troubles.failure()
    }

    /// Drops all records, from memory. What is being done goes on; its outcome no longer matters.
    fn forget(&mut self, out: &mut impl DiskOutput) {
        for ticket in self.pending.drain(..).filter_map(|pending| pending.ticket) {
            out.stored(ticket, Ok(ticket.until));
        }
        for ticket in self.lent.take_all() {
            out.stored(ticket, Ok(ticket.until));
        }
        self.pending_len = 0;
        if let Some(append) = &mut self.append {
            append.is_dropped = true;
        }
        if let Some(reading) = &mut self.reading {
            reading.is_stale = true;
        }
        (self.staged, self.staged_len) = (VecDeque::new(), 0);
        self.outstanding.clear();
        self.files = DataFiles::default();
        self.write = Position { file: self.write.file + 1, offset: 0 };
        (self.fetched, self.fetch_len, self.unread) = (self.write, 0, 0);
        (self.search, self.trusted) = (None, None);
        (self.is_tail_dirty, self.must_roll) = (false, false);
        (self.unsynced, self.suspect) = (None, None);
        (self.dues, self.has_side_file, self.meta) = (None, false, None);
        self.sync.forget(self.write);
        (self.sync_at, self.is_sync_due, self.touched) = (None, false, 0);
    }

    /// Does what can be done now.
    fn advance(&mut self, now: Now, out: &mut impl DiskOutput) {
        match self.phase {
            Phase::Opening => self.open_again(out),
            Phase::Counting(_) => self.read_on(out),
            Phase::Open => {
                self.make_room(out);
                self.roll();
                self.start_append(now, out);
                self.start_sync(now, out);
                if self.is_wanted && self.staged.is_empty() {
                    self.read_on(out);
                }
                self.close_on(now, out);
            }
            Phase::Closed | Phase::Deleted => {}
        }
    }

    /// Notes that so many records were written or finished.
    fn touch(&mut self, records: u64, now: Now) {
        self.touched += records;
        if self.touched >= self.options.sync_every.max(1) {
            self.is_sync_due = true;
        } else if self.sync_at.is_none() {
            self.sync_at = Some(now.instant + self.options.sync_timeout);
        }
    }

    /// Where the first record lies that is needed after a crash, and how many records lie from
    /// there to the read position.
    fn needed(&self) -> (Position, u64) {
        match self.outstanding.oldest() {
            Some((position, count)) => (position, self.popped.saturating_sub(count)),
            None => (self.staged.front().map_or(self.fetched, |staged| staged.position), 0),
        }
    }

    /// Where the first record lies that is needed after a crash, in the file that has it.
    fn first_needed(&self) -> Position {
        self.files.normalize(self.needed().0, self.write)
    }

    fn ask(&mut self, asked: Asked, op: Op, out: &mut impl DiskOutput) {
        let id = out.ask(op);
        self.asked.push_back((id, asked));
    }

    /// Whether something of this kind is under way.
    fn has_asked(&self, asked: Asked) -> bool {
        self.asked.iter().any(|(_, other)| *other == asked)
    }

    /// Notes that something failed, and when it is tried again.
    fn fail(&mut self, work: Work, failure: Failure, now: Now, out: &mut impl DiskOutput) {
        if self.troubles.fail(work, failure.clone(), now.instant) {
            out.event(DiskEvent::Failing(failure));
        }
        self.had_no_room |= self.troubles.wants_room();
        self.note_refusal(now);
    }

    /// Notes that something worked.
    fn clear(&mut self, work: Work, out: &mut impl DiskOutput) {
        if self.troubles.clear(work) {
            out.event(DiskEvent::Recovered);
        }
    }
}

/// What to make of the success of another operation.
fn unexpected() -> Failure {
    Failure { kind: FailureKind::Other, text: Box::from("another operation was carried out") }
}
