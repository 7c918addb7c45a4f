//! The records that were popped and are not finished: the oldest is where reading begins after a
//! crash.
//!
//! ```text
//!   slots:  [ position | count | earlier | later ]     a record's id leads to its slot in O(1)
//!   list:   first ◄──► … ◄──► last                     in the order of reading
//! ```

use alloc::vec::Vec;
use core::num::NonZeroU64;

use super::meta::Position;
use crate::message::RecordId;

/// Records of one queue that may be popped and not finished, of 32 bytes each. At the limit nothing
/// is popped.
pub(super) const OUTSTANDING_MAX: u32 = 1 << 24;

/// Slots beyond which the table is given back once it is empty.
const SLOTS_KEPT: usize = 1024;

/// An id is the slot's index plus 1 in the lower bits, and above them how often the table was
/// cleared, so that records from before find nothing. The highest bit is that of
/// [lent](super::lent) records.
const INDEX_BITS: u32 = 32;
const EPOCH_MASK: u32 = u32::MAX >> 1;

const NONE: u32 = u32::MAX;
const FREE: u32 = u32::MAX - 1;

#[derive(Debug)]
struct Slot {
    position: Position,
    /// How many records were popped before it.
    count: u64,
    /// `FREE` marks a slot that is not used; `later` is the next free one then.
    earlier: u32,
    later: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Outstanding {
    slots: Vec<Slot>,
    free: u32,
    first: u32,
    last: u32,
    len: u32,
    epoch: u32,
}

impl Outstanding {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, first: NONE, last: NONE, len: 0, epoch: 0 }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= OUTSTANDING_MAX
    }

    /// Where the oldest record lies, and how many were popped before it.
    pub(super) fn oldest(&self) -> Option<(Position, u64)> {
        self.slots.get(self.first as usize).map(|slot| (slot.position, slot.count))
    }

    /// The data files that have a record of it, each once or more often, by number.
    pub(super) fn files(&self) -> impl Iterator<Item = u64> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            at = slot.later;
            Some(slot.position.file)
        })
    }

    /// Puts in the record popped last. `None` if the table is full.
    pub(super) fn push(&mut self, position: Position, count: u64) -> Option<RecordId> {
        if self.is_full() {
            return None;
        }
        let slot = Slot { position, count, earlier: self.last, later: NONE };
        let index = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let index = self.free;
                self.free = free.later;
                *free = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        match self.slots.get_mut(self.last as usize) {
            Some(last) => last.later = index,
            None => self.first = index,
        }
        self.last = index;
        self.len += 1;
        NonZeroU64::new(u64::from(self.epoch) << INDEX_BITS | u64::from(index + 1)).map(RecordId)
    }

    /// Takes a record out; `false` if it is not in.
    pub(super) fn remove(&mut self, record: RecordId) -> bool {
        let id = record.0.get();
        let index = (id as u32).wrapping_sub(1);
        if id >> INDEX_BITS != u64::from(self.epoch) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.earlier != FREE)
        else {
            return false;
        };
        let (earlier, later) = (slot.earlier, slot.later);
        (slot.earlier, slot.later) = (FREE, self.free);
        self.free = index;
        match self.slots.get_mut(earlier as usize) {
            Some(slot) => slot.later = later,
            None => self.first = later,
        }
        match self.slots.get_mut(later as usize) {
            Some(slot) => slot.earlier = earlier,
            None => self.last = earlier,
        }
        self.len -= 1;
        if self.len == 0 && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.free = NONE;
        }
        true
    }

    /// Forgets all records; the ids that were given out find nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1) & EPOCH_MASK, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> Position {
        Position { file: 0, offset }
    }

    #[test]
    fn a_cleared_table_knows_no_old_records() {
        let mut table = Outstanding::new();
        let old = table.push(at(0), 0).unwrap();
        table.clear();
        let new = table.push(at(9), 0).unwrap();
        assert!(!table.remove(old));
        assert_eq!(table.oldest(), Some((at(9), 0)));
        assert!(table.remove(new));
        assert!(!table.remove(new));
        assert_eq!(table.oldest(), None);
    }

    /// However often it was cleared meanwhile; once it was 128 times.
    #[test]
    fn an_old_record_is_never_taken_for_a_new_one() {
        let mut table = Outstanding::new();
        let old = table.push(at(0), 0).unwrap();
        for _ in 0..1000 {
            table.clear();
            let new = table.push(at(9), 0).unwrap();
            assert_ne!(old, new);
            assert!(!table.remove(old));
        }
    }

    proptest! {
        #[test]
        fn the_oldest_is_the_oldest(steps in prop::collection::vec(0..9_usize, 0..200)) {
            let (mut table, mut model) = (Outstanding::new(), Vec::new());
            for (count, step) in steps.into_iter().enumerate() {
                if step < 5 || model.is_empty() {
                    let count = count as u64;
                    model.push((table.push(at(count), count).unwrap(), (at(count), count)));
                } else {
                    let (record, _) = model.remove(step % model.len());
                    prop_assert!(table.remove(record));
                }
                prop_assert_eq!(table.len as usize, model.len());
                prop_assert_eq!(table.oldest(), model.first().map(|(_, oldest)| *oldest));
            }
        }
    }
}
