//! What the threads of a run know of each other, and when what is over.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::Mode;
use super::flow::Flow;

/// One run: its clock, what is counted of it, and how far it is.
#[derive(Debug)]
pub(super) struct Run {
    clock: Instant,
    mode: Mode,
    /// From when to when it is counted, in nanoseconds of the clock. Publishers stop at the end,
    /// and so do consumers if there are no publishers.
    pub(super) start: u64,
    pub(super) end: u64,
    /// How long before something is due threads wait without sleeping.
    pub(super) spin: u64,
    /// Publishers that still run.
    pub(super) publishing: AtomicUsize,
    /// Messages that were acknowledged.
    pub(super) published: AtomicU64,
    /// How many deliveries each of them is.
    channels: u64,
    /// Deliveries that were there before; `None` if nobody knows.
    left: Option<u64>,
    /// Messages that were delivered.
    pub(super) received: AtomicU64,
    /// When the last of them came, to whichever consumer.
    heard: AtomicU64,
    /// Whether a thread gave up; the others then do too.
    failed: AtomicBool,
    /// Set from outside: then all give up as well.
    stop: Arc<AtomicBool>,
}

impl Run {
    /// One that begins now. `left` deliveries are there before anything is published.
    pub(super) fn new(
        mode: Mode,
        (start, end): (u64, u64),
        publishers: usize,
        channels: u32,
        left: Option<u64>,
    ) -> Self {
        Self {
            clock: Instant::now(),
            mode,
            spin: 0,
            start,
            end,
            publishing: AtomicUsize::new(publishers),
            published: AtomicU64::new(0),
            channels: channels.into(),
            left,
            received: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            stop: Arc::default(),
        }
    }

    /// Has threads wait without sleeping, so long before something is due.
    pub(super) fn spin(self, spin: Duration) -> Self {
        Self { spin: u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX), ..self }
    }

    /// Has all give up when `stop` is set.
    pub(super) fn stopped_by(self, stop: &Arc<AtomicBool>) -> Self {
        Self { stop: Arc::clone(stop), ..self }
    }

    /// Nanoseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether what happens at this time is counted.
    pub(super) const fn counts(&self, time: u64) -> bool {
        self.start <= time && time < self.end
    }

    /// Counts messages that came at `now`.
    pub(super) fn add(&self, flow: &mut Flow, messages: u64, bytes: u64, now: u64) {
        flow.total += messages;
        if self.counts(now) {
            flow.messages += messages;
            flow.bytes += bytes;
            flow.nanos = now - self.start;
        }
    }

    /// Settles how long was counted, for a thread that ends at `now`: to the end; or, if the work
    /// ran out before it, to the last message.
    pub(super) fn settle(&self, flow: &mut Flow, now: u64) {
        if self.mode != Mode::Sub && now >= self.end {
            flow.nanos = self.end - self.start;
        }
    }

    /// Says that a thread gave up.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn note_received(&self, messages: u64, now: u64) {
        self.received.fetch_add(messages, Ordering::Relaxed);
        self.heard.fetch_max(now, Ordering::Relaxed);
    }

    /// Whether consumers have nothing to wait for any more.
    pub(super) fn is_consumed(&self, now: u64) -> bool {
        let received = self.received.load(Ordering::Relaxed);
        let silent = now.saturating_sub(self.heard.load(Ordering::Relaxed));
        if self.mode == Mode::Both {
            return self.publishing.load(Ordering::Acquire) == 0
                && (received >= self.expected() || silent > STALL);
        }
        let is_dry = received > 0 && silent > IDLE;
        // What is known to be there comes soon, or not at all.
        let is_known = |left| received >= left || silent > STALL;
        now >= self.end || is_dry || self.left.is_some_and(is_known)
    }

    /// Deliveries of all that was published.
    pub(super) fn expected(&self) -> u64 {
        self.published.load(Ordering::Relaxed).saturating_mul(self.channels)
    }

    /// How long after the end a server may take to catch up with what was due: as long as it was
    /// counted, and at least as long as an answer may take.
    pub(super) fn patience(&self) -> u64 {
        STALL.max(self.end - self.start)
    }
}

/// In mode `sub`, how long nothing comes before the channel counts as drained.
const IDLE: u64 = 1_000_000_000;
/// How long a server may leave a command unanswered, and messages undelivered that nobody waits
/// behind.
pub(super) const STALL: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: Mode, publishers: usize, left: Option<u64>) -> Run {
        Run::new(mode, (100, 200), publishers, 2, left)
    }

    #[test]
    fn only_what_comes_in_time_is_counted() {
        let run = run(Mode::Both, 1, None);
        let mut flow = Flow::default();
        for now in [99, 100, 150, 200, 1_000] {
            run.add(&mut flow, 1, 10, now);
        }
        assert_eq!((flow.total, flow.messages, flow.bytes, flow.nanos), (5, 2, 20, 50));
        let mut early = flow.clone();
        run.settle(&mut early, 199);
        run.settle(&mut flow, 200);
        assert_eq!((early.nanos, flow.nanos), (50, 100));
    }

    #[test]
    fn consumers_wait_for_all_that_was_published_in_each_channel() {
        let run = run(Mode::Both, 1, None);
        run.published.store(5, Ordering::Relaxed);
        run.note_received(10, 7);
        assert!(!run.is_consumed(u64::MAX));
        run.publishing.store(0, Ordering::Relaxed);
        assert!(run.is_consumed(8));
        run.published.store(6, Ordering::Relaxed);
        assert!(!run.is_consumed(7 + STALL));
        assert!(run.is_consumed(8 + STALL));
    }

    #[test]
    fn a_backlog_ends_when_it_is_dry() {
        let unknown = run(Mode::Sub, 0, None);
        assert!(!unknown.is_consumed(199) && unknown.is_consumed(200));
        let late = Run { end: u64::MAX, ..run(Mode::Sub, 0, None) };
        late.note_received(1, 1_000);
        assert!(!late.is_consumed(1_000 + IDLE) && late.is_consumed(1_001 + IDLE));
        let known = Run { end: u64::MAX, ..run(Mode::Sub, 0, Some(3)) };
        assert!(!known.is_consumed(STALL) && known.is_consumed(STALL + 1));
        known.note_received(2, 1_000);
        assert!(!known.is_consumed(1_000));
        known.note_received(1, 1_000);
        assert!(known.is_consumed(1_000));
    }
}
