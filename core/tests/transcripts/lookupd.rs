//! An nsqlookupd that a transcript talks to.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use sansq_core::arena::ConnId;
use sansq_core::duration::parse_go_duration;
use sansq_core::http::HttpRequest;
use sansq_core::machine::{Machine, MachineActions};
use sansq_core::nsqlookupd::{Lookupd, LookupdActions, LookupdConfig, LookupdReply};
use sansq_core::protocol::lookup::ReplyDecoder;
use sansq_core::time::{Instant, Now};
use sansq_core::transmit::Transmit;

use crate::player::{Came, Server, what_is};

pub(crate) struct Nsqlookupd {
    lookupd: Lookupd,
    now: Now,
    out: LookupdActions,
    clients: Vec<Client>,
    /// In the order in which it came.
    came: Vec<Came>,
}

struct Client {
    conn: ConnId,
    input: BytesMut,
    is_closed: bool,
}

impl Nsqlookupd {
    pub(crate) fn start(flags: BTreeMap<&str, &str>) -> Result<Self, String> {
        let mut config = LookupdConfig {
            broadcast_address: "lookupd.example".into(),
            hostname: "host".into(),
            ..LookupdConfig::default()
        };
        for (flag, value) in flags {
            set(&mut config, flag, value).ok_or_else(|| what_is(&format!("--{flag}={value}")))?;
        }
        Ok(Self {
            lookupd: Lookupd::new(config),
            now: Now::from_millis(1_789_000_000_000),
            out: LookupdActions::default(),
            clients: Vec::new(),
            came: Vec::new(),
        })
    }

    /// Does what the machine asks for, until it asks for nothing.
    fn run(&mut self) {
        while !self.out.is_empty() {
            let LookupdActions { transmit, close, resume, events } = core::mem::take(&mut self.out);
            for conn in transmit {
                self.write(conn);
            }
            for conn in resume {
                let number = self.number(conn);
                self.input(number);
            }
            for conn in close {
                self.write(conn);
                let number = self.number(conn);
                if let Some(client) = self.clients.get_mut(number) {
                    client.is_closed = true;
                    self.came.push(Came::Closed(number));
                    self.lookupd.handle_closed(conn, self.now, &mut self.out);
                }
            }
            let log = events.iter().map(|event| format!("{} {event}", event.level()));
            self.came.extend(log.map(Came::Log));
        }
    }

    fn write(&mut self, conn: ConnId) {
        let mut owed = Transmit::new();
        self.lookupd.swap_transmit(conn, &mut owed);
        self.lookupd.handle_sent(conn, owed.len(), self.now, &mut self.out);
        let (mut owed, number) = (BytesMut::from(&owed.into_vec()[..]), self.number(conn));
        while let Some(text) = ReplyDecoder::new(usize::MAX).next(&mut owed).unwrap() {
            self.came.push(Came::Response(number, text));
        }
        assert!(owed.is_empty(), "half an answer: {}", owed.escape_ascii());
    }

    fn input(&mut self, number: usize) {
        let Client { conn, input, .. } = &mut self.clients[number];
        let _ = self.lookupd.handle_input(*conn, input, self.now, &mut self.out);
    }

    fn number(&self, conn: ConnId) -> usize {
        self.clients.iter().position(|client| client.conn == conn).unwrap()
    }
}

fn set(config: &mut LookupdConfig, flag: &str, value: &str) -> Option<()> {
    match flag {
        // What is no flag of the program is here by its name in the configuration.
        "connections-max" => config.connections_max = value.parse().ok()?,
        "inactive-producer-timeout" => {
            config.inactive_producer_timeout = parse_go_duration(value).ok()?;
        }
        "names-max" => config.names_max = value.parse().ok()?,
        "registrations-max" => config.registrations_max = value.parse().ok()?,
        "registrations-max-per-nsqd" => config.registrations_max_per_nsqd = value.parse().ok()?,
        "tombstone-lifetime" => config.tombstone_lifetime = parse_go_duration(value).ok()?,
        _ => return None,
    }
    Some(())
}

impl Server for Nsqlookupd {
    fn magic(&self) -> &'static [u8] {
        b"  V1"
    }

    fn connect(&mut self) {
        let port = 40_000 + self.clients.len() as u16;
        let conn = self.lookupd.accept(([127, 0, 0, 1], port).into(), self.now, &mut self.out);
        self.clients.push(Client { conn, input: BytesMut::new(), is_closed: false });
        self.run();
    }

    fn send(&mut self, number: usize, bytes: &[u8]) {
        let client = &mut self.clients[number];
        if !client.is_closed {
            client.input.extend_from_slice(bytes);
            self.input(number);
            self.run();
        }
    }

    fn half_close(&mut self, client: usize) {
        self.lookupd.handle_eof(self.clients[client].conn, self.now, &mut self.out);
        self.run();
    }

    fn close(&mut self, client: usize) {
        let client = &mut self.clients[client];
        client.is_closed = true;
        self.lookupd.handle_closed(client.conn, self.now, &mut self.out);
        self.run();
    }

    fn ask(&mut self, method: &str, uri: &str, body: Bytes) -> Result<(), String> {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(p, q)| (p, Some(q)));
        let request = HttpRequest { method, path, query, body: &body };
        match self.lookupd.handle_http(&request, self.now, &mut self.out) {
            LookupdReply::Reply(reply) => self.came.push(Came::Reply(reply)),
            LookupdReply::Metrics(_) => return Err(what_is(uri)),
        }
        self.run();
        Ok(())
    }

    fn answer(&mut self, _answer: Option<(u16, &str)>) -> Result<(), String> {
        Err("nsqlookupd asks no auth server".into())
    }

    fn stop(&mut self) {
        self.lookupd.shut_down(self.now, &mut self.out);
        self.run();
    }

    fn now(&self) -> Now {
        self.now
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.lookupd.poll_timeout()
    }

    fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.lookupd.handle_timeout(self.now, &mut self.out);
        self.run();
    }

    fn take(&mut self) -> Vec<Came> {
        core::mem::take(&mut self.came)
    }
}
