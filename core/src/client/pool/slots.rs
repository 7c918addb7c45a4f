//! Every publish that is not over: its deadline, and where it is.

use alloc::vec::Vec;

use super::super::actions::{PublishError, PublishId};
use super::super::error::ConnectionError;
use crate::time::Instant;

/// The most publishes that may be outstanding in a pool, whatever `max_outstanding` says.
pub const OUTSTANDING_MAX: usize = 1 << 20;

/// A table whose slots are used again. An id is a number that rises, and its slot: so it is found
/// at once, and never again when it is over.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// How many bits of an id name the slot.
    bits: u32,
    taken: u64,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
    /// No deadline is before this. It is made exact when it has passed: with deadlines that rise
    /// that costs one look at all slots per `publish_timeout`, and nothing when a publish
    /// completes.
    deadline_bound: Option<Instant>,
    room_wanted: bool,
    room_came: bool,
}

#[derive(Debug)]
struct Slot {
    id: PublishId,
    deadline: Instant,
    len: usize,
    place: Location,
    /// It was sent once and not answered: whatever becomes of it now, it may be stored.
    is_in_doubt: bool,
}

/// What was in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removed {
    pub(super) place: Location,
    is_in_doubt: bool,
}

impl Removed {
    /// What `error` means for it, after all its tries.
    pub(super) fn outcome(self, error: PublishError) -> PublishError {
        match (self.is_in_doubt, error) {
            (true, PublishError::NotSent(error)) => PublishError::Unknown(error),
            (true, PublishError::Rejected(text)) => {
                PublishError::Unknown(ConnectionError::Refused(text))
            }
            (_, error) => error,
        }
    }
}

/// Where a publish is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Location {
    /// In the pool's queue.
    Waiting,
    /// At a member, which finds it by `seq`.
    At {
        /// The member.
        serial: u64,
        /// Its transaction.
        seq: u64,
    },
}

impl Slots {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        let count_max = count_max.min(OUTSTANDING_MAX);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            bits: count_max.next_power_of_two().trailing_zeros(),
            taken: 0,
            bytes: 0,
            count_max,
            bytes_max,
            deadline_bound: None,
            room_wanted: false,
            room_came: false,
        }
    }

    /// A new publish, which waits. A single one is always taken, whatever its length.
    pub(super) fn insert(
        &mut self,
        len: usize,
        deadline: Instant,
    ) -> Result<PublishId, PublishError> {
        let (count, bytes) = (self.len(), self.bytes.saturating_add(len));
        if count > 0 && (count >= self.count_max || bytes > self.bytes_max) {
            self.room_wanted = true;
            self.room_came = false;
            return Err(PublishError::Full);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let id = PublishId((self.taken << self.bits) | at as u64);
        self.taken += 1;
        self.bytes = bytes;
        self.bound(deadline);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(Slot { id, deadline, len, place: Location::Waiting, is_in_doubt: false });
        }
        Ok(id)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.bytes = 0;
        self.deadline_bound = None;
    }

    fn at(&self, id: PublishId) -> usize {
        (id.0 & ((1 << self.bits) - 1)) as usize
    }

    fn get_mut(&mut self, id: PublishId) -> Option<&mut Slot> {
        let at = self.at(id);
        self.slots.get_mut(at)?.as_mut().filter(|slot| slot.id == id)
    }

    /// It is over.
    pub(super) fn remove(&mut self, id: PublishId) -> Option<Removed> {
        let Slot { len, place, is_in_doubt, .. } = *self.get_mut(id)?;
        let at = self.at(id);
        self.slots.get_mut(at)?.take();
        self.free.push(at);
        self.bytes -= len;
        self.room_came = true;
        if self.len() == 0 {
            self.deadline_bound = None;
        }
        Some(Removed { place, is_in_doubt })
    }

    pub(super) fn put(&mut self, id: PublishId, place: Location) {
        if let Some(slot) = self.get_mut(id) {
            slot.place = place;
        }
    }

    /// It is tried again after `error`.
    pub(super) fn note_failure(&mut self, id: PublishId, error: &PublishError) {
        if let Some(slot) = self.get_mut(id) {
            slot.is_in_doubt |= matches!(error, PublishError::Unknown(_));
        }
    }

    /// Its deadline, `None` if it is over.
    pub(super) fn deadline(&self, id: PublishId) -> Option<Instant> {
        let slot = self.slots.get(self.at(id))?.as_ref();
        slot.filter(|slot| slot.id == id).map(|slot| slot.deadline)
    }

    pub(super) fn set_deadline(&mut self, id: PublishId, deadline: Instant) -> Option<Location> {
        let slot = self.get_mut(id)?;
        slot.deadline = deadline;
        let place = slot.place;
        self.bound(deadline);
        Some(place)
    }

    fn bound(&mut self, deadline: Instant) {
        let bound = self.deadline_bound.get_or_insert(deadline);
        *bound = deadline.min(*bound);
    }

    /// Not after the earliest deadline; O(1).
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        self.deadline_bound
    }

    /// Those whose deadline has passed, in the order of their ids.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<PublishId> {
        let mut late = Vec::new();
        self.deadline_bound = None;
        for slot in self.slots.iter().flatten() {
            if slot.deadline <= now {
                late.push(slot.id);
            } else {
                let bound = self.deadline_bound.get_or_insert(slot.deadline);
                *bound = slot.deadline.min(*bound);
            }
        }
        late.sort_unstable();
        late
    }

    /// All, in the order of their ids.
    pub(super) fn all(&self) -> Vec<PublishId> {
        let mut all: Vec<_> = self.slots.iter().flatten().map(|slot| slot.id).collect();
        all.sort_unstable();
        all
    }

    /// How many are not over.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The bytes of their bodies.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room again after a refusal; says so once.
    pub(super) const fn take_room(&mut self) -> bool {
        let room = self.room_wanted && self.room_came;
        if room {
            self.room_wanted = false;
        }
        room
    }
}
