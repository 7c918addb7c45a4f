//! A queue in blocks.
//!
//! One contiguous ring would double when it is full: it copies everything, needs three times the
//! memory meanwhile, and touches pages that nobody has touched before. Here growing costs a block,
//! and what is taken out gives its blocks back.

use alloc::collections::VecDeque;

/// Values in one block.
const BLOCK_LEN: usize = 512;

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    /// None of them is empty; all but the first and the last are full.
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
    /// The block that became empty last, for the next one: a queue that is filled and emptied again
    /// and again allocates nothing.
    spare: VecDeque<T>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Fifo<T> {
    /// An empty queue, which takes no memory.
    pub(crate) const fn new() -> Self {
        Self { blocks: VecDeque::new(), len: 0, spare: VecDeque::new() }
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push_back(&mut self, value: T) {
        self.len += 1;
        match self.blocks.back_mut() {
            Some(last) if last.len() < BLOCK_LEN => last.push_back(value),
            last => {
                // A short queue grows as it needs to; behind a full block another one will fill up.
                let is_long = last.is_some();
                let mut block = core::mem::take(&mut self.spare);
                if is_long {
                    block.reserve_exact(BLOCK_LEN);
                }
                block.push_back(value);
                self.blocks.push_back(block);
            }
        }
    }

    pub(crate) fn push_front(&mut self, value: T) {
        self.len += 1;
        match self.blocks.front_mut() {
            Some(first) if first.len() < BLOCK_LEN => first.push_front(value),
            _ => {
                let mut block = core::mem::take(&mut self.spare);
                block.push_front(value);
                self.blocks.push_front(block);
            }
        }
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.blocks.front_mut()?.front_mut()
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.blocks.front_mut()?;
        let value = first.pop_front();
        self.len -= 1;
        if first.is_empty() {
            self.retire(true);
        }
        value
    }

    pub(crate) fn pop_back(&mut self) -> Option<T> {
        let last = self.blocks.back_mut()?;
        let value = last.pop_back();
        self.len -= 1;
        if last.is_empty() {
            self.retire(false);
        }
        value
    }

    /// All values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// How many values there is room for without allocating.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.blocks.iter().map(VecDeque::capacity).sum::<usize>() + self.spare.capacity()
    }

    /// The first block, or the last, is empty.
    fn retire(&mut self, is_first: bool) {
        let block = if is_first { self.blocks.pop_front() } else { self.blocks.pop_back() };
        if let Some(block) = block
            && block.capacity() > self.spare.capacity()
        {
            self.spare = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        PushFront(usize),
        Pop(usize),
        PopBack(usize),
        Touch,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3 * BLOCK_LEN).prop_map(Step::Push),
            1 => (0..10_usize).prop_map(Step::PushFront),
            2 => (0..3 * BLOCK_LEN).prop_map(Step::Pop),
            1 => (0..3 * BLOCK_LEN).prop_map(Step::PopBack),
            1 => Just(Step::Touch),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_deque(steps in prop::collection::vec(step(), 0..30)) {
            let (mut fifo, mut model, mut next) = (Fifo::new(), VecDeque::new(), 0..);
            for step in steps {
                match step {
                    Step::Push(count) => for value in next.by_ref().take(count) {
                        fifo.push_back(value);
                        model.push_back(value);
                    },
                    Step::PushFront(count) => for value in next.by_ref().take(count) {
                        fifo.push_front(value);
                        model.push_front(value);
                    },
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(fifo.pop_front(), model.pop_front());
                    },
                    Step::PopBack(count) => for _ in 0..count {
                        prop_assert_eq!(fifo.pop_back(), model.pop_back());
                    },
                    Step::Touch => {
                        if let Some(first) = fifo.front_mut() { *first += 1 }
                        if let Some(first) = model.front_mut() { *first += 1 }
                    }
                }
                prop_assert!(fifo.iter().eq(&model));
                prop_assert_eq!(fifo.len(), model.len());
                // Memory follows: two partly filled blocks, and the spare one.
                prop_assert!(fifo.capacity() <= fifo.len() + 4 * BLOCK_LEN);
            }
        }
    }

    #[test]
    fn in_and_out_again_and_again_allocates_one_block() {
        let mut fifo = Fifo::new();
        for round in 0..1000 {
            fifo.push_back(round);
            assert_eq!(fifo.pop_front(), Some(round));
        }
        assert!((1..=8).contains(&fifo.capacity()));
    }
}
