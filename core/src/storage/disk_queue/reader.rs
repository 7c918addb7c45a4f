//! The front of a queue: records are read ahead in chunks, when somebody pops.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::files::Next;
use super::meta::Position;
use super::record::Damage;
use super::search::{Search, SearchOutcome};
use super::trouble::Work;
use super::{
    Asked, DiskEvent, DiskOutput, DiskQueue, Phase, Popped, STAGED_LEN_MAX, record, unexpected,
};
use crate::message::Message;
use crate::storage::{Failure, FailureKind, Op, Success};
use crate::time::Now;

/// How much is read at once, in bytes; more only for a record that is longer.
pub(super) const CHUNK_LEN: usize = STAGED_LEN_MAX / 2;

/// How many bytes before what is read are read as well. A hole, which is a sector or more, fills
/// them with zeros; what ends with a few of its own, like a string, does not.
const LEAD_LEN: usize = 16;

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
    /// How many bytes in front of `at` are read as well, to see a hole there.
    lead: usize,
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
        let Position { file, offset } = at;
        let end = self.files.get(file).map_or(0, |file| file.len);
        let lead = usize::try_from(offset).unwrap_or(LEAD_LEN).min(LEAD_LEN);
        let (offset, len, lead) = if let Some(search) = &self.search {
            let (offset, len) = search.wants(end, CHUNK_LEN);
            (offset, len, 0)
        } else {
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            (offset, left.min(need.max(CHUNK_LEN - lead)), lead)
        };
        if len > 0 {
            let at = Position { file, offset };
            self.reading = Some(Reading { at, len, lead, is_stale: false });
            let (offset, len) = (offset - lead as u64, len + lead);
            self.ask(Asked::Read, Op::Read { file, offset, len }, out);
        }
    }

    pub(super) fn handle_read(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let Some(reading) = self.reading.take() else { return };
        let result = match result {
            Ok(Success::Read(chunk)) => Ok(chunk),
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
        self.take_chunk(&chunk, &reading, out);
        if mem::take(&mut self.has_passed) {
            // Without a word about it in the meta file, a damaged file would stay where it is.
            self.touch(1, now);
        }
    }

    /// Takes in what was read.
    fn take_chunk(&mut self, chunk: &Bytes, reading: &Reading, out: &mut impl DiskOutput) {
        let is_short = chunk.len() < reading.len + reading.lead;
        if let Some(search) = self.search.take_if(|_| !is_short) {
            self.search_on(search, chunk.clone(), reading.at, out);
            return;
        }
        // What is gone is not searched.
        let gone = Bytes::new();
        let chunk = if self.search.take().is_some() { &gone } else { chunk };
        if let Phase::Counting(scan) = &self.phase {
            let (mut at, mut len) = (self.files.normalize(scan.at, self.write), 0);
            self.count(chunk, reading.lead, &mut at, &mut len, out);
            if is_short {
                // There is nothing to count; reading will find that out again, and say so.
                at.offset = self.files.get(at.file).map_or(at.offset, |file| file.len);
            }
            self.scan_on(Scan { at, len }, out);
        } else {
            self.stage(chunk, reading.lead, out);
            if is_short {
                self.pass_over(out);
            }
            self.look_around();
        }
    }

    /// Notes whether all that there is is in sight.
    fn look_around(&mut self) {
        if !self.has_unfetched() {
            self.unread = self.staged.len() as u64;
        }
    }

    /// Goes on with a search, in a chunk that lies at `at`.
    fn search_on(
        &mut self,
        mut search: Box<Search>,
        chunk: Bytes,
        at: Position,
        out: &mut impl DiskOutput,
    ) {
        let file_len = self.files.get(at.file).map_or(0, |file| file.len);
        let Some(found) = search.read(chunk, at.offset, file_len) else {
            self.search = Some(search);
            self.read_on(out);
            return;
        };
        let counting = match &self.phase {
            Phase::Counting(scan) => Some(self.files.normalize(scan.at, self.write)),
            Phase::Opening | Phase::Open | Phase::Closed | Phase::Deleted => None,
        };
        match (found, counting) {
            (SearchOutcome::Record(_), at) => self.trusted = Some(at.unwrap_or(self.fetched)),
            (SearchOutcome::Gap { .. }, Some(_)) => {}
            (SearchOutcome::Gap { len, damage }, None) => {
                self.pass_gap(len, damage, false, out);
                self.look_around();
            }
        }
        if let Some(mut at) = counting {
            if let SearchOutcome::Gap { len, .. } = found {
                at.offset += len;
            }
            self.scan_on(Scan { at, len: 0 }, out);
        }
    }

    /// Whether the record at a place, so far into a chunk, is not to be believed before it is known
    /// what follows: a hole is right before it.
    fn is_in_doubt(&self, chunk: &[u8], from: usize, at: Position) -> bool {
        let lead = from.checked_sub(LEAD_LEN).and_then(|lead| chunk.get(lead..from));
        let is_behind_hole = lead.is_some_and(|lead| lead.iter().rev().all(|byte| *byte == 0));
        is_behind_hole && self.trusted != Some(at)
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

    /// Counts the records of a chunk that has `at` so far into it. The start of a record at the end
    /// of a file is cut off, so that neither we nor the reference ever meet it again.
    fn count(
        &mut self,
        chunk: &[u8],
        mut from: usize,
        at: &mut Position,
        need: &mut usize,
        out: &mut impl DiskOutput,
    ) {
        *need = 0;
        while let Some(file) = self.files.get(at.file)
            && let Some(rest) = chunk.get(from..)
        {
            let is_in_doubt = self.is_in_doubt(chunk, from, *at);
            let len = match file.next(rest, at.offset, is_in_doubt, self.options.max_msg_size) {
                Next::Record(len) => {
                    self.unread += 1;
                    len as u64
                }
                Next::Gap { len, is_torn: true, .. } => {
                    let Position { file: number, offset } = *at;
                    if let Some(file) = self.files.get_mut(number) {
                        file.len = offset;
                    }
                    out.event(DiskEvent::Torn { file: number, offset, len });
                    let data = Vec::new();
                    self.ask(
                        Asked::Discard,
                        Op::Append { file: number, offset, data, sync: false },
                        out,
                    );
                    return;
                }
                Next::Gap { len, .. } => len,
                Next::Search(search) => {
                    self.search = Some(search);
                    return;
                }
                Next::More(len) => {
                    *need = len;
                    return;
                }
                Next::End => return,
            };
            at.offset += len;
            from = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        }
    }

    /// Stages the records of a chunk that has `fetched` so far into it.
    fn stage(&mut self, chunk: &Bytes, mut from: usize, out: &mut impl DiskOutput) {
        let number = self.fetched.file;
        self.fetch_len = 0;
        while let Some(file) = self.files.get(number)
            && let Some(rest) = chunk.get(from..)
        {
            let at = self.fetched;
            let is_in_doubt = self.is_in_doubt(chunk, from, at);
            let len = match file.next(rest, at.offset, is_in_doubt, self.options.max_msg_size) {
                Next::Record(len) => {
                    let record = chunk.slice(from..from + len);
                    if let Some(message) = record::decode(&record, &mut self.bodies) {
                        self.staged_len += Staged::charge(&message);
                        self.staged.push_back(Staged { message, position: at });
                    }
                    self.fetched.offset += len as u64;
                    len
                }
                Next::Gap { len, damage, is_torn } => {
                    self.pass_gap(len, damage, is_torn, out);
                    usize::try_from(len).unwrap_or(usize::MAX)
                }
                Next::Search(search) => {
                    self.search = Some(search);
                    return;
                }
                Next::More(len) => {
                    self.fetch_len = len;
                    return;
                }
                Next::End => return,
            };
            from = from.saturating_add(len);
        }
    }

    /// Passes over bytes at `fetched` that are no record.
    fn pass_gap(&mut self, len: u64, damage: Damage, is_torn: bool, out: &mut impl DiskOutput) {
        let Position { file: number, offset } = self.fetched;
        if let Some(file) = self.files.get_mut(number) {
            file.is_damaged |= !is_torn;
        }
        // The reference would lose what is written behind the damage.
        self.must_roll |= number == self.write.file;
        self.has_passed = true;
        out.event(if is_torn {
            DiskEvent::Torn { file: number, offset, len }
        } else {
            DiskEvent::Damaged { file: number, offset, len, damage }
        });
        (self.fetched.offset, self.fetch_len) = (offset + len, 0);
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
        self.has_passed = true;
        out.event(DiskEvent::Vanished { file: number, offset, len });
    }
}
