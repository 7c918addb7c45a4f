//! What nsqlookupd tells a peer that broke the protocol, which ends the connection; and one for
//! which it has no room, which goes on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::{IDENTIFY_LEN_MAX, LINE_LEN_MAX, encode_reply};
use crate::log::OneLine;

/// The commands that name a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    /// `REGISTER`
    Register,
    /// `UNREGISTER`
    Unregister,
}

impl Verb {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Unregister => "UNREGISTER",
        }
    }
}

/// The peer broke the protocol; this is what it is told before the connection ends
/// (nsqlookupd-protocol.md section 4). Two are about room, and end nothing: see
/// [`Self::is_fatal`].
///
/// Names and commands are kept as the bytes that came, which need not be UTF-8: [`Self::text`]
/// gives them back unchanged, `Display` replaces what is not UTF-8 and shows control characters as
/// escapes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LookupProtocolError {
    /// IDENTIFY was sent a second time.
    AlreadyIdentified,
    /// The channel's name is not valid.
    BadChannel(Verb, Bytes),
    /// The first four bytes are those of no protocol that is spoken here.
    BadMagic([u8; 4]),
    /// The topic's name is not valid.
    BadTopic(Verb, Bytes),
    /// The length in front of IDENTIFY's body is negative.
    BodyLenNegative(i32),
    /// The length in front of IDENTIFY's body is above [`IDENTIFY_LEN_MAX`].
    BodyLenTooBig(i32),
    /// IDENTIFY's body is not a JSON object with fields of the expected types.
    BodyNotJson,
    /// The stream ended inside IDENTIFY's body.
    BodyUnfinished,
    /// The stream ended inside the length in front of IDENTIFY's body.
    BodyLenUnfinished,
    /// There is no such command.
    InvalidCommand(Bytes),
    /// A line is longer than [`LINE_LEN_MAX`].
    LineTooLong,
    /// IDENTIFY's body lacks one of the four fields that it needs.
    MissingFields,
    /// The command names no topic.
    MissingParams(Verb),
    /// The command needs an IDENTIFY before it.
    NotIdentified,
    /// The answer to PING when registrations were dropped, because others wanted the room.
    RegistrationsDropped,
    /// nsqlookupd is full: it takes no more registrations.
    TooManyRegistrations,
}

impl LookupProtocolError {
    /// The exact text on the wire.
    pub fn text(&self) -> Vec<u8> {
        let name = |code: &str, verb: &Verb, what: &str, name: &Bytes| {
            let head = [code, " ", verb.as_str(), " ", what, " name '"].concat();
            [head.as_bytes(), name, b"' is not valid"].concat()
        };
        match self {
            Self::AlreadyIdentified => b"E_INVALID cannot IDENTIFY again".to_vec(),
            Self::BadChannel(verb, channel) => name("E_BAD_CHANNEL", verb, "channel", channel),
            Self::BadMagic(_) => b"E_BAD_PROTOCOL".to_vec(),
            Self::BadTopic(verb, topic) => name("E_BAD_TOPIC", verb, "topic", topic),
            Self::BodyLenNegative(len) => {
                alloc::format!("E_BAD_BODY IDENTIFY invalid body size {len}").into_bytes()
            }
            Self::BodyLenTooBig(len) => {
                alloc::format!("E_BAD_BODY IDENTIFY body too big {len} > {IDENTIFY_LEN_MAX}")
                    .into_bytes()
            }
            Self::BodyNotJson => b"E_BAD_BODY IDENTIFY failed to decode JSON body".to_vec(),
            Self::BodyUnfinished => b"E_BAD_BODY IDENTIFY failed to read body".to_vec(),
            Self::BodyLenUnfinished => b"E_BAD_BODY IDENTIFY failed to read body size".to_vec(),
            Self::InvalidCommand(command) => [b"E_INVALID invalid command ", &command[..]].concat(),
            Self::LineTooLong => {
                alloc::format!("E_INVALID line longer than {LINE_LEN_MAX} bytes").into_bytes()
            }
            Self::MissingFields => b"E_BAD_BODY IDENTIFY missing fields".to_vec(),
            Self::MissingParams(verb) => {
                ["E_INVALID ", verb.as_str(), " insufficient number of params"]
                    .concat()
                    .into_bytes()
            }
            Self::NotIdentified => b"E_INVALID client must IDENTIFY".to_vec(),
            Self::RegistrationsDropped => {
                b"E_INVALID PING registrations were dropped, there are too many".to_vec()
            }
            Self::TooManyRegistrations => b"E_INVALID REGISTER too many registrations".to_vec(),
        }
    }

    /// Whether the connection ends with it.
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::RegistrationsDropped | Self::TooManyRegistrations)
    }

    /// Appends the reply: length and text.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_reply(&self.text(), out);
    }
}

impl fmt::Display for LookupProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&String::from_utf8_lossy(&self.text())).fmt(f)
    }
}

impl core::error::Error for LookupProtocolError {}
