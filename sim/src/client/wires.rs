//! The driver of the core's clients: their dials, connections and requests.
//!
//! A [`Client`](super::Client) that has a [`Consumer`](sansq_core::client::Consumer) or a
//! [`ProducerPool`](sansq_core::client::ProducerPool) in it keeps it in a [`Wired`], and hands it
//! what the world tells: `input` to [`Wired::input`], and so on. Then it takes `actions`, gives
//! the part about connections to [`Wired::carry_out`], does the rest itself, until there is
//! nothing left, and [arms](Context::arm) the machine's deadline. [`pool`](super::pool) is the
//! shortest one that does so.

use std::collections::BTreeMap;

use bytes::BytesMut;
use sansq_core::client::{ClientMachine, DialId, LookupCallId, NetActions};
use sansq_core::http::call::CallResult;

use super::{Context, Gone};
use crate::net::LinkId;

/// A machine with its connections and requests. What concerns it is told to it; then, and if it was
/// called otherwise, its owner has to look at [`actions`](Self::actions).
#[derive(Debug)]
pub struct Wired<M: ClientMachine> {
    /// The machine.
    pub machine: M,
    /// What it asks for and tells.
    pub actions: M::Actions,
    links: BTreeMap<DialId, LinkId>,
    dials: BTreeMap<LinkId, DialId>,
    calls: BTreeMap<u64, LookupCallId>,
}

impl<M: ClientMachine> Wired<M> {
    /// One that has no connection yet.
    pub fn new(machine: M) -> Self {
        let (links, dials, calls) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { machine, actions: M::Actions::default(), links, dials, calls }
    }

    /// A dial has succeeded. Returns whether it is the machine's, as those below do.
    pub fn connected(&mut self, link: LinkId, context: &Context<'_>) -> bool {
        let Some(id) = self.dials.get(&link).copied() else { return false };
        self.machine.handle_connected(id, context.now(), &mut self.actions);
        true
    }

    /// Bytes have arrived.
    pub fn input(&mut self, link: LinkId, input: &mut BytesMut, context: &Context<'_>) -> bool {
        let Some(id) = self.dials.get(&link).copied() else { return false };
        self.machine.handle_input(id, input, context.now(), &mut self.actions);
        true
    }

    /// The socket takes something again.
    pub fn writable(&mut self, link: LinkId, context: &mut Context<'_>) -> bool {
        let Some(id) = self.dials.get(&link).copied() else { return false };
        self.flush(link, id, context);
        true
    }

    /// A connection is gone, or could not be made.
    pub fn closed(&mut self, link: LinkId, why: Gone, context: &Context<'_>) -> bool {
        let Some(id) = self.dials.remove(&link) else { return false };
        self.links.remove(&id);
        let (machine, now, out) = (&mut self.machine, context.now(), &mut self.actions);
        match (why, why.text()) {
            (Gone::Refused, Some(text)) => machine.handle_connect_failed(id, text, now, out),
            (_, text) => machine.handle_closed(id, text, now, out),
        }
        true
    }

    /// A request is done.
    pub fn called(&mut self, key: u64, result: CallResult, context: &Context<'_>) -> bool {
        let Some(id) = self.calls.remove(&key) else { return false };
        self.machine.handle_called(id, result, context.now(), &mut self.actions);
        true
    }

    /// Time has passed.
    pub fn timeout(&mut self, context: &Context<'_>) -> bool {
        self.machine.handle_timeout(context.now(), &mut self.actions);
        true
    }

    /// Carries out what the machine asks for.
    pub fn carry_out(&mut self, net: NetActions, context: &mut Context<'_>) {
        let NetActions { farewells, close, dial, transmit, calls } = net;
        for (id, bytes) in farewells {
            if let Some(link) = self.links.get(&id) {
                context.write(*link, &bytes);
            }
        }
        for id in close {
            if let Some(link) = self.links.remove(&id) {
                self.dials.remove(&link);
                context.close(link);
            }
        }
        for dial in dial {
            let link = context.dial(&dial.address);
            self.links.insert(dial.id, link);
            self.dials.insert(link, dial.id);
        }
        for id in transmit {
            if let Some(link) = self.links.get(&id).copied() {
                self.flush(link, id, context);
            }
        }
        for (id, call) in calls {
            self.calls.insert(context.call(call), id);
        }
    }

    /// Writes while the socket takes it; what it does not take yet stays in the machine.
    fn flush(&mut self, link: LinkId, id: DialId, context: &mut Context<'_>) {
        let mut spare = Vec::new();
        while context.is_writable(link) {
            self.machine.swap_transmit(id, context.now(), &mut spare);
            if spare.is_empty() {
                return;
            }
            context.write(link, &spare);
        }
    }
}
