//! Records: a size field and a message, back to back (storage-formats.md section 4).
//!
//! ```text
//!   0        4             12        14                  30
//!   | size   | timestamp   | attempts| id, 16 hex digits | body …
//! ```
//!
//! All integers are big-endian; the size is that of everything behind its field. There is no
//! checksum: what tells a record from garbage is a size that fits into the file and an id that is
//! one.

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{ATTEMPTS_MAX, Bodies, COPY_LEN_MAX, MESSAGE_ID_LEN, Message, MessageId};
use crate::time::UnixNanos;

/// The length of what is in front of a body, in bytes.
pub(super) const HEADER_LEN: usize = 30;

/// The length of the size field.
pub(super) const SIZE_LEN: usize = 4;

/// The first byte of times from the year 2080 on, and of all digits and letters: text has hex
/// digits as well as an id, but no such time.
const TIME_END: u8 = b'0';

/// Where the id begins.
const ID_AT: usize = HEADER_LEN - MESSAGE_ID_LEN;

/// The smallest size: that of an empty body.
const SIZE_MIN: usize = HEADER_LEN - SIZE_LEN;

/// The longest body that a size field can tell of.
pub(super) const BODY_LEN_MAX: usize = i32::MAX as usize - SIZE_MIN;

/// How many bytes the message takes in a data file.
pub(super) const fn len(message: &Message) -> u64 {
    (HEADER_LEN + message.body.len()) as u64
}

/// Writes everything but the body, which is at most [`BODY_LEN_MAX`] long.
pub(super) fn push_header(buffer: &mut BytesMut, message: &Message) {
    buffer.put_u32((SIZE_MIN + message.body.len()) as u32);
    buffer.put_i64(message.timestamp.0);
    buffer.put_u16(message.attempts);
    buffer.put_slice(&message.id.to_hex());
}

/// What is at a place in a data file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// A record of this length in bytes.
    Record(usize),
    /// So many bytes from this place on are needed to say.
    More(usize),
    /// Nothing that can be a record.
    Bad(Damage),
    /// Something of this length, if its size is right, with an id that is none.
    BadId(usize),
}

/// Why something is not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Damage {
    /// The size may be what a hole left of a larger one, and no record follows where it leads.
    Cut(i32),
    /// The id is not one.
    Id,
    /// The file ends before the record.
    Short,
    /// The size field is out of range.
    Size(i32),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(size) => write!(f, "a hole may have cut the message size ({size})"),
            Self::Id => f.write_str("invalid message id"),
            Self::Short => f.write_str("unexpected EOF"),
            Self::Size(size) => write!(f, "invalid message read size ({size})"),
        }
    }
}

/// Looks at the start of `bytes`, of a file that has `left` bytes from there on; `left` is not 0.
pub(super) fn step(bytes: &[u8], left: u64) -> Step {
    let header_len = usize::try_from(left).unwrap_or(usize::MAX).min(HEADER_LEN);
    let Some(header) = bytes.get(..header_len) else { return Step::More(header_len) };
    let Some(size) = header.first_chunk() else { return Step::Bad(Damage::Short) };
    let size = i32::from_be_bytes(*size);
    let len = match usize::try_from(size) {
        Ok(size) if size >= SIZE_MIN => size + SIZE_LEN,
        _ => return Step::Bad(Damage::Size(size)),
    };
    if len as u64 > left {
        Step::Bad(Damage::Short)
    } else if !has_id(header) {
        Step::BadId(len)
    } else if bytes.len() < len {
        Step::More(len)
    } else {
        Step::Record(len)
    }
}

/// How long the record is that begins with `bytes`, of which there are [`HEADER_LEN`] at least,
/// where nobody knows that one begins. `None` if its size is not one, leads beyond the `left` bytes
/// that there are, its id is not one, or its time is later than [`TIME_END`].
pub(super) fn len_of(bytes: &[u8], left: u64) -> Option<u64> {
    let (size, rest) = bytes.split_first_chunk::<SIZE_LEN>()?;
    let size = u64::try_from(i32::from_be_bytes(*size)).ok()?;
    let len = size + SIZE_LEN as u64;
    let is_time = rest.first().is_some_and(|byte| *byte < TIME_END);
    (size >= SIZE_MIN as u64 && len <= left && is_time && has_id(bytes)).then_some(len)
}

/// Whether `bytes` begin with a record or, at the end of the file, with the start of one that was
/// not written to its end. They are all that the file has from there on, or its first
/// [`HEADER_LEN`] bytes.
pub(super) fn begins(bytes: &[u8]) -> bool {
    let Some((size, rest)) = bytes.split_first_chunk::<SIZE_LEN>() else { return true };
    let id = rest.iter().skip(ID_AT - SIZE_LEN).take(MESSAGE_ID_LEN);
    i32::from_be_bytes(*size) >= SIZE_MIN as i32 && id.copied().all(MessageId::is_digit)
}

/// Whether the size at the start of `bytes` is that of a message that may be published, if it is
/// there.
pub(super) fn fits(bytes: &[u8], max_msg_size: usize) -> bool {
    let size = bytes.first_chunk().map(|size| i32::from_be_bytes(*size));
    size.is_none_or(|size| usize::try_from(size).is_ok_and(|size| size <= SIZE_MIN + max_msg_size))
}

/// Whether `bytes`, the start of a record or of nothing, have an id where a record has it.
pub(super) fn has_id(bytes: &[u8]) -> bool {
    bytes.get(ID_AT..HEADER_LEN).is_some_and(|id| MessageId::parse(id).is_some())
}

/// The message of `record`, which [`step`] found to be one: a small body is copied, a large one is
/// a slice. `None` if it is no record.
pub(super) fn decode(record: &Bytes, bodies: &mut Bodies) -> Option<Message> {
    let (_, rest) = record.split_first_chunk::<SIZE_LEN>()?;
    let (timestamp, rest) = rest.split_first_chunk::<8>()?;
    let (attempts, rest) = rest.split_first_chunk::<2>()?;
    let (id, body) = rest.split_first_chunk::<MESSAGE_ID_LEN>()?;
    let body =
        if body.len() > COPY_LEN_MAX { record.slice(HEADER_LEN..) } else { bodies.copy(body) };
    Some(Message {
        id: MessageId::parse(id)?,
        timestamp: UnixNanos(i64::from_be_bytes(*timestamp)),
        attempts: u16::from_be_bytes(*attempts).min(ATTEMPTS_MAX),
        record: None,
        body,
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn encode(message: &Message) -> Vec<u8> {
        let mut buffer = BytesMut::new();
        push_header(&mut buffer, message);
        buffer.extend_from_slice(&message.body);
        buffer.to_vec()
    }

    fn message(body: Vec<u8>) -> Message {
        Message {
            id: MessageId(0x18a4_5832_e762_9000),
            timestamp: UnixNanos(0x18ea_5ed9_dec4_12c6),
            attempts: 0,
            record: None,
            body: Bytes::from(body),
        }
    }

    #[test]
    fn a_record_is_the_references() {
        let hex = "0000001f18ea5ed9dec412c6000031386134353833326537363239303030626f647933";
        let written: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let message = message(b"body3".to_vec());
        assert_eq!(encode(&message), written);
        assert_eq!(step(&written, 35), Step::Record(35));
        let record = Bytes::from(written);
        assert_eq!(decode(&record, &mut Bodies::default()), Some(message));
    }

    /// A file of another server may have more.
    #[test]
    fn attempts_are_read_up_to_their_limit() {
        for (written, read) in [(0, 0), (0x7FFF, 0x7FFF), (0x8000, 0x7FFF), (0xFFFF, 0x7FFF)] {
            let message = Message { attempts: written, ..message(b"body3".to_vec()) };
            let record = Bytes::from(encode(&message));
            let decoded = decode(&record, &mut Bodies::default()).unwrap();
            assert_eq!(decoded.attempts, read);
        }
    }

    #[test]
    fn damage_is_told_apart() {
        let good = encode(&message(b"body3".to_vec()));
        // Not all is there yet, or all there is.
        assert_eq!(step(&good[..3], 35), Step::More(30));
        assert_eq!(step(&good[..30], 35), Step::More(35));
        assert_eq!(step(&good[..3], 3), Step::Bad(Damage::Short));
        assert_eq!(step(&good[..20], 20), Step::Bad(Damage::Short));
        assert_eq!(step(&good[..34], 34), Step::Bad(Damage::Short));
        for size in [-16, 0, 25] {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&i32::to_be_bytes(size));
            assert_eq!(step(&bytes, 35), Step::Bad(Damage::Size(size)));
        }
        let mut bad = good;
        bad[14] = b'G';
        assert_eq!(step(&bad, 35), Step::BadId(35));
        // Before the rest of it is asked for, which may be much.
        bad[..4].copy_from_slice(&90_000_000_i32.to_be_bytes());
        assert_eq!(step(&bad[..30], 100_000_000), Step::BadId(90_000_004));
    }

    #[test]
    fn the_start_of_a_record_is_told_from_garbage() {
        let good = encode(&message(vec![b'x'; 70]));
        assert_eq!(len_of(&good, 100), Some(100));
        assert_eq!(len_of(&good[..30], 99), None);
        for len in 0..100 {
            assert!(begins(&good[..len]), "{len}");
        }
        let mut text = good.clone();
        text[4..12].fill(b'0');
        assert_eq!((len_of(&text, 100), begins(&text)), (None, true));
        for (at, byte) in [(0, 0x80), (3, 25), (14, b'A'), (29, 0)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(len_of(&bad, 100), None);
            assert!(!begins(&bad), "{at}");
            assert_eq!(begins(&bad[..at.max(4)]), at > 3, "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (id, timestamp, attempts) in (any::<u64>(), any::<i64>(), 0..=ATTEMPTS_MAX),
            body in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            let message = Message {
                id: MessageId(id),
                timestamp: UnixNanos(timestamp),
                attempts,
                record: None,
                body: Bytes::from(body),
            };
            let bytes = encode(&message);
            prop_assert_eq!(bytes.len() as u64, len(&message));
            prop_assert_eq!(step(&bytes, len(&message)), Step::Record(bytes.len()));
            let read = decode(&Bytes::from(bytes), &mut Bodies::default());
            prop_assert_eq!(read, Some(message));
        }
    }
}
