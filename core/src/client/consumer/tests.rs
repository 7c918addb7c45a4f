use super::super::actions::LookupCallId;
use super::super::error::ConnectionError;
use super::super::machine::ClientMachine;
use super::*;
use crate::http::call::{CallAnswer, CallFailure};
use alloc::format;
use alloc::vec;

use bytes::{Bytes, BytesMut};

mod excess;
mod life;
mod properties;
mod shares;
mod vectors;

const ANSWER: &[u8] =
    br#"{"max_rdy_count":2500,"version":"1.3.0","msg_timeout":60000,"max_msg_timeout":900000}"#;

/// A consumer, its driver and nsqds that do only what the test says.
pub(super) struct Rig {
    consumer: Consumer,
    out: ConsumerActions,
    now: Now,
    /// The commands that were written to each connection and not looked at yet.
    written: BTreeMap<DialId, Vec<String>>,
}

impl Rig {
    fn new(options: ConsumerOptions) -> Self {
        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let consumer = Consumer::new(topic, channel, options, 7).unwrap();
        let out = ConsumerActions::default();
        Self { consumer, out, now: Now::from_millis(0), written: BTreeMap::new() }
    }

    fn with(max_in_flight: u32) -> Self {
        Self::new(ConsumerOptions { max_in_flight, ..ConsumerOptions::default() })
    }

    /// One subscribed connection.
    fn open(options: ConsumerOptions) -> (Self, DialId) {
        let mut rig = Self::new(options);
        let id = rig.connect("a:1");
        (rig, id)
    }

    /// Adds an nsqd and lets it come up.
    fn connect(&mut self, address: &str) -> DialId {
        assert!(self.consumer.add_nsqd(address, self.now, &mut self.out));
        let id = self.take_dial(address);
        self.come_up(id);
        id
    }

    fn take_dial(&mut self, address: &str) -> DialId {
        assert_eq!(self.out.net.dial.len(), 1, "{:?}", self.out.net.dial);
        let dial = self.out.net.dial.remove(0);
        assert_eq!(dial.address, address);
        dial.id
    }

    /// The connection up to the answer to SUB.
    fn come_up(&mut self, id: DialId) {
        self.handshake(id, ANSWER);
        assert_eq!(self.commands(id), ["SUB t c"]);
        self.response(id, b"OK");
    }

    /// The connection up to SUB.
    fn handshake(&mut self, id: DialId, answer: &[u8]) {
        self.consumer.handle_connected(id, self.now, &mut self.out);
        let mut spare = Vec::new();
        self.consumer.swap_transmit(id, self.now, &mut spare);
        assert!(spare.starts_with(b"  V2IDENTIFY\n"));
        self.out.net.transmit.clear();
        self.response(id, answer);
    }

    fn write(&mut self) {
        let mut spare = b"left over".to_vec();
        for id in core::mem::take(&mut self.out.net.transmit) {
            while {
                self.consumer.swap_transmit(id, self.now, &mut spare);
                !spare.is_empty()
            } {
                assert_eq!(spare.last(), Some(&b'\n'));
                let text = core::str::from_utf8(&spare).unwrap();
                let lines = text.lines().map(String::from);
                self.written.entry(id).or_default().extend(lines);
            }
        }
    }

    /// What was written to a connection since the last look, as `RDY 1` and `FIN a`.
    fn commands(&mut self, id: DialId) -> Vec<String> {
        self.write();
        let lines = self.written.remove(&id).unwrap_or_default();
        lines.into_iter().map(|line| line.replace("000000000000000", "")).collect()
    }

    fn input(&mut self, id: DialId, bytes: &[u8]) {
        let mut input = BytesMut::from(bytes);
        self.consumer.handle_input(id, &mut input, self.now, &mut self.out);
        assert!(input.is_empty(), "whole frames are taken, and the rest is thrown away on error");
    }

    fn response(&mut self, id: DialId, text: &[u8]) {
        self.input(id, &frame(0, text));
    }

    fn error(&mut self, id: DialId, text: &str) {
        self.input(id, &frame(1, text.as_bytes()));
    }

    /// A message comes and is handed over.
    fn message(&mut self, id: DialId, name: char, attempts: u16) -> DeliveryKey {
        self.input(id, &message(name, attempts));
        self.delivered().pop().expect("a message").key
    }

    fn delivered(&mut self) -> Vec<Delivery> {
        core::mem::take(&mut self.out.messages)
    }

    fn finish(&mut self, key: DeliveryKey) -> Result<(), AnswerError> {
        self.consumer.finish(key, self.now, &mut self.out)
    }

    fn requeue(&mut self, key: DeliveryKey, backoff: bool) -> Result<(), AnswerError> {
        self.consumer.requeue(key, None, backoff, self.now, &mut self.out)
    }

    fn closed(&mut self, id: DialId) {
        self.consumer.handle_closed(id, None, self.now, &mut self.out);
    }

    fn stop(&mut self, secs: u64) {
        self.consumer.stop(Duration::from_secs(secs), self.now, &mut self.out);
    }

    /// Time passes up to this moment, with every timeout on the way. Heartbeats keep connections
    /// alive.
    fn at(&mut self, millis: u64) {
        let end = Now::from_millis(millis);
        while let Some(due) = self.consumer.poll_timeout()
            && due <= end.instant
        {
            self.now = Now { instant: due.max(self.now.instant), ..self.now };
            let ids: Vec<DialId> = self.consumer.links.keys().copied().collect();
            for id in ids {
                if self.consumer.links[&id].stage != Stage::Handshake {
                    self.response(id, b"_heartbeat_");
                }
            }
            self.consumer.handle_timeout(self.now, &mut self.out);
            // A heartbeat keeps the server happy and is of no interest here.
            self.write();
            for lines in self.written.values_mut() {
                lines.retain(|line| line != "NOP");
            }
        }
        self.now = end;
    }

    fn secs(&mut self, secs: u64) {
        self.at(secs * 1000);
    }

    /// Lets the backoff's wait pass.
    fn wait_over(&mut self) {
        let until = self.consumer.slowdown.poll_timeout().expect("a wait");
        self.at(until.as_nanos().div_ceil(1_000_000));
    }

    fn events(&mut self) -> Vec<ConsumerEvent> {
        core::mem::take(&mut self.out.events)
    }

    fn closes(&mut self) -> Vec<DialId> {
        core::mem::take(&mut self.out.net.close)
    }

    fn calls(&mut self) -> Vec<(LookupCallId, String)> {
        self.out.net.calls.drain(..).map(|(id, call)| (id, call.url.authority())).collect()
    }

    fn answer(&mut self, id: LookupCallId, nsqds: &[&str]) {
        let peer = |nsqd: &&str| {
            let (host, port) = nsqd.split_once(':').unwrap();
            format!(r#"{{"broadcast_address":"{host}","tcp_port":{port}}}"#)
        };
        let peers: Vec<String> = nsqds.iter().map(peer).collect();
        let body = format!(r#"{{"channels":[],"producers":[{}]}}"#, peers.join(","));
        let answer = CallAnswer { status: 200, body: Bytes::from(body) };
        self.consumer.handle_called(id, Ok(answer), self.now, &mut self.out);
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + payload.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, kind]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message frame; its id is the name and fifteen zeros.
fn message(name: char, attempts: u16) -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.extend_from_slice(&attempts.to_be_bytes());
    payload.extend_from_slice(format!("{name}000000000000000").as_bytes());
    payload.extend_from_slice(b"body");
    frame(2, &payload)
}

fn backoff(multiplier: Duration, max_in_flight: u32) -> ConsumerOptions {
    ConsumerOptions { backoff_multiplier: multiplier, max_in_flight, ..ConsumerOptions::default() }
}
