//! The layers of one connection, one on the other.

use bytes::BytesMut;

use super::deflate::Deflate;
use super::snappy::Snappy;
use super::step::{Decoded, Scratch};
use super::tls::Tls;
use super::{Layer, STEP_LEN_MAX, UpgradeError};
use crate::nsqd::TlsInfo;
use crate::transmit::Transmit;

/// What one connection speaks through; see the [module](super). Without layers it passes bytes on.
#[derive(Debug, Default)]
pub struct Stack {
    tls: Option<Tls>,
    packing: Option<Packing>,
    /// Decrypted and not yet unpacked: a chunk of Snappy that is half there, and a record of TLS.
    middle: BytesMut,
}

#[derive(Debug)]
enum Packing {
    Deflate(Deflate),
    Snappy(Snappy),
}

impl Stack {
    /// No layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts TLS on the socket. Its handshake begins: see [`flush`](Self::flush).
    ///
    /// # Panics
    /// If there is a layer: TLS is the lowest.
    pub fn push_tls(&mut self, tls: Tls) {
        assert!(self.is_empty(), "TLS is the lowest layer");
        self.tls = Some(tls);
    }

    /// Puts Snappy or Deflate on top. `early` are bytes of the peer that were decoded as if there
    /// were no such layer; they go through it now. [`Layer::Tls`] is for
    /// [`push_tls`](Self::push_tls) and ignored.
    ///
    /// # Panics
    /// If there is one of them.
    pub fn push_packing(&mut self, layer: Layer, early: BytesMut) {
        assert!(self.packing.is_none(), "one of Snappy and Deflate");
        self.packing = match layer {
            Layer::Tls => None,
            Layer::Snappy => Some(Packing::Snappy(Snappy::default())),
            Layer::Deflate(level) => Some(Packing::Deflate(Deflate::new(level))),
        };
        self.return_early(early);
    }

    /// More bytes that were decoded before the topmost layer was there.
    pub fn return_early(&mut self, early: BytesMut) {
        if self.middle.is_empty() {
            self.middle = early;
        } else {
            self.middle.extend_from_slice(&early);
        }
    }

    /// Whether there is no layer.
    pub const fn is_empty(&self) -> bool {
        self.tls.is_none() && self.packing.is_none()
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        usize::from(self.tls.is_some()) + usize::from(self.packing.is_some())
    }

    /// Whether there is TLS, its handshake over or not.
    pub const fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The layer that packs.
    pub fn packing(&self) -> Option<Layer> {
        self.packing.as_ref().map(|packing| match packing {
            Packing::Deflate(deflate) => Layer::Deflate(deflate.level()),
            Packing::Snappy(_) => Layer::Snappy,
        })
    }

    /// Whether the handshake of TLS is under way. Until it is over nothing is encoded.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(Tls::is_handshaking)
    }

    /// What TLS agreed on, once its handshake is over.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_ref().filter(|tls| !tls.is_handshaking()).map(Tls::info)
    }

    /// Takes bytes of the peer out of `wire` and appends what they mean to `plain`, a step at a
    /// time. What is incomplete stays in `wire`. See [`flush`](Self::flush) for what TLS may have
    /// to say to them.
    ///
    /// # Errors
    /// If they mean nothing. No more can be decoded then.
    pub fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<Decoded, UpgradeError> {
        match (&mut self.tls, &mut self.packing) {
            (None, None) => {
                let step = wire.split_to(wire.len().min(STEP_LEN_MAX));
                plain.extend_from_slice(&step);
                Ok(if step.is_empty() { Decoded::All } else { Decoded::Some })
            }
            (Some(tls), None) => tls.decode(wire, plain),
            (None, Some(packing)) if self.middle.is_empty() => packing.decode(wire, plain),
            (None, Some(packing)) => {
                self.middle.extend_from_slice(wire);
                wire.clear();
                packing.decode(&mut self.middle, plain)
            }
            (Some(tls), Some(packing)) => loop {
                let unpacked = packing.decode(&mut self.middle, plain)?;
                if unpacked != Decoded::All {
                    return Ok(unpacked);
                }
                if self.middle.is_empty() {
                    // An idle connection holds no buffer.
                    self.middle = BytesMut::new();
                }
                let decrypted = tls.decode(wire, &mut self.middle)?;
                if decrypted != Decoded::Some {
                    return Ok(decrypted);
                }
            },
        }
    }

    /// How many bytes more than those in `wire` the next step takes; at least 1. A hint.
    pub fn needs(&self, wire: &[u8]) -> usize {
        match (&self.tls, &self.packing) {
            (None, Some(Packing::Snappy(snappy))) if self.middle.is_empty() => snappy.needs(wire),
            // TLS and Deflate take all there is and keep for themselves what is half there.
            _ => 1,
        }
    }

    /// Takes everything out of `plain` and appends to `wire` what it is on the wire, flushed.
    pub fn encode(&mut self, plain: &mut Transmit, wire: &mut Transmit, scratch: &mut Scratch) {
        while !plain.is_empty() {
            match &mut self.packing {
                Some(Packing::Deflate(deflate)) => deflate.encode(plain, scratch),
                Some(Packing::Snappy(snappy)) => snappy.encode(plain, scratch),
                None => return self.encode_unpacked(plain, wire),
            }
            self.encrypt(&scratch.packed, wire);
        }
    }

    /// The same without a layer that packs, and so without a scratch.
    ///
    /// # Panics
    /// If there is a layer that packs.
    pub fn encode_unpacked(&mut self, plain: &mut Transmit, wire: &mut Transmit) {
        assert!(self.packing.is_none(), "what has to be packed would leave as it is");
        match &mut self.tls {
            Some(tls) => tls.encode(plain, wire),
            None => wire.append(plain),
        }
    }

    /// Appends what the layers themselves have to say: the handshake of TLS, its alerts.
    pub fn flush(&mut self, wire: &mut Transmit) {
        if let Some(tls) = &mut self.tls {
            tls.flush(wire);
        }
    }

    /// Says at each layer that nothing more comes. To be called once, behind everything else.
    pub fn finish(&mut self, wire: &mut Transmit) {
        if let Some(Packing::Deflate(deflate)) = &self.packing {
            let end = deflate.finish();
            self.encrypt(end, wire);
        }
        if let Some(tls) = &mut self.tls {
            tls.finish(wire);
        }
    }

    /// Gives back the memory that is only worth having while bytes flow. Costs some packing
    /// afterwards, so it is for connections that were idle for a while.
    pub fn release(&mut self) {
        if let Some(Packing::Deflate(deflate)) = &mut self.packing {
            deflate.release();
        }
    }

    fn encrypt(&mut self, bytes: &[u8], wire: &mut Transmit) {
        match &mut self.tls {
            Some(tls) => tls.encode_slice(bytes, wire),
            None => wire.push(bytes),
        }
    }
}

impl Packing {
    fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
    ) -> Result<Decoded, UpgradeError> {
        match self {
            Self::Deflate(deflate) => deflate.decode(wire, plain),
            Self::Snappy(snappy) => snappy.decode(wire, plain),
        }
    }
}

#[cfg(test)]
mod tests;
