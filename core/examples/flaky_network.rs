//! The core alone: a producer, an nsqd and a consumer on one thread, in virtual time, over a
//! network that fails dials, delays bytes and cuts connections. No runtime, no socket, no clock;
//! one seed names a run.
//!
//! ```console
//! $ cargo run -p sansq-core --example flaky_network -- 42
//! ```
//!
//! What it shows: whatever the network does, a message that was acknowledged arrives, perhaps
//! twice. And how little a driver is: everything below `settle` is the network, not the clients.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::mem;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::env;

use bytes::{Bytes, BytesMut};
use sansq_core::arena::ConnId;
use sansq_core::client::{
    ClientMachine, Consumer, ConsumerActions, ConsumerOptions, DialId, PoolOptions,
    ProducerActions, ProducerPool, RetryPolicy,
};
use sansq_core::machine::{Machine, MachineActions, ReadState};
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::nsqd::{Actions, Config, Peer, Shard, ShardId};
use sansq_core::rng::Rng;
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

fn main() -> Result<(), Box<dyn Error>> {
    let seed = env::args().nth(1).map_or(Ok(42), |seed| seed.parse())?;
    let mut world = Harness::new(seed)?;
    let topic = TopicName::new("orders")?;
    for number in 0..MESSAGES {
        let body = Bytes::from(number.to_string());
        world.pool.publish(&topic, body, world.now, &mut world.publishing)?;
        // Something happens, or nothing does, for 20 ms.
        world.run_until(world.now.instant + Duration::from_millis(20))?;
    }
    let end = world.now.instant + Duration::from_secs(600);
    while world.acknowledged < MESSAGES || world.received.len() < MESSAGES {
        let next = world.next().filter(|next| *next < end).ok_or("not everything has arrived")?;
        world.run_until(next)?;
    }
    println!("seed {seed}: {MESSAGES} messages published, acknowledged and received");
    println!("{} came more than once", world.deliveries - world.received.len());
    println!("{} dials, {} of them in vain, {} cuts", world.dials, world.in_vain, world.cuts);
    println!("{} ms of virtual time", world.now.instant.as_nanos() / 1_000_000);
    Ok(())
}

/// Everything there is: three machines, what they ask for, and a network.
struct Harness {
    now: Now,
    rng: Rng,
    shard: Shard,
    serving: Actions,
    pool: ProducerPool,
    publishing: ProducerActions,
    consumer: Consumer,
    consuming: ConsumerActions,
    links: BTreeMap<(Who, DialId), Link>,
    /// What is under way, by the time at which it arrives, and in order.
    events: BTreeMap<(Instant, u64), NetEvent>,
    next_event: u64,

    acknowledged: usize,
    received: BTreeSet<Bytes>,
    deliveries: usize,
    dials: usize,
    in_vain: usize,
    cuts: usize,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Who {
    Producer,
    Consumer,
}

/// One connection between a client and the nsqd.
struct Link {
    conn: ConnId,
    /// What the nsqd has not taken yet, and whether it takes anything now.
    to_shard: BytesMut,
    waits: bool,
    to_client: BytesMut,
    /// When the latest bytes arrive in each direction: later ones do not overtake them.
    arrivals: [Instant; 2],
}

enum NetEvent {
    Dialled(Who, DialId),
    ToShard(Who, DialId, Vec<u8>),
    ToClient(Who, DialId, Vec<u8>),
    Cut(Who, DialId),
}

/// Calls whichever client it is; the two have the same methods, and actions of their own.
macro_rules! client {
    ($world:expr, $who:expr, |$machine:ident, $out:ident| $call:expr) => {
        match $who {
            Who::Producer => {
                let ($machine, $out) = (&mut $world.pool, &mut $world.publishing);
                $call
            }
            Who::Consumer => {
                let ($machine, $out) = (&mut $world.consumer, &mut $world.consuming);
                $call
            }
        }
    };
}

impl Harness {
    fn new(seed: u64) -> Result<Self, Box<dyn Error>> {
        let rng = Rng::new(seed);
        // A publish whose answer was lost is published again, so nothing is lost, and some comes
        // twice.
        let options = PoolOptions { retry: RetryPolicy::Always, ..PoolOptions::default() };
        let pool = ProducerPool::new(options, rng.fork(1).next_u64())?;
        let options = ConsumerOptions { max_in_flight: 5, ..ConsumerOptions::default() };
        let (topic, channel) = (TopicName::new("orders")?, ChannelName::new("shipping")?);
        let consumer = Consumer::new(topic, channel, options, rng.fork(2).next_u64())?;
        let mut world = Self {
            now: Now::from_millis(0),
            shard: Shard::new(ShardId(0), 1, Config::default(), rng.fork(3).next_u64()),
            serving: Actions::default(),
            pool,
            publishing: ProducerActions::default(),
            consumer,
            consuming: ConsumerActions::default(),
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            acknowledged: 0,
            received: BTreeSet::new(),
            deliveries: 0,
            dials: 0,
            in_vain: 0,
            cuts: 0,
            rng,
        };
        world.shard.start(world.now, &mut world.serving);
        world.pool.add_nsqd(NSQD, world.now, &mut world.publishing);
        world.consumer.add_nsqd(NSQD, world.now, &mut world.consuming);
        Ok(world)
    }

    /// When the next thing happens: to the network, or by one of the three timers.
    fn next(&self) -> Option<Instant> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timers =
            [self.shard.poll_timeout(), self.pool.poll_timeout(), self.consumer.poll_timeout()];
        timers.into_iter().chain([event]).flatten().min()
    }

    /// Lets everything happen that does until `end`.
    fn run_until(&mut self, end: Instant) -> Result<(), Box<dyn Error>> {
        self.settle()?;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            // A timer may be due already.
            self.now = self.now.after(next.saturating_since(self.now.instant));
            let now = self.now;
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= now.instant
            {
                let event = entry.remove();
                self.handle(event);
                self.settle()?;
            }
            self.shard.handle_timeout(now, &mut self.serving);
            self.pool.handle_timeout(now, &mut self.publishing);
            self.consumer.handle_timeout(now, &mut self.consuming);
            self.settle()?;
        }
        self.now = self.now.after(end.saturating_since(self.now.instant));
        Ok(())
    }

    /// The whole of the driver: carries out what the machines ask for, until they ask for nothing.
    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        while !(self.publishing.is_empty() && self.consuming.is_empty() && self.serving.is_empty())
        {
            for (id, result) in mem::take(&mut self.publishing.completed) {
                result.map_err(|error| format!("publish {id}: {error}"))?;
                self.acknowledged += 1;
            }
            for delivery in mem::take(&mut self.consuming.messages) {
                self.deliveries += 1;
                self.received.insert(delivery.message.body);
                // Too late, if the connection was lost meanwhile: then it comes again.
                let _ = self.consumer.finish(delivery.key, self.now, &mut self.consuming);
            }
            for who in [Who::Producer, Who::Consumer] {
                self.settle_client(who);
            }
            self.settle_shard();
        }
        Ok(())
    }

    fn settle_client(&mut self, who: Who) {
        let mut actions = client!(self, who, |_machine, out| {
            out.events.clear();
            mem::take(&mut out.net)
        });
        if who == Who::Producer {
            self.publishing.room = false;
        }
        for id in actions.close.drain(..) {
            self.close(who, id);
        }
        for dial in actions.dial.drain(..) {
            self.dials += 1;
            self.send(self.now.instant, NetEvent::Dialled(who, dial.id));
        }
        for id in actions.transmit.drain(..) {
            let mut bytes = Vec::new();
            loop {
                client!(self, who, |machine, _out| machine.swap_transmit(id, self.now, &mut bytes));
                if bytes.is_empty() {
                    break;
                }
                self.transmit(who, id, 0, NetEvent::ToShard(who, id, mem::take(&mut bytes)));
            }
        }
    }

    fn settle_shard(&mut self) {
        let actions = mem::take(&mut self.serving);
        for conn in actions.transmit {
            while let Some((who, id)) = self.link_of(conn) {
                let mut bytes = Transmit::new();
                self.shard.swap_transmit(conn, &mut bytes);
                let bytes = bytes.into_vec();
                if bytes.is_empty() {
                    break;
                }
                self.shard.handle_sent(conn, bytes.len(), self.now, &mut self.serving);
                self.transmit(who, id, 1, NetEvent::ToClient(who, id, bytes));
            }
        }
        for (conn, _) in actions.close {
            if let Some((who, id)) = self.link_of(conn) {
                self.cut(who, id);
            }
        }
        for conn in actions.resume {
            if let Some((who, id)) = self.link_of(conn) {
                self.read(who, id);
            }
        }
    }

    fn handle(&mut self, event: NetEvent) {
        let now = self.now;
        match event {
            NetEvent::Dialled(who, id) if self.rng.below(4) == 0 => {
                self.in_vain += 1;
                client!(self, who, |machine, out| {
                    machine.handle_connect_failed(id, "connection refused", now, out);
                });
            }
            NetEvent::Dialled(who, id) => {
                let peer = Peer::Tcp(([127, 0, 0, 1], 50_000).into());
                let conn = self.shard.accept(peer, now, &mut self.serving);
                let link = Link {
                    conn,
                    to_shard: BytesMut::new(),
                    waits: false,
                    to_client: BytesMut::new(),
                    arrivals: [now.instant; 2],
                };
                self.links.insert((who, id), link);
                // Nothing lives for long here.
                let lives = Duration::from_millis(200 + self.rng.below(2000));
                self.send(now.instant + lives, NetEvent::Cut(who, id));
                client!(self, who, |machine, out| machine.handle_connected(id, now, out));
            }
            NetEvent::ToShard(who, id, bytes) => {
                if let Some(link) = self.links.get_mut(&(who, id)) {
                    link.to_shard.extend_from_slice(&bytes);
                    if !link.waits {
                        self.read(who, id);
                    }
                }
            }
            NetEvent::ToClient(who, id, bytes) => {
                if let Some(link) = self.links.get_mut(&(who, id)) {
                    link.to_client.extend_from_slice(&bytes);
                    let input = &mut link.to_client;
                    client!(self, who, |machine, out| machine.handle_input(id, input, now, out));
                }
            }
            NetEvent::Cut(who, id) => self.cut(who, id),
        }
    }

    /// Gives the nsqd what has come for it.
    fn read(&mut self, who: Who, id: DialId) {
        if let Some(link) = self.links.get_mut(&(who, id)) {
            let (input, actions) = (&mut link.to_shard, &mut self.serving);
            let state = self.shard.handle_input(link.conn, input, self.now, actions);
            link.waits = state == ReadState::Wait;
        }
    }

    /// Sends bytes, `way` 0: to the nsqd. They take 1 to 50 ms, and do not overtake each other.
    fn transmit(&mut self, who: Who, id: DialId, way: usize, event: NetEvent) {
        let at = self.now.instant + Duration::from_millis(1 + self.rng.below(50));
        if let Some(link) = self.links.get_mut(&(who, id))
            && let Some(latest) = link.arrivals.get_mut(way)
        {
            *latest = at.max(*latest);
            let at = *latest;
            self.send(at, event);
        }
    }

    fn send(&mut self, at: Instant, event: NetEvent) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    /// A connection is lost, with all that is under way on it.
    fn cut(&mut self, who: Who, id: DialId) {
        if self.close(who, id) {
            self.cuts += 1;
            let now = self.now;
            client!(self, who, |machine, out| machine.handle_closed(id, None, now, out));
        }
    }

    /// A client closes a connection, or did not want it any more when it was there. False: it is
    /// gone.
    fn close(&mut self, who: Who, id: DialId) -> bool {
        let Some(link) = self.links.remove(&(who, id)) else { return false };
        self.shard.handle_closed(link.conn, self.now, &mut self.serving);
        true
    }

    fn link_of(&self, conn: ConnId) -> Option<(Who, DialId)> {
        self.links.iter().find(|(_, link)| link.conn == conn).map(|(key, _)| *key)
    }
}

const NSQD: &str = "nsqd.example:4150";
const MESSAGES: usize = 200;
