//! No layers: what stands in for upgrading in a build without the feature `upgrade`.

use bytes::BytesMut;

use super::settings::Upgrades;
use super::{Connection, ConnectionOutput};
use crate::nsqd::config::Config;
use crate::nsqd::stats::TlsInfo;
use crate::time::Now;
use crate::transmit::Transmit;

/// There is none.
#[derive(Debug)]
pub(super) enum Upgrade {}

/// There is nothing to share.
#[derive(Debug, Default)]
pub(in crate::nsqd) struct Workspace {}

impl Connection {
    pub(super) const fn possible(&self, asked: Upgrades) -> Upgrades {
        asked
    }

    pub(super) const fn upgrade(
        &self,
        _: Upgrades,
        _: &Config,
        _: Now,
        _: &mut impl ConnectionOutput,
    ) {
    }

    pub(super) const fn climb(&self, _: Now, _: &mut impl ConnectionOutput) {}

    pub(in crate::nsqd) const fn layers(&self) -> usize {
        0
    }

    pub(super) const fn has_tls(&self) -> bool {
        false
    }

    pub(in crate::nsqd) const fn tls_info(&self) -> Option<TlsInfo> {
        None
    }

    pub(in crate::nsqd) const fn is_deflated(&self) -> bool {
        false
    }

    pub(in crate::nsqd) const fn is_snappy(&self) -> bool {
        false
    }

    pub(super) const fn is_upgrading(&self) -> bool {
        false
    }

    pub(super) const fn awaits_upgrade(&self) -> bool {
        false
    }

    pub(super) const fn layer_needs(&self, _: &[u8]) -> Option<usize> {
        None
    }

    pub(in crate::nsqd) const fn lend_plain(&self, _: &mut Workspace) -> Option<BytesMut> {
        None
    }

    pub(in crate::nsqd) fn return_plain(&self, _: BytesMut, _: usize, _: &mut Workspace) {}

    pub(in crate::nsqd) const fn decode(
        &self,
        _: &mut BytesMut,
        _: &mut BytesMut,
        _: Now,
        _: &mut impl ConnectionOutput,
    ) -> bool {
        false
    }

    pub(super) const fn fail_handshake(
        &self,
        _: &str,
        _: Now,
        _: &mut impl ConnectionOutput,
    ) -> bool {
        false
    }

    pub(super) const fn encode(&self, _: &mut Transmit, _: &mut Workspace) {}

    pub(super) const fn say_farewell(&self, _: &mut impl ConnectionOutput) {}

    pub(super) const fn rest(&self) {}

    pub(super) const fn stir(&self) {}
}
