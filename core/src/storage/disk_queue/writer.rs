//! The end of a queue: what is pushed gathers while an append is under way, then goes out as the
//! next.

use alloc::vec;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::meta::Position;
use super::reader::Staged;
use super::trouble::Work;
use super::{Asked, DiskOutput, DiskQueue, Popped, STAGED_LEN_MAX, record};
use crate::message::{COPY_LEN_MAX, Message, RecordId};
use crate::storage::{Durability, Failure, FailureKind, File, Op, Success, Ticket};
use crate::time::Now;

/// Bytes of records in one append. One record alone may be larger.
pub(super) const APPEND_LEN_MAX: u64 = 1024 * 1024;

/// What is written to see whether a disk has room again: a block, so that room at the end of one
/// does not pass for it. No reader takes zeros for a record.
static PROBE: [u8; 4096] = [0; 4096];

/// A record that is not written yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) message: Message,
    pub(super) ticket: Option<Ticket>,
    /// The record that it had before: finished when this one is written.
    pub(super) replaces: Option<RecordId>,
}

impl Pending {
    /// Whether it is on disk already: here, or with whoever keeps it until it is.
    pub(super) fn is_kept(&self) -> bool {
        self.replaces.is_some() || self.ticket.is_some_and(Ticket::is_kept)
    }
}

/// The append that is under way: the first records that are pending.
#[derive(Debug)]
pub(super) struct Append {
    at: Position,
    len: u64,
    records: usize,
    /// The queue was emptied meanwhile.
    pub(super) is_dropped: bool,
    /// It counts for nothing, and is to be cut off: it went behind something of which nobody knows
    /// whether the disk has it and is done again in another file, or it is a probe.
    pub(super) is_void: bool,
}

impl DiskQueue {
    /// Takes a record to be written.
    pub(super) fn put(
        &mut self,
        message: &Message,
        ticket: Option<Ticket>,
        replaces: Option<RecordId>,
        out: &mut impl DiskOutput,
    ) {
        if message.body.len() > record::BODY_LEN_MAX {
            // No frame can carry it either.
            if let Some(ticket) = ticket {
                let text = alloc::boxed::Box::from("the message is too big for a record");
                out.stored(ticket, Err(&Failure { kind: FailureKind::Other, text }));
            }
            return;
        }
        self.pending_len += record::len(message);
        let message = Message { record: None, ..message.clone() };
        self.pending.push_back(Pending { message, ticket, replaces });
    }

    /// Whether the first record that is not written may be popped all the same: it is the first of
    /// all, the disk does not take it, and nobody was promised that it lasts here: either nobody
    /// was promised anything, or somebody else keeps it.
    pub(super) fn can_take_pending(&self) -> bool {
        self.troubles.has(Work::Append)
            && self.append.is_none()
            && self.staged.is_empty()
            && !self.has_unfetched()
            && self
                .pending
                .front()
                .is_some_and(|pending| pending.ticket.is_none_or(Ticket::is_kept))
    }

    pub(super) fn take_pending(&mut self) -> Option<Popped> {
        if !self.can_take_pending() {
            return None;
        }
        let Pending { mut message, ticket, .. } = self.pending.pop_front()?;
        self.pending_len -= record::len(&message);
        message.record = ticket.map(|ticket| self.lent.lend(ticket));
        Some(Popped { message, due: None })
    }

    /// Writes what is pending, as much as goes into one append.
    pub(super) fn start_append(&mut self, now: Now, out: &mut impl DiskOutput) {
        if self.append.is_some() || self.troubles.waits(Work::Append) {
            return;
        }
        let Some(first) = self.pending.front() else {
            // Everybody was told that it failed. Whether it works again has to be found out without
            // them, because there is no room for others until then.
            if self.troubles.has(Work::Append) && !self.is_closing() {
                self.probe(out);
            }
            return;
        };
        let max = self.options.max_bytes_per_file;
        let is_full = self.write.offset.saturating_add(record::len(&first.message)) > max;
        if self.write.offset > 0 && (self.must_roll || is_full) {
            if self.is_tail_dirty {
                self.cut_tail(out);
                return;
            }
            self.must_roll = true;
            self.roll();
            self.is_sync_due = true;
            self.start_sync(now, out);
        }
        let (mut records, mut len, mut copied) = (0, 0, 0);
        for Pending { message, .. } in &self.pending {
            let record = record::len(message);
            let fits = self.write.offset.saturating_add(len + record) <= max;
            if records > 0 && (!fits || len + record > APPEND_LEN_MAX) {
                break;
            }
            records += 1;
            len += record;
            copied += record::HEADER_LEN + copied_len(message);
        }
        let data =
            encode(self.pending.iter().take(records).map(|pending| &pending.message), copied);
        let Position { file, offset } = self.write;
        self.append =
            Some(Append { at: self.write, len, records, is_dropped: false, is_void: false });
        self.ask(Asked::Append, Op::Append { file, offset, data, sync: false }, out);
    }

    /// Begins a new file if that has to be, as soon as the old one is whole.
    pub(super) const fn roll(&mut self) {
        if self.must_roll && self.append.is_none() && !self.is_tail_dirty {
            self.must_roll = false;
            if self.write.offset > 0 {
                self.write = Position { file: self.write.file + 1, offset: 0 };
            }
        }
    }

    /// Whether everything that was pushed is written, and nothing is behind it.
    pub(super) fn is_written(&self) -> bool {
        self.pending.is_empty() && self.append.is_none() && !self.is_tail_dirty
    }

    /// Cuts off what a failed append may have left behind the write position.
    pub(super) fn cut_tail(&mut self, out: &mut impl DiskOutput) {
        if self.append.is_some() || self.troubles.waits(Work::Append) {
            return;
        }
        let Position { file, offset } = self.write;
        self.append =
            Some(Append { at: self.write, len: 0, records: 0, is_dropped: false, is_void: false });
        let op = if offset == 0 {
            Op::Remove { file: File::Data(file) }
        } else {
            Op::Append { file, offset, data: Vec::new(), sync: false }
        };
        self.ask(Asked::Append, op, out);
    }

    /// Writes something behind the write position that is no record: only that shows that a full
    /// disk has room again. It is cut off, or written over, by what comes next.
    fn probe(&mut self, out: &mut impl DiskOutput) {
        let Position { file, offset } = self.write;
        self.append =
            Some(Append { at: self.write, len: 0, records: 0, is_dropped: false, is_void: true });
        let data = vec![Bytes::from_static(&PROBE)];
        self.ask(Asked::Append, Op::Append { file, offset, data, sync: false }, out);
    }

    pub(super) fn handle_append(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let Some(append) = self.append.take() else { return };
        match result {
            Ok(_) => {
                self.clear(Work::Append, out);
                if append.is_void && !append.is_dropped {
                    self.is_tail_dirty = true;
                    if self.pending.is_empty() {
                        self.cut_tail(out);
                    }
                } else if !append.is_dropped {
                    self.append_done(append, now, out);
                }
            }
            Err(failure) if append.is_dropped => self.fail(Work::Append, failure, now, out),
            Err(failure) => {
                self.is_tail_dirty = true;
                if failure.kind == FailureKind::Missing && append.at.offset > 0 {
                    // Somebody removed the file; what comes goes to another one.
                    (self.is_tail_dirty, self.must_roll) = (false, true);
                }
                // Those who wait for an outcome are told now; what nobody else has stays.
                let pending_len = &mut self.pending_len;
                self.pending.retain(|Pending { message, ticket, .. }| {
                    let Some(ticket) = ticket.filter(|ticket| !ticket.is_kept()) else {
                        return true;
                    };
                    out.stored(ticket, Err(&failure));
                    *pending_len -= record::len(message);
                    false
                });
                self.fail(Work::Append, failure, now, out);
                self.leave_kept(out);
                self.make_more_room(out);
            }
        }
    }

    fn append_done(&mut self, append: Append, now: Now, out: &mut impl DiskOutput) {
        let Append { at, len, records, .. } = append;
        self.is_tail_dirty = false;
        if records == 0 {
            return;
        }
        let is_caught_up = self.fetch_position() == at;
        self.files.grow(at.file, len);
        self.write = Position { file: at.file, offset: at.offset + len };
        self.pending_len -= len;
        self.written += records as u64;
        self.unread += records as u64;
        self.unsynced = Some(self.unsynced.map_or(at.file, |file| file.min(at.file)));

        let places = records * size_of::<Staged>();
        let fits = self.staged_len.saturating_add(len as usize + places) <= STAGED_LEN_MAX;
        let is_staged = self.is_wanted && is_caught_up && fits;
        let (mut position, mut replaced) = (at, 0);
        for Pending { message, ticket, replaces } in self.pending.drain(..records) {
            if replaces.is_some_and(|record| self.outstanding.remove(record)) {
                replaced += 1;
            }
            if let Some(ticket) = ticket {
                out.stored(ticket, Ok(Durability::Written));
            }
            if is_staged {
                let len = record::len(&message);
                self.staged_len += Staged::charge(&message);
                self.staged.push_back(Staged { message, position });
                position.offset += len;
            }
        }
        if is_staged {
            (self.fetched, self.fetch_len) = (self.write, 0);
        } else if !self.staged.is_empty() {
            // Whoever reads is behind; the rest is read when what is staged runs out.
            self.is_wanted = false;
        }
        self.touch(records as u64 + replaced, now);
    }
}

/// How many bytes of a body are copied: all of a small one.
const fn copied_len(message: &Message) -> usize {
    if message.body.len() > COPY_LEN_MAX { 0 } else { message.body.len() }
}

/// The bytes of records: headers and small bodies together, large bodies as they are.
fn encode<'a>(messages: impl Iterator<Item = &'a Message>, copied: usize) -> Vec<Bytes> {
    let mut buffer = BytesMut::with_capacity(copied);
    let mut data = Vec::new();
    for message in messages {
        record::push_header(&mut buffer, message);
        if copied_len(message) == 0 && !message.body.is_empty() {
            data.push(buffer.split().freeze());
            data.push(message.body.clone());
        } else {
            buffer.extend_from_slice(&message.body);
        }
    }
    if !buffer.is_empty() {
        data.push(buffer.freeze());
    }
    data
}
