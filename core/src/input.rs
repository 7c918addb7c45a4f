//! One read buffer for all connections of a shard.
//!
//! A connection holds a buffer only while a command is half there. Everything else is read into one
//! shared buffer that stays warm in the cache, is lent to whoever's socket is readable, and comes
//! back within the same turn. So an idle connection costs no buffer, and bodies that were sliced
//! out of it, and not copied, share one allocation instead of pinning one each.

use bytes::BytesMut;

/// The most that one read takes, and how far a buffer may grow ahead of what has arrived: a peer
/// that announces a large body and sends nothing costs no more than this (nsqd-protocol.md,
/// weakness W21).
pub const READ_LEN_MAX: usize = 64 * 1024;

/// With less room than this the shared buffer is replaced, while slices of it are still alive. It
/// is what is wasted at the end of each, and the size of the shortest read under load.
const ROOM_MIN: usize = 8 * 1024;

/// The shared read buffer; see the [module](self).
///
/// ```
/// use bytes::{Buf, BytesMut};
/// use sansq_core::input::Inputs;
///
/// let mut inputs = Inputs::new();
/// let mut unread = BytesMut::new();
/// let mut buffer = inputs.lend(&mut unread, 1);
/// buffer.extend_from_slice(b"NOP\nNO"); // stands for a read from the socket
/// buffer.advance(4); // stands for what the machine decoded
/// unread = inputs.give_back(buffer);
/// assert_eq!(unread, "NO");
/// ```
#[derive(Debug, Default)]
pub struct Inputs {
    shared: BytesMut,
}

impl Inputs {
    /// Allocates nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves a connection's `unread` input to a buffer with room behind it, for one read. The
    /// command under way needs at least `missing` bytes more.
    ///
    /// Lend one buffer at a time, and [give it back](Self::give_back).
    #[must_use]
    pub fn lend(&mut self, unread: &mut BytesMut, missing: usize) -> BytesMut {
        if unread.len().saturating_add(missing) > READ_LEN_MAX {
            let mut own = core::mem::take(unread);
            // As much again as has arrived, so that the copies of growing stay within one per byte;
            // the last step is exact and the body gets an allocation of its size.
            own.reserve(missing.min(own.len().max(READ_LEN_MAX)));
            return own;
        }
        let mut shared = core::mem::take(&mut self.shared);
        let room_min = ROOM_MIN.max(missing).saturating_add(unread.len());
        if !shared.try_reclaim(READ_LEN_MAX) && shared.capacity() - shared.len() < room_min {
            shared = BytesMut::with_capacity(READ_LEN_MAX.max(room_min));
        }
        shared.extend_from_slice(unread);
        *unread = BytesMut::new();
        shared
    }

    /// Takes a buffer back. What is left in it is the connection's and is returned.
    #[must_use]
    pub fn give_back(&mut self, mut buffer: BytesMut) -> BytesMut {
        if self.shared.capacity() > 0 || buffer.capacity() > 2 * READ_LEN_MAX {
            // It was the connection's own, or is too large to be kept for all.
            return if buffer.is_empty() { BytesMut::new() } else { buffer };
        }
        let unread = BytesMut::from(&buffer[..]);
        buffer.clear();
        self.shared = buffer;
        unread
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_read_leaves_nothing_behind() {
        let mut inputs = Inputs::new();
        let buffer = inputs.lend(&mut BytesMut::new(), 1);
        let unread = inputs.give_back(buffer);
        assert_eq!(unread.capacity(), 0);
    }

    #[test]
    fn small_reads_share_one_allocation_while_slices_live() {
        let mut inputs = Inputs::new();
        let mut bodies = Vec::new();
        let mut starts = Vec::new();
        for _ in 0..100 {
            let mut buffer = inputs.lend(&mut BytesMut::new(), 1);
            buffer.extend_from_slice(&[7; 300]);
            let body = buffer.split_to(300).freeze();
            starts.push(body.as_ptr() as usize);
            bodies.push(body);
            assert_eq!(inputs.give_back(buffer).capacity(), 0);
        }
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 300));
    }

    #[test]
    fn an_announced_body_costs_no_more_than_a_read_ahead() {
        let mut inputs = Inputs::new();
        let mut unread = BytesMut::from(&b"PUB t\n\x7f\xff\xff\xff"[..]);
        let buffer = inputs.lend(&mut unread, usize::MAX);
        assert!(buffer.capacity() <= 2 * READ_LEN_MAX);
        assert_eq!(inputs.give_back(buffer), &b"PUB t\n\x7f\xff\xff\xff"[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However the bytes of several connections arrive, each connection sees its own, in order.
        #[test]
        fn bytes_stay_in_order(
            reads in prop::collection::vec((0_usize..3, 1_usize..90_000, 0_usize..200_000), 1..16),
        ) {
            let mut inputs = Inputs::new();
            let mut unread = vec![BytesMut::new(); 3];
            let (mut sent, mut seen) = (vec![0_u8; 3], vec![0_u8; 3]);
            for (conn, take, missing) in reads {
                let mut buffer = inputs.lend(&mut unread[conn], missing);
                let room = (buffer.capacity() - buffer.len()).min(READ_LEN_MAX);
                prop_assert!(room > 0);
                for _ in 0..room.min(take) {
                    buffer.extend_from_slice(&[sent[conn]]);
                    sent[conn] = sent[conn].wrapping_add(1);
                }
                let taken = buffer.split_to(take.min(buffer.len()));
                for byte in taken {
                    prop_assert_eq!(byte, seen[conn]);
                    seen[conn] = seen[conn].wrapping_add(1);
                }
                unread[conn] = inputs.give_back(buffer);
            }
        }
    }
}
