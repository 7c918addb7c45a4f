//! Messages that were popped before they were written, because the disk does not take them, while
//! somebody else has them on disk: a topic keeps what its channels have not written.
//!
//! Each has a number, as if it were a record. When that is finished, whoever keeps the message is
//! told that it need not do so any longer. So what is on a full disk can be consumed without being
//! copied.

use alloc::collections::BTreeMap;
use core::num::NonZeroU64;

use crate::message::RecordId;
use crate::storage::Ticket;

/// What marks a lent record's number; those that lie on the disk of the queue do not have it.
const MARK: NonZeroU64 = NonZeroU64::MIN.saturating_add((1 << 63) - 1);

/// The tickets of those who keep the messages. They are bounded by what consumers may have in
/// flight.
#[derive(Debug)]
pub(super) struct Lent {
    tickets: BTreeMap<RecordId, Ticket>,
    /// The number that was given last, without its mark.
    last: u64,
}

impl Lent {
    pub(super) const fn new() -> Self {
        Self { tickets: BTreeMap::new(), last: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Lends a message. Its number is never given again, so that one from before
    /// [`take_all`](Self::take_all) finds nothing.
    pub(super) fn lend(&mut self, ticket: Ticket) -> RecordId {
        self.last += 1;
        let record = RecordId(MARK | self.last);
        self.tickets.insert(record, ticket);
        record
    }

    /// The message is finished, or about to be written: whose it is, if it is a lent one.
    pub(super) fn take(&mut self, record: RecordId) -> Option<Ticket> {
        if record.0.get() & MARK.get() == 0 {
            return None;
        }
        self.tickets.remove(&record)
    }

    /// All are dropped.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Ticket> {
        core::mem::take(&mut self.tickets).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Key, TicketId};

    fn ticket(number: u32) -> Ticket {
        Ticket::handed_on(TicketId::new(number, 0))
    }

    #[test]
    fn a_number_is_taken_back_once_and_is_none_of_a_record_on_disk() {
        let mut lent = Lent::new();
        let (one, two) = (lent.lend(ticket(1)), lent.lend(ticket(2)));
        let on_disk = RecordId(NonZeroU64::new(one.0.get() & !MARK.get()).unwrap());
        assert_eq!(lent.take(on_disk), None);
        assert_eq!((lent.take(one), lent.take(one)), (Some(ticket(1)), None));
        assert!(lent.take_all().eq([ticket(2)]));
        assert_eq!((lent.take(two), lent.is_empty()), (None, true));
        assert!(![one, two].contains(&lent.lend(ticket(3))));
    }
}
