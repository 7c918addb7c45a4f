//! The pushes to statsd.

use super::{Clerk, ClerkSink, Wake};
use crate::nsqd::config::StatsdOptions;
use crate::nsqd::event::Event;
use crate::nsqd::stats::{Memory, ServerStats, StatsPage};
use crate::nsqd::statsd::Statsd;
use crate::time::{Instant, Now};

/// The pushes, and the earliest time at which the clerk will look at them.
#[derive(Debug)]
pub(super) struct StatsdEntry {
    statsd: Statsd,
    armed: Option<Instant>,
}

impl Clerk {
    pub(super) fn start_statsd(&mut self, options: &StatsdOptions, now: Now) {
        if !options.address.is_empty() {
            let statsd = Statsd::new(options.clone(), now);
            self.statsd = Some(StatsdEntry { statsd, armed: None });
            self.on_statsd(|_| ());
        }
    }

    pub(super) fn stop_statsd(&mut self, out: &mut ClerkSink<'_>) {
        if let Some(mut entry) = self.statsd.take() {
            entry.statsd.stop(&mut out.actions.statsd);
            out.actions.events.push(Event::StatsdClosed);
        }
    }

    /// Returns the page of the statistics that is to be gathered for
    /// [`handle_stats`](Self::handle_stats), if it is time for one.
    pub(super) fn handle_statsd_timeout(
        &mut self,
        at: Instant,
        now: Now,
        out: &mut ClerkSink<'_>,
    ) -> Option<StatsPage> {
        self.statsd.as_mut()?.armed.take_if(|armed| *armed == at)?;
        self.on_statsd(|statsd| statsd.handle_timeout(now, &mut out.actions.statsd))?
    }

    /// A page of the statistics is gathered.
    pub(super) fn handle_stats(&mut self, stats: ServerStats, now: Now, out: &mut ClerkSink<'_>) {
        self.on_statsd(|statsd| statsd.handle_stats(stats, now, &mut out.actions.statsd));
    }

    /// The process's memory is measured.
    pub(super) fn handle_memory(&mut self, memory: Memory, now: Now, out: &mut ClerkSink<'_>) {
        self.on_statsd(|statsd| statsd.handle_memory(memory, now, &mut out.actions.statsd));
    }

    /// Calls the pushes and sees to their deadline.
    fn on_statsd<R>(&mut self, call: impl FnOnce(&mut Statsd) -> R) -> Option<R> {
        let entry = self.statsd.as_mut()?;
        let result = call(&mut entry.statsd);
        let due = entry.statsd.poll_timeout();
        self.deadlines.arm_by(due, &mut entry.armed, Wake::Statsd);
        Some(result)
    }
}
