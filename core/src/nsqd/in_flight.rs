//! The messages that a channel has delivered and that are not answered yet.
//!
//! ```text
//!   by id:   HashTable ──► slot          FIN, REQ and TOUCH find their message in O(1)
//!   slots:   [ message | consumer | deadline | earlier | later ]
//!   List:    first ◄──► … ◄──► last      one per consumer, by deadline
//! ```
//!
//! Deliveries to one consumer carry the same timeout, so a new one belongs at the end of its list
//! and the earliest deadline is always the list's first: insert, answer and next deadline are O(1),
//! nothing is left behind by an answered message, and a consumer that leaves hands its messages
//! back in order. Only a TOUCH that meets `--max-msg-timeout` looks further than the last entry.

use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashTable;

use crate::arena::ConsumerId;
use crate::message::{Message, MessageId};
use crate::time::Instant;

/// Why FIN, REQ or TOUCH is refused (nsqd-protocol.md section 6.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotInFlight {
    /// No such message is in flight.
    Unknown,
    /// It is in flight to somebody else.
    NotOwner,
}

impl NotInFlight {
    /// The reason in the error's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "ID not in flight",
            Self::NotOwner => "client does not own message",
        }
    }
}

/// A consumer's part of the table, kept by the consumer.
#[derive(Debug, Default)]
pub(super) struct List {
    first: Option<u32>,
    last: Option<u32>,
    len: u32,
}

impl List {
    /// How many messages are in flight to the consumer.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }
}

#[derive(Debug)]
struct Slot {
    message: Message,
    consumer: ConsumerId,
    delivered: Instant,
    deadline: Instant,
    earlier: Option<u32>,
    later: Option<u32>,
}

/// All messages in flight on a channel.
#[derive(Debug)]
pub(super) struct InFlight {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
}

impl InFlight {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_id: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Puts a message in that is being delivered now. Returns its deadline if it is the consumer's
    /// earliest.
    pub(super) fn insert(
        &mut self,
        list: &mut List,
        consumer: ConsumerId,
        message: Message,
        delivered: Instant,
        timeout: Duration,
    ) -> Option<Instant> {
        let hash = hash(message.id);
        let (earlier, later) = (None, None);
        let deadline = delivered + timeout;
        let slot = Some(Slot { message, consumer, delivered, deadline, earlier, later });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        self.by_id.insert_unique(hash, index, |index| match &slots[*index as usize] {
            Some(slot) => self::hash(slot.message.id),
            None => 0,
        });
        self.link(list, index);
        (list.first == Some(index)).then_some(deadline)
    }

    /// Takes out the message `id`, which has to be in flight to `consumer`.
    pub(super) fn remove(
        &mut self,
        list: &mut List,
        consumer: ConsumerId,
        id: MessageId,
    ) -> Result<Message, NotInFlight> {
        let Self { slots, by_id, .. } = self;
        // One look-up finds and removes: this is every FIN's way.
        let Ok(entry) = by_id.find_entry(hash(id), |index| is_of(slots, *index, id, consumer))
        else {
            return Err(self.refusal(id));
        };
        let index = *entry.get();
        entry.remove();
        self.take(list, index).ok_or(NotInFlight::Unknown)
    }

    /// Moves the deadline of `id` to `timeout` from now, but never beyond `max` after its delivery.
    pub(super) fn touch(
        &mut self,
        list: &mut List,
        consumer: ConsumerId,
        id: MessageId,
        now: Instant,
        timeout: Duration,
        max: Duration,
    ) -> Result<(), NotInFlight> {
        let index = self.find(consumer, id)?;
        self.unlink(list, index);
        if let Some(slot) = self.slot_mut(index) {
            slot.deadline = (now + timeout).min(slot.delivered + max);
        }
        self.link(list, index);
        Ok(())
    }

    /// The earliest deadline of a consumer.
    pub(super) fn next_deadline(&self, list: &List) -> Option<Instant> {
        self.slots.get(list.first? as usize)?.as_ref().map(|slot| slot.deadline)
    }

    /// Takes out a consumer's message whose deadline is the earliest.
    pub(super) fn pop_first(&mut self, list: &mut List) -> Option<Message> {
        let index = list.first?;
        let id = self.slots.get(index as usize)?.as_ref()?.message.id;
        if let Ok(entry) = self.by_id.find_entry(hash(id), |other| *other == index) {
            entry.remove();
        }
        self.take(list, index)
    }

    /// Drops everything. The consumers' lists have to be reset with it.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    fn find(&self, consumer: ConsumerId, id: MessageId) -> Result<u32, NotInFlight> {
        let found = self.by_id.find(hash(id), |index| is_of(&self.slots, *index, id, consumer));
        found.copied().ok_or_else(|| self.refusal(id))
    }

    /// Why a consumer that has no message of this id may not answer it.
    fn refusal(&self, id: MessageId) -> NotInFlight {
        let is_it = |index: &u32| {
            self.slots[*index as usize].as_ref().is_some_and(|slot| slot.message.id == id)
        };
        match self.by_id.find(hash(id), is_it) {
            Some(_) => NotInFlight::NotOwner,
            None => NotInFlight::Unknown,
        }
    }

    /// Empties a slot that is no longer in the table.
    fn take(&mut self, list: &mut List, index: u32) -> Option<Message> {
        self.unlink(list, index);
        let slot = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        if self.by_id.is_empty() && self.slots.len() > KEPT_SLOTS_MAX {
            self.clear();
        }
        Some(slot.message)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Links a slot into its consumer's list, behind all whose deadline is not later.
    fn link(&mut self, list: &mut List, index: u32) {
        let Some(deadline) = self.slot_mut(index).map(|slot| slot.deadline) else { return };
        let (mut earlier, mut later) = (list.last, None);
        while let Some(at) = earlier
            && let Some(slot) = self.slot_mut(at)
            && slot.deadline > deadline
        {
            (earlier, later) = (slot.earlier, Some(at));
        }
        match earlier.and_then(|at| self.slot_mut(at)) {
            Some(slot) => slot.later = Some(index),
            None => list.first = Some(index),
        }
        match later.and_then(|at| self.slot_mut(at)) {
            Some(slot) => slot.earlier = Some(index),
            None => list.last = Some(index),
        }
        if let Some(slot) = self.slot_mut(index) {
            (slot.earlier, slot.later) = (earlier, later);
        }
        list.len += 1;
    }

    fn unlink(&mut self, list: &mut List, index: u32) {
        let Some(slot) = self.slot_mut(index) else { return };
        let (earlier, later) = (slot.earlier.take(), slot.later.take());
        match earlier.and_then(|at| self.slot_mut(at)) {
            Some(slot) => slot.later = later,
            None => list.first = later,
        }
        match later.and_then(|at| self.slot_mut(at)) {
            Some(slot) => slot.earlier = earlier,
            None => list.last = earlier,
        }
        list.len -= 1;
    }
}

/// Whether the slot holds a message `id` that is in flight to `consumer`. Two servers' data in one
/// channel may hold an id twice: each consumer then answers its own (nsqd-protocol.md W24).
fn is_of(slots: &[Option<Slot>], index: u32, id: MessageId, consumer: ConsumerId) -> bool {
    let slot = slots[index as usize].as_ref();
    slot.is_some_and(|slot| slot.message.id == id && slot.consumer == consumer)
}

/// An empty table keeps this many slots; the memory of more is given back.
const KEPT_SLOTS_MAX: usize = 4096;

/// Ids are made by the broker and rise, so multiplying spreads them well and nobody can choose them
/// to collide.
const fn hash(id: MessageId) -> u64 {
    id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
