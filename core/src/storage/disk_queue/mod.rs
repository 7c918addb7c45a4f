//! The queue of a topic or channel on disk (storage-formats.md sections 4 to 9).

mod event;

use alloc::collections::VecDeque;
use core::time::Duration;

pub use self::event::DiskEvent;
use super::{Answer, Failure, Op};
use crate::message::{Message, MessageId, RecordId};
use crate::time::{Instant, Now, UnixNanos};

/// What an operator decides about queues on disk; see [`Config`](crate::nsqd::Config).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskOptions {
    /// A data file is not begun to be written to beyond so many bytes.
    pub max_bytes_per_file: u64,
    /// Sync after so many records written or finished.
    pub sync_every: u64,
    /// Sync at the latest so long after a record was written or finished.
    pub sync_timeout: Duration,
    /// The largest body that clients may publish now, in bytes. Larger records are read all the same.
    pub max_msg_size: usize,
}

/// What the owner calls a publish whose outcome depends on the disk.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// A message that comes back from the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Popped {
    /// The message, with its record.
    pub message: Message,
    /// Not to be delivered before this time: it was deferred when the queue was closed.
    pub due: Option<UnixNanos>,
}

/// What a queue asks of its owner.
pub trait DiskOutput {
    /// Have this done; its outcome goes to [`DiskQueue::handle`], in the order of asking.
    fn ask(&mut self, op: Op);
    /// What became of a record that was pushed with a ticket; once for each such record.
    fn written(&mut self, ticket: Ticket, result: Result<(), &Failure>);
    /// For the log.
    fn event(&mut self, event: DiskEvent);
}

/// A queue of messages on disk: a machine that asks for reads and writes and never waits for them.
#[derive(Debug)]
pub struct DiskQueue {
    records: VecDeque<Message>,
    is_closed: bool,
}

impl DiskQueue {
    /// Opens the queue; asks for [`Op::Open`]. Until that is answered nothing is popped.
    pub fn open(options: DiskOptions, out: &mut impl DiskOutput) -> Self {
        let _ = options;
        out.ask(Op::Open);
        Self { records: VecDeque::new(), is_closed: false }
    }

    /// Puts a message at the end; `message.record` is not looked at. Never fails: look at
    /// [`room`](Self::room) before, for messages that somebody else keeps as long as there is none.
    pub fn push(
        &mut self,
        message: &Message,
        ticket: Option<Ticket>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let _ = now;
        self.records.push_back(message.clone());
        if let Some(ticket) = ticket {
            out.written(ticket, Ok(()));
        }
    }

    /// Takes out the first message. `None` if there is none, or if it has to be read first: then try
    /// again after the next [`handle`](Self::handle).
    pub fn pop(&mut self, now: Now, out: &mut impl DiskOutput) -> Option<Popped> {
        let _ = (now, out);
        self.records.pop_front().map(|message| Popped { message, due: None })
    }

    /// The message of `record` needs the disk no longer: it is finished, dropped, or pushed anew. A
    /// record from before [`empty`](Self::empty) is ignored.
    pub fn finish(&mut self, record: RecordId, now: Now, out: &mut impl DiskOutput) {
        let _ = (record, now, out);
    }

    /// The earliest request that is not answered yet was carried out, or failed.
    pub fn handle(&mut self, result: Result<Answer, Failure>, now: Now, out: &mut impl DiskOutput) {
        let _ = (result, now, out);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl DiskOutput) {
        let _ = (now, out);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` while idle.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// How many records are not popped, those that are not yet written among them.
    pub fn depth(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether there is nothing to pop, now or after reading or writing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether [`pop`](Self::pop) would give a message now.
    pub fn has_ready(&self) -> bool {
        !self.records.is_empty()
    }

    /// How many fresh messages it takes now; 0 while the disk is in trouble.
    pub const fn room(&self) -> usize {
        4096
    }

    /// Drops everything, what is popped and not finished as well.
    pub fn empty(&mut self, now: Now, out: &mut impl DiskOutput) {
        let _ = now;
        self.records.clear();
        out.ask(Op::RemoveAll);
    }

    /// Removes everything. The owner forgets the queue; answers that are still to come mean nothing.
    pub fn delete(&mut self, out: &mut impl DiskOutput) {
        self.records.clear();
        out.ask(Op::RemoveAll);
    }

    /// Writes out what is there, and `deferred`: which of the records are due when. Nothing may be
    /// pushed or popped any more; it is done when [`is_closed`](Self::is_closed).
    pub fn close(
        &mut self,
        deferred: &[(MessageId, UnixNanos)],
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let _ = (deferred, now, out);
        self.is_closed = true;
    }

    /// Whether everything that [`close`](Self::close) asked for is answered.
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The trouble that the disk is in, if it is.
    pub const fn failure(&self) -> Option<&Failure> {
        None
    }
}
