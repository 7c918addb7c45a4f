//! Protocol V2, nsqd's side: however a stream is cut, the same commands and the same end come out,
//! and the decoder never asks for nothing, nor for fewer bytes than it could do with.

use core::time::Duration;

use bytes::BytesMut;
use sansq_core::message::Bodies;
use sansq_core::protocol::command::{ClientState, Command, DecodeError, Decoder, Gate, Limits};
use sansq_core::protocol::error::ProtocolError;

/// Limits that short inputs can reach.
pub(crate) const LIMITS: Limits = Limits {
    max_msg_size: 300,
    max_body_size: 600,
    mpub_count_max: 20,
    max_req_timeout: Duration::from_secs(3600),
    max_rdy_count: 2500,
    line_len_max: 200,
    auth_secret_len_max: 64 * 1024,
};

/// What a stream comes to.
#[derive(Debug, Eq, PartialEq)]
struct Decoded {
    commands: Vec<Command>,
    end: Result<(), DecodeError>,
    /// What is said if the stream ends here.
    interrupted: Option<ProtocolError>,
    left: usize,
}

/// Checks one stream and the places where it is cut. The first byte of the stream switches
/// heartbeats.
///
/// # Panics
/// If the decoder is wrong.
pub fn check(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let Some(pieces) = crate::pieces(data) else { return };
    let heartbeats = flags & 1 == 0;
    let whole = decode(&[&pieces.concat()], heartbeats);
    assert_eq!(decode(&pieces, heartbeats), whole);
    if let Err(DecodeError::Protocol(error)) = whole.end {
        assert!(error.payload().starts_with(b"E_"));
    }
}

/// All commands of a stream, obeying those that change what is allowed.
fn decode(pieces: &[&[u8]], heartbeats: bool) -> Decoded {
    let (mut decoder, mut bodies) = (Decoder::default(), Bodies::default());
    let (mut input, mut commands) = (BytesMut::new(), Vec::new());
    let mut gate =
        Gate { state: ClientState::Init, heartbeats, lacks_tls: false, authorizes: false };
    // The command under way can't be complete before so many bytes have come.
    let mut needed = 1;
    let mut end = Ok(());
    'stream: for piece in pieces {
        input.extend_from_slice(piece);
        let mut came = piece.len();
        loop {
            match decoder.decode(&mut input, gate, &LIMITS, &mut bodies) {
                Ok(Some(command)) => {
                    // An MPUB may be shorter than it declares.
                    let is_free = matches!(command, Command::Mpub { .. });
                    assert!(is_free || needed <= came, "a command without the bytes it needed");
                    if matches!(command, Command::Sub { .. }) {
                        gate.state = ClientState::Subscribed;
                    } else if command == Command::Cls {
                        gate.state = ClientState::Closing;
                    }
                    commands.push(command);
                    // What follows is there already, as far as it is.
                    (needed, came) = (0, 0);
                }
                Ok(None) => break,
                Err(error) => {
                    end = Err(error);
                    break 'stream;
                }
            }
        }
        let asked = decoder.needs(input.len());
        assert!(asked >= 1, "a driver that reads nothing would wait for ever");
        assert!(asked <= LIMITS.max_body_size.max(LIMITS.line_len_max), "{asked} is beyond limits");
        needed = asked;
    }
    let interrupted = decoder.interrupted();
    // What is left behind an error means nothing.
    let left = if end.is_ok() { input.len() } else { 0 };
    Decoded { commands, end, interrupted, left }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("command", super::check);
    }
}
