//! nsqlookupd: tells consumers which nsqds have a topic (nsqlookupd-protocol.md).
//!
//! ```text
//!             bytes                     commands
//! nsqd  ----------------> connection --------------> registrations <---- HTTP: [`Lookupd::handle_http`]
//!       <----------------            <--------------
//!             answers                     Ok
//! ```
//!
//! One [`Lookupd`] serves all connections of one process on one thread. Where it differs from the
//! reference, no nsqd and no client notices:
//!
//! - a connection that sends no magic within [`MAGIC_TIMEOUT`] is closed, and shutting down closes
//!   all;
//! - lines, bodies, connections and registrations are bounded, see [`LookupdConfig`] and
//!   [`crate::protocol::lookup`];
//! - a session is a connection, not a socket address, which may be reused too early;
//! - activity and tombstones are judged by the monotonic clock;
//! - of two sessions with the same broadcast address and TCP port, look-ups show one: of those that
//!   have registered something, the one that showed life last;
//! - where there is no room, names go that nobody produces, then registrations of the nsqd that has
//!   the most; a REGISTER that is refused does not end its session;
//! - ephemeral topics and channels go with their last producer, however it goes;
//! - lists are sorted, and `*` is not a name.
//!
//! Deleting a topic over HTTP drops the registrations of nsqds that still have it, as in the
//! reference: it is the first step of deleting it everywhere, and must not undo itself.

mod admin;
mod event;
mod http;
mod registrations;
mod room;

pub use admin::{Counters, Full, Lookup, LookupdStats, NodeInfo, ProducerInfo};
pub use event::{Category, DropReason, LookupdEvent};
pub use http::LookupdReply;

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::BytesMut;

use crate::arena::{Arena, ConnId};
use crate::deadlines::Deadlines;
use crate::machine::{Machine, MachineActions, ReadState};
use crate::protocol::lookup::{
    CommandDecoder, LookupCommand, LookupProtocolError, LookupdInfo, OK, Registration, encode_reply,
};
use crate::time::{Instant, Now};
use crate::transmit::Transmit;
use crate::version::NSQ_VERSION;

use registrations::Registrations;

/// What an nsqlookupd is told at its start. The defaults are the reference's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LookupdConfig {
    /// The address under which nsqds reach the HTTP interface; told in the answer to IDENTIFY.
    pub broadcast_address: String,
    /// The host's name.
    pub hostname: String,
    /// The real port of the TCP listener.
    pub tcp_port: u16,
    /// The real port of the HTTP listener.
    pub http_port: u16,
    /// A producer that is silent for longer is not shown.
    pub inactive_producer_timeout: Duration,
    /// For how long a tombstone hides.
    pub tombstone_lifetime: Duration,
    /// The most connections. One more is closed at once, without an answer.
    pub connections_max: usize,
    /// The most topics and channels together, with producers or without. Where one more is wanted,
    /// one without producers goes, then one of the producer with the most registrations; who has
    /// the most is refused itself.
    pub names_max: usize,
    /// The most pairs of a topic or channel and a producer of it; names are never more than this
    /// either. Where one more is wanted, the producer with the most registrations loses one, or is
    /// refused itself.
    pub registrations_max: usize,
    /// The most registrations of one connection. A REGISTER that needs more is refused.
    pub registrations_max_per_nsqd: usize,
}

impl Default for LookupdConfig {
    fn default() -> Self {
        Self {
            broadcast_address: String::new(),
            hostname: String::new(),
            tcp_port: 4160,
            http_port: 4161,
            inactive_producer_timeout: Duration::from_secs(300),
            tombstone_lifetime: Duration::from_secs(45),
            connections_max: CONNECTIONS_MAX,
            names_max: NAMES_MAX,
            registrations_max: REGISTRATIONS_MAX,
            registrations_max_per_nsqd: REGISTRATIONS_MAX_PER_NSQD,
        }
    }
}

/// What a turn asks of the driver of a [`Lookupd`]. Owned and reused by the caller.
#[derive(Debug, Default)]
pub struct LookupdActions {
    /// Connections that went from nothing to something to send: swap their bytes out and write
    /// them.
    pub transmit: Vec<ConnId>,
    /// Connections to close after what is owed to them has been sent, within [`CLOSE_TIMEOUT`] at
    /// most. [`handle_closed`](Machine::handle_closed) follows.
    pub close: Vec<ConnId>,
    /// Connections whose input was left alone ([`ReadState::Wait`]) and that have taken their
    /// answers: call [`handle_input`](Machine::handle_input) with what is there, then read on.
    pub resume: Vec<ConnId>,
    /// Lines for the log, in order.
    pub events: Vec<LookupdEvent>,
}

impl MachineActions for LookupdActions {
    fn is_empty(&self) -> bool {
        self.transmit.is_empty()
            && self.close.is_empty()
            && self.resume.is_empty()
            && self.events.is_empty()
    }

    fn clear(&mut self) {
        self.transmit.clear();
        self.close.clear();
        self.resume.clear();
        self.events.clear();
    }
}

/// An nsqlookupd.
#[derive(Debug)]
pub struct Lookupd {
    config: LookupdConfig,
    connections: Arena<ConnId, NsqdConnection>,
    registrations: Registrations,
    /// Of connections that have to send their magic.
    deadlines: Deadlines<ConnId>,
    /// Since when registrations of producers that are gone wait to be taken back.
    leaving_since: Option<Instant>,
    counters: Counters,
    is_shutting_down: bool,
}

#[derive(Debug)]
struct NsqdConnection {
    remote: SocketAddr,
    decoder: CommandDecoder,
    /// Bytes owed to the peer.
    transmit: Transmit,
    /// Nothing more is taken from the peer.
    is_closing: bool,
    /// Nothing more is taken until the peer has taken its answers.
    is_waiting: bool,
    /// A REGISTER of it was refused because there was no room, which the log has said.
    was_refused: bool,
    /// Registrations of it were dropped, and it has not been told yet.
    has_lost: bool,
}

impl Lookupd {
    /// An nsqlookupd without connections and registrations.
    pub fn new(config: LookupdConfig) -> Self {
        Self {
            config,
            connections: Arena::new(),
            registrations: Registrations::default(),
            deadlines: Deadlines::new(),
            leaving_since: None,
            counters: Counters::default(),
            is_shutting_down: false,
        }
    }

    /// What it was told at its start.
    pub const fn config(&self) -> &LookupdConfig {
        &self.config
    }

    /// Takes on a connection. One that is refused is in `out.close` already; for the caller it is
    /// like any other until [`handle_closed`](Machine::handle_closed).
    pub fn accept(&mut self, remote: SocketAddr, now: Now, out: &mut LookupdActions) -> ConnId {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let refusal = if self.is_shutting_down {
            Some(DropReason::ShuttingDown)
        } else if self.connections.len() >= self.config.connections_max {
            Some(DropReason::TooManyConnections)
        } else {
            None
        };
        let conn = self.connections.insert(NsqdConnection {
            remote,
            decoder: CommandDecoder::new(),
            transmit: Transmit::new(),
            is_closing: refusal.is_some(),
            is_waiting: false,
            was_refused: false,
            has_lost: false,
        });
        out.events.push(LookupdEvent::Connected(remote));
        if let Some(reason) = refusal {
            out.events.push(LookupdEvent::Dropped(remote, reason));
            out.close.push(conn);
        } else {
            self.deadlines.arm(now.instant + MAGIC_TIMEOUT, conn);
        }
        conn
    }

    fn command(
        &mut self,
        conn: ConnId,
        command: LookupCommand,
        now: Now,
        out: &mut LookupdActions,
    ) {
        let Some(connection) = self.connections.get(conn) else { return };
        let remote = connection.remote;
        let counters = &mut self.counters;
        *match command {
            LookupCommand::Identify(_) => &mut counters.identifies,
            LookupCommand::Ping => &mut counters.pings,
            LookupCommand::Register(_) => &mut counters.registers,
            LookupCommand::Unregister(_) => &mut counters.unregisters,
        } += 1;
        match command {
            LookupCommand::Ping => {
                if let Some(age) = self.registrations.refresh(conn, now) {
                    out.events.push(LookupdEvent::Pinged(remote, age));
                }
                if self.connections.get_mut(conn).is_some_and(|c| core::mem::take(&mut c.has_lost))
                {
                    return self.answer(
                        conn,
                        &LookupProtocolError::RegistrationsDropped.text(),
                        out,
                    );
                }
            }
            LookupCommand::Identify(info) => {
                out.events.push(LookupdEvent::Identified {
                    remote,
                    broadcast_address: info.broadcast_address.clone(),
                    tcp_port: info.tcp_port,
                    http_port: info.http_port,
                    version: info.version.clone(),
                });
                out.events.push(LookupdEvent::Registered(remote, Category::Client));
                self.registrations.add_producer(conn, remote, info, now);
                return self.answer(conn, self.info().to_json().as_bytes(), out);
            }
            LookupCommand::Register(registration) => {
                if !self.make_room(conn, &registration, out) {
                    return self.refuse(conn, registration, out);
                }
                let added = self.registrations.register(conn, &registration);
                let Registration { topic, channel } = registration;
                if let (true, Some(channel)) = (added.channel, channel) {
                    out.events
                        .push(LookupdEvent::Registered(remote, Category::Channel(topic, channel)));
                }
                if added.topic {
                    out.events.push(LookupdEvent::Registered(remote, Category::Topic(topic)));
                }
            }
            LookupCommand::Unregister(Registration { topic, channel: Some(channel) }) => {
                if self.registrations.unregister_channel(conn, topic, channel) {
                    out.events.push(LookupdEvent::Unregistered(
                        remote,
                        Category::Channel(topic, channel),
                    ));
                }
            }
            LookupCommand::Unregister(Registration { topic, channel: None }) => {
                if let Some(channels) = self.registrations.unregister_topic(conn, topic) {
                    out.events.extend(channels.into_iter().map(|channel| {
                        let channel = Some(channel);
                        LookupdEvent::UnexpectedUnregister(remote, Registration { topic, channel })
                    }));
                    out.events.push(LookupdEvent::Unregistered(remote, Category::Topic(topic)));
                }
            }
        }
        self.answer(conn, OK, out);
    }

    fn info(&self) -> LookupdInfo {
        LookupdInfo {
            broadcast_address: self.config.broadcast_address.clone(),
            hostname: self.config.hostname.clone(),
            http_port: i64::from(self.config.http_port),
            tcp_port: i64::from(self.config.tcp_port),
            version: NSQ_VERSION.into(),
        }
    }

    fn answer(&mut self, conn: ConnId, text: &[u8], out: &mut LookupdActions) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.transmit.is_empty() {
            out.transmit.push(conn);
        }
        let mut reply = Vec::with_capacity(text.len() + 4);
        encode_reply(text, &mut reply);
        connection.transmit.push(&reply);
    }

    /// Tells the peer what it did wrong, and closes.
    fn fail(
        &mut self,
        conn: ConnId,
        error: LookupProtocolError,
        now: Now,
        out: &mut LookupdActions,
    ) {
        let Some(connection) = self.connections.get(conn) else { return };
        let (remote, text) = (connection.remote, error.text());
        self.counters.errors += 1;
        if let LookupProtocolError::BadMagic(magic) = &error {
            out.events.push(LookupdEvent::Magic(remote, *magic));
        }
        out.events.push(LookupdEvent::Refused(remote, error));
        self.answer(conn, &text, out);
        self.close(conn, now, out);
    }

    fn close(&mut self, conn: ConnId, now: Now, out: &mut LookupdActions) {
        self.end_session(conn, now, out);
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.is_closing = true;
            out.close.push(conn);
        }
    }

    /// Takes the connection's registrations back; of many all but the first slice later.
    fn end_session(&mut self, conn: ConnId, now: Now, out: &mut LookupdActions) {
        let Some(connection) = self.connections.get(conn) else { return };
        let remote = connection.remote;
        if connection.decoder.has_magic() {
            out.events.push(LookupdEvent::Exiting(remote));
        }
        let Some(topics) = self.registrations.remove_producer(conn) else { return };
        for (topic, channels) in topics {
            out.events.extend(channels.into_iter().map(|channel| {
                LookupdEvent::Unregistered(remote, Category::Channel(topic, channel))
            }));
            out.events.push(LookupdEvent::Unregistered(remote, Category::Topic(topic)));
        }
        out.events.push(LookupdEvent::Unregistered(remote, Category::Client));
        if self.registrations.is_leaving() {
            self.leaving_since.get_or_insert(now.instant);
        }
    }
}

impl Machine for Lookupd {
    type Actions = LookupdActions;

    /// It stops early when the answers owed reach [`OWED_MAX`].
    fn handle_input(
        &mut self,
        conn: ConnId,
        input: &mut BytesMut,
        now: Now,
        out: &mut LookupdActions,
    ) -> ReadState {
        loop {
            let Some(connection) = self.connections.get_mut(conn).filter(|it| !it.is_closing)
            else {
                input.clear();
                return ReadState::Stop;
            };
            connection.is_waiting = connection.transmit.len() >= OWED_MAX;
            if connection.is_waiting {
                return ReadState::Wait;
            }
            let had_magic = connection.decoder.has_magic();
            let result = connection.decoder.next(input);
            if !had_magic && connection.decoder.has_magic() {
                out.events
                    .push(LookupdEvent::Magic(connection.remote, crate::protocol::lookup::MAGIC));
            }
            match result {
                Ok(Some(command)) => self.command(conn, command, now, out),
                Ok(None) => return ReadState::More(1),
                Err(error) => self.fail(conn, error, now, out),
            }
        }
    }

    fn handle_eof(&mut self, conn: ConnId, now: Now, out: &mut LookupdActions) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_closing {
            return;
        }
        match connection.decoder.finish() {
            Ok(()) => {
                let remote = connection.remote;
                out.events.push(LookupdEvent::Ended(remote));
                self.close(conn, now, out);
            }
            Err(error) => self.fail(conn, error, now, out),
        }
    }

    fn handle_sent(&mut self, conn: ConnId, _bytes: usize, _now: Now, out: &mut LookupdActions) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_waiting && connection.transmit.len() < OWED_MAX {
            connection.is_waiting = false;
            out.resume.push(conn);
        }
    }

    fn handle_closed(&mut self, conn: ConnId, now: Now, out: &mut LookupdActions) {
        let Some(connection) = self.connections.get(conn) else { return };
        if !connection.is_closing {
            out.events.push(LookupdEvent::Ended(connection.remote));
            self.end_session(conn, now, out);
        }
        self.connections.remove(conn);
    }

    fn swap_transmit(&mut self, conn: ConnId, spare: &mut Transmit) {
        assert!(spare.is_empty(), "bytes left over from another swap");
        if let Some(connection) = self.connections.get_mut(conn) {
            core::mem::swap(&mut connection.transmit, spare);
        }
    }

    /// Closes connections whose magic is overdue, and takes back some of what producers that are
    /// gone had registered.
    fn handle_timeout(&mut self, now: Now, out: &mut LookupdActions) {
        while let Some((_, conn)) = self.deadlines.pop_due(now.instant) {
            let Some(connection) = self.connections.get(conn) else { continue };
            if !connection.is_closing && !connection.decoder.has_magic() {
                out.events.push(LookupdEvent::Dropped(connection.remote, DropReason::MagicTimeout));
                self.close(conn, now, out);
            }
        }
        self.take_back_some(out);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let next = self.deadlines.next();
        self.leaving_since.map(|since| next.map_or(since, |next| next.min(since))).or(next)
    }

    fn shut_down(&mut self, now: Now, out: &mut LookupdActions) {
        self.is_shutting_down = true;
        let open = self.connections.iter().filter(|(_, c)| !c.is_closing);
        let open: Vec<ConnId> = open.map(|(conn, _)| conn).collect();
        for conn in open {
            self.close(conn, now, out);
        }
    }
}

/// How long a connection may take to send its four bytes of magic. The reference waits for ever,
/// and then cannot end (nsqlookupd-protocol.md section 12, W3).
pub const MAGIC_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a driver goes on sending to a connection that is to be closed.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// So many bytes of answers may be owed before a peer's commands are left unread: some 2,700
/// answers `OK`, more than an nsqd that waits for its answers ever has open. One answer may go
/// beyond it.
pub const OWED_MAX: usize = 16 * 1024;

/// The default of [`LookupdConfig::connections_max`]: far above any cluster's number of nsqds, and
/// a bound on what a leak of connections can cost.
const CONNECTIONS_MAX: usize = 65_536;

/// The default of [`LookupdConfig::names_max`]: 430 MB if each has a producer of its own, up to
/// 580 MB where producers come and go (2026-11-30, x86-64, names of 64 bytes).
pub const NAMES_MAX: usize = 1_000_000;

/// The default of [`LookupdConfig::registrations_max`]: twice a thousand nsqds with a thousand
/// topics of five channels each, some 750 MB.
pub const REGISTRATIONS_MAX: usize = 12_000_000;

/// The default of [`LookupdConfig::registrations_max_per_nsqd`]: a hundred thousand topics of three
/// channels each.
pub const REGISTRATIONS_MAX_PER_NSQD: usize = 400_000;

#[cfg(test)]
mod tests;
