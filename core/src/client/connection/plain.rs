//! No layers: what stands in for upgrading in a build without the feature `upgrade`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::{ClientConnection, ClientConnectionOutput};
use crate::client::error::ConnectionError;
use crate::client::options::ConnectionOptions;
use crate::time::Now;

/// There is none.
#[derive(Debug)]
pub(super) enum Upgrade {}

impl Upgrade {
    pub(super) const fn new(_: &ConnectionOptions, _: &str) -> Option<Box<Self>> {
        None
    }
}

impl ClientConnection {
    pub(super) const fn keep_granted(&self) {}

    pub(super) const fn climb(&self) -> Result<Option<&'static str>, ConnectionError> {
        Ok(None)
    }

    pub(super) const fn layers(&self) -> usize {
        match &self.upgrade {
            None => 0,
            Some(never) => match **never {},
        }
    }

    pub(super) const fn is_climbing(&self) -> bool {
        false
    }

    pub(super) const fn owes_wire(&self) -> bool {
        false
    }

    pub(super) const fn handle_wire(
        &self,
        _: &mut BytesMut,
        _: Now,
        _: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        Ok(())
    }

    pub(super) const fn seal(&self, _: &mut Vec<u8>) {}

    pub(super) const fn seal_off(&self, _: &mut Vec<u8>) {}

    pub(super) const fn rest(&self) {}
}
