//! The start and the end of a queue: its files are looked at, and left as the reference wants them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::deferred::{self, Dues};
use super::meta::Position;
use super::open::Layout;
use super::reader::Scan;
use super::trouble::Work;
use super::writer::Pending;
use super::{Asked, DiskEvent, DiskOutput, DiskQueue, Phase, unexpected};
use crate::message::MessageId;
use crate::storage::{Failure, File, Found, Op, Success};
use crate::time::{Instant, Now, UnixNanos};

/// How long queues that are being closed go on trying to write to a disk that refuses, before they
/// try for the last time and then give up what is not written; and how long that last try may take.
/// One that has nothing to lose gives up when the disk refuses for the first time.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// A queue that is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) until: Instant,
    /// If the disk refuses once more, that was it.
    is_last_try: bool,
    /// How many requests were asked for before, and are not completed.
    earlier: usize,
    /// What is being handled is the completion of one of them. If it is a refusal, it is none of
    /// the close.
    is_earlier: bool,
    /// What is not written was given up; the positions are still tried.
    is_given_up: bool,
    /// Something was lost with it, and the log was told.
    is_lost: bool,
    /// What goes to the side file, and when that was known.
    deferred: Vec<(MessageId, UnixNanos)>,
    stopped: UnixNanos,
    step: Step,
}

/// What is asked for last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Write,
    Sync,
    SideFile,
    Rest,
}

impl DiskQueue {
    /// Asks for the files again if that failed.
    pub(super) fn open_again(&mut self, out: &mut impl DiskOutput) {
        if self.troubles.has(Work::Open)
            && !self.troubles.waits(Work::Open)
            && !self.has_asked(Asked::Open)
        {
            self.ask(Asked::Open, Op::Open, out);
        }
    }

    pub(super) fn handle_open(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        match result {
            Ok(Success::Opened(found)) => {
                self.clear(Work::Open, out);
                self.lay_out(&found, now, out);
            }
            Ok(_) => self.fail(Work::Open, unexpected(), now, out),
            Err(failure) => self.fail(Work::Open, failure, now, out),
        }
    }

    pub(super) fn lay_out(&mut self, found: &Found, now: Now, out: &mut impl DiskOutput) {
        if !matches!(self.phase, Phase::Opening) {
            return;
        }
        let layout = Layout::new(found);
        self.phase = Phase::Open;
        if self.has_asked(Asked::RemoveAll) {
            // It was emptied before anybody knew what there was; only the numbers go on.
            self.write = Position { file: layout.write.file + 1, offset: 0 };
            self.fetched = self.write;
            return;
        }
        self.has_side_file = found.deferred.is_some();
        (self.files, self.write, self.fetched) = (layout.files, layout.write, layout.read);
        (self.unread, self.meta) = (layout.depth, layout.meta);
        if let (Some(deferred), Some(meta)) = (&found.deferred, &found.meta) {
            let until = layout.count_from.map_or(layout.depth, |_| u64::MAX);
            let dues = Dues::parse(deferred, meta, until, self.options.max_delay, now);
            self.dues = (!dues.is_empty()).then(|| Box::new(dues));
        }
        if layout.event.is_some() || layout.count_from.is_some() {
            // So that the next start finds it in order.
            self.touch(1, now);
        }
        if let Some(event) = layout.event {
            out.event(event);
        }
        if !layout.left_over.is_empty() {
            out.event(DiskEvent::LeftOver { files: layout.left_over.len() });
        }
        for number in layout.left_over {
            self.ask(Asked::Discard, Op::Remove { file: File::Data(number) }, out);
        }
        if let Some(at) = layout.count_from {
            // Whoever wrote this died before it was synced, as far as anybody knows.
            self.unsynced = Some(at.file);
            self.scan_on(Scan { at, len: 0 }, out);
        }
    }

    /// Writes out what is there, and `deferred`: which of the records are due when. Nothing may be
    /// pushed or popped any more; it is done when [`is_closed`](Self::is_closed). Records that were
    /// popped and not finished come again after the next start. A disk that refuses is given up at
    /// `until`, which is most often in [`CLOSE_PATIENCE`].
    pub fn close(
        &mut self,
        deferred: &[(MessageId, Instant)],
        until: Instant,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        let is_last_try = until <= now.instant;
        let until = if is_last_try { now.instant + CLOSE_PATIENCE } else { until };
        // Some that the last process deferred may not have been popped yet.
        let mut dues: BTreeMap<_, _> =
            self.dues.iter().flat_map(|dues| dues.later(now.instant)).collect();
        dues.extend(deferred.iter().copied());
        let deferred = dues.into_iter().map(|(id, due)| (id, deferred::unix(due, now))).collect();
        self.closing = Some(Box::new(Closing {
            until,
            is_last_try,
            earlier: self.asked.len(),
            is_earlier: false,
            is_given_up: false,
            is_lost: false,
            deferred,
            stopped: now.unix,
            step: Step::Write,
        }));
        // What failed a while ago may work now, and if not that is to be known now.
        self.troubles.try_now();
        self.advance(now, out);
    }

    /// Whether everything that [`close`](Self::close) asked for is completed, or was given up.
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub(super) const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn closing_step(&self) -> Option<Step> {
        self.closing.as_ref().map(|closing| closing.step)
    }

    fn go_to(&mut self, step: Step) {
        if let Some(closing) = &mut self.closing {
            closing.step = step;
        }
    }

    /// Goes on with closing as far as the disk is.
    pub(super) fn close_on(&mut self, now: Now, out: &mut impl DiskOutput) {
        if self.closing_step() == Some(Step::Write) {
            if self.is_tail_dirty && self.pending.is_empty() {
                self.cut_tail(out);
            }
            if !self.is_written() {
                return;
            }
            self.is_sync_due = true;
            self.go_to(Step::Sync);
            self.start_sync(now, out);
        }
        if self.closing_step() == Some(Step::Sync) {
            let Some(meta) = self.meta.filter(|_| self.sync.is_idle() && !self.is_sync_due) else {
                return;
            };
            if self.troubles.waits(Work::Meta) {
                return;
            }
            let closing = self.closing.as_ref();
            if let Some(closing) = closing.filter(|closing| !closing.deferred.is_empty()) {
                let Closing { deferred, stopped, .. } = &**closing;
                let max_delay = self.options.max_delay;
                let contents = deferred::to_text(deferred, &meta.to_text(), *stopped, max_delay);
                self.go_to(Step::SideFile);
                self.ask(Asked::SideFile, Op::Replace { file: File::Deferred, contents }, out);
                return;
            }
            if self.has_side_file {
                self.has_side_file = false;
                self.ask(Asked::Discard, Op::Remove { file: File::Deferred }, out);
            }
            self.go_to(Step::Rest);
        }
        if self.closing_step() == Some(Step::Rest) && self.asked.is_empty() {
            self.phase = Phase::Closed;
        }
    }

    pub(super) fn handle_side_file(
        &mut self,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl DiskOutput,
    ) {
        match result {
            Ok(_) => {
                self.clear(Work::Meta, out);
                self.go_to(Step::Rest);
            }
            Err(failure) => {
                self.go_to(Step::Sync);
                self.fail(Work::Meta, failure, now, out);
            }
        }
    }

    /// The disk refused once more. What it refused before the close is tried again at once:
    /// meanwhile there may be more to sync.
    pub(super) fn note_refusal(&mut self, now: Now) {
        let is_empty = self.pending.is_empty();
        if let Some(closing) = &mut self.closing {
            if closing.is_earlier {
                self.troubles.try_now();
            } else if closing.is_last_try || is_empty {
                (closing.until, closing.is_last_try) = (now.instant, true);
            }
        }
    }

    /// The request is completed that stood at this place among those that were under way.
    pub(super) fn note_completion(&mut self, at: usize) {
        if let Some(closing) = &mut self.closing {
            closing.is_earlier = at < closing.earlier;
            closing.earlier -= usize::from(closing.is_earlier);
        }
    }

    /// Leaves what is not written where it is, if the disk refuses and all of it is on disk
    /// elsewhere: it comes again from there, and nothing is lost.
    pub(super) fn leave_kept(&mut self, out: &mut impl DiskOutput) {
        let is_kept = !self.pending.is_empty() && self.pending.iter().all(Pending::is_kept);
        if !self.is_closing() || !is_kept {
            return;
        }
        let Some(failure) = self.troubles.failure() else { return };
        for ticket in self.pending.drain(..).filter_map(|pending| pending.ticket) {
            out.stored(ticket, Err(failure));
        }
        self.pending_len = 0;
        self.troubles.try_one_now(Work::Append);
    }

    /// How many records would be lost if the disk took nothing any more: they were promised to
    /// somebody, and nobody else has them.
    fn unwritten(&self) -> usize {
        let is_lost = |pending: &&Pending| pending.ticket.is_none() && !pending.is_kept();
        self.pending.iter().filter(is_lost).count()
    }

    /// Gives up closing if the disk refused for too long, and once more after that; if there is
    /// nothing to lose, as soon as it refused. A disk that is only slow is waited for, as long as
    /// the owner does.
    pub(super) fn give_up(&mut self, now: Now, out: &mut impl DiskOutput) {
        let Some(closing) = self.closing.as_mut().filter(|closing| closing.until <= now.instant)
        else {
            return;
        };
        let Some(failure) = self.troubles.failure().cloned() else {
            (closing.until, closing.is_last_try) = (now.instant + CLOSE_PATIENCE, false);
            return;
        };
        if !matches!(self.phase, Phase::Opening | Phase::Counting(_) | Phase::Open) {
            return;
        }
        if !closing.is_last_try {
            // The process may have stood still since the last try, and the disk be well again.
            (closing.until, closing.is_last_try) = (now.instant + CLOSE_PATIENCE, true);
            self.troubles.try_now();
            return;
        }
        let has_positions =
            matches!(self.phase, Phase::Open) && self.append.is_none() && !closing.is_given_up;
        if !has_positions || closing.step != Step::Write {
            return self.abandon(0, failure, out);
        }
        // The positions at least, so that what is finished does not come again; one try. Whatever
        // is behind the last record is cut off by who opens the queue.
        (closing.until, closing.is_given_up) = (now.instant + CLOSE_PATIENCE, true);
        let is_lost = self.drop_pending(0, failure, out);
        if let Some(closing) = &mut self.closing {
            closing.is_lost = is_lost;
        }
        self.is_tail_dirty = false;
        self.troubles.try_now();
    }

    /// Waits for the disk no longer, whatever is asked of it: [`is_closed`](Self::is_closed) from
    /// now on. `others`: records that were never pushed and are lost as well. Without trouble the
    /// disk's `failure` is what the log is told.
    pub fn abandon(&mut self, others: usize, failure: Failure, out: &mut impl DiskOutput) {
        if matches!(self.phase, Phase::Closed | Phase::Deleted) {
            return;
        }
        let failure = self.troubles.failure().cloned().unwrap_or(failure);
        let is_lost = self.drop_pending(others, failure.clone(), out);
        self.phase = Phase::Closed;
        if !is_lost && self.closing.as_ref().is_none_or(|closing| !closing.is_lost) {
            out.event(DiskEvent::NotClosed(failure));
        }
    }

    /// Gives up what is not written. Returns whether something is lost with it.
    fn drop_pending(&mut self, others: usize, failure: Failure, out: &mut impl DiskOutput) -> bool {
        let records = self.unwritten() + others;
        for ticket in self.pending.drain(..).filter_map(|pending| pending.ticket) {
            out.stored(ticket, Err(&failure));
        }
        self.pending_len = 0;
        if records > 0 {
            out.event(DiskEvent::NotWritten { records, failure });
        }
        records > 0
    }
}
