//! Requests of an nsqd to auth servers and nsqlookupds, and its API over TLS.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use sansq_core::nsqd::http::OptionValue;
use sansq_core::nsqd::{Config, TlsRequired};
use sansq_core::upgrade::{ClientTls, ServerTls};
use sansq_runtime::options::NsqdOptions;

use super::client::{Frame, PATIENCE, publish, with_body};
use super::http::{exchange, get};
use super::{Client, options};
use crate::harness::Server;

const GOOD: &str = r#"{"ttl":3600,"identity":"i","identity_url":"u","authorizations":[{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}]}"#;
const SHORT: &str =
    r#"{"ttl":1,"authorizations":[{"topic":".*","channels":[".*"],"permissions":["publish"]}]}"#;

/// A server that answers what it is told to, connection by connection. It never stops by itself.
struct Authority {
    address: SocketAddr,
    /// The next answers; without one a connection waits.
    answers: Sender<Vec<u8>>,
    /// The requests' heads.
    asked: Receiver<String>,
}

impl Authority {
    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ((answers, next), (ask, asked)) = (channel::<Vec<u8>>(), channel());
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let Some(()) = (match &tls {
                    None => answer(socket, &next, &ask),
                    Some(tls) => {
                        let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                        answer(StreamOwned::new(connection, socket), &next, &ask)
                    }
                }) else {
                    return;
                };
            }
        });
        Self { address, answers, asked }
    }

    fn will_say(&self, status: &str, body: &str) {
        let len = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\n\r\n{body}");
        self.answers.send(answer.into_bytes()).unwrap();
    }

    fn asked(&self) -> String {
        self.asked.recv_timeout(PATIENCE).unwrap()
    }
}

/// Reads one request and answers it; `None` when the test is over.
fn answer(
    mut socket: impl Read + Write,
    next: &Receiver<Vec<u8>>,
    ask: &Sender<String>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read_exact(&mut byte).is_err() {
            return Some(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    socket.read_exact(&mut body).ok()?;
    ask.send(head + &String::from_utf8(body).unwrap()).ok()?;
    let answer = next.recv().ok()?;
    // Who asked may have lost its patience.
    let _ = socket.write_all(&answer).and_then(|()| socket.flush());
    Some(())
}

/// Both sides' settings, made once: a new key takes its time.
fn tls() -> &'static (ServerTls, ClientTls) {
    static TLS: OnceLock<(ServerTls, ClientTls)> = OnceLock::new();
    TLS.get_or_init(|| {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
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

fn start(shards: u16, addresses: Vec<String>) -> Server {
    start_with(shards, |config| config.auth_http_addresses = addresses)
}

fn start_with(shards: u16, set: impl FnOnce(&mut Config)) -> Server {
    let mut options = options(shards);
    options.client_tls = Some(tls().1.clone());
    set(&mut options.config);
    Server::nsqd(options).unwrap()
}

fn auth(client: &mut Client) {
    client.send(with_body("AUTH", b"s"));
}

fn expect_granted(client: &mut Client) {
    let Frame::Response(json) = client.frame() else { panic!("a response is expected") };
    assert!(String::from_utf8(json).unwrap().ends_with("\"permission_count\":1}"));
}

#[test]
fn a_client_is_authorized_and_nobody_waits_for_a_slow_server() {
    for shards in [1, 4] {
        let authority = Authority::start(None);
        let nsqd = start(shards, vec![authority.address.to_string()]);
        let mut client = Client::new(nsqd.tcp_addr());
        auth(&mut client);
        client.send(publish("t", b"x"));
        client.send("SUB t c\nRDY 1\n");
        let head = authority.asked();
        let target = "GET /auth?common_name=&remote_ip=127.0.0.1&secret=s&tls=false HTTP/1.1\r\n";
        assert!(head.starts_with(target), "{head}");
        assert!(head.contains(&format!("\r\nHost: {}\r\n", authority.address)), "{head}");
        assert!(head.contains("\r\nAccept: application/vnd.nsq; version=1.0\r\n"), "{head}");
        // While the server thinks, others are served by every shard.
        for _ in 0..4 {
            let mut other = Client::new(nsqd.tcp_addr());
            other.send(publish("t", b"x"));
            other.expect_error("E_AUTH_FIRST AUTH required before PUB");
        }
        assert!(get(nsqd.http_addr().unwrap(), "/ping").ends_with("OK"));
        authority.will_say("200 OK", GOOD);
        expect_granted(&mut client);
        client.expect_ok();
        client.expect_ok();
        assert_eq!(client.message().body, b"x");
        let stats = get(nsqd.http_addr().unwrap(), "/stats?format=json");
        assert!(stats.contains("\"authed\":true,\"auth_identity\":\"i\""), "{stats}");
        nsqd.stop();
    }
}

#[test]
fn servers_that_do_not_answer_well() {
    let failed = "E_AUTH_FAILED AUTH failed";
    let big = format!("HTTP/1.1 200 OK\r\n\r\n{GOOD}{}", " ".repeat(1024 * 1024));
    let garbage: [(&[u8], &str); 6] = [
        (b"this is not HTTP at all\r\n\r\n", failed),
        (b"", failed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", failed),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", failed),
        (b"HTTP/1.1 302 Elsewhere\r\nLocation: /auth\r\nContent-Length: 0\r\n\r\n", failed),
        (big.as_bytes(), failed),
    ];
    let authority = Authority::start(None);
    let nsqd = start(2, vec![authority.address.to_string()]);
    for (answer, text) in garbage {
        authority.answers.send(answer.to_vec()).unwrap();
        let mut client = Client::new(nsqd.tcp_addr());
        auth(&mut client);
        client.expect_error(text);
        client.expect_end();
    }
    // An answer in chunks is as good as any.
    let chunks = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{GOOD}\r\n0\r\n\r\n",
        GOOD.len()
    );
    authority.answers.send(chunks.into_bytes()).unwrap();
    let mut client = Client::new(nsqd.tcp_addr());
    auth(&mut client);
    expect_granted(&mut client);
    nsqd.stop();
}

#[test]
fn a_dead_and_a_silent_server_are_passed_over() {
    let authority = Authority::start(None);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let others = [dead.to_string(), silent.local_addr().unwrap().to_string()];
    let nsqd = start_with(2, |config| {
        config.auth_http_addresses = others.to_vec();
        config.auth_http_addresses.push(authority.address.to_string());
        config.http_client_request_timeout = Duration::from_secs(1);
    });
    for _ in 0..4 {
        authority.will_say("200 OK", GOOD);
        let mut client = Client::new(nsqd.tcp_addr());
        auth(&mut client);
        expect_granted(&mut client);
    }
    nsqd.stop();
    // Alone, they are no servers at all.
    let nsqd = start_with(1, |config| {
        config.auth_http_addresses = others.to_vec();
        config.http_client_request_timeout = Duration::from_millis(200);
    });
    let mut client = Client::new(nsqd.tcp_addr());
    auth(&mut client);
    client.expect_error("E_AUTH_FAILED AUTH failed");
    client.expect_end();
    nsqd.stop();
}

#[test]
fn a_server_may_want_to_be_asked_over_tls() {
    let (plain, safe) =
        (Authority::start(None), Authority::start(Some(Arc::clone(tls().0.config()))));
    let nsqd = start(2, vec![plain.address.to_string()]);
    plain.will_say("403 Forbidden", &format!("{{\"https_port\":{}}}", safe.address.port()));
    safe.will_say("200 OK", GOOD);
    let mut client = Client::new(nsqd.tcp_addr());
    auth(&mut client);
    expect_granted(&mut client);
    let (first, second) = (plain.asked(), safe.asked());
    assert_eq!(first.lines().next(), second.lines().next());
    nsqd.stop();
    // One that nobody vouches for is not believed.
    let mut options = options(1);
    options.config.auth_http_addresses = vec![format!("https://{}/auth", safe.address)];
    let nsqd = Server::nsqd(options).unwrap();
    let mut client = Client::new(nsqd.tcp_addr());
    auth(&mut client);
    client.expect_error("E_AUTH_FAILED AUTH failed");
    nsqd.stop();
}

#[test]
fn a_grant_is_renewed_and_may_be_revoked() {
    let authority = Authority::start(None);
    let nsqd = start(2, vec![authority.address.to_string()]);
    authority.will_say("200 OK", SHORT);
    let mut client = Client::new(nsqd.tcp_addr());
    auth(&mut client);
    expect_granted(&mut client);
    authority.asked();
    // Publishes until the second is over and the server is asked again.
    authority.will_say("200 OK", SHORT);
    while authority.asked.try_recv().is_err() {
        client.publish("t#ephemeral", b"x");
    }
    authority.will_say("200 OK", r#"{"ttl":1,"authorizations":[]}"#);
    let refused = loop {
        client.send(publish("t#ephemeral", b"x"));
        match client.frame() {
            Frame::Response(_) => {}
            frame @ (Frame::Error(_) | Frame::Message(_)) => break frame,
        }
    };
    let text = "E_UNAUTHORIZED AUTH failed for PUB on \"t#ephemeral\" \"\"";
    assert_eq!(refused, Frame::Error(text.to_owned()));
    client.expect_end();
    nsqd.stop();
}

#[test]
fn a_new_topic_has_the_channels_that_an_nsqlookupd_knows() {
    let http = Authority::start(None);
    for shards in [1, 4] {
        let lookupd = TcpListener::bind("127.0.0.1:0").unwrap();
        let nsqd = start_with(shards, |config| {
            config.lookupd_tcp_addresses = vec![lookupd.local_addr().unwrap().to_string()];
        });
        // The first messages come before the nsqlookupd has said where it is asked.
        let mut client = Client::new(nsqd.tcp_addr());
        client.publish("t", b"1");
        client.publish("t", b"2");
        let (mut socket, _) = lookupd.accept().unwrap();
        let mut hello = [0; 13];
        socket.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"  V1IDENTIFY\n");
        let port = http.address.port();
        let info = format!("{{\"broadcast_address\":\"127.0.0.1\",\"http_port\":{port}}}");
        socket.write_all(&(info.len() as u32).to_be_bytes()).unwrap();
        socket.write_all(info.as_bytes()).unwrap();
        assert!(http.asked().starts_with("GET /channels?topic=t HTTP/1.1\r\n"));
        http.will_say("200 OK", r#"{"channels":["a","b#ephemeral","c"]}"#);
        for channel in ["a", "c"] {
            let mut consumer = Client::new(nsqd.tcp_addr());
            consumer.subscribe("t", channel, 2);
            let (first, second) = (consumer.message(), consumer.message());
            assert_eq!((&first.body[..], &second.body[..]), (&b"1"[..], &b"2"[..]));
        }
        let stats = get(nsqd.http_addr().unwrap(), "/stats?format=json");
        assert!(!stats.contains("ephemeral"), "{stats}");
        nsqd.stop();
    }
}

/// Sends `request` over TLS and returns the whole answer.
fn exchange_tls(address: SocketAddr, request: &str) -> String {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(tls().1.config()), name).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end comes with close_notify, else this fails.
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn get_tls(address: SocketAddr, target: &str) -> String {
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    exchange_tls(address, &format!("GET {target} {head}"))
}

fn start_https(tls_required: TlsRequired) -> Server {
    let mut options = options(2);
    let lookupds = ("nsqlookupd_tcp_addresses".to_owned(), OptionValue::Texts(None));
    options.shown = [lookupds].into_iter().collect();
    let config = Config { tls: Some(tls().0.clone()), tls_required, ..options.config };
    Server::nsqd(NsqdOptions { config, ..options }).unwrap()
}

#[test]
fn the_api_is_there_over_tls() {
    for required in [TlsRequired::No, TlsRequired::TcpHttps, TlsRequired::Yes] {
        let nsqd = start_https(required);
        let (http, https) = (nsqd.http_addr().unwrap(), nsqd.https_addr().unwrap());
        assert!(get_tls(https, "/ping").ends_with("\r\n\r\nOK"));
        let post = "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\
                    Connection: close\r\n\r\nx";
        assert!(exchange_tls(https, post).ends_with("\r\n\r\nOK"));
        let put = "PUT /config/nsqlookupd_tcp_addresses HTTP/1.1\r\nHost: x\r\n\
                   Content-Length: 2\r\nConnection: close\r\n\r\n[]";
        assert!(exchange_tls(https, put).ends_with("\r\n\r\n[]"));
        // Both listeners show the same.
        let shown = get_tls(https, "/config/nsqlookupd_tcp_addresses");
        assert!(shown.ends_with("\r\n\r\n[]"), "{shown}");
        let many = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20)
            + "GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange_tls(https, &many).matches("HTTP/1.1 200 OK").count(), 21);
        let plain = get(http, "/ping");
        let shown = get(http, "/config/nsqlookupd_tcp_addresses");
        assert_eq!(shown.ends_with("\r\n\r\n[]"), required != TlsRequired::Yes, "{shown}");
        if required == TlsRequired::Yes {
            let port = https.port();
            let body = format!("{{\"message\": \"TLS_REQUIRED\", \"https_port\": {port}}}");
            assert!(plain.starts_with("HTTP/1.1 403 ") && plain.ends_with(&body), "{plain}");
        } else {
            assert!(plain.ends_with("OK"), "{plain}");
        }
        nsqd.stop();
        assert!(TcpStream::connect(https).is_err());
    }
    // Without a certificate there is none.
    let nsqd = Server::nsqd(options(1)).unwrap();
    assert_eq!(nsqd.https_addr(), None);
    nsqd.stop();
}

#[test]
fn plain_http_and_garbage_at_the_https_port() {
    let nsqd = start_https(TlsRequired::No);
    let https = nsqd.https_addr().unwrap();
    let answer = exchange(https, "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    let text = "Client sent an HTTP request to an HTTPS server.\n";
    assert_eq!(answer, format!("HTTP/1.0 400 Bad Request\r\n\r\n{text}"));
    let mut garbage = TcpStream::connect(https).unwrap();
    garbage.set_read_timeout(Some(PATIENCE)).unwrap();
    garbage.write_all(&[0; 64]).unwrap();
    // An alert at most, and the end.
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest);
    assert!(rest.len() <= 7, "{rest:?}");
    assert!(get_tls(https, "/ping").ends_with("OK"));
    nsqd.stop();
}
