//! A connection with layers: whatever comes on the wire, and however it is cut, the shard does not
//! panic, does the same, keeps no more than it says, and what it sends can be unpacked into frames.

use bytes::BytesMut;
use sansq_core::client::frame::{self, Frame};
use sansq_core::nsqd::{
    Actions, ClientFailure, Close, Config, Event, Peer, ReadState, Shard, ShardId,
};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;
use sansq_core::upgrade::{Decoded, Layer, Scratch, Stack, UpgradeError};

/// Checks one stream and the places where it is cut. The first byte says which layers there are,
/// and whether the stream is what comes on the wire or is packed before.
///
/// # Panics
/// If the connection is wrong.
pub fn check(data: &[u8]) {
    let Some((flags, data)) = data.split_first() else { return };
    let Some(pieces) = crate::pieces(data) else { return };
    let (json, packing) = match flags % 4 {
        0 => ("", None),
        1 => (",\"snappy\":true", Some(Layer::Snappy)),
        2 => (",\"deflate\":true", Some(Layer::Deflate(6))),
        _ => (",\"deflate\":true,\"deflate_level\":1", Some(Layer::Deflate(1))),
    };
    let json = format!("{{\"feature_negotiation\":true{json}}}");
    let size = (json.len() as u32).to_be_bytes();
    let begin = [b"  V2IDENTIFY\n", &size[..], json.as_bytes()].concat();

    let mut client = Stack::new();
    if let Some(layer) = packing {
        client.push_packing(layer, BytesMut::new());
    }
    let is_packed = flags & 4 != 0;
    let pieces: Vec<Vec<u8>> = if is_packed {
        pieces.into_iter().map(|piece| pack(&mut client, piece)).collect()
    } else {
        pieces.into_iter().map(<[u8]>::to_vec).collect()
    };
    let whole = [begin.clone(), pieces.concat()].concat();
    let in_pieces: Vec<&[u8]> =
        core::iter::once(&begin[..]).chain(pieces.iter().map(Vec::as_slice)).collect();

    let expected = run(&[&whole], packing.is_some());
    compare(run(&in_pieces, packing.is_some()), &expected);
    // Finer is not possible, and takes its time.
    if whole.len() < 2000 {
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        compare(run(&bytes, packing.is_some()), &expected);
    }
}

/// What a stream comes to.
#[derive(Debug, Eq, PartialEq)]
struct Outcome {
    frames: Vec<Frame>,
    closed: Option<Close>,
    /// Whether a stream of Deflate broke.
    is_broken: bool,
}

/// However a stream is cut, it comes to the same; only how much of it is unpacked before the place
/// where a Deflate stream breaks depends on what came together.
fn compare(outcome: Outcome, expected: &Outcome) {
    if outcome.is_broken || expected.is_broken {
        assert!(outcome.closed.is_some() && expected.closed.is_some());
    } else {
        assert_eq!(&outcome, expected);
    }
}

/// What a client would write.
fn pack(stack: &mut Stack, bytes: &[u8]) -> Vec<u8> {
    let (mut plain, mut wire) = (Transmit::new(), Transmit::new());
    plain.push(bytes);
    stack.encode(&mut plain, &mut wire, &mut Scratch::default());
    take(&mut wire)
}

fn take(transmit: &mut Transmit) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !transmit.is_empty() {
        let mut part = [&[][..]];
        transmit.slices(&mut part);
        bytes.extend_from_slice(part[0]);
        let len = part[0].len();
        transmit.advance(len);
    }
    bytes
}

/// What the shard makes of it.
fn run(pieces: &[&[u8]], is_packed: bool) -> Outcome {
    let config = Config { max_msg_size: 1 << 16, max_body_size: 1 << 18, ..Config::default() };
    let (now, mut out) = (Now::from_millis(1_789_000_000_000), Actions::new(1));
    let mut shard = Shard::new(ShardId(0), 1, config, 7);
    let conn = shard.accept(Peer::Unix, now, &mut out);
    let (mut unread, mut sent, mut closed) = (BytesMut::new(), Vec::new(), None);
    let mut is_broken = false;
    'pieces: for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            let state = shard.handle_input(conn, &mut unread, now, &mut out);
            while !out.is_empty() {
                let actions = core::mem::replace(&mut out, Actions::new(1));
                is_broken |= actions.events.iter().any(|event| {
                    let failure = ClientFailure::Layer(UpgradeError::Deflate);
                    *event == Event::ClientFailed(Peer::Unix, failure)
                });
                for conn in actions.transmit {
                    let mut owed = Transmit::new();
                    shard.swap_transmit(conn, &mut owed);
                    let bytes = take(&mut owed);
                    shard.handle_sent(conn, bytes.len(), now, &mut out);
                    sent.extend(bytes);
                }
                for (_, how) in actions.close {
                    closed = Some(how);
                }
            }
            match state {
                ReadState::More(needed) => {
                    assert!(needed > 0, "a driver that reads nothing would wait for ever");
                    break;
                }
                // Everything is answered and written, so whatever was in the way is gone.
                ReadState::Wait => {}
                ReadState::Stop => break 'pieces,
            }
        }
        // At most a chunk of Snappy, or a command that no layer hides.
        let kept = if is_packed { 80 * 1024 } else { 1 << 19 };
        assert!(unread.len() <= kept, "{} bytes are left unread", unread.len());
    }
    Outcome { frames: frames(&sent), closed, is_broken }
}

/// Unpacks what a shard sent, and follows what it announces.
fn frames(sent: &[u8]) -> Vec<Frame> {
    let (mut wire, mut plain, mut frames) = (BytesMut::from(sent), BytesMut::new(), vec![]);
    let mut stack = Stack::new();
    loop {
        let next = frame::decode(&mut plain, 1 << 20).expect("a shard sends frames");
        let Some(frame) = next else {
            match stack.decode(&mut wire, &mut plain).expect("a shard packs well") {
                Decoded::Some | Decoded::Handshaken => continue,
                Decoded::All | Decoded::End => break,
            }
        };
        if let Frame::Response(text) = &frame
            && text.starts_with(b"{")
        {
            let announces = |key: &[u8]| text.windows(key.len()).any(|part| part == key);
            if announces(b"\"snappy\":true") {
                stack.push_packing(Layer::Snappy, plain.split());
            } else if announces(b"\"deflate\":true") {
                stack.push_packing(Layer::Deflate(6), plain.split());
            }
        }
        frames.push(frame);
    }
    assert!(wire.is_empty() && plain.is_empty(), "a frame is cut off");
    frames
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        crate::replay_seeds("connection", super::check);
    }
}
