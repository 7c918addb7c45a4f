//! The layers of a connection, as a client puts them on (clients.md sections 1.1 and 1.5).
//!
//! ```text
//!   answer to IDENTIFY ──► TLS handshake ──► OK ──► Snappy or Deflate ──► OK ──► AUTH or open
//!   plain                                    TLS                          packed
//! ```
//!
//! What the server sent behind the frame that ends a step belongs to the next layer, and what we
//! owed before a layer leaves below it. Commands and answers to heartbeats wait for the end of the
//! ladder.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use bytes::BytesMut;

use super::{ClientConnection, ClientConnectionOutput, State};
use crate::client::error::ConnectionError;
use crate::client::options::ConnectionOptions;
use crate::time::Now;
use crate::transmit::Transmit;
use crate::upgrade::{ClientTls, Decoded, Layer, Scratch, Stack, Tls};

/// What a connection has that asks for layers.
#[derive(Debug)]
pub(super) struct Upgrade {
    stack: Stack,
    /// TLS that is still to come, and whose certificate the server has to have.
    tls: Option<(ClientTls, String)>,
    /// The layer above that is still to come.
    packing: Option<Layer>,
    /// Encoded and not yet swapped out.
    wire: Transmit,
    /// Decoded and not yet carried out: part of a frame, or nothing.
    plain: BytesMut,
    scratch: Scratch,
    /// Whether nothing but an answer to a heartbeat was sent since the last one.
    is_quiet: bool,
}

impl Upgrade {
    /// What `options` ask for, of the server at `address`; `None` if that is nothing.
    pub(super) fn new(options: &ConnectionOptions, address: &str) -> Option<Box<Self>> {
        let upgrades = &options.upgrades;
        let packing = match upgrades.deflate {
            _ if upgrades.snappy => Some(Layer::Snappy),
            level => level.map(Layer::Deflate),
        };
        let tls = upgrades.tls.clone().map(|tls| {
            let name = upgrades.tls_server_name.as_deref().unwrap_or_else(|| host_of(address));
            (tls, name.into())
        });
        let asks = tls.is_some() || packing.is_some();
        asks.then(|| {
            Box::new(Self {
                stack: Stack::new(),
                tls,
                packing,
                wire: Transmit::new(),
                plain: BytesMut::new(),
                scratch: Scratch::default(),
                is_quiet: false,
            })
        })
    }
}

/// The name or IP address in `host:port`.
fn host_of(address: &str) -> &str {
    if let Some((host, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => address,
    }
}

impl ClientConnection {
    /// Forgets the layers that the server did not grant.
    pub(super) fn keep_granted(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if !self.negotiated.tls {
            upgrade.tls = None;
        }
        if !self.negotiated.snappy && !self.negotiated.deflate {
            upgrade.packing = None;
        }
        if upgrade.tls.is_none() && upgrade.packing.is_none() {
            self.upgrade = None;
        }
    }

    /// Puts the next layer on. Returns its name as its `OK` is to be waited for, `None` at the end.
    pub(super) fn climb(&mut self) -> Result<Option<&'static str>, ConnectionError> {
        let Some(upgrade) = self.upgrade.as_deref_mut() else { return Ok(None) };
        if upgrade.tls.is_none() && upgrade.packing.is_none() {
            return Ok(None);
        }
        // A server may answer before it was asked; what was owed before still leaves below the new
        // layer.
        let mut owed = Transmit::from(mem::take(&mut self.transmit));
        upgrade.stack.encode_unpacked(&mut owed, &mut upgrade.wire);
        if let Some((tls, name)) = upgrade.tls.take() {
            let tls = Tls::client(&tls, &name).map_err(|e| ConnectionError::Upgrade(e.into()))?;
            upgrade.stack.push_tls(tls);
            upgrade.stack.flush(&mut upgrade.wire);
            return Ok(Some("TLS"));
        }
        Ok(upgrade.packing.take().map(|layer| {
            upgrade.stack.push_packing(layer, BytesMut::new());
            match layer {
                Layer::Deflate(_) => "Deflate",
                Layer::Snappy | Layer::Tls => "Snappy",
            }
        }))
    }

    /// How many layers there are.
    pub(super) fn layers(&self) -> usize {
        self.upgrade.as_ref().map_or(0, |upgrade| upgrade.stack.layers())
    }

    /// Whether answers to heartbeats have to wait, because the server would read them in a layer
    /// that they were not sent in.
    pub(super) fn is_climbing(&self) -> bool {
        match self.state {
            State::Identify => self.upgrade.is_some(),
            State::Upgrade(_) => true,
            State::Dialing | State::Auth | State::Open | State::Closing => false,
        }
    }

    /// Whether the layers owe something by themselves.
    pub(super) fn owes_wire(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| !upgrade.wire.is_empty())
    }

    /// Decodes `wire` a step at a time, and carries out what is complete in between, so that little
    /// input that means much takes no more memory than other input.
    pub(super) fn handle_wire(
        &mut self,
        wire: &mut BytesMut,
        now: Now,
        out: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        loop {
            let is_climbing = self.is_climbing();
            let layers = self.layers();
            let Some(upgrade) = self.upgrade.as_deref_mut() else { return Ok(()) };
            let mut plain = mem::take(&mut upgrade.plain);
            let decoded = upgrade.stack.decode(wire, &mut plain);
            upgrade.stack.flush(&mut upgrade.wire);
            let decoded = decoded.map_err(|error| {
                if is_climbing {
                    ConnectionError::Upgrade(error)
                } else {
                    ConnectionError::Layer(error)
                }
            })?;
            self.carry_out(&mut plain, now, out)?;
            let is_higher = self.layers() > layers;
            let Some(upgrade) = self.upgrade.as_deref_mut() else { return Ok(()) };
            if is_higher {
                upgrade.stack.return_early(plain);
                continue;
            }
            // An idle connection holds no buffer.
            upgrade.plain = if plain.is_empty() { BytesMut::new() } else { plain };
            match decoded {
                Decoded::Some | Decoded::Handshaken => {}
                Decoded::All => return Ok(()),
                Decoded::End => return Err(ConnectionError::Closed),
            }
        }
    }

    /// Turns the plain bytes in `spare` into what goes to the socket, behind what the layers owe by
    /// themselves. Without a layer they are that.
    pub(super) fn seal(&mut self, spare: &mut Vec<u8>) {
        let Some(upgrade) = self.upgrade.as_deref_mut() else { return };
        if upgrade.stack.is_empty() {
            return;
        }
        upgrade.is_quiet &= spare.is_empty() || spare == b"NOP\n";
        let mut plain = Transmit::from(mem::take(spare));
        let mut wire = mem::take(&mut upgrade.wire);
        upgrade.stack.encode(&mut plain, &mut wire, &mut upgrade.scratch);
        *spare = wire.into_vec();
        // Emptied, it is the buffer for the next time.
        upgrade.wire = plain;
    }

    /// Appends to the sealed bytes in `spare` that nothing more comes.
    pub(super) fn seal_off(&mut self, spare: &mut Vec<u8>) {
        let Some(upgrade) = self.upgrade.as_deref_mut() else { return };
        if upgrade.stack.is_handshaking() {
            return;
        }
        let mut wire = Transmit::from(mem::take(spare));
        upgrade.stack.finish(&mut wire);
        *spare = wire.into_vec();
    }

    /// A heartbeat came. If nothing but the answer to the last one was sent since then, memory is
    /// given back.
    pub(super) fn rest(&mut self) {
        if let Some(upgrade) = self.upgrade.as_deref_mut() {
            if upgrade.is_quiet {
                upgrade.stack.release();
            }
            upgrade.is_quiet = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_of_addresses() {
        for (address, host) in [
            ("nsqd.example:4150", "nsqd.example"),
            ("127.0.0.1:4150", "127.0.0.1"),
            ("[::1]:4150", "::1"),
            ("::1", "::1"),
            ("nsqd", "nsqd"),
            ("[::1", "[::1"),
            ("", ""),
        ] {
            assert_eq!(host_of(address), host);
        }
    }
}
