//! The framing format of Snappy: chunks of at most 64 KiB, each with a checksum (nsqd-protocol.md
//! section 8.5; google/snappy `framing_format.txt`). Blocks are packed and unpacked by the crate
//! `snap`.

use alloc::vec::Vec;

use bytes::{Buf, BytesMut};
use snap::raw;

use super::UpgradeError;
use super::step::{Decoded, Scratch};
use crate::transmit::Transmit;

/// The most plain bytes of a chunk.
pub(super) const BLOCK_LEN_MAX: usize = 65_536;

/// The most that a block takes when it does not pack well: what `snap` and the reference reserve
/// for it.
const PACKED_LEN_MAX: usize = 32 + BLOCK_LEN_MAX + BLOCK_LEN_MAX / 6;

const HEAD_LEN: usize = 4;
const CRC_LEN: usize = 4;

const PACKED: u8 = 0x00;
const UNPACKED: u8 = 0x01;
const IDENTIFIER: u8 = 0xff;
/// Chunks from here on may be skipped by a reader that does not know them.
const SKIPPABLE: u8 = 0x80;

const STREAM_HEAD: &[u8; 10] = b"\xff\x06\x00\x00sNaPpY";

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Snappy {
    /// Whether our stream has begun.
    has_begun: bool,
    /// Whether the peer's stream has begun.
    is_identified: bool,
    /// What is left of a chunk that is skipped.
    skip: usize,
}

impl Snappy {
    /// Takes one chunk.
    pub(super) fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<Decoded, UpgradeError> {
        loop {
            let skipped = self.skip.min(wire.len());
            wire.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(Decoded::All);
            }
            let Some((kind, len)) = head(wire) else { return Ok(Decoded::All) };
            if !self.is_identified && kind != IDENTIFIER {
                return Err(UpgradeError::Snappy("no stream identifier"));
            }
            match kind {
                IDENTIFIER | PACKED | UNPACKED => {}
                SKIPPABLE.. => {
                    self.skip = HEAD_LEN + len;
                    continue;
                }
                _ => return Err(UpgradeError::Snappy("unsupported input")),
            }
            check_len(kind, len)?;
            let Some(chunk) = wire.get(HEAD_LEN..HEAD_LEN + len) else { return Ok(Decoded::All) };
            if kind == IDENTIFIER {
                // A writer may begin anew, and some do before every command.
                if chunk != &STREAM_HEAD[HEAD_LEN..] {
                    return Err(CORRUPT);
                }
                self.is_identified = true;
            } else {
                unpack(kind, chunk, plain)?;
            }
            wire.advance(HEAD_LEN + len);
            if kind != IDENTIFIER {
                return Ok(Decoded::Some);
            }
        }
    }

    /// How many bytes are missing until the next chunk is complete; at least 1.
    pub(super) fn needs(&self, wire: &[u8]) -> usize {
        let whole = head(wire).map_or(HEAD_LEN, |(kind, len)| {
            if check_len(kind, len).is_ok() { HEAD_LEN + len } else { HEAD_LEN }
        });
        whole.saturating_sub(wire.len()).max(1)
    }

    /// Packs the first bytes of `plain`, at most a block, into one chunk in `scratch.packed`.
    pub(super) fn encode(&mut self, plain: &mut Transmit, scratch: &mut Scratch) {
        scratch.block.clear();
        take(plain, &mut scratch.block);
        scratch.packed.clear();
        if !self.has_begun {
            self.has_begun = true;
            scratch.packed.extend_from_slice(STREAM_HEAD);
        }
        let (block, packed) = (&scratch.block, &mut scratch.packed);
        let (start, crc) = (packed.len(), masked_crc(block));
        packed.resize(start + HEAD_LEN + CRC_LEN + raw::max_compress_len(block.len()), 0);
        let body = start + HEAD_LEN + CRC_LEN;
        // Nothing that is this short can fail; unpacked it is in order as well.
        let len = scratch.snappy.compress(block, &mut packed[body..]).unwrap_or(usize::MAX);
        let kind = if len < block.len() - block.len() / 8 {
            packed.truncate(body + len);
            PACKED
        } else {
            packed.truncate(body);
            packed.extend_from_slice(block);
            UNPACKED
        };
        let len = (packed.len() - start - HEAD_LEN) as u32;
        let [low, middle, high, _] = len.to_le_bytes();
        packed[start..start + HEAD_LEN].copy_from_slice(&[kind, low, middle, high]);
        packed[start + HEAD_LEN..body].copy_from_slice(&crc.to_le_bytes());
    }
}

const CORRUPT: UpgradeError = UpgradeError::Snappy("corrupt input");

/// The kind and the length of the next chunk.
fn head(wire: &[u8]) -> Option<(u8, usize)> {
    let [kind, low, middle, high] = *wire.first_chunk::<HEAD_LEN>()?;
    Some((kind, u32::from_le_bytes([low, middle, high, 0]) as usize))
}

fn check_len(kind: u8, len: usize) -> Result<(), UpgradeError> {
    let fits = match kind {
        PACKED => (CRC_LEN..=CRC_LEN + PACKED_LEN_MAX).contains(&len),
        UNPACKED => (CRC_LEN..=CRC_LEN + BLOCK_LEN_MAX).contains(&len),
        IDENTIFIER => len == STREAM_HEAD.len() - HEAD_LEN,
        _ => false,
    };
    if fits { Ok(()) } else { Err(CORRUPT) }
}

fn unpack(kind: u8, chunk: &[u8], plain: &mut BytesMut) -> Result<(), UpgradeError> {
    let (crc, body) = chunk.split_first_chunk::<CRC_LEN>().ok_or(CORRUPT)?;
    let start = plain.len();
    if kind == PACKED {
        let len = raw::decompress_len(body).ok().filter(|len| *len <= BLOCK_LEN_MAX);
        let len = len.ok_or(CORRUPT)?;
        plain.resize(start + len, 0);
        let unpacked = raw::Decoder::new().decompress(body, &mut plain[start..]);
        if unpacked != Ok(len) {
            plain.truncate(start);
            return Err(CORRUPT);
        }
    } else {
        plain.extend_from_slice(body);
    }
    if masked_crc(&plain[start..]) != u32::from_le_bytes(*crc) {
        plain.truncate(start);
        return Err(UpgradeError::Snappy("checksum mismatch"));
    }
    Ok(())
}

/// Moves the first bytes of `plain`, at most a block, into `block`.
fn take(plain: &mut Transmit, block: &mut Vec<u8>) {
    while block.len() < BLOCK_LEN_MAX {
        let mut part = [&[][..]];
        if plain.slices(&mut part) == 0 {
            return;
        }
        let part = &part[0][..part[0].len().min(BLOCK_LEN_MAX - block.len())];
        block.extend_from_slice(part);
        let len = part.len();
        plain.advance(len);
    }
}

/// The checksum as the format stores it: rotated and shifted, so that a checksum of checksums is no
/// trap.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
