//! stub
use crate::log::Level;
#[derive(Clone, Debug, PartialEq)]
pub enum LookupPeerEvent {}
impl LookupPeerEvent {
    pub fn level(&self) -> Level {
        Level::Info
    }
}
impl core::fmt::Display for LookupPeerEvent {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        Ok(())
    }
}
#[derive(Debug)]
pub struct LookupPeer;
