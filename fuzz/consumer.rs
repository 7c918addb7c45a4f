//! A consumer at the level of its operations: nsqds that keep to the protocol until they send
//! anything, cut anywhere, dials that fail, nsqlookupds that answer anything, a program that
//! answers late or twice, and events that come too late. RDY stays within the budget, each message
//! is answered once, and a consumer that is to stop stops in time.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use sansq_core::client::consumer::FLUSH_TIMEOUT;
use sansq_core::client::{
    AnswerError, ClientMachine, ConnectionOptions, Consumer, ConsumerActions, ConsumerOptions,
    DeliveryKey, DialId, LookupCallId, Secret,
};
use sansq_core::machine::MachineActions;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::time::Now;

use crate::peer::{self, ClientCommand, Reader, STEPS_MAX, frame};

const ANSWER: &str =
    r#"{"max_rdy_count":5,"version":"1.3.0","msg_timeout":60000,"max_msg_timeout":900000}"#;
const AUTH_ANSWER: &str =
    r#"{"max_rdy_count":2500,"version":"1","msg_timeout":1000,"auth_required":true}"#;

/// Reads the input as options and steps.
///
/// # Panics
/// If the consumer is wrong.
pub fn check(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Some(flags) = reader.next() else { return };
    let mut world = Harness::new(flags);
    for _ in 0..STEPS_MAX {
        let Some(what) = reader.next() else { break };
        world.step(what, &mut reader);
        world.drive();
        world.look();
    }
    world.end();
}

/// An nsqd that is connected.
#[derive(Debug, Default)]
struct Nsqd {
    buffer: BytesMut,
    /// How much of the handshake it has answered.
    answers: u8,
    rdy: u32,
    in_flight: BTreeSet<String>,
    is_subscribed: bool,
    /// It has sent bytes that are none of a model's.
    is_wild: bool,
}

struct Harness {
    consumer: Consumer,
    out: ConsumerActions,
    now: Now,
    is_auth: bool,
    dials: Vec<DialId>,
    nsqds: BTreeMap<DialId, Nsqd>,
    /// Dials and connections that are over.
    gone: Vec<DialId>,
    calls: Vec<LookupCallId>,
    keys: Vec<DeliveryKey>,
    known: BTreeSet<DeliveryKey>,
    answered: BTreeSet<DeliveryKey>,
    max_in_flight: u32,
    /// The largest ever.
    most_in_flight: u32,
    messages: u32,
    /// Whether some nsqd ever was.
    is_wild: bool,
}

impl Harness {
    fn new(flags: u8) -> Self {
        let is_auth = flags & 1 == 1;
        let auth_secret = is_auth.then(|| Secret::new("secret"));
        let max_in_flight = [4, 1, 0, 40][usize::from(flags >> 1 & 3)];
        let options = ConsumerOptions {
            connection: ConnectionOptions { auth_secret, ..ConnectionOptions::default() },
            max_in_flight,
            auto_touch: flags & 8 == 8,
            hand_over_exhausted: flags & 16 == 16,
            ..ConsumerOptions::default()
        };
        let (topic, channel) =
            (TopicName::new("t").expect("a name"), ChannelName::new("c").expect("a name"));
        Self {
            consumer: Consumer::new(topic, channel, options, flags.into())
                .expect("the options are in range"),
            out: ConsumerActions::default(),
            now: Now::from_millis(0),
            is_auth,
            dials: Vec::new(),
            nsqds: BTreeMap::new(),
            gone: Vec::new(),
            calls: Vec::new(),
            keys: Vec::new(),
            known: BTreeSet::new(),
            answered: BTreeSet::new(),
            max_in_flight,
            most_in_flight: max_in_flight,
            messages: 0,
            is_wild: false,
        }
    }

    fn step(&mut self, what: u8, reader: &mut Reader<'_>) {
        let now = self.now;
        match what % 32 {
            0..=1 => {
                self.consumer.add_nsqd(&address(reader.byte()), now, &mut self.out);
            }
            2 => {
                self.consumer.remove_nsqd(&address(reader.byte()), now, &mut self.out);
            }
            3..=4 => {
                if self.dials.is_empty() {
                    return;
                }
                let (at, how) = (reader.byte(), reader.byte());
                let id = self.dials.remove(usize::from(at) % self.dials.len());
                if how == 0xFF {
                    self.gone.push(id);
                    self.consumer.handle_connect_failed(id, "refused", now, &mut self.out);
                } else {
                    self.nsqds.insert(id, Nsqd::default());
                    self.consumer.handle_connected(id, now, &mut self.out);
                    for _ in 0..how & 3 {
                        self.drive();
                        self.greet(id, how >> 2);
                    }
                }
            }
            5..=7 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                self.greet(id, reader.byte());
            }
            8..=13 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                self.message(id, reader.byte(), reader.byte());
            }
            14 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                let texts = [
                    "E_FIN_FAILED x",
                    "E_REQ_FAILED x",
                    "E_INVALID x",
                    "E_BAD_TOPIC x",
                    "E_UNAUTHORIZED x",
                ];
                let text = texts[usize::from(reader.byte()) % texts.len()];
                self.input(id, &frame(1, text.as_bytes()), 5);
            }
            15 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                let cut = reader.byte();
                let bytes = reader.some();
                self.be_wild(id);
                self.input(id, bytes, cut);
            }
            16 => {
                // More than it was asked for, or the same again.
                let Some(id) = self.nsqd(reader.byte()) else { return };
                let (id_byte, count) = (reader.byte(), reader.byte());
                self.be_wild(id);
                let name = [id_byte; 16];
                let message = frame(2, &[&[0; 9][..], &[1], &name, b"body"].concat());
                for _ in 0..count {
                    self.input(id, &message, 0);
                }
            }
            17 => {
                let Some(id) = self.nsqd(reader.byte()) else { return };
                self.forget(id);
                let error = (reader.byte() & 1 == 1).then_some("reset");
                self.consumer.handle_closed(id, error, now, &mut self.out);
            }
            18..=20 => {
                let Some(key) = self.key(reader.byte()) else { return };
                let result = self.consumer.finish(key, now, &mut self.out);
                self.note(key, result);
            }
            21..=22 => {
                let Some(key) = self.key(reader.byte()) else { return };
                let flags = reader.byte();
                let delay = (flags & 2 == 2).then(|| Duration::from_secs(flags.into()));
                let result = self.consumer.requeue(key, delay, flags & 1 == 1, now, &mut self.out);
                self.note(key, result);
            }
            23 => {
                let Some(key) = self.key(reader.byte()) else { return };
                let touched = self.consumer.touch(key, now, &mut self.out);
                assert!(touched.is_err() || !self.answered.contains(&key));
            }
            24 => {
                self.max_in_flight = u32::from(reader.byte() % 50);
                self.most_in_flight = self.most_in_flight.max(self.max_in_flight);
                self.consumer.change_max_in_flight(self.max_in_flight, now, &mut self.out);
            }
            25 => {
                if reader.byte() & 7 == 7 {
                    self.consumer.remove_nsqlookupd("l:1");
                } else {
                    self.consumer
                        .add_nsqlookupd("l:1", now, &mut self.out)
                        .expect("it can be asked");
                }
            }
            26 => {
                let Some(id) = self.calls.pop() else { return };
                let result = peer::call_result(reader);
                self.consumer.handle_called(id, result, now, &mut self.out);
            }
            27..=28 => self.timeout(),
            29 => {
                let millis = u64::from(reader.byte()) * u64::from(reader.byte());
                self.now = now.after(Duration::from_millis(millis));
                self.consumer.handle_timeout(self.now, &mut self.out);
            }
            30 => {
                // Reports that were on their way when it was over.
                let Some(id) = self.gone.get(usize::from(reader.byte())).copied() else { return };
                match reader.byte() % 4 {
                    0 => {
                        self.consumer.handle_connected(id, now, &mut self.out);
                        assert!(self.out.net.close.contains(&id), "nobody wants it");
                    }
                    1 => self.consumer.handle_connect_failed(id, "late", now, &mut self.out),
                    2 => self.consumer.handle_closed(id, None, now, &mut self.out),
                    _ => {
                        let mut late = BytesMut::from(reader.some());
                        self.consumer.handle_input(id, &mut late, now, &mut self.out);
                        assert!(late.is_empty());
                    }
                }
            }
            // Rarely, or most runs would be short.
            _ => {
                if reader.byte() == 0xFF {
                    let grace = Duration::from_secs(u64::from(reader.byte() % 100));
                    self.consumer.stop(grace, now, &mut self.out);
                }
            }
        }
    }

    fn note(&mut self, key: DeliveryKey, result: Result<(), AnswerError>) {
        assert!(self.known.contains(&key));
        if result.is_ok() {
            assert!(self.answered.insert(key), "answered twice");
        }
    }

    /// An nsqd answers what is next.
    fn greet(&mut self, id: DialId, cut: u8) {
        let is_auth = self.is_auth;
        let Some(nsqd) = self.nsqds.get_mut(&id) else { return };
        let answer = match nsqd.answers {
            0 => {
                if is_auth {
                    AUTH_ANSWER
                } else {
                    ANSWER
                }
            }
            1 if is_auth => r#"{"identity":"i","identity_url":"u","permission_count":1}"#,
            _ if !nsqd.is_subscribed => "OK",
            _ => "_heartbeat_",
        };
        nsqd.is_subscribed |= answer == "OK";
        nsqd.answers = nsqd.answers.saturating_add(1);
        self.input(id, &frame(0, answer.as_bytes()), cut);
    }

    /// An nsqd sends a message, if RDY allows it.
    fn message(&mut self, id: DialId, attempts: u8, cut: u8) {
        let Some(nsqd) = self.nsqds.get_mut(&id) else { return };
        if nsqd.in_flight.len() >= nsqd.rdy as usize {
            return;
        }
        let name = format!("{:016x}", self.messages);
        self.messages += 1;
        let payload = [&[0; 9][..], &[attempts % 9], name.as_bytes(), b"body"].concat();
        nsqd.in_flight.insert(name);
        self.input(id, &frame(2, &payload), cut);
    }

    fn be_wild(&mut self, id: DialId) {
        self.is_wild = true;
        if let Some(nsqd) = self.nsqds.get_mut(&id) {
            nsqd.is_wild = true;
        }
    }

    /// Bytes come in two pieces.
    fn input(&mut self, id: DialId, bytes: &[u8], cut: u8) {
        let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
        for piece in [first, second] {
            let Some(nsqd) = self.nsqds.get_mut(&id) else { return };
            nsqd.buffer.extend_from_slice(piece);
            self.consumer.handle_input(id, &mut nsqd.buffer, self.now, &mut self.out);
            self.drop_closed();
        }
    }

    /// Goes on to the next timeout, and one after the other as long as one is due right now: that
    /// has to end.
    fn timeout(&mut self) {
        for _ in 0..1000 {
            let Some(at) = self.consumer.poll_timeout() else { return };
            let is_now = at <= self.now.instant;
            self.now = self.now.after(at.saturating_since(self.now.instant));
            self.consumer.handle_timeout(self.now, &mut self.out);
            if !is_now {
                return;
            }
        }
        panic!("no progress: {:?} at {:?}", self.consumer.poll_timeout(), self.now);
    }

    fn drop_closed(&mut self) {
        for id in core::mem::take(&mut self.out.net.close) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: DialId) {
        self.nsqds.remove(&id);
        self.dials.retain(|dial| *dial != id);
        self.gone.push(id);
    }

    /// Does what a driver does.
    fn drive(&mut self) {
        self.drop_closed();
        self.dials.extend(self.out.net.dial.drain(..).map(|dial| dial.id));
        self.calls.extend(self.out.net.calls.drain(..).map(|(id, _)| id));
        for delivery in self.out.messages.drain(..) {
            assert!(self.known.insert(delivery.key), "delivered twice");
            self.keys.push(delivery.key);
        }
        let mut spare = b"left over".to_vec();
        for id in core::mem::take(&mut self.out.net.transmit) {
            while {
                self.consumer.swap_transmit(id, self.now, &mut spare);
                !spare.is_empty()
            } {
                let nsqd = self.nsqds.get_mut(&id).expect("bytes are for a connection");
                for command in peer::commands(&spare) {
                    nsqd.take(command);
                }
            }
        }
        for event in self.out.events.drain(..) {
            assert!(!event.to_string().is_empty());
        }
        self.out.clear();
    }

    /// What holds after each step.
    fn look(&self) {
        let rdy: u32 = self.nsqds.values().map(|nsqd| nsqd.rdy).sum();
        assert!(rdy <= self.max_in_flight, "{rdy} of {}: {:?}", self.max_in_flight, self.nsqds);
        let stats = self.consumer.stats();
        assert!(self.is_wild || stats.in_flight <= self.most_in_flight as usize);
        for connection in &stats.connections {
            assert!(connection.in_flight <= 2 * self.most_in_flight + 16, "{connection:?}");
        }
        if self.consumer.is_stopped() {
            assert!(self.consumer.poll_timeout().is_none() && self.nsqds.is_empty());
        }
    }

    fn nsqd(&self, at: u8) -> Option<DialId> {
        self.nsqds.keys().nth(usize::from(at) % self.nsqds.len().max(1)).copied()
    }

    fn key(&self, at: u8) -> Option<DeliveryKey> {
        // The latest are the most interesting.
        let back = usize::from(at) % self.keys.len().max(1);
        self.keys.iter().rev().nth(back).copied()
    }

    fn end(&mut self) {
        self.consumer.stop(Duration::from_secs(1), self.now, &mut self.out);
        let end = self.now.after(Duration::from_secs(1) + FLUSH_TIMEOUT);
        self.drive();
        while !self.consumer.is_stopped() {
            self.timeout();
            self.drive();
            self.look();
            assert!(self.now.instant <= end.instant, "it takes too long to stop");
        }
        self.look();
        assert!(self.dials.is_empty());
    }
}

impl Nsqd {
    fn take(&mut self, command: ClientCommand) {
        match command {
            ClientCommand::Publish { .. } => panic!("a consumer publishes nothing"),
            ClientCommand::Answer { verb, id } if verb == "TOUCH " => {
                let is_in_flight = self.in_flight.contains(&id);
                assert!(is_in_flight || self.is_wild, "{id} is touched behind its answer");
            }
            ClientCommand::Answer { id, .. } => {
                let was_in_flight = self.in_flight.remove(&id);
                assert!(was_in_flight || self.is_wild, "{id} is answered for the second time");
            }
            ClientCommand::Other(words) => match words[0].as_str() {
                "RDY" => self.rdy = words[1].parse().expect("a count"),
                "CLS" => self.rdy = 0,
                _ => {}
            },
        }
    }
}

fn address(at: u8) -> String {
    format!("n{}:1", at % 5)
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("consumer", super::check);
    }
}
