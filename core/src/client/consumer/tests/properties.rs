//! Random worlds: nsqds that keep to the protocol, some that do not, and a program that answers or
//! not.

use super::*;
use crate::client::ClientMachine;
use crate::machine::MachineActions;
use alloc::collections::{BTreeSet, VecDeque};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Remove(u8),
    Connect(u8, bool),
    Greet(u8),
    /// A message is sent; whether it arrives at once.
    Message(u8, u16, bool),
    /// The first message that is under way arrives.
    Arrive(u8),
    Frame(u8, u8, Vec<u8>),
    Bytes(u8, Vec<u8>),
    Lose(u8),
    Finish(u8),
    Requeue(u8, bool),
    Touch(u8),
    MaxInFlight(u8),
    Lookup(Vec<u8>),
    FailLookup,
    Write,
    Timeout,
    Pass(u16),
    Stop(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..5).prop_map(Step::Add),
        1 => (0_u8..5).prop_map(Step::Remove),
        4 => (any::<u8>(), prop::bool::weighted(0.9)).prop_map(|(at, ok)| Step::Connect(at, ok)),
        8 => any::<u8>().prop_map(Step::Greet),
        12 => (any::<u8>(), 0_u16..8, prop::bool::weighted(0.7))
            .prop_map(|(at, attempts, arrives)| Step::Message(at, attempts, arrives)),
        4 => any::<u8>().prop_map(Step::Arrive),
        1 => (any::<u8>(), 0_u8..2, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, kind, bytes)| Step::Frame(at, kind, bytes)),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, bytes)| Step::Bytes(at, bytes)),
        1 => any::<u8>().prop_map(Step::Lose),
        6 => any::<u8>().prop_map(Step::Finish),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(at, backoff)| Step::Requeue(at, backoff)),
        1 => any::<u8>().prop_map(Step::Touch),
        1 => (0_u8..8).prop_map(Step::MaxInFlight),
        1 => prop::collection::vec(0_u8..7, 0..5).prop_map(Step::Lookup),
        1 => Just(Step::FailLookup),
        4 => Just(Step::Write),
        6 => Just(Step::Timeout),
        3 => prop_oneof![4 => 0..2000_u16, 1 => any::<u16>()].prop_map(Step::Pass),
        1 => prop::option::weighted(0.05, 0_u8..60).prop_map(|secs| secs.map_or(Step::Write, Step::Stop)),
    ]
}

/// What an nsqd that keeps to the protocol knows of a connection.
#[derive(Debug, Default)]
struct Server {
    is_greeted: bool,
    is_subscribed: bool,
    rdy: u32,
    in_flight: BTreeSet<String>,
    /// Messages that have not arrived yet.
    under_way: VecDeque<(String, Vec<u8>)>,
    /// Messages that were under way when the RDY fell under what is in flight.
    overtaken: BTreeSet<String>,
}

struct Harness {
    consumer: Consumer,
    out: ConsumerActions,
    now: Now,
    dials: Vec<DialId>,
    servers: BTreeMap<DialId, Server>,
    keys: Vec<DeliveryKey>,
    answered: BTreeSet<DeliveryKey>,
    max_in_flight: u32,
    /// What was in flight or might have come after the last step.
    in_use: u32,
    calls: Vec<LookupCallId>,
    next_id: u32,
}

impl Harness {
    fn new() -> Self {
        let options = ConsumerOptions { max_in_flight: 4, ..ConsumerOptions::default() };
        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let mut consumer = Consumer::new(topic, channel, options, 3).unwrap();
        let mut out = ConsumerActions::default();
        let now = Now::from_millis(0);
        consumer.add_nsqlookupd("l:1", now, &mut out).unwrap();
        Self {
            consumer,
            out,
            now,
            dials: Vec::new(),
            servers: BTreeMap::new(),
            keys: Vec::new(),
            answered: BTreeSet::new(),
            max_in_flight: 4,
            in_use: 0,
            calls: Vec::new(),
            next_id: 0,
        }
    }

    fn server(&self, at: u8) -> Option<DialId> {
        self.servers.keys().nth(usize::from(at) % self.servers.len().max(1)).copied()
    }

    fn key(&self, at: u8) -> Option<DeliveryKey> {
        // Most of the older ones are answered already.
        let from = self.keys.len().saturating_sub(12);
        let keys = &self.keys[from..];
        keys.get(usize::from(at) % keys.len().max(1)).copied()
    }

    fn input(&mut self, id: DialId, bytes: &[u8]) {
        let mut input = BytesMut::from(bytes);
        self.consumer.handle_input(id, &mut input, self.now, &mut self.out);
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Add(at) => {
                self.consumer.add_nsqd(&format!("n{at}:1"), now, &mut self.out);
            }
            Step::Remove(at) => {
                self.consumer.remove_nsqd(&format!("n{at}:1"), now, &mut self.out);
            }
            Step::Connect(at, ok) => {
                if self.dials.is_empty() {
                    return;
                }
                let id = self.dials.remove(usize::from(at) % self.dials.len());
                if ok {
                    self.servers.insert(id, Server::default());
                    self.consumer.handle_connected(id, now, &mut self.out);
                } else {
                    self.consumer.handle_connect_failed(id, "no", now, &mut self.out);
                }
            }
            Step::Greet(at) => self.greet(at),
            Step::Message(at, attempts, arrives) => self.message(at, attempts, arrives),
            Step::Arrive(at) => self.arrive(at),
            Step::Frame(at, kind, bytes) => {
                if let Some(id) = self.server(at) {
                    self.input(id, &frame(kind, &bytes));
                }
            }
            Step::Bytes(at, bytes) => {
                if let Some(id) = self.server(at) {
                    self.input(id, &bytes);
                }
            }
            Step::Lose(at) => {
                if let Some(id) = self.server(at) {
                    self.servers.remove(&id);
                    self.consumer.handle_closed(id, None, now, &mut self.out);
                }
            }
            Step::Finish(at) => {
                if let Some(key) = self.key(at) {
                    let result = self.consumer.finish(key, now, &mut self.out);
                    self.note(key, result);
                }
            }
            Step::Requeue(at, backoff) => {
                if let Some(key) = self.key(at) {
                    let result = self.consumer.requeue(key, None, backoff, now, &mut self.out);
                    self.note(key, result);
                }
            }
            Step::Touch(at) => {
                if let Some(key) = self.key(at) {
                    let touched = self.consumer.touch(key, now, &mut self.out);
                    assert!(touched.is_err() || !self.answered.contains(&key));
                }
            }
            Step::MaxInFlight(count) => {
                self.max_in_flight = u32::from(count);
                self.consumer.change_max_in_flight(u32::from(count), now, &mut self.out);
            }
            Step::Lookup(nsqds) => {
                let Some(id) = self.calls.pop() else { return };
                let peer = |at| format!(r#"{{"broadcast_address":"n{at}","tcp_port":1}}"#);
                let peers: Vec<String> = nsqds.into_iter().map(peer).collect();
                let body = format!(r#"{{"producers":[{}]}}"#, peers.join(",")).into();
                let answer = Ok(CallAnswer { status: 200, body });
                self.consumer.handle_called(id, answer, now, &mut self.out);
            }
            Step::FailLookup => {
                let Some(id) = self.calls.pop() else { return };
                self.consumer.handle_called(id, Err(CallFailure::TimedOut), now, &mut self.out);
            }
            Step::Write => {}
            Step::Timeout => self.timeout(),
            Step::Pass(millis) => {
                self.now = self.now.after(Duration::from_millis(u64::from(millis)));
                self.consumer.handle_timeout(self.now, &mut self.out);
            }
            Step::Stop(secs) => {
                self.consumer.stop(Duration::from_secs(secs.into()), now, &mut self.out);
            }
        }
    }

    fn note(&mut self, key: DeliveryKey, result: Result<(), AnswerError>) {
        if result.is_ok() {
            assert!(self.answered.insert(key), "answered twice");
        }
    }

    fn greet(&mut self, at: u8) {
        let Some(id) = self.server(at) else { return };
        let Some(server) = self.servers.get_mut(&id) else { return };
        if !server.is_greeted {
            server.is_greeted = true;
            self.input(id, &frame(0, ANSWER));
        } else if !server.is_subscribed {
            server.is_subscribed = true;
            self.input(id, &frame(0, b"OK"));
        } else {
            self.input(id, &frame(0, b"_heartbeat_"));
        }
    }

    fn message(&mut self, at: u8, attempts: u16, arrives: bool) {
        let Some(id) = self.server(at) else { return };
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.in_flight.len() >= server.rdy as usize {
            return;
        }
        let name = format!("{:016x}", self.next_id);
        self.next_id += 1;
        let mut payload = vec![0; 8];
        payload.extend_from_slice(&attempts.to_be_bytes());
        payload.extend_from_slice(name.as_bytes());
        server.in_flight.insert(name.clone());
        server.under_way.push_back((name, frame(2, &payload)));
        if arrives {
            while !self.servers[&id].under_way.is_empty() {
                self.arrive_at(id);
            }
        }
    }

    fn arrive(&mut self, at: u8) {
        if let Some(id) = self.server(at) {
            self.arrive_at(id);
        }
    }

    fn arrive_at(&mut self, id: DialId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if let Some((_, frame)) = server.under_way.pop_front() {
            self.input(id, &frame);
        }
    }

    /// Goes on to the next timeout, and one after the other as long as the machine wants one right
    /// now: that has to end.
    fn timeout(&mut self) {
        for _ in 0..1000 {
            let Some(at) = self.consumer.poll_timeout() else { return };
            let is_now = at <= self.now.instant;
            self.now.instant = self.now.instant.max(at);
            self.consumer.handle_timeout(self.now, &mut self.out);
            if !is_now {
                return;
            }
        }
        panic!("no progress: {:?} at {:?}", self.consumer.poll_timeout(), self.now);
    }

    /// Does what a driver does.
    fn drive(&mut self) {
        for id in self.out.net.close.drain(..) {
            self.servers.remove(&id);
            self.dials.retain(|dial| *dial != id);
        }
        self.dials.extend(self.out.net.dial.drain(..).map(|dial| dial.id));
        self.calls.extend(self.out.net.calls.drain(..).map(|(id, _)| id));
        self.keys.extend(self.out.messages.drain(..).map(|delivery| delivery.key));
        for event in &self.out.events {
            // The nsqd has taken it back as well, and has room for another one.
            if let ConsumerEvent::TimedOut { key, .. } = event
                && let Some(server) = self.servers.get_mut(&key.dial)
            {
                server.in_flight.remove(core::str::from_utf8(&key.id).unwrap());
            }
        }
        let mut spare = Vec::new();
        for id in core::mem::take(&mut self.out.net.transmit) {
            while {
                self.consumer.swap_transmit(id, self.now, &mut spare);
                !spare.is_empty()
            } {
                let Some(server) = self.servers.get_mut(&id) else { continue };
                server.read(&spare);
            }
        }
        self.out.clear();
    }

    fn check(&mut self) {
        let rdy: u32 = self.servers.values().map(|server| server.rdy).sum();
        assert!(rdy <= self.max_in_flight, "{rdy} of {}: {:?}", self.max_in_flight, self.servers);
        let links: u32 = self.consumer.links.values().map(|link| link.in_flight).sum();
        // What is in flight or may come on each connection, without what RDY came too late for.
        let in_use = self.consumer.links.iter().map(|(dial, link)| {
            let overtaken = |(of, id): &&(DialId, [u8; 16])| {
                let name = core::str::from_utf8(id).unwrap();
                of == dial && self.servers.get(of).is_some_and(|s| s.overtaken.contains(name))
            };
            let overtaken = self.consumer.in_flight.keys().filter(overtaken).count() as u32;
            link.rdy.max(link.in_flight - overtaken)
        });
        // When the maximum falls that can only become less.
        let in_use: u32 = in_use.sum();
        assert!(
            in_use <= self.in_use.max(self.max_in_flight),
            "{in_use} of {}",
            self.max_in_flight
        );
        self.in_use = in_use;
        assert_eq!(links as usize, self.consumer.in_flight.len());
        assert_eq!(self.consumer.in_flight.len(), self.consumer.stats().in_flight);
        for link in self.consumer.links.values() {
            assert!(link.in_flight <= 2 * link.rdy_most + 16);
        }
        if self.consumer.is_stopped() {
            assert!(self.consumer.links.is_empty() && self.consumer.poll_timeout().is_none());
        }
    }
}

impl Server {
    fn read(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("RDY"), Some(count)) => {
                    self.rdy = count.parse().unwrap();
                    let excess = self.in_flight.len().saturating_sub(self.rdy as usize);
                    let last = self.under_way.iter().rev().take(excess);
                    self.overtaken.extend(last.map(|(name, _)| name.clone()));
                }
                (Some("FIN" | "REQ"), Some(id)) => {
                    assert!(self.in_flight.remove(id), "{id} is answered for the second time");
                }
                (Some("CLS"), _) => self.rdy = 0,
                _ => {}
            }
        }
    }
}

proptest! {
    /// More than `max_in_flight` is in flight only with what RDY came too late for.
    #[test]
    fn the_budget_holds_and_everything_is_answered_once(
        up in 0_u8..4,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = Harness::new();
        // Some nsqds are there from the start, or few cases would come to messages on several.
        for at in 0..up {
            for step in [Step::Add(at), Step::Connect(0, true), Step::Greet(at), Step::Greet(at)] {
                world.step(step);
                world.drive();
            }
        }
        for step in steps {
            world.step(step);
            world.drive();
            world.check();
        }
        // Whatever was going on, it can be stopped in time.
        world.consumer.stop(Duration::from_secs(1), world.now, &mut world.out);
        let end = world.now.after(Duration::from_secs(1) + FLUSH_TIMEOUT);
        world.drive();
        while !world.consumer.is_stopped() {
            world.timeout();
            world.drive();
            prop_assert!(world.now.instant <= end.instant);
        }
    }
}
