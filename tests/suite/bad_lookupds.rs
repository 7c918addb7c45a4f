//! nsqlookupds that fail, each in its own way: the others, and the clients, must not notice.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use std::thread;

use super::client::PATIENCE;
use super::http::get;
use super::life::{find, until};
use super::{Client, options, start_lookupd};
use crate::harness::Server;

/// Something that listens, treats each connection in its own way, and counts them.
struct Bad {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Bad {
    fn start(treat: fn(TcpStream)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        // It ends with the process.
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || treat(socket));
            }
        });
        Self { address, connections }
    }

    fn is_dialled(&self) -> bool {
        self.connections.load(Ordering::SeqCst) > 0
    }
}

/// Reads on until the other side has closed.
fn listen_on(mut socket: TcpStream) {
    let mut dropped = [0; 4096];
    while socket.read(&mut dropped).is_ok_and(|len| len > 0) {}
}

/// Answers whatever comes with this.
fn answer(mut socket: TcpStream, bytes: &[u8]) {
    let mut dropped = [0; 4096];
    while socket.read(&mut dropped).is_ok_and(|len| len > 0) {
        if socket.write_all(bytes).is_err() {
            return;
        }
    }
}

#[test]
fn bad_nsqlookupds_hold_nobody_up() {
    // Nobody listens there any more.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let unreachable = nobody.local_addr().unwrap();
    drop(nobody);
    // The kernel takes connections; nobody ever looks at them.
    let half_open = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = [
        Bad::start(drop),
        Bad::start(listen_on),
        Bad::start(|socket| answer(socket, b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        Bad::start(|socket| answer(socket, b"\x00\x00\x00\x09E_INVALID")),
        Bad::start(|socket| answer(socket, b"\x00\x00\x00\x02OK")),
        Bad::start(|socket| answer(socket, b"\xff\xff\xff\xff")),
        Bad::start(|socket| answer(socket, b"\x7f\xff\xff\xff")),
        Bad::start(|socket| answer(socket, b"\x00\x00\x00\x00")),
        // An answer that never ends.
        Bad::start(|mut socket| while socket.write_all(&[0x7f; 65_536]).is_ok() {}),
    ];
    let good = [start_lookupd(), start_lookupd()];
    let mut options = options(2);
    let addresses = &mut options.config.lookupd_tcp_addresses;
    addresses.push(good[0].tcp_addr().to_string());
    addresses.extend([
        "no-such-host.invalid:4160".into(),
        "nonsense".into(),
        unreachable.to_string(),
    ]);
    addresses.push(half_open.local_addr().unwrap().to_string());
    addresses.extend(bad.iter().map(|bad| bad.address.to_string()));
    addresses.push(good[1].tcp_addr().to_string());
    let nsqd = Server::nsqd(options).unwrap();

    let mut producer = Client::new(nsqd.tcp_addr());
    for round in 0..20 {
        let topic = format!("t{round}");
        producer.publish(&topic, b"x");
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe(&topic, "c#ephemeral", 1);
        let message = consumer.message();
        consumer.finish(&message);
        for lookupd in &good {
            let http = lookupd.http_addr().unwrap();
            assert_eq!(find(http, &topic), nsqd.tcp_addr());
            let lookup = format!("/lookup?topic={topic}");
            until(|| get(http, &lookup).contains("\"channels\":[\"c#ephemeral\"]"));
        }
    }
    // They were not left out: all of this happened beside them.
    until(|| bad.iter().all(Bad::is_dialled));
    let (mut waiting, _) = half_open.accept().unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut magic = [0; 4];
    waiting.read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"  V1");

    nsqd.stop();
    for lookupd in good {
        lookupd.stop();
    }
}
