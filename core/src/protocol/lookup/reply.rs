//! Replies: a length and a text. There is no frame type; what the text means, its text tells.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The text of a reply that says no more than yes.
pub const OK: &[u8] = b"OK";

/// Appends one reply. `text` is shorter than 2 GiB, by the limits on all that nsqlookupd says.
pub fn encode_reply(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
}

/// Takes replies apart on nsqd's side.
#[derive(Clone, Copy, Debug)]
pub struct ReplyDecoder {
    len_max: usize,
}

impl ReplyDecoder {
    /// A decoder for replies of at most `len_max` bytes (nsqd's `max-body-size`).
    pub const fn new(len_max: usize) -> Self {
        Self { len_max }
    }

    /// Takes the next whole reply's text out of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ReplyLenError`] for a length that is negative or above the limit. Nothing can be read
    /// behind it.
    pub fn next(&self, input: &mut BytesMut) -> Result<Option<Bytes>, ReplyLenError> {
        let Some(len) = input.first_chunk::<4>() else { return Ok(None) };
        let announced = i32::from_be_bytes(*len);
        let len = usize::try_from(announced).map_err(|_| ReplyLenError(announced))?;
        if len > self.len_max {
            return Err(ReplyLenError(announced));
        }
        if input.len() - 4 < len {
            return Ok(None);
        }
        input.advance(4);
        Ok(Some(input.split_to(len).freeze()))
    }
}

/// A reply announces a length that is negative or above the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplyLenError(pub i32);

impl fmt::Display for ReplyLenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "response size {} is out of bounds", self.0)
    }
}

impl core::error::Error for ReplyLenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_out_of_bounds() {
        let decode = |bytes: &[u8]| ReplyDecoder::new(3).next(&mut BytesMut::from(bytes));
        assert_eq!(decode(b"\0\0\0\x03abc"), Ok(Some(Bytes::from_static(b"abc"))));
        assert_eq!(decode(b"\0\0\0\0"), Ok(Some(Bytes::new())));
        assert_eq!(decode(b"\0\0\0\x04"), Err(ReplyLenError(4)));
        assert_eq!(decode(b"\xff\xff\xff\xff"), Err(ReplyLenError(-1)));
        assert_eq!(decode(b"\x80\0\0\0"), Err(ReplyLenError(i32::MIN)));
        assert_eq!(decode(b"\0\0\0\x03ab"), Ok(None));
        assert_eq!(decode(b"\0\0\0"), Ok(None));
    }

    proptest! {
        #[test]
        fn replies_are_read_back_however_they_arrive(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
            piece in 1..30_usize,
        ) {
            let mut wire = Vec::new();
            for text in &texts {
                encode_reply(text, &mut wire);
            }
            let (mut input, mut read) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(piece) {
                input.extend_from_slice(chunk);
                while let Some(text) = ReplyDecoder::new(20).next(&mut input).unwrap() {
                    read.push(text.to_vec());
                }
            }
            prop_assert_eq!(read, texts);
            prop_assert!(input.is_empty());
        }
    }
}
