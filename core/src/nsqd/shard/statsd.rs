//! Shard 0's pushes to statsd.

use super::Shard;
use super::tables::Timer;
use crate::nsqd::actions::Actions;
use crate::nsqd::event::Event;
use crate::nsqd::shard_message::Collector;
use crate::nsqd::stats::{Memory, ServerStats, StatsFilter};
use crate::nsqd::statsd::Statsd;
use crate::time::{Instant, Now};

/// The pushes, and the time at which the shard will look at them.
#[derive(Debug)]
pub(super) struct StatsdEntry {
    statsd: Statsd,
    armed: Option<Instant>,
}

impl Shard {
    /// The process's memory, which [`StatsdAction::Measure`](crate::nsqd::StatsdAction::Measure)
    /// asked for.
    pub fn handle_memory(&mut self, memory: Memory, now: Now, out: &mut Actions) {
        self.on_statsd(out, |statsd, out| statsd.handle_memory(memory, now, &mut out.statsd));
    }

    pub(super) fn start_statsd(&mut self, now: Now, out: &mut Actions) {
        let options = &self.config.statsd;
        if !options.address.is_empty() {
            let statsd = Statsd::new(options.clone(), now);
            self.statsd = Some(StatsdEntry { statsd, armed: None });
            self.on_statsd(out, |_, _| ());
        }
    }

    pub(super) fn stop_statsd(&mut self, out: &mut Actions) {
        if let Some(mut entry) = self.statsd.take() {
            entry.statsd.stop(&mut out.statsd);
            out.events.push(Event::StatsdClosed);
        }
    }

    pub(super) fn handle_statsd_timeout(&mut self, at: Instant, now: Now, out: &mut Actions) {
        let Some(entry) = self.statsd.as_mut().filter(|entry| entry.armed == Some(at)) else {
            return;
        };
        entry.armed = None;
        let page = self.on_statsd(out, |statsd, out| statsd.handle_timeout(now, &mut out.statsd));
        if let Some(page) = page.flatten() {
            let filter = StatsFilter { page: Some(page), ..StatsFilter::default() };
            self.collect(Some(filter), Collector::Statsd, now, out);
        }
    }

    /// A page that statsd asked for is gathered.
    pub(super) fn push_stats(&mut self, stats: ServerStats, now: Now, out: &mut Actions) {
        self.on_statsd(out, |statsd, out| statsd.handle_stats(stats, now, &mut out.statsd));
    }

    /// Calls the pushes and sees to their deadline.
    fn on_statsd<R>(
        &mut self,
        out: &mut Actions,
        call: impl FnOnce(&mut Statsd, &mut Actions) -> R,
    ) -> Option<R> {
        let entry = self.statsd.as_mut()?;
        let result = call(&mut entry.statsd, out);
        let due = entry.statsd.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Timer::Statsd);
        Some(result)
    }
}
