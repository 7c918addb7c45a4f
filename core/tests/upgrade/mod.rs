//! Upgrades as a driver sees them: wire bytes in, wire bytes out, through the whole ladder
//! (nsqd-protocol.md sections 8.4 to 8.6, 17 and 25).

mod client;

use core::time::Duration;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BytesMut};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sansq_core::client::frame::{self, Frame};
use sansq_core::machine::{Machine, ReadState};
use sansq_core::nsqd::config::DECODED_LEN_MAX;
use sansq_core::nsqd::{
    Actions, AdminReply, AdminRequest, ClientStats, Close, Config, Event, Peer, Shard, ShardId,
    StatsFilter, TlsRequired,
};
use sansq_core::testing::{ClientId, Node};
use sansq_core::time::Now;
use sansq_core::transmit::Transmit;
use sansq_core::upgrade::{ClientTls, Decoded, Layer, Scratch, ServerTls, Stack, Tls};

use crate::pub_command;

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

fn config() -> Config {
    Config { tls: Some(tls().0.clone()), ..Config::default() }
}

/// A client that speaks through layers.
struct Layered {
    client: ClientId,
    stack: Stack,
    scratch: Scratch,
    wire: BytesMut,
    plain: BytesMut,
    has_ended: bool,
}

impl Layered {
    fn new(client: ClientId) -> Self {
        Self {
            client,
            stack: Stack::new(),
            scratch: Scratch::default(),
            wire: BytesMut::new(),
            plain: BytesMut::new(),
            has_ended: false,
        }
    }

    /// What the client would write now.
    fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let (mut owed, mut wire) = (Transmit::new(), Transmit::new());
        owed.push(plain);
        self.stack.flush(&mut wire);
        if !self.stack.is_handshaking() {
            self.stack.encode(&mut owed, &mut wire, &mut self.scratch);
        }
        let mut bytes = Vec::new();
        while !wire.is_empty() {
            let mut part = [&[][..]];
            wire.slices(&mut part);
            let part = part[0].to_vec();
            wire.advance(part.len());
            bytes.extend(part);
        }
        bytes
    }

    fn send(&mut self, node: &mut Node, plain: impl AsRef<[u8]>) {
        let wire = self.encode(plain.as_ref());
        node.send(self.client, &wire);
    }

    /// The next frame, if there is one.
    fn next(&mut self, node: &mut Node) -> Option<Frame> {
        self.wire.extend_from_slice(&node.received(self.client));
        loop {
            if let Some(frame) = frame::decode(&mut self.plain, 1 << 24).unwrap() {
                return Some(frame);
            }
            match self.stack.decode(&mut self.wire, &mut self.plain).unwrap() {
                Decoded::Some | Decoded::Handshaken => {}
                Decoded::All => return None,
                Decoded::End => {
                    self.has_ended = true;
                    return None;
                }
            }
        }
    }

    fn response(&mut self, node: &mut Node) -> String {
        match self.next(node) {
            Some(Frame::Response(text)) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("a response is expected, not {other:?}"),
        }
    }

    fn expect_ok(&mut self, node: &mut Node) {
        assert_eq!(self.response(node), "OK");
    }

    fn body(&mut self, node: &mut Node) -> (String, Vec<u8>) {
        match self.next(node) {
            Some(Frame::Message(message)) => {
                (String::from_utf8(message.id.to_vec()).unwrap(), message.body.to_vec())
            }
            other => panic!("a message is expected, not {other:?}"),
        }
    }

    /// Climbs the ladder to the end.
    fn upgrade(&mut self, node: &mut Node, with_tls: bool, packing: Option<Layer>) {
        let json = identify(with_tls, packing);
        self.send(node, &json);
        let answer = self.response(node);
        assert!(answer.contains(&format!("\"tls_v1\":{with_tls}")), "{answer}");
        if with_tls {
            self.stack.push_tls(Tls::client(&tls().1, "nsqd.example").unwrap());
            while self.stack.is_handshaking() {
                self.send(node, b"");
                self.wire.extend_from_slice(&node.received(self.client));
                let _ = self.stack.decode(&mut self.wire, &mut self.plain).unwrap();
            }
            self.send(node, b"");
            self.expect_ok(node);
        }
        if let Some(layer) = packing {
            let early = self.plain.split();
            self.stack.push_packing(layer, early);
            self.expect_ok(node);
        }
    }
}

fn identify(with_tls: bool, packing: Option<Layer>) -> Vec<u8> {
    let packing = match packing {
        Some(Layer::Snappy) => ",\"snappy\":true".into(),
        Some(Layer::Deflate(level)) => format!(",\"deflate\":true,\"deflate_level\":{level}"),
        Some(Layer::Tls) | None => String::new(),
    };
    command_with(&format!("{{\"feature_negotiation\":true,\"tls_v1\":{with_tls}{packing}}}"))
}

fn command_with(json: &str) -> Vec<u8> {
    [b"IDENTIFY\n", &(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat()
}

fn layers() -> Vec<(bool, Option<Layer>)> {
    let packings = [None, Some(Layer::Snappy), Some(Layer::Deflate(6)), Some(Layer::Deflate(1))];
    [false, true].into_iter().flat_map(|tls| packings.map(|packing| (tls, packing))).collect()
}

fn stats_of(node: &mut Node, topic: &str) -> ClientStats {
    let filter = StatsFilter { include_clients: true, ..StatsFilter::default() };
    match node.admin(0, AdminRequest::Stats(filter)) {
        Some(AdminReply::Stats(stats)) => {
            let topic = stats.topics.iter().find(|t| &*t.name == topic).unwrap();
            topic.channels[0].clients.as_ref().unwrap()[0].clone()
        }
        other => panic!("statistics are expected, not {other:?}"),
    }
}

/// The life of a message through every stack, on one shard and over several.
#[test]
fn every_stack_on_one_shard_and_on_several() {
    for (with_tls, packing) in layers() {
        for shards in [1, 4] {
            let mut node = Node::new(shards, config());
            let conn = node.client(usize::from(shards) - 1);
            let mut client = Layered::new(conn);
            client.upgrade(&mut node, with_tls, packing);
            let large = vec![b'x'; 300_000];
            let publish = pub_command("t", core::str::from_utf8(&large).unwrap());
            client.send(&mut node, &publish);
            client.expect_ok(&mut node);
            client.send(&mut node, "SUB t c\nRDY 1\n");
            client.expect_ok(&mut node);
            let (id, body) = client.body(&mut node);
            assert!(body == large);
            client.send(&mut node, format!("FIN {id}\nPUB t\n\0\0\0\x02hi"));
            client.expect_ok(&mut node);
            assert_eq!(client.body(&mut node).1, b"hi");

            let shown = stats_of(&mut node, "t");
            assert_eq!(shown.tls.is_some(), with_tls);
            assert_eq!(shown.snappy, packing == Some(Layer::Snappy));
            assert_eq!(shown.deflate, matches!(packing, Some(Layer::Deflate(_))));

            client.send(&mut node, "BAD\n");
            let Some(Frame::Error(text)) = client.next(&mut node) else { panic!("an error") };
            assert_eq!(text, "E_INVALID invalid command BAD");
            // The layers say that nothing more comes, where they have a way to.
            assert!(client.next(&mut node).is_none() && node.is_closed(client.client));
            assert_eq!(client.has_ended, with_tls || shown.deflate, "{with_tls} {packing:?}");
        }
    }
}

/// The ladder byte for byte: the JSON as it was, the OK packed.
#[test]
fn the_ladder_s_bytes() {
    for (packing, ok) in [
        (Layer::Snappy, &b"\xff\x06\0\0sNaPpY\x01\x0e\0\0\x26\x98\x2b\xcf\0\0\0\x06\0\0\0\0OK"[..]),
        (Layer::Deflate(3), b"\0\x0a\0\xf5\xff\0\0\0\x06\0\0\0\0OK\0\0\0\xff\xff"),
    ] {
        let mut node = Node::new(1, Config::default());
        let client = node.client(0);
        node.send(client, &identify(true, Some(packing)));
        let received = node.received(client);
        let size = u32::from_be_bytes(received[..4].try_into().unwrap()) as usize;
        let json = core::str::from_utf8(&received[8..4 + size]).unwrap();
        assert!(json.contains("\"tls_v1\":false"), "{json}");
        let level = if packing == Layer::Snappy { 6 } else { 3 };
        assert!(json.contains(&format!("\"deflate_level\":{level}")), "{json}");
        assert_eq!(&received[4 + size..], ok);
    }
}

/// Bytes behind an IDENTIFY that upgrades go through the new layer, however they are cut.
#[test]
fn early_bytes_go_through_the_new_layer() {
    for (with_tls, packing) in layers() {
        // Bytes for a layer below which is another one can only be made behind its handshake.
        if with_tls || packing.is_none() {
            continue;
        }
        for cut in 0..3 {
            let mut node = Node::new(1, Config::default());
            let conn = node.client(0);
            let mut client = Layered::new(conn);
            let mut bytes = identify(with_tls, packing);
            client.stack.push_packing(packing.unwrap(), BytesMut::new());
            bytes.extend(client.encode(&pub_command("t", "early")));
            let cut = bytes.len() * cut / 3;
            node.send(conn, &bytes[..cut]);
            node.send(conn, &bytes[cut..]);
            let received = node.received(conn);
            let size = u32::from_be_bytes(received[..4].try_into().unwrap()) as usize;
            client.wire.extend_from_slice(&received[4 + size..]);
            client.expect_ok(&mut node);
            client.expect_ok(&mut node);
        }
    }
    // A TLS client that says hello before it has read the answer.
    let mut node = Node::new(1, config());
    let conn = node.client(0);
    let mut client = Layered::new(conn);
    client.stack.push_tls(Tls::client(&tls().1, "nsqd.example").unwrap());
    let mut bytes = identify(true, None);
    bytes.extend(client.encode(b""));
    node.send(conn, &bytes);
    let mut received = BytesMut::from(&node.received(conn)[..]);
    let size = received.get_u32() as usize;
    received.advance(size);
    client.wire = received;
    while client.stack.is_handshaking() {
        let _ = client.stack.decode(&mut client.wire, &mut client.plain).unwrap();
    }
    client.send(&mut node, b"");
    client.expect_ok(&mut node);
}

/// The same within TLS, in a second IDENTIFY.
#[test]
fn a_second_identify_stays_on_its_layers() {
    let mut node = Node::new(1, config());
    let conn = node.client(0);
    let mut client = Layered::new(conn);
    client.upgrade(&mut node, true, None);
    // Weakness W1: the reference answers this in plain text.
    client.send(&mut node, command_with(r#"{"output_buffer_size":1024}"#));
    client.expect_ok(&mut node);
    // What is there is not announced again; what can still come on top is, and early bytes with it.
    let json = r#"{"feature_negotiation":true,"tls_v1":true,"snappy":true}"#;
    let mut inner = Layered::new(conn);
    inner.stack.push_packing(Layer::Snappy, BytesMut::new());
    let early = inner.encode(&pub_command("t", "early"));
    client.send(&mut node, [command_with(json), early].concat());
    let answer = client.response(&mut node);
    assert!(answer.contains("\"tls_v1\":false") && answer.contains("\"snappy\":true"), "{answer}");
    // The stream of Snappy has begun on our side, so its bytes are taken by hand.
    let mut wire = client.plain.split();
    wire.extend_from_slice(&node.received(conn));
    while client.stack.decode(&mut client.wire, &mut wire).unwrap() == Decoded::Some {}
    inner.wire = wire;
    inner.expect_ok(&mut node);
    inner.expect_ok(&mut node);
}

/// The ladder waits for the answers to earlier commands, which another shard gives.
#[test]
fn earlier_answers_leave_first() {
    for shards in [2, 5] {
        let mut node = Node::new(shards, Config::default());
        let conn = node.client(1);
        let mut client = Layered::new(conn);
        client.stack.push_packing(Layer::Snappy, BytesMut::new());
        let publishes: Vec<u8> = (0..20).flat_map(|n| pub_command(&format!("t{n}"), "x")).collect();
        let early = client.encode(&pub_command("t", "early"));
        let wire = [publishes, identify(false, Some(Layer::Snappy)), early].concat();
        node.send(conn, &wire);
        let mut received = BytesMut::from(&node.received(conn)[..]);
        for _ in 0..20 {
            let frame = frame::decode(&mut received, 1 << 20).unwrap();
            assert_eq!(frame, Some(Frame::Response(b"OK"[..].into())));
        }
        let json = frame::decode(&mut received, 1 << 20).unwrap();
        assert!(matches!(json, Some(Frame::Response(_))), "{json:?}");
        client.wire = received;
        client.expect_ok(&mut node);
        client.expect_ok(&mut node);
    }
}

/// No heartbeat in the ladder (weakness W19), and at most five seconds for the handshake.
#[test]
fn a_handshake_is_not_disturbed_and_not_waited_for() {
    let mut node = Node::new(1, config());
    let conn = node.client(0);
    let json = r#"{"feature_negotiation":true,"tls_v1":true,"heartbeat_interval":1000}"#;
    node.send(conn, &command_with(json));
    assert_eq!(node.frames(conn).len(), 1);
    node.wait(Duration::from_millis(4999));
    assert!(node.frames(conn).is_empty() && !node.is_closed(conn));
    node.wait(Duration::from_millis(1));
    let frames = node.frames(conn);
    let [Frame::Error(text)] = &frames[..] else { panic!("{frames:?}") };
    assert!(text.starts_with(b"E_IDENTIFY_FAILED IDENTIFY failed "), "{text:?}");
    assert!(node.is_closed(conn));

    // Heartbeats come again behind the ladder, through the layers.
    let conn = node.client(0);
    let mut client = Layered::new(conn);
    client.upgrade(&mut node, true, Some(Layer::Deflate(6)));
    for _ in 0..3 {
        node.wait(Duration::from_secs(30));
        assert_eq!(client.response(&mut node), "_heartbeat_");
        client.send(&mut node, "NOP\n");
    }
    assert!(client.next(&mut node).is_none());
    // The client says goodbye properly.
    let mut wire = Transmit::new();
    client.stack.finish(&mut wire);
    let mut part = [&[][..]; 4];
    let count = wire.slices(&mut part);
    node.send(conn, &part[..count].concat());
    assert!(node.is_closed(conn));
}

/// Something else than TLS: an alert, then the error in plain text (section 8.4).
#[test]
fn a_failed_handshake_is_told_in_plain_text() {
    let bad = [pub_command("t", "x"), b"NOP\n".repeat(20)].concat();
    for (bytes, has_alert) in
        [(&bad[..], true), (b"\x16\x03\x01\x00\x05hello", false), (b"", false)]
    {
        let mut node = Node::new(1, config());
        let conn = node.client(0);
        node.send(conn, &identify(true, None));
        let _ = node.frames(conn);
        node.send(conn, bytes);
        if bytes.is_empty() {
            node.half_close(conn);
        }
        let mut received = node.received(conn);
        if has_alert {
            assert_eq!(received[0], 21, "{bytes:?}");
            received.drain(..7);
        }
        let text = String::from_utf8_lossy(&received[8..]).into_owned();
        assert!(text.starts_with("E_IDENTIFY_FAILED IDENTIFY failed "), "{text}");
        assert!(node.is_closed(conn));
        let refusals = node.events.iter().filter(|event| matches!(event, Event::ClientRefused(..)));
        assert_eq!(refusals.count(), 1);
    }
}

/// A stream that breaks ends the connection, with one line in the log.
#[test]
fn a_broken_stream_ends_the_connection() {
    for (with_tls, packing) in layers() {
        if !with_tls && packing.is_none() {
            continue;
        }
        let mut node = Node::new(1, config());
        let conn = node.client(0);
        let mut client = Layered::new(conn);
        client.upgrade(&mut node, with_tls, packing);
        node.send(conn, &[0xff; 200]);
        assert!(node.is_closed(conn), "{with_tls} {packing:?}");
        let failures = node.events.iter().filter(|event| matches!(event, Event::ClientFailed(..)));
        assert_eq!(failures.count(), 1);
    }
}

/// With TLS required any command but IDENTIFY needs it, whatever the command is.
#[test]
fn the_gate() {
    for tls_required in [TlsRequired::Yes, TlsRequired::TcpHttps] {
        let mut node = Node::new(1, Config { tls_required, ..config() });
        for (line, word) in [
            ("PUB t\n", "PUB"),
            ("NOP\n", "NOP"),
            ("\n", ""),
            ("WHAT is this\n", "WHAT"),
            ("SUB\n", "SUB"),
        ] {
            let client = node.client(0);
            node.send(client, line.as_bytes());
            let text = format!("E_INVALID cannot {word} in current state (TLS required)");
            assert_eq!(node.frames(client), [Frame::Error(text.into())]);
            assert!(node.is_closed(client));
        }
        // Snappy is no TLS.
        let conn = node.client(0);
        let mut client = Layered::new(conn);
        client.upgrade(&mut node, false, Some(Layer::Snappy));
        client.send(&mut node, "NOP\n");
        let text = "E_INVALID cannot NOP in current state (TLS required)";
        assert_eq!(client.next(&mut node), Some(Frame::Error(text.into())));
        let conn = node.client(0);
        let mut client = Layered::new(conn);
        client.upgrade(&mut node, true, None);
        client.send(&mut node, pub_command("t", "x"));
        client.expect_ok(&mut node);
    }
    let config = Config { tls_required: TlsRequired::Yes, ..Config::default() };
    let text = "cannot require TLS client connections without TLS key and cert";
    assert_eq!(config.check().unwrap_err().to_string(), text);
}

/// Snappy and Deflate exclude each other, unless the server has only one of them.
#[test]
fn one_of_snappy_and_deflate() {
    let both = command_with(r#"{"feature_negotiation":true,"snappy":true,"deflate":true}"#);
    let mut node = Node::new(1, Config::default());
    let client = node.client(0);
    node.send(client, &both);
    let text = "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression";
    assert_eq!(node.frames(client), [Frame::Error(text.into())]);
    let mut node = Node::new(1, Config { snappy: false, ..Config::default() });
    let client = node.client(0);
    node.send(client, &both);
    let received = node.received(client);
    assert!(received.ends_with(b"OK\0\0\0\xff\xff"));
    // Without negotiation nothing is upgraded.
    let client = node.client(0);
    node.send(client, &command_with(r#"{"snappy":true}"#));
    node.send(client, b"NOP\n");
    assert_eq!(node.frames(client), [Frame::Response("OK".into())]);
}

/// Commands that are packed a hundredfold and more are carried out, in shares that leave others
/// their turn.
#[test]
fn a_bomb_is_carried_out_in_shares() {
    let (now, mut out) = (Now::from_millis(0), Actions::default());
    let mut shard = Shard::new(ShardId(0), 1, Config::default(), 7);
    let conn = shard.accept(Peer::Unix, now, &mut out);
    let mut client = Layered::new(Node::new(1, Config::default()).connect(0));
    client.stack.push_packing(Layer::Deflate(6), BytesMut::new());
    let nops = client.encode(&b"NOP\n".repeat(1 << 20));
    assert!(nops.len() < (4 << 20) / 100, "{}", nops.len());
    let identify = identify(false, Some(Layer::Deflate(6)));
    let mut input = BytesMut::from(&[b"  V2", &identify[..], &nops].concat()[..]);
    let mut calls = 1;
    while shard.handle_input(conn, &mut input, now, &mut out) == ReadState::Wait {
        assert_eq!(core::mem::take(&mut out.resume), [conn]);
        calls += 1;
    }
    assert!(input.is_empty() && calls >= (4 << 20) / DECODED_LEN_MAX, "{calls} calls");
    // Zeros are no line, and end where a line would have to.
    let mut input = BytesMut::from(&client.encode(&vec![0; 1 << 20])[..]);
    assert_eq!(shard.handle_input(conn, &mut input, now, &mut out), ReadState::Stop);
    assert_eq!(out.close, [(conn, Close::AfterSending)]);
}

/// A packer costs some 300 KiB: a connection that says nothing but heartbeats gives it back, which
/// shows in that the next one is stored as it is.
#[test]
fn an_idle_connection_gives_its_packer_back() {
    const STORED: &[u8] = b"\0\x13\0\xec\xff\0\0\0\x0f\0\0\0\0_heartbeat_\0\0\0\xff\xff";
    let mut node = Node::new(1, Config::default());
    let conn = node.client(0);
    let mut client = Layered::new(conn);
    client.upgrade(&mut node, false, Some(Layer::Deflate(6)));
    let heartbeat = |node: &mut Node, client: &mut Layered| {
        client.send(node, "NOP\n");
        node.wait(Duration::from_secs(30));
        let wire = node.received(conn);
        client.wire.extend_from_slice(&wire);
        assert_eq!(client.response(node), "_heartbeat_");
        wire
    };
    assert_eq!(heartbeat(&mut node, &mut client), STORED);
    // More than a few answers at once are worth a packer, which the next heartbeat goes through.
    client.send(&mut node, pub_command("t", "x").repeat(20));
    (0..20).for_each(|_| client.expect_ok(&mut node));
    assert_ne!(heartbeat(&mut node, &mut client), STORED);
    assert_eq!(heartbeat(&mut node, &mut client), STORED);
    client.send(&mut node, pub_command("t", "x").repeat(20));
    (0..20).for_each(|_| client.expect_ok(&mut node));
}
