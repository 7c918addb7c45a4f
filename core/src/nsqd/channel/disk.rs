//! A channel's dealings with the disk.

use super::{Channel, ChannelOutput};
use crate::storage::{Failure, Found, RequestId, Success};
use crate::time::{Instant, Now};

impl Channel {
    /// A request of its queue on disk was carried out, or failed.
    pub fn handle_storage(
        &mut self,
        id: RequestId,
        result: Result<Success, Failure>,
        now: Now,
        out: &mut impl ChannelOutput,
    ) {
        self.counters.messages += self.backlog.handle(id, result, now, out);
        self.dispatch(now, out);
    }

    /// What its disk has, if it was looked at before ([`Beyond::LookedAt`]).
    ///
    /// [`Beyond::LookedAt`]: crate::nsqd::Beyond::LookedAt
    pub fn handle_found(&mut self, found: &Found, now: Now, out: &mut impl ChannelOutput) {
        self.backlog.handle_found(found, now, out);
        self.dispatch(now, out);
    }

    /// Removes what is on disk. The channel is gone then, and takes nothing any more.
    pub fn delete(&mut self, out: &mut impl ChannelOutput) {
        self.backlog.delete(out);
    }

    /// Has everything that is in memory written to disk: what waits, what is in flight, what is
    /// deferred (storage-formats.md section 8). Nothing is taken or delivered any more; it is done
    /// when [`is_flushed`](Self::is_flushed). A disk that refuses is given up at `until`.
    pub fn flush(&mut self, until: Instant, now: Now, out: &mut impl ChannelOutput) {
        self.stopped = true;
        for (_, consumer) in self.consumers.iter_mut() {
            while let Some(message) = self.in_flight.pop_first(&mut consumer.list) {
                self.backlog.put_back(message);
            }
        }
        // The heap's order is latest first.
        let deferred = core::mem::take(&mut self.deferred);
        let deferred = deferred.into_sorted_vec().into_iter().rev();
        let deferred = deferred.map(|deferred| (deferred.message, deferred.due));
        self.backlog.flush(deferred, until, now, out);
    }

    /// Waits for the disk no longer: what it has not written is lost.
    pub fn abandon(&mut self, failure: Failure, out: &mut impl ChannelOutput) {
        self.backlog.abandon(failure, out);
    }

    /// Whether everything that [`flush`](Self::flush) asked for is done.
    pub fn is_flushed(&self) -> bool {
        self.backlog.is_flushed()
    }

    /// Whether it has no message at all.
    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty() && self.in_flight.len() == 0 && self.deferred.is_empty()
    }

    /// The trouble that its disk is in, if it is.
    pub fn failure(&self) -> Option<&Failure> {
        self.backlog.failure()
    }
}
