//! Protocol V1, nsqlookupd's side: however a stream is cut, the same commands and the same end come
//! out, and what came out can be put together and read again.

use bytes::BytesMut;
use sansq_core::protocol::lookup::{CommandDecoder, LookupCommand, LookupProtocolError, MAGIC};

/// Checks one stream and the places where it is cut.
///
/// # Panics
/// If the decoder is wrong.
pub fn check(data: &[u8]) {
    let Some(pieces) = crate::pieces(data) else { return };
    let whole = decode(&[&pieces.concat()]);
    assert_eq!(decode(&pieces), whole);

    let (commands, end) = whole;
    if let Err(error) = end {
        assert!(error.text().starts_with(b"E_"));
    }
    let mut again = MAGIC.to_vec();
    for command in &commands {
        command.encode(&mut again);
    }
    assert_eq!(decode(&[&again]), (commands, Ok(())));
}

/// All commands of a stream, and how it ends.
fn decode(pieces: &[&[u8]]) -> (Vec<LookupCommand>, Result<(), LookupProtocolError>) {
    let (mut decoder, mut input, mut commands) =
        (CommandDecoder::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Err(error)),
            }
        }
    }
    (commands, decoder.finish())
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("lookup_command", super::check);
    }
}
