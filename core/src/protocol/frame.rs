//! What a server sends: frames with a size, a type and a payload (nsqd-protocol.md section 3).

use crate::message::{MESSAGE_ID_LEN, Message};
use crate::transmit::Transmit;

/// The first four bytes of a V2 connection.
pub const MAGIC_V2: &[u8; 4] = b"  V2";

/// The payload of a heartbeat, which is a response.
pub const HEARTBEAT: &[u8] = b"_heartbeat_";

/// The payload of the answer to most commands.
pub const OK: &[u8] = b"OK";

/// The payload of the answer to CLS.
pub const CLOSE_WAIT: &[u8] = b"CLOSE_WAIT";

/// The whole frame that a client is sent for which there is no place. It is an error that every
/// client knows.
pub const TOO_MANY_CONNECTIONS: &[u8; 38] = b"\0\0\0\x22\0\0\0\x01E_INVALID too many connections";

/// The size and type fields in front of a payload.
pub const FRAME_HEADER_LEN: usize = 8;

/// What a message's payload has in front of the body: timestamp, attempts, id.
pub const MESSAGE_HEADER_LEN: usize = 8 + 2 + MESSAGE_ID_LEN;

/// The type field of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum FrameType {
    /// An answer or a heartbeat.
    Response = 0,
    /// A refusal.
    Error = 1,
    /// A message.
    Message = 2,
}

/// Appends a response or error frame.
pub fn push_frame(transmit: &mut Transmit, kind: FrameType, payload: &[u8]) {
    let mut header = [0; FRAME_HEADER_LEN];
    header[..4].copy_from_slice(&(payload.len() as u32 + 4).to_be_bytes());
    header[4..].copy_from_slice(&(kind as u32).to_be_bytes());
    transmit.push(&header);
    transmit.push(payload);
}

/// Appends a message frame. A large body is not copied.
pub fn push_message(transmit: &mut Transmit, message: &Message) {
    let mut header = [0; FRAME_HEADER_LEN + MESSAGE_HEADER_LEN];
    let size = (4 + MESSAGE_HEADER_LEN + message.body.len()) as u32;
    header[..4].copy_from_slice(&size.to_be_bytes());
    header[4..8].copy_from_slice(&(FrameType::Message as u32).to_be_bytes());
    header[8..16].copy_from_slice(&message.timestamp.0.to_be_bytes());
    header[16..18].copy_from_slice(&message.attempts.to_be_bytes());
    header[18..].copy_from_slice(&message.id.to_hex());
    transmit.push(&header);
    transmit.push_body(&message.body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;
    use crate::time::UnixNanos;
    use bytes::Bytes;

    fn bytes(transmit: &Transmit) -> alloc::vec::Vec<u8> {
        let mut slices = [&[][..]; 4];
        let count = transmit.slices(&mut slices);
        slices[..count].concat()
    }

    #[test]
    fn frames_byte_for_byte() {
        let mut transmit = Transmit::new();
        push_frame(&mut transmit, FrameType::Response, b"OK");
        assert_eq!(bytes(&transmit), b"\0\0\0\x06\0\0\0\0OK");
        let mut transmit = Transmit::new();
        push_message(
            &mut transmit,
            &Message {
                id: MessageId(0x18a4_5739_7de6_9000),
                timestamp: UnixNanos(0x18ea_5e9e_847b_ffdb),
                attempts: 1,
                record: None,
                body: Bytes::from_static(b"hello"),
            },
        );
        let expected =
            b"\0\0\0\x23\0\0\0\x02\x18\xea\x5e\x9e\x84\x7b\xff\xdb\0\x0118a457397de69000hello";
        assert_eq!(bytes(&transmit), expected);
    }
}
