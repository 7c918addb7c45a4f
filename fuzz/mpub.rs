//! MPUB's body against a decoder of a page, which has all of it at once: the same messages, the
//! same rest, the same words to the client, however the stream is cut (nsqd-protocol.md section
//! 7.6).

use bytes::BytesMut;
use sansq_core::message::Bodies;
use sansq_core::protocol::command::{Command, DecodeError, Decoder, Gate};

use crate::command::LIMITS;

const LINE: &[u8] = b"MPUB t\n";

/// What comes of a body.
#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    /// The messages, and what is behind them.
    Complete(Vec<Vec<u8>>, Vec<u8>),
    /// The error's payload.
    Refused(String),
    /// What is said if the stream ends here.
    Incomplete(String),
}

/// Checks one body, what may follow it, and the places where the stream is cut.
///
/// # Panics
/// If the decoder is wrong.
pub fn check(data: &[u8]) {
    let Some(pieces) = crate::pieces(data) else { return };
    let expected = reference(&pieces.concat());
    assert_eq!(decoded(&[&pieces.concat()]), expected, "in one piece");
    assert_eq!(decoded(&pieces), expected, "in pieces");
}

/// The rules, one after the other.
fn reference(stream: &[u8]) -> Outcome {
    let mut rest = stream;
    let Some(len) = int32(&mut rest) else {
        return Outcome::Incomplete("E_BAD_BODY MPUB failed to read body size".into());
    };
    let refused = |code, text| Outcome::Refused(format!("{code} MPUB {text}"));
    if len <= 0 {
        return refused("E_BAD_BODY", format!("invalid body size {len}"));
    }
    if len as usize > LIMITS.max_body_size {
        return refused("E_BAD_BODY", format!("body too big {len} > {}", LIMITS.max_body_size));
    }
    let body = rest.len();
    let Some(count) = int32(&mut rest) else {
        return Outcome::Incomplete("E_BAD_BODY MPUB failed to read message count".into());
    };
    if count <= 0 || count as usize > LIMITS.mpub_count_max {
        return refused("E_BAD_BODY", format!("invalid message count {count}"));
    }
    let mut messages = Vec::new();
    for index in 0..count {
        let Some(size) = int32(&mut rest) else {
            let text = format!("E_BAD_MESSAGE MPUB failed to read message({index}) body size");
            return Outcome::Incomplete(text);
        };
        if size <= 0 {
            return refused("E_BAD_MESSAGE", format!("invalid message({index}) body size {size}"));
        }
        let size = size as usize;
        if size > LIMITS.max_msg_size {
            let text = format!("message too big {size} > {}", LIMITS.max_msg_size);
            return refused("E_BAD_MESSAGE", text);
        }
        // What sansq adds: what is really there is held to the limit as well as what is declared.
        let end = body - rest.len() + size;
        if end > LIMITS.max_body_size {
            return refused("E_BAD_BODY", format!("body too big {end} > {}", LIMITS.max_body_size));
        }
        let Some((message, behind)) = rest.split_at_checked(size) else {
            return Outcome::Incomplete("E_BAD_MESSAGE MPUB failed to read message body".into());
        };
        messages.push(message.to_vec());
        rest = behind;
    }
    Outcome::Complete(messages, rest.to_vec())
}

fn int32(rest: &mut &[u8]) -> Option<i32> {
    let (int, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(i32::from_be_bytes(*int))
}

/// What the decoder makes of it. It is asked once more after each piece.
fn decoded(pieces: &[&[u8]]) -> Outcome {
    let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
    let mut input = BytesMut::from(LINE);
    let mut command = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        if command.is_some() {
            continue;
        }
        match decoder.decode(&mut input, Gate::default(), &LIMITS, &mut bodies) {
            Ok(decoded) => command = decoded,
            Err(DecodeError::Protocol(error)) => {
                assert!(error.is_fatal(), "a stream that can't be read on ends");
                return Outcome::Refused(String::from_utf8_lossy(&error.payload()).into_owned());
            }
            Err(DecodeError::LineTooLong) => panic!("the line is {} bytes long", LINE.len()),
        }
    }
    match command {
        Some(Command::Mpub { topic, bodies }) => {
            assert_eq!(topic.to_string(), "t");
            assert!(decoder.interrupted().is_none(), "a complete command can't be interrupted");
            Outcome::Complete(bodies.iter().map(|body| body.to_vec()).collect(), input.to_vec())
        }
        Some(other) => panic!("MPUB is expected, not {other:?}"),
        None => {
            let error = decoder.interrupted().expect("the line was read");
            Outcome::Incomplete(String::from_utf8_lossy(&error.payload()).into_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("mpub", super::check);
    }
}
