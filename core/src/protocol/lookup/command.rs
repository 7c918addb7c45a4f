//! Commands: a line each; IDENTIFY alone has a body behind it.

use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::{LookupProtocolError, PeerInfo, Verb};
use crate::name::{ChannelName, TopicName};

/// The first bytes of a connection that speaks V1.
pub const MAGIC: [u8; 4] = *b"  V1";

/// The longest line in bytes, its LF included. The longest useful one, an UNREGISTER with two
/// names, has 141; the reference has no limit and can be filled up (nsqlookupd-protocol.md section
/// 5).
pub const LINE_LEN_MAX: usize = 4096;

/// The longest body of IDENTIFY in bytes. Real ones have some 200; the reference allocates whatever
/// is announced.
pub const IDENTIFY_LEN_MAX: usize = 64 * 1024;

/// One command of V1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupCommand {
    /// Tells that the nsqd is alive.
    Ping,
    /// Tells who the nsqd is.
    Identify(PeerInfo),
    /// The nsqd has the topic, or the topic and the channel.
    Register(Registration),
    /// The nsqd does not have the channel any more, or the topic with all its channels.
    Unregister(Registration),
}

/// A topic, or a channel of a topic.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Registration {
    /// The topic.
    pub topic: TopicName,
    /// The channel; `None` means the topic itself.
    pub channel: Option<ChannelName>,
}

impl fmt::Display for Registration {
    /// The parameters as they stand on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.channel {
            Some(channel) => write!(f, "{} {channel}", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

impl LookupCommand {
    /// Appends the command's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping => out.extend_from_slice(b"PING\n"),
            Self::Identify(info) => encode_identify(info.to_json().as_bytes(), out),
            Self::Register(registration) => encode_line(Verb::Register, registration, out),
            Self::Unregister(registration) => encode_line(Verb::Unregister, registration, out),
        }
    }
}

/// Appends IDENTIFY with `body`, which is shorter than 2 GiB.
pub(crate) fn encode_identify(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"IDENTIFY\n");
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
}

fn encode_line(verb: Verb, registration: &Registration, out: &mut Vec<u8>) {
    out.extend_from_slice(verb.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(registration.topic.as_bytes());
    if let Some(channel) = &registration.channel {
        out.push(b' ');
        out.extend_from_slice(channel.as_bytes());
    }
    out.push(b'\n');
}

/// Takes commands apart on nsqlookupd's side, one per connection.
///
/// It keeps the protocol's state (nsqlookupd-protocol.md section 2), because what is refused
/// depends on it before the bytes do: a second IDENTIFY is refused without reading its body.
///
/// ```text
/// Magic -> Line <-> BodyLen -> Body
///   any error -> Failed, which takes nothing more
/// ```
#[derive(Clone, Debug)]
pub struct CommandDecoder {
    state: State,
    has_magic: bool,
    is_identified: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Magic,
    /// So many bytes at the front of the input are known to hold no LF.
    Line {
        scanned: usize,
    },
    BodyLen,
    Body {
        len: usize,
    },
    Failed,
}

impl CommandDecoder {
    /// The decoder of a new connection, which expects the magic first.
    pub const fn new() -> Self {
        Self { state: State::Magic, has_magic: false, is_identified: false }
    }

    /// Whether the right magic has come.
    pub const fn has_magic(&self) -> bool {
        self.has_magic
    }

    /// Takes the next whole command out of `input`; `None` if more bytes are needed. What is left
    /// in `input` stays there for the next call, and nothing else may touch it.
    ///
    /// At most [`LINE_LEN_MAX`] or 4 + [`IDENTIFY_LEN_MAX`] bytes are waited for.
    ///
    /// # Errors
    /// [`LookupProtocolError`], the last thing to tell the peer. After it the decoder takes nothing
    /// more.
    pub fn next(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<LookupCommand>, LookupProtocolError> {
        let result = self.advance(input);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Judges that nothing comes behind what was decoded: `Ok` where the reference just closes,
    /// also inside a line.
    ///
    /// # Errors
    /// [`LookupProtocolError`] if the stream ended inside IDENTIFY's body or the length in front of
    /// it.
    pub fn finish(&mut self) -> Result<(), LookupProtocolError> {
        match core::mem::replace(&mut self.state, State::Failed) {
            State::BodyLen => Err(LookupProtocolError::BodyLenUnfinished),
            State::Body { .. } => Err(LookupProtocolError::BodyUnfinished),
            State::Magic | State::Line { .. } | State::Failed => Ok(()),
        }
    }

    fn advance(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<LookupCommand>, LookupProtocolError> {
        loop {
            match self.state {
                State::Magic => {
                    let Some(magic) = input.first_chunk::<4>().copied() else { return Ok(None) };
                    if magic != MAGIC {
                        return Err(LookupProtocolError::BadMagic(magic));
                    }
                    input.advance(4);
                    self.has_magic = true;
                    self.state = State::Line { scanned: 0 };
                }
                State::Line { scanned } => {
                    let window = &input[..input.len().min(LINE_LEN_MAX)];
                    let fresh = window.get(scanned..).unwrap_or_default();
                    let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
                        if window.len() == LINE_LEN_MAX {
                            return Err(LookupProtocolError::LineTooLong);
                        }
                        self.state = State::Line { scanned: window.len() };
                        return Ok(None);
                    };
                    let line = input.split_to(scanned + end + 1).freeze();
                    self.state = State::Line { scanned: 0 };
                    if let Some(command) = self.command(&line)? {
                        return Ok(Some(command));
                    }
                }
                State::BodyLen => {
                    let Some(len) = input.first_chunk::<4>() else { return Ok(None) };
                    let announced = i32::from_be_bytes(*len);
                    let len = usize::try_from(announced)
                        .map_err(|_| LookupProtocolError::BodyLenNegative(announced))?;
                    if len > IDENTIFY_LEN_MAX {
                        return Err(LookupProtocolError::BodyLenTooBig(announced));
                    }
                    input.advance(4);
                    self.state = State::Body { len };
                }
                State::Body { len } => {
                    if input.len() < len {
                        return Ok(None);
                    }
                    let info = PeerInfo::decode(&input[..len]);
                    input.advance(len);
                    let info = info.map_err(|_| LookupProtocolError::BodyNotJson)?;
                    if !info.is_complete() {
                        return Err(LookupProtocolError::MissingFields);
                    }
                    self.state = State::Line { scanned: 0 };
                    self.is_identified = true;
                    return Ok(Some(LookupCommand::Identify(info)));
                }
                State::Failed => return Ok(None),
            }
        }
    }

    /// Reads one line, its LF included; `None` for an IDENTIFY, whose body comes next.
    fn command(&mut self, line: &Bytes) -> Result<Option<LookupCommand>, LookupProtocolError> {
        let line = line.slice_ref(trim(line));
        // An empty piece between two blanks is a parameter, as in the reference.
        let mut words = line.split(|byte| *byte == b' ');
        let verb = match words.next().unwrap_or_default() {
            b"PING" => return Ok(Some(LookupCommand::Ping)),
            b"IDENTIFY" if self.is_identified => {
                return Err(LookupProtocolError::AlreadyIdentified);
            }
            b"IDENTIFY" => {
                self.state = State::BodyLen;
                return Ok(None);
            }
            b"REGISTER" => Verb::Register,
            b"UNREGISTER" => Verb::Unregister,
            word => return Err(LookupProtocolError::InvalidCommand(line.slice_ref(word))),
        };
        if !self.is_identified {
            return Err(LookupProtocolError::NotIdentified);
        }
        let topic = words.next().ok_or(LookupProtocolError::MissingParams(verb))?;
        let channel = words.next().unwrap_or_default();
        let topic = TopicName::new(topic)
            .map_err(|_| LookupProtocolError::BadTopic(verb, line.slice_ref(topic)))?;
        let channel = if channel.is_empty() {
            None
        } else {
            let name = ChannelName::new(channel)
                .map_err(|_| LookupProtocolError::BadChannel(verb, line.slice_ref(channel)))?;
            Some(name)
        };
        let registration = Registration { topic, channel };
        Ok(Some(match verb {
            Verb::Register => LookupCommand::Register(registration),
            Verb::Unregister => LookupCommand::Unregister(registration),
        }))
    }
}

impl Default for CommandDecoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Cuts Unicode white space off both ends; bytes that are not UTF-8 are not white space.
fn trim(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = (1..=CHAR_LEN_MAX).find_map(|len| {
        let (first, rest) = line.split_at_checked(len)?;
        is_blank(first).then_some(rest)
    }) {
        line = rest;
    }
    while let Some(rest) = (1..=CHAR_LEN_MAX).find_map(|len| {
        let (rest, last) = line.split_at_checked(line.len().checked_sub(len)?)?;
        is_blank(last).then_some(rest)
    }) {
        line = rest;
    }
    line
}

/// Whether the bytes are one character, and white space.
fn is_blank(bytes: &[u8]) -> bool {
    let mut chars = core::str::from_utf8(bytes).unwrap_or_default().chars();
    chars.next().is_some_and(char::is_whitespace) && chars.next().is_none()
}

/// The longest character of UTF-8.
const CHAR_LEN_MAX: usize = 4;

#[cfg(test)]
mod tests;
