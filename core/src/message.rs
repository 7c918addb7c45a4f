//! A message: id, timestamp, attempts, body (nsqd-protocol.md sections 13 and 15).

use core::fmt;
use core::num::NonZeroU64;

use bytes::{Bytes, BytesMut};

use crate::time::UnixNanos;

/// The length of an id on the wire: 16 lower-case hex digits.
pub const MESSAGE_ID_LEN: usize = 16;

/// More deliveries than these are not counted: clients read the number as a signed one (nsq#1397).
pub const ATTEMPTS_MAX: u16 = i16::MAX as u16;

/// Bodies up to this many bytes are copied out of the read buffer; larger ones are slices of it.
///
/// Copying costs no more than slicing up to here (20 ns against 20 ns for 100 bytes, 70 against 40
/// for 1 KiB; measured 2026-08 on a 2-core virtual machine), and a lingering small message then
/// keeps no read buffer alive.
pub const COPY_LEN_MAX: usize = 256;

/// How many bytes of small bodies share one allocation. A lingering message pins at most this much.
const CHUNK_LEN: usize = 4096;

/// Names a message within one nsqd.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The id as clients see it.
    pub fn to_hex(self) -> [u8; MESSAGE_ID_LEN] {
        let mut hex = [0; MESSAGE_ID_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&HEX_PAIRS[usize::from(byte)]);
        }
        hex
    }

    /// Reads an id that a client sent back. `None` for anything that [`to_hex`](Self::to_hex) does
    /// not write, upper-case digits included: no message is in flight under such an id.
    pub fn parse(hex: &[u8]) -> Option<Self> {
        let hex: &[u8; MESSAGE_ID_LEN] = hex.try_into().ok()?;
        // Without branches, since every FIN has one.
        let (id, all) = hex.iter().fold((0, 0), |(id, all), digit| {
            let value = HEX_VALUES[usize::from(*digit)];
            (id << 4 | u64::from(value & 0xF), all | value)
        });
        (all <= 0xF).then_some(Self(id))
    }

    /// Whether the byte can be part of an id.
    pub(crate) const fn is_digit(byte: u8) -> bool {
        HEX_VALUES[byte as usize] <= 0xF
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Each byte's two hex digits.
static HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [HEX_DIGITS[byte >> 4], HEX_DIGITS[byte & 0xF]];
        byte += 1;
    }
    pairs
};

/// What each byte stands for as a hex digit; above 15 for those that are none.
static HEX_VALUES: [u8; 256] = {
    let mut values = [0xFF; 256];
    let mut value = 0;
    while value < 16 {
        values[HEX_DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// Names a record that was popped from a queue on disk, and is not finished yet
/// ([`DiskQueue::finish`](crate::storage::DiskQueue::finish)).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordId(pub(crate) NonZeroU64);

/// A message as it lies in a queue. Cloning shares the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The same in every channel of its topic.
    pub id: MessageId,
    /// When the broker had read it.
    pub timestamp: UnixNanos,
    /// How often it was delivered on this channel, 0 to [`ATTEMPTS_MAX`], where it stays.
    pub attempts: u16,
    /// Where it lies on the disk of its channel or topic, if it was popped from there: not until
    /// this is finished may the disk forget it.
    pub record: Option<RecordId>,
    /// One byte or more.
    pub body: Bytes,
}

// One cache line. Those that wait take less (`nsqd::backlog`).
const _: () = assert!(size_of::<Message>() <= 64);

/// Makes the ids of one shard.
///
/// The layout is the reference's (41 bits of time in units of 2^20 ns, 10 bits node, 12 bits
/// sequence), so that tools which take ids apart go on working. Unlike there one generator serves
/// all topics of a shard and the shards of a node divide the sequence, so that an id names one
/// message of a node (W12); and where the sequence is used up or the clock steps back, the
/// generator runs ahead of the clock rather than wait (W13).
#[derive(Clone, Debug)]
pub struct IdGenerator {
    node: u64,
    /// This shard's part of the sequence.
    sequence_first: u64,
    sequence_last: u64,
    last: u64,
}

impl IdGenerator {
    /// The generator of `shard` of `shards` on the node `node_id` (0 to 1023).
    pub fn new(node_id: u16, shard: u16, shards: u16) -> Self {
        let width = (SEQUENCE_LEN / u64::from(shards.max(1))).max(1);
        let sequence_first = u64::from(shard) * width % SEQUENCE_LEN;
        Self {
            node: u64::from(node_id) & 0x3FF,
            sequence_first,
            sequence_last: sequence_first + width - 1,
            last: 0,
        }
    }

    /// The next id, larger than all before.
    pub fn next_id(&mut self, unix: UnixNanos) -> MessageId {
        const EPOCH: i64 = 1_288_834_974_288;
        let ticks = (unix.0 >> 20).saturating_sub(EPOCH).max(0) as u64 & 0x1FF_FFFF_FFFF;
        let fresh = ticks << 22 | self.node << 12 | self.sequence_first;
        self.last = if fresh > self.last {
            fresh
        } else if self.left() > 0 {
            self.last + 1
        } else {
            // Out of sequence numbers in this unit of time: take the next unit's.
            ((self.last >> 22) + 1) << 22 | self.node << 12 | self.sequence_first
        };
        MessageId(self.last)
    }

    /// The next ids, one behind the other: the first, and how many. At most `max`, and at least
    /// one, if `max` is that.
    pub fn next_ids(&mut self, unix: UnixNanos, max: u32) -> (MessageId, u32) {
        let first = self.next_id(unix);
        let more = self.left().min(u64::from(max.saturating_sub(1)));
        self.last += more;
        (first, more as u32 + 1)
    }

    /// How many ids are left of those that begin as the last one does.
    const fn left(&self) -> u64 {
        self.sequence_last.saturating_sub(self.last & (SEQUENCE_LEN - 1))
    }
}

/// How many sequence numbers there are for each unit of time.
const SEQUENCE_LEN: u64 = 1 << 12;

/// Takes bodies out of read buffers: small ones copied into shared chunks, large ones sliced.
#[derive(Debug, Default)]
pub struct Bodies {
    chunk: BytesMut,
}

impl Bodies {
    /// Takes the first `len` bytes of `input` as a body.
    ///
    /// # Panics
    /// If `input` is shorter; callers have checked.
    pub fn take(&mut self, input: &mut BytesMut, len: usize) -> Bytes {
        if len > COPY_LEN_MAX {
            return input.split_to(len).freeze();
        }
        let body = self.copy(&input[..len]);
        bytes::Buf::advance(input, len);
        body
    }

    /// Copies a body, or several of them.
    pub fn copy(&mut self, body: &[u8]) -> Bytes {
        if body.len() > CHUNK_LEN / 4 {
            return Bytes::copy_from_slice(body);
        }
        if self.chunk.capacity() - self.chunk.len() < body.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_LEN);
        }
        self.chunk.extend_from_slice(body);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_written() {
        for id in [0, 1, 0x18a4_5739_7de6_9000, u64::MAX] {
            assert_eq!(MessageId::parse(&MessageId(id).to_hex()), Some(MessageId(id)));
        }
        assert_eq!(&MessageId(0xabc).to_hex(), b"0000000000000abc");
        for bad in ["", "0123", "0123456789ABCDEF", "zzzzzzzzzzzzzzzz", "00000000000000000"] {
            assert_eq!(MessageId::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn ids_have_the_reference_layout_and_never_repeat() {
        let now = UnixNanos(1_789_000_000_000_000_000);
        let mut generators = [IdGenerator::new(1023, 0, 2), IdGenerator::new(1023, 1, 2)];
        let mut seen = alloc::collections::BTreeSet::new();
        for _ in 0..10_000 {
            for generator in &mut generators {
                let id = generator.next_id(now).0;
                assert_eq!(id >> 12 & 0x3FF, 1023);
                assert!(seen.insert(id));
            }
        }
        let first = IdGenerator::new(1023, 0, 1).next_id(now).0;
        assert_eq!((first >> 22) as i64 + 1_288_834_974_288, now.0 >> 20);
        // Several at once are no others.
        for generator in &mut generators {
            for max in [1, 200, 5000, 2048, 1] {
                let (first, count) = generator.next_ids(now, max);
                assert!((1..=max).contains(&count));
                assert!(
                    (first.0..)
                        .take(count as usize)
                        .all(|id| seen.insert(id) && id >> 12 & 0x3FF == 1023)
                );
            }
        }
        // The clock steps back an hour: ids go on rising.
        let last = generators[0].next_id(now).0;
        assert!(generators[0].next_id(UnixNanos(now.0 - 3_600_000_000_000)).0 > last);
    }

    #[test]
    fn small_bodies_are_copied_and_large_ones_sliced() {
        let mut bodies = Bodies::default();
        let mut input = BytesMut::from(&[7; 1000][..]);
        let start = input.as_ptr();
        let small = bodies.take(&mut input, COPY_LEN_MAX);
        let large = bodies.take(&mut input, COPY_LEN_MAX + 1);
        assert_ne!(small.as_ptr(), start);
        assert_eq!(large.as_ptr(), start.wrapping_add(COPY_LEN_MAX));
        assert_eq!((small.len(), large.len(), input.len()), (256, 257, 487));
    }
}
