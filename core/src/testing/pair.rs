//! A client machine and a server, with a wire between them that does what a script says.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use bytes::BytesMut;

use super::{ClientId, Node};
use crate::client::{ClientMachine, Dial, DialId, LookupCallId, NetActions};
use crate::http::call::{Call, CallResult};
use crate::machine::MachineActions;
use crate::time::{Instant, Now};

/// A client machine at a [`Node`], whose connections go over a [`Wire`].
///
/// `M` is a [`ProducerPool`](crate::client::ProducerPool) or a
/// [`Consumer`](crate::client::Consumer). All its dials get to the node, whatever their address;
/// connections are dealt to the shards in turn. What the machine asks for its connections is
/// carried out; what it tells the program stays in [`actions`](Self::actions) until the test takes
/// it.
///
/// ```
/// use core::time::Duration;
///
/// use sansq_core::client::{PoolOptions, ProducerPool, RetryPolicy};
/// use sansq_core::name::TopicName;
/// use sansq_core::nsqd::Config;
/// use sansq_core::testing::{Node, Pair};
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let options = PoolOptions { retry: RetryPolicy::Always, ..PoolOptions::default() };
/// let node = Node::new(1, Config::default());
/// let mut pair = Pair::new(node, ProducerPool::new(options, 42)?);
/// let consumer = pair.node.consumer(0, "orders", "shipping", 10);
/// pair.call(|pool, now, out| pool.add_nsqd("nsqd.example:4150", now, out));
///
/// // What the node answers is lost, and so is the connection, before the pool has heard.
/// pair.wire.drops_to_client = true;
/// let topic = TopicName::new("orders")?;
/// pair.call(|pool, now, out| pool.publish(&topic, "apples".into(), now, out))?;
/// assert!(pair.actions.completed.is_empty());
/// pair.wire.drops_to_client = false;
/// pair.cut();
///
/// // So it publishes again, and the consumer gets it twice.
/// pair.wait(Duration::from_secs(5));
/// assert!(matches!(pair.actions.completed[..], [(_, Ok(()))]));
/// assert_eq!(pair.node.bodies(consumer), ["apples", "apples"]);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// As [`Node`] does.
#[derive(Debug)]
pub struct Pair<M: ClientMachine> {
    /// The server. What a test does with it directly is noticed at the next call of the pair.
    pub node: Node,
    /// The client.
    pub machine: M,
    /// What the client told the program.
    pub actions: M::Actions,
    /// HTTP requests of the client that are not answered yet, oldest first.
    pub calls: Vec<(LookupCallId, Call)>,
    /// What becomes of bytes and dials from now on.
    pub wire: Wire,
    links: BTreeMap<DialId, Link>,
    under_way: VecDeque<(Instant, NetEvent)>,
    /// How many connections there were.
    dials: usize,
    /// How many pieces were cut off.
    pieces: usize,
}

/// What a wire does to what is sent over it. By default everything arrives at once and whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wire {
    /// How long bytes and dials are under way.
    pub delay: Duration,
    /// The lengths of the pieces in which bytes arrive, again and again; none: as they were
    /// written. A length of 0 counts as 1.
    pub pieces: Vec<usize>,
    /// Nobody answers dials: they fail.
    pub refuses: bool,
    /// What the client writes is lost, and whatever it writes later over the same connection;
    /// nobody is told.
    pub drops_to_node: bool,
    /// What the node writes is lost, and whatever it writes later over the same connection; nobody
    /// is told.
    pub drops_to_client: bool,
}

#[derive(Debug)]
struct Link {
    client: ClientId,
    /// What has come for the machine and was not taken.
    input: BytesMut,
    /// The client has closed its end.
    is_left: bool,
    /// Something was lost on the way to the node, so nothing more gets there.
    is_lost_to_node: bool,
    /// The same of the way to the client.
    is_lost_to_client: bool,
}

/// What arrives.
#[derive(Debug)]
enum NetEvent {
    Dialled(DialId, bool),
    ToNode(DialId, Vec<u8>),
    ToClient(DialId, Vec<u8>),
    /// The client closed the connection.
    Left(DialId),
    /// The node closed the connection.
    Ended(DialId),
}

impl<M: ClientMachine> Pair<M> {
    /// A client that has no connection yet.
    pub fn new(node: Node, machine: M) -> Self {
        Self {
            node,
            machine,
            actions: M::Actions::default(),
            calls: Vec::new(),
            wire: Wire::default(),
            links: BTreeMap::new(),
            under_way: VecDeque::new(),
            dials: 0,
            pieces: 0,
        }
    }

    /// Calls the machine as its program does, and carries out what follows from it.
    pub fn call<T>(&mut self, call: impl FnOnce(&mut M, Now, &mut M::Actions) -> T) -> T {
        let result = call(&mut self.machine, self.node.now, &mut self.actions);
        self.run();
        result
    }

    /// Carries everything out that takes no time.
    pub fn run(&mut self) {
        loop {
            let NetActions { farewells, close, dial, transmit, calls } =
                mem::take(M::net(&mut self.actions));
            for (id, bytes) in farewells {
                self.forward(id, &bytes);
            }
            for id in close {
                self.leave(id);
            }
            for Dial { id, .. } in dial {
                self.send(NetEvent::Dialled(id, !self.wire.refuses));
            }
            for id in transmit {
                self.write(id);
            }
            self.calls.extend(calls);
            self.listen();
            let next = self.under_way.front().map(|(at, _)| *at);
            if next.is_some_and(|at| at <= self.node.now.instant) {
                let arrived = self.under_way.pop_front();
                arrived.into_iter().for_each(|(_, event)| self.arrive(event));
            } else if M::net(&mut self.actions).is_empty() {
                return;
            }
        }
    }

    /// Lets time pass, stopping at each deadline and arrival on the way.
    pub fn wait(&mut self, duration: Duration) {
        self.run();
        let end = self.node.now.after(duration).instant;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.node.advance(next.saturating_since(self.node.now.instant));
            self.machine.handle_timeout(self.node.now, &mut self.actions);
            let next = self.machine.poll_timeout();
            assert!(next.is_none_or(|next| next > self.node.now.instant), "a timer rings for ever");
            self.run();
        }
        self.node.advance(end.saturating_since(self.node.now.instant));
        self.run();
    }

    /// All connections break, with what is under way on them, and both ends notice at once.
    pub fn cut(&mut self) {
        self.under_way.retain(|(_, event)| matches!(event, NetEvent::Dialled(..)));
        for (id, link) in mem::take(&mut self.links) {
            self.node.close(link.client);
            if !link.is_left {
                let text = Some("connection reset by peer");
                self.machine.handle_closed(id, text, self.node.now, &mut self.actions);
            }
        }
        self.run();
    }

    /// The connections that stand, as the node knows them.
    pub fn connections(&self) -> impl ExactSizeIterator<Item = ClientId> {
        self.links.values().map(|link| link.client)
    }

    /// The oldest of [`calls`](Self::calls) comes to this.
    pub fn called(&mut self, result: CallResult) {
        let (id, _) = self.calls.remove(0);
        self.call(|machine, now, out| machine.handle_called(id, result, now, out));
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let arrival = self.under_way.front().map(|(at, _)| *at);
        let next = [self.node.poll_timeout(), self.machine.poll_timeout(), arrival];
        next.into_iter().flatten().min()
    }

    fn write(&mut self, id: DialId) {
        let mut spare = Vec::new();
        loop {
            self.machine.swap_transmit(id, self.node.now, &mut spare);
            if spare.is_empty() {
                return;
            }
            self.forward(id, &spare);
        }
    }

    fn forward(&mut self, id: DialId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.is_lost_to_node |= self.wire.drops_to_node;
        if !link.is_lost_to_node {
            self.send_pieces(bytes, |piece| NetEvent::ToNode(id, piece));
        }
    }

    /// Takes what the node has written, and whether it has closed a connection.
    fn listen(&mut self) {
        let links: Vec<_> = self.links.iter().map(|(id, link)| (*id, link.client)).collect();
        for (id, client) in links {
            let bytes = self.node.received(client);
            let is_closed = self.node.is_closed(client);
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.is_lost_to_client |= self.wire.drops_to_client && (is_closed || !bytes.is_empty());
            if link.is_lost_to_client || link.is_left {
                continue;
            }
            self.send_pieces(&bytes, |piece| NetEvent::ToClient(id, piece));
            let is_end =
                |(_, event): &(_, NetEvent)| matches!(event, NetEvent::Ended(of) if *of == id);
            if is_closed && !self.under_way.iter().any(is_end) {
                self.send(NetEvent::Ended(id));
            }
        }
    }

    /// The client closes a connection, or gives a dial up.
    fn leave(&mut self, id: DialId) {
        self.under_way.retain(|(_, event)| !matches!(event, NetEvent::Dialled(of, _) if *of == id));
        if let Some(link) = self.links.get_mut(&id) {
            link.is_left = true;
            if !link.is_lost_to_node {
                self.send(NetEvent::Left(id));
            }
        }
    }

    fn arrive(&mut self, event: NetEvent) {
        let (now, out) = (self.node.now, &mut self.actions);
        match event {
            NetEvent::Dialled(id, false) => {
                self.machine.handle_connect_failed(id, "connection refused", now, out);
            }
            NetEvent::Dialled(id, true) => {
                let client = self.node.connect(self.dials % self.node.shards().len());
                self.dials += 1;
                let link = Link {
                    client,
                    input: BytesMut::new(),
                    is_left: false,
                    is_lost_to_node: false,
                    is_lost_to_client: false,
                };
                self.links.insert(id, link);
                self.machine.handle_connected(id, now, out);
            }
            NetEvent::ToNode(id, bytes) => {
                if let Some(link) = self.links.get(&id) {
                    self.node.send(link.client, &bytes);
                }
            }
            NetEvent::ToClient(id, bytes) => {
                if let Some(link) = self.links.get_mut(&id).filter(|link| !link.is_left) {
                    link.input.extend_from_slice(&bytes);
                    self.machine.handle_input(id, &mut link.input, now, out);
                }
            }
            NetEvent::Left(id) => {
                if let Some(link) = self.links.remove(&id) {
                    self.node.close(link.client);
                }
            }
            NetEvent::Ended(id) => {
                if let Some(link) = self.links.remove(&id) {
                    self.node.close(link.client);
                    if !link.is_left {
                        self.machine.handle_closed(id, None, now, out);
                    }
                }
            }
        }
    }

    fn send_pieces(&mut self, mut bytes: &[u8], event: impl Fn(Vec<u8>) -> NetEvent) {
        while !bytes.is_empty() {
            let count = self.wire.pieces.len();
            let len = self.wire.pieces.get(self.pieces.checked_rem(count).unwrap_or(0));
            let len = len.map_or(bytes.len(), |len| bytes.len().min(*len).max(1));
            self.pieces += 1;
            let (piece, rest) = bytes.split_at(len);
            self.send(event(piece.to_owned()));
            bytes = rest;
        }
    }

    /// What was sent later does not arrive earlier.
    fn send(&mut self, event: NetEvent) {
        let latest = self.under_way.back().map_or(Instant::ZERO, |(at, _)| *at);
        let at = (self.node.now.instant + self.wire.delay).max(latest);
        self.under_way.push_back((at, event));
    }
}
