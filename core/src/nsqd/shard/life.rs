//! Where a shard's life has got to.
//!
//! ```text
//!   New ──start──► Running ──shut_down──► Stopping ──flush──► Flushing
//! ```
//!
//! No step is taken back. Without a disk there is nothing to flush, and `Stopping` is the last.

use super::ending::Flush;
use crate::storage::DiskEvent;
use crate::time::Now;

/// Where a shard's life has got to.
#[derive(Debug)]
pub(super) enum Life {
    /// Topics and channels that come into being were there before.
    New,
    /// Clients come and go.
    Running,
    /// Nothing new is taken, and every connection ends when it has what it is owed.
    Stopping,
    /// What is only in memory is written to the disk.
    Flushing(Flush),
}

impl Life {
    pub(super) fn start(&mut self) {
        if matches!(self, Self::New) {
            *self = Self::Running;
        }
    }

    pub(super) fn stop(&mut self) {
        if matches!(self, Self::New | Self::Running) {
            *self = Self::Stopping;
        }
    }

    /// Begins to flush.
    pub(super) fn flush(&mut self, now: Now) {
        if !self.is_flushing() {
            *self = Self::Flushing(Flush::new(now));
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// Whether nothing new is taken.
    pub(super) const fn is_stopping(&self) -> bool {
        matches!(self, Self::Stopping | Self::Flushing(_))
    }

    pub(super) const fn is_flushing(&self) -> bool {
        matches!(self, Self::Flushing(_))
    }

    /// How the flush goes, once it has begun.
    pub(super) const fn flushing(&self) -> Option<&Flush> {
        match self {
            Self::Flushing(flush) => Some(flush),
            Self::New | Self::Running | Self::Stopping => None,
        }
    }

    /// How the flush goes, once it has begun.
    pub(super) const fn flushing_mut(&mut self) -> Option<&mut Flush> {
        match self {
            Self::Flushing(flush) => Some(flush),
            Self::New | Self::Running | Self::Stopping => None,
        }
    }

    /// The disk answers.
    pub(super) const fn note_answer(&mut self, now: Now) {
        if let Some(flush) = self.flushing_mut() {
            flush.note_answer(now);
        }
    }

    /// Something happened to a queue. Returns whether the log is told.
    pub(super) fn tells(&mut self, event: &DiskEvent) -> bool {
        self.flushing_mut().is_none_or(|flush| flush.tells(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_is_taken_back() {
        let steps: [fn(&mut Life); 3] =
            [Life::start, Life::stop, |life| life.flush(Now::from_millis(7))];
        let rank = |life: &Life| (life.is_running(), life.is_stopping(), life.is_flushing());
        let mut life = Life::New;
        assert_eq!(rank(&life), (false, false, false));
        let expected = [(true, false, false), (false, true, false), (false, true, true)];
        for (at, expected) in expected.into_iter().enumerate() {
            steps[at](&mut life);
            steps[..at].iter().for_each(|step| step(&mut life));
            assert_eq!(rank(&life), expected);
        }
        // A shard that never ran stops as well.
        let mut life = Life::New;
        life.stop();
        life.start();
        assert!(life.is_stopping());
    }

    #[test]
    fn a_second_flush_begins_nothing() {
        let mut life = Life::Stopping;
        life.flush(Now::from_millis(7));
        let until = life.flushing().map(Flush::until);
        life.flush(Now::from_millis(9));
        assert!(until.is_some() && life.flushing().map(Flush::until) == until);
    }
}
