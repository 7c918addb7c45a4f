use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::*;
use crate::upgrade::{ClientTls, STEP_LEN_MAX, ServerTls, TlsError};

/// Both sides' settings, made once: a new key takes its time.
fn tls() -> &'static (ServerTls, ClientTls) {
    static TLS: OnceLock<(ServerTls, ClientTls)> = OnceLock::new();
    TLS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["nsqd.example".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (ServerTls::new(Arc::new(server)), ClientTls::new(Arc::new(client)))
    })
}

/// One end of a connection.
#[derive(Default)]
struct End {
    stack: Stack,
    scratch: Scratch,
    unread: BytesMut,
    plain: BytesMut,
    out: Transmit,
    has_ended: bool,
}

impl End {
    fn send(&mut self, parts: &[Bytes]) {
        let mut plain = Transmit::new();
        parts.iter().for_each(|part| plain.push_body(part));
        self.stack.encode(&mut plain, &mut self.out, &mut self.scratch);
        assert!(plain.is_empty());
    }

    /// Decodes all there is, and looks at every step.
    fn receive(&mut self, wire: &[u8]) -> Result<(), UpgradeError> {
        self.unread.extend_from_slice(wire);
        loop {
            let before = self.plain.len();
            let decoded = self.stack.decode(&mut self.unread, &mut self.plain);
            self.stack.flush(&mut self.out);
            let step = self.plain.len() - before;
            assert!(step <= STEP_LEN_MAX + 32 * 1024, "{step} bytes in one step");
            match decoded? {
                Decoded::All => break,
                Decoded::Some => assert!(step > 0, "a step for nothing"),
                Decoded::Handshaken => {}
                Decoded::End => {
                    self.has_ended = true;
                    break;
                }
            }
        }
        assert!(self.stack.needs(&self.unread) > 0);
        assert!(self.unread.len() < 80 * 1024, "{} bytes are left", self.unread.len());
        Ok(())
    }

    fn take_wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        loop {
            let mut parts = [&[][..]; 8];
            let count = self.out.slices(&mut parts);
            let len: usize = parts[..count].iter().map(|part| part.len()).sum();
            parts[..count].iter().for_each(|part| wire.extend_from_slice(part));
            if len == 0 {
                return wire;
            }
            self.out.advance(len);
        }
    }
}

/// Client and server with the same layers, behind the handshake.
fn pair(with_tls: bool, packing: Option<Layer>) -> [End; 2] {
    let mut ends = [End::default(), End::default()];
    if with_tls {
        let (server, client) = tls();
        ends[0].stack.push_tls(Tls::client(client, "nsqd.example").unwrap());
        ends[1].stack.push_tls(Tls::server(server).unwrap());
        ends[0].stack.flush(&mut ends[0].out);
        while ends.iter().any(|end| end.stack.is_handshaking() || !end.out.is_empty()) {
            for from in [0, 1] {
                let wire = ends[from].take_wire();
                // The smallest pieces are the hardest.
                for byte in wire {
                    ends[1 - from].receive(&[byte]).unwrap();
                }
            }
        }
    }
    if let Some(layer) = packing {
        ends.iter_mut().for_each(|end| end.stack.push_packing(layer, BytesMut::new()));
    }
    ends
}

fn wire_of(layer: Layer, parts: &[&'static [u8]]) -> Vec<u8> {
    let mut end = End::default();
    end.stack.push_packing(layer, BytesMut::new());
    for part in parts {
        end.send(&[Bytes::from_static(part)]);
    }
    end.take_wire()
}

/// The answer behind an upgrade.
const OK: &[u8] = b"\0\0\0\x06\0\0\0\0OK";

#[test]
fn the_reference_s_bytes() {
    // nsqd-protocol.md section 8.5, clients.md section 1.2.
    assert_eq!(
        wire_of(Layer::Snappy, &[OK]),
        b"\xff\x06\x00\x00sNaPpY\x01\x0e\x00\x00\x26\x98\x2b\xcf\0\0\0\x06\0\0\0\0OK"
    );
    assert_eq!(
        wire_of(Layer::Deflate(6), &[OK]),
        b"\x00\x0a\x00\xf5\xff\0\0\0\x06\0\0\0\0OK\x00\x00\x00\xff\xff"
    );
    assert_eq!(
        wire_of(Layer::Snappy, &[b"NOP\n"]),
        b"\xff\x06\x00\x00sNaPpY\x01\x08\x00\x00\x41\xcd\x7c\xe3NOP\n"
    );
}

#[test]
fn snappy_takes_what_writers_write() {
    let head = &b"\xff\x06\x00\x00sNaPpY"[..];
    let nop = &b"\x01\x08\x00\x00\x41\xcd\x7c\xe3NOP\n"[..];
    let unknown = &b"\x80\x03\x00\x00abc\xfe\x00\x00\x00"[..];
    let empty = &b"\x01\x04\x00\x00\xd8\xea\x82\xa2"[..];
    let mut end = End::default();
    end.stack.push_packing(Layer::Snappy, BytesMut::new());
    for part in [head, head, nop, unknown, head, nop] {
        for byte in part {
            end.receive(&[*byte]).unwrap();
        }
    }
    assert_eq!(end.plain, "NOP\nNOP\n");
    let mut wire = BytesMut::from(&[empty, nop].concat()[..]);
    assert_eq!(end.stack.decode(&mut wire, &mut end.plain), Ok(Decoded::Some));
    for (wire, what) in [
        (&[nop][..], "no stream identifier"),
        (&[head, b"\x02\x00\x00\x00"], "unsupported input"),
        (&[head, b"\x7f\x00\x00\x00"], "unsupported input"),
        (&[b"\xff\x07\x00\x00sNaPpYX"], "corrupt input"),
        (&[b"\xff\x06\x00\x00sNaPpy"], "corrupt input"),
        (&[head, b"\x01\x03\x00\x00"], "corrupt input"),
        (&[head, b"\x01\x05\x00\x01"], "corrupt input"),
        (&[head, b"\x00\xff\xff\x01"], "corrupt input"),
        (&[head, b"\x00\x0a\x00\x00\0\0\0\0\xff\xff\xff\xff\x0fx"], "corrupt input"),
        (&[head, b"\x01\x08\x00\x00\x40\xcd\x7c\xe3NOP\n"], "checksum mismatch"),
    ] {
        let mut end = End::default();
        end.stack.push_packing(Layer::Snappy, BytesMut::new());
        assert_eq!(end.receive(&wire.concat()), Err(UpgradeError::Snappy(what)), "{wire:?}");
    }
}

#[test]
fn snappy_says_what_it_needs() {
    let mut end = End::default();
    end.stack.push_packing(Layer::Snappy, BytesMut::new());
    assert_eq!(end.stack.needs(b""), 4);
    assert_eq!(end.stack.needs(b"\xff\x06"), 2);
    assert_eq!(end.stack.needs(b"\x01\x00\x01\x00"), 256);
    assert_eq!(end.stack.needs(b"\x01\x00\x01\x00abc"), 253);
    // A length that will be refused is no reason to make room.
    assert_eq!(end.stack.needs(b"\x00\xff\xff\xff"), 1);
}

#[test]
fn a_pause_costs_no_packer_and_breaks_no_stream() {
    for layer in [Layer::Deflate(6), Layer::Snappy] {
        let [mut client, mut server] = pair(false, Some(layer));
        let mut expected = Vec::new();
        for round in 0..6 {
            for len in [10, 5000, 19] {
                let part: Vec<u8> = (0..len).map(|n| (n * round) as u8).collect();
                expected.extend_from_slice(&part);
                server.send(&[part.into()]);
                client.receive(&server.take_wire()).unwrap();
            }
            server.stack.release();
        }
        assert_eq!(client.plain, expected);
    }
}

#[test]
fn each_layer_says_that_nothing_more_comes() {
    for (with_tls, packing) in layers() {
        let [mut client, mut server] = pair(with_tls, packing);
        server.send(&[Bytes::from_static(b"the last words")]);
        server.stack.finish(&mut server.out);
        client.receive(&server.take_wire()).unwrap();
        assert_eq!(client.plain, "the last words");
        let can_tell = with_tls || matches!(packing, Some(Layer::Deflate(_)));
        assert_eq!(client.has_ended, can_tell, "{packing:?}");
    }
}

#[test]
fn a_thousandfold_comes_in_steps() {
    const LEN: usize = 16 * 1024 * 1024;
    for (with_tls, packing) in layers() {
        let [mut client, mut server] = pair(with_tls, packing);
        let mut len = 0;
        for _ in 0..LEN / (1024 * 1024) {
            client.send(&[vec![0; 1024 * 1024].into()]);
            let wire = client.take_wire();
            server.unread.extend_from_slice(&wire);
            // `receive` asserts that no step is too long; here what came is thrown away at each.
            loop {
                let decoded = server.stack.decode(&mut server.unread, &mut server.plain).unwrap();
                assert!(server.plain.len() <= STEP_LEN_MAX + 32 * 1024);
                len += server.plain.len();
                server.plain.clear();
                if decoded == Decoded::All {
                    break;
                }
            }
        }
        assert_eq!(len, LEN, "{packing:?}");
    }
}

#[test]
fn the_handshake_fails_on_something_else() {
    let (server, _) = tls();
    let mut end = End::default();
    end.stack.push_tls(Tls::server(server).unwrap());
    let result = end.receive(b"PUB t\n\0\0\0\x01xNOP\nNOP\n");
    assert!(matches!(result, Err(UpgradeError::Tls(_))), "{result:?}");
    // An alert tells a peer that speaks TLS after all.
    let alert = end.take_wire();
    assert_eq!((alert.first(), alert.len()), (Some(&21), 7));
}

#[test]
fn a_client_that_does_not_know_the_certificate_goes() {
    let stranger = rcgen::generate_simple_self_signed(vec!["nsqd.example".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(stranger.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (mut client, mut server) = (End::default(), End::default());
    let config = ClientTls::new(Arc::new(config));
    client.stack.push_tls(Tls::client(&config, "nsqd.example").unwrap());
    server.stack.push_tls(Tls::server(&tls().0).unwrap());
    client.stack.flush(&mut client.out);
    server.receive(&client.take_wire()).unwrap();
    let refused = client.receive(&server.take_wire());
    assert!(matches!(refused, Err(UpgradeError::Tls(_))), "{refused:?}");
    let told = server.receive(&client.take_wire());
    assert!(matches!(told, Err(UpgradeError::Tls(TlsError { .. }))), "{told:?}");
    assert!(Tls::client(&config, "no name").is_err());
}

#[test]
fn what_was_agreed_on() {
    let [_, server] = pair(true, None);
    let info = server.stack.tls_info().unwrap();
    assert_eq!((info.version, info.common_name.as_str()), ("TLS1.3", ""));
    assert_eq!(info.cipher_suite_name(), alloc::format!("Unknown {}", info.cipher_suite));
}

/// A flush behind more than the packer had room for, at the level that once lost the end of it.
#[test]
fn a_flush_is_whole() {
    for len in (63_000..66_000).step_by(7) {
        let [mut client, mut server] = pair(false, Some(Layer::Deflate(1)));
        server.send(&[bytes(len, 179)]);
        let wire = server.take_wire();
        assert!(wire.ends_with(b"\0\0\xff\xff"), "{len}");
        client.receive(&wire).unwrap();
        assert_eq!(client.plain.len(), len);
    }
}

/// All that can be negotiated.
fn layers() -> Vec<(bool, Option<Layer>)> {
    let packings = [None, Some(Layer::Snappy), Some(Layer::Deflate(1)), Some(Layer::Deflate(9))];
    [false, true].into_iter().flat_map(|tls| packings.map(|packing| (tls, packing))).collect()
}

fn some_layers() -> impl Strategy<Value = (bool, Option<Layer>)> {
    prop::sample::select(layers())
}

/// What one side says before it flushes: parts of some length, more or less easy to pack.
fn flush() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec(
        (prop_oneof![0_usize..200, 0_usize..10_000, 60_000_usize..140_000], any::<u8>()),
        1..4,
    )
}

fn bytes(len: usize, kind: u8) -> Bytes {
    let mut state = u32::from(kind) | 1;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if kind.is_multiple_of(2) { (state >> 24) as u8 } else { (state >> 30) as u8 }
    };
    if kind.is_multiple_of(3) { vec![kind; len].into() } else { (0..len).map(noise).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What goes in at one end comes out at the other, in both directions, however it is cut on the
    /// way.
    #[test]
    fn both_ways(
        (with_tls, packing) in some_layers(),
        flushes in prop::collection::vec((any::<bool>(), flush(), any::<bool>()), 1..8),
        cuts in prop::collection::vec(prop_oneof![1_usize..40, 1_usize..70_000], 1..20),
    ) {
        let mut ends = pair(with_tls, packing);
        let mut expected = [Vec::new(), Vec::new()];
        let mut cuts = cuts.into_iter().cycle();
        for (from_client, parts, release) in flushes {
            let from = usize::from(!from_client);
            let parts: Vec<Bytes> = parts.into_iter().map(|(len, kind)| bytes(len, kind)).collect();
            parts.iter().for_each(|part| expected[1 - from].extend_from_slice(part));
            ends[from].send(&parts);
            if release {
                ends[from].stack.release();
            }
            let wire = ends[from].take_wire();
            let mut rest = &wire[..];
            while !rest.is_empty() {
                let (piece, left) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                ends[1 - from].receive(piece).unwrap();
                rest = left;
            }
            // Nothing is held back behind a flush.
            prop_assert!(ends[1 - from].plain == expected[1 - from]);
        }
    }

    /// Bytes that come to harm end in an error, or are seen for what they are; nothing panics, and
    /// no more is kept than the limits allow.
    #[test]
    fn garbage(
        (with_tls, packing) in some_layers(),
        parts in flush(),
        at in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..300),
        overwrites in any::<bool>(),
    ) {
        let [mut client, mut server] = pair(with_tls, packing);
        let parts: Vec<Bytes> = parts.into_iter().map(|(len, kind)| bytes(len, kind)).collect();
        client.send(&parts);
        let mut wire = client.take_wire();
        if !wire.is_empty() {
            let at = at.index(wire.len());
            let end = if overwrites { (at + garbage.len()).min(wire.len()) } else { at };
            wire.splice(at..end, garbage);
        }
        let failed = server.receive(&wire).is_err();
        // TLS lets nothing pass, and does not recover.
        if with_tls && failed {
            prop_assert!(server.receive(&wire).is_err());
        }
    }
}
