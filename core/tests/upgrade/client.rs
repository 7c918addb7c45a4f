//! The client's side of the ladder, against our own server and against one that follows a script
//! (clients.md sections 1.1 to 1.6).

use core::iter;

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use sansq_core::client::connection::{Identity, Negotiated};
use sansq_core::client::frame::Received as Message;
use sansq_core::client::{
    ClientConnection, ClientConnectionOutput, ClientMachine, ConnectionError, ConnectionOptions,
    Consumer, ConsumerActions, ConsumerOptions, Producer, ProducerActions, ProducerOptions, Secret,
    Upgrades,
};
use sansq_core::machine::MachineActions;
use sansq_core::name::{ChannelName, TopicName};
use sansq_core::upgrade::UpgradeError;

const ADDRESS: &str = "nsqd.example:4150";

#[derive(Clone, Debug, Eq, PartialEq)]
enum Told {
    Authenticated(String),
    Opened(bool, Option<Layer>),
    Response(Bytes),
    Error(Bytes),
    Message(Bytes),
}

#[derive(Debug, Default)]
struct Log(Vec<Told>, Vec<Message>);

impl ClientConnectionOutput for Log {
    fn authenticated(&mut self, identity: Identity) {
        self.0.push(Told::Authenticated(identity.identity));
    }
    fn opened(&mut self, negotiated: &Negotiated) {
        let packing = match negotiated {
            Negotiated { snappy: true, .. } => Some(Layer::Snappy),
            Negotiated { deflate: true, .. } => Some(Layer::Deflate(6)),
            _ => None,
        };
        self.0.push(Told::Opened(negotiated.tls, packing));
    }
    fn response(&mut self, text: Bytes) {
        self.0.push(Told::Response(text));
    }
    fn error(&mut self, text: Bytes) {
        self.0.push(Told::Error(text));
    }
    fn message(&mut self, message: Message) {
        self.0.push(Told::Message(message.body.clone()));
        self.1.push(message);
    }
}

/// Whether there is TLS, and what packs.
type Layers = (bool, Option<Layer>);

fn options((with_tls, packing): Layers) -> ConnectionOptions {
    let deflate = match packing {
        Some(Layer::Deflate(level)) => Some(level),
        Some(Layer::Snappy | Layer::Tls) | None => None,
    };
    let upgrades = Upgrades {
        tls: with_tls.then(|| tls().1.clone()),
        snappy: packing == Some(Layer::Snappy),
        deflate,
        ..Upgrades::default()
    };
    ConnectionOptions { hostname: "vm".into(), upgrades, ..ConnectionOptions::default() }
}

fn opened((with_tls, packing): Layers) -> Told {
    let packing = packing.map(|layer| match layer {
        Layer::Deflate(_) => Layer::Deflate(6),
        Layer::Snappy | Layer::Tls => layer,
    });
    Told::Opened(with_tls, packing)
}

fn dialled(options: &ConnectionOptions) -> ClientConnection {
    assert_eq!(options.check(), Ok(()));
    let mut connection = ClientConnection::dial(options, ADDRESS, Now::from_millis(0));
    connection.handle_connected(Now::from_millis(0));
    connection
}

/// Feeds `bytes` in pieces whose lengths `cuts` gives.
fn feed(
    connection: &mut ClientConnection,
    bytes: &[u8],
    cuts: &mut impl Iterator<Item = usize>,
    log: &mut Log,
) -> Result<(), ConnectionError> {
    let (mut bytes, mut input) = (bytes, BytesMut::new());
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(cuts.next().unwrap().min(bytes.len()));
        input.extend_from_slice(piece);
        connection.handle_input(&mut input, Now::from_millis(0), log)?;
        bytes = rest;
    }
    Ok(())
}

/// A client at a node, with everything in between cut into pieces.
struct Dialogue {
    node: Node,
    peer: ClientId,
    connection: ClientConnection,
    log: Log,
    cuts: Box<dyn Iterator<Item = usize>>,
}

impl Dialogue {
    fn new(node: Node, options: &ConnectionOptions, cuts: Vec<usize>) -> Self {
        let mut node = node;
        let peer = node.connect(node.shards().len() - 1);
        let cuts = Box::new(cuts.into_iter().cycle());
        Self { node, peer, connection: dialled(options), log: Log::default(), cuts }
    }

    /// Lets both sides speak until they have nothing to say.
    fn talk(&mut self) -> Result<(), ConnectionError> {
        let mut spare = Vec::new();
        loop {
            assert_eq!(self.connection.wants_transmit(), {
                self.connection.swap_transmit(&mut spare);
                !spare.is_empty()
            });
            self.send(&spare);
            let received = self.node.received(self.peer);
            if spare.is_empty() && received.is_empty() {
                return Ok(());
            }
            feed(&mut self.connection, &received, &mut self.cuts, &mut self.log)?;
        }
    }

    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.cuts.next().unwrap().min(bytes.len()));
            self.node.send(self.peer, piece);
            bytes = rest;
        }
    }

    /// Sends commands as a producer does, and then talks.
    fn command(&mut self, plain: &[u8]) {
        let mut spare = Vec::new();
        self.connection.swap_transmit_with(&mut spare, |spare| spare.extend_from_slice(plain));
        self.send(&spare);
        self.talk().unwrap();
    }

    fn told(&mut self) -> Vec<Told> {
        core::mem::take(&mut self.log.0)
    }
}

fn ok() -> Told {
    Told::Response(Bytes::from("OK"))
}

/// The life of a connection: what is told must not depend on the layers, nor on how bytes are cut.
fn live(shards: u16, layers: Layers, cuts: Vec<usize>, body: &str) {
    let node = Node::new(shards, config());
    let mut pair = Dialogue::new(node, &options(layers), cuts);
    pair.talk().unwrap();
    assert_eq!(pair.told(), [opened(layers)]);

    pair.command(&pub_command("t", body));
    assert_eq!(pair.told(), [ok()]);
    pair.connection.subscribe(&TopicName::new("t").unwrap(), &ChannelName::new("c").unwrap());
    pair.connection.ready(1);
    pair.talk().unwrap();
    assert_eq!(pair.told(), [ok(), Told::Message(Bytes::copy_from_slice(body.as_bytes()))]);
    let shown = stats_of(&mut pair.node, "t");
    assert_eq!(shown.tls.is_some(), layers.0);
    assert_eq!(shown.snappy, layers.1 == Some(Layer::Snappy));
    assert_eq!(shown.deflate, matches!(layers.1, Some(Layer::Deflate(_))));

    let message = pair.log.1.remove(0);
    pair.connection.finish(&message.id);
    pair.command(&[pub_command("t", "x"), pub_command("t", "y")].concat());
    let told = pair.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told.iter().filter(|told| **told == ok()).count(), 2);
    assert!(told.contains(&Told::Message("x".into())), "{told:?}");

    for _ in 0..2 {
        let message = pair.log.1.remove(0);
        pair.connection.finish(&message.id);
        pair.talk().unwrap();
    }
    assert_eq!(pair.told(), [Told::Message("y".into())]);

    // Heartbeats are answered through the layers, so that the server keeps the connection.
    for _ in 0..4 {
        pair.node.wait(Duration::from_secs(30));
        pair.talk().unwrap();
    }
    assert!(!pair.node.is_closed(pair.peer));
    assert_eq!(pair.told(), []);

    let mut last = Vec::new();
    pair.connection.swap_farewell(&mut last);
    let says_farewell = layers.0 || matches!(layers.1, Some(Layer::Deflate(_)));
    assert_eq!(!last.is_empty(), says_farewell);
    pair.send(&last);
    assert_eq!(pair.node.is_closed(pair.peer), says_farewell);
}

#[test]
fn every_stack_on_one_shard_and_on_several() {
    let body = "x".repeat(300_000);
    for layers in layers() {
        for shards in [1, 3] {
            live(shards, layers, vec![usize::MAX], &body);
            live(shards, layers, vec![16 * 1024, 1, 700], &body);
        }
    }
}

/// Byte by byte, both ways.
#[test]
fn every_stack_byte_by_byte() {
    for layers in layers() {
        live(1, layers, vec![1], "a body");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_the_bytes(
        layers in prop::sample::select(layers()),
        cuts in prop::collection::vec(1_usize..400, 1..20),
        body in "[a-z]{1,2000}",
    ) {
        live(1, layers, cuts, &body);
    }
}

#[test]
fn identify_says_what_is_asked_for() {
    for (layers, tls, snappy, deflate, level) in [
        ((false, None), false, false, false, 6),
        ((true, None), true, false, false, 6),
        ((false, Some(Layer::Snappy)), false, true, false, 6),
        ((false, Some(Layer::Deflate(1))), false, false, true, 1),
        ((true, Some(Layer::Snappy)), true, true, false, 6),
        ((true, Some(Layer::Deflate(9))), true, false, true, 9),
    ] {
        let mut options = options(layers);
        options.user_agent = "go-nsq/1.1.0".into();
        let mut sent = Vec::new();
        dialled(&options).swap_transmit(&mut sent);
        let body = format!(
            concat!(
                r#"{{"client_id":"vm","deflate":{},"deflate_level":{},"feature_negotiation":true,"#,
                r#""heartbeat_interval":30000,"hostname":"vm","long_id":"vm","msg_timeout":0,"#,
                r#""output_buffer_size":16384,"output_buffer_timeout":250,"sample_rate":0,"#,
                r#""short_id":"vm","snappy":{},"tls_v1":{},"topology_region":"","#,
                r#""topology_zone":"","user_agent":"go-nsq/1.1.0"}}"#
            ),
            deflate, level, snappy, tls
        );
        assert_eq!(sent, [b"  V2", &command_with(&body)[..]].concat(), "{layers:?}");
    }
}

#[test]
fn what_cannot_be_asked_for() {
    for (snappy, deflate, name) in [
        (true, Some(6), "snappy"),
        (false, Some(0), "deflate_level"),
        (false, Some(10), "deflate_level"),
    ] {
        let upgrades = Upgrades { snappy, deflate, ..Upgrades::default() };
        let options = ConnectionOptions { upgrades, ..ConnectionOptions::default() };
        assert_eq!(options.check().map_err(|error| error.name), Err(name));
    }
}

/// No silent downgrade (weakness P8), unless the program wants it.
#[test]
fn a_server_that_does_not_grant_it() {
    for (config, layers, name) in [
        (Config::default(), (true, Some(Layer::Snappy)), "tls_v1"),
        (Config { snappy: false, ..Config::default() }, (false, Some(Layer::Snappy)), "snappy"),
        (
            Config { deflate: false, ..Config::default() },
            (false, Some(Layer::Deflate(6))),
            "deflate",
        ),
    ] {
        let mut pair =
            Dialogue::new(Node::new(1, config.clone()), &options(layers), vec![usize::MAX]);
        let error = pair.talk().unwrap_err();
        assert_eq!(error, ConnectionError::UpgradeRefused(name));
        assert!(error.is_refusal());
        assert_eq!(pair.told(), []);
        assert!(!pair.connection.wants_transmit());

        let mut options = options(layers);
        options.upgrades.required = false;
        let mut pair = Dialogue::new(Node::new(1, config), &options, vec![usize::MAX]);
        pair.talk().unwrap();
        let packing = layers.1.filter(|_| name == "tls_v1");
        assert_eq!(pair.told(), [opened((false, packing))]);
        pair.command(&pub_command("t", "x"));
        assert_eq!(pair.told(), [ok()]);
    }
    // One that does not negotiate grants nothing.
    let answer = frame_bytes(0, b"OK");
    for layers in layers().split_off(1) {
        let mut connection = dialled(&options(layers));
        let result = feed(&mut connection, &answer, &mut iter::repeat(1), &mut Log::default());
        assert!(matches!(result, Err(ConnectionError::UpgradeRefused(_))), "{result:?}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_or_another_s() {
    let strangers = rcgen::generate_simple_self_signed(vec!["nsqd.example".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(strangers.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let distrustful = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let distrustful = ClientTls::new(Arc::new(distrustful));
    for (tls, name, what) in [
        (&tls().1, Some("other.example"), "tls: invalid peer certificate"),
        (&tls().1, Some("127.0.0.1"), "tls: invalid peer certificate"),
        (&tls().1, Some("no name"), "tls: no certificate can be for the name \"no name\""),
        (&distrustful, None, "tls: invalid peer certificate"),
    ] {
        let mut options = options((true, None));
        options.upgrades.tls = Some(tls.clone());
        options.upgrades.tls_server_name = name.map(Into::into);
        options.auth_secret = Some(Secret::new("hunter2"));
        let mut pair = Dialogue::new(Node::new(1, config()), &options, vec![100]);
        let error = pair.talk().unwrap_err();
        let ConnectionError::Upgrade(cause @ UpgradeError::Tls(_)) = &error else {
            panic!("{error:?}")
        };
        assert!(cause.to_string().starts_with(what), "{cause}");
        assert!(error.is_refusal() && error.to_string().starts_with("failed to upgrade - tls: "));
        assert!(pair.told().is_empty() && !pair.connection.is_open());
        // The server hears why, and nothing else.
        let mut last = Vec::new();
        pair.connection.swap_farewell(&mut last);
        if name == Some("no name") {
            assert_eq!(last, b"");
            continue;
        }
        pair.send(&last);
        assert!(pair.node.is_closed(pair.peer));
        let refusals = pair.node.events.iter().filter_map(|event| {
            if let Event::ClientRefused(_, error) = event { Some(error.to_string()) } else { None }
        });
        let refusals: Vec<_> = refusals.collect();
        assert_eq!(refusals.len(), 1);
        assert!(refusals[0].contains("tls: received fatal alert: "), "{refusals:?}");
    }
}

/// A server that does as the test says.
struct Script {
    stack: Stack,
    scratch: Scratch,
    wire: BytesMut,
    plain: BytesMut,
}

fn frame_bytes(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 4).to_be_bytes()[..], &[0, 0, 0, kind], payload].concat()
}

impl Script {
    fn new() -> Self {
        let (wire, plain) = (BytesMut::new(), BytesMut::new());
        Self { stack: Stack::new(), scratch: Scratch::default(), wire, plain }
    }

    fn encode(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Transmit::new();
        self.stack.flush(&mut wire);
        if !self.stack.is_handshaking() {
            self.stack.encode(&mut Transmit::from(plain.to_vec()), &mut wire, &mut self.scratch);
        }
        wire.into_vec()
    }

    fn encode_frame(&mut self, text: &str) -> Vec<u8> {
        self.encode(&frame_bytes(0, text.as_bytes()))
    }

    /// What the client has sent, without layers.
    fn take(&mut self, connection: &mut ClientConnection) -> Vec<u8> {
        let mut spare = Vec::new();
        connection.swap_transmit(&mut spare);
        self.wire.extend_from_slice(&spare);
        while self.stack.decode(&mut self.wire, &mut self.plain).unwrap() != Decoded::All {}
        self.plain.split().to_vec()
    }

    /// Both sides of a handshake.
    fn shake_hands(&mut self, connection: &mut ClientConnection, log: &mut Log) {
        self.stack.push_tls(Tls::server(&tls().0).unwrap());
        while self.stack.is_handshaking() {
            assert_eq!(self.take(connection), b"");
            let said = self.encode(b"");
            feed(connection, &said, &mut iter::repeat(50), log).unwrap();
        }
    }
}

/// Heartbeats are not answered before the end of the ladder, and AUTH goes through all the layers.
#[test]
fn heartbeats_and_auth_in_the_ladder() {
    for (with_tls, packing) in layers() {
        for is_split in [false, true] {
            let mut options = options((with_tls, packing));
            options.auth_secret = Some(Secret::new("hunter2"));
            let mut connection = dialled(&options);
            let (mut script, mut log) = (Script::new(), Log::default());
            let cut = if is_split { 1 } else { usize::MAX };
            let mut cuts = iter::repeat(cut);
            assert!(script.take(&mut connection).starts_with(b"  V2IDENTIFY\n"));
            let is_layered = with_tls || packing.is_some();
            let held: &[u8] = if is_layered { b"" } else { b"NOP\n" };
            let heartbeat = frame_bytes(0, b"_heartbeat_");
            feed(&mut connection, &heartbeat, &mut cuts, &mut log).unwrap();
            assert_eq!(script.take(&mut connection), held, "{with_tls} {packing:?}");

            let json = format!(
                r#"{{"auth_required":true,"tls_v1":{with_tls},"snappy":{},"deflate":{}}}"#,
                packing == Some(Layer::Snappy),
                matches!(packing, Some(Layer::Deflate(_)))
            );
            feed(&mut connection, &frame_bytes(0, json.as_bytes()), &mut cuts, &mut log).unwrap();
            if with_tls {
                script.shake_hands(&mut connection, &mut log);
                let beat = script.encode_frame("_heartbeat_");
                feed(&mut connection, &beat, &mut cuts, &mut log).unwrap();
                assert_eq!(script.take(&mut connection), b"");
                // The acknowledgement, and the next layer's at once behind it.
                let mut acknowledged = script.encode_frame("OK");
                if let Some(layer) = packing {
                    script.stack.push_packing(layer, BytesMut::new());
                    acknowledged.extend(script.encode_frame("OK"));
                }
                feed(&mut connection, &acknowledged, &mut cuts, &mut log).unwrap();
            } else if let Some(layer) = packing {
                script.stack.push_packing(layer, BytesMut::new());
                let beat = script.encode_frame("_heartbeat_");
                feed(&mut connection, &beat, &mut cuts, &mut log).unwrap();
                assert_eq!(script.take(&mut connection), b"");
                let acknowledged = script.encode_frame("OK");
                feed(&mut connection, &acknowledged, &mut cuts, &mut log).unwrap();
            }
            let nop: &[u8] = if is_layered { b"NOP\n" } else { b"" };
            let expected = [b"AUTH\n\0\0\0\x07hunter2", nop].concat();
            assert_eq!(script.take(&mut connection), expected);
            assert_eq!(log.0, []);
            let accepted = script.encode_frame(r#"{"identity":"me"}"#);
            feed(&mut connection, &accepted, &mut cuts, &mut log).unwrap();
            assert_eq!(log.0, [Told::Authenticated("me".into()), opened((with_tls, packing))]);
        }
    }
}

/// A server that answers before it is asked does not get the question in the wrong layer.
#[test]
fn an_answer_before_the_question() {
    for (json, layers) in
        [(r#"{"tls_v1":true}"#, (true, None)), (r#"{"snappy":true}"#, (false, Some(Layer::Snappy)))]
    {
        let mut connection = dialled(&options(layers));
        let mut log = Log::default();
        feed(&mut connection, &frame_bytes(0, json.as_bytes()), &mut iter::repeat(9), &mut log)
            .unwrap();
        let mut sent = Vec::new();
        connection.swap_transmit(&mut sent);
        assert!(sent.starts_with(b"  V2IDENTIFY\n"), "{layers:?}");
        let body = options(layers).identify_body();
        let hello = &sent[17 + body.len()..];
        // A record of the handshake, or nothing.
        assert_eq!(hello.first().copied(), layers.0.then_some(22));
    }
}

#[test]
fn what_is_no_acknowledgement() {
    for (kind, text, expected) in [
        (0, "NO", ConnectionError::UpgradeAnswer("Snappy")),
        (1, "E_X no", ConnectionError::IdentifyRefused("E_X no".into())),
        (2, "0123456789012345678901234567", ConnectionError::UnexpectedMessage),
    ] {
        let mut connection = dialled(&options((false, Some(Layer::Snappy))));
        let (mut script, mut log) = (Script::new(), Log::default());
        let json = frame_bytes(0, br#"{"snappy":true}"#);
        script.stack.push_packing(Layer::Snappy, BytesMut::new());
        let bytes = [json, script.encode(&frame_bytes(kind, text.as_bytes()))].concat();
        let result = feed(&mut connection, &bytes, &mut iter::repeat(usize::MAX), &mut log);
        assert_eq!(result, Err(expected));
        assert_eq!(log.0, []);
    }
    let text = ConnectionError::UpgradeAnswer("TLS").to_string();
    assert_eq!(text, "invalid response from TLS upgrade");
}

/// Nothing but noise where a layer should be, before and behind the end of the ladder.
#[test]
fn broken_layers() {
    for (with_tls, packing) in layers().split_off(1) {
        let mut connection = dialled(&options((with_tls, packing)));
        let json = format!(
            r#"{{"tls_v1":{with_tls},"snappy":{},"deflate":{}}}"#,
            packing == Some(Layer::Snappy),
            matches!(packing, Some(Layer::Deflate(_)))
        );
        let bytes = [frame_bytes(0, json.as_bytes()), vec![0xff; 100]].concat();
        let mut log = Log::default();
        let result = feed(&mut connection, &bytes, &mut iter::repeat(usize::MAX), &mut log);
        assert!(matches!(result, Err(ConnectionError::Upgrade(_))), "{result:?}");
        assert_eq!(log.0, []);

        let node = Node::new(1, config());
        let mut pair = Dialogue::new(node, &options((with_tls, packing)), vec![usize::MAX]);
        pair.talk().unwrap();
        let result = feed(&mut pair.connection, &[0xff; 100], &mut iter::repeat(7), &mut pair.log);
        let Err(error @ ConnectionError::Layer(_)) = result else { panic!("{result:?}") };
        assert!(!error.is_refusal());
    }
}

/// The ladder has no more time than IDENTIFY and AUTH without it.
#[test]
fn a_server_that_stops_in_the_ladder() {
    let mut connection = dialled(&options((true, None)));
    let mut log = Log::default();
    let json = frame_bytes(0, br#"{"tls_v1":true}"#);
    feed(&mut connection, &json, &mut iter::repeat(4), &mut log).unwrap();
    let at = Now::from_millis(30_000);
    assert_eq!(connection.poll_timeout(), Some(at.instant));
    assert_eq!(connection.handle_timeout(at), Err(ConnectionError::HandshakeTimeout));
}

/// Little that unpacks to much: heartbeats are answered once, and a frame over the limit ends it.
#[test]
fn bombs() {
    for layer in [Layer::Deflate(9), Layer::Snappy] {
        let mut pair = Dialogue::new(
            Node::new(1, Config::default()),
            &options((false, Some(layer))),
            vec![usize::MAX],
        );
        pair.talk().unwrap();
        let mut script = Script::new();
        script.stack.push_packing(layer, BytesMut::new());
        // The stream goes on where the server's OK ended; both formats allow a new start there.
        let beats = script.encode(&frame_bytes(0, b"_heartbeat_").repeat(1 << 18));
        assert!(beats.len() < 512 * 1024, "{}", beats.len());
        let mut cuts = iter::repeat(usize::MAX);
        feed(&mut pair.connection, &beats, &mut cuts, &mut pair.log).unwrap();
        let mut sent = Vec::new();
        pair.connection.swap_transmit(&mut sent);
        let mut server = Script::new();
        server.stack.push_packing(layer, BytesMut::new());
        server.wire.extend_from_slice(&sent);
        while server.stack.decode(&mut server.wire, &mut server.plain).unwrap() != Decoded::All {}
        assert_eq!(&server.plain[..], b"NOP\n");

        let huge = script.encode(&vec![0x01; 32 << 20]);
        let result = feed(&mut pair.connection, &huge, &mut cuts, &mut pair.log);
        assert!(matches!(result, Err(ConnectionError::Frame(_))), "{result:?}");
    }
}

/// A producer publishes through every stack, and knows about a bad certificate at once.
#[test]
fn a_producer_through_every_stack() {
    for layers in layers() {
        let mut node = Node::new(1, config());
        let (now, mut out) = (Now::from_millis(0), ProducerActions::default());
        let connection = options(layers);
        let producer_options = ProducerOptions { connection, ..ProducerOptions::default() };
        let mut producer = Producer::new(ADDRESS, producer_options, 7).unwrap();
        let topic = TopicName::new("t").unwrap();
        let count = 300;
        for n in 0..count {
            // Together more than goes out at once.
            let body = Bytes::from(vec![n as u8; 10_000]);
            producer.publish(&topic, body, now, &mut out).unwrap();
        }
        let dial = out.net.dial.remove(0).id;
        let peer = node.connect(0);
        producer.handle_connected(dial, now, &mut out);
        let (mut spare, mut input) = (Vec::new(), BytesMut::new());
        loop {
            producer.swap_transmit(now, &mut spare);
            node.send(peer, &spare);
            input.extend_from_slice(&node.received(peer));
            if spare.is_empty() && input.is_empty() {
                break;
            }
            producer.handle_input(dial, &mut input, now, &mut out);
        }
        assert_eq!(out.completed.len(), count, "{layers:?}: {:?}", out.events);
        assert!(out.completed.iter().all(|(_, result)| result.is_ok()));
        out.clear();
        producer.close(now, &mut out);
        assert_eq!(out.net.close, [dial]);
        let farewell = out.net.farewells.pop().map(|(id, bytes)| {
            assert_eq!(id, dial);
            node.send(peer, &bytes);
        });
        assert_eq!(farewell.is_some(), layers.0 || matches!(layers.1, Some(Layer::Deflate(_))));
        assert_eq!(node.is_closed(peer), farewell.is_some());
        let failures = node.events.iter().filter(|event| matches!(event, Event::ClientFailed(..)));
        assert_eq!(failures.count(), 0);
    }
}

/// A consumer through every stack: what it answers last and that it ends get to the server.
#[test]
fn a_consumer_through_every_stack() {
    for layers in layers() {
        let mut node = Node::new(1, config());
        let publisher = node.client(0);
        let (now, mut out) = (Now::from_millis(0), ConsumerActions::default());
        let consumer_options =
            ConsumerOptions { connection: options(layers), ..ConsumerOptions::default() };
        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let mut consumer = Consumer::new(topic, channel, consumer_options, 7).unwrap();
        consumer.add_nsqd(ADDRESS, now, &mut out);
        let dial = out.net.dial.remove(0).id;
        let peer = node.connect(0);
        consumer.handle_connected(dial, now, &mut out);
        let talk = |node: &mut Node, consumer: &mut Consumer, out: &mut ConsumerActions| {
            let (mut spare, mut input) = (Vec::new(), BytesMut::new());
            loop {
                consumer.swap_transmit(dial, now, &mut spare);
                node.send(peer, &spare);
                input.extend_from_slice(&node.received(peer));
                if spare.is_empty() && input.is_empty() {
                    break;
                }
                consumer.handle_input(dial, &mut input, now, out);
            }
        };
        talk(&mut node, &mut consumer, &mut out);
        node.publish(publisher, "t", "one");
        talk(&mut node, &mut consumer, &mut out);
        let first = out.messages.remove(0);
        assert_eq!(first.message.body, "one");
        consumer.stop(Duration::from_secs(5), now, &mut out);
        talk(&mut node, &mut consumer, &mut out);
        consumer.finish(first.key, now, &mut out).unwrap();
        talk(&mut node, &mut consumer, &mut out);
        // Everything is written, as the call that gave nothing said.
        consumer.handle_timeout(now, &mut out);
        assert!(consumer.is_stopped(), "{layers:?}: {:?}", out.events);
        let shown = stats_of(&mut node, "t");
        assert_eq!((shown.message_count, shown.finish_count), (1, 1), "{layers:?}");
        assert_eq!(out.net.close, [dial]);
        let farewell = out.net.farewells.pop().map(|(_, bytes)| node.send(peer, &bytes));
        assert_eq!(farewell.is_some(), layers.0 || matches!(layers.1, Some(Layer::Deflate(_))));
        assert_eq!(node.is_closed(peer), farewell.is_some());
        let failures = node.events.iter().filter(|event| matches!(event, Event::ClientFailed(..)));
        assert_eq!(failures.count(), 0);
    }
}
