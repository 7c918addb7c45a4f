//! One connection from a client to a nsqd (clients.md part 1).
//!
//! ```text
//!  dial --> Dialing --handle_connected--> Identify --> Upgrade --> Auth --> Open --start_close--> Closing
//!              |      magic + IDENTIFY       |   if asked for and if required  |
//!              +-- any error: the call returns it, the owner drops the connection and the socket
//! ```
//!
//! - The magic and IDENTIFY are one write, so the reference client's states MAGIC and IDENTIFY are
//!   one.
//! - A heartbeat is never taken for the answer to a command, and is answered in every state, at
//!   once but for one: if TLS or a compression was asked for, between IDENTIFY and the last upgrade
//!   the server throws away what it has read of the old layer (nsqd-protocol.md section 8.4), so
//!   the answer waits.
//! - However many heartbeats came, at most one NOP is owed: the server counts any command as a sign
//!   of life. So a server that does not read costs a client no memory.
//! - TLS, Snappy and Deflate come between IDENTIFY and AUTH, if [`ConnectionOptions`] ask for them
//!   (feature `upgrade`). From then on what comes in and goes out here is the bytes of the socket
//!   all the same. Without them no byte is copied once more.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::mem;
use core::time::Duration;

use super::error::{ConnectionError, readable};
use super::frame::{self, Frame, Received};
use super::options::{Asked, ConnectionOptions};
use crate::message::MESSAGE_ID_LEN;
use crate::name::{ChannelName, TopicName};
use crate::protocol::encode;
use crate::protocol::frame::{HEARTBEAT, OK};
use crate::protocol::json::{Fields, InvalidJson};
use crate::secret::Secret;
use crate::time::{Instant, Now};

#[cfg(not(feature = "upgrade"))]
#[path = "connection/plain.rs"]
mod upgrade;
#[cfg(feature = "upgrade")]
mod upgrade;

use upgrade::Upgrade;

/// The client's side of one connection.
#[derive(Debug)]
pub struct ClientConnection {
    state: State,
    /// What is owed to the server, apart from the answer to its heartbeats.
    transmit: Vec<u8>,
    owes_nop: bool,
    /// Of the connect, of the handshake, or of the next byte, according to the state.
    deadline: Option<Instant>,
    handshake_timeout: Duration,
    /// `None` without heartbeats: then silence is no sign of death.
    read_timeout: Option<Duration>,
    max_frame_size: usize,
    secret: Option<Secret>,
    asked: Asked,
    negotiated: Negotiated,
    /// `None` if no layers are asked for, or none was granted.
    upgrade: Option<Box<Upgrade>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Dialing,
    Identify,
    /// The layer of this name is to be acknowledged.
    Upgrade(&'static str),
    Auth,
    Open,
    Closing,
}

/// What a server said in its answer to IDENTIFY.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Negotiated {
    /// The largest RDY count that the server takes.
    pub max_rdy_count: u32,
    /// The server's version; empty from a server without negotiation.
    pub version: String,
    /// How long a message may be in flight here before the server sends it again.
    pub msg_timeout: Option<Duration>,
    /// How long TOUCH can extend that.
    pub max_msg_timeout: Option<Duration>,
    /// Whether the server requires AUTH.
    pub auth_required: bool,
    /// Whether the connection speaks TLS.
    pub tls: bool,
    /// Whether the connection is packed with Snappy.
    pub snappy: bool,
    /// Whether the connection is packed with Deflate.
    pub deflate: bool,
}

/// What a server said in its answer to AUTH.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Whom the secret belongs to.
    pub identity: String,
    /// Where to read more about it.
    pub identity_url: String,
    /// How many permissions come with it.
    pub permission_count: i64,
}

/// What a connection tells its owner. Infallible, and never re-enters the connection.
pub trait ClientConnectionOutput {
    /// The server took the secret; comes before `opened`.
    fn authenticated(&mut self, identity: Identity);
    /// The handshake is over: commands may be sent.
    fn opened(&mut self, negotiated: &Negotiated);
    /// A response other than a heartbeat.
    fn response(&mut self, text: Bytes);
    /// An error frame.
    fn error(&mut self, text: Bytes);
    /// A message.
    fn message(&mut self, message: Received);
}

impl ClientConnection {
    /// A connection to `address`, `host:port`, that is being dialled: at `now` the connect deadline
    /// starts. With TLS the server's certificate has to be the host's, unless the options name
    /// another.
    pub fn dial(options: &ConnectionOptions, address: &str, now: Now) -> Self {
        let mut transmit = Vec::new();
        encode::magic(&mut transmit);
        encode::identify(options.identify_body().as_bytes(), &mut transmit);
        Self {
            state: State::Dialing,
            transmit,
            owes_nop: false,
            deadline: Some(now.instant + options.dial_timeout),
            handshake_timeout: options.handshake_timeout,
            read_timeout: options.heartbeat_interval.map(|_| options.read_timeout),
            max_frame_size: options.max_frame_size,
            secret: options.auth_secret.clone(),
            asked: options.asked(),
            negotiated: Negotiated::default(),
            upgrade: Upgrade::new(options, address),
        }
    }

    /// The socket is there: the magic and IDENTIFY may be written.
    pub fn handle_connected(&mut self, now: Now) {
        if self.state == State::Dialing {
            self.state = State::Identify;
            self.deadline = Some(now.instant + self.handshake_timeout);
        }
    }

    /// Bytes have arrived; takes all complete frames out of `input`, and with layers everything.
    ///
    /// # Errors
    /// [`ConnectionError`] when the connection is of no further use.
    pub fn handle_input(
        &mut self,
        input: &mut BytesMut,
        now: Now,
        out: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        if self.has_handshaken() {
            self.await_input(now);
        }
        if self.layers() == 0 {
            self.carry_out(input, now, out)?;
            if self.layers() == 0 {
                return Ok(());
            }
        }
        self.handle_wire(input, now, out)
    }

    /// Takes the complete frames out of `plain`, up to one that puts on a layer: what follows is
    /// for that.
    fn carry_out(
        &mut self,
        plain: &mut BytesMut,
        now: Now,
        out: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        let layers = self.layers();
        while self.layers() == layers
            && let Some(frame) = frame::decode(plain, self.max_frame_size)?
        {
            self.handle_frame(frame, now, out)?;
        }
        Ok(())
    }

    fn handle_frame(
        &mut self,
        frame: Frame,
        now: Now,
        out: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        match (frame, self.state) {
            (Frame::Response(text), _) if text == HEARTBEAT => {
                self.owes_nop = true;
                self.rest();
            }
            // Without a socket there is nobody who could have sent a frame.
            (_, State::Dialing) => {}
            (Frame::Response(text), State::Identify) => {
                self.negotiated = Negotiated::decode(&text, self.asked)?;
                self.keep_granted();
                self.upgrade_or_authenticate(now, out)?;
            }
            (Frame::Response(text), State::Upgrade(layer)) => {
                if text != OK {
                    return Err(ConnectionError::UpgradeAnswer(layer));
                }
                self.upgrade_or_authenticate(now, out)?;
            }
            (Frame::Error(text), State::Identify | State::Upgrade(_)) => {
                return Err(ConnectionError::IdentifyRefused(readable(&text)));
            }
            (Frame::Response(text), State::Auth) => {
                out.authenticated(Identity::decode(&text));
                self.open(now, out);
            }
            (Frame::Error(text), State::Auth) => {
                return Err(ConnectionError::AuthRefused(readable(&text)));
            }
            (Frame::Message(_), State::Identify | State::Upgrade(_) | State::Auth) => {
                return Err(ConnectionError::UnexpectedMessage);
            }
            (Frame::Response(text), State::Open | State::Closing) => out.response(text),
            (Frame::Error(text), State::Open | State::Closing) => out.error(text),
            (Frame::Message(message), State::Open | State::Closing) => out.message(message),
        }
        Ok(())
    }

    fn upgrade_or_authenticate(
        &mut self,
        now: Now,
        out: &mut impl ClientConnectionOutput,
    ) -> Result<(), ConnectionError> {
        if let Some(layer) = self.climb()? {
            self.state = State::Upgrade(layer);
            return Ok(());
        }
        if !self.negotiated.auth_required {
            self.open(now, out);
            return Ok(());
        }
        let secret = self.secret.as_ref().ok_or(ConnectionError::AuthRequired)?;
        encode::auth(secret.expose().as_bytes(), &mut self.transmit);
        self.state = State::Auth;
        Ok(())
    }

    fn open(&mut self, now: Now, out: &mut impl ClientConnectionOutput) {
        self.state = State::Open;
        self.await_input(now);
        out.opened(&self.negotiated);
    }

    fn await_input(&mut self, now: Now) {
        self.deadline = self.read_timeout.map(|timeout| now.instant + timeout);
    }

    /// Time has passed; does nothing before [`Self::poll_timeout`].
    ///
    /// # Errors
    /// [`ConnectionError`] when a deadline has passed.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), ConnectionError> {
        if self.deadline.is_none_or(|deadline| now.instant < deadline) {
            return Ok(());
        }
        Err(match self.state {
            State::Dialing => ConnectionError::DialTimeout,
            State::Identify | State::Upgrade(_) | State::Auth => ConnectionError::HandshakeTimeout,
            State::Open | State::Closing => ConnectionError::ReadTimeout,
        })
    }

    /// When [`Self::handle_timeout`] has something to do; O(1).
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// No deadline is judged before `until`: whoever drives it has not been able to read since the
    /// deadline.
    pub fn postpone(&mut self, until: Instant) {
        if let Some(deadline) = &mut self.deadline {
            *deadline = until.max(*deadline);
        }
    }

    /// Whether commands may be sent: after the handshake and before [`Self::start_close`].
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    fn has_handshaken(&self) -> bool {
        matches!(self.state, State::Open | State::Closing)
    }

    /// What the server said about itself; defaults before `opened`.
    pub const fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether bytes wait for [`Self::swap_transmit`].
    pub fn wants_transmit(&self) -> bool {
        self.state != State::Dialing
            && (self.owes_nop && !self.is_climbing()
                || !self.transmit.is_empty()
                || self.owes_wire())
    }

    /// Empties `spare` and swaps it for the bytes owed to the server.
    pub fn swap_transmit(&mut self, spare: &mut Vec<u8>) {
        self.swap_transmit_with(spare, |_| {});
    }

    /// The same, with commands that `add` appends: as they leave at once, and through the layers if
    /// there are any. It is called only if [`Self::is_open`].
    pub fn swap_transmit_with(&mut self, spare: &mut Vec<u8>, add: impl FnOnce(&mut Vec<u8>)) {
        spare.clear();
        if self.state == State::Dialing {
            return;
        }
        mem::swap(&mut self.transmit, spare);
        if self.owes_nop && !self.is_climbing() {
            self.owes_nop = false;
            encode::nop(spare);
        }
        if self.is_open() {
            add(spare);
        }
        self.seal(spare);
    }

    /// Empties `spare` and swaps it for the last bytes of a connection that its owner is about to
    /// drop: those owed, and with TLS or Deflate that nothing follows. Before the handshake is over
    /// that is at most what TLS has to say about its failure. Servers can do without, some of them
    /// noting that the connection broke.
    pub fn swap_farewell(&mut self, spare: &mut Vec<u8>) {
        spare.clear();
        if self.has_handshaken() {
            self.swap_transmit(spare);
            self.seal_off(spare);
        } else {
            self.seal(spare);
        }
    }

    /// Subscribes; the answer comes as a response or an error.
    ///
    /// # Panics
    /// Unless [`Self::is_open`].
    pub fn subscribe(&mut self, topic: &TopicName, channel: &ChannelName) {
        assert!(self.is_open(), "SUB is for open connections");
        encode::subscribe(topic, channel, &mut self.transmit);
    }

    /// Tells the server how many messages may be in flight.
    ///
    /// # Panics
    /// Unless [`Self::is_open`].
    pub fn ready(&mut self, count: u32) {
        assert!(self.is_open(), "RDY is for open connections");
        encode::ready(count, &mut self.transmit);
    }

    /// Finishes a message.
    ///
    /// # Panics
    /// Before the handshake is over.
    pub fn finish(&mut self, id: &[u8; MESSAGE_ID_LEN]) {
        assert!(self.has_handshaken(), "FIN is for connections that got a message");
        encode::finish(id, &mut self.transmit);
    }

    /// Gives a message back, to be sent again after `delay`.
    ///
    /// # Panics
    /// Before the handshake is over.
    pub fn requeue(&mut self, id: &[u8; MESSAGE_ID_LEN], delay: Duration) {
        assert!(self.has_handshaken(), "REQ is for connections that got a message");
        encode::requeue(id, delay, &mut self.transmit);
    }

    /// Asks for more time for a message.
    ///
    /// # Panics
    /// Before the handshake is over.
    pub fn touch(&mut self, id: &[u8; MESSAGE_ID_LEN]) {
        assert!(self.has_handshaken(), "TOUCH is for connections that got a message");
        encode::touch(id, &mut self.transmit);
    }

    /// Starts the close of a subscribed connection: sends CLS, whose answer
    /// [`CLOSE_WAIT`](crate::protocol::frame::CLOSE_WAIT) comes as a response. Messages in flight
    /// can still be answered.
    ///
    /// # Panics
    /// Unless [`Self::is_open`].
    pub fn start_close(&mut self) {
        assert!(self.is_open(), "CLS is for open connections");
        encode::close(&mut self.transmit);
        self.state = State::Closing;
    }
}

impl Negotiated {
    fn decode(text: &[u8], asked: Asked) -> Result<Self, ConnectionError> {
        let negotiated = match text.first() {
            _ if text == OK => Self::default(),
            Some(b'{') => Fields::decode(text)
                .and_then(|fields| Self::from_fields(&fields))
                .map_err(|_| ConnectionError::IdentifyAnswer)?,
            _ => return Err(ConnectionError::IdentifyAnswer),
        };
        for (name, asked_for, granted) in [
            ("tls_v1", asked.tls, negotiated.tls),
            ("snappy", asked.snappy, negotiated.snappy),
            ("deflate", asked.deflate.is_some(), negotiated.deflate),
        ] {
            if granted && !asked_for {
                return Err(ConnectionError::UnexpectedUpgrade(name));
            }
            if asked_for && !granted && asked.required {
                return Err(ConnectionError::UpgradeRefused(name));
            }
        }
        Ok(negotiated)
    }

    fn from_fields(fields: &Fields) -> Result<Self, InvalidJson> {
        let duration = |key| -> Result<Option<Duration>, InvalidJson> {
            let millis = u64::try_from(fields.integer(key)?).unwrap_or(0);
            Ok((millis > 0).then(|| Duration::from_millis(millis)))
        };
        let max_rdy_count = match fields.integer("max_rdy_count")? {
            // Absent: a maximum of 0 would leave a consumer without messages for ever.
            ..=0 => MAX_RDY_COUNT,
            count => u32::try_from(count).unwrap_or(u32::MAX),
        };
        Ok(Self {
            max_rdy_count,
            version: fields.text("version")?,
            msg_timeout: duration("msg_timeout")?,
            max_msg_timeout: duration("max_msg_timeout")?,
            auth_required: fields.boolean("auth_required")?,
            tls: fields.boolean("tls_v1")?,
            snappy: fields.boolean("snappy")?,
            deflate: fields.boolean("deflate")?,
        })
    }
}

impl Default for Negotiated {
    /// What holds with a server that answers IDENTIFY with `OK`.
    fn default() -> Self {
        Self {
            max_rdy_count: MAX_RDY_COUNT,
            version: String::new(),
            msg_timeout: None,
            max_msg_timeout: None,
            auth_required: false,
            tls: false,
            snappy: false,
            deflate: false,
        }
    }
}

impl Identity {
    /// For the log only, so what cannot be read stays empty.
    fn decode(text: &[u8]) -> Self {
        let Ok(fields) = Fields::decode(text) else {
            return Self::default();
        };
        Self {
            identity: fields.text("identity").unwrap_or_default(),
            identity_url: fields.text("identity_url").unwrap_or_default(),
            permission_count: fields.integer("permission_count").unwrap_or_default(),
        }
    }
}

/// The reference server's default, which clients assume of a server that does not say.
const MAX_RDY_COUNT: u32 = 2500;

#[cfg(test)]
mod tests;
