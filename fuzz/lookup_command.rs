//! Protocol V1, nsqlookupd's side: however a stream is cut, the same commands and the same end come
//! out, and what came out can be put together and read again.

use bytes::BytesMut;
use sansq_core::protocol::lookup::{Command, CommandDecoder, MAGIC, ProtocolError};

/// Takes the input apart: a count, so many pairs of bytes that say where to cut, and the stream.
///
/// # Panics
/// If the decoder is wrong.
pub fn check(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let cuts_len = usize::from(count % 8) * 2;
    let Some((cuts, wire)) = rest.split_at_checked(cuts_len) else { return };
    let mut cuts: Vec<usize> = cuts
        .chunks_exact(2)
        .map(|cut| usize::from(u16::from_be_bytes([cut[0], cut[1]])).min(wire.len()))
        .collect();
    cuts.sort_unstable();

    let whole = decode(&[wire]);
    let (mut pieces, mut from) = (Vec::new(), 0);
    for cut in cuts {
        pieces.push(&wire[from..cut]);
        from = cut;
    }
    pieces.push(&wire[from..]);
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
fn decode(pieces: &[&[u8]]) -> (Vec<Command>, Result<(), ProtocolError>) {
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
