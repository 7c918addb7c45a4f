//! The frames that a server sends, as a client reads them (nsqd-protocol.md section 3).

use bytes::{Buf, Bytes, BytesMut};
use core::fmt;

use crate::log::Count;
use crate::message::{COPY_LEN_MAX, MESSAGE_ID_LEN};
use crate::protocol::frame::{CLOSE_WAIT, HEARTBEAT, MESSAGE_HEADER_LEN, OK};
use crate::time::UnixNanos;

/// One frame from a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// Type 0: an answer, or a heartbeat.
    Response(Bytes),
    /// Type 1: a code, a blank and any bytes as text.
    Error(Bytes),
    /// Type 2: a delivery.
    Message(Received),
}

/// A message as it came from a server (nsqd-protocol.md section 15.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// When the server took the message.
    pub timestamp: UnixNanos,
    /// How often it was sent, this time included; wraps at 65536 with the reference server.
    pub attempts: u16,
    /// The id as the server wrote it: a client gives it back and never looks inside.
    pub id: [u8; MESSAGE_ID_LEN],
    /// The body.
    pub body: Bytes,
}

/// The server sent something that is not a frame; the connection cannot be used any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// The size field is smaller than the type field behind it.
    TooSmall {
        /// The size field.
        size: i32,
    },
    /// The size field is above the limit.
    TooBig {
        /// The size field, in bytes.
        size: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// A type other than 0, 1 and 2.
    UnknownType(i32),
    /// A message frame that ends before the body.
    ShortMessage {
        /// The length of its payload, in bytes.
        len: usize,
    },
    /// The other side speaks HTTP.
    UnexpectedHttp,
}

/// Takes the next frame out of `input`, `None` if more bytes are needed.
///
/// Small bodies are copied and large ones sliced out of `input`, so that a message that is kept for
/// long does not hold a whole read buffer. Nothing else is allocated for a message, and nothing at
/// all for `OK`, `CLOSE_WAIT` and heartbeats.
///
/// # Errors
/// [`FrameError`] as soon as the header shows it; `input` is then of no further use.
pub fn decode(input: &mut BytesMut, size_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some((size_field, rest)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if size_field == b"HTTP" {
        return Err(FrameError::UnexpectedHttp);
    }
    let size = i32::from_be_bytes(*size_field);
    let size = usize::try_from(size).map_err(|_| FrameError::TooSmall { size })?;
    if size < TYPE_LEN {
        return Err(FrameError::TooSmall { size: size as i32 });
    }
    if size > size_max {
        return Err(FrameError::TooBig { size, max: size_max });
    }
    let Some(frame) = rest.get(..size) else {
        return Ok(None);
    };
    let Some((type_field, payload)) = frame.split_first_chunk::<4>() else {
        return Err(FrameError::TooSmall { size: size as i32 });
    };
    let frame = match i32::from_be_bytes(*type_field) {
        TYPE_RESPONSE => Frame::Response(copy_response(payload)),
        TYPE_ERROR => Frame::Error(Bytes::copy_from_slice(payload)),
        TYPE_MESSAGE => return take_message(input, size - TYPE_LEN).map(Some),
        other => return Err(FrameError::UnknownType(other)),
    };
    input.advance(SIZE_LEN + size);
    Ok(Some(frame))
}

/// The answers that come all the time cost no allocation.
fn copy_response(payload: &[u8]) -> Bytes {
    match [OK, HEARTBEAT, CLOSE_WAIT].into_iter().find(|known| *known == payload) {
        Some(known) => Bytes::from_static(known),
        None => Bytes::copy_from_slice(payload),
    }
}

/// Takes a whole message frame with a payload of `len` bytes out of `input`.
fn take_message(input: &mut BytesMut, len: usize) -> Result<Frame, FrameError> {
    if len < MESSAGE_HEADER_LEN {
        return Err(FrameError::ShortMessage { len });
    }
    input.advance(SIZE_LEN + TYPE_LEN);
    let timestamp = UnixNanos(input.get_i64());
    let attempts = input.get_u16();
    let mut id = [0; MESSAGE_ID_LEN];
    input.copy_to_slice(&mut id);
    let body_len = len - MESSAGE_HEADER_LEN;
    let body = if body_len <= COPY_LEN_MAX {
        let copy = Bytes::copy_from_slice(&input[..body_len]);
        input.advance(body_len);
        copy
    } else {
        input.split_to(body_len).freeze()
    };
    Ok(Frame::Message(Received { timestamp, attempts, id, body }))
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { size } => {
                write!(f, "a frame of {} is too short for its type", Count(*size, "byte"))
            }
            Self::TooBig { size, max } => {
                write!(f, "a frame of {size} bytes is over max_frame_size, {max} bytes")
            }
            Self::UnknownType(other) => write!(f, "unknown frame type {other}"),
            Self::ShortMessage { len } => {
                write!(f, "not enough data to decode valid message: {len} bytes")
            }
            Self::UnexpectedHttp => {
                f.write_str("unexpected HTTP response, a nsqd TCP endpoint is required")
            }
        }
    }
}

impl core::error::Error for FrameError {}

const TYPE_RESPONSE: i32 = 0;
const TYPE_ERROR: i32 = 1;
const TYPE_MESSAGE: i32 = 2;

/// The size field itself, which its value does not count.
const SIZE_LEN: usize = 4;

/// The type field, which the size counts.
const TYPE_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const SIZE_MAX: usize = 4096;

    fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut input = BytesMut::from(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = decode(&mut input, SIZE_MAX)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn the_frames_of_the_specification() {
        let mut bytes = b"\0\0\0\x06\0\0\0\0OK\0\0\0\x0f\0\0\0\0_heartbeat_".to_vec();
        bytes.extend_from_slice(b"\0\0\0\x30\0\0\0\x01");
        bytes.extend_from_slice(b"E_INVALID RDY count 9999 out of range 0-2500");
        bytes.extend_from_slice(b"\0\0\0\x23\0\0\0\x02\x18\xea\x5e\x9e\x84\x7b\xff\xdb\0\x01");
        bytes.extend_from_slice(b"18a457397de69000hello");
        assert_eq!(
            decode_all(&bytes),
            Ok(alloc::vec![
                Frame::Response(Bytes::from_static(b"OK")),
                Frame::Response(Bytes::from_static(b"_heartbeat_")),
                Frame::Error(Bytes::from_static(b"E_INVALID RDY count 9999 out of range 0-2500")),
                Frame::Message(Received {
                    timestamp: UnixNanos(0x18ea_5e9e_847b_ffdb),
                    attempts: 1,
                    id: *b"18a457397de69000",
                    body: Bytes::from_static(b"hello"),
                }),
            ])
        );
    }

    #[test]
    fn what_is_not_a_frame() {
        for (bytes, error) in [
            (&b"\0\0\0\x03"[..], FrameError::TooSmall { size: 3 }),
            (b"\xff\xff\xff\xff", FrameError::TooSmall { size: -1 }),
            (b"\0\0\x10\x01", FrameError::TooBig { size: 4097, max: 4096 }),
            (b"HTTP/1.1 400 Bad Request", FrameError::UnexpectedHttp),
            (b"\0\0\0\x04\0\0\0\x03", FrameError::UnknownType(3)),
            (b"\0\0\0\x06\0\0\0\x02ab", FrameError::ShortMessage { len: 2 }),
        ] {
            assert_eq!(decode_all(bytes), Err(error), "{bytes:?}");
        }
        // An empty payload is a frame, and so is a message without a body.
        assert_eq!(
            decode_all(b"\0\0\0\x04\0\0\0\0"),
            Ok(alloc::vec![Frame::Response(Bytes::new())])
        );
        let empty = [&b"\0\0\0\x1e\0\0\0\x02"[..], &[0; 26]].concat();
        assert_eq!(decode_all(&empty).map(|frames| frames.len()), Ok(1));
    }

    #[test]
    fn a_large_body_is_sliced_and_a_small_one_is_not() {
        for (len, shared) in [(COPY_LEN_MAX, false), (COPY_LEN_MAX + 1, true)] {
            let mut input = BytesMut::new();
            input.extend_from_slice(&((30 + len) as u32).to_be_bytes());
            input.extend_from_slice(&[0, 0, 0, 2]);
            input.extend_from_slice(&[b'0'; 26]);
            input.resize(8 + 26 + len, b'x');
            let place = input[34..].as_ptr();
            let Ok(Some(Frame::Message(message))) = decode(&mut input, SIZE_MAX) else {
                panic!("a message of {len} bytes");
            };
            assert_eq!(message.body, alloc::vec![b'x'; len]);
            assert_eq!(message.body.as_ptr() == place, shared);
            assert!(input.is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&bytes);
        }

        /// Small sizes and types, so that frames of all kinds come about.
        #[test]
        fn a_frame_takes_exactly_its_bytes(
            kind in 0_u32..4,
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            extra in 0_usize..9,
        ) {
            let mut input = BytesMut::new();
            input.extend_from_slice(&(4 + payload.len() as u32).to_be_bytes());
            input.extend_from_slice(&kind.to_be_bytes());
            input.extend_from_slice(&payload);
            for cut in 0..input.len() {
                let mut part = BytesMut::from(&input[..cut]);
                prop_assert_eq!(decode(&mut part, SIZE_MAX), Ok(None));
                prop_assert_eq!(part.len(), cut);
            }
            input.resize(input.len() + extra, 0);
            match decode(&mut input, SIZE_MAX) {
                Ok(Some(_)) => prop_assert_eq!(input.len(), extra),
                Ok(None) => prop_assert!(false, "the frame was complete"),
                Err(_) => prop_assert!(kind == 3 || kind == 2 && payload.len() < 26),
            }
        }
    }
}
