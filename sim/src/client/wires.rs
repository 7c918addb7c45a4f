//! The driver's side of the core's client machines: their dials, connections and requests.

use std::collections::BTreeMap;

use sansq_core::client::{CallId, DialId, NetActions};
use sansq_core::time::Now;

use super::Context;
use crate::net::LinkId;

/// The connections and requests of one machine.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    links: BTreeMap<DialId, LinkId>,
    dials: BTreeMap<LinkId, DialId>,
    calls: BTreeMap<u64, CallId>,
}

impl Wires {
    /// What the machine calls a connection.
    pub(crate) fn dial_of(&self, link: LinkId) -> Option<DialId> {
        self.dials.get(&link).copied()
    }

    /// A connection is gone; what the machine calls it.
    pub(crate) fn remove(&mut self, link: LinkId) -> Option<DialId> {
        let id = self.dials.remove(&link)?;
        self.links.remove(&id);
        Some(id)
    }

    /// A request is done; what the machine calls it.
    pub(crate) fn take_call(&mut self, key: u64) -> Option<CallId> {
        self.calls.remove(&key)
    }

    /// Carries out what a machine asks for; `swap` is its `swap_transmit`.
    pub(crate) fn carry_out(
        &mut self,
        net: NetActions,
        context: &mut Context<'_>,
        mut swap: impl FnMut(DialId, Now, &mut Vec<u8>),
    ) {
        for id in net.close {
            if let Some(link) = self.links.remove(&id) {
                self.dials.remove(&link);
                context.close(link);
            }
        }
        for dial in net.dial {
            let link = context.dial(&dial.address);
            self.links.insert(dial.id, link);
            self.dials.insert(link, dial.id);
        }
        for id in net.transmit {
            if let Some(link) = self.links.get(&id) {
                flush(*link, id, context, &mut swap);
            }
        }
        for (id, call) in net.calls {
            self.calls.insert(context.call(call), id);
        }
    }
}

/// Writes while the socket takes it; what it does not take yet stays in the machine.
pub(crate) fn flush(
    link: LinkId,
    id: DialId,
    context: &mut Context<'_>,
    mut swap: impl FnMut(DialId, Now, &mut Vec<u8>),
) {
    let mut spare = Vec::new();
    while context.is_writable(link) {
        swap(id, context.now(), &mut spare);
        if spare.is_empty() {
            return;
        }
        context.write(link, &spare);
    }
}
