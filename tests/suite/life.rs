//! nsqd and nsqlookupd together.

use core::net::SocketAddr;
use core::time::Duration;
use std::net::UdpSocket;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use sansq_core::nsqd::StatsdOptions;
use sansq_core::nsqd::http::{Memory, OptionValue};

use super::client::PATIENCE;
use super::http::{get, put};
use super::{Client, lookupd_options, options, start_lookupd};
use crate::harness::Server;

#[test]
fn life_of_a_message() {
    let lookupd = start_lookupd();
    let lookup = lookupd.http_addr().unwrap();
    let mut options = options(2);
    options.config.lookupd_tcp_addresses = vec![lookupd.tcp_addr().to_string()];
    let nsqd = Server::nsqd(options).unwrap();

    let mut producer = Client::new(nsqd.tcp_addr());
    producer.publish("orders", b"one");

    let found = find(lookup, "orders");
    assert_eq!(found, nsqd.tcp_addr());
    let mut consumer = Client::new(found);
    consumer.identify(r#"{"msg_timeout":1000}"#);
    consumer.subscribe("orders", "archive", 1);
    let first = consumer.message();
    assert_eq!((first.attempts, &first.body[..]), (1, &b"one"[..]));
    consumer.send(format!("REQ {} 0\n", first.id));
    let second = consumer.message();
    assert_eq!((second.attempts, &second.id), (2, &first.id));
    // No answer: it comes again when msg_timeout has gone by.
    let third = consumer.message();
    assert_eq!((third.attempts, &third.id), (3, &first.id));
    consumer.finish(&third);
    producer.publish("orders", b"two");
    assert_eq!(consumer.message().body, b"two");

    until(|| get(lookup, "/lookup?topic=orders").contains("\"channels\":[\"archive\"]"));
    nsqd.stop();
    until(|| get(lookup, "/lookup?topic=orders").ends_with("\"producers\":[]}"));
    lookupd.stop();
}

#[test]
fn statsd_hears_of_every_shard() {
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    statsd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut options = options(3);
    options.memory = Some(|| Memory { heap_objects: 42, ..Memory::default() });
    options.config.statsd = StatsdOptions {
        address: statsd.local_addr().unwrap().to_string(),
        prefix: String::from("x.%s"),
        // The shortest that there is.
        interval: Duration::from_millis(1_001),
        ..StatsdOptions::default()
    };
    let nsqd = Server::nsqd(options).unwrap();
    let mut client = Client::new(nsqd.tcp_addr());
    for topic in 0..6 {
        client.publish(&format!("t{topic}"), b"body");
    }
    let prefix = format!("x.127_0_0_1_{}", nsqd.http_addr().unwrap().port());
    let mut lines = Vec::new();
    while lines.last().map(String::as_str) != Some(&format!("{prefix}.mem.gc_runs:0|c")) {
        let mut packet = [0; 508];
        let count = statsd.recv(&mut packet).unwrap();
        let text = core::str::from_utf8(&packet[..count]).unwrap();
        lines.extend(text.lines().map(String::from));
    }
    for topic in 0..6 {
        let line = format!("{prefix}.topic.t{topic}.message_count:1|c");
        assert!(lines.contains(&line), "{lines:?}");
    }
    assert!(lines.contains(&format!("{prefix}.mem.heap_objects:42|g")), "{lines:?}");
    drop(client);
    nsqd.stop();
}

#[test]
fn nsqlookupds_come_and_go_by_config() {
    let (first, second) = (start_lookupd(), start_lookupd());
    let mut options = options(3);
    options.config.lookupd_tcp_addresses = vec![first.tcp_addr().to_string()];
    options.shown = [
        ("nsqlookupd_tcp_addresses", OptionValue::Texts(None)),
        ("broadcast_tcp_port", OptionValue::Integer(0)),
    ]
    .map(|(name, value)| (String::from(name), value))
    .into_iter()
    .collect();
    let nsqd = Server::nsqd(options).unwrap();
    let http = nsqd.http_addr().unwrap();
    Client::new(nsqd.tcp_addr()).publish("t", b"x");
    assert_eq!(find(first.http_addr().unwrap(), "t"), nsqd.tcp_addr());

    let list = format!("[\"{}\"]", second.tcp_addr());
    let answer = put(http, "/config/nsqlookupd_tcp_addresses", &list);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&list), "{answer}");
    assert_eq!(find(second.http_addr().unwrap(), "t"), nsqd.tcp_addr());
    until(|| get(first.http_addr().unwrap(), "/nodes").ends_with("{\"producers\":[]}"));
    assert!(get(http, "/config/nsqlookupd_tcp_addresses").ends_with(&list));
    assert!(get(http, "/config/broadcast_tcp_port").ends_with(&nsqd.tcp_addr().port().to_string()));
    // This server has no log whose level could be changed.
    assert!(put(http, "/config/log_level", "debug").starts_with("HTTP/1.1 400 "));
    nsqd.stop();
    first.stop();
    second.stop();
}

#[test]
fn an_nsqd_registers_again_when_nsqlookupd_comes_back() {
    let lookupd = start_lookupd();
    let address = lookupd.tcp_addr();
    let mut options = options(1);
    options.config.lookupd_tcp_addresses = vec![address.to_string()];
    let nsqd = Server::nsqd(options).unwrap();
    let mut producer = Client::new(nsqd.tcp_addr());
    producer.publish("before", b"x");
    find(lookupd.http_addr().unwrap(), "before");
    lookupd.stop();
    producer.publish("meanwhile", b"x");
    let mut options = lookupd_options();
    options.tcp_address = address.to_string();
    let lookupd = Server::lookupd(options).unwrap();
    for topic in ["before", "meanwhile"] {
        assert_eq!(find(lookupd.http_addr().unwrap(), topic), nsqd.tcp_addr());
    }
    nsqd.stop();
    lookupd.stop();
}

#[test]
fn nsqlookupd_answers_whoever_asks_faster_than_it_listens() {
    const COUNT: usize = 400_000;
    let lookupd = start_lookupd();
    let mut client = Client::silent(lookupd.tcp_addr());
    let mut sender = client.split();
    let (first_part, half_sent) = channel();
    let sending = thread::spawn(move || {
        sender.send("  V1");
        for part in 0..COUNT / 1000 {
            sender.send("PING\n".repeat(1000));
            // Nobody has read an answer yet.
            if part == 50 {
                first_part.send(()).unwrap();
            }
        }
        sender.half_close();
    });
    half_sent.recv().unwrap();
    let answers = client.rest();
    assert_eq!(answers.len(), COUNT * 6);
    assert!(answers.chunks(6).all(|answer| answer == b"\0\0\0\x02OK"));
    sending.join().unwrap();
    lookupd.stop();
}

/// Asks until an nsqd has the topic, and says where it is.
pub(super) fn find(lookup: SocketAddr, topic: &str) -> SocketAddr {
    let mut port = None;
    until(|| {
        let answer = get(lookup, &format!("/lookup?topic={topic}"));
        let from = answer.find("\"tcp_port\":").map(|at| at + "\"tcp_port\":".len());
        port = from.map(|from| {
            answer[from..].chars().take_while(char::is_ascii_digit).collect::<String>()
        });
        port.is_some()
    });
    SocketAddr::new([127, 0, 0, 1].into(), port.unwrap().parse().unwrap())
}

/// Asks again and again.
pub(super) fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come about");
    }
}
