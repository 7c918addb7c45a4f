//! Clients that behave badly, or that come and go at the worst moment.

use core::net::SocketAddr;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;

use sansq_core::protocol::frame::TOO_MANY_CONNECTIONS;

use super::client::{Frame, Message, publish, with_body};
use super::http::{exchange, get};
use super::life::until;
use super::{Client, options, start, start_lookupd};
use crate::harness::Server;

/// Every state that a connection can be left in, and what the server owes then.
fn beginnings(topic: usize) -> Vec<Vec<u8>> {
    let subscribe = format!("  V2SUB t{topic} c\nRDY 100\n").into_bytes();
    let mut all = vec![
        Vec::new(),
        b"  ".to_vec(),
        b"  V2".to_vec(),
        b"  V2SU".to_vec(),
        b"  V2NONSENSE\n".to_vec(),
        b"  V2PUB t\n\0\0".to_vec(),
        b"  V2PUB t\n\0\0\x01\0half".to_vec(),
        [b"  V2", &publish("t", b"whole")[..]].concat(),
        [b"  V2", &with_body("IDENTIFY", b"{}")[..]].concat(),
        [&subscribe[..], b"CLS\n"].concat(),
        [&subscribe[..], b"FIN 0123456789abcdef\n"].concat(),
        // Moves with input behind it.
        [&subscribe[..], &publish("elsewhere", b"x").repeat(50)[..]].concat(),
    ];
    all.push(subscribe);
    all
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let nsqd = start(4);
    let (address, http) = (nsqd.tcp_addr(), nsqd.http_addr().unwrap());
    let vanishing: Vec<_> = (0..4)
        .map(|thread| {
            thread::spawn(move || {
                for round in 0..60 {
                    for (n, beginning) in beginnings(round % 16).iter().enumerate() {
                        let mut client = Client::silent(address);
                        client.send(beginning);
                        match (round + n + thread) % 3 {
                            0 => client.half_close(),
                            // Whoever closes with unread input sends a reset.
                            1 if n > 5 && n != 6 => client.await_byte(),
                            _ => {}
                        }
                    }
                }
            })
        })
        .collect();
    vanishing.into_iter().for_each(|thread| thread.join().unwrap());
    until(|| {
        let stats = get(http, "/stats?format=json");
        assert!(stats.contains("\"topic_name\":\"t0\""), "{stats}");
        stats.matches("\"client_count\":").count() == stats.matches("\"client_count\":0").count()
    });
    Client::new(address).publish("t0", b"x");
    nsqd.stop();
}

#[test]
fn a_stop_in_the_middle_of_everything_is_an_orderly_one() {
    let nsqd = start(3);
    let (address, http) = (nsqd.tcp_addr(), nsqd.http_addr().unwrap());
    let (ready, is_ready) = channel();
    let busy: Vec<_> = (0..6)
        .map(|thread| {
            let ready = ready.clone();
            thread::spawn(move || {
                for round in 0.. {
                    let beginnings = beginnings(round % 16);
                    let beginning = &beginnings[(round + thread) % beginnings.len()];
                    let target = if thread == 0 { http } else { address };
                    let Ok(mut socket) = TcpStream::connect(target) else { return };
                    let request = b"POST /pub?topic=t1 HTTP/1.1\r\nHost: x\r\n\
                        Content-Length: 4\r\n\r\nbody";
                    // The server may go meanwhile.
                    let _ = socket.write_all(if thread == 0 { request } else { beginning });
                    if round == 20 {
                        ready.send(()).unwrap();
                    }
                }
            })
        })
        .collect();
    for _ in &busy {
        is_ready.recv().unwrap();
    }
    nsqd.stop();
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn answers_that_are_not_read_are_not_lost() {
    const COUNT: usize = 100_000;
    let nsqd = start(1);
    let mut client = Client::new(nsqd.tcp_addr());
    client.subscribe("t", "c", 0);
    let mut sender = client.split();
    let sending = thread::spawn(move || {
        for _ in 0..COUNT / 1000 {
            sender.send("FIN 0123456789abcdef\n".repeat(1000));
        }
        sender.half_close();
    });
    // The answers to the first half fill whatever lies between.
    let mut other = Client::new(nsqd.tcp_addr());
    for n in 0..100_u32 {
        other.publish("other", &n.to_be_bytes());
    }
    let answers = client.rest();
    let text = b"E_FIN_FAILED FIN 0123456789abcdef failed ID not in flight";
    assert_eq!(answers.len(), COUNT * (8 + text.len()));
    assert!(answers.chunks(8 + text.len()).all(|answer| answer.ends_with(text)));
    sending.join().unwrap();
    nsqd.stop();
}

#[test]
fn commands_may_come_byte_by_byte() {
    let nsqd = start(2);
    let mut slow = Client::silent(nsqd.tcp_addr());
    let mut other = Client::new(nsqd.tcp_addr());
    let mut commands = b"  V2".to_vec();
    commands.extend(with_body("IDENTIFY", br#"{"client_id":"slow"}"#));
    commands.extend(publish("slow", b"one"));
    commands.extend_from_slice(b"SUB slow c\nRDY 1\n");
    for byte in commands {
        slow.send([byte]);
        // Each byte arrives alone: it takes the other a whole exchange.
        other.publish("other", b"x");
    }
    for _ in 0..3 {
        slow.expect_ok();
    }
    let message: Message = slow.message();
    assert_eq!(message.body, b"one");
    nsqd.stop();
}

#[test]
fn a_client_that_goes_away_does_not_take_its_publish_along() {
    let nsqd = start(4);
    let http = nsqd.http_addr().unwrap();
    for n in 0..16 {
        let mut socket = TcpStream::connect(http).unwrap();
        let head = format!("POST /pub?topic=t{n} HTTP/1.1\r\nHost: x\r\n");
        socket.write_all(format!("{head}Content-Length: 4\r\n\r\nbody").as_bytes()).unwrap();
        drop(socket);
        let mut consumer = Client::new(nsqd.tcp_addr());
        consumer.subscribe(&format!("t{n}"), "c", 1);
        assert_eq!(consumer.message().body, b"body");
    }
    // One whose body never comes keeps nobody waiting, nor the stop.
    let mut late = TcpStream::connect(http).unwrap();
    late.write_all(b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nb").unwrap();
    assert!(get(http, "/ping").ends_with("OK"));
    nsqd.stop();
}

#[test]
fn a_body_at_the_limit_is_taken() {
    const LEN: usize = 1024 * 1024;
    let nsqd = start(2);
    let body = "x".repeat(LEN);
    let head = format!(
        "POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {LEN}\r\n\r\n"
    );
    let answer = exchange(nsqd.http_addr().unwrap(), &format!("{head}{body}"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut consumer = Client::new(nsqd.tcp_addr());
    consumer.subscribe("t", "c", 1);
    assert!(consumer.message().body == body.as_bytes());
    nsqd.stop();
}

#[test]
fn a_client_without_a_place_is_told_so_and_places_come_back() {
    let mut options = options(3);
    options.max_connections = 4;
    let nsqd = Server::nsqd(options).unwrap();
    let (address, http) = (nsqd.tcp_addr(), nsqd.http_addr().unwrap());
    // Two of them move with their places.
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(address)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.publish(&format!("t{n}"), b"body");
        if n % 2 == 0 {
            client.subscribe(&format!("t{n}"), "c", 1);
            assert_eq!(client.message().body, b"body");
        }
    }
    for _ in 0..100 {
        let mut refused = Client::silent(address);
        // It may be closed before it has said anything, and at once if there are many of them.
        let _ = refused.try_send(b"  V2");
        match refused.try_rest() {
            Ok(rest) => assert!(rest.is_empty() || rest == TOO_MANY_CONNECTIONS, "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    // Once those have been seen to leave, there is time for the next one to read why.
    let text = Frame::Error(String::from("E_INVALID too many connections"));
    until(|| Client::silent(address).try_frame().as_ref() == Some(&text));
    // An operator can look, and those who are in notice nothing.
    assert!(get(http, "/ping").ends_with("OK"));
    let page = get(http, "/metrics");
    let refused =
        page.lines().find_map(|line| line.strip_prefix("nsqd_refused_connections_total "));
    assert!(refused.unwrap().parse::<u32>().unwrap() > 100);
    clients[1].publish("t1", b"more");
    for client in clients.drain(2..) {
        drop(client);
        until(|| {
            let mut client = Client::silent(address);
            let _ = client.try_send([b"  V2", &publish("t1", b"in")[..]].concat());
            matches!(client.try_frame(), Some(Frame::Response(_)))
        });
    }
    nsqd.stop();
}

#[test]
fn nsqlookupd_serves_many_at_once() {
    const COUNT: usize = 300;
    let lookupd = start_lookupd();
    let (address, http) = (lookupd.tcp_addr(), lookupd.http_addr().unwrap());
    let connect = |n: usize| {
        let mut client = Client::silent(address);
        let identity = format!(
            r#"{{"broadcast_address":"h{n}","hostname":"h{n}","tcp_port":1,"http_port":2,"version":"1"}}"#
        );
        client.send(b"  V1");
        client.send(with_body("IDENTIFY", identity.as_bytes()));
        client.send("REGISTER t c\n");
        client
    };
    let clients: Vec<_> = (0..COUNT).map(connect).collect();
    let producers = |address: SocketAddr| {
        get(address, "/lookup?topic=t").matches("\"broadcast_address\"").count()
    };
    until(|| producers(http) == COUNT);
    drop(clients);
    until(|| producers(http) == 0);
    lookupd.stop();
}
