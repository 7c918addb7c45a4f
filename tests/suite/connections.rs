//! How connections, and the server itself, begin and end.

use std::net::TcpStream;
use std::thread;

use super::client::{Frame, publish};
use super::{Client, options, start};
use crate::harness::Server;

#[test]
fn a_reader_that_takes_nothing_holds_nobody_up() {
    const COUNT: usize = 400;
    let nsqd = start(1);
    let mut slow = Client::new(nsqd.tcp_addr());
    slow.subscribe("slow", "c", 2500);
    let mut producer = Client::new(nsqd.tcp_addr());
    let body = vec![b'x'; 64 * 1024];
    // 25 MiB are more than the kernel keeps for a reader.
    for _ in 0..COUNT {
        producer.publish("slow", &body);
    }
    let mut other = Client::new(nsqd.tcp_addr());
    other.subscribe("quick", "c", 1);
    for n in 0..100_u32 {
        producer.publish("quick", &n.to_be_bytes());
        let message = other.message();
        assert_eq!(message.body, n.to_be_bytes());
        other.finish(&message);
    }
    for _ in 0..COUNT {
        assert!(slow.message().body == body);
    }
    nsqd.stop();
}

#[test]
fn a_half_closed_client_gets_all_its_answers() {
    const COUNT: usize = 2000;
    let nsqd = start(4);
    let mut client = Client::new(nsqd.tcp_addr());
    let mut commands = Vec::new();
    for n in 0..COUNT {
        commands.extend(publish(&format!("t{}", n % 16), b"x"));
    }
    client.send(commands);
    client.half_close();
    for _ in 0..COUNT {
        client.expect_ok();
    }
    client.expect_end();
    nsqd.stop();
}

#[test]
fn a_fatal_error_is_seen_before_the_end() {
    let nsqd = start(2);
    let mut client = Client::new(nsqd.tcp_addr());
    let mut commands = publish("t", b"x");
    commands.extend_from_slice(b"NONSENSE\n");
    for _ in 0..1000 {
        commands.extend(publish("t", b"too late"));
    }
    client.send(commands);
    client.expect_ok();
    client.expect_error("E_INVALID invalid command NONSENSE");
    client.expect_end();
    let mut client = Client::silent(nsqd.tcp_addr());
    client.send("  V1");
    client.expect_error("E_BAD_PROTOCOL");
    client.expect_end();
    nsqd.stop();
}

#[test]
fn heartbeats_come() {
    let nsqd = start(1);
    let mut quiet = Client::new(nsqd.tcp_addr());
    quiet.identify(r#"{"heartbeat_interval":1000}"#);
    for _ in 0..2 {
        assert_eq!(quiet.any_frame(), Frame::Response(b"_heartbeat_".to_vec()));
        quiet.send("NOP\n");
    }
    nsqd.stop();
}

#[test]
fn a_restart_takes_the_port_over() {
    let nsqd = start(2);
    let address = nsqd.tcp_addr();
    let mut before = Client::new(address);
    before.publish("t", b"x");
    nsqd.stop();
    before.expect_end();
    let mut again = options(2);
    again.tcp_address = address.to_string();
    let again = Server::nsqd(again).unwrap();
    assert_eq!(again.tcp_addr(), address);
    Client::new(address).publish("t", b"x");
    again.stop();
}

#[test]
fn a_stop_closes_every_connection_and_the_ports() {
    let nsqd = start(4);
    let (address, http) = (nsqd.tcp_addr(), nsqd.http_addr().unwrap());
    let mut clients: Vec<_> = (0..20)
        .map(|n| {
            let mut client = Client::new(address);
            client.subscribe(&format!("t{n}"), "c", 1);
            client
        })
        .collect();
    let mut silent = Client::silent(address);
    let closing = thread::spawn(move || {
        clients.iter_mut().for_each(Client::expect_end);
        silent.expect_end();
    });
    nsqd.stop();
    closing.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
    assert!(TcpStream::connect(http).is_err());
}

#[test]
fn a_dropped_handle_ends_its_server() {
    let nsqd = start(2);
    let mut client = Client::new(nsqd.tcp_addr());
    client.publish("t", b"x");
    drop(nsqd);
    client.expect_end();
}

#[test]
fn a_port_in_use_is_named() {
    let nsqd = start(1);
    let address = nsqd.tcp_addr();
    let mut options = options(1);
    options.tcp_address = address.to_string();
    let error = Server::nsqd(options).err().expect("the port is taken");
    assert_eq!(
        error.to_string(),
        format!("listen ({address}) failed - listen tcp {address}: bind: address already in use")
    );
    nsqd.stop();
}
