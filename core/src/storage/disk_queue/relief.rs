//! How a queue gets out of a full disk: nothing on the way to freeing room needs any.
//!
//! In good times a data file goes after the meta file that no longer needs it. Replacing that takes
//! a block, which a full disk does not have. So there the order is turned round: data files whose
//! records are all finished go first, in the middle too, and the meta file is written when there is
//! room. Until then it names files that are gone; whoever opens the queue begins with those that
//! are there ([`open`](super::open)).
//!
//! The file that is written to must not stay because nobody writes on: if nothing in the queue is
//! needed any more, writing goes on in the next file, and this one goes as well. In good times that
//! is done with files of some length only ([`sync`](super::sync)).

use super::meta::Position;
use super::trouble::Work;
use super::{Asked, DiskOutput, DiskQueue, Phase};
use crate::storage::{File, Op};

impl DiskQueue {
    /// Removes what is not needed if the disk is full, as far as that can be told at once: data
    /// files before the first record that is needed. One that had no room for a long message has
    /// some for short ones: it counts as full until everything is finished.
    pub(super) fn make_room(&mut self, out: &mut impl DiskOutput) {
        if !self.had_no_room {
            return;
        }
        self.leave_finished_file();
        let first = self.first_needed().file;
        if self.files.0.front().is_some_and(|file| file.number < first && !file.is_damaged) {
            self.remove_finished(out);
        }
    }

    /// Removes each data file whose records are all finished, if the disk is full. Looks at every
    /// record that is not finished: to be called when something failed, not for each message.
    pub(super) fn make_more_room(&mut self, out: &mut impl DiskOutput) {
        if self.troubles.wants_room() && matches!(self.phase, Phase::Open) {
            self.leave_finished_file();
            self.remove_finished(out);
        }
    }

    fn remove_finished(&mut self, out: &mut impl DiskOutput) {
        let unread = self.staged.front().map_or_else(|| self.fetch_position(), |it| it.position);
        let end = unread.file.min(self.write.file);
        let mut needed = self.outstanding.files().peekable();
        let asked = &mut self.asked;
        let before = self.files.0.len();
        self.files.0.retain(|file| {
            while needed.next_if(|number| *number < file.number).is_some() {}
            // One that is damaged is kept under another name, which makes no room.
            if file.number >= end || file.is_damaged || needed.peek() == Some(&file.number) {
                return true;
            }
            let id = out.ask(Op::Remove { file: File::Data(file.number) });
            asked.push_back((id, Asked::Relief));
            false
        });
        // What is on disk is less now than the meta file says.
        self.is_sync_due |= self.files.0.len() < before;
    }

    /// Goes on in the next file if nothing that is written is needed any more.
    pub(super) fn leave_finished_file(&mut self) {
        let is_done = self.outstanding.oldest().is_none()
            && self.staged.is_empty()
            && self.append.is_none()
            && self.write.offset > 0
            && !self.has_unfetched();
        if is_done {
            self.write = Position { file: self.write.file + 1, offset: 0 };
            (self.fetched, self.fetch_len) = (self.write, 0);
            (self.is_tail_dirty, self.must_roll) = (false, false);
        }
        // As long as the trouble lasts, a failure says so again.
        self.had_no_room &= !is_done || self.troubles.wants_room();
    }

    /// A data file was removed to make room: what failed for want of it is tried again.
    pub(super) fn handle_relief(&mut self, is_removed: bool) {
        if is_removed {
            for work in [Work::Append, Work::Sync, Work::Meta] {
                self.troubles.try_one_now(work);
            }
        }
    }
}
