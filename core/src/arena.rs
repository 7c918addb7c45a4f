//! Generational slots: a stale id is ignored, never a panic and never somebody else's object.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

/// Names an object in an [`Arena`]: the slot and how often that slot had been used before.
pub trait Key: Copy {
    /// Puts an id together.
    fn new(index: u32, generation: u32) -> Self;
    /// The slot, dense from 0, reused after removal.
    fn index(self) -> u32;
    /// Tells apart the objects that used one slot.
    fn generation(self) -> u32;
}

/// Declares id types for [`Arena`]s.
macro_rules! arena_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name { index: u32, generation: u32 }

        impl $crate::arena::Key for $name {
            fn new(index: u32, generation: u32) -> Self { Self { index, generation } }
            fn index(self) -> u32 { self.index }
            fn generation(self) -> u32 { self.generation }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.index, self.generation)
            }
        }
    )*};
}

arena_ids! {
    /// A client connection of a shard or of nsqlookupd.
    ConnId;
    /// A topic of a shard.
    TopicId;
    /// A channel of a shard.
    ChannelId;
    /// A consumer of a channel: the channel's side of a subscribed connection.
    ConsumerId;
    /// A connection to one nsqlookupd.
    PeerId;
    /// An HTTP request that a shard asked for.
    CallId;
    /// A publish whose outcome depends on the disk.
    TicketId;
}

/// A table of objects with stable ids, O(1) in everything; iteration goes by slot.
pub struct Arena<K, V> {
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

struct Slot<V> {
    generation: u32,
    value: Option<V>,
}

impl<K: Key, V> Arena<K, V> {
    /// An empty table; allocates nothing.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), key: PhantomData }
    }

    /// Makes room for so many more objects, and no more than that.
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve_exact(more);
    }

    /// How many objects are in it.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `value` in and names it.
    ///
    /// # Panics
    /// At 2^32 objects, which no machine holds.
    pub fn insert(&mut self, value: V) -> K {
        self.insert_with(|_| value)
    }

    /// Puts in what `make` makes, which gets its name.
    ///
    /// # Panics
    /// As [`insert`](Self::insert).
    pub fn insert_with(&mut self, make: impl FnOnce(K) -> V) -> K {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            let key = K::new(index, slot.generation);
            slot.value = Some(make(key));
            return key;
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 objects");
        let key = K::new(index, 0);
        self.slots.push(Slot { generation: 0, value: Some(make(key)) });
        key
    }

    /// Takes the object out; `None` if it is gone already.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index());
        Some(value)
    }

    /// The object, if it is still there.
    pub fn get(&self, key: K) -> Option<&V> {
        let slot = self.slots.get(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    /// The object, if it is still there.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_mut() } else { None }
    }

    /// Whether the object is still there.
    pub fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// All objects, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let value = slot.value.as_ref()?;
            Some((K::new(index as u32, slot.generation), value))
        })
    }

    /// The objects in this slot and those behind it.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (K, &V)> {
        self.slots.iter().enumerate().skip(first as usize).filter_map(|(index, slot)| {
            let value = slot.value.as_ref()?;
            Some((K::new(index as u32, slot.generation), value))
        })
    }

    /// All objects, by slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let value = slot.value.as_mut()?;
            Some((K::new(index as u32, slot.generation), value))
        })
    }
}

impl<K: Key, V> Default for Arena<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key + fmt::Debug, V: fmt::Debug> fmt::Debug for Arena<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Of all ids that there ever were, each finds its own object or nothing, and slots are
        /// used again.
        #[test]
        fn it_is_a_map_whose_keys_never_come_again(
            steps in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 0..60),
        ) {
            let mut arena = Arena::<ConnId, usize>::new();
            let mut ever: Vec<(ConnId, Option<usize>)> = Vec::new();
            let mut most = 0;
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Some(at) if !ever.is_empty() => {
                        let (id, value) = at.get_mut(&mut ever);
                        prop_assert_eq!(arena.remove(*id), value.take());
                    }
                    _ => {
                        let id = arena.insert(value);
                        prop_assert!(ever.iter().all(|(other, _)| *other != id));
                        ever.push((id, Some(value)));
                    }
                }
                for (id, value) in &mut ever {
                    prop_assert_eq!(arena.get(*id), value.as_ref());
                    prop_assert_eq!(arena.get_mut(*id), value.as_mut());
                    prop_assert_eq!(arena.contains(*id), value.is_some());
                }
                let living = ever.iter().filter_map(|(id, value)| Some((*id, (*value)?)));
                let mut living: Vec<_> = living.collect();
                living.sort_unstable_by_key(|(id, _)| id.index());
                prop_assert!(arena.iter().map(|(id, value)| (id, *value)).eq(living.iter().copied()));
                prop_assert_eq!((arena.len(), arena.is_empty()), (living.len(), living.is_empty()));
                most = most.max(living.len());
                prop_assert!(arena.slots.len() <= most);
            }
        }
    }

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut arena = Arena::<ConnId, &str>::new();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(second.index(), first.index());
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(arena.len(), 1);
    }
}
