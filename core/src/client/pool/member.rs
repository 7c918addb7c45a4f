//! One nsqd of a pool.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::super::actions::{DialId, ProducerEvent};
use super::super::producer::{HEALTHY_AFTER, Producer};
use crate::time::{Instant, Now};

#[derive(Debug)]
pub(super) struct Member {
    /// Names it for as long as the pool lives; rises along the pool's list.
    pub(super) serial: u64,
    pub(super) address: Arc<str>,
    pub(super) producer: Producer,
    /// The caller gave it: it does not vanish.
    pub(super) is_given: bool,
    /// An nsqlookupd lists it.
    pub(super) is_found: bool,
    /// It gets nothing new, and goes when everything is answered.
    pub(super) is_draining: bool,
    pub(super) is_connected: bool,
    /// It turned the client away when it was tried last.
    pub(super) is_refused: bool,
    /// When its connection, or a try to make one, ended last.
    pub(super) failed_at: Option<Instant>,
}

impl Member {
    pub(super) const fn new(serial: u64, address: Arc<str>, producer: Producer) -> Self {
        Self {
            serial,
            address,
            producer,
            is_given: false,
            is_found: false,
            is_draining: false,
            is_connected: false,
            is_refused: false,
            failed_at: None,
        }
    }

    /// Where the ids of its dials begin: each member has 2^32 of its own, so that an id tells whose
    /// it is.
    pub(super) const fn first_dial(serial: u64) -> u64 {
        serial << DIAL_BITS
    }

    /// Whose dial it is.
    pub(super) const fn serial_of(id: DialId) -> u64 {
        id.0 >> DIAL_BITS
    }

    /// Whether publishes can be sent to it.
    pub(super) const fn is_usable(&self) -> bool {
        self.is_connected && !self.is_draining
    }

    /// Whether it is given a publish, if it may have up to `load_max`.
    pub(super) fn takes_more(&self, load_max: usize) -> bool {
        self.is_usable() && self.producer.load() < load_max
    }

    /// Which member is chosen: the lowest.
    pub(super) fn rank(&self, now: Now) -> (bool, usize) {
        let is_recent = |at| now.instant.saturating_since(at) < HEALTHY_AFTER;
        (self.failed_at.is_some_and(is_recent), self.producer.load())
    }

    /// Whether it can go.
    pub(super) fn is_drained(&self) -> bool {
        self.is_draining && self.producer.outstanding() == 0
    }

    pub(super) fn event(&self, event: ProducerEvent) -> ProducerEvent {
        ProducerEvent::Nsqd { nsqd: self.address.clone(), event: Box::new(event) }
    }
}

const DIAL_BITS: u32 = 32;
