//! The server's side of one V2 connection: handshake, options, answers in order, deadlines, bytes
//! owed.
//!
//! ```text
//!   Magic ──"  V2"──► Open ──fatal error, end of input──► Ending ──everything sent──► gone
//! ```
//!
//! Answers carry no id in NSQ, so they leave in command order: a command whose outcome is not known
//! yet holds a place in the queue of replies, and later answers wait behind it. Messages and
//! heartbeats do not wait. Limits: [`PENDING_REPLIES_MAX`] open answers, then no further command is
//! decoded; [`REPLIES_OWED_MAX`] bytes of answers that the peer does not take, likewise; a whole
//! body's length of unanswered publishes, likewise, so that two bodies are the most;
//! [`OWED_LEN_MAX`] bytes owed, then no further message is delivered.
//!
//! Behind an IDENTIFY that asks for them there are layers between socket and protocol: TLS, Snappy,
//! Deflate. Then `transmit` holds plain bytes, which are encoded when the driver takes them.
//!
//! Source: nsqd-protocol.md sections 2, 5, 8 and 9.

mod identify;
mod output;
mod settings;
// Without the feature there is nothing to upgrade to, and the same methods do nothing.
#[cfg_attr(not(feature = "upgrade"), path = "plain.rs")]
mod upgrade;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::{Buf, BytesMut};

pub use self::output::Close;
pub(super) use self::output::ConnectionOutput;
use self::settings::Settings;
use self::upgrade::Upgrade;
pub(super) use self::upgrade::Workspace;
use super::auth::{ClientAuth, Facts};
use super::config::{
    ALLOWANCE_LEN, COMMAND_DEADLINE_WITHOUT_HEARTBEAT, Config, LINGER, MAGIC_DEADLINE,
    OWED_LEN_MAX, PENDING_REPLIES_MAX, PUB_COUNTS_MAX, REPLIES_OWED_MAX, TlsRequired,
    WRITE_DEADLINE_WITHOUT_HEARTBEAT,
};
use super::event::{ClientFailure, Event};
use super::ids::Peer;
use super::line::Nearness;
use crate::arena::{ChannelId, ConnId, ConsumerId, Key};
use crate::machine::ReadState;
use crate::message::{Bodies, Message};
use crate::name::{ChannelName, TopicName};
use crate::protocol::command::{ClientState, Command, DecodeError, Decoder, Gate};
use crate::protocol::error::{ErrorCode, ProtocolError};
use crate::protocol::frame::{
    CLOSE_WAIT, FRAME_HEADER_LEN, FrameType, HEARTBEAT, MAGIC_V2, MESSAGE_HEADER_LEN, OK,
    push_frame, push_message,
};
use crate::time::{Instant, Now};
use crate::transmit::Transmit;

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct Detached(pub(in crate::nsqd) Box<Connection>);

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its own name; changes when it moves to another shard.
    pub(super) id: ConnId,
    pub(super) peer: Peer,
    phase: Phase,
    decoder: Decoder,
    pub(super) state: ClientState,
    pub(super) settings: Settings,
    /// What deliveries and heartbeats go by: the settings of the first IDENTIFY, whatever a later
    /// one says (section 8.6).
    pub(super) delivery: Option<Settings>,
    /// How near the first IDENTIFY says that it is.
    pub(super) nearness: Nearness,
    pub(super) identity: Box<Identity>,
    replies: VecDeque<Slot>,
    /// The number of the first of `replies`.
    first_slot: u64,
    /// What is owed and not yet swapped out, before any layer.
    transmit: Transmit,
    /// The layers, of a connection that has any.
    upgrade: Option<Box<Upgrade>>,
    /// Whether the driver was told that there is something to send.
    announced: bool,
    /// Bytes not yet written, those in the driver's hands included. They count as they are: plain
    /// before they are encoded, on the wire afterwards.
    owed: usize,
    /// How many of them are answers.
    replies_owed: usize,
    /// Whether the channel was told that the connection can take no more messages.
    pub(super) blocked: bool,
    /// Whether input was left alone until replies are in.
    waits: bool,
    /// What it holds of the shard's room.
    pub(super) share: Share,
    /// The longest body of a command, and so what it may have unanswered before its next one.
    body_len_max: usize,
    next_heartbeat: Option<Instant>,
    read_deadline: Option<Instant>,
    write_deadline: Option<Instant>,
    /// The earliest time at which the shard will look at this connection.
    pub(super) armed: Option<Instant>,
    pub(super) subscription: Option<(ChannelId, ConsumerId)>,
    /// A SUB that waits for earlier answers, for the move to its channel's shard, or, once it has
    /// joined, for the channels of the topic that it made. It lasts a moment, and the names are
    /// long.
    pub(super) subscribing: Option<Box<(TopicName, ChannelName)>>,
    /// Whether the driver was told to move it.
    pub(super) moving: bool,
    /// The topic that a refused or an unfinished command creates (section 7.6).
    pub(super) creates: Option<Box<TopicName>>,
    /// From AUTH on, if authorization is on.
    pub(super) auth: Option<Box<ClientAuth>>,
    /// Whether the end of the input came while an auth server was asked.
    ended_asking: bool,
    /// What it published and was accepted, by topic; at most [`PUB_COUNTS_MAX`] of them.
    pub_counts: Vec<(TopicName, u64)>,
}

/// What the statistics show of a client; each text has at most [`IDENTITY_LEN_MAX`](super::config)
/// bytes.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) client_id: String,
    pub(super) hostname: String,
    pub(super) user_agent: String,
    pub(super) topology_region: String,
    pub(super) topology_zone: String,
    pub(super) connect_ts: i64,
}

/// What a connection holds of its shard's room, or waits for; the shard keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Bytes of publishes that are not answered.
    pub(super) unanswered: usize,
    /// Bytes that are kept for the body that is half there.
    pub(super) reserved: usize,
    /// Since when.
    pub(super) since: Option<Instant>,
    /// Its input is left alone until there is room.
    pub(super) wants: Option<Want>,
    /// Whether it is in the line for the shared part, and in that for the small one.
    pub(super) is_queued: bool,
    pub(super) is_queued_small: bool,
}

/// Which room a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Want {
    /// For its next small publish.
    Small,
    /// So many bytes of the shared part.
    Shared(usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The four bytes that name the protocol are awaited.
    Magic,
    /// Commands are carried out.
    Open,
    /// Nothing is read any more; open answers are still sent, then the connection closes.
    Ending,
    /// The driver was told to close it.
    Closed,
}

/// The place of a command's answer among the others.
#[derive(Debug)]
enum Slot {
    /// The answer, which waits for earlier ones.
    Done(Reply),
    /// It is a publish, whose outcome is to come.
    Publish {
        /// Where in `pub_counts` it counts, if it does.
        count_at: Option<u32>,
        messages: u32,
    },
}

/// An answer to a command.
#[derive(Debug)]
pub(super) enum Reply {
    CloseWait,
    Error(ProtocolError),
    Json(String),
    Ok,
}

impl Connection {
    pub(super) fn new(peer: Peer, config: &Config, now: Now) -> Self {
        let ip = match peer {
            Peer::Tcp(address) => address.ip().to_string(),
            Peer::Unix => String::new(),
        };
        let settings = Settings::new(config);
        Self {
            id: ConnId::new(0, 0),
            peer,
            phase: Phase::Magic,
            decoder: Decoder::default(),
            state: ClientState::Init,
            settings,
            delivery: None,
            nearness: Nearness::default(),
            identity: Box::new(Identity {
                client_id: ip.clone(),
                hostname: ip,
                user_agent: String::new(),
                topology_region: String::new(),
                topology_zone: String::new(),
                connect_ts: now.unix.as_secs(),
            }),
            replies: VecDeque::new(),
            first_slot: 0,
            transmit: Transmit::new(),
            upgrade: None,
            announced: false,
            owed: 0,
            replies_owed: 0,
            blocked: false,
            waits: false,
            share: Share::default(),
            body_len_max: config.body_len_max(),
            next_heartbeat: None,
            read_deadline: Some(now.instant + MAGIC_DEADLINE),
            write_deadline: None,
            armed: None,
            subscription: None,
            subscribing: None,
            moving: false,
            creates: None,
            auth: None,
            ended_asking: false,
            pub_counts: Vec::new(),
        }
    }

    /// Takes the next command out of `input`. `None` when there is none to carry out now: bytes are
    /// missing, earlier answers are, or the connection ends.
    pub(super) fn next_command(
        &mut self,
        input: &mut BytesMut,
        config: &Config,
        bodies: &mut Bodies,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> Option<Command> {
        if self.phase == Phase::Magic && !self.take_magic(input, now, out) {
            return None;
        }
        if self.phase != Phase::Open || self.is_waiting() || self.is_upgrading() {
            return None;
        }
        let gate = Gate {
            state: self.state,
            heartbeats: self.settings.heartbeat_interval.is_some(),
            authorizes: config.is_auth_enabled(),
            lacks_tls: config.tls_required != TlsRequired::No && !self.has_tls(),
        };
        match self.decoder.decode(input, gate, &config.limits(), bodies) {
            Ok(Some(command)) => {
                if !matches!(command, Command::MpubLine(_)) {
                    // Carrying it out makes the topic.
                    let _ = self.decoder.opened();
                }
                // The deadline runs anew from the end of each command (section 9). The shard looks
                // at it when it has gone by, so that this costs one store.
                self.restart_read_deadline(now);
                Some(command)
            }
            Ok(None) => {
                self.creates = self.decoder.opened().map(Box::new);
                None
            }
            Err(DecodeError::Protocol(error)) => {
                self.refuse(error, now, out);
                None
            }
            Err(DecodeError::LineTooLong) => {
                out.event(Event::ClientFailed(self.peer, ClientFailure::LineTooLong));
                self.end(now, out);
                None
            }
        }
    }

    /// Where FINs go that are next in the input, if they are to be carried out now.
    pub(super) fn finishes_on(&self) -> Option<(ChannelId, ConsumerId)> {
        let is_ready = self.phase == Phase::Open && !self.is_waiting() && !self.is_upgrading();
        self.subscription.filter(|_| is_ready && self.decoder.is_between())
    }

    /// From now on the client has two heartbeat intervals for its next command (section 9).
    pub(super) fn restart_read_deadline(&mut self, now: Now) {
        self.read_deadline = self.settings.heartbeat_interval.map(|hb| now.instant + hb * 2);
    }

    /// What the driver is to do with the input, of which this is left.
    pub(super) fn read_state(&mut self, input: &[u8]) -> ReadState {
        match self.phase {
            Phase::Ending | Phase::Closed => ReadState::Stop,
            Phase::Magic => ReadState::More(MAGIC_V2.len().saturating_sub(input.len()).max(1)),
            Phase::Open if self.is_waiting() => {
                self.waits = true;
                ReadState::Wait
            }
            Phase::Open => ReadState::More(
                self.layer_needs(input).unwrap_or_else(|| self.decoder.needs(input.len())),
            ),
        }
    }

    /// Whether the next command, with which `input` begins, is one that publishes.
    pub(super) fn publishes_next(&self, input: &[u8]) -> bool {
        self.phase == Phase::Open && self.decoder.publishes_next(input)
    }

    /// How much room the body needs that is half there, of which there are `len` bytes; 0 for one
    /// that needs none of the shared part.
    pub(super) fn room_needed(&self, len: usize) -> usize {
        match self.decoder.body_len() {
            // The size that an MPUB declares may be too small, as nobody compares the two.
            Some(whole) if len > whole => self.body_len_max,
            Some(whole) if len >= ALLOWANCE_LEN => whole,
            _ => 0,
        }
    }

    /// There is `input` that makes no command yet: it has to be one in time also without
    /// heartbeats.
    pub(super) fn mind_rest(&mut self, input: &[u8], now: Now) {
        if self.phase == Phase::Open
            && self.read_deadline.is_none()
            && !self.is_waiting()
            && !(input.is_empty() && self.decoder.is_between())
        {
            self.read_deadline = Some(now.instant + COMMAND_DEADLINE_WITHOUT_HEARTBEAT);
        }
    }

    /// The client has had enough time for what it began to send.
    pub(super) fn give_up_input(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        out.event(Event::ClientFailed(self.peer, ClientFailure::ReadDeadline));
        match self.decoder.interrupted() {
            Some(error) => self.refuse(error, now, out),
            None => self.end(now, out),
        }
    }

    /// Tells the client that it is refused. The shard makes the topic that some refused commands
    /// create.
    pub(super) fn refuse(
        &mut self,
        error: ProtocolError,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) {
        self.creates = error.creates().map(Box::new);
        out.event(Event::ClientRefused(self.peer, error.clone()));
        let fatal = error.is_fatal();
        self.respond(Reply::Error(error), now, out);
        if fatal {
            self.end(now, out);
        }
    }

    /// Answers a command, behind the answers that earlier commands still wait for.
    pub(super) fn respond(&mut self, reply: Reply, now: Now, out: &mut impl ConnectionOutput) {
        if self.replies.is_empty() {
            self.write_reply(&reply, now, out);
        } else {
            self.replies.push_back(Slot::Done(reply));
        }
    }

    /// Keeps a place for the answer to a publish of so many messages to this topic.
    pub(super) fn begin_publish(&mut self, topic: &TopicName, messages: usize) -> u64 {
        let count_at = self.count_at(topic);
        self.replies.push_back(Slot::Publish { count_at, messages: messages as u32 });
        self.first_slot + self.replies.len() as u64 - 1
    }

    /// Where what it publishes to this topic is counted.
    fn count_at(&mut self, topic: &TopicName) -> Option<u32> {
        let at = match self.pub_counts.binary_search_by(|(name, _)| name.cmp(topic)) {
            Ok(at) => at,
            Err(_) if self.pub_counts.len() >= PUB_COUNTS_MAX => return None,
            Err(at) => {
                self.pub_counts.insert(at, (*topic, 0));
                for slot in &mut self.replies {
                    if let Slot::Publish { count_at: Some(other), .. } = slot {
                        *other += u32::from(*other as usize >= at);
                    }
                }
                at
            }
        };
        Some(at as u32)
    }

    /// Answers the command that holds `slot`. An answer to a slot that is gone is ignored.
    pub(super) fn complete(
        &mut self,
        slot: u64,
        reply: Reply,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) {
        let Some(at) = slot.checked_sub(self.first_slot) else { return };
        let Some(place) = self.replies.get_mut(at as usize) else { return };
        if let Reply::Error(error) = &reply {
            out.event(Event::ClientRefused(self.peer, error.clone()));
        }
        if let Slot::Publish { count_at: Some(at), messages } = *place
            && matches!(reply, Reply::Ok)
            && let Some((_, count)) = self.pub_counts.get_mut(at as usize)
        {
            *count += u64::from(messages);
        }
        *place = Slot::Done(reply);
        let mut ends = self.phase == Phase::Ending;
        while let Some(Slot::Done(_)) = self.replies.front()
            && let Some(Slot::Done(reply)) = self.replies.pop_front()
        {
            self.first_slot += 1;
            self.write_reply(&reply, now, out);
            if matches!(&reply, Reply::Error(error) if error.is_fatal()) {
                // Nothing behind a fatal error is answered (section 6).
                self.first_slot += self.replies.len() as u64;
                self.replies.clear();
                ends = true;
            }
        }
        if ends {
            self.end(now, out);
        } else {
            self.climb(now, out);
            self.resume(out);
        }
    }

    /// Lets a driver that was told to wait go on reading, if nothing is in the way any more.
    pub(super) fn resume(&mut self, out: &mut impl ConnectionOutput) {
        if self.waits && !self.is_waiting() {
            self.waits = false;
            out.resume(self.id);
        }
    }

    /// How many commands wait for their answers.
    pub(super) fn open_replies(&self) -> usize {
        self.replies.len()
    }

    /// It is a consumer from now on: a few of its commands are answered, and those at once.
    pub(super) fn subscribed(&mut self, channel: ChannelId, consumer: ConsumerId) {
        self.subscription = Some((channel, consumer));
        self.state = ClientState::Subscribed;
        if self.replies.is_empty() {
            self.replies = VecDeque::new();
        }
    }

    /// Whether earlier commands wait for their answers.
    pub(super) fn has_open_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Whether bytes are still to be written.
    pub(super) const fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Whether it still takes commands and messages.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Magic | Phase::Open)
    }

    /// Sends a message. Returns whether the connection takes another one now.
    pub(super) fn deliver(
        &mut self,
        message: &Message,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> bool {
        push_message(&mut self.transmit, message);
        let len = FRAME_HEADER_LEN + MESSAGE_HEADER_LEN + message.body.len();
        self.stir();
        self.owe(len, now, out);
        self.blocked = self.owed > OWED_LEN_MAX;
        !self.blocked
    }

    /// Takes note that bytes were written. Returns whether messages may flow again.
    pub(super) fn handle_sent(&mut self, bytes: usize, now: Now) -> bool {
        self.owed = self.owed.saturating_sub(bytes);
        self.replies_owed = self.replies_owed.min(self.owed);
        if bytes > 0 {
            self.write_deadline = (self.owed > 0).then(|| now.instant + self.write_patience());
        }
        let unblocked = self.blocked && self.owed <= OWED_LEN_MAX / 2;
        self.blocked &= !unblocked;
        unblocked
    }

    /// Swaps the bytes to be written with an empty buffer.
    pub(super) fn swap_transmit(&mut self, spare: &mut Transmit, workspace: &mut Workspace) {
        if self.upgrade.is_some() {
            self.encode(spare, workspace);
        } else {
            core::mem::swap(&mut self.transmit, spare);
        }
        self.announced = false;
    }

    /// The peer sends nothing more. An unfinished command is answered, then the connection ends.
    pub(super) fn handle_eof(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        if self.is_asking() {
            // The command that waits for an auth server's word is complete, and is answered.
            self.ended_asking = true;
            return;
        }
        if self.fail_handshake("unexpected end of input", now, out) {
            return;
        }
        if self.phase == Phase::Open
            && let Some(error) = self.decoder.interrupted()
        {
            return self.refuse(error, now, out);
        }
        self.end(now, out);
    }

    /// Whether an auth server is asked about it.
    fn is_asking(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.is_asking())
    }

    /// The auth servers have been asked, and what waited for them is done.
    pub(super) fn handle_asked(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        if self.is_open() && !self.is_asking() {
            // It was the broker that kept the client waiting.
            self.restart_read_deadline(now);
            if core::mem::take(&mut self.ended_asking) {
                self.handle_eof(now, out);
            }
        }
        self.resume(out);
    }

    /// What an auth server is told of it.
    pub(super) fn facts(&self) -> Facts {
        let remote_ip = match self.peer {
            Peer::Tcp(address) => address.ip().to_canonical().to_string(),
            Peer::Unix => String::new(),
        };
        let tls = self.tls_info();
        let is_tls = tls.is_some();
        Facts { remote_ip, is_tls, common_name: tls.unwrap_or_default().common_name }
    }

    /// What deliveries go by.
    pub(super) fn delivery_settings(&self) -> Settings {
        self.delivery.unwrap_or(self.settings)
    }

    /// What it published and was accepted, by topic.
    pub(super) fn pub_counts(&self) -> impl Iterator<Item = (TopicName, u64)> {
        self.pub_counts.iter().copied().filter(|(_, count)| *count > 0)
    }

    /// Ends the connection once what is owed is sent.
    pub(super) fn end(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.phase != Phase::Ending {
            self.phase = Phase::Ending;
            self.next_heartbeat = None;
            self.read_deadline = Some(now.instant + LINGER);
        }
        if self.replies.is_empty() {
            self.close(Close::AfterSending, now, out);
        }
    }

    /// Looks at the deadlines.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut impl ConnectionOutput) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now.instant);
        if due(self.write_deadline) {
            out.event(Event::ClientFailed(self.peer, ClientFailure::WriteDeadline));
            return self.close(Close::Now, now, out);
        }
        if due(self.read_deadline) {
            if self.fail_handshake("i/o timeout", now, out) {
                return;
            }
            return match self.phase {
                Phase::Open if self.is_waiting() => {
                    // It is the broker that keeps the client waiting.
                    self.restart_read_deadline(now);
                }
                Phase::Magic | Phase::Open => self.give_up_input(now, out),
                Phase::Ending | Phase::Closed => self.close(Close::Now, now, out),
            };
        }
        if due(self.next_heartbeat) {
            let interval = self.delivery_settings().heartbeat_interval;
            self.next_heartbeat = interval.map(|hb| now.instant + hb);
            self.rest();
            push_frame(&mut self.transmit, FrameType::Response, HEARTBEAT);
            self.owe(FRAME_HEADER_LEN + HEARTBEAT.len(), now, out);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next worth a call.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.next_heartbeat, self.read_deadline, self.write_deadline].into_iter().flatten().min()
    }

    fn take_magic(
        &mut self,
        input: &mut BytesMut,
        now: Now,
        out: &mut impl ConnectionOutput,
    ) -> bool {
        let Some(magic) = input.first_chunk::<4>().copied() else { return false };
        out.event(Event::Magic(self.peer, magic));
        if &magic != MAGIC_V2 {
            self.phase = Phase::Open;
            self.write_reply(
                &Reply::Error(ProtocolError::new(ErrorCode::BadProtocol, *b"")),
                now,
                out,
            );
            self.end(now, out);
            return false;
        }
        input.advance(magic.len());
        self.phase = Phase::Open;
        let interval = self.settings.heartbeat_interval;
        self.next_heartbeat = interval.map(|hb| now.instant + hb);
        self.restart_read_deadline(now);
        true
    }

    /// Whether no command may be decoded now: answers are outstanding, or are not taken.
    fn is_waiting(&self) -> bool {
        self.subscribing.is_some()
            || self.is_asking()
            || self.awaits_upgrade()
            || self.replies.len() >= PENDING_REPLIES_MAX
            || self.replies_owed > REPLIES_OWED_MAX
            || self.share.unanswered >= self.body_len_max
            || self.share.wants.is_some()
    }

    fn write_reply(&mut self, reply: &Reply, now: Now, out: &mut impl ConnectionOutput) {
        let before = self.transmit.len();
        match reply {
            Reply::CloseWait => push_frame(&mut self.transmit, FrameType::Response, CLOSE_WAIT),
            Reply::Error(error) => {
                push_frame(&mut self.transmit, FrameType::Error, &error.payload())
            }
            Reply::Json(json) => {
                push_frame(&mut self.transmit, FrameType::Response, json.as_bytes())
            }
            Reply::Ok => push_frame(&mut self.transmit, FrameType::Response, OK),
        }
        let len = self.transmit.len() - before;
        self.replies_owed += len;
        self.stir();
        self.owe(len, now, out);
    }

    /// Takes note of bytes that were appended to `transmit`.
    fn owe(&mut self, bytes: usize, now: Now, out: &mut impl ConnectionOutput) {
        if self.owed == 0 {
            self.write_deadline = Some(now.instant + self.write_patience());
        }
        self.owed += bytes;
        self.announce(out);
    }

    /// Tells the driver that there is something to send.
    fn announce(&mut self, out: &mut impl ConnectionOutput) {
        if !self.announced {
            self.announced = true;
            out.transmit(self.id);
        }
    }

    /// How long the peer may take no bytes.
    fn write_patience(&self) -> core::time::Duration {
        self.settings.heartbeat_interval.unwrap_or(WRITE_DEADLINE_WITHOUT_HEARTBEAT)
    }

    fn close(&mut self, how: Close, now: Now, out: &mut impl ConnectionOutput) {
        if how == Close::AfterSending {
            self.say_farewell(out);
            self.read_deadline = Some(now.instant + LINGER);
        } else {
            (self.read_deadline, self.write_deadline) = (None, None);
        }
        self.next_heartbeat = None;
        self.phase = Phase::Closed;
        // Answers that other shards still give would be sent behind the close.
        self.first_slot += self.replies.len() as u64;
        self.replies.clear();
        out.close(self.id, how);
    }
}
