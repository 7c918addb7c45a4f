//! Publishes under way: each is answered when the last of its messages is in memory or on disk.

use alloc::boxed::Box;

use crate::arena::{Arena, Key, TicketId};
use crate::nsqd::actions::Origin;
use crate::nsqd::topic::NotPublished;
use crate::storage::{Failure, Ticket};

/// The publishes that wait for the disk, and the one that is being carried out. Bounded by what clients
/// may have unanswered.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    open: Arena<TicketId, Pending>,
}

#[derive(Debug)]
struct Pending {
    origin: Origin,
    /// The records that are not written yet, and the publish itself until all of it is put.
    missing: u32,
    failure: Option<Box<str>>,
}

impl Tickets {
    /// A publish begins.
    pub(super) fn begin(&mut self, origin: Origin) -> Ticket {
        let id = self.open.insert(Pending { origin, missing: 1, failure: None });
        Ticket(u64::from(id.generation()) << 32 | u64::from(id.index()))
    }

    /// One record of it goes to disk.
    pub(super) fn hold(&mut self, ticket: Ticket) {
        if let Some(pending) = self.open.get_mut(id(ticket)) {
            pending.missing += 1;
        }
    }

    /// A record of it is written, or all of it is put. If nothing is missing any more: whom to tell what.
    pub(super) fn release(
        &mut self,
        ticket: Ticket,
        result: Result<(), &Failure>,
    ) -> Option<(Origin, Result<(), NotPublished>)> {
        let pending = self.open.get_mut(id(ticket))?;
        if let Err(failure) = result {
            pending.failure.get_or_insert_with(|| failure.text.clone());
        }
        pending.missing -= 1;
        if pending.missing > 0 {
            return None;
        }
        let Pending { origin, failure, .. } = self.open.remove(id(ticket))?;
        Some((origin, failure.map_or(Ok(()), |text| Err(NotPublished::Disk(text)))))
    }
}

fn id(ticket: Ticket) -> TicketId {
    TicketId::new(ticket.0 as u32, (ticket.0 >> 32) as u32)
}
