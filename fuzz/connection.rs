//! A connection with layers: whatever comes on the wire, and however it is cut, the shard does not
//! panic, does the same, keeps no more than it says, and what it sends can be unpacked into frames.

use bytes::BytesMut;
use sansq_core::client::frame::{self, Frame};
use sansq_core::nsqd::{ClientFailure, Close, Config, Event};
use sansq_core::testing::Node;
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
    wire.into_vec()
}

/// What the shard makes of it.
fn run(pieces: &[&[u8]], is_packed: bool) -> Outcome {
    let config = Config { max_msg_size: 1 << 16, max_body_size: 1 << 18, ..Config::default() };
    let mut node = Node::new(1, config);
    let client = node.connect(0);
    for piece in pieces {
        node.send(client, piece);
        if node.is_closed(client) {
            break;
        }
        // At most a chunk of Snappy, or a command that no layer hides.
        let kept = if is_packed { 80 * 1024 } else { 1 << 19 };
        let unread = node.unread(client);
        assert!(unread <= kept, "{unread} bytes are left unread");
    }
    let is_broken = node.events.iter().any(|event| {
        let broken = ClientFailure::Layer(UpgradeError::Deflate);
        matches!(event, Event::ClientFailed(_, failure) if *failure == broken)
    });
    let sent = node.received(client);
    Outcome { frames: frames(&sent), closed: node.close_of(client), is_broken }
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
