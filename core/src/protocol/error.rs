//! What a client did wrong, in the words it is told (nsqd-protocol.md section 6).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::name::TopicName;

/// The code at the head of an error frame.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ErrorCode {
    /// `E_AUTH_DISABLED`
    AuthDisabled,
    /// `E_AUTH_FAILED`
    AuthFailed,
    /// `E_AUTH_FIRST`
    AuthFirst,
    /// `E_BAD_BODY`
    BadBody,
    /// `E_BAD_CHANNEL`
    BadChannel,
    /// `E_BAD_MESSAGE`
    BadMessage,
    /// `E_BAD_PROTOCOL`
    BadProtocol,
    /// `E_BAD_TOPIC`
    BadTopic,
    /// `E_DPUB_FAILED`
    DpubFailed,
    /// `E_FIN_FAILED`
    FinFailed,
    /// `E_IDENTIFY_FAILED`
    IdentifyFailed,
    /// `E_INVALID`
    Invalid,
    /// `E_MPUB_FAILED`
    MpubFailed,
    /// `E_PUB_FAILED`
    PubFailed,
    /// `E_REQ_FAILED`
    ReqFailed,
    /// `E_SUB_FAILED`
    SubFailed,
    /// `E_TOUCH_FAILED`
    TouchFailed,
    /// `E_UNAUTHORIZED`
    Unauthorized,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthDisabled => "E_AUTH_DISABLED",
            Self::AuthFailed => "E_AUTH_FAILED",
            Self::AuthFirst => "E_AUTH_FIRST",
            Self::BadBody => "E_BAD_BODY",
            Self::BadChannel => "E_BAD_CHANNEL",
            Self::BadMessage => "E_BAD_MESSAGE",
            Self::BadProtocol => "E_BAD_PROTOCOL",
            Self::BadTopic => "E_BAD_TOPIC",
            Self::DpubFailed => "E_DPUB_FAILED",
            Self::FinFailed => "E_FIN_FAILED",
            Self::IdentifyFailed => "E_IDENTIFY_FAILED",
            Self::Invalid => "E_INVALID",
            Self::MpubFailed => "E_MPUB_FAILED",
            Self::PubFailed => "E_PUB_FAILED",
            Self::ReqFailed => "E_REQ_FAILED",
            Self::SubFailed => "E_SUB_FAILED",
            Self::TouchFailed => "E_TOUCH_FAILED",
            Self::Unauthorized => "E_UNAUTHORIZED",
        }
    }

    /// Whether the connection is closed behind the error frame. Only three codes leave it open.
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Self::FinFailed | Self::ReqFailed | Self::TouchFailed)
    }
}

/// The peer broke the protocol; this is what it will be told.
#[derive(Clone, Eq, PartialEq)]
pub struct ProtocolError {
    code: ErrorCode,
    /// Bytes, because some texts quote what the client sent.
    detail: Vec<u8>,
    /// The topic that comes into being although the command is refused (section 7.6).
    creates: Option<TopicName>,
}

impl ProtocolError {
    /// An error whose text is `detail`.
    pub fn new(code: ErrorCode, detail: impl Into<Vec<u8>>) -> Self {
        Self { code, detail: detail.into(), creates: None }
    }

    /// An error whose text is `parts`, one behind the other.
    pub fn quote(code: ErrorCode, parts: &[&[u8]]) -> Self {
        Self::new(code, parts.concat())
    }

    /// The same refusal, after which `topic` exists all the same.
    #[must_use]
    pub fn creating(mut self, topic: TopicName) -> Self {
        self.creates = Some(topic);
        self
    }

    /// The code.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Whether the connection is closed behind it.
    pub const fn is_fatal(&self) -> bool {
        self.code.is_fatal()
    }

    /// The topic that the refused command creates.
    pub const fn creates(&self) -> Option<TopicName> {
        self.creates
    }

    /// The payload of the error frame: the code, and the text behind a blank. Only `E_BAD_PROTOCOL`
    /// has no text.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::from(self.code.as_str());
        if self.code != ErrorCode::BadProtocol {
            payload.push(b' ');
            payload.extend_from_slice(&self.detail);
        }
        payload
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.payload()))
    }
}

impl fmt::Debug for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtocolError({self})")
    }
}

impl core::error::Error for ProtocolError {}

/// `bytes` in double quotes with escapes, as texts quote names (section 4.3).
pub fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = alloc::vec![b'"'];
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(alloc::format!("\\x{byte:02x}").as_bytes());
        }
    }
    out.push(b'"');
    out
}

fn push_escaped(out: &mut Vec<u8>, c: char) {
    let code = u32::from(c);
    let escape = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        _ if code < 0x20 || code == 0x7F => {
            return out.extend_from_slice(alloc::format!("\\x{code:02x}").as_bytes());
        }
        _ if is_printable(c) => {
            return out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ if code < 0x10000 => {
            return out.extend_from_slice(alloc::format!("\\u{code:04x}").as_bytes());
        }
        _ => return out.extend_from_slice(alloc::format!("\\U{code:08x}").as_bytes()),
    };
    out.extend_from_slice(escape.as_bytes());
}

/// Whether the reference prints `c` as it is. `Debug` escapes what is not printable, and a
/// combining mark where nothing stands before it; the reference prints marks.
fn is_printable(c: char) -> bool {
    let mut text = [b'a'; 5];
    let len = c.encode_utf8(&mut text[1..]).len();
    c == '\''
        || core::str::from_utf8(&text[..=len])
            .is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_the_reference_does() {
        let raw = b"a\"\\`\x01\x7f\xc3\xa9\xff\xe2\x80\xa8\xf0\x9f\x98\x80\xf3\xa0\x80\x81";
        let expected = "\"a\\\"\\\\`\\x01\\x7fé\\xff\\u2028😀\\U000e0001\"";
        assert_eq!(String::from_utf8(quoted(raw)).unwrap(), expected);
        assert_eq!(quoted(b"\n\t' "), b"\"\\n\\t' \"");
        // A combining mark is printed, blanks and joiners that cannot be seen are not.
        let raw = "\u{301}\u{a0}\u{ad}\u{200b}\u{200c}\u{fffd}".as_bytes();
        let expected = "\"\u{301}\\u00a0\\u00ad\\u200b\\u200c\u{fffd}\"";
        assert_eq!(String::from_utf8(quoted(raw)).unwrap(), expected);
    }

    #[test]
    fn payloads() {
        let error = ProtocolError::new(ErrorCode::Invalid, *b"invalid command ");
        assert_eq!(error.payload(), b"E_INVALID invalid command ");
        assert_eq!(ProtocolError::new(ErrorCode::BadProtocol, *b"").payload(), b"E_BAD_PROTOCOL");
    }
}
