//! The messages of one MPUB, in one piece.

use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};

use crate::message::{Bodies, COPY_LEN_MAX};

/// The bytes of the length before each body.
const LEN_LEN: usize = 4;

/// Bodies, each behind its length, as an MPUB has them (nsqd-protocol.md section 7.6).
///
/// They stay together for as long as they wait together: what costs something per message is paid
/// when a message leaves, and not before.
///
/// ```
/// use sansq_core::list::MessageList;
///
/// let list: MessageList = ["one", "two"].into_iter().collect();
/// assert_eq!(list.len(), 2);
/// assert!(list.iter().eq([b"one", b"two"]));
/// ```
#[derive(Clone, Debug, Default, Eq)]
pub struct MessageList {
    count: u32,
    /// How long the allocation may be in which the bytes lie.
    whole: u32,
    bytes: Bytes,
}

impl PartialEq for MessageList {
    fn eq(&self, other: &Self) -> bool {
        (self.count, &self.bytes) == (other.count, &other.bytes)
    }
}

impl MessageList {
    /// Takes `count` bodies with their lengths, which is all of the first `len` bytes, out of
    /// `input`: small bodies are copied, so that they keep no read buffer alive, large ones are
    /// sliced out.
    pub(crate) fn take(count: u32, input: &mut BytesMut, len: usize, bodies: &mut Bodies) -> Self {
        let bytes = if is_copied(count, len) {
            let bytes = bodies.copy(&input[..len]);
            input.advance(len);
            bytes
        } else {
            input.split_to(len).freeze()
        };
        Self { count, whole: whole(len), bytes }
    }

    /// The same with `part`, which lies in `all`.
    pub(crate) fn slice(count: u32, all: &Bytes, part: &[u8]) -> Self {
        let copies = is_copied(count, part.len());
        let bytes = if copies { Bytes::copy_from_slice(part) } else { all.slice_ref(part) };
        Self { count, whole: whole(all.len()), bytes }
    }

    /// How many messages it has.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of the bodies.
    pub const fn body_bytes(&self) -> usize {
        self.bytes.len() - LEN_LEN * self.len()
    }

    /// The bytes of the bodies and of their lengths.
    pub const fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The bodies, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        core::iter::from_fn(move || {
            let (len, behind) = rest.split_first_chunk()?;
            let body;
            (body, rest) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            Some(body)
        })
    }

    /// Takes the first body out.
    pub(crate) fn pop_front(&mut self, bodies: &mut Bodies) -> Option<Bytes> {
        self.count = self.count.checked_sub(1)?;
        let len = self.bytes.try_get_u32().ok()? as usize;
        let pins = self.whole as usize > PINNED_LEN_MAX.max(len.saturating_mul(PINNED_RATIO_MAX));
        if len > COPY_LEN_MAX && !pins {
            return Some(self.bytes.split_to(len.min(self.bytes.len())));
        }
        let body = bodies.copy(self.bytes.get(..len)?);
        self.bytes.advance(len);
        Some(body)
    }

    /// Takes the first `count` bodies out, or all there are.
    pub(crate) fn split_front(&mut self, count: u32) -> Self {
        if count >= self.count {
            return core::mem::take(self);
        }
        let bodies = self.iter().take(count as usize);
        let len = bodies.map(|body| LEN_LEN + body.len()).sum();
        self.count -= count;
        Self { count, whole: self.whole, bytes: self.bytes.split_to(len) }
    }
}

impl<B: AsRef<[u8]>> FromIterator<B> for MessageList {
    /// A list of copies.
    ///
    /// # Panics
    /// If a body, or the number of bodies, is longer than 32 bits can say.
    fn from_iter<I: IntoIterator<Item = B>>(bodies: I) -> Self {
        let (mut count, mut bytes) = (0_u32, Vec::new());
        for body in bodies {
            let body = body.as_ref();
            let len = u32::try_from(body.len()).expect("a body's length fits 32 bits");
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(body);
            count = count.checked_add(1).expect("a list's length fits 32 bits");
        }
        Self { count, whole: whole(bytes.len()), bytes: bytes.into() }
    }
}

/// How long a list may be for its bodies to be sliced out of it, whatever their lengths. One that
/// waits longer than the others keeps all of it alive.
const PINNED_LEN_MAX: usize = 256 * 1024;

/// Of a longer list only bodies are sliced out that are at least one part in so many; others are
/// copied.
const PINNED_RATIO_MAX: usize = 16;

fn whole(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Whether a list is copied: if its bodies are small on average.
const fn is_copied(count: u32, len: usize) -> bool {
    len <= count as usize * (LEN_LEN + COPY_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_small_body_keeps_no_large_list_alive() {
        let mut bodies = Bodies::default();
        for (len, small, is_copied) in [
            (PINNED_LEN_MAX * 2, 300, true),
            (PINNED_LEN_MAX * 2, PINNED_LEN_MAX * 2 / PINNED_RATIO_MAX - 1, true),
            (PINNED_LEN_MAX * 2, PINNED_LEN_MAX / 4, false),
            (PINNED_LEN_MAX / 2, 300, false),
        ] {
            let large = len - small - 2 * LEN_LEN;
            let mut list: MessageList = [vec![1; large], vec![2; small]].into_iter().collect();
            let range = list.bytes.as_ptr_range();
            assert_eq!(list.pop_front(&mut bodies).map(|body| body.len()), Some(large));
            let mut last = list.split_front(1);
            let body = last.pop_front(&mut bodies).unwrap();
            assert_eq!(range.contains(&body.as_ptr()), !is_copied, "{small} of {len}");
            assert_eq!(body, vec![2; small]);
        }
    }

    fn body() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![4 => 1_usize..20, 1 => COPY_LEN_MAX - 1..COPY_LEN_MAX + 3, 1 => 1000_usize..5000];
        (any::<u8>(), len).prop_map(|(byte, len)| alloc::vec![byte; len])
    }

    proptest! {
        /// However a list is cut, the bodies come out as they went in.
        #[test]
        fn nothing_is_lost(
            expected in prop::collection::vec(body(), 0..20),
            cuts in prop::collection::vec(0_u32..6, 0..20),
            behind in 0_usize..10,
        ) {
            let made: MessageList = expected.iter().collect();
            let mut input = BytesMut::from(&made.bytes[..]);
            input.extend_from_slice(&alloc::vec![0; behind]);
            let mut bodies = Bodies::default();
            let mut list = MessageList::take(made.count, &mut input, made.bytes.len(), &mut bodies);
            prop_assert_eq!(input.len(), behind);
            prop_assert_eq!(&list, &made);
            prop_assert_eq!(&MessageList::slice(made.count, &made.bytes, &made.bytes), &made);
            prop_assert!(list.iter().eq(expected.iter().map(Vec::as_slice)));
            prop_assert_eq!(list.body_bytes(), expected.iter().map(Vec::len).sum::<usize>());
            let mut found = Vec::new();
            for cut in cuts {
                let mut part = list.split_front(cut);
                prop_assert!(part.len() <= cut as usize);
                prop_assert!(part.iter().eq(expected[found.len()..][..part.len()].iter().map(Vec::as_slice)));
                while let Some(body) = part.pop_front(&mut bodies) {
                    found.push(body);
                }
            }
            while let Some(body) = list.pop_front(&mut bodies) {
                found.push(body);
            }
            prop_assert!(list.is_empty());
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn small_bodies_keep_no_buffer_alive() {
        let made: MessageList = ["one", "two"].into_iter().collect();
        let mut input = BytesMut::from(&made.bytes[..]);
        let range = input.as_ptr_range();
        let mut bodies = Bodies::default();
        let mut list = MessageList::take(2, &mut input, made.bytes.len(), &mut bodies);
        assert!(!range.contains(&list.bytes.as_ptr()));
        // Nor, once it has left, a whole list.
        let range = list.bytes.as_ptr_range();
        let one = list.pop_front(&mut bodies).unwrap();
        assert!(!range.contains(&one.as_ptr()));
        let large: MessageList = [[0; COPY_LEN_MAX + 1]].into_iter().collect();
        let mut input = BytesMut::from(&large.bytes[..]);
        let range = input.as_ptr_range();
        let mut list = MessageList::take(1, &mut input, large.bytes.len(), &mut bodies);
        assert!(range.contains(&list.pop_front(&mut bodies).unwrap().as_ptr()));
    }
}
