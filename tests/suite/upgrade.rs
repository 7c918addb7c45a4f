//! TLS, Snappy and Deflate over real sockets, from IDENTIFY to the end of the connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::BytesMut;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sansq_core::client::frame::{self, Frame};
use sansq_core::nsqd;
use sansq_core::transmit::Transmit;
use sansq_core::upgrade::{ClientTls, Decoded, Layer, Scratch, ServerTls, Stack, Tls};
use sansq_runtime::options::NsqdOptions;

use super::client::{Client, PATIENCE, publish, with_body};
use super::{options, start};
use crate::harness::Server;

/// Both sides' settings, made once: a new key takes its time.
pub(super) fn tls() -> &'static (ServerTls, ClientTls) {
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

pub(super) fn start_tls(shards: u16, tls_required: nsqd::TlsRequired) -> Server {
    let options = options(shards);
    let config = nsqd::Config { tls: Some(tls().0.clone()), tls_required, ..options.config };
    Server::nsqd(NsqdOptions { config, ..options }).expect("free ports")
}

/// All that can be negotiated.
pub(super) fn layers() -> Vec<(bool, Option<Layer>)> {
    let packings = [None, Some(Layer::Snappy), Some(Layer::Deflate(6))];
    [false, true].into_iter().flat_map(|tls| packings.map(|packing| (tls, packing))).collect()
}

/// A client of protocol V2 that speaks through layers.
struct Layered {
    socket: TcpStream,
    stack: Stack,
    scratch: Scratch,
    wire: BytesMut,
    plain: BytesMut,
}

impl Layered {
    /// Connects and climbs the ladder.
    fn new(nsqd: &Server, with_tls: bool, packing: Option<Layer>) -> Self {
        let socket = TcpStream::connect(nsqd.tcp_addr()).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self {
            socket,
            stack: Stack::new(),
            scratch: Scratch::default(),
            wire: BytesMut::new(),
            plain: BytesMut::new(),
        };
        let (snappy, deflate) =
            (packing == Some(Layer::Snappy), matches!(packing, Some(Layer::Deflate(_))));
        let json = format!(
            "{{\"feature_negotiation\":true,\"tls_v1\":{with_tls},\"snappy\":{snappy},\"deflate\":{deflate}}}"
        );
        client.send([b"  V2".to_vec(), with_body("IDENTIFY", json.as_bytes())].concat());
        let Frame::Response(answer) = client.frame() else { panic!("an answer is expected") };
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert!(answer.contains(&format!("\"tls_v1\":{with_tls}")), "{answer}");
        if with_tls {
            client.stack.push_tls(Tls::client(&tls().1, "nsqd.example").unwrap());
            client.flush();
            client.expect_ok();
        }
        if let Some(layer) = packing {
            let early = client.plain.split();
            client.stack.push_packing(layer, early);
            client.expect_ok();
        }
        client
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let (mut plain, mut wire) = (Transmit::new(), Transmit::new());
        plain.push(bytes.as_ref());
        self.stack.encode(&mut plain, &mut wire, &mut self.scratch);
        self.write(&mut wire);
    }

    /// Writes what the layers have to say.
    fn flush(&mut self) {
        let mut wire = Transmit::new();
        self.stack.flush(&mut wire);
        self.write(&mut wire);
    }

    fn write(&mut self, wire: &mut Transmit) {
        while !wire.is_empty() {
            let mut part = [&[][..]];
            wire.slices(&mut part);
            let written = self.socket.write(part[0]).unwrap();
            wire.advance(written);
        }
    }

    /// The next frame that is no heartbeat; `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        loop {
            match frame::decode(&mut self.plain, 1 << 24).unwrap() {
                Some(Frame::Response(text)) if text == b"_heartbeat_"[..] => self.send("NOP\n"),
                Some(frame) => return Some(frame),
                None => {}
            }
            let decoded = self.stack.decode(&mut self.wire, &mut self.plain).unwrap();
            self.flush();
            match decoded {
                Decoded::Some | Decoded::Handshaken => {}
                Decoded::End => return None,
                Decoded::All => {
                    let mut bytes = [0; 16 * 1024];
                    let count = self.socket.read(&mut bytes).unwrap();
                    if count == 0 {
                        return None;
                    }
                    self.wire.extend_from_slice(&bytes[..count]);
                }
            }
        }
    }

    fn frame(&mut self) -> Frame {
        self.next().expect("the connection is open")
    }

    fn expect_ok(&mut self) {
        assert_eq!(self.frame(), Frame::Response(b"OK"[..].into()));
    }

    fn expect_error(&mut self, text: &str) {
        assert_eq!(self.frame(), Frame::Error(text.as_bytes().to_vec().into()));
    }

    fn message(&mut self) -> frame::Received {
        match self.frame() {
            Frame::Message(message) => message,
            frame @ (Frame::Response(_) | Frame::Error(_)) => panic!("no message: {frame:?}"),
        }
    }
}

#[test]
fn messages_go_through_every_stack_on_one_shard_and_on_several() {
    for shards in [1, 4] {
        let nsqd = start_tls(shards, nsqd::TlsRequired::No);
        for (n, (with_tls, packing)) in layers().into_iter().enumerate() {
            // Most of the consumers are re-homed, layers and all.
            let topic = format!("t{n}");
            let mut consumer = Layered::new(&nsqd, with_tls, packing);
            consumer.send(format!("SUB {topic} c\nRDY 10\n"));
            consumer.expect_ok();
            let mut producer = Layered::new(&nsqd, with_tls, packing);
            for len in [1, 100, 5000, 70_000, 1_000_000] {
                let body: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
                producer.send(publish(&topic, &body));
                producer.expect_ok();
                let message = consumer.message();
                assert!(message.body == body);
                consumer.send([b"FIN ", &message.id[..], b"\n"].concat());
            }
            consumer.send("BAD\n");
            consumer.expect_error("E_INVALID invalid command BAD");
            assert_eq!(consumer.next(), None);
        }
        nsqd.stop();
    }
}

#[test]
fn a_flood_goes_through_every_stack() {
    const COUNT: usize = 2000;
    let nsqd = start_tls(4, nsqd::TlsRequired::No);
    for (n, (with_tls, packing)) in layers().into_iter().enumerate() {
        let topic = format!("t{n}");
        let mut consumer = Layered::new(&nsqd, with_tls, packing);
        consumer.send(format!("SUB {topic} c\nRDY 2500\n"));
        consumer.expect_ok();
        let mut producer = Layered::new(&nsqd, with_tls, packing);
        let publishing = thread::spawn(move || {
            for _ in 0..COUNT / 100 {
                let body = [b'x'; 1000];
                producer.send(publish(&topic, &body).repeat(100));
                (0..100).for_each(|_| producer.expect_ok());
            }
        });
        for _ in 0..COUNT {
            let message = consumer.message();
            assert_eq!(message.body.len(), 1000);
            consumer.send([b"FIN ", &message.id[..], b"\n"].concat());
        }
        publishing.join().unwrap();
    }
    nsqd.stop();
}

#[test]
fn a_stop_is_told_through_the_layers() {
    let nsqd = start_tls(4, nsqd::TlsRequired::No);
    let mut clients: Vec<_> = layers()
        .into_iter()
        .map(|(with_tls, packing)| Layered::new(&nsqd, with_tls, packing))
        .collect();
    let closing = thread::spawn(move || {
        assert!(clients.iter_mut().all(|client| client.next().is_none()));
    });
    nsqd.stop();
    closing.join().unwrap();
}

#[test]
fn a_failed_handshake_harms_nobody_else() {
    let nsqd = start_tls(2, nsqd::TlsRequired::No);
    let mut bad = Client::new(nsqd.tcp_addr());
    bad.send(with_body("IDENTIFY", br#"{"feature_negotiation":true,"tls_v1":true}"#));
    let _ = bad.any_frame();
    bad.send(publish("t", b"x"));
    let rest = bad.rest();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("E_IDENTIFY_FAILED IDENTIFY failed "), "{text}");
    Layered::new(&nsqd, true, None).send("NOP\n");
    nsqd.stop();
}

#[test]
fn required_tls_keeps_others_out() {
    let nsqd = start_tls(2, nsqd::TlsRequired::Yes);
    let mut plain = Client::new(nsqd.tcp_addr());
    plain.send("NOP\n");
    plain.expect_error("E_INVALID cannot NOP in current state (TLS required)");
    plain.expect_end();
    let mut client = Layered::new(&nsqd, true, Some(Layer::Snappy));
    client.send(publish("t", b"x"));
    client.expect_ok();
    let mut http = TcpStream::connect(nsqd.http_addr().unwrap()).unwrap();
    http.write_all(b"GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    let port = nsqd.https_addr().unwrap().port();
    let body = format!("{{\"message\": \"TLS_REQUIRED\", \"https_port\": {port}}}");
    assert!(answer.ends_with(&body), "{answer}");
    nsqd.stop();
}

/// Much that is packed into little is worked off while others have their turns.
#[test]
fn a_bomb_holds_nobody_up() {
    let nsqd = start(1);
    let mut other = Client::new(nsqd.tcp_addr());
    let mut bomber = Layered::new(&nsqd, false, Some(Layer::Deflate(6)));
    let nops = b"NOP\n".repeat(1 << 20);
    for _ in 0..4 {
        bomber.send(&nops);
        other.publish("t", b"x");
    }
    bomber.send(publish("t", b"the last"));
    bomber.expect_ok();
    nsqd.stop();
}
