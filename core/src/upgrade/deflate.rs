//! Raw Deflate, one stream per direction for the life of the connection, flushed so that nothing is
//! held back (nsqd-protocol.md section 8.5, weakness W15). The work is done by the crate `flate2`.

use alloc::boxed::Box;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::step::{Decoded, Scratch};
use super::{STEP_LEN_MAX, UpgradeError};
use crate::transmit::Transmit;

/// Flushes up to this many bytes are stored as they are while there is no packer: an answer or a
/// heartbeat is not worth the memory of one.
const STORED_LEN_MAX: usize = 128;

/// The end of a flush: an empty stored block, behind which every reader has what came before.
const FLUSHED: [u8; 5] = [0x00, 0x00, 0x00, 0xff, 0xff];

/// The same as the stream's last block.
const FINAL: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// The most that a step takes when it does not pack well: it is stored then, in blocks of some KiB.
const PACKED_LEN_MAX: usize = STEP_LEN_MAX + STEP_LEN_MAX / 8 + 1024;

/// How much is unpacked at a time.
const PIECE_LEN: usize = 4096;

/// How many parts of the output are looked at together.
const PARTS_MAX: usize = 16;

/// Both directions of one connection.
#[derive(Debug)]
pub(super) struct Deflate {
    level: u8,
    /// Made when there is something to unpack.
    unpacker: Option<Box<Decompress>>,
    /// Whether the unpacker may have more without being given more.
    has_more: bool,
    /// Whether the peer's stream is over.
    has_ended: bool,
    /// Whether the peer's stream is broken behind what was unpacked.
    is_broken: bool,
    /// Made when there is something to pack.
    packer: Option<Box<Compress>>,
}

impl Deflate {
    pub(super) const fn new(level: u8) -> Self {
        Self {
            level,
            unpacker: None,
            has_more: false,
            has_ended: false,
            is_broken: false,
            packer: None,
        }
    }

    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// Unpacks up to [`STEP_LEN_MAX`] bytes.
    pub(super) fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<Decoded, UpgradeError> {
        if self.has_ended {
            wire.clear();
            return Ok(Decoded::End);
        }
        if self.is_broken {
            return Err(UpgradeError::Deflate);
        }
        if wire.is_empty() && !self.has_more {
            return Ok(Decoded::All);
        }
        let unpacker = self.unpacker.get_or_insert_with(|| Box::new(Decompress::new(false)));
        let start = plain.len();
        let mut piece = [0; PIECE_LEN];
        loop {
            let (read, written) = (unpacker.total_in(), unpacker.total_out());
            let status = unpacker.decompress(wire, &mut piece, FlushDecompress::None);
            let read = (unpacker.total_in() - read) as usize;
            let written = (unpacker.total_out() - written) as usize;
            wire.advance(read);
            plain.extend_from_slice(&piece[..written]);
            let Ok(status) = status else {
                // What came out before is as good as if the rest had never come.
                self.is_broken = true;
                self.unpacker = None;
                return if plain.len() > start {
                    Ok(Decoded::Some)
                } else {
                    Err(UpgradeError::Deflate)
                };
            };
            self.has_more = written == piece.len();
            if status == Status::StreamEnd {
                (self.has_ended, self.has_more) = (true, false);
                self.unpacker = None;
                wire.clear();
                return Ok(if plain.len() > start { Decoded::Some } else { Decoded::End });
            }
            if wire.is_empty() && !self.has_more {
                return Ok(if plain.len() > start { Decoded::Some } else { Decoded::All });
            }
            if plain.len() - start > STEP_LEN_MAX - PIECE_LEN {
                return Ok(Decoded::Some);
            }
            if read == 0 && written == 0 {
                return Err(UpgradeError::Deflate);
            }
        }
    }

    /// Packs the first bytes of `plain`, at most [`STEP_LEN_MAX`], into `scratch.packed`, and
    /// flushes.
    pub(super) fn encode(&mut self, plain: &mut Transmit, scratch: &mut Scratch) {
        let packed = &mut scratch.packed;
        packed.clear();
        let mut parts = [&[][..]; PARTS_MAX];
        let count = plain.slices(&mut parts);
        let parts = &parts[..count];
        let is_whole = parts.iter().map(|part| part.len()).sum::<usize>() == plain.len();
        if self.packer.is_none() && is_whole && plain.len() <= STORED_LEN_MAX {
            let len = plain.len() as u16;
            packed.push(0);
            packed.extend_from_slice(&len.to_le_bytes());
            packed.extend_from_slice(&(!len).to_le_bytes());
            parts.iter().for_each(|part| packed.extend_from_slice(part));
            packed.extend_from_slice(&FLUSHED);
            return plain.clear();
        }
        let packer = self.packer.get_or_insert_with(|| {
            Box::new(Compress::new(Compression::new(u32::from(self.level)), false))
        });
        // With room for all of it the packer keeps nothing back that a flush would not bring out.
        packed.reserve(PACKED_LEN_MAX);
        let mut left = STEP_LEN_MAX;
        for part in parts {
            let mut part = &part[..part.len().min(left)];
            left -= part.len();
            while !part.is_empty() {
                packed.reserve(PIECE_LEN);
                let before = packer.total_in();
                // It fails only if a stream that is over is written to; we never end ours in this
                // way.
                let _ = packer.compress_vec(part, packed, FlushCompress::None);
                part = &part[(packer.total_in() - before) as usize..];
            }
        }
        plain.advance(STEP_LEN_MAX - left);
        loop {
            packed.reserve(PIECE_LEN);
            let _ = packer.compress_vec(&[], packed, FlushCompress::Sync);
            if packed.len() < packed.capacity() && packed.ends_with(&FLUSHED[1..]) {
                return;
            }
        }
    }

    /// The end of our stream, for readers that take a stream without one for a fault.
    pub(super) const fn finish(&self) -> &'static [u8] {
        &FINAL
    }

    /// Gives back what a pause need not hold. Behind a flush a new packer can go on with the
    /// stream: it only does not refer to what came before.
    pub(super) fn release(&mut self) {
        self.packer = None;
    }
}
