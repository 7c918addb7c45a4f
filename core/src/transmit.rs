//! Bytes owed to one peer.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

/// Bodies above this many bytes are not copied into the flat part but written from where they are.
///
/// Below it one more memory copy is cheaper than one more slice for the vectored write.
const COPY_LEN_MAX: usize = 4096;

/// An output buffer that is swapped out whole by the driver: small frames lie flat one behind the
/// other, large bodies stay where they are and are named by the position at which they belong.
///
/// It has no limit of its own; whoever fills it watches [`len`](Self::len).
#[derive(Debug, Default)]
pub struct Transmit {
    flat: Vec<u8>,
    /// Large parts, each to be written after the first `usize` bytes of `flat`.
    large: VecDeque<(usize, Bytes)>,
    /// How much of `flat` is written already.
    written: usize,
    len: usize,
}

impl Transmit {
    /// An empty buffer; allocates nothing.
    pub const fn new() -> Self {
        Self { flat: Vec::new(), large: VecDeque::new(), written: 0, len: 0 }
    }

    /// Everything in one piece, which costs nothing unless there are large bodies or a part is
    /// written.
    pub fn into_vec(mut self) -> Vec<u8> {
        if self.written == 0 && self.large.is_empty() {
            return self.flat;
        }
        let mut bytes = Vec::with_capacity(self.len);
        while !self.is_empty() {
            let mut part = [&[][..]];
            self.slices(&mut part);
            let [part] = part;
            bytes.extend_from_slice(part);
            let count = part.len();
            self.advance(count);
        }
        bytes
    }

    /// How many bytes are still to be written.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.flat.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends `body` by reference if it is large.
    pub fn push_body(&mut self, body: &Bytes) {
        if body.len() <= COPY_LEN_MAX {
            return self.push(body);
        }
        self.large.push_back((self.flat.len(), body.clone()));
        self.len += body.len();
    }

    /// Moves everything out of `other`, behind what is here.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            return core::mem::swap(self, other);
        }
        let mut at = other.written;
        for (before, body) in core::mem::take(&mut other.large) {
            self.push(&other.flat[at..before]);
            self.push_body(&body);
            at = before;
        }
        self.push(&other.flat[at..]);
        other.clear();
    }

    /// Fills `slices` with the next parts to write, in order, and returns how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [&'a [u8]]) -> usize {
        let (mut count, mut at) = (0, self.written);
        for (before, body) in &self.large {
            if at < *before {
                let Some(slot) = slices.get_mut(count) else { return count };
                *slot = &self.flat[at..*before];
                (count, at) = (count + 1, *before);
            }
            let Some(slot) = slices.get_mut(count) else { return count };
            *slot = body;
            count += 1;
        }
        if at < self.flat.len()
            && let Some(slot) = slices.get_mut(count)
        {
            *slot = &self.flat[at..];
            count += 1;
        }
        count
    }

    /// Takes note that the next `count` bytes are written. When all are, the space is reused, or
    /// given back if it was an unusual lot.
    ///
    /// # Panics
    /// If `count` is more than [`len`](Self::len): a driver reports what it wrote.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "more bytes reported as written than were owed");
        self.len -= count;
        while count > 0 {
            let flat_end = self.large.front().map_or(self.flat.len(), |(before, _)| *before);
            let flat = count.min(flat_end - self.written);
            self.written += flat;
            count -= flat;
            if count > 0
                && let Some((_, body)) = self.large.front_mut()
            {
                let part = count.min(body.len());
                bytes::Buf::advance(body, part);
                count -= part;
                if body.is_empty() {
                    self.large.pop_front();
                }
            }
        }
        if self.len == 0 {
            self.clear();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.flat.clear();
        self.flat.shrink_to(KEPT_LEN_MAX);
        self.large.clear();
        (self.written, self.len) = (0, 0);
    }

    /// Gives the memory of an empty buffer back, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }
}

impl From<Vec<u8>> for Transmit {
    /// Owes `flat`, which is not copied.
    fn from(flat: Vec<u8>) -> Self {
        Self { len: flat.len(), flat, ..Self::new() }
    }
}

/// An emptied buffer keeps this much capacity for the next turn.
const KEPT_LEN_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is pushed comes out in order, however the writes are cut.
        #[test]
        fn writes_may_stop_anywhere(
            parts in prop::collection::vec((any::<u8>(), 0_usize..10_000, any::<bool>()), 0..12),
            cuts in prop::collection::vec(1_usize..9_000, 1..40),
            slots in 1_usize..5,
        ) {
            let mut transmit = Transmit::new();
            let mut expected = Vec::new();
            for (byte, len, as_body) in parts {
                let bytes = alloc::vec![byte; len];
                expected.extend_from_slice(&bytes);
                if as_body { transmit.push_body(&Bytes::from(bytes)) } else { transmit.push(&bytes) }
            }
            let mut written = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !transmit.is_empty() {
                let mut slices = [&[][..]; 5];
                let count = transmit.slices(&mut slices[..slots]);
                prop_assert!(count > 0);
                let mut room = cuts.next().unwrap_or(1);
                let before = written.len();
                for slice in &slices[..count] {
                    let part = room.min(slice.len());
                    written.extend_from_slice(&slice[..part]);
                    room -= part;
                }
                let count = written.len() - before;
                transmit.advance(count);
            }
            prop_assert_eq!(written, expected);
        }

        /// Also in one piece.
        #[test]
        fn bytes_come_out_in_one_piece(
            first in prop::collection::vec(any::<u8>(), 0..100),
            lens in prop::collection::vec(0_usize..10_000, 0..6),
            written in 0_usize..200,
        ) {
            let mut transmit = Transmit::from(first.clone());
            let mut expected = first;
            for len in lens {
                let body = Bytes::from(alloc::vec![len as u8; len]);
                expected.extend_from_slice(&body);
                transmit.push_body(&body);
            }
            let written = written.min(expected.len());
            transmit.advance(written);
            prop_assert_eq!(transmit.into_vec(), &expected[written..]);
        }
    }
}
