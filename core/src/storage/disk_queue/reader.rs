//! The front of a queue: records are read ahead in chunks, when somebody pops.

use alloc::vec::Vec;

use bytes::Bytes;

use super::files::Next;
use super::meta::Position;
use super::trouble::Work;
use super::{
    Asked, DiskEvent, DiskOutput, DiskQueue, Phase, Popped, STAGED_LEN_MAX, record, unexpected,
};
use crate::message::Message;
use crate::storage::{Answer, Failure, FailureKind, Op};
use crate::time::Now;

/// How much is read at once, in bytes; more only for a record that is longer.
pub(super) const CHUNK_LEN: usize = STAGED_LEN_MAX / 2;

/// Reading on begins when no more than this is staged, in bytes.
const READ_ON_LEN: usize = STAGED_LEN_MAX / 4;

/// A record in memory, to be popped.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) message: Message,
    pub(super) position: Position,
}

impl Staged {
    /// What a staged message counts for, in bytes.
    pub(super) const fn charge(message: &Message) -> usize {
        record::len(message) as usize + size_of::<Self>()
    }
}

/// The read that is under way.
#[derive(Debug)]
pub(super) struct Reading {
    at: Position,
    len: usize,
    /// The queue was emptied meanwhile.
    pub(super) is_stale: bool,
}

/// Counting records while opening.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) at: Position,
    pub(super) len: usize,
}

impl DiskQueue {
    /// The first place that is not staged, in the file that has it.
    pub(super) fn fetch_position(&self) -> Position {
        self.files.normalize(self.fetched, self.write)
    }

    /// Whether there are records that are on disk only.
    pub(super) fn has_unfetched(&self) -> bool {
        self.fetched != self.write && self.fetch_position() != self.write
    }

    /// Takes out the first record that is in memory, and sees that more are read in time.
    pub(super) fn take(&mut self, out: &mut impl DiskOutput) -> Option<Popped> {
        if !matches!(self.phase, Phase::Open) || self.is_closing() {
            return None;
        }
        let Some(staged) = self.staged.front() else { return self.take_pending() };
        let record = self.outstanding.push(staged.position, self.popped)?;
        let Staged { mut message, .. } = self.staged.pop_front()?;
        self.staged_len -= Staged::charge(&message);
        self.popped += 1;
        self.unread = self.unread.saturating_sub(1);
        message.record = Some(record);
        let due = self.dues.as_ref().and_then(|dues| dues.of(message.id));
        if self.dues.as_ref().is_some_and(|dues| dues.is_over(self.popped)) {
            self.dues = None;
        }
        if self.staged.is_empty() && self.staged.capacity() > CHUNK_LEN / size_of::<Staged>() {
            self.staged.shrink_to(0);
        }
        if self.staged_len <= READ_ON_LEN {
            self.read_on(out);
        }
        Some(Popped { message, due })
    }

    /// Reads the next chunk, if there is one and none is being read.
    pub(super) fn read_on(&mut self, out: &mut impl DiskOutput) {
        if self.reading.is_some() || self.troubles.waits(Work::Read) {
            return;
        }
        let (at, need) = match &self.phase {
            Phase::Counting(scan) => (self.files.normalize(scan.at, self.write), scan.len),
            Phase::Open if !self.is_closing() => {
                self.fetched = self.fetch_position();
                (self.fetched, self.fetch_len)
            }
            Phase::Opening | Phase::Open | Phase::Closed | Phase::Deleted => return,
        };
        let end = self.files.get(at.file).map_or(0, |file| file.len);
        let left = usize::try_from(end.saturating_sub(at.offset)).unwrap_or(usize::MAX);
        let len = left.min(CHUNK_LEN.max(need));
        if len > 0 {
            self.reading = Some(Reading { at, len, is_stale: false });
            let Position { file, offset } = at;
            self.ask(Asked::Read, Op::Read { file, offset, len }, out);
        }
    }

    pub(super) fn handle_read(
        &mut self,
        result: Result<Answer, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let Some(reading) = self.reading.take() else { return };
        let result = match result {
            Ok(Answer::Read(chunk)) => Ok(chunk),
            Ok(_) => Err(unexpected()),
            Err(failure) if failure.kind == FailureKind::Missing => Ok(Bytes::new()),
            Err(failure) => Err(failure),
        };
        if reading.is_stale {
            return;
        }
        let chunk = match result {
            Ok(chunk) => chunk,
            Err(failure) => {
                self.fail(Work::Read, failure, now, out);
                return;
            }
        };
        self.clear(Work::Read, out);
        let is_short = chunk.len() < reading.len;
        if let Phase::Counting(_) = self.phase {
            let (mut at, mut len) = (reading.at, 0);
            self.count(&chunk, &mut at, &mut len, out);
            if is_short {
                // There is nothing to count; reading will find that out again, and say so.
                at.offset = self.files.get(at.file).map_or(at.offset, |file| file.len);
            }
            self.scan_on(Scan { at, len }, out);
        } else {
            self.stage(&chunk, out);
            if is_short {
                self.pass_over(out);
            }
            if !self.has_unfetched() {
                // All that there is is in sight.
                self.unread = self.staged.len() as u64;
            }
        }
    }

    /// Goes on counting, or is done with it.
    pub(super) fn scan_on(&mut self, scan: Scan, out: &mut impl DiskOutput) {
        let at = self.files.normalize(scan.at, self.write);
        if at == self.write {
            self.phase = Phase::Open;
            // Bytes and not one record among them: to be passed over at once, so that nobody waits.
            self.is_wanted |= self.unread == 0;
        } else {
            self.phase = Phase::Counting(Scan { at, len: scan.len });
            self.read_on(out);
        }
    }

    /// Counts the records of a chunk that lies at `at`. The start of a record at the end of a file is cut
    /// off, so that neither we nor the reference ever meet it again.
    fn count(
        &mut self,
        chunk: &[u8],
        at: &mut Position,
        need: &mut usize,
        out: &mut impl DiskOutput,
    ) {
        let mut rest = chunk;
        *need = 0;
        while let Some(file) = self.files.get_mut(at.file) {
            let len = match file.next(rest, at.offset, self.options.max_msg_size) {
                Next::Record(len) => {
                    self.unread += 1;
                    len as u64
                }
                Next::Gap { len, is_torn: true, .. } => {
                    let Position { file: number, offset } = *at;
                    file.len = offset;
                    out.event(DiskEvent::Torn { file: number, offset, len });
                    let data = Vec::new();
                    self.ask(Asked::Discard, Op::Append { file: number, offset, data }, out);
                    return;
                }
                Next::Gap { len, .. } => len,
                Next::More(len) => {
                    *need = len;
                    return;
                }
                Next::End => return,
            };
            at.offset += len;
            match usize::try_from(len).ok().and_then(|len| rest.get(len..)) {
                Some(behind) => rest = behind,
                None => return,
            }
        }
    }

    /// Stages the records of a chunk that lies at `fetched`.
    fn stage(&mut self, chunk: &Bytes, out: &mut impl DiskOutput) {
        let number = self.fetched.file;
        let mut from = 0;
        self.fetch_len = 0;
        while let Some(file) = self.files.get_mut(number) {
            let Some(rest) = chunk.get(from..) else { return };
            let offset = self.fetched.offset;
            match file.next(rest, offset, self.options.max_msg_size) {
                Next::Record(len) => {
                    let record = chunk.slice(from..from + len);
                    if let Some(message) = record::decode(&record, &mut self.bodies) {
                        self.staged_len += Staged::charge(&message);
                        self.staged.push_back(Staged { message, position: self.fetched });
                    }
                    self.fetched.offset += len as u64;
                    from += len;
                }
                Next::Gap { len, damage, is_torn } => {
                    file.is_damaged |= !is_torn;
                    if number == self.write.file {
                        // The reference would lose what is written behind the damage.
                        self.must_roll = true;
                    }
                    out.event(if is_torn {
                        DiskEvent::Torn { file: number, offset, len }
                    } else {
                        DiskEvent::Damaged { file: number, offset, len, damage }
                    });
                    self.fetched.offset += len;
                    from = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
                }
                Next::More(len) => {
                    self.fetch_len = len;
                    return;
                }
                Next::End => return,
            }
        }
    }

    /// The file ended before it should: passes over what is missing.
    fn pass_over(&mut self, out: &mut impl DiskOutput) {
        let Position { file: number, offset } = self.fetched;
        let Some(file) = self.files.get_mut(number) else { return };
        let len = file.len.saturating_sub(offset);
        if len == 0 {
            return;
        }
        // It may be back some day.
        file.is_damaged = true;
        (self.fetched.offset, self.fetch_len) = (file.len, 0);
        self.must_roll |= number == self.write.file;
        out.event(DiskEvent::Vanished { file: number, offset, len });
    }
}
