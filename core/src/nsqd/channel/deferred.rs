//! Messages that a channel keeps back, by the time at which they are due.

use core::cmp::Ordering;

use crate::message::Message;
use crate::time::Instant;

/// A message that is kept back. The heap gives out the earliest first, and of equals the first put
/// in.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) due: Instant,
    pub(super) order: u64,
    pub(super) message: Message,
}

impl Ord for Deferred {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl PartialOrd for Deferred {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deferred {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deferred {}
