//! The layers of a connection: how they come, one by one, and how bytes go through them
//! (nsqd-protocol.md sections 8.4 to 8.6).
//!
//! ```text
//!   JSON ──► TLS handshake ──► OK ──► Snappy or Deflate ──► OK
//!   plain    at most 5 s       TLS                          packed
//! ```
//!
//! The ladder begins when all earlier answers are on their way, and until its end no command is
//! decoded and no heartbeat sent (weakness W19). Bytes that came too early wait and go through the
//! new layer.

use alloc::boxed::Box;
use alloc::format;

use bytes::BytesMut;

use super::settings::Upgrades;
use super::{Connection, ConnectionOutput, Phase, Reply};
use crate::input::Inputs;
use crate::nsqd::config::{Config, HANDSHAKE_DEADLINE};
use crate::nsqd::event::{ClientFailure, Event};
use crate::nsqd::stats::TlsInfo;
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::time::Now;
use crate::transmit::Transmit;
use crate::upgrade::{Decoded, Layer, Scratch, ServerTls, Stack, Tls, UpgradeError};

/// What a connection with layers has besides.
#[derive(Debug, Default)]
pub(super) struct Upgrade {
    stack: Stack,
    /// Layers that are still to come.
    ladder: Option<Ladder>,
    /// Encoded and not yet swapped out.
    wire: Transmit,
    /// Decoded and not yet carried out: most often part of a command, or nothing.
    plain: BytesMut,
    /// Whether nothing but a heartbeat was sent since the last one.
    is_quiet: bool,
    /// Whether the layers are to say that nothing more comes.
    ends: bool,
}

/// The steps that are left.
#[derive(Debug)]
struct Ladder {
    tls: Option<ServerTls>,
    packing: Option<Layer>,
}

/// What the layers of all connections of a shard share.
#[derive(Debug, Default)]
pub(in crate::nsqd) struct Workspace {
    /// Lends the buffers of decoded bytes.
    inputs: Inputs,
    scratch: Scratch,
}

impl Connection {
    /// What of the upgrades can be had: layers only come on top, and none comes twice (section 8.6,
    /// W1).
    pub(super) fn possible(&self, mut asked: Upgrades) -> Upgrades {
        let Some(upgrade) = &self.upgrade else { return asked };
        let is_packed = upgrade.stack.packing().is_some();
        asked.tls &= upgrade.stack.is_empty();
        asked.snappy &= !is_packed;
        asked.deflate &= !is_packed;
        asked
    }

    /// Begins the ladder, or has it begin behind earlier answers.
    pub(super) fn upgrade(
        &mut self,
        upgrades: Upgrades,
        config: &Config,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) {
        let packing = match upgrades {
            Upgrades { snappy: true, .. } => Some(Layer::Snappy),
            Upgrades { deflate: true, deflate_level, .. } => Some(Layer::Deflate(deflate_level)),
            _ => None,
        };
        let tls = config.tls.clone().filter(|_| upgrades.tls);
        let upgrade = self.upgrade.get_or_insert_default();
        upgrade.ladder = Some(Ladder { tls, packing });
        self.next_heartbeat = None;
        self.climb(now, out);
    }

    /// Takes the next steps of the ladder, if there is one and nothing is in the way.
    pub(super) fn climb(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        if !self.replies.is_empty() || !self.is_open() {
            return;
        }
        loop {
            let Some(upgrade) = &mut self.upgrade else { return };
            let Some(ladder) = &mut upgrade.ladder else { return };
            if upgrade.stack.is_handshaking() {
                return;
            }
            // What was said before leaves through the layers that were there.
            let before = self.transmit.len() + upgrade.wire.len();
            if upgrade.stack.packing().is_none() {
                upgrade.stack.encode_unpacked(&mut self.transmit, &mut upgrade.wire);
            }
            self.owed =
                (self.owed + self.transmit.len() + upgrade.wire.len()).saturating_sub(before);
            if let Some(tls) = ladder.tls.take() {
                out.event(Event::Upgrading(self.peer, Layer::Tls));
                match Tls::server(&tls) {
                    Ok(tls) => upgrade.stack.push_tls(tls),
                    Err(error) => return self.refuse_upgrade(&error.into(), now, out),
                }
                self.read_deadline = Some(now.instant + HANDSHAKE_DEADLINE);
                return;
            }
            if let Some(layer) = ladder.packing.take() {
                out.event(Event::Upgrading(self.peer, layer));
                let early = core::mem::take(&mut upgrade.plain);
                upgrade.stack.push_packing(layer, early);
                self.write_reply(&Reply::Ok, now, out);
                continue;
            }
            upgrade.ladder = None;
            self.restart_read_deadline(now);
            self.next_heartbeat =
                self.delivery_settings().heartbeat_interval.map(|hb| now.instant + hb);
            return;
        }
    }

    /// How many layers there are.
    pub(in crate::nsqd) fn layers(&self) -> usize {
        self.upgrade.as_ref().map_or(0, |upgrade| upgrade.stack.layers())
    }

    /// Whether there is TLS, behind its handshake.
    pub(super) fn has_tls(&self) -> bool {
        let stack = self.upgrade.as_ref().map(|upgrade| &upgrade.stack);
        stack.is_some_and(|stack| stack.has_tls() && !stack.is_handshaking())
    }

    /// What TLS agreed on; `None` without TLS.
    pub(in crate::nsqd) fn tls_info(&self) -> Option<TlsInfo> {
        self.upgrade.as_ref().and_then(|upgrade| upgrade.stack.tls_info())
    }

    /// Whether it has Deflate.
    pub(in crate::nsqd) fn is_deflated(&self) -> bool {
        matches!(self.packing(), Some(Layer::Deflate(_)))
    }

    /// Whether it has Snappy.
    pub(in crate::nsqd) fn is_snappy(&self) -> bool {
        matches!(self.packing(), Some(Layer::Snappy))
    }

    fn packing(&self) -> Option<Layer> {
        self.upgrade.as_ref().and_then(|upgrade| upgrade.stack.packing())
    }

    /// Whether the ladder has an end to come to before the next command.
    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.ladder.is_some())
    }

    /// Whether the ladder waits for earlier answers, so that input is left alone.
    pub(super) fn awaits_upgrade(&self) -> bool {
        self.is_upgrading() && !self.is_handshaking()
    }

    fn is_handshaking(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stack.is_handshaking())
    }

    /// How many bytes more than `wire` the layers can do something with; `None` without layers.
    pub(super) fn layer_needs(&self, wire: &[u8]) -> Option<usize> {
        self.upgrade.as_ref().map(|upgrade| upgrade.stack.needs(wire))
    }

    /// Lends out what is decoded, with room for more. `None` without layers.
    pub(in crate::nsqd) fn lend_plain(&mut self, workspace: &mut Workspace) -> Option<BytesMut> {
        let plain = &mut self.upgrade.as_mut()?.plain;
        let missing = self.decoder.needs(plain.len());
        Some(workspace.inputs.lend(plain, missing))
    }

    /// Takes back what was lent out, without what was carried out. If there were so many `layers`
    /// then and there are more now, it goes through the new one.
    pub(in crate::nsqd) fn return_plain(
        &mut self,
        plain: BytesMut,
        layers: usize,
        workspace: &mut Workspace,
    ) {
        let plain = workspace.inputs.give_back(plain);
        if let Some(upgrade) = &mut self.upgrade {
            if upgrade.stack.layers() > layers {
                upgrade.stack.return_early(plain);
            } else {
                upgrade.plain = plain;
            }
        }
    }

    /// Decodes the next step of `wire` into `plain`. Returns whether it is worth another call once
    /// the commands in `plain` are carried out.
    pub(in crate::nsqd) fn decode(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> bool {
        if self.phase != Phase::Open || self.is_waiting() {
            return false;
        }
        let Some(upgrade) = &mut self.upgrade else { return false };
        let decoded = upgrade.stack.decode(wire, plain);
        let before = upgrade.wire.len();
        upgrade.stack.flush(&mut upgrade.wire);
        let said = upgrade.wire.len() - before;
        if said > 0 {
            self.owe(said, now, out);
        }
        match decoded {
            Ok(Decoded::All) => false,
            Ok(Decoded::Some) => true,
            Ok(Decoded::Handshaken) => {
                self.write_reply(&Reply::Ok, now, out);
                self.climb(now, out);
                true
            }
            Ok(Decoded::End) => {
                self.handle_eof(now, out);
                false
            }
            Err(error) if self.is_handshaking() => {
                self.refuse_upgrade(&error, now, out);
                false
            }
            Err(error) => {
                let failure = ClientFailure::Layer(error);
                out.event(Event::ClientFailed(self.peer, failure));
                if let Some(error) = self.decoder.interrupted() {
                    self.creates = error.creates().map(Box::new);
                    self.respond(Reply::Error(error), now, out);
                }
                self.end(now, out);
                false
            }
        }
    }

    /// Gives up a handshake, if one is under way. Returns whether it was.
    pub(super) fn fail_handshake(
        &mut self,
        why: &str,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> bool {
        let fails = self.is_handshaking() && self.phase == Phase::Open;
        if fails {
            self.refuse_plainly(why, now, out);
        }
        fails
    }

    fn refuse_upgrade(&mut self, error: &UpgradeError, now: Now, out: &mut impl ConnectionOutput) {
        self.refuse_plainly(&format!("{error}"), now, out);
    }

    /// Says in plain text, behind what TLS has said, that there will be no TLS (section 8.4).
    fn refuse_plainly(&mut self, why: &str, now: Now, out: &mut impl ConnectionOutput) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.stack = Stack::new();
            upgrade.ladder = None;
        }
        let text = format!("IDENTIFY failed {why}");
        self.refuse(ProtocolError::new(ErrorCode::IdentifyFailed, text), now, out);
    }

    /// Swaps everything that is owed, encoded, with an empty buffer.
    pub(super) fn encode(&mut self, spare: &mut Transmit, workspace: &mut Workspace) {
        let Some(upgrade) = &mut self.upgrade else { return };
        let before = self.transmit.len() + upgrade.wire.len();
        core::mem::swap(&mut upgrade.wire, spare);
        // Nothing that is said during the handshake is for TLS; there is nothing either.
        if !upgrade.stack.is_handshaking() {
            upgrade.stack.encode(&mut self.transmit, spare, &mut workspace.scratch);
        }
        if core::mem::take(&mut upgrade.ends) {
            upgrade.stack.finish(spare);
        }
        let after = self.transmit.len() + spare.len();
        self.owed = (self.owed + after).saturating_sub(before);
        self.replies_owed = self.replies_owed.min(self.owed);
    }

    /// Has the layers say that nothing more comes, behind everything that is owed.
    pub(super) fn say_farewell(&mut self, out: &mut impl ConnectionOutput) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.ends = true;
            self.announce(out);
        }
    }

    /// A heartbeat is due. If nothing but the last one was sent since then, memory is given back.
    pub(super) fn rest(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            if upgrade.is_quiet && self.transmit.is_empty() {
                upgrade.stack.release();
            }
            upgrade.is_quiet = true;
        }
    }

    /// Something other than a heartbeat is sent.
    pub(super) fn stir(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.is_quiet = false;
        }
    }
}
