//! Making it last: data files are synced, then the meta file is replaced, then what it no longer
//! needs is removed (storage-formats.md section 6).
//!
//! If a data file cannot be synced, nobody knows what the disk has of it, and a repeated sync that
//! succeeds proves nothing. Then writing goes on in a new file, what the old one has is read from
//! there as long as it can be, and the trouble lasts until something that was written later is
//! synced, or until the old file is not needed any more. No publisher is told anything: an answer
//! never meant that a message is synced.

use bytes::Bytes;

use super::meta::{Meta, Position};
use super::trouble::Work;
use super::{Asked, DiskOutput, DiskQueue};
use crate::storage::{Failure, File, Op, Success};
use crate::time::Now;

/// Bytes of finished records that a queue keeps because it writes on behind them. With that many it
/// goes on in the next file, if nothing else is in this one: what is left lying about in one queue
/// is room that another one may need.
const LEFT_LEN_MAX: u64 = 64 * 1024;

/// How far a sync is.
#[derive(Debug)]
pub(super) enum Sync {
    Idle,
    /// Data files are being synced.
    Data {
        /// How many completions are to come.
        left: usize,
        /// How many came that were good.
        synced: usize,
        failure: Option<Failure>,
        upto: Upto,
    },
    /// The meta file is being replaced.
    Meta(Meta),
}

/// What a sync is about: everything that was written when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upto {
    write: Position,
    written: u64,
}

impl Sync {
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// The queue was emptied; from now on it begins at `write`.
    pub(super) const fn forget(&mut self, write: Position) {
        if let Self::Data { upto, .. } = self {
            upto.write = write;
        }
    }
}

impl DiskQueue {
    /// Begins a sync if one is due and none is under way.
    pub(super) fn start_sync(&mut self, now: Now, out: &mut impl DiskOutput) {
        let waits = self.troubles.waits(Work::Sync) || self.troubles.waits(Work::Meta);
        if !self.is_sync_due || !self.sync.is_idle() || waits {
            return;
        }
        if self.write.offset >= LEFT_LEN_MAX && self.pending.is_empty() {
            self.leave_finished_file();
        }
        (self.is_sync_due, self.sync_at, self.touched) = (false, None, 0);
        let upto = Upto { write: self.write, written: self.written };
        let mut left = 0;
        if let Some(first) = self.unsynced.take() {
            // What is finished need not last.
            let first = first.max(self.first_needed().file);
            for file in self.files.range(first, self.write.file) {
                let id = out.ask(Op::Sync { file: file.number });
                self.asked.push_back((id, Asked::Sync));
                left += 1;
            }
        }
        self.sync = Sync::Data { left, synced: 0, failure: None, upto };
        self.end_of_data(now, out);
    }

    pub(super) fn handle_sync(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        if let Sync::Data { left, synced, failure, .. } = &mut self.sync {
            *left = left.saturating_sub(1);
            match result {
                Ok(_) => *synced += 1,
                Err(why) => *failure = Some(why),
            }
            self.end_of_data(now, out);
        }
    }

    /// Goes on to the meta file as soon as all data files are synced.
    fn end_of_data(&mut self, now: Now, out: &mut impl DiskOutput) {
        let Sync::Data { left: 0, synced, failure, upto } = &mut self.sync else { return };
        let (synced, failure, upto) = (*synced, failure.take(), *upto);
        if let Some(failure) = failure {
            self.sync = Sync::Idle;
            self.suspect = Some(upto.write.file);
            if self.write.offset > 0 && self.write.file == upto.write.file {
                self.must_roll = true;
                if let Some(append) = &mut self.append {
                    append.is_void = true;
                }
            }
            self.is_sync_due = true;
            self.fail(Work::Sync, failure, now, out);
            self.make_more_room(out);
            return;
        }
        if synced > 0 || self.suspect.is_none() {
            self.suspect = None;
            self.clear(Work::Sync, out);
        }
        let meta = self.meta_upto(upto);
        self.sync = Sync::Meta(meta);
        if self.meta == Some(meta) {
            self.meta_done(meta, out);
            return;
        }
        let contents = Bytes::from(meta.to_text());
        self.ask(Asked::Meta, Op::Replace { file: File::Meta, contents }, out);
    }

    /// What the meta file is to hold.
    fn meta_upto(&self, upto: Upto) -> Meta {
        let (_, between) = self.needed();
        let read = self.first_needed().min(upto.write);
        let later = self.written - upto.written;
        let depth = (self.unread + between).saturating_sub(later);
        let depth = if read == upto.write { 0 } else { depth.max(1) };
        Meta { depth: i64::try_from(depth).unwrap_or(i64::MAX), read, write: upto.write }
    }

    pub(super) fn handle_meta(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let Sync::Meta(meta) = self.sync else { return };
        match result {
            Ok(_) => {
                self.meta = Some(meta);
                self.clear(Work::Meta, out);
                self.meta_done(meta, out);
            }
            Err(failure) => {
                self.sync = Sync::Idle;
                // There may be the old one or the new one.
                self.meta = None;
                self.is_sync_due = true;
                self.fail(Work::Meta, failure, now, out);
                self.make_more_room(out);
            }
        }
    }

    /// The meta file holds `meta`: what it does not need goes.
    fn meta_done(&mut self, meta: Meta, out: &mut impl DiskOutput) {
        self.sync = Sync::Idle;
        while let Some(file) = self.files.0.front().filter(|file| file.number < meta.read.file) {
            let number = file.number;
            let op = if file.is_damaged {
                Op::SetAside { file: number }
            } else {
                Op::Remove { file: File::Data(number) }
            };
            self.files.0.pop_front();
            self.ask(Asked::Discard, op, out);
        }
        if self.suspect.is_some_and(|suspect| suspect < meta.read.file) {
            self.suspect = None;
            self.clear(Work::Sync, out);
        }
        if self.has_side_file && !self.is_closing() {
            // It went with the old meta file.
            self.has_side_file = false;
            self.ask(Asked::Discard, Op::Remove { file: File::Deferred }, out);
        }
    }
}
