//! What is on disk: taken over at the start, followed while running, completed at the end.

use super::Shard;
use crate::nsqd::actions::Actions;
use crate::storage::{Done, Metadata};
use crate::time::Now;

impl Shard {
    /// Makes the topics and channels of `metadata` that are at home on this shard. To be called at most
    /// once, right before [`start`](Self::start), on every shard.
    pub fn load(&mut self, metadata: &Metadata, now: Now, out: &mut Actions) {
        let _ = (metadata, now, out);
    }

    /// A request in [`Actions::storage`](Actions) was carried out, or failed.
    pub fn handle_storage(&mut self, done: Done, now: Now, out: &mut Actions) {
        let _ = (done, now, out);
    }

    /// Writes what is only in memory to the disk. To be called once after
    /// [`shut_down`](Self::shut_down), when no shard of the node has connections any more; it is done
    /// when [`is_flushed`](Self::is_flushed).
    pub fn flush(&mut self, now: Now, out: &mut Actions) {
        let _ = (now, out);
    }

    /// Whether everything that [`flush`](Self::flush) asked for is answered.
    pub const fn is_flushed(&self) -> bool {
        true
    }
}
