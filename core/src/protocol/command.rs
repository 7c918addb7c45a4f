//! The commands of protocol V2 and their decoder (nsqd-protocol.md sections 4 to 7).
//!
//! The decoder takes one command at a time out of a caller-owned buffer. It checks what the
//! reference checks before it acts on a command, in the same order, because the first failing check
//! decides the answer. It keeps no bytes: what is incomplete stays in the buffer, and only a cursor
//! is remembered so that nothing is looked at twice, however finely the input is cut.

use core::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::error::{ErrorCode, ProtocolError, quoted};
use crate::list::MessageList;
use crate::message::{Bodies, MESSAGE_ID_LEN, MessageId};
use crate::name::{ChannelName, TopicName};

/// A message id as a client sent it: any 16 bytes.
pub type RawId = [u8; MESSAGE_ID_LEN];

/// The length of a FIN with its line feed, as clients write it.
pub const FIN_LEN: usize = 4 + MESSAGE_ID_LEN + 1;

/// A complete command whose words and sizes are in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// `AUTH`, with the secret.
    Auth(Bytes),
    /// `CLS`
    Cls,
    /// `DPUB`
    Dpub {
        /// The topic.
        topic: TopicName,
        /// At most `--max-req-timeout`.
        delay: Duration,
        /// The message.
        body: Bytes,
    },
    /// `FIN`
    Fin(RawId),
    /// `IDENTIFY`, with its JSON.
    Identify(Bytes),
    /// `MPUB`; at least one body.
    Mpub {
        /// The topic.
        topic: TopicName,
        /// The messages.
        bodies: MessageList,
    },
    /// The line of an `MPUB`, whose body follows; only if the [`Gate`] asks for it.
    MpubLine(TopicName),
    /// `NOP`, or `RDY` on a closing subscription, which is ignored unread.
    Nop,
    /// `PUB`
    Pub {
        /// The topic.
        topic: TopicName,
        /// The message.
        body: Bytes,
    },
    /// `RDY`; at most `--max-rdy-count`.
    Rdy(u32),
    /// `REQ`; the delay is clamped to `--max-req-timeout`.
    Req {
        /// The message.
        id: RawId,
        /// How long to keep it back.
        delay: Duration,
    },
    /// `SUB`
    Sub {
        /// The topic.
        topic: TopicName,
        /// The channel.
        channel: ChannelName,
    },
    /// `TOUCH`
    Touch(RawId),
}

/// Where a connection is in its life, with the numbers that the statistics show.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum ClientState {
    /// Not subscribed.
    #[default]
    Init = 0,
    /// Subscribed.
    Subscribed = 3,
    /// Subscribed, and CLS was sent.
    Closing = 4,
}

/// What of a connection decides whether a command is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    /// Where the connection is in its life.
    pub state: ClientState,
    /// Whether heartbeats are on; without them SUB is refused.
    pub heartbeats: bool,
    /// Whether clients need a permission to publish: that of an MPUB is judged before its body is
    /// read (section 7.6), so its line is told first.
    pub authorizes: bool,
    /// Whether TLS is required and not there; without it only IDENTIFY is allowed.
    pub lacks_tls: bool,
}

/// The limits that the decoder holds commands to; names as the options'.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message body.
    pub max_msg_size: usize,
    /// Bytes of the declared body of IDENTIFY, AUTH and MPUB.
    pub max_body_size: usize,
    /// Messages of one MPUB.
    pub mpub_count_max: usize,
    /// The longest delay.
    pub max_req_timeout: Duration,
    /// The largest RDY.
    pub max_rdy_count: u32,
    /// Bytes of a line, its line feed included.
    pub line_len_max: usize,
    /// Bytes of the declared body of AUTH, beside the limit for all.
    pub auth_secret_len_max: usize,
}

/// Why the input can't be decoded any further. Each of them ends the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// A line is longer than the limit: the connection is closed without a word, as the reference
    /// does.
    LineTooLong,
    /// The client is told why.
    Protocol(ProtocolError),
}

impl From<ProtocolError> for DecodeError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// Takes commands out of a buffer, one at a time.
#[derive(Debug, Default)]
pub struct Decoder {
    /// How much of an incomplete line was searched for its end.
    searched: usize,
    /// The command whose line was read and whose body is awaited.
    awaited: Option<Awaited>,
    /// See [`Self::opened`].
    opened: Option<TopicName>,
}

#[derive(Debug)]
struct Awaited {
    head: Head,
    /// `None` until the length is read.
    len: Option<usize>,
    mpub: MpubCursor,
}

/// How far an MPUB's body was checked. The body stays in the buffer until it is complete.
#[derive(Debug, Default)]
struct MpubCursor {
    count: usize,
    checked: usize,
    /// Offset behind the last checked message.
    at: usize,
    /// Whether the length of the message after that is there.
    sized: bool,
}

/// A command that has a body.
#[derive(Clone, Copy, Debug)]
enum Head {
    Auth,
    Dpub(TopicName, Duration),
    Identify,
    Mpub(TopicName),
    Pub(TopicName),
}

/// The messages of the FINs that `input` begins with, for whoever can act on many at once: it is
/// what a consumer sends most. Ends before anything but a FIN that is complete, of an id that may
/// be one, and written without frills; [`Decoder::decode`] goes on there.
///
/// Each takes [`FIN_LEN`] bytes. They may be taken out without the decoder, if
/// [it is between commands](Decoder::is_between) and FIN is allowed.
pub fn finishes(input: &[u8]) -> impl Iterator<Item = MessageId> {
    input.chunks_exact(FIN_LEN).map_while(|line| {
        let id = line.strip_prefix(b"FIN ")?.strip_suffix(b"\n")?;
        MessageId::parse(id)
    })
}

enum Line {
    Complete(Command),
    Awaits(Head),
}

impl Decoder {
    /// Takes the next complete command out of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// What the client did wrong. The connection then ends, so the buffer's rest means nothing.
    pub fn decode(
        &mut self,
        input: &mut BytesMut,
        gate: Gate,
        limits: &Limits,
        bodies: &mut Bodies,
    ) -> Result<Option<Command>, DecodeError> {
        if self.awaited.is_none() {
            let Some(end) = self.line_end(input, limits)? else { return Ok(None) };
            let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
            let parsed = parse_line(line, gate, limits)?;
            input.advance(end + 1);
            match parsed {
                Line::Complete(command) => return Ok(Some(command)),
                Line::Awaits(head) => {
                    self.awaited = Some(Awaited { head, len: None, mpub: MpubCursor::default() });
                    if let Head::Mpub(topic) = head {
                        self.opened = Some(topic);
                        if gate.authorizes {
                            return Ok(Some(Command::MpubLine(topic)));
                        }
                    }
                }
            }
        }
        let Some(awaited) = &mut self.awaited else { return Ok(None) };
        let command = awaited.decode(input, limits, bodies)?;
        if command.is_some() {
            self.awaited = None;
        }
        Ok(command)
    }

    /// Whether the input begins with a command of which nothing was looked at yet.
    pub const fn is_between(&self) -> bool {
        self.awaited.is_none() && self.searched == 0
    }

    /// Whether the next command, with which `input` begins, is one that publishes.
    pub fn publishes_next(&self, input: &[u8]) -> bool {
        match &self.awaited {
            Some(awaited) => {
                matches!(awaited.head, Head::Pub(_) | Head::Mpub(_) | Head::Dpub(..))
            }
            None => [&b"PUB "[..], b"MPUB ", b"DPUB "].iter().any(|word| input.starts_with(word)),
        }
    }

    /// How long the body of the command under way is, as it declares; `None` if there is none yet.
    pub fn body_len(&self) -> Option<usize> {
        self.awaited.as_ref()?.len
    }

    /// The topic of an MPUB whose line was read: it comes into being before the body does (section
    /// 7.6). Told once.
    pub const fn opened(&mut self) -> Option<TopicName> {
        self.opened.take()
    }

    /// How many more bytes than `buffered` the command under way needs, for a driver that wants to
    /// make room for them in one go: at least one, and never above what the limits allow one
    /// command to have.
    ///
    /// To be taken as a hint: an MPUB may be complete, or refused, before the size that it declares
    /// is reached, since nobody compares the two (section 7.6).
    pub fn needs(&self, buffered: usize) -> usize {
        let whole = match &self.awaited {
            Some(Awaited { len: Some(len), .. }) => *len,
            Some(Awaited { len: None, .. }) => 4,
            None => 0,
        };
        whole.saturating_sub(buffered).max(1)
    }

    /// What the client is told if its input ends, or its time is up, in the middle of a command:
    /// nothing while a line is incomplete (section 2.1).
    pub fn interrupted(&self) -> Option<ProtocolError> {
        let awaited = self.awaited.as_ref()?;
        let (code, command, what) = match (awaited.head, awaited.len) {
            (Head::Auth, None) => (ErrorCode::BadBody, "AUTH", "body size"),
            (Head::Auth, Some(_)) => (ErrorCode::BadBody, "AUTH", "body"),
            (Head::Identify, None) => (ErrorCode::BadBody, "IDENTIFY", "body size"),
            (Head::Identify, Some(_)) => (ErrorCode::BadBody, "IDENTIFY", "body"),
            (Head::Pub(_), None) => (ErrorCode::BadMessage, "PUB", "message body size"),
            (Head::Pub(_), Some(_)) => (ErrorCode::BadMessage, "PUB", "message body"),
            (Head::Dpub(..), None) => (ErrorCode::BadMessage, "DPUB", "message body size"),
            (Head::Dpub(..), Some(_)) => (ErrorCode::BadMessage, "DPUB", "message body"),
            (Head::Mpub(topic), len) => {
                return Some(awaited.mpub.interrupted(len.is_some()).creating(topic));
            }
        };
        let text = alloc::format!("{command} failed to read {what}");
        Some(ProtocolError::new(code, text))
    }

    /// The position of the next line feed. Remembers how far it looked.
    fn line_end(
        &mut self,
        input: &BytesMut,
        limits: &Limits,
    ) -> Result<Option<usize>, DecodeError> {
        let window = input.len().min(limits.line_len_max);
        let unseen = &input[self.searched.min(window)..window];
        if let Some(found) = unseen.iter().position(|byte| *byte == b'\n') {
            return Ok(Some(core::mem::take(&mut self.searched) + found));
        }
        self.searched = window;
        if window == limits.line_len_max { Err(DecodeError::LineTooLong) } else { Ok(None) }
    }
}

impl Awaited {
    fn decode(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
        bodies: &mut Bodies,
    ) -> Result<Option<Command>, ProtocolError> {
        let len = match self.len {
            Some(len) => len,
            None => {
                let Some(declared) = int32(input, 0) else { return Ok(None) };
                let len = self.head.check_len(declared, limits)?;
                input.advance(4);
                *self.len.insert(len)
            }
        };
        if let Head::Mpub(topic) = self.head {
            let checked = self.mpub.check(input, limits).map_err(|error| error.creating(topic))?;
            return Ok(
                checked.then(|| Command::Mpub { topic, bodies: self.mpub.take(input, bodies) })
            );
        }
        if input.len() < len {
            return Ok(None);
        }
        Ok(Some(match self.head {
            Head::Auth => Command::Auth(input.split_to(len).freeze()),
            Head::Identify => Command::Identify(input.split_to(len).freeze()),
            Head::Pub(topic) => Command::Pub { topic, body: bodies.take(input, len) },
            Head::Dpub(topic, delay) => {
                Command::Dpub { topic, delay, body: bodies.take(input, len) }
            }
            Head::Mpub(_) => return Ok(None),
        }))
    }
}

impl Head {
    /// Judges a declared body length. The order of the two checks differs between the commands.
    fn check_len(self, declared: i32, limits: &Limits) -> Result<usize, ProtocolError> {
        let len = usize::try_from(declared).unwrap_or(0);
        let (max_body, max_msg) = (limits.max_body_size, limits.max_msg_size);
        let refuse = |code, text: alloc::string::String| Err(ProtocolError::new(code, text));
        match self {
            Self::Identify | Self::Auth => {
                let (name, max_body) = if matches!(self, Self::Auth) {
                    ("AUTH", max_body.min(limits.auth_secret_len_max))
                } else {
                    ("IDENTIFY", max_body)
                };
                if len > max_body {
                    let text = alloc::format!("{name} body too big {declared} > {max_body}");
                    return refuse(ErrorCode::BadBody, text);
                }
                if declared <= 0 {
                    let text = alloc::format!("{name} invalid body size {declared}");
                    return refuse(ErrorCode::BadBody, text);
                }
            }
            Self::Mpub(topic) => {
                let text = if declared <= 0 {
                    alloc::format!("MPUB invalid body size {declared}")
                } else if len > max_body {
                    alloc::format!("MPUB body too big {declared} > {max_body}")
                } else {
                    return Ok(len);
                };
                return Err(ProtocolError::new(ErrorCode::BadBody, text).creating(topic));
            }
            Self::Pub(_) | Self::Dpub(..) => {
                let name = if matches!(self, Self::Pub(_)) { "PUB" } else { "DPUB" };
                if declared <= 0 {
                    let text = alloc::format!("{name} invalid message body size {declared}");
                    return refuse(ErrorCode::BadMessage, text);
                }
                if len > max_msg {
                    let text = alloc::format!("{name} message too big {declared} > {max_msg}");
                    return refuse(ErrorCode::BadMessage, text);
                }
            }
        }
        Ok(len)
    }
}

impl MpubCursor {
    /// Checks as much of the body as there is. `true` when all of it is there and in order.
    fn check(&mut self, input: &BytesMut, limits: &Limits) -> Result<bool, ProtocolError> {
        if self.count == 0 {
            let Some(count) = int32(input, 0) else { return Ok(false) };
            self.count = match usize::try_from(count) {
                Ok(n) if n >= 1 && n <= limits.mpub_count_max => n,
                _ => {
                    let text = alloc::format!("MPUB invalid message count {count}");
                    return Err(ProtocolError::new(ErrorCode::BadBody, text));
                }
            };
            self.at = 4;
        }
        while self.checked < self.count {
            let length = int32(input, self.at);
            self.sized = length.is_some();
            let Some(declared) = length else { return Ok(false) };
            let text = if declared <= 0 {
                alloc::format!("MPUB invalid message({}) body size {declared}", self.checked)
            } else if declared as usize > limits.max_msg_size {
                alloc::format!("MPUB message too big {declared} > {}", limits.max_msg_size)
            } else {
                let end = self.at + 4 + declared as usize;
                if end > limits.max_body_size {
                    // The declared size of the whole is not compared with what follows, like in the
                    // reference; but what follows is held to the same limit, or memory would have
                    // none.
                    let text = alloc::format!("MPUB body too big {end} > {}", limits.max_body_size);
                    return Err(ProtocolError::new(ErrorCode::BadBody, text));
                }
                if input.len() < end {
                    return Ok(false);
                }
                (self.at, self.checked) = (end, self.checked + 1);
                continue;
            };
            return Err(ProtocolError::new(ErrorCode::BadMessage, text));
        }
        Ok(true)
    }

    /// Takes the checked messages out.
    fn take(&self, input: &mut BytesMut, bodies: &mut Bodies) -> MessageList {
        input.advance(4);
        MessageList::take(self.count as u32, input, self.at - 4, bodies)
    }

    fn interrupted(&self, sized: bool) -> ProtocolError {
        if !sized {
            return ProtocolError::new(ErrorCode::BadBody, *b"MPUB failed to read body size");
        }
        if self.count == 0 {
            return ProtocolError::new(ErrorCode::BadBody, *b"MPUB failed to read message count");
        }
        if self.sized {
            return ProtocolError::new(ErrorCode::BadMessage, *b"MPUB failed to read message body");
        }
        let text = alloc::format!("MPUB failed to read message({}) body size", self.checked);
        ProtocolError::new(ErrorCode::BadMessage, text)
    }
}

/// The big-endian 32-bit number at `at`, if it is all there.
fn int32(input: &[u8], at: usize) -> Option<i32> {
    let bytes = input.get(at..at.checked_add(4)?)?;
    Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Parses a line without its end, and checks it against the connection's state.
fn parse_line(line: &[u8], gate: Gate, limits: &Limits) -> Result<Line, ProtocolError> {
    let mut words = line.split(|byte| *byte == b' ');
    let word = words.next().unwrap_or_default();
    let subscribed = gate.state != ClientState::Init;
    if gate.lacks_tls && word != b"IDENTIFY" {
        let parts = [&b"cannot "[..], word, b" in current state (TLS required)"];
        return Err(ProtocolError::quote(ErrorCode::Invalid, &parts));
    }
    Ok(match word {
        b"FIN" => Line::Complete(Command::Fin(answered_id("FIN", subscribed, &mut words, 1)?)),
        b"PUB" => {
            let [topic] = params("PUB", words)?;
            Line::Awaits(Head::Pub(topic_name("PUB", topic)?))
        }
        b"MPUB" => {
            let [topic] = params("MPUB", words)?;
            Line::Awaits(Head::Mpub(topic_name("MPUB", topic)?))
        }
        b"RDY" => match gate.state {
            ClientState::Closing => Line::Complete(Command::Nop),
            ClientState::Init => return Err(wrong_state("RDY")),
            ClientState::Subscribed => {
                Line::Complete(Command::Rdy(ready_count(words.next(), limits)?))
            }
        },
        b"NOP" => Line::Complete(Command::Nop),
        b"REQ" => {
            let id = answered_id("REQ", subscribed, &mut words, 2)?;
            let delay = milliseconds("REQ", words.next().unwrap_or_default())?;
            let delay = Duration::from_millis(delay).min(limits.max_req_timeout);
            Line::Complete(Command::Req { id, delay })
        }
        b"TOUCH" => {
            Line::Complete(Command::Touch(answered_id("TOUCH", subscribed, &mut words, 1)?))
        }
        b"DPUB" => {
            let [topic, delay] = params("DPUB", words)?;
            let topic = topic_name("DPUB", topic)?;
            let millis = milliseconds("DPUB", delay)?;
            let max = limits.max_req_timeout.as_millis();
            if u128::from(millis) > max {
                let text = alloc::format!("DPUB timeout {millis} out of range 0-{max}");
                return Err(ProtocolError::new(ErrorCode::Invalid, text));
            }
            Line::Awaits(Head::Dpub(topic, Duration::from_millis(millis)))
        }
        b"SUB" => {
            if subscribed {
                return Err(wrong_state("SUB"));
            }
            if !gate.heartbeats {
                let text = *b"cannot SUB with heartbeats disabled";
                return Err(ProtocolError::new(ErrorCode::Invalid, text));
            }
            let [topic, channel] = params("SUB", words)?;
            let topic = topic_name("SUB", topic)?;
            let channel = ChannelName::new(channel).map_err(|_| {
                let name = quoted(channel);
                let parts = [b"SUB channel name ", name.as_slice(), b" is not valid"];
                ProtocolError::quote(ErrorCode::BadChannel, &parts)
            })?;
            Line::Complete(Command::Sub { topic, channel })
        }
        b"CLS" if gate.state == ClientState::Subscribed => Line::Complete(Command::Cls),
        b"CLS" => return Err(wrong_state("CLS")),
        b"IDENTIFY" if !subscribed => Line::Awaits(Head::Identify),
        b"IDENTIFY" => return Err(wrong_state("IDENTIFY")),
        b"AUTH" if subscribed => return Err(wrong_state("AUTH")),
        b"AUTH" if words.next().is_some() => {
            let text = *b"AUTH invalid number of parameters";
            return Err(ProtocolError::new(ErrorCode::Invalid, text));
        }
        b"AUTH" => Line::Awaits(Head::Auth),
        _ => {
            return Err(ProtocolError::quote(ErrorCode::Invalid, &[b"invalid command ", word]));
        }
    })
}

fn wrong_state(command: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::Invalid, alloc::format!("cannot {command} in current state"))
}

/// The first `N` parameters; surplus ones are ignored.
fn params<'a, const N: usize>(
    command: &str,
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<[&'a [u8]; N], ProtocolError> {
    let mut params = [&[][..]; N];
    for param in &mut params {
        *param = words.next().ok_or_else(|| {
            let text = alloc::format!("{command} insufficient number of parameters");
            ProtocolError::new(ErrorCode::Invalid, text)
        })?;
    }
    Ok(params)
}

fn topic_name(command: &str, name: &[u8]) -> Result<TopicName, ProtocolError> {
    TopicName::new(name).map_err(|_| {
        // MPUB says its code twice, and client tests compare texts (section 6.1).
        let doubled: &[u8] = if command == "MPUB" { b"E_BAD_TOPIC " } else { b"" };
        let name = quoted(name);
        let parts = [doubled, command.as_bytes(), b" topic name ", &name, b" is not valid"];
        ProtocolError::quote(ErrorCode::BadTopic, &parts)
    })
}

/// The id of FIN, REQ and TOUCH, which need `count` parameters.
fn answered_id<'a>(
    command: &str,
    subscribed: bool,
    words: &mut (impl Iterator<Item = &'a [u8]> + Clone),
    count: usize,
) -> Result<RawId, ProtocolError> {
    if !subscribed {
        return Err(wrong_state(command));
    }
    if words.clone().take(count).count() < count {
        let text = alloc::format!("{command} insufficient number of params");
        return Err(ProtocolError::new(ErrorCode::Invalid, text));
    }
    let id = words.next().unwrap_or_default();
    RawId::try_from(id).map_err(|_| ProtocolError::new(ErrorCode::Invalid, *b"invalid message ID"))
}

fn ready_count(word: Option<&[u8]>, limits: &Limits) -> Result<u32, ProtocolError> {
    let Some(word) = word else { return Ok(1) };
    let Some(count) = number(word) else {
        let parts = [&b"RDY could not parse count "[..], word];
        return Err(ProtocolError::quote(ErrorCode::Invalid, &parts));
    };
    match u32::try_from(count) {
        Ok(ready) if ready <= limits.max_rdy_count => Ok(ready),
        _ => {
            let (signed, max) = (count as i64, limits.max_rdy_count);
            let text = alloc::format!("RDY count {signed} out of range 0-{max}");
            Err(ProtocolError::new(ErrorCode::Invalid, text))
        }
    }
}

fn milliseconds(command: &str, word: &[u8]) -> Result<u64, ProtocolError> {
    number(word).ok_or_else(|| {
        let parts = [command.as_bytes(), b" could not parse timeout ", word];
        ProtocolError::quote(ErrorCode::Invalid, &parts)
    })
}

/// ASCII digits only, modulo 2^64; an empty word is 0 (section 4.1).
fn number(word: &[u8]) -> Option<u64> {
    word.iter().try_fold(0_u64, |n, byte| {
        byte.is_ascii_digit().then(|| n.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests;
